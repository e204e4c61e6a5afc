/* The HTTP pages, asked for over real sockets: what they say, and what the server refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "cdc/api/health.h"
#include "cdc/api/metrics_text.h"
#include "cdc/api/server.h"
#include "cdc/api/status_text.h"
#include "cdc/base/clock.h"

#define MINUTE_US  INT64_C(60000000)
#define NOW_US     INT64_C(1767225600000000) /* 2026-01-01T00:00:00Z */
#define UUID       "00000000-0000-5000-8000-000000000001"
#define WAIT_S     120
#define ANSWER_MAX (size_t)(64 << 20)

/* Two slots, three syncs; one buffer is a real one, the other could not be opened. */
struct fixture {
	char dir[64];
	struct cdc_source_metrics source_metrics[2];
	struct cdc_buffer_metrics buffer_metrics[2];
	struct cdc_sync_metrics sync_metrics[3];
	struct cdc_board source_boards[2], sync_boards[3];
	struct cdc_behind behind[3];
	struct cdc_server_source sources[2];
	struct cdc_server_sync syncs[3];
	struct cdc_server_setup setup;
	struct cdc_server *server;
};

static void open_buffer(struct fixture *f)
{
	const struct cdc_buffer_settings settings = {
		.dir = f->dir,
		.slot = "walpost_shop",
		.max_bytes = 16 << 20,
		.metrics = &f->buffer_metrics[0],
	};
	struct cdc_err err = {0};

	if (cdc_buffer_local.open(&settings, &f->sources[0].buffer, &err))
		fail_msg("%s", err.msg);
	f->sources[0].ops = &cdc_buffer_local;
}

static int set_up(void **state)
{
	static const char *const names[] = {"orders", "invoices", "mail"};
	struct fixture *f = calloc(1, sizeof(*f));
	struct cdc_err err = {0};

	if (!f)
		return -1;
	(void)signal(SIGPIPE, SIG_IGN);
	(void)strcpy(f->dir, "/tmp/test_api.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	for (size_t i = 0; i < 2; i++) {
		cdc_board_init(&f->source_boards[i]);
		cdc_board_post(&f->source_boards[i], CDC_STATE_RUNNING, NULL, NOW_US - MINUTE_US);
		f->sources[i] = (struct cdc_server_source){
			.connection = i ? "crm" : "shop",
			.slot = i ? "walpost_crm" : "walpost_shop",
			.metrics = &f->source_metrics[i],
			.board = &f->source_boards[i],
			.buffer_metrics = &f->buffer_metrics[i],
		};
	}
	open_buffer(f);
	for (size_t i = 0; i < 3; i++) {
		cdc_board_init(&f->sync_boards[i]);
		cdc_behind_init(&f->behind[i]);
		cdc_board_post(&f->sync_boards[i], CDC_STATE_RUNNING, NULL,
			       NOW_US - 90 * MINUTE_US);
		f->syncs[i] = (struct cdc_server_sync){
			.name = names[i],
			.uuid = UUID,
			.source = i == 2 ? "crm" : "shop",
			.destination = "hook",
			.source_index = i == 2,
			.metrics = &f->sync_metrics[i],
			.board = &f->sync_boards[i],
			.behind = &f->behind[i],
		};
	}
	f->setup = (struct cdc_server_setup){
		.listen = "127.0.0.1:0",
		.sources = f->sources,
		.source_n = 2,
		.syncs = f->syncs,
		.sync_n = 3,
		.started_us = NOW_US - 25 * 60 * MINUTE_US,
	};
	if (cdc_server_start(&f->setup, &f->server, &err))
		fail_msg("%s", err.msg);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[96];

	cdc_server_stop(f->server);
	cdc_buffer_local.close(f->sources[0].buffer);
	for (size_t i = 0; i < 2; i++)
		cdc_board_clear(&f->source_boards[i]);
	for (size_t i = 0; i < 3; i++) {
		cdc_board_clear(&f->sync_boards[i]);
		cdc_behind_clear(&f->behind[i]);
	}
	(void)snprintf(command, sizeof(command), "rm -r %s", f->dir);
	if (system(command) != 0)
		return -1;
	free(f);
	return 0;
}

static void fail_sync(struct fixture *f, size_t i, const char *msg, const char *remedy)
{
	struct cdc_err err = {0};

	(void)cdc_err_set(&err, CDC_AUTH, "%s", msg);
	(void)cdc_err_remedy(&err, "%s", remedy);
	cdc_board_post(&f->sync_boards[i], CDC_STATE_FAILED, &err, NOW_US);
}

/* --- a small client ----------------------------------------------------------------- */

struct reply {
	unsigned status;
	char *head, *body; /* both NUL-terminated, in one allocation; body_n counts */
	size_t body_n;
};

static void reply_clear(struct reply *r)
{
	free(r->head);
	*r = (struct reply){0};
}

