/*
 * copy_plan.h - what a copy is to read: tables, their columns, ranges of blocks.
 *
 * A table is what the publication publishes under one name: of its columns those
 * that the selection needs and those of a key, its row filter, the partitions below it when they
 * come under its name.  It is cut into ranges of blocks of about 64 MiB, or read in the order of
 * its key as one range.
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
#include "cdc/source/source.h"

#define CDC_COPY_KEY_MAX 440 /* bytes of SQL that a remembered key may have, with its NUL */

enum cdc_copy_way {
	CDC_COPY_BLOCKS,  /* everything, in ranges of blocks */
	CDC_COPY_KEYS,    /* keys above the one that is remembered, in their order */
	CDC_COPY_CHANGED, /* rows written since the first of the snapshots, in ranges of blocks */
};

/* What of a table is to be copied.  See copy.h for why it is enough. */
struct cdc_copy_part {
	enum cdc_copy_way way;
	uint64_t made_of; /* KEYS, CHANGED: of which table and key it is said; 0: it is not said */
	uint64_t since; /* the oldest transaction (xid8) that the first snapshot did not see end */
	char through[CDC_COPY_KEY_MAX]; /* KEYS: literals of the last key copied; "": none was */
};

/* A column of the key by which a table can be read in order. */
struct cdc_copy_key {
	size_t column;    /* index in the relation */
	const char *type; /* of a literal: character(10) */
};

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
	const char *key_sql; /* "id", "at" */
	struct cdc_copy_key *key;
	size_t key_n; /* 0: it has no key, or not all of it is published */
	bool is_partitioned;
	bool may_leave_out; /* its changes may come without a value that did not change */
	uint64_t made_of; /* of the table and its key; another key or another table: another number
			   */
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
	struct cdc_copy_part part; /* of the first table, the only one unless it is BLOCKS */
	size_t failed;             /* index of the table that an error is about, or SIZE_MAX */
};

void cdc_copy_plan_init(struct cdc_copy_plan *p);
void cdc_copy_plan_clear(struct cdc_copy_plan *p);

/*
 * Describes the tables, on a connection whose transaction has the snapshot, locks
 * them (ACCESS SHARE) and makes the ranges.  part: what to copy of tables[0], if it
 * is not everything; a part of what the table was before it got another key, or was
 * made anew, becomes its whole by keys.  CDC_HELD: a table was rewritten
 * since the snapshot.  CDC_MISSING: one is not published (any more).  CDC_TIMEOUT:
 * one is locked by somebody else.
 */
enum cdc_code cdc_copy_plan_make(struct cdc_copy_plan *p, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, const char *const *tables,
				 size_t n, const struct cdc_copy_part *part,
				 struct cdc_err *err) CDC_CHECK;

/* COPY (SELECT ...) TO STDOUT of a range; appended to out. */
void cdc_copy_plan_sql(const struct cdc_copy_plan *p, const struct cdc_copy_range *range,
		       struct cdc_buf *out);

#endif
