/*
 * test_sink_webhook.c - the webhook keeps the contract of sinks, and what it puts
 * on the wire is what its settings say.
 *
 * The endpoint is the receiver program, which lies beside this one.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "cdc/base/clock.h"
#include "sinks/webhook/webhook.h"
#include "tests/contract/sink_contract.h"

#define SYNC_ID "50000000-0000-4000-8000-000000000001"
#define RECORD  "{\"id\":\"00000001-0000000000000001-00000001-0001\",\"fields\":{\"a\":1.10}}"
/* sha256sum of the id and a line end. */
#define RECORD_HASH "msg_8e2113575ef3d4a8f4151b835e3fe2a9"
#define ENVELOPE                                                                                   \
	"{\"event\":\"sync.records\",\"object\":{\"id\":\"" SYNC_ID                                \
	"\",\"name\":\"orders\",\"records\":[" RECORD "],\"metadata\":{}}}"
#define LOG_MAX (32u << 20)
#define WAIT_MS 120000 /* for what takes a moment, on a machine that is busy */
#define TRIES   20     /* of what such a machine can only make slower: one has to be fast */

/* --- the receiver ------------------------------------------------------------------- */

struct receiver {
	pid_t pid;
	int port, dead_port, dead_fd;
	char dir[64], log[80], port_file[80];
	char url[128], dead_url[64];
	struct sink_webhook_connection good, dead, bad;
	struct sink_webhook_sync sync, brief; /* brief: what goes on for long ends soon */
};

static int dial(const struct receiver *r)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)r->port),
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

/* One request; the answer's bytes as text.  False: none, or not 200. */
static bool ask(const struct receiver *r, const char *what, const char *body, char *ret,
		size_t size)
{
	char request[2048];
	size_t got = 0;
	int fd = dial(r), n;

	if (fd < 0)
		return false;
	n = snprintf(request, sizeof(request),
		     "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		     what, strlen(body), body);
	if (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
		(void)close(fd);
		return false;
	}
	for (;;) {
		ssize_t more = recv(fd, ret + got, size - 1 - got, 0);

		if (more <= 0)
			break;
		got += (size_t)more;
	}
	(void)close(fd);
	ret[got] = '\0';
	return strncmp(ret, "HTTP/1.1 200", 12) == 0;
}

static bool rules(const struct receiver *r, const char *text)
{
	char answer[4096];

	return ask(r, "POST /_control", text, answer, sizeof(answer)) &&
	       ask(r, "POST /_reset", "", answer, sizeof(answer));
}

static uint64_t counter(const struct receiver *r, const char *name)
{
	char answer[4096], key[32];
	const char *at;

	(void)snprintf(key, sizeof(key), "\"%s\":", name);
	if (!ask(r, "GET /_stats", "", answer, sizeof(answer)))
		return UINT64_MAX;
	at = strstr(answer, key);
	return at ? strtoull(at + strlen(key), NULL, 10) : UINT64_MAX;
}

static bool wait_for_port(struct receiver *r)
{
	for (int i = 0; i < WAIT_MS / 10; i++) {
		FILE *f = fopen(r->port_file, "re");

		if (f) {
			char text[16] = "";
			bool is_there = fgets(text, sizeof(text), f) != NULL;

			(void)fclose(f);
			r->port = (int)strtol(text, NULL, 10);
			if (is_there && r->port > 0)
				return true;
		}
		(void)usleep(10000);
	}
	return false;
}

static bool start_receiver(struct receiver *r)
{
	char path[4096], listen_on[32];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 16);
	char *slash;

	if (n <= 0)
		return false;
	path[n] = '\0';
	slash = strrchr(path, '/');
	(void)memcpy(slash + 1, "receiver", sizeof("receiver"));
	(void)snprintf(listen_on, sizeof(listen_on), "127.0.0.1:%d", r->port);
	(void)unlink(r->port_file);
	r->pid = fork();
	if (r->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)execl(path, path, "--listen", listen_on, "--port-file", r->port_file, "--log",
			    r->log, (char *)NULL);
		_exit(127);
	}
	return r->pid > 0 && wait_for_port(r);
}

static void stop_receiver(struct receiver *r)
{
	if (r->pid > 0) {
		(void)kill(r->pid, SIGKILL);
		(void)waitpid(r->pid, NULL, 0);
	}
	r->pid = 0;
}

/* Takes a port of this machine without listening there, so that nobody else does either. */
static bool take_dead_port(struct receiver *r)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(at);

	r->dead_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->dead_fd < 0 || bind(r->dead_fd, (struct sockaddr *)&at, len) ||
	    getsockname(r->dead_fd, (struct sockaddr *)&at, &len))
		return false;
	r->dead_port = ntohs(at.sin_port);
	return true;
}

static char any[] = "any", *any_items[] = {any};

static bool begin(struct receiver *r)
{
	(void)snprintf(r->dir, sizeof(r->dir), "/tmp/walpost-sink-XXXXXX");
	if (!mkdtemp(r->dir))
		return false;
	(void)snprintf(r->log, sizeof(r->log), "%s/log", r->dir);
	(void)snprintf(r->port_file, sizeof(r->port_file), "%s/port", r->dir);
	if (!start_receiver(r) || !take_dead_port(r))
		return false;
	(void)snprintf(r->url, sizeof(r->url), "http://127.0.0.1:%d/hook", r->port);
	(void)snprintf(r->dead_url, sizeof(r->dead_url), "http://127.0.0.1:%d/hook", r->dead_port);
	r->good.url = r->url;
	r->good.tls_verify = true;
	r->good.allowed_networks = (struct cdc_opt_strs){.items = any_items, .n = 1};
	r->dead = r->good;
	r->dead.url = r->dead_url;
	r->bad = r->good;
	r->bad.ca_cert = r->port_file; /* a file that is there and holds no certificate */
	r->sync.wrap = true;
	r->sync.timeout_ms = SINK_CONTRACT_TIMEOUT_MS;
	r->brief = r->sync;
	r->brief.timeout_ms = SINK_CONTRACT_BRIEFLY_MS;
	return true;
}

static void end(struct receiver *r)
{
	stop_receiver(r);
	if (r->dead_fd >= 0)
		(void)close(r->dead_fd);
	(void)unlink(r->log);
	(void)unlink(r->port_file);
	(void)rmdir(r->dir);
}

/* --- hooks of the contract ---------------------------------------------------------- */

static char sync_id[] = SYNC_ID, sync_name[] = "orders";

static void settings_of(struct receiver *r, const struct sink_webhook_connection *c,
			struct sink_settings *ret)
{
	ret->connection = c;
	ret->sync = &r->sync;
	ret->sync_id = sync_id;
	ret->sync_name = sync_name;
}

static void reach(void *arg, struct sink_settings *ret)
{
	struct receiver *r = arg;

	settings_of(r, &r->good, ret);
}

