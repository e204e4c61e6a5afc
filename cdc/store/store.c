#include "cdc/store/store.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cdc/base/clock.h"
#include "cdc/store/sql.h"

/* After a failed write: first wait, and the longest. */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000

/* Most streams and tables of one cursor that are read back: a file says more only if it is damaged.
 */
#define CURSOR_ROWS_MAX 100000

/* A checkpoint on its way, with its own copy of the cursor's arrays. */
struct checkpoint {
	struct checkpoint *next;
	uint64_t ticket;
	struct cdc_cursor cursor;
};

typedef enum cdc_code body_fn(struct cdc_store *s, void *arg, struct cdc_err *err);

/* A call of another thread, on that thread's stack until is_done. */
struct request {
	struct request *next;
	body_fn *body;
	void *arg;
	bool is_write; /* body runs in a transaction; else it only reads */
	enum cdc_code rc;
	struct cdc_err err;
	bool is_done;
};

struct cdc_store {
	char *path;
	const struct cdc_sql_ops *ops;
	pthread_t thread;
	bool has_thread;

	pthread_mutex_t mu;
	pthread_cond_t work; /* for the store thread */
	pthread_cond_t done; /* for callers */
	/* guarded by mu */
	struct request *first, *last;
	struct checkpoint *waiting; /* at most one per sync */
	uint64_t ticket;            /* last one given out */
	uint64_t durable;           /* everything up to it is on disk or replaced */
	uint64_t failed;            /* highest ticket whose write failed */
	struct cdc_err err;         /* of the last write; CDC_OK when it worked */
	bool is_urgent;             /* somebody waits for a checkpoint */
	bool is_stopping;

	/* the store thread's own */
	struct cdc_sql *db; /* NULL after a failure that asks for opening it again */
	uint64_t retry_at_ms, retry_ms;
};

/* ---- values ---- */

static enum cdc_code damaged(const struct cdc_store *s, const char *what, struct cdc_err *err)
{
	return cdc_err_set(err, CDC_CORRUPT, "%s: a damaged %s", s->path, what);
}

struct id_text {
	char text[CDC_ID_TEXT];
};

static struct id_text id_text(const struct cdc_id *id)
{
	struct id_text t;

	(void)cdc_id_format(id, t.text);
	return t;
}

static bool read_id(const struct cdc_sql_value *v, struct cdc_id *ret)
{
	return v->type == CDC_SQL_TEXT && cdc_id_parse(v->text, strlen(v->text), ret);
}

static bool read_lsn(const struct cdc_sql_value *v, cdc_lsn *ret)
{
	return v->type == CDC_SQL_TEXT && cdc_lsn_parse(v->text, strlen(v->text), ret);
}

/* False: no text, or longer than the field. */
static bool read_text(const struct cdc_sql_value *v, char *ret, size_t size)
{
	size_t n;

	if (v->type != CDC_SQL_TEXT)
		return false;
	n = strlen(v->text);
	if (n >= size)
		return false;
	memcpy(ret, v->text, n + 1);
	return true;
}

/* ---- the database, in the store thread ---- */

static enum cdc_code open_db(struct cdc_store *s, struct cdc_err *err)
{
	enum cdc_code rc;

	if (s->db)
		return CDC_OK;
	rc = s->ops->open(s->path, &s->db, err);
	if (!rc)
		rc = cdc_sql_migrate(s->ops, s->db, err);
	if (rc) {
		s->ops->close(s->db);
		s->db = NULL;
	}
	return rc;
}

/* After a medium's failure what SQLite has in memory may be ahead of the disk: never go on with it.
 */
static void judge_db(struct cdc_store *s, enum cdc_code rc)
{
	if (rc == CDC_IO || rc == CDC_CORRUPT) {
		s->ops->close(s->db);
		s->db = NULL;
	}
}

static enum cdc_code run(struct cdc_store *s, const char *text, const struct cdc_sql_value *values,
			 size_t n, struct cdc_err *err)
{
	return s->ops->run(s->db, text, values, n, NULL, NULL, err);
}

/* Runs body in a transaction; what it did is durable when this returns CDC_OK. */
static enum cdc_code transact(struct cdc_store *s, body_fn *body, void *arg, struct cdc_err *err)
{
	enum cdc_code rc = open_db(s, err);

