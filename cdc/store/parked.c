/* Parked records as rows: the queues of their keys, for the delivery thread. */
#include <stdlib.h>
#include <string.h>

#include "cdc/record/scan.h"
#include "cdc/store/request.h"
#include "cdc/store/row.h"
#include "cdc/store/vault.h"

/* A hash as a column, and back: the same 64 bits. */
static struct cdc_sql_value hash_value(uint64_t hash)
{
	int64_t i;

	memcpy(&i, &hash, sizeof(i));
	return cdc_sql_int(i);
}

static bool row_hash(const struct cdc_sql_value *v, uint64_t *ret)
{
	if (v->type != CDC_SQL_INT)
		return false;
	memcpy(ret, &v->i, sizeof(*ret));
	return true;
}

static bool row_count(const struct cdc_sql_value *v, uint64_t *ret)
{
	int64_t n;

	if (!cdc_row_int(v, 0, INT64_MAX, &n))
		return false;
	*ret = (uint64_t)n;
	return true;
}

/* --- changes ------------------------------------------------------------------------ */

struct writing {
	const char *sync;
	const struct cdc_park_change *changes;
	size_t n;
	int64_t now_us;
	struct cdc_park_head *heads;
	size_t head_n;
	struct cdc_park_totals *totals;
	const struct cdc_database *db;
};

/* What an endpoint said of a record, encrypted. */
struct answer {
	struct cdc_vault_value held[2];
	struct cdc_sql_value reason, response;
};

static void answer_clear(struct answer *a)
{
	cdc_vault_value_clear(&a->held[0]);
	cdc_vault_value_clear(&a->held[1]);
}

static enum cdc_code seal_answer(struct cdc_database *db, const char *sync, const char *id,
				 const struct cdc_park_change *c, struct answer *ret,
				 struct cdc_err *err)
{
	const char *reason = c->reason ? c->reason : "", *response = c->response ? c->response : "";
	struct cdc_vault_place at = {.sync = sync, .id = id, .column = "reason"};
	enum cdc_code rc =
		cdc_vault_seal(db, &at, reason, strlen(reason), &ret->held[0], &ret->reason, err);

	if (rc)
		return rc;
	at.column = "response";
	return cdc_vault_seal(db, &at, response, strlen(response), &ret->held[1], &ret->response,
			      err);
}

/* What a record says. */
struct content {
	struct cdc_vault_value held[2];
	struct cdc_sql_value key, record;
	char mark[CDC_VAULT_MARK];
};

static void content_clear(struct content *c)
{
	cdc_vault_value_clear(&c->held[0]);
	cdc_vault_value_clear(&c->held[1]);
}

static enum cdc_code seal_content(struct cdc_database *db, const char *sync, const char *id,
				  struct cdc_view view, struct content *ret, struct cdc_err *err)
{
	const char *json = cdc_view_json(view), *key = json + view.rec->key.off;
	size_t key_len = view.rec->key.len;
	struct cdc_vault_place at = {.sync = sync, .id = id, .column = "key"};
	enum cdc_code rc;

	if (!key_len) {
		key = "null";
		key_len = strlen(key);
	}
	(void)cdc_vault_mark(db, key, key_len, ret->mark);
	rc = cdc_vault_seal(db, &at, key, key_len, &ret->held[0], &ret->key, err);
	if (rc)
		return rc;
	at.column = "record";
	return cdc_vault_seal(db, &at, json, view.rec->json_len, &ret->held[1], &ret->record, err);
}

