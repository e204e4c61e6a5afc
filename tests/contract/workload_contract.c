#include "tests/contract/workload_contract.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/base/stop.h"

#define BIG_BYTES   (5u << 20)
#define NOISE_BYTES 8192u
#define BATCH_BYTES (16u << 20)

bool contract_fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)fputs("contract: ", stderr);
	(void)vfprintf(stderr, fmt, args);
	(void)fputc('\n', stderr);
	va_end(args);
	return false;
}

/* splitmix64: every bit of the result depends on every bit of x. */
uint64_t contract_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t mix_id(const struct cdc_id *id)
{
	uint64_t x = contract_mix(id->commit_lsn);

	x = contract_mix(x ^ id->ordinal);
	return contract_mix(x ^ ((uint64_t)id->range << 32 | id->row));
}

/* --- the buffer under test ---------------------------------------------------------- */

const char *contract_table_name(unsigned table)
{
	static const char *const names[CONTRACT_TABLES] = {"public.t0", "public.t1", "public.t2",
							   "public.t3"};

	return names[table];
}

bool contract_init(struct contract *c, const struct cdc_buffer_ops *ops)
{
	const struct cdc_column columns[] = {
		{.name = "id", .type = cdc_type_builtin(20), .is_key = true},
		{.name = "v", .type = cdc_type_builtin(25)},
	};

	*c = (struct contract){.ops = ops};
	for (unsigned i = 0; i < CONTRACT_TABLES; i++) {
		/* The name behind "public." */
		c->shapes[i] = cdc_shape_new("public", contract_table_name(i) + 7, columns, 2);
		if (!c->shapes[i])
			return contract_fail("no memory for a shape");
	}
	return true;
}

void contract_clear(struct contract *c)
{
	while (c->reader_n)
		contract_reader_close(c, c->readers[0]);
	contract_close(c);
	for (unsigned i = 0; i < CONTRACT_TABLES; i++)
		cdc_shape_free(c->shapes[i]);
	memset(c, 0, sizeof(*c));
}

bool contract_open(struct contract *c)
{
	struct cdc_err err = {.code = CDC_OK};

	c->s.metrics = &c->metrics;
	if (c->ops->open(&c->s, &c->b, &err)) {
		c->b = NULL;
		return contract_fail("open: %s: %s", cdc_code_name(err.code), err.msg);
	}
	return true;
}

void contract_close(struct contract *c)
{
	c->ops->close(c->b);
	c->b = NULL;
}

/* --- ids ---------------------------------------------------------------------------- */

cdc_lsn contract_lsn(uint64_t tx)
{
	return tx * 0x1000;
}

cdc_lsn contract_end_lsn(uint64_t tx)
{
	return tx * 0x1000 + 0x100;
}

int64_t contract_us(uint64_t tx)
{
	return CONTRACT_EPOCH_US + (int64_t)tx * 1000000;
}

struct cdc_id contract_id(uint64_t tx, uint32_t ordinal)
{
	return (struct cdc_id){.commit_lsn = contract_lsn(tx),
			       .epoch = CDC_EPOCH(1, 1),
			       .ordinal = ordinal,
			       .part = 1};
}

unsigned contract_table(const struct cdc_id *id)
{
	return (unsigned)(mix_id(id) % CONTRACT_TABLES);
}

void contract_ids_add(struct contract_ids *l, struct cdc_id id)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 64;
		l->ids = reallocarray(l->ids, l->cap, sizeof(*l->ids));
		CDC_ASSERT(l->ids);
	}
	l->ids[l->n++] = id;
}

void contract_ids_add_tx(struct contract_ids *l, uint64_t tx, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i <= to; i++)
		contract_ids_add(l, contract_id(tx, i));
}

void contract_ids_clear(struct contract_ids *l)
{
	free(l->ids);
	*l = (struct contract_ids){0};
}

void contract_seen_clear(struct contract_seen *s)
{
	contract_ids_clear(&s->got);
	free(s->ends);
	cdc_batch_free(s->scratch);
	memset(s, 0, sizeof(*s));
}

