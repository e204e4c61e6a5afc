#include "sinks/webhook/body.h"

#include <inttypes.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/record/value.h"
#include "sinks/webhook/cloudevents.h"
#include "sinks/webhook/debezium.h"
#include "sinks/webhook/parts.h"

#define HEAD_MAX    4096
#define NO_METADATA "}}}"

static void put_text(struct cdc_buf *out, const char *text)
{
	cdc_value_string(out, text, strlen(text));
}

static void put_brackets(struct sink_webhook_body *b)
{
	cdc_buf_putc(&b->head, '[');
	b->tail = "]";
}

static bool is_single(const struct sink_webhook_sync *s)
{
	return s->body == SINK_WEBHOOK_CLOUDEVENTS ? s->cloudevents_mode != SINK_WEBHOOK_BATCHED
						   : !s->wrap;
}

enum cdc_code sink_webhook_body_init(struct sink_webhook_body *b,
				     const struct sink_webhook_body_settings *s,
				     struct cdc_err *err)
{
	*b = (struct sink_webhook_body){
		.shape = (enum sink_webhook_shape)s->sync->body,
		.mode = (enum sink_webhook_mode)s->sync->cloudevents_mode,
		.tail = "",
		.sync_name = s->sync_name,
	};
	cdc_buf_init(&b->head, HEAD_MAX);
	cdc_buf_init(&b->name, HEAD_MAX);
	cdc_buf_init(&b->database, HEAD_MAX);
	switch (b->shape) {
	case SINK_WEBHOOK_SYNC_RECORDS:
		cdc_buf_puts(&b->head, "{\"event\":\"sync.records\",\"object\":{\"id\":");
		put_text(&b->head, s->sync_id);
		cdc_buf_puts(&b->head, ",\"name\":");
		put_text(&b->head, s->sync_name);
		cdc_buf_puts(&b->head, ",\"records\":[");
		b->tail = "],\"metadata\":{" NO_METADATA;
		break;
	case SINK_WEBHOOK_DEBEZIUM:
		put_text(&b->name, s->sync_name);
		cdc_buf_putc(&b->name, '\0');
		put_text(&b->database, s->database ? s->database : "");
		cdc_buf_putc(&b->database, '\0');
		if (!is_single(s->sync))
			put_brackets(b);
		break;
	case SINK_WEBHOOK_RECORDS:
	case SINK_WEBHOOK_CLOUDEVENTS:
		if (!is_single(s->sync))
			put_brackets(b);
		break;
	}
	if (!b->head.failed && !b->name.failed && !b->database.failed)
		return CDC_OK;
	return cdc_err_set(err, CDC_NOMEM, "out of memory for a body");
}

void sink_webhook_body_clear(struct sink_webhook_body *b)
{
	cdc_buf_clear(&b->head);
	cdc_buf_clear(&b->name);
	cdc_buf_clear(&b->database);
}

enum cdc_code sink_webhook_body_check(const struct sink_webhook_sync *sync,
				      const struct sink_plan *plan, const char **ret_key,
				      struct cdc_err *err)
{
	bool is_events = sync->body == SINK_WEBHOOK_CLOUDEVENTS;

	*ret_key = "cloudevents_mode";
	if (!is_events && sync->cloudevents_mode != SINK_WEBHOOK_BATCHED)
		return cdc_err_set(err, CDC_CONFIG,
				   "this is a mode of body: cloudevents; set that, or remove "
				   "cloudevents_mode");
	*ret_key = "wrap";
	if (!sync->wrap && is_events)
		return cdc_err_set(err, CDC_CONFIG,
				   "wrap is for body: records and debezium; cloudevents_mode: "
				   "structured sends one event without an array");
	if (!sync->wrap && sync->body == SINK_WEBHOOK_SYNC_RECORDS)
		return cdc_err_set(err, CDC_CONFIG,
				   "body: sync.records is an envelope; wrap: false goes with body: "
				   "records or debezium");
	*ret_key = "batch_size";
	if (is_single(sync) && plan->batch_size != 1)
		return cdc_err_set(err, CDC_CONFIG,
				   "%s sends one record per request; set batch_size: 1",
				   is_events ? sync->cloudevents_mode == SINK_WEBHOOK_BINARY
						       ? "cloudevents_mode: binary"
						       : "cloudevents_mode: structured"
					     : "wrap: false");
	*ret_key = "partial_success";
	if (sync->partial_success && plan->is_grouped)
		return cdc_err_set(
			err, CDC_CONFIG,
			"group: transaction is all or nothing, so no part of a request can "
			"be refused; remove one of the two");
	*ret_key = "operations";
	if (sync->body == SINK_WEBHOOK_DEBEZIUM && plan->operations & 1u << CDC_OP_SCHEMA)
		return cdc_err_set(err, CDC_CONFIG,
				   "body: debezium has no event for schema records; remove schema");
	*ret_key = "marks";
	if (sync->body == SINK_WEBHOOK_DEBEZIUM && plan->operations & 1u << CDC_OP_BACKFILL)
		return cdc_err_set(
			err, CDC_CONFIG,
			"body: debezium has no event for backfill records; remove marks");
	return CDC_OK;
}

/* What a request says of the transaction that it is, or is a part of. */
static enum cdc_code put_transaction(const struct sink_job *job, struct cdc_buf *out,
				     struct cdc_err *err)
{
	const char *json = cdc_view_json(job->views[0]);
	struct sink_webhook_parts p;
	enum cdc_code rc = sink_webhook_parts_find(job->views[0], &p, err);

