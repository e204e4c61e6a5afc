#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cdc/source/facts.h"
#include "cdc/source/failover.h"
#include "cdc/source/judge.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/source.h"
#include "cdc/source/standby.h"

#define APPLICATION  "walpost check"
#define ASK_MS       8000
#define TABLES_SHOWN 50 /* of those that are well; every other one is shown */
#define OLD_S        30 /* a transaction this old may keep a new slot waiting */

struct check {
	const struct cdc_source_plan *plan;
	cdc_finding_fn *found;
	void *arg;
};

static void tell(const struct check *k, enum cdc_verdict verdict, const char *name,
		 const char *remedy, const char *fmt, ...) CDC_FMT(5, 6);
static void tell(const struct check *k, enum cdc_verdict verdict, const char *name,
		 const char *remedy, const char *fmt, ...)
{
	struct cdc_finding f = {.verdict = verdict};
	va_list ap;

	(void)snprintf(f.name, sizeof(f.name), "%s", name);
	(void)snprintf(f.remedy, sizeof(f.remedy), "%s", remedy);
	va_start(ap, fmt);
	(void)vsnprintf(f.text, sizeof(f.text), fmt, ap);
	va_end(ap);
	k->found(k->arg, &f);
}

static void tell_error(const struct check *k, const char *name, const struct cdc_err *err)
{
	tell(k, CDC_FAIL, name, err->remedy, "%s", err->msg);
}

/* --- server and role ---------------------------------------------------------------------------
 */

static bool check_version(const struct check *k, const struct cdc_pgconn *c, struct cdc_err *err)
{
	const int version = PQserverVersion(c->pg);
	char why[CDC_MINOR_BYTES], remedy[160];
	int mended;

	if (cdc_judge_version(version, c->where, err)) {
		tell_error(k, "version", err);
		return false;
	}
	if (cdc_judge_minor(version, why, &mended)) {
		(void)snprintf(remedy, sizeof(remedy),
			       "update the server to PostgreSQL %d.%d or a later minor version",
			       version / 10000, mended);
		tell(k, CDC_WARN, "version", remedy, "PostgreSQL %d.%d: %s", version / 10000,
		     version % 10000, why);
	} else {
		tell(k, CDC_PASS, "version", "", "PostgreSQL %d.%d", version / 10000,
		     version % 10000);
	}
	return true;
}

/* False: what comes after would say nothing new. */
static bool check_way(const struct check *k, const struct cdc_facts *f, struct cdc_err *err)
{
	if (f->is_pooled && cdc_judge_server(f, k->plan, err)) {
		tell_error(k, "pooler", err);
		return false;
	}
	tell(k, CDC_PASS, "pooler", "", "no pooler in between");
	if (!f->is_in_recovery)
		tell(k, CDC_PASS, "standby", "", "this is a primary");
	else if (cdc_judge_server(f, k->plan, err) && f->version < 160000)
		tell_error(k, "standby", err);
	else if (!f->has_feedback)
		tell(k, CDC_WARN, "standby",
		     "ALTER SYSTEM SET hot_standby_feedback = on; and SELECT pg_reload_conf(); on "
		     "the standby, and let it use a physical slot of the primary",
		     "this is a standby without hot_standby_feedback: when the primary removes old "
		     "catalog rows, the slot is lost");
	else
		tell(k, CDC_PASS, "standby", "", "this is a standby; PostgreSQL %d decodes there",
		     f->version / 10000);
	return true;
}

static void check_wal_level(const struct check *k, const struct cdc_facts *f)
{
	char remedy[768];

	cdc_judge_wal_level_remedy(f, remedy);
	if (strcmp(f->wal_level, "logical") == 0)
		tell(k, CDC_PASS, "wal_level", "", "wal_level is logical");
	else
		tell(k, CDC_FAIL, "wal_level", remedy,
		     "wal_level is %s; logical replication needs logical", f->wal_level);
}

/* A slot is lost after so much WAL; an outage of an hour can write some. */
#define KEEP_LOW (1024LL << 20)

