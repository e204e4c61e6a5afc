/* Slots that walpost reads, and the numberings that they had before. */
#include <stdio.h>

#include "cdc/base/clock.h"
#include "cdc/store/parts.h"
#include "cdc/store/request.h"
#include "cdc/store/row.h"

struct slot_call {
	const char *connection, *slot;
	const struct cdc_slot_row *put;
	const struct cdc_database *db;
	struct cdc_slot_row row;
	bool is_found;
	int64_t generation; /* without a row: the highest there was */
};

static enum cdc_code take_slot(void *arg, const struct cdc_sql_value *c, size_t n,
			       struct cdc_err *err)
{
	struct slot_call *call = arg;
	struct cdc_slot_row *r = &call->row;
	int64_t generation, slot_is_ours, publication_is_ours, begins_anew;

	CDC_ASSERT(n == 10);
	if (!cdc_row_text(&c[0], r->connection, sizeof(r->connection)) ||
	    !cdc_row_text(&c[1], r->slot, sizeof(r->slot)) ||
	    !cdc_row_text(&c[2], r->system_id, sizeof(r->system_id)) ||
	    !cdc_row_lsn(&c[3], &r->created_lsn) ||
	    !cdc_row_text(&c[4], r->numbering, sizeof(r->numbering)) ||
	    !cdc_row_int(&c[5], 1, 255, &generation) || !cdc_row_int(&c[6], 0, 1, &slot_is_ours) ||
	    !cdc_row_int(&c[7], 0, 1, &publication_is_ours) ||
	    !cdc_row_text(&c[8], r->publication, sizeof(r->publication)) ||
	    !cdc_row_int(&c[9], 0, 1, &begins_anew))
		return cdc_database_damaged(call->db, "slot", err);
	r->generation = (unsigned)generation;
	r->slot_is_ours = slot_is_ours != 0;
	r->publication_is_ours = publication_is_ours != 0;
	r->begins_anew = begins_anew != 0;
	call->is_found = true;
	return CDC_OK;
}

static enum cdc_code take_generation(void *arg, const struct cdc_sql_value *c, size_t n,
				     struct cdc_err *err)
{
	struct slot_call *call = arg;

	CDC_ASSERT(n == 1);
	if (!cdc_row_int(&c[0], 0, 255, &call->generation))
		return cdc_database_damaged(call->db, "epoch", err);
	return CDC_OK;
}

static enum cdc_code load(struct cdc_database *db, struct slot_call *call, struct cdc_err *err)
{
	const struct cdc_sql_value key[] = {cdc_sql_text(call->connection),
					    cdc_sql_text(call->slot)};
	enum cdc_code rc;

	call->db = db;
	rc = cdc_database_query(
		db,
		"SELECT connection, slot, system_id, created_lsn, numbering, generation,"
		" slot_is_ours, publication_is_ours, publication, begins_anew FROM slot"
		" WHERE connection = $1 AND slot = $2",
		key, 2, take_slot, call, err);
	if (rc || call->is_found)
		return rc;
	return cdc_database_query(db,
				  "SELECT coalesce(max(generation), 0) FROM epoch"
				  " WHERE connection = $1 AND slot = $2",
				  key, 2, take_generation, call, err);
}

static enum cdc_code get(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	return load(db, arg, err);
}

/* Remembers the numbering of a row that is about to go. */
static enum cdc_code bury(struct cdc_database *db, const struct cdc_slot_row *r,
			  struct cdc_err *err)
{
	char lsn[CDC_LSN_TEXT];
	const struct cdc_sql_value values[] = {
		cdc_sql_text(r->connection),      cdc_sql_text(r->slot), cdc_sql_int(r->generation),
		cdc_sql_text(r->system_id),       cdc_sql_text(lsn),     cdc_sql_text(r->numbering),
		cdc_sql_int(cdc_clock_wall_us()),
	};

