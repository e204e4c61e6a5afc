#include "cdc/record/composite.h"

#include <string.h>

#include "cdc/record/quoted.h"
#include "cdc/record/value.h"

struct field {
	const char *text; /* between its quotes, if it has some */
	size_t len;       /* 0 and not quoted: null */
	bool is_quoted;
};

struct reader {
	const char *text;
	size_t len, at;
};

/* The next field, and the comma or parenthesis that ends it.  False: this is no row. */
static bool next_field(struct reader *r, struct field *ret)
{
	const char *start = r->text + r->at;
	size_t n = 0, left = r->len - r->at;

	ret->is_quoted = left && *start == '"';
	if (ret->is_quoted) {
		ret->text = start + 1;
		ret->len = cdc_quoted_len(start + 1, left - 1, true);
		n = ret->len + 2;
	} else {
		while (n < left && start[n] != ',' && start[n] != ')') {
			if (start[n] == '"' || start[n] == '\\' || start[n] == '(')
				return false;
			n++;
		}
		ret->text = start;
		ret->len = n;
	}
	if (n >= left || (start[n] != ',' && start[n] != ')'))
		return false;
	r->at += n + 1;
	return true;
}

static bool is_last(const struct reader *r)
{
	return r->text[r->at - 1] == ')';
}

/* How many fields the row has; 0: it is none. */
static size_t count_fields(const char *text, size_t len)
{
	struct reader r = {.text = text, .len = len, .at = 1};
	struct field f;
	size_t n = 0;

	if (len < 2 || *text != '(')
		return 0;
	do {
		if (!next_field(&r, &f))
			return 0;
		n++;
	} while (!is_last(&r));
	return r.at == len ? n : 0;
}

static const struct cdc_form *pick(const struct cdc_form *newest, size_t n)
{
	for (const struct cdc_form *f = newest; f; f = f->older) {
		if (f->n == n)
			return f;
	}
	return n < newest->n && newest->only_grew ? newest : NULL;
}

static bool write_field(struct cdc_buf *out, const struct cdc_type *type, const struct field *f)
{
	if (f->is_quoted)
		return cdc_quoted_write(out, type, f->text, f->len);
	if (f->len)
		return cdc_value_write(out, type, f->text, f->len);
	cdc_buf_put(out, "null", 4);
	return true;
}

static bool write_object(struct cdc_buf *out, const struct cdc_form *form, size_t n,
			 const char *text, size_t len)
{
	struct reader r = {.text = text, .len = len, .at = 1};
	struct field f;

	cdc_buf_putc(out, '{');
	for (size_t i = 0; i < n; i++) {
		const struct cdc_attribute *a = &form->attributes[i];

		if (i)
			cdc_buf_putc(out, ',');
		cdc_buf_put(out, a->member, a->member_len);
		if (!next_field(&r, &f) || !write_field(out, a->type, &f))
			return false;
	}
	cdc_buf_putc(out, '}');
	return true;
}

void cdc_composite_write(struct cdc_buf *out, const struct cdc_type *type, const char *text,
			 size_t len)
{
	const struct cdc_form *newest = type->composite->form, *form;
	const size_t from = out->len;
	size_t n = count_fields(text, len);

	/* One null looks like no field at all. */
	if (n == 1 && len == 2 && newest->n == 0)
		n = 0;
	else if (n == 0)
		newest = NULL;
	form = newest ? pick(newest, n) : NULL;
	if (form && write_object(out, form, n, text, len))
		return;
	if (!out->failed)
		out->len = from;
	cdc_value_string(out, text, len);
	++*type->composite->odd;
}