static void reach_briefly(void *arg, struct sink_settings *ret)
{
	struct receiver *r = arg;

	settings_of(r, &r->good, ret);
	ret->sync = &r->brief;
}

static void nowhere(void *arg, struct sink_settings *ret)
{
	struct receiver *r = arg;

	settings_of(r, &r->dead, ret);
}

static void unusable(void *arg, struct sink_settings *ret)
{
	struct receiver *r = arg;

	settings_of(r, &r->bad, ret);
}

static bool behave(void *arg, enum sink_mood mood)
{
	char late[32];

	switch (mood) {
	case SINK_MOOD_ACCEPT:
		return rules(arg, "");
	case SINK_MOOD_LATE:
		(void)snprintf(late, sizeof(late), "delay_ms=%d", (int)SINK_CONTRACT_LATE_MS);
		return rules(arg, late);
	case SINK_MOOD_LATER:
		return rules(arg, "status=503");
	case SINK_MOOD_REFUSE:
		return rules(arg, "status=422");
	case SINK_MOOD_SILENT:
		return rules(arg, "action=hang");
	case SINK_MOOD_BROKEN:
		return rules(arg, "action=close");
	}
	return false;
}

static uint64_t accepted(void *arg)
{
	return counter(arg, "records");
}

/* --- one request -------------------------------------------------------------------- */

struct sent {
	struct sink_result result;
	char *log;               /* of the receiver, all of it */
	const char *head, *body; /* of its last entry; the head without its last line end */
	size_t head_len, body_len;
};

/* Finds the last entry: "walpost-receiver 1 SEQ WALL_US STATUS ACTION HEAD BODY\n" head body "\n".
 */
static bool read_log(const struct receiver *r, struct sent *s)
{
	FILE *f = fopen(r->log, "re");
	size_t len, at = 0;

	s->log = malloc(LOG_MAX);
	if (!f || !s->log)
		return false;
	len = fread(s->log, 1, LOG_MAX - 1, f);
	(void)fclose(f);
	s->log[len] = '\0';
	while (at < len) {
		char action[16];
		unsigned long long seq, wall;
		int status, n = 0;

		/* NOLINTNEXTLINE(cert-err34-c): our own receiver wrote these numbers. */
		if (sscanf(s->log + at, "walpost-receiver 1 %llu %llu %d %15s %zu %zu%n", &seq,
			   &wall, &status, action, &s->head_len, &s->body_len, &n) != 6)
			return false;
		s->head = s->log + at + n + 1;
		s->body = s->head + s->head_len;
		at += (size_t)n + 1 + s->head_len + s->body_len + 1;
	}
	return s->head != NULL;
}

static void forget(struct sent *s)
{
	free(s->log);
	*s = (struct sent){.log = NULL};
}

static struct cdc_batch *make_batch(struct cdc_view *ret_view)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_record *rec;
	uint16_t table;

	assert_non_null(b);
	assert_int_equal(cdc_batch_table(b, "public.t", 8, &table, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(b, &rec, NULL), CDC_OK);
	rec->id = (struct cdc_id){.epoch = 1, .commit_lsn = 1, .ordinal = 1, .part = 1};
	rec->table = table;
	cdc_buf_puts(&b->json, RECORD);
	assert_int_equal(cdc_batch_end(b, NULL), CDC_OK);
	*ret_view = (struct cdc_view){.rec = &b->records[0], .batch = b};
	return b;
}

static void *open_sink_of(struct receiver *r, const struct sink_webhook_connection *c,
			  const struct sink_webhook_sync *sync)
{
	struct sink_settings s = {.concurrency = 2, .wake_fd = -1};
	struct cdc_err err = {.code = CDC_OK};
	void *sink = NULL;

	settings_of(r, c, &s);
	s.sync = sync;
	if (sink_webhook.open(&s, &sink, &err))
		fail_msg("open: %s", err.msg);
	return sink;
}

static void *open_sink(struct receiver *r, const struct sink_webhook_connection *c)
{
	return open_sink_of(r, c, &r->sync);
}

static struct sink_result post(void *sink)
{
	struct cdc_view view;
	struct cdc_batch *b = make_batch(&view);
	struct sink_job job = {.ticket = 1, .views = &view, .n = 1};
	struct sink_result result;
	uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;

	assert_int_equal(sink_webhook.submit(sink, &job, NULL), CDC_OK);
	cdc_batch_free(b);
	while (!sink_webhook.poll(sink, 1000, &result, 1))
		assert_true(cdc_clock_mono_ms() < end_ms);
	assert_int_equal(result.ticket, 1);
	return result;
}

/* Sends one record with these settings to a receiver that takes it. */
static struct sent send_one(struct receiver *r, const struct sink_webhook_connection *c)
{
	struct sent s = {.log = NULL};
	void *sink;

	assert_true(rules(r, ""));
	sink = open_sink(r, c);
	s.result = post(sink);
	sink_webhook.close(sink);
	assert_int_equal(s.result.outcome, SINK_DONE);
	assert_true(read_log(r, &s));
	return s;
}

/* How many of the head's lines are exactly this, or begin so where it ends with a colon. */
static size_t lines(const struct sent *s, const char *line)
{
	size_t n = 0, len = strlen(line);
	bool is_prefix = len && line[len - 1] == ':';

	for (const char *at = s->head; at < s->body;) {
		const char *stop = memchr(at, '\r', (size_t)(s->body - at));

		if (!stop)
			break;
		n += (size_t)(stop - at) >= len && strncasecmp(at, line, len) == 0 &&
		     (is_prefix || (size_t)(stop - at) == len);
		at = stop + 2;
	}
	return n;
}

static struct receiver *receiver_of(void **state)
{
	return *state;
}

/* --- what is sent ------------------------------------------------------------------- */

static void a_request_is_the_envelope_under_few_headers(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sent s = send_one(r, &r->good);
	char length[64], host[64];
	const char *stamp = memmem(s.head, s.head_len, "Polytomic-Signature-Timestamp: ", 31);
	size_t n = 0;

	assert_int_equal(s.body_len, strlen(ENVELOPE));
	assert_memory_equal(s.body, ENVELOPE, s.body_len);
	assert_int_equal(s.result.sent_bytes, s.body_len);
	(void)snprintf(length, sizeof(length), "Content-Length: %zu", s.body_len);
	(void)snprintf(host, sizeof(host), "Host: 127.0.0.1:%d", r->port);
	assert_int_equal(lines(&s, "POST /hook HTTP/1.1"), 1);
	assert_int_equal(lines(&s, host), 1);
	assert_int_equal(lines(&s, length), 1);
	assert_int_equal(lines(&s, "Content-Type: application/json"), 1);
	assert_int_equal(lines(&s, "User-Agent: walpost/" WALPOST_VERSION), 1);
	assert_int_equal(lines(&s, "Accept: */*"), 1);
	assert_int_equal(lines(&s, "Accept-Encoding: gzip"), 1);
	assert_int_equal(lines(&s, "webhook-id: " RECORD_HASH), 1);
	assert_int_equal(lines(&s, "webhook-timestamp:"), 1);
	assert_int_equal(lines(&s, "webhook-signature:"), 0);
	assert_int_equal(lines(&s, "webhook-replay:"), 0);
	assert_int_equal(lines(&s, "Authorization:"), 0);
	for (const char *at = s.head; at < s.body; at++)
		n += *at == '\n';
	assert_int_equal(n, 11); /* those, the timestamp, and the empty line */
	assert_non_null(stamp);
	stamp += 31;
	assert_memory_equal(stamp + 4, "-", 1);
	assert_memory_equal(stamp + 10, "T", 1);
	assert_memory_equal(stamp + 19, "Z\r\n", 3);
	forget(&s);
}

