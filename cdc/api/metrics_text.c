#include "cdc/api/metrics_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cdc/source/source.h"
#include "sinks/sink.h"

/* How a cdc_metric is shown. */
enum form {
	FORM_PLAIN,
	FORM_SECONDS, /* microseconds, an instant or a duration */
	FORM_AGE,     /* an instant; how long ago it was, 0 for none */
	FORM_PERCENT, /* as a ratio */
};

struct row {
	const char *name, *type, *help;
	size_t offset;
	enum form form;
};

#define SOURCE(field) offsetof(struct cdc_source_metrics, field)
static const struct row source_rows[] = {
	{"walpost_captured_records_total", "counter", "Records made from changes.",
	 SOURCE(captured), FORM_PLAIN},
	{"walpost_captured_bytes_total", "counter", "JSON bytes of the records made.",
	 SOURCE(captured_bytes), FORM_PLAIN},
	{"walpost_captured_transactions_total", "counter", "Commits read.", SOURCE(transactions),
	 FORM_PLAIN},
	{"walpost_source_reconnects_total", "counter", "Replication connections made anew.",
	 SOURCE(reconnects), FORM_PLAIN},
	{"walpost_source_unknown_types_total", "counter",
	 "Types that were dropped before their rows were read; written as text.",
	 SOURCE(unknown_types), FORM_PLAIN},
	{"walpost_source_odd_values_total", "counter",
	 "Composite values written as text: the type's attributes at their time are not known.",
	 SOURCE(odd_values), FORM_PLAIN},
	{"walpost_source_hurt_tables", "gauge",
	 "Tables that lost their replica identity while they are published: UPDATE and DELETE of "
	 "them fail.",
	 SOURCE(hurt_tables), FORM_PLAIN},
	{"walpost_source_taken_out_tables", "gauge",
	 "Tables that were taken out of walpost's own publication because they lost their replica "
	 "identity, and are not captured.",
	 SOURCE(taken_out_tables), FORM_PLAIN},
	{"walpost_source_publication_gone", "gauge",
	 "1 while the publication is not there any more.", SOURCE(publication_gone), FORM_PLAIN},
	{"walpost_source_publication_tables", "gauge",
	 "Tables that the publication holds, partitions included; 0 before the first look.",
	 SOURCE(publication_tables), FORM_PLAIN},
	{"walpost_source_left_tables", "gauge",
	 "Tables that left the publication while it was read, and are still there and still out.",
	 SOURCE(left_tables), FORM_PLAIN},
	{"walpost_source_lost_operations", "gauge",
	 "Operations (insert, update, delete, truncate) that the publication stopped sending while "
	 "it was read.",
	 SOURCE(lost_operations), FORM_PLAIN},
	{"walpost_source_publication_changes_total", "counter",
	 "Changes of the publication, of its tables, filters and columns, that were noticed while "
	 "it was read.",
	 SOURCE(publication_changes), FORM_PLAIN},
	{"walpost_source_too_large_records_total", "counter",
	 "Records above max_record_bytes; they become dead letters.", SOURCE(too_large),
	 FORM_PLAIN},
	{"walpost_source_streaming", "gauge", "1 while the replication stream is open.",
	 SOURCE(is_streaming), FORM_PLAIN},
	{"walpost_source_received_lsn", "gauge", "Highest end of WAL the server told of.",
	 SOURCE(received_lsn), FORM_PLAIN},
	{"walpost_source_confirmed_lsn", "gauge", "Last position confirmed to the server.",
	 SOURCE(confirmed_lsn), FORM_PLAIN},
	{"walpost_source_last_commit_timestamp_seconds", "gauge",
	 "Commit time of the last transaction read.", SOURCE(last_commit_us), FORM_SECONDS},
	{"walpost_source_lag_seconds", "gauge",
	 "How long the server has had WAL that is not confirmed.", SOURCE(unconfirmed_us),
	 FORM_AGE},
	{"walpost_source_gap_bytes", "gauge",
	 "WAL between what was read and what the slot still has; 0 without a gap.",
	 SOURCE(gap_bytes), FORM_PLAIN},
	{"walpost_slot_looked_timestamp_seconds", "gauge",
	 "When the server was last asked how the slot stands; 0: not yet.", SOURCE(slot_looked_us),
	 FORM_SECONDS},
	{"walpost_slot_retained_bytes", "gauge", "WAL that the server keeps for the slot.",
	 SOURCE(slot_retained_bytes), FORM_PLAIN},
	{"walpost_slot_unconfirmed_bytes", "gauge",
	 "Of that, what is not confirmed; the rest is kept for open transactions.",
	 SOURCE(slot_unconfirmed_bytes), FORM_PLAIN},
	{"walpost_slot_wal_budget_bytes", "gauge",
	 "WAL the slot may keep: the server's limit, or wal_budget.", SOURCE(slot_budget_bytes),
	 FORM_PLAIN},
	{"walpost_slot_spilled_transactions", "gauge",
	 "Transactions that the server wrote to its own disk to decode them (PostgreSQL 14 and "
	 "newer).",
	 SOURCE(slot_spilled), FORM_PLAIN},
	{"walpost_slot_spilled_bytes", "gauge", "What it wrote of them.",
	 SOURCE(slot_spilled_bytes), FORM_PLAIN},
	{"walpost_slot_wal_budget_used_ratio", "gauge",
	 "Part of it that is kept; 1 from wal_status unreserved on.", SOURCE(slot_used_percent),
	 FORM_PERCENT},
};

