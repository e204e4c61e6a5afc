#include "cdc/pipeline/window.h"

#include <stdlib.h>
#include <string.h>

struct cdc_window_chunk {
	struct cdc_window_chunk *next;
	struct cdc_lease *lease;
	const struct cdc_batch *batch;
	struct cdc_stream_position through;
	size_t bytes;
	size_t n, open; /* items; those not done */
	size_t first;   /* items before it are done */
	struct cdc_item items[];
};

struct queue {
	struct cdc_item *head, *tail;
};

/* A table that has, or had, records in the window. */
struct cdc_window_table {
	uint64_t hash;       /* of its name */
	size_t outstanding;  /* its records in lanes */
	bool is_barrier_out; /* the one of them is a barrier */
	struct queue held;   /* what waits for a barrier, or is one */
};

struct cdc_window {
	enum cdc_order order;
	unsigned operations;
	size_t lane_n;
	struct queue *lanes;
	struct cdc_window_chunk *head, *tail; /* in the order they were read */
	struct cdc_window_table **tables;     /* by hash; as many as the source ever showed */
	size_t table_n, table_cap;            /* cap: 0 or a power of two, at least twice n */
	struct cdc_stream_position done;      /* everything before the first chunk */
	struct cdc_item *first_half;          /* of a key change, the last one, while not done */
	size_t records, bytes;
	bool is_closed;
	struct cdc_id last; /* closed: nothing above is sent */
	uint64_t round;     /* CDC_ORDER_NONE: the next lane */
};

struct cdc_window *cdc_window_new(size_t lanes, enum cdc_order order, unsigned operations,
				  struct cdc_stream_position start)
{
	struct cdc_window *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->order = order;
	w->operations = operations;
	w->lane_n = order == CDC_ORDER_SYNC ? 1 : lanes;
	w->done = start;
	w->lanes = calloc(w->lane_n, sizeof(*w->lanes));
	if (!w->lanes) {
		free(w);
		return NULL;
	}
	return w;
}

void cdc_window_free(struct cdc_window *w)
{
	if (!w)
		return;
	while (w->head) {
		struct cdc_window_chunk *next = w->head->next;

		free(w->head);
		w->head = next;
	}
	for (size_t i = 0; i < w->table_cap; i++)
		free(w->tables[i]);
	free(w->tables);
	free(w->lanes);
	free(w);
}

size_t cdc_window_records(const struct cdc_window *w)
{
	return w->records;
}

size_t cdc_window_bytes(const struct cdc_window *w)
{
	return w->bytes;
}

size_t cdc_window_lanes(const struct cdc_window *w)
{
	return w->lane_n;
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
}

/* Items leave from the head, but for probes. */
static void unlink_item(struct queue *q, struct cdc_item *item)
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

/* --- adding ------------------------------------------------------------------------- */

static bool is_selected(const struct cdc_window *w, const struct cdc_record *rec)
{
	return w->operations >> rec->op & 1;
}

static uint32_t lane_of(struct cdc_window *w, const struct cdc_item *item)
{
	if (w->order == CDC_ORDER_NONE && !is_barrier(item))
		return (uint32_t)(w->round++ % w->lane_n);
	return (uint32_t)(item->rec->key_hash % w->lane_n);
}

static void enter_lane(struct cdc_window *w, struct cdc_item *item)
{
	item->is_held = false;
	item->table->outstanding++;
	item->table->is_barrier_out = is_barrier(item);
	push(&w->lanes[item->lane], item);
}

static bool must_hold(const struct cdc_window *w, const struct cdc_item *item)
{
	const struct cdc_window_table *t = item->table;

	if (w->lane_n == 1)
		return false; /* one lane keeps the order of everything by itself */
	return t->is_barrier_out || (is_barrier(item) && t->outstanding);
}

/* The halves of a key change are neighbours in the stream, and share all of the id but the part. */
static void pair_halves(struct cdc_window *w, struct cdc_item *item)
{
	struct cdc_item *first = w->first_half;

	if (item->rec->flags & CDC_RECORD_MOVE_NEW && first &&
	    first->rec->id.commit_lsn == item->rec->id.commit_lsn &&
	    first->rec->id.ordinal == item->rec->id.ordinal && first->lane != item->lane) {
		first->second = item;
		item->is_second = true;
	}
	w->first_half = item->rec->flags & CDC_RECORD_MOVE_OLD ? item : NULL;
}

static void place_item(struct cdc_window *w, struct cdc_item *item)
{
	item->lane = lane_of(w, item);
	pair_halves(w, item);
	if (item->table->held.head || must_hold(w, item)) {
		item->is_held = true;
		push(&item->table->held, item);
	} else {
		enter_lane(w, item);
	}
}

static size_t count_selected(const struct cdc_window *w, const struct cdc_read *read)
{
	size_t n = 0;

	for (size_t i = 0; i < read->n; i++)
		n += is_selected(w, &read->batch->records[read->index[i]]);
	return n;
}

static struct cdc_window_chunk *new_chunk(const struct cdc_read *read, size_t n)
{
	struct cdc_window_chunk *c = calloc(1, sizeof(*c) + n * sizeof(c->items[0]));

	if (!c)
		return NULL;
	c->lease = read->lease;
	c->batch = read->batch;
	c->through = read->through;
	c->bytes = read->batch->json.len;
	return c;
}

static void append_chunk(struct cdc_window *w, struct cdc_window_chunk *c)
{
	if (w->tail)
		w->tail->next = c;
	else
		w->head = c;
	w->tail = c;
	w->bytes += c->bytes;
	w->records += c->n;
}

