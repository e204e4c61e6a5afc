/*
 * standby.h - does synchronous_standby_names name us?
 *
 * Rule: PostgreSQL source src/backend/replication/syncrep.c, SyncRepGetStandbyPriority.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_STANDBY_H
#define CDC_SOURCE_STANDBY_H

#include <stdbool.h>

#include "cdc/base/err.h"

/* names: the setting's value; application: our application_name. */
bool cdc_standby_is_named(const char *names, const char *application);

/* The error that says so, with its remedy; where: the server. */
enum cdc_code cdc_standby_error(const char *where, const char *slot, const char *names,
				struct cdc_err *err);

#endif
