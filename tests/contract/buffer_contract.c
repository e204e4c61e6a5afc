#include "tests/contract/buffer_contract.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cdc/base/clock.h"
#include "cdc/base/stop.h"
#include "tests/contract/workload_contract.h"

static const struct cdc_id BEGIN = {.commit_lsn = 0};

struct suite {
	const struct cdc_buffer_ops *ops;
	const struct contract_hooks *hooks;
	struct contract c;
};

/* --- fixture ------------------------------------------------------------------------ */

static int setup(void **state)
{
	struct suite *s = *state;

	return contract_init(&s->c, s->ops) && s->hooks->fresh(s->hooks->arg, &s->c.s) ? 0 : -1;
}

static int teardown(void **state)
{
	struct suite *s = *state;

	contract_clear(&s->c);
	s->hooks->drop(s->hooks->arg);
	return 0;
}

/* A new empty place in the middle of a test. */
static void begin_again(struct suite *s)
{
	contract_close(&s->c);
	s->hooks->drop(s->hooks->arg);
	assert_true(s->hooks->fresh(s->hooks->arg, &s->c.s));
}

static void opened(struct suite *s, const char *group)
{
	assert_true(contract_open(&s->c));
	if (group)
		assert_true(contract_group(&s->c, group, CDC_START_EARLIEST));
}

/* What a child tells its parent: in memory that both have. */
struct told {
	cdc_lsn durable;
};

static struct told *told_new(void)
{
	void *p = mmap(NULL, sizeof(struct told), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	memset(p, 0, sizeof(struct told));
	return p;
}

static void told_free(struct told *t)
{
	(void)munmap(t, sizeof(*t));
}

/* Runs work in a process that then dies without a word; the buffer must be closed here. */
static void in_process(struct contract *c, bool (*work)(struct contract *c, void *arg), void *arg)
{
	int status = 0;
	pid_t pid;

	assert_null(c->b);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(contract_open(c) && work(c, arg) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Takes transactions first...last of n records each, in order, as wanted. */
static void want_txs(struct contract_ids *want, uint64_t first, uint64_t last, uint32_t n)
{
	for (uint64_t tx = first; tx <= last; tx++)
		contract_ids_add_tx(want, tx, 1, n);
}

static bool append_txs(struct contract *c, uint64_t first, uint64_t last, uint32_t n)
{
	for (uint64_t tx = first; tx <= last; tx++) {
		if (!contract_append_tx(c, tx, n))
			return false;
	}
	return true;
}

/* The group, read from the beginning, has exactly transactions first...last. */
static void assert_txs(struct contract *c, const char *group, uint64_t first, uint64_t last,
		       uint32_t n)
{
	struct contract_ids want = {.n = 0};
	bool is_good;

	want_txs(&want, first, last, n);
	is_good = contract_has(c, group, BEGIN, &want);
	contract_ids_clear(&want);
	assert_true(is_good);
}

static struct cdc_batch *piece(struct contract *c, uint64_t tx, uint32_t from, uint32_t to,
			       bool has_end)
{
	struct cdc_batch *batch = contract_batch(c);

	assert_non_null(batch);
	assert_true(contract_write_tx(c, batch, tx, from, to, has_end));
	return batch;
}

/* --- order and content -------------------------------------------------------------- */

static void what_was_appended_is_read_byte_for_byte_in_order(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_ids want = {.n = 0};
	struct contract_seen seen = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL;
	struct cdc_buffer_state now;
	const struct cdc_id last = contract_id(40, 7);

	opened(s, "g");
	want_txs(&want, 1, 40, 7);
	assert_true(append_txs(c, 1, 40, 7));
	assert_true(contract_wait_durable(c, contract_end_lsn(40)));
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(40));
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	assert_true(contract_read(c, r, &seen, want.n));
	assert_true(contract_same(&seen.got, &want));
	if (s->hooks->is_one_stream) {
		assert_int_equal(seen.stream_n, 1);
		assert_int_equal(seen.streams[0].stream, 0);
		assert_int_equal(cdc_id_cmp(&seen.streams[0].id, &last), 0);
		assert_int_equal(seen.end_n, 40);
	}
	c->ops->state(c->b, &now);
	assert_int_equal(cdc_id_cmp(&now.last_id, &last), 0);
	assert_int_equal(now.durable, contract_end_lsn(40));
	assert_int_equal(now.epoch, last.epoch);
	contract_reader_close(c, r);
	contract_seen_clear(&seen);

	/* And so it is after a close. */
	contract_close(c);
	opened(s, "g");
	c->ops->state(c->b, &now);
	assert_int_equal(cdc_id_cmp(&now.last_id, &last), 0);
	assert_int_equal(now.durable, contract_end_lsn(40));
	assert_int_equal(now.epoch, last.epoch);
	assert_true(contract_has(c, "g", BEGIN, &want));
	contract_ids_clear(&want);
}

static void an_empty_buffer_says_so(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_buffer_state now;
	struct cdc_buffer_stats stats;
	struct cdc_buffer_reader *r = NULL;
	struct contract_seen seen = {.stream_n = 0};
	struct cdc_err err = {.code = CDC_OK};

	opened(s, "g");
	for (int i = 0; i < 2; i++) {
		c->ops->state(c->b, &now);
		assert_true(cdc_id_is_zero(&now.last_id));
		assert_int_equal(now.durable, 0);
		assert_int_equal(now.epoch, 0);
		assert_int_equal(c->ops->durable(c->b), 0);
		c->ops->stats(c->b, &stats);
		assert_int_equal(stats.records, 0);
		assert_int_equal(c->ops->error(c->b, &err), CDC_OK);
		assert_true(contract_reader(c, "g", BEGIN, -1, &r));
		assert_true(contract_read(c, r, &seen, 0));
		contract_reader_close(c, r);
		contract_close(c);
		opened(s, "g");
	}
	contract_seen_clear(&seen);
}

static void pieces_are_read_at_once_and_confirmed_at_the_end(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL;

	opened(s, "g");
	assert_true(contract_append_tx(c, 1, 2));
	assert_true(contract_wait_durable(c, contract_end_lsn(1)));
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	assert_true(contract_append(c, CDC_SEQ_STREAM, piece(c, 2, 1, 3, false)));
	assert_true(contract_read(c, r, &seen, 5));
	assert_true(contract_append(c, CDC_SEQ_STREAM, piece(c, 2, 4, 9, false)));
	assert_true(contract_read(c, r, &seen, 11));
	assert_true(contract_wait_last(c, contract_id(2, 9)));
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(1));
	/* The end alone, in a batch without records. */
	assert_true(contract_append(c, CDC_SEQ_STREAM, piece(c, 2, 1, 0, true)));
	assert_true(contract_wait_durable(c, contract_end_lsn(2)));
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(2));
	/* A batch with the end of one, a whole one and a piece of a third. */
	{
		struct cdc_batch *batch = piece(c, 3, 1, 2, true);

		assert_true(contract_write_tx(c, batch, 4, 1, 2, true));
		assert_true(contract_write_tx(c, batch, 5, 1, 2, false));
		assert_true(contract_append(c, CDC_SEQ_STREAM, batch));
	}
	assert_true(contract_wait_last(c, contract_id(5, 2)));
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(4));
	assert_true(contract_read(c, r, &seen, 17));
	if (s->hooks->is_one_stream) {
		/* The ends may come behind the records. */
		assert_int_equal(seen.end_n, 4);
		assert_int_equal(seen.ends[1].end_lsn, contract_end_lsn(2));
		assert_int_equal(seen.ends[3].end_lsn, contract_end_lsn(4));
	}
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
}

static void transactions_without_records_move_durable(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_buffer_state now;

	opened(s, "g");
	assert_true(contract_append_tx(c, 1, 3));
	{
		struct cdc_batch *batch = piece(c, 2, 1, 0, true);

		assert_true(contract_write_tx(c, batch, 3, 1, 0, true));
		assert_true(contract_append(c, CDC_SEQ_STREAM, batch));
	}
	assert_true(contract_wait_durable(c, contract_end_lsn(3)));
	contract_close(c);
	opened(s, "g");
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(3));
	c->ops->state(c->b, &now);
	assert_true(now.last_id.commit_lsn == contract_lsn(1));
	assert_true(contract_append_tx(c, 4, 3));
	{
		struct contract_ids want = {.n = 0};

		want_txs(&want, 1, 1, 3);
		want_txs(&want, 4, 4, 3);
		assert_true(contract_has(c, "g", BEGIN, &want));
		contract_ids_clear(&want);
	}
}

static void a_record_of_five_mebibytes_passes_alone(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_ids want = {.n = 0};

	/* Also where the queue is smaller than the record: it is taken when nothing else waits. */
	for (int i = 0; i < 2; i++) {
		begin_again(s);
		c->s.queue_bytes = i ? 1u << 20 : 0;
		c->s.cache_bytes = i ? 1u << 20 : 0;
		opened(s, "g");
		assert_true(contract_append_tx(c, 1, 3));
		assert_true(contract_append(c, CDC_SEQ_STREAM,
					    piece(c, 2, CONTRACT_BIG + 1, CONTRACT_BIG + 1, true)));
		assert_true(contract_append_tx(c, 3, 3));
		assert_true(contract_wait_durable(c, contract_end_lsn(3)));
		contract_ids_clear(&want);
		want_txs(&want, 1, 1, 3);
		contract_ids_add(&want, contract_id(2, CONTRACT_BIG + 1));
		want_txs(&want, 3, 3, 3);
		assert_true(contract_has(c, "g", BEGIN, &want));
		contract_close(c);
		opened(s, "g");
		assert_true(contract_has(c, "g", BEGIN, &want));
	}
	contract_ids_clear(&want);
}

