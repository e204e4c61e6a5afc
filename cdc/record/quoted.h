/*
 * quoted.h - a value between double quotes, inside an array, a row or an hstore.
 *
 * Arrays and hstore put a backslash before a quote or a backslash, rows double
 * both.  One rule reads all three: either of the two bytes is left out, and the
 * byte behind it stands for itself.
 * Format: PostgreSQL docs, "Array Input and Output Syntax" and "Composite Type
 * Input and Output Syntax"; writers array_out, record_out, hstore_out.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_QUOTED_H
#define CDC_RECORD_QUOTED_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/base/buf.h"
#include "cdc/record/type.h"

/* How many bytes stand before the closing quote; len: there is none.  is_doubled: two quotes are
 * one of the value, as in a row. */
size_t cdc_quoted_len(const char *body, size_t len, bool is_doubled);

/* Appends what the bytes between the quotes stand for as a JSON string. */
void cdc_quoted_string(struct cdc_buf *out, const char *body, size_t len);

/*
 * Appends the JSON value of the bytes between the quotes.  False as
 * cdc_value_write: the type does not allow the text.
 */
bool cdc_quoted_write(struct cdc_buf *out, const struct cdc_type *type, const char *body,
		      size_t len) CDC_CHECK;

#endif
