/*
 * attempt.h - what was sent and what was answered, as a person may see it.
 *
 * Of the url, user and password and every value of the query are masked; of the
 * headers, every value but of those that walpost makes itself (their signatures
 * included: they prove one request and sign no other).  Whatever the endpoint says
 * is searched for the connection's secrets, which an endpoint that echoes requests
 * would show.  The body is kept as it was before it was compressed.  The same secrets are
 * covered in what else is kept of a failure: in reasons, and in the answers of dead letters.
 *
 * Threads: belongs to its caller.  Layer: sinks (base).
 */
#ifndef SINK_WEBHOOK_ATTEMPT_H
#define SINK_WEBHOOK_ATTEMPT_H

#include "sinks/http/http.h"
#include "sinks/sink.h"
#include "sinks/webhook/webhook.h"

struct sink_webhook_attempts;

/* For requests of so many slots, 0: only to cover; the connection's secrets are copied.
 * CDC_NOMEM. */
enum cdc_code sink_webhook_attempts_new(const struct sink_webhook_connection *c, size_t slots,
					struct sink_webhook_attempts **ret,
					struct cdc_err *err) CDC_CHECK;
void sink_webhook_attempts_free(struct sink_webhook_attempts *a); /* NULL is fine */

/* A token that requests carry from now on. */
void sink_webhook_attempts_token(struct sink_webhook_attempts *a, const char *token);

/* A request of the slot: its records, and its body of len bytes. */
void sink_webhook_attempts_sent(struct sink_webhook_attempts *a, size_t slot, size_t records,
				const void *body, size_t len);

/* Its answer; valid until the slot's next request.  NULL: no memory. */
const struct sink_attempt *sink_webhook_attempts_take(struct sink_webhook_attempts *a,
						      struct sink_http *http,
						      const struct sink_http_answer *answer);

/* Overwrites the secrets in a text, and in an answer's body. */
void sink_webhook_attempts_cover(const struct sink_webhook_attempts *a, char *text);
void sink_webhook_attempts_cover_answer(const struct sink_webhook_attempts *a,
					struct sink_http *http,
					const struct sink_http_answer *answer);

#endif
