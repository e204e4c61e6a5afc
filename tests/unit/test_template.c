/* Placeholders of urls and headers: what stands for them, and that nothing gets out of its place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/scan.h"
#include "sinks/webhook/template.h"

#define ID   "00000001-0000000000000001-00000001-0001"
#define URL  SINK_WEBHOOK_TEMPLATE_URL
#define LINE SINK_WEBHOOK_TEMPLATE_LINE

/* A record of this table, key and fields, in JSON. */
static struct cdc_batch *record_of(const char *op, const char *schema, const char *key,
				   const char *fields)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	char *json;
	int n = asprintf(&json,
			 "{\"id\":\"" ID "\",\"operation\":\"%s\",\"schema\":\"%s\",\"key\":%s,"
			 "\"fields\":%s,\"position\":\"0/1\",\"commit\":{\"lsn\":\"0/1\",\"xid\":1,"
			 "\"time\":\"2026-01-01T00:00:00.000000Z\"},\"hash\":\"0000000000000000\"}",
			 op, schema, key, fields);

	assert_non_null(b);
	assert_true(n > 0);
	assert_int_equal(cdc_scan_record(b, json, (size_t)n, NULL), CDC_OK);
	free(json);
	return b;
}

/* What the template becomes with the batch's record; NULL: it cannot be sent. */
static const char *fill(const char *text, enum sink_webhook_template_kind kind,
			const struct cdc_batch *b, struct cdc_buf *out)
{
	const struct cdc_view view = {.rec = &b->records[0], .batch = b};
	struct sink_webhook_template *t;
	struct cdc_buf scratch;
	struct cdc_err err = {0};
	enum cdc_code rc;

	cdc_buf_init(&scratch, 1 << 16);
	cdc_buf_init(out, 1 << 16);
	rc = sink_webhook_template_new(text, kind, &t, &err);
	if (rc)
		fail_msg("\"%s\": %s", text, err.msg);
	rc = sink_webhook_template_put(t, view, &scratch, out, &err);
	sink_webhook_template_free(t);
	cdc_buf_clear(&scratch);
	cdc_buf_putc(out, '\0');
	assert_true(rc == CDC_OK || rc == CDC_LIMIT);
	assert_true(rc == CDC_OK || err.msg[0]);
	return rc ? NULL : (const char *)out->data;
}

struct filled {
	const char *text, *expected; /* NULL: refused */
};

static void expect_all(const struct filled *cases, size_t n, enum sink_webhook_template_kind kind,
		       const struct cdc_batch *b)
{
	for (size_t i = 0; i < n; i++) {
		struct cdc_buf out;
		const char *is = fill(cases[i].text, kind, b, &out);

		if (!cases[i].expected && is)
			fail_msg("\"%s\" became \"%s\"", cases[i].text, is);
		if (cases[i].expected && (!is || strcmp(is, cases[i].expected) != 0))
			fail_msg("\"%s\" became \"%s\", not \"%s\"", cases[i].text,
				 is ? is : "nothing", cases[i].expected);
		cdc_buf_clear(&out);
	}
}

#define EXPECT_ALL(cases, kind, b) expect_all(cases, sizeof(cases) / sizeof((cases)[0]), kind, b)

static void every_placeholder_has_its_text(void **state)
{
	static const struct filled cases[] = {
		{"http://h/{schema}/{table}", "http://h/public/orders"},
		{"http://h/{operation}?id={id}", "http://h/update?id=" ID},
		{"http://h/{key.id}", "http://h/12345678901234567890"},
		{"http://h/{key.b c}", "http://h/x"},
		{"http://h/{key.q\"\xc3\xa4}", "http://h/y"},
		{"http://h/{fields.total}/x", "http://h/24.90/x"},
		{"http://h/{fields.flag}{fields.total}", "http://h/true24.90"},
		{"http://h/{fields.j}", "http://h/%7B%22a%22%3A%5B1%5D%7D"},
		{"http://h/a%20b", "http://h/a%20b"},
		{"http://h/{{{table}}}", "http://h/%7Borders%7D"},
		{"http://u:p@h:80?{table}={key.id|none}",
		 "http://u:p@h:80?orders=12345678901234567890"},
	};
	struct cdc_batch *b =
		record_of("update", "public.orders",
			  "{\"id\":12345678901234567890,\"b c\":\"x\",\"q\\\"\xc3\xa4\":\"y\"}",
			  "{\"total\":24.90,\"flag\":true,\"j\": {\"a\":[1]} ,\"none\":null}");

	(void)state;
	EXPECT_ALL(cases, URL, b);
	cdc_batch_free(b);
}

