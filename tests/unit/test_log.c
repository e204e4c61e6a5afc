/* A line is one line, whatever is in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/log.h"

struct fixture {
	int fds[2];
	struct cdc_log log;
	char text[65536];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || pipe(f->fds) != 0)
		return -1;
	f->log = (struct cdc_log){.level = CDC_LOG_DEBUG, .comp = "deliver", .fd = f->fds[1]};
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)close(f->fds[0]);
	(void)close(f->fds[1]);
	free(f);
	return 0;
}

/* What was written since; the pipe holds 64 KiB. */
static const char *written(struct fixture *f)
{
	ssize_t n;

	LOG_ERROR(&f->log, "end", KV("n", 0));
	n = read(f->fds[0], f->text, sizeof(f->text) - 1);
	assert_true(n > 0);
	f->text[n] = '\0';
	*strrchr(f->text, '\n') = '\0';
	(strrchr(f->text, '\n') ? strrchr(f->text, '\n') + 1 : f->text)[0] = '\0';
	return f->text;
}

/* The line behind its time, which is as it should be. */
static const char *line_of(struct fixture *f)
{
	const char *text = written(f);

	assert_int_equal(strncmp(text, "ts=20", 5), 0);
	assert_int_equal(text[3 + 27], ' ');
	assert_int_equal(text[3 + 26], 'Z');
	return text + 3 + 28;
}

static void a_line_has_typed_fields(void **state)
{
	struct fixture *f = *state;
	const size_t count = 12;
	char name[] = "orders";

	LOG_WARN(&f->log, "sink_retry", KV("sync", (const char *)name), KV("minus", -3),
		 KV("big", UINT64_MAX), KV("n", count), KV("small", INT64_MIN), KV("real", 0.25),
		 KV("yes", (bool)true), KV("none", (const char *)NULL), KV("plain", name));
	assert_string_equal(line_of(f),
			    "level=warn event=sink_retry comp=deliver sync=orders minus=-3 "
			    "big=18446744073709551615 n=12 small=-9223372036854775808 real=0.25 "
			    "yes=true none=\"\" plain=orders\n");
}

static void an_error_is_three_fields(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {.code = CDC_IO, .msg = "POST: 503"};

	LOG_ERROR(&f->log, "e", KV_ERR(&err));
	assert_string_equal(line_of(f),
			    "level=error event=e comp=deliver code=io msg=\"POST: 503\"\n");
	(void)cdc_err_remedy(&err, "wait");
	LOG_ERROR(&f->log, "e", KV_ERR(&err));
	assert_string_equal(
		line_of(f),
		"level=error event=e comp=deliver code=io msg=\"POST: 503\" remedy=wait\n");
}

static void a_hostile_text_forges_no_line_and_no_field(void **state)
{
	struct fixture *f = *state;

	LOG_INFO(&f->log, "e", KV("a", "x\nlevel=error"), KV("b", "c d=e"), KV("f", "\"g\\"),
		 KV("h", "\r\t\x1b\x7f"), KV("i", "="), KV("j", "\xc3\xa9"));
	assert_string_equal(line_of(f),
			    "level=info event=e comp=deliver a=\"x\\nlevel=error\" b=\"c d=e\" "
			    "f=\"\\\"g\\\\\" h=\"\\u000d\\u0009\\u001b\\u007f\" i=\"=\" "
			    "j=\"\xc3\xa9\"\n");
}

