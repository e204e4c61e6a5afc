/*
 * receiver.c - an HTTP receiver for tests and benchmarks: takes every POST, writes
 * it down byte for byte, and misbehaves on command.
 *
 *   receiver --listen 127.0.0.1:PORT [--log FILE] [--port-file FILE] [--fsync] [--latency]
 *
 * POST /_control  rules, one per line, of key=value pairs between spaces; values are
 *                 percent-decoded; the first rule that matches decides; empty: all is 200
 * GET  /_stats    counters as JSON        GET /_latency  commit to arrival, percentiles
 * POST /_reset    counters to zero        POST /_quit    ends the program
 *
 * Which requests a rule takes: match=TEXT (in the body), path=PREFIX, skip=N (not the
 * first N), every=N, count=N (then no more), for_ms=N (from now), p=0.1 with seed=N.
 * What it does: delay_ms, action=
 *   answer      status (200), retry_after, location, body; {id} in it is the first record's
 *   close, reset  ends the connection without an answer
 *   half        status line and half of the rest, then ends
 *   hang        never answers            slow  a byte of the answer every 50 ms
 *   huge        a body of 1 GiB          huge-head  headers of 1 GiB
 *   stall-read  reads no further behind the head (path only)
 *   part        200, and says of the records with the match's TEXT that they failed
 *
 * Log entry, written before the answer goes out:
 *   "walpost-receiver 1 SEQ WALL_US STATUS ACTION HEAD_BYTES BODY_BYTES\n" head body "\n"
 * STATUS is what the sender can have seen, 0 when nothing.  The ACTION part is followed by the ids
 * of the records that failed: part:ID,ID
 *
 * One thread, epoll, HTTP/1.1 with keep-alive.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tests/receiver/latency.h"
#include "tests/receiver/rules.h"

#define HEAD_MAX   (64u << 10)
#define BODY_MAX   (1u << 30)
#define READ_BYTES (256u << 10)
#define KEEP_BYTES (1u << 20)
#define LOG_BYTES  (1u << 20)
#define EVENTS     64
#define SLOW_MS    50
#define HUGE_BYTES (UINT64_C(1) << 30)
#define ID_LEN     39 /* of a record that was not copied */

struct bytes {
	char *data;
	size_t len, cap;
};

enum state {
	READING,
	WAITING, /* decided: the answer goes out at due_ms, and behind the log */
	SENDING,
	SILENT, /* hangs, or reads no further */
};

struct conn {
	int fd;
	struct conn *prev, *next;
	enum state state;
	struct bytes in, out;
	size_t out_at, scanned;         /* sent; looked at for the head's end */
	bool is_dead, is_last, is_made; /* made: the answer is in out already */
	struct decision decision;
	char first_id[ID_LEN + 1]; /* of the request's records; empty: none */
	struct bytes failed;       /* ACTION_PART: ids, a comma behind each */
	uint64_t due_ms;           /* of the answer, or of its next byte */
	uint64_t huge_left;
};

struct receiver {
	int listen_fd, epoll_fd, signal_fd, log_fd;
	bool is_fsync, is_done;
	struct conn *conns;
	struct bytes log;
	struct rules rules;
	struct latency *latency; /* NULL: not asked for */
	uint64_t seq;
	struct {
		uint64_t requests, accepted, records, bytes, connections, open, first_us, last_us;
		uint64_t status[600];
	} stats;
};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)fputs("receiver: ", stderr);
	(void)vfprintf(stderr, fmt, ap);
	(void)fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static uint64_t mono_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t wall_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static char *room(struct bytes *b, size_t n)
{
	if (b->cap - b->len < n) {
		size_t cap = b->cap ? b->cap : 4096;

		while (cap - b->len < n)
			cap *= 2;
		b->data = realloc(b->data, cap);
		if (!b->data)
			die("out of memory");
		b->cap = cap;
	}
	return b->data + b->len;
}

