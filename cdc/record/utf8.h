/*
 * utf8.h - is it UTF-8?
 *
 * The server checks what it stores, but not in a database of encoding SQL_ASCII,
 * and a database of encoding UTF8 may hold what an old version or a forced
 * pg_upgrade let in: it is sent as it is.
 * Format: RFC 3629.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_UTF8_H
#define CDC_RECORD_UTF8_H

#include <stddef.h>

/* How many bytes at the start of text are whole, valid characters; len: all of them. */
size_t cdc_utf8_valid(const char *text, size_t len);

#endif
