/*
 * The window: order per key, barriers, key changes and the checkpoint, under
 * random streams whose requests end in random order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cdc/pipeline/select.h"
#include "cdc/pipeline/window.h"
#include "cdc/record/scan.h"

#define ALL     ((1u << CDC_OP_COUNT) - 1)
#define RECORDS 600
#define LANES   5
#define TABLES  3
#define KEYS    7
#define MAX_RUN 6

static const struct cdc_stream_position start;

struct random {
	uint64_t state;
};

static uint64_t next(struct random *r, uint64_t below)
{
	r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (r->state >> 33) % below;
}

static void add(struct cdc_batch *b, unsigned table, uint64_t key, uint64_t lsn, uint32_t ordinal,
		uint16_t part, uint8_t op, uint8_t flags)
{
	struct cdc_record *r;
	uint16_t index;
	char name[16];

	(void)snprintf(name, sizeof(name), "t%u", table);
	assert_int_equal(cdc_batch_table(b, name, strlen(name), &index, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(b, &r, NULL), CDC_OK);
	r->id = (struct cdc_id){.epoch = 1, .commit_lsn = lsn, .ordinal = ordinal, .part = part};
	r->table = index;
	r->key_hash = key;
	r->op = op;
	r->flags = flags;
	r->commit_us = (int64_t)lsn;
	cdc_buf_puts(&b->json, "{\"some\":\"record\"}");
	assert_int_equal(cdc_batch_end(b, NULL), CDC_OK);
}

/* A read of all of a batch.  The window only passes leases on, so any pointer does. */
static struct cdc_read read_all(const struct cdc_batch *b, uint32_t *index)
{
	struct cdc_read r = {.lease = (struct cdc_lease *)(uintptr_t)b, .batch = b, .index = index};

	for (size_t i = 0; i < b->n; i++)
		index[i] = (uint32_t)i;
	r.n = b->n;
	r.through.id = b->records[b->n - 1].id;
	return r;
}

static size_t take_some(struct cdc_window *w, struct cdc_window_input *in,
			const struct cdc_batch *b)
{
	uint32_t index[RECORDS];
	struct cdc_read read = read_all(b, index);
	struct cdc_window_added added;

	assert_int_equal(cdc_window_add(w, in, &read, &added, NULL), CDC_OK);
	return added.selected;
}

static void take(struct cdc_window *w, struct cdc_window_input *in, const struct cdc_batch *b)
{
	assert_int_equal(take_some(w, in, b), b->n);
}

static struct cdc_window_input *input_of(struct cdc_window *w, enum cdc_input kind)
{
	struct cdc_window_input *in = cdc_window_input_new(w, kind, start);

	assert_non_null(in);
	return in;
}

/* --- single rules ------------------------------------------------------------------- */

static void a_run_ends_at_its_limits(void **state)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[8];
	bool has_more;

	(void)state;
	for (uint32_t i = 1; i <= 6; i++)
		add(b, 0, i, 10, i, 1, CDC_OP_INSERT, 0);
	take(w, in, b);
	assert_int_equal(cdc_window_run(w, 0, 4, 1000, items, &has_more), 4);
	assert_true(has_more);
	assert_int_equal(cdc_window_run(w, 0, 8, 1000, items, &has_more), 6);
	assert_false(has_more);
	assert_int_equal(cdc_window_run(w, 0, 8, 40, items, &has_more), 2);
	assert_true(has_more);
	assert_int_equal(cdc_window_run(w, 0, 8, 1, items, &has_more), 1);
	cdc_window_free(w);
}

/* A key stays in its lane; the others leave that to it when it is long. */
static void keys_spread_evenly_beside_one_with_many_records(void **state)
{
	enum { MANY = 120, OTHERS = 160 };
	struct cdc_window *w = cdc_window_new(LANES, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = cdc_window_input_new(w, CDC_INPUT_STREAM, start);
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[MANY + OTHERS];
	size_t with_many = LANES, sum = 0;
	uint64_t hash = 7;

	(void)state;
	for (unsigned i = 0; i < MANY; i++)
		add(b, 0, hash, i + 1, 1, 1, CDC_OP_UPDATE, 0);
	for (unsigned i = 0; i < OTHERS; i++) {
		hash = hash * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		add(b, 0, hash ^ hash >> 32, MANY + i + 1, 1, 1, CDC_OP_UPDATE, 0);
	}
	take(w, in, b);
	for (size_t lane = 0; lane < LANES; lane++) {
		bool has_more;
		size_t n = cdc_window_run(w, lane, MANY + OTHERS, SIZE_MAX, items, &has_more);

		sum += n;
		if (n >= MANY) {
			assert_int_equal(with_many, LANES);
			with_many = lane;
			assert_in_range(n, MANY, MANY + OTHERS / LANES / 2);
		} else {
			assert_in_range(n, OTHERS / LANES, OTHERS / (LANES - 1) + 10);
		}
	}
	assert_int_equal(sum, MANY + OTHERS);
	cdc_window_free(w);
	cdc_batch_free(b);
}

static struct cdc_window *grouped(uint64_t max_bytes)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_SYNC, 1u << CDC_OP_INSERT);

	assert_non_null(w);
	cdc_window_group(w, max_bytes);
	return w;
}

/* Adds a batch whose last transaction ends with it, or goes on. */
static void take_transactions(struct cdc_window *w, struct cdc_window_input *in,
			      const struct cdc_batch *b, bool is_whole)
{
	uint32_t index[RECORDS];
	struct cdc_read read = read_all(b, index);
	const struct cdc_tx_end end = {.commit_lsn = b->records[b->n - 1].id.commit_lsn};
	struct cdc_window_added added;

	read.ends = &end;
	read.end_n = is_whole;
	assert_int_equal(cdc_window_add(w, in, &read, &added, NULL), CDC_OK);
}

static void expect_group(struct cdc_window *w, size_t max, size_t n, bool is_last)
{
	struct cdc_item *items[8];
	bool has_more;

	assert_int_equal(cdc_window_run(w, 0, max, 1000, items, &has_more), n);
	if (n)
		assert_int_equal(cdc_window_run_is_last(w, items, n), is_last);
}

/* Finishes the first n records of the lane. */
static void finish(struct cdc_window *w, size_t n)
{
	for (; n > 0; n--)
		cdc_window_done(w, cdc_window_head(w, 0));
}

static void expect_position(struct cdc_window_input *in, uint64_t lsn, uint32_t ordinal)
{
	struct cdc_id id = cdc_window_position(in).id;

	assert_int_equal(id.commit_lsn, lsn);
	assert_int_equal(id.ordinal, ordinal);
}

