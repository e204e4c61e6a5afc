#include "cdc/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	enum cdc_class class;
} codes[] = {
#define X(code, text, kind) [CDC_##code] = {.name = text, .class = kind},
	CDC_CODES(X)
#undef X
};

const char *cdc_code_name(enum cdc_code code)
{
	return codes[code].name;
}

enum cdc_class cdc_code_class(enum cdc_code code)
{
	return codes[code].class;
}

enum cdc_code cdc_err_set(struct cdc_err *err, enum cdc_code code, const char *fmt, ...)
{
	/* The arguments may point into err itself. */
	char msg[sizeof(err->msg)];
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	memcpy(err->msg, msg, sizeof(msg));
	err->code = code;
	err->remedy[0] = '\0';
	return code;
}

enum cdc_code cdc_err_wrap(struct cdc_err *err, const char *fmt, ...)
{
	char msg[sizeof(err->msg)];
	size_t len;
	va_list ap;

	if (!err)
		return CDC_IO;
	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	len = strlen(msg);
	/* The precision says aloud that the end may be cut off. */
	(void)snprintf(msg + len, sizeof(msg) - len, ": %.*s", (int)(sizeof(msg) - len), err->msg);
	memcpy(err->msg, msg, sizeof(msg));
	return err->code;
}

enum cdc_code cdc_err_remedy(struct cdc_err *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return CDC_IO;
	va_start(ap, fmt);
	(void)vsnprintf(err->remedy, sizeof(err->remedy), fmt, ap);
	va_end(ap);
	return err->code;
}

void cdc_assert_failed(const char *cond, const char *file, int line)
{
	(void)fprintf(stderr, "level=error event=assertion_failed file=%s line=%d cond=\"%s\"\n",
		      file, line, cond);
	abort();
}
