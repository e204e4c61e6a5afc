/*
 * http.h - requests with a body side by side, over connections that are kept.
 *
 * A fixed number of slots, each with one request at a time.  A request's body and
 * the header lines that it alone has are written into its slot's buffers, which are
 * kept from request to request.  Answers may come compressed (gzip).  Over TLS,
 * HTTP/2 is used where the server offers it.  A redirect is an answer like any
 * other, and a proxy is never taken from the environment.  Of an answer at most
 * 64 KiB of head and 64 KiB of body are read, and the first 4 KiB of the body kept
 * where somebody may want them.
 *
 * A connection lives for five minutes and a name's addresses for one.  Where a name
 * has several addresses, IPv6 and IPv4 are tried side by side.  A request whose kept
 * connection turns out to be dead, before any byte of an answer, is sent once more
 * over a new one.
 *
 * Requests may need a token that is had from elsewhere, by a request of its own: the
 * side request.  Until it is there they can be held, so that nobody waits for it in
 * a call.
 *
 * The only home of libcurl.
 *
 * Threads: a sink_http belongs to its caller.
 * Layer: sinks (base).
 */
#ifndef SINK_HTTP_HTTP_H
#define SINK_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "sinks/http/network.h"

#define SINK_HTTP_ANSWER_BYTES (64 << 10)
#define SINK_HTTP_KEPT_BYTES   4096
#define SINK_HTTP_SIDE         SIZE_MAX /* in place of a slot: the side request */
#define SINK_HTTP_LINES        80       /* most header lines of one request alone */

struct sink_http_settings {
	const char *url;            /* http:// or https:// */
	const char *const *headers; /* "Name: value" */
	size_t header_n;
	uint64_t timeout_ms; /* of a whole request; for connecting at most 10 s of it */
	const char *ca_cert, *client_certificate, *client_key; /* PEM text or a path; NULL: none */
	bool is_unverified; /* the server's certificate may be anybody's */
	/* Where connections may go; with a proxy it is the proxy's address that counts.  NULL:
	 * anywhere. */
	const struct sink_http_networks *networks;
	const char *proxy; /* http://, https://, socks5:// or socks5h://, or NULL; may hold a
			      password */
	size_t slots;
	size_t body_max; /* bytes of a request's body */
	size_t keep_max; /* bytes of a 2xx answer's body that are kept; of others
			    SINK_HTTP_KEPT_BYTES */
	int wake_fd;     /* poll also returns when this is readable; -1: none */
};

enum sink_http_end {
	SINK_HTTP_ANSWERED, /* a status line came, whatever happened after it */
	SINK_HTTP_TIMEOUT,
	SINK_HTTP_BROKEN,  /* no connection, or one that ended before the status line */
	SINK_HTTP_BARRED,  /* not sent: no address of the host may be reached, or there is no token
			    */
	SINK_HTTP_LACKING, /* not sent: this process, or its machine, has no file descriptor left */
};

struct sink_http_answer {
	size_t slot;
	enum sink_http_end end;
	int status;           /* ANSWERED */
	char retry_after[64]; /* the header's value; empty: none */
	char date[64];        /* the Date header beside a Retry-After; empty: none */
	char location[160];   /* where a 3xx points; empty: it does not say */
	char reason[160];     /* for a person, when not ANSWERED */
	bool is_whole;        /* the answer came to its end */
	const char *body;     /* its first bytes, valid until the slot's next request; or NULL */
	size_t body_len;
	uint64_t took_us, sent_bytes;
	unsigned token; /* how many tokens there had been when it was sent, its own included */
};

struct sink_http;

/* CDC_CONFIG: it is no proxy's url; the text does not show it. */
enum cdc_code sink_http_check_proxy(const char *proxy, struct cdc_err *err) CDC_CHECK;

/* CDC_CONFIG: url, proxy, certificate or key cannot be used; the text names which. */
enum cdc_code sink_http_open(const struct sink_http_settings *s, struct sink_http **ret,
			     struct cdc_err *err) CDC_CHECK;
