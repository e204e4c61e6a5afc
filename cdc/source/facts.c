#include "cdc/source/facts.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/base/buf.h"
#include "cdc/source/quote.h"

#define ASK_MS            8000
#define SQL_MAX           (8u << 20)   /* a plan of 100,000 names */
#define ARENA_MAX         (256u << 20) /* 300,000 tables */
#define GENERATED_VERSION 180000       /* generated columns can be published */
#define FIRST_USERS       "16384"      /* FirstNormalObjectId: below it nothing is publishable */

void cdc_facts_init(struct cdc_facts *f)
{
	*f = (struct cdc_facts){0};
}

void cdc_facts_clear(struct cdc_facts *f)
{
	cdc_arena_free(f->arena);
	free(f->tables);
	cdc_facts_init(f);
}

/* --- small things ------------------------------------------------------------------------ */

/* NULL: out of memory.  The caller asks once, at the end of a row. */
static const char *keep(struct cdc_facts *f, const PGresult *r, int row, int column)
{
	return cdc_arena_strdup(f->arena, cdc_pgconn_text(r, row, column));
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for what the server says");
}

static enum cdc_code ask(struct cdc_pgconn *c, struct cdc_buf *sql, const char *doing,
			 PGresult **ret, struct cdc_err *err)
{
	return cdc_pgconn_exec(c, cdc_quote_end(sql), ASK_MS, doing, ret, err);
}

/* --- server and role ----------------------------------------------------------------------- */

static enum cdc_platform platform_of(const char *roles)
{
	static const struct {
		const char *role;
		enum cdc_platform platform;
	} platforms[] = {
		{"rds_superuser", CDC_PLATFORM_RDS},
		{"cloudsqlsuperuser", CDC_PLATFORM_CLOUD_SQL},
		{"azure_pg_admin", CDC_PLATFORM_AZURE},
		{"supabase_admin", CDC_PLATFORM_SUPABASE},
		{"neon_superuser", CDC_PLATFORM_NEON},
	};

	for (size_t i = 0; i < sizeof(platforms) / sizeof(platforms[0]); i++) {
		if (strstr(roles, platforms[i].role))
			return platforms[i].platform;
	}
	return CDC_PLATFORM_PLAIN;
}

static enum cdc_code read_server(struct cdc_facts *f, struct cdc_pgconn *c, struct cdc_err *err)
{
	static const char sql[] =
		"SELECT pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery(), "
		"pg_catalog.current_setting('max_replication_slots'), "
		"(SELECT count(*) FROM pg_catalog.pg_replication_slots), "
		"(SELECT pg_catalog.string_agg(i.slot_name::text, ', ') FROM (SELECT slot_name "
		"FROM pg_catalog.pg_replication_slots WHERE NOT active LIMIT 5) i), "
		"current_user, pg_catalog.current_database(), "
		"pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), "
		"pg_catalog.current_setting('synchronous_standby_names'), "
		"pg_catalog.current_setting('extra_float_digits'), "
		"(SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user), "
		"pg_catalog.current_setting('hot_standby_feedback'), "
		"pg_catalog.current_setting('server_encoding'), "
		"pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size')), "
		"pg_catalog.current_setting('max_wal_senders'), "
		"(SELECT count(*) FROM pg_catalog.pg_stat_replication), "
		"(SELECT s.setting FROM pg_catalog.pg_settings s "
		"WHERE s.name = 'idle_replication_slot_timeout'), "
		"(SELECT pg_catalog.string_agg(r.rolname::text, ' ') FROM pg_catalog.pg_roles r "
		"WHERE r.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin', "
		"'supabase_admin', 'neon_superuser')), "
		"pg_catalog.current_setting('wal_sender_timeout'), "
		"(SELECT r.rolreplication FROM pg_catalog.pg_roles r WHERE r.rolname = "
		"current_user)";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	enum cdc_code rc = cdc_pgconn_exec(c, sql, ASK_MS, "reading the settings", &r, err);

