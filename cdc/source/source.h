/*
 * source.h - one replication slot of a PostgreSQL database, read as records.
 *
 * The capture loop (cdc/pipeline/capture.c) drives it: connect looks at the
 * server and makes what is missing and allowed, start begins the stream at a
 * position the caller has made sure of, read turns what the socket holds into
 * records, status tells the server what is durable.  A source never reconnects by
 * itself and never decides what may be confirmed.
 *
 * Protocol: PostgreSQL docs "Streaming Replication Protocol" and "Logical
 * Replication Message Formats"; encoder src/backend/replication/logical/proto.c.
 * pgoutput, protocol 1, text mode, PostgreSQL 13 to 18.
 *
 * Threads: a source belongs to its caller; settings are constant.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_SOURCE_H
#define CDC_SOURCE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/base/lsn.h"
#include "cdc/base/opt.h"
#include "cdc/base/selection.h"
#include "cdc/base/stop.h"
#include "cdc/record/batch.h"

/* What messages are filed under: this and their prefix.  No table can be there: PostgreSQL keeps
 * schemas whose names begin with pg_ for itself. */
#define CDC_MESSAGE_SCHEMA     "pg_message."
#define CDC_MESSAGE_PREFIX_MAX 200 /* bytes of one that can be asked for */

/* When changes that were not read can no longer be had. */
enum cdc_on_gap { CDC_ON_GAP_STOP, CDC_ON_GAP_RESYNC };

/* The `configuration` of a connection of type postgresql. */
struct cdc_source_settings {
	char *hostname; /* names, addresses or directories of Unix sockets, see hosts.h */
	uint64_t port;
	char *database, *username, *password;
	bool ssl;
	char *ca_cert; /* PEM text or a path; with it, certificate and name are verified */
	char *client_certificate, *client_key; /* PEM text or paths */
	bool change_detection;
	char *publication;
	unsigned on_gap;     /* enum cdc_on_gap */
	uint64_t wal_budget; /* bytes the server may keep for the slot, where it sets no limit */
	struct cdc_opt_strs message_prefixes; /* n 0: messages are not asked for */
	uint64_t max_record_bytes; /* JSON; of a larger record there is a stand-in (batch.h) */
};
extern const struct cdc_opt cdc_source_options[];

/* CDC_CONFIG: hostname is no list of hosts. */
enum cdc_code cdc_source_check_hosts(const struct cdc_source_settings *settings,
				     struct cdc_err *err) CDC_CHECK;

/* What a connection's reader is to read.  Owned by the caller; outlives the source. */
struct cdc_source_plan {
	const struct cdc_source_settings *settings;
	const char *slot;          /* [a-z0-9_]{1,63} */
	bool may_create;           /* slot and publication, when they are missing */
	bool was_read;             /* preflight: the slot was, so that a missing one is a gap */
	const char *const *tables; /* "public.orders" or a pattern: what the syncs ask for; n 0: the
				      whole publication.  A pattern stands for tables of the
				      publication; when that is to be made, for all that suit */
	size_t table_n;
	const struct cdc_selection *selection; /* for a copy: leaves out more; NULL: nothing */
	const struct cdc_stop
		*stop; /* once set, ends every wait: CDC_STOPPED; NULL: nothing does */
};

/* A table that is not captured, and why. */
struct cdc_left_out {
	char *table;  /* "public.orders" */
	char *reason; /* one sentence */
	char *remedy; /* the exact SQL */
};

struct cdc_source_info {
	char system_id[24];    /* decimal */
	uint32_t timeline;     /* current */
	bool is_standby;       /* in recovery: its end of WAL may still follow the primary's */
	int server_version;    /* 150018 */
	bool slot_was_created; /* by this connect */
	bool publication_was_created;
	cdc_lsn slot_start;  /* consistent point if created now, else confirmed_flush_lsn */
	cdc_lsn flush_lsn;   /* end of WAL on the server */
	char numbering[256]; /* every option that changes the numbering of records, as text */
	const struct cdc_left_out *left_out; /* valid until the next connect or close */
	size_t left_out_n;
};

struct cdc_source;

enum cdc_code cdc_source_new(const struct cdc_source_plan *plan, struct cdc_source **ret,
			     struct cdc_err *err) CDC_CHECK;
void cdc_source_free(struct cdc_source *s); /* disconnects without ceremony */

