/*
 * `walpost run`: makes everything, starts the threads, watches them, and takes
 * everything down again in the order of the data.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cdc/api/server.h"
#include "cdc/base/clock.h"
#include "cdc/cli/cli.h"
#include "cdc/cli/control.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/feed.h"
#include "cdc/pipeline/capture.h"
#include "cdc/pipeline/deliver.h"

#define WATCH_MS 250 /* how often main looks at the threads */

/* One slot: its buffer and its capture thread. */
struct feed_run {
	const struct cdc_feed *feed;
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer *buffer; /* NULL: could not be opened; the board says why */
	struct cdc_source_metrics metrics;
	struct cdc_buffer_metrics buffer_metrics;
	struct cdc_board board;
	struct cdc_capture *capture;
	pthread_t thread;
	bool has_thread;
	unsigned warned_percent; /* of the budget: the last step that was logged */
};

/* One sync and its delivery thread. */
struct sync_run {
	const struct cdc_sync *sync;
	struct feed_run *feed;
	struct cdc_sync_metrics metrics;
	struct cdc_board board, backfill_board;
	struct cdc_behind behind;
	struct cdc_cursor cursor;      /* where it starts; its streams: the one below */
	bool is_ready;                 /* its group is known to the buffer */
	struct cdc_backfill *backfill; /* NULL: changes only */
	struct cdc_opt_strs selection; /* what it reads; its items are ours */
	struct cdc_deliver *deliver;
	pthread_t thread, backfill_thread;
	bool has_thread, has_backfill_thread;
};

struct run {
	const struct cdc_config *config;
	struct cdc_log log;
	struct cdc_feed *feeds;
	size_t feed_n;
	struct feed_run *feed_runs;
	struct sync_run *sync_runs;
	size_t sync_n;
	struct cdc_store *store;
	struct cdc_stop stop;
	struct cdc_server_source *server_sources;
	struct cdc_server_sync *server_syncs;
	struct cdc_server *server;
	struct cdc_control_sync *control_syncs;
	struct cdc_control control;
	int lock_fd;
	enum cdc_code store_error; /* the one that was logged */
};

static struct cdc_log log_for(const struct run *r, const char *comp)
{
	struct cdc_log log = r->log;

	log.comp = comp;
	return log;
}

/* --- making ------------------------------------------------------------------------- */

static void open_buffer(struct run *r, struct feed_run *f)
{
	const struct cdc_buffer_settings settings = {
		.dir = r->config->data_dir,
		.slot = f->feed->slot,
		.max_bytes = r->config->max_bytes,
		.retention_ms = r->config->retention_ms,
		.on_full = (enum cdc_on_full)r->config->on_full,
		.metrics = &f->buffer_metrics,
	};
	struct cdc_err err;

	memset(&err, 0, sizeof(err));
	f->ops = &cdc_buffer_local;
	if (f->ops->open(&settings, &f->buffer, &err)) {
		cdc_board_post(&f->board, CDC_STATE_FAILED, &err, cdc_clock_wall_us());
		LOG_ERROR(&r->log, "buffer_failed", KV("slot", (const char *)f->feed->slot),
			  KV_ERR(&err));
	}
}

/* The store closes it when it reads it; whoever read it before still has it. */
static void warn_of_open_key(const struct run *r)
{
	char path[4096], mode[8];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/master.key", r->config->data_dir);
	if (r->config->master_key || stat(path, &st) != 0 || !(st.st_mode & 077))
		return;
	(void)snprintf(mode, sizeof(mode), "%04o", (unsigned)(st.st_mode & 07777));
	LOG_WARN(&r->log, "master_key_was_open", KV("file", (const char *)path),
		 KV("mode", (const char *)mode),
		 KV("note", "others than its owner were allowed to use it; its mode is 0600 from "
			    "now on"));
}

/* The buffer that a sync's position belongs to; a sync that moved to another one cannot go on from
 * there. */
static enum cdc_code check_home(struct run *r, const struct sync_run *s, bool is_new,
				struct cdc_err *err)
{
	char key[CDC_NAME_MAX + 16], home[128], was[128];
	enum cdc_code rc;

