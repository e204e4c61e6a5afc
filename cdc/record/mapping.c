#include "cdc/record/mapping.h"

#include <string.h>
#include <xxhash.h>

#include "cdc/record/key.h"
#include "cdc/record/scan.h"

#define HASH_TEXT 16

/* One record on its way. */
struct job {
	struct cdc_columns *columns;
	struct cdc_view in;
	const char *json; /* of in */
	enum cdc_map how;
	struct cdc_batch *batch;
	struct cdc_buf *out; /* the batch's */
	struct cdc_record *r;
	struct cdc_err *err;
};

static enum cdc_code corrupt(const struct job *j)
{
	char id[CDC_ID_TEXT];

	(void)cdc_id_format(&j->in.rec->id, id);
	return cdc_err_set(j->err, CDC_CORRUPT, "record %s is not as walpost writes records", id);
}

static uint32_t end_of(struct cdc_span s)
{
	return s.off + s.len;
}

static bool is_null(const struct job *j, struct cdc_span value)
{
	return value.len == 4 && memcmp(j->json + value.off, "null", 4) == 0;
}

static void begin_scan(const struct job *j, struct cdc_scan *s, struct cdc_span span)
{
	cdc_scan_begin(s, j->json, j->in.rec->json_len, span);
}

static enum cdc_code find(const struct job *j, struct cdc_span name, size_t *at,
			  const struct cdc_column_out **ret)
{
	return cdc_columns_find(j->columns, j->json + name.off, name.len, at, ret, j->err);
}

/* Where a value that began at `from` of the batch lies in the record. */
static struct cdc_span span_since(const struct job *j, size_t from)
{
	return (struct cdc_span){.off = (uint32_t)(from - j->r->json_off),
				 .len = (uint32_t)(j->out->len - from)};
}

/* Do the parts follow each other as the writer has them, with nothing between? */
static bool is_in_order(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;
	const struct {
		const char *name;
		struct cdc_span span;
	} parts[] = {
		{",\"fields\":", in->fields},
		{",\"changes\":", in->changes},
		{",\"unchanged\":", in->unchanged},
	};
	uint32_t at = end_of(in->key);

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const size_t len = strlen(parts[i].name);

		if (i > 0 && !parts[i].span.len)
			continue;
		if (parts[i].span.off < at || parts[i].span.off - at != len ||
		    memcmp(j->json + at, parts[i].name, len) != 0)
			return false;
		at = end_of(parts[i].span);
	}
	return true;
}

/* --- the parts ---------------------------------------------------------------------- */

static enum cdc_op operation_of(const struct job *j)
{
	switch (j->how) {
	case CDC_MAP_SAME:
		break;
	case CDC_MAP_INSERT:
		return CDC_OP_INSERT;
	case CDC_MAP_DELETE_OLD:
	case CDC_MAP_DELETE_KEY:
		return CDC_OP_DELETE;
	}
	return (enum cdc_op)j->in.rec->op;
}

/* Everything up to the value of `key`, perhaps with another operation. */
static enum cdc_code put_head(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;
	const char *is = cdc_op_name((enum cdc_op)in->op);
	const size_t is_len = strlen(is);
	char head[CDC_ID_TEXT + 32];
	size_t len;

	memcpy(head, "{\"id\":\"", 7);
	len = 7 + cdc_id_format(&in->id, head + 7);
	memcpy(head + len, "\",\"operation\":\"", 15);
	len += 15;
	if (!is_in_order(j) || in->key.off < len + is_len + 1 || memcmp(j->json, head, len) != 0 ||
	    memcmp(j->json + len, is, is_len) != 0 || j->json[len + is_len] != '"')
		return corrupt(j);
	cdc_buf_put(j->out, head, len);
	cdc_buf_puts(j->out, cdc_op_name(operation_of(j)));
	cdc_buf_put(j->out, j->json + len + is_len, in->key.off - len - is_len);
	return CDC_OK;
}

/* Does every column of the key still tell rows apart? */
static enum cdc_code is_key_whole(const struct job *j, bool *ret)
{
	const struct cdc_column_out *column;
	struct cdc_member m;
	struct cdc_scan s;
	size_t at = 0;

	*ret = !is_null(j, j->in.rec->key);
	if (!*ret)
		return CDC_OK;
	begin_scan(j, &s, j->in.rec->key);
	while (cdc_scan_next(&s, &m)) {
		enum cdc_code rc = find(j, m.name, &at, &column);

		if (rc)
			return rc;
		if (column->is_left_out || (column->obfuscate != CDC_OBFUSCATE_NONE &&
					    column->obfuscate != CDC_OBFUSCATE_HASH))
			*ret = false;
	}
	return s.is_bad ? corrupt(j) : CDC_OK;
}