bool contract_same(const struct contract_ids *got, const struct contract_ids *want)
{
	char a[CDC_ID_TEXT], b[CDC_ID_TEXT];
	size_t n = got->n < want->n ? got->n : want->n;

	for (size_t i = 0; i < n; i++) {
		if (cdc_id_cmp(&got->ids[i], &want->ids[i]) == 0)
			continue;
		(void)cdc_id_format(&got->ids[i], a);
		(void)cdc_id_format(&want->ids[i], b);
		return contract_fail("record %zu is %s, should be %s", i, a, b);
	}
	if (got->n != want->n)
		return contract_fail("%zu records, should be %zu", got->n, want->n);
	return true;
}

/* --- records ------------------------------------------------------------------------ */

static uint32_t text_len(const struct cdc_id *id)
{
	if (id->ordinal & CONTRACT_BIG)
		return BIG_BYTES;
	if (id->ordinal & CONTRACT_NOISE)
		return NOISE_BYTES;
	return (uint32_t)(10 + mix_id(id) / CONTRACT_TABLES % 200);
}

/* len bytes that stand for themselves in JSON and hold six bits each. */
static void fill(char *text, uint32_t len, uint64_t seed)
{
	static const char digits[] =
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
	uint64_t x = 0;

	for (uint32_t i = 0; i < len; i++) {
		if (i % 10 == 0)
			x = contract_mix(seed + i);
		text[i] = digits[x & 63];
		x >>= 6;
	}
}

static bool write_schema(struct cdc_batch *batch, const struct cdc_id *id)
{
	const char *name = contract_table_name(contract_table(id));
	struct cdc_record *r;
	char text[CDC_ID_TEXT];
	uint16_t table;

	if (cdc_batch_table(batch, name, strlen(name), &table, NULL) ||
	    cdc_batch_begin(batch, &r, NULL))
		return contract_fail("no room for a schema record");
	(void)cdc_id_format(id, text);
	cdc_buf_printf(&batch->json, "{\"id\":\"%s\",\"operation\":\"schema\",\"schema\":\"%s\"}",
		       text, name);
	r->id = *id;
	r->table = table;
	r->op = CDC_OP_SCHEMA;
	r->flags = CDC_RECORD_BARRIER | CDC_RECORD_NO_KEY;
	r->commit_us = contract_us(id->commit_lsn / 0x1000);
	return !cdc_batch_end(batch, NULL);
}

bool contract_write(const struct contract *c, struct cdc_batch *batch, struct cdc_id id)
{
	const uint32_t len = text_len(&id);
	const uint64_t mixed = mix_id(&id);
	char key[24], *text;
	struct cdc_value row[2], old[2];
	struct cdc_change change = {.shape = c->shapes[contract_table(&id)],
				    .op = id.range ? CDC_OP_READ : CDC_OP_INSERT,
				    .id = id,
				    .position = id.commit_lsn,
				    .xid = id.range ? 0 : 77,
				    .row = row};
	struct cdc_err err = {.code = CDC_OK};
	enum cdc_code rc;

	if (id.part == 0 && id.range == 0)
		return write_schema(batch, &id);
	text = malloc(len);
	if (!text)
		return contract_fail("no memory for a text");
	fill(text, len, mixed);
	(void)snprintf(key, sizeof(key), "%llu", (unsigned long long)(mixed % 1000));
	row[0] = (struct cdc_value){
		.kind = CDC_VALUE_TEXT, .text = key, .len = (uint32_t)strlen(key)};
	row[1] = (struct cdc_value){.kind = CDC_VALUE_TEXT, .text = text, .len = len};
	old[0] = row[0];
	old[1] = (struct cdc_value){.kind = CDC_VALUE_ABSENT};
	if (id.range == 0)
		change.commit_us = contract_us(id.commit_lsn / 0x1000);
	if (id.range == 0 && len < NOISE_BYTES && mixed % 7 == 0) {
		change.op = CDC_OP_DELETE;
		change.row = NULL;
		change.old = old;
	} else if (id.range == 0 && mixed % 7 < 3) {
		change.op = CDC_OP_UPDATE;
	}
	rc = cdc_write_change(batch, &change, &err);
	free(text);
	return !rc || contract_fail("write: %s: %s", cdc_code_name(rc), err.msg);
}

