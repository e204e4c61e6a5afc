/*
 * `walpost tail`: records as JSON lines on standard output, from a temporary
 * slot that ends with the command; nothing is stored.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/cli/cli.h"
#include "cdc/source/source.h"

#define BATCH_MAX_BYTES (64u << 20)
#define TARGET_BYTES    (256u << 10)
#define TARGET_RECORDS  1000
#define STATUS_MS       3000

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

/* A json column may hold line ends, which in JSON are white space and nothing else. */
static void print_line(const char *json, size_t len)
{
	for (size_t i = 0; i < len; i++)
		(void)putchar_unlocked(json[i] == '\n' || json[i] == '\r' ? ' ' : json[i]);
	(void)putchar_unlocked('\n');
}

/* False when nobody reads any more. */
static bool print_batch(const struct cdc_cli_args *args, const struct cdc_batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		struct cdc_view v = {.rec = &b->records[i], .batch = b};

		if (!is_asked_for(args, v))
			continue;
		print_line(cdc_view_json(v), v.rec->json_len);
	}
	return fflush(stdout) == 0;
}

static bool is_interrupted(const sigset_t *signals)
{
	const struct timespec now = {0};

	return sigtimedwait(signals, NULL, &now) > 0;
}

static enum cdc_code follow(const struct cdc_cli_args *args, struct cdc_source *s,
			    struct cdc_batch *b, cdc_lsn from, const sigset_t *signals,
			    struct cdc_err *err)
{
	cdc_lsn seen = from;
	uint64_t status_ms = 0;

	while (!is_interrupted(signals)) {
		struct pollfd fd = {.fd = cdc_source_fd(s), .events = cdc_source_events(s)};
		struct cdc_source_read r;
		uint64_t now_ms = cdc_clock_mono_ms();
		enum cdc_code rc;

		memset(&r, 0, sizeof(r));
		rc = cdc_source_read(s, b, TARGET_BYTES, TARGET_RECORDS, &r, err);
		if (rc && rc != CDC_BUSY)
			return rc;
		if (!print_batch(args, b))
			return CDC_OK;
		if (b->end_n && b->ends[b->end_n - 1].end_lsn > seen)
			seen = b->ends[b->end_n - 1].end_lsn;
		if (r.idle_lsn > seen)
			seen = r.idle_lsn;
		cdc_batch_reset(b, TARGET_BYTES * 2);
		if (r.reply_requested || now_ms - status_ms >= STATUS_MS) {
			rc = cdc_source_status(s, seen, seen, err);
			if (rc)
				return rc;
			status_ms = now_ms;
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
	struct cdc_source *source = NULL;
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
	memset(&err, 0, sizeof(err));
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	plan = (struct cdc_source_plan){.settings = connection->settings,
					.slot = "walpost_tail",
					.tables = args->schemas,
					.table_n = args->schema_n};
	batch = cdc_batch_new(BATCH_MAX_BYTES);
	rc = batch ? cdc_source_new(&plan, &source, &err)
		   : cdc_err_set(&err, CDC_NOMEM, "out of memory");
	if (!rc)
		rc = cdc_source_start_temporary(source, &info, &err);
	if (!rc) {
		(void)fprintf(stderr, "walpost: following %s; stop with Ctrl-C\n",
			      connection->name);
		rc = follow(args, source, batch, info.slot_start, &signals, &err);
	}
	if (rc)
		cdc_cli_complain(&err);
	cdc_source_free(source);
	cdc_batch_free(batch);
	cdc_config_free(config);
	return rc ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}
