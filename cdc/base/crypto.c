#include "cdc/base/crypto.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#define UUID_NAME_MAX 1024

static enum cdc_code digest(const EVP_MD *md, const void *bytes, size_t n, uint8_t *ret_digest,
			    struct cdc_err *err)
{
	if (EVP_Digest(bytes, n, ret_digest, NULL, md, NULL) != 1)
		return cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses the digest %s",
				   EVP_MD_get0_name(md));
	return CDC_OK;
}

enum cdc_code cdc_sha256(const void *bytes, size_t n, uint8_t ret_digest[CDC_SHA256_BYTES],
			 struct cdc_err *err)
{
	return digest(EVP_sha256(), bytes, n, ret_digest, err);
}

enum cdc_code cdc_uuid5(const uint8_t space[CDC_UUID_BYTES], const char *name,
			char ret_text[CDC_UUID_TEXT], struct cdc_err *err)
{
	uint8_t input[CDC_UUID_BYTES + UUID_NAME_MAX], sha1[EVP_MAX_MD_SIZE];
	size_t len = strlen(name), at = 0;
	enum cdc_code rc;

	if (len > UUID_NAME_MAX)
		return cdc_err_set(err, CDC_LIMIT, "a name of %zu bytes is too long for a UUID",
				   len);
	memcpy(input, space, CDC_UUID_BYTES);
	memcpy(input + CDC_UUID_BYTES, name, len);
	rc = digest(EVP_sha1(), input, CDC_UUID_BYTES + len, sha1, err);
	if (rc)
		return rc;
	sha1[6] = (uint8_t)((sha1[6] & 0x0f) | 0x50); /* version 5 */
	sha1[8] = (uint8_t)((sha1[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
	for (size_t i = 0; i < CDC_UUID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			ret_text[at++] = '-';
		(void)snprintf(ret_text + at, CDC_UUID_TEXT - at, "%02x", sha1[i]);
		at += 2;
	}
	return CDC_OK;
}

enum cdc_code cdc_random(void *ret_bytes, size_t n, struct cdc_err *err)
{
	if (n > INT_MAX || RAND_priv_bytes(ret_bytes, (int)n) != 1)
		return cdc_err_set(err, CDC_IO, "the system gives no random bytes");
	return CDC_OK;
}

/* --- SHA-256 over and over ---------------------------------------------------------- */

struct cdc_hasher {
	EVP_MD *md;
	EVP_MD_CTX *ctx;
};

enum cdc_code cdc_hasher_new(struct cdc_hasher **ret, struct cdc_err *err)
{
	struct cdc_hasher *h = calloc(1, sizeof(*h));

	if (!h)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	h->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	h->ctx = EVP_MD_CTX_new();
	if (!h->md || !h->ctx || EVP_DigestInit_ex2(h->ctx, h->md, NULL) != 1) {
		cdc_hasher_free(h);
		return cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses the digest SHA256");
	}
	*ret = h;
	return CDC_OK;
}

void cdc_hasher_free(struct cdc_hasher *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->ctx);
	EVP_MD_free(h->md);
	free(h);
}

enum cdc_code cdc_hasher_sha256(struct cdc_hasher *h, const void *bytes, size_t n,
				uint8_t ret_digest[CDC_SHA256_BYTES], struct cdc_err *err)
{
	if (EVP_DigestInit_ex2(h->ctx, NULL, NULL) != 1 ||
	    EVP_DigestUpdate(h->ctx, bytes, n) != 1 ||
	    EVP_DigestFinal_ex(h->ctx, ret_digest, NULL) != 1)
		return cdc_err_set(err, CDC_NOMEM, "OpenSSL could not make a digest");
	return CDC_OK;
}

/* --- signatures --------------------------------------------------------------------- */

/* One of the two is there. */
struct cdc_signer {
	EVP_MAC_CTX *mac;
	EVP_PKEY *key;
	EVP_MD_CTX *ctx; /* key */
};

static enum cdc_code signer_new(struct cdc_signer **ret, struct cdc_err *err)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory");
}

void cdc_signer_free(struct cdc_signer *s)
{
	if (!s)
		return;
	EVP_MAC_CTX_free(s->mac);
	EVP_MD_CTX_free(s->ctx);
	EVP_PKEY_free(s->key);
	free(s);
}

enum cdc_code cdc_signer_hmac(const void *key, size_t n, struct cdc_signer **ret,
			      struct cdc_err *err)
{
	char sha256[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, 0),
		OSSL_PARAM_construct_end(),
	};
	struct cdc_signer *s = NULL;
	enum cdc_code rc = signer_new(&s, err);
	EVP_MAC *mac;

	if (rc)
		return rc;
	mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	s->mac = mac ? EVP_MAC_CTX_new(mac) : NULL;
	EVP_MAC_free(mac);
	if (!s->mac || EVP_MAC_init(s->mac, key, n, params) != 1) {
		cdc_signer_free(s);
		return cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses HMAC with SHA256");
	}
	*ret = s;
	return CDC_OK;
}

enum cdc_code cdc_signer_ed25519(const uint8_t seed[CDC_ED25519_KEY_BYTES], struct cdc_signer **ret,
				 struct cdc_err *err)
{
	struct cdc_signer *s = NULL;
	enum cdc_code rc = signer_new(&s, err);

	if (rc)
		return rc;
	s->key =
		EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, seed, CDC_ED25519_KEY_BYTES);
	s->ctx = EVP_MD_CTX_new();
	if (!s->key || !s->ctx ||
	    EVP_DigestSignInit_ex(s->ctx, NULL, NULL, NULL, NULL, s->key, NULL) != 1) {
		cdc_signer_free(s);
		return cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses ed25519");
	}
	*ret = s;
	return CDC_OK;
}

enum cdc_code cdc_signer_sign(struct cdc_signer *s, const void *bytes, size_t n,
			      uint8_t ret_signature[CDC_SIGNATURE_MAX], size_t *ret_n,
			      struct cdc_err *err)
{
	size_t len = CDC_SIGNATURE_MAX;
	/* Without a key the context goes on with the one it has; ed25519 is done in one go. */
	bool is_done =
		s->mac ? EVP_MAC_init(s->mac, NULL, 0, NULL) == 1 &&
				 EVP_MAC_update(s->mac, bytes, n) == 1 &&
				 EVP_MAC_final(s->mac, ret_signature, &len, len) == 1
		       : EVP_DigestSignInit_ex(s->ctx, NULL, NULL, NULL, NULL, s->key, NULL) == 1 &&
				 EVP_DigestSign(s->ctx, ret_signature, &len, bytes, n) == 1;

	if (!is_done)
		return cdc_err_set(err, CDC_NOMEM, "OpenSSL could not make a signature");
	*ret_n = len;
	return CDC_OK;
}

enum cdc_code cdc_ed25519_public(const uint8_t seed[CDC_ED25519_KEY_BYTES],
				 uint8_t ret_key[CDC_ED25519_KEY_BYTES], struct cdc_err *err)
{
	EVP_PKEY *key =
		EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, seed, CDC_ED25519_KEY_BYTES);
	size_t n = CDC_ED25519_KEY_BYTES;
	bool is_made = key && EVP_PKEY_get_raw_public_key(key, ret_key, &n) == 1;

	EVP_PKEY_free(key);
	return is_made ? CDC_OK : cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses ed25519");
}

void cdc_wipe(void *bytes, size_t n)
{
	if (n)
		OPENSSL_cleanse(bytes, n);
}
