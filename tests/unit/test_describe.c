/* Texts by key, and what of a table's description has changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/source/describe.h"
#include "cdc/source/text_map.h"

static void a_map_gives_back_what_was_put_last(void **state)
{
	struct cdc_text_map m;
	char text[32];

	(void)state;
	cdc_text_map_init(&m, 1 << 20);
	assert_null(cdc_text_map_get(&m, "", 0));
	for (int turn = 0; turn < 2; turn++) {
		for (uint32_t key = 0; key < 3000; key++) {
			int n = snprintf(text, sizeof(text), "%u%s", key, turn ? " again" : "");

			assert_true(cdc_text_map_put(&m, &key, sizeof(key), text, (size_t)n));
		}
		for (uint32_t key = 0; key < 3000; key++) {
			(void)snprintf(text, sizeof(text), "%u%s", key, turn ? " again" : "");
			assert_string_equal(cdc_text_map_get(&m, &key, sizeof(key)), text);
			assert_null(cdc_text_map_get(&m, &key, sizeof(key) - 1));
		}
		assert_int_equal(m.n, 3000);
	}
	cdc_text_map_clear(&m);
	assert_null(cdc_text_map_get(&m, &(uint32_t){1}, 4));
	assert_int_equal(m.max_bytes, 1 << 20);
}

static void a_map_has_a_maximum(void **state)
{
	struct cdc_text_map m;

	(void)state;
	cdc_text_map_init(&m, 10);
	assert_true(cdc_text_map_put(&m, "a", 1, "123", 3)); /* 5 with the NUL */
	assert_false(cdc_text_map_put(&m, "b", 1, "1234", 4));
	assert_null(cdc_text_map_get(&m, "b", 1));
	assert_true(cdc_text_map_put(&m, "b", 1, "123", 3));
	assert_false(cdc_text_map_put(&m, "a", 1, "1234", 4));
	assert_string_equal(cdc_text_map_get(&m, "a", 1), "123");
	assert_true(cdc_text_map_put(&m, "a", 1, "", 0));
	assert_true(cdc_text_map_put(&m, "b", 1, "12345", 5));
	assert_false(cdc_text_map_put(&m, "c", 1, "12345678901234567890", 20));
	cdc_text_map_clear(&m);
}

static void expect_changes(const char *before, const char *after, const char *expected)
{
	struct cdc_buf out;

	cdc_buf_init(&out, 1000);
	cdc_describe_changes(before, after, &out);
	cdc_buf_putc(&out, '\0');
	assert_string_equal((const char *)out.data, expected);
	cdc_buf_clear(&out);
}

static void changes_are_the_former_values_of_what_is_other_now(void **state)
{
	(void)state;
	expect_changes("{\"a\":[1],\"b\":\"x\",\"c\":3}", "{\"a\":[1],\"b\":\"x\",\"c\":3}", "{}");
	expect_changes("{\"a\":[1],\"b\":\"x\",\"c\":3}", "{\"a\":[1,2],\"b\":\"x\",\"c\":4}",
		       "{\"a\":[1],\"c\":3}");
	expect_changes("{\"a\":1,\"b\":2}", "{\"b\":2,\"d\":1}", "{\"a\":1}");
	expect_changes("{}", "{\"a\":1}", "{}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_map_gives_back_what_was_put_last),
		cmocka_unit_test(a_map_has_a_maximum),
		cmocka_unit_test(changes_are_the_former_values_of_what_is_other_now),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
