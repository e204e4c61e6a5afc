#include "cdc/source/chosen.h"

#include <stdio.h>
#include <string.h>

#include "cdc/base/buf.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/quote.h"

#define ASK_MS  20000
#define SQL_MAX (1u << 20)

/* What is told of all tables together. */
struct summary {
	size_t tables;
	struct cdc_buf text;
	cdc_finding_fn *found;
	void *arg;
	bool is_lacking;
};

static bool has_column(const PGresult *r, int first, int end, const char *name)
{
	for (int i = first; i < end; i++) {
		if (strcmp(cdc_pgconn_text(r, i, 1), name) == 0)
			return true;
	}
	return false;
}

static void tell_missing(struct summary *s, enum cdc_verdict verdict, const char *table,
			 const char *column, const char *where)
{
	struct cdc_finding f = {.verdict = verdict, .name = "selection"};

	(void)snprintf(f.text, sizeof(f.text),
		       "table %s has no column %s that is published, and %s names it", table,
		       column, where);
	(void)snprintf(f.remedy, sizeof(f.remedy),
		       "name a column letter for letter as the database has it, or take it out of "
		       "%s",
		       where);
	s->is_lacking = true;
	s->found(s->arg, &f);
}

static void put_entry(struct summary *s, const char *table, const struct cdc_select_table *e)
{
	static const char *const how[] = {[CDC_OBFUSCATE_NONE] = "",
					  [CDC_OBFUSCATE_HASH] = " (hash)",
					  [CDC_OBFUSCATE_MASK] = " (mask)",
					  [CDC_OBFUSCATE_NULL] = " (null)"};
	const char *before = " (";

	cdc_buf_printf(&s->text, "%s%s", s->tables++ ? ", " : "", table);
	for (size_t i = 0; i < e->field_n; i++) {
		const struct cdc_select_field *f = &e->fields[i];

		cdc_buf_printf(&s->text, "%s%s%s%s%s%s", before, f->is_left_out ? "not " : "",
			       f->id, f->output_name ? " as " : "",
			       f->output_name ? f->output_name : "", how[f->obfuscate]);
		before = ", ";
	}
	if (e->filter_n)
		cdc_buf_printf(&s->text, "%s%zu filters", e->field_n ? "; " : before, e->filter_n);
	if (e->field_n || e->filter_n)
		cdc_buf_putc(&s->text, ')');
}

/* A table whose columns are rows first to end. */
static void check_table(struct summary *s, const PGresult *r, int first, int end,
			const struct cdc_select_table *e)
{
	const char *table = cdc_pgconn_text(r, first, 0);

	put_entry(s, table, e);
	for (size_t i = 0; i < e->field_n; i++) {
		const struct cdc_select_field *f = &e->fields[i];

		if (!f->is_left_out && strcmp(f->id, "*") != 0 && !has_column(r, first, end, f->id))
			tell_missing(s, CDC_WARN, table, f->id, "fields");
	}
	for (size_t i = 0; i < e->filter_n; i++) {
		if (!has_column(r, first, end, e->filters[i].field))
			tell_missing(s, CDC_FAIL, table, e->filters[i].field, "filters");
	}
}

/* Every table with its columns; of published ones those that the publication sends. */
static enum cdc_code ask(struct cdc_pgconn *c, const char *publication, PGresult **ret,
			 struct cdc_err *err)
{
	struct cdc_buf sql;
	enum cdc_code rc;

	cdc_buf_init(&sql, SQL_MAX);
	cdc_buf_puts(&sql, "SELECT n.nspname || '.' || c.relname, a.attname "
			   "FROM pg_catalog.pg_class c "
			   "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
			   "JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
			   "AND NOT a.attisdropped "
			   "LEFT JOIN pg_catalog.pg_publication_tables pt "
			   "ON pt.schemaname = n.nspname AND pt.tablename = c.relname "
			   "AND pt.pubname = ");
	cdc_quote_text(&sql, publication);
	cdc_buf_puts(&sql, " WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' "
			   "AND n.nspname !~ '^pg_' AND coalesce("
			   "pg_catalog.to_jsonb(pt) -> 'attnames' ? a.attname, true) "
			   /* 15 lists generated columns, too, and publishes none. */
			   "AND (a.attgenerated = '' OR pg_catalog.current_setting("
			   "'server_version_num')::int >= 180000) ORDER BY 1");
	rc = cdc_pgconn_exec(c, cdc_quote_end(&sql), ASK_MS, "reading the columns", ret, err);
	cdc_buf_clear(&sql);
	return rc;
}

static void tell_summary(struct summary *s)
{
	struct cdc_finding f = {.verdict = s->tables ? CDC_PASS : CDC_WARN, .name = "selection"};

	if (s->tables)
		(void)snprintf(f.text, sizeof(f.text), "%zu tables: %.*s", s->tables,
			       (int)s->text.len, (const char *)s->text.data);
	else
		(void)snprintf(f.text, sizeof(f.text), "no table matches schemas yet");
	s->found(s->arg, &f);
}

void cdc_chosen_check(const struct cdc_source_settings *settings,
		      const struct cdc_selection *selection, cdc_finding_fn *found, void *arg)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	struct summary s = {.found = found, .arg = arg};
	struct cdc_pgconn *c = NULL;
	struct cdc_err err = {0};
	enum cdc_code rc = cdc_pgconn_open(settings, CDC_PGCONN_SQL, "walpost", NULL, &c, &err);

	cdc_buf_init(&s.text, SQL_MAX);
	if (!rc)
		rc = ask(c, settings->publication, &r, &err);
	for (int i = 0, end; !rc && i < PQntuples(r); i = end) {
		const char *table = cdc_pgconn_text(r, i, 0);
		const struct cdc_select_table *e =
			cdc_selection_find(selection, table, strlen(table));

		for (end = i + 1;
		     end < PQntuples(r) && strcmp(cdc_pgconn_text(r, end, 0), table) == 0;)
			end++;
		if (e)
			check_table(&s, r, i, end, e);
	}
	if (rc) {
		struct cdc_finding f = {.verdict = CDC_FAIL, .name = "selection"};

		(void)snprintf(f.text, sizeof(f.text), "%.*s", (int)sizeof(f.text) - 1, err.msg);
		(void)snprintf(f.remedy, sizeof(f.remedy), "%s", err.remedy);
		found(arg, &f);
	} else if (!s.is_lacking) {
		tell_summary(&s);
	}
	cdc_buf_clear(&s.text);
	cdc_pgconn_close(c);
}