bool contract_write_tx(const struct contract *c, struct cdc_batch *batch, uint64_t tx,
		       uint32_t from, uint32_t to, bool has_end)
{
	for (uint32_t i = from; i <= to; i++) {
		if (!contract_write(c, batch, contract_id(tx, i)))
			return false;
	}
	return !has_end || !cdc_batch_tx_end(batch, contract_lsn(tx), contract_end_lsn(tx),
					     contract_us(tx), NULL);
}

struct cdc_batch *contract_batch(const struct contract *c)
{
	return c->ops->batch_new(c->b, BATCH_BYTES);
}

static bool same_bytes(const struct cdc_batch *a, const struct cdc_record *r,
		       const struct cdc_batch *b, const struct cdc_record *q)
{
	const struct cdc_view x = {.rec = r, .batch = a}, y = {.rec = q, .batch = b};
	size_t x_len, y_len;
	const char *x_name = cdc_view_table(x, &x_len), *y_name = cdc_view_table(y, &y_len);

	return r->json_len == q->json_len &&
	       memcmp(cdc_view_json(x), cdc_view_json(y), r->json_len) == 0 && x_len == y_len &&
	       memcmp(x_name, y_name, x_len) == 0 && r->cols == q->cols &&
	       (r->cols == 0 || memcmp(a->col_ends + r->col_first, b->col_ends + q->col_first,
				       r->cols * sizeof(*a->col_ends)) == 0);
}

static bool same_span(struct cdc_span a, struct cdc_span b)
{
	return a.off == b.off && a.len == b.len;
}

static bool same_block(const struct cdc_record *r, const struct cdc_record *q)
{
	return cdc_id_cmp(&r->id, &q->id) == 0 && r->key_hash == q->key_hash &&
	       r->commit_us == q->commit_us && r->op == q->op && r->flags == q->flags &&
	       same_span(r->key, q->key) && same_span(r->fields, q->fields) &&
	       same_span(r->changes, q->changes) && same_span(r->unchanged, q->unchanged);
}

static bool is_as_written(const struct contract *c, struct contract_seen *seen,
			  const struct cdc_batch *batch, const struct cdc_record *r)
{
	char text[CDC_ID_TEXT];

	if (!seen->scratch && !(seen->scratch = cdc_batch_new(BATCH_BYTES)))
		return contract_fail("no memory to compare");
	cdc_batch_reset(seen->scratch, 1u << 20);
	if (!contract_write(c, seen->scratch, r->id))
		return false;
	if (same_block(r, seen->scratch->records) &&
	    same_bytes(batch, r, seen->scratch, seen->scratch->records))
		return true;
	(void)cdc_id_format(&r->id, text);
	return contract_fail("record %s is not as it was written", text);
}

/* --- appending ---------------------------------------------------------------------- */

bool contract_poll(int fd, int wait_ms)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + (uint64_t)wait_ms;
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t now_ms;
	int n;

	do {
		now_ms = cdc_clock_mono_ms();
		n = poll(&p, 1, now_ms < end_ms ? (int)(end_ms - now_ms) : 0);
	} while (n < 0 && errno == EINTR);
	return n == 1;
}

enum cdc_code contract_try(struct contract *c, uint32_t sequence, struct cdc_batch *batch)
{
	return c->ops->append(c->b, sequence, batch, NULL);
}

bool contract_append(struct contract *c, uint32_t sequence, struct cdc_batch *batch)
{
	struct cdc_err err = {.code = CDC_OK};
	enum cdc_code rc = CDC_BUSY;

	if (!batch)
		return contract_fail("no batch");
	while ((rc = c->ops->append(c->b, sequence, batch, &err)) == CDC_BUSY) {
		if (!contract_poll(c->ops->event_fd(c->b), CONTRACT_WAIT_MS))
			break;
		cdc_event_drain(c->ops->event_fd(c->b));
	}
	if (rc == CDC_OK)
		return true;
	cdc_batch_free(batch);
	return contract_fail("append: %s: %s", cdc_code_name(rc), err.msg);
}

