/*
 * row.h - what comes back from the database, checked before it is believed.
 *
 * Each reader returns false, and leaves its output alone, when a column does not
 * hold what walpost writes there.
 *
 * Threads: any.  Layer: store (base, record).
 */
#ifndef CDC_STORE_ROW_H
#define CDC_STORE_ROW_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/record/id.h"
#include "cdc/store/sql.h"

bool cdc_row_id(const struct cdc_sql_value *v, struct cdc_id *ret);
bool cdc_row_lsn(const struct cdc_sql_value *v, cdc_lsn *ret);
/* Also false for a text that does not fit, NUL included. */
bool cdc_row_text(const struct cdc_sql_value *v, char *ret, size_t size);
bool cdc_row_int(const struct cdc_sql_value *v, int64_t min, int64_t max, int64_t *ret);

#define CDC_ROWS_MAX 100000 /* of one array: a database that says more is not ours */

/* Makes room in *array for one more element behind n; grows at powers of two.  CDC_LIMIT,
 * CDC_NOMEM. */
enum cdc_code cdc_row_room(void **array, size_t n, size_t size, struct cdc_err *err) CDC_CHECK;

#endif
