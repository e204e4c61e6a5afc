#include "cdc/pipeline/trouble.h"

bool cdc_suspect_fail(struct cdc_suspect *s, const struct sink_result *result,
		      const struct cdc_suspect_rule *rule)
{
	if (result->is_never_record)
		return false;
	/* Refused for as long, without an outage in between, which says nothing about it. */
	if (rule->is_order_sync && result->is_transient) {
		*s = (struct cdc_suspect){0};
		return false;
	}
	if (s->failures == 0) {
		*s = (struct cdc_suspect){
			.failures = 1, .failed_at = rule->at, .first_ms = rule->now_ms};
		return false;
	}
	if (rule->is_order_sync)
		return rule->now_ms - s->first_ms >= rule->after_ms;
	if (rule->accepted_begun <= s->failed_at)
		return false;
	s->failures++;
	s->failed_at = rule->at;
	return result->is_transient ? s->failures >= rule->attempts &&
					      rule->now_ms - s->first_ms >= rule->after_ms
				    : s->failures >= 2;
}
