#include "cdc/pipeline/backoff.h"

#include <sys/random.h>

uint64_t cdc_backoff_ms(unsigned attempt, uint64_t random)
{
	uint64_t bound = CDC_BACKOFF_BASE_MS;

	for (unsigned i = 1; i < attempt && bound < CDC_BACKOFF_CAP_MS; i++)
		bound *= 2;
	if (bound > CDC_BACKOFF_CAP_MS)
		bound = CDC_BACKOFF_CAP_MS;
	return random % (bound + 1);
}

uint64_t cdc_backoff_random(void)
{
	uint64_t r = 0;

	(void)!getrandom(&r, sizeof(r), 0);
	return r;
}
