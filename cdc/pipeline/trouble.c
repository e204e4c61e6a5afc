#include "cdc/pipeline/trouble.h"

bool cdc_suspect_fail(struct cdc_suspect *s, const struct sink_result *result, uint64_t at,
		      uint64_t accepted_begun, bool is_order_sync, uint64_t now_ms)
{
	if (result->is_never_record)
		return false;
	/* Refused for as long, without an outage in between, which says nothing about it. */
	if (is_order_sync && result->is_transient) {
		*s = (struct cdc_suspect){0};
		return false;
	}
	if (s->failures == 0) {
		*s = (struct cdc_suspect){.failures = 1, .failed_at = at, .first_ms = now_ms};
		return false;
	}
	if (is_order_sync)
		return now_ms - s->first_ms >= CDC_TROUBLE_AFTER_MS;
	if (accepted_begun <= s->failed_at)
		return false;
	s->failures++;
	s->failed_at = at;
	return result->is_transient ? s->failures >= CDC_TROUBLE_ATTEMPTS &&
					      now_ms - s->first_ms >= CDC_TROUBLE_AFTER_MS
				    : s->failures >= 2;
}
