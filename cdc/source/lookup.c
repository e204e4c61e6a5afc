#include "cdc/source/lookup.h"

#include <poll.h>

/* A little more than the session's statement_timeout, so that the server is the one to end it. */
#define ASK_MS 5500

void cdc_lookup_init(struct cdc_lookup *l, const struct cdc_source_settings *settings,
		     const char *application)
{
	*l = (struct cdc_lookup){.settings = settings, .application = application};
}

void cdc_lookup_clear(struct cdc_lookup *l)
{
	cdc_pgconn_close(l->conn);
	l->conn = NULL;
}

bool cdc_lookup_was_ended(struct cdc_lookup *l)
{
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

static enum cdc_code ask(struct cdc_lookup *l, const char *sql, const char *doing,
			 PGresult **ret_result, struct cdc_err *err)
{
	enum cdc_code rc = CDC_OK;

	if (!cdc_pgconn_is_open(l->conn)) {
		cdc_lookup_clear(l);
		rc = cdc_pgconn_open(l->settings, CDC_PGCONN_SQL, l->application, &l->conn, err);
	}
	if (!rc)
		rc = cdc_pgconn_exec(l->conn, sql, ASK_MS, doing, ret_result, err);
	if (rc)
		cdc_lookup_clear(l);
	return rc;
}

enum cdc_code cdc_lookup_ask(struct cdc_lookup *l, const char *sql, const char *doing,
			     PGresult **ret_result, struct cdc_err *err)
{
	const bool was_open = cdc_pgconn_is_open(l->conn);
	enum cdc_code rc = ask(l, sql, doing, ret_result, err);

	/* An idle connection may have ended long ago, which only a use shows. */
	if (rc == CDC_IO && was_open)
		rc = ask(l, sql, doing, ret_result, err);
	return rc;
}
