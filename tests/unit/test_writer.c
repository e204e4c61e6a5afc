/* Records: what the writer makes of a change, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/key.h"
#include "cdc/record/writer.h"

#define TEXT(t)                                                                                    \
	{                                                                                          \
		.kind = CDC_VALUE_TEXT, .len = sizeof(t) - 1, .text = (t)                          \
	}
#define NOTHING                                                                                    \
	{                                                                                          \
		.kind = CDC_VALUE_NULL                                                             \
	}
#define UNCHANGED                                                                                  \
	{                                                                                          \
		.kind = CDC_VALUE_UNCHANGED                                                        \
	}
#define ABSENT                                                                                     \
	{                                                                                          \
		.kind = CDC_VALUE_ABSENT                                                           \
	}

#define ID "01000001-0000000016b37480-00000001-0001"

/* Behind `fields`, `changes` and `unchanged` of every record here. */
#define TAIL                                                                                       \
	",\"position\":\"0/16B3748\",\"commit\":{\"lsn\":\"0/16B37480\",\"xid\":742,"              \
	"\"time\":\"2026-01-01T00:00:00.000001Z\"}"
#define HASH ",\"hash\":\""

/* public.orders (id, note, total), its key id. */
static struct cdc_shape *orders(void)
{
	const struct cdc_column columns[] = {
		{.name = "id", .type = cdc_type_scalar(CDC_KIND_NUMBER), .is_key = true},
		{.name = "note", .type = cdc_type_scalar(CDC_KIND_TEXT)},
		{.name = "total", .type = cdc_type_scalar(CDC_KIND_NUMBER)},
	};
	struct cdc_shape *s = cdc_shape_new("public", "orders", columns, 3);

	assert_non_null(s);
	return s;
}

static struct cdc_change change_of(const struct cdc_shape *shape, enum cdc_op op,
				   const struct cdc_value *row, const struct cdc_value *old)
{
	return (struct cdc_change){
		.shape = shape,
		.op = op,
		.id = {.epoch = CDC_EPOCH(1, 1), .commit_lsn = 0x16b37480, .ordinal = 1, .part = 1},
		.position = 0x16b3748,
		.xid = 742,
		.commit_us = 1767225600000001,
		.row = row,
		.old = old};
}

/* The record's JSON is head, the tail with what more says in it, and a hash. */
static void expect_more(const struct cdc_batch *b, size_t i, const char *head, const char *more)
{
	struct cdc_view v = {.rec = &b->records[i], .batch = b};
	const char *json = cdc_view_json(v);
	char want[1000];
	size_t name_len;
	int len = snprintf(want, sizeof(want), "%s" TAIL "%s" HASH, head, more);

	if (v.rec->json_len != (size_t)len + 18 || memcmp(json, want, (size_t)len) != 0)
		fail_msg("%.*s\nis not\n%s", (int)v.rec->json_len, json, want);
	assert_memory_equal(json + v.rec->json_len - 2, "\"}", 2);
	assert_memory_equal(cdc_view_table(v, &name_len), "public.orders", 13);
	assert_int_equal(name_len, 13);
	assert_true(v.rec->commit_us == 1767225600000001);
}

static void expect(const struct cdc_batch *b, size_t i, const char *head)
{
	expect_more(b, i, head, "");
}

/* Writes the change alone into an empty batch, which the caller frees. */
static struct cdc_batch *written(const struct cdc_change *change, size_t n)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_err err = {0};

	assert_non_null(b);
	if (cdc_write_change(b, change, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(b->n, n);
	return b;
}

/* Writes, expects one record with this head, and returns its flags. */
static unsigned expect_one(const struct cdc_change *change, const char *head)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written(change, 1);

	expect(b, 0, head);
	return b->records[0].flags;
}

