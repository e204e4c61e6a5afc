/*
 * store.h - what must outlive the process besides the buffer: epochs, slots,
 * cursors, gaps.
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
#include "cdc/record/id.h"

struct cdc_store;

#define CDC_NAME_MAX 200 /* bytes of a connection's, sync's or slot's name, NUL included */

/* Opens or creates DIR/state.db, migrates it, starts the thread.
 * CDC_CORRUPT; CDC_CONFIG: written by a newer walpost. */
enum cdc_code cdc_store_open(const char *dir, struct cdc_store **ret,
			     struct cdc_err *err) CDC_CHECK;
/* The state.db that is in DIR, whichever process works with it: for commands of a person beside a
 * walpost that runs, or between two runs.  CDC_MISSING; CDC_CONFIG: of another version.  Nothing is
 * made or migrated. */
enum cdc_code cdc_store_attach(const char *dir, struct cdc_store **ret,
			       struct cdc_err *err) CDC_CHECK;
/* Writes what was handed over, stops the thread.  NULL is fine. */
void cdc_store_close(struct cdc_store *s);

/* A slot that walpost reads: the identity of its numbering. */
struct cdc_slot_row {
	char slot[64];
	char connection[CDC_NAME_MAX];
	char system_id[24];
	cdc_lsn created_lsn; /* its consistent point, or confirmed_flush when first used */
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
	CDC_TABLE_STOPPED
};

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
/* Its backfill rows go with it. */
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
struct cdc_backfill_row {
	char table[192];
	enum cdc_backfill_state state;
	uint64_t rows;              /* copied */
	int64_t begun_us, ended_us; /* of its copy; 0: not yet */
	char reason[400];
	bool is_asked; /* PENDING: by a person, so it is copied even if the sync copies nothing */
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
	CDC_VERB_RESYNC, /* argument: a table, or "" for all of them */
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
 * May there be commands since this was called last?  True once after an open, after this
 * process added some, and, at most some 300 ms late, after another process wrote anything.
 * Costs no look into the database.
 */
bool cdc_store_take_touched(struct cdc_store *s);

/* A small durable key-value space for things of which there is one ("buffer" of a sync, schema of
 * files). */
/* get: CDC_MISSING; CDC_LIMIT when the value and its NUL are longer than size. */
enum cdc_code cdc_store_note_put(struct cdc_store *s, const char *key, const char *value,
				 struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_note_get(struct cdc_store *s, const char *key, char *ret_value, size_t size,
				 struct cdc_err *err) CDC_CHECK;

#endif
