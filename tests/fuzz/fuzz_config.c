/* walpost.yaml from anybody: it is loaded whole, or refused in words that are safe to print. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/config_tables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATH "/nonexistent/walpost.yaml"

struct mistakes {
	unsigned n;
	char first[1001];
};

static void take_mistake(void *arg, const char *text)
{
	struct mistakes *m = arg;

	CDC_ASSERT(strncmp(text, PATH ":", strlen(PATH) + 1) == 0);
	CDC_ASSERT(strlen(text) <= 1000);
	for (const char *p = text; *p; p++)
		CDC_ASSERT((unsigned char)*p >= 0x20 && *p != 0x7f);
	if (m->n++ == 0)
		(void)strcpy(m->first, text);
}

/* What the rest of the program relies on. */
static void check(const struct cdc_config *c)
{
	CDC_ASSERT(c->data_dir && c->data_dir[0] && c->listen);
	CDC_ASSERT(c->max_bytes >= UINT64_C(16) << 20 && c->on_full <= 1);
	CDC_ASSERT(c->connection_n >= 1);
	for (size_t i = 0; i < c->connection_n; i++) {
		const struct cdc_connection *n = &c->connections[i];

		CDC_ASSERT(n->name && n->name[0] && strlen(n->name) <= 63);
		CDC_ASSERT(strlen(n->uuid) == 36 && n->type && n->settings && n->line);
	}
	for (size_t i = 0; i < c->sync_n; i++) {
		const struct cdc_sync *s = &c->syncs[i];
		const struct cdc_deliver_settings *how = s->delivery;

		CDC_ASSERT(s->name && s->source && s->source->type->is_source);
		CDC_ASSERT(s->destination && s->destination->type->is_sink);
		CDC_ASSERT(s->destination_settings && how);
		CDC_ASSERT(how->batch_size >= 1 && how->batch_size <= 10000);
		CDC_ASSERT(how->concurrency >= 1 && how->concurrency <= 256);
		for (size_t k = 0; k < s->schemas.n; k++)
			CDC_ASSERT(s->schemas.items[k] && strchr(s->schemas.items[k], '.'));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cdc_connection_type types[TYPES_MAX];
	const struct cdc_config_tables tables = config_tables(types);
	struct mistakes m = {0};
	struct cdc_config *c = NULL;
	struct cdc_err err = {0};
	enum cdc_code rc = cdc_config_parse(PATH, (const char *)data, size, &tables, take_mistake,
					    &m, &c, &err);

	if (rc == CDC_OK) {
		CDC_ASSERT(m.n == 0);
		check(c);
	} else {
		CDC_ASSERT(!c && (rc == CDC_CONFIG || rc == CDC_NOMEM) && err.code == rc);
		if (rc == CDC_CONFIG)
			CDC_ASSERT(m.n > 0 && m.n <= 50 &&
				   strncmp(m.first, err.msg, strlen(err.msg)) == 0);
	}
	cdc_config_free(c);
	return 0;
}
