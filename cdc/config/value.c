#include "cdc/config/value.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* Rising, so that the last that divides is the shortest form. */
static const struct unit sizes[] = {
	{"", 1},
	{"B", 1},
	{"KiB", UINT64_C(1) << 10},
	{"MiB", UINT64_C(1) << 20},
	{"GiB", UINT64_C(1) << 30},
	{"TiB", UINT64_C(1) << 40},
};
static const struct unit durations[] = {
	{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
};
#define SIZE_N     (sizeof(sizes) / sizeof(sizes[0]))
#define DURATION_N (sizeof(durations) / sizeof(durations[0]))

/* Reads the digits in front; *ret_rest is what follows them. */
static const char *read_digits(const char *text, uint64_t *ret, const char **ret_rest)
{
	uint64_t v = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++) {
		uint64_t digit = (uint64_t)(*p - '0');

		if (v > (UINT64_MAX - digit) / 10)
			return "is too large";
		v = v * 10 + digit;
	}
	if (p == text)
		return "is not a whole number";
	*ret = v;
	*ret_rest = p;
	return NULL;
}

const char *cdc_value_uint(const char *text, uint64_t *ret)
{
	uint64_t v;
	const char *rest, *why = read_digits(text, &v, &rest);

	if (why)
		return why;
	if (*rest)
		return "is not a whole number";
	*ret = v;
	return NULL;
}

static const char *read_unit(const char *text, const struct unit *units, size_t n,
			     const char *wrong_unit, uint64_t *ret)
{
	uint64_t v;
	const char *rest, *why = read_digits(text, &v, &rest);

	if (why)
		return why;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(rest, units[i].name) != 0)
			continue;
		if (v > UINT64_MAX / units[i].factor)
			return "is too large";
		*ret = v * units[i].factor;
		return NULL;
	}
	return wrong_unit;
}

const char *cdc_value_size(const char *text, uint64_t *ret_bytes)
{
	return read_unit(text, sizes, SIZE_N, "has an unknown unit (known: KiB, MiB, GiB, TiB)",
			 ret_bytes);
}

const char *cdc_value_duration(const char *text, uint64_t *ret_ms)
{
	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return NULL;
	}
	return read_unit(text, durations, DURATION_N, "needs a unit (ms, s, m, h, d)", ret_ms);
}

static const char *unit_text(uint64_t v, const struct unit *units, size_t n,
			     char ret_text[CDC_VALUE_TEXT])
{
	size_t best = 0;

	for (size_t i = 1; v && i < n; i++) {
		if (units[i].factor > 1 && v % units[i].factor == 0)
			best = i;
	}
	(void)snprintf(ret_text, CDC_VALUE_TEXT, "%" PRIu64 "%s", v / units[best].factor,
		       units[best].name);
	return ret_text;
}

const char *cdc_value_size_text(uint64_t bytes, char ret_text[CDC_VALUE_TEXT])
{
	return unit_text(bytes, sizes, SIZE_N, ret_text);
}

const char *cdc_value_duration_text(uint64_t ms, char ret_text[CDC_VALUE_TEXT])
{
	return unit_text(ms, durations, DURATION_N, ret_text);
}

unsigned cdc_value_guess(const char *written, const char *known)
{
	size_t len = strlen(written);
	unsigned distance = cdc_value_distance(written, known);

	if (distance == 0)
		return 0;
	if (len >= 3 && strncmp(written, known, len) == 0)
		return 1;
	/* Two changes make one short word out of any other. */
	return distance <= (len <= 4 ? 1 : 2) ? distance + 1 : CDC_VALUE_NO_GUESS;
}

unsigned cdc_value_distance(const char *a, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);
	unsigned row[64];

	if (a_len > 63 || b_len > 63)
		return 3;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[b_len] < 3 ? row[b_len] : 3;
}
