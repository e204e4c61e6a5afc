/* Every test of a source that changes nothing: the judgements of facts.h, one finding each. */
#include <stdio.h>
#include <string.h>

#include "cdc/source/facts.h"
#include "cdc/source/standby.h"

struct report {
	cdc_finding_fn *found;
	void *arg;
};

static void tell(const struct report *r, enum cdc_verdict verdict, const char *name,
		 const char *text, const char *remedy)
{
	struct cdc_finding f = {.verdict = verdict};

	(void)snprintf(f.name, sizeof(f.name), "%s", name);
	(void)snprintf(f.text, sizeof(f.text), "%.*s", (int)sizeof(f.text) - 1, text);
	(void)snprintf(f.remedy, sizeof(f.remedy), "%s", remedy);
	r->found(r->arg, &f);
}

/* What a judgement says, or what holds when it has nothing to say. */
static void tell_judgement(const struct report *r, const char *name, enum cdc_code rc,
			   const struct cdc_err *err, const char *fine)
{
	if (rc)
		tell(r, CDC_FAIL, name, err->msg, err->remedy);
	else
		tell(r, CDC_PASS, name, fine, "");
}

static void tell_server(const struct report *r, const struct cdc_facts *f,
			const struct cdc_pgconn *c)
{
	struct cdc_err err = {0};
	char fine[128];
	enum cdc_code rc = cdc_facts_judge_server(f, c, &err);

	(void)snprintf(fine, sizeof(fine), "PostgreSQL %d.%d, wal_level logical%s",
		       f->version / 10000, f->version % 10000, f->is_standby ? ", a standby" : "");
	tell_judgement(r, f->may_replicate ? "wal_level" : "role", rc, &err, fine);
}

static void tell_slot(const struct report *r, const struct cdc_facts *f, const struct cdc_pgconn *c,
		      const struct cdc_source_plan *plan)
{
	struct cdc_err err = {0};
	char fine[256];
	enum cdc_code rc = cdc_facts_judge_slot(f, c, plan, false, &err);

	(void)snprintf(fine, sizeof(fine), "%s %s", plan->slot,
		       !f->has_slot  ? "will be created"
		       : f->slot_pid ? "is being read, by a running walpost or somebody else"
				     : "is there and free");
	/* A running walpost holds its own slot: that is as it should be. */
	tell_judgement(r, "slot", rc == CDC_HELD && f->slot_pid ? CDC_OK : rc, &err, fine);
	if (f->unread[0]) {
		(void)snprintf(fine, sizeof(fine),
			       "nobody reads these slots, which keep WAL: %.200s", f->unread);
		tell(r, CDC_WARN, "unread_slots", fine,
		     "if nobody needs them: SELECT pg_drop_replication_slot('NAME');");
	}
}

static void tell_identity(const struct report *r, const struct cdc_facts *f)
{
	size_t fine = 0;
	char text[400], remedy[600];

	for (size_t i = 0; i < f->table_n; i++) {
		const struct cdc_table_facts *t = &f->tables[i];

		if (!t->is_wanted && !t->is_published)
			continue;
		if (!cdc_facts_hurts(t)) {
			fine++;
			continue;
		}
		(void)snprintf(
			text, sizeof(text),
			t->is_published
				? "%.200s has no replica identity: its UPDATE and DELETE fail "
				  "since it was published"
				: "%.200s has no replica identity and is left out: published, its "
				  "UPDATE and DELETE would fail",
			t->text);
		cdc_facts_identity_remedy(t, remedy, sizeof(remedy));
		tell(r, CDC_WARN, "replica_identity", text, remedy);
	}
	(void)snprintf(text, sizeof(text), "%zu tables have one", fine);
	if (fine)
		tell(r, CDC_PASS, "replica_identity", text, "");
}

static void tell_publication(const struct report *r, const struct cdc_facts *f,
			     const struct cdc_pgconn *c, const struct cdc_source_plan *plan)
{
	const char *name = plan->settings->publication;
	struct cdc_err err = {0};
	char fine[256];
	enum cdc_code rc = cdc_facts_judge_publication(f, c, plan, plan->may_create, &err);

	(void)snprintf(fine, sizeof(fine), "%s %s", name,
		       f->has_publication ? "is there" : "will be created");
	tell_judgement(r, "publication", rc, &err, fine);
	if (f->has_publication && !f->has_all_operations)
		tell(r, CDC_WARN, "publication",
		     "it does not publish all of insert, update, delete and truncate: the others "
		     "are "
		     "not seen",
		     "ALTER PUBLICATION ... SET (publish = 'insert, update, delete, truncate');");
	if (!rc && (f->has_publication || plan->table_n))
		tell_identity(r, f);
}

static void tell_standby(const struct report *r, const struct cdc_facts *f,
			 const struct cdc_pgconn *c, const struct cdc_source_plan *plan)
{
	struct cdc_err err = {0};

	if (f->is_standby || !cdc_standby_is_named(f->standby_names, plan->slot))
		return;
	(void)cdc_standby_error(c->where, plan->slot, f->standby_names, &err);
	tell(r, CDC_FAIL, "synchronous_standby", err.msg, err.remedy);
}

void cdc_source_preflight(const struct cdc_source_plan *plan, cdc_finding_fn *found, void *arg)
{
	const struct report r = {.found = found, .arg = arg};
	struct cdc_pgconn *c = NULL;
	struct cdc_err err = {0};
	struct cdc_facts f;

	if (cdc_pgconn_open(plan->settings, CDC_PGCONN_SQL, plan->slot, &c, &err) ||
	    cdc_facts_read(&f, c, plan, &err)) {
		tell(&r, CDC_FAIL, "connection", err.msg, err.remedy);
		cdc_pgconn_close(c);
		return;
	}
	tell_server(&r, &f, c);
	tell_slot(&r, &f, c, plan);
	tell_publication(&r, &f, c, plan);
	tell_standby(&r, &f, c, plan);
	cdc_facts_clear(&f);
	cdc_pgconn_close(c);
}
