/*
 * `walpost tail`: records as JSON lines on standard output, from a temporary
 * slot that ends with the command; nothing is stored.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/cli/cli.h"
#include "cdc/cli/command.h"
#include "cdc/source/source.h"

#define BATCH_MAX_BYTES (512u << 20) /* two of the largest records */
#define TARGET_BYTES    (256u << 10)
#define TARGET_RECORDS  1000
#define STATUS_MS       3000
#define LINES_MAX       UINT32_MAX /* a batch is never larger */

struct output {
	struct cdc_source *source;
	cdc_lsn seen; /* everything before it was printed */
	uint64_t status_ms;
	int signal_fd;
	struct cdc_buf lines;
};

static const struct cdc_connection *pick(const struct cdc_config *config, const char *name)
{
	const struct cdc_connection *found = NULL;

	for (size_t i = 0; i < config->connection_n; i++) {
		const struct cdc_connection *c = &config->connections[i];

		if (!c->type->is_source || (name && strcmp(c->name, name) != 0))
			continue;
		if (found) {
			(void)fprintf(stderr,
				      "walpost: several connections are sources; name one: walpost "
				      "tail %s\n",
				      found->name);
			return NULL;
		}
		found = c;
	}
	if (!found)
		(void)fprintf(stderr, "walpost: %s%s\n",
			      name ? "no source connection is named " : "no connection is a source",
			      name ? name : "");
	return found;
}

static bool is_asked_for(const struct cdc_cli_args *args, struct cdc_view v)
{
	size_t len;
	const char *table = cdc_view_table(v, &len);

	for (size_t i = 0; i < args->schema_n; i++) {
		if (cdc_pattern_matches(args->schemas[i], table, len))
			return true;
	}
	return args->schema_n == 0;
}

static enum cdc_code send_status(struct output *out, struct cdc_err *err)
{
	enum cdc_code rc = cdc_source_status(out->source, out->seen, out->seen, err);

	out->status_ms = cdc_clock_mono_ms();
	return rc;
}

/* Writes it all, as the reader takes it.  CDC_STOPPED: that is gone, or a signal ends the command,
 * which a reader that stands still must not hold. */
static enum cdc_code put_out(struct output *out, const uint8_t *bytes, size_t len,
			     struct cdc_err *err)
{
	while (len) {
		struct pollfd fds[2] = {{.fd = out->signal_fd, .events = POLLIN},
					{.fd = STDOUT_FILENO, .events = POLLOUT}};
		int ready = poll(fds, 2, STATUS_MS);
		ssize_t n;

		if (ready < 0 || fds[0].revents)
			return CDC_STOPPED;
		if (ready == 0) {
			enum cdc_code rc = send_status(out, err);

			if (rc)
				return rc;
			continue;
		}
		/* So much goes into a pipe that can be written to at all, without waiting. */
		n = write(STDOUT_FILENO, bytes, len < PIPE_BUF ? len : PIPE_BUF);
		if (n < 0)
			return CDC_STOPPED;
		bytes += n;
		len -= (size_t)n;
	}
	return CDC_OK;
}

/* A json column may hold line ends, which in JSON are white space and nothing else. */
static void put_line(struct cdc_buf *lines, const char *json, size_t len)
{
	for (size_t i = 0; i < len; i++)
		cdc_buf_putc(lines, json[i] == '\n' || json[i] == '\r' ? ' ' : json[i]);
	cdc_buf_putc(lines, '\n');
}

static enum cdc_code print_batch(const struct cdc_cli_args *args, struct output *out,
				 const struct cdc_batch *b, struct cdc_err *err)
{
	cdc_buf_reset(&out->lines, TARGET_BYTES * 2);
	for (size_t i = 0; i < b->n; i++) {
		struct cdc_view v = {.rec = &b->records[i], .batch = b};

		if (is_asked_for(args, v))
			put_line(&out->lines, cdc_view_json(v), v.rec->json_len);
	}
	if (out->lines.failed)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for what is printed");
	return put_out(out, out->lines.data, out->lines.len, err);
}

