#include "cdc/source/judge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/quote.h"

#define MESSAGES_VERSION  140000 /* the first that sends logical messages */
#define STANDBY_VERSION   160000 /* the first that decodes on a standby */
#define FAILOVER_VERSION  170000 /* the first whose slots can survive a failover */
#define GENERATED_VERSION 180000 /* the first that publishes generated columns */
#define REMEDY_FIT        600    /* bytes of SQL in a remedy, words round it excluded */

/* --- server --------------------------------------------------------------------------------- */

enum cdc_code cdc_judge_version(int version, const char *where, struct cdc_err *err)
{
	if (version >= CDC_OLDEST_VERSION)
		return CDC_OK;
	(void)cdc_err_set(
		err, CDC_CONFIG, "%s: this is PostgreSQL %d.%d; 13 is the oldest that works", where,
		version / 10000, version >= 100000 ? version % 10000 : version / 100 % 100);
	return cdc_err_remedy(err, "upgrade the server to PostgreSQL 13 or newer");
}

size_t cdc_judge_minor(int version, char ret_text[CDC_MINOR_BYTES], int *ret_mended)
{
	/* PostgreSQL release notes; gravest first.  mended: the minor version of 13, 14, ..., 0: no
	 * such version had it. */
	static const struct {
		int mended[6];
		const char *text;
	} mistakes[] = {
		{{21, 18, 13, 9, 5, 0}, "rows can be lost after ALTER PUBLICATION ... ADD TABLE"},
		{{16, 13, 8, 4, 0, 0},
		 "a new slot can lose the beginning of a transaction that was open"},
		{{0, 21, 16, 12, 8, 2}, "the server can remove WAL that a new slot needs"},
		{{18, 15, 10, 6, 2, 0}, "restart_lsn of a slot can go backwards"},
		{{22, 19, 14, 10, 6, 0},
		 "many catalog changes in open transactions can make decoding fail for good"},
		{{14, 11, 6, 2, 0, 0}, "after DDL in a subtransaction a column can come as null"},
		{{23, 20, 15, 11, 7, 1},
		 "a disk that was full can leave files with which a slot cannot be saved"},
		{{0, 0, 2, 0, 0, 0},
		 "UPDATE and DELETE show columns outside the publication's column list"},
	};
	const int major = version / 10000, minor = version % 10000;
	size_t n = 0, len = 0;

	ret_text[0] = '\0';
	*ret_mended = 0;
	if (major < 13 || major > 18)
		return 0;
	for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
		const int mended = mistakes[i].mended[major - 13];
		const char *text = mistakes[i].text;

		if (minor >= mended)
			continue;
		n++;
		if (mended > *ret_mended)
			*ret_mended = mended;
		if (len + strlen(text) + 3 < CDC_MINOR_BYTES)
			len += (size_t)snprintf(ret_text + len, CDC_MINOR_BYTES - len, "%s%s",
						len ? "; " : "", text);
	}
	return n;
}

void cdc_judge_replication_remedy(const struct cdc_facts *f, char ret_remedy[768])
{
	static const char *const texts[] = {
		[CDC_PLATFORM_PLAIN] = "ALTER ROLE \"%s\" REPLICATION;",
		[CDC_PLATFORM_RDS] = "GRANT rds_replication TO \"%s\";  (as the master user)",
		[CDC_PLATFORM_CLOUD_SQL] =
			"ALTER ROLE \"%s\" WITH REPLICATION;  (as a member of cloudsqlsuperuser)",
		[CDC_PLATFORM_AZURE] =
			"ALTER ROLE \"%s\" WITH REPLICATION;  (as a member of azure_pg_admin)",
		[CDC_PLATFORM_SUPABASE] =
			"ALTER ROLE \"%s\" WITH REPLICATION;  (as the role postgres)",
		[CDC_PLATFORM_NEON] =
			"ALTER ROLE \"%s\" WITH REPLICATION;  (as a member of neon_superuser)",
	};
	const char *text = texts[f->platform], *at = strstr(text, "%s");

	(void)snprintf(ret_remedy, 768, "%.*s%s%s", (int)(at - text), text, f->role, at + 2);
}

