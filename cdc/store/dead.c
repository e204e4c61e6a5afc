/* Parked records and dead letters, for people: list, show, replay, discard. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/store/request.h"
#include "cdc/store/row.h"
#include "cdc/store/vault.h"

#define LIST_MAX 1000

void cdc_parked_records_free(struct cdc_parked_record *rows, size_t n)
{
	for (size_t i = 0; rows && i < n; i++) {
		free(rows[i].key);
		free(rows[i].response);
		free(rows[i].record);
		free(rows[i].damage);
	}
	free(rows);
}

/* What a filter asks for, as the values $1 to $7 of every statement here; "" or 0: any.  A key that
 * is not encrypted has no mark. */
#define MATCHES                                                                                    \
	" ($1 = '' OR sync = $1) AND ($2 = '' OR name = $2) AND ($3 = '' OR id = $3)"              \
	" AND ($4 = '' OR key_mark = $7 OR (key_mark = '' AND CAST(key AS TEXT) = $4))"
#define MATCHED 7

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

/* Valid as long as mark. */
static void fill_values(struct cdc_database *db, const struct cdc_parked_filter *f,
			char mark[CDC_VAULT_MARK], struct cdc_sql_value ret[MATCHED])
{
	const char *key = or_empty(f->key);

	ret[0] = cdc_sql_text(or_empty(f->sync));
	ret[1] = cdc_sql_text(or_empty(f->table));
	ret[2] = cdc_sql_text(or_empty(f->id));
	ret[3] = cdc_sql_text(key);
	ret[4] = cdc_sql_int(f->since_us);
	ret[5] = cdc_sql_int(f->until_us > 0 ? f->until_us : INT64_MAX);
	ret[6] = cdc_sql_text(cdc_vault_mark(db, key, strlen(key), mark));
}

struct listing {
	const struct cdc_parked_filter *filter; /* NULL: one record */
	const char *sync, *id;
	size_t max;
	struct cdc_database *db;
	struct cdc_parked_record *rows;
	size_t n;
};

/* A value of the row as text of its own.  One that cannot be read is "", and damage says why. */
static enum cdc_code open_text(const struct listing *l, const struct cdc_sql_value *row,
			       const char *column, const struct cdc_sql_value *value,
			       struct cdc_parked_record *record, char **ret, struct cdc_err *err)
{
	const struct cdc_vault_place at = {
		.sync = row[0].text, .id = row[1].text, .column = column};
	struct cdc_vault_value opened;
	struct cdc_err why = {0};
	enum cdc_code rc = cdc_vault_open(l->db, &at, value, &opened, &why);

	if (!rc) {
		*ret = (char *)opened.bytes;
		return CDC_OK;
	}
	if (rc != CDC_REJECTED)
		return cdc_err_set(err, rc, "%s", why.msg);
	if (!record->damage)
		record->damage = strdup(why.msg);
	*ret = strdup("");
	return record->damage && *ret
		       ? CDC_OK
		       : cdc_err_set(err, CDC_NOMEM, "out of memory for parked records");
}

/* The values of the row that may be encrypted: reason, key, response, and of one record alone the
 * record. */
static enum cdc_code open_texts(const struct listing *l, const struct cdc_sql_value *c,
				struct cdc_parked_record *row, struct cdc_err *err)
{
	char *reason = NULL;
	enum cdc_code rc = open_text(l, c, "reason", &c[9], row, &reason, err);

	if (!rc)
		(void)snprintf(row->reason, sizeof(row->reason), "%s", reason);
	free(reason);
	if (!rc)
		rc = open_text(l, c, "key", &c[10], row, &row->key, err);
	if (!rc)
		rc = open_text(l, c, "response", &c[11], row, &row->response, err);
	if (!rc && !l->filter)
		rc = open_text(l, c, "record", &c[12], row, &row->record, err);
	return rc;
}

static enum cdc_code take_row(void *arg, const struct cdc_sql_value *c, size_t n,
			      struct cdc_err *err)
{
	struct listing *l = arg;
	struct cdc_parked_record row = {0};
	void *array = l->rows;
	int64_t state, attempts, status;
	enum cdc_code rc;

