/*
 * failover.h - what several hosts lack for a failover without a gap.
 *
 * Since PostgreSQL 17 a standby can keep the slot of its primary.  It takes a
 * setting on the primary, four on each standby, and the slot itself to be one that
 * is kept; each is looked at where it is.
 *
 * Source: PostgreSQL docs, "Logical Decoding Concepts", Replication Slot
 * Synchronization; src/backend/replication/logical/slotsync.c, ValidateSlotSyncParams.
 *
 * Threads: none of its own.  Layer: source (base).
 */
#ifndef CDC_SOURCE_FAILOVER_H
#define CDC_SOURCE_FAILOVER_H

#include "cdc/source/facts.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/source.h"

/* c: to the primary whose facts f are.  Tells nothing when hostname has one host; else one finding
 * of the slot and the primary, and one of each other host, which it connects to. */
void cdc_failover_check(const struct cdc_source_plan *plan, const struct cdc_facts *f,
			struct cdc_pgconn *c, cdc_finding_fn *found, void *arg);

#endif
