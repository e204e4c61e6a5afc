/* Records of no row: their members, their block, and content of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/note.h"
#include "cdc/record/scan.h"

static const struct cdc_note note = {
	.op = CDC_OP_MESSAGE,
	.table = "pg_message.a\"b",
	.id = {.commit_lsn = 0x120, .epoch = 0x01000001, .ordinal = 2, .part = 1},
	.position = 0x100,
	.xid = 7,
	.commit_us = 1000000,
};

static enum cdc_code write(struct cdc_batch *b, const char *fields, const char *changes)
{
	struct cdc_record *r;
	enum cdc_code rc = cdc_note_begin(b, &note, &r, NULL);

	assert_int_equal(rc, CDC_OK);
	cdc_buf_puts(&b->json, fields);
	if (changes) {
		cdc_note_changes(b, r);
		cdc_buf_puts(&b->json, changes);
	}
	return cdc_note_end(b, &note, r, NULL);
}

static void a_note_is_what_a_reader_of_records_makes_of_it(void **state)
{
	static const char head[] =
		"{\"id\":\"01000001-0000000000000120-00000002-0001\",\"operation\":\"message\","
		"\"schema\":\"pg_message.a\\\"b\",\"key\":null,\"fields\":{\"a\":1,\"b\":\"x\"},"
		"\"changes\":{\"c\":[]},\"position\":\"0/100\",\"commit\":{\"lsn\":\"0/120\","
		"\"xid\":7,\"time\":\"1970-01-01T00:00:01.000000Z\"},\"hash\":\"";
	struct cdc_batch *b = cdc_batch_new(1 << 16), *again = cdc_batch_new(1 << 16);

	(void)state;
	for (int i = 0; i < 2; i++) {
		const char *json;

		assert_int_equal(write(b, "{\"a\":1,\"b\":\"x\"}", i ? NULL : "{\"c\":[]}"),
				 CDC_OK);
		json = (const char *)b->json.data + b->records[i].json_off;
		if (i == 0)
			assert_memory_equal(json, head, strlen(head));
		assert_int_equal(b->records[i].cols, 2);
		assert_int_equal(b->records[i].flags, CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY);
		assert_int_equal(cdc_scan_record(again, json, b->records[i].json_len, NULL),
				 CDC_OK);
		assert_memory_equal(&again->records[i], &b->records[i], sizeof(b->records[i]));
		assert_memory_equal(again->col_ends, b->col_ends, 2 * sizeof(*b->col_ends));
	}
	cdc_batch_free(b);
	cdc_batch_free(again);
}

static void a_note_that_does_not_fit_leaves_the_batch_as_it_was(void **state)
{
	char fields[300] = "{\"a\":\"";

	(void)state;
	memset(fields + 6, 'x', 200);
	strcpy(fields + 206, "\"}");
	for (size_t max = 1; max < 1100; max++) {
		struct cdc_batch *b = cdc_batch_new(max);
		size_t n = 0;

		while (write(b, fields, "{}") == CDC_OK)
			n++;
		assert_int_equal(b->n, n);
		assert_int_equal(b->json.len, n ? n * b->records[0].json_len : 0);
		assert_int_equal(b->col_n, n);
		assert_false(b->json.failed);
		cdc_batch_free(b);
	}
}

static void a_note_above_the_limit_has_a_stand_in(void **state)
{
	static const char head[] =
		"{\"id\":\"01000001-0000000000000120-00000002-0001\",\"operation\":\"message\","
		"\"schema\":\"pg_message.a\\\"b\",\"key\":null,\"fields\":null,"
		"\"position\":\"0/100\",\"commit\":{\"lsn\":\"0/120\",\"xid\":7,"
		"\"time\":\"1970-01-01T00:00:01.000000Z\"},"
		"\"too_large\":{\"bytes\":5000,\"max_bytes\":200},\"hash\":\"";
	struct cdc_batch *b = cdc_batch_new(1 << 16), *again = cdc_batch_new(1 << 16);
	struct cdc_note small = note;
	struct cdc_record *r;

	(void)state;
	small.max_bytes = 200;
	assert_int_equal(cdc_note_begin(b, &small, &r, NULL), CDC_OK);
	cdc_buf_puts(&b->json, "{\"a\":1}");
	assert_int_equal(cdc_note_end(b, &small, r, NULL), CDC_LIMIT);
	assert_int_equal(b->n, 0);
	assert_int_equal(cdc_note_stand_in(b, &small, 5000, NULL), CDC_OK);
	assert_memory_equal(b->json.data, head, strlen(head));
	assert_int_equal(b->records[0].flags,
			 CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY | CDC_RECORD_TOO_LARGE);
	assert_int_equal(cdc_scan_record(again, (const char *)b->json.data, b->json.len, NULL),
			 CDC_OK);
	assert_memory_equal(&again->records[0], &b->records[0], sizeof(b->records[0]));
	assert_int_equal(write(b, "{\"a\":1}", "{}"), CDC_OK);
	cdc_batch_free(b);
	cdc_batch_free(again);
}

static void expect_content(const char *bytes, size_t n, const char *expected)
{
	struct cdc_buf out;

	cdc_buf_init(&out, 1 << 12);
	cdc_note_content(&out, (const uint8_t *)bytes, n);
	cdc_buf_putc(&out, '\0');
	assert_string_equal((const char *)out.data, expected);
	cdc_buf_clear(&out);
}

#define TEXT(bytes, json)                                                                          \
	expect_content(bytes, sizeof(bytes) - 1, "\"encoding\":\"text\",\"content\":\"" json "\"")
#define BASE64(bytes, text)                                                                        \
	expect_content(bytes, sizeof(bytes) - 1, "\"encoding\":\"base64\",\"content\":\"" text "\"")

static void content_is_text_if_it_can_be(void **state)
{
	(void)state;
	TEXT("", "");
	TEXT("a\"b\\\n\0", "a\\\"b\\\\\\n\\u0000");
	TEXT("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
	     "\xf4\x8f\xbf\xbf",
	     "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80"
	     "\xf4\x8f\xbf\xbf");
	/* RFC 4648 section 10, with a byte before each that is no UTF-8. */
	BASE64("\xff", "/w==");
	BASE64("\xff"
	       "f",
	       "/2Y=");
	BASE64("\xff"
	       "fo",
	       "/2Zv");
	BASE64("\xff"
	       "foo",
	       "/2Zvbw==");
	BASE64("\xc3", "ww==");                 /* cut short */
	BASE64("\xe2\x82", "4oI=");             /* cut short */
	BASE64("\x80", "gA==");                 /* begins in the middle */
	BASE64("\xc1\xbf", "wb8=");             /* overlong */
	BASE64("\xe0\x9f\xbf", "4J+/");         /* overlong */
	BASE64("\xf0\x8f\xbf\xbf", "8I+/vw=="); /* overlong */
	BASE64("\xed\xa0\x80", "7aCA");         /* half a surrogate pair */
	BASE64("\xf4\x90\x80\x80", "9JCAgA=="); /* above U+10FFFF */
	BASE64("\xf5\x80\x80\x80", "9YCAgA==");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_note_is_what_a_reader_of_records_makes_of_it),
		cmocka_unit_test(a_note_that_does_not_fit_leaves_the_batch_as_it_was),
		cmocka_unit_test(a_note_above_the_limit_has_a_stand_in),
		cmocka_unit_test(content_is_text_if_it_can_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
