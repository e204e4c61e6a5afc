#include "cdc/pipeline/capture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cdc/base/clock.h"
#include "cdc/pipeline/absent.h"
#include "cdc/pipeline/backoff.h"

#define BATCH_MAX_BYTES      (800u << 20) /* the largest single record: what a buffer takes */
#define BATCH_TARGET_BYTES   (256u << 10)
#define BATCH_TARGET_RECORDS 1000
#define STATUS_MS            3000 /* own clock: a third of the session's wal_sender_timeout of 10 s */
#define CONFIRM_MS           1000  /* a risen durable() is told at most this late, */
#define CONFIRM_IDLE_MS      50    /* and this soon when nothing is left to wait for */
#define HELD_MS              25000 /* a dead reader's walsender is gone in 10 s, another's in 60 */
#define HELD_WAIT_MS         1000
#define RENEW_MS             300000 /* connections that have grown are given up this often at most */
#define SILENT_MAX_MS        15000  /* the server speaks at least every 5 s, */
#define SILENT_TOP_MS        960000 /* but not while it prepares one message, however large */
#define STEADY_MS            30000  /* a session of this length is no failed attempt */
#define NAP_US               1000   /* lets the socket fill instead of waking for every row */
#define NAP_RECORDS          16     /* an open transaction of fewer rows is not worth a nap */
#define WORD_MS              250    /* a word about a gap is heard this late */
#define BEGIN_MS             20     /* looks whether a generation has begun */
#define OPEN_HOLD_MS         20     /* a piece of an open transaction waits this long for more */
#define LEFT_NOTE            "left" /* of tables, in the store */
#define LOOK_NOTE            "look" /* at the publication */

struct cdc_capture {
	struct cdc_capture_setup setup;
	struct cdc_source *source;
	struct cdc_batch *batch; /* being filled, or waiting for room in the buffer */
	struct cdc_slot_row row; /* what the store knows of the slot */
	bool has_row;
	bool is_blocked;        /* the buffer answered BUSY; batch and idle_lsn wait */
	uint64_t blocked_ms;    /* monotonic: when it was so last */
	uint64_t silent_max_ms; /* the server may be silent for, */
	cdc_lsn silent_at;      /* while nothing behind this is durable; then anew */
	enum cdc_code reported; /* the buffer's error that was logged */
	cdc_lsn idle_lsn;       /* to be handed over as progress once the batch is; 0: none */
	bool idle_is_urgent;
	uint32_t epoch;
	cdc_lsn received, flushed; /* flushed: the last confirmed */
	uint64_t status_ms, append_ms,
		first_ms;    /* monotonic: last status, append; first record of batch */
	uint64_t renewed_ms; /* monotonic: the last renewal of a connection that had grown; 0: none
			      */
	bool is_held_told;
	uint64_t held_ms;        /* monotonic: since when somebody else has the slot; 0: nobody */
	unsigned warned_percent; /* of the WAL budget: the highest step that was told */
	enum cdc_wal_status told_wal;   /* the worst that was told */
	bool is_unwatched, was_standby; /* the last look failed; the server was in recovery */
	bool is_spill_told;             /* that the server spills */
	bool is_publication_unwatched;  /* the last look at it failed */
	struct cdc_hurt_report hurt;    /* the last look at the tables' identities */
	struct cdc_absent absent;       /* those that were taken out for it */
	bool is_hurt_stuck;   /* one could not be taken out of the publication, which was told */
	uint32_t absences;    /* gaps that were noted of tables that came back */
	struct cdc_buf left;  /* the tables that are out, as they are noted */
	bool is_left_known;   /* what a former process noted of them was read */
	bool is_look_unnoted; /* the last look at the publication is to be noted */
	bool is_gap_unnoted;  /* the next process is to note it */
	uint32_t promoted;    /* the timeline that it writes since, while it was read; 0: none */
	bool reply_requested;
	/* An option changed the numbering, and the buffer ends in a transaction that was numbered
	 * as before: its commit LSN, up to which it goes on being; 0: nothing of it. */
	cdc_lsn former_lsn;
	bool is_former_read;      /* all of that */
	cdc_lsn started_lsn;      /* where the session began */
	bool was_streaming;       /* it came further, or lasted: the backoff starts again */
	bool has_streamed;        /* once, so the settings were right then */
	_Atomic int64_t accepted; /* the command that accepts a gap; 0: none */
};

enum cdc_code cdc_capture_new(const struct cdc_capture_setup *setup, struct cdc_capture **ret,
			      struct cdc_err *err)
{
	struct cdc_capture *c = calloc(1, sizeof(*c));
	enum cdc_code rc;

	if (!c)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	c->setup = *setup;
	c->silent_max_ms = SILENT_MAX_MS;
	cdc_buf_init(&c->left, CDC_LEFT_TEXT_MAX);
	c->absent.setup = (struct cdc_absent_setup){.store = setup->store,
						    .slot = setup->plan.slot,
						    .syncs = setup->syncs,
						    .selections = setup->selections,
						    .sync_n = setup->sync_n};
	rc = cdc_source_new(&c->setup.plan, &c->source, err);
	if (rc) {
		cdc_capture_free(c);
		return rc;
	}
	*ret = c;
	return CDC_OK;
}

void cdc_capture_free(struct cdc_capture *c)
{
	if (!c)
		return;
	cdc_source_free(c->source);
	cdc_batch_free(c->batch);
	cdc_buf_clear(&c->left);
	free(c);
}

static bool must_stop(const struct cdc_capture *c)
{
	return cdc_stop_is_set(c->setup.stop);
}

/* --- before the stream -------------------------------------------------------------- */

static enum cdc_code load_row(struct cdc_capture *c, struct cdc_err *err)
{
	enum cdc_code rc = cdc_store_slot_get(c->setup.store, c->setup.connection,
					      c->setup.plan.slot, &c->row, err);

	c->has_row = rc == CDC_OK;
	return rc == CDC_MISSING ? CDC_OK : rc;
}

/* Everything before it is in the buffer; before there was anything, where the slot began. */
static cdc_lsn end_of_ours(const struct cdc_capture *c, const struct cdc_buffer_state *st)
{
	return st->durable ? st->durable : c->row.created_lsn;
}

/* Notes the size of a gap that was found; every gap ends the capture. */
static enum cdc_code note_gap(const struct cdc_capture *c, uint64_t bytes)
{
	cdc_metric_set(&c->setup.metrics->gap_bytes, bytes);
	return CDC_GAP;
}

/* The slot is gone or lost: says how much lies between the buffer's end and now. */
static enum cdc_code measure_loss(const struct cdc_capture *c, const struct cdc_buffer_state *st,
				  const struct cdc_source_info *info, struct cdc_err *err)
{
	const cdc_lsn ours = end_of_ours(c, st);
	char from[CDC_LSN_TEXT], to[CDC_LSN_TEXT];

	if (!info->system_id[0] || !ours || info->flush_lsn < ours)
		return CDC_GAP;
	(void)cdc_lsn_format(ours, from);
	(void)cdc_lsn_format(info->flush_lsn, to);
	(void)cdc_err_wrap(err, "%llu bytes of WAL are missing so far, from %s to %s",
			   (unsigned long long)(info->flush_lsn - ours), from, to);
	return note_gap(c, info->flush_lsn - ours);
}

/* Do store and buffer belong together? */
static enum cdc_code check_files(const struct cdc_capture *c, const struct cdc_buffer_state *st,
				 struct cdc_err *err)
{
	const char *slot = c->setup.plan.slot;

	if (!c->has_row && st->epoch) {
		(void)cdc_err_set(
			err, CDC_EPOCH,
			"slot %s: the buffer was written with a state.db that is no longer there",
			slot);
		return cdc_err_remedy(err, "restore state.db beside the buffer, or start afresh "
					   "with an empty data_dir");
	}
	if (c->has_row && CDC_EPOCH_GENERATION(st->epoch) > c->row.generation) {
		(void)cdc_err_set(err, CDC_EPOCH,
				  "slot %s: state.db is older than the buffer (generation %u, the "
				  "buffer has %u)",
				  slot, c->row.generation, CDC_EPOCH_GENERATION(st->epoch));
		return cdc_err_remedy(err, "restore the state.db that belongs to this buffer");
	}
	return CDC_OK;
}

