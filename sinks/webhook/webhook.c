#include "sinks/webhook/webhook.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/base/compress.h"
#include "sinks/http/http.h"
#include "sinks/http/outcome.h"
#include "sinks/webhook/attempt.h"
#include "sinks/webhook/auth.h"
#include "sinks/webhook/body.h"
#include "sinks/webhook/partial.h"
#include "sinks/webhook/sign.h"
#include "sinks/webhook/target.h"
#include "sinks/webhook/token.h"

#define BODY_MAX  (256u << 20) /* the largest record and its envelope fit well */
#define STAMP_LEN 20           /* "2026-01-02T03:04:05Z" */
#define ANSWERS   64
#define PROBE_MS  10000
#define KEEP_BODY (4u << 20) /* of the buffer that is compressed from */

/* A whole second of the wall clock as the headers that say it. */
struct stamp {
	int64_t s;
	char seconds[24]; /* since 1970 */
	char lines[96];   /* each with its NUL */
	size_t lines_len;
};

struct sink_webhook_state {
	struct sink_http *http;
	struct sink_webhook_body body;
	struct sink_webhook_target *target; /* NULL: all goes to one place */
	bool has_path;                      /* of which http has a part only */
	struct sink_webhook_sign *sign;
	struct cdc_encoder *encoder; /* NULL: bodies are not compressed, */
	struct cdc_buf plain;        /* else what they are before */
	const void *payload;         /* of the request that was written last, so long as no other */
	size_t payload_len;
	const char *encoding; /* the header line that says so, with its NUL */
	size_t encoding_len;
	struct sink_webhook_token *token; /* NULL: the method of auth needs none */
	bool must_release;                /* the last one is not in use yet */
	bool *has_new_token; /* by slot: its token was refused, and it was sent with a new one */
	uint64_t *tickets;   /* by slot */
	struct sink_webhook_attempts *attempts;
	bool has_attempts;                     /* somebody wants to see them */
	struct sink_webhook_partial *partials; /* by slot; NULL: the status line says it all */
	size_t slot_n;
	size_t busy; /* jobs in flight */
	struct stamp stamp;
};

static void close_state(void *state)
{
	struct sink_webhook_state *s = state;

	if (!s)
		return;
	sink_http_close(s->http);
	sink_webhook_body_clear(&s->body);
	sink_webhook_target_free(s->target);
	sink_webhook_sign_free(s->sign);
	sink_webhook_token_free(s->token);
	sink_webhook_attempts_free(s->attempts);
	free(s->has_new_token);
	cdc_encoder_free(s->encoder);
	cdc_buf_clear(&s->plain);
	for (size_t i = 0; s->partials && i < s->slot_n; i++)
		sink_webhook_partial_clear(&s->partials[i]);
	free(s->partials);
	free(s->tickets);
	free(s);
}

/* Written once per second. */
static const struct stamp *stamp(struct sink_webhook_state *s)
{
	struct stamp *t = &s->stamp;
	int64_t now_s = cdc_clock_wall_us() / 1000000;
	char time[CDC_TIME_TEXT];
	int n;

	if (now_s == t->s && t->lines_len)
		return t;
	t->s = now_s;
	(void)cdc_time_format(now_s * 1000000, time);
	(void)memcpy(time + STAMP_LEN - 1, "Z", 2);
	(void)snprintf(t->seconds, sizeof(t->seconds), "%" PRId64, now_s);
	n = snprintf(t->lines, sizeof(t->lines),
		     "webhook-timestamp: %s%cPolytomic-Signature-Timestamp: %s", t->seconds, '\0',
		     time);
	CDC_ASSERT(n > 0 && (size_t)n < sizeof(t->lines));
	t->lines_len = (size_t)n + 1;
	return t;
}

/* --- tokens ------------------------------------------------------------------------- */

/* The side request, by the rules for connections of all others. */
static enum cdc_code open_token(struct sink_webhook_state *s,
				const struct sink_webhook_connection *c,
				struct sink_http_settings http, struct cdc_err *err)
{
	enum cdc_code rc;

	if (c->auth_method != SINK_WEBHOOK_AUTH_OAUTH)
		return CDC_OK;
	rc = sink_webhook_token_new(c, &s->token, err);
	if (rc)
		return rc;
	http.url = c->oauth.token_endpoint;
	http.headers = sink_webhook_token_headers(s->token, &http.header_n);
	rc = sink_http_side_open(s->http, &http, err);
	if (rc)
		return cdc_err_wrap(err, "oauth.token_endpoint");
	sink_http_hold(s->http);
	return CDC_OK;
}

