#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cdc/base/clock.h"
#include "cdc/base/stop.h"
#include "cdc/buffer/local.h"

#define PACE_MS          20 /* between two group commits, unless much is waiting */
#define PACE_BYTES       (1u << 20)
#define PROGRESS_PACE_MS 1000 /* between two commits of progress alone */
#define EVICT_PACE_MS    200  /* between two commits of evictions alone */
#define MEASURE_MS       1000 /* between two looks at what the groups hold */
#define IDLE_MS          5000
#define PAUSE_MIN_MS     50 /* after a failure; doubles */
#define PAUSE_MAX_MS     2000
#define DISK_FULL_MS     60000 /* a full disk is not tried again sooner while eviction helps */
#define CHUNK_BYTES      (256u << 10) /* JSON; smaller batches are merged up to it */
#define CHUNKS_MAX       64           /* of one turn */
#define VICTIMS_MAX      16           /* groups suspended in one turn */
#define EXPIRED_MAX      32           /* chunks evicted by age in one turn */
#define KEEP_BYTES       (1u << 20)   /* of work space, between turns */

/* One group commit. */
struct turn {
	struct cdc_local_seg **taken; /* from mem, each with a reference of ours */
	size_t taken_n;
	struct {
		struct cdc_local_seg *seg; /* merged, or the only one it covers */
		size_t covers;             /* entries of mem */
	} chunks[CHUNKS_MAX];
	size_t chunk_n, covered_n;    /* covered_n: of taken, by the chunks */
	struct cdc_local_state state; /* as it will be */
	struct cdc_id stream_id;
	uint32_t stream_epoch;
	cdc_lsn progress_lsn; /* 0: none */
	uint32_t progress_epoch;
	uint64_t progress_after;
	bool has_low; /* a group holds what is above low */
	struct cdc_id low;
	struct cdc_id last_id; /* of the stream, as appended when the turn began */
	struct cdc_local_group *victims[VICTIMS_MAX];
	struct cdc_gap gaps[VICTIMS_MAX];
	size_t victim_n;
	struct cdc_local_group *dropped[VICTIMS_MAX];
	size_t dropped_n;
	uint64_t evicted; /* records */
	bool may_evict;
	bool is_full;    /* the next chunk has no room */
	bool is_settled; /* it is on disk and everybody knows */
};

/* --- what to do next ---------------------------------------------------------------- */

static bool is_held(const struct cdc_buffer *b)
{
	const struct cdc_local_group *g = cdc_local_holder(b);

	return g && cdc_id_cmp(&b->oldest.last_id, &g->at) > 0;
}

/* With mu held: milliseconds until the oldest chunk may go by age, at most IDLE_MS. */
static uint64_t evict_in_ms(const struct cdc_buffer *b, uint64_t now_ms)
{
	int64_t age_us = cdc_clock_wall_us() - b->oldest.written_us;
	uint64_t age_ms = age_us > 0 ? (uint64_t)age_us / 1000 : 0;
	uint64_t wait_ms = b->retention_ms > age_ms ? b->retention_ms - age_ms : 0;

	/* Written in the future: the wall clock was set back, and nothing goes until it is there.
	 */
	if (!b->has_oldest || !b->is_started || is_held(b) || age_us < 0)
		return IDLE_MS;
	if (b->evict_ms + EVICT_PACE_MS > now_ms && wait_ms < b->evict_ms + EVICT_PACE_MS - now_ms)
		wait_ms = b->evict_ms + EVICT_PACE_MS - now_ms;
	return wait_ms < IDLE_MS ? wait_ms : IDLE_MS;
}

static bool has_drops(const struct cdc_buffer *b)
{
	for (const struct cdc_local_group *g = b->groups; g; g = g->next) {
		if (g->is_dropped)
			return true;
	}
	return false;
}

