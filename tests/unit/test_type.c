/* Values: PostgreSQL 15 itself says, in types.inc, what every text of every type becomes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/array.h"
#include "cdc/record/type.h"
#include "cdc/record/value.h"

static const struct {
	uint32_t oid;
	enum cdc_kind kind;
	char delim;
	uint32_t elem;
} types[] = {
#define TYPE(oid, kind, delim, elem) {oid, kind, delim, elem},
#define VALUE(oid, text, json)
#include "tests/unit/types.inc"
#undef TYPE
#undef VALUE
};

static const struct {
	uint32_t oid;
	const char *text, *json;
} values[] = {
#define TYPE(oid, kind, delim, elem)
#define VALUE(oid, text, json) {oid, text, json},
#include "tests/unit/types.inc"
#undef TYPE
#undef VALUE
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

#define INT4_ARRAY        1007
#define TEXT_ARRAY        1009
#define BOX_ARRAY         1020
#define INT2_VECTOR       22
#define INT2_VECTOR_ARRAY 1006

/* What the text becomes, as a string, or NULL: refused.  The text is a copy without a NUL, so that
 * a sanitizer sees an overrun.  The caller frees the result. */
static char *json_of(const struct cdc_type *type, const char *text, size_t len)
{
	char *copy = malloc(len ? len : 1), *json = NULL;
	struct cdc_buf out;

	assert_non_null(copy);
	memcpy(copy, text, len);
	cdc_buf_init(&out, 1 << 20);
	if (cdc_value_write(&out, type, copy, len)) {
		cdc_buf_putc(&out, '\0');
		assert_false(out.failed);
		json = strdup((const char *)out.data);
	}
	cdc_buf_clear(&out);
	free(copy);
	return json;
}

static void every_type_of_the_server_is_known_with_its_rule(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(types); i++) {
		const struct cdc_type *t = cdc_type_builtin(types[i].oid);

		if (!t)
			fail_msg("type %u is not known", types[i].oid);
		if (t->kind != types[i].kind)
			fail_msg("type %u has another rule", types[i].oid);
		if (t->kind != CDC_KIND_ARRAY)
			continue;
		assert_int_equal(t->delim, types[i].delim);
		if (cdc_type_builtin(types[i].elem) != t->elem)
			fail_msg("the elements of type %u have another rule", types[i].oid);
	}
}

static void a_type_that_is_not_built_in_is_left_to_the_catalog(void **state)
{
	(void)state;
	assert_null(cdc_type_builtin(0));
	assert_null(cdc_type_builtin(16384));
	assert_null(cdc_type_builtin(UINT32_MAX));
	assert_null(cdc_type_builtin(16 + (1U << 16))); /* equal in its low half only */
}

static void scalar_of_a_kind_is_that_of_its_types(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(types); i++) {
		if (types[i].kind != CDC_KIND_ARRAY)
			assert_ptr_equal(cdc_type_scalar(types[i].kind),
					 cdc_type_builtin(types[i].oid));
	}
	assert_int_equal(cdc_type_scalar(CDC_KIND_ARRAY)->kind, CDC_KIND_TEXT);
}

static void value_is_what_to_json_makes_of_it(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(values); i++) {
		const struct cdc_type *type = cdc_type_builtin(values[i].oid);
		char *json;

		assert_non_null(type);
		json = json_of(type, values[i].text, strlen(values[i].text));
		if (!json)
			fail_msg("type %u refuses %s", values[i].oid, values[i].text);
		assert_string_equal(json, values[i].json);
		free(json);
	}
}

static void value_that_does_not_fit_fails_and_stays_inside(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(values); i++) {
		for (size_t max = 0; max <= strlen(values[i].json); max++) {
			struct cdc_buf out;

			cdc_buf_init(&out, max);
			(void)!cdc_value_write(&out, cdc_type_builtin(values[i].oid),
					       values[i].text, strlen(values[i].text));
			assert_int_equal(out.failed, max < strlen(values[i].json));
			assert_true(out.len <= max);
			cdc_buf_clear(&out);
		}
	}
}

static void damaged_text_of_an_array_stays_inside(void **state)
{
	static const char bytes[] = "{}\",\\N[]=:; ";

	(void)state;
	for (size_t i = 0; i < COUNT(values); i++) {
		const struct cdc_type *type = cdc_type_builtin(values[i].oid);
		size_t len = strlen(values[i].text);
		char *text;

		if (type->kind != CDC_KIND_ARRAY)
			continue;
		text = strdup(values[i].text);
		assert_non_null(text);
		for (size_t at = 0; at < len; at++) {
			free(json_of(type, text, at));
			for (const char *b = bytes; *b; b++) {
				text[at] = *b;
				free(json_of(type, text, len));
			}
			text[at] = values[i].text[at];
		}
		free(text);
	}
}

