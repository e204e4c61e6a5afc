#include "cdc/record/note.h"

#include <string.h>

#include "cdc/base/base64.h"
#include "cdc/record/key.h"
#include "cdc/record/scan.h"
#include "cdc/record/value.h"
#include "cdc/record/writer.h"

static struct cdc_span span_since(const struct cdc_batch *b, const struct cdc_record *r,
				  uint32_t off)
{
	return (struct cdc_span){.off = off, .len = (uint32_t)(b->json.len - r->json_off) - off};
}

enum cdc_code cdc_note_begin(struct cdc_batch *batch, const struct cdc_note *note,
			     struct cdc_record **ret_record, struct cdc_err *err)
{
	const size_t len = strlen(note->table);
	char id[CDC_ID_TEXT];
	struct cdc_record *r;
	uint16_t table;
	enum cdc_code rc = cdc_batch_table(batch, note->table, len, &table, err);

	if (!rc)
		rc = cdc_batch_begin(batch, &r, err);
	if (rc)
		return rc;
	r->id = note->id;
	r->commit_us = note->commit_us;
	r->table = table;
	r->op = (uint8_t)note->op;
	r->flags = CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY;
	r->key_hash = cdc_key_hash(note->table, len, NULL, 0);
	if (note->max_bytes)
		cdc_batch_cap(batch, note->max_bytes);
	(void)cdc_id_format(&note->id, id);
	cdc_buf_printf(&batch->json, "{\"id\":\"%s\",\"operation\":\"%s\",\"schema\":", id,
		       cdc_op_name(note->op));
	cdc_value_string(&batch->json, note->table, len);
	cdc_buf_puts(&batch->json, ",\"key\":null");
	r->key = span_since(batch, r, (uint32_t)(batch->json.len - r->json_off - 4));
	cdc_buf_puts(&batch->json, ",\"fields\":");
	r->fields.off = (uint32_t)(batch->json.len - r->json_off);
	*ret_record = r;
	return CDC_OK;
}

void cdc_note_changes(struct cdc_batch *batch, struct cdc_record *record)
{
	record->fields = span_since(batch, record, record->fields.off);
	cdc_buf_puts(&batch->json, ",\"changes\":");
	record->changes.off = (uint32_t)(batch->json.len - record->json_off);
}

/* Where the members of fields end. */
static void note_columns(struct cdc_batch *b, struct cdc_record *r)
{
	struct cdc_member m;
	struct cdc_scan s;

	cdc_scan_begin(&s, (const char *)b->json.data + r->json_off, b->json.len - r->json_off,
		       r->fields);
	while (cdc_scan_next(&s, &m))
		cdc_batch_col(b, r, m.value.off + m.value.len - r->fields.off);
}

enum cdc_code cdc_note_end(struct cdc_batch *batch, const struct cdc_note *note,
			   struct cdc_record *record, struct cdc_err *err)
{
	const struct cdc_change tail = {.id = note->id,
					.position = note->position,
					.xid = note->xid,
					.commit_us = note->commit_us};

	if (record->changes.off)
		record->changes = span_since(batch, record, record->changes.off);
	else
		record->fields = span_since(batch, record, record->fields.off);
	if (!batch->json.failed)
		note_columns(batch, record);
	cdc_write_tail(&batch->json, record, &tail);
	return cdc_batch_end(batch, err);
}

enum cdc_code cdc_note_stand_in(struct cdc_batch *batch, const struct cdc_note *note,
				uint64_t bytes, struct cdc_err *err)
{
	struct cdc_note small = *note;
	const struct cdc_change tail = {.id = note->id,
					.position = note->position,
					.xid = note->xid,
					.commit_us = note->commit_us,
					.max_bytes = note->max_bytes,
					.too_large = bytes};
	struct cdc_record *r;
	enum cdc_code rc;

	small.max_bytes = 0;
	rc = cdc_note_begin(batch, &small, &r, err);
	if (rc)
		return rc;
	r->flags |= CDC_RECORD_TOO_LARGE;
	cdc_buf_puts(&batch->json, "null");
	r->fields = span_since(batch, r, r->fields.off);
	cdc_write_tail(&batch->json, r, &tail);
	return cdc_batch_end(batch, err);
}

/* How long the character is that begins here; 0: these bytes are not UTF-8 (RFC 3629). */
static size_t character(const uint8_t *at, size_t n)
{
	const uint8_t c = at[0];
	size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Overlong forms, surrogates, and what lies above U+10FFFF. */
	if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] >= 0xa0) ||
	    (c == 0xf0 && at[1] < 0x90) || (c == 0xf4 && at[1] >= 0x90))
		return 0;
	return len;
}

static bool is_utf8(const uint8_t *bytes, size_t n)
{
	for (size_t i = 0, len; i < n; i += len) {
		len = character(bytes + i, n - i);
		if (!len)
			return false;
	}
	return true;
}

void cdc_note_content(struct cdc_buf *out, const uint8_t *bytes, size_t n)
{
	if (is_utf8(bytes, n)) {
		cdc_buf_puts(out, "\"encoding\":\"text\",\"content\":");
		cdc_value_string(out, (const char *)bytes, n);
		return;
	}
	cdc_buf_puts(out, "\"encoding\":\"base64\",\"content\":\"");
	cdc_base64_put(out, bytes, n);
	cdc_buf_putc(out, '"');
}
