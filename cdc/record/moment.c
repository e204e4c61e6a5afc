#include "cdc/record/moment.h"

#include <string.h>

#define DAY_US      INT64_C(86400000000)
#define YEAR_MAX    5874898 /* PostgreSQL's last date is in the year before */
#define UNITS_MAX   1000000
#define WORD_MAX    16
#define MINUTE_US   INT64_C(60000000)
#define OFFSET_MAX  (16 * 60) /* minutes; PostgreSQL's limit is below it */
#define YEARS_CYCLE 400
#define DAYS_CYCLE  146097 /* of 400 years */

struct reader {
	const char *at, *end;
};

/* Between min and max digits. */
static bool read_digits(struct reader *r, int min, int max, int64_t *ret)
{
	int64_t v = 0;
	int n = 0;

	while (n < max && r->at < r->end && *r->at >= '0' && *r->at <= '9') {
		v = v * 10 + (*r->at++ - '0');
		n++;
	}
	*ret = v;
	return n >= min;
}

static bool read_char(struct reader *r, char c)
{
	if (r->at == r->end || *r->at != c)
		return false;
	r->at++;
	return true;
}

/* The days before a date, counted from 1970-01-01, in the Gregorian calendar for ever. */
static int64_t days_before(int64_t year, int64_t month, int64_t day)
{
	/* A year begins in March here, so that the leap day is its last. */
	const int64_t y = month <= 2 ? year - 1 : year;
	const int64_t cycle = (y >= 0 ? y : y - (YEARS_CYCLE - 1)) / YEARS_CYCLE;
	const int64_t of_cycle = y - cycle * YEARS_CYCLE;
	const int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return cycle * DAYS_CYCLE + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year -
	       719468;
}

static void date_of(int64_t days, int64_t *ret_year, int64_t *ret_month, int64_t *ret_day)
{
	const int64_t z = days + 719468;
	const int64_t cycle = (z >= 0 ? z : z - (DAYS_CYCLE - 1)) / DAYS_CYCLE;
	const int64_t d = z - cycle * DAYS_CYCLE;
	const int64_t y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
	const int64_t of_year = d - (365 * y + y / 4 - y / 100);
	const int64_t m = (5 * of_year + 2) / 153;

	*ret_day = of_year - (153 * m + 2) / 5 + 1;
	*ret_month = m < 10 ? m + 3 : m - 9;
	*ret_year = y + cycle * YEARS_CYCLE + (*ret_month <= 2);
}

static int64_t days_of_month(int64_t year, int64_t month)
{
	static const int64_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	const bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return days[month - 1] + (month == 2 && is_leap);
}

/* "12:30", "12:30:00", "12:30:00.123456" */
static bool read_time(struct reader *r, int64_t *ret_us)
{
	int64_t hour, minute, second = 0, us = 0, unit = 100000;

	if (!read_digits(r, 2, 2, &hour) || !read_char(r, ':') || !read_digits(r, 2, 2, &minute))
		return false;
	if (read_char(r, ':') && !read_digits(r, 2, 2, &second))
		return false;
	if (read_char(r, '.')) {
		const char *first = r->at;

		for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
			us += (*r->at - '0') * unit;
			unit /= 10;
		}
		if (r->at == first)
			return false;
	}
	*ret_us = ((hour * 60 + minute) * 60 + second) * 1000000 + us;
	return hour <= 24 && minute <= 59 && second <= 60 && *ret_us <= DAY_US;
}

/* "Z", "+02", "+0200", "+02:00", "+02:00:00", or nothing */
static bool read_zone(struct reader *r, int64_t *ret_us)
{
	int64_t hours, minutes = 0, seconds = 0, sign;

	*ret_us = 0;
	if (r->at == r->end || *r->at == ' ' || read_char(r, 'Z'))
		return true;
	sign = *r->at == '-' ? -1 : 1;
	if ((*r->at != '+' && *r->at != '-') || (r->at++, !read_digits(r, 2, 2, &hours)))
		return false;
	if (read_char(r, ':')) {
		if (!read_digits(r, 2, 2, &minutes) ||
		    (read_char(r, ':') && !read_digits(r, 2, 2, &seconds)))
			return false;
	} else if (r->at < r->end && *r->at != ' ' && !read_digits(r, 2, 2, &minutes)) {
		return false;
	}
	*ret_us = sign * ((hours * 60 + minutes) * MINUTE_US + seconds * 1000000);
	return minutes <= 59 && seconds <= 59 && hours * 60 + minutes <= OFFSET_MAX;
}

