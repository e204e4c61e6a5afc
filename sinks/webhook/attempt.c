#include "sinks/webhook/attempt.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cdc/base/base64.h"
#include "cdc/base/crypto.h"
#include "sinks/webhook/auth.h"

#define MASK           "***"
#define URL_KEPT       2048
#define LINES_KEPT     4096
#define TEXT_MAX       (URL_KEPT + LINES_KEPT + SINK_ATTEMPT_BYTES + 4096)
#define SECRET_MAX     (64u << 10)
#define SECRET_MIN     4 /* bytes: less is found everywhere, and protects nothing */
#define EXTRA_MIN      6 /* of what is likely to be no secret */
#define SECRETS_MAX    512
#define TOKENS_LIVE    4 /* a request may end with a token that has been replaced meanwhile */
#define PERCENT_DIGITS 2

struct slot {
	char body[SINK_ATTEMPT_BYTES];
	struct sink_attempt attempt;
	struct cdc_buf text; /* of the attempt: url, headers, answer, each with its NUL */
};

struct sink_webhook_attempts {
	struct slot *slots;
	size_t slot_n;
	char *secrets[SECRETS_MAX];
	size_t secret_n;
	char *tokens[TOKENS_LIVE];
	size_t token_next;
	char **names; /* of the headers that somebody configured */
	size_t name_n;
};

/* --- secrets ------------------------------------------------------------------------ */

static void wipe_free(char *text)
{
	if (text)
		cdc_wipe(text, strlen(text));
	free(text);
}

/* Takes text. */
static bool add(struct sink_webhook_attempts *a, char *text, size_t min)
{
	if (!text)
		return false;
	if (strlen(text) < min || a->secret_n == SECRETS_MAX)
		wipe_free(text);
	else
		a->secrets[a->secret_n++] = text;
	return true;
}

/* Takes what is in b. */
static bool add_buf(struct sink_webhook_attempts *a, struct cdc_buf *b)
{
	cdc_buf_putc(b, '\0');
	if (b->failed) {
		cdc_buf_clear(b);
		return false;
	}
	return add(a, (char *)b->data, SECRET_MIN);
}

/* As it is, and as it stands in a query, a form, or a JSON text. */
static bool add_forms(struct sink_webhook_attempts *a, const char *secret, size_t min)
{
	struct cdc_buf form;
	bool is_good = true;

	if (!secret || strlen(secret) < min)
		return true;
	is_good = add(a, strdup(secret), min);
	cdc_buf_init(&form, SECRET_MAX);
	sink_webhook_auth_encode(&form, secret);
	is_good = add_buf(a, &form) && is_good;
	if (!strpbrk(secret, "\"\\/"))
		return is_good;
	for (int has_slash = 0; has_slash < 2; has_slash++) {
		cdc_buf_init(&form, SECRET_MAX);
		for (const char *c = secret; *c; c++) {
			if (*c == '"' || *c == '\\' || (has_slash && *c == '/'))
				cdc_buf_putc(&form, '\\');
			cdc_buf_putc(&form, *c);
		}
		is_good = add_buf(a, &form) && is_good;
	}
	return is_good;
}

/* "user:password" as a header has it. */
static bool add_basic(struct sink_webhook_attempts *a, const char *user, const char *password)
{
	struct cdc_buf plain, encoded;
	bool is_good;

	cdc_buf_init(&plain, SECRET_MAX);
	cdc_buf_init(&encoded, SECRET_MAX);
	cdc_buf_printf(&plain, "%s:%s", user, password);
	cdc_base64_put(&encoded, plain.data, plain.len);
	encoded.failed |= plain.failed;
	is_good = add_buf(a, &encoded);
	cdc_wipe(plain.data, plain.len);
	cdc_buf_clear(&plain);
	return is_good && add_forms(a, password, SECRET_MIN);
}

static bool add_pairs(struct sink_webhook_attempts *a, const struct cdc_opt_pairs *pairs,
		      size_t min)
{
	bool is_good = true;

	for (size_t i = 0; i < pairs->n; i++)
		is_good = add_forms(a, pairs->items[i].value, min) && is_good;
	return is_good;
}

