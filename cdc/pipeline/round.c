#include "cdc/pipeline/round.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define COPY_BYTES                                                                                 \
	(4u << 20)  /* of copied rows in the window: what is before them waits no longer */
#define POINT_MS 20 /* looks whether the stream has passed the point */

enum stage {
	STAGE_NONE,
	STAGE_HOLDING, /* until the hold is durable */
	STAGE_WAITING, /* for the snapshot */
	STAGE_REWIND,  /* the same, but what was read below the last point is delivered first */
	STAGE_BELOW,   /* changes below the point */
	STAGE_COPY,    /* rows */
	STAGE_AFTER,   /* changes from the point on */
	STAGE_LEAVING, /* until it is durable that the tables stream */
};

struct cdc_round {
	struct cdc_round_setup setup;
	enum stage stage;
	int epoll_fd;
	struct cdc_backfill_view view;
	char (*names)[sizeof(((struct cdc_cursor_table *)0)->table)];
	const char **tables; /* the same; what the reader reads */
	struct cdc_cursor_table *entries;
	bool *had_stopped; /* and will have again, should nothing come of its copy */
	bool is_lifted;    /* nothing has come of it */
	size_t n;
	enum cdc_table_state state; /* of all of them */
	struct cdc_id own;          /* HELD, COPYING: the stream brought everything up to it */
	cdc_lsn point;
	unsigned attempt, void_attempt; /* the second: of before this round was made, not used */
	struct cdc_intake held;
	bool is_watched;               /* its reader, by the epoll */
	struct cdc_window_input *copy; /* NULL: none yet */
	struct cdc_batch *batch;       /* taken, and the window had no memory for it */
	uint32_t *index;               /* 0, 1, 2 ... */
	size_t index_n;
	bool has_copied; /* every row is in the window */
	bool is_told;    /* the backfill knows that they are delivered */
	bool has_joined;
	struct cdc_id joined; /* from behind this id on the stream brings the tables */
	unsigned version, written;
};

/* --- life --------------------------------------------------------------------------- */

static enum cdc_code set_tables(struct cdc_round *r, size_t n, struct cdc_err *err)
{
	r->names = calloc(n, sizeof(*r->names));
	r->tables = calloc(n, sizeof(*r->tables));
	r->entries = calloc(n, sizeof(*r->entries));
	r->had_stopped = calloc(n, sizeof(*r->had_stopped));
	r->n = n;
	if (!r->names || !r->tables || !r->entries || !r->had_stopped)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu tables", n);
	return CDC_OK;
}

static void set_table(struct cdc_round *r, size_t i, const char *name)
{
	(void)snprintf(r->names[i], sizeof(r->names[i]), "%s", name);
	r->tables[i] = r->names[i];
}

static void forget_tables(struct cdc_round *r)
{
	free(r->names);
	free(r->tables);
	free(r->entries);
	free(r->had_stopped);
	r->names = NULL;
	r->tables = NULL;
	r->entries = NULL;
	r->had_stopped = NULL;
	r->n = 0;
}

/* From now on the stream leaves the tables out, and a reader of their own stands where it was. */
static enum cdc_code hold(struct cdc_round *r, struct cdc_err *err)
{
	struct cdc_intake_setup setup = r->setup.intake;
	struct cdc_stream_position own = cdc_window_position(r->setup.stream);
	enum cdc_code rc = CDC_OK;

	own.id = r->own;
	if (r->setup.is_whole) {
		rc = cdc_window_hold(r->setup.window, NULL, &r->own, err);
	} else {
		setup.tables = r->tables;
		setup.table_n = r->n;
	}
	for (size_t i = 0; i < r->n && !rc && !r->setup.is_whole; i++) {
		rc = cdc_window_hold(r->setup.window, r->tables[i], &r->own, err);
		r->had_stopped[i] = cdc_stopped_take(r->setup.stopped, r->tables[i]);
		cdc_window_shut(r->setup.window, r->tables[i], r->had_stopped[i]);
	}
	if (!rc)
		rc = cdc_intake_init(&r->held, &setup, r->setup.window, CDC_INPUT_HELD, own, err);
	r->copy = NULL;
	r->has_copied = r->is_told = r->has_joined = r->is_lifted = false;
	r->attempt = 0;
	r->point = 0;
	return rc;
}