void sink_http_close(struct sink_http *h); /* drops what is in flight; NULL is fine */

/* A slot without a request; false: all have one. */
bool sink_http_slot(struct sink_http *h, size_t *ret_slot);
/* Its body, empty, to be written before post. */
struct cdc_buf *sink_http_body(struct sink_http *h, size_t slot);
/* Its own header lines, empty, to be written before post: each "Name: value" and a NUL.  They go
 * before those of the settings. */
struct cdc_buf *sink_http_lines(struct sink_http *h, size_t slot);
/*
 * Before post, of this request and the later ones of the slot: where it goes, NULL: as before, and
 * by which method, NULL: POST; the text of the method outlives the slot.  Only the path and the
 * query of a url may differ from the settings'.  CDC_NOMEM.
 */
enum cdc_code sink_http_aim(struct sink_http *h, size_t slot, const char *url, const char *method,
			    struct cdc_err *err) CDC_CHECK;
/* Sends what was written but for the first skip bytes of the body.  CDC_LIMIT: more than
 * SINK_HTTP_LINES lines, or than 64 KiB of them. */
enum cdc_code sink_http_post(struct sink_http *h, size_t slot, size_t skip,
			     struct cdc_err *err) CDC_CHECK;
/* Sends an OPTIONS request without a body, to the settings' url if aim was never called: it changes
 * nothing at the server.  The slot is as before when it ended. */
enum cdc_code sink_http_options(struct sink_http *h, size_t slot, struct cdc_err *err) CDC_CHECK;

/*
 * Where the side request goes: a POST to url with these headers, by the rules for
 * connections of s; slots and wake_fd of s do not count.  Its answer comes from poll
 * with the slot SINK_HTTP_SIDE.  As open.
 */
enum cdc_code sink_http_side_open(struct sink_http *h, const struct sink_http_settings *s,
				  struct cdc_err *err) CDC_CHECK;
/* Sends these bytes, which are copied.  Not while its last one is under way. */
enum cdc_code sink_http_side_post(struct sink_http *h, const char *body,
				  struct cdc_err *err) CDC_CHECK;

/* From now on requests wait, until release or refuse. */
void sink_http_hold(struct sink_http *h);
/* Those that wait are sent, and later ones go at once, as `Authorization: Bearer TOKEN`. CDC_NOMEM:
 * they still wait. */
enum cdc_code sink_http_release(struct sink_http *h, const char *token,
				struct cdc_err *err) CDC_CHECK;
/* Those that wait end as BARRED, with the reason and the retry_after of why; later ones wait. */
void sink_http_refuse(struct sink_http *h, const struct sink_http_answer *why);
/* The request of a slot whose answer the last poll gave, once more; or it waits. */
enum cdc_code sink_http_again(struct sink_http *h, size_t slot, struct cdc_err *err) CDC_CHECK;

/* What the slot's request was, as it went: all of it holds secrets.  Between the poll that gave its
 * answer and the slot's next lines or poll. */
struct sink_http_sent {
	const char *method;
	const char *url; /* empty: nothing was sent, because there was no token */
	bool has_token;  /* it had one, in a header that is no line */
};
void sink_http_sent(struct sink_http *h, size_t slot, struct sink_http_sent *ret);
/* Its header lines, "Name: value", as libcurl was given them; is_own: by sink_http_lines. */
void sink_http_each_line(const struct sink_http *h, size_t slot,
			 void (*take)(void *arg, const char *line, bool is_own), void *arg);

/* Ends the slot's request, which gets no answer; nothing happens when it has none. */
void sink_http_drop(struct sink_http *h, size_t slot);

/* Moves bytes for at most wait_ms, or until something ended or wake_fd is readable. */
size_t sink_http_poll(struct sink_http *h, uint64_t wait_ms, struct sink_http_answer *ret,
		      size_t max);
/* Overwrites bytes of the body of an answer, at to at + n, that nobody is to see. */
void sink_http_cover(struct sink_http *h, const struct sink_http_answer *a, size_t at, size_t n);

#endif
