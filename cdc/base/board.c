#include "cdc/base/board.h"

#include <string.h>

void cdc_board_init(struct cdc_board *b)
{
	memset(b, 0, sizeof(*b));
	(void)pthread_mutex_init(&b->mu, NULL);
}

void cdc_board_clear(struct cdc_board *b)
{
	(void)pthread_mutex_destroy(&b->mu);
}

void cdc_board_post(struct cdc_board *b, enum cdc_state state, const struct cdc_err *err,
		    int64_t now_us)
{
	(void)pthread_mutex_lock(&b->mu);
	if (b->view.state != state || b->view.since_us == 0)
		b->view.since_us = now_us;
	b->view.state = state;
	if (err)
		b->view.err = *err;
	else
		memset(&b->view.err, 0, sizeof(b->view.err));
	(void)pthread_mutex_unlock(&b->mu);
}

void cdc_board_read(struct cdc_board *b, struct cdc_board_view *ret_view)
{
	(void)pthread_mutex_lock(&b->mu);
	*ret_view = b->view;
	(void)pthread_mutex_unlock(&b->mu);
}

void cdc_board_beat(struct cdc_board *b, uint64_t mono_ms)
{
	atomic_store_explicit(&b->beat_ms, mono_ms, memory_order_relaxed);
}

const char *cdc_state_name(enum cdc_state state)
{
	static const char *const names[] = {
		[CDC_STATE_STARTING] = "starting",   [CDC_STATE_RUNNING] = "running",
		[CDC_STATE_WAITING] = "waiting",     [CDC_STATE_PAUSED] = "paused",
		[CDC_STATE_SUSPENDED] = "suspended", [CDC_STATE_FAILED] = "failed",
		[CDC_STATE_ENDED] = "ended",
	};

	return names[state];
}
