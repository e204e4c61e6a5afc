/* What an answer over HTTP means: statuses, and every form of Retry-After against a clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sinks/http/outcome.h"

#define NOW_S  INT64_C(784111777) /* Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110 */
#define NOW_US (NOW_S * 1000000)

static struct sink_result judge(const struct sink_http_answer *a)
{
	struct sink_result r;

	memset(&r, 0xa5, sizeof(r));
	sink_http_outcome(a, NOW_US, &r);
	return r;
}

static void every_status_has_its_outcome(void **state)
{
	static const struct {
		int status;
		enum sink_outcome outcome;
		bool is_never_record, is_transient;
	} table[] = {
		{200, SINK_DONE, false, false},   {201, SINK_DONE, false, false},
		{202, SINK_DONE, false, false},   {204, SINK_DONE, false, false},
		{299, SINK_DONE, false, false},   {300, SINK_REJECT, true, false},
		{301, SINK_REJECT, true, false},  {302, SINK_REJECT, true, false},
		{304, SINK_REJECT, true, false},  {307, SINK_REJECT, true, false},
		{308, SINK_REJECT, true, false},  {399, SINK_REJECT, true, false},
		{400, SINK_REJECT, false, false}, {401, SINK_REJECT, true, false},
		{402, SINK_REJECT, false, false}, {403, SINK_REJECT, true, false},
		{404, SINK_REJECT, false, false}, {405, SINK_REJECT, false, false},
		{407, SINK_REJECT, true, false},  {408, SINK_RETRY, false, true},
		{409, SINK_REJECT, false, false}, {410, SINK_STOP, false, false},
		{413, SINK_REJECT, false, false}, {415, SINK_REJECT, false, false},
		{418, SINK_REJECT, false, false}, {422, SINK_REJECT, false, false},
		{425, SINK_RETRY, false, true},   {429, SINK_RETRY, true, false},
		{499, SINK_REJECT, false, false}, {500, SINK_RETRY, false, true},
		{501, SINK_RETRY, false, true},   {502, SINK_RETRY, false, true},
		{503, SINK_RETRY, false, true},   {504, SINK_RETRY, false, true},
		{599, SINK_RETRY, false, true},   {999, SINK_RETRY, false, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct sink_result r = judge(&(struct sink_http_answer){.end = SINK_HTTP_ANSWERED,
									.status = table[i].status,
									.took_us = 7,
									.sent_bytes = 9});
		char digits[8];

		(void)snprintf(digits, sizeof(digits), "%d", table[i].status);
		if (r.outcome != table[i].outcome ||
		    r.is_never_record != table[i].is_never_record ||
		    r.is_transient != table[i].is_transient)
			fail_msg("status %d: outcome %d, never %d, transient %d", table[i].status,
				 (int)r.outcome, r.is_never_record, r.is_transient);
		assert_int_equal(r.status, table[i].status);
		assert_int_equal(r.took_us, 7);
		assert_int_equal(r.sent_bytes, 9);
		assert_int_equal(r.ticket, 0);
		assert_true(r.retry_after_ms == SINK_NO_RETRY_AFTER);
		assert_memory_equal(r.text, digits, strlen(digits));
		assert_non_null(memchr(r.text, '\0', sizeof(r.text)));
	}
}

static void no_answer_is_retried_and_says_why(void **state)
{
	static const enum sink_http_end ends[] = {SINK_HTTP_TIMEOUT, SINK_HTTP_BROKEN};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct sink_http_answer a = {.end = ends[i], .reason = "nobody listens"};
		struct sink_result r = judge(&a);

		assert_int_equal(r.outcome, SINK_RETRY);
		assert_int_equal(r.status, 0);
		assert_true(r.is_transient);
		assert_false(r.is_never_record);
		assert_true(r.retry_after_ms == SINK_NO_RETRY_AFTER);
		assert_string_equal(r.text, "nobody listens");
	}
}

static void what_walpost_lacks_is_nobody_elses_fault(void **state)
{
	struct sink_http_answer a = {.end = SINK_HTTP_LACKING, .reason = "no descriptor"};
	struct sink_result r = judge(&a);

	(void)state;
	assert_int_equal(r.outcome, SINK_RETRY);
	assert_true(r.is_ours && r.is_never_record);
	assert_false(r.is_transient);
	assert_string_equal(r.text, "no descriptor");
}

static void the_wait_an_endpoint_asks_for_is_kept_where_one_waits(void **state)
{
	static const struct {
		int status;
		bool is_kept;
	} table[] = {{200, false}, {301, true}, {400, true},
		     {410, false}, {429, true}, {503, true}};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct sink_result r = judge(&(struct sink_http_answer){
			.end = SINK_HTTP_ANSWERED, .status = table[i].status, .retry_after = "17"});

		if ((r.retry_after_ms == 17000) != table[i].is_kept)
			fail_msg("status %d", table[i].status);
	}
}

static void texts_name_the_status(void **state)
{
	struct sink_result r;

	(void)state;
	r = judge(&(struct sink_http_answer){.end = SINK_HTTP_ANSWERED, .status = 503});
	assert_string_equal(r.text, "503 Service Unavailable");
	r = judge(&(struct sink_http_answer){.end = SINK_HTTP_ANSWERED, .status = 418});
	assert_string_equal(r.text, "418");
	r = judge(&(struct sink_http_answer){.end = SINK_HTTP_ANSWERED, .status = 200});
	assert_string_equal(r.text, "200");
	r = judge(&(struct sink_http_answer){.end = SINK_HTTP_ANSWERED, .status = 302});
	assert_string_equal(r.text, "302 a redirect, which is not followed");
}

