/*
 * page.h - one page of the walpost that runs, by its `listen`.
 *
 * Threads: main.  Layer: cli.
 */
#ifndef CDC_CLI_PAGE_H
#define CDC_CLI_PAGE_H

#include "cdc/base/buf.h"
#include "cdc/base/err.h"

/* Appends the page's body and a NUL, which len does not count.  listen: "127.0.0.1:5100" or
 * "[::1]:5100" of the file, not empty.  CDC_IO: nobody answers there with this page. */
enum cdc_code cdc_page_get(const char *listen, const char *path, struct cdc_buf *out,
			   struct cdc_err *err) CDC_CHECK;

#endif
