#include "sinks/webhook/cloudevents.h"

#include <string.h>

#include "sinks/webhook/parts.h"
#include "sinks/webhook/template.h"

#define SOURCE "/walpost/" /* and the name of the sync, which needs no escaping */
#define TYPE   "walpost."

static void put_span(struct cdc_buf *out, const char *json, struct cdc_span s)
{
	cdc_buf_put(out, json + s.off, s.len);
}

enum cdc_code sink_webhook_cloudevents_put(const char *sync_name, struct cdc_view view,
					   struct cdc_buf *out, struct cdc_err *err)
{
	const char *json = cdc_view_json(view);
	struct sink_webhook_parts p;
	enum cdc_code rc = sink_webhook_parts_find(view, &p, err);

	if (rc)
		return rc;
	cdc_buf_puts(out, "{\"specversion\":\"1.0\",\"id\":");
	put_span(out, json, p.id);
	cdc_buf_puts(out, ",\"source\":\"" SOURCE);
	cdc_buf_puts(out, sync_name);
	cdc_buf_puts(out, "\",\"type\":\"" TYPE);
	cdc_buf_puts(out, cdc_op_name((enum cdc_op)view.rec->op));
	cdc_buf_puts(out, "\",\"subject\":");
	put_span(out, json, p.schema);
	if (sink_webhook_parts_has(json, p.time)) {
		cdc_buf_puts(out, ",\"time\":");
		put_span(out, json, p.time);
	}
	cdc_buf_puts(out, ",\"datacontenttype\":\"application/json\",\"data\":");
	cdc_buf_put(out, json, view.rec->json_len);
	cdc_buf_putc(out, '}');
	return CDC_OK;
}

static void put_line(struct cdc_buf *lines, const char *name, const char *text, size_t n)
{
	cdc_buf_puts(lines, name);
	sink_webhook_template_encode(lines, text, n);
	cdc_buf_putc(lines, '\0');
}

enum cdc_code sink_webhook_cloudevents_lines(const char *sync_name, struct cdc_view view,
					     struct cdc_buf *lines, struct cdc_err *err)
{
	const char *json = cdc_view_json(view), *table;
	const char *op = cdc_op_name((enum cdc_op)view.rec->op);
	struct sink_webhook_parts p;
	enum cdc_code rc = sink_webhook_parts_find(view, &p, err);
	size_t len;

	if (rc)
		return rc;
	put_line(lines, "ce-specversion: ", "1.0", 3);
	put_line(lines, "ce-id: ", json + p.id.off + 1, p.id.len - 2);
	put_line(lines, "ce-source: " SOURCE, sync_name, strlen(sync_name));
	put_line(lines, "ce-type: " TYPE, op, strlen(op));
	table = cdc_view_table(view, &len);
	put_line(lines, "ce-subject: ", table, len);
	if (sink_webhook_parts_has(json, p.time))
		put_line(lines, "ce-time: ", json + p.time.off + 1, p.time.len - 2);
	return CDC_OK;
}
