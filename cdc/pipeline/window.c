#include "cdc/pipeline/window.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/pipeline/homes.h"
#include "cdc/record/key.h"

#define OTHERS_MAX 1000 /* records of a lane that are looked at for another key */
#define FEW        8    /* a table has few when its lane has so many times as many */

struct cdc_window_chunk {
	struct cdc_window_chunk *next;
	struct cdc_window_input *input;
	struct cdc_lease *lease;
	const struct cdc_batch *batch;
	struct cdc_batch *mapped; /* records that the selector wrote anew; NULL: none */
	struct cdc_stream_position through;
	size_t bytes;
	size_t n, open; /* items; those not done */
	size_t first;   /* items before it are done */
	size_t passed;  /* bytes of chunks behind it that are gone */
	bool is_pinned; /* the first half of one of its key changes may still look at it */
	struct cdc_item items[];
};

struct queue {
	struct cdc_item *head, *tail;
	size_t n;
};

/*
 * What goes ahead goes in groups.  A place in the lane is what of the others is before it since the
 * window began, in bytes: `gone`, and what stands there still.
 */
struct lane {
	struct queue q;
	struct cdc_item *ahead; /* none that was put ahead is behind it; NULL: none is there */
	uint64_t gone;          /* of those that were not put ahead */
	uint64_t turn;          /* the place from which on the next group may begin */
	uint64_t group;         /* bytes of the one that ends with `ahead` */
};

/* Ids that the stream leaves out: another input brings them. */
struct hold {
	bool is_set;
	struct cdc_id above, through;
};

/* A table that has, or had, records in the window, or is held. */
struct cdc_window_table {
	uint64_t hash;       /* of its name */
	size_t outstanding;  /* its records in lanes */
	bool is_barrier_out; /* the one of them is a barrier */
	struct queue held;   /* what waits for a barrier, or is one */
	struct hold hold;
	struct cdc_item *first_half; /* of a key change, the last one, while not done */
	struct cdc_id aside_half;    /* the last one that stood aside */
	bool is_apart, be_apart;     /* in the lanes of held tables: now, and next */
	bool is_shut;                /* what CDC_INPUT_HELD brings of it is left out */
};

struct cdc_window_input {
	struct cdc_window_input *next;
	enum cdc_input kind;
	struct cdc_window_chunk *head, *tail; /* in the order they were read */
	struct cdc_stream_position done;      /* everything before the first chunk */
	struct cdc_stream_position through;
	struct cdc_id started; /* the highest record that was sent */
	bool is_grouped;
	struct cdc_id start, ended; /* grouped: the transactions up to this one's were read whole */
	size_t records, bytes, passed;
};

struct cdc_window {
	enum cdc_order order;
	unsigned operations;
	struct cdc_selector *selector; /* NULL: the operations say it all */
	size_t lane_n, apart_n;        /* lanes behind them are those of held tables */
	uint64_t share, least; /* bytes of a request, and what each record counts for; 0: the
				  lanes are first in, first out */
	struct lane *lanes;
	struct cdc_window_input *inputs;
	struct cdc_window_table **tables; /* by hash; as many as the source ever showed */
	size_t table_n, table_cap;        /* cap: 0 or a power of two, at least twice n */
	struct hold hold;                 /* of every table */
	struct cdc_homes homes;           /* of keys in lanes, or held; not under CDC_ORDER_NONE */
	struct cdc_parked *parked;        /* NULL: nothing is ever parked */
	struct queue aside;
	size_t aside_n, aside_bytes;
	size_t records, held_n;
	bool is_closed; /* only what fills gaps is sent */
	bool is_grouped;
	uint64_t group_bytes;   /* an input that is full holds so much */
	struct cdc_id given_up; /* of a transaction; zero: none */
	uint64_t round;         /* CDC_ORDER_NONE: the next lane */
};

struct cdc_window *cdc_window_new(size_t lanes, bool has_apart, enum cdc_order order,
				  unsigned operations)
{
	struct cdc_window *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->order = order;
	w->operations = operations;
	w->lane_n = order == CDC_ORDER_SYNC ? 1 : lanes;
	w->apart_n = has_apart && order != CDC_ORDER_SYNC ? lanes : 0;
	w->lanes = calloc(w->lane_n + w->apart_n, sizeof(*w->lanes));
	if (!w->lanes) {
		free(w);
		return NULL;
	}
	return w;
}

void cdc_window_share(struct cdc_window *w, size_t records, uint64_t bytes)
{
	CDC_ASSERT(w->order == CDC_ORDER_KEY && !w->inputs);
	w->share = bytes;
	w->least = (bytes + records - 1) / records;
}

void cdc_window_select(struct cdc_window *w, struct cdc_selector *selector)
{
	w->selector = selector;
}

void cdc_window_group(struct cdc_window *w, uint64_t max_bytes)
{
	CDC_ASSERT(w->order == CDC_ORDER_SYNC && !w->inputs);
	w->is_grouped = true;
	w->group_bytes = max_bytes;
}

static void free_chunk(struct cdc_window_chunk *c)
{
	cdc_batch_free(c->mapped);
	free(c);
}

static void free_input(struct cdc_window_input *in)
{
	while (in->head) {
		struct cdc_window_chunk *next = in->head->next;

		free_chunk(in->head);
		in->head = next;
	}
	free(in);
}

void cdc_window_free(struct cdc_window *w)
{
	if (!w)
		return;
	while (w->inputs) {
		struct cdc_window_input *next = w->inputs->next;

		free_input(w->inputs);
		w->inputs = next;
	}
	for (size_t i = 0; i < w->table_cap; i++)
		free(w->tables[i]);
	free(w->tables);
	cdc_homes_clear(&w->homes);
	free(w->lanes);
	free(w);
}

struct cdc_window_input *cdc_window_input_new(struct cdc_window *w, enum cdc_input kind,
					      struct cdc_stream_position start)
{
	struct cdc_window_input *in = calloc(1, sizeof(*in)), **last = &w->inputs;