	(void)snprintf(key, sizeof(key), "buffer of %s", s->sync->name);
	(void)snprintf(home, sizeof(home), "%s", s->feed->feed->slot);
	if (is_new)
		return cdc_store_note_put(r->store, key, home, err);
	rc = cdc_store_note_get(r->store, key, was, sizeof(was), err);
	if (rc == CDC_MISSING)
		return cdc_store_note_put(r->store, key, home, err);
	if (rc)
		return rc;
	if (strcmp(was, home) != 0) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "sync %s was fed by the slot %s and is now configured for %s",
				  s->sync->name, was, home);
		return cdc_err_remedy(err, "give it its former source back, or rename it: a sync "
					   "with a new name starts now");
	}
	return CDC_OK;
}

/* A sync without a cursor begins at the buffer's durable end. */
static enum cdc_code new_cursor(struct run *r, struct sync_run *s, struct cdc_err *err)
{
	struct cdc_cursor *c = &s->cursor;

	c->streams = calloc(1, sizeof(*c->streams));
	if (!c->streams)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	(void)snprintf(c->sync, sizeof(c->sync), "%s", s->sync->name);
	LOG_INFO(&r->log, "sync_is_new", KV("sync", (const char *)s->sync->name),
		 KV("note",
		    s->sync->skip_initial_backfill
			    ? "changes from now on are delivered; existing rows are not"
			    : "existing rows are copied, and changes delivered from now on"));
	return CDC_OK;
}

/* Makes the sync's group known to its buffer, from its stored position or as a new one. */
static enum cdc_code add_group(struct run *r, struct sync_run *s, struct cdc_err *err)
{
	const struct cdc_start start = {.at = CDC_START_DURABLE_END};
	struct cdc_stream_position low, found;
	const struct cdc_position position = {.n = 1, .streams = &low}, none = {0};
	struct cdc_gap gap;
	enum cdc_code rc;
	bool is_new;

	memset(&gap, 0, sizeof(gap));
	rc = cdc_store_cursor_get(r->store, s->sync->name, &s->cursor, err);
	if (rc && rc != CDC_MISSING)
		return rc;
	is_new = rc == CDC_MISSING;
	rc = check_home(r, s, is_new, err);
	if (!rc && is_new)
		rc = new_cursor(r, s, err);
	if (rc)
		return rc;
	if (!is_new)
		low = cdc_cursor_lowest(&s->cursor);
	rc = s->feed->ops->group_add(s->feed->buffer, s->sync->name, is_new ? &none : &position,
				     &start, &found, &gap, err);
	if (rc || !is_new)
		return rc;
	s->cursor.streams[0] = found;
	s->cursor.stream_n = 1;
	return cdc_store_cursor_put(r->store, &s->cursor, err);
}

/* Existing rows are copied when the sync asks for them, had begun to, or a person asks for them. */
static enum cdc_code new_backfill(struct run *r, struct sync_run *s, struct cdc_err *err)
{
	const struct cdc_deliver_settings *delivery = s->sync->delivery;
	const bool takes_rows = delivery->operations >> CDC_OP_READ & 1;
	struct cdc_backfill_setup setup = {
		.sync = s->sync->name,
		.connection = s->feed->feed->connection->name,
		.plan = cdc_feed_plan(s->feed->feed),
		.settings = {.connections = r->config->backfill_connections,
			     .max_bytes = r->config->backfill_max_bytes,
			     .rows_per_second = r->config->backfill_rows_per_second,
			     .stall_ms = r->config->backfill_stall_ms,
			     .snapshot_ms = r->config->backfill_snapshot_ms,
			     .replica_lag_ms = r->config->backfill_replica_lag_ms},
		.is_off = s->sync->skip_initial_backfill || !takes_rows,
		.is_whole = delivery->order == CDC_ORDER_SYNC,
		.has_marks = delivery->has_marks,
		.ops = s->feed->ops,
		.buffer = s->feed->buffer,
		.store = r->store,
		.metrics = &s->metrics,
		.board = &s->backfill_board,
		.stop = &r->stop,
		.log = log_for(r, "backfill"),
	};

