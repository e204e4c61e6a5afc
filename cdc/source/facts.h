/*
 * facts.h - what a server's catalog says that decides whether it can be read.
 *
 * Read once over one connection; the judgements are functions of the facts and of
 * the plan, so that `run` and `check` say the same.
 *
 * Threads: facts belong to their caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_FACTS_H
#define CDC_SOURCE_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/source/pgconn.h"
#include "cdc/source/source.h"

struct cdc_table_facts {
	char *schema, *name;
	char *text;        /* "public.orders" */
	char *index;       /* of a usable unique index, when there is no identity; or NULL */
	bool is_published; /* by the plan's publication */
	bool is_wanted;    /* by the plan's tables, or there are none and it is published */
	bool is_owned;     /* our role may publish it */
	bool has_identity; /* UPDATE and DELETE work when it is published */
	bool has_key;      /* a primary key: REPLICA IDENTITY DEFAULT would do */
};

struct cdc_facts {
	int version;
	bool is_standby, may_replicate, may_create; /* create: publications in this database */
	char wal_level[16];
	char standby_names[512]; /* synchronous_standby_names */
	unsigned slots, slots_max;

	bool has_slot;
	char plugin[64], slot_database[64]; /* empty: a physical slot */
	bool is_temporary;
	uint32_t slot_pid; /* of the process that reads it; 0: none */
	char wal_status[16];
	cdc_lsn confirmed; /* 0: still being made */
	char unread[256];  /* other slots of walpost's in this database that nobody reads */

	bool has_publication, is_all_tables, is_publication_ours; /* ours to alter */
	bool has_all_operations; /* insert, update, delete, truncate */

	struct cdc_table_facts *tables; /* wanted or published */
	size_t table_n;
	char *missing; /* names of wanted tables that are not there, with commas; or NULL */
};

enum cdc_code cdc_facts_read(struct cdc_facts *f, struct cdc_pgconn *c,
			     const struct cdc_source_plan *plan, struct cdc_err *err) CDC_CHECK;
void cdc_facts_clear(struct cdc_facts *f);

/* Would publishing this table make the application's statements fail?  It then needs remedy. */
bool cdc_facts_hurts(const struct cdc_table_facts *t);
void cdc_facts_identity_remedy(const struct cdc_table_facts *t, char *ret, size_t size);

/* CDC_OK, or what is wrong and the exact remedy. */
enum cdc_code cdc_facts_judge_server(const struct cdc_facts *f, const struct cdc_pgconn *c,
				     struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_facts_judge_slot(const struct cdc_facts *f, const struct cdc_pgconn *c,
				   const struct cdc_source_plan *plan, bool must_exist,
				   struct cdc_err *err) CDC_CHECK;
/* may_change: the publication may be made or altered by us. */
enum cdc_code cdc_facts_judge_publication(const struct cdc_facts *f, const struct cdc_pgconn *c,
					  const struct cdc_source_plan *plan, bool may_change,
					  struct cdc_err *err) CDC_CHECK;

/* Appends the SQL that makes the publication, or adds what it lacks, without the tables that would
 * hurt; returns how many tables it names. */
size_t cdc_facts_publication_sql(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				 struct cdc_buf *out);

#endif
