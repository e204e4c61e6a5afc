#include "cdc/base/lsn.h"

#include <stdio.h>

size_t cdc_lsn_format(cdc_lsn lsn, char ret_text[CDC_LSN_TEXT])
{
	static const char digits[] = "0123456789ABCDEF";
	char *out = ret_text;

	/* By hand: this is on the path of every record. */
	for (int half = 1; half >= 0; half--) {
		uint32_t v = (uint32_t)(lsn >> (32 * half));
		int shift = 28;

		while (shift > 0 && !(v >> shift))
			shift -= 4;
		for (; shift >= 0; shift -= 4)
			*out++ = digits[(v >> shift) & 15];
		if (half)
			*out++ = '/';
	}
	*out = '\0';
	return (size_t)(out - ret_text);
}

static bool parse_half(const char *text, size_t n, uint32_t *ret)
{
	uint32_t v = 0;

	if (n < 1 || n > 8)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		uint32_t d;

		if (c >= '0' && c <= '9')
			d = (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			d = (uint32_t)(c - 'a') + 10;
		else if (c >= 'A' && c <= 'F')
			d = (uint32_t)(c - 'A') + 10;
		else
			return false;
		v = v << 4 | d;
	}
	*ret = v;
	return true;
}

bool cdc_lsn_parse(const char *text, size_t n, cdc_lsn *ret_lsn)
{
	uint32_t high, low;
	size_t slash = 0;

	while (slash < n && text[slash] != '/')
		slash++;
	if (slash == n || !parse_half(text, slash, &high) ||
	    !parse_half(text + slash + 1, n - slash - 1, &low))
		return false;
	*ret_lsn = (cdc_lsn)high << 32 | low;
	return true;
}
