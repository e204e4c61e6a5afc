#include "cdc/record/instant.h"

#define DAY_US     INT64_C(86400000000)
#define ERA_DAYS   146097 /* days in 400 years of the Gregorian calendar */
#define YEAR_ZERO  719468 /* days from 0000-03-01 to 1970-01-01 */
#define MAX_YEAR   300000 /* beyond what an int64_t of microseconds can hold */
#define TAIL_BYTES 23     /* "-01-01T00:00:00.000001Z" */

static char *put_digits(char *to, uint32_t v, int width)
{
	for (int i = width - 1; i >= 0; i--) {
		to[i] = (char)('0' + v % 10);
		v /= 10;
	}
	return to + width;
}

/*
 * Years are counted from 1 March, so that the leap day is the last of its year;
 * an era is 400 such years.  After H. Hinnant, "chrono-compatible low-level date
 * algorithms".
 */
size_t cdc_instant_format(int64_t us, char ret_text[CDC_INSTANT_TEXT])
{
	/* Not us - days * DAY_US: the day of the earliest instant begins before it. */
	int64_t days = us / DAY_US - (us % DAY_US < 0);
	int64_t rest = us % DAY_US + (us % DAY_US < 0 ? DAY_US : 0);
	int64_t from_zero = days + YEAR_ZERO;
	int64_t era = (from_zero >= 0 ? from_zero : from_zero - (ERA_DAYS - 1)) / ERA_DAYS;
	uint32_t day = (uint32_t)(from_zero - era * ERA_DAYS);
	uint32_t of_era = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	uint32_t of_year = day - (365 * of_era + of_era / 4 - of_era / 100);
	uint32_t march = (5 * of_year + 2) / 153;
	uint32_t month = march < 10 ? march + 3 : march - 9;
	int64_t year = era * 400 + of_era + (month <= 2);
	uint32_t size = (uint32_t)(year < 0 ? -year : year), seconds = (uint32_t)(rest / 1000000);
	char *to = ret_text;

	if (year < 0)
		*to++ = '-';
	to = put_digits(to, size, size < 10000 ? 4 : size < 100000 ? 5 : 6);
	*to++ = '-';
	to = put_digits(to, month, 2);
	*to++ = '-';
	to = put_digits(to, of_year - (153 * march + 2) / 5 + 1, 2);
	*to++ = 'T';
	to = put_digits(to, seconds / 3600, 2);
	*to++ = ':';
	to = put_digits(to, seconds / 60 % 60, 2);
	*to++ = ':';
	to = put_digits(to, seconds % 60, 2);
	*to++ = '.';
	to = put_digits(to, (uint32_t)(rest % 1000000), 6);
	*to++ = 'Z';
	*to = '\0';
	return (size_t)(to - ret_text);
}

/* Digits of fixed width and the byte behind them, with an upper bound. */
static bool take(const char **at, int width, char behind, uint32_t low, uint32_t high,
		 uint32_t *ret)
{
	uint32_t v = 0;

	for (int i = 0; i < width; i++) {
		char c = *(*at)++;

		if (c < '0' || c > '9')
			return false;
		v = v * 10 + (uint32_t)(c - '0');
	}
	*ret = v;
	return *(*at)++ == behind && v >= low && v <= high;
}

bool cdc_instant_parse(const char *text, size_t n, int64_t *ret_us)
{
	static const uint8_t month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_negative = n > 0 && text[0] == '-';
	size_t year_width = n - TAIL_BYTES - is_negative;
	uint32_t size, month, day, hour, minute, second, us;
	const char *at = text + is_negative;
	int64_t year, era, days, result;
	uint32_t of_era, of_year;

	if (n < TAIL_BYTES + 4 || year_width < 4 || year_width > 6)
		return false;
	if (!take(&at, (int)year_width, '-', 0, MAX_YEAR, &size) ||
	    !take(&at, 2, '-', 1, 12, &month) || !take(&at, 2, 'T', 1, 31, &day) ||
	    !take(&at, 2, ':', 0, 23, &hour) || !take(&at, 2, ':', 0, 59, &minute) ||
	    !take(&at, 2, '.', 0, 59, &second) || !take(&at, 6, 'Z', 0, 999999, &us))
		return false;
	if ((year_width > 4 && text[is_negative] == '0') || (is_negative && size == 0) ||
	    day > month_days[month - 1] ||
	    (month == 2 && day == 29 && (size % 4 || (size % 100 == 0 && size % 400))))
		return false;
	year = (is_negative ? -(int64_t)size : (int64_t)size) - (month <= 2);
	era = (year >= 0 ? year : year - 399) / 400;
	of_era = (uint32_t)(year - era * 400);
	of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	days = era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - YEAR_ZERO;
	/* The rest is added piece by piece: the earliest instant's day begins before it. */
	if (days < 0) {
		days++;
		result = (((int64_t)hour * 60 + minute) * 60 + second) * 1000000 + us - DAY_US;
	} else {
		result = (((int64_t)hour * 60 + minute) * 60 + second) * 1000000 + us;
	}
	if (__builtin_mul_overflow(days, DAY_US, &days) ||
	    __builtin_add_overflow(days, result, &result))
		return false;
	*ret_us = result;
	return true;
}
