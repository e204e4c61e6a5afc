#include "cdc/source/copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/record/writer.h"
#include "cdc/source/catalog.h"
#include "cdc/source/copy_plan.h"
#include "cdc/source/copy_text.h"
#include "cdc/source/lookup.h"
#include "cdc/source/quote.h"
#include "cdc/source/server.h"

#define ASK_MS        15000
#define SNAPSHOT_MS   40000 /* a little more than its lock_timeout */
#define SQL_MAX       (8u << 20)
#define ROWS_PER_TURN 200 /* of one connection, then the next has its turn */
#define APPLICATION   "walpost copy"

/* A connection that has the snapshot. */
struct worker {
	struct cdc_pgconn *conn;
	const struct cdc_copy_range *range; /* being read; NULL: none */
	const struct cdc_shape *shape;
	bool has_row_types; /* in that shape */
	struct cdc_value *values;
	size_t value_n;
	uint32_t row;  /* of the range, the last one taken apart */
	char *line;    /* that row, whose values did not fit into the batch yet */
	bool has_copy; /* the server sends rows */
};

struct table {
	size_t ranges_left;
	uint64_t rows;
	uint64_t blocks_done, blocks_total;
};

struct cdc_copy {
	struct cdc_copy_setup setup;
	struct cdc_copy_plan plan;
	struct cdc_lookup lookup; /* types, keys, and who waits */
	struct cdc_catalog *catalog;
	struct cdc_catalog_oddities told; /* of its oddities, those that the caller knows */
	struct cdc_pressure_watch watch;
	struct worker *workers;
	size_t worker_n;
	struct table *tables;
	size_t next_range, ranges_left;
	char reached[CDC_COPY_KEY_MAX]; /* by keys: the last one given out that can be remembered */
	cdc_lsn point;
	uint32_t epoch;
	uint64_t too_large; /* rows for which stand-ins were written since the last read */
	size_t failed;
};

/* --- listing ------------------------------------------------------------------------ */

bool cdc_copy_wants(const struct cdc_source_plan *plan, const char *name)
{
	if (plan->selection && plan->selection->n)
		return cdc_selection_find(plan->selection, name, strlen(name)) != NULL;
	for (size_t i = 0; i < plan->table_n; i++) {
		if (cdc_pattern_matches(plan->tables[i], name, strlen(name)))
			return true;
	}
	return plan->table_n == 0;
}

static enum cdc_code list(struct cdc_pgconn *c, const struct cdc_source_plan *plan,
			  struct cdc_copy_table **ret, size_t *ret_n, struct cdc_err *err)
{
	static const char select[] =
		"SELECT n.nspname || '.' || c.relname, "
		"coalesce((SELECT sum(pg_catalog.pg_table_size(l.relid)) FROM "
		"pg_catalog.pg_partition_tree(c.oid) l WHERE l.isleaf), "
		"pg_catalog.pg_table_size(c.oid), 0) "
		"FROM pg_catalog.pg_publication_tables pt "
		"JOIN pg_catalog.pg_namespace n ON n.nspname = pt.schemaname "
		"JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = pt.tablename "
		"WHERE c.relkind IN ('r', 'p') AND pt.pubname = ";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, select);
	cdc_quote_text(&sql, plan->settings->publication);
	cdc_buf_puts(&sql, " ORDER BY 1");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "listing the tables", &r, err);
	cdc_buf_clear(&sql);
	if (rc)
		return rc;
	*ret = calloc((size_t)PQntuples(r) + 1, sizeof(**ret));
	if (!*ret)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the list of tables");
	for (int i = 0; i < PQntuples(r); i++) {
		struct cdc_copy_table *t = &(*ret)[*ret_n];

		if (!cdc_copy_wants(plan, cdc_pgconn_text(r, i, 0)))
			continue;
		t->name = strdup(cdc_pgconn_text(r, i, 0));
		if (!t->name)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for the list of tables");
		t->bytes = strtoull(cdc_pgconn_text(r, i, 1), NULL, 10);
		(*ret_n)++;
	}
	return CDC_OK;
}

