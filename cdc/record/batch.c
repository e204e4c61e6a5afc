#include "cdc/record/batch.h"

#include "cdc/record/key.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TABLES 65535
#define CAP_SLACK  512         /* writers make room for more than they write; end counts */
#define NAMES_MAX  (16u << 20) /* 65,535 names of two identifiers, escaped or not */

/* The packed form; both sides are little endian, as are all machines we build for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "chunks are little endian");
_Static_assert(sizeof(struct cdc_id) == 32, "packed as it lies");
_Static_assert(sizeof(struct cdc_record) == 104, "packed as it lies: no hidden padding");
_Static_assert(sizeof(struct cdc_tx_end) == 32, "packed as it lies");
_Static_assert(sizeof(struct cdc_table_name) == 16, "packed as it lies");

#define PACK_VERSION 1u

struct pack_header {
	uint32_t version;
	uint32_t tables;
	uint64_t records, cols, ends, names, json;
};

const char *cdc_op_name(enum cdc_op op)
{
	static const char *const names[] = {
		[CDC_OP_INSERT] = "insert", [CDC_OP_UPDATE] = "update",
		[CDC_OP_DELETE] = "delete", [CDC_OP_TRUNCATE] = "truncate",
		[CDC_OP_READ] = "read",     [CDC_OP_MESSAGE] = "message",
		[CDC_OP_SCHEMA] = "schema", [CDC_OP_BACKFILL] = "backfill",
	};

	return op < CDC_OP_COUNT ? names[op] : "";
}

/* Grows an array of items of size bytes to hold n; false when the heap is exhausted. */
static bool grow(void **items, size_t *cap, size_t n, size_t size)
{
	size_t want = *cap ? *cap : 16;
	void *grown;

	if (n <= *cap)
		return true;
	while (want < n)
		want *= 2;
	grown = reallocarray(*items, want, size);
	if (!grown)
		return false;
	*items = grown;
	*cap = want;
	return true;
}

struct cdc_batch *cdc_batch_new(size_t max_bytes)
{
	struct cdc_batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	CDC_ASSERT(max_bytes > 0 && max_bytes <= UINT32_MAX);
	b->max_bytes = max_bytes;
	cdc_buf_init(&b->json, max_bytes);
	cdc_buf_init(&b->names, NAMES_MAX);
	return b;
}

void cdc_batch_free(struct cdc_batch *b)
{
	if (!b)
		return;
	cdc_buf_clear(&b->json);
	cdc_buf_clear(&b->names);
	free(b->records);
	free(b->col_ends);
	free(b->tables);
	free(b->ends);
	free(b);
}

void cdc_batch_freep(struct cdc_batch **b)
{
	cdc_batch_free(*b);
}

void cdc_batch_reset(struct cdc_batch *b, size_t keep)
{
	if (b->cap * sizeof(*b->records) > keep) {
		free(b->records);
		b->records = NULL;
		b->cap = 0;
	}
	if (b->col_cap * sizeof(*b->col_ends) > keep) {
		free(b->col_ends);
		b->col_ends = NULL;
		b->col_cap = 0;
	}
	cdc_buf_reset(&b->json, keep);
	cdc_buf_reset(&b->names, keep);
	b->n = b->col_n = b->table_n = b->end_n = 0;
}

size_t cdc_batch_memory(const struct cdc_batch *b)
{
	return sizeof(*b) + b->json.cap + b->names.cap + b->cap * sizeof(*b->records) +
	       b->col_cap * sizeof(*b->col_ends) + b->table_cap * sizeof(*b->tables) +
	       b->end_cap * sizeof(*b->ends);
}

