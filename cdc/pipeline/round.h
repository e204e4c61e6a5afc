/*
 * round.h - the tables of a sync that are held back from its stream for a copy.
 *
 * The delivery thread's half of a backfill (backfill.h has the other): holds the
 * tables, delivers their changes below the snapshot's point, the copied rows, then
 * the changes from the point on, and lets the tables join the stream when they have
 * caught up with it.  What is held, and how far these tables have come by
 * themselves, is part of the sync's checkpoint, so a restart goes on from there.
 * A table that had stopped (stopped.h) is the exception: until its rows are delivered,
 * the checkpoint says that it has stopped, and its changes below the point are not sent.
 *
 * Threads: a round belongs to the delivery thread of its sync.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_ROUND_H
#define CDC_PIPELINE_ROUND_H

#include "cdc/pipeline/backfill.h"
#include "cdc/pipeline/intake.h"
#include "cdc/pipeline/stopped.h"

struct cdc_round_setup {
	struct cdc_intake_setup intake; /* tables: the sync's */
	struct cdc_window *window;
	struct cdc_window_input *stream;
	struct cdc_stopped *stopped; /* tables that had stopped before their copy */
	struct cdc_backfill *backfill;
	bool is_whole; /* order: sync: everything is held */
};

struct cdc_round;

/* cursor: of the sync, with the round that was under way.  CDC_NOMEM. */
enum cdc_code cdc_round_new(const struct cdc_round_setup *setup, const struct cdc_cursor *cursor,
			    struct cdc_round **ret, struct cdc_err *err) CDC_CHECK;
/* Just before the window.  NULL is fine. */
void cdc_round_free(struct cdc_round *r);

/* Begins to watch its events in this epoll; ends it, and closes its reader. */
enum cdc_code cdc_round_open(struct cdc_round *r, int epoll_fd, struct cdc_err *err) CDC_CHECK;
void cdc_round_close(struct cdc_round *r);
/* No more events; its reader stays open, for what is in flight. */
void cdc_round_unwatch(struct cdc_round *r);

/* Is none of its tables held? */
bool cdc_round_is_idle(const struct cdc_round *r);

/* Is the table one of those that it holds? */
bool cdc_round_has(const struct cdc_round *r, const char *table, size_t len);

/* One turn: takes in what it may, moves on when it can.  Codes: the buffer's, CDC_NOMEM. */
enum cdc_code cdc_round_step(struct cdc_round *r, struct cdc_err *err) CDC_CHECK;
/* How long the next turn may wait, at most. */
uint64_t cdc_round_wait_ms(const struct cdc_round *r, uint64_t wait_ms);

/* The tables' part of a checkpoint; valid until the next step. */
struct cdc_cursor_table *cdc_round_tables(struct cdc_round *r, size_t *ret_n);
/* Rises when that part says something new that must be written at once. */
unsigned cdc_round_version(const struct cdc_round *r);
/* A checkpoint of this version is durable. */
void cdc_round_written(struct cdc_round *r, unsigned version);

#endif
