/* Parked records in the store: on the disk nobody can read them, with the key everybody can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cdc/base/crypto_seal.h"
#include "cdc/record/scan.h"
#include "cdc/store/store.h"

#define SECRET "PLANTED-VALUE-7c1f"
#define KEY_A  "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_B  "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define QUEUE  77 /* key_hash of every record here */

struct fixture {
	char dir[64];
	struct cdc_store *store;
};

static enum cdc_code open_code(struct fixture *f, const char *key, struct cdc_err *err)
{
	enum cdc_code rc = cdc_store_open(f->dir, &f->store, err);

	if (!rc)
		rc = cdc_store_unlock(f->store, key, err);
	if (rc) {
		cdc_store_close(f->store);
		f->store = NULL;
	}
	return rc;
}

static void open_with(struct fixture *f, const char *key)
{
	struct cdc_err err = {0};

	if (open_code(f, key, &err))
		fail_msg("%s", err.msg);
}

static void close_it(struct fixture *f)
{
	cdc_store_close(f->store);
	f->store = NULL;
}

static void path_of(const struct fixture *f, const char *name, char ret_path[128])
{
	(void)snprintf(ret_path, 128, "%s/%s", f->dir, name);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	(void)strcpy(f->dir, "/tmp/test_vault.XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	static const char *const names[] = {"state.db", "state.db-wal", "state.db-shm",
					    "master.key", "master.key.new"};
	struct fixture *f = *state;

	cdc_store_close(f->store);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[128];

		path_of(f, names[i], path);
		(void)unlink(path);
	}
	(void)rmdir(f->dir);
	free(f);
	return 0;
}

/* The store's file behind its back. */
static void run_sql(const struct fixture *f, const char *sql)
{
	sqlite3 *db = NULL;
	char path[128];

	path_of(f, "state.db", path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	(void)sqlite3_busy_timeout(db, 120000);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static bool holds(const struct fixture *f, const char *name, const char *what)
{
	char path[128], *bytes;
	struct stat st;
	bool found;
	int fd;

	path_of(f, name, path);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size + 1);
	assert_non_null(bytes);
	assert_true(read(fd, bytes, (size_t)st.st_size) == st.st_size);
	(void)close(fd);
	found = memmem(bytes, (size_t)st.st_size, what, strlen(what)) != NULL;
	free(bytes);
	return found;
}

static struct cdc_id id_at(uint64_t n)
{
	return (struct cdc_id){.epoch = 1 << 24, .commit_lsn = n, .ordinal = 1};
}

static void json_of(uint64_t n, char ret_json[512])
{
	const struct cdc_id id = id_at(n);
	char id_text[CDC_ID_TEXT];

	(void)cdc_id_format(&id, id_text);
	(void)snprintf(ret_json, 512,
		       "{\"id\":\"%s\",\"operation\":\"insert\",\"schema\":\"public.t\","
		       "\"key\":{\"id\":\"" SECRET "-%d\"},\"fields\":{\"id\":\"" SECRET
		       "-%d\"},\"position\":\"0/1\",\"commit\":{\"lsn\":\"0/%X\",\"xid\":1,"
		       "\"time\":\"2026-01-01T00:00:00.000000Z\"},\"hash\":\"0000000000000000\"}",
		       id_text, (int)n, (int)n, (unsigned)n);
}

/* A record of its own key, and then what was said of it. */
static enum cdc_code park(struct cdc_store *s, uint64_t n, enum cdc_parked_state at)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_park_change change = {.act = CDC_PARK_PUT,
					 .id = id_at(n),
					 .state = at,
					 .key_hash = QUEUE,
					 .status = 422,
					 .reason = "422 " SECRET,
					 .response = "{\"no\": \"" SECRET "\"}"};
	enum cdc_code rc;
	char json[512];

	assert_non_null(b);
	json_of(n, json);
	assert_int_equal(cdc_scan_record(b, json, strlen(json), NULL), CDC_OK);
	change.view = (struct cdc_view){.rec = &b->records[0], .batch = b};
	rc = cdc_store_park(s, "orders", &change, 1, 1, NULL, 0, NULL, NULL);
	cdc_batch_free(b);
	return rc;
}

