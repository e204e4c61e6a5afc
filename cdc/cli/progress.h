/*
 * progress.h - how far a sync's copies are, from the page of metrics, in one line.
 *
 * Threads: any; pure.  Layer: cli.
 */
#ifndef CDC_CLI_PROGRESS_H
#define CDC_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cdc_progress {
	uint64_t tables_left, rows, eta_ms;
	unsigned permille; /* of the present copy */
	bool is_known;     /* the page has this sync */
};

/* From the text of /metrics. */
struct cdc_progress cdc_progress_parse(const char *metrics, const char *sync);

/* "orders [######....]  42.1 %  12345 rows  2 tables left  ETA 1:05", at most width bytes and a
 * NUL, or size - 1. */
void cdc_progress_format(const struct cdc_progress *p, const char *sync, size_t width, char *ret,
			 size_t size);

#endif