	if (rc)
		return rc;
	f->wal_level = keep(f, r, 0, 0);
	f->is_in_recovery = cdc_pgconn_bool(r, 0, 1);
	f->slot_max = cdc_pgconn_u32(r, 0, 2);
	f->slot_n = cdc_pgconn_u32(r, 0, 3);
	f->idle_slots = keep(f, r, 0, 4);
	f->role = keep(f, r, 0, 5);
	f->database = keep(f, r, 0, 6);
	f->may_make_publications = cdc_pgconn_bool(r, 0, 7);
	f->standby_names = keep(f, r, 0, 8);
	/* The connect has set it; by itself it is 1. */
	f->is_pooled = strcmp(cdc_pgconn_text(r, 0, 9), "3") != 0;
	f->is_superuser = cdc_pgconn_bool(r, 0, 10);
	f->has_feedback = strcmp(cdc_pgconn_text(r, 0, 11), "on") == 0;
	f->encoding = keep(f, r, 0, 12);
	f->keep_bytes = strtoll(cdc_pgconn_text(r, 0, 13), NULL, 10);
	f->sender_max = cdc_pgconn_u32(r, 0, 14);
	f->sender_n = cdc_pgconn_u32(r, 0, 15);
	f->idle_limit_s = cdc_pgconn_u32(r, 0, 16);
	f->platform = platform_of(cdc_pgconn_text(r, 0, 17));
	f->sender_timeout = keep(f, r, 0, 18);
	f->has_replication = cdc_pgconn_bool(r, 0, 19);
	if (!f->wal_level || !f->idle_slots || !f->role || !f->database || !f->standby_names ||
	    !f->encoding || !f->sender_timeout)
		return no_memory(err);
	return CDC_OK;
}

/* --- slot ------------------------------------------------------------------------------------ */

/* A column that only newer servers have is read as null on others, by way of JSON. */
static enum cdc_code read_slot(struct cdc_facts *f, struct cdc_pgconn *c, const char *slot,
			       struct cdc_err *err)
{
	static const char select[] =
		"SELECT coalesce(s.plugin, ''), coalesce(s.database, ''), s.temporary, "
		"s.active_pid, a.application_name, s.wal_status, s.confirmed_flush_lsn, "
		"coalesce(pg_catalog.to_jsonb(s) ->> 'synced', 'f'), "
		"CASE WHEN pg_catalog.to_jsonb(s) ->> 'invalidation_reason' IS NOT NULL "
		"THEN pg_catalog.to_jsonb(s) ->> 'invalidation_reason' "
		"WHEN s.wal_status = 'lost' THEN 'wal_removed' "
		"WHEN pg_catalog.to_jsonb(s) ->> 'conflicting' = 'true' THEN 'rows_removed' END, "
		"pg_catalog.host(a.client_addr), "
		"coalesce(pg_catalog.to_jsonb(s) ->> 'two_phase', 'f'), "
		"coalesce(pg_catalog.to_jsonb(s) ->> 'failover', 'f') "
		"FROM pg_catalog.pg_replication_slots s "
		"LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid "
		"WHERE s.slot_name = ";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_fact_slot *s = &f->slot;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, select);
	cdc_quote_text(&sql, slot);
	rc = ask(c, &sql, "reading the slot", &r, err);
	cdc_buf_clear(&sql);
	if (rc || PQntuples(r) == 0)
		return rc;
	*s = (struct cdc_fact_slot){
		.exists = true,
		.plugin = keep(f, r, 0, 0),
		.database = keep(f, r, 0, 1),
		.is_temporary = cdc_pgconn_bool(r, 0, 2),
		.active_pid = cdc_pgconn_u32(r, 0, 3),
		.reader = keep(f, r, 0, 4),
		.wal_status = keep(f, r, 0, 5),
		.confirmed_lsn = cdc_pgconn_lsn(r, 0, 6),
		.is_synced = cdc_pgconn_bool(r, 0, 7),
		.invalidation = keep(f, r, 0, 8),
		.reader_address = keep(f, r, 0, 9),
		.is_two_phase = cdc_pgconn_bool(r, 0, 10),
		.is_failover = cdc_pgconn_bool(r, 0, 11),
	};
	return s->plugin && s->database && s->reader && s->wal_status && s->invalidation &&
			       s->reader_address
		       ? CDC_OK
		       : no_memory(err);
}

