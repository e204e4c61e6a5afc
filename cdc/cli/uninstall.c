/*
 * `walpost uninstall CONNECTION`: drops what walpost made on the source (slot,
 * publication) and removes the buffer that belonged to it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/buf.h"
#include "cdc/buffer/buffer.h"
#include "cdc/cli/cli.h"
#include "cdc/cli/data_dir.h"
#include "cdc/cli/feed.h"
#include "cdc/store/store.h"

/* Does a sync still wait for records of this buffer?  They would be gone. */
static enum cdc_code check_delivered(const struct cdc_config *config, const struct cdc_feed *feed,
				     struct cdc_store *store, struct cdc_err *err)
{
	struct cdc_buffer_metrics *metrics = calloc(1, sizeof(*metrics));
	const struct cdc_buffer_ops *ops = &cdc_buffer_local;
	const struct cdc_start start = {.at = CDC_START_DURABLE_END};
	struct cdc_buffer_stats stats;
	struct cdc_buffer *buffer = NULL;
	enum cdc_code rc = CDC_OK;

	if (!metrics)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	const struct cdc_buffer_settings settings = {
		.dir = config->data_dir,
		.slot = feed->slot,
		.max_bytes = config->max_bytes,
		.retention_ms = config->retention_ms,
		.metrics = metrics,
	};

	rc = ops->open(&settings, &buffer, err);
	for (size_t i = 0; !rc && i < feed->sync_n; i++) {
		struct cdc_stream_position low, position;
		const struct cdc_position at = {.n = 1, .streams = &low};
		struct cdc_cursor cursor;
		struct cdc_gap gap;

		memset(&cursor, 0, sizeof(cursor));
		rc = cdc_store_cursor_get(store, feed->syncs[i]->name, &cursor, err);
		if (rc == CDC_MISSING) {
			rc = CDC_OK; /* never delivered anything */
			continue;
		}
		if (rc)
			break;
		low = cdc_cursor_lowest(&cursor);
		rc = ops->group_add(buffer, feed->syncs[i]->name, &at, &start, &position, &gap,
				    err);
		cdc_cursor_clear(&cursor);
	}
	if (!rc) {
		ops->stats(buffer, &stats);
		if (stats.holder) {
			rc = cdc_err_set(
				err, CDC_HELD,
				"sync %s has not delivered everything that is in the buffer",
				stats.holder);
			(void)cdc_err_remedy(
				err,
				"let `walpost run` deliver it, or add --force to throw it away");
		}
	}
	if (buffer)
		ops->close(buffer);
	free(metrics);
	return rc;
}

static void remove_buffer(const struct cdc_config *config, const char *slot)
{
	static const char *const ends[] = {"", "-wal", "-shm"};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct cdc_buf path;

		cdc_buf_init(&path, 8192);
		cdc_buf_printf(&path, "%s/buffer-%s.db%s", config->data_dir, slot, ends[i]);
		cdc_buf_put(&path, "", 1);
		if (!path.failed)
			(void)unlink((const char *)path.data);
		cdc_buf_clear(&path);
	}
}

/* Nothing here says that the slot is ours: another walpost, with another data_dir, may read it. */
static enum cdc_code uninstall_unknown(const struct cdc_cli_args *args,
				       const struct cdc_config *config, const struct cdc_feed *feed,
				       struct cdc_err *err)
{
	const struct cdc_source_plan plan = cdc_feed_plan(feed);
	enum cdc_code rc;

	if (!args->is_forced) {
		(void)cdc_err_set(err, CDC_MISSING,
				  "data_dir %s knows nothing of a slot %s: there is none, or the "
				  "walpost that made it has another data_dir",
				  config->data_dir, feed->slot);
		return cdc_err_remedy(err, "run this with the file of the walpost that made it; or "
					   "add --force to drop the slot all the same");
	}
	rc = cdc_source_uninstall(&plan, false, err);
	if (rc)
		return rc;
	/* The state may be what got lost. */
	remove_buffer(config, feed->slot);
	(void)printf("there is no slot %s on the server any more; a publication %s, if "
		     "there is one, is kept\n",
		     feed->slot, plan.settings->publication);
	return CDC_OK;
}

