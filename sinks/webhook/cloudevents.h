/*
 * cloudevents.h - records as CloudEvents 1.0.
 *
 * The event's data is the record itself, byte for byte; its attributes are taken from it:
 * id, type "walpost." and the operation, subject the table, time that of the commit.  source is
 * "/walpost/" and the sync's name.
 *
 * Format: https://github.com/cloudevents/spec, formats/json-format.md and
 * bindings/http-protocol-binding.md, version 1.0.2.
 *
 * Threads: pure.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_CLOUDEVENTS_H
#define SINK_WEBHOOK_CLOUDEVENTS_H

#include "cdc/base/buf.h"
#include "cdc/record/batch.h"

/*
 * Appends the event of a record in the JSON format; a failure of out is sticky.  CDC_CORRUPT: it
 * is not a record.
 */
enum cdc_code sink_webhook_cloudevents_put(const char *sync_name, struct cdc_view view,
					   struct cdc_buf *out, struct cdc_err *err) CDC_CHECK;

/* Appends the header lines of binary mode, each with its NUL; the same failures. */
enum cdc_code sink_webhook_cloudevents_lines(const char *sync_name, struct cdc_view view,
					     struct cdc_buf *lines, struct cdc_err *err) CDC_CHECK;

#endif
