/*
 * publish.h - makes a publication, or adds tables to it, without hurting anybody.
 *
 * The statement and a second look at the tables share a transaction: the locks of
 * the statement keep other sessions from changing a table's identity, and nothing
 * is published before the second look has found every table fit for it.
 *
 * Threads: none of its own.  Layer: source (base).
 */
#ifndef CDC_SOURCE_PUBLISH_H
#define CDC_SOURCE_PUBLISH_H

#include <stdbool.h>

#include "cdc/base/err.h"
#include "cdc/source/facts.h"
#include "cdc/source/pgconn.h"

/* Does what cdc_judge_publication() finds to do.  f: fresh facts; on success they tell the fate of
 * the tables as it was decided, left out ones included, and after an error nothing.
 * Codes as cdc_judge_publication, and those of a statement. */
enum cdc_code cdc_publish(struct cdc_pgconn *c, const struct cdc_source_plan *plan,
			  struct cdc_facts *f, bool *ret_was_created,
			  struct cdc_err *err) CDC_CHECK;

#endif
