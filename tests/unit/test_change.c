/* Messages in their order become records with the right ids; full batches lose and repeat nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/source/change.h"
#include "tests/unit/wire.h"

#define GENERATION 3

struct fixture {
	struct cdc_lookup lookup; /* never asked: every type is built in */
	struct cdc_catalog *catalog;
	struct cdc_timelines timelines;
	struct cdc_changes changes;
	struct pgo_decoder decoder;
	struct cdc_buf wire;
	struct cdc_batch *batch;
	struct cdc_err err;
};

static void start(struct fixture *f, cdc_lsn lsn)
{
	cdc_changes_begin(&f->changes, f->catalog, &f->timelines, lsn, GENERATION);
}

static int set_up(void **state)
{
	static const char history[] = "1\t0/150\tfailover\n";
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	cdc_lookup_init(&f->lookup, NULL, "test", NULL);
	f->catalog = cdc_catalog_new(&f->lookup);
	f->batch = cdc_batch_new(1 << 20);
	pgo_init(&f->decoder);
	cdc_buf_init(&f->wire, 1 << 20);
	*state = f;
	if (!f->catalog || !f->batch ||
	    cdc_timelines_parse(&f->timelines, history, strlen(history), 2, NULL))
		return -1;
	start(f, 0x100);
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	cdc_catalog_free(f->catalog);
	cdc_batch_free(f->batch);
	cdc_timelines_clear(&f->timelines);
	pgo_clear(&f->decoder);
	cdc_buf_clear(&f->wire);
	free(f);
	return 0;
}

/* Takes the message that is in the wire; it stays there. */
static enum cdc_code take(struct fixture *f)
{
	struct pgo_message m;

	assert_int_equal(pgo_decode(&f->decoder, f->wire.data, f->wire.len, &m, NULL), CDC_OK);
	return cdc_changes_take(&f->changes, &m, 0x99, f->batch, &f->err);
}

static void expect(struct fixture *f, enum cdc_code code)
{
	assert_int_equal(take(f), code);
	f->wire.len = 0;
}

static void begin(struct fixture *f, cdc_lsn commit_lsn)
{
	wire_begin(&f->wire, commit_lsn, 77);
	expect(f, CDC_OK);
}

static void commit(struct fixture *f, cdc_lsn commit_lsn)
{
	wire_commit(&f->wire, commit_lsn, commit_lsn + 8);
	expect(f, CDC_OK);
}

static void relation(struct fixture *f, uint32_t relid, const char *name, const char *columns)
{
	wire_relation(&f->wire, relid, name, 'd', columns);
	expect(f, CDC_OK);
}

/* The record at index i has this id (text) and, up to position, these members. */
static void expect_record(const struct fixture *f, size_t i, const char *id, const char *members)
{
	static const char after[] = ",\"position\":\"0/99\",\"commit\":{\"lsn\":\"0/";
	const struct cdc_record *r = &f->batch->records[i];
	const char *json = (const char *)f->batch->json.data + r->json_off;
	char text[CDC_ID_TEXT];

	assert_in_range(i, 0, f->batch->n - 1);
	(void)cdc_id_format(&r->id, text);
	assert_string_equal(text, id);
	assert_memory_equal(json, "{\"id\":\"", 7);
	assert_memory_equal(json + 7 + strlen(id), "\",", 2);
	json += 9 + strlen(id);
	assert_memory_equal(json, members, strlen(members));
	json += strlen(members);
	assert_memory_equal(json, after, strlen(after));
}

