#include "cdc/pipeline/backfill.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/pipeline/backoff.h"
#include "cdc/pipeline/pace.h"
#include "cdc/record/note.h"
#include "cdc/source/copy.h"

#define BATCH_MAX_BYTES  (800u << 20) /* the largest single row */
#define BATCH_BYTES      (256u << 10)
#define BATCH_RECORDS    1000
#define QUEUE_MAX        256         /* and one place for the marks at the end */
#define LIST_MS          30000       /* looks for new tables */
#define ABSENT_MS        5000        /* while one that is to be copied is not published */
#define ROUND_BYTES      (16u << 20) /* tables that are copied under one snapshot, together */
#define ROUND_TABLES     100
#define WAITERS_MS       2000  /* looks for sessions that wait for a lock of ours */
#define WAITERS_RETRY_MS 10000 /* lets them through */
#define REFUSED_MS       30000 /* no snapshot could be made, whatever the tables are */
#define PROGRESS_MS      10000
#define PART_ROWS        4000000000 /* of one snapshot, and of one range by keys */
#define TURN_MS          1000
#define ASKED_MAX        64
#define NOT_STARTED_MS   100

struct cdc_backfill {
	struct cdc_backfill_setup setup;
	int thread_fd, delivery_fd; /* wake the one and the other */
	pthread_mutex_t mu;
	struct cdc_backfill_view view; /* guarded by mu */
	struct cdc_batch *queue[QUEUE_MAX + 1];
	size_t queue_first, queue_n; /* guarded by mu */
	uint64_t out_bytes;          /* JSON queued or not given back; guarded by mu */
	bool is_paused, is_told;     /* told: something to look at; guarded by mu */
	unsigned void_attempt;       /* whose snapshot is not of the stream; guarded by mu */
	struct asked {
		int64_t id;          /* of the command */
		unsigned generation; /* has to have begun */
		bool is_repair;      /* of a table that may not be published yet */
		char table[sizeof(((struct cdc_command *)0)->argument)];
	} asked[ASKED_MAX]; /* guarded by mu */
	size_t asked_n;     /* guarded by mu */
	int64_t asked_last; /* the id of the last that was taken; guarded by mu */
	int64_t asked_wait; /* the first that there was no room for; 0: none; guarded by mu */

	/* the thread's own */
	unsigned generation;
	bool has_rows;
	struct cdc_backfill_row *rows; /* as the store has them, by name */
	size_t row_n;
	struct cdc_copy_table *found; /* tables of the publication, as of the last look */
	size_t found_n;
	bool is_listed;                                               /* they were looked for */
	uint64_t list_ms;                                             /* the next look */
	char (*names)[sizeof(((struct cdc_backfill_row *)0)->table)]; /* of the round */
	const char **tables;                                          /* the same */
	size_t table_n;
	struct cdc_copy *copy;
	struct cdc_batch *batch; /* being filled */
	bool is_dry;
	unsigned failures; /* since something worked */
	uint64_t wait_ms;  /* nothing happens before */
	uint64_t waiters_ms, progress_ms, begun_ms;
	uint64_t full_ms; /* there is no room since; 0: there is */
	bool is_stalled;  /* the snapshot was let go: no new one before everything is delivered */
	struct cdc_pace pace;
	uint64_t paced_ms, paced_rows; /* the last look at others, and the rows read until then */
	uint64_t read_rows;            /* by this process */
	bool is_blind;                 /* it was said that replicas cannot be seen */
	bool is_ended;                 /* the copy is read as far as it is to be */
};

/* --- life --------------------------------------------------------------------------- */

static enum cdc_code set_tables(struct cdc_backfill *b, size_t n, struct cdc_err *err)
{
	free(b->names);
	free(b->tables);
	b->names = calloc(n ? n : 1, sizeof(*b->names));
	b->tables = calloc(n ? n : 1, sizeof(*b->tables));
	b->table_n = 0;
	if (!b->names || !b->tables)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu tables", n);
	return CDC_OK;
}

static void add_table(struct cdc_backfill *b, const char *name)
{
	(void)snprintf(b->names[b->table_n], sizeof(b->names[0]), "%s", name);
	b->tables[b->table_n] = b->names[b->table_n];
	b->table_n++;
}

static void show_tables(struct cdc_backfill *b, enum cdc_backfill_phase phase)
{
	b->view.tables = b->tables;
	b->view.table_n = b->table_n;
	b->view.phase = phase;
}

/* The round that was under way when the process ended. */
static enum cdc_code resume(struct cdc_backfill *b, const struct cdc_cursor *cursor,
			    struct cdc_err *err)
{
	const struct cdc_cursor_table *one = NULL; /* all are in the same state */
	enum cdc_code rc;

	if (cdc_cursor_copied(cursor) == 0)
		return CDC_OK;
	rc = set_tables(b, cursor->table_n, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < cursor->table_n; i++) {
		if (cdc_table_is_stopped(cursor->tables[i].state))
			continue;
		one = &cursor->tables[i];
		add_table(b, one->table);
	}
	CDC_ASSERT(one);
	if (one->state != CDC_TABLE_CATCHING_UP)
		show_tables(b, CDC_PHASE_HELD);
	else
		show_tables(b, one->point ? CDC_PHASE_DELIVERED : CDC_PHASE_LIFTED);
	return CDC_OK;
}

enum cdc_code cdc_backfill_new(const struct cdc_backfill_setup *setup,
			       const struct cdc_cursor *cursor, struct cdc_backfill **ret,
			       struct cdc_err *err)
{
	struct cdc_backfill *b = calloc(1, sizeof(*b));
	enum cdc_code rc;

	if (!b)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	b->setup = *setup;
	(void)pthread_mutex_init(&b->mu, NULL);
	b->thread_fd = cdc_event_new();
	b->delivery_fd = cdc_event_new();
	rc = resume(b, cursor, err);
	if (!rc && (b->thread_fd < 0 || b->delivery_fd < 0))
		rc = cdc_err_set(err, CDC_IO, "no more file descriptors");
	if (rc) {
		cdc_backfill_free(b);
		return rc;
	}
	*ret = b;
	return CDC_OK;
}

static void drop_queue(struct cdc_backfill *b)
{
	for (; b->queue_n; b->queue_n--) {
		struct cdc_batch *batch = b->queue[b->queue_first];

		b->queue_first = (b->queue_first + 1) % (QUEUE_MAX + 1);
		b->out_bytes -= batch->json.len;
		cdc_batch_free(batch);
	}
}

void cdc_backfill_free(struct cdc_backfill *b)
{
	if (!b)
		return;
	drop_queue(b);
	cdc_copy_close(b->copy);
	cdc_batch_free(b->batch);
	cdc_copy_list_free(b->found, b->found_n);
	free(b->rows);
	free(b->names);
	free(b->tables);
	if (b->thread_fd >= 0)
		(void)close(b->thread_fd);
	if (b->delivery_fd >= 0)
		(void)close(b->delivery_fd);
	(void)pthread_mutex_destroy(&b->mu);
	free(b);
}

