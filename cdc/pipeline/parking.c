#include "cdc/pipeline/parking.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/pipeline/text.h"

#define WRITE_BYTES (1u << 20) /* of what stands aside: written at once */
#define BATCH_MAX   (1u << 30) /* a parked record is never larger */
#define BATCH_KEEP  (1u << 20)
#define LOOK_MS     1000 /* looks again: at a key that is due and not ready, and for barriers */
#define MISS_MAX_US INT64_C(600000000)
#define REPLAY_US   INT64_C(5000000) /* after an endpoint's trouble */
#define SET_BACK_US INT64_C(1000000) /* of the clock: less makes no wait much longer */
#define TOO_LARGE   "larger than max_record_bytes of its connection; only its key was kept"

/* What is to be said of one record in the store. */
struct note {
	struct cdc_park_change change; /* its texts are ours */
	char *reason, *response;
	uint64_t queue; /* whose head is to be looked up */
	bool has_queue;
	bool is_used; /* PUT: by the last collect, for what is being written */
};

struct slot {
	struct cdc_batch *batch;
	struct cdc_view *views;
	size_t view_cap;
	uint64_t queue;
	bool is_busy, is_replay, is_probe;
	uint64_t begun;
};

struct cdc_parking {
	struct cdc_parking_setup setup;
	struct slot slots[CDC_PARKING_SLOTS];
	size_t in_flight;
	struct slot *reading; /* between next, and send or put_off */
	struct note *notes;
	size_t note_n, note_cap;
	size_t put_n; /* notes of records that are parked: they are written with what stands aside
		       */
	struct cdc_park_change *changes; /* of the last collect */
	struct cdc_park_head *heads;
	size_t change_cap, head_cap;
	size_t aside_n; /* of its changes: those of the window */
	struct note
		given_up; /* by whole transactions: what is said of all records of the last one */
	struct cdc_park_totals totals;
	uint64_t room; /* bytes for what stands aside */
	bool is_full;  /* there is none for the first of it */
	uint64_t written_ms;
	int64_t wall_us;     /* the latest; 0: nothing was planned yet */
	uint64_t barrier_ms; /* the last look for what a barrier waits for */
	int64_t replay_us;
	size_t replay_max; /* records of a replay */
	bool is_replaying;
	struct cdc_id replay_id;            /* the first record of the replay that failed last, */
	uint64_t replay_failed_at;          /* and the engine's counter then */
	uint64_t parked_n, dead_n, large_n; /* told, for the log */
};

struct cdc_parking *cdc_parking_new(const struct cdc_parking_setup *setup)
{
	struct cdc_parking *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->setup = *setup;
	p->replay_max = setup->settings->batch_size;
	p->room = UINT64_MAX;
	return p;
}

static void clear_note(struct note *n)
{
	free(n->reason);
	free(n->response);
}

void cdc_parking_free(struct cdc_parking *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < CDC_PARKING_SLOTS; i++) {
		cdc_batch_free(p->slots[i].batch);
		free(p->slots[i].views);
	}
	for (size_t i = 0; i < p->note_n; i++)
		clear_note(&p->notes[i]);
	clear_note(&p->given_up);
	free(p->notes);
	free(p->changes);
	free(p->heads);
	free(p);
}

void cdc_parking_set_totals(struct cdc_parking *p, const struct cdc_park_totals *totals)
{
	struct cdc_sync_metrics *m = p->setup.metrics;

	p->totals = *totals;
	cdc_metric_set(&m->parked, totals->waiting);
	cdc_metric_set(&m->parked_bytes, totals->bytes);
	cdc_metric_set(&m->dead, totals->dead + totals->replay);
}

const struct cdc_park_totals *cdc_parking_totals(const struct cdc_parking *p)
{
	return &p->totals;
}

static int64_t wait_us(const struct cdc_parking *p, uint64_t step)
{
	const struct cdc_opt_numbers *s = &p->setup.settings->retry_schedule;

	return (int64_t)s->items[step < s->n ? step : s->n - 1] * 1000;
}

/* --- notes -------------------------------------------------------------------------- */

/* The answer's words go with it, made readable.  NULL: no memory. */
static struct note *new_note(struct cdc_parking *p, const char *text, const char *response,
			     size_t len)
{
	struct note *n;

	if (p->note_n == p->note_cap) {
		size_t cap = p->note_cap ? p->note_cap * 2 : 16;
		struct note *grown = reallocarray(p->notes, cap, sizeof(*grown));

		if (!grown)
			return NULL;
		p->notes = grown;
		p->note_cap = cap;
	}
	n = &p->notes[p->note_n];
	*n = (struct note){0};
	n->reason = cdc_text_readable(text, strlen(text));
	n->response = cdc_text_readable(response, len);
	if (!n->reason || !n->response) {
		clear_note(n);
		return NULL;
	}
	n->change.reason = n->reason;
	n->change.response = n->response;
	p->note_n++;
	return n;
}

