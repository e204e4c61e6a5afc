/*
 * rate.h - so many a second and no more: a bucket that fills with time.
 *
 * What starts takes from the bucket what it costs, also more than is in it: then
 * nothing starts until that is made up for.  So the average is exact whatever the
 * sizes, and a bucket that is full lets no more than a tenth of a second's worth
 * (at least one) out at once.
 *
 * Threads: pure; a rate belongs to its caller.
 * Layer: pipeline (libc only).
 */
#ifndef CDC_PIPELINE_RATE_H
#define CDC_PIPELINE_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define CDC_RATE_MAX UINT64_C(1000000) /* a second */

struct cdc_rate {
	uint64_t per_s; /* 0: no limit */
	int64_t level;  /* in thousandths; below zero: to be made up for */
	uint64_t at_ms; /* when level was that */
};

/* Full at now_ms (monotonic).  per_s: up to CDC_RATE_MAX, or 0. */
void cdc_rate_init(struct cdc_rate *r, uint64_t per_s, uint64_t now_ms);

/* The first moment when something may start; not above now_ms: now. */
uint64_t cdc_rate_next_ms(const struct cdc_rate *r, uint64_t now_ms);

/* Something of this cost starts. */
void cdc_rate_take(struct cdc_rate *r, uint64_t cost, uint64_t now_ms);

#endif
