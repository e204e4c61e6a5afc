/*
 * stop.h - the stop flag that threads share.
 *
 * Set once, never cleared.  Its descriptor becomes and stays readable, so a
 * poll() that includes it wakes at once.
 *
 * Threads: set from any thread; every other function from any thread.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_STOP_H
#define CDC_BASE_STOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cdc/base/err.h"

struct cdc_stop {
	_Atomic bool is_set;
	int fd; /* an eventfd; readable once set */
};

enum cdc_code cdc_stop_init(struct cdc_stop *s, struct cdc_err *err) CDC_CHECK;
void cdc_stop_clear(struct cdc_stop *s); /* closes the descriptor */
void cdc_stop_set(struct cdc_stop *s);
bool cdc_stop_is_set(const struct cdc_stop *s);

/* Waits until the flag is set or wait_ms have passed; returns whether it is set. */
bool cdc_stop_wait(const struct cdc_stop *s, uint64_t wait_ms);

/* A new non-blocking, close-on-exec eventfd, or -1; for the event descriptors of other modules. */
int cdc_event_new(void);
void cdc_event_signal(int fd); /* makes it readable; never blocks */
bool cdc_event_drain(int fd);  /* makes it unreadable, returns whether it was; never blocks */

#endif
