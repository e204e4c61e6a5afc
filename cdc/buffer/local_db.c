#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "cdc/buffer/local.h"

#define APPLICATION_ID 0x77616c70 /* "walp" */
#define FORMAT_VERSION 1
#define PAGE_BYTES     16384      /* a chunk is some ten of them; a small commit writes three */
#define ALLOCATE_BYTES (1u << 20) /* steps in which the file gets its place on the disk */
#define BUSY_MS        500
#define TEXT(x)        TEXT_OF(x)
#define TEXT_OF(x)     #x

/* What a chunk's row takes beside its body; also the free part of its last page. */
#define ROW_BYTES 512u

enum statement {
	S_BEGIN,
	S_COMMIT,
	S_ROLLBACK,
	S_PUT_CHUNK,
	S_DROP_CHUNK,
	S_PUT_STATE,
	S_PUT_SEQUENCE,
	S_PUT_GAP,
	S_DROP_GAP,
	S_PUT_SCHEMA,
	S_DROP_SCHEMA,
	S_STATE,
	S_OLDEST,
	S_NEWEST,
	S_COVER,
	S_NEXT,
	S_NEXT_OF_STREAM,
	S_ABOVE_OF_COPY,
	S_BEFORE,
	S_RANGE,
	S_PAGES,
	S_FREE_PAGES,
	S_N,
};

#define CHUNK_HEAD                                                                                 \
	"first, span, records, sequence, first_id, last_id, max_us, written_us, cost_before,"      \
	" records_before, format, raw_len, checksum, tables"

static const char *const statements[S_N] = {
	[S_BEGIN] = "BEGIN IMMEDIATE",
	[S_COMMIT] = "COMMIT",
	[S_ROLLBACK] = "ROLLBACK",
	[S_PUT_CHUNK] =
		"INSERT INTO chunk (" CHUNK_HEAD ", body)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
	[S_DROP_CHUNK] = "DELETE FROM chunk WHERE first = ?1",
	[S_PUT_STATE] = "UPDATE state SET next = ?1, cost = ?2, records = ?3, max_us = ?4,"
			" durable = ?5, turn = ?6",
	[S_PUT_SEQUENCE] = "INSERT OR REPLACE INTO sequence (number, last_id, epoch, is_open)"
			   " VALUES (?1, ?2, ?3, ?4)",
	[S_PUT_GAP] = "INSERT OR REPLACE INTO gap (name, first_id, last_id) VALUES (?1, ?2, ?3)",
	[S_DROP_GAP] = "DELETE FROM gap WHERE name = ?1",
	[S_PUT_SCHEMA] = "INSERT OR REPLACE INTO schema (name, id, body) VALUES (?1, ?2, ?3)",
	[S_DROP_SCHEMA] = "DELETE FROM schema WHERE name = ?1 AND id = ?2",
	[S_STATE] = "SELECT next, cost, records, max_us, durable, turn FROM state",
	[S_OLDEST] = "SELECT " CHUNK_HEAD " FROM chunk ORDER BY first LIMIT 1",
	[S_NEWEST] = "SELECT " CHUNK_HEAD " FROM chunk ORDER BY first DESC LIMIT 1",
	[S_COVER] = "SELECT " CHUNK_HEAD ", body FROM chunk WHERE first <= ?1"
		    " ORDER BY first DESC LIMIT 1",
	[S_NEXT] = "SELECT " CHUNK_HEAD ", body FROM chunk WHERE first > ?1 ORDER BY first LIMIT 1",
	[S_NEXT_OF_STREAM] = "SELECT " CHUNK_HEAD ", body FROM chunk"
			     " WHERE first >= ?1 AND sequence = 0 ORDER BY first LIMIT 1",
	[S_ABOVE_OF_COPY] = "SELECT min(first) FROM chunk WHERE sequence <> 0 AND last_id > ?1",
	[S_BEFORE] = "SELECT " CHUNK_HEAD " FROM chunk WHERE first < ?1 AND sequence = 0"
		     " ORDER BY first DESC LIMIT 1",
	[S_RANGE] = "SELECT (SELECT min(first) FROM chunk), (SELECT max(first) FROM chunk)",
	[S_PAGES] = "PRAGMA page_count",
	[S_FREE_PAGES] = "PRAGMA freelist_count",
};

struct cdc_local_db {
	sqlite3 *db;
	char *path, *wal_path;
	sqlite3_stmt *stmts[S_N];
	sqlite3_stmt *open; /* the one whose row is in the caller's hands */
	uint64_t wal_pages; /* in use, after the last commit */
	uint64_t allocated; /* bytes of the file that are sure to have a place on the disk */
};

/* --- small things ------------------------------------------------------------------- */

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

