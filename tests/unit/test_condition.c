/*
 * Filters on values: numbers by their digits, moments, texts, arrays, null.  What
 * PostgreSQL says of the same is in tests/system/test_selection.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cdc/record/condition.h"
#include "cdc/record/decimal.h"
#include "cdc/record/moment.h"

#define NOW_US INT64_C(1709208000000000) /* 2024-02-29T12:00:00Z */

static int order_of(const char *a, const char *b)
{
	struct cdc_decimal x, y;

	assert_true(cdc_decimal_parse(a, strlen(a), &x));
	assert_true(cdc_decimal_parse(b, strlen(b), &y));
	return cdc_decimal_cmp(&x, &y);
}

static void numbers_are_compared_by_their_digits(void **state)
{
	/* Rising; equal ones in one row. */
	static const char *const rising[][4] = {
		{"-Infinity"},
		{"-1e400", "-10e399"},
		{"-9223372036854775808"},
		{"-12.5", "-12.50", "-1.25e1", "-0125e-1"},
		{"-0.1"},
		{"0", "-0.000", "0e9999999999", ".0"},
		{"1e-400"},
		{"0.09999999999999999999"},
		{"0.1", ".1", "1e-1", "0.10"},
		{"9007199254740992"},
		{"9007199254740993", "+9007199254740993.0"},
		{"1e400"},
		{"Infinity"},
		{"NaN"},
	};
	const size_t n = sizeof(rising) / sizeof(rising[0]);
	static const char *const none[] = {"",   "-",   ".",  "1.2.3", "1e",
					   "e1", "0x1", "1 ", "--1",   "nan"};
	struct cdc_decimal d;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < n; k++) {
			for (size_t p = 0; p < 4 && rising[i][p]; p++) {
				for (size_t q = 0; q < 4 && rising[k][q]; q++) {
					const int order = order_of(rising[i][p], rising[k][q]);

					assert_int_equal((order > 0) - (order < 0),
							 (i > k) - (i < k));
				}
			}
		}
	}
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_false(cdc_decimal_parse(none[i], strlen(none[i]), &d));
}

static struct cdc_moment moment(const char *text)
{
	struct cdc_moment m;

	assert_true(cdc_moment_parse(text, strlen(text), &m));
	return m;
}

static void moments_are_read_in_every_form(void **state)
{
	static const char *const same[] = {"2024-02-29T12:00:00Z",      "2024-02-29 12:00",
					   "2024-02-29T12:00:00+00:00", "2024-02-29T14:00:00+02",
					   "2024-02-29T09:30:00-0230",  "2024-02-29T12:00:00.000"};
	static const char *const rising[] = {"-infinity",     "4713-01-01 BC",
					     "0044-03-15 BC", "0001-12-31 BC",
					     "0001-01-01",    "1970-01-01",
					     "2024-02-29",    "2024-02-29T12:00:00.000001Z",
					     "2024-03-01",    "9999-12-31",
					     "10000-01-01",   "294276-12-31T23:59:59.999999+00:00",
					     "infinity"};
	static const char *const none[] = {"",
					   "2024",
					   "2024-2-29",
					   "2023-02-29",
					   "2024-13-01",
					   "2024-02-29T",
					   "2024-02-29T25:00",
					   "2024-02-29 x",
					   "2024-02-29T12:00:00.",
					   "2024-02-29T12:00+17"};
	const struct cdc_moment now = cdc_moment_of(NOW_US);
	struct cdc_moment m;

	(void)state;
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		m = moment(same[i]);
		assert_int_equal(cdc_moment_cmp(&m, &now), 0);
	}
	for (size_t i = 1; i < sizeof(rising) / sizeof(rising[0]); i++) {
		const struct cdc_moment before = moment(rising[i - 1]);

		m = moment(rising[i]);
		assert_true(cdc_moment_cmp(&before, &m) < 0);
		assert_true(cdc_moment_cmp(&m, &before) > 0);
	}
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_false(cdc_moment_parse(none[i], strlen(none[i]), &m));
	assert_int_equal(moment("1970-01-02").day, 1);
	assert_int_equal(moment("1969-12-31T23:00:00Z").day, -1);
}

static void spans_are_added_as_the_calendar_has_them(void **state)
{
	static const struct {
		const char *from, *span, *to;
	} cases[] = {
		{"2024-03-31", "1 month ago", "2024-02-29"},
		{"2024-02-29", "1 year ago", "2023-02-28"},
		{"2024-01-15", "14 months ago", "2022-11-15"},
		{"2024-01-31", "1 month from now", "2024-02-29"},
		{"2024-03-01T01:00:00Z", "2 hours ago", "2024-02-29T23:00:00Z"},
		{"2024-03-01", "1 week ago", "2024-02-23"},
		{"2024-03-01", "90 minutes from now", "2024-03-01T01:30:00Z"},
		{"2024-03-01", "now", "2024-03-01"},
	};
	static const char *const none[] = {"1 fortnight ago",  "ago",        "1 day",
					   "day ago",          "-1 day ago", "1  day ago!",
					   "12345678 days ago"};
	struct cdc_span_of_time span;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cdc_moment m, to = moment(cases[i].to);

		assert_true(cdc_moment_parse_span(cases[i].span, true, &span));
		m = cdc_moment_add(moment(cases[i].from), span);
		assert_int_equal(cdc_moment_cmp(&m, &to), 0);
	}
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_false(cdc_moment_parse_span(none[i], true, &span));
	assert_true(cdc_moment_parse_span("48 hours", false, &span));
	assert_false(cdc_moment_parse_span("now", false, &span));
}

