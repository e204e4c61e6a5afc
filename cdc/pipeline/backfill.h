/*
 * backfill.h - existing rows of a sync's tables are copied while its changes go on.
 *
 * A thread per sync finds the tables of the publication that the sync has not seen
 * yet, and copies them in rounds of one or more tables.  The delivery thread and
 * this one take turns:
 *
 *     IDLE ─► ASKED ─► HELD ─► COPYING ─► COPIED ─► DELIVERED ─► JOINED ─► IDLE
 *               delivery │ ▲     │ copy broke              │ thread     │
 *               holds the│ └─────┘ (a new snapshot)        notes it     tables
 *               tables   └──► LIFTED (no snapshot now) ────────────►    stream again
 *
 * 1. the tables' changes are held back, durably; 2. a snapshot is made, whose
 * point C is an exact boundary; 3. held changes below C are delivered; 4. the rows
 * as of C; 5. held changes from C on, until they have caught up with the stream.
 * A person may ask for tables to be copied again, and pause all copying: a copy
 * under way then lets its snapshot and its locks go, the tables catch up with the
 * stream, and their copy begins from its start when it is resumed.
 * Copied rows are not in the buffer: should anything die before the last of them is
 * delivered, the round begins again with a new snapshot.
 *
 * Before a round is COPIED, the store learns what it comes to once it is delivered:
 * that its tables are copied, or, where a snapshot became too old, which part of a
 * table is left (copy.h has the rules).  Such a table streams meanwhile, and the
 * next rounds go on with it.  A round of which the store has learned nothing, because
 * it was LIFTED, comes to nothing, whatever dies at which moment.
 *
 * Where marks are asked for, a table's rows stand between two records of operation
 * backfill, which are barriers of the table: {"state":"begin"}, and {"state":"end",
 * "rows":N} with the rows that were copied, also over several parts.  A copy that begins
 * again begins with a mark again, of its own point, and only one that came to its end has
 * an end.
 *
 * A copy is there for nobody's harm: it goes slower while a replica of the source
 * falls behind, or while more than half of the slot's WAL budget is used (not when
 * the buffer is full: then it is the changes held for the copy that wait, and its
 * end is what helps them).
 *
 * Threads: new, free: main.  pause, ask: any.  step and run: the backfill's.  The functions below
 * "for the delivery thread": that one.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_BACKFILL_H
#define CDC_PIPELINE_BACKFILL_H

#include "cdc/base/board.h"
#include "cdc/base/log.h"
#include "cdc/base/metrics.h"
#include "cdc/base/stop.h"
#include "cdc/buffer/buffer.h"
#include "cdc/source/source.h"
#include "cdc/store/store.h"

/* What one sync may use. */
struct cdc_backfill_settings {
	uint64_t connections;     /* 1 to 16 */
	uint64_t max_bytes;       /* JSON of copied rows that are not delivered yet */
	uint64_t rows_per_second; /* 0: as fast as it goes */
	uint64_t stall_ms;        /* without room for a row: the snapshot is let go */
	uint64_t snapshot_ms;    /* a snapshot becomes no older, but for the last part of a table */
	uint64_t replica_lag_ms; /* of a replica: the copy goes slower; 0: whatever it is */
};

/* Everything outlives the backfill. */
struct cdc_backfill_setup {
	const char *sync, *connection;
	struct cdc_source_plan plan; /* tables: what the sync asks for */
	struct cdc_backfill_settings settings;
	bool is_off;    /* only what is asked for is copied, and the round that was under way is
			   brought to its end */
	bool is_whole;  /* order: sync: all tables in one round, and all others wait */
	bool has_marks; /* begin and end of each table's copy are records, too */
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer;
	struct cdc_store *store;
	struct cdc_sync_metrics *metrics;
	struct cdc_board *board;
	const struct cdc_stop *stop;
	struct cdc_log log;
};

struct cdc_backfill;

/* cursor: of the sync; a round that it tells of goes on where it was. */
enum cdc_code cdc_backfill_new(const struct cdc_backfill_setup *setup,
			       const struct cdc_cursor *cursor, struct cdc_backfill **ret,
			       struct cdc_err *err) CDC_CHECK;
/* After both threads have ended.  NULL is fine. */
void cdc_backfill_free(struct cdc_backfill *b);

/* The thread: until the stop flag is set. */
void cdc_backfill_run(struct cdc_backfill *b);

/* In force with the next turn, and shown on the board. */
void cdc_backfill_pause(struct cdc_backfill *b, bool is_paused);
/*
 * Hands a waiting command CDC_VERB_RESYNC or _REPAIR over.  As soon as the round under way
 * allows it (at once, unless its rows are on their last way to the endpoint), the
 * tables are durably to be copied again, a copy of them that is under way begins
 * anew, and the command is ended with an answer: refused, when the publication does
 * not have the table.  A repair gives up a copy that is under way, and waits until the
 * stream has begun the generation behind the gap: a snapshot of before it may lack
 * what lies between both.  CDC_BUSY: too many are waiting; nothing was taken,
 * and nothing behind it is before it is given again.  One that was taken may be, too.
 */
enum cdc_code cdc_backfill_ask(struct cdc_backfill *b, const struct cdc_command *command,
			       struct cdc_err *err) CDC_CHECK;

/* --- for the delivery thread ---------------------------------------------------------- */

enum cdc_backfill_phase {
	CDC_PHASE_IDLE,
	CDC_PHASE_ASKED,     /* hold these tables, then call held */
	CDC_PHASE_HELD,      /* a snapshot is being made */
	CDC_PHASE_COPYING,   /* batches come */
	CDC_PHASE_COPIED,    /* those that can be taken are the last */
	CDC_PHASE_LIFTED,    /* no batches come: let the tables catch up, then call joined */
	CDC_PHASE_DELIVERED, /* being noted; call joined when is_noted and caught up */
	CDC_PHASE_JOINED,
};

struct cdc_backfill_view {
	enum cdc_backfill_phase phase;
	const char *const *tables; /* of the round; valid until joined was called */
	size_t table_n;
	unsigned attempt; /* COPYING, COPIED: which snapshot of the round, from 1 */
	cdc_lsn point;    /* its consistent point */
	uint32_t epoch;   /* of its records */
	bool is_noted;    /* DELIVERED: the store has it */
};

void cdc_backfill_look(struct cdc_backfill *b, struct cdc_backfill_view *ret);
/* Readable when a look or a take may bring something new; drained by look. */
int cdc_backfill_fd(const struct cdc_backfill *b);

void cdc_backfill_held(struct cdc_backfill *b);      /* the hold is durable */
void cdc_backfill_delivered(struct cdc_backfill *b); /* and durably catching up */
void cdc_backfill_joined(struct cdc_backfill *b);    /* the tables stream, durably */

/* The stream below the point is not the one that this attempt's snapshot is of (the server has
 * changed, or the numbering): another is made.  May be said more than once. */
void cdc_backfill_void(struct cdc_backfill *b, unsigned attempt);

/* The next batch of this attempt's rows, or NULL; give it back when its rows are done. */
struct cdc_batch *cdc_backfill_take(struct cdc_backfill *b, unsigned attempt);
void cdc_backfill_give_back(struct cdc_backfill *b, struct cdc_batch *batch);

#endif