	setup.plan.tables = (const char *const *)s->sync->schemas.items;
	setup.plan.table_n = s->sync->schemas.n;
	setup.plan.selection = &s->sync->selection;
	setup.plan.stop = &r->stop;
	if (!takes_rows && cdc_cursor_copied(&s->cursor) == 0)
		return CDC_OK;
	return cdc_backfill_new(&setup, &s->cursor, &s->backfill, err);
}

/* From the cursor that add_group found. */
static enum cdc_code new_deliver(struct run *r, struct sync_run *s, struct cdc_err *err)
{
	const struct cdc_source_settings *source = s->sync->source->settings;
	const struct cdc_deliver_setup setup = {
		.sync = s->sync->name,
		.sync_uuid = s->sync->uuid,
		.database = source->database,
		.settings = s->sync->delivery,
		.sink = sink_find(s->sync->destination->type->name),
		.sink_connection = s->sync->destination->settings,
		.sink_sync = s->sync->destination_settings,
		.ops = s->feed->ops,
		.buffer = s->feed->buffer,
		.store = r->store,
		.tables = (const char *const *)s->selection.items,
		.table_n = s->selection.n,
		.selection =
			cdc_selection_is_plain(&s->sync->selection) ? NULL : &s->sync->selection,
		.cursor = &s->cursor,
		.backfill = s->backfill,
		.metrics = &s->metrics,
		.board = &s->board,
		.behind = &s->behind,
		.stop = &r->stop,
		.log = log_for(r, "deliver"),
	};

	return cdc_deliver_new(&setup, &s->deliver, err);
}

static void make_deliver(struct run *r, struct sync_run *s, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (!s->feed->buffer) {
		struct cdc_board_view view;

		cdc_board_read(&s->feed->board, &view);
		*err = view.err;
		rc = err->code;
	}
	if (!rc)
		rc = add_group(r, s, err);
	if (!rc) {
		s->is_ready = true;
		rc = cdc_feed_selection(s->sync, &s->selection, err);
	}
	if (!rc)
		rc = new_backfill(r, s, err);
	if (!rc)
		rc = new_deliver(r, s, err);
	if (rc) {
		cdc_board_post(&s->board, CDC_STATE_FAILED, err, cdc_clock_wall_us());
		LOG_ERROR(&r->log, "sync_failed", KV("sync", (const char *)s->sync->name),
			  KV_ERR(err));
	}
}

static void make_capture(struct run *r, struct feed_run *f, struct cdc_err *err)
{
	struct cdc_capture_setup setup = {
		.connection = f->feed->connection->name,
		.slot_is_ours = !f->feed->is_named,
		.syncs = f->feed->sync_names,
		.selections = f->feed->selections,
		.sync_n = f->feed->sync_n,
		.plan = cdc_feed_plan(f->feed),
		.ops = f->ops,
		.buffer = f->buffer,
		.store = r->store,
		.metrics = &f->metrics,
		.board = &f->board,
		.stop = &r->stop,
		.log = log_for(r, "capture"),
	};

	setup.plan.stop = &r->stop;
	if (f->buffer && cdc_capture_new(&setup, &f->capture, err)) {
		cdc_board_post(&f->board, CDC_STATE_FAILED, err, cdc_clock_wall_us());
		LOG_ERROR(&r->log, "capture_failed", KV("slot", (const char *)f->feed->slot),
			  KV_ERR(err));
	}
}

struct forget {
	const struct run *run;
	char (*names)[CDC_NAME_MAX];
	size_t n;
};

static void find_unconfigured(void *arg, const struct cdc_cursor *c)
{
	struct forget *f = arg;
	char(*grown)[CDC_NAME_MAX];

	for (size_t i = 0; i < f->run->sync_n; i++) {
		if (strcmp(f->run->sync_runs[i].sync->name, c->sync) == 0)
			return;
	}
	grown = reallocarray(f->names, f->n + 1, sizeof(*f->names));
	if (!grown)
		return;
	f->names = grown;
	memcpy(f->names[f->n++], c->sync, CDC_NAME_MAX);
}