/* --- taking turns ------------------------------------------------------------------- */

static void enter(struct cdc_backfill *b, enum cdc_backfill_phase phase, int wake_fd)
{
	(void)pthread_mutex_lock(&b->mu);
	b->view.phase = phase;
	b->view.is_noted = false;
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(wake_fd);
}

static enum cdc_backfill_phase phase_of(struct cdc_backfill *b)
{
	enum cdc_backfill_phase phase;

	(void)pthread_mutex_lock(&b->mu);
	phase = b->view.phase;
	(void)pthread_mutex_unlock(&b->mu);
	return phase;
}

void cdc_backfill_look(struct cdc_backfill *b, struct cdc_backfill_view *ret)
{
	(void)cdc_event_drain(b->delivery_fd);
	(void)pthread_mutex_lock(&b->mu);
	*ret = b->view;
	(void)pthread_mutex_unlock(&b->mu);
}

int cdc_backfill_fd(const struct cdc_backfill *b)
{
	return b->delivery_fd;
}

void cdc_backfill_held(struct cdc_backfill *b)
{
	enter(b, CDC_PHASE_HELD, b->thread_fd);
}

void cdc_backfill_delivered(struct cdc_backfill *b)
{
	enter(b, CDC_PHASE_DELIVERED, b->thread_fd);
}

void cdc_backfill_joined(struct cdc_backfill *b)
{
	enter(b, CDC_PHASE_JOINED, b->thread_fd);
}

void cdc_backfill_void(struct cdc_backfill *b, unsigned attempt)
{
	bool is_new;

	(void)pthread_mutex_lock(&b->mu);
	is_new = b->void_attempt != attempt;
	b->void_attempt = attempt;
	b->is_told |= is_new;
	(void)pthread_mutex_unlock(&b->mu);
	if (is_new)
		cdc_event_signal(b->thread_fd);
}

struct cdc_batch *cdc_backfill_take(struct cdc_backfill *b, unsigned attempt)
{
	struct cdc_batch *batch = NULL;

	(void)pthread_mutex_lock(&b->mu);
	if (b->queue_n && b->view.attempt == attempt) {
		batch = b->queue[b->queue_first];
		b->queue_first = (b->queue_first + 1) % (QUEUE_MAX + 1);
		b->queue_n--;
	}
	(void)pthread_mutex_unlock(&b->mu);
	return batch;
}

void cdc_backfill_give_back(struct cdc_backfill *b, struct cdc_batch *batch)
{
	(void)pthread_mutex_lock(&b->mu);
	b->out_bytes -= batch->json.len;
	(void)pthread_mutex_unlock(&b->mu);
	cdc_batch_free(batch);
	cdc_event_signal(b->thread_fd);
}

static bool is_paused(struct cdc_backfill *b)
{
	bool is;

	(void)pthread_mutex_lock(&b->mu);
	is = b->is_paused;
	(void)pthread_mutex_unlock(&b->mu);
	return is;
}

static bool has_room(struct cdc_backfill *b)
{
	bool has;

	(void)pthread_mutex_lock(&b->mu);
	has = b->queue_n < QUEUE_MAX && b->out_bytes < b->setup.settings.max_bytes;
	(void)pthread_mutex_unlock(&b->mu);
	return has;
}

/* Hands the batch that was filled to the delivery thread. */
static void push(struct cdc_backfill *b)
{
	if (!b->batch || !b->batch->n)
		return;
	(void)pthread_mutex_lock(&b->mu);
	b->queue[(b->queue_first + b->queue_n++) % (QUEUE_MAX + 1)] = b->batch;
	b->out_bytes += b->batch->json.len;
	(void)pthread_mutex_unlock(&b->mu);
	b->batch = NULL;
	cdc_event_signal(b->delivery_fd);
}

/* --- the tables --------------------------------------------------------------------- */

static int by_name(const void *name, const void *row)
{
	return strcmp(name, ((const struct cdc_backfill_row *)row)->table);
}

static struct cdc_backfill_row *row_of(struct cdc_backfill *b, const char *table)
{
	return b->row_n ? bsearch(table, b->rows, b->row_n, sizeof(*b->rows), by_name) : NULL;
}

/* What is left of a table; "": all of it. */
static const char *part_of(struct cdc_backfill *b, const char *table)
{
	const struct cdc_backfill_row *row = row_of(b, table);

	return row ? row->part : "";
}

static int compare_rows(const void *a, const void *b)
{
	return strcmp(((const struct cdc_backfill_row *)a)->table,
		      ((const struct cdc_backfill_row *)b)->table);
}

static int compare_bytes(const void *a, const void *b)
{
	uint64_t x = ((const struct cdc_copy_table *)a)->bytes;
	uint64_t y = ((const struct cdc_copy_table *)b)->bytes;

	return x < y ? -1 : x > y;
}

/* What failed before is tried once more by a process that starts. */
static enum cdc_code load_rows(struct cdc_backfill *b, struct cdc_err *err)
{
	enum cdc_code rc =
		cdc_store_backfill_get(b->setup.store, b->setup.sync, &b->rows, &b->row_n, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < b->row_n; i++) {
		if (b->rows[i].state == CDC_BACKFILL_FAILED)
			b->rows[i].state = CDC_BACKFILL_PENDING;
	}
	if (b->row_n)
		qsort(b->rows, b->row_n, sizeof(*b->rows), compare_rows);
	b->has_rows = true;
	return CDC_OK;
}

/* Those that were found (only: this one) and have no row yet. */
static enum cdc_code note_new_tables(struct cdc_backfill *b, const char *only, bool is_asked,
				     struct cdc_err *err)
{
	size_t known = b->row_n, n = known;
	struct cdc_backfill_row *grown = reallocarray(b->rows, known + b->found_n, sizeof(*grown));
	enum cdc_code rc;

	if (!grown)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu tables", b->found_n);
	b->rows = grown;
	for (size_t i = 0; i < b->found_n; i++) {
		struct cdc_backfill_row *row = &b->rows[n];

		if (row_of(b, b->found[i].name) || (only && strcmp(only, b->found[i].name) != 0))
			continue;
		memset(row, 0, sizeof(*row));
		row->is_asked = is_asked;
		(void)snprintf(row->table, sizeof(row->table), "%s", b->found[i].name);
		row->state = CDC_BACKFILL_PENDING;
		n++;
	}
	if (n == known)
		return CDC_OK;
	rc = cdc_store_backfill_put(b->setup.store, b->setup.sync, &b->rows[known], n - known, err);
	if (rc)
		return rc;
	b->row_n = n;
	qsort(b->rows, b->row_n, sizeof(*b->rows), compare_rows);
	return CDC_OK;
}

static enum cdc_code find_tables(struct cdc_backfill *b, uint64_t now_ms, struct cdc_err *err)
{
	enum cdc_code rc;

