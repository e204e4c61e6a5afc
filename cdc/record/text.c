#include "cdc/record/text.h"

#include <string.h>

#include "cdc/record/scan.h"

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

struct cdc_span cdc_text_trim(const char *json, struct cdc_span value)
{
	while (value.len && is_space(json[value.off])) {
		value.off++;
		value.len--;
	}
	while (value.len && is_space(json[value.off + value.len - 1]))
		value.len--;
	return value;
}

struct cdc_text cdc_text_of(const char *json, struct cdc_span value, struct cdc_buf *scratch)
{
	struct cdc_span inside;
	size_t len;
	char *to;

	if (json[value.off] != '"' || value.len < 2)
		return (struct cdc_text){json + value.off, value.len};
	inside = (struct cdc_span){.off = value.off + 1, .len = value.len - 2};
	if (!memchr(json + inside.off, '\\', inside.len))
		return (struct cdc_text){json + inside.off, inside.len};
	if (scratch->failed)
		return (struct cdc_text){"", 0};
	cdc_buf_reset(scratch, scratch->max);
	to = (char *)cdc_buf_reserve(scratch, inside.len);
	if (!to)
		return (struct cdc_text){"", 0};
	if (!cdc_scan_text(json, inside, to, inside.len, &len))
		return (struct cdc_text){json + inside.off, inside.len};
	return (struct cdc_text){to, len};
}
