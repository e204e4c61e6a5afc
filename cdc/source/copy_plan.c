#include "cdc/source/copy_plan.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/source/quote.h"

#define ASK_MS       20000
#define SQL_MAX      (8u << 20)
#define ARENA_MAX    (256u << 20)
#define RANGE_BLOCKS 8192 /* 64 MiB of blocks of 8 KiB */
#define RANGE_MAX    4000000
#define MAX_AGE      2000000000 /* transactions; below the 2^31 that an age can tell */
#define TID_RANGES   140000 /* before it, a range of blocks is found by reading the whole table */

void cdc_copy_plan_init(struct cdc_copy_plan *p)
{
	*p = (struct cdc_copy_plan){.failed = SIZE_MAX};
}

void cdc_copy_plan_clear(struct cdc_copy_plan *p)
{
	cdc_arena_free(p->arena);
	free(p->ranges);
	cdc_copy_plan_init(p);
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for the plan of a copy");
}

static const char *keep(struct cdc_copy_plan *p, const PGresult *r, int row, int column)
{
	return cdc_arena_strdup(p->arena, cdc_pgconn_text(r, row, column));
}

/* --- tables ------------------------------------------------------------------------- */

/* The table, its column list (NULL before 15: every column), its filter. */
static enum cdc_code read_relation(struct cdc_copy_plan *p, struct cdc_copy_relation *t,
				   struct cdc_pgconn *c, const char *publication,
				   struct cdc_err *err)
{
	static const char select[] =
		"SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, "
		"coalesce(pg_catalog.to_jsonb(pt) ->> 'rowfilter', '') "
		"FROM pg_catalog.pg_publication_tables pt "
		"JOIN pg_catalog.pg_namespace n ON n.nspname = pt.schemaname "
		"JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = pt.tablename "
		"WHERE n.nspname || '.' || c.relname = ";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, select);
	cdc_quote_text(&sql, t->name);
	cdc_buf_puts(&sql, " AND pt.pubname = ");
	cdc_quote_text(&sql, publication);
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "reading the publication", &r, err);
	cdc_buf_clear(&sql);
	if (rc)
		return rc;
	if (PQntuples(r) == 0)
		return cdc_err_set(err, CDC_MISSING,
				   "%s: the table %s is not in the publication %s (any more)",
				   c->where, t->name, publication);
	t->relation = (struct pgo_relation){
		.relid = cdc_pgconn_u32(r, 0, 0),
		.schema = keep(p, r, 0, 1),
		.name = keep(p, r, 0, 2),
		.identity = cdc_pgconn_text(r, 0, 4)[0],
	};
	t->is_partitioned = cdc_pgconn_text(r, 0, 3)[0] == 'p';
	t->filter = keep(p, r, 0, 5);
	return t->relation.schema && t->relation.name && t->filter ? CDC_OK : no_memory(err);
}

/* What goes out of it and what it is filtered by; a record's key is made of all its columns. */
static bool is_needed(const struct cdc_select_table *chosen, const PGresult *r, int row)
{
	return !chosen || cdc_pgconn_bool(r, row, 5) ||
	       cdc_selection_needs(chosen, cdc_pgconn_text(r, row, 0));
}

