#include "cdc/source/copy_plan.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/source/quote.h"

#define ASK_MS       20000
#define SQL_MAX      (8u << 20)
#define ARENA_MAX    (256u << 20)
#define RANGE_BLOCKS 8192 /* 64 MiB of blocks of 8 KiB */
#define RANGE_MAX    4000000
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
				   struct cdc_pgconn *c, const char *publication, char *ret_kind,
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
	*ret_kind = cdc_pgconn_text(r, 0, 3)[0];
	t->filter = keep(p, r, 0, 5);
	return t->relation.schema && t->relation.name && t->filter ? CDC_OK : no_memory(err);
}

/* The published columns, and which of them are the replica identity. */
static enum cdc_code read_columns(struct cdc_copy_plan *p, struct cdc_copy_relation *t,
				  struct cdc_pgconn *c, const char *publication,
				  struct cdc_err *err)
{
	static const char select[] =
		"SELECT a.attname, a.atttypid, a.atttypmod, pg_catalog.quote_ident(a.attname), "
		"coalesce(a.attnum = ANY ((SELECT x.indkey FROM pg_catalog.pg_index x "
		"WHERE x.indrelid = a.attrelid AND x.indisvalid AND x.indisunique "
		"AND x.indimmediate AND x.indpred IS NULL AND CASE c.relreplident "
		"WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END "
		"LIMIT 1)::pg_catalog.int2[]), false) OR c.relreplident = 'f' "
		"FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid "
		"JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
		"JOIN pg_catalog.pg_publication_tables pt ON pt.schemaname = n.nspname "
		"AND pt.tablename = c.relname WHERE a.attnum > 0 AND NOT a.attisdropped "
		"AND CASE WHEN pg_catalog.to_jsonb(pt) ? 'attnames' "
		"THEN pg_catalog.to_jsonb(pt) -> 'attnames' ? a.attname "
		"ELSE a.attgenerated = '' END AND a.attrelid = ";
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct pgo_column *columns;
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, select);
	cdc_buf_printf(&sql, "%u AND pt.pubname = ", t->relation.relid);
	cdc_quote_text(&sql, publication);
	cdc_buf_puts(&sql, " ORDER BY a.attnum");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "reading the columns", &r, err);
	cdc_buf_clear(&sql);
	if (rc)
		return rc;
	t->relation.n = (size_t)PQntuples(r);
	columns = cdc_arena_alloc(p->arena, (t->relation.n + 1) * sizeof(*columns));
	if (!columns)
		return no_memory(err);
	t->relation.columns = columns;
	cdc_buf_init(&sql, SQL_MAX);
	for (int i = 0; i < PQntuples(r); i++) {
		columns[i] = (struct pgo_column){
			.name = keep(p, r, i, 0),
			.type = cdc_pgconn_u32(r, i, 1),
			.modifier = -1,
			.is_identity = cdc_pgconn_bool(r, i, 4),
		};
		cdc_buf_printf(&sql, "%s%s", i ? ", " : "", cdc_pgconn_text(r, i, 3));
		if (!columns[i].name)
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

/* Where its rows lie: itself, or the partitions below it. */
static enum cdc_code read_leaves(struct cdc_copy_plan *p, struct cdc_copy_relation *t,
				 struct cdc_pgconn *c, bool is_partitioned, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	char from[160], sql[640];
	enum cdc_code rc;

	(void)snprintf(from, sizeof(from),
		       is_partitioned ? "pg_catalog.pg_partition_tree(%u) l WHERE l.isleaf"
				      : "(SELECT %u::pg_catalog.oid AS relid) l WHERE true",
		       t->relation.relid);
	(void)snprintf(sql, sizeof(sql),
		       "SELECT x.*, n.nspname, c.relname, c.relkind, c.relfilenode FROM "
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

enum cdc_code cdc_copy_plan_make(struct cdc_copy_plan *p, struct cdc_pgconn *c,
				 const char *publication, const char *const *tables, size_t n,
				 struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	p->arena = cdc_arena_new(ARENA_MAX);
	p->relations = p->arena ? cdc_arena_alloc(p->arena, n * sizeof(*p->relations)) : NULL;
	if (!p->relations)
		return no_memory(err);
	p->relation_n = n;
	for (size_t i = 0; i < n && !rc; i++) {
		struct cdc_copy_relation *t = &p->relations[i];
		char kind = 0;

		t->name = cdc_arena_strdup(p->arena, tables[i]);
		rc = t->name ? read_relation(p, t, c, publication, &kind, err) : no_memory(err);
		if (!rc)
			rc = read_columns(p, t, c, publication, err);
		if (!rc)
			rc = read_leaves(p, t, c, kind == 'p', err);
		if (!rc)
			rc = lock_leaves(t, c, err);
		if (!rc)
			rc = cut(p, i, PQserverVersion(c->pg), err);
		if (rc)
			p->failed = i;
	}
	return rc;
}

void cdc_copy_plan_sql(const struct cdc_copy_plan *p, const struct cdc_copy_range *range,
		       struct cdc_buf *out)
{
	const struct cdc_copy_relation *t = &p->relations[range->table];
	const char *where = " WHERE ";

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
	if (*t->filter)
		cdc_buf_printf(out, "%s(%s)", where, t->filter);
	cdc_buf_puts(out, ") TO STDOUT");
}