	if (rc)
		return rc;
	cdc_buf_puts(out, "\"transaction\":");
	cdc_buf_put(out, json + p.commit.off, p.commit.len - 1); /* but for its brace */
	cdc_buf_printf(out, ",\"part\":%" PRIu64 ",\"last\":%s}", job->part,
		       job->is_last_part ? "true" : "false");
	return CDC_OK;
}

/* The envelope's metadata in place of its empty ones. */
static enum cdc_code put_metadata(const struct sink_job *job, struct cdc_buf *out,
				  struct cdc_err *err)
{
	enum cdc_code rc;

	out->len -= strlen(NO_METADATA);
	rc = put_transaction(job, out, err);
	cdc_buf_puts(out, "}}}");
	if (!rc && out->failed)
		rc = cdc_err_set(err, out->no_memory ? CDC_NOMEM : CDC_LIMIT,
				 "a request of more than %zu bytes does not fit", out->max);
	return rc;
}

/* Records as the bytes they are, into room that was made for all of it. */
static enum cdc_code copy_records(const struct sink_webhook_body *b, const struct cdc_view *views,
				  size_t n, struct cdc_buf *out, struct cdc_err *err)
{
	size_t tail = strlen(b->tail), need = b->head.len + tail + n;
	uint8_t *to;

	for (size_t i = 0; i < n; i++)
		need += views[i].rec->json_len;
	to = cdc_buf_reserve(out, need);
	if (!to)
		return cdc_err_set(err, need > out->max ? CDC_LIMIT : CDC_NOMEM,
				   "a request of %zu bytes does not fit", need);
	if (b->head.len)
		memcpy(to, b->head.data, b->head.len);
	to += b->head.len;
	for (size_t i = 0; i < n; i++) {
		if (i)
			*to++ = ',';
		memcpy(to, cdc_view_json(views[i]), views[i].rec->json_len);
		to += views[i].rec->json_len;
	}
	memcpy(to, b->tail, tail);
	out->len = (size_t)(to + tail - out->data);
	return CDC_OK;
}

static enum cdc_code write_events(const struct sink_webhook_body *b, const struct cdc_view *views,
				  size_t n, struct cdc_buf *out, struct cdc_err *err)
{
	const struct sink_webhook_debezium debezium = {
		.name = (const char *)b->name.data,
		.database = (const char *)b->database.data,
		.now_ms = cdc_clock_wall_us() / 1000,
	};
	enum cdc_code rc = CDC_OK;

	cdc_buf_put(out, b->head.data, b->head.len);
	for (size_t i = 0; !rc && !out->failed && i < n; i++) {
		if (i)
			cdc_buf_putc(out, ',');
		rc = b->shape == SINK_WEBHOOK_DEBEZIUM
			     ? sink_webhook_debezium_put(&debezium, views[i], out, err)
			     : sink_webhook_cloudevents_put(b->sync_name, views[i], out, err);
	}
	cdc_buf_puts(out, b->tail);
	if (!rc && out->failed)
		rc = cdc_err_set(err, CDC_LIMIT, "a request of more than %zu bytes does not fit",
				 out->max);
	return rc;
}

static bool is_binary(const struct sink_webhook_body *b)
{
	return b->shape == SINK_WEBHOOK_CLOUDEVENTS && b->mode == SINK_WEBHOOK_BINARY;
}

enum cdc_code sink_webhook_body_write(const struct sink_webhook_body *b, const struct sink_job *job,
				      struct cdc_buf *out, struct cdc_err *err)
{
	enum cdc_code rc;
	bool is_made = b->shape == SINK_WEBHOOK_DEBEZIUM ||
		       (b->shape == SINK_WEBHOOK_CLOUDEVENTS && !is_binary(b));

	CDC_ASSERT(job->n == 1 || b->head.len);
	rc = is_made ? write_events(b, job->views, job->n, out, err)
		     : copy_records(b, job->views, job->n, out, err);
	if (!rc && job->part && b->shape == SINK_WEBHOOK_SYNC_RECORDS)
		rc = put_metadata(job, out, err);
	return rc;
}

/* Where the body has no place to say it. */
static void put_transaction_lines(const struct sink_job *job, struct cdc_buf *lines)
{
	char lsn[CDC_LSN_TEXT];

	(void)cdc_lsn_format(job->views[0].rec->id.commit_lsn, lsn);
	cdc_buf_printf(lines, "walpost-transaction: %s%c", lsn, '\0');
	cdc_buf_printf(lines, "walpost-transaction-part: %" PRIu64 "%c", job->part, '\0');
	cdc_buf_printf(lines, "walpost-transaction-last: %s%c",
		       job->is_last_part ? "true" : "false", '\0');
}

enum cdc_code sink_webhook_body_lines(const struct sink_webhook_body *b, const struct sink_job *job,
				      struct cdc_buf *lines, struct cdc_err *err)
{
	static const char json[] = "Content-Type: application/json";
	static const char event[] = "Content-Type: application/cloudevents+json";
	static const char events[] = "Content-Type: application/cloudevents-batch+json";

	if (b->shape != SINK_WEBHOOK_CLOUDEVENTS || is_binary(b))
		cdc_buf_put(lines, json, sizeof(json));
	else if (b->mode == SINK_WEBHOOK_STRUCTURED)
		cdc_buf_put(lines, event, sizeof(event));
	else
		cdc_buf_put(lines, events, sizeof(events));
	if (job->part && b->shape != SINK_WEBHOOK_SYNC_RECORDS)
		put_transaction_lines(job, lines);
	return is_binary(b)
		       ? sink_webhook_cloudevents_lines(b->sync_name, job->views[0], lines, err)
		       : CDC_OK;
}