enum cdc_code cdc_batch_table(struct cdc_batch *b, const char *name, size_t len,
			      uint16_t *ret_index, struct cdc_err *err)
{
	uint64_t hash = cdc_table_hash(name, len);
	struct cdc_table_name *t;

	for (size_t i = b->table_n; i-- > 0;) {
		t = &b->tables[i];
		if (t->hash == hash && t->len == len &&
		    memcmp(b->names.data + t->off, name, len) == 0) {
			*ret_index = (uint16_t)i;
			return CDC_OK;
		}
	}
	if (b->table_n == MAX_TABLES || len > NAMES_MAX - b->names.len)
		return cdc_err_set(err, CDC_LIMIT, "a batch holds at most %d tables", MAX_TABLES);
	if (!grow((void **)&b->tables, &b->table_cap, b->table_n + 1, sizeof(*b->tables)) ||
	    !cdc_buf_reserve(&b->names, len ? len : 1))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a table name");
	t = &b->tables[b->table_n];
	*t = (struct cdc_table_name){
		.off = (uint32_t)b->names.len, .len = (uint32_t)len, .hash = hash};
	cdc_buf_put(&b->names, name, len);
	*ret_index = (uint16_t)b->table_n++;
	return CDC_OK;
}

enum cdc_code cdc_batch_begin(struct cdc_batch *b, struct cdc_record **ret_record,
			      struct cdc_err *err)
{
	struct cdc_record *r;

	if (!grow((void **)&b->records, &b->cap, b->n + 1, sizeof(*b->records)))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a record");
	r = &b->records[b->n];
	memset(r, 0, sizeof(*r));
	r->json_off = b->json.len;
	r->col_first = (uint32_t)b->col_n;
	*ret_record = r;
	return CDC_OK;
}

void cdc_batch_col(struct cdc_batch *b, struct cdc_record *r, uint32_t end)
{
	/* Out of memory shows in cdc_batch_end, by the sticky failure of the JSON. */
	if (!grow((void **)&b->col_ends, &b->col_cap, b->col_n + 1, sizeof(*b->col_ends))) {
		cdc_buf_starve(&b->json);
		return;
	}
	b->col_ends[b->col_n++] = end;
	r->cols++;
}

bool cdc_batch_has_room(const struct cdc_batch *b, size_t max_bytes)
{
	const size_t left = b->max_bytes - b->json.len;

	return left > CAP_SLACK && max_bytes <= left - CAP_SLACK;
}

void cdc_batch_cap(struct cdc_batch *b, size_t max_bytes)
{
	b->open_max = max_bytes;
	if (cdc_batch_has_room(b, max_bytes))
		b->json.max = b->json.len + max_bytes + CAP_SLACK;
}

/* The open record is complete, or gone. */
static void uncap(struct cdc_batch *b)
{
	b->json.max = b->max_bytes;
	b->open_max = 0;
}

void cdc_batch_abort(struct cdc_batch *b)
{
	cdc_buf_cut(&b->json, b->records[b->n].json_off);
	b->col_n = b->records[b->n].col_first;
	uncap(b);
}

enum cdc_code cdc_batch_end(struct cdc_batch *b, struct cdc_err *err)
{
	struct cdc_record *r = &b->records[b->n];
	const size_t len = b->json.len - r->json_off;

	if (b->json.no_memory) {
		cdc_batch_abort(b);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a record");
	}
	/* What is allocated may be more than the record is allowed. */
	if (b->json.failed || (b->open_max && len > b->open_max)) {
		cdc_batch_abort(b);
		return cdc_err_set(err, CDC_LIMIT,
				   "a record does not fit into what is left of %zu bytes",
				   b->max_bytes);
	}
	uncap(b);
	r->json_len = (uint32_t)len;
	b->n++;
	return CDC_OK;
}

enum cdc_code cdc_batch_tx_end(struct cdc_batch *b, cdc_lsn commit_lsn, cdc_lsn end_lsn,
			       int64_t commit_us, struct cdc_err *err)
{
	struct cdc_tx_end *last = b->end_n ? &b->ends[b->end_n - 1] : NULL;

	/* Transactions without records follow each other in thousands; the last one says it all. */
	if (!last || last->count != b->n) {
		if (!grow((void **)&b->ends, &b->end_cap, b->end_n + 1, sizeof(*b->ends)))
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a transaction's end");
		last = &b->ends[b->end_n++];
	}
	*last = (struct cdc_tx_end){.count = b->n,
				    .commit_lsn = commit_lsn,
				    .end_lsn = end_lsn,
				    .commit_us = commit_us};
	return CDC_OK;
}

