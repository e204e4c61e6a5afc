/* The span scanner: it finds again what the writer made, and damage never leads it outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/scan.h"
#include "cdc/record/writer.h"

#define ROUNDS 64 /* changes of each operation */

static const struct cdc_column columns[] = {
	{.name = "id", .is_key = true},
	{.name = "quo\"te"},
	{.name = "naïve", .is_key = true},
	{.name = "doc"},
	{.name = ""},
};

#define COLUMNS (sizeof(columns) / sizeof(*columns))

/* Texts that look like JSON's own punctuation, in a json column with white space of its own. */
static const char *const texts[] = {"1", "\"},{\\", "}\n]", " {\"a\" : [1, \"}\"] } ", "{,}"};

static struct cdc_shape *new_shape(void)
{
	struct cdc_column typed[COLUMNS];
	struct cdc_shape *s;

	for (size_t i = 0; i < COLUMNS; i++) {
		typed[i] = columns[i];
		typed[i].type = cdc_type_scalar(i == 3 ? CDC_KIND_JSON : CDC_KIND_TEXT);
	}
	s = cdc_shape_new("pub\"lic", "t", typed, COLUMNS);
	assert_non_null(s);
	return s;
}

/* The n-th of a series of rows in which every column is text, null, unchanged and absent. */
static void fill_row(struct cdc_value *row, unsigned n)
{
	for (unsigned i = 0; i < COLUMNS; i++) {
		unsigned kind = (n >> i) % 4;

		row[i] = (struct cdc_value){.kind = i == 0 || i == 2 ? CDC_VALUE_TEXT
						    : kind == 1      ? CDC_VALUE_NULL
						    : kind == 2      ? CDC_VALUE_UNCHANGED
								     : CDC_VALUE_TEXT,
					    .text = texts[i],
					    .len = (uint32_t)strlen(texts[i])};
	}
}

/* Every operation of the writer, with every shape of its parts; the caller frees. */
static struct cdc_batch *written_batch(void)
{
	static const enum cdc_op ops[] = {CDC_OP_INSERT, CDC_OP_UPDATE, CDC_OP_DELETE,
					  CDC_OP_TRUNCATE, CDC_OP_READ};
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_shape *s = new_shape();

	assert_non_null(b);
	for (unsigned n = 0; n < ROUNDS * 5; n++) {
		struct cdc_value row[COLUMNS], old[COLUMNS];
		struct cdc_change c = {
			.shape = s,
			.op = ops[n % 5],
			.id = {.epoch = 1, .commit_lsn = n + 1, .ordinal = n + 1, .part = 1},
			.position = n,
			.xid = n % 3,
			.commit_us = (int64_t)(n % 2) * INT64_C(1767225600000001),
			.old_is_full = n % 7 < 3};

		fill_row(row, n);
		fill_row(old, n / 5);
		if (n % 11 == 0)
			old[0].text = "2"; /* a changed key */
		if (c.op == CDC_OP_INSERT || c.op == CDC_OP_UPDATE || c.op == CDC_OP_READ)
			c.row = row;
		if (c.op == CDC_OP_DELETE || (c.op == CDC_OP_UPDATE && n % 4))
			c.old = old;
		if (c.op == CDC_OP_READ) {
			c.id = (struct cdc_id){.epoch = 1, .commit_lsn = 9, .range = 1, .row = n};
			c.xid = 0;
		}
		assert_int_equal(cdc_write_change(b, &c, NULL), CDC_OK);
	}
	assert_true(b->n > ROUNDS * 5);
	cdc_shape_free(s);
	return b;
}

/* The record alone, in memory of exactly its size. */
static char *copy_of(const struct cdc_batch *b, size_t i)
{
	char *copy = malloc(b->records[i].json_len);

	assert_non_null(copy);
	memcpy(copy, cdc_view_json((struct cdc_view){.rec = &b->records[i], .batch = b}),
	       b->records[i].json_len);
	return copy;
}

static void every_position_of_the_writer_is_found_again(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written_batch();
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *found = cdc_batch_new(1 << 20);

	(void)state;
	assert_non_null(found);
	for (size_t i = 0; i < b->n; i++) {
		char *json = copy_of(b, i);
		struct cdc_err err = {0};

		if (cdc_scan_record(found, json, b->records[i].json_len, &err))
			fail_msg("%s: %.*s", err.msg, (int)b->records[i].json_len, json);
		free(json);
	}
	assert_int_equal(found->n, b->n);
	assert_int_equal(found->json.len, b->json.len);
	assert_memory_equal(found->json.data, b->json.data, b->json.len);
	assert_int_equal(found->col_n, b->col_n);
	assert_memory_equal(found->col_ends, b->col_ends, b->col_n * sizeof(*b->col_ends));
	for (size_t i = 0; i < b->n; i++) {
		struct cdc_record want = b->records[i];

		/* What does not show in the JSON. */
		want.flags &= (uint8_t) ~(CDC_RECORD_MOVE_OLD | CDC_RECORD_OLD_ROW);
		assert_memory_equal(&found->records[i], &want, sizeof(want));
	}
	assert_int_equal(found->table_n, 1);
	assert_memory_equal(found->names.data, "pub\"lic.t", 9);
}

