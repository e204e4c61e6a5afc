#include "cdc/api/health.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cdc/api/metrics_text.h"
#include "cdc/base/clock.h"
#include "cdc/source/source.h"

/* A text that may have been cut in the middle of a character; jansson takes only whole ones. */
static json_t *text_json(const char *text)
{
	json_t *j = json_string(text);
	char *copy;

	if (j)
		return j;
	copy = strdup(text);
	if (!copy)
		return NULL;
	for (char *p = copy; *p; p++) {
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	}
	j = json_string(copy);
	free(copy);
	return j;
}

/* Takes j.  Returns the status, or 500 when there was no memory for all of it. */
static unsigned put_json(json_t *j, unsigned status, struct cdc_buf *out)
{
	char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;

	json_decref(j);
	if (!text) {
		cdc_buf_puts(out, "{}\n");
		return 500;
	}
	cdc_buf_puts(out, text);
	cdc_buf_putc(out, '\n');
	free(text);
	return status;
}

static bool should_turn(enum cdc_state state)
{
	switch (state) {
	case CDC_STATE_STARTING:
	case CDC_STATE_RUNNING:
	case CDC_STATE_WAITING:
	case CDC_STATE_PAUSED:
		return true;
	case CDC_STATE_SUSPENDED:
	case CDC_STATE_FAILED:
	case CDC_STATE_ENDED:
		return false;
	}
	return false;
}

/* Adds a loop to the list; returns whether it turns as it should. */
static bool add_loop(json_t *loops, const char *kind, const char *name, struct cdc_board *board,
		     uint64_t started_ms, uint64_t now_ms)
{
	struct cdc_board_view view;
	uint64_t beat = atomic_load_explicit(&board->beat_ms, memory_order_relaxed), age;
	bool is_ok;

	if (beat == 0)
		beat = started_ms;
	age = now_ms > beat ? now_ms - beat : 0;
	cdc_board_read(board, &view);
	is_ok = !should_turn(view.state) || age < CDC_HEARTBEAT_MAX_MS;
	(void)json_array_append_new(loops,
				    json_pack("{s:s, s:o, s:s, s:I, s:b}", "loop", kind, "name",
					      text_json(name), "state", cdc_state_name(view.state),
					      "heartbeat_age_ms", (json_int_t)age, "ok", is_ok));
	return is_ok;
}

/* The record that a sync has longest not delivered, by its table and the hash of its key; null:
 * there is none. */
static json_t *oldest_json(const struct cdc_server_sync *s, int64_t now_us)
{
	struct cdc_behind_view b;
	char committed[CDC_TIME_TEXT], hash[20];
	json_t *o;

	cdc_behind_read(s->behind, &b);
	if (!b.has_oldest || !cdc_metric_get(&s->metrics->window))
		return json_null();
	(void)cdc_time_format(b.oldest.commit_us, committed);
	(void)snprintf(hash, sizeof(hash), "%016" PRIx64, b.oldest.key_hash);
	o = json_pack("{s:s, s:o, s:s}", "id", b.oldest.id, "schema", text_json(b.oldest.table),
		      "key_hash", hash);
	if (b.oldest.commit_us <= 0)
		return o;
	(void)json_object_set_new(o, "committed_at", json_string(committed));
	(void)json_object_set_new(
		o, "age_seconds",
		json_real((double)cdc_lag_us(now_us, (uint64_t)b.oldest.commit_us) / 1e6));
	return o;
}

/* Warns when the server keeps much WAL for the slot: the loops turn, yet its disk may fill. */
static void add_slot(json_t *warnings, const struct cdc_server_source *s)
{
	uint64_t percent = cdc_metric_get(&s->metrics->slot_used_percent);
	unsigned step = cdc_slot_step((unsigned)percent);
	char text[320];

	if (!step)
		return;
	(void)snprintf(text, sizeof(text),
		       "the server keeps %" PRIu64 " bytes of WAL for the slot %s, %" PRIu64
		       " %% of the budget; wal_status is %s",
		       cdc_metric_get(&s->metrics->slot_retained_bytes), s->slot, percent,
		       cdc_wal_status_name(
			       (enum cdc_wal_status)cdc_metric_get(&s->metrics->slot_wal_status)));
	(void)json_array_append_new(warnings,
				    json_pack("{s:s, s:o, s:i, s:s}", "loop", "source", "name",
					      text_json(s->connection), "wal_budget_step",
					      (int)step, "message", text));
}

