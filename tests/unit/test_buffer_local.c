#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/base/stop.h"
#include "cdc/buffer/buffer.h"

#define EPOCH    CDC_EPOCH(1, 1)
#define TX       10 /* records of a transaction */
#define WAIT_MS  120000
#define MIN_MAX  (16u << 20)
#define LSN_STEP 1000u

static const struct cdc_buffer_ops *const ops = &cdc_buffer_local;

struct fixture {
	char dir[64];
	struct cdc_buffer_settings settings;
	struct cdc_buffer_metrics metrics;
	struct cdc_buffer *buffer;
};

/* --- building ----------------------------------------------------------------------- */

/* Record k (from 0) of the stream; every TX of them are one transaction. */
static struct cdc_id id_at(uint64_t k)
{
	return (struct cdc_id){.epoch = EPOCH,
			       .commit_lsn = (k / TX + 1) * LSN_STEP,
			       .ordinal = (uint32_t)(k % TX) + 1,
			       .part = 1};
}

static cdc_lsn end_of(uint64_t k)
{
	return (k / TX + 1) * LSN_STEP + 8;
}

static int64_t time_at(uint64_t k)
{
	return INT64_C(1700000000000000) + (int64_t)(k / TX) * 1000000;
}

static void add_one(struct cdc_batch *batch, struct cdc_id id, const char *table, enum cdc_op op,
		    int64_t commit_us, size_t len)
{
	struct cdc_record *r;
	uint64_t x = id.commit_lsn * 1000003 + id.ordinal;
	uint8_t *to;
	uint16_t t;

	assert_int_equal(cdc_batch_table(batch, table, strlen(table), &t, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(batch, &r, NULL), CDC_OK);
	r->id = id;
	r->table = t;
	r->op = (uint8_t)op;
	r->commit_us = commit_us;
	to = cdc_buf_reserve(&batch->json, len);
	assert_non_null(to);
	for (size_t i = 0; i < len; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		to[i] = (uint8_t)(x >> 56);
	}
	batch->json.len += len;
	r->fields = (struct cdc_span){0, (uint32_t)len};
	cdc_batch_col(batch, r, (uint32_t)len);
	assert_int_equal(cdc_batch_end(batch, NULL), CDC_OK);
}

/* Records [from, to) of the stream, with the ends of the transactions that end in them. */
static struct cdc_batch *rows(struct cdc_buffer *b, uint64_t from, uint64_t to, size_t len)
{
	struct cdc_batch *batch = ops->batch_new(b, 64u << 20);

	assert_non_null(batch);
	for (uint64_t k = from; k < to; k++) {
		add_one(batch, id_at(k), k % 2 ? "public.odd" : "public.even", CDC_OP_INSERT,
			time_at(k), len);
		if (k % TX == TX - 1)
			assert_int_equal(cdc_batch_tx_end(batch, id_at(k).commit_lsn, end_of(k),
							  time_at(k), NULL),
					 CDC_OK);
	}
	return batch;
}

static void open_it(struct fixture *f)
{
	struct cdc_err err = {0};

	if (ops->open(&f->settings, &f->buffer, &err))
		fail_msg("%s", err.msg);
}

static void close_it(struct fixture *f)
{
	ops->close(f->buffer);
	f->buffer = NULL;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/test_buffer_local.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->settings = (struct cdc_buffer_settings){.dir = f->dir,
						   .slot = "s",
						   .max_bytes = MIN_MAX,
						   .retention_ms = 3600000,
						   .metrics = &f->metrics};
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char path[512];
	DIR *dir;

	ops->close(f->buffer);
	dir = opendir(f->dir);
	for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
		(void)snprintf(path, sizeof(path), "%s/%s", f->dir, e->d_name);
		(void)unlink(path);
	}
	if (dir)
		(void)closedir(dir);
	(void)rmdir(f->dir);
	free(f);
	return 0;
}

/* --- waiting and reading ------------------------------------------------------------ */

static void wait_fd(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	(void)poll(&p, 1, ms);
	cdc_event_drain(fd);
}

static void wait_durable(const struct fixture *f, cdc_lsn lsn)
{
	uint64_t end = cdc_clock_mono_ms() + WAIT_MS;

	while (ops->durable(f->buffer) < lsn && cdc_clock_mono_ms() < end)
		wait_fd(ops->event_fd(f->buffer), 100);
	assert_true(ops->durable(f->buffer) >= lsn);
}