/* --- publication -------------------------------------------------------------------------------
 */

static enum cdc_code read_publication(struct cdc_facts *f, struct cdc_pgconn *c, const char *name,
				      struct cdc_err *err)
{
	static const char select[] =
		"SELECT pg_catalog.pg_get_userbyid(p.pubowner), "
		"pg_catalog.pg_has_role(p.pubowner, 'USAGE'), "
		"p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot "
		"FROM pg_catalog.pg_publication p WHERE p.pubname = ";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, select);
	cdc_quote_text(&sql, name);
	rc = ask(c, &sql, "reading the publication", &r, err);
	cdc_buf_clear(&sql);
	if (rc || PQntuples(r) == 0)
		return rc;
	f->publication = (struct cdc_fact_publication){
		.exists = true,
		.owner = keep(f, r, 0, 0),
		.is_alterable = cdc_pgconn_bool(r, 0, 1),
		.inserts = cdc_pgconn_bool(r, 0, 2),
		.updates = cdc_pgconn_bool(r, 0, 3),
		.deletes = cdc_pgconn_bool(r, 0, 4),
		.truncates = cdc_pgconn_bool(r, 0, 5),
		.is_via_root = cdc_pgconn_bool(r, 0, 6),
	};
	return f->publication.owner ? CDC_OK : no_memory(err);
}

/* --- tables
 * --------------------------------------------------------------------------------------- */

/* The index that is table T's replica identity, as PostgreSQL picks it (RelationGetIndexList). */
#define IDENTITY_OF(T)                                                                             \
	"(SELECT x.indkey FROM pg_catalog.pg_index x WHERE x.indrelid = " T ".oid "                \
	"AND x.indisvalid AND x.indisunique AND x.indimmediate AND x.indpred IS NULL "             \
	"AND CASE " T ".relreplident WHEN 'd' THEN x.indisprimary "                                \
	"WHEN 'i' THEN x.indisreplident ELSE false END LIMIT 1)"

/* What would give the table K the best identity there is without a new index. */
static const char mend_sql[] =
	"CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = k.oid "
	"AND x.indisprimary AND x.indisvalid AND x.indimmediate) AND k.relreplident <> 'd' "
	"THEN 'REPLICA IDENTITY DEFAULT' ELSE coalesce((SELECT 'REPLICA IDENTITY USING INDEX ' || "
	"pg_catalog.quote_ident(xc.relname) FROM pg_catalog.pg_index x "
	"JOIN pg_catalog.pg_class xc ON xc.oid = x.indexrelid WHERE x.indrelid = k.oid "
	"AND x.indisvalid AND x.indisunique AND x.indimmediate AND x.indpred IS NULL "
	"AND x.indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute xa "
	"WHERE xa.attrelid = k.oid AND xa.attnum = ANY (x.indkey) "
	"AND (NOT xa.attnotnull OR xa.attgenerated <> '')) "
	"ORDER BY 1 LIMIT 1), 'REPLICA IDENTITY FULL') END";

/* PostgreSQL 18 refuses UPDATEs where a generated column is in the identity and not published; the
 * publications made here publish the stored ones. */
static const char generated_sql[] =
	"EXISTS (SELECT FROM pg_catalog.pg_attribute g WHERE g.attrelid = k.oid AND g.attnum > 0 "
	"AND NOT g.attisdropped AND (g.attgenerated = 'v' OR g.attgenerated = 's' "
	"AND p.pubgencols = 'n') AND (k.relreplident = 'f' OR g.attnum = ANY (ki.indkey)))";

