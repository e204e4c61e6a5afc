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
 * Rows and filters: a row is delivered when it meets all filters of its table.  An
 * insert, a copied row or an update is judged by its new row, a delete by its old
 * one, as far as the log has it; what that does not decide is delivered (a delete
 * whose filtered columns are not in the old row; an update whose filtered column is a
 * large value that did not change and is not in the log).  An update that comes to
 * meet them is an insert where the old row is known not to have; one that no longer
 * does is left out, or is a delete when the table's filter_leaving says so: of the old
 * row when that is known, else of its key.  A filter on a column that is not in the
 * rows at all is an error: it must not let everything pass.
 *
 * Relative filters count from the commit of the change, so that a repeat is judged as
 * it was the first time; for copied rows, which have none, from now.
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

/* operations: bit per enum cdc_op.  The selection outlives the selector.  CDC_NOMEM; CDC_CONFIG: a
 * filter's value is none. */
enum cdc_code cdc_selector_new(const struct cdc_selection *selection, unsigned operations,
			       struct cdc_selector **ret, struct cdc_err *err) CDC_CHECK;
void cdc_selector_free(struct cdc_selector *s); /* NULL is fine */

struct cdc_selected {
	bool is_selected;
	bool is_mapped; /* it is records[index] of the batch, else the record itself */
	uint32_t index;
};

/* The time for what has none of its own; microseconds since 1970. */
void cdc_selector_set_now(struct cdc_selector *s, int64_t now_us);

/*
 * Decides about one record.  *mapped is the batch for what is written anew, made
 * when first needed (NULL before).  CDC_NOMEM, CDC_LIMIT: it cannot be written;
 * CDC_CORRUPT: it is no record; CDC_CONFIG: the selection does not suit the table; the batch is
 * then as it was before.
 */
enum cdc_code cdc_select(struct cdc_selector *s, struct cdc_view record, struct cdc_batch **mapped,
			 struct cdc_selected *ret, struct cdc_err *err) CDC_CHECK;

/* A column that is listed in `fields` of a table's entry and was not in its last description; each
 * is told once.  False: none.  The texts live until the next call on the selector. */
bool cdc_selector_missing(struct cdc_selector *s, const char **ret_table, const char **ret_column);

#endif
