/*
 * arena.h - memory that is freed all at once, with a hard limit.
 *
 * Under AddressSanitizer every object is a malloc of its own, so that an
 * overrun between two objects of one arena is seen.
 *
 * Threads: an arena belongs to its caller.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_ARENA_H
#define CDC_BASE_ARENA_H

#include <stddef.h>

struct cdc_arena;

/* A new empty arena that hands out at most limit bytes, or NULL (heap exhausted). */
struct cdc_arena *cdc_arena_new(size_t limit);
void cdc_arena_free(struct cdc_arena *a);
void cdc_arena_freep(struct cdc_arena **a); /* for CDC_AUTO */

/* Frees every object; one chunk is kept, so a steady state does not malloc. */
void cdc_arena_reset(struct cdc_arena *a);

/*
 * Returns n zeroed bytes aligned for any type, owned by the arena, or NULL when
 * the limit or the heap is exhausted.  n may be 0 (the pointer is then valid
 * but must not be dereferenced).
 */
void *cdc_arena_alloc(struct cdc_arena *a, size_t n);

/* A NUL-terminated copy of n bytes (of s up to its NUL), or NULL as above. */
char *cdc_arena_copy(struct cdc_arena *a, const void *bytes, size_t n);
char *cdc_arena_strdup(struct cdc_arena *a, const char *s);

#endif
