#include "cdc/source/text_map.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_SLOTS 64u

void cdc_text_map_init(struct cdc_text_map *m, size_t max_bytes)
{
	*m = (struct cdc_text_map){.max_bytes = max_bytes};
}

void cdc_text_map_clear(struct cdc_text_map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		free(m->slots[i].text);
	free(m->slots);
	cdc_text_map_init(m, m->max_bytes);
}

/* FNV-1a. */
static uint64_t hash_of(const void *key, size_t n)
{
	const uint8_t *at = key;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < n; i++)
		h = (h ^ at[i]) * UINT64_C(0x100000001b3);
	return h ^ h >> 32;
}

/* The slot of the key, or the free one where it belongs; the map has slots. */
static struct cdc_text_slot *find(const struct cdc_text_map *m, uint64_t hash, const void *key,
				  size_t key_len)
{
	size_t i = hash & (m->cap - 1);

	for (;; i = (i + 1) & (m->cap - 1)) {
		struct cdc_text_slot *s = &m->slots[i];

		if (!s->text || (s->hash == hash && s->key_len == key_len &&
				 memcmp(s->text + s->text_len + 1, key, key_len) == 0))
			return s;
	}
}

static bool grow(struct cdc_text_map *m)
{
	struct cdc_text_map wider = *m;

	if ((m->n + 1) * 2 <= m->cap)
		return true;
	wider.cap = m->cap ? m->cap * 2 : FIRST_SLOTS;
	wider.slots = calloc(wider.cap, sizeof(*wider.slots));
	if (!wider.slots)
		return false;
	for (size_t i = 0; i < m->cap; i++) {
		const struct cdc_text_slot *s = &m->slots[i];

		if (s->text)
			*find(&wider, s->hash, s->text + s->text_len + 1, s->key_len) = *s;
	}
	free(m->slots);
	*m = wider;
	return true;
}

const char *cdc_text_map_get(const struct cdc_text_map *m, const void *key, size_t key_len)
{
	return m->cap ? find(m, hash_of(key, key_len), key, key_len)->text : NULL;
}

bool cdc_text_map_put(struct cdc_text_map *m, const void *key, size_t key_len, const char *text,
		      size_t text_len)
{
	const uint64_t hash = hash_of(key, key_len);
	const size_t bytes = key_len + text_len + 1;
	struct cdc_text_slot *s;
	size_t former;
	char *copy;

	if (!grow(m))
		return false;
	s = find(m, hash, key, key_len);
	former = s->text ? s->key_len + s->text_len + 1 : 0;
	if (bytes > m->max_bytes || m->bytes - former > m->max_bytes - bytes)
		return false;
	copy = malloc(bytes);
	if (!copy)
		return false;
	memcpy(copy, text, text_len);
	copy[text_len] = '\0';
	memcpy(copy + text_len + 1, key, key_len);
	m->n += !s->text;
	m->bytes += bytes - former;
	free(s->text);
	*s = (struct cdc_text_slot){
		.text = copy, .text_len = text_len, .key_len = key_len, .hash = hash};
	return true;
}