static void insert_carries_the_row(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), TEXT("a \"b\""), TEXT("1.50")};
	struct cdc_change c = change_of(s, CDC_OP_INSERT, row, NULL);

	(void)state;
	assert_int_equal(
		expect_one(&c, "{\"id\":\"" ID "\",\"operation\":\"insert\",\"schema\":\"public."
			       "orders\",\"key\":{\"id\":1},"
			       "\"fields\":{\"id\":1,\"note\":\"a \\\"b\\\"\",\"total\":1.50}"),
		0);
	c.op = CDC_OP_READ;
	assert_int_equal(
		expect_one(&c, "{\"id\":\"" ID "\",\"operation\":\"read\",\"schema\":\"public."
			       "orders\",\"key\":{\"id\":1},"
			       "\"fields\":{\"id\":1,\"note\":\"a \\\"b\\\"\",\"total\":1.50}"),
		0);
	cdc_shape_free(s);
}

static void update_carries_changes_only_where_the_wal_has_the_old_row(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), TEXT("b"), NOTHING};
	const struct cdc_value full[] = {TEXT("1"), TEXT("b"), TEXT("2")};
	struct cdc_change c = change_of(s, CDC_OP_UPDATE, row, NULL);

	(void)state;
#define HEAD                                                                                       \
	"{\"id\":\"" ID "\",\"operation\":\"update\",\"schema\":\"public.orders\",\"key\":"        \
	"{\"id\":1},\"fields\":{\"id\":1,\"note\":\"b\",\"total\":null}"
	assert_int_equal(expect_one(&c, HEAD), 0);
	c.old = full;
	c.old_is_full = true;
	assert_int_equal(expect_one(&c, HEAD ",\"changes\":{\"total\":2}"), CDC_RECORD_OLD_ROW);
	c.old = row; /* nothing differs */
	assert_int_equal(expect_one(&c, HEAD ",\"changes\":{}"), CDC_RECORD_OLD_ROW);
#undef HEAD
	cdc_shape_free(s);
}

static void delete_carries_as_much_of_the_old_row_as_the_wal(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value full[] = {TEXT("1"), TEXT("b"), NOTHING};
	const struct cdc_value key[] = {TEXT("1"), NOTHING, NOTHING};
	const struct cdc_value absent[] = {TEXT("1"), ABSENT, ABSENT};
	struct cdc_change c = change_of(s, CDC_OP_DELETE, NULL, full);

	(void)state;
#define HEAD                                                                                       \
	"{\"id\":\"" ID "\",\"operation\":\"delete\",\"schema\":\"public.orders\",\"key\":"        \
	"{\"id\":1},\"fields\":"
	c.old_is_full = true;
	assert_int_equal(expect_one(&c, HEAD "{\"id\":1,\"note\":\"b\",\"total\":null}"), 0);
	c.old = absent;
	assert_int_equal(expect_one(&c, HEAD "{\"id\":1}"), 0);
	c.old = key;
	c.old_is_full = false;
	assert_int_equal(expect_one(&c, HEAD "{\"id\":1}"), 0);
#undef HEAD
	cdc_shape_free(s);
}

static void truncate_is_a_barrier_without_values(void **state)
{
	struct cdc_shape *s = orders();
	struct cdc_change c = change_of(s, CDC_OP_TRUNCATE, NULL, NULL);

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = NULL;
		char more[100];

		c.is_cascade = i & 1;
		c.is_restart_identity = i & 2;
		(void)snprintf(more, sizeof(more),
			       ",\"truncate\":{\"cascade\":%s,\"restart_identity\":%s}",
			       i & 1 ? "true" : "false", i & 2 ? "true" : "false");
		b = written(&c, 1);
		expect_more(b, 0,
			    "{\"id\":\"" ID "\",\"operation\":\"truncate\",\"schema\":"
			    "\"public.orders\",\"key\":null,\"fields\":null",
			    more);
		assert_int_equal(b->records[0].flags, CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY);
	}
	cdc_shape_free(s);
}

#define STAND_IN(op, key)                                                                          \
	"{\"id\":\"" ID "\",\"operation\":\"" op "\",\"schema\":\"public.orders\",\"key\":" key    \
	",\"fields\":null"

