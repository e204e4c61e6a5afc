#include "cdc/record/array.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/record/quoted.h"
#include "cdc/record/value.h"

#define MAX_DIMENSIONS 6 /* MAXDIM of PostgreSQL's c.h */

struct reader {
	const char *text;
	size_t len, at;
	const struct cdc_type *type;
	struct cdc_buf *out;
};

static bool read_quoted(struct reader *r)
{
	const char *body = r->text + ++r->at;
	size_t left = r->len - r->at, n = cdc_quoted_len(body, left, false);

	if (n == left)
		return false;
	r->at += n + 1;
	return cdc_quoted_write(r->out, r->type->elem, body, n);
}

static bool read_unquoted(struct reader *r)
{
	const char *start = r->text + r->at;
	size_t n = 0, left = r->len - r->at;

	while (n < left && start[n] != r->type->delim && start[n] != '}') {
		if (start[n] == '{' || start[n] == '"' || start[n] == '\\')
			return false;
		n++;
	}
	if (n == 0 || n == left)
		return false;
	r->at += n;
	if (n == 4 && memcmp(start, "NULL", 4) == 0) {
		cdc_buf_put(r->out, "null", 4);
		return true;
	}
	return cdc_value_write(r->out, r->type->elem, start, n);
}

/* Steps over the "[0:2][-1:3]=" that array_out prints when a lower bound is not 1. */
static bool skip_bounds(struct reader *r)
{
	if (r->at == r->len || r->text[r->at] != '[')
		return true;
	while (r->at < r->len && r->text[r->at] && strchr("[]:+-0123456789", r->text[r->at]))
		r->at++;
	return r->at < r->len && r->text[r->at++] == '=';
}

/* One value, which may open dimensions: everything up to the first element behind it. */
static bool read_value(struct reader *r, int *depth)
{
	while (r->at < r->len && r->text[r->at] == '{') {
		r->at++;
		if (++*depth > MAX_DIMENSIONS)
			return false;
		cdc_buf_putc(r->out, '[');
		if (r->at < r->len && r->text[r->at] == '}')
			return true; /* empty; the caller closes it */
	}
	if (*depth == 0 || r->at == r->len)
		return false;
	return r->text[r->at] == '"' ? read_quoted(r) : read_unquoted(r);
}

static bool write_braces(struct reader *r)
{
	int depth = 0;

	if (!skip_bounds(r))
		return false;
	for (;;) {
		if (!read_value(r, &depth))
			return false;
		while (r->at < r->len && r->text[r->at] == '}') {
			r->at++;
			cdc_buf_putc(r->out, ']');
			if (--depth == 0)
				return r->at == r->len;
		}
		if (r->at == r->len || r->text[r->at] != r->type->delim)
			return false;
		r->at++;
		cdc_buf_putc(r->out, ',');
	}
}

static bool write_vector(struct reader *r)
{
	cdc_buf_putc(r->out, '[');
	while (r->at < r->len) {
		const char *start = r->text + r->at, *space = memchr(start, ' ', r->len - r->at);
		size_t n = space ? (size_t)(space - start) : r->len - r->at;

		if (n == 0 || !cdc_value_write(r->out, r->type->elem, start, n))
			return false;
		r->at += n;
		if (space) {
			cdc_buf_putc(r->out, ',');
			if (++r->at == r->len)
				return false;
		}
	}
	cdc_buf_putc(r->out, ']');
	return true;
}

bool cdc_array_write(struct cdc_buf *out, const struct cdc_type *type, const char *text, size_t len)
{
	struct reader r = {.text = text, .len = len, .type = type, .out = out};

	return type->delim == CDC_DELIM_VECTOR ? write_vector(&r) : write_braces(&r);
}