enum cdc_code cdc_copy_list(const struct cdc_source_plan *plan, struct cdc_copy_table **ret,
			    size_t *ret_n, struct cdc_err *err)
{
	struct cdc_pgconn *c = NULL;
	enum cdc_code rc;

	*ret = NULL;
	*ret_n = 0;
	rc = cdc_pgconn_open(plan->settings, CDC_PGCONN_SQL, APPLICATION, plan->stop, &c, err);
	if (!rc)
		rc = list(c, plan, ret, ret_n, err);
	cdc_pgconn_close(c);
	if (rc) {
		cdc_copy_list_free(*ret, *ret_n);
		*ret = NULL;
		*ret_n = 0;
	}
	return rc;
}

void cdc_copy_list_free(struct cdc_copy_table *tables, size_t n)
{
	for (size_t i = 0; tables && i < n; i++)
		free(tables[i].name);
	free(tables);
}

/* --- the snapshot ------------------------------------------------------------------- */

/* Who keeps the snapshot waiting: transactions that write and were there before it. */
static void name_blockers(struct cdc_copy *c, struct cdc_err *err)
{
	static const char sql[] =
		"SELECT pid, application_name, state, "
		"pg_catalog.date_trunc('second', pg_catalog.now() - xact_start)::text "
		"FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL "
		"AND pid <> pg_catalog.pg_backend_pid() ORDER BY xact_start LIMIT 3";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_buf text;

	if (cdc_lookup_ask(&c->lookup, sql, "looking for open transactions", &r, NULL) ||
	    PQntuples(r) == 0)
		return;
	cdc_buf_init(&text, 600);
	for (int i = 0; i < PQntuples(r); i++)
		cdc_buf_printf(&text, "%spid %s (%s, %s, open for %s)", i ? ", " : "",
			       cdc_pgconn_text(r, i, 0), cdc_pgconn_text(r, i, 1),
			       cdc_pgconn_text(r, i, 2), cdc_pgconn_text(r, i, 3));
	(void)cdc_err_set(err, CDC_TIMEOUT,
			  "a snapshot waits for transactions that were open before it: %s",
			  cdc_quote_end(&text) ? (const char *)text.data : "many");
	cdc_buf_clear(&text);
	(void)cdc_err_remedy(err, "end these transactions; the copy is tried again by itself");
}

/* A copy of another server's rows, or of rows that the stream never brings, is none. */
static enum cdc_code check_origin(const struct cdc_copy *c, struct cdc_pgconn *repl,
				  const PGresult *system, struct cdc_err *err)
{
	const struct cdc_copy_setup *s = &c->setup;
	struct cdc_timelines timelines;
	enum cdc_code rc;
	cdc_lsn end;

	if (strcmp(cdc_pgconn_text(system, 0, 0), s->system_id) != 0)
		return cdc_err_set(err, CDC_IO,
				   "%s: the server is another cluster than the one that is read",
				   repl->where);
	if (cdc_pgconn_lsn(system, 0, 2) < s->durable)
		return cdc_err_set(err, CDC_IO, "%s: the server lags behind what was read already",
				   repl->where);
	rc = cdc_server_history(repl, cdc_pgconn_u32(system, 0, 1), &timelines, err);
	if (!rc && s->timeline && !cdc_timelines_hold(&timelines, s->timeline, s->durable, &end))
		rc = cdc_err_set(err, CDC_IO,
				 "%s: the server does not hold what was read on timeline %u: it is "
				 "another than the one that is read",
				 repl->where, s->timeline);
	cdc_timelines_clear(&timelines);
	return rc;
}

static enum cdc_code export_snapshot(struct cdc_copy *c, struct cdc_pgconn *repl,
				     char ret_snapshot[64], struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *system = NULL, *slot = NULL;
	char sql[160];
	enum cdc_code rc;

	rc = cdc_pgconn_exec(repl, "IDENTIFY_SYSTEM", ASK_MS, "identifying the server", &system,
			     err);
	if (!rc)
		rc = check_origin(c, repl, system, err);
	if (!rc)
		rc = cdc_pgconn_run(repl, "SET lock_timeout = '30s'", ASK_MS, "making a snapshot",
				    err);
	if (rc)
		return rc;
	(void)snprintf(sql, sizeof(sql),
		       "CREATE_REPLICATION_SLOT \"walpost_copy_%d\" TEMPORARY LOGICAL pgoutput %s",
		       PQbackendPID(repl->pg),
		       PQserverVersion(repl->pg) >= 150000 ? "(SNAPSHOT 'export')"
							   : "EXPORT_SNAPSHOT");
	rc = cdc_pgconn_exec(repl, sql, SNAPSHOT_MS, "making a snapshot", &slot, err);
	if (rc == CDC_TIMEOUT)
		name_blockers(c, err);
	if (rc)
		return rc;
	c->point = cdc_pgconn_lsn(slot, 0, 1);
	c->epoch = CDC_EPOCH(c->setup.generation, cdc_pgconn_u32(system, 0, 1));
	(void)snprintf(ret_snapshot, 64, "%s", cdc_pgconn_text(slot, 0, 2));
	if (!c->point || !ret_snapshot[0])
		return cdc_err_set(err, CDC_PROTO, "%s: the slot came without a snapshot",
				   repl->where);
	return CDC_OK;
}

