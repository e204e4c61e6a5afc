/*
 * replay.h - where a sync goes back to when a person asks for records again.
 *
 * Threads: pure, but for find, which belongs to the thread of the sync.
 * Layer: pipeline (base, record, buffer).
 */
#ifndef CDC_PIPELINE_REPLAY_H
#define CDC_PIPELINE_REPLAY_H

#include "cdc/base/board.h"
#include "cdc/base/stop.h"
#include "cdc/buffer/buffer.h"

#define CDC_REPLAY_TEXT 64

/* The argument of CDC_VERB_REPLAY. */
void cdc_replay_from_time(int64_t us, char ret_argument[CDC_REPLAY_TEXT]);
void cdc_replay_from_id(const struct cdc_id *id, char ret_argument[CDC_REPLAY_TEXT]);
/* Reads it: the record with that id, or the first that was committed at or after that time, is the
 * first one above *ret.  False: it is neither. */
bool cdc_replay_parse(const char *argument, struct cdc_start *ret);

struct cdc_replay_search {
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer;
	const char *group;
	const char *const *tables; /* n 0: all */
	size_t table_n;
	struct cdc_stream_position from; /* where the group is */
	struct cdc_id to;
	struct cdc_board *board;
	const struct cdc_stop *stop;
};
/* The first record of the tables above from, with its commit time (0: unknown).  CDC_MISSING: there
 * is none up to `to`.  CDC_STOPPED.  Codes: the buffer's. */
enum cdc_code cdc_replay_find(const struct cdc_replay_search *s, struct cdc_id *ret_id,
			      int64_t *ret_us, struct cdc_err *err) CDC_CHECK;

#endif
