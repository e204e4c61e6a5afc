/* Positions in the log: their text and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/lsn.h"

static const struct {
	cdc_lsn lsn;
	const char *text;
} pairs[] = {
	{0, "0/0"},
	{1, "0/1"},
	{0x16b3748, "0/16B3748"},
	{UINT64_C(0x100000000), "1/0"},
	{UINT64_C(0x16b374d848), "16/B374D848"},
	{UINT64_C(0xa00000000f), "A0/F"},
	{UINT64_MAX, "FFFFFFFF/FFFFFFFF"},
};

static void lsn_is_written_as_postgresql_writes_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		char text[CDC_LSN_TEXT];

		assert_int_equal(cdc_lsn_format(pairs[i].lsn, text), strlen(pairs[i].text));
		assert_string_equal(text, pairs[i].text);
	}
}

static void lsn_is_read_in_every_spelling_of_its_halves(void **state)
{
	cdc_lsn lsn;

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
		assert_true(cdc_lsn_parse(pairs[i].text, strlen(pairs[i].text), &lsn));
		assert_true(lsn == pairs[i].lsn);
	}
	assert_true(cdc_lsn_parse("0000000a/0000000B", 17, &lsn));
	assert_true(lsn == UINT64_C(0xa0000000b));
	assert_true(cdc_lsn_parse("1/2garbage", 3, &lsn)); /* n bytes, not one more */
	assert_true(lsn == UINT64_C(0x100000002));
}

static void text_that_is_no_lsn_is_refused_and_writes_nothing(void **state)
{
	static const char *const texts[] = {
		"",     "/",    "0",     "0/",          "/0",          "0/0/0",       "0/0 ",
		" 0/0", "-1/0", "+1/0",  "0x1/0",       "g/0",         "0/G",         "0.0",
		"1//2", "0/\n", "/////", "123456789/0", "0/123456789", "0/000000000",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		cdc_lsn lsn = 77;

		assert_false(cdc_lsn_parse(texts[i], strlen(texts[i]), &lsn));
		assert_true(lsn == 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lsn_is_written_as_postgresql_writes_it),
		cmocka_unit_test(lsn_is_read_in_every_spelling_of_its_halves),
		cmocka_unit_test(text_that_is_no_lsn_is_refused_and_writes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
