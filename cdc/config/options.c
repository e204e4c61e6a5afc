#include "cdc/config/options.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cdc/base/crypto.h"
#include "cdc/config/value.h"

#define TEXT_MAX        4096  /* of CDC_OPT_STR whose table gives none */
#define SECRET_FILE_MAX 65536 /* a certificate chain fits many times */
#define NUMBERS_MAX     64

static const struct cdc_opt pair_options[] = {
	{.name = "name",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_opt_pair, name),
	 .max = 256},
	{.name = "value",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_opt_pair, value)},
	{0},
};
static const struct cdc_opt secret_pair_options[] = {
	{.name = "name",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED,
	 .offset = offsetof(struct cdc_opt_pair, name),
	 .max = 256},
	{.name = "value",
	 .type = CDC_OPT_STR,
	 .flags = CDC_OPT_REQUIRED | CDC_OPT_SECRET,
	 .offset = offsetof(struct cdc_opt_pair, value)},
	{0},
};

static bool is_secret(const struct cdc_opt *o)
{
	return (o->flags & CDC_OPT_SECRET) != 0;
}

/* "4096", "16MiB", "5m": a bound in the option's unit. */
static const char *bound_text(const struct cdc_opt *o, uint64_t v, char ret_text[CDC_VALUE_TEXT])
{
	if (o->type == CDC_OPT_SIZE)
		return cdc_value_size_text(v, ret_text);
	if (o->type == CDC_OPT_DURATION || o->type == CDC_OPT_DURATIONS)
		return cdc_value_duration_text(v, ret_text);
	(void)snprintf(ret_text, CDC_VALUE_TEXT, "%" PRIu64, v);
	return ret_text;
}

static void choices_text(const char *const *choices, char ret_text[CDC_ALLOWED_MAX])
{
	size_t len = 0;

	ret_text[0] = '\0';
	for (; choices && *choices && len < CDC_ALLOWED_MAX; choices++) {
		int n = snprintf(ret_text + len, CDC_ALLOWED_MAX - len, "%s%s", len ? ", " : "",
				 *choices);

		len += n > 0 ? (size_t)n : 0;
	}
}

static void range_text(const struct cdc_opt *o, const char *what, char ret_text[CDC_ALLOWED_MAX])
{
	char min[CDC_VALUE_TEXT], max[CDC_VALUE_TEXT];

	bound_text(o, o->min, min);
	bound_text(o, o->max, max);
	if (o->max)
		(void)snprintf(ret_text, CDC_ALLOWED_MAX, "%s to %s%s", min, max, what);
	else if (o->min)
		(void)snprintf(ret_text, CDC_ALLOWED_MAX, "%s%s or more", min, what);
	else
		ret_text[0] = '\0';
}

const char *cdc_option_allowed(const struct cdc_opt *o, char ret_text[CDC_ALLOWED_MAX])
{
	struct cdc_opt text = *o;

	ret_text[0] = '\0';
	switch (o->type) {
	case CDC_OPT_STR:
		text.max = o->max ? o->max : TEXT_MAX;
		range_text(&text, " bytes", ret_text);
		break;
	case CDC_OPT_UINT:
	case CDC_OPT_SIZE:
	case CDC_OPT_DURATION:
		range_text(o, "", ret_text);
		break;
	case CDC_OPT_DURATIONS:
		range_text(o, " each", ret_text);
		break;
	case CDC_OPT_STRS:
	case CDC_OPT_PAIRS:
		range_text(o, " entries", ret_text);
		break;
	case CDC_OPT_BOOL:
		(void)strcpy(ret_text, "true, false");
		break;
	case CDC_OPT_ENUM:
	case CDC_OPT_SET:
		choices_text(o->choices, ret_text);
		break;
	case CDC_OPT_LATER:
		if (o->def)
			(void)snprintf(ret_text, CDC_ALLOWED_MAX, "%s", o->def);
		break;
	case CDC_OPT_GROUP:
		break;
	}
	return ret_text;
}

/* `"99999" is above 65535 (allowed: 1 to 65535)` */
static void wrong(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		  const char *why)
{
	char shown[CDC_SHOWN_MAX], allowed[CDC_ALLOWED_MAX];
	/* A url may hold a password before its "@", or a token in its path or query. */
	bool is_hidden = is_secret(o) || o->flags & CDC_OPT_HTTP;

	cdc_option_allowed(o, allowed);
	cdc_loader_mistake(l, node, NULL, "%s %s%s%s%s", cdc_node_show(node, is_hidden, shown), why,
			   allowed[0] ? " (allowed: " : "", allowed, allowed[0] ? ")" : "");
}

