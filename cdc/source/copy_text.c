#include "cdc/source/copy_text.h"

#include <stdint.h>
#include <string.h>

/* What a backslash and this letter stand for; another byte stands for itself. */
static char unescape(char c)
{
	switch (c) {
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	case 'v':
		return '\v';
	default:
		return c;
	}
}

/* The value from `from` on, which ends before `to`; false: a backslash is its last byte. */
static bool take_value(char *from, char *to, struct cdc_value *v)
{
	char *in = memchr(from, '\\', (size_t)(to - from)), *out = in;

	*v = (struct cdc_value){.kind = CDC_VALUE_TEXT, .text = from};
	if (!in) {
		v->len = (uint32_t)(to - from);
		return true;
	}
	if (to - from == 2 && from[0] == '\\' && from[1] == 'N') {
		*v = (struct cdc_value){.kind = CDC_VALUE_NULL};
		return true;
	}
	while (in < to) {
		if (*in == '\\') {
			if (++in == to)
				return false;
			*out++ = unescape(*in++);
		} else {
			*out++ = *in++;
		}
	}
	v->len = (uint32_t)(out - from);
	return true;
}

bool cdc_copy_row(char *row, size_t len, struct cdc_value *values, size_t n)
{
	char *end = row + len - 1, *from = row;

	if (len == 0 || *end != '\n')
		return false;
	/* A tab within a value is escaped with a letter, so every tab ends one. */
	for (size_t i = 0; i < n; i++) {
		char *tab = memchr(from, '\t', (size_t)(end - from));
		char *to = tab ? tab : end;

		if ((tab != NULL) != (i + 1 < n) || !take_value(from, to, &values[i]))
			return false;
		from = to + 1;
	}
	return n != 0 || len == 1;
}
