#include "cdc/record/writer.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cdc/record/instant.h"
#include "cdc/record/key.h"
#include "cdc/record/value.h"

struct shape_column {
	const struct cdc_type *type;
	uint32_t off, len; /* `,"name":` in the shape's text */
	bool is_key;
};

struct cdc_shape {
	char *name; /* "public.orders" */
	size_t name_len;
	uint64_t null_key_hash;
	struct cdc_buf text; /* escaped: the parts below, one behind the other */
	size_t schema_len;   /* `,"schema":"public.orders","key":`, at the start */
	size_t key_n, n;
	struct shape_column columns[];
};

/* Which values a record's fields and key are made of. */
struct half {
	enum cdc_op op;
	uint8_t flags;
	struct cdc_id id;
	bool is_old;      /* of the old row, else of the new one */
	bool has_fields;  /* else null */
	bool is_key_only; /* only the key's columns are fields */
	bool has_changes;
	bool is_stand_in; /* of its values only the key is written */
};

static char *join_name(const char *schema, const char *table, size_t *ret_len)
{
	size_t schema_len = strlen(schema), table_len = strlen(table);
	char *name = malloc(schema_len + table_len + 2);

	if (!name)
		return NULL;
	memcpy(name, schema, schema_len);
	name[schema_len] = '.';
	memcpy(name + schema_len + 1, table, table_len + 1);
	*ret_len = schema_len + 1 + table_len;
	return name;
}

struct cdc_shape *cdc_shape_new(const char *schema, const char *table,
				const struct cdc_column *columns, size_t n)
{
	struct cdc_shape *s;

	CDC_ASSERT(n <= UINT16_MAX);
	s = calloc(1, sizeof(*s) + n * sizeof(*s->columns));
	if (!s)
		return NULL;
	cdc_buf_init(&s->text, UINT32_MAX);
	s->name = join_name(schema, table, &s->name_len);
	if (!s->name) {
		cdc_shape_free(s);
		return NULL;
	}
	s->null_key_hash = cdc_key_hash(s->name, s->name_len, NULL, 0);
	cdc_buf_puts(&s->text, ",\"schema\":");
	cdc_value_name(&s->text, s->name, s->name_len);
	cdc_buf_puts(&s->text, ",\"key\":");
	s->schema_len = s->text.len;
	s->n = n;
	for (size_t i = 0; i < n; i++) {
		struct shape_column *c = &s->columns[i];

		*c = (struct shape_column){.type = columns[i].type,
					   .off = (uint32_t)s->text.len,
					   .is_key = columns[i].is_key};
		s->key_n += c->is_key;
		cdc_buf_putc(&s->text, ',');
		cdc_value_name(&s->text, columns[i].name, strlen(columns[i].name));
		cdc_buf_putc(&s->text, ':');
		c->len = (uint32_t)(s->text.len - c->off);
	}
	if (s->text.failed) {
		cdc_shape_free(s);
		return NULL;
	}
	return s;
}

void cdc_shape_free(struct cdc_shape *s)
{
	if (!s)
		return;
	cdc_buf_clear(&s->text);
	free(s->name);
	free(s);
}

const char *cdc_shape_name(const struct cdc_shape *s)
{
	return s->name;
}

size_t cdc_shape_columns(const struct cdc_shape *s)
{
	return s->n;
}

static bool same_value(const struct cdc_value *a, const struct cdc_value *b)
{
	return a->kind == b->kind && (a->kind != CDC_VALUE_TEXT ||
				      (a->len == b->len && memcmp(a->text, b->text, a->len) == 0));
}

/* Column i of the new row; where that is unchanged, of the old row if it is real there. */
static const struct cdc_value *new_value(const struct cdc_change *c, size_t i)
{
	const struct cdc_value *v = &c->row[i];

	if (v->kind == CDC_VALUE_UNCHANGED && c->old &&
	    (c->old_is_full || c->shape->columns[i].is_key) && c->old[i].kind == CDC_VALUE_TEXT)
		return &c->old[i];
	return v;
}

static const struct cdc_value *value_of(const struct cdc_change *c, const struct half *h, size_t i)
{
	return h->is_old ? &c->old[i] : new_value(c, i);
}

