/*
 * capture.h - the loop that moves one slot's changes into a buffer.
 *
 * Its promises: what it confirms is the buffer's durable() and never more; a
 * batch the buffer does not take is kept, the socket is left alone, and status
 * updates go on, so wal_sender_timeout never fires because a destination is
 * slow.  What will not heal by itself ends the loop with one error on the board;
 * everything else is retried with backoff for ever.
 *
 * A gap (changes that were not read and can no longer be had) waits for a word, or
 * on_gap: resync is one.  Then the slot is made anew, in a generation of its own,
 * and the store gets the gap and the commands to copy the tables of all syncs again.
 *
 * Threads: run belongs to one thread; new and free to main; accept_gap to any.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_CAPTURE_H
#define CDC_PIPELINE_CAPTURE_H

#include "cdc/base/board.h"
#include "cdc/base/log.h"
#include "cdc/base/metrics.h"
#include "cdc/base/selection.h"
#include "cdc/base/stop.h"
#include "cdc/buffer/buffer.h"
#include "cdc/source/source.h"
#include "cdc/store/store.h"

/* Everything outlives the capture; all constant after new. */
struct cdc_capture_setup {
	const char *connection;   /* name in the file */
	bool slot_is_ours;        /* the slot's name is walpost's own choice, not the user's */
	const char *const *syncs; /* that are fed: their tables are copied again behind a gap */
	const struct cdc_selection *const *selections; /* theirs */
	size_t sync_n;
	struct cdc_source_plan plan;
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer;
	struct cdc_store *store;
	struct cdc_source_metrics *metrics;
	struct cdc_board *board;
	const struct cdc_stop *stop;
	struct cdc_log log;
};

struct cdc_capture;

enum cdc_code cdc_capture_new(const struct cdc_capture_setup *setup, struct cdc_capture **ret,
			      struct cdc_err *err) CDC_CHECK;
void cdc_capture_free(struct cdc_capture *c);

/* The thread: turns until the stop flag is set or an error that a person must mend. Posts to the
 * board. */
void cdc_capture_run(struct cdc_capture *c);

/* The word of a waiting command CDC_VERB_ACCEPT_GAP, which is ended with what came of it at the
 * next attempt to read the slot.  False: another was given, and is not ended yet. */
bool cdc_capture_accept_gap(struct cdc_capture *c, int64_t command) CDC_CHECK;

#endif
