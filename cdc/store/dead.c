/* Parked records and dead letters, for people: list, show, replay, discard. */
#include <stdlib.h>
#include <string.h>

#include "cdc/store/request.h"
#include "cdc/store/row.h"

#define LIST_MAX 1000

void cdc_parked_records_free(struct cdc_parked_record *rows, size_t n)
{
	for (size_t i = 0; rows && i < n; i++) {
		free(rows[i].key);
		free(rows[i].response);
		free(rows[i].record);
	}
	free(rows);
}

/* What a filter asks for, as the values $1 to $6 of every statement here; "" or 0: any. */
#define MATCHES                                                                                    \
	" ($1 = '' OR sync = $1) AND ($2 = '' OR name = $2) AND ($3 = '' OR id = $3)"              \
	" AND ($4 = '' OR key = $4)"
#define MATCHED 6

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static void fill_values(const struct cdc_parked_filter *f, struct cdc_sql_value ret[MATCHED])
{
	ret[0] = cdc_sql_text(or_empty(f->sync));
	ret[1] = cdc_sql_text(or_empty(f->table));
	ret[2] = cdc_sql_text(or_empty(f->id));
	ret[3] = cdc_sql_text(or_empty(f->key));
	ret[4] = cdc_sql_int(f->since_us);
	ret[5] = cdc_sql_int(f->until_us > 0 ? f->until_us : INT64_MAX);
}

struct listing {
	const struct cdc_parked_filter *filter; /* NULL: one record */
	const char *sync, *id;
	size_t max;
	const struct cdc_database *db;
	struct cdc_parked_record *rows;
	size_t n;
};

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
	    !cdc_row_int(&c[8], 0, 999, &status) ||
	    !cdc_row_text(&c[9], row.reason, sizeof(row.reason)) || c[10].type != CDC_SQL_TEXT ||
	    c[11].type != CDC_SQL_TEXT || c[12].type != CDC_SQL_TEXT)
		return cdc_database_damaged(l->db, "parked record", err);
	row.state = (enum cdc_parked_state)state;
	row.attempts = (uint64_t)attempts;
	row.status = (int)status;
	rc = cdc_row_room(&array, l->n, sizeof(row), err);
	if (rc)
		return rc;
	l->rows = array;
	row.key = strdup(c[10].text);
	row.response = strdup(c[11].text);
	row.record = l->filter ? NULL : strdup(c[12].text);
	l->rows[l->n++] = row;
	if (!row.key || !row.response || (!l->filter && !row.record))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for parked records");
	return CDC_OK;
}

#define COLUMNS                                                                                    \
	"SELECT sync, id, name, state, attempts, parked_us, dead_us, next_us, status, reason,"     \
	" key, response, "

static enum cdc_code list(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct listing *l = arg;
	struct cdc_sql_value values[MATCHED + 3];

	l->db = db;
	fill_values(l->filter, values);
	values[6] = cdc_sql_text(or_empty(l->filter->after_sync));
	values[7] = cdc_sql_text(or_empty(l->filter->after_id));
	values[8] = cdc_sql_int((int64_t)l->max);
	if (l->filter->state == CDC_PARKED_WAITING)
		return cdc_database_query(db,
					  COLUMNS "'' FROM parked WHERE state = 0 AND" MATCHES
						  " AND parked_us >= $5 AND parked_us < $6"
						  " AND (sync > $7 OR (sync = $7 AND id > $8))"
						  " ORDER BY sync, id LIMIT $9",
					  values, MATCHED + 3, take_row, l, err);
	return cdc_database_query(db,
				  COLUMNS "'' FROM parked WHERE state <> 0 AND" MATCHES
					  " AND dead_us >= $5 AND dead_us < $6"
					  " AND (sync > $7 OR (sync = $7 AND id > $8))"
					  " ORDER BY sync, id LIMIT $9",
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
	enum cdc_code rc;

	fill_values(change->filter, values);
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
