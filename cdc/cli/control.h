/*
 * control.h - the half of commands that runs: brings what the store says is
 * wanted to the threads of `walpost run`.
 *
 * A command is a row of the store, written by a command line in another process
 * (or by this one); so it outlives both, and one that was given while walpost
 * stood still is carried out when it starts, before anything is sent.  What lasts
 * (a pause) is written to the store first and put in force then.
 *
 * Threads: main.  Layer: cli.
 */
#ifndef CDC_CLI_CONTROL_H
#define CDC_CLI_CONTROL_H

#include "cdc/base/log.h"
#include "cdc/config/config.h"
#include "cdc/base/board.h"
#include "cdc/pipeline/backfill.h"
#include "cdc/pipeline/capture.h"
#include "cdc/pipeline/deliver.h"
#include "cdc/store/store.h"

struct cdc_control_sync {
	const struct cdc_sync *sync;
	struct cdc_deliver *deliver;   /* NULL: it could not be made */
	struct cdc_backfill *backfill; /* NULL: no rows are ever copied */
	struct cdc_capture *capture;   /* of the slot that feeds it; NULL: it could not be made */
	struct cdc_board *board, *source_board;
};

struct cdc_control {
	struct cdc_store *store;
	const struct cdc_control_sync *syncs;
	size_t sync_n;
	struct cdc_log log;
	int64_t after; /* all commands up to it were taken up, */
	int64_t seen;  /* and those up to it, unless their sync had no room for a resync */
	bool has_more; /* the last turn could not do all */
};

/* Puts what is wanted of every sync in force, before the threads start. */
enum cdc_code cdc_control_start(struct cdc_control *c, struct cdc_err *err) CDC_CHECK;

/* Takes up the commands that have come since.  What the store cannot do now is tried again by a
 * later turn; failures are logged. */
void cdc_control_turn(struct cdc_control *c);

#endif
