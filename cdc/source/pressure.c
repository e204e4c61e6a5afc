#include "cdc/source/pressure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/source/slot_watch.h"

enum column { COLUMN_HIDDEN, COLUMN_END, COLUMN_NAME, COLUMN_REPLAYED, COLUMN_LAG_MS };

/* Of who may not be seen, only the pid is told. */
static const char replicas[] =
	"WITH r AS (SELECT r.application_name, r.state, r.replay_lsn, r.replay_lag "
	"FROM pg_catalog.pg_stat_replication r "
	"LEFT JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid "
	"WHERE s.slot_type IS DISTINCT FROM 'logical') "
	"SELECT EXISTS (SELECT FROM r WHERE r.state IS NULL), w.at, f.application_name, "
	"f.replay_lsn, (1000 * EXTRACT(epoch FROM f.replay_lag))::pg_catalog.int8 "
	"FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() "
	"THEN pg_catalog.pg_last_wal_replay_lsn() "
	"ELSE pg_catalog.pg_current_wal_lsn() END AS at) w "
	"LEFT JOIN (SELECT * FROM r WHERE r.replay_lsn IS NOT NULL "
	"ORDER BY r.replay_lsn LIMIT 1) f ON true";

uint64_t cdc_pressure_lag_ms(struct cdc_pressure_watch *w, cdc_lsn end, cdc_lsn replayed,
			     uint64_t now_ms)
{
	if (replayed >= w->mark) {
		w->mark = end;
		w->mark_ms = now_ms;
	}
	return replayed >= end ? 0 : now_ms - w->mark_ms;
}

static enum cdc_code look_at_replicas(struct cdc_pressure_watch *w, struct cdc_lookup *l,
				      struct cdc_pressure *ret, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	long long lag_ms;
	uint64_t own_ms;
	enum cdc_code rc = cdc_lookup_ask(l, replicas, "looking at the replicas", &r, err);

	if (rc)
		return rc;
	ret->is_hidden = cdc_pgconn_bool(r, 0, COLUMN_HIDDEN);
	ret->end = cdc_pgconn_lsn(r, 0, COLUMN_END);
	ret->replayed = cdc_pgconn_lsn(r, 0, COLUMN_REPLAYED);
	ret->has_replica = ret->replayed != 0;
	if (!ret->has_replica) {
		*w = (struct cdc_pressure_watch){0};
		return CDC_OK;
	}
	(void)snprintf(ret->replica, sizeof(ret->replica), "%s",
		       cdc_pgconn_text(r, 0, COLUMN_NAME));
	lag_ms = strtoll(cdc_pgconn_text(r, 0, COLUMN_LAG_MS), NULL, 10);
	own_ms = cdc_pressure_lag_ms(w, ret->end, ret->replayed, cdc_clock_mono_ms());
	ret->lag_ms = lag_ms > 0 && (uint64_t)lag_ms > own_ms ? (uint64_t)lag_ms : own_ms;
	return CDC_OK;
}

static enum cdc_code look_at_slot(struct cdc_lookup *l, const struct cdc_source_plan *plan,
				  struct cdc_pressure *ret, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *r = NULL;
	char sql[CDC_SLOT_SQL_MAX];
	struct cdc_slot_report report;
	enum cdc_code rc;

	cdc_slot_sql(PQserverVersion(l->conn->pg), plan->slot, 0, sql);
	rc = cdc_lookup_ask(l, sql, "looking at the slot", &r, err);
	if (rc)
		return rc;
	cdc_slot_read(r, plan->settings->wal_budget, &report);
	ret->slot_percent = report.used_percent;
	return CDC_OK;
}

enum cdc_code cdc_pressure_look(struct cdc_pressure_watch *w, struct cdc_lookup *l,
				const struct cdc_source_plan *plan, struct cdc_pressure *ret,
				struct cdc_err *err)
{
	enum cdc_code rc;

	memset(ret, 0, sizeof(*ret));
	rc = look_at_replicas(w, l, ret, err);
	return rc ? rc : look_at_slot(l, plan, ret, err);
}
