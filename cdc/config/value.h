/*
 * value.h - numbers with units, as they are written in a configuration file.
 *
 * Each reader returns NULL and fills its output, or says what is wrong with the
 * text ("needs a unit (ms, s, m, h, d)") and leaves the output alone.
 *
 * Threads: any.  Layer: config (base).
 */
#ifndef CDC_CONFIG_VALUE_H
#define CDC_CONFIG_VALUE_H

#include <stddef.h>
#include <stdint.h>

/* Decimal digits only. */
const char *cdc_value_uint(const char *text, uint64_t *ret);
/* Bytes: digits and B, KiB, MiB, GiB, TiB or nothing (bytes). */
const char *cdc_value_size(const char *text, uint64_t *ret_bytes);
/* Digits and ms, s, m, h or d; a zero needs no unit. */
const char *cdc_value_duration(const char *text, uint64_t *ret_ms);

#define CDC_VALUE_TEXT 32
/* The shortest exact form: "16MiB", "1500ms", "24h"; returns ret_text. */
const char *cdc_value_size_text(uint64_t bytes, char ret_text[CDC_VALUE_TEXT]);
const char *cdc_value_duration_text(uint64_t ms, char ret_text[CDC_VALUE_TEXT]);

/* How many insertions, deletions and replacements lead from a to b; 3 stands for "3 or more" and
 * for names of more than 63 bytes. */
unsigned cdc_value_distance(const char *a, const char *b);

#define CDC_VALUE_NO_GUESS 4
/* How far known is from being what was meant by written: 0 it is written; 1 written is its
 * beginning (3 bytes or more); 2 and 3 a few letters differ, for short words one;
 * CDC_VALUE_NO_GUESS. */
unsigned cdc_value_guess(const char *written, const char *known);

#endif