	if (!in)
		return NULL;
	in->kind = kind;
	in->done = in->through = start;
	in->is_grouped = w->is_grouped && kind != CDC_INPUT_COPY;
	in->start = in->ended = start.id;
	/* Before the first record of a transaction: of that, nothing was read. */
	if (!start.id.ordinal && start.id.commit_lsn)
		in->ended.commit_lsn--;
	while (*last)
		last = &(*last)->next;
	*last = in;
	return in;
}

void cdc_window_input_drop(struct cdc_window *w, struct cdc_window_input *in)
{
	struct cdc_window_input **at = &w->inputs;

	CDC_ASSERT(!in->head);
	while (*at != in)
		at = &(*at)->next;
	*at = in->next;
	free_input(in);
}

size_t cdc_window_records(const struct cdc_window *w)
{
	return w->records;
}

size_t cdc_window_lanes(const struct cdc_window *w)
{
	return w->lane_n + w->apart_n;
}

size_t cdc_window_input_records(const struct cdc_window_input *in)
{
	return in->records;
}

size_t cdc_window_input_bytes(const struct cdc_window_input *in)
{
	return in->bytes;
}

/* --- queues ------------------------------------------------------------------------- */

static void push(struct queue *q, struct cdc_item *item)
{
	item->next = NULL;
	if (q->tail)
		q->tail->next = item;
	else
		q->head = item;
	q->tail = item;
	q->n++;
}

/* Items leave from the head, but for probes.  Returns what was before it. */
static struct cdc_item *unlink_item(struct queue *q, struct cdc_item *item)
{
	struct cdc_item *before = NULL;

	for (struct cdc_item *i = q->head; i != item; i = i->next)
		before = i;
	if (before)
		before->next = item->next;
	else
		q->head = item->next;
	if (q->tail == item)
		q->tail = before;
	q->n--;
	return before;
}

static void insert_behind(struct queue *q, struct cdc_item *before, struct cdc_item *item)
{
	if (before == q->tail) {
		push(q, item);
		return;
	}
	item->next = before ? before->next : q->head;
	if (before)
		before->next = item;
	else
		q->head = item;
	q->n++;
}

static bool is_barrier(const struct cdc_item *item)
{
	return item->rec->flags & CDC_RECORD_BARRIER;
}

/* --- tables ------------------------------------------------------------------------- */

static struct cdc_window_table **table_place(struct cdc_window_table **tables, size_t cap,
					     uint64_t hash)
{
	size_t i = hash & (cap - 1);

	while (tables[i] && tables[i]->hash != hash)
		i = (i + 1) & (cap - 1);
	return &tables[i];
}

static bool grow_tables(struct cdc_window *w)
{
	size_t cap = w->table_cap ? w->table_cap * 2 : 32;
	struct cdc_window_table **grown = calloc(cap, sizeof(struct cdc_window_table *));

	if (!grown)
		return false;
	for (size_t i = 0; i < w->table_cap; i++) {
		if (w->tables[i])
			*table_place(grown, cap, w->tables[i]->hash) = w->tables[i];
	}
	free(w->tables);
	w->tables = grown;
	w->table_cap = cap;
	return true;
}

static struct cdc_window_table *find_table(struct cdc_window *w, uint64_t hash)
{
	struct cdc_window_table **place;

	if ((w->table_n + 1) * 2 > w->table_cap && !grow_tables(w))
		return NULL;
	place = table_place(w->tables, w->table_cap, hash);
	if (!*place) {
		*place = calloc(1, sizeof(**place));
		if (!*place)
			return NULL;
		(*place)->hash = hash;
		w->table_n++;
	}
	return *place;
}

/* The tables of a batch, by their index in it. */
static struct cdc_window_table **find_tables(struct cdc_window *w, const struct cdc_batch *batch)
{
	struct cdc_window_table **tables =
		calloc(batch->table_n + 1, sizeof(struct cdc_window_table *));

	for (size_t i = 0; tables && i < batch->table_n; i++) {
		tables[i] = find_table(w, batch->tables[i].hash);
		if (!tables[i]) {
			free(tables);
			return NULL;
		}
	}
	return tables;
}

/* --- holding tables ----------------------------------------------------------------- */

static const struct cdc_id last_id = {.epoch = UINT32_MAX,
				      .commit_lsn = UINT64_MAX,
				      .ordinal = UINT32_MAX,
				      .range = UINT32_MAX,
				      .row = UINT32_MAX,
				      .part = UINT16_MAX};

static struct cdc_window_table *table_of(const struct cdc_window *w, uint64_t hash)
{
	return w->tables ? *table_place(w->tables, w->table_cap, hash) : NULL;
}

static struct cdc_window_table *known_table(const struct cdc_window *w, const char *name)
{
	return table_of(w, cdc_table_hash(name, strlen(name)));
}

enum cdc_code cdc_window_hold(struct cdc_window *w, const char *table, const struct cdc_id *above,
			      struct cdc_err *err)
{
	const struct hold hold = {.is_set = true, .above = *above, .through = last_id};
	struct cdc_window_table *t;

	if (!table) {
		w->hold = hold;
		return CDC_OK;
	}
	t = find_table(w, cdc_table_hash(table, strlen(table)));
	if (!t)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a table");
	t->hold = hold;
	t->be_apart = w->apart_n != 0;
	return CDC_OK;
}

void cdc_window_join(struct cdc_window *w, const char *table, const struct cdc_id *through)
{
	struct cdc_window_table *t = table ? known_table(w, table) : NULL;

	if (!table)
		w->hold.through = *through;
	if (!t)
		return;
	t->hold.through = *through;
	t->be_apart = false;
}

void cdc_window_shut(struct cdc_window *w, const char *table, bool is_shut)
{
	struct cdc_window_table *t = known_table(w, table);

	if (t)
		t->is_shut = is_shut;
}