/* Does this side give every column of the key?  A key column is never null. */
static bool has_key(const struct cdc_change *c, const struct half *h)
{
	if (c->shape->key_n == 0 || !h->has_fields)
		return false;
	for (size_t i = 0; i < c->shape->n; i++) {
		if (c->shape->columns[i].is_key && value_of(c, h, i)->kind != CDC_VALUE_TEXT)
			return false;
	}
	return true;
}

static bool is_key_changed(const struct cdc_change *c)
{
	const struct half old = {.is_old = true, .has_fields = true};
	const struct half row = {.has_fields = true};

	if (c->op != CDC_OP_UPDATE || !c->old || !has_key(c, &old) || !has_key(c, &row))
		return false;
	for (size_t i = 0; i < c->shape->n; i++) {
		if (c->shape->columns[i].is_key && !same_value(&c->old[i], new_value(c, i)))
			return true;
	}
	return false;
}

/* The column whose value its type does not allow. */
static enum cdc_code bad_value(const struct cdc_shape *s, size_t i, struct cdc_err *err)
{
	const struct shape_column *c = &s->columns[i];

	/* The name without the comma before and the colon behind it. */
	return cdc_err_set(err, CDC_PROTO,
			   "table %s, column %.*s: the value is not one of its type", s->name,
			   (int)(c->len - 2), (const char *)s->text.data + c->off + 1);
}

static inline void put(struct cdc_buf *out, const void *bytes, size_t n)
{
	uint8_t *to = cdc_value_room(out, n);

	if (to) {
		memcpy(to, bytes, n);
		out->len += n;
	}
}

/* `,"name":` and the value; without the comma for the first member. */
static inline bool put_member(struct cdc_buf *out, const struct cdc_shape *s, size_t i,
			      const struct cdc_value *v, bool is_first)
{
	const struct shape_column *c = &s->columns[i];

	put(out, s->text.data + c->off + is_first, c->len - is_first);
	if (v->kind == CDC_VALUE_TEXT)
		return cdc_value_column(out, c->type, v->text, v->len);
	put(out, "null", 4);
	return true;
}

/* Where a value that began at `from` lies in the record. */
static struct cdc_span span_since(const struct cdc_buf *out, const struct cdc_record *r,
				  size_t from)
{
	return (struct cdc_span){.off = (uint32_t)(from - r->json_off),
				 .len = (uint32_t)(out->len - from)};
}

static void put_head(struct cdc_buf *out, const struct cdc_shape *s, const struct half *h)
{
#define OPERATION(name) "\",\"operation\":\"" name "\""
	static const char *const operations[] = {
		[CDC_OP_INSERT] = OPERATION("insert"), [CDC_OP_UPDATE] = OPERATION("update"),
		[CDC_OP_DELETE] = OPERATION("delete"), [CDC_OP_TRUNCATE] = OPERATION("truncate"),
		[CDC_OP_READ] = OPERATION("read"),     [CDC_OP_MESSAGE] = OPERATION("message"),
		[CDC_OP_SCHEMA] = OPERATION("schema"), [CDC_OP_BACKFILL] = OPERATION("backfill"),
	};
#undef OPERATION
	const size_t op_len = strlen(operations[h->op]);
	char *to = (char *)cdc_value_room(out, 7 + CDC_ID_TEXT + op_len + s->schema_len), *at = to;

	if (!to)
		return;
	memcpy(at, "{\"id\":\"", 7);
	at += 7;
	at += cdc_id_format(&h->id, at);
	memcpy(at, operations[h->op], op_len);
	at += op_len;
	memcpy(at, s->text.data, s->schema_len);
	at += s->schema_len;
	out->len += (size_t)(at - to);
}

static enum cdc_code put_key(struct cdc_batch *b, struct cdc_record *r, const struct cdc_change *c,
			     const struct half *h, struct cdc_err *err)
{
	const struct cdc_shape *s = c->shape;
	const size_t from = b->json.len;
	bool is_first = true;

	if (!has_key(c, h)) {
		put(&b->json, "null", 4);
		r->key = span_since(&b->json, r, from);
		r->key_hash = s->null_key_hash;
		r->flags |= CDC_RECORD_NO_KEY;
		return CDC_OK;
	}
	put(&b->json, "{", 1);
	for (size_t i = 0; i < s->n; i++) {
		if (!s->columns[i].is_key)
			continue;
		if (!put_member(&b->json, s, i, value_of(c, h, i), is_first))
			return bad_value(s, i, err);
		is_first = false;
	}
	put(&b->json, "}", 1);
	r->key = span_since(&b->json, r, from);
	if (!b->json.failed)
		r->key_hash =
			cdc_key_hash(s->name, s->name_len, (char *)b->json.data + from, r->key.len);
	return CDC_OK;
}

