#include "cdc/base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define CHUNK_BYTES 0 /* every object is larger than that, so has a chunk of its own */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHUNK_BYTES 0
#endif
#endif
#ifndef CHUNK_BYTES
#define CHUNK_BYTES 16384 /* a table's description fits; few chunks per arena */
#endif

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(max_align_t) uint8_t bytes[];
};

struct cdc_arena {
	struct chunk *chunks; /* the newest first */
	size_t limit, used;
};

struct cdc_arena *cdc_arena_new(size_t limit)
{
	struct cdc_arena *a = calloc(1, sizeof(*a));

	if (a)
		a->limit = limit;
	return a;
}

static void free_chunks(struct chunk *c)
{
	while (c) {
		struct chunk *next = c->next;

		free(c);
		c = next;
	}
}

void cdc_arena_free(struct cdc_arena *a)
{
	if (a)
		free_chunks(a->chunks);
	free(a);
}

void cdc_arena_freep(struct cdc_arena **a)
{
	cdc_arena_free(*a);
}

void cdc_arena_reset(struct cdc_arena *a)
{
	if (a->chunks && a->chunks->size == CHUNK_BYTES) {
		free_chunks(a->chunks->next);
		a->chunks->next = NULL;
		memset(a->chunks->bytes, 0, a->chunks->used);
		a->chunks->used = 0;
	} else {
		free_chunks(a->chunks);
		a->chunks = NULL;
	}
	a->used = 0;
}

void *cdc_arena_alloc(struct cdc_arena *a, size_t n)
{
	const size_t align = _Alignof(max_align_t);
	struct chunk *c = a->chunks;
	size_t size;
	void *p;

	if (n > a->limit - a->used)
		return NULL;
	size = (n + align - 1) / align * align;
	if (!c || c->size - c->used < size || size == 0) {
		size_t want = size > CHUNK_BYTES ? size : CHUNK_BYTES;

		c = calloc(1, sizeof(*c) + (want ? want : align));
		if (!c)
			return NULL;
		c->size = want;
		c->next = a->chunks;
		a->chunks = c;
	}
	p = c->bytes + c->used;
	c->used += size;
	/* An object cannot take more than what is left of the limit, padding aside. */
	a->used += size > a->limit - a->used ? a->limit - a->used : size;
	return p;
}

char *cdc_arena_copy(struct cdc_arena *a, const void *bytes, size_t n)
{
	char *p = n < SIZE_MAX ? cdc_arena_alloc(a, n + 1) : NULL;

	if (p && n)
		memcpy(p, bytes, n);
	return p;
}

char *cdc_arena_strdup(struct cdc_arena *a, const char *s)
{
	return cdc_arena_copy(a, s, strlen(s));
}
