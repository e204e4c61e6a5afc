#include "cdc/pipeline/deliver.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/pipeline/attempt_log.h"
#include "cdc/pipeline/backoff.h"
#include "cdc/pipeline/intake.h"
#include "cdc/pipeline/lanes.h"
#include "cdc/pipeline/parking.h"
#include "cdc/pipeline/replay.h"
#include "cdc/pipeline/round.h"
#include "cdc/pipeline/stopped.h"
#include "cdc/record/instant.h"
#include "cdc/store/attempt.h"

#define WINDOW_BYTES       (8u << 20)
#define RESULTS_PER_STEP   64
#define CHECKPOINT_MS      200  /* after deliveries */
#define CHECKPOINT_IDLE_MS 5000 /* when the reader only skipped */
#define TICKET_MS          20   /* looks whether a checkpoint became durable */
#define TURN_MS            1000 /* longest wait: the heartbeat */
#define STOP_MS            8000 /* for requests in flight */
#define FINISH_TURN_MS     20
#define LOOK_MS            1000 /* whether somebody replays or discards dead letters */
#define COUNT_PER_MS       10   /* parked records and dead letters: to count them takes time */
#define COUNT_MS           30000
#define SHOW_MS            200 /* between two looks at the lanes, for people */

/* What a checkpoint says. */
struct mark {
	struct cdc_stream_position stream;
	bool has_tables;
	struct cdc_id tables; /* how far those that do not stream have come */
	unsigned round;       /* version of the round, */
	unsigned stopped;     /* and of the tables that have stopped */
};

struct cdc_deliver {
	struct cdc_deliver_setup setup;
	struct cdc_window *window;
	struct cdc_selector *selector; /* NULL: none is needed */
	struct cdc_parked parked;
	struct cdc_lanes *lanes;
	struct cdc_parking *parking;

	void *sink; /* state */
	bool is_open;
	struct cdc_intake stream;
	struct cdc_stopped *stopped;
	struct cdc_round *round; /* NULL: the sync has no backfill */
	int wake_fd;             /* epoll over the readers' events and the stop flag */

	_Atomic bool is_to_pause, is_told; /* set by others, who wake by pause_fd */
	bool is_paused;
	int pause_fd;

	_Atomic bool has_replay; /* given by main, which may give the next one when it is done */
	struct cdc_command replay;
	struct cdc_cursor begin; /* where the last one began, and */
	struct cdc_stream_position begin_stream;
	struct cdc_id reached; /* what had been sent before; zero: nothing was ever replayed */

	_Atomic bool has_stopped, is_to_resume; /* the second by main, when the first is set */
	_Atomic bool is_to_resume_tables;       /* with the command that is to be ended */
	_Atomic int64_t resume_command;         /* when that has come to something; 0: none */
	int64_t resuming;                       /* the same, taken up, to be ended when */
	unsigned resume_version;                /* of the stopped tables is durable; 0: none */
	struct cdc_cursor stored;               /* where it began again */

	struct mark handed; /* the last checkpoint given to the store, */
	uint64_t ticket;    /* its ticket while not known to be durable, */
	uint64_t handed_ms; /* and when */
	bool has_delivered; /* since then */
	uint64_t looked_ms; /* at the store's parked records */
	uint64_t shown_ms;  /* the lanes, to people */
	bool is_uncounted;  /* they have changed since */
	bool is_full;       /* there is no room for more, says: */
	struct cdc_err full;
	unsigned fillings;
};

/* --- life --------------------------------------------------------------------------- */

/* Those that do not stream; valid until the next step.  NULL: there are none, or *ret_n: no memory
 * for so many. */
static struct cdc_cursor_table *tables_of(const struct cdc_deliver *d, size_t *ret_n)
{
	struct cdc_cursor_table *tables = NULL;
	size_t n = 0;

	if (d->round)
		tables = cdc_round_tables(d->round, &n);
	return cdc_stopped_tables(d->stopped, tables, n, ret_n);
}

static struct mark mark_of(const struct cdc_deliver *d)
{
	struct mark m = {.stream = cdc_window_position(d->stream.input)};

	size_t n = 0;
	const struct cdc_cursor_table *tables = tables_of(d, &n);

	for (size_t i = 0; tables && i < n; i++) {
		if (!m.has_tables || cdc_id_cmp(&tables[i].id, &m.tables) < 0)
			m.tables = tables[i].id;
		m.has_tables = true;
	}
	if (d->round)
		m.round = cdc_round_version(d->round);
	m.stopped = cdc_stopped_version(d->stopped);
	return m;
}

static enum cdc_code make_selector(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	enum cdc_code rc;

	if (!s->selection)
		return CDC_OK;
	rc = cdc_selector_new(s->selection, cdc_deliver_operations(s->settings), &d->selector, err);
	if (!rc)
		cdc_window_select(d->window, d->selector);
	return rc;
}

/* The stream, and what is held back from it. */
static enum cdc_code make_inputs(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	const struct cdc_intake_setup intake = {
		.ops = s->ops,
		.buffer = s->buffer,
		.group = s->sync,
		.tables = s->tables,
		.table_n = s->table_n,
		.window_bytes = s->window_bytes,
		.metrics = s->metrics,
	};
	struct cdc_round_setup round = {
		.intake = intake,
		.window = d->window,
		.backfill = s->backfill,
		.is_whole = s->settings->order == CDC_ORDER_SYNC,
	};
	struct cdc_stopped_setup stopped = {
		.intake = intake, .window = d->window, .log = &d->setup.log};
	enum cdc_code rc = cdc_intake_init(&d->stream, &intake, d->window, CDC_INPUT_STREAM,
					   s->cursor->streams[0], err);

	round.stream = d->stream.input;
	stopped.stream = d->stream.input;
	if (!rc)
		rc = cdc_stopped_new(&stopped, s->cursor, &d->stopped, err);
	round.stopped = d->stopped;
	if (!rc && s->backfill)
		rc = cdc_round_new(&round, s->cursor, &d->round, err);
	return rc;
}

/* What decides about the window's records, and about those that are parked. */
static enum cdc_code make_rules(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	const struct cdc_lanes_setup lanes = {
		.sync = s->sync,
		.settings = s->settings,
		.sink = s->sink,
		.window = d->window,
		.metrics = s->metrics,
		.board = s->board,
		.log = s->log,
		.replayed = d->reached,
	};
	struct cdc_parking_setup parking = {
		.sync = s->sync,
		.settings = s->settings,
		.sink = s->sink,
		.window = d->window,
		.parked = &d->parked,
		.metrics = s->metrics,
		.log = s->log,
	};

	if (d->window)
		d->lanes = cdc_lanes_new(&lanes);
	parking.lanes = d->lanes;
	if (d->lanes)
		d->parking = cdc_parking_new(&parking);
	if (!d->parking)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	cdc_window_set_parked(d->window, &d->parked);
	return CDC_OK;
}

