/*
 * copy_text.h - a row of COPY ... TO STDOUT in text format, taken apart.
 *
 * Values stand between tabs; what would be mistaken is escaped with a backslash, and
 * \N is null.
 * Format: PostgreSQL docs, COPY, "Text Format"; writer src/backend/commands/copyto.c,
 * CopyAttributeOutText.
 *
 * Threads: pure.  Layer: source (base, record).
 */
#ifndef CDC_SOURCE_COPY_TEXT_H
#define CDC_SOURCE_COPY_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/record/writer.h"

/*
 * Takes a row of len bytes, its newline included, apart into exactly n values, in
 * place: the values point into row.  False: it has not n values, or no newline at
 * its end, or a backslash with nothing behind it.
 */
bool cdc_copy_row(char *row, size_t len, struct cdc_value *values, size_t n);

#endif
