/*
 * flow.h - may another request start now?  What the sync's settings allow
 * (rate.h) and what the endpoint bears (throttle.h), together.
 *
 * Threads: pure; a flow belongs to its caller.
 * Layer: pipeline (sinks).
 */
#ifndef CDC_PIPELINE_FLOW_H
#define CDC_PIPELINE_FLOW_H

#include "cdc/pipeline/rate.h"
#include "cdc/pipeline/throttle.h"
#include "sinks/sink.h"

struct cdc_flow {
	struct cdc_rate requests, records;
	struct cdc_throttle throttle;
	uint64_t free_ms; /* nothing may start before, by the rates */
};

struct cdc_flow_settings {
	uint64_t requests_per_second, records_per_second; /* 0: no limit */
	uint64_t min, max;                                /* requests in flight at once */
};

void cdc_flow_init(struct cdc_flow *f, const struct cdc_flow_settings *s, uint64_t now_ms);

/* With so many in flight: may one more start? */
static inline bool cdc_flow_may_start(const struct cdc_flow *f, size_t in_flight, uint64_t now_ms)
{
	return now_ms >= f->free_ms && in_flight < cdc_throttle_limit(&f->throttle);
}

/* A request of so many records starts. */
void cdc_flow_started(struct cdc_flow *f, size_t records, uint64_t now_ms);

/* One of in_flight ended. */
void cdc_flow_ended(struct cdc_flow *f, const struct sink_result *r, size_t in_flight,
		    uint64_t now_ms);

/* When may_start will say yes if nothing ends before; UINT64_MAX: not by time. */
uint64_t cdc_flow_next_ms(const struct cdc_flow *f, size_t in_flight);

#endif