/* The queues that the store holds, and the records that will be read again though they are there.
 */
static enum cdc_code load_parked(struct cdc_deliver *d, struct cdc_err *err)
{
	struct cdc_store *store = d->setup.store;
	const char *sync = d->setup.sync;
	struct cdc_park_totals totals;
	struct cdc_park_head *heads = NULL;
	struct cdc_id *ids = NULL;
	size_t head_n = 0, id_n = 0;
	enum cdc_code rc = cdc_store_park(store, sync, NULL, 0, 0, NULL, 0, &totals, err);

	if (!rc)
		rc = cdc_store_park_heads(store, sync, &heads, &head_n, err);
	if (!rc)
		rc = cdc_store_park_ids(store, d->setup.cursor,
					d->setup.settings->order == CDC_ORDER_SYNC, &ids, &id_n,
					err);
	for (size_t i = 0; !rc && i < head_n; i++) {
		struct cdc_parked_key *key;

		rc = cdc_parked_add(&d->parked, heads[i].key_hash, heads[i].table_hash, &key, err);
		if (!rc)
			cdc_parked_set_head(key, &heads[i]);
	}
	free(heads);
	if (rc) {
		free(ids);
		return rc;
	}
	rc = cdc_parked_set_ids(&d->parked, ids, id_n, err);
	if (rc)
		return rc;
	cdc_parking_set_totals(d->parking, &totals);
	return CDC_OK;
}

static void show_stopped(struct cdc_deliver *d)
{
	cdc_metric_set(&d->setup.metrics->stopped_tables, cdc_stopped_count(d->stopped));
}

/* Everything that begins where the sync is. */
static enum cdc_code make(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	enum cdc_code rc = cdc_store_replay_get(s->store, s->sync, &d->reached, err);

	if (rc)
		return rc;
	d->window = cdc_window_new(s->settings->concurrency, s->backfill != NULL,
				   (enum cdc_order)s->settings->order,
				   cdc_deliver_operations(s->settings));
	if (d->window && s->settings->group == CDC_GROUP_TRANSACTION)
		cdc_window_group(d->window, s->window_bytes);
	if (d->window && s->settings->order == CDC_ORDER_KEY)
		cdc_window_share(d->window, s->settings->batch_size, s->settings->batch_bytes);
	rc = make_rules(d, err);
	if (!rc)
		rc = make_selector(d, err);
	if (!rc)
		rc = make_inputs(d, err);
	if (!rc)
		rc = load_parked(d, err);
	d->ticket = 0;
	d->is_full = false;
	if (rc)
		return rc;
	show_stopped(d);
	d->resume_version = 0;
	d->handed = mark_of(d);
	return rc;
}

static void unmake(struct cdc_deliver *d)
{
	cdc_parking_free(d->parking);
	cdc_lanes_free(d->lanes);
	cdc_round_free(d->round);
	cdc_stopped_free(d->stopped);
	cdc_intake_clear(&d->stream, true);
	cdc_window_free(d->window);
	cdc_selector_free(d->selector);
	cdc_parked_clear(&d->parked);
	d->parking = NULL;
	d->lanes = NULL;
	d->round = NULL;
	d->stopped = NULL;
	d->window = NULL;
	d->selector = NULL;
}

enum cdc_code cdc_deliver_new(const struct cdc_deliver_setup *setup, struct cdc_deliver **ret,
			      struct cdc_err *err)
{
	struct cdc_deliver *d = calloc(1, sizeof(*d));
	enum cdc_code rc;

	if (!d)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	d->setup = *setup;
	d->wake_fd = -1;
	d->pause_fd = cdc_event_new();
	if (!d->setup.window_bytes)
		d->setup.window_bytes = WINDOW_BYTES;
	/* A part of a transaction as large as it may be, and what shows that more of it follows. */
	if (setup->settings->group == CDC_GROUP_TRANSACTION)
		d->setup.window_bytes += 2 * setup->settings->batch_bytes;
	if (d->pause_fd < 0)
		rc = cdc_err_set(err, CDC_IO, "no more file descriptors");
	else
		rc = make(d, err);
	if (rc) {
		cdc_deliver_free(d);
		return rc;
	}
	*ret = d;
	return CDC_OK;
}

static void close_outside(struct cdc_deliver *d)
{
	d->setup.sink->close(d->sink);
	d->sink = NULL;
	cdc_intake_close(&d->stream);
	if (d->stopped)
		cdc_stopped_close(d->stopped);
	if (d->round)
		cdc_round_close(d->round);
	if (d->wake_fd >= 0)
		close(d->wake_fd);
	d->wake_fd = -1;
	d->is_open = false;
}

void cdc_deliver_free(struct cdc_deliver *d)
{
	if (!d)
		return;
	close_outside(d);
	if (d->pause_fd >= 0)
		close(d->pause_fd);
	unmake(d);
	cdc_cursor_clear(&d->stored);
	free(d);
}

static enum cdc_code watch(struct cdc_deliver *d, int fd, struct cdc_err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

	if (epoll_ctl(d->wake_fd, EPOLL_CTL_ADD, fd, &event))
		return cdc_err_set(err, CDC_IO, "epoll_ctl: %s", strerror(errno));
	return CDC_OK;
}

static enum cdc_code set_remedy(const struct cdc_deliver *d, struct cdc_err *err)
{
	return cdc_err_remedy(
		err,
		"correct the destination (a changed file is read when walpost starts), "
		"then `walpost resume %s`: the sync goes on where it stopped",
		d->setup.sync);
}

