/*
 * opt.h - one table of options per component.
 *
 * A component (a sink, the delivery engine, a source) describes its settings
 * once, as a static const array of struct cdc_opt that ends with a row whose
 * name is NULL.  That table alone drives parsing, defaults, ranges, the
 * reference that `walpost config` prints, and the masking of secrets.
 * cdc/config reads YAML into a struct by it; nobody else interprets it.
 *
 * Threads: tables are constant.
 * Layer: base (libc only).
 */
#ifndef CDC_BASE_OPT_H
#define CDC_BASE_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cdc_opt_type {
	CDC_OPT_STR,       /* char *; min..max is the length in bytes (max 0: 4096) */
	CDC_OPT_UINT,      /* uint64_t; min..max */
	CDC_OPT_SIZE,      /* uint64_t bytes; "64MiB", "1GiB", "512KiB", "4096"; min..max */
	CDC_OPT_DURATION,  /* uint64_t milliseconds; "0ms", "15s", "5m", "24h", "2d"; min..max */
	CDC_OPT_DURATIONS, /* struct cdc_opt_numbers: a list of 1 to 64 durations; min..max is each
			    */
	CDC_OPT_BOOL,      /* bool */
	CDC_OPT_ENUM,      /* unsigned: index into choices */
	CDC_OPT_SET,       /* unsigned: bit i set when choices[i] is in the list */
	CDC_OPT_STRS,      /* struct cdc_opt_strs: a list of texts; min..max is their number */
	CDC_OPT_PAIRS,     /* struct cdc_opt_pairs: a list of {name, value} */
	CDC_OPT_GROUP,     /* an embedded struct with its own table (group), at offset */
	CDC_OPT_LATER,     /* known by the design, refused by name: this version cannot honour it.
			      If def is set, exactly that value is accepted and changes nothing. */
};

enum {
	CDC_OPT_REQUIRED = 1, /* must be present and not empty */
	CDC_OPT_SECRET = 2,   /* never printed; `name_file: PATH` is accepted in its place */
	/* PAIRS: values are secret, names are not. */
	CDC_OPT_HTTP = 4, /* STR: an http:// or https:// url with a host; never printed */
};

struct cdc_opt_strs {
	char **items;
	size_t n;
};

struct cdc_opt_numbers {
	uint64_t *items;
	size_t n;
};

struct cdc_opt_pair {
	char *name, *value;
};

struct cdc_opt_pairs {
	struct cdc_opt_pair *items;
	size_t n;
};

struct cdc_opt {
	const char *name; /* the key in the file */
	enum cdc_opt_type type;
	unsigned flags;
	size_t offset;     /* into the component's struct */
	const char *def;   /* as it would be written in the file; NULL: none (zero, NULL, empty) */
	uint64_t min, max; /* in the type's unit; max 0: no upper bound */
	const char *const *choices; /* ENUM, SET: NULL-terminated */
	const struct cdc_opt *group;
	const char *help; /* one sentence with the unit and what it is good for */
};

#endif
