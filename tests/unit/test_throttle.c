/*
 * How many requests at once: the rule against a simulated endpoint that serves so many
 * at a time, lets so many wait, and refuses more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/pipeline/throttle.h"

#define FLIGHT_MAX 256
#define SECOND     UINT64_C(1000000)

struct endpoint {
	unsigned servers;
	uint64_t service_us; /* of a request; half to one and a half of it when it varies */
	bool varies;
	unsigned refuses_above; /* taken and not answered; 429 at once; 0: never */
};

struct seen {
	uint64_t accepted, refused;
	double limit; /* mean, over requests */
};

struct flight {
	uint64_t begun_us, end_us;
	bool is_refused;
};

struct simulation {
	struct cdc_throttle throttle;
	struct endpoint endpoint;
	uint64_t now_us, random;
	uint64_t free_us[FLIGHT_MAX]; /* by server: when it is */
	struct flight flights[FLIGHT_MAX];
	unsigned n;
};

static uint64_t next(struct simulation *s)
{
	s->random = s->random * 6364136223846793005ULL + 1442695040888963407ULL;
	return s->random >> 33;
}

static void begin(struct simulation *s)
{
	struct endpoint *e = &s->endpoint;
	struct flight *f = &s->flights[s->n++];
	uint64_t service = e->service_us, start;
	unsigned best = 0, taken = 0;

	*f = (struct flight){.begun_us = s->now_us};
	for (unsigned i = 0; i < s->n; i++)
		taken += !s->flights[i].is_refused;
	if (e->refuses_above && taken > e->refuses_above) {
		f->is_refused = true;
		f->end_us = s->now_us + 1000;
		return;
	}
	if (e->varies)
		service = service / 2 + next(s) % service;
	for (unsigned i = 1; i < e->servers; i++) {
		if (s->free_us[i] < s->free_us[best])
			best = i;
	}
	start = s->free_us[best] > s->now_us ? s->free_us[best] : s->now_us;
	f->end_us = s->free_us[best] = start + service;
}

/* Requests without end, for so long. */
static struct seen run(struct simulation *s, uint64_t us)
{
	uint64_t end_us = s->now_us + us, ended = 0;
	struct cdc_throttle *t = &s->throttle;
	struct seen seen = {.accepted = 0};

	while (s->now_us < end_us) {
		unsigned first = 0;
		struct flight f;

		while (s->n < cdc_throttle_limit(t))
			begin(s);
		assert_in_range(cdc_throttle_limit(t), t->min, t->max);
		for (unsigned i = 1; i < s->n; i++) {
			if (s->flights[i].end_us < s->flights[first].end_us)
				first = i;
		}
		f = s->flights[first];
		s->now_us = f.end_us;
		cdc_throttle_note(t, f.is_refused ? CDC_THROTTLE_PRESSED : CDC_THROTTLE_GOOD, s->n,
				  f.end_us - f.begun_us, s->now_us);
		s->flights[first] = s->flights[--s->n];
		seen.accepted += !f.is_refused;
		seen.refused += f.is_refused;
		seen.limit += ((double)cdc_throttle_limit(t) - seen.limit) / (double)++ended;
	}
	return seen;
}

static struct simulation start(unsigned min, unsigned max, struct endpoint e)
{
	struct simulation s = {.endpoint = e, .random = 7};

	cdc_throttle_init(&s.throttle, min, max);
	return s;
}

/* Of what its servers can do in that time, in percent. */
static uint64_t share(const struct endpoint *e, const struct seen *seen, uint64_t us)
{
	return seen->accepted * e->service_us * 100 / (us * e->servers);
}

static void it_is_off_unless_there_is_room(void **state)
{
	struct simulation s = start(0, 8, (struct endpoint){.servers = 1, .service_us = 50000});
	struct seen seen;

	(void)state;
	assert_int_equal(cdc_throttle_limit(&s.throttle), 8);
	seen = run(&s, 20 * SECOND);
	assert_true(seen.limit > 7.99);
	cdc_throttle_init(&s.throttle, 9, 8);
	assert_int_equal(cdc_throttle_limit(&s.throttle), 8);
}

static void an_endpoint_that_bears_all_gets_all(void **state)
{
	struct simulation s = start(
		1, 64, (struct endpoint){.servers = 200, .service_us = 50000, .varies = true});
	struct seen seen = run(&s, 2 * SECOND);

	(void)state;
	/* One doubling per round at first. */
	assert_int_equal(cdc_throttle_limit(&s.throttle), 64);
	seen = run(&s, 60 * SECOND);
	assert_true(seen.limit > 63);
}