static void log_record(struct cdc_parking *p, const char *event, uint64_t number,
		       struct cdc_view view, int status, const char *reason)
{
	struct cdc_err table = {0};
	char id[CDC_ID_TEXT];
	size_t len;
	const char *name = cdc_view_table(view, &len);

	if (!cdc_log_is_due(number > UINT32_MAX ? UINT32_MAX : (unsigned)number))
		return;
	(void)cdc_id_format(&view.rec->id, id);
	(void)snprintf(table.msg, sizeof(table.msg), "%.*s", (int)len, name);
	LOG_WARN(&p->setup.log, event, KV("sync", p->setup.sync), KV("number", number),
		 KV("id", (const char *)id), KV("schema", (const char *)table.msg),
		 KV("status", status), KV("reason", reason));
}

/* --- taking ------------------------------------------------------------------------- */

static enum cdc_code end_sync(const char *sync, const struct cdc_trouble *t, bool is_barrier,
			      struct cdc_err *err)
{
	struct cdc_view view = cdc_item_view(t->item);
	size_t len;
	const char *table = cdc_view_table(view, &len);
	char id[CDC_ID_TEXT];

	(void)cdc_id_format(&t->item->rec->id, id);
	(void)cdc_err_set(err, CDC_TROUBLE,
			  "record %s of %.*s, a %s, is refused (%s)%s; the sync stops before it "
			  "and skips nothing",
			  id, (int)len, table, cdc_op_name((enum cdc_op)t->item->rec->op), t->text,
			  is_barrier ? " and cannot be set aside: what follows in its table must "
				       "not pass it"
				     : "");
	if (t->item->rec->op == CDC_OP_BACKFILL)
		return cdc_err_remedy(err,
				      "make the endpoint accept this record, then `walpost resume "
				      "%s`; or remove marks from the sync and start walpost again",
				      sync);
	if (is_barrier)
		return cdc_err_remedy(err,
				      "make the endpoint accept this record, then `walpost resume "
				      "%s`; or take %s out of the sync's operations and start "
				      "walpost again",
				      sync, cdc_op_name((enum cdc_op)t->item->rec->op));
	return cdc_err_remedy(err,
			      "make the endpoint accept this record, then `walpost resume %s`; or "
			      "set on_reject to dead_letter and start walpost again",
			      sync);
}

static enum cdc_code end_group(const char *sync, const struct cdc_trouble *t, struct cdc_err *err)
{
	size_t len;
	const char *table = cdc_view_table(cdc_item_view(t->item), &len);
	char id[CDC_ID_TEXT];

	(void)cdc_id_format(&t->item->rec->id, id);
	(void)cdc_err_set(err, CDC_TROUBLE,
			  "the transaction with the record %s of %.*s is refused (%s); the sync "
			  "stops before it and skips nothing",
			  id, (int)len, table, t->text);
	return cdc_err_remedy(err,
			      "make the endpoint accept this transaction, then `walpost resume "
			      "%s`; or set on_reject to dead_letter and start walpost again",
			      sync);
}

/* Its last note is of all the records, also of those that are not read yet. */
static void give_up_group(struct cdc_parking *p, const struct cdc_trouble *t)
{
	clear_note(&p->given_up);
	p->given_up = p->notes[--p->note_n];
	cdc_window_give_up_group(p->setup.window, t->item);
}

enum cdc_code cdc_parking_take(struct cdc_parking *p, const struct cdc_trouble *t, int64_t wall_us,
			       struct cdc_err *err)
{
	const struct cdc_deliver_settings *s = p->setup.settings;
	bool is_barrier = t->item->rec->flags & CDC_RECORD_BARRIER;
	bool is_last = s->order == CDC_ORDER_SYNC;
	bool is_grouped = cdc_window_is_grouped(p->setup.window, t->item);
	struct note *n;
	enum cdc_code rc = CDC_OK;

	if (is_grouped && s->on_reject == CDC_ON_REJECT_STOP)
		return end_group(p->setup.sync, t, err);
	if (!is_grouped && (is_barrier || (is_last && s->on_reject == CDC_ON_REJECT_STOP)))
		return end_sync(p->setup.sync, t, is_barrier, err);
	n = new_note(p, t->text, t->response ? t->response : "", t->response_len);
	if (!n)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a parked record");
	n->change.act = CDC_PARK_PUT;
	n->change.id = t->item->rec->id;
	n->change.state = is_last ? CDC_PARKED_DEAD : CDC_PARKED_WAITING;
	n->change.attempts = t->attempts;
	n->change.next_us = is_last ? 0 : wall_us + wait_us(p, 0);
	n->change.status = t->status;
	if (is_grouped)
		give_up_group(p, t);
	else if (is_last)
		cdc_window_give_up(p->setup.window, t->item);
	else
		rc = cdc_window_park(p->setup.window, t->item, err);
	if (rc) {
		clear_note(&p->notes[--p->note_n]);
		return rc;
	}
	p->put_n += !is_last; /* what comes behind a dead letter does not wait for it */
	log_record(p, is_last ? "record_dead" : "record_parked",
		   is_last ? ++p->dead_n : ++p->parked_n, cdc_item_view(t->item), t->status,
		   t->text);
	return CDC_OK;
}