/* The backfill has gone on beside a sync that stopped, and begins again with this round. */
static void meet_backfill(struct cdc_round *r)
{
	cdc_backfill_look(r->setup.backfill, &r->view);
	if (r->view.phase == CDC_PHASE_ASKED)
		cdc_backfill_held(r->setup.backfill);
	if (r->view.phase != CDC_PHASE_COPYING && r->view.phase != CDC_PHASE_COPIED)
		return;
	if (r->state == CDC_TABLE_CATCHING_UP) {
		r->is_told = false; /* that every row is delivered */
		return;
	}
	/* Some of its rows were taken, and are gone. */
	r->void_attempt = r->view.attempt;
	cdc_backfill_void(r->setup.backfill, r->void_attempt);
}

/* The round of the process before, or of before the sync stopped. */
static enum cdc_code resume(struct cdc_round *r, const struct cdc_cursor *cursor,
			    struct cdc_err *err)
{
	const struct cdc_cursor_table *one = NULL; /* all are at the same place */
	enum cdc_code rc = set_tables(r, cdc_cursor_copied(cursor), err);
	size_t n = 0;

	if (rc)
		return rc;
	for (size_t i = 0; i < cursor->table_n; i++) {
		if (cdc_table_is_stopped(cursor->tables[i].state))
			continue;
		one = &cursor->tables[i];
		set_table(r, n++, one->table);
	}
	CDC_ASSERT(one);
	r->state = one->state;
	r->own = one->id;
	rc = hold(r, err);
	if (rc)
		return rc;
	if (r->state == CDC_TABLE_CATCHING_UP) {
		r->stage = STAGE_AFTER;
		r->point = one->point;
		r->has_copied = r->is_told = true;
	} else {
		r->state = CDC_TABLE_HELD;
		r->stage = STAGE_WAITING;
	}
	meet_backfill(r);
	return CDC_OK;
}

enum cdc_code cdc_round_new(const struct cdc_round_setup *setup, const struct cdc_cursor *cursor,
			    struct cdc_round **ret, struct cdc_err *err)
{
	struct cdc_round *r = calloc(1, sizeof(*r));
	enum cdc_code rc = CDC_OK;

	if (!r)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	r->setup = *setup;
	r->epoll_fd = -1;
	if (cdc_cursor_copied(cursor))
		rc = resume(r, cursor, err);
	if (rc) {
		cdc_round_free(r);
		return rc;
	}
	*ret = r;
	return CDC_OK;
}

void cdc_round_free(struct cdc_round *r)
{
	struct cdc_lease *lease;

	if (!r)
		return;
	while (r->copy && (lease = cdc_window_abandon_lease(r->copy)))
		cdc_backfill_give_back(r->setup.backfill, (struct cdc_batch *)lease);
	if (r->batch)
		cdc_backfill_give_back(r->setup.backfill, r->batch);
	cdc_intake_clear(&r->held, true);
	forget_tables(r);
	free(r->index);
	free(r);
}

/* --- events ------------------------------------------------------------------------- */

static enum cdc_code watch(struct cdc_round *r, int fd, struct cdc_err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

	if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &event))
		return cdc_err_set(err, CDC_IO, "epoll_ctl: %s", strerror(errno));
	return CDC_OK;
}

/* Is the reader read at this stage?  Else nobody would take its events away. */
static bool is_reading(const struct cdc_round *r)
{
	return (r->stage == STAGE_BELOW && !r->held.has_reached) ||
	       (r->stage == STAGE_AFTER && !r->has_joined);
}

static enum cdc_code watch_reader(struct cdc_round *r, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (is_reading(r) && !r->held.reader)
		rc = cdc_intake_open(&r->held, err);
	if (rc)
		return rc;
	if (is_reading(r) && !r->is_watched) {
		rc = watch(r, cdc_intake_fd(&r->held), err);
		r->is_watched = rc == CDC_OK;
	} else if (!is_reading(r) && r->is_watched) {
		(void)epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, cdc_intake_fd(&r->held), NULL);
		r->is_watched = false;
	}
	return rc;
}

enum cdc_code cdc_round_open(struct cdc_round *r, int epoll_fd, struct cdc_err *err)
{
	r->epoll_fd = epoll_fd;
	return watch(r, cdc_backfill_fd(r->setup.backfill), err);
}

void cdc_round_unwatch(struct cdc_round *r)
{
	(void)epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, cdc_backfill_fd(r->setup.backfill), NULL);
	if (r->is_watched)
		(void)epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, cdc_intake_fd(&r->held), NULL);
	r->is_watched = false;
}

