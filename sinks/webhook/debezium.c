#include "sinks/webhook/debezium.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/base64.h"
#include "cdc/record/scan.h"
#include "sinks/webhook/parts.h"

#define UNAVAILABLE "\"__debezium_unavailable_value\""

/* A record, and where its event goes. */
struct event {
	struct cdc_view view;
	const char *json;
	struct sink_webhook_parts parts;
	struct cdc_buf *out;
};

static void put_span(const struct event *e, struct cdc_span s)
{
	cdc_buf_put(e->out, e->json + s.off, s.len);
}

static void put_member(const struct event *e, bool *is_first, struct cdc_span name,
		       struct cdc_span value)
{
	cdc_buf_puts(e->out, *is_first ? "\"" : ",\"");
	put_span(e, name);
	cdc_buf_puts(e->out, "\":");
	put_span(e, value);
	*is_first = false;
}

static bool is_same(const struct event *e, struct cdc_span a, struct cdc_span b)
{
	return a.len == b.len && memcmp(e->json + a.off, e->json + b.off, a.len) == 0;
}

/* The members of an object, with those of changes, which come in the same order, in their place;
 * behind them what changes has more.  False: one of the two is no object. */
static bool put_changed(const struct event *e, struct cdc_span object, struct cdc_span changes)
{
	size_t len = e->view.rec->json_len;
	bool is_first = true, has_change;
	struct cdc_member m, change;
	struct cdc_scan members, changed;

	cdc_scan_begin(&members, e->json, len, object);
	cdc_scan_begin(&changed, e->json, len, changes);
	has_change = cdc_scan_next(&changed, &change);
	cdc_buf_putc(e->out, '{');
	while (cdc_scan_next(&members, &m)) {
		bool is_changed = has_change && is_same(e, m.name, change.name);

		put_member(e, &is_first, m.name, is_changed ? change.value : m.value);
		if (is_changed)
			has_change = cdc_scan_next(&changed, &change);
	}
	for (; has_change; has_change = cdc_scan_next(&changed, &change))
		put_member(e, &is_first, change.name, change.value);
	cdc_buf_putc(e->out, '}');
	return !members.is_bad && !changed.is_bad;
}

/* The row after the change, and a mark in place of every value that the log leaves out. */
static bool put_row(const struct event *e)
{
	const struct cdc_record *r = e->view.rec;
	struct cdc_member m;
	struct cdc_scan s;

	if (!sink_webhook_parts_has(e->json, r->fields)) {
		cdc_buf_puts(e->out, "null");
		return true;
	}
	if (!r->unchanged.len) {
		put_span(e, r->fields);
		return true;
	}
	cdc_buf_put(e->out, e->json + r->fields.off, r->fields.len - 1);
	cdc_scan_begin(&s, e->json, r->json_len, r->unchanged);
	for (bool is_first = r->cols == 0; cdc_scan_next(&s, &m); is_first = false) {
		if (!is_first)
			cdc_buf_putc(e->out, ',');
		put_span(e, m.value);
		cdc_buf_puts(e->out, ":" UNAVAILABLE);
	}
	cdc_buf_putc(e->out, '}');
	return !s.is_bad;
}

static bool put_before(const struct event *e)
{
	const struct cdc_record *r = e->view.rec;

	if (r->op == CDC_OP_DELETE)
		return put_row(e);
	if (r->op == CDC_OP_UPDATE && sink_webhook_parts_has(e->json, r->changes)) {
		bool is_move = r->flags & CDC_RECORD_MOVE_NEW;

		/* Without a full old row only the old key is known; of one that does not go out,
		 * what `changes` has. */
		if (!is_move || sink_webhook_parts_has(e->json, r->key))
			return put_changed(e, is_move ? r->key : r->fields, r->changes);
		put_span(e, r->changes);
		return true;
	}
	cdc_buf_puts(e->out, "null");
	return true;
}

static bool put_after(const struct event *e)
{
	if (e->view.rec->op == CDC_OP_INSERT || e->view.rec->op == CDC_OP_UPDATE ||
	    e->view.rec->op == CDC_OP_READ)
		return put_row(e);
	cdc_buf_puts(e->out, "null");
	return true;
}

/* Debezium's content is base64 whatever it is; ours is text where it can be. */
static bool put_content(const struct event *e, struct cdc_span content, bool is_base64)
{
	struct cdc_span text = {.off = content.off + 1, .len = content.len - 2};
	size_t len;
	char *bytes;

	if (is_base64) {
		put_span(e, content);
		return true;
	}
	bytes = malloc(text.len + 1);
	if (!bytes) {
		e->out->failed = true;
		return true;
	}
	if (!cdc_scan_text(e->json, text, bytes, text.len, &len)) {
		free(bytes);
		return false;
	}
	cdc_buf_putc(e->out, '"');
	cdc_base64_put(e->out, bytes, len);
	cdc_buf_putc(e->out, '"');
	free(bytes);
	return true;
}

