#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cdc/base/stop.h"
#include "cdc/buffer/local.h"

struct cdc_lease {
	struct cdc_local_seg *seg;
	struct cdc_lease *prev, *next; /* the reader's, so that close finds them */
	uint32_t index[];
};

/* --- open and close ----------------------------------------------------------------- */

static void reader_free(struct cdc_buffer_reader *r)
{
	if (!r)
		return;
	cdc_batch_free(r->tables);
	cdc_local_db_close(r->db);
	free(r->opened);
	free(r->ends);
	if (r->fd >= 0)
		(void)close(r->fd);
	free(r);
}

static void reader_freep(struct cdc_buffer_reader **r)
{
	reader_free(*r);
}

static enum cdc_code note_tables(struct cdc_buffer_reader *r, const char *const *tables, size_t n,
				 struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;
	uint16_t unused;

	r->has_all = n == 0;
	r->tables = cdc_batch_new(1);
	if (!r->tables)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a reader");
	for (size_t i = 0; i < n && !rc; i++)
		rc = cdc_batch_table(r->tables, tables[i], strlen(tables[i]), &unused, err);
	return rc;
}

/* With mu held. */
static struct cdc_local_group *group_named(const struct cdc_buffer *b, const char *name)
{
	struct cdc_local_group *g = b->groups;

	while (g && strcmp(g->name, name) != 0)
		g = g->next;
	return g;
}

enum cdc_code cdc_local_reader_open(struct cdc_buffer *b, const char *group,
				    const struct cdc_position *from, const char *const *tables,
				    size_t table_n, struct cdc_buffer_reader **ret,
				    struct cdc_err *err)
{
	CDC_AUTO(reader_freep) struct cdc_buffer_reader *r = calloc(1, sizeof(*r));
	enum cdc_code rc;

	if (!r)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a reader");
	r->buffer = b;
	r->fd = cdc_event_new();
	if (r->fd < 0)
		return cdc_err_set(err, CDC_IO, "no descriptor for a reader");
	for (size_t i = 0; i < from->n; i++) {
		if (from->streams[i].stream == 0)
			r->from = from->streams[i].id;
	}
	r->through = r->from;
	rc = note_tables(r, tables, table_n, err);
	if (rc)
		return rc;
	(void)pthread_mutex_lock(&b->mu);
	r->group = group_named(b, group);
	if (r->group) {
		r->next = b->readers;
		b->readers = r;
	}
	(void)pthread_mutex_unlock(&b->mu);
	if (!r->group)
		return cdc_err_set(err, CDC_MISSING, "no group %s", group);
	*ret = CDC_TAKE(r);
	return CDC_OK;
}

void cdc_local_reader_release(struct cdc_buffer_reader *r, struct cdc_lease *lease)
{
	struct cdc_local_seg *trash = NULL;

	if (!lease)
		return;
	if (lease->prev)
		lease->prev->next = lease->next;
	else
		r->leases = lease->next;
	if (lease->next)
		lease->next->prev = lease->prev;
	(void)pthread_mutex_lock(&r->buffer->mu);
	cdc_local_seg_unref(lease->seg, &trash);
	(void)pthread_mutex_unlock(&r->buffer->mu);
	cdc_local_trash(r->buffer, trash);
	free(lease);
}

void cdc_local_reader_close(struct cdc_buffer_reader *r)
{
	struct cdc_buffer_reader **link;

	if (!r)
		return;
	while (r->leases)
		cdc_local_reader_release(r, r->leases);
	(void)pthread_mutex_lock(&r->buffer->mu);
	link = &r->buffer->readers;
	while (*link != r)
		link = &(*link)->next;
	*link = r->next;
	(void)pthread_mutex_unlock(&r->buffer->mu);
	reader_free(r);
}

int cdc_local_reader_fd(struct cdc_buffer_reader *r)
{
	return r->fd;
}

/* --- which tables ------------------------------------------------------------------- */

static bool wants_hash(const struct cdc_buffer_reader *r, uint64_t hash)
{
	for (size_t i = 0; i < r->tables->table_n; i++) {
		if (r->tables->tables[i].hash == hash)
			return true;
	}
	return r->has_all;
}

