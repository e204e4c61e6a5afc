/*
 * reason.h - what a sync waits for, in one sentence and part by part.
 *
 * Looks from the endpoint back to the source, lane, buffer, copy, slot, and names
 * the first thing that explains why records are not there yet.  Of a sync with
 * records that wait, it then shows the oldest one, and how source, buffer, lanes and
 * endpoint stand.
 *
 * Threads: any.  Layer: api.
 */
#ifndef CDC_API_REASON_H
#define CDC_API_REASON_H

#include "cdc/api/server.h"
#include "cdc/base/buf.h"

/* Appends "orders: the endpoint accepts nothing (...)", and the parts when something waits, one a
 * line.  now_us: wall time. */
void cdc_reason_put(const struct cdc_server_setup *setup, const struct cdc_server_sync *sync,
		    int64_t now_us, struct cdc_buf *out);

#endif