static bool put_message(const struct event *e)
{
	struct cdc_span prefix = {0}, content = {0};
	bool is_base64 = false;
	struct cdc_member m;
	struct cdc_scan s;

	cdc_scan_begin(&s, e->json, e->view.rec->json_len, e->view.rec->fields);
	while (cdc_scan_next(&s, &m)) {
		const char *name = e->json + m.name.off;

		if (m.name.len == 6 && memcmp(name, "prefix", 6) == 0)
			prefix = m.value;
		else if (m.name.len == 7 && memcmp(name, "content", 7) == 0)
			content = m.value;
		else if (m.name.len == 8 && memcmp(name, "encoding", 8) == 0)
			is_base64 = m.value.len == 8; /* "base64" with its quotes; or "text" */
	}
	if (s.is_bad || prefix.len < 2 || content.len < 2)
		return false;
	cdc_buf_puts(e->out, "\"message\":{\"prefix\":");
	put_span(e, prefix);
	cdc_buf_puts(e->out, ",\"content\":");
	if (!put_content(e, content, is_base64))
		return false;
	cdc_buf_puts(e->out, "},");
	return true;
}

/* "public.orders" as two members; a message is of no table. */
static void put_table(const struct event *e)
{
	struct cdc_span all = e->parts.schema;
	const char *text = e->json + all.off, *dot = memchr(text, '.', all.len);
	uint32_t before = dot ? (uint32_t)(dot - text) : 0;

	if (e->view.rec->op == CDC_OP_MESSAGE || !dot) {
		cdc_buf_puts(e->out, ",\"schema\":\"\",\"table\":\"\"");
		return;
	}
	cdc_buf_puts(e->out, ",\"schema\":");
	put_span(e, (struct cdc_span){.off = all.off, .len = before});
	cdc_buf_puts(e->out, "\",\"table\":\"");
	put_span(e, (struct cdc_span){.off = all.off + before + 1, .len = all.len - before - 1});
}

static bool put_source(const struct sink_webhook_debezium *d, const struct event *e)
{
	const struct cdc_record *r = e->view.rec;
	struct cdc_span lsn = {e->parts.position.off + 1, e->parts.position.len - 2};
	int64_t commit_ms = r->commit_us ? r->commit_us / 1000 : d->now_ms;
	char text[256];
	cdc_lsn position;
	int n;

	if (!cdc_lsn_parse(e->json + lsn.off, lsn.len, &position))
		return false;
	cdc_buf_puts(e->out, "\"source\":{\"version\":\"" WALPOST_VERSION
			     "\",\"connector\":\"postgresql\",\"name\":");
	cdc_buf_puts(e->out, d->name);
	n = snprintf(text, sizeof(text),
		     ",\"ts_ms\":%" PRId64 ",\"snapshot\":\"%s\",\"db\":", commit_ms,
		     r->op == CDC_OP_READ ? "true" : "false");
	cdc_buf_put(e->out, text, (size_t)n);
	cdc_buf_puts(e->out, d->database);
	n = snprintf(text, sizeof(text),
		     ",\"sequence\":\"[\\\"%" PRIu64 "\\\",\\\"%" PRIu64 "\\\"]\"",
		     r->id.commit_lsn, position);
	cdc_buf_put(e->out, text, (size_t)n);
	put_table(e);
	cdc_buf_puts(e->out, ",\"txId\":");
	put_span(e, e->parts.xid);
	n = snprintf(text, sizeof(text), ",\"lsn\":%" PRIu64 ",\"xmin\":null,\"id\":", position);
	cdc_buf_put(e->out, text, (size_t)n);
	put_span(e, e->parts.id);
	cdc_buf_putc(e->out, '}');
	return true;
}

enum cdc_code sink_webhook_debezium_put(const struct sink_webhook_debezium *d, struct cdc_view view,
					struct cdc_buf *out, struct cdc_err *err)
{
	static const char ops[CDC_OP_COUNT] = {
		[CDC_OP_INSERT] = 'c',   [CDC_OP_UPDATE] = 'u', [CDC_OP_DELETE] = 'd',
		[CDC_OP_TRUNCATE] = 't', [CDC_OP_READ] = 'r',   [CDC_OP_MESSAGE] = 'm',
	};
	struct event e = {.view = view, .json = cdc_view_json(view), .out = out};
	char op = ops[view.rec->op], end[64], id[CDC_ID_TEXT];
	enum cdc_code rc;
	bool is_whole;
	int n;

	if (!op)
		return cdc_err_set(err, CDC_CONFIG, "Debezium has no event for %s records",
				   cdc_op_name((enum cdc_op)view.rec->op));
	rc = sink_webhook_parts_find(view, &e.parts, err);
	if (rc)
		return rc;
	cdc_buf_putc(out, '{');
	if (op == 'm') {
		is_whole = put_message(&e);
	} else {
		cdc_buf_puts(out, "\"before\":");
		is_whole = put_before(&e);
		cdc_buf_puts(out, ",\"after\":");
		is_whole = is_whole && put_after(&e);
		cdc_buf_putc(out, ',');
	}
	is_whole = is_whole && put_source(d, &e);
	n = snprintf(end, sizeof(end), ",\"transaction\":null,\"op\":\"%c\",\"ts_ms\":%" PRId64 "}",
		     op, d->now_ms);
	cdc_buf_put(out, end, (size_t)n);
	if (is_whole)
		return CDC_OK;
	(void)cdc_id_format(&view.rec->id, id);
	return cdc_err_set(err, CDC_CORRUPT, "record %s is not whole", id);
}
