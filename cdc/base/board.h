/*
 * board.h - what each loop is doing, in words, for health and status pages.
 *
 * One entry per capture thread and per sync.  The loop that owns an entry posts
 * to it; main and the HTTP server read copies.  An entry also carries a
 * heartbeat, by which /healthz knows that the loop turns.
 *
 * Threads: any; each entry has its own lock, held only to copy.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_BOARD_H
#define CDC_BASE_BOARD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "cdc/base/err.h"

enum cdc_state {
	CDC_STATE_STARTING,
	CDC_STATE_RUNNING,
	CDC_STATE_WAITING,   /* works as it should, but waits for something outside; see error */
	CDC_STATE_PAUSED,    /* waits for the word of whoever paused it */
	CDC_STATE_SUSPENDED, /* gave up its place in the buffer; a gap is recorded */
	CDC_STATE_FAILED,    /* stopped with an error that a person must mend */
	CDC_STATE_ENDED,     /* stopped because it was asked to */
};

struct cdc_board_view {
	enum cdc_state state;
	struct cdc_err err; /* code CDC_OK when there is none */
	int64_t since_us;   /* wall time of the last change of state */
};

struct cdc_board {
	pthread_mutex_t mu;
	struct cdc_board_view view; /* guarded by mu */
	_Atomic uint64_t beat_ms;   /* monotonic time of the last turn of the loop */
};

void cdc_board_init(struct cdc_board *b);
void cdc_board_clear(struct cdc_board *b);

/* err may be NULL for "nothing wrong".  now_us: wall time. */
void cdc_board_post(struct cdc_board *b, enum cdc_state state, const struct cdc_err *err,
		    int64_t now_us);
void cdc_board_read(struct cdc_board *b, struct cdc_board_view *ret_view);
void cdc_board_beat(struct cdc_board *b, uint64_t mono_ms);
const char *cdc_state_name(enum cdc_state state);

#endif
