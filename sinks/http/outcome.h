/*
 * outcome.h - what an answer over HTTP means for the records of its request.
 *
 * Rules: RFC 9110 section 15 (status codes), 10.2.3 (Retry-After) and 5.6.7 (the
 * three forms of a date).
 *
 * Threads: pure.  Layer: sinks (base).
 */
#ifndef SINK_HTTP_OUTCOME_H
#define SINK_HTTP_OUTCOME_H

#include "sinks/http/http.h"
#include "sinks/sink.h"

/* Fills everything but the ticket.  now_us: wall time, for a Retry-After that is a date. */
void sink_http_outcome(const struct sink_http_answer *a, int64_t now_us, struct sink_result *ret);

/*
 * Milliseconds that a Retry-After asks to wait; SINK_NO_RETRY_AFTER: it is none.
 * A date is measured from the answer's own Date, so that a clock which differs
 * from ours does no harm; from now_us where date is empty or none.  A date that
 * is past is 0.
 */
uint64_t sink_http_retry_after_ms(const char *value, const char *date, int64_t now_us);

#endif
