#include "cdc/pipeline/deliver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/pipeline/backoff.h"
#include "cdc/pipeline/breaker.h"
#include "cdc/pipeline/intake.h"
#include "cdc/pipeline/flow.h"
#include "cdc/pipeline/round.h"
#include "cdc/pipeline/trouble.h"

#define WINDOW_BYTES          (8u << 20)
#define RESULTS_PER_STEP      64
#define CHECKPOINT_MS         200  /* after deliveries */
#define CHECKPOINT_IDLE_MS    5000 /* when the reader only skipped */
#define TICKET_MS             20   /* looks whether a checkpoint became durable */
#define BISECT_RETRY_FAILURES 3    /* of a batch that fails with 5xx while others are accepted */
#define TURN_MS               1000 /* longest wait: the heartbeat */
#define STOP_MS               8000 /* for requests in flight */
#define FINISH_TURN_MS        20

/* A lane has at most one request in flight. */
struct lane {
	struct cdc_item **items; /* of the request in flight, or the last one */
	size_t n, cap;
	bool is_in_flight, is_probe;
	uint64_t begun;     /* counter at its beginning */
	unsigned attempt;   /* failures since something of this lane was accepted */
	uint64_t until_ms;  /* backoff: nothing goes out before */
	uint64_t asked_ms;  /* the same, as the endpoint asked */
	uint64_t since_ms;  /* linger: the run waits since; 0: not */
	uint64_t failed_at; /* counter at the last failure */
	size_t suspects;    /* so many records at its head were refused together: halve them */
	struct cdc_suspect alone; /* the record at its head, sent alone */
};

/* What a checkpoint says. */
struct mark {
	struct cdc_stream_position stream;
	bool has_tables;
	struct cdc_id tables; /* how far those that are held have come */
	unsigned round;       /* version of the round */
};

struct cdc_deliver {
	struct cdc_deliver_setup setup;
	struct cdc_window *window;
	struct cdc_selector *selector; /* NULL: none is needed */
	struct lane *lanes;
	size_t lane_n;    /* those of held tables included */
	bool *is_suspect; /* by lane; for choosing a probe */
	struct cdc_view *views;
	size_t view_cap;

	void *sink; /* state */
	bool is_open;
	struct cdc_intake stream;
	struct cdc_round *round; /* NULL: the sync has no backfill */
	int wake_fd;             /* epoll over the readers' events and the stop flag */

	uint64_t counter;        /* begins and failures of requests, numbered */
	uint64_t accepted_begun; /* beginning of the latest accepted one */
	size_t in_flight;
	struct cdc_flow flow;
	size_t turn; /* the lane that is looked at first, so that none is always last */
	bool is_finishing;
	_Atomic bool is_to_pause, is_told; /* set by others, who wake by pause_fd */
	bool is_paused;
	int pause_fd;
	struct cdc_breaker breaker;
	char told[sizeof(((struct sink_result *)0)->text)]; /* why it opened last */
	uint64_t hold_ms;                                   /* 429: nothing goes out before */
	struct cdc_id probed; /* the last probe that failed; zero: none since it opened */

	struct mark handed; /* the last checkpoint given to the store, */
	uint64_t ticket;    /* its ticket while not known to be durable, */
	uint64_t handed_ms; /* and when */
	bool has_delivered; /* since then */
};

/* --- life --------------------------------------------------------------------------- */

static struct mark mark_of(const struct cdc_deliver *d)
{
	struct mark m = {.stream = cdc_window_position(d->stream.input)};

	if (d->round) {
		size_t n;
		const struct cdc_cursor_table *tables = cdc_round_tables(d->round, &n);

		m.has_tables = n != 0;
		if (n)
			m.tables = tables[0].id;
		m.round = cdc_round_version(d->round);
	}
	return m;
}

static enum cdc_code make_selector(struct cdc_deliver *d, struct cdc_err *err)
{
	const struct cdc_deliver_setup *s = &d->setup;
	enum cdc_code rc;

	if (!s->selection)
		return CDC_OK;
	rc = cdc_selector_new(s->selection, s->settings->operations, &d->selector, err);
	if (!rc)
		cdc_window_select(d->window, d->selector);
	return rc;
}

