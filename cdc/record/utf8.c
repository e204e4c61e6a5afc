#include "cdc/record/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

static inline bool is_tail(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

/* The length of the character at text, whose first byte is not ASCII; 0: there is none. */
static size_t character(const unsigned char *text, size_t left)
{
	const unsigned char first = text[0];
	unsigned char low = 0x80, high = 0xbf; /* of the second byte */
	size_t n;

	if (first >= 0xc2 && first <= 0xdf)
		n = 2;
	else if (first >= 0xe0 && first <= 0xef)
		n = 3;
	else if (first >= 0xf0 && first <= 0xf4)
		n = 4;
	else
		return 0;
	if (n > left)
		return 0;
	/* No second way to write a shorter one, no surrogates, nothing above U+10FFFF. */
	if (first == 0xe0)
		low = 0xa0;
	else if (first == 0xed)
		high = 0x9f;
	else if (first == 0xf0)
		low = 0x90;
	else if (first == 0xf4)
		high = 0x8f;
	if (text[1] < low || text[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (!is_tail(text[i]))
			return 0;
	}
	return n;
}

size_t cdc_utf8_valid(const char *text, size_t len)
{
	const unsigned char *bytes = (const unsigned char *)text;
	size_t at = 0, n;

	while (at < len) {
		uint64_t word;

		if (len - at >= sizeof(word)) {
			memcpy(&word, bytes + at, sizeof(word));
			if (!(word & HIGH_BITS)) {
				at += sizeof(word);
				continue;
			}
		}
		if (bytes[at] < 0x80) {
			at++;
			continue;
		}
		n = character(bytes + at, len - at);
		if (n == 0)
			return at;
		at += n;
	}
	return len;
}
