/*
 * key.h - the hashes that keep the records of one key, or one table, together.
 *
 * Lanes and partitions are chosen by it, so it never changes.
 *
 * Threads: any.
 * Layer: record.
 */
#ifndef CDC_RECORD_KEY_H
#define CDC_RECORD_KEY_H

#include <stddef.h>
#include <stdint.h>

/* XXH3-64 of the table's name ("public.orders"). */
uint64_t cdc_table_hash(const char *name, size_t len);

/* XXH3-64 of the table's name, a NUL, and the bytes of `key`; key_len 0: the key is null. */
uint64_t cdc_key_hash(const char *table, size_t table_len, const char *key, size_t key_len);

#endif