static void init_flow(struct cdc_deliver *d)
{
	const struct cdc_deliver_settings *s = d->setup.settings;
	const struct cdc_flow_settings flow = {
		.requests_per_second = s->rate_limit.requests_per_second,
		.records_per_second = s->rate_limit.records_per_second,
		.min = s->concurrency_min,
		.max = s->concurrency_min ? s->concurrency : d->lane_n,
	};

	cdc_flow_init(&d->flow, &flow, cdc_clock_mono_ms());
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
	enum cdc_code rc = cdc_intake_init(&d->stream, &intake, d->window, CDC_INPUT_STREAM,
					   s->cursor->streams[0], err);

	round.stream = d->stream.input;
	if (!rc && s->backfill)
		rc = cdc_round_new(&round, s->cursor, &d->round, err);
	return rc;
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
	d->window =
		cdc_window_new(setup->settings->concurrency, setup->backfill != NULL,
			       (enum cdc_order)setup->settings->order, setup->settings->operations);
	if (d->window) {
		d->lane_n = cdc_window_lanes(d->window);
		d->lanes = calloc(d->lane_n, sizeof(*d->lanes));
		d->is_suspect = calloc(d->lane_n, sizeof(*d->is_suspect));
	}
	if (d->pause_fd < 0)
		rc = cdc_err_set(err, CDC_IO, "no more file descriptors");
	else if (d->lanes && d->is_suspect)
		rc = make_selector(d, err);
	else
		rc = cdc_err_set(err, CDC_NOMEM, "out of memory");
	if (!rc)
		rc = make_inputs(d, err);
	if (rc) {
		cdc_deliver_free(d);
		return rc;
	}
	init_flow(d);
	d->handed = mark_of(d);
	*ret = d;
	return CDC_OK;
}

static void close_outside(struct cdc_deliver *d)
{
	d->setup.sink->close(d->sink);
	d->sink = NULL;
	cdc_intake_close(&d->stream);
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
	for (size_t i = 0; d->lanes && i < d->lane_n; i++)
		free(d->lanes[i].items);
	free(d->lanes);
	free(d->is_suspect);
	free(d->views);
	cdc_round_free(d->round);
	cdc_intake_clear(&d->stream, true);
	cdc_window_free(d->window);
	cdc_selector_free(d->selector);
	free(d);
}

static enum cdc_code watch(struct cdc_deliver *d, int fd, struct cdc_err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

	if (epoll_ctl(d->wake_fd, EPOLL_CTL_ADD, fd, &event))
		return cdc_err_set(err, CDC_IO, "epoll_ctl: %s", strerror(errno));
	return CDC_OK;
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
		.concurrency = d->lane_n,
	};
	enum cdc_code rc;

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

static void count_accepted(struct cdc_deliver *d, const struct lane *lane, int64_t wall_us)
{
	struct cdc_sync_metrics *m = d->setup.metrics;
	uint64_t newest = cdc_metric_get(&m->delivered_commit_us);

	cdc_metric_add(&m->delivered, lane->n);
	for (size_t i = 0, k; i < lane->n; i = k) {
		int64_t commit_us = lane->items[i]->rec->commit_us;

		for (k = i + 1; k < lane->n && lane->items[k]->rec->commit_us == commit_us;)
			k++;
		if (commit_us <= 0)
			continue;
		cdc_histogram_add(&m->latency,
				  wall_us > commit_us ? (uint64_t)(wall_us - commit_us) : 0, k - i);
		if ((uint64_t)commit_us > newest)
			newest = (uint64_t)commit_us;
	}
	cdc_metric_set(&m->delivered_commit_us, newest);
}

static void recovered(struct cdc_deliver *d)
{
	for (size_t i = 0; i < d->lane_n; i++)
		d->lanes[i].until_ms = 0;
	d->probed = (struct cdc_id){0};
	LOG_INFO(&d->setup.log, "endpoint_recovered", KV("sync", d->setup.sync),
		 KV("waiting_records", cdc_window_records(d->window)));
	post(d, CDC_STATE_RUNNING, NULL);
}

