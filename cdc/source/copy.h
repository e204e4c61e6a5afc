/*
 * copy.h - the rows of tables as one snapshot sees them, read as `read` records.
 *
 * A copy makes a temporary slot whose snapshot is an exact boundary: a
 * transaction is in the snapshot, or its commit LSN is at or above the slot's
 * consistent point, never both and never neither.  Several connections import the
 * snapshot and read ranges of blocks (ctid ranges, so no key is needed) with
 * COPY ... TO STDOUT; the rows become records with the ids of DESIGN: the point,
 * the number of the range, the number of the row in it.  What is read is what
 * the publication publishes: its columns, its row filters, partitions under the
 * name that the stream gives them, a parent without its children.
 *
 * The server writes composite values as their type is when it sends them, whatever
 * the snapshot sees, so types are looked at again behind what was received and
 * before it is written (cdc/source/catalog.h).
 *
 * A copy need not be brought to its end: what is left of a table then is a part,
 * to be remembered as a text, and copied later under another snapshot.  For that
 * it needs a key, the primary key or the replica identity's, whose columns are
 * all published.  The first part is the table as a whole, now in the order of its
 * key; from then on a part is what lies above the last key copied.  Let K be that
 * key and C1 < C2 the points of a part and the one that follows.
 *
 * - Nothing is lost or stands twice: a row that no change touches has one key, and
 *   is read by the one part that this key falls into.  (What a copy by blocks
 *   has read before it was ended is read once more.)
 * - In order per key: every part is delivered behind all changes below its own
 *   point, and before those from the point on, as any copy is.  A row at or below
 *   K has its changes since C1; one above K has those below C2, then the row as of
 *   C2.  That a change comes before the row that it changes is nothing new.
 * - A key that moves down past K (and, in a table with a row filter, a row that
 *   comes to satisfy it) is never read by a part, but comes as a change.  A change
 *   may leave out a large value that it did not touch, which nobody has sent then.
 *   So, where that can be (there is a TOAST table, and the old row is not logged as
 *   a whole), a last part reads the rows that were written since the first
 *   snapshot, under a snapshot of its own and by blocks: by their xmin, of which
 *   none older than the first snapshot's oldest transaction has been written
 *   since.  A row that it reads and that had been sent already is as of a later
 *   point than all that came of it, and does no harm.
 * - A table that was made anew meanwhile, or got another key, has other rows at the
 *   same keys, so it begins again.
 *
 * Tables are locked (ACCESS SHARE) until the copy is closed; one whose storage was
 * rewritten between snapshot and lock is CDC_HELD: start again.  The temporary
 * slot is gone as soon as every connection has the snapshot, so no WAL is held.
 *
 * Threads: a copy belongs to its caller.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_COPY_H
#define CDC_SOURCE_COPY_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/lsn.h"
#include "cdc/base/stop.h"
#include "cdc/record/batch.h"
#include "cdc/source/pressure.h"
#include "cdc/source/source.h"

#define CDC_COPY_CONNECTIONS_MAX 16

/* A table that the publication publishes, as its records name it. */
struct cdc_copy_table {
	char *name;     /* "public.orders"; a root when partitions are published under it */
	uint64_t bytes; /* on disk, leaves included; an estimate for progress */
};

/* Lists the tables of the plan's publication (of plan->tables, when there are some), on a
 * connection of its own, at most 15 s.  The caller frees the list with cdc_copy_list_free. */
enum cdc_code cdc_copy_list(const struct cdc_source_plan *plan, struct cdc_copy_table **ret,
			    size_t *ret_n, struct cdc_err *err) CDC_CHECK;
/* Would it list a table of this name, were it published? */
bool cdc_copy_wants(const struct cdc_source_plan *plan, const char *table);
void cdc_copy_list_free(struct cdc_copy_table *tables, size_t n);

#define CDC_COPY_PART_MAX 512 /* bytes of a part's text, with its NUL */

struct cdc_copy_setup {
	const struct cdc_source_plan *plan; /* settings, publication, and the stop flag */
	const char *const *tables;          /* names as cdc_copy_list gives them; 1 to 1,000 */
	size_t table_n;
	unsigned connections; /* 1 to CDC_COPY_CONNECTIONS_MAX */
	unsigned generation;  /* top byte of the epoch of the records' ids */
	const char *part;     /* of tables[0], the only one: what rest told of it; "": everything */
	/* What the stream is read from: its system, the timeline of its end (0: not known), and
	 * that end. */
	const char *system_id;
	uint32_t timeline;
	cdc_lsn durable;
};