	if (now_ms < b->list_ms)
		return CDC_OK;
	cdc_copy_list_free(b->found, b->found_n);
	b->found = NULL;
	b->found_n = 0;
	rc = cdc_copy_list(&b->setup.plan, &b->found, &b->found_n, err);
	if (!rc && b->found_n && !b->setup.is_off)
		rc = note_new_tables(b, NULL, false, err);
	if (rc)
		return rc;
	b->is_listed = true;
	if (b->found_n)
		qsort(b->found, b->found_n, sizeof(*b->found), compare_bytes);
	b->list_ms = now_ms + LIST_MS;
	return CDC_OK;
}

static bool is_to_copy(const struct cdc_backfill *b, const struct cdc_backfill_row *row)
{
	return row->state == CDC_BACKFILL_PENDING && (row->is_asked || !b->setup.is_off);
}

static bool is_pending(struct cdc_backfill *b, const char *table)
{
	const struct cdc_backfill_row *row = row_of(b, table);

	return row && is_to_copy(b, row);
}

static bool is_found(const struct cdc_backfill *b, const char *table)
{
	for (size_t i = 0; i < b->found_n; i++) {
		if (strcmp(b->found[i].name, table) == 0)
			return true;
	}
	return false;
}

/* Returns how many are to be copied.  One that was dropped, renamed or taken out is waited for, but
 * is nothing that is left to do. */
static size_t count_tables(struct cdc_backfill *b)
{
	size_t pending = 0, left = 0, done = 0;

	for (size_t i = 0; i < b->row_n; i++) {
		const bool is = is_to_copy(b, &b->rows[i]);

		pending += is;
		left += is && (!b->is_listed || is_found(b, b->rows[i].table));
		done += b->rows[i].state == CDC_BACKFILL_DONE;
	}
	cdc_metric_set(&b->setup.metrics->backfill_pending, left);
	cdc_metric_set(&b->setup.metrics->backfill_done, done);
	return pending;
}

/* Small tables first, together; a large one alone, and one of which a part is left. */
static enum cdc_code choose_round(struct cdc_backfill *b, struct cdc_err *err)
{
	uint64_t bytes = 0;
	enum cdc_code rc = set_tables(b, b->found_n, err);

	for (size_t i = 0; i < b->found_n && !rc; i++) {
		if (!is_pending(b, b->found[i].name))
			continue;
		if (*part_of(b, b->found[i].name)) {
			if (b->table_n)
				continue;
			add_table(b, b->found[i].name);
			break;
		}
		bytes += b->found[i].bytes;
		if (b->table_n && !b->setup.is_whole &&
		    (bytes > ROUND_BYTES || b->table_n == ROUND_TABLES))
			break;
		add_table(b, b->found[i].name);
	}
	return rc;
}

/* --- steps -------------------------------------------------------------------------- */

static void post(struct cdc_backfill *b, enum cdc_state state, const struct cdc_err *err)
{
	cdc_board_post(b->setup.board, state, err, cdc_clock_wall_us());
}

static void wait_after(struct cdc_backfill *b, const struct cdc_err *err)
{
	uint64_t wait_ms = cdc_backoff_ms(++b->failures, cdc_backoff_random());

	b->wait_ms = cdc_clock_mono_ms() + wait_ms;
	post(b, CDC_STATE_WAITING, err);
	if (cdc_log_is_due(b->failures))
		LOG_WARN(&b->setup.log, "backfill_interrupted", KV("sync", b->setup.sync),
			 KV("attempt", b->failures), KV("wait_ms", wait_ms), KV_ERR(err));
}

static enum cdc_code step_idle(struct cdc_backfill *b, uint64_t now_ms, struct cdc_err *err)
{
	size_t pending;
	enum cdc_code rc;

	if (is_paused(b)) {
		(void)count_tables(b);
		post(b, CDC_STATE_PAUSED, NULL);
		b->wait_ms = UINT64_MAX;
		return CDC_OK;
	}
	if (b->setup.is_off && !count_tables(b)) {
		post(b, CDC_STATE_ENDED, NULL);
		b->wait_ms = UINT64_MAX;
		return CDC_OK;
	}
	rc = find_tables(b, now_ms, err);
	if (!rc)
		rc = choose_round(b, err);
	if (rc)
		return rc;
	b->failures = 0;
	pending = count_tables(b);
	if (b->table_n == 0) {
		post(b, CDC_STATE_ENDED, NULL);
		if (pending)
			b->list_ms = now_ms + ABSENT_MS;
		b->wait_ms = b->list_ms;
		return CDC_OK;
	}
	LOG_INFO(&b->setup.log, "backfill_round", KV("sync", b->setup.sync),
		 KV("tables", b->table_n), KV("first", b->tables[0]));
	post(b, CDC_STATE_RUNNING, NULL);
	(void)pthread_mutex_lock(&b->mu);
	show_tables(b, CDC_PHASE_ASKED);
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(b->delivery_fd);
	return CDC_OK;
}

/* No copy this time; the tables catch up with the stream meanwhile. */
static void lift(struct cdc_backfill *b, const struct cdc_err *err, uint64_t retry_ms)
{
	b->wait_ms = cdc_clock_mono_ms() + retry_ms;
	b->list_ms = 0;
	post(b, CDC_STATE_WAITING, err);
	LOG_WARN(&b->setup.log, "backfill_given_up", KV("sync", b->setup.sync),
		 KV("note", retry_ms ? "the tables go on without a copy; it is tried again"
				     : "the tables go on without a copy; one that failed is copied "
				       "by the next start, or by walpost resync"),
		 KV_ERR(err));
	enter(b, CDC_PHASE_LIFTED, b->delivery_fd);
}

/* The copy of one table, or of all, can only be mended by a person. */
static enum cdc_code fail_tables(struct cdc_backfill *b, size_t index, const struct cdc_err *why,
				 struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < b->table_n && !rc; i++) {
		struct cdc_backfill_row *row = row_of(b, b->tables[i]);

		if (!row || (index != SIZE_MAX && index != i))
			continue;
		row->state = CDC_BACKFILL_FAILED;
		row->ended_us = cdc_clock_wall_us();
		(void)snprintf(row->reason, sizeof(row->reason), "%.*s",
			       (int)sizeof(row->reason) - 1, why->msg);
		LOG_ERROR(&b->setup.log, "backfill_table_failed", KV("sync", b->setup.sync),
			  KV("table", (const char *)row->table), KV_ERR(why));
		rc = cdc_store_backfill_put(b->setup.store, b->setup.sync, row, 1, err);
	}
	return rc;
}

static void leave_copy(struct cdc_backfill *b)
{
	cdc_copy_close(b->copy);
	b->copy = NULL;
	cdc_metric_set(&b->setup.metrics->backfill_slowed, 0);
	cdc_metric_set(&b->setup.metrics->backfill_eta_ms, 0);
}