/* store NULL: there is no data_dir. */
static enum cdc_code uninstall_feed(const struct cdc_cli_args *args,
				    const struct cdc_config *config, const struct cdc_feed *feed,
				    struct cdc_store *store, struct cdc_err *err)
{
	const struct cdc_source_plan plan = cdc_feed_plan(feed);
	struct cdc_slot_row row;
	enum cdc_code rc =
		store ? cdc_store_slot_get(store, feed->connection->name, feed->slot, &row, err)
		      : CDC_MISSING;

	if (rc && rc != CDC_MISSING)
		return rc;
	if (rc == CDC_MISSING && !feed->is_named)
		return uninstall_unknown(args, config, feed, err);
	/* A slot that a sync names was made by somebody else. */
	if (rc == CDC_MISSING || !row.slot_is_ours) {
		(void)printf("the slot %s was there before walpost; it is kept\n", feed->slot);
		return CDC_OK;
	}
	rc = args->is_forced ? CDC_OK : check_delivered(config, feed, store, err);
	if (!rc)
		rc = cdc_source_uninstall(&plan, row.publication_is_ours, err);
	if (rc)
		return rc;
	(void)printf("the slot %s is dropped\n", feed->slot);
	if (row.publication_is_ours)
		(void)printf("the publication %s is dropped\n", plan.settings->publication);
	for (size_t i = 0; !rc && i < feed->sync_n; i++)
		rc = cdc_store_cursor_delete(store, feed->syncs[i]->name, err);
	if (!rc)
		rc = cdc_store_slot_delete(store, feed->connection->name, feed->slot, err);
	if (!rc)
		remove_buffer(config, feed->slot);
	return rc;
}

/* Locks data_dir and opens its store; where there is none, none is made, and *ret_store is NULL. */
static enum cdc_code open_store(const struct cdc_config *config, int *ret_fd,
				struct cdc_store **ret_store, struct cdc_err *err)
{
	enum cdc_code rc;

	if (access(config->data_dir, F_OK) != 0 && errno == ENOENT)
		return CDC_OK;
	rc = cdc_data_dir_lock(config->data_dir, ret_fd, err);
	return rc ? rc : cdc_store_open(config->data_dir, ret_store, err);
}

int cdc_cli_uninstall(const struct cdc_cli_args *args)
{
	struct cdc_feed *feeds = NULL;
	struct cdc_config *config;
	struct cdc_store *store = NULL;
	struct cdc_err err;
	size_t feed_n = 0, matched = 0;
	enum cdc_code rc;
	int code = CDC_EXIT_FAILED, lock_fd = -1;

	(void)umask(077);
	if (!args->subject) {
		(void)fprintf(stderr, "walpost: uninstall needs the name of a connection\n");
		return CDC_EXIT_USAGE;
	}
	config = cdc_cli_load(args, &code);
	if (!config)
		return code;
	memset(&err, 0, sizeof(err));
	rc = cdc_feeds_make(config, &feeds, &feed_n, &err);
	if (!rc)
		rc = open_store(config, &lock_fd, &store, &err);
	for (size_t i = 0; !rc && i < feed_n; i++) {
		if (strcmp(feeds[i].connection->name, args->subject) != 0)
			continue;
		matched++;
		rc = uninstall_feed(args, config, &feeds[i], store, &err);
	}
	if (!rc && !matched)
		rc = cdc_err_set(&err, CDC_MISSING, "no sync reads a connection named %s",
				 args->subject);
	if (rc)
		cdc_cli_complain(&err);
	cdc_store_close(store);
	if (lock_fd >= 0)
		(void)close(lock_fd);
	cdc_feeds_free(feeds, feed_n);
	cdc_config_free(config);
	return rc ? CDC_EXIT_FAILED : CDC_EXIT_DONE;
}