static int dial(const struct fixture *f)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)cdc_server_port(f->server)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct timeval wait = {.tv_sec = WAIT_S};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)), 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* Reads one answer, by its Content-Length; false when the connection ends before. */
static bool read_reply(int fd, bool has_body, struct reply *r)
{
	struct cdc_buf b;
	char *end = NULL, *field;
	size_t want = 0;

	cdc_buf_init(&b, ANSWER_MAX);
	for (;;) {
		uint8_t *to = cdc_buf_reserve(&b, 65536);
		ssize_t n;

		if (end && b.len >= (size_t)(end - (char *)b.data) + 4 + want)
			break;
		assert_non_null(to);
		n = recv(fd, to, end ? 65535 : 1, 0);
		if (n <= 0) {
			cdc_buf_clear(&b);
			return false;
		}
		b.len += (size_t)n;
		b.data[b.len] = '\0';
		/* The memory may have moved. */
		end = strstr((char *)b.data, "\r\n\r\n");
		field = strcasestr((char *)b.data, "\r\nContent-Length:");
		want = end && field && has_body ? strtoul(field + 17, NULL, 10) : 0;
	}
	*r = (struct reply){.head = (char *)b.data, .body = end + 4, .body_n = want};
	end[2] = '\0';
	assert_int_equal(strncmp(r->head, "HTTP/1.1 ", 9), 0);
	r->status = (unsigned)strtoul(r->head + 9, NULL, 10);
	return true;
}

static void send_text(int fd, const char *text)
{
	assert_true(send(fd, text, strlen(text), 0) == (ssize_t)strlen(text));
}

/* One request on a connection of its own; the caller clears the answer. */
static struct reply ask(const struct fixture *f, const char *method, const char *target)
{
	struct reply r = {0};
	char text[256];
	int fd = dial(f);

	(void)snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, target);
	send_text(fd, text);
	if (!read_reply(fd, strcmp(method, "HEAD") != 0, &r))
		fail_msg("%s %s: no answer", method, target);
	(void)close(fd);
	return r;
}

static json_t *ask_json(const struct fixture *f, const char *target, unsigned status)
{
	struct reply r = ask(f, "GET", target);
	json_t *j = json_loadb(r.body, r.body_n, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(j);
	assert_int_equal(r.status, status);
	assert_non_null(strstr(r.head, "Content-Type: application/json\r\n"));
	assert_non_null(strstr(r.head, "Cache-Control: no-store\r\n"));
	reply_clear(&r);
	return j;
}

static const char *text_at(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	if (!text)
		fail_msg("no text \"%s\"", key);
	return text;
}

/* --- health and readiness ----------------------------------------------------------- */

static unsigned health(struct fixture *f, uint64_t started_ms, uint64_t now_ms)
{
	struct cdc_buf b;
	unsigned status;

	cdc_buf_init(&b, ANSWER_MAX);
	status = cdc_health_json(&f->setup, started_ms, now_ms, &b);
	cdc_buf_clear(&b);
	return status;
}

static void healthz_is_well_while_every_loop_turns(void **state)
{
	struct fixture *f = *state;

	/* Before a loop's first turn the start counts. */
	assert_int_equal(health(f, 1000, 30999), 200);
	assert_int_equal(health(f, 1000, 31000), 503);
	for (size_t i = 0; i < 2; i++)
		cdc_board_beat(&f->source_boards[i], 50000);
	for (size_t i = 0; i < 3; i++)
		cdc_board_beat(&f->sync_boards[i], 50000);
	assert_int_equal(health(f, 1000, 79999), 200);
	assert_int_equal(health(f, 1000, 80000), 503);
	/* A clock that was read a little earlier. */
	assert_int_equal(health(f, 1000, 49999), 200);
}

static void a_loop_that_failed_or_ended_may_stand_still(void **state)
{
	static const enum cdc_state resting[] = {CDC_STATE_FAILED, CDC_STATE_SUSPENDED,
						 CDC_STATE_ENDED};
	struct fixture *f = *state;

	for (size_t i = 0; i < 2; i++)
		cdc_board_beat(&f->source_boards[i], 100000);
	for (size_t i = 0; i < 3; i++) {
		cdc_board_beat(&f->sync_boards[i], i ? 100000 : 1);
	}
	assert_int_equal(health(f, 1, 100000), 503);
	for (size_t i = 0; i < 3; i++) {
		cdc_board_post(&f->sync_boards[0], resting[i], NULL, NOW_US);
		assert_int_equal(health(f, 1, 100000), 200);
	}
	cdc_board_post(&f->sync_boards[0], CDC_STATE_WAITING, NULL, NOW_US);
	assert_int_equal(health(f, 1, 100000), 503);
}

static void an_unsafe_setting_is_shown(void **state)
{
	struct fixture *f = *state;
	json_t *j = ask_json(f, "/healthz", 200), *warnings = json_object_get(j, "warnings");
	struct reply r;

	assert_int_equal(json_array_size(warnings), 0);
	json_decref(j);
	f->syncs[1].caution = "nothing is verified";
	j = ask_json(f, "/healthz", 200);
	warnings = json_object_get(j, "warnings");
	assert_int_equal(json_array_size(warnings), 1);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(warnings, 0), "message")),
		"nothing is verified");
	assert_string_equal(json_string_value(json_object_get(json_array_get(warnings, 0), "name")),
			    f->syncs[1].name);
	json_decref(j);
	r = ask(f, "GET", "/status.txt");
	assert_non_null(strstr(r.body, "caution: nothing is verified"));
	reply_clear(&r);
}