/* A sync that is no longer in the file is deleted: it lets go of its records. */
static enum cdc_code forget_deleted_syncs(struct run *r, struct cdc_err *err)
{
	struct forget f = {.run = r};
	enum cdc_code rc = cdc_store_cursor_each(r->store, find_unconfigured, &f, err);

	for (size_t i = 0; !rc && i < f.n; i++) {
		struct cdc_park_totals lost;

		rc = cdc_store_park(r->store, f.names[i], NULL, 0, 0, NULL, 0, &lost, err);
		if (rc)
			break;
		LOG_WARN(&r->log, "sync_forgotten", KV("sync", (const char *)f.names[i]),
			 KV("parked", lost.waiting), KV("dead_letters", lost.dead + lost.replay),
			 KV("note", "it is no longer in the configuration; under this name it "
				    "would start anew"));
		rc = cdc_store_cursor_delete(r->store, f.names[i], err);
	}
	free(f.names);
	return rc;
}

static const char *caution_of(const struct cdc_sync *sync)
{
	const struct sink_ops *sink = sink_find(sync->destination->type->name);

	return sink->caution ? sink->caution(sync->destination->settings) : NULL;
}

static void warn_of_settings(const struct run *r)
{
	for (size_t i = 0; i < r->sync_n; i++) {
		const struct cdc_sync *sync = r->sync_runs[i].sync;
		const char *caution = caution_of(sync);

		if (caution)
			LOG_WARN(&r->log, "unsafe_setting", KV("sync", (const char *)sync->name),
				 KV("destination", (const char *)sync->destination->name),
				 KV("note", caution));
	}
}

static enum cdc_code start_server(struct run *r, struct cdc_err *err)
{
	struct cdc_server_setup setup = {
		.listen = r->config->listen,
		.sources = r->server_sources,
		.source_n = r->feed_n,
		.syncs = r->server_syncs,
		.sync_n = r->sync_n,
		.started_us = cdc_clock_wall_us(),
		.log = log_for(r, "api"),
	};
	enum cdc_code rc;

	for (size_t i = 0; i < r->feed_n; i++) {
		struct feed_run *f = &r->feed_runs[i];

		r->server_sources[i] = (struct cdc_server_source){
			.connection = f->feed->connection->name,
			.slot = f->feed->slot,
			.metrics = &f->metrics,
			.board = &f->board,
			.buffer_metrics = &f->buffer_metrics,
			.ops = f->ops,
			.buffer = f->buffer,
		};
	}
	for (size_t i = 0; i < r->sync_n; i++) {
		struct sync_run *s = &r->sync_runs[i];

		r->server_syncs[i] = (struct cdc_server_sync){
			.name = s->sync->name,
			.uuid = s->sync->uuid,
			.source = s->sync->source->name,
			.destination = s->sync->destination->name,
			.caution = caution_of(s->sync),
			.source_index = (size_t)(s->feed - r->feed_runs),
			.metrics = &s->metrics,
			.board = &s->board,
			.behind = &s->behind,
			.backfill_board = s->backfill ? &s->backfill_board : NULL,
		};
	}
	if (!r->config->listen[0])
		return CDC_OK;
	rc = cdc_server_start(&setup, &r->server, err);
	if (!rc)
		LOG_INFO(&r->log, "listening", KV("address", (const char *)r->config->listen),
			 KV("port", cdc_server_port(r->server)));
	return rc;
}

static enum cdc_code start_control(struct run *r, struct cdc_err *err)
{
	for (size_t i = 0; i < r->sync_n; i++) {
		struct sync_run *s = &r->sync_runs[i];

		r->control_syncs[i] = (struct cdc_control_sync){
			.sync = s->sync,
			.deliver = s->deliver,
			.backfill = s->backfill,
			.capture = s->feed->capture,
			.board = &s->board,
			.source_board = &s->feed->board,
		};
	}
	r->control = (struct cdc_control){.store = r->store,
					  .syncs = r->control_syncs,
					  .sync_n = r->sync_n,
					  .log = log_for(r, "control")};
	return cdc_control_start(&r->control, err);
}