/* The published columns that are needed, and which of them are the replica identity. */
static enum cdc_code read_columns(struct cdc_copy_plan *p, struct cdc_copy_relation *t,
				  struct cdc_pgconn *c, const struct cdc_source_plan *plan,
				  struct cdc_err *err)
{
	static const char select[] =
		"SELECT a.attname, a.atttypid, a.atttypmod, pg_catalog.quote_ident(a.attname), "
		"coalesce(a.attnum = ANY ((SELECT x.indkey FROM pg_catalog.pg_index x "
		"WHERE x.indrelid = a.attrelid AND x.indisvalid AND x.indisunique "
		"AND x.indimmediate AND x.indpred IS NULL AND CASE c.relreplident "
		"WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END "
		"LIMIT 1)::pg_catalog.int2[]), false) OR c.relreplident = 'f', "
		"EXISTS (SELECT FROM pg_catalog.pg_index k WHERE k.indrelid = a.attrelid "
		"AND (k.indisprimary OR k.indisreplident) AND a.attnum = ANY (k.indkey)) "
		"FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid "
		"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
		"JOIN pg_catalog.pg_publication_tables pt ON pt.schemaname = n.nspname "
		"AND pt.tablename = c.relname WHERE a.attnum > 0 AND NOT a.attisdropped "
		"AND coalesce(pg_catalog.to_jsonb(pt) -> 'attnames' ? a.attname, true) "
		/* 15 lists generated columns, too, and publishes none. */
		"AND (a.attgenerated = '' OR "
		"pg_catalog.current_setting('server_version_num')::int >= 180000) "
		"AND a.attrelid = ";
	const struct cdc_select_table *chosen =
		plan->selection && plan->selection->n
			? cdc_selection_find(plan->selection, t->name, strlen(t->name))
			: NULL;
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct pgo_column *columns;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, select);
	cdc_buf_printf(&sql, "%u AND pt.pubname = ", t->relation.relid);
	cdc_quote_text(&sql, plan->settings->publication);
	cdc_buf_puts(&sql, " ORDER BY a.attnum");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "reading the columns", &r, err);
	cdc_buf_clear(&sql);
	if (rc)
		return rc;
	columns = cdc_arena_alloc(p->arena, ((size_t)PQntuples(r) + 1) * sizeof(*columns));
	if (!columns)
		return no_memory(err);
	t->relation.columns = columns;
	cdc_buf_init(&sql, SQL_MAX);
	for (int i = 0; i < PQntuples(r); i++) {
		if (!is_needed(chosen, r, i))
			continue;
		columns[t->relation.n] = (struct pgo_column){
			.name = keep(p, r, i, 0),
			.type = cdc_pgconn_u32(r, i, 1),
			.modifier = -1,
			.is_identity = cdc_pgconn_bool(r, i, 4),
		};
		cdc_buf_printf(&sql, "%s%s", t->relation.n ? ", " : "", cdc_pgconn_text(r, i, 3));
		if (!columns[t->relation.n++].name)
			rc = no_memory(err);
	}
	if (!rc) {
		t->columns_sql = sql.failed
					 ? NULL
					 : cdc_arena_copy(p->arena,
							  sql.data ? sql.data : (const uint8_t *)"",
							  sql.len);
		if (!t->columns_sql)
			rc = no_memory(err);
	}
	cdc_buf_clear(&sql);
	return rc;
}

/* FNV-1a. */
static uint64_t mix(uint64_t digest, uint64_t n)
{
	for (int i = 0; i < 8; i++)
		digest = (digest ^ (n >> 8 * i & 0xff)) * UINT64_C(0x100000001b3);
	return digest;
}

static size_t column_of(const struct cdc_copy_relation *t, const char *name)
{
	size_t i = 0;

	while (i < t->relation.n && strcmp(t->relation.columns[i].name, name) != 0)
		i++;
	return i;
}

/*
 * By what its rows can be read in order: the primary key, else the index of the
 * replica identity; in both no column is null.  One of which a column is not
 * published is none, because its values are not read.
 */
static enum cdc_code read_key(struct cdc_copy_plan *p, struct cdc_copy_relation *t,
			      struct cdc_pgconn *c, struct cdc_err *err)
{
	static const char select[] =
		"SELECT a.attname, pg_catalog.quote_ident(a.attname), "
		"pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnum, a.atttypid, "
		"a.attcollation FROM (SELECT i.indrelid, i.indkey, i.indnkeyatts "
		"FROM pg_catalog.pg_index i WHERE i.indisvalid AND i.indisunique "
		"AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL "
		"AND (i.indisprimary OR i.indisreplident) AND i.indrelid = %u "
		"ORDER BY i.indisprimary DESC LIMIT 1) x, "
		"pg_catalog.unnest((x.indkey::pg_catalog.int2[])[0:x.indnkeyatts - 1]) "
		"WITH ORDINALITY k(attnum, n) JOIN pg_catalog.pg_attribute a "
		"ON a.attnum = k.attnum WHERE a.attrelid = x.indrelid ORDER BY k.n";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	uint64_t digest = mix(UINT64_C(0xcbf29ce484222325), t->relation.relid);
	struct cdc_buf names;
	char sql[sizeof(select) + 16];
	enum cdc_code rc;

