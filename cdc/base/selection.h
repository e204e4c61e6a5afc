/*
 * selection.h - which tables a sync wants, as the file says it.
 *
 * Plain data: cdc/config fills it from `schemas`, cdc/source asks it for names of
 * tables, cdc/pipeline compiles it.  A table's id is "schema.table", letter for
 * letter, or a pattern in which each * stands for any run of characters.
 *
 * Threads: constant once filled.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_SELECTION_H
#define CDC_BASE_SELECTION_H

#include <stdbool.h>
#include <stddef.h>

struct cdc_select_table {
	char *id;
	bool is_left_out;
};

struct cdc_selection {
	struct cdc_select_table *tables; /* n 0: every table as it is */
	size_t n;
};

/* Does it have a * in it? */
bool cdc_pattern_is_one(const char *id);
/* Does the name match the id, letter for letter or as a pattern? */
bool cdc_pattern_matches(const char *id, const char *name, size_t len);

/* The entry that a table goes by: the one of its name, else the first pattern that matches; NULL:
 * none, or one that leaves it out. */
const struct cdc_select_table *cdc_selection_find(const struct cdc_selection *s, const char *name,
						  size_t len);

/* Is everything that needs no look at a record enough: exact tables? */
bool cdc_selection_is_plain(const struct cdc_selection *s);

#endif
