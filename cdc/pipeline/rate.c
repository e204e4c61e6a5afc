#include "cdc/pipeline/rate.h"

#define ONE INT64_C(1000)

/* A tenth of a second's worth, and at least one. */
static int64_t capacity(const struct cdc_rate *r)
{
	int64_t tenth = (int64_t)r->per_s * (ONE / 10);

	return tenth > ONE ? tenth : ONE;
}

static int64_t level_at(const struct cdc_rate *r, uint64_t now_ms)
{
	uint64_t ms = now_ms > r->at_ms ? now_ms - r->at_ms : 0;
	uint64_t missing = (uint64_t)(capacity(r) - r->level);

	/* per_s a second are per_s thousandths a millisecond. */
	return ms > missing / r->per_s ? capacity(r) : r->level + (int64_t)(ms * r->per_s);
}

void cdc_rate_init(struct cdc_rate *r, uint64_t per_s, uint64_t now_ms)
{
	*r = (struct cdc_rate){.per_s = per_s < CDC_RATE_MAX ? per_s : CDC_RATE_MAX,
			       .at_ms = now_ms};
	r->level = capacity(r);
}

uint64_t cdc_rate_next_ms(const struct cdc_rate *r, uint64_t now_ms)
{
	uint64_t missing;
	int64_t level;

	if (!r->per_s)
		return now_ms;
	level = level_at(r, now_ms);
	if (level >= ONE)
		return now_ms;
	missing = (uint64_t)(ONE - level);
	return now_ms + (missing + r->per_s - 1) / r->per_s;
}

void cdc_rate_take(struct cdc_rate *r, uint64_t cost, uint64_t now_ms)
{
	if (!r->per_s)
		return;
	r->level = level_at(r, now_ms) - (int64_t)cost * ONE;
	if (r->at_ms < now_ms)
		r->at_ms = now_ms;
}
