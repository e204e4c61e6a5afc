/*
 * tree.h - the text of a configuration file as nodes with line numbers.
 *
 * A small part of YAML 1.1: one document of maps, lists and texts.  Anchors,
 * aliases and tags are refused, so a small file cannot unfold into a large
 * tree; keys are texts and unique in their map.  ${NAME} in a value is replaced
 * by the environment's variable, "$${" stands for "${".
 *
 * Format: https://yaml.org/spec/1.1/, read by libyaml.
 *
 * Threads: a tree belongs to its loader.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_TREE_H
#define CDC_CONFIG_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "cdc/config/loader.h"

#define CDC_TREE_DEPTH_MAX    64
#define CDC_TREE_CHILDREN_MAX 10000 /* of one list; above what any option takes */
#define CDC_TREE_KEYS_MAX     2048  /* of one map; above the 1,000 connections */
#define CDC_TREE_KEY_MAX      256   /* bytes */
#define CDC_TREE_VALUE_MAX    65536 /* bytes, after ${} */

enum cdc_node_kind { CDC_NODE_TEXT, CDC_NODE_LIST, CDC_NODE_MAP };

struct cdc_node {
	enum cdc_node_kind kind;
	unsigned line; /* from 1; of the key, if it has one */
	const struct cdc_node *parent;
	struct cdc_node *next;         /* the parent's next child */
	const char *key;               /* in a map */
	size_t index;                  /* in a list */
	struct cdc_node *first, *last; /* LIST, MAP: children in the file's order */
	size_t n;                      /* how many */
	const char *text;              /* TEXT: after ${}; NUL-terminated, may hold NULs */
	size_t len;
	const char *written; /* TEXT: as in the file; equal to text where nothing was replaced */
	bool is_null;        /* TEXT: nothing, ~ or null, and not quoted */
	bool is_broken;      /* a mistake was reported already; ask nothing more of it */
};

/*
 * The tree of a text, or NULL after a mistake of syntax (reported) or without
 * memory.  An empty file is an empty map.  is_env: replace ${NAME}.
 */
struct cdc_node *cdc_tree_parse(struct cdc_loader *l, const char *text, size_t len, bool is_env);

/* The child of that key, or NULL; one that is null counts as absent. */
const struct cdc_node *cdc_node_get(const struct cdc_node *map, const char *key);

/* An empty map in place of one that is absent, so that its required keys are missed by name. */
const struct cdc_node *cdc_node_empty(struct cdc_loader *l, const struct cdc_node *parent,
				      const char *key);

/* Whether both have the same shape and texts. */
bool cdc_node_equal(const struct cdc_node *a, const struct cdc_node *b);

#define CDC_SHOWN_MAX 80
/* What a mistake shows of a value: up to 60 bytes in quotes as written in the file (so never the
 * environment's), or that it is a list, a map or secret. */
const char *cdc_node_show(const struct cdc_node *node, bool is_secret,
			  char ret_text[CDC_SHOWN_MAX]);

/* At most max bytes of text (max + 4 in ret_text, NUL included) with control characters as '?', cut
 * between two characters and then ended by "...". */
void cdc_text_clean(const char *text, size_t len, size_t max, char *ret_text);

#endif
