/*
 * window.h - the records of one sync that were read and are not yet done.
 *
 * Sorts them into lanes by key, keeps barriers and key changes in their place,
 * and knows the checkpoint: the id up to and including which everything is done
 * or was not selected.  It does no I/O and knows no time.
 *
 * Order: a lane is first in, first out, and the engine has at most one request of
 * a lane in flight.  A barrier waits until everything of its table that precedes
 * it is done; what follows it in its table waits for the barrier.  The second half
 * of a key change waits for the first.  Whatever waits, waits for something that
 * is earlier in the stream, so nothing can wait for ever.
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

enum cdc_order { CDC_ORDER_KEY, CDC_ORDER_SYNC, CDC_ORDER_NONE };

struct cdc_window_chunk;
struct cdc_window_table;

/* A record in the window; lives until it is done and its chunk was taken. */
struct cdc_item {
	struct cdc_item *next; /* in its lane, or in what its table holds back */
	const struct cdc_record *rec;
	struct cdc_window_chunk *chunk; /* whose batch it is in */
	struct cdc_window_table *table;
	struct cdc_item *second; /* of a key change: waits for this one; or NULL */
	uint32_t lane;
	bool is_second; /* waits for the first half of its key change */
	bool is_held;   /* waits with its table for a barrier */
	bool is_done;
	bool was_sent;
};

/* The record where it lies. */
struct cdc_view cdc_item_view(const struct cdc_item *item);

struct cdc_window;

/* lanes: 1 to 256 (one under CDC_ORDER_SYNC).  operations: bit per enum cdc_op.  NULL: no memory.
 */
struct cdc_window *cdc_window_new(size_t lanes, enum cdc_order order, unsigned operations,
				  struct cdc_stream_position start);
void cdc_window_free(struct cdc_window *w); /* leases are not given back: close the reader */

/* Takes what a read returned.  *ret_selected: how many of its records; when 0, the lease stays with
 * the caller, else the window has it.  CDC_NOMEM: nothing was taken. */
enum cdc_code cdc_window_add(struct cdc_window *w, const struct cdc_read *read,
			     size_t *ret_selected, struct cdc_err *err) CDC_CHECK;

size_t cdc_window_records(const struct cdc_window *w); /* not yet done */
size_t cdc_window_bytes(const struct cdc_window *w);   /* JSON of the chunks it holds */
size_t cdc_window_lanes(const struct cdc_window *w);

/*
 * From now on only records at or below last are sent: those that were started, and
 * what lies between them, so that the checkpoint reaches all that is done.
 */
void cdc_window_close_above(struct cdc_window *w, const struct cdc_id *last);
/* Is there still one of them to be done?  Only after close_above. */
bool cdc_window_has_gaps(struct cdc_window *w);

/* The commit time of the oldest record that is not done; 0: none, or unknown. */
int64_t cdc_window_oldest_us(const struct cdc_window *w);

/*
 * The next run of a lane: at most max records of at most max_bytes of JSON (one
 * larger record goes alone), in order, and nothing that still waits for another
 * record.  Writes them to items, returns how many; *ret_has_more: the run ended
 * at a limit, not at the end of the lane.  Changes nothing: the same records come
 * again until they are done.
 */
size_t cdc_window_run(struct cdc_window *w, size_t lane, size_t max, size_t max_bytes,
		      struct cdc_item **items, bool *ret_has_more);

/*
 * The oldest record that may be sent alone as a probe now, nothing being in
 * flight: the first of its key, waiting for nothing, and
 * - after NULL: of another key than the head of every lane that is_suspect marks;
 * - else: with an id above after.
 * NULL: there is none, or no memory to look for it.
 */
struct cdc_item *cdc_window_probe(struct cdc_window *w, const struct cdc_id *after,
				  const bool *is_suspect);

/* The first record of a lane, or NULL. */
struct cdc_item *cdc_window_head(struct cdc_window *w, size_t lane);

/* The record was accepted: its lane, its table and its second half go on. */
void cdc_window_done(struct cdc_window *w, struct cdc_item *item);

/* The checkpoint as of now. */
struct cdc_stream_position cdc_window_position(struct cdc_window *w);

/* A lease whose records are all done, in order, for the caller to give back; NULL: none. */
struct cdc_lease *cdc_window_take_lease(struct cdc_window *w);

#endif
