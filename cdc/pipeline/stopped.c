#include "cdc/pipeline/stopped.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_MS 20 /* looks whether the stream has passed the place where a table joined it */

struct entry {
	struct cdc_cursor_table row;
	const char *table; /* the row's; what the reader reads */
	struct cdc_intake intake;
	bool is_read, has_joined;
	bool is_copied; /* by a round, and waits for what comes of it */
	bool has_left;  /* it is nobody's any more but for its records in the window */
	struct cdc_id joined;
};

struct cdc_stopped {
	struct cdc_stopped_setup setup;
	struct entry **entries;
	size_t n, cap;
	struct cdc_cursor_table *tables; /* of the last checkpoint */
	size_t table_cap;
	unsigned version;
};

/* --- life --------------------------------------------------------------------------- */

static struct entry *add_entry(struct cdc_stopped *s)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (e && s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 8;
		struct entry **grown = reallocarray(s->entries, cap, sizeof(struct entry *));

		if (!grown) {
			free(e);
			return NULL;
		}
		s->entries = grown;
		s->cap = cap;
	}
	if (!e)
		return NULL;
	e->table = e->row.table;
	s->entries[s->n++] = e;
	return e;
}

static void remove_entry(struct cdc_stopped *s, size_t at)
{
	free(s->entries[at]);
	memmove(&s->entries[at], &s->entries[at + 1], (--s->n - at) * sizeof(struct entry *));
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for a table");
}

enum cdc_code cdc_stopped_new(const struct cdc_stopped_setup *setup,
			      const struct cdc_cursor *cursor, struct cdc_stopped **ret,
			      struct cdc_err *err)
{
	struct cdc_stopped *s = calloc(1, sizeof(*s));
	enum cdc_code rc = s ? CDC_OK : no_memory(err);

	if (s)
		s->setup = *setup;
	for (size_t i = 0; !rc && i < cursor->table_n; i++) {
		const struct cdc_cursor_table *row = &cursor->tables[i];
		struct entry *e;

		if (!cdc_table_is_stopped(row->state))
			continue;
		e = add_entry(s);
		if (!e) {
			rc = no_memory(err);
			break;
		}
		e->row = *row;
		rc = cdc_window_hold(setup->window, e->table, &row->id, err);
	}
	if (rc) {
		cdc_stopped_free(s);
		return rc;
	}
	*ret = s;
	return CDC_OK;
}

void cdc_stopped_free(struct cdc_stopped *s)
{
	if (!s)
		return;
	while (s->n) {
		cdc_intake_clear(&s->entries[s->n - 1]->intake, true);
		remove_entry(s, s->n - 1);
	}
	free(s->entries);
	free(s->tables);
	free(s);
}

void cdc_stopped_close(struct cdc_stopped *s)
{
	for (size_t i = 0; i < s->n; i++)
		cdc_intake_close(&s->entries[i]->intake);
}

/* --- stopping and going on ---------------------------------------------------------- */

static struct entry *find(struct cdc_stopped *s, const char *table, size_t len)
{
	for (size_t i = 0; i < s->n; i++) {
		struct entry *e = s->entries[i];

		if (!e->has_left && strlen(e->table) == len && memcmp(e->table, table, len) == 0)
			return e;
	}
	return NULL;
}

bool cdc_stopped_can(size_t table_len)
{
	return table_len < sizeof(((struct cdc_cursor_table *)0)->table);
}

/* One that was on its way back stands still; its reader goes when its records are given back. */
static void leave(struct entry *e)
{
	e->has_left = true;
}

enum cdc_code cdc_stopped_add(struct cdc_stopped *s, struct cdc_item *item, struct cdc_err *err)
{
	struct cdc_view view = cdc_item_view(item);
	size_t len;
	const char *table = cdc_view_table(view, &len);
	struct entry *before = find(s, table, len), *e = add_entry(s);

	if (!e)
		return no_memory(err);
	(void)snprintf(e->row.table, sizeof(e->row.table), "%.*s", (int)len, table);
	e->row.state = CDC_TABLE_STOPPED;
	s->version++;
	cdc_window_stop(s->setup.window, item, &e->row.id);
	if (!before)
		return CDC_OK;
	leave(before);
	/* What it lacks begins there: the stream brings its schema record also while it stands
	 * still. */
	if (cdc_id_cmp(&before->row.id, &e->row.id) >= 0)
		return CDC_OK;
	e->row.id = before->row.id;
	return cdc_window_hold(s->setup.window, e->table, &e->row.id, err);
}

size_t cdc_stopped_resume(struct cdc_stopped *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		if (s->entries[i]->has_left || s->entries[i]->row.state != CDC_TABLE_STOPPED)
			continue;
		s->entries[i]->row.state = CDC_TABLE_RESUMED;
		s->version++;
		n++;
	}
	return n;
}

bool cdc_stopped_take(struct cdc_stopped *s, const char *table)
{
	struct entry *e = find(s, table, strlen(table));

	if (!e)
		return false;
	if (e->has_joined) {
		leave(e);
		s->version++;
		return false;
	}
	e->is_copied = true;
	LOG_INFO(s->setup.log, "stopped_table_is_copied", KV("sync", s->setup.intake.group),
		 KV("schema", table));
	return true;
}

void cdc_stopped_leave(struct cdc_stopped *s, const char *table)
{
	struct entry *e = find(s, table, strlen(table));

	if (!e)
		return;
	leave(e);
	s->version++;
}

