/* The engine's keys of destination_configuration. */
#include "cdc/pipeline/deliver.h"
#include "cdc/pipeline/rate.h"

#define AT(member) offsetof(struct cdc_deliver_settings, member)

/* Bit i of the set is enum cdc_op i. */
static const char *const operations[] = {
	[CDC_OP_INSERT] = "insert", [CDC_OP_UPDATE] = "update",
	[CDC_OP_DELETE] = "delete", [CDC_OP_TRUNCATE] = "truncate",
	[CDC_OP_READ] = "read",     [CDC_OP_MESSAGE] = "message",
	[CDC_OP_SCHEMA] = "schema", NULL,
};

static const char *const orders[] = {
	[CDC_ORDER_KEY] = "key",
	[CDC_ORDER_SYNC] = "sync",
	[CDC_ORDER_NONE] = "none",
	NULL,
};

#define RATE(member) (AT(rate_limit.member) - AT(rate_limit))

static const struct cdc_opt rate_options[] = {
	{.name = "requests_per_second",
	 .type = CDC_OPT_UINT,
	 .offset = RATE(requests_per_second),
	 .def = "0",
	 .max = CDC_RATE_MAX,
	 .help = "requests; 0: no limit"},
	{.name = "records_per_second",
	 .type = CDC_OPT_UINT,
	 .offset = RATE(records_per_second),
	 .def = "0",
	 .max = CDC_RATE_MAX,
	 .help = "records, on the average of as many seconds as a request is worth; 0: no limit"},
	{0},
};

const struct cdc_opt cdc_deliver_options[] = {
	{.name = "operations",
	 .type = CDC_OPT_SET,
	 .offset = AT(operations),
	 .def = "[insert, update, delete, truncate, read]",
	 .choices = operations,
	 .help = "kinds of records that are delivered; there are also message and schema"},
	{.name = "batch_size",
	 .type = CDC_OPT_UINT,
	 .offset = AT(batch_size),
	 .def = "100",
	 .min = 1,
	 .max = 10000,
	 .help = "most records of one request"},
	{.name = "batch_bytes",
	 .type = CDC_OPT_SIZE,
	 .offset = AT(batch_bytes),
	 .def = "1MiB",
	 .min = 1024,
	 .max = 64 << 20,
	 .help = "most bytes of records in one request; a larger record goes alone"},
	{.name = "linger",
	 .type = CDC_OPT_DURATION,
	 .offset = AT(linger_ms),
	 .def = "0ms",
	 .max = 60000,
	 .help = "how long an idle lane waits for a fuller request"},
	{.name = "concurrency",
	 .type = CDC_OPT_UINT,
	 .offset = AT(concurrency),
	 .def = "8",
	 .min = 1,
	 .max = 256,
	 .help = "lanes: most requests at a time; records of one key share a lane"},
	{.name = "concurrency_min",
	 .type = CDC_OPT_UINT,
	 .offset = AT(concurrency_min),
	 .def = "0",
	 .max = 256,
	 .help = "fewest requests at a time: between it and concurrency as many are sent as the "
		 "endpoint bears, by its answers' times, 429, 503 and time-outs; 0: always "
		 "concurrency"},
	{.name = "rate_limit",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(rate_limit),
	 .group = rate_options,
	 .help = "most that is sent in a second"},
	{.name = "order",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(order),
	 .def = "key",
	 .choices = orders,
	 .help = "key: in order per key; sync: in order over all, one request at a time; none"},
	{.name = "group", .type = CDC_OPT_LATER, .help = "Whole transactions as one request."},
	{.name = "park", .type = CDC_OPT_LATER, .help = "When a refused record is set aside."},
	{.name = "retry_schedule",
	 .type = CDC_OPT_LATER,
	 .help = "When records that were set aside are tried again."},
	{.name = "auth_errors", .type = CDC_OPT_LATER, .help = "What 401 and 403 mean."},
	{.name = "marks", .type = CDC_OPT_LATER, .help = "Records at a copy's begin and end."},
	{0},
};
