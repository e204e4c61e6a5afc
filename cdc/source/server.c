#include "cdc/source/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/facts.h"
#include "cdc/source/judge.h"
#include "cdc/source/publish.h"
#include "cdc/source/quote.h"
#include "cdc/source/standby.h"

#define ASK_MS 8000
/* Making a slot waits for every transaction that has written something.  One wait is shorter than
 * the whole, so that the server itself gives up first; the whole fits into the time a stop has. */
#define SLOT_LOCK "SET lock_timeout = '7s'"
#define SLOT_MS   9000
#define SQL_MAX   512

#define FAILOVER_VERSION 170000 /* the first whose slots can survive a failover */

void cdc_server_init(struct cdc_server *s)
{
	*s = (struct cdc_server){0};
	cdc_timelines_init(&s->timelines, 0);
}

static void free_left_out(struct cdc_server *s)
{
	for (size_t i = 0; i < s->left_out_n; i++) {
		free(s->left_out[i].table);
		free(s->left_out[i].reason);
		free(s->left_out[i].remedy);
	}
	free(s->left_out);
	s->left_out = NULL;
	s->left_out_n = 0;
}

void cdc_server_clear(struct cdc_server *s)
{
	free_left_out(s);
	cdc_timelines_clear(&s->timelines);
	cdc_server_init(s);
}

/* --- identity ------------------------------------------------------------------------------- */

enum cdc_code cdc_server_history(struct cdc_pgconn *c, uint32_t current, struct cdc_timelines *ret,
				 struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	char sql[64];
	enum cdc_code rc;

	cdc_timelines_init(ret, current);
	if (current <= 1)
		return CDC_OK;
	(void)snprintf(sql, sizeof(sql), "TIMELINE_HISTORY %u", current);
	rc = cdc_pgconn_exec(c, sql, ASK_MS, "reading the timeline's history", &r, err);
	if (rc)
		return rc;
	if (PQntuples(r) != 1 || PQnfields(r) < 2)
		return cdc_err_set(err, CDC_PROTO, "%s: TIMELINE_HISTORY gave no history",
				   c->where);
	return cdc_timelines_parse(ret, PQgetvalue(r, 0, 1), (size_t)PQgetlength(r, 0, 1), current,
				   err);
}

static enum cdc_code identify(struct cdc_server *s, struct cdc_pgconn *c, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	enum cdc_code rc = cdc_judge_version(PQserverVersion(c->pg), c->where, err);

	if (!rc)
		rc = cdc_pgconn_exec(c, "IDENTIFY_SYSTEM", ASK_MS, "identifying the server", &r,
				     err);
	if (rc)
		return rc;
	s->info.server_version = PQserverVersion(c->pg);
	(void)snprintf(s->info.system_id, sizeof(s->info.system_id), "%s",
		       cdc_pgconn_text(r, 0, 0));
	s->info.timeline = cdc_pgconn_u32(r, 0, 1);
	s->info.flush_lsn = cdc_pgconn_lsn(r, 0, 2);
	if (!s->info.system_id[0] || !s->info.timeline || !s->info.flush_lsn) {
		s->info.system_id[0] = '\0';
		return cdc_err_set(err, CDC_PROTO, "%s: IDENTIFY_SYSTEM gave no identity",
				   c->where);
	}
	return cdc_server_history(c, s->info.timeline, &s->timelines, err);
}

/* --- tables that are left out ------------------------------------------------------------------
 */

static enum cdc_code leave_out(struct cdc_server *s, const struct cdc_facts *f,
			       const struct cdc_source_plan *plan, const struct cdc_fact_table *t,
			       struct cdc_err *err)
{
	struct cdc_left_out *l = &s->left_out[s->left_out_n++];
	char reason[CDC_REASON_BYTES], remedy[CDC_REMEDY_BYTES];

	cdc_judge_reason(f, plan, t, reason, remedy);
	l->table = strdup(t->name);
	l->reason = strdup(reason);
	l->remedy = strdup(remedy);
	if (!l->table || !l->reason || !l->remedy)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the tables left out");
	return CDC_OK;
}

/* Notes what is left out, and what an UPDATE or DELETE of fails. */
static enum cdc_code note_left_out(struct cdc_server *s, const struct cdc_facts *f,
				   const struct cdc_source_plan *plan, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	free_left_out(s);
	s->left_out = calloc(f->table_n + 1, sizeof(*s->left_out));
	if (!s->left_out)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the tables left out");
	for (size_t i = 0; !rc && i < f->table_n; i++) {
		enum cdc_fate fate = cdc_judge_table(f, &f->tables[i]);

		if (fate == CDC_FATE_LEFT_OUT || fate == CDC_FATE_HURT)
			rc = leave_out(s, f, plan, &f->tables[i], err);
	}
	s->info.left_out = s->left_out;
	s->info.left_out_n = s->left_out_n;
	return rc;
}