static void append(const struct fixture *f, struct cdc_batch *batch)
{
	uint64_t end = cdc_clock_mono_ms() + WAIT_MS;
	struct cdc_err err = {0};
	enum cdc_code rc;

	while ((rc = ops->append(f->buffer, CDC_SEQ_STREAM, batch, &err)) == CDC_BUSY &&
	       cdc_clock_mono_ms() < end)
		wait_fd(ops->event_fd(f->buffer), 100);
	if (rc)
		fail_msg("append: %s", err.msg);
}

static struct cdc_stream_position add_group(const struct fixture *f, const char *name,
					    struct cdc_gap *ret_gap)
{
	const struct cdc_start start = {.at = CDC_START_EARLIEST};
	const struct cdc_position none = {0};
	struct cdc_stream_position at = {0};

	assert_int_equal(ops->group_add(f->buffer, name, &none, &start, &at, ret_gap, NULL),
			 CDC_OK);
	return at;
}

static struct cdc_buffer_reader *open_reader(const struct fixture *f, const char *group,
					     struct cdc_id from, const char *const *tables,
					     size_t n)
{
	struct cdc_stream_position at = {.id = from};
	const struct cdc_position position = {.n = 1, .streams = &at};
	struct cdc_buffer_reader *r = NULL;

	assert_int_equal(ops->reader_open(f->buffer, group, &position, tables, n, &r, NULL),
			 CDC_OK);
	return r;
}

static void commit(const struct fixture *f, const char *group, struct cdc_id id)
{
	struct cdc_stream_position at = {.id = id};
	const struct cdc_position position = {.n = 1, .streams = &at};

	ops->commit(f->buffer, group, &position);
}

/* Reads up to the end; every record must be the next one of the stream.  Returns how many. */
static uint64_t read_rows(struct cdc_buffer_reader *r, uint64_t first, struct cdc_id *ret_through)
{
	uint64_t k = first;

	for (;;) {
		struct cdc_read read;
		struct cdc_err err = {0};
		bool is_end;

		if (ops->read(r, &read, &err))
			fail_msg("read: %s", err.msg);
		for (size_t i = 0; i < read.n; i++, k++) {
			const struct cdc_id id = id_at(k);

			assert_int_equal(cdc_id_cmp(&read.batch->records[read.index[i]].id, &id),
					 0);
		}
		is_end = read.is_at_end;
		if (ret_through)
			*ret_through = read.through.id;
		ops->release(r, read.lease);
		if (is_end)
			return k - first;
	}
}

static uint64_t disk_bytes(const struct fixture *f)
{
	static const char *const ends[] = {"", "-wal"};
	uint64_t n = 0;

	for (size_t i = 0; i < 2; i++) {
		char path[128];
		struct stat st;

		(void)snprintf(path, sizeof(path), "%s/buffer-s.db%s", f->dir, ends[i]);
		if (stat(path, &st) == 0)
			n += (uint64_t)st.st_size;
	}
	return n;
}

/* Runs SQL on the closed file; returns the first column of the first row. */
static int64_t sql(const struct fixture *f, const char *text)
{
	char path[128];
	sqlite3 *db = NULL;
	sqlite3_stmt *stmt = NULL;
	int64_t n = -1;

	(void)snprintf(path, sizeof(path), "%s/buffer-s.db", f->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, text, -1, &stmt, NULL), SQLITE_OK);
	if (sqlite3_step(stmt) == SQLITE_ROW)
		n = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return n;
}

/* --- chunks ------------------------------------------------------------------------- */

static void small_batches_share_chunks_and_readers_do_not_notice(void **state)
{
	enum { N = 3000 };
	struct fixture *f = *state;
	struct cdc_buffer_reader *r, *late;
	struct cdc_gap gap;
	uint64_t seen = 0;

	open_it(f);
	(void)add_group(f, "g", &gap);
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	for (uint64_t k = 0; k < N; k++) {
		append(f, rows(f->buffer, k, k + 1, 300));
		if (k % 7 == 0)
			seen += read_rows(r, seen, NULL);
	}
	seen += read_rows(r, seen, NULL);
	assert_int_equal(seen, N);
	wait_durable(f, end_of(N - 1));
	late = open_reader(f, "g", id_at(1233), NULL, 0);
	assert_int_equal(read_rows(late, 1234, NULL), N - 1234);
	ops->reader_close(late);
	ops->reader_close(r);
	close_it(f);
	assert_int_equal(sql(f, "SELECT sum(records) FROM chunk"), N);
	assert_in_range(sql(f, "SELECT count(*) FROM chunk"), 1, N / 10);
	assert_int_equal(sql(f, "SELECT count(*) FROM chunk WHERE raw_len > 450000"), 0);
}