/* Before, nobody is refused: the rows are sent without it. */
static const char unsent_sql[] =
	"k.relreplident <> 'f' AND EXISTS (SELECT FROM pg_catalog.pg_attribute g "
	"WHERE g.attrelid = k.oid AND g.attgenerated <> '' AND g.attnum = ANY (ki.indkey))";

/* The column list does not hold the identity; the row filter reads columns outside it.  A column
 * that is in the list and in the filter depends on the table twice. */
static const char list_sql[] =
	"pr.prattrs IS NOT NULL AND (c.relreplident = 'f' OR EXISTS (SELECT "
	"FROM pg_catalog.unnest(ci.indkey) AS u (attnum) WHERE NOT u.attnum = ANY (pr.prattrs)))";
static const char filter_sql[] =
	"pr.prqual IS NOT NULL AND c.relreplident <> 'f' AND EXISTS (SELECT "
	"FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_publication_rel'::regclass "
	"AND d.objid = pr.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass "
	"AND d.refobjid = c.oid AND d.refobjsubid > 0 GROUP BY d.refobjsubid "
	"HAVING count(*) > CASE WHEN coalesce(d.refobjsubid = ANY (pr.prattrs), false) "
	"THEN 1 ELSE 0 END AND NOT coalesce(d.refobjsubid = ANY (ci.indkey), false))";

enum column {
	COLUMN_SCHEMA,
	COLUMN_TABLE,
	COLUMN_OWNER,
	COLUMN_KIND,
	COLUMN_PERSISTENCE,
	COLUMN_IDENTITY,
	COLUMN_IS_OWNED,
	COLUMN_IS_ASKED,
	COLUMN_IS_PUBLISHED,
	COLUMN_IS_LISTED,
	COLUMN_SENT_AS,
	COLUMN_HAS_KEY,
	COLUMN_HURT_SCHEMA,
	COLUMN_HURT_TABLE,
	COLUMN_IS_GENERATED,
	COLUMN_MEND,
	COLUMN_HURTS_LIST,
	COLUMN_HURTS_FILTER,
	COLUMN_HIDES_ROWS,
	COLUMN_UNREAD,
};

/* Is the table with these aliases of pg_namespace and pg_class one that the plan asks for? */
static void put_asked(struct cdc_buf *sql, const struct cdc_source_plan *plan, const char *schema,
		      const char *table)
{
	cdc_buf_printf(sql, "%s.nspname || '.' || %s.relname = ANY (ARRAY[", schema, table);
	for (size_t i = 0; i < plan->table_n; i++) {
		cdc_buf_puts(sql, i ? ", " : "");
		cdc_quote_text(sql, plan->tables[i]);
	}
	cdc_buf_puts(sql, "]::pg_catalog.text[])");
}

static bool has_pattern(const struct cdc_source_plan *plan)
{
	for (size_t i = 0; i < plan->table_n; i++) {
		if (cdc_pattern_is_one(plan->tables[i]))
			return true;
	}
	return false;
}

/* Does the table with the aliases n and c match one of the plan's patterns? */
static void put_matches(struct cdc_buf *sql, const struct cdc_source_plan *plan)
{
	const char *before = "n.nspname || '.' || c.relname LIKE ANY (ARRAY[";
	struct cdc_buf like;

	cdc_buf_init(&like, SQL_MAX);
	for (size_t i = 0; i < plan->table_n; i++) {
		if (!cdc_pattern_is_one(plan->tables[i]))
			continue;
		cdc_buf_reset(&like, SQL_MAX);
		for (const char *at = plan->tables[i]; *at; at++) {
			if (strchr("\\%_", *at))
				cdc_buf_putc(&like, '\\');
			cdc_buf_putc(&like, *at == '*' ? '%' : *at);
		}
		cdc_buf_puts(sql, before);
		if (cdc_quote_end(&like))
			cdc_quote_text(sql, (const char *)like.data);
		else
			sql->failed = true;
		before = ", ";
	}
	cdc_buf_clear(&like);
	cdc_buf_puts(sql, *before == 'n' ? "false" : "]::pg_catalog.text[])");
}