static bool is_interrupted(const struct output *out)
{
	struct pollfd fd = {.fd = out->signal_fd, .events = POLLIN};

	return poll(&fd, 1, 0) > 0;
}

static enum cdc_code follow(const struct cdc_cli_args *args, struct output *out,
			    struct cdc_batch *b, struct cdc_err *err)
{
	struct cdc_source *s = out->source;

	while (!is_interrupted(out)) {
		struct pollfd fd = {.fd = cdc_source_fd(s), .events = cdc_source_events(s)};
		struct cdc_source_read r;
		enum cdc_code rc;

		memset(&r, 0, sizeof(r));
		rc = cdc_source_read(s, b, TARGET_BYTES, TARGET_RECORDS, &r, err);
		if (rc && rc != CDC_BUSY)
			return rc;
		rc = print_batch(args, out, b, err);
		if (rc)
			return rc == CDC_STOPPED ? CDC_OK : rc;
		if (b->end_n && b->ends[b->end_n - 1].end_lsn > out->seen)
			out->seen = b->ends[b->end_n - 1].end_lsn;
		if (r.idle_lsn > out->seen)
			out->seen = r.idle_lsn;
		cdc_batch_reset(b, TARGET_BYTES * 2);
		if (r.reply_requested || cdc_clock_mono_ms() - out->status_ms >= STATUS_MS) {
			rc = send_status(out, err);
			if (rc)
				return rc;
		}
		if (r.is_dry)
			(void)poll(&fd, 1, 500);
	}
	return CDC_OK;
}

int cdc_cli_tail(const struct cdc_cli_args *args)
{
	struct cdc_source_plan plan;
	struct cdc_source_info info;
	const struct cdc_connection *connection;
	struct output out = {.signal_fd = -1};
	struct cdc_batch *batch = NULL;
	struct cdc_config *config;
	struct cdc_err err;
	sigset_t signals;
	enum cdc_code rc;
	int code = CDC_EXIT_FAILED;

	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	connection = pick(config, args->subject);
	if (!connection) {
		cdc_config_free(config);
		return CDC_EXIT_USAGE;
	}
	for (size_t i = 0; i < args->schema_n; i++) {
		if (cdc_command_is_table(args->schemas[i]))
			continue;
		(void)fprintf(stderr,
			      "walpost: --schema %s is no table's name; write schema.table, with * "
			      "for any characters\n",
			      args->schemas[i]);
		cdc_config_free(config);
		return CDC_EXIT_USAGE;
	}
	memset(&err, 0, sizeof(err));
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	out.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	cdc_buf_init(&out.lines, LINES_MAX);
	plan = (struct cdc_source_plan){.settings = connection->settings,
					.slot = "walpost_tail",
					.tables = args->schemas,
					.table_n = args->schema_n};
	batch = cdc_batch_new(BATCH_MAX_BYTES);
	rc = out.signal_fd < 0 ? cdc_err_set(&err, CDC_IO, "signalfd: %s", strerror(errno))
	     : batch           ? cdc_source_new(&plan, &out.source, &err)
			       : cdc_err_set(&err, CDC_NOMEM, "out of memory");
	if (!rc)
		rc = cdc_source_start_temporary(out.source, &info, &err);
	if (!rc) {
		(void)fprintf(stderr, "walpost: following %s; stop with Ctrl-C\n",
			      connection->name);
		out.seen = info.slot_start;
		rc = follow(args, &out, batch, &err);
	}
	if (rc)
		cdc_cli_complain(&err);
	cdc_source_free(out.source);
	cdc_buf_clear(&out.lines);
	if (out.signal_fd >= 0)
		close(out.signal_fd);
	cdc_batch_free(batch);
	cdc_config_free(config);
	return rc ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}
