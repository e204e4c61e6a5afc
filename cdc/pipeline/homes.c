#include "cdc/pipeline/homes.h"

#include <stdlib.h>

#include "cdc/base/err.h"

#define CAP_MIN 256

static size_t place_of(const struct cdc_homes *h, uint64_t hash)
{
	size_t i = hash & (h->cap - 1);

	while (h->places[i].n && h->places[i].hash != hash)
		i = (i + 1) & (h->cap - 1);
	return i;
}

void cdc_homes_clear(struct cdc_homes *h)
{
	free(h->places);
	*h = (struct cdc_homes){0};
}

bool cdc_homes_reserve(struct cdc_homes *h, size_t more)
{
	struct cdc_homes grown = {.n = h->n, .cap = h->cap ? h->cap : CAP_MIN};

	while (grown.cap / 2 < h->n + more)
		grown.cap *= 2;
	if (grown.cap == h->cap)
		return true;
	grown.places = calloc(grown.cap, sizeof(*grown.places));
	if (!grown.places)
		return false;
	for (size_t i = 0; i < h->cap; i++) {
		if (h->places[i].n)
			grown.places[place_of(&grown, h->places[i].hash)] = h->places[i];
	}
	free(h->places);
	*h = grown;
	return true;
}

struct cdc_home *cdc_homes_find(const struct cdc_homes *h, uint64_t hash)
{
	struct cdc_home *home = h->cap ? &h->places[place_of(h, hash)] : NULL;

	return home && home->n ? home : NULL;
}

struct cdc_home *cdc_homes_enter(struct cdc_homes *h, uint64_t hash)
{
	struct cdc_home *home;

	CDC_ASSERT(h->n < h->cap);
	home = &h->places[place_of(h, hash)];
	h->n += !home->n;
	home->hash = hash;
	home->n++;
	return home;
}

/* What stands behind a free place and would not be found across it moves into it. */
static void close_gap(struct cdc_homes *h, size_t gap)
{
	size_t mask = h->cap - 1;

	for (size_t i = (gap + 1) & mask; h->places[i].n; i = (i + 1) & mask) {
		size_t own = h->places[i].hash & mask;

		if (((i - own) & mask) < ((i - gap) & mask))
			continue;
		h->places[gap] = h->places[i];
		h->places[i].n = 0;
		gap = i;
	}
}

void cdc_homes_leave(struct cdc_homes *h, uint64_t hash)
{
	size_t at = place_of(h, hash);

	CDC_ASSERT(h->places[at].n);
	if (--h->places[at].n)
		return;
	h->n--;
	close_gap(h, at);
}