/* `,"fields":`; *ret_unchanged: how many columns are left out because nobody has their value. */
static enum cdc_code put_fields(struct cdc_batch *b, struct cdc_record *r,
				const struct cdc_change *c, const struct half *h,
				size_t *ret_unchanged, struct cdc_err *err)
{
	const struct cdc_shape *s = c->shape;
	size_t from, unchanged = 0;

	put(&b->json, ",\"fields\":", 10);
	from = b->json.len;
	if (h->has_fields && !h->is_stand_in) {
		put(&b->json, "{", 1);
		for (size_t i = 0; i < s->n; i++) {
			const struct cdc_value *v = value_of(c, h, i);

			if ((h->is_key_only && !s->columns[i].is_key) ||
			    v->kind == CDC_VALUE_ABSENT)
				continue;
			if (v->kind == CDC_VALUE_UNCHANGED) {
				unchanged++;
				continue;
			}
			if (!put_member(&b->json, s, i, v, r->cols == 0))
				return bad_value(s, i, err);
			cdc_batch_col(b, r, (uint32_t)(b->json.len - from));
		}
		put(&b->json, "}", 1);
	} else {
		put(&b->json, "null", 4);
	}
	r->fields = span_since(&b->json, r, from);
	*ret_unchanged = unchanged;
	return CDC_OK;
}

/* `,"changes":`: the old value of every column that changed, as far as old is real. */
static enum cdc_code put_changes(struct cdc_batch *b, struct cdc_record *r,
				 const struct cdc_change *c, struct cdc_err *err)
{
	const struct cdc_shape *s = c->shape;
	bool is_first = true;
	size_t from;

	put(&b->json, ",\"changes\":", 11);
	from = b->json.len;
	put(&b->json, "{", 1);
	for (size_t i = 0; i < s->n; i++) {
		const struct cdc_value *old = &c->old[i];

		if ((!c->old_is_full && !s->columns[i].is_key) ||
		    (old->kind != CDC_VALUE_TEXT && old->kind != CDC_VALUE_NULL) ||
		    c->row[i].kind == CDC_VALUE_UNCHANGED || same_value(old, &c->row[i]))
			continue;
		if (!put_member(&b->json, s, i, old, is_first))
			return bad_value(s, i, err);
		is_first = false;
	}
	put(&b->json, "}", 1);
	r->changes = span_since(&b->json, r, from);
	return CDC_OK;
}

/* `,"unchanged":`: the names of the columns that are left out. */
static void put_unchanged(struct cdc_batch *b, struct cdc_record *r, const struct cdc_change *c,
			  const struct half *h)
{
	const struct cdc_shape *s = c->shape;
	char before = '[';
	size_t from;

	put(&b->json, ",\"unchanged\":", 13);
	from = b->json.len;
	for (size_t i = 0; i < s->n; i++) {
		if ((h->is_key_only && !s->columns[i].is_key) ||
		    value_of(c, h, i)->kind != CDC_VALUE_UNCHANGED)
			continue;
		put(&b->json, &before, 1);
		put(&b->json, s->text.data + s->columns[i].off + 1, s->columns[i].len - 2);
		before = ',';
	}
	put(&b->json, "]", 1);
	r->unchanged = span_since(&b->json, r, from);
}

static char *put_decimal(char *to, uint64_t v)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	memcpy(to, digits + at, sizeof(digits) - at);
	return to + (sizeof(digits) - at);
}

static char *put_literal(char *to, const char *text)
{
	size_t len = strlen(text);

	memcpy(to, text, len);
	return to + len;
}