/* What belongs to the thread: it is opened by the first step. */
static enum cdc_code open_outside(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	struct sink_settings settings = {
		.connection = s->sink_connection,
		.sync = s->sink_sync,
		.sync_id = s->sync_uuid,
		.sync_name = s->sync,
		.database = s->database,
		.concurrency = cdc_lanes_n(d->lanes) + CDC_PARKING_SLOTS,
		.has_attempts = s->settings->record_requests,
	};
	char reason[sizeof(err->msg)];
	enum cdc_code rc = cdc_store_disabled_get(s->store, s->sync, reason, sizeof(reason), err);

	if (!rc) {
		(void)cdc_err_set(err, CDC_REJECTED, "disabled: %s", reason);
		return set_remedy(d, err);
	}
	if (rc != CDC_MISSING)
		return rc;
	rc = s->settings->record_requests ? CDC_OK
					  : cdc_store_attempts_forget(s->store, s->sync, err);
	if (rc)
		return rc;
	d->wake_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->wake_fd < 0)
		return cdc_err_set(err, CDC_IO, "epoll_create1: %s", strerror(errno));
	rc = cdc_intake_open(&d->stream, err);
	if (!rc)
		rc = watch(d, cdc_intake_fd(&d->stream), err);
	if (!rc)
		rc = watch(d, d->pause_fd, err);
	if (!rc && d->round)
		rc = cdc_round_open(d->round, d->wake_fd, err);
	if (!rc && s->stop)
		rc = watch(d, s->stop->fd, err);
	settings.wake_fd = d->wake_fd;
	if (!rc)
		rc = s->sink->open(&settings, &d->sink, err);
	if (rc)
		close_outside(d);
	else
		d->is_open = true;
	return rc;
}

/* --- outcomes ----------------------------------------------------------------------- */

static void post(struct cdc_deliver *d, enum cdc_state state, const struct cdc_err *err)
{
	if (d->is_paused && (state == CDC_STATE_RUNNING || state == CDC_STATE_WAITING))
		state = CDC_STATE_PAUSED;
	cdc_board_post(d->setup.board, state, err, cdc_clock_wall_us());
}

static size_t in_flight(const struct cdc_deliver *d)
{
	return cdc_lanes_in_flight(d->lanes) + cdc_parking_in_flight(d->parking);
}

/* The endpoint wants no more: that outlives the process. */
static void disable(struct cdc_deliver *d, struct cdc_err *err)
{
	struct cdc_err failed = {0};

	(void)set_remedy(d, err);
	if (cdc_store_disable(d->setup.store, d->setup.sync, err->msg, &failed))
		LOG_WARN(&d->setup.log, "disabling_failed", KV("sync", d->setup.sync),
			 KV("note", "after a restart the endpoint will be asked once more"),
			 KV_ERR(&failed));
}

static void count_result(struct cdc_deliver *d, const struct sink_result *r, int64_t wall_us)
{
	const struct cdc_deliver_settings *s = d->setup.settings;
	struct cdc_sync_metrics *m = d->setup.metrics;

	_Static_assert(SINK_STOP + 1 == CDC_OUTCOMES, "a counter for each outcome");
	cdc_metric_add(&m->requests, 1);
	cdc_metric_add(&m->outcomes[r->outcome], 1);
	cdc_metric_add(&m->request_bytes, r->sent_bytes);
	cdc_histogram_add(&m->request, r->took_us, 1);
	if (r->outcome == SINK_DONE)
		cdc_metric_set(&m->accepted_us, wall_us > 0 ? (uint64_t)wall_us : 0);
	else
		cdc_behind_failed(d->setup.behind, r->text, wall_us);
	if (s->record_requests)
		cdc_metric_add(cdc_attempt_log(d->setup.store, d->setup.sync, s, r, wall_us)
				       ? &m->recorded
				       : &m->unrecorded,
			       1);
}

static void fill(struct cdc_deliver *d);

/* Does only its table stop, when this record is refused for good? */
static bool may_stop_table(const struct cdc_deliver *d, const struct cdc_item *item)
{
	size_t len;
	const char *table = cdc_view_table(cdc_item_view(item), &len);

	return item->rec->flags & CDC_RECORD_BARRIER && item->rec->op != CDC_OP_MESSAGE &&
	       d->setup.settings->order != CDC_ORDER_SYNC && cdc_stopped_can(len) &&
	       !(d->round && cdc_round_has(d->round, table, len));
}

static enum cdc_code stop_table(struct cdc_deliver *d, const struct cdc_trouble *t,
				struct cdc_err *err)
{
	const struct cdc_record *rec = t->item->rec;
	struct cdc_err why = {0};
	char id[CDC_ID_TEXT];
	size_t len;
	const char *table = cdc_view_table(cdc_item_view(t->item), &len);
	enum cdc_code rc;

	(void)cdc_id_format(&rec->id, id);
	(void)cdc_err_set(&why, CDC_TROUBLE,
			  "table %.*s stops before record %s, of operation %s, which is refused "
			  "(%s) and which nothing of the table may pass; the other tables go on",
			  (int)len, table, id, cdc_op_name((enum cdc_op)rec->op), t->text);
	(void)cdc_err_remedy(&why,
			     "make the endpoint accept this record, then `walpost resume %s`; or "
			     "`walpost resync %s %.*s`, which copies its rows in place of what it "
			     "lacks",
			     d->setup.sync, d->setup.sync, (int)len, table);
	rc = cdc_stopped_add(d->stopped, t->item, err);
	if (rc)
		return rc;
	show_stopped(d);
	LOG_ERROR(&d->setup.log, "table_stopped", KV("sync", d->setup.sync),
		  KV("status", t->status), KV_ERR(&why));
	return CDC_OK;
}

/* Without room for its key the record stays where it is. */
static enum cdc_code park(struct cdc_deliver *d, const struct cdc_trouble *trouble, int64_t wall_us,
			  struct cdc_err *err)
{
	struct cdc_err why = {0};
	enum cdc_code rc;

	if (may_stop_table(d, trouble->item))
		return stop_table(d, trouble, err);
	rc = cdc_parking_take(d->parking, trouble, wall_us, &why);
	if (rc == CDC_LIMIT) {
		d->full = why;
		fill(d);
		return CDC_OK;
	}
	if (rc && err)
		*err = why;
	return rc;
}

static enum cdc_code take_result(struct cdc_deliver *d, const struct sink_result *r,
				 uint64_t now_ms, int64_t wall_us, uint64_t random,
				 struct cdc_err *err)
{
	struct cdc_trouble trouble = {0};
	enum cdc_code rc;

	count_result(d, r, wall_us);
	if (r->ticket >= cdc_lanes_n(d->lanes))
		return cdc_parking_result(d->parking, r, now_ms, wall_us, random, err);
	rc = cdc_lanes_result(d->lanes, r, now_ms, wall_us, random, &trouble, err);
	if (!rc && trouble.item)
		rc = park(d, &trouble, wall_us, err);
	d->has_delivered |= r->outcome == SINK_DONE;
	return rc;
}

