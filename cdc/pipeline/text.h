/*
 * text.h - what an endpoint answered, made fit to be kept and shown.
 *
 * Threads: any.
 * Layer: pipeline (record).
 */
#ifndef CDC_PIPELINE_TEXT_H
#define CDC_PIPELINE_TEXT_H

#include <stddef.h>

/* A copy as NUL-terminated UTF-8: what is none of it, and control characters but tab and line feed,
 * become "?".  The caller frees it.  NULL: no memory.  bytes may be NULL when len is 0. */
char *cdc_text_readable(const char *bytes, size_t len);

#endif
