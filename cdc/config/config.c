#include "cdc/config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/crypto.h"
#include "cdc/base/crypto_seal.h"
#include "cdc/config/file.h"
#include "cdc/config/options.h"
#include "cdc/config/schemas.h"
#include "cdc/config/value.h"

#define NAME_CHARS     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
#define SLOT_CHARS     "abcdefghijklmnopqrstuvwxyz0123456789_"
#define NAME_MAX_BYTES 63

/*
 * The namespace of every UUID that is made from a name in a file:
 * 841a6922-c2ad-47be-b147-0bb5efb5ddf7, drawn once at random.  Names in it are
 * "connection:NAME" and "bulk_sync:NAME".  Changing it would change every id.
 */
static const uint8_t uuid_space[CDC_UUID_BYTES] = {0x84, 0x1a, 0x69, 0x22, 0xc2, 0xad, 0x47, 0xbe,
						   0xb1, 0x47, 0x0b, 0xb5, 0xef, 0xb5, 0xdd, 0xf7};

/* What one load works on. */
struct load {
	struct cdc_loader l;
	const struct cdc_config_tables *tables;
	struct cdc_config *config;
	const struct cdc_node **connections; /* the nodes of config->connections */
	bool *is_wrong;                      /* of each connection: a mistake was found in it */
	const struct cdc_node **syncs;       /* the nodes of config->syncs */
};

/* A section that may be absent: then an empty one, so that its required keys are missed by name. */
static const struct cdc_node *section(struct cdc_loader *l, const struct cdc_node *map,
				      const char *key)
{
	const struct cdc_node *n = cdc_node_get(map, key);

	return n ? n : cdc_node_empty(l, map, key);
}

/* Whether node holds named objects, not too many of them. */
static bool is_objects(struct cdc_loader *l, const struct cdc_node *node)
{
	char shown[CDC_SHOWN_MAX];

	if (node->kind != CDC_NODE_MAP) {
		if (!node->is_broken)
			cdc_loader_mistake(l, node, NULL, "%s is not a group of keys",
					   cdc_node_show(node, false, shown));
		return false;
	}
	if (node->n > CDC_CONFIG_OBJECTS_MAX) {
		cdc_loader_mistake(l, node, NULL, "%zu are too many (allowed: up to %d)", node->n,
				   CDC_CONFIG_OBJECTS_MAX);
		return false;
	}
	return true;
}

/* The name of an object, which is its key in the file, and the UUID made from it. */
static char *take_name(struct cdc_loader *l, const struct cdc_node *node, const char *kind,
		       char ret_uuid[CDC_UUID_TEXT])
{
	char full[32 + NAME_MAX_BYTES];
	size_t len = strlen(node->key);

	if (len > NAME_MAX_BYTES || strspn(node->key, NAME_CHARS) != len) {
		cdc_loader_mistake(
			l, node, NULL,
			"the name is not one (allowed: 1 to 63 letters, digits, _ and -)");
		return NULL;
	}
	(void)snprintf(full, sizeof(full), "%s:%s", kind, node->key);
	if (cdc_uuid5(uuid_space, full, ret_uuid, NULL)) {
		cdc_loader_mistake(l, node, NULL, "its UUID cannot be made");
		return NULL;
	}
	return cdc_loader_text(l, node->key, len);
}

static const struct cdc_connection_type *find_type(struct load *ld, const struct cdc_node *node,
						   const char *name)
{
	const struct cdc_config_tables *t = ld->tables;
	char known[256] = "", shown[CDC_SHOWN_MAX];
	size_t len = 0;

	for (size_t i = 0; i < t->type_n; i++) {
		int n = snprintf(known + len, sizeof(known) - len, "%s%s", i ? ", " : "",
				 t->types[i].name);

		if (strcmp(t->types[i].name, name) == 0)
			return &t->types[i];
		if (n > 0 && (size_t)n < sizeof(known) - len)
			len += (size_t)n;
	}
	cdc_loader_mistake(&ld->l, cdc_node_get(node, "type"), NULL,
			   "%s is not a known type (allowed: %s)",
			   cdc_node_show(cdc_node_get(node, "type"), false, shown), known);
	return NULL;
}

/* What no option says by itself: rc and err are of a check, key is where it is best mended. */
static void note_check(struct load *ld, const struct cdc_node *configuration, const char *key,
		       enum cdc_code rc, const struct cdc_err *err)
{
	struct cdc_loader *l = &ld->l;
	const struct cdc_node *at;
	char file_key[64];

