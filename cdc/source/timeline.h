/*
 * timeline.h - on which timeline a position of the log was written.
 *
 * After a failover the log goes on under a new timeline number; positions below
 * the switch still belong to the old one.  The epoch of a record names the
 * timeline its commit was *written* on, so that it stays the same for ever.
 *
 * Format: a timeline history file, as TIMELINE_HISTORY returns it: per line the
 * number of a timeline, where it ended, and a reason; '#' begins a comment.
 * PostgreSQL source src/backend/access/transam/timeline.c, readTimeLineHistory.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_TIMELINE_H
#define CDC_SOURCE_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/lsn.h"

struct cdc_timeline_end {
	uint32_t timeline;
	cdc_lsn end; /* the first position that is no longer on it */
};

struct cdc_timelines {
	uint32_t current;
	struct cdc_timeline_end *ends; /* ancestors, oldest first */
	size_t n;
};

/* Timelines of a server that never had a failover, or whose history is not needed. */
void cdc_timelines_init(struct cdc_timelines *t, uint32_t current);
void cdc_timelines_clear(struct cdc_timelines *t);

/* Reads the history of the timeline current.  CDC_PROTO: not a history; *t is then as after init.
 * At most 100,000 lines. */
enum cdc_code cdc_timelines_parse(struct cdc_timelines *t, const char *text, size_t len,
				  uint32_t current, struct cdc_err *err) CDC_CHECK;

/*
 * Is what was read on timeline, everything before lsn, part of this history?  After a
 * failover to a standby that lagged behind, or a restore to an earlier time, it is not:
 * the server has left that timeline before.  *ret_end: where it did; 0: it never was on it.
 */
bool cdc_timelines_hold(const struct cdc_timelines *t, uint32_t timeline, cdc_lsn lsn,
			cdc_lsn *ret_end);

/* The timeline on which the record that starts at lsn was written. */
uint32_t cdc_timelines_at(const struct cdc_timelines *t, cdc_lsn lsn);

#endif
