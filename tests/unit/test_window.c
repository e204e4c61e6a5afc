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

#include "cdc/pipeline/window.h"

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

static void take(struct cdc_window *w, const struct cdc_batch *b)
{
	uint32_t index[RECORDS];
	struct cdc_read read = read_all(b, index);
	size_t selected;

	assert_int_equal(cdc_window_add(w, &read, &selected, NULL), CDC_OK);
	assert_int_equal(selected, b->n);
}

/* --- single rules ------------------------------------------------------------------- */

static void a_run_ends_at_its_limits(void **state)
{
	struct cdc_window *w = cdc_window_new(1, CDC_ORDER_KEY, ALL, start);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[8];
	bool has_more;

	(void)state;
	for (uint32_t i = 1; i <= 6; i++)
		add(b, 0, i, 10, i, 1, CDC_OP_INSERT, 0);
	take(w, b);
	assert_int_equal(cdc_window_run(w, 0, 4, 1000, items, &has_more), 4);
	assert_true(has_more);
	assert_int_equal(cdc_window_run(w, 0, 8, 1000, items, &has_more), 6);
	assert_false(has_more);
	assert_int_equal(cdc_window_run(w, 0, 8, 40, items, &has_more), 2);
	assert_true(has_more);
	assert_int_equal(cdc_window_run(w, 0, 8, 1, items, &has_more), 1);
	cdc_window_free(w);
}

static void what_is_not_selected_moves_the_checkpoint(void **state)
{
	struct cdc_window *w = cdc_window_new(4, CDC_ORDER_KEY, 1u << CDC_OP_INSERT, start);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	uint32_t index[4];
	struct cdc_read read;
	size_t selected;

	(void)state;
	add(b, 0, 1, 10, 1, 1, CDC_OP_DELETE, 0);
	add(b, 0, 1, 10, 2, 1, CDC_OP_UPDATE, 0);
	read = read_all(b, index);
	assert_int_equal(cdc_window_add(w, &read, &selected, NULL), CDC_OK);
	assert_int_equal(selected, 0);
	assert_int_equal(cdc_window_position(w).id.ordinal, 2);
	assert_null(cdc_window_take_lease(w));
	cdc_window_free(w);
}

static void a_probe_is_the_oldest_record_of_another_key(void **state)
{
	struct cdc_window *w = cdc_window_new(2, CDC_ORDER_KEY, ALL, start);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	bool suspects[2] = {true, false};
	struct cdc_item *p;

	(void)state;
	add(b, 0, 2, 10, 1, 1, CDC_OP_INSERT, 0);
	add(b, 0, 2, 10, 2, 1, CDC_OP_UPDATE, 0);
	add(b, 0, 4, 10, 3, 1, CDC_OP_INSERT, 0);
	add(b, 0, 3, 10, 4, 1, CDC_OP_INSERT, 0);
	take(w, b);
	p = cdc_window_probe(w, NULL, suspects);
	assert_int_equal(p->rec->id.ordinal, 3); /* behind the suspect, in its lane */
	cdc_window_done(w, p);
	assert_int_equal(cdc_window_head(w, 0)->rec->id.ordinal, 1);
	assert_int_equal(cdc_window_position(w).id.ordinal, 0);
	p = cdc_window_probe(w, &b->records[0].id, suspects);
	assert_int_equal(p->rec->id.ordinal, 4); /* 2 is not the first of its key */
	assert_null(cdc_window_probe(w, &p->rec->id, suspects));
	suspects[0] = false;
	assert_int_equal(cdc_window_probe(w, NULL, suspects)->rec->id.ordinal, 1);
	cdc_window_free(w);
}

