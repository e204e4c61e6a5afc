/*
 * mapping.h - a record written anew with other columns, or as another operation.
 *
 * What does not depend on the columns is copied byte for byte: id, schema,
 * position, commit.  The rest is made from the spans of the old one: `key`, `fields`,
 * `changes` and `unchanged` with the columns that go out, in their order; `hash` over
 * the new `fields`; the key's hash over the new `key`.  With every column as it is
 * and the same operation, the bytes are the same.
 *
 * A `key` of which a column is left out, masked or made null would be shared by rows
 * that are not the same: then it is null.  A hashed one still tells them apart.
 *
 * Threads: as the columns.
 * Layer: record.
 */
#ifndef CDC_RECORD_MAPPING_H
#define CDC_RECORD_MAPPING_H

#include "cdc/base/err.h"
#include "cdc/record/batch.h"
#include "cdc/record/columns.h"

enum cdc_map {
	CDC_MAP_SAME,       /* the operation that it is */
	CDC_MAP_INSERT,     /* an update whose row was not there for the receiver */
	CDC_MAP_DELETE_OLD, /* an update as the delete of its old row, which it has as a whole */
	CDC_MAP_DELETE_KEY, /* an update as a delete of which only the key is known */
};

/*
 * Appends the record to out.  A record of no row (truncate, message, backfill) is
 * copied; of a `schema` record the columns are mapped, hashed and masked ones as of
 * type text.  CDC_CORRUPT: it is not as the writer makes records; CDC_NOMEM,
 * CDC_LIMIT: it does not fit; CDC_CONFIG as cdc_columns_find.  After a failure out is
 * as it was.
 */
enum cdc_code cdc_map_record(struct cdc_columns *columns, struct cdc_view record, enum cdc_map how,
			     struct cdc_batch *out, struct cdc_err *err) CDC_CHECK;

#endif
