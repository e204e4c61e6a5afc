#include "cdc/pipeline/pace.h"

static uint64_t at_least(uint64_t n, uint64_t least)
{
	return n > least ? n : least;
}

void cdc_pace_slower(struct cdc_pace *p, uint64_t rows_per_second)
{
	if (p->limit == 0) {
		p->free = rows_per_second;
		p->limit = rows_per_second;
	}
	p->limit = at_least(at_least(p->limit / 2, p->free / CDC_PACE_SHARE), CDC_PACE_LOWEST);
}

void cdc_pace_faster(struct cdc_pace *p)
{
	p->limit = p->limit < p->free / 2 ? p->limit * 2 : 0;
}

uint64_t cdc_pace_lower(uint64_t a, uint64_t b)
{
	return a == 0 || (b && b < a) ? b : a;
}
