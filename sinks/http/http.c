#include "sinks/http/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cdc/base/clock.h"
#include "cdc/base/crypto.h"
#include "cdc/base/stop.h"

#define CONNECT_MS 10000
#define KEEP_BODY  (4u << 20) /* a slot keeps a buffer of at most so much */
#define LINES_MAX  (64u << 10)
#define DNS_S      60  /* a name is asked for again */
#define LIFETIME_S 300 /* a connection is made anew, so that a name's new address is found */
#define EVENTS     64  /* of one look at the sockets */

/* Of a socket, beside what the epoll looks for: */
#define OWN  ((uint16_t)(1u << 15)) /* open_socket made it, so its end will be heard of */
#define IDLE ((uint16_t)(1u << 14)) /* no request has it now */
#define LOOK ((uint16_t) ~(OWN | IDLE))

struct slot {
	CURL *easy;
	struct cdc_buf body, lines;
	struct cdc_buf kept; /* the first bytes of the answer's body */
	size_t keep_max;     /* so many of them */
	size_t skip;         /* bytes of body that are not sent */
	const char *method;  /* NULL: POST */
	/* The lines, linked before those of all requests; libcurl only reads them. */
	struct curl_slist own[SINK_HTTP_LINES];
	struct curl_slist *headers; /* of all its requests; the slots share theirs */
	size_t got, head;           /* bytes of the answer's body and of its head */
	unsigned token;
	int lacks;        /* EMFILE, ENFILE: why there was no socket; 0: there was */
	char barred[160]; /* why the last address was not connected to; empty: it was */
	uint64_t begun_us;
	char error[CURL_ERROR_SIZE];
	bool is_busy, is_options, is_waiting, is_refused;
	bool was_begun, has_token; /* its request went; with a token */
	struct sink_http *http;
};

struct sink_http {
	struct sink_http_networks networks;
	CURLM *multi;
	CURLU *url; /* of the settings: libcurl takes it apart once, not for every request */
	struct slot *slots, side;
	size_t slot_n, next, waiting, refused;
	bool is_held;
	bool has_large;  /* a body of a request that has ended may be above KEEP_BODY */
	unsigned tokens; /* that were released */
	char *token;     /* of release; NULL: requests go without one */
	struct sink_http_answer refusal; /* of those that are refused */
	struct curl_slist *headers;      /* of all requests but the side one */
	size_t keep_max;
	int wake_fd;
	int epoll_fd;      /* over wake_fd and the sockets of libcurl */
	uint16_t *watched; /* by socket: what the epoll looks for, OWN and IDLE */
	size_t watched_n;
	uint64_t due_ms; /* then libcurl is to be called though no socket is ready */
};

static uint64_t mono_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* --- opening ------------------------------------------------------------------------ */

static void keep(struct slot *s, const char *bytes, size_t n)
{
	size_t most = s->keep_max;
	long status = 0;

	if (s->kept.len == 0) {
		(void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status >= 300)
			s->keep_max = most = SINK_HTTP_KEPT_BYTES;
	}
	if (s->kept.len < most)
		cdc_buf_put(&s->kept, bytes, n < most - s->kept.len ? n : most - s->kept.len);
}

static size_t discard(char *bytes, size_t size, size_t n, void *arg)
{
	struct slot *s = arg;

	s->got += size * n;
	keep(s, bytes, size * n);
	/* Less than was offered ends the transfer: a body without end is not worth a wait. */
	return s->got > SINK_HTTP_ANSWER_BYTES ? 0 : size * n;
}

/* The head of an answer has an end, too. */
static size_t count_head(char *bytes, size_t size, size_t n, void *arg)
{
	struct slot *s = arg;

	(void)bytes;
	s->head += size * n;
	return s->head > SINK_HTTP_ANSWER_BYTES ? 0 : size * n;
}

/* --- sockets ------------------------------------------------------------------------ */

static uint16_t *watched_place(struct sink_http *h, curl_socket_t fd)
{
	size_t n = h->watched_n ? h->watched_n : 64, at = (size_t)fd;
	uint16_t *grown;

	if (at < h->watched_n)
		return &h->watched[at];
	while (n <= at)
		n *= 2;
	grown = reallocarray(h->watched, n, sizeof(*grown));
	if (!grown)
		return NULL;
	memset(grown + h->watched_n, 0, (n - h->watched_n) * sizeof(*grown));
	h->watched = grown;
	h->watched_n = n;
	return &h->watched[at];
}

