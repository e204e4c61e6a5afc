#include "tests/contract/sink_contract.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "cdc/base/clock.h"

#define SLOTS      4
#define JOB_MAX    5
#define PATIENCE   120000          /* milliseconds until a result that does not come is missing */
#define PROMPT_MS  UINT64_C(30000) /* what takes no longer did not wait for a silent endpoint */
#define TRIES      20 /* of what a busy machine can only make slower: one has to be fast */
#define BATCH_MAX  (8u << 20)
#define BIG_BYTES  (5u << 20)
#define TICKET(i)  (UINT64_C(0xfeed00000000) + (uint64_t)(i)*7919)
#define NO_TICKETS 512

struct suite {
	const struct sink_ops *ops;
	const struct sink_contract_hooks *hooks;
};

/* One test's own. */
struct bench {
	const struct suite *suite;
	void *sink;
	struct cdc_batch *batch;
	struct cdc_view views[JOB_MAX];
	uint64_t made; /* records */
	unsigned results[NO_TICKETS];
};

/* --- tools -------------------------------------------------------------------------- */

static void open_with(struct bench *b, void (*fill)(void *, struct sink_settings *), int wake_fd)
{
	struct sink_settings s = {.concurrency = SLOTS, .wake_fd = wake_fd};
	struct cdc_err err = {.code = CDC_OK};

	fill(b->suite->hooks->arg, &s);
	if (b->suite->ops->open(&s, &b->sink, &err))
		fail_msg("open: %s", err.msg);
}

static void behave(const struct bench *b, enum sink_mood mood)
{
	assert_true(b->suite->hooks->behave(b->suite->hooks->arg, mood));
}

static uint64_t accepted(const struct bench *b)
{
	return b->suite->hooks->accepted(b->suite->hooks->arg);
}

/* The next n records, the first of pad bytes more; they take the place of those before. */
static void make_records(struct bench *b, size_t n, size_t pad)
{
	cdc_batch_reset(b->batch, BATCH_MAX);
	for (size_t i = 0; i < n; i++) {
		struct cdc_record *r;
		uint16_t table;
		uint8_t *room;

		assert_int_equal(cdc_batch_table(b->batch, "public.t", 8, &table, NULL), CDC_OK);
		assert_int_equal(cdc_batch_begin(b->batch, &r, NULL), CDC_OK);
		r->id = (struct cdc_id){
			.epoch = 1, .commit_lsn = ++b->made, .ordinal = 1, .part = 1};
		r->table = table;
		cdc_buf_printf(&b->batch->json,
			       "{\"id\":\"00000001-%016llx-00000001-0001\",\"fields\":{\"pad\":\"",
			       (unsigned long long)b->made);
		room = cdc_buf_reserve(&b->batch->json, pad);
		assert_non_null(room);
		memset(room, 'p', pad);
		b->batch->json.len += pad;
		cdc_buf_puts(&b->batch->json, "\"}}");
		assert_int_equal(cdc_batch_end(b->batch, NULL), CDC_OK);
		pad = 0;
	}
	for (size_t i = 0; i < n; i++)
		b->views[i] = (struct cdc_view){.rec = &b->batch->records[i], .batch = b->batch};
}

static enum cdc_code submit(struct bench *b, size_t ticket, size_t n)
{
	struct sink_job job = {.ticket = TICKET(ticket), .views = b->views, .n = n};
	uint64_t begun_ms = cdc_clock_mono_ms();
	enum cdc_code rc;
	struct cdc_err err;

	make_records(b, n, 0);
	rc = b->suite->ops->submit(b->sink, &job, &err);
	assert_true(cdc_clock_mono_ms() - begun_ms < PROMPT_MS);
	/* The bytes are the sink's own now. */
	memset(b->batch->json.data, '!', b->batch->json.len);
	if (rc)
		b->made -= n;
	return rc;
}

static void take(struct bench *b, const struct sink_result *r)
{
	uint64_t i = (r->ticket - TICKET(0)) / 7919;

	assert_true(r->ticket >= TICKET(0) && r->ticket == TICKET(i) && i < NO_TICKETS);
	assert_int_equal(b->results[i]++, 0);
	assert_non_null(memchr(r->text, '\0', sizeof(r->text)));
	assert_true(r->text[0] != '\0');
	assert_true(r->sent_bytes > 0);
}

/* The next result; it fails when none comes. */
static struct sink_result await(struct bench *b)
{
	uint64_t end_ms = cdc_clock_mono_ms() + PATIENCE;
	struct sink_result r;