/* Undoes a half-done append. */
static enum cdc_code append_failed(struct cdc_batch *dst, size_t n, size_t cols, size_t json,
				   enum cdc_code code, struct cdc_err *err)
{
	dst->n = n;
	dst->col_n = cols;
	cdc_buf_cut(&dst->json, json);
	return cdc_err_set(err, code,
			   code == CDC_NOMEM ? "out of memory for a batch" : "the batch is full");
}

enum cdc_code cdc_batch_append(struct cdc_batch *dst, const struct cdc_batch *src, size_t from,
			       struct cdc_err *err)
{
	const size_t n = dst->n, cols = dst->col_n, json = dst->json.len;
	const size_t more = src->n - from;
	uint64_t json_from = 0;
	size_t col_from = 0, ends = 0;

	CDC_ASSERT(from <= src->n);
	if (more) {
		json_from = src->records[from].json_off;
		col_from = src->records[from].col_first;
		if (src->json.len - json_from > dst->max_bytes - dst->json.len)
			return append_failed(dst, n, cols, json, CDC_LIMIT, err);
	}
	for (size_t i = 0; i < src->end_n; i++)
		ends += src->ends[i].count >= from;
	if (!grow((void **)&dst->records, &dst->cap, n + more, sizeof(*dst->records)) ||
	    !grow((void **)&dst->col_ends, &dst->col_cap, cols + src->col_n,
		  sizeof(*dst->col_ends)) ||
	    !grow((void **)&dst->ends, &dst->end_cap, dst->end_n + ends, sizeof(*dst->ends)))
		return append_failed(dst, n, cols, json, CDC_NOMEM, err);
	if (more) {
		cdc_buf_put(&dst->json, src->json.data + json_from, src->json.len - json_from);
		if (dst->json.failed)
			return append_failed(dst, n, cols, json, CDC_NOMEM, err);
		if (src->col_n > col_from) /* there may be no array at all */
			memcpy(dst->col_ends + cols, src->col_ends + col_from,
			       (src->col_n - col_from) * sizeof(*dst->col_ends));
		dst->col_n += src->col_n - col_from;
	}
	for (size_t i = from; i < src->n; i++) {
		struct cdc_record *r = &dst->records[n + (i - from)];
		const struct cdc_table_name *t = &src->tables[src->records[i].table];
		enum cdc_code rc;

		*r = src->records[i];
		r->json_off = r->json_off - json_from + json;
		r->col_first = (uint32_t)(r->col_first - col_from + cols);
		rc = cdc_batch_table(dst, (const char *)src->names.data + t->off, t->len, &r->table,
				     err);
		if (rc)
			return append_failed(dst, n, cols, json, rc, err);
	}
	dst->n = n + more;
	for (size_t i = 0; i < src->end_n; i++) {
		if (src->ends[i].count < from)
			continue;
		dst->ends[dst->end_n] = src->ends[i];
		dst->ends[dst->end_n++].count = src->ends[i].count - from + n;
	}
	return CDC_OK;
}

void cdc_batch_pack(const struct cdc_batch *b, struct cdc_buf *out)
{
	const struct pack_header h = {
		.version = PACK_VERSION,
		.tables = (uint32_t)b->table_n,
		.records = b->n,
		.cols = b->col_n,
		.ends = b->end_n,
		.names = b->names.len,
		.json = b->json.len,
	};

	cdc_buf_put(out, &h, sizeof(h));
	cdc_buf_put(out, b->tables, b->table_n * sizeof(*b->tables));
	cdc_buf_put(out, b->ends, b->end_n * sizeof(*b->ends));
	cdc_buf_put(out, b->records, b->n * sizeof(*b->records));
	cdc_buf_put(out, b->col_ends, b->col_n * sizeof(*b->col_ends));
	cdc_buf_put(out, b->names.data, b->names.len);
	cdc_buf_put(out, b->json.data, b->json.len);
}

static bool span_is_in(struct cdc_span s, uint32_t len)
{
	return s.off <= len && s.len <= len - s.off;
}

