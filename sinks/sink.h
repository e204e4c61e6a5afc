/*
 * sink.h - what a destination looks like to the delivery engine.
 *
 * A sink turns records into requests and reports outcomes.  It does not retry,
 * sleep, log, or know positions; the engine decides.  It owns what it puts on
 * the wire: the views of a job are valid only during submit, so the sink copies
 * the bytes it needs into its request (one copy, into a buffer it reuses).
 *
 * Threads: a state belongs to the delivery thread that opened it.
 * Layer: sinks (base, record).
 */
#ifndef SINK_SINK_H
#define SINK_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/metrics.h"
#include "cdc/base/opt.h"
#include "cdc/record/batch.h"

enum sink_outcome {
	SINK_DONE,   /* accepted, durably as far as the endpoint says; but for those in failed */
	SINK_RETRY,  /* may be accepted later: 408, 425, 429, 5xx, timeouts, connection errors */
	SINK_REJECT, /* this request is refused: any other 4xx; 3xx */
	SINK_STOP,   /* the endpoint asks for no more: 410 */
};

const char *sink_outcome_name(enum sink_outcome outcome); /* "done" */

struct sink_settings {
	const void *connection;          /* parsed by connection_options */
	const void *sync;                /* parsed by sync_options */
	const char *sync_id, *sync_name; /* the sync's UUID and name, for the envelope */
	const char *database;            /* that the records come from; NULL: not known */
	size_t concurrency;              /* most jobs in flight at once */
	bool has_attempts;               /* results say what was sent and answered */
	int wake_fd; /* poll also returns when this is readable (and does not read it); -1: none */
};

/* What the engine will do with a sink, as far as the sink's own settings may depend on it. */
struct sink_plan {
	size_t batch_size;   /* most records of one job */
	unsigned operations; /* bit per enum cdc_op */
	bool is_grouped;     /* a job is a whole transaction, or a part of one that is too large */
};

/* A run of records of one lane, in order. */
struct sink_job {
	uint64_t ticket;              /* comes back in the result */
	const struct cdc_view *views; /* n >= 1 */
	size_t n;
	bool is_repeat; /* some of its records were sent before */
	bool is_replay; /* a person asked for it again; the request says so */
	/* By whole transactions: which part of one it is, from 1, and whether the last.  0: of
	 * none. */
	uint64_t part;
	bool is_last_part;
};

/* A record that the endpoint refused while it took the request. */
struct sink_failed {
	size_t index;     /* of the job's records */
	bool may_retry;   /* it may be accepted later */
	char reason[120]; /* for a person, as the endpoint said it */
};

#define SINK_ATTEMPT_BYTES 1024 /* that are kept of a body */

/* What was sent and what was answered, for people; no secret is in it. */
struct sink_attempt {
	const char *method, *url; /* url empty: nothing was sent */
	const char *headers;      /* "Name: value" and a line feed each */
	const char *body;         /* of the request, before it was compressed: the beginning, */
	size_t body_len;          /* so much of */
	size_t body_bytes;        /* so much */
	size_t records;
	const char *response; /* the beginning of the answer's body; any bytes, as body */
	size_t response_len;
};

#define SINK_NO_RETRY_AFTER UINT64_MAX

struct sink_result {
	uint64_t ticket;
	enum sink_outcome outcome;
	int status;           /* HTTP status; 0: no answer was had */
	bool is_never_record; /* 401, 403, 407, 429, 3xx: never counts as the record's own trouble
			       */
	bool is_ours;      /* nothing was sent: it is walpost that lacks something, as text says */
	bool is_transient; /* 408, 425, 5xx, time-out, broken connection: record trouble only after
			      many failures over a long time */
	uint64_t retry_after_ms; /* as the endpoint asked, or SINK_NO_RETRY_AFTER */
	uint64_t took_us;        /* from submit to the answer */
	uint64_t sent_bytes;     /* body */
	char text[200]; /* for a person: "503 Service Unavailable", "connection refused"; no secrets
			 */
	/* What follows is the sink's own, and valid until its next submit, poll or close. */
	const char *response;             /* not DONE: first bytes of the answer's body, or NULL */
	size_t response_len;              /* at most 4 KiB */
	const struct sink_failed *failed; /* DONE: by rising index; not all of the records when
					     there is more than one */
	size_t failed_n;
	const struct sink_attempt *attempt; /* has_attempts: what it was, or NULL when there was no
					       memory for that */
};

struct sink_ops {
	const char *name; /* the connection's type in the file: "webhook" */
	size_t connection_size;
	const struct cdc_opt *connection_options;
	/* Whether the settings of a connection go together, while the file is loaded and nothing is
	 * open; pure.  CDC_CONFIG: err says what does not, *ret_key is the option where it is best
	 * mended (NULL: none).  NULL: nothing to check. */
	enum cdc_code (*check)(const void *connection, const char **ret_key, struct cdc_err *err);
	/* What of a connection's settings is unsafe, for a person, to be shown as long as it is so;
	 * NULL: nothing.  Pure; the text is constant and holds no secret.  NULL: never anything. */
	const char *(*caution)(const void *connection);
	size_t sync_size;
	const struct cdc_opt
		*sync_options; /* keys of destination_configuration that are the sink's own */
	/* The same as check for what a sync asks of a connection; pure.  NULL: nothing to check. */
	enum cdc_code (*check_sync)(const void *connection, const void *sync,
				    const struct sink_plan *plan, const char **ret_key,
				    struct cdc_err *err);
	bool moves; /* a key change's two records may come as one job */

	/* Settings to state; opens nothing that can fail for reasons outside the settings.
	 * CDC_CONFIG: a setting that only shows when used (a CA file that cannot be read). */
	enum cdc_code (*open)(const struct sink_settings *s, void **ret_state, struct cdc_err *err);

	/* How many of these records, from the first on, one request may hold: 1 to n.  Asked before
	 * submit, whose job has no more.  NULL: all. */
	size_t (*together)(void *state, const struct cdc_view *views, size_t n);

	/* Takes a job; its result will come from poll.  Never waits.  CDC_BUSY when `concurrency`
	 * jobs are in flight; CDC_LIMIT or CDC_NOMEM when the request cannot be built.  On error no
	 * result will come. */
	enum cdc_code (*submit)(void *state, const struct sink_job *job, struct cdc_err *err);

	/* Does I/O for at most wait_ms, returns as soon as there is a result or wake_fd is
	 * readable; the number of results written. */
	size_t (*poll)(void *state, uint64_t wait_ms, struct sink_result *ret_results, size_t max);

	/* One request that changes nothing, to see whether the endpoint can be reached at all
	 * (`check`).  Fills a text for a person.  CDC_REJECTED: something answers, but as
	 * one that may not accept records; err says what it answered and what to look at.  CDC_BUSY
	 * when jobs are in flight. */
	enum cdc_code (*probe)(void *state, char *ret_text, size_t text_size, struct cdc_err *err);

	/* Drops what is in flight; NULL is fine. */
	void (*close)(void *state);
};

/* The sink of a connection type, or NULL.  The table is in sinks/registry.c. */
const struct sink_ops *sink_find(const char *name);
/* The i-th registered sink, or NULL behind the last. */
const struct sink_ops *sink_at(size_t i);

#endif
