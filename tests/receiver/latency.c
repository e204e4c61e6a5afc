#include "tests/receiver/latency.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 10000000

struct latency {
	uint32_t *us;
	size_t n, cap;
};

struct latency *latency_new(void)
{
	return calloc(1, sizeof(struct latency));
}

void latency_reset(struct latency *l)
{
	l->n = 0;
}

static void add(struct latency *l, uint64_t us)
{
	if (l->n == MOST)
		return;
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 65536;
		uint32_t *grown = realloc(l->us, cap * sizeof(*grown));

		if (!grown)
			return;
		l->us = grown;
		l->cap = cap;
	}
	l->us[l->n++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* "2026-01-01T00:00:00.000001Z" */
static uint64_t parse(const char *text)
{
	struct tm tm = {0};
	unsigned us;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%6uZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &us) != 7)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	return (uint64_t)timegm(&tm) * 1000000 + us;
}

void latency_note(struct latency *l, const char *body, size_t len, uint64_t now_us)
{
	static const char commit[] = ",\"commit\":{\"lsn\":", time[] = "\"time\":\"";
	const char *at = body, *end = body + len;

	while ((at = memmem(at, (size_t)(end - at), commit, sizeof(commit) - 1))) {
		uint64_t then;

		at = memmem(at, (size_t)(end - at), time, sizeof(time) - 1);
		if (!at || end - at < 40)
			return;
		at += sizeof(time) - 1;
		then = parse(at);
		if (then)
			add(l, now_us > then ? now_us - then : 0);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static unsigned at(const struct latency *l, double part)
{
	return l->n ? l->us[(size_t)((double)(l->n - 1) * part)] : 0;
}

void latency_json(struct latency *l, char *text, size_t size)
{
	if (l->n)
		qsort(l->us, l->n, sizeof(*l->us), compare);
	(void)snprintf(text, size,
		       "{\"n\":%zu,\"p50_us\":%u,\"p90_us\":%u,\"p99_us\":%u,\"p999_us\":%u,\"max_"
		       "us\":%u}\n",
		       l->n, at(l, 0.5), at(l, 0.9), at(l, 0.99), at(l, 0.999), at(l, 1));
}
