/* Bytes that grow up to a maximum, and a failure that stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cdc/base/buf.h"

static void bytes_are_kept_in_order_while_it_grows(void **state)
{
	struct cdc_buf b;

	(void)state;
	cdc_buf_init(&b, 100000);
	assert_null(b.data);
	for (int i = 0; i < 10000; i++) {
		cdc_buf_putc(&b, (char)('a' + i % 26));
		if (i % 100 == 0)
			cdc_buf_put(&b, "", 0);
	}
	assert_false(b.failed);
	assert_int_equal(b.len, 10000);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(b.data[i], 'a' + i % 26);
	cdc_buf_clear(&b);
	assert_int_equal(b.len, 0);
	assert_int_equal(b.max, 100000);
}

static void it_takes_exactly_its_maximum(void **state)
{
	static const size_t maxima[] = {1, 2, 255, 256, 257, 1000, 4096, 5000};
	static uint8_t bytes[5001];

	(void)state;
	for (size_t i = 0; i < sizeof(maxima) / sizeof(maxima[0]); i++) {
		struct cdc_buf b;

		cdc_buf_init(&b, maxima[i]);
		cdc_buf_put(&b, bytes, maxima[i]);
		assert_false(b.failed);
		assert_int_equal(b.len, maxima[i]);
		assert_true(b.cap <= maxima[i]);
		cdc_buf_putc(&b, 'x');
		assert_true(b.failed);
		assert_int_equal(b.len, maxima[i]);
		cdc_buf_clear(&b);
		/* The same byte by byte. */
		for (size_t k = 0; k < maxima[i]; k++)
			cdc_buf_putc(&b, 'x');
		assert_false(b.failed);
		assert_true(b.cap <= maxima[i]);
		cdc_buf_putc(&b, 'x');
		assert_true(b.failed);
		cdc_buf_clear(&b);
	}
}

static void a_failure_stays_until_reset(void **state)
{
	struct cdc_buf b;

	(void)state;
	cdc_buf_init(&b, 10);
	cdc_buf_puts(&b, "12345678");
	cdc_buf_puts(&b, "9012");
	assert_true(b.failed);
	/* Also what would fit: a message is whole or it is none. */
	cdc_buf_putc(&b, '9');
	assert_null(cdc_buf_reserve(&b, 1));
	assert_int_equal(b.len, 8);
	assert_memory_equal(b.data, "12345678", 8);
	cdc_buf_reset(&b, 10);
	assert_false(b.failed);
	assert_int_equal(b.len, 0);
	assert_non_null(b.data);
	cdc_buf_puts(&b, "0123456789");
	assert_false(b.failed);
	cdc_buf_reset(&b, 9);
	assert_null(b.data);
	cdc_buf_clear(&b);
}

static void sizes_near_the_largest_do_not_wrap(void **state)
{
	struct cdc_buf b;

	(void)state;
	cdc_buf_init(&b, SIZE_MAX);
	cdc_buf_puts(&b, "abc");
	assert_null(cdc_buf_reserve(&b, SIZE_MAX));
	assert_true(b.failed);
	assert_int_equal(b.len, 3);
	cdc_buf_clear(&b);
	cdc_buf_init(&b, 0);
	cdc_buf_putc(&b, 'x');
	assert_true(b.failed);
	assert_null(b.data);
	cdc_buf_clear(&b);
}

static void reserved_bytes_are_the_callers_to_fill(void **state)
{
	struct cdc_buf b;
	uint8_t *to;

	(void)state;
	cdc_buf_init(&b, 1000);
	to = cdc_buf_reserve(&b, 600);
	assert_non_null(to);
	assert_int_equal(b.len, 0);
	memset(to, 'x', 600);
	b.len += 300;
	to = cdc_buf_reserve(&b, 300);
	assert_ptr_equal(to, b.data + 300);
	assert_null(cdc_buf_reserve(&b, 701));
	cdc_buf_clear(&b);
}

static void formatting_is_whole_or_fails(void **state)
{
	struct cdc_buf b;

	(void)state;
	cdc_buf_init(&b, 12);
	cdc_buf_printf(&b, "%d-%s", 42, "abc");
	cdc_buf_printf(&b, "%s", "");
	assert_false(b.failed);
	assert_int_equal(b.len, 6);
	assert_memory_equal(b.data, "42-abc", 6);
	cdc_buf_printf(&b, "%s", "1234567");
	assert_true(b.failed);
	assert_int_equal(b.len, 6);
	cdc_buf_clear(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_kept_in_order_while_it_grows),
		cmocka_unit_test(it_takes_exactly_its_maximum),
		cmocka_unit_test(a_failure_stays_until_reset),
		cmocka_unit_test(sizes_near_the_largest_do_not_wrap),
		cmocka_unit_test(reserved_bytes_are_the_callers_to_fill),
		cmocka_unit_test(formatting_is_whole_or_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
