/*
 * backoff.h - how long to wait before trying again.
 *
 * Exponential with full jitter: the wait is evenly spread from 0 to a bound that
 * doubles from 100 ms with every attempt, up to 30 s, so that many clients of a
 * server that comes back do not come at once.
 *
 * Threads: pure, but for the random number.
 * Layer: pipeline (base).
 */
#ifndef CDC_PIPELINE_BACKOFF_H
#define CDC_PIPELINE_BACKOFF_H

#include <stdint.h>

#define CDC_BACKOFF_BASE_MS 100
#define CDC_BACKOFF_CAP_MS  30000

/* Milliseconds to wait before attempt + 1; attempt counts the failures so far, from 1. */
uint64_t cdc_backoff_ms(unsigned attempt, uint64_t random);

/* A fresh number from the kernel. */
uint64_t cdc_backoff_random(void);

#endif