static bool set_watch(struct sink_http *h, curl_socket_t fd, int how, uint16_t wanted)
{
	struct epoll_event event = {.events = wanted, .data = {.fd = fd}};

	return epoll_ctl(h->epoll_fd, how, fd, &event) == 0;
}

static void watch(struct sink_http *h, curl_socket_t fd, uint16_t *watched, uint16_t wanted)
{
	uint16_t now = *watched & LOOK;
	bool ok = true;

	/* A descriptor that libcurl closed by itself has left the epoll, and may come again. */
	if (!wanted)
		(void)set_watch(h, fd, EPOLL_CTL_DEL, 0);
	else if (now != wanted)
		ok = (now && set_watch(h, fd, EPOLL_CTL_MOD, wanted)) ||
		     set_watch(h, fd, EPOLL_CTL_ADD, wanted);
	*watched = (*watched & OWN) | (ok ? wanted : 0);
}

/*
 * What libcurl wants to know of a socket.  Between two requests it wants nothing of a connection,
 * which stays in the epoll nevertheless: the next one finds it there.  A socket that cannot be
 * watched makes its request time out.
 */
static int want(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	struct sink_http *h = arg;
	uint16_t *watched = watched_place(h, fd);

	(void)easy;
	(void)unused;
	if (!watched)
		return 0;
	if (what == CURL_POLL_REMOVE && *watched & OWN)
		*watched |= IDLE;
	else
		watch(h, fd, watched,
		      (uint16_t)((what & CURL_POLL_IN ? EPOLLIN : 0) |
				 (what & CURL_POLL_OUT ? EPOLLOUT : 0)));
	return 0;
}

/* Called with the very address that is connected to next, so that a name which resolves to another
 * one each time gains nothing. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
	struct slot *s = arg;
	const char *what = sink_http_networks_refuse(&s->http->networks, &to->addr);
	char text[SINK_HTTP_ADDRESS_TEXT];

	(void)purpose;
	if (!what) {
		int fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
		uint16_t *watched = fd < 0 ? NULL : watched_place(s->http, fd);

		if (watched)
			*watched = OWN;
		s->lacks = fd < 0 && (errno == EMFILE || errno == ENFILE) ? errno : 0;
		s->barred[0] = '\0';
		return fd;
	}
	sink_http_address_text(&to->addr, text);
	(void)snprintf(s->barred, sizeof(s->barred),
		       "%s is %s, which allowed_networks does not open; nothing was sent", text,
		       what);
	errno = EACCES;
	return CURL_SOCKET_BAD;
}

static int close_socket(void *arg, curl_socket_t fd)
{
	struct sink_http *h = arg;

	if ((size_t)fd < h->watched_n)
		h->watched[fd] = 0;
	return close(fd);
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct sink_http *h = arg;

	(void)multi;
	h->due_ms = timeout_ms < 0 ? UINT64_MAX : cdc_clock_mono_ms() + (uint64_t)timeout_ms;
	return 0;
}

static bool open_sockets(struct sink_http *h)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = h->wake_fd}};

	h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (h->epoll_fd < 0 ||
	    (h->wake_fd >= 0 && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, h->wake_fd, &event)))
		return false;
	(void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, want);
	(void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	(void)curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	(void)curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	return true;
}

/* --- settings ----------------------------------------------------------------------- */

static bool is_pem(const char *text)
{
	return strstr(text, "-----BEGIN") != NULL;
}

/* PEM text, or the path of a file. */
static CURLcode set_pem(CURL *easy, CURLoption blob, CURLoption path, const char *value)
{
	if (!value || !*value)
		return CURLE_OK;
	if (is_pem(value)) {
		struct curl_blob b = {.len = strlen(value), .flags = CURL_BLOB_COPY};

		/* It is copied and not written to, but the type does not say so. */
		memcpy(&b.data, &value, sizeof(b.data));
		return curl_easy_setopt(easy, blob, &b);
	}
	return curl_easy_setopt(easy, path, value);
}

/* libcurl would notice only when it connects, and that is not the time to hear of it. */
static enum cdc_code check_pem(const char *key, const char *value, struct cdc_err *err)
{
	char line[4096];
	bool is_good = false;
	FILE *f;

