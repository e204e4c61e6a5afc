/*
 * writer.h - from a row change to a record: the JSON and its offset block.
 *
 * The hot path of capture: one pass over the columns, no allocation per record.
 * JSON keys stand in the fixed order id, operation, schema, key, fields,
 * changes, unchanged, position, commit, truncate, too_large, hash; names and constant parts
 * are escaped once per shape.  Apart from what a json column holds there is no white
 * space.
 *
 * Threads: a shape is constant; a batch belongs to its caller.
 * Layer: record.
 */
#ifndef CDC_RECORD_WRITER_H
#define CDC_RECORD_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/record/batch.h"
#include "cdc/record/type.h"

struct cdc_column {
	const char *name;            /* raw, as PostgreSQL sends it */
	const struct cdc_type *type; /* outlives the shape */
	bool is_key;                 /* part of the record's `key` */
};

/* A table as of some point of the stream. */
struct cdc_shape;

/* schema and table are the raw names; columns (at most 65,535) are copied, not their types.  NULL:
 * heap exhausted. */
struct cdc_shape *cdc_shape_new(const char *schema, const char *table,
				const struct cdc_column *columns, size_t n);
void cdc_shape_free(struct cdc_shape *s);
const char *cdc_shape_name(const struct cdc_shape *s); /* "public.orders" */
size_t cdc_shape_columns(const struct cdc_shape *s);

enum cdc_value_kind {
	CDC_VALUE_NULL,
	CDC_VALUE_TEXT,
	CDC_VALUE_UNCHANGED, /* TOASTed and not in the WAL */
	CDC_VALUE_ABSENT,    /* the old tuple does not carry it */
};

struct cdc_value {
	enum cdc_value_kind kind;
	uint32_t len;
	const char *text; /* not NUL-terminated */
};

struct cdc_change {
	const struct cdc_shape *shape;
	enum cdc_op op; /* insert, update, delete, read; truncate takes no values */
	struct cdc_id
		id; /* part 1 (a truncate: 1...n); a changed key makes this part and the next */
	cdc_lsn position;
	uint32_t xid;                /* 0: null */
	int64_t commit_us;           /* microseconds since 1970; 0: null */
	const struct cdc_value *row; /* NULL: delete, truncate.  As many as the shape has columns */
	const struct cdc_value *old; /* NULL: the WAL carries no old row */
	bool old_is_full; /* every column of old is real (replica identity full), else only the key
			     is */
	bool is_cascade, is_restart_identity; /* what a truncate said */
	size_t max_bytes;   /* of a record's JSON; 0: as many as the batch has room for */
	uint64_t too_large; /* bytes of the content that a stand-in stands for; cdc_write_tail's */
};

/*
 * Appends the record, or both records of a changed key (delete under the old
 * key, update under the new), to the batch.  An unchanged value is taken from
 * the old row where that has it: any column of a full one, the key of another.
 * `key` is null when a key column has no value on the side it is taken from.
 * Of a record with more than max_bytes the batch gets a stand-in, with the same
 * id, operation, table, key, position and flags, and CDC_RECORD_TOO_LARGE: its
 * `fields` is null, and `too_large` says how many bytes its values have as
 * PostgreSQL's text.
 * CDC_LIMIT, CDC_NOMEM: it does not fit in what is left of the batch, nothing
 * was appended.  CDC_PROTO: a value that its type does not allow (a bool that
 * is none, an array that does not parse); the text names table and column,
 * never the value; nothing was appended either.
 */
enum cdc_code cdc_write_change(struct cdc_batch *batch, const struct cdc_change *change,
			       struct cdc_err *err) CDC_CHECK;

/* Appends what every record ends with, from `,"position":` on; of the change only id, position,
 * xid, commit_us, max_bytes and too_large count.  For note.c. */
void cdc_write_tail(struct cdc_buf *out, const struct cdc_record *r, const struct cdc_change *c);

#endif