/* Reads what the queue has; its code. */
static enum cdc_code read_queue(struct fixture *f, struct cdc_batch *b, struct cdc_err *err)
{
	const struct cdc_park_read what = {.max = 10, .max_bytes = 1 << 20, .key_hash = QUEUE};
	bool waits;

	cdc_batch_reset(b, 0);
	return cdc_store_park_read(f->store, "orders", &what, b, &waits, err);
}

static void assert_record(const struct cdc_batch *b, size_t i, uint64_t n)
{
	const struct cdc_record *r = &b->records[i];
	char json[512];

	json_of(n, json);
	assert_int_equal(r->json_len, strlen(json));
	assert_memory_equal(b->json.data + r->json_off, json, r->json_len);
}

static size_t count(struct fixture *f, const struct cdc_parked_filter *filter)
{
	struct cdc_parked_record *rows = NULL;
	size_t n = 0;

	assert_int_equal(cdc_store_parked_list(f->store, filter, 1000, &rows, &n, NULL), CDC_OK);
	cdc_parked_records_free(rows, n);
	return n;
}

static struct cdc_parked_record *get(struct fixture *f, uint64_t n)
{
	const struct cdc_id id = id_at(n);
	struct cdc_parked_record *row = NULL;
	char text[CDC_ID_TEXT];

	(void)cdc_id_format(&id, text);
	assert_int_equal(cdc_store_parked_get(f->store, "orders", text, &row, NULL), CDC_OK);
	return row;
}

/* --- on the disk -------------------------------------------------------------------- */

static void nothing_of_a_record_is_in_the_files_and_all_of_it_comes_back(void **state)
{
	static const char *const files[] = {"state.db", "state.db-wal"};
	struct fixture *f = *state;
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_park_change failed = {.act = CDC_PARK_FAILED,
					 .id = id_at(1),
					 .attempts = 2,
					 .status = 400,
					 .reason = "400 " SECRET,
					 .response = SECRET};
	struct cdc_parked_record *row;
	char json[512];

	assert_non_null(b);
	open_with(f, NULL);
	for (uint64_t n = 1; n <= 3; n++)
		assert_int_equal(park(f->store, n, CDC_PARKED_WAITING), CDC_OK);
	assert_int_equal(park(f->store, 9, CDC_PARKED_DEAD), CDC_OK);
	assert_int_equal(cdc_store_park(f->store, "orders", &failed, 1, 1, NULL, 0, NULL, NULL),
			 CDC_OK);
	for (size_t i = 0; i < 2; i++)
		assert_false(holds(f, files[i], SECRET));
	assert_true(holds(f, files[1], "public.t")); /* that would have been found */
	close_it(f);
	assert_false(holds(f, "state.db", SECRET));
	assert_true(holds(f, "state.db", "public.t"));

	open_with(f, NULL);
	assert_int_equal(read_queue(f, b, NULL), CDC_OK);
	assert_int_equal(b->n, 3);
	for (uint64_t n = 1; n <= 3; n++)
		assert_record(b, n - 1, n);
	row = get(f, 1);
	assert_string_equal(row->reason, "400 " SECRET);
	assert_string_equal(row->response, SECRET);
	assert_string_equal(row->key, "{\"id\":\"" SECRET "-1\"}");
	json_of(1, json);
	assert_string_equal(row->record, json);
	assert_null(row->damage);
	cdc_parked_records_free(row, 1);
	cdc_batch_free(b);
}

static void a_record_is_found_by_its_key(void **state)
{
	struct fixture *f = *state;
	struct cdc_parked_filter two = {.key = "{\"id\":\"" SECRET "-2\"}",
					.state = CDC_PARKED_DEAD},
				 none = {.key = "{\"id\":2}", .state = CDC_PARKED_DEAD},
				 all = {.state = CDC_PARKED_DEAD};
	uint64_t n;

	open_with(f, KEY_A);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(park(f->store, i, CDC_PARKED_DEAD), CDC_OK);
	assert_int_equal(count(f, &two), 1);
	assert_int_equal(count(f, &none), 0);
	assert_int_equal(count(f, &all), 3);
	assert_int_equal(cdc_store_dead_discard(f->store, &none, &n, NULL), CDC_OK);
	assert_int_equal(n, 0);
	assert_int_equal(cdc_store_dead_discard(f->store, &two, &n, NULL), CDC_OK);
	assert_int_equal(n, 1);
	assert_int_equal(count(f, &all), 2);
}

