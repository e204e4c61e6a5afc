/* The store's one thread, what waits for it, and how other threads wait for it. */
#include "cdc/store/store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cdc/base/clock.h"
#include "cdc/store/attempt_queue.h"
#include "cdc/store/checkpoint.h"
#include "cdc/store/cursor.h"
#include "cdc/store/request.h"
#include "cdc/store/vault.h"

/* After a failed write: first wait, and the longest. */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000

#define ATTEMPTS_MS 200 /* the log of requests is written so often, or with a checkpoint */

#define LOOK_MS 250 /* whether another process has written something */

struct cdc_store {
	pthread_t thread;

	pthread_mutex_t mu;
	pthread_cond_t work; /* for the store thread */
	pthread_cond_t done; /* for callers */
	/* guarded by mu */
	struct cdc_store_request *first, *last;
	struct cdc_checkpoint *waiting;
	uint64_t ticket;  /* last one given out */
	uint64_t durable; /* everything up to it is on disk or replaced */
	uint64_t failed;  /* highest ticket whose write failed, and why */
	struct cdc_err failure;
	struct cdc_err err; /* of the last write; CDC_OK when it worked */
	struct cdc_attempt_queue attempts;
	uint64_t attempts_ms; /* they are written then, without a checkpoint if there is none */
	bool attempts_failed; /* before then, a checkpoint is written without them */
	bool is_urgent;       /* somebody waits for a checkpoint */
	bool is_stopping;
	bool is_touched; /* somebody has left commands, perhaps */

	/* the store thread's own */
	struct cdc_database db;
	uint64_t retry_at_ms, retry_ms;
	uint64_t look_ms; /* the next look at changes; UINT64_MAX: never */
	int64_t changes;
};

/* --- callers ------------------------------------------------------------------------ */

enum cdc_code cdc_store_ask(struct cdc_store *s, struct cdc_store_request *r, struct cdc_err *err)
{
	(void)pthread_mutex_lock(&s->mu);
	if (s->last)
		s->last->next = r;
	else
		s->first = r;
	s->last = r;
	(void)pthread_cond_signal(&s->work);
	while (!r->is_done)
		(void)pthread_cond_wait(&s->done, &s->mu);
	(void)pthread_mutex_unlock(&s->mu);
	if (r->rc && err)
		*err = r->err;
	return r->rc;
}

enum cdc_code cdc_store_ask_read(struct cdc_store *s, cdc_database_fn *body, void *arg,
				 struct cdc_err *err)
{
	struct cdc_store_request r = {.body = body, .arg = arg};

	return cdc_store_ask(s, &r, err);
}

enum cdc_code cdc_store_ask_write(struct cdc_store *s, cdc_database_fn *body, void *arg,
				  struct cdc_err *err)
{
	struct cdc_store_request r = {.body = body, .arg = arg, .is_write = true};

	return cdc_store_ask(s, &r, err);
}

static uint64_t hand_over(struct cdc_store *s, const struct cdc_cursor *c, bool is_urgent)
{
	struct cdc_checkpoint *new = cdc_checkpoint_new(c), *old;
	uint64_t ticket;

	if (!new)
		return 0;
	(void)pthread_mutex_lock(&s->mu);
	old = cdc_checkpoints_put(&s->waiting, new);
	ticket = ++s->ticket;
	s->is_urgent |= is_urgent;
	(void)pthread_cond_signal(&s->work);
	(void)pthread_mutex_unlock(&s->mu);
	cdc_checkpoints_free(old);
	return ticket;
}

uint64_t cdc_store_checkpoint(struct cdc_store *s, const struct cdc_cursor *c)
{
	return hand_over(s, c, false);
}

bool cdc_store_attempt_room(struct cdc_store *s, const char *sync,
			    const struct cdc_attempt_row *row)
{
	bool has_room;

	(void)pthread_mutex_lock(&s->mu);
	has_room = cdc_attempt_queue_has_room(&s->attempts, sync, row);
	(void)pthread_mutex_unlock(&s->mu);
	return has_room;
}

