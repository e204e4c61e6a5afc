#include "cdc/source/publication_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/pgconn.h"
#include "cdc/source/quote.h"

#define SCHEMA_VERSION    150000      /* the first with FOR TABLES IN SCHEMA, filters and lists */
#define PENDING_VERSION   140000      /* the first with DETACH PARTITION CONCURRENTLY */
#define GENERATED_VERSION 180000      /* the first whose publications may have generated columns */
#define ARENA_MAX         (64u << 20) /* 500,000 tables */
#define SQL_MAX           (64u << 10)
#define ASKED_MAX         1000 /* of tables that are gone, what became of them */
#define NEWS_MAX          50   /* of tables at a time */
#define BACK_MAX          100 /* that were out between two looks, at a time: each is a gap to be noted */

/* Columns of the answer.  The first row is the publication's: oid 0, its options as name. */
enum column {
	COLUMN_OID,
	COLUMN_UNDER,
	COLUMN_NAME,
	COLUMN_UNDER_NAME,
	COLUMN_FILTER,
	COLUMN_COLUMNS,
	COLUMN_ENTRIES
};

enum missing { MISSING_OID, MISSING_SQL_NAME, MISSING_KIND, MISSING_PERSISTENCE };

void cdc_publication_watch_init(struct cdc_publication_watch *w, const struct cdc_source_plan *plan)
{
	*w = (struct cdc_publication_watch){.plan = plan};
	cdc_buf_init(&w->sql, SQL_MAX);
}

static void forget_all(struct cdc_publication_watch *w)
{
	cdc_arena_free(w->last.arena);
	w->last = (struct cdc_publication_look){0};
	w->left_n = 0;
	w->lost[0] = '\0';
}

void cdc_publication_watch_clear(struct cdc_publication_watch *w)
{
	forget_all(w);
	cdc_buf_clear(&w->sql);
}

void cdc_publication_watch_begin(struct cdc_publication_watch *w, int version,
				 const char *system_id)
{
	if (strcmp(w->system_id, system_id) != 0)
		forget_all(w);
	(void)snprintf(w->system_id, sizeof(w->system_id), "%s", system_id);
	w->version = version;
}

void cdc_publication_watch_forget(struct cdc_publication_watch *w, const char *name)
{
	struct cdc_publication_look *l = &w->last;
	size_t n = 0;

	for (size_t i = 0; i < l->table_n; i++) {
		if (strcmp(l->tables[i].under_name, name) != 0)
			l->tables[n++] = l->tables[i];
	}
	l->table_n = n;
}

/* The system, and a line per table. */
void cdc_publication_watch_put_left(const struct cdc_publication_watch *w, struct cdc_buf *out)
{
	for (size_t i = 0; i < w->left_n; i++)
		cdc_buf_printf(out, "%s %u %s\n", w->system_id, w->left[i].oid, w->left[i].name);
}

void cdc_publication_watch_recall_left(struct cdc_publication_watch *w, const char *text)
{
	const char *end;

	CDC_ASSERT(!w->last.arena);
	for (; w->left_n < CDC_LEFT_MAX && (end = strchr(text, '\n')) != NULL; text = end + 1) {
		struct cdc_left_table *l = &w->left[w->left_n];
		char system_id[24];
		int at = 0;

		if (sscanf(text, "%23s %u %n", system_id, &l->oid, &at) != 2 || at == 0 ||
		    end - text <= at || (size_t)(end - text - at) >= sizeof(l->name))
			continue;
		(void)snprintf(w->system_id, sizeof(w->system_id), "%s", system_id);
		(void)snprintf(l->name, sizeof(l->name), "%.*s", (int)(end - text - at), text + at);
		w->left_n++;
	}
}

/* --- a look as a text -------------------------------------------------------------------- */

/*
 * "look 1 SYSTEM OPTIONS", a line with the publication's name, then one per table, its fields
 * with a tab between, in the order of the answer's columns.  A name may hold anything.
 */
static void put_field(struct cdc_buf *out, const char *text, char end)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '\t' || *text == '\n')
			cdc_buf_printf(out, "\\%c",
				       *text == '\t'   ? 't'
				       : *text == '\n' ? 'n'
						       : '\\');
		else
			cdc_buf_putc(out, *text);
	}
	cdc_buf_putc(out, end);
}

void cdc_publication_watch_put_look(const struct cdc_publication_watch *w, struct cdc_buf *out)
{
	cdc_buf_printf(out, "look 1 %s %s\n", w->system_id, w->last.options);
	put_field(out, w->plan->settings->publication, '\n');
	for (size_t i = 0; i < w->last.table_n; i++) {
		const struct cdc_published *t = &w->last.tables[i];

		cdc_buf_printf(out, "%u\t%u\t", t->oid, t->under);
		put_field(out, t->name, '\t');
		put_field(out, t->under_name, '\t');
		put_field(out, t->filter, '\t');
		put_field(out, t->columns, '\t');
		put_field(out, t->entries, '\n');
	}
}

