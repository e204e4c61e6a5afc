#include "sinks/webhook/auth.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cdc/base/base64.h"
#include "cdc/base/buf.h"
#include "cdc/base/crypto.h"
#include "sinks/http/http.h"
#include "sinks/webhook/target.h"
#include "sinks/webhook/template.h"
#include "sinks/webhook/token.h"

#define LINE_MAX_BYTES 8192
#define URL_MAX        65536

static void wipe_free(char *text)
{
	if (text)
		cdc_wipe(text, strlen(text));
	free(text);
}

void sink_webhook_auth_clear(struct sink_webhook_auth_parts *a)
{
	for (size_t i = 0; i < a->header_n; i++)
		wipe_free(a->headers[i]);
	for (size_t i = 0; i < a->template_n; i++)
		wipe_free(a->templates[i]);
	free(a->headers);
	free(a->templates);
	wipe_free(a->url);
	wipe_free(a->base);
	*a = (struct sink_webhook_auth_parts){0};
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for a webhook's settings");
}

/* --- headers ------------------------------------------------------------------------ */

/* RFC 9110 section 5.6.2, token. */
static bool is_token(const char *name)
{
	if (!*name)
		return false;
	for (; *name; name++) {
		if (!isalnum((unsigned char)*name) && !strchr("!#$%&'*+-.^_`|~", *name))
			return false;
	}
	return true;
}

/* Printable, so that no value can end its line and begin another. */
static bool is_header_value(const char *value)
{
	for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
		if ((*c < 0x20 && *c != '\t') || *c == 0x7f)
			return false;
	}
	return true;
}

/* What a request's framing is made of, or what walpost itself says. */
static bool is_ours(const char *name)
{
	static const char *const names[] = {"Accept-Encoding",
					    "Connection",
					    "Content-Length",
					    "Content-Type",
					    "Content-Encoding",
					    "Expect",
					    "Host",
					    "Keep-Alive",
					    "Polytomic-Signature-Timestamp",
					    "Proxy-Authenticate",
					    "Proxy-Authorization",
					    "Proxy-Connection",
					    "TE",
					    "Trailer",
					    "Transfer-Encoding",
					    "Upgrade",
					    "walpost-transaction",
					    "walpost-transaction-last",
					    "walpost-transaction-part",
					    "webhook-id",
					    "webhook-replay",
					    "webhook-signature",
					    "webhook-timestamp"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcasecmp(names[i], name) == 0)
			return true;
	}
	return false;
}

/* Room for one line more. */
static bool grow(char ***lines, size_t n, size_t *cap)
{
	size_t more = *cap ? *cap * 2 : 8;
	char **grown;

	if (n < *cap)
		return true;
	grown = reallocarray(*lines, more, sizeof(*grown));
	if (!grown)
		return false;
	*lines = grown;
	*cap = more;
	return true;
}

static char *make_line(const char *name, const char *value)
{
	size_t size = strlen(name) + strlen(value) + 3;
	bool is_blank = value[strspn(value, " \t")] == '\0';
	char *line = malloc(size);

	/* "Name;" is how libcurl is told to send a header without a value. */
	if (line)
		(void)snprintf(line, size, is_blank ? "%s;" : "%s: %s", name, value);
	return line;
}

static enum cdc_code add_line(struct sink_webhook_auth_parts *a, const char *name,
			      const char *value, struct cdc_err *err)
{
	char *line = make_line(name, value);

	if (!line || !grow(&a->headers, a->header_n, &a->header_cap)) {
		wipe_free(line);
		return no_memory(err);
	}
	a->headers[a->header_n++] = line;
	return CDC_OK;
}

static enum cdc_code add_template(struct sink_webhook_auth_parts *a, const char *name,
				  const char *value, struct cdc_err *err)
{
	char *line = make_line(name, value);

	if (!line || !grow(&a->templates, a->template_n, &a->template_cap)) {
		wipe_free(line);
		return no_memory(err);
	}
	a->templates[a->template_n++] = line;
	return CDC_OK;
}