/* --- cuts --------------------------------------------------------------------------- */

/* Three transactions of 3, 7 and 2 records as the source sends them: records and ends. */
#define STEPS 15
/* The thread sanitizer looks for races, not for cuts, and makes a new process slow. */
#ifdef __SANITIZE_THREAD__
#define STRIDE 5
#else
#define STRIDE 1
#endif

static uint32_t records_of(uint64_t tx)
{
	static const uint32_t n[] = {0, 3, 7, 2};

	return n[tx];
}

/* What the source would do from there on: starts behind durable and stops after n steps.  Every
 * batch has at most `most` records. */
struct sending {
	unsigned steps, most;
	bool has_wait; /* until it is on disk */
	struct told *told;
};

static bool flush_batch(struct contract *c, struct cdc_batch **batch, bool has_more)
{
	struct cdc_batch *full = *batch;

	*batch = NULL;
	if (has_more && !(*batch = contract_batch(c))) {
		cdc_batch_free(full);
		return false;
	}
	if (full->n == 0 && full->end_n == 0) {
		cdc_batch_free(full);
		return true;
	}
	return contract_append(c, CDC_SEQ_STREAM, full);
}

static bool send_steps(struct contract *c, const struct sending *how)
{
	const cdc_lsn from = c->ops->durable(c->b);
	struct cdc_batch *batch = contract_batch(c);
	struct cdc_id last = {.commit_lsn = 0};
	unsigned step = 0;
	bool is_good = batch != NULL;

	for (uint64_t tx = 1; tx <= 3 && is_good; tx++) {
		for (uint32_t i = 1; i <= records_of(tx) + 1 && is_good && step < how->steps;
		     i++, step++) {
			bool is_end = i > records_of(tx);

			if (!is_end)
				last = contract_id(tx, i);
			if (contract_end_lsn(tx) <= from)
				continue;
			is_good = contract_write_tx(c, batch, tx, i, is_end ? 0 : i, is_end);
			if (is_good && batch->n >= how->most)
				is_good = flush_batch(c, &batch, true);
		}
	}
	if (is_good)
		is_good = flush_batch(c, &batch, false);
	cdc_batch_free(batch);
	if (is_good && how->has_wait)
		is_good = contract_wait_last(c, last);
	return is_good;
}

static bool send_and_tell(struct contract *c, void *arg)
{
	struct sending *how = arg;
	bool is_good = send_steps(c, how);

	how->told->durable = c->ops->durable(c->b);
	return is_good;
}

/* Cuts after k steps, by close or by death, then sends again: each record once. */
static void cut_at(struct suite *s, unsigned k, unsigned most, bool is_crash, bool has_wait)
{
	struct contract *c = &s->c;
	struct contract_ids want = {.n = 0};
	struct told *told = told_new();
	struct sending first = {.steps = k, .most = most, .has_wait = has_wait, .told = told};
	struct sending rest = {.steps = STEPS, .most = 4, .has_wait = true, .told = told};
	bool is_good;

	begin_again(s);
	if (is_crash) {
		in_process(c, send_and_tell, &first);
	} else {
		assert_true(contract_open(c));
		assert_true(send_and_tell(c, &first));
		contract_close(c);
	}
	assert_true(contract_open(c));
	assert_true(c->ops->durable(c->b) >= told->durable);
	assert_true(contract_group(c, "g", CDC_START_EARLIEST));
	assert_true(send_steps(c, &rest));
	assert_true(contract_wait_durable(c, contract_end_lsn(3)));
	for (uint64_t tx = 1; tx <= 3; tx++)
		contract_ids_add_tx(&want, tx, 1, records_of(tx));
	is_good = contract_has(c, "g", BEGIN, &want);
	contract_close(c);
	told_free(told);
	if (is_good) {
		opened(s, "g");
		is_good = contract_has(c, "g", BEGIN, &want);
	}
	contract_ids_clear(&want);
	if (!is_good)
		fail_msg("cut after %u steps, batches of %u, %s, %s", k, most,
			 is_crash ? "crash" : "close", has_wait ? "durable" : "at once");
}

static void a_close_at_every_record_loses_and_doubles_nothing(void **state)
{
	for (unsigned k = 0; k <= STEPS; k += STRIDE) {
		cut_at(*state, k, 100, false, false);
		cut_at(*state, k, 1, false, false);
	}
}

static void a_crash_at_every_record_loses_and_doubles_nothing(void **state)
{
	for (unsigned k = 0; k <= STEPS; k += STRIDE) {
		cut_at(*state, k, 100, true, true);
		cut_at(*state, k, 2, true, true);
		cut_at(*state, k, 1, true, false);
	}
}

/* A crash while it is sent again after a crash. */
static void a_crash_upon_a_crash_loses_and_doubles_nothing(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;

	for (unsigned k = 1; k < STEPS; k += STRIDE) {
		struct contract_ids want = {.n = 0};
		struct told *told = told_new();
		struct sending how = {.steps = k, .most = 2, .has_wait = true, .told = told};
		cdc_lsn before;

		begin_again(s);
		in_process(c, send_and_tell, &how);
		before = told->durable;
		how.steps = (unsigned)(contract_mix(k) % STEPS) + 1;
		if (how.steps < k)
			how.has_wait = false; /* nothing new comes */
		in_process(c, send_and_tell, &how);
		assert_true(told->durable >= before);
		assert_true(contract_open(c));
		assert_true(c->ops->durable(c->b) >= told->durable);
		assert_true(contract_group(c, "g", CDC_START_EARLIEST));
		how = (struct sending){.steps = STEPS, .most = 100, .has_wait = true};
		assert_true(send_steps(c, &how));
		for (uint64_t tx = 1; tx <= 3; tx++)
			contract_ids_add_tx(&want, tx, 1, records_of(tx));
		assert_true(contract_has(c, "g", BEGIN, &want));
		contract_ids_clear(&want);
		told_free(told);
	}
}

/* --- repeats and epochs ------------------------------------------------------------- */

static void repeats_are_dropped(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;

	opened(s, "g");
	assert_true(append_txs(c, 1, 3, 5));
	/* Known, half known and new in one batch, while the first are still in the queue. */
	{
		struct cdc_batch *batch = piece(c, 2, 1, 5, true);

		assert_true(contract_write_tx(c, batch, 3, 1, 5, true));
		assert_true(contract_write_tx(c, batch, 4, 1, 5, true));
		assert_true(contract_append(c, CDC_SEQ_STREAM, batch));
	}
	assert_true(contract_append(c, CDC_SEQ_STREAM, piece(c, 5, 1, 2, false)));
	assert_true(contract_append(c, CDC_SEQ_STREAM, piece(c, 5, 1, 5, true)));
	assert_true(contract_wait_durable(c, contract_end_lsn(5)));
	assert_true(append_txs(c, 1, 5, 5));
	assert_true(contract_append_tx(c, 6, 5));
	assert_txs(c, "g", 1, 6, 5);
	contract_close(c);
	opened(s, "g");
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(6));
	assert_true(append_txs(c, 4, 7, 5));
	assert_txs(c, "g", 1, 7, 5);
	assert_int_equal(contract_wait_durable(c, contract_end_lsn(7)), true);
}

static struct cdc_batch *of_epoch(struct contract *c, uint64_t tx, uint32_t n, uint32_t epoch)
{
	struct cdc_batch *batch = contract_batch(c);

	assert_non_null(batch);
	for (uint32_t i = 1; i <= n; i++) {
		struct cdc_id id = contract_id(tx, i);

		id.epoch = epoch;
		assert_true(contract_write(c, batch, id));
	}
	assert_int_equal(cdc_batch_tx_end(batch, contract_lsn(tx), contract_end_lsn(tx),
					  contract_us(tx), NULL),
			 CDC_OK);
	return batch;
}

static void a_lower_epoch_is_refused_and_a_higher_one_begins_anew(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_batch *batch;
	struct contract_ids want = {.n = 0};
	struct cdc_buffer_state now;
	struct cdc_err err = {.code = CDC_OK};
	struct cdc_id id;

	opened(s, "g");
	assert_true(append_txs(c, 1, 9, 2)); /* epoch 1/1 */
	want_txs(&want, 1, 9, 2);
	/* The timeline rose, and the WAL went back: ids rise all the same. */
	assert_true(contract_append(c, CDC_SEQ_STREAM, of_epoch(c, 4, 3, CDC_EPOCH(1, 2))));
	for (uint32_t i = 1; i <= 3; i++) {
		id = contract_id(4, i);
		id.epoch = CDC_EPOCH(1, 2);
		contract_ids_add(&want, id);
	}
	assert_true(contract_wait_last(c, id));
	for (int i = 0; i < 2; i++) {
		batch = of_epoch(c, 50, 3, CDC_EPOCH(1, 1));
		assert_int_equal(c->ops->append(c->b, CDC_SEQ_STREAM, batch, &err), CDC_EPOCH);
		assert_int_equal(err.code, CDC_EPOCH);
		assert_true(err.msg[0] != '\0');
		assert_int_equal(batch->n, 3); /* it is still ours */
		cdc_batch_free(batch);
		c->ops->state(c->b, &now);
		assert_int_equal(now.epoch, CDC_EPOCH(1, 2));
		assert_true(contract_has(c, "g", BEGIN, &want));
		/* It is not forgotten. */
		contract_close(c);
		opened(s, "g");
	}
	/* What has the same epoch is taken after a refusal. */
	assert_true(contract_append(c, CDC_SEQ_STREAM, of_epoch(c, 5, 1, CDC_EPOCH(1, 2))));
	id = contract_id(5, 1);
	id.epoch = CDC_EPOCH(1, 2);
	contract_ids_add(&want, id);
	/* A new generation. */
	assert_true(contract_append(c, CDC_SEQ_STREAM, of_epoch(c, 1, 1, CDC_EPOCH(2, 1))));
	id = contract_id(1, 1);
	id.epoch = CDC_EPOCH(2, 1);
	contract_ids_add(&want, id);
	assert_true(contract_has(c, "g", BEGIN, &want));
	contract_ids_clear(&want);
}

