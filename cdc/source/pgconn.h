/*
 * pgconn.h - a connection to PostgreSQL whose failures are sorted.
 *
 * Connects with the session settings that make values PostgreSQL's own (UTC, ISO
 * dates, hex bytea, ...), runs statements with a deadline, and turns what goes
 * wrong into one sentence, a code and, where there is one, the exact remedy.  The
 * code follows the SQLSTATE, never the wording, because servers speak many
 * languages.  No text ever holds the password.
 *
 * Threads: a connection belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_PGCONN_H
#define CDC_SOURCE_PGCONN_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/stop.h"
#include "cdc/source/hosts.h"
#include "cdc/source/source.h"

#define CDC_PGCONN_SECRETS 3

struct cdc_pgconn {
	PGconn *pg;
	const struct cdc_source_settings *settings;
	struct cdc_host host;        /* of settings->hostname, the one that this is to */
	char where[300];             /* "db:5432", for texts */
	const struct cdc_stop *stop; /* once set, ends the waits of exec; NULL: nothing does */
	/* Certificates and keys that came as text, in anonymous memory; -1: none. */
	int secrets[CDC_PGCONN_SECRETS];
	uint64_t deadline_ms; /* monotonic: until then it has to be connected, */
	uint64_t limit_ms;    /* so long after the connect began */
	int polling;          /* what libpq waits for meanwhile, a PostgresPollingStatusType */
	/* Set by a notice that says that a publication is not there and changes are skipped
	 * (PostgreSQL 18 warns where older ones fail). */
	char skipped_publication[256];
	/* What a notice said last of a standby that has to confirm first
	 * (synchronized_standby_slots, PostgreSQL 17), and when (monotonic ms); it comes again
	 * every second. */
	char awaited_standby[256];
	uint64_t awaited_ms;
};

enum cdc_pgconn_kind { CDC_PGCONN_SQL, CDC_PGCONN_REPLICATION };

/* What one connection has learned for the next to the same server. */
struct cdc_pgconn_hint {
	struct cdc_host host; /* name "": the first of the settings */
	char address[64]; /* the server's, so that no name has to be looked up; "" for a socket */
	bool is_ascii;    /* it is in SQL_ASCII */
	int version;      /* 150018; 0: not known */
};
void cdc_pgconn_hint(const struct cdc_pgconn *c, struct cdc_pgconn_hint *ret);

/*
 * Connects, at most 10 s, to the host of the settings; of several to the first that is a primary
 * and answers, in at most 10 s together, or 2.5 s each.  CDC_IO or CDC_TIMEOUT, to be tried again,
 * when one of several was out of reach or a standby.  settings outlive the connection.
 * application: at most 63 bytes of it are shown by the server.  stop (may be NULL) becomes c->stop
 * and ends this wait, too.
 */
enum cdc_code cdc_pgconn_open(const struct cdc_source_settings *settings, enum cdc_pgconn_kind kind,
			      const char *application, const struct cdc_stop *stop,
			      struct cdc_pgconn **ret, struct cdc_err *err) CDC_CHECK;
/* The same, beginning with the host that it was last (name "": the first), so that a former primary
 * that came back is not taken for the one that is read. */
enum cdc_code cdc_pgconn_open_again(const struct cdc_source_settings *settings,
				    enum cdc_pgconn_kind kind, const char *application,
				    const struct cdc_stop *stop, const struct cdc_pgconn_hint *last,
				    struct cdc_pgconn **ret, struct cdc_err *err) CDC_CHECK;
void cdc_pgconn_close(struct cdc_pgconn *c); /* NULL is fine */

/*
 * The same without waiting, and to the server of the hint (NULL: the first host):
 * begin starts, and step goes on until it answers something else than CDC_BUSY
 * (after an error the caller closes).  Meanwhile the socket, which may change with
 * each step, is to be polled for events.  Or finish, which waits for all of it.
 */
enum cdc_code cdc_pgconn_begin(const struct cdc_source_settings *settings,
			       enum cdc_pgconn_kind kind, const char *application,
			       const struct cdc_pgconn_hint *hint, struct cdc_pgconn **ret,
			       struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_pgconn_step(struct cdc_pgconn *c, struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_pgconn_finish(struct cdc_pgconn *c, const struct cdc_stop *stop,
				struct cdc_err *err) CDC_CHECK;
short cdc_pgconn_events(const struct cdc_pgconn *c);

bool cdc_pgconn_is_open(const struct cdc_pgconn *c); /* NULL: false */

/*
 * Runs one statement and waits for its end, at most wait_ms (then the connection
 * is cut for good, and the code is CDC_TIMEOUT); half a second longer than until
 * c->stop is set at most (CDC_STOPPED).
 * doing: "reading the slot", for texts.  On success the caller clears *ret_result,
 * whose status is PGRES_COMMAND_OK, PGRES_TUPLES_OK or PGRES_COPY_BOTH.
 */
enum cdc_code cdc_pgconn_exec(struct cdc_pgconn *c, const char *sql, uint64_t wait_ms,
			      const char *doing, PGresult **ret_result,
			      struct cdc_err *err) CDC_CHECK;
/* The same, for statements whose result does not matter. */
enum cdc_code cdc_pgconn_run(struct cdc_pgconn *c, const char *sql, uint64_t wait_ms,
			     const char *doing, struct cdc_err *err) CDC_CHECK;

void cdc_pgconn_clear_result(PGresult **result); /* for CDC_AUTO */

/* What a SQLSTATE asks for; "" or NULL (the connection broke): CDC_IO. */
enum cdc_code cdc_pgconn_code(const char *sqlstate);

/* Fills err from a failed result (NULL: from the connection itself) as "doing: the server's words".
 */
enum cdc_code cdc_pgconn_failed(const struct cdc_pgconn *c, const PGresult *result,
				const char *doing, struct cdc_err *err);

/* The result's SQLSTATE, "" when it has none. */
const char *cdc_pgconn_sqlstate(const PGresult *result);

/* Columns of a result as text ("" for null) and as positions (0 for null or nonsense). */
const char *cdc_pgconn_text(const PGresult *result, int row, int column);
bool cdc_pgconn_bool(const PGresult *result, int row, int column);
cdc_lsn cdc_pgconn_lsn(const PGresult *result, int row, int column);
uint32_t cdc_pgconn_u32(const PGresult *result, int row, int column);

#endif