	if (rc)
		return rc;
	rc = s->ops->begin(s->db, err);
	if (!rc)
		rc = body(s, arg, err);
	if (!rc)
		rc = s->ops->commit(s->db, err);
	if (rc)
		s->ops->rollback(s->db);
	judge_db(s, rc);
	return rc;
}

static enum cdc_code look(struct cdc_store *s, body_fn *body, void *arg, struct cdc_err *err)
{
	enum cdc_code rc = open_db(s, err);

	if (!rc)
		rc = body(s, arg, err);
	judge_db(s, rc);
	return rc;
}

/* ---- requests, in the callers' threads ---- */

/* Has the store thread carry r out, and waits for it. */
static enum cdc_code ask(struct cdc_store *s, struct request *r, struct cdc_err *err)
{
	(void)pthread_mutex_lock(&s->mu);
	if (s->last)
		s->last->next = r;
	else
		s->first = r;
	s->last = r;
	(void)pthread_cond_signal(&s->work);
	while (!r->is_done)
		(void)pthread_cond_wait(&s->done, &s->mu);
	(void)pthread_mutex_unlock(&s->mu);
	if (r->rc && err)
		*err = r->err;
	return r->rc;
}

static enum cdc_code ask_read(struct cdc_store *s, body_fn *body, void *arg, struct cdc_err *err)
{
	struct request r = {.body = body, .arg = arg};

	return ask(s, &r, err);
}

static enum cdc_code ask_write(struct cdc_store *s, body_fn *body, void *arg, struct cdc_err *err)
{
	struct request r = {.body = body, .arg = arg, .is_write = true};

	return ask(s, &r, err);
}

/* ---- slots ---- */

struct slot_call {
	const char *connection, *slot;
	const struct cdc_slot_row *put;
	struct cdc_slot_row row;
	bool is_found;
	int64_t generation;
	const struct cdc_store *store;
};

static enum cdc_code take_slot(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct slot_call *call = arg;
	struct cdc_slot_row *r = &call->row;

	CDC_ASSERT(n == 9);
	if (!read_text(&c[0], r->connection, sizeof(r->connection)) ||
	    !read_text(&c[1], r->slot, sizeof(r->slot)) ||
	    !read_text(&c[2], r->system_id, sizeof(r->system_id)) ||
	    !read_lsn(&c[3], &r->created_lsn) ||
	    !read_text(&c[4], r->numbering, sizeof(r->numbering)) || c[5].i < 1 || c[5].i > 255 ||
	    !read_text(&c[8], r->publication, sizeof(r->publication)))
		return damaged(call->store, "slot", err);
	r->generation = (unsigned)c[5].i;
	r->slot_is_ours = c[6].i != 0;
	r->publication_is_ours = c[7].i != 0;
	call->is_found = true;
	return CDC_OK;
}

static enum cdc_code take_generation(void *arg, const struct cdc_sql_value *c, size_t n,
				     struct cdc_err *err)
{
	struct slot_call *call = arg;

	(void)err;
	CDC_ASSERT(n == 1);
	call->generation = c[0].i;
	return CDC_OK;
}

static enum cdc_code slot_load(struct cdc_store *s, struct slot_call *call, struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(call->connection),
					    cdc_sql_text(call->slot)};
	enum cdc_code rc;

	rc = s->ops->run(s->db,
			 "SELECT connection, slot, system_id, created_lsn, numbering, generation,"
			 " slot_is_ours, publication_is_ours, publication FROM slot"
			 " WHERE connection = $1 AND slot = $2",
			 key, 2, take_slot, call, err);
	if (rc || call->is_found)
		return rc;
	return s->ops->run(s->db,
			   "SELECT coalesce(max(generation), 0) FROM epoch"
			   " WHERE connection = $1 AND slot = $2",
			   key, 2, take_generation, call, err);
}

static enum cdc_code slot_get(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	return slot_load(s, arg, err);
}

/* Remembers the numbering of a row that is about to go. */
static enum cdc_code slot_bury(struct cdc_store *s, const struct cdc_slot_row *r,
			       struct cdc_err *err)
{
	char lsn[CDC_LSN_TEXT];
	const struct cdc_sql_value values[] = {
		cdc_sql_text(r->connection),      cdc_sql_text(r->slot), cdc_sql_int(r->generation),
		cdc_sql_text(r->system_id),       cdc_sql_text(lsn),     cdc_sql_text(r->numbering),
		cdc_sql_int(cdc_clock_wall_us()),
	};

