/* So many a second: exact over time, whatever the sizes, and little at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cdc/pipeline/flow.h"

/* How many of this cost start from begin to end, when there is always one more. */
static uint64_t starts(struct cdc_rate *r, uint64_t cost, uint64_t begin_ms, uint64_t end_ms)
{
	uint64_t now_ms = begin_ms, n = 0;

	for (;;) {
		uint64_t at = cdc_rate_next_ms(r, now_ms);

		if (at >= end_ms)
			return n;
		if (at > now_ms) {
			now_ms = at;
			assert_int_equal(cdc_rate_next_ms(r, at), at);
		}
		cdc_rate_take(r, cost, now_ms);
		n++;
	}
}

static void without_a_limit_everything_starts(void **state)
{
	struct cdc_rate r;

	(void)state;
	cdc_rate_init(&r, 0, 5);
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(cdc_rate_next_ms(&r, 5), 5);
		cdc_rate_take(&r, 1000000, 5);
	}
}

static void the_average_is_exact(void **state)
{
	static const uint64_t rates[] = {1, 2, 3, 7, 10, 99, 1000, 12345, CDC_RATE_MAX};
	static const uint64_t costs[] = {1, 2, 100, 10000};

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		for (size_t k = 0; k < 4; k++) {
			struct cdc_rate r;
			uint64_t got, most = rates[i] * 100, burst = rates[i] / 10 + 1;

			cdc_rate_init(&r, rates[i], 1000);
			got = starts(&r, costs[k], 1000, 101000) * costs[k];
			/* What it had at the beginning, and the last one, which is not made up for.
			 */
			assert_in_range(got, most > costs[k] ? most - costs[k] : 0,
					most + burst + costs[k]);
			if (rates[i] <= 1000 && costs[k] == 1)
				assert_in_range(got, most, most + burst);
		}
	}
}

static void little_goes_out_at_once_after_a_rest(void **state)
{
	struct cdc_rate r;

	(void)state;
	cdc_rate_init(&r, 100, 0);
	(void)starts(&r, 1, 0, 10000);
	assert_int_equal(starts(&r, 1, 1000000, 1000001), 10);
	cdc_rate_init(&r, 5, 0);
	assert_int_equal(starts(&r, 1, 1000000, 1000001), 1);
	assert_int_equal(cdc_rate_next_ms(&r, 1000000), 1000200);
}

static void a_large_one_is_made_up_for(void **state)
{
	struct cdc_rate r;

	(void)state;
	cdc_rate_init(&r, 50, 0);
	cdc_rate_take(&r, 100, 0);
	/* 5 were there; 95 and the next one are missing. */
	assert_int_equal(cdc_rate_next_ms(&r, 0), 1920);
	assert_int_equal(cdc_rate_next_ms(&r, 1919), 1920);
	assert_int_equal(cdc_rate_next_ms(&r, 1920), 1920);
	/* A clock that does not move, and one that was ahead. */
	cdc_rate_take(&r, 1, 1920);
	assert_int_equal(cdc_rate_next_ms(&r, 1000), 1000 + 20);
}

static void both_limits_and_the_endpoint_decide(void **state)
{
	const struct cdc_flow_settings s = {
		.requests_per_second = 100, .records_per_second = 50, .min = 1, .max = 2};
	const struct sink_result pressed = {.outcome = SINK_RETRY, .status = 429, .took_us = 1},
				 good = {.outcome = SINK_DONE, .status = 200, .took_us = 1},
				 bad = {.outcome = SINK_REJECT, .status = 422, .took_us = 1},
				 gone = {.outcome = SINK_RETRY, .is_transient = true, .took_us = 1};
	struct cdc_flow f;

	(void)state;
	cdc_flow_init(&f, &s, 1000);
	assert_true(cdc_flow_may_start(&f, 0, 1000));
	assert_false(cdc_flow_may_start(&f, 1, 1000));
	assert_true(cdc_flow_next_ms(&f, 1) == UINT64_MAX);
	cdc_flow_started(&f, 10, 1000);
	/* 5 of 10 records were there. */
	assert_false(cdc_flow_may_start(&f, 0, 1119));
	assert_int_equal(cdc_flow_next_ms(&f, 0), 1120);
	assert_true(cdc_flow_may_start(&f, 0, 1120));
	cdc_flow_ended(&f, &good, 1, 1100);
	assert_true(cdc_flow_may_start(&f, 1, 1120));
	cdc_flow_ended(&f, &bad, 1, 1200);
	assert_true(cdc_flow_may_start(&f, 1, 1200));
	cdc_flow_ended(&f, &pressed, 1, 1200);
	assert_false(cdc_flow_may_start(&f, 1, 1200));
	for (int i = 0; i < 4; i++)
		cdc_flow_ended(&f, &good, 1, 1300);
	assert_true(cdc_flow_may_start(&f, 1, 1300));
	cdc_flow_ended(&f, &gone, 2, 1400);
	assert_false(cdc_flow_may_start(&f, 1, 1400));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_limit_everything_starts),
		cmocka_unit_test(the_average_is_exact),
		cmocka_unit_test(little_goes_out_at_once_after_a_rest),
		cmocka_unit_test(a_large_one_is_made_up_for),
		cmocka_unit_test(both_limits_and_the_endpoint_decide),
	};

	return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
