/*
 * crypto.h - digests, signatures, names made from names, and forgetting secrets.
 *
 * The only home of OpenSSL.
 *
 * Threads: any; a hasher and a signer belong to their caller.  Layer: base.
 */
#ifndef CDC_BASE_CRYPTO_H
#define CDC_BASE_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"

#define CDC_SHA256_BYTES 32
#define CDC_UUID_BYTES   16
#define CDC_UUID_TEXT    37 /* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" and its NUL */

/* SHA-256 of n bytes.  CDC_CONFIG: the library refuses the digest. */
enum cdc_code cdc_sha256(const void *bytes, size_t n, uint8_t ret_digest[CDC_SHA256_BYTES],
			 struct cdc_err *err) CDC_CHECK;

/*
 * The UUID version 5 (RFC 9562 section 5.5) of a name within a namespace, as
 * lower-case text: equal names give equal UUIDs, for ever.  The name is at most
 * 1,024 bytes (CDC_LIMIT).
 */
enum cdc_code cdc_uuid5(const uint8_t space[CDC_UUID_BYTES], const char *name,
			char ret_text[CDC_UUID_TEXT], struct cdc_err *err) CDC_CHECK;

/* n bytes that nobody can guess.  CDC_IO: the system has none to give. */
enum cdc_code cdc_random(void *ret_bytes, size_t n, struct cdc_err *err) CDC_CHECK;

/* SHA-256 again and again, for a caller to whom the set-up of cdc_sha256 matters. */
struct cdc_hasher;

/* CDC_CONFIG: the library refuses the digest.  CDC_NOMEM. */
enum cdc_code cdc_hasher_new(struct cdc_hasher **ret, struct cdc_err *err) CDC_CHECK;
void cdc_hasher_free(struct cdc_hasher *h); /* NULL is fine */
enum cdc_code cdc_hasher_sha256(struct cdc_hasher *h, const void *bytes, size_t n,
				uint8_t ret_digest[CDC_SHA256_BYTES],
				struct cdc_err *err) CDC_CHECK;

#define CDC_ED25519_KEY_BYTES 32 /* a public key, and the seed that is the private one */
#define CDC_SIGNATURE_MAX     64 /* 32 of HMAC-SHA-256, 64 of ed25519 */

/* A key, and its way of signing: HMAC-SHA-256 (RFC 2104) or ed25519 (RFC 8032). */
struct cdc_signer;

/* The key is copied.  CDC_CONFIG: the library refuses the algorithm or the key.  CDC_NOMEM. */
enum cdc_code cdc_signer_hmac(const void *key, size_t n, struct cdc_signer **ret,
			      struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_signer_ed25519(const uint8_t seed[CDC_ED25519_KEY_BYTES], struct cdc_signer **ret,
				 struct cdc_err *err) CDC_CHECK;
void cdc_signer_free(struct cdc_signer *s); /* NULL is fine */

/* The signature of n bytes, and its length. */
enum cdc_code cdc_signer_sign(struct cdc_signer *s, const void *bytes, size_t n,
			      uint8_t ret_signature[CDC_SIGNATURE_MAX], size_t *ret_n,
			      struct cdc_err *err) CDC_CHECK;

/* The public key of an ed25519 seed. */
enum cdc_code cdc_ed25519_public(const uint8_t seed[CDC_ED25519_KEY_BYTES],
				 uint8_t ret_key[CDC_ED25519_KEY_BYTES],
				 struct cdc_err *err) CDC_CHECK;

/* Overwrites n bytes with zeros in a way that the compiler does not leave out. */
void cdc_wipe(void *bytes, size_t n);

#endif
