/*
 * body.h - the body of a request, and what its headers say about it.
 *
 * Where records travel as the bytes they are, only what is around them is made here;
 * other forms of a record are written from its spans.
 *
 * Threads: a body belongs to its caller.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_BODY_H
#define SINK_WEBHOOK_BODY_H

#include "cdc/base/buf.h"
#include "sinks/sink.h"
#include "sinks/webhook/webhook.h"

struct sink_webhook_body_settings {
	const struct sink_webhook_sync *sync;
	const char *sync_id, *sync_name; /* of the envelope */
	const char *database;            /* that the records come from; NULL: not known */
};

struct sink_webhook_body {
	enum sink_webhook_shape shape;
	enum sink_webhook_mode mode; /* CloudEvents */
	struct cdc_buf head;         /* around the records: nothing where one goes alone */
	const char *tail;
	struct cdc_buf name, database; /* Debezium: JSON texts */
	const char *sync_name;         /* the settings' own */
};

/* The settings' texts outlive the body.  CDC_NOMEM. */
enum cdc_code sink_webhook_body_init(struct sink_webhook_body *b,
				     const struct sink_webhook_body_settings *s,
				     struct cdc_err *err) CDC_CHECK;
void sink_webhook_body_clear(struct sink_webhook_body *b);

/*
 * Whether what the keys of a sync ask for goes together (sink_ops.check_sync).
 */
enum cdc_code sink_webhook_body_check(const struct sink_webhook_sync *sync,
				      const struct sink_plan *plan, const char **ret_key,
				      struct cdc_err *err) CDC_CHECK;

/* Appends the body of a job's records to out.  CDC_LIMIT: it is larger than out may be.
 * CDC_CORRUPT: one of them is not a record. */
enum cdc_code sink_webhook_body_write(const struct sink_webhook_body *b, const struct sink_job *job,
				      struct cdc_buf *out, struct cdc_err *err) CDC_CHECK;

/* Appends the header lines that belong to the body, each with its NUL.  The same failures. */
enum cdc_code sink_webhook_body_lines(const struct sink_webhook_body *b, const struct sink_job *job,
				      struct cdc_buf *lines, struct cdc_err *err) CDC_CHECK;

#endif
