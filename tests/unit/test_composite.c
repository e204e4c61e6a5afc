/* Composite values, hstores, and texts that are not UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/composite.h"
#include "cdc/record/hstore.h"
#include "cdc/record/utf8.h"
#include "cdc/record/value.h"

#define TEXT_ARRAY 1009
#define MAX_N      3

/* A composite type with up to three attributes a, b, c, of these types. */
struct fixture {
	uint64_t odd;
	struct cdc_composite composite;
	struct cdc_type type;
	struct cdc_form *form;
};

static struct cdc_form *form_of(const struct cdc_form *older, bool only_grew, size_t n,
				const char *const *members, const struct cdc_type *const *types)
{
	struct cdc_form *form = calloc(1, sizeof(*form) + n * sizeof(*form->attributes));

	assert_non_null(form);
	form->older = older;
	form->only_grew = only_grew;
	form->n = n;
	for (size_t i = 0; i < n; i++)
		form->attributes[i] = (struct cdc_attribute){
			.member = members[i], .member_len = strlen(members[i]), .type = types[i]};
	return form;
}

static const char *const abc[MAX_N] = {"\"a\":", "\"b\":", "\"c\":"};

static int set_up(void **state)
{
	const struct cdc_type *types[MAX_N] = {
		cdc_type_scalar(CDC_KIND_NUMBER),
		cdc_type_scalar(CDC_KIND_TEXT),
		cdc_type_builtin(TEXT_ARRAY),
	};
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	f->form = form_of(NULL, true, MAX_N, abc, types);
	f->composite = (struct cdc_composite){.form = f->form, .odd = &f->odd};
	f->type = (struct cdc_type){.kind = CDC_KIND_COMPOSITE, .composite = &f->composite};
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	free(f->form);
	free(f);
	return 0;
}

/* The text is a copy without a NUL, so that a sanitizer sees an overrun. */
static void expect_json(const struct cdc_type *type, const char *text, const char *json)
{
	size_t len = strlen(text);
	char *copy = malloc(len ? len : 1);
	struct cdc_buf out;

	assert_non_null(copy);
	memcpy(copy, text, len);
	cdc_buf_init(&out, 1 << 16);
	assert_true(cdc_value_column(&out, type, copy, len));
	cdc_buf_putc(&out, '\0');
	assert_string_equal((const char *)out.data, json);
	cdc_buf_clear(&out);
	free(copy);
}

static void a_row_becomes_an_object(void **state)
{
	const struct fixture *f = *state;

	expect_json(&f->type, "(1,x,{})", "{\"a\":1,\"b\":\"x\",\"c\":[]}");
	expect_json(&f->type, "(,,)", "{\"a\":null,\"b\":null,\"c\":null}");
	expect_json(&f->type, "(NaN,\"\",\"{\"\"\"\",NULL}\")",
		    "{\"a\":\"NaN\",\"b\":\"\",\"c\":[\"\",null]}");
	expect_json(&f->type, "(-0,NULL,\"{\"\"a\\\\\"\"b\\\\\\\\c\"\"}\")",
		    "{\"a\":-0,\"b\":\"NULL\",\"c\":[\"a\\\"b\\\\c\"]}");
	expect_json(&f->type, "(1.50,\"a \"\"q\"\" (x),\\\\\n\",)",
		    "{\"a\":1.50,\"b\":\"a \\\"q\\\" (x),\\\\\\n\",\"c\":null}");
	assert_int_equal(f->odd, 0);
}

static void text_that_is_no_row_of_the_type_is_text_and_counted(void **state)
{
	static const char *const texts[] = {
		"",           "x",         "(",          "()",
		"(1,x,{}",    "(1,x,{})x", "(1,\"x,{})", "(1,x\"y\",{})",
		"(1,x\\,{})", "(1,(,{})",  "(1,x,{},)",  "(1,x,broken)",
	};
	struct fixture *f = *state;

	f->form->only_grew = false;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct cdc_buf text;

		cdc_buf_init(&text, 1 << 16);
		cdc_value_string(&text, texts[i], strlen(texts[i]));
		cdc_buf_putc(&text, '\0');
		expect_json(&f->type, texts[i], (const char *)text.data);
		cdc_buf_clear(&text);
		assert_int_equal(f->odd, i + 1);
	}
}

static void a_row_from_before_attributes_were_added_has_the_first_ones(void **state)
{
	const struct fixture *f = *state;

	expect_json(&f->type, "(1,x)", "{\"a\":1,\"b\":\"x\"}");
	expect_json(&f->type, "(1)", "{\"a\":1}");
	expect_json(&f->type, "()", "{\"a\":null}");
	assert_int_equal(f->odd, 0);
}

static void the_number_of_fields_tells_which_form_a_row_has(void **state)
{
	static const char *const former[2] = {"\"was\":", "\"gone\":"};
	const struct cdc_type *types[MAX_N] = {cdc_type_scalar(CDC_KIND_TEXT),
					       cdc_type_scalar(CDC_KIND_BOOL),
					       cdc_type_scalar(CDC_KIND_TEXT)};
	struct fixture *f = *state;
	struct cdc_form *older = form_of(f->form, true, 2, former, types);
	struct cdc_form *newest = form_of(older, false, 1, abc, types);

	f->composite.form = newest;
	expect_json(&f->type, "(x)", "{\"a\":\"x\"}");
	expect_json(&f->type, "(x,t)", "{\"was\":\"x\",\"gone\":true}");
	expect_json(&f->type, "(1,2,)", "{\"a\":1,\"b\":\"2\",\"c\":null}");
	assert_int_equal(f->odd, 0);
	expect_json(&f->type, "(x,y)", "\"(x,y)\""); /* y is no bool */
	assert_int_equal(f->odd, 1);
	free(newest);
	free(older);
}