static void close_copy(struct cdc_backfill *b)
{
	leave_copy(b);
	cdc_batch_free(b->batch);
	b->batch = NULL;
	/* Rows of this snapshot must not come behind changes that it does not contain. */
	(void)pthread_mutex_lock(&b->mu);
	drop_queue(b);
	(void)pthread_mutex_unlock(&b->mu);
}

/* Nobody takes rows: a snapshot that stays open would keep the database from cleaning up. */
static void release(struct cdc_backfill *b)
{
	struct cdc_err why = {0};

	close_copy(b);
	b->is_stalled = true;
	b->full_ms = 0;
	(void)cdc_err_set(&why, CDC_BUSY,
			  "the destination takes no rows, so the snapshot is let go; the copy "
			  "begins again when it does");
	post(b, CDC_STATE_WAITING, &why);
	LOG_WARN(&b->setup.log, "backfill_released", KV("sync", b->setup.sync), KV_ERR(&why));
	enter(b, CDC_PHASE_HELD, b->delivery_fd);
}

/* What an error of the copy means; CDC_OK: it was dealt with. */
static enum cdc_code judge(struct cdc_backfill *b, enum cdc_code rc, const struct cdc_err *why,
			   struct cdc_err *err)
{
	size_t index = cdc_copy_failed(b->copy);

	close_copy(b);
	if (rc == CDC_STOPPED)
		return CDC_OK;
	if (rc == CDC_TIMEOUT || rc == CDC_HELD) {
		lift(b, why, WAITERS_RETRY_MS);
		return CDC_OK;
	}
	/* Slots, rights and settings are mended without a restart. */
	if (cdc_code_class(rc) != CDC_CLASS_RETRY && index == SIZE_MAX &&
	    phase_of(b) == CDC_PHASE_HELD) {
		lift(b, why, REFUSED_MS);
		return CDC_OK;
	}
	if (cdc_code_class(rc) != CDC_CLASS_RETRY) {
		rc = fail_tables(b, index, why, err);
		if (!rc)
			lift(b, why, 0);
		return rc;
	}
	/* The connection broke: the same tables again, with a new snapshot. */
	wait_after(b, why);
	if (phase_of(b) == CDC_PHASE_COPYING)
		enter(b, CDC_PHASE_HELD, b->delivery_fd);
	return CDC_OK;
}

static uint64_t bytes_out(struct cdc_backfill *b)
{
	uint64_t bytes;

	(void)pthread_mutex_lock(&b->mu);
	bytes = b->out_bytes;
	(void)pthread_mutex_unlock(&b->mu);
	return bytes;
}

/* Notes what the round comes to for each table: next[i]; NULL: nothing, it begins anew. */
static enum cdc_code note_next(struct cdc_backfill *b, const char *const *next, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < b->table_n && !rc; i++) {
		struct cdc_backfill_row *row = row_of(b, b->tables[i]), changed;

		if (!row || row->state != CDC_BACKFILL_PENDING ||
		    strcmp(row->next, next ? next[i] : "") == 0)
			continue;
		changed = *row;
		(void)snprintf(changed.next, sizeof(changed.next), "%s", next ? next[i] : "");
		rc = cdc_store_backfill_put(b->setup.store, b->setup.sync, &changed, 1, err);
		if (!rc)
			*row = changed;
	}
	return rc;
}

/* --- marks -------------------------------------------------------------------------- */

static enum cdc_code make_batch(struct cdc_backfill *b, struct cdc_err *err)
{
	if (!b->batch)
		b->batch = cdc_batch_new(BATCH_MAX_BYTES);
	return b->batch ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory for a batch");
}

/* The rows that the copy of a table has come to. */
static uint64_t rows_of(const struct cdc_backfill *b, const struct cdc_backfill_row *row,
			size_t table)
{
	struct cdc_copy_progress p;

	cdc_copy_progress(b->copy, table, &p);
	return *row->part ? row->rows + p.rows : p.rows;
}

static enum cdc_code put_mark(struct cdc_backfill *b, size_t table, bool is_end, uint64_t rows,
			      struct cdc_err *err)
{
	const cdc_lsn point = cdc_copy_point(b->copy);
	const struct cdc_note note = {
		.op = CDC_OP_BACKFILL,
		.table = b->tables[table],
		.id = {.epoch = cdc_copy_epoch(b->copy),
		       .commit_lsn = point,
		       .range = is_end ? CDC_ID_RANGE_END : 0,
		       .row = (uint32_t)table + 1},
		.position = point,
	};
	struct cdc_record *r;
	enum cdc_code rc = cdc_note_begin(b->batch, &note, &r, err);

	if (rc)
		return rc;
	if (is_end)
		cdc_buf_printf(&b->batch->json, "{\"state\":\"end\",\"rows\":%llu}",
			       (unsigned long long)rows);
	else
		cdc_buf_puts(&b->batch->json, "{\"state\":\"begin\"}");
	return cdc_note_end(b->batch, &note, r, err);
}

/*
 * Makes the marks of the copy's begin, of tables that are copied from their start, or of its end,
 * of those of which nothing is left, ready to be pushed.  The batch has no rows then.  An error
 * leaves none.
 */
static enum cdc_code make_marks(struct cdc_backfill *b, bool is_end, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (b->setup.has_marks)
		rc = make_batch(b, err);
	for (size_t i = 0; b->setup.has_marks && i < b->table_n && !rc; i++) {
		const struct cdc_backfill_row *row = row_of(b, b->tables[i]);

		if (!row || row->state != CDC_BACKFILL_PENDING)
			continue;
		if (is_end ? strcmp(row->next, CDC_BACKFILL_ALL) == 0 : !*row->part)
			rc = put_mark(b, i, is_end, rows_of(b, row, i), err);
	}
	if (rc) {
		cdc_batch_free(b->batch);
		b->batch = NULL;
	}
	return rc;
}

static enum cdc_code step_held(struct cdc_backfill *b, struct cdc_err *err)
{
	struct cdc_copy_setup setup = {
		.plan = &b->setup.plan,
		.tables = b->tables,
		.table_n = b->table_n,
		.connections = (unsigned)b->setup.settings.connections,
		.generation = b->generation,
		.part = b->table_n == 1 ? part_of(b, b->tables[0]) : "",
	};
	struct cdc_buffer_state st;
	struct cdc_slot_row slot;
	struct cdc_err why = {0};
	enum cdc_code rc;