static enum cdc_code import_snapshot(struct worker *w, const char *snapshot, struct cdc_err *err)
{
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
			   "SET TRANSACTION SNAPSHOT ");
	cdc_quote_text(&sql, snapshot);
	cdc_buf_puts(&sql, "; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s'; "
			   "SET LOCAL idle_in_transaction_session_timeout = 0; "
			   "SET LOCAL row_security = off");
	if (PQserverVersion(w->conn->pg) >= 170000)
		cdc_buf_puts(&sql, "; SET LOCAL transaction_timeout = 0");
	rc = cdc_pgconn_run(w->conn, cdc_quote_end(&sql), ASK_MS, "taking the snapshot", err);
	cdc_buf_clear(&sql);
	return rc;
}

static enum cdc_code open_workers(struct cdc_copy *c, const char *snapshot, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < c->worker_n && !rc; i++) {
		struct worker *w = &c->workers[i];

		rc = cdc_pgconn_begin(c->setup.plan->settings, CDC_PGCONN_SQL, APPLICATION,
				      &c->lookup.hint, &w->conn, err);
		if (!rc)
			rc = cdc_pgconn_finish(w->conn, c->setup.plan->stop, err);
		if (!rc)
			rc = import_snapshot(w, snapshot, err);
	}
	return rc;
}

/* The slot goes with its connection as soon as everybody has the snapshot. */
static enum cdc_code take_snapshot(struct cdc_copy *c, struct cdc_err *err)
{
	struct cdc_pgconn *repl = NULL;
	char snapshot[64];
	enum cdc_code rc = cdc_pgconn_open(c->setup.plan->settings, CDC_PGCONN_REPLICATION,
					   APPLICATION, c->setup.plan->stop, &repl, err);

	/* Everything else is asked of the same server. */
	if (!rc)
		cdc_pgconn_hint(repl, &c->lookup.hint);
	if (!rc)
		rc = export_snapshot(c, repl, snapshot, err);
	if (!rc)
		rc = open_workers(c, snapshot, err);
	cdc_pgconn_close(repl);
	return rc;
}

/* --- parts -------------------------------------------------------------------------- */

/* "keys 16 hex digits of a table and key, transaction, literals of the last key" */
static enum cdc_code parse_part(const char *text, struct cdc_copy_part *ret, struct cdc_err *err)
{
	unsigned long long made_of, since;
	int at = 0;

	*ret = (struct cdc_copy_part){.way = CDC_COPY_BLOCKS};
	if (!text || !*text)
		return CDC_OK;
	if (sscanf(text, "keys %llx %llu %n", &made_of, &since, &at) == 2 && at &&
	    strlen(text + at) < sizeof(ret->through)) {
		ret->way = CDC_COPY_KEYS;
		(void)snprintf(ret->through, sizeof(ret->through), "%s", text + at);
	} else if (sscanf(text, "changed %llx %llu %n", &made_of, &since, &at) == 2) {
		ret->way = CDC_COPY_CHANGED;
	} else {
		return cdc_err_set(err, CDC_CORRUPT, "what is left to be copied is unreadable: %s",
				   text);
	}
	ret->made_of = made_of;
	ret->since = since;
	return CDC_OK;
}

static void put_part(char ret[CDC_COPY_PART_MAX], const char *way, uint64_t made_of, uint64_t since,
		     const char *through)
{
	(void)snprintf(ret, CDC_COPY_PART_MAX, "%s %016llx %llu %s", way,
		       (unsigned long long)made_of, (unsigned long long)since, through);
}

