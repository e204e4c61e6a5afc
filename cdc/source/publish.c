#include "cdc/source/publish.h"

#include <string.h>

#include "cdc/source/judge.h"
#include "cdc/source/quote.h"

#define RUN_MS  8000
#define SQL_MAX (16u << 20)
#define TRIES   3 /* somebody changed a table between two looks; more often it is no accident */

static bool was_hurt(const struct cdc_facts *before, const struct cdc_fact_table *t)
{
	for (size_t i = 0; i < before->table_n; i++) {
		if (strcmp(before->tables[i].sql_name, t->sql_name) == 0)
			return cdc_judge_table(before, &before->tables[i]) == CDC_FATE_HURT;
	}
	return false;
}

/* Would the statement make UPDATE or DELETE of a table fail that do not fail now? */
static bool is_any_hurt(const struct cdc_facts *before, const struct cdc_facts *after)
{
	for (size_t i = 0; i < after->table_n; i++) {
		if (cdc_judge_table(after, &after->tables[i]) == CDC_FATE_HURT &&
		    !was_hurt(before, &after->tables[i]))
			return true;
	}
	return false;
}

static enum cdc_code change(struct cdc_pgconn *c, const struct cdc_source_plan *plan,
			    const struct cdc_facts *f, struct cdc_err *err)
{
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_judge_publish_sql(&sql, f, plan, 0);
	rc = cdc_pgconn_run(c, "BEGIN", RUN_MS, "publishing", err);
	if (!rc)
		rc = cdc_pgconn_run(c, "SET LOCAL lock_timeout = '5s'", RUN_MS, "publishing", err);
	if (!rc)
		rc = cdc_pgconn_run(c, cdc_quote_end(&sql), RUN_MS,
				    f->publication.exists ? "adding tables to the publication"
							  : "making the publication",
				    err);
	cdc_buf_clear(&sql);
	return rc;
}

/* One attempt.  *ret_is_done false: the tables changed meanwhile, and nothing was published. */
static enum cdc_code attempt(struct cdc_pgconn *c, const struct cdc_source_plan *plan,
			     const struct cdc_facts *f, bool *ret_is_done, struct cdc_err *err)
{
	struct cdc_facts after;
	enum cdc_code rc = change(c, plan, f, err);

	cdc_facts_init(&after);
	if (!rc)
		rc = cdc_facts_read(&after, c, plan, NULL, err);
	*ret_is_done = !rc && !is_any_hurt(f, &after);
	cdc_facts_clear(&after);
	if (rc) {
		/* The reason is the statement's; a connection that broke shows at the next one. */
		(void)!cdc_pgconn_run(c, "ROLLBACK", RUN_MS, "publishing", NULL);
		return rc;
	}
	return cdc_pgconn_run(c, *ret_is_done ? "COMMIT" : "ROLLBACK", RUN_MS, "publishing", err);
}

enum cdc_code cdc_publish(struct cdc_pgconn *c, const struct cdc_source_plan *plan,
			  struct cdc_facts *f, bool *ret_was_created, struct cdc_err *err)
{
	const char *slot = f->slot.exists ? plan->slot : NULL;

	*ret_was_created = false;
	for (int i = 0; i < TRIES; i++) {
		enum cdc_publish what;
		enum cdc_code again, rc = cdc_judge_publication(f, plan, &what, err);
		bool is_done;

		if (rc || what == CDC_PUBLISH_NOTHING)
			return rc;
		rc = attempt(c, plan, f, &is_done, err);
		if (!rc && is_done) {
			*ret_was_created = what == CDC_PUBLISH_CREATE;
			return CDC_OK;
		}
		/* A refusal stands, unless somebody else did the same meanwhile. */
		if (rc && rc != CDC_CONFIG && rc != CDC_PROTO)
			return rc;
		again = cdc_facts_read(f, c, plan, slot, rc ? NULL : err);
		if (rc && (again || i + 1 == TRIES ||
			   (what == CDC_PUBLISH_CREATE && !f->publication.exists)))
			return rc;
		if (again)
			return again;
	}
	return cdc_err_set(err, CDC_HELD,
			   "%s: tables change while the publication %s is made; it is tried again",
			   c->where, plan->settings->publication);
}
