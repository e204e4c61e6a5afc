/*
 * catalog.h - the tables of a stream as its Relation messages describe them.
 *
 * Rows are decoded with the last Relation message of their relation and nothing
 * else: it says what the table looked like when the row was written, whatever
 * happened to it since.  Only what the message leaves out is asked in SQL: the
 * form of a type that is not built in, once per type, and under REPLICA IDENTITY
 * FULL, where every column is flagged, the primary key.
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
	uint64_t digest; /* of everything that the shape was made of */
};

struct cdc_catalog;

/* lookup outlives the catalog.  NULL: heap exhausted. */
struct cdc_catalog *cdc_catalog_new(struct cdc_lookup *lookup);
void cdc_catalog_free(struct cdc_catalog *c);

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

/* The table of a relation, or NULL: no Relation message came. */
const struct cdc_table *cdc_catalog_find(struct cdc_catalog *c, uint32_t relid);

#endif