/* --- writing ------------------------------------------------------------------------ */

static uint64_t bytes_of(const struct cdc_item *item)
{
	return item->was_parked ? 0 : item->rec->json_len;
}

bool cdc_parking_set_room(struct cdc_parking *p, uint64_t bytes)
{
	size_t n, aside;
	const struct cdc_item *first = cdc_window_aside(p->setup.window, &n, &aside);

	p->room = bytes;
	p->is_full = first && bytes_of(first) > bytes;
	return !p->is_full;
}

bool cdc_parking_must_write(const struct cdc_parking *p, uint64_t now_ms)
{
	size_t n, bytes;

	if (p->note_n > p->put_n)
		return true;
	(void)cdc_window_aside(p->setup.window, &n, &bytes);
	return n && !p->is_full &&
	       (bytes >= WRITE_BYTES || now_ms - p->written_ms >= CDC_PARKING_WRITE_MS);
}

static bool reserve(struct cdc_parking *p, size_t changes, size_t heads)
{
	if (p->change_cap < changes) {
		struct cdc_park_change *grown =
			reallocarray(p->changes, changes, sizeof(*p->changes));

		if (!grown)
			return false;
		p->changes = grown;
		p->change_cap = changes;
	}
	if (p->head_cap < heads) {
		struct cdc_park_head *grown = reallocarray(p->heads, heads, sizeof(*p->heads));

		if (!grown)
			return false;
		p->heads = grown;
		p->head_cap = heads;
	}
	return true;
}

static struct note *note_of(const struct cdc_parking *p, const struct cdc_item *item)
{
	for (size_t i = 0; i < p->note_n; i++) {
		if (p->notes[i].change.act == CDC_PARK_PUT &&
		    cdc_id_cmp(&p->notes[i].change.id, &item->rec->id) == 0)
			return &p->notes[i];
	}
	return NULL;
}

static void add_head(struct cdc_parking *p, uint64_t queue, size_t *n)
{
	for (size_t i = 0; i < *n && i < 64; i++) {
		if (p->heads[*n - 1 - i].key_hash == queue)
			return;
	}
	p->heads[(*n)++] = (struct cdc_park_head){.key_hash = queue};
}

/* What the others of its transaction got. */
static void set_given_up(const struct cdc_parking *p, const struct cdc_id *id,
			 struct cdc_park_change *c)
{
	if (p->given_up.reason && cdc_id_is_same_commit(&p->given_up.change.id, id))
		*c = p->given_up.change;
	else
		c->reason = "the transaction that it is of was given up";
	c->state = CDC_PARKED_DEAD;
}

enum cdc_code cdc_parking_collect(struct cdc_parking *p, uint64_t now_ms,
				  struct cdc_parking_write *ret, struct cdc_err *err)
{
	size_t n, bytes, change_n = 0, head_n = 0;
	struct cdc_item *item = cdc_window_aside(p->setup.window, &n, &bytes);
	uint64_t room = p->room;

	(void)now_ms;
	if (!reserve(p, n + p->note_n, n + p->note_n))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for parked records");
	p->aside_n = 0;
	/* What was collected and could not be written may have room no more. */
	for (size_t i = 0; i < p->note_n; i++)
		p->notes[i].is_used = false;
	for (; item && bytes_of(item) <= room; item = item->next) {
		struct note *note = note_of(p, item);
		struct cdc_park_change *c = &p->changes[change_n];
		uint64_t queue = cdc_window_queue_of(p->setup.window, item);

		room -= bytes_of(item);
		p->aside_n++;
		if (note)
			note->is_used = true;
		add_head(p, queue, &head_n);
		/* It was there; if it is no more, it was accepted meanwhile, or discarded. */
		if (cdc_parked_had(p->setup.parked, &item->rec->id))
			continue;
		change_n++;
		*c = note ? note->change : (struct cdc_park_change){.act = CDC_PARK_PUT};
		if (!note && cdc_window_is_given_up(p->setup.window, &item->rec->id))
			set_given_up(p, &item->rec->id, c);
		if (item->rec->flags & CDC_RECORD_TOO_LARGE) {
			c->state = CDC_PARKED_DEAD;
			c->reason = TOO_LARGE;
		}
		c->id = item->rec->id;
		c->view = cdc_item_view(item);
		c->key_hash = queue;
		c->table_hash = c->view.batch->tables[item->rec->table].hash;
	}
	for (size_t i = 0; i < p->note_n; i++) {
		if (p->notes[i].change.act != CDC_PARK_PUT)
			p->changes[change_n++] = p->notes[i].change;
		if (p->notes[i].has_queue)
			add_head(p, p->notes[i].queue, &head_n);
	}
	*ret = (struct cdc_parking_write){
		.changes = p->changes, .heads = p->heads, .n = change_n, .head_n = head_n};
	return CDC_OK;
}

