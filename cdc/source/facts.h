/*
 * facts.h - what a server says about itself, our slot, our publication and the tables.
 *
 * Everything is read by a few statements and then lies still, so that one set of
 * judgements (judge.h) serves connecting and checking alike.  Statements name
 * every object by its schema, and none of them needs more than LOGIN.
 *
 * Source: PostgreSQL docs, "System Views" and "System Catalogs", 13 to 18; which
 * tables an UPDATE fails on: src/backend/executor/execReplication.c,
 * CheckCmdReplicaIdentity.
 *
 * Threads: facts belong to their caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_FACTS_H
#define CDC_SOURCE_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cdc/base/arena.h"
#include "cdc/base/err.h"
#include "cdc/base/lsn.h"
#include "cdc/source/pgconn.h"
#include "cdc/source/source.h"

struct cdc_fact_slot {
	bool exists;
	const char *plugin, *database; /* "" for a physical slot */
	bool is_temporary, is_synced;  /* synced: kept for us by a standby (17+) */
	bool is_two_phase;             /* sends what is only prepared (14+) */
	bool is_failover;              /* standbys may keep it (17+) */
	uint32_t active_pid;           /* 0: nobody reads it */
	const char *reader;            /* application_name of that process, "" if hidden */
	const char *reader_address;    /* where it comes from, "" if hidden or a local socket */
	const char *wal_status;        /* reserved, extended, unreserved, lost */
	const char *invalidation;      /* why it can no longer be read, "" when it can */
	cdc_lsn confirmed_lsn;
};

struct cdc_fact_publication {
	bool exists, is_alterable; /* by our role */
	const char *owner;
	bool inserts, updates, deletes, truncates;
	bool is_via_root;
};

/* Who runs the server, told by the roles that it has: each wants its settings made another way. */
enum cdc_platform {
	CDC_PLATFORM_PLAIN,
	CDC_PLATFORM_RDS, /* Amazon RDS and Aurora */
	CDC_PLATFORM_CLOUD_SQL,
	CDC_PLATFORM_AZURE,
	CDC_PLATFORM_SUPABASE,
	CDC_PLATFORM_NEON,
};

/* Why UPDATE and DELETE fail, or cannot be told apart, while a publication with these operations
 * holds the table. */
enum cdc_hurt {
	CDC_HURT_NONE,
	CDC_HURT_IDENTITY,  /* no replica identity */
	CDC_HURT_GENERATED, /* a generated column in it that is not published (18) */
	CDC_HURT_UNSENT, /* nothing fails, but a generated column of it is never sent (before 18),
			  * so that records would not say of which row they are */
	CDC_HURT_LIST,   /* the column list lacks columns of it */
	CDC_HURT_FILTER, /* the row filter uses columns outside it */
};

struct cdc_fact_table {
	const char *name;     /* public.orders, as records say it */
	const char *sql_name; /* "public"."orders" */
	const char *owner;
	char kind, persistence; /* as pg_class */
	char identity;          /* d, f, i, n as pg_class; what counts is hurt */
	bool is_owned;          /* by our role, or a role it is a member of */
	bool is_asked;          /* by the plan */
	bool is_published;
	bool is_listed;      /* a partitioned table of a publication that sends its partitions */
	const char *sent_as; /* a partition whose rows come under this name; "": none */
	bool has_primary_key;
	bool hides_rows; /* row security is active for our role */
	/* The table, or the partition of it, that our role may not read; "": it may read all. */
	const char *unread_sql_name;
	enum cdc_hurt hurt;
	const char *hurt_sql_name; /* the table, or the partition that hurts */
	const char *mend;          /* what to ALTER of it: REPLICA IDENTITY FULL */
};

struct cdc_facts {
	struct cdc_arena *arena; /* holds every text */
	const char *where;       /* the connection's, for texts */
	int version;             /* 150018 */
	bool is_in_recovery;
	const char *wal_level, *role, *database, *standby_names;
	enum cdc_platform platform;
	bool is_pooled;       /* what the connect set does not hold: a pooler has swallowed it */
	bool is_superuser;    /* our role is one */
	bool has_replication; /* it has the attribute (RDS goes by membership instead) */
	bool has_feedback;    /* hot_standby_feedback */
	const char *encoding; /* server_encoding */
	int64_t keep_bytes;   /* max_slot_wal_keep_size; below 0: no limit */
	uint32_t sender_max, sender_n; /* max_wal_senders and how many there are */
	uint32_t idle_limit_s;         /* idle_replication_slot_timeout (18+); 0: none */
	const char *sender_timeout;    /* wal_sender_timeout of this session, "1min" */
	uint32_t slot_max, slot_n;     /* max_replication_slots and how many there are */
	const char *idle_slots;        /* names of slots that nobody reads, some of them */
	bool may_make_publications;    /* CREATE on the database */
	struct cdc_fact_slot slot;
	struct cdc_fact_publication publication;
	/* There is no publication, and no table was asked for, or patterns were: every table that
	 * suits (and matches one) is meant. */
	bool is_every_table;
	bool owns_one;                 /* our role owns one of the tables */
	struct cdc_fact_table *tables; /* asked for, published, or meant; by name */
	size_t table_n;
};

void cdc_facts_init(struct cdc_facts *f);
void cdc_facts_clear(struct cdc_facts *f);

/* Reads everything anew.  The server must be 13 or newer; slot: its name, NULL: none is of
 * interest.  After an error the facts are as after init. */
enum cdc_code cdc_facts_read(struct cdc_facts *f, struct cdc_pgconn *c,
			     const struct cdc_source_plan *plan, const char *slot,
			     struct cdc_err *err) CDC_CHECK;

#endif