	if (rc == CDC_NOMEM)
		l->is_out_of_memory = true;
	if (!rc || rc == CDC_NOMEM)
		return;
	at = key ? cdc_node_get(configuration, key) : configuration;
	if (!at) {
		(void)snprintf(file_key, sizeof(file_key), "%s_file", key);
		at = cdc_node_get(configuration, file_key);
	}
	if (at)
		cdc_loader_mistake(l, at, NULL, "%s", err->msg);
	else
		cdc_loader_mistake(l, configuration, key, "%s", err->msg);
}

/* Only of settings that were read without a mistake. */
static void check_settings(struct load *ld, const struct cdc_node *configuration,
			   const struct cdc_connection *conn)
{
	const char *key = NULL;
	struct cdc_err err;
	enum cdc_code rc;

	memset(&err, 0, sizeof(err));
	rc = conn->type->check(conn->settings, &key, &err);
	note_check(ld, configuration, key, rc, &err);
}

static void read_connection(struct load *ld, const struct cdc_node *node,
			    struct cdc_connection *ret)
{
	static const char *const others[] = {"configuration", NULL};
	struct cdc_loader *l = &ld->l;
	struct cdc_file_connection keys = {0};
	const struct cdc_option_part part = {cdc_file_connection_options, &keys};
	const struct cdc_node *configuration;
	unsigned before;

	ret->line = node->line;
	ret->name = take_name(l, node, "connection", ret->uuid);
	cdc_options_read(l, node,
			 &(struct cdc_option_set){.parts = &part, .part_n = 1, .others = others});
	if (node->kind != CDC_NODE_MAP || !keys.type)
		return;
	ret->type = find_type(ld, node, keys.type);
	if (!ret->type)
		return;
	ret->settings = cdc_loader_alloc(l, ret->type->size);
	configuration = section(l, node, "configuration");
	if (!ret->settings || !configuration)
		return;
	before = l->mistake_n;
	cdc_options_read_table(l, configuration, ret->type->options, ret->settings);
	if (ret->type->check && l->mistake_n == before && !l->is_out_of_memory)
		check_settings(ld, configuration, ret);
}

static void read_connections(struct load *ld, const struct cdc_node *root)
{
	struct cdc_loader *l = &ld->l;
	struct cdc_config *c = ld->config;
	const struct cdc_node *node = cdc_node_get(root, "connections");

	if (!node || (node->kind == CDC_NODE_MAP && node->n == 0)) {
		cdc_loader_mistake(l, root, "connections", "must be set: at least one connection");
		return;
	}
	if (!is_objects(l, node))
		return;
	c->connections = cdc_loader_alloc(l, node->n * sizeof(*c->connections));
	ld->connections = cdc_loader_alloc(l, node->n * sizeof(*ld->connections));
	ld->is_wrong = cdc_loader_alloc(l, node->n * sizeof(*ld->is_wrong));
	if (!c->connections || !ld->connections || !ld->is_wrong)
		return;
	for (const struct cdc_node *n = node->first; n; n = n->next) {
		const unsigned before = l->mistake_n;
		const size_t i = c->connection_n++;

		ld->connections[i] = n;
		read_connection(ld, n, &c->connections[i]);
		ld->is_wrong[i] = l->mistake_n != before;
	}
}

/* The connection that a sync names under key, which must be a source (a sink); NULL after a
 * mistake. */
static const struct cdc_connection *find_connection(struct load *ld, const struct cdc_node *sync,
						    const char *key, const char *name,
						    bool as_source)
{
	const struct cdc_config *c = ld->config;
	const struct cdc_node *node = cdc_node_get(sync, key);
	char shown[CDC_SHOWN_MAX], nearest[NAME_MAX_BYTES + 1] = "";
	unsigned best = CDC_VALUE_NO_GUESS;

	for (size_t i = 0; i < c->connection_n; i++) {
		const struct cdc_connection *found = &c->connections[i];
		unsigned guess;

		if (!found->name)
			continue;
		guess = cdc_value_guess(name, found->name);
		if (guess < best) {
			best = guess;
			(void)snprintf(nearest, sizeof(nearest), "%s", found->name);
		}
		if (guess > 0)
			continue;
		if (!found->type) /* its own mistake says why */
			return NULL;
		if (as_source ? found->type->is_source : found->type->is_sink)
			return found;
		cdc_loader_mistake(&ld->l, node, NULL,
				   "%s is a connection of type %s, which cannot be a %s",
				   cdc_node_show(node, false, shown), found->type->name,
				   as_source ? "source" : "destination");
		return NULL;
	}
	cdc_loader_mistake(&ld->l, node, NULL, "%s is not a connection of this file%s%s%s",
			   cdc_node_show(node, false, shown), nearest[0] ? "; did you mean \"" : "",
			   nearest, nearest[0] ? "\"?" : "");
	return NULL;
}