static bool is_kind(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		    enum cdc_node_kind kind)
{
	if (node->is_broken)
		return false;
	if (node->kind == kind)
		return true;
	switch (kind) {
	case CDC_NODE_TEXT:
		wrong(l, node, o, "is not a single value");
		break;
	case CDC_NODE_LIST:
		wrong(l, node, o, "is not a list");
		break;
	case CDC_NODE_MAP:
		wrong(l, node, o, "is not a group of keys");
		break;
	}
	return false;
}

/* Is the port behind a host, if there is one, from 1 to 65535?  A placeholder is not looked at. */
static bool is_port(const char *authority, size_t len)
{
	const char *user = memrchr(authority, '@', len);
	const char *host = user ? user + 1 : authority, *end = authority + len;
	const char *from = *host == '[' ? memchr(host, ']', (size_t)(end - host)) : host;
	const char *colon = from ? memchr(from, ':', (size_t)(end - from)) : NULL;
	unsigned port = 0;

	if (!colon || colon + 1 == end || memchr(colon, '{', (size_t)(end - colon)))
		return true; /* that of the scheme */
	for (const char *at = colon + 1; at < end; at++) {
		if (*at < '0' || *at > '9' || port > 65535)
			return false;
		port = port * 10 + (unsigned)(*at - '0');
	}
	return port >= 1 && port <= 65535;
}

/* What is wrong with a url, or NULL. */
static const char *wrong_url(const char *url)
{
	const char *host = strncasecmp(url, "https://", 8) == 0  ? url + 8
			   : strncasecmp(url, "http://", 7) == 0 ? url + 7
								 : "";

	if (!*host || strchr("/:?#", *host) || url[strcspn(url, " \t\r\n")])
		return "is not a url that begins with http:// or https://";
	return is_port(host, strcspn(host, "/?#")) ? NULL
						   : "has a port that is not from 1 to 65535";
}

/* A text without NULs; min and max are bytes. */
static char *take_text(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		       uint64_t min, uint64_t max)
{
	const char *bad_url;
	char why[64];

	if (!is_kind(l, node, o, CDC_NODE_TEXT))
		return NULL;
	if (memchr(node->text, '\0', node->len)) {
		wrong(l, node, o, "contains a NUL");
		return NULL;
	}
	if (node->len == 0 && (o->flags & CDC_OPT_REQUIRED)) {
		cdc_loader_mistake(l, node, NULL, "must not be empty");
		return NULL;
	}
	if (node->len < min || node->len > max) {
		(void)snprintf(why, sizeof(why), "is %s than %" PRIu64 " bytes",
			       node->len < min ? "shorter" : "longer", node->len < min ? min : max);
		wrong(l, node, o, why);
		return NULL;
	}
	bad_url = o->flags & CDC_OPT_HTTP ? wrong_url(node->text) : NULL;
	if (bad_url) {
		wrong(l, node, o, bad_url);
		return NULL;
	}
	return cdc_loader_text(l, node->text, node->len);
}

static void take_number(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
			uint64_t *ret)
{
	char bound[CDC_VALUE_TEXT], range[CDC_VALUE_TEXT + 16];
	const char *why, *text;
	uint64_t v = 0;

	if (!is_kind(l, node, o, CDC_NODE_TEXT))
		return;
	text = node->text;
	if (strlen(text) != node->len)
		why = "contains a NUL";
	else if (o->type == CDC_OPT_SIZE)
		why = cdc_value_size(text, &v);
	else if (o->type == CDC_OPT_DURATION || o->type == CDC_OPT_DURATIONS)
		why = cdc_value_duration(text, &v);
	else
		why = cdc_value_uint(text, &v);
	if (!why && v < o->min) {
		(void)snprintf(range, sizeof(range), "is below %s", bound_text(o, o->min, bound));
		why = range;
	} else if (!why && o->max && v > o->max) {
		(void)snprintf(range, sizeof(range), "is above %s", bound_text(o, o->max, bound));
		why = range;
	}
	if (why)
		wrong(l, node, o, why);
	else
		*ret = v;
}

static void take_numbers(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
			 struct cdc_opt_numbers *ret)
{
	if (!is_kind(l, node, o, CDC_NODE_LIST))
		return;
	if (node->n < 1 || node->n > NUMBERS_MAX) {
		cdc_loader_mistake(l, node, NULL, "must have 1 to %d entries", NUMBERS_MAX);
		return;
	}
	ret->items = cdc_loader_alloc(l, node->n * sizeof(*ret->items));
	if (!ret->items)
		return;
	for (const struct cdc_node *n = node->first; n; n = n->next)
		take_number(l, n, o, &ret->items[n->index]);
	ret->n = node->n;
}

