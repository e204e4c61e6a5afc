/* Which lane has a key: under random comings and goings, beside a plain table of counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cdc/pipeline/homes.h"

#define KEYS  400
#define STEPS 200000

/* Many keys want the same few places, some of them the last one, so that chains are long and go
 * round the end. */
static uint64_t hash_of(size_t key)
{
	return (uint64_t)key << 32 | (key % 3 ? key % 5 : UINT32_MAX);
}

static uint64_t next(uint64_t *state, uint64_t below)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (*state >> 33) % below;
}

static void compare(const struct cdc_homes *h, const uint32_t *n)
{
	size_t keys = 0;

	for (size_t k = 0; k < KEYS; k++) {
		const struct cdc_home *home = cdc_homes_find(h, hash_of(k));

		keys += n[k] != 0;
		assert_int_equal(home ? home->n : 0, n[k]);
		if (home)
			assert_int_equal(home->lane, k);
	}
	assert_int_equal(h->n, keys);
}

static void a_key_has_its_lane_until_its_last_record_left(void **state)
{
	struct cdc_homes h = {0};
	uint32_t n[KEYS] = {0};
	uint64_t random = 1;

	(void)state;
	assert_null(cdc_homes_find(&h, hash_of(0)));
	for (size_t i = 0; i < STEPS; i++) {
		/* It fills up, and empties, a few times. */
		uint64_t odds = i / (STEPS / 8) % 2 ? 35 : 65;
		size_t k = next(&random, KEYS);

		if (next(&random, 100) < odds) {
			struct cdc_home *home;

			assert_true(cdc_homes_reserve(&h, 1));
			home = cdc_homes_enter(&h, hash_of(k));
			assert_int_equal(home->n, ++n[k]);
			if (home->n == 1)
				home->lane = (uint16_t)k;
		} else if (n[k]) {
			cdc_homes_leave(&h, hash_of(k));
			n[k]--;
		}
		if (i % 1000 == 0)
			compare(&h, n);
	}
	compare(&h, n);
	cdc_homes_clear(&h);
	assert_null(h.places);
}

static void room_is_made_for_as_many_as_are_asked_for(void **state)
{
	struct cdc_homes h = {0};
	const struct cdc_home *places;

	(void)state;
	assert_true(cdc_homes_reserve(&h, 1000));
	places = h.places;
	for (uint64_t k = 0; k < 1000; k++)
		cdc_homes_enter(&h, k)->lane = 1;
	assert_ptr_equal(h.places, places);
	assert_true(h.n * 2 <= h.cap);
	assert_true(cdc_homes_reserve(&h, 0));
	assert_ptr_equal(h.places, places);
	cdc_homes_clear(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_has_its_lane_until_its_last_record_left),
		cmocka_unit_test(room_is_made_for_as_many_as_are_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