static void add_source_warning(json_t *warnings, const struct cdc_server_source *s,
			       const char *text)
{
	(void)json_array_append_new(warnings, json_pack("{s:s, s:o, s:s}", "loop", "source", "name",
							text_json(s->connection), "message", text));
}

static void add_hurt_tables(json_t *warnings, const struct cdc_server_source *s)
{
	const uint64_t n = cdc_metric_get(&s->metrics->hurt_tables);
	char text[160];

	if (!n)
		return;
	(void)snprintf(text, sizeof(text),
		       "UPDATE and DELETE of %" PRIu64 " published tables fail: they lost their "
		       "replica identity; the log names them",
		       n);
	add_source_warning(warnings, s, text);
}

static void add_taken_out(json_t *warnings, const struct cdc_server_source *s)
{
	const uint64_t n = cdc_metric_get(&s->metrics->taken_out_tables);
	char text[240];

	if (!n)
		return;
	(void)snprintf(text, sizeof(text),
		       "%" PRIu64 " tables are not captured: they lost their replica identity and "
		       "were taken out of the publication; the log names them, and what to do",
		       n);
	add_source_warning(warnings, s, text);
}

static void add_publication(json_t *warnings, const struct cdc_server_source *s)
{
	const uint64_t left = cdc_metric_get(&s->metrics->left_tables);
	const uint64_t lost = cdc_metric_get(&s->metrics->lost_operations);
	char text[240];

	if (cdc_metric_get(&s->metrics->publication_gone))
		add_source_warning(warnings, s,
				   "the publication is not there any more; the log names it");
	if (left) {
		(void)snprintf(text, sizeof(text),
			       "%" PRIu64 " tables left the publication while it was read: their "
			       "changes do not come any more; the log names them, and what to do",
			       left);
		add_source_warning(warnings, s, text);
	}
	if (lost) {
		(void)snprintf(
			text, sizeof(text),
			"the publication stopped sending %" PRIu64 " of insert, update, "
			"delete and truncate while it was read; the log names them, and what "
			"to do",
			lost);
		add_source_warning(warnings, s, text);
	}
}

static void add_warning(json_t *warnings, const struct cdc_server_source *s)
{
	add_taken_out(warnings, s);
	add_slot(warnings, s);
	add_hurt_tables(warnings, s);
	add_publication(warnings, s);
}

static void add_caution(json_t *warnings, const struct cdc_server_sync *s)
{
	if (s->caution)
		(void)json_array_append_new(warnings,
					    json_pack("{s:s, s:o, s:s}", "loop", "sync", "name",
						      text_json(s->name), "message", s->caution));
}

static void add_stopped(json_t *warnings, const struct cdc_server_sync *s)
{
	const uint64_t n = cdc_metric_get(&s->metrics->stopped_tables);
	char text[400];

	if (!n)
		return;
	(void)snprintf(text, sizeof(text),
		       "%" PRIu64
		       " tables have stopped before a record that the endpoint refuses and that "
		       "nothing may pass; the log names both; make the endpoint accept it, then: "
		       "walpost resume %s",
		       n, s->name);
	(void)json_array_append_new(warnings, json_pack("{s:s, s:o, s:s}", "loop", "sync", "name",
							text_json(s->name), "message", text));
}

/* Warns of records that only a person can help. */
static void add_dead(json_t *warnings, const struct cdc_server_sync *s)
{
	uint64_t dead = cdc_metric_get(&s->metrics->dead);
	char text[128];

	if (!dead)
		return;
	(void)snprintf(text, sizeof(text),
		       "%" PRIu64 " records were given up: see `walpost dead-letters list`", dead);
	(void)json_array_append_new(warnings, json_pack("{s:s, s:o, s:I, s:s}", "loop", "sync",
							"name", text_json(s->name), "dead_letters",
							(json_int_t)dead, "message", text));
}

/* What the source's slot keeps, null before it was looked at. */
static json_t *wal_json(const struct cdc_source_metrics *m)
{
	if (!cdc_metric_get(&m->slot_looked_us))
		return json_null();
	return json_pack(
		"{s:s, s:I, s:I, s:o, s:I, s:I}", "status",
		cdc_wal_status_name((enum cdc_wal_status)cdc_metric_get(&m->slot_wal_status)),
		"retained_bytes", (json_int_t)cdc_metric_get(&m->slot_retained_bytes),
		"unconfirmed_bytes", (json_int_t)cdc_metric_get(&m->slot_unconfirmed_bytes),
		"safe_bytes",
		cdc_metric_get(&m->slot_has_limit)
			? json_integer((json_int_t)cdc_metric_get(&m->slot_safe_bytes))
			: json_null(),
		"budget_bytes", (json_int_t)cdc_metric_get(&m->slot_budget_bytes), "used_percent",
		(json_int_t)cdc_metric_get(&m->slot_used_percent));
}