void cdc_round_close(struct cdc_round *r)
{
	cdc_intake_close(&r->held);
	r->is_watched = false;
}

/* --- stages ------------------------------------------------------------------------- */

static void set_state(struct cdc_round *r, enum cdc_table_state state)
{
	r->state = state;
	r->version++;
}

static enum cdc_code begin(struct cdc_round *r, struct cdc_err *err)
{
	enum cdc_code rc = set_tables(r, r->view.table_n, err);

	if (!rc) {
		for (size_t i = 0; i < r->n; i++)
			set_table(r, i, r->view.tables[i]);
		/* A transaction that goes out as a whole is not cut. */
		r->own = cdc_window_behind(r->setup.stream, cdc_window_through(r->setup.stream).id);
		rc = hold(r, err);
	}
	if (rc) {
		forget_tables(r);
		return rc;
	}
	set_state(r, CDC_TABLE_HELD);
	r->stage = STAGE_HOLDING;
	return CDC_OK;
}

static bool is_written(const struct cdc_round *r)
{
	return r->written == r->version;
}

static bool is_drained(const struct cdc_round *r)
{
	if (r->setup.is_whole)
		return cdc_window_is_drained(r->setup.window, NULL);
	for (size_t i = 0; i < r->n; i++) {
		if (!cdc_window_is_drained(r->setup.window, r->tables[i]))
			return false;
	}
	return true;
}

/* Its leases are all back, so the reader can be closed without harm. */
static bool is_empty(const struct cdc_round *r)
{
	return cdc_window_input_bytes(r->held.input) == 0 && !r->held.has_read;
}

static bool is_copying(const struct cdc_round *r)
{
	return r->view.phase == CDC_PHASE_COPYING || r->view.phase == CDC_PHASE_COPIED;
}

/* Did the copy break, or begin again?  The changes below its new point come first, then. */
static bool is_over(const struct cdc_round *r)
{
	return !is_copying(r) || r->view.attempt != r->attempt;
}

static enum cdc_code wait_for_point(struct cdc_round *r, struct cdc_err *err)
{
	if (r->view.phase == CDC_PHASE_LIFTED) {
		r->point = 0;
		r->has_copied = r->is_lifted = true;
		r->stage = STAGE_AFTER;
		return CDC_OK;
	}
	if (!is_copying(r) || (r->void_attempt && r->view.attempt == r->void_attempt))
		return CDC_OK;
	r->attempt = r->view.attempt;
	r->point = r->view.point;
	if (!r->copy) {
		r->copy = cdc_window_input_new(r->setup.window, CDC_INPUT_COPY,
					       (struct cdc_stream_position){0});
		if (!r->copy)
			return cdc_err_set(err, CDC_NOMEM, "out of memory");
	}
	cdc_intake_set_limit(&r->held, r->view.epoch, r->point);
	set_state(r, CDC_TABLE_COPYING);
	r->stage = STAGE_BELOW;
	return CDC_OK;
}

/* Back to waiting for a point, once the reader can stand where the window has come to. */
static void rewind_reader(struct cdc_round *r)
{
	if (!is_empty(r)) {
		r->stage = STAGE_REWIND;
		return;
	}
	if (r->batch)
		cdc_backfill_give_back(r->setup.backfill, r->batch);
	r->batch = NULL;
	cdc_intake_close(&r->held);
	r->is_watched = false;
	cdc_intake_set_limit(&r->held, 0, 0);
	r->stage = STAGE_WAITING;
}

static enum cdc_code read_below(struct cdc_round *r, struct cdc_err *err)
{
	enum cdc_code rc;

	if (is_over(r)) {
		rewind_reader(r);
		return CDC_OK;
	}
	rc = watch_reader(r, err);
	if (!rc && !r->held.has_reached && !r->held.is_void)
		rc = cdc_intake_read(&r->held, err);
	if (rc)
		return rc;
	if (r->held.is_void) {
		cdc_backfill_void(r->setup.backfill, r->attempt);
		return CDC_OK;
	}
	if (!r->held.has_reached || !is_empty(r) || !is_drained(r))
		return CDC_OK;
	cdc_intake_close(&r->held);
	r->is_watched = false;
	cdc_intake_set_limit(&r->held, 0, 0);
	r->stage = STAGE_COPY;
	return CDC_OK;
}

