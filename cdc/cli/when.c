#include "cdc/cli/when.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND_US INT64_C(1000000)
#define AGO_MAX   INT64_C(100000000) /* of any unit; days: longer than there are computers */

static bool parse_ago(const char *text, int64_t now_us, int64_t *ret_us)
{
	static const struct {
		char unit;
		int64_t s;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	char *end;
	long long n;

	if (!isdigit((unsigned char)text[0]))
		return false;
	n = strtoll(text, &end, 10);
	if (n < 0 || n > AGO_MAX || !end[0] || end[1])
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (*end != units[i].unit)
			continue;
		*ret_us = now_us - n * units[i].s * SECOND_US;
		return true;
	}
	return false;
}

/* ".123456" and more or fewer digits; anything beyond microseconds is cut. */
static const char *parse_fraction(const char *at, int64_t *us)
{
	int64_t unit = SECOND_US / 10;

	if (*at != '.' || !isdigit((unsigned char)at[1]))
		return at;
	for (at++; isdigit((unsigned char)*at); at++, unit /= 10)
		*us += (*at - '0') * unit;
	return at;
}

/* "Z", "+01:00", "-08:00"; false: anything else. */
static bool parse_offset(const char *at, int64_t *us)
{
	int64_t minutes;

	if (strcmp(at, "Z") == 0)
		return true;
	if ((at[0] != '+' && at[0] != '-') || strlen(at) != 6 || at[3] != ':')
		return false;
	for (int i = 1; i < 6; i++) {
		if (i != 3 && !isdigit((unsigned char)at[i]))
			return false;
	}
	minutes = ((at[1] - '0') * 10 + at[2] - '0') * 60 + (at[4] - '0') * 10 + at[5] - '0';
	*us += (at[0] == '+' ? -minutes : minutes) * 60 * SECOND_US;
	return true;
}

bool cdc_when_parse(const char *text, int64_t now_us, int64_t *ret_us)
{
	struct tm tm = {0};
	const char *at;
	int64_t us = 0;

	if (parse_ago(text, now_us, ret_us))
		return true;
	at = strptime(text, "%Y-%m-%d", &tm);
	if (!at)
		return false;
	if (*at) {
		at = strptime(at, "T%H:%M:%S", &tm);
		at = at ? parse_fraction(at, &us) : NULL;
		if (!at || !parse_offset(at, &us))
			return false;
	}
	*ret_us = (int64_t)timegm(&tm) * SECOND_US + us;
	return true;
}
