/*
 * columns.h - what becomes of the columns of one table.
 *
 * Learned from the names that records bring, so that a table may change its shape:
 * each column goes by the entry of its name, else by the one of "*", else it is
 * left out.  Names are compared as they stand in JSON, which the writer makes the
 * same way for the same name.
 *
 * Threads: belongs to its caller.
 * Layer: record.
 */
#ifndef CDC_RECORD_COLUMNS_H
#define CDC_RECORD_COLUMNS_H

#include "cdc/base/buf.h"
#include "cdc/base/crypto_hmac.h"
#include "cdc/base/err.h"
#include "cdc/base/selection.h"
#include "cdc/record/batch.h"

struct cdc_columns;

/* One column, as it goes out. */
struct cdc_column_out {
	bool is_left_out;
	enum cdc_obfuscate obfuscate;
	const char *name; /* `"name":`, in JSON */
	size_t name_len;
};

/* field_n 0: every column as it is.  hmac: of the hashes, NULL: none is hashed.  Fields and hmac
 * outlive it.  CDC_NOMEM. */
enum cdc_code cdc_columns_new(const struct cdc_select_field *fields, size_t field_n,
			      struct cdc_hmac *hmac, struct cdc_columns **ret,
			      struct cdc_err *err) CDC_CHECK;
void cdc_columns_free(struct cdc_columns *c); /* NULL is fine */

/*
 * The column of a name as it stands between the quotes.  *at: where the last one was
 * found, 0 at first: columns mostly come in the same order.  CDC_NOMEM.  CDC_CONFIG: a
 * column that "*" brings in has the name that another one was given.
 */
enum cdc_code cdc_columns_find(struct cdc_columns *c, const char *name, size_t len, size_t *at,
			       const struct cdc_column_out **ret, struct cdc_err *err) CDC_CHECK;

/* Appends the value as it goes out. Without memory out fails. */
void cdc_columns_put(struct cdc_columns *c, const struct cdc_column_out *column, const char *json,
		     struct cdc_span value, struct cdc_buf *out);

#endif
