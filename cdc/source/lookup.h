/*
 * lookup.h - the second connection of a source, for questions in SQL.
 *
 * The replication connection takes no statement while it streams, so what the
 * stream does not say (types, primary keys, how the slot stands) is asked here.
 * It is opened by the first question and stays open; one that the server ended
 * meanwhile is opened anew.  A question is either asked, and the stream waits for
 * the answer, or begun, and the answer is fetched by steps that never wait.
 *
 * Threads: a lookup belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_LOOKUP_H
#define CDC_SOURCE_LOOKUP_H

#include "cdc/source/pgconn.h"

enum cdc_lookup_phase {
	CDC_LOOKUP_IDLE,       /* nothing was begun */
	CDC_LOOKUP_CONNECTING, /* for the question that was begun */
	CDC_LOOKUP_ASKING,     /* it was sent */
	CDC_LOOKUP_ANSWERED,   /* the next step hands it over */
};

struct cdc_lookup {
	const struct cdc_source_settings *settings;
	const char *application;
	const struct cdc_stop *stop; /* ends the waits of ask; NULL: nothing does */
	struct cdc_pgconn_hint hint; /* the caller may set it before a question is begun */
	struct cdc_pgconn *conn;     /* NULL: not open */
	bool was_ended;              /* by the server, and not opened anew since */
	enum cdc_lookup_phase phase; /* of the question that was begun */
	const char *sql, *doing;     /* that question; the caller's */
	uint64_t deadline_ms;        /* monotonic: of its answer */
	PGresult *answer;            /* or why there is none: */
	struct cdc_err failure;
};

/* Connects to nothing yet.  settings and application outlive the lookup. */
void cdc_lookup_init(struct cdc_lookup *l, const struct cdc_source_settings *settings,
		     const char *application, const struct cdc_stop *stop);
void cdc_lookup_clear(struct cdc_lookup *l);

/* Did the server end the open connection?  Never waits. */
bool cdc_lookup_was_ended(struct cdc_lookup *l);

/* Runs a statement that only reads; the server ends it after 5 s.  On success the caller clears
 * *ret_result.  Codes as cdc_pgconn_exec; after CDC_IO the next question connects again.  Waits for
 * the answer to a question that was begun before. */
enum cdc_code cdc_lookup_ask(struct cdc_lookup *l, const char *sql, const char *doing,
			     PGresult **ret_result, struct cdc_err *err) CDC_CHECK;

/*
 * Begins such a question without waiting; none may be under way.  sql and doing
 * stay valid until it is answered.  step goes on with it and answers CDC_BUSY until
 * the result, or the error, is there; at most 10 s to connect, 5.5 s to be answered.
 */
void cdc_lookup_begin(struct cdc_lookup *l, const char *sql, const char *doing);
enum cdc_code cdc_lookup_step(struct cdc_lookup *l, PGresult **ret_result,
			      struct cdc_err *err) CDC_CHECK;

/* What poll() waits for while a question is under way; -1: none is. */
int cdc_lookup_fd(const struct cdc_lookup *l);
short cdc_lookup_events(const struct cdc_lookup *l);

#endif
