/*
 * absent.h - the tables that capture took out of its own publication.
 *
 * What is changed in such a table is never read.  So each of the slot's syncs that
 * has it gets a gap and the command to copy the table again, which is done once the table is
 * published again (as walpost does itself when it connects and the table is fit).
 * A table is noted before it is taken out, so that a crash between forgets none.
 *
 * Threads: none of its own; capture's.  Layer: pipeline (base, store).
 */
#ifndef CDC_PIPELINE_ABSENT_H
#define CDC_PIPELINE_ABSENT_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/base/err.h"
#include "cdc/base/selection.h"
#include "cdc/store/store.h"

#define CDC_ABSENT_MAX 64 /* that are remembered; of more there is no warning */

/* Constant; outlives the rest. */
struct cdc_absent_setup {
	struct cdc_store *store;
	const char *slot;
	const char *const *syncs;                      /* that the slot feeds */
	const struct cdc_selection *const *selections; /* theirs */
	size_t sync_n;
};

struct cdc_absent {
	struct cdc_absent_setup setup;
	bool is_loaded;
	size_t n;
	struct cdc_absent_table {
		bool is_told; /* the syncs have the gap and the command */
		char name[128];
	} tables[CDC_ABSENT_MAX];
};

/* Reads what is noted, once, and tells the syncs of tables that may have been taken out by a
 * process that could not.  at, generation: as of tell. */
enum cdc_code cdc_absent_load(struct cdc_absent *a, const struct cdc_id *at, unsigned generation,
			      struct cdc_err *err) CDC_CHECK;

/* Before a table is taken out, durably.  More than once is fine. */
enum cdc_code cdc_absent_note(struct cdc_absent *a, const char *table,
			      struct cdc_err *err) CDC_CHECK;
/* After it: the gap begins behind at, in this generation of the numbering. */
enum cdc_code cdc_absent_tell(struct cdc_absent *a, const char *table, const struct cdc_id *at,
			      unsigned generation, struct cdc_err *err) CDC_CHECK;

/* Forgets, durably, the tables that are not among these: they are published again, or gone. */
enum cdc_code cdc_absent_keep(struct cdc_absent *a, const char *const *still_out, size_t n,
			      struct cdc_err *err) CDC_CHECK;

/* How many are known to be out. */
size_t cdc_absent_count(const struct cdc_absent *a);

#endif
