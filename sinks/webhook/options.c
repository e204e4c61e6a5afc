#include "cdc/base/compress.h"
#include "sinks/http/network.h"
#include "sinks/webhook/sign.h"
#include "sinks/webhook/webhook.h"

static const char *const auth_methods[] = {
	[SINK_WEBHOOK_AUTH_NONE] = "none",
	[SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET] = "polytomic_secret",
	[SINK_WEBHOOK_AUTH_BASIC] = "basic",
	[SINK_WEBHOOK_AUTH_HEADER] = "header",
	[SINK_WEBHOOK_AUTH_QUERY] = "query",
	[SINK_WEBHOOK_AUTH_OAUTH] = "oauth_client_credentials",
	NULL,
};

static const char *const bodies[] = {
	[SINK_WEBHOOK_SYNC_RECORDS] = "sync.records",
	[SINK_WEBHOOK_RECORDS] = "records",
	[SINK_WEBHOOK_DEBEZIUM] = "debezium",
	[SINK_WEBHOOK_CLOUDEVENTS] = "cloudevents",
	NULL,
};

static const char *const modes[] = {
	[SINK_WEBHOOK_BATCHED] = "batched",
	[SINK_WEBHOOK_STRUCTURED] = "structured",
	[SINK_WEBHOOK_BINARY] = "binary",
	NULL,
};

static const char *const encodings[] = {
	[CDC_ENCODING_NONE] = "none",
	[CDC_ENCODING_GZIP] = "gzip",
	[CDC_ENCODING_ZSTD] = "zstd",
	NULL,
};

static const char *const all_methods[] = {
	[SINK_WEBHOOK_METHOD_POST] = "POST",
	[SINK_WEBHOOK_METHOD_PUT] = "PUT",
	[SINK_WEBHOOK_METHOD_PATCH] = "PATCH",
	[SINK_WEBHOOK_METHOD_DELETE] = "DELETE",
	NULL,
};

static const char *const op_methods[] = {
	[SINK_WEBHOOK_METHOD_POST] = "POST",       [SINK_WEBHOOK_METHOD_PUT] = "PUT",
	[SINK_WEBHOOK_METHOD_PATCH] = "PATCH",     [SINK_WEBHOOK_METHOD_DELETE] = "DELETE",
	[SINK_WEBHOOK_METHOD_DEFAULT] = "default", NULL,
};

#define AT(member)       offsetof(struct sink_webhook_connection, member)
#define IN(type, member) offsetof(__typeof__(((struct sink_webhook_connection *)0)->type), member)

#define METHOD(key, member)                                                                        \
	{                                                                                          \
		.name = key, .type = CDC_OPT_ENUM, .offset = IN(methods, member),                  \
		.def = "default", .choices = op_methods, .help = "Of " key " records."             \
	}

static const struct cdc_opt method_options[] = {
	METHOD("insert", insert),     METHOD("update", update),
	METHOD("delete", delete_row), METHOD("truncate", truncate),
	METHOD("read", read),         METHOD("message", message),
	METHOD("schema", schema),     {0},
};

static const struct cdc_opt basic_options[] = {
	{.name = "username",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = IN(basic, username),
	 .max = 1024,
	 .help = "User name; it has no colon."},
	{.name = "password",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = IN(basic, password),
	 .max = 1024,
	 .help = "Password."},
	{0},
};

static const struct cdc_opt header_options[] = {
	{.name = "name",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = IN(header, name),
	 .max = 256,
	 .help = "Name of the header."},
	{.name = "value",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED | CDC_OPT_SECRET,
	 .offset = IN(header, value),
	 .max = 4096,
	 .help = "Its value."},
	{0},
};

static const char *const oauth_styles[] = {
	[SINK_WEBHOOK_OAUTH_BASIC] = "basic",
	[SINK_WEBHOOK_OAUTH_BODY] = "body",
	NULL,
};

static const struct cdc_opt oauth_options[] = {
	{.name = "token_endpoint",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED | CDC_OPT_HTTP,
	 .offset = IN(oauth, token_endpoint),
	 .max = 2048,
	 .help = "Where tokens are had: http:// or https://."},
	{.name = "client_id",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = IN(oauth, client_id),
	 .max = 1024,
	 .help = "Who asks."},
	{.name = "client_secret",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED | CDC_OPT_SECRET,
	 .offset = IN(oauth, client_secret),
	 .max = 4096,
	 .help = "Its secret."},
	{.name = "scopes",
	 .type = CDC_OPT_STRS,
	 .offset = IN(oauth, scopes),
	 .max = 64,
	 .help = "Scopes that the token is for."},
	{.name = "extra_form_data",
	 .type = CDC_OPT_PAIRS,
	 .flags = CDC_OPT_SECRET,
	 .offset = IN(oauth, extra_form_data),
	 .max = 16,
	 .help = "More fields of the request, such as audience or resource."},
	{.name = "auth_style",
	 .type = CDC_OPT_ENUM,
	 .offset = IN(oauth, auth_style),
	 .def = "basic",
	 .choices = oauth_styles,
	 .help = "How id and secret are sent: basic: in the Authorization header; body: as "
		 "fields."},
	{0},
};