/* The keys of the engine and of the sink share one map. */
static void read_destination(struct load *ld, const struct cdc_node *node, struct cdc_sync *sync)
{
	struct cdc_loader *l = &ld->l;
	const struct cdc_connection_type *type = sync->destination ? sync->destination->type : NULL;
	const struct cdc_node *map = section(l, node, "destination_configuration");
	struct cdc_option_part parts[2];
	const char *key = NULL;
	struct cdc_err err;
	enum cdc_code rc;
	size_t part_n = 0;
	unsigned before;

	sync->delivery = cdc_loader_alloc(l, ld->tables->delivery_size);
	sync->destination_settings = cdc_loader_alloc(l, type ? type->sync_size : 0);
	if (!sync->delivery || !sync->destination_settings || !map)
		return;
	parts[part_n++] = (struct cdc_option_part){ld->tables->delivery_options, sync->delivery};
	if (type)
		parts[part_n++] =
			(struct cdc_option_part){type->sync_options, sync->destination_settings};
	/* Without the destination's type half of the keys are not known. */
	before = l->mistake_n;
	cdc_options_read(
		l, map,
		&(struct cdc_option_set){.parts = parts, .part_n = part_n, .is_open = !type});
	if (!type || !type->check_sync || l->mistake_n != before || l->is_out_of_memory ||
	    ld->is_wrong[sync->destination - ld->config->connections])
		return;
	memset(&err, 0, sizeof(err));
	rc = type->check_sync(type, sync->destination->settings, sync->destination_settings,
			      sync->delivery, &key, &err);
	note_check(ld, map, key, rc, &err);
}

static const struct cdc_node *slot_node(const struct cdc_node *sync)
{
	const struct cdc_node *n = cdc_node_get(sync, "source_configuration");

	return n && n->kind == CDC_NODE_MAP ? cdc_node_get(n, "replication_slot") : NULL;
}

static void read_sync(struct load *ld, const struct cdc_node *node, struct cdc_sync *ret)
{
	static const char *const others[] = {"schemas", "destination_configuration", NULL};
	struct cdc_loader *l = &ld->l;
	struct cdc_file_sync keys = {0};
	const struct cdc_option_part part = {cdc_file_sync_options, &keys};
	char shown[CDC_SHOWN_MAX];

	ret->line = node->line;
	ret->name = take_name(l, node, "bulk_sync", ret->uuid);
	cdc_options_read(l, node,
			 &(struct cdc_option_set){.parts = &part, .part_n = 1, .others = others});
	if (node->kind != CDC_NODE_MAP)
		return;
	if (keys.source)
		ret->source = find_connection(ld, node, "source_connection", keys.source, true);
	if (keys.destination)
		ret->destination = find_connection(ld, node, "destination_connection",
						   keys.destination, false);
	ret->selection.obfuscation_key = keys.obfuscation_key;
	cdc_schemas_read(l, node, ld->tables->filter_check, &ret->schemas, &ret->selection);
	read_destination(ld, node, ret);
	ret->replication_slot = keys.replication_slot;
	ret->skip_initial_backfill = keys.skip_initial_backfill;
	if (keys.replication_slot &&
	    strspn(keys.replication_slot, SLOT_CHARS) != strlen(keys.replication_slot))
		cdc_loader_mistake(l, slot_node(node), NULL,
				   "%s is not a slot's name (allowed: 1 to 63 of a-z, 0-9 and _)",
				   cdc_node_show(slot_node(node), false, shown));
}

static void read_syncs(struct load *ld, const struct cdc_node *root)
{
	struct cdc_loader *l = &ld->l;
	struct cdc_config *c = ld->config;
	const struct cdc_node *node = cdc_node_get(root, "bulk_syncs");

	if (!node || (node->kind == CDC_NODE_MAP && node->n == 0)) {
		cdc_loader_mistake(l, node ? node : root, node ? NULL : "bulk_syncs",
				   "must be set: at least one sync, as in bulk_syncs: {NAME: "
				   "{source_connection: NAME, destination_connection: NAME}}");
		return;
	}
	if (!is_objects(l, node))
		return;
	c->syncs = cdc_loader_alloc(l, node->n * sizeof(*c->syncs));
	ld->syncs = cdc_loader_alloc(l, node->n * sizeof(*ld->syncs));
	if (!c->syncs || !ld->syncs)
		return;
	for (const struct cdc_node *n = node->first; n; n = n->next) {
		ld->syncs[c->sync_n] = n;
		read_sync(ld, n, &c->syncs[c->sync_n++]);
	}
}

