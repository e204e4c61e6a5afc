/* Every message of pgoutput is taken apart, and no other bytes are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/clock.h"
#include "cdc/source/pgoutput.h"
#include "tests/unit/wire.h"

struct fixture {
	struct pgo_decoder decoder;
	struct cdc_buf wire;
	struct pgo_message m;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	pgo_init(&f->decoder);
	cdc_buf_init(&f->wire, 1 << 20);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	pgo_clear(&f->decoder);
	cdc_buf_clear(&f->wire);
	free(f);
	return 0;
}

/* From memory of exactly that size, so that the sanitizer sees every byte read too many. */
static enum cdc_code decode_exactly(struct fixture *f, size_t n)
{
	uint8_t *bytes = malloc(n ? n : 1);
	enum cdc_code rc;

	assert_non_null(bytes);
	if (n)
		memcpy(bytes, f->wire.data, n);
	rc = pgo_decode(&f->decoder, bytes, n, &f->m, NULL);
	free(bytes);
	return rc;
}

/* The whole message decodes; cut anywhere, or with a byte more, it does not. */
static void decode(struct fixture *f, enum pgo_kind kind)
{
	for (size_t n = 1; n < f->wire.len; n++)
		assert_int_equal(decode_exactly(f, n), CDC_PROTO);
	wire_u8(&f->wire, 0);
	assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
	f->wire.len--;
	assert_int_equal(pgo_decode(&f->decoder, f->wire.data, f->wire.len, &f->m, NULL), CDC_OK);
	assert_int_equal(f->m.kind, kind);
}

static void expect_text(const struct cdc_value *v, const char *text)
{
	assert_int_equal(v->kind, CDC_VALUE_TEXT);
	assert_int_equal(v->len, strlen(text));
	assert_memory_equal(v->text, text, v->len);
}

static void begin_and_commit(void **state)
{
	struct fixture *f = *state;

	wire_begin(&f->wire, UINT64_C(0x1000000ff), 77);
	decode(f, PGO_BEGIN);
	assert_int_equal(f->m.as.begin.commit_lsn, UINT64_C(0x1000000ff));
	assert_int_equal(f->m.as.begin.commit_us, CDC_POSTGRES_EPOCH_US + 5);
	assert_int_equal(f->m.as.begin.xid, 77);
	f->wire.len = 0;
	wire_commit(&f->wire, 16, 32);
	decode(f, PGO_COMMIT);
	assert_int_equal(f->m.as.commit.commit_lsn, 16);
	assert_int_equal(f->m.as.commit.end_lsn, 32);
	assert_int_equal(f->m.as.commit.commit_us, CDC_POSTGRES_EPOCH_US + 5);
}

static void relation_with_its_identity(void **state)
{
	struct fixture *f = *state;

	wire_relation(&f->wire, 16400, "orders", 'i', "Abc");
	decode(f, PGO_RELATION);
	assert_int_equal(f->m.as.relation.relid, 16400);
	assert_string_equal(f->m.as.relation.schema, "public");
	assert_string_equal(f->m.as.relation.name, "orders");
	assert_int_equal(f->m.as.relation.identity, 'i');
	assert_int_equal(f->m.as.relation.n, 3);
	assert_string_equal(f->m.as.relation.columns[0].name, "a");
	assert_true(f->m.as.relation.columns[0].is_identity);
	assert_false(f->m.as.relation.columns[1].is_identity);
	assert_int_equal(f->m.as.relation.columns[2].type, 23);
	assert_int_equal(f->m.as.relation.columns[2].modifier, -1);
}

static void relation_without_columns_in_the_nameless_schema(void **state)
{
	struct fixture *f = *state;

	wire_u8(&f->wire, 'R');
	wire_u32(&f->wire, 1);
	wire_text(&f->wire, "");
	wire_text(&f->wire, "t");
	wire_u8(&f->wire, 'd');
	wire_u16(&f->wire, 0);
	decode(f, PGO_RELATION);
	assert_string_equal(f->m.as.relation.schema, "pg_catalog");
	assert_int_equal(f->m.as.relation.n, 0);
}