static void a_transaction_is_whole_or_split_at_a_limit(void **state)
{
	struct cdc_window *w = grouped(1000);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *first = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *more = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *end = cdc_batch_new(1 << 20);

	(void)state;
	add(first, 0, 1, 10, 1, 1, CDC_OP_INSERT, 0);
	add(first, 0, 1, 20, 1, 1, CDC_OP_INSERT, 0);
	add(first, 1, 2, 20, 2, 1, CDC_OP_INSERT, CDC_RECORD_BARRIER);
	take_transactions(w, in, first, false);
	/* Alone, although more would fit. */
	expect_group(w, 8, 1, true);
	finish(w, 1);
	expect_position(in, 10, 1);
	/* Nobody knows how long it is. */
	expect_group(w, 8, 0, false);
	expect_group(w, 2, 0, false);
	expect_group(w, 1, 1, false);
	add(more, 0, 1, 20, 3, 1, CDC_OP_INSERT, 0);
	take_transactions(w, in, more, false);
	expect_group(w, 2, 2, false);
	finish(w, 2);
	expect_position(in, 20, 0);
	expect_group(w, 8, 0, false);
	/* The rest of it is not selected. */
	add(end, 0, 1, 20, 4, 1, CDC_OP_DELETE, 0);
	take_transactions(w, in, end, true);
	expect_group(w, 8, 1, true);
	expect_position(in, 20, 0);
	finish(w, 1);
	expect_position(in, 20, 4);
	cdc_window_free(w);
}

static void a_restart_in_a_transaction_begins_with_it(void **state)
{
	struct cdc_window *w = grouped(1000);
	const struct cdc_stream_position from = {.id = {.epoch = 1, .commit_lsn = 20}};
	struct cdc_window_input *in = cdc_window_input_new(w, CDC_INPUT_STREAM, from);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);

	(void)state;
	add(b, 0, 1, 20, 1, 1, CDC_OP_INSERT, 0);
	take_transactions(w, in, b, false);
	expect_group(w, 8, 0, false);
	assert_int_equal(cdc_window_behind(in, cdc_window_through(in).id).ordinal, UINT32_MAX);
	cdc_window_free(w);
}

/* What no room is for goes out as far as it is there, but for the record that may be the last. */
static void a_transaction_that_fills_the_window_goes_on(void **state)
{
	struct cdc_window *w = grouped(40);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *end = cdc_batch_new(1 << 20);

	(void)state;
	for (uint32_t i = 1; i <= 3; i++)
		add(b, 0, i, 20, i, 1, CDC_OP_INSERT, 0);
	take_transactions(w, in, b, false);
	assert_false(cdc_window_must_read(in));
	expect_group(w, 8, 2, false);
	finish(w, 2);
	assert_true(cdc_window_must_read(in));
	expect_group(w, 8, 0, false);
	add(end, 0, 1, 20, 4, 1, CDC_OP_DELETE, 0);
	take_transactions(w, in, end, true);
	expect_group(w, 8, 1, true);
	cdc_window_free(w);
}

