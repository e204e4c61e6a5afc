/* Text of a server that does not vouch for it, made UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cdc/source/latin.h"

static void expect(const char *text, const char *utf8)
{
	char out[64];
	const size_t size = cdc_latin_size(text, strlen(text));

	assert_int_equal(size, strlen(utf8));
	cdc_latin_write(text, strlen(text), out);
	assert_memory_equal(out, utf8, size);
}

static void what_is_utf8_stays(void **state)
{
	(void)state;
	expect("", "");
	expect("plain text of more than eight bytes", "plain text of more than eight bytes");
	expect("\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xef\xbf\xbf",
	       "\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xef\xbf\xbf");
	expect("\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf", "\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf");
}

static void every_other_byte_is_latin_1(void **state)
{
	(void)state;
	expect("caf\xe9", "caf\xc3\xa9");
	expect("\xff\xfe", "\xc3\xbf\xc3\xbe");
	/* Overlong, a surrogate, above U+10FFFF, cut off. */
	expect("\xc0\xaf", "\xc3\x80\xc2\xaf");
	expect("\xe0\x80\xaf", "\xc3\xa0\xc2\x80\xc2\xaf");
	expect("\xed\xa0\x80", "\xc3\xad\xc2\xa0\xc2\x80");
	expect("\xf4\x90\x80\x80", "\xc3\xb4\xc2\x90\xc2\x80\xc2\x80");
	expect("12345678\xe2\x82", "12345678\xc3\xa2\xc2\x82");
	/* A good character next to bad bytes. */
	expect("\xe9\xc3\xa9\xe9", "\xc3\xa9\xc3\xa9\xc3\xa9");
}

static void what_is_written_is_utf8(void **state)
{
	unsigned char text[24];
	char out[2 * sizeof(text)];
	uint32_t seed = 1;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		size_t size;

		for (size_t i = 0; i < sizeof(text); i++) {
			seed = seed * 1664525 + 1013904223;
			/* Mostly bytes with the high bit, so that characters come about. */
			text[i] = (unsigned char)(seed >> 24 | (seed & 0x300 ? 0x80 : 0));
		}
		size = cdc_latin_size((const char *)text, sizeof(text));
		assert_in_range(size, sizeof(text), sizeof(out));
		cdc_latin_write((const char *)text, sizeof(text), out);
		assert_int_equal(cdc_latin_size(out, size), size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_utf8_stays),
		cmocka_unit_test(every_other_byte_is_latin_1),
		cmocka_unit_test(what_is_written_is_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
