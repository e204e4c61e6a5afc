/*
 * hstore.h - the text of an hstore becomes a JSON object, as its cast to json.
 *
 * Values are strings, an unquoted NULL is null.
 * Format: PostgreSQL docs, "hstore"; writer contrib/hstore/hstore_io.c, hstore_out,
 * cast hstore_to_json.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_HSTORE_H
#define CDC_RECORD_HSTORE_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/base/buf.h"

/* Appends the object.  False: not the text of an hstore; what was appended until then is the
 * caller's to drop. */
bool cdc_hstore_write(struct cdc_buf *out, const char *text, size_t len) CDC_CHECK;

#endif
