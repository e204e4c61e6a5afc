/*
 * window.h - the records of one sync that were read and are not yet done.
 *
 * Sorts them into lanes by key, keeps barriers and key changes in their place,
 * and knows the checkpoint: the id up to and including which everything is done
 * or was not selected.  It does no I/O and knows no time.  A key is bound to a lane
 * only while it has records there: then another one, with less to do, may have it.
 *
 * Records come in by inputs, each with a checkpoint of its own: the stream, the
 * changes of tables that are held back from it, the copied rows of these tables.
 * Whatever its input, a record stands behind those of its key that came in
 * before.  A held table moves into lanes of its own, so that its copy does not
 * stand in the way of the others, and back when nothing of it is left there.
 *
 * Order: a lane is first in, first out, and the engine has at most one request of
 * a lane in flight.  A barrier waits until everything of its table that precedes
 * it is done; what follows it in its table waits for the barrier.  The second half
 * of a key change waits for the first, but where it stands aside behind parked
 * records of its own key: then only the order of each key holds.  Whatever waits,
 * waits for something that is earlier in the stream, so nothing can wait for ever.
 *
 * Small and large tables (cdc_window_share): a record of a table that has few in the
 * window goes ahead of what its lane has of others, but for what was sent from its head
 * on, which may be in flight.  What goes ahead forms groups of a request at most, and
 * between two groups a request's worth of the others is left: half of what a lane sends
 * is in the order in which it came, however many small tables there are.  A table has
 * few when its lane has more than eight times as many; one that grows loses the right.
 * - Order per key: a record goes ahead only if those of its key in the lane, when there
 *   are any, did so, too.
 * - Nothing waits for ever: what goes ahead waits for nothing but what is before it in
 *   its lane.  For barriers and for halves of key changes others wait: they stay in
 *   line.  A barrier enters its lane when nothing of its table is in one, and what comes
 *   behind it is held, so that nothing of its table can pass it.
 * - What was sent together stays together, for halving it when it is refused.
 * - Checkpoints are about what is done, in whatever order.  A stop has what lies below
 *   the highest id that was sent still to send; what it cannot send in time leaves
 *   records above the checkpoint that come again.
 *
 * Threads: a window belongs to its caller.
 * Layer: pipeline (base, record, buffer).
 */
#ifndef CDC_PIPELINE_WINDOW_H
#define CDC_PIPELINE_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/buffer/buffer.h"
#include "cdc/pipeline/parked.h"
#include "cdc/pipeline/select.h"

enum cdc_order { CDC_ORDER_KEY, CDC_ORDER_SYNC, CDC_ORDER_NONE };

#define CDC_WINDOW_RECORDS 65536       /* of an input, at which no more is read */
#define CDC_WINDOW_PASSED  (64u << 20) /* bytes that are done behind a record that is not */

struct cdc_window_chunk;
struct cdc_window_table;

/* A record in the window; lives until it is done and its chunk was taken. */
struct cdc_item {
	struct cdc_item *next; /* in its lane, in what its table holds back, or aside */
	const struct cdc_record *rec;
	struct cdc_window_chunk *chunk; /* whose batch it is in */
	struct cdc_window_table *table;
	struct cdc_item *second; /* of a key change: waits for this one; or NULL */
	uint32_t lane;
	bool is_second;  /* waits for the first half of its key change */
	bool is_held;    /* waits with its table for a barrier */
	bool is_aside;   /* to be written to the store */
	bool goes_aside; /* its first half did; aside: it is counted by its key */
	bool was_parked; /* aside: the store has it already */
	bool is_done;
	bool was_sent;
	bool is_ahead;  /* it went ahead of what its lane had */
	bool is_mapped; /* the selector wrote it anew: it is in the chunk's own batch */
};

/* The record where it lies, as it is to be sent. */
struct cdc_view cdc_item_view(const struct cdc_item *item);

struct cdc_window;
struct cdc_window_input;

enum cdc_input {
	CDC_INPUT_STREAM, /* leaves out what cdc_window_hold says */
	CDC_INPUT_HELD,   /* changes of held tables */
	CDC_INPUT_COPY,   /* copied rows: their order is nobody's checkpoint */
};

/* lanes: 1 to 256 (one under CDC_ORDER_SYNC); as many again for held tables when has_apart, but not
 * under CDC_ORDER_SYNC.  operations: bit per enum cdc_op.  NULL: no memory. */
struct cdc_window *cdc_window_new(size_t lanes, bool has_apart, enum cdc_order order,
				  unsigned operations);
/* From now on the selector, which outlives the window, decides in place of the operations. */
void cdc_window_select(struct cdc_window *w, struct cdc_selector *selector);
/*
 * From now on, under CDC_ORDER_SYNC and before there are inputs: records go out by whole
 * transactions.  Checkpoints lie between transactions.  max_bytes: JSON of an input's chunks at
 * which no more is read, so that a transaction that does not fit is sent as far as it is there.
 */
