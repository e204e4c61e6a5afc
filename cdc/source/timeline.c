#include "cdc/source/timeline.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ENDS 100000 /* a failover per hour for eleven years */

void cdc_timelines_init(struct cdc_timelines *t, uint32_t current)
{
	*t = (struct cdc_timelines){.current = current};
}

void cdc_timelines_clear(struct cdc_timelines *t)
{
	free(t->ends);
	cdc_timelines_init(t, t->current);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static size_t word_length(const char *at, const char *end)
{
	const char *from = at;

	while (at < end && !is_space(*at))
		at++;
	return (size_t)(at - from);
}

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && is_space(*at))
		at++;
	return at;
}

static bool read_number(const char *at, size_t n, uint32_t *ret)
{
	uint64_t v = 0;

	if (n == 0 || n > 10)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (at[i] < '0' || at[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(at[i] - '0');
	}
	if (v == 0 || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* False: not a line of a history.  *ret_is_entry is false for a comment or an empty line. */
static bool read_line(const char *at, const char *end, struct cdc_timeline_end *ret,
		      bool *ret_is_entry)
{
	size_t n;

	at = skip_space(at, end);
	*ret_is_entry = at < end && *at != '#';
	if (!*ret_is_entry)
		return true;
	n = word_length(at, end);
	if (!read_number(at, n, &ret->timeline))
		return false;
	at = skip_space(at + n, end);
	return cdc_lsn_parse(at, word_length(at, end), &ret->end);
}

static bool append(struct cdc_timelines *t, const struct cdc_timeline_end *e)
{
	struct cdc_timeline_end *grown;

	/* Room for 16, then twice as much each time it is used up. */
	if (t->n == 0 || (t->n >= 16 && (t->n & (t->n - 1)) == 0)) {
		grown = reallocarray(t->ends, t->n ? t->n * 2 : 16, sizeof(*grown));
		if (!grown)
			return false;
		t->ends = grown;
	}
	t->ends[t->n++] = *e;
	return true;
}

static enum cdc_code failed(struct cdc_timelines *t, enum cdc_code code, const char *what,
			    struct cdc_err *err)
{
	uint32_t current = t->current;

	cdc_timelines_clear(t);
	return cdc_err_set(err, code, "the history of timeline %u %s", current, what);
}

enum cdc_code cdc_timelines_parse(struct cdc_timelines *t, const char *text, size_t len,
				  uint32_t current, struct cdc_err *err)
{
	const char *at = text, *end = text + len;

	cdc_timelines_init(t, current);
	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		const char *line_end = nl ? nl : end;
		struct cdc_timeline_end e;
		bool is_entry;

		if (!read_line(at, line_end, &e, &is_entry))
			return failed(t, CDC_PROTO, "has a line that is not one", err);
		at = nl ? nl + 1 : end;
		if (!is_entry)
			continue;
		if (e.timeline >= current || (t->n && (e.timeline <= t->ends[t->n - 1].timeline ||
						       e.end < t->ends[t->n - 1].end)))
			return failed(t, CDC_PROTO, "is out of order", err);
		if (t->n == MAX_ENDS)
			return failed(t, CDC_PROTO, "is too long", err);
		if (!append(t, &e))
			return failed(t, CDC_NOMEM, "does not fit in memory", err);
	}
	return CDC_OK;
}

uint32_t cdc_timelines_at(const struct cdc_timelines *t, cdc_lsn lsn)
{
	size_t low = 0, high = t->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (lsn < t->ends[mid].end)
			high = mid;
		else
			low = mid + 1;
	}
	return low < t->n ? t->ends[low].timeline : t->current;
}

bool cdc_timelines_hold(const struct cdc_timelines *t, uint32_t timeline, cdc_lsn lsn,
			cdc_lsn *ret_end)
{
	*ret_end = 0;
	if (timeline == t->current)
		return true;
	for (size_t i = 0; i < t->n; i++) {
		if (t->ends[i].timeline != timeline)
			continue;
		*ret_end = t->ends[i].end;
		return lsn <= t->ends[i].end;
	}
	return false;
}
