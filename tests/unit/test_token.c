/* A token by client credentials: what is sent for it, when, and what each answer means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sinks/webhook/token.h"

static char endpoint[] = "https://issuer.example/token", id[] = "the id", secret[] = "se:cr&t";

static struct sink_webhook_connection connection(void)
{
	struct sink_webhook_connection c = {.auth_method = SINK_WEBHOOK_AUTH_OAUTH};

	c.oauth.token_endpoint = endpoint;
	c.oauth.client_id = id;
	c.oauth.client_secret = secret;
	return c;
}

static struct sink_webhook_token *make(const struct sink_webhook_connection *c)
{
	struct sink_webhook_token *t = NULL;

	assert_int_equal(sink_webhook_token_new(c, &t, NULL), CDC_OK);
	return t;
}

static bool take(struct sink_webhook_token *t, int status, const char *body, uint64_t now_ms,
		 struct sink_http_answer *ret_why)
{
	struct sink_http_answer a = {.end = status ? SINK_HTTP_ANSWERED : SINK_HTTP_BROKEN,
				     .status = status,
				     .body = body,
				     .body_len = strlen(body)};

	if (!status)
		(void)snprintf(a.reason, sizeof(a.reason), "nobody listens");
	sink_webhook_token_asked(t);
	assert_false(sink_webhook_token_is_due(t, now_ms));
	return sink_webhook_token_take(t, &a, ret_why, now_ms);
}

static void the_secret_is_sent_in_a_header_or_in_the_body(void **state)
{
	char s1[] = "read", s2[] = "write:all", name[] = "audience", value[] = "https://a/?b=c";
	char *scopes[] = {s1, s2};
	struct cdc_opt_pair extra = {.name = name, .value = value};
	struct sink_webhook_connection c = connection();
	struct sink_webhook_token *t = make(&c);
	const char *const *headers;
	size_t n;

	(void)state;
	headers = sink_webhook_token_headers(t, &n);
	assert_int_equal(n, 3);
	/* the%20id:se%3Acr%26t */
	assert_string_equal(headers[0], "Authorization: Basic dGhlJTIwaWQ6c2UlM0FjciUyNnQ=");
	assert_string_equal(sink_webhook_token_body(t), "grant_type=client_credentials");
	sink_webhook_token_free(t);

	c.oauth.auth_style = SINK_WEBHOOK_OAUTH_BODY;
	c.oauth.scopes = (struct cdc_opt_strs){.items = scopes, .n = 2};
	c.oauth.extra_form_data = (struct cdc_opt_pairs){.items = &extra, .n = 1};
	t = make(&c);
	headers = sink_webhook_token_headers(t, &n);
	assert_int_equal(n, 2);
	assert_string_equal(headers[0], "Content-Type: application/x-www-form-urlencoded");
	assert_string_equal(sink_webhook_token_body(t),
			    "grant_type=client_credentials&client_id=the%20id&client_secret="
			    "se%3Acr%26t&scope=read%20write%3Aall&audience=https%3A%2F%2Fa%2F%3Fb%"
			    "3Dc");
	sink_webhook_token_free(t);
}

static void what_has_a_key_of_its_own_is_no_extra_field(void **state)
{
	static const char *const names[] = {"grant_type", "client_id", "client_secret", "scope"};
	struct sink_webhook_connection c = connection();
	struct sink_webhook_token *t = NULL;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		char name[32], value[] = "hidden";
		struct cdc_opt_pair extra = {.name = name, .value = value};
		struct cdc_err err = {.code = CDC_OK};

		(void)snprintf(name, sizeof(name), "%s", names[i]);
		c.oauth.extra_form_data = (struct cdc_opt_pairs){.items = &extra, .n = 1};
		assert_int_equal(sink_webhook_token_new(&c, &t, &err), CDC_CONFIG);
		assert_non_null(strstr(err.msg, names[i]));
		assert_null(strstr(err.msg, "hidden"));
	}
}

