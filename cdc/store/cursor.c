#include "cdc/store/cursor.h"

#include <stdio.h>
#include <stdlib.h>

#include "cdc/base/clock.h"
#include "cdc/store/request.h"
#include "cdc/store/row.h"

void cdc_cursor_clear(struct cdc_cursor *c)
{
	free(c->streams);
	free(c->tables);
	c->streams = NULL;
	c->tables = NULL;
	c->stream_n = c->table_n = 0;
}

size_t cdc_cursor_copied(const struct cdc_cursor *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->table_n; i++)
		n += !cdc_table_is_stopped(c->tables[i].state);
	return n;
}

struct cdc_stream_position cdc_cursor_lowest(const struct cdc_cursor *c)
{
	struct cdc_stream_position low = c->streams[0];

	for (size_t i = 0; i < c->table_n; i++) {
		if (cdc_id_cmp(&c->tables[i].id, &low.id) < 0)
			low.id = c->tables[i].id;
	}
	return low;
}

/* --- writing ------------------------------------------------------------------------ */

static enum cdc_code erase(struct cdc_database *db, const char *sync, struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(sync)};
	enum cdc_code rc;

	rc = cdc_database_run(db, "DELETE FROM cursor_stream WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM cursor_table WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM cursor WHERE sync = $1", key, 1, err);
	return rc;
}

static enum cdc_code write_stream(struct cdc_database *db, const char *sync,
				  const struct cdc_stream_position *p, struct cdc_err *err)
{
	char id[CDC_ID_TEXT];
	const struct cdc_sql_value values[] = {cdc_sql_text(sync), cdc_sql_int(p->stream),
					       cdc_sql_text(id)};

	(void)cdc_id_format(&p->id, id);
	return cdc_database_run(db,
				"INSERT INTO cursor_stream (sync, stream, id) VALUES ($1, $2, $3)",
				values, 3, err);
}

static enum cdc_code write_table(struct cdc_database *db, const char *sync,
				 const struct cdc_cursor_table *t, struct cdc_err *err)
{
	char id[CDC_ID_TEXT], point[CDC_LSN_TEXT];
	const struct cdc_sql_value values[] = {cdc_sql_text(sync), cdc_sql_text(t->table),
					       cdc_sql_int(t->state), cdc_sql_text(id),
					       cdc_sql_text(point)};

	(void)cdc_id_format(&t->id, id);
	(void)cdc_lsn_format(t->point, point);
	return cdc_database_run(db,
				"INSERT INTO cursor_table (sync, name, state, id, point)"
				" VALUES ($1, $2, $3, $4, $5)",
				values, 5, err);
}

static enum cdc_code write_cursor(struct cdc_database *db, const struct cdc_cursor *c,
				  struct cdc_err *err)
{
	const struct cdc_sql_value head[] = {cdc_sql_text(c->sync),
					     cdc_sql_int(cdc_clock_wall_us())};
	enum cdc_code rc = erase(db, c->sync, err);

	if (!rc)
		rc = cdc_database_run(db, "INSERT INTO cursor (sync, written_us) VALUES ($1, $2)",
				      head, 2, err);
	for (size_t i = 0; i < c->stream_n && !rc; i++)
		rc = write_stream(db, c->sync, &c->streams[i], err);
	for (size_t i = 0; i < c->table_n && !rc; i++)
		rc = write_table(db, c->sync, &c->tables[i], err);
	return rc;
}

enum cdc_code cdc_cursors_write(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (const struct cdc_checkpoint *c = arg; c && !rc; c = c->next)
		rc = write_cursor(db, &c->cursor, err);
	return rc;
}

static enum cdc_code forget(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const char *const *sync = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(*sync)};
	enum cdc_code rc = erase(db, *sync, err);

	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM backfill WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM desired WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM command WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM parked WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db, "DELETE FROM attempt WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = cdc_database_run(db,
				      "DELETE FROM note WHERE name = 'disabled ' || $1"
				      " OR name = 'replay ' || $1",
				      key, 1, err);
	return rc;
}

enum cdc_code cdc_store_cursor_delete(struct cdc_store *s, const char *sync, struct cdc_err *err)
{
	struct cdc_store_request r = {
		.body = forget, .arg = &sync, .is_write = true, .forgets = sync};

	return cdc_store_ask(s, &r, err);
}

/* --- reading ------------------------------------------------------------------------ */

struct reading {
	const char *sync; /* NULL: all of them */
	const struct cdc_database *db;
	struct cdc_checkpoint *found, **end; /* a list of what was read */
	struct cdc_cursor *at;               /* the one being filled */
};

