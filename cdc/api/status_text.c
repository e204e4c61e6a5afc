#include "cdc/api/status_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cdc/api/metrics_text.h"
#include "cdc/api/reason.h"
#include "cdc/base/clock.h"
#include "cdc/source/source.h"

#define CELL_MAX     140 /* two names and an arrow */
#define COLUMNS_MAX  11
#define ERROR_INDENT "      "

/* A table is rendered twice: once to learn the widths, once to write. */
struct table {
	size_t column_n;
	size_t widths[COLUMNS_MAX];
	bool is_right[COLUMNS_MAX];
	struct cdc_buf *out; /* NULL while measuring */
};

static void put_cell(struct table *t, size_t column, const char *text)
{
	size_t len = strlen(text), pad;

	if (!t->out) {
		if (len > t->widths[column])
			t->widths[column] = len;
		return;
	}
	/* A value may have grown since it was measured. */
	pad = len < t->widths[column] ? t->widths[column] - len : 0;
	cdc_buf_puts(t->out, "  ");
	if (t->is_right[column])
		cdc_buf_printf(t->out, "%*s", (int)pad, "");
	cdc_buf_puts(t->out, text);
	/* No blanks at the end of a line. */
	if (!t->is_right[column] && column + 1 < t->column_n)
		cdc_buf_printf(t->out, "%*s", (int)pad, "");
	if (column + 1 == t->column_n)
		cdc_buf_putc(t->out, '\n');
}

static void put_row(struct table *t, const char *const *cells)
{
	for (size_t i = 0; i < t->column_n; i++)
		put_cell(t, i, cells[i]);
}

/* "3.4 GiB" */
static void format_bytes(uint64_t bytes, char ret_text[CELL_MAX])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t i = 0;

	for (; v >= 1024 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		v /= 1024;
	(void)snprintf(ret_text, CELL_MAX, i ? "%.1f %s" : "%.0f %s", v, units[i]);
}

/* "0.4 s", "12 s", "3 m 05 s", "4 h 07 m", "9 d 03 h" */
static void format_span(uint64_t us, char ret_text[CELL_MAX])
{
	uint64_t s = us / 1000000;

	if (us == 0)
		(void)snprintf(ret_text, CELL_MAX, "0 s");
	else if (s < 10)
		(void)snprintf(ret_text, CELL_MAX, "%.1f s", (double)us / 1e6);
	else if (s < 60)
		(void)snprintf(ret_text, CELL_MAX, "%" PRIu64 " s", s);
	else if (s < 3600)
		(void)snprintf(ret_text, CELL_MAX, "%" PRIu64 " m %02" PRIu64 " s", s / 60, s % 60);
	else if (s < 86400)
		(void)snprintf(ret_text, CELL_MAX, "%" PRIu64 " h %02" PRIu64 " m", s / 3600,
			       s / 60 % 60);
	else
		(void)snprintf(ret_text, CELL_MAX, "%" PRIu64 " d %02" PRIu64 " h", s / 86400,
			       s / 3600 % 24);
}

static void format_count(uint64_t n, char ret_text[CELL_MAX])
{
	(void)snprintf(ret_text, CELL_MAX, "%" PRIu64, n);
}

/* A text from elsewhere, on one line. */
static void put_clean(struct cdc_buf *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		cdc_buf_putc(out, c < 0x20 || c == 0x7f ? ' ' : (char)c);
	}
}

static void put_error(struct table *t, const struct cdc_board_view *view)
{
	if (!t->out || view->err.code == CDC_OK)
		return;
	cdc_buf_printf(t->out, ERROR_INDENT "%s: ", cdc_code_name(view->err.code));
	put_clean(t->out, view->err.msg);
	cdc_buf_putc(t->out, '\n');
	if (view->err.remedy[0]) {
		cdc_buf_puts(t->out, ERROR_INDENT "remedy: ");
		put_clean(t->out, view->err.remedy);
		cdc_buf_putc(t->out, '\n');
	}
}

static void format_since(const struct cdc_board_view *view, int64_t now_us, char ret_text[CELL_MAX])
{
	format_span(cdc_lag_us(now_us, view->since_us > 0 ? (uint64_t)view->since_us : 0),
		    ret_text);
}

static void put_sources(struct table *t, const struct cdc_server_setup *setup, int64_t now_us)
{
	put_row(t, (const char *const[]){"SOURCE", "SLOT", "STATE", "FOR", "LAG", "LAG TIME",
					 "CAPTURED", "RECONNECTS"});
	for (size_t i = 0; i < setup->source_n; i++) {
		const struct cdc_server_source *s = &setup->sources[i];
		char since[CELL_MAX], lag[CELL_MAX], lag_time[CELL_MAX], captured[CELL_MAX],
			reconnects[CELL_MAX];
		struct cdc_board_view view;

		cdc_board_read(s->board, &view);
		format_since(&view, now_us, since);
		format_bytes(cdc_source_lag_bytes(s->metrics), lag);
		format_span(cdc_lag_us(now_us, cdc_metric_get(&s->metrics->unconfirmed_us)),
			    lag_time);
		format_count(cdc_metric_get(&s->metrics->captured), captured);
		format_count(cdc_metric_get(&s->metrics->reconnects), reconnects);
		put_row(t, (const char *const[]){s->connection, s->slot, cdc_state_name(view.state),
						 since, lag, lag_time, captured, reconnects});
		put_error(t, &view);
	}
}

