/*
 * buffer.h - the durable store between capture and delivery.
 *
 * One capture thread appends; any number of delivery threads read.  The sentence
 * on which everything hangs: an LSN is confirmed to PostgreSQL only after
 * durable() returned it.
 *
 * Order: records have rising ids within a sequence.  The stream of a slot is
 * one sequence (CDC_SEQ_STREAM); every copy of a table for one sync is another,
 * with its own last id.  A record is dropped as already there if and only if its
 * id is not above the last id of its sequence and has the same epoch; a lower
 * epoch is CDC_EPOCH.  That makes "start again at durable() and append whatever
 * the server sends" safe after any crash: pieces of a transaction that was open
 * are recognised, the rest of it is taken.
 *
 * Pieces: a transaction may arrive in several batches.  The records of an open
 * piece may be read and delivered at once (the source sends only what is
 * committed); only durable() waits for the end of the transaction.
 *
 * Two implementations, cdc/buffer/local.c and one on Kafka; the contract suite
 * tests/contract/buffer_contract.c runs on each.
 *
 * Threads: append, progress, batch_new, durable, event_fd: the capture thread.
 * A reader: the one thread that opened it.  commit, group_*: any.  stats: any.
 * Layer: buffer (base, record).
 */
#ifndef CDC_BUFFER_BUFFER_H
#define CDC_BUFFER_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/log.h"
#include "cdc/base/metrics.h"
#include "cdc/record/batch.h"

struct cdc_buffer;
struct cdc_buffer_reader;
struct cdc_lease; /* holds one chunk in memory for a reader */

#define CDC_SEQ_STREAM 0u /* copies have sequences from 1, given by the caller */

enum cdc_on_full { CDC_ON_FULL_STOP, CDC_ON_FULL_SUSPEND };

struct cdc_buffer_settings {
	const char *dir;       /* data_dir; exists, is ours, is locked by the caller */
	const char *slot;      /* names the file: buffer-<slot>.db */
	uint64_t max_bytes;    /* database and WAL file together; at least 16 MiB */
	uint64_t retention_ms; /* delivered records stay this long, unless room is needed */
	enum cdc_on_full on_full;
	uint64_t queue_bytes;               /* appended, not yet durable; then BUSY.  0: 8 MiB */
	uint64_t cache_bytes;               /* decompressed chunks kept for readers.  0: 8 MiB */
	const char *vfs;                    /* SQLite VFS to use; NULL: the default */
	struct cdc_buffer_metrics *metrics; /* not NULL; outlives the buffer */
};

/* Where a new group starts. */
enum cdc_start_at { CDC_START_DURABLE_END, CDC_START_EARLIEST, CDC_START_TIME, CDC_START_ID };

struct cdc_start {
	enum cdc_start_at at;
	int64_t time_us;  /* CDC_START_TIME: the first record committed at or after it */
	struct cdc_id id; /* CDC_START_ID: the first record above it */
};

/* A set of (stream, id); the embedded buffer has one. */
#define CDC_POSITION_MAX 256
struct cdc_position {
	size_t n;
	struct cdc_stream_position *streams; /* owned by whoever holds the position */
};

/* Records that a group will never get. */
struct cdc_gap {
	struct cdc_id first, last; /* inclusive; zero first = none */
};

struct cdc_buffer_state {
	struct cdc_id last_id; /* of the stream sequence; zero: empty since for ever */
	cdc_lsn durable;       /* 0: nothing yet */
	uint32_t epoch;        /* of last_id or of the last progress; 0: nothing yet */
};

struct cdc_buffer_stats {
	uint64_t bytes;   /* on disk: database and WAL file */
	uint64_t records; /* retained, delivered ones included */
	struct cdc_id first_id, last_id;
	const char *holder; /* name of the group furthest behind, or NULL; valid until the next
			       group_add */
	bool is_full;       /* undelivered records fill the budget */
};

