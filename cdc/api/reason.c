#include "cdc/api/reason.h"

#include <inttypes.h>
#include <stdio.h>

#include "cdc/api/metrics_text.h"
#include "sinks/sink.h"

#define MUCH_WAL (1u << 20) /* less than this is on its way anyhow */
#define HOT_LANE 10         /* records: fewer in one lane are no reason */
#define MIB      1048576.0
#define PART     "      %-10s"

/* Texts of others may hold anything; a line stays a line. */
static void put_clean(struct cdc_buf *out, const char *text)
{
	for (; *text; text++)
		cdc_buf_putc(out, (unsigned char)*text < ' ' ? ' ' : *text);
}

static void put_state(struct cdc_buf *out, const char *what, const struct cdc_board_view *view)
{
	cdc_buf_printf(out, "%s%s", what, cdc_state_name(view->state));
	if (view->err.code == CDC_OK)
		return;
	cdc_buf_puts(out, ": ");
	put_clean(out, view->err.msg);
}

/* How long a request takes, on average, and how many are on their way. */
static void put_pace(struct cdc_buf *out, const struct cdc_sync_metrics *m)
{
	uint64_t n = 0;

	for (size_t i = 0; i < CDC_HISTOGRAM_BUCKETS; i++)
		n += cdc_metric_get(&m->request.buckets[i]);
	cdc_buf_printf(out, "%" PRIu64 " requests are on their way", cdc_metric_get(&m->in_flight));
	if (n)
		cdc_buf_printf(out, ", one takes %.1f ms on average",
			       (double)cdc_metric_get(&m->request.sum_us) / (double)n / 1000);
}

static bool is_over(enum cdc_state state)
{
	return state == CDC_STATE_FAILED || state == CDC_STATE_SUSPENDED ||
	       state == CDC_STATE_ENDED;
}

static bool is_behind(const struct cdc_server_sync *s)
{
	return cdc_metric_get(&s->metrics->window) || cdc_metric_get(&s->metrics->is_behind);
}

/* What keeps back most of what waits, when the endpoint is not simply slow. */
static void put_cause(struct cdc_buf *out, const struct cdc_sync_metrics *m)
{
	const uint64_t waiting = cdc_waiting_records(m), asked_ms = cdc_metric_get(&m->asked_ms);
	const uint64_t held = cdc_metric_get(&m->held), deepest = cdc_metric_get(&m->deepest);
	const uint64_t resting = cdc_metric_get(&m->resting);

	if (asked_ms)
		cdc_buf_printf(out, "it asked for %.1f s without requests",
			       (double)asked_ms / 1000);
	else if (resting && !cdc_metric_get(&m->in_flight))
		cdc_buf_printf(out, "%" PRIu64 " lanes wait after a failure", resting);
	else if (cdc_metric_get(&m->is_rate_limited))
		cdc_buf_puts(out, "rate_limit lets no more out");
	else if (held > waiting / 2)
		cdc_buf_printf(out,
			       "%" PRIu64 " of them are, or come behind, a truncate, schema or "
			       "message record, which waits for all before it, parked ones too",
			       held);
	else if (deepest > waiting / 2 && deepest >= HOT_LANE &&
		 cdc_metric_get(&m->in_flight) < cdc_metric_get(&m->limit))
		cdc_buf_printf(out, "%" PRIu64 " of them in one lane, for one key or a few",
			       deepest);
	else
		put_pace(out, m);
}

/* The endpoint and the lanes before it. */
static bool put_delivery(struct cdc_buf *out, const struct cdc_server_sync *s, int64_t now_us)
{
	const struct cdc_sync_metrics *m = s->metrics;
	const uint64_t window = cdc_metric_get(&m->window);
	const uint64_t age_us = cdc_lag_us(now_us, cdc_metric_get(&m->oldest_us));
	struct cdc_board_view view;

	cdc_board_read(s->board, &view);
	if (is_over(view.state)) {
		put_state(out, "the sync has ", &view);
		return true;
	}
	if (view.state == CDC_STATE_PAUSED) {
		cdc_buf_printf(out, "the sync is paused; go on with: walpost resume %s", s->name);
		return true;
	}
	if (view.state != CDC_STATE_RUNNING) {
		put_state(out, "endpoint: ", &view);
		if (cdc_metric_get(&m->asked_ms)) {
			cdc_buf_puts(out, "; ");
			put_cause(out, m);
		}
		return true;
	}
	if (!is_behind(s))
		return false;
	cdc_buf_printf(out, "endpoint: %" PRIu64 "%s records wait", window,
		       cdc_metric_get(&m->is_behind) ? " and more" : "");
	if (age_us)
		cdc_buf_printf(out, ", the oldest for %.1f s", (double)age_us / 1e6);
	cdc_buf_puts(out, "; ");
	put_cause(out, m);
	return true;
}

static bool put_source(struct cdc_buf *out, const struct cdc_server_source *s)
{
	const uint64_t lag = cdc_source_lag_bytes(s->metrics);
	struct cdc_board_view view;

	cdc_board_read(s->board, &view);
	if (view.state != CDC_STATE_RUNNING) {
		/* The reader waits for the buffer when that is full; its words say so. */
		put_state(out, view.err.code == CDC_BUSY ? "buffer: " : "source: ", &view);
		return true;
	}
	if (lag < MUCH_WAL)
		return false;
	cdc_buf_printf(out, "source: %" PRIu64 " bytes of WAL are not read or not on disk yet",
		       lag);
	return true;
}