struct cdc_copy;

/*
 * Makes the snapshot, imports it, locks the tables, plans the ranges.  Waits for
 * transactions that are open in the database, at most 30 s (lock_timeout):
 * CDC_TIMEOUT then names the sessions in the way.  CDC_HELD: a table is locked by
 * somebody, or was rewritten meanwhile: later.  CDC_IO: connection broken, or the
 * server is another than the one that the stream is read from, or lags behind it.  Codes
 * of class FATAL are about the one table that cdc_copy_failed names, or about
 * all (SIZE_MAX): no right to read it, not published any more, does not exist.
 * On any error *ret is the copy without connections, for cdc_copy_failed; the
 * caller closes it (NULL: out of memory).
 */
enum cdc_code cdc_copy_open(const struct cdc_copy_setup *setup, struct cdc_copy **ret,
			    struct cdc_err *err) CDC_CHECK;
void cdc_copy_close(struct cdc_copy *c); /* NULL is fine; cancels what runs, does not wait for it */

/* Index of the table that the last error is about, or SIZE_MAX. */
size_t cdc_copy_failed(const struct cdc_copy *c);

cdc_lsn cdc_copy_point(const struct cdc_copy *c);  /* the consistent point */
uint32_t cdc_copy_epoch(const struct cdc_copy *c); /* of the records' ids: generation, timeline */

struct cdc_copy_read {
	bool is_dry;      /* the sockets held nothing more: poll, then call again */
	bool is_finished; /* every row of every table was given out */
	/* Written as text for want of knowledge since the call before, the making of the copy
	 * included: columns' types that the database has no more, and composite values of a form
	 * that none of their type's is. */
	uint64_t unknown_types, odd_values;
	uint64_t too_large; /* records that were: the batch has stand-ins for them */
};

/*
 * Takes what the sockets hold, without waiting, until they are dry or the batch has
 * reached target_bytes of JSON or target_records.  Records of several ranges may
 * stand in one batch, those of one range in order.  A record that does not fit into
 * what is left of the batch: CDC_BUSY, call again with an empty one; into an empty
 * one: CDC_LIMIT.  Any error but CDC_BUSY ends the copy.
 */
enum cdc_code cdc_copy_read(struct cdc_copy *c, struct cdc_batch *batch, size_t target_bytes,
			    size_t target_records, struct cdc_copy_read *ret,
			    struct cdc_err *err) CDC_CHECK;

/* May the copy be ended before its end, so that what it gave out so far counts?  Not before a key
 * was given out that can be remembered (one of some 400 bytes at most), and not in the last part.
 */
bool cdc_copy_can_end(const struct cdc_copy *c);

/*
 * What is left of a table if everything given out is delivered and the copy ends
 * here; "": nothing.  CDC_CONFIG: something is, and it cannot be copied by parts,
 * having no key; *ret is "" then.
 */
enum cdc_code cdc_copy_rest(const struct cdc_copy *c, size_t table, char ret[CDC_COPY_PART_MAX],
			    struct cdc_err *err) CDC_CHECK;

/* What poll() waits for; fills at most CDC_COPY_CONNECTIONS_MAX, returns how many. */
size_t cdc_copy_poll(const struct cdc_copy *c, struct pollfd fds[CDC_COPY_CONNECTIONS_MAX]);

/* How replicas and slot bear the copy.  Asks and waits, at most 5 s for each of two answers; codes
 * as cdc_lookup_ask.  An error leaves the copy as it is. */
enum cdc_code cdc_copy_pressure(struct cdc_copy *c, struct cdc_pressure *ret,
				struct cdc_err *err) CDC_CHECK;

/* Does a session wait for a lock that the copy is in the way of?  CDC_HELD names it.  Asks on a
 * connection of its own, at most 2 s; a question that cannot be asked is CDC_OK. */
enum cdc_code cdc_copy_check_waiters(struct cdc_copy *c, struct cdc_err *err) CDC_CHECK;

struct cdc_copy_progress {
	uint64_t rows;                      /* given out */
	uint64_t blocks_done, blocks_total; /* of the ranges finished, and of all */
};
void cdc_copy_progress(const struct cdc_copy *c, size_t table, struct cdc_copy_progress *ret);

#endif