/* Is it another database altogether? */
static bool is_other_cluster(const struct cdc_capture *c, const struct cdc_source_info *info)
{
	return c->has_row && info->system_id[0] && strcmp(c->row.system_id, info->system_id) != 0;
}

/* Is the server the one that was read, with everything that was? */
static enum cdc_code check_server(const struct cdc_capture *c, const struct cdc_buffer_state *st,
				  const struct cdc_source_info *info, struct cdc_err *err)
{
	const char *slot = c->setup.plan.slot;
	/* What was read of a standby while it was promoted bears its former timeline. */
	const uint32_t timeline = c->promoted && c->promoted == info->timeline
					  ? c->promoted
					  : CDC_EPOCH_TIMELINE(st->epoch);
	char at[CDC_LSN_TEXT], ours[CDC_LSN_TEXT];
	cdc_lsn end;

	(void)cdc_lsn_format(st->durable, ours);
	if (is_other_cluster(c, info)) {
		(void)cdc_err_set(
			err, CDC_GAP,
			"slot %s: the server is another cluster (system identifier %s, was %s)",
			slot, info->system_id, c->row.system_id);
		return cdc_err_remedy(err, "point the connection at the former cluster, or start "
					   "afresh with an empty data_dir");
	}
	if (st->durable && timeline && !cdc_source_holds(c->source, timeline, st->durable, &end)) {
		(void)cdc_lsn_format(end, at);
		if (end)
			(void)cdc_err_set(
				err, CDC_GAP,
				"slot %s: the server left timeline %u at %s, before %s that was "
				"already read: a restored backup or a failover to a standby that "
				"lagged behind; %llu bytes of WAL that were read are no longer "
				"part of the database, and others took their place",
				slot, timeline, at, ours, (unsigned long long)(st->durable - end));
		else
			(void)cdc_err_set(err, CDC_GAP,
					  "slot %s: the server is on timeline %u and never was on "
					  "%u, on which %s was read",
					  slot, info->timeline, timeline, ours);
		(void)cdc_err_remedy(err, "start afresh with an empty data_dir and copy the tables "
					  "once, or point the connection at the former primary");
		return note_gap(c, end ? st->durable - end : 0);
	}
	if (st->durable <= info->flush_lsn)
		return CDC_OK;
	(void)cdc_lsn_format(info->flush_lsn, at);
	if (info->is_standby)
		return cdc_err_set(err, CDC_IO,
				   "slot %s: the standby's WAL ends at %s, before %s that was "
				   "already read on another server; it has to catch up",
				   slot, at, ours);
	(void)cdc_err_set(err, CDC_GAP,
			  "slot %s: the server's WAL ends at %s, before %s that was already read: "
			  "a restored backup or a failover; %llu bytes of WAL that were read are "
			  "no longer part of the database",
			  slot, at, ours, (unsigned long long)(st->durable - info->flush_lsn));
	(void)cdc_err_remedy(err, "start afresh with an empty data_dir and copy the tables once");
	return note_gap(c, st->durable - info->flush_lsn);
}

/* Is the slot where we left it?  Anything else is a gap, and only a person may accept one. */
static enum cdc_code check_slot(const struct cdc_capture *c, const struct cdc_buffer_state *st,
				const struct cdc_source_info *info, struct cdc_err *err)
{
	const cdc_lsn ours = end_of_ours(c, st);
	char at[CDC_LSN_TEXT], own[CDC_LSN_TEXT];

	if (!c->has_row || info->slot_start <= ours)
		return CDC_OK;
	(void)cdc_lsn_format(info->slot_start, at);
	(void)cdc_lsn_format(ours, own);
	(void)cdc_err_set(err, CDC_GAP,
			  "slot %s begins at %s, and data_dir ends at %s: %llu bytes of WAL are "
			  "missing. The state is older than the slot: was a backup of data_dir put "
			  "back, or the slot moved or made anew by somebody else?",
			  c->setup.plan.slot, at, own,
			  (unsigned long long)(info->slot_start - ours));
	(void)cdc_err_remedy(err,
			     "put back the data_dir that was in use last, or start afresh with "
			     "an empty one and copy the tables once");
	return note_gap(c, info->slot_start - ours);
}

static enum cdc_code check_position(const struct cdc_capture *c, const struct cdc_buffer_state *st,
				    const struct cdc_source_info *info, struct cdc_err *err)
{
	enum cdc_code rc = check_server(c, st, info, err);

	return rc ? rc : check_slot(c, st, info, err);
}

/* Writes down the slot's identity, durably, before the first record carries its generation. */
static enum cdc_code remember_slot(struct cdc_capture *c, const struct cdc_source_info *info,
				   struct cdc_err *err)
{
	/* Of a slot that is not known (any more) it holds the highest generation so far. */
	struct cdc_slot_row row = c->row;
	bool is_other = !c->has_row || strcmp(row.numbering, info->numbering) != 0;
	enum cdc_code rc;

	if (c->has_row && strcmp(row.numbering, info->numbering) == 0 &&
	    !info->publication_was_created)
		return CDC_OK;
	if (is_other && row.generation == 255)
		return cdc_err_set(err, CDC_LIMIT, "slot %s: 255 generations are used up",
				   c->setup.plan.slot);
	if (!c->has_row) {
		memset(&row, 0, sizeof(row));
		(void)snprintf(row.slot, sizeof(row.slot), "%s", c->setup.plan.slot);
		(void)snprintf(row.connection, sizeof(row.connection), "%s", c->setup.connection);
		(void)snprintf(row.system_id, sizeof(row.system_id), "%s", info->system_id);
		row.created_lsn = info->slot_start;
		row.slot_is_ours = info->slot_was_created || c->setup.slot_is_ours;
	}
	row.generation = c->row.generation + is_other;
	row.begins_anew &= !is_other;
	row.publication_is_ours |= info->publication_was_created;
	(void)snprintf(row.publication, sizeof(row.publication), "%s",
		       c->setup.plan.settings->publication);
	(void)snprintf(row.numbering, sizeof(row.numbering), "%s", info->numbering);
	rc = cdc_store_slot_put(c->setup.store, &row, err);
	if (rc)
		return rc;
	c->row = row;
	c->has_row = true;
	return CDC_OK;
}

/*
 * An option that changes the numbering takes effect between two transactions, never
 * in one: what of it was delivered already would come once more under another id.
 * So what is left of the buffer's last one is read as it was begun, if it still can be.
 */
static enum cdc_code keep_numbering(struct cdc_capture *c, const struct cdc_buffer_state *st,
				    const struct cdc_source_info *info, struct cdc_err *err)
{
	struct cdc_err why;
	enum cdc_code rc;

	c->former_lsn = 0;
	c->is_former_read = false;
	if (!c->has_row || strcmp(c->row.numbering, info->numbering) == 0 || !st->last_id.ordinal ||
	    st->last_id.commit_lsn < st->durable ||
	    CDC_EPOCH_GENERATION(st->last_id.epoch) != c->row.generation)
		return CDC_OK;
	memset(&why, 0, sizeof(why));
	rc = cdc_source_can_start_as(c->source, c->row.numbering, &why);
	if (rc && cdc_code_class(rc) == CDC_CLASS_RETRY) {
		*err = why;
		return rc;
	}
	if (rc) {
		LOG_WARN(&c->setup.log, "transaction_is_renumbered", KV("slot", c->setup.plan.slot),
			 KV("note", "a transaction was read in part, and an option was changed "
				    "that numbers records: those of it that were delivered come "
				    "again, with other ids"),
			 KV_ERR(&why));
		return CDC_OK;
	}
	c->former_lsn = st->last_id.commit_lsn;
	LOG_INFO(&c->setup.log, "numbering_is_kept", KV("slot", c->setup.plan.slot),
		 KV("note", "a transaction was read in part; the changed options take effect "
			    "behind it"));
	return CDC_OK;
}

