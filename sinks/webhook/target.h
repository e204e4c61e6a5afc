/*
 * target.h - where a record goes, and by which method: what of a request's url, method
 * and headers depends on the record.
 *
 * Records go together in a request only when all of it is the same for them.
 *
 * Threads: belongs to its caller.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_TARGET_H
#define SINK_WEBHOOK_TARGET_H

#include "sinks/sink.h"
#include "sinks/webhook/auth.h"
#include "sinks/webhook/webhook.h"

struct sink_webhook_target;

/* *ret NULL: every record goes to the same place by POST.  CDC_CONFIG: err says which template is
 * wrong, and never shows it. */
enum cdc_code sink_webhook_target_new(const struct sink_webhook_connection *c,
				      const struct sink_webhook_auth_parts *a,
				      struct sink_webhook_target **ret,
				      struct cdc_err *err) CDC_CHECK;
void sink_webhook_target_free(struct sink_webhook_target *t); /* NULL is fine */

/* Whether it can be made, as sink_ops.check; *ret_key as it was when it can. */
enum cdc_code sink_webhook_target_check(const struct sink_webhook_connection *c,
					const struct sink_webhook_auth_parts *a,
					const char **ret_key, struct cdc_err *err) CDC_CHECK;
/* Whether the records of a sync have what it needs, as sink_ops.check_sync. */
enum cdc_code sink_webhook_target_check_sync(const struct sink_webhook_connection *c,
					     const struct sink_plan *plan, const char **ret_key,
					     struct cdc_err *err) CDC_CHECK;

/* How many of these records go to where the first one goes: 1...n, as sink_ops.together. */
size_t sink_webhook_target_together(struct sink_webhook_target *t, const struct cdc_view *views,
				    size_t n);

/*
 * Where a record goes: *ret_url NULL: to the url of all; it is valid until the next call.
 * *ret_method NULL: POST; it is constant.  Appends the header lines, each with its
 * NUL.  CDC_LIMIT as sink_webhook_template_put.
 */
enum cdc_code sink_webhook_target_put(struct sink_webhook_target *t, struct cdc_view view,
				      const char **ret_url, const char **ret_method,
				      struct cdc_buf *lines, struct cdc_err *err) CDC_CHECK;

#endif
