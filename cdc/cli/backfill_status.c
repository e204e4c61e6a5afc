/*
 * `walpost backfill status [SYNC]`: what became of every table, as the store has it; and on a
 * terminal, as long as something is being copied, one line that shows how far it is.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/cli/command.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/page.h"
#include "cdc/cli/progress.h"

#define DRAW_MS    500
#define PAGE_MAX   (64u << 20)
#define LINE_BYTES 200

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

static size_t terminal_width(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1
		       ? (size_t)size.ws_col - 1
		       : 79;
}

/* The sync's progress; is_known false: nobody shows it, or nothing is being copied. */
static struct cdc_progress look(const struct cdc_config *config, const char *name)
{
	struct cdc_progress p = {0};
	struct cdc_buf page;

	cdc_buf_init(&page, PAGE_MAX);
	if (cdc_page_get(config->listen, "/metrics", &page, NULL) == CDC_OK)
		p = cdc_progress_parse((const char *)page.data, name);
	cdc_buf_clear(&page);
	p.is_known &= p.tables_left != 0;
	return p;
}

/* Redraws one line until the copies are done or walpost ends; Ctrl-C leaves the copies alone. */
static void follow(const struct cdc_config *config, const char *name)
{
	bool was_drawn = false;

	for (;;) {
		const struct cdc_progress p = look(config, name);
		char line[LINE_BYTES];

		if (!p.is_known)
			break;
		cdc_progress_format(&p, name, terminal_width(), line, sizeof(line));
		(void)fprintf(stderr, "\r%s\033[K", line);
		was_drawn = true;
		(void)poll(NULL, 0, DRAW_MS);
	}
	if (was_drawn)
		(void)fputc('\n', stderr);
}

static bool is_paused(struct cdc_store *store, const char *name)
{
	struct cdc_desired d = {0};

	return cdc_store_desired_get(store, name, &d, NULL) != CDC_OK || d.is_backfill_paused;
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
	(void)fflush(stdout);
	for (size_t i = 0; i < config->sync_n && !rc && isatty(STDERR_FILENO); i++) {
		const char *sync = config->syncs[i].name;

		if ((!name || strcmp(name, sync) == 0) && config->listen[0] &&
		    cdc_data_dir_is_held(config->data_dir) && !is_paused(store, sync))
			follow(config, sync);
	}
	if (rc) {
		cdc_cli_complain(&err);
		code = CDC_EXIT_FAILED;
	}
	cdc_store_close(store);
	cdc_config_free(config);
	return code;
}
