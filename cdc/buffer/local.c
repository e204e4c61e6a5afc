#include "cdc/buffer/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/base/stop.h"

#define DEFAULT_BYTES (8u << 20)
#define POOL_KEEP     (1u << 20) /* a pooled batch keeps allocations of up to this */
#define MIN_BYTES     (16u << 20)

/* --- segments and batches ----------------------------------------------------------- */

/* What a batch takes of the queue: what is in it, but no less than half of what it occupies. */
static size_t charge(const struct cdc_batch *batch)
{
	size_t used = batch->json.len + batch->names.len + batch->n * sizeof(*batch->records) +
		      batch->col_n * sizeof(*batch->col_ends);
	size_t half = cdc_batch_memory(batch) / 2;

	return (used > half ? used : half) + sizeof(struct cdc_local_seg);
}

struct cdc_local_seg *cdc_local_seg_new(struct cdc_batch *batch, uint64_t first, uint32_t sequence)
{
	struct cdc_local_seg *seg = calloc(1, sizeof(*seg));

	if (!seg)
		return NULL;
	seg->first = first;
	seg->span = batch->n ? batch->n : 1;
	seg->sequence = sequence;
	seg->batch = batch;
	seg->bytes = charge(batch);
	seg->refs = 1;
	if (batch->n) {
		seg->first_id = batch->records[0].id;
		seg->last_id = batch->records[batch->n - 1].id;
	}
	if (batch->end_n)
		seg->end_lsn = batch->ends[batch->end_n - 1].end_lsn;
	seg->is_open = cdc_batch_is_open(batch);
	return seg;
}

void cdc_local_seg_unref(struct cdc_local_seg *seg, struct cdc_local_seg **trash)
{
	CDC_ASSERT(seg->refs > 0);
	if (--seg->refs)
		return;
	seg->next = *trash;
	*trash = seg;
}

static void recycle(struct cdc_buffer *b, struct cdc_batch *batch)
{
	cdc_batch_reset(batch, POOL_KEEP);
	(void)pthread_mutex_lock(&b->mu);
	if (b->pool_n < CDC_LOCAL_POOL) {
		b->pool[b->pool_n++] = batch;
		batch = NULL;
	}
	(void)pthread_mutex_unlock(&b->mu);
	cdc_batch_free(batch);
}

void cdc_local_trash(struct cdc_buffer *b, struct cdc_local_seg *trash)
{
	while (trash) {
		struct cdc_local_seg *next = trash->next;

		recycle(b, trash->batch);
		free(trash);
		trash = next;
	}
}

struct cdc_batch *cdc_local_batch_new(struct cdc_buffer *b, size_t max_bytes)
{
	struct cdc_batch *batch = NULL;

	(void)pthread_mutex_lock(&b->mu);
	if (b->pool_n)
		batch = b->pool[--b->pool_n];
	(void)pthread_mutex_unlock(&b->mu);
	if (!batch)
		return cdc_batch_new(max_bytes);
	if (batch->json.cap > max_bytes)
		cdc_buf_clear(&batch->json);
	batch->max_bytes = max_bytes;
	batch->json.max = max_bytes;
	return batch;
}

struct cdc_local_seg *cdc_local_mem_at(const struct cdc_buffer *b, uint64_t ordinal)
{
	size_t low = 0, high = b->mem_n;

	if (b->mem_n == 0 || ordinal < b->mem[0]->first)
		return NULL;
	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (b->mem[mid]->first <= ordinal)
			low = mid;
		else
			high = mid;
	}
	return ordinal - b->mem[low]->first < b->mem[low]->span ? b->mem[low] : NULL;
}

void cdc_local_wake_readers(struct cdc_buffer *b)
{
	for (struct cdc_buffer_reader *r = b->readers; r; r = r->next) {
		if (r->is_waiting) {
			r->is_waiting = false;
			cdc_event_signal(r->fd);
		}
	}
}

struct cdc_local_sequence *cdc_local_sequence_of(const struct cdc_buffer *b, uint32_t number)
{
	for (size_t i = 0; i < b->sequence_n; i++) {
		if (b->sequences[i].number == number)
			return &b->sequences[i];
	}
	return NULL;
}

/* --- schema records ----------------------------------------------------------------- */

