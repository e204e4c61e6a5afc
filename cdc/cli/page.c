#include "cdc/cli/page.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define WAIT_S   5
#define HOST_MAX 256

/* Splits "127.0.0.1:5100" and "[::1]:5100"; the loader has checked the rest. */
static bool split(const char *listen, char host[HOST_MAX], const char **ret_port)
{
	const char *colon = strrchr(listen, ':');
	size_t n = colon ? (size_t)(colon - listen) : 0;

	if (n >= 2 && listen[0] == '[' && listen[n - 1] == ']') {
		listen++;
		n -= 2;
	}
	if (!n || n >= HOST_MAX)
		return false;
	memcpy(host, listen, n);
	host[n] = '\0';
	*ret_port = colon + 1;
	return true;
}

static int connect_to(const struct addrinfo *ai)
{
	const struct timeval wait = {.tv_sec = WAIT_S};
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), saved;

	if (fd < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return fd;
	saved = errno;
	(void)close(fd);
	errno = saved;
	return -1;
}

static enum cdc_code open_page(const char *listen, int *ret_fd, struct cdc_err *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	char host[HOST_MAX];
	const char *port;
	int rc;

	if (!split(listen, host, &port))
		return cdc_err_set(err, CDC_CONFIG, "listen: %s is no address with a port", listen);
	rc = getaddrinfo(host, port, &hints, &found);
	if (rc)
		return cdc_err_set(err, CDC_IO, "listen: %s: %s", listen, gai_strerror(rc));
	*ret_fd = connect_to(found);
	freeaddrinfo(found);
	if (*ret_fd < 0)
		return cdc_err_set(err, CDC_IO, "nobody answers on %s: %s", listen,
				   strerror(errno));
	return CDC_OK;
}

static enum cdc_code ask(int fd, const char *listen, const char *path, struct cdc_err *err)
{
	char request[512];
	int n = snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path,
			 listen);

	if (n < 0 || (size_t)n >= sizeof(request) ||
	    send(fd, request, (size_t)n, MSG_NOSIGNAL) != (ssize_t)n)
		return cdc_err_set(err, CDC_IO, "%s takes no request", listen);
	return CDC_OK;
}

/* Until the other side closes. */
static enum cdc_code read_all(int fd, const char *listen, struct cdc_buf *answer,
			      struct cdc_err *err)
{
	for (;;) {
		uint8_t *to = cdc_buf_reserve(answer, 65536);
		ssize_t n;

		if (!to)
			return cdc_err_set(err, CDC_LIMIT, "the answer of %s is too long", listen);
		n = recv(fd, to, 65536, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cdc_err_set(err, CDC_IO, "the answer of %s does not end: %s", listen,
					   strerror(errno));
		if (n == 0)
			return CDC_OK;
		answer->len += (size_t)n;
	}
}

enum cdc_code cdc_page_get(const char *listen, const char *path, struct cdc_buf *out,
			   struct cdc_err *err)
{
	struct cdc_buf answer;
	const char *body;
	int fd = -1;
	enum cdc_code rc = open_page(listen, &fd, err);

	if (rc)
		return rc;
	cdc_buf_init(&answer, 64u << 20);
	rc = ask(fd, listen, path, err);
	if (!rc)
		rc = read_all(fd, listen, &answer, err);
	(void)close(fd);
	cdc_buf_putc(&answer, '\0');
	body = rc || answer.failed ? NULL : strstr((const char *)answer.data, "\r\n\r\n");
	if (!rc && (!body || strncmp((const char *)answer.data, "HTTP/1.", 7) != 0 ||
		    strncmp((const char *)answer.data + 8, " 200", 4) != 0))
		rc = cdc_err_set(err, CDC_IO, "what answers on %s is no walpost", listen);
	if (!rc)
		cdc_buf_puts(out, body + 4);
	cdc_buf_clear(&answer);
	if (!rc) {
		cdc_buf_putc(out, '\0');
		rc = out->failed ? cdc_err_set(err, CDC_NOMEM, "out of memory") : CDC_OK;
	}
	if (!rc)
		out->len--;
	return rc;
}
