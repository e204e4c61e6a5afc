/*
 * intake.h - a reader of the buffer whose records go into a sync's window.
 *
 * Reads while the window has room, remembers a read that found no memory, and
 * gives leases back in order.  A limit stops it before the first record of a
 * transaction that commits at or above an LSN: what the snapshot of a copy does
 * not contain.
 *
 * Threads: an intake belongs to its caller.
 * Layer: pipeline (base, record, buffer).
 */
#ifndef CDC_PIPELINE_INTAKE_H
#define CDC_PIPELINE_INTAKE_H

#include "cdc/base/metrics.h"
#include "cdc/buffer/buffer.h"
#include "cdc/pipeline/window.h"

struct cdc_intake_setup {
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer;
	const char *group;
	const char *const *tables; /* n 0: all */
	size_t table_n;
	uint64_t window_bytes; /* most JSON bytes read and not yet done */
	struct cdc_sync_metrics *metrics;
};

struct cdc_intake {
	struct cdc_intake_setup setup;
	struct cdc_window *window;
	struct cdc_window_input *input;
	struct cdc_buffer_reader *reader; /* NULL: not open */
	struct cdc_read read;             /* the last one */
	bool has_read;                    /* the window does not have it yet */
	bool may_read;                    /* the last read did not find the end */
	cdc_lsn limit;                    /* 0: none */
	uint32_t epoch;                   /* of the limit: older generations are below it */
	bool has_reached;                 /* everything below the limit was read */
	bool is_void; /* the stream that was read is not the limit's: it changed its timeline, or
			 generation, that may be below it */
};

/* The input is made; nothing is opened yet.  What setup points to outlives the intake.
 * CDC_NOMEM. */
enum cdc_code cdc_intake_init(struct cdc_intake *in, const struct cdc_intake_setup *setup,
			      struct cdc_window *w, enum cdc_input kind,
			      struct cdc_stream_position start, struct cdc_err *err) CDC_CHECK;
/* Closes the reader and drops the input, which must be empty unless the window is freed next. */
void cdc_intake_clear(struct cdc_intake *in, bool is_last);

/* Opens a reader behind what was read so far.  Codes: the buffer's. */
enum cdc_code cdc_intake_open(struct cdc_intake *in, struct cdc_err *err) CDC_CHECK;
void cdc_intake_close(struct cdc_intake *in); /* every lease with it */

/* What to poll for when cdc_intake_read found the end. */
int cdc_intake_fd(const struct cdc_intake *in);

/* From now on it reads only what commits below lsn in this epoch's generation, and all of those
 * before it;
 * lsn 0: everything.  A reader that has reached its
 * limit may have read beyond it: close it first. */
void cdc_intake_set_limit(struct cdc_intake *in, uint32_t epoch, cdc_lsn lsn);
/* Some reads, as long as there is room.  Codes: the buffer's, CDC_NOMEM (try again). */
enum cdc_code cdc_intake_read(struct cdc_intake *in, struct cdc_err *err) CDC_CHECK;
/* Could another read bring something at once? */
bool cdc_intake_is_ready(const struct cdc_intake *in);

/* Leases whose records are done go back to the buffer. */
void cdc_intake_give_back(struct cdc_intake *in);
/* When there is no room, also of those behind a record that fails for long: the reading goes on, up
 * to CDC_WINDOW_PASSED. */
void cdc_intake_pass(struct cdc_intake *in);

#endif
