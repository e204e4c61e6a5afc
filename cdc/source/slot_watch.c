#include "cdc/source/slot_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/source/pgconn.h"

#define SPILL_VERSION    140000 /* the first that counts what it spills */
#define CONFLICT_VERSION 160000 /* the first whose slots on a standby can be in conflict */
#define REASON_VERSION   170000 /* the first that says why a slot is invalid */

enum column {
	COLUMN_SYNC_STATE,
	COLUMN_STANDBY_NAMES,
	COLUMN_IS_IN_RECOVERY,
	COLUMN_WAL_STATUS,
	COLUMN_SAFE_BYTES,
	COLUMN_RETAINED_BYTES,
	COLUMN_UNCONFIRMED_BYTES,
	COLUMN_INVALIDATION,
	COLUMN_TIMELINE,
	COLUMN_SPILLED,
	COLUMN_SPILLED_BYTES,
};

void cdc_slot_sql(int version, const char *slot, int pid, char ret_sql[CDC_SLOT_SQL_MAX])
{
	const bool has_spills = version >= SPILL_VERSION;
	const char *reason = version >= REASON_VERSION ? "s.invalidation_reason"
			     : version >= CONFLICT_VERSION
				     ? "CASE WHEN s.conflicting THEN 'rows_removed' "
				       "WHEN s.wal_status = 'lost' THEN 'wal_removed' END"
				     : "CASE WHEN s.wal_status = 'lost' THEN 'wal_removed' END";

	(void)snprintf(ret_sql, CDC_SLOT_SQL_MAX,
		       "SELECT (SELECT r.sync_state FROM pg_catalog.pg_stat_replication r "
		       "WHERE r.pid = %d), "
		       "pg_catalog.current_setting('synchronous_standby_names'), "
		       "pg_catalog.pg_is_in_recovery(), s.wal_status, s.safe_wal_size, "
		       "pg_catalog.pg_wal_lsn_diff(w.at, s.restart_lsn), "
		       "pg_catalog.pg_wal_lsn_diff(w.at, s.confirmed_flush_lsn), %s, "
		       "CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN "
		       "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, "
		       "%s "
		       "FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() "
		       "THEN pg_catalog.pg_last_wal_replay_lsn() "
		       "ELSE pg_catalog.pg_current_wal_lsn() END AS at) w "
		       "LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = '%s'%s",
		       pid, reason, has_spills ? "p.spill_txns, p.spill_bytes" : "0, 0", slot,
		       has_spills ? " LEFT JOIN pg_catalog.pg_stat_replication_slots p "
				    "ON p.slot_name::pg_catalog.text = s.slot_name::pg_catalog.text"
				  : "");
}

const char *cdc_wal_status_name(enum cdc_wal_status status)
{
	static const char *const names[] = {[CDC_WAL_UNKNOWN] = "unknown",
					    [CDC_WAL_RESERVED] = "reserved",
					    [CDC_WAL_EXTENDED] = "extended",
					    [CDC_WAL_UNRESERVED] = "unreserved",
					    [CDC_WAL_LOST] = "lost"};

	return names[status];
}

unsigned cdc_slot_step(unsigned used_percent)
{
	return used_percent >= 90 ? 90 : used_percent >= 70 ? 70 : used_percent >= 50 ? 50 : 0;
}

static enum cdc_wal_status status_of(const char *text)
{
	for (int i = CDC_WAL_RESERVED; i <= CDC_WAL_LOST; i++) {
		if (strcmp(text, cdc_wal_status_name((enum cdc_wal_status)i)) == 0)
			return (enum cdc_wal_status)i;
	}
	return CDC_WAL_UNKNOWN;
}

/* A number of bytes, or of what else; one below 0 is 0: a position may have moved on while others
 * were read. */
static uint64_t bytes_of(const PGresult *r, enum column column)
{
	long long n = strtoll(cdc_pgconn_text(r, 0, (int)column), NULL, 10);

	return n > 0 ? (uint64_t)n : 0;
}

void cdc_slot_measure(struct cdc_slot_report *r, uint64_t wal_budget)
{
	/* What may still be written before the slot is lost, and what is kept, is the server's own
	 * limit, rounding to whole files included. */
	r->budget_bytes = r->has_limit ? r->retained_bytes + r->safe_bytes : wal_budget;
	if (r->wal_status == CDC_WAL_UNRESERVED || r->wal_status == CDC_WAL_LOST)
		r->used_percent = 100;
	else if (r->budget_bytes)
		r->used_percent =
			(unsigned)((double)r->retained_bytes * 100.0 / (double)r->budget_bytes);
	else
		r->used_percent = 0;
}

/* The first 8 hexadecimal digits of a WAL file's name; 0: there is none. */
static uint32_t timeline_of(const char *file)
{
	char digits[9];

	(void)snprintf(digits, sizeof(digits), "%s", file);
	return (uint32_t)strtoul(digits, NULL, 16);
}

void cdc_slot_read(const PGresult *answer, uint64_t wal_budget, struct cdc_slot_report *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->is_in_recovery = cdc_pgconn_bool(answer, 0, COLUMN_IS_IN_RECOVERY);
	(void)snprintf(ret->sync_state, sizeof(ret->sync_state), "%s",
		       cdc_pgconn_text(answer, 0, COLUMN_SYNC_STATE));
	(void)snprintf(ret->standby_names, sizeof(ret->standby_names), "%s",
		       cdc_pgconn_text(answer, 0, COLUMN_STANDBY_NAMES));
	ret->wal_status = status_of(cdc_pgconn_text(answer, 0, COLUMN_WAL_STATUS));
	ret->has_limit = *cdc_pgconn_text(answer, 0, COLUMN_SAFE_BYTES) != '\0';
	ret->safe_bytes = bytes_of(answer, COLUMN_SAFE_BYTES);
	ret->retained_bytes = bytes_of(answer, COLUMN_RETAINED_BYTES);
	ret->unconfirmed_bytes = bytes_of(answer, COLUMN_UNCONFIRMED_BYTES);
	(void)snprintf(ret->invalidation, sizeof(ret->invalidation), "%s",
		       cdc_pgconn_text(answer, 0, COLUMN_INVALIDATION));
	ret->timeline = timeline_of(cdc_pgconn_text(answer, 0, COLUMN_TIMELINE));
	ret->spilled = bytes_of(answer, COLUMN_SPILLED);
	ret->spilled_bytes = bytes_of(answer, COLUMN_SPILLED_BYTES);
	cdc_slot_measure(ret, wal_budget);
}