static void ends_of_columns_are_where_the_members_end(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written_batch();

	(void)state;
	for (size_t i = 0; i < b->n; i++) {
		const struct cdc_record *r = &b->records[i];
		const char *json = cdc_view_json((struct cdc_view){.rec = r, .batch = b});
		struct cdc_scan s;
		struct cdc_member m;
		size_t n = 0;

		if (r->fields.len == 4)
			continue; /* null */
		cdc_scan_begin(&s, json, r->json_len, r->fields);
		while (cdc_scan_next(&s, &m)) {
			assert_int_equal(m.value.off + m.value.len - r->fields.off,
					 b->col_ends[r->col_first + n]);
			n++;
		}
		assert_false(s.is_bad);
		assert_int_equal(n, r->cols);
	}
}

static void assert_inside(struct cdc_span span, size_t len)
{
	assert_true(span.off <= len && span.len <= len - span.off);
}

/* Whatever the bytes are, nothing that is given out lies outside; a record, if they are one. */
static void scan_all(struct cdc_batch *scratch, const char *bytes, size_t len)
{
	char *json = malloc(len ? len : 1), text[64];
	struct cdc_scan s;
	struct cdc_member m;
	size_t n;

	assert_non_null(json);
	memcpy(json, bytes, len);
	cdc_scan_begin(&s, json, len, (struct cdc_span){.len = (uint32_t)len});
	while (cdc_scan_next(&s, &m)) {
		assert_inside(m.name, len);
		assert_inside(m.value, len);
		(void)cdc_scan_text(json, m.name, text, sizeof(text), &n);
	}
	if (cdc_scan_record(scratch, json, len, NULL) == CDC_OK) {
		const struct cdc_record *r = &scratch->records[scratch->n - 1];

		assert_int_equal(r->json_len, len);
		assert_inside(r->key, len);
		assert_inside(r->fields, len);
		assert_inside(r->changes, len);
		assert_inside(r->unchanged, len);
		for (size_t i = 0; i < r->cols; i++)
			assert_true(scratch->col_ends[r->col_first + i] <= r->fields.len);
	}
	cdc_batch_reset(scratch, SIZE_MAX);
	free(json);
}

static void damaged_record_never_leads_outside(void **state)
{
	static const char bytes[] = "{}[]\",:\\ue0n\n ";
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written_batch();
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *scratch = cdc_batch_new(1 << 20);

	(void)state;
	assert_non_null(scratch);
	for (size_t i = 0; i < b->n; i += 13) {
		char *json = copy_of(b, i);
		size_t len = b->records[i].json_len;

		for (size_t at = 0; at < len; at++) {
			char was = json[at];

			if (at) {
				assert_int_not_equal(cdc_scan_record(scratch, json, at, NULL),
						     CDC_OK);
				scan_all(scratch, json, at);
			}
			for (const char *c = bytes; *c; c++) {
				json[at] = *c;
				scan_all(scratch, json, len);
			}
			json[at] = was;
		}
		free(json);
	}
}

#define GOOD_ID "\"id\":\"00000001-0000000000000001-00000001-0001\""
#define REST                                                                                       \
	"\"schema\":\"public.t\",\"key\":{\"a\":1},\"fields\":{\"a\":1},\"commit\":{\"time\":"     \
	"null}"

static void members_may_stand_in_any_order_with_unknown_ones_between(void **state)
{
	static const char json[] =
		"{ \"fields\":{\"a\": 1 , \"b\":[1 ,{}]},\"new\" : "
		"[{\"id\":3}],\"commit\":{\"x\":1,"
		"\"time\":\"1970-01-01T00:00:00.000005Z\"},\"operation\":\"schema\",\"key\":null,"
		"\"schema\":\"p\\u0075blic.\\u00e9\\ud83d\\ude00\"," GOOD_ID "}";
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);
	const struct cdc_record *r;

	(void)state;
	assert_non_null(b);
	assert_int_equal(cdc_scan_record(b, json, strlen(json), NULL), CDC_OK);
	r = b->records;
	assert_int_equal(r->op, CDC_OP_SCHEMA);
	assert_int_equal(r->flags, CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY);
	assert_true(r->commit_us == 5);
	assert_int_equal(r->id.part, 1);
	assert_int_equal(r->cols, 2);
	assert_int_equal(b->names.len, strlen("public.é😀"));
	assert_memory_equal(b->names.data, "public.é😀", strlen("public.é😀"));
}