static void accept_job(struct cdc_deliver *d, struct lane *lane, size_t index, int64_t wall_us)
{
	bool had_head = lane->items[0] == cdc_window_head(d->window, index);

	if (d->accepted_begun < lane->begun)
		d->accepted_begun = lane->begun;
	count_accepted(d, lane, wall_us);
	for (size_t i = 0; i < lane->n; i++)
		cdc_window_done(d->window, lane->items[i]);
	if (had_head) {
		lane->alone = (struct cdc_suspect){0};
		lane->suspects -= lane->n < lane->suspects ? lane->n : lane->suspects;
	}
	lane->attempt = 0;
	lane->until_ms = lane->asked_ms = 0;
	d->has_delivered = true;
	if (cdc_breaker_accept(&d->breaker))
		recovered(d);
}

static enum cdc_code in_trouble(const struct cdc_item *item, const char *text, struct cdc_err *err)
{
	struct cdc_view view = cdc_item_view(item);
	size_t len;
	const char *table = cdc_view_table(view, &len);
	char id[CDC_ID_TEXT];

	(void)cdc_id_format(&item->rec->id, id);
	(void)cdc_err_set(err, CDC_TROUBLE,
			  "record %s of %.*s is refused (%s) while the endpoint accepts others; "
			  "the sync stops before it and skips nothing",
			  id, (int)len, table, text);
	return cdc_err_remedy(err,
			      "make the endpoint accept this record, then start walpost again");
}

/* Halving finds the one record that is refused.  A refusal may be about any record of the request;
 * a 5xx only is when the same request keeps failing while others are accepted. */
static bool must_halve(const struct cdc_deliver *d, const struct lane *lane,
		       const struct sink_result *r)
{
	if (lane->n < 2 || r->is_never_record)
		return false;
	if (r->outcome == SINK_REJECT)
		return true;
	return lane->attempt >= BISECT_RETRY_FAILURES && d->accepted_begun > lane->failed_at;
}

static void note_opened(struct cdc_deliver *d, const struct sink_result *r, uint64_t now_ms)
{
	const char *reason = r ? r->text : "no answer";
	struct cdc_err why = {0};

	(void)cdc_err_set(&why, CDC_IO,
			  "the endpoint accepts nothing (%s); %zu records wait, nothing is lost",
			  reason, cdc_window_records(d->window));
	post(d, CDC_STATE_WAITING, &why);
	/* Another reason is news: it may be the first attempt to mend the one before. */
	if (cdc_log_is_due(d->breaker.openings) || strcmp(d->told, reason) != 0)
		LOG_WARN(&d->setup.log, "endpoint_trouble", KV("sync", d->setup.sync),
			 KV("status", r ? r->status : 0), KV("failures", d->breaker.failures),
			 KV("next_probe_ms", d->breaker.until_ms - now_ms), KV_ERR(&why));
	(void)snprintf(d->told, sizeof(d->told), "%s", reason);
}

static enum cdc_code fail_job(struct cdc_deliver *d, struct lane *lane, size_t index,
			      const struct sink_result *r, uint64_t now_ms, uint64_t random,
			      struct cdc_err *err)
{
	bool is_head = lane->items[0] == cdc_window_head(d->window, index);
	uint64_t asked = r->retry_after_ms == SINK_NO_RETRY_AFTER ? 0 : r->retry_after_ms;
	uint64_t at = ++d->counter;

	if (asked > CDC_RETRY_AFTER_CAP)
		asked = CDC_RETRY_AFTER_CAP;
	cdc_metric_add(&d->setup.metrics->failed, 1);
	if (lane->n == 1 && is_head &&
	    cdc_suspect_fail(&lane->alone, r, at, d->accepted_begun,
			     d->setup.settings->order == CDC_ORDER_SYNC, now_ms))
		return in_trouble(lane->items[0], r->text, err);
	lane->attempt++;
	lane->until_ms = now_ms + cdc_backoff_ms(lane->attempt, random);
	if (must_halve(d, lane, r)) {
		lane->suspects = lane->n;
		lane->until_ms = now_ms;
	}
	lane->failed_at = at;
	if (asked)
		lane->asked_ms = now_ms + asked;
	if (asked && r->status == 429 && d->hold_ms < lane->asked_ms)
		d->hold_ms = lane->asked_ms;
	if (lane->is_probe)
		d->probed = lane->items[0]->rec->id;
	if (cdc_breaker_fail(&d->breaker, lane->is_probe, asked, now_ms, random))
		note_opened(d, r, now_ms);
	else if (d->breaker.state == CDC_BREAKER_CLOSED && cdc_log_is_due(lane->attempt))
		LOG_WARN(&d->setup.log, "request_failed", KV("sync", d->setup.sync),
			 KV("attempt", lane->attempt), KV("status", r->status),
			 KV("records", lane->n), KV("reason", (const char *)r->text));
	return CDC_OK;
}