static void a_transaction_becomes_records_with_ordinals(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	relation(f, 1, "t", "Ab");
	wire_insert(&f->wire, 1, "1n");
	expect(f, CDC_OK);
	wire_message(&f->wire, 1, 5, "p", "counted");
	expect(f, CDC_OK);
	wire_update(&f->wire, 1, 0, NULL, "12");
	expect(f, CDC_OK);
	wire_update(&f->wire, 1, 'K', "1n", "22");
	expect(f, CDC_OK);
	wire_delete(&f->wire, 1, 'K', "2n");
	expect(f, CDC_OK);
	commit(f, 0x120);
	assert_int_equal(f->batch->n, 5);
	expect_record(f, 0, "03000001-0000000000000120-00000001-0001",
		      "\"operation\":\"insert\",\"schema\":\"public.t\",\"key\":{\"a\":1},"
		      "\"fields\":{\"a\":1,\"b\":null}");
	expect_record(f, 1, "03000001-0000000000000120-00000003-0001",
		      "\"operation\":\"update\",\"schema\":\"public.t\",\"key\":{\"a\":1},"
		      "\"fields\":{\"a\":1,\"b\":2}");
	expect_record(f, 2, "03000001-0000000000000120-00000004-0001",
		      "\"operation\":\"delete\",\"schema\":\"public.t\",\"key\":{\"a\":1},"
		      "\"fields\":{\"a\":1}");
	expect_record(f, 3, "03000001-0000000000000120-00000004-0002",
		      "\"operation\":\"update\",\"schema\":\"public.t\",\"key\":{\"a\":2},"
		      "\"fields\":{\"a\":2,\"b\":2},\"changes\":{\"a\":1}");
	expect_record(f, 4, "03000001-0000000000000120-00000005-0001",
		      "\"operation\":\"delete\",\"schema\":\"public.t\",\"key\":{\"a\":2},"
		      "\"fields\":{\"a\":2}");
	assert_int_equal(f->batch->end_n, 1);
	assert_int_equal(f->batch->ends[0].count, 5);
	assert_int_equal(f->batch->ends[0].commit_lsn, 0x120);
	assert_int_equal(f->batch->ends[0].end_lsn, 0x128);
}

static void an_unchanged_value_is_named(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	relation(f, 1, "t", "Ab");
	wire_update(&f->wire, 1, 0, NULL, "1u");
	expect(f, CDC_OK);
	expect_record(f, 0, "03000001-0000000000000120-00000001-0001",
		      "\"operation\":\"update\",\"schema\":\"public.t\",\"key\":{\"a\":1},"
		      "\"fields\":{\"a\":1},\"unchanged\":[\"b\"]");
}

static void a_whole_old_row_gives_changes_and_the_unchanged_value(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	relation(f, 1, "t", "Abc");
	wire_update(&f->wire, 1, 'O', "15n", "1u7");
	expect(f, CDC_OK);
	expect_record(f, 0, "03000001-0000000000000120-00000001-0001",
		      "\"operation\":\"update\",\"schema\":\"public.t\",\"key\":{\"a\":1},"
		      "\"fields\":{\"a\":1,\"b\":5,\"c\":7},\"changes\":{\"c\":null}");
}

/* What a leaf's key lacks of the root's is unknown. */
static void a_null_in_a_key_is_left_out(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	relation(f, 1, "t", "ABc");
	wire_delete(&f->wire, 1, 'K', "1nn");
	expect(f, CDC_OK);
	expect_record(f, 0, "03000001-0000000000000120-00000001-0001",
		      "\"operation\":\"delete\",\"schema\":\"public.t\",\"key\":null,"
		      "\"fields\":{\"a\":1}");
	wire_update(&f->wire, 1, 'K', "nnn", "123");
	expect(f, CDC_OK);
	expect_record(f, 1, "03000001-0000000000000120-00000002-0001",
		      "\"operation\":\"update\",\"schema\":\"public.t\",\"key\":{\"a\":1,\"b\":2},"
		      "\"fields\":{\"a\":1,\"b\":2,\"c\":3},\"changes\":{}");
}

static void a_row_without_columns_is_a_row(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	relation(f, 1, "t", "");
	wire_delete(&f->wire, 1, 'O', "");
	expect(f, CDC_OK);
	expect_record(f, 0, "03000001-0000000000000120-00000001-0001",
		      "\"operation\":\"delete\",\"schema\":\"public.t\",\"key\":null,"
		      "\"fields\":{}");
}

