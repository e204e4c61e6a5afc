#include "cdc/record/id.h"

#include <string.h>

#define SHORT_TEXT 39
#define LONG_TEXT  57

int cdc_id_cmp(const struct cdc_id *a, const struct cdc_id *b)
{
#define CMP(field)                                                                                 \
	do {                                                                                       \
		if (a->field != b->field)                                                          \
			return a->field < b->field ? -1 : 1;                                       \
	} while (0)
	CMP(epoch);
	CMP(commit_lsn);
	CMP(ordinal);
	CMP(part);
	CMP(range);
	CMP(row);
#undef CMP
	return 0;
}

bool cdc_id_is_zero(const struct cdc_id *id)
{
	static const struct cdc_id zero;

	return cdc_id_cmp(id, &zero) == 0;
}

static char *put_hex(char *out, uint64_t v, int width)
{
	for (int shift = 4 * (width - 1); shift >= 0; shift -= 4)
		*out++ = "0123456789abcdef"[(v >> shift) & 15];
	return out;
}

size_t cdc_id_format(const struct cdc_id *id, char ret_text[CDC_ID_TEXT])
{
	char *out = put_hex(ret_text, id->epoch, 8);

	*out++ = '-';
	out = put_hex(out, id->commit_lsn, 16);
	*out++ = '-';
	out = put_hex(out, id->ordinal, 8);
	*out++ = '-';
	out = put_hex(out, id->part, 4);
	if (id->range || id->row) {
		*out++ = '-';
		out = put_hex(out, id->range, 8);
		*out++ = '-';
		out = put_hex(out, id->row, 8);
	}
	*out = '\0';
	return (size_t)(out - ret_text);
}

static bool take_hex(const char **at, int width, uint64_t *ret)
{
	uint64_t v = 0;

	for (int i = 0; i < width; i++) {
		char c = *(*at)++;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*ret = v;
	return true;
}

bool cdc_id_parse(const char *text, size_t n, struct cdc_id *ret_id)
{
	uint64_t epoch, lsn, ordinal, part, range = 0, row = 0;
	const char *at = text;

	if (n != SHORT_TEXT && n != LONG_TEXT)
		return false;
	if (!take_hex(&at, 8, &epoch) || *at++ != '-' || !take_hex(&at, 16, &lsn) || *at++ != '-' ||
	    !take_hex(&at, 8, &ordinal) || *at++ != '-' || !take_hex(&at, 4, &part))
		return false;
	if (n == LONG_TEXT && (*at++ != '-' || !take_hex(&at, 8, &range) || *at++ != '-' ||
			       !take_hex(&at, 8, &row) || (range == 0 && row == 0)))
		return false;
	memset(ret_id, 0, sizeof(*ret_id));
	ret_id->epoch = (uint32_t)epoch;
	ret_id->commit_lsn = lsn;
	ret_id->ordinal = (uint32_t)ordinal;
	ret_id->part = (uint16_t)part;
	ret_id->range = (uint32_t)range;
	ret_id->row = (uint32_t)row;
	return true;
}