static enum cdc_code corrupt(const char *path, struct cdc_err *err)
{
	return cdc_err_remedy(err,
			      "restore %s from a backup, or move it and its -wal away: what was "
			      "not delivered from it is then lost, and the tables must be copied",
			      path);
}

static enum cdc_code fail(const struct cdc_local_db *db, int rc, struct cdc_err *err)
{
	bool is_os = (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN;
	int os = db->db && is_os ? sqlite3_system_errno(db->db) : 0;
	enum cdc_code code = os == ENOSPC || os == EDQUOT ? CDC_FULL : code_of(rc);

	(void)cdc_err_set(err, code, "%s: %s%s%s", db->path,
			  db->db ? sqlite3_errmsg(db->db) : sqlite3_errstr(rc), os ? ": " : "",
			  os ? strerror(os) : "");
	if (code == CDC_CORRUPT)
		(void)corrupt(db->path, err);
	return code;
}

/* Ends the statement whose row was last handed out: no read transaction outlives a step. */
static void end_row(struct cdc_local_db *db)
{
	if (db->open)
		(void)sqlite3_reset(db->open);
	db->open = NULL;
}

void cdc_local_db_rest(struct cdc_local_db *db)
{
	end_row(db);
}

static enum cdc_code prepared(struct cdc_local_db *db, enum statement which, sqlite3_stmt **ret,
			      struct cdc_err *err)
{
	int rc;

	end_row(db);
	if (!db->stmts[which]) {
		rc = sqlite3_prepare_v3(db->db, statements[which], -1, SQLITE_PREPARE_PERSISTENT,
					&db->stmts[which], NULL);
		if (rc != SQLITE_OK)
			return fail(db, rc, err);
	}
	*ret = db->stmts[which];
	return CDC_OK;
}

/* Runs a statement that returns nothing. */
static enum cdc_code run(struct cdc_local_db *db, sqlite3_stmt *stmt, struct cdc_err *err)
{
	int rc = sqlite3_step(stmt);
	enum cdc_code code = rc == SQLITE_DONE || rc == SQLITE_ROW ? CDC_OK : fail(db, rc, err);

	(void)sqlite3_reset(stmt);
	return code;
}

static enum cdc_code run_plain(struct cdc_local_db *db, enum statement which, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, which, &stmt, err);

	return rc ? rc : run(db, stmt, err);
}

/* Binding fails only for want of memory, and the step then stores NULL, which NOT NULL refuses. */
static void bind_int(sqlite3_stmt *stmt, int at, uint64_t v)
{
	(void)sqlite3_bind_int64(stmt, at, (sqlite3_int64)v);
}

static void bind_id(sqlite3_stmt *stmt, int at, const struct cdc_id *id)
{
	char text[CDC_ID_TEXT];
	size_t n = cdc_id_format(id, text);

	(void)sqlite3_bind_text(stmt, at, text, (int)n, SQLITE_TRANSIENT);
}

static void bind_blob(sqlite3_stmt *stmt, int at, const void *bytes, size_t len)
{
	(void)sqlite3_bind_blob64(stmt, at, len ? bytes : "", len, SQLITE_STATIC);
}

static uint64_t column_int(sqlite3_stmt *stmt, int at)
{
	return (uint64_t)sqlite3_column_int64(stmt, at);
}

static bool column_id(sqlite3_stmt *stmt, int at, struct cdc_id *ret)
{
	const unsigned char *text = sqlite3_column_text(stmt, at);

	return text &&
	       cdc_id_parse((const char *)text, (size_t)sqlite3_column_bytes(stmt, at), ret);
}

/* --- opening ------------------------------------------------------------------------ */

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

static int count_wal(void *arg, sqlite3 *sql, const char *name, int pages)
{
	struct cdc_local_db *db = arg;

	(void)sql;
	(void)name;
	db->wal_pages = (uint64_t)pages;
	return SQLITE_OK;
}

static enum cdc_code script(struct cdc_local_db *db, const char *text, struct cdc_err *err)
{
	int rc = sqlite3_exec(db->db, text, NULL, NULL, NULL);

	return rc == SQLITE_OK ? CDC_OK : fail(db, rc, err);
}

