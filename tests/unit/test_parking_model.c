/*
 * Lanes, breaker and parking in simulated time, over random streams, endpoints and
 * crashes: the first arrivals of a key are in order, and every record arrives or is a
 * dead letter.  A seed that breaks one of these is printed; MODEL_SEED=N runs it alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cdc/pipeline/parking.h"
#include "cdc/record/scan.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 1000 /* everything takes ten times as long */
#else
#define SEEDS 10000
#endif
#define RECORDS   64
#define TABLES    4 /* the first has most of the records */
#define KEYS      5
#define LANES     4
#define JOBS      16
#define OUTAGES   3
#define READ      12
#define HALVED    32    /* of the first records half are refused; the others come one by one */
#define ROOM      40    /* records in the window */
#define STEPS_MAX 50000 /* a simulation that takes longer does not end */
#define CALM_MS   60000 /* from then on nothing but the records' own trouble */
#define WALL_US   INT64_C(1700000000000000)
#define ALL       ((1u << CDC_OP_COUNT) - 1)

enum poison { HEALTHY, REFUSED, BROKEN, HEALS }; /* 422 or 500 for ever, 422 for a while */

/* What is known of a record outside the program. */
struct fate {
	enum poison poison;
	uint64_t heals_ms;
	bool has_arrived;
	bool is_stored; /* by the store that is simulated */
	struct cdc_park_change stored;
	bool is_placed, is_ahead;
	uint64_t behind; /* as many were sent of its lane, when it came there */
};

/* What a lane sent. */
struct sent {
	uint64_t requests, records;
};

struct job {
	bool is_busy;
	uint64_t ticket, due_ms;
	size_t n, records[16];
};

struct outage {
	uint64_t from_ms, to_ms;
	int status; /* 0: broken connections */
};

struct world {
	uint64_t seed, random, now_ms;
	int64_t set_us; /* the wall clock was set by */
	enum cdc_order order;
	bool is_partial, was_down, has_ended;
	bool is_placing;         /* it looks at where the records stand in their lanes */
	bool is_calm;            /* no crash, no answer that is lost */
	struct cdc_batch *batch; /* every record of the stream */
	struct fate fates[RECORDS];
	struct outage outages[OUTAGES];
	struct job jobs[JOBS];
	uint64_t sent[RECORDS]; /* tickets of the first requests */
	size_t sent_n;
	struct sent lane[LANES];
	struct sink_failed failed[16];
	struct cdc_id checkpoint;
	size_t read; /* so many were read */
	struct cdc_deliver_settings settings;
	uint64_t schedule[2];
	struct cdc_sync_metrics metrics;
	struct cdc_board board;
	/* the program's, gone in a crash */
	struct cdc_window *window;
	struct cdc_window_input *input;
	struct cdc_parked parked;
	struct cdc_lanes *lanes;
	struct cdc_parking *parking;
	uint32_t index[READ];
};

static uint64_t next(struct world *w, uint64_t below)
{
	w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (w->random >> 33) % below;
}

#define HOLDS(w, condition)                                                                        \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail_msg("MODEL_SEED=%llu, at %llu ms: %s", (unsigned long long)(w)->seed, \
				 (unsigned long long)(w)->now_ms, #condition);                     \
	} while (0)

/* --- the stream --------------------------------------------------------------------- */

static void add_record(struct world *w, const char *operation, unsigned table, unsigned key,
		       unsigned lsn, unsigned part)
{
	char json[400], key_json[40] = "null";
	int n;

	if (strcmp(operation, "truncate") != 0)
		(void)snprintf(key_json, sizeof(key_json), "{\"id\":%u}", key);
	n = snprintf(json, sizeof(json),
		     "{\"id\":\"01000001-%016x-00000001-%04x\",\"operation\":\"%s\","
		     "\"schema\":\"t%u\",\"key\":%s,\"fields\":%s,\"position\":\"0/%X\","
		     "\"commit\":{\"lsn\":\"0/%X\",\"xid\":%u,\"time\":null},"
		     "\"hash\":\"0123456789abcdef\"}",
		     lsn, part, operation, table, key_json, key_json, lsn, lsn, lsn);
	assert_int_equal(cdc_scan_record(w->batch, json, (size_t)n, NULL), CDC_OK);
}

static void add_keyless(struct world *w, unsigned lsn)
{
	char json[400];
	int n = snprintf(json, sizeof(json),
			 "{\"id\":\"01000001-%016x-00000001-0001\",\"operation\":\"insert\","
			 "\"schema\":\"t0\",\"key\":null,\"fields\":{\"v\":%u},"
			 "\"position\":\"0/%X\",\"commit\":{\"lsn\":\"0/%X\",\"xid\":%u,"
			 "\"time\":null},\"hash\":\"0123456789abcdef\"}",
			 lsn, lsn, lsn, lsn, lsn);

	assert_int_equal(cdc_scan_record(w->batch, json, (size_t)n, NULL), CDC_OK);
}

static void make_stream(struct world *w)
{
	for (unsigned lsn = 1; w->batch->n < RECORDS - 1; lsn++) {
		unsigned table = (unsigned)next(w, next(w, 3) ? 1 : TABLES);
		unsigned key = (unsigned)next(w, KEYS);
		uint64_t kind = next(w, 30);

		if (kind == 0) {
			add_record(w, "truncate", table, 0, lsn, 1);
		} else if (kind < 5) {
			add_record(w, "delete", table, key, lsn, 1);
			w->batch->records[w->batch->n - 1].flags |= CDC_RECORD_MOVE_OLD;
			add_record(w, "update", table, (unsigned)next(w, KEYS), lsn, 2);
		} else {
			add_record(w, "update", table, key, lsn, 1);
		}
	}
	for (size_t i = 0; i < w->batch->n; i++) {
		struct fate *f = &w->fates[i];

		if (w->batch->records[i].flags & CDC_RECORD_BARRIER || next(w, 12) != 0)
			continue;
		f->poison = (enum poison)(1 + next(w, 3));
		f->heals_ms = next(w, CALM_MS);
	}
}

