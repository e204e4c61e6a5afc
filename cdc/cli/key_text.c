#include "cdc/cli/key_text.h"

#include <string.h>

#include "cdc/record/scan.h"

#define KEY_MAX (1u << 20) /* far above what a command line takes */
#define SPACE   " \t\r\n"

static struct cdc_span trimmed(const char *text, struct cdc_span s)
{
	while (s.len && strchr(SPACE, text[s.off])) {
		s.off++;
		s.len--;
	}
	while (s.len && strchr(SPACE, text[s.off + s.len - 1]))
		s.len--;
	return s;
}

static bool put_members(const char *text, struct cdc_span all, struct cdc_buf *out)
{
	struct cdc_scan scan;
	struct cdc_member m;
	size_t n = 0;

	cdc_scan_begin(&scan, text, all.off + all.len, all);
	cdc_buf_putc(out, '{');
	for (; cdc_scan_next(&scan, &m); n++) {
		const struct cdc_span value = trimmed(text, m.value);

		cdc_buf_puts(out, n ? ",\"" : "\"");
		cdc_buf_put(out, text + m.name.off, m.name.len);
		cdc_buf_puts(out, "\":");
		cdc_buf_put(out, text + value.off, value.len);
	}
	cdc_buf_puts(out, "}");
	return !scan.is_bad && n;
}

bool cdc_key_text(const char *text, struct cdc_buf *out)
{
	const size_t len = strlen(text);
	struct cdc_span all = {.len = len > KEY_MAX ? 0 : (uint32_t)len};
	bool is_key;

	if (len > KEY_MAX)
		return false;
	all = trimmed(text, all);
	if (all.len == 4 && memcmp(text + all.off, "null", 4) == 0) {
		cdc_buf_puts(out, "null");
		is_key = true;
	} else {
		is_key = all.len && text[all.off] == '{' && put_members(text, all, out);
	}
	cdc_buf_put(out, "", 1);
	return is_key;
}
