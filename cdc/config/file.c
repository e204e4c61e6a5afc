#include "cdc/config/file.h"

#include "cdc/config/config.h"

/* Enum fields of struct cdc_config are written as the unsigned that CDC_OPT_ENUM stands for. */
_Static_assert(sizeof(enum cdc_log_level) == sizeof(unsigned), "an enum is as wide as unsigned");
_Static_assert(sizeof(enum cdc_log_format) == sizeof(unsigned), "an enum is as wide as unsigned");

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_formats[] = {"logfmt", "json", NULL};
static const struct cdc_opt log_options[] = {
	{.name = "level",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct cdc_config, log_level),
	 .def = "info",
	 .choices = log_levels,
	 .help = "The least important lines that are still written."},
	{.name = "format",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct cdc_config, log_format),
	 .def = "logfmt",
	 .choices = log_formats,
	 .help = "One line per event: key=value pairs, or a JSON object."},
	{0},
};

static const char *const buffer_types[] = {"local", "kafka", NULL};
static const char *const on_full[] = {"stop", "suspend", NULL};
static const char *const confirms[] = {"buffered", "delivered", NULL};
static const struct cdc_opt buffer_options[] = {
	{.name = "type",
	 .type = CDC_OPT_LATER,
	 .def = "local",
	 .choices = buffer_types,
	 .help = "Where captured changes are kept until they are delivered."},
	{.name = "retention",
	 .type = CDC_OPT_DURATION,
	 .offset = offsetof(struct cdc_config, retention_ms),
	 .def = "24h",
	 .max = UINT64_C(365) * 86400000,
	 .help = "Delivered records are kept this long for replay, unless room is needed."},
	{.name = "max_bytes",
	 .type = CDC_OPT_SIZE,
	 .offset = offsetof(struct cdc_config, max_bytes),
	 .def = "10GiB",
	 .min = UINT64_C(16) << 20,
	 .max = UINT64_C(64) << 40,
	 .help = "Most disk space of one slot's buffer, its write-ahead file included."},
	{.name = "on_full",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct cdc_config, on_full),
	 .def = "stop",
	 .choices = on_full,
	 .help = "When undelivered records fill the buffer: stop reading (the slot waits), or "
		 "suspend the sync that is furthest behind."},
	{.name = "confirm",
	 .type = CDC_OPT_LATER,
	 .def = "buffered",
	 .choices = confirms,
	 .help = "What the slot follows: what is durable in the buffer, or what is delivered."},
	{.name = "kafka", .type = CDC_OPT_LATER, .help = "The Kafka cluster of a buffer on Kafka."},
	{0},
};

static const struct cdc_opt backfill_options[] = {
	{.name = "connections",
	 .type = CDC_OPT_UINT,
	 .offset = offsetof(struct cdc_config, backfill_connections),
	 .def = "2",
	 .min = 1,
	 .max = 16,
	 .help = "Connections to the source that copy the rows of a sync at a time."},
	{.name = "max_bytes",
	 .type = CDC_OPT_SIZE,
	 .offset = offsetof(struct cdc_config, backfill_max_bytes),
	 .def = "16MiB",
	 .min = 1 << 20,
	 .max = UINT64_C(64) << 30,
	 .help = "Copied rows of a sync that are read and not yet delivered, in memory; beyond it "
		 "the copy waits."},
	{.name = "rows_per_second",
	 .type = CDC_OPT_UINT,
	 .offset = offsetof(struct cdc_config, backfill_rows_per_second),
	 .def = "0",
	 .max = 100000000,
	 .help = "Most rows of a sync that are copied in a second; 0: no limit."},
	{.name = "stall_timeout",
	 .type = CDC_OPT_DURATION,
	 .offset = offsetof(struct cdc_config, backfill_stall_ms),
	 .def = "60s",
	 .min = 1000,
	 .max = 86400000,
	 .help = "When the destination takes no rows for this long, the snapshot is let go, so "
		 "that "
		 "the database can clean up; the copy begins again later."},
	{.name = "max_snapshot_age",
	 .type = CDC_OPT_DURATION,
	 .offset = offsetof(struct cdc_config, backfill_snapshot_ms),
	 .def = "6h",
	 .min = 1000,
	 .max = UINT64_C(30) * 86400000,
	 .help = "A copy that takes longer lets its snapshot go, so that the database can clean "
		 "up, and "
		 "goes on in the order of the primary key, under a new snapshot each time. A table "
		 "without "
		 "one is not copied then."},
	{.name = "max_replica_lag",
	 .type = CDC_OPT_DURATION,
	 .offset = offsetof(struct cdc_config, backfill_replica_lag_ms),
	 .def = "30s",
	 .max = UINT64_C(30) * 86400000,
	 .help = "While a physical replica of the source has not replayed what is older than "
		 "this, copies "
		 "go slower and slower; needs pg_monitor. 0: replicas are not looked at."},
	{0},
};

