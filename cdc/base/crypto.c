#include "cdc/base/crypto.h"

#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

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

void cdc_wipe(void *bytes, size_t n)
{
	if (n)
		OPENSSL_cleanse(bytes, n);
}
