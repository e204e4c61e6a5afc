/*
 * crypto_hmac.h - HMAC-SHA256 under one key, many times.
 *
 * Source: RFC 2104, FIPS 180-4.
 *
 * Threads: a state belongs to its caller.  Layer: base.
 */
#ifndef CDC_BASE_CRYPTO_HMAC_H
#define CDC_BASE_CRYPTO_HMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"

#define CDC_HMAC_BYTES 32

struct cdc_hmac;

/* The key is copied.  CDC_CONFIG: the library refuses it. */
enum cdc_code cdc_hmac_new(const void *key, size_t len, struct cdc_hmac **ret,
			   struct cdc_err *err) CDC_CHECK;
void cdc_hmac_free(struct cdc_hmac *h); /* wipes the key; NULL is fine */

/* False: the library failed. */
bool cdc_hmac_digest(struct cdc_hmac *h, const void *bytes, size_t n,
		     uint8_t ret_digest[CDC_HMAC_BYTES]) CDC_CHECK;

#endif