#define BUFFER(field) offsetof(struct cdc_buffer_metrics, field)
static const struct row buffer_rows[] = {
	{"walpost_buffered_records_total", "counter", "Records made durable in the buffer.",
	 BUFFER(buffered), FORM_PLAIN},
	{"walpost_buffer_bytes", "gauge", "Disk space of the buffer.", BUFFER(bytes), FORM_PLAIN},
	{"walpost_buffer_max_bytes", "gauge", "Most disk space the buffer may take.",
	 BUFFER(max_bytes), FORM_PLAIN},
	{"walpost_buffer_undelivered_bytes", "gauge",
	 "What the sync that is furthest behind still holds.", BUFFER(undelivered_bytes),
	 FORM_PLAIN},
	{"walpost_buffer_evicted_records_total", "counter", "Delivered records deleted.",
	 BUFFER(evicted), FORM_PLAIN},
	{"walpost_buffer_busy_total", "counter", "Times that capture had to wait for the buffer.",
	 BUFFER(busy), FORM_PLAIN},
	{"walpost_buffer_commits_total", "counter", "Group commits of the buffer.", BUFFER(syncs),
	 FORM_PLAIN},
};

#define SYNC(field) offsetof(struct cdc_sync_metrics, field)
static const struct row sync_rows[] = {
	{"walpost_delivered_records_total", "counter", "Records accepted by the endpoint.",
	 SYNC(delivered), FORM_PLAIN},
	{"walpost_skipped_records_total", "counter", "Records read and not selected.",
	 SYNC(skipped), FORM_PLAIN},
	{"walpost_requests_total", "counter", "Requests that ended, accepted or not.",
	 SYNC(requests), FORM_PLAIN},
	{"walpost_failed_requests_total", "counter", "Requests that were not accepted.",
	 SYNC(failed), FORM_PLAIN},
	{"walpost_retried_requests_total", "counter", "Requests that repeat records sent before.",
	 SYNC(retried), FORM_PLAIN},
	{"walpost_request_bytes_total", "counter", "Body bytes sent.", SYNC(request_bytes),
	 FORM_PLAIN},
	{"walpost_recorded_requests_total", "counter", "Requests that record_requests took down.",
	 SYNC(recorded), FORM_PLAIN},
	{"walpost_unrecorded_requests_total", "counter",
	 "Requests that record_requests left out: there were more than could be written.",
	 SYNC(unrecorded), FORM_PLAIN},
	{"walpost_in_flight_requests", "gauge", "Requests without an answer yet.", SYNC(in_flight),
	 FORM_PLAIN},
	{"walpost_concurrency_limit", "gauge",
	 "Requests that are sent at once at most: what the endpoint bears, or without "
	 "concurrency_min "
	 "twice concurrency, since tables that are copied have as many of their own.",
	 SYNC(limit), FORM_PLAIN},
	{"walpost_window_records", "gauge", "Records read from the buffer and not yet done.",
	 SYNC(window), FORM_PLAIN},
	{"walpost_held_records", "gauge",
	 "Of those, what waits for a truncate, schema or message record of its table.", SYNC(held),
	 FORM_PLAIN},
	{"walpost_deepest_lane_records", "gauge", "Records of the lane that has most of them.",
	 SYNC(deepest), FORM_PLAIN},
	{"walpost_resting_lanes", "gauge", "Lanes that wait after a request of theirs failed.",
	 SYNC(resting), FORM_PLAIN},
	{"walpost_rate_limited", "gauge", "1 while rate_limit keeps the next request back.",
	 SYNC(is_rate_limited), FORM_PLAIN},
	{"walpost_endpoint_asked_milliseconds", "gauge",
	 "How long nothing is sent still, because the endpoint asked for that with a 429.",
	 SYNC(asked_ms), FORM_PLAIN},
	{"walpost_accepted_timestamp_seconds", "gauge",
	 "When the endpoint last accepted a request; 0: not yet.", SYNC(accepted_us), FORM_SECONDS},
	{"walpost_breaker_state", "gauge", "Circuit breaker: 0 closed, 1 open, 2 half-open.",
	 SYNC(breaker), FORM_PLAIN},
	{"walpost_delivered_commit_timestamp_seconds", "gauge",
	 "Commit time of the newest record delivered.", SYNC(delivered_commit_us), FORM_SECONDS},
	{"walpost_sync_lag_seconds", "gauge",
	 "Age of the oldest record that is not delivered, parked or a dead letter; /healthz and "
	 "/status.txt say which it is.",
	 SYNC(oldest_us), FORM_AGE},
	{"walpost_sync_behind", "gauge", "1 while the buffer holds records not yet read.",
	 SYNC(is_behind), FORM_PLAIN},
	{"walpost_parked_records", "gauge",
	 "Records set aside because the endpoint refuses them or an earlier one of their key.",
	 SYNC(parked), FORM_PLAIN},
	{"walpost_dead_letters", "gauge", "Records that were given up, and are kept.", SYNC(dead),
	 FORM_PLAIN},
	{"walpost_parked_bytes", "gauge", "JSON of parked records and dead letters.",
	 SYNC(parked_bytes), FORM_PLAIN},
	{"walpost_stopped_tables", "gauge",
	 "Tables that have stopped before a record that the endpoint refuses.",
	 SYNC(stopped_tables), FORM_PLAIN},
	{"walpost_backfill_pending_tables", "gauge", "Tables whose rows are not copied yet.",
	 SYNC(backfill_pending), FORM_PLAIN},
	{"walpost_backfill_done_tables", "gauge", "Tables whose rows were copied and delivered.",
	 SYNC(backfill_done), FORM_PLAIN},
	{"walpost_backfill_rows_total", "counter", "Rows read by copies.", SYNC(backfill_rows),
	 FORM_PLAIN},
	{"walpost_backfill_permille", "gauge", "How much of the present copy is read.",
	 SYNC(backfill_permille), FORM_PLAIN},
	{"walpost_backfill_eta_milliseconds", "gauge",
	 "Until the present copy is read, at its pace so far.", SYNC(backfill_eta_ms), FORM_PLAIN},
	{"walpost_backfill_slowed_rows_per_second", "gauge",
	 "What the copy keeps to while replicas or the slot are behind; 0 when it is free.",
	 SYNC(backfill_slowed), FORM_PLAIN},
	{"walpost_backfill_unknown_types_total", "counter",
	 "Types that the database had no more when rows were copied.", SYNC(backfill_unknown_types),
	 FORM_PLAIN},
	{"walpost_backfill_too_large_records_total", "counter",
	 "Copied rows above max_record_bytes; they become dead letters.", SYNC(backfill_too_large),
	 FORM_PLAIN},
	{"walpost_backfill_odd_values_total", "counter",
	 "Copied values of composite types that were written as text.", SYNC(backfill_odd_values),
	 FORM_PLAIN},
};

