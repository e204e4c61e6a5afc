#include "sinks/webhook/template.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/crypto.h"
#include "cdc/record/scan.h"
#include "cdc/record/text.h"
#include "cdc/record/value.h"

#define PIECES    64
#define NAME_JSON 512 /* a name has at most 63 bytes, each at most six in JSON */

enum what { LITERAL, SCHEMA, TABLE, OPERATION, ID, KEY, FIELD };

struct piece {
	enum what what;
	const char *text; /* of a literal; or in place of a column that has none */
	size_t len;
	bool has_text;
	const char *name; /* of a column, as between its quotes in JSON */
	size_t name_len;
	const char *shown; /* key.id */
	size_t shown_len;
};

struct sink_webhook_template {
	enum sink_webhook_template_kind kind;
	unsigned needs;
	struct cdc_buf names; /* of columns */
	struct piece pieces[PIECES];
	size_t n, len;
	size_t path;  /* of a url: where it begins */
	char bytes[]; /* the text, where {{ and }} are one brace */
};

bool sink_webhook_template_is(const char *text)
{
	return text[strcspn(text, "{}")] != '\0';
}

void sink_webhook_template_free(struct sink_webhook_template *t)
{
	if (!t)
		return;
	cdc_buf_clear(&t->names);
	cdc_wipe(t->bytes, t->len);
	free(t);
}

unsigned sink_webhook_template_needs(const struct sink_webhook_template *t)
{
	return t->needs;
}

/* --- making ------------------------------------------------------------------------- */

static size_t authority_end(const char *url)
{
	const char *scheme = strstr(url, "://");
	size_t from = scheme ? (size_t)(scheme - url) + 3 : 0;

	return from + strcspn(url + from, "/?#");
}

static struct piece *add_piece(struct sink_webhook_template *t, enum what what)
{
	struct piece *p = t->n < PIECES ? &t->pieces[t->n++] : NULL;

	if (p)
		*p = (struct piece){.what = what};
	return p;
}

static bool is_word(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}

static bool set_column(struct sink_webhook_template *t, struct piece *p, enum what what,
		       size_t prefix)
{
	size_t from = t->names.len;

	if (p->shown_len == prefix)
		return false;
	p->what = what;
	cdc_value_escape(&t->names, p->shown + prefix, p->shown_len - prefix);
	p->name_len = t->names.len - from;
	t->needs |= SINK_WEBHOOK_BY_ROW;
	t->needs |= p->has_text ? 0 : SINK_WEBHOOK_NEEDS_COLUMN;
	return true;
}

/* A placeholder by what is between its braces, len bytes at p->shown. */
static bool set_what(struct sink_webhook_template *t, struct piece *p, size_t len)
{
	const char *bar = memchr(p->shown, '|', len);

	p->shown_len = bar ? (size_t)(bar - p->shown) : len;
	if (bar) {
		p->has_text = true;
		p->text = bar + 1;
		p->len = len - p->shown_len - 1;
	}
	if (p->shown_len > 4 && memcmp(p->shown, "key.", 4) == 0)
		return set_column(t, p, KEY, 4);
	if (p->shown_len > 7 && memcmp(p->shown, "fields.", 7) == 0)
		return set_column(t, p, FIELD, 7);
	if (bar)
		return false; /* the others are always there */
	if (is_word(p->shown, len, "schema"))
		p->what = SCHEMA;
	else if (is_word(p->shown, len, "table"))
		p->what = TABLE;
	else if (is_word(p->shown, len, "operation"))
		p->what = OPERATION;
	else if (is_word(p->shown, len, "id"))
		p->what = ID;
	else
		return false;
	t->needs |= p->what == OPERATION ? SINK_WEBHOOK_BY_OPERATION
		    : p->what == ID      ? SINK_WEBHOOK_BY_ROW
					 : SINK_WEBHOOK_BY_TABLE;
	return true;
}

/* Where pieces grow, names may move: they are pointed to when all are there. */
static void point_to_names(struct sink_webhook_template *t)
{
	size_t at = 0;

	for (size_t i = 0; i < t->n; i++) {
		t->pieces[i].name = (const char *)t->names.data + at;
		at += t->pieces[i].name_len;
	}
}

static enum cdc_code wrong(const char *text, const char *at, const char *what, struct cdc_err *err)
{
	return cdc_err_set(err, CDC_CONFIG, "at byte %zu: %s", (size_t)(at - text) + 1, what);
}

/* Appends a byte to the literal at the end; false: there are too many pieces. */
static bool add_byte(struct sink_webhook_template *t, char c)
{
	struct piece *last = t->n ? &t->pieces[t->n - 1] : NULL;

	if (!last || last->what != LITERAL) {
		last = add_piece(t, LITERAL);
		if (!last)
			return false;
		last->text = t->bytes + t->len;
	}
	t->bytes[t->len++] = c;
	last->len++;
	return true;
}