static void check_wal_limits(const struct check *k, const struct cdc_facts *f)
{
	if (f->keep_bytes < 0)
		tell(k, CDC_PASS, "max_slot_wal_keep_size", "",
		     "the server keeps all WAL for a slot; walpost warns at 50, 70 and 90 %% of "
		     "wal_budget, %llu MiB",
		     (unsigned long long)(k->plan->settings->wal_budget >> 20));
	else if (f->keep_bytes < KEEP_LOW)
		tell(k, CDC_WARN, "max_slot_wal_keep_size",
		     "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; and SELECT "
		     "pg_reload_conf();",
		     "a slot is lost once it is %lld MiB behind: a short outage is enough",
		     (long long)(f->keep_bytes >> 20));
	else
		tell(k, CDC_PASS, "max_slot_wal_keep_size", "",
		     "a slot is lost once it is %lld MiB behind; walpost warns at 50, 70 and 90 %%",
		     (long long)(f->keep_bytes >> 20));
	if (f->idle_limit_s)
		tell(k, CDC_WARN, "idle_replication_slot_timeout",
		     "ALTER SYSTEM SET idle_replication_slot_timeout = 0; and SELECT "
		     "pg_reload_conf();",
		     "a slot that nobody has read for %u s is lost: an outage of walpost must be "
		     "shorter",
		     f->idle_limit_s);
	tell(k, CDC_PASS, "wal_sender_timeout", "",
	     "walpost sets 10 s for its own session (otherwise it would be %s)", f->sender_timeout);
}

static void check_room(const struct check *k, const struct cdc_facts *f)
{
	const uint32_t slots = f->slot_max > f->slot_n ? f->slot_max - f->slot_n : 0;
	const uint32_t senders = f->sender_max > f->sender_n ? f->sender_max - f->sender_n : 0;
	/* Reading takes one, and a slot that is there is read by none or by us. */
	const uint32_t wanted = f->slot.active_pid ? 0 : 1;
	char remedy[160];

	if (slots || f->slot.exists) /* else the slot says that there is no room for it */
		tell(k, CDC_PASS, "max_replication_slots", "", "%u of %u are free", slots,
		     f->slot_max);
	(void)snprintf(remedy, sizeof(remedy),
		       "ALTER SYSTEM SET max_wal_senders = %u; then restart the server",
		       f->sender_max + 5);
	if (senders < wanted)
		tell(k, CDC_FAIL, "max_wal_senders", remedy, "none of %u is free", f->sender_max);
	else
		tell(k, CDC_PASS, "max_wal_senders", "", "%u of %u are free", senders,
		     f->sender_max);
}

static void check_encoding(const struct check *k, const struct cdc_facts *f)
{
	if (strcmp(f->encoding, "SQL_ASCII") == 0)
		tell(k, CDC_WARN, "encoding",
		     "store UTF-8 only, or move the data to a database made with ENCODING 'UTF8'",
		     "the database is in SQL_ASCII, so any bytes may be in it; a value that is not "
		     "UTF-8 is sent as its bytes, {\"$bytes\": ...}");
	else
		tell(k, CDC_PASS, "encoding", "", "%s%s", f->encoding,
		     strcmp(f->encoding, "UTF8") == 0 ? "" : ", converted by the server to UTF8");
}

static void check_settings(const struct check *k, const struct cdc_facts *f, struct cdc_err *err)
{
	if (!k->plan->settings->change_detection)
		tell(k, CDC_FAIL, "change_detection",
		     "set change_detection: true in the connection", "change_detection is off");
	check_wal_level(k, f);
	check_wal_limits(k, f);
	check_encoding(k, f);
	if (k->plan->settings->message_prefixes.n && cdc_judge_messages(f, k->plan, err))
		tell_error(k, "messages", err);
	/* Who reads a standby makes nobody wait. */
	if (!f->is_in_recovery && cdc_standby_is_named(f->standby_names, k->plan->slot)) {
		(void)cdc_standby_error(f->where, k->plan->slot, f->standby_names, err);
		tell_error(k, "synchronous_standby", err);
	} else {
		tell(k, CDC_PASS, "synchronous_standby", "", "no commit would wait for walpost");
	}
}

