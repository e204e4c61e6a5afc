/*
 * schemas.h - reads a sync's `schemas`.
 *
 * Threads: as the loader.
 * Layer: config (base).
 */
#ifndef CDC_CONFIG_SCHEMAS_H
#define CDC_CONFIG_SCHEMAS_H

#include "cdc/base/selection.h"
#include "cdc/config/loader.h"
#include "cdc/config/tree.h"

/*
 * Fills both from the sync's `schemas`; without them both stay empty.  names: what is selected,
 * for reading; selection: everything.
 */
void cdc_schemas_read(struct cdc_loader *l, const struct cdc_node *sync,
		      struct cdc_opt_strs *ret_names, struct cdc_selection *selection);

#endif
