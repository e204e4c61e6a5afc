/* A sync that goes back. */
#include <stdio.h>
#include <string.h>

#include "cdc/store/checkpoint.h"
#include "cdc/store/cursor.h"
#include "cdc/store/parts.h"
#include "cdc/store/request.h"

#define NAME_MAX_BYTES (CDC_NAME_MAX + 16)

static void name_of(const char *sync, char ret_name[NAME_MAX_BYTES])
{
	(void)snprintf(ret_name, NAME_MAX_BYTES, "replay %s", sync);
}

struct going_back {
	const struct cdc_cursor *cursor;
	const struct cdc_id *reached;
	int64_t command;
	const char *answer;
};

static enum cdc_code go_back(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct going_back *g = arg;
	struct cdc_checkpoint one = {.cursor = *g->cursor};
	char name[NAME_MAX_BYTES], reached[CDC_ID_TEXT];
	enum cdc_code rc = cdc_cursors_write(db, &one, err);

	name_of(g->cursor->sync, name);
	(void)cdc_id_format(g->reached, reached);
	if (!rc)
		rc = cdc_note_write(db, name, reached, err);
	return rc ? rc : cdc_command_finish(db, g->command, CDC_COMMAND_DONE, g->answer, err);
}

enum cdc_code cdc_store_replay(struct cdc_store *s, const struct cdc_cursor *c,
			       const struct cdc_id *reached, int64_t command, const char *answer,
			       struct cdc_err *err)
{
	struct going_back g = {
		.cursor = c, .reached = reached, .command = command, .answer = answer};
	struct cdc_store_request r = {
		.body = go_back, .arg = &g, .is_write = true, .forgets = c->sync};

	return cdc_store_ask(s, &r, err);
}

enum cdc_code cdc_store_replay_get(struct cdc_store *s, const char *sync, struct cdc_id *ret,
				   struct cdc_err *err)
{
	char name[NAME_MAX_BYTES], text[CDC_ID_TEXT];
	enum cdc_code rc;

	name_of(sync, name);
	*ret = (struct cdc_id){0};
	rc = cdc_store_note_get(s, name, text, sizeof(text), err);
	if (rc)
		return rc == CDC_MISSING ? CDC_OK : rc;
	if (cdc_id_parse(text, strlen(text), ret))
		return CDC_OK;
	return cdc_err_set(err, CDC_CORRUPT, "note %s is no id of a record: %s", name, text);
}
