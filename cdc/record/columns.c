#include "cdc/record/columns.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/record/text.h"
#include "cdc/record/value.h"

#define NAME_MAX_JSON 4096 /* 255 bytes, each of them escaped */

struct column {
	char *in; /* between its quotes */
	size_t in_len;
	struct cdc_column_out out;
	char *name; /* what out.name points to */
};

struct cdc_columns {
	const struct cdc_select_field *fields;
	size_t field_n;
	struct cdc_hmac *hmac;
	struct column *columns;
	size_t n, cap;
	struct cdc_buf scratch; /* texts with escapes */
};

enum cdc_code cdc_columns_new(const struct cdc_select_field *fields, size_t field_n,
			      struct cdc_hmac *hmac, struct cdc_columns **ret, struct cdc_err *err)
{
	struct cdc_columns *c = calloc(1, sizeof(*c));

	if (!c)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for columns");
	c->fields = fields;
	c->field_n = field_n;
	c->hmac = hmac;
	cdc_buf_init(&c->scratch, UINT32_MAX);
	*ret = c;
	return CDC_OK;
}

void cdc_columns_free(struct cdc_columns *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++) {
		free(c->columns[i].in);
		free(c->columns[i].name);
	}
	free(c->columns);
	cdc_buf_clear(&c->scratch);
	free(c);
}

/* --- learning ----------------------------------------------------------------------- */

/* Is this what the writer makes of the name? */
static bool is_name(const char *json, size_t len, const char *name)
{
	struct cdc_buf text;
	bool is_same;

	cdc_buf_init(&text, NAME_MAX_JSON);
	cdc_value_name(&text, name, strlen(name));
	is_same = !text.failed && text.len == len + 2 && memcmp(text.data + 1, json, len) == 0;
	cdc_buf_clear(&text);
	return is_same;
}

/* The entry of a column; NULL: it is left out. */
static const struct cdc_select_field *field_of(const struct cdc_columns *c, const char *name,
					       size_t len, bool *ret_is_other)
{
	const struct cdc_select_field *other = NULL;

	*ret_is_other = false;
	for (size_t i = 0; i < c->field_n; i++) {
		if (strcmp(c->fields[i].id, "*") == 0)
			other = &c->fields[i];
		else if (is_name(name, len, c->fields[i].id))
			return c->fields[i].is_left_out ? NULL : &c->fields[i];
	}
	*ret_is_other = other != NULL;
	return other;
}

static bool is_taken(const struct cdc_columns *c, const char *name, size_t len)
{
	for (size_t i = 0; i < c->field_n; i++) {
		if (!c->fields[i].is_left_out && c->fields[i].output_name &&
		    is_name(name, len, c->fields[i].output_name))
			return true;
	}
	return false;
}

/* `"name":` of what a column is called; NULL: no memory. */
static char *make_name(const char *in, size_t len, const struct cdc_select_field *field,
		       size_t *ret_len)
{
	struct cdc_buf text;
	char *name;

	cdc_buf_init(&text, UINT32_MAX);
	if (field && field->output_name) {
		cdc_value_name(&text, field->output_name, strlen(field->output_name));
		cdc_buf_putc(&text, ':');
	} else {
		cdc_buf_putc(&text, '"');
		cdc_buf_put(&text, in, len);
		cdc_buf_puts(&text, "\":");
	}
	name = text.failed ? NULL : malloc(text.len);
	if (name)
		memcpy(name, text.data, text.len);
	*ret_len = text.len;
	cdc_buf_clear(&text);
	return name;
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for columns");
}

static enum cdc_code learn(struct cdc_columns *c, const char *name, size_t len, struct cdc_err *err)
{
	const struct cdc_select_field *field;
	struct column *column;
	bool is_other;

	if (c->n == c->cap) {
		const size_t cap = c->cap ? c->cap * 2 : 16;
		struct column *grown = reallocarray(c->columns, cap, sizeof(*grown));

		if (!grown)
			return no_memory(err);
		c->columns = grown;
		c->cap = cap;
	}
	field = field_of(c, name, len, &is_other);
	if (is_other && is_taken(c, name, len))
		return cdc_err_set(
			err, CDC_CONFIG,
			"column \"%.*s\" has the name that another column is given as its "
			"output_name",
			(int)(len < 128 ? len : 128), name);
	column = &c->columns[c->n];
	*column = (struct column){.in = malloc(len + 1), .in_len = len};
	column->name = make_name(name, len, field, &column->out.name_len);
	if (!column->in || !column->name) {
		free(column->in);
		free(column->name);
		return no_memory(err);
	}
	memcpy(column->in, name, len);
	column->out.name = column->name;
	column->out.is_left_out = c->field_n && !field;
	column->out.obfuscate = field ? (enum cdc_obfuscate)field->obfuscate : CDC_OBFUSCATE_NONE;
	c->n++;
	return CDC_OK;
}

enum cdc_code cdc_columns_find(struct cdc_columns *c, const char *name, size_t len, size_t *at,
			       const struct cdc_column_out **ret, struct cdc_err *err)
{
	enum cdc_code rc;

	for (size_t i = 0; i < c->n; i++) {
		/* The next one first, then round. */
		const size_t k = *at + i < c->n ? *at + i : *at + i - c->n;

		if (c->columns[k].in_len == len && memcmp(c->columns[k].in, name, len) == 0) {
			*at = k + 1 == c->n ? 0 : k + 1;
			*ret = &c->columns[k].out;
			return CDC_OK;
		}
	}
	rc = learn(c, name, len, err);
	if (rc)
		return rc;
	*at = 0;
	*ret = &c->columns[c->n - 1].out;
	return CDC_OK;
}

/* --- values ------------------------------------------------------------------------- */

static void put_hash(struct cdc_columns *c, const char *json, struct cdc_span value,
		     struct cdc_buf *out)
{
	const struct cdc_text text = cdc_text_of(json, value, &c->scratch);
	uint8_t digest[CDC_HMAC_BYTES], *to;

	if (c->scratch.failed || !c->hmac || !cdc_hmac_digest(c->hmac, text.at, text.len, digest)) {
		cdc_buf_reset(&c->scratch, c->scratch.max);
		out->failed = true;
		return;
	}
	to = cdc_buf_reserve(out, 2 + 2 * sizeof(digest));
	if (!to)
		return;
	*to++ = '"';
	for (size_t i = 0; i < sizeof(digest); i++) {
		*to++ = (uint8_t) "0123456789abcdef"[digest[i] >> 4];
		*to++ = (uint8_t) "0123456789abcdef"[digest[i] & 15];
	}
	*to = '"';
	out->len += 2 + 2 * sizeof(digest);
}

void cdc_columns_put(struct cdc_columns *c, const struct cdc_column_out *column, const char *json,
		     struct cdc_span value, struct cdc_buf *out)
{
	const struct cdc_span trimmed = cdc_text_trim(json, value);
	const bool is_null = trimmed.len == 4 && memcmp(json + trimmed.off, "null", 4) == 0;

	if (column->obfuscate == CDC_OBFUSCATE_NONE) {
		cdc_buf_put(out, json + value.off, value.len);
		return;
	}
	if (is_null || column->obfuscate == CDC_OBFUSCATE_NULL)
		cdc_buf_puts(out, "null");
	else if (column->obfuscate == CDC_OBFUSCATE_MASK)
		cdc_buf_puts(out, "\"***\"");
	else
		put_hash(c, json, trimmed, out);
}
