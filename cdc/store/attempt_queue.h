/*
 * attempt_queue.h - attempts on their way to the disk, sync by sync, with a limit.
 *
 * Threads: a queue belongs to its caller.
 * Layer: store (base, record).
 */
#ifndef CDC_STORE_ATTEMPT_QUEUE_H
#define CDC_STORE_ATTEMPT_QUEUE_H

#include "cdc/store/attempt.h"
#include "cdc/store/database.h"

#define CDC_ATTEMPTS_OF_SYNC 200                 /* that wait; */
#define CDC_ATTEMPTS_DONE    150                 /* of them, accepted ones */
#define CDC_ATTEMPTS_BYTES   ((size_t)(4 << 20)) /* of all syncs */

struct cdc_attempt {
	struct cdc_attempt *next;
	struct cdc_attempt_row row; /* its texts lie behind it */
	size_t bytes;               /* of the texts */
};

/* Those of one sync, in order. */
struct cdc_attempts {
	struct cdc_attempts *next;
	struct cdc_attempt *first, *last;
	size_t n;
	struct cdc_attempt_ring ring; /* as the last one said */
	char sync[CDC_NAME_MAX];
};

/* Zeroed: empty. */
struct cdc_attempt_queue {
	struct cdc_attempts *syncs;
	size_t n, bytes;
};

/* A copy; NULL: no memory. */
struct cdc_attempt *cdc_attempt_new(const struct cdc_attempt_row *row);

bool cdc_attempt_queue_has_room(const struct cdc_attempt_queue *q, const char *sync,
				const struct cdc_attempt_row *row);
/* Takes the attempt; false: no memory, and it is still the caller's. */
bool cdc_attempt_queue_put(struct cdc_attempt_queue *q, const char *sync, struct cdc_attempt *a,
			   const struct cdc_attempt_ring *ring);
/* Puts older ones back before those of the queue, whatever the limit; older is then empty. */
void cdc_attempt_queue_put_back(struct cdc_attempt_queue *q, struct cdc_attempt_queue *older);
void cdc_attempt_queue_clear(struct cdc_attempt_queue *q);

/* Writes them and cuts the rings, within a transaction of the caller. */
enum cdc_code cdc_attempts_write(struct cdc_database *db, const struct cdc_attempt_queue *q,
				 struct cdc_err *err) CDC_CHECK;

#endif
