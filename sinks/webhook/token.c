#include "sinks/webhook/token.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "cdc/base/buf.h"
#include "cdc/base/crypto.h"
#include "sinks/webhook/auth.h"

#define REQUEST_MAX   65536
#define RETRY_MS      5000   /* between tries while the last token is still good */
#define AHEAD_MAX_MS  300000 /* a new token is asked for at most so long before the end */
#define MARGIN_MAX_MS 10000  /* a token is not used in the last moments of its life */
#define LIFE_MAX_S    (365LL * 86400)

struct sink_webhook_token {
	struct cdc_buf body, authorization;
	const char *headers[3];
	size_t header_n;
	char *value;                   /* NULL: none */
	uint64_t refresh_ms, until_ms; /* UINT64_MAX: when the endpoint refuses it */
	unsigned number;
	bool is_asked;
};

static void wipe(struct cdc_buf *b)
{
	if (b->data)
		cdc_wipe(b->data, b->len);
	cdc_buf_clear(b);
}

static void forget(struct sink_webhook_token *t)
{
	if (t->value)
		cdc_wipe(t->value, strlen(t->value));
	free(t->value);
	t->value = NULL;
}

void sink_webhook_token_free(struct sink_webhook_token *t)
{
	if (!t)
		return;
	forget(t);
	wipe(&t->body);
	wipe(&t->authorization);
	free(t);
}

/* --- the request -------------------------------------------------------------------- */

/* application/x-www-form-urlencoded. */
static void put_field(struct cdc_buf *out, const char *name, const char *value)
{
	if (out->len)
		cdc_buf_putc(out, '&');
	sink_webhook_auth_encode(out, name);
	cdc_buf_putc(out, '=');
	sink_webhook_auth_encode(out, value);
}

static void put_scopes(struct cdc_buf *out, const struct cdc_opt_strs *scopes)
{
	if (scopes->n == 0)
		return;
	cdc_buf_puts(out, "&scope=");
	for (size_t i = 0; i < scopes->n; i++) {
		if (i)
			cdc_buf_puts(out, "%20");
		sink_webhook_auth_encode(out, scopes->items[i]);
	}
}

/* RFC 6749 section 2.3.1: both are encoded as in a form before they are joined. */
static void put_basic(struct cdc_buf *out, const char *id, const char *secret)
{
	struct cdc_buf user, password;

	cdc_buf_init(&user, REQUEST_MAX);
	cdc_buf_init(&password, REQUEST_MAX);
	sink_webhook_auth_encode(&user, id);
	cdc_buf_putc(&user, '\0');
	sink_webhook_auth_encode(&password, secret);
	cdc_buf_putc(&password, '\0');
	cdc_buf_puts(out, "Authorization: ");
	if (user.failed || password.failed)
		out->failed = true;
	else
		sink_webhook_auth_basic(out, (const char *)user.data, (const char *)password.data);
	wipe(&user);
	wipe(&password);
}

/* What the grant itself says cannot be said again. */
static enum cdc_code check_extra(const struct cdc_opt_pairs *extra, struct cdc_err *err)
{
	static const char *const ours[] = {"grant_type", "client_id", "client_secret", "scope"};

	for (size_t i = 0; i < extra->n; i++) {
		for (size_t k = 0; k < sizeof(ours) / sizeof(ours[0]); k++) {
			if (strcmp(extra->items[i].name, ours[k]) == 0)
				return cdc_err_set(err, CDC_CONFIG,
						   "oauth.extra_form_data: %s has a key of its own",
						   ours[k]);
		}
	}
	return CDC_OK;
}

static void make_request(struct sink_webhook_token *t, const struct sink_webhook_connection *c)
{
	put_field(&t->body, "grant_type", "client_credentials");
	if (c->oauth.auth_style == SINK_WEBHOOK_OAUTH_BODY) {
		put_field(&t->body, "client_id", c->oauth.client_id);
		put_field(&t->body, "client_secret", c->oauth.client_secret);
	} else {
		put_basic(&t->authorization, c->oauth.client_id, c->oauth.client_secret);
		cdc_buf_putc(&t->authorization, '\0');
		t->headers[t->header_n++] = (const char *)t->authorization.data;
	}
	put_scopes(&t->body, &c->oauth.scopes);
	for (size_t i = 0; i < c->oauth.extra_form_data.n; i++)
		put_field(&t->body, c->oauth.extra_form_data.items[i].name,
			  c->oauth.extra_form_data.items[i].value);
	cdc_buf_putc(&t->body, '\0');
	t->headers[t->header_n++] = "Content-Type: application/x-www-form-urlencoded";
	t->headers[t->header_n++] = "Accept: application/json";
}

enum cdc_code sink_webhook_token_new(const struct sink_webhook_connection *c,
				     struct sink_webhook_token **ret, struct cdc_err *err)
{
	enum cdc_code rc = check_extra(&c->oauth.extra_form_data, err);
	struct sink_webhook_token *t;

	if (rc)
		return rc;
	t = calloc(1, sizeof(*t));
	if (!t)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a token");
	cdc_buf_init(&t->body, REQUEST_MAX);
	cdc_buf_init(&t->authorization, REQUEST_MAX);
	make_request(t, c);
	if (t->body.failed || t->authorization.failed) {
		sink_webhook_token_free(t);
		return cdc_err_set(err, CDC_CONFIG, "oauth: its keys are longer than %d bytes",
				   REQUEST_MAX);
	}
	*ret = t;
	return CDC_OK;
}

const char *const *sink_webhook_token_headers(const struct sink_webhook_token *t, size_t *ret_n)
{
	*ret_n = t->header_n;
	return t->headers;
}