	(void)cdc_lsn_format(r->created_lsn, lsn);
	return run(s,
		   "INSERT INTO epoch (connection, slot, generation, system_id, created_lsn,"
		   " numbering, until_us) VALUES ($1, $2, $3, $4, $5, $6, $7)"
		   " ON CONFLICT (connection, slot, generation) DO UPDATE SET"
		   " system_id = excluded.system_id, created_lsn = excluded.created_lsn,"
		   " numbering = excluded.numbering, until_us = excluded.until_us",
		   values, 7, err);
}

static enum cdc_code slot_put(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	struct slot_call *call = arg;
	const struct cdc_slot_row *r = call->put;
	char lsn[CDC_LSN_TEXT];
	const struct cdc_sql_value values[] = {
		cdc_sql_text(r->connection),  cdc_sql_text(r->slot),
		cdc_sql_text(r->system_id),   cdc_sql_text(lsn),
		cdc_sql_text(r->numbering),   cdc_sql_int(r->generation),
		cdc_sql_int(r->slot_is_ours), cdc_sql_int(r->publication_is_ours),
		cdc_sql_text(r->publication),
	};
	enum cdc_code rc = slot_load(s, call, err);

	(void)cdc_lsn_format(r->created_lsn, lsn);
	if (!rc && call->is_found && call->row.generation != r->generation)
		rc = slot_bury(s, &call->row, err);
	if (rc)
		return rc;
	return run(s,
		   "INSERT INTO slot (connection, slot, system_id, created_lsn, numbering,"
		   " generation, slot_is_ours, publication_is_ours, publication)"
		   " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
		   " ON CONFLICT (connection, slot) DO UPDATE SET"
		   " system_id = excluded.system_id, created_lsn = excluded.created_lsn,"
		   " numbering = excluded.numbering, generation = excluded.generation,"
		   " slot_is_ours = excluded.slot_is_ours,"
		   " publication_is_ours = excluded.publication_is_ours,"
		   " publication = excluded.publication",
		   values, 9, err);
}

static enum cdc_code slot_delete(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	struct slot_call *call = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(call->connection),
					    cdc_sql_text(call->slot)};
	enum cdc_code rc = slot_load(s, call, err);

	if (rc || !call->is_found)
		return rc;
	rc = slot_bury(s, &call->row, err);
	if (rc)
		return rc;
	return run(s, "DELETE FROM slot WHERE connection = $1 AND slot = $2", key, 2, err);
}

enum cdc_code cdc_store_slot_get(struct cdc_store *s, const char *connection, const char *slot,
				 struct cdc_slot_row *ret, struct cdc_err *err)
{
	struct slot_call call = {.connection = connection, .slot = slot, .store = s};
	enum cdc_code rc = ask_read(s, slot_get, &call, err);

	if (rc)
		return rc;
	if (!call.is_found) {
		ret->generation = (unsigned)call.generation;
		return cdc_err_set(err, CDC_MISSING, "slot %s of %s is not known", slot,
				   connection);
	}
	*ret = call.row;
	return CDC_OK;
}

enum cdc_code cdc_store_slot_put(struct cdc_store *s, const struct cdc_slot_row *row,
				 struct cdc_err *err)
{
	struct slot_call call = {
		.connection = row->connection, .slot = row->slot, .put = row, .store = s};

	return ask_write(s, slot_put, &call, err);
}

enum cdc_code cdc_store_slot_delete(struct cdc_store *s, const char *connection, const char *slot,
				    struct cdc_err *err)
{
	struct slot_call call = {.connection = connection, .slot = slot, .store = s};

	return ask_write(s, slot_delete, &call, err);
}

/* ---- cursors ---- */

void cdc_cursor_clear(struct cdc_cursor *c)
{
	free(c->streams);
	free(c->tables);
	c->streams = NULL;
	c->tables = NULL;
	c->stream_n = c->table_n = 0;
}

static void checkpoint_free(struct checkpoint *c)
{
	if (c)
		cdc_cursor_clear(&c->cursor);
	free(c);
}

static struct checkpoint *checkpoint_new(const struct cdc_cursor *from)
{
	struct checkpoint *c = calloc(1, sizeof(*c));
	struct cdc_cursor *to;

