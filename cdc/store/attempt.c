/* The log of requests as rows: written with the checkpoints, listed, forgotten. */
#include "cdc/store/attempt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/store/attempt_queue.h"
#include "cdc/store/request.h"
#include "cdc/store/row.h"
#include "cdc/store/vault.h"

#define LIST_MAX    1000
#define OUTCOME_MAX 99

/* --- texts -------------------------------------------------------------------------- */

/* Those that may hold what users wrote, encrypted. */
enum { URL, HEADERS, REASON, REQUEST, RESPONSE, TEXTS };

static const char *const columns[TEXTS] = {
	[URL] = "url",         [HEADERS] = "headers",   [REASON] = "reason",
	[REQUEST] = "request", [RESPONSE] = "response",
};

struct sealed {
	struct cdc_vault_value held[TEXTS];
	struct cdc_sql_value values[TEXTS];
};

static void sealed_clear(struct sealed *s)
{
	for (size_t i = 0; i < TEXTS; i++)
		cdc_vault_value_clear(&s->held[i]);
}

static enum cdc_code seal(struct cdc_database *db, const char *sync, int64_t number,
			  const struct cdc_attempt_texts *t, struct sealed *ret,
			  struct cdc_err *err)
{
	const char *const texts[TEXTS] = {
		[URL] = t->url,         [HEADERS] = t->headers,   [REASON] = t->text,
		[REQUEST] = t->request, [RESPONSE] = t->response,
	};
	char id[24]; /* any int64_t */
	enum cdc_code rc = CDC_OK;

	(void)snprintf(id, sizeof(id), "%" PRId64, number);
	for (size_t i = 0; i < TEXTS && !rc; i++) {
		const struct cdc_vault_place at = {.sync = sync, .id = id, .column = columns[i]};

		rc = cdc_vault_seal(db, &at, texts[i], strlen(texts[i]), &ret->held[i],
				    &ret->values[i], err);
	}
	return rc;
}

/* The caller frees *ret.  One that cannot be read says so in its place. */
static enum cdc_code open_text(struct cdc_database *db, const char *sync, int64_t number,
			       const char *column, const struct cdc_sql_value *v, char **ret,
			       struct cdc_err *err)
{
	struct cdc_vault_value opened;
	struct cdc_err why = {0};
	char id[24];
	const struct cdc_vault_place at = {.sync = sync, .id = id, .column = column};
	enum cdc_code rc;

	(void)snprintf(id, sizeof(id), "%" PRId64, number);
	rc = cdc_vault_open(db, &at, v, &opened, &why);
	if (rc == CDC_OK)
		*ret = strdup((const char *)opened.bytes);
	else if (rc == CDC_REJECTED)
		*ret = strdup(why.msg);
	cdc_vault_value_clear(&opened);
	return *ret ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory for attempts");
}

/* --- writing ------------------------------------------------------------------------ */

#define LAST_OF "SELECT coalesce(max(number), 0) FROM attempt WHERE sync = $1"

struct last {
	const struct cdc_database *db;
	int64_t number;
};

static enum cdc_code take_last(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct last *last = arg;

	CDC_ASSERT(n == 1);
	return cdc_row_int(&c[0], 0, INT64_MAX - 1, &last->number)
		       ? CDC_OK
		       : cdc_database_damaged(last->db, "attempt", err);
}

static enum cdc_code insert(struct cdc_database *db, const char *sync, int64_t number,
			    const struct cdc_attempt *a, struct cdc_err *err)
{
	const struct cdc_attempt_row *r = &a->row;
	CDC_AUTO(sealed_clear) struct sealed sealed = {0};
	enum cdc_code rc = seal(db, sync, number, &r->texts, &sealed, err);
	const struct cdc_sql_value values[] = {
		cdc_sql_text(sync),
		cdc_sql_int(number),
		cdc_sql_int((int64_t)a->bytes),
		cdc_sql_int(r->at_us),
		cdc_sql_int((int64_t)r->took_us),
		cdc_sql_int(r->status),
		cdc_sql_int(r->outcome),
		cdc_sql_int((int64_t)r->records),
		cdc_sql_int((int64_t)r->refused),
		cdc_sql_int((int64_t)r->request_bytes),
		cdc_sql_text(r->texts.method),
		sealed.values[URL],
		sealed.values[HEADERS],
		sealed.values[REASON],
		sealed.values[REQUEST],
		sealed.values[RESPONSE],
	};

	if (rc)
		return rc;
	return cdc_database_run(
		db,
		"INSERT INTO attempt (sync, number, bytes, at_us, took_us, status, outcome, "
		"records,"
		" refused, request_bytes, method, url, headers, reason, request, response)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
		values, sizeof(values) / sizeof(values[0]), err);
}

