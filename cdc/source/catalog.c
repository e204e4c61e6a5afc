#include "cdc/source/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/arena.h"
#include "cdc/record/value.h"

#define MAX_TABLES      100000
#define MAX_TYPE_BYTES  (16u << 20) /* some 100,000 types */
#define MAX_TYPE_DEPTH  32          /* domains over domains over arrays of domains ... */
#define MAX_NAME_BYTES  1024        /* of an attribute as JSON: 63 bytes, each up to 6 */
#define MAX_DESCRIPTION (64u << 20) /* 65,535 columns of the longest names */
#define MAX_LOOKS       8           /* at types that change while they are looked at */
#define FIRST_SLOTS     64u         /* of both hash tables; powers of two */

struct known_type {
	uint32_t oid; /* 0: the slot is free */
	const struct cdc_type *type;
};

/* A composite type and what is known of it. */
struct row_type {
	struct cdc_type type;
	struct cdc_composite composite;
	uint32_t relid;  /* pg_type.typrelid */
	unsigned depth;  /* at which it was found */
	char digest[24]; /* of its attributes, by the server; "" without any */
	struct row_type *next;
};

struct cdc_catalog {
	struct cdc_lookup *lookup;
	struct cdc_describer *describer; /* NULL: nobody asks what tables look like */
	struct cdc_table *tables;        /* open addressing by relid; free where shape is NULL */
	size_t table_n, table_cap;
	const struct cdc_table *last; /* the one found last */
	struct known_type *types;     /* open addressing by OID */
	size_t type_n, type_cap;
	struct cdc_arena *arena; /* of the types that were made */
	struct row_type *row_types;
	cdc_lsn current_lsn; /* row_types are as they were when WAL ended here, or later */
	struct cdc_catalog_oddities oddities;
};

struct cdc_catalog *cdc_catalog_new(struct cdc_lookup *lookup)
{
	struct cdc_catalog *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->lookup = lookup;
	c->arena = cdc_arena_new(MAX_TYPE_BYTES);
	if (!c->arena) {
		free(c);
		return NULL;
	}
	return c;
}

static void clear_table(struct cdc_table *t)
{
	cdc_shape_free(t->shape);
	free(t->description);
}

void cdc_catalog_reset(struct cdc_catalog *c)
{
	for (size_t i = 0; i < c->table_cap; i++)
		clear_table(&c->tables[i]);
	free(c->tables);
	free(c->types);
	if (c->describer)
		cdc_describer_clear(c->describer);
	cdc_arena_reset(c->arena);
	*c = (struct cdc_catalog){.lookup = c->lookup,
				  .describer = c->describer,
				  .arena = c->arena,
				  .oddities = c->oddities};
}

void cdc_catalog_free(struct cdc_catalog *c)
{
	if (!c)
		return;
	cdc_catalog_reset(c);
	cdc_arena_free(c->arena);
	free(c);
}