static int64_t due_us(const struct cdc_parking *p, const struct cdc_parked_key *key)
{
	int64_t urgent = key->tried_us + CDC_PARKING_URGENT_MS * INT64_C(1000);

	int64_t due = key->due_us;

	if (due > urgent && cdc_window_has_barrier(p->setup.window, key->table_hash, &key->head))
		due = urgent;
	return due > key->put_off_us ? due : key->put_off_us;
}

static int64_t at_most(int64_t us, int64_t most_us)
{
	return us < most_us ? us : most_us;
}

/* When the key is looked at next.  What is further ahead than a wait can be was set by another
 * clock, or another schedule. */
static void plan(struct cdc_parking *p, struct cdc_parked_key *key, int64_t wall_us)
{
	int64_t longest = wait_us(p, key->step);

	if ((key->misses || key->must_be_alone) && longest < MISS_MAX_US)
		longest = MISS_MAX_US;
	key->due_us = at_most(key->due_us, wall_us + longest);
	key->put_off_us = at_most(key->put_off_us, wall_us + LOOK_MS * INT64_C(1000));
	key->tried_us = at_most(key->tried_us, wall_us);
	cdc_parked_wake(p->setup.parked, key, due_us(p, key));
}

static void set_head(struct cdc_parking *p, const struct cdc_park_head *head, int64_t wall_us)
{
	struct cdc_parked_key *key = cdc_parked_find(p->setup.parked, head->key_hash);
	uint64_t table_hash = key ? key->table_hash : 0;

	if (!key)
		return;
	if (!cdc_id_is_zero(&head->id)) {
		cdc_parked_set_head(key, head);
		plan(p, key, wall_us);
	} else if (!key->unwritten && !key->is_in_flight) {
		cdc_parked_remove(p->setup.parked, head->key_hash);
	}
	/* A barrier may have waited for what was the head. */
	cdc_window_unpark(p->setup.window, table_hash);
}

/* Until they are counted again. */
static void add_to_totals(struct cdc_parking *p, const struct cdc_parking_write *w)
{
	for (size_t i = 0; i < w->n; i++) {
		const struct cdc_park_change *c = &w->changes[i];

		if (c->act != CDC_PARK_PUT)
			continue;
		p->totals.bytes += c->view.rec->json_len;
		p->totals.waiting += c->state == CDC_PARKED_WAITING;
		p->totals.dead += c->state == CDC_PARKED_DEAD;
	}
}

/* They are written, but for those of what stands aside when that was not. */
static void drop_notes(struct cdc_parking *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->note_n; i++) {
		struct note *note = &p->notes[i];
		struct cdc_parked_key *key =
			note->has_queue ? cdc_parked_find(p->setup.parked, note->queue) : NULL;

		if (key)
			key->is_in_flight = false;
		if (note->change.act == CDC_PARK_PUT && !note->is_used)
			p->notes[kept++] = *note;
		else
			clear_note(note);
	}
	p->note_n = p->put_n = kept;
}

void cdc_parking_written(struct cdc_parking *p, const struct cdc_parking_write *w, uint64_t now_ms,
			 int64_t wall_us)
{
	size_t n, bytes;

	add_to_totals(p, w);
	for (size_t i = 0; i < p->aside_n; i++) {
		const struct cdc_item *item = cdc_window_aside(p->setup.window, &n, &bytes);

		if (item->rec->flags & CDC_RECORD_TOO_LARGE &&
		    !cdc_parked_had(p->setup.parked, &item->rec->id))
			log_record(p, "record_too_large", ++p->large_n, cdc_item_view(item), 0,
				   TOO_LARGE);
		cdc_window_written(p->setup.window);
	}
	drop_notes(p);
	p->aside_n = 0;
	for (size_t i = 0; i < w->head_n; i++)
		set_head(p, &w->heads[i], wall_us);
	p->written_ms = now_ms;
}

/* --- sending ------------------------------------------------------------------------ */

static struct slot *free_slot(struct cdc_parking *p)
{
	for (size_t i = 0; i < CDC_PARKING_SLOTS; i++) {
		if (!p->slots[i].is_busy)
			return &p->slots[i];
	}
	return NULL;
}

