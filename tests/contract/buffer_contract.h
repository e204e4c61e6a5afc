/*
 * buffer_contract.h - what every buffer promises, as one list of tests.
 *
 * The tests know buffer.h and nothing of an implementation; what they need to
 * know of one is in the hooks.
 */
#ifndef TESTS_CONTRACT_BUFFER_CONTRACT_H
#define TESTS_CONTRACT_BUFFER_CONTRACT_H

#include "cdc/buffer/buffer.h"

struct contract_hooks {
	void *arg;

	/* A place that holds nothing yet: fills *ret (metrics stays NULL).  What it points to lives
	 * until drop.  Each test calls it once or more, never two at a time. */
	bool (*fresh)(void *arg, struct cdc_buffer_settings *ret);
	/* The buffer is closed; the place may go. */
	void (*drop)(void *arg);

	bool is_one_stream; /* all records of a slot have one order, and every position is stream 0
			     */
	bool has_budget;    /* max_bytes is kept: commit and retention evict, on_full decides */
	bool is_exclusive;  /* a second open of the same place is CDC_HELD */
};

/* Runs the suite under cmocka; returns how many tests failed. */
int buffer_contract_run(const struct cdc_buffer_ops *ops, const struct contract_hooks *hooks);

#endif
