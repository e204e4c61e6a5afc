#include "cdc/pipeline/select.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/record/condition.h"
#include "cdc/record/mapping.h"
#include "cdc/record/scan.h"
#include "cdc/record/value.h"

#define MAPPED_MAX UINT32_MAX /* of one read, which is one chunk; its own size bounds it */

/* A column that filters look at, and where its value lies in the record at hand. */
struct looked {
	const char *name;
	struct cdc_buf json;      /* the name between its quotes, as the writer makes it */
	struct cdc_span new, old; /* len 0: not there */
	bool is_unchanged;        /* a large value that the log leaves out */
	bool is_key;
};

/* A table that was seen, and what it goes by. */
struct table {
	char *name;
	size_t len;
	uint64_t hash;
	const struct cdc_select_table *entry; /* NULL: not selected */
	struct cdc_columns *columns;          /* NULL: they go out as they are */
	struct cdc_condition **conditions;    /* as many as the entry has filters */
	size_t *looked_at;                    /* index of each condition's column */
	struct looked *looked;
	size_t looked_n;
	bool *is_missing, *is_told; /* of each listed column */
};

struct cdc_selector {
	const struct cdc_selection *selection;
	unsigned operations;
	struct cdc_hmac *hmac; /* NULL: none is hashed */
	int64_t now_us;
	struct table **tables;     /* by hash */
	size_t table_n, cap;       /* cap: 0 or a power of two, at least twice n */
	struct cdc_columns *every; /* no column is changed; for what is only another operation */
	struct cdc_buf scratch;
	struct table *news; /* has missing columns that are not told; NULL: none */
};

/* Each filter is good before the first record comes. */
static enum cdc_code check_filters(const struct cdc_selection *selection, struct cdc_err *err)
{
	for (size_t i = 0; i < selection->n; i++) {
		const struct cdc_select_table *t = &selection->tables[i];

		for (size_t k = 0; k < t->filter_n; k++) {
			enum cdc_code rc = cdc_condition_check(&t->filters[k], err);

			if (rc)
				return cdc_err_wrap(err, "table %s, filter on %s", t->id,
						    t->filters[k].field);
		}
	}
	return CDC_OK;
}

enum cdc_code cdc_selector_new(const struct cdc_selection *selection, unsigned operations,
			       struct cdc_selector **ret, struct cdc_err *err)
{
	struct cdc_selector *s = calloc(1, sizeof(*s));
	const char *key = selection->obfuscation_key;
	enum cdc_code rc;

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	s->selection = selection;
	s->operations = operations;
	cdc_buf_init(&s->scratch, UINT32_MAX);
	rc = check_filters(selection, err);
	if (!rc && key)
		rc = cdc_hmac_new(key, strlen(key), &s->hmac, err);
	if (!rc)
		rc = cdc_columns_new(NULL, 0, NULL, &s->every, err);
	if (rc) {
		cdc_selector_free(s);
		return rc;
	}
	*ret = s;
	return CDC_OK;
}

static void free_table(struct table *t)
{
	if (!t)
		return;
	for (size_t i = 0; t->conditions && i < t->entry->filter_n; i++)
		cdc_condition_free(t->conditions[i]);
	for (size_t i = 0; i < t->looked_n; i++)
		cdc_buf_clear(&t->looked[i].json);
	cdc_columns_free(t->columns);
	free(t->conditions);
	free(t->looked_at);
	free(t->looked);
	free(t->is_missing);
	free(t->is_told);
	free(t->name);
	free(t);
}

void cdc_selector_free(struct cdc_selector *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->cap; i++)
		free_table(s->tables[i]);
	free(s->tables);
	cdc_columns_free(s->every);
	cdc_hmac_free(s->hmac);
	cdc_buf_clear(&s->scratch);
	free(s);
}

void cdc_selector_set_now(struct cdc_selector *s, int64_t now_us)
{
	s->now_us = now_us;
}

/* --- tables ------------------------------------------------------------------------- */