static void rows_of_before_there_was_a_key_are_read(void **state)
{
	struct fixture *f = *state;
	struct cdc_batch *b = cdc_batch_new(1 << 20);
	struct cdc_parked_filter by_key = {.key = "{\"id\":\"" SECRET "-1\"}",
					   .state = CDC_PARKED_WAITING};
	struct cdc_parked_record *row;
	char sql[2048], json[512], id[CDC_ID_TEXT];
	const struct cdc_id first = id_at(1);

	assert_non_null(b);
	open_with(f, NULL);
	json_of(1, json);
	(void)cdc_id_format(&first, id);
	(void)snprintf(
		sql, sizeof(sql),
		"INSERT INTO parked (sync, id, state, key_hash, table_hash, name, key, bytes,"
		" attempts, step, parked_us, next_us, dead_us, status, reason, response,"
		" record) VALUES ('orders', '%s', 0, %d, 0, 'public.t',"
		" '{\"id\":\"" SECRET "-1\"}', 1, 1, 0, 1, 0, 0, 422, 'old reason',"
		" 'old response', '%s')",
		id, QUEUE, json);
	run_sql(f, sql);
	assert_int_equal(park(f->store, 2, CDC_PARKED_WAITING), CDC_OK);
	assert_int_equal(read_queue(f, b, NULL), CDC_OK);
	assert_int_equal(b->n, 2);
	assert_record(b, 0, 1);
	assert_record(b, 1, 2);
	row = get(f, 1);
	assert_string_equal(row->reason, "old reason");
	assert_string_equal(row->response, "old response");
	assert_string_equal(row->record, json);
	cdc_parked_records_free(row, 1);
	assert_int_equal(count(f, &by_key), 1);
	cdc_batch_free(b);
}

/* --- keys --------------------------------------------------------------------------- */

static void a_key_is_made_once_for_its_owner_alone(void **state)
{
	struct fixture *f = *state;
	struct stat first, second;
	char path[128];

	path_of(f, "master.key", path);
	open_with(f, NULL);
	assert_int_equal(stat(path, &first), 0);
	assert_int_equal(first.st_mode & 0777, 0600);
	assert_int_equal(first.st_size, 45);
	assert_int_equal(park(f->store, 1, CDC_PARKED_DEAD), CDC_OK);
	close_it(f);
	assert_int_equal(chmod(path, 0644), 0); /* as a careless copy would be */
	open_with(f, NULL);
	assert_int_equal(stat(path, &second), 0);
	assert_int_equal(second.st_ino, first.st_ino);
	assert_int_equal(second.st_mode & 0777, 0600);
}

static void no_file_is_made_beside_a_configured_key(void **state)
{
	struct fixture *f = *state;
	char path[128];

	path_of(f, "master.key", path);
	open_with(f, KEY_A);
	assert_int_equal(access(path, F_OK), -1);
}

/* Refused with err; nothing was changed by that, so the right key opens it. */
static void refused_then(struct fixture *f, const char *wrong, const char *right,
			 struct cdc_err *err)
{
	struct cdc_batch *b = cdc_batch_new(1 << 20);

	assert_non_null(b);
	memset(err, 0, sizeof(*err));
	assert_int_equal(open_code(f, wrong, err), CDC_CONFIG);
	assert_true(err->remedy[0]);
	open_with(f, right);
	assert_int_equal(read_queue(f, b, NULL), CDC_OK);
	assert_record(b, 0, 1);
	cdc_batch_free(b);
}

static void another_key_is_refused_and_nothing_is_lost(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err;

	open_with(f, KEY_A);
	assert_int_equal(park(f->store, 1, CDC_PARKED_WAITING), CDC_OK);
	close_it(f);
	refused_then(f, KEY_B, KEY_A, &err);
	assert_non_null(strstr(err.msg, "another master key than master_key"));
	assert_non_null(strstr(err.remedy, "set master_key to the key that was in force before"));
	close_it(f);
	refused_then(f, NULL, KEY_A, &err); /* there is no file */
	assert_non_null(strstr(err.msg, "is missing"));
}

