/*
 * webhook.h - records as HTTP POSTs of JSON.
 *
 * Threads: as sink.h.  Layer: sinks (base, record).
 */
#ifndef SINK_WEBHOOK_WEBHOOK_H
#define SINK_WEBHOOK_WEBHOOK_H

#include "cdc/base/opt.h"
#include "sinks/sink.h"

enum sink_webhook_auth {
	SINK_WEBHOOK_AUTH_NONE,
	SINK_WEBHOOK_AUTH_POLYTOMIC_SECRET,
	SINK_WEBHOOK_AUTH_BASIC,
	SINK_WEBHOOK_AUTH_HEADER,
	SINK_WEBHOOK_AUTH_QUERY,
	SINK_WEBHOOK_AUTH_OAUTH,
};

enum sink_webhook_method {
	SINK_WEBHOOK_METHOD_POST,
	SINK_WEBHOOK_METHOD_PUT,
	SINK_WEBHOOK_METHOD_PATCH,
	SINK_WEBHOOK_METHOD_DELETE,
	SINK_WEBHOOK_METHOD_DEFAULT, /* of one operation: as of all */
};

enum sink_webhook_oauth_style { SINK_WEBHOOK_OAUTH_BASIC, SINK_WEBHOOK_OAUTH_BODY };

enum sink_webhook_shape {
	SINK_WEBHOOK_SYNC_RECORDS, /* the envelope */
	SINK_WEBHOOK_RECORDS,      /* a bare array */
	SINK_WEBHOOK_DEBEZIUM,     /* an array of change events */
	SINK_WEBHOOK_CLOUDEVENTS,
};

/* Of CloudEvents. */
enum sink_webhook_mode {
	SINK_WEBHOOK_BATCHED,    /* an array */
	SINK_WEBHOOK_STRUCTURED, /* one event */
	SINK_WEBHOOK_BINARY,     /* one record, its attributes as headers */
};

/* `configuration` of a connection of type webhook. */
struct sink_webhook_connection {
	char *url;       /* template.h */
	unsigned method; /* enum sink_webhook_method, but for DEFAULT */
	struct {
		unsigned insert, update, delete_row, truncate, read, message, schema;
	} methods;            /* enum sink_webhook_method */
	unsigned auth_method; /* enum sink_webhook_auth */
	char *secret;
	struct {
		char *username, *password;
	} basic;
	struct {
		char *name, *value;
	} header;
	struct cdc_opt_pairs query, headers; /* the values of headers: template.h */
	struct {
		char *token_endpoint, *client_id, *client_secret;
		struct cdc_opt_strs scopes;
		struct cdc_opt_pairs extra_form_data;
		unsigned auth_style; /* enum sink_webhook_oauth_style */
	} oauth;
	struct cdc_opt_strs signing_secrets;
	char *ca_cert, *client_certificate, *client_key; /* PEM text or paths */
	bool tls_verify;
	char *proxy;
	struct cdc_opt_strs allowed_networks;
};

/* The sink's own keys of destination_configuration. */
struct sink_webhook_sync {
	unsigned body;             /* enum sink_webhook_shape */
	bool wrap;                 /* false: one record without the array */
	unsigned cloudevents_mode; /* enum sink_webhook_mode */
	unsigned compression;      /* enum cdc_encoding */
	uint64_t timeout_ms;
	bool partial_success;
};

extern const struct sink_ops sink_webhook;
extern const struct cdc_opt sink_webhook_connection_options[];
extern const struct cdc_opt sink_webhook_sync_options[];

#endif
