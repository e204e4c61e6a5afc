#include "cdc/source/change.h"

#include <stdio.h>
#include <string.h>

#include "cdc/record/note.h"
#include "cdc/record/value.h"
#include "cdc/source/source.h"

void cdc_changes_begin(struct cdc_changes *c, struct cdc_catalog *catalog,
		       const struct cdc_timelines *timelines, cdc_lsn start_lsn,
		       unsigned generation)
{
	cdc_catalog_reset(catalog);
	*c = (struct cdc_changes){
		.catalog = catalog,
		.timelines = timelines,
		.generation = generation,
		.start_lsn = start_lsn,
		.epoch = CDC_EPOCH(generation, cdc_timelines_at(timelines, start_lsn)),
	};
}

static enum cdc_code out_of_place(const struct pgo_message *m, struct cdc_err *err)
{
	return cdc_err_set(err, CDC_PROTO, "the server sent a %s where none may be",
			   pgo_kind_name(m->kind));
}

static void begin_transaction(struct cdc_changes *c, const struct pgo_begin *b)
{
	c->is_open = true;
	/* The server's own rule, PostgreSQL source src/backend/replication/logical/snapbuild.c,
	 * SnapBuildXactNeedsSkip: a transaction whose commit record starts before is over. */
	c->is_skipped = b->commit_lsn < c->start_lsn;
	c->begin = *b;
	c->ordinal = 0;
	c->epoch = CDC_EPOCH(c->generation, cdc_timelines_at(c->timelines, b->commit_lsn));
}

static enum cdc_code end_transaction(struct cdc_changes *c, const struct pgo_message *m,
				     struct cdc_batch *batch, struct cdc_err *err)
{
	const struct pgo_commit *commit = &m->as.commit;
	enum cdc_code rc = CDC_OK;

	if (commit->commit_lsn != c->begin.commit_lsn || commit->end_lsn < commit->commit_lsn)
		return cdc_err_set(err, CDC_PROTO,
				   "the server sent a commit of another transaction than began");
	if (!c->is_skipped)
		rc = cdc_batch_tx_end(batch, commit->commit_lsn, commit->end_lsn, commit->commit_us,
				      err);
	if (!rc)
		c->is_open = false;
	return rc;
}

/* A full batch may be handed over and an empty one brought; an empty one that is too small may not.
 */
static enum cdc_code did_not_fit(const struct cdc_batch *batch, const char *table,
				 struct cdc_err *err)
{
	if (batch->n)
		return cdc_err_set(err, CDC_BUSY, "the batch is full");
	return cdc_err_set(err, CDC_LIMIT, "table %s: a change is larger than %zu bytes as JSON",
			   table, batch->max_bytes);
}

static enum cdc_code unknown_table(const struct pgo_message *m, uint32_t relid, struct cdc_err *err)
{
	return cdc_err_set(err, CDC_PROTO,
			   "the server sent a %s of relation %u without a description of it",
			   pgo_kind_name(m->kind), relid);
}

static struct cdc_change new_change(const struct cdc_changes *c, cdc_lsn position)
{
	return (struct cdc_change){
		.id = {.commit_lsn = c->begin.commit_lsn,
		       .epoch = c->epoch,
		       .ordinal = c->ordinal + 1,
		       .part = 1},
		.position = position,
		.xid = c->begin.xid,
		.commit_us = c->begin.commit_us,
		.max_bytes = c->max_record_bytes,
	};
}

/* Counts the stand-ins among the records from `from` on. */
static void note_too_large(struct cdc_changes *c, const struct cdc_batch *batch, size_t from)
{
	for (size_t i = from; i < batch->n; i++)
		c->too_large += (batch->records[i].flags & CDC_RECORD_TOO_LARGE) != 0;
}

static bool fits_shape(const struct pgo_change *row, size_t columns)
{
	return (!row->row || row->row_n == columns) && (!row->old || row->old_n == columns);
}

static void nulls_are_unknown(struct cdc_value *values, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (values[i].kind == CDC_VALUE_NULL)
			values[i].kind = CDC_VALUE_ABSENT;
	}
}

/* The schema record before a row, unless it would say what is known. */
static enum cdc_code tell_shape(struct cdc_changes *c, const struct cdc_table *t, cdc_lsn position,
				struct cdc_batch *batch, struct cdc_err *err)
{
	const char *name = cdc_shape_name(t->shape);
	const char *before = cdc_text_map_get(c->known, name, strlen(name));
	const struct cdc_note note = {.op = CDC_OP_SCHEMA,
				      .table = name,
				      .id = {.commit_lsn = c->begin.commit_lsn,
					     .epoch = c->epoch,
					     .ordinal = c->ordinal + 1},
				      .position = position,
				      .xid = c->begin.xid,
				      .commit_us = c->begin.commit_us};
	struct cdc_record *r;
	enum cdc_code rc;

