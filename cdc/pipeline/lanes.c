#include "cdc/pipeline/lanes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/pipeline/backoff.h"
#include "cdc/pipeline/flow.h"
#include "cdc/pipeline/trouble.h"

#define BISECT_RETRY_FAILURES 3    /* of a batch that fails with 5xx while others are accepted */
#define COMPARISONS_MAX       8    /* with other records, before a refusal counts as a failure */
#define REFUSALS_TOLD_MS      1000 /* in the log no more often than that */
#define LEARNED_MIN           1024 /* bytes: a batch is not made smaller for its size alone */

/* A lane has at most one request in flight. */
struct lane {
	struct cdc_item **items; /* of the request in flight, or the last one */
	size_t n, cap;
	size_t bytes; /* JSON of it */
	bool is_in_flight, is_probe;
	bool is_beside;     /* the request has nothing of the head's key, which waits */
	bool beside_rests;  /* such a request failed: none before the head is tried again, */
	size_t beside_most; /* and then with no more records; 0: as many as may be */
	uint64_t begun;     /* counter at its beginning */
	unsigned attempt;   /* failures since something of this lane was accepted */
	uint64_t until_ms;  /* backoff: nothing goes out before */
	uint64_t asked_ms;  /* the same, as the endpoint asked */
	uint64_t since_ms;  /* linger: the run waits since; 0: not */
	uint64_t failed_at; /* counter at the last failure */
	size_t suspects;    /* so many records at its head were refused together: halve them */
	size_t width;       /* most records of the next request; 0: as many as may be */
	struct cdc_suspect alone; /* the record at its head, sent alone; by whole transactions: what
				     is sent of the first */
	bool is_refused;          /* the last failure of that was a refusal */
	struct cdc_id compared;   /* the last other record that was sent to compare with it */
	unsigned comparisons;     /* since anything was accepted */
	bool is_grouped;          /* the last request was (a part of) a transaction: */
	uint64_t part;            /* this one, from 1 */
	struct cdc_id in_parts;   /* the transaction of the last part that was accepted, */
	uint64_t parts;           /* and its number */
};

struct cdc_lanes {
	struct cdc_lanes_setup setup;
	struct lane *lanes;
	size_t lane_n;    /* those of held tables included */
	bool *is_suspect; /* by lane; for choosing a probe */
	struct cdc_view *views;
	size_t view_cap;

	uint64_t counter;         /* begins and failures of requests, numbered */
	uint64_t accepted_begun;  /* beginning of the latest accepted one */
	size_t in_flight, beside; /* of the lanes, and of others (cdc_lanes_begin) */
	bool is_our_turn;         /* one of others began last */
	struct cdc_flow flow;
	size_t turn; /* the lane that is looked at first, so that none is always last */
	bool is_finishing, is_held;
	struct cdc_breaker breaker;
	char told[sizeof(((struct sink_result *)0)->text)]; /* why it opened last */
	bool has_refused;     /* some lane waits for something to be accepted, to compare with */
	uint64_t refusals_ms; /* when one was told last */
	uint64_t hold_ms;     /* 429: nothing goes out before */
	bool has_no_probe;    /* nothing in the lanes could be one, when it was looked for */
	struct cdc_id probed; /* the last probe that failed; zero: none since it opened */

	uint64_t too_large; /* JSON bytes of the smallest batch that was answered with 413; 0: none
			     */
	uint64_t fitting;   /* and of what is sent since */
};

/* --- life --------------------------------------------------------------------------- */

static void init_flow(struct cdc_lanes *l)
{
	const struct cdc_deliver_settings *s = l->setup.settings;
	const struct cdc_flow_settings flow = {
		.requests_per_second = s->rate_limit.requests_per_second,
		.records_per_second = s->rate_limit.records_per_second,
		.min = s->concurrency_min,
		.max = s->concurrency_min ? s->concurrency : l->lane_n,
	};

	cdc_flow_init(&l->flow, &flow, 0);
	cdc_metric_set(&l->setup.metrics->limit, cdc_throttle_limit(&l->flow.throttle));
}

struct cdc_lanes *cdc_lanes_new(const struct cdc_lanes_setup *setup)
{
	struct cdc_lanes *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->setup = *setup;
	l->lane_n = cdc_window_lanes(setup->window);
	l->lanes = calloc(l->lane_n, sizeof(*l->lanes));
	l->is_suspect = calloc(l->lane_n, sizeof(*l->is_suspect));
	if (!l->lanes || !l->is_suspect) {
		cdc_lanes_free(l);
		return NULL;
	}
	init_flow(l);
	return l;
}

void cdc_lanes_free(struct cdc_lanes *l)
{
	if (!l)
		return;
	for (size_t i = 0; l->lanes && i < l->lane_n; i++)
		free(l->lanes[i].items);
	free(l->lanes);
	free(l->is_suspect);
	free(l->views);
	free(l);
}

size_t cdc_lanes_n(const struct cdc_lanes *l)
{
	return l->lane_n;
}

size_t cdc_lanes_in_flight(const struct cdc_lanes *l)
{
	return l->in_flight;
}