/* What one read returned: records of at most one chunk. */
struct cdc_read {
	struct cdc_lease
		*lease; /* give back with release when all its records are done; NULL when n is 0 */
	const struct cdc_batch *batch; /* valid while the lease is held */
	const uint32_t
		*index; /* n indices into batch->records: what the reader asked for, in order */
	size_t n;
	struct cdc_stream_position through; /* how far this read has come, skipped records included;
					       valid also when n is 0 */
	const struct cdc_tx_end *ends; /* ends of transactions that this read passed, none left out
					  of one that records were returned of; count is an
					  index into batch->records and not to be used otherwise */
	size_t end_n;
	bool is_at_end; /* there was nothing more to read at that moment */
};

/* What the files of a buffer hold. */
struct cdc_buffer_look {
	struct cdc_buffer_state state;
	uint64_t bytes; /* on disk */
};

typedef enum cdc_code cdc_schema_fn(void *arg, struct cdc_view schema, struct cdc_err *err);

struct cdc_buffer_ops {
	const char *name; /* "local" */

	/*
	 * Opens or creates the buffer, recovers it after a crash, starts its writer
	 * thread.  CDC_HELD: another process has it.  CDC_CORRUPT names the file and
	 * what to do.  Called by main before any other thread.
	 */
	enum cdc_code (*open)(const struct cdc_buffer_settings *s, struct cdc_buffer **ret,
			      struct cdc_err *err);

	/*
	 * What the files of a slot's buffer hold, without a buffer: for `walpost check`,
	 * also beside the process that works with them.  Nothing is made, recovered or
	 * written.  CDC_MISSING: there are none; CDC_CONFIG, CDC_CORRUPT, CDC_IO.
	 */
	enum cdc_code (*look)(const char *dir, const char *slot, struct cdc_buffer_look *ret,
			      struct cdc_err *err);

	/* Writes what was appended, stops the writer, closes.  Every reader is closed before.  NULL
	 * is fine. */
	void (*close)(struct cdc_buffer *b);

	/* An empty batch of up to max_bytes of JSON from the buffer's pool, or NULL. The caller
	 * owns it until append took it; cdc_batch_free also does. */
	struct cdc_batch *(*batch_new)(struct cdc_buffer *b, size_t max_bytes);

	/*
	 * Hands a batch over; on CDC_OK it belongs to the buffer.  It may hold whole
	 * transactions, end in an open one (a piece), or hold ends only.  Never
	 * waits: CDC_BUSY means that nothing was taken and event_fd will become
	 * readable when it is worth trying again.  CDC_EPOCH: the batch's epoch is
	 * below the sequence's.  Any other error is the writer's, and final until the
	 * buffer is opened again (CDC_FULL heals by itself and is answered as BUSY;
	 * the metrics and the writer's error tell).
	 */
	enum cdc_code (*append)(struct cdc_buffer *b, uint32_t sequence, struct cdc_batch *batch,
				struct cdc_err *err);

	/*
	 * Everything of the stream before lsn has been appended.  Goes through the
	 * queue like a batch (CDC_BUSY), is written with the next group commit, alone
	 * at most once a second, at once when urgent.  epoch: that of the stream.  With
	 * a higher generation than what was appended, lsn is where the stream begins
	 * anew: durable() becomes it, also when it was higher.
	 */
	enum cdc_code (*progress)(struct cdc_buffer *b, cdc_lsn lsn, uint32_t epoch, bool is_urgent,
				  struct cdc_err *err);

	/*
	 * The higher of the end_lsn of the last complete durable transaction and the
	 * last durable progress.  Never goes back while the buffer is open, nor over
	 * close, crash and open, but by a progress that begins a generation.
	 */
	cdc_lsn (*durable)(struct cdc_buffer *b);

	/* The stream's state as of now (what was appended and is not yet durable does not count).
	 */
	void (*state)(struct cdc_buffer *b, struct cdc_buffer_state *ret);