/* A batch of copied rows as a read, which it is to the window. */
static enum cdc_code add_rows(struct cdc_round *r, struct cdc_err *err)
{
	struct cdc_batch *batch = r->batch;
	struct cdc_window_added added;
	struct cdc_read read = {.lease = (struct cdc_lease *)batch, .batch = batch, .n = batch->n};
	enum cdc_code rc;

	if (r->index_n < batch->n) {
		uint32_t *grown = reallocarray(r->index, batch->n, sizeof(*grown));

		if (!grown)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for copied rows");
		r->index = grown;
		for (; r->index_n < batch->n; r->index_n++)
			r->index[r->index_n] = (uint32_t)r->index_n;
	}
	read.index = r->index;
	rc = cdc_window_add(r->setup.window, r->copy, &read, &added, err);
	if (rc)
		return rc;
	cdc_metric_add(&r->setup.intake.metrics->skipped, added.skipped);
	if (!added.selected)
		cdc_backfill_give_back(r->setup.backfill, batch);
	r->batch = NULL;
	return CDC_OK;
}

static enum cdc_code take_rows(struct cdc_round *r, struct cdc_err *err)
{
	if (is_over(r)) {
		rewind_reader(r);
		return CDC_OK;
	}
	while (cdc_window_input_bytes(r->copy) < COPY_BYTES) {
		enum cdc_code rc;

		if (!r->batch)
			r->batch = cdc_backfill_take(r->setup.backfill, r->attempt);
		if (!r->batch) {
			/* Looked at before the queue was found empty, so these were the last. */
			r->has_copied = r->view.phase == CDC_PHASE_COPIED;
			break;
		}
		rc = add_rows(r, err);
		if (rc)
			return rc;
	}
	if (!r->has_copied)
		return CDC_OK;
	for (size_t i = 0; i < r->n; i++)
		cdc_window_shut(r->setup.window, r->tables[i], false);
	r->stage = STAGE_AFTER;
	return CDC_OK;
}

/* In the same step in which its reader has come as far as the stream's: nothing lies between. */
static void try_join(struct cdc_round *r)
{
	struct cdc_id held = cdc_window_through(r->held.input).id;
	struct cdc_id stream = cdc_window_through(r->setup.stream).id;

	if (r->held.has_read || cdc_id_cmp(&held, &stream) < 0)
		return;
	if (r->setup.is_whole)
		cdc_window_join(r->setup.window, NULL, &held);
	for (size_t i = 0; i < r->n && !r->setup.is_whole; i++) {
		if (!r->is_lifted || !r->had_stopped[i])
			cdc_window_join(r->setup.window, r->tables[i], &held);
	}
	r->joined = held;
	r->has_joined = true;
}

/* Has the stream's own checkpoint passed the place where the tables joined it? */
static bool is_passed(const struct cdc_round *r)
{
	struct cdc_id stream = cdc_window_position(r->setup.stream).id;

	return cdc_id_cmp(&stream, &r->joined) >= 0;
}

/* Every row is delivered: from here on a restart needs no copy. */
static void end_copy(struct cdc_round *r)
{
	set_state(r, CDC_TABLE_CATCHING_UP);
	for (size_t i = 0; i < r->n && !r->is_lifted; i++) {
		if (r->had_stopped[i])
			cdc_stopped_leave(r->setup.stopped, r->tables[i]);
		r->had_stopped[i] = false;
	}
}

static enum cdc_code catch_up(struct cdc_round *r, struct cdc_err *err)
{
	enum cdc_code rc = watch_reader(r, err);

	if (!rc && !r->has_joined) {
		rc = cdc_intake_read(&r->held, err);
		if (!rc)
			try_join(r);
	}
	if (rc)
		return rc;
	if (r->state != CDC_TABLE_CATCHING_UP &&
	    (!r->copy || cdc_window_input_records(r->copy) == 0))
		end_copy(r);
	if (r->state != CDC_TABLE_CATCHING_UP || !is_written(r))
		return watch_reader(r, err);
	if (!r->is_told && r->view.phase == CDC_PHASE_COPIED) {
		cdc_backfill_delivered(r->setup.backfill);
		r->is_told = true;
	}
	if (r->has_joined && is_empty(r) && is_passed(r) &&
	    (r->view.phase == CDC_PHASE_LIFTED ||
	     (r->view.phase == CDC_PHASE_DELIVERED && r->view.is_noted))) {
		r->version++;
		r->stage = STAGE_LEAVING;
	}
	return watch_reader(r, err);
}

