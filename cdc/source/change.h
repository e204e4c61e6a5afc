/*
 * change.h - the messages of a stream, in their order, become records.
 *
 * Holds what the grammar of the stream needs between messages: the transaction
 * that is open, and how many of its changes were counted.  A record's id is
 * (epoch, commit LSN, ordinal, part); the epoch names the timeline on which the
 * commit LSN was written, so the same change has the same id in every session.
 *
 * A message that belongs to no transaction has its own LSN, ordinal 0 and part 1:
 * everything that was committed before it was sent before it, and what commits
 * after it has a higher LSN, so ids rise over it.  It is, to the buffer, a
 * transaction of its own that ends there.
 *
 * A schema record (describe.h) precedes the first row of a table that looks
 * different from what its last one said, or that had none; its id is the row's with
 * part 0.  What was said is remembered by the buffer, which has those records; a
 * stream that begins anew is told of the newest of each table (known), and that is
 * enough: in what is sent again, records get the ids that they had, and one that
 * was not made the first time (the table looked then as it did before, and not as it
 * does at the end) has an id at or below the last that the buffer took, so the
 * buffer drops it with the rest; and where the buffer's last id is reached, known
 * says what it said there the first time.
 *
 * Grammar: { B [O] { R | Y | I | U | D | T | M transactional } C | M other }.
 * Anything else is CDC_PROTO.
 *
 * Threads: a changes belongs to its caller.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_CHANGE_H
#define CDC_SOURCE_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/base/opt.h"
#include "cdc/record/batch.h"
#include "cdc/source/catalog.h"
#include "cdc/source/pgoutput.h"
#include "cdc/source/timeline.h"

struct cdc_changes {
	struct cdc_catalog *catalog;
	const struct cdc_timelines *timelines;
	unsigned generation;
	cdc_lsn start_lsn;
	/* Of the messages that become records; begin sets it to NULL, which is none.  Constant, and
	 * outlives the changes. */
	const struct cdc_opt_strs *prefixes;
	/* What the last schema record said of each table, by its name; set it after begin, NULL
	 * when the catalog has no describer.  Outlives the changes, which keep it up to date. */
	struct cdc_text_map *known;
	size_t max_record_bytes; /* JSON of a row's or message's record; begin sets it to 0: none */
	uint64_t too_large; /* records that were larger, so that the batch has their stand-ins */

	bool is_open;           /* between Begin and Commit */
	bool is_skipped;        /* the open transaction ended before start_lsn */
	struct pgo_begin begin; /* of the open transaction */
	uint32_t epoch;         /* of the stream at this point */
	uint32_t ordinal;       /* of the last change taken */
	size_t truncated;       /* tables of the truncate in hand that have their record already */
};

/*
 * Begins a stream at start_lsn: transactions that ended at or before it make no
 * records.  Empties the catalog.  catalog and timelines outlive the changes.
 */
void cdc_changes_begin(struct cdc_changes *c, struct cdc_catalog *catalog,
		       const struct cdc_timelines *timelines, cdc_lsn start_lsn,
		       unsigned generation);

/*
 * Takes one message, whose change lies at position.  Appends its records, or the
 * end of its transaction, to the batch.  CDC_BUSY: the batch has no room; take
 * the same message again with an empty one.  CDC_LIMIT: an empty batch has no
 * room either.  CDC_PROTO: the message does not fit the ones before, or a value
 * its type.  Other codes: the catalog's.
 */
enum cdc_code cdc_changes_take(struct cdc_changes *c, const struct pgo_message *m, cdc_lsn position,
			       struct cdc_batch *batch, struct cdc_err *err) CDC_CHECK;

/*
 * Everything before wal_end was sent.  True when that is known to be read, too:
 * no transaction is open, and it is not before the start.
 */
bool cdc_changes_idle(struct cdc_changes *c, cdc_lsn wal_end);

#endif
