/*
 * scan.h - where things lie in the JSON of a record.
 *
 * The one place that reads records: it finds spans and never builds values, so
 * no number is rounded and no duplicate name lost.  Bytes are trusted by nobody:
 * every span that is given out lies inside the input, and what is given out is
 * JSON by RFC 8259, with one exception: inside a value that is nested deeper
 * than 64 levels only brackets and strings are looked at (PostgreSQL takes json
 * of thousands of levels).
 *
 * The value of a member is everything between its colon and the comma or brace
 * behind it: a json column is verbatim and may bring white space of its own.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_SCAN_H
#define CDC_RECORD_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/record/batch.h"

/* A walk over the members of one object, or the elements of one array. */
struct cdc_scan {
	const char *json;
	uint32_t at, end; /* what is left, up to the closing bracket */
	bool is_object;
	bool is_first;
	bool is_bad; /* sticky: it is not JSON; asked when next has returned false */
};

struct cdc_member {
	struct cdc_span name;  /* between the quotes, still escaped; of an array: len 0 */
	struct cdc_span value; /* as above */
};

/*
 * Begins a walk over the object or array at span of json (len bytes, at most
 * 4 GiB - 1).  A span that is neither, or that does not lie inside, is bad.
 */
void cdc_scan_begin(struct cdc_scan *s, const char *json, size_t len, struct cdc_span span);

/* The next member; false behind the last one, and when what comes is not JSON. */
bool cdc_scan_next(struct cdc_scan *s, struct cdc_member *ret);

/*
 * The text that a JSON string stands for.  span is what lies between its quotes.
 * False: not the inside of a string, half a surrogate pair, or longer than size
 * bytes.  No NUL is added.
 */
bool cdc_scan_text(const char *json, struct cdc_span span, char *ret_text, size_t size,
		   size_t *ret_len);

/*
 * Appends a record that came as JSON alone to the batch, with its offset block
 * rebuilt: everything that cdc_write_change fills, but for CDC_RECORD_MOVE_OLD and
 * OLD_ROW, which do not show in the JSON (MOVE_NEW does: an update with part 2).
 * Members may stand in any order, unknown ones are left alone; known ones have no
 * white space round their values, as the writer makes them.  CDC_PROTO: not a record.  CDC_LIMIT,
 * CDC_NOMEM: it does not fit.  After a failure the batch is as it was.
 */
enum cdc_code cdc_scan_record(struct cdc_batch *batch, const char *json, size_t len,
			      struct cdc_err *err) CDC_CHECK;

#endif