bool cdc_window_is_drained(struct cdc_window *w, const char *table)
{
	const struct cdc_window_table *t;

	if (!table)
		return w->records == 0;
	t = known_table(w, table);
	return !t || (!t->outstanding && !t->held.head);
}

static bool leaves_out(const struct hold *h, const struct cdc_id *id)
{
	return h->is_set && cdc_id_cmp(id, &h->above) > 0 && cdc_id_cmp(id, &h->through) <= 0;
}

/* --- adding ------------------------------------------------------------------------- */

/* Is it what another input brings, or nobody? */
static bool is_left_out(const struct cdc_window *w, const struct cdc_window_input *in,
			const struct cdc_window_table *t, const struct cdc_record *rec)
{
	if (in->kind == CDC_INPUT_HELD)
		return t->is_shut;
	return in->kind == CDC_INPUT_STREAM &&
	       (leaves_out(&w->hold, &rec->id) || leaves_out(&t->hold, &rec->id));
}

/*
 * Of the lanes that its table is in.  A key without records in them takes the emptier one of two
 * that its hash names, so that what lies behind a key with many records, or with trouble, is
 * little.  Returns the key's home, or NULL under CDC_ORDER_NONE.
 */
static struct cdc_home *choose_lane(struct cdc_window *w, struct cdc_item *item)
{
	size_t first = item->table->is_apart ? w->lane_n : 0;
	size_t n = item->table->is_apart ? w->apart_n : w->lane_n;
	uint64_t hash = item->rec->key_hash;
	size_t one = first + hash % n, other = first + (hash >> 32) % n;
	struct cdc_home *home;

	if (w->order == CDC_ORDER_NONE) {
		item->lane = (uint32_t)(is_barrier(item) ? one : first + w->round++ % n);
		return NULL;
	}
	home = cdc_homes_enter(&w->homes, hash);
	if (home->n == 1) {
		home->lane = (uint16_t)(w->lanes[other].q.n < w->lanes[one].q.n ? other : one);
		home->is_ahead = true;
	}
	item->lane = home->lane;
	return home;
}

/* It is no more in its lane, or will never be. */
static void leave_home(struct cdc_window *w, const struct cdc_item *item)
{
	if (w->order != CDC_ORDER_NONE)
		cdc_homes_leave(&w->homes, item->rec->key_hash);
}

static void set_aside(struct cdc_window *w, struct cdc_item *item)
{
	struct cdc_parked_key *key = cdc_parked_find(w->parked, cdc_window_queue_of(w, item));

	if (key) {
		if (!key->unwritten || cdc_id_cmp(&item->rec->id, &key->unwritten_id) < 0)
			key->unwritten_id = item->rec->id;
		key->unwritten++;
		if (item->rec->flags & CDC_RECORD_MOVE_OLD)
			item->table->aside_half = item->rec->id;
		if (item->second)
			item->second->goes_aside = true;
	}
	item->goes_aside = key != NULL;
	item->is_aside = true;
	w->aside_n++;
	item->was_parked = cdc_parked_had(w->parked, &item->rec->id);
	/* The rest of its transaction was to follow it. */
	if (item->was_parked && !(item->rec->flags & CDC_RECORD_TOO_LARGE) &&
	    cdc_window_is_grouped(w, item))
		w->given_up = item->rec->id;
	w->aside_bytes += item->was_parked ? 0 : item->rec->json_len;
	push(&w->aside, item);
}

/* Not asked for records of tables without parked keys but by one comparison. */
static bool must_set_aside(const struct cdc_window *w, struct cdc_item *item)
{
	struct cdc_parked_key *key;
	uint64_t queue;

	if (item->rec->flags & CDC_RECORD_TOO_LARGE)
		return true; /* never sent; for a barrier, too, the table goes on */
	if (w->is_grouped && cdc_window_is_given_up(w, &item->rec->id))
		return true;
	if ((!w->parked->n && !w->parked->id_n && !item->goes_aside) ||
	    (is_barrier(item) && !w->is_grouped))
		return false;
	queue = cdc_window_queue_of(w, item);
	if (cdc_parked_meet(w->parked, &item->rec->id) || cdc_parked_find(w->parked, queue))
		return true;
	/* Without room for its key only the order between the two keys is given up. */
	return item->goes_aside && !cdc_parked_add(w->parked, queue, item->table->hash, &key, NULL);
}

/* What it takes of a request. */
static uint64_t weight_of(const struct cdc_window *w, const struct cdc_item *item)
{
	return item->rec->json_len > w->least ? item->rec->json_len : w->least;
}

/*
 * Is it of a table that has few records, so that others' are not to keep it waiting?  Nothing of
 * its key may be overtaken, and what others wait for keeps its place.
 */
static bool may_go_ahead(const struct cdc_window *w, const struct cdc_item *item,
			 const struct cdc_home *home)
{
	const struct cdc_window_table *t = item->table;

	/* Of an only table the lane has no more than the table. */
	return w->share && (t->outstanding + t->held.n) * FEW < w->lanes[item->lane].q.n &&
	       home->is_ahead &&
	       !(item->rec->flags &
		 (CDC_RECORD_BARRIER | CDC_RECORD_MOVE_OLD | CDC_RECORD_MOVE_NEW));
}

/*
 * Behind what may be in flight, and into the group of those that were put ahead before, until that
 * fills a request.  Between two groups as much of the others is left.
 */
static void put_ahead(const struct cdc_window *w, struct lane *l, struct cdc_item *item)
{
	struct cdc_item *before = l->ahead, *at;
	uint64_t place = l->gone;

	if (!before || before->was_sent || l->group >= w->share) {
		if (before && l->turn - w->share > place)
			place = l->turn - w->share;
		at = before ? before->next : l->q.head;
		/* The halves of a key change stay together, as one request may take both. */
		for (; at && (at->was_sent || place < l->turn || (before && before->second == at));
		     at = at->next) {
			place += weight_of(w, at);
			before = at;
		}
		l->turn = place + w->share;
		l->group = 0;
	}
	insert_behind(&l->q, before, item);
	l->group += weight_of(w, item);
	l->ahead = item;
}

