#include "cdc/source/facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/quote.h"

#define ASK_MS     5000
#define SQL_MAX    (4u << 20) /* the names of very many tables */
#define TABLES_MAX 100000
#define OLDEST     130000

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for what the catalog says");
}

/* --- reading ------------------------------------------------------------------------ */

static void copy(char *to, size_t size, const PGresult *r, int column)
{
	(void)snprintf(to, size, "%s", cdc_pgconn_text(r, 0, column));
}

static enum cdc_code read_server(struct cdc_facts *f, struct cdc_pgconn *c, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	enum cdc_code rc = cdc_pgconn_exec(
		c,
		"SELECT pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery(), "
		"(SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = "
		"current_user), pg_catalog.current_setting('synchronous_standby_names'), "
		"(SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots), "
		"pg_catalog.current_setting('max_replication_slots'), "
		"pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')",
		ASK_MS, "looking at the server", &r, err);

	if (rc)
		return rc;
	copy(f->wal_level, sizeof(f->wal_level), r, 0);
	f->is_standby = cdc_pgconn_bool(r, 0, 1);
	f->may_replicate = cdc_pgconn_bool(r, 0, 2);
	copy(f->standby_names, sizeof(f->standby_names), r, 3);
	f->slots = cdc_pgconn_u32(r, 0, 4);
	f->slots_max = cdc_pgconn_u32(r, 0, 5);
	f->may_create = cdc_pgconn_bool(r, 0, 6);
	return CDC_OK;
}

static enum cdc_code read_slot(struct cdc_facts *f, struct cdc_pgconn *c,
			       const struct cdc_source_plan *plan, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *slot = NULL, *unread = NULL;
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = SQL_MAX};
	enum cdc_code rc;

	cdc_buf_puts(&sql, "SELECT plugin, database, temporary, active_pid, wal_status, "
			   "confirmed_flush_lsn FROM pg_catalog.pg_replication_slots "
			   "WHERE slot_name = ");
	cdc_quote_text(&sql, plan->slot);
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "looking at the slot", &slot, err);
	if (rc)
		return rc;
	f->has_slot = PQntuples(slot) != 0;
	copy(f->plugin, sizeof(f->plugin), slot, 0);
	copy(f->slot_database, sizeof(f->slot_database), slot, 1);
	f->is_temporary = cdc_pgconn_bool(slot, 0, 2);
	f->slot_pid = cdc_pgconn_u32(slot, 0, 3);
	copy(f->wal_status, sizeof(f->wal_status), slot, 4);
	f->confirmed = cdc_pgconn_lsn(slot, 0, 5);
	cdc_buf_reset(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "SELECT pg_catalog.string_agg(slot_name, ', ' ORDER BY slot_name) "
			   "FROM (SELECT slot_name FROM pg_catalog.pg_replication_slots "
			   "WHERE plugin = 'pgoutput' AND NOT active AND NOT temporary "
			   "AND pg_catalog.starts_with(slot_name, 'walpost_') "
			   "AND database = pg_catalog.current_database() AND slot_name <> ");
	cdc_quote_text(&sql, plan->slot);
	cdc_buf_puts(&sql, " ORDER BY slot_name LIMIT 5) AS s");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "looking at other slots", &unread,
			     err);
	if (!rc)
		copy(f->unread, sizeof(f->unread), unread, 0);
	return rc;
}

static enum cdc_code read_publication(struct cdc_facts *f, struct cdc_pgconn *c,
				      const struct cdc_source_plan *plan, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = SQL_MAX};
	enum cdc_code rc;

	cdc_buf_puts(&sql,
		     "SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, "
		     "pg_catalog.pg_has_role(pubowner, 'USAGE') "
		     "FROM pg_catalog.pg_publication WHERE pubname = ");
	cdc_quote_text(&sql, plan->settings->publication);
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "looking at the publication", &r, err);
	if (rc)
		return rc;
	f->has_publication = PQntuples(r) != 0;
	f->is_all_tables = cdc_pgconn_bool(r, 0, 0);
	f->has_all_operations = cdc_pgconn_bool(r, 0, 1);
	f->is_publication_ours = cdc_pgconn_bool(r, 0, 2);
	return CDC_OK;
}

