#include "cdc/source/pgconn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cdc/base/clock.h"

#define LAST_WORD_MS 500 /* for an answer that is on its way when the stop flag is set */
#define CONNECT_MS   10000
#define HOST_MS      2500 /* for one of several hosts, however many they are */

/* Startup parameters beat what a role or database has set; each of these changes how a value looks,
 * could end a statement of ours, or hides the warning that rows are skipped (see note below). */
#define PINNED                                                                                     \
	"-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c timezone=UTC "      \
	"-c bytea_output=hex -c xmloption=content -c lc_monetary=C "                               \
	"-c idle_in_transaction_session_timeout=0 "
/* jit: to compile what is asked of the catalogs takes longer than to answer it. */
static const char sql_options[] =
	PINNED "-c search_path=pg_catalog -c statement_timeout=5s -c jit=off";
static const char replication_options[] = PINNED "-c wal_sender_timeout=10s "
						 "-c statement_timeout=0 -c lock_timeout=30s "
						 "-c client_min_messages=warning";

/* --- words ------------------------------------------------------------------------- */

/* Copies a text of libpq or the server onto one line. */
static void one_line(const char *from, char *to, size_t size)
{
	size_t n = 0;

	while (*from == ' ' || *from == '\n')
		from++;
	for (; *from && n + 1 < size; from++) {
		if (*from != '\n' && *from != '\t')
			to[n++] = *from;
		else if (from[1] && from[1] != '\n' && from[1] != '\t')
			to[n++] = ' ';
	}
	while (n && to[n - 1] == ' ')
		n--;
	to[n] = '\0';
}

const char *cdc_pgconn_sqlstate(const PGresult *result)
{
	const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;

	return state ? state : "";
}

static bool starts(const char *state, const char *with)
{
	return strncmp(state, with, strlen(with)) == 0;
}

/* Source: PostgreSQL docs, appendix A "PostgreSQL Error Codes". */
enum cdc_code cdc_pgconn_code(const char *sqlstate)
{
	static const struct {
		const char *prefix;
		enum cdc_code code;
	} codes[] = {
		{"08P01", CDC_CONFIG}, /* refused by a pooler or a server that is too old */
		{"08", CDC_IO},
		{"22021", CDC_PROTO}, /* text that is not in its encoding */
		{"22P05", CDC_PROTO},
		{"28", CDC_AUTH},
		{"3D000", CDC_MISSING},
		{"40", CDC_IO},
		{"42501", CDC_CONFIG},
		{"42704", CDC_MISSING},
		{"42P01", CDC_MISSING},
		{"53400", CDC_CONFIG}, /* a configured limit: no free replication slot */
		{"53", CDC_IO},        /* too many connections, memory, disk of the server */
		{"54", CDC_PROTO},
		{"55006", CDC_HELD},
		{"55P03", CDC_TIMEOUT}, /* lock_timeout */
		{"55", CDC_IO},
		{"57014", CDC_TIMEOUT}, /* statement_timeout */
		{"57", CDC_IO},         /* shut down, starting up, terminated */
		{"58", CDC_IO},
		{"XX", CDC_PROTO},
	};

	if (!sqlstate || !*sqlstate)
		return CDC_IO;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (starts(sqlstate, codes[i].prefix))
			return codes[i].code;
	}
	return CDC_CONFIG;
}

enum cdc_code cdc_pgconn_failed(const struct cdc_pgconn *c, const PGresult *result,
				const char *doing, struct cdc_err *err)
{
	const char *state = cdc_pgconn_sqlstate(result);
	const char *primary = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *detail = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL) : NULL;
	char text[400];

	if (primary) {
		one_line(primary, text, sizeof(text));
		return cdc_err_set(err, cdc_pgconn_code(state), "%s: %s: %s%s%s (SQLSTATE %s)",
				   c->where, doing, text, detail ? " - " : "", detail ? detail : "",
				   state);
	}
	one_line(result && *PQresultErrorMessage(result) ? PQresultErrorMessage(result)
							 : PQerrorMessage(c->pg),
		 text, sizeof(text));
	return cdc_err_set(err, CDC_IO, "%s: %s: %s", c->where, doing,
			   *text ? text : "the connection broke");
}

/* --- why a connection could not be had ------------------------------------------------- */