static void what_is_no_record_is_refused_and_leaves_nothing(void **state)
{
	static const char *const records[] = {
		"",
		"{}",
		"null",
		"[]",
		" {" GOOD_ID ",\"operation\":\"insert\"," REST "}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST "} ",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST "",
		"{" GOOD_ID ",\"operation\":\"upsert\"," REST "}",
		"{" GOOD_ID ",\"operation\": \"insert\"," REST "}",
		"{" GOOD_ID ",\"operation\":3," REST "}",
		"{\"id\":\"1\",\"operation\":\"insert\"," REST "}",
		"{\"id\":7,\"operation\":\"insert\"," REST "}",
		"{\"operation\":\"insert\"," REST "}",
		"{" GOOD_ID "," REST "}",
		"{" GOOD_ID "," GOOD_ID ",\"operation\":\"insert\"," REST "}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"key\":null}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"changes\":[]}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"unchanged\":{}}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"x\":01}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"x\":nul}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"x\":\"\\x\"}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"x\":\"\n\"}",
		"{" GOOD_ID ",\"operation\":\"insert\"," REST ",\"x\":[1}]}",
		"{" GOOD_ID ",\"operation\":\"insert\",\"schema\":\"t\\ud83d\",\"key\":null,"
		"\"fields\":null,\"commit\":{\"time\":null}}",
		"{" GOOD_ID ",\"operation\":\"insert\",\"schema\":\"t\",\"key\":null,"
		"\"fields\":[],\"commit\":{\"time\":null}}",
		"{" GOOD_ID ",\"operation\":\"insert\",\"schema\":\"t\",\"key\":null,"
		"\"fields\":{\"a\":1,},\"commit\":{\"time\":null}}",
		"{" GOOD_ID ",\"operation\":\"insert\",\"schema\":\"t\",\"key\":null,"
		"\"fields\":null,\"commit\":{\"time\":\"today\"}}",
		"{" GOOD_ID ",\"operation\":\"insert\",\"schema\":\"t\",\"key\":null,"
		"\"fields\":null,\"commit\":{}}",
		"{" GOOD_ID ",\"operation\":\"insert\",\"schema\":\"t\",\"key\":null,"
		"\"fields\":null}",
	};
	static const char good[] = "{" GOOD_ID ",\"operation\":\"insert\"," REST "}";
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 20);

	(void)state;
	assert_non_null(b);
	for (size_t i = 0; i < sizeof(records) / sizeof(*records); i++) {
		if (cdc_scan_record(b, records[i], strlen(records[i]), NULL) != CDC_PROTO)
			fail_msg("taken: %s", records[i]);
		assert_int_equal(b->n, 0);
		assert_int_equal(b->json.len, 0);
		assert_int_equal(b->table_n, 0);
		assert_int_equal(b->names.len, 0);
		assert_int_equal(b->col_n, 0);
	}
	assert_int_equal(cdc_scan_record(b, good, strlen(good), NULL), CDC_OK);
}

static void record_that_does_not_fit_leaves_the_batch_as_it_was(void **state)
{
	static const char good[] = "{" GOOD_ID ",\"operation\":\"insert\"," REST "}";
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(strlen(good) * 2 - 1);

	(void)state;
	assert_non_null(b);
	assert_int_equal(cdc_scan_record(b, good, strlen(good), NULL), CDC_OK);
	assert_int_equal(cdc_scan_record(b, good, strlen(good), NULL), CDC_LIMIT);
	assert_int_equal(b->n, 1);
	assert_int_equal(b->json.len, strlen(good));
	assert_int_equal(b->col_n, 1);
}

/* Counts the elements; -1: bad. */
static int count(const char *json)
{
	struct cdc_scan s;
	struct cdc_member m;
	int n = 0;

	cdc_scan_begin(&s, json, strlen(json), (struct cdc_span){.len = (uint32_t)strlen(json)});
	while (cdc_scan_next(&s, &m))
		n++;
	return s.is_bad ? -1 : n;
}