/* The first place whose table or id is not below. */
static size_t schema_place(const struct cdc_buffer *b, uint64_t table, const struct cdc_id *id)
{
	size_t low = 0, high = b->schema_n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct cdc_local_schema *s = &b->schemas[mid];

		if (s->table < table || (s->table == table && cdc_id_cmp(&s->id, id) < 0))
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct cdc_local_seg *cdc_local_schema_find(const struct cdc_buffer *b, uint64_t table,
					    const struct cdc_id *below)
{
	size_t at = schema_place(b, table, below);

	if (at == 0 || b->schemas[at - 1].table != table)
		return NULL;
	b->schemas[at - 1].seg->refs++;
	return b->schemas[at - 1].seg;
}

/* A segment that holds a copy of one record. */
static struct cdc_local_seg *copy_record(const struct cdc_batch *from, const struct cdc_record *r)
{
	const struct cdc_view v = {.rec = r, .batch = from};
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *to = cdc_batch_new(r->json_len + 1u);
	struct cdc_local_seg *seg;
	struct cdc_record *copy;
	uint64_t json_off;
	uint32_t col_first;
	uint16_t table;
	size_t len;
	const char *name = cdc_view_table(v, &len);

	if (!to || cdc_batch_table(to, name, len, &table, NULL) || cdc_batch_begin(to, &copy, NULL))
		return NULL;
	json_off = copy->json_off;
	col_first = copy->col_first;
	*copy = *r;
	copy->json_off = json_off;
	copy->col_first = col_first;
	copy->table = table;
	copy->cols = 0;
	for (uint16_t i = 0; i < r->cols; i++)
		cdc_batch_col(to, copy, from->col_ends[r->col_first + i]);
	cdc_buf_put(&to->json, cdc_view_json(v), r->json_len);
	if (cdc_batch_end(to, NULL))
		return NULL;
	seg = cdc_local_seg_new(to, 0, CDC_SEQ_STREAM);
	if (seg)
		(void)CDC_TAKE(to);
	return seg;
}

static bool schema_insert(struct cdc_buffer *b, struct cdc_local_seg *seg, uint64_t table)
{
	struct cdc_local_seg *trash = NULL;
	size_t at;
	bool is_kept = true;

	(void)pthread_mutex_lock(&b->mu);
	at = schema_place(b, table, &seg->first_id);
	if (at < b->schema_n && b->schemas[at].table == table &&
	    cdc_id_cmp(&b->schemas[at].id, &seg->first_id) == 0) {
		cdc_local_seg_unref(seg, &trash); /* loaded from the disk, or appended again */
	} else {
		if (b->schema_n == b->schema_cap) {
			size_t cap = b->schema_cap ? 2 * b->schema_cap : 16;
			void *grown = reallocarray(b->schemas, cap, sizeof(*b->schemas));

			is_kept = grown != NULL;
			if (grown) {
				b->schemas = grown;
				b->schema_cap = cap;
			}
		}
		if (is_kept) {
			memmove(&b->schemas[at + 1], &b->schemas[at],
				(b->schema_n - at) * sizeof(*b->schemas));
			b->schemas[at] = (struct cdc_local_schema){
				.table = table, .id = seg->first_id, .seg = seg};
			b->schema_n++;
		} else {
			cdc_local_seg_unref(seg, &trash);
		}
	}
	(void)pthread_mutex_unlock(&b->mu);
	cdc_local_trash(b, trash);
	return is_kept;
}

enum cdc_code cdc_local_schema_add(struct cdc_buffer *b, const struct cdc_batch *batch,
				   struct cdc_err *err)
{
	/* What was added before a failure does no harm: the record comes again. */
	for (size_t i = 0; i < batch->n; i++) {
		const struct cdc_record *r = &batch->records[i];
		struct cdc_local_seg *seg;

		if (r->op != CDC_OP_SCHEMA)
			continue;
		seg = copy_record(batch, r);
		if (!seg || !schema_insert(b, seg, batch->tables[r->table].hash))
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a schema record");
	}
	return CDC_OK;
}

/* With mu held: the newest of the first table at or above *table that has one at or below last,
 * with a reference; *table becomes its own.  NULL: there is none. */
static struct cdc_local_seg *next_schema(struct cdc_buffer *b, uint64_t *table,
					 const struct cdc_id *last)
{
	size_t at = schema_place(b, *table, &(struct cdc_id){0});
	struct cdc_local_seg *found = NULL;

	for (; at < b->schema_n && !(found && b->schemas[at].table != *table); at++) {
		if (cdc_id_cmp(&b->schemas[at].id, last) > 0)
			continue;
		found = b->schemas[at].seg;
		*table = b->schemas[at].table;
	}
	if (found)
		found->refs++;
	return found;
}

static enum cdc_code local_schemas(struct cdc_buffer *b, cdc_schema_fn *fn, void *arg,
				   struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	for (uint64_t table = 0; !rc; table++) {
		const struct cdc_local_sequence *stream;
		struct cdc_local_seg *seg, *trash = NULL;

		(void)pthread_mutex_lock(&b->mu);
		stream = cdc_local_sequence_of(b, CDC_SEQ_STREAM);
		seg = next_schema(b, &table, &stream->last_id);
		(void)pthread_mutex_unlock(&b->mu);
		if (!seg)
			break;
		rc = fn(arg, (struct cdc_view){.rec = seg->batch->records, .batch = seg->batch},
			err);
		(void)pthread_mutex_lock(&b->mu);
		cdc_local_seg_unref(seg, &trash);
		(void)pthread_mutex_unlock(&b->mu);
		cdc_local_trash(b, trash);
		if (table == UINT64_MAX)
			break;
	}
	return rc;
}

/* --- append ------------------------------------------------------------------------- */

/* Is there an id of a lower epoch than what went before it in its sequence? */
static enum cdc_code check_epoch(const struct cdc_batch *batch, uint32_t epoch, struct cdc_err *err)
{
	for (size_t i = 0; i < batch->n; i++) {
		if (batch->records[i].id.epoch < epoch)
			return cdc_err_set(err, CDC_EPOCH, "records of epoch %08x after epoch %08x",
					   batch->records[i].id.epoch, epoch);
		epoch = batch->records[i].id.epoch;
	}
	return CDC_OK;
}

/* Takes out the ends that are there already, and all but the last where several meet. */
static void drop_known_ends(struct cdc_batch *batch, cdc_lsn end_lsn)
{
	size_t kept = 0;

	for (size_t i = 0; i < batch->end_n; i++) {
		if (batch->ends[i].end_lsn <= end_lsn)
			continue;
		if (kept && batch->ends[kept - 1].count == batch->ends[i].count)
			kept--;
		batch->ends[kept++] = batch->ends[i];
	}
	batch->end_n = kept;
}

/* Takes out the records that are there already, wherever they stand; their JSON stays behind. */
static void drop_known(struct cdc_batch *batch, const struct cdc_local_sequence *s)
{
	struct cdc_id last = s->last_id;
	size_t kept = 0, end = 0;

	for (size_t i = 0; i < batch->n; i++) {
		for (; end < batch->end_n && batch->ends[end].count <= i; end++)
			batch->ends[end].count = kept;
		if (cdc_id_cmp(&batch->records[i].id, &last) <= 0)
			continue;
		last = batch->records[i].id;
		if (kept != i)
			batch->records[kept] = batch->records[i];
		kept++;
	}
	for (; end < batch->end_n; end++)
		batch->ends[end].count = kept;
	batch->n = kept;
	drop_known_ends(batch, s->end_lsn);
}

/* A sequence that is new gets its row here; NULL: out of memory. */
static struct cdc_local_sequence *sequence_for(struct cdc_buffer *b, uint32_t number)
{
	struct cdc_local_sequence *s = cdc_local_sequence_of(b, number);

	if (s)
		return s;
	if (b->sequence_n == b->sequence_cap) {
		size_t cap = b->sequence_cap ? 2 * b->sequence_cap : 4;
		void *grown = reallocarray(b->sequences, cap, sizeof(*b->sequences));

		if (!grown)
			return NULL;
		b->sequences = grown;
		b->sequence_cap = cap;
	}
	s = &b->sequences[b->sequence_n++];
	*s = (struct cdc_local_sequence){.number = number};
	return s;
}

static bool reserve_mem(struct cdc_buffer *b)
{
	size_t cap = b->mem_cap ? 2 * b->mem_cap : 64;
	void *grown;

	if (b->mem_n < b->mem_cap)
		return true;
	grown = reallocarray(b->mem, cap, sizeof(struct cdc_local_seg *));
	if (!grown)
		return false;
	b->mem = grown;
	b->mem_cap = cap;
	return true;
}

static enum cdc_code busy(struct cdc_buffer *b, struct cdc_err *err)
{
	b->was_busy = true;
	cdc_metric_add(&b->metrics->busy, 1);
	return cdc_err_set(err, CDC_BUSY, "the buffer has no room at the moment");
}

/* With mu held. */
static void note_progress(struct cdc_buffer *b, cdc_lsn lsn, uint32_t epoch, bool is_urgent)
{
	const uint32_t before = b->progress_lsn ? b->progress_epoch : b->durable_epoch;

	/* A new generation may begin below where the last one ended. */
	if (CDC_EPOCH_GENERATION(epoch) <= CDC_EPOCH_GENERATION(before) &&
	    (lsn <= b->durable.durable || lsn < b->progress_lsn))
		return;
	b->progress_lsn = lsn;
	b->progress_epoch = epoch;
	b->progress_after = b->next;
	b->progress_is_urgent |= is_urgent;
	(void)pthread_cond_signal(&b->wake);
}

/* With mu held: the segment becomes part of the sequence and visible. */
static void enqueue(struct cdc_buffer *b, struct cdc_local_sequence *s, struct cdc_local_seg *seg)
{
	seg->append_us = cdc_clock_wall_us();
	if (seg->batch->n) {
		s->last_id = seg->last_id;
		s->epoch = seg->last_id.epoch;
		s->is_open = seg->is_open;
	} else {
		seg->first_id = seg->last_id = s->last_id;
		seg->is_open = s->is_open = false;
	}
	if (seg->end_lsn)
		s->end_lsn = seg->end_lsn;
	seg->epoch = s->epoch;
	b->mem[b->mem_n++] = seg;
	b->next += seg->span;
	b->queue_bytes += seg->bytes;
	cdc_local_wake_readers(b);
	(void)pthread_cond_signal(&b->wake);
}

/* With mu held: nothing is changed unless CDC_OK. */
static enum cdc_code admit(struct cdc_buffer *b, uint32_t sequence, const struct cdc_batch *batch,
			   struct cdc_local_sequence **ret, struct cdc_err *err)
{
	size_t bytes = charge(batch);
	enum cdc_code rc;

	b->is_started = true;
	if (b->is_final) {
		if (err)
			*err = b->error;
		return b->error.code;
	}
	if (batch->json.len > CDC_LOCAL_BATCH_MAX)
		return cdc_err_set(err, CDC_LIMIT, "a batch of %zu bytes; the most is %u",
				   batch->json.len, CDC_LOCAL_BATCH_MAX);
	if (b->queue_bytes &&
	    bytes > b->queue_max - (b->queue_bytes < b->queue_max ? b->queue_bytes : b->queue_max))
		return busy(b, err);
	*ret = sequence_for(b, sequence);
	if (!*ret || !reserve_mem(b))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the queue");
	rc = check_epoch(batch, (*ret)->epoch, err);
	if (rc && err)
		(void)cdc_err_remedy(err, "restore the state.db that belongs to this buffer");
	return rc;
}

static enum cdc_code local_append(struct cdc_buffer *b, uint32_t sequence, struct cdc_batch *batch,
				  struct cdc_err *err)
{
	struct cdc_local_sequence *s = NULL;
	struct cdc_local_seg *seg;
	enum cdc_code rc;

	(void)pthread_mutex_lock(&b->mu);
	rc = admit(b, sequence, batch, &s, err);
	(void)pthread_mutex_unlock(&b->mu);
	if (rc)
		return rc;
	/* Only this thread appends, so the sequence has not moved. */
	drop_known(batch, s);
	/* Before the rows are to be seen, and not what was there already. */
	rc = cdc_local_schema_add(b, batch, err);
	if (rc)
		return rc;
	if (batch->n == 0 && (batch->end_n == 0 || !s->is_open)) {
		/* Nothing for readers: transactions that are there already, or empty ones. */
		(void)pthread_mutex_lock(&b->mu);
		if (batch->end_n) {
			s->end_lsn = batch->ends[batch->end_n - 1].end_lsn;
			if (sequence == CDC_SEQ_STREAM)
				note_progress(b, s->end_lsn, s->epoch, false);
		}
		(void)pthread_mutex_unlock(&b->mu);
		recycle(b, batch);
		return CDC_OK;
	}
	seg = cdc_local_seg_new(batch, b->next, sequence);
	if (!seg)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the queue");
	(void)pthread_mutex_lock(&b->mu);
	enqueue(b, s, seg);
	(void)pthread_mutex_unlock(&b->mu);
	return CDC_OK;
}

static enum cdc_code local_progress(struct cdc_buffer *b, cdc_lsn lsn, uint32_t epoch,
				    bool is_urgent, struct cdc_err *err)
{
	struct cdc_local_sequence *s;
	enum cdc_code rc = CDC_OK;

	(void)pthread_mutex_lock(&b->mu);
	b->is_started = true;
	s = cdc_local_sequence_of(b, CDC_SEQ_STREAM);
	if (b->is_final) {
		if (err)
			*err = b->error;
		rc = b->error.code;
	} else if (epoch < s->epoch) {
		rc = cdc_err_set(err, CDC_EPOCH, "progress of epoch %08x after epoch %08x", epoch,
				 s->epoch);
	} else {
		s->epoch = epoch;
		note_progress(b, lsn, epoch, is_urgent);
	}
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

static cdc_lsn local_durable(struct cdc_buffer *b)
{
	cdc_lsn lsn;

	(void)pthread_mutex_lock(&b->mu);
	lsn = b->durable.durable;
	(void)pthread_mutex_unlock(&b->mu);
	return lsn;
}

static void local_state(struct cdc_buffer *b, struct cdc_buffer_state *ret)
{
	(void)pthread_mutex_lock(&b->mu);
	*ret = (struct cdc_buffer_state){
		.last_id = b->durable_id, .durable = b->durable.durable, .epoch = b->durable_epoch};
	(void)pthread_mutex_unlock(&b->mu);
}

static int local_event_fd(struct cdc_buffer *b)
{
	return b->event_fd;
}

static enum cdc_code local_error(struct cdc_buffer *b, struct cdc_err *err)
{
	enum cdc_code rc;

	(void)pthread_mutex_lock(&b->mu);
	rc = b->error.code;
	if (rc && err)
		*err = b->error;
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

/* --- groups ------------------------------------------------------------------------- */

static struct cdc_local_group *group_of(const struct cdc_buffer *b, const char *name)
{
	for (struct cdc_local_group *g = b->groups; g; g = g->next) {
		if (strcmp(g->name, name) == 0 && !g->is_dropped)
			return g;
	}
	return NULL;
}

struct cdc_local_group *cdc_local_holder(const struct cdc_buffer *b)
{
	struct cdc_local_group *holder = NULL;

	for (struct cdc_local_group *g = b->groups; g; g = g->next) {
		if (!g->is_suspended && !g->is_dropped &&
		    (!holder || cdc_id_cmp(&g->at, &holder->at) < 0))
			holder = g;
	}
	return holder;
}

/* The stream's position among those of a set; zero when it is not there. */
static struct cdc_id id_of(const struct cdc_position *position)
{
	for (size_t i = 0; i < position->n; i++) {
		if (position->streams[i].stream == 0)
			return position->streams[i].id;
	}
	return (struct cdc_id){0};
}

/* The id before the first record of the batch that was committed at or after time_us. */
static bool before_time(const struct cdc_batch *batch, int64_t time_us, struct cdc_id *io_id)
{
	for (size_t i = 0; i < batch->n; i++) {
		if (batch->records[i].commit_us >= time_us && batch->records[i].commit_us != 0)
			return true;
		*io_id = batch->records[i].id;
	}
	return false;
}

/* The same among what is in memory; *ret_first: the ordinal where memory begins. */
static bool before_time_in_memory(struct cdc_buffer *b, int64_t time_us, struct cdc_id *ret_id,
				  uint64_t *ret_first)
{
	bool is_found = false;

	(void)pthread_mutex_lock(&b->mu);
	*ret_first = b->mem_n ? b->mem[0]->first : b->next;
	*ret_id = (struct cdc_id){0};
	for (size_t i = 0; i < b->mem_n && !is_found; i++) {
		if (b->mem[i]->sequence == CDC_SEQ_STREAM)
			is_found = before_time(b->mem[i]->batch, time_us, ret_id);
	}
	if (!is_found)
		*ret_id = b->sequences[0].last_id;
	(void)pthread_mutex_unlock(&b->mu);
	return is_found;
}

/* Looks for the first record at or after time_us on disk, below the ordinal. */
static enum cdc_code before_time_on_disk(struct cdc_local_db *db, int64_t time_us, uint64_t limit,
					 struct cdc_id *ret_id, bool *ret_found,
					 struct cdc_err *err)
{
	CDC_AUTO(cdc_batch_freep) struct cdc_batch *batch = cdc_batch_new(UINT32_MAX);
	struct cdc_local_chunk c;
	bool is_found = false, has_before = false;
	enum cdc_code rc;

	if (!batch)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	memset(&c, 0, sizeof(c));
	*ret_found = false;
	rc = cdc_local_db_since(db, time_us, &c, &is_found, err);
	if (!rc && is_found && c.first < limit) {
		rc = cdc_local_db_unpack(db, &c, batch, err);
		if (!rc)
			rc = cdc_local_db_before(db, c.first, &c, &has_before, err);
		*ret_id = has_before ? c.last_id : (struct cdc_id){0};
		if (!rc)
			*ret_found = before_time(batch, time_us, ret_id);
	} else if (!rc) {
		/* Whatever precedes what is in memory. */
		rc = cdc_local_db_before(db, limit, &c, &has_before, err);
		*ret_id = has_before ? c.last_id : (struct cdc_id){0};
	}
	return rc;
}

static enum cdc_code id_before_time(struct cdc_buffer *b, int64_t time_us, struct cdc_id *ret_id,
				    struct cdc_err *err)
{
	struct cdc_local_db *db = NULL;
	struct cdc_id in_memory, on_disk = {0};
	uint64_t first = 0;
	bool is_in_memory = before_time_in_memory(b, time_us, &in_memory, &first);
	bool is_on_disk = false;
	enum cdc_code rc = cdc_local_db_open(b->path, b->vfs, false, &db, err);

	if (!rc)
		rc = before_time_on_disk(db, time_us, first, &on_disk, &is_on_disk, err);
	cdc_local_db_close(db);
	if (rc)
		return rc;
	/* The first record in memory has its predecessor on disk. */
	if (is_in_memory && !is_on_disk && cdc_id_is_zero(&in_memory))
		in_memory = on_disk;
	*ret_id = is_on_disk ? on_disk : in_memory;
	return CDC_OK;
}

/* Where a start is, as an id below which nothing is asked for. */
static enum cdc_code place(struct cdc_buffer *b, const struct cdc_start *start,
			   struct cdc_id *ret_id, struct cdc_err *err)
{
	switch (start->at) {
	case CDC_START_DURABLE_END:
		(void)pthread_mutex_lock(&b->mu);
		*ret_id = b->durable_id;
		(void)pthread_mutex_unlock(&b->mu);
		return CDC_OK;
	case CDC_START_EARLIEST:
		*ret_id = (struct cdc_id){0};
		return CDC_OK;
	case CDC_START_ID:
		*ret_id = start->id;
		return CDC_OK;
	case CDC_START_TIME:
		return id_before_time(b, start->time_us, ret_id, err);
	}
	return CDC_OK;
}

static void group_free(struct cdc_local_group *g)
{
	if (g)
		free(g->name);
	free(g);
}

/* With mu held: the group of this name, which may be there from a recorded gap. */
static struct cdc_local_group *group_make(struct cdc_buffer *b, const char *name)
{
	struct cdc_local_group *g = group_of(b, name);

	if (g)
		return g;
	g = calloc(1, sizeof(*g));
	if (!g || !(g->name = strdup(name))) {
		group_free(g);
		return NULL;
	}
	g->next = b->groups;
	b->groups = g;
	return g;
}

static enum cdc_code local_group_add(struct cdc_buffer *b, const char *group,
				     const struct cdc_position *position,
				     const struct cdc_start *start,
				     struct cdc_stream_position *ret_position,
				     struct cdc_gap *ret_gap, struct cdc_err *err)
{
	struct cdc_local_group *g;
	struct cdc_id at = id_of(position);
	enum cdc_code rc = CDC_OK;

	CDC_ASSERT(position->n || start);
	if (strlen(group) >= CDC_LOCAL_NAME_MAX)
		return cdc_err_set(err, CDC_LIMIT, "a group's name is longer than %d bytes",
				   CDC_LOCAL_NAME_MAX);
	if (position->n == 0)
		rc = place(b, start, &at, err);
	if (rc)
		return rc;
	(void)pthread_mutex_lock(&b->mu);
	g = group_make(b, group);
	if (g) {
		g->at = at;
		*ret_position = (struct cdc_stream_position){.stream = 0, .id = at};
		*ret_gap = g->is_suspended ? g->gap : (struct cdc_gap){0};
	} else {
		rc = cdc_err_set(err, CDC_NOMEM, "out of memory for a group");
	}
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

/* With mu held: takes the group out of the list; its name may still be in somebody's hands. */
static void group_unlink(struct cdc_buffer *b, struct cdc_local_group *g)
{
	struct cdc_local_group **link = &b->groups;

	while (*link != g)
		link = &(*link)->next;
	*link = g->next;
	g->next = b->dropped;
	b->dropped = g;
	b->is_moved = true;
	(void)pthread_cond_signal(&b->wake);
}

static enum cdc_code local_group_drop(struct cdc_buffer *b, const char *group, struct cdc_err *err)
{
	struct cdc_local_group *g;
	enum cdc_code rc = CDC_OK;

	(void)pthread_mutex_lock(&b->mu);
	g = group_of(b, group);
	if (!g) {
		rc = cdc_err_set(err, CDC_MISSING, "no group %s", group);
	} else if (!g->is_suspended) {
		group_unlink(b, g);
	} else {
		/* The writer forgets the gap on disk, then takes the group out of the list. */
		uint64_t failed = b->failed_n;

		g->is_dropped = true;
		(void)pthread_cond_signal(&b->wake);
		while (g->is_dropped && b->failed_n == failed && !b->is_final)
			(void)pthread_cond_wait(&b->turns, &b->mu);
		if (g->is_dropped) {
			g->is_dropped = false;
			rc = cdc_err_set(err, b->error.code ? b->error.code : CDC_IO, "%s",
					 b->error.msg);
		}
	}
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

static void local_commit(struct cdc_buffer *b, const char *group,
			 const struct cdc_position *position)
{
	struct cdc_local_group *g;

	(void)pthread_mutex_lock(&b->mu);
	g = group_of(b, group);
	if (g) {
		g->at = id_of(position);
		b->is_moved = true;
		(void)pthread_cond_signal(&b->wake);
	}
	(void)pthread_mutex_unlock(&b->mu);
}

static enum cdc_code local_seek(struct cdc_buffer *b, const char *group, const struct cdc_start *to,
				struct cdc_stream_position *ret_position, struct cdc_err *err)
{
	struct cdc_local_group *g;
	struct cdc_id at = {0};
	enum cdc_code rc = place(b, to, &at, err);

	if (rc)
		return rc;
	(void)pthread_mutex_lock(&b->mu);
	g = group_of(b, group);
	if (!g) {
		rc = cdc_err_set(err, CDC_MISSING, "no group %s", group);
	} else if (g->is_suspended) {
		rc = cdc_err_set(err, CDC_GAP, "group %s is suspended; copy its tables anew",
				 group);
	} else {
		if (cdc_id_cmp(&at, &g->at) < 0)
			g->at = at;
		*ret_position = (struct cdc_stream_position){.stream = 0, .id = g->at};
	}
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

static void local_stats(struct cdc_buffer *b, struct cdc_buffer_stats *ret)
{
	const struct cdc_local_group *holder;

	memset(ret, 0, sizeof(*ret));
	(void)pthread_mutex_lock(&b->mu);
	ret->bytes = b->disk_bytes;
	ret->records = b->retained_records;
	ret->is_full = b->is_full;
	for (size_t i = b->mem_durable_n; i < b->mem_n; i++)
		ret->records += b->mem[i]->batch->n;
	if (ret->records) {
		ret->first_id =
			b->retained_records ? b->oldest_id : b->mem[b->mem_durable_n]->first_id;
		ret->last_id = b->sequences[0].last_id;
	}
	holder = cdc_local_holder(b);
	if (holder && ret->records && cdc_id_cmp(&holder->at, &ret->last_id) < 0)
		ret->holder = holder->name;
	(void)pthread_mutex_unlock(&b->mu);
}

/* --- open and close ----------------------------------------------------------------- */

/* A slot's name has only letters, digits and underscores, but this is asked of nobody else. */
static enum cdc_code make_path(struct cdc_buffer *b, const struct cdc_buffer_settings *s,
			       struct cdc_err *err)
{
	if (strchr(s->slot, '/'))
		return cdc_err_set(err, CDC_CONFIG, "slot %s: no name for a file", s->slot);
	if (asprintf(&b->path, "%s/buffer-%s.db", s->dir, s->slot) < 0) {
		b->path = NULL;
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	}
	if (s->vfs && !(b->vfs = strdup(s->vfs)))
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	return CDC_OK;
}

/* The file is made here, because SQLite would make it readable for everybody.  The descriptor stays
 * open as long as SQLite has the file: closing it earlier would drop SQLite's own locks. */
static enum cdc_code lock_file(struct cdc_buffer *b, struct cdc_err *err)
{
	b->lock_fd = open(b->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (b->lock_fd < 0 || fchmod(b->lock_fd, 0600) != 0)
		return cdc_err_set(err, errno == ENOSPC ? CDC_FULL : CDC_IO, "%s: %s", b->path,
				   strerror(errno));
	if (flock(b->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return CDC_OK;
	if (errno != EWOULDBLOCK)
		return cdc_err_set(err, CDC_IO, "%s: %s", b->path, strerror(errno));
	return cdc_err_set(err, CDC_HELD, "%s is in use by another process", b->path);
}

static void free_segs(struct cdc_buffer *b, struct cdc_local_seg *const *segs, size_t n)
{
	struct cdc_local_seg *trash = NULL;

	for (size_t i = 0; i < n; i++)
		cdc_local_seg_unref(segs[i], &trash);
	cdc_local_trash(b, trash);
}

static void free_groups(struct cdc_local_group *g)
{
	while (g) {
		struct cdc_local_group *next = g->next;

		group_free(g);
		g = next;
	}
}

static void stop_writer(struct cdc_buffer *b)
{
	if (!b->has_writer)
		return;
	(void)pthread_mutex_lock(&b->mu);
	b->is_stopping = true;
	(void)pthread_cond_signal(&b->wake);
	(void)pthread_mutex_unlock(&b->mu);
	(void)pthread_join(b->writer, NULL);
}

static void local_close(struct cdc_buffer *b)
{
	if (!b)
		return;
	stop_writer(b);
	CDC_ASSERT(!b->readers);
	cdc_local_db_close(b->db);
	free_segs(b, b->mem, b->mem_n);
	free_segs(b, b->cached, b->cached_n);
	for (size_t i = 0; i < b->schema_n; i++)
		free_segs(b, &b->schemas[i].seg, 1);
	for (size_t i = 0; i < b->pool_n; i++)
		cdc_batch_free(b->pool[i]);
	free_groups(b->groups);
	free_groups(b->dropped);
	free(b->mem);
	free(b->schemas);
	free(b->sequences);
	cdc_buf_clear(&b->packed);
	cdc_buf_clear(&b->body);
	cdc_compressor_free(b->compressor);
	if (b->event_fd >= 0)
		(void)close(b->event_fd);
	if (b->lock_fd >= 0)
		(void)close(b->lock_fd);
	(void)pthread_mutex_destroy(&b->mu);
	(void)pthread_cond_destroy(&b->wake);
	(void)pthread_cond_destroy(&b->turns);
	free(b->path);
	free(b->vfs);
	free(b);
}

static void local_closep(struct cdc_buffer **b)
{
	local_close(*b);
}

static struct cdc_buffer *make(const struct cdc_buffer_settings *s)
{
	struct cdc_buffer *b = calloc(1, sizeof(*b));
	pthread_condattr_t attr;

	if (!b)
		return NULL;
	b->max_bytes = s->max_bytes < MIN_BYTES ? MIN_BYTES : s->max_bytes;
	b->retention_ms = s->retention_ms;
	b->on_full = s->on_full;
	b->queue_max = s->queue_bytes ? s->queue_bytes : DEFAULT_BYTES;
	b->cache_max = s->cache_bytes ? s->cache_bytes : DEFAULT_BYTES;
	b->metrics = s->metrics;
	b->lock_fd = -1;
	b->event_fd = cdc_event_new();
	cdc_buf_init(&b->packed, INT32_MAX);
	cdc_buf_init(&b->body, INT32_MAX);
	(void)pthread_mutex_init(&b->mu, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&b->wake, &attr);
	(void)pthread_cond_init(&b->turns, &attr);
	(void)pthread_condattr_destroy(&attr);
	return b;
}

/* --- a look from outside -------------------------------------------------------------- */

static bool look_at_sequence(void *arg, const struct cdc_local_sequence *s)
{
	struct cdc_buffer_state *st = arg;

	if (s->number == CDC_SEQ_STREAM) {
		st->last_id = s->last_id;
		st->epoch = s->epoch;
	}
	return true;
}

static bool skip_gap(void *arg, const char *group, const struct cdc_gap *gap)
{
	(void)arg;
	(void)group;
	(void)gap;
	return true;
}

static bool skip_schema(void *arg, const void *packed, size_t len)
{
	(void)arg;
	(void)packed;
	(void)len;
	return true;
}

static enum cdc_code look_into(struct cdc_local_db *db, struct cdc_buffer_look *ret,
			       struct cdc_err *err)
{
	const struct cdc_local_load load = {.arg = &ret->state,
					    .sequence = look_at_sequence,
					    .gap = skip_gap,
					    .schema = skip_schema};
	struct cdc_local_state state;
	enum cdc_code rc = cdc_local_db_check(db, err);

	if (!rc)
		rc = cdc_local_db_state(db, &state, err);
	if (!rc)
		rc = cdc_local_db_load(db, &load, err);
	if (!rc)
		ret->state.durable = state.durable;
	return rc;
}

static uint64_t size_of(const char *path, const char *suffix)
{
	char *name = NULL;
	struct stat st;
	uint64_t size = 0;

	if (asprintf(&name, "%s%s", path, suffix) >= 0 && stat(name, &st) == 0)
		size = (uint64_t)st.st_size;
	free(name);
	return size;
}

static enum cdc_code local_look(const char *dir, const char *slot, struct cdc_buffer_look *ret,
				struct cdc_err *err)
{
	struct cdc_local_db *db = NULL;
	char *path = NULL;
	enum cdc_code rc;

	*ret = (struct cdc_buffer_look){0};
	if (asprintf(&path, "%s/buffer-%s.db", dir, slot) < 0)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	if (access(path, F_OK) != 0) {
		rc = cdc_err_set(err, CDC_MISSING, "%s: %s", path, strerror(errno));
	} else {
		ret->bytes = size_of(path, "") + size_of(path, "-wal");
		rc = cdc_local_db_open(path, NULL, false, &db, err);
	}
	if (!rc)
		rc = look_into(db, ret, err);
	cdc_local_db_close(db);
	free(path);
	return rc;
}

static enum cdc_code local_open(const struct cdc_buffer_settings *s, struct cdc_buffer **ret,
				struct cdc_err *err)
{
	CDC_AUTO(local_closep) struct cdc_buffer *b = make(s);
	enum cdc_code rc;
	int os;

	if (!b || b->event_fd < 0)
		return cdc_err_set(err, CDC_NOMEM, "out of memory or of descriptors");
	b->compressor = cdc_compressor_new(CDC_COMPRESS_LZ4);
	if (!b->compressor || !sequence_for(b, CDC_SEQ_STREAM))
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	rc = make_path(b, s, err);
	if (!rc)
		rc = lock_file(b, err);
	if (!rc)
		rc = cdc_local_recover(b, err);
	if (rc)
		return rc;
	os = pthread_create(&b->writer, NULL, cdc_local_writer, b);
	if (os)
		return cdc_err_set(err, CDC_NOMEM, "no thread for the buffer: %s", strerror(os));
	b->has_writer = true;
	*ret = CDC_TAKE(b);
	return CDC_OK;
}

const struct cdc_buffer_ops cdc_buffer_local = {
	.name = "local",
	.open = local_open,
	.look = local_look,
	.close = local_close,
	.batch_new = cdc_local_batch_new,
	.append = local_append,
	.progress = local_progress,
	.durable = local_durable,
	.state = local_state,
	.schemas = local_schemas,
	.event_fd = local_event_fd,
	.error = local_error,
	.group_add = local_group_add,
	.group_drop = local_group_drop,
	.commit = local_commit,
	.seek = local_seek,
	.reader_open = cdc_local_reader_open,
	.reader_close = cdc_local_reader_close,
	.read = cdc_local_reader_read,
	.release = cdc_local_reader_release,
	.check = cdc_local_reader_check,
	.reader_fd = cdc_local_reader_fd,
	.stats = local_stats,
};