static void put_columns(struct cdc_buf *sql, int version, const struct cdc_source_plan *plan)
{
	cdc_buf_puts(
		sql,
		"SELECT n.nspname, c.relname, pg_catalog.pg_get_userbyid(c.relowner), c.relkind, "
		"c.relpersistence, c.relreplident, pg_catalog.pg_has_role(c.relowner, 'USAGE'), "
		"c.is_asked, m.oid IS NOT NULL, "
		"pr.oid IS NOT NULL AND c.relkind = 'p' AND m.oid IS NULL, "
		/* The ancestor whose name the rows of a partition carry. */
		"(SELECT an.nspname || '.' || ac.relname "
		"FROM pg_catalog.pg_partition_ancestors(c.oid) anc "
		"JOIN pg_catalog.pg_class ac ON ac.oid = anc.relid "
		"JOIN pg_catalog.pg_namespace an ON an.oid = ac.relnamespace "
		"WHERE c.relispartition AND anc.relid <> c.oid AND coalesce(p.pubviaroot, true) "
		"AND (anc.relid IN (SELECT oid FROM member) OR ");
	if (plan->table_n)
		put_asked(sql, plan, "an", "ac");
	else
		cdc_buf_puts(sql, "false");
	cdc_buf_puts(sql, ") LIMIT 1), "
			  "EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid "
			  "AND x.indisprimary AND x.indisvalid AND x.indimmediate), "
			  "h.nspname, h.relname, h.is_generated, h.mend, ");
	if (version >= 150000) {
		cdc_buf_puts(sql, list_sql);
		cdc_buf_puts(sql, ", ");
		cdc_buf_puts(sql, filter_sql);
	} else {
		cdc_buf_puts(sql, "false, false");
	}
	cdc_buf_puts(sql, ", pg_catalog.row_security_active(c.oid), "
			  "(SELECT l.oid::pg_catalog.regclass FROM (SELECT c.oid UNION ALL "
			  "SELECT pt.relid FROM pg_catalog.pg_partition_tree(c.oid) pt "
			  "WHERE c.relkind = 'p' AND pt.isleaf) l "
			  "WHERE NOT pg_catalog.has_table_privilege(l.oid, 'SELECT') LIMIT 1)");
}

/* One table, the table itself or a partition of it, that has no identity to publish. */
static void put_hurt(struct cdc_buf *sql, int version)
{
	const char *generated = version >= GENERATED_VERSION ? generated_sql : unsent_sql;

	cdc_buf_puts(sql, " LEFT JOIN LATERAL (SELECT kn.nspname, k.relname, "
			  "(k.relreplident = 'f' OR ki.indkey IS NOT NULL) AS is_generated, ");
	cdc_buf_puts(sql, mend_sql);
	cdc_buf_puts(sql, " AS mend FROM (SELECT c.oid UNION SELECT pt.relid "
			  "FROM pg_catalog.pg_partition_tree(c.oid) pt WHERE c.relkind = 'p' "
			  "AND pt.isleaf) l "
			  /* Looked up one by one: a join reads all of pg_class for every table. */
			  "CROSS JOIN LATERAL (SELECT kc.* FROM pg_catalog.pg_class kc "
			  "WHERE kc.oid = l.oid LIMIT 1) k "
			  "JOIN pg_catalog.pg_namespace kn ON kn.oid = k.relnamespace "
			  "LEFT JOIN LATERAL " IDENTITY_OF(
				  "k") " ki ON true WHERE k.relkind = 'r' AND "
				       "(k.relreplident <> 'f' AND ki.indkey IS NULL OR ");
	cdc_buf_puts(sql, generated);
	cdc_buf_puts(sql, ") ORDER BY 1, 2 LIMIT 1) h ON true");
}

/* Every table of the users', partitions through their root, not what an extension brought. */
static const char every_sql[] =
	"c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition "
	"AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' "
	"AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.objid = c.oid "
	"AND e.classid = 'pg_catalog.pg_class'::regclass AND e.deptype = 'e')";