/* At its own size a record is what it is, one byte below it is a stand-in. */
static void record_above_the_limit_has_a_stand_in(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), TEXT("note \"longer\" than it may be"),
					TEXT("1.50")};
	struct cdc_change c = change_of(s, CDC_OP_INSERT, row, NULL);
	size_t len;
	char more[100];

	(void)state;
	for (int grown = 0; grown < 2; grown++) {
		CDC_AUTO(cdc_batch_freep) struct cdc_batch *whole = NULL, *b = NULL;

		c.max_bytes = 0;
		whole = written(&c, 1);
		len = whole->json.len;
		c.max_bytes = len;
		b = written(&c, 1);
		assert_int_equal(b->json.len, len);
		assert_memory_equal(b->json.data, whole->json.data, len);
		/* Also where more than the limit is allocated already. */
		cdc_batch_reset(b, grown ? SIZE_MAX : 0);
		c.max_bytes = len - 1;
		assert_int_equal(cdc_write_change(b, &c, NULL), CDC_OK);
		(void)snprintf(more, sizeof(more),
			       ",\"too_large\":{\"bytes\":33,\"max_bytes\":%zu}", len - 1);
		expect_more(b, 0, STAND_IN("insert", "{\"id\":1}"), more);
		assert_int_equal(b->records[0].flags, CDC_RECORD_TOO_LARGE);
		assert_int_equal(b->records[0].cols, 0);
		assert_int_equal(b->records[0].changes.len, 0);
		assert_true(b->records[0].key_hash == whole->records[0].key_hash);
		/* What comes behind it has all of the batch again. */
		c.max_bytes = 0;
		assert_int_equal(cdc_write_change(b, &c, NULL), CDC_OK);
		assert_int_equal(b->records[1].json_len, len);
	}
	cdc_shape_free(s);
}

/* What a large old row adds is left out: `changes`, and of a delete all but the key. */
static void record_above_the_limit_goes_without_its_old_row(void **state)
{
	struct cdc_shape *s = orders();
	char note[400];
	const struct cdc_value row[] = {TEXT("1"), TEXT("a"), TEXT("7")};
	const struct cdc_value old[] = {
		TEXT("1"), {.kind = CDC_VALUE_TEXT, .len = sizeof(note), .text = note}, TEXT("7")};
	struct cdc_change c = change_of(s, CDC_OP_UPDATE, row, old);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = NULL;

	(void)state;
	memset(note, 'x', sizeof(note));
	c.old_is_full = true;
	c.max_bytes = 400;
	b = written(&c, 1);
	assert_int_equal(b->records[0].flags, 0);
	assert_int_equal(b->records[0].changes.len, 0);
	assert_int_equal(b->records[0].cols, 3);
	c = change_of(s, CDC_OP_DELETE, NULL, old);
	c.old_is_full = true;
	c.max_bytes = 400;
	assert_int_equal(cdc_write_change(b, &c, NULL), CDC_OK);
	assert_int_equal(b->records[1].flags, 0);
	assert_int_equal(b->records[1].fields.len, 8);
	assert_memory_equal(b->json.data + b->records[1].json_off + b->records[1].fields.off,
			    "{\"id\":1}", 8);
	cdc_shape_free(s);
}

static void the_new_half_of_a_changed_key_may_be_a_stand_in(void **state)
{
	struct cdc_shape *s = orders();
	char note[200];
	const struct cdc_value large = {.kind = CDC_VALUE_TEXT, .len = sizeof(note), .text = note};
	const struct cdc_value small = TEXT("a");

	(void)state;
	memset(note, 'x', sizeof(note));
	for (unsigned i = 1; i < 4; i++) {
		const struct cdc_value row[] = {TEXT("2"), i & 1 ? large : small, TEXT("7")};
		const struct cdc_value old[] = {TEXT("1"), i & 2 ? large : small, TEXT("7")};
		struct cdc_change c = change_of(s, CDC_OP_UPDATE, row, old);
		CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = NULL;

		c.old_is_full = true;
		c.max_bytes = 400;
		b = written(&c, 2);
		/* The key is enough of the old row; the update needs it whole, in `changes`. */
		assert_int_equal(b->records[0].flags, CDC_RECORD_MOVE_OLD);
		assert_int_equal(b->records[1].flags, CDC_RECORD_MOVE_NEW | CDC_RECORD_TOO_LARGE);
		assert_memory_equal(b->json.data + b->records[1].json_off + b->records[1].key.off,
				    "{\"id\":2}", 8);
	}
	cdc_shape_free(s);
}