/* The placeholder at *at, which is moved behind it. */
static enum cdc_code add_placeholder(struct sink_webhook_template *t, const char *text,
				     const char **at, struct cdc_err *err)
{
	const char *from = *at + 1;
	size_t len = strcspn(from, "{}");
	struct piece *p = add_piece(t, SCHEMA);

	if (from[len] != '}')
		return wrong(text, *at, "a { has no }; {{ stands for a brace", err);
	if (!p)
		return wrong(text, *at, "there are too many placeholders", err);
	memcpy(t->bytes + t->len, from, len);
	p->shown = t->bytes + t->len;
	t->len += len;
	if (!set_what(t, p, len))
		return wrong(text, *at,
			     "this is no placeholder; there are {schema}, {table}, {operation}, "
			     "{id}, {key.COLUMN}, {fields.COLUMN} and, where a column may be null "
			     "or not there, {key.COLUMN|TEXT}; {{ and }} stand for braces",
			     err);
	*at = from + len + 1;
	return CDC_OK;
}

/* A line from its value on, so that bytes are counted from there. */
static void take_name(struct sink_webhook_template *t, const char **text)
{
	size_t n = strcspn(*text, ":;") + 1;

	for (n += (*text)[n] == ' '; n > 0; n--)
		(void)add_byte(t, *(*text)++);
}

static enum cdc_code parse(struct sink_webhook_template *t, const char *text, struct cdc_err *err)
{
	size_t fixed = t->kind == SINK_WEBHOOK_TEMPLATE_URL ? authority_end(text) : 0;
	const char *at;
	enum cdc_code rc = CDC_OK;

	if (t->kind == SINK_WEBHOOK_TEMPLATE_LINE)
		take_name(t, &text);
	at = text;
	while (!rc && *at) {
		bool is_brace = *at == '{' || *at == '}';

		if (is_brace && at < text + fixed)
			return wrong(text, at,
				     "host and port cannot come from records, which could then "
				     "choose what inside the network is talked to; a placeholder "
				     "may stand in the path and in the query",
				     err);
		if (*at == '%' && t->kind == SINK_WEBHOOK_TEMPLATE_URL &&
		    !(isxdigit((unsigned char)at[1]) && isxdigit((unsigned char)at[2])))
			return wrong(text, at, "two hex digits belong behind %; %25 is a percent",
				     err);
		if (is_brace && at[1] != *at) {
			rc = *at == '{'
				     ? add_placeholder(t, text, &at, err)
				     : wrong(text, at, "a } has no {; }} stands for a brace", err);
			continue;
		}
		if (!add_byte(t, *at))
			return wrong(text, at, "there are too many placeholders", err);
		at += is_brace ? 2 : 1;
	}
	return rc;
}

enum cdc_code sink_webhook_template_new(const char *text, enum sink_webhook_template_kind kind,
					struct sink_webhook_template **ret, struct cdc_err *err)
{
	size_t len = strlen(text);
	struct sink_webhook_template *t = calloc(1, sizeof(*t) + len + 1);
	enum cdc_code rc;

	if (!t)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a template");
	t->kind = kind;
	t->path = kind == SINK_WEBHOOK_TEMPLATE_URL ? authority_end(text) : 0;
	cdc_buf_init(&t->names, (size_t)PIECES * NAME_JSON);
	rc = parse(t, text, err);
	if (!rc && t->names.failed)
		rc = cdc_err_set(err, t->names.no_memory ? CDC_NOMEM : CDC_CONFIG,
				 "the names of its columns are too long");
	if (rc) {
		sink_webhook_template_free(t);
		return rc;
	}
	point_to_names(t);
	*ret = t;
	return CDC_OK;
}

size_t sink_webhook_template_fixed(const char *url, bool *ret_path)
{
	size_t n = strcspn(url, "{}"), query = strcspn(url, "?#");

	*ret_path = n < query;
	if (!*ret_path)
		return query;
	while (n > 0 && url[n - 1] != '/')
		n--;
	return n;
}

/* --- filling in --------------------------------------------------------------------- */

void sink_webhook_template_encode(struct cdc_buf *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n && !out->failed; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c > 0x20 && c < 0x7f && c != '"' && c != '%')
			cdc_buf_putc(out, (char)c);
		else
			cdc_buf_printf(out, "%%%02X", c);
	}
}

/* RFC 3986 section 2.3: what is not unreserved. */
static void encode_url(struct cdc_buf *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n && !out->failed; i++) {
		unsigned char c = (unsigned char)text[i];

		if ((c < 0x80 && isalnum(c)) || (c && strchr("-._~", c)))
			cdc_buf_putc(out, (char)c);
		else
			cdc_buf_printf(out, "%%%02X", c);
	}
}