static void put_tables(struct cdc_buf *sql, const struct cdc_facts *f,
		       const struct cdc_source_plan *plan)
{
	cdc_buf_puts(sql, "WITH member AS (SELECT mc.oid FROM pg_catalog.pg_publication_tables mt "
			  "JOIN pg_catalog.pg_namespace mn ON mn.nspname = mt.schemaname "
			  "JOIN pg_catalog.pg_class mc ON mc.relnamespace = mn.oid "
			  "AND mc.relname = mt.tablename WHERE mt.pubname = ");
	cdc_quote_text(sql, plan->settings->publication);
	cdc_buf_puts(sql, ") ");
	put_columns(sql, f->version, plan);
	cdc_buf_puts(sql, " FROM (SELECT c.*, ");
	if (plan->table_n)
		put_asked(sql, plan, "n", "c");
	else
		cdc_buf_puts(sql, "false");
	cdc_buf_puts(sql, " OR c.oid IN (SELECT oid FROM member) AND ");
	put_matches(sql, plan);
	cdc_buf_puts(sql, " AS is_asked FROM pg_catalog.pg_class c "
			  "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
			  "WHERE c.oid >= " FIRST_USERS
			  " AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (");
	if (plan->table_n) {
		put_asked(sql, plan, "n", "c");
		cdc_buf_puts(sql, " OR ");
	}
	if (f->is_every_table) {
		cdc_buf_puts(sql, every_sql);
		if (plan->table_n) {
			cdc_buf_puts(sql, " AND ");
			put_matches(sql, plan);
		}
		cdc_buf_puts(sql, " OR ");
	}
	cdc_buf_puts(sql, "c.oid IN (SELECT oid FROM member))) c "
			  "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
			  "LEFT JOIN member m ON m.oid = c.oid "
			  "LEFT JOIN pg_catalog.pg_publication p ON p.pubname = ");
	cdc_quote_text(sql, plan->settings->publication);
	cdc_buf_puts(sql, " LEFT JOIN pg_catalog.pg_publication_rel pr ON pr.prpubid = p.oid "
			  "AND pr.prrelid = c.oid "
			  "LEFT JOIN LATERAL " IDENTITY_OF("c") " ci ON true");
	put_hurt(sql, f->version);
	cdc_buf_puts(sql, " ORDER BY n.nspname, c.relname");
}

static const char *sql_name(struct cdc_facts *f, const char *schema, const char *table)
{
	struct cdc_buf name;
	const char *ended;

	cdc_buf_init(&name, 512); /* two names of 63 bytes, every one of them doubled */
	cdc_quote_name(&name, schema);
	cdc_buf_putc(&name, '.');
	cdc_quote_name(&name, table);
	ended = cdc_quote_end(&name);
	ended = ended ? cdc_arena_strdup(f->arena, ended) : NULL;
	cdc_buf_clear(&name);
	return ended;
}

static const char *plain_name(struct cdc_facts *f, const char *schema, const char *table)
{
	size_t schema_n = strlen(schema), table_n = strlen(table);
	char *name = cdc_arena_alloc(f->arena, schema_n + table_n + 2);

	if (!name)
		return NULL;
	memcpy(name, schema, schema_n);
	name[schema_n] = '.';
	memcpy(name + schema_n + 1, table, table_n + 1);
	return name;
}

static enum cdc_hurt hurt_of(const struct cdc_facts *f, const PGresult *r, int row)
{
	if (*cdc_pgconn_text(r, row, COLUMN_HURT_TABLE))
		return !cdc_pgconn_bool(r, row, COLUMN_IS_GENERATED) ? CDC_HURT_IDENTITY
		       : f->version >= GENERATED_VERSION             ? CDC_HURT_GENERATED
								     : CDC_HURT_UNSENT;
	if (cdc_pgconn_bool(r, row, COLUMN_HURTS_LIST))
		return CDC_HURT_LIST;
	return cdc_pgconn_bool(r, row, COLUMN_HURTS_FILTER) ? CDC_HURT_FILTER : CDC_HURT_NONE;
}

