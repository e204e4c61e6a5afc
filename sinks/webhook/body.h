/*
 * body.h - the body of a request: records between a head and a tail.
 *
 * Records travel as the bytes they are; only what is around them is made here.
 *
 * Threads: a body belongs to its caller.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_BODY_H
#define SINK_WEBHOOK_BODY_H

#include "cdc/base/buf.h"
#include "sinks/sink.h"
#include "sinks/webhook/webhook.h"

struct sink_webhook_body {
	struct cdc_buf head;
	const char *tail;
};

/* sync_id and sync_name: of the envelope.  CDC_NOMEM. */
enum cdc_code sink_webhook_body_init(struct sink_webhook_body *b, enum sink_webhook_shape shape,
				     const char *sync_id, const char *sync_name,
				     struct cdc_err *err) CDC_CHECK;
void sink_webhook_body_clear(struct sink_webhook_body *b);

/* Appends the body of n records to out.  CDC_LIMIT: it is larger than out may be. */
enum cdc_code sink_webhook_body_write(const struct sink_webhook_body *b,
				      const struct cdc_view *views, size_t n, struct cdc_buf *out,
				      struct cdc_err *err) CDC_CHECK;

#endif
