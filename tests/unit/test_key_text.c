/* A key of a record as people write it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/cli/key_text.h"

static void keys_are_brought_to_the_form_of_records(void **state)
{
	static const struct {
		const char *text, *key;
	} cases[] = {
		{"{\"id\":1}", "{\"id\":1}"},
		{" { \"id\" : 1 , \"b\":\t\"x y\" }\n", "{\"id\":1,\"b\":\"x y\"}"},
		{"{\"a\": {\"k\": [1, 2]}}", "{\"a\":{\"k\": [1, 2]}}"},
		{"{\"a b\": null, \"\": 1.50}", "{\"a b\":null,\"\":1.50}"},
		{" null ", "null"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cdc_buf out;

		cdc_buf_init(&out, 1024);
		assert_true(cdc_key_text(cases[i].text, &out));
		assert_string_equal((const char *)out.data, cases[i].key);
		cdc_buf_clear(&out);
	}
}

static void what_no_record_has_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"{",
		"{}",
		"{ }",
		"}",
		"[1]",
		"1",
		"\"id\"",
		"{\"id\"}",
		"{\"id\":}",
		"{\"id\":1",
		"{id:1}",
		"{'id':1}",
		"nulls",
		"nul",
		"{\"id\":1}}",
		"{\"id\":1} x",
		"{\"id\":1,}",
		"{\"id\":01}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct cdc_buf out;

		cdc_buf_init(&out, 1024);
		if (cdc_key_text(texts[i], &out))
			fail_msg("%s is taken", texts[i]);
		cdc_buf_clear(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_brought_to_the_form_of_records),
		cmocka_unit_test(what_no_record_has_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
