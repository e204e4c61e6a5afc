/*
 * id.h - the identity of a record: unique, the same for ever, in source order.
 *
 * Text: "<epoch 8>-<commit LSN 16>-<ordinal 8>-<part 4>" in lower-case hex of
 * fixed width; a backfill row has "-<range 8>-<row 8>" behind it.  The byte
 * order of the texts is the order of cdc_id_cmp.  An id whose fields are all
 * zero stands for "before everything".
 *
 * Epoch: the top 8 bits are the generation, the low 24 the timeline on which the
 * commit LSN was written.  Ordinal: the wire messages of the transaction that
 * name a row, truncation or message, from 1.  Part: 0 a schema record before
 * the row, 1 the row, 2 the second half of a key change; 1...n for the tables
 * of a TRUNCATE.  Ordinal and part of a backfill row are 0.  The marks of a copy have
 * its point, too: the begin of its n-th table is range 0, row n, below every row, the end
 * range CDC_ID_RANGE_END, row n, above every row.
 *
 * Threads: any.  Layer: record.
 */
#ifndef CDC_RECORD_ID_H
#define CDC_RECORD_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/lsn.h"

struct cdc_id {
	cdc_lsn commit_lsn;
	uint32_t epoch;
	uint32_t ordinal;
	uint32_t range, row; /* 0, but for backfill rows: both count from 1; and marks */
	uint16_t part;
	uint16_t pad[3]; /* zero, so that equal ids are equal bytes */
};

#define CDC_ID_RANGE_END UINT32_MAX

#define CDC_ID_TEXT 58 /* longest text, NUL included */

#define CDC_EPOCH(generation, timeline)                                                            \
	((uint32_t)(generation) << 24 | ((uint32_t)(timeline)&0xffffff))
#define CDC_EPOCH_GENERATION(epoch) ((uint32_t)(epoch) >> 24)
#define CDC_EPOCH_TIMELINE(epoch)   ((uint32_t)(epoch)&0xffffff)

/* Below, at, above: negative, 0, positive. */
int cdc_id_cmp(const struct cdc_id *a, const struct cdc_id *b);
bool cdc_id_is_zero(const struct cdc_id *id);

/* Writes the text, returns its length without the NUL (39, or 57 for a backfill row and a mark). */
size_t cdc_id_format(const struct cdc_id *id, char ret_text[CDC_ID_TEXT]);

/* Reads exactly n bytes of text; false if they are not an id. */
bool cdc_id_parse(const char *text, size_t n, struct cdc_id *ret_id);

/* How far something has come in one stream: everything at or below id is done.
 * The embedded buffer has the one stream 0; on Kafka a stream is a topic-partition. */
struct cdc_stream_position {
	uint32_t stream;
	struct cdc_id id;
};

#endif