static void the_bare_array_is_sent_where_it_is_asked_for(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sent s;

	r->sync.body = SINK_WEBHOOK_RECORDS;
	s = send_one(r, &r->good);
	r->sync.body = SINK_WEBHOOK_SYNC_RECORDS;
	assert_int_equal(s.body_len, strlen(RECORD) + 2);
	assert_memory_equal(s.body, "[" RECORD "]", s.body_len);
	forget(&s);
}

static void every_auth_method_is_sent(void **state)
{
	struct receiver *r = receiver_of(state);
	char user[] = "user", password[] = "p:ss\xc3\xa4", name[] = "X-Api-Key", value[] = "k 1;";
	char secret[] = "s3cret", q1[] = "key", v1[] = "a b&c=d/\xc3\xa4", q2[] = "u", v2[] = "";
	struct cdc_opt_pair items[] = {{.name = q1, .value = v1}, {.name = q2, .value = v2}};
	struct sink_webhook_connection c = r->good;
	char url[160];
	struct sent s;

	c.auth_method = SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET;
	c.secret = secret;
	s = send_one(r, &c);
	assert_int_equal(lines(&s, "Authorization: Bearer s3cret"), 1);
	forget(&s);

	c = r->good;
	c.auth_method = SINK_WEBHOOK_AUTH_BASIC;
	c.basic.username = user;
	c.basic.password = password;
	s = send_one(r, &c);
	assert_int_equal(lines(&s, "Authorization: Basic dXNlcjpwOnNzw6Q="), 1);
	forget(&s);

	c = r->good;
	c.auth_method = SINK_WEBHOOK_AUTH_HEADER;
	c.header.name = name;
	c.header.value = value;
	s = send_one(r, &c);
	assert_int_equal(lines(&s, "X-Api-Key: k 1;"), 1);
	assert_int_equal(lines(&s, "Authorization:"), 0);
	forget(&s);

	c = r->good;
	c.auth_method = SINK_WEBHOOK_AUTH_QUERY;
	c.query = (struct cdc_opt_pairs){.items = items, .n = 2};
	s = send_one(r, &c);
	assert_int_equal(lines(&s, "POST /hook?key=a%20b%26c%3Dd%2F%C3%A4&u= HTTP/1.1"), 1);
	forget(&s);

	(void)snprintf(url, sizeof(url), "%s?own=1#fragment", r->url);
	c.url = url;
	s = send_one(r, &c);
	assert_int_equal(lines(&s, "POST /hook?own=1&key=a%20b%26c%3Dd%2F%C3%A4&u= HTTP/1.1"), 1);
	forget(&s);
}

static void own_headers_are_sent_once_each(void **state)
{
	struct receiver *r = receiver_of(state);
	char n1[] = "X-Tenant", v1[] = "7", n2[] = "X-Empty", v2[] = "", n3[] = "user-agent";
	char v3[] = "mine/1", n4[] = "Accept", v4[] = "text/plain", n5[] = "X-Blank", v5[] = " \t";
	struct cdc_opt_pair items[] = {{.name = n1, .value = v1},
				       {.name = n2, .value = v2},
				       {.name = n3, .value = v3},
				       {.name = n4, .value = v4},
				       {.name = n5, .value = v5}};
	struct sink_webhook_connection c = r->good;
	struct sent s;

	c.headers = (struct cdc_opt_pairs){.items = items, .n = 5};
	s = send_one(r, &c);
	assert_int_equal(lines(&s, "X-Tenant: 7"), 1);
	assert_int_equal(lines(&s, "X-Empty:"), 1);
	assert_int_equal(lines(&s, "X-Blank:"), 1);
	assert_int_equal(lines(&s, "user-agent: mine/1"), 1);
	assert_int_equal(lines(&s, "User-Agent:"), 1);
	assert_int_equal(lines(&s, "Accept: text/plain"), 1);
	assert_int_equal(lines(&s, "Accept:"), 1);
	forget(&s);
}

/* A replay says so, and nothing else is other than in a request that is none. */
static void a_replay_says_so(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sent s = {.log = NULL};
	struct sink_result result;
	struct cdc_view view;
	struct cdc_batch *b = make_batch(&view);
	struct sink_job job = {.ticket = 1, .views = &view, .n = 1, .is_replay = true};
	void *sink;

	assert_true(rules(r, ""));
	sink = open_sink(r, &r->good);
	assert_int_equal(sink_webhook.submit(sink, &job, NULL), CDC_OK);
	while (!sink_webhook.poll(sink, 1000, &result, 1))
		continue;
	cdc_batch_free(b);
	assert_true(read_log(r, &s));
	assert_int_equal(lines(&s, "webhook-replay: true"), 1);
	assert_int_equal(lines(&s, "webhook-id: " RECORD_HASH), 1);
	forget(&s);
	/* The slot's next request is none. */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(post(sink).outcome, SINK_DONE);
		assert_true(read_log(r, &s));
		assert_int_equal(lines(&s, "webhook-replay:"), 0);
		forget(&s);
	}
	sink_webhook.close(sink);
}

static void a_probe_is_an_options_request_and_the_next_a_post(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sent s = {.log = NULL};
	char text[200];
	void *sink;

	assert_true(rules(r, "body=some%20text"));
	sink = open_sink(r, &r->good);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(sink_webhook.probe(sink, text, sizeof(text), NULL), CDC_OK);
		assert_true(read_log(r, &s));
		assert_int_equal(lines(&s, "OPTIONS /hook HTTP/1.1"), 1);
		assert_int_equal(s.body_len, 0);
		forget(&s);
		/* Two, so that one of them has the probe's slot. */
		assert_int_equal(post(sink).outcome, SINK_DONE);
		assert_int_equal(post(sink).outcome, SINK_DONE);
		assert_true(read_log(r, &s));
		assert_int_equal(lines(&s, "POST /hook HTTP/1.1"), 1);
		assert_int_equal(lines(&s, "Content-Length:"), 1);
		assert_int_equal(s.body_len, strlen(ENVELOPE));
		assert_memory_equal(s.body, ENVELOPE, s.body_len);
		forget(&s);
	}
	sink_webhook.close(sink);
	assert_in_range(counter(r, "connections"), 1, 2 + 1);
}

