#include "cdc/pipeline/throttle.h"

#define FALL_PRESSED 0.7
#define FALL_SLOW    0.9
#define RECENT       0.125 /* weight of one answer in what is recent */
#define FOLLOW       0.05  /* the same, in the base, when nothing queues by our doing */
/* Slow is twice as long as without a queue; answers of a few milliseconds vary more than that. */
#define SLOW_TIMES   2.0
#define SLOW_MORE_US 10000.0

void cdc_throttle_init(struct cdc_throttle *t, unsigned min, unsigned max)
{
	if (min == 0 || min > max)
		min = max;
	*t = (struct cdc_throttle){.min = min, .max = max, .limit = min};
}

unsigned cdc_throttle_limit(const struct cdc_throttle *t)
{
	return (unsigned)t->limit;
}

static void fall(struct cdc_throttle *t, double factor, uint64_t now_us)
{
	t->limit *= factor;
	if (t->limit < t->min)
		t->limit = t->min;
	t->fallen_us = now_us;
	t->has_fallen = true;
}

static void rise(struct cdc_throttle *t, unsigned in_flight)
{
	/* What is not used up says nothing about more. */
	if (in_flight < cdc_throttle_limit(t))
		return;
	t->limit += t->has_fallen ? 1 / t->limit : 1;
	if (t->limit > t->max)
		t->limit = t->max;
}

static void measure(struct cdc_throttle *t, double took_us)
{
	t->recent_us += t->recent_us > 0 ? (took_us - t->recent_us) * RECENT : took_us;
	if (!(t->base_us > 0) || t->recent_us < t->base_us)
		t->base_us = t->recent_us;
	else if (cdc_throttle_limit(t) == t->min)
		t->base_us += (t->recent_us - t->base_us) * FOLLOW;
}

void cdc_throttle_note(struct cdc_throttle *t, enum cdc_throttle_sign sign, unsigned in_flight,
		       uint64_t took_us, uint64_t now_us)
{
	bool is_old = t->has_fallen && now_us - took_us < t->fallen_us;

	if (t->min == t->max)
		return;
	switch (sign) {
	case CDC_THROTTLE_NEUTRAL:
		return;
	case CDC_THROTTLE_PRESSED:
		if (!is_old)
			fall(t, FALL_PRESSED, now_us);
		return;
	case CDC_THROTTLE_GOOD:
		measure(t, (double)took_us);
		if (t->recent_us <= t->base_us * SLOW_TIMES + SLOW_MORE_US)
			rise(t, in_flight);
		else if (!is_old)
			fall(t, FALL_SLOW, now_us);
	}
}