/* What waits for a token ends: it is not the fault of what would be sent. */
static void no_token(struct sink_webhook_state *s, const char *reason)
{
	struct sink_http_answer why = {.end = SINK_HTTP_BARRED};

	(void)snprintf(why.reason, sizeof(why.reason), "no token: %.140s", reason);
	sink_http_refuse(s->http, &why);
}

/* Before a request: it waits while there is no token. */
static void hold(struct sink_webhook_state *s)
{
	if (s->token && !sink_webhook_token_value(s->token, cdc_clock_mono_ms()))
		sink_http_hold(s->http);
}

static void release(struct sink_webhook_state *s)
{
	struct cdc_err err = {.code = CDC_OK};

	sink_webhook_attempts_token(s->attempts, sink_webhook_token_last(s->token));
	s->must_release =
		sink_http_release(s->http, sink_webhook_token_last(s->token), &err) != CDC_OK;
	if (s->must_release)
		no_token(s, err.msg);
}

/* After it: a token is asked for when it is time. */
static void ask(struct sink_webhook_state *s)
{
	struct cdc_err err = {.code = CDC_OK};

	if (s->must_release && sink_webhook_token_value(s->token, cdc_clock_mono_ms()))
		release(s);
	if (!s->token || !sink_webhook_token_is_due(s->token, cdc_clock_mono_ms()))
		return;
	if (sink_http_side_post(s->http, sink_webhook_token_body(s->token), &err))
		no_token(s, err.msg);
	else
		sink_webhook_token_asked(s->token);
}

static void take_token(struct sink_webhook_state *s, const struct sink_http_answer *a)
{
	uint64_t now_ms = cdc_clock_mono_ms();
	struct sink_http_answer why;

	if (!sink_webhook_token_take(s->token, a, &why, now_ms)) {
		/* While the last one is good, nothing waits. */
		if (!sink_webhook_token_value(s->token, now_ms))
			sink_http_refuse(s->http, &why);
	} else {
		release(s);
	}
}

/* A token can be refused before its time: the request goes once more, with a new one. */
static bool goes_again(struct sink_webhook_state *s, const struct sink_http_answer *a)
{
	if (!s->token || a->end != SINK_HTTP_ANSWERED || a->status != 401 ||
	    s->has_new_token[a->slot])
		return false;
	s->has_new_token[a->slot] = true;
	sink_webhook_token_refused(s->token, a->token);
	hold(s);
	if (sink_http_again(s->http, a->slot, NULL))
		return false;
	ask(s);
	return true;
}

/* Answers that are the caller's, in place. */
static size_t poll_answers(struct sink_webhook_state *s, uint64_t wait_ms,
			   struct sink_http_answer *ret, size_t max)
{
	size_t n = sink_http_poll(s->http, wait_ms, ret, max), kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (ret[i].slot == SINK_HTTP_SIDE)
			take_token(s, &ret[i]);
		else if (!goes_again(s, &ret[i]))
			ret[kept++] = ret[i];
	}
	return kept;
}

/* --- jobs --------------------------------------------------------------------------- */

static enum cdc_code open_http(struct sink_webhook_state *s, const struct sink_settings *settings,
			       struct cdc_err *err)
{
	const struct sink_webhook_connection *c = settings->connection;
	const struct sink_webhook_sync *sync = settings->sync;
	struct sink_webhook_auth_parts auth;
	struct sink_http_networks networks;
	struct sink_http_settings http = {
		.timeout_ms = sync->timeout_ms,
		.ca_cert = c->ca_cert,
		.client_certificate = c->client_certificate,
		.client_key = c->client_key,
		.is_unverified = !c->tls_verify,
		.networks = &networks,
		.proxy = c->proxy,
		.slots = settings->concurrency,
		.body_max = BODY_MAX,
		.keep_max = sync->partial_success    ? SINK_HTTP_ANSWER_BYTES
			    : settings->has_attempts ? SINK_ATTEMPT_BYTES
						     : 0,
		.wake_fd = settings->wake_fd,
	};
	enum cdc_code rc = sink_webhook_auth_networks(c, &networks, err);

	if (!rc)
		rc = sink_webhook_auth_make(c, &auth, err);
	if (rc)
		return rc;
	http.url = auth.base;
	http.headers = (const char *const *)auth.headers;
	http.header_n = auth.header_n;
	s->has_path = auth.has_path;
	rc = sink_webhook_target_new(c, &auth, &s->target, err);
	if (!rc)
		rc = sink_http_open(&http, &s->http, err);
	if (!rc)
		rc = open_token(s, c, http, err);
	sink_webhook_auth_clear(&auth);
	return rc;
}