/* --- what is refused at the start --------------------------------------------------- */

static void expect_refused(struct receiver *r, const struct sink_webhook_connection *c,
			   const char *names, const char *hides)
{
	struct sink_settings s = {.concurrency = 2, .wake_fd = -1};
	struct cdc_err err = {.code = CDC_OK};
	void *sink = NULL;

	settings_of(r, c, &s);
	if (sink_webhook.open(&s, &sink, &err) != CDC_CONFIG) {
		sink_webhook.close(sink);
		fail_msg("taken: %s", names);
	}
	if (!strstr(err.msg, names))
		fail_msg("\"%s\" does not name %s", err.msg, names);
	if (hides)
		assert_null(strstr(err.msg, hides));
}

static void headers_that_break_a_request_are_refused(void **state)
{
	static const struct {
		const char *name, *value, *names;
	} table[] = {
		{"X-A", "hidden\r\nX-B: 1", "X-A"},
		{"X-A", "hidden\nX-B: 1", "X-A"},
		{"X-A", "hidden\x01", "X-A"},
		{"X A", "hidden", "X A"},
		{"X-A:", "hidden", "X-A:"},
		{"", "hidden", "headers"},
		{"X\r\nY", "hidden", "headers"},
		{"Content-Length", "hidden", "Content-Length"},
		{"content-length", "hidden", "content-length"},
		{"Transfer-Encoding", "hidden", "Transfer-Encoding"},
		{"Connection", "hidden", "Connection"},
		{"Keep-Alive", "hidden", "Keep-Alive"},
		{"Proxy-Connection", "hidden", "Proxy-Connection"},
		{"Proxy-Authorization", "hidden", "Proxy-Authorization"},
		{"TE", "hidden", "TE"},
		{"Trailer", "hidden", "Trailer"},
		{"Upgrade", "hidden", "Upgrade"},
		{"Host", "hidden", "Host"},
		{"Expect", "hidden", "Expect"},
		{"Content-Type", "hidden", "Content-Type"},
		{"Content-Encoding", "hidden", "Content-Encoding"},
		{"Accept-Encoding", "hidden", "Accept-Encoding"},
		{"Webhook-Id", "hidden", "Webhook-Id"},
		{"webhook-timestamp", "hidden", "webhook-timestamp"},
		{"webhook-signature", "hidden", "webhook-signature"},
		{"webhook-replay", "hidden", "webhook-replay"},
		{"Polytomic-Signature-Timestamp", "hidden", "Polytomic-Signature-Timestamp"},
		{"Authorization", "hidden", "Authorization"}, /* auth_method sets it */
	};
	struct receiver *r = receiver_of(state);
	char secret[] = "s3cret";

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char name[64], value[64];
		struct cdc_opt_pair item = {.name = name, .value = value};
		struct sink_webhook_connection c = r->good;

		(void)snprintf(name, sizeof(name), "%s", table[i].name);
		(void)snprintf(value, sizeof(value), "%s", table[i].value);
		c.auth_method = SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET;
		c.secret = secret;
		c.headers = (struct cdc_opt_pairs){.items = &item, .n = 1};
		expect_refused(r, &c, table[i].names, "hidden");
	}
}

static void an_auth_method_needs_its_settings(void **state)
{
	struct receiver *r = receiver_of(state);
	char user[] = "us:er", secret[] = "hidden\n";
	struct sink_webhook_connection c = r->good;

	c.auth_method = SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET;
	expect_refused(r, &c, "secret", NULL);
	c.secret = secret;
	expect_refused(r, &c, "secret", "hidden");
	c.auth_method = SINK_WEBHOOK_AUTH_NONE;
	expect_refused(r, &c, "secret is given, but auth_method is none", "hidden");
	c = r->good;
	c.auth_method = SINK_WEBHOOK_AUTH_BASIC;
	expect_refused(r, &c, "basic: {username: ", NULL);
	c.basic.username = user;
	expect_refused(r, &c, "basic.username", NULL);
	c = r->good;
	c.auth_method = SINK_WEBHOOK_AUTH_HEADER;
	expect_refused(r, &c, "header", NULL);
	c.auth_method = SINK_WEBHOOK_AUTH_QUERY;
	expect_refused(r, &c, "query", NULL);
}

static void secrets_that_sign_nothing_are_refused(void **state)
{
	/* Secrets of 24 and 64 bytes; RFC 8032's key of test 2. */
	static const char least[] = "whsec_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVu";
	static const char most[] = "whsec_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVu"
				   "aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZA==";
	static const char seed[] = "whsk_TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
	static const char pair[] = "whsk_TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs9QBfD6EOJ"
				   "WpK3CqdNG368nJgszy7ElozAzVXxKvRmDA==";
	static const struct {
		const char *secret, *names;
	} table[] = {
		{"hidden", "signing_secrets[1] begins neither with whsec_"},
		{"whsec_", "stands for 0 bytes (allowed: 24 to 64)"},
		{"whsec_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGU", "stands for 23 bytes"},
		{"whsec_hidden!hidden!hidden!hidden!hidden!", "not base64"},
		{"whsec_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlk"
		 "ZGVuaGlkZGVuaGlkZGVuaGlkZGU=",
		 "stands for 65 bytes"},
		{"whsk_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVu", "32 bytes, or 64"},
		{"whsk_TM0Imyj/"
		 "ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs9QBfD6EOJWpK3CqdNG368nJgszy7ElozAz"
		 "VXxKvRm",
		 "32 bytes, or 64"},
		{"whsk_TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvtMzQibKP+W2p22w0bsEU4PW4oxnzWrpiTa"
		 "jPbtT7im+w==",
		 "its two halves"},
		{"whpk_PUAXw+hDiVqStwqnTRt+vJyYLMsuxJaMwM1V8Sr0Zgw=", "public key"},
	};
	struct receiver *r = receiver_of(state);
	char texts[4][160];
	char *items[10] = {texts[0], texts[1]};
	struct sink_webhook_connection c = r->good;
	struct sent s;

	c.signing_secrets = (struct cdc_opt_strs){.items = items, .n = 2};
	(void)snprintf(texts[0], sizeof(texts[0]), "%s", least);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		(void)snprintf(texts[1], sizeof(texts[1]), "%s", table[i].secret);
		expect_refused(r, &c, table[i].names, "hidden");
	}
	(void)snprintf(texts[1], sizeof(texts[1]), "%s", most);
	(void)snprintf(texts[2], sizeof(texts[2]), "%s", seed);
	(void)snprintf(texts[3], sizeof(texts[3]), "%s", pair);
	for (size_t i = 0; i < 10; i++)
		items[i] = texts[i % 4];
	c.signing_secrets.n = 9;
	expect_refused(r, &c, "9 entries (allowed: up to 8)", "hidden");
	c.signing_secrets.n = 4;
	s = send_one(r, &c);
	assert_int_equal(s.body_len, strlen(ENVELOPE));
	assert_memory_equal(s.body, ENVELOPE, s.body_len);
	assert_int_equal(s.result.sent_bytes, s.body_len);
	assert_int_equal(lines(&s, "webhook-signature:"), 1);
	forget(&s);
}

