/* What follows from the facts about a source. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/source/judge.h"

static void L10_X31_minor_versions_with_mistakes_of_decoding(void **state)
{
	static const struct {
		int version, mended;
		const char *says;
	} cases[] = {
		{150001, 15, "ADD TABLE"}, {150002, 15, "ADD TABLE"}, {150012, 15, "ADD TABLE"},
		{130020, 23, "ADD TABLE"}, {180000, 2, "remove WAL"}, {160010, 12, "remove WAL"},
	};
	char text[CDC_MINOR_BYTES];
	int mended;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(cdc_judge_minor(cases[i].version, text, &mended) > 0);
		assert_non_null(strstr(text, cases[i].says));
		assert_true(mended >= cases[i].mended);
	}
	assert_int_equal(cdc_judge_minor(150002, text, &mended) + 1,
			 cdc_judge_minor(150001, text, &mended));
}

static void minor_versions_without_them(void **state)
{
	static const int versions[] = {130023, 140021, 150016, 160012, 170008, 180002, 190000};
	char text[CDC_MINOR_BYTES];
	int mended;

	(void)state;
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		assert_int_equal(cdc_judge_minor(versions[i], text, &mended), 0);
		assert_string_equal(text, "");
	}
}

static void versions_that_are_too_old(void **state)
{
	struct cdc_err err;

	(void)state;
	assert_int_equal(cdc_judge_version(130000, "here", &err), CDC_OK);
	assert_int_equal(cdc_judge_version(120022, "here", &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, "12.22"));
	assert_int_equal(cdc_judge_version(90624, "here", &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, "9.6"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(L10_X31_minor_versions_with_mistakes_of_decoding),
		cmocka_unit_test(minor_versions_without_them),
		cmocka_unit_test(versions_that_are_too_old),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