static enum cdc_code pragma(struct cdc_local_db *db, const char *text, uint64_t *ret,
			    struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(db->db, text, -1, &stmt, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		*ret = column_int(stmt, 0);
	(void)sqlite3_finalize(stmt);
	return rc == SQLITE_ROW ? CDC_OK : fail(db, rc, err);
}

static enum cdc_code create(struct cdc_local_db *db, struct cdc_err *err)
{
	return script(
		db,
		"BEGIN IMMEDIATE;"
		"CREATE TABLE chunk (first INTEGER PRIMARY KEY, span INTEGER NOT NULL,"
		" records INTEGER NOT NULL, sequence INTEGER NOT NULL, first_id TEXT NOT NULL,"
		" last_id TEXT NOT NULL, max_us INTEGER NOT NULL, written_us INTEGER NOT NULL,"
		" cost_before INTEGER NOT NULL, records_before INTEGER NOT NULL,"
		" format INTEGER NOT NULL, raw_len INTEGER NOT NULL, checksum INTEGER NOT NULL,"
		" tables BLOB NOT NULL, body BLOB NOT NULL);"
		"CREATE INDEX chunk_of_copy ON chunk (last_id) WHERE sequence <> 0;"
		"CREATE TABLE state (next INTEGER NOT NULL, cost INTEGER NOT NULL,"
		" records INTEGER NOT NULL, max_us INTEGER NOT NULL, durable INTEGER NOT NULL,"
		" turn INTEGER NOT NULL);"
		"INSERT INTO state VALUES (0, 0, 0, 0, 0, 0);"
		"CREATE TABLE sequence (number INTEGER PRIMARY KEY, last_id TEXT NOT NULL,"
		" epoch INTEGER NOT NULL, is_open INTEGER NOT NULL);"
		"CREATE TABLE gap (name TEXT PRIMARY KEY, first_id TEXT NOT NULL,"
		" last_id TEXT NOT NULL) WITHOUT ROWID;"
		"CREATE TABLE schema (name INTEGER NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,"
		" PRIMARY KEY (name, id)) WITHOUT ROWID;"
		"PRAGMA application_id = " TEXT(APPLICATION_ID) ";"
								"PRAGMA user_version = " TEXT(
									FORMAT_VERSION) ";"
											"COMMIT",
		err);
}

enum cdc_code cdc_local_db_check(struct cdc_local_db *db, struct cdc_err *err)
{
	uint64_t id = 0, version = 0;
	enum cdc_code rc = pragma(db, "PRAGMA application_id", &id, err);

	if (!rc)
		rc = pragma(db, "PRAGMA user_version", &version, err);
	if (rc)
		return rc;
	if (id != APPLICATION_ID) {
		(void)cdc_err_set(err, CDC_CORRUPT, "%s is not a buffer of walpost", db->path);
		return corrupt(db->path, err);
	}
	if (version != FORMAT_VERSION) {
		(void)cdc_err_set(err, CDC_CONFIG,
				  "%s has format %llu, this version reads format %d", db->path,
				  (unsigned long long)version, FORMAT_VERSION);
		return cdc_err_remedy(err,
				      "run the walpost that wrote it, or use another data_dir");
	}
	return CDC_OK;
}

/* An empty file becomes a buffer. */
static enum cdc_code check_or_create(struct cdc_local_db *db, struct cdc_err *err)
{
	uint64_t id = 0, version = 0, pages = 0;
	enum cdc_code rc = pragma(db, "PRAGMA application_id", &id, err);

	if (!rc)
		rc = pragma(db, "PRAGMA user_version", &version, err);
	if (!rc)
		rc = pragma(db, "PRAGMA page_count", &pages, err);
	if (rc)
		return rc;
	return id == 0 && version == 0 && pages <= 1 ? create(db, err)
						     : cdc_local_db_check(db, err);
}

/* Debian's SQLite zeroes what is deleted unless told otherwise. */
static enum cdc_code set_up_writer(struct cdc_local_db *db, struct cdc_err *err)
{
	enum cdc_code rc =
		script(db,
		       "PRAGMA page_size = " TEXT(PAGE_BYTES) ";"
							      "PRAGMA journal_mode = WAL;"
							      "PRAGMA synchronous = FULL;"
							      "PRAGMA wal_autocheckpoint = 0;"
							      "PRAGMA cache_size = -1024;"
							      "PRAGMA secure_delete = OFF;"
							      "PRAGMA temp_store = MEMORY",
		       err);

	if (rc)
		return rc;
	(void)sqlite3_wal_hook(db->db, count_wal, db);
	return check_or_create(db, err);
}

static enum cdc_code set_up_reader(struct cdc_local_db *db, struct cdc_err *err)
{
	(void)sqlite3_db_config(db->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	return script(db, "PRAGMA query_only = 1; PRAGMA cache_size = -256", err);
}

static void closep(struct cdc_local_db **db)
{
	cdc_local_db_close(*db);
}

enum cdc_code cdc_local_db_open(const char *path, const char *vfs, bool is_writer,
				struct cdc_local_db **ret, struct cdc_err *err)
{
	CDC_AUTO(closep) struct cdc_local_db *db = calloc(1, sizeof(*db));
	enum cdc_code rc;
	int srv;

	if (!db || !(db->path = strdup(path)) || asprintf(&db->wal_path, "%s-wal", path) < 0)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	srv = sqlite3_open_v2(path, &db->db,
			      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
				      (is_writer ? SQLITE_OPEN_CREATE : 0),
			      vfs);
	if (srv != SQLITE_OK)
		return fail(db, srv, err);
	(void)sqlite3_extended_result_codes(db->db, 1);
	(void)sqlite3_busy_timeout(db->db, BUSY_MS);
	(void)sqlite3_db_config(db->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 0, 0);
	rc = is_writer ? set_up_writer(db, err) : set_up_reader(db, err);
	if (rc)
		return rc;
	if (is_writer && sync_folder(path) != 0)
		return cdc_err_set(err, CDC_IO, "folder of %s: %s", path, strerror(errno));
	*ret = CDC_TAKE(db);
	return CDC_OK;
}

void cdc_local_db_close(struct cdc_local_db *db)
{
	if (!db)
		return;
	for (size_t i = 0; i < S_N; i++)
		(void)sqlite3_finalize(db->stmts[i]);
	(void)sqlite3_close(db->db);
	free(db->path);
	free(db->wal_path);
	free(db);
}

/* --- loading ------------------------------------------------------------------------ */

static enum cdc_code damaged(const struct cdc_local_db *db, const char *what, struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_CORRUPT, "%s: %s is damaged", db->path, what);
	return corrupt(db->path, err);
}

enum cdc_code cdc_local_db_state(struct cdc_local_db *db, struct cdc_local_state *ret,
				 struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_STATE, &stmt, err);
	int srv;

	if (rc)
		return rc;
	srv = sqlite3_step(stmt);
	if (srv == SQLITE_ROW)
		*ret = (struct cdc_local_state){
			.next = column_int(stmt, 0),
			.cost = column_int(stmt, 1),
			.records = column_int(stmt, 2),
			.max_us = sqlite3_column_int64(stmt, 3),
			.durable = column_int(stmt, 4),
			.turn = column_int(stmt, 5),
		};
	else
		rc = srv == SQLITE_DONE ? damaged(db, "its state", err) : fail(db, srv, err);
	(void)sqlite3_reset(stmt);
	return rc;
}

