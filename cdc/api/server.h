/*
 * server.h - health, readiness, metrics and status over HTTP.
 *
 *   GET /healthz     200 while every loop turns (heartbeats younger than 30 s)
 *   GET /readyz      200 while the process is able to work; the body tells the truth about every
 *                    source and sync; ?strict makes it 503 unless all of them run
 *   GET /metrics     Prometheus text format
 *   GET /status.txt  one screen for a person
 *
 * Threads: start and stop by main; requests are served on the server's own.
 * Layer: api.
 */
#ifndef CDC_API_SERVER_H
#define CDC_API_SERVER_H

#include "cdc/base/behind.h"
#include "cdc/base/board.h"
#include "cdc/base/log.h"
#include "cdc/base/metrics.h"
#include "cdc/buffer/buffer.h"

/* Arrays owned by main, made before start and constant until stop. */
struct cdc_server_source {
	const char *connection, *slot;
	struct cdc_source_metrics *metrics;
	struct cdc_board *board;
	struct cdc_buffer_metrics *buffer_metrics;
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer;
};

struct cdc_server_sync {
	const char *name, *uuid, *source, *destination;
	const char *caution; /* what is unsafe about the destination's settings; NULL: nothing */
	size_t source_index; /* into sources */
	struct cdc_sync_metrics *metrics;
	struct cdc_board *board;
	struct cdc_behind *behind;
	struct cdc_board *backfill_board; /* NULL: existing rows are not copied */
};

struct cdc_server_setup {
	const char *listen; /* "127.0.0.1:5100", "[::1]:5100"; port 0 takes a free one */
	const struct cdc_server_source *sources;
	size_t source_n;
	const struct cdc_server_sync *syncs;
	size_t sync_n;
	int64_t started_us; /* wall time */
	struct cdc_log log;
};

struct cdc_server;

/* CDC_CONFIG: the address is not one, or taken; the text says which. */
enum cdc_code cdc_server_start(const struct cdc_server_setup *setup, struct cdc_server **ret,
			       struct cdc_err *err) CDC_CHECK;
unsigned cdc_server_port(const struct cdc_server *s);
void cdc_server_stop(struct cdc_server *s); /* NULL is fine */

#endif
