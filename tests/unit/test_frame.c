/* The frames of a replication stream, byte by byte, and the storm of a server that stops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cdc/base/clock.h"
#include "cdc/source/frame.h"

static void data_is_taken_apart(void **state)
{
	static const uint8_t bytes[] = {'w', 0, 0, 0, 1,    0x16, 0xb3, 0x74, 0x80,
					0,   0, 0, 1, 0x16, 0xb3, 0x75, 0,    0,
					0,   0, 0, 0, 0,    0,    0,    'B',  'x'};
	struct cdc_frame f;

	(void)state;
	assert_int_equal(cdc_frame_parse(bytes, sizeof(bytes), &f, NULL), CDC_OK);
	assert_int_equal(f.kind, CDC_FRAME_DATA);
	assert_int_equal(f.start, UINT64_C(0x116b37480));
	assert_int_equal(f.wal_end, UINT64_C(0x116b37500));
	assert_int_equal(f.len, 2);
	assert_ptr_equal(f.payload, bytes + 25);
	assert_false(f.reply_requested);
}

static void data_may_be_empty(void **state)
{
	uint8_t bytes[25] = {'w'};
	struct cdc_frame f;

	(void)state;
	assert_int_equal(cdc_frame_parse(bytes, sizeof(bytes), &f, NULL), CDC_OK);
	assert_int_equal(f.len, 0);
}

static void keepalive_is_taken_apart(void **state)
{
	static const uint8_t bytes[] = {'k', 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1};
	struct cdc_frame f;

	(void)state;
	assert_int_equal(cdc_frame_parse(bytes, sizeof(bytes), &f, NULL), CDC_OK);
	assert_int_equal(f.kind, CDC_FRAME_KEEPALIVE);
	assert_int_equal(f.wal_end, 0x01020304);
	assert_int_equal(f.start, 0);
	assert_true(f.reply_requested);
}

static void every_cut_and_every_other_kind_is_refused(void **state)
{
	uint8_t bytes[26] = {'w'};
	struct cdc_err err;
	struct cdc_frame f;

	(void)state;
	for (size_t n = 0; n < 25; n++)
		assert_int_equal(cdc_frame_parse(bytes, n, &f, &err), CDC_PROTO);
	bytes[0] = 'k';
	for (size_t n = 0; n < sizeof(bytes); n++)
		assert_int_equal(cdc_frame_parse(bytes, n, &f, &err), n == 18 ? CDC_OK : CDC_PROTO);
	for (unsigned kind = 0; kind < 256; kind++) {
		bytes[0] = (uint8_t)kind;
		if (kind != 'w' && kind != 'k')
			assert_int_equal(cdc_frame_parse(bytes, 25, &f, &err), CDC_PROTO);
	}
}

static void status_says_all_three_positions(void **state)
{
	static const uint8_t expected[CDC_FRAME_STATUS] = {'r', 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0,
							   0,   0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1,
							   0,   0, 0, 0, 0, 0, 0, 0, 7, 1};
	uint8_t bytes[CDC_FRAME_STATUS];

	(void)state;
	cdc_frame_status(0x200, 0x100, CDC_POSTGRES_EPOCH_US + 7, true, bytes);
	assert_memory_equal(bytes, expected, sizeof(bytes));
}

static void status_never_reports_less_written_than_flushed(void **state)
{
	uint8_t bytes[CDC_FRAME_STATUS];

	(void)state;
	cdc_frame_status(0, 0x100, 0, false, bytes);
	assert_memory_equal(bytes + 1, bytes + 9, 8);
	assert_int_equal(bytes[CDC_FRAME_STATUS - 1], 0);
}

static void five_pings_within_a_second_are_a_storm(void **state)
{
	struct cdc_pings p = {0};

	(void)state;
	for (uint64_t i = 0; i < CDC_STORM_PINGS - 1; i++)
		assert_false(cdc_pings_note(&p, 10, 1000 + i));
	assert_true(cdc_pings_note(&p, 10, 2000));
}

static void slow_pings_are_none(void **state)
{
	struct cdc_pings p = {0};

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		assert_false(cdc_pings_note(&p, 10, i * 251));
	/* But as soon as five come fast, they are. */
	for (uint64_t i = 0; i < CDC_STORM_PINGS - 1; i++)
		assert_false(cdc_pings_note(&p, 10, 50000 + i));
	assert_true(cdc_pings_note(&p, 10, 50010));
}

static void pings_of_a_log_that_grows_are_none(void **state)
{
	struct cdc_pings p = {0};

	(void)state;
	for (uint64_t i = 0; i < 100; i++)
		assert_false(cdc_pings_note(&p, i + 1, 1000 + i));
	assert_false(cdc_pings_note(&p, 100, 1101));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_is_taken_apart),
		cmocka_unit_test(data_may_be_empty),
		cmocka_unit_test(keepalive_is_taken_apart),
		cmocka_unit_test(every_cut_and_every_other_kind_is_refused),
		cmocka_unit_test(status_says_all_three_positions),
		cmocka_unit_test(status_never_reports_less_written_than_flushed),
		cmocka_unit_test(five_pings_within_a_second_are_a_storm),
		cmocka_unit_test(slow_pings_are_none),
		cmocka_unit_test(pings_of_a_log_that_grows_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