static void put_wanted(struct cdc_buf *sql, const struct cdc_source_plan *plan)
{
	cdc_buf_puts(sql, "ARRAY[");
	for (size_t i = 0; i < plan->table_n; i++) {
		if (i)
			cdc_buf_putc(sql, ',');
		cdc_quote_text(sql, plan->tables[i]);
	}
	cdc_buf_puts(sql, "]::pg_catalog.text[]");
}

/*
 * An UPDATE checks the identity of the table that holds the row: of a partitioned
 * table, every partition.  PostgreSQL source
 * src/backend/executor/execReplication.c, CheckCmdReplicaIdentity.
 */
static const char table_query[] =
	"WITH bare AS (SELECT c.oid FROM pg_catalog.pg_class c "
	"WHERE c.relkind = 'r' AND NOT (c.relreplident = 'f' OR EXISTS (SELECT 1 "
	"FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate "
	"AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident "
	"ELSE false END))), "
	"published AS (SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables "
	"WHERE pubname = %s) "
	"SELECT n.nspname, c.relname, n.nspname || '.' || c.relname, "
	"p.tablename IS NOT NULL, w.wanted, pg_catalog.pg_has_role(c.relowner, 'USAGE'), "
	"CASE c.relkind WHEN 'p' THEN NOT EXISTS (SELECT 1 FROM "
	"pg_catalog.pg_partition_tree(c.oid) t JOIN bare ON bare.oid = t.relid WHERE t.isleaf) "
	"ELSE c.oid NOT IN (SELECT oid FROM bare) END, "
	"EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid "
	"AND i.indisprimary AND i.indimmediate AND i.indisvalid), "
	"(SELECT x.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x "
	"ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid "
	"AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (SELECT 1 "
	"FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attnotnull "
	"AND a.attnum = ANY (i.indkey)) ORDER BY x.relname LIMIT 1) "
	"FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
	"LEFT JOIN published p ON p.schemaname = n.nspname AND p.tablename = c.relname "
	"CROSS JOIN LATERAL (SELECT n.nspname || '.' || c.relname = ANY (%s) AS wanted) w "
	"WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' "
	"AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') "
	"AND (w.wanted OR p.tablename IS NOT NULL OR (%s AND NOT c.relispartition)) "
	"ORDER BY 1, 2";

static char *keep(const PGresult *r, int row, int column)
{
	const char *text = cdc_pgconn_text(r, row, column);

	return *text ? strdup(text) : NULL;
}

static bool take_table(struct cdc_table_facts *t, const PGresult *r, int row, bool has_wanted)
{
	t->schema = keep(r, row, 0);
	t->name = keep(r, row, 1);
	t->text = keep(r, row, 2);
	t->is_published = cdc_pgconn_bool(r, row, 3);
	t->is_wanted = has_wanted ? cdc_pgconn_bool(r, row, 4) : true;
	t->is_owned = cdc_pgconn_bool(r, row, 5);
	t->has_identity = cdc_pgconn_bool(r, row, 6);
	t->has_key = cdc_pgconn_bool(r, row, 7);
	t->index = keep(r, row, 8);
	return t->schema && t->name && t->text;
}

/* Names of wanted tables that are not there. */
static enum cdc_code find_missing(struct cdc_facts *f, const struct cdc_source_plan *plan,
				  struct cdc_err *err)
{
	struct cdc_buf names = {.max = 4096};

	for (size_t i = 0; i < plan->table_n; i++) {
		bool is_there = false;

		for (size_t k = 0; k < f->table_n && !is_there; k++)
			is_there = strcmp(plan->tables[i], f->tables[k].text) == 0;
		if (!is_there)
			cdc_buf_printf(&names, "%s%s", names.len ? ", " : "", plan->tables[i]);
	}
	if (names.len) {
		cdc_buf_putc(&names, '\0');
		f->missing = names.failed ? strdup("very many") : strdup((const char *)names.data);
		cdc_buf_clear(&names);
		if (!f->missing)
			return no_memory(err);
	}
	return CDC_OK;
}

/* The wanted and the published ones; when nothing is wanted or published by name, all there are,
 * for the SQL that a person is to run. */
