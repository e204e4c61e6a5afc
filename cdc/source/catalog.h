/*
 * catalog.h - the tables of a stream as its Relation messages describe them.
 *
 * Rows are decoded with the last Relation message of their relation and nothing
 * else: it says what the table looked like when the row was written, whatever
 * happened to it since.  Only what the message leaves out is asked in SQL: the
 * form of a type that is not built in, once per type, and under REPLICA IDENTITY
 * FULL, where every column is flagged, the primary key.
 *
 * Of ALTER TYPE the stream says nothing: a composite type that gets, loses or
 * renames an attribute shows in the bare text of the next row.  Tables with such
 * columns are therefore marked, and before one of their rows is written the types
 * are looked at, unless a look was made when the server's log was beyond the
 * row's commit: one question per transaction at low load, far fewer when there is
 * much to read.  No other table pays for it.  What a type was at a time of which
 * nobody looked (a backlog read after ALTER TYPE) is told by the number of fields
 * only; see cdc/record/composite.h.  Labels of enums travel as text and need nothing.
 *
 * Relation messages repeat for many reasons (ANALYZE, an index, another session's
 * DDL).  One that says what is known keeps the table as it is; one that does not
 * makes a new one: that is where a change of columns shows.
 *
 * A relation is known per session of the stream: the server sends it again after
 * a reconnect, so the catalog is emptied then.
 *
 * Threads: a catalog belongs to its caller.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_CATALOG_H
#define CDC_SOURCE_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "cdc/base/err.h"
#include "cdc/record/writer.h"
#include "cdc/source/describe.h"
#include "cdc/source/lookup.h"
#include "cdc/source/pgoutput.h"

struct cdc_table {
	uint32_t relid;
	struct cdc_shape *shape;
	/* A partitioned table under full identity: whether an old row is whole depends on the
	 * partition it came from, so a null in it may stand for a value that was not sent.  The
	 * same of a table that is gone by now, of which nobody can say whether it was partitioned.
	 */
	bool old_may_lack;
	bool is_told;       /* the caller's: its description need not be looked at, there is none or
			     * its schema record was made */
	bool has_row_types; /* call cdc_catalog_refresh before a row is written */
	uint64_t digest;    /* of everything that the shape was made of */
	char *description;  /* describe.h; NULL without a describer */
};

struct cdc_catalog;

/* lookup outlives the catalog.  NULL: heap exhausted. */
struct cdc_catalog *cdc_catalog_new(struct cdc_lookup *lookup);
void cdc_catalog_free(struct cdc_catalog *c);

/* From the next Relation message on tables have descriptions.  The describer outlives the
 * catalog's use of it, is cleared by reset, and NULL (the beginning) is none. */
void cdc_catalog_set_describer(struct cdc_catalog *c, struct cdc_describer *d);

/* Forgets every table and type; tables that were given out are gone. */
void cdc_catalog_reset(struct cdc_catalog *c);

/*
 * Takes in a Relation message; earlier pointers to tables are not valid any more.
 * May ask in SQL, so it may wait some seconds.  A type or table that is no longer
 * there is not an error: the type is written as text, the table has no key.
 * CDC_NOMEM: out of memory, or more than 100,000 tables since the last reset.
 * CDC_IO, CDC_TIMEOUT and the like: the question failed, the catalog is as before.
 */
enum cdc_code cdc_catalog_relation(struct cdc_catalog *c, const struct pgo_relation *r,
				   struct cdc_err *err) CDC_CHECK;

/*
 * Makes sure that composite types are as they were when WAL ended at commit_lsn,
 * or later; costs a comparison if they are known to be.  Tables stay valid, shapes
 * as well.  Codes as cdc_catalog_relation.
 */
enum cdc_code cdc_catalog_refresh(struct cdc_catalog *c, cdc_lsn commit_lsn,
				  struct cdc_err *err) CDC_CHECK;
/* The same for rows that are as of no commit: makes sure that they are as now, asking every time.
 */
enum cdc_code cdc_catalog_refresh_now(struct cdc_catalog *c, struct cdc_err *err) CDC_CHECK;

/* What had to be written as its text for want of knowledge, since the catalog was made. */
struct cdc_catalog_oddities {
	uint64_t types;  /* that the database did not have any more */
	uint64_t values; /* of composite types, whose attributes were others then */
	uint32_t type;   /* OID of the last such type */
};
struct cdc_catalog_oddities cdc_catalog_oddities(const struct cdc_catalog *c);

/* Sets is_told of a table that find returned. */
void cdc_catalog_tell(struct cdc_catalog *c, const struct cdc_table *t);

/* The table of a relation, or NULL: no Relation message came. */
const struct cdc_table *cdc_catalog_find(struct cdc_catalog *c, uint32_t relid);

#endif
