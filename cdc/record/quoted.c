#include "cdc/record/quoted.h"

#include "cdc/record/value.h"

static bool is_special(char c)
{
	return c == '"' || c == '\\';
}

/* Where the next quote or backslash is, at or behind `from`; len: nowhere. */
static size_t next_special(const char *body, size_t from, size_t len)
{
	size_t at = from;

	for (;;) {
		at += cdc_value_plain(body + at, len - at);
		if (at >= len || is_special(body[at]))
			return at;
		at++; /* a control character is ordinary here */
	}
}

size_t cdc_quoted_len(const char *body, size_t len, bool is_doubled)
{
	size_t at = 0;

	for (;;) {
		at = next_special(body, at, len);
		if (at >= len)
			return len;
		if (body[at] == '"' && !(is_doubled && at + 1 < len && body[at + 1] == '"'))
			return at;
		if (len - at < 2)
			return len;
		at += 2;
	}
}

/* The special byte at the end of each run has one behind it: cdc_quoted_len went by the same rule,
 * and a body that was not found by it is cut short instead of read past. */
static void unquote(struct cdc_buf *out, const char *body, size_t len, bool is_string)
{
	size_t from = 0;

	while (from < len) {
		size_t to = next_special(body, from, len);

		if (is_string)
			cdc_value_escape(out, body + from, to - from);
		else
			cdc_buf_put(out, body + from, to - from);
		if (len - to < 2)
			return;
		if (is_string)
			cdc_value_escape(out, body + to + 1, 1);
		else
			cdc_buf_put(out, body + to + 1, 1);
		from = to + 2;
	}
}

void cdc_quoted_string(struct cdc_buf *out, const char *body, size_t len)
{
	cdc_buf_putc(out, '"');
	unquote(out, body, len, true);
	cdc_buf_putc(out, '"');
}

/* What has quotes of its own inside is unquoted first. */
static bool write_unquoted(struct cdc_buf *out, const struct cdc_type *type, const char *body,
			   size_t len)
{
	struct cdc_buf inner;
	bool is_good;

	cdc_buf_init(&inner, len);
	unquote(&inner, body, len, false);
	if (inner.failed) {
		cdc_buf_starve(out);
		is_good = true; /* the text is not at fault */
	} else {
		is_good = cdc_value_write(out, type, (const char *)inner.data, inner.len);
	}
	cdc_buf_clear(&inner);
	return is_good;
}

bool cdc_quoted_write(struct cdc_buf *out, const struct cdc_type *type, const char *body,
		      size_t len)
{
	if (next_special(body, 0, len) == len)
		return cdc_value_write(out, type, body, len);
	switch (type->kind) {
	case CDC_KIND_TEXT:
		cdc_quoted_string(out, body, len);
		return true;
	case CDC_KIND_JSON:
		unquote(out, body, len, false);
		return true;
	case CDC_KIND_ARRAY:
	case CDC_KIND_COMPOSITE:
	case CDC_KIND_HSTORE:
		return write_unquoted(out, type, body, len);
	case CDC_KIND_NUMBER:
	case CDC_KIND_BOOL:
	case CDC_KIND_TIMESTAMP:
	case CDC_KIND_TIMESTAMPTZ:
		break; /* their texts hold nothing that wants a backslash */
	}
	return false;
}
