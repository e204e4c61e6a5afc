#include "cdc/source/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/facts.h"
#include "cdc/source/quote.h"

#define ASK_MS       5000
#define CREATE_MS    15000 /* a new slot waits for the transactions that are open */
#define PUBLISH_MS   35000 /* lock_timeout is 30 s */
#define LEFT_OUT_MAX 1000  /* more are counted, not named */
#define FAILOVER     170000

void cdc_server_init(struct cdc_server *s)
{
	memset(s, 0, sizeof(*s));
	cdc_timelines_init(&s->timelines, 1);
}

void cdc_server_clear(struct cdc_server *s)
{
	for (size_t i = 0; i < s->left_out_n; i++) {
		free(s->left_out[i].table);
		free(s->left_out[i].reason);
		free(s->left_out[i].remedy);
	}
	free(s->left_out);
	cdc_timelines_clear(&s->timelines);
	cdc_server_init(s);
}

/* --- who it is ---------------------------------------------------------------------- */

static enum cdc_code read_history(struct cdc_server *s, struct cdc_pgconn *c, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	char command[64];
	enum cdc_code rc;

	cdc_timelines_init(&s->timelines, s->info.timeline);
	if (s->info.timeline <= 1)
		return CDC_OK;
	(void)snprintf(command, sizeof(command), "TIMELINE_HISTORY %u", s->info.timeline);
	rc = cdc_pgconn_exec(c, command, ASK_MS, "reading the timeline's history", &r, err);
	if (rc)
		return rc;
	return cdc_timelines_parse(&s->timelines, cdc_pgconn_text(r, 0, 1),
				   strlen(cdc_pgconn_text(r, 0, 1)), s->info.timeline, err);
}

static enum cdc_code identify(struct cdc_server *s, struct cdc_pgconn *c, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	enum cdc_code rc =
		cdc_pgconn_exec(c, "IDENTIFY_SYSTEM", ASK_MS, "identifying the server", &r, err);

	if (rc)
		return rc;
	(void)snprintf(s->info.system_id, sizeof(s->info.system_id), "%s",
		       cdc_pgconn_text(r, 0, 0));
	s->info.timeline = cdc_pgconn_u32(r, 0, 1);
	s->info.flush_lsn = cdc_pgconn_lsn(r, 0, 2);
	s->info.server_version = PQserverVersion(c->pg);
	return read_history(s, c, err);
}

/* --- the publication ---------------------------------------------------------------- */

static enum cdc_code leave_out(struct cdc_server *s, const struct cdc_table_facts *t,
			       struct cdc_err *err)
{
	struct cdc_left_out *grown, *one;
	char remedy[600];

	if (s->left_out_n == LEFT_OUT_MAX)
		return CDC_OK;
	grown = reallocarray(s->left_out, s->left_out_n + 1, sizeof(*grown));
	if (!grown)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	s->left_out = grown;
	one = &grown[s->left_out_n++];
	cdc_facts_identity_remedy(t, remedy, sizeof(remedy));
	one->table = strdup(t->text);
	one->reason = strdup("it has no replica identity: its UPDATE and DELETE would fail if it "
			     "were published");
	one->remedy = strdup(remedy);
	if (!one->table || !one->reason || !one->remedy)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	return CDC_OK;
}

static enum cdc_code note_left_out(struct cdc_server *s, const struct cdc_facts *f,
				   struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; !rc && i < f->table_n; i++) {
		const struct cdc_table_facts *t = &f->tables[i];

		if (t->is_wanted && !t->is_published && cdc_facts_hurts(t))
			rc = leave_out(s, t, err);
	}
	return rc;
}

/* Looks again within the transaction that published: its locks keep identities as they are. */
static enum cdc_code check_published(struct cdc_pgconn *c, const struct cdc_source_plan *plan,
				     struct cdc_err *err)
{
	struct cdc_facts now;
	enum cdc_code rc = cdc_facts_read(&now, c, plan, err);

	if (rc)
		return rc;
	for (size_t i = 0; !rc && i < now.table_n; i++) {
		if (now.tables[i].is_published && now.tables[i].is_wanted &&
		    cdc_facts_hurts(&now.tables[i]))
			rc = cdc_err_set(err, CDC_IO,
					 "%s: table %s lost its replica identity just now; it is "
					 "looked at again",
					 c->where, now.tables[i].text);
	}
	cdc_facts_clear(&now);
	return rc;
}

static enum cdc_code publish(struct cdc_server *s, struct cdc_pgconn *c, const struct cdc_facts *f,
			     const struct cdc_source_plan *plan, struct cdc_err *err)
{
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = 4u << 20};
	enum cdc_code rc;

	if (cdc_facts_publication_sql(f, plan, &sql) == 0 && f->has_publication)
		return CDC_OK; /* it has all that it may have */
	rc = cdc_pgconn_run(c, "BEGIN", ASK_MS, "publishing", err);
	if (!rc)
		rc = cdc_pgconn_run(c, cdc_quote_end(&sql), PUBLISH_MS, "publishing", err);
	if (!rc)
		rc = check_published(c, plan, err);
	if (!rc)
		rc = cdc_pgconn_run(c, "COMMIT", ASK_MS, "publishing", err);
	else
		(void)!cdc_pgconn_run(c, "ROLLBACK", ASK_MS, "publishing", NULL);
	s->info.publication_was_created = !rc && !f->has_publication;
	return rc;
}