/* One row of the three tables that open reads; false: damaged. */
static bool load_row(const struct cdc_local_load *load, int which, sqlite3_stmt *stmt, bool *ret_ok)
{
	struct cdc_local_sequence s = {0};
	struct cdc_gap gap;

	switch (which) {
	case 0:
		s.number = (uint32_t)column_int(stmt, 0);
		s.epoch = (uint32_t)column_int(stmt, 2);
		s.is_open = column_int(stmt, 3) != 0;
		if (!column_id(stmt, 1, &s.last_id))
			return false;
		*ret_ok = load->sequence(load->arg, &s);
		return true;
	case 1:
		if (!sqlite3_column_text(stmt, 0) || !column_id(stmt, 1, &gap.first) ||
		    !column_id(stmt, 2, &gap.last))
			return false;
		*ret_ok = load->gap(load->arg, (const char *)sqlite3_column_text(stmt, 0), &gap);
		return true;
	default:
		*ret_ok = load->schema(load->arg, sqlite3_column_blob(stmt, 0),
				       (size_t)sqlite3_column_bytes(stmt, 0));
		return true;
	}
}

enum cdc_code cdc_local_db_load(struct cdc_local_db *db, const struct cdc_local_load *load,
				struct cdc_err *err)
{
	static const char *const texts[] = {
		"SELECT number, last_id, epoch, is_open FROM sequence ORDER BY number",
		"SELECT name, first_id, last_id FROM gap",
		"SELECT body FROM schema ORDER BY name, id",
	};
	static const char *const whats[] = {"a sequence", "a gap", "a schema record"};
	enum cdc_code rc = CDC_OK;

	end_row(db);
	for (int i = 0; i < 3 && !rc; i++) {
		sqlite3_stmt *stmt = NULL;
		int srv = sqlite3_prepare_v2(db->db, texts[i], -1, &stmt, NULL);

		while (srv == SQLITE_OK && !rc && (srv = sqlite3_step(stmt)) == SQLITE_ROW) {
			bool is_kept = false;

			if (!load_row(load, i, stmt, &is_kept))
				rc = damaged(db, whats[i], err);
			else if (!is_kept)
				rc = cdc_err_set(err, CDC_NOMEM, "out of memory for %s", whats[i]);
			srv = SQLITE_OK;
		}
		if (!rc && srv != SQLITE_DONE)
			rc = fail(db, srv, err);
		(void)sqlite3_finalize(stmt);
	}
	return rc;
}

/* --- writing ------------------------------------------------------------------------ */

enum cdc_code cdc_local_db_begin(struct cdc_local_db *db, struct cdc_err *err)
{
	return run_plain(db, S_BEGIN, err);
}

enum cdc_code cdc_local_db_commit(struct cdc_local_db *db, struct cdc_err *err)
{
	return run_plain(db, S_COMMIT, err);
}