static struct cdc_id copied(uint64_t tx, uint32_t range, uint32_t row)
{
	return (struct cdc_id){.commit_lsn = contract_lsn(tx),
			       .epoch = CDC_EPOCH(1, 1),
			       .range = range,
			       .row = row};
}

static struct cdc_batch *copy_rows(struct contract *c, uint64_t tx, uint32_t from, uint32_t to)
{
	struct cdc_batch *batch = contract_batch(c);

	assert_non_null(batch);
	for (uint32_t i = from; i <= to; i++)
		assert_true(contract_write(c, batch, copied(tx, 1, i)));
	return batch;
}

static int by_id(const void *a, const void *b)
{
	return cdc_id_cmp(a, b);
}

static void every_copy_has_a_last_id_of_its_own(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_ids want = {.n = 0};
	struct contract_seen seen = {.has_copies = true};
	struct cdc_buffer_reader *r = NULL;
	struct cdc_buffer_state now;

	opened(s, "g");
	assert_true(append_txs(c, 1, 9, 2));
	assert_true(contract_append(c, 1, copy_rows(c, 3, 1, 5))); /* below the stream's last id */
	assert_true(contract_append(c, 1, copy_rows(c, 3, 4, 8)));
	assert_true(contract_append(c, 2, copy_rows(c, 2, 1, 4))); /* below that of copy 1 */
	assert_true(append_txs(c, 9, 10, 2));
	assert_true(contract_wait_durable(c, contract_end_lsn(10)));
	c->ops->state(c->b, &now);
	assert_int_equal(now.last_id.commit_lsn, contract_lsn(10));
	contract_close(c);
	opened(s, "g");
	assert_true(contract_append(c, 2, copy_rows(c, 2, 1, 6)));
	assert_true(contract_append(c, 1, copy_rows(c, 3, 8, 9)));
	assert_true(append_txs(c, 9, 11, 2));
	assert_true(contract_wait_durable(c, contract_end_lsn(11)));
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(11));

	want_txs(&want, 1, 11, 2);
	for (uint32_t i = 1; i <= 9; i++)
		contract_ids_add(&want, copied(3, 1, i));
	for (uint32_t i = 1; i <= 6; i++)
		contract_ids_add(&want, copied(2, 1, i));
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	assert_true(contract_read(c, r, &seen, want.n));
	qsort(seen.got.ids, seen.got.n, sizeof(struct cdc_id), by_id);
	qsort(want.ids, want.n, sizeof(struct cdc_id), by_id);
	assert_true(contract_same(&seen.got, &want));
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
	contract_ids_clear(&want);
}

/* --- progress ----------------------------------------------------------------------- */

static void progress(struct contract *c, cdc_lsn lsn, bool is_urgent)
{
	assert_int_equal(c->ops->progress(c->b, lsn, CDC_EPOCH(1, 1), is_urgent, NULL), CDC_OK);
}

static void progress_moves_durable_and_stays(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_buffer_state now;
	uint64_t begin_ms, took_ms, least_ms = UINT64_MAX;
	unsigned changes = 0;
	cdc_lsn seen;

	opened(s, "g");
	/* Urgent: at once, also right behind another. */
	for (uint64_t i = 1; i <= 10; i++) {
		begin_ms = cdc_clock_mono_ms();
		progress(c, i * 10, true);
		assert_true(contract_wait_durable(c, i * 10));
		took_ms = cdc_clock_mono_ms() - begin_ms;
		if (i > 1 && took_ms < least_ms)
			least_ms = took_ms;
	}
	assert_true(least_ms < 900);
	/* Alone: at most once a second. */
	seen = c->ops->durable(c->b);
	begin_ms = cdc_clock_mono_ms();
	for (uint64_t i = 0; changes < 3; i++) {
		assert_true(cdc_clock_mono_ms() - begin_ms < CONTRACT_WAIT_MS);
		progress(c, 200 + i, false);
		(void)poll(NULL, 0, 5);
		if (c->ops->durable(c->b) != seen)
			changes++;
		seen = c->ops->durable(c->b);
	}
	assert_true(cdc_clock_mono_ms() - begin_ms >= 2000);
	/* With what was appended: no waiting for a second. */
	assert_true(contract_append_tx(c, 1, 3));
	progress(c, contract_end_lsn(1) + 0x10, false);
	assert_true(contract_wait_durable(c, contract_end_lsn(1)));
	assert_true(contract_wait_durable(c, contract_end_lsn(1) + 0x10));
	/* It never goes back. */
	progress(c, contract_end_lsn(1) + 0x08, true);
	progress(c, contract_end_lsn(1) + 0x20, true);
	assert_true(contract_wait_durable(c, contract_end_lsn(1) + 0x20));
	progress(c, 5, true);
	(void)poll(NULL, 0, 100);
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(1) + 0x20);
	contract_close(c);
	opened(s, "g");
	c->ops->state(c->b, &now);
	assert_int_equal(now.durable, contract_end_lsn(1) + 0x20);
	assert_int_equal(now.epoch, CDC_EPOCH(1, 1));
	/* Urgent or not, what was handed over before a close is there after it. */
	progress(c, contract_end_lsn(1) + 0x30, false);
	contract_close(c);
	opened(s, "g");
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(1) + 0x30);
}

static void progress_of_a_new_epoch_is_remembered(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_buffer_state now;
	struct cdc_batch *batch;

	opened(s, "g");
	assert_true(contract_append_tx(c, 1, 1));
	assert_true(contract_wait_durable(c, contract_end_lsn(1)));
	assert_int_equal(c->ops->progress(c->b, contract_end_lsn(2), CDC_EPOCH(1, 3), true, NULL),
			 CDC_OK);
	assert_true(contract_wait_durable(c, contract_end_lsn(2)));
	for (int i = 0; i < 2; i++) {
		c->ops->state(c->b, &now);
		assert_int_equal(now.epoch, CDC_EPOCH(1, 3));
		assert_int_equal(now.last_id.commit_lsn, contract_lsn(1));
		batch = of_epoch(c, 9, 1, CDC_EPOCH(1, 2));
		assert_int_equal(contract_try(c, CDC_SEQ_STREAM, batch), CDC_EPOCH);
		cdc_batch_free(batch);
		contract_close(c);
		opened(s, "g");
	}
}

struct progress_arg {
	struct told *told;
};

/* What a slot that was made anew is read from may lie below all that was read before. */
static void a_generation_may_begin_below_the_end_of_the_one_before(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_buffer_state now = {0};
	const uint32_t epoch = CDC_EPOCH(2, 1);
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	struct cdc_batch *batch;

	opened(s, "g");
	assert_true(append_txs(c, 1, 5, 1));
	assert_int_equal(c->ops->progress(c->b, contract_end_lsn(1), epoch, true, NULL), CDC_OK);
	while (CDC_EPOCH_GENERATION(now.epoch) < 2 && cdc_clock_mono_ms() < end_ms)
		c->ops->state(c->b, &now);
	/* Never before what was appended ahead of it. */
	assert_int_equal(now.last_id.commit_lsn, contract_lsn(5));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(c->ops->durable(c->b), contract_end_lsn(1));
		c->ops->state(c->b, &now);
		assert_int_equal(now.epoch, epoch);
		/* Only the one that begins it. */
		assert_int_equal(c->ops->progress(c->b, 5, epoch, true, NULL), CDC_OK);
		contract_close(c);
		opened(s, "g");
	}
	batch = of_epoch(c, 2, 1, epoch);
	assert_int_equal(contract_try(c, CDC_SEQ_STREAM, batch), CDC_OK);
	assert_true(contract_wait_durable(c, contract_end_lsn(2)));
	assert_int_equal(c->ops->durable(c->b), contract_end_lsn(2));
}

/* Much is appended, progress goes behind it: death as soon as durable() says the latter. */
static bool append_then_progress(struct contract *c, void *arg)
{
	const struct progress_arg *a = arg;

	for (uint64_t tx = 1; tx <= 60; tx++) {
		struct cdc_batch *batch = contract_batch(c);

		if (!batch ||
		    !contract_write_tx(c, batch, tx, CONTRACT_NOISE + 1, CONTRACT_NOISE + 8,
				       true) ||
		    !contract_append(c, CDC_SEQ_STREAM, batch))
			return false;
	}
	if (c->ops->progress(c->b, contract_lsn(100), CDC_EPOCH(1, 1), true, NULL))
		return false;
	if (!contract_wait_durable(c, contract_lsn(100)))
		return false;
	a->told->durable = c->ops->durable(c->b);
	return true;
}