static struct feed_run *feed_run_of(struct run *r, const struct cdc_sync *sync)
{
	for (size_t i = 0; i < r->feed_n; i++) {
		for (size_t k = 0; k < r->feeds[i].sync_n; k++) {
			if (r->feeds[i].syncs[k] == sync)
				return &r->feed_runs[i];
		}
	}
	CDC_ASSERT(false); /* every sync has a feed */
	return NULL;
}

/* Everything but the threads.  A single sync or slot that cannot be made is noted on its board; the
 * rest go on. */
static enum cdc_code make(struct run *r, struct cdc_err *err)
{
	enum cdc_code rc = cdc_feeds_make(r->config, &r->feeds, &r->feed_n, err);

	if (rc)
		return rc;
	r->sync_n = r->config->sync_n;
	r->feed_runs = calloc(r->feed_n + 1, sizeof(*r->feed_runs));
	r->sync_runs = calloc(r->sync_n + 1, sizeof(*r->sync_runs));
	r->server_sources = calloc(r->feed_n + 1, sizeof(*r->server_sources));
	r->server_syncs = calloc(r->sync_n + 1, sizeof(*r->server_syncs));
	r->control_syncs = calloc(r->sync_n + 1, sizeof(*r->control_syncs));
	if (!r->feed_runs || !r->sync_runs || !r->server_sources || !r->server_syncs ||
	    !r->control_syncs)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	for (size_t i = 0; i < r->feed_n; i++) {
		r->feed_runs[i].feed = &r->feeds[i];
		cdc_board_init(&r->feed_runs[i].board);
	}
	for (size_t i = 0; i < r->sync_n; i++) {
		r->sync_runs[i].sync = &r->config->syncs[i];
		r->sync_runs[i].feed = feed_run_of(r, &r->config->syncs[i]);
		cdc_board_init(&r->sync_runs[i].board);
		cdc_board_init(&r->sync_runs[i].backfill_board);
		cdc_behind_init(&r->sync_runs[i].behind);
	}
	rc = cdc_data_dir_lock(r->config->data_dir, &r->lock_fd, err);
	if (!rc)
		rc = cdc_store_open(r->config->data_dir, &r->store, err);
	if (!rc)
		warn_of_open_key(r);
	if (!rc)
		rc = cdc_store_unlock(r->store, r->config->master_key, err);
	if (!rc)
		rc = forget_deleted_syncs(r, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < r->feed_n; i++)
		open_buffer(r, &r->feed_runs[i]);
	/* All groups, before any thread can make the buffer evict. */
	for (size_t i = 0; i < r->sync_n; i++)
		make_deliver(r, &r->sync_runs[i], err);
	for (size_t i = 0; i < r->feed_n; i++)
		make_capture(r, &r->feed_runs[i], err);
	warn_of_settings(r);
	rc = start_control(r, err);
	return rc ? rc : start_server(r, err);
}

/* --- threads ------------------------------------------------------------------------ */

static void *run_capture(void *arg)
{
	cdc_capture_run(arg);
	return NULL;
}

static void *run_backfill(void *arg)
{
	cdc_backfill_run(arg);
	return NULL;
}

static void *run_deliver(void *arg)
{
	cdc_deliver_run(arg);
	return NULL;
}