/* "3.4 GiB", or that it is not known (yet). */
static void format_known(bool is_known, uint64_t bytes, const char *other, char ret_text[CELL_MAX])
{
	if (is_known)
		format_bytes(bytes, ret_text);
	else
		(void)snprintf(ret_text, CELL_MAX, "%s", other);
}

static void put_slots(struct table *t, const struct cdc_server_setup *setup)
{
	put_row(t, (const char *const[]){"SLOT", "WAL STATUS", "KEPT", "OF", "%", "UNCONFIRMED",
					 "SAFE"});
	for (size_t i = 0; i < setup->source_n; i++) {
		const struct cdc_source_metrics *m = setup->sources[i].metrics;
		const bool is_known = cdc_metric_get(&m->slot_looked_us) != 0;
		char kept[CELL_MAX], budget[CELL_MAX], percent[CELL_MAX] = "-",
						       unconfirmed[CELL_MAX], safe[CELL_MAX];

		format_known(is_known, cdc_metric_get(&m->slot_retained_bytes), "-", kept);
		format_known(is_known, cdc_metric_get(&m->slot_budget_bytes), "-", budget);
		format_known(is_known, cdc_metric_get(&m->slot_unconfirmed_bytes), "-",
			     unconfirmed);
		format_known(is_known && cdc_metric_get(&m->slot_has_limit),
			     cdc_metric_get(&m->slot_safe_bytes), is_known ? "no limit" : "-",
			     safe);
		if (is_known)
			format_count(cdc_metric_get(&m->slot_used_percent), percent);
		put_row(t, (const char *const[]){
				   setup->sources[i].slot,
				   cdc_wal_status_name((enum cdc_wal_status)cdc_metric_get(
					   &m->slot_wal_status)),
				   kept, budget, percent, unconfirmed, safe});
	}
}

static void put_buffers(struct table *t, const struct cdc_server_setup *setup)
{
	put_row(t, (const char *const[]){"BUFFER", "USED", "OF", "%", "UNDELIVERED", "RECORDS",
					 "HELD BY"});
	for (size_t i = 0; i < setup->source_n; i++) {
		const struct cdc_server_source *s = &setup->sources[i];
		char used[CELL_MAX], max[CELL_MAX], percent[CELL_MAX] = "-", held[CELL_MAX],
						    records[CELL_MAX] = "-";
		struct cdc_buffer_stats stats = {0};
		uint64_t bytes = cdc_metric_get(&s->buffer_metrics->bytes);
		uint64_t max_bytes = cdc_metric_get(&s->buffer_metrics->max_bytes);

		if (s->buffer) {
			s->ops->stats(s->buffer, &stats);
			format_count(stats.records, records);
		}
		format_bytes(bytes, used);
		format_bytes(max_bytes, max);
		format_bytes(cdc_metric_get(&s->buffer_metrics->undelivered_bytes), held);
		if (max_bytes)
			(void)snprintf(percent, sizeof(percent), "%.0f",
				       100.0 * (double)bytes / (double)max_bytes);
		put_row(t, (const char *const[]){s->slot, used, max, percent, held, records,
						 stats.holder && stats.holder[0] ? stats.holder
										 : "-"});
	}
}