static void a_lost_key_file_is_named_and_not_made_anew(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err;
	char path[128], kept[128];

	path_of(f, "master.key", path);
	path_of(f, "master.key.new", kept);
	open_with(f, NULL);
	assert_int_equal(park(f->store, 1, CDC_PARKED_WAITING), CDC_OK);
	close_it(f);
	refused_then(f, KEY_A, NULL, &err);
	assert_non_null(strstr(err.remedy, "remove master_key, or set it to what"));
	assert_non_null(strstr(err.remedy, path));
	close_it(f);
	assert_int_equal(rename(path, kept), 0);
	memset(&err, 0, sizeof(err));
	assert_int_equal(open_code(f, NULL, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, path));
	assert_non_null(strstr(err.remedy, "discard --unreadable"));
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rename(kept, path), 0);
	open_with(f, NULL);
}

static void a_file_without_a_key_is_refused(void **state)
{
	struct fixture *f = *state;
	struct cdc_err err = {0};
	char path[128];
	int fd;

	path_of(f, "master.key", path);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(write(fd, "hello\n", 6) == 6);
	(void)close(fd);
	assert_int_equal(open_code(f, NULL, &err), CDC_CONFIG);
	assert_non_null(strstr(err.msg, path));
	assert_non_null(strstr(err.msg, "holds no master key"));
	(void)unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(open_code(f, NULL, &err) != CDC_OK);
	assert_int_equal(rmdir(path), 0);
}

static void a_key_may_change_while_nothing_needs_it(void **state)
{
	struct fixture *f = *state;
	struct cdc_park_change done = {.act = CDC_PARK_DONE, .id = id_at(1)};

	open_with(f, NULL);
	close_it(f);
	open_with(f, KEY_A);
	assert_int_equal(park(f->store, 1, CDC_PARKED_WAITING), CDC_OK);
	assert_int_equal(cdc_store_park(f->store, "orders", &done, 1, 1, NULL, 0, NULL, NULL),
			 CDC_OK);
	close_it(f);
	open_with(f, KEY_B);
	assert_int_equal(park(f->store, 2, CDC_PARKED_WAITING), CDC_OK);
	close_it(f);
	assert_int_equal(open_code(f, KEY_A, NULL), CDC_CONFIG);
	open_with(f, KEY_B);
}

static void who_attaches_makes_no_key_and_takes_the_right_one(void **state)
{
	struct fixture *f = *state;
	struct cdc_store *other = NULL;
	struct cdc_err err = {0};
	char path[128];

	path_of(f, "master.key", path);
	open_with(f, KEY_A);
	assert_int_equal(cdc_store_attach(f->dir, &other, NULL), CDC_OK);
	assert_int_equal(cdc_store_unlock(other, NULL, NULL), CDC_OK);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(park(other, 1, CDC_PARKED_DEAD), CDC_CONFIG); /* it has none */
	assert_int_equal(park(f->store, 1, CDC_PARKED_DEAD), CDC_OK);
	assert_int_equal(cdc_store_unlock(other, NULL, &err), CDC_CONFIG);
	assert_int_equal(cdc_store_unlock(other, KEY_B, &err), CDC_CONFIG);
	assert_int_equal(cdc_store_unlock(other, KEY_A, &err), CDC_OK);
	cdc_store_close(other);
}

