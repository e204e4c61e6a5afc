/*
 * config_tables.h - the tables that the program brings to the loader, and a
 * connection type `probe` with an option of every kind.
 */
#ifndef TESTS_UNIT_CONFIG_TABLES_H
#define TESTS_UNIT_CONFIG_TABLES_H

#include "cdc/config/config.h"
#include "cdc/pipeline/deliver.h"
#include "cdc/record/condition.h"
#include "cdc/source/source.h"
#include "sinks/sink.h"

struct probe {
	char *text, *url, *must, *secret;
	uint64_t number, any, bytes, wait_ms;
	bool flag;
	unsigned choice, set;
	struct cdc_opt_strs texts, secrets;
	struct cdc_opt_pairs pairs, headers;
	struct {
		char *inner;
		uint64_t depth;
	} group;
};

static const char *const probe_choices[] = {"red", "green", NULL};
static const struct cdc_opt probe_group[] = {
	{.name = "inner",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(__typeof__(((struct probe *)0)->group), inner),
	 .help = "?"},
	{.name = "depth",
	 .type = CDC_OPT_UINT,
	 .offset = offsetof(__typeof__(((struct probe *)0)->group), depth),
	 .def = "3",
	 .help = "?"},
	{0},
};
#define PROBE(member) .offset = offsetof(struct probe, member), .help = "?"
static const struct cdc_opt probe_options[] = {
	{.name = "text", .type = CDC_OPT_STR, PROBE(text), .def = "abc", .min = 2, .max = 8},
	{.name = "url", .type = CDC_OPT_STR, .flags = CDC_OPT_HTTP, PROBE(url)},
	{.name = "secret", .type = CDC_OPT_STR, .flags = CDC_OPT_SECRET, PROBE(secret), .max = 8},
	{.name = "number", .type = CDC_OPT_UINT, PROBE(number), .def = "5", .min = 1, .max = 65535},
	{.name = "any", .type = CDC_OPT_UINT, PROBE(any)},
	{.name = "bytes",
	 .type = CDC_OPT_SIZE,
	 PROBE(bytes),
	 .def = "1MiB",
	 .min = 1024,
	 .max = 1 << 30},
	{.name = "wait",
	 .type = CDC_OPT_DURATION,
	 PROBE(wait_ms),
	 .def = "15s",
	 .min = 100,
	 .max = 300000},
	{.name = "flag", .type = CDC_OPT_BOOL, PROBE(flag), .def = "true"},
	{.name = "choice",
	 .type = CDC_OPT_ENUM,
	 PROBE(choice),
	 .def = "green",
	 .choices = probe_choices},
	{.name = "set",
	 .type = CDC_OPT_SET,
	 PROBE(set),
	 .def = "[green, red]",
	 .choices = probe_choices},
	{.name = "texts", .type = CDC_OPT_STRS, PROBE(texts), .def = "[x, y]", .min = 1, .max = 3},
	{.name = "secrets", .type = CDC_OPT_STRS, .flags = CDC_OPT_SECRET, PROBE(secrets)},
	{.name = "pairs", .type = CDC_OPT_PAIRS, PROBE(pairs), .max = 2},
	{.name = "headers", .type = CDC_OPT_PAIRS, .flags = CDC_OPT_SECRET, PROBE(headers)},
	{.name = "group", .type = CDC_OPT_GROUP, .group = probe_group, PROBE(group)},
	{.name = "later", .type = CDC_OPT_LATER, .help = "?"},
	{.name = "fixed",
	 .type = CDC_OPT_LATER,
	 .def = "red",
	 .choices = probe_choices,
	 .help = "?"},
	{0},
};

static const struct cdc_opt needy_options[] = {
	{.name = "must", .type = CDC_OPT_STR, .flags = CDC_OPT_REQUIRED, PROBE(must), .max = 9},
	{.name = "set",
	 .type = CDC_OPT_SET,
	 .flags = CDC_OPT_REQUIRED,
	 PROBE(set),
	 .choices = probe_choices},
	{0},
};

#define TYPES_MAX 20

/* Fills the types; the tables point to them. */
static inline struct cdc_config_tables config_tables(struct cdc_connection_type types[TYPES_MAX])
{
	size_t n = 0;

	types[n++] = (struct cdc_connection_type){.name = "postgresql",
						  .is_source = true,
						  .size = sizeof(struct cdc_source_settings),
						  .options = cdc_source_options};
	types[n++] = (struct cdc_connection_type){.name = "probe",
						  .is_source = true,
						  .size = sizeof(struct probe),
						  .options = probe_options};
	types[n++] = (struct cdc_connection_type){.name = "needy",
						  .is_sink = true,
						  .size = sizeof(struct probe),
						  .options = needy_options};
	for (size_t i = 0; sink_at(i); i++) {
		CDC_ASSERT(n < TYPES_MAX);
		types[n++] = (struct cdc_connection_type){.name = sink_at(i)->name,
							  .is_sink = true,
							  .size = sink_at(i)->connection_size,
							  .options = sink_at(i)->connection_options,
							  .check = sink_at(i)->check,
							  .sync_size = sink_at(i)->sync_size,
							  .sync_options = sink_at(i)->sync_options};
	}
	return (struct cdc_config_tables){.types = types,
					  .type_n = n,
					  .delivery_size = sizeof(struct cdc_deliver_settings),
					  .delivery_options = cdc_deliver_options,
					  .filter_check = cdc_condition_check};
}

#endif
