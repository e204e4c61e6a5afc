/*
 * master_key.h - the master key that lies beside the database when none is configured.
 *
 * DIR/master.key: 32 random bytes as base64 and a line feed, readable for its owner
 * alone.  It is on the disk before anything that is encrypted with it.
 *
 * Threads: the store's.  Layer: store (base).
 */
#ifndef CDC_STORE_MASTER_KEY_H
#define CDC_STORE_MASTER_KEY_H

#include "cdc/base/crypto_seal.h"

/* CDC_MISSING: there is no such file.  CDC_CONFIG: it holds no key.  CDC_IO. */
enum cdc_code cdc_master_key_read(const char *path, uint8_t ret_key[CDC_SEAL_KEY_BYTES],
				  struct cdc_err *err) CDC_CHECK;
/* Makes a key and its file, all of it or none, durably.  CDC_FULL, CDC_IO. */
enum cdc_code cdc_master_key_make(const char *path, uint8_t ret_key[CDC_SEAL_KEY_BYTES],
				  struct cdc_err *err) CDC_CHECK;

#endif
