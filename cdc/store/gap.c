/* Records that a sync will never get, and why. */
#include <stdio.h>
#include <stdlib.h>

#include "cdc/store/parts.h"
#include "cdc/store/request.h"
#include "cdc/store/row.h"

struct reading {
	const struct cdc_database *db;
	struct cdc_gap_row *rows;
	size_t n;
};

static enum cdc_code take_gap(void *arg, const struct cdc_sql_value *c, size_t n,
			      struct cdc_err *err)
{
	struct reading *r = arg;
	struct cdc_gap_row g;
	void *array = r->rows;
	enum cdc_code rc;

	CDC_ASSERT(n == 5);
	if (!cdc_row_text(&c[0], g.sync, sizeof(g.sync)) ||
	    !cdc_row_int(&c[1], INT64_MIN, INT64_MAX, &g.at_us) || !cdc_row_id(&c[2], &g.first) ||
	    !cdc_row_id(&c[3], &g.last) || !cdc_row_text(&c[4], g.reason, sizeof(g.reason)))
		return cdc_database_damaged(r->db, "gap", err);
	rc = cdc_row_room(&array, r->n, sizeof(g), err);
	if (rc)
		return cdc_err_wrap(err, "gaps");
	r->rows = array;
	r->rows[r->n++] = g;
	return CDC_OK;
}

static enum cdc_code get(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct reading *r = arg;

	r->db = db;
	return cdc_database_query(db,
				  "SELECT sync, at_us, first_id, last_id, reason FROM gap"
				  " ORDER BY at_us, sync, first_id",
				  NULL, 0, take_gap, r, err);
}

enum cdc_code cdc_gap_write(struct cdc_database *db, const struct cdc_gap_row *g,
			    struct cdc_err *err)
{
	char first[CDC_ID_TEXT], last[CDC_ID_TEXT];
	const struct cdc_sql_value values[] = {cdc_sql_text(g->sync), cdc_sql_int(g->at_us),
					       cdc_sql_text(first), cdc_sql_text(last),
					       cdc_sql_text(g->reason)};

	(void)cdc_id_format(&g->first, first);
	(void)cdc_id_format(&g->last, last);
	return cdc_database_run(
		db,
		"INSERT INTO gap (sync, at_us, first_id, last_id, reason)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sync, first_id, last_id) DO NOTHING",
		values, 5, err);
}

/* arg: the caller's struct cdc_gap_row by a pointer to its address, since it is constant. */
static enum cdc_code put(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	return cdc_gap_write(db, *(const struct cdc_gap_row *const *)arg, err);
}

enum cdc_code cdc_store_gap_put(struct cdc_store *s, const struct cdc_gap_row *g,
				struct cdc_err *err)
{
	return cdc_store_ask_write(s, put, &g, err);
}

enum cdc_code cdc_store_gap_each(struct cdc_store *s,
				 void (*fn)(void *arg, const struct cdc_gap_row *g), void *arg,
				 struct cdc_err *err)
{
	struct reading r = {0};
	enum cdc_code rc = cdc_store_ask_read(s, get, &r, err);

	for (size_t i = 0; i < r.n && !rc; i++)
		fn(arg, &r.rows[i]);
	free(r.rows);
	return rc;
}
