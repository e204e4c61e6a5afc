/* The identity of a record: its text, and that the order of texts is the order of ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/id.h"

/* Rising; each field differs once in its lowest and once in its highest byte. */
static const struct cdc_id rising[] = {
	{0},
	{.part = 1},
	{.part = 2},
	{.part = 0xffff},
	{.ordinal = 1},
	{.ordinal = 1, .part = 1},
	{.ordinal = 0xff000000},
	{.commit_lsn = 1},
	{.commit_lsn = 1, .range = 1, .row = 1},
	{.commit_lsn = 1, .range = 1, .row = 2},
	{.commit_lsn = 1, .range = 0xff000000, .row = 0},
	{.commit_lsn = 1, .ordinal = 1, .part = 0},
	{.commit_lsn = UINT64_C(0xff00000000000000)},
	{.epoch = CDC_EPOCH(0, 1)},
	{.epoch = CDC_EPOCH(0, 0xffffff), .commit_lsn = UINT64_MAX, .ordinal = UINT32_MAX},
	{.epoch = CDC_EPOCH(1, 1), .commit_lsn = 5, .ordinal = 1, .part = 1},
	{.epoch = CDC_EPOCH(255, 1)},
};

#define RISING (sizeof(rising) / sizeof(*rising))

static void id_has_a_text_of_fixed_width(void **state)
{
	const struct cdc_id id = {.epoch = CDC_EPOCH(1, 0x2a),
				  .commit_lsn = UINT64_C(0x16b374d848),
				  .ordinal = 0x1f,
				  .part = 1};
	struct cdc_id row = {
		.epoch = 1, .commit_lsn = UINT64_MAX, .range = 0xabc, .row = 0xffffffff};
	char text[CDC_ID_TEXT];

	(void)state;
	assert_int_equal(cdc_id_format(&id, text), 39);
	assert_string_equal(text, "0100002a-00000016b374d848-0000001f-0001");
	assert_int_equal(cdc_id_format(&row, text), 57);
	assert_string_equal(text, "00000001-ffffffffffffffff-00000000-0000-00000abc-ffffffff");
	assert_int_equal(CDC_EPOCH_GENERATION(id.epoch), 1);
}

static void order_of_texts_is_the_order_of_ids(void **state)
{
	(void)state;
	for (size_t i = 0; i < RISING; i++) {
		for (size_t k = 0; k < RISING; k++) {
			char a[CDC_ID_TEXT], b[CDC_ID_TEXT];
			int want = i < k ? -1 : i > k, texts;

			(void)cdc_id_format(&rising[i], a);
			(void)cdc_id_format(&rising[k], b);
			texts = strcmp(a, b);
			assert_int_equal(cdc_id_cmp(&rising[i], &rising[k]), want);
			assert_int_equal(texts < 0 ? -1 : texts > 0, want);
		}
		assert_int_equal(cdc_id_is_zero(&rising[i]), i == 0);
	}
}

static void text_of_an_id_is_read_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < RISING; i++) {
		char text[CDC_ID_TEXT];
		size_t n = cdc_id_format(&rising[i], text);
		struct cdc_id id;

		memset(&id, 0xff, sizeof(id));
		assert_true(cdc_id_parse(text, n, &id));
		assert_memory_equal(&id, &rising[i], sizeof(id)); /* the padding is zero, too */
	}
}

static void text_that_is_no_id_is_refused(void **state)
{
	static const char good[] = "00000001-ffffffffffffffff-00000000-0000-00000abc-ffffffff";
	static const char zero_row[] = "00000001-ffffffffffffffff-00000000-0000-00000000-00000000";
	struct cdc_id id;

	(void)state;
	assert_true(cdc_id_parse(good, sizeof(good) - 1, &id));
	for (size_t n = 0; n < sizeof(good) + 1; n++) {
		/* Of its own, so that a sanitizer sees an overrun. */
		char *cut = calloc(1, n ? n : 1);

		assert_non_null(cut);
		memcpy(cut, good, n < sizeof(good) ? n : sizeof(good));
		assert_int_equal(cdc_id_parse(cut, n, &id), n == 39 || n == 57);
		free(cut);
	}
	for (size_t i = 0; i < sizeof(good) - 1; i++) {
		char bad[sizeof(good)];

		memcpy(bad, good, sizeof(good));
		bad[i] = good[i] == '-' ? '0' : '-';
		assert_false(cdc_id_parse(bad, sizeof(good) - 1, &id));
		bad[i] = 'A'; /* lower case only: byte order is the order of ids */
		assert_false(cdc_id_parse(bad, sizeof(good) - 1, &id));
	}
	assert_false(cdc_id_parse(zero_row, sizeof(zero_row) - 1, &id)); /* has a shorter text */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(id_has_a_text_of_fixed_width),
		cmocka_unit_test(order_of_texts_is_the_order_of_ids),
		cmocka_unit_test(text_of_an_id_is_read_back),
		cmocka_unit_test(text_that_is_no_id_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