static enum cdc_code take_result(struct cdc_deliver *d, const struct sink_result *r,
				 uint64_t now_ms, int64_t wall_us, uint64_t random,
				 struct cdc_err *err)
{
	struct lane *lane = &d->lanes[r->ticket];
	struct cdc_sync_metrics *m = d->setup.metrics;

	cdc_flow_ended(&d->flow, r, d->in_flight, now_ms);
	lane->is_in_flight = false;
	d->in_flight--;
	cdc_metric_add(&m->requests, 1);
	cdc_metric_add(&m->request_bytes, r->sent_bytes);
	cdc_histogram_add(&m->request, r->took_us, 1);
	switch (r->outcome) {
	case SINK_DONE:
		accept_job(d, lane, r->ticket, wall_us);
		return CDC_OK;
	case SINK_RETRY:
	case SINK_REJECT:
		return fail_job(d, lane, r->ticket, r, now_ms, random, err);
	case SINK_STOP:
		cdc_metric_add(&m->failed, 1);
		(void)cdc_err_set(err, CDC_REJECTED,
				  "the endpoint asks for no more requests (%s); the sync stops and "
				  "skips nothing",
				  r->text);
		return cdc_err_remedy(err, "correct the url of the destination, or remove the "
					   "sync, then start walpost again");
	}
	CDC_ASSERT(false);
	return CDC_OK;
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
	return rc;
}

/* --- sending ------------------------------------------------------------------------ */

static bool reserve(struct cdc_deliver *d, struct lane *lane, size_t max)
{
	if (lane->cap < max) {
		struct cdc_item **grown = reallocarray(lane->items, max, sizeof(struct cdc_item *));

		if (!grown)
			return false;
		lane->items = grown;
		lane->cap = max;
	}
	if (d->view_cap < max) {
		struct cdc_view *grown = reallocarray(d->views, max, sizeof(*grown));

		if (!grown)
			return false;
		d->views = grown;
		d->view_cap = max;
	}
	return true;
}

/* Submits lane->items[0..n). */
static enum cdc_code submit(struct cdc_deliver *d, struct lane *lane, bool is_probe,
			    struct cdc_err *err)
{
	struct sink_job job = {.ticket = (uint64_t)(lane - d->lanes), .views = d->views};
	enum cdc_code rc;

	for (size_t i = 0; i < lane->n; i++) {
		d->views[i] = cdc_item_view(lane->items[i]);
		job.is_repeat |= lane->items[i]->was_sent;
	}
	job.n = lane->n;
	rc = d->setup.sink->submit(d->sink, &job, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < lane->n; i++)
		cdc_window_sent(lane->items[i]);
	if (job.is_repeat)
		cdc_metric_add(&d->setup.metrics->retried, 1);
	lane->is_in_flight = true;
	lane->is_probe = is_probe;
	lane->begun = ++d->counter;
	lane->since_ms = 0;
	d->in_flight++;
	return CDC_OK;
}

/* A run that is not full may wait for more. */
static bool must_linger(const struct cdc_deliver *d, struct lane *lane, bool has_more,
			uint64_t now_ms)
{
	if (!d->setup.settings->linger_ms || d->is_finishing || has_more || lane->attempt ||
	    lane->suspects)
		return false;
	if (!lane->since_ms)
		lane->since_ms = now_ms;
	return now_ms < lane->since_ms + d->setup.settings->linger_ms;
}