/* The ids rise. */
static size_t record_of(const struct world *w, const struct cdc_id *id)
{
	size_t low = 0, high = w->batch->n;

	while (high - low > 1) {
		size_t middle = (low + high) / 2;

		if (cdc_id_cmp(&w->batch->records[middle].id, id) <= 0)
			low = middle;
		else
			high = middle;
	}
	HOLDS(w, cdc_id_cmp(&w->batch->records[low].id, id) == 0);
	return low;
}

static bool is_dead(const struct fate *f)
{
	return f->is_stored && f->stored.state == CDC_PARKED_DEAD;
}

static bool is_barrier(const struct cdc_record *r)
{
	return r->flags & CDC_RECORD_BARRIER;
}

/* Must a come before b? */
static bool must_precede(const struct world *w, const struct cdc_record *a,
			 const struct cdc_record *b)
{
	if (w->order == CDC_ORDER_SYNC ||
	    (a->table == b->table && (is_barrier(a) || is_barrier(b))))
		return true;
	return w->order == CDC_ORDER_KEY && a->key_hash == b->key_hash;
}

static void arrive(struct world *w, size_t record)
{
	if (w->fates[record].has_arrived)
		return;
	w->fates[record].has_arrived = true;
	for (size_t i = 0; i < record; i++) {
		bool is_over = w->fates[i].has_arrived || is_dead(&w->fates[i]);

		HOLDS(w, is_over || !must_precede(w, &w->batch->records[i],
						  &w->batch->records[record]));
	}
}

/* --- places in a lane --------------------------------------------------------------- */

/* Does the stream have nothing else of its table? */
static bool is_only_one(const struct world *w, size_t record)
{
	for (size_t i = 0; i < w->batch->n; i++) {
		if (i != record && w->batch->records[i].table == w->batch->records[record].table)
			return false;
	}
	return true;
}

/*
 * Sets how much of its lane may be sent before a record that is new there, with so many before it
 * that were not sent, some of them ahead of others.  What is ahead has a request of the others
 * before it and between any two requests of its kind.  What is not lets half pass.
 */
static void place(struct world *w, const struct cdc_item *item, size_t before, size_t ahead)
{
	const struct sent *lane = &w->lane[item->lane];
	struct fate *f = &w->fates[record_of(w, &item->rec->id)];
	size_t most = w->settings.batch_size;

	f->is_placed = true;
	f->is_ahead = item->is_ahead;
	if (f->is_ahead) {
		HOLDS(w, before <= 2 * ahead + 2 * most);
		f->behind = lane->requests + before / most;
	} else {
		f->behind = lane->records + 2 * before + 2 * most;
	}
}

static void place_new(struct world *w)
{
	for (size_t i = 0; i < cdc_lanes_n(w->lanes); i++) {
		size_t before = 0, ahead = 0, first = SIZE_MAX;

		for (struct cdc_item *item = cdc_window_head(w->window, i); item;
		     item = item->next) {
			size_t record = record_of(w, &item->rec->id);

			first = record < first ? record : first;
			if (!w->fates[record].is_placed)
				place(w, item, before, ahead);
			before += !item->was_sent;
			ahead += !item->was_sent && item->is_ahead;
		}
		for (struct cdc_item *item = cdc_window_head(w->window, i); item;
		     item = item->next) {
			size_t record = record_of(w, &item->rec->id);

			HOLDS(w, item->is_ahead || record == first || item->was_sent ||
					 !is_only_one(w, record));
		}
	}
}

static void check_places(struct world *w, const struct sink_job *job)
{
	struct sent *lane = &w->lane[job->ticket];

	for (size_t i = 0; i < job->n; i++) {
		const struct fate *f = &w->fates[record_of(w, &job->views[i].rec->id)];

		HOLDS(w, f->is_placed);
		HOLDS(w, (f->is_ahead ? lane->requests : lane->records) <= f->behind);
	}
	lane->requests++;
	lane->records += job->n;
}

/* --- the endpoint, as a sink -------------------------------------------------------- */

static enum cdc_code submit(void *state, const struct sink_job *job, struct cdc_err *err)
{
	struct world *w = state;

	(void)err;
	for (size_t i = 0; i < JOBS; i++) {
		struct job *j = &w->jobs[i];

		if (j->is_busy)
			continue;
		*j = (struct job){.is_busy = true,
				  .ticket = job->ticket,
				  .due_ms = w->now_ms + 1 + next(w, 30),
				  .n = job->n};
		HOLDS(w, job->n <= 16);
		if (w->is_placing)
			check_places(w, job);
		if (w->sent_n < RECORDS)
			w->sent[w->sent_n++] = job->ticket;
		for (size_t k = 0; k < job->n; k++)
			j->records[k] = record_of(w, &job->views[k].rec->id);
		return CDC_OK;
	}
	return CDC_BUSY;
}

static const struct sink_ops endpoint = {.name = "script", .submit = submit};

static bool is_poison(const struct world *w, const struct fate *f)
{
	return f->poison == REFUSED || f->poison == BROKEN ||
	       (f->poison == HEALS && w->now_ms < f->heals_ms);
}

static void set_status(struct sink_result *r, int status)
{
	r->status = status;
	r->outcome = status >= 500 || status == 0 ? SINK_RETRY : SINK_REJECT;
	r->is_never_record = status == 401;
	r->is_transient = r->outcome == SINK_RETRY;
	(void)snprintf(r->text, sizeof(r->text), "%d", status);
}

