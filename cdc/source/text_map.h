/*
 * text_map.h - texts by a key of bytes, with a maximum.
 *
 * Threads: a map belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_TEXT_MAP_H
#define CDC_SOURCE_TEXT_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cdc_text_slot {
	char *text; /* NUL-terminated, and the key behind it; NULL: the slot is free */
	size_t text_len, key_len;
	uint64_t hash;
};

struct cdc_text_map {
	struct cdc_text_slot *slots; /* open addressing */
	size_t n, cap;               /* cap: 0 or a power of two */
	size_t bytes, max_bytes;     /* of keys and texts */
};

/* max_bytes: of all keys and texts together.  Allocates nothing yet. */
void cdc_text_map_init(struct cdc_text_map *m, size_t max_bytes);
/* Frees everything; the map is then as after init. */
void cdc_text_map_clear(struct cdc_text_map *m);

/* The text of the key, valid until the next put of that key or clear; NULL: there is none. */
const char *cdc_text_map_get(const struct cdc_text_map *m, const void *key, size_t key_len);

/* Puts a text in the place of the key's former one.  False: out of memory, or beyond the
 * maximum; nothing has changed then. */
bool cdc_text_map_put(struct cdc_text_map *m, const void *key, size_t key_len, const char *text,
		      size_t text_len);

#endif