static enum cdc_code insert_record(struct cdc_database *db, const struct writing *w,
				   const struct cdc_park_change *c, const char *id,
				   const struct content *content, const struct answer *answer,
				   struct cdc_err *err)
{
	size_t table_len;
	const char *name = cdc_view_table(c->view, &table_len);
	char *table = strndup(name, table_len);
	const struct cdc_sql_value values[] = {
		cdc_sql_text(w->sync),
		cdc_sql_text(id),
		cdc_sql_int(c->state),
		hash_value(c->key_hash),
		hash_value(c->table_hash),
		cdc_sql_text(table),
		content->key,
		cdc_sql_int((int64_t)c->view.rec->json_len),
		cdc_sql_int((int64_t)c->attempts),
		cdc_sql_int((int64_t)c->step),
		cdc_sql_int(w->now_us),
		cdc_sql_int(c->next_us),
		cdc_sql_int(c->state == CDC_PARKED_DEAD ? w->now_us : 0),
		cdc_sql_int(c->status),
		answer->reason,
		answer->response,
		content->record,
		cdc_sql_text(content->mark),
	};
	enum cdc_code rc;

	if (!table)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a parked record");
	rc = cdc_database_run(
		db,
		"INSERT INTO parked (sync, id, state, key_hash, table_hash, name, key, bytes,"
		" attempts, step, parked_us, next_us, dead_us, status, reason, response, record,"
		" key_mark) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
		" $15, $16, $17, $18) ON CONFLICT (sync, id) DO NOTHING",
		values, sizeof(values) / sizeof(values[0]), err);
	free(table);
	return rc;
}

static enum cdc_code put_record(struct cdc_database *db, const struct writing *w,
				const struct cdc_park_change *c, struct cdc_err *err)
{
	CDC_AUTO(content_clear) struct content content = {0};
	CDC_AUTO(answer_clear) struct answer answer = {0};
	char id[CDC_ID_TEXT];
	enum cdc_code rc;

	(void)cdc_id_format(&c->id, id);
	rc = seal_content(db, w->sync, id, c->view, &content, err);
	if (!rc)
		rc = seal_answer(db, w->sync, id, c, &answer, err);
	return rc ? rc : insert_record(db, w, c, id, &content, &answer, err);
}

static enum cdc_code note_failure(struct cdc_database *db, const struct writing *w,
				  const struct cdc_park_change *c, struct cdc_err *err)
{
	CDC_AUTO(answer_clear) struct answer answer = {0};
	bool is_dead = c->act == CDC_PARK_DEAD;
	char id[CDC_ID_TEXT];
	enum cdc_code rc;

	(void)cdc_id_format(&c->id, id);
	rc = seal_answer(db, w->sync, id, c, &answer, err);
	if (rc)
		return rc;
	return cdc_database_run(
		db,
		"UPDATE parked SET attempts = $3, step = $4, next_us = $5, status = $6,"
		" reason = $7, response = $8, state = $9, dead_us = $10"
		" WHERE sync = $1 AND id = $2",
		(const struct cdc_sql_value[]){
			cdc_sql_text(w->sync),
			cdc_sql_text(id),
			cdc_sql_int((int64_t)c->attempts),
			cdc_sql_int((int64_t)c->step),
			cdc_sql_int(is_dead ? 0 : c->next_us),
			cdc_sql_int(c->status),
			answer.reason,
			answer.response,
			cdc_sql_int(is_dead ? CDC_PARKED_DEAD : CDC_PARKED_WAITING),
			cdc_sql_int(is_dead ? w->now_us : 0),
		},
		10, err);
}

static enum cdc_code note_refusal(struct cdc_database *db, const struct writing *w,
				  const struct cdc_park_change *c, struct cdc_err *err)
{
	CDC_AUTO(answer_clear) struct answer answer = {0};
	char id[CDC_ID_TEXT];
	enum cdc_code rc;

	(void)cdc_id_format(&c->id, id);
	rc = seal_answer(db, w->sync, id, c, &answer, err);
	if (rc)
		return rc;
	return cdc_database_run(db,
				"UPDATE parked SET attempts = attempts + 1, status = $3,"
				" reason = $4, response = $5, state = 1, dead_us = $6"
				" WHERE sync = $1 AND id = $2",
				(const struct cdc_sql_value[]){
					cdc_sql_text(w->sync),
					cdc_sql_text(id),
					cdc_sql_int(c->status),
					answer.reason,
					answer.response,
					cdc_sql_int(w->now_us),
				},
				6, err);
}

