/* Memory that goes all at once, and never more of it than was allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "cdc/base/arena.h"
#include "cdc/base/err.h"

#define ALIGN _Alignof(max_align_t)

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i])
			return false;
	}
	return true;
}

static void objects_are_zeroed_aligned_and_apart(void **state)
{
	static const size_t sizes[] = {1, 7, 16, 17, 100, 16384, 16385, 1, 100000, 3};
	CDC_AUTO(cdc_arena_freep) struct cdc_arena *a = cdc_arena_new(1 << 20);
	uint8_t *p[10];

	(void)state;
	assert_non_null(a);
	for (size_t i = 0; i < 10; i++) {
		p[i] = cdc_arena_alloc(a, sizes[i]);
		assert_non_null(p[i]);
		assert_int_equal((uintptr_t)p[i] % ALIGN, 0);
		assert_true(is_zero(p[i], sizes[i]));
		memset(p[i], (int)i + 1, sizes[i]);
	}
	for (size_t i = 0; i < 10; i++) {
		for (size_t k = 0; k < sizes[i]; k++)
			assert_int_equal(p[i][k], i + 1);
	}
}

static void no_more_than_the_limit_is_handed_out(void **state)
{
	CDC_AUTO(cdc_arena_freep) struct cdc_arena *a = cdc_arena_new(1000);
	size_t n = 0;

	(void)state;
	assert_null(cdc_arena_alloc(a, 1001));
	assert_null(cdc_arena_alloc(a, SIZE_MAX));
	assert_null(cdc_arena_copy(a, "", SIZE_MAX));
	while (cdc_arena_alloc(a, 16))
		n++;
	assert_int_equal(n, 1000 / 16);
	assert_null(cdc_arena_alloc(a, 16));
	/* What was refused took nothing. */
	assert_non_null(cdc_arena_alloc(a, 8));
	assert_null(cdc_arena_alloc(a, 1));
	cdc_arena_reset(a);
	assert_non_null(cdc_arena_alloc(a, 1000));
	assert_null(cdc_arena_alloc(a, 1));
}

static void after_reset_memory_is_zero_again(void **state)
{
	CDC_AUTO(cdc_arena_freep) struct cdc_arena *a = cdc_arena_new(1 << 20);

	(void)state;
	for (int round = 0; round < 5; round++) {
		for (size_t i = 0; i < 40; i++) {
			size_t n = i * 37 + 1;
			uint8_t *p = cdc_arena_alloc(a, n);

			assert_non_null(p);
			assert_true(is_zero(p, n));
			memset(p, 0xff, n);
		}
		if (round % 2)
			assert_non_null(cdc_arena_alloc(a, 50000)); /* a chunk of its own */
		cdc_arena_reset(a);
	}
}

static void nothing_has_an_address_too(void **state)
{
	CDC_AUTO(cdc_arena_freep) struct cdc_arena *a = cdc_arena_new(0);

	(void)state;
	assert_non_null(cdc_arena_alloc(a, 0));
	assert_null(cdc_arena_alloc(a, 1));
}

static void copies_end_with_a_nul(void **state)
{
	CDC_AUTO(cdc_arena_freep) struct cdc_arena *a = cdc_arena_new(100);
	char *p;

	(void)state;
	p = cdc_arena_copy(a, "ab\0cd", 5);
	assert_memory_equal(p, "ab\0cd", 6);
	assert_string_equal(cdc_arena_copy(a, NULL, 0), "");
	assert_string_equal(cdc_arena_strdup(a, "xyz"), "xyz");
}

static void freeing_nothing_is_fine(void **state)
{
	struct cdc_arena *none = NULL;

	(void)state;
	cdc_arena_free(NULL);
	cdc_arena_freep(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_are_zeroed_aligned_and_apart),
		cmocka_unit_test(no_more_than_the_limit_is_handed_out),
		cmocka_unit_test(after_reset_memory_is_zero_again),
		cmocka_unit_test(nothing_has_an_address_too),
		cmocka_unit_test(copies_end_with_a_nul),
		cmocka_unit_test(freeing_nothing_is_fine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
