/*
 * Commands to a walpost that runs in another process, or will: `pause`, `resume`,
 * `resync`, `replay`, `backfill`.  They leave a row in the store and wait a little for its
 * answer; what carries them out is control.c.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cdc/base/clock.h"
#include "cdc/base/log.h"
#include "cdc/cli/cli.h"
#include "cdc/cli/command.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/when.h"
#include "cdc/pipeline/replay.h"

#define ANSWER_MS      8000 /* longest wait for an answer */
#define LOOK_MS        50
#define TABLE_NAME_MAX 127  /* two names of 63 bytes and the dot */
#define START_MS       5000 /* for a walpost that is just starting to make its state */

const struct cdc_sync *cdc_command_sync(const struct cdc_config *config, const char *verb,
					const char *name)
{
	if (!name) {
		(void)fprintf(stderr, "walpost: %s needs the name of a sync", verb);
	} else {
		for (size_t i = 0; i < config->sync_n; i++) {
			if (strcmp(config->syncs[i].name, name) == 0)
				return &config->syncs[i];
		}
		(void)fprintf(stderr, "walpost: %s has no sync named %s", config->path, name);
	}
	for (size_t i = 0; i < config->sync_n; i++)
		(void)fprintf(stderr, "%s%s", i ? ", " : "; it has ", config->syncs[i].name);
	(void)fputc('\n', stderr);
	return NULL;
}

bool cdc_command_is_table(const char *text)
{
	const char *dot = strchr(text, '.');

	return dot && dot > text && dot[1] && strlen(text) <= TABLE_NAME_MAX;
}

enum cdc_code cdc_command_open(const struct cdc_config *config, struct cdc_store **ret,
			       struct cdc_err *err)
{
	uint64_t end_ms = cdc_clock_mono_ms() + START_MS;
	enum cdc_code rc = cdc_data_dir_check(config->data_dir, err);

	if (rc)
		return rc;
	for (;;) {
		rc = cdc_store_attach(config->data_dir, ret, err);
		/* One that starts makes what is missing and brings it to its version. */
		if ((rc != CDC_MISSING && rc != CDC_CONFIG && rc != CDC_IO) ||
		    !cdc_data_dir_is_held(config->data_dir) || cdc_clock_mono_ms() >= end_ms)
			break;
		(void)poll(NULL, 0, LOOK_MS);
	}
	if (rc != CDC_MISSING)
		return rc;
	(void)cdc_err_set(err, CDC_MISSING, "there is no state in data_dir %s yet",
			  config->data_dir);
	return cdc_err_remedy(err, "start `walpost run` with this file once");
}

/* --- giving ------------------------------------------------------------------------- */

/* Waits for the answer to a command.  CDC_TIMEOUT: none yet; CDC_STOPPED: nobody runs (any more)
 * who would give it. */
static enum cdc_code wait_for(const struct cdc_config *config, struct cdc_store *store,
			      struct cdc_command *command, uint64_t end_ms, struct cdc_err *err)
{
	for (;;) {
		bool is_held = cdc_data_dir_is_held(config->data_dir);
		enum cdc_code rc = cdc_store_command_get(store, command->id, command, err);

		if (rc || command->state != CDC_COMMAND_WAITING)
			return rc;
		if (!is_held)
			return CDC_STOPPED;
		if (cdc_clock_mono_ms() >= end_ms)
			return CDC_TIMEOUT;
		(void)poll(NULL, 0, LOOK_MS);
	}
}

static void print_answer(const struct cdc_command *c, FILE *out)
{
	if (c->argument[0] && c->verb == CDC_VERB_RESYNC)
		(void)fprintf(out, "%s %s: %s\n", c->sync, c->argument, c->answer);
	else
		(void)fprintf(out, "%s: %s\n", c->sync, c->answer);
}