static struct table **place_of(struct table **tables, size_t cap, uint64_t hash, const char *name,
			       size_t len)
{
	size_t i = hash & (cap - 1);

	while (tables[i] && (tables[i]->hash != hash || tables[i]->len != len ||
			     memcmp(tables[i]->name, name, len) != 0))
		i = (i + 1) & (cap - 1);
	return &tables[i];
}

static bool grow(struct cdc_selector *s)
{
	size_t cap = s->cap ? s->cap * 2 : 32;
	struct table **grown = calloc(cap, sizeof(struct table *));

	if (!grown)
		return false;
	for (size_t i = 0; i < s->cap; i++) {
		struct table *t = s->tables[i];

		if (t)
			*place_of(grown, cap, t->hash, t->name, t->len) = t;
	}
	free(s->tables);
	s->tables = grown;
	s->cap = cap;
	return true;
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for a table's selection");
}

/* The index of a column that filters look at, added when new. */
static size_t look_at(struct table *t, const char *name)
{
	struct looked *l;

	for (size_t i = 0; i < t->looked_n; i++) {
		if (strcmp(t->looked[i].name, name) == 0)
			return i;
	}
	l = &t->looked[t->looked_n];
	l->name = name;
	cdc_buf_init(&l->json, 1024);
	cdc_value_name(&l->json, name, strlen(name));
	return t->looked_n++;
}

static enum cdc_code compile_filters(struct table *t, struct cdc_err *err)
{
	const size_t n = t->entry->filter_n;
	enum cdc_code rc = CDC_OK;

	if (!n)
		return CDC_OK;
	t->conditions = calloc(n, sizeof(struct cdc_condition *));
	t->looked_at = calloc(n, sizeof(*t->looked_at));
	t->looked = calloc(n, sizeof(*t->looked));
	if (!t->conditions || !t->looked_at || !t->looked)
		return no_memory(err);
	for (size_t i = 0; !rc && i < n; i++) {
		t->looked_at[i] = look_at(t, t->entry->filters[i].field);
		rc = t->looked[t->looked_at[i]].json.failed
			     ? no_memory(err)
			     : cdc_condition_new(&t->entry->filters[i], &t->conditions[i], err);
	}
	return rc;
}

static enum cdc_code compile_fields(const struct cdc_selector *s, struct table *t,
				    struct cdc_err *err)
{
	const size_t n = t->entry->field_n;

	if (!n)
		return CDC_OK;
	t->is_missing = calloc(n, sizeof(*t->is_missing));
	t->is_told = calloc(n, sizeof(*t->is_told));
	if (!t->is_missing || !t->is_told)
		return no_memory(err);
	return cdc_columns_new(t->entry->fields, n, s->hmac, &t->columns, err);
}

static enum cdc_code new_table(const struct cdc_selector *s, uint64_t hash, const char *name,
			       size_t len, struct table **ret, struct cdc_err *err)
{
	struct table *t = calloc(1, sizeof(*t));
	enum cdc_code rc = CDC_OK;

	if (!t)
		return no_memory(err);
	t->name = malloc(len + 1);
	if (!t->name) {
		free(t);
		return no_memory(err);
	}
	memcpy(t->name, name, len);
	t->name[len] = '\0';
	t->len = len;
	t->hash = hash;
	t->entry = cdc_selection_find(s->selection, name, len);
	if (t->entry)
		rc = compile_filters(t, err);
	if (!rc && t->entry)
		rc = compile_fields(s, t, err);
	if (rc) {
		free_table(t);
		return rc;
	}
	*ret = t;
	return CDC_OK;
}

static enum cdc_code table_of(struct cdc_selector *s, struct cdc_view record, struct table **ret,
			      struct cdc_err *err)
{
	const uint64_t hash = record.batch->tables[record.rec->table].hash;
	struct table **place;
	const char *name;
	size_t len;
	enum cdc_code rc = CDC_OK;

	if ((s->table_n + 1) * 2 > s->cap && !grow(s))
		return no_memory(err);
	name = cdc_view_table(record, &len);
	place = place_of(s->tables, s->cap, hash, name, len);
	if (!*place) {
		rc = new_table(s, hash, name, len, place, err);
		s->table_n += rc == CDC_OK;
	}
	*ret = *place;
	return rc;
}

/* --- filters ------------------------------------------------------------------------ */

