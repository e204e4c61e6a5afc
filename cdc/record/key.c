#include "cdc/record/key.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include <xxhash.h>

uint64_t cdc_table_hash(const char *name, size_t len)
{
	return XXH3_64bits(name, len);
}

uint64_t cdc_key_hash(const char *table, size_t table_len, const char *key, size_t key_len)
{
	char joined[512]; /* names are 127 bytes at most and keys are short, nearly always */
	XXH3_state_t state;

	if (table_len < sizeof(joined) && key_len < sizeof(joined) - table_len) {
		memcpy(joined, table, table_len);
		joined[table_len] = '\0';
		if (key_len)
			memcpy(joined + table_len + 1, key, key_len);
		return XXH3_64bits(joined, table_len + 1 + key_len);
	}
	(void)XXH3_64bits_reset(&state);
	(void)XXH3_64bits_update(&state, table, table_len);
	(void)XXH3_64bits_update(&state, "", 1);
	(void)XXH3_64bits_update(&state, key, key_len);
	return XXH3_64bits_digest(&state);
}
