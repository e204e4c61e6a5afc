/*
 * behind.h - what one sync has not delivered yet, in words: for status and health.
 *
 * The oldest record that is not done, and what its endpoint said when it did not
 * accept something.  The delivery thread posts, others read copies.  A key is shown
 * by its hash only.
 *
 * Threads: any; each has its own lock, held only to copy.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_BEHIND_H
#define CDC_BASE_BEHIND_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A record, as a person may look for it. */
struct cdc_behind_record {
	char table[192];
	char id[64];
	uint64_t key_hash; /* XXH3-64 of the table's name, a NUL and the key's JSON */
	int64_t commit_us; /* 0: unknown, a copied row */
};

struct cdc_behind_view {
	bool has_oldest;
	struct cdc_behind_record oldest;
	char failure[200];  /* of the last request that was not accepted; empty: none */
	int64_t failure_us; /* wall time of that */
};

struct cdc_behind {
	pthread_mutex_t mu;
	struct cdc_behind_view view; /* guarded by mu */
};

void cdc_behind_init(struct cdc_behind *b);
void cdc_behind_clear(struct cdc_behind *b);

void cdc_behind_oldest(struct cdc_behind *b, const struct cdc_behind_record *r); /* NULL: none */
void cdc_behind_failed(struct cdc_behind *b, const char *text, int64_t now_us);
void cdc_behind_read(struct cdc_behind *b, struct cdc_behind_view *ret);

#endif
