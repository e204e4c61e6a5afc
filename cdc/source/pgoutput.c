#include "cdc/source/pgoutput.h"

#include <stdlib.h>

#include "cdc/base/clock.h"
#include "cdc/base/cursor.h"

void pgo_init(struct pgo_decoder *d)
{
	*d = (struct pgo_decoder){0};
}

void pgo_clear(struct pgo_decoder *d)
{
	free(d->old);
	free(d->row);
	free(d->columns);
	free(d->relids);
	pgo_init(d);
}

const char *pgo_kind_name(enum pgo_kind kind)
{
	static const char *const names[] = {
		[PGO_NOTHING] = "empty message", [PGO_BEGIN] = "begin",
		[PGO_COMMIT] = "commit",         [PGO_ORIGIN] = "origin",
		[PGO_RELATION] = "relation",     [PGO_TYPE] = "type",
		[PGO_INSERT] = "insert",         [PGO_UPDATE] = "update",
		[PGO_DELETE] = "delete",         [PGO_TRUNCATE] = "truncate",
		[PGO_MESSAGE] = "message",       [PGO_STREAM_ABORT] = "stream abort",
	};

	return names[kind];
}

static enum cdc_code malformed(enum pgo_kind kind, const char *what, struct cdc_err *err)
{
	return cdc_err_set(err, CDC_PROTO, "the server sent a malformed %s: %s",
			   pgo_kind_name(kind), what);
}

static enum cdc_code no_memory(enum pgo_kind kind, struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for a %s message", pgo_kind_name(kind));
}

/* Makes room for n items of size bytes, 0 included: a row without columns is a row.  The old
 * content need not survive. */
static bool make_room(void **items, size_t *cap, size_t n, size_t size)
{
	void *grown;

	if (*items && n <= *cap)
		return true;
	if (n < 64)
		n = 64;
	grown = reallocarray(*items, n, size);
	if (!grown)
		return false;
	*items = grown;
	*cap = n;
	return true;
}

static int64_t read_time(struct cdc_cursor *c)
{
	/* Unsigned, so that a hostile time wraps instead of overflowing. */
	return (int64_t)(cdc_cursor_u64(c) + (uint64_t)CDC_POSTGRES_EPOCH_US);
}

/* TupleData: a count, then per column a kind byte and, for a value, a length and its text. */
static enum cdc_code read_tuple(struct cdc_cursor *c, enum pgo_kind kind, struct cdc_value **values,
				size_t *cap, size_t *ret_n, struct cdc_err *err)
{
	size_t n = cdc_cursor_u16(c);
	struct cdc_value *v;

	if (c->is_short || n > cdc_cursor_left(c))
		return malformed(kind, "it is cut short", err);
	if (!make_room((void **)values, cap, n, sizeof(**values)))
		return no_memory(kind, err);
	v = *values;
	for (size_t i = 0; i < n; i++, v++) {
		switch (cdc_cursor_u8(c)) {
		case 't':
			v->kind = CDC_VALUE_TEXT;
			v->len = cdc_cursor_u32(c);
			v->text = (const char *)cdc_cursor_bytes(c, v->len);
			break;
		case 'n':
			*v = (struct cdc_value){.kind = CDC_VALUE_NULL};
			break;
		case 'u':
			*v = (struct cdc_value){.kind = CDC_VALUE_UNCHANGED};
			break;
		case 'b':
			return malformed(kind, "a binary value where text was asked for", err);
		default:
			if (!c->is_short)
				return malformed(kind, "an unknown kind of value", err);
		}
		if (c->is_short)
			return malformed(kind, "it is cut short", err);
	}
	*ret_n = n;
	return CDC_OK;
}

static enum cdc_code read_old(struct pgo_decoder *d, struct cdc_cursor *c, uint8_t marker,
			      struct pgo_message *m, struct cdc_err *err)
{
	struct pgo_change *change = &m->as.change;
	enum cdc_code rc = read_tuple(c, m->kind, &d->old, &d->old_cap, &change->old_n, err);

	change->old_kind = marker == 'K' ? PGO_OLD_KEY : PGO_OLD_FULL;
	change->old = d->old;
	return rc;
}