/* home: its key's, or NULL under CDC_ORDER_NONE. */
static void enter_lane(struct cdc_window *w, struct cdc_item *item, struct cdc_home *home)
{
	struct lane *l = &w->lanes[item->lane];

	item->is_held = false;
	if (w->parked && must_set_aside(w, item)) {
		leave_home(w, item);
		set_aside(w, item);
		return;
	}
	item->is_ahead = may_go_ahead(w, item, home);
	if (home)
		home->is_ahead = item->is_ahead;
	item->table->outstanding++;
	item->table->is_barrier_out = is_barrier(item);
	if (item->is_ahead)
		put_ahead(w, l, item);
	else
		push(&l->q, item);
}

static bool must_hold(const struct cdc_window *w, const struct cdc_item *item)
{
	const struct cdc_window_table *t = item->table;

	if (w->order == CDC_ORDER_SYNC)
		return false; /* only the first of its one lane is ever sent, also as a probe */
	if (is_barrier(item) && w->parked &&
	    cdc_parked_has_before(w->parked, t->hash, &item->rec->id))
		return true;
	return t->is_barrier_out || (is_barrier(item) && t->outstanding);
}

static bool is_same_change(const struct cdc_id *a, const struct cdc_id *b)
{
	return a->commit_lsn == b->commit_lsn && a->ordinal == b->ordinal && a->epoch == b->epoch;
}

/* The halves of a key change are neighbours in the stream, and share all of the id but the part. */
static void pair_halves(struct cdc_item *item)
{
	struct cdc_item *first = item->table->first_half;

	if (item->rec->flags & CDC_RECORD_MOVE_NEW && first &&
	    first->rec->id.commit_lsn == item->rec->id.commit_lsn &&
	    first->rec->id.ordinal == item->rec->id.ordinal) {
		first->second = item;
		item->is_second = true;
		item->goes_aside = first->is_aside && first->goes_aside;
	} else if (item->rec->flags & CDC_RECORD_MOVE_NEW) {
		item->goes_aside = is_same_change(&item->rec->id, &item->table->aside_half);
	}
	item->table->first_half = item->rec->flags & CDC_RECORD_MOVE_OLD ? item : NULL;
}

static void place_item(struct cdc_window *w, struct cdc_item *item)
{
	struct cdc_window_table *t = item->table;
	struct cdc_home *home;

	/* All records of a table are in one set of lanes, so none overtakes another. */
	if (!t->outstanding && !t->held.head)
		t->is_apart = t->be_apart;
	home = choose_lane(w, item);
	pair_halves(item);
	if (t->held.head || must_hold(w, item)) {
		item->is_held = true;
		w->held_n++;
		push(&t->held, item);
	} else {
		enter_lane(w, item, home);
	}
}

/* What becomes of the records of a read. */
struct choice {
	struct cdc_selected *of; /* by their place in the read */
	struct cdc_batch *mapped;
	struct cdc_window_added n;
};

static void clear_choice(struct choice *c)
{
	free(c->of);
	cdc_batch_free(c->mapped);
}

static enum cdc_code choose(const struct cdc_window *w, const struct cdc_window_input *in,
			    struct cdc_window_table *const *tables, const struct cdc_read *read,
			    struct choice *c, struct cdc_err *err)
{
	c->of = calloc(read->n, sizeof(*c->of));
	if (!c->of)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu records", read->n);
	for (size_t i = 0; i < read->n; i++) {
		const struct cdc_record *rec = &read->batch->records[read->index[i]];
		const struct cdc_view view = {.rec = rec, .batch = read->batch};
		enum cdc_code rc = CDC_OK;

		if (is_left_out(w, in, tables[rec->table], rec))
			continue;
		if (w->selector)
			rc = cdc_select(w->selector, view, &c->mapped, &c->of[i], err);
		else
			c->of[i].is_selected = w->operations >> rec->op & 1;
		if (rc)
			return rc;
		c->n.selected += c->of[i].is_selected;
		c->n.skipped += !c->of[i].is_selected;
	}
	return CDC_OK;
}

static struct cdc_window_chunk *new_chunk(struct cdc_window_input *in, const struct cdc_read *read,
					  struct choice *choice)
{
	struct cdc_window_chunk *c =
		calloc(1, sizeof(*c) + choice->n.selected * sizeof(c->items[0]));

	if (!c)
		return NULL;
	c->input = in;
	c->lease = read->lease;
	c->batch = read->batch;
	c->mapped = CDC_TAKE(choice->mapped);
	c->through = read->through;
	c->bytes = read->batch->json.len + (c->mapped ? c->mapped->json.len : 0);
	return c;
}

static void append_chunk(struct cdc_window *w, struct cdc_window_chunk *c)
{
	struct cdc_window_input *in = c->input;

	if (in->tail)
		in->tail->next = c;
	else
		in->head = c;
	in->tail = c;
	in->bytes += c->bytes;
	in->records += c->n;
	w->records += c->n;
}

static void pass(struct cdc_window_input *in, struct cdc_stream_position through)
{
	in->through = through;
	if (in->tail)
		in->tail->through = through;
	else
		in->done = through;
}

/* Everything that can fail is done before the first item is placed. */
static enum cdc_code prepare(struct cdc_window *w, struct cdc_window_input *in,
			     const struct cdc_read *read, struct cdc_window_table ***ret_tables,
			     struct choice *choice, struct cdc_window_chunk **ret_chunk,
			     struct cdc_err *err)
{
	enum cdc_code rc;