/* What was parked because of another key may have predecessors that are still in a lane. */
static bool is_ready(const struct cdc_parking *p, const struct cdc_parked_key *key)
{
	return key->hash && !key->is_in_flight && !cdc_id_is_zero(&key->head) &&
	       !cdc_parked_is_ahead(p->setup.parked, &key->head) &&
	       !(key->unwritten && cdc_id_cmp(&key->unwritten_id, &key->head) < 0) &&
	       (p->setup.settings->order == CDC_ORDER_NONE ||
		!cdc_window_has_key(p->setup.window, key->hash));
}

/* Is it before a moment that was at most most_us ahead?  The clock may have been set back. */
static bool waits(int64_t until_us, int64_t most_us, int64_t wall_us)
{
	return wall_us < until_us && until_us - wall_us <= most_us;
}

/* All keys when the clock was set back, and those that a barrier waits for now and then: one that
 * came makes them due. */
static void plan_again(struct cdc_parking *p, uint64_t now_ms, int64_t wall_us)
{
	struct cdc_parked *parked = p->setup.parked;
	bool is_set_back = !p->wall_us || wall_us + SET_BACK_US < p->wall_us;
	bool has_barriers = cdc_window_held(p->setup.window) &&
			    (!p->barrier_ms || now_ms - p->barrier_ms >= LOOK_MS);

	if (is_set_back || wall_us > p->wall_us)
		p->wall_us = wall_us;
	if (has_barriers)
		p->barrier_ms = now_ms;
	for (size_t i = 0; (is_set_back || has_barriers) && i < parked->cap; i++) {
		struct cdc_parked_key *key = &parked->keys[i];

		if (key->hash &&
		    (is_set_back ||
		     cdc_window_has_barrier(p->setup.window, key->table_hash, &key->head)))
			plan(p, key, wall_us);
	}
}

static struct cdc_parked_key *find_due(struct cdc_parking *p, uint64_t now_ms, int64_t wall_us)
{
	struct cdc_parked *parked = p->setup.parked;
	struct cdc_parked_key *key;
	int64_t at_us;

	plan_again(p, now_ms, wall_us);
	while ((key = cdc_parked_first(parked, &at_us)) && at_us <= wall_us) {
		int64_t due = due_us(p, key);
		bool is_due = due <= wall_us;

		cdc_parked_wake(parked, key, is_due ? wall_us + LOOK_MS * INT64_C(1000) : due);
		if (is_due && is_ready(p, key))
			return key;
	}
	return NULL;
}

static bool open_slot(struct slot *slot)
{
	if (!slot->batch)
		slot->batch = cdc_batch_new(BATCH_MAX);
	if (slot->batch)
		cdc_batch_reset(slot->batch, BATCH_KEEP);
	return slot->batch != NULL;
}

bool cdc_parking_next(struct cdc_parking *p, uint64_t now_ms, int64_t wall_us,
		      struct cdc_park_read *ret_read, struct cdc_batch **ret_batch)
{
	const struct cdc_deliver_settings *s = p->setup.settings;
	struct slot *slot = free_slot(p);
	struct cdc_parked_key *key;
	/* One that was refused without being sent would be read again before that is written.  What
	 * waits for room is no reason: a replay makes some. */
	bool may_replay = p->totals.replay && !p->is_replaying && p->note_n == p->put_n &&
			  !waits(p->replay_us, REPLAY_US, wall_us);
	bool is_probe;

	if ((!p->setup.parked->n && !may_replay) || !slot || !open_slot(slot) ||
	    !cdc_lanes_may_begin(p->setup.lanes, now_ms, &is_probe))
		return false;
	key = find_due(p, now_ms, wall_us);
	if (!key && !may_replay)
		return false;
	*ret_read = (struct cdc_park_read){.max = 1, .max_bytes = s->batch_bytes};
	slot->is_probe = is_probe;
	slot->is_replay = !key;
	if (key) {
		/* One that failed before is sent alone, so that it is known what fails; and so are
		 * all while what is in the store may not have been read again. */
		if (!key->attempts && !key->misses && !key->suspect.failures &&
		    !key->must_be_alone && !p->setup.parked->id_n)
			ret_read->max = s->batch_size;
		ret_read->key_hash = slot->queue = key->hash;
	} else {
		ret_read->max = p->replay_max;
		ret_read->is_replay = true;
	}
	*ret_batch = slot->batch;
	p->reading = slot;
	return true;
}

/* As after a failure that proves nothing: longer each time. */
static void miss(const struct cdc_parking *p, struct cdc_parked_key *key, int64_t wall_us)
{
	int64_t wait = wait_us(p, 0);

	for (unsigned i = 1; i < key->misses && wait < MISS_MAX_US; i++)
		wait *= 2;
	key->tried_us = wall_us;
	key->due_us = wall_us + (wait < MISS_MAX_US ? wait : MISS_MAX_US);
}