static void a_row_follows_the_last_description_of_its_table(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	relation(f, 1, "t", "Ab");
	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_OK);
	relation(f, 1, "t", "Ab"); /* says nothing new */
	wire_insert(&f->wire, 1, "23");
	expect(f, CDC_OK);
	relation(f, 1, "renamed", "aCb");
	wire_insert(&f->wire, 1, "345");
	expect(f, CDC_OK);
	expect_record(f, 1, "03000001-0000000000000120-00000002-0001",
		      "\"operation\":\"insert\",\"schema\":\"public.t\",\"key\":{\"a\":2},"
		      "\"fields\":{\"a\":2,\"b\":3}");
	expect_record(f, 2, "03000001-0000000000000120-00000003-0001",
		      "\"operation\":\"insert\",\"schema\":\"public.renamed\",\"key\":{\"c\":4},"
		      "\"fields\":{\"a\":3,\"c\":4,\"b\":5}");
}

static void the_epoch_names_the_timeline_of_the_commit(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->changes.epoch, 0x03000001);
	begin(f, 0x14f);
	assert_int_equal(f->changes.epoch, 0x03000001);
	commit(f, 0x14f);
	begin(f, 0x150);
	assert_int_equal(f->changes.epoch, 0x03000002);
	commit(f, 0x150);
	assert_true(cdc_changes_idle(&f->changes, 0x160));
	assert_int_equal(f->changes.epoch, 0x03000002);
}

static void what_ended_before_the_start_is_not_made_again(void **state)
{
	struct fixture *f = *state;

	begin(f, 0xff);
	relation(f, 1, "t", "Ab");
	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_OK);
	commit(f, 0xff);
	assert_int_equal(f->batch->n, 0);
	assert_int_equal(f->batch->end_n, 0);
	/* A commit record that starts at the start is the first that is not over. */
	begin(f, 0x100);
	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_OK);
	commit(f, 0x100);
	assert_int_equal(f->batch->n, 1);
	assert_int_equal(f->batch->end_n, 1);
}

static void idle_is_only_between_transactions_and_after_the_start(void **state)
{
	struct fixture *f = *state;

	assert_false(cdc_changes_idle(&f->changes, 0xff));
	assert_true(cdc_changes_idle(&f->changes, 0x100));
	begin(f, 0x120);
	assert_false(cdc_changes_idle(&f->changes, 0x120));
	commit(f, 0x120);
	assert_true(cdc_changes_idle(&f->changes, 0x128));
}

static void an_empty_transaction_has_an_end(void **state)
{
	struct fixture *f = *state;

	for (cdc_lsn lsn = 0x110; lsn < 0x140; lsn += 16) {
		begin(f, lsn);
		commit(f, lsn);
	}
	assert_int_equal(f->batch->n, 0);
	assert_int_equal(f->batch->end_n, 1); /* the last says it all */
	assert_int_equal(f->batch->ends[0].end_lsn, 0x138);
}

static void use_small_batch(struct fixture *f, size_t bytes)
{
	cdc_batch_free(f->batch);
	f->batch = cdc_batch_new(bytes);
	assert_non_null(f->batch);
}

static void a_change_that_does_not_fit_goes_into_the_next_batch(void **state)
{
	struct fixture *f = *state;
	size_t taken = 0;

	use_small_batch(f, 1000);
	begin(f, 0x120);
	relation(f, 1, "t", "Ab");
	wire_insert(&f->wire, 1, "12");
	while (take(f) == CDC_OK)
		taken++;
	assert_int_equal(take(f), CDC_BUSY);
	assert_int_equal(f->batch->n, taken);
	cdc_batch_reset(f->batch, SIZE_MAX);
	expect(f, CDC_OK);
	assert_int_equal(f->batch->n, 1);
	assert_int_equal(f->batch->records[0].id.ordinal, taken + 1);
}

static void a_change_that_fits_no_batch_is_named(void **state)
{
	struct fixture *f = *state;

	use_small_batch(f, 100);
	begin(f, 0x120);
	relation(f, 1, "t", "Ab");
	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_LIMIT);
	assert_non_null(strstr(f->err.msg, "public.t"));
}

