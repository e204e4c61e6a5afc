/* One line about a copy, from the page that scrapers read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "cdc/cli/progress.h"

static const char page[] =
	"# HELP walpost_backfill_pending_tables x\n"
	"walpost_backfill_pending_tables{connection=\"c\",slot=\"s\",sync=\"main\"} 2\n"
	"walpost_backfill_pending_tables{connection=\"c\",slot=\"s\",sync=\"main2\"} 7\n"
	"walpost_backfill_rows_total{connection=\"c\",slot=\"s\",sync=\"main\"} 12345\n"
	"walpost_backfill_permille{connection=\"c\",slot=\"s\",sync=\"main\"} 421\n"
	"walpost_backfill_eta_milliseconds{connection=\"c\",slot=\"s\",sync=\"main\"} 65900\n";

static void a_sync_is_found_by_its_whole_name(void **state)
{
	struct cdc_progress p = cdc_progress_parse(page, "main");

	(void)state;
	assert_true(p.is_known);
	assert_int_equal(p.tables_left, 2);
	assert_int_equal(p.rows, 12345);
	assert_int_equal(p.permille, 421);
	assert_int_equal(p.eta_ms, 65900);
	assert_false(cdc_progress_parse(page, "main2").is_known);
	assert_false(cdc_progress_parse(page, "mai").is_known);
	assert_false(cdc_progress_parse("", "main").is_known);
	assert_false(cdc_progress_parse("walpost_backfill_pending_tables{", "main").is_known);
}

static void a_line_says_how_far_and_how_long(void **state)
{
	struct cdc_progress p = cdc_progress_parse(page, "main");
	char line[200], small[10];

	(void)state;
	cdc_progress_format(&p, "main", 100, line, sizeof(line));
	assert_string_equal(
		line, "main [########............]  42.1 %  12345 rows  2 tables left  ETA 1:05");
	cdc_progress_format(&p, "main", 20, line, sizeof(line));
	assert_string_equal(line, "main [########......");
	cdc_progress_format(&p, "main", 100, small, sizeof(small));
	assert_string_equal(small, "main [###");
	p.permille = 1000;
	p.tables_left = 1;
	cdc_progress_format(&p, "main", 100, line, sizeof(line));
	assert_string_equal(line, "main [####################] 100.0 %  12345 rows  1 table left");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sync_is_found_by_its_whole_name),
		cmocka_unit_test(a_line_says_how_far_and_how_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
