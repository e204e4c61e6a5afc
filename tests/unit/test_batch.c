/* The batch: what is put in comes out, whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "cdc/record/batch.h"

/* A record of a table whose JSON is text; fields is the whole of it, with one member that ends at
 * its end. */
static enum cdc_code put(struct cdc_batch *b, const char *table, uint64_t lsn, uint32_t ordinal,
			 const char *text)
{
	struct cdc_record *r;
	uint16_t index;

	assert_int_equal(cdc_batch_table(b, table, strlen(table), &index, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(b, &r, NULL), CDC_OK);
	r->id = (struct cdc_id){.epoch = 1, .commit_lsn = lsn, .ordinal = ordinal, .part = 1};
	r->table = index;
	r->fields = (struct cdc_span){.len = (uint32_t)strlen(text)};
	cdc_batch_col(b, r, r->fields.len);
	cdc_buf_puts(&b->json, text);
	return cdc_batch_end(b, NULL);
}

static void expect(const struct cdc_batch *b, size_t i, const char *table, const char *text)
{
	struct cdc_view v = {.rec = &b->records[i], .batch = b};
	size_t len;
	const char *name = cdc_view_table(v, &len);

	assert_int_equal(len, strlen(table));
	assert_memory_equal(name, table, len);
	assert_int_equal(v.rec->json_len, strlen(text));
	assert_memory_equal(cdc_view_json(v), text, strlen(text));
	assert_int_equal(v.rec->cols, 1);
	assert_int_equal(b->col_ends[v.rec->col_first], strlen(text));
}

static struct cdc_batch *three(void)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);

	assert_non_null(b);
	assert_int_equal(put(b, "public.a", 10, 1, "{\"a\":1}"), CDC_OK);
	assert_int_equal(put(b, "public.b", 10, 2, "{\"bb\":22}"), CDC_OK);
	assert_int_equal(cdc_batch_tx_end(b, 10, 12, 5, NULL), CDC_OK);
	assert_int_equal(put(b, "public.a", 20, 1, "{\"ccc\":333}"), CDC_OK);
	return b;
}

static void batch_survives_packing(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = three();
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *c = cdc_batch_new(1 << 20);
	struct cdc_buf packed;

	(void)state;
	cdc_buf_init(&packed, 1 << 20);
	cdc_batch_pack(b, &packed);
	assert_int_equal(cdc_batch_unpack(c, packed.data, packed.len, NULL), CDC_OK);
	assert_int_equal(c->n, 3);
	expect(c, 0, "public.a", "{\"a\":1}");
	expect(c, 1, "public.b", "{\"bb\":22}");
	expect(c, 2, "public.a", "{\"ccc\":333}");
	assert_memory_equal(c->records, b->records, 3 * sizeof(*b->records));
	assert_int_equal(c->end_n, 1);
	assert_int_equal(c->ends[0].end_lsn, 12);
	assert_true(cdc_batch_is_open(c));
	cdc_buf_clear(&packed);
}

static void no_damaged_byte_or_missing_tail_leads_outside(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = three();
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *c = cdc_batch_new(1 << 20);
	struct cdc_buf packed;

	(void)state;
	cdc_buf_init(&packed, 1 << 20);
	cdc_batch_pack(b, &packed);
	for (size_t len = 0; len < packed.len; len++) {
		uint8_t *cut =
			malloc(len ? len : 1); /* of its own, so that a sanitizer sees an overrun */

		assert_non_null(cut);
		memcpy(cut, packed.data, len);
		assert_int_not_equal(cdc_batch_unpack(c, cut, len, NULL), CDC_OK);
		assert_int_equal(c->n, 0);
		free(cut);
	}
	for (size_t i = 0; i < packed.len; i++) {
		uint8_t was = packed.data[i];

		packed.data[i] = 0xff;
		if (cdc_batch_unpack(c, packed.data, packed.len, NULL) == CDC_OK) {
			/* Damage that nobody can see must still lead to bytes inside. */
			for (size_t k = 0; k < c->n; k++)
				assert_true(c->records[k].json_off + c->records[k].json_len <=
					    c->json.len);
			cdc_batch_reset(c, SIZE_MAX);
		}
		packed.data[i] = was;
	}
	cdc_buf_clear(&packed);
}

static void tail_of_a_batch_is_appended_with_its_ends(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = three();
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *dst = cdc_batch_new(1 << 20);

	(void)state;
	assert_int_equal(put(dst, "public.z", 5, 1, "{}"), CDC_OK);
	assert_int_equal(cdc_batch_append(dst, b, 1, NULL), CDC_OK);
	assert_int_equal(dst->n, 3);
	expect(dst, 0, "public.z", "{}");
	expect(dst, 1, "public.b", "{\"bb\":22}");
	expect(dst, 2, "public.a", "{\"ccc\":333}");
	assert_int_equal(dst->end_n, 1);
	assert_int_equal(dst->ends[0].count, 2);
}

static void full_batch_refuses_a_record_and_keeps_what_it_has(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(16);
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *src = three();

	(void)state;
	assert_int_equal(put(b, "public.a", 1, 1, "{\"a\":1}"), CDC_OK);
	assert_int_equal(put(b, "public.a", 1, 2, "{\"a\":123456789}"), CDC_LIMIT);
	assert_int_equal(cdc_batch_append(b, src, 0, NULL), CDC_LIMIT);
	assert_int_equal(b->n, 1);
	expect(b, 0, "public.a", "{\"a\":1}");
	assert_int_equal(put(b, "public.a", 1, 2, "{\"b\":2}"), CDC_OK);
	expect(b, 1, "public.a", "{\"b\":2}");
}

static void ends_of_empty_transactions_are_one(void **state)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *b = cdc_batch_new(1 << 10);

	(void)state;
	for (uint64_t i = 1; i <= 1000; i++)
		assert_int_equal(cdc_batch_tx_end(b, i * 10, i * 10 + 5, 0, NULL), CDC_OK);
	assert_int_equal(b->end_n, 1);
	assert_int_equal(b->ends[0].end_lsn, 10005);
	assert_false(cdc_batch_is_open(b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(batch_survives_packing),
		cmocka_unit_test(no_damaged_byte_or_missing_tail_leads_outside),
		cmocka_unit_test(tail_of_a_batch_is_appended_with_its_ends),
		cmocka_unit_test(full_batch_refuses_a_record_and_keeps_what_it_has),
		cmocka_unit_test(ends_of_empty_transactions_are_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
