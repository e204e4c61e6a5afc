/*
 * slot_watch.h - how our slot stands: what WAL the server keeps for it, and how near
 * it is to being lost.
 *
 * One statement reads it all, by the lookup connection and without waiting, while
 * the stream goes on.  Needs no more than LOGIN.
 *
 * Source: PostgreSQL docs "pg_replication_slots", "pg_stat_replication"; which
 * columns there are: wal_status and safe_wal_size since 13, conflicting since 16,
 * pg_stat_replication_slots since 14,
 * invalidation_reason since 17.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_SLOT_WATCH_H
#define CDC_SOURCE_SLOT_WATCH_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "cdc/source/source.h"

#define CDC_SLOT_SQL_MAX 2048

/* The statement, for a server of this version; slot: [a-z0-9_]; pid: of our walsender. */
void cdc_slot_sql(int version, const char *slot, int pid, char ret_sql[CDC_SLOT_SQL_MAX]);

/* What it answered.  wal_budget: the setting of the connection, in bytes. */
void cdc_slot_read(const PGresult *answer, uint64_t wal_budget, struct cdc_slot_report *ret);

/* Sets budget_bytes and used_percent of a report from the rest of it. */
void cdc_slot_measure(struct cdc_slot_report *r, uint64_t wal_budget);

#endif
