#include "cdc/source/lookup.h"

#include <poll.h>
#include <string.h>

#include "cdc/base/clock.h"

/* A little more than the session's statement_timeout, so that the server is the one to end it. */
#define ASK_MS 5500

void cdc_lookup_init(struct cdc_lookup *l, const struct cdc_source_settings *settings,
		     const char *application, const struct cdc_stop *stop)
{
	memset(l, 0, sizeof(*l));
	l->settings = settings;
	l->application = application;
	l->stop = stop;
}

static void hang_up(struct cdc_lookup *l)
{
	cdc_pgconn_close(l->conn);
	l->conn = NULL;
}

void cdc_lookup_clear(struct cdc_lookup *l)
{
	hang_up(l);
	PQclear(l->answer);
	l->answer = NULL;
	l->phase = CDC_LOOKUP_IDLE;
	l->was_ended = false;
}

bool cdc_lookup_was_ended(struct cdc_lookup *l)
{
	if (l->was_ended || l->phase == CDC_LOOKUP_CONNECTING)
		return l->was_ended;
	/* A last word may come before the end: each round takes what is there. */
	for (int round = 0; l->conn && round < 4; round++) {
		struct pollfd fd = {.fd = PQsocket(l->conn->pg), .events = POLLIN};

		if (PQstatus(l->conn->pg) != CONNECTION_OK)
			return true;
		if (poll(&fd, 1, 0) != 1)
			return false;
		if (!PQconsumeInput(l->conn->pg))
			return true;
		(void)PQisBusy(l->conn->pg);
	}
	return false;
}

/* --- questions that are waited for ------------------------------------------------------ */

/* An answer that is still to come is kept for the step that fetches it. */
static void await_answer(struct cdc_lookup *l)
{
	while (l->phase == CDC_LOOKUP_CONNECTING || l->phase == CDC_LOOKUP_ASKING) {
		struct pollfd fd = {.fd = cdc_lookup_fd(l), .events = cdc_lookup_events(l)};
		PGresult *answer = NULL;
		enum cdc_code rc;

		/* The step looks at the deadline itself. */
		(void)poll(&fd, 1, 100);
		rc = cdc_lookup_step(l, &answer, &l->failure);
		if (rc == CDC_BUSY)
			continue;
		l->answer = answer;
		l->phase = CDC_LOOKUP_ANSWERED;
	}
}

/* To the server of the stream, once that is known: of several hosts another may answer by now. */
static enum cdc_code open_anew(struct cdc_lookup *l, struct cdc_err *err)
{
	enum cdc_code rc;

	if (!l->hint.host.name[0])
		return cdc_pgconn_open(l->settings, CDC_PGCONN_SQL, l->application, l->stop,
				       &l->conn, err);
	rc = cdc_pgconn_begin(l->settings, CDC_PGCONN_SQL, l->application, &l->hint, &l->conn, err);
	return rc ? rc : cdc_pgconn_finish(l->conn, l->stop, err);
}

static enum cdc_code ask(struct cdc_lookup *l, const char *sql, const char *doing,
			 PGresult **ret_result, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (!cdc_pgconn_is_open(l->conn)) {
		hang_up(l);
		rc = open_anew(l, err);
	}
	if (!rc)
		rc = cdc_pgconn_exec(l->conn, sql, ASK_MS, doing, ret_result, err);
	if (rc)
		hang_up(l);
	else
		l->was_ended = false;
	return rc;
}

enum cdc_code cdc_lookup_ask(struct cdc_lookup *l, const char *sql, const char *doing,
			     PGresult **ret_result, struct cdc_err *err)
{
	bool was_open;
	enum cdc_code rc;

	await_answer(l);
	was_open = cdc_pgconn_is_open(l->conn);
	rc = ask(l, sql, doing, ret_result, err);
	/* An idle connection may have ended long ago, which only a use shows. */
	if (rc == CDC_IO && was_open)
		rc = ask(l, sql, doing, ret_result, err);
	return rc;
}

/* --- questions that are not ------------------------------------------------------------- */

/* Sends the question without waiting for room in the socket: it is small, and nothing else is on
 * its way. */
