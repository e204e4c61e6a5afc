/*
 * partial.h - the answer of a receiver that took a part of the records.
 *
 * {"failed": [{"id": ..., "reason": ..., "retry": true | false}]}, in the body of a
 * 2xx answer: the records with these ids were not taken, and none of their keys behind
 * them.  An empty body, or one without a `failed` that holds anything, is the answer
 * to records that were all taken.  Anything else cannot be trusted: then it is unknown
 * what was taken, and the whole request is to be sent again.
 *
 * Threads: a partial belongs to its caller.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_PARTIAL_H
#define SINK_WEBHOOK_PARTIAL_H

#include "sinks/http/http.h"
#include "sinks/sink.h"

/* The ids of a request that is in flight, and what its answer says of them.  Zeroed: none. */
struct sink_webhook_partial {
	struct cdc_id *ids; /* rising or not, as they were sent */
	size_t n, cap;
	struct sink_failed *failed;
	size_t failed_cap;
};

/* Notes the records of a request.  CDC_NOMEM. */
enum cdc_code sink_webhook_partial_note(struct sink_webhook_partial *p, const struct sink_job *job,
					struct cdc_err *err) CDC_CHECK;
/* Reads a 2xx answer, and fills the result: DONE with what failed, which lives until the next note;
 * RETRY or REJECT when there was one record, and it failed; RETRY when the answer is cut, no JSON
 * of this form, or names an id that was not sent. */
void sink_webhook_partial_read(struct sink_webhook_partial *p, const struct sink_http_answer *a,
			       struct sink_result *ret);
void sink_webhook_partial_clear(struct sink_webhook_partial *p);

#endif
