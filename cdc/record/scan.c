#include "cdc/record/scan.h"

#include <string.h>

#include "cdc/record/instant.h"
#include "cdc/record/key.h"
#include "cdc/record/value.h"

/* Two names of 63 bytes, and room for servers built with longer ones. */
#define MAX_TABLE_NAME 1024
#define MAX_DEPTH      64

static uint32_t skip_space(const char *json, uint32_t at, uint32_t end)
{
	while (at < end &&
	       (json[at] == ' ' || json[at] == '\n' || json[at] == '\r' || json[at] == '\t'))
		at++;
	return at;
}

/* The value of four hex digits, or -1. */
static int32_t hex4(const char *text)
{
	int32_t v = 0;

	for (int i = 0; i < 4; i++) {
		char c = text[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;

		if (digit < 0)
			return -1;
		v = v << 4 | digit;
	}
	return v;
}

/* Behind the backslash: the bytes of the escape, or 0 when it is none. */
static uint32_t escape_len(const char *json, uint32_t at, uint32_t end)
{
	if (at == end)
		return 0;
	switch (json[at]) {
	case '"':
	case '\\':
	case '/':
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		return 1;
	case 'u':
		return end - at >= 5 && hex4(json + at + 1) >= 0 ? 5 : 0;
	default:
		return 0;
	}
}

/*
 * The skip functions return the position behind what they skip, which is never
 * 0; 0 means that it is not there.  skip_string begins behind the opening quote.
 */
static uint32_t skip_string(const char *json, uint32_t at, uint32_t end)
{
	for (;;) {
		uint32_t n;

		at += (uint32_t)cdc_value_plain(json + at, end - at);
		if (at == end)
			return 0;
		if (json[at] == '"')
			return at + 1;
		if (json[at] != '\\')
			return 0; /* a control byte */
		n = escape_len(json, at + 1, end);
		if (n == 0)
			return 0;
		at += 1 + n;
	}
}

/* Everything up to the bracket that closes the one at `at`, whatever its kind. */
static uint32_t skip_deep(const char *json, uint32_t at, uint32_t end)
{
	uint32_t depth = 0;

	while (at < end) {
		switch (json[at++]) {
		case '"':
			at = skip_string(json, at, end);
			if (!at)
				return 0;
			break;
		case '{':
		case '[':
			depth++;
			break;
		case '}':
		case ']':
			if (--depth == 0)
				return at;
			break;
		default:
			break;
		}
	}
	return 0;
}

static uint32_t skip_word(const char *json, uint32_t at, uint32_t end, const char *word)
{
	size_t n = strlen(word);

	return end - at >= n && memcmp(json + at, word, n) == 0 ? at + (uint32_t)n : 0;
}

/* A string, number or word. */
static uint32_t skip_scalar(const char *json, uint32_t at, uint32_t end)
{
	size_t n;

	switch (json[at]) {
	case '"':
		return skip_string(json, at + 1, end);
	case 't':
		return skip_word(json, at, end, "true");
	case 'f':
		return skip_word(json, at, end, "false");
	case 'n':
		return skip_word(json, at, end, "null");
	default:
		n = cdc_value_number(json + at, end - at);
		return n ? at + (uint32_t)n : 0;
	}
}

/* `"name" :` */
static uint32_t skip_name(const char *json, uint32_t at, uint32_t end)
{
	at = skip_space(json, at, end);
	if (at == end || json[at] != '"')
		return 0;
	at = skip_string(json, at + 1, end);
	if (!at)
		return 0;
	at = skip_space(json, at, end);
	return at < end && json[at] == ':' ? at + 1 : 0;
}

/* Commas and closing brackets behind a value, up to where the next value begins or, when *depth
 * comes to 0, the outermost one has ended. */
static uint32_t skip_closings(const char *json, uint32_t at, uint32_t end, unsigned *depth,
			      uint64_t *objects)
{
	while (*depth) {
		const bool is_object = *objects & 1;

		at = skip_space(json, at, end);
		if (at == end)
			return 0;
		if (json[at] == ',')
			return is_object ? skip_name(json, at + 1, end) : at + 1;
		if (json[at] != (is_object ? '}' : ']'))
			return 0;
		at++;
		--*depth;
		*objects >>= 1;
	}
	return at;
}

/* A value and the white space before it, but not behind it. */
static uint32_t skip_value(const char *json, uint32_t at, uint32_t end)
{
	uint64_t objects = 0; /* of each level, the innermost lowest: is it an object? */
	unsigned depth = 0;

	for (;;) {
		at = skip_space(json, at, end);
		if (at == end)
			return 0;
		if (json[at] != '{' && json[at] != '[') {
			at = skip_scalar(json, at, end);
		} else if (depth == MAX_DEPTH) {
			at = skip_deep(json, at, end);
		} else {
			const bool is_object = json[at++] == '{';
			const uint32_t inside = skip_space(json, at, end);

			objects = objects << 1 | is_object;
			depth++;
			if (inside == end || json[inside] != (is_object ? '}' : ']')) {
				if (is_object)
					at = skip_name(json, at, end);
				if (!at)
					return 0;
				continue;
			}
			at = inside;
		}
		if (!at)
			return 0;
		at = skip_closings(json, at, end, &depth, &objects);
		if (!at || depth == 0)
			return at;
	}
}

void cdc_scan_begin(struct cdc_scan *s, const char *json, size_t len, struct cdc_span span)
{
	uint32_t at, end;

	*s = (struct cdc_scan){.json = json, .is_first = true, .is_bad = true};
	if (len > UINT32_MAX || span.off > len || span.len > len - span.off)
		return;
	end = span.off + span.len;
	at = skip_space(json, span.off, end);
	while (end > at && skip_space(json, end - 1, end) == end)
		end--;
	if (end - at < 2 || !((json[at] == '{' && json[end - 1] == '}') ||
			      (json[at] == '[' && json[end - 1] == ']')))
		return;
	s->is_object = json[at] == '{';
	s->at = at + 1;
	s->end = end - 1;
	s->is_bad = false;
}

static bool scan_failed(struct cdc_scan *s)
{
	s->is_bad = true;
	return false;
}

bool cdc_scan_next(struct cdc_scan *s, struct cdc_member *ret)
{
	struct cdc_member m = {0};
	uint32_t at, value;

	if (s->is_bad)
		return false;
	at = skip_space(s->json, s->at, s->end);
	if (at == s->end)
		return false;
	if (!s->is_first) {
		if (s->json[at] != ',')
			return scan_failed(s);
		at = skip_space(s->json, at + 1, s->end);
	}
	value = at;
	if (s->is_object) {
		value = skip_name(s->json, at, s->end);
		if (!value)
			return scan_failed(s);
		m.name.off = at + 1;
		m.name.len = skip_string(s->json, at + 1, s->end) - 1 - m.name.off;
	}
	at = skip_value(s->json, value, s->end);
	if (!at)
		return scan_failed(s);
	at = skip_space(s->json, at, s->end);
	m.value = (struct cdc_span){.off = value, .len = at - value};
	s->at = at;
	s->is_first = false;
	*ret = m;
	return true;
}

/* The code point of the \u at `at` (of the u), both halves of a pair taken; at most UINT32_MAX:
 * none. */
static uint32_t code_point(const char *json, uint32_t *at, uint32_t end)
{
	int32_t high, low;

	high = end - *at >= 5 ? hex4(json + *at + 1) : -1;
	*at += 5;
	if (high < 0xd800 || high > 0xdfff)
		return (uint32_t)high;
	if (high > 0xdbff || end - *at < 6 || json[*at] != '\\' || json[*at + 1] != 'u')
		return UINT32_MAX;
	low = hex4(json + *at + 2);
	*at += 6;
	if (low < 0xdc00 || low > 0xdfff)
		return UINT32_MAX;
	return 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
}

static size_t encode_utf8(uint32_t c, char ret[4])
{
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};

	for (size_t i = n - 1; i > 0; i--) {
		ret[i] = (char)(0x80 | (c & 0x3f));
		c >>= 6;
	}
	ret[0] = (char)(first[n] | c);
	return n;
}