static void progress_stands_behind_what_was_appended_before_it(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_ids want = {.n = 0};
	struct progress_arg arg = {.told = told_new()};

	in_process(c, append_then_progress, &arg);
	opened(s, "g");
	assert_int_equal(arg.told->durable, contract_lsn(100));
	assert_int_equal(c->ops->durable(c->b), contract_lsn(100));
	for (uint64_t tx = 1; tx <= 60; tx++)
		contract_ids_add_tx(&want, tx, CONTRACT_NOISE + 1, CONTRACT_NOISE + 8);
	assert_true(contract_has(c, "g", BEGIN, &want));
	contract_ids_clear(&want);
	told_free(arg.told);
}

/* --- back-pressure ------------------------------------------------------------------ */

#define FULL_TXS 20

static void a_full_queue_takes_nothing_and_wakes(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_ids want = {.n = 0};
	struct cdc_batch *batches[FULL_TXS];
	struct cdc_err err;
	unsigned busy = 0;
	uint64_t n = 0;

	c->s.queue_bytes = 64u << 10;
	opened(s, "g");
	/* Made before, so that they come faster than they can be written. */
	for (unsigned round = 0; round < 3 || (busy == 0 && round < 100); round++) {
		for (unsigned i = 0; i < FULL_TXS; i++)
			batches[i] =
				piece(c, n + i + 1, CONTRACT_NOISE + 1, CONTRACT_NOISE + 2, true);
		for (unsigned i = 0; i < FULL_TXS; i++) {
			enum cdc_code rc;

			memset(&err, 0, sizeof(err));
			while ((rc = c->ops->append(c->b, CDC_SEQ_STREAM, batches[i], &err)) ==
			       CDC_BUSY) {
				busy++;
				assert_int_equal(batches[i]->n, 2);
				assert_int_equal(batches[i]->end_n, 1);
				assert_true(
					contract_poll(c->ops->event_fd(c->b), CONTRACT_WAIT_MS));
				cdc_event_drain(c->ops->event_fd(c->b));
			}
			assert_int_equal(rc, CDC_OK);
			contract_ids_add_tx(&want, ++n, CONTRACT_NOISE + 1, CONTRACT_NOISE + 2);
		}
	}
	assert_true(busy > 0);
	assert_true(contract_has(c, "g", BEGIN, &want));
	contract_ids_clear(&want);
}

static void the_event_wakes_when_durable_rose(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;

	opened(s, "g");
	for (uint64_t tx = 1; tx <= 5; tx++) {
		cdc_event_drain(c->ops->event_fd(c->b));
		assert_false(contract_poll(c->ops->event_fd(c->b), 50));
		assert_true(contract_append_tx(c, tx, 1));
		assert_true(contract_poll(c->ops->event_fd(c->b), CONTRACT_WAIT_MS));
		assert_true(contract_wait_durable(c, contract_end_lsn(tx)));
	}
}

/* --- readers ------------------------------------------------------------------------ */

/* From: below everything, in the middle (of a transaction too), at the last, above everything. */
static void a_reader_begins_above_any_position(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;

	opened(s, "g");
	assert_true(append_txs(c, 10, 30, 3));
	assert_true(contract_wait_durable(c, contract_end_lsn(30)));
	for (int again = 0; again < 2; again++) {
		struct contract_ids want = {.n = 0};

		want_txs(&want, 10, 30, 3);
		assert_true(contract_has(c, "g", contract_id(1, 1), &want));
		assert_true(contract_has(c, "g", contract_id(9, 9), &want));
		contract_ids_clear(&want);
		contract_ids_add_tx(&want, 20, 3, 3);
		want_txs(&want, 21, 30, 3);
		assert_true(contract_has(c, "g", contract_id(20, 2), &want));
		contract_ids_clear(&want);
		assert_true(contract_has(c, "g", contract_id(30, 3), &want));
		assert_true(contract_has(c, "g", contract_id(77, 1), &want));
		contract_ids_clear(&want);
		contract_close(c);
		opened(s, "g");
	}
}

static void a_reader_from_above_skips_what_comes_below(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0};
	struct contract_ids want = {.n = 0};
	struct cdc_buffer_reader *r = NULL;

	opened(s, "g");
	assert_true(append_txs(c, 1, 5, 3));
	assert_true(contract_reader(c, "g", contract_id(8, 2), -1, &r));
	assert_true(contract_read(c, r, &seen, 0));
	assert_true(append_txs(c, 6, 9, 3));
	contract_ids_add_tx(&want, 8, 3, 3);
	contract_ids_add_tx(&want, 9, 1, 3);
	assert_true(contract_read(c, r, &seen, want.n));
	assert_true(contract_same(&seen.got, &want));
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
	contract_ids_clear(&want);
}

/* Whoever got records of a transaction has its end. */
static bool has_their_ends(const struct contract_seen *seen)
{
	size_t end = 0;

	for (size_t i = 0; i < seen->got.n; i++) {
		const cdc_lsn lsn = seen->got.ids[i].commit_lsn;

		while (end < seen->end_n && seen->ends[end].commit_lsn < lsn)
			end++;
		if (end == seen->end_n || seen->ends[end].commit_lsn != lsn)
			return contract_fail("no end of the transaction of record %zu", i);
	}
	return true;
}

static void readers_get_the_tables_they_asked_for(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_ids want[CONTRACT_TABLES] = {{.n = 0}};
	struct cdc_buffer_reader *readers[CONTRACT_TABLES] = {NULL};
	struct contract_seen *seen = calloc(CONTRACT_TABLES, sizeof(*seen));
	struct cdc_buffer_reader *none = NULL;
	const struct cdc_id last = contract_id(60, 5);

	assert_non_null(seen);
	opened(s, "g");
	/* Some transactions alone on disk, where most have nothing of one table or the other. */
	for (uint64_t tx = 1; tx <= 10; tx++) {
		assert_true(contract_append_tx(c, tx, 5));
		assert_true(contract_wait_durable(c, contract_end_lsn(tx)));
	}
	assert_true(append_txs(c, 11, 30, 5));
	assert_true(contract_wait_durable(c, contract_end_lsn(30)));
	contract_close(c); /* one half is read from the disk, the other from memory */
	opened(s, "g");
	assert_true(append_txs(c, 31, 60, 5));
	for (uint64_t tx = 1; tx <= 60; tx++) {
		for (uint32_t i = 1; i <= 5; i++) {
			struct cdc_id id = contract_id(tx, i);

			contract_ids_add(&want[contract_table(&id)], id);
		}
	}
	/* All of one group, side by side. */
	for (int t = 0; t < CONTRACT_TABLES; t++)
		assert_true(contract_reader(c, "g", BEGIN, t, &readers[t]));
	for (int t = 0; t < CONTRACT_TABLES; t++) {
		assert_true(want[t].n > 0);
		assert_true(contract_read(c, readers[t], &seen[t], want[t].n));
		assert_true(contract_same(&seen[t].got, &want[t]));
		if (s->hooks->is_one_stream) {
			/* What was skipped counts. */
			assert_int_equal(cdc_id_cmp(&seen[t].streams[0].id, &last), 0);
			assert_true(has_their_ends(&seen[t]));
		}
		contract_reader_close(c, readers[t]);
		contract_seen_clear(&seen[t]);
		contract_ids_clear(&want[t]);
	}
	/* A table that nobody has written. */
	{
		const char *const tables[] = {"public.t", "public.t00", "t0"};

		assert_true(contract_reader_of(c, "g", BEGIN, tables, 3, &none));
		assert_true(contract_read(c, none, &seen[0], 0));
		if (s->hooks->is_one_stream)
			assert_int_equal(cdc_id_cmp(&seen[0].streams[0].id, &last), 0);
		contract_reader_close(c, none);
		contract_seen_clear(&seen[0]);
	}
	free(seen);
}

static void a_reader_of_two_tables_gets_both(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	const char *const tables[] = {"public.t3", "public.t1"};
	struct contract_ids want = {.n = 0};
	struct contract_seen seen = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL;

	opened(s, "g");
	assert_true(append_txs(c, 1, 20, 5));
	for (uint64_t tx = 1; tx <= 20; tx++) {
		for (uint32_t i = 1; i <= 5; i++) {
			struct cdc_id id = contract_id(tx, i);

			if (contract_table(&id) == 1 || contract_table(&id) == 3)
				contract_ids_add(&want, id);
		}
	}
	assert_true(contract_reader_of(c, "g", BEGIN, tables, 2, &r));
	assert_true(contract_read(c, r, &seen, want.n));
	assert_true(contract_same(&seen.got, &want));
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
	contract_ids_clear(&want);
}

