/*
 * lanes.h - decides which records of a window are sent when, and what an answer
 * means for them and for the endpoint.
 *
 * A lane has at most one request in flight.  Every failure is first the endpoint's:
 * the lane waits, and the breaker counts.  A batch that is refused is halved down to the
 * one record that is the cause; then, if nothing else was accepted since, other records of
 * the lane are sent alone, to see whether they are.  Only when none of those was accepted
 * the refusal counts.  While such a record rests before its next attempt, what is of other keys
 * in its lane goes out beside it, as long as that is accepted.  What turns out to be a record's own
 * trouble (trouble.h) is handed to the caller, who takes it out of the window; behind it a lane's
 * requests grow again from one record, since where one is refused others may be.
 *
 * Time and chance are arguments; the only thing done to the outside is the sink's
 * submit, so simulations drive it with a sink that answers by script.
 *
 * Threads: belongs to its caller.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_LANES_H
#define CDC_PIPELINE_LANES_H

#include "cdc/base/board.h"
#include "cdc/base/log.h"
#include "cdc/base/metrics.h"
#include "cdc/pipeline/breaker.h"
#include "cdc/pipeline/settings.h"
#include "cdc/pipeline/window.h"
#include "sinks/sink.h"

/* Everything outlives the lanes; constant after new. */
struct cdc_lanes_setup {
	const char *sync;
	const struct cdc_deliver_settings *settings;
	const struct sink_ops *sink;
	struct cdc_window *window;
	struct cdc_sync_metrics *metrics;
	struct cdc_board *board;
	struct cdc_log log;
	struct cdc_id replayed; /* changes at or below come again, and their requests say so */
};

struct cdc_lanes;

struct cdc_lanes *cdc_lanes_new(const struct cdc_lanes_setup *setup); /* NULL: no memory */
void cdc_lanes_free(struct cdc_lanes *l);
size_t cdc_lanes_n(const struct cdc_lanes *l); /* tickets are below it */

/* A record in trouble, still in its lane, with nothing of the lane in flight: it is parked, given
 * up, or ends the sync.  item NULL: there is none. */
struct cdc_trouble {
	struct cdc_item *item;
	unsigned attempts; /* failures of a request with this record alone */
	int status;
	char text[200];
	const char *response; /* as in sink_result */
	size_t response_len;
};

/* What the answer to a lane's request means.  CDC_REJECTED: the endpoint asks for no more. */
enum cdc_code cdc_lanes_result(struct cdc_lanes *l, const struct sink_result *r, uint64_t now_ms,
			       int64_t wall_us, uint64_t random, struct cdc_trouble *ret_trouble,
			       struct cdc_err *err) CDC_CHECK;
/* Sends what may be sent.  Ends at a record in trouble (no request can hold it): again, then.
 * Codes: the sink's. */
enum cdc_code cdc_lanes_send(struct cdc_lanes *l, void *sink, uint64_t now_ms,
			     struct cdc_trouble *ret_trouble, struct cdc_err *err) CDC_CHECK;
/* Time passed: the breaker may open. */
void cdc_lanes_tick(struct cdc_lanes *l, uint64_t now_ms, uint64_t random);
/* Held, the lanes send nothing; requests beside them go on, also as probes. */
void cdc_lanes_hold(struct cdc_lanes *l, bool is_held);
/* Nothing lingers from now on. */
void cdc_lanes_finish(struct cdc_lanes *l);

size_t cdc_lanes_in_flight(const struct cdc_lanes *l);
/* Does a record fail again and again while the endpoint accepts others? */
bool cdc_lanes_has_suspect(const struct cdc_lanes *l);

/* What keeps records back, for people. */
struct cdc_lanes_look {
	size_t records;       /* in the requests that are in flight */
	size_t resting;       /* lanes with records that wait after a failure */
	uint64_t asked_ms;    /* so long nothing goes out, as the endpoint asked; 0: it does not */
	bool is_rate_limited; /* nor by rate_limit */
};
void cdc_lanes_look(const struct cdc_lanes *l, uint64_t now_ms, struct cdc_lanes_look *ret);
const struct cdc_breaker *cdc_lanes_breaker(const struct cdc_lanes *l);
/* How long the next call of send may wait, at most wait_ms. */
uint64_t cdc_lanes_wait_ms(const struct cdc_lanes *l, uint64_t now_ms, uint64_t wait_ms);

/*
 * For requests that go beside the lanes (parking.h): they share the endpoint.
 */
/* May one begin?  When the endpoint bears no more at once, they take turns with the lanes: behind
 * one that began, not before cdc_lanes_send.  *ret_is_probe: the endpoint is in trouble, and no
 * lane has anything to probe it with. */
bool cdc_lanes_may_begin(struct cdc_lanes *l, uint64_t now_ms, bool *ret_is_probe);
/* Not before then; UINT64_MAX: not by time. */
uint64_t cdc_lanes_ready_ms(const struct cdc_lanes *l);
/* It begins, with so many records; its number. */
uint64_t cdc_lanes_begin(struct cdc_lanes *l, bool is_probe, size_t records, uint64_t now_ms);
/* It ended with this result: before accepted or failed. */
void cdc_lanes_ended(struct cdc_lanes *l, const struct sink_result *r, uint64_t now_ms);
/* It was accepted. */
void cdc_lanes_accepted(struct cdc_lanes *l, uint64_t begun);
/* It failed: numbers the failure; is_endpoint: the failure is not the records' alone. */
uint64_t cdc_lanes_failed(struct cdc_lanes *l, const struct sink_result *r, bool is_probe,
			  bool is_endpoint, uint64_t now_ms, uint64_t random);
uint64_t cdc_lanes_accepted_begun(const struct cdc_lanes *l);
/* What the endpoint says is final: 410, or 401 and 403 when the sync says so.  Fills err. */
enum cdc_code cdc_lanes_is_over(const struct cdc_lanes *l, const struct sink_result *r,
				struct cdc_err *err) CDC_CHECK;

#endif
