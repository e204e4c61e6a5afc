/*
 * text.h - the text that a JSON value of a record stands for.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_TEXT_H
#define CDC_RECORD_TEXT_H

#include <stddef.h>

#include "cdc/base/buf.h"
#include "cdc/record/batch.h"

struct cdc_text {
	const char *at;
	size_t len;
};

/* A value without the white space round it, which a json column may bring. */
struct cdc_span cdc_text_trim(const char *json, struct cdc_span value);

/*
 * Of a string what it stands for, of any other value its JSON.  value: trimmed, not
 * empty.  It lies in json, or in scratch until that is used again; without memory
 * scratch has failed, which is sticky, and the text is empty.  A string of half a
 * surrogate pair, which json allows, has no text: what is between its quotes stands.
 */
struct cdc_text cdc_text_of(const char *json, struct cdc_span value, struct cdc_buf *scratch);

#endif