static void a_reader_at_the_end_is_woken(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0}, other = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL, *q = NULL;

	opened(s, "g");
	assert_true(contract_group(c, "h", CDC_START_EARLIEST));
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	assert_true(contract_reader(c, "h", BEGIN, -1, &q));
	for (uint64_t tx = 1; tx <= 20; tx++) {
		assert_true(contract_read(c, r, &seen, tx - 1));
		assert_true(contract_read(c, q, &other, tx - 1));
		cdc_event_drain(c->ops->reader_fd(r));
		cdc_event_drain(c->ops->reader_fd(q));
		assert_false(contract_poll(c->ops->reader_fd(r), tx % 5 ? 0 : 100));
		assert_true(contract_append_tx(c, tx, 1));
		assert_true(contract_poll(c->ops->reader_fd(r), CONTRACT_WAIT_MS));
		assert_true(contract_poll(c->ops->reader_fd(q), CONTRACT_WAIT_MS));
	}
	assert_true(contract_read(c, r, &seen, 20));
	contract_reader_close(c, r);
	contract_reader_close(c, q);
	contract_seen_clear(&seen);
	contract_seen_clear(&other);
}

/* Holds every lease while all else changes, then looks at the records again. */
static void a_lease_keeps_its_records(void **state)
{
	enum { LEASES = 256 };
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0}, later = {.stream_n = 0};
	struct cdc_read *reads = calloc(LEASES, sizeof(*reads));
	struct cdc_buffer_reader *r = NULL;
	size_t n = 0, held = 0;

	assert_non_null(reads);
	c->s.cache_bytes = 1;
	c->s.retention_ms = 1;
	opened(s, "g");
	for (uint64_t tx = 1; tx <= 40; tx++)
		assert_true(contract_append(
			c, CDC_SEQ_STREAM,
			piece(c, tx, CONTRACT_NOISE + 1, CONTRACT_NOISE + 8, true)));
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	while (n < LEASES && seen.got.n < 320) {
		assert_int_equal(c->ops->read(r, &reads[n], NULL), CDC_OK);
		assert_true(contract_note(c, &seen, &reads[n]));
		if (reads[n].is_at_end && reads[n].n == 0)
			assert_true(contract_poll(c->ops->reader_fd(r), CONTRACT_WAIT_MS));
		if (reads[n].lease)
			n++;
	}
	assert_int_equal(seen.got.n, 320);
	/* Delivered and evicted, and others in its place. */
	assert_true(contract_commit(c, "g", contract_id(40, CONTRACT_NOISE + 8)));
	for (uint64_t tx = 41; tx <= 120; tx++)
		assert_true(contract_append(
			c, CDC_SEQ_STREAM,
			piece(c, tx, CONTRACT_NOISE + 1, CONTRACT_NOISE + 8, true)));
	assert_true(contract_wait_durable(c, contract_end_lsn(120)));
	for (size_t i = 0; i < n; i++) {
		reads[i].end_n = 0; /* they were looked at */
		assert_true(contract_note(c, &later, &reads[i]));
	}
	assert_true(contract_same(&later.got, &seen.got));
	/* Half of them in an order of its own; close gives back the rest. */
	for (size_t i = n; i > 0; i -= 2) {
		c->ops->release(r, reads[i - 1].lease);
		held++;
		if (i == 1)
			break;
	}
	assert_true(held > 0);
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
	contract_seen_clear(&later);
	free(reads);
}

/* The schema record of a table that is in force comes before its first row. */
static void the_schema_precedes_the_first_row(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_batch *batch;
	struct cdc_id first, second;
	unsigned table;
	uint64_t change = 12;

	opened(s, "g");
	/* One table: that of the first row of transaction 2; its shape changes at another's. */
	first = contract_id(2, 1);
	table = contract_table(&first);
	first.part = 0;
	for (second = contract_id(change, 1); contract_table(&second) != table;)
		second = contract_id(++change, 1);
	second.part = 0;
	for (uint64_t tx = 2; tx <= change + 6; tx++) {
		batch = contract_batch(c);
		assert_non_null(batch);
		if (tx == 2)
			assert_true(contract_write(c, batch, first));
		if (tx == change)
			assert_true(contract_write(c, batch, second));
		assert_true(contract_write_tx(c, batch, tx, 1, 4, true));
		assert_true(contract_append(c, CDC_SEQ_STREAM, batch));
	}
	assert_true(contract_wait_durable(c, contract_end_lsn(change + 6)));
	for (int again = 0; again < 2; again++) {
		for (uint64_t from = 1; from <= change + 5; from++) {
			struct cdc_id at = contract_id(from, 4);
			struct contract_ids want = {.n = 0};
			struct contract_seen seen = {.stream_n = 0};
			struct cdc_buffer_reader *r = NULL;
			bool has_schema = false;

			for (uint64_t tx = from + 1; tx <= change + 6; tx++) {
				if (tx == 2 || tx == change) {
					contract_ids_add(&want, tx == 2 ? first : second);
					has_schema = true;
				}
				for (uint32_t i = 1; i <= 4; i++) {
					struct cdc_id id = contract_id(tx, i);

					if (contract_table(&id) != table)
						continue;
					if (!has_schema)
						contract_ids_add(&want,
								 tx < change ? first : second);
					has_schema = true;
					contract_ids_add(&want, id);
				}
			}
			assert_true(contract_reader(c, "g", at, (int)table, &r));
			assert_true(contract_read(c, r, &seen, want.n));
			assert_true(contract_same(&seen.got, &want));
			contract_reader_close(c, r);
			contract_seen_clear(&seen);
			contract_ids_clear(&want);
		}
		contract_close(c);
		opened(s, "g");
	}
}

struct schemas_told {
	struct cdc_id ids[CONTRACT_TABLES * 2];
	size_t n;
	size_t most; /* the call that makes so many fails */
};

static enum cdc_code tell(void *arg, struct cdc_view schema, struct cdc_err *err)
{
	struct schemas_told *told = arg;

	assert_int_equal(schema.rec->op, CDC_OP_SCHEMA);
	assert_true(told->n < sizeof(told->ids) / sizeof(told->ids[0]));
	told->ids[told->n++] = schema.rec->id;
	return told->n == told->most ? cdc_err_set(err, CDC_LIMIT, "enough") : CDC_OK;
}

static bool was_told(const struct schemas_told *told, struct cdc_id id)
{
	for (size_t i = 0; i < told->n; i++) {
		if (cdc_id_cmp(&told->ids[i], &id) == 0)
			return true;
	}
	return false;
}

/* The newest schema record of each table, and none that was dropped as already there. */
static void the_newest_schema_of_each_table_is_told(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_batch *batch;
	struct cdc_id first, other, second;
	uint64_t tx = 3, other_tx;
	struct schemas_told none = {.n = 0};

	opened(s, "g");
	assert_int_equal(c->ops->schemas(c->b, tell, &none, NULL), CDC_OK);
	assert_int_equal(none.n, 0);
	first = contract_id(2, 1);
	for (other = contract_id(tx, 1); contract_table(&other) == contract_table(&first);)
		other = contract_id(++tx, 1);
	other_tx = tx;
	for (second = contract_id(++tx, 1); contract_table(&second) != contract_table(&first);)
		second = contract_id(++tx, 1);
	first.part = other.part = second.part = 0;
	for (int turn = 0; turn < 3; turn++) {
		const struct cdc_id id = turn == 0 ? first : turn == 1 ? other : second;
		const uint64_t at = turn == 0 ? 2 : turn == 1 ? other_tx : tx;

		batch = contract_batch(c);
		assert_non_null(batch);
		assert_true(contract_write(c, batch, id));
		assert_true(contract_write_tx(c, batch, at, 1, 1, true));
		assert_true(contract_append(c, CDC_SEQ_STREAM, batch));
	}
	/* What comes again, with a record that was not there the first time. */
	batch = contract_batch(c);
	assert_non_null(batch);
	other.ordinal++;
	assert_true(contract_write(c, batch, other));
	assert_true(contract_append(c, CDC_SEQ_STREAM, batch));
	other.ordinal--;
	assert_true(contract_wait_durable(c, contract_end_lsn(tx)));
	for (int again = 0; again < 2; again++) {
		struct schemas_told told = {.n = 0}, one = {.most = 1};

		assert_int_equal(c->ops->schemas(c->b, tell, &told, NULL), CDC_OK);
		assert_int_equal(told.n, 2);
		assert_true(was_told(&told, other) && was_told(&told, second));
		assert_int_equal(c->ops->schemas(c->b, tell, &one, NULL), CDC_LIMIT);
		assert_int_equal(one.n, 1);
		contract_close(c);
		opened(s, "g");
	}
}

/* --- groups ------------------------------------------------------------------------- */

/* Adds a group and says which transactions a reader from its position gets. */
static void assert_start(struct suite *s, const struct cdc_start *start, uint64_t first,
			 uint64_t last)
{
	struct contract *c = &s->c;
	const struct cdc_position none = {.n = 0};
	struct cdc_stream_position at;
	struct contract_ids want = {.n = 0};
	struct cdc_gap gap;

	assert_int_equal(c->ops->group_add(c->b, "new", &none, start, &at, &gap, NULL), CDC_OK);
	assert_true(cdc_id_is_zero(&gap.first));
	want_txs(&want, first, last, 3);
	assert_true(contract_has(c, "new", at.id, &want));
	contract_ids_clear(&want);
	/* A replay to the same place. */
	want_txs(&want, first, last, 3);
	assert_int_equal(c->ops->seek(c->b, "new", start, &at, NULL), CDC_OK);
	assert_true(contract_has(c, "new", at.id, &want));
	contract_ids_clear(&want);
	assert_int_equal(c->ops->group_drop(c->b, "new", NULL), CDC_OK);
}

