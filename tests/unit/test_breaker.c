/* The pure rules of retrying: waits, the circuit breaker, and whose trouble a failure is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cdc/pipeline/backoff.h"
#include "cdc/pipeline/breaker.h"
#include "cdc/pipeline/trouble.h"

#define AFTER_MS UINT64_C(600000)

static bool suspect_fail(struct cdc_suspect *s, const struct sink_result *result, uint64_t at,
			 uint64_t accepted_begun, bool is_order_sync, uint64_t now_ms)
{
	const struct cdc_suspect_rule rule = {.at = at,
					      .accepted_begun = accepted_begun,
					      .is_order_sync = is_order_sync,
					      .attempts = 8,
					      .after_ms = AFTER_MS,
					      .now_ms = now_ms};

	return cdc_suspect_fail(s, result, &rule);
}

static void waits_double_up_to_the_cap(void **state)
{
	uint64_t bound = CDC_BACKOFF_BASE_MS;

	(void)state;
	for (unsigned attempt = 1; attempt < 70; attempt++) {
		uint64_t longest = 0;

		for (uint64_t random = 0; random < 3 * CDC_BACKOFF_CAP_MS; random++) {
			uint64_t wait = cdc_backoff_ms(attempt, random);

			assert_true(wait <= bound);
			longest = wait > longest ? wait : longest;
		}
		assert_int_equal(longest, bound);
		assert_int_equal(cdc_backoff_ms(attempt, 0), 0);
		bound = bound * 2 > CDC_BACKOFF_CAP_MS ? CDC_BACKOFF_CAP_MS : bound * 2;
	}
	assert_int_equal(cdc_backoff_ms(UINT32_MAX, CDC_BACKOFF_CAP_MS), CDC_BACKOFF_CAP_MS);
}

static void five_failures_open_it(void **state)
{
	struct cdc_breaker b = {0};

	(void)state;
	for (int i = 1; i < CDC_BREAKER_FAILURES; i++)
		assert_false(cdc_breaker_fail(&b, false, 0, 1000, 0));
	assert_true(cdc_breaker_fail(&b, false, 0, 1000, 50));
	assert_int_equal(b.state, CDC_BREAKER_OPEN);
	assert_false(cdc_breaker_may_probe(&b, 1049));
	assert_true(cdc_breaker_may_probe(&b, 1050));
	assert_int_equal(cdc_breaker_next_ms(&b), 1050);
}

static void something_accepted_between_keeps_it_closed(void **state)
{
	struct cdc_breaker b = {0};

	(void)state;
	for (int i = 0; i < 100; i++) {
		assert_false(cdc_breaker_fail(&b, false, 0, 1000, 0));
		if (i % 4 == 3)
			assert_false(cdc_breaker_accept(&b));
	}
	assert_int_equal(b.state, CDC_BREAKER_CLOSED);
}

static void ten_seconds_of_one_failure_open_it(void **state)
{
	struct cdc_breaker b = {0};

	(void)state;
	assert_int_equal(cdc_breaker_next_ms(&b), UINT64_MAX);
	assert_false(cdc_breaker_fail(&b, false, 0, 500, 0));
	assert_int_equal(cdc_breaker_next_ms(&b), 500 + CDC_BREAKER_MS);
	assert_false(cdc_breaker_tick(&b, 499 + CDC_BREAKER_MS, 0));
	assert_true(cdc_breaker_tick(&b, 500 + CDC_BREAKER_MS, 0));
	assert_false(cdc_breaker_tick(&b, 600 + CDC_BREAKER_MS, 0));
	assert_int_equal(b.state, CDC_BREAKER_OPEN);
}

static void a_doubt_begins_the_ten_seconds_and_is_no_failure(void **state)
{
	struct cdc_breaker b = {0};

	(void)state;
	for (uint64_t now = 500; now < 500 + CDC_BREAKER_MS; now++)
		cdc_breaker_doubt(&b, now);
	for (int i = 1; i < CDC_BREAKER_FAILURES; i++)
		assert_false(cdc_breaker_fail(&b, false, 0, 600, 0));
	assert_false(cdc_breaker_tick(&b, 499 + CDC_BREAKER_MS, 0));
	assert_true(cdc_breaker_tick(&b, 500 + CDC_BREAKER_MS, 0));
	assert_true(cdc_breaker_accept(&b));
	assert_int_equal(cdc_breaker_next_ms(&b), UINT64_MAX);
}

static void a_failed_probe_opens_it_for_longer_and_an_accepted_one_closes_it(void **state)
{
	struct cdc_breaker b = {0};
	uint64_t now = 1000, before = 0;

	(void)state;
	for (int i = 0; i < CDC_BREAKER_FAILURES; i++)
		(void)cdc_breaker_fail(&b, false, 0, now, UINT64_MAX / 2);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(b.state, CDC_BREAKER_OPEN);
		now = b.until_ms;
		cdc_breaker_probe(&b);
		assert_int_equal(b.state, CDC_BREAKER_HALF_OPEN);
		assert_false(cdc_breaker_may_probe(&b, now + 1000000));
		/* A straggler that fails meanwhile decides nothing. */
		assert_false(cdc_breaker_fail(&b, false, 0, now, 0));
		assert_int_equal(b.state, CDC_BREAKER_HALF_OPEN);
		assert_true(cdc_breaker_fail(&b, true, 0, now, CDC_BACKOFF_CAP_MS));
		before = b.until_ms - now > before ? b.until_ms - now : before;
	}
	assert_int_equal(before, CDC_BACKOFF_CAP_MS);
	cdc_breaker_probe(&b);
	assert_true(cdc_breaker_accept(&b));
	assert_int_equal(b.state, CDC_BREAKER_CLOSED);
	assert_int_equal(b.failures, 0);
}

