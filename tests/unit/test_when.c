/* Times as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cdc/cli/when.h"

#define NOW INT64_C(1800000000000000)

static int64_t at(const char *text)
{
	int64_t us = -1;

	if (!cdc_when_parse(text, NOW, &us))
		fail_msg("%s", text);
	return us;
}

static void times_are_read_with_their_offset_and_fraction(void **state)
{
	(void)state;
	assert_int_equal(at("1970-01-01T00:00:01Z"), 1000000);
	assert_int_equal(at("2026-11-24T10:00:00Z"), INT64_C(1795514400000000));
	assert_int_equal(at("2026-11-24T10:00:00.25Z"), INT64_C(1795514400250000));
	assert_int_equal(at("2026-11-24T10:00:00.1234567Z"), INT64_C(1795514400123456));
	assert_int_equal(at("2026-11-24T11:30:00+01:30"), INT64_C(1795514400000000));
	assert_int_equal(at("2026-11-24T02:00:00-08:00"), INT64_C(1795514400000000));
	assert_int_equal(at("2026-11-24"), INT64_C(1795478400000000));
}

static void how_long_ago_counts_from_now(void **state)
{
	(void)state;
	assert_int_equal(at("90s"), NOW - INT64_C(90000000));
	assert_int_equal(at("15m"), NOW - INT64_C(900000000));
	assert_int_equal(at("2h"), NOW - INT64_C(7200000000));
	assert_int_equal(at("3d"), NOW - INT64_C(259200000000));
}

static void anything_else_is_refused(void **state)
{
	static const char *const wrong[] = {
		"",
		"yesterday",
		"12",
		"12w",
		"-5m",
		"5m ",
		"99999999999999999999d",
		"2026-11-24T10:00:00",
		"2026-11-24T10:00:00z",
		"2026-11-24 10:00:00Z",
		"2026-11-24T10:00Z",
		"2026-13-24T10:00:00Z",
		"2026-11-24T10:00:00+1",
		"2026-11-24T10:00:00+01.00",
		"2026-11-24T10:00:00.Z",
		"2026-11-24Z",
	};
	int64_t us = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		if (cdc_when_parse(wrong[i], NOW, &us))
			fail_msg("%s", wrong[i]);
	}
	assert_int_equal(us, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_read_with_their_offset_and_fraction),
		cmocka_unit_test(how_long_ago_counts_from_now),
		cmocka_unit_test(anything_else_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