/* A request with poison in it is refused as a whole, or in part. */
static void judge_records(struct world *w, const struct job *j, struct sink_result *r)
{
	size_t n = 0;

	for (size_t i = 0; i < j->n; i++) {
		struct fate *f = &w->fates[j->records[i]];

		if (is_poison(w, f)) {
			w->failed[n++] = (struct sink_failed){.index = i, .reason = "poison"};
			if (n == 1)
				set_status(r, f->poison == BROKEN ? 500 : 422);
		}
	}
	if (n && w->is_partial && j->n > 1) {
		/* The receiver keeps to its part: nothing of the key behind a failed one. */
		for (size_t i = 0; i < j->n; i++) {
			bool is_out = false;

			for (size_t k = 0; k < n; k++)
				is_out |= w->failed[k].index <= i &&
					  (w->order == CDC_ORDER_SYNC || w->failed[k].index == i ||
					   w->batch->records[j->records[i]].key_hash ==
						   w->batch->records[j->records[w->failed[k].index]]
							   .key_hash);
			if (!is_out)
				arrive(w, j->records[i]);
		}
		r->outcome = SINK_DONE;
		r->status = 200;
		r->failed = w->failed;
		r->failed_n = n;
	} else if (n == 0) {
		for (size_t i = 0; i < j->n; i++)
			arrive(w, j->records[i]);
		r->outcome = SINK_DONE;
		r->status = 200;
	}
}

static struct sink_result answer(struct world *w, struct job *j)
{
	struct sink_result r = {.ticket = j->ticket, .retry_after_ms = SINK_NO_RETRY_AFTER};

	for (size_t i = 0; i < OUTAGES; i++) {
		const struct outage *o = &w->outages[i];

		if (w->now_ms >= o->from_ms && w->now_ms < o->to_ms) {
			set_status(&r, o->status);
			return r;
		}
	}
	judge_records(w, j, &r);
	/* The answer may be lost on its way. */
	if (!w->is_calm && w->now_ms < CALM_MS && next(w, 60) == 0) {
		r.failed_n = 0;
		set_status(&r, 0);
	}
	return r;
}

/* --- the store ---------------------------------------------------------------------- */

static struct cdc_park_head head_of(const struct world *w, uint64_t key_hash)
{
	for (size_t i = 0; i < w->batch->n; i++) {
		const struct fate *f = &w->fates[i];

		if (f->is_stored && f->stored.state == CDC_PARKED_WAITING &&
		    f->stored.key_hash == key_hash)
			return (struct cdc_park_head){.key_hash = key_hash,
						      .table_hash = f->stored.table_hash,
						      .id = w->batch->records[i].id,
						      .attempts = f->stored.attempts,
						      .step = f->stored.step,
						      .next_us = f->stored.next_us};
	}
	return (struct cdc_park_head){.key_hash = key_hash};
}

static struct cdc_park_totals totals_of(const struct world *w)
{
	struct cdc_park_totals t = {0};

	for (size_t i = 0; i < w->batch->n; i++) {
		const struct fate *f = &w->fates[i];

		if (!f->is_stored)
			continue;
		t.bytes += w->batch->records[i].json_len;
		t.waiting += f->stored.state == CDC_PARKED_WAITING;
		t.dead += f->stored.state == CDC_PARKED_DEAD;
	}
	return t;
}

static void store_change(struct world *w, const struct cdc_park_change *c)
{
	struct fate *f = &w->fates[record_of(w, &c->id)];

	switch (c->act) {
	case CDC_PARK_PUT:
		HOLDS(w, !f->is_stored);
		f->stored = *c;
		f->is_stored = true;
		break;
	case CDC_PARK_FAILED:
	case CDC_PARK_DEAD:
		HOLDS(w, f->is_stored && f->stored.state == CDC_PARKED_WAITING);
		f->stored.attempts = c->attempts;
		f->stored.step = c->step;
		f->stored.next_us = c->next_us;
		if (c->act == CDC_PARK_DEAD)
			f->stored.state = CDC_PARKED_DEAD;
		break;
	case CDC_PARK_REFUSED:
		break;
	case CDC_PARK_DONE:
		HOLDS(w, f->is_stored && f->stored.state == CDC_PARKED_WAITING && f->has_arrived);
		f->is_stored = false;
		break;
	}
}

static int64_t wall_us(const struct world *w)
{
	return WALL_US + w->set_us + (int64_t)w->now_ms * 1000;
}

static void write_store(struct world *w)
{
	struct cdc_parking_write write;
	struct cdc_park_totals put = *cdc_parking_totals(w->parking), now;
	size_t n, bytes;

	if (!cdc_parking_must_write(w->parking, w->now_ms))
		return;
	(void)cdc_window_aside(w->window, &n, &bytes);
	assert_int_equal(cdc_parking_collect(w->parking, w->now_ms, &write, NULL), CDC_OK);
	for (size_t i = 0; i < write.n; i++) {
		const struct cdc_park_change *c = &write.changes[i];

		store_change(w, c);
		if (c->act != CDC_PARK_PUT)
			continue;
		put.bytes += c->view.rec->json_len;
		put.waiting += c->state == CDC_PARKED_WAITING;
		put.dead += c->state == CDC_PARKED_DEAD;
	}
	/* What takes room is what was not there, also behind a crash before the checkpoint. */
	HOLDS(w, put.bytes == cdc_parking_totals(w->parking)->bytes + bytes);
	for (size_t i = 0; i < write.head_n; i++)
		write.heads[i] = head_of(w, write.heads[i].key_hash);
	cdc_parking_written(w->parking, &write, w->now_ms, wall_us(w));
	now = *cdc_parking_totals(w->parking);
	HOLDS(w, now.bytes == put.bytes && now.waiting == put.waiting && now.dead == put.dead);
	now = totals_of(w);
	cdc_parking_set_totals(w->parking, &now);
}