/* The proof that the role may replicate is a connection that does. */
static bool check_role(const struct check *k, const struct cdc_facts *f, struct cdc_err *err)
{
	struct cdc_pgconn *c = NULL;
	enum cdc_code rc = cdc_pgconn_open(k->plan->settings, CDC_PGCONN_REPLICATION, APPLICATION,
					   NULL, &c, err);

	/* What else is wrong with the way there was told before. */
	if (rc == CDC_AUTH && !f->has_replication && !f->is_superuser)
		cdc_judge_replication_remedy(f, err->remedy);
	if (rc) {
		tell_error(k, "role", err);
		return false;
	}
	cdc_pgconn_close(c);
	tell(k, CDC_PASS, "role", "", "role %s may replicate%s", f->role,
	     f->is_superuser ? " (it is a superuser, which walpost does not need)" : "");
	return true;
}

/* --- slots -------------------------------------------------------------------------------------
 */

static void check_slot(const struct check *k, const struct cdc_facts *f, struct cdc_err *err)
{
	const struct cdc_fact_slot *s = &f->slot;
	enum cdc_code rc = cdc_judge_slot(f, k->plan, k->plan->was_read, err);

	/* A reader of ours names itself after its slot. */
	if (rc == CDC_HELD && s->active_pid && strcmp(s->reader, k->plan->slot) == 0)
		tell(k, CDC_PASS, "slot", "", "%s is read by a running walpost (pid %u)",
		     k->plan->slot, s->active_pid);
	else if (rc == CDC_GAP && k->plan->was_read &&
		 k->plan->settings->on_gap == CDC_ON_GAP_RESYNC)
		tell(k, CDC_WARN, "slot", "",
		     "%s; on_gap is resync, so the slot is made anew and the tables are copied "
		     "again",
		     err->msg);
	else if (rc)
		tell_error(k, "slot", err);
	else if (!s->exists)
		tell(k, CDC_PASS, "slot", "",
		     "%s is not there yet; it will be made (%u of %u are in use)", k->plan->slot,
		     f->slot_n, f->slot_max);
	else if (strcmp(s->wal_status, "unreserved") == 0)
		tell(k, CDC_WARN, "slot",
		     "start walpost now, and raise max_slot_wal_keep_size on the server",
		     "%s is about to lose changes: it is further behind than "
		     "max_slot_wal_keep_size allows",
		     k->plan->slot);
	else
		tell(k, CDC_PASS, "slot", "", "%s is there and nobody reads it", k->plan->slot);
}

/* Slots with our prefix keep WAL for as long as nobody reads them. */
static void check_idle_slots(const struct check *k, struct cdc_pgconn *c, struct cdc_err *err)
{
	static const char sql[] =
		"SELECT slot_name, pg_size_pretty(CASE WHEN pg_is_in_recovery() THEN NULL ELSE "
		"pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) END) "
		"FROM pg_replication_slots WHERE database = current_database() AND NOT active "
		"AND plugin = 'pgoutput' AND slot_name ~ '^walpost_' ORDER BY 1";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;

	if (cdc_pgconn_exec(c, sql, ASK_MS, "reading the slots", &r, err)) {
		tell_error(k, "idle_slot", err);
		return;
	}
	for (int i = 0; i < PQntuples(r); i++) {
		const char *slot = cdc_pgconn_text(r, i, 0);
		char remedy[256];

		if (strcmp(slot, k->plan->slot) == 0)
			continue;
		(void)snprintf(remedy, sizeof(remedy),
			       "if no walpost is to read it any more: SELECT "
			       "pg_drop_replication_slot('%s');",
			       slot);
		tell(k, CDC_WARN, "idle_slot", remedy,
		     "nobody reads the slot %s; the server keeps %s of WAL for it", slot,
		     cdc_pgconn_text(r, i, 1));
	}
}

/* A new slot has to wait for transactions that were open before it. */
static void check_old_transactions(const struct check *k, const struct cdc_facts *f,
				   struct cdc_pgconn *c, struct cdc_err *err)
{
	static const char sql[] = "SELECT a.pid, a.usename, date_part('epoch', clock_timestamp() - "
				  "a.xact_start)::int8 "
				  "FROM pg_stat_activity a WHERE a.backend_xid IS NOT NULL "
				  "AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid() "
				  "ORDER BY a.xact_start LIMIT 1";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	char remedy[128];

