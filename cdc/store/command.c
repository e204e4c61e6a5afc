/* What a person wants: commands, and the state that they leave. */
#include <stdio.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/store/parts.h"
#include "cdc/store/request.h"
#include "cdc/store/row.h"

#define WAITING_MAX 1000
#define KEEP_US     (INT64_C(7) * 86400 * 1000000)

static const char *const verbs[] = {
	[CDC_VERB_PAUSE] = "pause",
	[CDC_VERB_RESUME] = "resume",
	[CDC_VERB_BACKFILL_PAUSE] = "backfill pause",
	[CDC_VERB_BACKFILL_RESUME] = "backfill resume",
	[CDC_VERB_RESYNC] = "resync",
	[CDC_VERB_REPAIR] = "repair",
	[CDC_VERB_ACCEPT_GAP] = "resync --gap",
	[CDC_VERB_REPLAY] = "replay",
};
#define VERB_N (sizeof(verbs) / sizeof(verbs[0]))

const char *cdc_verb_name(enum cdc_verb verb)
{
	return verbs[verb];
}

static bool parse_verb(const struct cdc_sql_value *v, enum cdc_verb *ret)
{
	for (size_t i = 0; v->type == CDC_SQL_TEXT && i < VERB_N; i++) {
		if (strcmp(v->text, verbs[i]) != 0)
			continue;
		*ret = (enum cdc_verb)i;
		return true;
	}
	return false;
}

/* --- desired ------------------------------------------------------------------------ */

struct desired_call {
	const char *sync;
	const struct cdc_database *db;
	struct cdc_desired d;
};

static enum cdc_code take_desired(void *arg, const struct cdc_sql_value *c, size_t n,
				  struct cdc_err *err)
{
	struct desired_call *call = arg;
	int64_t is_paused, is_backfill_paused;

	CDC_ASSERT(n == 2);
	if (!cdc_row_int(&c[0], 0, 1, &is_paused) || !cdc_row_int(&c[1], 0, 1, &is_backfill_paused))
		return cdc_database_damaged(call->db, "desired state", err);
	call->d.is_paused = is_paused != 0;
	call->d.is_backfill_paused = is_backfill_paused != 0;
	return CDC_OK;
}

static enum cdc_code get_desired(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct desired_call *call = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(call->sync)};

	call->db = db;
	return cdc_database_query(
		db, "SELECT is_paused, backfill_is_paused FROM desired WHERE sync = $1", key, 1,
		take_desired, call, err);
}

enum cdc_code cdc_store_desired_get(struct cdc_store *s, const char *sync, struct cdc_desired *ret,
				    struct cdc_err *err)
{
	struct desired_call call = {.sync = sync};
	enum cdc_code rc = cdc_store_ask_read(s, get_desired, &call, err);

	if (!rc)
		*ret = call.d;
	return rc;
}

static enum cdc_code put_desired(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct desired_call *call = arg;
	const struct cdc_sql_value values[] = {cdc_sql_text(call->sync),
					       cdc_sql_int(call->d.is_paused),
					       cdc_sql_int(call->d.is_backfill_paused)};

	return cdc_database_run(db,
				"INSERT INTO desired (sync, is_paused, backfill_is_paused)"
				" VALUES ($1, $2, $3) ON CONFLICT (sync) DO UPDATE SET"
				" is_paused = excluded.is_paused,"
				" backfill_is_paused = excluded.backfill_is_paused",
				values, 3, err);
}

enum cdc_code cdc_store_desired_put(struct cdc_store *s, const char *sync,
				    const struct cdc_desired *d, struct cdc_err *err)
{
	struct desired_call call = {.sync = sync, .d = *d};

	return cdc_store_ask_write(s, put_desired, &call, err);
}

/* --- commands ----------------------------------------------------------------------- */

struct adding {
	struct cdc_command *commands;
	size_t n;
};

static enum cdc_code take_int(void *arg, const struct cdc_sql_value *c, size_t n,
			      struct cdc_err *err)
{
	(void)err;
	CDC_ASSERT(n == 1);
	*(int64_t *)arg = c[0].i;
	return CDC_OK;
}

enum cdc_code cdc_command_write(struct cdc_database *db, struct cdc_command *c, int64_t now_us,
				struct cdc_err *err)
{
	const struct cdc_sql_value values[] = {
		cdc_sql_text(c->sync), cdc_sql_text(cdc_verb_name(c->verb)),
		cdc_sql_text(c->argument), cdc_sql_int(CDC_COMMAND_WAITING), cdc_sql_int(now_us)};

	c->asked_us = now_us;
	return cdc_database_query(
		db,
		"INSERT INTO command (sync, verb, argument, state, answer, asked_us, ended_us)"
		" VALUES ($1, $2, $3, $4, '', $5, 0) RETURNING id",
		values, 5, take_int, &c->id, err);
}

