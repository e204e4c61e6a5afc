/*
 * Composite values and hstores.  An even first byte: the rest is the text of one,
 * of a type whose attributes are of every kind; what comes out is JSON, an object
 * with a member per attribute, or the text itself, which is counted.  An odd one:
 * the rest, split at 0xff, are the values of attributes; written as record_out and
 * hstore_out write them, they come back as they were, from within an array as well.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/err.h"
#include "cdc/record/composite.h"
#include "cdc/record/hstore.h"
#include "cdc/record/scan.h"
#include "cdc/record/value.h"

#define FIELDS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char names[FIELDS_MAX][5] = {
	"\"a\":", "\"b\":", "\"c\":", "\"d\":", "\"e\":", "\"f\":", "\"g\":", "\"h\":"};

/* It is one value. */
static void check_json(const struct cdc_buf *json)
{
	struct cdc_buf list;
	struct cdc_scan s;
	struct cdc_member m;

	cdc_buf_init(&list, SIZE_MAX / 2);
	cdc_buf_putc(&list, '[');
	cdc_buf_put(&list, json->data, json->len);
	cdc_buf_putc(&list, ']');
	CDC_ASSERT(!list.failed);
	cdc_scan_begin(&s, (const char *)list.data, list.len,
		       (struct cdc_span){.len = (uint32_t)list.len});
	CDC_ASSERT(cdc_scan_next(&s, &m) && m.value.off == 1 && m.value.len == json->len);
	CDC_ASSERT(!cdc_scan_next(&s, &m) && !s.is_bad);
	cdc_buf_clear(&list);
}

static size_t count_members(const struct cdc_buf *json)
{
	struct cdc_scan s;
	struct cdc_member m;
	size_t n = 0;

	cdc_scan_begin(&s, (const char *)json->data, json->len,
		       (struct cdc_span){.len = (uint32_t)json->len});
	while (cdc_scan_next(&s, &m))
		n++;
	CDC_ASSERT(!s.is_bad);
	return n;
}

static void add(struct cdc_form *form, const struct cdc_type *type)
{
	form->attributes[form->n] =
		(struct cdc_attribute){.member = names[form->n], .member_len = 4, .type = type};
	form->n++;
}

static struct cdc_form *new_form(const struct cdc_form *older, bool only_grew)
{
	struct cdc_form *form = calloc(1, sizeof(*form) + FIELDS_MAX * sizeof(*form->attributes));

	CDC_ASSERT(form);
	form->older = older;
	form->only_grew = only_grew;
	return form;
}

/* A text of any kind of content. */
static void read_any(const char *text, size_t len)
{
	uint64_t odd = 0;
	struct cdc_form *inner_form = new_form(NULL, true), *older = new_form(NULL, true),
			*form = new_form(older, false);
	struct cdc_composite inner = {.form = inner_form, .odd = &odd},
			     outer = {.form = form, .odd = &odd};
	const struct cdc_type inner_type = {.kind = CDC_KIND_COMPOSITE, .composite = &inner},
			      outer_type = {.kind = CDC_KIND_COMPOSITE, .composite = &outer},
			      array = {.kind = CDC_KIND_ARRAY, .delim = ',', .elem = &inner_type};
	struct cdc_buf json, small;

	add(inner_form, cdc_type_scalar(CDC_KIND_BOOL));
	add(inner_form, cdc_type_scalar(CDC_KIND_TEXT));
	add(inner_form, cdc_type_scalar(CDC_KIND_HSTORE));
	add(older, cdc_type_scalar(CDC_KIND_NUMBER));
	add(older, cdc_type_scalar(CDC_KIND_TIMESTAMPTZ));
	add(form, cdc_type_scalar(CDC_KIND_TEXT));
	add(form, &inner_type);
	add(form, &array);
	add(form, cdc_type_scalar(CDC_KIND_TIMESTAMP));
	add(form, cdc_type_builtin(1007));
	cdc_buf_init(&json, SIZE_MAX / 2);
	cdc_composite_write(&json, &outer_type, text, len);
	CDC_ASSERT(!json.failed && json.len);
	check_json(&json);
	if (json.data[0] == '{') {
		size_t n = count_members(&json);

		CDC_ASSERT(n == form->n || n == older->n);
	} else {
		CDC_ASSERT(json.data[0] == '"' && odd);
	}
	json.len = 0;
	if (cdc_hstore_write(&json, text, len))
		check_json(&json);
	cdc_buf_init(&small, len);
	cdc_composite_write(&small, &outer_type, text, len);
	CDC_ASSERT(small.len <= len);
	cdc_buf_clear(&small);
	cdc_buf_clear(&json);
	free(form);
	free(older);
	free(inner_form);
}