static void urls_and_certificates_are_looked_at(void **state)
{
	static const char *const urls[] = {
		"ftp://user:hidden@h/",
		"https://",
		"user:hidden@h",
		"http://user:hidden@h:x/",
		"http://user:hidden@h h/",
		"http://user:hidden@h/\r\nX: 1",
		"http://user:hidden@h:99999/",
	};
	struct receiver *r = receiver_of(state);
	char nothing[] = "/nonexistent/ca.pem", url[128], key[] = "-----BEGIN PRIVATE KEY-----";
	struct sink_webhook_connection c = r->good;

	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		(void)snprintf(url, sizeof(url), "%s", urls[i]);
		c.url = url;
		expect_refused(r, &c, "url", "hidden");
	}
	c = r->good;
	c.ca_cert = nothing;
	expect_refused(r, &c, "ca_cert", NULL);
	c = r->good;
	c.client_certificate = nothing;
	expect_refused(r, &c, "client_certificate", NULL);
	c = r->good;
	c.client_key = key;
	expect_refused(r, &c, "client_key", "BEGIN");
	c.client_certificate = key;
	c.client_key = r->port_file;
	expect_refused(r, &c, "client_key", NULL);
}

/* --- answers ------------------------------------------------------------------------ */

static struct sink_result post_of(struct receiver *r, const struct sink_webhook_sync *sync,
				  const char *text)
{
	void *sink;
	struct sink_result result;

	assert_true(rules(r, text));
	sink = open_sink_of(r, &r->good, sync);
	result = post(sink);
	sink_webhook.close(sink);
	return result;
}

static struct sink_result post_under(struct receiver *r, const char *text)
{
	return post_of(r, &r->sync, text);
}

/* It ends so, every time, and takes no longer than this once at least. */
static void expect_quick(struct receiver *r, const char *text, enum sink_outcome outcome,
			 uint64_t most_us)
{
	struct sink_result result = {.took_us = UINT64_MAX};

	for (int i = 0; i < TRIES && result.took_us >= most_us; i++) {
		result = post_under(r, text);
		assert_int_equal(result.outcome, outcome);
	}
	assert_true(result.took_us < most_us);
}

static void a_redirect_is_not_followed(void **state)
{
	static const char *const answers[] = {
		"status=301 location=/elsewhere", "status=302 location=/elsewhere",
		"status=307 location=/elsewhere", "status=308 location=/elsewhere"};
	struct receiver *r = receiver_of(state);

	for (size_t i = 0; i < 4; i++) {
		struct sink_result result = post_under(r, answers[i]);

		assert_int_equal(result.outcome, SINK_REJECT);
		assert_true(result.is_never_record);
		assert_int_equal(counter(r, "requests"), 1);
	}
}

static void a_status_line_decides_whatever_comes_behind_it(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sink_result result;

	result = post_under(r, "action=half body=0123456789");
	assert_int_equal(result.outcome, SINK_DONE);
	result = post_under(r, "action=half status=500 body=0123456789");
	assert_int_equal(result.outcome, SINK_RETRY);
	assert_int_equal(result.status, 500);
	/* A GiB is not read. */
	expect_quick(r, "action=huge", SINK_DONE, 500000);
	expect_quick(r, "action=huge-head", SINK_DONE, 500000);
	expect_quick(r, "action=huge-head status=100", SINK_RETRY, 500000);
	result = post_under(r, "action=huge status=400");
	assert_int_equal(result.outcome, SINK_REJECT);
	result = post_under(r, "action=reset");
	assert_int_equal(result.outcome, SINK_RETRY);
	assert_int_equal(result.status, 0);
	result = post_of(r, &r->brief, "action=stall-read path=/hook");
	assert_int_equal(result.outcome, SINK_RETRY);
	assert_int_equal(result.status, 0);
	/* 50 ms per byte: the limit of time ends it, within its status line or behind it. */
	result.took_us = UINT64_MAX;
	for (int i = 0; i < TRIES && result.took_us >= 1500000; i++) {
		result = post_of(r, &r->brief, "action=slow");
		assert_true(result.outcome == SINK_DONE || result.status == 0);
		assert_true(result.took_us >= 900000);
	}
	assert_true(result.took_us < 1500000);
}

static void a_wait_is_passed_on(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sink_result result;

	result = post_under(r, "status=429 retry_after=7");
	assert_int_equal(result.outcome, SINK_RETRY);
	assert_int_equal(result.retry_after_ms, 7000);
	assert_true(result.is_never_record);
	result = post_under(r, "status=503 retry_after=Sun,%2006%20Nov%201994%2008:49:37%20GMT");
	assert_int_equal(result.retry_after_ms, 0);
	result = post_under(r, "status=503 retry_after=later");
	assert_true(result.retry_after_ms == SINK_NO_RETRY_AFTER);
	result = post_under(r, "status=410");
	assert_int_equal(result.outcome, SINK_STOP);
}

static void connections_are_kept(void **state)
{
	struct receiver *r = receiver_of(state);
	void *sink;

	assert_true(rules(r, "every=3 status=500 body=not%20now"));
	sink = open_sink(r, &r->good);
	for (int i = 0; i < 60; i++)
		(void)post(sink);
	sink_webhook.close(sink);
	assert_int_equal(counter(r, "requests"), 60);
	/* Those of the sink, and that of the question. */
	assert_in_range(counter(r, "connections"), 1, 3 + 1);
}

static void a_kept_connection_that_is_dead_is_made_anew_once(void **state)
{
	struct receiver *r = receiver_of(state);
	void *sink;

	assert_true(rules(r, ""));
	sink = open_sink(r, &r->good);
	assert_int_equal(post(sink).outcome, SINK_DONE);
	/* The kept one ends without an answer, the new one has it. */
	assert_true(rules(r, "path=/hook count=1 action=close"));
	assert_int_equal(post(sink).outcome, SINK_DONE);
	assert_int_equal(counter(r, "requests"), 2);
	/* Two in a row are the endpoint's own trouble. */
	assert_true(rules(r, "path=/hook action=close"));
	assert_int_equal(post(sink).outcome, SINK_RETRY);
	assert_int_equal(counter(r, "requests"), 2);
	/* A new connection that ends is no kept one. */
	assert_true(rules(r, "path=/hook action=close"));
	assert_int_equal(post(sink).outcome, SINK_RETRY);
	assert_int_equal(counter(r, "requests"), 1);
	sink_webhook.close(sink);
}

