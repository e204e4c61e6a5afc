/*
 * array.h - the text of a PostgreSQL array becomes a JSON array.
 *
 * As to_json: nested for more than one dimension, lower bounds are left out, an
 * unquoted NULL is null, elements follow the rule of their own type.
 * Format: PostgreSQL docs, "Array Input and Output Syntax"; writer
 * src/backend/utils/adt/arrayfuncs.c, array_out; for vectors int.c, int2vectorout.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_ARRAY_H
#define CDC_RECORD_ARRAY_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/base/buf.h"
#include "cdc/record/type.h"

/*
 * Appends the array.  type is of kind ARRAY.  False: not the text of an array
 * of this type (at most 6 dimensions, as in PostgreSQL); what was appended until
 * then is the caller's to drop.
 */
bool cdc_array_write(struct cdc_buf *out, const struct cdc_type *type, const char *text,
		     size_t len) CDC_CHECK;

#endif
