/*
 * breaker.h - the circuit breaker of one endpoint.
 *
 * Closed: requests go out as they come.  Open: nothing goes out before until_ms.
 * Half-open: one probe is on its way, and what it says decides.  It opens when
 * nothing was accepted during five failures, or during the 10 s since the first
 * one; every probe that fails opens it again for longer; anything accepted closes it.
 * A refusal whose cause is still being looked for (lanes.h) begins the 10 s and is none
 * of the five: so many in a row are nothing strange where half of the records are refused.
 *
 * Threads: pure; a breaker belongs to its caller.
 * Layer: pipeline (base).
 */
#ifndef CDC_PIPELINE_BREAKER_H
#define CDC_PIPELINE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define CDC_BREAKER_FAILURES 5
#define CDC_BREAKER_MS       10000
#define CDC_RETRY_AFTER_CAP  (24 * 3600 * UINT64_C(1000)) /* an endpoint may ask for no more */

enum cdc_breaker_state { CDC_BREAKER_CLOSED, CDC_BREAKER_OPEN, CDC_BREAKER_HALF_OPEN };

struct cdc_breaker {
	enum cdc_breaker_state state;
	unsigned failures; /* since anything was accepted */
	bool has_begun;    /* first_ms says when */
	uint64_t first_ms; /* of the first failure, or doubt */
	unsigned openings; /* since anything was accepted */
	uint64_t until_ms; /* open: no probe before */
	uint64_t asked_ms; /* as the endpoint asked by Retry-After: no probe before */
};

/* A request was accepted.  Returns whether this closed the breaker. */
bool cdc_breaker_accept(struct cdc_breaker *b);

/* A request failed; retry_after_ms: as asked, or 0; is_probe: it was the probe.
 * Returns whether this opened the breaker (again). */
bool cdc_breaker_fail(struct cdc_breaker *b, bool is_probe, uint64_t retry_after_ms,
		      uint64_t now_ms, uint64_t random);

/* A request was refused, and it is being looked for whose trouble that is. */
void cdc_breaker_doubt(struct cdc_breaker *b, uint64_t now_ms);

/* Time passed.  Returns whether this opened the breaker. */
bool cdc_breaker_tick(struct cdc_breaker *b, uint64_t now_ms, uint64_t random);

/* May a probe go out now? */
bool cdc_breaker_may_probe(const struct cdc_breaker *b, uint64_t now_ms);

/* The probe goes out. */
void cdc_breaker_probe(struct cdc_breaker *b);

/* When tick or may_probe will say something new; UINT64_MAX: not by time. */
uint64_t cdc_breaker_next_ms(const struct cdc_breaker *b);

#endif
