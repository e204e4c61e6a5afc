/*
 * workload_contract.h - records whose content follows from their id, and the two sides of a buffer.
 *
 * A record is a pure function of its id: whoever reads one makes it again and
 * compares every byte.  Transaction i has the commit LSN 0x1000 * i, ends 0x100
 * behind it and was committed i seconds after CONTRACT_EPOCH_US.
 *
 * Nothing here asserts: each function returns whether all was as it should be
 * and has said on standard error what was not, so threads and forked children
 * use it too.
 *
 * Threads: a struct contract is only read once its buffer is open, but for the
 * list of its readers, which are one thread's; a struct contract_seen belongs to
 * one thread.
 */
#ifndef TESTS_CONTRACT_WORKLOAD_CONTRACT_H
#define TESTS_CONTRACT_WORKLOAD_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/buffer/buffer.h"
#include "cdc/record/writer.h"

#define CONTRACT_TABLES   4
#define CONTRACT_EPOCH_US INT64_C(1700000000000000)
#define CONTRACT_READERS  8      /* open at a time */
#define CONTRACT_WAIT_MS  120000 /* nothing that should happen takes longer */

/* Added to an ordinal: how long the record's text is. */
#define CONTRACT_BIG   0x100000u /* 5 MiB */
#define CONTRACT_NOISE 0x200000u /* 8 KiB that do not compress well */

struct contract {
	const struct cdc_buffer_ops *ops;
	struct cdc_buffer_settings s;
	struct cdc_buffer_metrics metrics;
	struct cdc_shape *shapes[CONTRACT_TABLES];
	struct cdc_buffer *b;                                /* NULL: closed */
	struct cdc_buffer_reader *readers[CONTRACT_READERS]; /* those of contract_reader */
	size_t reader_n;
};

struct contract_ids {
	struct cdc_id *ids;
	size_t n, cap;
};

/* What a reader has got. */
struct contract_seen {
	struct contract_ids got;
	struct cdc_stream_position streams[CDC_POSITION_MAX]; /* how far it has come */
	size_t stream_n;
	struct cdc_tx_end *ends; /* in order */
	size_t end_n, end_cap;
	bool has_copies; /* ids then need not rise */
	struct cdc_batch *scratch;
};

bool contract_fail(const char *fmt, ...) CDC_FMT(1, 2);
uint64_t contract_mix(uint64_t x);

bool contract_init(struct contract *c, const struct cdc_buffer_ops *ops);
/* Closes what a test that failed has left open. */
void contract_clear(struct contract *c);
bool contract_open(struct contract *c);
void contract_close(struct contract *c);

cdc_lsn contract_lsn(uint64_t tx);
cdc_lsn contract_end_lsn(uint64_t tx);
int64_t contract_us(uint64_t tx);
struct cdc_id contract_id(uint64_t tx, uint32_t ordinal);
unsigned contract_table(const struct cdc_id *id);
const char *contract_table_name(unsigned table);

void contract_ids_add(struct contract_ids *l, struct cdc_id id);
void contract_ids_add_tx(struct contract_ids *l, uint64_t tx, uint32_t from, uint32_t to);
void contract_ids_clear(struct contract_ids *l);
void contract_seen_clear(struct contract_seen *s);
bool contract_same(const struct contract_ids *got, const struct contract_ids *want);

/* The record of an id: a copied row if it has a range, else a schema record if its part is 0. */
bool contract_write(const struct contract *c, struct cdc_batch *batch, struct cdc_id id);
/* Records from...to of a transaction, and its end. */
bool contract_write_tx(const struct contract *c, struct cdc_batch *batch, uint64_t tx,
		       uint32_t from, uint32_t to, bool has_end);
struct cdc_batch *contract_batch(const struct contract *c);

/* One try.  On CDC_OK the batch is the buffer's. */
enum cdc_code contract_try(struct contract *c, uint32_t sequence, struct cdc_batch *batch);
/* Tries until it is taken, waiting on event_fd; frees the batch when it never is. */
bool contract_append(struct contract *c, uint32_t sequence, struct cdc_batch *batch);
/* A transaction of n records in a batch of its own. */
bool contract_append_tx(struct contract *c, uint64_t tx, uint32_t n);
bool contract_wait_durable(struct contract *c, cdc_lsn lsn);
/* Until state() has the id as the stream's last. */
bool contract_wait_last(struct contract *c, struct cdc_id id);
bool contract_poll(int fd, int wait_ms);

bool contract_group(struct contract *c, const char *group, enum cdc_start_at at);
bool contract_reader(struct contract *c, const char *group, struct cdc_id from, int table,
		     struct cdc_buffer_reader **ret);
bool contract_reader_of(struct contract *c, const char *group, struct cdc_id from,
			const char *const *tables, size_t n, struct cdc_buffer_reader **ret);
void contract_reader_close(struct contract *c, struct cdc_buffer_reader *r); /* NULL is fine */

/* Looks at what one read returned and notes it. */
bool contract_note(const struct contract *c, struct contract_seen *seen,
		   const struct cdc_read *read);
/* Reads until it has had n records in all and is at the end; more is a failure. */
bool contract_read(struct contract *c, struct cdc_buffer_reader *r, struct contract_seen *seen,
		   size_t n);
/* A new reader of the group over all tables gets exactly these. */
bool contract_has(struct contract *c, const char *group, struct cdc_id from,
		  const struct contract_ids *want);
bool contract_commit(struct contract *c, const char *group, struct cdc_id id);

#endif