bool contract_append_tx(struct contract *c, uint64_t tx, uint32_t n)
{
	struct cdc_batch *batch = contract_batch(c);

	if (!batch || !contract_write_tx(c, batch, tx, 1, n, true)) {
		cdc_batch_free(batch);
		return contract_fail("transaction not written");
	}
	return contract_append(c, CDC_SEQ_STREAM, batch);
}

bool contract_wait_durable(struct contract *c, cdc_lsn lsn)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;

	while (c->ops->durable(c->b) < lsn) {
		if (cdc_clock_mono_ms() > end_ms)
			return contract_fail("durable() stays at %llx below %llx",
					     (unsigned long long)c->ops->durable(c->b),
					     (unsigned long long)lsn);
		(void)contract_poll(c->ops->event_fd(c->b), 1000);
		cdc_event_drain(c->ops->event_fd(c->b));
	}
	return true;
}

bool contract_wait_last(struct contract *c, struct cdc_id id)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	struct cdc_buffer_state state;

	for (;;) {
		c->ops->state(c->b, &state);
		if (cdc_id_cmp(&state.last_id, &id) == 0)
			return true;
		if (cdc_clock_mono_ms() > end_ms)
			return contract_fail("the last id is not reached");
		(void)poll(NULL, 0, 2);
	}
}

/* --- reading ------------------------------------------------------------------------ */

bool contract_group(struct contract *c, const char *group, enum cdc_start_at at)
{
	const struct cdc_position none = {.n = 0};
	const struct cdc_start start = {.at = at};
	struct cdc_stream_position position;
	struct cdc_gap gap;
	struct cdc_err err = {.code = CDC_OK};

	if (c->ops->group_add(c->b, group, &none, &start, &position, &gap, &err))
		return contract_fail("group_add %s: %s", group, err.msg);
	return true;
}

bool contract_reader_of(struct contract *c, const char *group, struct cdc_id from,
			const char *const *tables, size_t n, struct cdc_buffer_reader **ret)
{
	struct cdc_stream_position at = {.stream = 0, .id = from};
	const struct cdc_position position = {.n = 1, .streams = &at};
	struct cdc_err err = {.code = CDC_OK};

	CDC_ASSERT(c->reader_n < CONTRACT_READERS);
	if (c->ops->reader_open(c->b, group, &position, tables, n, ret, &err))
		return contract_fail("reader_open %s: %s", group, err.msg);
	c->readers[c->reader_n++] = *ret;
	return true;
}

bool contract_reader(struct contract *c, const char *group, struct cdc_id from, int table,
		     struct cdc_buffer_reader **ret)
{
	const char *name = table < 0 ? NULL : contract_table_name((unsigned)table);

	return contract_reader_of(c, group, from, &name, table < 0 ? 0 : 1, ret);
}

void contract_reader_close(struct contract *c, struct cdc_buffer_reader *r)
{
	for (size_t i = 0; i < c->reader_n; i++) {
		if (c->readers[i] == r)
			c->readers[i] = c->readers[--c->reader_n];
	}
	c->ops->reader_close(r);
}

/* Where the position of a stream is kept. */
static struct cdc_id *place_of(struct contract_seen *seen, uint32_t stream)
{
	for (size_t i = 0; i < seen->stream_n; i++) {
		if (seen->streams[i].stream == stream)
			return &seen->streams[i].id;
	}
	if (seen->stream_n == CDC_POSITION_MAX)
		return NULL;
	seen->streams[seen->stream_n] = (struct cdc_stream_position){.stream = stream};
	return &seen->streams[seen->stream_n++].id;
}