/* Hashes of a chunk's tables, as they lie on disk. */
static bool wants_any(const struct cdc_buffer_reader *r, const void *hashes, size_t len)
{
	uint64_t hash;

	for (size_t at = 0; at + sizeof(hash) <= len && !r->has_all; at += sizeof(hash)) {
		memcpy(&hash, (const char *)hashes + at, sizeof(hash));
		if (wants_hash(r, hash))
			return true;
	}
	return r->has_all;
}

static bool wants_table(const struct cdc_buffer_reader *r, const struct cdc_batch *batch, size_t i)
{
	const struct cdc_table_name *t = &batch->tables[i];

	for (size_t k = 0; k < r->tables->table_n; k++) {
		const struct cdc_table_name *mine = &r->tables->tables[k];

		if (mine->hash == t->hash && mine->len == t->len &&
		    memcmp(r->tables->names.data + mine->off, batch->names.data + t->off, t->len) ==
			    0)
			return true;
	}
	return r->has_all;
}

/* Where a table's hash is, or belongs, among those that were begun. */
static size_t begun_place(const struct cdc_buffer_reader *r, uint64_t hash)
{
	size_t low = 0, high = r->opened_n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->opened[mid] < hash)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool is_begun(const struct cdc_buffer_reader *r, uint64_t hash)
{
	size_t at = begun_place(r, hash);

	return at < r->opened_n && r->opened[at] == hash;
}

static enum cdc_code note_begun(struct cdc_buffer_reader *r, uint64_t hash, struct cdc_err *err)
{
	size_t at = begun_place(r, hash);

	if (at < r->opened_n && r->opened[at] == hash)
		return CDC_OK;
	if (r->opened_n == r->opened_cap) {
		size_t cap = r->opened_cap ? 2 * r->opened_cap : 8;
		void *grown = reallocarray(r->opened, cap, sizeof(*r->opened));

		if (!grown)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a reader's tables");
		r->opened = grown;
		r->opened_cap = cap;
	}
	memmove(&r->opened[at + 1], &r->opened[at], (r->opened_n - at) * sizeof(*r->opened));
	r->opened[at] = hash;
	r->opened_n++;
	return CDC_OK;
}

/* --- what is in a segment ----------------------------------------------------------- */

/* A reader's cut through one segment. */
struct cut {
	size_t start, stop;               /* records looked at */
	size_t n;                         /* of them in the lease's index */
	const struct cdc_record *unbegun; /* at stop: the first row of a table not begun yet */
};

static struct cdc_lease *lease_new(struct cdc_buffer_reader *r, struct cdc_local_seg *seg, size_t n)
{
	struct cdc_lease *lease = malloc(sizeof(*lease) + n * sizeof(uint32_t));

	if (!lease)
		return NULL;
	lease->seg = seg;
	lease->prev = NULL;
	lease->next = r->leases;
	if (r->leases)
		r->leases->prev = lease;
	r->leases = lease;
	return lease;
}

