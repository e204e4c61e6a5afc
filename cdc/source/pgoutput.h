/*
 * pgoutput.h - one message of the output plugin pgoutput, taken apart.
 *
 * A pure function from bytes to a description: it knows no server, no tables and
 * no order of messages.  What it returns points into the message and into the
 * decoder, and is valid until the next decode.  Nothing in the message is
 * trusted: a length, count or kind byte that the format does not allow, a missing
 * NUL and bytes left over at the end are CDC_PROTO.
 *
 * Format: PostgreSQL docs "Logical Replication Message Formats", protocol
 * version 1, text mode; encoder src/backend/replication/logical/proto.c.
 *
 * Threads: a decoder belongs to its caller.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_PGOUTPUT_H
#define CDC_SOURCE_PGOUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/lsn.h"
#include "cdc/record/writer.h"

enum pgo_kind {
	PGO_NOTHING, /* no bytes: PostgreSQL 13 and 14 after a vanished origin */
	PGO_BEGIN,
	PGO_COMMIT,
	PGO_ORIGIN,
	PGO_RELATION,
	PGO_TYPE,
	PGO_INSERT,
	PGO_UPDATE,
	PGO_DELETE,
	PGO_TRUNCATE,
	PGO_MESSAGE,
	PGO_STREAM_ABORT, /* PostgreSQL 18 sends a lone one that means nothing in protocol 1 */
};

struct pgo_begin {
	cdc_lsn commit_lsn; /* start of the commit record */
	int64_t commit_us;  /* since 1970 */
	uint32_t xid;
};

struct pgo_commit {
	cdc_lsn commit_lsn, end_lsn;
	int64_t commit_us; /* since 1970 */
};

struct pgo_column {
	const char *name;
	uint32_t type;    /* OID */
	int32_t modifier; /* -1: none */
	bool is_identity; /* part of the replica identity */
};

struct pgo_relation {
	uint32_t relid;
	const char *schema, *name;
	char identity; /* relreplident: d default, n nothing, f full, i index */
	const struct pgo_column *columns;
	size_t n;
};

/* Which old row a change carries. */
enum pgo_old {
	PGO_OLD_NONE,
	PGO_OLD_KEY,  /* 'K': only the identity's columns are real, others are sent as null */
	PGO_OLD_FULL, /* 'O' */
};

/* Insert: row; update: row and perhaps old; delete: old. */
struct pgo_change {
	uint32_t relid;
	enum pgo_old old_kind;
	struct cdc_value *old, *row; /* the caller may overwrite them */
	size_t old_n, row_n;
};

struct pgo_truncate {
	const uint32_t *relids;
	size_t n;
	bool is_cascade, is_restart_identity;
};

struct pgo_logical_message {
	bool is_transactional;
	cdc_lsn lsn;
	const char *prefix;
	const uint8_t *bytes;
	uint32_t len;
};

struct pgo_message {
	enum pgo_kind kind;
	union {
		struct pgo_begin begin;
		struct pgo_commit commit;
		struct pgo_relation relation;
		struct pgo_change change;
		struct pgo_truncate truncate;
		struct pgo_logical_message message;
		const char *origin;
	} as;
};

/* Arrays that are used again from message to message; as long as the widest one so far. */
struct pgo_decoder {
	struct cdc_value *old, *row;
	size_t old_cap, row_cap;
	struct pgo_column *columns;
	size_t column_cap;
	uint32_t *relids;
	size_t relid_cap;
};

void pgo_init(struct pgo_decoder *d);
void pgo_clear(struct pgo_decoder *d);

/* Takes a message of n bytes apart.  CDC_PROTO, CDC_NOMEM: *ret_message is not to be used.
 * Arrays never grow beyond one entry per byte of the message, or 65,535 columns. */
enum cdc_code pgo_decode(struct pgo_decoder *d, const void *bytes, size_t n,
			 struct pgo_message *ret_message, struct cdc_err *err) CDC_CHECK;

/* "update": for error texts. */
const char *pgo_kind_name(enum pgo_kind kind);

#endif
