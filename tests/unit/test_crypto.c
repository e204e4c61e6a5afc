/* Signatures are those of the published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/crypto.h"

/* The text of n bytes, lower case. */
static const char *hex(const uint8_t *bytes, size_t n, char *ret_text)
{
	for (size_t i = 0; i < n; i++)
		(void)snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
	return ret_text;
}

static void unhex(const char *text, uint8_t *ret_bytes)
{
	for (size_t i = 0; text[2 * i]; i++) {
		unsigned byte;

		assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1); /* NOLINT(cert-err34-c) */
		ret_bytes[i] = (uint8_t)byte;
	}
}

static void sha256_again_and_again_is_sha256(void **state)
{
	static const char abc[] =
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; /* FIPS 180-2 */
	uint8_t digest[CDC_SHA256_BYTES], other[CDC_SHA256_BYTES];
	char text[2 * CDC_SHA256_BYTES + 1];
	struct cdc_hasher *h;

	(void)state;
	assert_int_equal(cdc_hasher_new(&h, NULL), CDC_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(cdc_hasher_sha256(h, "abc", 3, digest, NULL), CDC_OK);
		assert_string_equal(hex(digest, sizeof(digest), text), abc);
		assert_int_equal(cdc_hasher_sha256(h, "", 0, digest, NULL), CDC_OK);
		assert_int_equal(cdc_sha256("", 0, other, NULL), CDC_OK);
		assert_memory_equal(digest, other, sizeof(digest));
	}
	cdc_hasher_free(h);
}

static void hmac_is_that_of_rfc_4231(void **state)
{
	uint8_t key[20], signature[CDC_SIGNATURE_MAX];
	char text[2 * CDC_SIGNATURE_MAX + 1];
	struct cdc_signer *s;
	size_t n;

	(void)state;
	memset(key, 0x0b, sizeof(key));
	assert_int_equal(cdc_signer_hmac(key, sizeof(key), &s, NULL), CDC_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(cdc_signer_sign(s, "Hi There", 8, signature, &n, NULL), CDC_OK);
		assert_int_equal(n, 32);
		assert_string_equal(
			hex(signature, n, text),
			"b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	}
	cdc_signer_free(s);
}

static void ed25519_is_that_of_rfc_8032(void **state)
{
	/* Section 7.1, test 2. */
	static const char seed_text[] =
		"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
	static const char public_text[] =
		"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
	static const char signature_text[] =
		"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
		"085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
	uint8_t seed[CDC_ED25519_KEY_BYTES], public[CDC_ED25519_KEY_BYTES];
	uint8_t signature[CDC_SIGNATURE_MAX];
	char text[2 * CDC_SIGNATURE_MAX + 1];
	struct cdc_signer *s;
	size_t n;

	(void)state;
	unhex(seed_text, seed);
	assert_int_equal(cdc_ed25519_public(seed, public, NULL), CDC_OK);
	assert_string_equal(hex(public, sizeof(public), text), public_text);
	assert_int_equal(cdc_signer_ed25519(seed, &s, NULL), CDC_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(cdc_signer_sign(s, "\x72", 1, signature, &n, NULL), CDC_OK);
		assert_int_equal(n, 64);
		assert_string_equal(hex(signature, n, text), signature_text);
	}
	cdc_signer_free(s);
}

static void random_bytes_differ(void **state)
{
	uint8_t a[32] = {0}, b[32] = {0};

	(void)state;
	assert_int_equal(cdc_random(a, sizeof(a), NULL), CDC_OK);
	assert_int_equal(cdc_random(b, sizeof(b), NULL), CDC_OK);
	assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_again_and_again_is_sha256),
		cmocka_unit_test(hmac_is_that_of_rfc_4231),
		cmocka_unit_test(ed25519_is_that_of_rfc_8032),
		cmocka_unit_test(random_bytes_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