static void healthz_names_every_loop(void **state)
{
	struct fixture *f = *state;
	json_t *j = ask_json(f, "/healthz", 200), *loops = json_object_get(j, "loops");

	assert_string_equal(text_at(j, "status"), "ok");
	assert_string_equal(text_at(j, "version"), WALPOST_VERSION);
	assert_int_equal(json_array_size(loops), 5);
	assert_string_equal(text_at(json_array_get(loops, 0), "loop"), "source");
	assert_string_equal(text_at(json_array_get(loops, 0), "name"), "shop");
	assert_string_equal(text_at(json_array_get(loops, 4), "name"), "mail");
	assert_string_equal(text_at(json_array_get(loops, 4), "state"), "running");
	json_decref(j);
}

static void readyz_never_depends_on_a_destination_but_tells_the_truth(void **state)
{
	struct fixture *f = *state;
	json_t *j = ask_json(f, "/readyz?strict", 200), *sync, *error;

	assert_true(json_is_true(json_object_get(j, "all_running")));
	json_decref(j);
	fail_sync(f, 1, "401 from the endpoint", "set the right secret");
	j = ask_json(f, "/readyz", 200);
	assert_string_equal(text_at(j, "status"), "ready");
	assert_true(json_is_false(json_object_get(j, "all_running")));
	sync = json_array_get(json_object_get(j, "syncs"), 1);
	assert_string_equal(text_at(sync, "name"), "invoices");
	assert_string_equal(text_at(sync, "id"), UUID);
	assert_string_equal(text_at(sync, "source"), "shop");
	assert_string_equal(text_at(sync, "destination"), "hook");
	assert_string_equal(text_at(sync, "state"), "failed");
	assert_string_equal(text_at(sync, "since"), "2026-01-01T00:00:00.000000Z");
	error = json_object_get(sync, "error");
	assert_string_equal(text_at(error, "code"), "auth");
	assert_string_equal(text_at(error, "message"), "401 from the endpoint");
	assert_string_equal(text_at(error, "remedy"), "set the right secret");
	assert_true(json_is_null(
		json_object_get(json_array_get(json_object_get(j, "syncs"), 0), "error")));
	json_decref(j);
	j = ask_json(f, "/readyz?strict", 503);
	assert_string_equal(text_at(j, "status"), "not running");
	json_decref(j);
	j = ask_json(f, "/readyz?x=y&strict=1", 503);
	json_decref(j);
}

static void a_message_of_any_bytes_makes_good_json(void **state)
{
	struct fixture *f = *state;
	json_t *j, *sync;

	fail_sync(f, 0, "cut in a character: \xc3", "\"\\\n\x01");
	j = ask_json(f, "/readyz", 200);
	sync = json_array_get(json_object_get(j, "syncs"), 0);
	assert_string_equal(text_at(json_object_get(sync, "error"), "message"),
			    "cut in a character: ?");
	assert_string_equal(text_at(json_object_get(sync, "error"), "remedy"), "\"\\\n\x01");
	json_decref(j);
}

/* --- metrics ------------------------------------------------------------------------ */

/* The name at p, as the format allows it; returns what follows, or NULL. */
static const char *skip_name(const char *p, bool has_colons)
{
	const char *start = p;

	while (isalpha((unsigned char)*p) || *p == '_' || (has_colons && *p == ':') ||
	       (p > start && isdigit((unsigned char)*p)))
		p++;
	return p > start ? p : NULL;
}

/* {a="b",...} */
static const char *skip_labels(const char *p)
{
	if (*p != '{')
		return p;
	do {
		p = skip_name(p + 1, false);
		if (!p || p[0] != '=' || p[1] != '"')
			return NULL;
		for (p += 2; *p != '"'; p++) {
			if (*p == '\0' || (*p == '\\' && !strchr("\\\"n", *++p)))
				return NULL;
		}
		p++;
	} while (*p == ',');
	return *p == '}' ? p + 1 : NULL;
}

struct page {
	char *text;
	char family[128], type[16]; /* of the last # TYPE */
	char *series[8192];
	size_t n;
};

