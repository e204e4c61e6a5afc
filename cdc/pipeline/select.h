/*
 * select.h - what a sync wants, compiled: which records, and as what.
 *
 * A selector looks at each record before it enters the window.  Most pass as they
 * are and are not copied; the others are left out, or written anew into a batch
 * that the caller keeps with them.
 *
 * What is written anew has the id, the place and the transaction of the record it
 * is made of, and everything else as if the table had only the columns that were
 * selected: `key`, `fields`, `changes`, `unchanged`, the columns of a `schema`
 * record, `hash`, and the key's hash.
 *
 * Threads: a selector belongs to one thread; it learns the columns of tables.
 * Layer: pipeline (base, record).
 */
#ifndef CDC_PIPELINE_SELECT_H
#define CDC_PIPELINE_SELECT_H

#include "cdc/base/err.h"
#include "cdc/base/selection.h"
#include "cdc/record/batch.h"

struct cdc_selector;

/* operations: bit per enum cdc_op.  The selection outlives the selector.  CDC_NOMEM. */
enum cdc_code cdc_selector_new(const struct cdc_selection *selection, unsigned operations,
			       struct cdc_selector **ret, struct cdc_err *err) CDC_CHECK;
void cdc_selector_free(struct cdc_selector *s); /* NULL is fine */

struct cdc_selected {
	bool is_selected;
	bool is_mapped; /* it is records[index] of the batch, else the record itself */
	uint32_t index;
};

/*
 * Decides about one record.  *mapped is the batch for what is written anew, made
 * when first needed (NULL before).  CDC_NOMEM, CDC_LIMIT: it cannot be written;
 * CDC_CORRUPT: it is no record; the batch is then as it was before.
 */
enum cdc_code cdc_select(struct cdc_selector *s, struct cdc_view record, struct cdc_batch **mapped,
			 struct cdc_selected *ret, struct cdc_err *err) CDC_CHECK;

#endif