/* Up to its end, which is passed; NULL: it has another, or there is no memory. */
static char *take_field(struct cdc_arena *a, const char **text, char end)
{
	const size_t n = strcspn(*text, "\t\n");
	char *field = (*text)[n] == end ? cdc_arena_alloc(a, n + 1) : NULL;
	size_t len = 0;

	for (size_t i = 0; field && i < n; i++) {
		char c = (*text)[i];

		if (c == '\\' && i + 1 < n) {
			c = (*text)[++i];
			c = c == 't' ? '\t' : c == 'n' ? '\n' : c;
		}
		field[len++] = c;
	}
	*text += field ? n + 1 : 0;
	return field;
}

/* Not by sscanf, which measures all the text behind it, too. */
static bool take_oid(const char **text, uint32_t *ret)
{
	char *end;
	unsigned long oid;

	if (**text < '0' || **text > '9')
		return false;
	oid = strtoul(*text, &end, 10);
	if (*end != '\t' || oid > UINT32_MAX)
		return false;
	*text = end + 1;
	*ret = (uint32_t)oid;
	return true;
}

static bool take_table(struct cdc_arena *a, const char **text, struct cdc_published *ret)
{
	return take_oid(text, &ret->oid) && take_oid(text, &ret->under) &&
	       (ret->name = take_field(a, text, '\t')) != NULL &&
	       (ret->under_name = take_field(a, text, '\t')) != NULL &&
	       (ret->filter = take_field(a, text, '\t')) != NULL &&
	       (ret->columns = take_field(a, text, '\t')) != NULL &&
	       (ret->entries = take_field(a, text, '\n')) != NULL;
}

void cdc_publication_watch_recall_look(struct cdc_publication_watch *w, const char *text)
{
	struct cdc_publication_look look = {.exists = true};
	char system_id[24];
	const char *name;
	size_t n = 0, options;
	int at = 0;

	CDC_ASSERT(!w->last.arena);
	if (sscanf(text, "look 1 %23s%n", system_id, &at) != 1 || text[at] != ' ' ||
	    (w->left_n && strcmp(system_id, w->system_id) != 0))
		return;
	text += at + 1;
	options = strcspn(text, "\n");
	if (options >= sizeof(look.options) || !text[options])
		return;
	memcpy(look.options, text, options);
	text += options + 1;
	look.arena = cdc_arena_new(ARENA_MAX);
	name = look.arena ? take_field(look.arena, &text, '\n') : NULL;
	for (const char *line = text; (line = strchr(line, '\n')) != NULL; line++)
		n++;
	/* Of another publication, every entry is another. */
	if (name && strcmp(name, w->plan->settings->publication) == 0)
		look.tables = cdc_arena_alloc(look.arena, n * sizeof(*look.tables));
	while (look.tables && look.table_n < n &&
	       take_table(look.arena, &text, &look.tables[look.table_n]))
		look.table_n++;
	if (!look.tables || look.table_n < n || *text) {
		cdc_arena_free(look.arena);
		return;
	}
	w->last = look;
	(void)snprintf(w->system_id, sizeof(w->system_id), "%s", system_id);
}

/* --- the statements ---------------------------------------------------------------------- */

/*
 * m: the members, each with its entry in the publication; i: the partitions; d: a digest of all
 * that, which is what is read as long as nothing changes; t: the members, and below them the
 * partitions, each with its member and the way it came by, which is another when it is attached
 * anew; s: what is sent, under which name.  By the root: a member that is below no other, and its
 * partitions under its name; else every table that has rows, under its own.
 */
static const char members_sql[] =
	" FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid "
	"WHERE r.prpubid = (SELECT oid FROM p) "
	"UNION ALL SELECT c.oid, c.relname, c.relnamespace, c.relkind, c.relpersistence, "
	"pg_catalog.concat('a', p.oid), NULL, NULL FROM p, pg_catalog.pg_class c "
	"WHERE p.puballtables AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' "
	"AND c.oid >= 16384";
static const char of_schemas_sql[] =
	" UNION ALL SELECT c.oid, c.relname, c.relnamespace, c.relkind, c.relpersistence, "
	"pg_catalog.concat('n', n.oid), NULL, NULL FROM pg_catalog.pg_publication_namespace n "
	"JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid "
	"WHERE n.pnpubid = (SELECT oid FROM p) AND c.relkind IN ('r', 'p')";
static const char limits_sql[] =
	"pg_catalog.hashtextextended(r.prqual::pg_catalog.text, 0)::pg_catalog.text AS filter, "
	"CASE WHEN r.prattrs IS NOT NULL THEN (SELECT pg_catalog.string_agg(a.attname, ', ' "
	"ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid "
	"AND a.attnum = ANY (r.prattrs)) END AS columns";