enum cdc_code cdc_window_add(struct cdc_window *w, const struct cdc_read *read,
			     size_t *ret_selected, struct cdc_err *err)
{
	size_t selected = count_selected(w, read);
	struct cdc_window_table **tables;
	struct cdc_window_chunk *c;

	*ret_selected = selected;
	if (selected == 0) {
		if (w->tail)
			w->tail->through = read->through;
		else
			w->done = read->through;
		return CDC_OK;
	}
	tables = find_tables(w, read->batch);
	c = tables ? new_chunk(read, selected) : NULL;
	if (!c) {
		free(tables);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for %zu records", selected);
	}
	for (size_t i = 0; i < read->n; i++) {
		const struct cdc_record *rec = &read->batch->records[read->index[i]];
		struct cdc_item *item;

		if (!is_selected(w, rec))
			continue;
		item = &c->items[c->n++];
		item->rec = rec;
		item->chunk = c;
		item->table = tables[rec->table];
		place_item(w, item);
	}
	c->open = c->n;
	append_chunk(w, c);
	free(tables);
	return CDC_OK;
}

/* --- sending ------------------------------------------------------------------------ */

struct cdc_item *cdc_window_head(struct cdc_window *w, size_t lane)
{
	return w->lanes[lane].head;
}

struct cdc_view cdc_item_view(const struct cdc_item *item)
{
	return (struct cdc_view){.rec = item->rec, .batch = item->chunk->batch};
}

static bool is_above_last(const struct cdc_window *w, const struct cdc_item *item)
{
	return w->is_closed && cdc_id_cmp(&item->rec->id, &w->last) > 0;
}

size_t cdc_window_run(struct cdc_window *w, size_t lane, size_t max, size_t max_bytes,
		      struct cdc_item **items, bool *ret_has_more)
{
	size_t n = 0, bytes = 0;
	struct cdc_item *item;

	for (item = w->lanes[lane].head; item && n < max; item = item->next) {
		/* What was held for a barrier may stand behind later records of other tables. */
		if (is_above_last(w, item))
			continue;
		if (item->is_second || (n && is_barrier(item)) ||
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

struct cdc_item *cdc_window_probe(struct cdc_window *w, const struct cdc_id *after,
				  const bool *is_suspect)
{
	struct cdc_item *found = NULL;
	size_t cap = 64;
	uint64_t *seen;

	while (cap < (w->records + w->lane_n) * 2)
		cap *= 2;
	seen = calloc(cap, sizeof(*seen));
	if (!seen)
		return NULL;
	for (size_t i = 0; !after && i < w->lane_n; i++) {
		if (is_suspect[i] && w->lanes[i].head)
			(void)set_add(seen, cap, w->lanes[i].head->rec->key_hash);
	}
	for (struct cdc_window_chunk *c = w->head; c && !found; c = c->next) {
		for (size_t i = c->first; i < c->n && !found; i++) {
			struct cdc_item *item = &c->items[i];

			if (item->is_done || !set_add(seen, cap, item->rec->key_hash) ||
			    item->is_held || item->is_second ||
			    (after && cdc_id_cmp(&item->rec->id, after) <= 0))
				continue;
			found = item;
		}
	}
	free(seen);
	return found;
}

static void release_held(struct cdc_window *w, struct cdc_window_table *t)
{
	while (t->held.head && !must_hold(w, t->held.head)) {
		struct cdc_item *item = t->held.head;

		unlink_item(&t->held, item);
		enter_lane(w, item);
	}
}

void cdc_window_done(struct cdc_window *w, struct cdc_item *item)
{
	unlink_item(&w->lanes[item->lane], item);
	item->is_done = true;
	item->chunk->open--;
	w->records--;
	item->table->outstanding--;
	if (is_barrier(item))
		item->table->is_barrier_out = false;
	if (item->second)
		item->second->is_second = false;
	if (w->first_half == item)
		w->first_half = NULL;
	release_held(w, item->table);
}

/* --- the checkpoint ----------------------------------------------------------------- */

static void skip_done(struct cdc_window_chunk *c)
{
	while (c->first < c->n && c->items[c->first].is_done)
		c->first++;
}

struct cdc_lease *cdc_window_take_lease(struct cdc_window *w)
{
	struct cdc_window_chunk *c = w->head;
	struct cdc_lease *lease;

	if (!c || c->open)
		return NULL;
	lease = c->lease;
	w->done = c->through;
	w->bytes -= c->bytes;
	w->head = c->next;
	if (!w->head)
		w->tail = NULL;
	free(c);
	return lease;
}

struct cdc_stream_position cdc_window_position(struct cdc_window *w)
{
	struct cdc_stream_position at = w->done;

	for (struct cdc_window_chunk *c = w->head; c; c = c->next) {
		if (c->open) {
			skip_done(c);
			if (c->first)
				at.id = c->items[c->first - 1].rec->id;
			return at;
		}
		at = c->through;
	}
	return at;
}

static const struct cdc_item *oldest(const struct cdc_window *w)
{
	for (struct cdc_window_chunk *c = w->head; c; c = c->next) {
		if (c->open) {
			skip_done(c);
			return &c->items[c->first];
		}
	}
	return NULL;
}

int64_t cdc_window_oldest_us(const struct cdc_window *w)
{
	const struct cdc_item *item = oldest(w);

	return item ? item->rec->commit_us : 0;
}

void cdc_window_close_above(struct cdc_window *w, const struct cdc_id *last)
{
	w->is_closed = true;
	w->last = *last;
}

bool cdc_window_has_gaps(struct cdc_window *w)
{
	const struct cdc_item *item = oldest(w);

	return item && !is_above_last(w, item);
}