void cdc_judge_wal_level_remedy(const struct cdc_facts *f, char ret_remedy[768])
{
	static const char *const texts[] = {
		[CDC_PLATFORM_PLAIN] =
			"ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
		[CDC_PLATFORM_RDS] =
			"set rds.logical_replication = 1 in the parameter group, then reboot",
		[CDC_PLATFORM_CLOUD_SQL] =
			"set the flag cloudsql.logical_decoding = on; the instance restarts",
		[CDC_PLATFORM_AZURE] = "set the server parameter wal_level = logical, then restart",
		[CDC_PLATFORM_SUPABASE] =
			"it is logical there by itself; ask Supabase why it is not",
		[CDC_PLATFORM_NEON] =
			"switch on logical replication in the settings of the Neon project",
	};

	(void)snprintf(ret_remedy, 768, "%s", texts[f->platform]);
}

static enum cdc_code is_pooled(const struct cdc_facts *f, struct cdc_err *err)
{
	(void)cdc_err_set(
		err, CDC_CONFIG,
		"%s: there is a connection pooler in between: it has swallowed the settings "
		"of the session, and logical replication needs one session from its "
		"beginning to its end",
		f->where);
	return cdc_err_remedy(err, "set hostname and port to those of the database server itself "
				   "(Neon: the host name without -pooler; Supabase: the direct "
				   "connection, port 5432)");
}

enum cdc_code cdc_judge_messages(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				 struct cdc_err *err)
{
	const struct cdc_opt_strs *prefixes = &plan->settings->message_prefixes;

	for (size_t i = 0; i < prefixes->n; i++) {
		if (strlen(prefixes->items[i]) <= CDC_MESSAGE_PREFIX_MAX)
			continue;
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: the message prefix %.40s... is longer than %d bytes",
				  f->where, prefixes->items[i], CDC_MESSAGE_PREFIX_MAX);
		return cdc_err_remedy(err, "remove it from message_prefixes");
	}
	if (prefixes->n && f->version < MESSAGES_VERSION) {
		(void)cdc_err_set(
			err, CDC_CONFIG,
			"%s: PostgreSQL %d does not send messages; 14 is the first that does",
			f->where, f->version / 10000);
		return cdc_err_remedy(err, "remove message_prefixes, or upgrade the server");
	}
	return CDC_OK;
}

enum cdc_code cdc_judge_server(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			       struct cdc_err *err)
{
	char remedy[768];
	enum cdc_code rc;

	if (f->is_pooled)
		return is_pooled(f, err);
	rc = cdc_judge_messages(f, plan, err);
	if (rc)
		return rc;
	if (f->is_in_recovery && f->version < STANDBY_VERSION) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: this is a standby, and PostgreSQL %d decodes changes on the "
				  "primary only",
				  f->where, f->version / 10000);
		return cdc_err_remedy(err, "set hostname and port to those of the primary");
	}
	if (strcmp(f->wal_level, "logical") != 0) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: wal_level is %s; logical replication needs logical",
				  f->where, f->wal_level);
		cdc_judge_wal_level_remedy(f, remedy);
		return cdc_err_remedy(err, "%s", remedy);
	}
	return CDC_OK;
}

/* --- slot --------------------------------------------------------------------------------------
 */

enum cdc_code cdc_judge_slot_room(const struct cdc_facts *f, struct cdc_err *err)
{
	const char *idle = f->idle_slots;

	if (f->slot_n < f->slot_max)
		return CDC_OK;
	(void)cdc_err_set(err, CDC_CONFIG,
			  "%s: no replication slot is free: max_replication_slots is %u, and there "
			  "are %u%s%s%s",
			  f->where, f->slot_max, f->slot_n, *idle ? " (nobody reads: " : "", idle,
			  *idle ? ")" : "");
	return cdc_err_remedy(
		err,
		"ALTER SYSTEM SET max_replication_slots = %u; then restart the server; "
		"or drop a slot that nobody needs: SELECT "
		"pg_drop_replication_slot('...');",
		f->slot_max + 5);
}

static enum cdc_code missing_slot(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				  bool must_exist, struct cdc_err *err)
{
	if (must_exist) {
		(void)cdc_err_set(err, CDC_GAP,
				  "%s: the slot %s is gone; changes made since it was read last "
				  "can no longer be had",
				  f->where, plan->slot);
		return cdc_err_remedy(
			err,
			"start afresh with an empty data_dir (a new slot is made) and copy the "
			"tables once");
	}
	if (!plan->may_create) {
		(void)cdc_err_set(err, CDC_MISSING, "%s: there is no slot %s", f->where,
				  plan->slot);
		return cdc_err_remedy(
			err, "SELECT pg_create_logical_replication_slot('%s', 'pgoutput'%s);",
			plan->slot, f->version >= FAILOVER_VERSION ? ", false, false, true" : "");
	}
	return cdc_judge_slot_room(f, err);
}