/* What the escape whose backslash is at *at - 1 stands for; its bytes, 0: not an escape. */
static size_t unescape(const char *json, uint32_t *at, uint32_t end, char ret[4])
{
	static const char letters[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
	uint32_t point;

	if (escape_len(json, *at, end) == 0)
		return 0;
	if (json[*at] == 'u') {
		point = code_point(json, at, end);
		return point == UINT32_MAX ? 0 : encode_utf8(point, ret);
	}
	for (size_t i = 0; i + 1 < sizeof(letters); i += 2) {
		if (letters[i] == json[*at])
			ret[0] = letters[i + 1];
	}
	++*at;
	return 1;
}

bool cdc_scan_text(const char *json, struct cdc_span span, char *ret_text, size_t size,
		   size_t *ret_len)
{
	uint32_t at = span.off, end = span.off + span.len;
	size_t len = 0;

	while (at < end) {
		size_t n = cdc_value_plain(json + at, end - at);
		const char *from = json + at;
		char escaped[4];

		at += (uint32_t)n;
		if (n == 0) {
			if (json[at++] != '\\')
				return false;
			n = unescape(json, &at, end, escaped);
			if (n == 0)
				return false;
			from = escaped;
		}
		if (n > size - len)
			return false;
		memcpy(ret_text + len, from, n);
		len += n;
	}
	*ret_len = len;
	return true;
}

/* --- a whole record ------------------------------------------------------------------- */

/* The values of a record's members; len 0: missing. */
struct parts {
	struct cdc_span id, operation, schema, key, fields, changes, unchanged, commit, too_large;
};

static bool name_is(const char *json, struct cdc_span name, const char *want)
{
	return name.len == strlen(want) && memcmp(json + name.off, want, name.len) == 0;
}

/* What lies between the quotes of a value that is a string; false if it is none. */
static bool inside_string(const char *json, struct cdc_span value, struct cdc_span *ret)
{
	if (value.len < 2 || json[value.off] != '"' || json[value.off + value.len - 1] != '"')
		return false;
	*ret = (struct cdc_span){.off = value.off + 1, .len = value.len - 2};
	return true;
}

static bool is_null(const char *json, struct cdc_span value)
{
	return value.len == 4 && memcmp(json + value.off, "null", 4) == 0;
}

static bool is_bracketed(const char *json, struct cdc_span value, char open, char close)
{
	return value.len >= 2 && json[value.off] == open &&
	       json[value.off + value.len - 1] == close;
}

/* Finds the members; false: not JSON, or one stands there twice. */
static bool find_parts(const char *json, size_t len, struct parts *ret)
{
	const struct {
		const char *name;
		struct cdc_span *value;
	} known[] = {
		{"id", &ret->id},
		{"operation", &ret->operation},
		{"schema", &ret->schema},
		{"key", &ret->key},
		{"fields", &ret->fields},
		{"changes", &ret->changes},
		{"unchanged", &ret->unchanged},
		{"commit", &ret->commit},
		{"too_large", &ret->too_large},
	};
	struct cdc_member m;
	struct cdc_scan s;

	if (len < 2 || len > UINT32_MAX || json[0] != '{' || json[len - 1] != '}')
		return false;
	cdc_scan_begin(&s, json, len, (struct cdc_span){.len = (uint32_t)len});
	while (cdc_scan_next(&s, &m)) {
		for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
			if (!name_is(json, m.name, known[i].name))
				continue;
			if (known[i].value->len)
				return false;
			*known[i].value = m.value;
		}
	}
	return !s.is_bad;
}