int cdc_command_give(const struct cdc_config *config, struct cdc_store *store,
		     struct cdc_command *commands, size_t n)
{
	uint64_t end_ms = cdc_clock_mono_ms() + ANSWER_MS;
	int code = CDC_EXIT_DONE;
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = cdc_store_command_add(store, commands, n, &err);
	for (size_t i = 0; i < n && !rc; i++) {
		bool is_refused;

		rc = wait_for(config, store, &commands[i], end_ms, &err);
		if (rc)
			break;
		is_refused = commands[i].state == CDC_COMMAND_REFUSED;
		print_answer(&commands[i], is_refused ? stderr : stdout);
		if (is_refused)
			code = CDC_EXIT_FAILED;
	}
	if (rc == CDC_STOPPED) {
		(void)printf("%s: walpost is not running; this is done when it starts\n",
			     commands[0].sync);
		return code;
	}
	if (rc == CDC_TIMEOUT) {
		(void)printf("%s: noted, and not done yet; `walpost run` does it as soon as it "
			     "can\n",
			     commands[0].sync);
		return code;
	}
	if (!rc)
		return code;
	cdc_cli_complain(&err);
	return CDC_EXIT_FAILED;
}

/* Loads, opens, and hands over to a verb. */
static int with_store(const struct cdc_cli_args *args, const char *verb, const char *name,
		      int (*run)(const struct cdc_cli_args *args, const struct cdc_config *config,
				 const struct cdc_sync *sync, struct cdc_store *store))
{
	struct cdc_store *store = NULL;
	const struct cdc_sync *sync;
	struct cdc_config *config;
	struct cdc_err err;
	int code = CDC_EXIT_FAILED;

	(void)umask(077);
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	memset(&err, 0, sizeof(err));
	sync = cdc_command_sync(config, verb, name);
	if (!sync)
		code = CDC_EXIT_USAGE;
	else if (cdc_command_open(config, &store, &err))
		cdc_cli_complain(&err);
	else
		code = run(args, config, sync, store);
	cdc_store_close(store);
	cdc_config_free(config);
	return code;
}

static int give_one(const struct cdc_config *config, const struct cdc_sync *sync,
		    struct cdc_store *store, enum cdc_verb verb)
{
	struct cdc_command command = {.verb = verb};

	(void)snprintf(command.sync, sizeof(command.sync), "%s", sync->name);
	return cdc_command_give(config, store, &command, 1);
}

static int give_pause(const struct cdc_cli_args *args, const struct cdc_config *config,
		      const struct cdc_sync *sync, struct cdc_store *store)
{
	(void)args;
	return give_one(config, sync, store, CDC_VERB_PAUSE);
}

int cdc_cli_pause(const struct cdc_cli_args *args)
{
	return with_store(args, "pause", args->subject, give_pause);
}

static int give_resume(const struct cdc_cli_args *args, const struct cdc_config *config,
		       const struct cdc_sync *sync, struct cdc_store *store)
{
	(void)args;
	return give_one(config, sync, store, CDC_VERB_RESUME);
}

int cdc_cli_resume(const struct cdc_cli_args *args)
{
	return with_store(args, "resume", args->subject, give_resume);
}

/* --- replay ------------------------------------------------------------------------- */

bool cdc_command_time(const char *option, const char *text, int64_t *ret_us)
{
	if (cdc_when_parse(text, cdc_clock_wall_us(), ret_us))
		return true;
	(void)fprintf(stderr,
		      "walpost: --%s %s is no time; write 2026-11-24T10:00:00Z, 2026-11-24, or how "
		      "long ago: 90s, 15m, 2h, 3d\n",
		      option, text);
	return false;
}

static int give_replay(const struct cdc_cli_args *args, const struct cdc_config *config,
		       const struct cdc_sync *sync, struct cdc_store *store)
{
	struct cdc_command command = {.verb = CDC_VERB_REPLAY};
	struct cdc_id id;
	int64_t us;

	if (!args->since) {
		(void)fprintf(stderr, "walpost: replay needs --since with the id of a record, or a "
				      "time\n");
		return CDC_EXIT_USAGE;
	}
	if (cdc_id_parse(args->since, strlen(args->since), &id)) {
		if (id.range) {
			(void)fprintf(
				stderr,
				"walpost: %s is a copied row, which the buffer does not have; "
				"`walpost resync %s` copies again\n",
				args->since, sync->name);
			return CDC_EXIT_USAGE;
		}
		cdc_replay_from_id(&id, command.argument);
	} else if (cdc_command_time("since", args->since, &us)) {
		cdc_replay_from_time(us, command.argument);
	} else {
		return CDC_EXIT_USAGE;
	}
	(void)snprintf(command.sync, sizeof(command.sync), "%s", sync->name);
	return cdc_command_give(config, store, &command, 1);
}