	if (f->slot.exists || f->is_in_recovery ||
	    cdc_pgconn_exec(c, sql, ASK_MS, "reading open transactions", &r, err) ||
	    PQntuples(r) == 0 || cdc_pgconn_u32(r, 0, 2) < OLD_S)
		return;
	(void)snprintf(remedy, sizeof(remedy), "let it end, or: SELECT pg_terminate_backend(%u);",
		       cdc_pgconn_u32(r, 0, 0));
	tell(k, CDC_WARN, "old_transaction", remedy,
	     "the slot cannot be made before the transaction of pid %u (role %s) has ended; it has "
	     "been open for %u s",
	     cdc_pgconn_u32(r, 0, 0), cdc_pgconn_text(r, 0, 1), cdc_pgconn_u32(r, 0, 2));
}

/* --- publication and tables
 * --------------------------------------------------------------------------- */

static size_t count(const struct cdc_facts *f, enum cdc_fate fate)
{
	size_t n = 0;

	for (size_t i = 0; i < f->table_n; i++)
		n += cdc_judge_table(f, &f->tables[i]) == fate;
	return n;
}

static void tell_operations(const struct check *k, const struct cdc_facts *f)
{
	const struct cdc_fact_publication *p = &f->publication;
	char remedy[CDC_REMEDY_BYTES];

	(void)snprintf(
		remedy, sizeof(remedy),
		"ALTER PUBLICATION \"%s\" SET (publish = 'insert, update, delete, truncate');",
		k->plan->settings->publication);
	tell(k, CDC_WARN, "publication", remedy, "%s does not publish%s%s%s%s",
	     k->plan->settings->publication, p->inserts ? "" : " INSERT",
	     p->updates ? "" : " UPDATE", p->deletes ? "" : " DELETE",
	     p->truncates ? "" : " TRUNCATE");
}

static void check_publication(const struct check *k, const struct cdc_facts *f, struct cdc_err *err)
{
	const struct cdc_fact_publication *p = &f->publication;
	const char *name = k->plan->settings->publication;
	enum cdc_publish what;
	size_t n = count(f, CDC_FATE_PUBLISHED) + count(f, CDC_FATE_HURT);

	if (cdc_judge_publication(f, k->plan, &what, err)) {
		tell_error(k, "publication", err);
		return;
	}
	switch (what) {
	case CDC_PUBLISH_CREATE:
		tell(k, CDC_PASS, "publication", "",
		     "%s is not there yet; it will be made for %zu tables", name,
		     count(f, CDC_FATE_ADD));
		return;
	case CDC_PUBLISH_ADD:
		tell(k, CDC_PASS, "publication", "", "%s has %zu tables; %zu more will be added",
		     name, n, count(f, CDC_FATE_ADD));
		break;
	case CDC_PUBLISH_NOTHING:
		if (n)
			tell(k, CDC_PASS, "publication", "", "%s has %zu tables", name, n);
		else
			tell(k, CDC_WARN, "publication", "ALTER PUBLICATION ... ADD TABLE ...;",
			     "%s has no tables yet", name);
		break;
	}
	if (!p->inserts || !p->updates || !p->deletes || !p->truncates)
		tell_operations(k, f);
}

static const char *identity_name(const struct cdc_fact_table *t)
{
	switch (t->identity) {
	case 'f':
		return "the whole row (REPLICA IDENTITY FULL)";
	case 'i':
		return "a unique index";
	case 'n':
		return "none";
	default:
		return t->has_primary_key ? "the primary key" : "none";
	}
}