/* As cdc_store_park_read. */
static bool read_store(struct world *w, const struct cdc_park_read *what, struct cdc_batch *batch)
{
	for (size_t i = 0; i < w->batch->n && batch->n < what->max; i++) {
		const struct cdc_record *r = &w->batch->records[i];
		const struct fate *f = &w->fates[i];

		if (!f->is_stored || f->stored.state != CDC_PARKED_WAITING ||
		    f->stored.key_hash != what->key_hash)
			continue;
		if (batch->n == 0 && r->id.part == 2 && w->fates[i - 1].is_stored &&
		    w->fates[i - 1].stored.state == CDC_PARKED_WAITING)
			return true;
		assert_int_equal(cdc_scan_record(batch,
						 (const char *)w->batch->json.data + r->json_off,
						 r->json_len, NULL),
				 CDC_OK);
	}
	return false;
}

/* --- the program -------------------------------------------------------------------- */

static void load_parked(struct world *w)
{
	struct cdc_id *ids = calloc(RECORDS, sizeof(*ids));
	const struct cdc_park_totals totals = totals_of(w);
	size_t n = 0;

	assert_non_null(ids);
	for (size_t i = 0; i < w->batch->n; i++) {
		const struct fate *f = &w->fates[i];
		struct cdc_parked_key *key;
		struct cdc_park_head head;

		if (!f->is_stored)
			continue;
		if (cdc_id_cmp(&w->batch->records[i].id, &w->checkpoint) > 0)
			ids[n++] = w->batch->records[i].id;
		head = head_of(w, f->stored.key_hash);
		if (f->stored.state != CDC_PARKED_WAITING)
			continue;
		assert_int_equal(
			cdc_parked_add(&w->parked, head.key_hash, head.table_hash, &key, NULL),
			CDC_OK);
		cdc_parked_set_head(key, &head);
	}
	assert_int_equal(cdc_parked_set_ids(&w->parked, ids, n, NULL), CDC_OK);
	cdc_parking_set_totals(w->parking, &totals);
}

static void start(struct world *w)
{
	struct cdc_lanes_setup lanes = {.sync = "model",
					.settings = &w->settings,
					.sink = &endpoint,
					.metrics = &w->metrics,
					.board = &w->board,
					.log = {.level = CDC_LOG_ERROR, .fd = -1}};
	struct cdc_parking_setup parking = {.sync = "model",
					    .settings = &w->settings,
					    .sink = &endpoint,
					    .parked = &w->parked,
					    .metrics = &w->metrics,
					    .log = lanes.log};

	w->window = cdc_window_new(w->settings.concurrency, false, w->order, ALL);
	assert_non_null(w->window);
	if (w->settings.group == CDC_GROUP_TRANSACTION)
		cdc_window_group(w->window, 1 << 20);
	if (w->order == CDC_ORDER_KEY)
		cdc_window_share(w->window, w->settings.batch_size, w->settings.batch_bytes);
	w->input = cdc_window_input_new(w->window, CDC_INPUT_STREAM,
					(struct cdc_stream_position){.id = w->checkpoint});
	lanes.window = parking.window = w->window;
	parking.lanes = w->lanes = cdc_lanes_new(&lanes);
	w->parking = cdc_parking_new(&parking);
	assert_true(w->input && w->lanes && w->parking);
	cdc_window_set_parked(w->window, &w->parked);
	load_parked(w);
	for (w->read = 0; w->read < w->batch->n &&
			  cdc_id_cmp(&w->batch->records[w->read].id, &w->checkpoint) <= 0;)
		w->read++;
	memset(w->jobs, 0, sizeof(w->jobs));
	w->has_ended = false;
}

static void stop(struct world *w)
{
	cdc_parking_free(w->parking);
	cdc_lanes_free(w->lanes);
	cdc_window_free(w->window);
	cdc_parked_clear(&w->parked);
}

static void crash(struct world *w)
{
	stop(w);
	for (size_t i = 0; i < JOBS; i++) {
		/* What was on its way arrives, or does not. */
		if (w->jobs[i].is_busy && next(w, 2))
			(void)answer(w, &w->jobs[i]);
	}
	start(w);
}

static size_t in_lanes(const struct world *w)
{
	size_t aside, bytes;

	(void)cdc_window_aside(w->window, &aside, &bytes);
	return cdc_window_records(w->window) - aside;
}

static bool has_arrived_healthy(const struct world *w)
{
	for (size_t i = 0; i < w->read; i++) {
		if (w->fates[i].poison == HEALTHY && !w->fates[i].has_arrived)
			return false;
	}
	return true;
}

static void read_some(struct world *w)
{
	struct cdc_read r = {
		.lease = (struct cdc_lease *)w->batch, .batch = w->batch, .index = w->index};
	struct cdc_window_added added;

	while (cdc_window_take_lease(w->input))
		;
	if (w->read == w->batch->n || cdc_window_records(w->window) >= ROOM)
		return;
	if (w->is_calm && w->read >= HALVED && (!has_arrived_healthy(w) || !in_lanes(w)))
		return;
	r.n = w->is_calm && w->read >= HALVED ? 1 : 1 + next(w, READ);
	if (r.n > w->batch->n - w->read)
		r.n = w->batch->n - w->read;
	for (size_t i = 0; i < r.n; i++)
		w->index[i] = (uint32_t)w->read++;
	r.through.id = w->batch->records[w->read - 1].id;
	assert_int_equal(cdc_window_add(w->window, w->input, &r, &added, NULL), CDC_OK);
	if (w->is_placing)
		place_new(w);
}

