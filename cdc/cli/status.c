/*
 * `walpost status`: the page of the walpost that runs, or what its state says when
 * none runs or answers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cdc/base/clock.h"
#include "cdc/cli/command.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/page.h"

#define PAGE_MAX (64u << 20)

static enum cdc_code print_position(const struct cdc_sync *sync, struct cdc_store *store,
				    struct cdc_err *err)
{
	struct cdc_cursor cursor;
	char id[CDC_ID_TEXT];
	enum cdc_code rc;
	size_t copied;

	memset(&cursor, 0, sizeof(cursor));
	rc = cdc_store_cursor_get(store, sync->name, &cursor, err);
	if (rc == CDC_MISSING) {
		(void)printf("  has not started yet\n");
		return CDC_OK;
	}
	if (rc)
		return rc;
	(void)cdc_id_format(&cursor.streams[0].id, id);
	(void)printf("  delivered up to %s", cdc_id_is_zero(&cursor.streams[0].id) ? "-" : id);
	copied = cdc_cursor_copied(&cursor);
	if (copied)
		(void)printf("; %zu tables are being copied", copied);
	for (size_t i = 0; i < cursor.table_n; i++) {
		if (cursor.tables[i].state == CDC_TABLE_STOPPED)
			(void)printf("; %s has stopped before a record that is refused",
				     cursor.tables[i].table);
	}
	(void)printf("\n");
	cdc_cursor_clear(&cursor);
	return CDC_OK;
}

static enum cdc_code print_copies(const struct cdc_sync *sync, struct cdc_store *store,
				  struct cdc_err *err)
{
	struct cdc_backfill_row *rows = NULL;
	size_t n = 0, pending = 0, failed = 0;
	enum cdc_code rc = cdc_store_backfill_get(store, sync->name, &rows, &n, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < n; i++) {
		pending += rows[i].state == CDC_BACKFILL_PENDING &&
			   (rows[i].is_asked || !sync->skip_initial_backfill);
		failed += rows[i].state == CDC_BACKFILL_FAILED;
	}
	if (pending || failed)
		(void)printf("  %zu tables are to be copied, of %zu the copy failed\n", pending,
			     failed);
	free(rows);
	return CDC_OK;
}

static enum cdc_code print_sync(const struct cdc_sync *sync, struct cdc_store *store,
				struct cdc_err *err)
{
	struct cdc_desired d;
	enum cdc_code rc = cdc_store_desired_get(store, sync->name, &d, err);

	if (rc)
		return rc;
	(void)printf("%s: %s > %s%s%s\n", sync->name, sync->source->name, sync->destination->name,
		     d.is_paused ? ", paused" : "",
		     d.is_backfill_paused ? ", backfill paused" : "");
	rc = print_position(sync, store, err);
	return rc ? rc : print_copies(sync, store, err);
}

static void print_gap(void *arg, const struct cdc_gap_row *g)
{
	char at[CDC_TIME_TEXT];

	(void)arg;
	(void)cdc_time_format(g->at_us, at);
	(void)printf("gap of %s, noted %s: %s\n", g->sync, at, g->reason);
}

static enum cdc_code print_commands(struct cdc_store *store, struct cdc_err *err)
{
	struct cdc_command c = {0};
	enum cdc_code rc;

	for (;;) {
		rc = cdc_store_command_next(store, c.id, &c, err);
		if (rc)
			break;
		(void)printf("waits: %s %s %s\n", cdc_verb_name(c.verb), c.sync, c.argument);
	}
	return rc == CDC_MISSING ? CDC_OK : rc;
}

static enum cdc_code print_state(const struct cdc_config *config, struct cdc_err *err)
{
	struct cdc_store *store = NULL;
	enum cdc_code rc = cdc_command_open(config, &store, err);

	for (size_t i = 0; i < config->sync_n && !rc; i++)
		rc = print_sync(&config->syncs[i], store, err);
	if (!rc)
		rc = cdc_store_gap_each(store, print_gap, NULL, err);
	if (!rc)
		rc = print_commands(store, err);
	cdc_store_close(store);
	return rc;
}

int cdc_cli_status(const struct cdc_cli_args *args)
{
	struct cdc_config *config;
	struct cdc_buf page;
	struct cdc_err err;
	enum cdc_code rc = CDC_MISSING;
	int code = CDC_EXIT_DONE;
	bool is_running;

	(void)umask(077);
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	memset(&err, 0, sizeof(err));
	cdc_buf_init(&page, PAGE_MAX);
	is_running = cdc_data_dir_is_held(config->data_dir);
	if (is_running && config->listen[0])
		rc = cdc_page_get(config->listen, "/status.txt", &page, &err);
	if (!rc) {
		(void)fputs((const char *)page.data, stdout);
	} else {
		(void)printf("walpost %s\n\n", !is_running ? "is not running"
					       : !config->listen[0]
						       ? "runs without pages (listen is off)"
						       : "runs, and does not answer");
		if (is_running && config->listen[0])
			cdc_cli_complain(&err);
		rc = print_state(config, &err);
		if (rc)
			cdc_cli_complain(&err);
	}
	cdc_buf_clear(&page);
	cdc_config_free(config);
	return rc ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}