enum truth { NO, YES, UNKNOWN };

static struct looked *looked_of(struct table *t, const char *name, size_t len)
{
	for (size_t i = 0; i < t->looked_n; i++) {
		const struct cdc_buf *json = &t->looked[i].json;

		if (json->len == len + 2 && memcmp(json->data + 1, name, len) == 0)
			return &t->looked[i];
	}
	return NULL;
}

static enum cdc_code bad_record(struct cdc_view record, struct cdc_err *err)
{
	char id[CDC_ID_TEXT];

	(void)cdc_id_format(&record.rec->id, id);
	return cdc_err_set(err, CDC_CORRUPT, "record %s is not as walpost writes records", id);
}

enum part { KEY, FIELDS, CHANGES, UNCHANGED };

/* Notes what a part of the record says of the columns; false: it is not JSON. */
static bool look(struct table *t, struct cdc_view record, struct cdc_span span, enum part part)
{
	const char *json = cdc_view_json(record);
	struct cdc_member m;
	struct cdc_scan s;

	if (!span.len || json[span.off] == 'n') /* absent or null */
		return true;
	cdc_scan_begin(&s, json, record.rec->json_len, span);
	while (cdc_scan_next(&s, &m)) {
		struct looked *l;

		if (part == UNCHANGED) {
			m.name = (struct cdc_span){.off = m.value.off + 1, .len = m.value.len - 2};
			if (m.value.len < 2)
				return false;
		}
		l = looked_of(t, json + m.name.off, m.name.len);
		if (!l)
			continue;
		if (part == KEY)
			l->is_key = true;
		else if (part == FIELDS)
			l->new = m.value;
		else if (part == CHANGES)
			l->old = m.value;
		else
			l->is_unchanged = true;
	}
	return !s.is_bad;
}

/* Did the log have all of the old row?  Also when it has a column in `changes` that is not in
 * `key`. */
static bool has_old_row(struct cdc_view record)
{
	const struct cdc_record *r = record.rec;
	const char *json = cdc_view_json(record);
	struct cdc_member m, k;
	struct cdc_scan changes, key;

	if (!r->changes.len || r->flags & CDC_RECORD_OLD_ROW)
		return r->changes.len != 0;
	cdc_scan_begin(&changes, json, r->json_len, r->changes);
	while (cdc_scan_next(&changes, &m)) {
		bool is_key = false;

		if (!(r->flags & CDC_RECORD_NO_KEY)) {
			cdc_scan_begin(&key, json, r->json_len, r->key);
			while (!is_key && cdc_scan_next(&key, &k))
				is_key = k.name.len == m.name.len &&
					 memcmp(json + k.name.off, json + m.name.off, k.name.len) ==
						 0;
		}
		if (!is_key)
			return true;
	}
	return false;
}

/* What all conditions say of one side of the change. */
static enum truth judge(struct cdc_selector *s, const struct table *t, struct cdc_view record,
			bool is_old)
{
	const char *json = cdc_view_json(record);
	const int64_t now_us = record.rec->commit_us ? record.rec->commit_us : s->now_us;
	enum truth all = YES;

	for (size_t i = 0; i < t->entry->filter_n; i++) {
		const struct looked *l = &t->looked[t->looked_at[i]];
		const struct cdc_span value = is_old ? l->old : l->new;

		if (!value.len)
			all = UNKNOWN;
		else if (!cdc_condition_is_met(t->conditions[i], json, value, now_us, &s->scratch))
			return NO;
	}
	return all;
}

static enum cdc_code not_in_row(const struct table *t, const struct looked *l,
				struct cdc_view record, struct cdc_err *err)
{
	char id[CDC_ID_TEXT];

	(void)cdc_id_format(&record.rec->id, id);
	(void)cdc_err_set(err, CDC_CONFIG,
			  "the filter on column %s of %s cannot be applied: record %s has no such "
			  "column; the sync stops before it",
			  l->name, t->name, id);
	return cdc_err_remedy(err,
			      "name a column of the table, letter for letter, that the "
			      "publication sends, in filters of %s",
			      t->entry->id);
}

