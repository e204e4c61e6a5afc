/*
 * loader.h - what one load of a configuration shares: its memory and its mistakes.
 *
 * Everything that a load makes lies in one arena, the finished configuration
 * included.  Texts of values are listed, so that all of them (any may be a
 * secret) are wiped before the arena goes.  Running out of memory is sticky: the
 * allocating functions return NULL from then on, and the load asks at its end.
 *
 * Threads: a loader belongs to its caller.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_LOADER_H
#define CDC_CONFIG_LOADER_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/base/arena.h"
#include "cdc/base/err.h"
#include "cdc/config/config.h"

struct cdc_node;

struct cdc_config_memory {
	struct cdc_arena *arena;
	struct cdc_config_text *texts; /* what is to be wiped */
};

struct cdc_loader {
	struct cdc_config_memory *memory;
	const char *path;   /* of the file, for messages */
	const char *folder; /* what relative paths are relative to; "" is the working directory */
	cdc_mistake_fn *mistake; /* may be NULL */
	void *arg;
	struct cdc_err *err; /* gets the first mistake; may be NULL */
	unsigned mistake_n;  /* all of them, also those beyond the limit that is reported */
	bool is_out_of_memory;
};

#define CDC_MISTAKES_MAX 50 /* reported; more than a screen helps nobody */

/* NULL when the heap is exhausted. */
struct cdc_config_memory *cdc_config_memory_new(void);
/* Wipes every text and frees.  NULL is fine. */
void cdc_config_memory_free(struct cdc_config_memory *m);
void cdc_config_memory_freep(struct cdc_config_memory **m); /* for CDC_AUTO */

/* n zeroed bytes, or NULL (is_out_of_memory is set). */
void *cdc_loader_alloc(struct cdc_loader *l, size_t n);
/* A NUL-terminated copy of n bytes that is wiped at the end, or NULL. */
char *cdc_loader_text(struct cdc_loader *l, const char *bytes, size_t n);
/* path, made relative to the file's folder unless it is absolute; NULL as above. */
char *cdc_loader_relative(struct cdc_loader *l, const char *path);

/*
 * Reports "FILE:LINE: dotted.key: text" for a node or, when key is not NULL, for
 * the key of that name in it.  node NULL: the file as a whole.
 */
void cdc_loader_mistake(struct cdc_loader *l, const struct cdc_node *node, const char *key,
			const char *fmt, ...) CDC_FMT(4, 5);
/* The same at another line, for what has no node. */
void cdc_loader_mistake_at(struct cdc_loader *l, const struct cdc_node *node, unsigned line,
			   const char *fmt, ...) CDC_FMT(4, 5);

#endif