	if (before && strcmp(before, t->description) == 0) {
		cdc_catalog_tell(c->catalog, t);
		return CDC_OK;
	}
	rc = cdc_note_begin(batch, &note, &r, err);
	if (rc)
		return rc == CDC_LIMIT ? did_not_fit(batch, name, err) : rc;
	cdc_buf_puts(&batch->json, t->description);
	if (before) {
		cdc_note_changes(batch, r);
		cdc_describe_changes(before, t->description, &batch->json);
	}
	rc = cdc_note_end(batch, &note, r, err);
	if (rc)
		return rc == CDC_LIMIT ? did_not_fit(batch, name, err) : rc;
	if (!cdc_text_map_put(c->known, name, strlen(name), t->description, strlen(t->description)))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the descriptions of tables");
	cdc_catalog_tell(c->catalog, t);
	return CDC_OK;
}

static enum cdc_code take_row(struct cdc_changes *c, const struct pgo_message *m, cdc_lsn position,
			      struct cdc_batch *batch, struct cdc_err *err)
{
	const struct pgo_change *row = &m->as.change;
	const struct cdc_table *t = cdc_catalog_find(c->catalog, row->relid);
	struct cdc_change change = new_change(c, position);
	size_t before;
	enum cdc_code rc;

	if (!t)
		return unknown_table(m, row->relid, err);
	if (!fits_shape(row, cdc_shape_columns(t->shape)))
		return cdc_err_set(err, CDC_PROTO,
				   "table %s: the server sent a %s with another number of columns "
				   "than the table's",
				   cdc_shape_name(t->shape), pgo_kind_name(m->kind));
	if (t->has_row_types) {
		rc = cdc_catalog_refresh(c->catalog, c->begin.commit_lsn, err);
		if (rc)
			return cdc_err_wrap(err, "table %s", cdc_shape_name(t->shape));
	}
	if (!t->is_told) {
		rc = tell_shape(c, t, position, batch, err);
		if (rc)
			return rc;
	}
	change.shape = t->shape;
	change.op = m->kind == PGO_INSERT   ? CDC_OP_INSERT
		    : m->kind == PGO_UPDATE ? CDC_OP_UPDATE
					    : CDC_OP_DELETE;
	change.row = row->row;
	change.old = row->old;
	change.old_is_full = row->old_kind == PGO_OLD_FULL;
	/* In a key no column is null: one that is was not sent.  (The identity that names the
	 * columns may be another partition's or the root's than the one the row was written by.) */
	if (row->old && (row->old_kind == PGO_OLD_KEY || t->old_may_lack))
		nulls_are_unknown(row->old, row->old_n);
	before = batch->n;
	rc = cdc_write_change(batch, &change, err);
	note_too_large(c, batch, before);
	return rc == CDC_LIMIT ? did_not_fit(batch, cdc_shape_name(t->shape), err) : rc;
}

/* One record per table, numbered by part, all under one ordinal. */
static enum cdc_code take_truncate(struct cdc_changes *c, const struct pgo_message *m,
				   cdc_lsn position, struct cdc_batch *batch, struct cdc_err *err)
{
	const struct pgo_truncate *truncate = &m->as.truncate;
	struct cdc_change change = new_change(c, position);

	change.op = CDC_OP_TRUNCATE;
	change.is_cascade = truncate->is_cascade;
	change.is_restart_identity = truncate->is_restart_identity;
	for (; c->truncated < truncate->n; c->truncated++) {
		const uint32_t relid = truncate->relids[c->truncated];
		const struct cdc_table *t = cdc_catalog_find(c->catalog, relid);
		enum cdc_code rc;

		if (!t)
			return unknown_table(m, relid, err);
		change.shape = t->shape;
		change.id.part = (uint16_t)(c->truncated + 1);
		rc = cdc_write_change(batch, &change, err);
		if (rc)
			return rc == CDC_LIMIT ? did_not_fit(batch, cdc_shape_name(t->shape), err)
					       : rc;
	}
	c->truncated = 0;
	return CDC_OK;
}

/* --- messages ------------------------------------------------------------------------ */

static bool is_asked_for(const struct cdc_changes *c, const char *prefix)
{
	for (size_t i = 0; c->prefixes && i < c->prefixes->n; i++) {
		if (strcmp(c->prefixes->items[i], prefix) == 0)
			return true;
	}
	return false;
}

static enum cdc_code write_message(struct cdc_changes *c, const struct pgo_logical_message *m,
				   struct cdc_note *note, struct cdc_batch *batch,
				   struct cdc_err *err)
{
	const bool has_room = cdc_batch_has_room(batch, c->max_record_bytes);
	const size_t before = batch->n;
	char table[sizeof(CDC_MESSAGE_SCHEMA) + CDC_MESSAGE_PREFIX_MAX];
	struct cdc_record *r;
	enum cdc_code rc;

