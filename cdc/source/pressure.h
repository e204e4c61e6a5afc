/*
 * pressure.h - how the others that live by the source's log are: its replicas and our
 * slot.
 *
 * A copy reads at the server's cost.  Who pays first are the standbys that replay
 * the log and the slot whose changes wait meanwhile, so a copy looks at them
 * while it goes on.  Standbys are the walsenders that report what was replayed
 * and read no logical slot: a logical reader moves at its own pace, and as far
 * behind as its owner likes.
 *
 * The server's own measure of a lag (replay_lag) is empty for a standby that has
 * not replayed anything yet, so there is one of ours beside it: since when a place
 * that was the log's end has not been replayed.  Both together err on the low side.
 *
 * Needs LOGIN for the slot, pg_monitor for the replicas.
 * Source: PostgreSQL docs "pg_stat_replication"; src/backend/replication/walsender.c,
 * LagTrackerRead, pg_stat_get_wal_senders.
 *
 * Threads: a watch belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_PRESSURE_H
#define CDC_SOURCE_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/lsn.h"
#include "cdc/source/lookup.h"
#include "cdc/source/source.h"

struct cdc_pressure {
	bool is_hidden;        /* there are replicas that the role may not see */
	bool has_replica;      /* then of the one that is furthest behind: */
	char replica[64];      /* its application_name */
	uint64_t lag_ms;       /* since this long it has not replayed what there was; 0: unknown */
	cdc_lsn end, replayed; /* of the log; by it */
	unsigned slot_percent; /* of the WAL budget, kept for our slot */
};

/* One watch's memory; zero at the beginning. */
struct cdc_pressure_watch {
	cdc_lsn mark; /* was the log's end at: */
	uint64_t mark_ms;
};

/* Asks and waits for the answer, as cdc_lookup_ask does; its codes. */
enum cdc_code cdc_pressure_look(struct cdc_pressure_watch *w, struct cdc_lookup *l,
				const struct cdc_source_plan *plan, struct cdc_pressure *ret,
				struct cdc_err *err) CDC_CHECK;

/* Our own measure: takes in where the log and its slowest replica are at this time. */
uint64_t cdc_pressure_lag_ms(struct cdc_pressure_watch *w, cdc_lsn end, cdc_lsn replayed,
			     uint64_t now_ms);

#endif