static void take_bool(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		      bool *ret)
{
	if (!is_kind(l, node, o, CDC_NODE_TEXT))
		return;
	if (strcmp(node->text, "true") == 0)
		*ret = true;
	else if (strcmp(node->text, "false") == 0)
		*ret = false;
	else
		wrong(l, node, o, "is neither true nor false");
}

static bool find_choice(const char *const *choices, const char *text, unsigned *ret)
{
	for (unsigned i = 0; choices && choices[i]; i++) {
		if (strcmp(choices[i], text) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static void take_enum(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		      unsigned *ret)
{
	if (is_kind(l, node, o, CDC_NODE_TEXT) && !find_choice(o->choices, node->text, ret))
		wrong(l, node, o, "is not known");
}

static void take_set(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		     unsigned *ret)
{
	unsigned set = 0;

	if (!is_kind(l, node, o, CDC_NODE_LIST))
		return;
	for (const struct cdc_node *n = node->first; n; n = n->next) {
		unsigned i;

		if (!is_kind(l, n, o, CDC_NODE_TEXT))
			continue;
		if (!find_choice(o->choices, n->text, &i))
			wrong(l, n, o, "is not known");
		else if (set & (1u << i))
			wrong(l, n, o, "is there twice");
		else
			set |= 1u << i;
	}
	if (node->n == 0 && (o->flags & CDC_OPT_REQUIRED))
		cdc_loader_mistake(l, node, NULL, "must not be empty");
	*ret = set;
}

/* Whether a list has as many entries as its option takes. */
static bool is_count(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o)
{
	if (!is_kind(l, node, o, CDC_NODE_LIST))
		return false;
	if (node->n == 0 && (o->flags & CDC_OPT_REQUIRED)) {
		cdc_loader_mistake(l, node, NULL, "must not be empty");
		return false;
	}
	if (node->n < o->min || (o->max && node->n > o->max)) {
		wrong(l, node, o, node->n < o->min ? "is too short" : "is too long");
		return false;
	}
	return true;
}

static void take_texts(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		       struct cdc_opt_strs *ret)
{
	/* An entry has no range of its own to be shown. */
	const struct cdc_opt entry = {.type = CDC_OPT_STR, .flags = o->flags | CDC_OPT_REQUIRED};

	if (!is_count(l, node, o))
		return;
	ret->items = cdc_loader_alloc(l, (node->n ? node->n : 1) * sizeof(*ret->items));
	if (!ret->items)
		return;
	for (const struct cdc_node *n = node->first; n; n = n->next)
		ret->items[n->index] = take_text(l, n, &entry, 0, TEXT_MAX);
	ret->n = node->n;
}

static void take_pairs(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		       struct cdc_opt_pairs *ret)
{
	if (!is_count(l, node, o))
		return;
	ret->items = cdc_loader_alloc(l, (node->n ? node->n : 1) * sizeof(*ret->items));
	if (!ret->items)
		return;
	for (const struct cdc_node *n = node->first; n; n = n->next)
		cdc_options_read_table(l, n, is_secret(o) ? secret_pair_options : pair_options,
				       &ret->items[n->index]);
	ret->n = node->n;
}

/* A key of the design that this version cannot honour; its accepted default changes nothing. */
static void refuse_later(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o)
{
	struct cdc_node *def;
	unsigned ignored;

	if (!o->def) {
		cdc_loader_mistake(l, node, NULL,
				   "known, but this version cannot honour it yet; remove it");
		return;
	}
	if (node->is_broken)
		return;
	def = cdc_tree_parse(l, o->def, strlen(o->def), false);
	if (!def || cdc_node_equal(def, node))
		return;
	if (o->choices && node->kind == CDC_NODE_TEXT &&
	    !find_choice(o->choices, node->text, &ignored))
		wrong(l, node, o, "is not known");
	else
		wrong(l, node, o, "is known, but this version cannot honour it yet");
}

static void take_value(struct cdc_loader *l, const struct cdc_node *node, const struct cdc_opt *o,
		       void *into)
{
	void *field = (char *)into + o->offset;

	switch (o->type) {
	case CDC_OPT_STR:
		*(char **)field = take_text(l, node, o, o->min, o->max ? o->max : TEXT_MAX);
		break;
	case CDC_OPT_UINT:
	case CDC_OPT_SIZE:
	case CDC_OPT_DURATION:
		take_number(l, node, o, field);
		break;
	case CDC_OPT_DURATIONS:
		take_numbers(l, node, o, field);
		break;
	case CDC_OPT_BOOL:
		take_bool(l, node, o, field);
		break;
	case CDC_OPT_ENUM:
		take_enum(l, node, o, field);
		break;
	case CDC_OPT_SET:
		take_set(l, node, o, field);
		break;
	case CDC_OPT_STRS:
		take_texts(l, node, o, field);
		break;
	case CDC_OPT_PAIRS:
		take_pairs(l, node, o, field);
		break;
	case CDC_OPT_GROUP:
		cdc_options_read_table(l, node, o->group, field);
		break;
	case CDC_OPT_LATER:
		refuse_later(l, node, o);
		break;
	}
}

/* A table's defaults are right by construction; tests load every table. */
static void take_default(struct cdc_loader *l, const struct cdc_opt *o, void *into)
{
	struct cdc_node text = {.kind = CDC_NODE_TEXT}, *node = &text;
	unsigned before = l->mistake_n;

	if (o->type == CDC_OPT_GROUP) {
		for (const struct cdc_opt *inner = o->group; inner->name; inner++)
			take_default(l, inner, (char *)into + o->offset);
		return;
	}
	if (!o->def || o->type == CDC_OPT_LATER)
		return;
	if (o->type == CDC_OPT_SET || o->type == CDC_OPT_STRS || o->type == CDC_OPT_PAIRS ||
	    o->type == CDC_OPT_DURATIONS) {
		node = cdc_tree_parse(l, o->def, strlen(o->def), false);
		if (!node) {
			CDC_ASSERT(l->is_out_of_memory);
			return;
		}
	} else {
		text.text = text.written = o->def;
		text.len = strlen(o->def);
	}
	take_value(l, node, o, into);
	CDC_ASSERT(l->mistake_n == before);
}

/* Reads a whole file of at most SECRET_FILE_MAX bytes into bytes (one more fits). */
static bool read_secret_file(struct cdc_loader *l, const struct cdc_node *node, const char *path,
			     char *bytes, size_t *ret_len)
{
	/* O_NONBLOCK: a FIFO nobody writes to must not hold the start. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	size_t len = 0;
	ssize_t n = 0;
	const char *why = NULL;

	if (fd < 0 || fstat(fd, &st) != 0)
		why = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		why = "not a regular file";
	while (!why && len <= SECRET_FILE_MAX) {
		n = read(fd, bytes + len, SECRET_FILE_MAX + 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	if (!why && n < 0)
		why = strerror(errno);
	if (!why && len > SECRET_FILE_MAX)
		why = "longer than 64KiB";
	if (fd >= 0)
		(void)close(fd);
	if (why) {
		char shown[CDC_SHOWN_MAX];

		cdc_loader_mistake(l, node, NULL, "cannot read the file %s: %s",
				   cdc_node_show(node, false, shown), why);
		return false;
	}
	if (len > 0 && bytes[len - 1] == '\n')
		len--;
	if (len > 0 && bytes[len - 1] == '\r')
		len--;
	*ret_len = len;
	return true;
}

/* The value that `name_file: PATH` stands for, as a node in the option's place; NULL after a
 * mistake. */
static const struct cdc_node *secret_from_file(struct cdc_loader *l, const struct cdc_node *file,
					       const struct cdc_opt *o)
{
	const struct cdc_opt path_option = {.type = CDC_OPT_STR, .flags = CDC_OPT_REQUIRED};
	char *given = take_text(l, file, &path_option, 0, TEXT_MAX);
	char *path = given ? cdc_loader_relative(l, given) : NULL;
	char *bytes = path ? malloc(SECRET_FILE_MAX + 1) : NULL;
	struct cdc_node *node = NULL, *list;
	size_t len = 0;

	if (path && !bytes)
		l->is_out_of_memory = true;
	if (!bytes)
		return NULL;
	if (read_secret_file(l, file, path, bytes, &len))
		node = cdc_loader_alloc(l, sizeof(*node));
	if (node) {
		*node = (struct cdc_node){.kind = CDC_NODE_TEXT,
					  .line = file->line,
					  .parent = file->parent,
					  .key = o->name,
					  .text = cdc_loader_text(l, bytes, len),
					  .len = len,
					  .written = ""};
		if (!node->text)
			node = NULL;
	}
	cdc_wipe(bytes, SECRET_FILE_MAX + 1);
	free(bytes);
	if (!node || o->type != CDC_OPT_STRS)
		return node;
	/* A list of one text. */
	list = cdc_loader_alloc(l, sizeof(*list));
	if (list) {
		*list = *node;
		list->kind = CDC_NODE_LIST;
		list->first = list->last = node;
		list->n = 1;
		node->parent = list;
	}
	return list;
}

static bool file_name_of(const struct cdc_opt *o, char ret_name[64])
{
	if (!is_secret(o) || (o->type != CDC_OPT_STR && o->type != CDC_OPT_STRS))
		return false;
	(void)snprintf(ret_name, 64, "%s_file", o->name);
	return true;
}

static void read_option(struct cdc_loader *l, const struct cdc_node *map, const struct cdc_opt *o,
			void *into)
{
	char file_name[64];
	const struct cdc_node *node = cdc_node_get(map, o->name), *file = NULL;

	if (file_name_of(o, file_name))
		file = cdc_node_get(map, file_name);
	if (node && file) {
		cdc_loader_mistake(l, file, NULL, "%s is given as well; keep one of the two",
				   o->name);
	} else if (file) {
		node = secret_from_file(l, file, o);
		if (node)
			take_value(l, node, o, into);
	} else if (node) {
		take_value(l, node, o, into);
	} else if (o->flags & CDC_OPT_REQUIRED) {
		char allowed[CDC_ALLOWED_MAX];

		cdc_option_allowed(o, allowed);
		cdc_loader_mistake(l, map, o->name, "must be set%s%s%s",
				   allowed[0] ? " (allowed: " : "", allowed, allowed[0] ? ")" : "");
	} else {
		take_default(l, o, into);
	}
}

/* Follows the names of a set, `_file` names and the caller's own included. */
struct name_search {
	const char *key;
	bool is_found;
	unsigned guess; /* how good the nearest is */
	char nearest[64];
	char known[320]; /* "a, b, c" */
};

static void see_name(struct name_search *s, const char *name, bool is_listed)
{
	unsigned guess = cdc_value_guess(s->key, name);
	size_t len = strlen(s->known);

	if (guess == 0)
		s->is_found = true;
	if (guess < s->guess) {
		s->guess = guess;
		(void)snprintf(s->nearest, sizeof(s->nearest), "%s", name);
	}
	if (is_listed && len + strlen(name) + 3 < sizeof(s->known))
		(void)snprintf(s->known + len, sizeof(s->known) - len, "%s%s", len ? ", " : "",
			       name);
}

static void check_key(struct cdc_loader *l, const struct cdc_node *node,
		      const struct cdc_option_set *set)
{
	struct name_search s = {.key = node->key, .guess = CDC_VALUE_NO_GUESS};
	char file_name[64];

	for (size_t i = 0; i < set->part_n; i++) {
		for (const struct cdc_opt *o = set->parts[i].options; o && o->name; o++) {
			see_name(&s, o->name, o->type != CDC_OPT_LATER);
			if (file_name_of(o, file_name))
				see_name(&s, file_name, false);
		}
	}
	for (size_t i = 0; set->others && set->others[i]; i++)
		see_name(&s, set->others[i], true);
	if (s.is_found)
		return;
	if (s.nearest[0])
		cdc_loader_mistake(l, node, NULL, "unknown key; did you mean \"%s\"?", s.nearest);
	else if (s.known[0])
		cdc_loader_mistake(l, node, NULL, "unknown key (allowed: %s)", s.known);
	else
		cdc_loader_mistake(l, node, NULL, "unknown key; nothing can be set here");
}

void cdc_options_read(struct cdc_loader *l, const struct cdc_node *map,
		      const struct cdc_option_set *set)
{
	const struct cdc_opt group = {.type = CDC_OPT_GROUP};

	if (!is_kind(l, map, &group, CDC_NODE_MAP))
		return;
	for (const struct cdc_node *n = map->first; n && !set->is_open; n = n->next)
		check_key(l, n, set);
	for (size_t i = 0; i < set->part_n; i++) {
		for (const struct cdc_opt *o = set->parts[i].options; o && o->name; o++)
			read_option(l, map, o, set->parts[i].into);
	}
}

void cdc_options_read_table(struct cdc_loader *l, const struct cdc_node *map,
			    const struct cdc_opt *options, void *into)
{
	const struct cdc_option_part part = {.options = options, .into = into};

	cdc_options_read(l, map, &(struct cdc_option_set){.parts = &part, .part_n = 1});
}