/* --- the slot ----------------------------------------------------------------------- */

/* Says whose transaction a new slot waits for.  The connection that waited is gone. */
static enum cdc_code name_blocker(const struct cdc_source_plan *plan, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_pgconn *c = NULL;

	if (!cdc_pgconn_open(plan->settings, CDC_PGCONN_SQL, plan->slot, &c, NULL) &&
	    !cdc_pgconn_exec(c,
			     "SELECT pid, pg_catalog.to_char(pg_catalog.now() - xact_start, "
			     "'HH24:MI:SS') FROM pg_catalog.pg_stat_activity "
			     "WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() "
			     "ORDER BY xact_start LIMIT 1",
			     ASK_MS, "looking who holds the slot up", &r, NULL) &&
	    PQntuples(r)) {
		(void)cdc_err_set(
			err, CDC_TIMEOUT,
			"slot %s cannot be made before the transactions that are open end; "
			"process %s has one for %s",
			plan->slot, cdc_pgconn_text(r, 0, 0), cdc_pgconn_text(r, 0, 1));
		(void)cdc_err_remedy(err,
				     "end that transaction, or: SELECT "
				     "pg_terminate_backend(%s);",
				     cdc_pgconn_text(r, 0, 0));
	}
	cdc_pgconn_close(c);
	return CDC_TIMEOUT;
}

static enum cdc_code create_slot(struct cdc_server *s, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, const char *name,
				 bool is_temporary, bool is_standby, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	bool has_failover = s->info.server_version >= FAILOVER && !is_temporary && !is_standby;
	char command[256];
	enum cdc_code rc;

	(void)snprintf(command, sizeof(command),
		       "CREATE_REPLICATION_SLOT \"%s\"%s LOGICAL pgoutput %s", name,
		       is_temporary ? " TEMPORARY" : "",
		       has_failover ? "(SNAPSHOT 'nothing', FAILOVER)" : "NOEXPORT_SNAPSHOT");
	rc = cdc_pgconn_exec(c, command, CREATE_MS, "creating the slot", &r, err);
	if (rc == CDC_TIMEOUT)
		return name_blocker(plan, err);
	if (rc)
		return rc;
	s->info.slot_start = cdc_pgconn_lsn(r, 0, 1);
	s->info.slot_was_created = true;
	return CDC_OK;
}

/* --- all of it ---------------------------------------------------------------------- */

/* The publication before the slot: a change from before a publication cannot be read through it. */
static enum cdc_code make(struct cdc_server *s, struct cdc_pgconn *c, const struct cdc_facts *f,
			  const struct cdc_source_plan *plan, enum cdc_server_slot slot,
			  char ret_slot[64], struct cdc_err *err)
{
	const bool is_temporary = slot == CDC_SERVER_SLOT_TEMPORARY;
	enum cdc_code rc = cdc_facts_judge_server(f, c, err);

	if (!rc && !is_temporary)
		rc = cdc_facts_judge_slot(f, c, plan, slot == CDC_SERVER_SLOT_MUST_EXIST, err);
	if (!rc)
		rc = cdc_facts_judge_publication(f, c, plan, plan->may_create && !is_temporary,
						 err);
	if (!rc && !is_temporary)
		rc = publish(s, c, f, plan, err);
	if (!rc)
		rc = note_left_out(s, f, err);
	if (rc)
		return rc;
	if (is_temporary)
		(void)snprintf(ret_slot, 64, "walpost_tail_%d", PQbackendPID(c->pg));
	else
		(void)snprintf(ret_slot, 64, "%s", plan->slot);
	if (is_temporary || !f->has_slot)
		return create_slot(s, c, plan, ret_slot, is_temporary, f->is_standby, err);
	s->info.slot_start = f->confirmed;
	return CDC_OK;
}

enum cdc_code cdc_server_prepare(struct cdc_server *s, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, enum cdc_server_slot slot,
				 char ret_slot[64], struct cdc_err *err)
{
	struct cdc_facts f;
	enum cdc_code rc = identify(s, c, err);

	if (!rc)
		rc = cdc_facts_read(&f, c, plan, err);
	if (rc)
		return rc;
	rc = make(s, c, &f, plan, slot, ret_slot, err);
	cdc_facts_clear(&f);
	(void)snprintf(s->info.numbering, sizeof(s->info.numbering),
		       "pgoutput 1, publication %s, messages off, any origin",
		       plan->settings->publication);
	s->info.left_out = s->left_out;
	s->info.left_out_n = s->left_out_n;
	return rc;
}
