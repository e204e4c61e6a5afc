/*
 * when.h - a time as a person writes it.
 *
 * Threads: any; pure.  Layer: cli.
 */
#ifndef CDC_CLI_WHEN_H
#define CDC_CLI_WHEN_H

#include <stdbool.h>
#include <stdint.h>

/*
 * "2026-11-24T10:00:00Z", with a fraction of a second or an offset such as +01:00 if need be,
 * "2026-11-24" (its beginning, UTC), or how long ago: "90s", "15m", "2h", "3d".  now_us and
 * *ret_us: microseconds since 1970.  False: it is none of these.
 */
bool cdc_when_parse(const char *text, int64_t now_us, int64_t *ret_us);

#endif
