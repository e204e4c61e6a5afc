/*
 * test_buffer_power.c - the embedded buffer under a power that fails and a disk that refuses.
 *
 * Each seed is one life: appends under load, a cut at a moment of chance, a
 * start on what survived.  A failure prints its seed; POWER_SEED=n runs that one
 * alone (threads make a life differ a little each time).
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cdc/base/clock.h"
#include "cdc/base/stop.h"
#include "tests/contract/power_vfs.h"
#include "tests/contract/workload_contract.h"

/* The thread sanitizer looks for races, not for cuts, and is slow. */
#ifdef __SANITIZE_THREAD__
#define LIVES_MIN 6
#else
#define LIVES_MIN 36
#endif
#define LIVES_MS 8000 /* more of them until then */
#define TXS      400  /* they fit the budget, also where nothing is evicted */

struct life {
	struct contract c;
	struct power_vfs *v;
	char dir[64];
	uint64_t seed, random;
	struct cdc_buffer_reader *r;
	struct contract_seen seen;
	struct cdc_id done; /* what the group has committed */
	bool has_reader;    /* which evicts behind it */
	cdc_lsn durable;    /* highest that was ever told */
};

static uint64_t chance(struct life *l)
{
	return l->random = contract_mix(l->random);
}

/* --- the load ----------------------------------------------------------------------- */

static uint32_t tx_records(uint64_t tx)
{
	return (uint32_t)(contract_mix(tx) % 12) + 1;
}

static uint32_t tx_first(uint64_t tx)
{
	return contract_mix(tx) >> 8 & 1 ? CONTRACT_NOISE + 1 : 1;
}

static void want_above(struct contract_ids *want, const struct cdc_id *above, cdc_lsn end_lsn)
{
	for (uint64_t tx = 1; tx <= TXS && contract_end_lsn(tx) <= end_lsn; tx++) {
		for (uint32_t i = 0; i < tx_records(tx); i++) {
			struct cdc_id id = contract_id(tx, tx_first(tx) + i);

			if (cdc_id_cmp(&id, above) > 0)
				contract_ids_add(want, id);
		}
	}
}

static bool note_durable(struct life *l)
{
	cdc_lsn now = l->c.ops->durable(l->c.b);

	if (now < l->durable)
		return contract_fail("durable() went back from %llx to %llx",
				     (unsigned long long)l->durable, (unsigned long long)now);
	l->durable = now;
	return true;
}

/* Gives up at a cut: *ret_taken tells. */
static bool hand_over(struct life *l, struct cdc_batch *batch, bool *ret_taken)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	enum cdc_code rc;

	while ((rc = contract_try(&l->c, CDC_SEQ_STREAM, batch)) == CDC_BUSY) {
		if (power_vfs_is_cut(l->v) || cdc_clock_mono_ms() > end_ms)
			break;
		(void)contract_poll(l->c.ops->event_fd(l->c.b), 5);
		cdc_event_drain(l->c.ops->event_fd(l->c.b));
	}
	*ret_taken = rc == CDC_OK;
	if (rc)
		cdc_batch_free(batch);
	return rc == CDC_OK || power_vfs_is_cut(l->v) ||
	       contract_fail("append: %s", cdc_code_name(rc));
}

static bool send_piece(struct life *l, uint64_t tx, uint32_t from, uint32_t to, bool has_end,
		       bool *ret_taken)
{
	struct cdc_batch *batch = contract_batch(&l->c);

	if (!batch || !contract_write_tx(&l->c, batch, tx, from, to, has_end)) {
		cdc_batch_free(batch);
		return contract_fail("no batch");
	}
	return hand_over(l, batch, ret_taken);
}

