#include "cdc/pipeline/text.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/record/utf8.h"

char *cdc_text_readable(const char *bytes, size_t len)
{
	char *text = malloc(len + 1);
	size_t valid;

	if (!text)
		return NULL;
	if (len)
		memcpy(text, bytes, len);
	text[len] = '\0';
	for (size_t at = 0; at < len; at += valid + 1) {
		valid = cdc_utf8_valid(text + at, len - at);
		if (at + valid < len)
			text[at + valid] = '?';
	}
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f)
			text[i] = '?';
	}
	return text;
}