static const char partitions_sql[] =
	"), i AS (SELECT i.inhrelid, i.inhparent, i.xmin AS born, c.relname, c.relnamespace, "
	"c.relkind, c.relpersistence FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c "
	"ON c.oid = i.inhrelid WHERE c.relispartition AND c.relkind IN ('r', 'p') "
	"AND EXISTS (SELECT FROM m WHERE relkind = 'p')";
/* Of one that is being detached concurrently nothing comes by its root any more. */
static const char pending_sql[] = " AND NOT i.inhdetachpending";
static const char sent_sql[] =
	"), "
	"d AS (SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', "
	"(SELECT oid FROM p), (SELECT pubviaroot FROM p), "
	"(SELECT pg_catalog.sum(pg_catalog.hashtextextended(m::pg_catalog.text, 0)) FROM m), "
	"(SELECT pg_catalog.sum(pg_catalog.hashtextextended(i::pg_catalog.text, 1)) FROM i), "
	"(SELECT pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(oid, nspname), 2)) "
	"FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_')), 0)::pg_catalog.text AS digest), "
	"t AS (SELECT m.oid AS under, n.name AS under_name, m.oid, n.name, m.relkind, "
	"m.relpersistence, m.entry, m.filter, m.columns FROM m, LATERAL (SELECT pg_catalog.concat("
	"(SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = m.relnamespace), '.', "
	"m.relname) AS name) n UNION ALL SELECT t.under, t.under_name, i.inhrelid, "
	"pg_catalog.concat((SELECT nspname FROM pg_catalog.pg_namespace "
	"WHERE oid = i.relnamespace), '.', i.relname), i.relkind, i.relpersistence, "
	"pg_catalog.concat(t.entry, '/', i.born), NULL, NULL FROM t JOIN i ON i.inhparent = "
	"t.oid), "
	"u AS (SELECT t.* FROM t, p WHERE p.pubviaroot AND t.under NOT IN (SELECT oid FROM t "
	"WHERE oid <> under) UNION ALL SELECT t.oid, t.name, t.oid, t.name, t.relkind, "
	"t.relpersistence, t.entry, t.filter, t.columns FROM t, p WHERE NOT p.pubviaroot), "
	"s AS (SELECT oid, under, pg_catalog.min(name) AS name, pg_catalog.min(under_name) "
	"AS under_name, pg_catalog.min(filter) AS filter, pg_catalog.min(columns) AS columns, "
	"pg_catalog.string_agg(DISTINCT entry, ' ') AS entries FROM u WHERE relpersistence = 'p' "
	"AND (relkind = 'r' OR under = oid AND (SELECT pubviaroot FROM p)) GROUP BY oid, under) ";

const char *cdc_publication_watch_sql(struct cdc_publication_watch *w)
{
	struct cdc_buf *sql = &w->sql;

	cdc_buf_reset(sql, SQL_MAX);
	cdc_buf_puts(sql, "WITH RECURSIVE p AS (SELECT oid, puballtables, pubviaroot, "
			  "pg_catalog.concat(CASE WHEN pubinsert THEN 'i' END, CASE WHEN pubupdate "
			  "THEN 'u' END, CASE WHEN pubdelete THEN 'd' END, CASE WHEN pubtruncate "
			  "THEN 't' END, CASE WHEN pubviaroot THEN 'r' END");
	if (w->version >= GENERATED_VERSION)
		cdc_buf_puts(sql, ", CASE WHEN pubgencols = 's' THEN 'g' END");
	cdc_buf_puts(sql, ") AS options FROM pg_catalog.pg_publication WHERE pubname = ");
	cdc_quote_text(sql, w->plan->settings->publication);
	cdc_buf_puts(sql, "), m AS (SELECT c.oid, c.relname, c.relnamespace, c.relkind, "
			  "c.relpersistence, pg_catalog.concat('r', r.oid) AS entry, ");
	cdc_buf_puts(sql,
		     w->version >= SCHEMA_VERSION
			     ? limits_sql
			     : "NULL::pg_catalog.text AS filter, NULL::pg_catalog.text AS columns");
	cdc_buf_puts(sql, members_sql);
	cdc_buf_puts(sql, w->version >= SCHEMA_VERSION ? of_schemas_sql : "");
	cdc_buf_puts(sql, partitions_sql);
	cdc_buf_puts(sql, w->version >= PENDING_VERSION ? pending_sql : "");
	cdc_buf_puts(sql, sent_sql);
	cdc_buf_puts(sql, "SELECT * FROM (SELECT 0::pg_catalog.oid AS oid, "
			  "NULL::pg_catalog.oid AS under, p.options, d.digest, "
			  "NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text "
			  "FROM p, d UNION ALL SELECT c.oid, NULL, NULL, NULL, NULL, NULL, NULL "
			  "FROM pg_catalog.pg_class c WHERE c.oid = ANY ('{");
	for (size_t i = 0; i < w->left_n; i++)
		cdc_buf_printf(sql, "%s%u", i ? "," : "", w->left[i].oid);
	cdc_buf_puts(sql,
		     "}'::pg_catalog.oid[]) UNION ALL SELECT s.oid, s.under, s.name, s.under_name, "
		     "s.filter, s.columns, s.entries FROM s "
		     "WHERE (SELECT d.digest FROM d) <> ");
	cdc_quote_text(sql, w->last.digest);
	cdc_buf_puts(sql, ") o ORDER BY o.under IS NOT NULL, o.oid");
	return cdc_quote_end(sql);
}