static uint64_t lane_due_ms(const struct cdc_deliver *d, const struct lane *lane)
{
	uint64_t due = lane->until_ms > lane->asked_ms ? lane->until_ms : lane->asked_ms;

	return due > d->hold_ms ? due : d->hold_ms;
}

static enum cdc_code send_lane(struct cdc_deliver *d, size_t index, uint64_t now_ms,
			       struct cdc_err *err)
{
	struct lane *lane = &d->lanes[index];
	const struct cdc_deliver_settings *s = d->setup.settings;
	enum cdc_code rc = CDC_LIMIT;

	while (rc == CDC_LIMIT) {
		size_t max = lane->suspects ? (lane->suspects + 1) / 2 : s->batch_size;
		bool has_more;

		if (!reserve(d, lane, max))
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
		lane->n = cdc_window_run(d->window, index, max, s->batch_bytes, lane->items,
					 &has_more);
		if (lane->n == 0 || must_linger(d, lane, has_more, now_ms))
			return CDC_OK;
		rc = submit(d, lane, false, err);
		if (!rc)
			cdc_flow_started(&d->flow, lane->n, now_ms);
		if (rc == CDC_LIMIT && lane->n == 1)
			return in_trouble(lane->items[0], err->msg, err);
		lane->suspects = rc == CDC_LIMIT ? lane->n : lane->suspects;
	}
	return rc;
}

static struct cdc_item *choose_probe(struct cdc_deliver *d)
{
	struct cdc_item *item;

	if (d->setup.settings->order == CDC_ORDER_SYNC)
		return cdc_window_head(d->window, 0);
	if (!cdc_id_is_zero(&d->probed)) {
		/* Each probe takes another record, so one that is refused hides no other. */
		item = cdc_window_probe(d->window, &d->probed, d->is_suspect);
		if (item)
			return item;
	}
	for (size_t i = 0; i < d->lane_n; i++)
		d->is_suspect[i] = d->lanes[i].alone.failures != 0;
	item = cdc_window_probe(d->window, NULL, d->is_suspect);
	return item ? item : cdc_window_probe(d->window, &(struct cdc_id){0}, d->is_suspect);
}

static enum cdc_code send_probe(struct cdc_deliver *d, uint64_t now_ms, struct cdc_err *err)
{
	struct cdc_item *item = choose_probe(d);
	struct lane *lane;
	enum cdc_code rc;

	if (!item)
		return CDC_OK;
	lane = &d->lanes[item->lane];
	if (!reserve(d, lane, 1))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	lane->items[0] = item;
	lane->n = 1;
	rc = submit(d, lane, true, err);
	if (rc == CDC_LIMIT)
		return in_trouble(item, err->msg, err);
	if (rc)
		return rc;
	cdc_flow_started(&d->flow, 1, now_ms);
	cdc_breaker_probe(&d->breaker);
	return CDC_OK;
}

static enum cdc_code send_all(struct cdc_deliver *d, uint64_t now_ms, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (d->breaker.state != CDC_BREAKER_CLOSED) {
		if (!d->in_flight && now_ms >= d->hold_ms &&
		    cdc_flow_may_start(&d->flow, 0, now_ms) &&
		    cdc_breaker_may_probe(&d->breaker, now_ms))
			rc = send_probe(d, now_ms, err);
		return rc;
	}
	for (size_t i = 0; !rc && i < d->lane_n; i++) {
		size_t at = (d->turn + i) % d->lane_n;

		if (!cdc_flow_may_start(&d->flow, d->in_flight, now_ms)) {
			d->turn = at;
			break;
		}
		if (!d->lanes[at].is_in_flight && now_ms >= lane_due_ms(d, &d->lanes[at]) &&
		    cdc_window_head(d->window, at))
			rc = send_lane(d, at, now_ms, err);
	}
	return rc;
}

/* --- checkpoints -------------------------------------------------------------------- */

/* The tables' rows are valid until the next step. */
static struct cdc_cursor cursor_of(const struct cdc_deliver *d, struct mark *m)
{
	struct cdc_cursor c = {.streams = &m->stream, .stream_n = 1};

	(void)snprintf(c.sync, sizeof(c.sync), "%s", d->setup.sync);
	if (d->round)
		c.tables = cdc_round_tables(d->round, &c.table_n);
	return c;
}