static enum cdc_code read_tables(struct cdc_facts *f, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = SQL_MAX};
	const bool is_any = plan->table_n == 0 && !f->has_publication;
	const char *at = table_query;
	enum cdc_code rc;

	for (int part = 0; part < 4; part++) {
		const char *end = strstr(at, "%s");

		cdc_buf_put(&sql, at, end ? (size_t)(end - at) : strlen(at));
		at = end ? end + 2 : at;
		if (part == 0)
			cdc_quote_text(&sql, plan->settings->publication);
		else if (part == 1)
			put_wanted(&sql, plan);
		else if (part == 2)
			cdc_buf_puts(&sql, is_any ? "true" : "false");
	}
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "looking at the tables", &r, err);
	if (rc)
		return rc;
	if (PQntuples(r) > TABLES_MAX)
		return cdc_err_set(err, CDC_LIMIT, "%s: more than %d tables in one publication",
				   c->where, TABLES_MAX);
	f->tables = calloc((size_t)PQntuples(r) + 1, sizeof(*f->tables));
	if (!f->tables)
		return no_memory(err);
	for (int row = 0; row < PQntuples(r); row++) {
		f->table_n++;
		if (!take_table(&f->tables[row], r, row, plan->table_n != 0))
			return no_memory(err);
	}
	return find_missing(f, plan, err);
}

enum cdc_code cdc_facts_read(struct cdc_facts *f, struct cdc_pgconn *c,
			     const struct cdc_source_plan *plan, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	memset(f, 0, sizeof(*f));
	f->version = PQserverVersion(c->pg);
	if (f->version < OLDEST)
		rc = cdc_err_set(err, CDC_CONFIG,
				 "%s: PostgreSQL %d.%d is too old: walpost reads 13 and newer",
				 c->where, f->version / 10000, f->version % 10000);
	if (!rc)
		rc = read_server(f, c, err);
	if (!rc)
		rc = read_slot(f, c, plan, err);
	if (!rc)
		rc = read_publication(f, c, plan, err);
	if (!rc)
		rc = read_tables(f, c, plan, err);
	if (rc)
		cdc_facts_clear(f);
	return rc;
}

void cdc_facts_clear(struct cdc_facts *f)
{
	for (size_t i = 0; i < f->table_n; i++) {
		free(f->tables[i].schema);
		free(f->tables[i].name);
		free(f->tables[i].text);
		free(f->tables[i].index);
	}
	free(f->tables);
	free(f->missing);
	memset(f, 0, sizeof(*f));
}

/* --- judging ------------------------------------------------------------------------ */

bool cdc_facts_hurts(const struct cdc_table_facts *t)
{
	return !t->has_identity;
}

static void put_table(struct cdc_buf *out, const struct cdc_table_facts *t)
{
	cdc_quote_name(out, t->schema);
	cdc_buf_putc(out, '.');
	cdc_quote_name(out, t->name);
}

void cdc_facts_identity_remedy(const struct cdc_table_facts *t, char *ret, size_t size)
{
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = 2048};

	cdc_buf_puts(&sql, "ALTER TABLE ");
	put_table(&sql, t);
	cdc_buf_puts(&sql, " REPLICA IDENTITY ");
	if (t->has_key) {
		cdc_buf_puts(&sql, "DEFAULT");
	} else if (t->index) {
		cdc_buf_puts(&sql, "USING INDEX ");
		cdc_quote_name(&sql, t->index);
	} else {
		cdc_buf_puts(&sql, "FULL");
	}
	cdc_buf_puts(&sql, t->has_key || t->index ? ";" : ";  (or give it a primary key)");
	(void)snprintf(ret, size, "%s", cdc_quote_end(&sql) ? (const char *)sql.data : "");
}

enum cdc_code cdc_facts_judge_server(const struct cdc_facts *f, const struct cdc_pgconn *c,
				     struct cdc_err *err)
{
	if (!f->may_replicate) {
		(void)cdc_err_set(
			err, CDC_CONFIG,
			"%s: role %s may not replicate: it lacks the REPLICATION attribute",
			c->where, c->settings->username);
		return cdc_err_remedy(err, "ALTER ROLE \"%s\" REPLICATION;", c->settings->username);
	}
	if (strcmp(f->wal_level, "logical") != 0) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: wal_level is %s, but changes are only read with logical",
				  c->where, f->wal_level);
		return cdc_err_remedy(err,
				      "ALTER SYSTEM SET wal_level = 'logical'; and restart the "
				      "server");
	}
	return CDC_OK;
}

