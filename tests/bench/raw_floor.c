/*
 * raw_floor - how soon after its commit a change can be had from PostgreSQL at all.
 *
 *   raw_floor SLOT PUBLICATION ROWS TIMEOUT_S
 *
 * A replication client that decodes nothing but the commit time in Begin, and
 * timestamps the arrival of every Insert.  Connects by the PG* environment
 * variables; prints "ready" when the stream has begun, then, after ROWS inserts
 * or TIMEOUT_S seconds, one line of JSON with percentiles in microseconds.
 *
 * Formats: PostgreSQL docs "Streaming Replication Protocol" (XLogData, keepalive,
 * standby status update) and "Logical Replication Message Formats" (Begin).
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Microseconds from 1970 to PostgreSQL's epoch, 2000-01-01. */
#define PG_EPOCH_US INT64_C(946684800000000)

enum {
	XLOGDATA_HEADER = 25, /* 'w', start, end, clock */
	KEEPALIVE_SIZE = 18,  /* 'k', end, clock, reply requested */
	STATUS_SIZE = 34,     /* 'r', written, flushed, applied, clock, reply requested */
	STATUS_EVERY_US = 1000000,
};

struct floor {
	PGconn *conn;
	uint64_t received;
	int64_t commit_us; /* of the transaction that is arriving */
	int64_t status_us; /* when the last status update was sent */
	int64_t *latency_us;
	size_t n, max;
};

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static uint64_t get64(const char *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | (unsigned char)p[i];
	return v;
}

static void put64(char *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		p[i] = (char)(v & 0xff);
}

static int send_status(struct floor *f)
{
	char msg[STATUS_SIZE] = {'r'};

	f->status_us = now_us();
	put64(msg + 1, f->received);
	put64(msg + 9, f->received);
	put64(msg + 17, f->received);
	put64(msg + 25, (uint64_t)(f->status_us - PG_EPOCH_US));
	return PQputCopyData(f->conn, msg, sizeof(msg)) == 1 && PQflush(f->conn) >= 0 ? 0 : -1;
}

static int take(struct floor *f, const char *msg, int len)
{
	int64_t arrived_us = now_us();

	if (msg[0] == 'k' && len >= KEEPALIVE_SIZE) {
		uint64_t end = get64(msg + 1);

		if (end > f->received)
			f->received = end;
		return msg[17] ? send_status(f) : 0;
	}
	if (msg[0] != 'w' || len <= XLOGDATA_HEADER)
		return 0;
	if (get64(msg + 1) > f->received)
		f->received = get64(msg + 1);
	msg += XLOGDATA_HEADER;
	len -= XLOGDATA_HEADER;
	if (msg[0] == 'B' && len >= 17) /* Begin: final LSN, commit time, xid */
		f->commit_us = (int64_t)get64(msg + 9) + PG_EPOCH_US;
	else if (msg[0] == 'I' && f->n < f->max)
		f->latency_us[f->n++] = arrived_us - f->commit_us;
	return 0;
}

/* Reads until all rows are there or the deadline has passed; -1: the stream broke. */
static int read_stream(struct floor *f, int64_t deadline_us)
{
	while (f->n < f->max && now_us() < deadline_us) {
		struct pollfd p = {.fd = PQsocket(f->conn), .events = POLLIN};
		char *msg = NULL;
		int len;

		while (f->n < f->max && (len = PQgetCopyData(f->conn, &msg, 1)) > 0) {
			int rc = take(f, msg, len);

			PQfreemem(msg);
			if (rc)
				return rc;
		}
		if (f->n == f->max)
			return 0;
		if (len < 0)
			return -1;
		if (now_us() - f->status_us > STATUS_EVERY_US && send_status(f))
			return -1;
		if (poll(&p, 1, 200) > 0 && !PQconsumeInput(f->conn))
			return -1;
	}
	return 0;
}

static bool start_stream(struct floor *f, const char *slot, const char *publication)
{
	char command[512];
	PGresult *res;
	bool ok;

	snprintf(command, sizeof(command),
		 "START_REPLICATION SLOT \"%s\" LOGICAL 0/0 (proto_version '1', publication_names "
		 "'\"%s\"')",
		 slot, publication);
	res = PQexec(f->conn, command);
	ok = PQresultStatus(res) == PGRES_COPY_BOTH;
	PQclear(res);
	return ok;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static long long percentile(const struct floor *f, double share)
{
	size_t i = (size_t)(share * (double)f->n);

	if (!f->n)
		return 0;
	return (long long)f->latency_us[i < f->n ? i : f->n - 1];
}

int main(int argc, char **argv)
{
	struct floor f = {0};
	int rc = 1;

	if (argc != 5) {
		fprintf(stderr, "usage: raw_floor SLOT PUBLICATION ROWS TIMEOUT_S\n");
		return 2;
	}
	f.max = strtoul(argv[3], NULL, 10);
	f.latency_us = calloc(f.max ? f.max : 1, sizeof(*f.latency_us));
	f.conn = PQconnectdb("replication=database");
	if (!f.latency_us || PQstatus(f.conn) != CONNECTION_OK ||
	    !start_stream(&f, argv[1], argv[2])) {
		fprintf(stderr, "raw_floor: %s", PQerrorMessage(f.conn));
		goto out;
	}
	puts("ready");
	(void)fflush(stdout);
	if (read_stream(&f, now_us() + strtoll(argv[4], NULL, 10) * 1000000)) {
		fprintf(stderr, "raw_floor: %s", PQerrorMessage(f.conn));
		goto out;
	}
	qsort(f.latency_us, f.n, sizeof(*f.latency_us), by_value);
	printf("{\"count\": %zu, \"p50_us\": %lld, \"p90_us\": %lld, \"p99_us\": %lld, \"max_us\": "
	       "%lld}\n",
	       f.n, percentile(&f, 0.50), percentile(&f, 0.90), percentile(&f, 0.99),
	       percentile(&f, 1.0));
	rc = 0;
out:
	PQfinish(f.conn);
	free(f.latency_us);
	return rc;
}