static void halves_of_a_key_change_find_each_other_across_reads(void **state)
{
	struct cdc_window *w = cdc_window_new(2, CDC_ORDER_KEY, ALL, start);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *a = cdc_batch_new(1 << 20);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[2];
	bool has_more;

	(void)state;
	add(a, 0, 2, 10, 1, 1, CDC_OP_DELETE, CDC_RECORD_MOVE_OLD);
	add(b, 0, 3, 10, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	take(w, a);
	take(w, b);
	assert_int_equal(cdc_window_run(w, 1, 2, 1000, items, &has_more), 0);
	assert_int_equal(cdc_window_run(w, 0, 2, 1000, items, &has_more), 1);
	cdc_window_done(w, items[0]);
	assert_int_equal(cdc_window_run(w, 1, 2, 1000, items, &has_more), 1);
	cdc_window_free(w);
}

static void a_second_half_alone_waits_for_nothing(void **state)
{
	struct cdc_window *w = cdc_window_new(2, CDC_ORDER_KEY, ALL, start);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_item *items[2];
	bool has_more;

	(void)state;
	add(b, 0, 3, 10, 1, 2, CDC_OP_UPDATE, CDC_RECORD_MOVE_NEW);
	take(w, b);
	assert_int_equal(cdc_window_run(w, 1, 2, 1000, items, &has_more), 1);
	cdc_window_free(w);
}

/* --- random streams ----------------------------------------------------------------- */

struct seen {
	bool is_done[RECORDS], was_out[RECORDS];
};

struct stream {
	struct cdc_batch *batches[RECORDS];
	size_t batch_n;
	const struct cdc_record *records[RECORDS];
	unsigned table[RECORDS];
	size_t n;
};

static size_t index_of(const struct cdc_record *rec)
{
	return (size_t)rec->id.commit_lsn - 1 + (rec->id.part == 2);
}

static void make_stream(struct stream *s, struct random *r)
{
	struct cdc_batch *b = NULL;

	s->n = s->batch_n = 0;
	while (s->n < RECORDS) {
		unsigned table = (unsigned)next(r, TABLES);
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

static void check_position(const struct stream *s, const struct seen *seen, struct cdc_window *w)
{
	struct cdc_stream_position at = cdc_window_position(w);
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

/* Sends, accepts and refuses at random until all is done; or, when it stops after some turns, until
 * the checkpoint has reached all that was sent. */
static void deliver(struct stream *s, struct random *r, enum cdc_order order, unsigned stop_after)
{
	struct cdc_id started = {0};
	struct cdc_window *w = cdc_window_new(LANES, order, ALL, start);
	struct flight flights[LANES] = {0};
	size_t lanes = cdc_window_lanes(w), in_flight = 0, taken = 0, leases = 0;
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
			cdc_window_close_above(w, &started);
		if (is_closed && !in_flight && !cdc_window_has_gaps(w))
			break;
		if (!is_closed && taken < s->batch_n && next(r, 3) == 0)
			take(w, s->batches[taken++]);
		if (f->n) {
			/* Only what is in flight in this very request may be passed over. */
			for (size_t i = 0; i < f->n; i++)
				seen->was_out[index_of(f->items[i]->rec)] = false;
			if (next(r, 4) != 0) {
				for (size_t i = 0; i < f->n; i++) {
					seen->is_done[index_of(f->items[i]->rec)] = true;
					cdc_window_done(w, f->items[i]);
				}
			}
			f->n = 0;
			in_flight--;
		} else if (!is_closed && !in_flight && order == CDC_ORDER_KEY && next(r, 10) == 0) {
			struct cdc_item *probe = cdc_window_probe(w, NULL, none);

			if (probe && next(r, 2)) {
				check_sent(s, seen, index_of(probe->rec), order);
				if (cdc_id_cmp(&probe->rec->id, &started) > 0)
					started = probe->rec->id;
				seen->is_done[index_of(probe->rec)] = true;
				cdc_window_done(w, probe);
			}
		} else {
			f->n = cdc_window_run(w, lane, 1 + next(r, MAX_RUN), 1000, f->items,
					      &has_more);
			for (size_t i = 0; i < f->n; i++) {
				size_t at = index_of(f->items[i]->rec);

				assert_ptr_equal(s->records[at], f->items[i]->rec);
				assert_false(seen->is_done[at]);
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
				seen->was_out[index_of(f->items[i]->rec)] = false;
			in_flight += f->n != 0;
		}
		while (cdc_window_take_lease(w))
			leases++;
		check_position(s, seen, w);
	}
	if (stop_after == UINT32_MAX) {
		assert_int_equal(leases, s->batch_n);
		assert_int_equal(cdc_window_bytes(w), 0);
	} else {
		struct cdc_stream_position at = cdc_window_position(w);

		assert_true(cdc_id_cmp(&at.id, &started) >= 0);
	}
	free(seen);
	cdc_window_free(w);
}

static void order_holds_however_requests_end(void **state)
{
	struct stream *s = calloc(1, sizeof(*s));

	(void)state;
	assert_non_null(s);
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct random r = {.state = seed};

		print_message("seed %llu\n", (unsigned long long)seed);
		make_stream(s, &r);
		deliver(s, &r, (enum cdc_order)(seed % 3),
			seed % 2 ? UINT32_MAX : (unsigned)next(&r, 400));
		for (size_t i = 0; i < s->batch_n; i++)
			cdc_batch_free(s->batches[i]);
	}
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_run_ends_at_its_limits),
		cmocka_unit_test(what_is_not_selected_moves_the_checkpoint),
		cmocka_unit_test(a_probe_is_the_oldest_record_of_another_key),
		cmocka_unit_test(halves_of_a_key_change_find_each_other_across_reads),
		cmocka_unit_test(a_second_half_alone_waits_for_nothing),
		cmocka_unit_test(order_holds_however_requests_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
