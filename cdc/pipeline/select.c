#include "cdc/pipeline/select.h"

#include <stdlib.h>
#include <string.h>

/* A table that was seen, and what it goes by. */
struct table {
	char *name;
	size_t len;
	uint64_t hash;
	const struct cdc_select_table *entry; /* NULL: not selected */
};

struct cdc_selector {
	const struct cdc_selection *selection;
	unsigned operations;
	struct table **tables; /* by hash */
	size_t table_n, cap;   /* cap: 0 or a power of two, at least twice n */
};

enum cdc_code cdc_selector_new(const struct cdc_selection *selection, unsigned operations,
			       struct cdc_selector **ret, struct cdc_err *err)
{
	struct cdc_selector *s = calloc(1, sizeof(*s));

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	s->selection = selection;
	s->operations = operations;
	*ret = s;
	return CDC_OK;
}

static void free_table(struct table *t)
{
	if (!t)
		return;
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
	free(s);
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

static struct table *new_table(const struct cdc_selector *s, uint64_t hash, const char *name,
			       size_t len)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->name = malloc(len + 1);
	if (!t->name) {
		free(t);
		return NULL;
	}
	memcpy(t->name, name, len);
	t->name[len] = '\0';
	t->len = len;
	t->hash = hash;
	t->entry = cdc_selection_find(s->selection, name, len);
	return t;
}

/* The table of a record; NULL: no memory. */
static struct table *table_of(struct cdc_selector *s, struct cdc_view record)
{
	const uint64_t hash = record.batch->tables[record.rec->table].hash;
	struct table **place;
	const char *name;
	size_t len;

	if ((s->table_n + 1) * 2 > s->cap && !grow(s))
		return NULL;
	name = cdc_view_table(record, &len);
	place = place_of(s->tables, s->cap, hash, name, len);
	if (!*place) {
		*place = new_table(s, hash, name, len);
		s->table_n += *place != NULL;
	}
	return *place;
}

/* --- deciding ----------------------------------------------------------------------- */

enum cdc_code cdc_select(struct cdc_selector *s, struct cdc_view record, struct cdc_batch **mapped,
			 struct cdc_selected *ret, struct cdc_err *err)
{
	const struct table *t;

	(void)mapped;
	*ret = (struct cdc_selected){0};
	if (!(s->operations >> record.rec->op & 1))
		return CDC_OK;
	if (record.rec->op == CDC_OP_MESSAGE) { /* of no table */
		ret->is_selected = true;
		return CDC_OK;
	}
	t = table_of(s, record);
	if (!t)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a table's selection");
	ret->is_selected = t->entry != NULL;
	return CDC_OK;
}
