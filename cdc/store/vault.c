#include "cdc/store/vault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/crypto.h"
#include "cdc/base/crypto_hmac.h"
#include "cdc/base/crypto_seal.h"
#include "cdc/store/master_key.h"
#include "cdc/store/parts.h"
#include "cdc/store/row.h"

#define FORMAT     1 /* first byte of a sealed value */
#define KEY_BYTES  4 /* which key */
#define HEAD_BYTES (1 + KEY_BYTES)
#define CHECK_TEXT 33 /* 16 bytes in hex */
#define ABOUT_MAX  2048
#define NOTE       "master key" /* the note with the check value */

struct cdc_vault {
	struct cdc_seal *seal;
	struct cdc_hmac *marks;
	char check[CHECK_TEXT];
	uint8_t head[HEAD_BYTES]; /* of every value that it seals */
};

/* --- making ------------------------------------------------------------------------- */

void cdc_vault_free(struct cdc_vault *v)
{
	if (!v)
		return;
	cdc_seal_free(v->seal);
	cdc_hmac_free(v->marks);
	free(v);
}

static void vault_freep(struct cdc_vault **v)
{
	cdc_vault_free(*v);
}

static void put_hex(const uint8_t *bytes, size_t n, char *ret_text)
{
	for (size_t i = 0; i < n; i++)
		(void)snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
}

/* Each purpose has a key of its own, made from the master key: RFC 5869 with one block. */
static enum cdc_code fill(struct cdc_vault *v, const uint8_t *master, struct cdc_err *err)
{
	static const char values[] = "walpost values 1", marks[] = "walpost marks 1",
			  check[] = "walpost check 1";
	uint8_t key[CDC_HMAC_BYTES];
	struct cdc_hmac *from = NULL;
	enum cdc_code rc = cdc_hmac_new(master, CDC_SEAL_KEY_BYTES, &from, err);

	_Static_assert(CDC_HMAC_BYTES == CDC_SEAL_KEY_BYTES, "a digest is a key");
	if (rc)
		return rc;
	rc = CDC_CONFIG;
	if (cdc_hmac_digest(from, check, sizeof(check) - 1, key)) {
		put_hex(key, (CHECK_TEXT - 1) / 2, v->check);
		v->head[0] = FORMAT;
		memcpy(v->head + 1, key, KEY_BYTES);
		if (cdc_hmac_digest(from, values, sizeof(values) - 1, key))
			rc = cdc_seal_new(key, &v->seal, err);
		if (!rc && cdc_hmac_digest(from, marks, sizeof(marks) - 1, key))
			rc = cdc_hmac_new(key, sizeof(key), &v->marks, err);
	}
	cdc_hmac_free(from);
	cdc_wipe(key, sizeof(key));
	return rc || v->marks ? rc : cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses HMAC-SHA256");
}

static enum cdc_code vault_new(const uint8_t *master, struct cdc_vault **ret, struct cdc_err *err)
{
	CDC_AUTO(vault_freep) struct cdc_vault *v = calloc(1, sizeof(*v));
	enum cdc_code rc;

	if (!v)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	rc = fill(v, master, err);
	if (!rc)
		*ret = CDC_TAKE(v);
	return rc;
}

/* --- unlocking ---------------------------------------------------------------------- */

static enum cdc_code take_check(void *arg, const struct cdc_sql_value *c, size_t n,
				struct cdc_err *err)
{
	(void)err;
	CDC_ASSERT(n == 1);
	if (!cdc_row_text(&c[0], arg, CHECK_TEXT))
		(void)strcpy(arg, "?"); /* it fits no key */
	return CDC_OK;
}

static enum cdc_code look_for_bytes(void *arg, const struct cdc_sql_value *c, size_t n,
				    struct cdc_err *err)
{
	bool *is_sealed = arg;

	(void)err;
	for (size_t i = 0; i < n; i++)
		*is_sealed |= c[i].type == CDC_SQL_BYTES;
	return *is_sealed ? CDC_STOPPED : CDC_OK;
}

/* Is there anything that was sealed with the key of the check value? */
static enum cdc_code look_for_sealed(struct cdc_database *db, bool *ret, struct cdc_err *err)
{
	enum cdc_code rc;

	*ret = false;
	rc = cdc_database_query(db, "SELECT key, reason, response, record FROM parked", NULL, 0,
				look_for_bytes, ret, err);
	return rc == CDC_STOPPED ? CDC_OK : rc;
}

struct unlocking {
	const char *master_key;  /* or NULL: the file */
	char *path;              /* of the file */
	char check[CHECK_TEXT];  /* that is noted, or "" */
	bool is_sealed;          /* something is */
	struct cdc_vault *vault; /* of the key that there is */
};

