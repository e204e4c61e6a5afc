/*
 * frame.h - what travels in the CopyData messages of a replication stream.
 *
 * Format: PostgreSQL docs "Streaming Replication Protocol": XLogData 'w', primary
 * keepalive 'k', standby status update 'r'.  Pure functions.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_FRAME_H
#define CDC_SOURCE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/base/lsn.h"

enum cdc_frame_kind { CDC_FRAME_DATA, CDC_FRAME_KEEPALIVE };

struct cdc_frame {
	enum cdc_frame_kind kind;
	cdc_lsn start;   /* DATA: of the change; 0 when more messages of its group follow */
	cdc_lsn wal_end; /* KEEPALIVE: everything before it was sent */
	bool reply_requested;
	const uint8_t *payload; /* DATA: inside the bytes that were parsed */
	size_t len;
};

/* CDC_PROTO: neither of the two, or too short. */
enum cdc_code cdc_frame_parse(const void *bytes, size_t n, struct cdc_frame *ret,
			      struct cdc_err *err) CDC_CHECK;

#define CDC_FRAME_STATUS 34

/* A standby status update; flush is reported as applied, too.  now_us: since 1970. */
void cdc_frame_status(cdc_lsn write, cdc_lsn flush, int64_t now_us, bool wants_reply,
		      uint8_t ret[CDC_FRAME_STATUS]);

/*
 * A server that stops waits until we have confirmed all it sent, and asks again
 * at once after each answer.  Five requests for a reply within a second that
 * all name the same end of WAL are that storm; in normal times there is one per
 * half wal_sender_timeout.
 */
#define CDC_STORM_PINGS 5

struct cdc_pings {
	cdc_lsn wal_end;
	uint64_t at_ms[CDC_STORM_PINGS]; /* a ring */
	unsigned n;                      /* with this wal_end */
};

/* Notes a keepalive that wants a reply; returns whether it is a storm. */
bool cdc_pings_note(struct cdc_pings *p, cdc_lsn wal_end, uint64_t now_ms);

#endif
