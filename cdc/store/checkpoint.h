/*
 * checkpoint.h - checkpoints on their way to the disk: at most one per sync.
 *
 * A newer checkpoint of a sync makes the older one worthless, so it takes its
 * place in the list; a list that could not be written goes back without those
 * that were replaced meanwhile.
 *
 * Threads: a list belongs to its caller.
 * Layer: store (base, record).
 */
#ifndef CDC_STORE_CHECKPOINT_H
#define CDC_STORE_CHECKPOINT_H

#include "cdc/store/store.h"

struct cdc_checkpoint {
	struct cdc_checkpoint *next;
	struct cdc_cursor cursor; /* its arrays are the checkpoint's own */
};

/* A copy, or NULL when the heap is exhausted. */
struct cdc_checkpoint *cdc_checkpoint_new(const struct cdc_cursor *from);
void cdc_checkpoints_free(struct cdc_checkpoint *list);

/* Takes a sync's checkpoint out of the list, or returns NULL. */
struct cdc_checkpoint *cdc_checkpoints_take(struct cdc_checkpoint **list, const char *sync);
/* Puts one in; returns the one it replaces, or NULL. */
struct cdc_checkpoint *cdc_checkpoints_put(struct cdc_checkpoint **list, struct cdc_checkpoint *c);
/* Puts older ones back; returns those that newer ones in the list have replaced. */
struct cdc_checkpoint *cdc_checkpoints_put_back(struct cdc_checkpoint **list,
						struct cdc_checkpoint *older);

#endif
