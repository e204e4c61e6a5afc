/* The engine's keys of destination_configuration. */
#include "cdc/pipeline/rate.h"
#include "cdc/pipeline/settings.h"
#include "cdc/pipeline/window.h"

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

static const char *const groups[] = {
	[CDC_GROUP_NONE] = "none",
	[CDC_GROUP_TRANSACTION] = "transaction",
	NULL,
};

static const char *const auth_errors[] = {
	[CDC_AUTH_RETRY] = "retry",
	[CDC_AUTH_STOP] = "stop",
	NULL,
};

static const char *const on_rejects[] = {
	[CDC_ON_REJECT_STOP] = "stop",
	[CDC_ON_REJECT_DEAD_LETTER] = "dead_letter",
	NULL,
};

#define PARK(member) (AT(park.member) - AT(park))

static const struct cdc_opt park_options[] = {
	{.name = "attempts",
	 .type = CDC_OPT_UINT,
	 .offset = PARK(attempts),
	 .def = "8",
	 .min = 2,
	 .max = 1000,
	 .help = "failures that may heal by themselves (5xx, time-outs) which are the record's own "
		 "trouble, while others are accepted in between"},
	{.name = "after",
	 .type = CDC_OPT_DURATION,
	 .offset = PARK(after_ms),
	 .def = "10m",
	 .max = 7ull * 24 * 3600 * 1000,
	 .help = "and the time over which there must have been so many"},
	{.name = "max_bytes",
	 .type = CDC_OPT_SIZE,
	 .offset = PARK(max_bytes),
	 .def = "256MiB",
	 .min = 4096,
	 .max = 1ull << 40,
	 .help = "most JSON bytes of parked records and dead letters; when they are more, the sync "
		 "stops"},
	{0},
};

#define RECORDED(member) (AT(recorded.member) - AT(recorded))

static const struct cdc_opt recorded_options[] = {
	{.name = "requests",
	 .type = CDC_OPT_UINT,
	 .offset = RECORDED(requests),
	 .def = "1000",
	 .min = 1,
	 .max = 20000,
	 .help = "most of them; older ones go"},
	{.name = "bytes",
	 .type = CDC_OPT_SIZE,
	 .offset = RECORDED(bytes),
	 .def = "4MiB",
	 .min = 64 << 10,
	 .max = 256 << 20,
	 .help = "most bytes of them; a request takes up to about 10 KiB"},
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
	 .help = "lanes: most requests at a time; records of one key share a lane; under order: "
		 "key those of a table with few that wait go ahead of a backlog of others"},
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
	{.name = "group",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(group),
	 .def = "none",
	 .choices = groups,
	 .help = "transaction, with order: sync: a request has the records of one transaction, all "
		 "of "
		 "them unless batch_size or batch_bytes is reached; it says which part it is"},
	{.name = "park",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(park),
	 .group = park_options,
	 .help = "When a refused record is set aside, and how much of that is kept."},
	{.name = "retry_schedule",
	 .type = CDC_OPT_DURATIONS,
	 .offset = AT(retry_schedule),
	 .def = "[5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h]",
	 .min = 1,
	 .max = 30ull * 24 * 3600 * 1000,
	 .help = "how long a parked record waits before each attempt; after the last one it is a "
		 "dead letter"},
	{.name = "on_reject",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(on_reject),
	 .def = "stop",
	 .choices = on_rejects,
	 .help = "order: sync, where nothing is parked: what becomes of a record that was refused "
		 "for park.after"},
	{.name = "auth_errors",
	 .type = CDC_OPT_ENUM,
	 .offset = AT(auth_errors),
	 .def = "retry",
	 .choices = auth_errors,
	 .help = "401 and 403: retry, like any trouble of the endpoint, or stop the sync"},
	{.name = "retry_after_max",
	 .type = CDC_OPT_DURATION,
	 .offset = AT(retry_after_max_ms),
	 .def = "24h",
	 .max = 30ull * 24 * 3600 * 1000,
	 .help = "the longest Retry-After of an endpoint that is obeyed"},
	{.name = "record_requests",
	 .type = CDC_OPT_BOOL,
	 .offset = AT(record_requests),
	 .def = "false",
	 .help = "whether `walpost attempts` can show the last requests: time, url, headers, the "
		 "first 1 KiB of the body and of the answer, outcome; secrets are masked.  When "
		 "more "
		 "are sent than can be written, some are left out and counted.  false: what was "
		 "kept is deleted at the next start"},
	{.name = "recorded",
	 .type = CDC_OPT_GROUP,
	 .offset = AT(recorded),
	 .group = recorded_options,
	 .help = "How many requests record_requests keeps."},
	{.name = "marks",
	 .type = CDC_OPT_BOOL,
	 .offset = AT(has_marks),
	 .def = "false",
	 .help = "whether a record of operation backfill comes before the first copied row of a "
		 "table, and one behind the last"},
	{0},
};

unsigned cdc_deliver_operations(const struct cdc_deliver_settings *s)
{
	return s->operations | (s->has_marks ? 1u << CDC_OP_BACKFILL : 0);
}

static enum cdc_code check_marks(const struct cdc_deliver_settings *s, struct cdc_err *err)
{
	if (!s->has_marks)
		return CDC_OK;
	if (!(s->operations >> CDC_OP_READ & 1))
		return cdc_err_set(err, CDC_CONFIG,
				   "nothing is copied for a sync whose operations do not name "
				   "read; add read to operations, or remove marks");
	if (s->group == CDC_GROUP_TRANSACTION)
		return cdc_err_set(err, CDC_CONFIG,
				   "a mark is of no transaction; remove marks, or group");
	return CDC_OK;
}

enum cdc_code cdc_deliver_check(const struct cdc_deliver_settings *s, const char **ret_key,
				struct cdc_err *err)
{
	*ret_key = "marks";
	if (check_marks(s, err))
		return CDC_CONFIG;
	if (s->group == CDC_GROUP_NONE)
		return CDC_OK;
	*ret_key = "group";
	if (s->order != CDC_ORDER_SYNC)
		return cdc_err_set(err, CDC_CONFIG,
				   "transactions go out whole one after the other, while records "
				   "are parked and lanes run side by side under order: key and "
				   "none; set order: sync, or remove group");
	if (s->concurrency_min)
		return cdc_err_set(err, CDC_CONFIG,
				   "transactions go out one at a time; remove concurrency_min");
	if (s->linger_ms)
		return cdc_err_set(err, CDC_CONFIG,
				   "a transaction is sent when it is whole, and nothing joins it; "
				   "remove linger");
	if (s->batch_size == 1)
		return cdc_err_set(err, CDC_CONFIG,
				   "batch_size: 1 takes every transaction apart; set a larger one, "
				   "or remove group");
	if (s->operations & 1u << CDC_OP_SCHEMA)
		return cdc_err_set(err, CDC_CONFIG,
				   "schema records come again after each start, in the middle of a "
				   "transaction; take schema out of operations, or remove group");
	return CDC_OK;
}