static void a_token_is_asked_for_ahead_of_its_end(void **state)
{
	struct sink_webhook_connection c = connection();
	struct sink_webhook_token *t = make(&c);
	struct sink_http_answer why;

	(void)state;
	assert_null(sink_webhook_token_value(t, 0));
	assert_true(sink_webhook_token_is_due(t, 0));
	assert_true(take(t, 200, "{\"access_token\":\"one\",\"expires_in\":100}", 1000, &why));
	assert_string_equal(sink_webhook_token_value(t, 1000), "one");
	assert_false(sink_webhook_token_is_due(t, 1000 + 79999));
	assert_true(sink_webhook_token_is_due(t, 1000 + 80000));
	assert_string_equal(sink_webhook_token_value(t, 1000 + 89999), "one");
	assert_null(sink_webhook_token_value(t, 1000 + 90000));
	/* While the last one is good, a failure is tried again later; then at once. */
	assert_false(take(t, 500, "", 81000, &why));
	assert_string_equal(sink_webhook_token_value(t, 81000), "one");
	assert_false(sink_webhook_token_is_due(t, 85999));
	assert_true(sink_webhook_token_is_due(t, 86000));
	assert_false(take(t, 500, "", 90000, &why));
	assert_null(sink_webhook_token_value(t, 91000));
	assert_true(sink_webhook_token_is_due(t, 91000));
	sink_webhook_token_free(t);
}

static void the_life_of_a_token_is_read_as_it_is_written(void **state)
{
	static const struct {
		const char *expires;
		uint64_t good_ms, gone_ms; /* 0: never */
	} table[] = {
		{"1", 899, 900},
		{"3600", 3589999, 3590000},
		{"\"3600\"", 3589999, 3590000},
		{"3600.9", 3589999, 3590000},
		{"1e300", 365 * 86400000ULL - 10001, 365 * 86400000ULL - 10000},
		{"999999999999999999999", 365 * 86400000ULL - 10001, 365 * 86400000ULL - 10000},
		{"\"99999999999999999999999\"", 365 * 86400000ULL - 10001,
		 365 * 86400000ULL - 10000},
		{"0", 1000000000000, 0},
		{"-5", 1000000000000, 0},
		{"-1e300", 1000000000000, 0},
		{"null", 1000000000000, 0},
		{"\"soon\"", 1000000000000, 0},
	};
	struct sink_webhook_connection c = connection();
	struct sink_http_answer why;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct sink_webhook_token *t = make(&c);
		char body[128];

		(void)snprintf(body, sizeof(body), "{\"access_token\":\"x\",\"expires_in\":%s}",
			       table[i].expires);
		assert_true(take(t, 200, body, 0, &why));
		if (!sink_webhook_token_value(t, table[i].good_ms) ||
		    (table[i].gone_ms && sink_webhook_token_value(t, table[i].gone_ms)))
			fail_msg("expires_in %s", table[i].expires);
		sink_webhook_token_free(t);
	}
}

static void a_token_that_was_refused_is_not_used_again(void **state)
{
	struct sink_webhook_connection c = connection();
	struct sink_webhook_token *t = make(&c);
	struct sink_http_answer why;

	(void)state;
	assert_true(take(t, 200, "{\"access_token\":\"one\"}", 0, &why));
	assert_true(take(t, 200, "{\"access_token\":\"two\"}", 0, &why));
	/* An answer to a request that had the first one. */
	sink_webhook_token_refused(t, 1);
	assert_string_equal(sink_webhook_token_value(t, 0), "two");
	sink_webhook_token_refused(t, 2);
	assert_null(sink_webhook_token_value(t, 0));
	assert_true(sink_webhook_token_is_due(t, 0));
	sink_webhook_token_free(t);
}