static void chunks_without_my_tables_are_skipped_with_their_ids(void **state)
{
	static const char *const mine[] = {"public.mine"};
	struct fixture *f = *state;
	struct cdc_buffer_reader *r;
	struct cdc_batch *batch;
	struct cdc_read read;
	struct cdc_gap gap;
	struct cdc_id through;
	size_t n = 0;

	f->settings.cache_bytes = 1; /* everything comes from disk */
	open_it(f);
	(void)add_group(f, "g", &gap);
	append(f, rows(f->buffer, 0, 1000, 1000));
	append(f, rows(f->buffer, 1000, 2000, 1000));
	wait_durable(f, end_of(1999));
	batch = ops->batch_new(f->buffer, 1000);
	add_one(batch, id_at(2000), "public.mine", CDC_OP_INSERT, time_at(2000), 10);
	append(f, batch);
	r = open_reader(f, "g", (struct cdc_id){0}, mine, 1);
	do {
		assert_int_equal(ops->read(r, &read, NULL), CDC_OK);
		assert_true(read.n == 0 || !read.batch || read.batch->n == 1);
		n += read.n;
		through = read.through.id;
		ops->release(r, read.lease);
	} while (!read.is_at_end);
	assert_int_equal(n, 1);
	assert_int_equal(cdc_id_cmp(&through, &(struct cdc_id){.epoch = EPOCH,
							       .commit_lsn = id_at(2000).commit_lsn,
							       .ordinal = 1,
							       .part = 1}),
			 0);
	ops->reader_close(r);
}

static void several_readers_share_what_is_read_from_disk(void **state)
{
	enum { N = 4000, READERS = 5 };
	struct fixture *f = *state;
	struct cdc_buffer_reader *r[READERS];
	struct cdc_gap gap;

	open_it(f);
	for (uint64_t k = 0; k < N; k += 200)
		append(f, rows(f->buffer, k, k + 200, 1000));
	wait_durable(f, end_of(N - 1));
	close_it(f);
	open_it(f);
	(void)add_group(f, "g", &gap);
	for (size_t i = 0; i < READERS; i++)
		r[i] = open_reader(f, "g", id_at(i * 7), NULL, 0);
	for (size_t i = 0; i < READERS; i++)
		assert_int_equal(read_rows(r[i], i * 7 + 1, NULL), N - i * 7 - 1);
	for (size_t i = 0; i < READERS; i++)
		ops->reader_close(r[i]);
}

static void a_leased_chunk_outlives_eviction_and_cache(void **state)
{
	struct fixture *f = *state;
	struct cdc_buffer_reader *r;
	struct cdc_read first, read;
	struct cdc_gap gap;
	uint8_t copy[100];

	f->settings.cache_bytes = 1;
	f->settings.retention_ms = 0;
	open_it(f);
	(void)add_group(f, "g", &gap);
	append(f, rows(f->buffer, 0, 1000, 1000));
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	assert_int_equal(ops->read(r, &first, NULL), CDC_OK);
	assert_int_equal(first.n, 1000);
	memcpy(copy, first.batch->json.data, sizeof(copy));
	for (uint64_t k = 1000; k < 5000; k += 1000) {
		append(f, rows(f->buffer, k, k + 1000, 1000));
		wait_durable(f, end_of(k + 999));
		assert_int_equal(ops->read(r, &read, NULL), CDC_OK);
		ops->release(r, read.lease);
		commit(f, "g", id_at(k + 999));
	}
	assert_memory_equal(first.batch->json.data, copy, sizeof(copy));
	ops->release(r, first.lease);
	ops->reader_close(r);
}

/* --- schema records ----------------------------------------------------------------- */

static void add_schema(struct cdc_batch *batch, uint64_t k, const char *table)
{
	struct cdc_id id = id_at(k);

	id.part = 0;
	add_one(batch, id, table, CDC_OP_SCHEMA, time_at(k), 50);
}

