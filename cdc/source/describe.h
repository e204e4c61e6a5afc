/*
 * describe.h - what a table looks like, as the JSON of a `schema` record.
 *
 *   {"columns":[{"name":"id","type":"integer","key":true},
 *               {"name":"n","type":"numeric(10,2)","key":false}],
 *    "replica_identity":"default","oid":16385}
 *
 * The same table gives the same bytes, so that bytes tell whether anything has
 * changed.  Columns come in the order of the rows; key: part of the records' key;
 * replica_identity: default, full, index, nothing.  The oid tells a table that was
 * dropped and made anew from the one before.  type is pg_catalog.format_type of
 * OID and modifier, asked in SQL once per session, with its schema unless that is
 * pg_catalog; null when the type is there no more.
 *
 * Threads: a describer belongs to its caller.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_DESCRIBE_H
#define CDC_SOURCE_DESCRIBE_H

#include "cdc/base/buf.h"
#include "cdc/record/writer.h"
#include "cdc/source/lookup.h"
#include "cdc/source/pgoutput.h"
#include "cdc/source/text_map.h"

struct cdc_describer {
	struct cdc_lookup *lookup;
	struct cdc_text_map types; /* OID and modifier: the type's name as JSON */
};

/* lookup outlives the describer. */
void cdc_describer_init(struct cdc_describer *d, struct cdc_lookup *lookup);
void cdc_describer_clear(struct cdc_describer *d); /* forgets the names of the types */

/*
 * Appends the description to out, which is empty and has room for any.  columns:
 * r->n of them, for is_key.  Codes as cdc_lookup_ask; CDC_NOMEM.
 */
enum cdc_code cdc_describe(struct cdc_describer *d, const struct pgo_relation *r,
			   const struct cdc_column *columns, struct cdc_buf *out,
			   struct cdc_err *err) CDC_CHECK;

/* Appends an object of the members of before that are other in after, or not there. */
void cdc_describe_changes(const char *before, const char *after, struct cdc_buf *out);

#endif