void cdc_lanes_look(const struct cdc_lanes *l, uint64_t now_ms, struct cdc_lanes_look *ret)
{
	*ret = (struct cdc_lanes_look){
		.asked_ms = l->hold_ms > now_ms ? l->hold_ms - now_ms : 0,
		.is_rate_limited = l->flow.free_ms > now_ms,
	};
	for (size_t i = 0; i < l->lane_n; i++) {
		const struct lane *lane = &l->lanes[i];

		if (lane->is_in_flight)
			ret->records += lane->n;
		else if ((lane->until_ms > now_ms || lane->asked_ms > now_ms) &&
			 cdc_window_head(l->setup.window, i))
			ret->resting++;
	}
}

const struct cdc_breaker *cdc_lanes_breaker(const struct cdc_lanes *l)
{
	return &l->breaker;
}

void cdc_lanes_hold(struct cdc_lanes *l, bool is_held)
{
	l->is_held = is_held;
}

void cdc_lanes_finish(struct cdc_lanes *l)
{
	l->is_finishing = true;
}

/* --- the endpoint ------------------------------------------------------------------- */

static void post(struct cdc_lanes *l, enum cdc_state state, const struct cdc_err *err)
{
	cdc_board_post(l->setup.board, state, err, cdc_clock_wall_us());
}

static void recovered(struct cdc_lanes *l)
{
	for (size_t i = 0; i < l->lane_n; i++)
		l->lanes[i].until_ms = 0;
	l->probed = (struct cdc_id){0};
	LOG_INFO(&l->setup.log, "endpoint_recovered", KV("sync", l->setup.sync),
		 KV("waiting_records", cdc_window_records(l->setup.window)));
	post(l, CDC_STATE_RUNNING, NULL);
}

static uint64_t begin(struct cdc_lanes *l, bool is_probe, size_t records, uint64_t now_ms)
{
	cdc_flow_started(&l->flow, records, now_ms);
	if (is_probe)
		cdc_breaker_probe(&l->breaker);
	return ++l->counter;
}

uint64_t cdc_lanes_begin(struct cdc_lanes *l, bool is_probe, size_t records, uint64_t now_ms)
{
	l->beside++;
	l->is_our_turn = true;
	return begin(l, is_probe, records, now_ms);
}

/* Those that the limit is about.  One that is not adapted is of the lanes alone: a parked record
 * that makes the endpoint hang takes none of theirs. */
static size_t counted(const struct cdc_lanes *l)
{
	return l->in_flight + (l->setup.settings->concurrency_min ? l->beside : 0);
}

static void note_ended(struct cdc_lanes *l, const struct sink_result *r, uint64_t now_ms)
{
	cdc_flow_ended(&l->flow, r, counted(l), now_ms);
	cdc_metric_set(&l->setup.metrics->limit, cdc_throttle_limit(&l->flow.throttle));
}

void cdc_lanes_ended(struct cdc_lanes *l, const struct sink_result *r, uint64_t now_ms)
{
	note_ended(l, r, now_ms);
	l->beside--;
}

static bool may_start(const struct cdc_lanes *l, uint64_t now_ms)
{
	return cdc_flow_may_start(&l->flow, counted(l), now_ms);
}

/* What was refused before this began can be tried once more, for the proof. */
static void end_comparisons(struct cdc_lanes *l, uint64_t begun)
{
	l->has_refused = false;
	for (size_t i = 0; i < l->lane_n; i++) {
		struct lane *lane = &l->lanes[i];

		if (!lane->alone.failures || !lane->is_refused)
			continue;
		l->has_refused = true;
		lane->comparisons = 0;
		if (begun > lane->alone.failed_at)
			lane->until_ms = 0;
	}
}

void cdc_lanes_accepted(struct cdc_lanes *l, uint64_t begun)
{
	if (l->accepted_begun < begun)
		l->accepted_begun = begun;
	if (l->has_refused)
		end_comparisons(l, begun);
	if (cdc_breaker_accept(&l->breaker))
		recovered(l);
}

uint64_t cdc_lanes_accepted_begun(const struct cdc_lanes *l)
{
	return l->accepted_begun;
}

static void note_opened(struct cdc_lanes *l, const struct sink_result *r, uint64_t now_ms)
{
	const char *reason = r ? r->text : "no answer";
	bool is_ours = r && r->is_ours;
	struct cdc_err why = {0};

	(void)cdc_err_set(&why, CDC_IO, "%s (%s); %zu records wait, nothing is lost",
			  is_ours ? "no request can be made" : "the endpoint accepts nothing",
			  reason, cdc_window_records(l->setup.window));
	post(l, CDC_STATE_WAITING, &why);
	/* Another reason is news: it may be the first attempt to mend the one before. */
	if (cdc_log_is_due(l->breaker.openings) || strcmp(l->told, reason) != 0)
		LOG_WARN(&l->setup.log, is_ours ? "own_trouble" : "endpoint_trouble",
			 KV("sync", l->setup.sync), KV("status", r ? r->status : 0),
			 KV("failures", l->breaker.failures),
			 KV("next_probe_ms", l->breaker.until_ms - now_ms), KV_ERR(&why));
	(void)snprintf(l->told, sizeof(l->told), "%s", reason);
}

