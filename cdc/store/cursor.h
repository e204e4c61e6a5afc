/*
 * cursor.h - a sync's position as rows.
 *
 * For the store thread; everybody else calls cdc/store/store.h.
 *
 * Threads: as the database.  Layer: store (base, record).
 */
#ifndef CDC_STORE_CURSOR_H
#define CDC_STORE_CURSOR_H

#include "cdc/store/checkpoint.h"
#include "cdc/store/database.h"

/* A cdc_database_fn; arg is a list of struct cdc_checkpoint.  Each replaces its sync's rows. */
enum cdc_code cdc_cursors_write(struct cdc_database *db, void *arg, struct cdc_err *err) CDC_CHECK;

#endif
