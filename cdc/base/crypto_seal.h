/*
 * crypto_seal.h - values encrypted under one key, so that a change is noticed.
 *
 * AES-256-GCM.  A sealed value is a random nonce, as many bytes as the value has,
 * and a tag.  What the value is about (where it lies, say) is not in it, but must
 * be the same when it is opened: so no sealed value can take another's place.
 * Nonces are drawn at random, so one key is good for 2^32 values.
 *
 * Source: NIST SP 800-38D, section 8.2.2 for the nonces.
 *
 * Threads: a state belongs to its caller.  Layer: base.
 */
#ifndef CDC_BASE_CRYPTO_SEAL_H
#define CDC_BASE_CRYPTO_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"

#define CDC_SEAL_KEY_BYTES 32
#define CDC_SEAL_OVERHEAD  28 /* bytes by which a sealed value is longer: nonce and tag */

struct cdc_seal;

/* The key is copied.  CDC_CONFIG: the library refuses the cipher.  CDC_NOMEM. */
enum cdc_code cdc_seal_new(const uint8_t key[CDC_SEAL_KEY_BYTES], struct cdc_seal **ret,
			   struct cdc_err *err) CDC_CHECK;
void cdc_seal_free(struct cdc_seal *s); /* wipes the key; NULL is fine */

/* Appends the sealed form of n bytes (at most 1 GiB: CDC_LIMIT), which are about about_n bytes.
 * CDC_IO: the system has no random bytes.  A full buffer is the buffer's failure, asked for
 * there. */
enum cdc_code cdc_seal_put(struct cdc_seal *s, const void *about, size_t about_n, const void *bytes,
			   size_t n, struct cdc_buf *out, struct cdc_err *err) CDC_CHECK;

/* Appends what was sealed.  CDC_REJECTED: it was changed, is about something else, or was sealed
 * with another key; then nothing is appended.  A full buffer as above. */
enum cdc_code cdc_seal_take(struct cdc_seal *s, const void *about, size_t about_n,
			    const void *sealed, size_t n, struct cdc_buf *out,
			    struct cdc_err *err) CDC_CHECK;

/* A key as a person writes it: 44 characters of base64 (43 without the padding) or 64 of hex.
 * False: the text is neither. */
bool cdc_seal_key(const char *text, uint8_t ret_key[CDC_SEAL_KEY_BYTES]);

#endif
