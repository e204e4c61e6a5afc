#include "cdc/source/latin.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define WORD_HIGH UINT64_C(0x8080808080808080)

static bool is_in(unsigned char c, unsigned char low, unsigned char high)
{
	return c >= low && c <= high;
}

/* The length of the valid character at s, of n bytes left; 0: there is none. */
static size_t character(const unsigned char *s, size_t n)
{
	const unsigned char c = s[0];
	unsigned char low = 0x80, high = 0xbf;
	size_t len;

	if (c < 0x80)
		return 1;
	if (is_in(c, 0xc2, 0xdf))
		len = 2;
	else if (is_in(c, 0xe0, 0xef))
		len = 3;
	else if (is_in(c, 0xf0, 0xf4))
		len = 4;
	else
		return 0;
	/* The second byte has the bounds that rule out overlong forms, surrogates, and what lies
	 * above U+10FFFF. */
	if (c == 0xe0)
		low = 0xa0;
	else if (c == 0xed)
		high = 0x9f;
	else if (c == 0xf0)
		low = 0x90;
	else if (c == 0xf4)
		high = 0x8f;
	if (n < len || !is_in(s[1], low, high))
		return 0;
	for (size_t i = 2; i < len; i++) {
		if (!is_in(s[i], 0x80, 0xbf))
			return 0;
	}
	return len;
}

/* How many bytes at the start are ASCII, in whole words. */
static size_t plain(const unsigned char *s, size_t n)
{
	size_t i = 0;

	for (; n - i >= sizeof(uint64_t); i += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, s + i, sizeof(word));
		if (word & WORD_HIGH)
			break;
	}
	return i;
}

size_t cdc_latin_size(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t i = 0, size = len;

	while (i < len) {
		size_t n = plain(s + i, len - i);

		if (n == 0)
			n = character(s + i, len - i);
		size += n == 0; /* a byte of Latin-1 becomes two */
		i += n ? n : 1;
	}
	return size;
}

void cdc_latin_write(const char *text, size_t len, char *to)
{
	const unsigned char *s = (const unsigned char *)text;

	for (size_t i = 0; i < len;) {
		const size_t n = character(s + i, len - i);

		if (n) {
			memcpy(to, s + i, n);
			to += n;
			i += n;
		} else {
			*to++ = (char)(0xc0 | s[i] >> 6);
			*to++ = (char)(0x80 | (s[i] & 0x3f));
			i++;
		}
	}
}
