/*
 * base64.h - bytes as text and back.
 *
 * Format: RFC 4648 section 4, the alphabet with + and /.
 *
 * Threads: any.  Layer: base (libc only).
 */
#ifndef CDC_BASE_BASE64_H
#define CDC_BASE_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"

/* Appends the text of n bytes, padded, without a NUL. */
void cdc_base64_put(struct cdc_buf *out, const void *bytes, size_t n);

/*
 * Reads n characters, padded or not.  False: they are not base64, or more than
 * size bytes; what ret_bytes holds then means nothing.
 */
bool cdc_base64_take(const char *text, size_t n, uint8_t *ret_bytes, size_t size, size_t *ret_n);

#endif
