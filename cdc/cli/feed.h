/*
 * feed.h - which slots a configuration reads, and for whom.
 *
 * A feed is one slot of one source connection, with its buffer, and the syncs it
 * serves: all syncs of a connection share one, but for those that name a
 * replication_slot of their own.
 *
 * Threads: main.  Layer: cli.
 */
#ifndef CDC_CLI_FEED_H
#define CDC_CLI_FEED_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/config/config.h"
#include "cdc/source/source.h"

struct cdc_feed {
	const struct cdc_connection *connection;
	char slot[64];
	bool is_named; /* the slot's name was given by the user */
	const struct cdc_sync **syncs;
	const char **sync_names;                 /* the same */
	const struct cdc_selection **selections; /* theirs */
	size_t sync_n;
	const char **tables; /* what the syncs ask for, each once, tables and patterns; n 0: the
				whole publication */
	size_t table_n;
};

/* The feeds of a configuration, freed with cdc_feeds_free.  CDC_CONFIG: two connections whose slots
 * would have one name. */
enum cdc_code cdc_feeds_make(const struct cdc_config *config, struct cdc_feed **ret_feeds,
			     size_t *ret_n, struct cdc_err *err) CDC_CHECK;
void cdc_feeds_free(struct cdc_feed *feeds, size_t n);

/*
 * What a sync reads from the buffer: its tables, and when its operations name
 * message what the messages of its source are filed under.  n 0: everything, of
 * which its selection leaves the rest out.
 * The caller frees ret->items, and only that; the sync outlives it.
 */
enum cdc_code cdc_feed_selection(const struct cdc_sync *sync, struct cdc_opt_strs *ret,
				 struct cdc_err *err) CDC_CHECK;

/* What the source is to do for a feed; points into it. */
struct cdc_source_plan cdc_feed_plan(const struct cdc_feed *feed);

/* The slot's name for a connection: "walpost_" and the name in lower case with "_" for what a slot
 * may not have. */
void cdc_feed_slot_name(const char *connection, char ret_slot[64]);

#endif