bool cdc_copy_can_end(const struct cdc_copy *c)
{
	switch (c->plan.part.way) {
	case CDC_COPY_BLOCKS:
		return true;
	case CDC_COPY_KEYS:
		return *c->reached != '\0';
	case CDC_COPY_CHANGED:
		break;
	}
	return false;
}

enum cdc_code cdc_copy_rest(const struct cdc_copy *c, size_t table, char ret[CDC_COPY_PART_MAX],
			    struct cdc_err *err)
{
	const struct cdc_copy_relation *t = &c->plan.relations[table];
	const struct cdc_copy_part *p = &c->plan.part;
	const bool is_left = c->tables[table].ranges_left != 0;

	ret[0] = '\0';
	switch (p->way) {
	case CDC_COPY_BLOCKS:
		if (is_left && t->key_n == 0)
			return cdc_err_set(err, CDC_CONFIG,
					   "the table %s cannot be copied by parts: it has no "
					   "primary key or replica identity that is published",
					   t->name);
		if (is_left)
			put_part(ret, "keys", 0, 0, "");
		break;
	case CDC_COPY_KEYS:
		if (is_left)
			put_part(ret, "keys", p->made_of, p->since,
				 *c->reached ? c->reached : p->through);
		else if (*p->through && t->may_leave_out)
			put_part(ret, "changed", p->made_of, p->since, "");
		break;
	case CDC_COPY_CHANGED:
		if (is_left)
			put_part(ret, "changed", p->made_of, p->since, "");
		break;
	}
	return CDC_OK;
}

/* The key of the row that was given out, as literals to go on behind. */
static void note_key(struct cdc_copy *c, const struct worker *w)
{
	const struct cdc_copy_relation *t = &c->plan.relations[w->range->table];
	char text[CDC_COPY_KEY_MAX];
	struct cdc_buf key;

	cdc_buf_init(&key, CDC_COPY_KEY_MAX - 1);
	for (size_t i = 0; i < t->key_n; i++) {
		const struct cdc_value *v = &w->values[t->key[i].column];

		key.failed |= v->kind != CDC_VALUE_TEXT || v->len >= sizeof(text);
		if (key.failed)
			break;
		memcpy(text, v->text, v->len);
		text[v->len] = '\0';
		if (i)
			cdc_buf_puts(&key, ", ");
		cdc_quote_text(&key, text);
		cdc_buf_printf(&key, "::%s", t->key[i].type);
	}
	if (!key.failed && key.len) {
		memcpy(c->reached, key.data, key.len);
		c->reached[key.len] = '\0';
	}
	cdc_buf_clear(&key);
}

/* --- opening ------------------------------------------------------------------------ */

static enum cdc_code describe(struct cdc_copy *c, const struct cdc_copy_part *part,
			      struct cdc_err *err)
{
	enum cdc_code rc = cdc_copy_plan_make(&c->plan, c->workers[0].conn, c->setup.plan,
					      c->setup.tables, c->setup.table_n, part, err);

	c->failed = c->plan.failed;
	for (size_t i = 0; i < c->plan.relation_n && !rc; i++) {
		rc = cdc_catalog_relation(c->catalog, &c->plan.relations[i].relation, err);
		if (rc)
			c->failed = i;
	}
	for (size_t i = 0; i < c->plan.relation_n && !rc; i++) {
		for (size_t k = 0; k < c->plan.relations[i].leaf_n; k++)
			c->tables[i].blocks_total += c->plan.relations[i].leaves[k].blocks;
	}
	c->ranges_left = c->plan.range_n;
	for (size_t i = 0; i < c->plan.range_n; i++)
		c->tables[c->plan.ranges[i].table].ranges_left++;
	return rc;
}

enum cdc_code cdc_copy_open(const struct cdc_copy_setup *setup, struct cdc_copy **ret,
			    struct cdc_err *err)
{
	struct cdc_copy *c = calloc(1, sizeof(*c));
	struct cdc_copy_part part;
	enum cdc_code rc;

