/* The small key-value space. */
#include <stdlib.h>
#include <string.h>

#include "cdc/store/parts.h"
#include "cdc/store/request.h"

struct note_call {
	const char *name, *value; /* value NULL: get */
	char *found;
};

static enum cdc_code take_note(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct note_call *call = arg;

	CDC_ASSERT(n == 1);
	call->found = strdup(c[0].type == CDC_SQL_TEXT ? c[0].text : "");
	return call->found ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory");
}

static enum cdc_code get(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct note_call *call = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(call->name)};

	return cdc_database_query(db, "SELECT value FROM note WHERE name = $1", key, 1, take_note,
				  arg, err);
}

enum cdc_code cdc_note_write(struct cdc_database *db, const char *name, const char *value,
			     struct cdc_err *err)
{
	const struct cdc_sql_value values[] = {cdc_sql_text(name), cdc_sql_text(value)};

	return cdc_database_run(db,
				"INSERT INTO note (name, value) VALUES ($1, $2)"
				" ON CONFLICT (name) DO UPDATE SET value = excluded.value",
				values, 2, err);
}

static enum cdc_code put(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct note_call *call = arg;

	return cdc_note_write(db, call->name, call->value, err);
}

enum cdc_code cdc_store_note_put(struct cdc_store *s, const char *key, const char *value,
				 struct cdc_err *err)
{
	struct note_call call = {.name = key, .value = value};

	return cdc_store_ask_write(s, put, &call, err);
}

enum cdc_code cdc_store_note_get(struct cdc_store *s, const char *key, char *ret_value, size_t size,
				 struct cdc_err *err)
{
	struct note_call call = {.name = key};
	enum cdc_code rc = cdc_store_ask_read(s, get, &call, err);

	if (!rc && !call.found)
		rc = cdc_err_set(err, CDC_MISSING, "note %s is not there", key);
	if (!rc && strlen(call.found) >= size)
		rc = cdc_err_set(err, CDC_LIMIT, "note %s is longer than %zu bytes", key, size - 1);
	if (!rc)
		memcpy(ret_value, call.found, strlen(call.found) + 1);
	free(call.found);
	return rc;
}