/* Every result is taken, also behind one that ends the sync: what was accepted is done. */
static enum cdc_code take_results(struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us,
				  uint64_t wait_ms, uint64_t random, struct cdc_err *err)
{
	struct sink_result results[RESULTS_PER_STEP];
	size_t n = d->setup.sink->poll(d->sink, wait_ms, results, RESULTS_PER_STEP);
	enum cdc_code rc = CDC_OK;

	if (n && wait_ms) {
		now_ms = cdc_clock_mono_ms();
		wall_us = cdc_clock_wall_us();
	}
	for (size_t i = 0; i < n; i++) {
		enum cdc_code one =
			take_result(d, &results[i], now_ms, wall_us,
				    random ^ (i * UINT64_C(0x9e3779b97f4a7c15)), rc ? NULL : err);
		if (!rc)
			rc = one;
	}
	if (rc == CDC_REJECTED)
		disable(d, err);
	else if (n && d->is_full)
		post(d, CDC_STATE_WAITING, &d->full);
	else if (n && d->is_paused)
		post(d, CDC_STATE_RUNNING, NULL); /* what the lanes posted is not the whole truth */
	return rc;
}

/* --- parked records ----------------------------------------------------------------- */

/* How long after they were counted last they may be counted again: seldom, when there are many. */
static uint64_t count_ms(const struct cdc_deliver *d)
{
	const struct cdc_park_totals *t = cdc_parking_totals(d->parking);
	uint64_t wait_ms = (t->waiting + t->dead + t->replay) / COUNT_PER_MS;

	return wait_ms < COUNT_MS ? wait_ms : COUNT_MS;
}

static enum cdc_code count_parked(struct cdc_deliver *d, uint64_t now_ms, struct cdc_err *err)
{
	struct cdc_park_totals totals;
	enum cdc_code rc =
		cdc_store_park(d->setup.store, d->setup.sync, NULL, 0, 0, NULL, 0, &totals, err);

	if (rc)
		return rc;
	cdc_parking_set_totals(d->parking, &totals);
	d->looked_ms = now_ms;
	d->is_uncounted = false;
	return CDC_OK;
}

/* The sync stops until there is room again, and only what is parked is tried. */
static void fill(struct cdc_deliver *d)
{
	post(d, CDC_STATE_WAITING, &d->full);
	if (d->is_full)
		return;
	d->is_full = true;
	cdc_lanes_hold(d->lanes, true);
	if (cdc_log_is_due(++d->fillings))
		LOG_ERROR(&d->setup.log, "park_is_full", KV("sync", d->setup.sync),
			  KV_ERR(&d->full));
}

static void unfill(struct cdc_deliver *d)
{
	d->is_full = false;
	cdc_lanes_hold(d->lanes, false);
	post(d, CDC_STATE_RUNNING, NULL);
	if (cdc_log_is_due(d->fillings))
		LOG_INFO(&d->setup.log, "park_has_room", KV("sync", d->setup.sync),
			 KV("parked", cdc_parking_totals(d->parking)->waiting));
}

/* A park that is empty takes one record of whatever size. */
static bool has_room(const struct cdc_deliver *d)
{
	uint64_t used = cdc_parking_totals(d->parking)->bytes;
	uint64_t most = d->setup.settings->park.max_bytes;
	size_t n, bytes;
	const struct cdc_item *first = cdc_window_aside(d->window, &n, &bytes);
	uint64_t room = used < most ? most - used : 0;

	if (!used && first && room < first->rec->json_len)
		room = first->rec->json_len;
	return cdc_parking_set_room(d->parking, room) &&
	       (!d->is_full || d->parked.n < CDC_PARKED_KEYS_MAX);
}

/* Is there room for what stands aside?  Somebody may have discarded dead letters meanwhile. */
static enum cdc_code check_room(struct cdc_deliver *d, uint64_t now_ms, struct cdc_err *err)
{
	const struct cdc_park_totals *t = cdc_parking_totals(d->parking);
	uint64_t wait_ms = count_ms(d) > LOOK_MS ? count_ms(d) : LOOK_MS;
	enum cdc_code rc = CDC_OK;

	if (!has_room(d) && (!d->is_full || now_ms - d->looked_ms >= wait_ms))
		rc = count_parked(d, now_ms, err);
	if (rc)
		return rc;
	if (has_room(d) && d->is_full)
		unfill(d);
	if (has_room(d) || d->is_full)
		return CDC_OK;
	(void)cdc_err_set(&d->full, CDC_LIMIT,
			  "%llu parked records and %llu dead letters fill park.max_bytes; the "
			  "sync sends only what is parked until there is room, and skips nothing",
			  (unsigned long long)t->waiting, (unsigned long long)t->dead + t->replay);
	(void)cdc_err_remedy(&d->full, "make the endpoint accept these records, discard dead "
				       "letters, or raise park.max_bytes and start walpost again");
	fill(d);
	return CDC_OK;
}

/* Before the checkpoint that passes them. */
static enum cdc_code write_parked(struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us,
				  struct cdc_err *err)
{
	bool is_counted = now_ms - d->looked_ms >= count_ms(d);
	struct cdc_park_totals totals;
	struct cdc_parking_write w;
	enum cdc_code rc;

	if (!cdc_parking_must_write(d->parking, now_ms) && !d->is_full)
		return CDC_OK;
	rc = check_room(d, now_ms, err);
	if (rc || !cdc_parking_must_write(d->parking, now_ms))
		return rc;
	rc = cdc_parking_collect(d->parking, now_ms, &w, err);
	if (!rc)
		rc = cdc_store_park(d->setup.store, d->setup.sync, w.changes, w.n, wall_us, w.heads,
				    w.head_n, is_counted ? &totals : NULL, err);
	if (rc)
		return rc;
	cdc_parking_written(d->parking, &w, now_ms, wall_us);
	d->has_delivered = true;
	d->is_uncounted = !is_counted;
	if (is_counted) {
		cdc_parking_set_totals(d->parking, &totals);
		d->looked_ms = now_ms;
	}
	return CDC_OK;
}

static enum cdc_code send_parked(struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us,
				 struct cdc_err *err)
{
	const struct cdc_park_totals *t = cdc_parking_totals(d->parking);
	struct cdc_park_read what;
	struct cdc_batch *batch;
	enum cdc_code rc = CDC_OK;