static void put_off(struct cdc_parking *p, struct cdc_parked_key *key, int64_t wall_us)
{
	key->put_off_us = wall_us + LOOK_MS * INT64_C(1000);
	plan(p, key, wall_us);
}

void cdc_parking_put_off(struct cdc_parking *p, int64_t wall_us)
{
	struct cdc_parked_key *key = cdc_parked_find(p->setup.parked, p->reading->queue);

	if (p->reading->is_replay)
		p->replay_us = wall_us + REPLAY_US;
	else if (key)
		put_off(p, key, wall_us);
	p->reading = NULL;
}

/* Fills the slot's views.  False: no memory. */
static bool view_all(struct slot *slot)
{
	size_t n = slot->batch->n;

	if (slot->view_cap < n) {
		struct cdc_view *grown = reallocarray(slot->views, n, sizeof(*grown));

		if (!grown)
			return false;
		slot->views = grown;
		slot->view_cap = n;
	}
	for (size_t i = 0; i < n; i++)
		slot->views[i] =
			(struct cdc_view){.rec = &slot->batch->records[i], .batch = slot->batch};
	return true;
}

/* Of what was read only what one request may hold; the rest is read again. */
static void keep_together(const struct cdc_parking *p, struct slot *slot, void *sink)
{
	const struct cdc_record *records = slot->batch->records;
	size_t n = 1;

	if (p->setup.settings->group == CDC_GROUP_TRANSACTION && slot->batch->n > 1) {
		while (n < slot->batch->n && cdc_id_is_same_commit(&records[n].id, &records[0].id))
			n++;
		slot->batch->n = n;
	}
	if (p->setup.sink->together && slot->batch->n > 1)
		slot->batch->n = p->setup.sink->together(sink, slot->views, slot->batch->n);
}

static bool has_too_large(const struct slot *slot)
{
	for (size_t i = 0; i < slot->batch->n; i++) {
		if (slot->batch->records[i].flags & CDC_RECORD_TOO_LARGE)
			return true;
	}
	return false;
}

/* No request can hold it: as if it had been refused. */
static enum cdc_code refuse_unsent(struct cdc_parking *p, struct slot *slot, const char *text,
				   int64_t wall_us, struct cdc_err *err);

enum cdc_code cdc_parking_send(struct cdc_parking *p, void *sink, bool waits, uint64_t now_ms,
			       int64_t wall_us, struct cdc_err *err)
{
	struct slot *slot = p->reading;
	struct cdc_parked_key *key =
		slot->is_replay ? NULL : cdc_parked_find(p->setup.parked, slot->queue);
	struct sink_job job = {.ticket = cdc_lanes_n(p->setup.lanes) + (size_t)(slot - p->slots),
			       .n = slot->batch->n,
			       .is_replay = slot->is_replay,
			       .is_repeat = slot->is_replay || (key && key->attempts)};
	struct cdc_err why = {0};
	enum cdc_code rc;

	if (waits || job.n == 0) {
		if (slot->is_replay)
			p->totals.replay = 0;
		cdc_parking_put_off(p, wall_us);
		return CDC_OK;
	}
	if (!view_all(slot)) {
		cdc_parking_put_off(p, wall_us);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	}
	keep_together(p, slot, sink);
	job.views = slot->views;
	job.n = slot->batch->n;
	if (has_too_large(slot))
		return refuse_unsent(p, slot, TOO_LARGE, wall_us, err);
	rc = p->setup.sink->submit(sink, &job, &why);
	if (rc == CDC_LIMIT)
		return refuse_unsent(p, slot, why.msg, wall_us, err);
	if (rc) {
		cdc_parking_put_off(p, wall_us);
		if (err)
			*err = why;
		return rc;
	}
	p->reading = NULL;
	slot->is_busy = true;
	p->in_flight++;
	p->is_replaying |= slot->is_replay;
	slot->begun = cdc_lanes_begin(p->setup.lanes, slot->is_probe, job.n, now_ms);
	if (key) {
		key->is_in_flight = true;
		key->tried_us = wall_us;
	}
	if (job.is_repeat)
		cdc_metric_add(&p->setup.metrics->retried, 1);
	return CDC_OK;
}

/* --- answers ------------------------------------------------------------------------ */

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for a parked record");
}

/* One change for a record of the slot.  False: no memory. */
static struct note *note_record(struct cdc_parking *p, const struct slot *slot, size_t i,
				enum cdc_park_act act, const struct sink_result *r)
{
	struct note *n = new_note(p, r->text, r->response ? r->response : "", r->response_len);

