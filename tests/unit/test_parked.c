/* Parked keys in memory: what a write of the store changes in them, and which failures count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cdc/pipeline/parked.h"

static struct cdc_park_head head_at(uint64_t n, int64_t next_us)
{
	return (struct cdc_park_head){
		.key_hash = 7, .id = {.epoch = 1, .commit_lsn = n, .part = 1}, .next_us = next_us};
}

/* Followers of a key are written while its head waits longer than the store knows. */
static void a_wait_for_what_proved_nothing_goes_on(void **state)
{
	struct cdc_parked_key key = {.hash = 7};
	const struct cdc_park_head first = head_at(1, 100), second = head_at(2, 150);

	(void)state;
	cdc_parked_set_head(&key, &first);
	assert_int_equal(key.due_us, 100);
	key.misses = 3;
	key.due_us = 5000;
	cdc_parked_set_head(&key, &first);
	assert_int_equal(key.due_us, 5000);
	assert_int_equal(key.misses, 3);
	key.misses = 0;
	key.must_be_alone = true;
	cdc_parked_set_head(&key, &first);
	assert_int_equal(key.due_us, 5000);
	cdc_parked_set_head(&key, &second);
	assert_int_equal(key.due_us, 150);
	assert_false(key.must_be_alone);
}

/* Followers of a key do not put off what was brought forward because the clock was set back. */
static void a_wait_that_was_cut_stays_so(void **state)
{
	struct cdc_parked_key key = {.hash = 7};
	const struct cdc_park_head head = head_at(1, 100), later = head_at(1, 200);

	(void)state;
	cdc_parked_set_head(&key, &head);
	key.due_us = 50;
	cdc_parked_set_head(&key, &head);
	assert_int_equal(key.due_us, 50);
	cdc_parked_set_head(&key, &later);
	assert_int_equal(key.due_us, 200);
}

#define WAKES 500

static void the_first_wake_is_the_earliest(void **state)
{
	struct cdc_parked p = {0};
	struct cdc_parked_key *key;
	int64_t wakes[WAKES + 1] = {0}, at;
	uint64_t random = 1;

	(void)state;
	assert_null(cdc_parked_first(&p, &at));
	for (int i = 0; i < 50000; i++) {
		int64_t earliest = 0;
		uint64_t hash;

		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		hash = 1 + (random >> 33) % WAKES;
		if (i % 5 == 4) {
			cdc_parked_remove(&p, hash);
			wakes[hash] = 0;
		} else {
			bool is_new = !cdc_parked_find(&p, hash);

			assert_int_equal(cdc_parked_add(&p, hash, 1, &key, NULL), CDC_OK);
			wakes[hash] = is_new ? INT64_MAX : 1 + (int64_t)(random >> 50);
			if (!is_new)
				cdc_parked_wake(&p, key, wakes[hash]);
		}
		for (size_t k = 1; i % 50 == 0 && k <= WAKES; k++) {
			if (wakes[k] && (!earliest || wakes[k] < earliest))
				earliest = wakes[k];
		}
		key = cdc_parked_first(&p, &at);
		if (earliest) {
			assert_int_equal(at, earliest);
			assert_int_equal(wakes[key->hash], earliest);
		}
	}
	cdc_parked_clear(&p);
}

static enum cdc_attempt_verdict judge(struct cdc_parked_key *key, const struct sink_result *r,
				      bool is_urgent, uint64_t accepted_begun)
{
	const struct cdc_attempt a = {.result = r,
				      .at = 10,
				      .accepted_begun = accepted_begun,
				      .is_urgent = is_urgent,
				      .steps = 3,
				      .attempts = 2};

	return cdc_parked_judge(key, &a);
}

static void an_outage_uses_no_step_up(void **state)
{
	const struct sink_result down = {.outcome = SINK_RETRY, .is_transient = true},
				 refused = {.outcome = SINK_REJECT, .status = 422};
	struct cdc_parked_key key = {.hash = 7, .attempts = 2};

	(void)state;
	for (int i = 0; i < 5; i++)
		assert_int_equal(judge(&key, &down, false, 0), CDC_ATTEMPT_NOTHING);
	assert_int_equal(key.step, 0);
	assert_int_equal(key.misses, 5);
	/* A barrier waits, or something was accepted since: it counts. */
	assert_int_equal(judge(&key, &down, true, 0), CDC_ATTEMPT_AGAIN);
	assert_int_equal(judge(&key, &down, false, 11), CDC_ATTEMPT_AGAIN);
	assert_int_equal(judge(&key, &refused, false, 0), CDC_ATTEMPT_DEAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wait_for_what_proved_nothing_goes_on),
		cmocka_unit_test(a_wait_that_was_cut_stays_so),
		cmocka_unit_test(the_first_wake_is_the_earliest),
		cmocka_unit_test(an_outage_uses_no_step_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