/* 0: it asks for nothing. */
static uint64_t asked_ms(const struct cdc_lanes *l, const struct sink_result *r)
{
	uint64_t most = l->setup.settings->retry_after_max_ms;

	if (r->retry_after_ms == SINK_NO_RETRY_AFTER)
		return 0;
	return r->retry_after_ms < most ? r->retry_after_ms : most;
}

uint64_t cdc_lanes_failed(struct cdc_lanes *l, const struct sink_result *r, bool is_probe,
			  bool is_endpoint, uint64_t now_ms, uint64_t random)
{
	uint64_t asked = asked_ms(l, r);

	l->counter++;
	cdc_metric_add(&l->setup.metrics->failed, 1);
	if (asked && r->status == 429 && l->hold_ms < now_ms + asked)
		l->hold_ms = now_ms + asked;
	if ((is_endpoint || is_probe) &&
	    cdc_breaker_fail(&l->breaker, is_probe, asked, now_ms, random))
		note_opened(l, r, now_ms);
	return l->counter;
}

void cdc_lanes_tick(struct cdc_lanes *l, uint64_t now_ms, uint64_t random)
{
	if (cdc_breaker_tick(&l->breaker, now_ms, random))
		note_opened(l, NULL, now_ms);
}

enum cdc_code cdc_lanes_is_over(const struct cdc_lanes *l, const struct sink_result *r,
				struct cdc_err *err)
{
	if (r->outcome == SINK_STOP) {
		(void)cdc_err_set(err, CDC_REJECTED,
				  "the endpoint asks for no more requests (%s); the sync stops and "
				  "skips nothing",
				  r->text);
		return CDC_REJECTED;
	}
	if (l->setup.settings->auth_errors == CDC_AUTH_STOP &&
	    (r->status == 401 || r->status == 403)) {
		(void)cdc_err_set(err, CDC_REJECTED,
				  "the endpoint refuses the credentials (%s) and auth_errors is "
				  "stop; the sync stops and skips nothing",
				  r->text);
		return CDC_REJECTED;
	}
	return CDC_OK;
}

/* --- outcomes ----------------------------------------------------------------------- */