static uint64_t until(uint64_t when_ms, uint64_t now_ms)
{
	return when_ms > now_ms ? when_ms - now_ms : 0;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* With mu held: milliseconds until a turn is due. */
static uint64_t due_in_ms(struct cdc_buffer *b, uint64_t now_ms)
{
	uint64_t wait_ms = evict_in_ms(b, now_ms);
	bool has_queue = b->mem_n > b->mem_durable_n;

	if (b->is_moved)
		b->is_full = b->is_moved = false;
	if (b->error.code)
		return until(b->retry_at_ms, now_ms);
	if (has_drops(b))
		return 0;
	if (has_queue && !b->is_full)
		wait_ms = lower(wait_ms, b->queue_bytes >= PACE_BYTES || b->is_stopping
						 ? 0
						 : until(b->turn_ms + PACE_MS, now_ms));
	if (b->progress_lsn && b->progress_after <= b->durable.next)
		wait_ms =
			lower(wait_ms, b->progress_is_urgent || b->is_stopping
					       ? 0
					       : until(b->progress_ms + PROGRESS_PACE_MS, now_ms));
	return wait_ms;
}

/* With mu held: is there anything that close has to wait for? */
static bool is_finished(const struct cdc_buffer *b)
{
	bool has_queue = b->mem_n > b->mem_durable_n && !b->is_full;

	return b->is_stopping && !has_queue &&
	       !(b->progress_lsn && b->progress_after <= b->durable.next);
}

static void wait_ms_for(struct cdc_buffer *b, uint64_t wait_ms)
{
	struct timespec at;

	(void)clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += (time_t)(wait_ms / 1000);
	at.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	(void)pthread_cond_timedwait(&b->wake, &b->mu, &at);
}

/* --- taking ------------------------------------------------------------------------- */

/* With mu held: low is where the group furthest behind is that is neither suspended nor about to
 * be. */
static void find_low(const struct cdc_buffer *b, struct turn *t, struct cdc_local_group **ret_group)
{
	struct cdc_local_group *low = NULL;

	for (struct cdc_local_group *g = b->groups; g; g = g->next) {
		bool is_out = g->is_suspended || g->is_dropped;

		for (size_t i = 0; i < t->victim_n; i++)
			is_out |= t->victims[i] == g;
		if (!is_out && (!low || cdc_id_cmp(&g->at, &low->at) < 0))
			low = g;
	}
	t->has_low = low != NULL;
	if (low)
		t->low = low->at;
	*ret_group = low;
}

/* With mu held: CDC_NOMEM leaves everything where it is. */
static enum cdc_code take(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	const uint64_t most = cdc_local_db_turn_bytes(b->max_bytes);
	struct cdc_local_group *unused;
	uint64_t bytes = 0;
	size_t n = 0, queued = b->mem_n - b->mem_durable_n;

	t->state = b->durable;
	t->state.turn++;
	t->stream_id = b->durable_id;
	t->stream_epoch = b->durable_epoch;
	t->last_id = b->sequences[0].last_id;
	t->progress_lsn = b->progress_lsn;
	t->progress_epoch = b->progress_epoch;
	t->progress_after = b->progress_after;
	t->may_evict = b->is_started;
	find_low(b, t, &unused);
	for (struct cdc_local_group *g = b->groups; g && t->dropped_n < VICTIMS_MAX; g = g->next) {
		if (g->is_dropped)
			t->dropped[t->dropped_n++] = g;
	}
	while (n < queued && (n == 0 || bytes < most))
		bytes += b->mem[b->mem_durable_n + n++]->bytes;
	if (n == 0)
		return CDC_OK;
	t->taken = calloc(n, sizeof(struct cdc_local_seg *));
	if (!t->taken)
		return cdc_err_set(err, CDC_NOMEM, "out of memory to write the buffer");
	for (; t->taken_n < n; t->taken_n++) {
		t->taken[t->taken_n] = b->mem[b->mem_durable_n + t->taken_n];
		t->taken[t->taken_n]->refs++;
	}
	return CDC_OK;
}

/* --- chunks ------------------------------------------------------------------------- */

/* How many of the taken ones from the first on make one chunk. */
static size_t run_of(const struct turn *t, size_t from, size_t *ret_bytes)
{
	const struct cdc_local_seg *first = t->taken[from];
	size_t n = 1, bytes = first->batch->json.len;

	*ret_bytes = bytes;
	if (first->batch->n == 0)
		return 1;
	for (; from + n < t->taken_n; n++) {
		const struct cdc_local_seg *seg = t->taken[from + n];

		bytes += seg->batch->json.len;
		if (seg->sequence != first->sequence || seg->batch->n == 0 || bytes > CHUNK_BYTES)
			break;
		*ret_bytes = bytes;
	}
	return n;
}

static struct cdc_local_seg *merge(struct cdc_buffer *b, const struct turn *t, size_t from,
				   size_t n, size_t bytes)
{
	const struct cdc_local_seg *first = t->taken[from], *last = t->taken[from + n - 1];
	CDC_AUTO(cdc_batch_freep)
	struct cdc_batch *batch = cdc_local_batch_new(b, bytes ? bytes : 1);
	struct cdc_local_seg *seg;

	for (size_t i = 0; i < n && batch; i++) {
		if (cdc_batch_append(batch, t->taken[from + i]->batch, 0, NULL))
			return NULL;
	}
	seg = batch ? cdc_local_seg_new(batch, first->first, first->sequence) : NULL;
	if (!seg)
		return NULL;
	(void)CDC_TAKE(batch);
	CDC_ASSERT(seg->first + seg->span == last->first + last->span);
	seg->is_open = last->is_open;
	seg->epoch = last->epoch;
	seg->append_us = first->append_us;
	return seg;
}

static int64_t highest_us(const struct cdc_local_seg *seg, int64_t max_us)
{
	for (size_t i = 0; i < seg->batch->n && seg->sequence == CDC_SEQ_STREAM; i++) {
		if (seg->batch->records[i].commit_us > max_us)
			max_us = seg->batch->records[i].commit_us;
	}
	return max_us;
}

/* Packs and compresses into b->body. */
static enum cdc_code encode(struct cdc_buffer *b, const struct cdc_local_seg *seg,
			    const struct turn *t, struct cdc_local_chunk *c, struct cdc_err *err)
{
	enum cdc_compress_format format;
	enum cdc_code rc;

	cdc_buf_reset(&b->packed, KEEP_BYTES);
	cdc_buf_reset(&b->body, KEEP_BYTES);
	cdc_batch_pack(seg->batch, &b->packed);
	if (b->packed.failed)
		return cdc_err_set(err, CDC_NOMEM, "out of memory to pack a chunk");
	rc = cdc_compress(b->compressor, b->packed.data, b->packed.len, &b->body, &format, err);
	if (rc)
		return rc;
	*c = (struct cdc_local_chunk){
		.first = seg->first,
		.span = seg->span,
		.records = seg->batch->n,
		.sequence = seg->sequence,
		.first_id = seg->first_id,
		.last_id = seg->last_id,
		.max_us = highest_us(seg, t->state.max_us),
		.written_us = seg->append_us,
		.cost_before = t->state.cost,
		.records_before = t->state.records,
		.format = format,
		.raw_len = b->packed.len,
		.checksum = cdc_checksum(b->body.data, b->body.len),
		.body = b->body.data,
		.body_len = b->body.len,
	};
	cdc_buf_reset(&b->packed, KEEP_BYTES);
	return CDC_OK;
}

/* --- room --------------------------------------------------------------------------- */

static enum cdc_code look_at_oldest(struct cdc_buffer *b, struct cdc_err *err)
{
	return cdc_local_db_oldest(b->db, &b->oldest, &b->has_oldest, err);
}

static enum cdc_code evict_oldest(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	enum cdc_code rc = cdc_local_db_drop_chunk(b->db, b->oldest.first, err);

	if (rc)
		return rc;
	t->evicted += b->oldest.records;
	return look_at_oldest(b, err);
}

static bool is_delivered(const struct cdc_buffer *b, const struct turn *t)
{
	return !t->has_low || cdc_id_cmp(&b->oldest.last_id, &t->low) <= 0;
}

static enum cdc_code evict_expired(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	int64_t now_us = cdc_clock_wall_us();
	enum cdc_code rc = CDC_OK;

	for (int i = 0; i < EXPIRED_MAX && !rc && t->may_evict && b->has_oldest; i++) {
		int64_t age_us = now_us - b->oldest.written_us;

		if (!is_delivered(b, t) || age_us < 0 || (uint64_t)age_us / 1000 < b->retention_ms)
			break;
		rc = evict_oldest(b, t, err);
	}
	return rc;
}

/* The first id of the oldest chunk that is above low. */
static enum cdc_code first_above(struct cdc_buffer *b, const struct cdc_id *low,
				 struct cdc_id *ret_id, struct cdc_err *err)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *batch = cdc_batch_new(UINT32_MAX);
	struct cdc_local_chunk c;
	bool is_found = false;
	enum cdc_code rc;

	*ret_id = b->oldest.first_id;
	if (cdc_id_cmp(low, ret_id) < 0)
		return CDC_OK;
	if (!batch)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	memset(&c, 0, sizeof(c));
	rc = cdc_local_db_at(b->db, b->oldest.first, &c, &is_found, err);
	if (!rc && is_found)
		rc = cdc_local_db_unpack(b->db, &c, batch, err);
	for (size_t i = 0; i < batch->n && cdc_id_cmp(ret_id, low) <= 0; i++)
		*ret_id = batch->records[i].id;
	return rc;
}

