#include <string.h>

#include "sinks/sink.h"
#include "sinks/webhook/webhook.h"

static const struct sink_ops *const sinks[] = {
	&sink_webhook,
};

const struct sink_ops *sink_at(size_t i)
{
	return i < sizeof(sinks) / sizeof(sinks[0]) ? sinks[i] : NULL;
}

const struct sink_ops *sink_find(const char *name)
{
	for (size_t i = 0; i < sizeof(sinks) / sizeof(sinks[0]); i++) {
		if (strcmp(sinks[i]->name, name) == 0)
			return sinks[i];
	}
	return NULL;
}

const char *sink_outcome_name(enum sink_outcome outcome)
{
	static const char *const names[] = {
		[SINK_DONE] = "done",
		[SINK_RETRY] = "retry",
		[SINK_REJECT] = "reject",
		[SINK_STOP] = "stop",
	};

	return names[outcome];
}
