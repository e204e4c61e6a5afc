#include "cdc/pipeline/breaker.h"

#include "cdc/pipeline/backoff.h"

bool cdc_breaker_accept(struct cdc_breaker *b)
{
	bool was_open = b->state != CDC_BREAKER_CLOSED;

	*b = (struct cdc_breaker){.state = CDC_BREAKER_CLOSED};
	return was_open;
}

static void open_breaker(struct cdc_breaker *b, uint64_t now_ms, uint64_t random)
{
	b->state = CDC_BREAKER_OPEN;
	b->openings++;
	b->until_ms = now_ms + cdc_backoff_ms(b->openings, random);
	if (b->until_ms < b->asked_ms)
		b->until_ms = b->asked_ms;
}

static bool is_due(const struct cdc_breaker *b, uint64_t now_ms)
{
	return b->state == CDC_BREAKER_CLOSED && b->has_begun &&
	       (b->failures >= CDC_BREAKER_FAILURES || now_ms - b->first_ms >= CDC_BREAKER_MS);
}

void cdc_breaker_doubt(struct cdc_breaker *b, uint64_t now_ms)
{
	if (!b->has_begun)
		b->first_ms = now_ms;
	b->has_begun = true;
}

bool cdc_breaker_fail(struct cdc_breaker *b, bool is_probe, uint64_t retry_after_ms,
		      uint64_t now_ms, uint64_t random)
{
	cdc_breaker_doubt(b, now_ms);
	if (b->failures != UINT32_MAX)
		b->failures++;
	if (retry_after_ms > CDC_RETRY_AFTER_CAP)
		retry_after_ms = CDC_RETRY_AFTER_CAP;
	if (retry_after_ms && b->asked_ms < now_ms + retry_after_ms)
		b->asked_ms = now_ms + retry_after_ms;
	if (b->state == CDC_BREAKER_OPEN && b->until_ms < b->asked_ms)
		b->until_ms = b->asked_ms;
	if (!is_due(b, now_ms) && !(is_probe && b->state == CDC_BREAKER_HALF_OPEN))
		return false;
	open_breaker(b, now_ms, random);
	return true;
}

bool cdc_breaker_tick(struct cdc_breaker *b, uint64_t now_ms, uint64_t random)
{
	if (!is_due(b, now_ms))
		return false;
	open_breaker(b, now_ms, random);
	return true;
}

bool cdc_breaker_may_probe(const struct cdc_breaker *b, uint64_t now_ms)
{
	return b->state == CDC_BREAKER_OPEN && now_ms >= b->until_ms;
}

void cdc_breaker_probe(struct cdc_breaker *b)
{
	b->state = CDC_BREAKER_HALF_OPEN;
}

uint64_t cdc_breaker_next_ms(const struct cdc_breaker *b)
{
	switch (b->state) {
	case CDC_BREAKER_CLOSED:
		return b->has_begun ? b->first_ms + CDC_BREAKER_MS : UINT64_MAX;
	case CDC_BREAKER_OPEN:
		return b->until_ms;
	case CDC_BREAKER_HALF_OPEN:
		break;
	}
	return UINT64_MAX;
}
