/*
 * vault.h - what of a row is nobody's business but walpost's, encrypted.
 *
 * Values that may hold what users wrote (records, keys, answers of endpoints) go
 * through cdc_vault_seal on their way into a statement and through cdc_vault_open
 * on their way out.  A sealed value is bytes:
 *
 *     1            the format
 *     4 bytes      which key: the first of its check value
 *     12, n, 16    nonce, ciphertext, tag (cdc/base/crypto_seal.h)
 *
 * bound to its row and to what it is in it, so that it cannot be moved.  A value
 * that is a text was written before there was a vault, and is taken as it is.
 *
 * The key for it is made from the master key, as are the key of the marks, by
 * which a value is found without being opened, and a check value that the store
 * keeps, so that a wrong master key is noticed before anything is written with it.
 *
 * Threads: the store's.  Layer: store (base).
 */
#ifndef CDC_STORE_VAULT_H
#define CDC_STORE_VAULT_H

#include "cdc/store/database.h"

struct cdc_vault;

/* Where a value lies. */
struct cdc_vault_place {
	const char *sync, *id; /* of the row */
	const char *column;
};

/* A value on its way into a statement or out of a result; all zero, it holds nothing. */
struct cdc_vault_value {
	uint8_t *bytes; /* of an opened one a NUL follows */
	size_t n;
};
void cdc_vault_value_clear(struct cdc_vault_value *v); /* wipes and frees */

/* Seals n bytes; none stay none.  *ret is valid as long as *value, which is to be cleared.
 * CDC_CONFIG: the vault is locked.  CDC_LIMIT, CDC_NOMEM, CDC_IO. */
enum cdc_code cdc_vault_seal(struct cdc_database *db, const struct cdc_vault_place *at,
			     const char *text, size_t n, struct cdc_vault_value *value,
			     struct cdc_sql_value *ret, struct cdc_err *err) CDC_CHECK;

/* Opens what a result has.  CDC_REJECTED: this value cannot be read, the reason says why (it was
 * changed, is of another row, sealed with another key, or the vault is locked); others may be.
 * CDC_NOMEM.  *ret is to be cleared in any case. */
enum cdc_code cdc_vault_open(struct cdc_database *db, const struct cdc_vault_place *at,
			     const struct cdc_sql_value *value, struct cdc_vault_value *ret,
			     struct cdc_err *err) CDC_CHECK;

/* By what equal texts are found without being opened: the same for the same text, and of no use
 * without the key.  "" when the vault is locked. */
#define CDC_VAULT_MARK 33
const char *cdc_vault_mark(struct cdc_database *db, const char *text, size_t n,
			   char ret_mark[CDC_VAULT_MARK]);

/* Puts the vault with this key (or the one in the database's folder; see cdc_store_unlock) into the
 * database.  For a transaction, unless the database is attached. */
enum cdc_code cdc_vault_unlock(struct cdc_database *db, const char *master_key,
			       struct cdc_err *err) CDC_CHECK;
/* The check value goes: the next key that is put in, of whatever database, is taken. */
enum cdc_code cdc_vault_forget(struct cdc_database *db, struct cdc_err *err) CDC_CHECK;
void cdc_vault_free(struct cdc_vault *v); /* NULL is fine */

#endif