static void check_schema_first(const struct fixture *f, uint64_t after, uint64_t schema)
{
	struct cdc_id id = id_at(schema);
	struct cdc_buffer_reader *r = open_reader(f, "g", id_at(after), NULL, 0);
	struct cdc_read read;

	id.part = 0;
	do {
		assert_int_equal(ops->read(r, &read, NULL), CDC_OK);
	} while (read.n == 0 && !read.is_at_end);
	assert_int_equal(read.n, 1);
	assert_int_equal(read.batch->records[read.index[0]].op, CDC_OP_SCHEMA);
	assert_int_equal(cdc_id_cmp(&read.batch->records[read.index[0]].id, &id), 0);
	assert_int_equal(
		cdc_id_cmp(&read.through.id, &(struct cdc_id){.epoch = EPOCH,
							      .commit_lsn = id_at(after).commit_lsn,
							      .ordinal = id_at(after).ordinal,
							      .part = 1}),
		0);
	ops->release(r, read.lease);
	assert_int_equal(ops->read(r, &read, NULL), CDC_OK);
	assert_true(read.n > 0);
	assert_int_equal(read.batch->records[read.index[0]].op, CDC_OP_INSERT);
	ops->release(r, read.lease);
	ops->reader_close(r);
}

static void the_schema_in_force_precedes_the_first_row_after_open(void **state)
{
	struct fixture *f = *state;
	struct cdc_gap gap;

	open_it(f);
	(void)add_group(f, "g", &gap);
	for (uint64_t k = 0; k < 40; k++) {
		struct cdc_batch *batch = ops->batch_new(f->buffer, 100000);

		if (k == 0 || k == 20)
			add_schema(batch, k, "public.t");
		add_one(batch, id_at(k), "public.t", CDC_OP_INSERT, time_at(k), 50);
		if (k % TX == TX - 1)
			assert_int_equal(cdc_batch_tx_end(batch, id_at(k).commit_lsn, end_of(k),
							  time_at(k), NULL),
					 CDC_OK);
		append(f, batch);
	}
	check_schema_first(f, 5, 0);
	check_schema_first(f, 25, 20);
	wait_durable(f, end_of(39));
	check_schema_first(f, 5, 0);
	close_it(f);
	open_it(f);
	(void)add_group(f, "g", &gap);
	check_schema_first(f, 5, 0);
	check_schema_first(f, 35, 20);
}

/* --- budget ------------------------------------------------------------------------- */

static void the_files_stay_within_the_budget_while_chunks_are_evicted(void **state)
{
	enum { N = 40000, STEP = 250 };
	struct fixture *f = *state;
	struct cdc_buffer_reader *r;
	struct cdc_gap gap;
	uint64_t most = 0, seen = 0;

	open_it(f);
	(void)add_group(f, "g", &gap);
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	for (uint64_t k = 0; k < N; k += STEP) {
		uint64_t bytes;

		append(f, rows(f->buffer, k, k + STEP, 1500));
		seen += read_rows(r, seen, NULL);
		commit(f, "g", id_at(seen - 1));
		bytes = disk_bytes(f);
		most = bytes > most ? bytes : most;
	}
	wait_durable(f, end_of(N - 1));
	assert_int_equal(seen, N);
	assert_true(most <= MIN_MAX / 10 * 11);
	assert_true(most >= MIN_MAX / 2);
	assert_true(cdc_metric_get(&f->metrics.evicted) > N / 2);
	ops->reader_close(r);
}

/* Appends until it is full and stays so, look after look; returns how many records were taken. */
static uint64_t fill(const struct fixture *f, uint64_t from)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;
	struct cdc_batch *batch = NULL;
	struct cdc_buffer_stats stats;
	uint64_t k = from;

	for (unsigned full_n = 0; full_n < 20;) {
		assert_true(cdc_clock_mono_ms() < end_ms);
		if (!batch)
			batch = rows(f->buffer, k, k + 250, 1500);
		if (ops->append(f->buffer, CDC_SEQ_STREAM, batch, NULL) == CDC_OK) {
			batch = NULL;
			k += 250;
			full_n = 0;
		} else {
			wait_fd(ops->event_fd(f->buffer), 50);
			ops->stats(f->buffer, &stats);
			full_n = stats.is_full ? full_n + 1 : 0;
		}
	}
	cdc_batch_free(batch);
	return k;
}