const struct cdc_opt sink_webhook_connection_options[] = {
	{.name = "url",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED | CDC_OPT_HTTP,
	 .offset = AT(url),
	 .max = 2048,
	 .help = "Where records are sent: http:// or https://.  Path and query may have "
		 "placeholders: "
		 "{schema}, {table}, {operation}, {id}, {key.COLUMN}, {fields.COLUMN}, and "
		 "{key.COLUMN|TEXT} where a column may be null or not there.  Records that differ "
		 "in "
		 "them go in different requests."},
	{.name = "method",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(method),
	 .def = "POST",
	 .choices = all_methods,
	 .help = "Method of the requests; each has a body, whatever the method."},
	{.name = "methods",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(methods),
	 .group = method_options,
	 .help = "Methods by operation, such as {delete: DELETE}; default: as method says.  "
		 "Records "
		 "whose methods differ go in different requests."},
	{.name = "auth_method",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(auth_method),
	 .def = "none",
	 .choices = auth_methods,
	 .help = "How requests show who they are from."},
	{.name = "secret",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(secret),
	 .help = "polytomic_secret: sent as Authorization: Bearer SECRET."},
	{.name = "basic",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(basic),
	 .group = basic_options,
	 .help = "basic: user name and password."},
	{.name = "header",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(header),
	 .group = header_options,
	 .help = "header: one header."},
	{.name = "query",
	 .type = CDC_OPT_PAIRS,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(query),
	 .max = 16,
	 .help = "query: parameters added to the url."},
	{.name = "headers",
	 .type = CDC_OPT_PAIRS,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(headers),
	 .max = 64,
	 .help = "More headers of each request.  Values may have placeholders, as url; {{ and }} "
		 "are braces."},
	{.name = "ca_cert",
	 .type = CDC_OPT_STR,
	 .offset = AT(ca_cert),
	 .max = 1 << 20,
	 .help = "Certificates (PEM text or a path) that the server's is checked with, in place "
		 "of the system's."},
	{.name = "client_certificate",
	 .type = CDC_OPT_STR,
	 .offset = AT(client_certificate),
	 .max = 1 << 20,
	 .help = "Client certificate: PEM text or a path."},
	{.name = "client_key",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(client_key),
	 .max = 1 << 20,
	 .help = "Its key: PEM text or a path."},
	{.name = "tls_verify",
	 .type = CDC_OPT_BOOL,
	 .offset = AT(tls_verify),
	 .def = "true",
	 .help = "Whether the server's certificate must be good; false is for tests, and is shown "
		 "in log, health and status."},
	{.name = "proxy",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(proxy),
	 .max = 2048,
	 .help = "Requests go through it: http://, https://, socks5:// or socks5h://, user and "
		 "password included.  Variables such as https_proxy are ignored."},
	{.name = "allowed_networks",
	 .type = CDC_OPT_STRS,
	 .offset = AT(allowed_networks),
	 .def = "[any]",
	 .max = SINK_HTTP_NETWORKS,
	 .help = "Networks that may be connected to beside public addresses, such as 10.0.0.0/8; "
		 "any: all; public: none, so that no private, loopback, link-local or metadata "
		 "address is reached.  With a proxy, its address is what counts."},
	{.name = "oauth",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(oauth),
	 .group = oauth_options,
	 .help = "oauth_client_credentials: where a token is had, and for whom."},
	{.name = "signing_secrets",
	 .type = CDC_OPT_STRS,
	 .flags = CDC_OPT_SECRET,
	 .offset = AT(signing_secrets),
	 .max = SINK_WEBHOOK_SECRETS,
	 .help = "Requests are signed with each (Standard Webhooks): whsec_... (HMAC-SHA-256) or "
		 "whsk_... (ed25519), as `walpost webhook-secret` makes them."},
	{0},
};

const struct cdc_opt sink_webhook_sync_options[] = {
	{.name = "body",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct sink_webhook_sync, body),
	 .def = "sync.records",
	 .choices = bodies,
	 .help = "sync.records: an envelope; records: an array of records; debezium: an array of "
		 "Debezium's change events; cloudevents: CloudEvents 1.0."},
	{.name = "wrap",
	 .type = CDC_OPT_BOOL,
	 .offset = offsetof(struct sink_webhook_sync, wrap),
	 .def = "true",
	 .help = "false, with batch_size: 1 and body: records or debezium: one object instead of "
		 "an "
		 "array."},
	{.name = "cloudevents_mode",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct sink_webhook_sync, cloudevents_mode),
	 .def = "batched",
	 .choices = modes,
	 .help = "batched: an array of events; structured: one event; binary: one record, its "
		 "attributes as headers.  The last two with batch_size: 1."},
	{.name = "compression",
	 .type = CDC_OPT_ENUM,
	 .offset = offsetof(struct sink_webhook_sync, compression),
	 .def = "none",
	 .choices = encodings,
	 .help = "How bodies are compressed (Content-Encoding).  Signatures are over the body "
		 "before that."},
	{.name = "timeout",
	 .type = CDC_OPT_DURATION,
	 .offset = offsetof(struct sink_webhook_sync, timeout_ms),
	 .def = "15s",
	 .min = 100,
	 .max = 600000,
	 .help = "How long a request may take."},
	{.name = "partial_success",
	 .type = CDC_OPT_BOOL,
	 .offset = offsetof(struct sink_webhook_sync, partial_success),
	 .def = "false",
	 .help = "Whether a 2xx answer may name records that were not taken: {\"failed\": "
		 "[{\"id\": "
		 "..., \"reason\": ..., \"retry\": true | false}]}."},
	{0},
};
