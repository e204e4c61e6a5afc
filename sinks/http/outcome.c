#include "sinks/http/outcome.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAX_SECONDS (100LL * 365 * 86400)

static uint64_t seconds_ms(const char *value)
{
	uint64_t s = 0;

	for (; *value >= '0' && *value <= '9'; value++) {
		if (s < MAX_SECONDS)
			s = s * 10 + (uint64_t)(*value - '0');
	}
	return value[strspn(value, " \t")] ? SINK_NO_RETRY_AFTER : s * 1000;
}

static int month_of(const char *name)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; i < 12; i++) {
		if (strncmp(months + (size_t)i * 3, name, 3) == 0)
			return i;
	}
	return -1;
}

static bool is_clock(const struct tm *tm)
{
	return tm->tm_mon >= 0 && tm->tm_mday >= 1 && tm->tm_mday <= 31 && tm->tm_hour >= 0 &&
	       tm->tm_hour < 24 && tm->tm_min >= 0 && tm->tm_min < 60 && tm->tm_sec >= 0 &&
	       tm->tm_sec <= 60;
}

/* A year of two digits that would be more than 50 years ahead is of the century before. */
static int full_year(int year, int64_t now_us)
{
	time_t now_s = (time_t)(now_us / 1000000);
	struct tm now;

	if (year < 0 || year > 99 || !gmtime_r(&now_s, &now))
		return year;
	year += (now.tm_year + 1900) / 100 * 100;
	return year > now.tm_year + 1900 + 50 ? year - 100 : year;
}

/* IMF-fixdate, RFC 850 and asctime; seconds since 1970. */
static bool parse_date(const char *text, int64_t now_us, int64_t *ret_s)
{
	struct tm tm = {0};
	char month[4] = "", day[10];
	int end = -1, year = 0;
	/* NOLINTBEGIN(cert-err34-c): the widths keep every number small. */
	bool is_short =
		sscanf(text, "%9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d GMT%n", day, &tm.tm_mday,
		       month, &year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) == 7 &&
		end > 0;
	bool is_long =
		!is_short &&
		((sscanf(text, "%3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n", day, &tm.tm_mday,
			 month, &year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) == 7 &&
		  end > 0) ||
		 (sscanf(text, "%3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n", day, month,
			 &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &year, &end) == 7 &&
		  end > 0));
	/* NOLINTEND(cert-err34-c) */

	if (!is_short && !is_long)
		return false;
	tm.tm_year = (is_short ? full_year(year, now_us) : year) - 1900;
	tm.tm_mon = month_of(month);
	if (!is_clock(&tm) || text[end + (int)strspn(text + end, " \t")])
		return false;
	*ret_s = (int64_t)timegm(&tm);
	return true;
}

uint64_t sink_http_retry_after_ms(const char *value, const char *date, int64_t now_us)
{
	int64_t at_s, from_s, from_ms = now_us / 1000;

	value += strspn(value, " \t");
	if (*value >= '0' && *value <= '9')
		return seconds_ms(value);
	if (!parse_date(value, now_us, &at_s))
		return SINK_NO_RETRY_AFTER;
	if (parse_date(date, now_us, &from_s))
		from_ms = from_s * 1000;
	return at_s * 1000 > from_ms ? (uint64_t)(at_s * 1000 - from_ms) : 0;
}

static const char *phrase(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 407:
		return "Proxy Authentication Required";
	case 408:
		return "Request Timeout";
	case 409:
		return "Conflict";
	case 410:
		return "Gone";
	case 413:
		return "Content Too Large";
	case 415:
		return "Unsupported Media Type";
	case 422:
		return "Unprocessable Content";
	case 425:
		return "Too Early";
	case 429:
		return "Too Many Requests";
	case 500:
		return "Internal Server Error";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	default:
		return status < 400 ? "a redirect, which is not followed" : "";
	}
}

/* Of a place that is shown: what stands before a query, which may hold a secret. */
static size_t shown_len(const char *location)
{
	return strcspn(location, "?#");
}

static enum sink_outcome outcome_of(int status)
{
	if (status < 300)
		return SINK_DONE;
	if (status == 410)
		return SINK_STOP;
	if (status == 408 || status == 425 || status == 429 || status >= 500)
		return SINK_RETRY;
	return SINK_REJECT;
}

void sink_http_outcome(const struct sink_http_answer *a, int64_t now_us, struct sink_result *ret)
{
	int status = a->status;

	memset(ret, 0, sizeof(*ret));
	ret->status = status;
	ret->took_us = a->took_us;
	ret->sent_bytes = a->sent_bytes;
	ret->retry_after_ms = SINK_NO_RETRY_AFTER;
	if (a->end != SINK_HTTP_ANSWERED) {
		ret->outcome = SINK_RETRY;
		/* What was not sent says nothing about what is in it. */
		ret->is_ours = a->end == SINK_HTTP_LACKING;
		ret->is_never_record = a->end == SINK_HTTP_BARRED || ret->is_ours;
		ret->is_transient = !ret->is_never_record;
		ret->retry_after_ms = sink_http_retry_after_ms(a->retry_after, a->date, now_us);
		(void)snprintf(ret->text, sizeof(ret->text), "%s", a->reason);
		return;
	}
	ret->outcome = outcome_of(status);
	ret->is_never_record = status == 401 || status == 403 || status == 407 || status == 429 ||
			       (status >= 300 && status < 400);
	ret->is_transient = ret->outcome == SINK_RETRY && !ret->is_never_record;
	if (ret->outcome == SINK_RETRY || ret->outcome == SINK_REJECT)
		ret->retry_after_ms = sink_http_retry_after_ms(a->retry_after, a->date, now_us);
	if (ret->outcome != SINK_DONE) {
		ret->response = a->body;
		ret->response_len = a->body_len;
	}
	(void)snprintf(ret->text, sizeof(ret->text), "%d%s%s%s%.*s", status,
		       status >= 300 && *phrase(status) ? " " : "",
		       status >= 300 ? phrase(status) : "", a->location[0] ? ", to " : "",
		       (int)shown_len(a->location), a->location);
}
