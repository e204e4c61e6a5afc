#include "cdc/api/reason.h"

#include <inttypes.h>
#include <stdio.h>

#include "cdc/api/metrics_text.h"

#define MUCH_WAL (1u << 20) /* less than this is on its way anyhow */

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
		return true;
	}
	if (!window && !cdc_metric_get(&m->is_behind))
		return false;
	cdc_buf_printf(out, "endpoint: %" PRIu64 "%s records wait", window,
		       cdc_metric_get(&m->is_behind) ? " and more" : "");
	if (age_us)
		cdc_buf_printf(out, ", the oldest for %.1f s", (double)age_us / 1e6);
	cdc_buf_puts(out, "; ");
	put_pace(out, m);
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

void cdc_reason_put(const struct cdc_server_setup *setup, const struct cdc_server_sync *sync,
		    int64_t now_us, struct cdc_buf *out)
{
	const struct cdc_server_source *source = &setup->sources[sync->source_index];

	cdc_buf_printf(out, "  %s: ", sync->name);
	if (!put_delivery(out, sync, now_us) && !put_source(out, source) && !put_copy(out, sync))
		cdc_buf_puts(out, "nothing waits");
	cdc_buf_putc(out, '\n');
}