static enum cdc_code open_encoder(struct sink_webhook_state *s, enum cdc_encoding encoding,
				  struct cdc_err *err)
{
	static const char gzip[] = "Content-Encoding: gzip", zstd[] = "Content-Encoding: zstd";

	cdc_buf_init(&s->plain, BODY_MAX);
	switch (encoding) {
	case CDC_ENCODING_NONE:
		return CDC_OK;
	case CDC_ENCODING_GZIP:
		s->encoding = gzip;
		s->encoding_len = sizeof(gzip);
		break;
	case CDC_ENCODING_ZSTD:
		s->encoding = zstd;
		s->encoding_len = sizeof(zstd);
		break;
	}
	s->encoder = cdc_encoder_new(encoding);
	return s->encoder ? CDC_OK : cdc_err_set(err, CDC_NOMEM, "out of memory");
}

static enum cdc_code open_state(const struct sink_settings *settings, void **ret_state,
				struct cdc_err *err)
{
	const struct sink_webhook_connection *connection = settings->connection;
	const struct sink_webhook_sync *sync = settings->sync;
	const struct sink_webhook_body_settings body = {
		.sync = sync,
		.sync_id = settings->sync_id,
		.sync_name = settings->sync_name,
		.database = settings->database,
	};
	struct sink_webhook_state *s = calloc(1, sizeof(*s));
	enum cdc_code rc;

	if (!s)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	s->slot_n = settings->concurrency;
	s->tickets = calloc(s->slot_n, sizeof(*s->tickets));
	s->has_new_token = calloc(s->slot_n, sizeof(*s->has_new_token));
	if (sync->partial_success)
		s->partials = calloc(s->slot_n, sizeof(*s->partials));
	rc = s->tickets && s->has_new_token && (s->partials || !sync->partial_success)
		     ? sink_webhook_body_init(&s->body, &body, err)
		     : cdc_err_set(err, CDC_NOMEM, "out of memory");
	if (!rc)
		rc = open_encoder(s, (enum cdc_encoding)sync->compression, err);
	if (!rc)
		rc = sink_webhook_sign_new(&connection->signing_secrets, &s->sign, err);
	s->has_attempts = settings->has_attempts;
	if (!rc)
		rc = sink_webhook_attempts_new(connection, s->has_attempts ? s->slot_n : 0,
					       &s->attempts, err);
	if (!rc)
		rc = open_http(s, settings, err);
	if (rc) {
		close_state(s);
		return rc;
	}
	*ret_state = s;
	return CDC_OK;
}

/* What a request says about itself but for its signatures. */
static enum cdc_code write_lines(struct sink_webhook_state *s, const struct sink_job *job,
				 const char *id, struct cdc_buf *lines, struct cdc_err *err)
{
	const struct stamp *t = stamp(s);

	cdc_buf_puts(lines, "webhook-id: ");
	cdc_buf_put(lines, id, SINK_WEBHOOK_ID_BYTES);
	cdc_buf_putc(lines, '\0');
	cdc_buf_put(lines, t->lines, t->lines_len);
	if (job->is_replay)
		cdc_buf_put(lines, "webhook-replay: true", sizeof("webhook-replay: true"));
	cdc_buf_put(lines, s->encoding, s->encoding_len);
	return sink_webhook_body_lines(&s->body, job, lines, err);
}

/*
 * Writes the body and the lines that belong to it; *ret_skip bytes of the body are not sent.  What
 * is signed is ID.TIMESTAMP.PAYLOAD, so the payload is written behind the rest of it.  The payload
 * is what the receiver has when it has undone Content-Encoding: the standard speaks of text, its
 * libraries take nothing else, and many a server undoes the encoding before anybody can look.
 */
static enum cdc_code write_request(struct sink_webhook_state *s, const struct sink_job *job,
				   struct cdc_buf *lines, struct cdc_buf *body, size_t *ret_skip,
				   struct cdc_err *err)
{
	struct cdc_buf *plain = s->encoder ? &s->plain : body;
	bool is_signed = sink_webhook_sign_is_on(s->sign);
	char id[SINK_WEBHOOK_ID_BYTES];
	enum cdc_code rc = sink_webhook_sign_id(s->sign, job->views, job->n, id, err);
	size_t from;