	*ret_tables = find_tables(w, read->batch);
	if (!*ret_tables)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu records", read->n);
	rc = choose(w, in, *ret_tables, read, choice, err);
	if (rc || !choice->n.selected)
		return rc;
	if (cdc_homes_reserve(&w->homes, choice->n.selected))
		*ret_chunk = new_chunk(in, read, choice);
	return *ret_chunk ? CDC_OK
			  : cdc_err_set(err, CDC_NOMEM, "out of memory for %zu records", read->n);
}

static void place_all(struct cdc_window *w, struct cdc_window_chunk *c,
		      struct cdc_window_table *const *tables, const struct cdc_read *read,
		      const struct cdc_selected *chosen)
{
	for (size_t i = 0; i < read->n; i++) {
		const struct cdc_record *rec = &read->batch->records[read->index[i]];
		struct cdc_item *item;

		if (!chosen[i].is_selected)
			continue;
		item = &c->items[c->n++];
		item->is_mapped = chosen[i].is_mapped;
		item->rec = item->is_mapped ? &c->mapped->records[chosen[i].index] : rec;
		item->chunk = c;
		item->table = tables[rec->table];
		place_item(w, item);
	}
	c->open = c->n;
	append_chunk(w, c);
}

static void note_ends(struct cdc_window_input *in, const struct cdc_read *read)
{
	const struct cdc_tx_end *last = read->end_n ? &read->ends[read->end_n - 1] : NULL;

	if (last)
		in->ended = (struct cdc_id){.epoch = read->through.id.epoch,
					    .commit_lsn = last->commit_lsn};
}

enum cdc_code cdc_window_add(struct cdc_window *w, struct cdc_window_input *in,
			     const struct cdc_read *read, struct cdc_window_added *ret,
			     struct cdc_err *err)
{
	struct cdc_window_table **tables = NULL;
	struct cdc_window_chunk *c = NULL;
	struct choice choice = {0};
	enum cdc_code rc = CDC_OK;

	*ret = (struct cdc_window_added){0};
	if (read->n)
		rc = prepare(w, in, read, &tables, &choice, &c, err);
	if (!rc) {
		*ret = choice.n;
		if (in->is_grouped)
			note_ends(in, read);
		if (c) {
			place_all(w, c, tables, read, choice.of);
			in->through = read->through;
		} else {
			pass(in, read->through);
		}
	}
	clear_choice(&choice);
	free(tables);
	return rc;
}

/* --- sending ------------------------------------------------------------------------ */

struct cdc_item *cdc_window_head(struct cdc_window *w, size_t lane)
{
	return w->lanes[lane].q.head;
}

struct cdc_view cdc_item_view(const struct cdc_item *item)
{
	const struct cdc_window_chunk *c = item->chunk;

	return (struct cdc_view){.rec = item->rec, .batch = item->is_mapped ? c->mapped : c->batch};
}

static bool is_above_last(const struct cdc_window *w, const struct cdc_item *item)
{
	return w->is_closed && cdc_id_cmp(&item->rec->id, &item->chunk->input->started) > 0;
}

/* --- whole transactions ------------------------------------------------------------- */

bool cdc_window_is_grouped(const struct cdc_window *w, const struct cdc_item *item)
{
	return w->is_grouped && item->rec->id.ordinal != 0;
}

static bool is_ended(const struct cdc_window_input *in, const struct cdc_id *id)
{
	if (in->ended.epoch != id->epoch)
		return in->ended.epoch > id->epoch;
	return in->ended.commit_lsn >= id->commit_lsn;
}

/* Was the transaction read to its end?  Behind what was held back the stream goes on. */
static bool is_read(const struct cdc_window *w, const struct cdc_item *item)
{
	const struct cdc_window_input *in = item->chunk->input;

	if (is_ended(in, &item->rec->id))
		return true;
	if (in->kind != CDC_INPUT_HELD || cdc_id_cmp(&in->through.id, &w->hold.through) < 0)
		return false;
	for (in = w->inputs; in; in = in->next) {
		if (in->kind == CDC_INPUT_STREAM && is_ended(in, &item->rec->id))
			return true;
	}
	return false;
}

/* Does its input bring no more, as long as nothing of it is done? */
static bool is_full(const struct cdc_window *w, const struct cdc_window_input *in)
{
	return in->bytes >= w->group_bytes || in->records >= CDC_WINDOW_RECORDS;
}

bool cdc_window_run_is_last(const struct cdc_window *w, struct cdc_item *const *items, size_t n)
{
	const struct cdc_item *last = items[n - 1], *next = last->next;

	if (cdc_window_is_given_up(w, &last->rec->id))
		return false; /* what follows is not sent */
	return next ? !cdc_id_is_same_commit(&next->rec->id, &last->rec->id) : is_read(w, last);
}

static size_t run_group(const struct cdc_window *w, struct cdc_item *head, size_t max,
			size_t max_bytes, struct cdc_item **items, bool *ret_has_more)
{
	size_t n = 0, bytes = 0;
	struct cdc_item *item = head;

	*ret_has_more = true;
	for (; item && n < max && cdc_id_is_same_commit(&item->rec->id, &head->rec->id);
	     item = item->next) {
		if (n && bytes + item->rec->json_len > max_bytes)
			break;
		bytes += item->rec->json_len;
		items[n++] = item;
	}
	if (is_above_last(w, head))
		return 0;
	if (item || is_read(w, items[n - 1]) || cdc_window_is_given_up(w, &head->rec->id))
		return n;
	/* What follows says whether this is the last part.  It is waited for, or one record is kept
	 * to be a last part by itself. */
	return is_full(w, items[n - 1]->chunk->input) ? n - 1 : 0;
}

bool cdc_window_must_read(const struct cdc_window_input *in)
{
	return in->is_grouped && in->records <= 1;
}

struct cdc_id cdc_window_behind(const struct cdc_window_input *in, struct cdc_id id)
{
	if (!in->is_grouped || !id.ordinal || is_ended(in, &id))
		return id;
	return (struct cdc_id){.epoch = id.epoch,
			       .commit_lsn = id.commit_lsn,
			       .ordinal = UINT32_MAX,
			       .part = UINT16_MAX};
}

