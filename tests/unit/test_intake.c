/* The limit of a reader: what a snapshot contains is read before its rows, all of it and nothing
 * more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/pipeline/intake.h"

#define ALL     ((1u << CDC_OP_COUNT) - 1)
#define OLD     CDC_EPOCH(1, 1)
#define NOW     CDC_EPOCH(2, 1) /* a generation later */
#define LATER   CDC_EPOCH(2, 2) /* and another timeline */
#define WAIT_MS 120000

static const struct cdc_buffer_ops *const ops = &cdc_buffer_local;

struct fixture {
	char dir[64];
	struct cdc_buffer_settings settings;
	struct cdc_buffer_metrics buffer_metrics;
	struct cdc_sync_metrics metrics;
	struct cdc_buffer *buffer;
	struct cdc_window *window;
	struct cdc_intake intake;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct cdc_start start = {.at = CDC_START_EARLIEST};
	const struct cdc_position none = {0};
	struct cdc_stream_position at = {0};
	struct cdc_gap gap;
	struct cdc_intake_setup setup;

	if (!f)
		return -1;
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/test_intake.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	f->settings = (struct cdc_buffer_settings){.dir = f->dir,
						   .slot = "s",
						   .max_bytes = 16u << 20,
						   .retention_ms = 3600000,
						   .metrics = &f->buffer_metrics};
	if (ops->open(&f->settings, &f->buffer, NULL) ||
	    ops->group_add(f->buffer, "g", &none, &start, &at, &gap, NULL))
		return -1;
	f->window = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	setup = (struct cdc_intake_setup){.ops = ops,
					  .buffer = f->buffer,
					  .group = "g",
					  .window_bytes = 1 << 20,
					  .metrics = &f->metrics};
	if (!f->window ||
	    cdc_intake_init(&f->intake, &setup, f->window, CDC_INPUT_STREAM, at, NULL) ||
	    cdc_intake_open(&f->intake, NULL))
		return -1;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char path[512];
	DIR *dir;

	cdc_intake_clear(&f->intake, true);
	cdc_window_free(f->window);
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

/* A transaction of one row, which is then durable. */
static void append(const struct fixture *f, uint32_t epoch, cdc_lsn lsn)
{
	struct cdc_batch *batch = ops->batch_new(f->buffer, 1u << 20);
	const uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;
	struct cdc_record *r;
	uint16_t table;

	assert_non_null(batch);
	assert_int_equal(cdc_batch_table(batch, "public.t", 8, &table, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(batch, &r, NULL), CDC_OK);
	r->id = (struct cdc_id){.epoch = epoch, .commit_lsn = lsn, .ordinal = 1, .part = 1};
	r->table = table;
	r->op = CDC_OP_INSERT;
	cdc_buf_puts(&batch->json, "{}");
	assert_int_equal(cdc_batch_end(batch, NULL), CDC_OK);
	assert_int_equal(cdc_batch_tx_end(batch, lsn, lsn + 8, 0, NULL), CDC_OK);
	assert_int_equal(ops->append(f->buffer, CDC_SEQ_STREAM, batch, NULL), CDC_OK);
	while (ops->durable(f->buffer) < lsn + 8 && cdc_clock_mono_ms() < end_ms) {
		struct pollfd p = {.fd = ops->event_fd(f->buffer), .events = POLLIN};

		(void)poll(&p, 1, 100);
	}
	assert_true(ops->durable(f->buffer) >= lsn + 8);
}

/* Until it has nothing more to read; how many records have come. */
static size_t read_all(struct fixture *f)
{
	do
		assert_int_equal(cdc_intake_read(&f->intake, NULL), CDC_OK);
	while (cdc_intake_is_ready(&f->intake));
	return cdc_window_records(f->window);
}

static void set_limit(struct fixture *f, uint32_t epoch, cdc_lsn lsn)
{
	cdc_intake_close(&f->intake);
	cdc_intake_set_limit(&f->intake, epoch, lsn);
	assert_int_equal(cdc_intake_open(&f->intake, NULL), CDC_OK);
}

static void what_commits_at_the_limit_lies_behind_it(void **state)
{
	struct fixture *f = *state;

	append(f, NOW, 100);
	append(f, NOW, 200);
	append(f, NOW, 300);
	set_limit(f, NOW, 200);
	assert_int_equal(read_all(f), 1);
	assert_true(f->intake.has_reached && !f->intake.is_void);
	assert_int_equal(cdc_window_through(f->intake.input).id.commit_lsn, 100);
	/* Not even when more comes. */
	append(f, NOW, 400);
	assert_int_equal(read_all(f), 1);
	set_limit(f, 0, 0);
	assert_int_equal(read_all(f), 4);
}

static void a_limit_is_reached_when_the_stream_has_come_to_it(void **state)
{
	struct fixture *f = *state;

	append(f, NOW, 100);
	set_limit(f, NOW, 200);
	assert_int_equal(read_all(f), 1);
	assert_false(f->intake.has_reached);
	append(f, NOW, 199);
	assert_int_equal(read_all(f), 2);
	assert_true(f->intake.has_reached && !f->intake.is_void);
}

static void older_generations_lie_below_whatever_their_positions(void **state)
{
	struct fixture *f = *state;

	append(f, OLD, 1000);
	set_limit(f, NOW, 200);
	assert_int_equal(read_all(f), 1);
	assert_false(f->intake.has_reached || f->intake.is_void);
}

/* The limit's own server is not the one that brought this. */
static void another_timeline_below_the_limit_voids_it(void **state)
{
	struct fixture *f = *state;

	append(f, NOW, 100);
	append(f, LATER, 150);
	set_limit(f, NOW, 200);
	(void)read_all(f);
	assert_true(f->intake.is_void);
}

static void another_timeline_at_the_limit_voids_it(void **state)
{
	struct fixture *f = *state;

	append(f, NOW, 100);
	append(f, LATER, 200);
	set_limit(f, NOW, 200);
	(void)read_all(f);
	assert_true(f->intake.is_void);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(what_commits_at_the_limit_lies_behind_it),
		TEST(a_limit_is_reached_when_the_stream_has_come_to_it),
		TEST(older_generations_lie_below_whatever_their_positions),
		TEST(another_timeline_below_the_limit_voids_it),
		TEST(another_timeline_at_the_limit_voids_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
