/*
 * Bytes of a replication stream: CopyData messages one behind the other, each
 * with two bytes of length before it.  They go the whole way from frame to
 * record.  Checked: spans lie inside the message, a batch that was filled is one
 * that unpacks, ids rise, and a full batch loses and repeats nothing.
 *
 * Types that are not built in are taken out first: they would be asked for in SQL.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/change.h"
#include "cdc/source/frame.h"

/* libFuzzer's entry point. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct stream {
	struct cdc_lookup lookup;
	struct cdc_catalog *catalog;
	struct cdc_timelines timelines;
	struct pgo_decoder decoder;
	struct cdc_changes changes;
	struct cdc_batch *batch;
	struct cdc_id last;
};

static bool is_inside(const void *at, size_t n, const uint8_t *bytes, size_t len)
{
	const uint8_t *from = at;

	return from >= bytes && from <= bytes + len && n <= (size_t)(bytes + len - from);
}

static void check_values(const struct cdc_value *values, size_t n, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < n; i++) {
		if (values[i].kind == CDC_VALUE_TEXT)
			CDC_ASSERT(is_inside(values[i].text, values[i].len, bytes, len));
	}
}

static void check_message(const struct pgo_message *m, const uint8_t *bytes, size_t len)
{
	switch (m->kind) {
	case PGO_INSERT:
	case PGO_UPDATE:
	case PGO_DELETE:
		check_values(m->as.change.old, m->as.change.old_n, bytes, len);
		check_values(m->as.change.row, m->as.change.row_n, bytes, len);
		break;
	case PGO_RELATION:
		CDC_ASSERT(m->as.relation.n <= len);
		for (size_t i = 0; i < m->as.relation.n; i++)
			CDC_ASSERT(is_inside(m->as.relation.columns[i].name, 1, bytes, len));
		break;
	case PGO_TRUNCATE:
		CDC_ASSERT(m->as.truncate.n <= len / 4);
		break;
	case PGO_MESSAGE:
		CDC_ASSERT(is_inside(m->as.message.bytes, m->as.message.len, bytes, len));
		break;
	case PGO_ORIGIN:
		CDC_ASSERT(is_inside(m->as.origin, 1, bytes, len));
		break;
	case PGO_NOTHING:
	case PGO_BEGIN:
	case PGO_COMMIT:
	case PGO_TYPE:
	case PGO_STREAM_ABORT:
		break;
	}
}

/* What needs the server: other types, and the primary key under full identity. */
static void make_local(struct stream *s, struct pgo_message *m)
{
	if (m->kind != PGO_RELATION)
		return;
	if (m->as.relation.identity == 'f')
		m->as.relation.identity = 'd';
	for (size_t i = 0; i < m->as.relation.n; i++) {
		if (!cdc_type_builtin(s->decoder.columns[i].type))
			s->decoder.columns[i].type = 25;
	}
}

static void empty_batch(struct stream *s)
{
	struct cdc_batch *copy = cdc_batch_new(1 << 20);
	struct cdc_buf packed;

	cdc_buf_init(&packed, 1 << 24);
	cdc_batch_pack(s->batch, &packed);
	CDC_ASSERT(copy && !packed.failed);
	CDC_ASSERT(cdc_batch_unpack(copy, packed.data, packed.len, NULL) == CDC_OK);
	CDC_ASSERT(copy->n == s->batch->n);
	for (size_t i = 0; i < s->batch->n; i++) {
		const struct cdc_id *id = &s->batch->records[i].id;

		/* The commit LSN is the server's to keep in order. */
		if (id->commit_lsn == s->last.commit_lsn && id->ordinal > 1)
			CDC_ASSERT(cdc_id_cmp(&s->last, id) < 0);
		s->last = *id;
	}
	cdc_buf_clear(&packed);
	cdc_batch_free(copy);
	cdc_batch_reset(s->batch, SIZE_MAX);
}

/* False: the stream is at its end. */
static bool take(struct stream *s, const uint8_t *bytes, size_t n)
{
	struct cdc_err err;
	struct pgo_message m;
	struct cdc_frame f;
	enum cdc_code rc;

	if (cdc_frame_parse(bytes, n, &f, &err))
		return false;
	if (f.kind == CDC_FRAME_KEEPALIVE) {
		(void)cdc_changes_idle(&s->changes, f.wal_end);
		return true;
	}
	CDC_ASSERT(is_inside(f.payload, f.len, bytes, n));
	do {
		if (pgo_decode(&s->decoder, f.payload, f.len, &m, &err))
			return false;
		check_message(&m, f.payload, f.len);
		make_local(s, &m);
		rc = cdc_changes_take(&s->changes, &m, f.start, s->batch, &err);
		if (rc == CDC_BUSY) {
			CDC_ASSERT(s->batch->n > 0);
			empty_batch(s);
		}
	} while (rc == CDC_BUSY);
	return rc == CDC_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char none[] = "", p[] = "p", *items[] = {none, p};
	const struct cdc_opt_strs prefixes = {.items = items, .n = 2};
	struct stream s = {0};
	const uint8_t *at = data, *end = data + size;

	cdc_lookup_init(&s.lookup, NULL, "fuzz", NULL);
	cdc_timelines_init(&s.timelines, 1);
	pgo_init(&s.decoder);
	s.catalog = cdc_catalog_new(&s.lookup);
	s.batch = cdc_batch_new(2000);
	CDC_ASSERT(s.catalog && s.batch);
	cdc_changes_begin(&s.changes, s.catalog, &s.timelines, 0, 1);
	s.changes.prefixes = &prefixes;
	while (end - at >= 2) {
		size_t n = (size_t)at[0] << 8 | at[1];
		uint8_t *bytes;
		bool goes_on;

		at += 2;
		if (n > (size_t)(end - at))
			n = (size_t)(end - at);
		/* Memory of its own, so that a byte read too many is seen. */
		bytes = malloc(n ? n : 1);
		CDC_ASSERT(bytes);
		memcpy(bytes, at, n);
		goes_on = take(&s, bytes, n);
		free(bytes);
		if (!goes_on)
			break;
		at += n;
	}
	empty_batch(&s);
	cdc_batch_free(s.batch);
	cdc_catalog_free(s.catalog);
	pgo_clear(&s.decoder);
	return 0;
}