bool cdc_store_attempt(struct cdc_store *s, const char *sync, const struct cdc_attempt_row *row,
		       const struct cdc_attempt_ring *ring)
{
	struct cdc_attempt *a = cdc_attempt_new(row);
	bool is_taken;

	if (!a)
		return false;
	(void)pthread_mutex_lock(&s->mu);
	if (!s->attempts.n) {
		s->attempts_ms = cdc_clock_mono_ms() + ATTEMPTS_MS;
		(void)pthread_cond_signal(&s->work);
	}
	is_taken = cdc_attempt_queue_has_room(&s->attempts, sync, row) &&
		   cdc_attempt_queue_put(&s->attempts, sync, a, ring);
	(void)pthread_mutex_unlock(&s->mu);
	if (!is_taken)
		free(a);
	return is_taken;
}

uint64_t cdc_store_checkpointed(struct cdc_store *s)
{
	uint64_t durable;

	(void)pthread_mutex_lock(&s->mu);
	durable = s->durable;
	(void)pthread_mutex_unlock(&s->mu);
	return durable;
}

enum cdc_code cdc_store_cursor_put(struct cdc_store *s, const struct cdc_cursor *c,
				   struct cdc_err *err)
{
	uint64_t ticket = hand_over(s, c, true);
	enum cdc_code rc = CDC_OK;

	if (!ticket)
		return cdc_err_set(err, CDC_NOMEM, "cursor of %s: out of memory", c->sync);
	(void)pthread_mutex_lock(&s->mu);
	while (s->durable < ticket && s->failed < ticket)
		(void)pthread_cond_wait(&s->done, &s->mu);
	if (s->durable < ticket) {
		rc = s->failure.code;
		if (err)
			*err = s->failure;
	}
	(void)pthread_mutex_unlock(&s->mu);
	return rc;
}

enum cdc_code cdc_store_error(struct cdc_store *s, struct cdc_err *err)
{
	enum cdc_code rc;

	(void)pthread_mutex_lock(&s->mu);
	rc = s->err.code;
	if (rc && err)
		*err = s->err;
	(void)pthread_mutex_unlock(&s->mu);
	return rc;
}

/* --- the thread --------------------------------------------------------------------- */

/* Whether the waiting checkpoints should be written now.  Under mu. */
static bool is_due(const struct cdc_store *s)
{
	return s->waiting &&
	       (s->is_urgent || s->is_stopping || cdc_clock_mono_ms() >= s->retry_at_ms);
}

/* The same for the log of requests.  Under mu. */
static bool has_due_attempts(const struct cdc_store *s)
{
	return s->attempts.n && (s->is_stopping || cdc_clock_mono_ms() >= s->attempts_ms);
}

/* Under mu. */
static uint64_t next_ms(const struct cdc_store *s)
{
	uint64_t at_ms = s->look_ms;

	if (s->waiting && s->retry_at_ms < at_ms)
		at_ms = s->retry_at_ms;
	return s->attempts.n && s->attempts_ms < at_ms ? s->attempts_ms : at_ms;
}

/* Under mu. */
static void wait_for_work(struct cdc_store *s)
{
	while (!s->first && !s->is_stopping && !is_due(s) && !has_due_attempts(s) &&
	       cdc_clock_mono_ms() < s->look_ms) {
		const uint64_t at_ms = next_ms(s);
		const struct timespec until = {.tv_sec = (time_t)(at_ms / 1000),
					       .tv_nsec = (long)(at_ms % 1000) * 1000000};

		if (at_ms != UINT64_MAX)
			(void)pthread_cond_timedwait(&s->work, &s->mu, &until);
		else
			(void)pthread_cond_wait(&s->work, &s->mu);
	}
}

/* What a write that ended says of all writes.  Under mu. */
static void note_outcome(struct cdc_store *s, enum cdc_code rc, const struct cdc_err *err)
{
	if (rc)
		s->err = *err;
	else
		s->err.code = CDC_OK;
}

/* Under mu. */
static void note_failure(struct cdc_store *s, uint64_t ticket, const struct cdc_err *err)
{
	s->failed = ticket;
	s->failure = *err;
	s->retry_ms = s->retry_ms ? s->retry_ms * 2 : RETRY_MIN_MS;
	if (s->retry_ms > RETRY_MAX_MS)
		s->retry_ms = RETRY_MAX_MS;
	s->retry_at_ms = cdc_clock_mono_ms() + s->retry_ms;
}