/* Nothing is known of a slot of our own name: the data_dir is another one than before, or the slot
 * was made by hand. */
static void warn_of_strange_slot(const struct cdc_capture *c, const struct cdc_source_info *info)
{
	if (!c->has_row && c->setup.slot_is_ours && !info->slot_was_created)
		LOG_WARN(&c->setup.log, "slot_without_state", KV("slot", c->setup.plan.slot),
			 KV("note",
			    "the slot was there, and this data_dir knows nothing of it: what "
			    "another data_dir had read and not delivered is not delivered by "
			    "this one; reading goes on from the slot's position"));
}

static void log_connected(const struct cdc_capture *c, const struct cdc_source_info *info,
			  cdc_lsn from)
{
	char text[CDC_LSN_TEXT];

	(void)cdc_lsn_format(from, text);
	LOG_INFO(&c->setup.log, "capture_started", KV("connection", c->setup.connection),
		 KV("slot", c->setup.plan.slot), KV("slot_created", info->slot_was_created),
		 KV("publication_created", info->publication_was_created),
		 KV("server_version", info->server_version), KV("timeline", info->timeline),
		 KV("from_lsn", (const char *)text), KV("generation", c->row.generation));
	for (size_t i = 0; i < info->left_out_n; i++)
		LOG_WARN(&c->setup.log, "table_left_out", KV("connection", c->setup.connection),
			 KV("table", (const char *)info->left_out[i].table),
			 KV("reason", (const char *)info->left_out[i].reason),
			 KV("remedy", (const char *)info->left_out[i].remedy));
}

/* --- behind a gap ------------------------------------------------------------------- */

/* What a generation begins with: the slot may start on a timeline that the server has left. */
static uint32_t first_epoch(const struct cdc_capture *c, const struct cdc_slot_row *row)
{
	return CDC_EPOCH(row->generation, cdc_source_timeline_at(c->source, row->created_lsn));
}

/* Where the slot was made anew the buffer has to begin the generation first, at the slot's start:
 * what it had may end anywhere. */
static enum cdc_code begin_generation(const struct cdc_capture *c, struct cdc_buffer_state *st,
				      struct cdc_err *err)
{
	const struct cdc_buffer_ops *ops = c->setup.ops;

	while (c->has_row && c->row.begins_anew &&
	       CDC_EPOCH_GENERATION(st->epoch) < c->row.generation) {
		enum cdc_code rc = ops->progress(c->setup.buffer, c->row.created_lsn,
						 first_epoch(c, &c->row), true, err);

		if (rc && rc != CDC_BUSY)
			return rc;
		cdc_board_beat(c->setup.board, cdc_clock_mono_ms());
		if (cdc_stop_wait(c->setup.stop, BEGIN_MS))
			return CDC_STOPPED;
		ops->state(c->setup.buffer, st);
	}
	return CDC_OK;
}

/* The slot, the gap and what is to be done about it, durably and at once. */
static enum cdc_code note_renewal(struct cdc_capture *c, const struct cdc_buffer_state *st,
				  const struct cdc_source_info *info, const struct cdc_err *why,
				  struct cdc_err *err)
{
	struct cdc_gap_row gap = {.at_us = cdc_clock_wall_us()};
	struct cdc_slot_row row = c->row;
	enum cdc_code rc;

	if (row.generation == 255)
		return cdc_err_set(err, CDC_LIMIT, "slot %s: 255 generations are used up",
				   c->setup.plan.slot);
	row.generation++;
	row.begins_anew = true;
	row.created_lsn = info->slot_start;
	row.publication_is_ours |= info->publication_was_created;
	(void)snprintf(row.system_id, sizeof(row.system_id), "%s", info->system_id);
	(void)snprintf(row.numbering, sizeof(row.numbering), "%s", info->numbering);
	(void)snprintf(row.publication, sizeof(row.publication), "%s",
		       c->setup.plan.settings->publication);
	gap.first = (struct cdc_id){.epoch = st->epoch, .commit_lsn = end_of_ours(c, st)};
	gap.last = (struct cdc_id){.epoch = first_epoch(c, &row), .commit_lsn = info->slot_start};
	(void)snprintf(gap.reason, sizeof(gap.reason), "%.*s", (int)sizeof(gap.reason) - 1,
		       why->msg);
	rc = cdc_store_slot_renew(c->setup.store, &row, &gap, c->setup.syncs, c->setup.sync_n, err);
	if (rc)
		return rc;
	c->row = row;
	return CDC_OK;
}

/* What stands behind the name by mistake is not copied over what was there: that takes a word. */
static bool may_renew(const struct cdc_capture *c, const struct cdc_buffer_state *st,
		      const struct cdc_source_info *info)
{
	const uint32_t timeline = CDC_EPOCH_TIMELINE(st->epoch);
	cdc_lsn end;

	if (!c->has_row)
		return false;
	if (atomic_load(&c->accepted))
		return true;
	if (c->setup.plan.settings->on_gap != CDC_ON_GAP_RESYNC || !info->system_id[0] ||
	    is_other_cluster(c, info))
		return false;
	/* A former primary that came back was never on the timeline that was read. */
	return !timeline || cdc_source_holds(c->source, timeline, st->durable, &end) || end;
}

/* Makes the slot anew, unless it is the user's: that is read from where it stands.  why: the gap.
 */
static enum cdc_code renew(struct cdc_capture *c, struct cdc_buffer_state *st,
			   struct cdc_source_info *info, const struct cdc_err *why,
			   struct cdc_err *err)
{
	const bool is_ours = c->row.slot_is_ours || c->setup.slot_is_ours;
	struct cdc_err gap = *why;
	enum cdc_code rc = CDC_OK;

	gap.remedy[0] = '\0'; /* which has just been applied */
	LOG_WARN(&c->setup.log, "gap_accepted", KV("connection", c->setup.connection),
		 KV("slot", c->setup.plan.slot),
		 KV("by", atomic_load(&c->accepted) ? "command" : "on_gap"),
		 KV("note", "the tables are copied again; rows that were deleted in the gap stay "
			    "at the destination"),
		 KV_ERR(&gap));
	if (is_ours)
		rc = cdc_source_uninstall(&c->setup.plan, false, err);
	if (!rc)
		rc = cdc_source_connect(c->source, false, info, err);
	if (!rc)
		rc = note_renewal(c, st, info, why, err);
	if (!rc)
		rc = begin_generation(c, st, err);
	return rc;
}

/* Ends the command that has accepted a gap, if there is one. */
static enum cdc_code answer_word(struct cdc_capture *c, bool was_renewed, struct cdc_err *err)
{
	int64_t command = atomic_load(&c->accepted);
	enum cdc_code rc;

	if (!command)
		return CDC_OK;
	rc = cdc_store_command_end(
		c->setup.store, command, was_renewed ? CDC_COMMAND_DONE : CDC_COMMAND_REFUSED,
		was_renewed ? "the gap is noted, the slot is made anew, and the tables of its "
			      "syncs are copied again"
			    : "there is no gap; nothing was done",
		err);
	if (!rc)
		(void)atomic_compare_exchange_strong(&c->accepted, &command, 0);
	return rc;
}

bool cdc_capture_accept_gap(struct cdc_capture *c, int64_t command)
{
	int64_t none = 0;

	return atomic_compare_exchange_strong(&c->accepted, &none, command) || none == command;
}

/* What to do about a gap is one command; what the error itself knows comes behind it. */
static void offer_resync(const struct cdc_capture *c, struct cdc_err *err)
{
	char other[sizeof(err->remedy)];

	(void)snprintf(other, sizeof(other), "%s", err->remedy);
	(void)cdc_err_remedy(
		err,
		"walpost resync %s --gap notes the gap, makes the slot anew and copies "
		"the tables of its syncs again (on_gap: resync does so by itself); or: "
		"%.500s",
		c->setup.sync_n ? c->setup.syncs[0] : "SYNC", other);
}

/* Until somebody says what is to be done about the gap; false: the stop flag was set. */
static bool wait_for_word(const struct cdc_capture *c)
{
	while (!must_stop(c) && !atomic_load(&c->accepted))
		(void)cdc_stop_wait(c->setup.stop, WORD_MS);
	return !must_stop(c);
}

