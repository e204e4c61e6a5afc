/*
 * server.h - what SQL says about a source, and what is made there.
 *
 * Looks at version, settings, role, slot, publication and tables, creates slot and
 * publication when they are missing and allowed, and leaves out what would hurt the
 * application.  The caller's connection, opened with CDC_PGCONN_REPLICATION and about
 * to stream, runs only replication commands and SET; SQL has a connection of its own,
 * so that the stream's session knows no table before the stream tells of it.
 *
 * Threads: a server belongs to its caller.
 * Layer: source (base).
 */
#ifndef CDC_SOURCE_SERVER_H
#define CDC_SOURCE_SERVER_H

#include "cdc/source/pgconn.h"
#include "cdc/source/source.h"
#include "cdc/source/timeline.h"

struct cdc_server {
	struct cdc_source_info info; /* left_out points to the array below */
	struct cdc_left_out *left_out;
	size_t left_out_n;
	struct cdc_timelines timelines;
};

void cdc_server_init(struct cdc_server *s);
void cdc_server_clear(struct cdc_server *s); /* and makes it as after init */

enum cdc_server_slot {
	CDC_SERVER_SLOT_ANY,        /* create it when missing and allowed */
	CDC_SERVER_SLOT_MUST_EXIST, /* it was read before: missing is CDC_GAP */
	CDC_SERVER_SLOT_TEMPORARY, /* make one that ends with the connection; plan->slot is not used
				    */
};

/* Fills s->info and s->timelines.  ret_slot: the slot to start on (plan->slot, or the temporary
 * one's name).  Errors as cdc_source_connect. */
enum cdc_code cdc_server_prepare(struct cdc_server *s, struct cdc_pgconn *c,
				 const struct cdc_source_plan *plan, enum cdc_server_slot slot,
				 char ret_slot[64], struct cdc_err *err) CDC_CHECK;

/* The history of the server's timeline, over a replication connection.  The caller clears *ret,
 * also after an error. */
enum cdc_code cdc_server_history(struct cdc_pgconn *c, uint32_t current, struct cdc_timelines *ret,
				 struct cdc_err *err) CDC_CHECK;

#endif
