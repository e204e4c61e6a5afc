#include "cdc/store/sql.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#define STATEMENTS_MAX 128 /* kept prepared; the store has about seventy */
#define COLUMNS_MAX    20
#define LOG_PAGES      32 /* of the write-ahead file between two checkpoints; half of the reserve */
#define BUSY_MS        2000 /* somebody looks into the file with the sqlite3 program */

struct cdc_sql {
	sqlite3 *db;
	char *path;
	struct {
		const char *text;
		sqlite3_stmt *stmt;
	} kept[STATEMENTS_MAX];
	size_t kept_n;
};

/* Ids are their texts, whose byte order is their order.  LSNs are texts too: they have 64 bits. */
static const char *const migrations[] = {
	"CREATE TABLE slot ("
	" connection TEXT NOT NULL, slot TEXT NOT NULL, system_id TEXT NOT NULL,"
	" created_lsn TEXT NOT NULL, numbering TEXT NOT NULL, generation BIGINT NOT NULL,"
	" slot_is_ours BIGINT NOT NULL, publication_is_ours BIGINT NOT NULL,"
	" publication TEXT NOT NULL, PRIMARY KEY (connection, slot));"
	"CREATE TABLE epoch ("
	" connection TEXT NOT NULL, slot TEXT NOT NULL, generation BIGINT NOT NULL,"
	" system_id TEXT NOT NULL, created_lsn TEXT NOT NULL, numbering TEXT NOT NULL,"
	" until_us BIGINT NOT NULL, PRIMARY KEY (connection, slot, generation));"
	"CREATE TABLE cursor (sync TEXT PRIMARY KEY, written_us BIGINT NOT NULL);"
	"CREATE TABLE cursor_stream ("
	" sync TEXT NOT NULL, stream BIGINT NOT NULL, id TEXT NOT NULL,"
	" PRIMARY KEY (sync, stream));"
	"CREATE TABLE cursor_table ("
	" sync TEXT NOT NULL, name TEXT NOT NULL, state BIGINT NOT NULL, id TEXT NOT NULL,"
	" point TEXT NOT NULL, PRIMARY KEY (sync, name));"
	"CREATE TABLE gap ("
	" sync TEXT NOT NULL, at_us BIGINT NOT NULL, first_id TEXT NOT NULL,"
	" last_id TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (sync, first_id, last_id));"
	"CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL);",
	"CREATE TABLE backfill ("
	" sync TEXT NOT NULL, name TEXT NOT NULL, state BIGINT NOT NULL, copied BIGINT NOT NULL,"
	" begun_us BIGINT NOT NULL, ended_us BIGINT NOT NULL, reason TEXT NOT NULL,"
	" PRIMARY KEY (sync, name));",
	"CREATE TABLE command ("
	" id INTEGER PRIMARY KEY AUTOINCREMENT, sync TEXT NOT NULL, verb TEXT NOT NULL,"
	" argument TEXT NOT NULL, state BIGINT NOT NULL, answer TEXT NOT NULL,"
	" asked_us BIGINT NOT NULL, ended_us BIGINT NOT NULL);"
	"CREATE TABLE desired ("
	" sync TEXT PRIMARY KEY, is_paused BIGINT NOT NULL, backfill_is_paused BIGINT NOT NULL);"
	"ALTER TABLE backfill ADD COLUMN asked BIGINT NOT NULL DEFAULT 0;",
	"CREATE TABLE parked ("
	" sync TEXT NOT NULL, id TEXT NOT NULL, state BIGINT NOT NULL, key_hash BIGINT NOT NULL,"
	" table_hash BIGINT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, bytes BIGINT NOT NULL,"
	" attempts BIGINT NOT NULL, step BIGINT NOT NULL, parked_us BIGINT NOT NULL,"
	" next_us BIGINT NOT NULL, dead_us BIGINT NOT NULL, status BIGINT NOT NULL,"
	" reason TEXT NOT NULL, response TEXT NOT NULL, record TEXT NOT NULL,"
	" PRIMARY KEY (sync, id));"
	"CREATE INDEX parked_key ON parked (sync, state, key_hash, id, bytes);",
	"ALTER TABLE slot ADD COLUMN begins_anew BIGINT NOT NULL DEFAULT 0;",
	"ALTER TABLE backfill ADD COLUMN part TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE backfill ADD COLUMN next TEXT NOT NULL DEFAULT '';",
	/* Of a row whose values are encrypted; they are blobs then. */
	"ALTER TABLE parked ADD COLUMN key_mark TEXT NOT NULL DEFAULT '';",
	"CREATE TABLE attempt ("
	" sync TEXT NOT NULL, number BIGINT NOT NULL, bytes BIGINT NOT NULL, at_us BIGINT NOT NULL,"
	" took_us BIGINT NOT NULL, status BIGINT NOT NULL, outcome BIGINT NOT NULL,"
	" records BIGINT NOT NULL, refused BIGINT NOT NULL, request_bytes BIGINT NOT NULL,"
	" method TEXT NOT NULL, url TEXT NOT NULL, headers TEXT NOT NULL, reason TEXT NOT NULL,"
	" request TEXT NOT NULL, response TEXT NOT NULL);"
	/* What the ring is cut by, without its texts. */
	"CREATE UNIQUE INDEX attempt_ring ON attempt (sync, number, bytes, outcome, refused);",
	NULL,
};

