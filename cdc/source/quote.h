/*
 * quote.h - names and texts as parts of SQL.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_QUOTE_H
#define CDC_SOURCE_QUOTE_H

#include "cdc/base/buf.h"

/* "it""s": always in double quotes, so that no name is ever a keyword. */
void cdc_quote_name(struct cdc_buf *out, const char *name);

/* 'it''s', or  E'back\\slash': right under either standard_conforming_strings. */
void cdc_quote_text(struct cdc_buf *out, const char *text);

/* Ends a statement with a NUL and returns it; NULL when it did not fit. */
const char *cdc_quote_end(struct cdc_buf *out);

#endif