/*
 * An object with the columns that go out.  is_fields: note where they end.  old: values
 * that go in place of those of the same names, all of them; they stand in the same
 * order.  len 0: none.
 */
static enum cdc_code put_object(const struct job *j, struct cdc_span object, bool is_fields,
				struct cdc_span old)
{
	const size_t from = j->out->len;
	const struct cdc_column_out *column;
	struct cdc_member m, other;
	struct cdc_scan s, olds;
	bool has_other = false, is_first = true;
	size_t at = 0;

	if (old.len) {
		begin_scan(j, &olds, old);
		has_other = cdc_scan_next(&olds, &other);
	}
	cdc_buf_putc(j->out, '{');
	begin_scan(j, &s, object);
	while (cdc_scan_next(&s, &m)) {
		struct cdc_span value = m.value;
		enum cdc_code rc = find(j, m.name, &at, &column);

		if (rc)
			return rc;
		if (has_other && other.name.len == m.name.len &&
		    memcmp(j->json + other.name.off, j->json + m.name.off, m.name.len) == 0) {
			value = other.value;
			has_other = cdc_scan_next(&olds, &other);
		}
		if (column->is_left_out)
			continue;
		if (!is_first)
			cdc_buf_putc(j->out, ',');
		is_first = false;
		cdc_buf_put(j->out, column->name, column->name_len);
		cdc_columns_put(j->columns, column, j->json, value, j->out);
		if (is_fields)
			cdc_batch_col(j->batch, j->r, (uint32_t)(j->out->len - from));
	}
	cdc_buf_putc(j->out, '}');
	return s.is_bad || has_other || (old.len && olds.is_bad) ? corrupt(j) : CDC_OK;
}

static enum cdc_code put_key(const struct job *j)
{
	const size_t from = j->out->len;
	const char *table;
	size_t table_len;
	bool is_whole;
	enum cdc_code rc = is_key_whole(j, &is_whole);

	if (!rc && is_whole)
		rc = put_object(j, j->in.rec->key, false, (struct cdc_span){0});
	if (rc)
		return rc;
	if (!is_whole) {
		cdc_buf_puts(j->out, "null");
		j->r->flags |= CDC_RECORD_NO_KEY;
	}
	j->r->key = span_since(j, from);
	if (j->out->failed)
		return CDC_OK; /* shows at the end */
	table = cdc_view_table(j->in, &table_len);
	j->r->key_hash = cdc_key_hash(table, table_len, (const char *)j->out->data + from,
				      is_whole ? j->r->key.len : 0);
	return CDC_OK;
}

static enum cdc_code put_fields(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;
	const struct cdc_span source = j->how == CDC_MAP_DELETE_KEY ? in->key : in->fields;
	const struct cdc_span old =
		j->how == CDC_MAP_DELETE_OLD ? in->changes : (struct cdc_span){0};
	size_t from;
	enum cdc_code rc = CDC_OK;

	cdc_buf_puts(j->out, ",\"fields\":");
	from = j->out->len;
	if (is_null(j, source))
		cdc_buf_puts(j->out, "null");
	else
		rc = put_object(j, source, true, old);
	j->r->fields = span_since(j, from);
	return rc;
}

static enum cdc_code put_changes(const struct job *j)
{
	size_t from;
	enum cdc_code rc;

	cdc_buf_puts(j->out, ",\"changes\":");
	from = j->out->len;
	rc = put_object(j, j->in.rec->changes, false, (struct cdc_span){0});
	j->r->changes = span_since(j, from);
	return rc;
}

/* The names of those that go out; nothing when there is none. */
static enum cdc_code put_unchanged(const struct job *j)
{
	const struct cdc_column_out *column;
	struct cdc_member m;
	struct cdc_scan s;
	size_t from = 0, at = 0;

	begin_scan(j, &s, j->in.rec->unchanged);
	while (cdc_scan_next(&s, &m)) {
		struct cdc_span name = m.value;
		enum cdc_code rc;

		if (name.len < 2 || j->json[name.off] != '"')
			return corrupt(j);
		name.off++;
		name.len -= 2;
		rc = find(j, name, &at, &column);
		if (rc)
			return rc;
		if (column->is_left_out)
			continue;
		if (!from) {
			cdc_buf_puts(j->out, ",\"unchanged\":");
			from = j->out->len;
			cdc_buf_putc(j->out, '[');
		} else {
			cdc_buf_putc(j->out, ',');
		}
		cdc_buf_put(j->out, column->name, column->name_len - 1); /* without its colon */
	}
	if (from) {
		cdc_buf_putc(j->out, ']');
		j->r->unchanged = span_since(j, from);
	}
	return s.is_bad ? corrupt(j) : CDC_OK;
}