/* What becomes of a record by its filters. */
struct verdict {
	bool is_in;
	enum cdc_map how;
};

/* An update's old row: what `changes` says, and for the rest the new one where that is the same. */
static void complete_old(struct table *t, bool has_old)
{
	for (size_t i = 0; i < t->looked_n; i++) {
		struct looked *l = &t->looked[i];

		if (!l->old.len && (has_old || l->is_key))
			l->old = l->new;
	}
}

static struct verdict judge_update(struct cdc_selector *s, struct table *t, struct cdc_view record)
{
	const bool has_old = has_old_row(record);
	const enum truth is_new = judge(s, t, record, false);
	enum truth was_old;

	complete_old(t, has_old);
	was_old = judge(s, t, record, true);
	if (is_new == YES && was_old == NO)
		return (struct verdict){.is_in = true, .how = CDC_MAP_INSERT};
	if (is_new != NO)
		return (struct verdict){.is_in = true};
	/* The other half of a key change is the delete already. */
	if (was_old == NO || t->entry->leaving == CDC_LEAVING_DROP ||
	    record.rec->flags & CDC_RECORD_MOVE_NEW)
		return (struct verdict){0};
	if (has_old)
		return (struct verdict){.is_in = true, .how = CDC_MAP_DELETE_OLD};
	/* A delete of nobody says nothing. */
	return (struct verdict){.is_in = !(record.rec->flags & CDC_RECORD_NO_KEY),
				.how = CDC_MAP_DELETE_KEY};
}

static bool is_row(enum cdc_op op)
{
	return op == CDC_OP_INSERT || op == CDC_OP_UPDATE || op == CDC_OP_DELETE ||
	       op == CDC_OP_READ;
}

static enum cdc_code filter(struct cdc_selector *s, struct table *t, struct cdc_view record,
			    struct verdict *ret, struct cdc_err *err)
{
	const struct cdc_record *r = record.rec;

	*ret = (struct verdict){.is_in = true};
	if (!t->entry->filter_n || !is_row((enum cdc_op)r->op))
		return CDC_OK;
	for (size_t i = 0; i < t->looked_n; i++) {
		struct looked *l = &t->looked[i];

		l->new = l->old = (struct cdc_span){0};
		l->is_unchanged = l->is_key = false;
	}
	if (!look(t, record, r->fields, FIELDS) || !look(t, record, r->unchanged, UNCHANGED) ||
	    !look(t, record, r->changes, CHANGES) || !look(t, record, r->key, KEY))
		return bad_record(record, err);
	for (size_t i = 0; r->op != CDC_OP_DELETE && i < t->looked_n; i++) {
		if (!t->looked[i].new.len && !t->looked[i].is_unchanged)
			return not_in_row(t, &t->looked[i], record, err);
	}
	if (r->op == CDC_OP_UPDATE)
		*ret = judge_update(s, t, record);
	else
		ret->is_in = judge(s, t, record, false) != NO;
	if (s->scratch.failed) {
		cdc_buf_reset(&s->scratch, 0);
		return no_memory(err);
	}
	return CDC_OK;
}

/* --- columns that are not there ------------------------------------------------------ */

/* Compares a table's description with the columns that are listed. */
static bool note_missing(struct cdc_selector *s, struct table *t, struct cdc_view record)
{
	const char *json = cdc_view_json(record);
	const struct cdc_select_table *e = t->entry;
	struct cdc_scan fields, columns, column;
	struct cdc_member f, c, m;
	char name[256];
	size_t len;

	for (size_t i = 0; i < e->field_n; i++)
		t->is_missing[i] = !e->fields[i].is_left_out && strcmp(e->fields[i].id, "*") != 0;
	cdc_scan_begin(&fields, json, record.rec->json_len, record.rec->fields);
	while (cdc_scan_next(&fields, &f)) {
		if (f.name.len != 7 || memcmp(json + f.name.off, "columns", 7) != 0)
			continue;
		cdc_scan_begin(&columns, json, record.rec->json_len, f.value);
		while (cdc_scan_next(&columns, &c)) {
			cdc_scan_begin(&column, json, record.rec->json_len, c.value);
			if (!cdc_scan_next(&column, &m) || m.value.len < 2)
				return false;
			m.value.off++;
			m.value.len -= 2;
			if (!cdc_scan_text(json, m.value, name, sizeof(name), &len))
				continue;
			for (size_t i = 0; i < e->field_n; i++) {
				if (strlen(e->fields[i].id) == len &&
				    memcmp(e->fields[i].id, name, len) == 0)
					t->is_missing[i] = false;
			}
		}
	}
	for (size_t i = 0; i < e->field_n; i++) {
		if (!t->is_missing[i])
			t->is_told[i] = false; /* should it go again, that is news */
		else if (!t->is_told[i])
			s->news = t;
	}
	return !fields.is_bad;
}