/* Tables that were taken out and are not left out any more are published again. */
static enum cdc_code look_for_absent(struct cdc_capture *c, const struct cdc_source_info *info,
				     struct cdc_err *err)
{
	const char **names = calloc(info->left_out_n + 1, sizeof(*names));
	enum cdc_code rc;

	if (!names)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the tables left out");
	for (size_t i = 0; i < info->left_out_n; i++)
		names[i] = info->left_out[i].table;
	rc = cdc_absent_keep(&c->absent, names, info->left_out_n, err);
	free(names);
	cdc_metric_set(&c->setup.metrics->taken_out_tables, cdc_absent_count(&c->absent));
	return rc;
}

static struct cdc_id end_id(const struct cdc_capture *c)
{
	struct cdc_buffer_state st;

	c->setup.ops->state(c->setup.buffer, &st);
	return (struct cdc_id){.epoch = st.epoch, .commit_lsn = end_of_ours(c, &st)};
}

static void put_key(const struct cdc_capture *c, const char *of, char ret_key[96])
{
	(void)snprintf(ret_key, 96, "%s %s", of, c->setup.plan.slot);
}

/* *text is the caller's to free; "": nothing was noted. */
static enum cdc_code read_note(const struct cdc_capture *c, const char *of, size_t max,
			       char **ret_text, struct cdc_err *err)
{
	char *text = malloc(max), key[96];
	enum cdc_code rc;

	if (!text)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for what was noted of tables");
	put_key(c, of, key);
	rc = cdc_store_note_get(c->setup.store, key, text, max, err);
	if (rc == CDC_MISSING) {
		*text = '\0';
		rc = CDC_OK;
	}
	if (rc)
		free(text);
	else
		*ret_text = text;
	return rc;
}

/* What a former process knew of the publication and of tables that are out. */
static enum cdc_code recall_publication(struct cdc_capture *c, struct cdc_err *err)
{
	char *left = NULL, *look = NULL;
	enum cdc_code rc;

	if (c->is_left_known)
		return CDC_OK;
	rc = read_note(c, LEFT_NOTE, CDC_LEFT_TEXT_MAX, &left, err);
	if (!rc)
		rc = read_note(c, LOOK_NOTE, CDC_LOOK_TEXT_MAX, &look, err);
	if (!rc) {
		cdc_source_recall_left(c->source, left);
		/* A slot that is made now reads nothing of what was before. */
		if (c->has_row)
			cdc_source_recall_look(c->source, look);
		cdc_buf_put(&c->left, left, strlen(left) + 1);
		c->is_left_known = true;
	}
	free(left);
	free(look);
	return rc;
}

static enum cdc_code know_schema(void *arg, struct cdc_view schema, struct cdc_err *err)
{
	struct cdc_capture *c = arg;

	return cdc_source_know(c->source, schema, err);
}

static enum cdc_code open_stream(struct cdc_capture *c, struct cdc_err *err)
{
	struct cdc_source_info info;
	struct cdc_buffer_state st;
	struct cdc_err why;
	bool was_renewed = false;
	struct cdc_id at;
	enum cdc_code rc = load_row(c, err);

	if (rc)
		return rc;
	c->setup.ops->state(c->setup.buffer, &st);
	rc = check_files(c, &st, err);
	if (rc)
		return rc;
	/* The connect may publish them again. */
	at = end_id(c);
	rc = cdc_absent_load(&c->absent, &at, c->row.generation, err);
	if (!rc)
		rc = recall_publication(c, err);
	if (rc)
		return rc;
	rc = cdc_source_connect(c->source, c->has_row || st.durable, &info, err);
	if (rc == CDC_GAP)
		rc = measure_loss(c, &st, &info, err);
	if (!rc)
		rc = begin_generation(c, &st, err);
	if (!rc)
		rc = check_position(c, &st, &info, err);
	if (rc == CDC_GAP && may_renew(c, &st, &info)) {
		why = *err;
		rc = renew(c, &st, &info, &why, err);
		was_renewed = rc == CDC_OK;
	}
	if (!rc)
		rc = answer_word(c, was_renewed, err);
	if (!rc)
		rc = keep_numbering(c, &st, &info, err);
	if (!rc && !c->former_lsn) {
		warn_of_strange_slot(c, &info);
		rc = remember_slot(c, &info, err);
	}
	if (!rc)
		rc = look_for_absent(c, &info, err);
	if (rc)
		return rc;
	c->received = c->flushed = st.durable ? st.durable : info.slot_start;
	c->started_lsn = c->flushed;
	rc = c->setup.ops->schemas(c->setup.buffer, know_schema, c, err);
	if (rc)
		return rc;
	rc = c->former_lsn ? cdc_source_start_as(c->source, c->flushed, c->row.generation,
						 c->row.numbering, c->former_lsn, err)
			   : cdc_source_start(c->source, c->flushed, c->row.generation, err);
	if (rc)
		return rc;
	log_connected(c, &info, c->flushed);
	cdc_metric_set(&c->setup.metrics->gap_bytes, 0);
	/* Where the slot begins is the first thing the buffer has to know: it is what is confirmed
	 * already. */
	c->idle_lsn = c->flushed;
	c->idle_is_urgent = false;
	c->epoch = 0; /* the first read tells, before anything is handed over */
	c->status_ms = cdc_clock_mono_ms();
	c->was_standby = info.is_standby;
	return CDC_OK;
}

/* --- the stream --------------------------------------------------------------------- */

static enum cdc_code send_status(struct cdc_capture *c, uint64_t now_ms, struct cdc_err *err)
{
	cdc_lsn durable = c->setup.ops->durable(c->setup.buffer);
	bool has_risen = durable > c->flushed;
	bool is_level = durable >= c->received;
	uint64_t age = now_ms - c->status_ms;
	enum cdc_code rc;

	if (!c->reply_requested && age < STATUS_MS &&
	    !(has_risen && age >= (is_level ? CONFIRM_IDLE_MS : CONFIRM_MS)))
		return CDC_OK;
	rc = cdc_source_status(c->source, c->received > durable ? c->received : durable, durable,
			       err);
	if (rc)
		return rc;
	c->reply_requested = false;
	c->flushed = durable;
	c->status_ms = now_ms;
	cdc_metric_set(&c->setup.metrics->confirmed_lsn, durable);
	if (is_level)
		cdc_metric_set(&c->setup.metrics->unconfirmed_us, 0);
	else if (cdc_metric_get(&c->setup.metrics->unconfirmed_us) == 0)
		cdc_metric_set(&c->setup.metrics->unconfirmed_us, (uint64_t)cdc_clock_wall_us());
	return CDC_OK;
}

/* Gives what was read to the buffer; sets is_blocked when it has no room, and is called again then.
 */
static enum cdc_code hand_over(struct cdc_capture *c, uint64_t now_ms, struct cdc_err *err)
{
	struct cdc_source_metrics *m = c->setup.metrics;
	enum cdc_code rc = CDC_OK;

	c->is_blocked = false;
	if (c->batch && (c->batch->n || c->batch->end_n)) {
		/* The batch is not ours any more once it is taken. */
		size_t n = c->batch->n, bytes = c->batch->json.len;
		int64_t commit_us =
			c->batch->end_n ? c->batch->ends[c->batch->end_n - 1].commit_us : 0;

		rc = c->setup.ops->append(c->setup.buffer, CDC_SEQ_STREAM, c->batch, err);
		if (rc)
			goto refused;
		c->batch = NULL;
		c->append_ms = now_ms;
		cdc_metric_add(&m->captured, n);
		cdc_metric_add(&m->captured_bytes, bytes);
		if (commit_us > 0)
			cdc_metric_set(&m->last_commit_us, (uint64_t)commit_us);
	}
	if (c->idle_lsn) {
		rc = c->setup.ops->progress(c->setup.buffer, c->idle_lsn, c->epoch,
					    c->idle_is_urgent, err);
		if (rc)
			goto refused;
		c->idle_lsn = 0;
		c->idle_is_urgent = false;
	}
	return CDC_OK;
refused:
	if (rc != CDC_BUSY)
		return rc;
	c->is_blocked = true;
	return CDC_OK;
}