	if (b->is_stalled && bytes_out(b))
		return CDC_OK;
	b->is_stalled = false;
	b->is_ended = false;
	rc = note_next(b, NULL, err);
	if (!rc)
		rc = cdc_store_slot_get(b->setup.store, b->setup.connection, b->setup.plan.slot,
					&slot, err);
	if (rc)
		return rc;
	b->setup.ops->state(b->setup.buffer, &st);
	setup.system_id = slot.system_id;
	setup.timeline = CDC_EPOCH_TIMELINE(st.epoch);
	setup.durable = st.durable;
	rc = cdc_copy_open(&setup, &b->copy, &why);
	if (rc)
		return judge(b, rc, &why, err);
	rc = make_marks(b, false, err);
	if (rc) {
		close_copy(b);
		return rc;
	}
	b->failures = 0;
	b->begun_ms = cdc_clock_mono_ms();
	b->waiters_ms = b->begun_ms + WAITERS_MS;
	b->progress_ms = b->begun_ms + PROGRESS_MS;
	b->paced_ms = b->begun_ms;
	b->paced_rows = b->read_rows;
	b->is_dry = false;
	post(b, CDC_STATE_RUNNING, NULL);
	(void)pthread_mutex_lock(&b->mu);
	b->view.attempt++;
	b->view.point = cdc_copy_point(b->copy);
	b->view.epoch = cdc_copy_epoch(b->copy);
	b->view.phase = CDC_PHASE_COPYING;
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(b->delivery_fd);
	push(b);
	return CDC_OK;
}

struct sum {
	uint64_t rows, blocks_done, blocks_total;
};

static struct sum progress_of(const struct cdc_backfill *b)
{
	struct sum sum = {0};

	for (size_t i = 0; i < b->table_n; i++) {
		struct cdc_copy_progress p;

		cdc_copy_progress(b->copy, i, &p);
		sum.rows += p.rows;
		sum.blocks_done += p.blocks_done;
		sum.blocks_total += p.blocks_total;
	}
	return sum;
}

static void show_progress(struct cdc_backfill *b, uint64_t now_ms)
{
	struct sum sum = progress_of(b);
	uint64_t took_ms = now_ms - b->begun_ms;
	uint64_t eta_ms = 0, permille = 0;

	if (sum.blocks_total)
		permille = sum.blocks_done * 1000 / sum.blocks_total;
	if (sum.blocks_done)
		eta_ms = took_ms * (sum.blocks_total - sum.blocks_done) / sum.blocks_done;
	cdc_metric_set(&b->setup.metrics->backfill_permille, permille);
	cdc_metric_set(&b->setup.metrics->backfill_eta_ms, eta_ms);
	if (now_ms < b->progress_ms)
		return;
	b->progress_ms = now_ms + PROGRESS_MS;
	LOG_INFO(&b->setup.log, "backfill_progress", KV("sync", b->setup.sync),
		 KV("tables", b->table_n), KV("rows", sum.rows), KV("percent", permille / 10),
		 KV("eta_s", eta_ms / 1000));
}

/* A table of which something is left, and which cannot be copied by parts. */
static enum cdc_code fail_keyless(struct cdc_backfill *b, size_t table, struct cdc_err *why,
				  struct cdc_err *err)
{
	(void)cdc_err_wrap(why, "its snapshot is %llu s old (backfill.max_snapshot_age)",
			   (unsigned long long)(cdc_clock_mono_ms() - b->begun_ms) / 1000);
	(void)cdc_err_remedy(why,
			     "give the table a primary key, or raise the setting; it is copied "
			     "from the start when walpost starts again");
	return fail_tables(b, table, why, err);
}

/* Tells the store what the copy comes to as far as it was read. */
static enum cdc_code note_rest(struct cdc_backfill *b, struct cdc_err *err)
{
	char(*rest)[CDC_COPY_PART_MAX] = calloc(b->table_n, sizeof(*rest));
	const char **next = calloc(b->table_n, sizeof(*next));
	enum cdc_code rc = CDC_OK;

	if (!rest || !next)
		rc = cdc_err_set(err, CDC_NOMEM, "out of memory for %zu tables", b->table_n);
	for (size_t i = 0; i < b->table_n && !rc; i++) {
		struct cdc_err why = {0};

		if (cdc_copy_rest(b->copy, i, rest[i], &why))
			rc = fail_keyless(b, i, &why, err);
		next[i] = *rest[i] ? rest[i] : CDC_BACKFILL_ALL;
	}
	if (!rc)
		rc = note_next(b, next, err);
	free(rest);
	free(next);
	return rc;
}

static enum cdc_code finish_copy(struct cdc_backfill *b, struct cdc_err *err)
{
	int64_t now_us = cdc_clock_wall_us();
	enum cdc_code rc = note_rest(b, err);

	if (!rc)
		rc = make_marks(b, true, err);
	if (rc)
		return rc;
	push(b);
	for (size_t i = 0; i < b->table_n; i++) {
		struct cdc_backfill_row *row = row_of(b, b->tables[i]);

		if (!row)
			continue;
		row->rows = rows_of(b, row, i);
		if (!*row->part)
			row->begun_us =
				now_us - (int64_t)(cdc_clock_mono_ms() - b->begun_ms) * 1000;
	}
	leave_copy(b);
	post(b, CDC_STATE_RUNNING, NULL);
	enter(b, CDC_PHASE_COPIED, b->delivery_fd);
	return CDC_OK;
}

/* The snapshot is to be held no longer; what was read under it counts. */
static enum cdc_code end_early(struct cdc_backfill *b, const char *why, struct cdc_err *err)
{
	struct sum sum = progress_of(b);

	LOG_INFO(&b->setup.log, "backfill_goes_on_in_parts", KV("sync", b->setup.sync),
		 KV("table", b->tables[0]), KV("rows", sum.rows), KV("reason", why));
	b->is_ended = true;
	return finish_copy(b, err);
}

/* Is it time to end the copy before its end?  Ids count the rows of a part in 32 bits. */
static bool is_too_old(const struct cdc_backfill *b, uint64_t now_ms)
{
	return (now_ms - b->begun_ms >= b->setup.settings.snapshot_ms ||
		progress_of(b).rows >= PART_ROWS) &&
	       cdc_copy_can_end(b->copy);
}

/* --- for others' sake ----------------------------------------------------------------- */

/* Why the copy should go slower; CDC_OK: it need not. */
static enum cdc_code find_sufferer(struct cdc_backfill *b, const struct cdc_pressure *p,
				   struct cdc_err *why)
{
	const uint64_t limit_ms = b->setup.settings.replica_lag_ms;
	struct cdc_buffer_stats buffer;

	if (limit_ms && p->lag_ms > limit_ms)
		return cdc_err_set(why, CDC_BUSY,
				   "the copy is slowed down: the replica %s is %llu s behind "
				   "(backfill.max_replica_lag: %llu s)",
				   p->replica, (unsigned long long)p->lag_ms / 1000,
				   (unsigned long long)limit_ms / 1000);
	b->setup.ops->stats(b->setup.buffer, &buffer);
	if (cdc_slot_step(p->slot_percent) && !buffer.is_full)
		return cdc_err_set(
			why, CDC_BUSY,
			"the copy is slowed down: the slot keeps %u %% of its WAL budget",
			p->slot_percent);
	return CDC_OK;
}

