/*
 * writer.h - from a row change to a record: the JSON and its offset block.
 *
 * The hot path of capture: one pass over the columns, no allocation per record.
 * JSON keys stand in the fixed order id, operation, schema, key, fields,
 * changes, unchanged, position, commit, hash; names and constant parts are
 * escaped once per shape.
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

/* schema and table are the raw names; columns are copied (not their types). NULL: heap exhausted. */
struct cdc_shape *cdc_shape_new(const char *schema, const char *table, const struct cdc_column *columns, size_t n);
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
	enum cdc_op op;              /* insert, update, delete, read; truncate takes no values */
	struct cdc_id id;            /* part 1; a changed key makes parts 1 and 2 of it */
	cdc_lsn position;
	uint32_t xid;
	int64_t commit_us;           /* microseconds since 1970 */
	const struct cdc_value *row; /* NULL: delete, truncate.  As many as the shape has columns */
	const struct cdc_value *old; /* NULL: the WAL carries no old row */
	bool old_is_full;            /* every column of old is real (replica identity full), else only the key is */
};

/*
 * Appends the record, or both records of a changed key (delete under the old
 * key, update under the new), to the batch.  Under a full old row, an unchanged
 * value is taken from it.  CDC_LIMIT: it does not fit in what is left of the
 * batch, nothing was appended.  CDC_PROTO: a value that its type does not allow
 * (a json that is not, an array that does not parse); the text names table and
 * column, never the value.
 */
enum cdc_code cdc_write_change(struct cdc_batch *batch, const struct cdc_change *change, struct cdc_err *err) CDC_CHECK;

#endif
