/*
 * parked.h - which keys of a sync are parked, and when each is tried again.
 *
 * The records of a parked key are in the store (store.h), in a queue by id; here
 * is one entry per queue: its head, how often that was tried, when it is due.
 * While a key is here, no record of it goes the usual way, so none overtakes the
 * queue.  It stays until its queue is empty and nothing of it is left to be
 * written.  Under `order: none` every record is a key of its own.
 *
 * Besides, the ids that the store held above the checkpoint when it was opened: a
 * crash came between the record and the checkpoint that passes it, so they are
 * read again, and need not be sent.  Until they are, what precedes them may not have
 * been read either, so they are not tried.
 *
 * Threads: belongs to its caller; no I/O, no clock.
 * Layer: pipeline (store).
 */
#ifndef CDC_PIPELINE_PARKED_H
#define CDC_PIPELINE_PARKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/pipeline/trouble.h"
#include "cdc/store/store.h"

struct cdc_parked_key {
	uint64_t hash, table_hash;
	struct cdc_id head;         /* zero: nothing of it is in the store yet */
	uint64_t attempts;          /* of the head; 0: it is not known to be in trouble */
	uint64_t step;              /* of the head in the retry schedule */
	int64_t due_us;             /* wall time of the next attempt */
	int64_t stored_us;          /* the same, as the store had it when it was last looked at */
	int64_t tried_us;           /* wall time of the last one in this process; 0: none */
	int64_t put_off_us;         /* not before this, whatever waits for it */
	struct cdc_suspect suspect; /* of a head that is not known to be in trouble */
	uint64_t failed_at;         /* the engine's counter at the head's last failure */
	unsigned misses;            /* attempts of the head that proved nothing */
	bool must_be_alone;         /* a request with more than the head has failed */
	bool is_in_flight;
	size_t unwritten;           /* records in the window that are still to be written */
	struct cdc_id unwritten_id; /* the lowest of them */
	size_t place;               /* among the wakes */
};

/* When a key is to be looked at. */
struct cdc_parked_wake {
	int64_t at_us; /* wall time */
	uint64_t hash;
};

struct cdc_parked {
	struct cdc_parked_key *keys;   /* open addressing; hash 0: a free place */
	size_t n, cap;                 /* cap: 0 or a power of two, at least twice n */
	struct cdc_parked_wake *wakes; /* a heap, one for each key */
	struct cdc_id *ids;            /* sorted */
	bool *was_read;                /* by their place */
	size_t id_n;
	struct cdc_id passed; /* by the checkpoint */
};

void cdc_parked_clear(struct cdc_parked *p); /* also one that is all zero */

/* The key's entry, or NULL.  Valid until the next add or remove. */
struct cdc_parked_key *cdc_parked_find(const struct cdc_parked *p, uint64_t hash);
/* The key's entry, made when it is not there.  CDC_NOMEM; CDC_LIMIT: CDC_PARKED_KEYS_MAX keys are
 * parked, err says what to do. */
enum cdc_code cdc_parked_add(struct cdc_parked *p, uint64_t hash, uint64_t table_hash,
			     struct cdc_parked_key **ret, struct cdc_err *err) CDC_CHECK;
void cdc_parked_remove(struct cdc_parked *p, uint64_t hash);
/* Has the table parked records that precede this id? */
bool cdc_parked_has_before(const struct cdc_parked *p, uint64_t table_hash,
			   const struct cdc_id *id);

/* From now on the key is to be looked at then; a key that was just added never is. */
void cdc_parked_wake(struct cdc_parked *p, const struct cdc_parked_key *key, int64_t at_us);
/* The key that is to be looked at first, and when; NULL: none is parked. */
struct cdc_parked_key *cdc_parked_first(const struct cdc_parked *p, int64_t *ret_at_us);

/* The head as the store has it; its tries in this process begin anew when it is another one. */
void cdc_parked_set_head(struct cdc_parked_key *key, const struct cdc_park_head *head);

/* Takes sorted ids over.  CDC_NOMEM: they are freed. */
enum cdc_code cdc_parked_set_ids(struct cdc_parked *p, struct cdc_id *ids, size_t n,
				 struct cdc_err *err) CDC_CHECK;
bool cdc_parked_had(const struct cdc_parked *p, const struct cdc_id *id);
/* The record has come: is it one of them? */
bool cdc_parked_meet(struct cdc_parked *p, const struct cdc_id *id);
/* Is it one of them that has not come yet, and that the checkpoint has not passed? */
bool cdc_parked_is_ahead(const struct cdc_parked *p, const struct cdc_id *id);
/* The checkpoint is there; forgets the ids when none lies above. */
void cdc_parked_pass(struct cdc_parked *p, const struct cdc_id *checkpoint);

/* What an attempt of a head with this record alone says. */
enum cdc_attempt_verdict {
	CDC_ATTEMPT_NOTHING, /* it may have been the endpoint: try again, it does not count */
	CDC_ATTEMPT_AGAIN,   /* the next step of the schedule */
	CDC_ATTEMPT_DEAD,    /* that was the last one */
};

struct cdc_attempt {
	const struct sink_result *result;
	uint64_t at;             /* the engine's counter now */
	uint64_t accepted_begun; /* and at the beginning of the latest request that was accepted */
	uint64_t now_ms;
	bool is_urgent;    /* a barrier waits for the queue, and the endpoint is not down */
	size_t steps;      /* of the schedule */
	unsigned attempts; /* trouble.h: of what may heal by itself */
	uint64_t after_ms;
};
/*
 * Notes the failure in key (attempts, step, suspect, misses) and judges it.  A head that
 * is not known to be in trouble needs the proof that trouble.h asks for.  One that is
 * counts every refusal; what may heal by itself counts when the endpoint has accepted
 * something since the last time, or a barrier waits, which nothing can pass, and the
 * endpoint is not down.
 */
enum cdc_attempt_verdict cdc_parked_judge(struct cdc_parked_key *key, const struct cdc_attempt *a);

#endif