/* One transaction, sometimes in two pieces, sometimes with a progress behind it. */
static bool send_tx(struct life *l, uint64_t tx, bool *ret_taken)
{
	uint32_t first = tx_first(tx), last = first + tx_records(tx) - 1;
	uint32_t middle = first + (uint32_t)(chance(l) % tx_records(tx));

	if (chance(l) % 4 == 0 && middle < last) {
		if (!send_piece(l, tx, first, middle, false, ret_taken) || !*ret_taken)
			return *ret_taken || power_vfs_is_cut(l->v);
		first = middle + 1;
	}
	if (!send_piece(l, tx, first, last, true, ret_taken))
		return false;
	if (*ret_taken && chance(l) % 8 == 0)
		(void)l->c.ops->progress(l->c.b, contract_end_lsn(tx) + 0x10, CDC_EPOCH(1, 1),
					 chance(l) % 2, NULL);
	return true;
}

/* Reads what there is.  Only what is committed may be evicted. */
static bool read_some(struct life *l, bool has_commit)
{
	struct cdc_read read;
	bool is_good;

	do {
		memset(&read, 0, sizeof(read));
		if (l->c.ops->read(l->r, &read, NULL))
			return power_vfs_is_cut(l->v) || contract_fail("read failed");
		is_good = contract_note(&l->c, &l->seen, &read);
		if (read.lease)
			l->c.ops->release(l->r, read.lease);
		if (!is_good)
			return false;
	} while (!read.is_at_end);
	if (!has_commit)
		return true;
	l->done = read.through.id;
	return contract_commit(&l->c, "g", l->done);
}

/* --- a life ------------------------------------------------------------------------- */

static bool wake(struct life *l)
{
	struct cdc_stream_position at = {.stream = 0, .id = l->done}, unused;
	const struct cdc_position position = {.n = 1, .streams = &at};
	struct cdc_gap gap;

	return contract_open(&l->c) &&
	       !l->c.ops->group_add(l->c.b, "g", &position, NULL, &unused, &gap, NULL) &&
	       contract_reader(&l->c, "g", l->done, -1, &l->r);
}

static void sleep_now(struct life *l)
{
	contract_reader_close(&l->c, l->r);
	l->r = NULL;
	contract_seen_clear(&l->seen);
	contract_close(&l->c);
}

static bool begin_life(struct life *l, uint64_t seed)
{
	memset(l, 0, sizeof(*l));
	l->seed = seed;
	l->random = seed;
	(void)snprintf(l->dir, sizeof(l->dir), "/tmp/walpost-power-XXXXXX");
	if (!contract_init(&l->c, &cdc_buffer_local) || !mkdtemp(l->dir))
		return false;
	l->v = power_vfs_new("power", seed);
	l->c.s = (struct cdc_buffer_settings){.dir = l->dir,
					      .slot = "power",
					      .max_bytes = 48u << 20,
					      .retention_ms = 1,
					      .queue_bytes = 2u << 20,
					      .cache_bytes = 1u << 20,
					      .on_full = CDC_ON_FULL_STOP,
					      .vfs = "power"};
	return l->v && wake(l);
}

static void end_life(struct life *l)
{
	DIR *d;

	contract_reader_close(&l->c, l->r);
	contract_seen_clear(&l->seen);
	contract_clear(&l->c);
	power_vfs_free(l->v);
	d = opendir(l->dir);
	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			(void)unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d)
		(void)closedir(d);
	(void)rmdir(l->dir);
}

/* Sends from durable() on, as a source would, until the power fails or all is sent. */
static bool send_all(struct life *l)
{
	const cdc_lsn from = l->c.ops->durable(l->c.b);
	bool is_taken = true, is_good = true;

	for (uint64_t tx = 1; tx <= TXS && is_taken && is_good; tx++) {
		if (contract_end_lsn(tx) <= from)
			continue;
		is_good = send_tx(l, tx, &is_taken) && note_durable(l);
		if (is_good && l->has_reader && chance(l) % 16 == 0)
			is_good = read_some(l, true);
	}
	return is_good;
}

