/* Removes what walpost made on a server. */
#include <stdio.h>
#include <string.h>

#include "cdc/source/pgconn.h"
#include "cdc/source/quote.h"

#define DROP_MS 35000

static enum cdc_code run(struct cdc_pgconn *c, const char *before, const char *name,
			 const char *after, bool is_text, const char *doing, struct cdc_err *err)
{
	CDC_AUTO(cdc_buf_clear) struct cdc_buf sql = {.max = 1024};

	cdc_buf_puts(&sql, before);
	if (is_text)
		cdc_quote_text(&sql, name);
	else
		cdc_quote_name(&sql, name);
	cdc_buf_puts(&sql, after);
	return cdc_pgconn_run(c, cdc_quote_end(&sql), DROP_MS, doing, err);
}

enum cdc_code cdc_source_uninstall(const struct cdc_source_plan *plan, bool is_publication_ours,
				   struct cdc_err *err)
{
	struct cdc_pgconn *c = NULL;
	enum cdc_code rc = cdc_pgconn_open(plan->settings, CDC_PGCONN_SQL, plan->slot, &c, err);

	if (!rc)
		rc = run(c,
			 "SELECT pg_catalog.pg_drop_replication_slot(slot_name) "
			 "FROM pg_catalog.pg_replication_slots WHERE slot_name = ",
			 plan->slot, "", true, "dropping the slot", err);
	if (!rc && is_publication_ours)
		rc = run(c, "DROP PUBLICATION IF EXISTS ", plan->settings->publication, "", false,
			 "dropping the publication", err);
	cdc_pgconn_close(c);
	return rc;
}