	(void)snprintf(sql, sizeof(sql), select, t->relation.relid);
	rc = cdc_pgconn_exec(c, sql, ASK_MS, "reading the key", &r, err);
	if (rc)
		return rc;
	t->key_n = (size_t)PQntuples(r);
	t->key = cdc_arena_alloc(p->arena, (t->key_n + 1) * sizeof(*t->key));
	if (!t->key)
		return no_memory(err);
	cdc_buf_init(&names, SQL_MAX);
	for (size_t i = 0; i < t->key_n; i++) {
		t->key[i] = (struct cdc_copy_key){
			.column = column_of(t, cdc_pgconn_text(r, (int)i, 0)),
			.type = keep(p, r, (int)i, 2),
		};
		cdc_buf_printf(&names, "%s%s", i ? ", " : "", cdc_pgconn_text(r, (int)i, 1));
		for (int k = 3; k < 6; k++)
			digest = mix(digest, cdc_pgconn_u32(r, (int)i, k));
		if (!t->key[i].type)
			rc = no_memory(err);
		if (t->key[i].column == t->relation.n)
			t->key_n = 0;
	}
	t->key_sql = names.failed ? NULL
				  : cdc_arena_copy(p->arena,
						   names.data ? names.data : (const uint8_t *)"",
						   names.len);
	cdc_buf_clear(&names);
	t->made_of = digest ? digest : 1;
	return rc || t->key_sql ? rc : no_memory(err);
}

/* Where its rows lie: itself, or the partitions below it. */
static enum cdc_code read_leaves(struct cdc_copy_plan *p, struct cdc_copy_relation *t,
				 struct cdc_pgconn *c, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	char from[160], sql[640];
	enum cdc_code rc;

	(void)snprintf(from, sizeof(from),
		       t->is_partitioned ? "pg_catalog.pg_partition_tree(%u) l WHERE l.isleaf"
					 : "(SELECT %u::pg_catalog.oid AS relid) l WHERE true",
		       t->relation.relid);
	(void)snprintf(sql, sizeof(sql),
		       "SELECT x.*, n.nspname, c.relname, c.relkind, c.relfilenode, "
		       "c.reltoastrelid <> 0 AND c.relreplident <> 'f' FROM "
		       "(SELECT l.relid::pg_catalog.oid AS relid FROM %s) x "
		       "JOIN pg_catalog.pg_class c ON c.oid = x.relid "
		       "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 2, 3",
		       from);
	rc = cdc_pgconn_exec(c, sql, ASK_MS, "reading the partitions", &r, err);
	if (rc)
		return rc;
	t->leaf_n = (size_t)PQntuples(r);
	t->leaves = cdc_arena_alloc(p->arena, (t->leaf_n + 1) * sizeof(*t->leaves));
	if (!t->leaves)
		return no_memory(err);
	for (int i = 0; i < PQntuples(r); i++) {
		struct cdc_buf name;

		if (cdc_pgconn_text(r, i, 3)[0] == 'f')
			return cdc_err_set(
				err, CDC_CONFIG,
				"%s: the partition %s.%s of %s is a foreign table, whose "
				"rows cannot be copied under a snapshot",
				c->where, cdc_pgconn_text(r, i, 1), cdc_pgconn_text(r, i, 2),
				t->name);
		cdc_buf_init(&name, 1024);
		cdc_quote_name(&name, cdc_pgconn_text(r, i, 1));
		cdc_buf_putc(&name, '.');
		cdc_quote_name(&name, cdc_pgconn_text(r, i, 2));
		t->leaves[i] = (struct cdc_copy_leaf){
			.oid = cdc_pgconn_u32(r, i, 0),
			.filenode = cdc_pgconn_u32(r, i, 4),
			.sql_name =
				name.failed ? NULL : cdc_arena_copy(p->arena, name.data, name.len),
		};
		cdc_buf_clear(&name);
		if (!t->leaves[i].sql_name)
			return no_memory(err);
		t->may_leave_out |= cdc_pgconn_bool(r, i, 5);
	}
	return CDC_OK;
}