static void say_blind(struct cdc_backfill *b)
{
	struct cdc_err why = {0};

	if (b->is_blind || !b->setup.settings.replica_lag_ms)
		return;
	b->is_blind = true;
	(void)cdc_err_set(&why, CDC_AUTH,
			  "the role may not see how far the replicas are, so copies do not go "
			  "slower for them");
	(void)cdc_err_remedy(&why, "GRANT pg_monitor TO \"%s\";, or max_replica_lag: 0",
			     b->setup.plan.settings->username);
	LOG_WARN(&b->setup.log, "backfill_replicas_unseen", KV("sync", b->setup.sync),
		 KV_ERR(&why));
}

/* Looks at those who pay for the copy, and sets its pace.  What cannot be learned changes nothing.
 */
static void ease(struct cdc_backfill *b, uint64_t now_ms)
{
	const uint64_t took_ms = now_ms - b->paced_ms, was = b->pace.limit;
	const uint64_t rows = b->read_rows - b->paced_rows;
	struct cdc_pressure p;
	struct cdc_err why = {0};
	enum cdc_code rc = cdc_copy_pressure(b->copy, &p, NULL);

	b->paced_ms = now_ms;
	b->paced_rows = b->read_rows;
	if (rc || took_ms == 0)
		return;
	if (p.is_hidden)
		say_blind(b);
	if (find_sufferer(b, &p, &why))
		cdc_pace_slower(&b->pace, rows * 1000 / took_ms);
	else if (was)
		cdc_pace_faster(&b->pace);
	cdc_metric_set(&b->setup.metrics->backfill_slowed, b->pace.limit);
	if (why.code) {
		post(b, CDC_STATE_WAITING, &why);
		if (!was)
			LOG_WARN(&b->setup.log, "backfill_slowed", KV("sync", b->setup.sync),
				 KV("rows_per_second", b->pace.limit), KV_ERR(&why));
	} else if (was && !b->pace.limit) {
		post(b, CDC_STATE_RUNNING, NULL);
		LOG_INFO(&b->setup.log, "backfill_at_full_speed", KV("sync", b->setup.sync));
	}
}

static uint64_t rows_per_second(const struct cdc_backfill *b)
{
	return cdc_pace_lower(b->setup.settings.rows_per_second, b->pace.limit);
}

static void note_oddities(const struct cdc_backfill *b, const struct cdc_copy_read *r)
{
	struct cdc_sync_metrics *m = b->setup.metrics;
	const bool is_first = !cdc_metric_get(&m->backfill_unknown_types) &&
			      !cdc_metric_get(&m->backfill_odd_values);

	cdc_metric_add(&m->backfill_unknown_types, r->unknown_types);
	cdc_metric_add(&m->backfill_odd_values, r->odd_values);
	cdc_metric_add(&m->backfill_too_large, r->too_large);
	if (is_first && (r->unknown_types | r->odd_values))
		LOG_WARN(&b->setup.log, "backfill_values_unknown", KV("sync", b->setup.sync),
			 KV("note",
			    "values whose type was dropped, or has other attributes by now, "
			    "are written as text"));
}

/* The limit of rows per second: the next read waits until these rows have had their time. */
static void pay(struct cdc_backfill *b, uint64_t rows, uint64_t now_ms)
{
	const uint64_t per_second = rows_per_second(b);

	if (per_second)
		b->wait_ms = (b->wait_ms > now_ms ? b->wait_ms : now_ms) + rows * 1000 / per_second;
}

static enum cdc_code step_copying(struct cdc_backfill *b, uint64_t now_ms, struct cdc_err *err)
{
	struct cdc_copy_read read = {0};
	struct cdc_err why = {0};
	size_t target = BATCH_RECORDS, before;
	enum cdc_code rc = CDC_OK;

	if (b->is_ended)
		return finish_copy(b, err);
	if (now_ms >= b->waiters_ms) {
		b->waiters_ms = now_ms + WAITERS_MS;
		rc = cdc_copy_check_waiters(b->copy, &why);
		if (!rc)
			ease(b, now_ms);
		show_progress(b, now_ms);
	}
	/* Rows that were given out wait in the queue, or are delivered. */
	if (rc == CDC_HELD && b->table_n == 1 && *part_of(b, b->tables[0]) &&
	    cdc_copy_can_end(b->copy)) {
		b->wait_ms = now_ms + WAITERS_RETRY_MS;
		return end_early(b, why.msg, err);
	}
	if (!rc && is_too_old(b, now_ms))
		return end_early(b, "the snapshot is as old as backfill.max_snapshot_age", err);
	b->is_dry = true;
	if (!rc && !has_room(b)) {
		if (!b->full_ms)
			b->full_ms = now_ms;
		if (now_ms - b->full_ms >= b->setup.settings.stall_ms)
			release(b);
		return CDC_OK;
	}
	b->full_ms = 0;
	if (rc)
		return judge(b, rc, &why, err);
	rc = make_batch(b, err);
	if (rc)
		return rc;
	if (rows_per_second(b) && rows_per_second(b) < target * 10)
		target = (size_t)rows_per_second(b) / 10 + 1;
	before = b->batch->n;
	rc = cdc_copy_read(b->copy, b->batch, BATCH_BYTES, target, &read, &why);
	note_oddities(b, &read);
	b->read_rows += b->batch->n - before;
	if (rc && rc != CDC_BUSY)
		return judge(b, rc, &why, err);
	cdc_metric_add(&b->setup.metrics->backfill_rows, b->batch->n - before);
	pay(b, b->batch->n - before, now_ms);
	b->is_dry = read.is_dry && rc != CDC_BUSY;
	push(b);
	if (!read.is_finished)
		return CDC_OK;
	cdc_metric_set(&b->setup.metrics->backfill_permille, 1000);
	b->is_ended = true;
	return finish_copy(b, err);
}

static enum cdc_code step_delivered(struct cdc_backfill *b, struct cdc_err *err)
{
	uint64_t rows = 0;
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < b->table_n && !rc; i++) {
		struct cdc_backfill_row *row = row_of(b, b->tables[i]), changed;

		if (!row || row->state != CDC_BACKFILL_PENDING || !*row->next)
			continue;
		changed = *row;
		changed.next[0] = '\0';
		changed.is_asked &= strcmp(row->next, CDC_BACKFILL_ALL) != 0;
		changed.ended_us = cdc_clock_wall_us();
		if (strcmp(row->next, CDC_BACKFILL_ALL) == 0) {
			changed.state = CDC_BACKFILL_DONE;
			changed.part[0] = '\0';
		} else {
			memcpy(changed.part, row->next, sizeof(changed.part));
		}
		rows += row->rows;
		rc = cdc_store_backfill_put(b->setup.store, b->setup.sync, &changed, 1, err);
		if (!rc)
			*row = changed;
	}
	if (rc)
		return rc;
	(void)pthread_mutex_lock(&b->mu);
	b->view.is_noted = true;
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(b->delivery_fd);
	(void)count_tables(b);
	LOG_INFO(&b->setup.log, "backfill_delivered", KV("sync", b->setup.sync),
		 KV("tables", b->table_n), KV("rows", rows));
	return CDC_OK;
}