static void a_full_budget_is_busy_until_a_group_moves(void **state)
{
	struct fixture *f = *state;
	struct cdc_buffer_reader *r;
	struct cdc_buffer_stats stats;
	struct cdc_gap gap;
	uint64_t n, more;

	open_it(f);
	(void)add_group(f, "slow", &gap);
	n = fill(f, 0);
	assert_true(disk_bytes(f) <= MIN_MAX / 10 * 11);
	assert_int_equal(ops->error(f->buffer, NULL), CDC_OK);
	ops->stats(f->buffer, &stats);
	assert_string_equal(stats.holder, "slow");
	assert_int_equal(stats.records, n);
	commit(f, "slow", id_at(n / 3));
	more = fill(f, n);
	assert_true(more > n);
	r = open_reader(f, "slow", id_at(n / 3), NULL, 0);
	assert_int_equal(read_rows(r, n / 3 + 1, NULL), more - n / 3 - 1);
	ops->reader_close(r);
	assert_true(disk_bytes(f) <= MIN_MAX / 10 * 11);
}

static void the_group_furthest_behind_is_suspended_with_its_gap(void **state)
{
	enum { N = 40000, STEP = 250 };
	struct fixture *f = *state;
	struct cdc_buffer_reader *dead, *live;
	struct cdc_gap gap;
	struct cdc_id first = id_at(778);
	struct cdc_err err = {0};
	struct cdc_read read;
	uint64_t seen = 0;

	f->settings.on_full = CDC_ON_FULL_SUSPEND;
	open_it(f);
	(void)add_group(f, "dead", &gap);
	(void)add_group(f, "live", &gap);
	commit(f, "dead", id_at(777));
	dead = open_reader(f, "dead", id_at(777), NULL, 0);
	live = open_reader(f, "live", (struct cdc_id){0}, NULL, 0);
	for (uint64_t k = 0; k < N; k += STEP) {
		append(f, rows(f->buffer, k, k + STEP, 1500));
		seen += read_rows(live, seen, NULL);
		commit(f, "live", id_at(seen - 1));
		assert_true(disk_bytes(f) <= MIN_MAX / 10 * 11);
	}
	assert_int_equal(seen, N);
	assert_int_equal(ops->read(dead, &read, &err), CDC_GAP);
	assert_non_null(strstr(err.msg, "01000001-"));
	ops->reader_close(dead);
	ops->reader_close(live);
	close_it(f);

	open_it(f);
	(void)add_group(f, "live", &gap);
	assert_true(cdc_id_is_zero(&gap.first));
	(void)add_group(f, "dead", &gap);
	assert_int_equal(cdc_id_cmp(&gap.first, &first), 0);
	assert_true(cdc_id_cmp(&gap.last, &gap.first) > 0);
	dead = open_reader(f, "dead", id_at(777), NULL, 0);
	assert_int_equal(ops->read(dead, &read, &err), CDC_GAP);
	ops->reader_close(dead);
	assert_int_equal(ops->group_drop(f->buffer, "dead", &err), CDC_OK);
	close_it(f);

	open_it(f);
	(void)add_group(f, "dead", &gap);
	assert_true(cdc_id_is_zero(&gap.first));
}

static void nothing_is_evicted_before_the_groups_are_known(void **state)
{
	struct fixture *f = *state;
	struct cdc_buffer_reader *r;
	struct cdc_gap gap;

	f->settings.retention_ms = 0;
	open_it(f);
	(void)add_group(f, "g", &gap);
	append(f, rows(f->buffer, 0, 100, 100));
	wait_durable(f, end_of(99));
	close_it(f);
	open_it(f);
	(void)usleep(500000);
	(void)add_group(f, "g", &gap);
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	assert_int_equal(read_rows(r, 0, NULL), 100);
	ops->reader_close(r);
}

static void delivered_records_go_when_their_retention_ends(void **state)
{
	struct fixture *f = *state;
	struct cdc_buffer_stats stats;
	struct cdc_gap gap;
	uint64_t end = cdc_clock_mono_ms() + WAIT_MS;

	f->settings.retention_ms = 300;
	open_it(f);
	(void)add_group(f, "g", &gap);
	append(f, rows(f->buffer, 0, 100, 100));
	wait_durable(f, end_of(99));
	(void)usleep(600000);
	ops->stats(f->buffer, &stats);
	assert_int_equal(stats.records, 100);
	commit(f, "g", id_at(99));
	do {
		(void)usleep(20000);
		ops->stats(f->buffer, &stats);
	} while (stats.records && cdc_clock_mono_ms() < end);
	assert_int_equal(stats.records, 0);
	assert_null(stats.holder);
}

