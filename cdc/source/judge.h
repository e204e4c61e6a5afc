/*
 * judge.h - what follows from the facts about a source.
 *
 * Pure functions: the same facts always give the same verdict, for connecting and
 * for checking.  A verdict that stops the start is an error with one sentence and
 * the exact remedy.
 *
 * Threads: pure.  Layer: source (base).
 */
#ifndef CDC_SOURCE_JUDGE_H
#define CDC_SOURCE_JUDGE_H

#include <stdbool.h>

#include "cdc/base/buf.h"
#include "cdc/base/err.h"
#include "cdc/source/facts.h"
#include "cdc/source/source.h"

#define CDC_OLDEST_VERSION 130000

/* CDC_CONFIG: older than CDC_OLDEST_VERSION.  Needs no facts: older servers cannot give them. */
enum cdc_code cdc_judge_version(int version, const char *where, struct cdc_err *err) CDC_CHECK;

#define CDC_MINOR_BYTES 400
/* How many known mistakes of decoding this minor version has; their effects, gravest first, and the
 * minor version that mends all of them. */
size_t cdc_judge_minor(int version, char ret_text[CDC_MINOR_BYTES], int *ret_mended);

/* CDC_CONFIG: the server cannot send the messages that the plan asks for. */
enum cdc_code cdc_judge_messages(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				 struct cdc_err *err) CDC_CHECK;

/* CDC_CONFIG: the server does not decode its log, a pooler is in between, or it has not what the
 * plan asks for. */
enum cdc_code cdc_judge_server(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			       struct cdc_err *err) CDC_CHECK;

/* A slot that is there: CDC_CONFIG it is another kind of slot, CDC_GAP its changes are gone,
 * CDC_HELD somebody reads it.  One that is missing: CDC_GAP when it must exist, CDC_MISSING when it
 * may not be made, CDC_CONFIG when there is no room for it; CDC_OK: make it. */
enum cdc_code cdc_judge_slot(const struct cdc_facts *f, const struct cdc_source_plan *plan,
			     bool must_exist, struct cdc_err *err) CDC_CHECK;
/* CDC_CONFIG: no room for one slot more. */
enum cdc_code cdc_judge_slot_room(const struct cdc_facts *f, struct cdc_err *err) CDC_CHECK;

enum cdc_fate {
	CDC_FATE_NONE,      /* nobody asked for it */
	CDC_FATE_PUBLISHED, /* all is well */
	CDC_FATE_HURT,      /* published, and UPDATE or DELETE of it fail */
	CDC_FATE_ADD,       /* to be published */
	CDC_FATE_LEFT_OUT,  /* asked for or meant, and not to be had */
};
enum cdc_fate cdc_judge_table(const struct cdc_facts *f, const struct cdc_fact_table *t);

/* What gives our role the right to replicate, and what makes wal_level logical, where this server
 * runs. */
void cdc_judge_replication_remedy(const struct cdc_facts *f, char ret_remedy[768]);
void cdc_judge_wal_level_remedy(const struct cdc_facts *f, char ret_remedy[768]);

#define CDC_REASON_BYTES 512
#define CDC_REMEDY_BYTES 1024
/* Why a table is hurt or left out, one sentence, and the SQL that mends it ("" when none
 * does). */
void cdc_judge_reason(const struct cdc_facts *f, const struct cdc_source_plan *plan,
		      const struct cdc_fact_table *t, char ret_reason[CDC_REASON_BYTES],
		      char ret_remedy[CDC_REMEDY_BYTES]);

enum cdc_publish { CDC_PUBLISH_NOTHING, CDC_PUBLISH_CREATE, CDC_PUBLISH_ADD };

/* What is to be done with the publication.  CDC_MISSING: it, or a table that was asked for, is not
 * there and may not be made; CDC_CONFIG: no table would be read. */
enum cdc_code cdc_judge_publication(const struct cdc_facts *f, const struct cdc_source_plan *plan,
				    enum cdc_publish *ret, struct cdc_err *err) CDC_CHECK;

/* The statement that does it, for all tables of fate ADD.  fit: as much of it as fits into so many
 * bytes, ended by a comment that says how many tables it lacks; 0: whole. */
void cdc_judge_publish_sql(struct cdc_buf *out, const struct cdc_facts *f,
			   const struct cdc_source_plan *plan, size_t fit);

#endif