static void put(struct bytes *b, const void *data, size_t n)
{
	if (n)
		memcpy(room(b, n), data, n);
	b->len += n;
}

__attribute__((format(printf, 2, 3))) static void put_text(struct bytes *b, const char *fmt, ...)
{
	char line[4096];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	put(b, line, n < (int)sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

static void empty(struct bytes *b)
{
	b->len = 0;
	if (b->cap > KEEP_BYTES) {
		free(b->data);
		*b = (struct bytes){0};
	}
}

/* --- the log ------------------------------------------------------------------------ */

static void flush_log(struct receiver *r)
{
	for (size_t at = 0; at < r->log.len;) {
		ssize_t n = write(r->log_fd, r->log.data + at, r->log.len - at);

		if (n < 0 && errno != EINTR)
			die("writing the log: %s", strerror(errno));
		at += n > 0 ? (size_t)n : 0;
	}
	if (r->log.len && r->is_fsync && fdatasync(r->log_fd))
		die("fsync of the log: %s", strerror(errno));
	empty(&r->log);
}

static void write_down(struct receiver *r, const struct conn *c, const char *head, size_t head_len,
		       const char *body, size_t body_len, uint64_t now_us)
{
	const struct decision *d = &c->decision;
	static const char *const names[] = {"answer", "close", "reset",      "half",      "hang",
					    "slow",   "huge",  "stall-read", "huge-head", "part:"};

	if (r->log_fd < 0)
		return;
	put_text(&r->log, "walpost-receiver 1 %llu %llu %d %s", (unsigned long long)r->seq,
		 (unsigned long long)now_us, decision_status(d), names[d->action]);
	if (d->action == ACTION_PART)
		put(&r->log, c->failed.data, c->failed.len);
	put_text(&r->log, " %zu %zu\n", head_len, body_len);
	put(&r->log, head, head_len);
	put(&r->log, body, body_len);
	put(&r->log, "\n", 1);
	if (r->log.len > LOG_BYTES)
		flush_log(r);
}

/* --- connections -------------------------------------------------------------------- */

static void watch(const struct receiver *r, struct conn *c, uint32_t events)
{
	struct epoll_event e = {.events = events, .data = {.ptr = c}};

	if (epoll_ctl(r->epoll_fd, EPOLL_CTL_MOD, c->fd, &e))
		die("epoll_ctl: %s", strerror(errno));
}

static void take_connection(struct receiver *r)
{
	int fd, one = 1;

	while ((fd = accept4(r->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *c = calloc(1, sizeof(*c));
		struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = c}};

		if (!c)
			die("out of memory");
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		c->fd = fd;
		c->next = r->conns;
		if (c->next)
			c->next->prev = c;
		r->conns = c;
		if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &e))
			die("epoll_ctl: %s", strerror(errno));
		r->stats.connections++;
		r->stats.open++;
	}
}