struct histogram_row {
	const char *name, *help;
	size_t offset;
};
static const struct histogram_row histogram_rows[] = {
	{"walpost_delivery_latency_seconds", "From commit at the source to accepted.",
	 SYNC(latency)},
	{"walpost_request_duration_seconds", "One request, from its start to its answer.",
	 SYNC(request)},
};

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

void cdc_process_read(struct cdc_process *ret)
{
	unsigned long long pages = 0;
	struct rusage usage;
	FILE *f = fopen("/proc/self/statm", "re");

	*ret = (struct cdc_process){0};
	if (f) {
		/* Total pages come first, resident ones second. */
		if (fscanf(f, "%*u %llu", &pages) == 1)
			ret->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
		(void)fclose(f);
	}
	if (getrusage(RUSAGE_SELF, &usage) == 0)
		ret->cpu_us = ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) *
				      1000000 +
			      (uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec;
}

uint64_t cdc_lag_us(int64_t now_us, uint64_t then_us)
{
	return then_us && now_us > 0 && (uint64_t)now_us > then_us ? (uint64_t)now_us - then_us : 0;
}

uint64_t cdc_waiting_records(const struct cdc_sync_metrics *m)
{
	const uint64_t all = cdc_metric_get(&m->window);
	const uint64_t sent = cdc_metric_get(&m->in_flight_records);

	return all > sent ? all - sent : 0;
}