void cdc_write_tail(struct cdc_buf *out, const struct cdc_record *r, const struct cdc_change *c)
{
	/* The constant parts are 170 bytes, the hash 16, the numbers at most 50. */
	char *to = (char *)cdc_value_room(out, 250 + 2 * CDC_LSN_TEXT + CDC_INSTANT_TEXT), *at = to;
	uint64_t hash;

	if (!to)
		return;
	hash = XXH3_64bits(out->data + r->json_off + r->fields.off, r->fields.len);
	at = put_literal(at, ",\"position\":\"");
	at += cdc_lsn_format(c->position, at);
	at = put_literal(at, "\",\"commit\":{\"lsn\":\"");
	at += cdc_lsn_format(c->id.commit_lsn, at);
	at = put_literal(at, "\",\"xid\":");
	at = c->xid ? put_decimal(at, c->xid) : put_literal(at, "null");
	if (c->commit_us) {
		at = put_literal(at, ",\"time\":\"");
		at += cdc_instant_format(c->commit_us, at);
		at = put_literal(at, "\"}");
	} else {
		at = put_literal(at, ",\"time\":null}");
	}
	if (r->op == CDC_OP_TRUNCATE) {
		at = put_literal(at, ",\"truncate\":{\"cascade\":");
		at = put_literal(at, c->is_cascade ? "true" : "false");
		at = put_literal(at, ",\"restart_identity\":");
		at = put_literal(at, c->is_restart_identity ? "true}" : "false}");
	}
	if (r->flags & CDC_RECORD_TOO_LARGE) {
		at = put_literal(at, ",\"too_large\":{\"bytes\":");
		at = put_decimal(at, c->too_large);
		at = put_literal(at, ",\"max_bytes\":");
		at = put_decimal(at, c->max_bytes);
		*at++ = '}';
	}
	at = put_literal(at, ",\"hash\":\"");
	for (int shift = 60; shift >= 0; shift -= 4)
		*at++ = "0123456789abcdef"[(hash >> shift) & 15];
	at = put_literal(at, "\"}");
	out->len += (size_t)(at - to);
}

/* The batch's index of the table; most records are of the same table as the one before. */
static enum cdc_code table_index(struct cdc_batch *b, const struct cdc_shape *s, uint16_t *ret,
				 struct cdc_err *err)
{
	if (b->n) {
		const uint16_t last = b->records[b->n - 1].table;
		const struct cdc_table_name *t = &b->tables[last];

		if (t->len == s->name_len &&
		    memcmp(b->names.data + t->off, s->name, s->name_len) == 0) {
			*ret = last;
			return CDC_OK;
		}
	}
	return cdc_batch_table(b, s->name, s->name_len, ret, err);
}

static enum cdc_code put_half(struct cdc_batch *b, const struct cdc_change *c, const struct half *h,
			      uint16_t table, struct cdc_err *err)
{
	struct cdc_record *r;
	size_t unchanged = 0;
	enum cdc_code rc = cdc_batch_begin(b, &r, err);

	if (rc)
		return rc;
	r->id = h->id;
	r->commit_us = c->commit_us;
	r->table = table;
	r->op = (uint8_t)h->op;
	r->flags = h->flags;
	if (h->has_changes && c->old_is_full)
		r->flags |= CDC_RECORD_OLD_ROW;
	if (c->max_bytes && !h->is_stand_in)
		cdc_batch_cap(b, c->max_bytes);
	put_head(&b->json, c->shape, h);
	rc = put_key(b, r, c, h, err);
	if (!rc)
		rc = put_fields(b, r, c, h, &unchanged, err);
	if (!rc && h->has_changes)
		rc = put_changes(b, r, c, err);
	if (rc) {
		cdc_batch_abort(b);
		return rc;
	}
	if (unchanged)
		put_unchanged(b, r, c, h);
	cdc_write_tail(&b->json, r, c);
	return cdc_batch_end(b, err);
}

static uint64_t bytes_of(const struct cdc_value *values, size_t n)
{
	uint64_t bytes = 0;

	for (size_t i = 0; values && i < n; i++)
		bytes += values[i].kind == CDC_VALUE_TEXT ? values[i].len : 0;
	return bytes;
}

static enum cdc_code put_stand_in(struct cdc_batch *b, const struct cdc_change *c,
				  const struct half *h, uint16_t table, struct cdc_err *err)
{
	struct cdc_change sized = *c;
	struct half stand_in = *h;

	sized.too_large = bytes_of(c->row, c->shape->n) + bytes_of(c->old, c->shape->n);
	stand_in.flags |= CDC_RECORD_TOO_LARGE;
	stand_in.is_stand_in = true;
	stand_in.has_changes = false;
	return put_half(b, &sized, &stand_in, table, err);
}