/* After the cut: what was told to be durable is there, in order, byte for byte. */
static bool has_what_it_promised(struct life *l)
{
	struct contract_ids want = {.n = 0}, all = {.n = 0};
	const struct cdc_id done = l->done;
	bool is_good;

	if (!note_durable(l))
		return false;
	want_above(&want, &done, l->durable);
	want_above(&all, &done, contract_end_lsn(TXS));
	is_good = read_some(
		l, l->has_reader); /* what is there is compared byte for byte as it is noted */
	if (l->seen.got.n < want.n)
		is_good = contract_fail("%zu records of %zu up to %llx", l->seen.got.n, want.n,
					(unsigned long long)l->durable);
	if (l->seen.got.n > all.n)
		is_good = contract_fail("more than was appended");
	for (size_t i = 0; i < l->seen.got.n && is_good; i++) {
		if (cdc_id_cmp(&l->seen.got.ids[i], &all.ids[i]) != 0)
			is_good = contract_fail("record %zu is not the next", i);
	}
	contract_ids_clear(&want);
	contract_ids_clear(&all);
	return is_good;
}

/* The power is back. */
static bool recover(struct life *l)
{
	sleep_now(l);
	return power_vfs_restore(l->v) && wake(l) && has_what_it_promised(l);
}

/* All the rest is sent: each record is there once. */
static bool complete(struct life *l)
{
	struct contract_ids all = {.n = 0};
	const struct cdc_id above = l->done;
	bool is_good, had_reader = l->has_reader;

	sleep_now(l);
	l->has_reader = false; /* nothing more is committed */
	is_good = wake(l);
	want_above(&all, &above, contract_end_lsn(TXS));
	is_good = is_good && send_all(l) && contract_wait_durable(&l->c, contract_end_lsn(TXS)) &&
		  contract_read(&l->c, l->r, &l->seen, all.n) && contract_same(&l->seen.got, &all);
	contract_ids_clear(&all);
	l->has_reader = had_reader;
	return is_good;
}

/* Two cuts: the second on what the first one left. */
static bool live(struct life *l)
{
	static const uint64_t reach[] = {40, 400, 4000};
	bool is_good = true;

	l->has_reader = l->seed % 2;
	for (int i = 0; i < 2 && is_good; i++) {
		power_vfs_cut_after(l->v, chance(l) % reach[chance(l) % 3] + 1);
		is_good = send_all(l);
		power_vfs_cut(l->v); /* it had no time to come */
		is_good = is_good && note_durable(l);
		if (!is_good)
			break;
		is_good = recover(l);
	}
	return is_good && complete(l);
}

static bool run_life(uint64_t seed, bool (*work)(struct life *l))
{
	struct life *l = malloc(sizeof(*l));
	bool is_good;

	if (!l)
		return false;
	is_good = begin_life(l, seed) && work(l);
	end_life(l);
	free(l);
	return is_good || contract_fail("POWER_SEED=%llu", (unsigned long long)seed);
}

static uint64_t first_seed(bool *ret_alone)
{
	const char *text = getenv("POWER_SEED");

	*ret_alone = text != NULL;
	return text ? strtoull(text, NULL, 10) : (uint64_t)cdc_clock_wall_us() & 0xffffffff;
}

static void F38_what_is_durable_survives_a_power_cut(void **state)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + LIVES_MS;
	bool is_alone;
	uint64_t seed = first_seed(&is_alone);

	(void)state;
	print_message("POWER_SEED=%llu\n", (unsigned long long)seed);
	for (unsigned n = 0; n < LIVES_MIN || cdc_clock_mono_ms() < end_ms; n++) {
		assert_true(run_life(seed + n, live));
		if (is_alone)
			break;
	}
}

/* --- a disk that refuses ------------------------------------------------------------ */

