/*
 * database.h - the store's database: opened again when its medium failed.
 *
 * After a failure of the medium what the back end has in memory may be ahead of
 * the disk.  It is therefore closed, and the next use opens it again; until then
 * a database has a path and no connection.
 *
 * Threads: a database belongs to one thread at a time.
 * Layer: store (base).
 */
#ifndef CDC_STORE_DATABASE_H
#define CDC_STORE_DATABASE_H

#include <stdbool.h>

#include "cdc/store/sql.h"

struct cdc_database {
	const struct cdc_sql_ops *ops;
	char *path;
	struct cdc_sql *sql;     /* NULL: to be opened by the next use */
	bool is_attached;        /* another process may be its owner: nothing is made or migrated */
	struct cdc_vault *vault; /* vault.h; NULL: locked */
};

/* What is done with an open database; anything but CDC_OK takes it back. */
typedef enum cdc_code cdc_database_fn(struct cdc_database *db, void *arg, struct cdc_err *err);

/* DIR/state.db, opened and migrated.  After a failure db is as cleared. */
enum cdc_code cdc_database_open(struct cdc_database *db, const char *dir,
				struct cdc_err *err) CDC_CHECK;
/* DIR/state.db as it is, whoever works with it.  CDC_MISSING; CDC_CONFIG: of another version. */
enum cdc_code cdc_database_attach(struct cdc_database *db, const char *dir,
				  struct cdc_err *err) CDC_CHECK;
void cdc_database_clear(struct cdc_database *db); /* also one that is all zero */

/* Runs body in a transaction; what it did is durable when this returns CDC_OK, else nothing of it
 * holds. */
enum cdc_code cdc_database_write(struct cdc_database *db, cdc_database_fn *body, void *arg,
				 struct cdc_err *err) CDC_CHECK;
/* Runs a body that only reads. */
enum cdc_code cdc_database_read(struct cdc_database *db, cdc_database_fn *body, void *arg,
				struct cdc_err *err) CDC_CHECK;

/* A number that is another one after another process has committed something, or the medium failed.
 */
enum cdc_code cdc_database_changes(struct cdc_database *db, int64_t *ret,
				   struct cdc_err *err) CDC_CHECK;

/* For bodies: one statement without a result, and one with. */
enum cdc_code cdc_database_run(struct cdc_database *db, const char *text,
			       const struct cdc_sql_value *values, size_t n,
			       struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_database_query(struct cdc_database *db, const char *text,
				 const struct cdc_sql_value *values, size_t n, cdc_sql_row_fn *row,
				 void *arg, struct cdc_err *err) CDC_CHECK;

/* A row holds what walpost never wrote: CDC_CORRUPT, with what to do. */
enum cdc_code cdc_database_damaged(const struct cdc_database *db, const char *what,
				   struct cdc_err *err);

#endif
