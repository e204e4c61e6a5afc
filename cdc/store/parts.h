/*
 * parts.h - writes of one table that others put into a transaction of their own.
 *
 * Threads: the store's.  Layer: store (base, record).
 */
#ifndef CDC_STORE_PARTS_H
#define CDC_STORE_PARTS_H

#include "cdc/store/database.h"
#include "cdc/store/store.h"

/* With the former row of the slot remembered among its epochs. */
enum cdc_code cdc_slot_write(struct cdc_database *db, const struct cdc_slot_row *row,
			     struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_gap_write(struct cdc_database *db, const struct cdc_gap_row *g,
			    struct cdc_err *err) CDC_CHECK;
/* Sets its id and asked_us. */
enum cdc_code cdc_command_write(struct cdc_database *db, struct cdc_command *c, int64_t now_us,
				struct cdc_err *err) CDC_CHECK;
/* Ends it, if it is waiting. */
enum cdc_code cdc_command_finish(struct cdc_database *db, int64_t id, enum cdc_command_state state,
				 const char *answer, struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_note_write(struct cdc_database *db, const char *name, const char *value,
			     struct cdc_err *err) CDC_CHECK;

#endif
