/*
 * settings.h - the engine's keys of destination_configuration.
 *
 * Threads: constant after the file was read.
 * Layer: pipeline (base).
 */
#ifndef CDC_PIPELINE_SETTINGS_H
#define CDC_PIPELINE_SETTINGS_H

#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/opt.h"

enum cdc_group { CDC_GROUP_NONE, CDC_GROUP_TRANSACTION };
enum cdc_auth_errors { CDC_AUTH_RETRY, CDC_AUTH_STOP };
enum cdc_on_reject { CDC_ON_REJECT_STOP, CDC_ON_REJECT_DEAD_LETTER };

struct cdc_deliver_settings {
	unsigned operations;  /* bit per enum cdc_op, as they are named */
	uint64_t batch_size;  /* records per request */
	uint64_t batch_bytes; /* JSON bytes per request; one larger record goes alone */
	uint64_t linger_ms;
	uint64_t concurrency;     /* lanes */
	uint64_t concurrency_min; /* of them at once, when the endpoint bears no more; 0: all */
	struct {
		uint64_t requests_per_second, records_per_second; /* 0: no limit */
	} rate_limit;
	unsigned order;              /* enum cdc_order */
	unsigned group;              /* enum cdc_group; TRANSACTION with order: sync */
	unsigned auth_errors;        /* enum cdc_auth_errors */
	unsigned on_reject;          /* enum cdc_on_reject; order: sync */
	uint64_t retry_after_max_ms; /* an endpoint may ask for no more */
	struct {
		uint64_t attempts; /* failures of what may heal by itself, */
		uint64_t after_ms; /* over so long a time, are the record's own trouble */
		uint64_t max_bytes;
	} park;
	bool has_marks;       /* records at the begin and the end of a table's copy */
	bool record_requests; /* a log of them is kept, for people, */
	struct {
		uint64_t requests, bytes; /* of at most so many */
	} recorded;
	struct cdc_opt_numbers retry_schedule; /* milliseconds before each attempt */
};
extern const struct cdc_opt cdc_deliver_options[];

/* What is delivered, bit per enum cdc_op: the operations, and the marks that are asked for. */
unsigned cdc_deliver_operations(const struct cdc_deliver_settings *s);

/* Whether settings go together, while the file is loaded; as sink_ops.check_sync. */
enum cdc_code cdc_deliver_check(const struct cdc_deliver_settings *s, const char **ret_key,
				struct cdc_err *err) CDC_CHECK;

#endif
