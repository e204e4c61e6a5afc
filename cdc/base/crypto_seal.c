#include "cdc/base/crypto_seal.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "cdc/base/base64.h"
#include "cdc/base/crypto.h"

#define NONCE_BYTES 12
#define TAG_BYTES   16
#define VALUE_MAX   ((size_t)1 << 30) /* the library counts in int */

_Static_assert(NONCE_BYTES + TAG_BYTES == CDC_SEAL_OVERHEAD, "what a sealed value has besides");

struct cdc_seal {
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *put, *take; /* each has the key and keeps it */
};

enum cdc_code cdc_seal_new(const uint8_t key[CDC_SEAL_KEY_BYTES], struct cdc_seal **ret,
			   struct cdc_err *err)
{
	struct cdc_seal *s = calloc(1, sizeof(*s));

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	s->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	s->put = EVP_CIPHER_CTX_new();
	s->take = EVP_CIPHER_CTX_new();
	if (!s->cipher || !s->put || !s->take ||
	    EVP_EncryptInit_ex2(s->put, s->cipher, key, NULL, NULL) != 1 ||
	    EVP_DecryptInit_ex2(s->take, s->cipher, key, NULL, NULL) != 1) {
		cdc_seal_free(s);
		return cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses AES-256-GCM");
	}
	*ret = s;
	return CDC_OK;
}

void cdc_seal_free(struct cdc_seal *s)
{
	if (!s)
		return;
	EVP_CIPHER_CTX_free(s->put);
	EVP_CIPHER_CTX_free(s->take);
	EVP_CIPHER_free(s->cipher);
	free(s);
}

enum cdc_code cdc_seal_put(struct cdc_seal *s, const void *about, size_t about_n, const void *bytes,
			   size_t n, struct cdc_buf *out, struct cdc_err *err)
{
	uint8_t nonce[NONCE_BYTES], *to;
	int len, rest;
	enum cdc_code rc;

	if (n > VALUE_MAX || about_n > VALUE_MAX)
		return cdc_err_set(err, CDC_LIMIT, "%zu bytes are too many to be encrypted", n);
	rc = cdc_random(nonce, sizeof(nonce), err);
	if (rc)
		return rc;
	to = cdc_buf_reserve(out, n + CDC_SEAL_OVERHEAD);
	if (!to)
		return CDC_OK;
	memcpy(to, nonce, NONCE_BYTES);
	if (EVP_EncryptInit_ex2(s->put, NULL, NULL, nonce, NULL) != 1 ||
	    EVP_EncryptUpdate(s->put, NULL, &len, about, (int)about_n) != 1 ||
	    EVP_EncryptUpdate(s->put, to + NONCE_BYTES, &len, bytes, (int)n) != 1 ||
	    EVP_EncryptFinal_ex(s->put, to + NONCE_BYTES + len, &rest) != 1 ||
	    EVP_CIPHER_CTX_ctrl(s->put, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, to + NONCE_BYTES + n) !=
		    1)
		return cdc_err_set(err, CDC_NOMEM, "OpenSSL could not encrypt");
	out->len += n + CDC_SEAL_OVERHEAD;
	return CDC_OK;
}

enum cdc_code cdc_seal_take(struct cdc_seal *s, const void *about, size_t about_n,
			    const void *sealed, size_t n, struct cdc_buf *out, struct cdc_err *err)
{
	uint8_t tag[TAG_BYTES], *to;
	const uint8_t *from = sealed;
	int len, rest;

	if (n < CDC_SEAL_OVERHEAD || n - CDC_SEAL_OVERHEAD > VALUE_MAX || about_n > VALUE_MAX)
		return cdc_err_set(err, CDC_REJECTED, "it was cut");
	n -= CDC_SEAL_OVERHEAD;
	to = cdc_buf_reserve(out, n + 1); /* never without an address */
	if (!to)
		return CDC_OK;
	memcpy(tag, from + NONCE_BYTES + n, TAG_BYTES);
	if (EVP_DecryptInit_ex2(s->take, NULL, NULL, from, NULL) != 1 ||
	    EVP_DecryptUpdate(s->take, NULL, &len, about, (int)about_n) != 1 ||
	    EVP_DecryptUpdate(s->take, to, &len, from + NONCE_BYTES, (int)n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(s->take, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) != 1 ||
	    EVP_DecryptFinal_ex(s->take, to + len, &rest) != 1) {
		cdc_wipe(to, n);
		return cdc_err_set(err, CDC_REJECTED, "it was changed");
	}
	out->len += n;
	return CDC_OK;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool cdc_seal_key(const char *text, uint8_t ret_key[CDC_SEAL_KEY_BYTES])
{
	size_t len = strlen(text), n = 0;

	if (len != (size_t)2 * CDC_SEAL_KEY_BYTES)
		return cdc_base64_take(text, len, ret_key, CDC_SEAL_KEY_BYTES, &n) &&
		       n == CDC_SEAL_KEY_BYTES;
	for (size_t i = 0; i < CDC_SEAL_KEY_BYTES; i++) {
		int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		ret_key[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