/* Killed at any moment of its first start and of writes, it finds its key again. */
static void a_kill_leaves_a_key_that_fits(void **state)
{
	struct fixture *f = *state;
	struct cdc_batch *b = cdc_batch_new(1 << 20);

	assert_non_null(b);
	for (int round = 0; round < 12; round++) {
		uint64_t stored = 0, n;
		int fds[2], status;
		pid_t pid;

		assert_int_equal(pipe(fds), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			if (open_code(f, NULL, NULL))
				_exit(1);
			for (n = 1; n < 1000; n++) {
				if (park(f->store, n, CDC_PARKED_WAITING) ||
				    write(fds[1], &n, sizeof(n)) != sizeof(n))
					_exit(1);
			}
			_exit(0);
		}
		(void)close(fds[1]);
		if (round % 2 == 0) { /* at its first start */
			const struct timespec wait = {.tv_nsec = round * 1500000};

			(void)nanosleep(&wait, NULL);
			(void)kill(pid, SIGKILL);
		}
		while (read(fds[0], &n, sizeof(n)) == sizeof(n)) {
			stored = n;
			if (stored == 3)
				(void)kill(pid, SIGKILL);
		}
		(void)close(fds[0]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		open_with(f, NULL);
		assert_int_equal(read_queue(f, b, NULL), CDC_OK);
		assert_true(b->n >= stored || b->n == 10);
		for (size_t i = 0; i < b->n; i++)
			assert_record(b, i, i + 1);
		close_it(f);
		if (round % 4 == 3)
			run_sql(f, "DELETE FROM parked; DELETE FROM note");
	}
	cdc_batch_free(b);
}

/* --- damage ------------------------------------------------------------------------- */

static void a_changed_record_is_told_and_the_others_are_read(void **state)
{
	static const char *const damages[] = {
		"substr(record, 1, 20) || x'00' || substr(record, 22)", /* its bytes */
		"substr(record, 1, 40)",                                /* cut */
		"x'01'",
		"x'02' || substr(record, 2)",                               /* another format */
		"substr(record, 1, 1) || x'00000000' || substr(record, 6)", /* another key */
		"(SELECT p.record FROM parked p WHERE p.id > parked.id ORDER BY p.id LIMIT 1)",
		"(SELECT p.key FROM parked p WHERE p.id = parked.id)",
		"'{}'",
		"5",
	};
	struct fixture *f = *state;
	struct cdc_batch *b = cdc_batch_new(1 << 20);

	assert_non_null(b);
	open_with(f, KEY_A);
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct cdc_park_change dead = {.act = CDC_PARK_DEAD, .reason = "unreadable"};
		struct cdc_parked_record *row;
		struct cdc_err err = {0};
		char sql[512];

		run_sql(f, "DELETE FROM parked");
		for (uint64_t n = 1; n <= 3; n++)
			assert_int_equal(park(f->store, n, CDC_PARKED_WAITING), CDC_OK);
		(void)snprintf(sql, sizeof(sql),
			       "UPDATE parked SET record = CAST(%s AS BLOB)"
			       " WHERE id = (SELECT min(id) FROM parked)",
			       damages[i]);
		if (damages[i][0] == '\'' || damages[i][0] == '5')
			(void)snprintf(sql, sizeof(sql),
				       "UPDATE parked SET record = %s"
				       " WHERE id = (SELECT min(id) FROM parked)",
				       damages[i]);
		run_sql(f, sql);
		/* It comes alone, by its id. */
		assert_int_equal(read_queue(f, b, &err), CDC_REJECTED);
		assert_true(err.msg[0]);
		assert_int_equal(b->n, 1);
		assert_int_equal(b->records[0].id.commit_lsn, 1);
		assert_int_equal(b->records[0].json_len, 0);
		/* The others are as they were. */
		dead.id = id_at(1);
		assert_int_equal(
			cdc_store_park(f->store, "orders", &dead, 1, 1, NULL, 0, NULL, NULL),
			CDC_OK);
		assert_int_equal(read_queue(f, b, NULL), CDC_OK);
		assert_int_equal(b->n, 2);
		assert_record(b, 0, 2);
		assert_record(b, 1, 3);
		row = get(f, 1);
		assert_string_equal(row->reason, "unreadable");
		assert_string_equal(row->key, "{\"id\":\"" SECRET "-1\"}");
		if (damages[i][0] != '\'' && damages[i][0] != '5') {
			assert_non_null(row->damage);
			assert_non_null(strstr(row->damage, "record cannot be read"));
			assert_string_equal(row->record, "");
		}
		cdc_parked_records_free(row, 1);
	}
	cdc_batch_free(b);
}

static void behind_others_an_unreadable_record_waits_for_its_turn(void **state)
{
	struct fixture *f = *state;
	struct cdc_batch *b = cdc_batch_new(1 << 20);

	assert_non_null(b);
	open_with(f, KEY_A);
	for (uint64_t n = 1; n <= 3; n++)
		assert_int_equal(park(f->store, n, CDC_PARKED_WAITING), CDC_OK);
	run_sql(f, "UPDATE parked SET record = x'01' WHERE id = (SELECT max(id) FROM parked)");
	assert_int_equal(read_queue(f, b, NULL), CDC_OK);
	assert_int_equal(b->n, 2);
	cdc_batch_free(b);
}

