/*
 * status_text.h - one screen for a person: what every source, buffer and sync does.
 *
 * Threads: any.  Layer: api.
 */
#ifndef CDC_API_STATUS_TEXT_H
#define CDC_API_STATUS_TEXT_H

#include "cdc/api/server.h"
#include "cdc/base/buf.h"

/* Appends the page, aligned plain text in UTF-8; now_us is the wall time. */
void cdc_status_text(const struct cdc_server_setup *setup, int64_t now_us, struct cdc_buf *out);

#endif