	if ((t->dead + t->replay || d->is_uncounted) &&
	    now_ms - d->looked_ms >= (count_ms(d) > LOOK_MS ? count_ms(d) : LOOK_MS))
		rc = count_parked(d, now_ms, err);
	while (!rc && cdc_parking_next(d->parking, now_ms, wall_us, &what, &batch)) {
		bool waits;

		rc = cdc_store_park_read(d->setup.store, d->setup.sync, &what, batch, &waits, err);
		if (rc == CDC_REJECTED)
			rc = cdc_parking_bury(d->parking, err->msg, err);
		else if (rc)
			cdc_parking_put_off(d->parking, wall_us);
		else
			rc = cdc_parking_send(d->parking, d->sink, waits, now_ms, wall_us, err);
	}
	return rc;
}

static enum cdc_code send_all(struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us,
			      struct cdc_err *err)
{
	struct cdc_trouble trouble = {0};
	enum cdc_code rc;

	do {
		rc = cdc_lanes_send(d->lanes, d->sink, now_ms, &trouble, err);
		if (!rc && trouble.item)
			rc = park(d, &trouble, wall_us, err);
	} while (!rc && trouble.item);
	return rc;
}

/* --- checkpoints -------------------------------------------------------------------- */

/* The tables' rows are valid until the next step.  False: no memory. */
static bool cursor_of(const struct cdc_deliver *d, struct mark *m, struct cdc_cursor *ret)
{
	*ret = (struct cdc_cursor){.streams = &m->stream, .stream_n = 1};
	(void)snprintf(ret->sync, sizeof(ret->sync), "%s", d->setup.sync);
	ret->tables = tables_of(d, &ret->table_n);
	return ret->tables || ret->table_n == 0;
}

static bool is_same(const struct mark *a, const struct mark *b)
{
	return cdc_id_cmp(&a->stream.id, &b->stream.id) == 0 &&
	       cdc_id_cmp(&a->tables, &b->tables) == 0 && a->round == b->round &&
	       a->stopped == b->stopped;
}

/* The tables that were resumed stay so. */
static void end_resume(struct cdc_deliver *d)
{
	struct cdc_err err = {0};

	if (!d->resuming)
		return;
	if (cdc_store_command_end(d->setup.store, d->resuming, CDC_COMMAND_DONE,
				  "the sync goes on; its tables that had stopped go on, too, with "
				  "the records that were refused",
				  &err))
		LOG_WARN(&d->setup.log, "command_waits", KV("sync", d->setup.sync), KV_ERR(&err));
	d->resuming = 0;
	atomic_store(&d->resume_command, 0);
}

/* The store has it: the buffer may let go of what lies before the stream and the held tables. */
static void commit(struct cdc_deliver *d)
{
	struct cdc_stream_position low = d->handed.stream;
	const struct cdc_position position = {.n = 1, .streams = &low};

	if (d->handed.has_tables && cdc_id_cmp(&d->handed.tables, &low.id) < 0)
		low.id = d->handed.tables;
	d->ticket = 0;
	if (d->handed.stopped >= d->resume_version)
		end_resume(d);
	d->setup.ops->commit(d->setup.buffer, d->setup.sync, &position);
	if (d->round)
		cdc_round_written(d->round, d->handed.round);
}

/* One checkpoint at a time is on its way, so that what is handed over is what becomes durable. */
static void checkpoint(struct cdc_deliver *d, uint64_t now_ms)
{
	struct mark m;
	struct cdc_cursor cursor;
	bool is_urgent = (d->round && cdc_round_version(d->round) != d->handed.round) ||
			 d->handed.stopped < d->resume_version;

	if (d->ticket && cdc_store_checkpointed(d->setup.store) >= d->ticket)
		commit(d);
	if (d->ticket ||
	    (!is_urgent &&
	     now_ms - d->handed_ms < (d->has_delivered ? CHECKPOINT_MS : CHECKPOINT_IDLE_MS)))
		return;
	m = mark_of(d);
	cdc_parked_pass(&d->parked, m.has_tables && cdc_id_cmp(&m.tables, &m.stream.id) < 0
					    ? &m.tables
					    : &m.stream.id);
	d->handed_ms = now_ms;
	d->has_delivered = false;
	if (is_same(&m, &d->handed))
		return;
	if (cursor_of(d, &m, &cursor)) {
		d->handed = m;
		d->ticket = cdc_store_checkpoint(d->setup.store, &cursor);
	}
	if (!d->ticket)
		d->has_delivered = true; /* no memory: the next turn tries again */
}

static void last_checkpoint(struct cdc_deliver *d)
{
	struct mark m = mark_of(d);
	struct cdc_cursor cursor;
	struct cdc_err err = {0};

	if ((is_same(&m, &d->handed) && !d->ticket) || !cursor_of(d, &m, &cursor))
		return;
	if (cdc_store_cursor_put(d->setup.store, &cursor, &err)) {
		LOG_WARN(&d->setup.log, "checkpoint_failed", KV("sync", d->setup.sync),
			 KV("note", "some records will be sent again"), KV_ERR(&err));
		return;
	}
	d->handed = m;
	commit(d);
}

/* --- the step ----------------------------------------------------------------------- */

static void show_oldest(struct cdc_deliver *d, const struct cdc_item *item)
{
	struct cdc_behind_record r = {.key_hash = item->rec->key_hash,
				      .commit_us = item->rec->commit_us};
	size_t len;
	const char *table = cdc_view_table(cdc_item_view(item), &len);

	_Static_assert(sizeof(r.id) >= CDC_ID_TEXT, "any id fits");
	(void)cdc_id_format(&item->rec->id, r.id);
	(void)snprintf(r.table, sizeof(r.table), "%.*s", (int)len, table);
	cdc_behind_oldest(d->setup.behind, &r);
}

static void show_lanes(struct cdc_deliver *d, const struct cdc_item *oldest, uint64_t now_ms)
{
	struct cdc_sync_metrics *m = d->setup.metrics;
	struct cdc_lanes_look look;

	cdc_lanes_look(d->lanes, now_ms, &look);
	cdc_metric_set(&m->in_flight_records, look.records);
	cdc_metric_set(&m->resting, look.resting);
	cdc_metric_set(&m->asked_ms, look.asked_ms);
	cdc_metric_set(&m->is_rate_limited, look.is_rate_limited);
	cdc_metric_set(&m->held, cdc_window_held(d->window));
	cdc_metric_set(&m->deepest, cdc_window_deepest(d->window));
	if (oldest)
		show_oldest(d, oldest);
	else
		cdc_behind_oldest(d->setup.behind, NULL);
}