	if (!value || !*value || is_pem(value))
		return CDC_OK;
	f = fopen(value, "re");
	if (!f)
		return cdc_err_set(err, CDC_CONFIG, "%s: \"%.300s\": %s", key, value,
				   strerror(errno));
	while (!is_good && fgets(line, sizeof(line), f))
		is_good = is_pem(line);
	(void)fclose(f);
	return is_good ? CDC_OK
		       : cdc_err_set(err, CDC_CONFIG, "%s: \"%.300s\" holds no PEM text", key,
				     value);
}

enum cdc_code sink_http_check_proxy(const char *proxy, struct cdc_err *err)
{
	static const char *const schemes[] = {"http", "https", "socks5", "socks5h"};
	CURLU *url = curl_url();
	char *scheme = NULL;
	bool is_known = false;
	CURLUcode bad = url ? curl_url_set(url, CURLUPART_URL, proxy, 0) : CURLUE_OUT_OF_MEMORY;

	if (!bad)
		bad = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
	for (size_t i = 0; !bad && i < sizeof(schemes) / sizeof(schemes[0]); i++)
		is_known |= strcasecmp(scheme, schemes[i]) == 0;
	curl_free(scheme);
	curl_url_cleanup(url);
	if (bad == CURLUE_OUT_OF_MEMORY)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	return is_known ? CDC_OK
			: cdc_err_set(err, CDC_CONFIG,
				      "proxy must begin with http://, https://, socks5:// or "
				      "socks5h:// and name a host");
}

/* The texts never show the url: it may hold a password. */
static enum cdc_code check(const struct sink_http_settings *s, struct cdc_err *err)
{
	CURLU *url = curl_url();
	CURLUcode bad = url ? curl_url_set(url, CURLUPART_URL, s->url, 0) : CURLUE_OUT_OF_MEMORY;
	enum cdc_code rc;

	curl_url_cleanup(url);
	if (bad)
		return cdc_err_set(err, bad == CURLUE_OUT_OF_MEMORY ? CDC_NOMEM : CDC_CONFIG,
				   "url: %s", curl_url_strerror(bad));
	if (s->client_key && *s->client_key && !(s->client_certificate && *s->client_certificate))
		return cdc_err_set(err, CDC_CONFIG, "client_key needs client_certificate");
	rc = s->proxy && *s->proxy ? sink_http_check_proxy(s->proxy, err) : CDC_OK;
	if (!rc)
		rc = check_pem("ca_cert", s->ca_cert, err);
	if (!rc)
		rc = check_pem("client_certificate", s->client_certificate, err);
	if (!rc)
		rc = check_pem("client_key", s->client_key, err);
	return rc;
}

static struct curl_slist *make_headers(const struct sink_http_settings *s)
{
	/* curl would ask for leave before a large body, and wait for it. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");

	for (size_t i = 0; list && i < s->header_n; i++) {
		struct curl_slist *grown = curl_slist_append(list, s->headers[i]);

		if (!grown)
			curl_slist_free_all(list);
		list = grown;
	}
	return list;
}

static CURLcode set_tls(CURL *easy, const struct sink_http_settings *s)
{
	CURLcode rc = curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);

	if (!rc)
		rc = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, s->is_unverified ? 0L : 1L);
	if (!rc)
		rc = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, s->is_unverified ? 0L : 2L);
	if (!rc)
		rc = set_pem(easy, CURLOPT_CAINFO_BLOB, CURLOPT_CAINFO, s->ca_cert);
	if (!rc)
		rc = set_pem(easy, CURLOPT_SSLCERT_BLOB, CURLOPT_SSLCERT, s->client_certificate);
	if (!rc)
		rc = set_pem(easy, CURLOPT_SSLKEY_BLOB, CURLOPT_SSLKEY, s->client_key);
	return rc;
}

/* Set, if to nothing: else libcurl would ask the environment. */
static CURLcode set_proxy(CURL *easy, const char *proxy)
{
	CURLcode rc = curl_easy_setopt(easy, CURLOPT_PROXY, proxy ? proxy : "");

	if (!rc)
		rc = curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	if (!rc)
		rc = curl_easy_setopt(easy, CURLOPT_PROXY_SSLVERSION,
				      (long)CURL_SSLVERSION_TLSv1_2);
	return rc;
}

static CURLcode set_up(struct slot *slot, const struct sink_http_settings *s)
{
	CURL *e = slot->easy;
	long connect_ms = s->timeout_ms < CONNECT_MS ? (long)s->timeout_ms : CONNECT_MS;
	CURLcode rc = curl_easy_setopt(e, CURLOPT_URL, s->url);

	(void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	/* Removing a handle does not wait for its name server. */
	(void)curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	(void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
	(void)curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, (long)DNS_S);
	(void)curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, (long)LIFETIME_S);
	(void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)s->timeout_ms);
	(void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, discard);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, slot);
	(void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, count_head);
	(void)curl_easy_setopt(e, CURLOPT_HEADERDATA, slot);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, slot);
	(void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	(void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, slot->http);
	(void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, slot->error);
	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, slot);
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, slot->headers);
	(void)curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "gzip");
	(void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	/* One connection carries all slots where HTTP/2 is spoken. */
	(void)curl_easy_setopt(e, CURLOPT_PIPEWAIT, strncasecmp(s->url, "https", 5) == 0 ? 1L : 0L);
	(void)curl_easy_setopt(e, CURLOPT_POST, 1L);
	if (!rc)
		rc = curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	if (!rc)
		rc = set_proxy(e, s->proxy);
	return rc ? rc : set_tls(e, s);
}