static enum cdc_code other_slot(const struct cdc_facts *f, const struct cdc_pgconn *c,
				const struct cdc_source_plan *plan, struct cdc_err *err)
{
	if (strcmp(f->plugin, "pgoutput") != 0)
		(void)cdc_err_set(err, CDC_CONFIG, "%s: slot %s is %s%s, not one of pgoutput",
				  c->where, plan->slot, *f->plugin ? "one of the plugin " : "",
				  *f->plugin ? f->plugin : "a physical one");
	else
		(void)cdc_err_set(err, CDC_CONFIG, "%s: slot %s belongs to the database %s",
				  c->where, plan->slot, f->slot_database);
	return cdc_err_remedy(err,
			      "set source_configuration.replication_slot to another name, or, "
			      "if nobody needs it: SELECT pg_drop_replication_slot('%s');",
			      plan->slot);
}

static enum cdc_code no_slot(const struct cdc_facts *f, const struct cdc_pgconn *c,
			     const struct cdc_source_plan *plan, bool must_exist,
			     struct cdc_err *err)
{
	if (must_exist) {
		(void)cdc_err_set(err, CDC_GAP,
				  "%s: slot %s, which was read before, is no longer there: changes "
				  "since then are lost",
				  c->where, plan->slot);
		return cdc_err_remedy(err,
				      "start afresh with an empty data_dir and copy the tables "
				      "once");
	}
	if (!plan->may_create) {
		(void)cdc_err_set(err, CDC_MISSING, "%s: there is no slot %s", c->where,
				  plan->slot);
		return cdc_err_remedy(
			err, "SELECT pg_create_logical_replication_slot('%s', 'pgoutput');",
			plan->slot);
	}
	if (f->slots >= f->slots_max) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: all %u replication slots that max_replication_slots allows "
				  "are in use",
				  c->where, f->slots_max);
		return cdc_err_remedy(
			err,
			"ALTER SYSTEM SET max_replication_slots = %u; and restart the "
			"server, or drop a slot that nobody needs",
			f->slots_max + 10);
	}
	return CDC_OK;
}

enum cdc_code cdc_facts_judge_slot(const struct cdc_facts *f, const struct cdc_pgconn *c,
				   const struct cdc_source_plan *plan, bool must_exist,
				   struct cdc_err *err)
{
	if (!f->has_slot)
		return no_slot(f, c, plan, must_exist, err);
	if (strcmp(f->plugin, "pgoutput") != 0 ||
	    strcmp(f->slot_database, c->settings->database) != 0)
		return other_slot(f, c, plan, err);
	if (strcmp(f->wal_status, "lost") == 0) {
		(void)cdc_err_set(err, CDC_GAP,
				  "%s: slot %s is lost: the server removed WAL that it needed "
				  "(max_slot_wal_keep_size)",
				  c->where, plan->slot);
		return cdc_err_remedy(err,
				      "SELECT pg_drop_replication_slot('%s'); then start "
				      "afresh with an empty data_dir and copy the tables once",
				      plan->slot);
	}
	if (f->slot_pid)
		return cdc_err_set(err, CDC_HELD, "%s: slot %s is being read by process %u",
				   c->where, plan->slot, f->slot_pid);
	if (!f->confirmed)
		return cdc_err_set(err, CDC_HELD, "%s: slot %s is still being created", c->where,
				   plan->slot);
	return CDC_OK;
}

size_t cdc_facts_publication_sql(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				 struct cdc_buf *out)
{
	size_t n = 0;

	cdc_buf_puts(out, f->has_publication ? "ALTER PUBLICATION " : "CREATE PUBLICATION ");
	cdc_quote_name(out, plan->settings->publication);
	for (size_t i = 0; i < f->table_n; i++) {
		const struct cdc_table_facts *t = &f->tables[i];

		if (!t->is_wanted || t->is_published || cdc_facts_hurts(t))
			continue;
		cdc_buf_puts(out, n ? ", " : f->has_publication ? " ADD TABLE " : " FOR TABLE ");
		put_table(out, t);
		n++;
	}
	if (!f->has_publication)
		cdc_buf_puts(out, " WITH (publish_via_partition_root = true)");
	return n;
}