	if (!rc)
		rc = write_lines(s, job, id, lines, err);
	if (rc)
		return rc;
	cdc_buf_reset(plain, KEEP_BODY);
	if (is_signed) {
		cdc_buf_put(plain, id, sizeof(id));
		cdc_buf_putc(plain, '.');
		cdc_buf_puts(plain, s->stamp.seconds);
		cdc_buf_putc(plain, '.');
	}
	from = plain->len;
	rc = sink_webhook_body_write(&s->body, job, plain, err);
	if (!rc && is_signed)
		rc = sink_webhook_sign_put(s->sign, plain->data, plain->len, lines, err);
	if (!rc && s->encoder)
		rc = cdc_encode(s->encoder, plain->data + from, plain->len - from, body, err);
	*ret_skip = s->encoder ? 0 : from;
	s->payload = rc ? NULL : plain->data + from;
	s->payload_len = plain->len - from;
	return rc;
}

static size_t together(void *state, const struct cdc_view *views, size_t n)
{
	struct sink_webhook_state *s = state;

	return s->target ? sink_webhook_target_together(s->target, views, n) : n;
}

/* Where the slot's request goes: where its first record does, as all of them. */
static enum cdc_code aim(struct sink_webhook_state *s, size_t slot, const struct sink_job *job,
			 struct cdc_buf *lines, struct cdc_err *err)
{
	const char *url, *method;
	enum cdc_code rc =
		sink_webhook_target_put(s->target, job->views[0], &url, &method, lines, err);

	return rc ? rc : sink_http_aim(s->http, slot, url, method, err);
}

static enum cdc_code submit(void *state, const struct sink_job *job, struct cdc_err *err)
{
	struct sink_webhook_state *s = state;
	struct cdc_buf *lines;
	enum cdc_code rc;
	size_t slot, skip;

	if (!sink_http_slot(s->http, &slot))
		return cdc_err_set(err, CDC_BUSY, "every request slot is in use");
	lines = sink_http_lines(s->http, slot);
	rc = write_request(s, job, lines, sink_http_body(s->http, slot), &skip, err);
	if (!rc && s->target)
		rc = aim(s, slot, job, lines, err);
	if (!rc && s->has_attempts)
		sink_webhook_attempts_sent(s->attempts, slot, job->n, s->payload, s->payload_len);
	if (!rc && s->partials)
		rc = sink_webhook_partial_note(&s->partials[slot], job, err);
	hold(s);
	if (!rc)
		rc = sink_http_post(s->http, slot, skip, err);
	if (rc)
		return rc;
	s->tickets[slot] = job->ticket;
	s->has_new_token[slot] = false;
	s->busy++;
	ask(s);
	return CDC_OK;
}

/* An endpoint that echoes a request echoes its secrets. */
static void cover(struct sink_webhook_state *s, const struct sink_http_answer *a,
		  struct sink_result *r)
{
	sink_webhook_attempts_cover(s->attempts, r->text);
	sink_webhook_attempts_cover_answer(s->attempts, s->http, a);
	for (size_t i = 0; i < r->failed_n; i++)
		sink_webhook_attempts_cover(s->attempts, s->partials[a->slot].failed[i].reason);
}

static size_t poll_results(void *state, uint64_t wait_ms, struct sink_result *ret_results,
			   size_t max)
{
	struct sink_webhook_state *s = state;
	struct sink_http_answer answers[ANSWERS];
	size_t n = poll_answers(s, wait_ms, answers, max < ANSWERS ? max : ANSWERS);
	int64_t now_us = n ? cdc_clock_wall_us() : 0;

	for (size_t i = 0; i < n; i++) {
		sink_http_outcome(&answers[i], now_us, &ret_results[i]);
		ret_results[i].ticket = s->tickets[answers[i].slot];
		if (s->partials && ret_results[i].outcome == SINK_DONE)
			sink_webhook_partial_read(&s->partials[answers[i].slot], &answers[i],
						  &ret_results[i]);
		if (s->has_attempts)
			ret_results[i].attempt =
				sink_webhook_attempts_take(s->attempts, s->http, &answers[i]);
		if (ret_results[i].outcome != SINK_DONE || ret_results[i].failed_n)
			cover(s, &answers[i], &ret_results[i]);
	}
	s->busy -= n;
	return n;
}

/*
 * An OPTIONS request is not a POST: that it is not known to the endpoint (405, 501), or not right
 * (400, 415, ...), says nothing.  These answers would most likely be those to a POST as well.
 */