/* Lets the group furthest behind go, with its gap written down in this transaction. */
static enum cdc_code suspend_one(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	struct cdc_local_group *victim;
	struct cdc_gap gap = {.last = t->last_id};
	enum cdc_code rc;

	(void)pthread_mutex_lock(&b->mu);
	find_low(b, t, &victim);
	(void)pthread_mutex_unlock(&b->mu);
	if (!victim)
		return CDC_OK;
	rc = first_above(b, &t->low, &gap.first, err);
	if (rc)
		return rc;
	t->victims[t->victim_n] = victim;
	t->gaps[t->victim_n++] = gap;
	rc = cdc_local_db_put_gap(b->db, victim->name, &gap, err);
	(void)pthread_mutex_lock(&b->mu);
	find_low(b, t, &victim);
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

/* Whether what is delivered should go so that the files need not grow on a full disk. */
static bool is_disk_full(struct cdc_buffer *b)
{
	if (b->disk_bytes_max && cdc_clock_mono_ms() >= b->disk_bytes_max_until)
		b->disk_bytes_max = 0;
	return b->disk_bytes_max != 0;
}

static enum cdc_code room_on_disk(struct cdc_buffer *b, struct turn *t, uint64_t need,
				  struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	while (!rc && is_disk_full(b) && b->has_oldest && is_delivered(b, t)) {
		uint64_t room = 0;

		rc = cdc_local_db_room(b->db, b->disk_bytes_max, &room, err);
		if (rc || room >= need)
			break;
		rc = evict_oldest(b, t, err);
	}
	return rc;
}

/* Evicts until a body fits; sets is_full when it cannot. */
static enum cdc_code make_room(struct cdc_buffer *b, struct turn *t, size_t body_len,
			       struct cdc_err *err)
{
	const uint64_t need = cdc_local_db_cost(body_len);
	enum cdc_code rc = room_on_disk(b, t, need, err);

	while (!rc) {
		uint64_t room = 0;

		rc = cdc_local_db_room(b->db, b->max_bytes, &room, err);
		/* What is larger than the whole budget is written when nothing else is there. */
		if (rc || room >= need || !b->has_oldest)
			return rc;
		if (is_delivered(b, t)) {
			rc = evict_oldest(b, t, err);
		} else if (b->on_full == CDC_ON_FULL_SUSPEND && t->victim_n < VICTIMS_MAX) {
			rc = suspend_one(b, t, err);
		} else {
			t->is_full = true;
			return CDC_OK;
		}
	}
	return rc;
}

/* --- one turn ----------------------------------------------------------------------- */

static enum cdc_code put_schemas(struct cdc_buffer *b, const struct cdc_batch *batch,
				 struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; i < batch->n && !rc; i++) {
		const struct cdc_record *r = &batch->records[i];
		uint64_t table = batch->tables[r->table].hash;
		struct cdc_local_seg *seg, *trash = NULL;
		struct cdc_id above = r->id;

		if (r->op != CDC_OP_SCHEMA)
			continue;
		above.row++; /* what is found below it is this one */
		(void)pthread_mutex_lock(&b->mu);
		seg = cdc_local_schema_find(b, table, &above);
		(void)pthread_mutex_unlock(&b->mu);
		CDC_ASSERT(seg && cdc_id_cmp(&seg->first_id, &r->id) == 0);
		cdc_buf_reset(&b->packed, KEEP_BYTES);
		cdc_batch_pack(seg->batch, &b->packed);
		rc = b->packed.failed
			     ? cdc_err_set(err, CDC_NOMEM, "out of memory for a schema")
			     : cdc_local_db_put_schema(b->db, table, &r->id, &b->packed, err);
		(void)pthread_mutex_lock(&b->mu);
		cdc_local_seg_unref(seg, &trash);
		(void)pthread_mutex_unlock(&b->mu);
		cdc_local_trash(b, trash);
	}
	return rc;
}