const struct cdc_opt cdc_file_options[] = {
	{.name = "data_dir",
	 .type = CDC_OPT_STR,
	 .offset = offsetof(struct cdc_config, data_dir),
	 .def = "./walpost-data",
	 .min = 1,
	 .help = "Folder of buffer and state, made with mode 0700; relative to this file's "
		 "folder."},
	{.name = "listen",
	 .type = CDC_OPT_STR,
	 .offset = offsetof(struct cdc_config, listen),
	 .def = "127.0.0.1:5100",
	 .max = 255,
	 .help = "ADDRESS:PORT of health, readiness, metrics and status; \"\" turns them off."},
	{.name = "log", .type = CDC_OPT_GROUP, .group = log_options},
	{.name = "buffer", .type = CDC_OPT_GROUP, .group = buffer_options},
	{.name = "models", .type = CDC_OPT_LATER, .help = "Models of the API."},
	{.name = "syncs", .type = CDC_OPT_LATER, .help = "Model syncs of the API."},
	{.name = "backfill", .type = CDC_OPT_GROUP, .group = backfill_options},
	{.name = "epoch", .type = CDC_OPT_LATER, .help = "Overrides the numbering of records."},
	{.name = "master_key",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = offsetof(struct cdc_config, master_key),
	 .help = "Encrypts parked records and dead letters in the state: 32 bytes as base64 or hex "
		 "(`openssl rand -base64 32` makes one); without it a key is made in "
		 "data_dir/master.key."},
	{.name = "execution_window", .type = CDC_OPT_LATER, .help = "Length of an execution."},
	{0},
};

const struct cdc_opt cdc_file_connection_options[] = {
	{.name = "type",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_connection, type),
	 .max = 63,
	 .help = "What kind of system this is; it decides the keys of configuration."},
	{.name = "name",
	 .type = CDC_OPT_LATER,
	 .help = "A name for people; in the file the key is the name."},
	{0},
};

static const char *const modes[] = {"replicate", "snapshot", NULL};
static const char *const frequencies[] = {"continuous", "manual", "hourly", "daily",
					  "weekly",     "custom", NULL};
static const struct cdc_opt schedule_options[] = {
	{.name = "frequency",
	 .type = CDC_OPT_LATER,
	 .def = "continuous",
	 .choices = frequencies,
	 .help = "When the sync runs; continuous: every change as it is committed."},
	{0},
};
static const struct cdc_opt source_options[] = {
	{.name = "replication_slot",
	 .type = CDC_OPT_STR,
	 .offset = offsetof(struct cdc_file_sync, replication_slot),
	 .min = 1,
	 .max = 63,
	 .help = "A slot, and with it a reader and a buffer, of this sync's own ([a-z0-9_]); an "
		 "existing slot goes on from its confirmed position."},
	{0},
};

const struct cdc_opt cdc_file_sync_options[] = {
	{.name = "source_connection",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_sync, source),
	 .max = 63,
	 .help = "Name of the connection whose changes are read."},
	{.name = "destination_connection",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_sync, destination),
	 .max = 63,
	 .help = "Name of the connection that gets them."},
	{.name = "mode",
	 .type = CDC_OPT_LATER,
	 .def = "replicate",
	 .choices = modes,
	 .help = "replicate: every change is brought over."},
	{.name = "default_schedule", .type = CDC_OPT_GROUP, .group = schedule_options},
	{.name = "skip_initial_backfill",
	 .type = CDC_OPT_BOOL,
	 .offset = offsetof(struct cdc_file_sync, skip_initial_backfill),
	 .def = "false",
	 .help = "true: only changes from now on are delivered.  false: the rows that a table "
		 "has when the sync first sees it are delivered, too, as `read` records."},
	{.name = "obfuscation_key",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = offsetof(struct cdc_file_sync, obfuscation_key),
	 .min = 16,
	 .max = 1024,
	 .help = "Key of the hashes that obfuscate: hash puts in place of values; equal keys give "
		 "equal hashes."},
	{.name = "source_configuration", .type = CDC_OPT_GROUP, .group = source_options},
	{.name = "name",
	 .type = CDC_OPT_LATER,
	 .help = "A name for people; in the file the key is the name."},
	{.name = "active", .type = CDC_OPT_LATER, .help = "Whether the sync runs."},
	{.name = "on_gap", .type = CDC_OPT_LATER, .help = "What follows a gap in the changes."},
	{.name = "start", .type = CDC_OPT_LATER, .help = "Where in the buffer a new sync begins."},
	{0},
};