static enum cdc_code erase_record(struct cdc_database *db, const struct writing *w,
				  const struct cdc_park_change *c, struct cdc_err *err)
{
	char id[CDC_ID_TEXT];
	const struct cdc_sql_value values[] = {cdc_sql_text(w->sync), cdc_sql_text(id)};

	(void)cdc_id_format(&c->id, id);
	return cdc_database_run(db, "DELETE FROM parked WHERE sync = $1 AND id = $2", values, 2,
				err);
}

static enum cdc_code carry_out(struct cdc_database *db, const struct writing *w,
			       const struct cdc_park_change *c, struct cdc_err *err)
{
	switch (c->act) {
	case CDC_PARK_PUT:
		return put_record(db, w, c, err);
	case CDC_PARK_FAILED:
	case CDC_PARK_DEAD:
		return note_failure(db, w, c, err);
	case CDC_PARK_REFUSED:
		return note_refusal(db, w, c, err);
	case CDC_PARK_DONE:
		return erase_record(db, w, c, err);
	}
	return CDC_OK;
}

/* --- heads -------------------------------------------------------------------------- */

static enum cdc_code fill_head(const struct cdc_database *db, const struct cdc_sql_value *c,
			       struct cdc_park_head *ret, struct cdc_err *err)
{
	if (!row_hash(&c[0], &ret->key_hash) || !row_hash(&c[1], &ret->table_hash) ||
	    !cdc_row_id(&c[2], &ret->id) || !row_count(&c[3], &ret->attempts) ||
	    !row_count(&c[4], &ret->step) || !cdc_row_int(&c[5], 0, INT64_MAX, &ret->next_us))
		return cdc_database_damaged(db, "parked record", err);
	return CDC_OK;
}

struct head_reading {
	const struct cdc_database *db;
	struct cdc_park_head *heads;
	size_t n;
};

static enum cdc_code take_one_head(void *arg, const struct cdc_sql_value *c, size_t n,
				   struct cdc_err *err)
{
	struct head_reading *r = arg;

	CDC_ASSERT(n == 6);
	return fill_head(r->db, c, r->heads, err);
}

static enum cdc_code look_up_head(struct cdc_database *db, const char *sync,
				  struct cdc_park_head *head, struct cdc_err *err)
{
	struct head_reading r = {.db = db, .heads = head};
	const struct cdc_sql_value values[] = {cdc_sql_text(sync), hash_value(head->key_hash)};

	*head = (struct cdc_park_head){.key_hash = head->key_hash};
	return cdc_database_query(
		db,
		"SELECT key_hash, table_hash, id, attempts, step, next_us FROM parked"
		" WHERE sync = $1 AND state = 0 AND key_hash = $2 ORDER BY id LIMIT 1",
		values, 2, take_one_head, &r, err);
}

static enum cdc_code take_total(void *arg, const struct cdc_sql_value *c, size_t n,
				struct cdc_err *err)
{
	struct writing *w = arg;
	uint64_t count, bytes;
	int64_t state;

	CDC_ASSERT(n == 3);
	if (!cdc_row_int(&c[0], CDC_PARKED_WAITING, CDC_PARKED_REPLAY, &state) ||
	    !row_count(&c[1], &count) || !row_count(&c[2], &bytes))
		return cdc_database_damaged(w->db, "parked record", err);
	w->totals->bytes += bytes;
	switch ((enum cdc_parked_state)state) {
	case CDC_PARKED_WAITING:
		w->totals->waiting = count;
		break;
	case CDC_PARKED_DEAD:
		w->totals->dead = count;
		break;
	case CDC_PARKED_REPLAY:
		w->totals->replay = count;
		break;
	}
	return CDC_OK;
}