/* --- runs --------------------------------------------------------------------------- */

size_t cdc_window_run(struct cdc_window *w, size_t lane, size_t max, size_t max_bytes,
		      struct cdc_item **items, bool *ret_has_more)
{
	size_t n = 0, bytes = 0;
	struct cdc_item *item = w->lanes[lane].q.head;

	if (item && cdc_window_is_grouped(w, item))
		return run_group(w, item, max, max_bytes, items, ret_has_more);
	for (item = w->lanes[lane].q.head; item && n < max; item = item->next) {
		/* What was held for a barrier may stand behind later records of other tables. */
		if (is_above_last(w, item))
			continue;
		/* Both halves of a key change may go in one request. */
		if ((item->is_second && !(n && items[n - 1]->second == item)) ||
		    (n && (is_barrier(item) || cdc_window_is_grouped(w, item))) ||
		    (n && bytes + item->rec->json_len > max_bytes))
			break;
		bytes += item->rec->json_len;
		items[n++] = item;
		if (is_barrier(item)) {
			item = item->next;
			break;
		}
	}
	*ret_has_more = item != NULL || (n && is_barrier(items[n - 1]));
	return n;
}

size_t cdc_window_run_beside(struct cdc_window *w, size_t lane, size_t max, size_t max_bytes,
			     struct cdc_item **items, bool *ret_has_more)
{
	struct cdc_item *head = w->lanes[lane].q.head, *item = head;
	const struct cdc_home *home = head ? cdc_homes_find(&w->homes, head->rec->key_hash) : NULL;
	uint64_t queue = head ? cdc_window_queue_of(w, head) : 0;
	size_t n = 0, bytes = 0;

	*ret_has_more = false;
	/* Most often there is nothing else. */
	if (!head || (home && home->n >= w->lanes[lane].q.n))
		return 0;
	for (; item && n < max; item = item->next) {
		if (cdc_window_queue_of(w, item) == queue || is_above_last(w, item))
			continue;
		if (item->is_second || is_barrier(item) ||
		    (n && bytes + item->rec->json_len > max_bytes))
			break;
		bytes += item->rec->json_len;
		items[n++] = item;
	}
	*ret_has_more = item != NULL;
	return n;
}

/* A set of hashes with room for as many again; 0 stands for a free place and is never found. */
static bool set_add(uint64_t *set, size_t cap, uint64_t hash)
{
	size_t i = hash & (cap - 1);

	while (set[i] && set[i] != hash)
		i = (i + 1) & (cap - 1);
	if (set[i])
		return false;
	set[i] = hash;
	return true;
}

/* Of two inputs that have records of one key, either may have the earlier one. */
static bool is_first_of_key(const struct cdc_window *w, const struct cdc_item *item)
{
	uint64_t queue = cdc_window_queue_of(w, item);

	for (const struct cdc_item *i = w->lanes[item->lane].q.head; i != item; i = i->next) {
		if (cdc_window_queue_of(w, i) == queue)
			return false;
	}
	return true;
}

static struct cdc_item *probe_of(const struct cdc_window *w, const struct cdc_window_input *in,
				 const struct cdc_id *after, uint64_t *seen, size_t cap)
{
	for (struct cdc_window_chunk *c = in->head; c; c = c->next) {
		for (size_t i = c->first; i < c->n; i++) {
			struct cdc_item *item = &c->items[i];

			if (item->is_done || item->is_aside ||
			    !set_add(seen, cap, cdc_window_queue_of(w, item)) || item->is_held ||
			    item->is_second || (after && cdc_id_cmp(&item->rec->id, after) <= 0) ||
			    !is_first_of_key(w, item))
				continue;
			return item;
		}
	}
	return NULL;
}

struct cdc_item *cdc_window_probe(struct cdc_window *w, const struct cdc_id *after,
				  const bool *is_suspect)
{
	struct cdc_item *found = NULL;
	size_t cap = 64;
	uint64_t *seen;

	while (cap < (w->records + cdc_window_lanes(w)) * 2)
		cap *= 2;
	seen = calloc(cap, sizeof(*seen));
	if (!seen)
		return NULL;
	for (size_t i = 0; !after && i < cdc_window_lanes(w); i++) {
		if (is_suspect[i] && w->lanes[i].q.head)
			(void)set_add(seen, cap, cdc_window_queue_of(w, w->lanes[i].q.head));
	}
	for (struct cdc_window_input *in = w->inputs; in && !found; in = in->next)
		found = probe_of(w, in, after, seen, cap);
	free(seen);
	return found;
}

struct cdc_item *cdc_window_other(struct cdc_window *w, size_t lane, const struct cdc_id *after)
{
	const struct cdc_item *head = w->lanes[lane].q.head;
	struct cdc_item *item = head ? head->next : NULL, *found = NULL;
	uint64_t queue = head ? cdc_window_queue_of(w, head) : 0;

	/* Not the first in the lane, but the lowest, as the next one is looked for above it. */
	for (size_t i = 0; item && i < OTHERS_MAX; i++, item = item->next) {
		if (cdc_window_queue_of(w, item) != queue && !item->is_second &&
		    cdc_id_cmp(&item->rec->id, after) > 0 &&
		    (!found || cdc_id_cmp(&item->rec->id, &found->rec->id) < 0) &&
		    is_first_of_key(w, item))
			found = item;
	}
	return found;
}

static void release_held(struct cdc_window *w, struct cdc_window_table *t)
{
	while (t->held.head && !must_hold(w, t->held.head)) {
		struct cdc_item *item = t->held.head;

		(void)unlink_item(&t->held, item);
		w->held_n--;
		enter_lane(w, item, cdc_homes_find(&w->homes, item->rec->key_hash));
	}
}

