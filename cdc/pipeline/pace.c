#include "cdc/pipeline/pace.h"

void cdc_pace_init(struct cdc_pace *p, const struct cdc_pace_settings *s, uint64_t now_ms)
{
	*p = (struct cdc_pace){.free_ms = 0};
	cdc_rate_init(&p->requests, s->requests_per_second, now_ms);
	cdc_rate_init(&p->records, s->records_per_second, now_ms);
	cdc_throttle_init(&p->throttle, (unsigned)s->min, (unsigned)s->max);
}

void cdc_pace_started(struct cdc_pace *p, size_t records, uint64_t now_ms)
{
	uint64_t requests_ms, records_ms;

	if (!p->requests.per_s && !p->records.per_s)
		return;
	cdc_rate_take(&p->requests, 1, now_ms);
	cdc_rate_take(&p->records, records, now_ms);
	requests_ms = cdc_rate_next_ms(&p->requests, now_ms);
	records_ms = cdc_rate_next_ms(&p->records, now_ms);
	p->free_ms = requests_ms > records_ms ? requests_ms : records_ms;
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

void cdc_pace_ended(struct cdc_pace *p, const struct sink_result *r, size_t in_flight,
		    uint64_t now_ms)
{
	cdc_throttle_note(&p->throttle, sign_of(r), (unsigned)in_flight, r->took_us, now_ms * 1000);
}

uint64_t cdc_pace_next_ms(const struct cdc_pace *p, size_t in_flight)
{
	return in_flight < cdc_throttle_limit(&p->throttle) ? p->free_ms : UINT64_MAX;
}