/* Finds the SQLSTATE in "FATAL:  28P01: text", the verbose form, in any language; "" if there is
 * none.  *ret_text: the text behind it. */
static void find_sqlstate(const char *message, char ret_state[6], const char **ret_text)
{
	ret_state[0] = '\0';
	*ret_text = message;
	for (const char *at = message; (at = strstr(at, ":  ")) != NULL; at += 3) {
		const char *state = at + 3;

		if (strspn(state, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && state[5] == ':') {
			memcpy(ret_state, state, 5);
			ret_state[5] = '\0';
			*ret_text = state + 7;
			return;
		}
	}
}

static enum cdc_code no_tls(const struct cdc_pgconn *c, const char *text, struct cdc_err *err)
{
	if (strstr(text, "server does not support SSL")) {
		(void)cdc_err_set(err, CDC_CONFIG, "%s: the server offers no TLS", c->where);
		return cdc_err_remedy(err, "set ssl: false (in a network you trust), or switch ssl "
					   "on in the server's postgresql.conf");
	}
	if (strstr(text, "certificate") || strstr(text, "private key")) {
		(void)cdc_err_set(err, CDC_CONFIG, "%s: TLS: %s", c->where, text);
		return cdc_err_remedy(err,
				      "set ca_cert to the authority that signed the server's "
				      "certificate, hostname to a name in it, and "
				      "client_certificate and client_key to a pair that belongs "
				      "together");
	}
	return CDC_OK;
}

static enum cdc_code refused_login(const struct cdc_pgconn *c, const char *state, const char *text,
				   struct cdc_err *err)
{
	const struct cdc_source_settings *s = c->settings;

	if (strcmp(state, "28P01") == 0) {
		(void)cdc_err_set(err, CDC_AUTH,
				  "%s: the server does not accept the password of role %s",
				  c->where, s->username);
		return cdc_err_remedy(err,
				      "set password to the role's, or give it a new one: "
				      "ALTER ROLE \"%s\" PASSWORD '...';",
				      s->username);
	}
	if (strstr(text, "pg_hba.conf") || strstr(text, "encryption")) {
		(void)cdc_err_set(err, CDC_AUTH, "%s: the server lets nobody in this way: %s",
				  c->where, text);
		return cdc_err_remedy(
			err,
			"add to the server's pg_hba.conf: %s \"%s\" \"%s\" %s scram-sha-256, then "
			"run SELECT pg_reload_conf();%s",
			c->host.name[0] == '/' ? "local"
			: s->ssl               ? "hostssl"
					       : "host",
			s->database, s->username, c->host.name[0] == '/' ? "" : "ADDRESS/32",
			s->ssl ? "" : " or set ssl: true if it only lets TLS in");
	}
	(void)cdc_err_set(err, CDC_AUTH, "%s: the server refuses role %s: %s", c->where,
			  s->username, text);
	return cdc_err_remedy(err,
			      "CREATE ROLE \"%s\" LOGIN REPLICATION PASSWORD '...'; or set "
			      "username and password to a role that may log in",
			      s->username);
}

static enum cdc_code refused_replication(const struct cdc_pgconn *c, const char *state,
					 const char *text, struct cdc_err *err)
{
	if (strcmp(state, "42501") == 0) {
		(void)cdc_err_set(err, CDC_AUTH,
				  "%s: role %s may not replicate: it lacks the REPLICATION "
				  "attribute",
				  c->where, c->settings->username);
		return cdc_err_remedy(err,
				      "ALTER ROLE \"%s\" REPLICATION;  (Amazon RDS: GRANT "
				      "rds_replication TO \"%s\";)",
				      c->settings->username, c->settings->username);
	}
	(void)cdc_err_set(err, CDC_IO, "%s: no connection is free: %s", c->where, text);
	return cdc_err_remedy(err, "ALTER SYSTEM SET max_wal_senders = N; or max_connections, "
				   "higher than now, and restart the server");
}

/* Sorts a failed connect by the SQLSTATE in its text, or by libpq's own words. */
static enum cdc_code connect_failed(const struct cdc_pgconn *c, struct cdc_err *err)
{
	const char *whole = PQerrorMessage(c->pg), *text;
	char state[6], line[400];
	enum cdc_code rc;

	find_sqlstate(whole, state, &text);
	one_line(text, line, sizeof(line));
	if (strstr(line, " LOCATION:"))
		*strstr(line, " LOCATION:") = '\0';
	if (starts(state, "28"))
		return refused_login(c, state, line, err);
	if (strcmp(state, "3D000") == 0) {
		(void)cdc_err_set(err, CDC_MISSING, "%s: there is no database %s", c->where,
				  c->settings->database);
		return cdc_err_remedy(err,
				      "set database to one of: psql -l; or create it: CREATE "
				      "DATABASE \"%s\";",
				      c->settings->database);
	}
	if (strcmp(state, "42501") == 0 || strcmp(state, "53300") == 0)
		return refused_replication(c, state, line, err);
	if (strstr(line, "unsupported startup parameter") ||
	    strstr(line, "replication connection")) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s: this is a connection pooler, not PostgreSQL itself: %s",
				  c->where, line);
		return cdc_err_remedy(err, "set hostname and port to those of the database server; "
					   "logical replication does not pass through a pooler");
	}
	if (*state)
		return cdc_err_set(err, cdc_pgconn_code(state), "%s: %s (SQLSTATE %s)", c->where,
				   line, state);
	rc = no_tls(c, line, err);
	if (rc)
		return rc;
	(void)cdc_err_set(err, CDC_IO, "%s: cannot connect: %s", c->where,
			  *line ? line : "no answer");
	return cdc_err_remedy(err, "check hostname and port, that the server runs and listens "
				   "there (listen_addresses), and that no firewall is between");
}