static void settle(struct cdc_window *w, struct cdc_item *item)
{
	item->is_done = true;
	item->chunk->is_pinned |= item->is_second;
	item->chunk->open--;
	item->chunk->input->records--;
	w->records--;
	if (item->second)
		item->second->is_second = false;
	if (item->table->first_half == item)
		item->table->first_half = NULL;
}

static void leave_lane(struct cdc_window *w, struct cdc_item *item)
{
	struct lane *l = &w->lanes[item->lane];
	struct cdc_item *before = unlink_item(&l->q, item);

	if (l->ahead == item)
		l->ahead = before;
	if (!item->is_ahead)
		l->gone += weight_of(w, item);
	leave_home(w, item);
	item->table->outstanding--;
	if (is_barrier(item))
		item->table->is_barrier_out = false;
}

void cdc_window_done(struct cdc_window *w, struct cdc_item *item)
{
	leave_lane(w, item);
	settle(w, item);
	release_held(w, item->table);
}

/* Of a record that is none of a copy. */
static struct cdc_id id_below(struct cdc_id id)
{
	if (id.part) {
		id.part--;
		return id;
	}
	id.part = UINT16_MAX;
	if (id.ordinal) {
		id.ordinal--;
		return id;
	}
	id.ordinal = UINT32_MAX;
	id.commit_lsn--;
	return id;
}

/* How far its input had come before the chunk was read. */
static struct cdc_id read_before(const struct cdc_window_chunk *chunk)
{
	struct cdc_id at = chunk->input->done.id;

	for (const struct cdc_window_chunk *c = chunk->input->head; c != chunk; c = c->next)
		at = c->through.id;
	return at;
}

void cdc_window_stop(struct cdc_window *w, struct cdc_item *barrier, struct cdc_id *ret_own)
{
	struct cdc_window_table *t = barrier->table;
	struct cdc_id before = read_before(barrier->chunk);

	/* A schema record that comes again after a start has an id of long ago. */
	*ret_own = id_below(barrier->rec->id);
	if (cdc_id_cmp(ret_own, &before) < 0)
		*ret_own = before;
	t->hold = (struct hold){.is_set = true, .above = *ret_own, .through = last_id};
	leave_lane(w, barrier);
	settle(w, barrier);
	while (t->held.head) {
		struct cdc_item *item = t->held.head;

		(void)unlink_item(&t->held, item);
		w->held_n--;
		leave_home(w, item);
		settle(w, item);
	}
}

/* --- parked keys -------------------------------------------------------------------- */

void cdc_window_set_parked(struct cdc_window *w, struct cdc_parked *parked)
{
	w->parked = parked;
}

uint64_t cdc_window_queue_of(const struct cdc_window *w, const struct cdc_item *item)
{
	const struct cdc_id *id = &item->rec->id;

	if (w->order != CDC_ORDER_NONE)
		return item->rec->key_hash;
	/* Of ids that differ only by chance the same: then they are tried one after the other. */
	return item->rec->key_hash ^
	       (id->commit_lsn * UINT64_C(0x9e3779b97f4a7c15) + id->ordinal * UINT64_C(0x85ebca6b) +
		id->row * UINT64_C(0xc2b2ae35) + id->range * UINT64_C(0x27d4eb2f) + id->part);
}

/* The record and all of its key behind it in its lane. */
static void divert(struct cdc_window *w, struct cdc_item *from)
{
	uint64_t queue = cdc_window_queue_of(w, from);
	struct cdc_item *next = from;

	while (next) {
		struct cdc_item *item = next;

		next = item->next;
		if (is_barrier(item) || cdc_window_queue_of(w, item) != queue)
			continue;
		leave_lane(w, item);
		set_aside(w, item);
	}
}

/* The second halves of what stands aside from here on follow, and what stands behind them. */
static void divert_seconds(struct cdc_window *w, struct cdc_item *from)
{
	for (struct cdc_item *item = from; item; item = item->next) {
		struct cdc_item *second = item->second;
		struct cdc_parked_key *key;

		if (second && !second->is_aside && !second->is_held && !second->is_done &&
		    !cdc_parked_add(w->parked, cdc_window_queue_of(w, second), second->table->hash,
				    &key, NULL))
			divert(w, second);
	}
}

enum cdc_code cdc_window_park(struct cdc_window *w, struct cdc_item *item, struct cdc_err *err)
{
	struct cdc_parked_key *key;
	enum cdc_code rc = cdc_parked_add(w->parked, cdc_window_queue_of(w, item),
					  item->table->hash, &key, err);

	if (rc)
		return rc;
	CDC_ASSERT(!is_barrier(item));
	divert(w, item);
	divert_seconds(w, item);
	release_held(w, item->table);
	return CDC_OK;
}

void cdc_window_give_up(struct cdc_window *w, struct cdc_item *item)
{
	leave_lane(w, item);
	set_aside(w, item);
	release_held(w, item->table);
}

struct cdc_item *cdc_window_aside(const struct cdc_window *w, size_t *ret_n, size_t *ret_bytes)
{
	*ret_n = w->aside_n;
	*ret_bytes = w->aside_bytes;
	return w->aside.head;
}

void cdc_window_written(struct cdc_window *w)
{
	struct cdc_item *item = w->aside.head;
	struct cdc_parked_key *key = cdc_parked_find(w->parked, cdc_window_queue_of(w, item));

	if (item->goes_aside && key)
		key->unwritten--;
	(void)unlink_item(&w->aside, item);
	w->aside_n--;
	w->aside_bytes -= item->was_parked ? 0 : item->rec->json_len;
	settle(w, item);
}

void cdc_window_unpark(struct cdc_window *w, uint64_t table_hash)
{
	struct cdc_window_table *t = table_of(w, table_hash);

	if (t)
		release_held(w, t);
}

bool cdc_window_has_key(const struct cdc_window *w, uint64_t key_hash)
{
	const struct cdc_home *home = cdc_homes_find(&w->homes, key_hash);
	const struct cdc_item *item = home ? w->lanes[home->lane].q.head : NULL;

	/* Those that are held are in none. */
	while (item && item->rec->key_hash != key_hash)
		item = item->next;
	return item != NULL;
}