static bool is_there(char *const *lines, size_t n, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < n; i++) {
		if (strncasecmp(lines[i], name, len) == 0 &&
		    (lines[i][len] == ':' || lines[i][len] == ';'))
			return true;
	}
	return false;
}

static bool has_line(const struct sink_webhook_auth_parts *a, const char *name)
{
	return is_there(a->headers, a->header_n, name) ||
	       is_there(a->templates, a->template_n, name);
}

static enum cdc_code check_header(const struct sink_webhook_auth_parts *a, const char *key,
				  const char *name, const char *value, struct cdc_err *err)
{
	if (!is_token(name))
		return cdc_err_set(err, CDC_CONFIG, "%s: \"%s\" is not a header's name", key, name);
	if (is_ours(name))
		return cdc_err_set(err, CDC_CONFIG, "%s: %s is a header that walpost sets itself",
				   key, name);
	if (has_line(a, name))
		return cdc_err_set(err, CDC_CONFIG, "%s: %s is there twice", key, name);
	if (a->has_token && strcasecmp(name, "Authorization") == 0)
		return cdc_err_set(err, CDC_CONFIG, "%s: %s carries the token of oauth", key, name);
	if (!is_header_value(value))
		return cdc_err_set(
			err, CDC_CONFIG,
			"%s: the value of %s has a control character, such as a line end", key,
			name);
	return CDC_OK;
}

static enum cdc_code add_header(struct sink_webhook_auth_parts *a, const char *key,
				const char *name, const char *value, struct cdc_err *err)
{
	enum cdc_code rc = check_header(a, key, name, value, err);

	return rc ? rc : add_line(a, name, value, err);
}

/* One of `headers`, whose values may have placeholders. */
static enum cdc_code add_more(struct sink_webhook_auth_parts *a, const struct cdc_opt_pair *h,
			      struct cdc_err *err)
{
	enum cdc_code rc = check_header(a, "headers", h->name, h->value, err);

	if (rc)
		return rc;
	return sink_webhook_template_is(h->value) ? add_template(a, h->name, h->value, err)
						  : add_line(a, h->name, h->value, err);
}

void sink_webhook_auth_basic(struct cdc_buf *out, const char *user, const char *password)
{
	struct cdc_buf plain;

	cdc_buf_init(&plain, out->max);
	cdc_buf_printf(&plain, "%s:%s", user, password);
	cdc_buf_puts(out, "Basic ");
	cdc_base64_put(out, plain.data, plain.len);
	out->failed |= plain.failed;
	cdc_wipe(plain.data, plain.len);
	cdc_buf_clear(&plain);
}

static enum cdc_code add_basic(struct sink_webhook_auth_parts *a, const char *user,
			       const char *password, struct cdc_err *err)
{
	struct cdc_buf line;
	enum cdc_code rc;

	if (strchr(user, ':'))
		return cdc_err_set(err, CDC_CONFIG, "basic.username may not contain a colon");
	cdc_buf_init(&line, LINE_MAX_BYTES);
	sink_webhook_auth_basic(&line, user, password ? password : "");
	cdc_buf_putc(&line, '\0');
	rc = line.failed ? no_memory(err)
			 : add_line(a, "Authorization", (const char *)line.data, err);
	cdc_wipe(line.data, line.len);
	cdc_buf_clear(&line);
	return rc;
}

static enum cdc_code add_secret(struct sink_webhook_auth_parts *a, const char *secret,
				struct cdc_err *err)
{
	char line[LINE_MAX_BYTES];
	enum cdc_code rc;

	(void)snprintf(line, sizeof(line), "Bearer %s", secret);
	rc = is_header_value(secret)
		     ? add_line(a, "Authorization", line, err)
		     : cdc_err_set(err, CDC_CONFIG, "secret has a control character");
	cdc_wipe(line, sizeof(line));
	return rc;
}