/* The parts of a header's value that no record fills in. */
static bool add_literals(struct sink_webhook_attempts *a, const char *value)
{
	bool is_good = true;

	while (*value) {
		size_t n = strcspn(value, "{}");
		char *part = strndup(value, n);

		is_good = part && add_forms(a, part, EXTRA_MIN) && is_good;
		if (part)
			wipe_free(part);
		value += n;
		value += value[0] == '{' ? strcspn(value, "}") : 0;
		value += strspn(value, "{}");
	}
	return is_good;
}

/* In place. */
static void percent_decode(char *text)
{
	char *to = text;

	for (const char *c = text; *c; to++) {
		char digits[PERCENT_DIGITS + 1] = "";

		if (*c == '%' && isxdigit((unsigned char)c[1]) && isxdigit((unsigned char)c[2])) {
			memcpy(digits, c + 1, PERCENT_DIGITS);
			*to = (char)strtol(digits, NULL, 16);
			c += 1 + PERCENT_DIGITS;
		} else {
			*to = *c++;
		}
	}
	*to = '\0';
}

/* Where user and password of a url begin and how long they are; 0: it has none. */
static const char *user_of(const char *url, size_t *ret_len)
{
	const char *scheme = strstr(url, "://"), *at = NULL, *begin, *end;

	*ret_len = 0;
	if (!scheme)
		return url;
	begin = scheme + 3;
	end = begin + strcspn(begin, "/?#");
	for (const char *c = begin; c < end; c++) {
		if (*c == '@')
			at = c;
	}
	if (at)
		*ret_len = (size_t)(at - begin);
	return begin;
}

static bool add_user(struct sink_webhook_attempts *a, const char *url)
{
	size_t len;
	const char *user = url ? user_of(url, &len) : NULL;
	char *copy, *colon;
	bool is_good;

	if (!user || !len)
		return true;
	copy = strndup(user, len);
	if (!copy)
		return false;
	colon = strchr(copy, ':');
	is_good = add_forms(a, colon ? colon + 1 : copy, SECRET_MIN);
	if (colon)
		*colon = '\0';
	percent_decode(copy);
	if (colon)
		percent_decode(colon + 1);
	is_good = add_basic(a, copy, colon ? colon + 1 : "") && is_good;
	cdc_wipe(copy, len);
	free(copy);
	return is_good;
}

/* The values of a url's own query. */
static bool add_query(struct sink_webhook_attempts *a, const char *url)
{
	const char *at = strchr(url, '?');
	bool is_good = true;

	while (at && *at && *at != '#') {
		size_t n = strcspn(++at, "&#");
		const char *value = memchr(at, '=', n);
		char *copy = value ? strndup(value + 1, n - (size_t)(value + 1 - at)) : NULL;

		if (copy) {
			is_good = add_forms(a, copy, EXTRA_MIN) && is_good;
			percent_decode(copy);
			is_good = add_forms(a, copy, EXTRA_MIN) && is_good;
			wipe_free(copy);
		}
		at += n;
	}
	return is_good;
}

static bool add_all(struct sink_webhook_attempts *a, const struct sink_webhook_connection *c)
{
	bool is_good = add_forms(a, c->secret, SECRET_MIN) &&
		       add_forms(a, c->header.value, SECRET_MIN) &&
		       add_forms(a, c->oauth.client_secret, SECRET_MIN) &&
		       add_pairs(a, &c->query, SECRET_MIN) &&
		       add_pairs(a, &c->oauth.extra_form_data, EXTRA_MIN) && add_user(a, c->url) &&
		       add_user(a, c->proxy) && add_query(a, c->url);

	if (is_good && c->basic.username)
		is_good =
			add_basic(a, c->basic.username, c->basic.password ? c->basic.password : "");
	if (is_good && c->oauth.client_secret)
		is_good = add_basic(a, c->oauth.client_id, c->oauth.client_secret);
	for (size_t i = 0; is_good && i < c->headers.n; i++)
		is_good = add_literals(a, c->headers.items[i].value);
	for (size_t i = 0; is_good && i < c->signing_secrets.n; i++)
		is_good = add_forms(a, c->signing_secrets.items[i], SECRET_MIN);
	return is_good;
}

