/* On which timeline a position was written, from the text of a history file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/source/timeline.h"

static enum cdc_code parse(struct cdc_timelines *t, const char *text, uint32_t current)
{
	return cdc_timelines_parse(t, text, strlen(text), current, NULL);
}

static void a_server_without_history_has_one_timeline(void **state)
{
	struct cdc_timelines t;

	(void)state;
	cdc_timelines_init(&t, 1);
	assert_int_equal(cdc_timelines_at(&t, 0), 1);
	assert_int_equal(cdc_timelines_at(&t, UINT64_MAX), 1);
	cdc_timelines_clear(&t);
	assert_int_equal(t.current, 1);
}

static void a_switch_point_belongs_to_the_new_timeline(void **state)
{
	struct cdc_timelines t;

	(void)state;
	assert_int_equal(parse(&t,
			       "1\t0/5000000\tno recovery target specified\n\n"
			       "2\t1/0\tbefore 2000-01-01 00:00:00+00\n"
			       "# a comment\n"
			       "4\t1/A0\tlast",
			       5),
			 CDC_OK);
	assert_int_equal(t.n, 3);
	assert_int_equal(cdc_timelines_at(&t, 0), 1);
	assert_int_equal(cdc_timelines_at(&t, 0x4ffffff), 1);
	assert_int_equal(cdc_timelines_at(&t, 0x5000000), 2);
	assert_int_equal(cdc_timelines_at(&t, UINT64_C(0xffffffff)), 2);
	assert_int_equal(cdc_timelines_at(&t, UINT64_C(0x100000000)), 4);
	assert_int_equal(cdc_timelines_at(&t, UINT64_C(0x10000009f)), 4);
	assert_int_equal(cdc_timelines_at(&t, UINT64_C(0x1000000a0)), 5);
	cdc_timelines_clear(&t);
}

static void two_switches_at_one_position_leave_nothing_between(void **state)
{
	struct cdc_timelines t;

	(void)state;
	assert_int_equal(parse(&t, "1\t0/100\n2\t0/100\n", 3), CDC_OK);
	assert_int_equal(cdc_timelines_at(&t, 0xff), 1);
	assert_int_equal(cdc_timelines_at(&t, 0x100), 3);
	cdc_timelines_clear(&t);
}

static void an_empty_history_is_one(void **state)
{
	struct cdc_timelines t;

	(void)state;
	assert_int_equal(parse(&t, "", 7), CDC_OK);
	assert_int_equal(cdc_timelines_at(&t, 1), 7);
	assert_int_equal(parse(&t, " \t\r\n#x\n", 7), CDC_OK);
	assert_int_equal(t.n, 0);
}

static void what_is_no_history_is_refused_and_forgotten(void **state)
{
	static const char *const texts[] = {
		"x\t0/1\n", /* no number */
		"0\t0/1\n", /* timelines count from 1 */
		"-1\t0/1\n",
		"1\n",               /* no position */
		"1\t0-1\n",          /* not a position */
		"1\t0/1\n1\t0/2\n",  /* twice */
		"2\t0/1\n1\t0/2\n",  /* backwards */
		"1\t0/2\n2\t0/1\n",  /* positions backwards */
		"9\t0/1\n",          /* the current one cannot be its own ancestor */
		"4294967297\t0/1\n", /* does not fit */
		"99999999999999\t0/1\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct cdc_timelines t;

		assert_int_equal(parse(&t, texts[i], 9), CDC_PROTO);
		assert_int_equal(t.n, 0);
		assert_null(t.ends);
		assert_int_equal(cdc_timelines_at(&t, 1), 9);
	}
}

static void a_long_history_is_searched_right(void **state)
{
	const size_t lines = 1000;
	struct cdc_timelines t;
	char *text = malloc(lines * 32);
	size_t at = 0;

	(void)state;
	assert_non_null(text);
	for (unsigned i = 1; i <= lines; i++)
		at += (size_t)snprintf(text + at, 32, "%u\t0/%X\tx\n", i, i * 16);
	assert_int_equal(cdc_timelines_parse(&t, text, at, 1001, NULL), CDC_OK);
	for (unsigned lsn = 0; lsn < 1001 * 16; lsn++)
		assert_int_equal(cdc_timelines_at(&t, lsn), lsn / 16 + 1);
	cdc_timelines_clear(&t);
	free(text);
}

static void a_history_without_end_is_refused(void **state)
{
	const size_t lines = 100001;
	struct cdc_timelines t;
	char *text = malloc(lines * 32);
	size_t at = 0;

	(void)state;
	assert_non_null(text);
	for (size_t i = 1; i <= lines; i++)
		at += (size_t)snprintf(text + at, 32, "%zu\t0/1\n", i);
	assert_int_equal(cdc_timelines_parse(&t, text, at, 1000000, NULL), CDC_PROTO);
	assert_null(t.ends);
	free(text);
}

static void what_was_read_on_a_timeline_is_held_up_to_its_end(void **state)
{
	struct cdc_timelines t;
	cdc_lsn end;

	(void)state;
	assert_int_equal(parse(&t, "1\t0/100\tx\n3\t0/200\tx\n", 5), CDC_OK);
	assert_true(cdc_timelines_hold(&t, 1, 0x100, &end));
	assert_false(cdc_timelines_hold(&t, 1, 0x101, &end));
	assert_int_equal(end, 0x100);
	assert_true(cdc_timelines_hold(&t, 3, 0x200, &end));
	assert_false(cdc_timelines_hold(&t, 3, 0x300, &end));
	assert_int_equal(end, 0x200);
	assert_true(cdc_timelines_hold(&t, 5, 0x300, &end));
	/* Another branch, and a server that was left behind. */
	assert_false(cdc_timelines_hold(&t, 2, 0x80, &end));
	assert_false(cdc_timelines_hold(&t, 6, 0x80, &end));
	assert_int_equal(end, 0);
	cdc_timelines_clear(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_without_history_has_one_timeline),
		cmocka_unit_test(a_switch_point_belongs_to_the_new_timeline),
		cmocka_unit_test(two_switches_at_one_position_leave_nothing_between),
		cmocka_unit_test(an_empty_history_is_one),
		cmocka_unit_test(what_is_no_history_is_refused_and_forgotten),
		cmocka_unit_test(a_long_history_is_searched_right),
		cmocka_unit_test(a_history_without_end_is_refused),
		cmocka_unit_test(what_was_read_on_a_timeline_is_held_up_to_its_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