uint64_t cdc_source_lag_bytes(const struct cdc_source_metrics *m)
{
	uint64_t confirmed = cdc_metric_get(&m->confirmed_lsn);
	uint64_t received = cdc_metric_get(&m->received_lsn);

	/* Before the first confirmation there is nothing to measure from. */
	return confirmed && received > confirmed ? received - confirmed : 0;
}

static void put_head(struct cdc_buf *out, const char *name, const char *type, const char *help)
{
	cdc_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* name="value" with what the format escapes. */
static void put_label(struct cdc_buf *out, const char *name, const char *value, bool is_first)
{
	cdc_buf_printf(out, "%s%s=\"", is_first ? "" : ",", name);
	for (; value && *value; value++) {
		if (*value == '\\' || *value == '"')
			cdc_buf_putc(out, '\\');
		if (*value == '\n')
			cdc_buf_puts(out, "\\n");
		else
			cdc_buf_putc(out, *value);
	}
	cdc_buf_putc(out, '"');
}

static void put_source_labels(struct cdc_buf *out, const struct cdc_server_source *s)
{
	put_label(out, "source", s->connection, true);
	put_label(out, "slot", s->slot, false);
}

static void put_sync_labels(struct cdc_buf *out, const struct cdc_server_setup *setup,
			    const struct cdc_server_sync *s)
{
	put_source_labels(out, &setup->sources[s->source_index]);
	put_label(out, "sync", s->name, false);
}

static void put_seconds(struct cdc_buf *out, uint64_t us)
{
	cdc_buf_printf(out, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}

static void put_value(struct cdc_buf *out, const void *metrics, const struct row *r, int64_t now_us)
{
	uint64_t v = cdc_metric_get(
		(const cdc_metric *)(const void *)((const char *)metrics + r->offset));

	switch (r->form) {
	case FORM_PLAIN:
		cdc_buf_printf(out, "%" PRIu64, v);
		break;
	case FORM_SECONDS:
		put_seconds(out, v);
		break;
	case FORM_AGE:
		put_seconds(out, cdc_lag_us(now_us, v));
		break;
	case FORM_PERCENT:
		cdc_buf_printf(out, "%" PRIu64 ".%02" PRIu64, v / 100, v % 100);
		break;
	}
}

/* What is not a plain number: the status by its name, and what is safe, without end where the
 * server sets no limit. */
static void put_slots(struct cdc_buf *out, const struct cdc_server_setup *setup)
{
	put_head(out, "walpost_slot_wal_status", "gauge", "The slot's wal_status on the server.");
	for (size_t k = 0; k < setup->source_n; k++) {
		uint64_t now = cdc_metric_get(&setup->sources[k].metrics->slot_wal_status);

		for (int i = CDC_WAL_UNKNOWN; i <= CDC_WAL_LOST; i++) {
			cdc_buf_puts(out, "walpost_slot_wal_status{");
			put_source_labels(out, &setup->sources[k]);
			put_label(out, "status", cdc_wal_status_name((enum cdc_wal_status)i),
				  false);
			cdc_buf_printf(out, "} %d\n", now == (uint64_t)i);
		}
	}
	put_head(out, "walpost_slot_safe_wal_bytes", "gauge",
		 "WAL that may be written before the slot is lost; +Inf without a limit.");
	for (size_t k = 0; k < setup->source_n; k++) {
		const struct cdc_source_metrics *m = setup->sources[k].metrics;

		cdc_buf_puts(out, "walpost_slot_safe_wal_bytes{");
		put_source_labels(out, &setup->sources[k]);
		if (cdc_metric_get(&m->slot_has_limit))
			cdc_buf_printf(out, "} %" PRIu64 "\n", cdc_metric_get(&m->slot_safe_bytes));
		else
			cdc_buf_puts(out, "} +Inf\n");
	}
}

static void put_sources(struct cdc_buf *out, const struct cdc_server_setup *setup, int64_t now_us)
{
	for (size_t i = 0; i < COUNT(source_rows); i++) {
		const struct row *r = &source_rows[i];

		put_head(out, r->name, r->type, r->help);
		for (size_t k = 0; k < setup->source_n; k++) {
			cdc_buf_printf(out, "%s{", r->name);
			put_source_labels(out, &setup->sources[k]);
			cdc_buf_puts(out, "} ");
			put_value(out, setup->sources[k].metrics, r, now_us);
			cdc_buf_putc(out, '\n');
		}
	}
	put_head(out, "walpost_source_lag_bytes", "gauge",
		 "WAL the server told of that is not confirmed.");
	for (size_t k = 0; k < setup->source_n; k++) {
		cdc_buf_puts(out, "walpost_source_lag_bytes{");
		put_source_labels(out, &setup->sources[k]);
		cdc_buf_printf(out, "} %" PRIu64 "\n",
			       cdc_source_lag_bytes(setup->sources[k].metrics));
	}
	put_slots(out, setup);
	for (size_t i = 0; i < COUNT(buffer_rows); i++) {
		const struct row *r = &buffer_rows[i];

		put_head(out, r->name, r->type, r->help);
		for (size_t k = 0; k < setup->source_n; k++) {
			cdc_buf_printf(out, "%s{", r->name);
			put_source_labels(out, &setup->sources[k]);
			cdc_buf_puts(out, "} ");
			put_value(out, setup->sources[k].buffer_metrics, r, now_us);
			cdc_buf_putc(out, '\n');
		}
	}
}

static void put_histogram(struct cdc_buf *out, const struct cdc_server_setup *setup,
			  const struct cdc_server_sync *s, const struct histogram_row *r)
{
	static const uint64_t bounds[] = CDC_HISTOGRAM_BOUNDS_US;
	const struct cdc_histogram *h =
		(const struct cdc_histogram *)(const void *)((const char *)s->metrics + r->offset);
	uint64_t count = 0;

	_Static_assert(COUNT(bounds) + 1 == CDC_HISTOGRAM_BUCKETS, "the last bucket has no bound");
	for (size_t i = 0; i < CDC_HISTOGRAM_BUCKETS; i++) {
		count += cdc_metric_get(&h->buckets[i]);
		cdc_buf_printf(out, "%s_bucket{", r->name);
		put_sync_labels(out, setup, s);
		if (i < COUNT(bounds))
			cdc_buf_printf(out, ",le=\"%g\"} %" PRIu64 "\n", (double)bounds[i] / 1e6,
				       count);
		else
			cdc_buf_printf(out, ",le=\"+Inf\"} %" PRIu64 "\n", count);
	}
	cdc_buf_printf(out, "%s_sum{", r->name);
	put_sync_labels(out, setup, s);
	cdc_buf_puts(out, "} ");
	put_seconds(out, cdc_metric_get(&h->sum_us));
	cdc_buf_printf(out, "\n%s_count{", r->name);
	put_sync_labels(out, setup, s);
	cdc_buf_printf(out, "} %" PRIu64 "\n", count);
}

static void put_labelled(struct cdc_buf *out, const char *name,
			 const struct cdc_server_setup *setup, const struct cdc_server_sync *s,
			 const char *label, const char *value)
{
	cdc_buf_printf(out, "%s{", name);
	put_sync_labels(out, setup, s);
	put_label(out, label, value, false);
	cdc_buf_puts(out, "} ");
}

static void put_outcomes(struct cdc_buf *out, const struct cdc_server_setup *setup)
{
	static const char name[] = "walpost_request_outcomes_total";

	put_head(
		out, name, "counter",
		"Requests that ended: done; retry: may be accepted later; reject: refused for what "
		"they are; stop: the endpoint asks for no more.");
	for (size_t k = 0; k < setup->sync_n; k++) {
		for (size_t i = 0; i < CDC_OUTCOMES; i++) {
			put_labelled(out, name, setup, &setup->syncs[k], "outcome",
				     sink_outcome_name((enum sink_outcome)i));
			cdc_buf_printf(out, "%" PRIu64 "\n",
				       cdc_metric_get(&setup->syncs[k].metrics->outcomes[i]));
		}
	}
}

/* Of the window, what is under way and what is not. */
static void put_lanes(struct cdc_buf *out, const struct cdc_server_setup *setup)
{
	static const char name[] = "walpost_lane_records";

	put_head(out, name, "gauge",
		 "Records in lanes: in a request without an answer, or waiting.");
	for (size_t k = 0; k < setup->sync_n; k++) {
		const struct cdc_sync_metrics *m = setup->syncs[k].metrics;

		put_labelled(out, name, setup, &setup->syncs[k], "state", "in_flight");
		cdc_buf_printf(out, "%" PRIu64 "\n", cdc_metric_get(&m->in_flight_records));
		put_labelled(out, name, setup, &setup->syncs[k], "state", "waiting");
		cdc_buf_printf(out, "%" PRIu64 "\n", cdc_waiting_records(m));
	}
}

static void put_syncs(struct cdc_buf *out, const struct cdc_server_setup *setup, int64_t now_us)
{
	for (size_t i = 0; i < COUNT(sync_rows); i++) {
		const struct row *r = &sync_rows[i];

		put_head(out, r->name, r->type, r->help);
		for (size_t k = 0; k < setup->sync_n; k++) {
			cdc_buf_printf(out, "%s{", r->name);
			put_sync_labels(out, setup, &setup->syncs[k]);
			cdc_buf_puts(out, "} ");
			put_value(out, setup->syncs[k].metrics, r, now_us);
			cdc_buf_putc(out, '\n');
		}
	}
	put_outcomes(out, setup);
	put_lanes(out, setup);
	for (size_t i = 0; i < COUNT(histogram_rows); i++) {
		put_head(out, histogram_rows[i].name, "histogram", histogram_rows[i].help);
		for (size_t k = 0; k < setup->sync_n; k++)
			put_histogram(out, setup, &setup->syncs[k], &histogram_rows[i]);
	}
	put_head(out, "walpost_sync_info", "gauge", "Names and ids of the syncs.");
	for (size_t k = 0; k < setup->sync_n; k++) {
		cdc_buf_puts(out, "walpost_sync_info{");
		put_sync_labels(out, setup, &setup->syncs[k]);
		put_label(out, "destination", setup->syncs[k].destination, false);
		put_label(out, "id", setup->syncs[k].uuid, false);
		cdc_buf_puts(out, "} 1\n");
	}
}

/* One line per state, 1 for the one that holds: a state can then be counted and alerted on. */
static void put_state(struct cdc_buf *out, const char *name, const struct cdc_server_setup *setup,
		      const struct cdc_server_source *source, const struct cdc_server_sync *sync)
{
	struct cdc_board_view view;

	cdc_board_read(sync ? sync->board : source->board, &view);
	for (int state = CDC_STATE_STARTING; state <= CDC_STATE_ENDED; state++) {
		cdc_buf_printf(out, "%s{", name);
		if (sync)
			put_sync_labels(out, setup, sync);
		else
			put_source_labels(out, source);
		put_label(out, "state", cdc_state_name((enum cdc_state)state), false);
		cdc_buf_printf(out, "} %d\n", view.state == (enum cdc_state)state);
	}
}

static void put_process(struct cdc_buf *out, const struct cdc_server_setup *setup,
			const struct cdc_process *process)
{
	put_head(out, "process_resident_memory_bytes", "gauge", "Memory in use.");
	cdc_buf_printf(out, "process_resident_memory_bytes %" PRIu64 "\n", process->resident_bytes);
	put_head(out, "process_cpu_seconds_total", "counter", "CPU time, user and system.");
	cdc_buf_puts(out, "process_cpu_seconds_total ");
	put_seconds(out, process->cpu_us);
	cdc_buf_putc(out, '\n');
	put_head(out, "process_start_time_seconds", "gauge", "When the process started.");
	cdc_buf_puts(out, "process_start_time_seconds ");
	put_seconds(out, setup->started_us > 0 ? (uint64_t)setup->started_us : 0);
	cdc_buf_putc(out, '\n');
	put_head(out, "walpost_build_info", "gauge", "The version that runs.");
	cdc_buf_puts(out, "walpost_build_info{");
	put_label(out, "version", WALPOST_VERSION, true);
	cdc_buf_puts(out, "} 1\n");
}

void cdc_metrics_text(const struct cdc_server_setup *setup, const struct cdc_process *process,
		      int64_t now_us, struct cdc_buf *out)
{
	put_process(out, setup, process);
	put_head(out, "walpost_source_state", "gauge", "What the reader of a slot does.");
	for (size_t k = 0; k < setup->source_n; k++)
		put_state(out, "walpost_source_state", setup, &setup->sources[k], NULL);
	put_sources(out, setup, now_us);
	put_head(out, "walpost_sync_state", "gauge", "What a sync does.");
	for (size_t k = 0; k < setup->sync_n; k++)
		put_state(out, "walpost_sync_state", setup, NULL, &setup->syncs[k]);
	put_syncs(out, setup, now_us);
}