static enum cdc_code other_slot(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				const char *what, struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_CONFIG, "%s: the slot %s %s", f->where, plan->slot, what);
	return cdc_err_remedy(err,
			      "set the sync's source_configuration.replication_slot to another "
			      "name, or drop that slot if nobody needs it: SELECT "
			      "pg_drop_replication_slot('%s');",
			      plan->slot);
}

static enum cdc_code lost_slot(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			       struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_GAP,
			  "%s: the slot %s is lost (%s): the server has removed changes that were "
			  "not read yet",
			  f->where, plan->slot, f->slot.invalidation);
	return cdc_err_remedy(err,
			      "SELECT pg_drop_replication_slot('%s'); then start afresh with an "
			      "empty data_dir and copy the tables once; raise "
			      "max_slot_wal_keep_size so that it does not come again",
			      plan->slot);
}

enum cdc_code cdc_judge_slot(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			     bool must_exist, struct cdc_err *err)
{
	const struct cdc_fact_slot *s = &f->slot;
	char what[200];

	if (!s->exists)
		return missing_slot(f, plan, must_exist, err);
	if (!*s->database)
		return other_slot(f, plan, "is a physical one", err);
	if (strcmp(s->plugin, "pgoutput") != 0) {
		(void)snprintf(what, sizeof(what), "has the output plugin %s, not pgoutput",
			       s->plugin);
		return other_slot(f, plan, what, err);
	}
	if (strcmp(s->database, f->database) != 0) {
		(void)snprintf(what, sizeof(what), "belongs to the database %s, not to %s",
			       s->database, f->database);
		return other_slot(f, plan, what, err);
	}
	if (s->is_two_phase)
		return other_slot(f, plan,
				  "was made with two_phase: it sends transactions that are only "
				  "prepared and may still be rolled back",
				  err);
	if (*s->invalidation)
		return lost_slot(f, plan, err);
	if (s->is_synced && f->is_in_recovery)
		return cdc_err_set(err, CDC_HELD,
				   "%s: the slot %s is kept for a failover by this standby; it can "
				   "be read once the standby is promoted",
				   f->where, plan->slot);
	if (s->active_pid) {
		(void)cdc_err_set(
			err, CDC_HELD, "%s: the slot %s is read by another process, pid %u%s%s%s%s",
			f->where, plan->slot, s->active_pid, *s->reader ? ", application " : "",
			s->reader, *s->reader_address ? ", from " : "", s->reader_address);
		return cdc_err_remedy(err,
				      "stop that process (on the server: SELECT "
				      "pg_terminate_backend(%u);), or give the sync a slot of "
				      "its own with source_configuration.replication_slot",
				      s->active_pid);
	}
	return CDC_OK;
}

/* --- tables
 * --------------------------------------------------------------------------------------- */

static bool is_table(const struct cdc_fact_table *t)
{
	return t->kind == 'r' || t->kind == 'p';
}

/* The partitions that somebody makes later get their identity from the root's primary key only. */
static bool is_open_root(const struct cdc_fact_table *t)
{
	return t->kind == 'p' && !t->has_primary_key;
}

enum cdc_fate cdc_judge_table(const struct cdc_facts *f, const struct cdc_fact_table *t)
{
	const struct cdc_fact_publication *p = &f->publication;
	const bool is_harmful = !p->exists || p->updates || p->deletes;

	if (t->is_published)
		return t->hurt && is_harmful ? CDC_FATE_HURT : CDC_FATE_PUBLISHED;
	if (!t->is_asked && !f->is_every_table)
		return CDC_FATE_NONE;
	if (!is_table(t) || t->persistence != 'p' || *t->sent_as || t->is_listed)
		return CDC_FATE_LEFT_OUT;
	if (is_harmful && (t->hurt || is_open_root(t)))
		return CDC_FATE_LEFT_OUT;
	if (!t->is_asked && !t->is_owned && f->owns_one)
		return CDC_FATE_LEFT_OUT;
	return CDC_FATE_ADD;
}