/* Of those of the request that are not in failed. */
static void count_accepted(struct cdc_lanes *l, struct cdc_item *const *items, size_t n,
			   int64_t wall_us)
{
	struct cdc_sync_metrics *m = l->setup.metrics;
	uint64_t newest = cdc_metric_get(&m->delivered_commit_us);

	cdc_metric_add(&m->delivered, n);
	for (size_t i = 0, k; i < n; i = k) {
		int64_t commit_us = items[i]->rec->commit_us;

		for (k = i + 1; k < n && items[k]->rec->commit_us == commit_us;)
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

/* A limit that was learned is felt for: nearer and nearer to what was too large, never at it. */
static void widen(struct cdc_lanes *l, const struct lane *lane)
{
	if (l->too_large && lane->bytes + lane->bytes / 8 >= l->fitting)
		l->fitting += (l->too_large - l->fitting) / 8;
}

static void accept_job(struct cdc_lanes *l, struct lane *lane, size_t index, int64_t wall_us)
{
	bool had_head = lane->items[0] == cdc_window_head(l->setup.window, index);

	if (lane->is_beside)
		lane->beside_most = lane->beside_most * 2 < l->setup.settings->batch_size
					    ? lane->beside_most * 2
					    : 0;
	lane->in_parts = lane->items[0]->rec->id;
	lane->parts = lane->part;
	count_accepted(l, lane->items, lane->n, wall_us);
	for (size_t i = 0; i < lane->n; i++)
		cdc_window_done(l->setup.window, lane->items[i]);
	lane->width = lane->width * 2 < l->setup.settings->batch_size ? lane->width * 2 : 0;
	if (had_head) {
		lane->alone = (struct cdc_suspect){0};
		lane->suspects -= lane->n < lane->suspects ? lane->n : lane->suspects;
	}
	if (!lane->is_beside) {
		lane->attempt = 0;
		lane->until_ms = lane->asked_ms = 0;
	}
	widen(l, lane);
	cdc_lanes_accepted(l, lane->begun);
}

/* Halving finds the one record that is refused.  A refusal may be about any record of the request;
 * a 5xx only is when the same request keeps failing while others are accepted. */
static bool must_halve(const struct cdc_lanes *l, const struct lane *lane,
		       const struct sink_result *r)
{
	if (lane->n < 2 || r->is_never_record || lane->is_grouped)
		return false;
	if (r->outcome == SINK_REJECT)
		return true;
	return lane->attempt >= BISECT_RETRY_FAILURES && l->accepted_begun > lane->failed_at;
}

/* A batch that is too large is no suspicion against its records: it is made smaller, and so are all
 * that follow. */
static bool learn_size(struct cdc_lanes *l, const struct lane *lane, const struct sink_result *r)
{
	if (r->status != 413 || lane->n < 2 || lane->bytes / 2 < LEARNED_MIN)
		return false;
	if (!l->too_large || lane->bytes < l->too_large)
		l->too_large = lane->bytes;
	if (!l->fitting || lane->bytes / 2 < l->fitting)
		l->fitting = lane->bytes / 2;
	return true;
}

static struct cdc_trouble trouble_of(const struct lane *lane, const struct sink_result *r)
{
	struct cdc_trouble t = {.item = lane->items[0],
				.attempts = lane->alone.failures,
				.status = r->status,
				.response = r->response,
				.response_len = r->response_len};

	(void)snprintf(t.text, sizeof(t.text), "%s", r->text);
	return t;
}

/* The record at the head leaves the lane, whose other records have done nothing. */
static void forget_head(struct lane *lane)
{
	lane->alone = (struct cdc_suspect){0};
	lane->compared = (struct cdc_id){0};
	lane->comparisons = 0;
	lane->suspects -= lane->suspects ? 1 : 0;
	lane->attempt = 0;
	lane->until_ms = lane->asked_ms = 0;
}

static bool is_in_trouble(struct cdc_lanes *l, struct lane *lane, const struct sink_result *r,
			  uint64_t now_ms)
{
	const struct cdc_deliver_settings *s = l->setup.settings;
	const struct cdc_suspect_rule rule = {
		.at = l->counter + 1, /* this failure's */
		.accepted_begun = l->accepted_begun,
		.is_order_sync = s->order == CDC_ORDER_SYNC,
		.attempts = (unsigned)s->park.attempts,
		.after_ms = s->park.after_ms,
		.now_ms = now_ms,
	};

	return cdc_suspect_fail(&lane->alone, r, &rule);
}

/* Is it still to be found out whether the endpoint refuses just this?  Then there is no wait. */
static bool is_searching(struct cdc_lanes *l, struct lane *lane, size_t index,
			 const struct sink_result *r)
{
	if (r->outcome != SINK_REJECT || r->is_never_record || lane->is_probe || lane->is_grouped)
		return false;
	if (lane->n > 1)
		return true;
	if (l->setup.settings->order == CDC_ORDER_SYNC || l->is_finishing ||
	    ++lane->comparisons > COMPARISONS_MAX)
		return false;
	return cdc_window_other(l->setup.window, index, &lane->compared) != NULL;
}

static void tell_failure(struct cdc_lanes *l, const struct lane *lane, const struct sink_result *r,
			 bool is_search, uint64_t now_ms)
{
	bool is_refusal = r->outcome == SINK_REJECT && !r->is_never_record;

	if (l->breaker.state != CDC_BREAKER_CLOSED ||
	    (is_refusal ? l->refusals_ms && now_ms - l->refusals_ms < REFUSALS_TOLD_MS
			: !cdc_log_is_due(lane->attempt)))
		return;
	if (is_refusal)
		l->refusals_ms = now_ms;
	LOG_WARN(&l->setup.log, "request_failed", KV("sync", l->setup.sync),
		 KV("attempt", lane->attempt + is_search), KV("status", r->status),
		 KV("records", lane->n), KV("reason", (const char *)r->text));
}

/* The head's own attempts and waits go on as they were. */
static void fail_beside(struct cdc_lanes *l, struct lane *lane, const struct sink_result *r,
			uint64_t now_ms, uint64_t random)
{
	uint64_t asked = asked_ms(l, r);

	lane->beside_rests = true;
	lane->beside_most = (lane->n + 1) / 2;
	if (asked)
		lane->asked_ms = now_ms + asked;
	(void)cdc_lanes_failed(l, r, false, true, now_ms, random);
	tell_failure(l, lane, r, false, now_ms);
}

static void fail_job(struct cdc_lanes *l, struct lane *lane, size_t index,
		     const struct sink_result *r, uint64_t now_ms, uint64_t random,
		     struct cdc_trouble *ret_trouble)
{
	bool is_head = lane->items[0] == cdc_window_head(l->setup.window, index);
	uint64_t asked = asked_ms(l, r);
	bool is_search, is_alone, is_trouble, is_endpoint;

	if (lane->is_probe)
		l->probed = lane->items[0]->rec->id;
	if (learn_size(l, lane, r)) {
		(void)cdc_lanes_failed(l, r, lane->is_probe, false, now_ms, random);
		return;
	}
	if (lane->is_beside) {
		fail_beside(l, lane, r, now_ms, random);
		return;
	}
	is_search = is_searching(l, lane, index, r);
	if (is_search) {
		cdc_breaker_doubt(&l->breaker, now_ms);
		lane->until_ms = now_ms;
	} else {
		lane->comparisons = 0;
		lane->attempt++;
		lane->until_ms = now_ms + cdc_backoff_ms(lane->attempt, random);
	}
	if (must_halve(l, lane, r)) {
		lane->suspects = lane->n;
		lane->until_ms = now_ms;
	}
	if (asked)
		lane->asked_ms = now_ms + asked;
	is_alone = is_head && (lane->n == 1 || lane->is_grouped);
	is_trouble = is_alone && is_in_trouble(l, lane, r, now_ms);
	/* What is proved to be the record's is not the endpoint's. */
	is_endpoint = !is_search && !(is_trouble && l->setup.settings->order != CDC_ORDER_SYNC);
	lane->failed_at = cdc_lanes_failed(l, r, lane->is_probe, is_endpoint, now_ms, random);
	tell_failure(l, lane, r, is_search, now_ms);
	if (!is_alone)
		return;
	lane->is_refused = r->outcome == SINK_REJECT && !r->is_never_record;
	l->has_refused |= lane->is_refused;
	if (is_trouble) {
		*ret_trouble = trouble_of(lane, r);
		forget_head(lane);
		lane->width = lane->is_grouped ? 0 : 1;
	}
}

/* Of the request's records, is the i-th to be sent again?  k of those before it were refused. */
static bool is_refused(const struct cdc_lanes *l, const struct lane *lane,
		       const struct sink_result *r, size_t i, size_t k)
{
	const struct cdc_item *item = lane->items[i];

	if (k < r->failed_n && r->failed[k].index == i)
		return true;
	if (k == 0)
		return false;
	if (l->setup.settings->order == CDC_ORDER_SYNC || item->is_second)
		return true;
	/* A receiver keeps what comes behind a refused record of its key from overtaking it. */
	for (size_t j = 0; j < k; j++) {
		if (lane->items[r->failed[j].index]->rec->key_hash == item->rec->key_hash)
			return true;
	}
	return false;
}

/* A part of a request was refused, the rest accepted. */
static void take_apart(struct cdc_lanes *l, struct lane *lane, const struct sink_result *r,
		       uint64_t now_ms, int64_t wall_us, uint64_t random)
{
	struct sink_result refused = *r;
	size_t accepted = 0, k = 0;

	for (size_t i = 0; i < lane->n; i++) {
		struct cdc_item *item = lane->items[i];
		bool is_out = is_refused(l, lane, r, i, k);

		k += k < r->failed_n && r->failed[k].index == i;
		if (is_out)
			continue;
		count_accepted(l, &item, 1, wall_us);
		cdc_window_done(l->setup.window, item);
		accepted++;
	}
	refused.outcome = SINK_REJECT;
	(void)snprintf(refused.text, sizeof(refused.text), "%d, %zu of %zu records failed: %s",
		       r->status, lane->n - accepted, lane->n, r->failed[0].reason);
	if (lane->is_beside) {
		lane->beside_rests = true;
	} else {
		lane->alone = (struct cdc_suspect){0};
		lane->suspects = 1;
		lane->attempt++;
		lane->until_ms = now_ms + (accepted ? 0 : cdc_backoff_ms(lane->attempt, random));
	}
	lane->failed_at = cdc_lanes_failed(l, &refused, lane->is_probe && !accepted, !accepted,
					   now_ms, random);
	if (accepted)
		cdc_lanes_accepted(l, lane->begun);
	if (cdc_log_is_due(lane->attempt))
		LOG_WARN(&l->setup.log, "request_failed", KV("sync", l->setup.sync),
			 KV("attempt", lane->attempt), KV("status", r->status),
			 KV("records", lane->n - accepted),
			 KV("reason", (const char *)refused.text));
}

enum cdc_code cdc_lanes_result(struct cdc_lanes *l, const struct sink_result *r, uint64_t now_ms,
			       int64_t wall_us, uint64_t random, struct cdc_trouble *ret_trouble,
			       struct cdc_err *err)
{
	struct lane *lane = &l->lanes[r->ticket];
	enum cdc_code rc = cdc_lanes_is_over(l, r, err);

	ret_trouble->item = NULL;
	note_ended(l, r, now_ms);
	lane->is_in_flight = false;
	l->in_flight--;
	if (rc) {
		cdc_metric_add(&l->setup.metrics->failed, 1);
		return rc;
	}
	if (r->outcome == SINK_DONE && r->failed_n)
		take_apart(l, lane, r, now_ms, wall_us, random);
	else if (r->outcome == SINK_DONE)
		accept_job(l, lane, r->ticket, wall_us);
	else
		fail_job(l, lane, r->ticket, r, now_ms, random, ret_trouble);
	return CDC_OK;
}

/* --- sending ------------------------------------------------------------------------ */

static bool reserve(struct cdc_lanes *l, struct lane *lane, size_t max)
{
	if (lane->cap < max) {
		struct cdc_item **grown = reallocarray(lane->items, max, sizeof(struct cdc_item *));

		if (!grown)
			return false;
		lane->items = grown;
		lane->cap = max;
	}
	if (l->view_cap < max) {
		struct cdc_view *grown = reallocarray(l->views, max, sizeof(*grown));

		if (!grown)
			return false;
		l->views = grown;
		l->view_cap = max;
	}
	return true;
}

/* Copied rows have ids of a kind of their own, and are not in the buffer to come again. */
static bool is_replayed(const struct cdc_lanes *l, const struct cdc_item *item)
{
	return item->rec->op != CDC_OP_READ && cdc_id_cmp(&item->rec->id, &l->setup.replayed) <= 0;
}

/* A request is a replay or is none: cuts the lane's run off where that changes. */
static void cut(const struct cdc_lanes *l, struct lane *lane, bool *has_more)
{
	if (cdc_id_is_zero(&l->setup.replayed) || lane->n == 0)
		return;
	for (size_t i = 1; i < lane->n; i++) {
		if (is_replayed(l, lane->items[i]) == is_replayed(l, lane->items[0]))
			continue;
		lane->n = i;
		*has_more = true;
	}
}

/* The records as they lie, and no more of them than one request may hold. */
static void keep_together(struct cdc_lanes *l, struct lane *lane, void *sink, bool *has_more)
{
	size_t n;

	for (size_t i = 0; i < lane->n; i++)
		l->views[i] = cdc_item_view(lane->items[i]);
	if (!l->setup.sink->together || lane->n < 2)
		return;
	n = l->setup.sink->together(sink, l->views, lane->n);
	*has_more |= n < lane->n;
	lane->n = n;
}

static void note_part(const struct cdc_lanes *l, struct lane *lane)
{
	const struct cdc_item *first = lane->items[0];

	lane->is_grouped = cdc_window_is_grouped(l->setup.window, first);
	lane->part = 0;
	if (lane->is_grouped)
		lane->part = cdc_id_is_same_commit(&first->rec->id, &lane->in_parts)
				     ? lane->parts + 1
				     : 1;
}

/* Submits lane->items[0..n), whose views are there. */
static enum cdc_code submit(struct cdc_lanes *l, struct lane *lane, void *sink, bool is_probe,
			    uint64_t now_ms, struct cdc_err *err)
{
	struct sink_job job = {.ticket = (uint64_t)(lane - l->lanes), .views = l->views};
	enum cdc_code rc;

	lane->bytes = 0;
	note_part(l, lane);
	job.part = lane->part;
	job.is_last_part =
		lane->is_grouped && cdc_window_run_is_last(l->setup.window, lane->items, lane->n);
	for (size_t i = 0; i < lane->n; i++) {
		job.is_repeat |= lane->items[i]->was_sent;
		lane->bytes += lane->items[i]->rec->json_len;
	}
	job.n = lane->n;
	job.is_replay = is_replayed(l, lane->items[0]);
	rc = l->setup.sink->submit(sink, &job, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < lane->n; i++)
		cdc_window_sent(lane->items[i]);
	if (job.is_repeat)
		cdc_metric_add(&l->setup.metrics->retried, 1);
	lane->is_in_flight = true;
	lane->is_probe = is_probe;
	lane->is_beside = false;
	lane->begun = begin(l, is_probe, lane->n, now_ms);
	lane->since_ms = 0;
	l->is_our_turn = false;
	l->in_flight++;
	return CDC_OK;
}

/* No request can hold the record. */
static void set_limit_trouble(struct lane *lane, const struct cdc_err *why,
			      struct cdc_trouble *ret_trouble)
{
	*ret_trouble = (struct cdc_trouble){.item = lane->items[0], .attempts = 1};
	(void)snprintf(ret_trouble->text, sizeof(ret_trouble->text), "%.199s", why->msg);
	forget_head(lane);
}

/* A run that is not full may wait for more. */
static bool must_linger(const struct cdc_lanes *l, struct lane *lane, bool has_more,
			uint64_t now_ms)
{
	if (!l->setup.settings->linger_ms || l->is_finishing || has_more || lane->attempt ||
	    lane->suspects || lane->alone.failures)
		return false;
	if (!lane->since_ms)
		lane->since_ms = now_ms;
	return now_ms < lane->since_ms + l->setup.settings->linger_ms;
}

static uint64_t lane_due_ms(const struct cdc_lanes *l, const struct lane *lane)
{
	uint64_t due = lane->until_ms > lane->asked_ms ? lane->until_ms : lane->asked_ms;

	return due > l->hold_ms ? due : l->hold_ms;
}

/* The record to be sent in place of a head that was refused, while nothing shows that the endpoint
 * accepts others.  NULL: the head itself. */
static struct cdc_item *choose_other(struct cdc_lanes *l, struct lane *lane, size_t index)
{
	struct cdc_item *item = NULL;

	if (!lane->alone.failures || !lane->is_refused || l->is_finishing ||
	    l->setup.settings->order == CDC_ORDER_SYNC || l->accepted_begun > lane->alone.failed_at)
		return NULL;
	item = cdc_window_other(l->setup.window, index, &lane->compared);
	lane->compared = item ? item->rec->id : (struct cdc_id){0};
	return item;
}

/* Most records of the lane's next request. */
static size_t most_records(const struct cdc_lanes *l, const struct lane *lane)
{
	size_t most = lane->suspects ? (lane->suspects + 1) / 2 : l->setup.settings->batch_size;
	const struct cdc_item *head = cdc_window_head(l->setup.window, (size_t)(lane - l->lanes));

	if (head && cdc_window_is_grouped(l->setup.window, head))
		return l->setup.settings->batch_size;
	return lane->width && lane->width < most ? lane->width : most;
}

static uint64_t max_bytes_of(const struct cdc_lanes *l)
{
	uint64_t most = l->setup.settings->batch_bytes;

	return l->fitting && l->fitting < most ? l->fitting : most;
}

static enum cdc_code send_lane(struct cdc_lanes *l, size_t index, void *sink, uint64_t now_ms,
			       struct cdc_trouble *ret_trouble, struct cdc_err *err)
{
	struct lane *lane = &l->lanes[index];
	uint64_t max_bytes = max_bytes_of(l);
	struct cdc_item *other = choose_other(l, lane, index);
	size_t max = most_records(l, lane);
	enum cdc_code rc = CDC_LIMIT;

	while (rc == CDC_LIMIT) {
		struct cdc_err why = {0};
		bool has_more = true;

		if (!reserve(l, lane, max))
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
		lane->items[0] = other;
		lane->n = other ? 1
				: cdc_window_run(l->setup.window, index, max, max_bytes,
						 lane->items, &has_more);
		cut(l, lane, &has_more);
		keep_together(l, lane, sink, &has_more);
		if (lane->n == 0 || (lane->n < max && must_linger(l, lane, has_more, now_ms)))
			return CDC_OK;
		rc = submit(l, lane, sink, false, now_ms, &why);
		if (rc == CDC_LIMIT && lane->n == 1) {
			set_limit_trouble(lane, &why, ret_trouble);
			return CDC_OK;
		}
		if (rc && rc != CDC_LIMIT && err)
			*err = why;
		max = (lane->n + 1) / 2;
		if (rc == CDC_LIMIT && !lane->is_grouped)
			lane->suspects = lane->n;
	}
	return rc;
}

/* It was sent alone, and the endpoint accepted others since it failed. */
static bool is_suspect(const struct cdc_lanes *l, const struct lane *lane)
{
	return lane->alone.failures > 1 ||
	       (lane->alone.failures && l->accepted_begun > lane->alone.failed_at);
}

bool cdc_lanes_has_suspect(const struct cdc_lanes *l)
{
	for (size_t i = 0; i < l->lane_n; i++) {
		if (is_suspect(l, &l->lanes[i]))
			return true;
	}
	return false;
}

/* May what is of other keys than its head's go out, while that rests? */
static bool may_go_beside(const struct cdc_lanes *l, const struct lane *lane, uint64_t now_ms)
{
	return is_suspect(l, lane) && !lane->beside_rests && now_ms >= lane->asked_ms &&
	       now_ms >= l->hold_ms && l->setup.settings->order != CDC_ORDER_SYNC;
}

static enum cdc_code send_beside(struct cdc_lanes *l, size_t index, void *sink, uint64_t now_ms,
				 struct cdc_err *err)
{
	struct lane *lane = &l->lanes[index];
	size_t max = l->setup.settings->batch_size;
	struct cdc_err why = {0};
	enum cdc_code rc;
	bool has_more;

	if (lane->beside_most && lane->beside_most < max)
		max = lane->beside_most;
	if (!reserve(l, lane, max))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	lane->n = cdc_window_run_beside(l->setup.window, index, max, max_bytes_of(l), lane->items,
					&has_more);
	cut(l, lane, &has_more);
	keep_together(l, lane, sink, &has_more);
	if (lane->n == 0)
		return CDC_OK;
	rc = submit(l, lane, sink, false, now_ms, &why);
	if (rc == CDC_LIMIT) {
		lane->beside_rests = true;
		lane->beside_most = (lane->n + 1) / 2;
		return CDC_OK;
	}
	lane->is_beside = !rc;
	if (rc && err)
		*err = why;
	return rc;
}

/* What the lane may send now. */
static enum cdc_code send_from(struct cdc_lanes *l, size_t index, void *sink, uint64_t now_ms,
			       struct cdc_trouble *ret_trouble, struct cdc_err *err)
{
	struct lane *lane = &l->lanes[index];

	if (lane->is_in_flight || !cdc_window_head(l->setup.window, index))
		return CDC_OK;
	if (now_ms >= lane_due_ms(l, lane)) {
		lane->beside_rests = false;
		return send_lane(l, index, sink, now_ms, ret_trouble, err);
	}
	return may_go_beside(l, lane, now_ms) ? send_beside(l, index, sink, now_ms, err) : CDC_OK;
}

static struct cdc_item *choose_probe(struct cdc_lanes *l)
{
	struct cdc_window *w = l->setup.window;
	struct cdc_item *item;

	if (l->setup.settings->order == CDC_ORDER_SYNC)
		return cdc_window_head(w, 0);
	if (!cdc_id_is_zero(&l->probed)) {
		/* Each probe takes another record, so one that is refused hides no other. */
		item = cdc_window_probe(w, &l->probed, l->is_suspect);
		if (item)
			return item;
	}
	for (size_t i = 0; i < l->lane_n; i++)
		l->is_suspect[i] = l->lanes[i].alone.failures != 0;
	item = cdc_window_probe(w, NULL, l->is_suspect);
	return item ? item : cdc_window_probe(w, &(struct cdc_id){0}, l->is_suspect);
}

static bool may_probe(const struct cdc_lanes *l, uint64_t now_ms)
{
	return !l->in_flight && now_ms >= l->hold_ms && cdc_flow_may_start(&l->flow, 0, now_ms) &&
	       cdc_breaker_may_probe(&l->breaker, now_ms);
}

/* The record; by whole transactions what would be sent anyway. */
static enum cdc_code fill_probe(struct cdc_lanes *l, struct lane *lane, struct cdc_item *item,
				size_t max, struct cdc_err *err)
{
	bool is_grouped = cdc_window_is_grouped(l->setup.window, item), has_more;

	if (!reserve(l, lane, max))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	lane->items[0] = item;
	lane->n = 1;
	if (is_grouped)
		lane->n = cdc_window_run(l->setup.window, item->lane, max, max_bytes_of(l),
					 lane->items, &has_more);
	if (is_grouped)
		cut(l, lane, &has_more);
	for (size_t i = 0; i < lane->n; i++)
		l->views[i] = cdc_item_view(lane->items[i]);
	return CDC_OK;
}

static enum cdc_code send_probe(struct cdc_lanes *l, void *sink, uint64_t now_ms,
				struct cdc_trouble *ret_trouble, struct cdc_err *err)
{
	struct cdc_item *item = choose_probe(l);
	size_t max = l->setup.settings->batch_size;
	struct cdc_err why = {0};
	struct lane *lane;
	enum cdc_code rc;

	l->has_no_probe = !item;
	if (!item)
		return CDC_OK;
	lane = &l->lanes[item->lane];
	do {
		rc = fill_probe(l, lane, item, max, err);
		/* Of a transaction whose end is not read yet. */
		l->has_no_probe = !rc && lane->n == 0;
		if (rc || lane->n == 0)
			return rc;
		rc = submit(l, lane, sink, true, now_ms, &why);
		max = (lane->n + 1) / 2;
	} while (rc == CDC_LIMIT && lane->n > 1);
	if (rc == CDC_LIMIT) {
		set_limit_trouble(lane, &why, ret_trouble);
		return CDC_OK;
	}
	if (rc && err)
		*err = why;
	return rc;
}

enum cdc_code cdc_lanes_send(struct cdc_lanes *l, void *sink, uint64_t now_ms,
			     struct cdc_trouble *ret_trouble, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	ret_trouble->item = NULL;
	if (l->is_held) {
		l->is_our_turn = false;
		return CDC_OK;
	}
	if (l->breaker.state != CDC_BREAKER_CLOSED) {
		l->is_our_turn = false;
		return may_probe(l, now_ms) ? send_probe(l, sink, now_ms, ret_trouble, err)
					    : CDC_OK;
	}
	for (size_t i = 0; !rc && !ret_trouble->item && i < l->lane_n; i++) {
		size_t at = (l->turn + i) % l->lane_n;

		if (!may_start(l, now_ms)) {
			l->turn = at;
			return rc;
		}
		rc = send_from(l, at, sink, now_ms, ret_trouble, err);
	}
	l->is_our_turn = false; /* used or not */
	return rc;
}

bool cdc_lanes_may_begin(struct cdc_lanes *l, uint64_t now_ms, bool *ret_is_probe)
{
	*ret_is_probe = l->breaker.state != CDC_BREAKER_CLOSED;
	if (!*ret_is_probe)
		return !l->is_our_turn && now_ms >= l->hold_ms && may_start(l, now_ms);
	return may_probe(l, now_ms) && (l->is_held || !choose_probe(l));
}

uint64_t cdc_lanes_ready_ms(const struct cdc_lanes *l)
{
	uint64_t at = cdc_flow_next_ms(&l->flow, counted(l)), probe_ms;

	if (l->breaker.state != CDC_BREAKER_CLOSED) {
		probe_ms = l->in_flight ? UINT64_MAX : cdc_breaker_next_ms(&l->breaker);
		at = at > probe_ms ? at : probe_ms;
	}
	return at > l->hold_ms ? at : l->hold_ms;
}

static uint64_t sooner(uint64_t wait_ms, uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms <= now_ms)
		return 0;
	return at_ms - now_ms < wait_ms ? at_ms - now_ms : wait_ms;
}

uint64_t cdc_lanes_wait_ms(const struct cdc_lanes *l, uint64_t now_ms, uint64_t wait_ms)
{
	if (cdc_window_records(l->setup.window) == 0 || l->is_held)
		return wait_ms;
	if (l->breaker.state != CDC_BREAKER_CLOSED) {
		uint64_t probe_ms = cdc_breaker_next_ms(&l->breaker);

		if (probe_ms < l->flow.free_ms)
			probe_ms = l->flow.free_ms;
		return l->in_flight || l->has_no_probe
			       ? wait_ms
			       : sooner(wait_ms, probe_ms > l->hold_ms ? probe_ms : l->hold_ms,
					now_ms);
	}
	wait_ms = sooner(wait_ms, cdc_breaker_next_ms(&l->breaker), now_ms);
	if (l->flow.free_ms > now_ms)
		wait_ms = sooner(wait_ms, l->flow.free_ms, now_ms);
	for (size_t i = 0; i < l->lane_n; i++) {
		const struct lane *lane = &l->lanes[i];
		uint64_t due = lane_due_ms(l, lane);

		if (lane->is_in_flight || !cdc_window_head(l->setup.window, i))
			continue;
		if (due > now_ms)
			wait_ms = sooner(wait_ms, due, now_ms);
		else if (lane->since_ms && may_start(l, now_ms))
			wait_ms = sooner(wait_ms, lane->since_ms + l->setup.settings->linger_ms,
					 now_ms);
	}
	return wait_ms;
}
