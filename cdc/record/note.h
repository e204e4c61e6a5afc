/*
 * note.h - records that are of no row: messages, descriptions of tables, and the
 * begin and end of their copies.
 *
 * They have the members of every record (cdc/record/writer.h) in the same order.
 * `key` is null, and they are barriers of the table they are filed under.
 *
 * begin, then append the JSON object of `fields` to batch->json, perhaps
 * changes and the object of `changes`, then end.  No other call on the batch in
 * between.
 *
 * Threads: a batch belongs to its caller.
 * Layer: record.
 */
#ifndef CDC_RECORD_NOTE_H
#define CDC_RECORD_NOTE_H

#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/record/batch.h"

struct cdc_note {
	enum cdc_op op;
	const char *table; /* "public.orders": what it is filed under */
	struct cdc_id id;
	cdc_lsn position;
	uint32_t xid;      /* 0: null */
	int64_t commit_us; /* microseconds since 1970; 0: null */
	size_t max_bytes;  /* of the record's JSON; 0: as many as the batch has room for */
};

/* CDC_LIMIT, CDC_NOMEM: nothing was begun. */
enum cdc_code cdc_note_begin(struct cdc_batch *batch, const struct cdc_note *note,
			     struct cdc_record **ret_record, struct cdc_err *err) CDC_CHECK;
/* `fields` is complete; `changes` follows. */
void cdc_note_changes(struct cdc_batch *batch, struct cdc_record *record);
/* CDC_LIMIT, CDC_NOMEM: it does not fit in what is left of the batch, or in max_bytes; no record
 * was appended. */
enum cdc_code cdc_note_end(struct cdc_batch *batch, const struct cdc_note *note,
			   struct cdc_record *record, struct cdc_err *err) CDC_CHECK;

/* Appends what stands in for a record that end refused (CDC_RECORD_TOO_LARGE), whose content has so
 * many bytes.  CDC_LIMIT, CDC_NOMEM: as for end. */
enum cdc_code cdc_note_stand_in(struct cdc_batch *batch, const struct cdc_note *note,
				uint64_t bytes, struct cdc_err *err) CDC_CHECK;

/*
 * Appends `"encoding":"text","content":"..."` when the bytes are UTF-8 (they need
 * not be printable), else `"encoding":"base64","content":"..."` (RFC 4648 section 4).
 */
void cdc_note_content(struct cdc_buf *out, const uint8_t *bytes, size_t n);

#endif