	*ret = c;
	if (!c)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	c->setup = *setup;
	c->failed = SIZE_MAX;
	cdc_copy_plan_init(&c->plan);
	cdc_lookup_init(&c->lookup, setup->plan->settings, APPLICATION, setup->plan->stop);
	c->catalog = cdc_catalog_new(&c->lookup);
	rc = parse_part(setup->part, &part, err);
	if (rc)
		return rc;
	CDC_ASSERT(part.way == CDC_COPY_BLOCKS || setup->table_n == 1);
	c->worker_n = part.way == CDC_COPY_KEYS ? 1 : setup->connections;
	c->workers = calloc(c->worker_n, sizeof(*c->workers));
	c->tables = calloc(setup->table_n, sizeof(*c->tables));
	if (!c->catalog || !c->workers || !c->tables)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	rc = take_snapshot(c, err);
	return rc ? rc : describe(c, &part, err);
}

void cdc_copy_close(struct cdc_copy *c)
{
	if (!c)
		return;
	for (size_t i = 0; c->workers && i < c->worker_n; i++) {
		struct worker *w = &c->workers[i];

		PQfreemem(w->line);
		free(w->values);
		cdc_pgconn_close(w->conn);
	}
	free(c->workers);
	free(c->tables);
	cdc_catalog_free(c->catalog);
	cdc_lookup_clear(&c->lookup);
	cdc_copy_plan_clear(&c->plan);
	free(c);
}

size_t cdc_copy_failed(const struct cdc_copy *c)
{
	return c ? c->failed : SIZE_MAX;
}

cdc_lsn cdc_copy_point(const struct cdc_copy *c)
{
	return c->point;
}

uint32_t cdc_copy_epoch(const struct cdc_copy *c)
{
	return c->epoch;
}

/* --- rows --------------------------------------------------------------------------- */

static const char *table_of(const struct cdc_copy *c, const struct worker *w)
{
	return c->plan.relations[w->range->table].name;
}

/* An error of the server's about the range that is read. */
static enum cdc_code failed(struct cdc_copy *c, const struct worker *w, const PGresult *r,
			    struct cdc_err *err)
{
	enum cdc_code rc = cdc_pgconn_failed(w->conn, r, "copying", err);

	c->failed = w->range->table;
	return rc ? cdc_err_wrap(err, "table %s", table_of(c, w)) : CDC_OK;
}

static enum cdc_code begin_range(struct cdc_copy *c, struct worker *w, struct cdc_err *err)
{
	const struct cdc_copy_range *range = &c->plan.ranges[c->next_range];
	const struct cdc_copy_relation *t = &c->plan.relations[range->table];
	const struct cdc_table *table = cdc_catalog_find(c->catalog, t->relation.relid);
	struct cdc_buf sql;
	bool is_sent;

	if (w->value_n < t->relation.n || !w->values) {
		struct cdc_value *grown =
			reallocarray(w->values, t->relation.n + 1, sizeof(*grown));

		if (!grown)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a row");
		w->values = grown;
		w->value_n = t->relation.n + 1;
	}
	c->next_range++;
	w->range = range;
	w->row = 0;
	w->has_copy = false;
	w->shape = table->shape;
	w->has_row_types = table->has_row_types;
	cdc_buf_init(&sql, SQL_MAX);
	cdc_copy_plan_sql(&c->plan, range, &sql);
	is_sent = cdc_quote_end(&sql) && PQsendQuery(w->conn->pg, (const char *)sql.data);
	cdc_buf_clear(&sql);
	return is_sent ? CDC_OK : failed(c, w, NULL, err);
}

static void end_range(struct cdc_copy *c, struct worker *w)
{
	const struct cdc_copy_range *r = w->range;
	struct table *t = &c->tables[r->table];
	uint64_t to = r->to ? r->to : c->plan.relations[r->table].leaves[r->leaf].blocks;

	if (c->plan.part.way == CDC_COPY_KEYS)
		t->blocks_done = t->blocks_total;
	else
		t->blocks_done += to > r->from ? to - r->from : 0;
	t->ranges_left--;
	c->ranges_left--;
	w->range = NULL;
}

static enum cdc_code write_row(struct cdc_copy *c, const struct worker *w, struct cdc_batch *batch,
			       struct cdc_err *err)
{
	const struct cdc_change change = {
		.shape = w->shape,
		.op = CDC_OP_READ,
		.id = {.epoch = c->epoch,
		       .commit_lsn = c->point,
		       .range = w->range->number,
		       .row = w->row},
		.position = c->point,
		.row = w->values,
		.max_bytes = c->setup.plan->settings->max_record_bytes,
	};