void cdc_local_db_rollback(struct cdc_local_db *db)
{
	end_row(db);
	if (db->db && !sqlite3_get_autocommit(db->db))
		(void)run_plain(db, S_ROLLBACK, NULL);
}

enum cdc_code cdc_local_db_put_chunk(struct cdc_local_db *db, const struct cdc_local_chunk *c,
				     struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_PUT_CHUNK, &stmt, err);

	if (rc)
		return rc;
	bind_int(stmt, 1, c->first);
	bind_int(stmt, 2, c->span);
	bind_int(stmt, 3, c->records);
	bind_int(stmt, 4, c->sequence);
	bind_id(stmt, 5, &c->first_id);
	bind_id(stmt, 6, &c->last_id);
	bind_int(stmt, 7, (uint64_t)c->max_us);
	bind_int(stmt, 8, (uint64_t)c->written_us);
	bind_int(stmt, 9, c->cost_before);
	bind_int(stmt, 10, c->records_before);
	bind_int(stmt, 11, c->format);
	bind_int(stmt, 12, c->raw_len);
	bind_int(stmt, 13, c->checksum);
	bind_blob(stmt, 14, c->tables, c->tables_len);
	bind_blob(stmt, 15, c->body, c->body_len);
	rc = run(db, stmt, err);
	(void)sqlite3_clear_bindings(stmt);
	return rc;
}

enum cdc_code cdc_local_db_drop_chunk(struct cdc_local_db *db, uint64_t first, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_DROP_CHUNK, &stmt, err);

	if (rc)
		return rc;
	bind_int(stmt, 1, first);
	return run(db, stmt, err);
}

enum cdc_code cdc_local_db_put_state(struct cdc_local_db *db, const struct cdc_local_state *s,
				     struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_PUT_STATE, &stmt, err);

	if (rc)
		return rc;
	bind_int(stmt, 1, s->next);
	bind_int(stmt, 2, s->cost);
	bind_int(stmt, 3, s->records);
	bind_int(stmt, 4, (uint64_t)s->max_us);
	bind_int(stmt, 5, s->durable);
	bind_int(stmt, 6, s->turn);
	return run(db, stmt, err);
}

enum cdc_code cdc_local_db_put_sequence(struct cdc_local_db *db, const struct cdc_local_sequence *s,
					struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_PUT_SEQUENCE, &stmt, err);

	if (rc)
		return rc;
	bind_int(stmt, 1, s->number);
	bind_id(stmt, 2, &s->last_id);
	bind_int(stmt, 3, s->epoch);
	bind_int(stmt, 4, s->is_open);
	return run(db, stmt, err);
}

enum cdc_code cdc_local_db_put_gap(struct cdc_local_db *db, const char *group,
				   const struct cdc_gap *gap, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_PUT_GAP, &stmt, err);

	if (rc)
		return rc;
	(void)sqlite3_bind_text(stmt, 1, group, -1, SQLITE_TRANSIENT);
	bind_id(stmt, 2, &gap->first);
	bind_id(stmt, 3, &gap->last);
	return run(db, stmt, err);
}

enum cdc_code cdc_local_db_drop_gap(struct cdc_local_db *db, const char *group, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_DROP_GAP, &stmt, err);

	if (rc)
		return rc;
	(void)sqlite3_bind_text(stmt, 1, group, -1, SQLITE_TRANSIENT);
	return run(db, stmt, err);
}

enum cdc_code cdc_local_db_put_schema(struct cdc_local_db *db, uint64_t table,
				      const struct cdc_id *id, const struct cdc_buf *packed,
				      struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_PUT_SCHEMA, &stmt, err);

	if (rc)
		return rc;
	bind_int(stmt, 1, table);
	bind_id(stmt, 2, id);
	bind_blob(stmt, 3, packed->data, packed->len);
	rc = run(db, stmt, err);
	(void)sqlite3_clear_bindings(stmt);
	return rc;
}

enum cdc_code cdc_local_db_drop_schema(struct cdc_local_db *db, uint64_t table,
				       const struct cdc_id *id, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_DROP_SCHEMA, &stmt, err);

	if (rc)
		return rc;
	bind_int(stmt, 1, table);
	bind_id(stmt, 2, id);
	return run(db, stmt, err);
}

/* --- finding ------------------------------------------------------------------------ */