/* --- reading a look ---------------------------------------------------------------------- */

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for the publication's tables");
}

static bool has_publication(const PGresult *answer)
{
	return PQntuples(answer) > 0 && cdc_pgconn_u32(answer, 0, COLUMN_OID) == 0;
}

/* Rows from the first that is a table on; of those that left only the OID is told. */
static int first_table(const PGresult *answer)
{
	int i = 1;

	while (i < PQntuples(answer) && PQgetisnull(answer, i, COLUMN_UNDER))
		i++;
	return i;
}

static bool is_as_before(const struct cdc_publication_watch *w, const PGresult *answer)
{
	return strcmp(cdc_pgconn_text(answer, 0, COLUMN_UNDER_NAME), w->last.digest) == 0;
}

static enum cdc_code read_look(const PGresult *answer, struct cdc_publication_look *ret,
			       struct cdc_err *err)
{
	const int first = first_table(answer), end = PQntuples(answer);
	struct cdc_arena *a = ret->arena = cdc_arena_new(ARENA_MAX);

	ret->exists = true;
	(void)snprintf(ret->options, sizeof(ret->options), "%s",
		       cdc_pgconn_text(answer, 0, COLUMN_NAME));
	(void)snprintf(ret->digest, sizeof(ret->digest), "%s",
		       cdc_pgconn_text(answer, 0, COLUMN_UNDER_NAME));
	ret->tables = a ? cdc_arena_alloc(a, (size_t)(end - first) * sizeof(*ret->tables)) : NULL;
	if (!ret->tables)
		return no_memory(err);
	for (int i = first; i < end; i++) {
		struct cdc_published *t = &ret->tables[ret->table_n++];

		*t = (struct cdc_published){
			.oid = cdc_pgconn_u32(answer, i, COLUMN_OID),
			.under = cdc_pgconn_u32(answer, i, COLUMN_UNDER),
			.name = cdc_arena_strdup(a, cdc_pgconn_text(answer, i, COLUMN_NAME)),
			.under_name =
				cdc_arena_strdup(a, cdc_pgconn_text(answer, i, COLUMN_UNDER_NAME)),
			.filter = cdc_arena_strdup(a, cdc_pgconn_text(answer, i, COLUMN_FILTER)),
			.columns = cdc_arena_strdup(a, cdc_pgconn_text(answer, i, COLUMN_COLUMNS)),
			.entries = cdc_arena_strdup(a, cdc_pgconn_text(answer, i, COLUMN_ENTRIES)),
		};
		if (!t->name || !t->under_name || !t->filter || !t->columns || !t->entries)
			return no_memory(err);
	}
	return CDC_OK;
}

const char *cdc_publication_watch_missing_sql(struct cdc_publication_watch *w,
					      const PGresult *answer)
{
	const char *before = "";
	size_t asked = 0;
	int row;

	if (!w->last.arena || !has_publication(answer) || is_as_before(w, answer))
		return NULL;
	row = first_table(answer);
	cdc_buf_reset(&w->sql, SQL_MAX);
	cdc_buf_puts(&w->sql, "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), "
			      "c.relkind, c.relpersistence FROM pg_catalog.pg_class c "
			      "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
			      "WHERE c.oid = ANY ('{");
	for (size_t i = 0; i < w->last.table_n && asked < ASKED_MAX; i++) {
		const uint32_t oid = w->last.tables[i].oid;

		while (row < PQntuples(answer) && cdc_pgconn_u32(answer, row, COLUMN_OID) < oid)
			row++;
		if (row < PQntuples(answer) && cdc_pgconn_u32(answer, row, COLUMN_OID) == oid)
			continue;
		if (!cdc_source_asks_for(w->plan, w->last.tables[i].under_name))
			continue;
		cdc_buf_printf(&w->sql, "%s%u", before, oid);
		before = ",";
		asked++;
	}
	cdc_buf_puts(&w->sql, "}'::pg_catalog.oid[])");
	return asked ? cdc_quote_end(&w->sql) : NULL;
}

