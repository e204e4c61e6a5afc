/*
 * throttle.h - how many requests an endpoint bears at once.
 *
 * Additive increase, multiplicative decrease, as TCP does it.  The limit rises by
 * one per round of accepted requests while it is used up (at first by one per
 * request, until the first sign of too much).  It falls when the endpoint says so
 * (429, 503, 504), does not answer at all, or answers ever more slowly: then requests
 * queue there, and more of them would only wait.  Slowness is measured against the
 * pace at which it answers when it is not pressed; that is looked at anew where the
 * limit cannot fall further.  One burst of bad answers is one fall: those of requests
 * begun before the last fall count for nothing.
 *
 * Threads: pure; a throttle belongs to its caller.
 * Layer: pipeline (libc only).
 */
#ifndef CDC_PIPELINE_THROTTLE_H
#define CDC_PIPELINE_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

enum cdc_throttle_sign {
	CDC_THROTTLE_GOOD,    /* accepted */
	CDC_THROTTLE_NEUTRAL, /* says nothing about load: refused for what it is */
	CDC_THROTTLE_PRESSED, /* 429, 503, 504, no answer */
};

struct cdc_throttle {
	unsigned min, max;
	double limit;       /* between them */
	double base_us;     /* how long an answer takes when nothing queues; 0: not known yet */
	double recent_us;   /* how long it took lately */
	uint64_t fallen_us; /* the last fall */
	bool has_fallen;    /* since the beginning */
};

/* min 0 or not below max: the limit is always max. */
void cdc_throttle_init(struct cdc_throttle *t, unsigned min, unsigned max);

/* Requests that may be in flight at once, min to max. */
unsigned cdc_throttle_limit(const struct cdc_throttle *t);

/*
 * A request ended at now_us (monotonic), took_us after its beginning; in_flight: how
 * many there were with it.
 */
void cdc_throttle_note(struct cdc_throttle *t, enum cdc_throttle_sign sign, unsigned in_flight,
		       uint64_t took_us, uint64_t now_us);

#endif