static bool is_same(const struct mark *a, const struct mark *b)
{
	return cdc_id_cmp(&a->stream.id, &b->stream.id) == 0 &&
	       cdc_id_cmp(&a->tables, &b->tables) == 0 && a->round == b->round;
}

/* The store has it: the buffer may let go of what lies before the stream and the held tables. */
static void commit(struct cdc_deliver *d)
{
	struct cdc_stream_position low = d->handed.stream;
	const struct cdc_position position = {.n = 1, .streams = &low};

	if (d->handed.has_tables && cdc_id_cmp(&d->handed.tables, &low.id) < 0)
		low.id = d->handed.tables;
	d->ticket = 0;
	d->setup.ops->commit(d->setup.buffer, d->setup.sync, &position);
	if (d->round)
		cdc_round_written(d->round, d->handed.round);
}

/* One checkpoint at a time is on its way, so that what is handed over is what becomes durable. */
static void checkpoint(struct cdc_deliver *d, uint64_t now_ms)
{
	struct mark m;
	struct cdc_cursor cursor;
	bool is_urgent = d->round && cdc_round_version(d->round) != d->handed.round;

	if (d->ticket && cdc_store_checkpointed(d->setup.store) >= d->ticket)
		commit(d);
	if (d->ticket ||
	    (!is_urgent &&
	     now_ms - d->handed_ms < (d->has_delivered ? CHECKPOINT_MS : CHECKPOINT_IDLE_MS)))
		return;
	m = mark_of(d);
	d->handed_ms = now_ms;
	d->has_delivered = false;
	if (is_same(&m, &d->handed))
		return;
	d->handed = m;
	cursor = cursor_of(d, &m);
	d->ticket = cdc_store_checkpoint(d->setup.store, &cursor);
	if (!d->ticket)
		d->has_delivered = true; /* no memory: the next turn tries again */
}

static void last_checkpoint(struct cdc_deliver *d)
{
	struct mark m = mark_of(d);
	struct cdc_cursor cursor = cursor_of(d, &m);
	struct cdc_err err = {0};

	if (is_same(&m, &d->handed) && !d->ticket)
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

static void show(struct cdc_deliver *d)
{
	struct cdc_sync_metrics *m = d->setup.metrics;
	int64_t oldest_us = cdc_window_oldest_us(d->window);

	cdc_metric_set(&m->in_flight, d->in_flight);
	cdc_metric_set(&m->limit, cdc_throttle_limit(&d->flow.throttle));
	cdc_metric_set(&m->window, cdc_window_records(d->window));
	cdc_metric_set(&m->breaker, d->breaker.state);
	cdc_metric_set(&m->oldest_us, oldest_us > 0 ? (uint64_t)oldest_us : 0);
	cdc_metric_set(&m->is_behind, d->stream.may_read);
}

static uint64_t sooner(uint64_t wait_ms, uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms <= now_ms)
		return 0;
	return at_ms - now_ms < wait_ms ? at_ms - now_ms : wait_ms;
}

