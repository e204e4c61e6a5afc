/*
 * deliver.h - the engine that brings one sync's records to its sink.
 *
 * Reads the buffer, selects, sorts records into lanes by key, hands runs to the
 * sink, decides what each outcome means, and moves the checkpoint: the id up to
 * and including which every record is done, parked, dead or not selected.
 *
 * The rules are in what it drives (window.h, lanes.h, parking.h), which knows no
 * clock, no buffer and no store; this is the thin loop around them.
 *
 * Threads: step and run belong to one thread; new and free to main.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_DELIVER_H
#define CDC_PIPELINE_DELIVER_H

#include "cdc/base/behind.h"
#include "cdc/base/board.h"
#include "cdc/base/log.h"
#include "cdc/base/metrics.h"
#include "cdc/base/opt.h"
#include "cdc/base/stop.h"
#include "cdc/buffer/buffer.h"
#include "cdc/pipeline/backfill.h"
#include "cdc/pipeline/settings.h"
#include "cdc/pipeline/window.h"
#include "cdc/store/store.h"
#include "sinks/sink.h"

/* Everything outlives the engine; all constant after new. */
struct cdc_deliver_setup {
	const char *sync, *sync_uuid;
	const char *database; /* that the records come from */
	const struct cdc_deliver_settings *settings;
	const struct sink_ops *sink;
	const void *sink_connection, *sink_sync; /* the sink's settings */
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer; /* the group `sync` was added by main */
	struct cdc_store *store;
	const char *const *tables; /* n 0: all */
	size_t table_n;
	const struct cdc_selection *selection; /* NULL: the tables and operations say it all */
	const struct cdc_cursor *cursor;       /* where the sync is; one stream; read by new only */
	struct cdc_backfill *backfill;         /* NULL: existing rows are never copied */
	struct cdc_sync_metrics *metrics;
	struct cdc_board *board;
	struct cdc_behind *behind;
	const struct cdc_stop *stop;
	uint64_t window_bytes; /* most JSON bytes read and not yet done; 0: 8 MiB */
	struct cdc_log log;
};

struct cdc_deliver;

enum cdc_code cdc_deliver_new(const struct cdc_deliver_setup *setup, struct cdc_deliver **ret,
			      struct cdc_err *err) CDC_CHECK;
void cdc_deliver_free(struct cdc_deliver *d);

/*
 * One turn at now_ms (monotonic) and wall_us: takes finished jobs (waiting in
 * the sink for at most wait_ms), reads, dispatches, checkpoints.  random: a
 * fresh number per call, for jitter.  *ret_wait_ms: how long the next call may
 * wait.  Any error stops the sync: CDC_TROUBLE, CDC_GAP, CDC_REJECTED (the endpoint asked for no
 * more, now or earlier), or the buffer's.
 */
enum cdc_code cdc_deliver_step(struct cdc_deliver *d, uint64_t now_ms, int64_t wall_us,
			       uint64_t wait_ms, uint64_t random, uint64_t *ret_wait_ms,
			       struct cdc_err *err) CDC_CHECK;

/*
 * Paused, the sync sends nothing more: its records stay in the buffer as if its
 * endpoint were dead, and what is in flight is finished.  From any thread; in force
 * with the next turn.  It is shown on the board.
 */
void cdc_deliver_pause(struct cdc_deliver *d, bool is_paused);

/*
 * Changes that were sent are to be sent once more, as this command of
 * CDC_VERB_REPLAY says: the thread goes back to there and ends the command.  What
 * was parked stays parked.  From main.  False: another one is still to be taken up.
 */
bool cdc_deliver_replay(struct cdc_deliver *d, const struct cdc_command *command);

/*
 * A sync that has stopped with an error begins again at its checkpoint, and its tables that have
 * stopped (stopped.h) go on; when the cause is still there, they stop again.  From main.
 * TABLES: the thread ends this command as soon as that is durable.
 */
enum cdc_resumed { CDC_RESUMED_NOTHING, CDC_RESUMED_TABLES, CDC_RESUMED_SYNC };
enum cdc_resumed cdc_deliver_resume(struct cdc_deliver *d, int64_t command);

/* The thread: turns until the stop flag is set; on stop it waits up to 8 s for requests in flight
 * and writes the last checkpoint.  A sync that stops with an error waits here to be resumed.
 * Posts to the board. */
void cdc_deliver_run(struct cdc_deliver *d);

#endif