static enum cdc_code park(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct writing *w = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(w->sync)};
	enum cdc_code rc = CDC_OK;

	w->db = db;
	for (size_t i = 0; i < w->n && !rc; i++)
		rc = carry_out(db, w, &w->changes[i], err);
	for (size_t i = 0; i < w->head_n && !rc; i++)
		rc = look_up_head(db, w->sync, &w->heads[i], err);
	if (rc || !w->totals)
		return rc;
	*w->totals = (struct cdc_park_totals){0};
	return cdc_database_query(db,
				  "SELECT state, count(*), sum(bytes) FROM parked WHERE sync = $1"
				  " GROUP BY state",
				  key, 1, take_total, w, err);
}

enum cdc_code cdc_store_park(struct cdc_store *s, const char *sync,
			     const struct cdc_park_change *changes, size_t n, int64_t now_us,
			     struct cdc_park_head *heads, size_t head_n,
			     struct cdc_park_totals *ret_totals, struct cdc_err *err)
{
	struct writing w = {.sync = sync,
			    .changes = changes,
			    .n = n,
			    .now_us = now_us,
			    .heads = heads,
			    .head_n = head_n,
			    .totals = ret_totals};

	return n ? cdc_store_ask_write(s, park, &w, err) : cdc_store_ask_read(s, park, &w, err);
}

/* --- opening ------------------------------------------------------------------------ */

struct all_reading {
	const char *sync;
	const struct cdc_database *db;
	struct cdc_park_head *heads;
	const struct cdc_cursor *from;
	bool is_whole;
	struct cdc_id *ids;
	size_t n;
};

static enum cdc_code take_head(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct all_reading *r = arg;
	void *array = r->heads;
	enum cdc_code rc;

	CDC_ASSERT(n == 6);
	rc = cdc_row_room(&array, r->n, sizeof(*r->heads), err);
	if (rc)
		return cdc_err_wrap(err, "parked keys of %s", r->sync);
	r->heads = array;
	return fill_head(r->db, c, &r->heads[r->n++], err);
}

static enum cdc_code read_heads(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct all_reading *r = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(r->sync)};

	r->db = db;
	return cdc_database_query(
		db,
		"SELECT p.key_hash, p.table_hash, p.id, p.attempts, p.step, p.next_us"
		" FROM (SELECT min(id) AS head FROM parked WHERE sync = $1 AND state = 0"
		" GROUP BY key_hash) q JOIN parked p ON p.sync = $1 AND p.id = q.head",
		key, 1, take_head, r, err);
}

enum cdc_code cdc_store_park_heads(struct cdc_store *s, const char *sync,
				   struct cdc_park_head **ret, size_t *ret_n, struct cdc_err *err)
{
	struct all_reading r = {.sync = sync};
	enum cdc_code rc;

	_Static_assert(CDC_PARKED_KEYS_MAX <= CDC_ROWS_MAX, "an array holds them");
	rc = cdc_store_ask_read(s, read_heads, &r, err);
	if (rc) {
		free(r.heads);
		return rc;
	}
	*ret = r.heads;
	*ret_n = r.n;
	return CDC_OK;
}

/* Does the cursor stand before the record? */
static bool comes_again(const struct all_reading *r, const struct cdc_id *id, const char *table)
{
	const struct cdc_cursor *from = r->from;

	/* It is above the lowest of all. */
	if (r->is_whole || cdc_id_cmp(id, &from->streams[0].id) > 0)
		return true;
	for (size_t i = 0; i < from->table_n; i++) {
		if (strcmp(from->tables[i].table, table) == 0)
			return cdc_id_cmp(id, &from->tables[i].id) > 0;
	}
	return false;
}

static enum cdc_code take_id(void *arg, const struct cdc_sql_value *c, size_t n,
			     struct cdc_err *err)
{
	struct all_reading *r = arg;
	void *array = r->ids;
	struct cdc_id id;
	enum cdc_code rc;