/* --- opening --------------------------------------------------------------------------- */

static void note(void *arg, const PGresult *notice)
{
	struct cdc_pgconn *c = arg;
	const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);
	const char *text = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);

	/* The function's name is the same in every language.  PostgreSQL source
	 * src/backend/replication/pgoutput/pgoutput.c and src/backend/replication/slot.c. */
	if (function && strcmp(function, "StandbySlotsHaveCaughtup") == 0) {
		one_line(text ? text : "a standby has not confirmed yet", c->awaited_standby,
			 sizeof(c->awaited_standby));
		c->awaited_ms = cdc_clock_mono_ms();
	}
	if (function && strcmp(function, "LoadPublications") == 0)
		one_line(text ? text : "a publication is missing", c->skipped_publication,
			 sizeof(c->skipped_publication));
}

/* libpq wants files: text goes into anonymous memory that only this process can name. */
static enum cdc_code as_path(struct cdc_pgconn *c, size_t slot, const char *value, char path[64],
			     const char **ret_path, struct cdc_err *err)
{
	size_t left = strlen(value);
	int fd;

	if (!strstr(value, "-----BEGIN")) {
		*ret_path = value;
		return CDC_OK;
	}
	fd = memfd_create("pem", MFD_CLOEXEC);
	c->secrets[slot] = fd;
	if (fd < 0 || fchmod(fd, 0600) != 0)
		return cdc_err_set(err, CDC_IO, "no memory file for a certificate: %s",
				   strerror(errno));
	while (left) {
		ssize_t n = write(fd, value, left);

		if (n < 0)
			return cdc_err_set(err, CDC_IO, "no memory file for a certificate: %s",
					   strerror(errno));
		value += n;
		left -= (size_t)n;
	}
	(void)snprintf(path, 64, "/proc/self/fd/%d", fd);
	*ret_path = path;
	return CDC_OK;
}

/* Polls until the socket is ready, the deadline has come, or some time after the stop flag was set:
 * what the server has just made should not be left behind unknown. */
static bool wait_socket(const struct cdc_pgconn *c, short events, uint64_t deadline_ms)
{
	for (;;) {
		const bool is_stopping = c->stop && cdc_stop_is_set(c->stop);
		struct pollfd fds[2] = {
			{.fd = PQsocket(c->pg), .events = events},
			{.fd = c->stop && !is_stopping ? c->stop->fd : -1, .events = POLLIN}};
		uint64_t now = cdc_clock_mono_ms();
		int n;

		if (is_stopping && deadline_ms > now + LAST_WORD_MS)
			deadline_ms = now + LAST_WORD_MS;

		if (now >= deadline_ms || fds[0].fd < 0)
			return false;
		n = poll(fds, 2, (int)(deadline_ms - now));
		if (n > 0 && fds[0].revents)
			return true;
		if (n < 0 && errno != EINTR)
			return false;
	}
}

