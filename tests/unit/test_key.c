/* The hash of a key: lanes and partitions hang on it, so it never changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/record/key.h"

/* What another implementation of XXH3-64 (python-xxhash) says about the name, a NUL, and that many
 * "k"; the sizes lie round the one up to which the bytes are joined first. */
static const struct {
	const char *table;
	size_t key_len;
	uint64_t hash;
} known[] = {
	{"t", 0, UINT64_C(0x0f4b130027335bf7)},
	{"t", 1, UINT64_C(0x1ec7b07fac86dbd5)},
	{"t", 8, UINT64_C(0xb37e149f4931d2ff)},
	{"t", 509, UINT64_C(0x6784158fe08d1363)},
	{"t", 510, UINT64_C(0xb3b5486ba83bf67e)},
	{"t", 511, UINT64_C(0x0d7de675bf107a0b)},
	{"t", 5000, UINT64_C(0x576dfd3df3cdea62)},
	{"public.orders", 300, UINT64_C(0xa1f15b7e2ee2538a)},
};

static void hash_of_a_key_never_changes(void **state)
{
	char key[5000];

	(void)state;
	memset(key, 'k', sizeof(key));
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		assert_true(cdc_key_hash(known[i].table, strlen(known[i].table), key,
					 known[i].key_len) == known[i].hash);
	assert_true(cdc_key_hash("public.orders", 13, "{\"id\":1}", 8) ==
		    UINT64_C(0x829d3b554fb7fb43));
}

static void hash_of_a_long_table_name_never_changes(void **state)
{
	char name[520];

	(void)state;
	memset(name, 't', sizeof(name));
	assert_true(cdc_key_hash(name, sizeof(name), NULL, 0) == UINT64_C(0x414f235689086e43));
	assert_true(cdc_key_hash(name, sizeof(name), "kkkkkkkk", 8) ==
		    UINT64_C(0xfa6ab89ef98a560a));
}

static void table_and_key_are_told_apart(void **state)
{
	(void)state;
	assert_true(cdc_key_hash("ab", 2, "c", 1) != cdc_key_hash("a", 1, "bc", 2));
	assert_true(cdc_key_hash("a", 1, "k", 1) != cdc_key_hash("b", 1, "k", 1));
	assert_true(cdc_key_hash("a", 1, NULL, 0) != cdc_key_hash("a", 1, "null", 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_of_a_key_never_changes),
		cmocka_unit_test(hash_of_a_long_table_name_never_changes),
		cmocka_unit_test(table_and_key_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