/*
 * Connects (10 s at most), looks at server, role, slot, publication and tables,
 * creates what is missing and allowed.  must_exist: the slot was read before, so
 * a missing one is CDC_GAP and is never created.  CDC_CONFIG, CDC_AUTH and
 * CDC_MISSING carry the exact remedy; CDC_HELD: another process reads the slot;
 * CDC_IO, CDC_TIMEOUT: try again.  A table whose UPDATE or DELETE would begin to
 * fail by being published is left out of the publication and named in the info.
 * After an error the info holds what was learned before it: system_id is empty, or
 * it, timeline and flush_lsn are right.
 */
enum cdc_code cdc_source_connect(struct cdc_source *s, bool must_exist,
				 struct cdc_source_info *ret_info, struct cdc_err *err) CDC_CHECK;

/* Does the server's history hold what was read on timeline, everything before lsn?  *ret_end: where
 * it left that timeline; 0: it never was on it.  After connect. */
bool cdc_source_holds(const struct cdc_source *s, uint32_t timeline, cdc_lsn lsn, cdc_lsn *ret_end);

/* The timeline on which what begins at lsn was written.  After connect. */
uint32_t cdc_source_timeline_at(const struct cdc_source *s, cdc_lsn lsn);

/*
 * Between connect and start: a table's newest schema record among those that were
 * taken; connect forgets them all.  CDC_NOMEM.  See change.h for what it is good for.
 */
enum cdc_code cdc_source_know(struct cdc_source *s, struct cdc_view schema,
			      struct cdc_err *err) CDC_CHECK;

/*
 * START_REPLICATION at lsn.  generation: the top byte of every epoch.  Records
 * of transactions whose end_lsn is at or below lsn are not expected and not made.
 */
enum cdc_code cdc_source_start(struct cdc_source *s, cdc_lsn lsn, unsigned generation,
			       struct cdc_err *err) CDC_CHECK;

/*
 * Could the stream be had as it was numbered before (of a former info of this slot)?
 * CDC_CONFIG: this program cannot; CDC_MISSING: the publication it was read by is
 * gone; else it could not be learned.  After connect.
 */
enum cdc_code cdc_source_can_start_as(struct cdc_source *s, const char *numbering,
				      struct cdc_err *err) CDC_CHECK;

/* As start, with that numbering, up to and including the transaction that commits at until: then
 * read answers is_at_end and reads no more. */
enum cdc_code cdc_source_start_as(struct cdc_source *s, cdc_lsn lsn, unsigned generation,
				  const char *numbering, cdc_lsn until,
				  struct cdc_err *err) CDC_CHECK;

/* What poll() waits for: the socket, and POLLIN or POLLIN|POLLOUT. */
int cdc_source_fd(const struct cdc_source *s);
short cdc_source_events(const struct cdc_source *s);

struct cdc_source_read {
	bool is_dry;          /* the socket held nothing more; else call again */
	bool is_at_end;       /* of what start_as was to read; nothing is read any more */
	bool reply_requested; /* the server wants a status update now */
	bool is_stopping; /* a storm of keepalives: the server shuts down and waits for us; hang up
			   */
	cdc_lsn idle_lsn; /* a keepalive arrived while no transaction was open: everything before
			     this was read; 0: none */
	cdc_lsn received_lsn;  /* highest end of WAL the server told us of */
	uint64_t transactions; /* commits read by this call */
	uint32_t epoch;        /* of the stream at this point */
	/* Written as text, in this call, for want of knowledge: columns' types that the database
	 * does not have any more (unknown_type is the OID of the last), and values of composite
	 * types with other attributes than the type is known to have had. */
	uint64_t unknown_types, odd_values;
	uint64_t too_large; /* records that were: the batch has stand-ins for them */
	uint32_t unknown_type;
};

/*
 * Takes what the socket holds, without waiting, until it is dry or the batch has
 * reached target_bytes of JSON or target_records.  Appends records and
 * transaction ends to the batch.  A record that passes the batch's maximum is
 * taken into the next one: CDC_BUSY, call again with an empty batch.
 * Every error but CDC_BUSY ends the connection; CDC_IO, CDC_TIMEOUT: reconnect.
 */
enum cdc_code cdc_source_read(struct cdc_source *s, struct cdc_batch *batch, size_t target_bytes,
			      size_t target_records, struct cdc_source_read *ret,
			      struct cdc_err *err) CDC_CHECK;

/*
 * Is it time to stop and start again, at durable?  libpq keeps the room of the
 * largest message for as long as the connection lives.  True once a message above
 * 16 MiB was read, what it was part of has ended below durable, nothing is open,
 * and none came for 2 s.
 */
bool cdc_source_is_bloated(const struct cdc_source *s, cdc_lsn durable);

