/*
 * check_files.h - the part of `walpost check` that looks at data_dir.
 *
 * Can the folder be written, and is there room; who works with it; are the state
 * and the buffers of this version, whole, and do they belong together.  Nothing is
 * changed, and a walpost that runs is not disturbed.
 *
 * Threads: main.  Layer: cli.
 */
#ifndef CDC_CLI_CHECK_FILES_H
#define CDC_CLI_CHECK_FILES_H

#include "cdc/cli/feed.h"
#include "cdc/config/config.h"

void cdc_check_files(const struct cdc_config *config, const struct cdc_feed *feeds, size_t feed_n,
		     cdc_finding_fn *found, void *arg);

#endif