static enum cdc_code judge_status(int status, bool is_whole_path, struct cdc_err *err)
{
	const char *what = NULL, *remedy = NULL;

	if (!is_whole_path && (status == 404 || status == 410))
		return CDC_OK; /* nobody said that there is something */
	if (status >= 300 && status < 400) {
		what = "it redirects, and a redirect is not followed";
		remedy = "set url to where it redirects";
	} else if (status == 401 || status == 407) {
		what = "it does not know who asks";
		remedy = "look at auth_method and its keys";
	} else if (status == 403) {
		what = "it forbids this to who asks";
		remedy = "look at auth_method and its keys, and at the endpoint's own rules";
	} else if (status == 404 || status == 410) {
		what = "it has nothing at this path";
		remedy = "look at the path of url";
	} else if (status >= 500 && status != 501) {
		what = "it fails, or what is behind it does";
		remedy = "look at the endpoint's own log";
	}
	if (!what)
		return CDC_OK;
	(void)cdc_err_set(err, CDC_REJECTED,
			  "answers with status %d to an OPTIONS request: %s; records may fare no "
			  "better",
			  status, what);
	return cdc_err_remedy(err, "%s", remedy);
}

static enum cdc_code probe(void *state, char *ret_text, size_t text_size, struct cdc_err *err)
{
	struct sink_webhook_state *s = state;
	struct sink_http_answer answer;
	uint64_t end_ms = cdc_clock_mono_ms() + PROBE_MS;
	enum cdc_code rc;
	size_t slot;

	/* An answer of theirs would be taken for the probe's. */
	if (s->busy || !sink_http_slot(s->http, &slot))
		return cdc_err_set(err, CDC_BUSY, "requests are in flight");
	hold(s);
	rc = sink_http_options(s->http, slot, err);
	if (rc)
		return rc;
	s->has_new_token[slot] = false;
	ask(s);
	while (!poll_answers(s, 100, &answer, 1)) {
		if (cdc_clock_mono_ms() >= end_ms) {
			sink_http_drop(s->http, slot);
			return cdc_err_set(err, CDC_TIMEOUT, "no answer within %d s",
					   PROBE_MS / 1000);
		}
	}
	if (answer.end != SINK_HTTP_ANSWERED)
		return cdc_err_set(err, answer.end == SINK_HTTP_TIMEOUT ? CDC_TIMEOUT : CDC_IO,
				   "%s", answer.reason);
	rc = judge_status(answer.status, !s->has_path, err);
	if (rc)
		return rc;
	(void)snprintf(ret_text, text_size, "answers (status %d to an OPTIONS request%s)",
		       answer.status,
		       s->has_path ? " for the path before its first placeholder" : "");
	return CDC_OK;
}

static const char *caution(const void *connection)
{
	const struct sink_webhook_connection *c = connection;

	return c->tls_verify
		       ? NULL
		       : "the certificate of the endpoint is not verified (tls_verify: false): "
			 "anybody in between can read and change what is sent";
}

/* What no option says by itself: of auth and of secrets. */
static enum cdc_code check_connection(const void *connection, const char **ret_key,
				      struct cdc_err *err)
{
	const struct sink_webhook_connection *c = connection;
	enum cdc_code rc = sink_webhook_auth_check(connection, ret_key, err);
	struct sink_webhook_sign *sign;

	if (rc)
		return rc;
	*ret_key = "signing_secrets";
	rc = sink_webhook_sign_new(&c->signing_secrets, &sign, err);
	if (!rc)
		sink_webhook_sign_free(sign);
	return rc;
}

static enum cdc_code check_sync(const void *connection, const void *sync,
				const struct sink_plan *plan, const char **ret_key,
				struct cdc_err *err)
{
	enum cdc_code rc = sink_webhook_body_check(sync, plan, ret_key, err);

	return rc ? rc : sink_webhook_target_check_sync(connection, plan, ret_key, err);
}

const struct sink_ops sink_webhook = {
	.name = "webhook",
	.connection_size = sizeof(struct sink_webhook_connection),
	.connection_options = sink_webhook_connection_options,
	.check = check_connection,
	.caution = caution,
	.sync_size = sizeof(struct sink_webhook_sync),
	.sync_options = sink_webhook_sync_options,
	.check_sync = check_sync,
	.moves = false,
	.open = open_state,
	.together = together,
	.submit = submit,
	.poll = poll_results,
	.probe = probe,
	.close = close_state,
};