/* From here on nobody rewrites them; whether somebody did since the snapshot shows in the file. */
static enum cdc_code lock_leaves(struct cdc_copy_relation *t, struct cdc_pgconn *c,
				 struct cdc_err *err)
{
	for (size_t i = 0; i < t->leaf_n; i++) {
		struct cdc_copy_leaf *leaf = &t->leaves[i];
		CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
		struct cdc_buf sql;
		char ask[256];
		enum cdc_code rc;

		cdc_buf_init(&sql, SQL_MAX);
		cdc_buf_printf(&sql, "LOCK TABLE ONLY %s IN ACCESS SHARE MODE", leaf->sql_name);
		rc = cdc_pgconn_run(c, cdc_quote_end(&sql), ASK_MS, "locking a table", err);
		cdc_buf_clear(&sql);
		if (rc == CDC_CONFIG)
			(void)cdc_err_remedy(err,
					     "GRANT SELECT ON %s TO \"%s\"; then copy it again",
					     leaf->sql_name, c->settings->username);
		if (rc)
			return rc;
		(void)snprintf(ask, sizeof(ask),
			       "SELECT pg_catalog.pg_relation_filenode(%u), "
			       "pg_catalog.pg_relation_size(%u) / "
			       "pg_catalog.current_setting('block_size')::int8",
			       leaf->oid, leaf->oid);
		rc = cdc_pgconn_exec(c, ask, ASK_MS, "reading the size of a table", &r, err);
		if (rc)
			return rc;
		if (cdc_pgconn_u32(r, 0, 0) != leaf->filenode)
			return cdc_err_set(err, CDC_HELD,
					   "%s: the table %s was rewritten after the snapshot",
					   c->where, leaf->sql_name);
		leaf->blocks = strtoull(cdc_pgconn_text(r, 0, 1), NULL, 10);
	}
	return CDC_OK;
}

/* --- ranges ------------------------------------------------------------------------- */

static enum cdc_code add_range(struct cdc_copy_plan *p, struct cdc_copy_range range,
			       struct cdc_err *err)
{
	if ((p->range_n & (p->range_n - 1)) == 0) {
		size_t cap = p->range_n ? p->range_n * 2 : 1;
		struct cdc_copy_range *grown =
			cap <= RANGE_MAX ? reallocarray(p->ranges, cap, sizeof(*grown)) : NULL;

		if (!grown)
			return no_memory(err);
		p->ranges = grown;
	}
	p->ranges[p->range_n++] = range;
	return CDC_OK;
}

static enum cdc_code cut(struct cdc_copy_plan *p, size_t table, int version, struct cdc_err *err)
{
	const struct cdc_copy_relation *t = &p->relations[table];

	for (size_t i = 0; i < t->leaf_n; i++) {
		uint64_t from = 0;

		do {
			uint64_t to = from + RANGE_BLOCKS;
			enum cdc_code rc;

			/* The last one has an open end: the table may have grown meanwhile. */
			if (to >= t->leaves[i].blocks || version < TID_RANGES)
				to = 0;
			rc = add_range(p,
				       (struct cdc_copy_range){.table = table,
							       .leaf = i,
							       .number = (uint32_t)p->range_n + 1,
							       .from = from,
							       .to = to},
				       err);
			if (rc)
				return rc;
			from = to;
		} while (from);
	}
	return CDC_OK;
}

/* The rows in the order of the key, from behind the last one that is remembered. */
static enum cdc_code order_by_key(struct cdc_copy_plan *p, struct cdc_pgconn *c,
				  struct cdc_err *err)
{
	static const char ask[] =
		"SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	const struct cdc_copy_relation *t = &p->relations[0];

	if (p->part.made_of != t->made_of || p->part.way != CDC_COPY_KEYS) {
		enum cdc_code rc = cdc_pgconn_exec(c, ask, ASK_MS, "reading the snapshot", &r, err);

		if (rc)
			return rc;
		p->part = (struct cdc_copy_part){
			.way = CDC_COPY_KEYS,
			.made_of = t->made_of,
			.since = strtoull(cdc_pgconn_text(r, 0, 0), NULL, 10),
		};
	}
	if (t->key_n == 0) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: the table %s was being copied in parts, and has no key any "
				  "more by which the rest could be read",
				  c->where, t->name);
		return cdc_err_remedy(err, "give the table a primary key again; then walpost "
					   "resync copies it from the start");
	}
	/* Else the planner may think that sorting the whole table is cheaper, which it is only for
	 * who reads it to the end. */
	if (cdc_pgconn_run(c,
			   "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; "
			   "SET LOCAL enable_sort = off; "
			   "SET LOCAL max_parallel_workers_per_gather = 0",
			   ASK_MS, "preparing to read in order", err))
		return CDC_IO;
	return add_range(p, (struct cdc_copy_range){.number = 1}, err);
}