static void normalise(struct cdc_moment *m)
{
	int64_t days = m->us / DAY_US;

	if (m->us % DAY_US < 0)
		days--;
	m->day += days;
	m->us -= days * DAY_US;
}

bool cdc_moment_parse(const char *text, size_t n, struct cdc_moment *ret)
{
	struct reader r = {.at = text, .end = text + n};
	int64_t year, month, day, us = 0, zone = 0;

	if (n == 8 && memcmp(text, "infinity", 8) == 0) {
		*ret = (struct cdc_moment){.day = INT64_MAX};
		return true;
	}
	if (n == 9 && memcmp(text, "-infinity", 9) == 0) {
		*ret = (struct cdc_moment){.day = INT64_MIN};
		return true;
	}
	if (!read_digits(&r, 4, 7, &year) || !read_char(&r, '-') ||
	    !read_digits(&r, 2, 2, &month) || !read_char(&r, '-') || !read_digits(&r, 2, 2, &day))
		return false;
	if (r.at < r.end && (*r.at == 'T' || (*r.at == ' ' && r.end - r.at > 3))) {
		r.at++;
		if (!read_time(&r, &us) || !read_zone(&r, &zone))
			return false;
	}
	if (r.end - r.at == 3 && memcmp(r.at, " BC", 3) == 0) {
		r.at += 3;
		year = 1 - year; /* 1 BC is the year before 1 */
	}
	if (r.at != r.end || year > YEAR_MAX || month < 1 || month > 12 || day < 1 ||
	    day > days_of_month(year, month))
		return false;
	*ret = (struct cdc_moment){.day = days_before(year, month, day), .us = us - zone};
	normalise(ret);
	return true;
}

struct cdc_moment cdc_moment_of(int64_t us)
{
	struct cdc_moment m = {.us = us};

	normalise(&m);
	return m;
}

int cdc_moment_cmp(const struct cdc_moment *a, const struct cdc_moment *b)
{
	if (a->day != b->day)
		return a->day < b->day ? -1 : 1;
	return (a->us > b->us) - (a->us < b->us);
}

/* The next word, and the spaces behind it. */
static bool read_word(struct reader *r, char ret[WORD_MAX])
{
	size_t n = 0;

	while (r->at < r->end && *r->at != ' ' && n + 1 < WORD_MAX)
		ret[n++] = *r->at++;
	ret[n] = '\0';
	while (r->at < r->end && *r->at == ' ')
		r->at++;
	return n > 0;
}

static bool find_unit(const char *word, struct cdc_span_of_time *ret)
{
	static const struct {
		const char *name;
		struct cdc_span_of_time span;
	} units[] = {
		{"second", {.us = 1000000}},      {"minute", {.us = MINUTE_US}},
		{"hour", {.us = 60 * MINUTE_US}}, {"day", {.us = DAY_US}},
		{"week", {.us = 7 * DAY_US}},     {"month", {.months = 1}},
		{"year", {.months = 12}},
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		const size_t n = strlen(units[i].name);

		if (strncmp(word, units[i].name, n) == 0 &&
		    (!word[n] || strcmp(word + n, "s") == 0)) {
			*ret = units[i].span;
			return true;
		}
	}
	return false;
}

bool cdc_moment_parse_span(const char *text, bool is_relative, struct cdc_span_of_time *ret)
{
	struct reader r = {.at = text, .end = text + strlen(text)};
	struct cdc_span_of_time unit;
	char word[WORD_MAX];
	int64_t n, sign = 1;

	if (is_relative && strcmp(text, "now") == 0) {
		*ret = (struct cdc_span_of_time){0};
		return true;
	}
	if (!read_digits(&r, 1, 7, &n) || n > UNITS_MAX || !read_char(&r, ' ') ||
	    !read_word(&r, word) || !find_unit(word, &unit))
		return false;
	if (is_relative) {
		if (strcmp(r.at, "ago") == 0)
			sign = -1;
		else if (strcmp(r.at, "from now") != 0)
			return false;
	} else if (r.at != r.end) {
		return false;
	}
	ret->months = sign * n * unit.months;
	ret->us = sign * n * unit.us;
	return true;
}

struct cdc_moment cdc_moment_add(struct cdc_moment m, struct cdc_span_of_time span)
{
	int64_t year, month, day, last;

	if (span.months) {
		date_of(m.day, &year, &month, &day);
		month += span.months - 1;
		year += month / 12;
		month %= 12;
		if (month < 0) {
			month += 12;
			year--;
		}
		month++;
		last = days_of_month(year, month);
		m.day = days_before(year, month, day < last ? day : last);
	}
	m.us += span.us;
	normalise(&m);
	return m;
}