static void retry_after_is_read_in_all_its_forms(void **state)
{
	static const struct {
		const char *value;
		uint64_t want_ms;
	} table[] = {
		{"0", 0},
		{"1", 1000},
		{"120", 120000},
		{" 120 ", 120000},
		{"86400", 86400000},
		{"Sun, 06 Nov 1994 08:49:37 GMT", 0},
		{"Sun, 06 Nov 1994 08:49:38 GMT", 1000},
		{"Sun, 06 Nov 1994 08:49:38 GMT ", 1000},
		{"Sun, 06 Nov 1994 09:49:37 GMT", 3600000},
		{"Mon, 07 Nov 1994 08:49:37 GMT", 86400000},
		{"Sun, 06 Nov 1994 08:49:36 GMT", 0}, /* past */
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Sunday, 06-Nov-94 08:49:47 GMT", 10000},
		{"Saturday, 06-Nov-93 08:49:37 GMT", 0},
		{"Sun Nov  6 08:49:57 1994", 20000},
		{"Wed Nov 16 08:49:37 1994", 864000000},
		{"", SINK_NO_RETRY_AFTER},
		{"soon", SINK_NO_RETRY_AFTER},
		{"-1", SINK_NO_RETRY_AFTER},
		{"+1", SINK_NO_RETRY_AFTER},
		{"1.5", SINK_NO_RETRY_AFTER},
		{"12 s", SINK_NO_RETRY_AFTER},
		{"1e3", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 08:49:38", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 08:49:38 PST", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 08:49:38 GMT+1", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Foo 1994 08:49:38 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 06 ovD 1994 08:49:38 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 00 Nov 1994 08:49:38 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 32 Nov 1994 08:49:38 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 24:49:38 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 08:60:38 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 08:49:61 GMT", SINK_NO_RETRY_AFTER},
		{"Sun, 06 Nov 1994 08:49:-1 GMT", SINK_NO_RETRY_AFTER},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		uint64_t got = sink_http_retry_after_ms(table[i].value, "", NOW_US);

		if (got != table[i].want_ms)
			fail_msg("\"%s\": %llu", table[i].value, (unsigned long long)got);
	}
}

static void part_of_a_second_is_not_lost(void **state)
{
	(void)state;
	assert_int_equal(
		sink_http_retry_after_ms("Sun, 06 Nov 1994 08:49:38 GMT", "", NOW_US + 250000),
		750);
}

static void a_number_without_end_stays_a_number(void **state)
{
	uint64_t ms =
		sink_http_retry_after_ms("99999999999999999999999999999999999999", "", NOW_US);

	(void)state;
	assert_true(ms != SINK_NO_RETRY_AFTER);
	assert_true(ms > UINT64_C(86400000) * 365);
}

static void a_year_of_two_digits_is_the_nearest(void **state)
{
	/* 2026-01-01; RFC 9110: more than 50 years ahead means the past. */
	const int64_t now_us = INT64_C(1767225600) * 1000000;

	(void)state;
	assert_int_equal(sink_http_retry_after_ms("Thursday, 01-Jan-26 00:00:05 GMT", "", now_us),
			 5000);
	assert_true(sink_http_retry_after_ms("Wednesday, 01-Jan-76 00:00:05 GMT", "", now_us) > 0);
	assert_int_equal(sink_http_retry_after_ms("Saturday, 01-Jan-77 00:00:05 GMT", "", now_us),
			 0);
}

static void a_date_is_measured_by_the_endpoints_own_clock(void **state)
{
	static const char at[] = "Sun, 06 Nov 1994 08:50:07 GMT";
	const int64_t wrong_us = NOW_US + INT64_C(7200) * 1000000;

	(void)state;
	assert_int_equal(sink_http_retry_after_ms(at, "Sun, 06 Nov 1994 08:49:37 GMT", wrong_us),
			 30000);
	assert_int_equal(sink_http_retry_after_ms(at, "", wrong_us), 0);
	assert_int_equal(sink_http_retry_after_ms(at, "yesterday", NOW_US), 30000);
	/* Seconds need no clock. */
	assert_int_equal(sink_http_retry_after_ms("5", "Sun, 06 Nov 1994 08:49:37 GMT", wrong_us),
			 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_status_has_its_outcome),
		cmocka_unit_test(no_answer_is_retried_and_says_why),
		cmocka_unit_test(what_walpost_lacks_is_nobody_elses_fault),
		cmocka_unit_test(the_wait_an_endpoint_asks_for_is_kept_where_one_waits),
		cmocka_unit_test(texts_name_the_status),
		cmocka_unit_test(retry_after_is_read_in_all_its_forms),
		cmocka_unit_test(part_of_a_second_is_not_lost),
		cmocka_unit_test(a_number_without_end_stays_a_number),
		cmocka_unit_test(a_year_of_two_digits_is_the_nearest),
		cmocka_unit_test(a_date_is_measured_by_the_endpoints_own_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
