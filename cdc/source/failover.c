#include "cdc/source/failover.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cdc/source/quote.h"

#define APPLICATION      "walpost check"
#define ASK_MS           8000
#define SQL_MAX          2048
#define SETTINGS         320    /* bytes: four ALTER SYSTEM */
#define FAILOVER_VERSION 170000 /* the first whose slots can survive a failover */

struct check {
	const struct cdc_source_plan *plan;
	cdc_finding_fn *found;
	void *arg;
};

static void tell(const struct check *k, enum cdc_verdict verdict, const char *remedy,
		 const char *fmt, ...) CDC_FMT(4, 5);
static void tell(const struct check *k, enum cdc_verdict verdict, const char *remedy,
		 const char *fmt, ...)
{
	struct cdc_finding f = {.verdict = verdict, .name = "failover"};
	va_list ap;

	(void)snprintf(f.remedy, sizeof(f.remedy), "%s", remedy);
	va_start(ap, fmt);
	(void)vsnprintf(f.text, sizeof(f.text), fmt, ap);
	va_end(ap);
	k->found(k->arg, &f);
}

/* --- the primary ------------------------------------------------------------------------ */

static void check_primary(const struct check *k, const struct cdc_facts *f, struct cdc_pgconn *c)
{
	/* Standbys that take the WAL by a slot are those that can be waited for. */
	static const char sql[] =
		"SELECT pg_catalog.current_setting('synchronized_standby_slots'), "
		"coalesce(pg_catalog.string_agg(slot_name, ', ' ORDER BY slot_name), '...') "
		"FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical' AND active";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	const char *slot = k->plan->slot;
	struct cdc_err err;
	char remedy[512];

	memset(&err, 0, sizeof(err));
	if (f->slot.exists && !f->slot.is_failover) {
		(void)snprintf(remedy, sizeof(remedy),
			       "with walpost stopped: psql \"host=%s port=%u dbname=%s "
			       "replication=database\" -c 'ALTER_REPLICATION_SLOT %s (FAILOVER "
			       "true)'",
			       c->host.name, c->host.port, f->database, slot);
		tell(k, CDC_WARN, remedy,
		     "no standby keeps the slot %s: it was made without failover", slot);
		return;
	}
	if (cdc_pgconn_exec(c, sql, ASK_MS, "reading the standbys", &r, &err)) {
		tell(k, CDC_WARN, err.remedy, "%s", err.msg);
		return;
	}
	(void)snprintf(remedy, sizeof(remedy),
		       "ALTER SYSTEM SET synchronized_standby_slots = '%s'; and SELECT "
		       "pg_reload_conf(); on the primary",
		       cdc_pgconn_text(r, 0, 1));
	if (!*cdc_pgconn_text(r, 0, 0))
		tell(k, CDC_WARN, remedy,
		     "changes may be delivered that a failover undoes, and then the gap is told: "
		     "synchronized_standby_slots is empty on %s",
		     c->where);
	else
		tell(k, CDC_PASS, "",
		     "standbys may keep the slot %s, and nothing is read before they have it (%s)",
		     slot, cdc_pgconn_text(r, 0, 0));
}

/* --- a standby -------------------------------------------------------------------------- */

/* Settings that only members of pg_read_all_settings see are null for others. */
static enum cdc_code ask_standby(struct cdc_pgconn *c, const char *slot, PGresult **ret,
				 struct cdc_err *err)
{
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(
		&sql,
		"SELECT pg_catalog.pg_is_in_recovery(), "
		"pg_catalog.current_setting('sync_replication_slots', true), "
		"pg_catalog.current_setting('hot_standby_feedback'), "
		"(SELECT setting FROM pg_catalog.pg_settings WHERE name = 'primary_slot_name'), "
		"(SELECT setting ~ 'dbname' FROM pg_catalog.pg_settings WHERE name = "
		"'primary_conninfo'), coalesce((SELECT CASE WHEN NOT "
		"coalesce((pg_catalog.to_jsonb(s) ->> 'synced')::pg_catalog.bool, false) "
		"THEN 'foreign' WHEN s.temporary THEN 'early' ELSE 'kept' END "
		"FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = ");
	cdc_quote_text(&sql, slot);
	cdc_buf_puts(&sql, "), 'none')");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "reading how the standby stands", ret,
			     err);
	cdc_buf_clear(&sql);
	return rc;
}