static bool record_is_sound(const struct cdc_batch *b, const struct cdc_record *r)
{
	uint32_t at = 0;

	if (r->json_off > b->json.len || r->json_len > b->json.len - r->json_off ||
	    r->col_first > b->col_n || r->cols > b->col_n - r->col_first ||
	    r->table >= b->table_n || r->op >= CDC_OP_COUNT || !span_is_in(r->key, r->json_len) ||
	    !span_is_in(r->fields, r->json_len) || !span_is_in(r->changes, r->json_len) ||
	    !span_is_in(r->unchanged, r->json_len))
		return false;
	for (uint16_t i = 0; i < r->cols; i++) {
		uint32_t end = b->col_ends[r->col_first + i];

		if (end < at || end > r->fields.len)
			return false;
		at = end;
	}
	return true;
}

static bool batch_is_sound(const struct cdc_batch *b)
{
	uint64_t count = 0;

	for (size_t i = 0; i < b->table_n; i++) {
		if (b->tables[i].off > b->names.len ||
		    b->tables[i].len > b->names.len - b->tables[i].off)
			return false;
	}
	for (size_t i = 0; i < b->end_n; i++) {
		if (b->ends[i].count < count || b->ends[i].count > b->n)
			return false;
		count = b->ends[i].count;
	}
	for (size_t i = 0; i < b->n; i++) {
		if (!record_is_sound(b, &b->records[i]))
			return false;
	}
	return true;
}

/* Takes n items of size bytes from the bytes that are left; false when they are not there or memory
 * is not. */
static bool take(const uint8_t **at, size_t *left, void **items, size_t *cap, uint64_t n,
		 size_t size)
{
	if (n > *left / size || !grow(items, cap, n, size))
		return false;
	if (n)
		memcpy(*items, *at, n * size);
	*at += n * size;
	*left -= n * size;
	return true;
}

static enum cdc_code unpack_failed(struct cdc_batch *b, enum cdc_code code, struct cdc_err *err)
{
	cdc_batch_reset(b, SIZE_MAX);
	return cdc_err_set(err, code,
			   code == CDC_CORRUPT ? "a chunk is damaged"
					       : "a chunk does not fit in memory");
}

enum cdc_code cdc_batch_unpack(struct cdc_batch *b, const void *bytes, size_t len,
			       struct cdc_err *err)
{
	const uint8_t *at = bytes;
	size_t left = len;
	struct pack_header h;

	CDC_ASSERT(b->n == 0 && b->end_n == 0 && b->table_n == 0);
	if (left < sizeof(h))
		return unpack_failed(b, CDC_CORRUPT, err);
	memcpy(&h, at, sizeof(h));
	at += sizeof(h);
	left -= sizeof(h);
	if (h.version != PACK_VERSION || h.tables > MAX_TABLES || h.names > NAMES_MAX)
		return unpack_failed(b, CDC_CORRUPT, err);
	if (h.json > b->max_bytes)
		return unpack_failed(b, CDC_LIMIT, err);
	if (!take(&at, &left, (void **)&b->tables, &b->table_cap, h.tables, sizeof(*b->tables)) ||
	    !take(&at, &left, (void **)&b->ends, &b->end_cap, h.ends, sizeof(*b->ends)) ||
	    !take(&at, &left, (void **)&b->records, &b->cap, h.records, sizeof(*b->records)) ||
	    !take(&at, &left, (void **)&b->col_ends, &b->col_cap, h.cols, sizeof(*b->col_ends)) ||
	    left < h.names || left - h.names != h.json)
		return unpack_failed(b, CDC_CORRUPT, err);
	b->table_n = h.tables;
	b->end_n = h.ends;
	b->n = h.records;
	b->col_n = h.cols;
	cdc_buf_put(&b->names, at, h.names);
	cdc_buf_put(&b->json, at + h.names, h.json);
	if (b->names.failed || b->json.failed)
		return unpack_failed(b, CDC_NOMEM, err);
	if (!batch_is_sound(b))
		return unpack_failed(b, CDC_CORRUPT, err);
	return CDC_OK;
}
