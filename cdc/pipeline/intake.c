#include "cdc/pipeline/intake.h"

#include <string.h>

#include "cdc/base/stop.h"

#define READS_PER_STEP 4 /* then requests get their turn */

enum cdc_code cdc_intake_init(struct cdc_intake *in, const struct cdc_intake_setup *setup,
			      struct cdc_window *w, enum cdc_input kind,
			      struct cdc_stream_position start, struct cdc_err *err)
{
	*in = (struct cdc_intake){.setup = *setup, .window = w, .may_read = true};
	in->input = cdc_window_input_new(w, kind, start);
	return in->input ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory");
}

void cdc_intake_clear(struct cdc_intake *in, bool is_last)
{
	cdc_intake_close(in);
	if (in->input && !is_last)
		cdc_window_input_drop(in->window, in->input);
	in->input = NULL;
}

enum cdc_code cdc_intake_open(struct cdc_intake *in, struct cdc_err *err)
{
	const struct cdc_intake_setup *s = &in->setup;
	struct cdc_stream_position through = cdc_window_through(in->input);
	const struct cdc_position from = {.n = 1, .streams = &through};

	in->may_read = true;
	return s->ops->reader_open(s->buffer, s->group, &from, s->tables, s->table_n, &in->reader,
				   err);
}

void cdc_intake_close(struct cdc_intake *in)
{
	if (in->reader)
		in->setup.ops->reader_close(in->reader);
	in->reader = NULL;
	in->has_read = false;
}

int cdc_intake_fd(const struct cdc_intake *in)
{
	return in->setup.ops->reader_fd(in->reader);
}

void cdc_intake_set_limit(struct cdc_intake *in, uint32_t epoch, cdc_lsn lsn)
{
	in->epoch = epoch;
	in->limit = lsn;
	in->has_reached = in->is_void = false;
}

static bool has_room(const struct cdc_intake *in)
{
	return (cdc_window_input_bytes(in->input) < in->setup.window_bytes &&
		cdc_window_input_records(in->input) < CDC_WINDOW_RECORDS) ||
	       cdc_window_must_read(in->input);
}

bool cdc_intake_is_ready(const struct cdc_intake *in)
{
	return in->reader && in->may_read && !in->has_reached && !in->is_void && has_room(in);
}

static bool is_below(const struct cdc_intake *in, const struct cdc_id *id)
{
	const unsigned own = CDC_EPOCH_GENERATION(id->epoch);
	const unsigned limit = CDC_EPOCH_GENERATION(in->epoch);

	return own < limit || (own == limit && id->commit_lsn < in->limit);
}

/* Is the stream that brought this one that the limit is not of?  Behind the limit an older timeline
 * is another, too. */
static bool is_strange(const struct cdc_intake *in, const struct cdc_id *id)
{
	return id->epoch > in->epoch || (id->epoch < in->epoch && !is_below(in, id));
}

/* Cuts the read off at the limit, should it lie in it. */
static void cut(struct cdc_intake *in)
{
	struct cdc_read *r = &in->read;
	size_t n = 0;

	while (n < r->n && is_below(in, &r->batch->records[r->index[n]].id))
		in->is_void |= is_strange(in, &r->batch->records[r->index[n++]].id);
	if (n < r->n)
		in->is_void |= is_strange(in, &r->batch->records[r->index[n]].id);
	if (n == r->n)
		return;
	in->has_reached = true;
	r->through = cdc_window_through(in->input);
	if (n)
		r->through.id = r->batch->records[r->index[n - 1]].id;
	r->n = n;
	while (r->end_n && r->ends[r->end_n - 1].commit_lsn >= in->limit)
		r->end_n--;
}

static enum cdc_code read_one(struct cdc_intake *in, struct cdc_err *err)
{
	const struct cdc_buffer_ops *ops = in->setup.ops;
	/* Asked before the read: then its end lies behind the limit, too. */
	struct cdc_buffer_state st = {0};
	bool is_past = false;
	enum cdc_code rc;

	if (in->limit) {
		ops->state(in->setup.buffer, &st);
		is_past = CDC_EPOCH_GENERATION(st.epoch) > CDC_EPOCH_GENERATION(in->epoch) ||
			  (CDC_EPOCH_GENERATION(st.epoch) == CDC_EPOCH_GENERATION(in->epoch) &&
			   st.durable >= in->limit);
	}
	rc = ops->read(in->reader, &in->read, err);
	if (rc)
		return rc;
	in->has_read = true;
	in->is_void |= is_past && in->read.is_at_end && st.epoch > in->epoch;
	in->has_reached = is_past && in->read.is_at_end;
	if (in->limit)
		cut(in);
	return CDC_OK;
}

/* Into the window with what was read.  Should there be no memory, it is kept and tried again: the
 * reader has passed it. */
static enum cdc_code take(struct cdc_intake *in, struct cdc_err *err)
{
	struct cdc_window_added added;
	enum cdc_code rc = cdc_window_add(in->window, in->input, &in->read, &added, err);

	if (rc)
		return rc;
	in->has_read = false;
	if (!added.selected && in->read.lease)
		in->setup.ops->release(in->reader, in->read.lease);
	cdc_metric_add(&in->setup.metrics->skipped, added.skipped);
	in->may_read = !in->read.is_at_end;
	return CDC_OK;
}

enum cdc_code cdc_intake_read(struct cdc_intake *in, struct cdc_err *err)
{
	/* Drained before the read, so that what comes behind it wakes the next turn.  What was
	 * signalled may be a suspension, which is of interest also without room. */
	bool was_signalled = cdc_event_drain(cdc_intake_fd(in));

	if (was_signalled && !has_room(in))
		return in->setup.ops->check(in->reader, err);
	in->may_read = true;
	for (int i = 0; i < READS_PER_STEP && in->may_read && (in->has_read || !in->has_reached) &&
			has_room(in);
	     i++) {
		enum cdc_code rc = in->has_read ? CDC_OK : read_one(in, err);

		if (!rc)
			rc = take(in, err);
		if (rc)
			return rc;
	}
	return CDC_OK;
}

void cdc_intake_give_back(struct cdc_intake *in)
{
	struct cdc_lease *lease;

	while ((lease = cdc_window_take_lease(in->input)))
		in->setup.ops->release(in->reader, lease);
}

void cdc_intake_pass(struct cdc_intake *in)
{
	struct cdc_lease *lease;

	while (!has_room(in) && (lease = cdc_window_pass_lease(in->input)))
		in->setup.ops->release(in->reader, lease);
}
