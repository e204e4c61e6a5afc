#include "cdc/record/hstore.h"

#include <string.h>

#include "cdc/record/quoted.h"

struct reader {
	const char *text;
	size_t len, at;
};

static bool take(struct reader *r, const char *word)
{
	size_t n = strlen(word);

	if (n > r->len - r->at || memcmp(r->text + r->at, word, n) != 0)
		return false;
	r->at += n;
	return true;
}

static bool take_string(struct reader *r, struct cdc_buf *out)
{
	const char *body;
	size_t len;

	if (!take(r, "\""))
		return false;
	body = r->text + r->at;
	len = cdc_quoted_len(body, r->len - r->at, false);
	cdc_quoted_string(out, body, len);
	r->at += len;
	return take(r, "\"");
}

bool cdc_hstore_write(struct cdc_buf *out, const char *text, size_t len)
{
	struct reader r = {.text = text, .len = len};

	cdc_buf_putc(out, '{');
	while (r.at < len) {
		if (r.at) {
			if (!take(&r, ", "))
				return false;
			cdc_buf_putc(out, ',');
		}
		if (!take_string(&r, out) || !take(&r, "=>"))
			return false;
		cdc_buf_putc(out, ':');
		if (take(&r, "NULL"))
			cdc_buf_put(out, "null", 4);
		else if (!take_string(&r, out))
			return false;
	}
	cdc_buf_putc(out, '}');
	return true;
}