	(void)cdc_lsn_format(r->created_lsn, lsn);
	return cdc_database_run(
		db,
		"INSERT INTO epoch (connection, slot, generation, system_id, created_lsn,"
		" numbering, until_us) VALUES ($1, $2, $3, $4, $5, $6, $7)"
		" ON CONFLICT (connection, slot, generation) DO UPDATE SET"
		" system_id = excluded.system_id, created_lsn = excluded.created_lsn,"
		" numbering = excluded.numbering, until_us = excluded.until_us",
		values, 7, err);
}

enum cdc_code cdc_slot_write(struct cdc_database *db, const struct cdc_slot_row *r,
			     struct cdc_err *err)
{
	struct slot_call call = {.connection = r->connection, .slot = r->slot};
	char lsn[CDC_LSN_TEXT];
	const struct cdc_sql_value values[] = {
		cdc_sql_text(r->connection),  cdc_sql_text(r->slot),
		cdc_sql_text(r->system_id),   cdc_sql_text(lsn),
		cdc_sql_text(r->numbering),   cdc_sql_int(r->generation),
		cdc_sql_int(r->slot_is_ours), cdc_sql_int(r->publication_is_ours),
		cdc_sql_text(r->publication), cdc_sql_int(r->begins_anew),
	};
	enum cdc_code rc = load(db, &call, err);

	(void)cdc_lsn_format(r->created_lsn, lsn);
	if (!rc && call.is_found && call.row.generation != r->generation)
		rc = bury(db, &call.row, err);
	if (rc)
		return rc;
	return cdc_database_run(
		db,
		"INSERT INTO slot (connection, slot, system_id, created_lsn, numbering,"
		" generation, slot_is_ours, publication_is_ours, publication, begins_anew)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
		" ON CONFLICT (connection, slot) DO UPDATE SET"
		" system_id = excluded.system_id, created_lsn = excluded.created_lsn,"
		" numbering = excluded.numbering, generation = excluded.generation,"
		" slot_is_ours = excluded.slot_is_ours,"
		" publication_is_ours = excluded.publication_is_ours,"
		" publication = excluded.publication, begins_anew = excluded.begins_anew",
		values, 10, err);
}

static enum cdc_code put(struct cdc_database *db, void *arg, struct cdc_err *err)
{
	const struct slot_call *call = arg;

	return cdc_slot_write(db, call->put, err);
}

static enum cdc_code delete (struct cdc_database *db, void *arg, struct cdc_err *err) {
	struct slot_call *call = arg;
	const struct cdc_sql_value key[] = {cdc_sql_text(call->connection),
					    cdc_sql_text(call->slot)};
	enum cdc_code rc = load(db, call, err);

	if (rc || !call->is_found) return rc;
	rc = bury(db, &call->row, err);
	if (rc) return rc;
	return cdc_database_run(db, "DELETE FROM slot WHERE connection = $1 AND slot = $2", key, 2,
				err);
}

enum cdc_code cdc_store_slot_get(struct cdc_store *s, const char *connection, const char *slot,
				 struct cdc_slot_row *ret, struct cdc_err *err)
{
	struct slot_call call = {.connection = connection, .slot = slot};
	enum cdc_code rc = cdc_store_ask_read(s, get, &call, err);

	if (rc)
		return rc;
	if (!call.is_found) {
		ret->generation = (unsigned)call.generation;
		return cdc_err_set(err, CDC_MISSING, "slot %s of %s is not known", slot,
				   connection);
	}
	*ret = call.row;
	return CDC_OK;
}

enum cdc_code cdc_store_slot_put(struct cdc_store *s, const struct cdc_slot_row *row,
				 struct cdc_err *err)
{
	struct slot_call call = {.connection = row->connection, .slot = row->slot, .put = row};

	return cdc_store_ask_write(s, put, &call, err);
}

enum cdc_code cdc_store_slot_delete(struct cdc_store *s, const char *connection, const char *slot,
				    struct cdc_err *err)
{
	struct slot_call call = {.connection = connection, .slot = slot};

	return cdc_store_ask_write(s, delete, &call, err);
}