static void a_new_group_starts_where_it_was_told(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;

	opened(s, "g");
	assert_true(append_txs(c, 10, 40, 3));
	assert_true(contract_wait_durable(c, contract_end_lsn(40)));
	for (int again = 0; again < 2; again++) {
		assert_start(s, &(struct cdc_start){.at = CDC_START_EARLIEST}, 10, 40);
		assert_start(s, &(struct cdc_start){.at = CDC_START_DURABLE_END}, 41, 40);
		assert_start(s, &(struct cdc_start){.at = CDC_START_ID, .id = contract_id(25, 3)},
			     26, 40);
		for (uint64_t tx = 10; tx <= 40; tx += 5) {
			struct cdc_start start = {.at = CDC_START_TIME, .time_us = contract_us(tx)};

			assert_start(s, &start, tx, 40);
			start.time_us -= 1;
			assert_start(s, &start, tx, 40);
			start.time_us += 2;
			assert_start(s, &start, tx + 1, 40);
		}
		assert_start(s,
			     &(struct cdc_start){.at = CDC_START_TIME, .time_us = contract_us(1)},
			     10, 40);
		contract_close(c);
		opened(s, "g");
	}
	/* Some on disk, some in memory only. */
	assert_true(append_txs(c, 41, 50, 3));
	for (uint64_t tx = 38; tx <= 50; tx++)
		assert_start(s,
			     &(struct cdc_start){.at = CDC_START_TIME, .time_us = contract_us(tx)},
			     tx, 50);
}

static void a_group_at_the_durable_end_gets_what_comes(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	const struct cdc_position none = {.n = 0};
	const struct cdc_start start = {.at = CDC_START_DURABLE_END};
	const struct cdc_id last = contract_id(5, 3);
	struct cdc_stream_position at;
	struct cdc_gap gap;
	struct contract_ids want = {.n = 0};

	opened(s, NULL);
	assert_true(append_txs(c, 1, 5, 3));
	assert_true(contract_wait_durable(c, contract_end_lsn(5)));
	assert_int_equal(c->ops->group_add(c->b, "g", &none, &start, &at, &gap, NULL), CDC_OK);
	if (s->hooks->is_one_stream) {
		assert_int_equal(at.stream, 0);
		assert_int_equal(cdc_id_cmp(&at.id, &last), 0);
	}
	assert_true(append_txs(c, 6, 9, 3));
	want_txs(&want, 6, 9, 3);
	assert_true(contract_has(c, "g", at.id, &want));
	contract_ids_clear(&want);
}

static void a_group_comes_back_to_its_position(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_stream_position stored = {.stream = 0, .id = contract_id(3, 2)}, at;
	const struct cdc_position position = {.n = 1, .streams = &stored};
	struct cdc_gap gap;
	struct cdc_err err = {.code = CDC_OK};
	struct cdc_buffer_reader *r = NULL;

	opened(s, NULL);
	assert_true(append_txs(c, 1, 5, 3));
	assert_int_equal(c->ops->group_add(c->b, "g", &position, NULL, &at, &gap, NULL), CDC_OK);
	assert_int_equal(at.stream, 0);
	assert_int_equal(cdc_id_cmp(&at.id, &stored.id), 0);
	assert_true(cdc_id_is_zero(&gap.first));
	assert_int_equal(c->ops->group_drop(c->b, "g", NULL), CDC_OK);
	assert_true(c->ops->reader_open(c->b, "g", &position, NULL, 0, &r, &err) != CDC_OK);
	assert_true(err.msg[0] != '\0');
}

static void a_seek_goes_back_and_never_forth(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_stream_position at;
	struct contract_ids want = {.n = 0};
	struct cdc_start to;

	c->s.retention_ms = 3600000;
	opened(s, "g");
	assert_true(append_txs(c, 1, 20, 3));
	assert_true(contract_wait_durable(c, contract_end_lsn(20)));
	assert_txs(c, "g", 1, 20, 3);
	assert_true(contract_commit(c, "g", contract_id(20, 3)));
	to = (struct cdc_start){.at = CDC_START_TIME, .time_us = contract_us(15)};
	assert_int_equal(c->ops->seek(c->b, "g", &to, &at, NULL), CDC_OK);
	want_txs(&want, 15, 20, 3);
	assert_true(contract_has(c, "g", at.id, &want));
	contract_ids_clear(&want);
	to = (struct cdc_start){.at = CDC_START_ID, .id = contract_id(5, 3)};
	assert_int_equal(c->ops->seek(c->b, "g", &to, &at, NULL), CDC_OK);
	want_txs(&want, 6, 20, 3);
	assert_true(contract_has(c, "g", at.id, &want));
	to = (struct cdc_start){.at = CDC_START_TIME, .time_us = contract_us(15)};
	assert_int_equal(c->ops->seek(c->b, "g", &to, &at, NULL), CDC_OK);
	assert_true(contract_has(c, "g", at.id, &want));
	contract_ids_clear(&want);
	to = (struct cdc_start){.at = CDC_START_EARLIEST};
	assert_int_equal(c->ops->seek(c->b, "g", &to, &at, NULL), CDC_OK);
	assert_txs(c, "g", 1, 20, 3);
	assert_true(c->ops->seek(c->b, "nobody", &to, &at, NULL) != CDC_OK);
}

/* --- the budget --------------------------------------------------------------------- */

#define SMALL  (16u << 20)
#define PER_TX 8

/* Waits until it is worth trying again: false when the buffer is full, and stays so. */
static bool has_room_soon(struct contract *c)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	struct cdc_buffer_stats stats;

	/* Not one long wait: a full buffer may just be about to look whether a group has moved. */
	for (unsigned full_n = 0; full_n < 15;) {
		assert_true(cdc_clock_mono_ms() < end_ms);
		if (contract_poll(c->ops->event_fd(c->b), 100)) {
			cdc_event_drain(c->ops->event_fd(c->b));
			return true;
		}
		c->ops->stats(c->b, &stats);
		full_n = stats.is_full ? full_n + 1 : 0;
	}
	return false;
}

/* Appends noise from *tx on until nothing more is taken; *tx is then the next one. */
static void append_until_full(struct contract *c, uint64_t *tx, uint64_t most)
{
	while (*tx <= most) {
		struct cdc_batch *batch =
			piece(c, *tx, CONTRACT_NOISE + 1, CONTRACT_NOISE + PER_TX, true);
		enum cdc_code rc;

		while ((rc = contract_try(c, CDC_SEQ_STREAM, batch)) == CDC_BUSY) {
			if (!has_room_soon(c)) {
				cdc_batch_free(batch);
				return;
			}
		}
		assert_int_equal(rc, CDC_OK);
		++*tx;
	}
}

/* Reads n transactions more and checks them. */
static void read_noise(struct contract *c, struct cdc_buffer_reader *r, struct contract_seen *seen,
		       uint64_t last)
{
	struct contract_ids want = {.n = 0};

	for (uint64_t tx = 1; tx <= last; tx++)
		contract_ids_add_tx(&want, tx, CONTRACT_NOISE + 1, CONTRACT_NOISE + PER_TX);
	assert_true(contract_read(c, r, seen, want.n));
	assert_true(contract_same(&seen->got, &want));
	contract_ids_clear(&want);
}

static void a_full_buffer_stops_until_the_last_group_moves(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL;
	struct cdc_buffer_stats stats;
	uint64_t tx = 1, before;

	if (!s->hooks->has_budget)
		skip();
	c->s.max_bytes = SMALL;
	c->s.queue_bytes = 1u << 20;
	c->s.retention_ms = 3600000; /* delivered ones stay, but not when room is needed */
	opened(s, "g");
	assert_true(contract_group(c, "dead", CDC_START_EARLIEST));
	append_until_full(c, &tx, 2000);
	assert_in_range(tx, 50, 1000); /* of 64 KiB: it did take some, and it did stop */
	c->ops->stats(c->b, &stats);
	assert_true(stats.bytes <= SMALL);
	assert_true(stats.bytes >= SMALL / 4);
	assert_non_null(stats.holder);
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	read_noise(c, r, &seen, tx - 1);
	/* One of the two has it all, the other nothing: still no room. */
	assert_true(contract_commit(c, "g", contract_id(tx - 1, CONTRACT_NOISE + PER_TX)));
	before = tx;
	append_until_full(c, &tx, 2000);
	assert_int_equal(tx, before);
	c->ops->stats(c->b, &stats);
	assert_string_equal(stats.holder, "dead");
	assert_int_equal(c->ops->group_drop(c->b, "dead", NULL), CDC_OK);
	for (int i = 0; i < 3; i++) {
		before = tx;
		append_until_full(c, &tx, 2000);
		assert_true(tx > before + 20);
		c->ops->stats(c->b, &stats);
		assert_true(stats.bytes <= SMALL);
		read_noise(c, r, &seen, tx - 1);
		assert_true(contract_commit(c, "g", contract_id(tx - 1, CONTRACT_NOISE + PER_TX)));
	}
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
}