void cdc_window_group(struct cdc_window *w, uint64_t max_bytes);
/* From now on, under CDC_ORDER_KEY and before there are inputs: records of tables with few go
 * ahead, by requests of at most so many records (from 1 on) and bytes of JSON. */
void cdc_window_share(struct cdc_window *w, size_t records, uint64_t bytes);
void cdc_window_free(struct cdc_window *w); /* leases are not given back: close the readers */

/* NULL: no memory.  It lives until drop, or as long as the window. */
struct cdc_window_input *cdc_window_input_new(struct cdc_window *w, enum cdc_input kind,
					      struct cdc_stream_position start);
/* Only when it has no records and no leases any more. */
void cdc_window_input_drop(struct cdc_window *w, struct cdc_window_input *in);

struct cdc_window_added {
	size_t selected; /* records that are to be sent */
	size_t skipped;  /* that are not selected */
};

/* Takes what a read returned.  When no record of it is selected, the lease stays with the caller,
 * else the window has it.  CDC_NOMEM, or what cdc_select says: nothing was taken. */
enum cdc_code cdc_window_add(struct cdc_window *w, struct cdc_window_input *in,
			     const struct cdc_read *read, struct cdc_window_added *ret,
			     struct cdc_err *err) CDC_CHECK;

size_t cdc_window_records(const struct cdc_window *w); /* not yet done */
size_t cdc_window_lanes(const struct cdc_window *w);
size_t cdc_window_input_records(const struct cdc_window_input *in); /* not yet done */
/* Has the input so little that more must be read, whatever room there is? */
bool cdc_window_must_read(const struct cdc_window_input *in);
size_t cdc_window_input_bytes(const struct cdc_window_input *in); /* JSON of its chunks */

/*
 * A table (NULL: every table) is held: the stream's records of it with an id above
 * `above` are left out, because a HELD input brings them.  CDC_NOMEM.
 */
enum cdc_code cdc_window_hold(struct cdc_window *w, const char *table, const struct cdc_id *above,
			      struct cdc_err *err) CDC_CHECK;
/* Leaves out what HELD inputs bring of a table, until it is opened again.  */
void cdc_window_shut(struct cdc_window *w, const char *table, bool is_shut);
/* The table joins the stream again, which brings its records above `through`. */
void cdc_window_join(struct cdc_window *w, const char *table, const struct cdc_id *through);
/*
 * The table stops before this record, a barrier that is the next of it and not in flight: the
 * record and what has come behind it in its table leave the window as if done, and the stream's
 * records of the table above *ret_own, behind which this one comes next, are left out until it
 * joins.
 */
void cdc_window_stop(struct cdc_window *w, struct cdc_item *barrier, struct cdc_id *ret_own);
/* Is nothing of the table (NULL: of any) in the window? */
bool cdc_window_is_drained(struct cdc_window *w, const char *table);

/* From now on records of these keys stand aside, and those that are too large to be sent.  parked
 * outlives the window; who takes a key out of it calls cdc_window_unpark. */
void cdc_window_set_parked(struct cdc_window *w, struct cdc_parked *parked);
/* Whose queue the record joins: its key's, or under CDC_ORDER_NONE its own. */
uint64_t cdc_window_queue_of(const struct cdc_window *w, const struct cdc_item *item);
/* The record, which is in a lane and not in flight, stands aside with all of its key behind it.
 * Not for barriers.  CDC_NOMEM, CDC_LIMIT: nothing changed. */
enum cdc_code cdc_window_park(struct cdc_window *w, struct cdc_item *item,
			      struct cdc_err *err) CDC_CHECK;
/* The record alone stands aside, and its key is not parked. */
void cdc_window_give_up(struct cdc_window *w, struct cdc_item *item);
/* The first record that stands aside, the others by next; how many, and bytes of the JSON of those
 * that the store does not have. */
struct cdc_item *cdc_window_aside(const struct cdc_window *w, size_t *ret_n, size_t *ret_bytes);
/* The first record that stands aside is in the store: it is done. */
void cdc_window_written(struct cdc_window *w);
/* A queue of the table has another head, or is no more: what waited for that goes on. */
void cdc_window_unpark(struct cdc_window *w, uint64_t table_hash);
/* Are there records of this key in lanes?  They come before those that were parked. */
bool cdc_window_has_key(const struct cdc_window *w, uint64_t key_hash);
/* By whole transactions: all that is left of the record's one stands aside, also what comes later.
 */