static void record_above_the_limit_waits_for_a_batch_with_room(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), TEXT("a"), TEXT("1")};
	struct cdc_change c = change_of(s, CDC_OP_INSERT, row, NULL);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1100);

	(void)state;
	assert_non_null(b);
	c.max_bytes = 400;
	while (cdc_write_change(b, &c, NULL) == CDC_OK)
		assert_int_equal(b->records[b->n - 1].flags, 0);
	assert_true(b->n > 1);
	assert_int_equal(cdc_write_change(b, &c, NULL), CDC_LIMIT);
	cdc_shape_free(s);
}

static void changed_key_makes_a_delete_and_an_update(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("2"), TEXT("b"), UNCHANGED};
	const struct cdc_value key[] = {TEXT("1"), NOTHING, NOTHING};
	const struct cdc_value full[] = {TEXT("1"), TEXT("a"), TEXT("7")};
	struct cdc_change c = change_of(s, CDC_OP_UPDATE, row, key);

	(void)state;
#define DELETE                                                                                     \
	"{\"id\":\"" ID "\",\"operation\":\"delete\",\"schema\":\"public.orders\",\"key\":"        \
	"{\"id\":1},\"fields\":"
#define UPDATE                                                                                     \
	"{\"id\":\"01000001-0000000016b37480-00000001-0002\",\"operation\":\"update\","            \
	"\"schema\":\"public.orders\",\"key\":{\"id\":2},\"fields\":{\"id\":2,\"note\":\"b\""
	for (int is_full = 0; is_full < 2; is_full++) {
		CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = NULL;

		c.old = is_full ? full : key;
		c.old_is_full = is_full;
		b = written(&c, 2);
		expect(b, 0,
		       is_full ? DELETE "{\"id\":1,\"note\":\"a\",\"total\":7}"
			       : DELETE "{\"id\":1}");
		expect(b, 1,
		       is_full ? UPDATE ",\"total\":7},\"changes\":{\"id\":1,\"note\":\"a\"}"
			       : UPDATE "},\"changes\":{\"id\":1},\"unchanged\":[\"total\"]");
		assert_int_equal(b->records[0].flags, CDC_RECORD_MOVE_OLD);
		assert_int_equal(b->records[1].flags,
				 CDC_RECORD_MOVE_NEW | (is_full ? CDC_RECORD_OLD_ROW : 0));
		assert_true(b->records[0].key_hash != b->records[1].key_hash);
	}
#undef DELETE
#undef UPDATE
	cdc_shape_free(s);
}

static void unchanged_value_is_named_never_invented_and_never_null(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), UNCHANGED, UNCHANGED};
	const struct cdc_value key_unchanged[] = {UNCHANGED, TEXT("b"), TEXT("3")};
	const struct cdc_value old[] = {TEXT("1"), TEXT("big"), NOTHING};
	struct cdc_change c = change_of(s, CDC_OP_UPDATE, row, NULL);

	(void)state;
#define HEAD                                                                                       \
	"{\"id\":\"" ID "\",\"operation\":\"update\",\"schema\":\"public.orders\",\"key\":"        \
	"{\"id\":1},\"fields\":"
	(void)expect_one(&c, HEAD "{\"id\":1},\"unchanged\":[\"note\",\"total\"]");
	/* A full old row has what the new one lacks, but for a null: that was not TOASTed. */
	c.old = old;
	c.old_is_full = true;
	(void)expect_one(&c, HEAD "{\"id\":1,\"note\":\"big\"},\"changes\":{},"
				  "\"unchanged\":[\"total\"]");
	/* An old row that is only a key has the key. */
	c.row = key_unchanged;
	c.old_is_full = false;
	(void)expect_one(&c, HEAD "{\"id\":1,\"note\":\"b\",\"total\":3},\"changes\":{}");
	/* With no old row at all nobody knows the key; an INSERT may be such, too. */
	c.old = NULL;
	c.op = CDC_OP_INSERT;
	assert_int_equal(
		expect_one(&c, "{\"id\":\"" ID "\",\"operation\":\"insert\",\"schema\":\"public."
			       "orders\",\"key\":null,\"fields\":{\"note\":\"b\",\"total\":3},"
			       "\"unchanged\":[\"id\"]"),
		CDC_RECORD_NO_KEY);
#undef HEAD
	cdc_shape_free(s);
}

