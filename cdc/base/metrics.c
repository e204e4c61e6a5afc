#include "cdc/base/metrics.h"

void cdc_histogram_add(struct cdc_histogram *h, uint64_t us, uint64_t n)
{
	static const uint64_t bounds[] = CDC_HISTOGRAM_BOUNDS_US;
	size_t i = 0;

	while (i < sizeof(bounds) / sizeof(bounds[0]) && us > bounds[i])
		i++;
	cdc_metric_add(&h->buckets[i], n);
	cdc_metric_add(&h->sum_us, us * n);
}
