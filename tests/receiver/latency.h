/* From a record's commit to its arrival, in microseconds. */
#ifndef TESTS_RECEIVER_LATENCY_H
#define TESTS_RECEIVER_LATENCY_H

#include <stddef.h>
#include <stdint.h>

struct latency;

struct latency *latency_new(void);
void latency_reset(struct latency *l);
/* Every record of a body counts. */
void latency_note(struct latency *l, const char *body, size_t len, uint64_t now_us);
/* {"n", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"} */
void latency_json(struct latency *l, char *text, size_t size);

#endif