static void relation_of_another_identity_is_refused(void **state)
{
	struct fixture *f = *state;

	for (unsigned identity = 0; identity < 256; identity++) {
		enum cdc_code expected =
			identity && strchr("dnfi", (int)identity) ? CDC_OK : CDC_PROTO;

		f->wire.len = 0;
		wire_relation(&f->wire, 1, "t", (char)identity, "a");
		assert_int_equal(decode_exactly(f, f->wire.len), expected);
	}
}

static void insert_of_every_kind_of_value(void **state)
{
	struct fixture *f = *state;
	const struct pgo_change *c = &f->m.as.change;

	wire_insert(&f->wire, 9, "1nu2");
	decode(f, PGO_INSERT);
	assert_int_equal(c->relid, 9);
	assert_int_equal(c->old_kind, PGO_OLD_NONE);
	assert_null(c->old);
	assert_int_equal(c->row_n, 4);
	expect_text(&c->row[0], "1");
	assert_int_equal(c->row[1].kind, CDC_VALUE_NULL);
	assert_int_equal(c->row[2].kind, CDC_VALUE_UNCHANGED);
	expect_text(&c->row[3], "2");
}

static void insert_of_an_empty_text_and_of_no_columns(void **state)
{
	struct fixture *f = *state;

	wire_u8(&f->wire, 'I');
	wire_u32(&f->wire, 9);
	wire_u8(&f->wire, 'N');
	wire_u16(&f->wire, 1);
	wire_u8(&f->wire, 't');
	wire_u32(&f->wire, 0);
	decode(f, PGO_INSERT);
	expect_text(&f->m.as.change.row[0], "");
	f->wire.len = 0;
	wire_insert(&f->wire, 9, "");
	decode(f, PGO_INSERT);
	assert_int_equal(f->m.as.change.row_n, 0);
	assert_non_null(f->m.as.change.row);
}

static void update_with_each_kind_of_old_row(void **state)
{
	static const struct {
		char marker;
		enum pgo_old kind;
	} cases[] = {{0, PGO_OLD_NONE}, {'K', PGO_OLD_KEY}, {'O', PGO_OLD_FULL}};
	struct fixture *f = *state;
	const struct pgo_change *c = &f->m.as.change;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		f->wire.len = 0;
		wire_update(&f->wire, 9, cases[i].marker, "1n", "2u");
		decode(f, PGO_UPDATE);
		assert_int_equal(c->old_kind, cases[i].kind);
		assert_int_equal(c->row_n, 2);
		expect_text(&c->row[0], "2");
		if (!cases[i].marker)
			continue;
		assert_int_equal(c->old_n, 2);
		expect_text(&c->old[0], "1");
		assert_int_equal(c->old[1].kind, CDC_VALUE_NULL);
	}
}

static void delete_with_its_old_row(void **state)
{
	struct fixture *f = *state;

	wire_delete(&f->wire, 9, 'K', "1n");
	decode(f, PGO_DELETE);
	assert_int_equal(f->m.as.change.old_kind, PGO_OLD_KEY);
	assert_null(f->m.as.change.row);
	f->wire.len = 0;
	wire_delete(&f->wire, 9, 'N', "1n");
	assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
}

static void a_row_of_no_columns_is_one_also_as_the_first(void **state)
{
	struct fixture *f = *state;

	wire_delete(&f->wire, 9, 'O', "");
	decode(f, PGO_DELETE);
	assert_int_equal(f->m.as.change.old_kind, PGO_OLD_FULL);
	assert_int_equal(f->m.as.change.old_n, 0);
	assert_non_null(f->m.as.change.old);
}