/* The clock was set back: what was written before that is kept, and nobody turns round for it. */
static void F42_records_of_the_future_are_kept(void **state)
{
	struct fixture *f = *state;
	struct cdc_buffer_stats stats;
	struct cdc_gap gap;
	struct timespec cpu;
	int64_t before_ms;

	f->settings.retention_ms = 300;
	open_it(f);
	append(f, rows(f->buffer, 0, 100, 100));
	wait_durable(f, end_of(99));
	close_it(f);
	assert_int_equal(
		sql(f, "UPDATE chunk SET written_us = written_us + 3600000000 RETURNING 1"), 1);
	open_it(f);
	(void)add_group(f, "g", &gap);
	commit(f, "g", id_at(99));
	assert_int_equal(ops->progress(f->buffer, end_of(99) + 1, EPOCH, true, NULL), CDC_OK);
	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu), 0);
	before_ms = (int64_t)cpu.tv_sec * 1000 + cpu.tv_nsec / 1000000;
	(void)usleep(800000);
	ops->stats(f->buffer, &stats);
	assert_int_equal(stats.records, 100);
	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu), 0);
	assert_true((int64_t)cpu.tv_sec * 1000 + cpu.tv_nsec / 1000000 - before_ms < 300);
}

/* --- recovery ----------------------------------------------------------------------- */

/* Appends for ever, in batches that cut transactions anywhere, and is killed. */
static _Noreturn void run_child(struct fixture *f, uint64_t from, unsigned seed)
{
	struct cdc_buffer_state state;
	uint64_t k = from;

	open_it(f);
	ops->state(f->buffer, &state);
	for (;;) {
		uint64_t n = (uint64_t)rand_r(&seed) % 37 + 1;
		struct cdc_batch *batch = rows(f->buffer, k, k + n, 200);

		while (ops->append(f->buffer, CDC_SEQ_STREAM, batch, NULL) == CDC_BUSY)
			wait_fd(ops->event_fd(f->buffer), 10);
		k += n;
	}
}

static void a_killed_process_leaves_what_was_durable_and_no_hole(void **state)
{
	struct fixture *f = *state;
	unsigned seed = 7;
	uint64_t resume = 0;

	f->settings.max_bytes = 1u << 30;
	/* On a machine that is busy it takes longer until the first is durable. */
	for (int i = 0; i < 12 || (resume == 0 && i < 200); i++) {
		struct cdc_buffer_reader *r;
		struct cdc_buffer_state st;
		struct cdc_gap gap;
		struct cdc_id through = {0};
		uint64_t n;
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			run_child(f, resume, seed + (unsigned)i);
		(void)usleep(1000 * (useconds_t)(rand_r(&seed) % (120 + (i < 12 ? 0 : 20 * i))));
		(void)kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));

		open_it(f);
		(void)add_group(f, "g", &gap);
		r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
		n = read_rows(r, 0, &through);
		ops->state(f->buffer, &st);
		assert_int_equal(cdc_id_cmp(&st.last_id, &through), 0);
		/* durable() is the end of the last whole transaction that is there. */
		assert_int_equal(st.durable, n / TX ? end_of(n / TX * TX - 1) : 0);
		resume = n / TX * TX;
		ops->reader_close(r);
		close_it(f);
	}
	assert_true(resume > 0);
}

