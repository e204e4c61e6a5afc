/*
 * reason.h - in one sentence, what a sync waits for.
 *
 * Looks from the endpoint back to the source, lane, buffer, copy, slot, and names
 * the first thing that explains why records are not there yet.
 *
 * Threads: any.  Layer: api.
 */
#ifndef CDC_API_REASON_H
#define CDC_API_REASON_H

#include "cdc/api/server.h"
#include "cdc/base/buf.h"

/* Appends one line: "orders: the endpoint accepts nothing (...)".  now_us: wall time. */
void cdc_reason_put(const struct cdc_server_setup *setup, const struct cdc_server_sync *sync,
		    int64_t now_us, struct cdc_buf *out);

#endif
