/*
 * store.h - what must outlive the process besides the buffer: epochs, slots,
 * cursors, gaps, parked records and dead letters.
 *
 * state.db in data_dir.  The store is the home of positions: a delivery thread
 * hands a checkpoint over and goes on; the store thread writes the checkpoints of
 * all syncs in one transaction per turn; only then may the buffer evict.
 * It speaks SQL through cdc/store/sql.h, so that another back end can take
 * SQLite's place with the same statements.
 *
 * Threads: any; every call is carried out by the one store thread.
 * Layer: store (base, record).
 */
#ifndef CDC_STORE_STORE_H
#define CDC_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/record/batch.h"
#include "cdc/record/id.h"

struct cdc_store;

#define CDC_NAME_MAX 200 /* bytes of a connection's, sync's or slot's name, NUL included */

/* Opens or creates DIR/state.db, migrates it, starts the thread.
 * CDC_CORRUPT; CDC_CONFIG: written by a newer walpost. */
enum cdc_code cdc_store_open(const char *dir, struct cdc_store **ret,
			     struct cdc_err *err) CDC_CHECK;
/* The state.db that is in DIR, whichever process works with it: for commands of a person beside a
 * walpost that runs, or between two runs.  CDC_MISSING; CDC_CONFIG: written by a newer walpost;
 * CDC_EPOCH: by an older one.  Nothing is made or migrated. */
enum cdc_code cdc_store_attach(const char *dir, struct cdc_store **ret,
			       struct cdc_err *err) CDC_CHECK;
/*
 * Puts in the key that parked records are encrypted with (32 bytes, as base64 or hex); to be called
 * once, before one is written or read.  NULL: the one in DIR/master.key, which an opened store
 * makes when it is missing and nothing needs another.  CDC_CONFIG: what is stored is encrypted with
 * another key, or its key is missing; nothing is changed, and the remedy says what to do.  An
 * attached store is then still good for what needs no key.
 */
enum cdc_code cdc_store_unlock(struct cdc_store *s, const char *master_key,
			       struct cdc_err *err) CDC_CHECK;
/* Writes what was handed over, stops the thread.  NULL is fine. */
void cdc_store_close(struct cdc_store *s);

/* A slot that walpost reads: the identity of its numbering. */
struct cdc_slot_row {
	char slot[64];
	char connection[CDC_NAME_MAX];
	char system_id[24];
	cdc_lsn created_lsn; /* its consistent point, or confirmed_flush when first used */
	bool begins_anew; /* the generation begins at created_lsn, behind a gap that was accepted,
			     wherever the one before it ended */
	char numbering[256]; /* options that change the numbering */
	unsigned generation; /* 1..255; top byte of epochs */
	bool slot_is_ours;   /* walpost created it */
	bool publication_is_ours;
	char publication[64];
};

/* CDC_MISSING: never seen, or deleted; ret->generation is then the highest that a slot of this
 * name had (0: none), so that a new one can go above it. */
enum cdc_code cdc_store_slot_get(struct cdc_store *s, const char *connection, const char *slot,
				 struct cdc_slot_row *ret, struct cdc_err *err) CDC_CHECK;
