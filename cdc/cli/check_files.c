#include "cdc/cli/check_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cdc/buffer/buffer.h"
#include "cdc/cli/data_dir.h"
#include "cdc/record/id.h"
#include "cdc/store/store.h"

struct looking {
	const struct cdc_config *config;
	cdc_finding_fn *found;
	void *arg;
	bool is_held; /* a walpost runs with the folder */
};

static void tell(const struct looking *l, enum cdc_verdict verdict, const char *name,
		 const char *text, const char *remedy)
{
	struct cdc_finding f = {.verdict = verdict};

	(void)snprintf(f.name, sizeof(f.name), "%s", name);
	(void)snprintf(f.text, sizeof(f.text), "%s", text);
	(void)snprintf(f.remedy, sizeof(f.remedy), "%s", remedy);
	l->found(l->arg, &f);
}

static void tell_error(const struct looking *l, const char *name, const struct cdc_err *err)
{
	tell(l, CDC_FAIL, name, err->msg, err->remedy);
}

/* --- the folder ------------------------------------------------------------------------ */

static void tell_room(const struct looking *l, size_t feed_n, uint64_t held_bytes,
		      const struct cdc_err *holder)
{
	const uint64_t want = l->config->max_bytes * feed_n;
	char text[400], who[160] = "";
	uint64_t free_bytes;
	struct statvfs fs;
	bool is_short;

	if (statvfs(l->config->data_dir, &fs) != 0) {
		(void)snprintf(text, sizeof(text), "data_dir %.200s: %s", l->config->data_dir,
			       strerror(errno));
		tell(l, CDC_FAIL, "data_dir", text, "");
		return;
	}
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	is_short = free_bytes + held_bytes < want;
	if (l->is_held)
		(void)snprintf(who, sizeof(who), "; in use: %.120s", holder->msg);
	(void)snprintf(text, sizeof(text),
		       "%.120s can be written, %llu MiB free; the buffers have %llu MiB of at most "
		       "%llu MiB%s",
		       l->config->data_dir, (unsigned long long)(free_bytes >> 20),
		       (unsigned long long)(held_bytes >> 20), (unsigned long long)(want >> 20),
		       who);
	tell(l, is_short ? CDC_WARN : CDC_PASS, "data_dir", text,
	     is_short ? "free disk space, or set buffer.max_bytes so that it fits" : "");
}

/* --- what is in it --------------------------------------------------------------------- */

/* *ret_store NULL: there is none.  False: it cannot be looked at. */
static bool check_state(const struct looking *l, struct cdc_store **ret_store)
{
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = cdc_store_attach(l->config->data_dir, ret_store, &err);
	switch (rc) {
	case CDC_OK:
		tell(l, CDC_PASS, "state", "state.db is whole and of this version", "");
		return true;
	case CDC_MISSING:
		*ret_store = NULL;
		tell(l, CDC_PASS, "state", "there is no state.db yet: it would be a first start",
		     "");
		return true;
	case CDC_EPOCH:
		if (!l->is_held) {
			(void)cdc_err_remedy(&err,
					     "walpost run brings it up to date; keep a copy of "
					     "data_dir in case you want to go back");
			tell(l, CDC_WARN, "state", err.msg, err.remedy);
			return false;
		}
		(void)cdc_err_remedy(&err, "check with the program that runs");
		break;
	default:
		break;
	}
	tell_error(l, "state", &err);
	return false;
}

/* Can what is parked be read with the key that there is? */
static void check_master_key(const struct looking *l, struct cdc_store *store)
{
	struct cdc_err err;

	memset(&err, 0, sizeof(err));
	if (cdc_store_unlock(store, l->config->master_key, &err))
		tell_error(l, "master_key", &err);
	else
		tell(l, CDC_PASS, "master_key", "what is parked can be read", "");
}

