/*
 * parking.h - sets records in trouble aside, and sends them again at their times.
 *
 * What stands aside in the window, and what became of parked records that were sent
 * again, is collected as changes for the store; the caller writes them, durably,
 * before the checkpoint that passes them, and says so.  The queue of a key goes in
 * order: its head alone while it is in trouble, then the rest in batches.  When its
 * head has failed at the last step of retry_schedule it becomes a dead letter, and
 * the next one is tried.  Only the heads' entries are in memory (parked.h); records
 * are read from the store when they are sent.
 *
 * Barriers: one that waits for parked records of its table has them tried every
 * CDC_PARKING_URGENT_MS instead, so with the default schedule they are delivered or
 * dead letters within a minute or so while the endpoint answers; what fails while it
 * is down does not count, and the breaker says so.
 *
 * The times of attempts are wall times, which outlive the process.  None is further ahead
 * than its step of the schedule is long: when the clock is set back, the wait begins anew.
 *
 * Time and chance are arguments, and nothing here does I/O but the sink's submit.
 *
 * Threads: belongs to its caller.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_PARKING_H
#define CDC_PIPELINE_PARKING_H

#include "cdc/pipeline/lanes.h"
#include "cdc/pipeline/parked.h"

#define CDC_PARKING_SLOTS     4 /* requests with parked records at a time */
#define CDC_PARKING_URGENT_MS 5000
#define CDC_PARKING_WRITE_MS  200 /* how long what stands aside may wait to be written */

/* Everything outlives the parking; constant after new. */
struct cdc_parking_setup {
	const char *sync;
	const struct cdc_deliver_settings *settings;
	const struct sink_ops *sink;
	struct cdc_window *window;
	struct cdc_parked *parked;
	struct cdc_lanes *lanes;
	struct cdc_sync_metrics *metrics;
	struct cdc_log log;
};

struct cdc_parking;

struct cdc_parking *cdc_parking_new(const struct cdc_parking_setup *setup); /* NULL: no memory */
void cdc_parking_free(struct cdc_parking *p);

/* How the store stands; the first call is made with what it held when it was opened. */
void cdc_parking_set_totals(struct cdc_parking *p, const struct cdc_park_totals *totals);
const struct cdc_park_totals *cdc_parking_totals(const struct cdc_parking *p);

/* The record is in trouble.  CDC_TROUBLE: it ends the sync (a barrier; `order: sync`, unless that
 * makes dead letters).  CDC_NOMEM, CDC_LIMIT: nothing was done. */
enum cdc_code cdc_parking_take(struct cdc_parking *p, const struct cdc_trouble *trouble,
			       int64_t wall_us, struct cdc_err *err) CDC_CHECK;

/* JSON bytes that may be written of what stands aside (without a call: any).  False: not even the
 * first record has room; then it waits, and what is parked goes on being tried. */
bool cdc_parking_set_room(struct cdc_parking *p, uint64_t bytes);

/* Is there anything to be written now? */
bool cdc_parking_must_write(const struct cdc_parking *p, uint64_t now_ms);
/* What cdc_store_park is to be given; valid until the next call of parking or window.  CDC_NOMEM.
 */
struct cdc_parking_write {
	const struct cdc_park_change *changes;
	struct cdc_park_head *heads;
	size_t n, head_n;
};
enum cdc_code cdc_parking_collect(struct cdc_parking *p, uint64_t now_ms,
				  struct cdc_parking_write *ret, struct cdc_err *err) CDC_CHECK;
/* It is durable. */
void cdc_parking_written(struct cdc_parking *p, const struct cdc_parking_write *w, uint64_t now_ms,
			 int64_t wall_us);

/* What is to be read from the store, and sent, next; false: nothing now.  Before that, everything
 * is to be written.  Its records go into the batch. */
bool cdc_parking_next(struct cdc_parking *p, uint64_t now_ms, int64_t wall_us,
		      struct cdc_park_read *ret_read, struct cdc_batch **ret_batch);
/* They were read, waits as the store says.  Codes: the sink's. */
enum cdc_code cdc_parking_send(struct cdc_parking *p, void *sink, bool waits, uint64_t now_ms,
			       int64_t wall_us, struct cdc_err *err) CDC_CHECK;
/* The first of them cannot be read, nor will it be: it stands alone in the batch, and becomes a
 * dead letter with this reason.  CDC_NOMEM. */
enum cdc_code cdc_parking_bury(struct cdc_parking *p, const char *reason,
			       struct cdc_err *err) CDC_CHECK;
/* They could not be read. */
void cdc_parking_put_off(struct cdc_parking *p, int64_t wall_us);

/* What the answer to one of these requests means; tickets begin behind those of the lanes. */
enum cdc_code cdc_parking_result(struct cdc_parking *p, const struct sink_result *r,
				 uint64_t now_ms, int64_t wall_us, uint64_t random,
				 struct cdc_err *err) CDC_CHECK;

size_t cdc_parking_in_flight(const struct cdc_parking *p);
uint64_t cdc_parking_wait_ms(const struct cdc_parking *p, uint64_t now_ms, int64_t wall_us,
			     uint64_t wait_ms);

#endif
