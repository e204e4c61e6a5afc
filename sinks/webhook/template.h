/*
 * template.h - a text with placeholders that every record fills in for itself.
 *
 * {schema} and {table} are the two halves of the record's `schema`, {operation} and
 * {id} its members, {key.COLUMN} and {fields.COLUMN} the text of a column.  One that
 * a record does not have, or whose value is null, has no text, and then the record
 * cannot be sent; {key.COLUMN|TEXT} stands for TEXT there.  {{ and }} are braces.
 *
 * No value can end what it stands in.  In a url everything but letters, digits and
 * -._~ is percent-encoded, and a segment of the path with a placeholder in it never
 * becomes empty, "." or "..".  Host and port are the same for every record.  In a header
 * what is not printable ASCII is percent-encoded, and so are space, quote and percent
 * (CloudEvents HTTP protocol binding, section 3.1.3.2).
 *
 * Threads: any, once made.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_TEMPLATE_H
#define SINK_WEBHOOK_TEMPLATE_H

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/record/batch.h"

enum sink_webhook_template_kind {
	SINK_WEBHOOK_TEMPLATE_URL,
	SINK_WEBHOOK_TEMPLATE_LINE, /* "Name: value" of a header */
};

/* What of a record its text depends on. */
enum {
	SINK_WEBHOOK_BY_TABLE = 1,
	SINK_WEBHOOK_BY_OPERATION = 2,
	SINK_WEBHOOK_BY_ROW = 4,
	SINK_WEBHOOK_NEEDS_COLUMN = 8, /* a column without a text for when there is none */
};

struct sink_webhook_template;

/* Is it more than the text it is?  A text without braces needs no template. */
bool sink_webhook_template_is(const char *text);

/* CDC_CONFIG: err says what is wrong and never shows the text, which may hold a secret. */
enum cdc_code sink_webhook_template_new(const char *text, enum sink_webhook_template_kind kind,
					struct sink_webhook_template **ret,
					struct cdc_err *err) CDC_CHECK;
void sink_webhook_template_free(struct sink_webhook_template *t); /* overwrites it; NULL is fine */

unsigned sink_webhook_template_needs(const struct sink_webhook_template *t); /* SINK_WEBHOOK_BY_* */

/*
 * Appends the text for a record.  scratch is overwritten.  CDC_LIMIT: a column has no
 * text, a segment may not be what it would be, or out may not hold it.
 */
enum cdc_code sink_webhook_template_put(const struct sink_webhook_template *t, struct cdc_view view,
					struct cdc_buf *scratch, struct cdc_buf *out,
					struct cdc_err *err) CDC_CHECK;

/* Appends the bytes of text as they may stand in a header's value. */
void sink_webhook_template_encode(struct cdc_buf *out, const char *text, size_t n);

/* How many bytes of a url come before everything that a placeholder is part of: its path up to
 * the segment, or all of its path.  *ret_path: a part of the path is missing. */
size_t sink_webhook_template_fixed(const char *url, bool *ret_path);

#endif