static enum cdc_code read_row(struct pgo_decoder *d, struct cdc_cursor *c, uint8_t marker,
			      struct pgo_message *m, struct cdc_err *err)
{
	struct pgo_change *change = &m->as.change;
	enum cdc_code rc;

	if (marker != 'N')
		return malformed(m->kind, "no new row where one must be", err);
	rc = read_tuple(c, m->kind, &d->row, &d->row_cap, &change->row_n, err);
	change->row = d->row;
	return rc;
}

static enum cdc_code read_change(struct pgo_decoder *d, struct cdc_cursor *c, struct pgo_message *m,
				 struct cdc_err *err)
{
	uint8_t marker;
	enum cdc_code rc;

	m->as.change = (struct pgo_change){.relid = cdc_cursor_u32(c)};
	marker = cdc_cursor_u8(c);
	if (m->kind == PGO_INSERT)
		return read_row(d, c, marker, m, err);
	if (marker == 'K' || marker == 'O') {
		rc = read_old(d, c, marker, m, err);
		if (rc || m->kind == PGO_DELETE)
			return rc;
		marker = cdc_cursor_u8(c);
	} else if (m->kind == PGO_DELETE) {
		return malformed(m->kind, "no old row where one must be", err);
	}
	return read_row(d, c, marker, m, err);
}

static enum cdc_code read_relation(struct pgo_decoder *d, struct cdc_cursor *c,
				   struct pgo_message *m, struct cdc_err *err)
{
	struct pgo_relation *r = &m->as.relation;

	*r = (struct pgo_relation){.relid = cdc_cursor_u32(c)};
	r->schema = cdc_cursor_cstr(c);
	r->name = cdc_cursor_cstr(c);
	r->identity = (char)cdc_cursor_u8(c);
	r->n = cdc_cursor_u16(c);
	if (c->is_short || r->n > cdc_cursor_left(c))
		return malformed(m->kind, "it is cut short", err);
	if (r->schema[0] == '\0')
		r->schema = "pg_catalog";
	if (!strchr("dnfi", r->identity) || r->identity == '\0')
		return malformed(m->kind, "an unknown replica identity", err);
	if (!make_room((void **)&d->columns, &d->column_cap, r->n, sizeof(*d->columns)))
		return no_memory(m->kind, err);
	r->columns = d->columns;
	for (size_t i = 0; i < r->n; i++) {
		struct pgo_column *column = &d->columns[i];

		column->is_identity = (cdc_cursor_u8(c) & 1) != 0;
		column->name = cdc_cursor_cstr(c);
		column->type = cdc_cursor_u32(c);
		column->modifier = (int32_t)cdc_cursor_u32(c);
	}
	return CDC_OK;
}

static enum cdc_code read_truncate(struct pgo_decoder *d, struct cdc_cursor *c,
				   struct pgo_message *m, struct cdc_err *err)
{
	struct pgo_truncate *t = &m->as.truncate;
	size_t n = cdc_cursor_u32(c);
	uint8_t flags = cdc_cursor_u8(c);

	if (c->is_short || n > cdc_cursor_left(c) / 4)
		return malformed(m->kind, "it is cut short", err);
	if (n > UINT16_MAX)
		return malformed(m->kind, "more tables than an id can number", err);
	if (!make_room((void **)&d->relids, &d->relid_cap, n, sizeof(*d->relids)))
		return no_memory(m->kind, err);
	for (size_t i = 0; i < n; i++)
		d->relids[i] = cdc_cursor_u32(c);
	*t = (struct pgo_truncate){.relids = d->relids,
				   .n = n,
				   .is_cascade = (flags & 1) != 0,
				   .is_restart_identity = (flags & 2) != 0};
	return CDC_OK;
}

static void read_begin(struct cdc_cursor *c, struct pgo_begin *b)
{
	b->commit_lsn = cdc_cursor_u64(c);
	b->commit_us = read_time(c);
	b->xid = cdc_cursor_u32(c);
}