static void put_syncs(struct table *t, const struct cdc_server_setup *setup, int64_t now_us)
{
	static const char *const breakers[] = {"closed", "open", "half-open"};

	put_row(t, (const char *const[]){"SYNC", "WAY", "STATE", "FOR", "DELIVERED", "BEHIND",
					 "BEHIND TIME", "PARKED", "DEAD", "FAILED", "BREAKER"});
	for (size_t i = 0; i < setup->sync_n; i++) {
		const struct cdc_server_sync *s = &setup->syncs[i];
		char way[CELL_MAX], since[CELL_MAX], delivered[CELL_MAX], behind[CELL_MAX],
			age[CELL_MAX], parked[CELL_MAX], dead[CELL_MAX], failed[CELL_MAX];
		uint64_t breaker = cdc_metric_get(&s->metrics->breaker);
		struct cdc_board_view view;

		cdc_board_read(s->board, &view);
		format_since(&view, now_us, since);
		format_count(cdc_metric_get(&s->metrics->delivered), delivered);
		(void)snprintf(way, sizeof(way), "%s > %s", s->source, s->destination);
		/* The window is counted, what the buffer holds beyond it is not. */
		(void)snprintf(behind, sizeof(behind), "%" PRIu64 "%s",
			       cdc_metric_get(&s->metrics->window),
			       cdc_metric_get(&s->metrics->is_behind) ? "+" : "");
		format_span(cdc_lag_us(now_us, cdc_metric_get(&s->metrics->oldest_us)), age);
		format_count(cdc_metric_get(&s->metrics->parked), parked);
		format_count(cdc_metric_get(&s->metrics->dead), dead);
		format_count(cdc_metric_get(&s->metrics->failed), failed);
		put_row(t, (const char *const[]){s->name, way, cdc_state_name(view.state), since,
						 delivered, behind, age, parked, dead, failed,
						 breaker < 3 ? breakers[breaker] : "?"});
		put_error(t, &view);
		if (t->out && s->caution)
			cdc_buf_printf(t->out, ERROR_INDENT "caution: %s\n", s->caution);
		if (t->out && cdc_metric_get(&s->metrics->stopped_tables))
			cdc_buf_printf(t->out,
				       ERROR_INDENT
				       "%" PRIu64 " tables have stopped before a record "
				       "that is refused; go on with: walpost resume %s\n",
				       cdc_metric_get(&s->metrics->stopped_tables), s->name);
	}
}

static void put_backfills(struct table *t, const struct cdc_server_setup *setup, int64_t now_us)
{
	put_row(t, (const char *const[]){"BACKFILL", "STATE", "FOR", "TABLES LEFT", "DONE", "ROWS",
					 "%", "ETA"});
	for (size_t i = 0; i < setup->sync_n; i++) {
		const struct cdc_server_sync *s = &setup->syncs[i];
		char since[CELL_MAX], left[CELL_MAX], done[CELL_MAX], rows[CELL_MAX],
			percent[CELL_MAX], eta[CELL_MAX];
		struct cdc_board_view view;

		if (!s->backfill_board)
			continue;
		cdc_board_read(s->backfill_board, &view);
		format_since(&view, now_us, since);
		format_count(cdc_metric_get(&s->metrics->backfill_pending), left);
		format_count(cdc_metric_get(&s->metrics->backfill_done), done);
		format_count(cdc_metric_get(&s->metrics->backfill_rows), rows);
		(void)snprintf(percent, sizeof(percent), "%.1f",
			       (double)cdc_metric_get(&s->metrics->backfill_permille) / 10);
		format_span(cdc_metric_get(&s->metrics->backfill_eta_ms) * 1000, eta);
		put_row(t, (const char *const[]){s->name, cdc_state_name(view.state), since, left,
						 done, rows, percent, eta});
		put_error(t, &view);
	}
}

static bool has_backfills(const struct cdc_server_setup *setup)
{
	for (size_t i = 0; i < setup->sync_n; i++) {
		if (setup->syncs[i].backfill_board)
			return true;
	}
	return false;
}

void cdc_status_text(const struct cdc_server_setup *setup, int64_t now_us, struct cdc_buf *out)
{
	struct table sources = {.column_n = 8, .is_right = {[4] = true, true, true, true}};
	struct table slots = {.column_n = 7, .is_right = {[2] = true, true, true, true, true}};
	struct table buffers = {.column_n = 7, .is_right = {[1] = true, true, true, true, true}};
	struct table syncs = {.column_n = 11,
			      .is_right = {[4] = true, true, true, true, true, true}};
	struct table backfills = {.column_n = 8, .is_right = {[3] = true, true, true, true, true}};
	char now[CDC_TIME_TEXT], up[CELL_MAX];

	(void)cdc_time_format(now_us, now);
	format_span(cdc_lag_us(now_us, setup->started_us > 0 ? (uint64_t)setup->started_us : 0),
		    up);
	cdc_buf_printf(out, "walpost %s   up %s   %s\n\n", WALPOST_VERSION, up, now);
	put_sources(&sources, setup, now_us);
	sources.out = out;
	put_sources(&sources, setup, now_us);
	cdc_buf_putc(out, '\n');
	put_slots(&slots, setup);
	slots.out = out;
	put_slots(&slots, setup);
	cdc_buf_putc(out, '\n');
	put_buffers(&buffers, setup);
	buffers.out = out;
	put_buffers(&buffers, setup);
	cdc_buf_putc(out, '\n');
	put_syncs(&syncs, setup, now_us);
	syncs.out = out;
	put_syncs(&syncs, setup, now_us);
	cdc_buf_puts(out, "\n  WHAT IT WAITS FOR\n");
	for (size_t i = 0; i < setup->sync_n; i++)
		cdc_reason_put(setup, &setup->syncs[i], now_us, out);
	if (!has_backfills(setup))
		return;
	cdc_buf_putc(out, '\n');
	put_backfills(&backfills, setup, now_us);
	backfills.out = out;
	put_backfills(&backfills, setup, now_us);
}