/* slot->headers is set. */
static CURLcode open_slot(struct sink_http *h, struct slot *slot,
			  const struct sink_http_settings *s)
{
	slot->http = h;
	cdc_buf_init(&slot->body, s->body_max);
	cdc_buf_init(&slot->lines, LINES_MAX);
	cdc_buf_init(&slot->kept, SINK_HTTP_ANSWER_BYTES);
	slot->easy = curl_easy_init();
	return slot->easy ? set_up(slot, s) : CURLE_OUT_OF_MEMORY;
}

static void close_slot(struct sink_http *h, struct slot *s)
{
	if (s->is_busy && !s->is_waiting && !s->is_refused)
		(void)curl_multi_remove_handle(h->multi, s->easy);
	curl_easy_cleanup(s->easy);
	cdc_buf_clear(&s->body);
	cdc_buf_clear(&s->lines);
	cdc_buf_clear(&s->kept);
}

static enum cdc_code cannot_open(CURLcode rc, struct cdc_err *err)
{
	return rc && rc != CURLE_OUT_OF_MEMORY
		       ? cdc_err_set(err, CDC_CONFIG, "%s", curl_easy_strerror(rc))
		       : cdc_err_set(err, CDC_NOMEM, "out of memory");
}

enum cdc_code sink_http_open(const struct sink_http_settings *s, struct sink_http **ret,
			     struct cdc_err *err)
{
	struct sink_http *h;
	CURLcode rc = CURLE_OK;
	enum cdc_code checked = check(s, err);

	if (checked)
		return checked;
	h = calloc(1, sizeof(*h));
	if (!h)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	h->wake_fd = s->wake_fd;
	h->epoll_fd = -1;
	h->due_ms = UINT64_MAX;
	h->networks = s->networks ? *s->networks : (struct sink_http_networks){.is_any = true};
	h->keep_max = s->keep_max < SINK_HTTP_ANSWER_BYTES ? s->keep_max : SINK_HTTP_ANSWER_BYTES;
	h->multi = curl_multi_init();
	h->url = curl_url();
	if (h->url && curl_url_set(h->url, CURLUPART_URL, s->url, 0))
		rc = CURLE_OUT_OF_MEMORY; /* it was checked */
	h->headers = make_headers(s);
	h->slots = calloc(s->slots, sizeof(*h->slots));
	for (size_t i = 0; h->multi && h->headers && h->slots && !rc && i < s->slots; i++) {
		struct slot *slot = &h->slots[i];

		h->slot_n = i + 1;
		slot->headers = h->headers;
		rc = open_slot(h, slot, s);
		if (!rc)
			rc = curl_easy_setopt(slot->easy, CURLOPT_CURLU, h->url);
	}
	if (!h->multi || !h->url || !h->headers || !h->slots || rc) {
		sink_http_close(h);
		return cannot_open(rc, err);
	}
	if (!open_sockets(h)) {
		sink_http_close(h);
		return cdc_err_set(err, CDC_IO, "no more file descriptors");
	}
	(void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)s->slots);
	*ret = h;
	return CDC_OK;
}