static bool keep_table(struct cdc_facts *f, const PGresult *r, int row)
{
	const char *schema = cdc_pgconn_text(r, row, COLUMN_SCHEMA);
	const char *table = cdc_pgconn_text(r, row, COLUMN_TABLE);
	struct cdc_fact_table *t = &f->tables[f->table_n];

	*t = (struct cdc_fact_table){
		.name = plain_name(f, schema, table),
		.sql_name = sql_name(f, schema, table),
		.owner = keep(f, r, row, COLUMN_OWNER),
		.kind = cdc_pgconn_text(r, row, COLUMN_KIND)[0],
		.persistence = cdc_pgconn_text(r, row, COLUMN_PERSISTENCE)[0],
		.identity = cdc_pgconn_text(r, row, COLUMN_IDENTITY)[0],
		.is_owned = cdc_pgconn_bool(r, row, COLUMN_IS_OWNED),
		.is_asked = cdc_pgconn_bool(r, row, COLUMN_IS_ASKED),
		.is_published = cdc_pgconn_bool(r, row, COLUMN_IS_PUBLISHED),
		.is_listed = cdc_pgconn_bool(r, row, COLUMN_IS_LISTED),
		.sent_as = keep(f, r, row, COLUMN_SENT_AS),
		.has_primary_key = cdc_pgconn_bool(r, row, COLUMN_HAS_KEY),
		.hides_rows = cdc_pgconn_bool(r, row, COLUMN_HIDES_ROWS),
		.unread_sql_name = keep(f, r, row, COLUMN_UNREAD),
		.hurt = hurt_of(f, r, row),
		.mend = keep(f, r, row, COLUMN_MEND),
	};
	t->hurt_sql_name = t->sql_name;
	if (*cdc_pgconn_text(r, row, COLUMN_HURT_TABLE))
		t->hurt_sql_name = sql_name(f, cdc_pgconn_text(r, row, COLUMN_HURT_SCHEMA),
					    cdc_pgconn_text(r, row, COLUMN_HURT_TABLE));
	f->owns_one |= t->is_owned;
	f->table_n++;
	return t->name && t->sql_name && t->owner && t->sent_as && t->mend && t->hurt_sql_name &&
	       t->unread_sql_name;
}

static enum cdc_code read_tables(struct cdc_facts *f, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_buf sql;
	enum cdc_code rc;
	int n;

	cdc_buf_init(&sql, SQL_MAX);
	put_tables(&sql, f, plan);
	rc = ask(c, &sql, "reading the tables", &r, err);
	cdc_buf_clear(&sql);
	if (rc)
		return rc;
	n = PQntuples(r);
	f->tables = calloc((size_t)n + 1, sizeof(*f->tables));
	if (!f->tables)
		return no_memory(err);
	for (int i = 0; i < n; i++) {
		if (!keep_table(f, r, i))
			return no_memory(err);
	}
	return CDC_OK;
}

enum cdc_code cdc_facts_read(struct cdc_facts *f, struct cdc_pgconn *c,
			     const struct cdc_source_plan *plan, const char *slot,
			     struct cdc_err *err)
{
	enum cdc_code rc;

	cdc_facts_clear(f);
	f->arena = cdc_arena_new(ARENA_MAX);
	if (!f->arena)
		return no_memory(err);
	f->where = cdc_arena_strdup(f->arena, c->where);
	if (!f->where) {
		cdc_facts_clear(f);
		return no_memory(err);
	}
	f->version = PQserverVersion(c->pg);
	rc = read_server(f, c, err);
	if (!rc && slot)
		rc = read_slot(f, c, slot, err);
	if (!rc)
		rc = read_publication(f, c, plan->settings->publication, err);
	if (!rc) {
		f->is_every_table =
			(plan->table_n == 0 || has_pattern(plan)) && !f->publication.exists;
		rc = read_tables(f, c, plan, err);
	}
	if (rc)
		cdc_facts_clear(f);
	return rc;
}