void cdc_window_give_up_group(struct cdc_window *w, struct cdc_item *item);
/* Is it a record of the transaction that was given up last, or begun to be before a restart? */
bool cdc_window_is_given_up(const struct cdc_window *w, const struct cdc_id *id);
/* Does a barrier of the table wait that comes behind this id? */
bool cdc_window_has_barrier(const struct cdc_window *w, uint64_t table_hash,
			    const struct cdc_id *id);

/* Notes that the record is on its way. */
void cdc_window_sent(struct cdc_item *item);

/*
 * From now on of each input only records are sent that were started, and what lies
 * between them, so that the checkpoints reach all that is done.
 */
void cdc_window_close(struct cdc_window *w);
/* Is there still one of them to be done, but for copied rows?  Only after close. */
bool cdc_window_has_gaps(struct cdc_window *w);

/* The record that is not done and was committed first; one without a commit time only when there
 * is no other.  NULL: all is done. */
const struct cdc_item *cdc_window_oldest(const struct cdc_window *w);

/* How many records wait for a barrier of their table, the barriers included. */
size_t cdc_window_held(const struct cdc_window *w);
/* The records of the lane that has most. */
size_t cdc_window_deepest(const struct cdc_window *w);

/*
 * The next run of a lane: at most max records of at most max_bytes of JSON (one
 * larger record goes alone), in order, and nothing that still waits for another
 * record; by whole transactions records of one, and none while it is not known where
 * it ends, unless they fill the limits.  Writes them to items, returns how many; *ret_has_more: the
 * run ended at a limit, not at the end of the lane.  Changes nothing: the same records come again
 * until they are done.
 */
size_t cdc_window_run(struct cdc_window *w, size_t lane, size_t max, size_t max_bytes,
		      struct cdc_item **items, bool *ret_has_more);

/* Is it a record of a transaction that goes out as a whole?  Copied rows and messages outside of
 * transactions are not. */
bool cdc_window_is_grouped(const struct cdc_window *w, const struct cdc_item *item);
/* Of a run that begins with such a record: does its transaction end with it? */
bool cdc_window_run_is_last(const struct cdc_window *w, struct cdc_item *const *items, size_t n);
/* The same transaction? */
static inline bool cdc_id_is_same_commit(const struct cdc_id *a, const struct cdc_id *b)
{
	return a->commit_lsn == b->commit_lsn && a->epoch == b->epoch;
}
/* The id behind everything of its transaction, when not all of that was read; else the same. */
struct cdc_id cdc_window_behind(const struct cdc_window_input *in, struct cdc_id id);

/*
 * The oldest record that may be sent alone as a probe now, nothing being in
 * flight: the first of its key, waiting for nothing, and
 * - after NULL: of another key than the head of every lane that is_suspect marks;
 * - else: with an id above after.
 * NULL: there is none, or no memory to look for it.
 */
struct cdc_item *cdc_window_probe(struct cdc_window *w, const struct cdc_id *after,
				  const bool *is_suspect);

/*
 * The next record of a lane that may be sent alone in place of the lane's head, to compare
 * the two: of another key, the first of it, waiting for nothing, with the lowest id above after.
 * NULL: there is none near.
 */
struct cdc_item *cdc_window_other(struct cdc_window *w, size_t lane, const struct cdc_id *after);

/*
 * A run of the lane beside the queue of its head, which waits: as cdc_window_run, but nothing of
 * that queue, and of what may go with it only what waits for nothing else.
 */
size_t cdc_window_run_beside(struct cdc_window *w, size_t lane, size_t max, size_t max_bytes,
			     struct cdc_item **items, bool *ret_has_more);

/* The first record of a lane, or NULL. */
struct cdc_item *cdc_window_head(struct cdc_window *w, size_t lane);

/* The record was accepted: its lane, its table and its second half go on. */
void cdc_window_done(struct cdc_window *w, struct cdc_item *item);

/* The input's checkpoint as of now. */
struct cdc_stream_position cdc_window_position(struct cdc_window_input *in);
/* How far the input has come in: the last read's `through`. */
struct cdc_stream_position cdc_window_through(const struct cdc_window_input *in);

/* A lease of the input whose records are all done, in order, for the caller to give back; NULL:
 * none. */
struct cdc_lease *cdc_window_take_lease(struct cdc_window_input *in);
/*
 * One of those behind the first record that is not done, so that a record that fails for long does
 * not keep the input from being read; NULL: none, or CDC_WINDOW_PASSED bytes of JSON were passed
 * so. The checkpoint does not move: after a crash they come again.
 */
struct cdc_lease *cdc_window_pass_lease(struct cdc_window_input *in);
/* The same as take whether they are done or not, when the window is to be freed next and nothing
 * else. */
struct cdc_lease *cdc_window_abandon_lease(struct cdc_window_input *in);

#endif