static void forget_token(struct sink_http *h)
{
	if (h->token)
		cdc_wipe(h->token, strlen(h->token));
	free(h->token);
	h->token = NULL;
}

void sink_http_close(struct sink_http *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->slot_n; i++)
		close_slot(h, &h->slots[i]);
	close_slot(h, &h->side);
	curl_slist_free_all(h->side.headers);
	forget_token(h);
	free(h->slots);
	curl_slist_free_all(h->headers);
	curl_url_cleanup(h->url);
	if (h->multi)
		(void)curl_multi_cleanup(h->multi);
	if (h->epoll_fd >= 0)
		(void)close(h->epoll_fd);
	free(h->watched);
	free(h);
}

/* --- requests ----------------------------------------------------------------------- */

bool sink_http_slot(struct sink_http *h, size_t *ret_slot)
{
	for (size_t i = 0; i < h->slot_n; i++) {
		size_t at = (h->next + i) % h->slot_n;

		if (!h->slots[at].is_busy) {
			h->next = at + 1;
			*ret_slot = at;
			return true;
		}
	}
	return false;
}

struct cdc_buf *sink_http_body(struct sink_http *h, size_t slot)
{
	cdc_buf_reset(&h->slots[slot].body, KEEP_BODY);
	return &h->slots[slot].body;
}

static enum cdc_code begin(struct sink_http *h, struct slot *s, struct cdc_err *err)
{
	CURLcode rc = CURLE_OK;

	if (h->token && s != &h->side) {
		rc = curl_easy_setopt(s->easy, CURLOPT_XOAUTH2_BEARER, h->token);
		if (!rc)
			rc = curl_easy_setopt(s->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
	}
	s->token = h->tokens;
	s->has_token = h->token != NULL;
	s->was_begun = true;
	s->got = s->head = 0;
	s->keep_max = s == &h->side ? SINK_HTTP_ANSWER_BYTES : h->keep_max;
	cdc_buf_reset(&s->kept, SINK_HTTP_KEPT_BYTES);
	s->barred[0] = s->error[0] = '\0';
	s->lacks = 0;
	s->begun_us = mono_us();
	if (rc || curl_multi_add_handle(h->multi, s->easy))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	s->is_busy = true;
	return CDC_OK;
}

/* At once, or when there is a token. */
static enum cdc_code start(struct sink_http *h, struct slot *s, struct cdc_err *err)
{
	if (!h->is_held)
		return begin(h, s, err);
	s->was_begun = false;
	s->is_busy = s->is_waiting = true;
	h->waiting++;
	return CDC_OK;
}

struct cdc_buf *sink_http_lines(struct sink_http *h, size_t slot)
{
	cdc_buf_reset(&h->slots[slot].lines, LINES_MAX);
	return &h->slots[slot].lines;
}

/* The slot's lines as a list that ends in that of all requests; NULL: too many. */
static struct curl_slist *link_lines(struct sink_http *h, struct slot *s)
{
	struct curl_slist *list = h->headers;
	char *at = (char *)s->lines.data, *end = at + s->lines.len;
	size_t n = 0;

	for (; at < end; at += strlen(at) + 1) {
		if (n == SINK_HTTP_LINES)
			return NULL;
		s->own[n++] = (struct curl_slist){.data = at};
	}
	while (n > 0) {
		s->own[--n].next = list;
		list = &s->own[n];
	}
	return list;
}

enum cdc_code sink_http_aim(struct sink_http *h, size_t slot, const char *url, const char *method,
			    struct cdc_err *err)
{
	struct slot *s = &h->slots[slot];
	CURLcode rc = url ? curl_easy_setopt(s->easy, CURLOPT_URL, url) : CURLE_OK;

	if (url)
		(void)curl_easy_setopt(s->easy, CURLOPT_CURLU, NULL);
	if (!rc && method != s->method)
		rc = curl_easy_setopt(s->easy, CURLOPT_CUSTOMREQUEST, method);
	if (rc)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	s->method = method;
	return CDC_OK;
}

enum cdc_code sink_http_post(struct sink_http *h, size_t slot, size_t skip, struct cdc_err *err)
{
	struct slot *s = &h->slots[slot];
	struct curl_slist *list = s->lines.failed ? NULL : link_lines(h, s);

