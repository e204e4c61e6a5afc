/* A body that is compressed for others fits, or says that it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/compress.h"

#define BYTES 100000

/* What does not shrink. */
static void noise(uint8_t *bytes, size_t n)
{
	uint32_t x = 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(x >> 24);
	}
}

static void a_body_begins_as_its_format_says_and_is_the_same_again(void **state)
{
	static const uint8_t gzip[] = {0x1f, 0x8b, 8}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
	struct cdc_encoder *encoders[] = {cdc_encoder_new(CDC_ENCODING_GZIP),
					  cdc_encoder_new(CDC_ENCODING_ZSTD)};
	struct cdc_buf once, again;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		assert_non_null(encoders[i]);
		cdc_buf_init(&once, BYTES);
		cdc_buf_init(&again, BYTES);
		assert_int_equal(cdc_encode(encoders[i], "abcabcabc", 9, &once, NULL), CDC_OK);
		assert_int_equal(cdc_encode(encoders[i], "abcabcabc", 9, &again, NULL), CDC_OK);
		assert_int_equal(once.len, again.len);
		assert_memory_equal(once.data, again.data, once.len);
		if (i == 0)
			assert_memory_equal(once.data, gzip, sizeof(gzip));
		else
			assert_memory_equal(once.data, zstd, sizeof(zstd));
		cdc_buf_clear(&once);
		cdc_buf_clear(&again);
		cdc_encoder_free(encoders[i]);
	}
}

static void a_body_that_passes_the_limit_is_refused(void **state)
{
	static const enum cdc_encoding encodings[] = {CDC_ENCODING_GZIP, CDC_ENCODING_ZSTD};
	uint8_t *bytes = malloc(BYTES);
	struct cdc_buf out;

	(void)state;
	assert_non_null(bytes);
	noise(bytes, BYTES);
	for (size_t i = 0; i < 2; i++) {
		struct cdc_encoder *e = cdc_encoder_new(encodings[i]);

		assert_non_null(e);
		cdc_buf_init(&out, BYTES / 2);
		assert_int_equal(cdc_encode(e, bytes, BYTES, &out, NULL), CDC_LIMIT);
		assert_int_equal(out.len, 0);
		/* The next one is not hurt. */
		cdc_buf_reset(&out, BYTES);
		assert_int_equal(cdc_encode(e, bytes, BYTES / 4, &out, NULL), CDC_OK);
		assert_true(out.len > 0);
		cdc_buf_clear(&out);
		cdc_encoder_free(e);
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_body_begins_as_its_format_says_and_is_the_same_again),
		cmocka_unit_test(a_body_that_passes_the_limit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