/* --- the url ------------------------------------------------------------------------ */

void sink_webhook_auth_encode(struct cdc_buf *out, const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (isalnum(*c) || strchr("-._~", *c))
			cdc_buf_putc(out, (char)*c);
		else
			cdc_buf_printf(out, "%%%02X", *c);
	}
}

static bool is_http(const char *url)
{
	return (strncasecmp(url, "http://", 7) == 0 && url[7]) ||
	       (strncasecmp(url, "https://", 8) == 0 && url[8]);
}

/* The first len bytes of the url, and the parameters of auth_method: query. */
static enum cdc_code copy_url(const struct sink_webhook_connection *c, size_t len, char **ret,
			      struct cdc_err *err)
{
	bool has_query = memchr(c->url, '?', len) != NULL;
	struct cdc_buf url;

	cdc_buf_init(&url, URL_MAX);
	cdc_buf_put(&url, c->url, len);
	for (size_t i = 0; c->auth_method == SINK_WEBHOOK_AUTH_QUERY && i < c->query.n; i++) {
		cdc_buf_putc(&url, has_query ? '&' : '?');
		sink_webhook_auth_encode(&url, c->query.items[i].name);
		cdc_buf_putc(&url, '=');
		sink_webhook_auth_encode(&url, c->query.items[i].value);
		has_query = true;
	}
	cdc_buf_putc(&url, '\0');
	if (url.failed) {
		cdc_buf_clear(&url);
		return no_memory(err);
	}
	*ret = (char *)url.data;
	return CDC_OK;
}

static enum cdc_code make_url(const struct sink_webhook_connection *c,
			      struct sink_webhook_auth_parts *a, struct cdc_err *err)
{
	size_t len = strcspn(c->url, "#"), fixed = len;
	enum cdc_code rc;

	if (!is_http(c->url))
		return cdc_err_set(err, CDC_CONFIG,
				   "url must begin with http:// or https:// and name a host");
	if (!is_header_value(c->url) || strchr(c->url, ' '))
		return cdc_err_set(err, CDC_CONFIG,
				   "url has a space or control character; write it as %%20");
	if (sink_webhook_template_is(c->url))
		fixed = sink_webhook_template_fixed(c->url, &a->has_path);
	rc = copy_url(c, len, &a->url, err);
	return rc ? rc : copy_url(c, fixed < len ? fixed : len, &a->base, err);
}

/* --- all of it ---------------------------------------------------------------------- */

/* The token is had and sent when there is something to send. */
static enum cdc_code check_token(const struct sink_webhook_connection *c, struct cdc_err *err)
{
	struct sink_webhook_token *token;
	enum cdc_code rc;

	if (!is_http(c->oauth.token_endpoint))
		return cdc_err_set(err, CDC_CONFIG,
				   "oauth.token_endpoint must begin with http:// or https:// and "
				   "name a host");
	rc = sink_webhook_token_new(c, &token, err);
	if (!rc)
		sink_webhook_token_free(token);
	return rc;
}

static enum cdc_code add_method(const struct sink_webhook_connection *c,
				struct sink_webhook_auth_parts *a, struct cdc_err *err)
{
	switch ((enum sink_webhook_auth)c->auth_method) {
	case SINK_WEBHOOK_AUTH_NONE:
		return CDC_OK;
	case SINK_WEBHOOK_AUTH_OAUTH:
		a->has_token = true;
		return check_token(c, err);
	case SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET:
		return add_secret(a, c->secret, err);
	case SINK_WEBHOOK_AUTH_BASIC:
		return add_basic(a, c->basic.username, c->basic.password, err);
	case SINK_WEBHOOK_AUTH_HEADER:
		return add_header(a, "header", c->header.name, c->header.value, err);
	case SINK_WEBHOOK_AUTH_QUERY:
		return CDC_OK;
	}
	return CDC_OK;
}

/* A method of auth_method, and the section that it alone takes. */
struct method {
	const char *name, *section, *example;
	bool is_given;
};