static enum cdc_code take_row(struct cdc_local_db *db, sqlite3_stmt *stmt,
			      struct cdc_local_chunk *ret, struct cdc_err *err)
{
	*ret = (struct cdc_local_chunk){
		.first = column_int(stmt, 0),
		.span = column_int(stmt, 1),
		.records = column_int(stmt, 2),
		.sequence = (uint32_t)column_int(stmt, 3),
		.max_us = sqlite3_column_int64(stmt, 6),
		.written_us = sqlite3_column_int64(stmt, 7),
		.cost_before = column_int(stmt, 8),
		.records_before = column_int(stmt, 9),
		.format = (unsigned)column_int(stmt, 10),
		.raw_len = column_int(stmt, 11),
		.checksum = (uint32_t)column_int(stmt, 12),
	};
	ret->tables = sqlite3_column_blob(stmt, 13);
	ret->tables_len = (size_t)sqlite3_column_bytes(stmt, 13);
	if (!column_id(stmt, 4, &ret->first_id) || !column_id(stmt, 5, &ret->last_id) ||
	    ret->span == 0 || ret->tables_len % 8 != 0)
		return damaged(db, "the head of a chunk", err);
	db->open = stmt;
	return CDC_OK;
}

/* Steps a statement for one chunk; its row stays open. */
static enum cdc_code find(struct cdc_local_db *db, enum statement which, uint64_t arg,
			  struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, which, &stmt, err);
	int srv;

	if (rc)
		return rc;
	if (sqlite3_bind_parameter_count(stmt) == 1)
		bind_int(stmt, 1, arg);
	srv = sqlite3_step(stmt);
	*ret_found = srv == SQLITE_ROW;
	if (srv == SQLITE_ROW)
		rc = take_row(db, stmt, ret, err);
	else if (srv != SQLITE_DONE)
		rc = fail(db, srv, err);
	if (srv != SQLITE_ROW || rc)
		(void)sqlite3_reset(stmt);
	return rc;
}

enum cdc_code cdc_local_db_oldest(struct cdc_local_db *db, struct cdc_local_chunk *ret,
				  bool *ret_found, struct cdc_err *err)
{
	enum cdc_code rc = find(db, S_OLDEST, 0, ret, ret_found, err);

	end_row(db);
	return rc;
}

enum cdc_code cdc_local_db_newest(struct cdc_local_db *db, struct cdc_local_chunk *ret,
				  bool *ret_found, struct cdc_err *err)
{
	enum cdc_code rc = find(db, S_NEWEST, 0, ret, ret_found, err);

	end_row(db);
	return rc;
}

enum cdc_code cdc_local_db_before(struct cdc_local_db *db, uint64_t ordinal,
				  struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	enum cdc_code rc = find(db, S_BEFORE, ordinal, ret, ret_found, err);

	end_row(db);
	return rc;
}

enum cdc_code cdc_local_db_at(struct cdc_local_db *db, uint64_t ordinal,
			      struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	enum cdc_code rc = find(db, S_COVER, ordinal, ret, ret_found, err);

	if (rc || (*ret_found && ordinal - ret->first < ret->span))
		return rc;
	return find(db, S_NEXT, ordinal, ret, ret_found, err);
}

struct range {
	uint64_t low, high;
	bool is_empty;
};

static enum cdc_code range_of(struct cdc_local_db *db, struct range *ret, struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, S_RANGE, &stmt, err);
	int srv;

	if (rc)
		return rc;
	srv = sqlite3_step(stmt);
	if (srv == SQLITE_ROW)
		*ret = (struct range){.low = column_int(stmt, 0),
				      .high = column_int(stmt, 1),
				      .is_empty = sqlite3_column_type(stmt, 0) == SQLITE_NULL};
	else
		rc = fail(db, srv, err);
	(void)sqlite3_reset(stmt);
	return rc;
}

/* What the stream's chunks are searched for: both rise along the stream. */
struct goal {
	const struct cdc_id *above; /* last_id above it, or else */
	int64_t since_us;           /* max_us at or above it */
};

static bool is_reached(const struct goal *g, const struct cdc_local_chunk *c)
{
	return g->above ? cdc_id_cmp(&c->last_id, g->above) > 0 : c->max_us >= g->since_us;
}

/* Bisects the ordinals for the first chunk of the stream that reaches the goal. */
static enum cdc_code bisect(struct cdc_local_db *db, const struct goal *g,
			    struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	struct range r = {.is_empty = true};
	enum cdc_code rc = range_of(db, &r, err);
	uint64_t low, high;

	*ret_found = false;
	if (rc || r.is_empty)
		return rc;
	low = r.low;
	high = r.high + 1;
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;
		bool is_there = false;

		rc = find(db, S_NEXT_OF_STREAM, mid, ret, &is_there, err);
		if (rc)
			return rc;
		if (!is_there || is_reached(g, ret))
			high = mid;
		else
			low = ret->first + 1;
	}
	rc = find(db, S_NEXT_OF_STREAM, low, ret, ret_found, err);
	return rc;
}

