/*
 * batch.h - a run of records in source order, and their offset blocks.
 *
 * A batch owns everything in it: the JSON of its records one behind the other,
 * a fixed-size description of each (where its parts lie), the names of the
 * tables it mentions, and the ends of the transactions that it completes.
 * Passing a batch on means passing the pointer and forgetting it.  It has a
 * hard limit; a record that passes it is CDC_LIMIT and leaves the batch as it
 * was before the record.
 *
 * Building: begin, write JSON into batch->json, end.  The capture thread builds;
 * buffers pack and unpack; the pipeline and the sinks read.
 *
 * A packed batch is what the embedded buffer compresses into a chunk: little
 * endian, a version byte first.  Unpacking trusts nothing: every offset is
 * checked, so a damaged chunk is CDC_CORRUPT and never a wild read.
 *
 * Threads: a batch belongs to one thread at a time; read-only sharing is fine.
 * Layer: record.
 */
#ifndef CDC_RECORD_BATCH_H
#define CDC_RECORD_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/record/id.h"

enum cdc_op {
	CDC_OP_INSERT,
	CDC_OP_UPDATE,
	CDC_OP_DELETE,
	CDC_OP_TRUNCATE,
	CDC_OP_READ,
	CDC_OP_MESSAGE,
	CDC_OP_SCHEMA,
	CDC_OP_BACKFILL,
	CDC_OP_COUNT,
};

const char *cdc_op_name(enum cdc_op op); /* "insert" */

enum {
	CDC_RECORD_BARRIER =
		1, /* truncate, schema, message, backfill, changed identity: alone in its table */
	CDC_RECORD_MOVE_OLD =
		2, /* the delete under the old key; its other half is the next record */
	CDC_RECORD_MOVE_NEW =
		4, /* the update under the new key; its other half is the record before */
	CDC_RECORD_NO_KEY = 8, /* key is null */
	CDC_RECORD_OLD_ROW =
		16, /* an update whose old row was in the log as a whole, not its key alone */
	CDC_RECORD_TOO_LARGE =
		32, /* stands in for a record above the limit: `fields` is null, and there is
		       `too_large` {"bytes", "max_bytes"}; never sent, always a dead letter */
};

/* Where a value lies in its record's JSON; len 0: the key is absent. */
struct cdc_span {
	uint32_t off, len; /* bytes from the start of the record */
};

struct cdc_record {
	struct cdc_id id;
	uint64_t key_hash; /* XXH3-64 of the table name, a NUL, and the bytes of `key`; of name and
			      NUL alone when the key is null */
	int64_t commit_us; /* commit time, microseconds since 1970; 0 unknown */
	uint64_t json_off; /* into batch->json */
	uint32_t json_len;
	uint32_t col_first; /* index into batch->col_ends */
	uint16_t cols;      /* members of `fields` */
	uint16_t table;     /* index into batch->tables */
	uint8_t op;         /* enum cdc_op */
	uint8_t flags;      /* CDC_RECORD_* */
	uint16_t pad;
	struct cdc_span key, fields, changes,
		unchanged; /* values with their braces; null counts as a value */
};

/* A transaction whose last record is records[count - 1]; count may repeat or be 0 (nothing
 * selected). */
struct cdc_tx_end {
	uint64_t count;
	cdc_lsn commit_lsn, end_lsn;
	int64_t commit_us;
};

struct cdc_table_name {
	uint32_t off, len; /* into batch->names; "public.orders", not NUL-terminated */
	uint64_t hash;     /* XXH3-64 of the name */
};

struct cdc_batch {
	struct cdc_buf json;
	struct cdc_record *records;
	size_t n, cap;
	uint32_t *col_ends; /* end of the i-th member's value, bytes from the start of `fields` */
	size_t col_n, col_cap;
	struct cdc_table_name *tables;
	size_t table_n, table_cap;
	struct cdc_buf names;
	struct cdc_tx_end *ends; /* in order */
	size_t end_n, end_cap;
	size_t max_bytes; /* JSON */
	size_t open_max;  /* of the open record's JSON; 0: what is left of max_bytes */
};