	if (!list)
		return cdc_err_set(err, CDC_LIMIT, "the headers of a request are too many");
	if (s->is_options) {
		s->is_options = false;
		(void)curl_easy_setopt(s->easy, CURLOPT_CUSTOMREQUEST, s->method);
		(void)curl_easy_setopt(s->easy, CURLOPT_POST, 1L);
	}
	s->skip = skip;
	(void)curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, list);
	(void)curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, s->body.data + skip);
	(void)curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE,
			       (curl_off_t)(s->body.len - skip));
	return start(h, s, err);
}

enum cdc_code sink_http_options(struct sink_http *h, size_t slot, struct cdc_err *err)
{
	struct slot *s = &h->slots[slot];

	cdc_buf_reset(&s->body, KEEP_BODY);
	s->skip = 0;
	s->is_options = true;
	(void)curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, h->headers);
	(void)curl_easy_setopt(s->easy, CURLOPT_HTTPGET, 1L);
	(void)curl_easy_setopt(s->easy, CURLOPT_CUSTOMREQUEST, "OPTIONS");
	return start(h, s, err);
}

static void finish(struct sink_http *h, struct slot *s)
{
	if (s->is_waiting)
		h->waiting--;
	else if (s->is_refused)
		h->refused--;
	else
		(void)curl_multi_remove_handle(h->multi, s->easy);
	s->is_busy = s->is_waiting = s->is_refused = false;
	h->has_large |= s->body.cap > KEEP_BODY;
}

/* --- tokens ------------------------------------------------------------------------- */

enum cdc_code sink_http_side_open(struct sink_http *h, const struct sink_http_settings *s,
				  struct cdc_err *err)
{
	enum cdc_code checked = check(s, err);
	CURLcode rc;

	if (checked)
		return checked;
	h->side.headers = make_headers(s);
	rc = h->side.headers ? open_slot(h, &h->side, s) : CURLE_OUT_OF_MEMORY;
	(void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)h->slot_n + 1);
	return rc ? cannot_open(rc, err) : CDC_OK;
}

enum cdc_code sink_http_side_post(struct sink_http *h, const char *body, struct cdc_err *err)
{
	struct slot *s = &h->side;

	CDC_ASSERT(!s->is_busy);
	(void)curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
	if (curl_easy_setopt(s->easy, CURLOPT_COPYPOSTFIELDS, body))
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a request");
	return begin(h, s, err);
}

void sink_http_hold(struct sink_http *h)
{
	h->is_held = true;
}

enum cdc_code sink_http_release(struct sink_http *h, const char *token, struct cdc_err *err)
{
	char *copy = strdup(token);
	enum cdc_code rc = CDC_OK;

	if (!copy)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a token");
	forget_token(h);
	h->token = copy;
	h->tokens++;
	h->is_held = false;
	for (size_t i = 0; !rc && h->waiting && i < h->slot_n; i++) {
		struct slot *s = &h->slots[i];

		if (!s->is_waiting)
			continue;
		rc = begin(h, s, err);
		h->is_held = rc != CDC_OK;
		s->is_waiting = h->is_held;
		h->waiting -= !s->is_waiting;
	}
	return rc;
}

void sink_http_refuse(struct sink_http *h, const struct sink_http_answer *why)
{
	h->refusal = *why;
	h->is_held = true;
	for (size_t i = 0; h->waiting && i < h->slot_n; i++) {
		struct slot *s = &h->slots[i];

		if (!s->is_waiting)
			continue;
		s->is_waiting = false;
		s->is_refused = true;
		h->waiting--;
		h->refused++;
	}
}

enum cdc_code sink_http_again(struct sink_http *h, size_t slot, struct cdc_err *err)
{
	return start(h, &h->slots[slot], err);
}

/* The answers of those that are refused. */
static size_t collect_refused(struct sink_http *h, struct sink_http_answer *ret, size_t max)
{
	size_t n = 0;

	for (size_t i = 0; n < max && h->refused && i < h->slot_n; i++) {
		struct slot *s = &h->slots[i];

		if (!s->is_refused)
			continue;
		ret[n] = h->refusal;
		ret[n].slot = i;
		ret[n++].end = SINK_HTTP_BARRED;
		finish(h, s);
	}
	return n;
}