static enum cdc_code send_question(struct cdc_lookup *l, struct cdc_err *err)
{
	PGconn *pg = l->conn->pg;

	if (PQsetnonblocking(pg, 1) != 0 || !PQsendQuery(pg, l->sql) || PQflush(pg) != 0 ||
	    PQsetnonblocking(pg, 0) != 0)
		return cdc_pgconn_failed(l->conn, NULL, l->doing, err);
	l->deadline_ms = cdc_clock_mono_ms() + ASK_MS;
	l->phase = CDC_LOOKUP_ASKING;
	return CDC_BUSY;
}

void cdc_lookup_begin(struct cdc_lookup *l, const char *sql, const char *doing)
{
	CDC_ASSERT(l->phase == CDC_LOOKUP_IDLE);
	l->sql = sql;
	l->doing = doing;
	l->phase = CDC_LOOKUP_CONNECTING;
}

static enum cdc_code go_on_connecting(struct cdc_lookup *l, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (l->conn && l->conn->polling == PGRES_POLLING_OK && !cdc_pgconn_is_open(l->conn))
		hang_up(l);
	if (!l->conn)
		rc = cdc_pgconn_begin(l->settings, CDC_PGCONN_SQL, l->application, &l->hint,
				      &l->conn, err);
	if (!rc)
		rc = cdc_pgconn_step(l->conn, err);
	return rc ? rc : send_question(l, err);
}

/* Everything of the answer that is there; the last result of several is the one that failed or the
 * only one. */
static enum cdc_code go_on_asking(struct cdc_lookup *l, PGresult **ret_result, struct cdc_err *err)
{
	PGconn *pg = l->conn->pg;
	PGresult *result;

	if (!PQconsumeInput(pg))
		return cdc_pgconn_failed(l->conn, NULL, l->doing, err);
	while (!PQisBusy(pg)) {
		result = PQgetResult(pg);
		if (!result) {
			if (l->answer && PQresultStatus(l->answer) == PGRES_TUPLES_OK) {
				*ret_result = CDC_TAKE(l->answer);
				return CDC_OK;
			}
			return cdc_pgconn_failed(l->conn, l->answer, l->doing, err);
		}
		PQclear(l->answer);
		l->answer = result;
	}
	if (cdc_clock_mono_ms() < l->deadline_ms)
		return CDC_BUSY;
	return cdc_err_set(err, CDC_TIMEOUT, "%s: %s: no answer within %d s", l->conn->where,
			   l->doing, ASK_MS / 1000);
}

enum cdc_code cdc_lookup_step(struct cdc_lookup *l, PGresult **ret_result, struct cdc_err *err)
{
	struct cdc_err why;
	enum cdc_code rc;

	CDC_ASSERT(l->phase != CDC_LOOKUP_IDLE);
	memset(&why, 0, sizeof(why));
	if (l->phase == CDC_LOOKUP_ANSWERED) {
		rc = l->answer ? CDC_OK : l->failure.code;
		why = l->failure;
		*ret_result = CDC_TAKE(l->answer);
	} else if (l->phase == CDC_LOOKUP_CONNECTING) {
		rc = go_on_connecting(l, &why);
	} else {
		rc = go_on_asking(l, ret_result, &why);
		l->was_ended |= rc == CDC_IO;
	}
	if (rc == CDC_BUSY)
		return rc;
	l->phase = CDC_LOOKUP_IDLE;
	PQclear(l->answer);
	l->answer = NULL;
	if (!rc) {
		l->was_ended = false;
		return CDC_OK;
	}
	hang_up(l);
	if (err)
		*err = why;
	return rc;
}

int cdc_lookup_fd(const struct cdc_lookup *l)
{
	return l->conn && (l->phase == CDC_LOOKUP_CONNECTING || l->phase == CDC_LOOKUP_ASKING)
		       ? PQsocket(l->conn->pg)
		       : -1;
}

short cdc_lookup_events(const struct cdc_lookup *l)
{
	return l->phase == CDC_LOOKUP_CONNECTING && l->conn ? cdc_pgconn_events(l->conn) : POLLIN;
}