/* Should the batch wait for more of the stream?  Only while the socket is dry. */
static bool is_worth_holding(const struct cdc_capture *c, uint64_t now_ms)
{
	if (c->batch->n == 0)
		return false;
	if (cdc_batch_is_open(c->batch))
		return now_ms - c->first_ms < OPEN_HOLD_MS;
	/* Whole transactions go at once, unless they come faster than one a millisecond. */
	return now_ms == c->append_ms;
}

/* Values that had to be written as their text: counted, and said once as long as it goes on. */
static void note_oddities(const struct cdc_capture *c, const struct cdc_source_read *r)
{
	struct cdc_source_metrics *m = c->setup.metrics;
	const bool is_first = cdc_metric_get(&m->odd_values) == 0;

	cdc_metric_add(&m->unknown_types, r->unknown_types);
	cdc_metric_add(&m->odd_values, r->odd_values);
	if (r->unknown_types)
		LOG_WARN(&c->setup.log, "type_unknown", KV("connection", c->setup.connection),
			 KV("type", r->unknown_type),
			 KV("note", "the type was dropped before its rows were read; its columns "
				    "are written as text"));
	if (r->odd_values && is_first)
		LOG_WARN(&c->setup.log, "composite_unknown", KV("connection", c->setup.connection),
			 KV("note", "attributes were dropped from a type before its rows were "
				    "read; its values are written as text"));
}

/* A dead link is given up after a while.  A server that was only busy with something large has
 * longer for it the next time, or it would never come to its end. */
static enum cdc_code judge_silence(struct cdc_capture *c, uint64_t now_ms, struct cdc_err *err)
{
	const cdc_lsn durable = c->setup.ops->durable(c->setup.buffer);
	const uint64_t max_ms = durable > c->silent_at ? SILENT_MAX_MS : c->silent_max_ms;

	if (cdc_source_silent_ms(c->source) <= max_ms || now_ms - c->blocked_ms <= max_ms)
		return CDC_OK;
	c->silent_at = durable;
	c->silent_max_ms = max_ms < SILENT_TOP_MS ? max_ms * 2 : max_ms;
	return cdc_err_set(err, CDC_TIMEOUT, "nothing came from the server for %llu s",
			   (unsigned long long)max_ms / 1000);
}

static enum cdc_code read_stream(struct cdc_capture *c, uint64_t now_ms, bool *ret_is_dry,
				 struct cdc_err *err)
{
	struct cdc_source_read r;
	enum cdc_code rc;
	size_t before;
	bool is_full;

	if (!c->batch)
		c->batch = c->setup.ops->batch_new(c->setup.buffer, BATCH_MAX_BYTES);
	if (!c->batch)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a batch");
	before = c->batch->n;
	memset(&r, 0, sizeof(r));
	rc = cdc_source_read(c->source, c->batch, BATCH_TARGET_BYTES, BATCH_TARGET_RECORDS, &r,
			     err);
	if (r.unknown_types | r.odd_values)
		note_oddities(c, &r);
	cdc_metric_add(&c->setup.metrics->too_large, r.too_large);
	if (rc && rc != CDC_BUSY)
		return rc;
	if (before == 0)
		c->first_ms = now_ms;
	if (r.epoch)
		c->epoch = r.epoch;
	if (r.received_lsn > c->received)
		c->received = r.received_lsn;
	if (r.idle_lsn > c->idle_lsn)
		c->idle_lsn = r.idle_lsn;
	c->is_former_read |= r.is_at_end;
	c->reply_requested |= r.reply_requested;
	c->idle_is_urgent |= r.reply_requested;
	cdc_metric_add(&c->setup.metrics->transactions, r.transactions);
	cdc_metric_set(&c->setup.metrics->received_lsn, c->received);
	if (r.is_stopping)
		return cdc_err_set(err, CDC_IO, "the server shuts down and waits for us");
	if (r.is_dry && cdc_source_silent_ms(c->source) > SILENT_MAX_MS &&
	    judge_silence(c, now_ms, err))
		return CDC_TIMEOUT;
	is_full = rc == CDC_BUSY || c->batch->json.len >= BATCH_TARGET_BYTES ||
		  c->batch->n >= BATCH_TARGET_RECORDS;
	*ret_is_dry = r.is_dry && rc != CDC_BUSY;
	if (!is_full && *ret_is_dry && is_worth_holding(c, now_ms))
		return CDC_OK;
	if (is_full || *ret_is_dry)
		return hand_over(c, now_ms, err);
	return CDC_OK;
}

/* Waits for the socket (unless blocked), the buffer's event, the stop flag, or the clock. */
static void wait_for_more(const struct cdc_capture *c, uint64_t now_ms)
{
	struct timespec ts = {.tv_nsec = NAP_US * 1000};
	uint64_t wait_ms =
		c->status_ms + STATUS_MS > now_ms ? c->status_ms + STATUS_MS - now_ms : 0;
	struct pollfd fds[4] = {
		{.fd = c->setup.stop->fd, .events = POLLIN},
		{.fd = c->setup.ops->event_fd(c->setup.buffer), .events = POLLIN},
		{.fd = cdc_source_fd(c->source), .events = cdc_source_events(c->source)},
		{.fd = cdc_source_watch_fd(c->source),
		 .events = cdc_source_watch_events(c->source)},
	};
	bool has_batch = c->batch && c->batch->n;

	if (c->is_blocked || c->is_former_read)
		fds[2].events &= POLLOUT;
	if (wait_ms > 1000)
		wait_ms = 1000; /* the heartbeat */
	if (c->setup.ops->durable(c->setup.buffer) > c->flushed && wait_ms > CONFIRM_IDLE_MS)
		wait_ms = CONFIRM_IDLE_MS;
	if (has_batch && !c->is_blocked) {
		/* A held batch: nap with the socket shut out when much is coming, else look at the
		 * socket. */
		if (c->batch->n >= NAP_RECORDS || !cdc_batch_is_open(c->batch)) {
			(void)ppoll(fds, 1, &ts, NULL);
			return;
		}
		wait_ms = 1;
	}
	(void)poll(fds, 4, (int)wait_ms);
	if (fds[1].revents)
		cdc_event_drain(fds[1].fd);
}

/* --- how the slot stands ------------------------------------------------------------ */

static void count_slot(const struct cdc_capture *c, const struct cdc_slot_report *r)
{
	struct cdc_source_metrics *m = c->setup.metrics;

	cdc_metric_set(&m->slot_wal_status, (uint64_t)r->wal_status);
	cdc_metric_set(&m->slot_retained_bytes, r->retained_bytes);
	cdc_metric_set(&m->slot_unconfirmed_bytes, r->unconfirmed_bytes);
	cdc_metric_set(&m->slot_has_limit, r->has_limit);
	cdc_metric_set(&m->slot_safe_bytes, r->safe_bytes);
	cdc_metric_set(&m->slot_budget_bytes, r->budget_bytes);
	cdc_metric_set(&m->slot_used_percent, r->used_percent);
	cdc_metric_set(&m->slot_spilled, r->spilled);
	cdc_metric_set(&m->slot_spilled_bytes, r->spilled_bytes);
	cdc_metric_set(&m->slot_looked_us, (uint64_t)cdc_clock_wall_us());
}

/* The server decodes what is large by way of its own disk, which is slow; told once. */
static void tell_spills(struct cdc_capture *c, const struct cdc_slot_report *r)
{
	char remedy[160];

	if (!r->spilled || c->is_spill_told)
		return;
	c->is_spill_told = true;
	(void)snprintf(remedy, sizeof(remedy),
		       "if it happens often: ALTER ROLE \"%.63s\" SET logical_decoding_work_mem = "
		       "'256MB';",
		       c->setup.plan.settings->username);
	LOG_INFO(&c->setup.log, "server_spills", KV("slot", c->setup.plan.slot),
		 KV("transactions", r->spilled), KV("bytes", r->spilled_bytes),
		 KV("note", "the server writes large transactions to its own disk to decode them"),
		 KV("remedy", (const char *)remedy));
}

