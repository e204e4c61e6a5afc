#include "cdc/source/frame.h"

#include <string.h>

#include "cdc/base/clock.h"
#include "cdc/base/cursor.h"

enum cdc_code cdc_frame_parse(const void *bytes, size_t n, struct cdc_frame *ret,
			      struct cdc_err *err)
{
	struct cdc_cursor c = cdc_cursor_over(bytes, n);
	uint8_t kind = cdc_cursor_u8(&c);

	*ret = (struct cdc_frame){.kind = CDC_FRAME_KEEPALIVE};
	switch (kind) {
	case 'w':
		ret->kind = CDC_FRAME_DATA;
		ret->start = cdc_cursor_u64(&c);
		ret->wal_end = cdc_cursor_u64(&c);
		(void)cdc_cursor_u64(&c); /* the server's clock */
		ret->payload = c.at;
		ret->len = cdc_cursor_left(&c);
		break;
	case 'k':
		ret->wal_end = cdc_cursor_u64(&c);
		(void)cdc_cursor_u64(&c);
		ret->reply_requested = cdc_cursor_u8(&c) != 0;
		if (cdc_cursor_left(&c))
			return cdc_err_set(err, CDC_PROTO,
					   "the server sent a malformed keepalive of %zu bytes", n);
		break;
	default:
		return cdc_err_set(err, CDC_PROTO,
				   "the server sent a replication frame of unknown kind 0x%02x",
				   kind);
	}
	if (c.is_short)
		return cdc_err_set(err, CDC_PROTO,
				   "the server sent a replication frame of only %zu bytes", n);
	return CDC_OK;
}

static uint8_t *put_u64(uint8_t *at, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(at, &v, sizeof(v));
	return at + sizeof(v);
}

void cdc_frame_status(cdc_lsn write, cdc_lsn flush, int64_t now_us, bool wants_reply,
		      uint8_t ret[CDC_FRAME_STATUS])
{
	uint8_t *at = ret;

	*at++ = 'r';
	at = put_u64(at, write > flush ? write : flush);
	at = put_u64(at, flush);
	at = put_u64(at, flush);
	at = put_u64(at, (uint64_t)now_us - (uint64_t)CDC_POSTGRES_EPOCH_US);
	*at = wants_reply;
}

bool cdc_pings_note(struct cdc_pings *p, cdc_lsn wal_end, uint64_t now_ms)
{
	if (p->n == 0 || p->wal_end != wal_end) {
		p->wal_end = wal_end;
		p->n = 0;
	}
	/* Its slot holds the time of the ping CDC_STORM_PINGS before it. */
	p->at_ms[p->n % CDC_STORM_PINGS] = now_ms;
	p->n++;
	if (p->n < CDC_STORM_PINGS)
		return false;
	return now_ms - p->at_ms[p->n % CDC_STORM_PINGS] <= 1000;
}
