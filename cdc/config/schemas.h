/*
 * schemas.h - reads a sync's `schemas`: tables, their columns, their filters.
 *
 * Threads: as the loader.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_SCHEMAS_H
#define CDC_CONFIG_SCHEMAS_H

#include "cdc/base/selection.h"
#include "cdc/config/loader.h"
#include "cdc/config/tree.h"

#define CDC_SCHEMA_FILTERS_MAX 64   /* of one table */
#define CDC_FILTER_VALUES_MAX  1000 /* of one filter */

/*
 * Fills both from the sync's `schemas`; without them both stay empty.  names: what is selected,
 * for reading; selection: everything, its obfuscation_key being set before.  filter_check as in
 * struct cdc_config_tables.
 */
void cdc_schemas_read(struct cdc_loader *l, const struct cdc_node *sync,
		      enum cdc_code (*filter_check)(const struct cdc_select_filter *filter,
						    struct cdc_err *err),
		      struct cdc_opt_strs *ret_names, struct cdc_selection *selection);

#endif