/* The SQL as a remedy, shortened where it would not fit. */
static enum cdc_code remedy_sql(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				struct cdc_err *err)
{
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = SQL_MAX};
	size_t n = cdc_facts_publication_sql(f, plan, &sql);
	const char *text = cdc_quote_end(&sql);

	if (n && text && strlen(text) < sizeof(err->remedy) - 2)
		return cdc_err_remedy(err, "%s;", text);
	return cdc_err_remedy(err,
			      "CREATE PUBLICATION \"%s\" FOR TABLE ... WITH "
			      "(publish_via_partition_root = true); with the tables to be read",
			      plan->settings->publication);
}

static const struct cdc_table_facts *not_ours(const struct cdc_facts *f)
{
	for (size_t i = 0; i < f->table_n; i++) {
		const struct cdc_table_facts *t = &f->tables[i];

		if (t->is_wanted && !t->is_published && !cdc_facts_hurts(t) && !t->is_owned)
			return t;
	}
	return NULL;
}

static bool lacks_tables(const struct cdc_facts *f)
{
	for (size_t i = 0; i < f->table_n; i++) {
		if (f->tables[i].is_wanted && !f->tables[i].is_published &&
		    !cdc_facts_hurts(&f->tables[i]))
			return true;
	}
	return false;
}

/* Every wanted table would hurt: there is nothing to read. */
static const struct cdc_table_facts *all_hurt(const struct cdc_facts *f)
{
	const struct cdc_table_facts *first = NULL;

	for (size_t i = 0; i < f->table_n; i++) {
		const struct cdc_table_facts *t = &f->tables[i];

		if (!t->is_wanted)
			continue;
		if (t->is_published || !cdc_facts_hurts(t))
			return NULL;
		first = first ? first : t;
	}
	return first;
}

enum cdc_code cdc_facts_judge_publication(const struct cdc_facts *f, const struct cdc_pgconn *c,
					  const struct cdc_source_plan *plan, bool may_change,
					  struct cdc_err *err)
{
	const char *name = plan->settings->publication;
	const struct cdc_table_facts *t;

	if (f->missing)
		return cdc_err_set(err, CDC_MISSING, "%s: there is no table %s in database %s",
				   c->where, f->missing, c->settings->database);
	t = plan->table_n ? all_hurt(f) : NULL;
	if (t) {
		char remedy[600];

		cdc_facts_identity_remedy(t, remedy, sizeof(remedy));
		(void)cdc_err_set(
			err, CDC_CONFIG,
			"%s: table %s has no replica identity: its UPDATE and DELETE would "
			"fail if it were published, and no other table is to be read",
			c->where, t->text);
		return cdc_err_remedy(err, "%s", remedy);
	}
	if (!f->has_publication && (plan->table_n == 0 || !may_change)) {
		(void)cdc_err_set(
			err, CDC_MISSING, "%s: there is no publication %s%s", c->where, name,
			plan->table_n ? "" : ", and no sync names the tables it is to have");
		return remedy_sql(f, plan, err);
	}
	if (!lacks_tables(f))
		return CDC_OK;
	if (f->has_publication && (!may_change || !f->is_publication_ours)) {
		(void)cdc_err_set(
			err, CDC_MISSING,
			"%s: publication %s lacks tables that are to be read, and role %s "
			"may not add them",
			c->where, name, c->settings->username);
		return remedy_sql(f, plan, err);
	}
	t = not_ours(f);
	if (t || (!f->has_publication && !f->may_create)) {
		(void)cdc_err_set(err, CDC_MISSING, "%s: role %s may not publish %s: %s", c->where,
				  c->settings->username, t ? t->text : "tables",
				  t ? "it does not own the table"
				    : "it lacks CREATE on the database");
		return remedy_sql(f, plan, err);
	}
	return CDC_OK;
}
