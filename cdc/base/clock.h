/*
 * clock.h - the two clocks, and the one text form of an instant.
 *
 * Waiting and deadlines use the monotonic clock; what a person reads uses the
 * wall clock.  Pure functions take the time as an argument and never call
 * these.
 *
 * Threads: any.  Layer: base (libc only).
 */
#ifndef CDC_BASE_CLOCK_H
#define CDC_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t cdc_clock_mono_ms(void); /* since an arbitrary start; never goes back */
int64_t cdc_clock_wall_us(void);  /* since 1970; may jump */

/* Microseconds between 1970-01-01 and 2000-01-01, where PostgreSQL's timestamps start. */
#define CDC_POSTGRES_EPOCH_US INT64_C(946684800000000)

#define CDC_TIME_TEXT 40 /* longest text, NUL included */

/* "2026-01-01T00:00:00.000001Z": RFC 3339, UTC, always six digits; returns the length. */
size_t cdc_time_format(int64_t wall_us, char ret_text[CDC_TIME_TEXT]);

#endif
