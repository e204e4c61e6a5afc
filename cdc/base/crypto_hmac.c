#include "cdc/base/crypto_hmac.h"

#include <stdlib.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

struct cdc_hmac {
	EVP_MAC_CTX *keyed; /* each digest begins with the key of the one before */
};

enum cdc_code cdc_hmac_new(const void *key, size_t len, struct cdc_hmac **ret, struct cdc_err *err)
{
	char digest[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	struct cdc_hmac *h = calloc(1, sizeof(*h));

	if (mac && h)
		h->keyed = EVP_MAC_CTX_new(mac); /* which holds the algorithm, too */
	EVP_MAC_free(mac);
	if (!h || !h->keyed || EVP_MAC_init(h->keyed, key, len, params) != 1) {
		cdc_hmac_free(h);
		return cdc_err_set(err, CDC_CONFIG, "OpenSSL refuses HMAC-SHA256");
	}
	*ret = h;
	return CDC_OK;
}

void cdc_hmac_free(struct cdc_hmac *h)
{
	if (!h)
		return;
	EVP_MAC_CTX_free(h->keyed);
	free(h);
}

bool cdc_hmac_digest(struct cdc_hmac *h, const void *bytes, size_t n,
		     uint8_t ret_digest[CDC_HMAC_BYTES])
{
	size_t len;

	return EVP_MAC_init(h->keyed, NULL, 0, NULL) == 1 &&
	       EVP_MAC_update(h->keyed, bytes, n) == 1 &&
	       EVP_MAC_final(h->keyed, ret_digest, &len, CDC_HMAC_BYTES) == 1 &&
	       len == CDC_HMAC_BYTES;
}