static void take(struct world *w, const struct cdc_trouble *t)
{
	struct cdc_err err = {0};

	if (!t->item || !cdc_parking_take(w->parking, t, wall_us(w), &err))
		return;
	/* A barrier ends its sync: somebody starts it again.  Only an endpoint that was ill refuses
	 * one. */
	HOLDS(w, err.code == CDC_TROUBLE && is_barrier(t->item->rec) && w->was_down);
	w->has_ended = true;
}

static void take_answers(struct world *w)
{
	for (size_t i = 0; i < JOBS; i++) {
		struct job *j = &w->jobs[i];
		struct cdc_trouble trouble = {0};
		struct sink_result r;

		if (!j->is_busy || j->due_ms > w->now_ms)
			continue;
		j->is_busy = false;
		r = answer(w, j);
		if (r.ticket >= cdc_lanes_n(w->lanes))
			assert_int_equal(cdc_parking_result(w->parking, &r, w->now_ms, wall_us(w),
							    next(w, 1000), NULL),
					 CDC_OK);
		else
			assert_int_equal(cdc_lanes_result(w->lanes, &r, w->now_ms, wall_us(w),
							  next(w, 1000), &trouble, NULL),
					 CDC_OK);
		take(w, &trouble);
	}
}

static void send(struct world *w)
{
	struct cdc_park_read what;
	struct cdc_batch *batch;
	struct cdc_trouble trouble;

	while (cdc_parking_next(w->parking, w->now_ms, wall_us(w), &what, &batch)) {
		bool waits = read_store(w, &what, batch);

		assert_int_equal(
			cdc_parking_send(w->parking, w, waits, w->now_ms, wall_us(w), NULL),
			CDC_OK);
	}
	do {
		assert_int_equal(cdc_lanes_send(w->lanes, w, w->now_ms, &trouble, NULL), CDC_OK);
		take(w, &trouble);
	} while (trouble.item && !w->has_ended);
}

static void step(struct world *w)
{
	uint64_t wait_ms = 1000;

	take_answers(w);
	cdc_lanes_tick(w->lanes, w->now_ms, next(w, 1000));
	read_some(w);
	write_store(w);
	send(w);
	if (next(w, 4) == 0) {
		struct cdc_id at = cdc_window_position(w->input).id;

		HOLDS(w, cdc_id_cmp(&at, &w->checkpoint) >= 0);
		w->checkpoint = at;
		cdc_parked_pass(&w->parked, &at);
	}
	if (w->has_ended || (!w->is_calm && w->now_ms < CALM_MS && next(w, 150) == 0))
		crash(w);
	if (!w->is_calm && w->now_ms < CALM_MS && next(w, 300) == 0)
		w->set_us += (int64_t)next(w, 10000000) - 5000000;
	wait_ms = cdc_parking_wait_ms(w->parking, w->now_ms, wall_us(w), wait_ms);
	wait_ms = cdc_lanes_wait_ms(w->lanes, w->now_ms, wait_ms);
	for (size_t i = 0; i < JOBS; i++) {
		if (w->jobs[i].is_busy && w->jobs[i].due_ms < w->now_ms + wait_ms)
			wait_ms = w->jobs[i].due_ms > w->now_ms ? w->jobs[i].due_ms - w->now_ms : 0;
	}
	w->now_ms += wait_ms ? wait_ms : 1;
}

static bool is_over(const struct world *w)
{
	if (w->read < w->batch->n || cdc_window_records(w->window) || w->parked.n)
		return false;
	for (size_t i = 0; i < w->batch->n; i++) {
		if (w->fates[i].is_stored && w->fates[i].stored.state == CDC_PARKED_WAITING)
			return false;
	}
	return true;
}

static void make_world(struct world *w, uint64_t seed)
{
	static const int statuses[] = {404, 503, 401, 0};

	memset(w, 0, sizeof(*w));
	w->seed = w->random = seed;
	w->now_ms = 1000;
	w->batch = cdc_batch_new(1 << 20);
	assert_non_null(w->batch);
	cdc_board_init(&w->board);
	w->order = (enum cdc_order[]){CDC_ORDER_KEY, CDC_ORDER_KEY, CDC_ORDER_KEY, CDC_ORDER_SYNC,
				      CDC_ORDER_NONE}[next(w, 5)];
	w->is_partial = next(w, 3) == 0;
	w->schedule[0] = 1 + next(w, 3000);
	w->schedule[1] = 1 + next(w, 3000);
	w->settings = (struct cdc_deliver_settings){
		.operations = ALL,
		.batch_size = 1 + next(w, 12),
		.batch_bytes = 1 << 20,
		.concurrency = 1 + next(w, LANES),
		.order = w->order,
		.on_reject = CDC_ON_REJECT_DEAD_LETTER,
		.retry_after_max_ms = 1000,
		.park = {.attempts = 2 + next(w, 2),
			 .after_ms = next(w, 2000),
			 .max_bytes = 1 << 30},
		.retry_schedule = {.items = w->schedule, .n = 2},
	};
	for (size_t i = next(w, OUTAGES + 1); i > 0; i--) {
		struct outage *o = &w->outages[i - 1];

		w->was_down = true;
		o->from_ms = next(w, 4000);
		o->to_ms = o->from_ms + next(w, 20000);
		o->status = statuses[next(w, 4)];
	}
	make_stream(w);
}

