/*
 * selection.h - which tables, columns and rows a sync wants, as the file says it.
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

#include "cdc/base/opt.h"

/* What becomes of a value before it leaves. */
enum cdc_obfuscate {
	CDC_OBFUSCATE_NONE,
	CDC_OBFUSCATE_HASH, /* HMAC-SHA256 of its text, in hex: equal values stay equal */
	CDC_OBFUSCATE_MASK, /* the text "***" */
	CDC_OBFUSCATE_NULL, /* null */
};

struct cdc_select_field {
	char *id; /* the column; "*": every column that is not listed */
	bool is_left_out;
	unsigned obfuscate; /* enum cdc_obfuscate */
	char *output_name;  /* NULL: id */
};

/* The functions that Polytomic's API names; what they mean: cdc/record/condition.h. */
#define CDC_FILTER_FUNCTIONS(X)                                                                    \
	X(EQUALITY, "Equality")                                                                    \
	X(INEQUALITY, "Inequality")                                                                \
	X(IS_NULL, "IsNull")                                                                       \
	X(IS_NOT_NULL, "IsNotNull")                                                                \
	X(TRUE, "True")                                                                            \
	X(FALSE, "False")                                                                          \
	X(ON_OR_AFTER, "OnOrAfter")                                                                \
	X(ON_OR_BEFORE, "OnOrBefore")                                                              \
	X(GREATER_THAN, "GreaterThan")                                                             \
	X(GREATER_THAN_EQUAL, "GreaterThanEqual")                                                  \
	X(LESS_THAN, "LessThan")                                                                   \
	X(LESS_THAN_EQUAL, "LessThanEqual")                                                        \
	X(STRING_CONTAINS, "StringContains")                                                       \
	X(STRING_STARTS_WITH, "StringStartsWith")                                                  \
	X(STRING_ENDS_WITH, "StringEndsWith")                                                      \
	X(STRING_DOES_NOT_CONTAIN, "StringDoesNotContain")                                         \
	X(STRING_DOES_NOT_START_WITH, "StringDoesNotStartWith")                                    \
	X(STRING_DOES_NOT_END_WITH, "StringDoesNotEndWith")                                        \
	X(STRING_ONE_OF, "StringOneOf")                                                            \
	X(STRING_NOT_ONE_OF, "StringNotOneOf")                                                     \
	X(BETWEEN, "Between")                                                                      \
	X(ARRAY_CONTAINS, "ArrayContains")                                                         \
	X(ARRAY_DOES_NOT_CONTAIN, "ArrayDoesNotContain")                                           \
	X(IN_THE_LAST, "InTheLast")                                                                \
	X(RELATIVE_ON_OR_BEFORE, "RelativeOnOrBefore")                                             \
	X(RELATIVE_ON_OR_AFTER, "RelativeOnOrAfter")                                               \
	X(STRING_LIKE, "StringLike")                                                               \
	X(STRING_NOT_LIKE, "StringNotLike")                                                        \
	X(STRING_MATCHES_TRIMMED, "StringMatchesTrimmed")

enum cdc_filter_function {
#define X(code, name) CDC_FILTER_##code,
	CDC_FILTER_FUNCTIONS(X)
#undef X
		CDC_FILTER_COUNT,
};

struct cdc_select_filter {
	char *field;                /* the column */
	unsigned function;          /* enum cdc_filter_function */
	struct cdc_opt_strs values; /* none, one, two (Between), or a list (...OneOf) */
};

/* What becomes of an update after which a row no longer meets the filters. */
enum cdc_leaving { CDC_LEAVING_DROP, CDC_LEAVING_DELETE };

struct cdc_select_table {
	char *id;
	bool is_left_out;
	struct cdc_select_field *fields; /* n 0: every column as it is */
	size_t field_n;
	struct cdc_select_filter *filters; /* all of them must be met */
	size_t filter_n;
	unsigned leaving; /* enum cdc_leaving */
};

struct cdc_selection {
	struct cdc_select_table *tables; /* n 0: every table as it is */
	size_t n;
	char *obfuscation_key; /* NULL: none is hashed */
};

/* "Equality"; "" for what is no function. */
const char *cdc_filter_function_name(enum cdc_filter_function f);

/* Does it have a * in it? */
bool cdc_pattern_is_one(const char *id);
/* Does the name match the id, letter for letter or as a pattern? */
bool cdc_pattern_matches(const char *id, const char *name, size_t len);

/* The entry that a table goes by: the one of its name, else the first pattern that matches; NULL:
 * none, or one that leaves it out. */
const struct cdc_select_table *cdc_selection_find(const struct cdc_selection *s, const char *name,
						  size_t len);

/* Is the table one of the selection's?  NULL or empty: every one is. */
bool cdc_selection_has(const struct cdc_selection *s, const char *table);

/* Does the entry need the values of a column: because they go out, in whatever form, or because it
 * is filtered by? */
bool cdc_selection_needs(const struct cdc_select_table *t, const char *column);

/* Is everything that needs no look at a record enough: exact tables, every column, every row? */
bool cdc_selection_is_plain(const struct cdc_selection *s);

#endif