/* --- for people --------------------------------------------------------------------- */

void sink_http_sent(struct sink_http *h, size_t slot, struct sink_http_sent *ret)
{
	struct slot *s = &h->slots[slot];
	char *method = NULL, *url = NULL;

	(void)curl_easy_getinfo(s->easy, CURLINFO_EFFECTIVE_METHOD, &method);
	(void)curl_easy_getinfo(s->easy, CURLINFO_EFFECTIVE_URL, &url);
	*ret = (struct sink_http_sent){
		.method = method ? method : "",
		.url = url && s->was_begun ? url : "",
		.has_token = s->was_begun && s->has_token,
	};
}

void sink_http_each_line(const struct sink_http *h, size_t slot,
			 void (*take)(void *arg, const char *line, bool is_own), void *arg)
{
	const struct cdc_buf *own = &h->slots[slot].lines;

	for (size_t at = 0; at < own->len; at += strlen((const char *)own->data + at) + 1)
		take(arg, (const char *)own->data + at, true);
	for (const struct curl_slist *l = h->headers; l; l = l->next)
		take(arg, l->data, false);
}

/* --- answers ------------------------------------------------------------------------ */

void sink_http_drop(struct sink_http *h, size_t slot)
{
	if (h->slots[slot].is_busy)
		finish(h, &h->slots[slot]);
}

/* EMFILE, ENFILE: no file descriptor was left for the request.  libcurl tells of those that it
 * needs to look up a name, or to read a file, only that it could not. */
static int lacking(const struct slot *s, CURLcode rc)
{
	int fd, lacks = 0;

	if (rc == CURLE_COULDNT_CONNECT)
		return s->lacks;
	if (rc != CURLE_COULDNT_RESOLVE_HOST && rc != CURLE_COULDNT_RESOLVE_PROXY &&
	    rc != CURLE_SSL_CACERT_BADFILE)
		return 0;
	fd = cdc_event_new();
	if (fd < 0)
		lacks = errno == ENFILE ? ENFILE : EMFILE;
	else
		close(fd);
	return lacks;
}

static void tell_lacking(int lacks, char *text, size_t size)
{
	struct rlimit most = {0};

	(void)getrlimit(RLIMIT_NOFILE, &most);
	if (lacks == ENFILE)
		(void)snprintf(text, size,
			       "nothing was sent: this machine has no file descriptor left; raise "
			       "its limit, fs.file-max");
	else
		(void)snprintf(text, size,
			       "nothing was sent: walpost has no file descriptor left; raise its "
			       "limit of %llu, ulimit -n or LimitNOFILE of its service",
			       (unsigned long long)most.rlim_cur);
}

static enum sink_http_end end_of(const struct slot *s, CURLcode rc, long status, int lacks)
{
	/* The status line decides; a body that breaks off behind it changes nothing. */
	if (status >= 200)
		return SINK_HTTP_ANSWERED;
	if (lacks)
		return SINK_HTTP_LACKING;
	if (rc == CURLE_COULDNT_CONNECT && s->barred[0])
		return SINK_HTTP_BARRED;
	return rc == CURLE_OPERATION_TIMEDOUT ? SINK_HTTP_TIMEOUT : SINK_HTTP_BROKEN;
}

static void get_header(CURL *easy, const char *name, char *ret, size_t size)
{
	struct curl_header *header;

	if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK)
		(void)snprintf(ret, size, "%s", header->value);
}

static void fill_answer(const struct sink_http *h, const struct slot *s, CURLcode rc,
			struct sink_http_answer *a)
{
	int lacks = lacking(s, rc);
	long status = 0;

