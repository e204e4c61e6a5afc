#include "cdc/store/database.h"

#include <stdio.h>
#include <stdlib.h>

#include "cdc/store/vault.h"

static void drop(struct cdc_database *db)
{
	db->ops->close(db->sql);
	db->sql = NULL;
}

static enum cdc_code connect(struct cdc_database *db, struct cdc_err *err)
{
	enum cdc_code rc;

	if (db->sql)
		return CDC_OK;
	rc = db->is_attached ? db->ops->attach(db->path, &db->sql, err)
			     : db->ops->open(db->path, &db->sql, err);
	if (!rc)
		rc = db->is_attached ? cdc_sql_check_version(db->ops, db->sql, err)
				     : cdc_sql_migrate(db->ops, db->sql, err);
	if (rc)
		drop(db);
	return rc;
}

/* Never go on with a connection whose medium failed. */
static enum cdc_code judge(struct cdc_database *db, enum cdc_code rc)
{
	if (rc == CDC_IO || rc == CDC_CORRUPT)
		drop(db);
	return rc;
}

static enum cdc_code open_or_attach(struct cdc_database *db, const char *dir, bool is_attached,
				    struct cdc_err *err)
{
	enum cdc_code rc;

	*db = (struct cdc_database){.ops = &cdc_sql_sqlite, .is_attached = is_attached};
	if (asprintf(&db->path, "%s/state.db", dir) < 0) {
		db->path = NULL;
		return cdc_err_set(err, CDC_NOMEM, "out of memory");
	}
	rc = connect(db, err);
	if (rc)
		cdc_database_clear(db);
	return rc;
}

enum cdc_code cdc_database_open(struct cdc_database *db, const char *dir, struct cdc_err *err)
{
	return open_or_attach(db, dir, false, err);
}

enum cdc_code cdc_database_attach(struct cdc_database *db, const char *dir, struct cdc_err *err)
{
	return open_or_attach(db, dir, true, err);
}

void cdc_database_clear(struct cdc_database *db)
{
	if (db->sql)
		drop(db);
	cdc_vault_free(db->vault);
	db->vault = NULL;
	free(db->path);
	db->path = NULL;
}

enum cdc_code cdc_database_write(struct cdc_database *db, cdc_database_fn *body, void *arg,
				 struct cdc_err *err)
{
	enum cdc_code rc = connect(db, err);

	if (rc)
		return rc;
	rc = db->ops->begin(db->sql, err);
	if (!rc)
		rc = body(db, arg, err);
	if (!rc)
		rc = db->ops->commit(db->sql, err);
	if (rc)
		db->ops->rollback(db->sql);
	return judge(db, rc);
}

enum cdc_code cdc_database_read(struct cdc_database *db, cdc_database_fn *body, void *arg,
				struct cdc_err *err)
{
	enum cdc_code rc = connect(db, err);

	return rc ? rc : judge(db, body(db, arg, err));
}

static enum cdc_code take_changes(void *arg, const struct cdc_sql_value *cols, size_t n,
				  struct cdc_err *err)
{
	(void)err;
	CDC_ASSERT(n == 1);
	*(int64_t *)arg = cols[0].i;
	return CDC_OK;
}

static enum cdc_code changes(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	return cdc_database_query(db, db->ops->changes, NULL, 0, take_changes, arg, err);
}

enum cdc_code cdc_database_changes(struct cdc_database *db, int64_t *ret, struct cdc_err *err)
{
	return cdc_database_read(db, changes, ret, err);
}

enum cdc_code cdc_database_run(struct cdc_database *db, const char *text,
			       const struct cdc_sql_value *values, size_t n, struct cdc_err *err)
{
	return db->ops->run(db->sql, text, values, n, NULL, NULL, err);
}

enum cdc_code cdc_database_query(struct cdc_database *db, const char *text,
				 const struct cdc_sql_value *values, size_t n, cdc_sql_row_fn *row,
				 void *arg, struct cdc_err *err)
{
	return db->ops->run(db->sql, text, values, n, row, arg, err);
}

enum cdc_code cdc_database_damaged(const struct cdc_database *db, const char *what,
				   struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_CORRUPT, "%s: a damaged %s", db->path, what);
	(void)cdc_err_remedy(err, CDC_SQL_CORRUPT_REMEDY, db->path);
	return CDC_CORRUPT;
}