/* Appends until BUSY stays, and sees why; then nothing moves. */
static bool is_stuck(struct life *l, uint64_t *io_tx)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	struct cdc_err err = {.code = CDC_OK};
	cdc_lsn durable;
	enum cdc_code rc = CDC_OK;

	while (rc != CDC_BUSY || l->c.ops->error(l->c.b, &err) == CDC_OK) {
		struct cdc_batch *batch = contract_batch(&l->c);
		uint32_t first = tx_first(*io_tx);

		if (cdc_clock_mono_ms() > end_ms || *io_tx > TXS) {
			cdc_batch_free(batch);
			return contract_fail("the failure does not show");
		}
		if (!batch || !contract_write_tx(&l->c, batch, *io_tx, first,
						 first + tx_records(*io_tx) - 1, true))
			return false;
		rc = contract_try(&l->c, CDC_SEQ_STREAM, batch);
		if (rc == CDC_OK) {
			++*io_tx;
			continue;
		}
		cdc_batch_free(batch);
		if (rc != CDC_BUSY)
			return contract_fail("append: %s", cdc_code_name(rc));
		(void)poll(NULL, 0, 5);
	}
	if (err.msg[0] == '\0')
		return contract_fail("the failure has no text");
	durable = l->c.ops->durable(l->c.b);
	(void)poll(NULL, 0, 200);
	if (l->c.ops->durable(l->c.b) != durable)
		return contract_fail("durable() rose while nothing could be written");
	return note_durable(l);
}

static bool refuse(struct life *l, enum power_fault fault)
{
	uint64_t tx = 1, end_ms;
	bool is_taken = true;
	struct cdc_err err;

	for (; tx <= 40 + chance(l) % 60; tx++) {
		if (!send_tx(l, tx, &is_taken) || !note_durable(l))
			return false;
	}
	power_vfs_fault(l->v, fault);
	if (!is_stuck(l, &tx))
		return false;
	/* Readers have what is in memory. */
	if (!read_some(l, false))
		return false;
	(void)poll(NULL, 0, (int)(chance(l) % 300));
	power_vfs_fault(l->v, POWER_WELL);
	for (; tx <= 200; tx++) {
		if (!send_tx(l, tx, &is_taken) || !note_durable(l))
			return false;
	}
	if (!contract_wait_durable(&l->c, contract_end_lsn(200)) || !note_durable(l))
		return false;
	for (end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS; l->c.ops->error(l->c.b, &err);) {
		if (cdc_clock_mono_ms() > end_ms)
			return contract_fail("the error stays: %s", err.msg);
		(void)poll(NULL, 0, 5);
	}
	/* What was told after a sync that failed holds as well. */
	power_vfs_cut(l->v);
	return recover(l) && complete(l);
}

static bool refuse_space(struct life *l)
{
	return refuse(l, POWER_NO_SPACE);
}

static bool refuse_growth(struct life *l)
{
	return refuse(l, POWER_NO_GROWTH);
}

static bool refuse_sync(struct life *l)
{
	return refuse(l, POWER_NO_SYNC);
}

static void run_lives(bool (*work)(struct life *l))
{
	bool is_alone;
	uint64_t seed = first_seed(&is_alone);

	for (unsigned n = 0; n < (is_alone ? 1 : 4); n++)
		assert_true(run_life(seed + n, work));
}

static void a_full_disk_loses_nothing_and_heals(void **state)
{
	(void)state;
	run_lives(refuse_space);
}

static void a_disk_that_cannot_grow_loses_nothing_and_heals(void **state)
{
	(void)state;
	run_lives(refuse_growth);
}

static void a_failed_sync_is_never_believed(void **state)
{
	(void)state;
	run_lives(refuse_sync);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(F38_what_is_durable_survives_a_power_cut),
		cmocka_unit_test(a_full_disk_loses_nothing_and_heals),
		cmocka_unit_test(a_disk_that_cannot_grow_loses_nothing_and_heals),
		cmocka_unit_test(a_failed_sync_is_never_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