/* What keeps the WAL, as far as can be told from here. */
static const char *holder_of(const struct cdc_capture *c, const struct cdc_slot_report *r)
{
	if (c->is_blocked)
		return "the buffer has no room; see the syncs";
	if (r->unconfirmed_bytes < r->retained_bytes / 2)
		return "not walpost: a transaction, or a prepared one, has been open on the server "
		       "for long";
	return "walpost is still reading";
}

/* Tells of each step once on the way up, and of the way back. */
static void warn_of_slot(struct cdc_capture *c, const struct cdc_slot_report *r)
{
	unsigned step = cdc_slot_step(r->used_percent);
	const char *status = cdc_wal_status_name(r->wal_status);

	if (step > c->warned_percent)
		LOG_WARN(&c->setup.log, "slot_keeps_wal", KV("slot", c->setup.plan.slot),
			 KV("percent", r->used_percent), KV("retained_bytes", r->retained_bytes),
			 KV("budget_bytes", r->budget_bytes), KV("wal_status", status),
			 KV("held_by", holder_of(c, r)));
	else if (!step && c->warned_percent)
		LOG_INFO(&c->setup.log, "slot_released_wal", KV("slot", c->setup.plan.slot),
			 KV("retained_bytes", r->retained_bytes),
			 KV("budget_bytes", r->budget_bytes));
	c->warned_percent = step;
	if (r->wal_status == CDC_WAL_UNRESERVED && c->told_wal != CDC_WAL_UNRESERVED)
		LOG_ERROR(&c->setup.log, "slot_is_about_to_be_lost", KV("slot", c->setup.plan.slot),
			  KV("retained_bytes", r->retained_bytes), KV("held_by", holder_of(c, r)),
			  KV("remedy", "raise max_slot_wal_keep_size on the server now, and "
				       "SELECT pg_reload_conf();"));
	c->told_wal = r->wal_status;
}

static enum cdc_code take_report(struct cdc_capture *c, const struct cdc_slot_report *r,
				 struct cdc_err *err)
{
	count_slot(c, r);
	tell_spills(c, r);
	warn_of_slot(c, r);
	if (c->is_unwatched)
		LOG_INFO(&c->setup.log, "slot_is_watched_again", KV("slot", c->setup.plan.slot));
	c->is_unwatched = false;
	if (!c->was_standby || r->is_in_recovery)
		return CDC_OK;
	c->promoted = r->timeline;
	return cdc_err_set(err, CDC_IO, "the server was a standby and has been promoted");
}

static enum cdc_code watch_slot(struct cdc_capture *c, struct cdc_err *err)
{
	struct cdc_slot_report report;
	struct cdc_err why;
	enum cdc_code rc;

	memset(&why, 0, sizeof(why));
	rc = cdc_source_watch(c->source, &report, &why);
	if (rc == CDC_BUSY)
		return CDC_OK;
	if (rc == CDC_CONFIG) {
		*err = why;
		return rc;
	}
	if (!rc)
		return take_report(c, &report, err);
	/* The stream goes on; the next round looks again. */
	if (!c->is_unwatched)
		LOG_WARN(&c->setup.log, "slot_is_unwatched", KV("slot", c->setup.plan.slot),
			 KV_ERR(&why));
	c->is_unwatched = true;
	return CDC_OK;
}

static bool was_hurt(const struct cdc_capture *c, const struct cdc_hurt_table *t)
{
	for (size_t i = 0; i < c->hurt.n; i++) {
		if (strcmp(c->hurt.tables[i].sql_name, t->sql_name) == 0)
			return true;
	}
	return false;
}

static void tell_hurt(const struct cdc_capture *c, const struct cdc_hurt_table *t)
{
	char remedy[400];

	(void)snprintf(remedy, sizeof(remedy),
		       "ALTER TABLE %s REPLICA IDENTITY FULL; or give it a primary key",
		       t->hurt_sql_name);
	LOG_WARN(&c->setup.log, "table_lost_its_identity", KV("connection", c->setup.connection),
		 KV("table", (const char *)t->name),
		 KV("reason", "UPDATE and DELETE of it fail as long as it is published: it has no "
			      "replica identity"),
		 KV("remedy", (const char *)remedy));
}

/* Out of our own publication, so that the application goes on; the stream then lacks the table, and
 * only a person can mend it. */
static void unpublish(struct cdc_capture *c, const struct cdc_hurt_table *t)
{
	const struct cdc_id at = end_id(c);
	struct cdc_err err;
	char remedy[600];

	memset(&err, 0, sizeof(err));
	if (cdc_absent_note(&c->absent, t->name, &err) ||
	    cdc_source_unpublish(c->source, t, &err)) {
		if (!c->is_hurt_stuck)
			LOG_WARN(&c->setup.log, "table_cannot_be_taken_out",
				 KV("connection", c->setup.connection),
				 KV("table", (const char *)t->name), KV_ERR(&err));
		c->is_hurt_stuck = true;
		return;
	}
	c->is_hurt_stuck = false;
	/* What cannot be noted now is when the slot is opened again. */
	if (cdc_absent_tell(&c->absent, t->name, &at, c->row.generation, &err))
		LOG_WARN(&c->setup.log, "gap_not_noted", KV("connection", c->setup.connection),
			 KV("table", (const char *)t->name), KV_ERR(&err));
	cdc_metric_set(&c->setup.metrics->taken_out_tables, cdc_absent_count(&c->absent));
	(void)snprintf(remedy, sizeof(remedy),
		       "ALTER TABLE %s REPLICA IDENTITY FULL; or give it a primary key; then start "
		       "walpost again, which publishes the table again and copies it",
		       t->sql_name);
	LOG_ERROR(&c->setup.log, "table_taken_out", KV("connection", c->setup.connection),
		  KV("table", (const char *)t->name),
		  KV("reason", "it has no replica identity, so that UPDATE and DELETE of "
			       "it failed; its changes are not captured from here on"),
		  KV("remedy", (const char *)remedy));
}

/* A table is told of when it is first seen so, and taken out at the next look: who changes a key
 * drops the old one first. */
static void watch_tables(struct cdc_capture *c)
{
	struct cdc_hurt_report now;
	const struct cdc_hurt_table *next = NULL;

	if (cdc_source_watch_tables(c->source, &now, NULL))
		return;
	cdc_metric_set(&c->setup.metrics->hurt_tables, now.n);
	for (size_t i = 0; i < now.n; i++) {
		const struct cdc_hurt_table *t = &now.tables[i];

		if (!was_hurt(c, t))
			tell_hurt(c, t);
		else if (!next && c->row.publication_is_ours &&
			 strcmp(t->sql_name, t->hurt_sql_name) == 0)
			next = t;
	}
	/* One at a time: each may wait for a lock, and the stream with it. */
	if (next)
		unpublish(c, next);
	c->hurt = now;
}

/* --- what becomes of the publication ------------------------------------------------- */

static const char *news_event(enum cdc_publication_news_kind kind)
{
	switch (kind) {
	case CDC_NEWS_PUBLICATION_GONE:
		return "publication_is_gone";
	case CDC_NEWS_PUBLICATION_BACK:
		return "publication_is_back";
	case CDC_NEWS_PUBLICATION_CHANGED:
		return "publication_changed";
	case CDC_NEWS_TABLE_LEFT:
		return "table_left_publication";
	case CDC_NEWS_TABLE_BACK:
		return "table_is_back";
	case CDC_NEWS_TABLE_JOINED:
		return "table_published";
	case CDC_NEWS_TABLE_DROPPED:
		return "table_dropped";
	case CDC_NEWS_TABLE_RENAMED:
		return "table_renamed";
	case CDC_NEWS_FILTER_CHANGED:
		return "table_filter_changed";
	case CDC_NEWS_COLUMNS_CHANGED:
		return "table_columns_changed";
	}
	return "";
}

