/* `walpost backfill status [SYNC]`: what became of every table, as the store has it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cdc/base/clock.h"
#include "cdc/cli/command.h"

static void print_time(int64_t at_us)
{
	char text[CDC_TIME_TEXT] = "-";

	if (at_us)
		(void)cdc_time_format(at_us, text);
	text[at_us ? 19 : 1] = '\0'; /* to the second */
	(void)printf("  %-19s", text);
}

static void print_rows(const struct cdc_sync *sync, const struct cdc_backfill_row *rows, size_t n)
{
	int width = 5;

	for (size_t i = 0; i < n; i++) {
		int len = (int)strlen(rows[i].table);

		width = len > width ? len : width;
	}
	(void)printf("  %-*s  %-7s  %12s  %-19s  %s\n", width, "TABLE", "STATE", "ROWS", "BEGUN",
		     "ENDED");
	for (size_t i = 0; i < n; i++) {
		const struct cdc_backfill_row *r = &rows[i];
		const bool is_off = sync->skip_initial_backfill && !r->is_asked;
		const char *state = r->state == CDC_BACKFILL_DONE     ? "copied"
				    : r->state == CDC_BACKFILL_FAILED ? "failed"
				    : is_off                          ? "skipped"
								      : "pending";

		(void)printf("  %-*s  %-7s  %12" PRIu64, width, r->table, state, r->rows);
		print_time(r->begun_us);
		print_time(r->ended_us);
		(void)printf("\n");
		if (r->reason[0])
			(void)printf("      %s\n", r->reason);
	}
}

static enum cdc_code print_sync(const struct cdc_sync *sync, struct cdc_store *store,
				struct cdc_err *err)
{
	struct cdc_backfill_row *rows = NULL;
	struct cdc_desired desired = {0};
	size_t n = 0;
	enum cdc_code rc = cdc_store_desired_get(store, sync->name, &desired, err);

	if (!rc)
		rc = cdc_store_backfill_get(store, sync->name, &rows, &n, err);
	if (rc)
		return rc;
	(void)printf("%s%s%s\n", sync->name, desired.is_backfill_paused ? ": paused" : "",
		     n ? "" : ": no table was found or asked for yet");
	if (n)
		print_rows(sync, rows, n);
	free(rows);
	return CDC_OK;
}

int cdc_cli_backfill_status(const struct cdc_cli_args *args, const char *name)
{
	struct cdc_store *store = NULL;
	struct cdc_config *config;
	struct cdc_err err;
	enum cdc_code rc;
	int code = CDC_EXIT_DONE;

	(void)umask(077);
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	memset(&err, 0, sizeof(err));
	if (name && !cdc_command_sync(config, "backfill status", name)) {
		cdc_config_free(config);
		return CDC_EXIT_USAGE;
	}
	rc = cdc_command_open(config, &store, &err);
	for (size_t i = 0; i < config->sync_n && !rc; i++) {
		if (!name || strcmp(name, config->syncs[i].name) == 0)
			rc = print_sync(&config->syncs[i], store, &err);
	}
	if (rc) {
		cdc_cli_complain(&err);
		code = CDC_EXIT_FAILED;
	}
	cdc_store_close(store);
	cdc_config_free(config);
	return code;
}