bool cdc_window_has_barrier(const struct cdc_window *w, uint64_t table_hash,
			    const struct cdc_id *id)
{
	const struct cdc_window_table *t = table_of(w, table_hash);

	return t && t->held.head && is_barrier(t->held.head) &&
	       cdc_id_cmp(&t->held.head->rec->id, id) > 0;
}

void cdc_window_give_up_group(struct cdc_window *w, struct cdc_item *item)
{
	struct cdc_id id = item->rec->id;
	uint32_t lane = item->lane;

	w->given_up = id;
	while ((item = w->lanes[lane].q.head) && cdc_id_is_same_commit(&item->rec->id, &id)) {
		leave_lane(w, item);
		set_aside(w, item);
	}
}

bool cdc_window_is_given_up(const struct cdc_window *w, const struct cdc_id *id)
{
	return w->given_up.commit_lsn && id->ordinal && cdc_id_is_same_commit(&w->given_up, id);
}

/* --- the checkpoint ----------------------------------------------------------------- */

static void skip_done(struct cdc_window_chunk *c)
{
	while (c->first < c->n && c->items[c->first].is_done)
		c->first++;
}

static struct cdc_lease *take_chunk(struct cdc_window_input *in)
{
	struct cdc_window_chunk *c = in->head;
	struct cdc_lease *lease = c->lease;

	in->done = c->through;
	in->bytes -= c->bytes;
	in->passed -= c->passed;
	in->head = c->next;
	if (!in->head)
		in->tail = NULL;
	free_chunk(c);
	return lease;
}

struct cdc_lease *cdc_window_take_lease(struct cdc_window_input *in)
{
	return in->head && !in->head->open ? take_chunk(in) : NULL;
}

struct cdc_lease *cdc_window_pass_lease(struct cdc_window_input *in)
{
	struct cdc_window_chunk *before = in->head, *c;
	struct cdc_lease *lease;

	if (!before || in->passed >= CDC_WINDOW_PASSED)
		return NULL;
	for (c = before->next; c && (c->open || c->is_pinned); c = c->next)
		before = c;
	if (!c)
		return NULL;
	lease = c->lease;
	before->next = c->next;
	before->through = c->through;
	before->passed += c->passed + c->bytes;
	if (in->tail == c)
		in->tail = before;
	in->passed += c->bytes;
	in->bytes -= c->bytes;
	free_chunk(c);
	return lease;
}

struct cdc_lease *cdc_window_abandon_lease(struct cdc_window_input *in)
{
	return in->head ? take_chunk(in) : NULL;
}

struct cdc_stream_position cdc_window_through(const struct cdc_window_input *in)
{
	return in->through;
}

/* Up to where everything is done; *ret_next: the first id behind it that is not, or zero. */
static struct cdc_stream_position done_through(struct cdc_window_input *in, struct cdc_id *ret_next)
{
	struct cdc_stream_position at = in->done;

	*ret_next = (struct cdc_id){0};
	for (struct cdc_window_chunk *c = in->head; c; c = c->next) {
		if (c->open) {
			skip_done(c);
			if (c->first)
				at.id = c->items[c->first - 1].rec->id;
			*ret_next = c->items[c->first].rec->id;
			return at;
		}
		at = c->through;
	}
	return at;
}

struct cdc_stream_position cdc_window_position(struct cdc_window_input *in)
{
	struct cdc_id next;
	struct cdc_stream_position at = done_through(in, &next);

	bool is_inside;

	if (!in->is_grouped || !at.id.ordinal)
		return at;
	is_inside = cdc_id_is_zero(&next) ? !is_ended(in, &at.id)
					  : cdc_id_is_same_commit(&at.id, &next);
	/* Then before it, so that a restart sends all of it. */
	if (is_inside && cdc_id_cmp(&at.id, &in->start) > 0) {
		at.id = (struct cdc_id){.epoch = at.id.epoch, .commit_lsn = at.id.commit_lsn};
		if (cdc_id_cmp(&at.id, &in->start) < 0)
			at.id = in->start;
	}
	return at;
}

static const struct cdc_item *oldest(const struct cdc_window_input *in)
{
	for (struct cdc_window_chunk *c = in->head; c; c = c->next) {
		if (c->open) {
			skip_done(c);
			return &c->items[c->first];
		}
	}
	return NULL;
}

const struct cdc_item *cdc_window_oldest(const struct cdc_window *w)
{
	const struct cdc_item *found = NULL;

	for (const struct cdc_window_input *in = w->inputs; in; in = in->next) {
		const struct cdc_item *item = oldest(in);

		if (item && (!found || (item->rec->commit_us > 0 &&
					(found->rec->commit_us <= 0 ||
					 item->rec->commit_us < found->rec->commit_us))))
			found = item;
	}
	return found;
}

size_t cdc_window_held(const struct cdc_window *w)
{
	return w->held_n;
}

size_t cdc_window_deepest(const struct cdc_window *w)
{
	size_t most = 0;

	for (size_t i = 0; i < w->lane_n + w->apart_n; i++)
		most = w->lanes[i].q.n > most ? w->lanes[i].q.n : most;
	return most;
}

void cdc_window_sent(struct cdc_item *item)
{
	struct cdc_window_input *in = item->chunk->input;

	item->was_sent = true;
	if (cdc_id_cmp(&item->rec->id, &in->started) > 0)
		in->started = item->rec->id;
}

void cdc_window_close(struct cdc_window *w)
{
	w->is_closed = true;
}

bool cdc_window_has_gaps(struct cdc_window *w)
{
	for (const struct cdc_window_input *in = w->inputs; in; in = in->next) {
		const struct cdc_item *item = in->kind == CDC_INPUT_COPY ? NULL : oldest(in);

		if (item && !is_above_last(w, item))
			return true;
	}
	return false;
}