static void drop(struct receiver *r, struct conn *c, bool is_reset)
{
	struct linger now = {.l_onoff = 1};

	if (c->is_dead)
		return;
	if (is_reset)
		(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(c->fd);
	c->is_dead = true; /* freed at the end of the turn: events may still point to it */
	r->stats.open--;
}

static void bury(struct receiver *r)
{
	for (struct conn *c = r->conns, *next; c; c = next) {
		next = c->next;
		if (!c->is_dead)
			continue;
		if (c->prev)
			c->prev->next = next;
		else
			r->conns = next;
		if (next)
			next->prev = c->prev;
		free(c->in.data);
		free(c->out.data);
		free(c->failed.data);
		free(c);
	}
}

/* --- answers ------------------------------------------------------------------------ */

static void make_answer(struct conn *c, int status, const char *extra, const char *body,
			size_t body_len)
{
	if (status == 200 && !*extra && !body_len) {
		static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

		put(&c->out, ok, sizeof(ok) - 1);
		return;
	}
	put_text(&c->out, "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\n%s\r\n", status, body_len,
		 extra);
	put(&c->out, body, body_len);
}

/* Puts the id in every place of text that says {id}. */
static void expand(const char *text, const char *id, struct bytes *out)
{
	static const char mark[] = "{id}";

	for (const char *at; (at = strstr(text, mark)); text = at + sizeof(mark) - 1) {
		put(out, text, (size_t)(at - text));
		put(out, id, strlen(id));
	}
	put(out, text, strlen(text));
}

static void put_failed(const struct bytes *failed, struct bytes *out)
{
	static const char head[] = "{\"failed\":[";

	put(out, head, sizeof(head) - 1);
	for (size_t at = 0; at < failed->len; at += ID_LEN + 1)
		put_text(out, "%s{\"id\":\"%.*s\",\"retry\":false,\"reason\":\"it has the text\"}",
			 at ? "," : "", ID_LEN, failed->data + at);
	put(out, "]}", 2);
}

static void make_decided(struct conn *c)
{
	const struct decision *d = &c->decision;
	struct bytes body = {0};
	char extra[2048];

	(void)snprintf(extra, sizeof(extra), "%s%s%s%s%s%s", d->retry_after ? "Retry-After: " : "",
		       d->retry_after ? d->retry_after : "", d->retry_after ? "\r\n" : "",
		       d->location ? "Location: " : "", d->location ? d->location : "",
		       d->location ? "\r\n" : "");
	if (d->action == ACTION_HEAD) {
		put_text(&c->out, "HTTP/1.1 %d Status\r\n", d->status);
		c->huge_left = HUGE_BYTES;
		return;
	}
	if (d->action == ACTION_HUGE) {
		put_text(&c->out, "HTTP/1.1 %d Status\r\nContent-Length: %llu\r\n%s\r\n", d->status,
			 (unsigned long long)HUGE_BYTES, extra);
		c->huge_left = HUGE_BYTES;
		return;
	}
	if (d->action == ACTION_PART)
		put_failed(&c->failed, &body);
	else
		expand(d->body ? d->body : "", c->first_id, &body);
	make_answer(c, d->status, extra, body.data, body.len);
	free(body.data);
	if (d->action == ACTION_HALF) {
		/* The whole status line, and half of what is behind it. */
		const char *end = memchr(c->out.data, '\n', c->out.len);
		size_t line = (size_t)(end + 1 - c->out.data);

		c->out.len = line + (c->out.len - line) / 2;
	}
}

/* The next request may be looked at. */
static void finish_request(struct receiver *r, struct conn *c)
{
	empty(&c->out);
	c->out_at = 0;
	c->is_made = false;
	c->state = READING;
	if (c->is_last)
		drop(r, c, false);
}

/* The next piece of a body or a head without end; false: there is none. */
static bool refill(struct conn *c)
{
	size_t piece = c->huge_left < 65536 ? (size_t)c->huge_left : 65536;

	if (!piece)
		return false;
	empty(&c->out);
	c->out_at = 0;
	(void)room(&c->out, piece);
	for (size_t i = 0; i < piece; i += 8)
		memcpy(c->out.data + i, "X: 123\r\n", 8);
	c->out.len = piece;
	c->huge_left -= piece;
	return true;
}

static void send_out(struct receiver *r, struct conn *c)
{
	bool is_slow = c->decision.action == ACTION_SLOW;

	c->state = SENDING;
	while (c->out_at < c->out.len || refill(c)) {
		size_t n = is_slow ? 1 : c->out.len - c->out_at;
		ssize_t sent = send(c->fd, c->out.data + c->out_at, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN) {
			watch(r, c, EPOLLIN | EPOLLOUT);
			return;
		}
		if (sent < 0) {
			drop(r, c, false);
			return;
		}
		c->out_at += (size_t)sent;
		if (is_slow) {
			c->due_ms = mono_ms() + SLOW_MS;
			return;
		}
	}
	finish_request(r, c);
}

static void carry_out(struct receiver *r, struct conn *c)
{
	if (!c->is_made) {
		switch (c->decision.action) {
		case ACTION_CLOSE:
		case ACTION_RESET:
			drop(r, c, c->decision.action == ACTION_RESET);
			return;
		case ACTION_HANG:
		case ACTION_STALL:
			c->state = SILENT;
			return;
		case ACTION_ANSWER:
		case ACTION_HALF:
		case ACTION_SLOW:
		case ACTION_HUGE:
		case ACTION_HEAD:
		case ACTION_PART:
			make_decided(c);
			c->is_last |= c->decision.action == ACTION_HALF;
		}
	}
	send_out(r, c);
}

/* --- requests ----------------------------------------------------------------------- */

static const char *header(const char *head, size_t len, const char *name, size_t *ret_len)
{
	size_t n = strlen(name);

	for (const char *line = memchr(head, '\n', len); line;
	     line = memchr(line, '\n', (size_t)(head + len - line))) {
		const char *end;

		line++;
		if ((size_t)(head + len - line) <= n || strncasecmp(line, name, n) != 0 ||
		    line[n] != ':')
			continue;
		line += n + 1;
		while (*line == ' ')
			line++;
		end = memchr(line, '\r', (size_t)(head + len - line));
		*ret_len = (size_t)((end ? end : head + len) - line);
		return line;
	}
	return NULL;
}

/* Reads a chunked body from bytes; returns its raw length, 0: not whole, -1: none. */
static ssize_t unchunk(const char *in, size_t len, struct bytes *out)
{
	size_t at = 0;

	for (;;) {
		const char *eol = memchr(in + at, '\n', len - at);
		unsigned long n;
		char *end;

		if (!eol)
			return 0;
		n = strtoul(in + at, &end, 16);
		if (end == in + at || n > BODY_MAX)
			return -1;
		at = (size_t)(eol + 1 - in);
		if (len - at < n + 2)
			return 0;
		put(out, in + at, n);
		at += n + 2;
		if (n == 0)
			return (ssize_t)at;
	}
}

/* The next record's id, or NULL.  Records begin with it; the envelope's object begins with a UUID.
 */
static const char *find_id(const char *at, const char *end)
{
	static const char mark[] = "{\"id\":\"";
	const size_t mark_len = sizeof(mark) - 1;

	while ((at = memmem(at, (size_t)(end - at), mark, mark_len))) {
		at += mark_len;
		if ((size_t)(end - at) < ID_LEN)
			return NULL;
		if (at[8] == '-' && at[25] == '-' && at[34] == '-')
			return at;
	}
	return NULL;
}

static uint64_t count_records(const char *body, size_t len)
{
	const char *at = body, *end = body + len;
	uint64_t n = 0;

	while ((at = find_id(at, end)))
		n++;
	return n;
}

static void note_first_id(struct conn *c, const char *body, size_t len)
{
	const char *id = find_id(body, body + len);

	(void)snprintf(c->first_id, sizeof(c->first_id), "%.*s", id ? ID_LEN : 0, id ? id : "");
}

static void note_failed(struct conn *c, const char *body, size_t len)
{
	const char *match = c->decision.match ? c->decision.match : "";
	const char *end = body + len, *next;

	empty(&c->failed);
	for (const char *id = find_id(body, end); id; id = next) {
		next = find_id(id, end);
		if (!memmem(id, (size_t)((next ? next : end) - id), match, strlen(match)))
			continue;
		put(&c->failed, id, ID_LEN);
		put(&c->failed, ",", 1);
	}
}

static void answer_stats(const struct receiver *r, struct conn *c)
{
	struct bytes b = {0};

	put_text(&b,
		 "{\"requests\":%llu,\"accepted\":%llu,\"records\":%llu,\"bytes\":%llu,"
		 "\"connections\":%llu,\"open\":%llu,\"first_us\":%llu,\"last_us\":%llu,\"status\":"
		 "{",
		 (unsigned long long)r->stats.requests, (unsigned long long)r->stats.accepted,
		 (unsigned long long)r->stats.records, (unsigned long long)r->stats.bytes,
		 (unsigned long long)r->stats.connections, (unsigned long long)r->stats.open,
		 (unsigned long long)r->stats.first_us, (unsigned long long)r->stats.last_us);
	for (int i = 0, n = 0; i < 600; i++) {
		if (r->stats.status[i])
			put_text(&b, "%s\"%d\":%llu", n++ ? "," : "", i,
				 (unsigned long long)r->stats.status[i]);
	}
	put(&b, "}}\n", 3);
	make_answer(c, 200, "Content-Type: application/json\r\n", b.data, b.len);
	free(b.data);
}

/* Paths that begin with "/_" are ours; false: not one of them. */
static bool serve_ours(struct receiver *r, struct conn *c, const char *path, const char *body,
		       size_t body_len)
{
	char text[1024];

	if (strncmp(path, "/_", 2) != 0)
		return false;
	c->decision = (struct decision){.action = ACTION_ANSWER, .status = 200};
	if (strcmp(path, "/_stats") == 0) {
		answer_stats(r, c);
	} else if (strcmp(path, "/_control") == 0) {
		if (rules_parse(&r->rules, body, body_len, mono_ms(), text, sizeof(text)))
			make_answer(c, 200, "", "", 0);
		else
			make_answer(c, 400, "", text, strlen(text));
	} else if (strcmp(path, "/_reset") == 0) {
		uint64_t open = r->stats.open;

		memset(&r->stats, 0, sizeof(r->stats));
		r->stats.open = open;
		if (r->latency)
			latency_reset(r->latency);
		make_answer(c, 200, "", "", 0);
	} else if (strcmp(path, "/_latency") == 0 && r->latency) {
		latency_json(r->latency, text, sizeof(text));
		make_answer(c, 200, "Content-Type: application/json\r\n", text, strlen(text));
	} else if (strcmp(path, "/_quit") == 0) {
		make_answer(c, 200, "", "", 0);
		r->is_done = true;
	} else {
		make_answer(c, 404, "", "", 0);
	}
	c->is_made = true;
	return true;
}

static void take_request(struct receiver *r, struct conn *c, const char *path, const char *head,
			 size_t head_len, const char *body, size_t body_len)
{
	uint64_t now_us = wall_us();
	struct decision *d = &c->decision;
	int status;

	if (serve_ours(r, c, path, body, body_len))
		return;
	*d = rules_decide(&r->rules, path, body, body_len, mono_ms());
	if (d->body)
		note_first_id(c, body, body_len);
	if (d->action == ACTION_PART)
		note_failed(c, body, body_len);
	status = decision_status(d);
	r->seq++;
	r->stats.requests++;
	r->stats.bytes += body_len;
	r->stats.status[status >= 0 && status < 600 ? status : 599]++;
	if (status >= 200 && status < 300) {
		r->stats.accepted++;
		r->stats.records += count_records(body, body_len);
		if (!r->stats.first_us)
			r->stats.first_us = now_us;
		r->stats.last_us = now_us;
		if (r->latency)
			latency_note(r->latency, body, body_len, now_us);
	}
	write_down(r, c, head, head_len, body, body_len, now_us);
	c->due_ms = d->delay_ms ? mono_ms() + d->delay_ms : 0;
}

static void consume(struct conn *c, size_t n)
{
	memmove(c->in.data, c->in.data + n, c->in.len - n);
	c->in.len -= n;
	c->scanned = 0;
	if (!c->in.len)
		empty(&c->in);
}

static void refuse(struct conn *c, int status)
{
	c->is_last = c->is_made = true;
	c->state = WAITING;
	c->due_ms = 0;
	c->decision = (struct decision){.action = ACTION_ANSWER, .status = status};
	make_answer(c, status, "", "", 0);
}

/* Where the body lies; false: not whole yet, or refused. */
static bool find_body(struct conn *c, size_t head_len, struct bytes *chunks, size_t *ret_total,
		      const char **ret_body, size_t *ret_len)
{
	const char *body = c->in.data + head_len, *value;
	size_t have = c->in.len - head_len, n;

	*ret_total = head_len;
	*ret_body = body;
	*ret_len = 0;
	if (header(c->in.data, head_len, "Transfer-Encoding", &n)) {
		ssize_t used = unchunk(body, have, chunks);

		if (used < 0)
			refuse(c, 400);
		if (used <= 0)
			return false;
		*ret_total += (size_t)used;
		*ret_body = chunks->data;
		*ret_len = chunks->len;
		return true;
	}
	value = header(c->in.data, head_len, "Content-Length", &n);
	if (!value)
		return true;
	*ret_len = strtoul(value, NULL, 10);
	*ret_total += *ret_len;
	if (*ret_len > BODY_MAX) {
		refuse(c, 413);
		return false;
	}
	if (have < *ret_len)
		(void)room(&c->in, *ret_len - have);
	return have >= *ret_len;
}

/* Looks whether a whole request is there, and decides what becomes of it. */
static void look(struct receiver *r, struct conn *c)
{
	const char *end, *value, *body;
	char path[2048] = "", method[16] = "";
	struct bytes chunks = {0};
	size_t head_len, body_len, total, n;

	if (c->state != READING || c->is_dead || !c->in.len)
		return;
	end = memmem(c->in.data + c->scanned, c->in.len - c->scanned, "\r\n\r\n", 4);
	if (!end) {
		c->scanned = c->in.len < 3 ? 0 : c->in.len - 3;
		if (c->in.len > HEAD_MAX)
			refuse(c, 431);
		return;
	}
	head_len = (size_t)(end + 4 - c->in.data);
	c->scanned = head_len - 4;
	if (sscanf(c->in.data, "%15s %2047s HTTP/1.", method, path) != 2) {
		refuse(c, 400);
		return;
	}
	if (rules_stall(&r->rules, path, mono_ms())) {
		c->state = SILENT;
		watch(r, c, 0);
		return;
	}
	if (!find_body(c, head_len, &chunks, &total, &body, &body_len)) {
		free(chunks.data);
		return;
	}
	value = header(c->in.data, head_len, "Connection", &n);
	c->is_last |= value && n == 5 && strncasecmp(value, "close", 5) == 0;
	c->state = WAITING;
	c->due_ms = 0;
	take_request(r, c, path, c->in.data, head_len, body, body_len);
	free(chunks.data);
	consume(c, total);
}

static void read_in(struct receiver *r, struct conn *c)
{
	for (;;) {
		size_t want =
			c->in.cap - c->in.len > READ_BYTES ? c->in.cap - c->in.len : READ_BYTES;
		ssize_t n = recv(c->fd, room(&c->in, want), want, 0);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			drop(r, c, false);
			return;
		}
		c->in.len += (size_t)n;
		if ((size_t)n < want)
			break;
		if (c->state != READING && c->in.len > HEAD_MAX)
			break;
	}
	look(r, c);
}

