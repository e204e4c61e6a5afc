/*
 * lsn.h - positions in a write-ahead log.
 *
 * Format: two hexadecimal halves with a slash, "16/B3748"; PostgreSQL source
 * src/backend/utils/adt/pg_lsn.c.
 *
 * Threads: any.  Layer: base (libc only).
 */
#ifndef CDC_BASE_LSN_H
#define CDC_BASE_LSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t cdc_lsn; /* byte position; 0 = unknown */

#define CDC_LSN_TEXT 18 /* longest text, NUL included */

/* Writes the text and returns its length without the NUL. */
size_t cdc_lsn_format(cdc_lsn lsn, char ret_text[CDC_LSN_TEXT]);

/* Reads exactly n bytes of text, each half 1 to 8 hex digits; false if they are anything else. */
bool cdc_lsn_parse(const char *text, size_t n, cdc_lsn *ret_lsn);

#endif