	if (!n)
		return NULL;
	n->change.act = act;
	n->change.id = slot->batch->records[i].id;
	n->change.status = r->status;
	n->queue = slot->queue;
	n->has_queue = !slot->is_replay;
	return n;
}

static enum cdc_code accept_slot(struct cdc_parking *p, struct slot *slot,
				 struct cdc_parked_key *key, struct cdc_err *err)
{
	static const struct sink_result nothing;

	/* Those without a note are sent again, and that is all. */
	for (size_t i = 0; i < slot->batch->n; i++) {
		if (!note_record(p, slot, i, CDC_PARK_DONE, &nothing)) {
			if (key)
				key->is_in_flight = false;
			return no_memory(err);
		}
	}
	cdc_metric_add(&p->setup.metrics->delivered, slot->batch->n);
	if (slot->is_replay) {
		size_t most = p->setup.settings->batch_size;

		p->replay_max = p->replay_max * 2 < most ? p->replay_max * 2 : most;
	}
	return CDC_OK;
}

/* Was it, most likely, not the records? */
static bool is_endpoint_trouble(const struct sink_result *r)
{
	return r->is_never_record || r->is_transient;
}

static enum cdc_code fail_replay(struct cdc_parking *p, const struct slot *slot,
				 const struct sink_result *r, const struct cdc_attempt *a,
				 int64_t wall_us, struct cdc_err *err)
{
	const struct cdc_id *id = &slot->batch->records[0].id;
	bool is_proved = !r->is_never_record && cdc_id_cmp(id, &p->replay_id) == 0 &&
			 a->accepted_begun > p->replay_failed_at;

	p->replay_id = *id;
	p->replay_failed_at = a->at;
	if (slot->batch->n > 1 && !r->is_never_record)
		p->replay_max = (slot->batch->n + 1) / 2;
	if (is_endpoint_trouble(r) && !is_proved)
		p->replay_us = wall_us + REPLAY_US;
	else if (slot->batch->n > 1)
		return CDC_OK;
	else
		return note_record(p, slot, 0, CDC_PARK_REFUSED, r) ? CDC_OK : no_memory(err);
	return CDC_OK;
}

static enum cdc_code fail_head(struct cdc_parking *p, const struct slot *slot,
			       struct cdc_parked_key *key, const struct sink_result *r,
			       const struct cdc_attempt *a, int64_t wall_us, struct cdc_err *err)
{
	enum cdc_attempt_verdict verdict;
	struct note *n;

	if (slot->batch->n > 1) {
		key->must_be_alone = true;
		key->due_us = is_endpoint_trouble(r) ? wall_us + wait_us(p, 0) : wall_us;
		return CDC_OK;
	}
	verdict = cdc_parked_judge(key, a);
	if (verdict == CDC_ATTEMPT_NOTHING) {
		miss(p, key, wall_us);
		return CDC_OK;
	}
	key->due_us = wall_us + wait_us(p, key->step);
	n = note_record(p, slot, 0, verdict == CDC_ATTEMPT_DEAD ? CDC_PARK_DEAD : CDC_PARK_FAILED,
			r);
	if (!n)
		return no_memory(err);
	n->change.attempts = key->attempts;
	n->change.step = key->step;
	n->change.next_us = key->due_us;
	key->is_in_flight = true; /* until it is written */
	if (verdict == CDC_ATTEMPT_DEAD)
		log_record(p, "record_dead", ++p->dead_n, slot->views[0], r->status, r->text);
	return CDC_OK;
}

static enum cdc_code fail_slot(struct cdc_parking *p, struct slot *slot, struct cdc_parked_key *key,
			       const struct sink_result *r, uint64_t at, uint64_t now_ms,
			       int64_t wall_us, struct cdc_err *err)
{
	const struct cdc_deliver_settings *s = p->setup.settings;
	const struct cdc_attempt attempt = {
		.result = r,
		.at = at,
		.accepted_begun = cdc_lanes_accepted_begun(p->setup.lanes),
		.now_ms = now_ms,
		.is_urgent = !slot->is_probe && r->status && key &&
			     cdc_window_has_barrier(p->setup.window, key->table_hash, &key->head),
		.steps = s->retry_schedule.n,
		.attempts = (unsigned)s->park.attempts,
		.after_ms = s->park.after_ms,
	};

	enum cdc_code rc;

	if (slot->is_replay)
		return fail_replay(p, slot, r, &attempt, wall_us, err);
	if (!key)
		return CDC_OK;
	key->is_in_flight = false;
	rc = fail_head(p, slot, key, r, &attempt, wall_us, err);
	plan(p, key, wall_us);
	return rc;
}