static void what_is_not_there_is_refused_or_has_a_text(void **state)
{
	static const struct filled cases[] = {
		{"http://h/{key.id}", NULL},
		{"http://h/{key.id|no key}", "http://h/no%20key"},
		{"http://h/{key.id|}x", "http://h/x"},
		{"http://h/{fields.none}", NULL},
		{"http://h/{fields.none|-}", "http://h/-"},
		{"http://h/{fields.absent}", NULL},
		{"http://h/{fields.absent|../x}", "http://h/..%2Fx"},
		{"http://h/{fields.a}", "http://h/1"},
	};
	struct cdc_batch *b =
		record_of("delete", "public.orders", "null", "{\"none\":null,\"a\":1}");

	(void)state;
	EXPECT_ALL(cases, URL, b);
	cdc_batch_free(b);
	b = record_of("truncate", "public.orders", "null", "null");
	EXPECT_ALL(((const struct filled[]){{"http://h/{fields.a}", NULL},
					    {"http://h/{fields.a|all}", "http://h/all"}}),
		   URL, b);
	cdc_batch_free(b);
}

/* Each value where it could do harm; NULL: the record is refused. */
static void no_value_leaves_its_place_in_a_url(void **state)
{
	static const struct {
		const char *json, *path, *query;
	} values[] = {
		{"a/b", "a%2Fb", "a%2Fb"},
		{"a?b#c", "a%3Fb%23c", "a%3Fb%23c"},
		{"a&b=c", "a%26b%3Dc", "a%26b%3Dc"},
		{"%2e%2e", "%252e%252e", "%252e%252e"},
		{"\\\\", "%5C", "%5C"},
		{"\\r\\nHost: x", "%0D%0AHost%3A%20x", "%0D%0AHost%3A%20x"},
		{"\\u0000", "%00", "%00"},
		{"@evil:80", "%40evil%3A80", "%40evil%3A80"},
		{"\xc3\xa4\\u20ac", "%C3%A4%E2%82%AC", "%C3%A4%E2%82%AC"},
		{"{table}", "%7Btable%7D", "%7Btable%7D"},
		{"~a-b_c.d", "~a-b_c.d", "~a-b_c.d"},
		{"", NULL, ""},
		{".", NULL, "."},
		{"..", NULL, ".."},
		{"...", "...", "..."},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		char fields[128], path[128], query[128];
		struct cdc_batch *b;

		(void)snprintf(fields, sizeof(fields), "{\"v\":\"%s\"}", values[i].json);
		(void)snprintf(path, sizeof(path), "http://h/a/%s/z",
			       values[i].path ? values[i].path : "");
		(void)snprintf(query, sizeof(query), "http://h/a?v=%s&w=/../", values[i].query);
		b = record_of("insert", "public.t", "null", fields);
		EXPECT_ALL(((const struct filled[]){
				   {"http://h/a/{fields.v}/z", values[i].path ? path : NULL},
				   {"http://h/a?v={fields.v}&w=/../", query}}),
			   URL, b);
		cdc_batch_free(b);
	}
}

static void a_segment_is_looked_at_as_a_whole(void **state)
{
	static const struct filled cases[] = {
		{"http://h/{fields.dot}{fields.dot}", NULL},
		{"http://h/{fields.dot}{fields.dot}?x", NULL},
		{"http://h/.{fields.dot}/x", NULL},
		{"http://h/{fields.empty}{fields.empty}/", NULL},
		{"http://h/{fields.empty}", NULL},
		{"http://h/x{fields.empty}", "http://h/x"},
		{"http://h/x{fields.dot}/../{fields.dot}y", "http://h/x./../.y"},
		{"http://h?{fields.dot}{fields.empty}", "http://h?."},
	};
	struct cdc_batch *b =
		record_of("insert", "public.t", "null", "{\"dot\":\".\",\"empty\":\"\"}");

	(void)state;
	EXPECT_ALL(cases, URL, b);
	cdc_batch_free(b);
}

