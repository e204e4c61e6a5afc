/*
 * options.h - fills a component's struct from a node, by the component's table.
 *
 * The one interpreter of cdc/base/opt.h.  Every mistake is reported and reading
 * goes on; a field with a mistake keeps zero, so the structs are for use only
 * after a load without mistakes.
 *
 * Threads: as the loader.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_OPTIONS_H
#define CDC_CONFIG_OPTIONS_H

#include "cdc/base/opt.h"
#include "cdc/config/loader.h"
#include "cdc/config/tree.h"

struct cdc_option_part {
	const struct cdc_opt *options; /* NULL: none */
	void *into;                    /* zeroed, of the table's struct */
};

/* The keys of one map: those of several tables, and those that the caller reads itself. */
struct cdc_option_set {
	const struct cdc_option_part *parts;
	size_t part_n;
	const char *const *others; /* NULL-terminated, or NULL */
	bool is_open;              /* say nothing about unknown keys: not all tables are here */
};

/* Reads map (any other kind is a mistake). */
void cdc_options_read(struct cdc_loader *l, const struct cdc_node *map,
		      const struct cdc_option_set *set);

/* The same for one table. */
void cdc_options_read_table(struct cdc_loader *l, const struct cdc_node *map,
			    const struct cdc_opt *options, void *into);

#define CDC_ALLOWED_MAX 256
/* What an option takes, for a person: "1 to 65535", "stop, suspend"; "" when there is nothing to
 * say. */
const char *cdc_option_allowed(const struct cdc_opt *o, char ret_text[CDC_ALLOWED_MAX]);

#endif