/* The lanes are looked at now and then while much happens, and always before a long wait. */
static void show(struct cdc_deliver *d, uint64_t now_ms, uint64_t wait_ms)
{
	struct cdc_sync_metrics *m = d->setup.metrics;
	const struct cdc_item *oldest = cdc_window_oldest(d->window);
	int64_t oldest_us = oldest ? oldest->rec->commit_us : 0;

	cdc_metric_set(&m->in_flight, in_flight(d));
	cdc_metric_set(&m->window, cdc_window_records(d->window));
	cdc_metric_set(&m->breaker, cdc_lanes_breaker(d->lanes)->state);
	cdc_metric_set(&m->oldest_us, oldest_us > 0 ? (uint64_t)oldest_us : 0);
	cdc_metric_set(&m->is_behind, d->stream.may_read);
	if (wait_ms <= SHOW_MS && now_ms - d->shown_ms < SHOW_MS)
		return;
	d->shown_ms = now_ms;
	show_lanes(d, oldest, now_ms);
}

static uint64_t sooner(uint64_t wait_ms, uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms <= now_ms)
		return 0;
	return at_ms - now_ms < wait_ms ? at_ms - now_ms : wait_ms;
}

static uint64_t next_wait_ms(const struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us)
{
	uint64_t wait_ms = TURN_MS;

	if (cdc_intake_is_ready(&d->stream))
		return 0;
	if (d->round)
		wait_ms = cdc_round_wait_ms(d->round, wait_ms);
	wait_ms = cdc_stopped_wait_ms(d->stopped, wait_ms);
	if (d->ticket)
		wait_ms = sooner(wait_ms, now_ms + TICKET_MS, now_ms);
	else if (d->has_delivered)
		wait_ms = sooner(wait_ms, d->handed_ms + CHECKPOINT_MS, now_ms);
	if (d->is_paused)
		return wait_ms;
	wait_ms = cdc_parking_wait_ms(d->parking, now_ms, wall_us, wait_ms);
	return cdc_lanes_wait_ms(d->lanes, now_ms, wait_ms);
}

void cdc_deliver_pause(struct cdc_deliver *d, bool is_paused)
{
	atomic_store(&d->is_to_pause, is_paused);
	atomic_store(&d->is_told, true);
	cdc_event_signal(d->pause_fd);
}

static void look_for_pause(struct cdc_deliver *d)
{
	bool is_paused;

	if (!atomic_load_explicit(&d->is_told, memory_order_relaxed))
		return;
	/* Taken back and drained first: what is set behind them makes another turn look. */
	atomic_store(&d->is_told, false);
	(void)cdc_event_drain(d->pause_fd);
	if (atomic_exchange(&d->is_to_resume_tables, false)) {
		LOG_INFO(&d->setup.log, "tables_resumed", KV("sync", d->setup.sync),
			 KV("tables", cdc_stopped_resume(d->stopped)));
		d->resume_version = cdc_stopped_version(d->stopped);
		d->resuming = atomic_load(&d->resume_command);
		show_stopped(d);
	}
	is_paused = atomic_load(&d->is_to_pause);
	if (is_paused == d->is_paused)
		return;
	d->is_paused = is_paused;
	post(d, CDC_STATE_RUNNING, NULL);
	LOG_INFO(&d->setup.log, is_paused ? "sync_paused" : "sync_resumed",
		 KV("sync", d->setup.sync), KV("in_flight", in_flight(d)));
}

/* A column that is listed and not there is no error: it may come, or be an older table's. */
static void tell_missing(struct cdc_deliver *d)
{
	const char *table, *column;

	while (cdc_selector_missing(d->selector, &table, &column))
		LOG_WARN(&d->setup.log, "selected_column_missing", KV("sync", d->setup.sync),
			 KV("table", table), KV("column", column),
			 KV("note",
			    "the table has no such column, or the publication does not send "
			    "it"));
}

enum cdc_code cdc_deliver_step(struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us,
			       uint64_t wait_ms, uint64_t random, uint64_t *ret_wait_ms,
			       struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (!d->is_open)
		rc = open_outside(d, err);
	if (!rc)
		rc = take_results(d, now_ms, wall_us, wait_ms, random, err);
	if (rc)
		return rc;
	if (wait_ms) {
		now_ms = cdc_clock_mono_ms();
		wall_us = cdc_clock_wall_us();
	}
	look_for_pause(d);
	if (!d->is_paused)
		cdc_lanes_tick(d->lanes, now_ms, random);
	cdc_intake_give_back(&d->stream);
	if (cdc_lanes_has_suspect(d->lanes))
		cdc_intake_pass(&d->stream);
	if (d->selector)
		cdc_selector_set_now(d->selector, wall_us);
	rc = cdc_intake_read(&d->stream, err);
	if (!rc && d->round)
		rc = cdc_round_step(d->round, err);
	if (!rc && !cdc_stopped_is_empty(d->stopped)) {
		rc = cdc_stopped_step(d->stopped, err);
		show_stopped(d);
	}
	if (d->selector)
		tell_missing(d);
	if (!rc)
		rc = write_parked(d, now_ms, wall_us, err);
	if (!rc && !d->is_paused)
		rc = send_parked(d, now_ms, wall_us, err);
	if (!rc && !d->is_paused)
		rc = send_all(d, now_ms, wall_us, err);
	checkpoint(d, now_ms);
	*ret_wait_ms = next_wait_ms(d, now_ms, wall_us);
	show(d, now_ms, *ret_wait_ms);
	return rc;
}

/* --- the end ------------------------------------------------------------------------ */

/*
 * Nothing new is begun, but what lies between records that are done is still
 * sent: a checkpoint is one id, and what is done above it would be sent again.
 * is_ended: the sync ended with an error, so only what is in flight counts.
 */
