/* The text of a commit time; expected texts are those of GNU date. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/instant.h"

static const struct {
	int64_t us;
	const char *text;
} pairs[] = {
	{0, "1970-01-01T00:00:00.000000Z"},
	{-1, "1969-12-31T23:59:59.999999Z"},
	{951782400000000, "2000-02-29T00:00:00.000000Z"},
	{951868799999999, "2000-02-29T23:59:59.999999Z"},
	{951868800000000, "2000-03-01T00:00:00.000000Z"},
	{1767225600000001, "2026-01-01T00:00:00.000001Z"},
	{4107542399000000, "2100-02-28T23:59:59.000000Z"},
	{4107542400000000, "2100-03-01T00:00:00.000000Z"},
	{253402300799999999, "9999-12-31T23:59:59.999999Z"},
	{253402300800000000, "10000-01-01T00:00:00.000000Z"},
	{-62135596800000000, "0001-01-01T00:00:00.000000Z"},
	{-62167219200000000, "0000-01-01T00:00:00.000000Z"},
	{-62167219200000001, "-0001-12-31T23:59:59.999999Z"},
	{INT64_MIN, "-290308-12-21T19:59:05.224192Z"},
	{INT64_MAX, "294247-01-10T04:00:54.775807Z"},
};

static void instant_is_written_in_utc_with_six_digits(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		char text[CDC_INSTANT_TEXT];

		assert_int_equal(cdc_instant_format(pairs[i].us, text), strlen(pairs[i].text));
		assert_string_equal(text, pairs[i].text);
	}
}

static void every_instant_is_read_back(void **state)
{
	uint64_t seed = 1;

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		int64_t us;

		assert_true(cdc_instant_parse(pairs[i].text, strlen(pairs[i].text), &us));
		assert_true(us == pairs[i].us);
	}
	for (int i = 0; i < 200000; i++) {
		char text[CDC_INSTANT_TEXT];
		int64_t us, back;

		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		us = (int64_t)seed >> (i % 40);
		assert_true(cdc_instant_parse(text, cdc_instant_format(us, text), &back));
		assert_true(back == us);
	}
}

static void text_that_is_no_instant_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"-",
		"Z",
		"2026-01-01T00:00:00.00000Z",
		"2026-01-01T00:00:00.0000000Z",
		"2026-01-01 00:00:00.000000Z",
		"2026-01-01T00:00:00.000000",
		"2026-01-01T00:00:00.000000z",
		"2026-00-01T00:00:00.000000Z",
		"2026-13-01T00:00:00.000000Z",
		"2026-02-29T00:00:00.000000Z",
		"1900-02-29T00:00:00.000000Z",
		"2026-04-31T00:00:00.000000Z",
		"2026-01-00T00:00:00.000000Z",
		"2026-01-01T24:00:00.000000Z",
		"2026-01-01T00:60:00.000000Z",
		"2026-01-01T00:00:60.000000Z",
		"-0000-01-01T00:00:00.000000Z",
		"02026-01-01T00:00:00.000000Z",
		"294247-01-10T04:00:54.775808Z",
		"-290308-12-21T19:59:05.224191Z",
		"999999-01-01T00:00:00.000000Z",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		size_t n = strlen(texts[i]);
		char *copy = malloc(n ? n : 1); /* no NUL behind it */
		int64_t us = 77;

		assert_non_null(copy);
		memcpy(copy, texts[i], n);
		assert_false(cdc_instant_parse(copy, n, &us));
		assert_true(us == 77);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instant_is_written_in_utc_with_six_digits),
		cmocka_unit_test(every_instant_is_read_back),
		cmocka_unit_test(text_that_is_no_instant_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
