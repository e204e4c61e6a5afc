#include "cdc/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void cdc_buf_init(struct cdc_buf *b, size_t max)
{
	*b = (struct cdc_buf){.max = max};
}

void cdc_buf_starve(struct cdc_buf *b)
{
	b->failed = b->no_memory = true;
}

void cdc_buf_cut(struct cdc_buf *b, size_t len)
{
	b->len = len;
	b->failed = b->no_memory = false;
}

void cdc_buf_clear(struct cdc_buf *b)
{
	free(b->data);
	cdc_buf_init(b, b->max);
}

void cdc_buf_reset(struct cdc_buf *b, size_t keep)
{
	if (b->cap > keep) {
		cdc_buf_clear(b);
		return;
	}
	cdc_buf_cut(b, 0);
}

uint8_t *cdc_buf_reserve(struct cdc_buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : b->max < 256 ? b->max : 256;
	uint8_t *grown;

	if (b->failed)
		return NULL;
	if (n <= b->cap - b->len)
		return b->data + b->len;
	if (n > b->max - b->len) {
		b->failed = true;
		return NULL;
	}
	while (cap - b->len < n)
		cap = cap > b->max / 2 ? b->max : cap * 2;
	grown = realloc(b->data, cap);
	if (!grown) {
		cdc_buf_starve(b);
		return NULL;
	}
	b->data = grown;
	b->cap = cap;
	return b->data + b->len;
}

void cdc_buf_printf(struct cdc_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !cdc_buf_reserve(b, (size_t)n + 1)) {
		b->failed = true;
		return;
	}
	va_start(ap, fmt);
	(void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}