static const char *const leavings[] = {
	[CDC_LEAVING_DROP] = "drop",
	[CDC_LEAVING_DELETE] = "delete",
	NULL,
};
const struct cdc_opt cdc_file_schema_options[] = {
	{.name = "id",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_schema, id),
	 .max = 127, /* two names of 63 bytes and the dot */
	 .help = "schema.table; each * stands for any characters, as in public.* and *.orders_*.  "
		 "A "
		 "table goes by the entry of its name, else by the first pattern that matches."},
	{.name = "enabled",
	 .type = CDC_OPT_BOOL,
	 .offset = offsetof(struct cdc_file_schema, is_enabled),
	 .def = "true",
	 .help = "false: tables that match are left out, even where a later pattern matches, too."},
	{.name = "filter_leaving",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct cdc_file_schema, leaving),
	 .def = "drop",
	 .choices = leavings,
	 .help = "An update after which a row no longer meets the filters: drop sends nothing; "
		 "delete sends a delete, also where the log does not say whether the row met them "
		 "before."},
	{.name = "tracking_field", .type = CDC_OPT_LATER, .help = "Finds changes without a log."},
	{.name = "partition_key", .type = CDC_OPT_LATER, .help = "Partitions the destination."},
	{.name = "data_cutoff_timestamp", .type = CDC_OPT_LATER, .help = "Leaves out old rows."},
	{.name = "disable_data_cutoff", .type = CDC_OPT_LATER, .help = "Leaves out none."},
	{0},
};

/* true and false as the API has them, and what else a value may become. */
static const char *const obfuscations[] = {
	[CDC_OBFUSCATE_NONE] = "false",
	[CDC_OBFUSCATE_HASH] = "hash",
	[CDC_OBFUSCATE_MASK] = "mask",
	[CDC_OBFUSCATE_NULL] = "null",
	"true",
	NULL,
};
const struct cdc_opt cdc_file_field_options[] = {
	{.name = "id",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_field, id),
	 .max = 63,
	 .help = "A column, letter for letter as the database has it; \"*\": every column that is "
		 "not listed."},
	{.name = "enabled",
	 .type = CDC_OPT_BOOL,
	 .offset = offsetof(struct cdc_file_field, is_enabled),
	 .def = "true",
	 .help = "false: the column is left out (with \"*\" for the others)."},
	{.name = "obfuscate",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct cdc_file_field, obfuscate),
	 .def = "false",
	 .choices = obfuscations,
	 .help = "What becomes of its values: hash or true: HMAC-SHA256 of the text in hex, with "
		 "the sync's obfuscation_key; mask: \"***\"; null.  NULL stays null."},
	{.name = "output_name",
	 .type = CDC_OPT_STR,
	 .offset = offsetof(struct cdc_file_field, output_name),
	 .min = 1,
	 .max = 255,
	 .help = "What the column is called in records; absent: its name."},
	{.name = "obfuscated",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct cdc_file_field, obfuscated),
	 .def = "false",
	 .choices = obfuscations,
	 .help = "The same as obfuscate, as the API's /schemas name it."},
	{.name = "user_output_name",
	 .type = CDC_OPT_STR,
	 .offset = offsetof(struct cdc_file_field, user_output_name),
	 .max = 255,
	 .help = "The same as output_name, as the API's /schemas name it; \"\": the column's name, "
		 "or output_name."},
	{0},
};

static const char *const functions[] = {
#define X(code, name) [CDC_FILTER_##code] = (name),
	CDC_FILTER_FUNCTIONS(X)
#undef X
		NULL,
};
const struct cdc_opt cdc_file_filter_options[] = {
	{.name = "field_id",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_filter, field),
	 .max = 63,
	 .help = "The column that is looked at; it need not be one that is delivered."},
	{.name = "function",
	 .type = CDC_OPT_ENUM,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_file_filter, function),
	 .choices = functions,
	 .help = "What its value must be; see the README."},
	{0},
};