/* --- what is new ------------------------------------------------------------------------- */

struct telling {
	struct cdc_publication_watch *w;
	const PGresult *missing;
	cdc_publication_news_fn *fn;
	void *arg;
	size_t told, untold; /* of tables */
	size_t unkept;       /* of those that left */
	size_t back;         /* of those that were out between two looks */
	bool is_unfinished;  /* there are more of them */
	bool is_new;         /* the look is not as the last */
};

static const char *publication_of(const struct telling *t)
{
	return t->w->plan->settings->publication;
}

static void put_publication(const struct telling *t, struct cdc_publication_news *n,
			    const char *change)
{
	struct cdc_buf name;
	const char *text;

	cdc_buf_init(&name, 256);
	cdc_quote_name(&name, publication_of(t));
	text = cdc_quote_end(&name);
	(void)snprintf(n->remedy, sizeof(n->remedy), "ALTER PUBLICATION %s %s", text ? text : "...",
		       change);
	cdc_buf_clear(&name);
}

static void tell(struct telling *t, struct cdc_publication_news *n)
{
	if (n->table[0] && !cdc_source_asks_for(t->w->plan, n->table))
		return;
	/* A gap is noted of each that is back. */
	if (n->table[0] && n->kind != CDC_NEWS_TABLE_BACK) {
		if (t->told == NEWS_MAX) {
			t->untold++;
			return;
		}
		t->told++;
	}
	t->fn(t->arg, n);
}

static void name_table(struct cdc_publication_news *n, const char *name)
{
	(void)snprintf(n->table, sizeof(n->table), "%s", name);
}

static struct cdc_left_table *find_left(struct cdc_publication_watch *w, uint32_t oid)
{
	for (size_t i = 0; i < w->left_n; i++) {
		if (w->left[i].oid == oid)
			return &w->left[i];
	}
	return NULL;
}

static void unleave(struct cdc_publication_watch *w, struct cdc_left_table *l)
{
	*l = w->left[--w->left_n];
}

static void leave(struct telling *t, const struct cdc_published *p)
{
	struct cdc_publication_watch *w = t->w;
	struct cdc_left_table *l;

	if (!cdc_source_asks_for(w->plan, p->under_name) || find_left(w, p->oid))
		return;
	if (w->left_n == CDC_LEFT_MAX) {
		t->unkept++;
		return;
	}
	l = &w->left[w->left_n++];
	l->oid = p->oid;
	(void)snprintf(l->name, sizeof(l->name), "%s", p->under_name);
}

/* Of what left, that which was dropped since is not out any more. */
static void drop_left(struct cdc_publication_watch *w, const PGresult *answer)
{
	const int end = first_table(answer);

	for (size_t i = w->left_n; i-- > 0;) {
		bool is_there = false;

		for (int row = 1; row < end && !is_there; row++)
			is_there = cdc_pgconn_u32(answer, row, COLUMN_OID) == w->left[i].oid;
		if (!is_there)
			unleave(w, &w->left[i]);
	}
}

static int find_missing(const struct telling *t, uint32_t oid)
{
	for (int i = 0; t->missing && i < PQntuples(t->missing); i++) {
		if (cdc_pgconn_u32(t->missing, i, MISSING_OID) == oid)
			return i;
	}
	return -1;
}

static void tell_dropped(struct telling *t, const struct cdc_published *p)
{
	struct cdc_publication_news n = {.kind = CDC_NEWS_TABLE_DROPPED};

	name_table(&n, p->under_name);
	if (p->under != p->oid)
		(void)snprintf(n.text, sizeof(n.text), "its partition %s was dropped", p->name);
	else
		(void)snprintf(n.text, sizeof(n.text), "it was dropped");
	tell(t, &n);
}

static void tell_left(struct telling *t, const struct cdc_published *p, int row, bool is_via_root)
{
	struct cdc_publication_news n = {.kind = CDC_NEWS_TABLE_LEFT};
	const char *sql_name = cdc_pgconn_text(t->missing, row, MISSING_SQL_NAME);
	char change[320];

	name_table(&n, p->under_name);
	(void)snprintf(change, sizeof(change), "ADD TABLE ONLY %s;", sql_name);
	put_publication(t, &n, change);
	if (cdc_pgconn_text(t->missing, row, MISSING_PERSISTENCE)[0] != 'p') {
		(void)snprintf(n.text, sizeof(n.text),
			       "it is unlogged now, so its changes are not in the WAL");
		(void)snprintf(n.remedy, sizeof(n.remedy), "ALTER TABLE %s SET LOGGED;", sql_name);
	} else if (p->under != p->oid) {
		(void)snprintf(
			n.text, sizeof(n.text),
			"%s is no partition of it any more, and not published by itself: its "
			"changes do not come any more",
			p->name);
	} else if (cdc_pgconn_text(t->missing, row, MISSING_KIND)[0] == 'p' && !is_via_root) {
		(void)snprintf(n.text, sizeof(n.text),
			       "publication %s sends its changes under the names of its partitions "
			       "now",
			       publication_of(t));
		put_publication(t, &n, "SET (publish_via_partition_root = true);");
	} else {
		(void)snprintf(n.text, sizeof(n.text),
			       "it is not in publication %s any more: its changes do not come",
			       publication_of(t));
	}
	tell(t, &n);
	leave(t, p);
}

