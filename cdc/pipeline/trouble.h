/*
 * trouble.h - is it the endpoint, or this one record?
 *
 * A refused record proves nothing while nothing else is accepted: the endpoint
 * may be down, whatever status it answers.  It is the record's own trouble when a
 * request with this record alone failed, the endpoint then accepted another
 * request that began after that failure, and the record alone failed again.
 * What may heal by itself (5xx, time-outs) needs park.attempts (8) such failures over
 * park.after (10 min); what is never about a record (401, 403, 407, 429, 3xx) never counts.
 * Under `order: sync` nothing later may be sent to compare with: there a record that
 * is refused for park.after, with no other kind of failure in between, is in trouble.
 *
 * Instants of requests are numbers of one counter of the engine, not of a clock:
 * "began after" is a comparison of two of them.
 *
 * Threads: pure.
 * Layer: pipeline (base, sinks).
 */
#ifndef CDC_PIPELINE_TROUBLE_H
#define CDC_PIPELINE_TROUBLE_H

#include <stdbool.h>
#include <stdint.h>

#include "sinks/sink.h"

/* Failures of the record at the head of a lane, sent alone.  Zeroed: none. */
struct cdc_suspect {
	unsigned failures;  /* each but the first had an accepted request between it and the one
			       before */
	uint64_t failed_at; /* counter at the last of them */
	uint64_t first_ms;
};

struct cdc_suspect_rule {
	uint64_t at;             /* the counter now */
	uint64_t accepted_begun; /* and at the beginning of the latest request that was accepted;
				    0: none */
	bool is_order_sync;
	unsigned attempts; /* so many failures of what may heal by itself */
	uint64_t after_ms; /* over so long a time; under `order: sync` of any */
	uint64_t now_ms;
};

/* Notes that the record alone failed with result.  Returns whether this is the record's own
 * trouble. */
bool cdc_suspect_fail(struct cdc_suspect *s, const struct sink_result *result,
		      const struct cdc_suspect_rule *rule);

#endif
