/*
 * command.h - what the commands to a running walpost share.
 *
 * Threads: main.  Layer: cli.
 */
#ifndef CDC_CLI_COMMAND_H
#define CDC_CLI_COMMAND_H

#include "cdc/cli/cli.h"
#include "cdc/store/store.h"

/* The sync of this name; NULL: there is none, or name is NULL, and that was printed with the names
 * there are.  verb: the command, for the text. */
const struct cdc_sync *cdc_command_sync(const struct cdc_config *config, const char *verb,
					const char *name);

/* Is it schema.table, and no longer than that can be? */
bool cdc_command_is_table(const char *text);

/* The state in data_dir; where a walpost is just starting, waits for it to make that.
 * CDC_MISSING: there is none. */
enum cdc_code cdc_command_open(const struct cdc_config *config, struct cdc_store **ret,
			       struct cdc_err *err) CDC_CHECK;

/* Adds n commands of one sync, waits a few seconds for the answers, prints them, or what is to be
 * expected instead.  The exit code. */
int cdc_command_give(const struct cdc_config *config, struct cdc_store *store,
		     struct cdc_command *commands, size_t n);

/* An option's time; false: it is none, and that was printed with what is. */
bool cdc_command_time(const char *option, const char *text, int64_t *ret_us);

/* `backfill status`; name NULL: every sync. */
int cdc_cli_backfill_status(const struct cdc_cli_args *args, const char *name);

#endif