	const size_t before = batch->n;
	enum cdc_code rc = cdc_write_change(batch, &change, err);

	for (size_t i = before; !rc && i < batch->n; i++)
		c->too_large += (batch->records[i].flags & CDC_RECORD_TOO_LARGE) != 0;
	return rc;
}

/* Takes the row at hand into the batch; it stays at hand when it does not fit. */
static enum cdc_code take_row(struct cdc_copy *c, struct worker *w, struct cdc_batch *batch,
			      struct cdc_err *err)
{
	enum cdc_code rc = write_row(c, w, batch, err);

	if (rc == CDC_LIMIT && batch->n)
		return CDC_BUSY;
	if (rc) {
		c->failed = w->range->table;
		return rc == CDC_LIMIT
			       ? cdc_err_set(err, CDC_LIMIT,
					     "table %s: a row is larger than %zu bytes of JSON",
					     table_of(c, w), batch->max_bytes)
			       : rc;
	}
	if (c->plan.part.way == CDC_COPY_KEYS)
		note_key(c, w);
	PQfreemem(w->line);
	w->line = NULL;
	c->tables[w->range->table].rows++;
	return CDC_OK;
}

/* The end of a COPY, or what comes instead of its rows.  *ret_is_dry: not all there yet. */
static enum cdc_code take_result(struct cdc_copy *c, struct worker *w, bool *ret_is_dry,
				 struct cdc_err *err)
{
	for (;;) {
		CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;

		*ret_is_dry = PQisBusy(w->conn->pg);
		if (*ret_is_dry)
			return CDC_OK;
		r = PQgetResult(w->conn->pg);
		if (!r) {
			if (PQstatus(w->conn->pg) != CONNECTION_OK)
				return failed(c, w, NULL, err);
			end_range(c, w);
			return CDC_OK;
		}
		if (PQresultStatus(r) == PGRES_COPY_OUT) {
			w->has_copy = true;
			return CDC_OK;
		}
		if (PQresultStatus(r) != PGRES_COMMAND_OK)
			return failed(c, w, r, err);
	}
}

static enum cdc_code fetch_row(struct cdc_copy *c, struct worker *w, bool *ret_is_dry,
			       struct cdc_err *err)
{
	int len = PQgetCopyData(w->conn->pg, &w->line, 1);

	*ret_is_dry = len == 0;
	if (len == 0)
		return CDC_OK;
	if (len == -2)
		return failed(c, w, NULL, err);
	if (len == -1) {
		w->has_copy = false;
		return CDC_OK;
	}
	if (w->row == UINT32_MAX || !cdc_copy_row(w->line, (size_t)len, w->values,
						  c->plan.relations[w->range->table].relation.n)) {
		c->failed = w->range->table;
		return cdc_err_set(err, CDC_PROTO, "table %s: a row of COPY that is none",
				   table_of(c, w));
	}
	w->row++;
	return CDC_OK;
}

/* Some rows of one connection.  *ret_is_dry: its socket holds nothing more. */
static enum cdc_code turn(struct cdc_copy *c, struct worker *w, struct cdc_batch *batch,
			  size_t target_bytes, size_t target_records, bool *ret_is_dry,
			  struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	*ret_is_dry = false;
	for (int i = 0; i < ROWS_PER_TURN && !rc && !*ret_is_dry; i++) {
		if (batch->json.len >= target_bytes || batch->n >= target_records)
			return CDC_OK;
		if (w->line)
			rc = take_row(c, w, batch, err);
		else if (!w->range && c->next_range == c->plan.range_n)
			*ret_is_dry = true;
		else if (!w->range)
			rc = begin_range(c, w, err);
		else if (w->has_copy)
			rc = fetch_row(c, w, ret_is_dry, err);
		else
			rc = take_result(c, w, ret_is_dry, err);
	}
	return rc;
}