	/*
	 * Calls fn with the newest schema record of every table that has one in the
	 * stream as of its last appended id.  The view is valid during the call.  What
	 * fn answers ends the calls, unless CDC_OK, and is returned.  The capture
	 * thread, which so learns what was said of a table before.
	 */
	enum cdc_code (*schemas)(struct cdc_buffer *b, cdc_schema_fn *fn, void *arg,
				 struct cdc_err *err);

	/* Becomes readable when durable() rose, a BUSY may be tried again, or the writer failed.
	 * The capture thread drains it (cdc_event_drain). */
	int (*event_fd)(struct cdc_buffer *b);

	/* Why the writer cannot write at the moment (disk full, failed fsync), or CDC_OK. */
	enum cdc_code (*error)(struct cdc_buffer *b, struct cdc_err *err);

	/*
	 * Makes a group known before its first reader.  position: what the store has
	 * for it, n 0 when the group is new; start then says where it begins, and
	 * *ret_position (1 stream) where that is, for the store to remember.  The group
	 * holds every record above its position.  A recorded gap (suspension) is
	 * returned in *ret_gap; its reads are CDC_GAP.
	 */
	enum cdc_code (*group_add)(struct cdc_buffer *b, const char *group,
				   const struct cdc_position *position,
				   const struct cdc_start *start,
				   struct cdc_stream_position *ret_position,
				   struct cdc_gap *ret_gap, struct cdc_err *err);

	/* The group lets go of its records and is forgotten, gap included. */
	enum cdc_code (*group_drop)(struct cdc_buffer *b, const char *group, struct cdc_err *err);

	/* The store has committed this position for the group: what lies at or below may be
	 * evicted. The lowest of the sync's and of every table's that is not streaming. */
	void (*commit)(struct cdc_buffer *b, const char *group,
		       const struct cdc_position *position);

	/* Replay: the group's position becomes that of `to`, unless that is above it: nothing is
	 * skipped.  *ret_position: where it is now.  Its readers are opened again by the caller. */
	enum cdc_code (*seek)(struct cdc_buffer *b, const char *group, const struct cdc_start *to,
			      struct cdc_stream_position *ret_position, struct cdc_err *err);

	/*
	 * Opens a reader of a group that begins above from (which may lie above or
	 * below everything that is retained) and returns only records of these
	 * tables ("public.orders"; n 0: all).  A table's current `schema` record, if
	 * there is one, precedes its first row after every open.
	 */
	enum cdc_code (*reader_open)(struct cdc_buffer *b, const char *group,
				     const struct cdc_position *from, const char *const *tables,
				     size_t table_n, struct cdc_buffer_reader **ret,
				     struct cdc_err *err);
	void (*reader_close)(struct cdc_buffer_reader *r); /* gives back every lease */

	/*
	 * The next records, of one chunk.  Never waits for the writer; may read the
	 * disk.  n 0 with is_at_end: nothing there; reader_fd becomes readable when
	 * there is.  n 0 without is_at_end: something was skipped, read again.
	 * CDC_GAP: the group is suspended, err says from which to which id.
	 */
	enum cdc_code (*read)(struct cdc_buffer_reader *r, struct cdc_read *ret,
			      struct cdc_err *err);
	void (*release)(struct cdc_buffer_reader *r, struct cdc_lease *lease);
	/* What a read would answer about the group, without reading: CDC_OK or CDC_GAP. */
	enum cdc_code (*check)(struct cdc_buffer_reader *r, struct cdc_err *err);

	/* Readable when a read that found the end may find more.  The reader's thread drains it. */
	int (*reader_fd)(struct cdc_buffer_reader *r);

	/* From any thread. */
	void (*stats)(struct cdc_buffer *b, struct cdc_buffer_stats *ret);
};

extern const struct cdc_buffer_ops cdc_buffer_local; /* cdc/buffer/local.c */

#endif