	CDC_ASSERT(n == 13);
	if (!cdc_row_text(&c[0], row.sync, sizeof(row.sync)) || !cdc_row_id(&c[1], &row.id) ||
	    !cdc_row_text(&c[2], row.table, sizeof(row.table)) ||
	    !cdc_row_int(&c[3], CDC_PARKED_WAITING, CDC_PARKED_REPLAY, &state) ||
	    !cdc_row_int(&c[4], 0, INT64_MAX, &attempts) ||
	    !cdc_row_int(&c[5], INT64_MIN, INT64_MAX, &row.parked_us) ||
	    !cdc_row_int(&c[6], INT64_MIN, INT64_MAX, &row.dead_us) ||
	    !cdc_row_int(&c[7], INT64_MIN, INT64_MAX, &row.next_us) ||
	    !cdc_row_int(&c[8], 0, 999, &status))
		return cdc_database_damaged(l->db, "parked record", err);
	row.state = (enum cdc_parked_state)state;
	row.attempts = (uint64_t)attempts;
	row.status = (int)status;
	rc = cdc_row_room(&array, l->n, sizeof(row), err);
	if (rc)
		return rc;
	l->rows = array;
	rc = open_texts(l, c, &row, err);
	l->rows[l->n++] = row;
	return rc;
}

#define COLUMNS                                                                                    \
	"SELECT sync, id, name, state, attempts, parked_us, dead_us, next_us, status, reason,"     \
	" key, response, "

static enum cdc_code list(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct listing *l = arg;
	struct cdc_sql_value values[MATCHED + 3];
	char mark[CDC_VAULT_MARK];

	l->db = db;
	fill_values(db, l->filter, mark, values);
	values[7] = cdc_sql_text(or_empty(l->filter->after_sync));
	values[8] = cdc_sql_text(or_empty(l->filter->after_id));
	values[9] = cdc_sql_int((int64_t)l->max);
	if (l->filter->state == CDC_PARKED_WAITING)
		return cdc_database_query(db,
					  COLUMNS "'' FROM parked WHERE state = 0 AND" MATCHES
						  " AND parked_us >= $5 AND parked_us < $6"
						  " AND (sync > $8 OR (sync = $8 AND id > $9))"
						  " ORDER BY sync, id LIMIT $10",
					  values, MATCHED + 3, take_row, l, err);
	return cdc_database_query(db,
				  COLUMNS "'' FROM parked WHERE state <> 0 AND" MATCHES
					  " AND dead_us >= $5 AND dead_us < $6"
					  " AND (sync > $8 OR (sync = $8 AND id > $9))"
					  " ORDER BY sync, id LIMIT $10",
				  values, MATCHED + 3, take_row, l, err);
}

static enum cdc_code get(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct listing *l = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(l->sync), cdc_sql_text(l->id)};

	l->db = db;
	return cdc_database_query(db, COLUMNS "record FROM parked WHERE sync = $1 AND id = $2", key,
				  2, take_row, l, err);
}

static enum cdc_code ask(struct cdc_store *s, cdc_database_fn *body, struct listing *l,
			 struct cdc_parked_record **ret, struct cdc_err *err)
{
	enum cdc_code rc = cdc_store_ask_read(s, body, l, err);

	if (rc) {
		cdc_parked_records_free(l->rows, l->n);
		return rc;
	}
	*ret = l->rows;
	return CDC_OK;
}

enum cdc_code cdc_store_parked_list(struct cdc_store *s, const struct cdc_parked_filter *f,
				    size_t max, struct cdc_parked_record **ret, size_t *ret_n,
				    struct cdc_err *err)
{
	struct listing l = {.filter = f, .max = max};
	enum cdc_code rc;

	CDC_ASSERT(max >= 1 && max <= LIST_MAX);
	rc = ask(s, list, &l, ret, err);
	if (!rc)
		*ret_n = l.n;
	return rc;
}

enum cdc_code cdc_store_parked_get(struct cdc_store *s, const char *sync, const char *id,
				   struct cdc_parked_record **ret, struct cdc_err *err)
{
	struct listing l = {.sync = sync, .id = id};
	enum cdc_code rc = ask(s, get, &l, ret, err);

	if (!rc && l.n == 0)
		rc = cdc_err_set(err, CDC_MISSING,
				 "sync %s has no parked record and no dead letter %s", sync, id);
	return rc;
}

/* --- replay and discard ------------------------------------------------------------- */

struct change {
	const char *statement;
	const struct cdc_parked_filter *filter;
	uint64_t n;
	const struct cdc_database *db;
};

static enum cdc_code take_count(void *arg, const struct cdc_sql_value *c, size_t n,
				struct cdc_err *err)
{
	struct change *change = arg;
	int64_t count;

