/* The store: what it was told is there after any crash, and its failures heal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/store/attempt.h"
#include "cdc/store/sql.h"
#include "cdc/store/store.h"

#define WAIT_MS 120000 /* for what takes a moment, on a machine that is busy */

struct fixture {
	char dir[64];
	struct cdc_store *store;
};

/* --- building ----------------------------------------------------------------------- */

static void pause_ms(long ms)
{
	const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static void open_it(struct fixture *f)
{
	struct cdc_err err = {0};

	if (cdc_store_open(f->dir, &f->store, &err) || cdc_store_unlock(f->store, NULL, &err))
		fail_msg("%s", err.msg);
}

static void close_it(struct fixture *f)
{
	cdc_store_close(f->store);
	f->store = NULL;
}

static void remove_files(const char *dir)
{
	static const char *const names[] = {"state.db", "state.db-wal", "state.db-shm",
					    "master.key"};

	for (size_t i = 0; i < 4; i++) {
		char path[128];

		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)unlink(path);
	}
	(void)rmdir(dir);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	(void)strcpy(f->dir, "/tmp/test_store.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	open_it(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	cdc_store_close(f->store);
	remove_files(f->dir);
	free(f);
	return 0;
}

/* The store's file behind its back. */
static sqlite3 *look_in(const struct fixture *f)
{
	char path[128];
	sqlite3 *db = NULL;

	(void)snprintf(path, sizeof(path), "%s/state.db", f->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	(void)sqlite3_busy_timeout(db, WAIT_MS);
	return db;
}

static void run_sql(sqlite3 *db, const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
}

static void sql_once(const struct fixture *f, const char *sql)
{
	sqlite3 *db = look_in(f);

	run_sql(db, sql);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int64_t number_in(const struct fixture *f, const char *sql)
{
	sqlite3 *db = look_in(f);
	sqlite3_stmt *stmt = NULL;
	int64_t v;

	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	v = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return v;
}

static struct cdc_id id_at(uint64_t n)
{
	return (struct cdc_id){.epoch = CDC_EPOCH(1, 1), .commit_lsn = n, .ordinal = 1, .part = 1};
}

/* The cursor of a sync that has come to n; p is what it points to. */
static struct cdc_cursor cursor_at(const char *sync, uint64_t n, struct cdc_stream_position *p)
{
	struct cdc_cursor c = {.streams = p, .stream_n = 1};

	(void)snprintf(c.sync, sizeof(c.sync), "%s", sync);
	*p = (struct cdc_stream_position){.id = id_at(n)};
	return c;
}

static uint64_t hand_over(struct cdc_store *s, const char *sync, uint64_t n)
{
	struct cdc_stream_position p;
	struct cdc_cursor c = cursor_at(sync, n, &p);

	return cdc_store_checkpoint(s, &c);
}

static enum cdc_code put(struct cdc_store *s, const char *sync, uint64_t n, struct cdc_err *err)
{
	struct cdc_stream_position p;
	struct cdc_cursor c = cursor_at(sync, n, &p);

	return cdc_store_cursor_put(s, &c, err);
}

/* How far a sync has come; 0 when it has no cursor, UINT64_MAX after an error. */
static uint64_t came_to(struct cdc_store *s, const char *sync)
{
	struct cdc_cursor c = {0};
	enum cdc_code rc = cdc_store_cursor_get(s, sync, &c, NULL);
	uint64_t n = rc == CDC_MISSING ? 0 : UINT64_MAX;

	if (!rc && c.stream_n == 1)
		n = c.streams[0].id.commit_lsn;
	cdc_cursor_clear(&c);
	return n;
}

static bool is_durable_soon(struct cdc_store *s, uint64_t ticket)
{
	for (int i = 0; i < WAIT_MS && cdc_store_checkpointed(s) < ticket; i++)
		pause_ms(1);
	return cdc_store_checkpointed(s) >= ticket;
}

/* From now on, or no longer, no file can be written at all. */
static void break_disk(bool is_broken)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = is_broken ? 0 : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* --- what is kept ------------------------------------------------------------------- */

static void a_new_store_is_empty_and_its_owners_alone(void **state)
{
	struct fixture *f = *state;
	struct cdc_slot_row row = {.generation = 7};
	struct cdc_cursor c = {0};
	struct stat st;
	char path[128], text[8];

	(void)snprintf(path, sizeof(path), "%s/state.db", f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(cdc_store_slot_get(f->store, "shop", "s", &row, NULL), CDC_MISSING);
	assert_int_equal(row.generation, 0);
	assert_int_equal(cdc_store_cursor_get(f->store, "orders", &c, NULL), CDC_MISSING);
	assert_int_equal(cdc_store_note_get(f->store, "n", text, sizeof(text), NULL), CDC_MISSING);
	assert_int_equal(cdc_store_error(f->store, NULL), CDC_OK);
	assert_int_equal(cdc_store_checkpointed(f->store), 0);
}

static const struct cdc_slot_row first_slot = {
	.slot = "walpost_shop",
	.connection = "shop",
	.system_id = "7301234567890123456",
	.created_lsn = UINT64_C(0xfedcba9876543210),
	.numbering = "a=1,b=2",
	.generation = 1,
	.slot_is_ours = true,
	.publication = "wal\"post'",
};

static void a_slot_comes_back_as_it_was_put(void **state)
{
	struct fixture *f = *state;
	struct cdc_slot_row row;

	assert_int_equal(cdc_store_slot_put(f->store, &first_slot, NULL), CDC_OK);
	close_it(f);
	open_it(f);
	assert_int_equal(cdc_store_slot_get(f->store, "shop", "walpost_shop", &row, NULL), CDC_OK);
	assert_string_equal(row.slot, first_slot.slot);
	assert_string_equal(row.connection, first_slot.connection);
	assert_string_equal(row.system_id, first_slot.system_id);
	assert_true(row.created_lsn == first_slot.created_lsn);
	assert_string_equal(row.numbering, first_slot.numbering);
	assert_int_equal(row.generation, 1);
	assert_true(row.slot_is_ours);
	assert_false(row.publication_is_ours);
	assert_string_equal(row.publication, first_slot.publication);
	assert_int_equal(cdc_store_slot_get(f->store, "other", "walpost_shop", &row, NULL),
			 CDC_MISSING);
	assert_int_equal(row.generation, 0);
}

static void a_deleted_slot_leaves_its_highest_generation_behind(void **state)
{
	struct fixture *f = *state;
	struct cdc_slot_row row = first_slot;

	for (row.generation = 1; row.generation <= 3; row.generation++)
		assert_int_equal(cdc_store_slot_put(f->store, &row, NULL), CDC_OK);
	assert_int_equal(number_in(f, "SELECT count(*) FROM epoch"), 2);
	assert_int_equal(cdc_store_slot_delete(f->store, "shop", "walpost_shop", NULL), CDC_OK);
	assert_int_equal(cdc_store_slot_delete(f->store, "shop", "walpost_shop", NULL), CDC_OK);
	assert_int_equal(cdc_store_slot_get(f->store, "shop", "walpost_shop", &row, NULL),
			 CDC_MISSING);
	assert_int_equal(row.generation, 3);
	assert_int_equal(number_in(f, "SELECT count(*) FROM epoch"), 3);
}

static void tables_and_their_copies_come_back_and_go_with_their_sync(void **state)
{
	struct fixture *f = *state;
	struct cdc_backfill_row rows[2] = {
		{.table = "public.b", .state = CDC_BACKFILL_PENDING, .part = "keys", .next = "all"},
		{.table = "public.a",
		 .state = CDC_BACKFILL_FAILED,
		 .rows = 7,
		 .begun_us = 1,
		 .ended_us = 2,
		 .reason = "permission denied"},
	};
	struct cdc_backfill_row *got;
	size_t n;

	assert_int_equal(cdc_store_backfill_put(f->store, "orders", rows, 2, NULL), CDC_OK);
	rows[0].state = CDC_BACKFILL_DONE;
	rows[0].rows = UINT64_C(1) << 40;
	(void)strcpy(rows[0].part, "changed");
	assert_int_equal(cdc_store_backfill_put(f->store, "orders", rows, 1, NULL), CDC_OK);
	close_it(f);
	open_it(f);
	assert_int_equal(cdc_store_backfill_get(f->store, "orders", &got, &n, NULL), CDC_OK);
	assert_int_equal(n, 2);
	assert_string_equal(got[0].table, "public.a");
	assert_int_equal(got[0].state, CDC_BACKFILL_FAILED);
	assert_int_equal(got[0].ended_us, 2);
	assert_string_equal(got[0].reason, "permission denied");
	assert_string_equal(got[1].table, "public.b");
	assert_int_equal(got[1].state, CDC_BACKFILL_DONE);
	assert_true(got[1].rows == UINT64_C(1) << 40);
	assert_string_equal(got[1].part, "changed");
	assert_string_equal(got[1].next, "all");
	assert_string_equal(got[0].part, "");
	free(got);
	assert_int_equal(cdc_store_cursor_delete(f->store, "orders", NULL), CDC_OK);
	assert_int_equal(cdc_store_backfill_get(f->store, "orders", &got, &n, NULL), CDC_OK);
	assert_int_equal(n, 0);
	free(got);
}

static void a_cursor_comes_back_with_its_streams_and_tables(void **state)
{
	struct fixture *f = *state;
	struct cdc_stream_position streams[2] = {{.stream = UINT32_MAX, .id = id_at(9)},
						 {.stream = 0, .id = id_at(UINT64_MAX)}};
	struct cdc_cursor_table tables[2] = {
		{.table = "public.b", .state = CDC_TABLE_STOPPED, .id = id_at(3)},
		{.table = "public.a",
		 .state = CDC_TABLE_HELD,
		 .id = {.epoch = 1, .commit_lsn = 8, .range = 2, .row = 5},
		 .point = 77},
	};
	struct cdc_cursor c = {.sync = "orders",
			       .streams = streams,
			       .stream_n = 2,
			       .tables = tables,
			       .table_n = 2},
			  got = {0};
	struct cdc_stream_position low;

	assert_int_equal(cdc_store_cursor_put(f->store, &c, NULL), CDC_OK);
	close_it(f);
	open_it(f);
	assert_int_equal(cdc_store_cursor_get(f->store, "orders", &got, NULL), CDC_OK);
	assert_string_equal(got.sync, "orders");
	assert_int_equal(got.stream_n, 2);
	assert_int_equal(got.streams[0].stream, 0);
	assert_int_equal(cdc_id_cmp(&got.streams[0].id, &streams[1].id), 0);
	assert_true(got.streams[1].stream == UINT32_MAX);
	assert_int_equal(cdc_id_cmp(&got.streams[1].id, &streams[0].id), 0);
	assert_int_equal(got.table_n, 2);
	low = cdc_cursor_lowest(&got);
	assert_int_equal(cdc_id_cmp(&low.id, &tables[1].id), 0); /* of an older epoch */
	assert_string_equal(got.tables[0].table, "public.a");
	assert_int_equal(got.tables[0].state, CDC_TABLE_HELD);
	assert_int_equal(cdc_id_cmp(&got.tables[0].id, &tables[1].id), 0);
	assert_int_equal(got.tables[0].point, 77);
	assert_string_equal(got.tables[1].table, "public.b");
	assert_int_equal(got.tables[1].point, 0);
	cdc_cursor_clear(&got);

	/* The next one replaces all of it. */
	c.stream_n = 1;
	c.table_n = 0;
	assert_int_equal(cdc_store_cursor_put(f->store, &c, NULL), CDC_OK);
	assert_int_equal(cdc_store_cursor_get(f->store, "orders", &got, NULL), CDC_OK);
	assert_int_equal(got.stream_n, 1);
	assert_int_equal(got.table_n, 0);
	cdc_cursor_clear(&got);
}

static void join(void *arg, const struct cdc_cursor *c)
{
	char *text = arg;

	(void)snprintf(text + strlen(text), 64 - strlen(text), "%s:%zu ", c->sync, c->stream_n);
}

static void every_cursor_is_listed_and_a_deleted_one_is_not(void **state)
{
	struct fixture *f = *state;
	char text[64] = "";

	assert_int_equal(put(f->store, "b", 1, NULL), CDC_OK);
	assert_int_equal(put(f->store, "a", 1, NULL), CDC_OK);
	assert_int_equal(put(f->store, "c", 1, NULL), CDC_OK);
	assert_int_equal(cdc_store_cursor_delete(f->store, "b", NULL), CDC_OK);
	assert_int_equal(cdc_store_cursor_delete(f->store, "never", NULL), CDC_OK);
	assert_int_equal(cdc_store_cursor_each(f->store, join, text, NULL), CDC_OK);
	assert_string_equal(text, "a:1 c:1 ");
	assert_int_equal(number_in(f, "SELECT count(*) FROM cursor_stream"), 2);
}

static void count_gap(void *arg, const struct cdc_gap_row *g)
{
	char *text = arg;

	(void)snprintf(text + strlen(text), 128 - strlen(text), "%s %d-%d %s;", g->sync,
		       (int)g->first.commit_lsn, (int)g->last.commit_lsn, g->reason);
}

static void park_dead(struct cdc_store *s, const char *table, uint64_t at)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_park_change change = {
		.act = CDC_PARK_PUT, .id = id_at(at), .state = CDC_PARKED_DEAD};
	struct cdc_record *r;
	uint16_t index;

	assert_non_null(b);
	assert_int_equal(cdc_batch_table(b, table, strlen(table), &index, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(b, &r, NULL), CDC_OK);
	r->id = id_at(at);
	r->table = index;
	cdc_buf_puts(&b->json, "{}");
	assert_int_equal(cdc_batch_end(b, NULL), CDC_OK);
	change.view = (struct cdc_view){.rec = &b->records[0], .batch = b};
	assert_int_equal(cdc_store_park(s, "orders", &change, 1, 1, NULL, 0, NULL, NULL), CDC_OK);
	cdc_batch_free(b);
}

/* The commits of the records that are read again from the cursor on, as a sum of powers. */
static unsigned read_again(struct fixture *f, const struct cdc_cursor *c, bool is_whole)
{
	struct cdc_id *ids;
	unsigned found = 0;
	size_t n;

	assert_int_equal(cdc_store_park_ids(f->store, c, is_whole, &ids, &n, NULL), CDC_OK);
	for (size_t i = 0; i < n; i++)
		found |= 1U << ids[i].commit_lsn;
	free(ids);
	return found;
}

static void what_is_read_again_is_above_the_stream_or_above_its_own_table(void **state)
{
	struct fixture *f = *state;
	struct cdc_stream_position p;
	struct cdc_cursor c = cursor_at("orders", 6, &p);
	struct cdc_cursor_table held = {
		.table = "public.held", .state = CDC_TABLE_HELD, .id = id_at(3)};

	for (uint64_t i = 0; i < 5; i++)
		park_dead(f->store, i & 1 ? "public.held" : "public.live", 2 + i);
	for (uint64_t i = 8; i < 10; i++)
		park_dead(f->store, i & 1 ? "public.held" : "public.live", i);
	assert_int_equal(read_again(f, &c, false), 1 << 8 | 1 << 9);
	c.tables = &held;
	c.table_n = 1;
	/* 3 and 5 are of the held table, 2, 4 and 6 of the other. */
	assert_int_equal(read_again(f, &c, false), 1 << 5 | 1 << 8 | 1 << 9);
	assert_int_equal(read_again(f, &c, true), 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 9);
}

static void a_gap_is_kept_once(void **state)
{
	struct fixture *f = *state;
	struct cdc_gap_row g = {.sync = "orders",
				.first = id_at(1),
				.last = id_at(5),
				.reason = "evicted",
				.at_us = 2};
	char text[128] = "";

	assert_int_equal(cdc_store_gap_put(f->store, &g, NULL), CDC_OK);
	g.at_us = 9;
	assert_int_equal(cdc_store_gap_put(f->store, &g, NULL), CDC_OK);
	g.first = id_at(7);
	g.last = id_at(8);
	g.at_us = 1;
	assert_int_equal(cdc_store_gap_put(f->store, &g, NULL), CDC_OK);
	assert_int_equal(cdc_store_gap_each(f->store, count_gap, text, NULL), CDC_OK);
	assert_string_equal(text, "orders 7-8 evicted;orders 1-5 evicted;");
}

static void a_note_is_kept_whole_or_refused(void **state)
{
	struct fixture *f = *state;
	char text[4] = "old";
	struct cdc_err err = {0};

	assert_int_equal(cdc_store_note_put(f->store, "k", "one", NULL), CDC_OK);
	assert_int_equal(cdc_store_note_put(f->store, "k", "two", NULL), CDC_OK);
	assert_int_equal(cdc_store_note_get(f->store, "k", text, 4, NULL), CDC_OK);
	assert_string_equal(text, "two");
	(void)strcpy(text, "old");
	assert_int_equal(cdc_store_note_get(f->store, "k", text, 3, &err), CDC_LIMIT);
	assert_string_equal(text, "old");
	assert_non_null(strstr(err.msg, "longer than 2 bytes"));
}

/* --- checkpoints -------------------------------------------------------------------- */

static void a_newer_checkpoint_replaces_one_that_waits(void **state)
{
	struct fixture *f = *state;
	sqlite3 *db = look_in(f);
	uint64_t ticket = 0;

	/* Nothing can be written meanwhile, so all but the first have to wait. */
	run_sql(db, "BEGIN IMMEDIATE");
	for (uint64_t n = 1; n <= 100; n++) {
		uint64_t next = hand_over(f->store, n % 2 ? "odd" : "even", n);

		assert_true(next > ticket);
		ticket = next;
	}
	assert_true(cdc_store_checkpointed(f->store) < ticket);
	run_sql(db, "CREATE TABLE seen (n); CREATE TRIGGER t AFTER INSERT ON cursor"
		    " BEGIN INSERT INTO seen VALUES (1); END; COMMIT");
	assert_true(is_durable_soon(f->store, ticket));
	assert_int_equal(came_to(f->store, "odd"), 99);
	assert_int_equal(came_to(f->store, "even"), 100);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	/* At most one per sync in the write that was begun, and one in the next. */
	assert_in_range(number_in(f, "SELECT count(*) FROM seen"), 2, 4);
}

static void what_was_handed_over_is_written_by_close(void **state)
{
	struct fixture *f = *state;

	for (uint64_t n = 1; n <= 50; n++)
		(void)hand_over(f->store, "orders", n);
	close_it(f);
	open_it(f);
	assert_int_equal(came_to(f->store, "orders"), 50);
}

static void a_lock_of_somebody_else_only_delays(void **state)
{
	struct fixture *f = *state;
	sqlite3 *db = look_in(f);
	struct cdc_err err = {0};

	run_sql(db, "BEGIN IMMEDIATE");
	assert_int_equal(put(f->store, "orders", 5, &err), CDC_HELD);
	assert_int_equal(err.code, CDC_HELD);
	assert_int_equal(cdc_store_error(f->store, NULL), CDC_HELD);
	/* Reading goes on. */
	assert_int_equal(came_to(f->store, "orders"), 0);
	run_sql(db, "COMMIT");
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_true(is_durable_soon(f->store, 1));
	assert_int_equal(came_to(f->store, "orders"), 5);
	assert_int_equal(cdc_store_error(f->store, NULL), CDC_OK);
}

/* --- crashes ------------------------------------------------------------------------ */

/* Hands checkpoints over as fast as it can, and tells the pipe of those that are durable. */
_Noreturn static void be_killed(const char *dir, int fd)
{
	struct cdc_store *s = NULL;

	if (cdc_store_open(dir, &s, NULL))
		_exit(1);
	for (uint64_t n = 1;; n++) {
		uint64_t durable;

		(void)hand_over(s, "orders", n); /* so its ticket is n */
		durable = cdc_store_checkpointed(s);
		if (write(fd, &durable, sizeof(durable)) != sizeof(durable))
			_exit(1);
	}
}

static void what_was_durable_survives_kill(void **state)
{
	struct fixture *f = *state;

	for (int round = 1; round <= 5; round++) {
		uint64_t durable = 0, n, found;
		int fds[2], status;
		pid_t pid;

		close_it(f);
		remove_files(f->dir);
		assert_int_equal(mkdir(f->dir, 0700), 0);
		assert_int_equal(pipe(fds), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			be_killed(f->dir, fds[1]);
		(void)close(fds[1]);
		while (read(fds[0], &n, sizeof(n)) == sizeof(n)) {
			durable = n;
			if (durable >= (uint64_t)round * 7)
				(void)kill(pid, SIGKILL);
		}
		(void)close(fds[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		open_it(f);
		found = came_to(f->store, "orders");
		assert_true(found != UINT64_MAX);
		assert_true(found >= durable);
	}
}

static void a_cursor_that_was_put_survives_exit(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	close_it(f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (cdc_store_open(f->dir, &f->store, NULL) || put(f->store, "orders", 42, NULL) ||
		    cdc_store_slot_put(f->store, &first_slot, NULL))
			_exit(1);
		_exit(0); /* without closing */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	open_it(f);
	assert_int_equal(came_to(f->store, "orders"), 42);
}

/* --- failures ----------------------------------------------------------------------- */

static void a_failed_write_is_reported_and_heals(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};
	enum cdc_code rc, said, note;
	uint64_t before;

	assert_int_equal(put(f->store, "orders", 1, NULL), CDC_OK);
	break_disk(true);
	rc = put(f->store, "orders", 2, &err);
	said = cdc_store_error(f->store, NULL);
	note = cdc_store_note_put(f->store, "k", "v", NULL);
	before = came_to(f->store, "orders");
	break_disk(false);
	assert_int_equal(rc, CDC_IO);
	assert_int_equal(err.code, CDC_IO);
	assert_non_null(strstr(err.msg, "state.db"));
	assert_int_equal(said, CDC_IO);
	assert_int_equal(note, CDC_IO);
	/* What is not durable is not shown either; when reading fails as well it says so. */
	assert_true(before == 1 || before == UINT64_MAX);
	assert_true(is_durable_soon(f->store, 2));
	assert_int_equal(came_to(f->store, "orders"), 2);
	assert_int_equal(cdc_store_error(f->store, NULL), CDC_OK);
}

static void a_deleted_cursor_does_not_come_back_with_a_late_checkpoint(void **state)
{
	struct fixture *f = *state;
	enum cdc_code rc;

	break_disk(true);
	rc = put(f->store, "orders", 2, NULL);
	break_disk(false);
	assert_int_equal(rc, CDC_IO);
	/* The checkpoint now waits for its next try. */
	assert_int_equal(cdc_store_cursor_delete(f->store, "orders", NULL), CDC_OK);
	pause_ms(500);
	assert_int_equal(came_to(f->store, "orders"), 0);
	close_it(f);
	open_it(f);
	assert_int_equal(came_to(f->store, "orders"), 0);
}

struct worker {
	struct cdc_store *store;
	char sync[16];
	_Atomic uint64_t done; /* puts that succeeded */
	bool is_wrong;
	_Atomic bool *is_over;
};

/* What was put is there, whatever other calls succeed or fail meanwhile. */
static void *put_and_look(void *arg)
{
	struct worker *w = arg;

	for (uint64_t n = 1; !*w->is_over; n++) {
		uint64_t at;

		if (put(w->store, w->sync, n, NULL))
			continue;
		w->done++;
		at = came_to(w->store, w->sync);
		if (at != n && at != UINT64_MAX) /* UINT64_MAX: the disk is broken again */
			w->is_wrong = true;
	}
	return NULL;
}

static void *put_notes(void *arg)
{
	struct worker *w = arg;

	while (!*w->is_over)
		w->done += cdc_store_note_put(w->store, w->sync, "v", NULL) == CDC_OK;
	return NULL;
}

static void a_put_that_succeeded_is_there_on_a_disk_that_comes_and_goes(void **state)
{
	struct fixture *f = *state;
	_Atomic bool is_over = false;
	struct worker workers[3] = {{.sync = "a"}, {.sync = "b"}, {.sync = "notes"}};
	const uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;
	pthread_t threads[3];

	for (size_t i = 0; i < 3; i++) {
		workers[i].store = f->store;
		workers[i].is_over = &is_over;
		assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? put_and_look : put_notes,
						&workers[i]),
				 0);
	}
	for (int i = 0; i < 150; i++) {
		break_disk(i % 2 == 0);
		pause_ms(i % 2 ? 4 : 2);
	}
	break_disk(false);
	for (uint64_t before[2] = {workers[0].done, workers[1].done};
	     (workers[0].done == before[0] || workers[1].done == before[1] ||
	      cdc_store_error(f->store, NULL)) &&
	     cdc_clock_mono_ms() < end_ms;)
		pause_ms(5);
	is_over = true;
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_false(workers[0].is_wrong);
	assert_false(workers[1].is_wrong);
	assert_true(workers[0].done > 0);
	assert_true(workers[1].done > 0);
	assert_int_equal(cdc_store_error(f->store, NULL), CDC_OK);
}

static void *hand_over_many(void *arg)
{
	struct worker *w = arg;
	char value[24];
	uint64_t ticket = 0;

	for (uint64_t n = 1; n <= 200; n++) {
		uint64_t next = hand_over(w->store, w->sync, n);

		if (next <= ticket)
			w->is_wrong = true;
		ticket = next;
		(void)snprintf(value, sizeof(value), "%d", (int)n);
		if (n % 20 == 0 && cdc_store_note_put(w->store, w->sync, value, NULL))
			w->is_wrong = true;
	}
	if (!is_durable_soon(w->store, ticket) || came_to(w->store, w->sync) != 200)
		w->is_wrong = true;
	return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
	struct fixture *f = *state;
	struct worker workers[4];
	pthread_t threads[4];

	memset(workers, 0, sizeof(workers));
	for (size_t i = 0; i < 4; i++) {
		workers[i].store = f->store;
		(void)snprintf(workers[i].sync, sizeof(workers[i].sync), "sync%zu", i);
		assert_int_equal(pthread_create(&threads[i], NULL, hand_over_many, &workers[i]), 0);
	}
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (size_t i = 0; i < 4; i++)
		assert_false(workers[i].is_wrong);
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool is_written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		(void)close(fd);
	return is_written;
}

/* Without root: a namespace in which this process is root. */
static bool become_root(void)
{
	char uid[32], gid[32];

	(void)snprintf(uid, sizeof(uid), "0 %u 1", getuid());
	(void)snprintf(gid, sizeof(gid), "0 %u 1", getgid());
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_text("/proc/self/uid_map", uid) &&
	       write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/gid_map", gid);
}

/* A small disk at dir that only this process sees. */
static bool mount_small_disk(const char *dir)
{
	return (unshare(CLONE_NEWNS) == 0 || become_root()) &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("store", dir, "tmpfs", 0, "size=4m") == 0;
}

/* As large as they come. */
static bool log_attempt(struct cdc_store *s, unsigned outcome, int64_t at_us)
{
	static char url[] = "http://host/", none[] = "", post[] = "POST";
	const struct cdc_attempt_ring ring = {.rows = 1000, .bytes = 4 << 20};
	char body[1025];
	const struct cdc_attempt_row row = {
		.at_us = at_us,
		.outcome = outcome,
		.records = 1,
		.request_bytes = sizeof(body),
		.texts = {.method = post,
			  .url = url,
			  .headers = none,
			  .text = none,
			  .request = body,
			  .response = body},
	};

	memset(body, 'b', sizeof(body) - 1);
	body[sizeof(body) - 1] = '\0';
	return cdc_store_attempt(s, "orders", &row, &ring);
}

/* How many there are; their numbers and times rise, or it is a failure: SIZE_MAX. */
static size_t attempts_of(struct cdc_store *s, uint64_t newest)
{
	const struct cdc_attempt_filter f = {.sync = "orders", .newest = newest};
	struct cdc_attempt_row *rows = NULL;
	size_t n = 0;

	if (cdc_store_attempts_list(s, &f, 1000, &rows, &n, NULL))
		return SIZE_MAX;
	for (size_t i = 1; i < n; i++) {
		if (rows[i].number != rows[i - 1].number + 1 ||
		    rows[i].at_us <= rows[i - 1].at_us || strlen(rows[i].texts.request) != 1024)
			n = SIZE_MAX;
	}
	cdc_attempts_free(rows, n == SIZE_MAX ? 0 : n);
	return n;
}

static bool has_attempts_soon(struct cdc_store *s, size_t n)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;

	while (attempts_of(s, 1000) != n) {
		if (cdc_clock_mono_ms() >= end_ms)
			return false;
		pause_ms(5);
	}
	return true;
}

/* In a process of its own: a small disk that is filled to its last byte, and emptied again.  0: as
 * it should be; 77: no such disk can be had here; anything else: the line that found a fault. */
static int live_on_a_full_disk(const char *dir)
{
	struct cdc_store *s = NULL;
	struct cdc_err err = {0};
	char path[128], bytes[4096] = {0};
	uint64_t n = 1;
	size_t n_attempts = 0;
	enum cdc_code rc = CDC_OK;
	int fd;

	if (!mount_small_disk(dir))
		return 77;
	if (cdc_store_open(dir, &s, NULL) || cdc_store_unlock(s, NULL, NULL))
		return __LINE__;
	(void)snprintf(path, sizeof(path), "%s/filler", dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	for (size_t size = sizeof(bytes); size > 0;) {
		if (write(fd, bytes, size) != (ssize_t)size)
			size /= 2;
	}
	if (errno != ENOSPC)
		return __LINE__;
	/* There is a reserve, so checkpoints of one size go on for ever, and the log of requests,
	 * for which there is no room, keeps none back. */
	for (; n <= 500; n++) {
		n_attempts += log_attempt(s, 1, (int64_t)n);
		if (put(s, "orders", n, &err))
			return __LINE__;
	}
	/* What is larger than that is refused with the reason, and spoils nothing. */
	for (size_t i = 0; i < 100000 && !rc; i++) {
		char key[32];

		(void)snprintf(key, sizeof(key), "%zu", i);
		memset(bytes, 'x', sizeof(bytes) - 1);
		rc = cdc_store_note_put(s, key, bytes, &err);
	}
	if (rc != CDC_FULL || err.code != CDC_FULL || !strstr(err.msg, "full"))
		return __LINE__;
	if (ftruncate(fd, 0) != 0 || put(s, "orders", n, NULL) || came_to(s, "orders") != n ||
	    cdc_store_note_put(s, "last", bytes, NULL) || !n_attempts ||
	    !has_attempts_soon(s, n_attempts))
		return __LINE__;
	(void)close(fd);
	cdc_store_close(s);
	return umount(dir) == 0 ? 0 : __LINE__;
}

static void a_full_disk_stops_no_checkpoint_and_heals(void **state)
{
	struct fixture *f = *state;
	int fds[2], found = -1, status;
	pid_t pid;

	close_it(f);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int line = live_on_a_full_disk(f->dir);

		_exit(write(fds[1], &line, sizeof(line)) == sizeof(line) ? 0 : 1);
	}
	(void)close(fds[1]);
	if (read(fds[0], &found, sizeof(found)) != sizeof(found))
		found = -1;
	(void)close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (found == 77)
		skip();
	assert_int_equal(found, 0);
	assert_int_equal(status, 0);
}

static void attempts_that_cannot_be_written_wait_in_order_and_then_are_left_out(void **state)
{
	struct fixture *f = *state;
	sqlite3 *db = look_in(f);
	int64_t at_us = 1;
	size_t n = 0;

	run_sql(db, "BEGIN IMMEDIATE");
	/* Accepted ones leave room for those that failed. */
	while (log_attempt(f->store, 0, at_us++))
		n++;
	assert_in_range(n, 100, 1000);
	assert_true(log_attempt(f->store, 1, at_us++));
	n++;
	assert_int_equal(put(f->store, "orders", 5, NULL), CDC_HELD);
	assert_int_equal(attempts_of(f->store, 1000), 0);
	run_sql(db, "COMMIT");
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_true(is_durable_soon(f->store, 1));
	assert_true(has_attempts_soon(f->store, n));
	assert_true(log_attempt(f->store, 0, at_us++));
	assert_true(has_attempts_soon(f->store, n + 1));
	assert_int_equal(attempts_of(f->store, 3), 3);
}

static void attempts_that_fail_by_themselves_fail_one_checkpoint_at_most(void **state)
{
	struct fixture *f = *state;
	sqlite3 *db = look_in(f);
	const uint64_t begin_ms = cdc_clock_mono_ms();

	run_sql(db, "ALTER TABLE attempt RENAME TO away");
	assert_true(log_attempt(f->store, 1, 1));
	assert_true(is_durable_soon(f->store, hand_over(f->store, "orders", 1)));
	/* They are tried again after 5 s. */
	for (uint64_t n = 2; n < 10 && cdc_clock_mono_ms() - begin_ms < 4000; n++) {
		const uint64_t ticket = hand_over(f->store, "orders", n);

		while (cdc_store_checkpointed(f->store) < ticket) {
			const enum cdc_code rc = cdc_store_error(f->store, NULL);

			if (cdc_clock_mono_ms() - begin_ms < 4000)
				assert_int_equal(rc, CDC_OK);
			pause_ms(1);
		}
	}
	run_sql(db, "ALTER TABLE away RENAME TO attempt");
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_true(has_attempts_soon(f->store, 1));
}

static void attempts_that_were_handed_over_are_written_by_close(void **state)
{
	struct fixture *f = *state;

	for (int64_t i = 1; i <= 100; i++)
		assert_true(log_attempt(f->store, 0, i));
	close_it(f);
	open_it(f);
	assert_int_equal(attempts_of(f->store, 1000), 100);
	assert_int_equal(cdc_store_attempts_forget(f->store, "orders", NULL), CDC_OK);
	assert_int_equal(attempts_of(f->store, 1000), 0);
	assert_int_equal(cdc_store_attempts_forget(f->store, "orders", NULL), CDC_OK);
}

static void the_reserve_is_kept_also_after_a_crash_while_it_was_made(void **state)
{
	struct fixture *f = *state;

	close_it(f);
	sql_once(f, "CREATE TABLE IF NOT EXISTS reserve (bytes BLOB);"
		    "INSERT INTO reserve VALUES (zeroblob(262144))");
	open_it(f);
	assert_int_equal(number_in(f, "SELECT count(*) FROM sqlite_master WHERE name = 'reserve'"),
			 0);
	assert_true(number_in(f, "PRAGMA freelist_count") >= 64);
}

/* --- files that are not as they should be ------------------------------------------- */

static enum cdc_code open_code(struct fixture *f, struct cdc_err *err)
{
	struct cdc_store *s = NULL;
	enum cdc_code rc = cdc_store_open(f->dir, &s, err);

	cdc_store_close(s);
	return rc;
}

static void F47_a_newer_state_is_refused(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};

	close_it(f);
	sql_once(f, "INSERT INTO migration VALUES (99, 0)");
	assert_int_equal(open_code(f, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, "newer walpost"));
	assert_non_null(strstr(err.msg, "99"));
	assert_true(err.remedy[0]);
}

static void a_file_that_is_no_database_is_refused_with_what_to_do(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};
	char path[128], bytes[512];
	int fd;

	close_it(f);
	(void)snprintf(path, sizeof(path), "%s/state.db", f->dir);
	memset(bytes, 'x', sizeof(bytes));
	fd = open(path, O_WRONLY | O_TRUNC);
	assert_true(write(fd, bytes, sizeof(bytes)) == sizeof(bytes));
	(void)close(fd);
	assert_int_equal(open_code(f, &err), CDC_CORRUPT);
	assert_non_null(strstr(err.msg, path));
	assert_non_null(strstr(err.remedy, path));
}

/* As one that was just made; to look at it makes nothing of it. */
static void an_empty_file_is_no_state_yet(void **state)
{
	struct fixture *f = *state;
	struct cdc_store *s = NULL;
	struct cdc_err err = {0};
	struct stat st;
	char path[128];
	int fd;

	close_it(f);
	remove_files(f->dir);
	assert_int_equal(mkdir(f->dir, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/state.db", f->dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	(void)close(fd);
	assert_int_equal(cdc_store_attach(f->dir, &s, &err), CDC_MISSING);
	assert_non_null(strstr(err.msg, "is empty"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 0);
	open_it(f);
	assert_int_equal(put(f->store, "orders", 1, NULL), CDC_OK);
}

static void a_folder_that_is_not_there_is_named(void **state)
{
	struct cdc_store *s = NULL;
	struct cdc_err err = {0};

	(void)state;
	assert_int_equal(cdc_store_open("/nonexistent/walpost", &s, &err), CDC_IO);
	assert_null(s);
	assert_non_null(strstr(err.msg, "/nonexistent/walpost/state.db"));
}

static void a_damaged_row_is_refused_never_believed(void **state)
{
	static const char *const damages[] = {
		"UPDATE cursor_stream SET id = 'x'",
		"UPDATE cursor_stream SET stream = -1",
		"UPDATE cursor_stream SET stream = 4294967296",
		"UPDATE cursor_stream SET id = zeroblob(8)",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct cdc_cursor c = {0};
		struct cdc_err err = {0};

		assert_int_equal(put(f->store, "orders", 1, NULL), CDC_OK);
		sql_once(f, damages[i]);
		assert_int_equal(cdc_store_cursor_get(f->store, "orders", &c, &err), CDC_CORRUPT);
		assert_non_null(strstr(err.msg, "damaged cursor"));
		assert_true(err.remedy[0]);
	}
	/* Other syncs go on. */
	assert_int_equal(put(f->store, "other", 2, NULL), CDC_OK);
	assert_int_equal(came_to(f->store, "other"), 2);
}

static void a_damaged_slot_is_refused(void **state)
{
	static const char *const damages[] = {
		"UPDATE slot SET generation = 256",
		"UPDATE slot SET generation = 0",
		"UPDATE slot SET created_lsn = '1'",
		"UPDATE slot SET slot_is_ours = 2",
		"UPDATE slot SET system_id = '1234567890123456789012345'",
	};
	struct fixture *f = *state;
	struct cdc_slot_row row;

	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct cdc_err err = {0};

		sql_once(f, "DELETE FROM slot");
		assert_int_equal(cdc_store_slot_put(f->store, &first_slot, NULL), CDC_OK);
		sql_once(f, damages[i]);
		assert_int_equal(cdc_store_slot_get(f->store, "shop", "walpost_shop", &row, &err),
				 CDC_CORRUPT);
		assert_non_null(strstr(err.msg, "damaged slot"));
	}
}

/* --- migrations --------------------------------------------------------------------- */

static enum cdc_code migrate(const struct fixture *f, const char *const *migrations,
			     struct cdc_err *err)
{
	struct cdc_sql_ops ops = cdc_sql_sqlite;
	struct cdc_sql *db = NULL;
	char path[128];
	enum cdc_code rc;

	ops.migrations = migrations;
	(void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
	assert_int_equal(ops.open(path, &db, NULL), CDC_OK);
	rc = cdc_sql_migrate(&ops, db, err);
	ops.close(db);
	return rc;
}

static int64_t number_in_m(const struct fixture *f, const char *sql)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *stmt = NULL;
	char path[128];
	int64_t v = -1;

	(void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW)
		v = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return v;
}

static void migrations_run_once_in_order_and_forward_only(void **state)
{
	static const char *const one[] = {"CREATE TABLE a (x)", NULL};
	static const char *const two[] = {"CREATE TABLE a (x)",
					  "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2)",
					  NULL};
	static const char *const bad[] = {
		"CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y; INSERT INTO a VALUES (1, 2)",
		"CREATE TABLE b (x); INSERT INTO missing VALUES (1)", NULL};
	struct fixture *f = *state;
	struct cdc_err err = {0};
	char path[128];

	assert_int_equal(migrate(f, one, NULL), CDC_OK);
	assert_int_equal(migrate(f, two, NULL), CDC_OK);
	assert_int_equal(migrate(f, two, NULL), CDC_OK);
	assert_int_equal(number_in_m(f, "SELECT sum(y) FROM a"), 2);
	assert_int_equal(number_in_m(f, "SELECT max(version) FROM migration"), 2);
	/* A step that fails leaves nothing of itself behind. */
	assert_int_not_equal(migrate(f, bad, &err), CDC_OK);
	assert_non_null(strstr(err.msg, "missing"));
	assert_int_equal(number_in_m(f, "SELECT max(version) FROM migration"), 2);
	assert_int_equal(number_in_m(f, "SELECT count(*) FROM sqlite_master WHERE name = 'b'"), 0);
	assert_int_equal(migrate(f, one, &err), CDC_CONFIG);
	(void)snprintf(path, sizeof(path), "%s/m.db", f->dir);
	(void)unlink(path);
}

/* --- what a person wants -------------------------------------------------------------- */

static struct cdc_command command_of(const char *sync, enum cdc_verb verb, const char *argument)
{
	struct cdc_command c = {.verb = verb};

	(void)snprintf(c.sync, sizeof(c.sync), "%s", sync);
	(void)snprintf(c.argument, sizeof(c.argument), "%s", argument);
	return c;
}

static void commands_wait_in_order_until_they_are_ended(void **state)
{
	struct fixture *f = *state;
	struct cdc_command two[] = {command_of("orders", CDC_VERB_RESYNC, "public.a"),
				    command_of("orders", CDC_VERB_BACKFILL_PAUSE, "")};
	struct cdc_command got;

	assert_int_equal(cdc_store_command_next(f->store, 0, &got, NULL), CDC_MISSING);
	assert_int_equal(cdc_store_command_add(f->store, two, 2, NULL), CDC_OK);
	assert_true(two[0].id > 0 && two[1].id > two[0].id);
	close_it(f);
	open_it(f);
	assert_int_equal(cdc_store_command_next(f->store, 0, &got, NULL), CDC_OK);
	assert_int_equal(got.id, two[0].id);
	assert_int_equal(got.verb, CDC_VERB_RESYNC);
	assert_string_equal(got.sync, "orders");
	assert_string_equal(got.argument, "public.a");
	assert_int_equal(got.state, CDC_COMMAND_WAITING);
	assert_int_equal(cdc_store_command_next(f->store, got.id, &got, NULL), CDC_OK);
	assert_int_equal(got.id, two[1].id);
	assert_int_equal(cdc_store_command_next(f->store, got.id, &got, NULL), CDC_MISSING);
	assert_int_equal(
		cdc_store_command_end(f->store, two[0].id, CDC_COMMAND_REFUSED, "no", NULL),
		CDC_OK);
	assert_int_equal(cdc_store_command_next(f->store, 0, &got, NULL), CDC_OK);
	assert_int_equal(got.id, two[1].id);
	/* An answer is given once. */
	assert_int_equal(cdc_store_command_end(f->store, two[0].id, CDC_COMMAND_DONE, "yes", NULL),
			 CDC_OK);
	assert_int_equal(cdc_store_command_get(f->store, two[0].id, &got, NULL), CDC_OK);
	assert_int_equal(got.state, CDC_COMMAND_REFUSED);
	assert_string_equal(got.answer, "no");
	assert_true(got.asked_us > 0 && got.ended_us >= got.asked_us);
}

/* Also when a checkpoint that is higher still waits for its next try. */
static void a_sync_that_goes_back_stays_there_and_its_command_is_done(void **state)
{
	struct fixture *f = *state;
	struct cdc_command replay = command_of("orders", CDC_VERB_REPLAY, "@0"), got;
	struct cdc_stream_position low = {.id = {.epoch = 1, .commit_lsn = 3, .ordinal = 1}};
	struct cdc_cursor back = {.streams = &low, .stream_n = 1};
	const struct cdc_id reached = {.epoch = 1, .commit_lsn = 9, .ordinal = 1};
	struct cdc_id noted;
	enum cdc_code rc;

	(void)snprintf(back.sync, sizeof(back.sync), "orders");
	assert_int_equal(cdc_store_replay_get(f->store, "orders", &noted, NULL), CDC_OK);
	assert_true(cdc_id_is_zero(&noted));
	assert_int_equal(put(f->store, "orders", 8, NULL), CDC_OK);
	assert_int_equal(cdc_store_command_add(f->store, &replay, 1, NULL), CDC_OK);
	break_disk(true);
	rc = put(f->store, "orders", 9, NULL);
	break_disk(false);
	assert_int_equal(rc, CDC_IO);
	assert_int_equal(cdc_store_replay(f->store, &back, &reached, replay.id, "from 3 on", NULL),
			 CDC_OK);
	pause_ms(500);
	close_it(f);
	open_it(f);
	assert_int_equal(came_to(f->store, "orders"), 3);
	assert_int_equal(cdc_store_command_get(f->store, replay.id, &got, NULL), CDC_OK);
	assert_int_equal(got.state, CDC_COMMAND_DONE);
	assert_string_equal(got.answer, "from 3 on");
	assert_int_equal(cdc_store_replay_get(f->store, "orders", &noted, NULL), CDC_OK);
	assert_int_equal(cdc_id_cmp(&noted, &reached), 0);
	assert_int_equal(cdc_store_cursor_delete(f->store, "orders", NULL), CDC_OK);
	assert_int_equal(cdc_store_replay_get(f->store, "orders", &noted, NULL), CDC_OK);
	assert_true(cdc_id_is_zero(&noted));
}

static void old_commands_go_and_their_ids_never_come_back(void **state)
{
	struct fixture *f = *state;
	struct cdc_command c = command_of("orders", CDC_VERB_PAUSE, ""), got;
	int64_t first;

	assert_int_equal(cdc_store_command_add(f->store, &c, 1, NULL), CDC_OK);
	first = c.id;
	assert_int_equal(cdc_store_command_end(f->store, first, CDC_COMMAND_DONE, "", NULL),
			 CDC_OK);
	assert_int_equal(cdc_store_command_add(f->store, &c, 1, NULL), CDC_OK);
	assert_int_equal(cdc_store_command_get(f->store, first, &got, NULL), CDC_OK);
	sql_once(f, "UPDATE command SET ended_us = 1 WHERE state = 1");
	sql_once(f, "DELETE FROM command WHERE state = 0");
	assert_int_equal(cdc_store_command_add(f->store, &c, 1, NULL), CDC_OK);
	assert_int_equal(cdc_store_command_get(f->store, first, &got, NULL), CDC_MISSING);
	assert_true(c.id > first + 1);
}

static void too_many_commands_are_refused(void **state)
{
	struct fixture *f = *state;
	struct cdc_command *many = calloc(1001, sizeof(*many)), got;
	struct cdc_err err = {0};

	assert_non_null(many);
	for (size_t i = 0; i < 1001; i++)
		many[i] = command_of("orders", CDC_VERB_RESYNC, "public.a");
	assert_int_equal(cdc_store_command_add(f->store, many, 1001, &err), CDC_LIMIT);
	assert_int_equal(cdc_store_command_next(f->store, 0, &got, NULL), CDC_MISSING);
	assert_int_equal(cdc_store_command_add(f->store, many, 1000, &err), CDC_OK);
	assert_int_equal(cdc_store_command_add(f->store, many, 1, &err), CDC_LIMIT);
	assert_non_null(strstr(err.remedy, "walpost run"));
	free(many);
}

static void a_command_of_another_process_is_noticed(void **state)
{
	struct fixture *f = *state;
	struct cdc_command c = command_of("orders", CDC_VERB_PAUSE, ""), got;
	struct cdc_store *other = NULL;
	uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;

	pause_ms(600); /* what opening it has touched is noted */
	(void)cdc_store_take_touched(f->store);
	assert_false(cdc_store_take_touched(f->store));
	assert_int_equal(cdc_store_attach(f->dir, &other, NULL), CDC_OK);
	assert_int_equal(cdc_store_command_add(other, &c, 1, NULL), CDC_OK);
	while (!cdc_store_take_touched(f->store) && cdc_clock_mono_ms() < end_ms)
		pause_ms(5);
	assert_int_equal(cdc_store_command_next(f->store, 0, &got, NULL), CDC_OK);
	assert_int_equal(got.id, c.id);
	assert_int_equal(cdc_store_command_end(f->store, got.id, CDC_COMMAND_DONE, "done", NULL),
			 CDC_OK);
	assert_int_equal(cdc_store_command_get(other, c.id, &got, NULL), CDC_OK);
	assert_string_equal(got.answer, "done");
	cdc_store_close(other);
}

static void nothing_is_made_or_changed_by_attaching(void **state)
{
	struct fixture *f = *state;
	struct cdc_store *other = NULL;
	struct cdc_err err = {0};

	assert_int_equal(cdc_store_attach("/tmp/test_store.nowhere", &other, &err), CDC_MISSING);
	assert_int_equal(cdc_store_attach(f->dir, &other, &err), CDC_OK);
	cdc_store_close(other);
	sql_once(f, "INSERT INTO migration (version, applied_us) VALUES (1000, 1)");
	assert_int_equal(cdc_store_attach(f->dir, &other, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, "newer walpost"));
	sql_once(f, "DELETE FROM migration WHERE version > 1");
	assert_int_equal(cdc_store_attach(f->dir, &other, &err), CDC_EPOCH);
	assert_non_null(strstr(err.msg, "older walpost"));
}

static void what_is_desired_lasts_and_goes_with_its_sync(void **state)
{
	struct fixture *f = *state;
	struct cdc_desired d = {.is_paused = true};
	struct cdc_command c = command_of("orders", CDC_VERB_PAUSE, ""), got;

	assert_int_equal(cdc_store_desired_get(f->store, "orders", &d, NULL), CDC_OK);
	assert_false(d.is_paused || d.is_backfill_paused);
	d.is_backfill_paused = true;
	assert_int_equal(cdc_store_desired_put(f->store, "orders", &d, NULL), CDC_OK);
	d.is_paused = true;
	assert_int_equal(cdc_store_desired_put(f->store, "orders", &d, NULL), CDC_OK);
	assert_int_equal(cdc_store_command_add(f->store, &c, 1, NULL), CDC_OK);
	close_it(f);
	open_it(f);
	d = (struct cdc_desired){0};
	assert_int_equal(cdc_store_desired_get(f->store, "orders", &d, NULL), CDC_OK);
	assert_true(d.is_paused && d.is_backfill_paused);
	assert_int_equal(cdc_store_cursor_delete(f->store, "orders", NULL), CDC_OK);
	assert_int_equal(cdc_store_desired_get(f->store, "orders", &d, NULL), CDC_OK);
	assert_false(d.is_paused || d.is_backfill_paused);
	assert_int_equal(cdc_store_command_next(f->store, 0, &got, NULL), CDC_MISSING);
}

int main(void)
{
#define STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		STORE(a_new_store_is_empty_and_its_owners_alone),
		STORE(a_slot_comes_back_as_it_was_put),
		STORE(a_deleted_slot_leaves_its_highest_generation_behind),
		STORE(tables_and_their_copies_come_back_and_go_with_their_sync),
		STORE(a_cursor_comes_back_with_its_streams_and_tables),
		STORE(every_cursor_is_listed_and_a_deleted_one_is_not),
		STORE(what_is_read_again_is_above_the_stream_or_above_its_own_table),
		STORE(a_gap_is_kept_once),
		STORE(a_note_is_kept_whole_or_refused),
		STORE(a_newer_checkpoint_replaces_one_that_waits),
		STORE(what_was_handed_over_is_written_by_close),
		STORE(a_lock_of_somebody_else_only_delays),
		STORE(what_was_durable_survives_kill),
		STORE(a_cursor_that_was_put_survives_exit),
		STORE(a_failed_write_is_reported_and_heals),
		STORE(a_deleted_cursor_does_not_come_back_with_a_late_checkpoint),
		STORE(a_sync_that_goes_back_stays_there_and_its_command_is_done),
		STORE(a_put_that_succeeded_is_there_on_a_disk_that_comes_and_goes),
		STORE(threads_do_not_disturb_each_other),
		STORE(a_full_disk_stops_no_checkpoint_and_heals),
		STORE(attempts_that_cannot_be_written_wait_in_order_and_then_are_left_out),
		STORE(attempts_that_fail_by_themselves_fail_one_checkpoint_at_most),
		STORE(attempts_that_were_handed_over_are_written_by_close),
		STORE(the_reserve_is_kept_also_after_a_crash_while_it_was_made),
		STORE(F47_a_newer_state_is_refused),
		STORE(a_file_that_is_no_database_is_refused_with_what_to_do),
		STORE(an_empty_file_is_no_state_yet),
		STORE(a_folder_that_is_not_there_is_named),
		STORE(a_damaged_row_is_refused_never_believed),
		STORE(a_damaged_slot_is_refused),
		STORE(migrations_run_once_in_order_and_forward_only),
		STORE(commands_wait_in_order_until_they_are_ended),
		STORE(old_commands_go_and_their_ids_never_come_back),
		STORE(too_many_commands_are_refused),
		STORE(a_command_of_another_process_is_noticed),
		STORE(nothing_is_made_or_changed_by_attaching),
		STORE(what_is_desired_lasts_and_goes_with_its_sync),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