	if (!c)
		return NULL;
	to = &c->cursor;
	memcpy(to->sync, from->sync, sizeof(to->sync));
	to->streams = calloc(from->stream_n + 1, sizeof(*to->streams));
	to->tables = calloc(from->table_n + 1, sizeof(*to->tables));
	if (!to->streams || !to->tables) {
		checkpoint_free(c);
		return NULL;
	}
	if (from->stream_n)
		memcpy(to->streams, from->streams, from->stream_n * sizeof(*to->streams));
	if (from->table_n)
		memcpy(to->tables, from->tables, from->table_n * sizeof(*to->tables));
	to->stream_n = from->stream_n;
	to->table_n = from->table_n;
	return c;
}

static enum cdc_code cursor_erase(struct cdc_store *s, const char *sync, struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(sync)};
	enum cdc_code rc = run(s, "DELETE FROM cursor_stream WHERE sync = $1", key, 1, err);

	if (!rc)
		rc = run(s, "DELETE FROM cursor_table WHERE sync = $1", key, 1, err);
	if (!rc)
		rc = run(s, "DELETE FROM cursor WHERE sync = $1", key, 1, err);
	return rc;
}

static enum cdc_code cursor_write(struct cdc_store *s, const struct cdc_cursor *c,
				  struct cdc_err *err)
{
	const struct cdc_sql_value head[] = {cdc_sql_text(c->sync),
					     cdc_sql_int(cdc_clock_wall_us())};
	enum cdc_code rc = cursor_erase(s, c->sync, err);

	if (!rc)
		rc = run(s, "INSERT INTO cursor (sync, written_us) VALUES ($1, $2)", head, 2, err);
	for (size_t i = 0; i < c->stream_n && !rc; i++) {
		struct id_text id = id_text(&c->streams[i].id);
		const struct cdc_sql_value values[] = {head[0], cdc_sql_int(c->streams[i].stream),
						       cdc_sql_text(id.text)};

		rc = run(s, "INSERT INTO cursor_stream (sync, stream, id) VALUES ($1, $2, $3)",
			 values, 3, err);
	}
	for (size_t i = 0; i < c->table_n && !rc; i++) {
		const struct cdc_cursor_table *t = &c->tables[i];
		struct id_text id = id_text(&t->id);
		char point[CDC_LSN_TEXT];
		const struct cdc_sql_value values[] = {head[0], cdc_sql_text(t->table),
						       cdc_sql_int(t->state), cdc_sql_text(id.text),
						       cdc_sql_text(point)};

		(void)cdc_lsn_format(t->point, point);
		rc = run(s,
			 "INSERT INTO cursor_table (sync, name, state, id, point)"
			 " VALUES ($1, $2, $3, $4, $5)",
			 values, 5, err);
	}
	return rc;
}

static enum cdc_code checkpoints_write(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (const struct checkpoint *c = arg; c && !rc; c = c->next)
		rc = cursor_write(s, &c->cursor, err);
	return rc;
}

struct cursor_call {
	const struct cdc_store *store;
	const char *sync;
	struct checkpoint *found, **end; /* a list of what was read */
	struct checkpoint *at;           /* the one being filled */
};

static enum cdc_code take_cursor(void *arg, const struct cdc_sql_value *c, size_t n,
				 struct cdc_err *err)
{
	struct cursor_call *call = arg;
	struct checkpoint *new = calloc(1, sizeof(*new));

	CDC_ASSERT(n == 1);
	if (!new)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	*call->end = new;
	call->end = &new->next;
	if (!read_text(&c[0], new->cursor.sync, sizeof(new->cursor.sync)))
		return damaged(call->store, "cursor", err);
	return CDC_OK;
}

/* Room for one more element behind n; grows at powers of two. */
static bool grow(void **array, size_t n, size_t size)
{
	void *bigger;

	if (n >= CURSOR_ROWS_MAX)
		return false;
	if ((n & (n - 1)) != 0)
		return true;
	bigger = reallocarray(*array, n ? 2 * n : 1, size);
	if (bigger)
		*array = bigger;
	return bigger != NULL;
}

static enum cdc_code take_stream(void *arg, const struct cdc_sql_value *c, size_t n,
				 struct cdc_err *err)
{
	struct cursor_call *call = arg;
	struct cdc_cursor *to = &call->at->cursor;
	struct cdc_stream_position p = {.stream = (uint32_t)c[0].i};
	void *array = to->streams;