static enum cdc_code add(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct adding *a = arg;
	int64_t now_us = cdc_clock_wall_us(), waiting = 0;
	const struct cdc_sql_value old[] = {cdc_sql_int(CDC_COMMAND_WAITING),
					    cdc_sql_int(now_us - KEEP_US)};
	enum cdc_code rc;

	rc = cdc_database_run(db, "DELETE FROM command WHERE state <> $1 AND ended_us < $2", old, 2,
			      err);
	if (!rc)
		rc = cdc_database_query(db, "SELECT count(*) FROM command WHERE state = $1", old, 1,
					take_int, &waiting, err);
	if (!rc && waiting + (int64_t)a->n > WAITING_MAX) {
		(void)cdc_err_set(err, CDC_LIMIT, "%lld commands are waiting already",
				  (long long)waiting);
		rc = cdc_err_remedy(err, "start `walpost run`, which carries them out");
	}
	for (size_t i = 0; i < a->n && !rc; i++)
		rc = cdc_command_write(db, &a->commands[i], now_us, err);
	return rc;
}

enum cdc_code cdc_store_command_add(struct cdc_store *s, struct cdc_command *commands, size_t n,
				    struct cdc_err *err)
{
	struct adding a = {.commands = commands, .n = n};
	enum cdc_code rc = cdc_store_ask_write(s, add, &a, err);

	if (!rc)
		cdc_store_touch(s);
	return rc;
}

struct finding {
	const struct cdc_database *db;
	int64_t id;
	bool is_found;
	struct cdc_command found;
};

static enum cdc_code take_command(void *arg, const struct cdc_sql_value *c, size_t n,
				  struct cdc_err *err)
{
	struct finding *f = arg;
	struct cdc_command *r = &f->found;
	int64_t state;

	CDC_ASSERT(n == 8);
	if (!cdc_row_int(&c[0], 1, INT64_MAX, &r->id) ||
	    !cdc_row_text(&c[1], r->sync, sizeof(r->sync)) || !parse_verb(&c[2], &r->verb) ||
	    !cdc_row_text(&c[3], r->argument, sizeof(r->argument)) ||
	    !cdc_row_int(&c[4], CDC_COMMAND_WAITING, CDC_COMMAND_REFUSED, &state) ||
	    !cdc_row_text(&c[5], r->answer, sizeof(r->answer)) ||
	    !cdc_row_int(&c[6], INT64_MIN, INT64_MAX, &r->asked_us) ||
	    !cdc_row_int(&c[7], INT64_MIN, INT64_MAX, &r->ended_us))
		return cdc_database_damaged(f->db, "command", err);
	r->state = (enum cdc_command_state)state;
	f->is_found = true;
	return CDC_OK;
}

#define COLUMNS "id, sync, verb, argument, state, answer, asked_us, ended_us"

static enum cdc_code get_command(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct finding *f = arg;
	const struct cdc_sql_value key[] = {cdc_sql_int(f->id)};

	f->db = db;
	return cdc_database_query(db, "SELECT " COLUMNS " FROM command WHERE id = $1", key, 1,
				  take_command, f, err);
}

static enum cdc_code next_command(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct finding *f = arg;
	const struct cdc_sql_value key[] = {cdc_sql_int(f->id), cdc_sql_int(CDC_COMMAND_WAITING)};

	f->db = db;
	return cdc_database_query(db,
				  "SELECT " COLUMNS " FROM command WHERE id > $1 AND state = $2"
				  " ORDER BY id LIMIT 1",
				  key, 2, take_command, f, err);
}

static enum cdc_code find(struct cdc_store *s, cdc_database_fn *body, int64_t id,
			  struct cdc_command *ret, struct cdc_err *err)
{
	struct finding f = {.id = id};
	enum cdc_code rc = cdc_store_ask_read(s, body, &f, err);

	if (!rc && !f.is_found)
		rc = cdc_err_set(err, CDC_MISSING, "there is no such command");
	if (!rc)
		*ret = f.found;
	return rc;
}

enum cdc_code cdc_store_command_get(struct cdc_store *s, int64_t id, struct cdc_command *ret,
				    struct cdc_err *err)
{
	return find(s, get_command, id, ret, err);
}

enum cdc_code cdc_store_command_next(struct cdc_store *s, int64_t after, struct cdc_command *ret,
				     struct cdc_err *err)
{
	return find(s, next_command, after, ret, err);
}

struct ending {
	int64_t id;
	enum cdc_command_state state;
	const char *answer;
};

enum cdc_code cdc_command_finish(struct cdc_database *db, int64_t id, enum cdc_command_state state,
				 const char *answer, struct cdc_err *err)
{
	char text[sizeof(((struct cdc_command *)0)->answer)];
	const struct cdc_sql_value values[] = {cdc_sql_int(id), cdc_sql_int(state),
					       cdc_sql_text(text), cdc_sql_int(cdc_clock_wall_us()),
					       cdc_sql_int(CDC_COMMAND_WAITING)};

	(void)snprintf(text, sizeof(text), "%s", answer);
	return cdc_database_run(db,
				"UPDATE command SET state = $2, answer = $3, ended_us = $4"
				" WHERE id = $1 AND state = $5",
				values, 5, err);
}

static enum cdc_code end(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct ending *e = arg;

	return cdc_command_finish(db, e->id, e->state, e->answer, err);
}

enum cdc_code cdc_store_command_end(struct cdc_store *s, int64_t id, enum cdc_command_state state,
				    const char *answer, struct cdc_err *err)
{
	struct ending e = {.id = id, .state = state, .answer = answer};

	return cdc_store_ask_write(s, end, &e, err);
}
