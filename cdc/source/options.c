/* Keys of the configuration of a connection of type postgresql. */
#include "cdc/source/source.h"

#define AT(member) offsetof(struct cdc_source_settings, member)

static const char *const on_gap[] = {
	[CDC_ON_GAP_STOP] = "stop",
	[CDC_ON_GAP_RESYNC] = "resync",
	NULL,
};

const struct cdc_opt cdc_source_options[] = {
	{.name = "hostname",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = AT(hostname),
	 .max = 2048,
	 .help = "Name or address of the server, or the directory of its Unix socket. Several, "
		 "with or without ports of their own (db1,db2:5433): the primary among them is "
		 "read, and after a failover the new one."},
	{.name = "port",
	 .type = CDC_OPT_UINT,
	 .offset = AT(port),
	 .def = "5432",
	 .min = 1,
	 .max = 65535,
	 .help = "Port of the server itself; logical replication does not pass through a pooler."},
	{.name = "database",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = AT(database),
	 .max = 63,
	 .help = "Database whose changes are read."},
	{.name = "username",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = AT(username),
	 .max = 63,
	 .help = "Role with LOGIN and REPLICATION; to make the publication it owns the tables."},
	{.name = "password",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(password),
	 .max = 1024,
	 .help = "Its password."},
	{.name = "ssl",
	 .type = CDC_OPT_BOOL,
	 .offset = AT(ssl),
	 .def = "true",
	 .help = "Whether the connection has to be TLS."},
	{.name = "ca_cert",
	 .type = CDC_OPT_STR,
	 .offset = AT(ca_cert),
	 .max = 1 << 20,
	 .help = "Certificates (PEM text or a path) that the server's is verified with, its name "
		 "included; without it TLS only encrypts."},
	{.name = "client_certificate",
	 .type = CDC_OPT_STR,
	 .offset = AT(client_certificate),
	 .max = 1 << 20,
	 .help = "Client certificate: PEM text or a path."},
	{.name = "client_key",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(client_key),
	 .max = 1 << 20,
	 .help = "Its key: PEM text or a path."},
	{.name = "change_detection",
	 .type = CDC_OPT_BOOL,
	 .offset = AT(change_detection),
	 .def = "true",
	 .help = "Reads changes by logical replication; this version knows no other way."},
	{.name = "publication",
	 .type = CDC_OPT_STR,
	 .offset = AT(publication),
	 .def = "walpost",
	 .min = 1,
	 .max = 63,
	 .help = "Publication that is read; made when it is missing and the role may."},
	{.name = "wal_budget",
	 .type = CDC_OPT_SIZE,
	 .offset = AT(wal_budget),
	 .def = "10GiB",
	 .min = 64 << 20,
	 .help = "WAL that the server may keep for the slot; logs, /healthz and /status.txt warn "
		 "when "
		 "50, 70 and 90 % of it are used. Where max_slot_wal_keep_size is set on the "
		 "server, "
		 "that limit counts instead."},
	{.name = "max_record_bytes",
	 .type = CDC_OPT_SIZE,
	 .offset = AT(max_record_bytes),
	 .def = "64MiB",
	 .min = 4 << 10,
	 .max = 200 << 20,
	 .help = "Most bytes of one record, as JSON. A larger one is not sent: it becomes a dead "
		 "letter with its id, key and size, and what follows goes on."},
	{.name = "on_gap",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(on_gap),
	 .choices = on_gap,
	 .def = "stop",
	 .help = "What to do when the slot no longer has changes that were not read: stop, with "
		 "the size of the gap, until `walpost resync SYNC --gap`; or resync at once: the "
		 "gap is noted, the slot made anew, the tables of its syncs copied again. Rows "
		 "that were deleted in the gap stay at the destination."},
	{.name = "message_prefixes",
	 .type = CDC_OPT_STRS,
	 .offset = AT(message_prefixes),
	 .max = 64,
	 .help = "Prefixes of the messages of pg_logical_emit_message (PostgreSQL 14 and newer) "
		 "that "
		 "become records; a sync gets them when its operations name message. The first "
		 "one, or the removal of the last, raises the generation in the ids."},
	{0},
};
