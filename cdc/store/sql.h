/*
 * sql.h - the little SQL that the store speaks, whatever is behind it.
 *
 * A back end runs one statement at a time with bound values; a value never
 * becomes part of a statement's text.  Statements are constants of the program,
 * their parameters are written $1, $2... and their text is the same for every
 * back end; only the DDL of the migrations may differ.  A back end keeps
 * prepared statements by the address of the text.
 *
 * Threads: a database belongs to one thread at a time.
 * Layer: store (base).
 */
#ifndef CDC_STORE_SQL_H
#define CDC_STORE_SQL_H

#include <stddef.h>
#include <stdint.h>

#include "cdc/base/err.h"

struct cdc_sql; /* an open database of some back end */

enum cdc_sql_type { CDC_SQL_NULL, CDC_SQL_INT, CDC_SQL_TEXT, CDC_SQL_BYTES };

struct cdc_sql_value {
	enum cdc_sql_type type;
	int64_t i; /* INT */
	const char
		*text; /* TEXT: NUL-terminated UTF-8; in a row valid until the callback returns */
	const uint8_t *bytes; /* BYTES: n of them, 1 or more; likewise */
	size_t n;
};

static inline struct cdc_sql_value cdc_sql_int(int64_t i)
{
	return (struct cdc_sql_value){.type = CDC_SQL_INT, .i = i};
}

static inline struct cdc_sql_value cdc_sql_text(const char *text)
{
	return (struct cdc_sql_value){.type = CDC_SQL_TEXT, .text = text};
}

static inline struct cdc_sql_value cdc_sql_bytes(const uint8_t *bytes, size_t n)
{
	return (struct cdc_sql_value){.type = CDC_SQL_BYTES, .bytes = bytes, .n = n};
}

/* One row of a result; anything but CDC_OK ends the statement and is its result. */
typedef enum cdc_code cdc_sql_row_fn(void *arg, const struct cdc_sql_value *cols, size_t n,
				     struct cdc_err *err);

struct cdc_sql_ops {
	const char *name; /* "sqlite" */

	/* migrations[i] takes a database of version i to version i + 1; several statements
	 * divided by semicolons.  Ends with NULL. */
	const char *const *migrations;

	/* Opens or creates the database, in a state that survived any crash.  CDC_CORRUPT: its
	 * file is damaged or something else. */
	enum cdc_code (*open)(const char *where, struct cdc_sql **ret, struct cdc_err *err);

	/* Opens a database that another process may be working with: as it is, and nothing is
	 * made.  CDC_MISSING: it is not there. */
	enum cdc_code (*attach)(const char *where, struct cdc_sql **ret, struct cdc_err *err);

	/* A statement with one number, which is another one after somebody else has committed
	 * something. */
	const char *changes;

	/* Gives up what was not committed.  NULL is fine. */
	void (*close)(struct cdc_sql *db);

	/*
	 * Runs one statement (the first in text).  n values are bound to $1...$n.
	 * row is called for every row of the result; NULL when none is expected.
	 * CDC_FULL: no room; CDC_IO: the medium failed, what is in memory can no
	 * longer be trusted, so the caller closes and opens again; CDC_CORRUPT.
	 */
	enum cdc_code (*run)(struct cdc_sql *db, const char *text,
			     const struct cdc_sql_value *values, size_t n, cdc_sql_row_fn *row,
			     void *arg, struct cdc_err *err);

	/* Runs every statement of a script, without values and results. */
	enum cdc_code (*script)(struct cdc_sql *db, const char *text, struct cdc_err *err);

	/* What commit returned CDC_OK for is durable.  After a failure nothing of the transaction
	 * holds; rollback never fails and may be called without a transaction. */
	enum cdc_code (*begin)(struct cdc_sql *db, struct cdc_err *err);
	enum cdc_code (*commit)(struct cdc_sql *db, struct cdc_err *err);
	void (*rollback)(struct cdc_sql *db);
};

/* The format of the remedy of CDC_CORRUPT; its argument is the database's path. */
#define CDC_SQL_CORRUPT_REMEDY                                                                     \
	"restore %s together with the rest of its data_dir from a backup, or start afresh with "   \
	"an empty data_dir: what its buffer holds is then not delivered"

extern const struct cdc_sql_ops cdc_sql_sqlite; /* cdc/store/sqlite.c; where: path of the file */

/*
 * Brings an open database to the newest version, each step in a transaction of
 * its own, and writes what was done into the table `migration`.  CDC_CONFIG: a
 * newer walpost has written it.
 */
enum cdc_code cdc_sql_migrate(const struct cdc_sql_ops *ops, struct cdc_sql *db,
			      struct cdc_err *err) CDC_CHECK;

/* Is the database of the version that this program knows?  Else CDC_CONFIG; it is left alone. */
enum cdc_code cdc_sql_check_version(const struct cdc_sql_ops *ops, struct cdc_sql *db,
				    struct cdc_err *err) CDC_CHECK;

#endif