static enum cdc_code code_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return CDC_FULL;
	case SQLITE_NOMEM:
		return CDC_NOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return CDC_HELD;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return CDC_CORRUPT;
	default:
		return CDC_IO;
	}
}

static enum cdc_code fail(const struct cdc_sql *s, int rc, struct cdc_err *err)
{
	/* SQLite keeps the system's error of a former failure, so it is asked only for one of its
	 * own. */
	int os = s->db && code_of(rc) == CDC_IO ? sqlite3_system_errno(s->db) : 0;

	(void)cdc_err_set(err, code_of(rc), "%s: %s%s%s", s->path,
			  s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc), os ? ": " : "",
			  os ? strerror(os) : "");
	if (code_of(rc) == CDC_CORRUPT)
		(void)cdc_err_remedy(err, CDC_SQL_CORRUPT_REMEDY, s->path);
	return code_of(rc);
}

static void sql_close(struct cdc_sql *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->kept_n; i++)
		(void)sqlite3_finalize(s->kept[i].stmt);
	(void)sqlite3_close(s->db);
	free(s->path);
	free(s);
}

static void sql_closep(struct cdc_sql **s)
{
	sql_close(*s);
}

static enum cdc_code sql_script(struct cdc_sql *s, const char *text, struct cdc_err *err)
{
	int rc = sqlite3_exec(s->db, text, NULL, NULL, NULL);

	return rc == SQLITE_OK ? CDC_OK : fail(s, rc, err);
}

/* Without this a power cut could take the name of a file whose content is safe. */
static int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int rc = fd < 0 ? -1 : fsync(fd);

	if (fd >= 0)
		(void)close(fd);
	free(folder);
	return rc;
}

/* The file is made here, because SQLite would make it readable for everybody; its -wal and -shm
 * get the mode of the file. */
static enum cdc_code make_file(const char *path, struct cdc_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	enum cdc_code rc = CDC_OK;

	if (fd < 0)
		return cdc_err_set(err, errno == ENOSPC ? CDC_FULL : CDC_IO, "%s: %s", path,
				   strerror(errno));
	if (fchmod(fd, 0600) != 0 || sync_folder(path) != 0)
		rc = cdc_err_set(err, CDC_IO, "%s: %s", path, strerror(errno));
	(void)close(fd);
	return rc;
}