/* Nobody has read when the process ends with a full buffer. */
static void a_full_buffer_opens_full_and_goes_on(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL;
	struct cdc_buffer_state was, now;
	uint64_t tx = 1, end;

	if (!s->hooks->has_budget)
		skip();
	c->s.max_bytes = SMALL;
	c->s.queue_bytes = 1u << 20;
	c->s.retention_ms = 1;
	opened(s, "g");
	append_until_full(c, &tx, 2000);
	c->ops->state(c->b, &was);
	contract_close(c); /* what still was in the queue is not there: no room */
	opened(s, "g");
	c->ops->state(c->b, &now);
	assert_true(cdc_id_cmp(&now.last_id, &was.last_id) >= 0);
	assert_true(now.durable >= was.durable);
	end = now.last_id.commit_lsn / 0x1000;
	assert_true(contract_reader(c, "g", BEGIN, -1, &r));
	read_noise(c, r, &seen, end);
	assert_true(contract_commit(c, "g", now.last_id));
	tx = end + 1;
	append_until_full(c, &tx, end + 50);
	assert_int_equal(tx, end + 51);
	read_noise(c, r, &seen, end + 50);
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
}

static void group_with_gap(struct contract *c, const char *name, struct cdc_gap *ret)
{
	const struct cdc_position none = {.n = 0};
	const struct cdc_start start = {.at = CDC_START_EARLIEST};
	struct cdc_stream_position at;

	assert_int_equal(c->ops->group_add(c->b, name, &none, &start, &at, ret, NULL), CDC_OK);
}

static void the_group_furthest_behind_is_suspended(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0}, dead_seen = {.stream_n = 0};
	struct cdc_buffer_reader *r = NULL, *dead = NULL;
	const struct cdc_id dead_at = contract_id(2, CONTRACT_NOISE + 3);
	struct cdc_stream_position stored = {.stream = 0, .id = dead_at}, at;
	const struct cdc_position position = {.n = 1, .streams = &stored};
	struct cdc_err err = {.code = CDC_OK};
	struct cdc_read read;
	struct cdc_gap gap, again;
	struct cdc_id next = contract_id(2, CONTRACT_NOISE + 4);
	char text[CDC_ID_TEXT];
	uint64_t tx = 1;

	if (!s->hooks->has_budget)
		skip();
	c->s.max_bytes = SMALL;
	c->s.queue_bytes = 1u << 20;
	c->s.retention_ms = 1;
	c->s.on_full = CDC_ON_FULL_SUSPEND;
	opened(s, "live");
	assert_true(contract_group(c, "dead", CDC_START_EARLIEST));
	assert_true(contract_reader(c, "live", BEGIN, -1, &r));
	assert_true(contract_reader(c, "dead", dead_at, -1, &dead));
	assert_true(contract_commit(c, "dead", dead_at));
	for (int i = 0; i < 40; i++) {
		append_until_full(c, &tx, tx + 19);
		read_noise(c, r, &seen, tx - 1);
		assert_true(
			contract_commit(c, "live", contract_id(tx - 1, CONTRACT_NOISE + PER_TX)));
	}
	assert_int_equal(tx, 801); /* the dead one did not stop it */
	memset(&read, 0, sizeof(read));
	assert_int_equal(c->ops->read(dead, &read, &err), CDC_GAP);
	assert_int_equal(err.code, CDC_GAP);
	contract_reader_close(c, dead);
	/* Live goes on. */
	append_until_full(c, &tx, 820);
	read_noise(c, r, &seen, tx - 1);
	contract_reader_close(c, r);
	contract_close(c);

	/* The gap is still known: from the first record it has not had. */
	opened(s, "live");
	assert_int_equal(c->ops->group_add(c->b, "dead", &position, NULL, &at, &gap, NULL), CDC_OK);
	assert_true(cdc_id_cmp(&gap.first, &dead_at) > 0);
	assert_true(cdc_id_cmp(&gap.first, &next) <= 0);
	assert_true(cdc_id_cmp(&gap.last, &next) >= 0);
	(void)cdc_id_format(&gap.last, text);
	dead = NULL;
	assert_true(contract_reader(c, "dead", dead_at, -1, &dead));
	memset(&err, 0, sizeof(err));
	assert_int_equal(c->ops->read(dead, &read, &err), CDC_GAP);
	assert_non_null(strstr(err.msg, text));
	(void)cdc_id_format(&gap.first, text);
	assert_non_null(strstr(err.msg, text));
	contract_reader_close(c, dead);

	/* Forgotten, it begins anew; and the forgetting is durable. */
	assert_int_equal(c->ops->group_drop(c->b, "dead", NULL), CDC_OK);
	contract_close(c);
	opened(s, "live");
	group_with_gap(c, "dead", &again);
	assert_true(cdc_id_is_zero(&again.first));
	assert_true(contract_reader(c, "dead", contract_id(tx, 0), -1, &dead));
	assert_true(contract_append_tx(c, tx, 3));
	assert_true(contract_read(c, dead, &dead_seen, 3));
	contract_reader_close(c, dead);
	contract_seen_clear(&seen);
	contract_seen_clear(&dead_seen);
}

static bool wait_records(struct contract *c, uint64_t most)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	struct cdc_buffer_stats stats;

	do {
		c->ops->stats(c->b, &stats);
		if (stats.records <= most)
			return true;
		(void)poll(NULL, 0, 20);
	} while (cdc_clock_mono_ms() < end_ms);
	return contract_fail("%llu records stay", (unsigned long long)stats.records);
}

static void delivered_records_stay_for_the_retention(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_buffer_stats stats;
	struct cdc_buffer_state now;
	struct contract_ids want = {.n = 0};

	if (!s->hooks->has_budget)
		skip();
	c->s.retention_ms = 3600000;
	opened(s, "g");
	assert_true(append_txs(c, 1, 10, 3));
	assert_true(contract_wait_durable(c, contract_end_lsn(10)));
	assert_true(contract_commit(c, "g", contract_id(10, 3)));
	(void)poll(NULL, 0, 500);
	c->ops->stats(c->b, &stats);
	assert_int_equal(stats.records, 30);
	contract_close(c);

	/* What is not delivered stays however old it is. */
	c->s.retention_ms = 1;
	opened(s, "g");
	assert_true(append_txs(c, 11, 20, 3));
	assert_true(contract_wait_durable(c, contract_end_lsn(20)));
	(void)poll(NULL, 0, 500);
	assert_txs(c, "g", 1, 20, 3);
	assert_true(contract_commit(c, "g", contract_id(20, 3)));
	assert_true(wait_records(c, 0));

	/* The buffer is empty and knows how far it was. */
	for (int i = 0; i < 2; i++) {
		c->ops->state(c->b, &now);
		assert_int_equal(now.durable, contract_end_lsn(20));
		assert_int_equal(now.last_id.commit_lsn, contract_lsn(20));
		assert_true(contract_has(c, "g", BEGIN, &want));
		contract_close(c);
		opened(s, "g");
	}
	assert_true(append_txs(c, 18, 21, 3));
	want_txs(&want, 21, 21, 3);
	assert_true(contract_has(c, "g", BEGIN, &want));
	contract_ids_clear(&want);
}

/* --- processes and threads ---------------------------------------------------------- */