/* Between quotes, each quote and backslash behind a byte of its own kind or a backslash. */
static void put_quoted(struct cdc_buf *out, const char *text, size_t len, bool is_doubled)
{
	cdc_buf_putc(out, '"');
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '"' || text[i] == '\\')
			cdc_buf_putc(out, is_doubled ? text[i] : '\\');
		cdc_buf_putc(out, text[i]);
	}
	cdc_buf_putc(out, '"');
}

static bool needs_quotes(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (strchr("\"\\(), \t\n\r\v\f", text[i]) && text[i])
			return true;
	}
	return len == 0;
}

static void put_row(struct cdc_buf *row, const char *const *fields, const size_t *lens, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		cdc_buf_putc(row, i ? ',' : '(');
		if (!fields[i])
			continue;
		if (needs_quotes(fields[i], lens[i]))
			put_quoted(row, fields[i], lens[i], true);
		else
			cdc_buf_put(row, fields[i], lens[i]);
	}
	cdc_buf_putc(row, ')');
}

static void check_same(const struct cdc_buf *json, const char *before, const struct cdc_buf *want,
		       const char *after)
{
	size_t lead = strlen(before), tail = strlen(after);

	CDC_ASSERT(json->len == lead + want->len + tail);
	CDC_ASSERT(memcmp(json->data, before, lead) == 0);
	CDC_ASSERT(memcmp(json->data + lead, want->data, want->len) == 0);
	CDC_ASSERT(memcmp(json->data + lead + want->len, after, tail) == 0);
}

static void read_own(const char *text, size_t len)
{
	const char *fields[FIELDS_MAX];
	size_t lens[FIELDS_MAX], n = 0, at = 0;
	uint64_t odd = 0;
	struct cdc_form *form = new_form(NULL, true);
	struct cdc_composite composite = {.form = form, .odd = &odd};
	const struct cdc_type type = {.kind = CDC_KIND_COMPOSITE, .composite = &composite},
			      array = {.kind = CDC_KIND_ARRAY, .delim = ',', .elem = &type};
	struct cdc_buf row, store, list, want, got;

	cdc_buf_init(&row, SIZE_MAX / 2);
	cdc_buf_init(&store, SIZE_MAX / 2);
	cdc_buf_init(&list, SIZE_MAX / 2);
	cdc_buf_init(&want, SIZE_MAX / 2);
	cdc_buf_init(&got, SIZE_MAX / 2);
	while (n < FIELDS_MAX && at <= len) {
		const char *end = at < len ? memchr(text + at, 0xff, len - at) : NULL;
		size_t field_len = end ? (size_t)(end - text) - at : len - at;
		/* One that begins with a zero byte stands for null. */
		bool is_null = field_len && text[at] == '\0';

		fields[n] = is_null ? NULL : text + at;
		lens[n] = is_null ? 0 : field_len;
		cdc_buf_putc(&want, n ? ',' : '{');
		cdc_buf_put(&want, names[n], 4);
		if (is_null)
			cdc_buf_puts(&want, "null");
		else
			cdc_value_string(&want, fields[n], lens[n]);
		cdc_buf_puts(&store, n ? ", " : "");
		put_quoted(&store, &names[n][1], 1, false);
		cdc_buf_puts(&store, "=>");
		if (is_null)
			cdc_buf_puts(&store, "NULL");
		else
			put_quoted(&store, fields[n], lens[n], false);
		add(form, cdc_type_scalar(CDC_KIND_TEXT));
		n++;
		at += field_len + 1;
	}
	cdc_buf_putc(&want, '}');
	put_row(&row, fields, lens, n);
	cdc_buf_puts(&list, "{NULL,");
	put_quoted(&list, (const char *)row.data, row.len, false);
	cdc_buf_putc(&list, '}');

	cdc_composite_write(&got, &type, (const char *)row.data, row.len);
	check_same(&got, "", &want, "");
	got.len = 0;
	CDC_ASSERT(cdc_value_write(&got, &array, (const char *)list.data, list.len));
	check_same(&got, "[null,", &want, "]");
	got.len = 0;
	CDC_ASSERT(cdc_hstore_write(&got, (const char *)store.data, store.len));
	check_same(&got, "", &want, "");
	CDC_ASSERT(odd == 0);
	cdc_buf_clear(&row);
	cdc_buf_clear(&store);
	cdc_buf_clear(&list);
	cdc_buf_clear(&want);
	cdc_buf_clear(&got);
	free(form);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	text = malloc(size > 1 ? size - 1 : 1); /* so that a sanitizer sees an overrun */
	CDC_ASSERT(text);
	memcpy(text, data + 1, size - 1);
	if (data[0] % 2)
		read_own(text, size - 1);
	else
		read_any(text, size - 1);
	free(text);
	return 0;
}