/* --- the loop ----------------------------------------------------------------------- */

/* Everything that is due goes out; returns how long to wait for the next, -1: for ever. */
static int send_due(struct receiver *r)
{
	int wait_ms = -1;
	bool again = true;

	while (again) {
		uint64_t now_ms = mono_ms();

		again = false;
		wait_ms = -1;
		if (r->log_fd >= 0)
			flush_log(r);
		for (struct conn *c = r->conns; c; c = c->next) {
			bool is_slow = c->state == SENDING && c->decision.action == ACTION_SLOW &&
				       !c->is_made;

			if (c->is_dead || (c->state != WAITING && !is_slow))
				continue;
			if (c->due_ms <= now_ms) {
				if (is_slow)
					send_out(r, c);
				else
					carry_out(r, c);
				look(r, c);
				again |= c->state == WAITING && !c->is_dead;
			}
			if (!c->is_dead && c->due_ms > now_ms &&
			    (wait_ms < 0 || (uint64_t)wait_ms > c->due_ms - now_ms))
				wait_ms = (int)(c->due_ms - now_ms);
		}
	}
	return wait_ms;
}

static void run(struct receiver *r)
{
	struct epoll_event events[EVENTS];
	int wait_ms = -1;

	while (!r->is_done) {
		int n = epoll_wait(r->epoll_fd, events, EVENTS, wait_ms);

		if (n < 0 && errno != EINTR)
			die("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c) {
				take_connection(r);
			} else if ((void *)c == (void *)r) {
				r->is_done = true;
			} else if (!c->is_dead) {
				if (events[i].events & EPOLLOUT) {
					watch(r, c, EPOLLIN);
					send_out(r, c);
				}
				if (!c->is_dead &&
				    events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
					if (c->state == SILENT &&
					    c->decision.action == ACTION_STALL)
						drop(r, c, false);
					else
						read_in(r, c);
				}
			}
		}
		wait_ms = send_due(r);
		bury(r);
	}
	if (r->log_fd >= 0)
		flush_log(r);
}

