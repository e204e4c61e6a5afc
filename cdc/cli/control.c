#include "cdc/cli/control.h"

#include <stdio.h>
#include <string.h>

static const struct cdc_control_sync *find(const struct cdc_control *c, const char *name)
{
	for (size_t i = 0; i < c->sync_n; i++) {
		if (strcmp(c->syncs[i].sync->name, name) == 0)
			return &c->syncs[i];
	}
	return NULL;
}

static void put_in_force(const struct cdc_control_sync *s, const struct cdc_desired *d)
{
	if (s->deliver)
		cdc_deliver_pause(s->deliver, d->is_paused);
	if (s->backfill)
		cdc_backfill_pause(s->backfill, d->is_backfill_paused);
}

enum cdc_code cdc_control_start(struct cdc_control *c, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < c->sync_n && !rc; i++) {
		struct cdc_desired d;

		rc = cdc_store_desired_get(c->store, c->syncs[i].sync->name, &d, err);
		if (!rc)
			put_in_force(&c->syncs[i], &d);
	}
	if (!rc)
		cdc_control_turn(c);
	return rc;
}

/* The state that a verb leaves, and what to say about it. */
static const char *change(struct cdc_desired *d, enum cdc_verb verb)
{
	switch (verb) {
	case CDC_VERB_PAUSE:
		d->is_paused = true;
		return "the sync is paused: its records stay in the buffer until it is resumed";
	case CDC_VERB_RESUME:
		d->is_paused = false;
		return "the sync goes on";
	case CDC_VERB_BACKFILL_PAUSE:
		d->is_backfill_paused = true;
		return "the backfill is paused; tables whose copy was under way begin anew when it "
		       "is resumed";
	case CDC_VERB_BACKFILL_RESUME:
		d->is_backfill_paused = false;
		return "the backfill goes on";
	case CDC_VERB_RESYNC:
	case CDC_VERB_REPAIR:
	case CDC_VERB_ACCEPT_GAP:
	case CDC_VERB_REPLAY:
		break;
	}
	return NULL;
}

static enum cdc_code refuse(struct cdc_control *c, const struct cdc_command *command,
			    const char *answer, struct cdc_err *err)
{
	return cdc_store_command_end(c->store, command->id, CDC_COMMAND_REFUSED, answer, err);
}

/* NULL: the thread of the sync says it. */
static const char *resumed_text(enum cdc_resumed resumed, const char *else_text)
{
	switch (resumed) {
	case CDC_RESUMED_NOTHING:
		break;
	case CDC_RESUMED_TABLES:
		return NULL;
	case CDC_RESUMED_SYNC:
		return "the sync had stopped; it begins again where it was";
	}
	return else_text;
}

/* A sync whose endpoint had asked for no more, or that stopped with an error. */
static enum cdc_code resume(struct cdc_control *c, const struct cdc_control_sync *s,
			    int64_t command, const char **answer, struct cdc_err *err)
{
	const char *sync = s->sync->name;
	char reason[sizeof(err->msg)];
	enum cdc_code rc = cdc_store_disabled_get(c->store, sync, reason, sizeof(reason), err);
	struct cdc_board_view view;

	if (!rc) {
		*answer = "the sync is no longer disabled, and goes on where it stopped";
		rc = cdc_store_enable(c->store, sync, err);
	} else if (rc == CDC_MISSING) {
		rc = CDC_OK;
	}
	if (rc)
		return rc;
	cdc_board_read(s->board, &view);
	if (!s->deliver)
		*answer = "the sync could not be made when walpost started, so it does not go on; "
			  "mend what its error in the log names, and start walpost again";
	else if (view.state == CDC_STATE_SUSPENDED)
		*answer = "the sync is not paused, but it has lost its place in the buffer, so it "
			  "does not go on; see its error in the log";
	else
		*answer = resumed_text(cdc_deliver_resume(s->deliver, command), *answer);
	return CDC_OK;
}

static enum cdc_code change_desired(struct cdc_control *c, const struct cdc_control_sync *s,
				    const struct cdc_command *command, struct cdc_err *err)
{
	struct cdc_desired d;
	const char *answer;
	enum cdc_code rc = cdc_store_desired_get(c->store, command->sync, &d, err);

	if (rc)
		return rc;
	answer = change(&d, command->verb);
	rc = cdc_store_desired_put(c->store, command->sync, &d, err);
	if (rc)
		return rc;
	put_in_force(s, &d);
	if (command->verb == CDC_VERB_RESUME)
		rc = resume(c, s, command->id, &answer, err);
	if (rc || !answer)
		return rc;
	return cdc_store_command_end(c->store, command->id, CDC_COMMAND_DONE, answer, err);
}