static void tell_missing(struct telling *t, const struct cdc_published *p, bool is_via_root)
{
	const int row = find_missing(t, p->oid);

	if (row < 0)
		tell_dropped(t, p);
	else
		tell_left(t, p, row, is_via_root);
}

static void tell_joined(struct telling *t, const struct cdc_published *p)
{
	struct cdc_left_table *left = find_left(t->w, p->oid);
	struct cdc_publication_news n = {.kind = left ? CDC_NEWS_TABLE_BACK
						      : CDC_NEWS_TABLE_JOINED};

	name_table(&n, p->under_name);
	if (left) {
		(void)snprintf(n.text, sizeof(n.text),
			       "it is published again; what was changed in between was not read");
		unleave(t->w, left);
		tell(t, &n);
	} else if (p->under == p->oid) {
		(void)snprintf(n.text, sizeof(n.text), "it is published now");
		tell(t, &n);
	}
}

static bool has_entry(const char *entries, const char *entry, size_t len)
{
	for (; *entries; entries += strcspn(entries, " ")) {
		entries += *entries == ' ';
		if (strcspn(entries, " ") == len && memcmp(entries, entry, len) == 0)
			return true;
	}
	return false;
}

/* One that is attached or detached is published as before when that is by its schema, in which it
 * still is, or with all tables: only the way to its entry is another. */
static bool has_kept_entry(const struct cdc_published *was, const struct cdc_published *is)
{
	for (const char *e = was->entries; *e; e += strcspn(e, " ")) {
		e += *e == ' ';
		for (const char *f = is->entries; *f; f += strcspn(f, " ")) {
			const size_t len = strcspn(e, "/ ");

			f += *f == ' ';
			if (strcspn(f, "/ ") == len && memcmp(e, f, len) == 0)
				return true;
		}
	}
	return false;
}

/* Has it been published all the time by one of its entries? */
static bool has_stayed(const struct cdc_published *was, const struct cdc_published *is)
{
	if (was->under != is->under)
		return strcmp(was->name, is->name) == 0 && has_kept_entry(was, is);
	for (const char *e = was->entries; *e; e += strcspn(e, " ")) {
		e += *e == ' ';
		if (has_entry(is->entries, e, strcspn(e, " ")))
			return true;
	}
	return false;
}

