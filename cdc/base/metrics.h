/*
 * metrics.h - what the threads count and the HTTP server shows.
 *
 * Plain structs of relaxed atomics.  Main makes them before any thread starts
 * and frees them after the last one ended; one thread writes each, the API only
 * reads.  Nothing in the program decides by them.
 *
 * Threads: any.  Layer: base (libc only).
 */
#ifndef CDC_BASE_METRICS_H
#define CDC_BASE_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t cdc_metric; /* a counter, or a gauge set with cdc_metric_set */

static inline void cdc_metric_add(cdc_metric *m, uint64_t n)
{
	atomic_fetch_add_explicit(m, n, memory_order_relaxed);
}
static inline void cdc_metric_set(cdc_metric *m, uint64_t v)
{
	atomic_store_explicit(m, v, memory_order_relaxed);
}
static inline uint64_t cdc_metric_get(const cdc_metric *m)
{
	return atomic_load_explicit(m, memory_order_relaxed);
}

/* Upper bounds in microseconds, 500 us to 5 min; the last bucket is +Inf. */
#define CDC_HISTOGRAM_BOUNDS_US                                                                    \
	{                                                                                          \
		500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000,       \
			2000000, 5000000, 10000000, 30000000, 60000000, 300000000                  \
	}
#define CDC_HISTOGRAM_BUCKETS 18

struct cdc_histogram {
	cdc_metric buckets[CDC_HISTOGRAM_BUCKETS]; /* each its own count, not cumulative */
	cdc_metric sum_us;
};

/* Counts n observations of the same duration. */
void cdc_histogram_add(struct cdc_histogram *h, uint64_t us, uint64_t n);

/* Of one capture thread (one source connection and slot). */
struct cdc_source_metrics {
	cdc_metric captured;       /* records made */
	cdc_metric captured_bytes; /* JSON bytes of them */
	cdc_metric transactions;   /* commits read */
	cdc_metric reconnects;
	cdc_metric unknown_types;  /* types that the database had no more: written as text */
	cdc_metric odd_values;     /* composite values of no known form: written as text */
	cdc_metric too_large;      /* records above max_record_bytes: only stand-ins were made */
	cdc_metric is_streaming;   /* 1 while the replication stream is open */
	cdc_metric received_lsn;   /* highest end of WAL the server told us */
	cdc_metric confirmed_lsn;  /* last confirmed */
	cdc_metric last_commit_us; /* commit time of the last transaction read */
	cdc_metric
		unconfirmed_us; /* wall time when received first rose above confirmed; 0 = equal */
	/* How the slot stood when it was looked at last; see struct cdc_slot_report. */
	cdc_metric slot_looked_us;  /* wall time of that; 0: never */
	cdc_metric slot_wal_status; /* enum cdc_wal_status */
	cdc_metric slot_retained_bytes;
	cdc_metric slot_unconfirmed_bytes;
	cdc_metric slot_has_limit; /* 1: slot_safe_bytes means something */
	cdc_metric slot_safe_bytes;
	cdc_metric slot_budget_bytes;
	cdc_metric slot_used_percent;
	cdc_metric slot_spilled, slot_spilled_bytes;
	cdc_metric hurt_tables;      /* published, and UPDATE of them fails */
	cdc_metric taken_out_tables; /* of our own publication, for that, and still out */
	/* What became of the publication while it was read; see struct cdc_publication_report. */
	cdc_metric publication_gone; /* 1: it is not there */
	cdc_metric publication_tables;
	cdc_metric left_tables;
	cdc_metric lost_operations;
	cdc_metric publication_changes; /* news of it that a person should know */
	cdc_metric gap_bytes; /* WAL between what was read and what can be had; 0: no gap */
};

/* Of one buffer. */
struct cdc_buffer_metrics {
	cdc_metric buffered; /* records made durable */
	cdc_metric bytes;    /* database and WAL file */
	cdc_metric max_bytes;
	cdc_metric undelivered_bytes; /* held by the group that is furthest behind */
	cdc_metric evicted;           /* records deleted */
	cdc_metric busy;              /* appends answered BUSY */
	cdc_metric syncs;             /* group commits */
};

#define CDC_OUTCOMES 4

/* Of one sync. */
struct cdc_sync_metrics {
	cdc_metric delivered; /* records accepted by the endpoint */
	cdc_metric skipped;   /* records read and not selected */
	cdc_metric failed;    /* requests with any outcome but DONE */
	cdc_metric retried;   /* requests that repeat records already sent once */
	cdc_metric requests;
	cdc_metric outcomes[CDC_OUTCOMES]; /* of them, by enum sink_outcome */
	cdc_metric accepted_us;            /* wall time of the last answer that accepted */
	cdc_metric recorded;               /* requests that went into the log for people, */
	cdc_metric unrecorded;             /* and those that were left out of it */
	cdc_metric request_bytes;
	cdc_metric in_flight;           /* requests */
	cdc_metric in_flight_records;   /* in the requests of lanes */
	cdc_metric held;                /* records behind a barrier of their table */
	cdc_metric deepest;             /* records of the lane that has most */
	cdc_metric resting;             /* lanes that wait after a failure */
	cdc_metric asked_ms;            /* the endpoint asked for silence (429): so long still */
	cdc_metric is_rate_limited;     /* 1 while rate_limit keeps the next request back */
	cdc_metric limit;               /* of them at once, as the endpoint bears it */
	cdc_metric window;              /* records read and not yet done */
	cdc_metric breaker;             /* 0 closed, 1 open, 2 half-open */
	cdc_metric delivered_commit_us; /* commit time of the newest delivered record */
	cdc_metric oldest_us;         /* commit time of the oldest record not yet done; 0 = none */
	cdc_metric is_behind;         /* 1 while the reader has not reached the buffer's end */
	cdc_metric parked;            /* records in the store that are tried again */
	cdc_metric parked_bytes;      /* JSON of these and of the dead letters */
	cdc_metric dead;              /* dead letters */
	cdc_metric stopped_tables;    /* before a record that the endpoint refuses */
	cdc_metric backfill_pending;  /* tables whose rows are not copied yet */
	cdc_metric backfill_done;     /* tables whose rows were copied and delivered */
	cdc_metric backfill_rows;     /* rows read by copies */
	cdc_metric backfill_permille; /* of the copy that is under way, or the last one */
	cdc_metric backfill_eta_ms;   /* until its end, at its pace so far */
	cdc_metric backfill_slowed; /* rows per second that it keeps to for others' sake; 0: free */
	cdc_metric backfill_unknown_types; /* as in struct cdc_source_metrics, met by copies */
	cdc_metric backfill_odd_values;
	cdc_metric backfill_too_large;
	struct cdc_histogram latency; /* commit to accepted */
	struct cdc_histogram request; /* one request, start to answer */
};

#endif
