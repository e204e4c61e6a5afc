/*
 * sink_contract.h - what every sink promises, as one list of tests.
 *
 * The tests know sink.h and nothing of an implementation; what they need to know
 * of one, and of the endpoint behind it, is in the hooks.
 */
#ifndef TESTS_CONTRACT_SINK_CONTRACT_H
#define TESTS_CONTRACT_SINK_CONTRACT_H

#include "sinks/sink.h"

/* The longest a request may take. */
#define SINK_CONTRACT_TIMEOUT_MS 60000 /* in `reach` */
#define SINK_CONTRACT_BRIEFLY_MS 1000  /* in `reach_briefly` */
#define SINK_CONTRACT_LATE_MS    UINT64_C(400)

/* How an endpoint behaves from now on. */
enum sink_mood {
	SINK_MOOD_ACCEPT,
	SINK_MOOD_LATE,   /* accepts after SINK_CONTRACT_LATE_MS */
	SINK_MOOD_LATER,  /* is busy: come again */
	SINK_MOOD_REFUSE, /* refuses what it is sent */
	SINK_MOOD_SILENT, /* takes it and never answers */
	SINK_MOOD_BROKEN, /* takes it and ends the connection without an answer */
};

struct sink_contract_hooks {
	void *arg;

	/* Fill connection, sync, sync_id and sync_name, which live until the end of the suite. */
	void (*reach)(void *arg, struct sink_settings *ret); /* of the endpoint */
	void (*reach_briefly)(void *arg, struct sink_settings *ret);
	void (*nowhere)(void *arg, struct sink_settings *ret);  /* nobody listens there */
	void (*unusable)(void *arg, struct sink_settings *ret); /* open says CDC_CONFIG */

	/* The endpoint behaves so, and its counter is zero. */
	bool (*behave)(void *arg, enum sink_mood mood);
	/* Records it has accepted since. */
	uint64_t (*accepted)(void *arg);
};

/* Runs the suite under cmocka; returns how many tests failed. */
int sink_contract_run(const struct sink_ops *ops, const struct sink_contract_hooks *hooks);

#endif