static enum cdc_code check_sections(const struct sink_webhook_connection *c, const char **ret_key,
				    struct cdc_err *err)
{
	const struct method methods[] = {
		[SINK_WEBHOOK_AUTH_NONE] = {.name = "none"},
		[SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET] = {"polytomic_secret", "secret", "SECRET",
							c->secret && *c->secret},
		[SINK_WEBHOOK_AUTH_BASIC] = {"basic", "basic",
					     "{username: NAME, password: PASSWORD}",
					     c->basic.username != NULL},
		[SINK_WEBHOOK_AUTH_HEADER] = {"header", "header", "{name: NAME, value: VALUE}",
					      c->header.name != NULL},
		[SINK_WEBHOOK_AUTH_QUERY] = {"query", "query", "[{name: NAME, value: VALUE}]",
					     c->query.n > 0},
		[SINK_WEBHOOK_AUTH_OAUTH] = {"oauth_client_credentials", "oauth",
					     "{token_endpoint: URL, client_id: ID, client_secret: "
					     "SECRET}",
					     c->oauth.token_endpoint != NULL},
	};
	const struct method *used = &methods[c->auth_method];

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		const struct method *m = &methods[i];

		if (m == used || !m->is_given)
			continue;
		*ret_key = m->section;
		return cdc_err_set(err, CDC_CONFIG,
				   "%s is given, but auth_method is %s; set auth_method: %s, or "
				   "remove %s",
				   m->section, used->name, m->name, m->section);
	}
	if (!used->section || used->is_given)
		return CDC_OK;
	*ret_key = "auth_method";
	return cdc_err_set(err, CDC_CONFIG, "auth_method %s needs the key %s: %s", used->name,
			   used->section, used->example);
}

static enum cdc_code make(const struct sink_webhook_connection *c, const char **ret_key,
			  struct sink_webhook_auth_parts *ret, struct cdc_err *err)
{
	struct sink_webhook_auth_parts a = {0};
	enum cdc_code rc = check_sections(c, ret_key, err);

	if (!rc)
		rc = make_url(c, &a, err);
	if (!rc)
		rc = add_method(c, &a, err);
	for (size_t i = 0; !rc && i < c->headers.n; i++)
		rc = add_more(&a, &c->headers.items[i], err);
	if (!rc && !has_line(&a, "User-Agent"))
		rc = add_line(&a, "User-Agent", "walpost/" WALPOST_VERSION, err);
	if (rc) {
		sink_webhook_auth_clear(&a);
		return rc;
	}
	*ret = a;
	return CDC_OK;
}

enum cdc_code sink_webhook_auth_make(const struct sink_webhook_connection *c,
				     struct sink_webhook_auth_parts *ret, struct cdc_err *err)
{
	const char *key;

	return make(c, &key, ret, err);
}

enum cdc_code sink_webhook_auth_networks(const struct sink_webhook_connection *c,
					 struct sink_http_networks *ret, struct cdc_err *err)
{
	return sink_http_networks_parse((const char *const *)c->allowed_networks.items,
					c->allowed_networks.n, ret, err);
}

enum cdc_code sink_webhook_auth_check(const void *connection, const char **ret_key,
				      struct cdc_err *err)
{
	const struct sink_webhook_connection *c = connection;
	struct sink_webhook_auth_parts parts;
	struct sink_http_networks networks;
	enum cdc_code rc = make(connection, ret_key, &parts, err);

	if (rc)
		return rc;
	rc = sink_webhook_target_check(c, &parts, ret_key, err);
	sink_webhook_auth_clear(&parts);
	if (rc)
		return rc;
	*ret_key = "allowed_networks";
	rc = sink_webhook_auth_networks(c, &networks, err);
	if (!rc && c->proxy && *c->proxy) {
		*ret_key = "proxy";
		rc = sink_http_check_proxy(c->proxy, err);
	}
	return rc;
}
