/*
 * auth.h - how a webhook's requests show who they are from: its url and headers.
 *
 * Threads: pure.  Layer: sinks (base).
 */
#ifndef SINK_WEBHOOK_AUTH_H
#define SINK_WEBHOOK_AUTH_H

#include "cdc/base/buf.h"
#include "sinks/http/network.h"
#include "sinks/webhook/webhook.h"

/* Holds secrets. */
struct sink_webhook_auth_parts {
	char *url;
	char *base;     /* the part of it that is the same for every record, parameters included */
	bool has_path;  /* the base is without some of the path */
	char **headers; /* "Name: value" */
	size_t header_n, header_cap;
	char **templates; /* the same, of those that records fill in: template.h */
	size_t template_n, template_cap;
	bool has_token; /* Authorization comes with each request: token.h */
};

/* CDC_CONFIG: a setting that cannot be sent; the text names it and never its value. */
enum cdc_code sink_webhook_auth_make(const struct sink_webhook_connection *c,
				     struct sink_webhook_auth_parts *ret,
				     struct cdc_err *err) CDC_CHECK;
/*
 * Whether auth_method has the settings that it needs, no other method has any, all
 * of it can be sent, and proxy and networks are such; as sink_ops.check, for a webhook
 * whose connection is c.
 */
enum cdc_code sink_webhook_auth_check(const void *c, const char **ret_key,
				      struct cdc_err *err) CDC_CHECK;
/* Appends "Basic " and the credentials of RFC 7617. */
void sink_webhook_auth_basic(struct cdc_buf *out, const char *user, const char *password);
/* Appends the text as it may stand in a query or a form. */
void sink_webhook_auth_encode(struct cdc_buf *out, const char *text);
/* Where the connection's requests may go.  CDC_CONFIG. */
enum cdc_code sink_webhook_auth_networks(const struct sink_webhook_connection *c,
					 struct sink_http_networks *ret,
					 struct cdc_err *err) CDC_CHECK;
void sink_webhook_auth_clear(struct sink_webhook_auth_parts *a); /* overwrites them first */

#endif