static const char *kind_name(const struct cdc_fact_table *t)
{
	switch (t->kind) {
	case 'v':
		return "a view";
	case 'm':
		return "a materialized view";
	case 'f':
		return "a foreign table";
	default:
		return "not a table";
	}
}

/* A piece of SQL with names in it; what does not fit is not SQL, so then there is none. */
static void put_sql(char ret_remedy[CDC_REMEDY_BYTES], const char *before, const char *name,
		    const char *after)
{
	int n = snprintf(ret_remedy, CDC_REMEDY_BYTES, "%s%s%s", before, name, after);

	if (n < 0 || n >= CDC_REMEDY_BYTES)
		ret_remedy[0] = '\0';
}

static void put_identity(const struct cdc_fact_table *t, char ret_remedy[CDC_REMEDY_BYTES])
{
	char mend[CDC_REMEDY_BYTES];

	(void)snprintf(mend, sizeof(mend), " %s;%s", t->mend,
		       strcmp(t->mend, "REPLICA IDENTITY FULL") == 0 ? " or give it a primary key"
								     : "");
	put_sql(ret_remedy, "ALTER TABLE ", t->hurt_sql_name, mend);
}

/* What in its identity makes statements fail. */
static void hurt_reason(const struct cdc_fact_table *t, const char *how,
			char ret_reason[CDC_REASON_BYTES])
{
	static const char *const whats[] = {
		[CDC_HURT_NONE] = "a partition made later would have no replica identity",
		[CDC_HURT_IDENTITY] = "it has no replica identity",
		[CDC_HURT_GENERATED] = "its replica identity has a generated column that is not "
				       "published",
		[CDC_HURT_UNSENT] = "a generated column of its replica identity is not sent before "
				    "PostgreSQL 18",
		[CDC_HURT_LIST] = "the publication's column list lacks columns of its replica "
				  "identity",
		[CDC_HURT_FILTER] = "the publication's row filter uses columns outside its replica "
				    "identity",
	};

	if (strcmp(t->hurt_sql_name, t->sql_name) != 0)
		(void)snprintf(ret_reason, CDC_REASON_BYTES,
			       "UPDATE and DELETE of its partition %s %s: %s", t->hurt_sql_name,
			       how, whats[t->hurt]);
	else
		(void)snprintf(ret_reason, CDC_REASON_BYTES, "UPDATE and DELETE of it %s: %s", how,
			       whats[t->hurt]);
}

static void hurt_remedy(const struct cdc_source_plan *plan, const struct cdc_fact_table *t,
			char ret_remedy[CDC_REMEDY_BYTES])
{
	struct cdc_buf sql;

	switch (t->hurt) {
	case CDC_HURT_NONE:
		put_sql(ret_remedy, "ALTER TABLE ", t->sql_name, " ADD PRIMARY KEY (...);");
		return;
	case CDC_HURT_IDENTITY:
	case CDC_HURT_UNSENT:
		put_identity(t, ret_remedy);
		return;
	case CDC_HURT_GENERATED:
	case CDC_HURT_FILTER:
	case CDC_HURT_LIST:
		break;
	}
	cdc_buf_init(&sql, CDC_REMEDY_BYTES);
	cdc_buf_puts(&sql, "ALTER PUBLICATION ");
	cdc_quote_name(&sql, plan->settings->publication);
	if (t->hurt == CDC_HURT_GENERATED) {
		cdc_buf_puts(&sql, " SET (publish_generated_columns = stored);");
	} else {
		cdc_buf_printf(&sql, " DROP TABLE ONLY %s; ALTER PUBLICATION ", t->sql_name);
		cdc_quote_name(&sql, plan->settings->publication);
		cdc_buf_printf(&sql, " ADD TABLE ONLY %s;", t->sql_name);
	}
	put_sql(ret_remedy, "", cdc_quote_end(&sql) ? (const char *)sql.data : "", "");
	cdc_buf_clear(&sql);
}

static void publication_sql(const struct cdc_source_plan *plan, const char *verb, const char *table,
			    const char *after, char ret_remedy[CDC_REMEDY_BYTES])
{
	struct cdc_buf sql;

	cdc_buf_init(&sql, CDC_REMEDY_BYTES);
	cdc_buf_puts(&sql, "ALTER PUBLICATION ");
	cdc_quote_name(&sql, plan->settings->publication);
	cdc_buf_printf(&sql, "%s%s%s;", verb, table, after);
	put_sql(ret_remedy, "", cdc_quote_end(&sql) ? (const char *)sql.data : "", "");
	cdc_buf_clear(&sql);
}

