/*
 * `walpost attempts SYNC`: the last requests of a sync that has record_requests, from
 * the state in data_dir, whether walpost runs or not.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cdc/base/clock.h"
#include "cdc/cli/command.h"
#include "cdc/pipeline/settings.h"
#include "cdc/record/value.h"
#include "cdc/store/attempt.h"
#include "sinks/sink.h"

#define PAGE          100
#define LIMIT_DEFAULT 10
#define LIMIT_MAX     UINT64_C(1000000)

/* A newer walpost may have written others. */
static const char *outcome_name(unsigned outcome)
{
	return outcome <= SINK_STOP ? sink_outcome_name((enum sink_outcome)outcome) : "?";
}

/* --- as JSON ------------------------------------------------------------------------ */

static void put_text(struct cdc_buf *out, const char *name, const char *text)
{
	cdc_buf_printf(out, "\"%s\":", name);
	cdc_value_string(out, text, strlen(text));
}

/* The lines as an object; a name that is there twice is there twice. */
static void put_headers(struct cdc_buf *out, const char *lines)
{
	bool is_first = true;

	cdc_buf_puts(out, "\"headers\":{");
	while (*lines) {
		size_t len = strcspn(lines, "\n"), name = strcspn(lines, ":");
		const char *value = lines + name + (name < len);

		if (name > len)
			name = len;
		while (value < lines + len && *value == ' ')
			value++;
		cdc_buf_puts(out, is_first ? "" : ",");
		cdc_value_string(out, lines, name);
		cdc_buf_putc(out, ':');
		cdc_value_string(out, value, (size_t)(lines + len - value));
		is_first = false;
		lines += len + (lines[len] != '\0');
	}
	cdc_buf_putc(out, '}');
}

static enum cdc_code print_json(const struct cdc_attempt_row *r, struct cdc_err *err)
{
	char at[CDC_TIME_TEXT];
	struct cdc_buf out;
	bool failed;

	(void)cdc_time_format(r->at_us, at);
	cdc_buf_init(&out, SIZE_MAX);
	cdc_buf_printf(&out, "{\"number\":%" PRId64 ",\"at\":\"%s\",", r->number, at);
	put_text(&out, "method", r->texts.method);
	cdc_buf_putc(&out, ',');
	put_text(&out, "url", r->texts.url);
	cdc_buf_puts(&out, ",\"status\":");
	if (r->status)
		cdc_buf_printf(&out, "%d", r->status);
	else
		cdc_buf_puts(&out, "null");
	cdc_buf_printf(&out,
		       ",\"outcome\":\"%s\",\"milliseconds\":%.3f,\"records\":%" PRIu64
		       ",\"refused\":%" PRIu64 ",",
		       outcome_name(r->outcome), (double)r->took_us / 1000, r->records, r->refused);
	put_text(&out, "reason", r->texts.text);
	cdc_buf_puts(&out, ",\"request\":{");
	put_headers(&out, r->texts.headers);
	cdc_buf_putc(&out, ',');
	put_text(&out, "body", r->texts.request);
	cdc_buf_printf(&out, ",\"bytes\":%" PRIu64 "},\"response\":{", r->request_bytes);
	put_text(&out, "body", r->texts.response);
	cdc_buf_puts(&out, "}}\n");
	failed = out.failed;
	if (!failed)
		(void)fwrite(out.data, 1, out.len, stdout);
	cdc_buf_clear(&out);
	return failed ? cdc_err_set(err, CDC_NOMEM, "out of memory") : CDC_OK;
}

/* --- for people --------------------------------------------------------------------- */

/* Line by line, without what could move a terminal's cursor. */
static void print_lines(const char *mark, const char *text)
{
	bool is_begin = true;

	for (; *text; text++) {
		if (is_begin)
			(void)printf("    %s ", mark);
		is_begin = *text == '\n';
		(void)putchar(is_begin                                      ? '\n'
			      : (unsigned char)*text < ' ' || *text == 0x7f ? ' '
									    : *text);
	}
	if (!is_begin)
		(void)putchar('\n');
}

