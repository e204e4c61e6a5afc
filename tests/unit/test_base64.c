/* Base64 is that of RFC 4648, and nothing else is taken for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/base64.h"

static const struct {
	const char *bytes, *text;
	size_t n;
} vectors[] = {
	/* RFC 4648 section 10. */
	{"", "", 0},
	{"f", "Zg==", 1},
	{"fo", "Zm8=", 2},
	{"foo", "Zm9v", 3},
	{"foob", "Zm9vYg==", 4},
	{"fooba", "Zm9vYmE=", 5},
	{"foobar", "Zm9vYmFy", 6},
	{"\xfb\xff\xbf\0", "+/+/AA==", 4},
};

static void the_vectors_of_the_standard_hold_both_ways(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		const char *text = vectors[i].text;
		uint8_t bytes[8];
		struct cdc_buf out;
		size_t n, bare = strcspn(text, "=");

		cdc_buf_init(&out, 64);
		cdc_base64_put(&out, vectors[i].bytes, vectors[i].n);
		assert_int_equal(out.len, strlen(text));
		if (out.len)
			assert_memory_equal(out.data, text, out.len);
		cdc_buf_clear(&out);
		assert_true(cdc_base64_take(text, strlen(text), bytes, sizeof(bytes), &n));
		assert_int_equal(n, vectors[i].n);
		assert_memory_equal(bytes, vectors[i].bytes, n);
		assert_true(cdc_base64_take(text, bare, bytes, sizeof(bytes), &n));
		assert_int_equal(n, vectors[i].n);
	}
}

static void what_is_not_base64_is_refused(void **state)
{
	static const char *const texts[] = {
		"A",    "AAAAA", "AA=A", "=",    "====", "A===", "AA-_",
		"AA A", "AB",    "AAB",  "AB==", "AAB=", "AA=",  "Zg==Zg=="};
	uint8_t bytes[8];
	size_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (cdc_base64_take(texts[i], strlen(texts[i]), bytes, sizeof(bytes), &n))
			fail_msg("taken: %s", texts[i]);
	}
	assert_false(cdc_base64_take("AA\0A", 4, bytes, sizeof(bytes), &n));
	/* Of what fits, not a byte more. */
	assert_true(cdc_base64_take("AAAA", 4, bytes, 3, &n));
	assert_false(cdc_base64_take("AAAA", 4, bytes, 2, &n));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_vectors_of_the_standard_hold_both_ways),
		cmocka_unit_test(what_is_not_base64_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
