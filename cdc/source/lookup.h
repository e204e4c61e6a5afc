/*
 * lookup.h - the second connection of a source, for questions in SQL.
 *
 * The replication connection takes no statement while it streams, so what the
 * stream does not say (types, primary keys, our own sync_state) is asked here.
 * It is opened by the first question and stays open, because the stream waits
 * while a question is asked; one that the server ended meanwhile is opened anew.
 *
 * Threads: a lookup belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_LOOKUP_H
#define CDC_SOURCE_LOOKUP_H

#include "cdc/source/pgconn.h"

struct cdc_lookup {
	const struct cdc_source_settings *settings;
	const char *application;
	struct cdc_pgconn *conn; /* NULL: not open */
};

/* Connects to nothing yet.  settings and application outlive the lookup. */
void cdc_lookup_init(struct cdc_lookup *l, const struct cdc_source_settings *settings,
		     const char *application);
void cdc_lookup_clear(struct cdc_lookup *l);

/* Did the server end the open connection?  Never waits. */
bool cdc_lookup_was_ended(struct cdc_lookup *l);

/* Runs a statement that only reads; the server ends it after 5 s.  On success the caller clears
 * *ret_result.  Codes as cdc_pgconn_exec; after CDC_IO the next question connects again. */
enum cdc_code cdc_lookup_ask(struct cdc_lookup *l, const char *sql, const char *doing,
			     PGresult **ret_result, struct cdc_err *err) CDC_CHECK;

#endif