	CDC_ASSERT(n == 1);
	if (!cdc_row_int(&c[0], 0, INT64_MAX, &count))
		return cdc_database_damaged(change->db, "dead letter", err);
	change->n = (uint64_t)count;
	return CDC_OK;
}

#define DEAD_MATCHES " WHERE state = 1 AND" MATCHES " AND dead_us >= $5 AND dead_us < $6"

static enum cdc_code count_and_change(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct change *change = arg;
	struct cdc_sql_value values[MATCHED];
	char mark[CDC_VAULT_MARK];
	enum cdc_code rc;

	fill_values(db, change->filter, mark, values);
	change->db = db;
	rc = cdc_database_query(db, "SELECT count(*) FROM parked" DEAD_MATCHES, values, MATCHED,
				take_count, change, err);
	if (!rc)
		rc = cdc_database_run(db, change->statement, values, MATCHED, err);
	return rc;
}

static enum cdc_code change_all(struct cdc_store *s, const char *statement,
				const struct cdc_parked_filter *f, uint64_t *ret_n,
				struct cdc_err *err)
{
	struct change change = {.statement = statement, .filter = f};
	enum cdc_code rc = cdc_store_ask_write(s, count_and_change, &change, err);

	if (!rc)
		*ret_n = change.n;
	return rc;
}

enum cdc_code cdc_store_dead_replay(struct cdc_store *s, const struct cdc_parked_filter *f,
				    uint64_t *ret_n, struct cdc_err *err)
{
	return change_all(s, "UPDATE parked SET state = 2" DEAD_MATCHES, f, ret_n, err);
}

enum cdc_code cdc_store_dead_discard(struct cdc_store *s, const struct cdc_parked_filter *f,
				     uint64_t *ret_n, struct cdc_err *err)
{
	return change_all(s, "DELETE FROM parked" DEAD_MATCHES, f, ret_n, err);
}

/* --- what cannot be read ------------------------------------------------------------ */

struct search {
	struct cdc_database *db;
	struct found {
		char sync[CDC_NAME_MAX], id[CDC_ID_TEXT];
	} * found;
	size_t n;
};

static enum cdc_code try_record(void *arg, const struct cdc_sql_value *c, size_t n,
				struct cdc_err *err)
{
	struct search *s = arg;
	struct cdc_vault_place at = {.column = "record"};
	struct cdc_vault_value record;
	struct found found;
	void *array = s->found;
	enum cdc_code rc;

	CDC_ASSERT(n == 3);
	if (!cdc_row_text(&c[0], found.sync, sizeof(found.sync)) ||
	    !cdc_row_text(&c[1], found.id, sizeof(found.id)))
		return cdc_database_damaged(s->db, "parked record", err);
	at.sync = found.sync;
	at.id = found.id;
	rc = cdc_vault_open(s->db, &at, &c[2], &record, err);
	cdc_vault_value_clear(&record);
	if (rc != CDC_REJECTED)
		return rc;
	rc = cdc_row_room(&array, s->n, sizeof(found), err);
	if (rc)
		return rc;
	s->found = array;
	s->found[s->n++] = found;
	return CDC_OK;
}

static enum cdc_code discard_unreadable(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct search *s = arg;
	enum cdc_code rc;

	s->db = db;
	rc = db->vault
		     ? cdc_database_query(db, "SELECT sync, id, record FROM parked WHERE state = 1",
					  NULL, 0, try_record, s, err)
		     : cdc_database_query(db, "SELECT sync, id, record FROM parked", NULL, 0,
					  try_record, s, err);
	for (size_t i = 0; i < s->n && !rc; i++) {
		const struct cdc_sql_value row[] = {cdc_sql_text(s->found[i].sync),
						    cdc_sql_text(s->found[i].id)};

		rc = cdc_database_run(db, "DELETE FROM parked WHERE sync = $1 AND id = $2", row, 2,
				      err);
	}
	if (rc || db->vault)
		return rc;
	/* All of the log of requests was encrypted, too. */
	rc = cdc_database_run(db, "DELETE FROM attempt", NULL, 0, err);
	return rc ? rc : cdc_vault_forget(db, err);
}

enum cdc_code cdc_store_discard_unreadable(struct cdc_store *s, uint64_t *ret_n,
					   struct cdc_err *err)
{
	struct search search = {0};
	enum cdc_code rc = cdc_store_ask_write(s, discard_unreadable, &search, err);

	free(search.found);
	if (!rc)
		*ret_n = search.n;
	return rc;
}
