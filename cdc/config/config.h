/*
 * config.h - walpost.yaml, checked as a whole before anything is opened.
 *
 * Every component brings a table of its options (cdc/base/opt.h); this module
 * reads the file, puts in ${ENV} and *_file secrets, and fills the components'
 * structs.  Unknown keys, bad values, values out of range, and keys of the design
 * that this version cannot honour yet are refused with file, line, key, value
 * (unless secret) and range.  All mistakes are reported, not only the first.
 *
 * After loading, a configuration is immutable and shared freely.
 *
 * Threads: load in one thread; reading from any.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_CONFIG_H
#define CDC_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cdc/base/err.h"
#include "cdc/base/log.h"
#include "cdc/base/opt.h"
#include "cdc/base/selection.h"

/* A kind of connection; made by cdc/cli from the sources' and sinks' tables. */
struct cdc_connection_type {
	const char *name; /* "postgresql", "webhook" */
	bool is_source, is_sink;
	size_t size;                   /* of the struct that options fill */
	const struct cdc_opt *options; /* of `configuration` */
	/* Whether the settings of a struct that was read without a mistake go together; pure.
	 * CDC_CONFIG: err says what does not, *ret_key is the option where it is best mended
	 * (NULL: none).  Called once per connection while the file is loaded.  NULL: nothing to
	 * check. */
	enum cdc_code (*check)(const void *settings, const char **ret_key, struct cdc_err *err);
	/* The same for what a sync asks of a connection of this type: sync and delivery are the
	 * sink's and the engine's struct of its destination_configuration. */
	enum cdc_code (*check_sync)(const struct cdc_connection_type *type, const void *settings,
				    const void *sync, const void *delivery, const char **ret_key,
				    struct cdc_err *err);
	size_t sync_size; /* sinks: the struct for their keys of destination_configuration */
	const struct cdc_opt *sync_options;
};

/* What the program brings to the loader. */
struct cdc_config_tables {
	const struct cdc_connection_type *types;
	size_t type_n;
	size_t delivery_size; /* the engine's keys of destination_configuration */
	const struct cdc_opt *delivery_options;
	/* Whether a filter's function can do with its values; pure.  CDC_CONFIG: err says why not.
	 * NULL: nothing to check. */
	enum cdc_code (*filter_check)(const struct cdc_select_filter *filter, struct cdc_err *err);
};

struct cdc_connection {
	char *name;    /* the key in the file, [A-Za-z0-9_-]{1,63} */
	char uuid[37]; /* version 5, made from the name; the same for ever */
	const struct cdc_connection_type *type;
	void *settings;
	unsigned line;
};

struct cdc_sync {
	char *name;
	char uuid[37];
	const struct cdc_connection *source, *destination;
	struct cdc_opt_strs schemas;    /* "public.orders" or a pattern; n 0: every table of the
					   publication */
	struct cdc_selection selection; /* the same with columns, rows, and what is left out */
	char *replication_slot;         /* NULL: the connection's own */
	bool skip_initial_backfill;
	void *delivery;             /* delivery_options' struct */
	void *destination_settings; /* the sink's sync_options' struct */
	unsigned line;
};

enum cdc_buffer_confirm { CDC_CONFIRM_BUFFERED };

struct cdc_config {
	char *path;
	char *data_dir;   /* relative paths are relative to the file's folder */
	char *master_key; /* 32 bytes as base64 or hex; NULL: the one in data_dir */
	char *listen;     /* "ADDRESS:PORT", "" = off */
	enum cdc_log_level log_level;
	enum cdc_log_format log_format;
	uint64_t retention_ms, max_bytes;
	unsigned on_full; /* enum cdc_on_full of cdc/buffer/buffer.h, same order: stop, suspend */
	uint64_t backfill_connections, backfill_max_bytes, backfill_rows_per_second,
		backfill_stall_ms, backfill_replica_lag_ms, backfill_snapshot_ms;
	struct cdc_connection *connections;
	size_t connection_n;
	struct cdc_sync *syncs;
	size_t sync_n;
	struct cdc_config_memory *memory; /* the loader's own: everything above lies in it */
};

/* One mistake: `walpost.yaml:12: connections.shop.configuration.port: "99999" is above 65535
 * (allowed: 1 to 65535)`.  At most 1,000 bytes; secrets and what came from the environment are
 * never in it. */
typedef void cdc_mistake_fn(void *arg, const char *text);

/*
 * Reads and checks the file.  CDC_CONFIG: mistake was called for each mistake
 * (at most 50), err holds the first.  CDC_IO, CDC_MISSING: the file cannot be
 * read.  Limits: 4 MiB, 64 levels, 1,000 connections, 1,000 syncs.
 */
enum cdc_code cdc_config_load(const char *path, const struct cdc_config_tables *tables,
			      cdc_mistake_fn *mistake, void *arg, struct cdc_config **ret,
			      struct cdc_err *err) CDC_CHECK;
/* The same from memory; path is used in messages and for relative paths. */
enum cdc_code cdc_config_parse(const char *path, const char *text, size_t len,
			       const struct cdc_config_tables *tables, cdc_mistake_fn *mistake,
			       void *arg, struct cdc_config **ret, struct cdc_err *err) CDC_CHECK;
/* Wipes secrets and frees.  NULL is fine. */
void cdc_config_free(struct cdc_config *c);

/* Prints the reference of every key (`walpost config`): type, default, range, meaning. */
void cdc_config_reference(const struct cdc_config_tables *tables, FILE *out);

#endif