/* The value of a column that is there and not null. */
static bool find_column(const struct piece *p, struct cdc_view view, struct cdc_span *ret)
{
	const char *json = cdc_view_json(view);
	struct cdc_span object = p->what == KEY ? view.rec->key : view.rec->fields;
	struct cdc_member m;
	struct cdc_scan s;

	if (object.len < 2 || json[object.off] != '{')
		return false;
	cdc_scan_begin(&s, json, view.rec->json_len, object);
	while (cdc_scan_next(&s, &m)) {
		if (m.name.len != p->name_len ||
		    memcmp(json + m.name.off, p->name, p->name_len) != 0)
			continue;
		*ret = cdc_text_trim(json, m.value);
		return ret->len && !(ret->len == 4 && memcmp(json + ret->off, "null", 4) == 0);
	}
	return false;
}

/* The two halves of "public.orders". */
static struct cdc_text table_text(struct cdc_view view, bool is_table)
{
	size_t len, before;
	const char *name = cdc_view_table(view, &len), *dot = memchr(name, '.', len);

	before = dot ? (size_t)(dot - name) : 0;
	if (!is_table)
		return (struct cdc_text){name, before};
	before += dot != NULL;
	return (struct cdc_text){name + before, len - before};
}

/* The text of a placeholder; false: it has none. */
static bool text_of(const struct piece *p, struct cdc_view view, char id[CDC_ID_TEXT],
		    struct cdc_buf *scratch, struct cdc_text *ret)
{
	struct cdc_span value;
	const char *op;

	switch (p->what) {
	case LITERAL:
		break;
	case SCHEMA:
	case TABLE:
		*ret = table_text(view, p->what == TABLE);
		return true;
	case OPERATION:
		op = cdc_op_name((enum cdc_op)view.rec->op);
		*ret = (struct cdc_text){op, strlen(op)};
		return true;
	case ID:
		*ret = (struct cdc_text){id, cdc_id_format(&view.rec->id, id)};
		return true;
	case KEY:
	case FIELD:
		if (find_column(p, view, &value)) {
			*ret = cdc_text_of(cdc_view_json(view), value, scratch);
			return true;
		}
		break;
	}
	*ret = (struct cdc_text){p->text, p->len};
	return p->has_text;
}

/* Where a segment of the path begins in the output, and whether a record has a part in it. */
struct segment {
	size_t from;
	bool is_filled, is_behind; /* behind the path there are none */
};

static bool is_bad_segment(const struct segment *s, const struct cdc_buf *out)
{
	const char *text = (const char *)out->data + s->from;
	size_t len = out->len - s->from;

	return s->is_filled && !s->is_behind && !out->failed &&
	       (len == 0 || (len == 1 && text[0] == '.') ||
		(len == 2 && text[0] == '.' && text[1] == '.'));
}

/* A literal of a url; false: it ends a segment that may not be. */
static bool put_literal(const struct piece *p, struct segment *s, struct cdc_buf *out)
{
	for (size_t i = 0; i < p->len; i++) {
		char c = p->text[i];

		if ((c == '/' || c == '?') && is_bad_segment(s, out))
			return false;
		if (c == '{' || c == '}')
			cdc_buf_puts(out, c == '{' ? "%7B" : "%7D");
		else
			cdc_buf_putc(out, c);
		s->is_behind |= c == '?';
		if (c == '/')
			*s = (struct segment){.from = out->len, .is_behind = s->is_behind};
	}
	return true;
}

static enum cdc_code bad_segment(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_LIMIT,
			   "a segment of the url's path would be empty, \".\" or \"..\" with the "
			   "values of this record");
}

enum cdc_code sink_webhook_template_put(const struct sink_webhook_template *t, struct cdc_view view,
					struct cdc_buf *scratch, struct cdc_buf *out,
					struct cdc_err *err)
{
	bool is_url = t->kind == SINK_WEBHOOK_TEMPLATE_URL;
	struct segment segment = {.from = out->len + t->path};
	char id[CDC_ID_TEXT];

	cdc_buf_reset(scratch, scratch->max);
	for (size_t i = 0; i < t->n; i++) {
		const struct piece *p = &t->pieces[i];
		struct cdc_text text;

		if (p->what == LITERAL && !is_url) {
			cdc_buf_put(out, p->text, p->len);
			continue;
		}
		if (p->what == LITERAL) {
			if (!put_literal(p, &segment, out))
				return bad_segment(err);
			continue;
		}
		if (!text_of(p, view, id, scratch, &text))
			return cdc_err_set(err, CDC_LIMIT,
					   "the %s needs %.*s, which this record does not have, or "
					   "which is null",
					   is_url ? "url" : "header", (int)p->shown_len, p->shown);
		segment.is_filled = true;
		if (is_url)
			encode_url(out, text.at, text.len);
		else
			sink_webhook_template_encode(out, text.at, text.len);
	}
	if (is_url && is_bad_segment(&segment, out))
		return bad_segment(err);
	if (scratch->failed || out->failed)
		return cdc_err_set(err, CDC_LIMIT, "the %s would be too long with this record",
				   is_url ? "url" : "header");
	return CDC_OK;
}