static void an_answer_of_before_is_not_taken_for_todays(void **state)
{
	struct receiver *r = receiver_of(state);
	void *sink;

	assert_true(rules(r, ""));
	sink = open_sink(r, &r->good);
	for (int i = 0; i < 4; i++)
		assert_int_equal(post(sink).outcome, SINK_DONE);
	stop_receiver(r);
	for (int i = 0; i < 4; i++) {
		struct sink_result result = post(sink);

		assert_int_equal(result.outcome, SINK_RETRY);
		assert_int_equal(result.status, 0);
		assert_true(result.is_transient);
	}
	assert_true(start_receiver(r));
	for (int i = 0; i < 4; i++)
		assert_int_equal(post(sink).outcome, SINK_DONE);
	sink_webhook.close(sink);
}

static void no_proxy_is_taken_from_the_environment(void **state)
{
	static const char *const names[] = {"http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"};
	struct receiver *r = receiver_of(state);
	struct sent s;

	for (size_t i = 0; i < 4; i++)
		assert_int_equal(setenv(names[i], r->dead_url, 1), 0);
	s = send_one(r, &r->good);
	forget(&s);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(unsetenv(names[i]), 0);
}

/* Posts to a url with only these networks open. */
static struct sink_result post_within(struct receiver *r, const char *host, const char *network)
{
	char url[128], item[32], *items[] = {item};
	struct sink_webhook_connection c = r->good;
	struct sink_result result;
	void *sink;

	(void)snprintf(url, sizeof(url), "http://%s:%d/hook", host, r->port);
	(void)snprintf(item, sizeof(item), "%s", network);
	c.url = url;
	c.allowed_networks = (struct cdc_opt_strs){.items = items, .n = 1};
	assert_true(rules(r, ""));
	sink = open_sink(r, &c);
	result = post(sink);
	sink_webhook.close(sink);
	return result;
}

static void an_address_that_is_not_open_gets_nothing(void **state)
{
	static const char *const hosts[] = {"127.0.0.1",  "localhost", "[::ffff:127.0.0.1]",
					    "2130706433", "0x7f.1",    "0"};
	struct receiver *r = receiver_of(state);

	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		struct sink_result result = post_within(r, hosts[i], "public");

		assert_int_equal(result.outcome, SINK_RETRY);
		assert_int_equal(result.status, 0);
		assert_true(result.is_never_record);
		assert_false(result.is_transient);
		if (!strstr(result.text, "allowed_networks") || !strstr(result.text, " address"))
			fail_msg("%s: %s", hosts[i], result.text);
		assert_int_equal(counter(r, "requests"), 0);
		/* That of the question. */
		assert_int_equal(counter(r, "connections"), 1 + 1);
	}
	assert_int_equal(post_within(r, "127.0.0.1", "10.0.0.0/8").outcome, SINK_RETRY);
	assert_int_equal(post_within(r, "127.0.0.1", "127.0.0.0/8").outcome, SINK_DONE);
	assert_int_equal(post_within(r, "localhost", "127.0.0.1").outcome, SINK_DONE);
	assert_int_equal(post_within(r, "[::ffff:127.0.0.1]", "127.0.0.1").outcome, SINK_DONE);
}

static void a_proxy_is_used_when_it_is_configured(void **state)
{
	struct receiver *r = receiver_of(state);
	char url[] = "http://nowhere.invalid/hook", proxy[128], open[] = "public",
	     *items[] = {open};
	struct sink_webhook_connection c = r->good;
	struct sink_result result;
	struct sent s;
	void *sink;

	(void)snprintf(proxy, sizeof(proxy), "http://user:s3cret@127.0.0.1:%d", r->port);
	c.url = url;
	c.proxy = proxy;
	assert_int_equal(setenv("no_proxy", "*", 1), 0);
	assert_int_equal(setenv("NO_PROXY", "*", 1), 0);
	s = send_one(r, &c);
	assert_int_equal(unsetenv("no_proxy"), 0);
	assert_int_equal(unsetenv("NO_PROXY"), 0);
	assert_int_equal(lines(&s, "POST http://nowhere.invalid/hook HTTP/1.1"), 1);
	assert_int_equal(lines(&s, "Proxy-Authorization: Basic dXNlcjpzM2NyZXQ="), 1);
	forget(&s);

	/* It is judged as any other address. */
	c.allowed_networks = (struct cdc_opt_strs){.items = items, .n = 1};
	assert_true(rules(r, ""));
	sink = open_sink(r, &c);
	result = post(sink);
	sink_webhook.close(sink);
	assert_non_null(strstr(result.text, "127.0.0.1 is a loopback address"));
	assert_int_equal(counter(r, "requests"), 0);

	/* One that is not there is no way round. */
	c = r->good;
	(void)snprintf(proxy, sizeof(proxy), "http://user:s3cret@127.0.0.1:%d", r->dead_port);
	c.proxy = proxy;
	sink = open_sink(r, &c);
	result = post(sink);
	sink_webhook.close(sink);
	assert_int_equal(result.outcome, SINK_RETRY);
	assert_null(strstr(result.text, "s3cret"));
	assert_int_equal(counter(r, "requests"), 0);
}

/* --- tokens ------------------------------------------------------------------------- */

#define TOKEN(name, more)                                                                          \
	"path=/token " more " body=%7B%22access_token%22:%22" name                                 \
	"%22,%22token_type%22:%22Bearer%22%7D\n"

static struct sink_webhook_connection with_token(struct receiver *r)
{
	static char id[] = "me", secret[] = "s3cret", endpoint[64];
	struct sink_webhook_connection c = r->good;

	(void)snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%d/token", r->port);
	c.auth_method = SINK_WEBHOOK_AUTH_OAUTH;
	c.oauth.token_endpoint = endpoint;
	c.oauth.client_id = id;
	c.oauth.client_secret = secret;
	return c;
}

static void a_token_is_had_once_and_sent_with_each_request(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sink_webhook_connection c = with_token(r);
	struct sent s = {.log = NULL};
	char text[200];
	void *sink;

	assert_true(rules(r, TOKEN("t1", "delay_ms=100")));
	sink = open_sink(r, &c);
	assert_int_equal(counter(r, "requests"), 0);
	assert_int_equal(sink_webhook.probe(sink, text, sizeof(text), NULL), CDC_OK);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(post(sink).outcome, SINK_DONE);
		assert_true(read_log(r, &s));
		assert_int_equal(lines(&s, "POST /hook HTTP/1.1"), 1);
		assert_int_equal(lines(&s, "Authorization: Bearer t1"), 1);
		assert_int_equal(lines(&s, "Authorization:"), 1);
		assert_int_equal(s.body_len, strlen(ENVELOPE));
		assert_memory_equal(s.body, ENVELOPE, s.body_len);
		forget(&s);
	}
	assert_int_equal(counter(r, "requests"), 1 + 1 + 5);
	sink_webhook.close(sink);
}