	for (;;) {
		size_t n = b->suite->ops->poll(b->sink, 1000, &r, 1);

		assert_true(n <= 1);
		if (n)
			break;
		assert_true(cdc_clock_mono_ms() < end_ms);
	}
	take(b, &r);
	return r;
}

/* Nothing more comes. */
static void expect_quiet(struct bench *b)
{
	struct sink_result r[SLOTS];

	assert_int_equal(b->suite->ops->poll(b->sink, 20, r, SLOTS), 0);
}

static void expect_done(struct bench *b, size_t ticket)
{
	struct sink_result r;

	assert_int_equal(submit(b, ticket, 1), CDC_OK);
	r = await(b);
	if (r.outcome != SINK_DONE)
		fail_msg("%s", r.text);
	assert_true(r.ticket == TICKET(ticket));
}

static struct bench *bench_of(void **state)
{
	return *state;
}

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->suite = *state;
	b->batch = cdc_batch_new(BATCH_MAX);
	*state = b;
	return b->batch ? 0 : -1;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	b->suite->ops->close(b->sink);
	cdc_batch_free(b->batch);
	free(b);
	return 0;
}

/* --- opening and closing ------------------------------------------------------------ */

static void opening_needs_no_endpoint(void **state)
{
	struct bench *b = bench_of(state);

	open_with(b, b->suite->hooks->nowhere, -1);
	expect_quiet(b);
}

static void unusable_settings_are_refused_at_the_start(void **state)
{
	struct bench *b = bench_of(state);
	struct sink_settings s = {.concurrency = SLOTS, .wake_fd = -1};
	struct cdc_err err = {.code = CDC_OK};
	void *sink = NULL;

	b->suite->hooks->unusable(b->suite->hooks->arg, &s);
	assert_int_equal(b->suite->ops->open(&s, &sink, &err), CDC_CONFIG);
	assert_int_equal(err.code, CDC_CONFIG);
	assert_true(err.msg[0] != '\0');
	assert_null(sink);
	b->suite->ops->close(NULL);
}

static void closing_drops_what_is_in_flight(void **state)
{
	struct bench *b = bench_of(state);
	uint64_t begun_ms;

	behave(b, SINK_MOOD_SILENT);
	open_with(b, b->suite->hooks->reach, -1);
	for (size_t i = 0; i < SLOTS; i++)
		assert_int_equal(submit(b, i, 1), CDC_OK);
	expect_quiet(b);
	begun_ms = cdc_clock_mono_ms();
	b->suite->ops->close(b->sink);
	assert_true(cdc_clock_mono_ms() - begun_ms < PROMPT_MS);
	/* Also when nothing of it went out yet. */
	open_with(b, b->suite->hooks->reach, -1);
	assert_int_equal(submit(b, SLOTS, 1), CDC_OK);
	b->suite->ops->close(b->sink);
	behave(b, SINK_MOOD_ACCEPT);
	open_with(b, b->suite->hooks->reach, -1);
	expect_done(b, SLOTS + 1);
}

/* --- jobs and results --------------------------------------------------------------- */

static void every_job_gets_exactly_one_result(void **state)
{
	enum { JOBS = 300 };
	struct bench *b = bench_of(state);
	size_t sent = 0, done = 0;

	behave(b, SINK_MOOD_ACCEPT);
	open_with(b, b->suite->hooks->reach, -1);
	while (done < JOBS) {
		struct sink_result r[SLOTS];
		size_t n;

		while (sent < JOBS && sent - done < SLOTS) {
			assert_int_equal(submit(b, sent, 1 + sent % JOB_MAX), CDC_OK);
			sent++;
		}
		n = b->suite->ops->poll(b->sink, PATIENCE, r, SLOTS);
		assert_in_range(n, 1, SLOTS);
		for (size_t i = 0; i < n; i++) {
			take(b, &r[i]);
			assert_int_equal(r[i].outcome, SINK_DONE);
		}
		done += n;
	}
	expect_quiet(b);
	assert_int_equal(accepted(b), b->made);
}