/* The first record at or behind at whose id is above from: ids rise within a segment. */
static size_t first_wanted(const struct cdc_buffer_reader *r, const struct cdc_local_seg *seg,
			   size_t at)
{
	size_t low = at, high = seg->batch->n;

	if (low >= high || cdc_id_cmp(&seg->batch->records[low].id, &r->from) > 0)
		return low;
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (cdc_id_cmp(&seg->batch->records[mid].id, &r->from) <= 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Is there a schema record of the table that a reader has to have before this row? */
static bool has_schema(struct cdc_buffer_reader *r, uint64_t table, const struct cdc_id *row)
{
	struct cdc_local_seg *seg, *trash = NULL;

	(void)pthread_mutex_lock(&r->buffer->mu);
	seg = cdc_local_schema_find(r->buffer, table, row);
	if (seg)
		cdc_local_seg_unref(seg, &trash); /* never the last reference */
	(void)pthread_mutex_unlock(&r->buffer->mu);
	return seg != NULL;
}

enum { SKIP, TAKE, BEGIN }; /* what to do with a record of a table */

/* Fills the index with the records of our tables, up to a table that is not begun. */
static enum cdc_code cut_segment(struct cdc_buffer_reader *r, struct cdc_lease *lease,
				 struct cut *cut, struct cdc_err *err)
{
	const struct cdc_batch *batch = lease->seg->batch;
	uint8_t *what = malloc(batch->table_n ? batch->table_n : 1);
	enum cdc_code rc = CDC_OK;
	size_t i;

	if (!what)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a read");
	for (i = 0; i < batch->table_n; i++)
		what[i] = !wants_table(r, batch, i)            ? SKIP
			  : is_begun(r, batch->tables[i].hash) ? TAKE
							       : BEGIN;
	for (i = cut->start; i < batch->n && !rc; i++) {
		const struct cdc_record *rec = &batch->records[i];

		if (what[rec->table] == SKIP)
			continue;
		if (what[rec->table] == BEGIN) {
			uint64_t table = batch->tables[rec->table].hash;

			if (rec->op != CDC_OP_SCHEMA && has_schema(r, table, &rec->id)) {
				cut->unbegun = rec;
				break;
			}
			rc = note_begun(r, table, err);
			what[rec->table] = TAKE;
		}
		lease->index[cut->n++] = (uint32_t)i;
	}
	cut->stop = i;
	free(what);
	return rc;
}

/* The ends that lie in the cut and were not passed before. */
static void ends_of(struct cdc_buffer_reader *r, const struct cdc_local_seg *seg,
		    const struct cut *cut, bool has_skipped, struct cdc_read *ret)
{
	const struct cdc_batch *batch = seg->batch;
	size_t first = 0, n = 0;

	while (first < batch->end_n &&
	       (batch->ends[first].count < cut->start + has_skipped ||
		(seg->sequence == CDC_SEQ_STREAM && batch->ends[first].end_lsn <= r->end_seen)))
		first++;
	while (first + n < batch->end_n && batch->ends[first + n].count <= cut->stop)
		n++;
	ret->ends = batch->ends + first;
	ret->end_n = n;
	if (n && seg->sequence == CDC_SEQ_STREAM)
		r->end_seen = ret->ends[n - 1].end_lsn;
}

/* Is the transaction of the last record that was returned still without its end? */
static void note_open(struct cdc_buffer_reader *r, const struct cdc_local_seg *seg,
		      const struct cut *cut, const struct cdc_lease *lease,
		      const struct cdc_read *ret)
{
	const struct cdc_tx_end *end = ret->end_n ? &ret->ends[ret->end_n - 1] : NULL;

	if (seg->sequence != CDC_SEQ_STREAM)
		return;
	if (cut->n)
		r->open_lsn = seg->batch->records[lease->index[cut->n - 1]].id.commit_lsn;
	if (end && end->commit_lsn >= r->open_lsn)
		r->open_lsn = 0;
}

static void pass(struct cdc_buffer_reader *r, uint64_t ordinal, const struct cdc_id *id)
{
	r->at = ordinal;
	if (cdc_id_cmp(id, &r->through) > 0)
		r->through = *id;
}

/*
 * Reads on in the segment, whose reference goes to the lease.  When a row of a
 * table comes that was not begun, its schema record is the next thing to be
 * read, and the row is read again behind it.
 */
static enum cdc_code read_segment(struct cdc_buffer_reader *r, struct cdc_local_seg *seg,
				  struct cdc_read *ret, const struct cdc_record **ret_unbegun,
				  struct cdc_err *err)
{
	size_t offset = (size_t)(r->at - seg->first);
	struct cut cut = {.start = first_wanted(r, seg, offset)};
	struct cdc_lease *lease = lease_new(r, seg, seg->batch->n);
	enum cdc_code rc;

	if (!lease) {
		struct cdc_local_seg *trash = NULL;

		(void)pthread_mutex_lock(&r->buffer->mu);
		cdc_local_seg_unref(seg, &trash);
		(void)pthread_mutex_unlock(&r->buffer->mu);
		cdc_local_trash(r->buffer, trash);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a read");
	}
	ret->lease = lease; /* the caller gives it back after a failure */
	rc = cut_segment(r, lease, &cut, err);
	if (rc)
		return rc;
	ends_of(r, seg, &cut, cut.start > offset, ret);
	note_open(r, seg, &cut, lease, ret);
	ret->batch = seg->batch;
	ret->index = lease->index;
	ret->n = cut.n;
	*ret_unbegun = cut.unbegun;
	if (cut.stop > 0 && cut.stop <= seg->batch->n)
		pass(r, seg->first + cut.stop, &seg->batch->records[cut.stop - 1].id);
	if (!cut.unbegun)
		pass(r, seg->first + seg->span, &seg->last_id);
	return CDC_OK;
}

/* Yields the schema record that was in force at the row. */
static enum cdc_code read_schema(struct cdc_buffer_reader *r, uint64_t table,
				 const struct cdc_id *row, struct cdc_read *ret,
				 struct cdc_err *err)
{
	struct cdc_local_seg *seg;
	enum cdc_code rc = note_begun(r, table, err);

	if (rc)
		return rc;
	(void)pthread_mutex_lock(&r->buffer->mu);
	seg = cdc_local_schema_find(r->buffer, table, row);
	(void)pthread_mutex_unlock(&r->buffer->mu);
	if (!seg)
		return CDC_OK; /* dropped meanwhile: the row is too old to be retained */
	ret->lease = lease_new(r, seg, 1);
	if (!ret->lease) {
		struct cdc_local_seg *trash = NULL;

		(void)pthread_mutex_lock(&r->buffer->mu);
		cdc_local_seg_unref(seg, &trash);
		(void)pthread_mutex_unlock(&r->buffer->mu);
		cdc_local_trash(r->buffer, trash);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a read");
	}
	ret->lease->index[0] = 0;
	ret->batch = seg->batch;
	ret->index = ret->lease->index;
	ret->n = 1;
	return CDC_OK;
}

/* --- from disk ---------------------------------------------------------------------- */

static enum cdc_code need_db(struct cdc_buffer_reader *r, struct cdc_err *err)
{
	if (r->db)
		return CDC_OK;
	return cdc_local_db_open(r->buffer->path, r->buffer->vfs, false, &r->db, err);
}

/* Finds where to begin: the ordinal of the first segment that holds something above from. */
static enum cdc_code find_place(struct cdc_buffer_reader *r, struct cdc_err *err)
{
	struct cdc_buffer *b = r->buffer;
	struct cdc_local_chunk c;
	uint64_t durable_next;
	bool is_found = false, is_on_disk;
	enum cdc_code rc = CDC_OK;

	(void)pthread_mutex_lock(&b->mu);
	durable_next = b->durable.next;
	is_on_disk = b->retained_records != 0 &&
		     (b->sequence_n > 1 || cdc_id_cmp(&b->durable_id, &r->from) > 0);
	(void)pthread_mutex_unlock(&b->mu);
	r->at = durable_next;
	if (is_on_disk) {
		memset(&c, 0, sizeof(c));
		rc = need_db(r, err);
		if (!rc)
			rc = cdc_local_db_above(r->db, &r->from, &c, &is_found, err);
		if (is_found)
			r->at = c.first;
	}
	r->is_placed = rc == CDC_OK;
	return rc;
}

/* With mu held: a chunk that some reader has read from disk. */
static struct cdc_local_seg *cached_at(struct cdc_buffer *b, uint64_t ordinal)
{
	for (size_t i = 0; i < b->cached_n; i++) {
		struct cdc_local_seg *seg = b->cached[i];

		if (ordinal >= seg->first && ordinal - seg->first < seg->span) {
			seg->used = ++b->uses;
			return seg;
		}
	}
	return NULL;
}

/* With mu held: the longest unused ones go until another of this size fits. */
static void trim_cache(struct cdc_buffer *b, size_t bytes, struct cdc_local_seg **trash)
{
	const size_t most = sizeof(b->cached) / sizeof(b->cached[0]);

	while (b->cached_n && (b->cached_n == most || b->cached_bytes + bytes > b->cache_max / 2)) {
		size_t oldest = 0;

		for (size_t i = 1; i < b->cached_n; i++) {
			if (b->cached[i]->used < b->cached[oldest]->used)
				oldest = i;
		}
		b->cached_bytes -= b->cached[oldest]->bytes;
		cdc_local_seg_unref(b->cached[oldest], trash);
		b->cached[oldest] = b->cached[--b->cached_n];
	}
}

/* Shares a chunk that was just read: the one to use, with a reference, is what comes back. */
static struct cdc_local_seg *share(struct cdc_buffer *b, struct cdc_local_seg *seg)
{
	struct cdc_local_seg *trash = NULL, *there;

	(void)pthread_mutex_lock(&b->mu);
	there = cached_at(b, seg->first);
	if (there) {
		cdc_local_seg_unref(seg, &trash); /* another reader was faster */
		seg = there;
	} else {
		trim_cache(b, seg->bytes, &trash);
		b->cached[b->cached_n++] = seg;
		b->cached_bytes += seg->bytes;
		seg->used = ++b->uses;
	}
	seg->refs++;
	(void)pthread_mutex_unlock(&b->mu);
	cdc_local_trash(b, trash);
	return seg;
}

static enum cdc_code unpack(struct cdc_buffer_reader *r, const struct cdc_local_chunk *c,
			    struct cdc_local_seg **ret, struct cdc_err *err)
{
	CDC_AUTO(cdc_batch_freep)
	struct cdc_batch *batch = cdc_local_batch_new(r->buffer, UINT32_MAX);
	enum cdc_code rc;

	if (!batch)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a chunk");
	rc = cdc_local_db_unpack(r->db, c, batch, err);
	if (rc)
		return rc;
	*ret = cdc_local_seg_new(batch, c->first, c->sequence);
	if (!*ret)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a chunk");
	(*ret)->first_id = c->first_id;
	(*ret)->last_id = c->last_id;
	(void)CDC_TAKE(batch);
	return CDC_OK;
}

/* Whoever got records of a transaction also gets its end, whatever else it comes with. */
static bool may_end_open(const struct cdc_buffer_reader *r, const struct cdc_local_chunk *c)
{
	return r->open_lsn && c->sequence == CDC_SEQ_STREAM &&
	       c->first_id.commit_lsn == r->open_lsn;
}

/*
 * What lies at the reader's place on disk: a segment with a reference, or NULL
 * when the place moved on: over a chunk without our tables, or because what was
 * there has been evicted.
 */
static enum cdc_code from_disk(struct cdc_buffer_reader *r, uint64_t memory,
			       struct cdc_local_seg **ret, struct cdc_err *err)
{
	struct cdc_local_chunk c;
	struct cdc_local_seg *seg = NULL;
	bool is_found = false;
	enum cdc_code rc = need_db(r, err);

	*ret = NULL;
	memset(&c, 0, sizeof(c));
	if (!rc)
		rc = cdc_local_db_at(r->db, r->at, &c, &is_found, err);
	if (rc)
		return rc;
	if (!is_found || c.first >= memory) {
		r->at = memory;
	} else if (c.records == 0 || wants_any(r, c.tables, c.tables_len) || may_end_open(r, &c)) {
		if (c.first > r->at)
			r->at = c.first;
		rc = unpack(r, &c, &seg, err);
		if (!rc && seg)
			*ret = share(r->buffer, seg);
	} else {
		pass(r, c.first + c.span, &c.last_id);
	}
	cdc_local_db_rest(r->db);
	return rc;
}

/* --- read --------------------------------------------------------------------------- */

static enum cdc_code gap_error(const struct cdc_local_group *g, struct cdc_err *err)
{
	char first[CDC_ID_TEXT], last[CDC_ID_TEXT];

	(void)cdc_id_format(&g->gap.first, first);
	(void)cdc_id_format(&g->gap.last, last);
	return cdc_err_set(err, CDC_GAP,
			   "%s was suspended because the buffer was full: it lacks the changes "
			   "from %s to %s",
			   g->name, first, last);
}

/* What is in memory at the reader's place, with a reference; says else where memory begins. */
static enum cdc_code from_memory(struct cdc_buffer_reader *r, struct cdc_local_seg **ret,
				 uint64_t *ret_memory, bool *ret_may_end, struct cdc_err *err)
{
	struct cdc_buffer *b = r->buffer;
	enum cdc_code rc = CDC_OK;

	*ret = NULL;
	(void)pthread_mutex_lock(&b->mu);
	*ret_memory = b->mem_n ? b->mem[0]->first : b->next;
	if (r->group->is_suspended) {
		rc = gap_error(r->group, err);
	} else {
		*ret = cdc_local_mem_at(b, r->at);
		if (!*ret)
			*ret = cached_at(b, r->at);
		if (*ret)
			(*ret)->refs++;
		/* Armed before anybody is told that this is the end. */
		r->is_waiting = *ret ? (*ret)->first + (*ret)->span == b->next : r->at >= b->next;
		*ret_may_end = r->is_waiting;
	}
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

enum cdc_code cdc_local_reader_check(struct cdc_buffer_reader *r, struct cdc_err *err)
{
	struct cdc_buffer *b = r->buffer;
	enum cdc_code rc;

	(void)pthread_mutex_lock(&b->mu);
	rc = r->group->is_suspended ? gap_error(r->group, err) : CDC_OK;
	(void)pthread_mutex_unlock(&b->mu);
	return rc;
}

/* Ends that come without records are the reader's until the next read; nothing is leased. */
static enum cdc_code keep_ends(struct cdc_buffer_reader *r, struct cdc_read *ret,
			       struct cdc_err *err)
{
	if (ret->end_n > r->ends_cap) {
		void *grown = reallocarray(r->ends, ret->end_n, sizeof(*r->ends));

		if (!grown)
			return cdc_err_set(err, CDC_NOMEM, "out of memory for a read");
		r->ends = grown;
		r->ends_cap = ret->end_n;
	}
	if (ret->end_n)
		memcpy(r->ends, ret->ends, ret->end_n * sizeof(*r->ends));
	cdc_local_reader_release(r, ret->lease);
	ret->lease = NULL;
	ret->batch = NULL;
	ret->index = NULL;
	ret->ends = ret->end_n ? r->ends : NULL;
	return CDC_OK;
}

/* One step: something is read, or the place moved on, or this is the end. */
static enum cdc_code step(struct cdc_buffer_reader *r, struct cdc_read *ret, struct cdc_err *err)
{
	const struct cdc_record *unbegun = NULL;
	struct cdc_local_seg *seg = NULL;
	uint64_t memory = 0;
	bool may_end = false;
	enum cdc_code rc = from_memory(r, &seg, &memory, &may_end, err);

	if (!rc && !seg && !may_end)
		rc = from_disk(r, memory, &seg, err);
	if (!rc && seg)
		rc = read_segment(r, seg, ret, &unbegun, err);
	ret->is_at_end = !rc && may_end && !unbegun;
	if (!rc && unbegun && ret->n == 0 && ret->end_n == 0) {
		/* The row is the next one to be read: its schema record first. */
		uint64_t table = seg->batch->tables[unbegun->table].hash;
		struct cdc_id row = unbegun->id;

		cdc_local_reader_release(r, ret->lease);
		memset(ret, 0, sizeof(*ret));
		rc = read_schema(r, table, &row, ret, err);
	} else if (!rc && ret->lease && ret->n == 0) {
		rc = keep_ends(r, ret, err);
	}
	return rc;
}

enum cdc_code cdc_local_reader_read(struct cdc_buffer_reader *r, struct cdc_read *ret,
				    struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	memset(ret, 0, sizeof(*ret));
	if (!r->is_placed)
		rc = find_place(r, err);
	if (!rc)
		rc = step(r, ret, err);
	if (rc) {
		cdc_local_reader_release(r, ret->lease);
		memset(ret, 0, sizeof(*ret));
		return rc;
	}
	ret->through = (struct cdc_stream_position){.stream = 0, .id = r->through};
	return CDC_OK;
}