static enum cdc_code above(struct cdc_local_db *db, const struct cdc_id *id,
			   struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	const struct goal g = {.above = id};
	sqlite3_stmt *stmt = NULL;
	uint64_t copy = UINT64_MAX;
	enum cdc_code rc = prepared(db, S_ABOVE_OF_COPY, &stmt, err);
	int srv;

	if (rc)
		return rc;
	bind_id(stmt, 1, id);
	srv = sqlite3_step(stmt);
	if (srv == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
		copy = column_int(stmt, 0);
	else if (srv != SQLITE_ROW)
		rc = fail(db, srv, err);
	(void)sqlite3_reset(stmt);
	if (!rc)
		rc = bisect(db, &g, ret, ret_found, err);
	if (!rc && copy != UINT64_MAX && (!*ret_found || copy < ret->first))
		rc = find(db, S_COVER, copy, ret, ret_found, err);
	return rc;
}

/* Several statements that must see one state of the file; a transaction of the writer's is one. */
static enum cdc_code enter(struct cdc_local_db *db, bool *ret_entered, struct cdc_err *err)
{
	*ret_entered = sqlite3_get_autocommit(db->db) != 0;
	return *ret_entered ? script(db, "BEGIN", err) : CDC_OK;
}

static void leave(struct cdc_local_db *db, bool was_entered)
{
	end_row(db);
	if (was_entered)
		(void)sqlite3_exec(db->db, "COMMIT", NULL, NULL, NULL);
}

enum cdc_code cdc_local_db_above(struct cdc_local_db *db, const struct cdc_id *id,
				 struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	bool was_entered;
	enum cdc_code rc;

	end_row(db);
	rc = enter(db, &was_entered, err);
	if (rc)
		return rc;
	rc = above(db, id, ret, ret_found, err);
	leave(db, was_entered);
	return rc;
}

enum cdc_code cdc_local_db_since(struct cdc_local_db *db, int64_t time_us,
				 struct cdc_local_chunk *ret, bool *ret_found, struct cdc_err *err)
{
	const struct goal g = {.since_us = time_us};

	end_row(db);
	return bisect(db, &g, ret, ret_found, err);
}

enum cdc_code cdc_local_db_unpack(const struct cdc_local_db *db, const struct cdc_local_chunk *c,
				  struct cdc_batch *batch, struct cdc_err *err)
{
	struct cdc_buf raw;
	enum cdc_code rc = CDC_CORRUPT;
	const void *body = db->open ? sqlite3_column_blob(db->open, 14) : NULL;
	size_t len = db->open ? (size_t)sqlite3_column_bytes(db->open, 14) : 0;

	if (db->open && len && !body)
		return cdc_err_set(err, CDC_NOMEM, "out of memory for a chunk");
	cdc_buf_init(&raw, c->raw_len ? c->raw_len : 1);
	if (cdc_checksum(body, len) == c->checksum)
		rc = cdc_decompress(c->format, body, len, c->raw_len, &raw, err);
	if (!rc)
		rc = cdc_batch_unpack(batch, raw.data, raw.len, err);
	if (!rc && batch->n != c->records)
		rc = CDC_CORRUPT;
	cdc_buf_clear(&raw);
	if (rc == CDC_CORRUPT) {
		char first[CDC_ID_TEXT], last[CDC_ID_TEXT];

		(void)cdc_id_format(&c->first_id, first);
		(void)cdc_id_format(&c->last_id, last);
		(void)cdc_err_set(err, CDC_CORRUPT, "%s: the chunk of %s to %s is damaged",
				  db->path, first, last);
		return corrupt(db->path, err);
	}
	return rc;
}

/* --- space -------------------------------------------------------------------------- */

/* The WAL is moved into the database when it is this long. */
static uint64_t wal_bytes(uint64_t max_bytes)
{
	uint64_t n = max_bytes / 32;

	return n < (512u << 10) ? 512u << 10 : n > (4u << 20) ? 4u << 20 : n;
}

uint64_t cdc_local_db_turn_bytes(uint64_t max_bytes)
{
	uint64_t n = max_bytes / 32;

	return n < (512u << 10) ? 512u << 10 : n > (4u << 20) ? 4u << 20 : n;
}

uint64_t cdc_local_db_cost(size_t body_len)
{
	/* Small ones share a page; large ones fill pages of their own. */
	if (body_len < PAGE_BYTES / 4)
		return body_len + ROW_BYTES;
	return (body_len + ROW_BYTES + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static uint64_t file_bytes(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

uint64_t cdc_local_db_bytes(const struct cdc_local_db *db)
{
	return file_bytes(db->path) + file_bytes(db->wal_path);
}

static enum cdc_code count(struct cdc_local_db *db, enum statement which, uint64_t *ret,
			   struct cdc_err *err)
{
	sqlite3_stmt *stmt = NULL;
	enum cdc_code rc = prepared(db, which, &stmt, err);
	int srv;

	if (rc)
		return rc;
	srv = sqlite3_step(stmt);
	if (srv == SQLITE_ROW)
		*ret = column_int(stmt, 0);
	else
		rc = fail(db, srv, err);
	(void)sqlite3_reset(stmt);
	return rc;
}

enum cdc_code cdc_local_db_room(struct cdc_local_db *db, uint64_t max_bytes, uint64_t *ret_bytes,
				struct cdc_err *err)
{
	uint64_t pages = 0, free_pages = 0, wal, limit;
	enum cdc_code rc = count(db, S_PAGES, &pages, err);

	if (!rc)
		rc = count(db, S_FREE_PAGES, &free_pages, err);
	if (rc)
		return rc;
	/* Full of what it may hold and of one more transaction, with its frames' heads. */
	wal = wal_bytes(max_bytes) + cdc_local_db_turn_bytes(max_bytes) / 4 * 5;
	if (file_bytes(db->wal_path) > wal)
		wal = file_bytes(db->wal_path);
	limit = max_bytes > wal ? (max_bytes - wal) / PAGE_BYTES : 0;
	if (limit > pages)
		free_pages += limit - pages;
	/* The last pages are for the tables' own: state, sequences, inner nodes. */
	*ret_bytes = free_pages > 8 ? (free_pages - 8) * PAGE_BYTES : 0;
	return CDC_OK;
}

enum cdc_code cdc_local_db_checkpoint(struct cdc_local_db *db, uint64_t max_bytes, bool is_forced,
				      struct cdc_err *err)
{
	uint64_t long_wal = 2 * wal_bytes(max_bytes) + 2 * cdc_local_db_turn_bytes(max_bytes);
	int mode = SQLITE_CHECKPOINT_RESTART, rc;

	end_row(db);
	if (db->wal_pages * PAGE_BYTES < wal_bytes(max_bytes) && !is_forced)
		return CDC_OK;
	if (file_bytes(db->wal_path) > long_wal)
		mode = SQLITE_CHECKPOINT_TRUNCATE;
	rc = sqlite3_wal_checkpoint_v2(db->db, NULL, mode, NULL, NULL);
	/* BUSY: a reader was in the way; the next commit tries again. */
	if (rc == SQLITE_OK) {
		db->wal_pages = 0;
		/* It cuts the file to its pages, and with that off what was allocated behind them.
		 */
		if (db->allocated != UINT64_MAX)
			db->allocated = 0;
	}
	return rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY ? CDC_OK : fail(db, rc, err);
}

enum cdc_code cdc_local_db_allocate(struct cdc_local_db *db, int fd, struct cdc_err *err)
{
	uint64_t pages = 0, want;
	enum cdc_code rc = count(db, S_PAGES, &pages, err);

	want = pages * PAGE_BYTES;
	if (rc || want <= db->allocated)
		return rc;
	/* In steps, and if that is too much, just as much as there has to be. */
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(want + ALLOCATE_BYTES)) == 0)
		db->allocated = want + ALLOCATE_BYTES;
	else if (errno == EOPNOTSUPP || errno == ENOSYS)
		db->allocated = UINT64_MAX;
	else if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)want) == 0)
		db->allocated = want;
	else if (errno == ENOSPC || errno == EDQUOT)
		return cdc_err_set(err, CDC_FULL, "%s: %s", db->path, strerror(errno));
	return CDC_OK;
}