short cdc_pgconn_events(const struct cdc_pgconn *c)
{
	return c->polling == PGRES_POLLING_WRITING ? POLLOUT : POLLIN;
}

enum cdc_code cdc_pgconn_step(struct cdc_pgconn *c, struct cdc_err *err)
{
	while (PQstatus(c->pg) != CONNECTION_BAD && c->polling != PGRES_POLLING_OK &&
	       c->polling != PGRES_POLLING_FAILED) {
		struct pollfd fd = {.fd = PQsocket(c->pg), .events = cdc_pgconn_events(c)};

		if (cdc_clock_mono_ms() >= c->deadline_ms) {
			(void)cdc_err_set(err, CDC_TIMEOUT, "%s: no answer within %.3g s", c->where,
					  (double)c->limit_ms / 1000);
			return cdc_err_remedy(err, "check hostname and port, and that no firewall "
						   "swallows the connection");
		}
		if (fd.fd >= 0 && poll(&fd, 1, 0) == 0)
			return CDC_BUSY;
		c->polling = (int)PQconnectPoll(c->pg);
	}
	if (PQstatus(c->pg) != CONNECTION_OK)
		return connect_failed(c, err);
	(void)PQsetErrorVerbosity(c->pg, PQERRORS_DEFAULT);
	return CDC_OK;
}

static enum cdc_code finish_connect(struct cdc_pgconn *c, struct cdc_err *err)
{
	enum cdc_code rc;

	while ((rc = cdc_pgconn_step(c, err)) == CDC_BUSY) {
		if (c->stop && cdc_stop_is_set(c->stop))
			return cdc_err_set(err, CDC_STOPPED, "%s: stopped", c->where);
		(void)wait_socket(c, cdc_pgconn_events(c), c->deadline_ms);
	}
	return rc;
}

/* The one word of libpq's for what the settings say. */
static const char *ssl_mode(const struct cdc_source_settings *s)
{
	if (!s->ssl)
		return "disable";
	return s->ca_cert ? "verify-full" : "require";
}

/* Time-outs of the role's that not every version knows: they are meant for its own sessions, and
 * would end one of ours that has to wait. */
static const char *late_options(int version)
{
	if (version >= 170000)
		return " -c idle_session_timeout=0 -c transaction_timeout=0";
	return version >= 140000 ? " -c idle_session_timeout=0" : "";
}

static enum cdc_code start_connect(struct cdc_pgconn *c, enum cdc_pgconn_kind kind,
				   const char *application, const struct cdc_pgconn_hint *hint,
				   bool must_be_primary, struct cdc_err *err)
{
	const struct cdc_source_settings *s = c->settings;
	const char *const pems[CDC_PGCONN_SECRETS] = {s->ca_cert, s->client_certificate,
						      s->client_key};
	const char *paths[CDC_PGCONN_SECRETS] = {NULL, NULL, NULL};
	char texts[CDC_PGCONN_SECRETS][64], port[24], name[64], options[1024];
	enum cdc_code rc;

	for (size_t i = 0; i < CDC_PGCONN_SECRETS; i++) {
		rc = pems[i] && s->ssl ? as_path(c, i, pems[i], texts[i], &paths[i], err) : CDC_OK;
		if (rc)
			return rc;
	}
	(void)snprintf(port, sizeof(port), "%u", c->host.port);
	(void)snprintf(name, sizeof(name), "%s", application);
	(void)snprintf(options, sizeof(options), "%s%s",
		       kind == CDC_PGCONN_SQL ? sql_options : replication_options,
		       late_options(hint ? hint->version : 0));
	{
		/* A NULL value is as if the keyword were absent. */
		const struct {
			const char *keyword, *value;
		} params[] = {
			{"host", c->host.name},
			{"hostaddr", hint && hint->address[0] ? hint->address : NULL},
			{"port", port},
			{"dbname", s->database},
			{"user", s->username},
			{"password", s->password},
			{"application_name", name},
			{"client_encoding", hint && hint->is_ascii ? "SQL_ASCII" : "UTF8"},
			{"options", options},
			{"replication", kind == CDC_PGCONN_SQL ? NULL : "database"},
			{"sslmode", ssl_mode(s)},
			{"sslrootcert", paths[0]},
			{"sslcert", paths[1]},
			{"sslkey", paths[2]},
			{"gssencmode", "disable"},
			{"keepalives", "1"},
			{"keepalives_idle", "10"},
			{"keepalives_interval", "5"},
			{"keepalives_count", "3"},
			{"tcp_user_timeout", "15000"},
			{"target_session_attrs", must_be_primary ? "primary" : NULL},
		};
		const char *keywords[sizeof(params) / sizeof(params[0]) + 1] = {NULL};
		const char *values[sizeof(params) / sizeof(params[0]) + 1] = {NULL};

		for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
			keywords[i] = params[i].keyword;
			values[i] = params[i].value;
		}
		c->pg = PQconnectStartParams(keywords, values, 0);
	}
	if (!c->pg)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a connection");
	(void)PQsetErrorVerbosity(c->pg, PQERRORS_VERBOSE);
	(void)PQsetNoticeReceiver(c->pg, note, c);
	c->polling = PGRES_POLLING_WRITING;
	return CDC_OK;
}