static void above_concurrency_a_sink_is_busy(void **state)
{
	struct bench *b = bench_of(state);

	behave(b, SINK_MOOD_LATE);
	open_with(b, b->suite->hooks->reach, -1);
	for (size_t i = 0; i < SLOTS; i++)
		assert_int_equal(submit(b, i, 1), CDC_OK);
	assert_int_equal(submit(b, SLOTS, 1), CDC_BUSY);
	assert_int_equal(submit(b, SLOTS + 1, 1), CDC_BUSY);
	(void)await(b);
	/* One has ended: one fits. */
	assert_int_equal(submit(b, SLOTS + 2, 1), CDC_OK);
	for (size_t i = 0; i < SLOTS; i++)
		assert_int_equal(await(b).outcome, SINK_DONE);
	expect_quiet(b);
	assert_int_equal(b->results[SLOTS] + b->results[SLOTS + 1], 0);
	assert_int_equal(accepted(b), SLOTS + 1);
}

/* As many as there are slots; how many milliseconds that took. */
static uint64_t time_all_slots(struct bench *b, size_t first_ticket)
{
	const uint64_t begun_ms = cdc_clock_mono_ms();

	for (size_t i = 0; i < SLOTS; i++)
		assert_int_equal(submit(b, first_ticket + i, 1), CDC_OK);
	for (size_t i = 0; i < SLOTS; i++) {
		struct sink_result r = await(b);

		assert_int_equal(r.outcome, SINK_DONE);
		assert_in_range(r.took_us, SINK_CONTRACT_LATE_MS * 1000 - 5000,
				(cdc_clock_mono_ms() - begun_ms + 1) * 1000);
	}
	return cdc_clock_mono_ms() - begun_ms;
}

static void requests_go_side_by_side(void **state)
{
	struct bench *b = bench_of(state);
	uint64_t took_ms = UINT64_MAX;

	behave(b, SINK_MOOD_LATE);
	open_with(b, b->suite->hooks->reach, -1);
	/* One behind the other, all four take four times as long as one. */
	for (size_t i = 0; i < TRIES && took_ms >= SINK_CONTRACT_LATE_MS * 3; i++)
		took_ms = time_all_slots(b, i * SLOTS);
	assert_true(took_ms < SINK_CONTRACT_LATE_MS * 3);
}

static void results_that_find_no_room_come_later(void **state)
{
	struct bench *b = bench_of(state);

	behave(b, SINK_MOOD_ACCEPT);
	open_with(b, b->suite->hooks->reach, -1);
	for (size_t i = 0; i < SLOTS; i++)
		assert_int_equal(submit(b, i, 1), CDC_OK);
	(void)usleep(50000);
	for (size_t i = 0; i < SLOTS; i++)
		(void)await(b);
	expect_quiet(b);
	assert_int_equal(accepted(b), SLOTS);
}

static void a_big_record_passes_and_a_small_one_after_it(void **state)
{
	struct bench *b = bench_of(state);
	struct sink_job job = {.ticket = TICKET(0), .views = b->views, .n = 2, .is_repeat = true};
	struct sink_result r;

	behave(b, SINK_MOOD_ACCEPT);
	open_with(b, b->suite->hooks->reach, -1);
	make_records(b, 2, BIG_BYTES);
	assert_int_equal(b->suite->ops->submit(b->sink, &job, NULL), CDC_OK);
	r = await(b);
	assert_int_equal(r.outcome, SINK_DONE);
	assert_true(r.sent_bytes > BIG_BYTES);
	expect_done(b, 1);
	assert_int_equal(accepted(b), 3);
}

/* --- waiting ------------------------------------------------------------------------ */

/* Nothing comes: a poll takes as long as it may, never less, and more only for the machine's sake.
 */
static void expect_wait(struct bench *b, uint64_t wait_ms)
{
	const uint64_t least_ms = wait_ms ? wait_ms - 1 : 0;
	uint64_t took_ms = UINT64_MAX;

	for (int i = 0; i < TRIES && took_ms >= least_ms + 400; i++) {
		const uint64_t begun_ms = cdc_clock_mono_ms();
		struct sink_result r;

		assert_int_equal(b->suite->ops->poll(b->sink, wait_ms, &r, 1), 0);
		took_ms = cdc_clock_mono_ms() - begun_ms;
		assert_true(took_ms >= least_ms);
	}
	assert_true(took_ms < least_ms + 400);
}

static void poll_waits_as_long_as_it_is_told(void **state)
{
	struct bench *b = bench_of(state);

	behave(b, SINK_MOOD_SILENT);
	open_with(b, b->suite->hooks->reach, -1);
	for (size_t i = 0; i < 2; i++) {
		expect_wait(b, 0);
		expect_wait(b, 150);
		/* The second time with something in flight. */
		assert_int_equal(submit(b, i, 1), CDC_OK);
	}
}

