#include "cdc/record/decimal.h"

#include <string.h>

#define EXPONENT_MAX INT64_C(1000000000) /* beyond what PostgreSQL or a double has */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool parse_special(const char *text, size_t n, int *ret)
{
	if (n == 3 && memcmp(text, "NaN", 3) == 0)
		*ret = 2;
	else if (n == 8 && memcmp(text, "Infinity", 8) == 0)
		*ret = 1;
	else if (n == 9 && memcmp(text, "-Infinity", 9) == 0)
		*ret = -1;
	else
		return false;
	return true;
}

/* The exponent behind the e; false: there is something else. */
static bool parse_exponent(const char *at, const char *end, int64_t *ret)
{
	bool is_negative = at < end && *at == '-';
	int64_t v = 0;

	if (at < end && (*at == '-' || *at == '+'))
		at++;
	if (at == end)
		return false;
	for (; at < end; at++) {
		if (!is_digit(*at))
			return false;
		if (v < EXPONENT_MAX)
			v = v * 10 + (*at - '0');
	}
	*ret = is_negative ? -v : v;
	return true;
}

bool cdc_decimal_parse(const char *text, size_t n, struct cdc_decimal *ret)
{
	const char *at = text, *end = text + n, *point = NULL, *first = NULL, *tail;
	struct cdc_decimal d = {.sign = 1};
	int64_t exponent = 0;
	size_t digits = 0;

	if (parse_special(text, n, &d.special)) {
		*ret = d;
		return true;
	}
	if (at < end && (*at == '-' || *at == '+'))
		d.sign = *at++ == '-' ? -1 : 1;
	for (tail = at; tail < end && (is_digit(*tail) || (*tail == '.' && !point)); tail++) {
		if (*tail == '.') {
			point = tail;
			continue;
		}
		digits++;
		if (!first && *tail != '0')
			first = tail;
	}
	if (!digits || (tail < end && ((*tail != 'e' && *tail != 'E') ||
				       !parse_exponent(tail + 1, end, &exponent))))
		return false;
	if (!first) {
		*ret = (struct cdc_decimal){0};
		return true;
	}
	if (!point)
		point = tail;
	d.exponent = exponent + (first < point ? point - first : point + 1 - first);
	d.at = first;
	d.end = tail;
	*ret = d;
	return true;
}

/* The next digit; zeros behind the last one. */
static char next_digit(const char **at, const char *end)
{
	if (*at < end && **at == '.')
		++*at;
	return *at < end ? *(*at)++ : '0';
}

static int compare_digits(const struct cdc_decimal *a, const struct cdc_decimal *b)
{
	const char *x = a->at, *y = b->at;

	while (x < a->end || y < b->end) {
		const char p = next_digit(&x, a->end), q = next_digit(&y, b->end);

		if (p != q)
			return p < q ? -1 : 1;
	}
	return 0;
}

int cdc_decimal_cmp(const struct cdc_decimal *a, const struct cdc_decimal *b)
{
	int order;

	if (a->special || b->special)
		return (a->special > b->special) - (a->special < b->special);
	if (a->sign != b->sign || !a->sign)
		return (a->sign > b->sign) - (a->sign < b->sign);
	if (a->exponent != b->exponent)
		order = a->exponent < b->exponent ? -1 : 1;
	else
		order = compare_digits(a, b);
	return a->sign * order;
}