static bool is_family(const char *name, size_t len, const struct page *p)
{
	static const char *const parts[] = {"_bucket", "_sum", "_count"};
	size_t base = strlen(p->family);

	if (strncmp(name, p->family, base) != 0)
		return false;
	if (strcmp(p->type, "histogram") != 0)
		return len == base;
	for (size_t i = 0; i < 3; i++) {
		if (len == base + strlen(parts[i]) &&
		    strncmp(name + base, parts[i], len - base) == 0)
			return true;
	}
	return false;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every line is one that the format allows; families are whole, described and typed once. */
static void check_page(struct page *p)
{
	char help[128] = "", *line = p->text, *end;
	char *families[256];
	size_t family_n = 0;

	for (; *line; line = end + 1) {
		const char *after, *value;
		char *stop;

		end = strchr(line, '\n');
		if (!end)
			fail_msg("the last line has no end: %s", line);
		*end = '\0';
		if (sscanf(line, "# HELP %127s", help) == 1) {
			assert_true(strlen(line) > strlen("# HELP ") + strlen(help) + 2);
			continue;
		}
		if (sscanf(line, "# TYPE %127s %15s", p->family, p->type) == 2) {
			assert_string_equal(help, p->family);
			assert_true(strcmp(p->type, "counter") == 0 ||
				    strcmp(p->type, "gauge") == 0 ||
				    strcmp(p->type, "histogram") == 0);
			assert_int_equal(
				strcmp(p->type, "counter") == 0,
				strlen(p->family) > 6 &&
					strcmp(p->family + strlen(p->family) - 6, "_total") == 0);
			families[family_n] = strdup(p->family);
			assert_non_null(families[family_n++]);
			continue;
		}
		after = skip_name(line, true);
		if (!after || !is_family(line, (size_t)(after - line), p))
			fail_msg("not of its family: %s", line);
		value = skip_labels(after);
		if (!value || *value != ' ')
			fail_msg("labels: %s", line);
		(void)strtod(value + 1, &stop);
		if (stop == value + 1 || *stop)
			fail_msg("value: %s", line);
		assert_true(p->n < sizeof(p->series) / sizeof(p->series[0]));
		p->series[p->n++] = line;
	}
	qsort(families, family_n, sizeof(*families), compare_texts);
	for (size_t i = 0; i < family_n; i++) {
		if (i > 0 && strcmp(families[i - 1], families[i]) == 0)
			fail_msg("%s is there twice", families[i]);
	}
	for (size_t i = 0; i < family_n; i++)
		free(families[i]);
	for (size_t i = 0; i < p->n; i++)
		*strrchr(p->series[i], ' ') = '\0'; /* series NUL value */
	qsort(p->series, p->n, sizeof(p->series[0]), compare_texts);
	for (size_t i = 1; i < p->n; i++) {
		if (strcmp(p->series[i - 1], p->series[i]) == 0)
			fail_msg("%s is there twice", p->series[i]);
	}
}

/* The value of a series, as text. */
static const char *value_of(const struct page *p, const char *series)
{
	for (size_t i = 0; i < p->n; i++) {
		if (strcmp(p->series[i], series) == 0)
			return p->series[i] + strlen(series) + 1;
	}
	fail_msg("no series %s", series);
	return NULL;
}

static struct page *page_new(char *text)
{
	struct page *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->text = text;
	check_page(p);
	return p;
}

/* The page as made at NOW_US; the caller frees text and page. */
static struct page *metrics_page(const struct fixture *f)
{
	const struct cdc_process process = {.resident_bytes = 12345678, .cpu_us = 1500000};
	struct cdc_buf b;

	cdc_buf_init(&b, ANSWER_MAX);
	cdc_metrics_text(&f->setup, &process, NOW_US, &b);
	cdc_buf_put(&b, "", 1);
	assert_false(b.failed);
	return page_new((char *)b.data);
}

static void page_free(struct page *p)
{
	free(p->text);
	free(p);
}

static void metrics_show_what_was_counted(void **state)
{
	static const struct {
		const char *series, *value;
	} expected[] = {
		{"walpost_captured_records_total{source=\"shop\",slot=\"walpost_shop\"}", "7"},
		{"walpost_captured_records_total{source=\"crm\",slot=\"walpost_crm\"}", "0"},
		{"walpost_buffered_records_total{source=\"shop\",slot=\"walpost_shop\"}", "6"},
		{"walpost_source_lag_bytes{source=\"shop\",slot=\"walpost_shop\"}", "500"},
		{"walpost_source_lag_bytes{source=\"crm\",slot=\"walpost_crm\"}", "0"},
		{"walpost_source_lag_seconds{source=\"shop\",slot=\"walpost_shop\"}", "60.000000"},
		{"walpost_source_lag_seconds{source=\"crm\",slot=\"walpost_crm\"}", "0.000000"},
		{"walpost_delivered_records_total{source=\"shop\",slot=\"walpost_shop\",sync="
		 "\"orders\"}",
		 "5"},
		{"walpost_failed_requests_total{source=\"shop\",slot=\"walpost_shop\",sync="
		 "\"orders\"}",
		 "3"},
		{"walpost_retried_requests_total{source=\"shop\",slot=\"walpost_shop\",sync="
		 "\"orders\"}",
		 "2"},
		{"walpost_retried_requests_total{source=\"crm\",slot=\"walpost_crm\",sync="
		 "\"mail\"}",
		 "9"},
		{"walpost_sync_lag_seconds{source=\"shop\",slot=\"walpost_shop\",sync=\"orders\"}",
		 "0.250000"},
		{"walpost_sync_state{source=\"shop\",slot=\"walpost_shop\",sync=\"invoices\",state="
		 "\"failed\"}",
		 "1"},
		{"walpost_sync_state{source=\"shop\",slot=\"walpost_shop\",sync=\"invoices\",state="
		 "\"running\"}",
		 "0"},
		{"walpost_source_state{source=\"crm\",slot=\"walpost_crm\",state=\"running\"}",
		 "1"},
		{"walpost_sync_info{source=\"crm\",slot=\"walpost_crm\",sync=\"mail\",destination="
		 "\"hook\",id=\"" UUID "\"}",
		 "1"},
		{"walpost_build_info{version=\"" WALPOST_VERSION "\"}", "1"},
		{"process_resident_memory_bytes", "12345678"},
		{"process_cpu_seconds_total", "1.500000"},
		{"process_start_time_seconds", "1767135600.000000"},
	};
	struct fixture *f = *state;
	struct page *p;

	cdc_metric_set(&f->source_metrics[0].captured, 7);
	cdc_metric_set(&f->buffer_metrics[0].buffered, 6);
	cdc_metric_set(&f->source_metrics[0].received_lsn, UINT64_C(0x1500000000) + 1500);
	cdc_metric_set(&f->source_metrics[0].confirmed_lsn, UINT64_C(0x1500000000) + 1000);
	cdc_metric_set(&f->source_metrics[0].unconfirmed_us, (uint64_t)(NOW_US - MINUTE_US));
	/* Nothing was confirmed yet: there is nothing to measure from.  A clock may run ahead. */
	cdc_metric_set(&f->source_metrics[1].received_lsn, 1500);
	cdc_metric_set(&f->source_metrics[1].unconfirmed_us, (uint64_t)(NOW_US + 1));
	cdc_metric_set(&f->sync_metrics[0].delivered, 5);
	cdc_metric_set(&f->sync_metrics[0].failed, 3);
	cdc_metric_set(&f->sync_metrics[0].retried, 2);
	cdc_metric_set(&f->sync_metrics[2].retried, 9);
	cdc_metric_set(&f->sync_metrics[0].oldest_us, (uint64_t)(NOW_US - 250000));
	fail_sync(f, 1, "m", "r");
	p = metrics_page(f);
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_string_equal(value_of(p, expected[i].series), expected[i].value);
	page_free(p);
}

#define ORDERS "source=\"shop\",slot=\"walpost_shop\",sync=\"orders\""

static void a_histogram_counts_up_to_its_total(void **state)
{
	static const char *const bounds[] = {"0.0005", "0.001", "0.002", "0.005", "0.01", "0.02",
					     "0.05",   "0.1",   "0.2",   "0.5",   "1",    "2",
					     "5",      "10",    "30",    "60",    "300",  "+Inf"};
	struct fixture *f = *state;
	struct cdc_histogram *h = &f->sync_metrics[0].latency;
	struct page *p;
	char series[256];
	unsigned long last = 0;

	cdc_histogram_add(h, 0, 1);
	cdc_histogram_add(h, 500, 2); /* a bound belongs to its bucket */
	cdc_histogram_add(h, 501, 4);
	cdc_histogram_add(h, 999999, 8);
	cdc_histogram_add(h, 300000001, 16);
	p = metrics_page(f);
	for (size_t i = 0; i < 18; i++) {
		unsigned long n;

		(void)snprintf(series, sizeof(series),
			       "walpost_delivery_latency_seconds_bucket{" ORDERS ",le=\"%s\"}",
			       bounds[i]);
		n = strtoul(value_of(p, series), NULL, 10);
		assert_true(n >= last);
		last = n;
		if (i == 0)
			assert_int_equal(n, 3);
		if (i == 1)
			assert_int_equal(n, 7);
		if (i == 10)
			assert_int_equal(n, 15);
		if (i == 16)
			assert_int_equal(n, 15);
	}
	assert_int_equal(last, 31);
	assert_string_equal(value_of(p, "walpost_delivery_latency_seconds_count{" ORDERS "}"),
			    "31");
	/* 2*500 + 4*501 + 8*999999 + 16*300000001 us */
	assert_string_equal(value_of(p, "walpost_delivery_latency_seconds_sum{" ORDERS "}"),
			    "4808.003012");
	assert_string_equal(value_of(p, "walpost_request_duration_seconds_count{" ORDERS "}"), "0");
	page_free(p);
}

static void a_hostile_name_forges_no_series(void **state)
{
	struct fixture *f = *state;
	struct page *p;

	f->syncs[0].name = "a\"} 1\nb\\";
	p = metrics_page(f);
	assert_string_equal(value_of(p, "walpost_delivered_records_total{source=\"shop\",slot="
					"\"walpost_shop\",sync=\"a\\\"} 1\\nb\\\\\"}"),
			    "0");
	page_free(p);
	f->syncs[0].name = "orders";
}

static void metrics_are_served_in_the_exposition_format(void **state)
{
	struct fixture *f = *state;
	struct reply r = ask(f, "GET", "/metrics");
	struct page *p;

	assert_int_equal(r.status, 200);
	assert_non_null(strstr(r.head, "Content-Type: text/plain; version=0.0.4"));
	p = page_new(strndup(r.body, r.body_n));
	reply_clear(&r);
	assert_true(strtod(value_of(p, "process_resident_memory_bytes"), NULL) > 1e6);
	assert_true(strtod(value_of(p, "walpost_buffer_max_bytes{source=\"shop\",slot="
				       "\"walpost_shop\"}"),
			   NULL) == 16 << 20);
	page_free(p);
}

static void without_sources_and_syncs_the_pages_are_good(void **state)
{
	struct fixture *f = *state;
	struct cdc_server_setup none = {.started_us = NOW_US};
	struct cdc_server_setup was = f->setup;
	struct cdc_buf b;

	f->setup = none;
	page_free(metrics_page(f));
	f->setup = was;
	cdc_buf_init(&b, ANSWER_MAX);
	cdc_status_text(&none, NOW_US, &b);
	assert_false(b.failed);
	assert_int_equal(cdc_health_json(&none, 1, 2, &b), 200);
	assert_int_equal(cdc_ready_json(&none, true, &b), 200);
	cdc_buf_clear(&b);
}

/* The largest file that loads, with the longest names that it allows. */
static void a_thousand_syncs_fit_into_an_answer(void **state)
{
	static const char name[] =
		"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";
	struct fixture *f = *state;
	struct cdc_server_sync *syncs = calloc(1000, sizeof(*syncs));
	struct cdc_server_source source = f->sources[0];
	struct cdc_server_setup setup = f->setup;
	const struct cdc_process process = {0};
	struct cdc_buf b;

	assert_non_null(syncs);
	source.connection = source.slot = name;
	for (size_t i = 0; i < 1000; i++) {
		syncs[i] = f->syncs[0];
		syncs[i].name = syncs[i].source = syncs[i].destination = name;
	}
	setup.sources = &source;
	setup.source_n = 1;
	setup.syncs = syncs;
	setup.sync_n = 1000;
	cdc_buf_init(&b, (size_t)32 << 20); /* the server's own limit */
	cdc_metrics_text(&setup, &process, NOW_US, &b);
	assert_false(b.failed);
	print_message("metrics of 1000 syncs with the longest names: %zu bytes\n", b.len);
	cdc_buf_clear(&b);
	free(syncs);
}

/* --- the page for people ------------------------------------------------------------ */

static char *status_page(const struct fixture *f)
{
	struct cdc_buf b;

	cdc_buf_init(&b, ANSWER_MAX);
	cdc_status_text(&f->setup, NOW_US, &b);
	cdc_buf_put(&b, "", 1);
	assert_false(b.failed);
	return (char *)b.data;
}

static void status_is_one_aligned_screen(void **state)
{
	struct fixture *f = *state;
	char *page;

	cdc_metric_set(&f->sync_metrics[0].delivered, 123456789);
	cdc_metric_set(&f->sync_metrics[0].window, 42);
	cdc_metric_set(&f->sync_metrics[0].is_behind, 1);
	cdc_metric_set(&f->sync_metrics[0].breaker, 1);
	fail_sync(f, 2, "two\nlines\x1b[31m", "run\r\nthis");
	page = status_page(f);
	assert_non_null(strstr(page, "walpost " WALPOST_VERSION "   up 1 d 01 h   "
				     "2026-01-01T00:00:00.000000Z\n"));
	assert_non_null(strstr(page, "\n  orders    shop > hook  running  1 h 30 m  123456789     "
				     "42+"));
	assert_non_null(strstr(page, "  open\n"));
	assert_non_null(strstr(page, "\n      auth: two lines [31m\n"));
	assert_non_null(strstr(page, "\n      remedy: run  this\n"));
	assert_non_null(strstr(page, "\n  walpost_shop "));
	assert_non_null(strstr(page, "\n  walpost_crm "));
	assert_null(strstr(page, " \n"));
	for (const char *c = page; *c; c++)
		assert_true((unsigned char)*c >= 0x20 || *c == '\n');
	free(page);
}

static void status_is_served_as_text(void **state)
{
	struct fixture *f = *state;
	struct reply r = ask(f, "GET", "/status.txt");

	assert_int_equal(r.status, 200);
	assert_non_null(strstr(r.head, "Content-Type: text/plain; charset=utf-8"));
	assert_non_null(strstr(r.body, "SOURCE"));
	assert_non_null(strstr(r.body, "BUFFER"));
	assert_non_null(strstr(r.body, "SYNC"));
	reply_clear(&r);
}

/* --- what is refused ---------------------------------------------------------------- */

static void expect_error(const struct reply *r, unsigned status)
{
	json_t *j = json_loadb(r->body, r->body_n, 0, NULL), *e = json_object_get(j, "error");

	assert_int_equal(r->status, status);
	assert_non_null(e);
	assert_int_equal(json_integer_value(json_object_get(e, "status")), status);
	assert_true(text_at(e, "message")[0]);
	json_decref(j);
}

static void what_is_not_served_is_refused_in_one_sentence(void **state)
{
	static const char *const nowhere[] = {"/",           "/metrics/",   "/healthz/x",
					      "/%2fhealthz", "/../healthz", "/METRICS",
					      "//metrics"};
	struct fixture *f = *state;
	struct reply r;

	for (size_t i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
		r = ask(f, "GET", nowhere[i]);
		expect_error(&r, 404);
		reply_clear(&r);
	}
	r = ask(f, "DELETE", "/healthz");
	expect_error(&r, 405);
	assert_non_null(strstr(r.head, "Allow: GET, HEAD\r\n"));
	reply_clear(&r);
}

static void a_body_is_refused_before_it_is_read(void **state)
{
	static const char *const requests[] = {
		"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\nxxxx",
		"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
	};
	struct fixture *f = *state;
	struct reply r;

	for (size_t i = 0; i < 2; i++) {
		int fd = dial(f);

		send_text(fd, requests[i]);
		assert_true(read_reply(fd, true, &r));
		expect_error(&r, 413);
		assert_non_null(strcasestr(r.head, "Connection: close\r\n"));
		reply_clear(&r);
		(void)close(fd);
	}
	{
		int fd = dial(f);

		send_text(fd, "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
		assert_true(read_reply(fd, true, &r));
		expect_error(&r, 405);
		reply_clear(&r);
		(void)close(fd);
	}
}

static void a_connection_serves_many_requests(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f);

	for (int i = 0; i < 20; i++) {
		struct reply r;
		bool is_head = i % 2;

		send_text(fd, is_head ? "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
				      : "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
		assert_true(read_reply(fd, !is_head, &r));
		assert_int_equal(r.status, 200);
		if (is_head)
			assert_non_null(strcasestr(r.head, "Content-Length: "));
		reply_clear(&r);
	}
	(void)close(fd);
}

static void a_head_beyond_the_limit_is_refused(void **state)
{
	struct fixture *f = *state;
	char big[40000];
	struct reply r;
	int fd = dial(f);

	memset(big, 'a', sizeof(big));
	(void)memcpy(big, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", 35);
	(void)send(fd, big, sizeof(big), MSG_NOSIGNAL);
	if (read_reply(fd, true, &r)) {
		assert_in_range(r.status, 400, 499);
		reply_clear(&r);
	}
	(void)close(fd);
	fd = dial(f);
	memset(big, 'a', sizeof(big));
	(void)memcpy(big, "GET /", 5);
	(void)send(fd, big, sizeof(big), MSG_NOSIGNAL);
	if (read_reply(fd, true, &r)) {
		assert_in_range(r.status, 400, 499);
		reply_clear(&r);
	}
	(void)close(fd);
	/* And the server goes on. */
	r = ask(f, "GET", "/healthz");
	assert_int_equal(r.status, 200);
	reply_clear(&r);
}

static void what_is_not_http_harms_nobody(void **state)
{
	static const char *const rubbish[] = {"\r\n\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02",
					      "GET /healthz HTTP/9.9\r\n\r\n",
					      "GET /healthz HTTP/1.1\r\nHost\r\n\r\n"};
	struct fixture *f = *state;
	struct reply r;

	for (size_t i = 0; i < sizeof(rubbish) / sizeof(rubbish[0]); i++) {
		int fd = dial(f);

		send_text(fd, rubbish[i]);
		(void)close(fd);
	}
	r = ask(f, "GET", "/healthz");
	assert_int_equal(r.status, 200);
	reply_clear(&r);
}

/* Idle connections are closed, so that they cannot shut others out for longer. */
static void idle_connections_give_way(void **state)
{
	struct fixture *f = *state;
	int fds[64];
	struct reply r;
	uint64_t start_ms = cdc_clock_mono_ms();

	for (size_t i = 0; i < 64; i++)
		fds[i] = dial(f);
	r = ask(f, "GET", "/healthz");
	assert_int_equal(r.status, 200);
	reply_clear(&r);
	assert_true(cdc_clock_mono_ms() - start_ms < WAIT_S * 1000);
	for (size_t i = 0; i < 64; i++)
		(void)close(fds[i]);
}

static void stopping_does_not_wait_for_clients(void **state)
{
	struct fixture *f = *state;
	int fd = dial(f), half = dial(f);
	uint64_t start_ms = cdc_clock_mono_ms();
	char c;

	send_text(half, "GET /heal");
	cdc_server_stop(f->server);
	f->server = NULL;
	/* It would have waited for 10 s, until they are idle for too long. */
	assert_true(cdc_clock_mono_ms() - start_ms < 8000);
	assert_true(recv(fd, &c, 1, 0) <= 0);
	(void)close(fd);
	(void)close(half);
}

/* --- listening ---------------------------------------------------------------------- */

static void an_address_that_is_none_or_taken_is_named(void **state)
{
	static const char *const none[] = {
		"127.0.0.1", ":5100",         "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x",
		"[::1]",     "::1:5100",      "[]:5100",    "127.0.0.1: 80",   "127.0.0.1:000080",
		"[::1:5100", "no such host:1"};
	struct fixture *f = *state;
	struct cdc_server *s = NULL;
	struct cdc_err err = {0};
	char taken[32];

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		f->setup.listen = none[i];
		assert_int_equal(cdc_server_start(&f->setup, &s, &err), CDC_CONFIG);
		assert_null(s);
		assert_non_null(strstr(err.msg, "listen"));
		assert_non_null(strstr(err.msg, none[i]));
	}
	(void)snprintf(taken, sizeof(taken), "127.0.0.1:%u", cdc_server_port(f->server));
	f->setup.listen = taken;
	assert_int_equal(cdc_server_start(&f->setup, &s, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, taken));
	assert_non_null(strstr(err.msg, "in use"));
	assert_non_null(strstr(err.remedy, "free port"));
	f->setup.listen = "192.0.2.1:5100"; /* nobody's */
	assert_int_equal(cdc_server_start(&f->setup, &s, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, "192.0.2.1:5100"));
}

static void it_listens_on_ipv6_and_names(void **state)
{
	struct fixture *f = *state;
	struct cdc_server *s = NULL;
	struct cdc_err err = {0};

	f->setup.listen = "localhost:0";
	if (cdc_server_start(&f->setup, &s, &err))
		fail_msg("%s", err.msg);
	assert_true(cdc_server_port(s) != 0);
	cdc_server_stop(s);
	f->setup.listen = "[::1]:0";
	if (cdc_server_start(&f->setup, &s, &err)) {
		assert_non_null(strstr(err.msg, "[::1]:0"));
		skip(); /* a machine without IPv6 */
	}
	assert_true(cdc_server_port(s) != 0);
	cdc_server_stop(s);
}

/* --- threads ------------------------------------------------------------------------ */

struct worker {
	struct fixture *f;
	_Atomic bool is_over;
};

static void *count(void *arg)
{
	struct worker *w = arg;
	struct cdc_err err = {.code = CDC_IO, .msg = "m"};

	for (uint64_t n = 1; !w->is_over; n++) {
		cdc_metric_add(&w->f->sync_metrics[0].delivered, 1);
		cdc_histogram_add(&w->f->sync_metrics[0].latency, n % 1000000, 1);
		cdc_board_beat(&w->f->sync_boards[0], cdc_clock_mono_ms());
		cdc_board_post(&w->f->sync_boards[0], n % 2 ? CDC_STATE_WAITING : CDC_STATE_RUNNING,
			       n % 2 ? &err : NULL, NOW_US);
	}
	return NULL;
}

static void pages_are_whole_while_everything_changes(void **state)
{
	static const char *const pages[] = {"/healthz", "/readyz", "/metrics", "/status.txt"};
	struct fixture *f = *state;
	struct worker w = {.f = f};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, count, &w), 0);
	for (int i = 0; i < 40; i++) {
		struct reply r = ask(f, "GET", pages[i % 4]);

		assert_int_equal(r.status, 200);
		if (i % 4 == 2)
			page_free(page_new(strndup(r.body, r.body_n)));
		reply_clear(&r);
	}
	w.is_over = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
#define SERVED(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		SERVED(healthz_is_well_while_every_loop_turns),
		SERVED(a_loop_that_failed_or_ended_may_stand_still),
		SERVED(healthz_names_every_loop),
		SERVED(an_unsafe_setting_is_shown),
		SERVED(readyz_never_depends_on_a_destination_but_tells_the_truth),
		SERVED(a_message_of_any_bytes_makes_good_json),
		SERVED(metrics_show_what_was_counted),
		SERVED(a_histogram_counts_up_to_its_total),
		SERVED(a_hostile_name_forges_no_series),
		SERVED(metrics_are_served_in_the_exposition_format),
		SERVED(without_sources_and_syncs_the_pages_are_good),
		SERVED(a_thousand_syncs_fit_into_an_answer),
		SERVED(status_is_one_aligned_screen),
		SERVED(status_is_served_as_text),
		SERVED(what_is_not_served_is_refused_in_one_sentence),
		SERVED(a_body_is_refused_before_it_is_read),
		SERVED(a_connection_serves_many_requests),
		SERVED(a_head_beyond_the_limit_is_refused),
		SERVED(what_is_not_http_harms_nobody),
		SERVED(idle_connections_give_way),
		SERVED(stopping_does_not_wait_for_clients),
		SERVED(an_address_that_is_none_or_taken_is_named),
		SERVED(it_listens_on_ipv6_and_names),
		SERVED(pages_are_whole_while_everything_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