/* Has capture written to the buffer?  Then the numbering is known, too. */
static bool has_started(struct cdc_backfill *b)
{
	struct cdc_buffer_state st;

	b->setup.ops->state(b->setup.buffer, &st);
	b->generation = CDC_EPOCH_GENERATION(st.epoch);
	return st.epoch != 0;
}

/* --- what a person wants -------------------------------------------------------------- */

void cdc_backfill_pause(struct cdc_backfill *b, bool is_paused)
{
	(void)pthread_mutex_lock(&b->mu);
	b->is_paused = is_paused;
	b->is_told = true;
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(b->thread_fd);
}

static struct asked asked_by(const struct cdc_command *command)
{
	struct asked a = {.id = command->id};

	const char *table = command->argument;
	char *end;

	if (command->verb == CDC_VERB_REPAIR) {
		a.is_repair = true;
		a.generation = (unsigned)strtoul(command->argument, &end, 10);
		table = *end == ' ' ? end + 1 : "";
	}
	(void)snprintf(a.table, sizeof(a.table), "%s", table);
	return a;
}

enum cdc_code cdc_backfill_ask(struct cdc_backfill *b, const struct cdc_command *command,
			       struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	(void)pthread_mutex_lock(&b->mu);
	if (command->id <= b->asked_last) {
		rc = CDC_OK;
	} else if (b->asked_n == ASKED_MAX || (b->asked_wait && b->asked_wait < command->id)) {
		if (!b->asked_wait)
			b->asked_wait = command->id;
		rc = cdc_err_set(err, CDC_BUSY, "%d commands are waiting", ASKED_MAX);
	} else {
		b->asked[b->asked_n++] = asked_by(command);
		b->asked_last = command->id;
		b->asked_wait = 0;
		b->is_told = true;
	}
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(b->thread_fd);
	return rc;
}

static bool take_told(struct cdc_backfill *b)
{
	bool was_told;

	(void)pthread_mutex_lock(&b->mu);
	was_told = b->is_told;
	b->is_told = false;
	(void)pthread_mutex_unlock(&b->mu);
	return was_told;
}

static bool first_asked(struct cdc_backfill *b, struct asked *ret)
{
	bool has;

	(void)pthread_mutex_lock(&b->mu);
	has = b->asked_n != 0;
	if (has)
		*ret = b->asked[0];
	(void)pthread_mutex_unlock(&b->mu);
	return has;
}

static void drop_asked(struct cdc_backfill *b)
{
	(void)pthread_mutex_lock(&b->mu);
	memmove(&b->asked[0], &b->asked[1], --b->asked_n * sizeof(b->asked[0]));
	(void)pthread_mutex_unlock(&b->mu);
}

/* The known tables among those that were found (only: this one) are to be copied once more. */
static enum cdc_code mark_pending(struct cdc_backfill *b, const char *only, struct cdc_err *err)
{
	struct cdc_backfill_row *changed = calloc(b->row_n + 1, sizeof(*changed));
	size_t n = 0;
	enum cdc_code rc;

	if (!changed)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu tables", b->row_n);
	for (size_t i = 0; i < b->row_n; i++) {
		struct cdc_backfill_row *row = &b->rows[i];

		if (only ? strcmp(only, row->table) != 0 : !is_found(b, row->table))
			continue;
		row->state = CDC_BACKFILL_PENDING;
		row->is_asked = true;
		row->rows = 0;
		row->begun_us = row->ended_us = 0;
		row->reason[0] = '\0';
		row->part[0] = row->next[0] = '\0';
		changed[n++] = *row;
	}
	rc = cdc_store_backfill_put(b->setup.store, b->setup.sync, changed, n, err);
	free(changed);
	return rc;
}

/* A table that is not published at the moment: as if it had been found. */
static enum cdc_code note_absent_table(struct cdc_backfill *b, const char *table,
				       struct cdc_err *err)
{
	struct cdc_backfill_row row = {.state = CDC_BACKFILL_PENDING, .is_asked = true}, *grown;
	enum cdc_code rc;

	if (row_of(b, table))
		return CDC_OK;
	grown = reallocarray(b->rows, b->row_n + 1, sizeof(*grown));
	if (!grown)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a table");
	b->rows = grown;
	(void)snprintf(row.table, sizeof(row.table), "%.191s", table);
	rc = cdc_store_backfill_put(b->setup.store, b->setup.sync, &row, 1, err);
	if (rc)
		return rc;
	b->rows[b->row_n++] = row;
	qsort(b->rows, b->row_n, sizeof(*b->rows), compare_rows);
	return CDC_OK;
}

static bool is_in_round(const struct cdc_backfill *b, const char *only)
{
	for (size_t i = 0; i < b->table_n; i++) {
		if (!only || strcmp(only, b->tables[i]) == 0)
			return true;
	}
	return false;
}

/* "the publication has no table public.x; it has public.a, public.b" */
static void list_found(const struct cdc_backfill *b, const char *table, char *ret, size_t size)
{
	int at =
		snprintf(ret, size, "the publication has no table %s for this sync; it has", table);

	for (size_t i = 0; i < b->found_n && at > 0 && (size_t)at < size; i++)
		at += snprintf(ret + at, size - (size_t)at, "%s %s", i ? "," : "",
			       b->found[i].name);
	if (!b->found_n && at > 0 && (size_t)at < size)
		(void)snprintf(ret + at, size - (size_t)at, " none");
}

static enum cdc_code resync(struct cdc_backfill *b, const struct asked *a, uint64_t now_ms,
			    struct cdc_err *err)
{
	const char *only = a->table[0] ? a->table : NULL;
	char answer[sizeof(((struct cdc_command *)0)->answer)];
	enum cdc_code rc;

	b->list_ms = 0;
	rc = find_tables(b, now_ms, err);
	if (rc)
		return rc;
	if (only && a->is_repair && cdc_copy_wants(&b->setup.plan, only)) {
		rc = note_absent_table(b, only, err);
		if (rc)
			return rc;
	} else if (only ? !is_found(b, only) : !b->found_n) {
		list_found(b, only ? only : "at all", answer, sizeof(answer));
		return cdc_store_command_end(b->setup.store, a->id, CDC_COMMAND_REFUSED, answer,
					     err);
	}
	if (b->found_n)
		rc = note_new_tables(b, only, true, err);
	if (!rc)
		rc = mark_pending(b, only, err);
	if (rc)
		return rc;
	/* A copy that is under way may hold what is no longer wanted. */
	if (b->copy && is_in_round(b, only)) {
		close_copy(b);
		enter(b, CDC_PHASE_HELD, b->delivery_fd);
	}
	(void)count_tables(b);
	(void)snprintf(answer, sizeof(answer), "%zu %s copied again%s", only ? 1 : b->found_n,
		       only || b->found_n == 1 ? "table is" : "tables are",
		       is_paused(b) ? " once the backfill is resumed" : "");
	LOG_INFO(&b->setup.log, "resync", KV("sync", b->setup.sync),
		 KV("table", only ? only : "all"), KV("tables", only ? 1 : b->found_n));
	return cdc_store_command_end(b->setup.store, a->id, CDC_COMMAND_DONE, answer, err);
}