bool cdc_selector_missing(struct cdc_selector *s, const char **ret_table, const char **ret_column)
{
	struct table *t = s->news;

	for (size_t i = 0; t && i < t->entry->field_n; i++) {
		if (!t->is_missing[i] || t->is_told[i])
			continue;
		t->is_told[i] = true;
		*ret_table = t->name;
		*ret_column = t->entry->fields[i].id;
		return true;
	}
	s->news = NULL;
	return false;
}

/* --- deciding ----------------------------------------------------------------------- */

static bool is_asked_for(const struct cdc_selector *s, enum cdc_op op)
{
	return s->operations >> op & 1;
}

static enum cdc_op operation_of(const struct cdc_record *r, enum cdc_map how)
{
	if (how == CDC_MAP_INSERT)
		return CDC_OP_INSERT;
	return how == CDC_MAP_SAME ? (enum cdc_op)r->op : CDC_OP_DELETE;
}

static enum cdc_code write(struct cdc_selector *s, const struct table *t, struct cdc_view record,
			   enum cdc_map how, struct cdc_batch **mapped, struct cdc_selected *ret,
			   struct cdc_err *err)
{
	enum cdc_code rc;

	if (!*mapped)
		*mapped = cdc_batch_new(MAPPED_MAX);
	if (!*mapped)
		return no_memory(err);
	rc = cdc_map_record(t->columns ? t->columns : s->every, record, how, *mapped, err);
	if (rc == CDC_CONFIG)
		return cdc_err_wrap(err, "table %s", t->name);
	if (rc)
		return rc;
	ret->is_mapped = true;
	ret->index = (uint32_t)((*mapped)->n - 1);
	return CDC_OK;
}

enum cdc_code cdc_select(struct cdc_selector *s, struct cdc_view record, struct cdc_batch **mapped,
			 struct cdc_selected *ret, struct cdc_err *err)
{
	const enum cdc_op op = (enum cdc_op)record.rec->op;
	struct verdict verdict;
	struct table *t = NULL;
	enum cdc_code rc;

	*ret = (struct cdc_selected){0};
	if (op == CDC_OP_MESSAGE) { /* of no table */
		ret->is_selected = is_asked_for(s, op);
		return CDC_OK;
	}
	rc = table_of(s, record, &t, err);
	if (rc || !t->entry)
		return rc;
	if (op == CDC_OP_SCHEMA && t->columns && !note_missing(s, t, record))
		return bad_record(record, err);
	/* It has nothing to be judged by, only its key: a dead letter in any case. */
	if (record.rec->flags & CDC_RECORD_TOO_LARGE) {
		if (is_asked_for(s, op) && t->columns && is_row(op))
			rc = write(s, t, record, CDC_MAP_SAME, mapped, ret, err);
		ret->is_selected = is_asked_for(s, op) && rc == CDC_OK;
		return rc;
	}
	/* An update may yet become something else. */
	if (!is_asked_for(s, op) && (op != CDC_OP_UPDATE || !t->entry->filter_n))
		return CDC_OK;
	rc = filter(s, t, record, &verdict, err);
	if (rc || !verdict.is_in || !is_asked_for(s, operation_of(record.rec, verdict.how)))
		return rc;
	if (verdict.how != CDC_MAP_SAME || (t->columns && (is_row(op) || op == CDC_OP_SCHEMA)))
		rc = write(s, t, record, verdict.how, mapped, ret, err);
	ret->is_selected = rc == CDC_OK;
	return rc;
}