static enum cdc_code put_sequence(struct cdc_buffer *b, struct turn *t,
				  const struct cdc_local_seg *seg, struct cdc_err *err)
{
	const struct cdc_local_sequence s = {.number = seg->sequence,
					     .last_id = seg->last_id,
					     .epoch = seg->epoch,
					     .is_open = seg->is_open};

	if (seg->sequence == CDC_SEQ_STREAM) {
		t->stream_id = seg->last_id;
		t->stream_epoch = seg->epoch;
		if (seg->end_lsn > t->state.durable)
			t->state.durable = seg->end_lsn;
	}
	return cdc_local_db_put_sequence(b->db, &s, err);
}

/* One chunk into the open transaction; sets is_full instead when it has no room. */
static enum cdc_code put_chunk(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	CDC_AUTO(cdc_buf_clear) struct cdc_buf tables = {.max = SIZE_MAX};
	struct cdc_local_chunk c;
	struct cdc_local_seg *seg;
	size_t bytes, n = run_of(t, t->covered_n, &bytes);
	enum cdc_code rc;

	seg = n > 1 ? merge(b, t, t->covered_n, n, bytes) : t->taken[t->covered_n];
	if (!seg)
		return cdc_err_set(err, CDC_NOMEM, "out of memory to merge a chunk");
	t->chunks[t->chunk_n].seg = seg;
	t->chunks[t->chunk_n++].covers = n;
	rc = encode(b, seg, t, &c, err);
	if (!rc)
		rc = make_room(b, t, c.body_len, err);
	if (rc || t->is_full)
		return rc;
	for (size_t i = 0; i < seg->batch->table_n; i++)
		cdc_buf_put(&tables, &seg->batch->tables[i].hash, sizeof(uint64_t));
	c.tables = tables.data;
	c.tables_len = tables.len;
	rc = cdc_local_db_put_chunk(b->db, &c, err);
	if (!rc)
		rc = put_schemas(b, seg->batch, err);
	if (!rc)
		rc = put_sequence(b, t, seg, err);
	if (rc)
		return rc;
	t->covered_n += n;
	t->state.next = c.first + c.span;
	t->state.cost += cdc_local_db_cost(c.body_len);
	t->state.records += c.records;
	t->state.max_us = c.max_us;
	if (!b->has_oldest)
		rc = look_at_oldest(b, err);
	return rc;
}