/* max_bytes: most JSON bytes in it, 1 to 4 GiB - 1. NULL when the heap is exhausted. */
struct cdc_batch *cdc_batch_new(size_t max_bytes);
void cdc_batch_free(struct cdc_batch *b);
void cdc_batch_freep(struct cdc_batch **b); /* for CDC_AUTO */

/* Empties it; keeps allocations of up to keep bytes of JSON (and their likes). */
void cdc_batch_reset(struct cdc_batch *b, size_t keep);

/* The bytes it occupies in memory, about. */
size_t cdc_batch_memory(const struct cdc_batch *b);

/* Index of a table name in the batch, added when new (at most 65,535); CDC_LIMIT or CDC_NOMEM. */
enum cdc_code cdc_batch_table(struct cdc_batch *b, const char *name, size_t len,
			      uint16_t *ret_index, struct cdc_err *err) CDC_CHECK;

/*
 * Begins a record: *ret_record is zeroed but for json_off and col_first, and
 * valid until the next call on the batch.  The caller appends the JSON to
 * b->json, fills the fields, and calls end or abort; only one may be open.
 */
enum cdc_code cdc_batch_begin(struct cdc_batch *b, struct cdc_record **ret_record,
			      struct cdc_err *err) CDC_CHECK;
/* Is there room for a record of so many bytes, whatever is in it? */
bool cdc_batch_has_room(const struct cdc_batch *b, size_t max_bytes);
/* The record that was just begun may have at most so many bytes of JSON (1 or more); end refuses
 * what has more. */
void cdc_batch_cap(struct cdc_batch *b, size_t max_bytes);
/* Notes where the value of the next member of `fields` ends, in bytes from the start of `fields`.
 */
void cdc_batch_col(struct cdc_batch *b, struct cdc_record *r, uint32_t end);
/* Sets json_len; CDC_LIMIT (the bytes did not fit) or CDC_NOMEM: the record is gone. */
enum cdc_code cdc_batch_end(struct cdc_batch *b, struct cdc_err *err) CDC_CHECK;
void cdc_batch_abort(struct cdc_batch *b);

/* Notes that the transaction of all records so far is complete. */
enum cdc_code cdc_batch_tx_end(struct cdc_batch *b, cdc_lsn commit_lsn, cdc_lsn end_lsn,
			       int64_t commit_us, struct cdc_err *err) CDC_CHECK;

/* Is the last record part of a transaction that is still open? */
static inline bool cdc_batch_is_open(const struct cdc_batch *b)
{
	return b->n != 0 && (b->end_n == 0 || b->ends[b->end_n - 1].count < b->n);
}

/* Appends records [from, n) of src and every transaction end behind from to dst (CDC_LIMIT: dst is
 * unchanged). */
enum cdc_code cdc_batch_append(struct cdc_batch *dst, const struct cdc_batch *src, size_t from,
			       struct cdc_err *err) CDC_CHECK;

/* Appends the packed form to out, whose failure is sticky (cdc_buf). */
void cdc_batch_pack(const struct cdc_batch *b, struct cdc_buf *out);

/* Fills an empty batch from the packed form; CDC_CORRUPT, CDC_LIMIT or CDC_NOMEM leave it empty. */
enum cdc_code cdc_batch_unpack(struct cdc_batch *b, const void *bytes, size_t len,
			       struct cdc_err *err) CDC_CHECK;

/* A record where it lies: what delivery and sinks pass around.  Valid while its batch is. */
struct cdc_view {
	const struct cdc_record *rec;
	const struct cdc_batch *batch;
};

static inline const char *cdc_view_json(struct cdc_view v)
{
	return (const char *)v.batch->json.data + v.rec->json_off;
}

static inline const char *cdc_view_table(struct cdc_view v, size_t *ret_len)
{
	const struct cdc_table_name *t = &v.batch->tables[v.rec->table];

	*ret_len = t->len;
	return (const char *)v.batch->names.data + t->off;
}

#endif
