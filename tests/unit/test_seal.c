/* Sealed values are those of the published vectors, and every change of one is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/crypto_seal.h"

static size_t unhex(const char *text, uint8_t *ret_bytes)
{
	size_t n = 0;

	for (; text[2 * n]; n++) {
		unsigned byte;

		assert_int_equal(sscanf(text + 2 * n, "%2x", &byte), 1); /* NOLINT(cert-err34-c) */
		ret_bytes[n] = (uint8_t)byte;
	}
	return n;
}

static struct cdc_seal *seal_with(const char *hex_key)
{
	uint8_t key[CDC_SEAL_KEY_BYTES];
	struct cdc_seal *s;

	assert_true(cdc_seal_key(hex_key, key));
	assert_int_equal(cdc_seal_new(key, &s, NULL), CDC_OK);
	return s;
}

/* Test case 16 of "The Galois/Counter Mode of Operation", McGrew and Viega. */
#define KEY_REST "ffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define KEY      "fe" KEY_REST

static void a_published_vector_is_opened(void **state)
{
	static const char text[] = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a"
				   "721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
			  about_text[] = "feedfacedeadbeeffeedfacedeadbeefabaddad2",
			  sealed_text[] = "cafebabefacedbaddecaf888"
					  "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd"
					  "2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
					  "bcc9f66276fc6ece0f4e1768cddf8853bb2d551b";
	uint8_t plain[64], about[32], sealed[128];
	size_t n = unhex(text, plain), about_n = unhex(about_text, about),
	       sealed_n = unhex(sealed_text, sealed);
	struct cdc_seal *s = seal_with(KEY);
	struct cdc_buf out;

	(void)state;
	cdc_buf_init(&out, 1024);
	assert_int_equal(cdc_seal_take(s, about, about_n, sealed, sealed_n, &out, NULL), CDC_OK);
	assert_int_equal(out.len, n);
	assert_memory_equal(out.data, plain, n);
	cdc_buf_clear(&out);
	cdc_seal_free(s);
}

static void what_is_sealed_is_opened_and_any_change_is_noticed(void **state)
{
	static const char *const values[] = {"", "x", "{\"id\":1}"};
	struct cdc_seal *s = seal_with(KEY), *other = seal_with("00" KEY_REST);

	(void)state;
	for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
		const size_t n = strlen(values[v]);
		struct cdc_buf sealed, out;

		cdc_buf_init(&sealed, 1024);
		cdc_buf_init(&out, 1024);
		assert_int_equal(cdc_seal_put(s, "row 1", 5, values[v], n, &sealed, NULL), CDC_OK);
		assert_int_equal(sealed.len, n + CDC_SEAL_OVERHEAD);
		/* Behind what is there already. */
		cdc_buf_puts(&out, "-");
		assert_int_equal(cdc_seal_take(s, "row 1", 5, sealed.data, sealed.len, &out, NULL),
				 CDC_OK);
		assert_int_equal(out.len, 1 + n);
		assert_memory_equal(out.data + 1, values[v], n);
		assert_int_equal(cdc_seal_take(s, "row 2", 5, sealed.data, sealed.len, &out, NULL),
				 CDC_REJECTED);
		assert_int_equal(
			cdc_seal_take(other, "row 1", 5, sealed.data, sealed.len, &out, NULL),
			CDC_REJECTED);
		for (size_t i = 0; i < sealed.len; i++) {
			assert_int_equal(cdc_seal_take(s, "row 1", 5, sealed.data, i, &out, NULL),
					 CDC_REJECTED);
			sealed.data[i] ^= 1;
			assert_int_equal(
				cdc_seal_take(s, "row 1", 5, sealed.data, sealed.len, &out, NULL),
				CDC_REJECTED);
			sealed.data[i] ^= 1;
		}
		assert_int_equal(out.len, 1 + n);
		cdc_buf_clear(&sealed);
		cdc_buf_clear(&out);
	}
	cdc_seal_free(s);
	cdc_seal_free(other);
}

static void equal_values_are_sealed_differently(void **state)
{
	struct cdc_seal *s = seal_with(KEY);
	struct cdc_buf a, b;

	(void)state;
	cdc_buf_init(&a, 1024);
	cdc_buf_init(&b, 1024);
	assert_int_equal(cdc_seal_put(s, "", 0, "the same", 8, &a, NULL), CDC_OK);
	assert_int_equal(cdc_seal_put(s, "", 0, "the same", 8, &b, NULL), CDC_OK);
	assert_int_equal(a.len, b.len);
	assert_memory_not_equal(a.data, b.data, 12);
	assert_memory_not_equal(a.data + 12, b.data + 12, 8);
	cdc_buf_clear(&a);
	cdc_buf_clear(&b);
	cdc_seal_free(s);
}

static void a_full_buffer_fails_and_the_seal_goes_on(void **state)
{
	struct cdc_seal *s = seal_with(KEY);
	struct cdc_buf out;

	(void)state;
	cdc_buf_init(&out, 30);
	assert_int_equal(cdc_seal_put(s, "", 0, "too long", 8, &out, NULL), CDC_OK);
	assert_true(out.failed);
	cdc_buf_cut(&out, 0);
	assert_int_equal(cdc_seal_put(s, "", 0, "it", 2, &out, NULL), CDC_OK);
	assert_false(out.failed);
	cdc_buf_clear(&out);
	cdc_seal_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_published_vector_is_opened),
		cmocka_unit_test(what_is_sealed_is_opened_and_any_change_is_noticed),
		cmocka_unit_test(equal_values_are_sealed_differently),
		cmocka_unit_test(a_full_buffer_fails_and_the_seal_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
