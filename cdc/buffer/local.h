/*
 * local.h - what the files of the embedded buffer share; nobody else includes it.
 *
 * Every appended batch becomes a segment with a number of its own: it covers the
 * ordinals [first, first + span), which count records from the buffer's creation
 * (a segment that holds nothing but ends of transactions takes one ordinal).
 * Ordinals are where readers stand inside the process; what leaves the process
 * is ids.
 *
 *     evicted | chunks on disk ............ | appended, not yet durable
 *                       mem[0] ... recent   | mem[mem_durable_n] ...
 *                                  durable_next ^                 next ^
 *
 * The writer merges small batches into chunks of about a quarter of a MiB and
 * puts the merged segment in their place; ordinals do not change.
 *
 * Threads: everything in struct cdc_buffer under "guarded by mu" is; what the
 * writer owns only the writer touches (and open before and close after it).
 * Only the writer removes or replaces entries of mem, so its indices hold.
 * Layer: buffer.
 */
#ifndef CDC_BUFFER_LOCAL_H
#define CDC_BUFFER_LOCAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cdc/base/compress.h"
#include "cdc/buffer/buffer.h"

#define CDC_LOCAL_NAME_MAX  4096
#define CDC_LOCAL_BATCH_MAX (800u << 20) /* SQLite holds less than 1 GB in one row */

/* --- the database (local_db.c) ------------------------------------------------------ */

/* A row of the table chunk; the pointers are valid until the next call on the same database. */
struct cdc_local_chunk {
	uint64_t first, span, records;
	uint32_t sequence;
	struct cdc_id first_id, last_id;
	int64_t max_us;       /* highest commit time of the stream so far, this chunk included */
	int64_t written_us;   /* wall clock */
	uint64_t cost_before; /* bytes of all chunks that were ever written before this one */
	uint64_t records_before;
	unsigned format; /* enum cdc_compress_format */
	uint64_t raw_len;
	uint32_t checksum;  /* of body */
	const void *tables; /* hashes of the names, 8 bytes each */
	size_t tables_len;
	const void *body;
	size_t body_len;
};

/* What a sequence has come to. */
struct cdc_local_sequence {
	uint32_t number;
	struct cdc_id last_id;
	uint32_t epoch;
	bool is_open;    /* its last transaction has no end yet */
	cdc_lsn end_lsn; /* of the last end; not stored: the stream's durable LSN stands for it */
};

/* The state that outlives eviction: one row, written with every commit. */
struct cdc_local_state {
	uint64_t turn;    /* rises with every commit: tells whether one that failed took place */
	uint64_t next;    /* first ordinal that is not durable */
	uint64_t cost;    /* bytes of all chunks ever written */
	uint64_t records; /* all that were ever written */
	int64_t max_us;
	cdc_lsn durable;
};

struct cdc_local_db;

/* What open hands over, one call per row; false: out of memory. */
struct cdc_local_load {
	void *arg;
	bool (*sequence)(void *arg, const struct cdc_local_sequence *s);
	bool (*gap)(void *arg, const char *group, const struct cdc_gap *gap);
	bool (*schema)(void *arg, const void *packed, size_t len);
};

/* is_writer: creates the file, makes it durable, and is the one that writes.  The path is kept. */
enum cdc_code cdc_local_db_open(const char *path, const char *vfs, bool is_writer,
				struct cdc_local_db **ret, struct cdc_err *err) CDC_CHECK;
void cdc_local_db_close(struct cdc_local_db *db);
/* Is it a buffer, of this format?  CDC_CONFIG, CDC_CORRUPT.  For a reader: a writer has looked when
 * it is open. */
enum cdc_code cdc_local_db_check(struct cdc_local_db *db, struct cdc_err *err) CDC_CHECK;

