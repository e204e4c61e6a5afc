/* Syncs whose endpoint asked for no more: a note each. */
#include <stdio.h>

#include "cdc/store/request.h"

#define NAME_MAX_BYTES (CDC_NAME_MAX + 16)

static void name_of(const char *sync, char ret_name[NAME_MAX_BYTES])
{
	(void)snprintf(ret_name, NAME_MAX_BYTES, "disabled %s", sync);
}

enum cdc_code cdc_store_disable(struct cdc_store *s, const char *sync, const char *reason,
				struct cdc_err *err)
{
	char name[NAME_MAX_BYTES];

	name_of(sync, name);
	return cdc_store_note_put(s, name, reason, err);
}

enum cdc_code cdc_store_disabled_get(struct cdc_store *s, const char *sync, char *ret_reason,
				     size_t size, struct cdc_err *err)
{
	char name[NAME_MAX_BYTES];

	name_of(sync, name);
	return cdc_store_note_get(s, name, ret_reason, size, err);
}

static enum cdc_code enable(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const char *name = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(name)};

	return cdc_database_run(db, "DELETE FROM note WHERE name = $1", key, 1, err);
}

enum cdc_code cdc_store_enable(struct cdc_store *s, const char *sync, struct cdc_err *err)
{
	char name[NAME_MAX_BYTES];

	name_of(sync, name);
	return cdc_store_ask_write(s, enable, name, err);
}