static void requests_wait_for_one_token_together(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sink_webhook_connection c = with_token(r);
	struct cdc_view view;
	struct cdc_batch *b = make_batch(&view);
	struct sink_result results[2];
	uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;
	void *sink;
	size_t n = 0;

	assert_true(rules(r, TOKEN("t1", "delay_ms=300")));
	sink = open_sink(r, &c);
	for (uint64_t i = 0; i < 2; i++) {
		struct sink_job job = {.ticket = i, .views = &view, .n = 1};

		assert_int_equal(sink_webhook.submit(sink, &job, NULL), CDC_OK);
	}
	assert_int_equal(
		sink_webhook.submit(sink, &(struct sink_job){.views = &view, .n = 1}, NULL),
		CDC_BUSY);
	while (n < 2 && cdc_clock_mono_ms() < end_ms)
		n += sink_webhook.poll(sink, 1000, results + n, 2 - n);
	cdc_batch_free(b);
	assert_int_equal(n, 2);
	assert_int_equal(results[0].outcome, SINK_DONE);
	assert_int_equal(results[1].outcome, SINK_DONE);
	assert_int_not_equal(results[0].ticket, results[1].ticket);
	assert_int_equal(counter(r, "requests"), 1 + 2);
	sink_webhook.close(sink);
	/* What waits is dropped with the sink. */
	assert_true(rules(r, TOKEN("t1", "action=hang")));
	sink = open_sink(r, &c);
	b = make_batch(&view);
	assert_int_equal(
		sink_webhook.submit(sink, &(struct sink_job){.views = &view, .n = 1}, NULL),
		CDC_OK);
	cdc_batch_free(b);
	sink_webhook.close(sink);
}

static void a_token_that_is_refused_is_had_anew_once(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sink_webhook_connection c = with_token(r);
	struct sink_result result;
	struct sent s = {.log = NULL};
	void *sink;

	assert_true(rules(r, TOKEN("t1", "count=1") TOKEN("t2", "") "path=/hook skip=1 count=1 "
								    "status=401"));
	sink = open_sink(r, &c);
	assert_int_equal(post(sink).outcome, SINK_DONE);
	assert_int_equal(post(sink).outcome, SINK_DONE);
	assert_true(read_log(r, &s));
	assert_int_equal(lines(&s, "Authorization: Bearer t2"), 1);
	assert_int_equal(s.body_len, strlen(ENVELOPE));
	assert_memory_equal(s.body, ENVELOPE, s.body_len);
	forget(&s);
	assert_int_equal(counter(r, "requests"), 2 + 3);

	/* No token is good enough: that is the answer, after one more try. */
	assert_true(rules(r, TOKEN("t3", "") "path=/hook status=401"));
	result = post(sink);
	assert_int_equal(result.outcome, SINK_REJECT);
	assert_int_equal(result.status, 401);
	assert_true(result.is_never_record);
	assert_int_equal(counter(r, "requests"), 1 + 2);
	sink_webhook.close(sink);
}

/* More than a slot keeps when its request has ended. */
static void a_large_body_goes_again_with_a_new_token(void **state)
{
	static const char record[] = "{\"id\":\"x\",\"operation\":\"insert\",\"fields\":\"";
	struct receiver *r = receiver_of(state);
	struct sink_webhook_connection c = with_token(r);
	struct cdc_batch *b = cdc_batch_new(8 << 20);
	struct sink_result result;
	struct cdc_record *rec;
	struct cdc_view view;
	uint64_t end_ms = cdc_clock_mono_ms() + WAIT_MS;
	uint16_t table;
	void *sink;

	assert_non_null(b);
	assert_int_equal(cdc_batch_table(b, "public.t", 8, &table, NULL), CDC_OK);
	assert_int_equal(cdc_batch_begin(b, &rec, NULL), CDC_OK);
	rec->id = (struct cdc_id){.epoch = 1, .commit_lsn = 1, .ordinal = 1, .part = 1};
	cdc_buf_puts(&b->json, record);
	for (size_t i = 0; i < 5 << 20; i++)
		cdc_buf_putc(&b->json, 'x');
	cdc_buf_puts(&b->json, "\"}");
	assert_int_equal(cdc_batch_end(b, NULL), CDC_OK);
	view = (struct cdc_view){.rec = &b->records[0], .batch = b};
	assert_true(
		rules(r, TOKEN("t1", "count=1") TOKEN("t2", "") "path=/hook count=1 status=401"));
	sink = open_sink(r, &c);
	assert_int_equal(
		sink_webhook.submit(sink, &(struct sink_job){.views = &view, .n = 1}, NULL),
		CDC_OK);
	while (!sink_webhook.poll(sink, 1000, &result, 1))
		assert_true(cdc_clock_mono_ms() < end_ms);
	assert_int_equal(result.outcome, SINK_DONE);
	assert_in_range(result.sent_bytes, 5 << 20, 6 << 20);
	assert_int_equal(counter(r, "requests"), 2 + 2);
	sink_webhook.close(sink);
	cdc_batch_free(b);
}

static void without_a_token_nothing_is_sent(void **state)
{
	static const struct {
		const char *rules, *says;
		uint64_t retry_after_ms;
	} table[] = {
		{"path=/token status=401 body=%7B%22error%22:%22invalid_client%22%7D",
		 "no token: the token endpoint answers 401: invalid_client", SINK_NO_RETRY_AFTER},
		{"path=/token status=503 retry_after=7", "no token: the token endpoint answers 503",
		 7000},
		{"path=/token action=close", "no token: the token endpoint: ", SINK_NO_RETRY_AFTER},
		{"path=/token action=hang", "no token: the token endpoint: ", SINK_NO_RETRY_AFTER},
		{"path=/token action=huge", "its answer is too long", SINK_NO_RETRY_AFTER},
		{"path=/token body=s3cret", "is no JSON object", SINK_NO_RETRY_AFTER},
	};
	struct receiver *r = receiver_of(state);
	struct sink_webhook_connection c = with_token(r);
	void *sink = open_sink(r, &c), *brief = open_sink_of(r, &c, &r->brief);
	struct cdc_err err = {.code = CDC_OK};
	char text[200];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct sink_result result;

		assert_true(rules(r, table[i].rules));
		result = post(strstr(table[i].rules, "hang") ? brief : sink);
		assert_int_equal(result.outcome, SINK_RETRY);
		assert_int_equal(result.status, 0);
		assert_true(result.is_never_record);
		assert_true(result.retry_after_ms == table[i].retry_after_ms);
		if (!strstr(result.text, table[i].says))
			fail_msg("%s: %s", table[i].rules, result.text);
		assert_null(strstr(result.text, "s3cret"));
		/* A second time when a connection that was kept ends without an answer. */
		assert_in_range(counter(r, "requests"), 1, 2);
	}
	sink_webhook.close(brief);
	assert_int_equal(sink_webhook.probe(sink, text, sizeof(text), &err), CDC_IO);
	assert_non_null(strstr(err.msg, "no token"));
	/* And when there is one again, the same sink goes on. */
	assert_true(rules(r, TOKEN("t1", "")));
	assert_int_equal(post(sink).outcome, SINK_DONE);
	sink_webhook.close(sink);
}

