/* The store under a power that fails: what it said was put is there, whatever the disk had not kept
 * yet. */
#include <dirent.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cdc/store/store.h"
#include "tests/contract/power_vfs.h"

#define VFS   "store_power" /* the default while it is there: the store asks for no other */
#define LIVES 8
#define PUTS  12

static void remove_all(const char *dir)
{
	DIR *d = opendir(dir);
	char path[512];

	for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		(void)unlink(path);
	}
	if (d)
		(void)closedir(d);
	(void)rmdir(dir);
}

static enum cdc_code put(struct cdc_store *store, uint64_t lsn)
{
	struct cdc_stream_position at = {
		.id = {.epoch = CDC_EPOCH(1, 1), .commit_lsn = lsn, .ordinal = 1, .part = 1}};
	const struct cdc_cursor c = {.sync = "s", .streams = &at, .stream_n = 1};

	return cdc_store_cursor_put(store, &c, NULL);
}

/* 0: none. */
static uint64_t lsn_of(struct cdc_store *store)
{
	struct cdc_cursor got = {0};
	enum cdc_code rc = cdc_store_cursor_get(store, "s", &got, NULL);
	uint64_t lsn = rc ? 0 : got.streams[0].id.commit_lsn;

	assert_true(rc == CDC_OK || rc == CDC_MISSING);
	cdc_cursor_clear(&got);
	return lsn;
}

static void F38_a_cursor_that_was_put_survives_a_power_cut(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= LIVES; seed++) {
		char dir[] = "/tmp/test_store_power.XXXXXX";
		struct power_vfs *v = power_vfs_new(VFS, seed);
		struct cdc_store *store = NULL;
		uint64_t told = 0, found;

		assert_non_null(v);
		assert_int_equal(sqlite3_vfs_register(sqlite3_vfs_find(VFS), 1), SQLITE_OK);
		assert_non_null(mkdtemp(dir));
		assert_int_equal(cdc_store_open(dir, &store, NULL), CDC_OK);
		for (uint64_t lsn = 1; lsn <= PUTS + seed % 3; lsn++) {
			assert_int_equal(put(store, lsn), CDC_OK);
			told = lsn;
		}
		power_vfs_cut(v);
		cdc_store_close(store);
		assert_true(power_vfs_restore(v));
		store = NULL;
		assert_int_equal(cdc_store_open(dir, &store, NULL), CDC_OK);
		found = lsn_of(store);
		if (found != told)
			fail_msg("seed %llu: %llu was put, %llu is there", (unsigned long long)seed,
				 (unsigned long long)told, (unsigned long long)found);
		cdc_store_close(store);
		power_vfs_free(v);
		remove_all(dir);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(F38_a_cursor_that_was_put_survives_a_power_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