	(void)curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	memset(a, 0, sizeof(*a));
	a->slot = s == &h->side ? SINK_HTTP_SIDE : (size_t)(s - h->slots);
	a->end = end_of(s, rc, status, lacks);
	a->status = a->end == SINK_HTTP_ANSWERED ? (int)status : 0;
	a->took_us = mono_us() - s->begun_us;
	a->sent_bytes = s->body.len - s->skip;
	a->token = s->token;
	if (a->end == SINK_HTTP_BARRED) {
		(void)snprintf(a->reason, sizeof(a->reason), "%s", s->barred);
	} else if (a->end == SINK_HTTP_LACKING) {
		tell_lacking(lacks, a->reason, sizeof(a->reason));
	} else if (a->end != SINK_HTTP_ANSWERED) {
		long number = 0;

		/* libcurl says that it could not connect, the system says why. */
		(void)curl_easy_getinfo(s->easy, CURLINFO_OS_ERRNO, &number);
		(void)snprintf(a->reason, sizeof(a->reason), "%.110s%s%.40s",
			       s->error[0] ? s->error : curl_easy_strerror(rc),
			       rc == CURLE_COULDNT_CONNECT && number ? ": " : "",
			       rc == CURLE_COULDNT_CONNECT && number ? strerrordesc_np((int)number)
								     : "");
	} else if (a->status >= 300) {
		get_header(s->easy, "Retry-After", a->retry_after, sizeof(a->retry_after));
		if (a->retry_after[0])
			get_header(s->easy, "Date", a->date, sizeof(a->date));
		if (a->status < 400)
			get_header(s->easy, "Location", a->location, sizeof(a->location));
	}
	a->is_whole = rc == CURLE_OK;
	a->body = (const char *)s->kept.data;
	a->body_len = s->kept.len;
}

void sink_http_cover(struct sink_http *h, const struct sink_http_answer *a, size_t at, size_t n)
{
	struct cdc_buf *kept = &h->slots[a->slot].kept;

	if (a->body && a->body == (const char *)kept->data && at <= kept->len &&
	    n <= kept->len - at)
		memset(kept->data + at, '*', n);
}

static size_t collect(struct sink_http *h, struct sink_http_answer *ret, size_t max)
{
	size_t n = h->refused ? collect_refused(h, ret, max) : 0;
	int left;

	while (n < max) {
		const CURLMsg *m = curl_multi_info_read(h->multi, &left);
		struct slot *s = NULL;
		CURLcode rc;

		if (!m)
			break;
		if (m->msg != CURLMSG_DONE)
			continue;
		rc = m->data.result;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
		fill_answer(h, s, rc, &ret[n++]);
		finish(h, s);
	}
	return n;
}

/* Of requests that the caller had the answers of, and did not send once more. */
static void release_bodies(struct sink_http *h)
{
	for (size_t i = 0; h->has_large && i < h->slot_n; i++) {
		if (!h->slots[i].is_busy)
			cdc_buf_reset(&h->slots[i].body, KEEP_BODY);
	}
	h->has_large = false;
}

/* Lets libcurl move what can be moved; waits for that until end_ms.  Returns whether wake_fd is
 * readable. */
static bool turn(struct sink_http *h, uint64_t end_ms)
{
	struct epoll_event events[EVENTS];
	uint64_t now_ms = cdc_clock_mono_ms(), until_ms = h->due_ms < end_ms ? h->due_ms : end_ms;
	uint64_t wait_ms = until_ms > now_ms ? until_ms - now_ms : 0;
	int n, running;
	bool is_woken = false;

	n = epoll_wait(h->epoll_fd, events, EVENTS, (int)(wait_ms < INT_MAX ? wait_ms : INT_MAX));
	for (int i = 0; i < n; i++) {
		int fd = events[i].data.fd, how = 0;

		if (fd == h->wake_fd) {
			is_woken = true;
			continue;
		}
		if (h->watched[fd] & IDLE) {
			watch(h, fd, &h->watched[fd], 0);
			continue;
		}
		how |= events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0;
		how |= events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0;
		how |= events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0;
		(void)curl_multi_socket_action(h->multi, fd, how, &running);
	}
	return is_woken;
}

/* What is due by time, requests that were added since the last turn among it. */
static void run_due(struct sink_http *h)
{
	int running;

	if (cdc_clock_mono_ms() < h->due_ms)
		return;
	h->due_ms = UINT64_MAX;
	(void)curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

size_t sink_http_poll(struct sink_http *h, uint64_t wait_ms, struct sink_http_answer *ret,
		      size_t max)
{
	uint64_t end_ms = cdc_clock_mono_ms() + wait_ms;
	bool is_over = false;
	size_t n;

	release_bodies(h);
	run_due(h);
	for (;;) {
		n = collect(h, ret, max);
		if (n || is_over)
			return n;
		is_over = turn(h, end_ms);
		run_due(h);
		is_over |= cdc_clock_mono_ms() >= end_ms;
	}
}
