/*
 * parts.h - the members of a record that its offset block does not name.
 *
 * Threads: pure.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_PARTS_H
#define SINK_WEBHOOK_PARTS_H

#include "cdc/record/batch.h"

/* Values as they stand in the record, texts with their quotes; len 0: there is none. */
struct sink_webhook_parts {
	struct cdc_span id, schema, position, commit;
	struct cdc_span xid, time; /* of the commit; may be null */
};

/* CDC_CORRUPT: the record lacks one of them, or is not JSON. */
enum cdc_code sink_webhook_parts_find(struct cdc_view view, struct sink_webhook_parts *ret,
				      struct cdc_err *err) CDC_CHECK;

/* Is the value there, and is it not null? */
bool sink_webhook_parts_has(const char *json, struct cdc_span value);

#endif
