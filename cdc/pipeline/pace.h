/*
 * pace.h - may another request start now?  What the sync's settings allow
 * (rate.h) and what the endpoint bears (throttle.h), together.
 *
 * Threads: pure; a pace belongs to its caller.
 * Layer: pipeline (sinks).
 */
#ifndef CDC_PIPELINE_PACE_H
#define CDC_PIPELINE_PACE_H

#include "cdc/pipeline/rate.h"
#include "cdc/pipeline/throttle.h"
#include "sinks/sink.h"

struct cdc_pace {
	struct cdc_rate requests, records;
	struct cdc_throttle throttle;
	uint64_t free_ms; /* nothing may start before, by the rates */
};

struct cdc_pace_settings {
	uint64_t requests_per_second, records_per_second; /* 0: no limit */
	uint64_t min, max;                                /* requests in flight at once */
};

void cdc_pace_init(struct cdc_pace *p, const struct cdc_pace_settings *s, uint64_t now_ms);

/* With so many in flight: may one more start? */
static inline bool cdc_pace_may_start(const struct cdc_pace *p, size_t in_flight, uint64_t now_ms)
{
	return now_ms >= p->free_ms && in_flight < cdc_throttle_limit(&p->throttle);
}

/* A request of so many records starts. */
void cdc_pace_started(struct cdc_pace *p, size_t records, uint64_t now_ms);

/* One of in_flight ended. */
void cdc_pace_ended(struct cdc_pace *p, const struct sink_result *r, size_t in_flight,
		    uint64_t now_ms);

/* When may_start will say yes if nothing ends before; UINT64_MAX: not by time. */
uint64_t cdc_pace_next_ms(const struct cdc_pace *p, size_t in_flight);

#endif