/* Do state and buffer belong together, as a start would see it? */
static void judge_pair(const struct looking *l, const struct cdc_feed *feed, bool has_row,
		       const struct cdc_slot_row *row, const struct cdc_buffer_look *look)
{
	const unsigned generation = CDC_EPOCH_GENERATION(look->state.epoch);
	char text[400], at[CDC_LSN_TEXT];

	if (!has_row && look->state.epoch) {
		(void)snprintf(text, sizeof(text),
			       "slot %s: the buffer was written with a state.db that is no longer "
			       "there",
			       feed->slot);
		tell(l, CDC_FAIL, "buffer", text,
		     "restore state.db beside the buffer, or start afresh with an empty data_dir");
	} else if (has_row && generation > row->generation) {
		(void)snprintf(text, sizeof(text),
			       "slot %s: state.db is older than the buffer (generation %u, the "
			       "buffer has %u)",
			       feed->slot, row->generation, generation);
		tell(l, CDC_FAIL, "buffer", text,
		     "restore the state.db that belongs to this buffer");
	} else {
		(void)cdc_lsn_format(look->state.durable, at);
		(void)snprintf(text, sizeof(text),
			       "slot %s: %llu MiB, read up to %s, generation %u", feed->slot,
			       (unsigned long long)(look->bytes >> 20), at,
			       has_row ? row->generation : 0);
		tell(l, CDC_PASS, "buffer", text, "");
	}
}

/* Tells of one buffer; returns its bytes on disk. */
static uint64_t check_buffer(const struct looking *l, const struct cdc_feed *feed,
			     struct cdc_store *store, bool is_state_known)
{
	struct cdc_slot_row row;
	struct cdc_buffer_look look;
	struct cdc_err err;
	char text[300];
	bool has_row = false;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	if (store)
		has_row = cdc_store_slot_get(store, feed->connection->name, feed->slot, &row,
					     NULL) == CDC_OK;
	rc = cdc_buffer_local.look(l->config->data_dir, feed->slot, &look, &err);
	if (rc == CDC_MISSING && !has_row) {
		(void)snprintf(text, sizeof(text), "slot %s: there is none yet", feed->slot);
		tell(l, CDC_PASS, "buffer", text, "");
	} else if (rc == CDC_MISSING) {
		(void)snprintf(text, sizeof(text),
			       "slot %s was read, and its buffer is no longer there: what was not "
			       "delivered is missing",
			       feed->slot);
		tell(l, CDC_FAIL, "buffer", text,
		     "restore the buffer beside state.db, or start afresh with an empty data_dir "
		     "and copy the tables once");
	} else if (rc) {
		tell_error(l, "buffer", &err);
	} else if (is_state_known) {
		judge_pair(l, feed, has_row, &row, &look);
	}
	return rc ? 0 : look.bytes;
}

void cdc_check_files(const struct cdc_config *config, const struct cdc_feed *feeds, size_t feed_n,
		     cdc_finding_fn *found, void *arg)
{
	struct looking l = {.config = config, .found = found, .arg = arg};
	const bool was_there = access(config->data_dir, F_OK) == 0;
	struct cdc_store *store = NULL;
	struct cdc_err holder;
	uint64_t bytes = 0;
	bool is_state_known;
	int fd = -1;
	enum cdc_code rc;

	memset(&holder, 0, sizeof(holder));
	rc = cdc_data_dir_lock(config->data_dir, &fd, &holder);
	l.is_held = rc == CDC_HELD;
	if (rc && !l.is_held) {
		tell_error(&l, "data_dir", &holder);
		return;
	}
	/* One that starts now is not to find it taken. */
	if (was_there && fd >= 0) {
		(void)close(fd);
		fd = -1;
	}
	is_state_known = check_state(&l, &store);
	if (store)
		check_master_key(&l, store);
	for (size_t i = 0; i < feed_n; i++)
		bytes += check_buffer(&l, &feeds[i], store, is_state_known);
	cdc_store_close(store);
	tell_room(&l, feed_n, bytes, &holder);
	if (fd >= 0) {
		/* check leaves nothing behind */
		char lock[4200];

		(void)close(fd);
		(void)snprintf(lock, sizeof(lock), "%s/lock", config->data_dir);
		(void)unlink(lock);
		(void)rmdir(config->data_dir);
	}
}