static enum cdc_code put_progress(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	struct cdc_local_sequence s = {.number = CDC_SEQ_STREAM};

	if (t->progress_lsn && t->progress_after > t->state.next)
		t->progress_lsn = 0; /* not yet */
	if (!t->progress_lsn)
		return CDC_OK;
	if (t->progress_lsn > t->state.durable ||
	    CDC_EPOCH_GENERATION(t->progress_epoch) > CDC_EPOCH_GENERATION(t->stream_epoch))
		t->state.durable = t->progress_lsn;
	if (t->progress_epoch <= t->stream_epoch)
		return CDC_OK;
	/* Between transactions, or there would be no progress. */
	t->stream_epoch = s.epoch = t->progress_epoch;
	s.last_id = t->stream_id;
	return cdc_local_db_put_sequence(b->db, &s, err);
}

/* Schema records that no row needs any more: a newer one of their table is older than all rows. */
static enum cdc_code drop_schemas(struct cdc_buffer *b, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (size_t i = 0; !rc && b->has_oldest; i++) {
		struct cdc_local_schema old = {0};
		struct cdc_local_seg *trash = NULL;

		(void)pthread_mutex_lock(&b->mu);
		for (; i + 1 < b->schema_n; i++) {
			if (b->schemas[i].table == b->schemas[i + 1].table &&
			    cdc_id_cmp(&b->schemas[i + 1].id, &b->oldest.first_id) < 0)
				break;
		}
		if (i + 1 < b->schema_n) {
			/* Should the transaction fail, it is on disk only, and found at the next
			 * open. */
			old = b->schemas[i];
			b->schema_n--;
			memmove(&b->schemas[i], &b->schemas[i + 1],
				(b->schema_n - i) * sizeof(*b->schemas));
			cdc_local_seg_unref(old.seg, &trash);
		}
		(void)pthread_mutex_unlock(&b->mu);
		cdc_local_trash(b, trash);
		if (!old.seg)
			break;
		i--;
		rc = cdc_local_db_drop_schema(b->db, old.table, &old.id, err);
	}
	return rc;
}

static enum cdc_code write_turn(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	enum cdc_code rc = cdc_local_db_begin(b->db, err);

	for (size_t i = 0; i < t->dropped_n && !rc; i++)
		rc = cdc_local_db_drop_gap(b->db, t->dropped[i]->name, err);
	if (!rc)
		rc = evict_expired(b, t, err);
	while (!rc && t->covered_n < t->taken_n && t->chunk_n < CHUNKS_MAX && !t->is_full)
		rc = put_chunk(b, t, err);
	if (!rc)
		rc = put_progress(b, t, err);
	if (!rc && t->evicted)
		rc = drop_schemas(b, err);
	if (!rc)
		rc = cdc_local_db_put_state(b->db, &t->state, err);
	if (!rc)
		rc = cdc_local_db_allocate(b->db, b->lock_fd, err);
	if (!rc)
		rc = cdc_local_db_commit(b->db, err);
	return rc;
}

/* --- what a turn leaves behind ------------------------------------------------------ */

/* With mu held: the first of mem that are durable make room for others. */
static void trim_recent(struct cdc_buffer *b, struct cdc_local_seg **trash)
{
	size_t n = 0;

	while (n < b->mem_durable_n && b->recent_bytes > b->cache_max / 2) {
		b->recent_bytes -= b->mem[n]->bytes;
		cdc_local_seg_unref(b->mem[n++], trash);
	}
	if (n == 0)
		return;
	b->mem_n -= n;
	b->mem_durable_n -= n;
	memmove(b->mem, b->mem + n, b->mem_n * sizeof(struct cdc_local_seg *));
}

/* With mu held: puts the chunks in the place of what they were made of. */
static void replace(struct cdc_buffer *b, struct turn *t, struct cdc_local_seg **trash)
{
	size_t to = b->mem_durable_n, from = to, covered = 0;

	for (size_t i = 0; i < t->chunk_n && covered < t->covered_n; i++) {
		struct cdc_local_seg *seg = t->chunks[i].seg;
		size_t n = t->chunks[i].covers;

		for (size_t k = 0; k < n; k++) {
			b->queue_bytes -= b->mem[from + k]->bytes;
			if (n > 1)
				cdc_local_seg_unref(b->mem[from + k], trash);
		}
		if (n > 1)
			seg->refs++; /* the list's; the turn's own goes with the turn */
		b->recent_bytes += seg->bytes;
		b->mem[to++] = seg;
		from += n;
		covered += n;
	}
	if (from != to)
		memmove(b->mem + to, b->mem + from,
			(b->mem_n - from) * sizeof(struct cdc_local_seg *));
	b->mem_n -= from - to;
	b->mem_durable_n = to;
}