/* Under `order: sync` what fails like the endpoint is never told from it, and ends no wait. */
static void heal_what_never_ends(struct world *w)
{
	for (size_t i = 0; i < w->batch->n; i++) {
		if (w->fates[i].poison == BROKEN && w->order == CDC_ORDER_SYNC)
			w->fates[i].poison = HEALS;
	}
}

/* Without anything else to be accepted nothing proves that a 500 is a record's own trouble: it is
 * tried for ever, until somebody mends it. */
static void end_without_proof(struct world *w)
{
	for (size_t i = 0; i < w->batch->n; i++) {
		if (!w->fates[i].has_arrived && !is_dead(&w->fates[i]))
			w->fates[i].poison = HEALTHY;
	}
}

/* Half of all keys are refused, and nothing else is amiss: what it takes is answers, not waits.  As
 * long as something could be accepted the breaker stays closed, but where a few lanes have nothing
 * left but what is refused. */
static void make_half_refused(struct world *w, uint64_t seed)
{
	memset(w->outages, 0, sizeof(w->outages));
	memset(w->fates, 0, sizeof(w->fates));
	cdc_batch_reset(w->batch, 1 << 20);
	w->seed = w->random = seed;
	w->was_down = w->is_partial = false;
	w->is_calm = true;
	w->order = CDC_ORDER_KEY;
	w->settings.order = CDC_ORDER_KEY;
	for (unsigned i = 0; i < RECORDS; i++)
		add_record(w, "update", i % TABLES, i, i + 1, 1);
	for (size_t i = 0; i < HALVED; i++)
		w->fates[i].poison = next(w, 2) ? REFUSED : HEALTHY;
}

static void half_of_all_keys_are_refused_without_an_outage(void **state)
{
	static const uint64_t most_ms = (uint64_t)RECORDS * 8 * 30;
	struct world *w = malloc(sizeof(*w));
	size_t opened = 0;

	(void)state;
	assert_non_null(w);
	for (uint64_t seed = 1; seed <= SEEDS / 10; seed++) {
		uint64_t begun_ms;
		bool is_open = false;

		make_world(w, seed);
		make_half_refused(w, seed);
		start(w);
		begun_ms = w->now_ms;
		while (w->read < HALVED || cdc_window_records(w->window)) {
			step(w);
			is_open |= w->read <= HALVED && !has_arrived_healthy(w) &&
				   cdc_lanes_breaker(w->lanes)->state != CDC_BREAKER_CLOSED;
			HOLDS(w, w->now_ms - begun_ms < most_ms);
			HOLDS(w, w->read < RECORDS);
		}
		for (size_t i = 0; i < w->read; i++)
			HOLDS(w, w->fates[i].has_arrived == (w->fates[i].poison == HEALTHY));
		opened += is_open;
		stop(w);
		cdc_batch_free(w->batch);
		cdc_board_clear(&w->board);
	}
	print_message("the breaker opened in %zu of %d\n", opened, SEEDS / 10);
	assert_true(opened < SEEDS / 10 / 50);
	free(w);
}

static void end_world(struct world *w)
{
	stop(w);
	cdc_batch_free(w->batch);
	cdc_board_clear(&w->board);
	free(w);
}

static void run(uint64_t seed, uint64_t *dead)
{
	static const uint64_t patience_ms = 2 * CALM_MS;
	struct world *w = malloc(sizeof(*w));
	size_t steps = 0;

	assert_non_null(w);
	make_world(w, seed);
	heal_what_never_ends(w);
	start(w);
	for (; !is_over(w); steps++) {
		step(w);
		if (w->now_ms > patience_ms)
			end_without_proof(w);
		HOLDS(w, steps < STEPS_MAX);
	}
	for (size_t i = 0; i < w->batch->n; i++) {
		const struct fate *f = &w->fates[i];

		HOLDS(w, f->has_arrived || is_dead(f));
		HOLDS(w, !(f->poison == REFUSED && f->has_arrived));
		/* An endpoint that was never ill gave up nothing that it would have taken. */
		HOLDS(w, !is_dead(f) || w->was_down || f->poison != HEALTHY);
		*dead += is_dead(f);
	}
	end_world(w);
}

/* --- single rules ------------------------------------------------------------------- */

/* Without a stream yet, and without chance: its endpoint takes everything. */
static struct world *calm_world(void)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->now_ms = CALM_MS;
	w->batch = cdc_batch_new(1 << 20);
	assert_non_null(w->batch);
	cdc_board_init(&w->board);
	w->order = CDC_ORDER_KEY;
	w->schedule[0] = 1000;
	w->settings = (struct cdc_deliver_settings){
		.operations = ALL,
		.batch_size = 1,
		.batch_bytes = 1 << 20,
		.concurrency = 1,
		.order = w->order,
		.park = {.attempts = 2, .max_bytes = 1 << 30},
		.retry_schedule = {.items = w->schedule, .n = 1},
	};
	return w;
}

/* The last record was parked by an earlier process, and is due so much later than now. */
static void park_last(struct world *w, int64_t in_us)
{
	const struct cdc_record *r = &w->batch->records[w->batch->n - 1];
	struct fate *f = &w->fates[w->batch->n - 1];

	f->is_stored = true;
	f->stored = (struct cdc_park_change){.act = CDC_PARK_PUT,
					     .id = r->id,
					     .state = CDC_PARKED_WAITING,
					     .key_hash = r->key_hash,
					     .table_hash = w->batch->tables[r->table].hash,
					     .attempts = 1,
					     .next_us = wall_us(w) + in_us};
	w->checkpoint = r->id;
}

