#include "cdc/cli/feed.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/pipeline/deliver.h"

void cdc_feed_slot_name(const char *connection, char ret_slot[64])
{
	(void)snprintf(ret_slot, 64, "walpost_%s", connection);
	for (char *c = ret_slot; *c; c++) {
		*c = (char)tolower((unsigned char)*c);
		if (!isalnum((unsigned char)*c))
			*c = '_';
	}
}

static bool asks_for(const struct cdc_feed *f, const char *table)
{
	for (size_t i = 0; i < f->table_n; i++) {
		if (strcmp(f->tables[i], table) == 0)
			return true;
	}
	return false;
}

/* Joins the tables of a feed's syncs; a sync without a list wants the whole publication. */
static enum cdc_code join_tables(struct cdc_feed *f, struct cdc_err *err)
{
	size_t most = 0;

	for (size_t i = 0; i < f->sync_n; i++) {
		if (f->syncs[i]->schemas.n == 0)
			return CDC_OK;
		most += f->syncs[i]->schemas.n;
	}
	f->tables = calloc(most, sizeof(*f->tables));
	if (!f->tables)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	for (size_t i = 0; i < f->sync_n; i++) {
		for (size_t k = 0; k < f->syncs[i]->schemas.n; k++) {
			if (!asks_for(f, f->syncs[i]->schemas.items[k]))
				f->tables[f->table_n++] = f->syncs[i]->schemas.items[k];
		}
	}
	return CDC_OK;
}

static struct cdc_feed *feed_of(struct cdc_feed *feeds, size_t *n, const struct cdc_sync *sync)
{
	char slot[64];
	struct cdc_feed *f;

	if (sync->replication_slot)
		(void)snprintf(slot, sizeof(slot), "%s", sync->replication_slot);
	else
		cdc_feed_slot_name(sync->source->name, slot);
	for (size_t i = 0; i < *n; i++) {
		if (strcmp(feeds[i].slot, slot) == 0)
			return &feeds[i];
	}
	f = &feeds[(*n)++];
	f->connection = sync->source;
	f->is_named = sync->replication_slot != NULL;
	memcpy(f->slot, slot, sizeof(slot));
	return f;
}

enum cdc_code cdc_feeds_make(const struct cdc_config *config, struct cdc_feed **ret_feeds,
			     size_t *ret_n, struct cdc_err *err)
{
	struct cdc_feed *feeds = calloc(config->sync_n + 1, sizeof(*feeds));
	enum cdc_code rc = CDC_OK;
	size_t n = 0;

	if (!feeds)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	for (size_t i = 0; !rc && i < config->sync_n; i++) {
		struct cdc_feed *f = feed_of(feeds, &n, &config->syncs[i]);

		if (f->connection != config->syncs[i].source) {
			rc = cdc_err_set(
				err, CDC_CONFIG,
				"%s: connections %s and %s would both read the slot %s; rename one",
				config->path, f->connection->name, config->syncs[i].source->name,
				f->slot);
			break;
		}
		if (!f->syncs)
			f->syncs = calloc(config->sync_n, sizeof(*f->syncs));
		if (!f->sync_names)
			f->sync_names = calloc(config->sync_n, sizeof(*f->sync_names));
		if (!f->selections)
			f->selections = calloc(config->sync_n, sizeof(*f->selections));
		if (!f->syncs || !f->sync_names || !f->selections) {
			rc = cdc_err_set(err, CDC_NOMEM, "out of memory");
			break;
		}
		f->sync_names[f->sync_n] = config->syncs[i].name;
		f->selections[f->sync_n] = &config->syncs[i].selection;
		f->syncs[f->sync_n++] = &config->syncs[i];
	}
	for (size_t i = 0; !rc && i < n; i++)
		rc = join_tables(&feeds[i], err);
	if (rc) {
		cdc_feeds_free(feeds, n);
		return rc;
	}
	*ret_feeds = feeds;
	*ret_n = n;
	return CDC_OK;
}

void cdc_feeds_free(struct cdc_feed *feeds, size_t n)
{
	for (size_t i = 0; feeds && i < n; i++) {
		free(feeds[i].syncs);
		free(feeds[i].sync_names);
		free(feeds[i].selections);
		free(feeds[i].tables);
	}
	free(feeds);
}

static bool has_pattern(const struct cdc_sync *sync)
{
	for (size_t i = 0; i < sync->schemas.n; i++) {
		if (cdc_pattern_is_one(sync->schemas.items[i]))
			return true;
	}
	return false;
}

enum cdc_code cdc_feed_selection(const struct cdc_sync *sync, struct cdc_opt_strs *ret,
				 struct cdc_err *err)
{
	const struct cdc_deliver_settings *delivery = sync->delivery;
	const struct cdc_source_settings *source = sync->source->settings;
	const struct cdc_opt_strs *prefixes = &source->message_prefixes;
	const bool has_messages = delivery->operations >> CDC_OP_MESSAGE & 1;
	struct cdc_opt_strs all = {0};
	size_t text_bytes = 0;
	char *text;

	*ret = (struct cdc_opt_strs){0};
	if (sync->schemas.n == 0 || has_pattern(sync))
		return CDC_OK;
	for (size_t i = 0; has_messages && i < prefixes->n; i++)
		text_bytes += sizeof(CDC_MESSAGE_SCHEMA) + strlen(prefixes->items[i]);
	/* The list, and behind it the names that are made here. */
	all.items = malloc((sync->schemas.n + prefixes->n) * sizeof(*all.items) + text_bytes);
	if (!all.items)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	text = (char *)(all.items + sync->schemas.n + prefixes->n);
	for (size_t i = 0; i < sync->schemas.n; i++)
		all.items[all.n++] = sync->schemas.items[i];
	for (size_t i = 0; has_messages && i < prefixes->n; i++) {
		all.items[all.n++] = text;
		text += sprintf(text, CDC_MESSAGE_SCHEMA "%s", prefixes->items[i]) + 1;
	}
	*ret = all;
	return CDC_OK;
}

struct cdc_source_plan cdc_feed_plan(const struct cdc_feed *feed)
{
	return (struct cdc_source_plan){
		.settings = feed->connection->settings,
		.slot = feed->slot,
		.may_create = true,
		.tables = feed->tables,
		.table_n = feed->table_n,
	};
}