/* Of a row and of a message; it is counted, and has the id that it would have had. */
static void a_record_above_the_limit_becomes_a_stand_in(void **state)
{
	char p[] = "p", *items[] = {p};
	const struct cdc_opt_strs prefixes = {.items = items, .n = 1};
	struct fixture *f = *state;
	char large[500];

	memset(large, '1', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	f->changes.prefixes = &prefixes;
	f->changes.max_record_bytes = 400;
	begin(f, 0x120);
	relation(f, 1, "t", "Ab");
	wire_message(&f->wire, 1, 0x110, "p", "small");
	expect(f, CDC_OK);
	wire_message(&f->wire, 1, 0x110, "p", large);
	expect(f, CDC_OK);
	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_OK);
	commit(f, 0x120);
	wire_message(&f->wire, 0, 0x130, "p", large);
	expect(f, CDC_OK);
	assert_int_equal(f->batch->n, 4);
	assert_int_equal(f->changes.too_large, 2);
	for (size_t i = 0; i < 4; i++) {
		const struct cdc_record *r = &f->batch->records[i];

		assert_int_equal((r->flags & CDC_RECORD_TOO_LARGE) != 0, i == 1 || i == 3);
		assert_int_equal(r->id.ordinal, i == 3 ? 0 : i + 1);
		assert_int_equal(r->id.part, 1);
	}
	/* A limit that not even a small row keeps. */
	f->changes.max_record_bytes = 100;
	begin(f, 0x140);
	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_OK);
	assert_int_equal(f->changes.too_large, 3);
	assert_int_equal(f->batch->records[4].flags, CDC_RECORD_TOO_LARGE);
	assert_int_equal(f->batch->records[4].key.len, strlen("{\"a\":1}"));
}

static void a_truncate_is_numbered_over_batches(void **state)
{
	static const uint32_t relids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
	const size_t n = sizeof(relids) / sizeof(relids[0]);
	struct fixture *f = *state;
	size_t seen = 0;
	enum cdc_code rc;

	use_small_batch(f, 1000);
	begin(f, 0x120);
	for (size_t i = 0; i < n; i++) {
		const char name[] = {(char)('a' + i), '\0'};

		relation(f, relids[i], name, "Ab");
	}
	wire_truncate(&f->wire, (uint32_t)n, relids, 0);
	do {
		rc = take(f);
		assert_true(rc == CDC_OK || rc == CDC_BUSY);
		for (size_t i = 0; i < f->batch->n; i++) {
			const struct cdc_view v = {.rec = &f->batch->records[i], .batch = f->batch};
			size_t len;

			assert_int_equal(cdc_view_table(v, &len)[len - 1], 'a' + seen);
			assert_int_equal(v.rec->id.ordinal, 1);
			assert_int_equal(v.rec->id.part, ++seen);
			assert_int_equal(v.rec->flags & CDC_RECORD_BARRIER, CDC_RECORD_BARRIER);
		}
		cdc_batch_reset(f->batch, SIZE_MAX);
	} while (rc == CDC_BUSY);
	assert_int_equal(seen, n);
	f->wire.len = 0;
	wire_truncate(&f->wire, 1, relids, 0);
	expect(f, CDC_OK);
	assert_int_equal(f->batch->records[0].id.ordinal, 2);
	assert_int_equal(f->batch->records[0].id.part, 1);
}

static void a_message_of_no_transaction_is_one_by_itself(void **state)
{
	char other[] = "other", p[] = "p", *items[] = {other, p};
	const struct cdc_opt_strs prefixes = {.items = items, .n = 2};
	static const char members[] =
		"\"operation\":\"message\",\"schema\":\"pg_message.p\",\"key\":null,\"fields\":{"
		"\"prefix\":\"p\",\"transactional\":%s,\"encoding\":\"text\",\"content\":\"x\"}";
	struct fixture *f = *state;
	char text[256];

	f->changes.prefixes = &prefixes;
	for (cdc_lsn lsn = 0x80; lsn <= 0x100; lsn += 0x40) { /* read before the stream began */
		wire_message(&f->wire, 0, lsn, "p", "x");
		expect(f, CDC_OK);
	}
	assert_int_equal(f->batch->n, 0);
	wire_message(&f->wire, 0, 0x120, "q", "not asked for");
	expect(f, CDC_OK);
	assert_int_equal(f->batch->n + f->batch->end_n, 0);
	/* It ends where the timeline does: written on the old one. */
	wire_message(&f->wire, 0, 0x150, "p", "x");
	expect(f, CDC_OK);
	assert_int_equal(f->batch->n, 1);
	assert_int_equal(f->batch->records[0].id.epoch, 0x03000001);
	assert_int_equal(f->batch->records[0].id.commit_lsn, 0x150);
	assert_int_equal(f->batch->records[0].id.ordinal, 0);
	assert_int_equal(f->batch->records[0].id.part, 1);
	assert_int_equal(f->batch->ends[0].end_lsn, 0x150);
	assert_false(cdc_batch_is_open(f->batch));
	begin(f, 0x150);
	wire_message(&f->wire, 1, 0x148, "q", "counts");
	expect(f, CDC_OK);
	wire_message(&f->wire, 1, 0x149, "p", "x");
	expect(f, CDC_OK);
	(void)snprintf(text, sizeof(text), members, "true");
	expect_record(f, 1, "03000002-0000000000000150-00000002-0001", text);
	assert_true(cdc_batch_is_open(f->batch));
	assert_true(cdc_id_cmp(&f->batch->records[0].id, &f->batch->records[1].id) < 0);
}

