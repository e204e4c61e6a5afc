#include "sinks/webhook/sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/base64.h"
#include "cdc/base/crypto.h"

#define HMAC_MIN   24 /* bytes of a symmetric secret: the standard's bounds */
#define HMAC_MAX   64
#define HMAC_NEW   32
#define IDS_MAX    (16u << 20) /* the ids of 250,000 records */
#define SYMMETRIC  "whsec_"
#define PRIVATE    "whsk_"
#define PUBLIC     "whpk_"
#define SEED_BYTES CDC_ED25519_KEY_BYTES

struct signer {
	struct cdc_signer *key;
	const char *version; /* "v1," or "v1a," */
};

struct sink_webhook_sign {
	struct cdc_hasher *hasher;
	struct cdc_buf ids;
	struct signer signers[SINK_WEBHOOK_SECRETS];
	size_t n;
};

/* --- secrets ------------------------------------------------------------------------ */

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* An ed25519 key is its seed, or the seed and the public key behind it. */
static enum cdc_code take_private(size_t at, const uint8_t *bytes, size_t n,
				  struct sink_webhook_sign *s, struct cdc_err *err)
{
	uint8_t public[CDC_ED25519_KEY_BYTES];
	enum cdc_code rc = CDC_OK;

	if (n != SEED_BYTES && n != SEED_BYTES + sizeof(public))
		return cdc_err_set(err, CDC_CONFIG,
				   "signing_secrets[%zu]: an ed25519 key has 32 bytes, or 64 with "
				   "its public key behind it; this one has %zu",
				   at, n);
	if (n > SEED_BYTES) {
		rc = cdc_ed25519_public(bytes, public, err);
		if (!rc && memcmp(public, bytes + SEED_BYTES, sizeof(public)) != 0)
			rc = cdc_err_set(err, CDC_CONFIG,
					 "signing_secrets[%zu]: its two halves are not a private "
					 "key and the public key of it",
					 at);
	}
	s->signers[s->n].version = "v1a,";
	return rc ? rc : cdc_signer_ed25519(bytes, &s->signers[s->n].key, err);
}

static enum cdc_code take_symmetric(size_t at, const uint8_t *bytes, size_t n,
				    struct sink_webhook_sign *s, struct cdc_err *err)
{
	if (n < HMAC_MIN || n > HMAC_MAX)
		return cdc_err_set(err, CDC_CONFIG,
				   "signing_secrets[%zu] stands for %zu bytes (allowed: %d to %d); "
				   "`walpost webhook-secret` makes one",
				   at, n, HMAC_MIN, HMAC_MAX);
	s->signers[s->n].version = "v1,";
	return cdc_signer_hmac(bytes, n, &s->signers[s->n].key, err);
}

static enum cdc_code take_secret(size_t at, const char *text, struct sink_webhook_sign *s,
				 struct cdc_err *err)
{
	bool is_private = begins(text, PRIVATE);
	const char *digits = text + strlen(is_private ? PRIVATE : SYMMETRIC);
	uint8_t bytes[HMAC_MAX + 1]; /* one more, so that too many are seen */
	enum cdc_code rc;
	size_t n;

	if (begins(text, PUBLIC))
		return cdc_err_set(err, CDC_CONFIG,
				   "signing_secrets[%zu] is a public key, which is for the "
				   "receiver; the private one begins with " PRIVATE,
				   at);
	if (!is_private && !begins(text, SYMMETRIC))
		return cdc_err_set(err, CDC_CONFIG,
				   "signing_secrets[%zu] begins neither with " SYMMETRIC
				   " nor with " PRIVATE "; `walpost webhook-secret` makes one",
				   at);
	if (!cdc_base64_take(digits, strlen(digits), bytes, sizeof(bytes), &n)) {
		cdc_wipe(bytes, sizeof(bytes));
		return cdc_err_set(err, CDC_CONFIG,
				   "signing_secrets[%zu]: what follows its prefix is not base64 of "
				   "at most %d bytes",
				   at, HMAC_MAX);
	}
	rc = is_private ? take_private(at, bytes, n, s, err) : take_symmetric(at, bytes, n, s, err);
	cdc_wipe(bytes, sizeof(bytes));
	if (!rc)
		s->n++;
	return rc;
}

enum cdc_code sink_webhook_sign_new(const struct cdc_opt_strs *secrets,
				    struct sink_webhook_sign **ret, struct cdc_err *err)
{
	struct sink_webhook_sign *s;
	enum cdc_code rc;

