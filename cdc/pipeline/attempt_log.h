/*
 * attempt_log.h - one answered request into the log for people (cdc/store/attempt.h).
 *
 * Threads: any.  Layer: pipeline.
 */
#ifndef CDC_PIPELINE_ATTEMPT_LOG_H
#define CDC_PIPELINE_ATTEMPT_LOG_H

#include "cdc/pipeline/settings.h"
#include "cdc/store/store.h"
#include "sinks/sink.h"

/* The request that ended at wall_us with this result.  Never waits.  False: it is left out, because
 * the store cannot keep up or there is no memory. */
bool cdc_attempt_log(struct cdc_store *store, const char *sync,
		     const struct cdc_deliver_settings *settings, const struct sink_result *r,
		     int64_t wall_us);

#endif
