/*
 * token.h - an access token by OAuth's client credentials: when to ask, what to
 * send, what the answer means.
 *
 * A token is asked for when there is none, when the endpoint does not take it any
 * more, and ahead of its end, so that requests need not wait for the next one.
 *
 * Rules: RFC 6749 sections 2.3.1 (how a client shows who it is), 4.4 (the grant),
 * 5.1 and 5.2 (answers); RFC 6750 section 2.1 (the characters of a token).
 *
 * Threads: a token belongs to its caller.  Layer: sinks (base).
 */
#ifndef SINK_WEBHOOK_TOKEN_H
#define SINK_WEBHOOK_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "sinks/http/http.h"
#include "sinks/webhook/webhook.h"

#define SINK_WEBHOOK_TOKEN_MAX 16384 /* bytes */

struct sink_webhook_token;

/* From the connection's oauth section.  CDC_CONFIG: it cannot be sent; the text names the setting
 * and never a value. */
enum cdc_code sink_webhook_token_new(const struct sink_webhook_connection *c,
				     struct sink_webhook_token **ret,
				     struct cdc_err *err) CDC_CHECK;
void sink_webhook_token_free(struct sink_webhook_token *t); /* NULL is fine */

/* The request: "Name: value" lines (n in *ret_n), and the body.  They hold secrets. */
const char *const *sink_webhook_token_headers(const struct sink_webhook_token *t, size_t *ret_n);
const char *sink_webhook_token_body(const struct sink_webhook_token *t);

/* The token, or NULL: there is none that is good at now_ms (monotonic). */
const char *sink_webhook_token_value(const struct sink_webhook_token *t, uint64_t now_ms);

/* The last one that was had, however long ago. */
const char *sink_webhook_token_last(const struct sink_webhook_token *t);

/* Is it time to ask?  Never while it is being asked. */
bool sink_webhook_token_is_due(const struct sink_webhook_token *t, uint64_t now_ms);
/* The request was sent. */
void sink_webhook_token_asked(struct sink_webhook_token *t);
/* Its answer.  True: there is a new token.  False: *ret_why has the reason, and the Retry-After, as
 * those that wait may be told. */
bool sink_webhook_token_take(struct sink_webhook_token *t, const struct sink_http_answer *a,
			     struct sink_http_answer *ret_why, uint64_t now_ms);
/* The endpoint refused the number-th token that was had: if it is the last one, it is good no more.
 */
void sink_webhook_token_refused(struct sink_webhook_token *t, unsigned number);

#endif