static void json_lines_are_objects(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {.code = CDC_FULL, .msg = "no \"room\"", .remedy = "make\nroom"};
	json_t *j;

	f->log.format = CDC_LOG_JSON;
	LOG_INFO(&f->log, "e", KV("text", "a\n\"b\\\x01\xc3\xa9"), KV("n", -1),
		 KV("yes", (bool)true), KV("real", 1.5), KV_ERR(&err));
	j = json_loads(written(f), JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "level")), "info");
	assert_string_equal(json_string_value(json_object_get(j, "event")), "e");
	assert_string_equal(json_string_value(json_object_get(j, "comp")), "deliver");
	assert_string_equal(json_string_value(json_object_get(j, "text")), "a\n\"b\\\x01\xc3\xa9");
	assert_int_equal(json_integer_value(json_object_get(j, "n")), -1);
	assert_true(json_is_true(json_object_get(j, "yes")));
	assert_true(json_real_value(json_object_get(j, "real")) == 1.5);
	assert_string_equal(json_string_value(json_object_get(j, "code")), "full");
	assert_string_equal(json_string_value(json_object_get(j, "msg")), "no \"room\"");
	assert_string_equal(json_string_value(json_object_get(j, "remedy")), "make\nroom");
	json_decref(j);
}

static void a_field_that_does_not_fit_is_left_out_whole(void **state)
{
	static char big[9000];
	struct fixture *f = *state;
	const char *line;
	json_t *j;

	memset(big, 'x', sizeof(big) - 1);
	LOG_INFO(&f->log, "e", KV("a", 1), KV("big", (const char *)big), KV("b", 2));
	assert_string_equal(line_of(f), "level=info event=e comp=deliver a=1 b=2\n");
	memset(big, '"', sizeof(big) - 1);
	big[5000] = '\0'; /* twice as long when escaped */
	f->log.format = CDC_LOG_JSON;
	LOG_INFO(&f->log, "e", KV("big", (const char *)big), KV("b", 2));
	line = written(f);
	j = json_loads(line, 0, NULL);
	assert_non_null(j);
	assert_null(json_object_get(j, "big"));
	assert_int_equal(json_integer_value(json_object_get(j, "b")), 2);
	json_decref(j);
}

static int asked(int *times)
{
	return ++*times;
}

static void below_the_level_nothing_is_evaluated(void **state)
{
	struct fixture *f = *state;
	int times = 0;

	f->log.level = CDC_LOG_WARN;
	LOG_DEBUG(&f->log, "e", KV("n", asked(&times)));
	LOG_INFO(&f->log, "e", KV("n", asked(&times)));
	assert_int_equal(times, 0);
	LOG_WARN(&f->log, "e", KV("n", asked(&times)));
	assert_int_equal(times, 1);
	assert_non_null(strstr(written(f), "level=warn"));
}

static void a_repeated_failure_is_due_at_powers_of_two(void **state)
{
	unsigned due = 0;

	(void)state;
	assert_false(cdc_log_is_due(0));
	for (uint64_t n = 1; n <= 1024; n++)
		due += cdc_log_is_due(n);
	assert_int_equal(due, 11);
	assert_true(cdc_log_is_due(UINT64_C(1) << 63));
}

static void *log_many(void *arg)
{
	const struct fixture *f = arg;

	for (int i = 0; i < 100; i++)
		LOG_INFO(&f->log, "many", KV("i", i), KV("text", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[2];
	char *line, *rest = f->text;
	unsigned n = 0;

	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_many, f), 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	(void)written(f);
	while ((line = strsep(&rest, "\n")) && *line) {
		assert_int_equal(strncmp(line, "ts=", 3), 0);
		assert_string_equal(strrchr(line, ' '), " text=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
		n++;
	}
	assert_int_equal(n, 200);
}

static void a_log_that_cannot_be_written_harms_nobody(void **state)
{
	struct cdc_log log = {.comp = "x", .fd = -1};

	(void)state;
	LOG_ERROR(&log, "e", KV("a", 1));
}

int main(void)
{
#define PIPED(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		PIPED(a_line_has_typed_fields),
		PIPED(an_error_is_three_fields),
		PIPED(a_hostile_text_forges_no_line_and_no_field),
		PIPED(json_lines_are_objects),
		PIPED(a_field_that_does_not_fit_is_left_out_whole),
		PIPED(below_the_level_nothing_is_evaluated),
		PIPED(lines_of_threads_do_not_mix),
		cmocka_unit_test(a_repeated_failure_is_due_at_powers_of_two),
		cmocka_unit_test(a_log_that_cannot_be_written_harms_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
