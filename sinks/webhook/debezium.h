/*
 * debezium.h - records as the change events of Debezium's PostgreSQL connector.
 *
 * The envelope is that of its JSON converter without schemas.  What is in it is ours:
 * values as everywhere in walpost (what to_json gives), and the record's id beside
 * the position in `source`, by which a repeat is known.
 *
 * `before` is null unless the log holds the old row (REPLICA IDENTITY FULL); of a record
 * whose key changed it holds what is known of the old row: its key, and what changed.  A
 * value that the log leaves out is "__debezium_unavailable_value".
 *
 * Format: Debezium documentation, PostgreSQL connector, data change events.
 *
 * Threads: pure.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_DEBEZIUM_H
#define SINK_WEBHOOK_DEBEZIUM_H

#include "cdc/base/buf.h"
#include "cdc/record/batch.h"

struct sink_webhook_debezium {
	const char *name, *database; /* of `source`, as JSON texts with their quotes */
	int64_t now_ms;              /* when the event is made */
};

/*
 * Appends the event of a record; a failure of out is sticky.  There is none for a schema or
 * backfill record: CDC_CONFIG.  CDC_CORRUPT: it is not a record.
 */
enum cdc_code sink_webhook_debezium_put(const struct sink_webhook_debezium *d, struct cdc_view view,
					struct cdc_buf *out, struct cdc_err *err) CDC_CHECK;

#endif