static enum cdc_code refuse_unsent(struct cdc_parking *p, struct slot *slot, const char *text,
				   int64_t wall_us, struct cdc_err *err)
{
	struct sink_result r = {.outcome = SINK_REJECT, .retry_after_ms = SINK_NO_RETRY_AFTER};
	struct cdc_parked_key *key =
		slot->is_replay ? NULL : cdc_parked_find(p->setup.parked, slot->queue);
	uint64_t at = cdc_lanes_failed(p->setup.lanes, &r, false, false, 0, 0);

	p->reading = NULL;
	(void)snprintf(r.text, sizeof(r.text), "%.199s", text);
	if (key && slot->batch->n == 1)
		key->attempts += !key->attempts; /* that it does not fit is proof enough */
	return fail_slot(p, slot, key, &r, at, 0, wall_us, err);
}

enum cdc_code cdc_parking_bury(struct cdc_parking *p, const char *reason, struct cdc_err *err)
{
	struct sink_result r = {.outcome = SINK_REJECT, .retry_after_ms = SINK_NO_RETRY_AFTER};
	struct slot *slot = p->reading;
	struct cdc_parked_key *key =
		slot->is_replay ? NULL : cdc_parked_find(p->setup.parked, slot->queue);
	struct note *n;

	p->reading = NULL;
	if (!view_all(slot))
		return no_memory(err);
	(void)snprintf(r.text, sizeof(r.text), "%.199s", reason);
	n = note_record(p, slot, 0, slot->is_replay ? CDC_PARK_REFUSED : CDC_PARK_DEAD, &r);
	if (!n)
		return no_memory(err);
	if (key) {
		n->change.attempts = key->attempts;
		n->change.step = key->step;
		key->is_in_flight = true; /* until it is written */
	}
	log_record(p, "record_unreadable", ++p->dead_n, slot->views[0], 0, r.text);
	return CDC_OK;
}

enum cdc_code cdc_parking_result(struct cdc_parking *p, const struct sink_result *r,
				 uint64_t now_ms, int64_t wall_us, uint64_t random,
				 struct cdc_err *err)
{
	struct slot *slot = &p->slots[r->ticket - cdc_lanes_n(p->setup.lanes)];
	struct cdc_parked_key *key =
		slot->is_replay ? NULL : cdc_parked_find(p->setup.parked, slot->queue);
	struct sink_result refused = *r;
	enum cdc_code rc = cdc_lanes_is_over(p->setup.lanes, r, err);
	uint64_t at;

	slot->is_busy = false;
	p->in_flight--;
	cdc_lanes_ended(p->setup.lanes, r, now_ms);
	if (slot->is_replay)
		p->is_replaying = false;
	if (rc)
		return rc;
	if (r->outcome == SINK_DONE && !r->failed_n) {
		rc = accept_slot(p, slot, key, err);
		cdc_lanes_accepted(p->setup.lanes, slot->begun);
		return rc;
	}
	if (r->failed_n) { /* what it accepted comes again, as a repeat */
		refused.outcome = SINK_REJECT;
		(void)snprintf(refused.text, sizeof(refused.text), "%.119s", r->failed[0].reason);
	}
	at = cdc_lanes_failed(p->setup.lanes, &refused, slot->is_probe,
			      is_endpoint_trouble(&refused), now_ms, random);
	return fail_slot(p, slot, key, &refused, at, now_ms, wall_us, err);
}

size_t cdc_parking_in_flight(const struct cdc_parking *p)
{
	return p->in_flight;
}

uint64_t cdc_parking_wait_ms(const struct cdc_parking *p, uint64_t now_ms, int64_t wall_us,
			     uint64_t wait_ms)
{
	size_t n, bytes;
	int64_t at_us = INT64_MAX;
	uint64_t at_ms, ready_ms;

	(void)cdc_window_aside(p->setup.window, &n, &bytes);
	if (n && !p->is_full) {
		uint64_t due_ms = p->written_ms + CDC_PARKING_WRITE_MS;

		wait_ms = due_ms <= now_ms            ? 0
			  : due_ms - now_ms < wait_ms ? due_ms - now_ms
						      : wait_ms;
	}
	if (p->in_flight == CDC_PARKING_SLOTS)
		return wait_ms;
	if (p->setup.parked->n) {
		(void)cdc_parked_first(p->setup.parked, &at_us);
		if (!p->wall_us)
			at_us = 0;
	}
	if (p->totals.replay && !p->is_replaying && p->replay_us < at_us)
		at_us = p->replay_us;
	if (at_us == INT64_MAX)
		return wait_ms;
	ready_ms = cdc_lanes_ready_ms(p->setup.lanes);
	at_ms = at_us <= wall_us ? now_ms : now_ms + (uint64_t)(at_us - wall_us) / 1000 + 1;
	if (at_ms < ready_ms)
		at_ms = ready_ms;
	return at_ms - now_ms < wait_ms ? at_ms - now_ms : wait_ms;
}