static void an_answer_without_a_token_says_why(void **state)
{
	static const struct {
		int status;
		const char *body, *says;
	} table[] = {
		{0, "", "no token: the token endpoint: nobody listens"},
		{401, "{\"error\":\"invalid_client\",\"error_description\":\"hidden\"}",
		 "no token: the token endpoint answers 401: invalid_client"},
		{400, "{\"error\":\"Hidden \\r\\n\"}", "no token: the token endpoint answers 400"},
		{400, "{\"error\":17}", "no token: the token endpoint answers 400"},
		{302, "{\"access_token\":\"hidden\"}", "no token: the token endpoint answers 302"},
		{503, "hidden", "no token: the token endpoint answers 503"},
		{200, "hidden", "is no JSON object"},
		{200, "", "is no JSON object"},
		{200, "[\"hidden\"]", "is no JSON object"},
		{200, "{}", "holds no access_token"},
		{200, "{\"access_token\":5}", "holds no access_token"},
		{200, "{\"access_token\":\"\"}", "holds no access_token"},
		{200, "{\"access_token\":\"hid den\"}", "holds no access_token"},
		{200, "{\"access_token\":\"hidden\\r\\nX: y\"}", "holds no access_token"},
		{200, "{\"access_token\":\"hidden\\u0000x\"}", "is no JSON object"},
		{200, "{\"access_token\":\"hidden\xc3\xa4\"}", "holds no access_token"},
		{200, "{\"access_token\":\"hidden\",\"token_type\":\"mac\"}", "not of type bearer"},
	};
	struct sink_webhook_connection c = connection();
	struct sink_webhook_token *t = make(&c);
	struct sink_http_answer why;

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (take(t, table[i].status, table[i].body, 0, &why))
			fail_msg("%d %s", table[i].status, table[i].body);
		if (!strstr(why.reason, table[i].says))
			fail_msg("%s: %s", table[i].body, why.reason);
		assert_null(strstr(why.reason, "idden"));
		assert_int_equal(why.status, 0);
		/* Whoever shows what a request was answered would show a token. */
		assert_null(why.body);
		assert_int_equal(why.body_len, 0);
		assert_null(sink_webhook_token_value(t, 0));
		assert_true(sink_webhook_token_is_due(t, 0));
	}
	assert_true(take(t, 200, "{\"access_token\":\"a\",\"token_type\":\"BEARER\"}", 0, &why));
	sink_webhook_token_free(t);
}

static void an_answer_that_is_too_long_is_none(void **state)
{
	static char body[SINK_HTTP_ANSWER_BYTES + 1];
	struct sink_webhook_connection c = connection();
	struct sink_webhook_token *t = make(&c);
	struct sink_http_answer why;
	int n = snprintf(body, sizeof(body), "{\"access_token\":\"a\",\"x\":\"");

	(void)state;
	memset(body + n, 'y', sizeof(body) - 1 - (size_t)n);
	memcpy(body + sizeof(body) - 3, "\"}", 3);
	assert_false(take(t, 200, body, 0, &why));
	assert_non_null(strstr(why.reason, "too long"));
	/* A token of more than SINK_WEBHOOK_TOKEN_MAX bytes. */
	n = snprintf(body, sizeof(body), "{\"access_token\":\"");
	memset(body + n, 'y', SINK_WEBHOOK_TOKEN_MAX + 1);
	memcpy(body + n + SINK_WEBHOOK_TOKEN_MAX + 1, "\"}", 3);
	assert_false(take(t, 200, body, 0, &why));
	memcpy(body + n + SINK_WEBHOOK_TOKEN_MAX, "\"}", 3);
	assert_true(take(t, 200, body, 0, &why));
	sink_webhook_token_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_secret_is_sent_in_a_header_or_in_the_body),
		cmocka_unit_test(what_has_a_key_of_its_own_is_no_extra_field),
		cmocka_unit_test(a_token_is_asked_for_ahead_of_its_end),
		cmocka_unit_test(the_life_of_a_token_is_read_as_it_is_written),
		cmocka_unit_test(a_token_that_was_refused_is_not_used_again),
		cmocka_unit_test(an_answer_without_a_token_says_why),
		cmocka_unit_test(an_answer_that_is_too_long_is_none),
	};

	return cmocka_run_group_tests_name("token", tests, NULL, NULL);
}
