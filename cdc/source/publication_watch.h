/*
 * publication_watch.h - what becomes of the publication while it is read.
 *
 * A table that leaves the publication, an operation that it does not send any more,
 * a filter or a list that is changed: nothing of it is said in the stream, whose
 * records just stop coming.  So the catalogs are looked at now and then, and what
 * differs from the look before is told, each thing once.
 *
 * One statement does it, and answers with one row as long as nothing has changed,
 * for which it reads a row per table of three catalogs and no more; it opens no
 * table, so that it waits for no lock.
 *
 * What left and came back between two looks is known by its entry: pg_publication_rel,
 * pg_publication_namespace and pg_publication give each that is made an OID of its
 * own, and a partition has the transaction that attached it.  So that this holds
 * over a restart, too, the last look is kept by the caller.
 *
 * Source: src/backend/catalog/pg_publication.c, pg_get_publication_tables;
 * src/backend/replication/pgoutput/pgoutput.c, get_rel_sync_entry.
 *
 * Threads: a watch belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_PUBLICATION_WATCH_H
#define CDC_SOURCE_PUBLICATION_WATCH_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/arena.h"
#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/source/source.h"

/* What comes of a table, as of one look. */
struct cdc_published {
	uint32_t oid, under; /* under: the table whose name its records bear, mostly itself */
	char *name;          /* public.orders */
	char *under_name;    /* the same of the other */
	char *filter;        /* "" or a digest of the row filter */
	char *columns;       /* "" (all) or those of the column list */
	char *entries; /* by which it is published, with a space between: another when it was taken
			  out and put back */
};

/* One look at the publication. */
struct cdc_publication_look {
	struct cdc_arena *arena; /* holds the rest; NULL: there was none yet */
	bool exists;
	char options[8]; /* of i, u, d, t (operations), r (via root), g (generated columns) */
	char digest[24]; /* of the tables */
	struct cdc_published *tables; /* by oid */
	size_t table_n;
};

#define CDC_LEFT_MAX 500 /* that are remembered */

struct cdc_publication_watch {
	const struct cdc_source_plan *plan;
	int version;        /* of the server */
	char system_id[24]; /* whose publication it is */
	struct cdc_publication_look last;
	struct cdc_left_table { /* the publication, and still exist */
		uint32_t oid;
		char name[128];
	} left[CDC_LEFT_MAX];
	size_t left_n;
	char lost[8]; /* of options: operations that stopped coming */
	struct cdc_buf sql;
};

void cdc_publication_watch_init(struct cdc_publication_watch *w,
				const struct cdc_source_plan *plan);
void cdc_publication_watch_clear(struct cdc_publication_watch *w);

/* Before a stream.  What is known of another system is forgotten. */
void cdc_publication_watch_begin(struct cdc_publication_watch *w, int version,
				 const char *system_id);

/* The statement of the next look, valid until the next call; NULL: out of memory. */
const char *cdc_publication_watch_sql(struct cdc_publication_watch *w);

/* The statement that says what became of tables that are not published any more, or NULL: none is,
 * or out of memory.  answer: to the statement above. */
const char *cdc_publication_watch_missing_sql(struct cdc_publication_watch *w,
					      const PGresult *answer);

/* Takes the answers in (missing: NULL when it was not asked) and tells what is new.  CDC_NOMEM. */
enum cdc_code cdc_publication_watch_take(struct cdc_publication_watch *w, const PGresult *answer,
					 const PGresult *missing, cdc_publication_news_fn *fn,
					 void *arg, struct cdc_publication_report *ret,
					 struct cdc_err *err) CDC_CHECK;

/* What left and is still out, as a text; and what a former process had, before the first look. */
void cdc_publication_watch_put_left(const struct cdc_publication_watch *w, struct cdc_buf *out);
void cdc_publication_watch_recall_left(struct cdc_publication_watch *w, const char *text);
/* The same of the last look; after recall_left.  A text that is none of ours, or of another
 * publication, is as none. */
void cdc_publication_watch_put_look(const struct cdc_publication_watch *w, struct cdc_buf *out);
void cdc_publication_watch_recall_look(struct cdc_publication_watch *w, const char *text);

/* A table is taken out on purpose: its leaving is no news. */
void cdc_publication_watch_forget(struct cdc_publication_watch *w, const char *name);

#endif