/* With mu held. */
static void settle_groups(struct cdc_buffer *b, struct turn *t)
{
	for (size_t i = 0; i < t->victim_n; i++) {
		t->victims[i]->is_suspended = true;
		t->victims[i]->gap = t->gaps[i];
	}
	/* That they learn of it; also those that were not at the end. */
	for (struct cdc_buffer_reader *r = b->readers; r; r = r->next) {
		if (r->group->is_suspended && t->victim_n)
			cdc_event_signal(r->fd);
	}
	for (size_t i = 0; i < t->dropped_n; i++) {
		struct cdc_local_group **link = &b->groups;

		while (*link != t->dropped[i])
			link = &(*link)->next;
		*link = t->dropped[i]->next;
		t->dropped[i]->is_dropped = false;
		t->dropped[i]->next = b->dropped;
		b->dropped = t->dropped[i];
	}
}

/* The transaction is on disk. */
static void succeed(struct cdc_buffer *b, struct turn *t)
{
	struct cdc_local_seg *trash = NULL;
	uint64_t now_ms = cdc_clock_mono_ms(), before, bytes = cdc_local_db_bytes(b->db);
	bool has_risen, was_busy, had_error;

	t->is_settled = true;
	(void)pthread_mutex_lock(&b->mu);
	before = b->durable.records;
	has_risen = t->state.durable > b->durable.durable;
	was_busy = b->was_busy && (t->covered_n || t->victim_n);
	had_error = b->error.code != CDC_OK;
	b->durable = t->state;
	b->durable_id = t->stream_id;
	b->durable_epoch = t->stream_epoch;
	replace(b, t, &trash);
	trim_recent(b, &trash);
	settle_groups(b, t);
	b->retained_records = b->has_oldest ? t->state.records - b->oldest.records_before : 0;
	b->oldest_id = b->has_oldest ? b->oldest.first_id : (struct cdc_id){0};
	b->disk_bytes = bytes;
	/* What begins a generation was perhaps noted during this turn, and may lie below its end.
	 */
	if (b->progress_lsn && b->progress_lsn <= t->state.durable &&
	    CDC_EPOCH_GENERATION(b->progress_epoch) <= CDC_EPOCH_GENERATION(t->stream_epoch)) {
		b->progress_lsn = 0;
		b->progress_is_urgent = false;
	}
	b->is_full = t->is_full && t->covered_n == 0 && !b->is_moved;
	b->error.code = CDC_OK;
	b->was_busy &= !was_busy;
	b->turn_ms = now_ms;
	if (t->progress_lsn)
		b->progress_ms = now_ms;
	if (t->evicted)
		b->evict_ms = now_ms;
	b->pause_ms = 0;
	(void)pthread_cond_broadcast(&b->turns);
	(void)pthread_mutex_unlock(&b->mu);
	cdc_local_trash(b, trash);
	cdc_metric_add(&b->metrics->buffered, t->state.records - before);
	cdc_metric_add(&b->metrics->evicted, t->evicted);
	cdc_metric_set(&b->metrics->bytes, bytes);
	cdc_metric_add(&b->metrics->syncs, 1);
	if (has_risen || was_busy || had_error)
		cdc_event_signal(b->event_fd);
}

/* The writer's error becomes visible, and the next try waits. */
static void report(struct cdc_buffer *b, const struct cdc_err *err, bool is_final)
{
	(void)pthread_mutex_lock(&b->mu);
	b->error = *err;
	b->is_final |= is_final;
	b->failed_n++;
	b->pause_ms = b->pause_ms ? b->pause_ms * 2 : PAUSE_MIN_MS;
	if (b->pause_ms > PAUSE_MAX_MS)
		b->pause_ms = PAUSE_MAX_MS;
	b->retry_at_ms = cdc_clock_mono_ms() + b->pause_ms;
	(void)pthread_cond_broadcast(&b->turns);
	(void)pthread_mutex_unlock(&b->mu);
	cdc_event_signal(b->event_fd);
}

static void free_turn(struct cdc_buffer *b, struct turn *t)
{
	struct cdc_local_seg *trash = NULL;

	(void)pthread_mutex_lock(&b->mu);
	for (size_t i = 0; i < t->chunk_n; i++) {
		if (t->chunks[i].covers > 1)
			cdc_local_seg_unref(t->chunks[i].seg, &trash);
	}
	for (size_t i = 0; i < t->taken_n; i++)
		cdc_local_seg_unref(t->taken[i], &trash);
	(void)pthread_mutex_unlock(&b->mu);
	cdc_local_trash(b, trash);
	free(t->taken);
}