/* Writes the row, durably, and remembers the former generation in the epochs' history. */
enum cdc_code cdc_store_slot_put(struct cdc_store *s, const struct cdc_slot_row *row,
				 struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_slot_delete(struct cdc_store *s, const char *connection, const char *slot,
				    struct cdc_err *err) CDC_CHECK;

enum cdc_table_state {
	CDC_TABLE_STREAMING,
	CDC_TABLE_HELD,
	CDC_TABLE_COPYING,
	CDC_TABLE_CATCHING_UP,
	CDC_TABLE_STOPPED, /* before a record that its endpoint refuses and nothing may pass */
	CDC_TABLE_RESUMED  /* the same, on its way back from its own id to the stream */
};
/* Else it is of a copy. */
static inline bool cdc_table_is_stopped(enum cdc_table_state state)
{
	return state == CDC_TABLE_STOPPED || state == CDC_TABLE_RESUMED;
}

/* A table of a sync that is not streaming with the rest. */
struct cdc_cursor_table {
	char table[192];
	enum cdc_table_state state;
	struct cdc_id id; /* its own: everything of it at or below is done */
	cdc_lsn point; /* the snapshot's consistent point; 0: unknown, or (CATCHING_UP) no rows of
			  a snapshot were delivered */
};

/* Where a sync is: a plain value without pointers but these two arrays. */
struct cdc_cursor {
	char sync[CDC_NAME_MAX];
	struct cdc_stream_position *streams;
	size_t stream_n;
	struct cdc_cursor_table *tables; /* those not CDC_TABLE_STREAMING */
	size_t table_n;
};
void cdc_cursor_clear(struct cdc_cursor *c); /* frees the arrays */
/* How many of its tables are of a copy. */
size_t cdc_cursor_copied(const struct cdc_cursor *c);
/* The lower of its first stream's position and those of its tables: what is not above it is done.
 */
struct cdc_stream_position cdc_cursor_lowest(const struct cdc_cursor *c);

/* CDC_MISSING: the sync is new. The caller clears *ret. */
enum cdc_code cdc_store_cursor_get(struct cdc_store *s, const char *sync, struct cdc_cursor *ret,
				   struct cdc_err *err) CDC_CHECK;
/* Writes and waits until it is durable: for a sync's first cursor, and at stop.  After a failure
 * the cursor stays handed over like a checkpoint, and is tried again. */
enum cdc_code cdc_store_cursor_put(struct cdc_store *s, const struct cdc_cursor *c,
				   struct cdc_err *err) CDC_CHECK;
/* Its backfill rows, its parked records, its dead letters and the log of its requests go with it.
 */
enum cdc_code cdc_store_cursor_delete(struct cdc_store *s, const char *sync,
				      struct cdc_err *err) CDC_CHECK;
/* Calls fn, in the caller's thread, for every sync that has a cursor (paused, failed and no
 * longer configured ones included). */
enum cdc_code cdc_store_cursor_each(struct cdc_store *s,
				    void (*fn)(void *arg, const struct cdc_cursor *c), void *arg,
				    struct cdc_err *err) CDC_CHECK;

/*
 * Hands a checkpoint over (copied) and returns at once.  A newer one replaces one
 * of the same sync that is still waiting.  Returns a ticket, rising per store; 0
 * when the heap is exhausted, then nothing was taken.
 */
uint64_t cdc_store_checkpoint(struct cdc_store *s, const struct cdc_cursor *c);
/* The highest ticket up to which everything is durable. */
uint64_t cdc_store_checkpointed(struct cdc_store *s);
/* Why the store cannot write at the moment (disk full...), or CDC_OK; it keeps trying. */
enum cdc_code cdc_store_error(struct cdc_store *s, struct cdc_err *err);

/* A table that a sync has found, and what became of copying the rows it had then. */
enum cdc_backfill_state {
	CDC_BACKFILL_PENDING, /* waits for its copy, or is being copied */
	CDC_BACKFILL_DONE,
	CDC_BACKFILL_FAILED /* reason tells; its changes are delivered all the same */
};
#define CDC_BACKFILL_PART_MAX 512
#define CDC_BACKFILL_ALL      "all"
struct cdc_backfill_row {
	char table[192];
	enum cdc_backfill_state state;
	uint64_t rows;              /* copied */
	int64_t begun_us, ended_us; /* of its copy; 0: not yet */
	char reason[400];
	bool is_asked; /* PENDING, FAILED: by a person; copied even if the sync copies nothing */
	/* PENDING: what is left to be copied, in the words of cdc/source/copy.h; "": all of it. */
	char part[CDC_BACKFILL_PART_MAX];
	/* What is to be noted once the rows that the round has read are delivered: that all of it
	 * is copied, or the part that is left then.  "": no copy of this round has come to an end.
	 */
	char next[CDC_BACKFILL_PART_MAX];
};
/* Every table of the sync, by name; none is not an error.  The caller frees *ret. */
enum cdc_code cdc_store_backfill_get(struct cdc_store *s, const char *sync,
				     struct cdc_backfill_row **ret, size_t *ret_n,
				     struct cdc_err *err) CDC_CHECK;
/* Adds the rows or takes the place of those that are there, all or none, durably. */
enum cdc_code cdc_store_backfill_put(struct cdc_store *s, const char *sync,
				     const struct cdc_backfill_row *rows, size_t n,
				     struct cdc_err *err) CDC_CHECK;

/* A recorded gap of a sync: records it will never get, and why. */
struct cdc_gap_row {
	char sync[CDC_NAME_MAX];
	struct cdc_id first, last;
	char reason[200];
	int64_t at_us;
};
/* The same gap (sync, first, last) is kept once. */
enum cdc_code cdc_store_gap_put(struct cdc_store *s, const struct cdc_gap_row *g,
				struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_gap_each(struct cdc_store *s,
				 void (*fn)(void *arg, const struct cdc_gap_row *g), void *arg,
				 struct cdc_err *err) CDC_CHECK;

/* --- what a person wants ------------------------------------------------------------------ */

/* What a sync is to be like from now on; nothing is wanted of one without a row. */
struct cdc_desired {
	bool is_paused;          /* its records stay in the buffer */
	bool is_backfill_paused; /* its tables are not copied */
};
/* All false when nothing is stored. */
enum cdc_code cdc_store_desired_get(struct cdc_store *s, const char *sync, struct cdc_desired *ret,
				    struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_desired_put(struct cdc_store *s, const char *sync,
				    const struct cdc_desired *d, struct cdc_err *err) CDC_CHECK;

enum cdc_verb {
	CDC_VERB_PAUSE,
	CDC_VERB_RESUME,
	CDC_VERB_BACKFILL_PAUSE,
	CDC_VERB_BACKFILL_RESUME,
	CDC_VERB_RESYNC,     /* argument: a table, or "" for all of them */
	CDC_VERB_REPAIR,     /* behind a gap: all tables; argument: the generation that has to have
				begun; or behind it " " and one table, as soon as it is published */
	CDC_VERB_ACCEPT_GAP, /* of the slot that feeds the sync */
	CDC_VERB_REPLAY, /* argument: the id to begin with, or "@" and microseconds since 1970 */
};
const char *cdc_verb_name(enum cdc_verb verb);

enum cdc_command_state { CDC_COMMAND_WAITING, CDC_COMMAND_DONE, CDC_COMMAND_REFUSED };

/*
 * Something to be done once.  Whoever wants it adds it, from any process; the walpost that
 * runs, or the next one that is started, carries it out and ends it with an answer.  A command
 * that was carried out and not ended, because the process died between, is carried out again:
 * each means the same when it is done twice.
 */
struct cdc_command {
	int64_t id; /* rising; never used again */
	char sync[CDC_NAME_MAX];
	enum cdc_verb verb;
	char argument[200];
	enum cdc_command_state state;
	char answer[600]; /* to the person; "" while it waits */
	int64_t asked_us, ended_us;
};

/* Adds n commands, all or none, and sets their id and asked_us; state, answer and ended_us are
 * not looked at.  Those that ended a week ago go.  CDC_LIMIT: 1,000 are waiting. */
enum cdc_code cdc_store_command_add(struct cdc_store *s, struct cdc_command *commands, size_t n,
				    struct cdc_err *err) CDC_CHECK;
/* CDC_MISSING: there is none of this id (any more). */
enum cdc_code cdc_store_command_get(struct cdc_store *s, int64_t id, struct cdc_command *ret,
				    struct cdc_err *err) CDC_CHECK;
/* The first waiting command with an id above `after`.  CDC_MISSING: none. */
enum cdc_code cdc_store_command_next(struct cdc_store *s, int64_t after, struct cdc_command *ret,
				     struct cdc_err *err) CDC_CHECK;
/* Ends a waiting command, durably; one that is not waiting is left alone. */
enum cdc_code cdc_store_command_end(struct cdc_store *s, int64_t id, enum cdc_command_state state,
				    const char *answer, struct cdc_err *err) CDC_CHECK;
/*
 * The sync goes back to the cursor c, having reached a higher one.  In one transaction: the
 * cursor, in whose place no checkpoint that was handed over before comes; what was reached; the
 * end of the command, with this answer.
 */
enum cdc_code cdc_store_replay(struct cdc_store *s, const struct cdc_cursor *c,
			       const struct cdc_id *reached, int64_t command, const char *answer,
			       struct cdc_err *err) CDC_CHECK;
/* What the sync had reached when it went back the last time: changes at or below come once more.
 * Zero: it never did.  CDC_CORRUPT. */
enum cdc_code cdc_store_replay_get(struct cdc_store *s, const char *sync, struct cdc_id *ret,
				   struct cdc_err *err) CDC_CHECK;
/*
 * The slot was made anew behind a gap that is accepted.  In one transaction: its row (with a
 * generation of its own), the gap (sync is not looked at) for each of the syncs, and for each
 * the command CDC_VERB_REPAIR.
 */
enum cdc_code cdc_store_slot_renew(struct cdc_store *s, const struct cdc_slot_row *row,
				   const struct cdc_gap_row *gap, const char *const *syncs,
				   size_t sync_n, struct cdc_err *err) CDC_CHECK;
/* A table is read no more.  In one transaction: the gap for each of the syncs, and CDC_VERB_REPAIR
 * of that table. */
enum cdc_code cdc_store_table_gap(struct cdc_store *s, const struct cdc_gap_row *gap,
				  const char *table, unsigned generation, const char *const *syncs,
				  size_t sync_n, struct cdc_err *err) CDC_CHECK;
/*
 * May there be commands since this was called last?  True once after an open, after this
 * process added some, and, at most some 300 ms late, after another process wrote anything.
 * Costs no look into the database.
 */
bool cdc_store_take_touched(struct cdc_store *s);

/*
 * Parked records: those a sync's endpoint refuses while it accepts others, and the
 * later ones of their keys.  A record is kept with its whole JSON, as the buffer had
 * it, under (sync, id), in one of three states; record, key, reason and response are
 * encrypted (cdc_store_unlock):
 *
 *   WAITING  the queue of its key: the lowest id is its head, which is tried again
 *            at its time; what stands behind it has not been tried
 *   DEAD     a dead letter: given up, kept until somebody replays or discards it
 *   REPLAY   a dead letter that is to be sent once more; refused, it is DEAD again
 *
 * A second process may use the same state.db: every call is one transaction.
 */
enum cdc_parked_state { CDC_PARKED_WAITING, CDC_PARKED_DEAD, CDC_PARKED_REPLAY };

#define CDC_PARKED_RESPONSE_MAX 4096 /* bytes of an answer's body that are kept */

enum cdc_park_act {
	CDC_PARK_PUT,     /* the record goes in; one that is there stays as it is */
	CDC_PARK_FAILED,  /* it was tried and refused: attempts, step, next_us, status, texts */
	CDC_PARK_DEAD,    /* the same, for the last time: it becomes a dead letter */
	CDC_PARK_REFUSED, /* a replay was: it is a dead letter again, with one more attempt */
	CDC_PARK_DONE,    /* it was accepted: it goes */
};

/* One change of a sync's parked records; pointers are the caller's and valid during the call. */
struct cdc_park_change {
	enum cdc_park_act act;
	struct cdc_id id;
	struct cdc_view view;        /* PUT: the record */
	uint64_t key_hash;           /* PUT: whose queue it joins */
	uint64_t table_hash;         /* PUT */
	enum cdc_parked_state state; /* PUT: WAITING, or DEAD at once */
	uint64_t attempts;           /* failures of a request with this record alone */
	uint64_t step;               /* of the retry schedule */
	int64_t next_us;             /* wall time of its next attempt; 0: at once */
	int status;                  /* of the last answer; 0: none was had */
	const char *reason;          /* NULL: none */
	const char *response;        /* body of the last answer, UTF-8; NULL: none */
};

/* The head of a key's queue. */
struct cdc_park_head {
	uint64_t key_hash, table_hash;
	struct cdc_id id; /* zero: the queue is empty */
	uint64_t attempts, step;
	int64_t next_us;
};

struct cdc_park_totals {
	uint64_t waiting, dead, replay; /* records */
	uint64_t bytes;                 /* JSON of all of them */
};

/* Carries the changes out in order, all or none, durably, at wall time now_us; then looks up the
 * heads of the queues whose key_hash the caller has filled in, and, unless NULL, the totals. */
enum cdc_code cdc_store_park(struct cdc_store *s, const char *sync,
			     const struct cdc_park_change *changes, size_t n, int64_t now_us,
			     struct cdc_park_head *heads, size_t head_n,
			     struct cdc_park_totals *ret_totals, struct cdc_err *err) CDC_CHECK;
/* Every queue's head.  The caller frees *ret.  CDC_LIMIT: more than CDC_PARKED_KEYS_MAX. */
#define CDC_PARKED_KEYS_MAX 100000
enum cdc_code cdc_store_park_heads(struct cdc_store *s, const char *sync,
				   struct cdc_park_head **ret, size_t *ret_n,
				   struct cdc_err *err) CDC_CHECK;
/* The ids of the sync's records, in any state, that are read again from this cursor of it on, and
 * need not be sent then: those above its first stream's, and of its tables (is_whole: of all, when
 * it has any) those above their own.  The caller frees *ret.  CDC_LIMIT: more than 100,000. */
enum cdc_code cdc_store_park_ids(struct cdc_store *s, const struct cdc_cursor *cursor,
				 bool is_whole, struct cdc_id **ret, size_t *ret_n,
				 struct cdc_err *err) CDC_CHECK;

/* What is read of a queue, or of the replays. */
struct cdc_park_read {
	size_t max;        /* records, 1 to 10,000 */
	size_t max_bytes;  /* of JSON; a larger one comes alone */
	uint64_t key_hash; /* the queue */
	bool is_replay;    /* the records in REPLAY, whatever their key */
};
/* Appends records to the batch, in id order.  *ret_waits: the head is the second half of a key
 * change whose first half is WAITING itself, so nothing was read.  CDC_REJECTED: the first one
 * cannot be read, err says why; in the batch there is then one record with its id and table, and
 * no JSON. */
enum cdc_code cdc_store_park_read(struct cdc_store *s, const char *sync,
				  const struct cdc_park_read *what, struct cdc_batch *batch,
				  bool *ret_waits, struct cdc_err *err) CDC_CHECK;

/* For people. */
struct cdc_parked_record {
	char sync[CDC_NAME_MAX];
	struct cdc_id id;
	char table[192];
	enum cdc_parked_state state;
	uint64_t attempts;
	int64_t parked_us; /* wall time it was set aside */
	int64_t dead_us;   /* wall time it became a dead letter; 0: not */
	int64_t next_us;   /* wall time of the next attempt; 0: at once, or behind its key's head */
	int status;        /* of the last answer; 0: none was had */
	char reason[200];
	char *key;      /* JSON of `key` */
	char *response; /* "": none */
	char *record;   /* its JSON; NULL in a list */
	char *damage;   /* why some of the texts above cannot be read and are ""; NULL: all can */
};

/* All zero: everything. */
struct cdc_parked_filter {
	const char *sync, *table, *id;     /* NULL: any */
	const char *key;                   /* JSON of `key`, letter for letter; NULL: any */
	int64_t since_us;                  /* of dead_us (WAITING: parked_us), inclusive */
	int64_t until_us;                  /* exclusive; 0: no bound */
	enum cdc_parked_state state;       /* list: WAITING, or DEAD and REPLAY together */
	const char *after_sync, *after_id; /* list: only what comes behind this; NULL: all */
};

/* At most max records, 1 to 1,000, by sync and id.  Freed with cdc_parked_records_free. */
enum cdc_code cdc_store_parked_list(struct cdc_store *s, const struct cdc_parked_filter *f,
				    size_t max, struct cdc_parked_record **ret, size_t *ret_n,
				    struct cdc_err *err) CDC_CHECK;
/* One record with its JSON, in whatever state.  CDC_MISSING. */
enum cdc_code cdc_store_parked_get(struct cdc_store *s, const char *sync, const char *id,
				   struct cdc_parked_record **ret, struct cdc_err *err) CDC_CHECK;
void cdc_parked_records_free(struct cdc_parked_record *rows, size_t n); /* NULL is fine */
/* The dead letters that match are to be sent again; the running sync finds them within seconds, one
 * that does not run when it does.  *ret_n: how many. */
enum cdc_code cdc_store_dead_replay(struct cdc_store *s, const struct cdc_parked_filter *f,
				    uint64_t *ret_n, struct cdc_err *err) CDC_CHECK;
/* The dead letters that match are deleted for ever; those that wait for a replay are not. */
enum cdc_code cdc_store_dead_discard(struct cdc_store *s, const struct cdc_parked_filter *f,
				     uint64_t *ret_n, struct cdc_err *err) CDC_CHECK;

/* The dead letters whose record cannot be read are deleted for ever; and, when the key is missing
 * (cdc_store_unlock failed), all encrypted parked records, and what is known of their key. */
enum cdc_code cdc_store_discard_unreadable(struct cdc_store *s, uint64_t *ret_n,
					   struct cdc_err *err) CDC_CHECK;

/* A sync whose endpoint asked for no more: it does not deliver until it is enabled again. */
enum cdc_code cdc_store_disable(struct cdc_store *s, const char *sync, const char *reason,
				struct cdc_err *err) CDC_CHECK;
/* CDC_MISSING: it is not disabled. */
enum cdc_code cdc_store_disabled_get(struct cdc_store *s, const char *sync, char *ret_reason,
				     size_t size, struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_enable(struct cdc_store *s, const char *sync,
			       struct cdc_err *err) CDC_CHECK;

/* A small durable key-value space for things of which there is one ("buffer" of a sync, schema of
 * files). */
/* get: CDC_MISSING; CDC_LIMIT when the value and its NUL are longer than size. */
enum cdc_code cdc_store_note_put(struct cdc_store *s, const char *key, const char *value,
				 struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_note_get(struct cdc_store *s, const char *key, char *ret_value, size_t size,
				 struct cdc_err *err) CDC_CHECK;

#endif