static void check_tables(const struct check *k, const struct cdc_facts *f)
{
	size_t well = 0;

	for (size_t i = 0; i < f->table_n; i++) {
		const struct cdc_fact_table *t = &f->tables[i];
		char reason[CDC_REASON_BYTES], remedy[CDC_REMEDY_BYTES];

		switch (cdc_judge_table(f, t)) {
		case CDC_FATE_NONE:
			continue;
		case CDC_FATE_PUBLISHED:
		case CDC_FATE_ADD:
			if (well++ < TABLES_SHOWN)
				tell(k, CDC_PASS, "replica_identity", "", "%s: %s", t->name,
				     identity_name(t));
			continue;
		case CDC_FATE_HURT:
		case CDC_FATE_LEFT_OUT:
			cdc_judge_reason(f, k->plan, t, reason, remedy);
			tell(k, CDC_WARN, "replica_identity", remedy, "%s%s: %.250s", t->name,
			     t->is_published ? "" : " is left out", reason);
			continue;
		}
	}
	if (well > TABLES_SHOWN)
		tell(k, CDC_PASS, "replica_identity", "", "%zu more tables have one",
		     well - TABLES_SHOWN);
}

/* The stream needs no right to a table and knows no row security; a copy of the table does. */
static void check_copies(const struct check *k, const struct cdc_facts *f)
{
	size_t n = 0, hidden = 0;

	for (size_t i = 0; i < f->table_n; i++) {
		const struct cdc_fact_table *t = &f->tables[i];
		enum cdc_fate fate = cdc_judge_table(f, t);
		bool may_select = !*t->unread_sql_name;
		char remedy[CDC_REMEDY_BYTES];

		if (fate == CDC_FATE_NONE || fate == CDC_FATE_LEFT_OUT)
			continue;
		n++;
		if (may_select && !t->hides_rows)
			continue;
		if (hidden++ >= TABLES_SHOWN)
			continue;
		if (!may_select)
			(void)snprintf(remedy, sizeof(remedy), "GRANT SELECT ON %s TO \"%s\";",
				       t->unread_sql_name, f->role);
		else
			(void)snprintf(remedy, sizeof(remedy), "ALTER ROLE \"%s\" BYPASSRLS;",
				       f->role);
		tell(k, CDC_WARN, may_select ? "row_security" : "select", remedy,
		     "%s: changes arrive, but role %s %s", t->name, f->role,
		     may_select ? "sees only some rows of it when it is copied"
				: "may not copy it");
	}
	if (n && !hidden)
		tell(k, CDC_PASS, "row_security", "", "role %s may read all rows of all %zu tables",
		     f->role, n);
	else if (hidden > TABLES_SHOWN)
		tell(k, CDC_WARN, "row_security", "", "%zu more tables are like that",
		     hidden - TABLES_SHOWN);
}

/* --- all of it
 * ------------------------------------------------------------------------------------------ */

static void check_server(const struct check *k, struct cdc_pgconn *c)
{
	struct cdc_facts f;
	struct cdc_err err;

	memset(&err, 0, sizeof(err));
	tell(k, CDC_PASS, "connection", "", "%s: database %s answers", c->where,
	     k->plan->settings->database);
	if (!check_version(k, c, &err))
		return;
	cdc_facts_init(&f);
	if (cdc_facts_read(&f, c, k->plan, k->plan->slot, &err)) {
		tell_error(k, "catalogs", &err);
		return;
	}
	if (!check_way(k, &f, &err)) {
		cdc_facts_clear(&f);
		return;
	}
	check_settings(k, &f, &err);
	/* A role that may not replicate may still be asked about everything else. */
	if (check_role(k, &f, &err))
		check_room(k, &f);
	check_slot(k, &f, &err);
	check_idle_slots(k, c, &err);
	check_old_transactions(k, &f, c, &err);
	cdc_failover_check(k->plan, &f, c, k->found, k->arg);
	check_publication(k, &f, &err);
	check_tables(k, &f);
	check_copies(k, &f);
	cdc_facts_clear(&f);
}

void cdc_source_preflight(const struct cdc_source_plan *plan, cdc_finding_fn *found, void *arg)
{
	const struct check k = {.plan = plan, .found = found, .arg = arg};
	struct cdc_pgconn *c = NULL;
	struct cdc_err err;

	memset(&err, 0, sizeof(err));
	if (cdc_pgconn_open(plan->settings, CDC_PGCONN_SQL, APPLICATION, NULL, &c, &err))
		tell_error(&k, "connection", &err);
	else
		check_server(&k, c);
	cdc_pgconn_close(c);
}
