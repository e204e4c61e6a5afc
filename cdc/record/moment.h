/*
 * moment.h - dates and times as texts, for comparing them.
 *
 * What to_json writes of date, timestamp and timestamptz, and what people write:
 * "2024-02-29", "2024-02-29T12:30:00.5+02:00", a space in place of the T, Z, " BC"
 * at the end, infinity and -infinity.  A time without a zone is UTC.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_MOMENT_H
#define CDC_RECORD_MOMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every date of PostgreSQL fits, which microseconds since 1970 would not hold. */
struct cdc_moment {
	int64_t day; /* since 1970-01-01; INT64_MIN, INT64_MAX: the infinities */
	int64_t us;  /* of the day, from 0 */
};

/* Reads exactly n bytes; false if they are anything else. */
bool cdc_moment_parse(const char *text, size_t n, struct cdc_moment *ret);

/* us: microseconds since 1970. */
struct cdc_moment cdc_moment_of(int64_t us);

/* Before, at, after: negative, 0, positive. */
int cdc_moment_cmp(const struct cdc_moment *a, const struct cdc_moment *b);

/* A span of time; months are those of the calendar. */
struct cdc_span_of_time {
	int64_t months, us;
};

/*
 * Reads "48 hours", "1 day", "3 months", and with is_relative "48 hours ago", "2
 * days from now" and "now" (then what lies before now is negative).  Units: second,
 * minute, hour, day, week, month, year; at most 1,000,000 of them.  false: it is none.
 */
bool cdc_moment_parse_span(const char *text, bool is_relative, struct cdc_span_of_time *ret);

/* m + span; the last day of a shorter month, as PostgreSQL does it. */
struct cdc_moment cdc_moment_add(struct cdc_moment m, struct cdc_span_of_time span);

#endif