static uint64_t next_wait_ms(const struct cdc_deliver *d, uint64_t now_ms)
{
	uint64_t wait_ms = TURN_MS;

	if (cdc_intake_is_ready(&d->stream))
		return 0;
	if (d->round)
		wait_ms = cdc_round_wait_ms(d->round, wait_ms);
	if (d->ticket)
		wait_ms = sooner(wait_ms, now_ms + TICKET_MS, now_ms);
	else if (d->has_delivered)
		wait_ms = sooner(wait_ms, d->handed_ms + CHECKPOINT_MS, now_ms);
	if (cdc_window_records(d->window) == 0 || d->is_paused)
		return wait_ms;
	if (d->breaker.state != CDC_BREAKER_CLOSED) {
		uint64_t probe_ms = cdc_breaker_next_ms(&d->breaker);

		if (probe_ms < d->flow.free_ms)
			probe_ms = d->flow.free_ms;
		return d->in_flight ? wait_ms
				    : sooner(wait_ms, probe_ms > d->hold_ms ? probe_ms : d->hold_ms,
					     now_ms);
	}
	wait_ms = sooner(wait_ms, cdc_breaker_next_ms(&d->breaker), now_ms);
	if (d->flow.free_ms > now_ms)
		wait_ms = sooner(wait_ms, d->flow.free_ms, now_ms);
	for (size_t i = 0; i < d->lane_n; i++) {
		const struct lane *lane = &d->lanes[i];
		uint64_t due = lane_due_ms(d, lane);

		if (lane->is_in_flight || !cdc_window_head(d->window, i))
			continue;
		if (due > now_ms)
			wait_ms = sooner(wait_ms, due, now_ms);
		else if (lane->since_ms)
			wait_ms = sooner(wait_ms, lane->since_ms + d->setup.settings->linger_ms,
					 now_ms);
	}
	return wait_ms;
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
	is_paused = atomic_load(&d->is_to_pause);
	if (is_paused == d->is_paused)
		return;
	d->is_paused = is_paused;
	post(d, CDC_STATE_RUNNING, NULL);
	LOG_INFO(&d->setup.log, is_paused ? "sync_paused" : "sync_resumed",
		 KV("sync", d->setup.sync), KV("in_flight", d->in_flight));
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
	if (wait_ms)
		now_ms = cdc_clock_mono_ms();
	look_for_pause(d);
	if (!d->is_paused && cdc_breaker_tick(&d->breaker, now_ms, random))
		note_opened(d, NULL, now_ms);
	cdc_intake_give_back(&d->stream);
	rc = cdc_intake_read(&d->stream, err);
	if (!rc && d->round)
		rc = cdc_round_step(d->round, err);
	if (!rc && !d->is_paused)
		rc = send_all(d, now_ms, err);
	checkpoint(d, now_ms);
	show(d);
	*ret_wait_ms = next_wait_ms(d, now_ms);
	return rc;
}

/* --- the thread --------------------------------------------------------------------- */

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
	d->is_finishing = true;
	cdc_window_close(d->window);
	while (now_ms < end_ms) {
		bool goes_on = !is_ended && !d->is_paused &&
			       d->breaker.state == CDC_BREAKER_CLOSED &&
			       cdc_window_has_gaps(d->window);

		if (goes_on && send_all(d, now_ms, &unheard))
			is_ended = true;
		if (!d->in_flight && !goes_on)
			break;
		if (take_results(d, now_ms, cdc_clock_wall_us(), FINISH_TURN_MS,
				 cdc_backoff_random(), &unheard))
			is_ended = true;
		now_ms = cdc_clock_mono_ms();
		cdc_board_beat(d->setup.board, now_ms);
	}
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

void cdc_deliver_run(struct cdc_deliver *d)
{
	struct cdc_err err = {0};
	enum cdc_code rc = CDC_OK;
	uint64_t wait_ms = 0;
	unsigned attempt = 0;

	post(d, CDC_STATE_RUNNING, NULL);
	while (!cdc_stop_is_set(d->setup.stop)) {
		uint64_t now_ms = cdc_clock_mono_ms();

		cdc_board_beat(d->setup.board, now_ms);
		rc = cdc_deliver_step(d, now_ms, cdc_clock_wall_us(), wait_ms, cdc_backoff_random(),
				      &wait_ms, &err);
		if (!rc) {
			if (attempt && d->breaker.state == CDC_BREAKER_CLOSED)
				post(d, CDC_STATE_RUNNING, NULL);
			attempt = 0;
		} else if (cdc_code_class(rc) == CDC_CLASS_RETRY) {
			wait_out(d, &err, ++attempt);
			wait_ms = 0;
		} else {
			break;
		}
	}
	finish(d, rc && cdc_code_class(rc) != CDC_CLASS_RETRY);
	if (rc && cdc_code_class(rc) != CDC_CLASS_RETRY) {
		post(d, rc == CDC_GAP ? CDC_STATE_SUSPENDED : CDC_STATE_FAILED, &err);
		LOG_ERROR(&d->setup.log, rc == CDC_GAP ? "sync_suspended" : "sync_failed",
			  KV("sync", d->setup.sync), KV_ERR(&err));
	} else {
		post(d, CDC_STATE_ENDED, NULL);
	}
}
