#include "cdc/pipeline/absent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"

#define NOTE_MAX (CDC_ABSENT_MAX * (sizeof(((struct cdc_absent_table *)0)->name) + 2) + 1)

static void put_key(const struct cdc_absent *a, char ret_key[96])
{
	(void)snprintf(ret_key, 96, "taken out %s", a->setup.slot);
}

static struct cdc_absent_table *find(struct cdc_absent *a, const char *name)
{
	for (size_t i = 0; i < a->n; i++) {
		if (strcmp(a->tables[i].name, name) == 0)
			return &a->tables[i];
	}
	return NULL;
}

/* A line per table: '+' or '?' (it is told, or not yet) and its name. */
static enum cdc_code save(const struct cdc_absent *a, struct cdc_err *err)
{
	char key[96], text[NOTE_MAX] = "";
	size_t len = 0;

	for (size_t i = 0; i < a->n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%c%s\n",
					a->tables[i].is_told ? '+' : '?', a->tables[i].name);
	put_key(a, key);
	return cdc_store_note_put(a->setup.store, key, text, err);
}

static void parse(struct cdc_absent *a, const char *text)
{
	const char *end;

	for (a->n = 0; a->n < CDC_ABSENT_MAX && (end = strchr(text, '\n')) != NULL;
	     text = end + 1) {
		struct cdc_absent_table *t = &a->tables[a->n];

		if (end - text < 2 || (size_t)(end - text) > sizeof(t->name))
			continue;
		t->is_told = *text == '+';
		(void)snprintf(t->name, sizeof(t->name), "%.*s", (int)(end - text - 1), text + 1);
		a->n++;
	}
}

static enum cdc_code tell(const struct cdc_absent *a, const char *table, const struct cdc_id *at,
			  unsigned generation, struct cdc_err *err)
{
	struct cdc_gap_row gap = {.first = *at, .last = *at, .at_us = cdc_clock_wall_us()};
	const char **syncs = calloc(a->setup.sync_n + 1, sizeof(*syncs));
	enum cdc_code rc;
	size_t n = 0;

	if (!syncs)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the names of syncs");
	for (size_t i = 0; i < a->setup.sync_n; i++) {
		if (cdc_selection_has(a->setup.selections[i], table))
			syncs[n++] = a->setup.syncs[i];
	}
	gap.last.row++;
	/* Several may be taken out at one place. */
	for (size_t i = 0; i < a->n; i++)
		gap.last.row += strcmp(a->tables[i].name, table) < 0;
	(void)snprintf(gap.reason, sizeof(gap.reason),
		       "%.120s was taken out of the publication: it had lost its replica identity",
		       table);
	rc = cdc_store_table_gap(a->setup.store, &gap, table, generation, syncs, n, err);
	free(syncs);
	return rc;
}

enum cdc_code cdc_absent_load(struct cdc_absent *a, const struct cdc_id *at, unsigned generation,
			      struct cdc_err *err)
{
	char key[96], text[NOTE_MAX] = "";
	enum cdc_code rc = CDC_OK;
	bool is_changed = false;

	if (!a->is_loaded) {
		put_key(a, key);
		rc = cdc_store_note_get(a->setup.store, key, text, sizeof(text), err);
		if (rc && rc != CDC_MISSING)
			return rc;
		parse(a, text);
		a->is_loaded = true;
		rc = CDC_OK;
	}
	for (size_t i = 0; i < a->n && !rc; i++) {
		if (a->tables[i].is_told)
			continue;
		rc = tell(a, a->tables[i].name, at, generation, err);
		a->tables[i].is_told = is_changed = rc == CDC_OK;
	}
	return !rc && is_changed ? save(a, err) : rc;
}

enum cdc_code cdc_absent_note(struct cdc_absent *a, const char *table, struct cdc_err *err)
{
	struct cdc_absent_table *t = find(a, table);

	if (!t && a->n == CDC_ABSENT_MAX)
		return CDC_OK;
	if (!t) {
		t = &a->tables[a->n++];
		(void)snprintf(t->name, sizeof(t->name), "%s", table);
	}
	t->is_told = false;
	return save(a, err);
}

enum cdc_code cdc_absent_tell(struct cdc_absent *a, const char *table, const struct cdc_id *at,
			      unsigned generation, struct cdc_err *err)
{
	struct cdc_absent_table *t = find(a, table);
	enum cdc_code rc = tell(a, table, at, generation, err);

	if (rc || !t)
		return rc;
	t->is_told = true;
	return save(a, err);
}

enum cdc_code cdc_absent_keep(struct cdc_absent *a, const char *const *still_out, size_t n,
			      struct cdc_err *err)
{
	const size_t before = a->n;

	a->n = 0;
	for (size_t i = 0; i < before; i++) {
		bool is_out = false;

		for (size_t k = 0; k < n && !is_out; k++)
			is_out = strcmp(still_out[k], a->tables[i].name) == 0;
		if (is_out)
			a->tables[a->n++] = a->tables[i];
	}
	return a->n == before ? CDC_OK : save(a, err);
}

size_t cdc_absent_count(const struct cdc_absent *a)
{
	size_t n = 0;

	for (size_t i = 0; i < a->n; i++)
		n += a->tables[i].is_told;
	return n;
}
