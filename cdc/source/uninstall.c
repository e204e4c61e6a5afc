#include <string.h>

#include "cdc/base/buf.h"
#include "cdc/source/facts.h"
#include "cdc/source/judge.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/quote.h"
#include "cdc/source/source.h"

#define DROP_MS 8000
#define WAIT_MS 3000 /* a reader that has just ended frees its slot within moments */
#define SQL_MAX 512

/* Only a slot that could be ours: another plugin's or database's is somebody else's. */
static enum cdc_code check_slot(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				struct cdc_err *err)
{
	enum cdc_code rc = cdc_judge_slot(f, plan, false, err);

	/* One that is lost is dropped all the same; one that is read may be about to be let go. */
	return rc == CDC_GAP || (rc == CDC_HELD && f->slot.active_pid) ? CDC_OK : rc;
}

static enum cdc_code drop_slot(struct cdc_pgconn *c, const struct cdc_facts *f,
			       const struct cdc_source_plan *plan, struct cdc_err *err)
{
	struct cdc_buf sql;
	enum cdc_code rc = check_slot(f, plan, err);

	if (rc)
		return rc;
	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "DROP_REPLICATION_SLOT ");
	cdc_quote_name(&sql, plan->slot);
	cdc_buf_puts(&sql, f->slot.active_pid ? " WAIT" : "");
	rc = cdc_pgconn_run(c, cdc_quote_end(&sql), WAIT_MS, "dropping the slot", err);
	cdc_buf_clear(&sql);
	if (rc == CDC_MISSING)
		return CDC_OK;
	if (rc != CDC_TIMEOUT && rc != CDC_HELD)
		return rc;
	(void)cdc_err_set(err, CDC_HELD, "%s: the slot %s is still read, by pid %u%s%s", c->where,
			  plan->slot, f->slot.active_pid, *f->slot.reader ? ", application " : "",
			  f->slot.reader);
	return cdc_err_remedy(err, "stop the walpost that reads it, then run this again");
}

static enum cdc_code drop_publication(struct cdc_pgconn *c, const struct cdc_facts *f,
				      const char *publication, struct cdc_err *err)
{
	struct cdc_buf sql;
	const char *text;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "DROP PUBLICATION IF EXISTS ");
	cdc_quote_name(&sql, publication);
	text = cdc_quote_end(&sql);
	rc = cdc_pgconn_run(c, text, DROP_MS, "dropping the publication", err);
	if (rc == CDC_CONFIG)
		rc = cdc_err_remedy(err, "as its owner %s or a superuser: %s;",
				    f->publication.owner, text);
	cdc_buf_clear(&sql);
	return rc;
}

enum cdc_code cdc_source_uninstall(const struct cdc_source_plan *plan, bool is_publication_ours,
				   struct cdc_err *err)
{
	const struct cdc_source_plan bare = {
		.settings = plan->settings, .slot = plan->slot, .may_create = true};
	struct cdc_pgconn *c = NULL;
	struct cdc_facts f;
	enum cdc_code rc;

	cdc_facts_init(&f);
	rc = cdc_pgconn_open(plan->settings, CDC_PGCONN_REPLICATION, "walpost uninstall",
			     plan->stop, &c, err);
	if (!rc)
		rc = cdc_judge_version(PQserverVersion(c->pg), c->where, err);
	if (!rc)
		rc = cdc_facts_read(&f, c, &bare, plan->slot, err);
	if (!rc && f.slot.exists)
		rc = drop_slot(c, &f, plan, err);
	if (!rc && is_publication_ours && f.publication.exists)
		rc = drop_publication(c, &f, plan->settings->publication, err);
	cdc_facts_clear(&f);
	cdc_pgconn_close(c);
	return rc;
}
