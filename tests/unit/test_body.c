/* The body of a request: the envelope is JSON, and records travel byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "sinks/webhook/body.h"

#define ID "50000000-0000-4000-8000-000000000001"

/* What a parser that builds values would not give back as it was. */
static const char *const records[] = {
	"{\"id\":\"a\",\"fields\":{\"n\":12345678901234567890.10,\"z\":1.0e+400}}",
	"{\"id\":\"b\",\"fields\":{\"a\":1,\"a\":2, \"s\" : \"\\u0041\\/\"}}",
	"{\"id\":\"c\",\"fields\":null}",
	"{\"id\":\"d\",\"fields\":{\"text\":\"\xc3\xa4 ],\\\"metadata\\\":{}}}\"}}",
};

#define RECORDS (sizeof(records) / sizeof(records[0]))

static struct cdc_batch *make_batch(struct cdc_view *views)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);

	assert_non_null(b);
	for (size_t i = 0; i < RECORDS; i++) {
		struct cdc_record *r;
		uint16_t table;

		assert_int_equal(cdc_batch_table(b, "public.t", 8, &table, NULL), CDC_OK);
		assert_int_equal(cdc_batch_begin(b, &r, NULL), CDC_OK);
		r->id = (struct cdc_id){.epoch = 1, .commit_lsn = i + 1, .ordinal = 1, .part = 1};
		r->table = table;
		cdc_buf_puts(&b->json, records[i]);
		assert_int_equal(cdc_batch_end(b, NULL), CDC_OK);
	}
	for (size_t i = 0; i < RECORDS; i++)
		views[i] = (struct cdc_view){.rec = &b->records[i], .batch = b};
	return b;
}

static void init(struct sink_webhook_body *body, enum sink_webhook_shape shape, const char *name)
{
	const struct sink_webhook_sync sync = {.body = shape, .wrap = true};
	const struct sink_webhook_body_settings settings = {
		.sync = &sync, .sync_id = ID, .sync_name = name};

	assert_int_equal(sink_webhook_body_init(body, &settings, NULL), CDC_OK);
}

static enum cdc_code write_body(const struct sink_webhook_body *body, const struct cdc_view *views,
				size_t n, struct cdc_buf *out, struct cdc_err *err)
{
	const struct sink_job job = {.views = views, .n = n};

	return sink_webhook_body_write(body, &job, out, err);
}

/* The body of the first n records; its last byte is a NUL. */
static void make_body(enum sink_webhook_shape shape, const char *name, size_t n,
		      struct cdc_buf *out)
{
	struct cdc_view views[RECORDS];
	struct cdc_batch *b = make_batch(views);
	struct sink_webhook_body body;

	cdc_buf_init(out, 1 << 20);
	init(&body, shape, name);
	assert_int_equal(write_body(&body, views, n, out, NULL), CDC_OK);
	sink_webhook_body_clear(&body);
	cdc_batch_free(b);
	cdc_buf_putc(out, '\0');
	assert_false(out->failed);
}

static const char *text(const struct cdc_buf *b)
{
	return (const char *)b->data;
}

static void expect_joined(const char *body, const char *before, size_t n, const char *after)
{
	assert_memory_equal(body, before, strlen(before));
	body += strlen(before);
	for (size_t i = 0; i < n; i++) {
		if (i)
			assert_int_equal(*body++, ',');
		assert_memory_equal(body, records[i], strlen(records[i]));
		body += strlen(records[i]);
	}
	assert_string_equal(body, after);
}

static void the_envelope_is_that_of_the_reference(void **state)
{
	struct cdc_buf body;

	(void)state;
	for (size_t n = 1; n <= RECORDS; n++) {
		make_body(SINK_WEBHOOK_SYNC_RECORDS, "orders", n, &body);
		expect_joined(text(&body),
			      "{\"event\":\"sync.records\",\"object\":{\"id\":\"" ID
			      "\",\"name\":\"orders\",\"records\":[",
			      n, "],\"metadata\":{}}}");
		cdc_buf_clear(&body);
	}
}

static void a_bare_array_is_records_and_nothing_else(void **state)
{
	struct cdc_buf body;

	(void)state;
	for (size_t n = 1; n <= RECORDS; n++) {
		make_body(SINK_WEBHOOK_RECORDS, "orders", n, &body);
		expect_joined(text(&body), "[", n, "]");
		cdc_buf_clear(&body);
	}
}

static void the_envelope_parses_whatever_the_name(void **state)
{
	static const char *const names[] = {"",
					    "orders",
					    "\"quoted\" \\ back",
					    "line\nend\ttab\x01\x1f",
					    "\xc3\xa4\xf0\x9f\x90\x98",
					    "],\"metadata\":{}}}"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct cdc_buf body;
		json_t *root, *object;

		make_body(SINK_WEBHOOK_SYNC_RECORDS, names[i], 0, &body);
		root = json_loads(text(&body), JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(root);
		object = json_object_get(root, "object");
		assert_int_equal(json_object_size(root), 2);
		assert_string_equal(json_string_value(json_object_get(root, "event")),
				    "sync.records");
		assert_int_equal(json_object_size(object), 4);
		assert_string_equal(json_string_value(json_object_get(object, "id")), ID);
		assert_string_equal(json_string_value(json_object_get(object, "name")), names[i]);
		assert_true(json_is_array(json_object_get(object, "records")));
		assert_true(json_is_object(json_object_get(object, "metadata")));
		json_decref(root);
		cdc_buf_clear(&body);
	}
}

static void the_records_are_elements_of_the_array(void **state)
{
	struct cdc_buf body;
	json_t *root, *list;

	(void)state;
	/* jansson refuses the number that no double holds, so the first record stays out. */
	make_body(SINK_WEBHOOK_RECORDS, "orders", RECORDS, &body);
	memset(body.data + 1, ' ', strlen(records[0]));
	memcpy(body.data + 1, "null", 4);
	list = json_loads(text(&body), 0, NULL);
	assert_non_null(list);
	assert_int_equal(json_array_size(list), RECORDS);
	root = json_array_get(list, 3);
	assert_string_equal(json_string_value(json_object_get(root, "id")), "d");
	json_decref(list);
	cdc_buf_clear(&body);
}

static void a_body_above_its_limit_is_refused_and_leaves_the_buffer(void **state)
{
	struct cdc_view views[RECORDS];
	struct cdc_batch *b = make_batch(views);
	struct sink_webhook_body body;
	struct cdc_buf out;
	struct cdc_err err;

	(void)state;
	cdc_buf_init(&out, 64);
	init(&body, SINK_WEBHOOK_RECORDS, "o");
	assert_int_equal(write_body(&body, views, RECORDS, &out, &err), CDC_LIMIT);
	assert_int_equal(out.len, 0);
	cdc_buf_reset(&out, 64);
	assert_int_equal(write_body(&body, views + 2, 1, &out, &err), CDC_OK);
	assert_int_equal(out.len, strlen(records[2]) + 2);
	sink_webhook_body_clear(&body);
	cdc_batch_free(b);
	cdc_buf_clear(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_envelope_is_that_of_the_reference),
		cmocka_unit_test(a_bare_array_is_records_and_nothing_else),
		cmocka_unit_test(the_envelope_parses_whatever_the_name),
		cmocka_unit_test(the_records_are_elements_of_the_array),
		cmocka_unit_test(a_body_above_its_limit_is_refused_and_leaves_the_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