const char *sink_webhook_token_body(const struct sink_webhook_token *t)
{
	return (const char *)t->body.data;
}

/* --- its life ----------------------------------------------------------------------- */

const char *sink_webhook_token_value(const struct sink_webhook_token *t, uint64_t now_ms)
{
	return now_ms < t->until_ms ? t->value : NULL;
}

const char *sink_webhook_token_last(const struct sink_webhook_token *t)
{
	return t->value;
}

bool sink_webhook_token_is_due(const struct sink_webhook_token *t, uint64_t now_ms)
{
	return !t->is_asked && (!sink_webhook_token_value(t, now_ms) || now_ms >= t->refresh_ms);
}

void sink_webhook_token_asked(struct sink_webhook_token *t)
{
	t->is_asked = true;
}

void sink_webhook_token_refused(struct sink_webhook_token *t, unsigned number)
{
	if (number == t->number)
		forget(t);
}

/* --- the answer --------------------------------------------------------------------- */

/* RFC 6750: nothing that could end the line that it is sent in. */
static bool is_token(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len > SINK_WEBHOOK_TOKEN_MAX)
		return false;
	for (; *text; text++) {
		if (*text <= 0x20 || *text >= 0x7f)
			return false;
	}
	return true;
}

/* Seconds; 0: it does not say.  Some write the number as a text. */
static long long life_of(const json_t *answer)
{
	const json_t *j = json_object_get(answer, "expires_in");
	long long s = 0;

	if (json_is_number(j)) {
		double number = json_number_value(j);

		if (number > 0)
			s = number >= (double)LIFE_MAX_S ? LIFE_MAX_S : (long long)number;
	} else if (json_is_string(j)) {
		s = strtoll(json_string_value(j), NULL, 10);
	}
	return s > LIFE_MAX_S ? LIFE_MAX_S : s;
}

static void set_life(struct sink_webhook_token *t, long long life_s, uint64_t now_ms)
{
	uint64_t life_ms, ahead_ms, margin_ms;

	if (life_s <= 0) {
		t->refresh_ms = t->until_ms = UINT64_MAX;
		return;
	}
	life_ms = (uint64_t)life_s * 1000;
	ahead_ms = life_ms / 5 < AHEAD_MAX_MS ? life_ms / 5 : AHEAD_MAX_MS;
	margin_ms = life_ms / 10 < MARGIN_MAX_MS ? life_ms / 10 : MARGIN_MAX_MS;
	t->refresh_ms = now_ms + life_ms - ahead_ms;
	t->until_ms = now_ms + life_ms - margin_ms;
}

/* The error code of section 5.2; a description could hold anything. */
static void put_error(const json_t *answer, char *ret, size_t size)
{
	const char *code = json_string_value(json_object_get(answer, "error"));

	*ret = '\0';
	if (!code || !*code || strlen(code) > 40)
		return;
	for (const char *p = code; *p; p++) {
		if (!islower((unsigned char)*p) && *p != '_')
			return;
	}
	(void)snprintf(ret, size, ": %s", code);
}

static bool is_bearer(const json_t *answer)
{
	const char *type = json_string_value(json_object_get(answer, "token_type"));

	return !type || strcasecmp(type, "bearer") == 0;
}

/* NULL: it holds a token, which is taken.  Else what is wrong. */
static const char *read_answer(struct sink_webhook_token *t, const struct sink_http_answer *a,
			       const json_t *answer, uint64_t now_ms)
{
	const char *value = json_string_value(json_object_get(answer, "access_token"));
	char *copy;

	if (a->body_len >= SINK_HTTP_ANSWER_BYTES)
		return "its answer is too long";
	if (!json_is_object(answer))
		return "its answer is no JSON object";
	if (!value || !is_token(value))
		return "its answer holds no access_token that can be sent";
	if (!is_bearer(answer))
		return "the token it gives is not of type bearer";
	copy = strdup(value);
	if (!copy)
		return "out of memory";
	forget(t);
	t->value = copy;
	t->number++;
	set_life(t, life_of(answer), now_ms);
	return NULL;
}

bool sink_webhook_token_take(struct sink_webhook_token *t, const struct sink_http_answer *a,
			     struct sink_http_answer *ret_why, uint64_t now_ms)
{
	bool is_answered = a->end == SINK_HTTP_ANSWERED;
	json_t *answer = is_answered ? json_loadb(a->body ? a->body : "", a->body_len,
						  JSON_DECODE_INT_AS_REAL, NULL)
				     : NULL;
	const char *wrong = NULL;
	char error[48];

	t->is_asked = false;
	*ret_why = *a;
	if (is_answered && a->status < 300)
		wrong = read_answer(t, a, answer, now_ms);
	put_error(answer, error, sizeof(error));
	json_decref(answer);
	if (is_answered && a->status < 300 && !wrong)
		return true;
	if (!is_answered)
		(void)snprintf(ret_why->reason, sizeof(ret_why->reason),
			       "no token: the token endpoint: %.120s", a->reason);
	else if (wrong)
		(void)snprintf(ret_why->reason, sizeof(ret_why->reason),
			       "no token: the token endpoint answers %d, but %s", a->status, wrong);
	else
		(void)snprintf(ret_why->reason, sizeof(ret_why->reason),
			       "no token: the token endpoint answers %d%s", a->status, error);
	ret_why->status = 0;
	/* It may hold a token, it is not what a request was answered, and the next one's takes its
	 * place. */
	ret_why->body = NULL;
	ret_why->body_len = 0;
	/* The last token may still be good: the next try is not made with every request. */
	if (t->value)
		t->refresh_ms = now_ms + RETRY_MS;
	return false;
}