static void print_whole(const struct cdc_attempt_row *r)
{
	const size_t kept = strlen(r->texts.request);
	char at[CDC_TIME_TEXT];

	(void)cdc_time_format(r->at_us, at);
	at[23] = '\0'; /* to the millisecond */
	(void)printf("%s  %s  %3d  %.1f ms  %" PRIu64 " %s  %s %s\n", at, outcome_name(r->outcome),
		     r->status, (double)r->took_us / 1000, r->records,
		     r->records == 1 ? "record" : "records", r->texts.method,
		     r->texts.url[0] ? r->texts.url : "(not sent)");
	if (r->outcome != SINK_DONE)
		print_lines("!", r->texts.text);
	if (r->refused)
		(void)printf("    ! %" PRIu64 " of the records were refused\n", r->refused);
	print_lines(">", r->texts.headers);
	print_lines(">", r->texts.request);
	if (kept < r->request_bytes)
		(void)printf("    > ... (%" PRIu64 " bytes)\n", r->request_bytes);
	print_lines("<", r->texts.response);
	(void)putchar('\n');
}

/* --- the command -------------------------------------------------------------------- */

static enum cdc_code print_all(const struct cdc_cli_args *args, struct cdc_store *store,
			       struct cdc_attempt_filter *f, struct cdc_err *err)
{
	uint64_t printed = 0;
	size_t n = PAGE;
	enum cdc_code rc = CDC_OK;

	while (!rc && n == PAGE && printed < f->newest) {
		struct cdc_attempt_row *rows = NULL;

		n = 0;
		rc = cdc_store_attempts_list(store, f, PAGE, &rows, &n, err);
		for (size_t i = 0; i < n && !rc; i++) {
			if (args->is_json)
				rc = print_json(&rows[i], err);
			else
				print_whole(&rows[i]);
			f->after = rows[i].number;
		}
		printed += n;
		cdc_attempts_free(rows, n);
	}
	return rc;
}

static int run(const struct cdc_cli_args *args, const struct cdc_config *config, uint64_t limit)
{
	const struct cdc_sync *sync = cdc_command_sync(config, "attempts", args->subject);
	const struct cdc_deliver_settings *settings;
	struct cdc_attempt_filter f = {
		.sync = args->subject, .is_failed = args->is_failed, .newest = limit};
	struct cdc_store *store = NULL;
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	if (!sync)
		return CDC_EXIT_USAGE;
	settings = sync->delivery;
	rc = cdc_command_open(config, &store, &err);
	if (!rc)
		rc = cdc_store_unlock(store, config->master_key, &err);
	if (!rc)
		rc = print_all(args, store, &f, &err);
	if (rc)
		cdc_cli_complain(&err);
	else if (!f.after && !settings->record_requests)
		(void)fprintf(stderr,
			      "walpost: sync %s keeps no log of its requests; set record_requests: "
			      "true in its destination_configuration, and start walpost again\n",
			      sync->name);
	cdc_store_close(store);
	return rc ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}

static bool read_limit(const char *text, uint64_t *ret)
{
	char *end;

	*ret = LIMIT_DEFAULT;
	if (!text)
		return true;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno && *ret >= 1 && *ret <= LIMIT_MAX)
		return true;
	(void)fprintf(stderr, "walpost: --limit %s is no number from 1 to %" PRIu64 "\n", text,
		      LIMIT_MAX);
	return false;
}

int cdc_cli_attempts(const struct cdc_cli_args *args)
{
	struct cdc_config *config;
	int code = CDC_EXIT_USAGE;
	uint64_t limit;

	if (!read_limit(args->limit, &limit))
		return code;
	(void)umask(077);
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	code = run(args, config, limit);
	cdc_config_free(config);
	return code;
}