static enum cdc_code ask_for_resync(struct cdc_control *c, const struct cdc_control_sync *s,
				    const struct cdc_command *command, struct cdc_err *err)
{
	const struct cdc_deliver_settings *settings = s->sync->delivery;

	if (!(settings->operations >> CDC_OP_READ & 1))
		return refuse(c, command,
			      "the sync's operations do not name read, so it gets no copied rows; "
			      "add it to operations and start walpost again",
			      err);
	if (!s->backfill)
		return refuse(c, command, "the sync does not run; see its error in the log", err);
	return cdc_backfill_ask(s->backfill, command, err);
}

/* Only of a gap that was met, or of what the first attempt of a walpost that starts will meet: a
 * word is not kept for a gap to come. */
static enum cdc_code accept_gap(struct cdc_control *c, const struct cdc_control_sync *s,
				const struct cdc_command *command, struct cdc_err *err)
{
	struct cdc_board_view view;

	cdc_board_read(s->source_board, &view);
	if (view.state != CDC_STATE_STARTING && view.state != CDC_STATE_FAILED)
		return refuse(c, command, "no gap was met; there is no gap to accept", err);
	if (!s->capture || (view.state == CDC_STATE_FAILED && view.err.code != CDC_GAP))
		return refuse(c, command,
			      "the source is not read for another reason; see its error in the log",
			      err);
	if (!cdc_capture_accept_gap(s->capture, command->id))
		return refuse(c, command, "the gap was accepted already, and is being dealt with",
			      err);
	return CDC_OK;
}

/* The thread of the sync ends the command. */
static enum cdc_code ask_for_replay(struct cdc_control *c, const struct cdc_control_sync *s,
				    const struct cdc_command *command, struct cdc_err *err)
{
	struct cdc_board_view view;

	cdc_board_read(s->board, &view);
	if (!s->deliver || view.state == CDC_STATE_FAILED || view.state == CDC_STATE_SUSPENDED)
		return refuse(c, command, "the sync does not run; see its error in the log", err);
	if (!cdc_deliver_replay(s->deliver, command))
		return refuse(c, command,
			      "the sync has not begun the replay before this one yet; ask again "
			      "when it has",
			      err);
	return CDC_OK;
}

static enum cdc_code carry_out(struct cdc_control *c, const struct cdc_command *command,
			       struct cdc_err *err)
{
	const struct cdc_control_sync *s = find(c, command->sync);

	if (!s)
		return refuse(c, command, "the configuration has no sync of this name", err);
	if (command->verb == CDC_VERB_ACCEPT_GAP)
		return accept_gap(c, s, command, err);
	if (command->verb == CDC_VERB_REPLAY)
		return ask_for_replay(c, s, command, err);
	if (command->verb == CDC_VERB_RESYNC || command->verb == CDC_VERB_REPAIR)
		return ask_for_resync(c, s, command, err);
	return change_desired(c, s, command, err);
}

void cdc_control_turn(struct cdc_control *c)
{
	struct cdc_command command;
	int64_t at = c->after;
	bool is_stuck = false;
	const bool had_more = c->has_more;
	struct cdc_err err;
	enum cdc_code rc = CDC_OK;

	if (!cdc_store_take_touched(c->store) && !had_more)
		return;
	memset(&err, 0, sizeof(err));
	while (!rc) {
		bool is_resync;

		rc = cdc_store_command_next(c->store, at, &command, &err);
		if (rc)
			break;
		is_resync = command.verb == CDC_VERB_RESYNC || command.verb == CDC_VERB_REPAIR;
		if (command.id > c->seen || is_resync)
			rc = carry_out(c, &command, &err);
		/* The list of one sync is full: the others', and a resume of this one, go on. */
		if (rc == CDC_BUSY && is_resync) {
			is_stuck = true;
			rc = CDC_OK;
		}
		if (rc)
			break;
		at = command.id;
		if (!is_stuck)
			c->after = at;
		if (command.id <= c->seen)
			continue;
		c->seen = command.id;
		LOG_INFO(&c->log, "command", KV("sync", (const char *)command.sync),
			 KV("verb", cdc_verb_name(command.verb)),
			 KV("argument", (const char *)command.argument));
	}
	c->has_more = rc != CDC_MISSING || is_stuck;
	if (rc != CDC_MISSING && !had_more && rc != CDC_BUSY)
		LOG_WARN(&c->log, "command_waits", KV_ERR(&err));
}
