#include "cdc/config/loader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/base/crypto.h"
#include "cdc/config/tree.h"

#define MEMORY_MAX      ((size_t)64 << 20) /* a file of 4 MiB that is nothing but short keys */
#define MISTAKE_MAX     1000               /* one line that a terminal can still show */
#define KEY_SHOWN_MAX   64                 /* longer keys are not ours anyway */
#define PATH_LEVELS_MAX 64                 /* the tree is not deeper */

struct cdc_config_text {
	struct cdc_config_text *next;
	char *bytes;
	size_t len;
};

struct cdc_config_memory *cdc_config_memory_new(void)
{
	struct cdc_config_memory *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->arena = cdc_arena_new(MEMORY_MAX);
	if (!m->arena) {
		free(m);
		return NULL;
	}
	return m;
}

void cdc_config_memory_free(struct cdc_config_memory *m)
{
	if (!m)
		return;
	for (struct cdc_config_text *t = m->texts; t; t = t->next)
		cdc_wipe(t->bytes, t->len);
	cdc_arena_free(m->arena);
	free(m);
}

void cdc_config_memory_freep(struct cdc_config_memory **m)
{
	cdc_config_memory_free(*m);
}

void *cdc_loader_alloc(struct cdc_loader *l, size_t n)
{
	void *p = l->is_out_of_memory ? NULL : cdc_arena_alloc(l->memory->arena, n);

	if (!p)
		l->is_out_of_memory = true;
	return p;
}

char *cdc_loader_text(struct cdc_loader *l, const char *bytes, size_t n)
{
	struct cdc_config_text *t = cdc_loader_alloc(l, sizeof(*t));
	char *copy = t ? cdc_loader_alloc(l, n + 1) : NULL;

	if (!copy)
		return NULL;
	memcpy(copy, bytes, n);
	*t = (struct cdc_config_text){.next = l->memory->texts, .bytes = copy, .len = n};
	l->memory->texts = t;
	return copy;
}

char *cdc_loader_relative(struct cdc_loader *l, const char *path)
{
	size_t folder_len = strlen(l->folder), size;
	char *joined;

	if (path[0] == '/' || folder_len == 0)
		return cdc_loader_text(l, path, strlen(path));
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	size = folder_len + 1 + strlen(path) + 1;
	joined = cdc_loader_alloc(l, size);
	if (joined)
		(void)snprintf(joined, size, "%s%s%s", l->folder,
			       l->folder[folder_len - 1] == '/' ? "" : "/", path);
	return joined;
}

/* Appends to a fixed text, cut where it is full. */
static void put(char *text, size_t size, size_t *len, const char *fmt, ...) CDC_FMT(4, 5);
static void put(char *text, size_t size, size_t *len, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text + *len, size - *len, fmt, ap);
	va_end(ap);
	if (n > 0)
		*len += (size_t)n < size - *len ? (size_t)n : size - *len - 1;
}

/* "connections.shop.configuration" */
static void put_path(char *text, size_t size, size_t *len, const struct cdc_node *node)
{
	const struct cdc_node *way[PATH_LEVELS_MAX];
	size_t n = 0;

	for (; node && node->parent && n < PATH_LEVELS_MAX; node = node->parent)
		way[n++] = node;
	for (size_t i = n; i-- > 0;) {
		char shown[KEY_SHOWN_MAX + 8];

		if (way[i]->parent->kind == CDC_NODE_LIST) {
			put(text, size, len, "[%zu]", way[i]->index);
			continue;
		}
		cdc_text_clean(way[i]->key, strlen(way[i]->key), KEY_SHOWN_MAX, shown);
		put(text, size, len, "%s%s", i + 1 < n ? "." : "", shown);
	}
}

static void report(struct cdc_loader *l, unsigned line, const struct cdc_node *node,
		   const char *key, const char *what)
{
	char text[MISTAKE_MAX];
	size_t len = 0;

	put(text, sizeof(text), &len, "%s:%u: ", l->path, line ? line : 1);
	if (node) {
		size_t before = len;

		put_path(text, sizeof(text), &len, node);
		if (key)
			put(text, sizeof(text), &len, "%s%s", len > before ? "." : "", key);
		if (len > before)
			put(text, sizeof(text), &len, ": ");
	}
	put(text, sizeof(text), &len, "%s", what);
	if (l->mistake_n == 0)
		(void)cdc_err_set(l->err, CDC_CONFIG, "%s", text);
	l->mistake_n++;
	if (l->mistake && l->mistake_n <= CDC_MISTAKES_MAX)
		l->mistake(l->arg, text);
}

void cdc_loader_mistake(struct cdc_loader *l, const struct cdc_node *node, const char *key,
			const char *fmt, ...)
{
	char what[MISTAKE_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	report(l, node ? node->line : 0, node, key, what);
}

void cdc_loader_mistake_at(struct cdc_loader *l, const struct cdc_node *node, unsigned line,
			   const char *fmt, ...)
{
	char what[MISTAKE_MAX];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	report(l, line, node, NULL, what);
}
