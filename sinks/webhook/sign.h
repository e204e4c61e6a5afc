/*
 * sign.h - what a request says about itself: its id, its time, its signatures.
 *
 * Standard Webhooks: the headers webhook-id, webhook-timestamp and
 * webhook-signature.  What is signed is ID.TIMESTAMP.PAYLOAD, with every live secret:
 * HMAC-SHA-256 (v1) under whsec_..., ed25519 (v1a) under whsk_....
 *
 * The id is made from the ids of the records that the request carries, so it is the same
 * if and only if the records are: "msg_" and the first 32 hex digits of the SHA-256 of
 * the ids as text, each followed by a line end.
 *
 * Format: https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
 *
 * Threads: a sink_webhook_sign belongs to its caller.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_SIGN_H
#define SINK_WEBHOOK_SIGN_H

#include "cdc/base/buf.h"
#include "cdc/base/opt.h"
#include "cdc/record/batch.h"

#define SINK_WEBHOOK_SECRETS  8        /* live at the same time */
#define SINK_WEBHOOK_ID_BYTES (4 + 32) /* of an id, without a NUL */

struct sink_webhook_sign;

/* CDC_CONFIG: secrets that are none, or too many; the text says which and never shows one.
 * CDC_NOMEM. */
enum cdc_code sink_webhook_sign_new(const struct cdc_opt_strs *secrets,
				    struct sink_webhook_sign **ret, struct cdc_err *err) CDC_CHECK;
void sink_webhook_sign_free(struct sink_webhook_sign *s); /* NULL is fine */

/* Are there secrets to sign with? */
bool sink_webhook_sign_is_on(const struct sink_webhook_sign *s);

/* The id of a request with these records. */
enum cdc_code sink_webhook_sign_id(struct sink_webhook_sign *s, const struct cdc_view *views,
				   size_t n, char ret_id[SINK_WEBHOOK_ID_BYTES],
				   struct cdc_err *err) CDC_CHECK;

/* Appends the line of webhook-signature with its NUL; message is ID.TIMESTAMP.PAYLOAD. */
enum cdc_code sink_webhook_sign_put(struct sink_webhook_sign *s, const void *message, size_t n,
				    struct cdc_buf *lines, struct cdc_err *err) CDC_CHECK;

#define SINK_WEBHOOK_SECRET_TEXT 96
/*
 * A new secret: "whsec_..." or, for ed25519, "whsk_..." and its public key "whpk_..." (else an
 * empty text).  The caller wipes them.  CDC_IO: no random bytes.
 */
enum cdc_code sink_webhook_secret_new(bool is_ed25519, char ret_secret[SINK_WEBHOOK_SECRET_TEXT],
				      char ret_public[SINK_WEBHOOK_SECRET_TEXT],
				      struct cdc_err *err) CDC_CHECK;

#endif