static bool is_ascii(const struct cdc_pgconn *c)
{
	const char *encoding = PQparameterStatus(c->pg, "server_encoding");

	return encoding && strcmp(encoding, "SQL_ASCII") == 0;
}

/* A server in SQL_ASCII does not know what its bytes mean: to ask for UTF-8 would make one bad byte
 * stop the slot for ever. */
static enum cdc_code fit_encoding(struct cdc_pgconn *c, struct cdc_err *err)
{
	if (!is_ascii(c))
		return CDC_OK;
	return cdc_pgconn_run(c, "SET client_encoding = 'SQL_ASCII'", 5000, "setting the encoding",
			      err);
}

/* What late_options() would have said, had the version been known. */
static enum cdc_code lift_timeouts(struct cdc_pgconn *c, struct cdc_err *err)
{
	const int version = PQserverVersion(c->pg);

	if (version < 140000)
		return CDC_OK;
	return cdc_pgconn_run(c,
			      version < 170000 ? "SET idle_session_timeout = 0"
					       : "SET idle_session_timeout = 0; "
						 "SET transaction_timeout = 0",
			      5000, "lifting the role's time-outs", err);
}

void cdc_pgconn_hint(const struct cdc_pgconn *c, struct cdc_pgconn_hint *ret)
{
	const char *address = PQhostaddr(c->pg);

	*ret = (struct cdc_pgconn_hint){
		.host = c->host, .is_ascii = is_ascii(c), .version = PQserverVersion(c->pg)};
	if (address && strlen(address) < sizeof(ret->address))
		memcpy(ret->address, address, strlen(address));
}

/* hint may be NULL. */
static enum cdc_code begin(const struct cdc_source_settings *settings, enum cdc_pgconn_kind kind,
			   const char *application, const struct cdc_host *host,
			   const struct cdc_pgconn_hint *hint, bool must_be_primary,
			   struct cdc_pgconn **ret, struct cdc_err *err)
{
	struct cdc_pgconn *c = calloc(1, sizeof(*c));
	enum cdc_code rc;

	if (!c)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a connection");
	c->settings = settings;
	c->host = *host;
	for (size_t i = 0; i < CDC_PGCONN_SECRETS; i++)
		c->secrets[i] = -1;
	(void)snprintf(c->where, sizeof(c->where), "%s:%u", host->name, host->port);
	c->limit_ms = CONNECT_MS;
	c->deadline_ms = cdc_clock_mono_ms() + c->limit_ms;
	rc = start_connect(c, kind, application, hint, must_be_primary, err);
	if (rc) {
		cdc_pgconn_close(c);
		return rc;
	}
	*ret = c;
	return CDC_OK;
}

enum cdc_code cdc_pgconn_begin(const struct cdc_source_settings *settings,
			       enum cdc_pgconn_kind kind, const char *application,
			       const struct cdc_pgconn_hint *hint, struct cdc_pgconn **ret,
			       struct cdc_err *err)
{
	struct cdc_host hosts[CDC_HOSTS_MAX];
	const struct cdc_host *host = hint && hint->host.name[0] ? &hint->host : hosts;
	enum cdc_code rc;
	size_t n;

	rc = cdc_hosts_parse(settings->hostname, settings->port, hosts, &n, err);
	return rc ? rc
		  : begin(settings, kind, application, host, hint, host == hosts && n > 1, ret,
			  err);
}