static enum cdc_code lost(struct cdc_database *db, const struct unlocking *u, struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_CONFIG,
			  "the parked records and dead letters in %s are encrypted, and their "
			  "master key is missing: there is no %s, and no master_key in the "
			  "configuration",
			  db->path, u->path);
	return cdc_err_remedy(err, "put the file back from a backup, or set master_key to what it "
				   "held; if it is lost for good, `walpost dead-letters discard "
				   "--unreadable` gives up what cannot be read any more");
}

static enum cdc_code another(struct cdc_database *db, const struct unlocking *u,
			     struct cdc_err *err)
{
	uint8_t key[CDC_SEAL_KEY_BYTES];
	struct cdc_vault *beside = NULL;
	bool is_beside = false;

	(void)cdc_err_set(err, CDC_CONFIG,
			  "the parked records and dead letters in %s are encrypted with another "
			  "master key than %s",
			  db->path, u->master_key ? "master_key" : u->path);
	if (u->master_key && !cdc_master_key_read(u->path, key, NULL) &&
	    !vault_new(key, &beside, NULL))
		is_beside = strcmp(beside->check, u->check) == 0;
	cdc_vault_free(beside);
	cdc_wipe(key, sizeof(key));
	if (is_beside)
		return cdc_err_remedy(err,
				      "remove master_key, or set it to what %s holds: that "
				      "is the key",
				      u->path);
	return cdc_err_remedy(err, "set master_key to the key that was in force before; if it is "
				   "lost for good, `walpost dead-letters discard --unreadable` "
				   "gives up what cannot be read any more");
}

static enum cdc_code find_key(struct cdc_database *db, const struct unlocking *u,
			      uint8_t ret_key[CDC_SEAL_KEY_BYTES], struct cdc_err *err)
{
	struct cdc_err why = {0};
	enum cdc_code rc;

	if (u->master_key)
		return cdc_seal_key(u->master_key, ret_key)
			       ? CDC_OK
			       : cdc_err_set(err, CDC_CONFIG,
					     "master_key is not 32 bytes as base64 or hex");
	rc = cdc_master_key_read(u->path, ret_key, &why);
	if (rc == CDC_MISSING && u->is_sealed)
		return lost(db, u, err);
	if (rc == CDC_MISSING && !db->is_attached)
		return cdc_master_key_make(u->path, ret_key, err);
	if (rc && err)
		*err = why;
	return rc;
}

static enum cdc_code unlock(struct cdc_database *db, struct unlocking *u, struct cdc_err *err)
{
	const struct cdc_sql_value note[] = {cdc_sql_text(NOTE)};
	uint8_t key[CDC_SEAL_KEY_BYTES];
	enum cdc_code rc = cdc_database_query(db, "SELECT value FROM note WHERE name = $1", note, 1,
					      take_check, u->check, err);

	if (!rc && u->check[0])
		rc = look_for_sealed(db, &u->is_sealed, err);
	if (!rc)
		rc = find_key(db, u, key, err);
	if (rc)
		return rc == CDC_MISSING && db->is_attached ? CDC_OK : rc;
	rc = vault_new(key, &u->vault, err);
	cdc_wipe(key, sizeof(key));
	if (rc || strcmp(u->vault->check, u->check) == 0)
		return rc;
	/* With nothing that another key is needed for, this one takes its place. */
	if (u->is_sealed)
		return another(db, u, err);
	return db->is_attached ? CDC_OK : cdc_note_write(db, NOTE, u->vault->check, err);
}

enum cdc_code cdc_vault_unlock(struct cdc_database *db, const char *master_key, struct cdc_err *err)
{
	struct unlocking u = {.master_key = master_key};
	const char *slash = strrchr(db->path, '/');
	enum cdc_code rc;

	if (asprintf(&u.path, "%.*smaster.key", slash ? (int)(slash - db->path) + 1 : 0, db->path) <
	    0)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	rc = unlock(db, &u, err);
	free(u.path);
	if (rc) {
		cdc_vault_free(u.vault);
		return rc;
	}
	cdc_vault_free(db->vault);
	db->vault = u.vault;
	return CDC_OK;
}

enum cdc_code cdc_vault_forget(struct cdc_database *db, struct cdc_err *err)
{
	const struct cdc_sql_value note[] = {cdc_sql_text(NOTE)};

	return cdc_database_run(db, "DELETE FROM note WHERE name = $1", note, 1, err);
}

/* --- values ------------------------------------------------------------------------- */

void cdc_vault_value_clear(struct cdc_vault_value *v)
{
	if (v->bytes)
		cdc_wipe(v->bytes, v->n);
	free(v->bytes);
	*v = (struct cdc_vault_value){0};
}