static void finish(struct cdc_deliver *d, bool is_ended)
{
	uint64_t now_ms = cdc_clock_mono_ms(), end_ms = now_ms + STOP_MS;
	struct cdc_err unheard;

	if (!d->is_open)
		return;
	if (d->setup.stop)
		(void)epoll_ctl(d->wake_fd, EPOLL_CTL_DEL, d->setup.stop->fd, NULL);
	(void)epoll_ctl(d->wake_fd, EPOLL_CTL_DEL, cdc_intake_fd(&d->stream), NULL);
	if (d->round)
		cdc_round_unwatch(d->round);
	cdc_lanes_finish(d->lanes);
	cdc_window_close(d->window);
	while (now_ms < end_ms) {
		bool goes_on = !is_ended && !d->is_paused && !d->is_full &&
			       cdc_lanes_breaker(d->lanes)->state == CDC_BREAKER_CLOSED &&
			       cdc_window_has_gaps(d->window);

		if (goes_on && send_all(d, now_ms, cdc_clock_wall_us(), &unheard))
			is_ended = true;
		if (!in_flight(d) && !goes_on)
			break;
		if (take_results(d, now_ms, cdc_clock_wall_us(), FINISH_TURN_MS,
				 cdc_backoff_random(), &unheard))
			is_ended = true;
		now_ms = cdc_clock_mono_ms();
		if (write_parked(d, now_ms, cdc_clock_wall_us(), &unheard))
			is_ended = true;
		cdc_board_beat(d->setup.board, now_ms);
	}
	/* What stands aside would be sent again. */
	(void)write_parked(d, now_ms + CDC_PARKING_WRITE_MS, cdc_clock_wall_us(), &unheard);
	last_checkpoint(d);
	close_outside(d);
}

/* Something below failed that may heal: waits, and wakes for the stop flag. */
static void wait_out(struct cdc_deliver *d, const struct cdc_err *err, unsigned attempt)
{
	uint64_t wait_ms = cdc_backoff_ms(attempt, cdc_backoff_random());

	post(d, CDC_STATE_WAITING, err);
	if (cdc_log_is_due(attempt))
		LOG_WARN(&d->setup.log, "sync_interrupted", KV("sync", d->setup.sync),
			 KV("attempt", attempt), KV("wait_ms", wait_ms), KV_ERR(err));
	while (wait_ms && !cdc_stop_is_set(d->setup.stop)) {
		uint64_t turn_ms = wait_ms < TURN_MS ? wait_ms : TURN_MS;

		cdc_board_beat(d->setup.board, cdc_clock_mono_ms());
		(void)cdc_stop_wait(d->setup.stop, turn_ms);
		wait_ms -= turn_ms;
	}
}

/* --- replay ------------------------------------------------------------------------- */

bool cdc_deliver_replay(struct cdc_deliver *d, const struct cdc_command *command)
{
	if (atomic_load(&d->has_replay))
		return false;
	d->replay = *command;
	atomic_store(&d->has_replay, true);
	atomic_store(&d->is_told, true);
	cdc_event_signal(d->pause_fd);
	return true;
}

/* May the sync go back to where its group has been put?  *ret_answer says what becomes of it. */
static enum cdc_code judge_replay(struct cdc_deliver *d, const struct cdc_stream_position *found,
				  char *ret_answer, size_t size, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	const struct cdc_replay_search search = {
		.ops = s->ops,
		.buffer = s->buffer,
		.group = s->sync,
		.tables = s->tables,
		.table_n = s->table_n,
		.from = *found,
		.to = cdc_window_position(d->stream.input).id,
		.board = s->board,
		.stop = s->stop,
	};
	struct cdc_stream_position stream = *found;
	struct cdc_cursor back = {.streams = &stream, .stream_n = 1};
	char id[CDC_ID_TEXT], when[CDC_INSTANT_TEXT];
	struct cdc_buffer_stats stats;
	struct cdc_id first, *ids = NULL;
	int64_t us;
	size_t n;
	enum cdc_code rc = cdc_replay_find(&search, &first, &us, err);

	(void)snprintf(back.sync, sizeof(back.sync), "%s", s->sync);
	/* What is parked is not sent twice; so much of it has to be known. */
	if (!rc)
		rc = cdc_store_park_ids(s->store, &back, false, &ids, &n, err);
	free(ids);
	if (rc == CDC_MISSING)
		rc = cdc_err_set(err, rc,
				 "no record of its tables that was sent since then is in the "
				 "buffer; nothing is sent again");
	if (rc)
		return rc;
	s->ops->stats(s->buffer, &stats);
	(void)cdc_id_format(&first, id);
	(void)cdc_instant_format(us, when);
	(void)snprintf(
		ret_answer, size, "its records are sent again from %s on, committed %s%s", id, when,
		cdc_id_cmp(&found->id, &stats.first_id) < 0 ? "; the buffer holds nothing older"
							    : "");
	return CDC_OK;
}

/* The group first, so that the buffer keeps the records; whatever fails then, it may let them go
 * again, and the sync goes on where it was: at d->begin in either case. */
static enum cdc_code go_back(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	struct cdc_stream_position now = cdc_window_position(d->stream.input), found;
	const struct cdc_position durable = {.n = 1, .streams = &d->handed.stream};
	struct cdc_id reached = cdc_id_cmp(&d->reached, &now.id) > 0 ? d->reached : now.id;
	char answer[sizeof(d->replay.answer)];
	struct cdc_start to;
	enum cdc_code rc;

	d->begin_stream = now;
	d->begin = (struct cdc_cursor){.streams = &d->begin_stream, .stream_n = 1};
	(void)snprintf(d->begin.sync, sizeof(d->begin.sync), "%s", s->sync);
	if (!cdc_replay_parse(d->replay.argument, &to))
		return cdc_err_set(err, CDC_CONFIG, "%s is neither an id nor a time",
				   d->replay.argument);
	/* A transaction that goes out as a whole, from its first record on. */
	if (s->settings->group == CDC_GROUP_TRANSACTION && to.id.ordinal != UINT32_MAX)
		to.id.ordinal = to.id.part = 0;
	rc = s->ops->seek(s->buffer, s->sync, &to, &found, err);
	if (rc)
		return rc;
	rc = judge_replay(d, &found, answer, sizeof(answer), err);
	d->begin_stream = found;
	if (!rc)
		rc = cdc_store_replay(s->store, &d->begin, &reached, d->replay.id, answer, err);
	if (!rc)
		return CDC_OK;
	d->begin_stream = now;
	if (!d->ticket) /* else the next checkpoint does it */
		s->ops->commit(s->buffer, s->sync, &durable);
	return rc;
}

static enum cdc_code make_anew(struct cdc_deliver *d, const struct cdc_cursor *cursor,
			       struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;
	unsigned attempt = 0;

	d->setup.cursor = cursor;
	do {
		if (rc)
			wait_out(d, err, ++attempt);
		unmake(d);
		rc = make(d, err);
	} while (rc && cdc_code_class(rc) == CDC_CLASS_RETRY && !cdc_stop_is_set(d->setup.stop));
	if (!rc && attempt)
		post(d, CDC_STATE_RUNNING, NULL);
	return rc;
}