/* --- failures ----------------------------------------------------------------------- */

/* Opens the database afresh and says whether the turn's transaction is really there. */
static enum cdc_code reopen(struct cdc_buffer *b, const struct turn *t, bool *ret_is_there,
			    struct cdc_err *err)
{
	struct cdc_local_state state;
	enum cdc_code rc;

	memset(&state, 0, sizeof(state));
	cdc_local_db_close(b->db);
	b->db = NULL;
	rc = cdc_local_db_open(b->path, b->vfs, true, &b->db, err);
	if (!rc)
		rc = cdc_local_db_state(b->db, &state, err);
	if (!rc)
		rc = cdc_local_db_rewrite_wal(b->db, err);
	if (!rc)
		rc = look_at_oldest(b, err);
	if (!rc && state.turn != t->state.turn && state.turn + 1 != t->state.turn) {
		rc = cdc_err_set(err, CDC_CORRUPT, "%s was changed by somebody else", b->path);
		(void)cdc_err_remedy(err, "stop whatever writes to it, then start walpost again");
	}
	*ret_is_there = !rc && state.turn == t->state.turn;
	return rc;
}

/* Waits out the pause; false: close does not wait any longer. */
static bool pause_after_failure(struct cdc_buffer *b)
{
	uint64_t now_ms;
	bool is_stopping;

	(void)pthread_mutex_lock(&b->mu);
	while (!b->is_stopping && (now_ms = cdc_clock_mono_ms()) < b->retry_at_ms)
		wait_ms_for(b, b->retry_at_ms - now_ms);
	is_stopping = b->is_stopping;
	(void)pthread_mutex_unlock(&b->mu);
	return !is_stopping;
}

/* After a failed turn: false when the writer has to end. */
static bool recover(struct cdc_buffer *b, struct turn *t, struct cdc_err *err)
{
	bool is_there = false;

	cdc_local_db_rollback(b->db);
	if (err->code != CDC_IO && err->code != CDC_CORRUPT) {
		/* A long WAL can be written from its start again. */
		if (err->code == CDC_FULL) {
			(void)!cdc_local_db_checkpoint(b->db, b->max_bytes, true, NULL);
			b->disk_bytes_max = cdc_local_db_bytes(b->db);
			b->disk_bytes_max_until = cdc_clock_mono_ms() + DISK_FULL_MS;
		}
		report(b, err, false);
		(void)!look_at_oldest(b, NULL);
		return pause_after_failure(b);
	}
	report(b, err, false);
	while (reopen(b, t, &is_there, err)) {
		report(b, err, err->code == CDC_CORRUPT);
		if (err->code == CDC_CORRUPT || !pause_after_failure(b))
			return false;
	}
	if (is_there && !t->is_settled) {
		succeed(b, t);
		return true;
	}
	return pause_after_failure(b);
}

/* --- the thread --------------------------------------------------------------------- */

/* How much the group furthest behind holds. */
static void measure(struct cdc_buffer *b)
{
	struct turn t = {0};
	struct cdc_local_group *low;
	struct cdc_local_chunk c;
	uint64_t held = 0;
	bool is_found = false;

	b->measure_ms = cdc_clock_mono_ms();
	(void)pthread_mutex_lock(&b->mu);
	find_low(b, &t, &low);
	(void)pthread_mutex_unlock(&b->mu);
	if (t.has_low && !cdc_local_db_above(b->db, &t.low, &c, &is_found, NULL) && is_found)
		held = b->durable.cost - c.cost_before;
	cdc_metric_set(&b->metrics->undelivered_bytes, held);
}

/* One turn; false when the writer has to end. */
static bool turn(struct cdc_buffer *b, struct turn *t)
{
	struct cdc_err err;
	bool goes_on = true;

	memset(&err, 0, sizeof(err));
	if (write_turn(b, t, &err)) {
		goes_on = recover(b, t, &err);
	} else {
		succeed(b, t);
		if (cdc_local_db_checkpoint(b->db, b->max_bytes, false, &err))
			goes_on = recover(b, t, &err);
		/* Otherwise the database may be closed: it could not be opened again. */
		if (goes_on && cdc_clock_mono_ms() - b->measure_ms >= MEASURE_MS)
			measure(b);
	}
	return goes_on;
}