enum cdc_code cdc_local_db_state(struct cdc_local_db *db, struct cdc_local_state *ret,
				 struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_load(struct cdc_local_db *db, const struct cdc_local_load *load,
				struct cdc_err *err) CDC_CHECK;

/* One transaction: begin, then any puts and drops, then commit; rollback after any failure. */
enum cdc_code cdc_local_db_begin(struct cdc_local_db *db, struct cdc_err *err) CDC_CHECK;
/*
 * Before a commit: makes sure that the disk has a place for every page, so that
 * what is in the WAL can always be copied to the file, and the WAL begin anew,
 * on a disk that is full by then.  fd: of the database.  CDC_FULL.
 */
enum cdc_code cdc_local_db_allocate(struct cdc_local_db *db, int fd, struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_commit(struct cdc_local_db *db, struct cdc_err *err) CDC_CHECK;
void cdc_local_db_rollback(struct cdc_local_db *db);

enum cdc_code cdc_local_db_put_chunk(struct cdc_local_db *db, const struct cdc_local_chunk *c,
				     struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_drop_chunk(struct cdc_local_db *db, uint64_t first,
				      struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_put_state(struct cdc_local_db *db, const struct cdc_local_state *s,
				     struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_put_sequence(struct cdc_local_db *db, const struct cdc_local_sequence *s,
					struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_put_gap(struct cdc_local_db *db, const char *group,
				   const struct cdc_gap *gap, struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_drop_gap(struct cdc_local_db *db, const char *group,
				    struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_put_schema(struct cdc_local_db *db, uint64_t table,
				      const struct cdc_id *id, const struct cdc_buf *packed,
				      struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_drop_schema(struct cdc_local_db *db, uint64_t table,
				       const struct cdc_id *id, struct cdc_err *err) CDC_CHECK;

/* Each finds one chunk, or sets *ret_found to false.  The first two leave the body alone. */
enum cdc_code cdc_local_db_oldest(struct cdc_local_db *db, struct cdc_local_chunk *ret,
				  bool *ret_found, struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_local_db_newest(struct cdc_local_db *db, struct cdc_local_chunk *ret,
				  bool *ret_found, struct cdc_err *err) CDC_CHECK;
/* The chunk that covers the ordinal, or else the next one behind it. */
enum cdc_code cdc_local_db_at(struct cdc_local_db *db, uint64_t ordinal,
			      struct cdc_local_chunk *ret, bool *ret_found,
			      struct cdc_err *err) CDC_CHECK;
/* The first chunk in order that holds an id above this one (of any sequence). */
enum cdc_code cdc_local_db_above(struct cdc_local_db *db, const struct cdc_id *id,
				 struct cdc_local_chunk *ret, bool *ret_found,
				 struct cdc_err *err) CDC_CHECK;
/* The first chunk of the stream that holds a commit time at or above this one. */
enum cdc_code cdc_local_db_since(struct cdc_local_db *db, int64_t time_us,
				 struct cdc_local_chunk *ret, bool *ret_found,
				 struct cdc_err *err) CDC_CHECK;
/* The last chunk of the stream that begins before the ordinal. */
enum cdc_code cdc_local_db_before(struct cdc_local_db *db, uint64_t ordinal,
				  struct cdc_local_chunk *ret, bool *ret_found,
				  struct cdc_err *err) CDC_CHECK;

/* Verifies, decompresses and unpacks a chunk's body into an empty batch. */
enum cdc_code cdc_local_db_unpack(const struct cdc_local_db *db, const struct cdc_local_chunk *c,
				  struct cdc_batch *batch, struct cdc_err *err) CDC_CHECK;

/* Ends the read transaction of the row that was found last. */
void cdc_local_db_rest(struct cdc_local_db *db);

/* Pages that more chunks may take inside a transaction: free ones, and what the file may grow to
 * reach max_bytes less what the WAL file needs. */
enum cdc_code cdc_local_db_room(struct cdc_local_db *db, uint64_t max_bytes, uint64_t *ret_bytes,
				struct cdc_err *err) CDC_CHECK;
/* What a body of this size takes of that room. */
uint64_t cdc_local_db_cost(size_t body_len);
/* Most bytes of raw chunks in one transaction: the WAL file must hold it beside what it has. */
uint64_t cdc_local_db_turn_bytes(uint64_t max_bytes);

/* Moves the WAL's pages into the database once it is long enough (or whatever its length), so that
 * it is used again from its start. */
enum cdc_code cdc_local_db_checkpoint(struct cdc_local_db *db, uint64_t max_bytes, bool is_forced,
				      struct cdc_err *err) CDC_CHECK;

/*
 * Writes the WAL file over itself and syncs it: after a failed fsync the system
 * may hold pages for clean that never reached the disk.  Only then may what a
 * reopened database shows be believed durable.
 */
enum cdc_code cdc_local_db_rewrite_wal(struct cdc_local_db *db, struct cdc_err *err) CDC_CHECK;

/* Bytes of the two files now. */
uint64_t cdc_local_db_bytes(const struct cdc_local_db *db);

/* --- the buffer (local.c, local_writer.c) ------------------------------------------- */

struct cdc_local_seg {
	uint64_t first, span; /* ordinals */
	uint32_t sequence;
	struct cdc_batch *batch; /* read-only from the append on */
	struct cdc_id first_id, last_id;
	size_t bytes;               /* what it is charged with */
	unsigned refs;              /* guarded by mu: one for the list it is in, one per user */
	uint64_t used;              /* guarded by mu: when a reader last had it, for the cache */
	bool is_open;               /* the sequence's transaction is open behind it */
	uint32_t epoch;             /* of the sequence behind it */
	cdc_lsn end_lsn;            /* of its last transaction's end; 0: none */
	int64_t append_us;          /* wall clock */
	struct cdc_local_seg *next; /* in a list of what is to be freed */
};

struct cdc_local_group {
	char *name;
	struct cdc_id at; /* everything at or below is done */
	bool is_suspended, is_dropped;
	struct cdc_gap gap;
	struct cdc_local_group *next;
};

struct cdc_local_schema {
	uint64_t table;
	struct cdc_id id;
	struct cdc_local_seg *seg; /* a batch of this one record */
};

#define CDC_LOCAL_POOL 4

struct cdc_buffer {
	/* Constant after open. */
	uint64_t max_bytes, retention_ms, queue_max, cache_max;
	enum cdc_on_full on_full;
	char *path, *vfs;
	struct cdc_buffer_metrics *metrics;
	int lock_fd, event_fd;
	pthread_t writer;
	bool has_writer;

	pthread_mutex_t mu;
	pthread_cond_t wake;  /* the writer: something to do */
	pthread_cond_t turns; /* group_drop: the writer has finished a turn */

	/* Guarded by mu. */
	struct cdc_local_seg **mem; /* in order, without holes up to next */
	size_t mem_n, mem_cap, mem_durable_n;
	uint64_t queue_bytes, recent_bytes;
	uint64_t next;
	struct cdc_local_sequence *sequences; /* as appended; [0] is the stream's */
	size_t sequence_n, sequence_cap;
	struct cdc_local_seg *cached[64]; /* chunks read from disk */
	size_t cached_n;
	uint64_t cached_bytes, uses;
	struct cdc_batch *pool[CDC_LOCAL_POOL];
	size_t pool_n;
	struct cdc_local_group *groups;   /* sorted by nothing */
	struct cdc_local_group *dropped;  /* their names may still be in somebody's hands */
	struct cdc_local_schema *schemas; /* sorted by table, then id */
	size_t schema_n, schema_cap;
	struct cdc_buffer_reader *readers;
	cdc_lsn progress_lsn; /* not yet durable; 0: none */
	uint32_t progress_epoch;
	uint64_t progress_after; /* it holds once everything before this ordinal is durable */
	bool progress_is_urgent;
	bool was_busy;                  /* a BUSY was answered and not yet taken back */
	bool is_started;                /* the first append or progress: every group is known now */
	bool is_stopping;               /* close */
	bool is_moved;                  /* a group moved or went: there may be room */
	bool is_full;                   /* the budget: waiting for a group to move */
	struct cdc_err error;           /* the writer's; code CDC_OK: none */
	bool is_final;                  /* the error is: the writer has given up */
	uint64_t failed_n;              /* turns that failed */
	struct cdc_local_state durable; /* what is on disk */
	struct cdc_id durable_id;       /* of the stream */
	uint32_t durable_epoch;
	uint64_t retained_records; /* on disk */
	struct cdc_id oldest_id;   /* first on disk, or zero */
	uint64_t disk_bytes;

	/* The writer's. */
	struct cdc_local_db *db;
	struct cdc_compressor *compressor;
	struct cdc_buf packed, body;
	struct cdc_local_chunk oldest; /* without its pointers */
	bool has_oldest;
	uint64_t turn_ms, progress_ms, evict_ms, measure_ms; /* monotonic: when last done */
	uint64_t retry_at_ms, pause_ms;                      /* after a failure */
	uint64_t disk_bytes_max;       /* the disk was full at this size; 0: it was not of late */
	uint64_t disk_bytes_max_until; /* monotonic ms: then growing is tried again */
};

/* Segments.  The batch goes to the new segment; NULL when the heap is exhausted (it then does not).
 */
struct cdc_local_seg *cdc_local_seg_new(struct cdc_batch *batch, uint64_t first, uint32_t sequence);
/* With mu held: gives up one reference; the last one moves the segment to *trash. */
void cdc_local_seg_unref(struct cdc_local_seg *seg, struct cdc_local_seg **trash);
/* Without mu: frees them; their batches go to the pool. */
void cdc_local_trash(struct cdc_buffer *b, struct cdc_local_seg *trash);
struct cdc_batch *cdc_local_batch_new(struct cdc_buffer *b, size_t max_bytes);

/* With mu held: the entry of mem that covers the ordinal, or NULL. */
struct cdc_local_seg *cdc_local_mem_at(const struct cdc_buffer *b, uint64_t ordinal);
/* With mu held: wakes readers that wait for more. */
void cdc_local_wake_readers(struct cdc_buffer *b);
/* With mu held: the sequence's state as appended, or NULL. */
struct cdc_local_sequence *cdc_local_sequence_of(const struct cdc_buffer *b, uint32_t number);
/* With mu held: the group that holds most, or NULL. */
struct cdc_local_group *cdc_local_holder(const struct cdc_buffer *b);
/* With mu held: the newest schema record of a table below an id, or NULL; takes a reference. */
struct cdc_local_seg *cdc_local_schema_find(const struct cdc_buffer *b, uint64_t table,
					    const struct cdc_id *below);
/* Adds every schema record of a batch from the index on; nothing is added on CDC_NOMEM. */
enum cdc_code cdc_local_schema_add(struct cdc_buffer *b, const struct cdc_batch *batch,
				   struct cdc_err *err) CDC_CHECK;

/* The writer's thread; the argument is the buffer. */
void *cdc_local_writer(void *buffer);
/* Before the thread: reads what the database holds. */
enum cdc_code cdc_local_recover(struct cdc_buffer *b, struct cdc_err *err) CDC_CHECK;

/* --- readers (local_reader.c) ------------------------------------------------------- */

struct cdc_buffer_reader {
	struct cdc_buffer *buffer;
	struct cdc_local_group *group;
	struct cdc_buffer_reader *next; /* guarded by mu, as is is_waiting */
	bool is_waiting;
	int fd;
	struct cdc_batch *tables; /* its table dictionary: names and hashes; unused when all */
	bool has_all;
	struct cdc_id from, through;
	uint64_t at;      /* ordinal */
	bool is_placed;   /* at is known */
	cdc_lsn end_seen; /* of the last end that was returned */
	cdc_lsn open_lsn; /* commit of the last stream's record that was returned; 0: its end, too
			   */
	uint64_t *opened; /* hashes of tables whose schema record was looked for, sorted */
	size_t opened_n, opened_cap;
	struct cdc_tx_end *ends; /* of a read without records */
	size_t ends_cap;
	struct cdc_local_db *db; /* opened when first needed */
	struct cdc_lease *leases;
};

enum cdc_code cdc_local_reader_open(struct cdc_buffer *b, const char *group,
				    const struct cdc_position *from, const char *const *tables,
				    size_t table_n, struct cdc_buffer_reader **ret,
				    struct cdc_err *err) CDC_CHECK;
void cdc_local_reader_close(struct cdc_buffer_reader *r);
enum cdc_code cdc_local_reader_read(struct cdc_buffer_reader *r, struct cdc_read *ret,
				    struct cdc_err *err) CDC_CHECK;
void cdc_local_reader_release(struct cdc_buffer_reader *r, struct cdc_lease *lease);
enum cdc_code cdc_local_reader_check(struct cdc_buffer_reader *r, struct cdc_err *err) CDC_CHECK;
int cdc_local_reader_fd(struct cdc_buffer_reader *r);

#endif