unsigned cdc_health_json(const struct cdc_server_setup *setup, uint64_t started_ms, uint64_t now_ms,
			 struct cdc_buf *out)
{
	json_t *loops = json_array(), *warnings = json_array();
	bool is_ok = true;

	for (size_t i = 0; i < setup->source_n; i++)
		is_ok &= add_loop(loops, "source", setup->sources[i].connection,
				  setup->sources[i].board, started_ms, now_ms);
	for (size_t i = 0; i < setup->sync_n; i++) {
		is_ok &= add_loop(loops, "sync", setup->syncs[i].name, setup->syncs[i].board,
				  started_ms, now_ms);
		(void)json_object_set_new(json_array_get(loops, json_array_size(loops) - 1),
					  "oldest",
					  oldest_json(&setup->syncs[i], cdc_clock_wall_us()));
	}
	for (size_t i = 0; i < setup->source_n; i++)
		add_warning(warnings, &setup->sources[i]);
	for (size_t i = 0; i < setup->sync_n; i++) {
		add_caution(warnings, &setup->syncs[i]);
		add_stopped(warnings, &setup->syncs[i]);
		add_dead(warnings, &setup->syncs[i]);
	}
	return put_json(json_pack("{s:s, s:s, s:o, s:o}", "status", is_ok ? "ok" : "stalled",
				  "version", WALPOST_VERSION, "loops", loops, "warnings", warnings),
			is_ok ? 200 : 503, out);
}

/* Adds state, since and error to an object; returns whether the state is running. */
static bool add_state(json_t *object, struct cdc_board *board)
{
	struct cdc_board_view view;
	char since[CDC_TIME_TEXT];

	cdc_board_read(board, &view);
	(void)cdc_time_format(view.since_us, since);
	(void)json_object_set_new(object, "state", json_string(cdc_state_name(view.state)));
	(void)json_object_set_new(object, "since",
				  view.since_us ? json_string(since) : json_null());
	if (view.err.code == CDC_OK)
		(void)json_object_set_new(object, "error", json_null());
	else
		(void)json_object_set_new(
			object, "error",
			json_pack("{s:s, s:o, s:o}", "code", cdc_code_name(view.err.code),
				  "message", text_json(view.err.msg), "remedy",
				  view.err.remedy[0] ? text_json(view.err.remedy) : json_null()));
	return view.state == CDC_STATE_RUNNING;
}

unsigned cdc_ready_json(const struct cdc_server_setup *setup, bool is_strict, struct cdc_buf *out)
{
	json_t *sources = json_array(), *syncs = json_array();
	bool are_all_running = true;

	for (size_t i = 0; i < setup->source_n; i++) {
		const struct cdc_server_source *s = &setup->sources[i];
		json_t *o = json_pack("{s:o, s:o, s:o}", "connection", text_json(s->connection),
				      "slot", text_json(s->slot), "wal", wal_json(s->metrics));

		are_all_running &= add_state(o, s->board);
		(void)json_array_append_new(sources, o);
	}
	for (size_t i = 0; i < setup->sync_n; i++) {
		const struct cdc_server_sync *s = &setup->syncs[i];
		json_t *o = json_pack("{s:o, s:o, s:o, s:o}", "name", text_json(s->name), "id",
				      text_json(s->uuid), "source", text_json(s->source),
				      "destination", text_json(s->destination));

		are_all_running &= add_state(o, s->board);
		(void)json_object_set_new(
			o, "parked", json_integer((json_int_t)cdc_metric_get(&s->metrics->parked)));
		(void)json_object_set_new(
			o, "dead", json_integer((json_int_t)cdc_metric_get(&s->metrics->dead)));
		(void)json_array_append_new(syncs, o);
	}
	return put_json(json_pack("{s:s, s:b, s:o, s:o}", "status",
				  is_strict && !are_all_running ? "not running" : "ready",
				  "all_running", are_all_running, "sources", sources, "syncs",
				  syncs),
			is_strict && !are_all_running ? 503 : 200, out);
}

unsigned cdc_error_json(unsigned status, const char *message, struct cdc_buf *out)
{
	return put_json(
		json_pack("{s:{s:i, s:s}}", "error", "status", (int)status, "message", message),
		status, out);
}