static void a_readable_descriptor_ends_the_wait(void **state)
{
	struct bench *b = bench_of(state);
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint64_t begun_ms, value = 3;
	struct sink_result r;

	assert_true(fd >= 0);
	behave(b, SINK_MOOD_LATE);
	open_with(b, b->suite->hooks->reach, fd);
	assert_int_equal(write(fd, &value, sizeof(value)), sizeof(value));
	begun_ms = cdc_clock_mono_ms();
	assert_int_equal(b->suite->ops->poll(b->sink, PATIENCE, &r, 1), 0);
	assert_true(cdc_clock_mono_ms() - begun_ms < PROMPT_MS);
	/* It stays readable, and I/O goes on all the same. */
	assert_int_equal(submit(b, 0, 1), CDC_OK);
	begun_ms = cdc_clock_mono_ms();
	while (!b->suite->ops->poll(b->sink, PATIENCE, &r, 1))
		assert_true(cdc_clock_mono_ms() - begun_ms < PATIENCE);
	take(b, &r);
	assert_int_equal(r.outcome, SINK_DONE);
	value = 0;
	assert_int_equal(read(fd, &value, sizeof(value)), sizeof(value));
	assert_int_equal(value, 3);
	/* No longer readable: the wait is whole again. */
	expect_wait(b, 150);
	(void)close(fd);
}

/* --- trouble ------------------------------------------------------------------------ */

static void expect_trouble(struct bench *b, size_t ticket, enum sink_outcome outcome)
{
	struct sink_result r;

	assert_int_equal(submit(b, ticket, 1), CDC_OK);
	r = await(b);
	if (r.outcome != outcome)
		fail_msg("outcome %d: %s", (int)r.outcome, r.text);
	assert_true(r.ticket == TICKET(ticket));
}

/* In this mood jobs end so, before and after an accepted one, and nothing is left of it. */
static void expect_mood(struct bench *b, enum sink_mood mood, enum sink_outcome outcome)
{
	open_with(b, b->suite->hooks->reach, -1);
	for (size_t i = 0; i < 3; i++) {
		behave(b, mood);
		for (size_t k = 0; k <= SLOTS; k++)
			expect_trouble(b, i * 20 + k, outcome);
		assert_int_equal(accepted(b), 0);
		behave(b, SINK_MOOD_ACCEPT);
		for (size_t k = 0; k <= SLOTS; k++)
			expect_done(b, i * 20 + 10 + k);
		assert_int_equal(accepted(b), SLOTS + 1);
	}
	expect_quiet(b);
}

static void a_busy_endpoint_is_tried_again(void **state)
{
	expect_mood(bench_of(state), SINK_MOOD_LATER, SINK_RETRY);
}

static void a_refusal_is_a_rejection(void **state)
{
	expect_mood(bench_of(state), SINK_MOOD_REFUSE, SINK_REJECT);
}

static void a_broken_connection_is_tried_again(void **state)
{
	expect_mood(bench_of(state), SINK_MOOD_BROKEN, SINK_RETRY);
}

/* With the short time limit, in which a busy machine may not always answer. */
static void expect_done_soon(struct bench *b, size_t ticket)
{
	struct sink_result r = {.outcome = SINK_RETRY};

	for (size_t i = 0; i < TRIES && r.outcome == SINK_RETRY; i++) {
		assert_int_equal(submit(b, ticket + i, 1), CDC_OK);
		r = await(b);
	}
	if (r.outcome != SINK_DONE)
		fail_msg("%s", r.text);
}

static void silence_ends_at_the_time_limit(void **state)
{
	struct bench *b = bench_of(state);

	open_with(b, b->suite->hooks->reach_briefly, -1);
	behave(b, SINK_MOOD_ACCEPT);
	expect_done_soon(b, 10);
	behave(b, SINK_MOOD_SILENT);
	for (size_t i = 0; i < SLOTS; i++)
		assert_int_equal(submit(b, i, 1), CDC_OK);
	for (size_t i = 0; i < SLOTS; i++) {
		struct sink_result r = await(b);

		assert_int_equal(r.outcome, SINK_RETRY);
		assert_int_equal(r.status, 0);
		assert_true(r.is_transient);
		assert_true(r.retry_after_ms == SINK_NO_RETRY_AFTER);
		assert_true(r.took_us >= SINK_CONTRACT_BRIEFLY_MS * 1000 - 20000);
	}
	behave(b, SINK_MOOD_ACCEPT);
	for (size_t i = 0; i < SLOTS; i++)
		expect_done_soon(b, (i + 2) * TRIES);
}