/* A copy that is under way is given up: its snapshot and locks go, and the tables catch up with the
 * stream. */
static void give_up_copy(struct cdc_backfill *b)
{
	close_copy(b);
	b->is_stalled = false;
	b->full_ms = 0;
	b->wait_ms = 0;
	enter(b, CDC_PHASE_LIFTED, b->delivery_fd);
}

/* Not while a copy is being brought to its end: its tables would be noted as copied.
 * *ret_is_blocked: nothing is to be begun for now. */
static enum cdc_code carry_out(struct cdc_backfill *b, uint64_t now_ms, bool *ret_is_blocked,
			       struct cdc_err *err)
{
	enum cdc_backfill_phase phase = phase_of(b);
	struct asked a;
	enum cdc_code rc = CDC_OK;

	/* Its rows are of before the gap. */
	if (phase == CDC_PHASE_COPIED && first_asked(b, &a) && b->generation < a.generation) {
		give_up_copy(b);
		*ret_is_blocked = true;
		return CDC_OK;
	}
	if (phase != CDC_PHASE_IDLE && phase != CDC_PHASE_ASKED && phase != CDC_PHASE_HELD &&
	    phase != CDC_PHASE_COPYING)
		return CDC_OK;
	while (!rc && first_asked(b, &a)) {
		*ret_is_blocked = b->generation < a.generation;
		if (*ret_is_blocked && (phase == CDC_PHASE_HELD || phase == CDC_PHASE_COPYING))
			give_up_copy(b);
		if (*ret_is_blocked)
			return CDC_OK;
		rc = resync(b, &a, now_ms, err);
		if (!rc)
			drop_asked(b);
	}
	return rc;
}

/* The snapshot is not of the stream that is read: another one, of the server that is read now. */
static bool begin_anew(struct cdc_backfill *b)
{
	struct cdc_err why = {0};
	bool is_void;

	(void)pthread_mutex_lock(&b->mu);
	is_void = b->void_attempt == b->view.attempt &&
		  (b->view.phase == CDC_PHASE_COPYING || b->view.phase == CDC_PHASE_COPIED);
	(void)pthread_mutex_unlock(&b->mu);
	if (!is_void)
		return false;
	(void)cdc_err_set(&why, CDC_EPOCH,
			  "the snapshot does not belong to what is read now: the server has "
			  "changed, or the sync began again");
	LOG_WARN(&b->setup.log, "backfill_begins_anew", KV("sync", b->setup.sync), KV_ERR(&why));
	close_copy(b);
	enter(b, CDC_PHASE_HELD, b->delivery_fd);
	return true;
}

/* What is read in the order of its key goes on behind the last key when it is resumed; all else
 * begins anew. */
static enum cdc_code pause_round(struct cdc_backfill *b, struct cdc_err *err)
{
	if (b->copy && b->table_n == 1 && *part_of(b, b->tables[0]) && cdc_copy_can_end(b->copy)) {
		LOG_INFO(&b->setup.log, "backfill_paused", KV("sync", b->setup.sync),
			 KV("tables", b->table_n),
			 KV("note", "what was read is delivered; the rest is copied when it is "
				    "resumed"));
		return end_early(b, "the backfill is paused", err);
	}
	post(b, CDC_STATE_PAUSED, NULL);
	LOG_INFO(&b->setup.log, "backfill_paused", KV("sync", b->setup.sync),
		 KV("tables", b->table_n),
		 KV("note", "tables whose copy was under way begin anew when it is resumed"));
	give_up_copy(b);
	return CDC_OK;
}

static enum cdc_code step(struct cdc_backfill *b, uint64_t now_ms, struct cdc_err *err)
{
	struct cdc_backfill_view view;
	bool is_blocked = false;
	enum cdc_code rc;

	if (!has_started(b)) {
		b->wait_ms = now_ms + NOT_STARTED_MS;
		return CDC_OK;
	}
	if (begin_anew(b))
		return CDC_OK;
	rc = carry_out(b, now_ms, &is_blocked, err);
	/* A command that cannot be carried out now keeps no lock from those who wait for it. */
	if (rc && phase_of(b) == CDC_PHASE_COPYING)
		give_up_copy(b);
	if (rc)
		return rc;
	if (is_blocked) {
		b->wait_ms = now_ms + NOT_STARTED_MS;
		return CDC_OK;
	}
	(void)pthread_mutex_lock(&b->mu);
	view = b->view;
	(void)pthread_mutex_unlock(&b->mu);
	if (is_paused(b) && (view.phase == CDC_PHASE_HELD || view.phase == CDC_PHASE_COPYING))
		return pause_round(b, err);
	switch (view.phase) {
	case CDC_PHASE_IDLE:
		return step_idle(b, now_ms, err);
	case CDC_PHASE_HELD:
		return step_held(b, err);
	case CDC_PHASE_COPYING:
		return step_copying(b, now_ms, err);
	case CDC_PHASE_DELIVERED:
		return view.is_noted ? CDC_OK : step_delivered(b, err);
	case CDC_PHASE_JOINED:
		enter(b, CDC_PHASE_IDLE, b->thread_fd);
		return CDC_OK;
	case CDC_PHASE_ASKED:
	case CDC_PHASE_COPIED:
	case CDC_PHASE_LIFTED:
		break; /* the delivery thread's turn */
	}
	return CDC_OK;
}

/* --- the thread --------------------------------------------------------------------- */

static void wait_for_more(struct cdc_backfill *b)
{
	struct pollfd fds[2 + CDC_COPY_CONNECTIONS_MAX] = {
		{.fd = b->setup.stop->fd, .events = POLLIN},
		{.fd = b->thread_fd, .events = POLLIN},
	};
	nfds_t n = 2;
	uint64_t now_ms = cdc_clock_mono_ms(), wait_ms = TURN_MS;

	if (b->wait_ms > now_ms) {
		if (b->wait_ms - now_ms < wait_ms)
			wait_ms = b->wait_ms - now_ms;
	} else if (b->copy && has_room(b)) {
		if (!b->is_dry)
			return;
		n += cdc_copy_poll(b->copy, fds + 2);
	}
	(void)poll(fds, n, (int)wait_ms);
	(void)cdc_event_drain(b->thread_fd);
}

void cdc_backfill_run(struct cdc_backfill *b)
{
	while (!cdc_stop_is_set(b->setup.stop)) {
		uint64_t now_ms = cdc_clock_mono_ms();
		struct cdc_err err = {0};
		enum cdc_code rc = CDC_OK;

		if (take_told(b))
			b->wait_ms = 0;
		if (now_ms >= b->wait_ms) {
			if (!b->has_rows)
				rc = load_rows(b, &err);
			if (!rc)
				rc = step(b, now_ms, &err);
			if (rc)
				wait_after(b, &err);
		}
		wait_for_more(b);
	}
}
