/*
 * pace.h - how fast a copy may go while others suffer from it.
 *
 * Each look that finds them behind halves the pace, each that does not doubles it,
 * until it is again what it was without a limit.  It never stands still: a snapshot
 * that is kept open for nothing harms the database, too, and a replica may be far
 * behind for other reasons, or on purpose (recovery_min_apply_delay).
 *
 * Threads: a pace belongs to its caller; pure.
 * Layer: pipeline.
 */
#ifndef CDC_PIPELINE_PACE_H
#define CDC_PIPELINE_PACE_H

#include <stdint.h>

#define CDC_PACE_SHARE  16  /* the lowest limit is this part of the free pace, but not below: */
#define CDC_PACE_LOWEST 100 /* rows per second */

struct cdc_pace {
	uint64_t limit; /* rows per second; 0: none */
	uint64_t free;  /* what it was before it was limited */
};

/* rows_per_second: what was read since the last look. */
void cdc_pace_slower(struct cdc_pace *p, uint64_t rows_per_second);
void cdc_pace_faster(struct cdc_pace *p);

/* The lower of both limits; 0 is none. */
uint64_t cdc_pace_lower(uint64_t a, uint64_t b);

#endif