static bool read_operation(const char *json, struct cdc_span value, uint8_t *ret)
{
	struct cdc_span text;

	if (!inside_string(json, value, &text))
		return false;
	for (unsigned op = 0; op < CDC_OP_COUNT; op++) {
		if (name_is(json, text, cdc_op_name((enum cdc_op)op))) {
			*ret = (uint8_t)op;
			return true;
		}
	}
	return false;
}

static bool read_commit_time(const char *json, size_t len, struct cdc_span commit, int64_t *ret_us)
{
	struct cdc_member m;
	struct cdc_scan s;
	struct cdc_span text;
	bool is_there = false;

	cdc_scan_begin(&s, json, len, commit);
	while (cdc_scan_next(&s, &m)) {
		if (!name_is(json, m.name, "time"))
			continue;
		if (is_there)
			return false;
		is_there = true;
		if (is_null(json, m.value))
			*ret_us = 0;
		else if (!inside_string(json, m.value, &text) ||
			 !cdc_instant_parse(json + text.off, text.len, ret_us))
			return false;
	}
	return !s.is_bad && is_there;
}

/* Everything but the table and the columns. */
static bool read_block(const char *json, size_t len, const struct parts *p, struct cdc_record *r)
{
	struct cdc_span id;

	if (!inside_string(json, p->id, &id) || !cdc_id_parse(json + id.off, id.len, &r->id) ||
	    !read_operation(json, p->operation, &r->op) ||
	    !read_commit_time(json, len, p->commit, &r->commit_us))
		return false;
	if ((!is_null(json, p->key) && !is_bracketed(json, p->key, '{', '}')) ||
	    (!is_null(json, p->fields) && !is_bracketed(json, p->fields, '{', '}')) ||
	    (p->changes.len && !is_bracketed(json, p->changes, '{', '}')) ||
	    (p->unchanged.len && !is_bracketed(json, p->unchanged, '[', ']')))
		return false;
	r->key = p->key;
	r->fields = p->fields;
	r->changes = p->changes;
	r->unchanged = p->unchanged;
	if (is_null(json, p->key))
		r->flags |= CDC_RECORD_NO_KEY;
	if (p->too_large.len)
		r->flags |= CDC_RECORD_TOO_LARGE;
	switch ((enum cdc_op)r->op) {
	case CDC_OP_TRUNCATE:
	case CDC_OP_MESSAGE:
	case CDC_OP_SCHEMA:
	case CDC_OP_BACKFILL:
		r->flags |= CDC_RECORD_BARRIER;
		break;
	case CDC_OP_UPDATE:
		if (r->id.part == 2)
			r->flags |= CDC_RECORD_MOVE_NEW;
		break;
	case CDC_OP_INSERT:
	case CDC_OP_DELETE:
	case CDC_OP_READ:
	case CDC_OP_COUNT:
		break;
	}
	return true;
}