static void read_commit(struct cdc_cursor *c, struct pgo_commit *m)
{
	(void)cdc_cursor_u8(c); /* flags, none defined */
	m->commit_lsn = cdc_cursor_u64(c);
	m->end_lsn = cdc_cursor_u64(c);
	m->commit_us = read_time(c);
}

static void read_logical_message(struct cdc_cursor *c, struct pgo_logical_message *m)
{
	m->is_transactional = (cdc_cursor_u8(c) & 1) != 0;
	m->lsn = cdc_cursor_u64(c);
	m->prefix = cdc_cursor_cstr(c);
	m->len = cdc_cursor_u32(c);
	m->bytes = cdc_cursor_bytes(c, m->len);
}

static bool kind_of(uint8_t byte, enum pgo_kind *ret_kind)
{
	switch (byte) {
	case 'B':
		*ret_kind = PGO_BEGIN;
		return true;
	case 'C':
		*ret_kind = PGO_COMMIT;
		return true;
	case 'O':
		*ret_kind = PGO_ORIGIN;
		return true;
	case 'R':
		*ret_kind = PGO_RELATION;
		return true;
	case 'Y':
		*ret_kind = PGO_TYPE;
		return true;
	case 'I':
		*ret_kind = PGO_INSERT;
		return true;
	case 'U':
		*ret_kind = PGO_UPDATE;
		return true;
	case 'D':
		*ret_kind = PGO_DELETE;
		return true;
	case 'T':
		*ret_kind = PGO_TRUNCATE;
		return true;
	case 'M':
		*ret_kind = PGO_MESSAGE;
		return true;
	case 'A':
		*ret_kind = PGO_STREAM_ABORT;
		return true;
	default:
		return false;
	}
}

static enum cdc_code read_body(struct pgo_decoder *d, struct cdc_cursor *c, struct pgo_message *m,
			       struct cdc_err *err)
{
	switch (m->kind) {
	case PGO_NOTHING:
		return CDC_OK;
	case PGO_BEGIN:
		read_begin(c, &m->as.begin);
		return CDC_OK;
	case PGO_COMMIT:
		read_commit(c, &m->as.commit);
		return CDC_OK;
	case PGO_ORIGIN:
		(void)cdc_cursor_u64(c); /* its LSN at the origin */
		m->as.origin = cdc_cursor_cstr(c);
		return CDC_OK;
	case PGO_RELATION:
		return read_relation(d, c, m, err);
	case PGO_TYPE:
		/* OID, schema, name: types are looked up by OID, which a rename does not change. */
		(void)cdc_cursor_u32(c);
		(void)cdc_cursor_cstr(c);
		(void)cdc_cursor_cstr(c);
		return CDC_OK;
	case PGO_INSERT:
	case PGO_UPDATE:
	case PGO_DELETE:
		return read_change(d, c, m, err);
	case PGO_TRUNCATE:
		return read_truncate(d, c, m, err);
	case PGO_MESSAGE:
		read_logical_message(c, &m->as.message);
		return CDC_OK;
	case PGO_STREAM_ABORT:
		(void)cdc_cursor_bytes(c, 8); /* xid, subxid */
		return CDC_OK;
	}
	return CDC_OK;
}

enum cdc_code pgo_decode(struct pgo_decoder *d, const void *bytes, size_t n,
			 struct pgo_message *ret_message, struct cdc_err *err)
{
	struct cdc_cursor c = cdc_cursor_over(bytes, n);
	struct pgo_message *m = ret_message;
	uint8_t byte;
	enum cdc_code rc;

	m->kind = PGO_NOTHING;
	if (n == 0)
		return CDC_OK;
	byte = cdc_cursor_u8(&c);
	if (!kind_of(byte, &m->kind))
		return cdc_err_set(err, CDC_PROTO,
				   "the server sent a message of unknown kind 0x%02x", byte);
	rc = read_body(d, &c, m, err);
	if (rc)
		return rc;
	if (c.is_short)
		return malformed(m->kind, "it is cut short", err);
	if (cdc_cursor_left(&c))
		return malformed(m->kind, "bytes are left at its end", err);
	return CDC_OK;
}