static void every_row_is_listed_whatever_became_of_one(void **state)
{
	struct fixture *f = *state;
	const struct cdc_parked_filter dead = {.state = CDC_PARKED_DEAD};
	struct cdc_parked_record *rows;
	size_t n;

	open_with(f, KEY_A);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(park(f->store, i, CDC_PARKED_DEAD), CDC_OK);
	run_sql(f, "UPDATE parked SET key = x'00', reason = response WHERE id ="
		   " (SELECT min(id) FROM parked)");
	assert_int_equal(cdc_store_parked_list(f->store, &dead, 10, &rows, &n, NULL), CDC_OK);
	assert_int_equal(n, 3);
	assert_non_null(rows[0].damage);
	assert_string_equal(rows[0].key, "");
	assert_string_equal(rows[0].reason, "");
	assert_string_equal(rows[0].response, "{\"no\": \"" SECRET "\"}");
	assert_null(rows[1].damage);
	assert_string_equal(rows[1].key, "{\"id\":\"" SECRET "-2\"}");
	assert_string_equal(rows[2].reason, "422 " SECRET);
	cdc_parked_records_free(rows, n);
}

static void what_cannot_be_read_is_discarded_on_a_persons_word_alone(void **state)
{
	struct fixture *f = *state;
	const struct cdc_parked_filter dead = {.state = CDC_PARKED_DEAD},
				       waiting = {.state = CDC_PARKED_WAITING};
	struct cdc_store *other = NULL;
	uint64_t n;

	open_with(f, KEY_A);
	assert_int_equal(park(f->store, 1, CDC_PARKED_DEAD), CDC_OK);
	assert_int_equal(park(f->store, 2, CDC_PARKED_DEAD), CDC_OK);
	assert_int_equal(park(f->store, 3, CDC_PARKED_WAITING), CDC_OK);
	run_sql(f, "UPDATE parked SET record = x'01' WHERE id <> (SELECT max(id) FROM parked"
		   " WHERE state = 1)");
	/* With the key: dead letters. */
	assert_int_equal(cdc_store_discard_unreadable(f->store, &n, NULL), CDC_OK);
	assert_int_equal(n, 1);
	assert_int_equal(count(f, &dead), 1);
	assert_int_equal(count(f, &waiting), 1);
	close_it(f);
	/* Without it: everything that was encrypted; then another key is as good. */
	assert_int_equal(open_code(f, NULL, NULL), CDC_CONFIG);
	assert_int_equal(cdc_store_attach(f->dir, &other, NULL), CDC_OK);
	assert_int_equal(cdc_store_unlock(other, NULL, NULL), CDC_CONFIG);
	assert_int_equal(cdc_store_discard_unreadable(other, &n, NULL), CDC_OK);
	assert_int_equal(n, 2);
	cdc_store_close(other);
	open_with(f, NULL);
	assert_int_equal(count(f, &dead) + count(f, &waiting), 0);
}

#define VAULT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		VAULT(nothing_of_a_record_is_in_the_files_and_all_of_it_comes_back),
		VAULT(a_record_is_found_by_its_key),
		VAULT(rows_of_before_there_was_a_key_are_read),
		VAULT(a_key_is_made_once_for_its_owner_alone),
		VAULT(no_file_is_made_beside_a_configured_key),
		VAULT(another_key_is_refused_and_nothing_is_lost),
		VAULT(a_lost_key_file_is_named_and_not_made_anew),
		VAULT(a_file_without_a_key_is_refused),
		VAULT(a_key_may_change_while_nothing_needs_it),
		VAULT(who_attaches_makes_no_key_and_takes_the_right_one),
		VAULT(a_kill_leaves_a_key_that_fits),
		VAULT(a_changed_record_is_told_and_the_others_are_read),
		VAULT(behind_others_an_unreadable_record_waits_for_its_turn),
		VAULT(every_row_is_listed_whatever_became_of_one),
		VAULT(what_cannot_be_read_is_discarded_on_a_persons_word_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