static void backfill_row_has_no_transaction(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), NOTHING, NOTHING};
	struct cdc_change c = change_of(s, CDC_OP_READ, row, NULL);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = NULL;
	static const char tail[] = "\"position\":\"0/16B3748\",\"commit\":{\"lsn\":\"0/16B37480\","
				   "\"xid\":null,\"time\":null},\"hash\":\"";

	(void)state;
	c.xid = 0;
	c.commit_us = 0;
	c.id.ordinal = 0;
	c.id.part = 0;
	c.id.range = 3;
	c.id.row = 4;
	b = written(&c, 1);
	cdc_buf_putc(&b->json, '\0');
	assert_non_null(strstr((char *)b->json.data, tail));
	assert_memory_equal(b->json.data,
			    "{\"id\":\"01000001-0000000016b37480-00000000-0000-00000003-00000004\"",
			    65);
	cdc_shape_free(s);
}

static void key_follows_the_columns_and_its_bytes_are_hashed(void **state)
{
	const struct cdc_column columns[] = {
		{.name = "b\"c", .type = cdc_type_scalar(CDC_KIND_TEXT), .is_key = true},
		{.name = "v", .type = cdc_type_scalar(CDC_KIND_TEXT)},
		{.name = "ä", .type = cdc_type_scalar(CDC_KIND_NUMBER), .is_key = true},
	};
	static const char key[] = "{\"b\\\"c\":\"x\\ny\",\"ä\":2}", name[] = "sch\\ema.or.ders";
	struct cdc_shape *s = cdc_shape_new("sch\\ema", "or.ders", columns, 3);
	const struct cdc_value row[] = {TEXT("x\ny"), NOTHING, TEXT("2")};
	struct cdc_change c = change_of(s, CDC_OP_INSERT, row, NULL);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written(&c, 1);
	const struct cdc_record *r = b->records;

	(void)state;
	assert_string_equal(cdc_shape_name(s), name);
	assert_int_equal(cdc_shape_columns(s), 3);
	assert_int_equal(r->key.len, strlen(key));
	assert_memory_equal(b->json.data + r->key.off, key, strlen(key));
	assert_true(r->key_hash == cdc_key_hash(name, strlen(name), key, strlen(key)));
	assert_int_equal(r->cols, 3);
	cdc_shape_free(s);
}

static void table_without_a_key_or_without_columns_has_records_too(void **state)
{
	const struct cdc_column column = {.name = "v", .type = cdc_type_scalar(CDC_KIND_TEXT)};
	struct cdc_shape *no_key = cdc_shape_new("public", "orders", &column, 1);
	struct cdc_shape *empty = cdc_shape_new("public", "orders", NULL, 0);
	const struct cdc_value row[] = {TEXT("x")};
	struct cdc_change c = change_of(no_key, CDC_OP_INSERT, row, NULL);
	struct cdc_change d = change_of(empty, CDC_OP_INSERT, row, NULL);

	(void)state;
#define HEAD                                                                                       \
	"{\"id\":\"" ID "\",\"operation\":\"insert\",\"schema\":\"public.orders\",\"key\":null,"   \
	"\"fields\":"
	assert_int_equal(expect_one(&c, HEAD "{\"v\":\"x\"}"), CDC_RECORD_NO_KEY);
	assert_int_equal(expect_one(&d, HEAD "{}"), CDC_RECORD_NO_KEY);
#undef HEAD
	cdc_shape_free(no_key);
	cdc_shape_free(empty);
}

static void hash_is_that_of_the_bytes_of_fields(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("1"), TEXT("a"), TEXT("1.50")};
	struct cdc_change c = change_of(s, CDC_OP_INSERT, row, NULL);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written(&c, 1);

	(void)state;
	/* XXH3-64 of {"id":1,"note":"a","total":1.50} by another implementation (python-xxhash). */
	assert_memory_equal(b->json.data + b->json.len - 18, "3066673ce89435e8\"}", 18);
	cdc_shape_free(s);
}

/* Nothing of a change that was refused is left behind. */
static void assert_same_size(const struct cdc_batch *b, const struct cdc_batch *was)
{
	assert_int_equal(b->n, was->n);
	assert_int_equal(b->json.len, was->json.len);
	assert_int_equal(b->col_n, was->col_n);
	assert_int_equal(b->table_n, was->table_n);
	assert_int_equal(b->names.len, was->names.len);
	assert_false(b->json.failed);
}