	CDC_ASSERT(n == 2);
	if (c[0].i < 0 || c[0].i > UINT32_MAX || !read_id(&c[1], &p.id))
		return damaged(call->store, "cursor", err);
	if (!grow(&array, to->stream_n, sizeof(p)))
		return cdc_err_set(err, CDC_NOMEM, "cursor of %s: out of memory", to->sync);
	to->streams = array;
	to->streams[to->stream_n++] = p;
	return CDC_OK;
}

static enum cdc_code take_table(void *arg, const struct cdc_sql_value *c, size_t n,
				struct cdc_err *err)
{
	struct cursor_call *call = arg;
	struct cdc_cursor *to = &call->at->cursor;
	struct cdc_cursor_table t = {.state = (enum cdc_table_state)c[1].i};
	void *array = to->tables;

	CDC_ASSERT(n == 4);
	if (!read_text(&c[0], t.table, sizeof(t.table)) || c[1].i < 0 ||
	    c[1].i > CDC_TABLE_STOPPED || !read_id(&c[2], &t.id) || !read_lsn(&c[3], &t.point))
		return damaged(call->store, "cursor", err);
	if (!grow(&array, to->table_n, sizeof(t)))
		return cdc_err_set(err, CDC_NOMEM, "cursor of %s: out of memory", to->sync);
	to->tables = array;
	to->tables[to->table_n++] = t;
	return CDC_OK;
}

static enum cdc_code cursor_get(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	struct cursor_call *call = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(call->sync ? call->sync : "")};
	enum cdc_code rc;

	if (call->sync)
		rc = s->ops->run(s->db, "SELECT sync FROM cursor WHERE sync = $1", key, 1,
				 take_cursor, call, err);
	else
		rc = s->ops->run(s->db, "SELECT sync FROM cursor ORDER BY sync", NULL, 0,
				 take_cursor, call, err);
	for (call->at = call->found; call->at && !rc; call->at = call->at->next) {
		const struct cdc_sql_value sync[] = {cdc_sql_text(call->at->cursor.sync)};

		rc = s->ops->run(s->db,
				 "SELECT stream, id FROM cursor_stream WHERE sync = $1"
				 " ORDER BY stream",
				 sync, 1, take_stream, call, err);
		if (!rc)
			rc = s->ops->run(s->db,
					 "SELECT name, state, id, point FROM cursor_table"
					 " WHERE sync = $1 ORDER BY name",
					 sync, 1, take_table, call, err);
	}
	return rc;
}

static void list_free(struct checkpoint *c)
{
	while (c) {
		struct checkpoint *next = c->next;

		checkpoint_free(c);
		c = next;
	}
}

enum cdc_code cdc_store_cursor_get(struct cdc_store *s, const char *sync, struct cdc_cursor *ret,
				   struct cdc_err *err)
{
	struct cursor_call call = {.store = s, .sync = sync};
	enum cdc_code rc;

	call.end = &call.found;
	rc = ask_read(s, cursor_get, &call, err);
	if (!rc && !call.found)
		rc = cdc_err_set(err, CDC_MISSING, "sync %s has no cursor", sync);
	if (!rc) {
		*ret = call.found->cursor;
		call.found->cursor.streams = NULL; /* now the caller's */
		call.found->cursor.tables = NULL;
	}
	list_free(call.found);
	return rc;
}

enum cdc_code cdc_store_cursor_each(struct cdc_store *s,
				    void (*fn)(void *arg, const struct cdc_cursor *c), void *arg,
				    struct cdc_err *err)
{
	struct cursor_call call = {.store = s};
	enum cdc_code rc;

	call.end = &call.found;
	rc = ask_read(s, cursor_get, &call, err);
	for (const struct checkpoint *c = rc ? NULL : call.found; c; c = c->next)
		fn(arg, &c->cursor);
	list_free(call.found);
	return rc;
}

/* ---- checkpoints ---- */

/* Takes the waiting checkpoint of a sync out of the list, or NULL.  Under mu. */
static struct checkpoint *unlink_waiting(struct cdc_store *s, const char *sync)
{
	for (struct checkpoint **at = &s->waiting; *at; at = &(*at)->next) {
		struct checkpoint *c = *at;

		if (strcmp(c->cursor.sync, sync) == 0) {
			*at = c->next;
			c->next = NULL;
			return c;
		}
	}
	return NULL;
}

