/* Which tables of a sync were found, and what became of copying their rows. */
#include <stdlib.h>

#include "cdc/store/request.h"
#include "cdc/store/row.h"

struct reading {
	const char *sync;
	const struct cdc_database *db;
	struct cdc_backfill_row *rows;
	size_t n;
};

static enum cdc_code take_row(void *arg, const struct cdc_sql_value *c, size_t n,
			      struct cdc_err *err)
{
	struct reading *r = arg;
	struct cdc_backfill_row row;
	void *array = r->rows;
	int64_t state, rows, is_asked;
	enum cdc_code rc;

	CDC_ASSERT(n == 9);
	if (!cdc_row_text(&c[0], row.table, sizeof(row.table)) ||
	    !cdc_row_int(&c[1], CDC_BACKFILL_PENDING, CDC_BACKFILL_FAILED, &state) ||
	    !cdc_row_int(&c[2], 0, INT64_MAX, &rows) ||
	    !cdc_row_int(&c[3], 0, INT64_MAX, &row.begun_us) ||
	    !cdc_row_int(&c[4], 0, INT64_MAX, &row.ended_us) ||
	    !cdc_row_text(&c[5], row.reason, sizeof(row.reason)) ||
	    !cdc_row_int(&c[6], 0, 1, &is_asked) ||
	    !cdc_row_text(&c[7], row.part, sizeof(row.part)) ||
	    !cdc_row_text(&c[8], row.next, sizeof(row.next)))
		return cdc_database_damaged(r->db, "backfill", err);
	row.state = (enum cdc_backfill_state)state;
	row.rows = (uint64_t)rows;
	row.is_asked = is_asked != 0;
	rc = cdc_row_room(&array, r->n, sizeof(row), err);
	if (rc)
		return cdc_err_wrap(err, "backfill of %s", r->sync);
	r->rows = array;
	r->rows[r->n++] = row;
	return CDC_OK;
}

static enum cdc_code get(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct reading *r = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(r->sync)};

	r->db = db;
	return cdc_database_query(
		db,
		"SELECT name, state, copied, begun_us, ended_us, reason, asked, part, next"
		" FROM backfill WHERE sync = $1 ORDER BY name",
		key, 1, take_row, r, err);
}

enum cdc_code cdc_store_backfill_get(struct cdc_store *s, const char *sync,
				     struct cdc_backfill_row **ret, size_t *ret_n,
				     struct cdc_err *err)
{
	struct reading r = {.sync = sync};
	enum cdc_code rc = cdc_store_ask_read(s, get, &r, err);

	*ret = NULL;
	*ret_n = 0;
	if (rc) {
		free(r.rows);
		return rc;
	}
	*ret = r.rows;
	*ret_n = r.n;
	return CDC_OK;
}

struct writing {
	const char *sync;
	const struct cdc_backfill_row *rows;
	size_t n;
};

static enum cdc_code put(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct writing *w = arg;
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < w->n && !rc; i++) {
		const struct cdc_backfill_row *row = &w->rows[i];
		const struct cdc_sql_value values[] = {
			cdc_sql_text(w->sync),      cdc_sql_text(row->table),
			cdc_sql_int(row->state),    cdc_sql_int((int64_t)row->rows),
			cdc_sql_int(row->begun_us), cdc_sql_int(row->ended_us),
			cdc_sql_text(row->reason),  cdc_sql_int(row->is_asked),
			cdc_sql_text(row->part),    cdc_sql_text(row->next),
		};

		rc = cdc_database_run(db,
				      "INSERT INTO backfill"
				      " (sync, name, state, copied, begun_us, ended_us, reason, "
				      "asked, part, next)"
				      " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
				      " ON CONFLICT (sync, name) DO UPDATE"
				      " SET state = excluded.state, copied = excluded.copied,"
				      " begun_us = excluded.begun_us, ended_us = excluded.ended_us,"
				      " reason = excluded.reason, asked = excluded.asked, part = "
				      "excluded.part, next = excluded.next",
				      values, 10, err);
	}
	return rc;
}

enum cdc_code cdc_store_backfill_put(struct cdc_store *s, const char *sync,
				     const struct cdc_backfill_row *rows, size_t n,
				     struct cdc_err *err)
{
	struct writing w = {.sync = sync, .rows = rows, .n = n};

	return cdc_store_ask_write(s, put, &w, err);
}