static int rewrite(sqlite3_file *f, sqlite3_int64 size, uint8_t *bytes, int len)
{
	int rc = SQLITE_OK;

	for (sqlite3_int64 at = 0; at < size && rc == SQLITE_OK; at += len) {
		int n = size - at < len ? (int)(size - at) : len;

		rc = f->pMethods->xRead(f, bytes, n, at);
		if (rc == SQLITE_OK)
			rc = f->pMethods->xWrite(f, bytes, n, at);
	}
	return rc == SQLITE_OK ? f->pMethods->xSync(f, SQLITE_SYNC_FULL) : rc;
}

enum cdc_code cdc_local_db_rewrite_wal(struct cdc_local_db *db, struct cdc_err *err)
{
	enum { PIECE = 64 << 10 };
	sqlite3_file *f = NULL;
	sqlite3_int64 size = 0;
	uint8_t *bytes;
	int rc = sqlite3_file_control(db->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&f);

	if (rc != SQLITE_OK || !f || !f->pMethods)
		return cdc_err_set(err, CDC_IO, "%s: no WAL file", db->path);
	rc = f->pMethods->xFileSize(f, &size);
	bytes = malloc(PIECE);
	if (!bytes)
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	if (rc == SQLITE_OK)
		rc = rewrite(f, size, bytes, PIECE);
	free(bytes);
	if (rc != SQLITE_OK)
		return cdc_err_set(err, code_of(rc), "%s: %s: %s", db->wal_path, sqlite3_errstr(rc),
				   strerror(errno));
	return CDC_OK;
}
