#include "sinks/webhook/body.h"

#include <string.h>

#define HEAD_MAX 4096

static void put_text(struct cdc_buf *out, const char *text)
{
	cdc_buf_putc(out, '"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			cdc_buf_putc(out, '\\');
		if (*c < 0x20)
			cdc_buf_printf(out, "\\u%04x", *c);
		else
			cdc_buf_putc(out, (char)*c);
	}
	cdc_buf_putc(out, '"');
}

enum cdc_code sink_webhook_body_init(struct sink_webhook_body *b, enum sink_webhook_shape shape,
				     const char *sync_id, const char *sync_name,
				     struct cdc_err *err)
{
	cdc_buf_init(&b->head, HEAD_MAX);
	switch (shape) {
	case SINK_WEBHOOK_SYNC_RECORDS:
		cdc_buf_puts(&b->head, "{\"event\":\"sync.records\",\"object\":{\"id\":");
		put_text(&b->head, sync_id);
		cdc_buf_puts(&b->head, ",\"name\":");
		put_text(&b->head, sync_name);
		cdc_buf_puts(&b->head, ",\"records\":[");
		b->tail = "],\"metadata\":{}}}";
		break;
	case SINK_WEBHOOK_RECORDS:
		cdc_buf_putc(&b->head, '[');
		b->tail = "]";
		break;
	}
	return b->head.failed ? cdc_err_set(err, CDC_NOMEM, "out of memory for a body") : CDC_OK;
}

void sink_webhook_body_clear(struct sink_webhook_body *b)
{
	cdc_buf_clear(&b->head);
}

enum cdc_code sink_webhook_body_write(const struct sink_webhook_body *b,
				      const struct cdc_view *views, size_t n, struct cdc_buf *out,
				      struct cdc_err *err)
{
	size_t tail = strlen(b->tail), need = b->head.len + tail + n;
	uint8_t *to;

	for (size_t i = 0; i < n; i++)
		need += views[i].rec->json_len;
	to = cdc_buf_reserve(out, need);
	if (!to)
		return cdc_err_set(err, need > out->max ? CDC_LIMIT : CDC_NOMEM,
				   "a request of %zu bytes does not fit", need);
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