enum cdc_code cdc_pgconn_finish(struct cdc_pgconn *c, const struct cdc_stop *stop,
				struct cdc_err *err)
{
	enum cdc_code rc;

	c->stop = stop;
	rc = finish_connect(c, err);
	if (!rc)
		rc = fit_encoding(c, err);
	if (!rc)
		rc = lift_timeouts(c, err);
	return rc;
}

/* One of several hosts; a primary that cannot be had at the moment says so in time for the next. */
static enum cdc_code open_one(const struct cdc_source_settings *settings, enum cdc_pgconn_kind kind,
			      const char *application, const struct cdc_stop *stop,
			      const struct cdc_host *host, size_t host_n, struct cdc_pgconn **ret,
			      struct cdc_err *err)
{
	struct cdc_pgconn *c = NULL;
	enum cdc_code rc;

	rc = begin(settings, kind, application, host, NULL, host_n > 1, &c, err);
	if (rc)
		return rc;
	if (host_n > 1) {
		c->limit_ms = CONNECT_MS / host_n > HOST_MS ? CONNECT_MS / host_n : HOST_MS;
		c->deadline_ms = cdc_clock_mono_ms() + c->limit_ms;
	}
	rc = cdc_pgconn_finish(c, stop, err);
	if (rc)
		cdc_pgconn_close(c);
	else
		*ret = c;
	return rc;
}

/* Why none of several hosts will do.  What may pass by itself counts more than what a person has to
 * mend: the host that is to be read may be the one that does not answer. */
static enum cdc_code none_will_do(const struct cdc_err *errs, size_t n, struct cdc_err *err)
{
	size_t chosen = 0;
	char texts[CDC_HOSTS_MAX * 64] = "";
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		const bool is_better = errs[i].code == CDC_IO || errs[i].code == CDC_TIMEOUT;

		if (is_better && errs[chosen].code != CDC_IO && errs[chosen].code != CDC_TIMEOUT)
			chosen = i;
		if (len < sizeof(texts))
			len += (size_t)snprintf(texts + len, sizeof(texts) - len, "%s%.*s",
						i ? "; " : "", (int)(sizeof(texts) / n) - 3,
						errs[i].msg);
	}
	(void)cdc_err_set(err, errs[chosen].code, "none of %zu hosts is a primary that answers: %s",
			  n, texts);
	return cdc_err_remedy(err, "%s", errs[chosen].remedy);
}

/* To the front, if it is one of them. */
static void put_first(struct cdc_host *hosts, size_t n, const struct cdc_host *first)
{
	const struct cdc_host host = *first;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(hosts[i].name, host.name) != 0 || hosts[i].port != host.port)
			continue;
		memmove(&hosts[1], &hosts[0], i * sizeof(hosts[0]));
		hosts[0] = host;
		return;
	}
}

enum cdc_code cdc_pgconn_open(const struct cdc_source_settings *settings, enum cdc_pgconn_kind kind,
			      const char *application, const struct cdc_stop *stop,
			      struct cdc_pgconn **ret, struct cdc_err *err)
{
	return cdc_pgconn_open_again(settings, kind, application, stop, NULL, ret, err);
}

enum cdc_code cdc_pgconn_open_again(const struct cdc_source_settings *settings,
				    enum cdc_pgconn_kind kind, const char *application,
				    const struct cdc_stop *stop, const struct cdc_pgconn_hint *last,
				    struct cdc_pgconn **ret, struct cdc_err *err)
{
	struct cdc_host hosts[CDC_HOSTS_MAX];
	struct cdc_err errs[CDC_HOSTS_MAX];
	size_t n;
	enum cdc_code rc = cdc_hosts_parse(settings->hostname, settings->port, hosts, &n, err);

	if (rc)
		return rc;
	if (last)
		put_first(hosts, n, &last->host);
	for (size_t i = 0; i < n; i++) {
		memset(&errs[i], 0, sizeof(errs[i]));
		rc = open_one(settings, kind, application, stop, &hosts[i], n, ret, &errs[i]);
		if (!rc)
			return CDC_OK;
		if (n == 1 || rc == CDC_STOPPED || rc == CDC_NOMEM) {
			if (err)
				*err = errs[i];
			return rc;
		}
	}
	return none_will_do(errs, n, err);
}