static bool meets(enum cdc_filter_function f, const char *value, const char *json)
{
	char text[64];
	char *items[] = {text};
	const struct cdc_select_filter filter = {
		.field = text, .function = f, .values = {.items = items, .n = value != NULL}};
	struct cdc_condition *c = NULL;
	struct cdc_buf scratch;
	bool is_met;

	(void)strcpy(text, value ? value : "");
	cdc_buf_init(&scratch, 1 << 20);
	assert_int_equal(cdc_condition_new(&filter, &c, NULL), CDC_OK);
	is_met = cdc_condition_is_met(c, json, (struct cdc_span){.len = (uint32_t)strlen(json)},
				      NOW_US, &scratch);
	assert_false(scratch.failed);
	cdc_condition_free(c);
	cdc_buf_clear(&scratch);
	return is_met;
}

static void null_meets_nothing_but_is_null(void **state)
{
	(void)state;
	for (unsigned f = 0; f < CDC_FILTER_COUNT; f++) {
		const bool takes_none = f == CDC_FILTER_IS_NULL || f == CDC_FILTER_IS_NOT_NULL ||
					f == CDC_FILTER_TRUE || f == CDC_FILTER_FALSE;
		const char *value = takes_none ? NULL : "2024-01-01";

		if (f == CDC_FILTER_BETWEEN)
			continue;
		if (f == CDC_FILTER_IN_THE_LAST)
			value = "1 day";
		if (f == CDC_FILTER_RELATIVE_ON_OR_AFTER || f == CDC_FILTER_RELATIVE_ON_OR_BEFORE)
			value = "1 day ago";
		assert_int_equal(meets((enum cdc_filter_function)f, value, " null "),
				 f == CDC_FILTER_IS_NULL);
	}
}

static void values_are_compared_by_what_they_are(void **state)
{
	(void)state;
	assert_true(meets(CDC_FILTER_EQUALITY, "12.5", " 12.50"));
	assert_false(meets(CDC_FILTER_EQUALITY, "12.5", "\"12.50\""));
	assert_true(meets(CDC_FILTER_INEQUALITY, "word", "12"));
	assert_false(meets(CDC_FILTER_GREATER_THAN, "word", "12"));
	assert_false(meets(CDC_FILTER_LESS_THAN, "word", "12"));
	assert_true(meets(CDC_FILTER_EQUALITY, "a\"\n\xc3\xa4", "\"a\\\"\\n\\u00e4\""));
	assert_true(meets(CDC_FILTER_STRING_LIKE, "x_", "\"x\xc3\xa4\""));
	assert_true(meets(CDC_FILTER_STRING_LIKE, "a%b%c", "\"a-b-b-c\""));
	assert_false(meets(CDC_FILTER_STRING_LIKE, "a%b%c", "\"a-b-b-d\""));
	assert_true(meets(CDC_FILTER_STRING_LIKE, "%", "\"\""));
	assert_false(meets(CDC_FILTER_STRING_LIKE, "_", "\"\""));
	assert_true(meets(CDC_FILTER_ARRAY_CONTAINS, "3", "[[1,2],[null, 3.0]]"));
	assert_false(meets(CDC_FILTER_ARRAY_CONTAINS, "3", "3"));
	assert_false(meets(CDC_FILTER_ARRAY_DOES_NOT_CONTAIN, "3", "\"x\""));
	assert_true(meets(CDC_FILTER_ARRAY_DOES_NOT_CONTAIN, "3", "[]"));
	assert_true(meets(CDC_FILTER_IN_THE_LAST, "1 hour", "\"2024-02-29T12:00:00+00:00\""));
	assert_true(meets(CDC_FILTER_IN_THE_LAST, "1 hour", "\"2024-02-29T11:00:00+00:00\""));
	assert_false(meets(CDC_FILTER_IN_THE_LAST, "1 hour", "\"2024-02-29T10:59:59.9+00:00\""));
	assert_false(meets(CDC_FILTER_IN_THE_LAST, "1 hour", "\"2024-02-29T12:00:00.1+00:00\""));
	assert_false(meets(CDC_FILTER_ON_OR_AFTER, "2024-02-29", "\"not a date\""));
	assert_true(meets(CDC_FILTER_STRING_STARTS_WITH, "12", "12.5"));
	/* Half a surrogate pair has no text, and is no error. */
	assert_false(meets(CDC_FILTER_EQUALITY, "x", "\"\\ud800\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_compared_by_their_digits),
		cmocka_unit_test(moments_are_read_in_every_form),
		cmocka_unit_test(spans_are_added_as_the_calendar_has_them),
		cmocka_unit_test(null_meets_nothing_but_is_null),
		cmocka_unit_test(values_are_compared_by_what_they_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