static void a_failed_write_loses_nothing_and_heals(void **state)
{
	enum { N = 4000 };
	struct fixture *f = *state;
	struct rlimit old, low;
	struct cdc_buffer_reader *r;
	struct cdc_err err = {0};
	struct cdc_gap gap;
	uint64_t end = cdc_clock_mono_ms() + WAIT_MS, k;

	(void)signal(SIGXFSZ, SIG_IGN);
	open_it(f);
	(void)add_group(f, "g", &gap);
	append(f, rows(f->buffer, 0, 500, 500));
	wait_durable(f, end_of(499));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = 400000; /* every file: a write beyond fails */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	for (k = 500; k < N; k += 500)
		append(f, rows(f->buffer, k, k + 500, 500));
	while (ops->error(f->buffer, &err) == CDC_OK && cdc_clock_mono_ms() < end)
		wait_fd(ops->event_fd(f->buffer), 50);
	assert_int_not_equal(ops->error(f->buffer, &err), CDC_OK);
	assert_true(ops->durable(f->buffer) < end_of(N - 1));
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	assert_int_equal(read_rows(r, 0, NULL), N);
	ops->reader_close(r);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	wait_durable(f, end_of(N - 1));
	assert_int_equal(ops->error(f->buffer, &err), CDC_OK);
	close_it(f);
	open_it(f);
	(void)add_group(f, "g", &gap);
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	assert_int_equal(read_rows(r, 0, NULL), N);
	ops->reader_close(r);
}

/* --- damage ------------------------------------------------------------------------- */

static void write_some(struct fixture *f)
{
	open_it(f);
	for (uint64_t k = 0; k < 3000; k += 500)
		append(f, rows(f->buffer, k, k + 500, 500));
	wait_durable(f, end_of(2999));
	close_it(f);
}

static void a_damaged_last_chunk_stops_the_open(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};

	write_some(f);
	(void)sql(f, "UPDATE chunk SET body = zeroblob(length(body))"
		     " WHERE first = (SELECT max(first) FROM chunk)");
	assert_int_equal(ops->open(&f->settings, &f->buffer, &err), CDC_CORRUPT);
	assert_non_null(strstr(err.msg, "buffer-s.db"));
	assert_true(err.remedy[0] != '\0');
}

static void a_damaged_chunk_in_the_middle_stops_its_reader(void **state)
{
	struct fixture *f = *state;
	struct cdc_buffer_reader *r;
	struct cdc_read read;
	struct cdc_err err = {0};
	struct cdc_gap gap;
	enum cdc_code rc = CDC_OK;

	write_some(f);
	(void)sql(f, "UPDATE chunk SET body = zeroblob(length(body)) WHERE first = 1000");
	open_it(f);
	(void)add_group(f, "g", &gap);
	r = open_reader(f, "g", (struct cdc_id){0}, NULL, 0);
	for (int i = 0; i < 10 && !rc; i++) {
		rc = ops->read(r, &read, &err);
		if (!rc)
			ops->release(r, read.lease);
	}
	assert_int_equal(rc, CDC_CORRUPT);
	assert_non_null(strstr(err.msg, "buffer-s.db"));
	ops->reader_close(r);
}

static void a_file_that_is_no_database_is_named(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};
	char path[128], junk[5000];
	FILE *file;

	memset(junk, 'x', sizeof(junk));
	(void)snprintf(path, sizeof(path), "%s/buffer-s.db", f->dir);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(junk, sizeof(junk), 1, file), 1);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(ops->open(&f->settings, &f->buffer, &err), CDC_CORRUPT);
	assert_non_null(strstr(err.msg, "buffer-s.db"));
}

static void a_newer_format_is_refused(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};

	write_some(f);
	(void)sql(f, "PRAGMA user_version = 99");
	assert_int_equal(ops->open(&f->settings, &f->buffer, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, "99"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(small_batches_share_chunks_and_readers_do_not_notice),
		TEST(chunks_without_my_tables_are_skipped_with_their_ids),
		TEST(several_readers_share_what_is_read_from_disk),
		TEST(a_leased_chunk_outlives_eviction_and_cache),
		TEST(the_schema_in_force_precedes_the_first_row_after_open),
		TEST(the_files_stay_within_the_budget_while_chunks_are_evicted),
		TEST(a_full_budget_is_busy_until_a_group_moves),
		TEST(the_group_furthest_behind_is_suspended_with_its_gap),
		TEST(nothing_is_evicted_before_the_groups_are_known),
		TEST(delivered_records_go_when_their_retention_ends),
		TEST(F42_records_of_the_future_are_kept),
		TEST(a_killed_process_leaves_what_was_durable_and_no_hole),
		TEST(a_failed_write_loses_nothing_and_heals),
		TEST(a_damaged_last_chunk_stops_the_open),
		TEST(a_damaged_chunk_in_the_middle_stops_its_reader),
		TEST(a_file_that_is_no_database_is_named),
		TEST(a_newer_format_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
