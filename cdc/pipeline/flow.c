#include "cdc/pipeline/flow.h"

void cdc_flow_init(struct cdc_flow *f, const struct cdc_flow_settings *s, uint64_t now_ms)
{
	*f = (struct cdc_flow){.free_ms = 0};
	cdc_rate_init(&f->requests, s->requests_per_second, now_ms);
	cdc_rate_init(&f->records, s->records_per_second, now_ms);
	cdc_throttle_init(&f->throttle, (unsigned)s->min, (unsigned)s->max);
}

void cdc_flow_started(struct cdc_flow *f, size_t records, uint64_t now_ms)
{
	uint64_t requests_ms, records_ms;

	if (!f->requests.per_s && !f->records.per_s)
		return;
	cdc_rate_take(&f->requests, 1, now_ms);
	cdc_rate_take(&f->records, records, now_ms);
	requests_ms = cdc_rate_next_ms(&f->requests, now_ms);
	records_ms = cdc_rate_next_ms(&f->records, now_ms);
	f->free_ms = requests_ms > records_ms ? requests_ms : records_ms;
}

static enum cdc_throttle_sign sign_of(const struct sink_result *r)
{
	if (r->outcome == SINK_DONE)
		return CDC_THROTTLE_GOOD;
	if (r->status == 429 || r->status == 503 || r->status == 504 ||
	    (r->status == 0 && r->is_transient))
		return CDC_THROTTLE_PRESSED;
	return CDC_THROTTLE_NEUTRAL;
}

void cdc_flow_ended(struct cdc_flow *f, const struct sink_result *r, size_t in_flight,
		    uint64_t now_ms)
{
	cdc_throttle_note(&f->throttle, sign_of(r), (unsigned)in_flight, r->took_us, now_ms * 1000);
}

uint64_t cdc_flow_next_ms(const struct cdc_flow *f, size_t in_flight)
{
	return in_flight < cdc_throttle_limit(&f->throttle) ? f->free_ms : UINT64_MAX;
}