/* A slot has one reader and one buffer, which bears its name. */
static void check_slots(struct load *ld)
{
	const struct cdc_config *c = ld->config;

	for (size_t i = 0; i < c->sync_n; i++) {
		for (size_t k = 0; k < i && c->syncs[i].replication_slot; k++) {
			if (!c->syncs[k].replication_slot ||
			    strcmp(c->syncs[i].replication_slot, c->syncs[k].replication_slot) != 0)
				continue;
			cdc_loader_mistake(&ld->l, slot_node(ld->syncs[i]), NULL,
					   "\"%s\" is the slot of bulk_syncs.%s already; each sync "
					   "that names one needs its own",
					   c->syncs[i].replication_slot, ld->syncs[k]->key);
			break;
		}
	}
}

/* A source that a sync reads must have its change_detection on. */
static void check_change_detection(struct load *ld)
{
	const struct cdc_config *c = ld->config;

	for (size_t i = 0; i < c->connection_n; i++) {
		const struct cdc_connection *conn = &c->connections[i];
		const struct cdc_opt *o = conn->type ? conn->type->options : NULL;
		const struct cdc_node *node, *value;
		bool is_used = false;

		for (size_t k = 0; k < c->sync_n; k++)
			is_used |= c->syncs[k].source == conn;
		while (o && o->name &&
		       (o->type != CDC_OPT_BOOL || strcmp(o->name, "change_detection") != 0))
			o++;
		if (!is_used || !o || !o->name || !conn->settings ||
		    *(bool *)((char *)conn->settings + o->offset))
			continue;
		node = section(&ld->l, ld->connections[i], "configuration");
		if (!node || node->kind != CDC_NODE_MAP)
			continue;
		value = cdc_node_get(node, o->name);
		if (!value)
			cdc_loader_mistake(&ld->l, node, o->name,
					   "set change_detection: true, since a sync reads this "
					   "connection");
		else if (value->kind == CDC_NODE_TEXT && strcmp(value->text, "false") == 0)
			cdc_loader_mistake(&ld->l, value, NULL,
					   "set change_detection: true, since a sync reads this "
					   "connection");
	}
}

/* ADDRESS:PORT, or nothing; whether the address is one shows when it is listened on. */
static void check_listen(struct load *ld, const struct cdc_node *root)
{
	const char *listen = ld->config->listen, *colon = listen ? strrchr(listen, ':') : NULL;
	const struct cdc_node *node = cdc_node_get(root, "listen");
	char shown[CDC_SHOWN_MAX];
	uint64_t port;

	if (!listen || !listen[0] || !node)
		return;
	/* An IPv6 address has colons of its own, so it stands in brackets. */
	if (colon && colon > listen && cdc_value_uint(colon + 1, &port) == NULL && port <= 65535 &&
	    (listen[0] == '[' ? colon[-1] == ']' : strchr(listen, ':') == colon))
		return;
	cdc_loader_mistake(&ld->l, node, NULL,
			   "%s is not an address to listen on (allowed: ADDRESS:PORT, "
			   "[IPV6-ADDRESS]:PORT, \"\" for none)",
			   cdc_node_show(node, false, shown));
}

static void check_master_key(struct load *ld, const struct cdc_node *root)
{
	const char *key = ld->config->master_key;
	const struct cdc_node *node = cdc_node_get(root, "master_key");
	uint8_t bytes[CDC_SEAL_KEY_BYTES];
	bool is_key = !key || cdc_seal_key(key, bytes);

	cdc_wipe(bytes, sizeof(bytes));
	if (is_key)
		return;
	cdc_loader_mistake(&ld->l, node ? node : cdc_node_get(root, "master_key_file"), NULL,
			   "is not a key (allowed: 32 bytes as 44 characters of base64 or 64 of "
			   "hex; `openssl rand -base64 32` makes one)");
}