static enum cdc_code start_threads(struct run *r, struct cdc_err *err)
{
	for (size_t i = 0; i < r->sync_n; i++) {
		struct sync_run *s = &r->sync_runs[i];

		s->has_thread = s->deliver &&
				pthread_create(&s->thread, NULL, run_deliver, s->deliver) == 0;
		if (s->deliver && !s->has_thread)
			return cdc_err_set(err, CDC_NOMEM, "a thread for sync %s cannot be started",
					   s->sync->name);
		s->has_backfill_thread =
			s->deliver && s->backfill &&
			pthread_create(&s->backfill_thread, NULL, run_backfill, s->backfill) == 0;
		if (s->deliver && s->backfill && !s->has_backfill_thread)
			return cdc_err_set(err, CDC_NOMEM,
					   "a thread for the backfill of %s cannot be started",
					   s->sync->name);
	}
	for (size_t i = 0; i < r->feed_n; i++) {
		struct feed_run *f = &r->feed_runs[i];

		f->has_thread = f->capture &&
				pthread_create(&f->thread, NULL, run_capture, f->capture) == 0;
		if (f->capture && !f->has_thread)
			return cdc_err_set(err, CDC_NOMEM, "a thread for slot %s cannot be started",
					   f->feed->slot);
	}
	return CDC_OK;
}

/* --- watching ----------------------------------------------------------------------- */

static enum cdc_state state_of(struct cdc_board *board)
{
	struct cdc_board_view view;

	cdc_board_read(board, &view);
	return view.state;
}

/* While the store cannot write, nothing is lost, but the buffer lets nothing go. */
static void watch_store(struct run *r)
{
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = cdc_store_error(r->store, &err);
	if (rc == r->store_error)
		return;
	r->store_error = rc;
	if (rc)
		LOG_ERROR(&r->log, "store_cannot_write",
			  KV("note", "checkpoints wait; after a crash more records would be sent "
				     "again"),
			  KV_ERR(&err));
	else
		LOG_INFO(&r->log, "store_writes_again", KV("syncs", r->sync_n));
}

static void warn_of_budget(struct run *r, struct feed_run *f)
{
	static const unsigned steps[] = {90, 70, 50};
	uint64_t held = cdc_metric_get(&f->buffer_metrics.undelivered_bytes);
	unsigned step = 0;
	struct cdc_buffer_stats stats;

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && !step; i++) {
		if (held / 100 * 100 >= r->config->max_bytes / 100 * steps[i])
			step = steps[i];
	}
	if (step > f->warned_percent) {
		f->ops->stats(f->buffer, &stats);
		LOG_WARN(&r->log, "buffer_fills", KV("slot", (const char *)f->feed->slot),
			 KV("percent", step), KV("undelivered_bytes", held),
			 KV("max_bytes", r->config->max_bytes),
			 KV("held_by", stats.holder ? stats.holder : ""),
			 KV("on_full", r->config->on_full ? "suspend" : "stop"));
	}
	f->warned_percent = step;
}

static bool is_over(enum cdc_state state)
{
	return state == CDC_STATE_FAILED || state == CDC_STATE_SUSPENDED ||
	       state == CDC_STATE_ENDED;
}

/* Has everything failed that could bring or take changes?  Then only a person can help, and a
 * supervisor should know. */
static bool nothing_left_to_do(struct run *r)
{
	for (size_t i = 0; i < r->feed_n; i++) {
		struct feed_run *f = &r->feed_runs[i];
		struct cdc_buffer_stats stats;
		bool all_over = true;

		if (!is_over(state_of(&f->board)))
			return false;
		for (size_t k = 0; k < r->sync_n; k++) {
			if (r->sync_runs[k].feed == f && !is_over(state_of(&r->sync_runs[k].board)))
				all_over = false;
		}
		if (all_over || !f->buffer)
			continue;
		f->ops->stats(f->buffer, &stats);
		if (stats.holder)
			return false;
	}
	return true;
}