static void messages_out_of_place_are_refused(void **state)
{
	static const uint32_t relid = 1;
	struct fixture *f = *state;

	wire_insert(&f->wire, 1, "12");
	expect(f, CDC_PROTO);
	wire_truncate(&f->wire, 1, &relid, 0);
	expect(f, CDC_PROTO);
	wire_message(&f->wire, 1, 5, "p", "x");
	expect(f, CDC_PROTO);
	wire_commit(&f->wire, 0x120, 0x128);
	expect(f, CDC_PROTO);
	begin(f, 0x120);
	wire_message(&f->wire, 0, 5, "p", "x"); /* of no transaction, within one */
	expect(f, CDC_PROTO);
	wire_begin(&f->wire, 0x130, 78);
	expect(f, CDC_PROTO);
	wire_commit(&f->wire, 0x130, 0x138); /* of another transaction */
	expect(f, CDC_PROTO);
	wire_insert(&f->wire, 1, "12"); /* not described */
	expect(f, CDC_PROTO);
	wire_truncate(&f->wire, 1, &relid, 0);
	expect(f, CDC_PROTO);
	relation(f, 1, "t", "Ab");
	wire_insert(&f->wire, 1, "123"); /* more columns than it has */
	expect(f, CDC_PROTO);
	wire_update(&f->wire, 1, 'O', "1", "12");
	expect(f, CDC_PROTO);
	wire_insert(&f->wire, 1, "x2"); /* is no number, and stays a text */
	expect(f, CDC_OK);
}

static void a_new_stream_knows_no_table(void **state)
{
	struct fixture *f = *state;

	begin(f, 0x120);
	for (uint32_t relid = 1; relid <= 500; relid++)
		relation(f, relid * 3, "t", "Ab");
	for (uint32_t relid = 1; relid <= 500; relid++)
		assert_int_equal(cdc_catalog_find(f->catalog, relid * 3)->relid, relid * 3);
	assert_null(cdc_catalog_find(f->catalog, 1));
	start(f, 0x100);
	assert_null(cdc_catalog_find(f->catalog, 3));
	assert_false(f->changes.is_open);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_transaction_becomes_records_with_ordinals),
		TEST(an_unchanged_value_is_named),
		TEST(a_whole_old_row_gives_changes_and_the_unchanged_value),
		TEST(a_null_in_a_key_is_left_out),
		TEST(a_row_without_columns_is_a_row),
		TEST(a_row_follows_the_last_description_of_its_table),
		TEST(the_epoch_names_the_timeline_of_the_commit),
		TEST(what_ended_before_the_start_is_not_made_again),
		TEST(idle_is_only_between_transactions_and_after_the_start),
		TEST(an_empty_transaction_has_an_end),
		TEST(a_change_that_does_not_fit_goes_into_the_next_batch),
		TEST(a_change_that_fits_no_batch_is_named),
		TEST(a_record_above_the_limit_becomes_a_stand_in),
		TEST(a_truncate_is_numbered_over_batches),
		TEST(a_message_of_no_transaction_is_one_by_itself),
		TEST(messages_out_of_place_are_refused),
		TEST(a_new_stream_knows_no_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