static void tokens_are_had_by_the_same_rules(void **state)
{
	struct receiver *r = receiver_of(state);
	struct sink_webhook_connection c = with_token(r);
	char url[64], closed[] = "127.0.0.2", *items[] = {closed}, name[] = "authorization";
	char value[] = "hidden", ftp[] = "ftp://x";
	struct cdc_opt_pair header = {.name = name, .value = value};
	struct sink_result result;
	struct cdc_err err = {.code = CDC_OK};
	const char *key = NULL;
	void *sink;

	/* The endpoint's network is open, that of tokens is not. */
	(void)snprintf(url, sizeof(url), "http://127.0.0.2:%d/hook", r->port);
	c.url = url;
	c.allowed_networks = (struct cdc_opt_strs){.items = items, .n = 1};
	assert_true(rules(r, TOKEN("t1", "")));
	sink = open_sink(r, &c);
	result = post(sink);
	sink_webhook.close(sink);
	assert_non_null(strstr(result.text, "127.0.0.1 is a loopback address"));
	assert_int_equal(counter(r, "requests"), 0);

	c = with_token(r);
	c.headers = (struct cdc_opt_pairs){.items = &header, .n = 1};
	expect_refused(r, &c, "authorization", "hidden");
	c = with_token(r);
	c.oauth.token_endpoint = ftp;
	expect_refused(r, &c, "oauth.token_endpoint", NULL);
	assert_int_equal(sink_webhook.check(&c, &key, &err), CDC_CONFIG);
	c = r->good;
	c.auth_method = SINK_WEBHOOK_AUTH_OAUTH;
	expect_refused(r, &c, "oauth: {token_endpoint: ", NULL);
	c = with_token(r);
	c.auth_method = SINK_WEBHOOK_AUTH_NONE;
	expect_refused(r, &c, "oauth is given, but auth_method is none", "s3cret");
}

static void proxies_and_networks_are_looked_at(void **state)
{
	static const char *const bad[] = {"ftp://user:hidden@h", "http://",
					  "http://user:hidden@h:x", "socks4://hidden",
					  "http://user:hidden@h h"};
	struct receiver *r = receiver_of(state);
	char proxy[64], network[] = "10.0.0.0/99", *items[] = {network};
	struct sink_webhook_connection c = r->good;
	struct cdc_err err;
	const char *key = NULL;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		(void)snprintf(proxy, sizeof(proxy), "%s", bad[i]);
		c.proxy = proxy;
		expect_refused(r, &c, "proxy", "hidden");
		memset(&err, 0, sizeof(err));
		assert_int_equal(sink_webhook.check(&c, &key, &err), CDC_CONFIG);
		assert_string_equal(key, "proxy");
	}
	c = r->good;
	c.allowed_networks = (struct cdc_opt_strs){.items = items, .n = 1};
	expect_refused(r, &c, "allowed_networks", NULL);
	assert_int_equal(sink_webhook.check(&c, &key, &err), CDC_CONFIG);
	assert_string_equal(key, "allowed_networks");
	assert_int_equal(sink_webhook.check(&r->good, &key, &err), CDC_OK);
}

static void texts_hold_no_secret(void **state)
{
	static const char *const troubles[] = {"status=401", "status=500", "action=close",
					       "action=hang", "status=302 location=/?hidden=1"};
	struct receiver *r = receiver_of(state);
	char name[] = "token", value[] = "hidden", url[128];
	struct cdc_opt_pair item = {.name = name, .value = value};
	struct sink_webhook_connection c = r->good;
	struct sink_result result;
	void *sink;

	c.auth_method = SINK_WEBHOOK_AUTH_QUERY;
	c.query = (struct cdc_opt_pairs){.items = &item, .n = 1};
	for (size_t i = 0; i <= sizeof(troubles) / sizeof(troubles[0]); i++) {
		bool is_dead = i == sizeof(troubles) / sizeof(troubles[0]);

		(void)snprintf(url, sizeof(url), "http://user:hidden@127.0.0.1:%d/hidden",
			       is_dead ? r->dead_port : r->port);
		c.url = url;
		assert_true(rules(r, is_dead ? "" : troubles[i]));
		sink = open_sink_of(r, &c, &r->brief);
		result = post(sink);
		sink_webhook.close(sink);
		assert_true(result.outcome != SINK_DONE);
		assert_null(strstr(result.text, "hidden"));
		assert_true(result.text[0] != '\0');
	}
}

/* --- the list ----------------------------------------------------------------------- */

#define TEST(f) cmocka_unit_test_prestate(f, &receiver)

int main(void)
{
	struct receiver receiver = {.dead_fd = -1};
	const struct sink_contract_hooks hooks = {
		.arg = &receiver,
		.reach = reach,
		.reach_briefly = reach_briefly,
		.nowhere = nowhere,
		.unusable = unusable,
		.behave = behave,
		.accepted = accepted,
	};
	const struct CMUnitTest tests[] = {
		TEST(a_request_is_the_envelope_under_few_headers),
		TEST(the_bare_array_is_sent_where_it_is_asked_for),
		TEST(every_auth_method_is_sent),
		TEST(own_headers_are_sent_once_each),
		TEST(a_replay_says_so),
		TEST(a_probe_is_an_options_request_and_the_next_a_post),
		TEST(headers_that_break_a_request_are_refused),
		TEST(an_auth_method_needs_its_settings),
		TEST(secrets_that_sign_nothing_are_refused),
		TEST(urls_and_certificates_are_looked_at),
		TEST(a_redirect_is_not_followed),
		TEST(a_status_line_decides_whatever_comes_behind_it),
		TEST(a_wait_is_passed_on),
		TEST(connections_are_kept),
		TEST(a_kept_connection_that_is_dead_is_made_anew_once),
		TEST(an_answer_of_before_is_not_taken_for_todays),
		TEST(no_proxy_is_taken_from_the_environment),
		TEST(an_address_that_is_not_open_gets_nothing),
		TEST(a_proxy_is_used_when_it_is_configured),
		TEST(proxies_and_networks_are_looked_at),
		TEST(a_token_is_had_once_and_sent_with_each_request),
		TEST(requests_wait_for_one_token_together),
		TEST(a_token_that_is_refused_is_had_anew_once),
		TEST(a_large_body_goes_again_with_a_new_token),
		TEST(without_a_token_nothing_is_sent),
		TEST(tokens_are_had_by_the_same_rules),
		TEST(texts_hold_no_secret),
	};
	int failed;

	if (!begin(&receiver)) {
		(void)fprintf(stderr,
			      "the receiver does not start; it must lie beside this program\n");
		end(&receiver);
		return 1;
	}
	failed = cmocka_run_group_tests_name("webhook on the wire", tests, NULL, NULL);
	/* The contract's bodies are large; nobody reads its log. */
	failed += sink_contract_run(&sink_webhook, &hooks);
	end(&receiver);
	return failed;
}