static void retry_after_holds_the_probe_up_to_a_day(void **state)
{
	struct cdc_breaker b = {0};

	(void)state;
	for (int i = 0; i < CDC_BREAKER_FAILURES; i++)
		(void)cdc_breaker_fail(&b, false, i == 2 ? 60000 : 0, 1000, 0);
	assert_false(cdc_breaker_may_probe(&b, 60999));
	assert_true(cdc_breaker_may_probe(&b, 61000));
	cdc_breaker_probe(&b);
	assert_true(cdc_breaker_fail(&b, true, UINT64_MAX, 61000, 0));
	assert_false(cdc_breaker_may_probe(&b, 60999 + CDC_RETRY_AFTER_CAP));
	assert_true(cdc_breaker_may_probe(&b, 61000 + CDC_RETRY_AFTER_CAP));
}

/* --- whose trouble ------------------------------------------------------------------ */

static const struct sink_result refused = {.outcome = SINK_REJECT, .status = 422};
static const struct sink_result broken = {
	.outcome = SINK_RETRY, .status = 500, .is_transient = true};
static const struct sink_result unauthorised = {
	.outcome = SINK_REJECT, .status = 401, .is_never_record = true};

static void an_outage_is_nobodys_record_trouble(void **state)
{
	struct cdc_suspect s = {0};

	(void)state;
	for (uint64_t at = 10; at < 10000; at++)
		assert_false(suspect_fail(&s, &refused, at, 5, false, at * 1000));
}

static void refused_accepted_refused_is_the_records_trouble(void **state)
{
	struct cdc_suspect s = {0};

	(void)state;
	assert_false(suspect_fail(&s, &refused, 10, 9, false, 0));
	assert_false(suspect_fail(&s, &refused, 12, 10, false, 0));
	/* accepted, but begun before the failure */
	assert_false(suspect_fail(&s, &refused, 13, 9, false, 0));
	assert_true(suspect_fail(&s, &refused, 15, 14, false, 0));
}

static void what_may_heal_needs_eight_failures_and_ten_minutes(void **state)
{
	struct cdc_suspect s = {0};
	uint64_t at = 1;

	(void)state;
	for (int i = 0; i < 100; i++, at += 2)
		assert_false(suspect_fail(&s, &broken, at, at - 1, false, AFTER_MS - 1));
	s = (struct cdc_suspect){0};
	for (unsigned i = 1; i < 8; i++, at += 2)
		assert_false(suspect_fail(&s, &broken, at, at - 1, false, i * AFTER_MS));
	assert_true(suspect_fail(&s, &broken, at, at - 1, false, 99 * AFTER_MS));
}

static void under_order_sync_an_outage_begins_the_ten_minutes_anew(void **state)
{
	struct cdc_suspect s = {0};

	(void)state;
	assert_false(suspect_fail(&s, &broken, 1, 0, true, 0));
	assert_false(suspect_fail(&s, &refused, 2, 0, true, 2 * AFTER_MS));
	assert_false(suspect_fail(&s, &refused, 3, 0, true, 3 * AFTER_MS - 1));
	assert_false(suspect_fail(&s, &broken, 4, 0, true, 3 * AFTER_MS));
	assert_false(suspect_fail(&s, &refused, 5, 0, true, 4 * AFTER_MS));
	assert_true(suspect_fail(&s, &refused, 6, 0, true, 5 * AFTER_MS));
}

static void some_answers_are_never_about_a_record(void **state)
{
	struct cdc_suspect s = {0};

	(void)state;
	for (uint64_t at = 10; at < 10000; at += 2)
		assert_false(suspect_fail(&s, &unauthorised, at, at - 1, false, at * 1000));
}

static void in_order_over_all_only_time_can_tell(void **state)
{
	struct cdc_suspect s = {0};

	(void)state;
	assert_false(suspect_fail(&s, &refused, 10, 9, true, 1000));
	assert_false(suspect_fail(&s, &refused, 12, 9, true, 999 + AFTER_MS));
	assert_true(suspect_fail(&s, &refused, 13, 9, true, 1000 + AFTER_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waits_double_up_to_the_cap),
		cmocka_unit_test(five_failures_open_it),
		cmocka_unit_test(something_accepted_between_keeps_it_closed),
		cmocka_unit_test(ten_seconds_of_one_failure_open_it),
		cmocka_unit_test(a_doubt_begins_the_ten_seconds_and_is_no_failure),
		cmocka_unit_test(a_failed_probe_opens_it_for_longer_and_an_accepted_one_closes_it),
		cmocka_unit_test(retry_after_holds_the_probe_up_to_a_day),
		cmocka_unit_test(an_outage_is_nobodys_record_trouble),
		cmocka_unit_test(refused_accepted_refused_is_the_records_trouble),
		cmocka_unit_test(what_may_heal_needs_eight_failures_and_ten_minutes),
		cmocka_unit_test(under_order_sync_an_outage_begins_the_ten_minutes_anew),
		cmocka_unit_test(some_answers_are_never_about_a_record),
		cmocka_unit_test(in_order_over_all_only_time_can_tell),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
