/*
 * file.h - the keys of walpost.yaml that belong to no component.
 *
 * Tables for config.c, which reads the file by them, and for reference.c, which
 * prints them.
 *
 * Threads: tables are constant.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_FILE_H
#define CDC_CONFIG_FILE_H

#include <stddef.h>

#include "cdc/base/opt.h"

#define CDC_CONFIG_BYTES_MAX   ((size_t)4 << 20)
#define CDC_CONFIG_OBJECTS_MAX 1000 /* connections, and syncs */

/* The file's own keys, into struct cdc_config; besides: connections, bulk_syncs. */
extern const struct cdc_opt cdc_file_options[];

/* A connection's keys; besides: configuration. */
struct cdc_file_connection {
	char *type;
};
extern const struct cdc_opt cdc_file_connection_options[];

/* A sync's keys; besides: schemas and destination_configuration. */
struct cdc_file_sync {
	char *source, *destination;
	char *replication_slot, *obfuscation_key;
	bool skip_initial_backfill;
};
extern const struct cdc_opt cdc_file_sync_options[];

/* An entry of schemas that is a group of keys; besides: fields and filters. */
struct cdc_file_schema {
	char *id;
	bool is_enabled;
	unsigned leaving; /* enum cdc_leaving */
};
extern const struct cdc_opt cdc_file_schema_options[];

/* An entry of fields that is a group of keys. */
struct cdc_file_field {
	char *id, *output_name, *user_output_name;
	bool is_enabled;
	unsigned obfuscate, obfuscated; /* index into cdc_file_obfuscations; both mean the same */
};
extern const struct cdc_opt cdc_file_field_options[];

/* An entry of filters; besides: value. */
struct cdc_file_filter {
	char *field;
	unsigned function; /* enum cdc_filter_function */
};
extern const struct cdc_opt cdc_file_filter_options[];

#endif