int cdc_cli_replay(const struct cdc_cli_args *args)
{
	return with_store(args, "replay", args->subject, give_replay);
}

/* --- resync ------------------------------------------------------------------------- */

/* Can it be told from here that the sync has no such table?  Then it is, with those it has. */
static bool is_refused(const struct cdc_sync *sync, const struct cdc_backfill_row *rows, size_t n,
		       const char *table)
{
	if (!cdc_command_is_table(table)) {
		(void)fprintf(stderr, "walpost: %s is no table's name; write schema.table\n",
			      table);
		return true;
	}
	/* A sync that copies nothing by itself has not looked for tables. */
	if (n == 0 || sync->skip_initial_backfill)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(rows[i].table, table) == 0)
			return false;
	}
	(void)fprintf(stderr, "walpost: sync %s has no table %s; it has", sync->name, table);
	for (size_t i = 0; i < n; i++)
		(void)fprintf(stderr, "%s %s", i ? "," : "", rows[i].table);
	(void)fputc('\n', stderr);
	return true;
}

static int give_resync(const struct cdc_cli_args *args, const struct cdc_config *config,
		       const struct cdc_sync *sync, struct cdc_store *store)
{
	size_t n = args->operand_n ? args->operand_n : 1, row_n = 0;
	struct cdc_command *commands = calloc(n, sizeof(*commands));
	struct cdc_backfill_row *rows = NULL;
	struct cdc_err err;
	int code = CDC_EXIT_DONE;

	memset(&err, 0, sizeof(err));
	if (!commands || cdc_store_backfill_get(store, sync->name, &rows, &row_n, &err)) {
		cdc_cli_complain(&err);
		code = CDC_EXIT_FAILED;
	}
	for (size_t i = 0; commands && i < n; i++) {
		const char *table = args->operand_n ? args->operands[i] : "";

		if (args->operand_n && code == CDC_EXIT_DONE &&
		    is_refused(sync, rows, row_n, table))
			code = CDC_EXIT_USAGE;
		commands[i].verb = CDC_VERB_RESYNC;
		(void)snprintf(commands[i].sync, sizeof(commands[i].sync), "%s", sync->name);
		(void)snprintf(commands[i].argument, sizeof(commands[i].argument), "%s", table);
	}
	if (code == CDC_EXIT_DONE)
		code = cdc_command_give(config, store, commands, n);
	free(rows);
	free(commands);
	return code;
}

static int give_accept_gap(const struct cdc_cli_args *args, const struct cdc_config *config,
			   const struct cdc_sync *sync, struct cdc_store *store)
{
	(void)args;
	return give_one(config, sync, store, CDC_VERB_ACCEPT_GAP);
}

int cdc_cli_resync(const struct cdc_cli_args *args)
{
	if (args->is_gap && args->operand_n) {
		(void)fprintf(stderr, "walpost: --gap is about all tables; name none\n");
		return CDC_EXIT_USAGE;
	}
	return with_store(args, "resync", args->subject,
			  args->is_gap ? give_accept_gap : give_resync);
}

/* --- backfill ----------------------------------------------------------------------- */

static int give_backfill_pause(const struct cdc_cli_args *args, const struct cdc_config *config,
			       const struct cdc_sync *sync, struct cdc_store *store)
{
	(void)args;
	return give_one(config, sync, store, CDC_VERB_BACKFILL_PAUSE);
}

static int give_backfill_resume(const struct cdc_cli_args *args, const struct cdc_config *config,
				const struct cdc_sync *sync, struct cdc_store *store)
{
	(void)args;
	return give_one(config, sync, store, CDC_VERB_BACKFILL_RESUME);
}

int cdc_cli_backfill(const struct cdc_cli_args *args)
{
	const char *verb = args->subject ? args->subject : "";
	const char *name = args->operand_n ? args->operands[0] : NULL;

	if (strcmp(verb, "pause") == 0)
		return with_store(args, "backfill pause", name, give_backfill_pause);
	if (strcmp(verb, "resume") == 0)
		return with_store(args, "backfill resume", name, give_backfill_resume);
	if (strcmp(verb, "status") == 0)
		return cdc_cli_backfill_status(args, name);
	(void)fprintf(stderr,
		      "walpost: backfill knows pause SYNC, resume SYNC and status [SYNC]%s%s\n",
		      *verb ? ", not " : "", verb);
	return CDC_EXIT_USAGE;
}
