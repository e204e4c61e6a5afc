#include "cdc/base/log.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/buf.h"
#include "cdc/base/clock.h"

#define WAIT_MS        100  /* for a reader that is merely slow */
#define LINE_MAX_BYTES 8192 /* two full errors, escaped, and their fields */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Quoted, with everything escaped that could end the quotes or the line; the same in both formats.
 */
static void put_quoted(struct cdc_buf *b, const char *s)
{
	cdc_buf_putc(b, '"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			cdc_buf_printf(b, "\\%c", c);
		else if (c == '\n')
			cdc_buf_puts(b, "\\n");
		else if (c < 0x20 || c == 0x7f)
			cdc_buf_printf(b, "\\u%04x", c);
		else
			cdc_buf_putc(b, (char)c);
	}
	cdc_buf_putc(b, '"');
}

static bool is_bare(const char *s)
{
	static const char *const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789_-.:/+@";
	return *s && strspn(s, bare) == strlen(s);
}

static void put_text(struct cdc_buf *b, enum cdc_log_format format, const char *name, const char *s)
{
	if (format == CDC_LOG_JSON) {
		cdc_buf_printf(b, ",\"%s\":", name);
		put_quoted(b, s);
		return;
	}
	cdc_buf_printf(b, " %s=", name);
	if (is_bare(s))
		cdc_buf_puts(b, s);
	else
		put_quoted(b, s);
}

static void put_field(struct cdc_buf *b, enum cdc_log_format format, const struct cdc_kv *f)
{
	const char *open = format == CDC_LOG_JSON ? ",\"" : " ";
	const char *close = format == CDC_LOG_JSON ? "\":" : "=";

	switch (f->kind) {
	case CDC_KV_TEXT:
		put_text(b, format, f->name, f->v.text ? f->v.text : "");
		break;
	case CDC_KV_INT:
		cdc_buf_printf(b, "%s%s%s%lld", open, f->name, close, (long long)f->v.i);
		break;
	case CDC_KV_UINT:
		cdc_buf_printf(b, "%s%s%s%llu", open, f->name, close, (unsigned long long)f->v.u);
		break;
	case CDC_KV_REAL:
		cdc_buf_printf(b, "%s%s%s%.6g", open, f->name, close, f->v.real);
		break;
	case CDC_KV_BOOL:
		cdc_buf_printf(b, "%s%s%s%s", open, f->name, close, f->v.b ? "true" : "false");
		break;
	case CDC_KV_ERROR:
		put_text(b, format, "code", cdc_code_name(f->v.err->code));
		put_text(b, format, "msg", f->v.err->msg);
		if (f->v.err->remedy[0])
			put_text(b, format, "remedy", f->v.err->remedy);
		break;
	}
}

/* A pipe that nobody empties costs lines, and never the time of who logs. */
static bool takes_line(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	return poll(&p, 1, WAIT_MS) == 1 && p.revents & POLLOUT;
}

void cdc_log_write(const struct cdc_log *log, enum cdc_log_level level, const char *event,
		   const struct cdc_kv *fields, size_t n)
{
	char time_text[CDC_TIME_TEXT];
	struct cdc_buf b;

	cdc_buf_init(&b, LINE_MAX_BYTES);
	(void)cdc_time_format(cdc_clock_wall_us(), time_text);
	if (log->format == CDC_LOG_JSON)
		cdc_buf_printf(&b,
			       "{\"ts\":\"%s\",\"level\":\"%s\",\"event\":\"%s\",\"comp\":\"%s\"",
			       time_text, level_names[level], event, log->comp);
	else
		cdc_buf_printf(&b, "ts=%s level=%s event=%s comp=%s", time_text, level_names[level],
			       event, log->comp);
	for (size_t i = 0; i < n; i++) {
		size_t before = b.len;

		put_field(&b, log->format, &fields[i]);
		if (b.failed || b.len > LINE_MAX_BYTES - 8) {
			/* A field that does not fit is left out whole, so the line stays parseable.
			 */
			b.len = before;
			b.failed = false;
		}
	}
	cdc_buf_puts(&b, log->format == CDC_LOG_JSON ? "}\n" : "\n");
	if (!b.failed && takes_line(log->fd) && write(log->fd, b.data, b.len) < 0) {
		/* Nobody is left to tell. */
	}
	cdc_buf_clear(&b);
}