/*
 * A full disk must not keep checkpoints from being written, for only they make
 * room: so some pages of both files are taken while there still are some.  A row
 * is written and goes again; its pages stay.  A log that is checkpointed at half
 * of them (LOG_PAGES) begins anew before it needs others.  Failing is fine: the
 * disk is full now.
 */
static void reserve(struct cdc_sql *s)
{
	(void)sqlite3_exec(s->db,
			   /* One that is there already is from a crash before its end. */
			   "BEGIN IMMEDIATE; DROP TABLE IF EXISTS reserve;"
			   "CREATE TABLE reserve (bytes BLOB);"
			   "INSERT INTO reserve VALUES (zeroblob(262144)); COMMIT;"
			   "DROP TABLE reserve",
			   NULL, NULL, NULL);
	if (!sqlite3_get_autocommit(s->db))
		(void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	(void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
}

static enum cdc_code connect(const char *where, struct cdc_sql **ret, struct cdc_err *err)
{
	CDC_AUTO(sql_closep) struct cdc_sql *s = calloc(1, sizeof(*s));
	enum cdc_code rc;
	int srv;

	if (s)
		s->path = strdup(where);
	if (!s || !s->path)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	srv = sqlite3_open_v2(where, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (srv != SQLITE_OK)
		return fail(s, srv, err);
	(void)sqlite3_extended_result_codes(s->db, 1);
	(void)sqlite3_busy_timeout(s->db, BUSY_MS);
	(void)sqlite3_wal_autocheckpoint(s->db, LOG_PAGES);
	rc = sql_script(s,
			"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
			"PRAGMA journal_size_limit = 4194304",
			err);
	if (rc)
		return rc;
	*ret = CDC_TAKE(s);
	return CDC_OK;
}

static enum cdc_code sql_open(const char *where, struct cdc_sql **ret, struct cdc_err *err)
{
	enum cdc_code rc = make_file(where, err);

	if (!rc)
		rc = connect(where, ret, err);
	if (!rc)
		reserve(*ret);
	return rc;
}

static enum cdc_code sql_attach(const char *where, struct cdc_sql **ret, struct cdc_err *err)
{
	struct stat st;

	if (stat(where, &st) != 0)
		return cdc_err_set(err, CDC_MISSING, "%s: %s", where, strerror(errno));
	/* Its owner died, or is, between making the file and writing the first page. */
	if (S_ISREG(st.st_mode) && st.st_size == 0)
		return cdc_err_set(err, CDC_MISSING, "%s: the file is empty", where);
	return connect(where, ret, err);
}

static enum cdc_code prepared(struct cdc_sql *s, const char *text, sqlite3_stmt **ret,
			      struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc;

	for (size_t i = 0; i < s->kept_n; i++) {
		if (s->kept[i].text == text) {
			*ret = s->kept[i].stmt;
			return CDC_OK;
		}
	}
	CDC_ASSERT(s->kept_n < STATEMENTS_MAX);
	rc = sqlite3_prepare_v3(s->db, text, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
	if (rc != SQLITE_OK)
		return fail(s, rc, err);
	s->kept[s->kept_n].text = text;
	s->kept[s->kept_n].stmt = stmt;
	s->kept_n++;
	*ret = stmt;
	return CDC_OK;
}

static int bind(sqlite3_stmt *stmt, size_t number, const struct cdc_sql_value *v)
{
	char name[24]; /* "$" and any size_t */
	int at;

	(void)snprintf(name, sizeof(name), "$%zu", number);
	at = sqlite3_bind_parameter_index(stmt, name);
	CDC_ASSERT(at > 0);
	switch (v->type) {
	case CDC_SQL_NULL:
		return sqlite3_bind_null(stmt, at);
	case CDC_SQL_INT:
		return sqlite3_bind_int64(stmt, at, v->i);
	case CDC_SQL_TEXT:
		return sqlite3_bind_text(stmt, at, v->text, -1, SQLITE_STATIC);
	case CDC_SQL_BYTES:
		return sqlite3_bind_blob64(stmt, at, v->bytes, v->n, SQLITE_STATIC);
	}
	return SQLITE_MISUSE;
}

/* False: no memory.  An empty one has no address, and is an empty text. */
static bool take_blob(sqlite3_stmt *stmt, int column, struct cdc_sql_value *ret)
{
	int n = sqlite3_column_bytes(stmt, column);
	const uint8_t *bytes = sqlite3_column_blob(stmt, column);

	*ret = n > 0 ? cdc_sql_bytes(bytes, (size_t)n) : cdc_sql_text("");
	return n <= 0 || bytes;
}

static enum cdc_code pass_row(sqlite3_stmt *stmt, cdc_sql_row_fn *row, void *arg,
			      struct cdc_err *err)
{
	struct cdc_sql_value cols[COLUMNS_MAX];
	int n = sqlite3_column_count(stmt);

	CDC_ASSERT(n <= COLUMNS_MAX);
	for (int i = 0; i < n; i++) {
		cols[i] = (struct cdc_sql_value){.type = CDC_SQL_NULL};
		switch (sqlite3_column_type(stmt, i)) {
		case SQLITE_NULL:
			break;
		case SQLITE_INTEGER:
			cols[i] = cdc_sql_int(sqlite3_column_int64(stmt, i));
			break;
		case SQLITE_BLOB:
			if (!take_blob(stmt, i, &cols[i]))
				return cdc_err_set(err, CDC_NOMEM, "out of memory");
			break;
		default: /* somebody else's enumeration; everything has a text */
			cols[i] = cdc_sql_text((const char *)sqlite3_column_text(stmt, i));
			if (!cols[i].text)
				return cdc_err_set(err, CDC_NOMEM, "out of memory");
			break;
		}
	}
	return row(arg, cols, (size_t)n, err);
}

static enum cdc_code sql_run(struct cdc_sql *s, const char *text,
			     const struct cdc_sql_value *values, size_t n, cdc_sql_row_fn *row,
			     void *arg, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(s, text, &stmt, err);
	int srv = SQLITE_OK;

	if (rc)
		return rc;
	for (size_t i = 0; i < n && srv == SQLITE_OK; i++)
		srv = bind(stmt, i + 1, &values[i]);
	if (srv == SQLITE_OK) {
		while (!rc && (srv = sqlite3_step(stmt)) == SQLITE_ROW) {
			if (row)
				rc = pass_row(stmt, row, arg, err);
		}
	}
	if (!rc && srv != SQLITE_DONE)
		rc = fail(s, srv, err);
	(void)sqlite3_reset(stmt);
	(void)sqlite3_clear_bindings(stmt);
	return rc;
}

static enum cdc_code sql_begin(struct cdc_sql *s, struct cdc_err *err)
{
	return sql_run(s, "BEGIN IMMEDIATE", NULL, 0, NULL, NULL, err);
}

static enum cdc_code sql_commit(struct cdc_sql *s, struct cdc_err *err)
{
	return sql_run(s, "COMMIT", NULL, 0, NULL, NULL, err);
}

static void sql_rollback(struct cdc_sql *s)
{
	bool is_full = (sqlite3_errcode(s->db) & 0xff) == SQLITE_FULL;

	if (!sqlite3_get_autocommit(s->db))
		(void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	/* The log begins anew in the pages that it has: on a full disk there are no others. */
	if (is_full)
		(void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_RESTART, NULL, NULL);
}

const struct cdc_sql_ops cdc_sql_sqlite = {
	.name = "sqlite",
	.migrations = migrations,
	.open = sql_open,
	.attach = sql_attach,
	.changes = "PRAGMA data_version",
	.close = sql_close,
	.run = sql_run,
	.script = sql_script,
	.begin = sql_begin,
	.commit = sql_commit,
	.rollback = sql_rollback,
};
