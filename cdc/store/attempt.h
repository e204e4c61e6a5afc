/*
 * attempt.h - the log of a sync's requests, for people: what was sent, what came back.
 *
 * Each sync has a ring of its own, bounded in rows and bytes.  A delivery thread
 * hands an attempt over and goes on; the store thread writes what it has with the
 * next checkpoints, or soon.  When more comes than it can write, attempts are left
 * out, accepted ones before failed ones: the log never slows a delivery down.
 *
 * Threads: any.  Layer: store (base, record).
 */
#ifndef CDC_STORE_ATTEMPT_H
#define CDC_STORE_ATTEMPT_H

#include "cdc/store/store.h"

/* All texts are NUL-terminated UTF-8 without secrets. */
struct cdc_attempt_texts {
	char *method, *url, *headers; /* a line feed behind each header */
	char *text;                   /* what became of it, for a person */
	char *request, *response;     /* the beginnings of the bodies */
};

struct cdc_attempt_row {
	int64_t number; /* of its sync, rising from 1; the store's own */
	int64_t at_us;  /* wall time of its beginning */
	uint64_t took_us;
	int status;       /* 0: no answer was had */
	unsigned outcome; /* 0: accepted; any number to 99 */
	uint64_t records;
	uint64_t refused; /* of them, by an answer that accepted the others */
	uint64_t request_bytes;
	struct cdc_attempt_texts texts;
};

/* The bounds of a sync's ring. */
struct cdc_attempt_ring {
	uint64_t rows;  /* 1 or more */
	uint64_t bytes; /* of texts */
};

void cdc_attempt_row_clear(struct cdc_attempt_row *row); /* frees its texts */

/* Would this row (its texts do not count) be taken now?  So that none is made in vain. */
bool cdc_store_attempt_room(struct cdc_store *s, const char *sync,
			    const struct cdc_attempt_row *row);
/* Copies the row, whose number does not count, and returns at once.  False: there is no room, and
 * it is left out. */
bool cdc_store_attempt(struct cdc_store *s, const char *sync, const struct cdc_attempt_row *row,
		       const struct cdc_attempt_ring *ring);

struct cdc_attempt_filter {
	const char *sync;
	bool is_failed;  /* only what was not accepted as a whole */
	uint64_t newest; /* only so many */
	int64_t after;   /* of them, those with a higher number */
};

/* At most max rows, 1 to 1,000, by number.  Freed with cdc_attempts_free. */
enum cdc_code cdc_store_attempts_list(struct cdc_store *s, const struct cdc_attempt_filter *f,
				      size_t max, struct cdc_attempt_row **ret, size_t *ret_n,
				      struct cdc_err *err) CDC_CHECK;
void cdc_attempts_free(struct cdc_attempt_row *rows, size_t n); /* NULL is fine */

/* Deletes all of the sync's; writes nothing when there are none. */
enum cdc_code cdc_store_attempts_forget(struct cdc_store *s, const char *sync,
					struct cdc_err *err) CDC_CHECK;

#endif
