#include "cdc/base/base64.h"

#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void cdc_base64_put(struct cdc_buf *out, const void *bytes, size_t n)
{
	const uint8_t *from = bytes;
	uint8_t *to = cdc_buf_reserve(out, (n + 2) / 3 * 4);

	if (!to)
		return;
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t b = (uint32_t)from[i] << 16;

		b |= left > 1 ? (uint32_t)from[i + 1] << 8 : 0;
		b |= left > 2 ? (uint32_t)from[i + 2] : 0;
		*to++ = (uint8_t)digits[b >> 18];
		*to++ = (uint8_t)digits[b >> 12 & 63];
		*to++ = left > 1 ? (uint8_t)digits[b >> 6 & 63] : '=';
		*to++ = left > 2 ? (uint8_t)digits[b & 63] : '=';
	}
	out->len += (n + 2) / 3 * 4;
}

bool cdc_base64_take(const char *text, size_t n, uint8_t *ret_bytes, size_t size, size_t *ret_n)
{
	uint32_t bits = 0;
	unsigned held = 0; /* bits that are not yet a byte */
	size_t len = 0;

	if (n >= 4 && n % 4 == 0 && text[n - 1] == '=')
		n -= text[n - 2] == '=' ? 2 : 1;
	if (n % 4 == 1)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *digit = memchr(digits, text[i], sizeof(digits) - 1);

		if (!digit)
			return false;
		bits = (bits << 6 | (uint32_t)(digit - digits)) & 0xffffff;
		held += 6;
		if (held < 8)
			continue;
		held -= 8;
		if (len == size)
			return false;
		ret_bytes[len++] = (uint8_t)(bits >> held);
	}
	/* What is left of the last character is no part of a byte. */
	if (bits & ((1u << held) - 1))
		return false;
	*ret_n = len;
	return true;
}