/* --- starting ----------------------------------------------------------------------- */

static void open_listener(struct receiver *r, const char *address, const char *port_file)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t len = sizeof(at);
	const char *colon = strrchr(address, ':');
	char host[64] = "";
	int one = 1;

	if (!colon || (size_t)(colon - address) >= sizeof(host))
		die("--listen takes ADDRESS:PORT");
	memcpy(host, address, (size_t)(colon - address));
	at.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &at.sin_addr) != 1)
		die("%s is not an address", host);
	r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	(void)setsockopt(r->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (r->listen_fd < 0 || bind(r->listen_fd, (struct sockaddr *)&at, len) ||
	    listen(r->listen_fd, 1024) || getsockname(r->listen_fd, (struct sockaddr *)&at, &len))
		die("listening on %s: %s", address, strerror(errno));
	if (port_file) {
		char part[4096];
		FILE *f;

		(void)snprintf(part, sizeof(part), "%s.part", port_file);
		f = fopen(part, "w");
		if (!f || fprintf(f, "%d\n", ntohs(at.sin_port)) < 0 || fclose(f) ||
		    rename(part, port_file))
			die("writing %s: %s", port_file, strerror(errno));
	}
	(void)printf("listening on %s:%d\n", host, ntohs(at.sin_port));
	(void)fflush(stdout);
}