/* What stopped coming, or came back, is a person's to know; all else is the life of a database. */
static bool is_warning(const struct cdc_publication_news *n)
{
	return n->kind != CDC_NEWS_TABLE_JOINED && n->kind != CDC_NEWS_TABLE_DROPPED &&
	       (n->kind != CDC_NEWS_TABLE_RENAMED || n->remedy[0]);
}

/* The syncs that have the table; the caller frees.  NULL: out of memory. */
static const char **syncs_with(const struct cdc_capture *c, const char *table, size_t *ret_n)
{
	const char **names = calloc(c->setup.sync_n + 1, sizeof(*names));

	*ret_n = 0;
	for (size_t i = 0; names && i < c->setup.sync_n; i++) {
		if (cdc_selection_has(c->setup.selections[i], table))
			names[(*ret_n)++] = c->setup.syncs[i];
	}
	return names;
}

/* What was changed in a table while it was out is a gap of each sync that has it. */
static enum cdc_code note_absence(struct cdc_capture *c, const char *table,
				  const char *const *syncs, size_t n, struct cdc_err *err)
{
	struct cdc_gap_row gap = {
		.first = end_id(c), .last = end_id(c), .at_us = cdc_clock_wall_us()};
	enum cdc_code rc = CDC_OK;

	/* Several tables may come back at one place. */
	gap.last.row = ++c->absences;
	(void)snprintf(gap.reason, sizeof(gap.reason),
		       "%.120s was out of the publication: what was changed in it meanwhile was "
		       "not read",
		       table);
	if (c->setup.plan.settings->on_gap == CDC_ON_GAP_RESYNC)
		return cdc_store_table_gap(c->setup.store, &gap, table, c->row.generation, syncs, n,
					   err);
	for (size_t i = 0; i < n && !rc; i++) {
		(void)snprintf(gap.sync, sizeof(gap.sync), "%s", syncs[i]);
		rc = cdc_store_gap_put(c->setup.store, &gap, err);
	}
	return rc;
}

/* Puts what a person is to do about it into remedy. */
static void take_back(struct cdc_capture *c, const char *table, char *remedy, size_t size)
{
	size_t n = 0, len = strlen(remedy);
	const char **syncs = syncs_with(c, table, &n);
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = syncs ? note_absence(c, table, syncs, n, &err)
		   : cdc_err_set(&err, CDC_NOMEM, "out of memory for the names of syncs");
	c->is_gap_unnoted |= rc != CDC_OK;
	if (rc)
		LOG_WARN(&c->setup.log, "gap_not_noted", KV("connection", c->setup.connection),
			 KV("table", table), KV_ERR(&err));
	for (size_t i = 0; c->setup.plan.settings->on_gap != CDC_ON_GAP_RESYNC && i < n; i++) {
		const int put = snprintf(remedy + len, size - len, "%swalpost resync %.64s %s",
					 len ? "; " : "", syncs[i], table);

		if (put < 0 || (size_t)put >= size - len) {
			remedy[len] = '\0'; /* as many as there is room for */
			break;
		}
		len += (size_t)put;
	}
	free(syncs);
}

static void take_news(void *arg, const struct cdc_publication_news *n)
{
	struct cdc_capture *c = arg;
	const enum cdc_log_level level = is_warning(n) ? CDC_LOG_WARN : CDC_LOG_INFO;
	char at[CDC_LSN_TEXT], remedy[sizeof(n->remedy) + 128];

	(void)cdc_lsn_format(c->received, at);
	(void)snprintf(remedy, sizeof(remedy), "%s", n->remedy);
	if (n->kind == CDC_NEWS_TABLE_BACK)
		take_back(c, n->table, remedy, sizeof(remedy));
	if (level == CDC_LOG_WARN)
		cdc_metric_add(&c->setup.metrics->publication_changes, 1);
	CDC_LOG_AT(&c->setup.log, level, news_event(n->kind), KV("connection", c->setup.connection),
		   KV("table", (const char *)n->table), KV("received_lsn", (const char *)at),
		   KV("note", (const char *)n->text), KV("remedy", (const char *)remedy));
}

/* The tables that are out are remembered over a restart: they may come back. */
static void note_left(struct cdc_capture *c)
{
	struct cdc_err err;
	struct cdc_buf now;
	char key[96];
	enum cdc_code rc = CDC_OK;

	cdc_buf_init(&now, CDC_LEFT_TEXT_MAX);
	cdc_source_put_left(c->source, &now);
	cdc_buf_put(&now, "", 1);
	memset(&err, 0, sizeof(err));
	put_key(c, LEFT_NOTE, key);
	if (now.failed || c->is_gap_unnoted ||
	    (now.len == c->left.len && memcmp(now.data, c->left.data, now.len) == 0)) {
		cdc_buf_clear(&now);
		return;
	}
	rc = cdc_store_note_put(c->setup.store, key, (const char *)now.data, &err);
	if (rc) {
		LOG_WARN(&c->setup.log, "left_tables_not_noted",
			 KV("connection", c->setup.connection), KV_ERR(&err));
		cdc_buf_clear(&now);
		return;
	}
	cdc_buf_clear(&c->left);
	c->left = now;
}

/* The look is remembered as well: what becomes of a table when nobody looks may be a gap. */
static void note_look(struct cdc_capture *c)
{
	struct cdc_err err;
	struct cdc_buf now;
	char key[96];

	if (!c->is_look_unnoted || c->is_gap_unnoted)
		return;
	cdc_buf_init(&now, CDC_LOOK_TEXT_MAX);
	cdc_source_put_look(c->source, &now);
	cdc_buf_put(&now, "", 1);
	memset(&err, 0, sizeof(err));
	put_key(c, LOOK_NOTE, key);
	/* Of more tables than there is room for, nothing is: an old look would be wrong. */
	if (cdc_store_note_put(c->setup.store, key, now.failed ? "" : (const char *)now.data, &err))
		LOG_WARN(&c->setup.log, "publication_not_noted",
			 KV("connection", c->setup.connection), KV_ERR(&err));
	else
		c->is_look_unnoted = false;
	cdc_buf_clear(&now);
}

/* Nobody says in the stream that something does not come any more. */
static void watch_publication(struct cdc_capture *c)
{
	struct cdc_source_metrics *m = c->setup.metrics;
	struct cdc_publication_report r;
	struct cdc_err why;
	enum cdc_code rc;

	memset(&why, 0, sizeof(why));
	rc = cdc_source_watch_publication(c->source, take_news, c, &r, &why);
	if (rc == CDC_BUSY)
		return;
	if (rc && !c->is_publication_unwatched)
		LOG_WARN(&c->setup.log, "publication_is_unwatched",
			 KV("connection", c->setup.connection), KV_ERR(&why));
	c->is_publication_unwatched = rc != CDC_OK;
	if (rc)
		return;
	/* In this order: what left is out of the look. */
	note_left(c);
	c->is_look_unnoted |= r.is_new;
	note_look(c);
	cdc_metric_set(&m->publication_tables, r.table_n);
	cdc_metric_set(&m->publication_gone, r.is_gone);
	cdc_metric_set(&m->left_tables, r.left_n);
	cdc_metric_set(&m->lost_operations, r.lost_n);
}

static void log_buffer(struct cdc_capture *c, const struct cdc_err *err)
{
	if (err->code == c->reported)
		return;
	if (err->code)
		LOG_ERROR(&c->setup.log, "buffer_cannot_write", KV("slot", c->setup.plan.slot),
			  KV("note", "nothing is lost: the slot keeps what is not yet written"),
			  KV_ERR(err));
	else
		LOG_INFO(&c->setup.log, "buffer_writes_again", KV("slot", c->setup.plan.slot));
	c->reported = err->code;
}