static bool add_names(struct sink_webhook_attempts *a, const struct sink_webhook_connection *c)
{
	a->names = calloc(c->headers.n + 1, sizeof(char *));
	for (; a->names && a->name_n < c->headers.n; a->name_n++) {
		a->names[a->name_n] = strdup(c->headers.items[a->name_n].name);
		if (!a->names[a->name_n])
			return false;
	}
	return a->names != NULL;
}

/* --- life --------------------------------------------------------------------------- */

enum cdc_code sink_webhook_attempts_new(const struct sink_webhook_connection *c, size_t slots,
					struct sink_webhook_attempts **ret, struct cdc_err *err)
{
	struct sink_webhook_attempts *a = calloc(1, sizeof(*a));

	if (a && slots)
		a->slots = calloc(slots, sizeof(*a->slots));
	if (!a || (slots && !a->slots) || !add_all(a, c) || !add_names(a, c)) {
		sink_webhook_attempts_free(a);
		return cdc_err_set(err, CDC_NOMEM, "out of memory for the log of requests");
	}
	a->slot_n = slots;
	for (size_t i = 0; i < slots; i++)
		cdc_buf_init(&a->slots[i].text, TEXT_MAX);
	*ret = a;
	return CDC_OK;
}

void sink_webhook_attempts_free(struct sink_webhook_attempts *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->slot_n; i++)
		cdc_buf_clear(&a->slots[i].text);
	for (size_t i = 0; i < a->secret_n; i++)
		wipe_free(a->secrets[i]);
	for (size_t i = 0; i < TOKENS_LIVE; i++)
		wipe_free(a->tokens[i]);
	for (size_t i = 0; i < a->name_n; i++)
		free(a->names[i]);
	free(a->names);
	free(a->slots);
	free(a);
}

void sink_webhook_attempts_token(struct sink_webhook_attempts *a, const char *token)
{
	char **place = &a->tokens[a->token_next++ % TOKENS_LIVE];

	wipe_free(*place);
	*place = strdup(token);
}

/* --- masking ------------------------------------------------------------------------ */

/* How much of bytes, which has n of them, is the secret, or the beginning of it at their end. */
static size_t match(const char *bytes, size_t n, const char *secret)
{
	size_t len = secret ? strlen(secret) : 0, most = len < n ? len : n;

	return most >= SECRET_MIN && memcmp(bytes, secret, most) == 0 ? most : 0;
}

static size_t secret_at(const struct sink_webhook_attempts *a, const char *bytes, size_t n)
{
	size_t longest = 0;

	for (size_t i = 0; i < a->secret_n; i++) {
		size_t len = match(bytes, n, a->secrets[i]);

		longest = len > longest ? len : longest;
	}
	for (size_t i = 0; i < TOKENS_LIVE; i++) {
		size_t len = match(bytes, n, a->tokens[i]);

		longest = len > longest ? len : longest;
	}
	return longest;
}

static void put_masked(const struct sink_webhook_attempts *a, const char *bytes, size_t n,
		       struct cdc_buf *out)
{
	size_t i = 0;

	while (i < n) {
		size_t len = secret_at(a, bytes + i, n - i);

		if (len)
			cdc_buf_puts(out, MASK);
		else
			cdc_buf_putc(out, bytes[i]);
		i += len ? len : 1;
	}
}

void sink_webhook_attempts_cover(const struct sink_webhook_attempts *a, char *text)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++) {
		size_t len = secret_at(a, text + i, n - i);

		if (len)
			memset(text + i, '*', len);
		i += len ? len - 1 : 0;
	}
}

void sink_webhook_attempts_cover_answer(const struct sink_webhook_attempts *a,
					struct sink_http *http,
					const struct sink_http_answer *answer)
{
	for (size_t i = 0; i < answer->body_len; i++) {
		size_t len = secret_at(a, answer->body + i, answer->body_len - i);

		if (len)
			sink_http_cover(http, answer, i, len);
		i += len ? len - 1 : 0;
	}
}

static void put_url(const char *url, struct cdc_buf *out)
{
	size_t user_len, from = out->len;
	const char *user = user_of(url, &user_len), *at = user;
	bool is_value = false;

	cdc_buf_put(out, url, (size_t)(user - url));
	if (user_len) {
		cdc_buf_puts(out, MASK);
		at += user_len;
	}
	for (; *at && *at != '?' && *at != '#'; at++)
		cdc_buf_putc(out, *at);
	for (; *at && *at != '#'; at++) {
		if (*at == '&' || *at == '?')
			is_value = false;
		if (!is_value)
			cdc_buf_putc(out, *at);
		if (*at == '=' && !is_value) {
			cdc_buf_puts(out, MASK);
			is_value = true;
		}
	}
	if (out->len - from > URL_KEPT)
		cdc_buf_cut(out, from + URL_KEPT);
}

