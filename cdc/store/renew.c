/* Gaps that are found: a slot that is made anew behind one, a table that is read no more. */
#include <stdio.h>

#include "cdc/store/parts.h"
#include "cdc/store/request.h"

struct renewal {
	const struct cdc_slot_row *row; /* NULL: the slot stays */
	unsigned generation;
	const char *table; /* "": all of them */
	const struct cdc_gap_row *gap;
	const char *const *syncs;
	size_t sync_n;
};

static enum cdc_code renew_sync(struct cdc_database *db, const struct renewal *r, const char *sync,
				struct cdc_err *err)
{
	struct cdc_command repair = {.verb = CDC_VERB_REPAIR};
	struct cdc_gap_row gap = *r->gap;
	enum cdc_code rc;

	(void)snprintf(gap.sync, sizeof(gap.sync), "%s", sync);
	(void)snprintf(repair.sync, sizeof(repair.sync), "%s", sync);
	(void)snprintf(repair.argument, sizeof(repair.argument), "%u%s%s", r->generation,
		       *r->table ? " " : "", r->table);
	rc = cdc_gap_write(db, &gap, err);
	return rc ? rc : cdc_command_write(db, &repair, gap.at_us, err);
}

static enum cdc_code renew(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct renewal *r = arg;
	enum cdc_code rc = r->row ? cdc_slot_write(db, r->row, err) : CDC_OK;

	for (size_t i = 0; i < r->sync_n && !rc; i++)
		rc = renew_sync(db, r, r->syncs[i], err);
	return rc;
}

static enum cdc_code write_renewal(struct cdc_store *s, struct renewal *r, struct cdc_err *err)
{
	enum cdc_code rc = cdc_store_ask_write(s, renew, r, err);

	if (!rc)
		cdc_store_touch(s);
	return rc;
}

enum cdc_code cdc_store_slot_renew(struct cdc_store *s, const struct cdc_slot_row *row,
				   const struct cdc_gap_row *gap, const char *const *syncs,
				   size_t sync_n, struct cdc_err *err)
{
	struct renewal r = {.row = row,
			    .generation = row->generation,
			    .table = "",
			    .gap = gap,
			    .syncs = syncs,
			    .sync_n = sync_n};

	return write_renewal(s, &r, err);
}

enum cdc_code cdc_store_table_gap(struct cdc_store *s, const struct cdc_gap_row *gap,
				  const char *table, unsigned generation, const char *const *syncs,
				  size_t sync_n, struct cdc_err *err)
{
	struct renewal r = {.generation = generation,
			    .table = table,
			    .gap = gap,
			    .syncs = syncs,
			    .sync_n = sync_n};

	return write_renewal(s, &r, err);
}
