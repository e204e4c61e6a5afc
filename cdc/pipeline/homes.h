/*
 * homes.h - which lane has the records of a key that are under way.
 *
 * As long as a key has records in the window, the next one joins them in their
 * lane; a key without any may go to whichever lane has the least to do.  One entry
 * per such key.
 *
 * Threads: belongs to its caller.
 * Layer: pipeline (libc only).
 */
#ifndef CDC_PIPELINE_HOMES_H
#define CDC_PIPELINE_HOMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cdc_home {
	uint64_t hash; /* of the key */
	uint32_t n;    /* records; 0: a free place */
	uint16_t lane;
	bool is_ahead; /* those of them that are in the lane went ahead (window.h) */
};

struct cdc_homes {
	struct cdc_home *places; /* open addressing by hash */
	size_t n, cap;           /* cap: 0 or a power of two, at least twice n */
};

void cdc_homes_clear(struct cdc_homes *h); /* also one that is all zero */

/* Room for so many more keys; false: no memory, nothing changed. */
bool cdc_homes_reserve(struct cdc_homes *h, size_t more);
/* The key's entry, or NULL. */
struct cdc_home *cdc_homes_find(const struct cdc_homes *h, uint64_t hash);
/* One more record of the key; there is room.  Its entry, valid until the next call: when n is 1,
 * the caller sets the rest. */
struct cdc_home *cdc_homes_enter(struct cdc_homes *h, uint64_t hash);
/* One less. */
void cdc_homes_leave(struct cdc_homes *h, uint64_t hash);

#endif