static bool put_copy(struct cdc_buf *out, const struct cdc_server_sync *s)
{
	const struct cdc_sync_metrics *m = s->metrics;
	const uint64_t pending = cdc_metric_get(&m->backfill_pending);
	struct cdc_board_view view;

	if (!s->backfill_board || !pending)
		return false;
	cdc_board_read(s->backfill_board, &view);
	if (view.state == CDC_STATE_PAUSED)
		cdc_buf_printf(out,
			       "backfill: %" PRIu64
			       " tables are to be copied, and it is paused; go "
			       "on with: walpost backfill resume %s",
			       pending, s->name);
	else if (view.state != CDC_STATE_RUNNING)
		put_state(out, "backfill: ", &view);
	else
		cdc_buf_printf(out,
			       "backfill: %" PRIu64
			       " tables are not copied yet, the present copy is at %.1f %%",
			       pending, (double)cdc_metric_get(&m->backfill_permille) / 10);
	return true;
}

/* --- the way of a record, part by part ------------------------------------------------ */

static void put_ago(struct cdc_buf *out, int64_t now_us, uint64_t then_us)
{
	cdc_buf_printf(out, "%.1f s ago", (double)cdc_lag_us(now_us, then_us) / 1e6);
}

static void put_oldest(struct cdc_buf *out, const struct cdc_behind_view *b, int64_t now_us)
{
	if (!b->has_oldest)
		return;
	cdc_buf_printf(out, PART, "oldest");
	put_clean(out, b->oldest.table);
	cdc_buf_printf(out, ", key hash %016" PRIx64 ", %s", b->oldest.key_hash, b->oldest.id);
	if (b->oldest.commit_us > 0) {
		cdc_buf_puts(out, ", committed ");
		put_ago(out, now_us, (uint64_t)b->oldest.commit_us);
	}
	cdc_buf_putc(out, '\n');
}

static void put_source_part(struct cdc_buf *out, const struct cdc_server_source *s)
{
	struct cdc_board_view view;

	cdc_board_read(s->board, &view);
	cdc_buf_printf(out, PART "%" PRIu64 " bytes of WAL are not confirmed; ", "source",
		       cdc_source_lag_bytes(s->metrics));
	put_state(out, "", &view);
	cdc_buf_putc(out, '\n');
}

static void put_buffer_part(struct cdc_buf *out, const struct cdc_server_source *s)
{
	struct cdc_buffer_stats stats = {0};

	if (s->buffer)
		s->ops->stats(s->buffer, &stats);
	cdc_buf_printf(out, PART "%.1f of %.1f MiB are not delivered", "buffer",
		       (double)cdc_metric_get(&s->buffer_metrics->undelivered_bytes) / MIB,
		       (double)cdc_metric_get(&s->buffer_metrics->max_bytes) / MIB);
	if (stats.holder && stats.holder[0])
		cdc_buf_printf(out, ", held by %s", stats.holder);
	cdc_buf_putc(out, '\n');
}

static void put_lanes_part(struct cdc_buf *out, const struct cdc_sync_metrics *m)
{
	cdc_buf_printf(out,
		       PART "%" PRIu64 " records in %" PRIu64 " requests (at most %" PRIu64
			    " at once), %" PRIu64 " wait: %" PRIu64 " in the longest lane, %" PRIu64
			    " behind a barrier; %" PRIu64 " lanes wait after a failure\n",
		       "lanes", cdc_metric_get(&m->in_flight_records),
		       cdc_metric_get(&m->in_flight), cdc_metric_get(&m->limit),
		       cdc_waiting_records(m), cdc_metric_get(&m->deepest),
		       cdc_metric_get(&m->held), cdc_metric_get(&m->resting));
}

static void put_endpoint_part(struct cdc_buf *out, const struct cdc_sync_metrics *m,
			      const struct cdc_behind_view *b, int64_t now_us)
{
	const uint64_t accepted_us = cdc_metric_get(&m->accepted_us);

	cdc_buf_printf(out, PART, "endpoint");
	for (int i = 0; i < CDC_OUTCOMES; i++)
		cdc_buf_printf(out, "%s%" PRIu64 " %s", i ? ", " : "",
			       cdc_metric_get(&m->outcomes[i]),
			       sink_outcome_name((enum sink_outcome)i));
	if (accepted_us) {
		cdc_buf_puts(out, "; accepted ");
		put_ago(out, now_us, accepted_us);
	}
	if (b->failure[0]) {
		cdc_buf_puts(out, "; failed ");
		put_ago(out, now_us, b->failure_us > 0 ? (uint64_t)b->failure_us : 0);
		cdc_buf_puts(out, ": ");
		put_clean(out, b->failure);
	}
	cdc_buf_putc(out, '\n');
}

static void put_parts(struct cdc_buf *out, const struct cdc_server_source *source,
		      const struct cdc_server_sync *sync, int64_t now_us)
{
	struct cdc_behind_view behind;

	cdc_behind_read(sync->behind, &behind);
	put_oldest(out, &behind, now_us);
	put_source_part(out, source);
	put_buffer_part(out, source);
	put_lanes_part(out, sync->metrics);
	put_endpoint_part(out, sync->metrics, &behind, now_us);
}

void cdc_reason_put(const struct cdc_server_setup *setup, const struct cdc_server_sync *sync,
		    int64_t now_us, struct cdc_buf *out)
{
	const struct cdc_server_source *source = &setup->sources[sync->source_index];

	cdc_buf_printf(out, "  %s: ", sync->name);
	if (!put_delivery(out, sync, now_us) && !put_source(out, source) && !put_copy(out, sync))
		cdc_buf_puts(out, "nothing waits");
	cdc_buf_putc(out, '\n');
	if (is_behind(sync))
		put_parts(out, source, sync, now_us);
}