static enum cdc_code leave(struct cdc_round *r, struct cdc_err *err)
{
	for (size_t i = 0; i < r->n; i++) {
		enum cdc_code rc = CDC_OK;

		cdc_window_shut(r->setup.window, r->tables[i], false);
		if (r->had_stopped[i])
			rc = cdc_stopped_put(r->setup.stopped, r->tables[i], err);
		if (rc)
			return rc;
		r->had_stopped[i] = false;
	}
	cdc_intake_clear(&r->held, false);
	r->is_watched = false;
	if (r->copy)
		cdc_window_input_drop(r->setup.window, r->copy);
	r->copy = NULL;
	forget_tables(r);
	r->stage = STAGE_NONE;
	cdc_backfill_joined(r->setup.backfill);
	return CDC_OK;
}

static void give_back(struct cdc_round *r)
{
	struct cdc_lease *lease;

	if (r->held.reader)
		cdc_intake_give_back(&r->held);
	while (r->copy && (lease = cdc_window_take_lease(r->copy)))
		cdc_backfill_give_back(r->setup.backfill, (struct cdc_batch *)lease);
}

bool cdc_round_has(const struct cdc_round *r, const char *table, size_t len)
{
	for (size_t i = 0; i < r->n; i++) {
		if (strlen(r->names[i]) == len && memcmp(r->names[i], table, len) == 0)
			return true;
	}
	return false;
}

bool cdc_round_is_idle(const struct cdc_round *r)
{
	return r->stage == STAGE_NONE;
}

enum cdc_code cdc_round_step(struct cdc_round *r, struct cdc_err *err)
{
	give_back(r);
	cdc_backfill_look(r->setup.backfill, &r->view);
	switch (r->stage) {
	case STAGE_NONE:
		/* The sync stopped between the checkpoint that says so and this. */
		if (r->view.phase == CDC_PHASE_LIFTED ||
		    (r->view.phase == CDC_PHASE_DELIVERED && r->view.is_noted))
			cdc_backfill_joined(r->setup.backfill);
		return r->view.phase == CDC_PHASE_ASKED ? begin(r, err) : CDC_OK;
	case STAGE_HOLDING:
		if (is_written(r)) {
			cdc_backfill_held(r->setup.backfill);
			r->stage = STAGE_WAITING;
		}
		return CDC_OK;
	case STAGE_WAITING:
		return wait_for_point(r, err);
	case STAGE_REWIND:
		rewind_reader(r);
		return CDC_OK;
	case STAGE_BELOW:
		return read_below(r, err);
	case STAGE_COPY:
		return take_rows(r, err);
	case STAGE_AFTER:
		return catch_up(r, err);
	case STAGE_LEAVING:
		return is_written(r) ? leave(r, err) : CDC_OK;
	}
	return CDC_OK;
}

uint64_t cdc_round_wait_ms(const struct cdc_round *r, uint64_t wait_ms)
{
	if (is_reading(r) && cdc_intake_is_ready(&r->held))
		return 0;
	if (r->stage == STAGE_BELOW && wait_ms > POINT_MS)
		return POINT_MS;
	return wait_ms;
}

/* --- the checkpoint ----------------------------------------------------------------- */

struct cdc_cursor_table *cdc_round_tables(struct cdc_round *r, size_t *ret_n)
{
	bool is_any = r->stage != STAGE_NONE && r->stage != STAGE_LEAVING;
	struct cdc_id id = r->own;
	size_t n = 0;

	if (is_any && r->state == CDC_TABLE_CATCHING_UP)
		id = cdc_window_position(r->held.input).id;
	for (size_t i = 0; i < r->n && is_any; i++) {
		struct cdc_cursor_table *t = &r->entries[n];

		if (r->had_stopped[i])
			continue;
		*t = (struct cdc_cursor_table){.state = r->state, .id = id, .point = r->point};
		memcpy(t->table, r->names[i], sizeof(t->table));
		n++;
	}
	*ret_n = n;
	return r->entries;
}

unsigned cdc_round_version(const struct cdc_round *r)
{
	return r->version;
}

void cdc_round_written(struct cdc_round *r, unsigned version)
{
	r->written = version;
}
