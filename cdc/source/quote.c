#include "cdc/source/quote.h"

#include <string.h>

void cdc_quote_name(struct cdc_buf *out, const char *name)
{
	cdc_buf_putc(out, '"');
	for (; *name; name++) {
		if (*name == '"')
			cdc_buf_putc(out, '"');
		cdc_buf_putc(out, *name);
	}
	cdc_buf_putc(out, '"');
}

void cdc_quote_text(struct cdc_buf *out, const char *text)
{
	bool has_backslash = strchr(text, '\\') != NULL;

	cdc_buf_puts(out, has_backslash ? " E'" : "'");
	for (; *text; text++) {
		if (*text == '\'' || *text == '\\')
			cdc_buf_putc(out, *text);
		cdc_buf_putc(out, *text);
	}
	cdc_buf_putc(out, '\'');
}

const char *cdc_quote_end(struct cdc_buf *out)
{
	cdc_buf_putc(out, '\0');
	return out->failed ? NULL : (const char *)out->data;
}