static void add_setting(char remedy[SETTINGS], const char *what)
{
	const size_t len = strlen(remedy);

	(void)snprintf(remedy + len, SETTINGS - len, "%sALTER SYSTEM SET %s;", len ? " " : "",
		       what);
}

/* What keeps a standby from keeping slots; "": nothing that we may see. */
static void missing_settings(const PGresult *r, char ret_remedy[SETTINGS])
{
	ret_remedy[0] = '\0';
	if (strcmp(cdc_pgconn_text(r, 0, 1), "on") != 0)
		add_setting(ret_remedy, "sync_replication_slots = on");
	if (strcmp(cdc_pgconn_text(r, 0, 2), "on") != 0)
		add_setting(ret_remedy, "hot_standby_feedback = on");
	if (!PQgetisnull(r, 0, 3) && !*cdc_pgconn_text(r, 0, 3))
		add_setting(ret_remedy, "primary_slot_name = 'a physical slot of the primary'");
	if (!PQgetisnull(r, 0, 4) && !cdc_pgconn_bool(r, 0, 4))
		add_setting(ret_remedy, "primary_conninfo = '... dbname=postgres'");
}

static void judge_standby(const struct check *k, const struct cdc_facts *f,
			  const struct cdc_pgconn *c, const PGresult *r)
{
	const char *slot = cdc_pgconn_text(r, 0, 5);
	char settings[SETTINGS], remedy[768];

	if (!cdc_pgconn_bool(r, 0, 0)) {
		tell(k, CDC_FAIL, "take it out of hostname, or make it a standby of the primary",
		     "%s is a primary, too: only one of the hosts may be", c->where);
		return;
	}
	missing_settings(r, settings);
	(void)snprintf(remedy, sizeof(remedy), "on %s: %s and SELECT pg_reload_conf();", c->where,
		       settings);
	if (*settings) {
		tell(k, CDC_WARN, remedy, "%s keeps no slots of its primary", c->where);
	} else if (strcmp(slot, "foreign") == 0) {
		(void)snprintf(remedy, sizeof(remedy),
			       "on %s: SELECT pg_drop_replication_slot('%s');", c->where,
			       k->plan->slot);
		tell(k, CDC_WARN, remedy,
		     "%s has a slot %s of its own, so it cannot keep the primary's", c->where,
		     k->plan->slot);
	} else if (f->slot.exists && strcmp(slot, "kept") != 0) {
		tell(k, CDC_WARN,
		     "wait a minute and check again; then see the standby's log for its slot sync "
		     "worker, and primary_slot_name and dbname in its primary_conninfo",
		     "%s does not keep the slot %s yet", c->where, k->plan->slot);
	} else {
		tell(k, CDC_PASS, "", "%s is a standby and %s the slot %s", c->where,
		     f->slot.exists ? "keeps" : "would keep", k->plan->slot);
	}
}

static void check_standby(const struct check *k, const struct cdc_facts *f,
			  const struct cdc_host *host)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	const struct cdc_pgconn_hint hint = {.host = *host};
	struct cdc_pgconn *c = NULL;
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = cdc_pgconn_begin(k->plan->settings, CDC_PGCONN_SQL, APPLICATION, &hint, &c, &err);
	if (!rc)
		rc = cdc_pgconn_finish(c, NULL, &err);
	if (!rc)
		rc = ask_standby(c, k->plan->slot, &r, &err);
	if (rc)
		tell(k, CDC_WARN, err.remedy, "%s", err.msg);
	else
		judge_standby(k, f, c, r);
	cdc_pgconn_close(c);
}

void cdc_failover_check(const struct cdc_source_plan *plan, const struct cdc_facts *f,
			struct cdc_pgconn *c, cdc_finding_fn *found, void *arg)
{
	const struct check k = {.plan = plan, .found = found, .arg = arg};
	struct cdc_host hosts[CDC_HOSTS_MAX];
	size_t n;

	if (cdc_hosts_parse(plan->settings->hostname, plan->settings->port, hosts, &n, NULL) ||
	    n == 1)
		return;
	if (f->version < FAILOVER_VERSION) {
		tell(&k, CDC_WARN, "upgrade to PostgreSQL 17 or newer",
		     "PostgreSQL %d keeps no slot through a failover: after one the gap is told, "
		     "and the tables have to be copied",
		     f->version / 10000);
		return;
	}
	check_primary(&k, f, c);
	for (size_t i = 0; i < n; i++) {
		if (strcmp(hosts[i].name, c->host.name) != 0 || hosts[i].port != c->host.port)
			check_standby(&k, f, &hosts[i]);
	}
}