static void read_root(struct load *ld, const struct cdc_node *root)
{
	static const char *const others[] = {"connections", "bulk_syncs", NULL};
	struct cdc_config *c = ld->config;
	const struct cdc_option_part part = {cdc_file_options, c};

	cdc_options_read(&ld->l, root,
			 &(struct cdc_option_set){.parts = &part, .part_n = 1, .others = others});
	if (root->kind != CDC_NODE_MAP)
		return;
	check_listen(ld, root);
	check_master_key(ld, root);
	read_connections(ld, root);
	read_syncs(ld, root);
	check_slots(ld);
	check_change_detection(ld);
	if (c->data_dir)
		c->data_dir = cdc_loader_relative(&ld->l, c->data_dir);
}

enum cdc_code cdc_config_parse(const char *path, const char *text, size_t len,
			       const struct cdc_config_tables *tables, cdc_mistake_fn *mistake,
			       void *arg, struct cdc_config **ret, struct cdc_err *err)
{
	CDC_AUTO(cdc_config_memory_freep)
	struct cdc_config_memory *memory = cdc_config_memory_new();
	struct load ld = {.tables = tables};
	struct cdc_loader *l = &ld.l;
	const char *slash = strrchr(path, '/');
	const struct cdc_node *root;

	if (!memory)
		return cdc_err_set(err, CDC_NOMEM, "%s: no memory for the configuration", path);
	*l = (struct cdc_loader){.memory = memory,
				 .path = path,
				 .folder = "",
				 .mistake = mistake,
				 .arg = arg,
				 .err = err};
	ld.config = cdc_loader_alloc(l, sizeof(*ld.config));
	if (slash)
		l->folder = cdc_loader_text(l, path, (size_t)(slash - path) + 1);
	if (ld.config)
		ld.config->path = cdc_loader_text(l, path, strlen(path));
	if (len > CDC_CONFIG_BYTES_MAX) {
		cdc_loader_mistake(l, NULL, NULL, "the file is too large (allowed: up to 4MiB)");
	} else if (!l->is_out_of_memory) {
		root = cdc_tree_parse(l, text, len, true);
		if (root)
			read_root(&ld, root);
	}
	if (l->is_out_of_memory)
		return cdc_err_set(err, CDC_NOMEM, "%s: no memory for the configuration", path);
	if (l->mistake_n)
		return CDC_CONFIG;
	ld.config->memory = CDC_TAKE(memory);
	*ret = ld.config;
	return CDC_OK;
}

void cdc_config_free(struct cdc_config *c)
{
	if (c)
		cdc_config_memory_free(c->memory);
}

/* Reads at most CDC_CONFIG_BYTES_MAX + 1 bytes; the caller wipes and frees them. */
static enum cdc_code read_file(const char *path, char **ret_bytes, size_t *ret_len,
			       struct cdc_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *bytes = NULL;
	size_t len = 0;
	ssize_t n = -1;

	if (fd < 0 && errno == ENOENT) {
		(void)cdc_err_set(err, CDC_MISSING, "%s: there is no such file", path);
		(void)cdc_err_remedy(err, "name the configuration file with -c FILE");
		return CDC_MISSING;
	}
	if (fd < 0)
		return cdc_err_set(err, CDC_IO, "%s: %s", path, strerror(errno));
	bytes = malloc(CDC_CONFIG_BYTES_MAX + 1);
	if (!bytes) {
		(void)close(fd);
		return cdc_err_set(err, CDC_NOMEM, "%s: no memory to read it", path);
	}
	while (len <= CDC_CONFIG_BYTES_MAX) {
		n = read(fd, bytes + len, CDC_CONFIG_BYTES_MAX + 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	if (n < 0) {
		(void)cdc_err_set(err, CDC_IO, "%s: %s", path, strerror(errno));
		(void)close(fd);
		cdc_wipe(bytes, len);
		free(bytes);
		return CDC_IO;
	}
	(void)close(fd);
	*ret_bytes = bytes;
	*ret_len = len;
	return CDC_OK;
}

enum cdc_code cdc_config_load(const char *path, const struct cdc_config_tables *tables,
			      cdc_mistake_fn *mistake, void *arg, struct cdc_config **ret,
			      struct cdc_err *err)
{
	char *bytes = NULL;
	size_t len = 0;
	enum cdc_code rc = read_file(path, &bytes, &len, err);

	if (rc)
		return rc;
	rc = cdc_config_parse(path, bytes, len, tables, mistake, arg, ret, err);
	cdc_wipe(bytes, len);
	free(bytes);
	return rc;
}