static void live_and_parked_records_take_turns_at_a_rate(void **state)
{
	struct world *w = calm_world();
	size_t parked = 0;

	(void)state;
	w->settings.rate_limit.requests_per_second = 20;
	for (unsigned i = 1; i <= 10; i++) {
		add_record(w, "update", 0, i, i, 1);
		park_last(w, -1);
	}
	for (unsigned i = 11; i <= 30; i++)
		add_record(w, "update", 1, i, i, 1);
	start(w);
	while (!is_over(w))
		step(w);
	assert_int_equal(w->sent_n, 30);
	for (size_t i = 0; i < 16; i++)
		parked += w->sent[i] >= cdc_lanes_n(w->lanes);
	assert_in_range(parked, 7, 9);
	end_world(w);
}

/* One that lingers has had its time, and may not go yet. */
static void a_batch_that_lingers_waits_for_the_rate_without_turning(void **state)
{
	struct world *w = calm_world();
	size_t steps = 0;

	(void)state;
	w->settings.rate_limit.requests_per_second = 1;
	w->settings.linger_ms = 50;
	w->settings.batch_size = 16;
	w->settings.concurrency = 4;
	for (unsigned i = 1; i <= 12; i++)
		add_record(w, "update", 0, i, i, 1);
	start(w);
	for (; !is_over(w); steps++)
		step(w);
	assert_true(w->sent_n > 1 && w->now_ms > CALM_MS + 1000);
	assert_true(steps < 100);
	end_world(w);
}

/* It looks for records that are due as often as before: a barrier makes one due that was not. */
static void F42_a_clock_that_is_set_back_stops_no_looks(void **state)
{
	struct world *w = calm_world();

	(void)state;
	w->schedule[0] = w->schedule[1] = 7200000;
	add_record(w, "update", 0, 1, 1, 1);
	park_last(w, INT64_C(7200000000));
	add_record(w, "truncate", 0, 0, 2, 1);
	start(w);
	send(w);
	assert_int_equal(w->sent_n, 0);
	w->set_us = -INT64_C(3600000000);
	while (!is_over(w)) {
		step(w);
		HOLDS(w, w->now_ms < CALM_MS + 20000);
	}
	assert_true(w->fates[0].has_arrived && w->fates[1].has_arrived);
	end_world(w);
}

/* No wait is longer than its step of the schedule, whatever the clock says. */
static void F42_a_clock_that_is_set_back_makes_no_wait_longer(void **state)
{
	struct world *w = calm_world();

	(void)state;
	w->schedule[0] = w->schedule[1] = 300000;
	add_record(w, "update", 0, 1, 1, 1);
	park_last(w, INT64_C(300000000));
	/* When another clock made it. */
	add_record(w, "update", 0, 2, 2, 1);
	park_last(w, INT64_C(7200000000));
	start(w);
	send(w);
	w->set_us = -INT64_C(3600000000);
	while (!is_over(w)) {
		HOLDS(w, !w->sent_n || w->now_ms > CALM_MS + 290000);
		HOLDS(w, w->now_ms < CALM_MS + 310000);
		step(w);
	}
	assert_true(w->fates[0].has_arrived && w->fates[1].has_arrived);
	end_world(w);
}

/* What somebody replays makes room, so it does not wait for that of what stands aside. */
static void dead_letters_are_replayed_when_the_park_is_full(void **state)
{
	const struct cdc_park_totals totals = {.bytes = 1, .replay = 1};
	struct world *w = calm_world();
	struct cdc_trouble trouble = {.attempts = 2, .status = 422, .text = "no"};
	struct cdc_park_read what;
	struct cdc_batch *batch;

	(void)state;
	add_record(w, "update", 0, 1, 1, 1);
	start(w);
	read_some(w);
	trouble.item = cdc_window_head(w->window, 0);
	assert_int_equal(cdc_parking_take(w->parking, &trouble, wall_us(w), NULL), CDC_OK);
	assert_false(cdc_parking_set_room(w->parking, 0));
	cdc_lanes_hold(w->lanes, true);
	cdc_parking_set_totals(w->parking, &totals);
	assert_false(cdc_parking_must_write(w->parking, w->now_ms));
	assert_int_equal(cdc_parking_wait_ms(w->parking, w->now_ms, wall_us(w), 1000), 0);
	assert_true(cdc_parking_next(w->parking, w->now_ms, wall_us(w), &what, &batch));
	assert_true(what.is_replay);
	end_world(w);
}

/* What was collected and not written may have no room the next time. */
static void a_failed_write_of_the_store_forgets_no_reason(void **state)
{
	struct world *w = calm_world();
	struct cdc_trouble trouble = {.attempts = 2, .status = 422, .text = "no"};
	struct cdc_parking_write write;

	(void)state;
	add_record(w, "update", 0, 1, 1, 1);
	add_record(w, "update", 0, 2, 2, 1);
	start(w);
	while (w->read < 2)
		read_some(w);
	for (int i = 0; i < 2; i++) {
		trouble.item = cdc_window_head(w->window, 0);
		assert_int_equal(cdc_parking_take(w->parking, &trouble, wall_us(w), NULL), CDC_OK);
	}
	assert_int_equal(cdc_parking_collect(w->parking, w->now_ms, &write, NULL), CDC_OK);
	assert_int_equal(write.n, 2);
	assert_true(cdc_parking_set_room(w->parking, w->batch->records[0].json_len));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(cdc_parking_collect(w->parking, w->now_ms, &write, NULL), CDC_OK);
		assert_int_equal(write.n, 1);
		assert_int_equal(write.changes[0].status, 422);
		assert_int_equal(write.changes[0].attempts, 2);
		assert_string_equal(write.changes[0].reason, "no");
		cdc_parking_written(w->parking, &write, w->now_ms, wall_us(w));
	}
	end_world(w);
}

