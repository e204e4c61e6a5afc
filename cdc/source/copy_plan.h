/*
 * copy_plan.h - what a copy is to read: tables, their columns, ranges of blocks.
 *
 * A table is what the publication publishes under one name: its columns, its row
 * filter, the partitions below it when they come under its name.  It is cut into
 * ranges of blocks of about 64 MiB.
 *
 * Threads: a plan belongs to its caller.
 * Layer: source (base, record).
 */
#ifndef CDC_SOURCE_COPY_PLAN_H
#define CDC_SOURCE_COPY_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/arena.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/pgoutput.h"

struct cdc_copy_leaf {
	const char *sql_name; /* "public"."orders_1" */
	uint64_t blocks;
	uint32_t filenode; /* as the snapshot sees it; 0: it has no storage of its own */
	uint32_t oid;
};

struct cdc_copy_relation {
	const char *name;             /* public.orders */
	struct pgo_relation relation; /* as the stream would describe it */
	const char *columns_sql;      /* "id", "amount" */
	const char *filter;           /* "" or an expression over its columns */
	struct cdc_copy_leaf *leaves;
	size_t leaf_n;
};

struct cdc_copy_range {
	size_t table;      /* index of the relation */
	size_t leaf;       /* index in it */
	uint32_t number;   /* in the copy, from 1: rows of different tables have different ids */
	uint64_t from, to; /* blocks; to 0: open end */
};

struct cdc_copy_plan {
	struct cdc_arena *arena; /* holds every text and array */
	struct cdc_copy_relation *relations;
	size_t relation_n;
	struct cdc_copy_range *ranges;
	size_t range_n;
	size_t failed; /* index of the table that an error is about, or SIZE_MAX */
};

void cdc_copy_plan_init(struct cdc_copy_plan *p);
void cdc_copy_plan_clear(struct cdc_copy_plan *p);

/*
 * Describes the tables, on a connection whose transaction has the snapshot, locks
 * them (ACCESS SHARE) and makes the ranges.  CDC_HELD: a table was rewritten
 * since the snapshot.  CDC_MISSING: one is not published (any more).  CDC_TIMEOUT:
 * one is locked by somebody else.
 */
enum cdc_code cdc_copy_plan_make(struct cdc_copy_plan *p, struct cdc_pgconn *c,
				 const char *publication, const char *const *tables, size_t n,
				 struct cdc_err *err) CDC_CHECK;

/* COPY (SELECT ...) TO STDOUT of a range; appended to out. */
void cdc_copy_plan_sql(const struct cdc_copy_plan *p, const struct cdc_copy_range *range,
		       struct cdc_buf *out);

#endif