/* Notes the ends of the members of fields; false: more than a record can have. */
static bool add_columns(struct cdc_batch *b, struct cdc_record *r, const char *json, size_t len)
{
	struct cdc_member m;
	struct cdc_scan s;

	if (is_null(json, r->fields))
		return true;
	cdc_scan_begin(&s, json, len, r->fields);
	while (cdc_scan_next(&s, &m)) {
		if (r->cols == UINT16_MAX)
			return false;
		cdc_batch_col(b, r, m.value.off + m.value.len - r->fields.off);
	}
	return !s.is_bad;
}

enum cdc_code cdc_scan_record(struct cdc_batch *batch, const char *json, size_t len,
			      struct cdc_err *err)
{
	const size_t table_n = batch->table_n, names_len = batch->names.len;
	struct parts p = {0};
	struct cdc_span schema;
	struct cdc_record block = {0}, *r;
	char table[MAX_TABLE_NAME];
	size_t table_len;
	uint16_t index;
	enum cdc_code rc;

	if (!find_parts(json, len, &p) || !read_block(json, len, &p, &block) ||
	    !inside_string(json, p.schema, &schema) ||
	    !cdc_scan_text(json, schema, table, sizeof(table), &table_len))
		return cdc_err_set(err, CDC_PROTO, "the bytes are not a record");
	rc = cdc_batch_table(batch, table, table_len, &index, err);
	if (rc)
		return rc;
	rc = cdc_batch_begin(batch, &r, err);
	if (!rc) {
		block.json_off = r->json_off;
		block.col_first = r->col_first;
		block.table = index;
		block.key_hash = block.flags & CDC_RECORD_NO_KEY
					 ? cdc_key_hash(table, table_len, NULL, 0)
					 : cdc_key_hash(table, table_len, json + block.key.off,
							block.key.len);
		*r = block;
		cdc_buf_put(&batch->json, json, len);
		if (add_columns(batch, r, json, len)) {
			rc = cdc_batch_end(batch, err);
		} else {
			cdc_batch_abort(batch);
			rc = cdc_err_set(err, CDC_PROTO, "the bytes are not a record");
		}
	}
	if (rc) {
		batch->table_n = table_n;
		batch->names.len = names_len;
	}
	return rc;
}
