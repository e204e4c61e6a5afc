#include "cdc/api/server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "cdc/api/health.h"
#include "cdc/api/metrics_text.h"
#include "cdc/api/status_text.h"
#include "cdc/base/clock.h"

#define CONNECTIONS_MAX  64
#define CONNECTION_BYTES 16384 /* of one request's head and buffers; a longer head is refused */
#define IDLE_TIMEOUT_S   10u
#define ANSWER_MAX                                                                                 \
	((size_t)32 << 20) /* metrics of 1,000 syncs with the longest names are half of it */
#define TYPE_JSON       "application/json"
#define TYPE_TEXT       "text/plain; charset=utf-8"
#define TYPE_PROMETHEUS "text/plain; version=0.0.4; charset=utf-8"
#define ADDRESS_MAX     256

struct cdc_server {
	struct cdc_server_setup setup;
	uint64_t started_ms; /* monotonic */
	unsigned port;
	struct MHD_Daemon *daemon;
};

/* One answer being made. */
struct answer {
	const struct cdc_server *server;
	struct MHD_Connection *connection;
	unsigned status;
	const char *type;
	struct cdc_buf body;
};

static void answer_healthz(struct answer *a)
{
	a->status = cdc_health_json(&a->server->setup, a->server->started_ms, cdc_clock_mono_ms(),
				    &a->body);
}

static enum MHD_Result find_strict(void *is_strict, enum MHD_ValueKind kind, const char *key,
				   const char *value)
{
	(void)kind;
	(void)value;
	if (strcmp(key, "strict") == 0)
		*(bool *)is_strict = true;
	return MHD_YES;
}

static void answer_readyz(struct answer *a)
{
	bool is_strict = false;

	(void)MHD_get_connection_values(a->connection, MHD_GET_ARGUMENT_KIND, find_strict,
					&is_strict);
	a->status = cdc_ready_json(&a->server->setup, is_strict, &a->body);
}

static void answer_metrics(struct answer *a)
{
	struct cdc_process process;

	cdc_process_read(&process);
	a->type = TYPE_PROMETHEUS;
	cdc_metrics_text(&a->server->setup, &process, cdc_clock_wall_us(), &a->body);
}

static void answer_status(struct answer *a)
{
	a->type = TYPE_TEXT;
	cdc_status_text(&a->server->setup, cdc_clock_wall_us(), &a->body);
}

static const struct {
	const char *path;
	void (*answer)(struct answer *a);
} routes[] = {
	{"/healthz", answer_healthz},
	{"/readyz", answer_readyz},
	{"/metrics", answer_metrics},
	{"/status.txt", answer_status},
};

static void route(struct answer *a, const char *path, bool is_read, bool has_body)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (strcmp(path, routes[i].path) != 0)
			continue;
		if (!is_read)
			a->status =
				cdc_error_json(405, "only GET and HEAD are served here", &a->body);
		else if (has_body)
			a->status = cdc_error_json(413, "a body is not accepted here", &a->body);
		else
			routes[i].answer(a);
		return;
	}
	a->status = cdc_error_json(404, "there is /healthz, /readyz, /metrics and /status.txt",
				   &a->body);
}

/* Gives the body to the library and queues it. */
static enum MHD_Result send_answer(struct answer *a, bool is_last)
{
	struct MHD_Response *r;
	enum MHD_Result rc;

	if (a->body.failed) {
		cdc_buf_reset(&a->body, 0);
		a->type = TYPE_JSON;
		a->status = cdc_error_json(500, "no memory for the answer", &a->body);
	}
	r = MHD_create_response_from_buffer(a->body.len, a->body.data, MHD_RESPMEM_MUST_FREE);
	if (!r) {
		cdc_buf_clear(&a->body);
		return MHD_NO;
	}
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (a->status == 405)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	if (is_last)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	rc = MHD_queue_response(a->connection, a->status, r);
	MHD_destroy_response(r);
	return rc;
}

static bool has_request_body(struct MHD_Connection *connection)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
							 MHD_HTTP_HEADER_CONTENT_LENGTH);

	return (length && strcmp(length, "0") != 0) ||
	       MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
					   MHD_HTTP_HEADER_TRANSFER_ENCODING);
}

/*
 * Called when the head of a request is there.  Answering at once, before any
 * body, makes the library close the connection behind the answer, so a request
 * without one is answered in the second call, which keeps the connection.
 */