static void a_queue_at_the_endpoint_stays_short_and_its_servers_busy(void **state)
{
	static const unsigned servers[] = {1, 4, 16, 50};
	static const uint64_t service_us[] = {5000, 50000, 500000};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		for (size_t k = 0; k < 3; k++) {
			struct endpoint e = {
				.servers = servers[i], .service_us = service_us[k], .varies = true};
			struct simulation s = start(1, 200, e);
			struct seen seen;
			double most;

			(void)run(&s, service_us[k] * 2000);
			seen = run(&s, service_us[k] * 2000);
			/* Twice as slow as without a queue, and 10 ms. */
			most = servers[i] * (2.0 + 10000.0 / (double)service_us[k]) * 1.3 + 3;
			if (share(&e, &seen, service_us[k] * 2000) < 93 || seen.limit > most)
				fail_msg("%u servers, %llu us: %llu %% of the rate, limit %.1f",
					 e.servers, (unsigned long long)e.service_us,
					 (unsigned long long)share(&e, &seen, service_us[k] * 2000),
					 seen.limit);
		}
	}
}

static void an_endpoint_that_refuses_more_is_seldom_asked_for_more(void **state)
{
	struct endpoint e = {.servers = 100, .service_us = 50000, .refuses_above = 20};
	struct simulation s = start(1, 64, e);
	struct seen seen;

	(void)state;
	(void)run(&s, 10 * SECOND);
	seen = run(&s, 60 * SECOND);
	/* 20 at once are 400 a second. */
	assert_true(seen.accepted > UINT64_C(400) * 60 * 75 / 100);
	assert_true(seen.refused > 0);
	assert_true(seen.refused * 50 < seen.accepted);
}

static void it_comes_back_when_the_endpoint_does(void **state)
{
	struct simulation s = start(1, 64, (struct endpoint){.servers = 100, .service_us = 50000});
	struct seen seen;

	(void)state;
	(void)run(&s, 5 * SECOND);
	assert_int_equal(cdc_throttle_limit(&s.throttle), 64);
	s.endpoint.servers = 4;
	(void)run(&s, 20 * SECOND);
	seen = run(&s, 20 * SECOND);
	assert_true(seen.limit < 20);
	s.endpoint.servers = 100;
	(void)run(&s, 30 * SECOND);
	assert_int_equal(cdc_throttle_limit(&s.throttle), 64);
}

static void an_endpoint_that_is_slow_for_good_is_not_starved(void **state)
{
	struct endpoint e = {.servers = 100, .service_us = 20000};
	struct simulation s = start(1, 64, e);

	(void)state;
	(void)run(&s, 5 * SECOND);
	s.endpoint.service_us = 200000;
	(void)run(&s, 120 * SECOND);
	assert_int_equal(cdc_throttle_limit(&s.throttle), 64);
}

static void one_burst_is_one_fall(void **state)
{
	struct cdc_throttle t;

	(void)state;
	cdc_throttle_init(&t, 1, 100);
	for (unsigned i = 0; i < 200; i++)
		cdc_throttle_note(&t, CDC_THROTTLE_GOOD, 100, 1000, 1000 + i);
	assert_int_equal(cdc_throttle_limit(&t), 100);
	for (unsigned i = 0; i < 100; i++)
		cdc_throttle_note(&t, CDC_THROTTLE_PRESSED, 100 - i, 50000, 60000 + i);
	assert_int_equal(cdc_throttle_limit(&t), 70);
	/* Begun after it. */
	cdc_throttle_note(&t, CDC_THROTTLE_PRESSED, 70, 50000, 60000 + 50001);
	assert_int_equal(cdc_throttle_limit(&t), 49);
	for (unsigned i = 0; i < 50; i++)
		cdc_throttle_note(&t, CDC_THROTTLE_NEUTRAL, 49, 50000, 200000 + i * 60000);
	assert_int_equal(cdc_throttle_limit(&t), 49);
	/* Nothing is learnt from requests while there are fewer than might be. */
	for (unsigned i = 0; i < 1000; i++)
		cdc_throttle_note(&t, CDC_THROTTLE_GOOD, 10, 1000, 9000000 + i * 2000);
	assert_int_equal(cdc_throttle_limit(&t), 49);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_off_unless_there_is_room),
		cmocka_unit_test(an_endpoint_that_bears_all_gets_all),
		cmocka_unit_test(a_queue_at_the_endpoint_stays_short_and_its_servers_busy),
		cmocka_unit_test(an_endpoint_that_refuses_more_is_seldom_asked_for_more),
		cmocka_unit_test(it_comes_back_when_the_endpoint_does),
		cmocka_unit_test(an_endpoint_that_is_slow_for_good_is_not_starved),
		cmocka_unit_test(one_burst_is_one_fall),
	};

	return cmocka_run_group_tests_name("throttle", tests, NULL, NULL);
}
