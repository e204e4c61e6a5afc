/*
 * instant.h - the text of a commit time, without allocation or locale.
 *
 * "2026-01-01T00:00:00.000001Z": RFC 3339, UTC, always six digits.  Years
 * outside 0 to 9999 have a sign or more digits, so every int64_t has a text.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_INSTANT_H
#define CDC_RECORD_INSTANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CDC_INSTANT_TEXT 32 /* longest text, "-290308-12-21T19:59:05.224192Z" and a NUL */

/* Writes the text of microseconds since 1970 and returns its length without the NUL. */
size_t cdc_instant_format(int64_t us, char ret_text[CDC_INSTANT_TEXT]);

/* Reads exactly n bytes of such a text; false if they are anything else. */
bool cdc_instant_parse(const char *text, size_t n, int64_t *ret_us);

#endif