static void then_publish(const struct cdc_source_plan *plan, const struct cdc_fact_table *t,
			 char ret_remedy[CDC_REMEDY_BYTES])
{
	char after[CDC_REMEDY_BYTES];
	const size_t len = strlen(ret_remedy), room = CDC_REMEDY_BYTES - len;

	publication_sql(plan, " ADD TABLE ONLY ", t->sql_name, "", after);
	if (strlen(after) + 1 < room)
		(void)snprintf(ret_remedy + len, room, " %.*s", (int)room - 2, after);
}

static void left_out_reason(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			    const struct cdc_fact_table *t, char ret_reason[CDC_REASON_BYTES],
			    char ret_remedy[CDC_REMEDY_BYTES])
{
	const char *publication = plan->settings->publication;

	if (!is_table(t)) {
		(void)snprintf(ret_reason, CDC_REASON_BYTES,
			       "it is %s, which has no changes of its own", kind_name(t));
	} else if (t->persistence != 'p') {
		(void)snprintf(ret_reason, CDC_REASON_BYTES,
			       "it is %s, so its changes are not in the WAL",
			       t->persistence == 'u' ? "unlogged" : "temporary");
		if (t->persistence == 'u')
			put_sql(ret_remedy, "ALTER TABLE ", t->sql_name, " SET LOGGED;");
	} else if (*t->sent_as) {
		(void)snprintf(ret_reason, CDC_REASON_BYTES,
			       "it is a partition, and publication %s sends its changes as %s",
			       publication, t->sent_as);
		put_sql(ret_remedy, "name ", t->sent_as, " in schemas");
	} else if (t->is_listed) {
		(void)snprintf(ret_reason, CDC_REASON_BYTES,
			       "it is partitioned, and publication %s sends its changes under the "
			       "names of the partitions",
			       publication);
		publication_sql(plan, " SET (publish_via_partition_root = true)", "", "",
				ret_remedy);
	} else if (t->hurt || is_open_root(t)) {
		hurt_reason(t,
			    t->hurt == CDC_HURT_UNSENT ? "would not say of which row they are"
						       : "would fail once it is published",
			    ret_reason);
		hurt_remedy(plan, t, ret_remedy);
		/* A publication that is there gets no table by itself, unless the file names it. */
		if (plan->table_n == 0)
			then_publish(plan, t, ret_remedy);
	} else {
		(void)snprintf(ret_reason, CDC_REASON_BYTES,
			       "it belongs to role %s, so role %s may not publish it", t->owner,
			       f->role);
		publication_sql(plan, " ADD TABLE ONLY ", t->sql_name, "", ret_remedy);
	}
}

void cdc_judge_reason(const struct cdc_facts *f, const struct cdc_source_plan *plan,
		      const struct cdc_fact_table *t, char ret_reason[CDC_REASON_BYTES],
		      char ret_remedy[CDC_REMEDY_BYTES])
{
	ret_reason[0] = ret_remedy[0] = '\0';
	switch (cdc_judge_table(f, t)) {
	case CDC_FATE_HURT:
		hurt_reason(t,
			    t->hurt == CDC_HURT_UNSENT ? "do not say of which row they are"
						       : "fail as long as it is published",
			    ret_reason);
		hurt_remedy(plan, t, ret_remedy);
		return;
	case CDC_FATE_LEFT_OUT:
		left_out_reason(f, plan, t, ret_reason, ret_remedy);
		return;
	case CDC_FATE_NONE:
	case CDC_FATE_PUBLISHED:
	case CDC_FATE_ADD:
		return;
	}
}

/* --- publication
 * ------------------------------------------------------------------------------------ */

static size_t count(const struct cdc_facts *f, enum cdc_fate fate)
{
	size_t n = 0;

	for (size_t i = 0; i < f->table_n; i++)
		n += cdc_judge_table(f, &f->tables[i]) == fate;
	return n;
}

