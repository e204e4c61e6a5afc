/*
 * identity_watch.h - published tables that have lost their identity.
 *
 * A table is fit when it is published; later somebody drops its key, and from then
 * on the application's own UPDATE and DELETE fail.  One statement over the catalogs
 * finds such tables; it opens none of them, so that it waits for no lock.
 *
 * Source: src/backend/executor/execReplication.c, CheckCmdReplicaIdentity;
 * src/backend/utils/cache/relcache.c, RelationGetIndexList (which index counts).
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_IDENTITY_WATCH_H
#define CDC_SOURCE_IDENTITY_WATCH_H

#include <libpq-fe.h>

#include "cdc/source/source.h"

#define CDC_IDENTITY_SQL_MAX 4096

/* version: as PQserverVersion. */
void cdc_identity_sql(int version, const char *publication, char ret_sql[CDC_IDENTITY_SQL_MAX]);

/* The answer to that statement. */
void cdc_identity_read(const PGresult *answer, struct cdc_hurt_report *ret);

#endif