static void post_streaming(struct cdc_capture *c)
{
	const char *standby = cdc_source_awaited_standby(c->source);
	struct cdc_err err;
	enum cdc_state state = CDC_STATE_RUNNING;

	memset(&err, 0, sizeof(err));
	(void)c->setup.ops->error(c->setup.buffer, &err);
	log_buffer(c, &err);
	if (err.code) {
		state = CDC_STATE_WAITING;
	} else if (c->is_blocked) {
		state = CDC_STATE_WAITING;
		(void)cdc_err_set(&err, CDC_BUSY,
				  "the buffer has no room; the slot keeps the WAL meanwhile");
	}
	if (!err.code && standby) {
		state = CDC_STATE_WAITING;
		(void)cdc_err_set(&err, CDC_HELD, "the server waits for a standby: %s", standby);
		(void)cdc_err_remedy(&err, "start that standby, or take its slot out of "
					   "synchronized_standby_slots");
	}
	cdc_board_post(c->setup.board, state, &err, cdc_clock_wall_us());
}

/* A connection that has grown large is given up where nothing has to be read again. */
static bool must_reopen(struct cdc_capture *c)
{
	const uint64_t now_ms = cdc_clock_mono_ms();
	const bool is_empty = !c->batch || (c->batch->n == 0 && c->batch->end_n == 0);

	if (c->is_blocked || !is_empty || (c->renewed_ms && now_ms - c->renewed_ms < RENEW_MS) ||
	    !cdc_source_is_bloated(c->source, c->setup.ops->durable(c->setup.buffer)))
		return false;
	c->renewed_ms = now_ms;
	LOG_INFO(&c->setup.log, "connection_renewed", KV("connection", c->setup.connection),
		 KV("slot", c->setup.plan.slot),
		 KV("note", "a large message was read; its memory is given back"));
	return true;
}

/* Is everything durable that was to be read with the former numbering? */
static bool is_former_done(const struct cdc_capture *c)
{
	return c->is_former_read && !c->is_blocked &&
	       (!c->batch || (c->batch->n == 0 && c->batch->end_n == 0)) &&
	       c->setup.ops->durable(c->setup.buffer) > c->former_lsn;
}

/* Until it must stop, or be opened anew: CDC_OK. */
static enum cdc_code stream(struct cdc_capture *c, struct cdc_err *err)
{
	const uint64_t begun_ms = cdc_clock_mono_ms();
	uint64_t posted_ms = 0;

	while (!must_stop(c)) {
		uint64_t now_ms = cdc_clock_mono_ms();
		bool is_dry = false;
		enum cdc_code rc;

		cdc_board_beat(c->setup.board, now_ms);
		if (now_ms - posted_ms >= 500) {
			post_streaming(c);
			posted_ms = now_ms;
		}
		if (c->is_blocked) {
			c->blocked_ms = now_ms;
			if (cdc_source_is_leaving(c->source))
				return cdc_err_set(err, CDC_IO, "the server shuts down");
		}
		rc = c->is_blocked ? hand_over(c, now_ms, err)
				   : read_stream(c, now_ms, &is_dry, err);
		if (rc)
			return rc;
		/* Looked at before the wait, so that a risen durable() is never slept over. */
		rc = send_status(c, now_ms, err);
		if (!rc)
			rc = watch_slot(c, err);
		if (rc)
			return rc;
		watch_tables(c);
		watch_publication(c);
		if (must_reopen(c) || is_former_done(c))
			break;
		if (is_dry || c->is_blocked)
			wait_for_more(c, now_ms);
		c->has_streamed = true;
		if (now_ms - begun_ms >= STEADY_MS ||
		    c->setup.ops->durable(c->setup.buffer) > c->started_lsn)
			c->was_streaming = true;
	}
	return CDC_OK;
}

/* --- the thread --------------------------------------------------------------------- */

/* What was read and not yet taken is dropped: it was never confirmed, the server sends it again. */
static void drop_unappended(struct cdc_capture *c)
{
	cdc_batch_free(c->batch);
	c->batch = NULL;
	c->idle_lsn = 0;
	c->is_blocked = c->reply_requested = c->idle_is_urgent = false;
}

static enum cdc_code session(struct cdc_capture *c, struct cdc_err *err)
{
	enum cdc_code rc = open_stream(c, err);

	if (!rc) {
		c->held_ms = 0;
		cdc_metric_set(&c->setup.metrics->is_streaming, 1);
		cdc_board_post(c->setup.board, CDC_STATE_RUNNING, NULL, cdc_clock_wall_us());
		rc = stream(c, err);
		cdc_metric_set(&c->setup.metrics->is_streaming, 0);
	}
	cdc_source_stop(c->source, c->setup.ops->durable(c->setup.buffer));
	drop_unappended(c);
	return rc;
}

/*
 * Somebody else reads the slot.  After a crash or a broken link it is our own former
 * walsender, which the server keeps until its wal_sender_timeout: so it is looked at
 * every second, and only after that time a person is told.  Returns how long to wait.
 */
static uint64_t wait_for_holder(struct cdc_capture *c, const struct cdc_err *err)
{
	const uint64_t now_ms = cdc_clock_mono_ms();

	if (!c->held_ms) {
		c->held_ms = now_ms;
		c->is_held_told = false;
		LOG_INFO(&c->setup.log, "slot_is_held", KV("slot", c->setup.plan.slot),
			 KV("note", "another process still reads it; it is waited for"),
			 KV_ERR(err));
	} else if (!c->is_held_told && now_ms - c->held_ms >= HELD_MS) {
		c->is_held_told = true;
		LOG_WARN(&c->setup.log, "slot_stays_held", KV("slot", c->setup.plan.slot),
			 KV("held_ms", now_ms - c->held_ms), KV_ERR(err));
	}
	return HELD_WAIT_MS;
}

void cdc_capture_run(struct cdc_capture *c)
{
	struct cdc_err err;
	unsigned attempt = 0;

	cdc_board_post(c->setup.board, CDC_STATE_STARTING, NULL, cdc_clock_wall_us());
	while (!must_stop(c)) {
		enum cdc_code rc;
		uint64_t wait_ms, end_ms;

		memset(&err, 0, sizeof(err));
		cdc_board_beat(c->setup.board, cdc_clock_mono_ms());
		c->was_streaming = false;
		rc = session(c, &err);
		if (rc == CDC_STOPPED)
			break;
		if (!rc) {
			attempt = 0;
			continue;
		}
		/* A role that could and may not is often about to be mended: a password that is
		 * changed here and there.  One that never could is a person's to mend. */
		if (cdc_code_class(rc) != CDC_CLASS_RETRY && !(rc == CDC_AUTH && c->has_streamed)) {
			if (rc == CDC_GAP)
				offer_resync(c, &err);
			cdc_board_post(c->setup.board, CDC_STATE_FAILED, &err, cdc_clock_wall_us());
			LOG_ERROR(&c->setup.log, "capture_failed",
				  KV("connection", c->setup.connection),
				  KV("slot", c->setup.plan.slot), KV_ERR(&err));
			if (rc != CDC_GAP || !wait_for_word(c))
				return;
			cdc_board_post(c->setup.board, CDC_STATE_STARTING, NULL,
				       cdc_clock_wall_us());
			continue;
		}
		attempt = c->was_streaming ? 1 : attempt + 1;
		wait_ms = cdc_backoff_ms(attempt, cdc_backoff_random());
		cdc_metric_add(&c->setup.metrics->reconnects, 1);
		cdc_board_post(c->setup.board, CDC_STATE_WAITING, &err, cdc_clock_wall_us());
		if (rc == CDC_HELD)
			wait_ms = wait_for_holder(c, &err);
		else
			c->held_ms = 0;
		if (rc != CDC_HELD && cdc_log_is_due(attempt))
			LOG_WARN(&c->setup.log, "capture_interrupted",
				 KV("connection", c->setup.connection),
				 KV("slot", c->setup.plan.slot), KV("attempt", attempt),
				 KV("wait_ms", wait_ms), KV_ERR(&err));
		for (end_ms = cdc_clock_mono_ms() + wait_ms; cdc_clock_mono_ms() < end_ms;) {
			uint64_t left = end_ms - cdc_clock_mono_ms();

			cdc_board_beat(c->setup.board, cdc_clock_mono_ms());
			if (cdc_stop_wait(c->setup.stop, left > 1000 ? 1000 : left))
				break;
		}
	}
	cdc_board_post(c->setup.board, CDC_STATE_ENDED, NULL, cdc_clock_wall_us());
}