/* Is it a header that says what walpost makes of a request, and nothing that anybody configured? */
static bool is_shown(const struct sink_webhook_attempts *a, const char *line, size_t name_len,
		     bool is_own)
{
	static const char *const names[] = {"Content-Type", "Content-Encoding",
					    "Polytomic-Signature-Timestamp"};

	for (size_t i = 0; i < a->name_n; i++) {
		if (strlen(a->names[i]) == name_len &&
		    strncasecmp(line, a->names[i], name_len) == 0)
			return false;
	}
	if (!is_own)
		return strcasecmp(line, "User-Agent: walpost/" WALPOST_VERSION) == 0;
	if (strncasecmp(line, "webhook-", 8) == 0 || strncmp(line, "ce-", 3) == 0)
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i]) == name_len && strncasecmp(line, names[i], name_len) == 0)
			return true;
	}
	return false;
}

struct lines {
	const struct sink_webhook_attempts *a;
	struct cdc_buf *out;
	size_t from;
};

static void put_line(void *arg, const char *line, bool is_own)
{
	struct lines *l = arg;
	size_t name_len = strcspn(line, ":;"), len = strlen(line), before = l->out->len;

	if (line[name_len] == ':' && line[name_len + 1] == '\0')
		return; /* not sent: it takes one of libcurl's away */
	if (is_shown(l->a, line, name_len, is_own)) {
		cdc_buf_put(l->out, line, len);
	} else {
		cdc_buf_put(l->out, line, name_len);
		cdc_buf_puts(l->out, line[name_len] == ';' ? ":" : ": " MASK);
	}
	cdc_buf_putc(l->out, '\n');
	if (l->out->len - l->from > LINES_KEPT)
		cdc_buf_cut(l->out, before);
}

static void put_lines(const struct sink_webhook_attempts *a, struct sink_http *http, size_t slot,
		      bool has_token, struct cdc_buf *out)
{
	struct lines l = {.a = a, .out = out, .from = out->len};

	sink_http_each_line(http, slot, put_line, &l);
	if (has_token)
		put_line(&l, "Authorization: ", false);
}

/* --- attempts ----------------------------------------------------------------------- */

void sink_webhook_attempts_sent(struct sink_webhook_attempts *a, size_t slot, size_t records,
				const void *body, size_t len)
{
	struct slot *s = &a->slots[slot];

	s->attempt = (struct sink_attempt){
		.records = records,
		.body = s->body,
		.body_len = len < SINK_ATTEMPT_BYTES ? len : SINK_ATTEMPT_BYTES,
		.body_bytes = len,
	};
	if (s->attempt.body_len)
		memcpy(s->body, body, s->attempt.body_len);
}

const struct sink_attempt *sink_webhook_attempts_take(struct sink_webhook_attempts *a,
						      struct sink_http *http,
						      const struct sink_http_answer *answer)
{
	struct slot *s = &a->slots[answer->slot];
	struct cdc_buf *b = &s->text;
	struct sink_http_sent sent;
	size_t url, headers, response, n = answer->body_len;

	sink_http_sent(http, answer->slot, &sent);
	cdc_buf_reset(b, TEXT_MAX);
	url = b->len;
	put_url(sent.url, b);
	cdc_buf_putc(b, '\0');
	headers = b->len;
	if (sent.url[0])
		put_lines(a, http, answer->slot, sent.has_token, b);
	cdc_buf_putc(b, '\0');
	response = b->len;
	put_masked(a, answer->body, n < SINK_ATTEMPT_BYTES ? n : SINK_ATTEMPT_BYTES, b);
	if (b->failed)
		return NULL;
	s->attempt.method = sent.method;
	s->attempt.url = (const char *)b->data + url;
	s->attempt.headers = (const char *)b->data + headers;
	s->attempt.response = (const char *)b->data + response;
	s->attempt.response_len = b->len - response;
	return &s->attempt;
}