/* From `,"position":` on, with the hash of the new fields. */
static enum cdc_code put_tail(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;
	const char *const start = ",\"position\":", *const hash = ",\"hash\":\"";
	uint32_t from = end_of(in->fields), to;
	char digits[HASH_TEXT];
	uint64_t digest;

	if (end_of(in->changes) > from)
		from = end_of(in->changes);
	if (end_of(in->unchanged) > from)
		from = end_of(in->unchanged);
	if (in->json_len < from + strlen(start) + strlen(hash) + HASH_TEXT + 2)
		return corrupt(j);
	to = in->json_len - HASH_TEXT - 2;
	if (memcmp(j->json + from, start, strlen(start)) != 0 ||
	    memcmp(j->json + to - strlen(hash), hash, strlen(hash)) != 0)
		return corrupt(j);
	cdc_buf_put(j->out, j->json + from, to - from);
	if (j->out->failed)
		return CDC_OK;
	digest = XXH3_64bits(j->out->data + j->r->json_off + j->r->fields.off, j->r->fields.len);
	for (size_t i = 0; i < HASH_TEXT; i++)
		digits[i] = "0123456789abcdef"[digest >> (60 - 4 * i) & 15];
	cdc_buf_put(j->out, digits, sizeof(digits));
	cdc_buf_puts(j->out, "\"}");
	return CDC_OK;
}

/* --- descriptions of tables --------------------------------------------------------- */

struct description {
	struct cdc_span name, type, key; /* values */
};

static bool name_is(const struct job *j, struct cdc_span name, const char *want)
{
	return name.len == strlen(want) && memcmp(j->json + name.off, want, name.len) == 0;
}

/* {"name":"id","type":"integer","key":true} */
static bool read_description(const struct job *j, struct cdc_span object, struct description *ret)
{
	struct cdc_member m;
	struct cdc_scan s;

	*ret = (struct description){0};
	begin_scan(j, &s, object);
	while (cdc_scan_next(&s, &m)) {
		if (name_is(j, m.name, "name"))
			ret->name = m.value;
		else if (name_is(j, m.name, "type"))
			ret->type = m.value;
		else if (name_is(j, m.name, "key"))
			ret->key = m.value;
		else
			return false;
	}
	if (s.is_bad || !ret->type.len || !ret->key.len || ret->name.len < 2 ||
	    j->json[ret->name.off] != '"')
		return false;
	ret->name.off++;
	ret->name.len -= 2;
	return true;
}

static void put_description(const struct job *j, const struct description *d,
			    const struct cdc_column_out *column, bool has_key)
{
	const bool is_text =
		column->obfuscate == CDC_OBFUSCATE_HASH || column->obfuscate == CDC_OBFUSCATE_MASK;

	cdc_buf_puts(j->out, "{\"name\":");
	cdc_buf_put(j->out, column->name, column->name_len - 1);
	cdc_buf_puts(j->out, ",\"type\":");
	if (is_text)
		cdc_buf_puts(j->out, "\"text\"");
	else
		cdc_buf_put(j->out, j->json + d->type.off, d->type.len);
	cdc_buf_puts(j->out, ",\"key\":");
	if (has_key)
		cdc_buf_put(j->out, j->json + d->key.off, d->key.len);
	else
		cdc_buf_puts(j->out, "false");
	cdc_buf_putc(j->out, '}');
}

/* A walk over the columns of a description: is the key whole, and with out what goes out. */
static enum cdc_code walk_columns(const struct job *j, struct cdc_span columns, bool is_put,
				  bool *has_key)
{
	const struct cdc_column_out *column;
	struct description d;
	struct cdc_member m;
	struct cdc_scan s;
	bool is_first = true;
	size_t at = 0;

	begin_scan(j, &s, columns);
	while (cdc_scan_next(&s, &m)) {
		enum cdc_code rc = read_description(j, m.value, &d) ? find(j, d.name, &at, &column)
								    : corrupt(j);

		if (rc)
			return rc;
		if (!is_put) {
			if (name_is(j, d.key, "true") &&
			    (column->is_left_out || column->obfuscate > CDC_OBFUSCATE_HASH))
				*has_key = false;
			continue;
		}
		if (column->is_left_out)
			continue;
		if (!is_first)
			cdc_buf_putc(j->out, ',');
		is_first = false;
		put_description(j, &d, column, *has_key);
	}
	return s.is_bad ? corrupt(j) : CDC_OK;
}

static enum cdc_code put_columns(const struct job *j, struct cdc_span columns)
{
	bool has_key = true;
	enum cdc_code rc = walk_columns(j, columns, false, &has_key);