/* What one transaction writes. */
struct turn {
	struct cdc_checkpoint *checkpoints;
	struct cdc_attempt_queue attempts;
};

static enum cdc_code write_turn(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	struct turn *t = arg;
	enum cdc_code rc = cdc_cursors_write(db, t->checkpoints, err);

	return rc ? rc : cdc_attempts_write(db, &t->attempts, err);
}

/* Under mu; returns what is to be freed without it. */
static struct cdc_checkpoint *end_turn(struct cdc_store *s, struct turn *t, uint64_t ticket,
				       enum cdc_code rc, const struct cdc_err *err)
{
	struct cdc_checkpoint *dead = t->checkpoints;

	note_outcome(s, rc, err);
	if (!rc && t->attempts.n)
		s->attempts_failed = false;
	if (rc && t->attempts.n) {
		s->attempts_failed = true;
		s->attempts_ms = cdc_clock_mono_ms() + RETRY_MAX_MS;
		cdc_attempt_queue_put_back(&s->attempts, &t->attempts);
	}
	if (!t->checkpoints)
		return NULL;
	if (rc) {
		dead = cdc_checkpoints_put_back(&s->waiting, t->checkpoints);
		note_failure(s, ticket, err);
		return dead;
	}
	s->durable = ticket;
	s->retry_ms = 0;
	s->retry_at_ms = 0;
	return dead;
}

/* Writes every waiting checkpoint, the log of requests, or both in one transaction.  Called and
 * left with mu held. */
static void run_turn(struct cdc_store *s, bool has_checkpoints, bool has_attempts)
{
	struct turn t = {0};
	struct cdc_checkpoint *dead;
	uint64_t ticket = s->ticket;
	struct cdc_err err = {0};
	enum cdc_code rc;

	if (has_checkpoints) {
		t.checkpoints = s->waiting;
		s->waiting = NULL;
		s->is_urgent = false;
	}
	if (has_attempts) {
		t.attempts = s->attempts;
		s->attempts = (struct cdc_attempt_queue){0};
	}
	(void)pthread_mutex_unlock(&s->mu);
	rc = cdc_database_write(&s->db, write_turn, &t, &err);
	(void)pthread_mutex_lock(&s->mu);
	dead = end_turn(s, &t, ticket, rc, &err);
	(void)pthread_cond_broadcast(&s->done);
	(void)pthread_mutex_unlock(&s->mu);
	cdc_checkpoints_free(dead);
	cdc_attempt_queue_clear(&t.attempts);
	(void)pthread_mutex_lock(&s->mu);
}

/* Carries out the first request.  Called and left with mu held. */
static void run_request(struct cdc_store *s)
{
	struct cdc_store_request *r = s->first;
	struct cdc_checkpoint *dead = NULL;
	enum cdc_code rc;

	s->first = r->next;
	if (!s->first)
		s->last = NULL;
	(void)pthread_mutex_unlock(&s->mu);
	rc = r->is_write ? cdc_database_write(&s->db, r->body, r->arg, &r->err)
			 : cdc_database_read(&s->db, r->body, r->arg, &r->err);
	(void)pthread_mutex_lock(&s->mu);
	if (r->is_write)
		note_outcome(s, rc, &r->err);
	/* Before the caller knows, and in the one thread that writes: none can slip through. */
	if (!rc && r->forgets)
		dead = cdc_checkpoints_take(&s->waiting, r->forgets);
	r->rc = rc;
	r->is_done = true; /* from here on r may be gone */
	(void)pthread_cond_broadcast(&s->done);
	(void)pthread_mutex_unlock(&s->mu);
	cdc_checkpoints_free(dead);
	(void)pthread_mutex_lock(&s->mu);
}

/* Has another process written something?  Called and left with mu held. */
static void look_for_changes(struct cdc_store *s)
{
	int64_t changes = s->changes;
	enum cdc_code rc;

	(void)pthread_mutex_unlock(&s->mu);
	rc = cdc_database_changes(&s->db, &changes, NULL);
	(void)pthread_mutex_lock(&s->mu);
	s->look_ms = cdc_clock_mono_ms() + (rc ? RETRY_MAX_MS : LOOK_MS);
	if (rc || changes == s->changes)
		return;
	s->changes = changes;
	s->is_touched = true;
}