static void where_nobody_listens_is_tried_again(void **state)
{
	struct bench *b = bench_of(state);

	open_with(b, b->suite->hooks->nowhere, -1);
	for (size_t i = 0; i < 2 * (size_t)SLOTS; i++) {
		struct sink_result r;

		assert_int_equal(submit(b, i, 1), CDC_OK);
		r = await(b);
		assert_int_equal(r.outcome, SINK_RETRY);
		assert_int_equal(r.status, 0);
		assert_true(r.is_transient);
		assert_false(r.is_never_record);
	}
	expect_quiet(b);
}

/* --- the probe ---------------------------------------------------------------------- */

static void a_probe_changes_nothing(void **state)
{
	struct bench *b = bench_of(state);
	char text[200] = "";
	struct cdc_err err = {.code = CDC_OK};

	behave(b, SINK_MOOD_ACCEPT);
	open_with(b, b->suite->hooks->reach, -1);
	for (size_t i = 0; i < 2 * (size_t)SLOTS; i++) {
		text[0] = '\0';
		if (b->suite->ops->probe(b->sink, text, sizeof(text), &err))
			fail_msg("probe: %s", err.msg);
		assert_true(text[0] != '\0');
		assert_int_equal(accepted(b), i);
		/* What is sent behind it is sent as ever. */
		expect_done(b, i);
		assert_int_equal(accepted(b), i + 1);
	}
	expect_quiet(b);
}

static void a_probe_gets_any_answer(void **state)
{
	struct bench *b = bench_of(state);
	struct cdc_err err = {.code = CDC_OK};
	char text[200] = "";

	open_with(b, b->suite->hooks->reach, -1);
	behave(b, SINK_MOOD_REFUSE);
	assert_int_equal(b->suite->ops->probe(b->sink, text, sizeof(text), NULL), CDC_OK);
	/* What it would say to records just now is told apart from no answer. */
	behave(b, SINK_MOOD_LATER);
	assert_int_equal(b->suite->ops->probe(b->sink, text, sizeof(text), &err), CDC_REJECTED);
	assert_true(err.msg[0] != '\0' && err.remedy[0] != '\0');
}

static void a_probe_without_an_answer_fails(void **state)
{
	struct bench *b = bench_of(state);
	struct cdc_err err = {.code = CDC_OK};
	char text[200];
	enum cdc_code rc;

	open_with(b, b->suite->hooks->reach_briefly, -1);
	behave(b, SINK_MOOD_SILENT);
	assert_int_equal(b->suite->ops->probe(b->sink, text, sizeof(text), &err), CDC_TIMEOUT);
	assert_true(err.msg[0] != '\0');
	/* A job in flight and a probe would take each other's answers. */
	assert_int_equal(submit(b, 0, 1), CDC_OK);
	assert_int_equal(b->suite->ops->probe(b->sink, text, sizeof(text), &err), CDC_BUSY);
	b->suite->ops->close(b->sink);
	open_with(b, b->suite->hooks->nowhere, -1);
	rc = b->suite->ops->probe(b->sink, text, sizeof(text), &err);
	assert_true(rc == CDC_IO || rc == CDC_TIMEOUT);
	assert_true(err.msg[0] != '\0');
}

/* --- the list ----------------------------------------------------------------------- */

#define TEST(f) cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, &suite)

int sink_contract_run(const struct sink_ops *ops, const struct sink_contract_hooks *hooks)
{
	struct suite suite = {.ops = ops, .hooks = hooks};
	const struct CMUnitTest tests[] = {
		TEST(opening_needs_no_endpoint),
		TEST(unusable_settings_are_refused_at_the_start),
		TEST(closing_drops_what_is_in_flight),
		TEST(every_job_gets_exactly_one_result),
		TEST(above_concurrency_a_sink_is_busy),
		TEST(requests_go_side_by_side),
		TEST(results_that_find_no_room_come_later),
		TEST(a_big_record_passes_and_a_small_one_after_it),
		TEST(poll_waits_as_long_as_it_is_told),
		TEST(a_readable_descriptor_ends_the_wait),
		TEST(a_busy_endpoint_is_tried_again),
		TEST(a_refusal_is_a_rejection),
		TEST(a_broken_connection_is_tried_again),
		TEST(silence_ends_at_the_time_limit),
		TEST(where_nobody_listens_is_tried_again),
		TEST(a_probe_changes_nothing),
		TEST(a_probe_gets_any_answer),
		TEST(a_probe_without_an_answer_fails),
	};

	return cmocka_run_group_tests_name(ops->name, tests, NULL, NULL);
}