/* Sends a status update: write and flush (0: nothing durable yet).  Never waits; the rest goes out
 * when fd is writable.  Own clock: at most every 3 s is enough, wal_sender_timeout is 10 s. */
enum cdc_code cdc_source_status(struct cdc_source *s, cdc_lsn received, cdc_lsn flush,
				struct cdc_err *err) CDC_CHECK;

/* Milliseconds since anything came from the server; above 15,000 the link is dead. */
uint64_t cdc_source_silent_ms(const struct cdc_source *s);

/* pg_replication_slots.wal_status; unknown: the slot is not there, or has no position yet. */
enum cdc_wal_status {
	CDC_WAL_UNKNOWN,
	CDC_WAL_RESERVED,   /* within max_wal_size */
	CDC_WAL_EXTENDED,   /* above it, kept for slots */
	CDC_WAL_UNRESERVED, /* no longer kept: lost with the next checkpoint */
	CDC_WAL_LOST,
};

/* "reserved", ...; "unknown" */
const char *cdc_wal_status_name(enum cdc_wal_status status);

/* How our slot stands. */
struct cdc_slot_report {
	enum cdc_wal_status wal_status;
	uint64_t retained_bytes; /* WAL that the server keeps for the slot (and others, maybe) */
	uint64_t
		unconfirmed_bytes; /* of that, what is not confirmed; the rest is kept for open
				      transactions and until the server notes its next checkpoint */
	bool has_limit;            /* max_slot_wal_keep_size is set */
	uint64_t safe_bytes;       /* with a limit: what may be written before the slot is lost */
	uint64_t budget_bytes;     /* the server's limit, else wal_budget */
	unsigned used_percent;     /* retained of budget; 100 from unreserved on */
	char invalidation[40];     /* "wal_removed", "rows_removed", ...; "" while it is valid */
	uint64_t spilled, spilled_bytes; /* transactions that the server wrote to its own disk to
					    decode them, since its statistics were reset (14+) */
	bool is_in_recovery;             /* the server is a standby */
	uint32_t timeline;               /* that it writes; 0: a standby writes none */
	char sync_state[16];             /* our own, "" unknown */
	char standby_names[256];         /* synchronous_standby_names, perhaps cut */
};

/* The step of the budget that is passed: 90, 70, 50 (percent), or 0. */
unsigned cdc_slot_step(unsigned used_percent);

/*
 * Asks, every 5 s from the start of the stream on and on a second connection, how
 * the slot stands; never waits, so that the stream goes on meanwhile.  CDC_BUSY:
 * nothing new.  CDC_OK: *ret is new.  CDC_CONFIG, with the setting to change: we are
 * a synchronous standby, every commit of the application would wait for us.
 * Everything else says why it could not be learned; the next round asks again.
 */
enum cdc_code cdc_source_watch(struct cdc_source *s, struct cdc_slot_report *ret,
			       struct cdc_err *err) CDC_CHECK;

#define CDC_HURT_MAX 16 /* that are told of at a time */
/* A table of the publication that lost its identity: UPDATE and DELETE of it fail. */
struct cdc_hurt_table {
	char name[128];          /* "public.orders", as records say it */
	char sql_name[264];      /* quoted where it has to be */
	char hurt_sql_name[264]; /* it, or the partition of it that has none */
};
struct cdc_hurt_report {
	size_t n;
	struct cdc_hurt_table tables[CDC_HURT_MAX]; /* by name */
};

/*
 * Asks the same way, every 5 s and never while watch has a question under way,
 * which tables hurt.  CDC_BUSY: nothing new; CDC_OK: *ret is.  Everything else: it
 * could not be learned, the next round asks again.
 */
enum cdc_code cdc_source_watch_tables(struct cdc_source *s, struct cdc_hurt_report *ret,
				      struct cdc_err *err) CDC_CHECK;

/* What was found to be new about the publication since the look before. */
enum cdc_publication_news_kind {
	CDC_NEWS_PUBLICATION_GONE,
	CDC_NEWS_PUBLICATION_BACK,
	CDC_NEWS_PUBLICATION_CHANGED, /* operations, partitions by their root, generated columns */
	CDC_NEWS_TABLE_LEFT,          /* and is still there: its changes do not come any more */
	CDC_NEWS_TABLE_BACK,          /* one of those, or of those that left between two looks */
	CDC_NEWS_TABLE_JOINED,
	CDC_NEWS_TABLE_DROPPED,
	CDC_NEWS_TABLE_RENAMED, /* its records have another name */
	CDC_NEWS_FILTER_CHANGED,
	CDC_NEWS_COLUMNS_CHANGED,
};
struct cdc_publication_news {
	enum cdc_publication_news_kind kind;
	char table[128];  /* "public.orders"; "" for the publication itself */
	char text[320];   /* one sentence */
	char remedy[480]; /* SQL or a setting; may be empty */
};
typedef void cdc_publication_news_fn(void *arg, const struct cdc_publication_news *n);