static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload_data,
			      size_t *upload_data_size, void **request)
{
	struct answer a = {
		.server = arg, .connection = connection, .status = 200, .type = TYPE_JSON};
	bool is_read = strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
		       strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	bool has_body = has_request_body(connection);

	(void)version;
	(void)upload_data;
	(void)upload_data_size;
	if (!*request && is_read && !has_body) {
		*request = arg; /* anything but NULL: the head was seen */
		return MHD_YES;
	}
	cdc_buf_init(&a.body, ANSWER_MAX);
	route(&a, url, is_read, has_body);
	return send_answer(&a, has_body || !is_read);
}

/* Splits "127.0.0.1:5100" and "[::1]:5100". */
static bool split_address(const char *listen, char host[ADDRESS_MAX], char port[8])
{
	const char *colon = strrchr(listen, ':');
	size_t len = colon ? (size_t)(colon - listen) : 0, digits = colon ? strlen(colon + 1) : 0;

	if (len == 0 || len >= ADDRESS_MAX || digits == 0 || digits > 5 ||
	    strspn(colon + 1, "0123456789") != digits || strtoul(colon + 1, NULL, 10) > 65535)
		return false;
	if (listen[0] == '[' && listen[len - 1] == ']') {
		listen++;
		len -= 2;
	} else if (memchr(listen, ':', len)) {
		return false;
	}
	memcpy(host, listen, len);
	host[len] = '\0';
	memcpy(port, colon + 1, digits + 1);
	return len > 0;
}

/* A listening socket of its own, so that a failure has a reason; -1 with errno. */
static int listen_on(const struct addrinfo *ai)
{
	const int yes = 1;
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), saved;

	if (fd < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, CONNECTIONS_MAX) == 0)
		return fd;
	saved = errno;
	(void)close(fd);
	errno = saved;
	return -1;
}

static enum cdc_code open_socket(const char *address, int *ret_fd, struct cdc_err *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	char host[ADDRESS_MAX], port[8];
	struct addrinfo *found = NULL;
	int rc, fd;

	if (!split_address(address, host, port))
		return cdc_err_set(err, CDC_CONFIG, "listen: \"%s\" is not ADDRESS:PORT", address);
	rc = getaddrinfo(host, port, &hints, &found);
	if (rc || !found)
		return cdc_err_set(err, CDC_CONFIG, "listen: \"%s\": %s", address,
				   rc ? gai_strerror(rc) : "no such address");
	fd = listen_on(found);
	freeaddrinfo(found);
	if (fd < 0) {
		int reason = errno;

		(void)cdc_err_set(err, CDC_CONFIG, "listen: cannot listen on %s: %s", address,
				  strerror(reason));
		if (reason == EADDRINUSE)
			(void)cdc_err_remedy(err, "set listen to a free port, or to \"\" to serve "
						  "no health, metrics and status");
		return CDC_CONFIG;
	}
	*ret_fd = fd;
	return CDC_OK;
}

static unsigned port_of(int fd)
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
		return 0;
	if (sa.ss_family == AF_INET6) {
		memcpy(&v6, &sa, sizeof(v6));
		return ntohs(v6.sin6_port);
	}
	memcpy(&v4, &sa, sizeof(v4));
	return ntohs(v4.sin_port);
}

enum cdc_code cdc_server_start(const struct cdc_server_setup *setup, struct cdc_server **ret,
			       struct cdc_err *err)
{
	struct cdc_server *s = calloc(1, sizeof(*s));
	enum cdc_code rc;
	int fd = -1;

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "no memory for the HTTP server");
	s->setup = *setup;
	s->started_ms = cdc_clock_mono_ms();
	rc = open_socket(setup->listen, &fd, err);
	if (rc) {
		free(s);
		return rc;
	}
	s->port = port_of(fd);
	s->daemon = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD, 0, NULL, NULL, handle, s,
				     MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
				     CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
				     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
				     MHD_OPTION_END);
	if (!s->daemon) {
		/* Whether the library has closed the socket by now depends on where it failed. */
		free(s);
		return cdc_err_set(err, CDC_IO, "the HTTP server on %s cannot be started",
				   setup->listen);
	}
	*ret = s;
	return CDC_OK;
}

unsigned cdc_server_port(const struct cdc_server *s)
{
	return s->port;
}

void cdc_server_stop(struct cdc_server *s)
{
	if (!s)
		return;
	MHD_stop_daemon(s->daemon); /* closes the socket as well */
	free(s);
}