static void a_row_without_attributes_is_an_empty_object(void **state)
{
	struct fixture *f = *state;

	f->form->n = 0;
	expect_json(&f->type, "()", "{}");
	assert_int_equal(f->odd, 0);
	expect_json(&f->type, "(1)", "\"(1)\"");
	assert_int_equal(f->odd, 1);
}

static void rows_nest_in_arrays_and_rows(void **state)
{
	const struct fixture *f = *state;
	const struct cdc_type array = {.kind = CDC_KIND_ARRAY, .delim = ',', .elem = &f->type};
	const struct cdc_type *types[1] = {&array};
	struct cdc_form *form = form_of(NULL, true, 1, abc, types);
	uint64_t odd = 0;
	struct cdc_composite outer = {.form = form, .odd = &odd};
	const struct cdc_type type = {.kind = CDC_KIND_COMPOSITE, .composite = &outer};

	expect_json(&type, "(\"{\"\"(1,\\\\\"\"x,y\\\\\"\",)\"\",NULL}\")",
		    "{\"a\":[{\"a\":1,\"b\":\"x,y\",\"c\":null},null]}");
	assert_int_equal(odd, 0);
	assert_int_equal(f->odd, 0);
	free(form);
}

static void an_hstore_becomes_an_object(void **state)
{
	const struct cdc_type *type = cdc_type_scalar(CDC_KIND_HSTORE);

	(void)state;
	expect_json(type, "", "{}");
	expect_json(type, "\"a\"=>\"1\", \"\"=>NULL, \"q\\\"\\\\\"=>\"NULL\"",
		    "{\"a\":\"1\",\"\":null,\"q\\\"\\\\\":\"NULL\"}");
}

static void text_that_is_no_hstore_is_refused(void **state)
{
	static const char *const texts[] = {
		" ",
		"a=>1",
		"\"a\"",
		"\"a\"=>",
		"\"a\"=>1",
		"\"a\"=>\"1",
		"\"a\"=>\"1\",",
		"\"a\"=>\"1\"x",
		"\"a\"=>NULL\"b\"=>NULL",
		"\"a\\\"=>NULL",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct cdc_buf out;

		cdc_buf_init(&out, 1 << 16);
		if (cdc_hstore_write(&out, texts[i], strlen(texts[i])))
			fail_msg("%s was taken", texts[i]);
		cdc_buf_clear(&out);
	}
}

static void utf8_is_told_from_other_bytes(void **state)
{
	static const struct {
		const char *text;
		size_t valid;
	} cases[] = {
		{"", 0},
		{"plain text, of more than a word", 31},
		{"caf\xc3\xa9", 5},
		{"\xe6\x97\xa5\xf0\x9f\x8e\x89", 7},
		{"\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", 10},
		{"12345678\xff", 8},
		{"a\x80", 1}, /* a tail without a head */
		{"a\xc3", 1}, /* cut short */
		{"a\xe6\x97", 1},
		{"a\xf0\x9f\x8e", 1},
		{"\xc0\x80", 0}, /* overlong */
		{"\xe0\x9f\xbf", 0},
		{"\xf0\x8f\xbf\xbf", 0},
		{"\xed\xa0\x80", 0},     /* a surrogate */
		{"\xf4\x90\x80\x80", 0}, /* above U+10FFFF */
		{"\xe6\x97x", 0},
		{"\xc3\xc3\xa9", 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(cdc_utf8_valid(cases[i].text, strlen(cases[i].text)),
				 cases[i].valid);
}

static void what_is_not_utf8_is_its_bytes(void **state)
{
	struct cdc_buf out;

	(void)state;
	expect_json(cdc_type_scalar(CDC_KIND_TEXT), "a\xff", "{\"$bytes\":\"\\\\x61ff\"}");
	expect_json(cdc_type_builtin(TEXT_ARRAY), "{\xe9}", "{\"$bytes\":\"\\\\x7be97d\"}");
	cdc_buf_init(&out, 64);
	cdc_value_name(&out, "caf\xe9\"", 5);
	cdc_buf_putc(&out, '\0');
	assert_string_equal((const char *)out.data, "\"caf\xef\xbf\xbd\\\"\"");
	cdc_buf_clear(&out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_row_becomes_an_object),
		TEST(text_that_is_no_row_of_the_type_is_text_and_counted),
		TEST(a_row_from_before_attributes_were_added_has_the_first_ones),
		TEST(the_number_of_fields_tells_which_form_a_row_has),
		TEST(a_row_without_attributes_is_an_empty_object),
		TEST(rows_nest_in_arrays_and_rows),
		cmocka_unit_test(an_hstore_becomes_an_object),
		cmocka_unit_test(text_that_is_no_hstore_is_refused),
		cmocka_unit_test(utf8_is_told_from_other_bytes),
		cmocka_unit_test(what_is_not_utf8_is_its_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