/* What the key and the new row already say; false: nothing of it can be left out.  The second half
 * of a changed key needs its `changes`: they hold the old key. */
static bool without_old_row(struct half *h, const struct cdc_change *c)
{
	if (h->is_old && !h->is_key_only && c->shape->key_n > 0) {
		h->is_key_only = true;
		return true;
	}
	if (h->has_changes && !(h->flags & CDC_RECORD_MOVE_NEW)) {
		h->has_changes = false;
		return true;
	}
	return false;
}

/* One record, as much of it as may be, or what stands in for it. */
static enum cdc_code write_half(struct cdc_batch *b, const struct cdc_change *c,
				const struct half *h, uint16_t table, struct cdc_err *err)
{
	/* In a batch with less room it may still be small enough for the next one. */
	const bool has_room = cdc_batch_has_room(b, c->max_bytes);
	struct cdc_err why;
	enum cdc_code rc = put_half(b, c, h, table, &why);

	if (rc == CDC_LIMIT && c->max_bytes && has_room) {
		struct half less = *h;

		rc = without_old_row(&less, c) ? put_half(b, c, &less, table, &why) : CDC_LIMIT;
		if (rc == CDC_LIMIT)
			return put_stand_in(b, c, h, table, err);
	}
	if (rc && err)
		*err = why;
	return rc;
}

/* A changed key: what was ends under the old key, what is begins under the new one. */
static enum cdc_code write_move(struct cdc_batch *b, const struct cdc_change *c, uint16_t table,
				struct cdc_err *err)
{
	const size_t n = b->n, json_len = b->json.len, col_n = b->col_n;
	struct half old = {.op = CDC_OP_DELETE,
			   .flags = CDC_RECORD_MOVE_OLD,
			   .id = c->id,
			   .is_old = true,
			   .has_fields = true,
			   .is_key_only = !c->old_is_full};
	struct half row = {.op = CDC_OP_UPDATE,
			   .flags = CDC_RECORD_MOVE_NEW,
			   .id = c->id,
			   .has_fields = true,
			   .has_changes = true};
	enum cdc_code rc = write_half(b, c, &old, table, err);

	if (rc)
		return rc;
	row.id.part++;
	rc = write_half(b, c, &row, table, err);
	if (rc) {
		b->n = n;
		b->json.len = json_len;
		b->col_n = col_n;
	}
	return rc;
}

static enum cdc_code write_one(struct cdc_batch *b, const struct cdc_change *c, uint16_t table,
			       struct cdc_err *err)
{
	struct half h = {.op = c->op, .id = c->id};

	CDC_ASSERT(c->op <= CDC_OP_READ); /* the others are not changes of rows */
	switch (c->op) {
	case CDC_OP_INSERT:
	case CDC_OP_READ:
		h.has_fields = true;
		break;
	case CDC_OP_UPDATE:
		h.has_fields = true;
		h.has_changes = c->old != NULL;
		break;
	case CDC_OP_DELETE:
		h.is_old = true;
		h.has_fields = c->old != NULL;
		h.is_key_only = !c->old_is_full;
		break;
	case CDC_OP_TRUNCATE:
		h.flags = CDC_RECORD_BARRIER;
		break;
	case CDC_OP_MESSAGE:
	case CDC_OP_SCHEMA:
	case CDC_OP_BACKFILL:
	case CDC_OP_COUNT:
		break;
	}
	return write_half(b, c, &h, table, err);
}

enum cdc_code cdc_write_change(struct cdc_batch *batch, const struct cdc_change *change,
			       struct cdc_err *err)
{
	const size_t table_n = batch->table_n, names_len = batch->names.len;
	uint16_t table;
	enum cdc_code rc = table_index(batch, change->shape, &table, err);

	if (rc)
		return rc;
	rc = is_key_changed(change) ? write_move(batch, change, table, err)
				    : write_one(batch, change, table, err);
	if (rc) {
		batch->table_n = table_n;
		batch->names.len = names_len;
	}
	return rc;
}
