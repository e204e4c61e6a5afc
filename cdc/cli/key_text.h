/*
 * key_text.h - a record's `key` as a person writes it, in the form that records have.
 *
 * Threads: any; pure.  Layer: cli.
 */
#ifndef CDC_CLI_KEY_TEXT_H
#define CDC_CLI_KEY_TEXT_H

#include <stdbool.h>

#include "cdc/base/buf.h"

/* Appends the key and a NUL: an object of JSON, without the white space round its members (what is
 * inside of a value stays: json columns are verbatim), or null.  False: it is neither.  A full
 * buffer is the buffer's failure. */
bool cdc_key_text(const char *text, struct cdc_buf *out);

#endif
