/*
 * buf.h - a growing run of bytes with a maximum.
 *
 * The error is sticky: once an append would pass the maximum or the heap is
 * exhausted, `failed` is set, nothing more is written, and the caller asks
 * once, at the end.  A writer therefore writes a whole message straight down.
 * `no_memory` tells which of the two it was.
 *
 * Threads: a buffer belongs to its caller.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_BUF_H
#define CDC_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cdc/base/err.h"

struct cdc_buf {
	uint8_t *data;
	size_t len, cap;
	size_t max;     /* bytes; an append that would pass it fails */
	bool failed;    /* sticky */
	bool no_memory; /* it failed because the heap is exhausted, not at the maximum */
};

/* An empty buffer that never holds more than max bytes; allocates nothing yet. */
void cdc_buf_init(struct cdc_buf *b, size_t max);

/* Sets failed and no_memory: for a writer whose own allocation failed. */
void cdc_buf_starve(struct cdc_buf *b);

/* As after init, but for the bytes before len and the allocation: forgives a failure. */
void cdc_buf_cut(struct cdc_buf *b, size_t len);

/* Frees the bytes; the buffer is then as after init. */
void cdc_buf_clear(struct cdc_buf *b);

/* Empties it and forgives a failure; keeps the allocation if it is at most keep bytes. */
void cdc_buf_reset(struct cdc_buf *b, size_t keep);

/*
 * Makes room for n more bytes and returns where they go, or NULL (failed is
 * set).  The caller writes up to n bytes there and adds what it wrote to len.
 */
uint8_t *cdc_buf_reserve(struct cdc_buf *b, size_t n);

/* Formats, like printf.  Slow: not for the hot path. */
void cdc_buf_printf(struct cdc_buf *b, const char *fmt, ...) CDC_FMT(2, 3);

static inline void cdc_buf_put(struct cdc_buf *b, const void *bytes, size_t n)
{
	uint8_t *to;

	if (n == 0)
		return;
	to = cdc_buf_reserve(b, n);
	if (to) {
		memcpy(to, bytes, n);
		b->len += n;
	}
}

static inline void cdc_buf_putc(struct cdc_buf *b, char c)
{
	cdc_buf_put(b, &c, 1);
}

static inline void cdc_buf_puts(struct cdc_buf *b, const char *s)
{
	cdc_buf_put(b, s, strlen(s));
}

#endif