static enum cdc_code take_cursor(void *arg, const struct cdc_sql_value *c, size_t n,
				 struct cdc_err *err)
{
	struct reading *r = arg;
	struct cdc_checkpoint *found = calloc(1, sizeof(*found));

	CDC_ASSERT(n == 1);
	if (!found)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	*r->end = found;
	r->end = &found->next;
	if (!cdc_row_text(&c[0], found->cursor.sync, sizeof(found->cursor.sync)))
		return cdc_database_damaged(r->db, "cursor", err);
	return CDC_OK;
}

static enum cdc_code take_stream(void *arg, const struct cdc_sql_value *c, size_t n,
				 struct cdc_err *err)
{
	struct reading *r = arg;
	struct cdc_stream_position p;
	void *array = r->at->streams;
	int64_t stream;
	enum cdc_code rc;

	CDC_ASSERT(n == 2);
	if (!cdc_row_int(&c[0], 0, UINT32_MAX, &stream) || !cdc_row_id(&c[1], &p.id))
		return cdc_database_damaged(r->db, "cursor", err);
	p.stream = (uint32_t)stream;
	rc = cdc_row_room(&array, r->at->stream_n, sizeof(p), err);
	if (rc)
		return cdc_err_wrap(err, "cursor of %s", r->at->sync);
	r->at->streams = array;
	r->at->streams[r->at->stream_n++] = p;
	return CDC_OK;
}

static enum cdc_code take_table(void *arg, const struct cdc_sql_value *c, size_t n,
				struct cdc_err *err)
{
	struct reading *r = arg;
	struct cdc_cursor_table t = {0};
	void *array = r->at->tables;
	int64_t state;
	enum cdc_code rc;

	CDC_ASSERT(n == 4);
	if (!cdc_row_text(&c[0], t.table, sizeof(t.table)) ||
	    !cdc_row_int(&c[1], CDC_TABLE_STREAMING, CDC_TABLE_RESUMED, &state) ||
	    !cdc_row_id(&c[2], &t.id) || !cdc_row_lsn(&c[3], &t.point))
		return cdc_database_damaged(r->db, "cursor", err);
	t.state = (enum cdc_table_state)state;
	rc = cdc_row_room(&array, r->at->table_n, sizeof(t), err);
	if (rc)
		return cdc_err_wrap(err, "cursor of %s", r->at->sync);
	r->at->tables = array;
	r->at->tables[r->at->table_n++] = t;
	return CDC_OK;
}

static enum cdc_code fill(struct cdc_database *db, struct reading *r, struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(r->at->sync)};
	enum cdc_code rc;

	rc = cdc_database_query(db,
				"SELECT stream, id FROM cursor_stream WHERE sync = $1"
				" ORDER BY stream",
				key, 1, take_stream, r, err);
	if (rc)
		return rc;
	return cdc_database_query(db,
				  "SELECT name, state, id, point FROM cursor_table"
				  " WHERE sync = $1 ORDER BY name",
				  key, 1, take_table, r, err);
}

static enum cdc_code get(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct reading *r = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(r->sync)};
	enum cdc_code rc;

	r->db = db;
	r->end = &r->found;
	if (r->sync)
		rc = cdc_database_query(db, "SELECT sync FROM cursor WHERE sync = $1", key, 1,
					take_cursor, r, err);
	else
		rc = cdc_database_query(db, "SELECT sync FROM cursor ORDER BY sync", NULL, 0,
					take_cursor, r, err);
	for (struct cdc_checkpoint *c = r->found; c && !rc; c = c->next) {
		r->at = &c->cursor;
		rc = fill(db, r, err);
	}
	return rc;
}

enum cdc_code cdc_store_cursor_get(struct cdc_store *s, const char *sync, struct cdc_cursor *ret,
				   struct cdc_err *err)
{
	struct reading r = {.sync = sync};
	enum cdc_code rc = cdc_store_ask_read(s, get, &r, err);

	if (!rc && !r.found)
		rc = cdc_err_set(err, CDC_MISSING, "sync %s has no cursor", sync);
	if (!rc) {
		*ret = r.found->cursor;
		r.found->cursor.streams = NULL; /* now the caller's */
		r.found->cursor.tables = NULL;
	}
	cdc_checkpoints_free(r.found);
	return rc;
}

enum cdc_code cdc_store_cursor_each(struct cdc_store *s,
				    void (*fn)(void *arg, const struct cdc_cursor *c), void *arg,
				    struct cdc_err *err)
{
	struct reading r = {0};
	enum cdc_code rc = cdc_store_ask_read(s, get, &r, err);

	for (const struct cdc_checkpoint *c = rc ? NULL : r.found; c; c = c->next)
		fn(arg, &c->cursor);
	cdc_checkpoints_free(r.found);
	return rc;
}
