/*
 * decimal.h - numbers as texts, compared digit by digit.
 *
 * No number is ever rounded: numeric has more digits than a double, and bigint, too.
 * PostgreSQL's NaN and infinities are numbers here: -Infinity is below all others,
 * then come Infinity and, above it, NaN, which equals itself.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_DECIMAL_H
#define CDC_RECORD_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number where it lies. */
struct cdc_decimal {
	int special;          /* -1: -Infinity; 0: none; 1: Infinity; 2: NaN */
	int sign;             /* -1, 0 (zero), 1 */
	int64_t exponent;     /* 0.DIGITS times ten to this; the first digit is not 0 */
	const char *at, *end; /* the digits and perhaps a point between them; the last may be 0 */
};

/* Reads exactly n bytes, "-12.50e+3" or "NaN"; false if they are no number. */
bool cdc_decimal_parse(const char *text, size_t n, struct cdc_decimal *ret);

/* Below, equal, above: negative, 0, positive. */
int cdc_decimal_cmp(const struct cdc_decimal *a, const struct cdc_decimal *b);

#endif
