/*
 * request.h - how a call of any thread reaches the store's one thread.
 *
 * Threads: any.  Layer: store (base, record).
 */
#ifndef CDC_STORE_REQUEST_H
#define CDC_STORE_REQUEST_H

#include <stdbool.h>

#include "cdc/store/database.h"
#include "cdc/store/store.h"

/* A call, on the caller's stack until it is done. */
struct cdc_store_request {
	cdc_database_fn *body; /* run by the store thread */
	void *arg;
	bool is_write;       /* body runs in a transaction; else it only reads */
	const char *forgets; /* or NULL: the sync whose waiting checkpoint goes when body worked */

	/* the store's own */
	struct cdc_store_request *next;
	enum cdc_code rc;
	struct cdc_err err;
	bool is_done;
};

/* Has the store thread carry r out, and waits for it. */
enum cdc_code cdc_store_ask(struct cdc_store *s, struct cdc_store_request *r,
			    struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_ask_read(struct cdc_store *s, cdc_database_fn *body, void *arg,
				 struct cdc_err *err) CDC_CHECK;
enum cdc_code cdc_store_ask_write(struct cdc_store *s, cdc_database_fn *body, void *arg,
				  struct cdc_err *err) CDC_CHECK;

/* From now on cdc_store_take_touched says yes. */
void cdc_store_touch(struct cdc_store *s);

#endif