/* Numbers have no gaps, so they count rows. */
static enum cdc_code cut_ring(struct cdc_database *db, const struct cdc_attempts *of, int64_t last,
			      struct cdc_err *err)
{
	const int64_t rows = of->ring.rows < INT64_MAX ? (int64_t)of->ring.rows : INT64_MAX;
	const struct cdc_sql_value by_rows[] = {cdc_sql_text(of->sync), cdc_sql_int(last - rows)};
	const struct cdc_sql_value by_bytes[] = {cdc_sql_text(of->sync),
						 cdc_sql_int((int64_t)of->ring.bytes)};
	enum cdc_code rc = cdc_database_run(
		db, "DELETE FROM attempt WHERE sync = $1 AND number <= $2", by_rows, 2, err);

	if (rc)
		return rc;
	return cdc_database_run(db,
				"DELETE FROM attempt WHERE sync = $1 AND number <="
				" (SELECT coalesce(max(number), 0) FROM"
				" (SELECT number, sum(bytes) OVER (ORDER BY number DESC) AS held"
				" FROM attempt WHERE sync = $1) AS ring WHERE held > $2)",
				by_bytes, 2, err);
}

static enum cdc_code write_sync(struct cdc_database *db, const struct cdc_attempts *of,
				struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(of->sync)};
	struct last last = {.db = db};
	enum cdc_code rc = cdc_database_query(db, LAST_OF, key, 1, take_last, &last, err);

	for (const struct cdc_attempt *a = of->first; a && !rc; a = a->next)
		rc = insert(db, of->sync, ++last.number, a, err);
	return rc ? rc : cut_ring(db, of, last.number, err);
}

enum cdc_code cdc_attempts_write(struct cdc_database *db, const struct cdc_attempt_queue *q,
				 struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (const struct cdc_attempts *of = q->syncs; of && !rc; of = of->next)
		rc = write_sync(db, of, err);
	return rc;
}

/* --- listing ------------------------------------------------------------------------ */

void cdc_attempt_row_clear(struct cdc_attempt_row *row)
{
	free(row->texts.method);
	free(row->texts.url);
	free(row->texts.headers);
	free(row->texts.text);
	free(row->texts.request);
	free(row->texts.response);
}

void cdc_attempts_free(struct cdc_attempt_row *rows, size_t n)
{
	for (size_t i = 0; rows && i < n; i++)
		cdc_attempt_row_clear(&rows[i]);
	free(rows);
}

struct listing {
	const struct cdc_attempt_filter *filter;
	size_t max;
	struct cdc_database *db;
	struct cdc_attempt_row *rows;
	size_t n;
};

static enum cdc_code take_numbers(const struct cdc_database *db, const struct cdc_sql_value *c,
				  struct cdc_attempt_row *ret, struct cdc_err *err)
{
	int64_t took, status, outcome, records, refused, bytes;

	if (!cdc_row_int(&c[0], 1, INT64_MAX, &ret->number) ||
	    !cdc_row_int(&c[1], INT64_MIN, INT64_MAX, &ret->at_us) ||
	    !cdc_row_int(&c[2], 0, INT64_MAX, &took) || !cdc_row_int(&c[3], 0, 999, &status) ||
	    !cdc_row_int(&c[4], 0, OUTCOME_MAX, &outcome) ||
	    !cdc_row_int(&c[5], 0, INT64_MAX, &records) ||
	    !cdc_row_int(&c[6], 0, INT64_MAX, &refused) ||
	    !cdc_row_int(&c[7], 0, INT64_MAX, &bytes))
		return cdc_database_damaged(db, "attempt", err);
	ret->took_us = (uint64_t)took;
	ret->status = (int)status;
	ret->outcome = (unsigned)outcome;
	ret->records = (uint64_t)records;
	ret->refused = (uint64_t)refused;
	ret->request_bytes = (uint64_t)bytes;
	return CDC_OK;
}