static void *store_main(void *arg)
{
	struct cdc_store *s = arg;
	bool is_last = false;

	(void)pthread_mutex_lock(&s->mu);
	while (!is_last) {
		wait_for_work(s);
		/* At stop whatever waits is tried once more, and no longer. */
		is_last = s->is_stopping && !s->first;
		/* The last checkpoint, and one that somebody waits for, share nobody's fate. */
		if (is_due(s))
			run_turn(s, true, !s->attempts_failed && !s->is_urgent && !s->is_stopping);
		if (has_due_attempts(s))
			run_turn(s, false, true);
		if (s->first)
			run_request(s);
		if (!is_last && cdc_clock_mono_ms() >= s->look_ms)
			look_for_changes(s);
	}
	(void)pthread_mutex_unlock(&s->mu);
	return NULL;
}

/* --- opening ------------------------------------------------------------------------ */

static void store_free(struct cdc_store *s)
{
	cdc_database_clear(&s->db);
	cdc_checkpoints_free(s->waiting);
	cdc_attempt_queue_clear(&s->attempts);
	(void)pthread_cond_destroy(&s->work);
	(void)pthread_cond_destroy(&s->done);
	(void)pthread_mutex_destroy(&s->mu);
	free(s);
}

static struct cdc_store *store_new(void)
{
	struct cdc_store *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;

	if (!s)
		return NULL;
	(void)pthread_mutex_init(&s->mu, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&s->work, &attr);
	(void)pthread_cond_init(&s->done, &attr);
	(void)pthread_condattr_destroy(&attr);
	return s;
}

static enum cdc_code open_or_attach(const char *dir, bool is_attached, struct cdc_store **ret,
				    struct cdc_err *err)
{
	struct cdc_store *s = store_new();
	enum cdc_code rc;
	int failed;

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	s->look_ms = is_attached ? UINT64_MAX : 0;
	s->is_touched = true;
	rc = is_attached ? cdc_database_attach(&s->db, dir, err)
			 : cdc_database_open(&s->db, dir, err);
	if (!rc) {
		failed = pthread_create(&s->thread, NULL, store_main, s);
		if (failed)
			rc = cdc_err_set(err, CDC_NOMEM, "store thread: %s", strerror(failed));
	}
	if (rc) {
		store_free(s);
		return rc;
	}
	*ret = s;
	return CDC_OK;
}

enum cdc_code cdc_store_open(const char *dir, struct cdc_store **ret, struct cdc_err *err)
{
	return open_or_attach(dir, false, ret, err);
}

enum cdc_code cdc_store_attach(const char *dir, struct cdc_store **ret, struct cdc_err *err)
{
	return open_or_attach(dir, true, ret, err);
}

struct unlocking {
	const char *master_key;
};

static enum cdc_code unlock(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct unlocking *u = arg;

	return cdc_vault_unlock(db, u->master_key, err);
}

enum cdc_code cdc_store_unlock(struct cdc_store *s, const char *master_key, struct cdc_err *err)
{
	struct unlocking u = {.master_key = master_key};

	/* Who attached writes nothing. */
	return s->db.is_attached ? cdc_store_ask_read(s, unlock, &u, err)
				 : cdc_store_ask_write(s, unlock, &u, err);
}

void cdc_store_touch(struct cdc_store *s)
{
	(void)pthread_mutex_lock(&s->mu);
	s->is_touched = true;
	(void)pthread_mutex_unlock(&s->mu);
}

bool cdc_store_take_touched(struct cdc_store *s)
{
	bool was_touched;

	(void)pthread_mutex_lock(&s->mu);
	was_touched = s->is_touched;
	s->is_touched = false;
	(void)pthread_mutex_unlock(&s->mu);
	return was_touched;
}

void cdc_store_close(struct cdc_store *s)
{
	if (!s)
		return;
	(void)pthread_mutex_lock(&s->mu);
	s->is_stopping = true;
	(void)pthread_cond_signal(&s->work);
	(void)pthread_mutex_unlock(&s->mu);
	(void)pthread_join(s->thread, NULL);
	store_free(s);
}
