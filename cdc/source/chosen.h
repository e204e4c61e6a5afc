/*
 * chosen.h - what a selection comes down to in a database, for `walpost check`.
 *
 * Threads: any.  Layer: source (base, record).
 */
#ifndef CDC_SOURCE_CHOSEN_H
#define CDC_SOURCE_CHOSEN_H

#include "cdc/source/source.h"

/*
 * Tells which tables and columns are selected, and each column that is listed (a
 * warning) or filtered (a failure) and that the table does not have, or that the
 * publication does not send.  selection: not empty.  One finding at least.
 */
void cdc_chosen_check(const struct cdc_source_settings *settings,
		      const struct cdc_selection *selection, cdc_finding_fn *found, void *arg);

#endif