static void truncate_of_several_tables(void **state)
{
	static const uint32_t relids[] = {7, 8, 9};
	struct fixture *f = *state;

	wire_truncate(&f->wire, 3, relids, 3);
	decode(f, PGO_TRUNCATE);
	assert_int_equal(f->m.as.truncate.n, 3);
	assert_int_equal(f->m.as.truncate.relids[2], 9);
	assert_true(f->m.as.truncate.is_cascade);
	assert_true(f->m.as.truncate.is_restart_identity);
	f->wire.len = 0;
	wire_truncate(&f->wire, 1, relids, 0);
	decode(f, PGO_TRUNCATE);
	assert_false(f->m.as.truncate.is_cascade);
	assert_false(f->m.as.truncate.is_restart_identity);
}

static void logical_message_with_bytes(void **state)
{
	struct fixture *f = *state;

	wire_message(&f->wire, 1, 99, "outbox", "hello");
	decode(f, PGO_MESSAGE);
	assert_true(f->m.as.message.is_transactional);
	assert_int_equal(f->m.as.message.lsn, 99);
	assert_string_equal(f->m.as.message.prefix, "outbox");
	assert_int_equal(f->m.as.message.len, 5);
	assert_memory_equal(f->m.as.message.bytes, "hello", 5);
}

static void messages_that_mean_nothing_to_us(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(decode_exactly(f, 0), CDC_OK);
	assert_int_equal(f->m.kind, PGO_NOTHING);
	wire_u8(&f->wire, 'O');
	wire_u64(&f->wire, 1);
	wire_text(&f->wire, "elsewhere");
	decode(f, PGO_ORIGIN);
	assert_string_equal(f->m.as.origin, "elsewhere");
	f->wire.len = 0;
	wire_u8(&f->wire, 'Y');
	wire_u32(&f->wire, 16500);
	wire_text(&f->wire, "public");
	wire_text(&f->wire, "mood");
	decode(f, PGO_TYPE);
	f->wire.len = 0;
	wire_u8(&f->wire, 'A');
	wire_u64(&f->wire, 1);
	decode(f, PGO_STREAM_ABORT);
}

static void lengths_beyond_the_end_are_refused(void **state)
{
	struct fixture *f = *state;

	wire_u8(&f->wire, 'I');
	wire_u32(&f->wire, 9);
	wire_u8(&f->wire, 'N');
	wire_u16(&f->wire, 65535);
	wire_u8(&f->wire, 'n');
	assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
	f->wire.len -= 3;
	wire_u16(&f->wire, 1);
	wire_u8(&f->wire, 't');
	wire_u32(&f->wire, UINT32_MAX);
	wire_text(&f->wire, "x");
	assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
	f->wire.len = 0;
	wire_truncate(&f->wire, 0, NULL, 0);
	memset(f->wire.data + 1, 0xff, 4);
	assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
}

static void F53_unknown_kinds_are_refused(void **state)
{
	struct fixture *f = *state;

	for (unsigned kind = 0; kind < 256; kind++) {
		if (kind && strchr("BCORYIUDTMA", (int)kind))
			continue;
		f->wire.len = 0;
		wire_u8(&f->wire, kind);
		wire_u64(&f->wire, 0);
		assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
	}
	/* Binary values were not asked for. */
	f->wire.len = 0;
	wire_insert(&f->wire, 9, "n");
	f->wire.data[f->wire.len - 1] = 'b';
	assert_int_equal(decode_exactly(f, f->wire.len), CDC_PROTO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(begin_and_commit),
		TEST(relation_with_its_identity),
		TEST(relation_without_columns_in_the_nameless_schema),
		TEST(relation_of_another_identity_is_refused),
		TEST(insert_of_every_kind_of_value),
		TEST(insert_of_an_empty_text_and_of_no_columns),
		TEST(update_with_each_kind_of_old_row),
		TEST(delete_with_its_old_row),
		TEST(a_row_of_no_columns_is_one_also_as_the_first),
		TEST(truncate_of_several_tables),
		TEST(logical_message_with_bytes),
		TEST(messages_that_mean_nothing_to_us),
		TEST(lengths_beyond_the_end_are_refused),
		TEST(F53_unknown_kinds_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