/* What a value is bound to, the head included. */
static size_t put_about(const uint8_t *head, const struct cdc_vault_place *at,
			char ret_about[ABOUT_MAX])
{
	int n;

	memcpy(ret_about, head, HEAD_BYTES);
	n = snprintf(ret_about + HEAD_BYTES, ABOUT_MAX - HEAD_BYTES, "%s%c%s%c%s", at->sync, 0,
		     at->id, 0, at->column);
	CDC_ASSERT(n > 0 && n < ABOUT_MAX - HEAD_BYTES); /* names have limits */
	return HEAD_BYTES + (size_t)n;
}

/* The buffer's bytes become the value's. */
static enum cdc_code take_bytes(struct cdc_buf *from, struct cdc_vault_value *ret,
				struct cdc_err *err)
{
	if (from->failed) {
		cdc_buf_clear(from);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for an encrypted value");
	}
	*ret = (struct cdc_vault_value){.bytes = from->data, .n = from->len};
	return CDC_OK;
}

enum cdc_code cdc_vault_seal(struct cdc_database *db, const struct cdc_vault_place *at,
			     const char *text, size_t n, struct cdc_vault_value *value,
			     struct cdc_sql_value *ret, struct cdc_err *err)
{
	char about[ABOUT_MAX];
	struct cdc_buf out;
	enum cdc_code rc;

	*value = (struct cdc_vault_value){0};
	*ret = cdc_sql_text("");
	if (!n)
		return CDC_OK;
	if (!db->vault)
		return cdc_err_set(err, CDC_CONFIG, "%s: there is no master key to encrypt with",
				   db->path);
	cdc_buf_init(&out, SIZE_MAX);
	if (cdc_buf_reserve(&out, HEAD_BYTES + n + CDC_SEAL_OVERHEAD))
		cdc_buf_put(&out, db->vault->head, HEAD_BYTES);
	rc = cdc_seal_put(db->vault->seal, about, put_about(db->vault->head, at, about), text, n,
			  &out, err);
	if (!rc)
		rc = take_bytes(&out, value, err);
	else
		cdc_buf_clear(&out);
	if (!rc)
		*ret = cdc_sql_bytes(value->bytes, value->n);
	return rc;
}

/* A value of before there was a vault. */
static enum cdc_code copy_text(const char *text, struct cdc_vault_value *ret, struct cdc_err *err)
{
	ret->n = strlen(text);
	ret->bytes = (uint8_t *)strdup(text);
	return ret->bytes ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory for a value");
}

/* Why it cannot even be tried to open the bytes; NULL: it can. */
static const char *obstacle(const struct cdc_database *db, const struct cdc_sql_value *value)
{
	if (!db->vault)
		return "its master key is missing";
	if (value->n < HEAD_BYTES)
		return "it was cut";
	if (value->bytes[0] != FORMAT)
		return "it is in a form that this version does not know";
	if (memcmp(value->bytes, db->vault->head, HEAD_BYTES) != 0)
		return "it was encrypted with another master key";
	return NULL;
}

enum cdc_code cdc_vault_open(struct cdc_database *db, const struct cdc_vault_place *at,
			     const struct cdc_sql_value *value, struct cdc_vault_value *ret,
			     struct cdc_err *err)
{
	const char *why = NULL;
	char about[ABOUT_MAX];
	struct cdc_err inner = {0};
	struct cdc_buf out;
	enum cdc_code rc;

	*ret = (struct cdc_vault_value){0};
	if (value->type == CDC_SQL_TEXT)
		return copy_text(value->text, ret, err);
	why = value->type == CDC_SQL_BYTES ? obstacle(db, value) : "it holds no text";
	if (why)
		return cdc_err_set(err, CDC_REJECTED, "the stored %s cannot be read: %s",
				   at->column, why);
	cdc_buf_init(&out, SIZE_MAX);
	rc = cdc_seal_take(db->vault->seal, about, put_about(db->vault->head, at, about),
			   value->bytes + HEAD_BYTES, value->n - HEAD_BYTES, &out, &inner);
	if (rc) {
		cdc_buf_clear(&out);
		return cdc_err_set(err, rc, "the stored %s cannot be read: %s", at->column,
				   inner.msg);
	}
	cdc_buf_put(&out, "", 1);
	rc = take_bytes(&out, ret, err);
	if (!rc)
		ret->n--; /* without the NUL */
	return rc;
}

const char *cdc_vault_mark(struct cdc_database *db, const char *text, size_t n,
			   char ret_mark[CDC_VAULT_MARK])
{
	uint8_t digest[CDC_HMAC_BYTES];

	ret_mark[0] = '\0';
	if (db->vault && cdc_hmac_digest(db->vault->marks, text, n, digest))
		put_hex(digest, (CDC_VAULT_MARK - 1) / 2, ret_mark);
	return ret_mark;
}