static int watch(struct run *r, const sigset_t *signals)
{
	const struct timespec wait = {.tv_nsec = WATCH_MS * 1000000};

	for (;;) {
		int sig = sigtimedwait(signals, NULL, &wait);

		if (sig == SIGTERM || sig == SIGINT || sig == SIGHUP) {
			LOG_INFO(&r->log, "stopping", KV("signal", sigabbrev_np(sig)));
			return CDC_EXIT_DONE;
		}
		watch_store(r);
		cdc_control_turn(&r->control);
		if (cdc_data_dir_is_gone(r->config->data_dir, r->lock_fd)) {
			LOG_ERROR(&r->log, "data_dir_is_gone",
				  KV("data_dir", (const char *)r->config->data_dir),
				  KV("note",
				     "buffer and state were removed or replaced while they "
				     "were in use; what was not delivered is lost with them"));
			return CDC_EXIT_FAILED;
		}
		for (size_t i = 0; i < r->feed_n; i++) {
			if (r->feed_runs[i].buffer)
				warn_of_budget(r, &r->feed_runs[i]);
		}
		if (nothing_left_to_do(r)) {
			LOG_ERROR(&r->log, "nothing_left_to_do",
				  KV("note", "no source can be read and nothing is left to "
					     "deliver; see the errors above"));
			return CDC_EXIT_FAILED;
		}
	}
}

/* --- taking down -------------------------------------------------------------------- */

/* In the order of the data: source, sync, sinks, buffer, store. */
static void take_down(struct run *r)
{
	cdc_stop_set(&r->stop);
	for (size_t i = 0; r->feed_runs && i < r->feed_n; i++) {
		if (r->feed_runs[i].has_thread)
			(void)pthread_join(r->feed_runs[i].thread, NULL);
		cdc_capture_free(r->feed_runs[i].capture);
	}
	for (size_t i = 0; r->sync_runs && i < r->sync_n; i++) {
		if (r->sync_runs[i].has_thread)
			(void)pthread_join(r->sync_runs[i].thread, NULL);
		if (r->sync_runs[i].has_backfill_thread)
			(void)pthread_join(r->sync_runs[i].backfill_thread, NULL);
		cdc_deliver_free(r->sync_runs[i].deliver);
		cdc_backfill_free(r->sync_runs[i].backfill);
		cdc_cursor_clear(&r->sync_runs[i].cursor);
		free(r->sync_runs[i].selection.items);
	}
	cdc_server_stop(r->server);
	for (size_t i = 0; r->feed_runs && i < r->feed_n; i++) {
		if (r->feed_runs[i].buffer)
			r->feed_runs[i].ops->close(r->feed_runs[i].buffer);
	}
	cdc_store_close(r->store);
	for (size_t i = 0; r->feed_runs && i < r->feed_n; i++)
		cdc_board_clear(&r->feed_runs[i].board);
	for (size_t i = 0; r->sync_runs && i < r->sync_n; i++) {
		cdc_board_clear(&r->sync_runs[i].board);
		cdc_board_clear(&r->sync_runs[i].backfill_board);
		cdc_behind_clear(&r->sync_runs[i].behind);
	}
	free(r->feed_runs);
	free(r->sync_runs);
	free(r->server_sources);
	free(r->server_syncs);
	free(r->control_syncs);
	cdc_feeds_free(r->feeds, r->feed_n);
	cdc_stop_clear(&r->stop);
	if (r->lock_fd >= 0)
		(void)close(r->lock_fd);
}

int cdc_cli_run(const struct cdc_cli_args *args)
{
	struct run r = {.lock_fd = -1};
	struct cdc_config *config;
	struct cdc_err err;
	sigset_t signals;
	int code = CDC_EXIT_FAILED;

	(void)umask(077);
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	memset(&err, 0, sizeof(err));
	r.config = config;
	r.log = (struct cdc_log){.level = config->log_level,
				 .format = config->log_format,
				 .comp = "main",
				 .fd = STDERR_FILENO};
	/* Blocked here, so in every thread; main alone takes them. */
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigaddset(&signals, SIGPIPE);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)sigdelset(&signals, SIGPIPE);
	if (cdc_stop_init(&r.stop, &err) || make(&r, &err) || start_threads(&r, &err)) {
		cdc_cli_complain(&err);
		code = CDC_EXIT_FAILED;
	} else {
		LOG_INFO(&r.log, "started", KV("version", WALPOST_VERSION), KV("syncs", r.sync_n),
			 KV("slots", r.feed_n));
		code = watch(&r, &signals);
	}
	take_down(&r);
	LOG_INFO(&r.log, "stopped", KV("exit_code", code));
	cdc_config_free(config);
	return code;
}