static const struct cdc_published *find_table(const struct cdc_publication_look *l, uint32_t oid)
{
	size_t low = 0, high = l->table_n;

	while (low < high) {
		const size_t mid = low + (high - low) / 2;

		if (l->tables[mid].oid == oid)
			return &l->tables[mid];
		if (l->tables[mid].oid < oid)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

/* A partition's own way is told with the table that it is a part of. */
static bool is_told_by_root(const struct cdc_publication_look *was,
			    const struct cdc_publication_look *is, const struct cdc_published *new)
{
	const struct cdc_published *old_root, *root;

	if (new->under == new->oid)
		return false;
	old_root = find_table(was, new->under);
	root = find_table(is, new->under);
	return old_root && root && !has_stayed(old_root, root);
}

/* It is there as before, and may have been out in between. */
static void tell_reentry(struct telling *t, const struct cdc_publication_look *was,
			 const struct cdc_publication_look *is, const struct cdc_published *old,
			 struct cdc_published *new)
{
	struct cdc_publication_news n = {.kind = CDC_NEWS_TABLE_BACK};
	struct cdc_left_table *left = find_left(t->w, new->oid);
	char *later;

	if (has_stayed(old, new) || !cdc_source_asks_for(t->w->plan, new->under_name))
		return;
	if (is_told_by_root(was, is, new))
		return;
	if (t->back >= BACK_MAX && (later = cdc_arena_strdup(is->arena, old->entries)) != NULL) {
		new->entries = later; /* the next look finds it again */
		t->is_unfinished = true;
		return;
	}
	t->back++;
	name_table(&n, new->under_name);
	if (new->under == new->oid)
		(void)snprintf(
			n.text, sizeof(n.text),
			"it was taken out of publication %s and put back, or its entry there "
			"was made anew: what was changed in between was not read",
			publication_of(t));
	else
		(void)snprintf(
			n.text, sizeof(n.text),
			"its partition %s was taken out and put back: what was changed in it "
			"in between was not read",
			new->name);
	if (left)
		unleave(t->w, left);
	tell(t, &n);
}

static void tell_other_name(struct telling *t, const struct cdc_published *was,
			    const struct cdc_published *is)
{
	struct cdc_publication_news n = {.kind = CDC_NEWS_TABLE_RENAMED};

	/* Who asked for the former name is concerned, whoever asks for the new one as well. */
	name_table(&n, cdc_source_asks_for(t->w->plan, was->under_name) ? was->under_name
									: is->under_name);
	(void)snprintf(n.text, sizeof(n.text), "changes of %s come as %s from now on", was->name,
		       is->under_name);
	if (!cdc_source_asks_for(t->w->plan, is->under_name))
		(void)snprintf(n.remedy, sizeof(n.remedy), "name %s in schemas", is->under_name);
	tell(t, &n);
}

static void tell_limits(struct telling *t, const struct cdc_published *was,
			const struct cdc_published *is)
{
	struct cdc_publication_news n = {.kind = CDC_NEWS_FILTER_CHANGED};

	name_table(&n, is->under_name);
	if (strcmp(was->filter, is->filter) != 0) {
		(void)snprintf(n.text, sizeof(n.text), "%s",
			       !*is->filter    ? "it has no row filter any more: all its rows come"
			       : !*was->filter ? "it has a row filter now: not all its rows come"
					       : "its row filter is another: other rows come");
		tell(t, &n);
	}
	if (strcmp(was->columns, is->columns) != 0) {
		n.kind = CDC_NEWS_COLUMNS_CHANGED;
		(void)snprintf(n.text, sizeof(n.text),
			       "its column list is another: what comes is %s",
			       *is->columns ? is->columns : "every column");
		tell(t, &n);
	}
}

/* Both lists are by OID. */
static void compare_tables(struct telling *t, const struct cdc_publication_look *was,
			   struct cdc_publication_look *is)
{
	const bool is_via_root = strchr(is->options, 'r') != NULL;
	size_t a = 0, b = 0;

	while (a < was->table_n || b < is->table_n) {
		const struct cdc_published *old = a < was->table_n ? &was->tables[a] : NULL;
		struct cdc_published *new = b < is->table_n ? &is->tables[b] : NULL;

		if (!new || (old && old->oid < new->oid)) {
			tell_missing(t, old, is_via_root);
			a++;
			continue;
		}
		if (!old || new->oid < old->oid) {
			tell_joined(t, new);
			b++;
			continue;
		}
		if (old->under != new->under ||
		    (new->under == new->oid &&strcmp(old->name, new->name) != 0))
			tell_other_name(t, old, new);
		tell_limits(t, old, new);
		tell_reentry(t, was, is, old, new);
		a++;
		b++;
	}
	if (t->untold) {
		struct cdc_publication_news n = {.kind = CDC_NEWS_PUBLICATION_CHANGED};

		(void)snprintf(n.text, sizeof(n.text),
			       "publication %s: %zu more such news of tables are not listed",
			       publication_of(t), t->untold);
		tell(t, &n);
	}
	if (t->unkept) {
		struct cdc_publication_news n = {.kind = CDC_NEWS_PUBLICATION_CHANGED};

		(void)snprintf(n.text, sizeof(n.text),
			       "publication %s: %zu more tables left it than are remembered; when "
			       "they come back, what was changed meanwhile is not noted as a gap",
			       publication_of(t), t->unkept);
		(void)snprintf(n.remedy, sizeof(n.remedy), "walpost resync SYNC, then");
		tell(t, &n);
	}
}

/* The operations of one that another does not have. */
static size_t missing_operations(const char *of, const char *in, char ret[64])
{
	static const char letters[] = "iudt";
	static const char *const names[] = {"insert", "update", "delete", "truncate"};
	size_t n = 0, len = 0;

	ret[0] = '\0';
	for (size_t i = 0; letters[i]; i++) {
		if (!strchr(of, letters[i]) || strchr(in, letters[i]))
			continue;
		len += (size_t)snprintf(ret + len, 64 - len, "%s%s", n ? ", " : "", names[i]);
		n++;
	}
	return n;
}

static void tell_option(struct telling *t, const char *text, const char *change)
{
	struct cdc_publication_news n = {.kind = CDC_NEWS_PUBLICATION_CHANGED};

	(void)snprintf(n.text, sizeof(n.text), "publication %s was changed: %s", publication_of(t),
		       text);
	if (change)
		put_publication(t, &n, change);
	tell(t, &n);
}

static void compare_options(struct telling *t, const char *was, const char *is)
{
	char names[64], text[200];

	if (missing_operations(was, is, names)) {
		(void)snprintf(text, sizeof(text), "%s of its tables does not come any more",
			       names);
		tell_option(t, text, "SET (publish = 'insert, update, delete, truncate');");
	}
	if (missing_operations(is, was, names)) {
		(void)snprintf(text, sizeof(text),
			       "%s of its tables comes from now on; what there was before was not "
			       "read",
			       names);
		tell_option(t, text, NULL);
	}
	if (!strchr(was, 'r') != !strchr(is, 'r'))
		tell_option(t,
			    strchr(is, 'r')
				    ? "changes of partitions come under the name of the "
				      "partitioned table from now on"
				    : "changes of partitioned tables come under the names of "
				      "their partitions from now on",
			    strchr(is, 'r') ? NULL : "SET (publish_via_partition_root = true);");
	if (!strchr(was, 'g') != !strchr(is, 'g'))
		tell_option(t,
			    strchr(is, 'g') ? "stored generated columns come from now on"
					    : "generated columns do not come any more",
			    strchr(is, 'g') ? NULL : "SET (publish_generated_columns = stored);");
}

/* Keeps which operations stopped coming, until they come again. */
static void note_lost(struct cdc_publication_watch *w, const char *was, const char *is)
{
	static const char letters[] = "iudt";
	size_t n = 0;
	char lost[sizeof(w->lost)];

	for (size_t i = 0; letters[i]; i++) {
		if (!strchr(is, letters[i]) &&
		    (strchr(was, letters[i]) || strchr(w->lost, letters[i])))
			lost[n++] = letters[i];
	}
	lost[n] = '\0';
	memcpy(w->lost, lost, sizeof(lost));
}

static void tell_existence(struct telling *t, bool exists)
{
	struct cdc_publication_news n = {.kind = exists ? CDC_NEWS_PUBLICATION_BACK
							: CDC_NEWS_PUBLICATION_GONE};

	if (exists)
		(void)snprintf(n.text, sizeof(n.text),
			       "publication %s is there again; changes made meanwhile cannot be "
			       "read",
			       publication_of(t));
	else
		(void)snprintf(
			n.text, sizeof(n.text),
			"publication %s is not there any more: the next change of one of its "
			"tables ends the stream",
			publication_of(t));
	tell(t, &n);
}

/* A look at the publication that is there. */
static enum cdc_code take_look(struct telling *t, const PGresult *answer, struct cdc_err *err)
{
	struct cdc_publication_watch *w = t->w;
	struct cdc_publication_look look = {0};
	const bool has_changed = !w->last.arena || !is_as_before(w, answer);
	char was[sizeof(look.options)];
	enum cdc_code rc = CDC_OK;

	if (w->last.arena && !w->last.exists)
		tell_existence(t, true);
	drop_left(w, answer);
	memcpy(was, w->last.options, sizeof(was));
	if (has_changed)
		rc = read_look(answer, &look, err);
	if (rc) {
		cdc_arena_free(look.arena);
		return rc;
	}
	/* What a former process saw leave may have come back when nobody looked. */
	for (size_t i = 0; !w->last.arena && i < look.table_n; i++) {
		if (find_left(w, look.tables[i].oid))
			tell_joined(t, &look.tables[i]);
	}
	if (w->last.arena) {
		const char *is = cdc_pgconn_text(answer, 0, COLUMN_NAME);

		compare_options(t, was, is);
		note_lost(w, was, is);
		if (has_changed)
			compare_tables(t, &w->last, &look);
		if (t->is_unfinished)
			look.digest[0] = '\0';
	}
	t->is_new = has_changed || !w->last.exists ||
		    strcmp(was, cdc_pgconn_text(answer, 0, COLUMN_NAME)) != 0;
	if (has_changed) {
		cdc_arena_free(w->last.arena);
		w->last = look;
	}
	w->last.exists = true;
	(void)snprintf(w->last.options, sizeof(w->last.options), "%s",
		       cdc_pgconn_text(answer, 0, COLUMN_NAME));
	return CDC_OK;
}

enum cdc_code cdc_publication_watch_take(struct cdc_publication_watch *w, const PGresult *answer,
					 const PGresult *missing, cdc_publication_news_fn *fn,
					 void *arg, struct cdc_publication_report *ret,
					 struct cdc_err *err)
{
	struct telling t = {.w = w, .missing = missing, .fn = fn, .arg = arg};
	enum cdc_code rc = CDC_OK;

	if (has_publication(answer)) {
		rc = take_look(&t, answer, err);
	} else if (w->last.exists) {
		tell_existence(&t, false);
		w->last.exists = false;
	}
	if (rc)
		return rc;
	*ret = (struct cdc_publication_report){
		.table_n = w->last.exists ? w->last.table_n : 0,
		.is_gone = w->last.arena && !w->last.exists,
		.is_new = t.is_new,
		.left_n = w->left_n,
		.lost_n = strlen(w->lost),
	};
	return CDC_OK;
}