static bool note_ends(struct contract_seen *seen, const struct cdc_read *read)
{
	for (size_t i = 0; i < read->end_n; i++) {
		const struct cdc_tx_end *e = &read->ends[i];

		if (e->end_lsn != e->commit_lsn + 0x100 ||
		    e->commit_us != contract_us(e->commit_lsn / 0x1000))
			return contract_fail("an end is not as it was appended");
		if (seen->end_n && seen->ends[seen->end_n - 1].end_lsn >= e->end_lsn)
			return contract_fail("the ends do not rise");
		if (seen->end_n == seen->end_cap) {
			seen->end_cap = seen->end_cap ? 2 * seen->end_cap : 64;
			seen->ends = reallocarray(seen->ends, seen->end_cap, sizeof(*seen->ends));
			CDC_ASSERT(seen->ends);
		}
		seen->ends[seen->end_n++] = *e;
	}
	return true;
}

bool contract_note(const struct contract *c, struct contract_seen *seen,
		   const struct cdc_read *read)
{
	struct cdc_id *place = place_of(seen, read->through.stream), last;

	if (!place)
		return contract_fail("too many streams");
	last = *place;
	if ((read->n == 0) != (read->lease == NULL))
		return contract_fail("a lease without records, or the reverse");
	for (size_t i = 0; i < read->n; i++) {
		const struct cdc_record *r;

		if (i && read->index[i] <= read->index[i - 1])
			return contract_fail("the indices do not rise");
		if (read->index[i] >= read->batch->n)
			return contract_fail("an index is outside the batch");
		r = &read->batch->records[read->index[i]];
		if (!is_as_written(c, seen, read->batch, r))
			return false;
		if (!seen->has_copies && r->op != CDC_OP_SCHEMA && cdc_id_cmp(&r->id, &last) <= 0)
			return contract_fail("the ids do not rise");
		if (cdc_id_cmp(&r->id, &last) > 0)
			last = r->id;
		contract_ids_add(&seen->got, r->id);
	}
	if (!seen->has_copies && cdc_id_cmp(&read->through.id, &last) < 0)
		return contract_fail("a read says it has come less far than its records");
	*place = read->through.id;
	return note_ends(seen, read);
}

bool contract_read(struct contract *c, struct cdc_buffer_reader *r, struct contract_seen *seen,
		   size_t n)
{
	const uint64_t end_ms = cdc_clock_mono_ms() + CONTRACT_WAIT_MS;
	struct cdc_err err = {.code = CDC_OK};
	struct cdc_read read;
	bool is_good;

	for (;;) {
		memset(&read, 0, sizeof(read));
		if (c->ops->read(r, &read, &err))
			return contract_fail("read: %s: %s", cdc_code_name(err.code), err.msg);
		is_good = contract_note(c, seen, &read);
		if (read.lease)
			c->ops->release(r, read.lease);
		if (!is_good)
			return false;
		if (seen->got.n > n)
			return contract_fail("%zu records, should be %zu", seen->got.n, n);
		if (cdc_clock_mono_ms() > end_ms)
			return contract_fail("only %zu records, should be %zu", seen->got.n, n);
		if (!read.is_at_end)
			continue;
		if (seen->got.n == n)
			return true;
		(void)contract_poll(c->ops->reader_fd(r), CONTRACT_WAIT_MS);
		cdc_event_drain(c->ops->reader_fd(r));
	}
}

bool contract_has(struct contract *c, const char *group, struct cdc_id from,
		  const struct contract_ids *want)
{
	struct cdc_buffer_reader *r = NULL;
	struct contract_seen seen = {.stream_n = 0};
	bool is_good = contract_reader(c, group, from, -1, &r) &&
		       contract_read(c, r, &seen, want->n) && contract_same(&seen.got, want);

	contract_reader_close(c, r);
	contract_seen_clear(&seen);
	return is_good;
}

bool contract_commit(struct contract *c, const char *group, struct cdc_id id)
{
	struct cdc_stream_position at = {.stream = 0, .id = id};
	const struct cdc_position position = {.n = 1, .streams = &at};

	c->ops->commit(c->b, group, &position);
	return true;
}