void cdc_judge_publish_sql(struct cdc_buf *out, const struct cdc_facts *f,
			   const struct cdc_source_plan *plan, size_t fit)
{
	const bool is_new = !f->publication.exists;
	const char *options = f->version >= GENERATED_VERSION
				      ? " WITH (publish_via_partition_root = true, "
					"publish_generated_columns = stored)"
				      : " WITH (publish_via_partition_root = true)";
	size_t n = 0, left = 0;

	cdc_buf_puts(out, is_new ? "CREATE PUBLICATION " : "ALTER PUBLICATION ");
	cdc_quote_name(out, plan->settings->publication);
	for (size_t i = 0; i < f->table_n; i++) {
		if (cdc_judge_table(f, &f->tables[i]) != CDC_FATE_ADD)
			continue;
		if (n && fit && out->len + strlen(f->tables[i].sql_name) > fit) {
			left++;
			continue;
		}
		cdc_buf_puts(out, n++      ? ", ONLY "
				  : is_new ? " FOR TABLE ONLY "
					   : " ADD TABLE ONLY ");
		cdc_buf_puts(out, f->tables[i].sql_name);
	}
	if (is_new && !n)
		cdc_buf_puts(out, " FOR TABLE ...");
	cdc_buf_printf(out, "%s;", is_new ? options : "");
	if (left)
		cdc_buf_printf(out, " -- and %zu more tables", left);
}

/* Sets the remedy: before, the statement as far as it fits, after. */
static enum cdc_code remedy_sql(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				const char *before, const char *after, struct cdc_err *err)
{
	struct cdc_buf sql;
	const char *text;
	enum cdc_code rc;

	cdc_buf_init(&sql, 4096);
	cdc_judge_publish_sql(&sql, f, plan, REMEDY_FIT - 100);
	text = cdc_quote_end(&sql);
	rc = cdc_err_remedy(err, "%s%s%s", before, text ? text : "CREATE PUBLICATION ...", after);
	cdc_buf_clear(&sql);
	return rc;
}

static bool is_known(const struct cdc_facts *f, const char *table)
{
	for (size_t i = 0; i < f->table_n; i++) {
		if (strcmp(f->tables[i].name, table) == 0)
			return true;
	}
	return false;
}

/* Names the tables of the plan that the database does not have. */
static enum cdc_code find_tables(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				 struct cdc_err *err)
{
	char names[400] = "";
	size_t missing = 0, named = 0, len = 0;

	for (size_t i = 0; i < plan->table_n; i++) {
		const char *table = plan->tables[i];

		if (is_known(f, table) || cdc_pattern_is_one(table))
			continue;
		missing++;
		if (len + strlen(table) + 3 > sizeof(names))
			continue;
		len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? ", " : "",
					table);
		named++;
	}
	if (!missing)
		return CDC_OK;
	(void)cdc_err_set(err, CDC_MISSING, "%s: database %s has no table %s", f->where,
			  f->database, names);
	if (missing > named)
		(void)cdc_err_set(err, CDC_MISSING,
				  "%s: database %s lacks %zu tables: %s and others", f->where,
				  f->database, missing, names);
	return cdc_err_remedy(err, "take it out of schemas, or create it; a table is named "
				   "SCHEMA.TABLE, letter for letter as the database has it");
}

/* No table would be read: says why of the first. */
static enum cdc_code nothing_to_read(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				     struct cdc_err *err)
{
	char reason[CDC_REASON_BYTES], remedy[CDC_REMEDY_BYTES];

	for (size_t i = 0; i < f->table_n; i++) {
		if (cdc_judge_table(f, &f->tables[i]) != CDC_FATE_LEFT_OUT)
			continue;
		cdc_judge_reason(f, plan, &f->tables[i], reason, remedy);
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: there is nothing to read: %s is left out: %s", f->where,
				  f->tables[i].name, reason);
		return cdc_err_remedy(err, "%s", remedy);
	}
	(void)cdc_err_set(
		err, CDC_MISSING,
		"%s: there is no publication %s, and database %s has no table to put into "
		"one",
		f->where, plan->settings->publication, f->database);
	return remedy_sql(f, plan, "create a table, or set database to the right one; then ", "",
			  err);
}

/* The first table that would be published and is not ours to publish. */
static const struct cdc_fact_table *not_owned(const struct cdc_facts *f)
{
	for (size_t i = 0; i < f->table_n; i++) {
		if (cdc_judge_table(f, &f->tables[i]) == CDC_FATE_ADD && !f->tables[i].is_owned)
			return &f->tables[i];
	}
	return NULL;
}

static enum cdc_code may_not_create(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				    struct cdc_err *err)
{
	const char *publication = plan->settings->publication;
	const struct cdc_fact_table *t = not_owned(f);