/* Rows without a key share one, but under `order: none` no record waits for another. */
static void without_order_a_refused_row_without_a_key_holds_none_up(void **state)
{
	struct world *w = calm_world();

	(void)state;
	w->order = w->settings.order = CDC_ORDER_NONE;
	for (unsigned i = 1; i <= 20; i++)
		add_keyless(w, i);
	w->fates[0].poison = REFUSED;
	start(w);
	while (!is_over(w)) {
		step(w);
		HOLDS(w, w->now_ms < CALM_MS + 60000);
	}
	for (size_t i = 0; i < w->batch->n; i++)
		assert_int_equal(w->fates[i].has_arrived, i > 0);
	end_world(w);
}

static void no_turn_is_made_for_a_probe_that_is_not_read_yet(void **state)
{
	struct world *w = calm_world();
	struct cdc_trouble trouble = {.status = 422, .text = "no"};

	(void)state;
	w->order = w->settings.order = CDC_ORDER_SYNC;
	w->settings.group = CDC_GROUP_TRANSACTION;
	w->settings.on_reject = CDC_ON_REJECT_DEAD_LETTER;
	w->settings.batch_size = 8;
	w->outages[0] = (struct outage){.to_ms = UINT64_MAX, .status = 503};
	add_record(w, "update", 0, 1, 1, 1);
	add_record(w, "update", 0, 1, 2, 1); /* of a transaction that goes on */
	start(w);
	while (w->read < 2 || cdc_lanes_breaker(w->lanes)->state != CDC_BREAKER_OPEN)
		step(w);
	trouble.item = cdc_window_head(w->window, 0);
	assert_int_equal(cdc_parking_take(w->parking, &trouble, wall_us(w), NULL), CDC_OK);
	w->now_ms = cdc_lanes_breaker(w->lanes)->until_ms;
	assert_int_equal(cdc_lanes_send(w->lanes, w, w->now_ms, &trouble, NULL), CDC_OK);
	assert_int_equal(cdc_lanes_in_flight(w->lanes), 0);
	assert_int_equal(cdc_lanes_wait_ms(w->lanes, w->now_ms, 1000), 1000);
	end_world(w);
}

/* It is the record's trouble, and nothing has to show that it was not the endpoint's. */
static void a_record_in_trouble_opens_no_breaker_behind_it(void **state)
{
	struct world *w = calm_world();

	(void)state;
	add_record(w, "update", 0, 1, 1, 1);
	add_record(w, "update", 0, 2, 2, 1);
	w->fates[0].poison = REFUSED;
	start(w);
	while (w->now_ms < CALM_MS + 60000) {
		step(w);
		HOLDS(w, cdc_lanes_breaker(w->lanes)->state == CDC_BREAKER_CLOSED);
	}
	assert_true(is_over(w) && is_dead(&w->fates[0]) && w->fates[1].has_arrived);
	end_world(w);
}

/* A large table, and some with a few records, or one. */
static size_t run_uneven(uint64_t seed)
{
	struct world *w = calm_world();
	unsigned tables;
	size_t ahead = 0;

	w->is_placing = true;
	w->seed = w->random = seed;
	tables = 1 + (unsigned)next(w, 24);
	w->settings.batch_size = 1 + next(w, 4);
	w->settings.concurrency = 1 + next(w, LANES);
	for (unsigned i = 1; i <= RECORDS; i++) {
		unsigned table = (unsigned)next(w, 3) ? 0 : 1 + (unsigned)next(w, tables);

		add_record(w, "update", table, table ? i : (unsigned)next(w, 3 * KEYS), i, 1);
	}
	start(w);
	while (!is_over(w))
		step(w);
	for (size_t i = 0; i < w->batch->n; i++) {
		HOLDS(w, w->fates[i].has_arrived);
		ahead += w->fates[i].is_ahead;
	}
	end_world(w);
	return ahead;
}

static void neither_small_nor_large_tables_wait_long_for_the_others(void **state)
{
	const char *one = getenv("MODEL_SEED");
	size_t ahead = 0;

	(void)state;
	if (one) {
		(void)run_uneven(strtoull(one, NULL, 10));
		return;
	}
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		ahead += run_uneven(seed);
	print_message("%d seeds, %zu records went ahead\n", SEEDS, ahead);
	assert_true(ahead > SEEDS);
}

static void every_record_arrives_in_order_or_is_a_dead_letter(void **state)
{
	const char *one = getenv("MODEL_SEED");
	uint64_t dead = 0;

	(void)state;
	if (one) {
		run(strtoull(one, NULL, 10), &dead);
		return;
	}
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run(seed, &dead);
	print_message("%d seeds, %llu dead letters\n", SEEDS, (unsigned long long)dead);
	assert_true(dead > SEEDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(live_and_parked_records_take_turns_at_a_rate),
		cmocka_unit_test(a_batch_that_lingers_waits_for_the_rate_without_turning),
		cmocka_unit_test(F42_a_clock_that_is_set_back_stops_no_looks),
		cmocka_unit_test(F42_a_clock_that_is_set_back_makes_no_wait_longer),
		cmocka_unit_test(dead_letters_are_replayed_when_the_park_is_full),
		cmocka_unit_test(a_failed_write_of_the_store_forgets_no_reason),
		cmocka_unit_test(without_order_a_refused_row_without_a_key_holds_none_up),
		cmocka_unit_test(no_turn_is_made_for_a_probe_that_is_not_read_yet),
		cmocka_unit_test(a_record_in_trouble_opens_no_breaker_behind_it),
		cmocka_unit_test(neither_small_nor_large_tables_wait_long_for_the_others),
		cmocka_unit_test(every_record_arrives_in_order_or_is_a_dead_letter),
		cmocka_unit_test(half_of_all_keys_are_refused_without_an_outage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