/* OIDs are handed out one after the other; the multiplier spreads them. */
static size_t first_slot(uint32_t oid, size_t cap)
{
	return (size_t)((oid * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (cap - 1);
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for the description of a table");
}

/* --- types --------------------------------------------------------------------------- */

static const struct cdc_type *find_type(const struct cdc_catalog *c, uint32_t oid)
{
	if (!c->type_cap)
		return NULL;
	for (size_t i = first_slot(oid, c->type_cap);; i = (i + 1) & (c->type_cap - 1)) {
		if (c->types[i].oid == oid)
			return c->types[i].type;
		if (!c->types[i].oid)
			return NULL;
	}
}

static void put_type(struct known_type *slots, size_t cap, struct known_type type)
{
	size_t i = first_slot(type.oid, cap);

	while (slots[i].oid)
		i = (i + 1) & (cap - 1);
	slots[i] = type;
}

static bool add_type(struct cdc_catalog *c, uint32_t oid, const struct cdc_type *type)
{
	if (c->type_n * 2 >= c->type_cap) {
		size_t cap = c->type_cap ? c->type_cap * 2 : FIRST_SLOTS;
		struct known_type *slots =
			cap * sizeof(*slots) <= MAX_TYPE_BYTES ? calloc(cap, sizeof(*slots)) : NULL;

		if (!slots)
			return false;
		for (size_t i = 0; i < c->type_cap; i++) {
			if (c->types[i].oid)
				put_type(slots, cap, c->types[i]);
		}
		free(c->types);
		c->types = slots;
		c->type_cap = cap;
	}
	put_type(c->types, c->type_cap, (struct known_type){.oid = oid, .type = type});
	c->type_n++;
	return true;
}

static enum cdc_code resolve_type(struct cdc_catalog *c, uint32_t oid, unsigned depth,
				  const struct cdc_type **ret, struct cdc_err *err);

static enum cdc_code make_array(struct cdc_catalog *c, const struct cdc_type *elem, char delim,
				const struct cdc_type **ret, struct cdc_err *err)
{
	struct cdc_type *type = cdc_arena_alloc(c->arena, sizeof(*type));

	if (!type)
		return no_memory(err);
	*type = (struct cdc_type){.kind = CDC_KIND_ARRAY, .delim = delim, .elem = elem};
	*ret = type;
	return CDC_OK;
}

/* A digest of these, of all attributes in order, tells whether they are what they were. */
static const char attribute[] =
	"pg_catalog.format('%s %s %s %L,', a.attnum, a.atttypid, a.attisdropped, a.attname)";

/* `"name":`, in the arena. */
static bool put_name(struct cdc_catalog *c, struct cdc_attribute *a, const char *name)
{
	struct cdc_buf text;
	char *copy = NULL;

	cdc_buf_init(&text, MAX_NAME_BYTES);
	cdc_value_name(&text, name, strlen(name));
	cdc_buf_putc(&text, ':');
	if (!text.failed)
		copy = cdc_arena_alloc(c->arena, text.len);
	if (copy) {
		memcpy(copy, text.data, text.len);
		a->member = copy;
		a->member_len = text.len;
	}
	cdc_buf_clear(&text);
	return copy != NULL;
}

/* Asks for the attributes of a composite type, which become its newest form. */
static enum cdc_code ask_form(struct cdc_catalog *c, struct row_type *row, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = NULL;
	struct cdc_form *form;
	char sql[640];
	enum cdc_code rc;

	(void)snprintf(sql, sizeof(sql),
		       "SELECT a.attisdropped, a.atttypid, a.attname, "
		       "pg_catalog.hashtextextended(pg_catalog.string_agg(%s, '') OVER "
		       "(ORDER BY a.attnum ROWS BETWEEN UNBOUNDED PRECEDING "
		       "AND UNBOUNDED FOLLOWING), 0) FROM pg_catalog.pg_attribute a "
		       "WHERE a.attrelid = %u AND a.attnum > 0 ORDER BY a.attnum",
		       attribute, row->relid);
	rc = cdc_lookup_ask(c->lookup, sql, "looking up the attributes of a type", &result, err);
	if (rc)
		return rc;
	form = cdc_arena_alloc(c->arena, sizeof(*form) + (size_t)PQntuples(result) *
								 sizeof(*form->attributes));
	if (!form)
		return no_memory(err);
	*form = (struct cdc_form){.older = row->composite.form, .only_grew = true};
	for (int i = 0; i < PQntuples(result); i++) {
		struct cdc_attribute *a = &form->attributes[form->n];

		if (cdc_pgconn_bool(result, i, 0)) {
			form->only_grew = false;
			continue;
		}
		rc = resolve_type(c, cdc_pgconn_u32(result, i, 1), row->depth + 1, &a->type, err);
		if (rc)
			return rc;
		if (!put_name(c, a, cdc_pgconn_text(result, i, 2)))
			return no_memory(err);
		form->n++;
	}
	(void)snprintf(row->digest, sizeof(row->digest), "%s", cdc_pgconn_text(result, 0, 3));
	row->composite.form = form;
	return CDC_OK;
}

static enum cdc_code make_composite(struct cdc_catalog *c, uint32_t relid, unsigned depth,
				    const struct cdc_type **ret, struct cdc_err *err)
{
	struct row_type *row = cdc_arena_alloc(c->arena, sizeof(*row));
	enum cdc_code rc;

	if (!row)
		return no_memory(err);
	*row = (struct row_type){
		.type = {.kind = CDC_KIND_COMPOSITE, .composite = &row->composite},
		.composite = {.odd = &c->oddities.values},
		.relid = relid,
		.depth = depth,
	};
	rc = ask_form(c, row, err);
	if (rc)
		return rc;
	row->next = c->row_types;
	c->row_types = row;
	c->current_lsn = 0;
	*ret = &row->type;
	return CDC_OK;
}

/*
 * A domain is written as what it is based on, an array (whose text array_out
 * wrote) element by element, a composite attribute by attribute, an hstore as its
 * own cast to json does, all else as its text: enums, ranges, what extensions bring.
 */
static enum cdc_code ask_type(struct cdc_catalog *c, uint32_t oid, unsigned depth,
			      const struct cdc_type **ret, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = NULL;
	uint32_t base, elem, relid;
	char sql[1024];
	enum cdc_code rc;

	(void)snprintf(sql, sizeof(sql),
		       "SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE 0 END, "
		       "CASE t.typoutput WHEN 'pg_catalog.array_out'::pg_catalog.regproc "
		       "THEN t.typelem ELSE 0 END, e.typdelim, "
		       "CASE t.typtype WHEN 'c' THEN t.typrelid ELSE 0 END, "
		       "o.prosrc = 'hstore_out' AND EXISTS (SELECT FROM pg_catalog.pg_cast c "
		       "JOIN pg_catalog.pg_proc f ON f.oid = c.castfunc "
		       "WHERE c.castsource = t.oid AND f.prosrc = 'hstore_to_json' "
		       "AND c.casttarget = 'pg_catalog.json'::pg_catalog.regtype) "
		       "FROM pg_catalog.pg_type t "
		       "LEFT JOIN pg_catalog.pg_proc o ON o.oid = t.typoutput "
		       "LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem WHERE t.oid = %u",
		       oid);
	rc = cdc_lookup_ask(c->lookup, sql, "looking up a type", &result, err);
	if (rc)
		return rc;
	if (PQntuples(result) == 0) {
		c->oddities.types++;
		c->oddities.type = oid;
	}
	base = cdc_pgconn_u32(result, 0, 0);
	elem = cdc_pgconn_u32(result, 0, 1);
	relid = cdc_pgconn_u32(result, 0, 3);
	if (base)
		return resolve_type(c, base, depth + 1, ret, err);
	if (relid)
		return make_composite(c, relid, depth, ret, err);
	if (elem) {
		const struct cdc_type *of = NULL;

		rc = resolve_type(c, elem, depth + 1, &of, err);
		return rc ? rc : make_array(c, of, cdc_pgconn_text(result, 0, 2)[0], ret, err);
	}
	*ret = cdc_type_scalar(cdc_pgconn_bool(result, 0, 4) ? CDC_KIND_HSTORE : CDC_KIND_TEXT);
	return CDC_OK;
}

static enum cdc_code resolve_type(struct cdc_catalog *c, uint32_t oid, unsigned depth,
				  const struct cdc_type **ret, struct cdc_err *err)
{
	const uint64_t unknown = c->oddities.types;
	enum cdc_code rc;

	*ret = cdc_type_builtin(oid);
	if (!*ret)
		*ret = find_type(c, oid);
	if (*ret)
		return CDC_OK;
	if (depth == MAX_TYPE_DEPTH || oid == 0) {
		*ret = cdc_type_scalar(CDC_KIND_TEXT);
		return CDC_OK;
	}
	rc = ask_type(c, oid, depth, ret, err);
	/* What is not known is asked for again next time: under synchronous replication a commit
	 * may come here before others see it. */
	if (!rc && unknown == c->oddities.types && !add_type(c, oid, *ret))
		rc = no_memory(err);
	return rc;
}

/* --- composite types that change -------------------------------------------------------- */

/*
 * A statement's snapshot is older than all that the statement looks at, so where
 * WAL ends is asked by one before it, whose answer the session keeps.
 */
static const char *put_question(const struct cdc_catalog *c, struct cdc_buf *sql)
{
	char before = '{';

	cdc_buf_puts(sql, "SELECT pg_catalog.set_config('walpost.lsn', CASE "
			  "WHEN pg_catalog.pg_is_in_recovery() "
			  "THEN pg_catalog.pg_last_wal_replay_lsn() "
			  "ELSE pg_catalog.pg_current_wal_insert_lsn() END::pg_catalog.text, true);"
			  "SELECT pg_catalog.current_setting('walpost.lsn'), r.id, "
			  "pg_catalog.hashtextextended(pg_catalog.string_agg(");
	cdc_buf_puts(sql, attribute);
	cdc_buf_puts(sql, ", '' ORDER BY a.attnum), 0) FROM pg_catalog.unnest('");
	for (const struct row_type *row = c->row_types; row; row = row->next) {
		cdc_buf_printf(sql, "%c%u", before, row->relid);
		before = ',';
	}
	cdc_buf_puts(sql,
		     "}'::pg_catalog.oid[]) WITH ORDINALITY r (id, place) "
		     "LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = r.id AND a.attnum > 0 "
		     "GROUP BY r.id, r.place ORDER BY r.place");
	cdc_buf_putc(sql, '\0');
	return sql->failed ? NULL : (const char *)sql->data;
}

/* Gives every composite type whose attributes changed a newer form.  *ret_has_changed: one got it,
 * so that another look has to find all of them at rest. */
static enum cdc_code look_at_row_types(struct cdc_catalog *c, bool *ret_has_changed,
				       cdc_lsn *ret_lsn, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = NULL;
	struct cdc_buf sql;
	int i = 0;
	enum cdc_code rc;

	cdc_buf_init(&sql, MAX_TYPE_BYTES);
	rc = cdc_lookup_ask(c->lookup, put_question(c, &sql), "looking for changed types", &result,
			    err);
	cdc_buf_clear(&sql);
	if (rc)
		return rc;
	*ret_lsn = cdc_pgconn_lsn(result, 0, 0);
	*ret_has_changed = false;
	/* A form may bring in further types, at the list's front. */
	for (struct row_type *row = c->row_types; !rc && i < PQntuples(result); row = row->next) {
		const char *digest = cdc_pgconn_text(result, i++, 2);

		/* No digest: it has no attributes any more, or was dropped and is still in the log.
		 */
		if (*digest && strcmp(digest, row->digest) != 0) {
			rc = ask_form(c, row, err);
			*ret_has_changed = true;
		}
	}
	return rc;
}

static enum cdc_code look_until_steady(struct cdc_catalog *c, cdc_lsn *ret_lsn, struct cdc_err *err)
{
	bool has_changed = true;
	enum cdc_code rc = CDC_OK;

	for (int look = 0; !rc && has_changed && look < MAX_LOOKS; look++)
		rc = look_at_row_types(c, &has_changed, ret_lsn, err);
	return rc;
}

enum cdc_code cdc_catalog_refresh_now(struct cdc_catalog *c, struct cdc_err *err)
{
	cdc_lsn lsn = 0;

	return look_until_steady(c, &lsn, err);
}

enum cdc_code cdc_catalog_refresh(struct cdc_catalog *c, cdc_lsn commit_lsn, struct cdc_err *err)
{
	cdc_lsn lsn = 0;
	enum cdc_code rc;

	if (commit_lsn <= c->current_lsn)
		return CDC_OK;
	rc = look_until_steady(c, &lsn, err);
	/* A commit that the server told of is in its log: never ask twice for the same one. */
	if (!rc)
		c->current_lsn = lsn > commit_lsn ? lsn : commit_lsn;
	return rc;
}

struct cdc_catalog_oddities cdc_catalog_oddities(const struct cdc_catalog *c)
{
	return c->oddities;
}

/* Is a composite type part of it? */
static bool has_row_type(const struct cdc_type *type)
{
	while (type->kind == CDC_KIND_ARRAY)
		type = type->elem;
	return type->kind == CDC_KIND_COMPOSITE;
}

/* --- keys ---------------------------------------------------------------------------- */

/*
 * Marks the primary key's columns.  A deferrable one is none: its values may meet
 * within a transaction, and the record of one row would end another.  The catalog
 * is of now, the message of then: a key whose columns are not all among the
 * message's is left out.
 */
static enum cdc_code ask_key(struct cdc_catalog *c, const struct pgo_relation *r,
			     struct cdc_column *columns, bool *ret_may_lack, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = NULL;
	size_t want = 0, found = 0;
	char sql[768];
	enum cdc_code rc;

	(void)snprintf(sql, sizeof(sql),
		       "SELECT c.relkind, a.attname FROM pg_catalog.pg_class c "
		       "LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid "
		       "AND i.indisprimary AND i.indimmediate AND i.indisvalid "
		       "LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = "
		       "ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1]) "
		       "WHERE c.oid = %u",
		       r->relid);
	rc = cdc_lookup_ask(c->lookup, sql, "looking up a primary key", &result, err);
	if (rc)
		return rc;
	/* One that is gone may have been partitioned. */
	*ret_may_lack = PQntuples(result) == 0 || cdc_pgconn_text(result, 0, 0)[0] == 'p';
	for (int row = 0; row < PQntuples(result); row++) {
		const char *name = cdc_pgconn_text(result, row, 1);

		want += *name != '\0';
		for (size_t i = 0; *name && i < r->n; i++) {
			if (strcmp(columns[i].name, name) == 0) {
				columns[i].is_key = true;
				found++;
			}
		}
	}
	for (size_t i = 0; found != want && i < r->n; i++)
		columns[i].is_key = false;
	return CDC_OK;
}

/* --- tables -------------------------------------------------------------------------- */

static struct cdc_table *find_slot(struct cdc_table *slots, size_t cap, uint32_t relid)
{
	size_t i = first_slot(relid, cap);

	while (slots[i].shape && slots[i].relid != relid)
		i = (i + 1) & (cap - 1);
	return &slots[i];
}

const struct cdc_table *cdc_catalog_find(struct cdc_catalog *c, uint32_t relid)
{
	const struct cdc_table *t;

	if (c->last && c->last->relid == relid)
		return c->last;
	if (!c->table_cap)
		return NULL;
	t = find_slot(c->tables, c->table_cap, relid);
	if (!t->shape)
		return NULL;
	c->last = t;
	return t;
}

/* Makes sure that one more table finds a free slot. */
static bool make_room(struct cdc_catalog *c)
{
	size_t cap = c->table_cap ? c->table_cap * 2 : FIRST_SLOTS;
	struct cdc_table *slots;

	if ((c->table_n + 1) * 2 <= c->table_cap)
		return true;
	slots = calloc(cap, sizeof(*slots));
	if (!slots)
		return false;
	for (size_t i = 0; i < c->table_cap; i++) {
		if (c->tables[i].shape)
			*find_slot(slots, cap, c->tables[i].relid) = c->tables[i];
	}
	free(c->tables);
	c->tables = slots;
	c->table_cap = cap;
	c->last = NULL;
	return true;
}

/* FNV-1a, 64 bits: enough to tell one version of a table from the next. */
static uint64_t mix(uint64_t digest, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < n; i++)
		digest = (digest ^ at[i]) * UINT64_C(0x100000001b3);
	return digest;
}

static uint64_t digest_of(const struct pgo_relation *r, const struct cdc_column *columns)
{
	uint64_t d = UINT64_C(0xcbf29ce484222325);

	d = mix(d, r->schema, strlen(r->schema) + 1);
	d = mix(d, r->name, strlen(r->name) + 1);
	for (size_t i = 0; i < r->n; i++) {
		d = mix(d, columns[i].name, strlen(columns[i].name) + 1);
		d = mix(d, &r->columns[i].type, sizeof(r->columns[i].type));
		d = mix(d, &columns[i].is_key, sizeof(columns[i].is_key));
	}
	return d;
}

static enum cdc_code put_table(struct cdc_catalog *c, const struct pgo_relation *r,
			       const struct cdc_column *columns, bool old_may_lack,
			       struct cdc_err *err)
{
	bool has_row_types = false;
	const uint64_t digest = digest_of(r, columns);
	struct cdc_shape *shape;
	struct cdc_table *t;

	if (!make_room(c))
		return no_memory(err);
	t = find_slot(c->tables, c->table_cap, r->relid);
	if (t->shape && t->digest == digest) {
		t->old_may_lack = old_may_lack;
		return CDC_OK;
	}
	if (!t->shape && c->table_n == MAX_TABLES)
		return cdc_err_set(err, CDC_NOMEM, "more than %d tables in one session",
				   MAX_TABLES);
	shape = cdc_shape_new(r->schema, r->name, columns, r->n);
	if (!shape)
		return no_memory(err);
	c->table_n += !t->shape;
	clear_table(t);
	for (size_t i = 0; i < r->n; i++)
		has_row_types |= has_row_type(columns[i].type);
	*t = (struct cdc_table){.relid = r->relid,
				.shape = shape,
				.old_may_lack = old_may_lack,
				.is_told = true,
				.has_row_types = has_row_types,
				.digest = digest};
	return CDC_OK;
}

void cdc_catalog_set_describer(struct cdc_catalog *c, struct cdc_describer *d)
{
	c->describer = d;
}

void cdc_catalog_tell(struct cdc_catalog *c, const struct cdc_table *t)
{
	find_slot(c->tables, c->table_cap, t->relid)->is_told = true;
}

/* Of a table that has a shape.  Also what rows are not written differently for is described: a
 * modifier, the identity. */
static enum cdc_code put_description(struct cdc_catalog *c, const struct pgo_relation *r,
				     const struct cdc_column *columns, struct cdc_err *err)
{
	struct cdc_table *t = find_slot(c->tables, c->table_cap, r->relid);
	struct cdc_buf text;
	enum cdc_code rc;

	cdc_buf_init(&text, MAX_DESCRIPTION);
	rc = cdc_describe(c->describer, r, columns, &text, err);
	cdc_buf_putc(&text, '\0');
	if (!rc && text.failed)
		rc = no_memory(err);
	if (!rc && (!t->description || strcmp(t->description, (const char *)text.data) != 0)) {
		free(t->description);
		t->description = (char *)text.data;
		t->is_told = false;
		return CDC_OK;
	}
	cdc_buf_clear(&text);
	return rc;
}

enum cdc_code cdc_catalog_relation(struct cdc_catalog *c, const struct pgo_relation *r,
				   struct cdc_err *err)
{
	struct cdc_column *columns = calloc(r->n + 1, sizeof(*columns));
	bool is_full = r->identity == 'f', old_may_lack = false;
	enum cdc_code rc = CDC_OK;

	if (!columns)
		return no_memory(err);
	for (size_t i = 0; !rc && i < r->n; i++) {
		columns[i] = (struct cdc_column){.name = r->columns[i].name,
						 .is_key = !is_full && r->columns[i].is_identity};
		rc = resolve_type(c, r->columns[i].type, 0, &columns[i].type, err);
	}
	if (!rc && is_full)
		rc = ask_key(c, r, columns, &old_may_lack, err);
	if (!rc)
		rc = put_table(c, r, columns, old_may_lack, err);
	if (!rc && c->describer)
		rc = put_description(c, r, columns, err);
	free(columns);
	return rc ? cdc_err_wrap(err, "table %s.%s", r->schema, r->name) : CDC_OK;
}