static uint64_t hand_over(struct cdc_store *s, const struct cdc_cursor *c, bool is_urgent)
{
	struct checkpoint *new = checkpoint_new(c), *old;
	uint64_t ticket;

	if (!new)
		return 0;
	(void)pthread_mutex_lock(&s->mu);
	old = unlink_waiting(s, c->sync);
	ticket = new->ticket = ++s->ticket;
	new->next = s->waiting;
	s->waiting = new;
	s->is_urgent |= is_urgent;
	(void)pthread_cond_signal(&s->work);
	(void)pthread_mutex_unlock(&s->mu);
	checkpoint_free(old);
	return ticket;
}

uint64_t cdc_store_checkpoint(struct cdc_store *s, const struct cdc_cursor *c)
{
	return hand_over(s, c, false);
}

uint64_t cdc_store_checkpointed(struct cdc_store *s)
{
	uint64_t durable;

	(void)pthread_mutex_lock(&s->mu);
	durable = s->durable;
	(void)pthread_mutex_unlock(&s->mu);
	return durable;
}

enum cdc_code cdc_store_cursor_put(struct cdc_store *s, const struct cdc_cursor *c,
				   struct cdc_err *err)
{
	uint64_t ticket = hand_over(s, c, true);
	enum cdc_code rc = CDC_OK;

	if (!ticket)
		return cdc_err_set(err, CDC_NOMEM, "cursor of %s: out of memory", c->sync);
	(void)pthread_mutex_lock(&s->mu);
	while (s->durable < ticket && s->failed < ticket)
		(void)pthread_cond_wait(&s->done, &s->mu);
	if (s->durable < ticket) {
		rc = s->err.code;
		if (err)
			*err = s->err;
	}
	(void)pthread_mutex_unlock(&s->mu);
	return rc;
}

static enum cdc_code cursor_delete(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	return cursor_erase(s, arg, err);
}

enum cdc_code cdc_store_cursor_delete(struct cdc_store *s, const char *sync, struct cdc_err *err)
{
	char name[CDC_NAME_MAX];
	struct checkpoint *old;
	enum cdc_code rc;

	(void)snprintf(name, sizeof(name), "%s", sync);
	rc = ask_write(s, cursor_delete, name, err);
	/* One that waited through failures must not bring the cursor back. */
	(void)pthread_mutex_lock(&s->mu);
	old = rc ? NULL : unlink_waiting(s, sync);
	(void)pthread_mutex_unlock(&s->mu);
	checkpoint_free(old);
	return rc;
}

enum cdc_code cdc_store_error(struct cdc_store *s, struct cdc_err *err)
{
	enum cdc_code rc;

	(void)pthread_mutex_lock(&s->mu);
	rc = s->err.code;
	if (rc && err)
		*err = s->err;
	(void)pthread_mutex_unlock(&s->mu);
	return rc;
}

/* ---- gaps ---- */

struct gap_call {
	const struct cdc_store *store;
	struct cdc_gap_row *rows;
	size_t n;
};

static enum cdc_code take_gap(void *arg, const struct cdc_sql_value *c, size_t n,
			      struct cdc_err *err)
{
	struct gap_call *call = arg;
	struct cdc_gap_row g = {.at_us = c[1].i};
	void *array = call->rows;

	CDC_ASSERT(n == 5);
	if (!read_text(&c[0], g.sync, sizeof(g.sync)) || !read_id(&c[2], &g.first) ||
	    !read_id(&c[3], &g.last) || !read_text(&c[4], g.reason, sizeof(g.reason)))
		return damaged(call->store, "gap", err);
	if (!grow(&array, call->n, sizeof(g)))
		return cdc_err_set(err, CDC_NOMEM, "gaps: out of memory");
	call->rows = array;
	call->rows[call->n++] = g;
	return CDC_OK;
}

static enum cdc_code gaps_get(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	return s->ops->run(s->db,
			   "SELECT sync, at_us, first_id, last_id, reason FROM gap"
			   " ORDER BY at_us, sync, first_id",
			   NULL, 0, take_gap, arg, err);
}