static void no_value_ends_its_header(void **state)
{
	static const struct filled cases[] = {
		{"X-A: {table}", "X-A: t"},
		{"X-A: {fields.crlf}", "X-A: a%0D%0AX-B:%201"},
		{"X-A: {fields.nul}", "X-A: %00"},
		{"X-A: {fields.uml}", "X-A: %C3%A4"},
		{"X-A: a {fields.quoted}", "X-A: a %22%25;,%22"},
		{"X-A: {{\"t\":\"{table}\"}}", "X-A: {\"t\":\"t\"}"},
		{"X-A: {fields.none}", NULL},
		{"X-A: {fields.none|a b}.", "X-A: a%20b."},
	};
	struct cdc_batch *b = record_of("insert", "public.t", "null",
					"{\"crlf\":\"a\\r\\nX-B: 1\",\"nul\":\"\\u0000\","
					"\"uml\":\"\xc3\xa4\",\"quoted\":\"\\\"%;,\\\"\"}");

	(void)state;
	EXPECT_ALL(cases, LINE, b);
	cdc_batch_free(b);
}

static void a_url_that_would_be_too_long_is_refused(void **state)
{
	static char fields[40000];
	struct cdc_batch *b;
	struct cdc_buf out;
	int n = snprintf(fields, sizeof(fields), "{\"v\":\"");

	(void)state;
	memset(fields + n, '/', 30000);
	memcpy(fields + n + 30000, "\"}", 3);
	b = record_of("insert", "public.t", "null", fields);
	assert_null(fill("http://h/{fields.v}", URL, b, &out));
	cdc_buf_clear(&out);
	cdc_batch_free(b);
}

static void what_is_no_template_is_refused(void **state)
{
	static const struct {
		const char *text, *names;
		enum sink_webhook_template_kind kind;
	} cases[] = {
		{"http://{table}/x", "host and port", URL},
		{"http://h{table}/x", "host and port", URL},
		{"http://h:{key.port}/x", "host and port", URL},
		{"http://{key.user}@h/x", "host and port", URL},
		{"http://h\\{table}", "host and port", URL},
		{"http://h/{tabel}", "no placeholder", URL},
		{"http://h/{}", "no placeholder", URL},
		{"http://h/{key.}", "no placeholder", URL},
		{"http://h/{key}", "no placeholder", URL},
		{"http://h/{table|x}", "no placeholder", URL},
		{"http://h/{changes.a}", "no placeholder", URL},
		{"http://h/{table", "no }", URL},
		{"http://h/{ta{ble}", "no }", URL},
		{"http://h/table}", "no {", URL},
		{"http://h/%{key.id}", "hex digits", URL},
		{"http://h/%2{key.id}", "hex digits", URL},
		{"X-A: {tabel}", "no placeholder", LINE},
		{"X-A: {\"a\":1}", "no placeholder", LINE},
		{"X-A: a}b", "no {", LINE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sink_webhook_template *t = NULL;
		struct cdc_err err = {0};

		if (sink_webhook_template_new(cases[i].text, cases[i].kind, &t, &err) != CDC_CONFIG)
			fail_msg("taken: %s", cases[i].text);
		if (!strstr(err.msg, cases[i].names) || strstr(err.msg, "tabel"))
			fail_msg("of %s: %s", cases[i].text, err.msg);
	}
}

static void what_is_fixed_of_a_url_comes_before_the_first_placeholder(void **state)
{
	static const struct {
		const char *url, *fixed;
		bool is_path;
	} cases[] = {
		{"http://h/a/b{table}/c?d", "http://h/a/", true},
		{"http://h/{table}", "http://h/", true},
		{"http://h/a/b?c={table}", "http://h/a/b", false},
		{"http://h?c={table}", "http://h", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool is_path;
		size_t n = sink_webhook_template_fixed(cases[i].url, &is_path);

		assert_int_equal(n, strlen(cases[i].fixed));
		assert_int_equal(is_path, cases[i].is_path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_placeholder_has_its_text),
		cmocka_unit_test(what_is_not_there_is_refused_or_has_a_text),
		cmocka_unit_test(no_value_leaves_its_place_in_a_url),
		cmocka_unit_test(a_segment_is_looked_at_as_a_whole),
		cmocka_unit_test(no_value_ends_its_header),
		cmocka_unit_test(a_url_that_would_be_too_long_is_refused),
		cmocka_unit_test(what_is_no_template_is_refused),
		cmocka_unit_test(what_is_fixed_of_a_url_comes_before_the_first_placeholder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