/* Ages of rows wrap round: nothing is left out when the first snapshot is that long ago. */
static enum cdc_code limit_age(struct cdc_copy_plan *p, struct cdc_pgconn *c, struct cdc_err *err)
{
	static const char ask[] =
		"SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	enum cdc_code rc = cdc_pgconn_exec(c, ask, ASK_MS, "reading the snapshot", &r, err);

	if (!rc && strtoull(cdc_pgconn_text(r, 0, 0), NULL, 10) - p->part.since > MAX_AGE)
		p->part.since = 0;
	return rc;
}

static enum cdc_code make_ranges(struct cdc_copy_plan *p, size_t table, struct cdc_pgconn *c,
				 struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (p->part.way == CDC_COPY_KEYS ||
	    (p->part.way == CDC_COPY_CHANGED && p->part.made_of != p->relations[table].made_of))
		return order_by_key(p, c, err);
	if (p->part.way == CDC_COPY_CHANGED)
		rc = limit_age(p, c, err);
	return rc ? rc : cut(p, table, PQserverVersion(c->pg), err);
}

enum cdc_code cdc_copy_plan_make(struct cdc_copy_plan *p, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, const char *const *tables,
				 size_t n, const struct cdc_copy_part *part, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	p->part = *part;
	p->arena = cdc_arena_new(ARENA_MAX);
	p->relations = p->arena ? cdc_arena_alloc(p->arena, n * sizeof(*p->relations)) : NULL;
	if (!p->relations)
		return no_memory(err);
	p->relation_n = n;
	for (size_t i = 0; i < n && !rc; i++) {
		struct cdc_copy_relation *t = &p->relations[i];

		t->name = cdc_arena_strdup(p->arena, tables[i]);
		rc = t->name ? read_relation(p, t, c, plan->settings->publication, err)
			     : no_memory(err);
		if (!rc)
			rc = read_columns(p, t, c, plan, err);
		if (!rc)
			rc = read_key(p, t, c, err);
		if (!rc)
			rc = read_leaves(p, t, c, err);
		if (!rc)
			rc = lock_leaves(t, c, err);
		if (!rc)
			rc = make_ranges(p, i, c, err);
		if (rc)
			p->failed = i;
	}
	return rc;
}

static void put_key_sql(const struct cdc_copy_plan *p, const struct cdc_copy_relation *t,
			struct cdc_buf *out)
{
	const char *where = " WHERE ";

	cdc_buf_printf(out, "COPY (SELECT %s FROM %s", t->columns_sql,
		       t->is_partitioned ? "" : "ONLY ");
	cdc_quote_name(out, t->relation.schema);
	cdc_buf_putc(out, '.');
	cdc_quote_name(out, t->relation.name);
	if (*p->part.through) {
		cdc_buf_printf(out, "%s(%s) > (%s)", where, t->key_sql, p->part.through);
		where = " AND ";
	}
	if (*t->filter)
		cdc_buf_printf(out, "%s(%s)", where, t->filter);
	cdc_buf_printf(out, " ORDER BY %s) TO STDOUT", t->key_sql);
}

void cdc_copy_plan_sql(const struct cdc_copy_plan *p, const struct cdc_copy_range *range,
		       struct cdc_buf *out)
{
	const struct cdc_copy_relation *t = &p->relations[range->table];
	const char *where = " WHERE ";

	if (p->part.way == CDC_COPY_KEYS) {
		put_key_sql(p, t, out);
		return;
	}
	cdc_buf_printf(out, "COPY (SELECT %s FROM ONLY %s", t->columns_sql,
		       t->leaves[range->leaf].sql_name);
	if (range->from) {
		cdc_buf_printf(out, "%sctid >= '(%llu,0)'", where, (unsigned long long)range->from);
		where = " AND ";
	}
	if (range->to) {
		cdc_buf_printf(out, "%sctid < '(%llu,0)'", where, (unsigned long long)range->to);
		where = " AND ";
	}
	if (p->part.way == CDC_COPY_CHANGED && p->part.since) {
		cdc_buf_printf(out,
			       "%spg_catalog.age(xmin) <= pg_catalog.age('%u'::pg_catalog.xid)",
			       where, (unsigned)p->part.since);
		where = " AND ";
	}
	if (*t->filter)
		cdc_buf_printf(out, "%s(%s)", where, t->filter);
	cdc_buf_puts(out, ") TO STDOUT");
}
