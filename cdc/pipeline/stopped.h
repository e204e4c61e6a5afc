/*
 * stopped.h - the tables of a sync that have stopped before a record their endpoint refuses and
 * that nothing may pass (a truncate, a schema, a changed identity).
 *
 * A table stops alone: what came behind the record leaves the window, the stream leaves
 * the table out, and its own id, below the record, is part of the sync's checkpoint, so
 * the buffer keeps what it has not got.  When a person resumes it, a reader of its own
 * brings it from that id on, the refused record first, until it has come as far as
 * the stream and joins it.  One table at a time is read like that.  A table that is copied
 * again (round.h) stands where it is until its rows are delivered, which then take the place
 * of what it lacks; a copy that comes to nothing changes nothing.
 *
 * Threads: belongs to the delivery thread of its sync.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_STOPPED_H
#define CDC_PIPELINE_STOPPED_H

#include "cdc/pipeline/intake.h"
#include "cdc/store/store.h"

struct cdc_stopped_setup {
	struct cdc_intake_setup intake; /* tables: not looked at */
	struct cdc_window *window;
	struct cdc_window_input *stream;
	const struct cdc_log *log;
};

struct cdc_stopped;

/* cursor: of the sync, with the tables that had stopped.  CDC_NOMEM. */
enum cdc_code cdc_stopped_new(const struct cdc_stopped_setup *setup,
			      const struct cdc_cursor *cursor, struct cdc_stopped **ret,
			      struct cdc_err *err) CDC_CHECK;
/* Just before the window.  NULL is fine. */
void cdc_stopped_free(struct cdc_stopped *s);
/* Its reader; a step opens it again. */
void cdc_stopped_close(struct cdc_stopped *s);

/* A name longer than a checkpoint can hold cannot stop. */
bool cdc_stopped_can(size_t table_len);
/* The item's table stops before it, which was not in flight: the window has neither it nor what
 * comes behind it any more.  CDC_NOMEM: nothing was done. */
enum cdc_code cdc_stopped_add(struct cdc_stopped *s, struct cdc_item *item,
			      struct cdc_err *err) CDC_CHECK;
/* All of them go on, one after the other.  How many. */
size_t cdc_stopped_resume(struct cdc_stopped *s);

/* A copy of the table begins.  False: it had not stopped. */
bool cdc_stopped_take(struct cdc_stopped *s, const char *table);
/* Its rows are delivered: it has stopped no more. */
void cdc_stopped_leave(struct cdc_stopped *s, const char *table);
/* It came to nothing, and the table stands where it stood.  CDC_NOMEM. */
enum cdc_code cdc_stopped_put(struct cdc_stopped *s, const char *table,
			      struct cdc_err *err) CDC_CHECK;

size_t cdc_stopped_count(const struct cdc_stopped *s); /* tables that wait for a person */
bool cdc_stopped_is_empty(const struct cdc_stopped *s);

/* One turn, behind the stream's read.  Codes: the buffer's, CDC_NOMEM. */
enum cdc_code cdc_stopped_step(struct cdc_stopped *s, struct cdc_err *err) CDC_CHECK;
uint64_t cdc_stopped_wait_ms(const struct cdc_stopped *s, uint64_t wait_ms);

/* The checkpoint's tables: the n of a round, and those that have stopped.  Valid until the next
 * call; NULL: no memory. */
struct cdc_cursor_table *cdc_stopped_tables(struct cdc_stopped *s, struct cdc_cursor_table *round,
					    size_t n, size_t *ret_n);
/* Rises when that part of the checkpoint says something new. */
unsigned cdc_stopped_version(const struct cdc_stopped *s);

#endif