enum cdc_code cdc_stopped_put(struct cdc_stopped *s, const char *table, struct cdc_err *err)
{
	struct entry *e = find(s, table, strlen(table));
	enum cdc_code rc;

	if (!e)
		return CDC_OK;
	rc = cdc_window_hold(s->setup.window, table, &e->row.id, err);
	if (rc)
		return rc;
	e->is_copied = false;
	LOG_WARN(s->setup.log, "stopped_table_is_not_copied", KV("sync", s->setup.intake.group),
		 KV("schema", table), KV("note", "it stands where it stood"));
	return CDC_OK;
}

size_t cdc_stopped_count(const struct cdc_stopped *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		n += !s->entries[i]->has_left && !s->entries[i]->is_copied &&
		     s->entries[i]->row.state == CDC_TABLE_STOPPED;
	return n;
}

unsigned cdc_stopped_version(const struct cdc_stopped *s)
{
	return s->version;
}

bool cdc_stopped_is_empty(const struct cdc_stopped *s)
{
	return s->n == 0;
}

/* --- turns -------------------------------------------------------------------------- */

static enum cdc_code begin(struct cdc_stopped *s, struct entry *e, struct cdc_err *err)
{
	struct cdc_intake_setup setup = s->setup.intake;
	struct cdc_stream_position own = cdc_window_position(s->setup.stream);
	enum cdc_code rc;

	own.id = e->row.id;
	setup.tables = &e->table;
	setup.table_n = 1;
	rc = cdc_intake_init(&e->intake, &setup, s->setup.window, CDC_INPUT_HELD, own, err);
	e->is_read = rc == CDC_OK;
	return rc;
}

/* In the same turn in which its reader has come as far as the stream's: nothing lies between. */
static void try_join(struct cdc_stopped *s, struct entry *e)
{
	struct cdc_id own = cdc_window_through(e->intake.input).id;
	struct cdc_id stream = cdc_window_through(s->setup.stream).id;

	if (e->intake.has_read || cdc_id_cmp(&own, &stream) < 0)
		return;
	cdc_window_join(s->setup.window, e->table, &own);
	e->joined = own;
	e->has_joined = true;
}

static enum cdc_code read_on(struct cdc_stopped *s, struct entry *e, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;
	struct cdc_id at;

	if (!e->is_read)
		rc = begin(s, e, err);
	if (!rc && !e->intake.reader)
		rc = cdc_intake_open(&e->intake, err);
	if (!rc && !e->has_joined)
		rc = cdc_intake_read(&e->intake, err);
	if (rc)
		return rc;
	if (!e->has_joined)
		try_join(s, e);
	at = cdc_window_position(e->intake.input).id;
	s->version += cdc_id_cmp(&at, &e->row.id) != 0;
	e->row.id = at;
	return CDC_OK;
}

/* Is it done with?  All of its leases are back, and the stream's checkpoint stands for it. */
static bool is_over(const struct cdc_stopped *s, const struct entry *e)
{
	struct cdc_id stream = cdc_window_position(s->setup.stream).id;

	if (!e->is_read)
		return e->has_left;
	if (cdc_window_input_bytes(e->intake.input) != 0)
		return false;
	return e->has_left ||
	       (e->has_joined && !e->intake.has_read && cdc_id_cmp(&stream, &e->joined) >= 0);
}

enum cdc_code cdc_stopped_step(struct cdc_stopped *s, struct cdc_err *err)
{
	bool is_reading = false;

	for (size_t i = 0; i < s->n;) {
		struct entry *e = s->entries[i];
		enum cdc_code rc = CDC_OK;

		if (e->intake.reader)
			cdc_intake_give_back(&e->intake);
		if (!e->has_left && !e->is_copied && e->row.state == CDC_TABLE_RESUMED &&
		    !is_reading) {
			is_reading = true;
			rc = read_on(s, e, err);
		}
		if (rc)
			return rc;
		if (!is_over(s, e)) {
			i++;
			continue;
		}
		if (e->is_read)
			cdc_intake_clear(&e->intake, false);
		remove_entry(s, i);
		s->version++;
	}
	return CDC_OK;
}

uint64_t cdc_stopped_wait_ms(const struct cdc_stopped *s, uint64_t wait_ms)
{
	for (size_t i = 0; i < s->n; i++) {
		if (s->entries[i]->row.state == CDC_TABLE_RESUMED && !s->entries[i]->is_copied &&
		    wait_ms > JOIN_MS)
			wait_ms = JOIN_MS;
	}
	return wait_ms;
}

struct cdc_cursor_table *cdc_stopped_tables(struct cdc_stopped *s, struct cdc_cursor_table *round,
					    size_t n, size_t *ret_n)
{
	*ret_n = n;
	if (s->n == 0)
		return round;
	if (s->table_cap < n + s->n) {
		struct cdc_cursor_table *grown =
			reallocarray(s->tables, n + s->n, sizeof(*s->tables));

		if (!grown) {
			*ret_n += s->n;
			return NULL;
		}
		s->tables = grown;
		s->table_cap = n + s->n;
	}
	if (n)
		memcpy(s->tables, round, n * sizeof(*round));
	for (size_t i = 0; i < s->n; i++) {
		if (!s->entries[i]->has_left)
			s->tables[(*ret_n)++] = s->entries[i]->row;
	}
	return s->tables;
}