static void a_second_process_is_refused(void **state)
{
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct cdc_err err = {.code = CDC_OK};
	int ready[2], done[2], status = 0;
	char byte = 0;
	pid_t pid;

	if (!s->hooks->is_exclusive)
		skip();
	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(done), 0);
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		bool is_open = contract_open(c);

		(void)!write(ready[1], is_open ? "y" : "n", 1);
		(void)close(done[1]);
		(void)!read(done[0], &byte, 1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, 'y');
	c->s.metrics = &c->metrics;
	assert_int_equal(c->ops->open(&c->s, &c->b, &err), CDC_HELD);
	assert_true(err.msg[0] != '\0');
	c->b = NULL;
	(void)close(done[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* It died without a close: the place is free. */
	opened(s, "g");
	assert_true(contract_append_tx(c, 1, 1));
	assert_txs(c, "g", 1, 1, 1);
	(void)close(ready[0]);
	(void)close(ready[1]);
	(void)close(done[0]);
}

#define CROWD_TXS    2500
#define CROWD_PER_TX 20 /* 50,000 records */

struct crowd_reader {
	struct contract *c;
	const char *group;
	const char *tables[CONTRACT_TABLES];
	bool is_mine[CONTRACT_TABLES];
	size_t table_n;
	bool is_good;
};

static bool crowd_read(struct crowd_reader *me)
{
	struct contract *c = me->c;
	struct cdc_stream_position at = {.stream = 0};
	const struct cdc_position from = {.n = 1, .streams = &at};
	struct contract_ids want = {.n = 0};
	struct contract_seen *seen = calloc(1, sizeof(*seen));
	struct cdc_buffer_reader *r = NULL;
	bool is_good = seen != NULL;

	for (uint64_t tx = 1; tx <= CROWD_TXS; tx++) {
		for (uint32_t i = 1; i <= CROWD_PER_TX; i++) {
			struct cdc_id id = contract_id(tx, i);

			if (me->is_mine[contract_table(&id)])
				contract_ids_add(&want, id);
		}
	}
	is_good = is_good &&
		  !c->ops->reader_open(c->b, me->group, &from, me->tables, me->table_n, &r, NULL);
	/* In portions, each followed by a commit. */
	for (size_t n = 0; is_good && n < want.n;) {
		const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
		struct cdc_read read;

		memset(&read, 0, sizeof(read));
		is_good = !c->ops->read(r, &read, NULL) && contract_note(c, seen, &read);
		if (read.lease)
			c->ops->release(r, read.lease);
		if (is_good && read.is_at_end && seen->got.n < want.n) {
			is_good = contract_poll(c->ops->reader_fd(r), CONTRACT_WAIT_MS) ||
				  contract_fail("%s is not woken", me->group);
			cdc_event_drain(c->ops->reader_fd(r));
		}
		(void)contract_commit(c, me->group, read.through.id);
		is_good = is_good && cdc_clock_mono_ms() < end_ms + CONTRACT_WAIT_MS;
		n = seen->got.n;
	}
	is_good = is_good && contract_same(&seen->got, &want);
	c->ops->reader_close(r);
	contract_ids_clear(&want);
	if (seen)
		contract_seen_clear(seen);
	free(seen);
	return is_good;
}

static void *crowd_main(void *arg)
{
	struct crowd_reader *me = arg;

	me->is_good = crowd_read(me);
	return NULL;
}

/* The capture thread's part, in this thread. */
static bool crowd_append(struct contract *c)
{
	uint64_t tx = 1;
	cdc_lsn before = 0;

	while (tx <= CROWD_TXS) {
		struct cdc_batch *batch = contract_batch(c);
		uint64_t n = contract_mix(tx) % 8 + 1;
		bool is_good = batch != NULL;

		for (; n && tx <= CROWD_TXS && is_good; n--, tx++)
			is_good = contract_write_tx(c, batch, tx, 1, CROWD_PER_TX, true);
		if (!is_good) {
			cdc_batch_free(batch);
			return false;
		}
		if (!contract_append(c, CDC_SEQ_STREAM, batch))
			return false;
		if (c->ops->durable(c->b) < before)
			return contract_fail("durable() went back");
		before = c->ops->durable(c->b);
	}
	return contract_wait_durable(c, contract_end_lsn(CROWD_TXS));
}

static void three_readers_follow_one_writer(void **state)
{
	enum { READERS = 3 };
	struct suite *s = *state;
	struct contract *c = &s->c;
	static const char *const groups[READERS] = {"a", "b", "c"};
	struct crowd_reader readers[READERS];
	pthread_t threads[READERS];
	bool is_good;

	c->s.queue_bytes = 1u << 20;
	c->s.cache_bytes = 1u << 20;
	c->s.retention_ms = 1;
	assert_true(contract_open(c));
	memset(readers, 0, sizeof(readers));
	for (unsigned i = 0; i < READERS; i++) {
		struct crowd_reader *me = &readers[i];
		unsigned mask = i == 0 ? 15 : (unsigned)(contract_mix(i) % 15) + 1;

		me->c = c;
		me->group = groups[i];
		for (unsigned t = 0; t < CONTRACT_TABLES; t++) {
			me->is_mine[t] = mask >> t & 1;
			if (me->is_mine[t] && mask != 15)
				me->tables[me->table_n++] = contract_table_name(t);
		}
		assert_true(contract_group(c, groups[i], CDC_START_EARLIEST));
	}
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &readers[i]), 0);
	is_good = crowd_append(c);
	for (unsigned i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		if (!readers[i].is_good)
			print_error("reader %u\n", i);
		is_good &= readers[i].is_good;
	}
	assert_true(is_good);
}

/* --- ends --------------------------------------------------------------------------- */

/* The next record of the transaction that is, or is not, of table 0. */
static uint32_t next_ordinal(uint64_t tx, uint32_t ordinal, bool is_first_table)
{
	struct cdc_id id;

	do
		id = contract_id(tx, ++ordinal);
	while ((contract_table(&id) == 0) != is_first_table);
	return ordinal;
}

/* A record of table 0, some of others, one by one, and the end: alone, or with the last of them. */
static bool append_straggler(struct contract *c, uint64_t tx, struct contract_ids *want)
{
	uint32_t at = next_ordinal(tx, CONTRACT_NOISE, true);

	contract_ids_add(want, contract_id(tx, at));
	for (int i = 0; i < 4; i++) {
		bool has_end = i == 3 && tx % 2;

		if (!contract_append(c, CDC_SEQ_STREAM, piece(c, tx, at, at, has_end)) ||
		    !contract_wait_last(c, contract_id(tx, at)))
			return false;
		at = next_ordinal(tx, at, false);
	}
	return (tx % 2 || contract_append(c, CDC_SEQ_STREAM, piece(c, tx, 1, 0, true))) &&
	       contract_wait_durable(c, contract_end_lsn(tx));
}

/* Whatever lies between a record and the end of its transaction, in memory and on disk. */
static void readers_never_leave_out_the_end_of_a_transaction(void **state)
{
	enum { TXS = 12 };
	struct suite *s = *state;
	struct contract *c = &s->c;
	struct contract_seen seen = {.stream_n = 0};
	struct contract_ids want = {.n = 0};
	struct cdc_buffer_reader *r = NULL;

	c->s.cache_bytes = 1;
	opened(s, "g");
	assert_true(contract_reader(c, "g", BEGIN, 0, &r));
	for (uint64_t tx = 1; tx <= TXS; tx++) {
		assert_true(append_straggler(c, tx, &want));
		assert_true(contract_read(c, r, &seen, want.n));
		assert_true(has_their_ends(&seen));
	}
	contract_reader_close(c, r);
	contract_seen_clear(&seen);
	/* Everything in memory, then the first half on disk, then all of it. */
	for (int i = 0; i < 3; i++) {
		for (size_t from = 0; from < want.n; from++) {
			struct cdc_id above = want.ids[from];

			above.ordinal--;
			assert_true(contract_reader(c, "g", above, 0, &r));
			assert_true(contract_read(c, r, &seen, want.n - from));
			assert_true(has_their_ends(&seen));
			contract_reader_close(c, r);
			contract_seen_clear(&seen);
		}
		contract_close(c);
		opened(s, "g");
		for (uint64_t tx = TXS + 1; i == 0 && tx <= 2 * TXS; tx++)
			assert_true(append_straggler(c, tx, &want));
	}
	/* Of one that has not ended nobody has the end. */
	{
		const uint32_t last = next_ordinal(3 * TXS, CONTRACT_NOISE, true);
		const struct cdc_id open = contract_id(3 * TXS, last);

		assert_true(
			contract_append(c, CDC_SEQ_STREAM, piece(c, 3 * TXS, last, last, false)));
		assert_true(contract_reader(c, "g", want.ids[want.n - 1], 0, &r));
		assert_true(contract_read(c, r, &seen, 1));
		assert_int_equal(cdc_id_cmp(&seen.got.ids[0], &open), 0);
		for (size_t i = 0; i < seen.end_n; i++)
			assert_true(seen.ends[i].commit_lsn < open.commit_lsn);
		contract_reader_close(c, r);
		contract_seen_clear(&seen);
	}
	contract_ids_clear(&want);
}

/* --- the list ----------------------------------------------------------------------- */

#define TEST(f) cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, &suite)

int buffer_contract_run(const struct cdc_buffer_ops *ops, const struct contract_hooks *hooks)
{
	struct suite suite = {.ops = ops, .hooks = hooks};
	const struct CMUnitTest tests[] = {
		TEST(an_empty_buffer_says_so),
		TEST(what_was_appended_is_read_byte_for_byte_in_order),
		TEST(pieces_are_read_at_once_and_confirmed_at_the_end),
		TEST(transactions_without_records_move_durable),
		TEST(a_record_of_five_mebibytes_passes_alone),
		TEST(a_close_at_every_record_loses_and_doubles_nothing),
		TEST(a_crash_at_every_record_loses_and_doubles_nothing),
		TEST(a_crash_upon_a_crash_loses_and_doubles_nothing),
		TEST(repeats_are_dropped),
		TEST(a_lower_epoch_is_refused_and_a_higher_one_begins_anew),
		TEST(every_copy_has_a_last_id_of_its_own),
		TEST(progress_moves_durable_and_stays),
		TEST(progress_of_a_new_epoch_is_remembered),
		TEST(a_generation_may_begin_below_the_end_of_the_one_before),
		TEST(progress_stands_behind_what_was_appended_before_it),
		TEST(a_full_queue_takes_nothing_and_wakes),
		TEST(the_event_wakes_when_durable_rose),
		TEST(a_reader_begins_above_any_position),
		TEST(a_reader_from_above_skips_what_comes_below),
		TEST(readers_get_the_tables_they_asked_for),
		TEST(a_reader_of_two_tables_gets_both),
		TEST(a_reader_at_the_end_is_woken),
		TEST(a_lease_keeps_its_records),
		TEST(the_schema_precedes_the_first_row),
		TEST(the_newest_schema_of_each_table_is_told),
		TEST(a_new_group_starts_where_it_was_told),
		TEST(a_group_at_the_durable_end_gets_what_comes),
		TEST(a_group_comes_back_to_its_position),
		TEST(a_seek_goes_back_and_never_forth),
		TEST(a_full_buffer_stops_until_the_last_group_moves),
		TEST(a_full_buffer_opens_full_and_goes_on),
		TEST(the_group_furthest_behind_is_suspended),
		TEST(delivered_records_stay_for_the_retention),
		TEST(a_second_process_is_refused),
		TEST(three_readers_follow_one_writer),
		TEST(readers_never_leave_out_the_end_of_a_transaction),
	};

	return cmocka_run_group_tests_name(ops->name, tests, NULL, NULL);
}