static void walk_takes_json_and_nothing_else(void **state)
{
	static const struct {
		const char *json;
		int n;
	} walks[] = {
		{"{}", 0},
		{"[]", 0},
		{" [ ] ", 0},
		{"[1]", 1},
		{"[ 1 , \"a]\" , [2,3] , {\"x\":[]} , null ]", 5},
		{"{\"a\":1,\"a\":2}", 2},
		{"{\"a\" : true , \"b\":false}", 2},
		{"[-0.5e+10,0,1E5]", 3},
		{"[\"\\u00e9\\n\\\\\"]", 1},
		{"[,]", -1},
		{"[1,]", -1},
		{"[1 2]", -1},
		{"{\"a\"}", -1},
		{"{\"a\":}", -1},
		{"{a:1}", -1},
		{"{\"a\":1,}", -1},
		{"[1}", -1},
		{"{]", -1},
		{"[[1}]", -1},
		{"[{\"a\":1]]", -1},
		{"[01]", -1},
		{"[1.]", -1},
		{"[+1]", -1},
		{"[NaN]", -1},
		{"[tru]", -1},
		{"[\"a]", -1},
		{"[\"\t\"]", -1},
		{"[\"\\u12g4\"]", -1},
		{"[\"\\\"]", -1},
		{"5", -1},
		{"\"[]\"", -1},
		{"", -1},
		{"[", -1},
		{"] [", -1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(walks) / sizeof(*walks); i++) {
		if (count(walks[i].json) != walks[i].n)
			fail_msg("%s: %d", walks[i].json, count(walks[i].json));
	}
}

static void value_of_thousands_of_levels_is_one_value(void **state)
{
	static const size_t depths[] = {1, 62, 63, 64, 65, 66, 5000};

	(void)state;
	for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++) {
		const size_t depth = depths[i];
		char *json = malloc(2 * depth + 8);
		size_t n = 0;

		assert_non_null(json);
		json[n++] = '[';
		memset(json + n, '[', depth);
		n += depth;
		memset(json + n, ']', depth);
		n += depth;
		memcpy(json + n, ",\"]\"]", 6);
		assert_int_equal(count(json), 2);
		json[n - 1] = ' '; /* one bracket is missing */
		assert_int_equal(count(json), -1);
		free(json);
	}
}

static void span_that_does_not_lie_inside_is_bad(void **state)
{
	static const struct cdc_span spans[] = {
		{.off = 0, .len = 5},          {.off = 5, .len = 0},
		{.off = 4, .len = UINT32_MAX}, {.off = UINT32_MAX, .len = UINT32_MAX},
		{.off = 2, .len = 1},          {.off = 0, .len = 0},
	};
	struct cdc_scan s;
	struct cdc_member m;

	(void)state;
	for (size_t i = 0; i < sizeof(spans) / sizeof(*spans); i++) {
		cdc_scan_begin(&s, "[12]", 4, spans[i]);
		assert_false(cdc_scan_next(&s, &m));
		assert_true(s.is_bad);
	}
}

static void text_of_a_string_is_what_it_stands_for(void **state)
{
	static const struct {
		const char *inside, *text;
		size_t len;
	} good[] = {
		{"", "", 0},
		{"plain text, longer than a word", "plain text, longer than a word", 30},
		{"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8},
		{"\\u0041\\u00e9\\u20ac\\uD83D\\uDE00", "Aé€😀", 10},
		{"a\\u0000b", "a\0b", 3},
	};
	static const char *const bad[] = {
		"\\",       "\\x",     "\\u123",         "\\ud83d", "\\ud83d\\n",
		"\\ud83dx", "\\ude00", "\\ud83d\\u0041", "\"",      "\n",
	};
	char text[64];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		const struct cdc_span span = {.len = (uint32_t)strlen(good[i].inside)};

		assert_true(cdc_scan_text(good[i].inside, span, text, sizeof(text), &len));
		assert_int_equal(len, good[i].len);
		assert_memory_equal(text, good[i].text, len);
		assert_true(cdc_scan_text(good[i].inside, span, text, good[i].len, &len));
		if (good[i].len)
			assert_false(
				cdc_scan_text(good[i].inside, span, text, good[i].len - 1, &len));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const struct cdc_span span = {.len = (uint32_t)strlen(bad[i])};

		assert_false(cdc_scan_text(bad[i], span, text, sizeof(text), &len));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_position_of_the_writer_is_found_again),
		cmocka_unit_test(ends_of_columns_are_where_the_members_end),
		cmocka_unit_test(damaged_record_never_leads_outside),
		cmocka_unit_test(members_may_stand_in_any_order_with_unknown_ones_between),
		cmocka_unit_test(what_is_no_record_is_refused_and_leaves_nothing),
		cmocka_unit_test(record_that_does_not_fit_leaves_the_batch_as_it_was),
		cmocka_unit_test(walk_takes_json_and_nothing_else),
		cmocka_unit_test(value_of_thousands_of_levels_is_one_value),
		cmocka_unit_test(span_that_does_not_lie_inside_is_bad),
		cmocka_unit_test(text_of_a_string_is_what_it_stands_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