	CDC_ASSERT(n == 2 && c[1].type == CDC_SQL_TEXT);
	if (!cdc_row_id(&c[0], &id))
		return cdc_database_damaged(r->db, "parked record", err);
	if (!comes_again(r, &id, c[1].text))
		return CDC_OK;
	rc = cdc_row_room(&array, r->n, sizeof(*r->ids), err);
	if (rc)
		return cdc_err_wrap(err, "parked records of %s", r->sync);
	r->ids = array;
	r->ids[r->n++] = id;
	return CDC_OK;
}

static enum cdc_code read_ids(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct all_reading *r = arg;
	const struct cdc_id low = cdc_cursor_lowest(r->from).id;
	char above[CDC_ID_TEXT];
	const struct cdc_sql_value values[] = {cdc_sql_text(r->sync), cdc_sql_text(above)};

	r->db = db;
	(void)cdc_id_format(&low, above);
	return cdc_database_query(db,
				  "SELECT id, name FROM parked WHERE sync = $1 AND id > $2"
				  " ORDER BY id",
				  values, 2, take_id, r, err);
}

enum cdc_code cdc_store_park_ids(struct cdc_store *s, const struct cdc_cursor *cursor,
				 bool is_whole, struct cdc_id **ret, size_t *ret_n,
				 struct cdc_err *err)
{
	struct all_reading r = {.sync = cursor->sync, .from = cursor, .is_whole = is_whole};
	enum cdc_code rc = cdc_store_ask_read(s, read_ids, &r, err);

	if (rc) {
		free(r.ids);
		return rc;
	}
	*ret = r.ids;
	*ret_n = r.n;
	return CDC_OK;
}

/* --- reading a queue ---------------------------------------------------------------- */

struct queue_reading {
	const char *sync;
	const struct cdc_park_read *what;
	struct cdc_batch *batch;
	struct cdc_database *db;
	size_t n, bytes;
	bool waits;
	char first_half[CDC_ID_TEXT];
};

/* A record that cannot be read: with its id, and in the place of its JSON nothing. */
static enum cdc_code put_unreadable(struct cdc_batch *batch, const struct cdc_sql_value *id,
				    const struct cdc_sql_value *table, struct cdc_err *err)
{
	struct cdc_record *r;
	struct cdc_id parsed;
	uint16_t index;
	enum cdc_code rc;

	if (!cdc_row_id(id, &parsed))
		return cdc_err_set(err, CDC_CORRUPT, "a damaged parked record");
	rc = cdc_batch_table(batch, table->text, strlen(table->text), &index, err);
	if (!rc)
		rc = cdc_batch_begin(batch, &r, err);
	if (rc)
		return rc;
	r->id = parsed;
	r->table = index;
	return cdc_batch_end(batch, err);
}

/* rc and why are of the record in the row: what becomes of the reading. */
static enum cdc_code give_up(struct queue_reading *q, const struct cdc_sql_value *c,
			     enum cdc_code rc, const struct cdc_err *why, struct cdc_err *err)
{
	enum cdc_code failed;

	if (rc == CDC_REJECTED || rc == CDC_PROTO) {
		if (q->n)
			return CDC_STOPPED; /* it comes first the next time */
		failed = put_unreadable(q->batch, &c[1], &c[2], err);
		if (failed)
			return failed;
		return cdc_err_set(err, CDC_REJECTED, "%s", why->msg);
	}
	if (err)
		*err = *why;
	return cdc_err_wrap(err, "a parked record of %s", q->sync);
}

static enum cdc_code take_record(void *arg, const struct cdc_sql_value *c, size_t n,
				 struct cdc_err *err)
{
	struct queue_reading *q = arg;
	struct cdc_vault_place at = {.sync = q->sync, .column = "record"};
	struct cdc_vault_value json = {0};
	struct cdc_err why = {0};
	enum cdc_code rc;

