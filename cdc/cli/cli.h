/*
 * cli.h - the command line.
 *
 * Each command is a function from its arguments to an exit code: 0 done, 1
 * failed, 2 the command line or the configuration is wrong.  What a person asked
 * for goes to standard output, everything else to standard error.
 *
 * Threads: main.  Layer: cli (right of everything).
 */
#ifndef CDC_CLI_CLI_H
#define CDC_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/config/config.h"

enum { CDC_EXIT_DONE = 0, CDC_EXIT_FAILED = 1, CDC_EXIT_USAGE = 2 };

/* What the arguments of every command come down to. */
struct cdc_cli_args {
	const struct cdc_config_tables *tables; /* of every source, sink and of the engine */
	const char *config_path;
	const char *subject;         /* the first operand, or NULL: a connection, a sync, a verb */
	const char *const *operands; /* those behind it */
	size_t operand_n;
	const char *const *schemas; /* tail: --schema, each "public.orders" */
	size_t schema_n;
	bool is_config_only; /* check */
	bool is_json;        /* check, dead-letters, attempts */
	bool is_forced;      /* uninstall */
	bool is_ed25519;     /* webhook-secret */
	bool is_gap;         /* resync */
	/* dead-letters; since: also replay */
	const char *sync, *table, *key, *id, *since, *until; /* NULL: not given */
	bool is_all, is_parked, is_unreadable;
	const char *limit; /* attempts; NULL: not given */
	bool is_failed;    /* attempts */
};

int cdc_cli_main(int argc, char **argv);

int cdc_cli_run(const struct cdc_cli_args *args);
int cdc_cli_check(const struct cdc_cli_args *args);
int cdc_cli_tail(const struct cdc_cli_args *args);
int cdc_cli_uninstall(const struct cdc_cli_args *args);
int cdc_cli_dead_letters(const struct cdc_cli_args *args);
int cdc_cli_attempts(const struct cdc_cli_args *args);
int cdc_cli_status(const struct cdc_cli_args *args);
int cdc_cli_pause(const struct cdc_cli_args *args);
int cdc_cli_resume(const struct cdc_cli_args *args);
int cdc_cli_replay(const struct cdc_cli_args *args);
int cdc_cli_resync(const struct cdc_cli_args *args);
int cdc_cli_backfill(const struct cdc_cli_args *args);
int cdc_cli_webhook_secret(const struct cdc_cli_args *args);

/* Loads the file of the arguments, printing every mistake; NULL (and the exit code) when there is
 * one. */
struct cdc_config *cdc_cli_load(const struct cdc_cli_args *args, int *ret_exit);

/* Prints "walpost: MESSAGE" and the remedy. */
void cdc_cli_complain(const struct cdc_err *err);

#endif