static enum cdc_code gap_put(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	const struct cdc_gap_row *g = arg;
	struct id_text first = id_text(&g->first), last = id_text(&g->last);
	const struct cdc_sql_value values[] = {cdc_sql_text(g->sync), cdc_sql_int(g->at_us),
					       cdc_sql_text(first.text), cdc_sql_text(last.text),
					       cdc_sql_text(g->reason)};

	return run(s,
		   "INSERT INTO gap (sync, at_us, first_id, last_id, reason)"
		   " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sync, first_id, last_id) DO NOTHING",
		   values, 5, err);
}

enum cdc_code cdc_store_gap_put(struct cdc_store *s, const struct cdc_gap_row *g,
				struct cdc_err *err)
{
	struct cdc_gap_row copy = *g;

	return ask_write(s, gap_put, &copy, err);
}

enum cdc_code cdc_store_gap_each(struct cdc_store *s,
				 void (*fn)(void *arg, const struct cdc_gap_row *g), void *arg,
				 struct cdc_err *err)
{
	struct gap_call call = {.store = s};
	enum cdc_code rc = ask_read(s, gaps_get, &call, err);

	for (size_t i = 0; i < call.n && !rc; i++)
		fn(arg, &call.rows[i]);
	free(call.rows);
	return rc;
}

/* ---- notes ---- */

struct note_call {
	const char *name, *value; /* value NULL: get */
	char *found;
};

static enum cdc_code take_note(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct note_call *call = arg;

	CDC_ASSERT(n == 1);
	call->found = strdup(c[0].type == CDC_SQL_TEXT ? c[0].text : "");
	return call->found ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory");
}

static enum cdc_code note_get(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	struct note_call *call = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(call->name)};

	return s->ops->run(s->db, "SELECT value FROM note WHERE name = $1", key, 1, take_note, call,
			   err);
}

static enum cdc_code note_put(struct cdc_store *s, void *arg, struct cdc_err *err)
{
	const struct note_call *call = arg;
	const struct cdc_sql_value values[] = {cdc_sql_text(call->name), cdc_sql_text(call->value)};

	return run(s,
		   "INSERT INTO note (name, value) VALUES ($1, $2)"
		   " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
		   values, 2, err);
}

enum cdc_code cdc_store_note_put(struct cdc_store *s, const char *key, const char *value,
				 struct cdc_err *err)
{
	struct note_call call = {.name = key, .value = value};

	return ask_write(s, note_put, &call, err);
}

enum cdc_code cdc_store_note_get(struct cdc_store *s, const char *key, char *ret_value, size_t size,
				 struct cdc_err *err)
{
	struct note_call call = {.name = key};
	enum cdc_code rc = ask_read(s, note_get, &call, err);

	if (!rc && !call.found)
		rc = cdc_err_set(err, CDC_MISSING, "note %s is not there", key);
	if (!rc && strlen(call.found) >= size)
		rc = cdc_err_set(err, CDC_LIMIT, "note %s is longer than %zu bytes", key, size);
	if (!rc)
		memcpy(ret_value, call.found, strlen(call.found) + 1);
	free(call.found);
	return rc;
}

/* ---- the thread ---- */

/* Waits for something to do.  Under mu. */
static void wait_for_work(struct cdc_store *s)
{
	while (!s->first && !s->is_stopping) {
		uint64_t now_ms = cdc_clock_mono_ms();
		struct timespec until = {.tv_sec = (time_t)(s->retry_at_ms / 1000),
					 .tv_nsec = (long)(s->retry_at_ms % 1000) * 1000000};

		if (s->waiting && (s->is_urgent || now_ms >= s->retry_at_ms))
			break;
		if (s->waiting)
			(void)pthread_cond_timedwait(&s->work, &s->mu, &until);
		else
			(void)pthread_cond_wait(&s->work, &s->mu);
	}
}

/* After a failed write: back into the list with what no newer one has replaced.  Under mu. */
static void put_back(struct cdc_store *s, struct checkpoint *list, struct checkpoint **ret_dead)
{
	while (list) {
		struct checkpoint *c = list, *newer = unlink_waiting(s, c->cursor.sync);

		list = c->next;
		if (newer) {
			c->next = *ret_dead;
			*ret_dead = c;
			c = newer;
		}
		c->next = s->waiting;
		s->waiting = c;
	}
}

static void note_outcome(struct cdc_store *s, enum cdc_code rc, const struct cdc_err *err)
{
	if (rc)
		s->err = *err;
	else
		s->err.code = CDC_OK;
}