/* --- slot ----------------------------------------------------------------------------------------
 */

/* The oldest transaction that has written something: the slot waits for it. */
static const char oldest_sql[] =
	"SELECT coalesce(l.pid, 0), coalesce(a.usename, ''), coalesce(a.application_name, ''), "
	"coalesce(p.gid, ''), "
	"coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start), 0)"
	"::pg_catalog.int8 "
	"FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid "
	"LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = l.transactionid "
	"WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted "
	"ORDER BY pg_catalog.age(l.transactionid) DESC LIMIT 1";

static enum cdc_code name_blocker(const char *where, const char *slot, const PGresult *r,
				  struct cdc_err *err)
{
	const char *gid = cdc_pgconn_text(r, 0, 3);
	uint32_t pid = cdc_pgconn_u32(r, 0, 0);
	char age[48] = "";

	if (*gid) {
		(void)cdc_err_set(err, CDC_TIMEOUT,
				  "%s: the slot %s cannot be made yet: it waits for the prepared "
				  "transaction %s",
				  where, slot, gid);
		return cdc_err_remedy(err, "COMMIT PREPARED '%s'; or ROLLBACK PREPARED '%s';", gid,
				      gid);
	}
	if (cdc_pgconn_u32(r, 0, 4))
		(void)snprintf(age, sizeof(age), ", open for %u s", cdc_pgconn_u32(r, 0, 4));
	(void)cdc_err_set(
		err, CDC_TIMEOUT,
		"%s: the slot %s cannot be made yet: it waits for the open transaction of "
		"pid %u (role %s, application %s%s)",
		where, slot, pid, cdc_pgconn_text(r, 0, 1), cdc_pgconn_text(r, 0, 2), age);
	return cdc_err_remedy(
		err,
		"end that transaction: SELECT pg_terminate_backend(%u); or let it end "
		"by itself",
		pid);
}

/* A connection for SQL to the same server; after an error the caller closes it, too. */
static enum cdc_code open_beside(const struct cdc_pgconn *c, const char *application,
				 struct cdc_pgconn **ret, struct cdc_err *err)
{
	struct cdc_pgconn_hint hint;
	enum cdc_code rc;

	cdc_pgconn_hint(c, &hint);
	rc = cdc_pgconn_begin(c->settings, CDC_PGCONN_SQL, application, &hint, ret, err);
	return rc ? rc : cdc_pgconn_finish(*ret, c->stop, err);
}

/* Asks on a connection of its own: the one that waited may be closed. */
static enum cdc_code waited_in_vain(const struct cdc_pgconn *c, const char *slot,
				    struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_pgconn *sql = NULL;
	enum cdc_code rc;

	rc = open_beside(c, slot, &sql, NULL);
	if (!rc)
		rc = cdc_pgconn_exec(sql, oldest_sql, ASK_MS, "reading open transactions", &r,
				     NULL);
	if (!rc && PQntuples(r) == 1)
		rc = name_blocker(c->where, slot, r, err);
	else
		rc = cdc_err_set(
			err, CDC_TIMEOUT,
			"%s: the slot %s cannot be made yet: it waits for transactions that "
			"were open",
			c->where, slot);
	cdc_pgconn_close(sql);
	return rc;
}

static enum cdc_code create_slot(struct cdc_server *s, struct cdc_pgconn *c,
				 const struct cdc_facts *f, const char *slot, bool is_temporary,
				 struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	const bool survives = !is_temporary && f->version >= FAILOVER_VERSION && !f->is_in_recovery;
	struct cdc_buf sql;
	enum cdc_code rc;

	rc = cdc_pgconn_run(c, SLOT_LOCK, ASK_MS, "making the slot", err);
	if (rc)
		return rc;
	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "CREATE_REPLICATION_SLOT ");
	cdc_quote_name(&sql, slot);
	cdc_buf_puts(&sql, is_temporary ? " TEMPORARY" : "");
	cdc_buf_puts(&sql, survives ? " LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"
				    : " LOGICAL pgoutput NOEXPORT_SNAPSHOT");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), SLOT_MS, "making the slot", &r, err);
	cdc_buf_clear(&sql);
	if (rc == CDC_TIMEOUT)
		return waited_in_vain(c, slot, err);
	if (rc)
		return rc;
	s->info.slot_start = cdc_pgconn_lsn(r, 0, 1);
	s->info.slot_was_created = true;
	if (!s->info.slot_start)
		return cdc_err_set(err, CDC_PROTO, "%s: the new slot %s has no position", c->where,
				   slot);
	return CDC_OK;
}

