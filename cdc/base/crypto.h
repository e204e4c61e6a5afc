/*
 * crypto.h - digests, names made from names, and forgetting secrets.
 *
 * The only home of OpenSSL.
 *
 * Threads: any.  Layer: base.
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

/* Overwrites n bytes with zeros in a way that the compiler does not leave out. */
void cdc_wipe(void *bytes, size_t n);

#endif