/* Sends what waits to be sent, takes what the socket holds, and learns what it needs for that. */
static enum cdc_code move(struct cdc_copy *c, struct worker *w, struct cdc_err *err)
{
	if (!w->range)
		return CDC_OK;
	if (PQflush(w->conn->pg) < 0 || !PQconsumeInput(w->conn->pg))
		return failed(c, w, NULL, err);
	return w->has_row_types ? cdc_catalog_refresh_now(c->catalog, err) : CDC_OK;
}

static void tell_oddities(struct cdc_copy *c, struct cdc_copy_read *ret)
{
	const struct cdc_catalog_oddities now = cdc_catalog_oddities(c->catalog);

	ret->unknown_types = now.types - c->told.types;
	ret->odd_values = now.values - c->told.values;
	c->told = now;
}

enum cdc_code cdc_copy_read(struct cdc_copy *c, struct cdc_batch *batch, size_t target_bytes,
			    size_t target_records, struct cdc_copy_read *ret, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	*ret = (struct cdc_copy_read){.is_dry = true};
	for (size_t i = 0; i < c->worker_n && !rc; i++) {
		bool is_dry = false;

		rc = move(c, &c->workers[i], err);
		if (!rc)
			rc = turn(c, &c->workers[i], batch, target_bytes, target_records, &is_dry,
				  err);
		ret->is_dry &= is_dry;
	}
	ret->is_finished = !rc && c->ranges_left == 0;
	ret->too_large = c->too_large;
	c->too_large = 0;
	tell_oddities(c, ret);
	return rc;
}

size_t cdc_copy_poll(const struct cdc_copy *c, struct pollfd fds[CDC_COPY_CONNECTIONS_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < c->worker_n; i++) {
		if (c->workers[i].range)
			fds[n++] = (struct pollfd){.fd = PQsocket(c->workers[i].conn->pg),
						   .events = POLLIN};
	}
	return n;
}

/* --- looking around ----------------------------------------------------------------- */

enum cdc_code cdc_copy_pressure(struct cdc_copy *c, struct cdc_pressure *ret, struct cdc_err *err)
{
	return cdc_pressure_look(&c->watch, &c->lookup, c->setup.plan, ret, err);
}

enum cdc_code cdc_copy_check_waiters(struct cdc_copy *c, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "WITH RECURSIVE held(relid) AS (SELECT relid FROM pg_catalog.unnest("
			   "ARRAY[0");
	for (size_t i = 0; i < c->plan.relation_n; i++) {
		const struct cdc_copy_relation *t = &c->plan.relations[i];

		/* In the order of its key a partitioned table is read as a whole. */
		if (c->plan.part.way == CDC_COPY_KEYS)
			cdc_buf_printf(&sql, ", %u", t->relation.relid);
		for (size_t k = 0; k < t->leaf_n; k++)
			cdc_buf_printf(&sql, ", %u", t->leaves[k].oid);
	}
	cdc_buf_puts(&sql, "]::pg_catalog.oid[]) relid UNION "
			   "SELECT i.inhrelid FROM held JOIN pg_catalog.pg_inherits i "
			   "ON i.inhparent = held.relid JOIN pg_catalog.pg_class c "
			   "ON c.oid = i.inhrelid WHERE c.relispartition) "
			   "SELECT l.pid, l.relation::pg_catalog.regclass, l.mode "
			   "FROM pg_catalog.pg_locks l WHERE NOT l.granted "
			   "AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' "
			   "AND (l.relation IN (SELECT relid FROM held) OR l.relation IN "
			   "(SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid IN "
			   "(SELECT relid FROM held))) LIMIT 1");
	rc = cdc_quote_end(&sql) ? cdc_lookup_ask(&c->lookup, (const char *)sql.data,
						  "looking for sessions that wait", &r, NULL)
				 : CDC_LIMIT;
	cdc_buf_clear(&sql);
	if (rc || PQntuples(r) == 0)
		return CDC_OK;
	return cdc_err_set(err, CDC_HELD, "the session %s waits for a lock on %s that the copy has",
			   cdc_pgconn_text(r, 0, 0), cdc_pgconn_text(r, 0, 1));
}

void cdc_copy_progress(const struct cdc_copy *c, size_t table, struct cdc_copy_progress *ret)
{
	const struct table *t = &c->tables[table];

	*ret = (struct cdc_copy_progress){
		.rows = t->rows, .blocks_done = t->blocks_done, .blocks_total = t->blocks_total};
}