	CDC_ASSERT(n == 3 && c[1].type == CDC_SQL_TEXT && c[2].type == CDC_SQL_TEXT);
	at.id = c[1].text;
	rc = cdc_vault_open(q->db, &at, &c[0], &json, &why);
	if (!rc && q->n && q->bytes + json.n > q->what->max_bytes) {
		cdc_vault_value_clear(&json);
		return CDC_STOPPED; /* enough for one request */
	}
	if (!rc)
		rc = cdc_scan_record(q->batch, (const char *)json.bytes, json.n, &why);
	if (rc) {
		rc = give_up(q, c, rc, &why, err);
	} else {
		q->n++;
		q->bytes += json.n;
	}
	cdc_vault_value_clear(&json);
	return rc;
}

static enum cdc_code take_half(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct queue_reading *q = arg;

	(void)c;
	(void)err;
	CDC_ASSERT(n == 1);
	q->waits = true;
	return CDC_OK;
}

static enum cdc_code take_head_id(void *arg, const struct cdc_sql_value *c, size_t n,
				  struct cdc_err *err)
{
	struct queue_reading *q = arg;
	struct cdc_id id;

	(void)err;
	CDC_ASSERT(n == 1);
	if (cdc_row_id(&c[0], &id) && id.part == 2 && !id.range) {
		id.part = 1;
		(void)cdc_id_format(&id, q->first_half);
	}
	return CDC_OK;
}

/* Is the head the second half of a key change whose first half waits? */
static enum cdc_code look_for_half(struct cdc_database *db, struct queue_reading *q,
				   struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(q->sync), hash_value(q->what->key_hash)};
	const struct cdc_sql_value half[] = {cdc_sql_text(q->sync), cdc_sql_text(q->first_half)};
	enum cdc_code rc =
		cdc_database_query(db,
				   "SELECT id FROM parked WHERE sync = $1 AND state = 0 AND"
				   " key_hash = $2 ORDER BY id LIMIT 1",
				   key, 2, take_head_id, q, err);

	if (rc || !q->first_half[0])
		return rc;
	return cdc_database_query(db,
				  "SELECT id FROM parked WHERE sync = $1 AND id = $2 AND state = 0",
				  half, 2, take_half, q, err);
}

static enum cdc_code read_queue(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct queue_reading *q = arg;
	const struct cdc_sql_value queue[] = {cdc_sql_text(q->sync), hash_value(q->what->key_hash),
					      cdc_sql_int((int64_t)q->what->max)};
	const struct cdc_sql_value replay[] = {cdc_sql_text(q->sync),
					       cdc_sql_int((int64_t)q->what->max)};
	enum cdc_code rc = CDC_OK;

	q->db = db;
	if (q->what->is_replay) {
		rc = cdc_database_query(
			db,
			"SELECT record, id, name FROM parked WHERE sync = $1 AND state = 2"
			" ORDER BY id LIMIT $2",
			replay, 2, take_record, q, err);
	} else {
		rc = look_for_half(db, q, err);
		if (!rc && !q->waits)
			rc = cdc_database_query(
				db,
				"SELECT record, id, name FROM parked WHERE sync = $1 AND"
				" state = 0 AND key_hash = $2 ORDER BY id LIMIT $3",
				queue, 3, take_record, q, err);
	}
	return rc == CDC_STOPPED ? CDC_OK : rc;
}

enum cdc_code cdc_store_park_read(struct cdc_store *s, const char *sync,
				  const struct cdc_park_read *what, struct cdc_batch *batch,
				  bool *ret_waits, struct cdc_err *err)
{
	struct queue_reading q = {.sync = sync, .what = what, .batch = batch};
	enum cdc_code rc = cdc_store_ask_read(s, read_queue, &q, err);

	*ret_waits = q.waits;
	return rc;
}