	if (secrets->n > SINK_WEBHOOK_SECRETS)
		return cdc_err_set(err, CDC_CONFIG,
				   "signing_secrets has %zu entries (allowed: up to %d)",
				   secrets->n, SINK_WEBHOOK_SECRETS);
	s = calloc(1, sizeof(*s));
	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	cdc_buf_init(&s->ids, IDS_MAX);
	rc = cdc_hasher_new(&s->hasher, err);
	for (size_t i = 0; !rc && i < secrets->n; i++)
		rc = take_secret(i, secrets->items[i], s, err);
	if (rc) {
		sink_webhook_sign_free(s);
		return rc;
	}
	*ret = s;
	return CDC_OK;
}

void sink_webhook_sign_free(struct sink_webhook_sign *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		cdc_signer_free(s->signers[i].key);
	cdc_hasher_free(s->hasher);
	cdc_buf_clear(&s->ids);
	free(s);
}

bool sink_webhook_sign_is_on(const struct sink_webhook_sign *s)
{
	return s->n > 0;
}

static void put_base64(const char *prefix, const uint8_t *bytes, size_t n,
		       char ret_text[SINK_WEBHOOK_SECRET_TEXT])
{
	uint8_t text[SINK_WEBHOOK_SECRET_TEXT];
	struct cdc_buf b = {.data = text, .cap = sizeof(text), .max = sizeof(text)};

	cdc_buf_puts(&b, prefix);
	cdc_base64_put(&b, bytes, n);
	cdc_buf_putc(&b, '\0');
	CDC_ASSERT(!b.failed);
	memcpy(ret_text, text, b.len);
	cdc_wipe(text, sizeof(text));
}

enum cdc_code sink_webhook_secret_new(bool is_ed25519, char ret_secret[SINK_WEBHOOK_SECRET_TEXT],
				      char ret_public[SINK_WEBHOOK_SECRET_TEXT],
				      struct cdc_err *err)
{
	uint8_t bytes[HMAC_NEW], public[CDC_ED25519_KEY_BYTES];
	enum cdc_code rc = cdc_random(bytes, sizeof(bytes), err);

	_Static_assert(HMAC_NEW == SEED_BYTES, "one buffer serves both");
	ret_public[0] = '\0';
	if (!rc && is_ed25519)
		rc = cdc_ed25519_public(bytes, public, err);
	if (!rc)
		put_base64(is_ed25519 ? PRIVATE : SYMMETRIC, bytes, sizeof(bytes), ret_secret);
	if (!rc && is_ed25519)
		put_base64(PUBLIC, public, sizeof(public), ret_public);
	cdc_wipe(bytes, sizeof(bytes));
	return rc;
}

/* --- requests ----------------------------------------------------------------------- */

enum cdc_code sink_webhook_sign_id(struct sink_webhook_sign *s, const struct cdc_view *views,
				   size_t n, char ret_id[SINK_WEBHOOK_ID_BYTES],
				   struct cdc_err *err)
{
	static const char hex[] = "0123456789abcdef";
	uint8_t digest[CDC_SHA256_BYTES];
	enum cdc_code rc;
	char *to;

	cdc_buf_reset(&s->ids, IDS_MAX);
	to = (char *)cdc_buf_reserve(&s->ids, n * CDC_ID_TEXT);
	if (!to)
		return cdc_err_set(err, n * CDC_ID_TEXT > IDS_MAX ? CDC_LIMIT : CDC_NOMEM,
				   "the ids of %zu records do not fit", n);
	for (size_t i = 0; i < n; i++) {
		to += cdc_id_format(&views[i].rec->id, to);
		*to++ = '\n';
	}
	s->ids.len = (size_t)(to - (char *)s->ids.data);
	rc = cdc_hasher_sha256(s->hasher, s->ids.data, s->ids.len, digest, err);
	if (rc)
		return rc;
	memcpy(ret_id, "msg_", 4);
	for (size_t i = 0; i < (SINK_WEBHOOK_ID_BYTES - 4) / 2; i++) {
		ret_id[4 + 2 * i] = hex[digest[i] >> 4];
		ret_id[5 + 2 * i] = hex[digest[i] & 15];
	}
	return CDC_OK;
}

enum cdc_code sink_webhook_sign_put(struct sink_webhook_sign *s, const void *message, size_t n,
				    struct cdc_buf *lines, struct cdc_err *err)
{
	cdc_buf_puts(lines, "webhook-signature:");
	for (size_t i = 0; i < s->n; i++) {
		uint8_t signature[CDC_SIGNATURE_MAX];
		size_t len;
		enum cdc_code rc =
			cdc_signer_sign(s->signers[i].key, message, n, signature, &len, err);

		if (rc)
			return rc;
		cdc_buf_putc(lines, ' ');
		cdc_buf_puts(lines, s->signers[i].version);
		cdc_base64_put(lines, signature, len);
	}
	cdc_buf_putc(lines, '\0');
	return lines->failed ? cdc_err_set(err, CDC_NOMEM, "out of memory for a signature")
			     : CDC_OK;
}