/* Writes every waiting checkpoint in one transaction.  Called and left with mu held. */
static void write_checkpoints(struct cdc_store *s)
{
	struct checkpoint *taken = s->waiting, *dead = NULL;
	uint64_t ticket = s->ticket;
	struct cdc_err err;
	enum cdc_code rc;

	s->waiting = NULL;
	s->is_urgent = false;
	(void)pthread_mutex_unlock(&s->mu);
	rc = transact(s, checkpoints_write, taken, &err);
	(void)pthread_mutex_lock(&s->mu);
	note_outcome(s, rc, &err);
	if (rc) {
		put_back(s, taken, &dead);
		s->failed = ticket;
		s->retry_ms = s->retry_ms ? s->retry_ms * 2 : RETRY_MIN_MS;
		if (s->retry_ms > RETRY_MAX_MS)
			s->retry_ms = RETRY_MAX_MS;
		s->retry_at_ms = cdc_clock_mono_ms() + s->retry_ms;
	} else {
		dead = taken;
		s->durable = ticket;
		s->retry_ms = 0;
		s->retry_at_ms = 0;
	}
	(void)pthread_cond_broadcast(&s->done);
	(void)pthread_mutex_unlock(&s->mu);
	list_free(dead);
	(void)pthread_mutex_lock(&s->mu);
}

/* Carries out the first request.  Called and left with mu held. */
static void run_request(struct cdc_store *s)
{
	struct request *r = s->first;
	enum cdc_code rc;

	s->first = r->next;
	if (!s->first)
		s->last = NULL;
	(void)pthread_mutex_unlock(&s->mu);
	rc = r->is_write ? transact(s, r->body, r->arg, &r->err)
			 : look(s, r->body, r->arg, &r->err);
	(void)pthread_mutex_lock(&s->mu);
	if (r->is_write)
		note_outcome(s, rc, &r->err);
	r->rc = rc;
	r->is_done = true;
	(void)pthread_cond_broadcast(&s->done);
}

static void *store_main(void *arg)
{
	struct cdc_store *s = arg;
	bool is_last = false;

	(void)pthread_mutex_lock(&s->mu);
	while (!is_last) {
		wait_for_work(s);
		/* At stop whatever waits is tried once more, and no longer. */
		is_last = s->is_stopping && !s->first;
		if (s->waiting &&
		    (is_last || s->is_urgent || cdc_clock_mono_ms() >= s->retry_at_ms))
			write_checkpoints(s);
		if (s->first)
			run_request(s);
	}
	(void)pthread_mutex_unlock(&s->mu);
	s->ops->close(s->db);
	s->db = NULL;
	return NULL;
}

static enum cdc_code start_thread(struct cdc_store *s, struct cdc_err *err)
{
	int rc = pthread_create(&s->thread, NULL, store_main, s);

	if (rc)
		return cdc_err_set(err, CDC_NOMEM, "store thread: %s", strerror(rc));
	s->has_thread = true;
	return CDC_OK;
}

static struct cdc_store *store_new(const char *dir)
{
	struct cdc_store *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	s->ops = &cdc_sql_sqlite;
	(void)pthread_mutex_init(&s->mu, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->work, &attr);
	(void)pthread_cond_init(&s->done, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (asprintf(&s->path, "%s/state.db", dir) < 0) {
		s->path = NULL;
		cdc_store_close(s);
		return NULL;
	}
	return s;
}

enum cdc_code cdc_store_open(const char *dir, struct cdc_store **ret, struct cdc_err *err)
{
	struct cdc_store *s = store_new(dir);
	enum cdc_code rc;

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	rc = open_db(s, err);
	if (!rc)
		rc = start_thread(s, err);
	if (rc) {
		cdc_store_close(s);
		return rc;
	}
	*ret = s;
	return CDC_OK;
}

void cdc_store_close(struct cdc_store *s)
{
	if (!s)
		return;
	if (s->has_thread) {
		(void)pthread_mutex_lock(&s->mu);
		s->is_stopping = true;
		(void)pthread_cond_signal(&s->work);
		(void)pthread_mutex_unlock(&s->mu);
		(void)pthread_join(s->thread, NULL);
	}
	s->ops->close(s->db);
	list_free(s->waiting);
	(void)pthread_cond_destroy(&s->work);
	(void)pthread_cond_destroy(&s->done);
	(void)pthread_mutex_destroy(&s->mu);
	free(s->path);
	free(s);
}