/* Like a restart of the sync with an older cursor.  An error: it cannot go on. */
static enum cdc_code replay(struct cdc_deliver *d, struct cdc_err *err)
{
	bool is_copying = d->round && !cdc_round_is_idle(d->round);
	bool is_refused = is_copying || !cdc_stopped_is_empty(d->stopped);
	struct cdc_err why = {0}, unheard = {0};
	enum cdc_code rc;

	if (!cdc_stopped_is_empty(d->stopped)) {
		rc = cdc_err_set(
			&why, CDC_BUSY,
			"a table of it has stopped; bring it back first: walpost resume %s",
			d->setup.sync);
	} else if (is_copying) {
		rc = cdc_err_set(&why, CDC_BUSY,
				 "its tables are being copied; ask again when that is done, or "
				 "use `walpost backfill pause %s` first",
				 d->setup.sync);
	} else {
		finish(d, false);
		rc = go_back(d, &why);
	}
	/* What cannot be answered now is asked again by the next start. */
	if (rc && rc != CDC_STOPPED &&
	    cdc_store_command_end(d->setup.store, d->replay.id, CDC_COMMAND_REFUSED, why.msg,
				  &unheard))
		LOG_WARN(&d->setup.log, "command_waits", KV("sync", d->setup.sync),
			 KV_ERR(&unheard));
	if (rc)
		LOG_WARN(&d->setup.log, "replay_refused", KV("sync", d->setup.sync),
			 KV("since", (const char *)d->replay.argument), KV_ERR(&why));
	else
		LOG_INFO(&d->setup.log, "replay", KV("sync", d->setup.sync),
			 KV("since", (const char *)d->replay.argument));
	atomic_store(&d->has_replay, false);
	return is_refused ? CDC_OK : make_anew(d, &d->begin, err);
}

/* --- a sync that stopped ------------------------------------------------------------- */

enum cdc_resumed cdc_deliver_resume(struct cdc_deliver *d, int64_t command)
{
	bool has_stopped = atomic_load(&d->has_stopped);
	bool has_tables = cdc_metric_get(&d->setup.metrics->stopped_tables) != 0 &&
			  atomic_load(&d->resume_command) == 0;

	if (has_tables) {
		atomic_store(&d->resume_command, has_stopped ? 0 : command);
		atomic_store(&d->is_to_resume_tables, true);
		atomic_store(&d->is_told, true);
	}
	if (has_stopped)
		atomic_store(&d->is_to_resume, true);
	cdc_event_signal(d->pause_fd);
	return has_stopped  ? CDC_RESUMED_SYNC
	       : has_tables ? CDC_RESUMED_TABLES
			    : CDC_RESUMED_NOTHING;
}

static void note_stopped(struct cdc_deliver *d, enum cdc_code rc, const struct cdc_err *err)
{
	atomic_store(&d->is_to_resume, false);
	post(d, rc == CDC_GAP ? CDC_STATE_SUSPENDED : CDC_STATE_FAILED, err);
	LOG_ERROR(&d->setup.log, rc == CDC_GAP ? "sync_suspended" : "sync_failed",
		  KV("sync", d->setup.sync), KV_ERR(err));
	atomic_store(&d->has_stopped, true);
}

/* Until main says so.  False: walpost stops. */
static bool wait_for_resume(struct cdc_deliver *d)
{
	struct pollfd fds[] = {{.fd = d->pause_fd, .events = POLLIN},
			       {.fd = d->setup.stop->fd, .events = POLLIN}};

	while (!atomic_load(&d->is_to_resume)) {
		if (cdc_stop_is_set(d->setup.stop))
			return false;
		cdc_board_beat(d->setup.board, cdc_clock_mono_ms());
		(void)poll(fds, 2, TURN_MS);
		(void)cdc_event_drain(d->pause_fd);
	}
	return true;
}

/* Like a start of walpost, as far as this sync goes. */
static enum cdc_code begin_again(struct cdc_deliver *d, struct cdc_err *err)
{
	enum cdc_code rc;

	LOG_INFO(&d->setup.log, "sync_begins_again", KV("sync", d->setup.sync));
	cdc_cursor_clear(&d->stored);
	d->stored = (struct cdc_cursor){0};
	rc = cdc_store_cursor_get(d->setup.store, d->setup.sync, &d->stored, err);
	if (!rc)
		rc = make_anew(d, &d->stored, err);
	/* What was said meanwhile was heard by nobody. */
	atomic_store(&d->is_told, true);
	d->is_paused = atomic_load(&d->is_to_pause);
	if (!rc)
		post(d, CDC_STATE_RUNNING, NULL);
	atomic_store(&d->has_stopped, false);
	return rc;
}

/* --- the thread --------------------------------------------------------------------- */

/* Until the stop flag is set, or the sync stops with an error. */
static enum cdc_code deliver(struct cdc_deliver *d, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;
	uint64_t wait_ms = 0;
	unsigned attempt = 0;

	while (!cdc_stop_is_set(d->setup.stop)) {
		uint64_t now_ms = cdc_clock_mono_ms();

		cdc_board_beat(d->setup.board, now_ms);
		if (atomic_load_explicit(&d->has_replay, memory_order_acquire)) {
			rc = replay(d, err);
			if (rc)
				return rc;
			now_ms = cdc_clock_mono_ms();
			wait_ms = 0;
		}
		rc = cdc_deliver_step(d, now_ms, cdc_clock_wall_us(), wait_ms, cdc_backoff_random(),
				      &wait_ms, err);
		if (!rc) {
			if (attempt && cdc_lanes_breaker(d->lanes)->state == CDC_BREAKER_CLOSED)
				post(d, CDC_STATE_RUNNING, NULL);
			attempt = 0;
		} else if (cdc_code_class(rc) == CDC_CLASS_RETRY) {
			wait_out(d, err, ++attempt);
			wait_ms = 0;
		} else {
			return rc;
		}
	}
	return CDC_OK;
}

void cdc_deliver_run(struct cdc_deliver *d)
{
	struct cdc_err err = {0};
	enum cdc_code rc = CDC_OK;

	post(d, CDC_STATE_RUNNING, NULL);
	for (;;) {
		if (!rc)
			rc = deliver(d, &err);
		if (cdc_stop_is_set(d->setup.stop) && cdc_code_class(rc) == CDC_CLASS_RETRY)
			rc = CDC_OK;
		finish(d, rc != CDC_OK);
		if (!rc)
			break;
		note_stopped(d, rc, &err);
		if (!wait_for_resume(d))
			return;
		err = (struct cdc_err){0};
		rc = begin_again(d, &err);
	}
	post(d, CDC_STATE_ENDED, NULL);
}