struct cdc_publication_report {
	bool is_gone;   /* it is not there */
	bool is_new;    /* something is different: the look is to be put again */
	size_t table_n; /* in it, partitions included */
	size_t left_n;  /* tables that left it while it was read, are still there and still out */
	size_t lost_n;  /* operations that stopped coming meanwhile */
};

/* Does the plan ask for a table of this name, by itself or by a pattern? */
bool cdc_source_asks_for(const struct cdc_source_plan *plan, const char *table);

/*
 * Asks the same way, every 5 s, what the publication is, and calls fn for each
 * difference from the look before, also of a former stream; only of tables that the
 * plan asks for.  CDC_BUSY: nothing was looked at; CDC_OK: *ret is new.  Everything
 * else: as for watch_tables.
 */
enum cdc_code cdc_source_watch_publication(struct cdc_source *s, cdc_publication_news_fn *fn,
					   void *arg, struct cdc_publication_report *ret,
					   struct cdc_err *err) CDC_CHECK;

/* The tables that left the publication and are still out, as a text that the next process gives
 * back before its first start; a table of it that is published then has come back. */
#define CDC_LEFT_TEXT_MAX (100u << 10)
void cdc_source_put_left(const struct cdc_source *s, struct cdc_buf *out);
void cdc_source_recall_left(struct cdc_source *s, const char *text);
/* The same of the last look, after recall_left: what became of the publication since is told at the
 * first look then. */
#define CDC_LOOK_TEXT_MAX (8u << 20) /* about 100,000 tables */
void cdc_source_put_look(const struct cdc_source *s, struct cdc_buf *out);
void cdc_source_recall_look(struct cdc_source *s, const char *text);

/* Takes a table out of the publication; waits at most 1 s for its lock and 5.5 s in all.
 * CDC_TIMEOUT: somebody holds the table; CDC_CONFIG: our role may not. */
enum cdc_code cdc_source_unpublish(struct cdc_source *s, const struct cdc_hurt_table *table,
				   struct cdc_err *err) CDC_CHECK;

/* What poll() waits for on their behalf; -1: nothing at the moment. */
int cdc_source_watch_fd(const struct cdc_source *s);
short cdc_source_watch_events(const struct cdc_source *s);

/* NULL, or the server's words for why nothing comes at the moment: a standby in
 * synchronized_standby_slots has not confirmed yet, so that no change could be read that a failover
 * would undo.  Valid until the next read. */
const char *cdc_source_awaited_standby(const struct cdc_source *s);

/*
 * Did the server end the connection that watch keeps open?  A server that
 * shuts down waits until we have taken all it has to send; who reads nothing at
 * the moment learns of it here, and hangs up.
 */
bool cdc_source_is_leaving(struct cdc_source *s);

/* Ends the stream: a last status update, CopyDone, close; at most 2 s. */
void cdc_source_stop(struct cdc_source *s, cdc_lsn flush);

/* --- one-off work of the command line, on a connection of its own --------------------- */

enum cdc_verdict { CDC_PASS, CDC_WARN, CDC_FAIL };
struct cdc_finding {
	enum cdc_verdict verdict;
	char name[32];    /* "wal_level", "role", "slot", "publication", "replica_identity" */
	char text[400];   /* what was found */
	char remedy[768]; /* exact SQL or setting; may be empty */
};
typedef void cdc_finding_fn(void *arg, const struct cdc_finding *f);

/* Every preflight test of a source; calls found once per test, changes nothing on the server.
 * Stops early when the connection cannot be had (that is a finding, too). */
void cdc_source_preflight(const struct cdc_source_plan *plan, cdc_finding_fn *found, void *arg);

/* Drops the slot and, when is_publication_ours, the publication; missing ones are fine.
 * CDC_HELD: a process still reads the slot. */
enum cdc_code cdc_source_uninstall(const struct cdc_source_plan *plan, bool is_publication_ours,
				   struct cdc_err *err) CDC_CHECK;

/* As connect + start, but on a temporary slot that ends with the connection (`walpost tail`). */
enum cdc_code cdc_source_start_temporary(struct cdc_source *s, struct cdc_source_info *ret_info,
					 struct cdc_err *err) CDC_CHECK;

#endif