static void refused_change_leaves_the_batch_as_it_was(void **state)
{
	const struct cdc_column columns[] = {
		{.name = "id", .type = cdc_type_scalar(CDC_KIND_NUMBER), .is_key = true},
		{.name = "flag", .type = cdc_type_scalar(CDC_KIND_BOOL)},
	};
	struct cdc_shape *s = orders(), *flags = cdc_shape_new("public", "flags", columns, 2);
	const struct cdc_value good[] = {TEXT("1"), NOTHING, NOTHING};
	const struct cdc_value bad[] = {TEXT("2"), TEXT("secret")};
	const struct cdc_value old[] = {TEXT("1"), TEXT("t")};
	const struct cdc_value bad_old[] = {TEXT("1"), TEXT("secret")};
	const struct cdc_value fine[] = {TEXT("2"), TEXT("f")};
	struct cdc_change first = change_of(s, CDC_OP_INSERT, good, NULL);
	const struct cdc_change refused[] = {
		change_of(flags, CDC_OP_INSERT, bad, NULL),
		change_of(flags, CDC_OP_UPDATE, bad, old),      /* a move whose second half fails */
		change_of(flags, CDC_OP_UPDATE, fine, bad_old), /* ... and whose first half does */
	};
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = written(&first, 1);
	struct cdc_batch was = *b;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct cdc_change c = refused[i];
		struct cdc_err err = {0};

		c.old_is_full = true;
		assert_int_equal(cdc_write_change(b, &c, &err), CDC_PROTO);
		assert_non_null(strstr(err.msg, "public.flags"));
		assert_non_null(strstr(err.msg, "flag"));
		assert_null(strstr(err.msg, "secret"));
		assert_same_size(b, &was);
	}
	assert_int_equal(cdc_write_change(b, &first, NULL), CDC_OK);
	assert_int_equal(b->n, 2);
	cdc_shape_free(s);
	cdc_shape_free(flags);
}

static void change_fits_whole_or_not_at_all(void **state)
{
	struct cdc_shape *s = orders();
	const struct cdc_value row[] = {TEXT("2"), TEXT("\n\n\n\n\n\n\n\n"), UNCHANGED};
	const struct cdc_value old[] = {TEXT("1"), TEXT("a"), TEXT("1")};
	struct cdc_change c = change_of(s, CDC_OP_UPDATE, row, old);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *whole = NULL;
	const struct cdc_batch empty = {0};

	(void)state;
	c.old_is_full = true;
	whole = written(&c, 2);
	for (size_t max = 1; max < whole->json.len; max++) {
		CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(max);

		assert_non_null(b);
		assert_int_equal(cdc_write_change(b, &c, NULL), CDC_LIMIT);
		assert_same_size(b, &empty);
	}
	cdc_shape_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(insert_carries_the_row),
		cmocka_unit_test(update_carries_changes_only_where_the_wal_has_the_old_row),
		cmocka_unit_test(delete_carries_as_much_of_the_old_row_as_the_wal),
		cmocka_unit_test(truncate_is_a_barrier_without_values),
		cmocka_unit_test(record_above_the_limit_has_a_stand_in),
		cmocka_unit_test(record_above_the_limit_goes_without_its_old_row),
		cmocka_unit_test(the_new_half_of_a_changed_key_may_be_a_stand_in),
		cmocka_unit_test(record_above_the_limit_waits_for_a_batch_with_room),
		cmocka_unit_test(changed_key_makes_a_delete_and_an_update),
		cmocka_unit_test(unchanged_value_is_named_never_invented_and_never_null),
		cmocka_unit_test(backfill_row_has_no_transaction),
		cmocka_unit_test(key_follows_the_columns_and_its_bytes_are_hashed),
		cmocka_unit_test(table_without_a_key_or_without_columns_has_records_too),
		cmocka_unit_test(hash_is_that_of_the_bytes_of_fields),
		cmocka_unit_test(refused_change_leaves_the_batch_as_it_was),
		cmocka_unit_test(change_fits_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
