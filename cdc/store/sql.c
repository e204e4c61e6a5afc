#include "cdc/store/sql.h"

#include "cdc/base/clock.h"

static enum cdc_code take_version(void *arg, const struct cdc_sql_value *cols, size_t n,
				  struct cdc_err *err)
{
	int64_t *version = arg;

	(void)err;
	CDC_ASSERT(n == 1);
	*version = cols[0].i;
	return CDC_OK;
}

static enum cdc_code apply(const struct cdc_sql_ops *ops, struct cdc_sql *db, int64_t version,
			   struct cdc_err *err)
{
	const struct cdc_sql_value values[] = {cdc_sql_int(version),
					       cdc_sql_int(cdc_clock_wall_us())};
	enum cdc_code rc = ops->begin(db, err);

	if (!rc)
		rc = ops->script(db, ops->migrations[version - 1], err);
	if (!rc)
		rc = ops->run(db, "INSERT INTO migration (version, applied_us) VALUES ($1, $2)",
			      values, 2, NULL, NULL, err);
	if (!rc)
		rc = ops->commit(db, err);
	if (rc)
		ops->rollback(db);
	return rc;
}

static int64_t newest_version(const struct cdc_sql_ops *ops)
{
	int64_t newest = 0;

	while (ops->migrations[newest])
		newest++;
	return newest;
}

static enum cdc_code read_version(const struct cdc_sql_ops *ops, struct cdc_sql *db,
				  int64_t *ret_version, struct cdc_err *err)
{
	return ops->run(db, "SELECT coalesce(max(version), 0) FROM migration", NULL, 0,
			take_version, ret_version, err);
}

static enum cdc_code is_newer(int64_t version, int64_t newest, struct cdc_err *err)
{
	(void)cdc_err_set(err, CDC_CONFIG,
			  "the state was written by a newer walpost: its version is %lld, this "
			  "program knows up to %lld",
			  (long long)version, (long long)newest);
	return cdc_err_remedy(err, "run the newer walpost, or use another data_dir");
}

enum cdc_code cdc_sql_migrate(const struct cdc_sql_ops *ops, struct cdc_sql *db,
			      struct cdc_err *err)
{
	int64_t version = 0, newest = newest_version(ops);
	enum cdc_code rc;

	rc = ops->script(db,
			 "CREATE TABLE IF NOT EXISTS migration "
			 "(version BIGINT PRIMARY KEY, applied_us BIGINT NOT NULL)",
			 err);
	if (!rc)
		rc = read_version(ops, db, &version, err);
	if (rc)
		return rc;
	if (version > newest)
		return is_newer(version, newest, err);
	while (version < newest && !rc)
		rc = apply(ops, db, ++version, err);
	return rc;
}

enum cdc_code cdc_sql_check_version(const struct cdc_sql_ops *ops, struct cdc_sql *db,
				    struct cdc_err *err)
{
	int64_t version = 0, newest = newest_version(ops);
	enum cdc_code rc = read_version(ops, db, &version, err);

	if (rc || version == newest)
		return rc;
	if (version > newest)
		return is_newer(version, newest, err);
	(void)cdc_err_set(err, CDC_EPOCH,
			  "the state was written by an older walpost (version %lld, this program "
			  "has %lld)",
			  (long long)version, (long long)newest);
	return cdc_err_remedy(err, "give commands with the program that runs, or start this one "
				   "with `walpost run` first");
}
