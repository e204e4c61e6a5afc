/*
 * latin.h - text of a server that does not vouch for it, made UTF-8.
 *
 * A database in SQL_ASCII holds whatever bytes its clients sent, and PostgreSQL 13 sends a
 * "char" above 127 as the bare byte.  What is UTF-8 stays as it is; every byte that is
 * not part of a valid character is taken for Latin-1, which is what such bytes mostly
 * are, and which keeps different bytes different.
 *
 * Source: RFC 3629, section 4 (overlong forms and surrogates are not UTF-8).
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_LATIN_H
#define CDC_SOURCE_LATIN_H

#include <stddef.h>

/* The length that the text has as UTF-8; len exactly when it is UTF-8 already. */
size_t cdc_latin_size(const char *text, size_t len);

/* Writes it to a place of that size. */
void cdc_latin_write(const char *text, size_t len, char *to);

#endif