void cdc_pgconn_close(struct cdc_pgconn *c)
{
	if (!c)
		return;
	PQfinish(c->pg);
	for (size_t i = 0; i < CDC_PGCONN_SECRETS; i++) {
		if (c->secrets[i] >= 0)
			(void)close(c->secrets[i]);
	}
	free(c);
}

bool cdc_pgconn_is_open(const struct cdc_pgconn *c)
{
	return c && PQstatus(c->pg) == CONNECTION_OK && PQsocket(c->pg) >= 0;
}

/* --- statements ------------------------------------------------------------------------ */

void cdc_pgconn_clear_result(PGresult **result)
{
	PQclear(*result);
	*result = NULL;
}

/* What the server answers after the deadline is of no use: it learns that nobody listens.  It is
 * not asked to cancel, since that would wait for it once more. */
static void hang_up(struct cdc_pgconn *c)
{
	(void)shutdown(PQsocket(c->pg), SHUT_RDWR);
}

/* Waits for the next result; NULL: there is none (*ret_is_late tells a timeout). */
static PGresult *next_result(struct cdc_pgconn *c, uint64_t deadline_ms, bool *ret_is_late)
{
	*ret_is_late = false;
	while (PQisBusy(c->pg)) {
		if (!wait_socket(c, POLLIN, deadline_ms)) {
			*ret_is_late = PQsocket(c->pg) >= 0;
			return NULL;
		}
		if (!PQconsumeInput(c->pg))
			break;
	}
	return PQgetResult(c->pg);
}

static bool is_success(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_COPY_BOTH;
}

enum cdc_code cdc_pgconn_exec(struct cdc_pgconn *c, const char *sql, uint64_t wait_ms,
			      const char *doing, PGresult **ret_result, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *last = NULL;
	const uint64_t deadline_ms = cdc_clock_mono_ms() + wait_ms;
	PGresult *result;
	bool is_late;

	if (!sql)
		return cdc_err_set(err, CDC_LIMIT, "%s: %s: the statement is too long", c->where,
				   doing);
	if (!PQsendQuery(c->pg, sql))
		return cdc_pgconn_failed(c, NULL, doing, err);
	while ((result = next_result(c, deadline_ms, &is_late)) != NULL) {
		/* The first failure is the one that says why. */
		if (!last || is_success(last)) {
			PQclear(last);
			last = result;
		} else {
			PQclear(result);
		}
		if (PQresultStatus(last) == PGRES_COPY_BOTH || PQstatus(c->pg) == CONNECTION_BAD)
			break;
	}
	/* Who is told to stop waits no longer, not even for the answer to a cancel. */
	if (is_late && c->stop && cdc_stop_is_set(c->stop))
		return cdc_err_set(err, CDC_STOPPED, "%s: %s: stopped", c->where, doing);
	if (is_late) {
		hang_up(c);
		return cdc_err_set(err, CDC_TIMEOUT, "%s: %s: no answer within %llu s", c->where,
				   doing, (unsigned long long)(wait_ms / 1000));
	}
	if (!last || !is_success(last))
		return cdc_pgconn_failed(c, last, doing, err);
	*ret_result = CDC_TAKE(last);
	return CDC_OK;
}

enum cdc_code cdc_pgconn_run(struct cdc_pgconn *c, const char *sql, uint64_t wait_ms,
			     const char *doing, struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = NULL;

	return cdc_pgconn_exec(c, sql, wait_ms, doing, &result, err);
}

const char *cdc_pgconn_text(const PGresult *result, int row, int column)
{
	return row < PQntuples(result) && column < PQnfields(result)
		       ? PQgetvalue(result, row, column)
		       : "";
}

bool cdc_pgconn_bool(const PGresult *result, int row, int column)
{
	const char *text = cdc_pgconn_text(result, row, column);

	return text[0] == 't';
}

cdc_lsn cdc_pgconn_lsn(const PGresult *result, int row, int column)
{
	const char *text = cdc_pgconn_text(result, row, column);
	cdc_lsn lsn;

	return cdc_lsn_parse(text, strlen(text), &lsn) ? lsn : 0;
}

uint32_t cdc_pgconn_u32(const PGresult *result, int row, int column)
{
	return (uint32_t)strtoul(cdc_pgconn_text(result, row, column), NULL, 10);
}