	cdc_buf_putc(j->out, '[');
	if (!rc)
		rc = walk_columns(j, columns, true, &has_key);
	cdc_buf_putc(j->out, ']');
	return rc;
}

/* The `fields` or `changes` of a description. */
static enum cdc_code put_described(const struct job *j, struct cdc_span object, bool is_fields)
{
	const size_t from = j->out->len;
	struct cdc_member m;
	struct cdc_scan s;
	bool is_first = true;

	cdc_buf_putc(j->out, '{');
	begin_scan(j, &s, object);
	while (cdc_scan_next(&s, &m)) {
		enum cdc_code rc = CDC_OK;

		if (!is_first)
			cdc_buf_putc(j->out, ',');
		is_first = false;
		cdc_buf_put(j->out, j->json + m.name.off - 1, m.name.len + 2);
		cdc_buf_putc(j->out, ':');
		if (name_is(j, m.name, "columns"))
			rc = put_columns(j, m.value);
		else
			cdc_buf_put(j->out, j->json + m.value.off, m.value.len);
		if (rc)
			return rc;
		if (is_fields)
			cdc_batch_col(j->batch, j->r, (uint32_t)(j->out->len - from));
	}
	cdc_buf_putc(j->out, '}');
	return s.is_bad ? corrupt(j) : CDC_OK;
}

static enum cdc_code put_schema(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;
	size_t from = j->out->len;
	enum cdc_code rc;

	cdc_buf_puts(j->out, "null");
	j->r->key = span_since(j, from);
	j->r->key_hash = in->key_hash;
	cdc_buf_puts(j->out, ",\"fields\":");
	from = j->out->len;
	rc = put_described(j, in->fields, true);
	j->r->fields = span_since(j, from);
	if (rc || !in->changes.len)
		return rc;
	cdc_buf_puts(j->out, ",\"changes\":");
	from = j->out->len;
	rc = put_described(j, in->changes, false);
	j->r->changes = span_since(j, from);
	return rc;
}

/* --- a whole record ----------------------------------------------------------------- */

static enum cdc_code put_row(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;
	enum cdc_code rc = put_key(j);

	if (!rc)
		rc = put_fields(j);
	if (!rc && in->changes.len && j->how == CDC_MAP_SAME)
		rc = put_changes(j);
	if (!rc && in->unchanged.len && (j->how == CDC_MAP_SAME || j->how == CDC_MAP_INSERT))
		rc = put_unchanged(j);
	return rc;
}

/* As it is: its columns, if it has any, are none of the table's. */
static void put_copy(const struct job *j)
{
	const struct cdc_record *in = j->in.rec;

	cdc_buf_put(j->out, j->json, in->json_len);
	j->r->key = in->key;
	j->r->fields = in->fields;
	j->r->changes = in->changes;
	j->r->unchanged = in->unchanged;
	j->r->key_hash = in->key_hash;
	for (size_t i = 0; i < in->cols; i++)
		cdc_batch_col(j->batch, j->r, j->in.batch->col_ends[in->col_first + i]);
}

static enum cdc_code put_record(const struct job *j)
{
	const bool is_schema = j->in.rec->op == CDC_OP_SCHEMA;
	enum cdc_code rc;

	if (!is_schema && j->in.rec->op > CDC_OP_DELETE && j->in.rec->op != CDC_OP_READ) {
		put_copy(j);
		return CDC_OK;
	}
	rc = put_head(j);
	if (!rc)
		rc = is_schema ? put_schema(j) : put_row(j);
	return rc ? rc : put_tail(j);
}

enum cdc_code cdc_map_record(struct cdc_columns *columns, struct cdc_view record, enum cdc_map how,
			     struct cdc_batch *out, struct cdc_err *err)
{
	const struct cdc_record *in = record.rec;
	const size_t table_n = out->table_n, names_len = out->names.len;
	struct job j = {.columns = columns,
			.in = record,
			.json = cdc_view_json(record),
			.how = how,
			.batch = out,
			.out = &out->json,
			.err = err};
	const char *table;
	size_t table_len;
	uint16_t index;
	enum cdc_code rc;

	table = cdc_view_table(record, &table_len);
	rc = cdc_batch_table(out, table, table_len, &index, err);
	if (!rc)
		rc = cdc_batch_begin(out, &j.r, err);
	if (rc)
		return rc;
	j.r->id = in->id;
	j.r->commit_us = in->commit_us;
	j.r->table = index;
	j.r->flags = in->flags;
	j.r->op = (uint8_t)operation_of(&j);
	rc = put_record(&j);
	if (rc)
		cdc_batch_abort(out);
	else
		rc = cdc_batch_end(out, err);
	if (rc) {
		out->table_n = table_n;
		out->names.len = names_len;
	}
	return rc;
}
