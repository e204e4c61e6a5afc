/*
 * composite.h - the text of a composite value (a row) becomes a JSON object.
 *
 * As to_json: one member per attribute, in order; nothing between two commas is
 * null, "" is the empty text; attributes follow the rule of their own type.
 * Format: PostgreSQL docs, "Composite Type Input and Output Syntax"; writer
 * src/backend/utils/adt/rowtypes.c, record_out.
 *
 * The text carries no names and the stream no word about ALTER TYPE, so a value
 * may be of another form than the newest.  The number of its fields tells: it is
 * taken as of the newest form with that number, or as the beginning of one that
 * only grew.  A value that is of no form known is written as its text and counted.
 *
 * Threads: as the type's.
 * Layer: record.
 */
#ifndef CDC_RECORD_COMPOSITE_H
#define CDC_RECORD_COMPOSITE_H

#include <stddef.h>

#include "cdc/base/buf.h"
#include "cdc/record/type.h"

/* Appends the object, or the text as a JSON string.  type is of kind COMPOSITE. */
void cdc_composite_write(struct cdc_buf *out, const struct cdc_type *type, const char *text,
			 size_t len);

#endif
