/* How a slot stands: the part of its budget, and the statement for every version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cdc/source/slot_watch.h"

static void without_a_limit_of_the_servers_the_setting_is_the_budget(void **state)
{
	struct cdc_slot_report r = {.wal_status = CDC_WAL_EXTENDED, .retained_bytes = 500};

	(void)state;
	cdc_slot_measure(&r, 1000);
	assert_int_equal(r.budget_bytes, 1000);
	assert_int_equal(r.used_percent, 50);
	r.retained_bytes = 2500;
	cdc_slot_measure(&r, 1000);
	assert_int_equal(r.used_percent, 250);
}

static void with_a_limit_the_server_says_what_is_left(void **state)
{
	struct cdc_slot_report r = {.wal_status = CDC_WAL_RESERVED,
				    .retained_bytes = 70,
				    .has_limit = true,
				    .safe_bytes = 30};

	(void)state;
	cdc_slot_measure(&r, 1 << 30);
	assert_int_equal(r.budget_bytes, 100);
	assert_int_equal(r.used_percent, 70);
	r.retained_bytes = r.safe_bytes = 0;
	cdc_slot_measure(&r, 1 << 30);
	assert_int_equal(r.used_percent, 0);
}

static void a_slot_that_is_no_longer_kept_has_used_it_all(void **state)
{
	struct cdc_slot_report r = {.wal_status = CDC_WAL_UNRESERVED, .retained_bytes = 1};

	(void)state;
	cdc_slot_measure(&r, 1000);
	assert_int_equal(r.used_percent, 100);
	r = (struct cdc_slot_report){.wal_status = CDC_WAL_LOST};
	cdc_slot_measure(&r, 1000);
	assert_int_equal(r.used_percent, 100);
}

static void steps_are_fifty_seventy_and_ninety(void **state)
{
	static const unsigned pairs[][2] = {{0, 0},   {49, 0},  {50, 50}, {69, 50},
					    {70, 70}, {89, 70}, {90, 90}, {999, 90}};

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		assert_int_equal(cdc_slot_step(pairs[i][0]), pairs[i][1]);
}

static void only_columns_that_the_version_has_are_asked_for(void **state)
{
	char sql[CDC_SLOT_SQL_MAX];
	/* The longest name that a slot can have. */
	const char *slot = "s123456789_123456789_123456789_123456789_123456789_123456789_12";

	(void)state;
	cdc_slot_sql(130000, slot, 2147483647, sql);
	assert_null(strstr(sql, "conflicting"));
	assert_null(strstr(sql, "invalidation_reason"));
	assert_null(strstr(sql, "spill"));
	cdc_slot_sql(160000, slot, 2147483647, sql);
	assert_non_null(strstr(sql, "conflicting"));
	assert_non_null(strstr(sql, "spill_bytes"));
	assert_null(strstr(sql, "invalidation_reason"));
	cdc_slot_sql(180006, slot, 2147483647, sql);
	assert_non_null(strstr(sql, "invalidation_reason"));
	assert_true(strlen(sql) < CDC_SLOT_SQL_MAX - 1);
	assert_string_equal(sql + strlen(sql) - strlen("s.slot_name::pg_catalog.text"),
			    "s.slot_name::pg_catalog.text");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_limit_of_the_servers_the_setting_is_the_budget),
		cmocka_unit_test(with_a_limit_the_server_says_what_is_left),
		cmocka_unit_test(a_slot_that_is_no_longer_kept_has_used_it_all),
		cmocka_unit_test(steps_are_fifty_seventy_and_ninety),
		cmocka_unit_test(only_columns_that_the_version_has_are_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