static void text_that_is_no_array_is_refused(void **state)
{
	static const struct {
		uint32_t oid;
		const char *text;
	} bad[] = {
		{INT4_ARRAY, ""},
		{INT4_ARRAY, "1"},
		{INT4_ARRAY, "{"},
		{INT4_ARRAY, "{1"},
		{INT4_ARRAY, "{1,"},
		{INT4_ARRAY, "{1,}"},
		{INT4_ARRAY, "{,1}"},
		{INT4_ARRAY, "{1}}"},
		{INT4_ARRAY, "{1}x"},
		{INT4_ARRAY, "{{1}"},
		{INT4_ARRAY, "{1{2}}"},
		{INT4_ARRAY, "{\"1\\2\"}"},
		{INT4_ARRAY, "{{{{{{{1}}}}}}}"}, /* seven dimensions */
		{INT4_ARRAY, "[0:1]{1,2}"},
		{INT4_ARRAY, "[0:1]="},
		{INT4_ARRAY, "[0:1"},
		{TEXT_ARRAY, "{\"a}"},
		{TEXT_ARRAY, "{\"a\\"},
		{TEXT_ARRAY, "{\"a\\\"}"},
		{TEXT_ARRAY, "{\"a\"b}"},
		{TEXT_ARRAY, "{a\"b\"}"},
		{TEXT_ARRAY, "{a\\b}"},
		{TEXT_ARRAY, "{a;b"},
		{BOX_ARRAY, "{"},
		{INT2_VECTOR, " "},
		{INT2_VECTOR, "1 "},
		{INT2_VECTOR, " 1"},
		{INT2_VECTOR, "1  2"},
		{INT2_VECTOR_ARRAY, "{\"1 \"}"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		if (json_of(cdc_type_builtin(bad[i].oid), bad[i].text, strlen(bad[i].text)))
			fail_msg("%s was taken", bad[i].text);
	}
}

static void scalar_that_its_type_does_not_allow_is_refused(void **state)
{
	(void)state;
	assert_null(json_of(cdc_type_scalar(CDC_KIND_BOOL), "", 0));
	assert_null(json_of(cdc_type_scalar(CDC_KIND_BOOL), "true", 4));
	assert_null(json_of(cdc_type_scalar(CDC_KIND_BOOL), "x", 1));
	assert_null(json_of(cdc_type_scalar(CDC_KIND_JSON), "", 0));
}

static void number_is_written_bare_only_where_json_has_it(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} numbers[] = {
		{"", 0},    {"-", 0},    {"+1", 0},  {".5", 0},   {"x", 0},    {"0", 1},
		{"-0", 2},  {"01", 1},   {"10", 2},  {"1.", 1},   {"1.5", 3},  {"1.5.6", 3},
		{"1e", 1},  {"1e+", 1},  {"1e5", 3}, {"1E-5", 4}, {"1e5e", 3}, {"1.25e+10x", 8},
		{"NaN", 0}, {"0x10", 1}, {"1 ", 1},  {"-1e5", 4},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(numbers); i++)
		assert_int_equal(cdc_value_number(numbers[i].text, strlen(numbers[i].text)),
				 numbers[i].len);
}

static void every_byte_is_escaped_where_it_must_be_at_every_place(void **state)
{
	char text[40];

	(void)state;
	for (unsigned byte = 0; byte < 256; byte++) {
		for (size_t at = 0; at < sizeof(text); at++) {
			bool is_plain = byte >= 0x20 && byte != '"' && byte != '\\';

			/* 0xa2 and 0xdc: a quote and a backslash with the high bit set. */
			memset(text, at % 2 ? 0xa2 : 0xdc, sizeof(text));
			text[at] = (char)byte;
			assert_int_equal(cdc_value_plain(text, sizeof(text)),
					 is_plain ? sizeof(text) : at);
			assert_int_equal(cdc_value_plain(text, at), at);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_of_the_server_is_known_with_its_rule),
		cmocka_unit_test(a_type_that_is_not_built_in_is_left_to_the_catalog),
		cmocka_unit_test(scalar_of_a_kind_is_that_of_its_types),
		cmocka_unit_test(value_is_what_to_json_makes_of_it),
		cmocka_unit_test(value_that_does_not_fit_fails_and_stays_inside),
		cmocka_unit_test(damaged_text_of_an_array_stays_inside),
		cmocka_unit_test(text_that_is_no_array_is_refused),
		cmocka_unit_test(scalar_that_its_type_does_not_allow_is_refused),
		cmocka_unit_test(number_is_written_bare_only_where_json_has_it),
		cmocka_unit_test(every_byte_is_escaped_where_it_must_be_at_every_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
