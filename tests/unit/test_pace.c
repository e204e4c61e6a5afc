/* How fast a copy may go, and what it goes by. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cdc/pipeline/pace.h"
#include "cdc/source/pressure.h"

static void each_look_halves_it_down_to_a_share(void **state)
{
	struct cdc_pace p = {0};
	const uint64_t expected[] = {25600, 12800, 6400, 3200, 3200};

	(void)state;
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		/* What is read meanwhile does not matter any more. */
		cdc_pace_slower(&p, i ? 1 : 51200);
		assert_int_equal(p.limit, expected[i]);
	}
}

static void it_never_stands_still(void **state)
{
	struct cdc_pace p = {0};

	(void)state;
	for (int i = 0; i < 5; i++) {
		cdc_pace_slower(&p, 0);
		assert_int_equal(p.limit, CDC_PACE_LOWEST);
	}
}

static void it_is_free_again_at_its_former_pace(void **state)
{
	struct cdc_pace p = {0};

	(void)state;
	for (int i = 0; i < 4; i++)
		cdc_pace_slower(&p, 16000);
	assert_int_equal(p.limit, 1000);
	for (uint64_t expected = 2000; expected <= 8000; expected *= 2) {
		cdc_pace_faster(&p);
		assert_int_equal(p.limit, expected);
	}
	cdc_pace_faster(&p);
	assert_int_equal(p.limit, 0);
	cdc_pace_slower(&p, 500);
	assert_int_equal(p.limit, 250);
}

static void the_lower_limit_holds(void **state)
{
	(void)state;
	assert_int_equal(cdc_pace_lower(0, 0), 0);
	assert_int_equal(cdc_pace_lower(5, 0), 5);
	assert_int_equal(cdc_pace_lower(0, 5), 5);
	assert_int_equal(cdc_pace_lower(5, 7), 5);
	assert_int_equal(cdc_pace_lower(7, 5), 5);
}

/* A replica that keeps up is never late, however much is written; one that stands still is late
 * since the first look that found it behind. */
static void a_lag_is_counted_from_what_was_seen(void **state)
{
	struct cdc_pressure_watch w = {0};

	(void)state;
	assert_int_equal(cdc_pressure_lag_ms(&w, 100, 100, 1000), 0);
	assert_int_equal(cdc_pressure_lag_ms(&w, 900, 100, 3000), 0);
	assert_int_equal(cdc_pressure_lag_ms(&w, 1900, 900, 5000), 0);
	assert_int_equal(cdc_pressure_lag_ms(&w, 2900, 1000, 7000), 2000);
	assert_int_equal(cdc_pressure_lag_ms(&w, 3900, 1899, 9000), 4000);
	assert_int_equal(cdc_pressure_lag_ms(&w, 4900, 1900, 11000), 0);
	assert_int_equal(cdc_pressure_lag_ms(&w, 4900, 1900, 12000), 1000);
	assert_int_equal(cdc_pressure_lag_ms(&w, 4900, 4900, 13000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_look_halves_it_down_to_a_share),
		cmocka_unit_test(it_never_stands_still),
		cmocka_unit_test(it_is_free_again_at_its_former_pace),
		cmocka_unit_test(the_lower_limit_holds),
		cmocka_unit_test(a_lag_is_counted_from_what_was_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