	if (f->is_in_recovery) {
		(void)cdc_err_set(err, CDC_MISSING,
				  "%s: there is no publication %s, and this is a standby", f->where,
				  publication);
		return remedy_sql(f, plan, "on the primary: ", "", err);
	}
	if (!plan->may_create) {
		(void)cdc_err_set(err, CDC_MISSING, "%s: there is no publication %s", f->where,
				  publication);
		return remedy_sql(f, plan, "", "", err);
	}
	if (t) {
		(void)cdc_err_set(err, CDC_MISSING,
				  "%s: there is no publication %s, and role %s may not make it: "
				  "table %s belongs to role %s",
				  f->where, publication, f->role, t->name, t->owner);
		return remedy_sql(f, plan, "as the owner of the tables or a superuser: ", "", err);
	}
	if (!f->may_make_publications) {
		(void)cdc_err_set(err, CDC_MISSING,
				  "%s: there is no publication %s, and role %s may not make one in "
				  "database %s",
				  f->where, publication, f->role, f->database);
		return cdc_err_remedy(err, "GRANT CREATE ON DATABASE \"%s\" TO \"%s\";",
				      f->database, f->role);
	}
	return CDC_OK;
}

static enum cdc_code judge_missing(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				   struct cdc_err *err)
{
	char after[300];

	/* A change that was made before the publication was makes the stream fail for good
	 * (PostgreSQL 18 skips it), so a slot must not be the older one. */
	if (f->slot.exists) {
		(void)cdc_err_set(
			err, CDC_MISSING,
			"%s: there is no publication %s, and the slot %s is there already: "
			"its changes need a publication that is older than they are",
			f->where, plan->settings->publication, plan->slot);
		(void)snprintf(after, sizeof(after),
			       " and then, because the slot is older: SELECT "
			       "pg_drop_replication_slot('%s'); and start with an empty data_dir",
			       plan->slot);
		return remedy_sql(f, plan, "", after, err);
	}
	if (count(f, CDC_FATE_ADD) == 0)
		return nothing_to_read(f, plan, err);
	return may_not_create(f, plan, err);
}

static enum cdc_code may_not_add(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				 struct cdc_err *err)
{
	const struct cdc_fact_table *t = not_owned(f);
	char why[300] = "";

	if (!f->publication.is_alterable)
		(void)snprintf(why, sizeof(why),
			       ", and role %s may not add it: the publication belongs to role %s",
			       f->role, f->publication.owner);
	else if (t)
		(void)snprintf(why, sizeof(why),
			       ", and role %s may not add it: the table belongs to role %s",
			       f->role, t->owner);
	else if (plan->may_create && !f->is_in_recovery)
		return CDC_OK;
	for (size_t i = 0; i < f->table_n && !t; i++) {
		if (cdc_judge_table(f, &f->tables[i]) == CDC_FATE_ADD)
			t = &f->tables[i];
	}
	(void)cdc_err_set(err, CDC_MISSING, "%s: publication %s does not hold table %s%s", f->where,
			  plan->settings->publication, t->name, why);
	return remedy_sql(f, plan, *why ? "as a superuser or the owner of both: " : "", "", err);
}

/* Is there, or can there be later, something to read? */
static bool is_any_read(const struct cdc_facts *f, const struct cdc_source_plan *plan)
{
	for (size_t i = 0; i < plan->table_n; i++) {
		if (cdc_pattern_is_one(plan->tables[i]))
			return true;
	}

	for (size_t i = 0; i < f->table_n; i++) {
		if (f->tables[i].is_asked && f->tables[i].is_published)
			return true;
	}
	return false;
}

enum cdc_code cdc_judge_publication(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				    enum cdc_publish *ret, struct cdc_err *err)
{
	enum cdc_code rc = find_tables(f, plan, err);

	if (rc)
		return rc;
	if (!f->publication.exists) {
		*ret = CDC_PUBLISH_CREATE;
		return judge_missing(f, plan, err);
	}
	if (count(f, CDC_FATE_ADD)) {
		*ret = CDC_PUBLISH_ADD;
		return may_not_add(f, plan, err);
	}
	*ret = CDC_PUBLISH_NOTHING;
	return plan->table_n == 0 || is_any_read(f, plan) ? CDC_OK : nothing_to_read(f, plan, err);
}
