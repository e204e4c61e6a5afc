/*
 * health.h - whether the loops turn, and what each source and sync does, as JSON.
 *
 * healthz: ok unless a loop that should turn has not turned for 30 s; a loop
 * that failed or ended turns no more by right.  Its warnings name the slots for
 * which the server keeps 50, 70 or 90 % of the WAL budget.  readyz: the process serves, so it
 * is ready; the body tells the truth about every source and sync, and a strict
 * question is answered with no unless all of them run.
 *
 * Threads: any.  Layer: api.
 */
#ifndef CDC_API_HEALTH_H
#define CDC_API_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "cdc/api/server.h"
#include "cdc/base/buf.h"

#define CDC_HEARTBEAT_MAX_MS 30000 /* the longest a loop takes for one turn, several times over */

/*
 * Both append a JSON object and return the HTTP status, 200 or 503 (500: no
 * memory).  now_ms and started_ms are monotonic; a loop that has not turned yet
 * counts from the start.
 */
unsigned cdc_health_json(const struct cdc_server_setup *setup, uint64_t started_ms, uint64_t now_ms,
			 struct cdc_buf *out);
unsigned cdc_ready_json(const struct cdc_server_setup *setup, bool is_strict, struct cdc_buf *out);

/* {"error": {"status": ..., "message": ...}} */
unsigned cdc_error_json(unsigned status, const char *message, struct cdc_buf *out);

#endif