static enum cdc_code take_texts(const struct listing *l, const struct cdc_sql_value *c,
				struct cdc_attempt_row *row, struct cdc_err *err)
{
	struct cdc_attempt_texts *t = &row->texts;
	char **const texts[TEXTS] = {
		[URL] = &t->url,         [HEADERS] = &t->headers,   [REASON] = &t->text,
		[REQUEST] = &t->request, [RESPONSE] = &t->response,
	};
	enum cdc_code rc = CDC_OK;

	t->method = strdup(c[0].text);
	if (!t->method)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for attempts");
	for (size_t i = 0; i < TEXTS && !rc; i++)
		rc = open_text(l->db, l->filter->sync, row->number, columns[i], &c[1 + i], texts[i],
			       err);
	return rc;
}

static enum cdc_code take_row(void *arg, const struct cdc_sql_value *c, size_t n,
			      struct cdc_err *err)
{
	struct listing *l = arg;
	struct cdc_attempt_row row = {0};
	void *array = l->rows;
	enum cdc_code rc;

	CDC_ASSERT(n == 9 + TEXTS);
	rc = take_numbers(l->db, c, &row, err);
	if (!rc && c[8].type != CDC_SQL_TEXT)
		rc = cdc_database_damaged(l->db, "attempt", err);
	if (!rc)
		rc = cdc_row_room(&array, l->n, sizeof(row), err);
	if (rc)
		return rc;
	l->rows = array;
	l->rows[l->n] = row;
	return take_texts(l, &c[8], &l->rows[l->n++], err);
}

#define MATCHES "sync = $1 AND ($2 = 0 OR outcome <> 0 OR refused <> 0)"

static enum cdc_code list(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct listing *l = arg;
	const struct cdc_attempt_filter *f = l->filter;
	const struct cdc_sql_value values[] = {
		cdc_sql_text(f->sync),
		cdc_sql_int(f->is_failed),
		cdc_sql_int(f->after),
		cdc_sql_int(f->newest < INT64_MAX ? (int64_t)f->newest : INT64_MAX),
		cdc_sql_int((int64_t)l->max),
	};

	l->db = db;
	return cdc_database_query(
		db,
		"SELECT number, at_us, took_us, status, outcome, records, refused, request_bytes,"
		" method, url, headers, reason, request, response FROM attempt WHERE " MATCHES
		" AND number > $3 AND number >= (SELECT coalesce(min(number), 0) FROM"
		" (SELECT number FROM attempt WHERE " MATCHES " ORDER BY number DESC LIMIT $4)"
		" AS newest) ORDER BY number LIMIT $5",
		values, sizeof(values) / sizeof(values[0]), take_row, l, err);
}

enum cdc_code cdc_store_attempts_list(struct cdc_store *s, const struct cdc_attempt_filter *f,
				      size_t max, struct cdc_attempt_row **ret, size_t *ret_n,
				      struct cdc_err *err)
{
	struct listing l = {.filter = f, .max = max};
	enum cdc_code rc;

	CDC_ASSERT(max >= 1 && max <= LIST_MAX);
	rc = cdc_store_ask_read(s, list, &l, err);
	if (rc) {
		cdc_attempts_free(l.rows, l.n);
		return rc;
	}
	*ret = l.rows;
	*ret_n = l.n;
	return CDC_OK;
}

/* --- forgetting --------------------------------------------------------------------- */

struct forgetting {
	const char *sync;
	struct last last;
};

static enum cdc_code find_last(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct forgetting *f = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(f->sync)};

	f->last.db = db;
	return cdc_database_query(db, LAST_OF, key, 1, take_last, &f->last, err);
}

static enum cdc_code forget(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct forgetting *f = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(f->sync)};

	return cdc_database_run(db, "DELETE FROM attempt WHERE sync = $1", key, 1, err);
}

enum cdc_code cdc_store_attempts_forget(struct cdc_store *s, const char *sync, struct cdc_err *err)
{
	struct forgetting f = {.sync = sync};
	enum cdc_code rc = cdc_store_ask_read(s, find_last, &f, err);

	return rc || !f.last.number ? rc : cdc_store_ask_write(s, forget, &f, err);
}