void *cdc_local_writer(void *buffer)
{
	struct cdc_buffer *b = buffer;
	bool goes_on = true;

	while (goes_on) {
		struct turn t = {0};
		struct cdc_err err;
		uint64_t wait_ms = 0;
		enum cdc_code rc = CDC_OK;

		memset(&err, 0, sizeof(err));
		(void)pthread_mutex_lock(&b->mu);
		goes_on = !is_finished(b);
		if (goes_on)
			wait_ms = due_in_ms(b, cdc_clock_mono_ms());
		if (goes_on && wait_ms)
			wait_ms_for(b, wait_ms);
		else if (goes_on)
			rc = take(b, &t, &err);
		(void)pthread_mutex_unlock(&b->mu);
		if (rc) {
			report(b, &err, false);
			goes_on = pause_after_failure(b);
		} else if (goes_on && !wait_ms) {
			goes_on = turn(b, &t);
		} else if (goes_on && cdc_clock_mono_ms() - b->measure_ms >= MEASURE_MS) {
			measure(b);
		}
		free_turn(b, &t);
	}
	return NULL;
}

/* --- recovery ----------------------------------------------------------------------- */

static bool load_sequence(void *arg, const struct cdc_local_sequence *s)
{
	struct cdc_buffer *b = arg;

	if (s->number == CDC_SEQ_STREAM) {
		b->sequences[0] = *s;
		b->sequences[0].end_lsn = b->durable.durable;
		return true;
	}
	if (b->sequence_n == b->sequence_cap) {
		size_t cap = 2 * b->sequence_cap;
		void *grown = reallocarray(b->sequences, cap, sizeof(*b->sequences));

		if (!grown)
			return false;
		b->sequences = grown;
		b->sequence_cap = cap;
	}
	b->sequences[b->sequence_n++] = *s;
	return true;
}

static bool load_gap(void *arg, const char *name, const struct cdc_gap *gap)
{
	struct cdc_buffer *b = arg;
	struct cdc_local_group *g = calloc(1, sizeof(*g));

	if (!g || !(g->name = strdup(name))) {
		free(g);
		return false;
	}
	g->is_suspended = true;
	g->gap = *gap;
	g->next = b->groups;
	b->groups = g;
	return true;
}

static bool load_schema(void *arg, const void *packed, size_t len)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *batch = cdc_batch_new(UINT32_MAX);

	return batch && !cdc_batch_unpack(batch, packed, len, NULL) &&
	       !cdc_local_schema_add(arg, batch, NULL);
}

static enum cdc_code check_chunk(struct cdc_buffer *b, uint64_t first, struct cdc_err *err)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *batch = cdc_batch_new(UINT32_MAX);
	struct cdc_local_chunk c;
	bool is_found = false;
	enum cdc_code rc;

	if (!batch)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	memset(&c, 0, sizeof(c));
	rc = cdc_local_db_at(b->db, first, &c, &is_found, err);
	if (!rc && is_found)
		rc = cdc_local_db_unpack(b->db, &c, batch, err);
	return rc;
}

/* The ends of what is there; every other chunk is verified when it is read. */
static enum cdc_code check_ends(struct cdc_buffer *b, struct cdc_err *err)
{
	struct cdc_local_chunk newest;
	bool is_found = false;
	enum cdc_code rc;

	memset(&newest, 0, sizeof(newest));
	rc = cdc_local_db_newest(b->db, &newest, &is_found, err);
	if (rc || !is_found)
		return rc;
	if (newest.first + newest.span > b->durable.next) {
		(void)cdc_err_set(err, CDC_CORRUPT, "%s: its state is older than its chunks",
				  b->path);
		return cdc_err_remedy(err, "restore %s from a backup, or move it away", b->path);
	}
	rc = check_chunk(b, newest.first, err);
	return rc ? rc : check_chunk(b, b->oldest.first, err);
}

enum cdc_code cdc_local_recover(struct cdc_buffer *b, struct cdc_err *err)
{
	const struct cdc_local_load load = {
		.arg = b, .sequence = load_sequence, .gap = load_gap, .schema = load_schema};
	enum cdc_code rc = cdc_local_db_open(b->path, b->vfs, true, &b->db, err);

	if (!rc)
		rc = cdc_local_db_state(b->db, &b->durable, err);
	if (!rc)
		rc = cdc_local_db_load(b->db, &load, err);
	if (!rc)
		rc = look_at_oldest(b, err);
	if (!rc)
		rc = check_ends(b, err);
	if (rc)
		return rc;
	b->next = b->durable.next;
	b->durable_id = b->sequences[0].last_id;
	b->durable_epoch = b->sequences[0].epoch;
	b->retained_records = b->has_oldest ? b->durable.records - b->oldest.records_before : 0;
	b->oldest_id = b->has_oldest ? b->oldest.first_id : (struct cdc_id){0};
	b->disk_bytes = cdc_local_db_bytes(b->db);
	cdc_metric_set(&b->metrics->bytes, b->disk_bytes);
	cdc_metric_set(&b->metrics->max_bytes, b->max_bytes);
	return CDC_OK;
}
