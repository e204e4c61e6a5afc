/*
 * metrics_text.h - everything the threads count, in the Prometheus text format.
 *
 * Names end in _total where they only rise; times are seconds.  Labels: source
 * is the connection's name, slot its replication slot, sync the sync's name.
 *
 * Format: https://prometheus.io/docs/instrumenting/exposition_formats/, text 0.0.4.
 *
 * Threads: any.  Layer: api.
 */
#ifndef CDC_API_METRICS_TEXT_H
#define CDC_API_METRICS_TEXT_H

#include "cdc/api/server.h"
#include "cdc/base/buf.h"

/* Of this process, as the kernel tells it; zero where it does not. */
struct cdc_process {
	uint64_t resident_bytes;
	uint64_t cpu_us; /* user and system */
};
void cdc_process_read(struct cdc_process *ret);

/* Appends the whole page; now_us is the wall time that lags are measured from. */
void cdc_metrics_text(const struct cdc_server_setup *setup, const struct cdc_process *process,
		      int64_t now_us, struct cdc_buf *out);

/* now_us - then_us in microseconds; 0 when then_us is 0 (nothing waits) or lies ahead. */
uint64_t cdc_lag_us(int64_t now_us, uint64_t then_us);
/* Records that were read and are in no request of a lane. */
uint64_t cdc_waiting_records(const struct cdc_sync_metrics *m);
/* Bytes of WAL that the server has sent of and we have not confirmed. */
uint64_t cdc_source_lag_bytes(const struct cdc_source_metrics *m);

#endif