static void add_event(struct receiver *r, int fd, void *ptr)
{
	struct epoll_event e = {.events = EPOLLIN, .data = {.ptr = ptr}};

	if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, fd, &e))
		die("epoll_ctl: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	struct receiver r = {.log_fd = -1};
	const char *listen = "127.0.0.1:0", *log = NULL, *port_file = NULL;
	sigset_t signals;

	for (int i = 1; i < argc; i++) {
		bool has_value = i + 1 < argc;

		if (strcmp(argv[i], "--fsync") == 0)
			r.is_fsync = true;
		else if (strcmp(argv[i], "--latency") == 0)
			r.latency = latency_new();
		else if (strcmp(argv[i], "--listen") == 0 && has_value)
			listen = argv[++i];
		else if (strcmp(argv[i], "--log") == 0 && has_value)
			log = argv[++i];
		else if (strcmp(argv[i], "--port-file") == 0 && has_value)
			port_file = argv[++i];
		else
			die("usage: receiver --listen ADDRESS:PORT [--log FILE] [--port-file FILE] "
			    "[--fsync] [--latency]");
	}
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	r.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	r.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (log)
		r.log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (r.signal_fd < 0 || r.epoll_fd < 0 || (log && r.log_fd < 0))
		die("starting: %s", strerror(errno));
	open_listener(&r, listen, port_file);
	add_event(&r, r.listen_fd, NULL);
	add_event(&r, r.signal_fd, &r);
	run(&r);
	return 0;
}
