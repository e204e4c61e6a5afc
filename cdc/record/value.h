/*
 * value.h - the text of one value, as PostgreSQL prints it, becomes JSON.
 *
 * Everything is appended to a cdc_buf, whose failure is sticky; the caller asks
 * once, at the end.  What could end a JSON string is always escaped.  A text that
 * is not UTF-8 has no JSON of its own: cdc_value_column writes its bytes.
 * Source of the rules: src/backend/utils/adt/json.c, escape_json and datum_to_json.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_VALUE_H
#define CDC_RECORD_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/base/buf.h"
#include "cdc/record/type.h"

/* How many bytes at the start of text stand for themselves inside a JSON string. */
size_t cdc_value_plain(const char *text, size_t len);

/* How many bytes at the start of text are a JSON number; 0: none. */
size_t cdc_value_number(const char *text, size_t len);

/* Appends the text as the inside of a JSON string, without its quotes. */
void cdc_value_escape(struct cdc_buf *out, const char *text, size_t len);

/* Appends the text as a JSON string. */
void cdc_value_string(struct cdc_buf *out, const char *text, size_t len);

/*
 * Appends the JSON value of a text of this type.  False: the type does not
 * allow the text (a bool that is none, an empty json, a broken array); what was
 * appended until then is the caller's to drop.
 */
bool cdc_value_write(struct cdc_buf *out, const struct cdc_type *type, const char *text,
		     size_t len) CDC_CHECK;

/*
 * The same for the value of a column, from whose text anything may come: one that
 * is not UTF-8 becomes {"$bytes":"\\x..."}, in hex.
 */
bool cdc_value_column(struct cdc_buf *out, const struct cdc_type *type, const char *text,
		      size_t len) CDC_CHECK;

/* Appends a name as a JSON string; bytes that are not UTF-8 become U+FFFD. */
void cdc_value_name(struct cdc_buf *out, const char *name, size_t len);

/* As cdc_buf_reserve, without a call when there is room. */
static inline uint8_t *cdc_value_room(struct cdc_buf *out, size_t n)
{
	if (!out->failed && n <= out->cap - out->len)
		return out->data + out->len;
	return cdc_buf_reserve(out, n);
}

#endif