	(void)snprintf(table, sizeof(table), CDC_MESSAGE_SCHEMA "%s", m->prefix);
	note->op = CDC_OP_MESSAGE;
	note->table = table;
	note->max_bytes = c->max_record_bytes;
	rc = cdc_note_begin(batch, note, &r, err);
	if (rc)
		return rc;
	cdc_buf_puts(&batch->json, "{\"prefix\":");
	cdc_value_string(&batch->json, m->prefix, strlen(m->prefix));
	cdc_buf_puts(&batch->json, m->is_transactional ? ",\"transactional\":true,"
						       : ",\"transactional\":false,");
	cdc_note_content(&batch->json, m->bytes, m->len);
	cdc_buf_putc(&batch->json, '}');
	rc = cdc_note_end(batch, note, r, err);
	if (rc == CDC_LIMIT && c->max_record_bytes && has_room)
		rc = cdc_note_stand_in(batch, note, m->len, err);
	note_too_large(c, batch, before);
	return rc == CDC_LIMIT ? did_not_fit(batch, table, err) : rc;
}

/* One that came with a transaction, and is rolled back with it. */
static enum cdc_code take_message(struct cdc_changes *c, const struct pgo_message *m,
				  cdc_lsn position, struct cdc_batch *batch, struct cdc_err *err)
{
	struct cdc_note note = {.id = {.commit_lsn = c->begin.commit_lsn,
				       .epoch = c->epoch,
				       .ordinal = c->ordinal + 1,
				       .part = 1},
				.position = position,
				.xid = c->begin.xid,
				.commit_us = c->begin.commit_us};

	if (!is_asked_for(c, m->as.message.prefix))
		return CDC_OK;
	return write_message(c, &m->as.message, &note, batch, err);
}

/* One of no transaction. */
static enum cdc_code take_free_message(struct cdc_changes *c, const struct pgo_logical_message *m,
				       struct cdc_batch *batch, struct cdc_err *err)
{
	struct cdc_note note = {.id = {.commit_lsn = m->lsn, .part = 1}, .position = m->lsn};
	enum cdc_code rc;

	/* The LSN is where its WAL record ends; one that ends where we start was read. */
	if (m->lsn <= c->start_lsn || !is_asked_for(c, m->prefix))
		return CDC_OK;
	c->epoch = CDC_EPOCH(c->generation, cdc_timelines_at(c->timelines, m->lsn - 1));
	note.id.epoch = c->epoch;
	rc = write_message(c, m, &note, batch, err);
	return rc ? rc : cdc_batch_tx_end(batch, m->lsn, m->lsn, 0, err);
}

/* Counts what names a row, a truncation or a message, whether it makes a record or not. */
static enum cdc_code take_counted(struct cdc_changes *c, const struct pgo_message *m,
				  cdc_lsn position, struct cdc_batch *batch, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (c->ordinal == UINT32_MAX)
		return cdc_err_set(err, CDC_LIMIT,
				   "transaction %u has more changes than an id can number",
				   c->begin.xid);
	if (c->is_skipped)
		return CDC_OK;
	if (m->kind == PGO_TRUNCATE)
		rc = take_truncate(c, m, position, batch, err);
	else if (m->kind == PGO_MESSAGE)
		rc = take_message(c, m, position, batch, err);
	else
		rc = take_row(c, m, position, batch, err);
	if (!rc)
		c->ordinal++;
	return rc;
}

enum cdc_code cdc_changes_take(struct cdc_changes *c, const struct pgo_message *m, cdc_lsn position,
			       struct cdc_batch *batch, struct cdc_err *err)
{
	switch (m->kind) {
	case PGO_BEGIN:
		if (c->is_open)
			return out_of_place(m, err);
		begin_transaction(c, &m->as.begin);
		return CDC_OK;
	case PGO_COMMIT:
		return c->is_open ? end_transaction(c, m, batch, err) : out_of_place(m, err);
	case PGO_RELATION:
		return cdc_catalog_relation(c->catalog, &m->as.relation, err);
	case PGO_MESSAGE:
		if (c->is_open != m->as.message.is_transactional)
			return out_of_place(m, err);
		return c->is_open ? take_counted(c, m, position, batch, err)
				  : take_free_message(c, &m->as.message, batch, err);
	case PGO_INSERT:
	case PGO_UPDATE:
	case PGO_DELETE:
	case PGO_TRUNCATE:
		return c->is_open ? take_counted(c, m, position, batch, err) : out_of_place(m, err);
	case PGO_NOTHING:
	case PGO_ORIGIN:
	case PGO_TYPE:
	case PGO_STREAM_ABORT:
		return CDC_OK;
	}
	return CDC_OK;
}

bool cdc_changes_idle(struct cdc_changes *c, cdc_lsn wal_end)
{
	if (c->is_open || wal_end < c->start_lsn)
		return false;
	c->epoch = CDC_EPOCH(c->generation, cdc_timelines_at(c->timelines, wal_end));
	return true;
}