static enum cdc_code have_slot(struct cdc_server *s, struct cdc_pgconn *c,
			       const struct cdc_facts *f, const char *slot, bool is_temporary,
			       struct cdc_err *err)
{
	if (is_temporary || !f->slot.exists)
		return create_slot(s, c, f, slot, is_temporary, err);
	s->info.slot_start = f->slot.confirmed_lsn;
	if (!s->info.slot_start)
		return cdc_err_set(err, CDC_HELD, "%s: the slot %s is still being made by somebody",
				   c->where, slot);
	return CDC_OK;
}

/* --- all of it
 * ------------------------------------------------------------------------------------- */

static enum cdc_code judge(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			   enum cdc_server_slot slot, struct cdc_err *err)
{
	enum cdc_code rc = cdc_judge_server(f, plan, err);

	if (rc)
		return rc;
	if (slot == CDC_SERVER_SLOT_TEMPORARY)
		return cdc_judge_slot_room(f, err);
	/* A standby that is read makes nobody wait. */
	if (!f->is_in_recovery && cdc_standby_is_named(f->standby_names, plan->slot))
		return cdc_standby_error(f->where, plan->slot, f->standby_names, err);
	return cdc_judge_slot(f, plan, slot == CDC_SERVER_SLOT_MUST_EXIST, err);
}

/*
 * Over a connection of its own, never the one that will stream: what SQL has loaded there of a
 * table stays loaded, and changes from before an ALTER TABLE would be decoded with the columns of
 * now.  (pg_publication_tables opens every table since PostgreSQL 16; StartLogicalReplication in
 * src/backend/replication/walsender.c does not call InvalidateSystemCaches as the SQL functions of
 * logical decoding do.)
 */
static enum cdc_code look(struct cdc_server *s, const struct cdc_pgconn *stream,
			  struct cdc_facts *f, const struct cdc_source_plan *plan,
			  enum cdc_server_slot slot, struct cdc_err *err)
{
	const bool is_temporary = slot == CDC_SERVER_SLOT_TEMPORARY;
	struct cdc_pgconn *c = NULL;
	enum cdc_code rc;

	rc = open_beside(stream, plan->slot, &c, err);
	/* Each statement has a deadline of its own here. */
	if (!rc)
		rc = cdc_pgconn_run(c, "SET statement_timeout = 0", ASK_MS, "reading the settings",
				    err);
	if (!rc)
		rc = cdc_facts_read(f, c, plan, is_temporary ? NULL : plan->slot, err);
	s->info.is_standby = !rc && f->is_in_recovery;
	if (!rc)
		rc = judge(f, plan, slot, err);
	/* The publication comes first: what was changed before it was made cannot be read. */
	if (!rc)
		rc = cdc_publish(c, plan, f, &s->info.publication_was_created, err);
	if (!rc)
		rc = note_left_out(s, f, plan, err);
	cdc_pgconn_close(c);
	return rc;
}

static enum cdc_code look_and_make(struct cdc_server *s, struct cdc_pgconn *c, struct cdc_facts *f,
				   const struct cdc_source_plan *plan, enum cdc_server_slot slot,
				   char ret_slot[64], struct cdc_err *err)
{
	const bool is_temporary = slot == CDC_SERVER_SLOT_TEMPORARY;
	enum cdc_code rc = look(s, c, f, plan, slot, err);

	if (rc)
		return rc;
	if (is_temporary)
		(void)snprintf(ret_slot, 64, "walpost_tail_%d", PQbackendPID(c->pg));
	else
		(void)snprintf(ret_slot, 64, "%s", plan->slot);
	return have_slot(s, c, f, ret_slot, is_temporary, err);
}

enum cdc_code cdc_server_prepare(struct cdc_server *s, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, enum cdc_server_slot slot,
				 char ret_slot[64], struct cdc_err *err)
{
	struct cdc_facts f;
	enum cdc_code rc;

	cdc_server_clear(s);
	if (!plan->settings->change_detection) {
		(void)cdc_err_set(err, CDC_CONFIG, "%s: change_detection is off", c->where);
		return cdc_err_remedy(err, "set change_detection: true in the connection");
	}
	/* What START_REPLICATION is asked for; a row's number in its transaction depends on it. */
	(void)snprintf(s->info.numbering, sizeof(s->info.numbering),
		       "proto_version=1 messages=%s origin=any two_phase=off publication=%s",
		       plan->settings->message_prefixes.n ? "on" : "off",
		       plan->settings->publication);
	cdc_facts_init(&f);
	rc = identify(s, c, err);
	if (!rc)
		rc = look_and_make(s, c, &f, plan, slot, ret_slot, err);
	cdc_facts_clear(&f);
	return rc;
}