/* What a stopped table takes along out of the window binds its keys to no lane. */
static void a_key_of_a_stopped_table_goes_where_there_is_less_to_do(void **state)
{
	static const uint64_t either = UINT64_C(1) << 32; /* lane 0 or 1 */
	struct cdc_window *w = cdc_window_new(2, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	struct cdc_window_input *again = input_of(w, CDC_INPUT_HELD);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *first = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *more = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *last = cdc_batch_new(1 << 20);
	struct cdc_id own;

	(void)state;
	add(first, 0, 3, 10, 1, 1, CDC_OP_TRUNCATE, CDC_RECORD_BARRIER);
	add(first, 0, either, 10, 2, 1, CDC_OP_INSERT, 0);
	take(w, in, first);
	cdc_window_stop(w, cdc_window_head(w, 1), &own);
	assert_int_equal(cdc_window_records(w), 0);
	add(more, 1, 2, 11, 1, 1, CDC_OP_INSERT, 0);
	take(w, in, more);
	add(last, 0, either, 10, 2, 1, CDC_OP_INSERT, 0);
	take(w, again, last);
	assert_non_null(cdc_window_head(w, 1));
	cdc_window_free(w);
}

/* After each start the schema record of a table comes first, with the id that it had. */
static void a_table_stops_no_earlier_than_its_input_has_come(void **state)
{
	const struct cdc_stream_position from = {.id = {.epoch = 1, .commit_lsn = 20, .part = 7}};
	struct cdc_window *w = cdc_window_new(2, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = cdc_window_input_new(w, CDC_INPUT_STREAM, from);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *schema = cdc_batch_new(1 << 20);
	uint32_t index[1];
	struct cdc_window_added added;
	struct cdc_read read;
	struct cdc_id own;

	(void)state;
	assert_non_null(in);
	add(schema, 0, 3, 5, 1, 0, CDC_OP_SCHEMA, CDC_RECORD_BARRIER);
	read = read_all(schema, index);
	read.through = from;
	assert_int_equal(cdc_window_add(w, in, &read, &added, NULL), CDC_OK);
	cdc_window_stop(w, cdc_window_head(w, 1), &own);
	assert_int_equal(cdc_id_cmp(&own, &from.id), 0);
	cdc_window_free(w);
}

static void what_is_not_selected_moves_the_checkpoint(void **state)
{
	struct cdc_window *w = cdc_window_new(4, false, CDC_ORDER_KEY, 1u << CDC_OP_INSERT);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	uint32_t index[4];
	struct cdc_read read;
	struct cdc_window_added added;

	(void)state;
	add(b, 0, 1, 10, 1, 1, CDC_OP_DELETE, 0);
	add(b, 0, 1, 10, 2, 1, CDC_OP_UPDATE, 0);
	read = read_all(b, index);
	assert_int_equal(cdc_window_add(w, in, &read, &added, NULL), CDC_OK);
	assert_int_equal(added.selected, 0);
	assert_int_equal(added.skipped, 2);
	assert_int_equal(cdc_window_position(in).id.ordinal, 2);
	assert_null(cdc_window_take_lease(in));
	cdc_window_free(w);
}

/* What a record that fails keeps back is its key, and of memory what holds records that wait. */
static void nothing_but_its_key_waits_for_a_record_that_fails(void **state)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *first = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *others = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *last = cdc_batch_new(1 << 20);
	struct cdc_item *items[8];
	size_t bytes, n;
	bool has_more;

	(void)state;
	add(first, 0, 1, 10, 1, 1, CDC_OP_INSERT, 0);
	add(first, 0, 1, 10, 2, 1, CDC_OP_UPDATE, 0);
	take(w, in, first);
	bytes = cdc_window_input_bytes(in);
	/* It alone. */
	assert_int_equal(cdc_window_run_beside(w, 0, 8, 1000, items, &has_more), 0);
	add(others, 1, 2, 20, 1, 1, CDC_OP_INSERT, 0);
	add(others, 1, 3, 20, 2, 1, CDC_OP_INSERT, 0);
	add(last, 0, 1, 30, 1, 1, CDC_OP_UPDATE, 0);
	add(last, 1, 2, 30, 2, 1, CDC_OP_UPDATE, 0);
	add(last, 1, 4, 30, 3, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	add(last, 1, 5, 30, 3, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	add(last, 1, 6, 30, 4, 1, CDC_OP_INSERT, 0);
	take(w, in, others);
	take(w, in, last);
	assert_null(cdc_window_pass_lease(in));
	/* Up to the second half of a key change, which waits for the first. */
	n = cdc_window_run_beside(w, 0, 8, 1000, items, &has_more);
	assert_int_equal(n, 4);
	assert_true(has_more);
	assert_int_equal(items[0]->rec->key_hash, 2);
	assert_int_equal(items[3]->rec->key_hash, 4);
	for (size_t i = 0; i < n; i++)
		cdc_window_done(w, items[i]);
	assert_null(cdc_window_take_lease(in));
	assert_ptr_equal(cdc_window_pass_lease(in), others);
	assert_null(cdc_window_pass_lease(in));
	assert_true(cdc_window_input_bytes(in) > bytes);
	assert_int_equal(cdc_window_position(in).id.commit_lsn, 0);
	n = cdc_window_run_beside(w, 0, 8, 1000, items, &has_more);
	assert_int_equal(n, 2);
	for (size_t i = 0; i < n; i++)
		cdc_window_done(w, items[i]);
	/* When the key goes on, the checkpoint passes what was done meanwhile. */
	finish(w, 2);
	assert_int_equal(cdc_window_position(in).id.commit_lsn, 20);
	assert_ptr_equal(cdc_window_take_lease(in), first);
	finish(w, 1);
	assert_ptr_equal(cdc_window_take_lease(in), last);
	assert_int_equal(cdc_window_input_bytes(in), 0);
	assert_int_equal(cdc_window_position(in).id.ordinal, 4);
	cdc_window_free(w);
}

/* What was written anew lies beside what was read, and both are memory. */
static void bytes_of_records_that_were_written_anew_count(void **state)
{
	static const char json[] =
		"{\"id\":\"00000001-000000000000000a-00000001-0001\",\"operation\":\"insert\","
		"\"schema\":\"public.t\",\"key\":{\"id\":1},\"fields\":{\"id\":1,\"v\":\"secret\"},"
		"\"position\":\"0/9\",\"commit\":{\"lsn\":\"0/A\",\"xid\":7,"
		"\"time\":\"2026-01-02T03:04:05.000000Z\"},\"hash\":\"0123456789abcdef\"}";
	struct cdc_select_field fields[] = {{.id = (char[]){"v"}, .obfuscate = CDC_OBFUSCATE_MASK},
					    {.id = (char[]){"*"}}};
	struct cdc_select_table table = {
		.id = (char[]){"public.t"}, .fields = fields, .field_n = 2};
	const struct cdc_selection selection = {.tables = &table, .n = 1};
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_selector *selector = NULL;
	struct cdc_item *head;

	(void)state;
	assert_int_equal(cdc_selector_new(&selection, ALL, &selector, NULL), CDC_OK);
	cdc_window_select(w, selector);
	assert_int_equal(cdc_scan_record(b, json, strlen(json), NULL), CDC_OK);
	take(w, in, b);
	head = cdc_window_head(w, 0);
	assert_true(head->is_mapped);
	assert_true(head->rec->json_len > 100);
	assert_int_equal(cdc_window_input_bytes(in), b->json.len + head->rec->json_len);
	finish(w, 1);
	assert_ptr_equal(cdc_window_take_lease(in), b);
	assert_int_equal(cdc_window_input_bytes(in), 0);
	cdc_window_free(w);
	cdc_selector_free(selector);
}

/* There only the record itself waits. */
static void without_order_what_is_of_its_key_goes_beside_the_head(void **state)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_NONE, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[8];
	bool has_more;

	(void)state;
	add(b, 0, 1, 10, 1, 1, CDC_OP_INSERT, 0);
	add(b, 0, 1, 20, 1, 1, CDC_OP_UPDATE, 0);
	add(b, 0, 2, 20, 2, 1, CDC_OP_INSERT, 0);
	take(w, in, b);
	assert_int_equal(cdc_window_run_beside(w, 0, 8, 1000, items, &has_more), 2);
	assert_int_equal(items[0]->rec->id.commit_lsn, 20);
	assert_int_equal(items[0]->rec->key_hash, 1);
	finish(w, 3);
	assert_ptr_equal(cdc_window_take_lease(in), b);
	cdc_window_free(w);
}

/* The first half of a key change may look at the second for as long as it is there. */
static void a_second_half_that_is_too_large_outlives_its_first(void **state)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *more = cdc_batch_new(1 << 20);
	struct cdc_parked parked = {0};

	(void)state;
	cdc_window_set_parked(w, &parked);
	add(b, 0, 1, 10, 1, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	add(more, 0, 2, 10, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW | CDC_RECORD_TOO_LARGE);
	take(w, in, b);
	take(w, in, more);
	cdc_window_written(w);
	assert_null(cdc_window_pass_lease(in));
	finish(w, 1);
	assert_ptr_equal(cdc_window_take_lease(in), b);
	assert_ptr_equal(cdc_window_take_lease(in), more);
	cdc_window_free(w);
}

/* A record that is too large is in nobody's way, and in the checkpoint only when it is written. */
static void what_is_too_large_stands_aside(void **state)
{
	struct cdc_window *w = cdc_window_new(2, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_parked parked = {0};
	struct cdc_item *items[8], *aside;
	size_t n, bytes;
	bool has_more;

	(void)state;
	cdc_window_set_parked(w, &parked);
	add(b, 0, 0, 10, 1, 1, CDC_OP_INSERT, 0);
	add(b, 0, 0, 10, 2, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD | CDC_RECORD_TOO_LARGE);
	add(b, 0, 2, 10, 2, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	add(b, 1, 1, 10, 3, 1, CDC_OP_MESSAGE, CDC_RECORD_BARRIER | CDC_RECORD_TOO_LARGE);
	add(b, 1, 1, 10, 4, 1, CDC_OP_MESSAGE, CDC_RECORD_BARRIER);
	take(w, in, b);
	assert_int_equal(cdc_window_records(w), 5);
	assert_int_equal(cdc_window_run(w, 0, 8, 1000, items, &has_more), 1);
	cdc_window_done(w, items[0]);
	assert_int_equal(cdc_window_position(in).id.ordinal, 1);
	/* The message behind the one that is too large does not wait for it. */
	assert_int_equal(cdc_window_run(w, 1, 8, 1000, items, &has_more), 1);
	assert_int_equal(items[0]->rec->id.ordinal, 4);
	cdc_window_done(w, items[0]);
	aside = cdc_window_aside(w, &n, &bytes);
	assert_int_equal(n, 2);
	assert_int_equal(aside->rec->id.ordinal, 2);
	assert_int_equal(aside->next->rec->id.ordinal, 3);
	assert_int_equal(cdc_window_position(in).id.ordinal, 1);
	cdc_window_written(w);
	assert_int_equal(cdc_window_position(in).id.part, 1);
	/* The second half of a key change waits until the first is written. */
	assert_int_equal(cdc_window_run(w, 0, 8, 1000, items, &has_more), 1);
	assert_int_equal(items[0]->rec->id.part, 2);
	cdc_window_done(w, items[0]);
	cdc_window_written(w);
	assert_int_equal(cdc_window_records(w), 0);
	assert_int_equal(cdc_window_position(in).id.ordinal, 4);
	assert_ptr_equal(cdc_window_take_lease(in), b);
	cdc_parked_clear(&parked);
	cdc_window_free(w);
}

static void a_probe_is_the_oldest_record_of_another_key(void **state)
{
	struct cdc_window *w = cdc_window_new(2, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	bool suspects[2] = {true, false};
	struct cdc_item *p;

	(void)state;
	add(b, 0, 2, 10, 1, 1, CDC_OP_INSERT, 0);
	add(b, 0, 2, 10, 2, 1, CDC_OP_UPDATE, 0);
	add(b, 0, 4, 10, 3, 1, CDC_OP_INSERT, 0);
	add(b, 0, 3, 10, 4, 1, CDC_OP_INSERT, 0);
	take(w, in, b);
	p = cdc_window_probe(w, NULL, suspects);
	assert_int_equal(p->rec->id.ordinal, 3); /* behind the suspect, in its lane */
	cdc_window_done(w, p);
	assert_int_equal(cdc_window_head(w, 0)->rec->id.ordinal, 1);
	assert_int_equal(cdc_window_position(in).id.ordinal, 0);
	p = cdc_window_probe(w, &b->records[0].id, suspects);
	assert_int_equal(p->rec->id.ordinal, 4); /* 2 is not the first of its key */
	assert_null(cdc_window_probe(w, &p->rec->id, suspects));
	suspects[0] = false;
	assert_int_equal(cdc_window_probe(w, NULL, suspects)->rec->id.ordinal, 1);
	cdc_window_free(w);
}

static void halves_of_a_key_change_find_each_other_across_reads(void **state)
{
	struct cdc_window *w = cdc_window_new(2, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *a = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[2];
	bool has_more;

	(void)state;
	add(a, 0, 2, 10, 1, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	add(b, 0, 3, 10, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	take(w, in, a);
	take(w, in, b);
	assert_int_equal(cdc_window_run(w, 1, 2, 1000, items, &has_more), 0);
	assert_int_equal(cdc_window_run(w, 0, 2, 1000, items, &has_more), 1);
	cdc_window_done(w, items[0]);
	assert_int_equal(cdc_window_run(w, 1, 2, 1000, items, &has_more), 1);
	cdc_window_free(w);
}

static void a_second_half_alone_waits_for_nothing(void **state)
{
	struct cdc_window *w = cdc_window_new(2, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[2];
	bool has_more;

	(void)state;
	add(b, 0, 3, 10, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	take(w, in, b);
	assert_int_equal(cdc_window_run(w, 1, 2, 1000, items, &has_more), 1);
	cdc_window_free(w);
}

static void halves_of_one_lane_go_in_one_request_and_never_the_second_alone(void **state)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	const bool none[1] = {false};
	struct cdc_item *items[2];
	bool has_more;

	(void)state;
	add(b, 0, 2, 10, 1, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	add(b, 0, 3, 10, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	take(w, in, b);
	assert_int_equal(cdc_window_run(w, 0, 2, 1000, items, &has_more), 2);
	assert_null(cdc_window_probe(w, &b->records[0].id, none));
	assert_int_equal(cdc_window_run(w, 0, 1, 1000, items, &has_more), 1);
	cdc_window_done(w, items[0]);
	assert_int_equal(cdc_window_probe(w, &b->records[0].id, none)->rec->id.part, 2);
	cdc_window_free(w);
}

static void no_probe_passes_a_barrier_in_a_single_lane(void **state)
{
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	const bool none[1] = {false};

	(void)state;
	add(b, 0, 2, 10, 1, 1, CDC_OP_INSERT, 0);
	add(b, 0, 9, 10, 2, 1, CDC_OP_TRUNCATE, CDC_RECORD_BARRIER);
	add(b, 0, 3, 10, 3, 1, CDC_OP_INSERT, 0);
	take(w, in, b);
	assert_int_equal(cdc_window_probe(w, NULL, none)->rec->id.ordinal, 1);
	assert_null(cdc_window_probe(w, &b->records[0].id, none));
	cdc_window_free(w);
}

/* --- small and large tables --------------------------------------------------------- */

#define LARGE 0  /* the table whose keys are below 100; those of table n are from 100 * n on */
#define FIRST 20 /* records of it that are there at first */

struct sharing {
	struct cdc_window *w;
	struct cdc_window_input *in;
	struct cdc_batch *batches[32];
	size_t n;
	struct cdc_parked parked;
};

/* One record, in a read of its own. */
static void bring(struct sharing *s, uint64_t key, uint8_t op, uint8_t flags)
{
	struct cdc_batch *b = cdc_batch_new(1 << 16);

	assert_non_null(b);
	s->batches[s->n++] = b;
	add(b, (unsigned)(key / 100), key, 100 + s->n, 1, 1, op, flags);
	take(s->w, s->in, b);
}

static void update(struct sharing *s, uint64_t key)
{
	bring(s, key, CDC_OP_UPDATE, 0);
}

/* One lane with much of one table, and the first requests of two records in flight. */
static struct sharing *sharing(size_t in_flight)
{
	struct sharing *s = calloc(1, sizeof(*s));
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *item;

	assert_true(s && b);
	s->w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	assert_non_null(s->w);
	cdc_window_share(s->w, 2, 1000);
	cdc_window_set_parked(s->w, &s->parked);
	s->in = input_of(s->w, CDC_INPUT_STREAM);
	s->batches[s->n++] = b;
	for (unsigned i = 1; i <= FIRST; i++)
		add(b, LARGE, i, i, 1, 1, CDC_OP_UPDATE, 0);
	take(s->w, s->in, b);
	item = cdc_window_head(s->w, 0);
	for (size_t i = 0; i < in_flight; i++, item = item->next)
		cdc_window_sent(item);
	return s;
}

static void end_sharing(struct sharing *s)
{
	cdc_window_free(s->w);
	cdc_parked_clear(&s->parked);
	for (size_t i = 0; i < s->n; i++)
		cdc_batch_free(s->batches[i]);
	free(s);
}

/* The keys at the head of the lane; 0 ends them. */
static void expect_keys(struct sharing *s, const uint64_t *keys)
{
	const struct cdc_item *item = cdc_window_head(s->w, 0);

	for (; *keys; keys++, item = item->next) {
		assert_non_null(item);
		assert_int_equal(item->rec->key_hash, *keys);
	}
}

#define EXPECT_KEYS(s, ...) expect_keys(s, (const uint64_t[]){__VA_ARGS__, 0})

static struct cdc_item *item_of(struct sharing *s, uint64_t key)
{
	struct cdc_item *item = cdc_window_head(s->w, 0);

	while (item->rec->key_hash != key)
		item = item->next;
	return item;
}

static void a_record_of_a_small_table_goes_ahead_of_what_is_not_in_flight(void **state)
{
	struct sharing *s = sharing(2);
	struct cdc_item *items[2];
	bool has_more;

	(void)state;
	update(s, 100);
	EXPECT_KEYS(s, 1, 2, 100, 3, 4);
	finish(s->w, 2);
	assert_int_equal(cdc_window_run(s->w, 0, 2, 1000, items, &has_more), 2);
	assert_int_equal(items[0]->rec->key_hash, 100);
	assert_int_equal(items[1]->rec->key_hash, 3);
	assert_int_equal(cdc_window_position(s->in).id.commit_lsn, 2);
	end_sharing(s);
}

static void groups_of_what_goes_ahead_leave_as_much_of_the_others_between_them(void **state)
{
	struct sharing *s = sharing(2);

	(void)state;
	for (unsigned table = 1; table <= 5; table++)
		update(s, table * 100);
	EXPECT_KEYS(s, 1, 2, 100, 200, 3, 4, 300, 400, 5, 6, 500, 7, 8);
	/* Also behind one that is gone, when nothing of the others was sent since. */
	finish(s->w, 10);
	cdc_window_sent(item_of(s, 500));
	finish(s->w, 1);
	update(s, 600);
	EXPECT_KEYS(s, 7, 8, 600, 9);
	/* What is sent of them counts. */
	for (unsigned key = 7; key <= 8; key++)
		cdc_window_sent(item_of(s, key));
	cdc_window_sent(item_of(s, 600));
	finish(s->w, 3);
	cdc_window_sent(item_of(s, 9));
	cdc_window_sent(item_of(s, 10));
	update(s, 700);
	EXPECT_KEYS(s, 9, 10, 700, 11);
	end_sharing(s);
}

/* A request may be full before it has its most records. */
static void groups_are_of_a_request_by_bytes_too(void **state)
{
	struct sharing *s = sharing(0);
	struct cdc_window *w = cdc_window_new(1, false, CDC_ORDER_KEY, ALL);
	struct cdc_window *few = s->w;

	(void)state;
	cdc_window_share(w, 1000, 30); /* two records of 17 bytes fill it */
	s->w = w;
	s->in = input_of(w, CDC_INPUT_STREAM);
	take(w, s->in, s->batches[0]);
	for (unsigned table = 1; table <= 5; table++)
		update(s, table * 100);
	EXPECT_KEYS(s, 100, 200, 1, 2, 300, 400, 3, 4, 500, 5);
	cdc_window_free(few);
	end_sharing(s);
}

static void what_goes_ahead_overtakes_nothing_of_its_key(void **state)
{
	struct sharing *s = sharing(1);

	(void)state;
	update(s, 100);
	update(s, 100);
	update(s, 1); /* of the large table */
	update(s, 200);
	EXPECT_KEYS(s, 1, 100, 100, 2, 3, 200, 4);
	/* This one is in line, because it is half of a key change, and what is behind it is, too.
	 */
	bring(s, 300, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	update(s, 300);
	EXPECT_KEYS(s, 1, 100, 100, 2, 3, 200, 4, 5);
	assert_int_equal(item_of(s, 300)->next->rec->key_hash, 300);
	assert_null(item_of(s, 300)->next->next);
	finish(s->w, 7);
	update(s, 300);
	assert_null(item_of(s, 300)->next->next->next);
	/* When nothing of it is left, it may again. */
	cdc_window_done(s->w, item_of(s, 300));
	cdc_window_done(s->w, item_of(s, 300));
	cdc_window_done(s->w, item_of(s, 300));
	update(s, 300);
	assert_ptr_equal(cdc_window_head(s->w, 0), item_of(s, 300));
	end_sharing(s);
}

static void a_table_that_grows_goes_ahead_no_more(void **state)
{
	struct sharing *s = sharing(2);

	(void)state;
	for (uint64_t key = 100; key < 105; key++)
		update(s, key);
	/* It has three, and the lane less than eight times as many. */
	EXPECT_KEYS(s, 1, 2, 100, 101, 3, 4, 102, 5, 6, 7, 8);
	assert_ptr_equal(item_of(s, 103)->next, item_of(s, 104));
	assert_null(item_of(s, 104)->next);
	/* Others still do; and so does this one, when it has few again, but for keys in line. */
	update(s, 200);
	EXPECT_KEYS(s, 1, 2, 100, 101, 3, 4, 102, 200, 5);
	cdc_window_done(s->w, item_of(s, 100));
	cdc_window_done(s->w, item_of(s, 101));
	cdc_window_done(s->w, item_of(s, 102));
	cdc_window_done(s->w, item_of(s, 104));
	update(s, 105);
	update(s, 103);
	EXPECT_KEYS(s, 1, 2, 3, 4, 200, 5, 6, 105, 7);
	assert_int_equal(item_of(s, 103)->next->rec->key_hash, 103);
	assert_null(item_of(s, 103)->next->next);
	end_sharing(s);
}

static void barriers_and_what_they_hold_back_count_for_their_table(void **state)
{
	struct sharing *s = sharing(1);

	(void)state;
	bring(s, 100, CDC_OP_TRUNCATE, CDC_RECORD_BARRIER);
	EXPECT_KEYS(s, 1, 2, 3);
	assert_null(item_of(s, 100)->next);
	for (uint64_t key = 101; key <= 104; key++)
		update(s, key);
	assert_int_equal(cdc_window_held(s->w), 4);
	/* Four are too many for a lane of twenty, until they have become fewer. */
	cdc_window_done(s->w, item_of(s, 100));
	EXPECT_KEYS(s, 1, 2, 3, 4);
	assert_ptr_equal(item_of(s, 101)->next->next->next, item_of(s, 104));
	finish(s->w, FIRST);
	EXPECT_KEYS(s, 101, 102, 103, 104);
	end_sharing(s);
}

static void a_barrier_waits_for_what_went_ahead(void **state)
{
	struct sharing *s = sharing(1);

	(void)state;
	update(s, 100);
	bring(s, 101, CDC_OP_TRUNCATE, CDC_RECORD_BARRIER);
	update(s, 100);
	EXPECT_KEYS(s, 1, 100, 2);
	assert_int_equal(cdc_window_held(s->w), 2);
	cdc_window_done(s->w, item_of(s, 100));
	assert_int_equal(cdc_window_held(s->w), 1);
	assert_null(item_of(s, 101)->next);
	cdc_window_done(s->w, item_of(s, 101));
	/* It is behind nothing of its table. */
	EXPECT_KEYS(s, 1, 2, 3, 100, 4);
	end_sharing(s);
}

/* However what is at the end of those ahead leaves, the next one is behind the others. */
static void what_is_ahead_may_leave_in_any_way(void **state)
{
	struct sharing *s = sharing(1);

	(void)state;
	update(s, 100);
	update(s, 200);
	assert_int_equal(cdc_window_park(s->w, item_of(s, 200), NULL), CDC_OK);
	EXPECT_KEYS(s, 1, 100, 2);
	update(s, 200); /* parked: it stands aside, too */
	update(s, 300);
	EXPECT_KEYS(s, 1, 100, 2, 3, 300, 4);
	cdc_window_give_up(s->w, item_of(s, 300));
	/* Its place is kept, and the group goes on. */
	update(s, 400);
	EXPECT_KEYS(s, 1, 100, 2, 3, 400, 4);
	/* Sent as a probe. */
	cdc_window_sent(item_of(s, 400));
	cdc_window_done(s->w, item_of(s, 400));
	cdc_window_done(s->w, item_of(s, 3));
	cdc_window_done(s->w, item_of(s, 2));
	update(s, 500);
	EXPECT_KEYS(s, 1, 100, 4, 5, 500, 6);
	cdc_window_done(s->w, item_of(s, 500));
	cdc_window_done(s->w, item_of(s, 100));
	update(s, 600);
	EXPECT_KEYS(s, 1, 4, 5, 600, 6);
	/* And when all did, others have had no turn yet. */
	finish(s->w, 4);
	update(s, 700);
	EXPECT_KEYS(s, 6, 7, 700, 8);
	while (cdc_window_head(s->w, 0))
		finish(s->w, 1);
	assert_int_equal(cdc_window_records(s->w), 3); /* aside */
	end_sharing(s);
}

/* What is refused is sent again, halved, with nothing between. */
static void what_is_searched_for_a_refused_record_stays_together(void **state)
{
	struct sharing *s = sharing(4);

	(void)state;
	update(s, 100);
	EXPECT_KEYS(s, 1, 2, 3, 4, 100, 5);
	for (const struct cdc_item *i = cdc_window_head(s->w, 0); i; i = i->next) {
		if (i->rec->key_hash == 100 || i->rec->key_hash == 5)
			cdc_window_sent(item_of(s, i->rec->key_hash));
	}
	update(s, 200);
	EXPECT_KEYS(s, 1, 2, 3, 4, 100, 5, 6, 200, 7);
	/* To compare it with the head, the lowest is taken, not the first. */
	assert_int_equal(cdc_window_other(s->w, 0, &s->batches[0]->records[3].id)->rec->key_hash,
			 5);
	end_sharing(s);
}

static void halves_of_a_key_change_stay_together(void **state)
{
	struct sharing *s = sharing(0);
	struct cdc_batch *b = cdc_batch_new(1 << 16);

	(void)state;
	finish(s->w, FIRST);
	assert_non_null(b);
	s->batches[s->n++] = b;
	add(b, LARGE, 1, 100, 1, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	add(b, LARGE, 2, 100, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	for (unsigned i = 3; i < 20; i++)
		add(b, LARGE, i, 100, i, 1, CDC_OP_UPDATE, 0);
	take(s->w, s->in, b);
	cdc_window_sent(item_of(s, 1));
	update(s, 100);
	EXPECT_KEYS(s, 1, 2, 100, 3);
	end_sharing(s);
}

static void a_sync_with_one_table_is_first_in_first_out(void **state)
{
	struct sharing *s = sharing(1);

	(void)state;
	for (uint64_t key = 50; key < 53; key++)
		update(s, key);
	assert_ptr_equal(item_of(s, 50)->next->next, item_of(s, 52));
	EXPECT_KEYS(s, 1, 2, 3, 4);
	end_sharing(s);
}

/* --- random streams ----------------------------------------------------------------- */

#define COPIED (KEYS * TABLES) /* rows, at most */

struct seen {
	bool is_done[RECORDS + COPIED], was_out[RECORDS + COPIED];
};

struct stream {
	struct cdc_batch *batches[RECORDS];
	size_t batch_n;
	const struct cdc_record *records[RECORDS + COPIED]; /* as they must arrive */
	unsigned table[RECORDS + COPIED];
	size_t n;
};

static size_t index_of(const struct stream *s, const struct cdc_record *rec)
{
	size_t i = 0;

	while (s->records[i] != rec)
		i++;
	return i;
}

/* Of tables of one size; or the first is large. */
static void make_stream(struct stream *s, struct random *r, bool is_uneven)
{
	struct cdc_batch *b = NULL;

	s->n = s->batch_n = 0;
	while (s->n < RECORDS) {
		unsigned table = (unsigned)next(r, is_uneven && next(r, 8) ? 1 : TABLES);
		uint64_t key = next(r, KEYS) * TABLES + table, what = next(r, 40);

		if (!b || next(r, 20) == 0) {
			b = s->batches[s->batch_n++] = cdc_batch_new(1 << 20);
			assert_non_null(b);
		}
		s->table[s->n] = table;
		if (what < 2) {
			add(b, table, 1000 + table, s->n + 1, 1, 1, CDC_OP_TRUNCATE,
			    CDC_RECORD_BARRIER);
			s->n++;
		} else if (what < 6 && s->n + 2 <= RECORDS) {
			add(b, table, key, s->n + 1, 1, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
			if (next(r, 4) == 0)
				b = s->batches[s->batch_n++] = cdc_batch_new(1 << 20);
			s->table[s->n + 1] = table;
			add(b, table, (key + TABLES) % (KEYS * TABLES), s->n + 1, 1, 2,
			    CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
			s->n += 2;
		} else {
			add(b, table, key, s->n + 1, 1, 1, CDC_OP_INSERT, 0);
			s->n++;
		}
	}
	for (size_t i = 0, k = 0; i < s->batch_n; i++) {
		for (size_t j = 0; j < s->batches[i]->n; j++)
			s->records[k++] = &s->batches[i]->records[j];
	}
}

/* May this record be sent now, given what is done? */
static void check_sent(const struct stream *s, const struct seen *seen, size_t i,
		       enum cdc_order order)
{
	const struct cdc_record *rec = s->records[i];

	for (size_t k = 0; k < i && order != CDC_ORDER_NONE; k++) {
		const struct cdc_record *earlier = s->records[k];
		bool must_be_done = order == CDC_ORDER_SYNC;

		if (s->table[k] == s->table[i] &&
		    (earlier->flags & CDC_RECORD_BARRIER || rec->flags & CDC_RECORD_BARRIER))
			must_be_done = true;
		if (earlier->key_hash == rec->key_hash)
			must_be_done = true;
		if (rec->flags & CDC_RECORD_MOVE_NEW && k + 1 == i)
			must_be_done = true;
		/* Or it goes before it in the same request. */
		if (must_be_done && !seen->is_done[k])
			assert_true(seen->was_out[k]);
	}
}

static void check_position(const struct stream *s, const struct seen *seen,
			   struct cdc_window_input *in)
{
	struct cdc_stream_position at = cdc_window_position(in);
	size_t i;

	for (i = 0; i < s->n && seen->is_done[i]; i++)
		;
	if (i)
		assert_memory_equal(&at.id, &s->records[i - 1]->id, sizeof(at.id));
	else
		assert_true(cdc_id_is_zero(&at.id));
}

struct flight {
	struct cdc_item *items[MAX_RUN];
	size_t n;
};

/* Often one with small requests, whose tables share the lanes. */
static struct cdc_window *random_window(struct random *r, size_t lanes, bool has_apart,
					enum cdc_order order)
{
	struct cdc_window *w = cdc_window_new(lanes, has_apart, order, ALL);

	assert_non_null(w);
	if (order == CDC_ORDER_KEY && next(r, 4))
		cdc_window_share(w, 1 + next(r, MAX_RUN), 1 + next(r, 200));
	return w;
}

/* Sends, accepts and refuses at random until all is done; or, when it stops after some turns, until
 * the checkpoint has reached all that was sent.  Returns how many records went ahead. */
static size_t deliver(struct stream *s, struct random *r, enum cdc_order order, unsigned stop_after)
{
	struct cdc_id started = {0}, probed = {0};
	struct cdc_window *w = random_window(r, next(r, 3) ? LANES : 1, false, order);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	struct flight flights[LANES] = {0};
	size_t lanes = cdc_window_lanes(w), in_flight = 0, taken = 0, leases = 0, ahead = 0;
	struct seen *seen = calloc(1, sizeof(*seen));
	const bool none[LANES] = {false};

	assert_non_null(seen);
	for (unsigned turns = 0; taken < s->batch_n || cdc_window_records(w); turns++) {
		bool is_closed = turns >= stop_after;

		size_t lane = next(r, lanes);
		struct flight *f = &flights[lane];
		bool has_more;

		assert_true(turns < 1000000);
		if (turns == stop_after)
			cdc_window_close(w);
		if (is_closed && !in_flight && !cdc_window_has_gaps(w))
			break;
		if (!is_closed && taken < s->batch_n && next(r, 3) == 0)
			take(w, in, s->batches[taken++]);
		if (f->n) {
			/* Only what is in flight in this very request may be passed over. */
			for (size_t i = 0; i < f->n; i++)
				seen->was_out[index_of(s, f->items[i]->rec)] = false;
			if (next(r, 4) != 0) {
				for (size_t i = 0; i < f->n; i++) {
					seen->is_done[index_of(s, f->items[i]->rec)] = true;
					cdc_window_done(w, f->items[i]);
				}
			}
			f->n = 0;
			in_flight--;
		} else if (!is_closed && !in_flight && order == CDC_ORDER_KEY && next(r, 10) == 0) {
			/* One that failed is followed by a later one. */
			struct cdc_item *probe =
				cdc_window_probe(w, cdc_id_is_zero(&probed) ? NULL : &probed, none);

			probed = probe && next(r, 2) ? probe->rec->id : (struct cdc_id){0};
			if (probe)
				check_sent(s, seen, index_of(s, probe->rec), order);
			if (probe && cdc_id_is_zero(&probed)) {
				check_sent(s, seen, index_of(s, probe->rec), order);
				cdc_window_sent(probe);
				if (cdc_id_cmp(&probe->rec->id, &started) > 0)
					started = probe->rec->id;
				seen->is_done[index_of(s, probe->rec)] = true;
				cdc_window_done(w, probe);
			}
		} else {
			bool is_beside = !is_closed && order == CDC_ORDER_KEY && next(r, 3) == 0;

			f->n = (is_beside ? cdc_window_run_beside : cdc_window_run)(
				w, lane, 1 + next(r, MAX_RUN), 1000, f->items, &has_more);
			for (size_t i = 0; i < f->n; i++) {
				size_t at = index_of(s, f->items[i]->rec);

				assert_ptr_equal(s->records[at], f->items[i]->rec);
				assert_false(seen->is_done[at]);
				cdc_window_sent(f->items[i]);
				ahead += f->items[i]->is_ahead;
				if (cdc_id_cmp(&f->items[i]->rec->id, &started) > 0) {
					assert_false(is_closed);
					started = f->items[i]->rec->id;
				}
				if (f->items[i]->rec->flags & CDC_RECORD_BARRIER)
					assert_int_equal(f->n, 1);
				check_sent(s, seen, at, order);
				/* Visible to those behind it in this request only. */
				seen->was_out[at] = true;
			}
			for (size_t i = 0; i < f->n; i++)
				seen->was_out[index_of(s, f->items[i]->rec)] = false;
			in_flight += f->n != 0;
		}
		while (cdc_window_take_lease(in) ||
		       (order == CDC_ORDER_KEY && next(r, 2) && cdc_window_pass_lease(in)))
			leases++;
		check_position(s, seen, in);
	}
	if (stop_after == UINT32_MAX) {
		assert_int_equal(leases, s->batch_n);
		assert_int_equal(cdc_window_input_bytes(in), 0);
	} else {
		struct cdc_stream_position at = cdc_window_position(in);

		assert_true(cdc_id_cmp(&at.id, &started) >= 0);
	}
	free(seen);
	cdc_window_free(w);
	return ahead;
}

/* --- a table that is held and copied --------------------------------------------------- */

#define COPY_OF 0 /* the table */

/* Its rows as of a point of the stream, put where they must arrive: behind what is below it. */
static struct cdc_batch *copy_rows(struct stream *s, uint64_t point)
{
	struct cdc_batch *rows = cdc_batch_new(1 << 20);
	size_t at = 0;

	assert_non_null(rows);
	for (uint64_t key = 0; key < KEYS; key++) {
		add(rows, COPY_OF, key * TABLES + COPY_OF, point, 0, 0, CDC_OP_READ, 0);
		rows->records[key].id.range = 1;
		rows->records[key].id.row = (uint32_t)key + 1;
	}
	while (at < s->n && s->records[at]->id.commit_lsn < point)
		at++;
	memmove(&s->records[at + KEYS], &s->records[at], (s->n - at) * sizeof(s->records[0]));
	memmove(&s->table[at + KEYS], &s->table[at], (s->n - at) * sizeof(s->table[0]));
	for (size_t i = 0; i < KEYS; i++) {
		s->records[at + i] = &rows->records[i];
		s->table[at + i] = COPY_OF;
	}
	s->n += KEYS;
	return rows;
}

/* What a round of a backfill does, without threads. */
struct held {
	enum { BEFORE, BELOW, ROWS, AFTER, JOINED } stage;
	struct cdc_window_input *in, *copy;
	uint64_t point;
	size_t batch; /* the next it reads */
	bool is_cut;  /* of that one it has what lies below the point */
	struct cdc_batch *rows;
};

/* The held table's records of a batch with a commit LSN in [from, below). */
static void take_held(struct cdc_window *w, struct held *h, const struct cdc_batch *b,
		      uint64_t from, uint64_t below, const struct cdc_id *above)
{
	uint32_t index[RECORDS];
	struct cdc_read read = read_all(b, index);
	struct cdc_window_added added;

	read.n = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		const struct cdc_record *r = &b->records[i];
		const struct cdc_table_name *t = &b->tables[r->table];

		if (r->id.commit_lsn >= from && r->id.commit_lsn < below &&
		    b->names.data[t->off + 1] == '0' + COPY_OF && cdc_id_cmp(&r->id, above) > 0)
			index[read.n++] = i;
	}
	assert_int_equal(cdc_window_add(w, h->in, &read, &added, NULL), CDC_OK);
	assert_int_equal(added.selected, read.n);
}

static void turn_held(struct cdc_window *w, struct cdc_window_input *in, struct held *h,
		      struct stream *s, size_t taken, struct cdc_id *above, struct random *r)
{
	struct cdc_id through = cdc_window_through(in).id;

	switch (h->stage) {
	case BEFORE:
		if (taken && next(r, 20) == 0) {
			*above = through;
			assert_int_equal(cdc_window_hold(w, "t0", above, NULL), CDC_OK);
			h->in = input_of(w, CDC_INPUT_HELD);
			h->copy = input_of(w, CDC_INPUT_COPY);
			h->point = above->commit_lsn + 1 + next(r, 150);
			h->rows = copy_rows(s, h->point);
			h->batch = taken;
			h->stage = BELOW;
		}
		break;
	case BELOW:
		while (h->batch < s->batch_n) {
			const struct cdc_batch *b = s->batches[h->batch];

			take_held(w, h, b, 0, h->point, above);
			h->is_cut = b->records[b->n - 1].id.commit_lsn >= h->point;
			if (h->is_cut)
				break;
			h->batch++;
		}
		h->stage = ROWS;
		break;
	case ROWS:
		if (cdc_window_is_drained(w, "t0") && next(r, 4) == 0) {
			take(w, h->copy, h->rows);
			h->stage = AFTER;
		}
		break;
	case AFTER:
		if (h->is_cut || (h->batch < s->batch_n && next(r, 2) == 0))
			take_held(w, h, s->batches[h->batch++], h->point, UINT64_MAX, above);
		h->is_cut = false;
		through = cdc_window_through(h->in).id;
		/* Its reader may be ahead of the stream's, which then passes over what is done. */
		if (h->batch >= taken + next(r, 3) || h->batch == s->batch_n) {
			cdc_window_join(w, "t0", &through);
			h->stage = JOINED;
		}
		break;
	case JOINED:
		break;
	}
}

static void deliver_held(struct stream *s, struct random *r, bool has_apart)
{
	struct cdc_window *w = random_window(r, LANES, has_apart, CDC_ORDER_KEY);
	struct cdc_window_input *in = input_of(w, CDC_INPUT_STREAM);
	struct flight flights[2 * LANES] = {0};
	struct seen *seen = calloc(1, sizeof(*seen));
	struct held h = {0};
	struct cdc_id above = {0};
	size_t taken = 0, done = 0;
	const uint64_t pace = next(r, 2) ? 3 : 60; /* of the stream's reader */

	assert_non_null(seen);
	assert_int_equal(cdc_window_lanes(w), has_apart ? 2 * LANES : LANES);
	for (unsigned turns = 0; taken < s->batch_n || cdc_window_records(w) || h.stage != JOINED;
	     turns++) {
		struct flight *f = &flights[next(r, cdc_window_lanes(w))];
		bool has_more;

		assert_true(turns < 1000000);
		if (taken < s->batch_n && (next(r, pace) == 0 || h.stage == BEFORE))
			(void)take_some(w, in, s->batches[taken++]);
		turn_held(w, in, &h, s, taken, &above, r);
		if (!f->n) {
			f->n = cdc_window_run(w, (size_t)(f - flights), 1 + next(r, MAX_RUN), 1000,
					      f->items, &has_more);
			for (size_t i = 0; i < f->n; i++) {
				size_t at = index_of(s, f->items[i]->rec);

				assert_false(seen->is_done[at]);
				check_sent(s, seen, at, CDC_ORDER_KEY);
				cdc_window_sent(f->items[i]);
				seen->was_out[at] = true;
			}
			for (size_t i = 0; i < f->n; i++)
				seen->was_out[index_of(s, f->items[i]->rec)] = false;
			continue;
		}
		for (size_t i = 0; i < f->n && next(r, 4); i++) {
			seen->is_done[index_of(s, f->items[i]->rec)] = true;
			cdc_window_done(w, f->items[i]);
			done++;
		}
		f->n = 0;
	}
	assert_int_equal(done, s->n);
	while (cdc_window_take_lease(in) || cdc_window_take_lease(h.in) ||
	       cdc_window_take_lease(h.copy))
		;
	cdc_window_input_drop(w, h.copy);
	cdc_window_input_drop(w, h.in);
	free(seen);
	cdc_window_free(w);
	cdc_batch_free(h.rows);
}

static void order_holds_while_a_table_is_copied(void **state)
{
	struct stream *s = calloc(1, sizeof(*s));

	(void)state;
	assert_non_null(s);
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct random r = {.state = seed};

		print_message("seed %llu\n", (unsigned long long)seed);
		make_stream(s, &r, seed % 4 < 2);
		deliver_held(s, &r, seed % 2);
		for (size_t i = 0; i < s->batch_n; i++)
			cdc_batch_free(s->batches[i]);
	}
	free(s);
}

static void order_holds_however_requests_end(void **state)
{
	struct stream *s = calloc(1, sizeof(*s));
	size_t ahead = 0;

	(void)state;
	assert_non_null(s);
	for (uint64_t seed = 1; seed <= 90; seed++) {
		struct random r = {.state = seed};

		print_message("seed %llu\n", (unsigned long long)seed);
		make_stream(s, &r, seed % 5 != 0);
		ahead += deliver(s, &r, (enum cdc_order)(seed % 3),
				 seed % 2 ? UINT32_MAX : (unsigned)next(&r, 400));
		for (size_t i = 0; i < s->batch_n; i++)
			cdc_batch_free(s->batches[i]);
	}
	assert_true(ahead > 100);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_run_ends_at_its_limits),
		cmocka_unit_test(a_transaction_is_whole_or_split_at_a_limit),
		cmocka_unit_test(a_restart_in_a_transaction_begins_with_it),
		cmocka_unit_test(a_transaction_that_fills_the_window_goes_on),
		cmocka_unit_test(keys_spread_evenly_beside_one_with_many_records),
		cmocka_unit_test(a_key_of_a_stopped_table_goes_where_there_is_less_to_do),
		cmocka_unit_test(a_table_stops_no_earlier_than_its_input_has_come),
		cmocka_unit_test(what_is_not_selected_moves_the_checkpoint),
		cmocka_unit_test(nothing_but_its_key_waits_for_a_record_that_fails),
		cmocka_unit_test(bytes_of_records_that_were_written_anew_count),
		cmocka_unit_test(without_order_what_is_of_its_key_goes_beside_the_head),
		cmocka_unit_test(a_second_half_that_is_too_large_outlives_its_first),
		cmocka_unit_test(what_is_too_large_stands_aside),
		cmocka_unit_test(a_probe_is_the_oldest_record_of_another_key),
		cmocka_unit_test(halves_of_a_key_change_find_each_other_across_reads),
		cmocka_unit_test(a_second_half_alone_waits_for_nothing),
		cmocka_unit_test(halves_of_one_lane_go_in_one_request_and_never_the_second_alone),
		cmocka_unit_test(no_probe_passes_a_barrier_in_a_single_lane),
		cmocka_unit_test(a_record_of_a_small_table_goes_ahead_of_what_is_not_in_flight),
		cmocka_unit_test(
			groups_of_what_goes_ahead_leave_as_much_of_the_others_between_them),
		cmocka_unit_test(groups_are_of_a_request_by_bytes_too),
		cmocka_unit_test(what_goes_ahead_overtakes_nothing_of_its_key),
		cmocka_unit_test(a_table_that_grows_goes_ahead_no_more),
		cmocka_unit_test(barriers_and_what_they_hold_back_count_for_their_table),
		cmocka_unit_test(a_barrier_waits_for_what_went_ahead),
		cmocka_unit_test(what_is_ahead_may_leave_in_any_way),
		cmocka_unit_test(what_is_searched_for_a_refused_record_stays_together),
		cmocka_unit_test(halves_of_a_key_change_stay_together),
		cmocka_unit_test(a_sync_with_one_table_is_first_in_first_out),
		cmocka_unit_test(order_holds_however_requests_end),
		cmocka_unit_test(order_holds_while_a_table_is_copied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
