#include "cdc/config/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "cdc/base/buf.h"
#include "cdc/base/crypto.h"

#define VALUE_SHOWN_MAX 60

void cdc_text_clean(const char *text, size_t len, size_t max, char *ret_text)
{
	size_t n = len < max ? len : max;

	if (n < len) {
		/* Not in the middle of a character: 10xxxxxx continues one. */
		while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
			n--;
	}
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];

		ret_text[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	(void)strcpy(ret_text + n, n < len ? "..." : "");
}

const char *cdc_node_show(const struct cdc_node *node, bool is_secret, char ret_text[CDC_SHOWN_MAX])
{
	char clean[VALUE_SHOWN_MAX + 4];

	switch (node->kind) {
	case CDC_NODE_LIST:
		return "a list";
	case CDC_NODE_MAP:
		return "a group of keys";
	case CDC_NODE_TEXT:
		break;
	}
	if (is_secret)
		return "the value (secret)";
	cdc_text_clean(node->written, strlen(node->written), VALUE_SHOWN_MAX, clean);
	(void)snprintf(ret_text, CDC_SHOWN_MAX, "\"%s\"", clean);
	return ret_text;
}

const struct cdc_node *cdc_node_get(const struct cdc_node *map, const char *key)
{
	for (const struct cdc_node *n = map->first; n; n = n->next) {
		if (!n->is_null && strcmp(n->key, key) == 0)
			return n;
	}
	return NULL;
}

const struct cdc_node *cdc_node_empty(struct cdc_loader *l, const struct cdc_node *parent,
				      const char *key)
{
	struct cdc_node *n = cdc_loader_alloc(l, sizeof(*n));

	if (n)
		*n = (struct cdc_node){
			.kind = CDC_NODE_MAP, .line = parent->line, .parent = parent, .key = key};
	return n;
}

bool cdc_node_equal(const struct cdc_node *a, const struct cdc_node *b)
{
	if (a->kind != b->kind || a->n != b->n)
		return false;
	if (a->kind == CDC_NODE_TEXT)
		return a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
	a = a->first;
	b = b->first;
	/* As deep as a tree can be: CDC_TREE_DEPTH_MAX. */
	for (; a && b; a = a->next, b = b->next) {
		if (a->key && strcmp(a->key, b->key) != 0)
			return false;
		if (!cdc_node_equal(a, b))
			return false;
	}
	return true;
}

static bool is_name_char(char c, bool is_first)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
	       (!is_first && c >= '0' && c <= '9');
}

/*
 * Appends the variable whose "${" is at text.  Returns how many bytes of text
 * that took, or 0 after a mistake.
 */
static size_t put_variable(struct cdc_loader *l, const struct cdc_node *node, const char *text,
			   size_t len, struct cdc_buf *b)
{
	char name[128];
	size_t n = 0;
	const char *value;

	while (2 + n < len && n + 1 < sizeof(name) && is_name_char(text[2 + n], n == 0)) {
		name[n] = text[2 + n];
		n++;
	}
	name[n] = '\0';
	if (n == 0 || 2 + n >= len || text[2 + n] != '}') {
		cdc_loader_mistake(l, node, NULL,
				   "\"${\" must be followed by the name of an environment variable "
				   "and \"}\" (write \"$${\" for the characters themselves)");
		return 0;
	}
	value = getenv(name);
	if (!value) {
		cdc_loader_mistake(l, node, NULL, "the environment variable %s is not set", name);
		return 0;
	}
	cdc_buf_puts(b, value);
	return n + 3;
}

/* Fills text and len from written.  The buffer holds secrets, so it is wiped by the caller. */
static bool expand(struct cdc_loader *l, struct cdc_node *node, size_t len, struct cdc_buf *b)
{
	const char *text = node->written;

	for (size_t i = 0; i < len;) {
		if (len - i >= 3 && memcmp(text + i, "$${", 3) == 0) {
			cdc_buf_puts(b, "${");
			i += 3;
		} else if (len - i >= 2 && memcmp(text + i, "${", 2) == 0) {
			size_t took = put_variable(l, node, text + i, len - i, b);

			if (took == 0)
				return false;
			i += took;
		} else {
			cdc_buf_putc(b, text[i++]);
		}
	}
	if (b->failed) {
		cdc_loader_mistake(l, node, NULL,
				   "the value is too long with its variables put in (allowed: up "
				   "to %d bytes)",
				   CDC_TREE_VALUE_MAX);
		return false;
	}
	return true;
}

static void fill_text(struct cdc_loader *l, struct cdc_node *node, const char *bytes, size_t len,
		      bool is_env)
{
	struct cdc_buf b;

	node->written = cdc_loader_text(l, bytes, len);
	node->text = node->written;
	node->len = len;
	if (!node->written)
		return;
	if (len > CDC_TREE_VALUE_MAX) {
		cdc_loader_mistake(l, node, NULL, "the value is too long (allowed: up to %d bytes)",
				   CDC_TREE_VALUE_MAX);
		node->is_broken = true;
		return;
	}
	if (!is_env || !memmem(bytes, len, "${", 2))
		return;
	cdc_buf_init(&b, CDC_TREE_VALUE_MAX);
	/* All at once: growing would leave copies of secrets behind in freed memory. */
	if (!cdc_buf_reserve(&b, CDC_TREE_VALUE_MAX)) {
		l->is_out_of_memory = true;
		return;
	}
	if (!expand(l, node, len, &b)) {
		node->is_broken = true;
	} else {
		node->text = cdc_loader_text(l, (const char *)b.data, b.len);
		node->len = b.len;
	}
	cdc_wipe(b.data, b.len);
	cdc_buf_clear(&b);
}

/* Where the parser is: the containers that are open, and the key that waits for its value. */
struct builder {
	struct cdc_loader *l;
	bool is_env;
	struct cdc_node *root;
	struct cdc_node *open[CDC_TREE_DEPTH_MAX];
	size_t depth;
	char *key;
	unsigned key_line;
};

/* What is in the way of the next node or key, or NULL. */
static const char *refusal(const struct builder *b, const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_ALIAS_EVENT:
		return "aliases (*name) are not accepted; write the value out";
	case YAML_SCALAR_EVENT:
		if (e->data.scalar.anchor)
			return "anchors (&name) are not accepted; write the value out";
		if (e->data.scalar.tag)
			return "tags (!name) are not accepted";
		break;
	case YAML_SEQUENCE_START_EVENT:
		if (e->data.sequence_start.anchor)
			return "anchors (&name) are not accepted; write the value out";
		if (e->data.sequence_start.tag)
			return "tags (!name) are not accepted";
		break;
	case YAML_MAPPING_START_EVENT:
		if (e->data.mapping_start.anchor)
			return "anchors (&name) are not accepted; write the value out";
		if (e->data.mapping_start.tag)
			return "tags (!name) are not accepted";
		break;
	default:
		return NULL;
	}
	if (e->type != YAML_SCALAR_EVENT && b->depth == CDC_TREE_DEPTH_MAX)
		return "nested too deeply (allowed: up to 64 levels)";
	if (b->depth > 0 && b->open[b->depth - 1]->kind == CDC_NODE_LIST &&
	    b->open[b->depth - 1]->n == CDC_TREE_CHILDREN_MAX)
		return "too many entries (allowed: up to 10000)";
	if (b->depth > 0 && b->open[b->depth - 1]->kind == CDC_NODE_MAP && !b->key) {
		if (b->open[b->depth - 1]->n == CDC_TREE_KEYS_MAX)
			return "too many keys (allowed: up to 2048)";
		if (e->type != YAML_SCALAR_EVENT)
			return "a key must be a text";
	}
	return NULL;
}

/* The key of the innermost map's next child. */
static bool take_key(struct builder *b, const yaml_event_t *e, unsigned line)
{
	const char *bytes = (const char *)e->data.scalar.value;
	size_t len = e->data.scalar.length;
	struct cdc_node *map = b->open[b->depth - 1];

	if (len == 0 || len > CDC_TREE_KEY_MAX || memchr(bytes, '\0', len)) {
		cdc_loader_mistake_at(b->l, map, line, "a key must be a text of 1 to %d bytes",
				      CDC_TREE_KEY_MAX);
		return false;
	}
	b->key = cdc_loader_text(b->l, bytes, len);
	b->key_line = line;
	if (!b->key)
		return false;
	for (const struct cdc_node *n = map->first; n; n = n->next) {
		if (strcmp(n->key, b->key) == 0) {
			char shown[VALUE_SHOWN_MAX + 4];

			cdc_text_clean(b->key, len, VALUE_SHOWN_MAX, shown);
			cdc_loader_mistake_at(b->l, map, line,
					      "the key \"%s\" was given before, in line %u", shown,
					      n->line);
			return false;
		}
	}
	return true;
}

/* A new node in its place: the root, or a child of the innermost container. */
static struct cdc_node *add_node(struct builder *b, enum cdc_node_kind kind, unsigned line)
{
	struct cdc_node *n = cdc_loader_alloc(b->l, sizeof(*n)), *parent;

	if (!n)
		return NULL;
	n->kind = kind;
	n->line = b->key ? b->key_line : line;
	if (b->depth == 0) {
		b->root = n;
		return n;
	}
	parent = b->open[b->depth - 1];
	n->parent = parent;
	n->key = b->key;
	n->index = parent->n++;
	b->key = NULL;
	if (parent->last)
		parent->last->next = n;
	else
		parent->first = n;
	parent->last = n;
	return n;
}

static bool take_text(struct builder *b, const yaml_event_t *e, unsigned line)
{
	const char *bytes = (const char *)e->data.scalar.value;
	size_t len = e->data.scalar.length;
	struct cdc_node *n;

	if (b->depth > 0 && b->open[b->depth - 1]->kind == CDC_NODE_MAP && !b->key)
		return take_key(b, e, line);
	n = add_node(b, CDC_NODE_TEXT, line);
	if (!n)
		return false;
	n->is_null = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
		     (len == 0 || strcmp(bytes, "~") == 0 || strcmp(bytes, "null") == 0);
	fill_text(b->l, n, bytes, len, b->is_env);
	return !b->l->is_out_of_memory;
}

/* One event; false ends the parse (the mistake is reported). */
static bool take_event(struct builder *b, const yaml_event_t *e)
{
	unsigned line = (unsigned)e->start_mark.line + 1;
	const struct cdc_node *at = b->depth > 0 ? b->open[b->depth - 1] : NULL;
	const char *why = refusal(b, e);
	struct cdc_node *n;

	if (why) {
		cdc_loader_mistake_at(b->l, at, line, "%s", why);
		return false;
	}
	switch (e->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (b->root) {
			cdc_loader_mistake_at(b->l, NULL, line,
					      "a second document begins here; one file is one");
			return false;
		}
		return true;
	case YAML_SCALAR_EVENT:
		return take_text(b, e, line);
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		n = add_node(b, e->type == YAML_MAPPING_START_EVENT ? CDC_NODE_MAP : CDC_NODE_LIST,
			     line);
		if (n)
			b->open[b->depth++] = n;
		return n != NULL;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		b->depth--;
		return true;
	default:
		return true;
	}
}

/* libyaml keeps what it reads in its own buffers, secrets included. */
static void wipe_parser(yaml_parser_t *p)
{
	if (p->buffer.start)
		cdc_wipe(p->buffer.start, (size_t)(p->buffer.end - p->buffer.start));
	if (p->raw_buffer.start)
		cdc_wipe(p->raw_buffer.start, (size_t)(p->raw_buffer.end - p->raw_buffer.start));
	yaml_parser_delete(p);
}

static void syntax_mistake(struct cdc_loader *l, const yaml_parser_t *p)
{
	unsigned line = (unsigned)p->problem_mark.line + 1;

	if (p->error == YAML_MEMORY_ERROR)
		l->is_out_of_memory = true;
	else if (p->error == YAML_READER_ERROR)
		cdc_loader_mistake_at(l, NULL, (unsigned)p->mark.line + 1,
				      "not text in UTF-8: %s (byte %zu)",
				      p->problem ? p->problem : "?", p->problem_offset);
	else if (p->context)
		cdc_loader_mistake_at(l, NULL, line, "not YAML: %s, %s (begun in line %zu)",
				      p->problem ? p->problem : "?", p->context,
				      p->context_mark.line + 1);
	else
		cdc_loader_mistake_at(l, NULL, line, "not YAML: %s", p->problem ? p->problem : "?");
}

/* Some editors begin a file with it.  libyaml takes it for the first character of what follows. */
static size_t mark_len(const char *text, size_t len)
{
	static const char mark[] = "\xef\xbb\xbf";

	return len >= sizeof(mark) - 1 && memcmp(text, mark, sizeof(mark) - 1) == 0
		       ? sizeof(mark) - 1
		       : 0;
}

struct cdc_node *cdc_tree_parse(struct cdc_loader *l, const char *text, size_t len, bool is_env)
{
	struct builder b = {.l = l, .is_env = is_env};
	const size_t mark = mark_len(text, len);
	bool is_going_on = true, is_complete = false;
	yaml_parser_t p;

	if (!yaml_parser_initialize(&p)) {
		l->is_out_of_memory = true;
		return NULL;
	}
	yaml_parser_set_encoding(&p, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&p, (const unsigned char *)text + mark, len - mark);
	while (is_going_on && !is_complete) {
		yaml_event_t e;

		if (!yaml_parser_parse(&p, &e)) {
			syntax_mistake(l, &p);
			break;
		}
		is_going_on = take_event(&b, &e);
		is_complete = is_going_on && e.type == YAML_STREAM_END_EVENT;
		if (e.type == YAML_SCALAR_EVENT)
			cdc_wipe(e.data.scalar.value, e.data.scalar.length);
		yaml_event_delete(&e);
	}
	wipe_parser(&p);
	if (!is_complete)
		return NULL;
	/* An empty file, or one of comments only. */
	if (!b.root)
		return add_node(&b, CDC_NODE_MAP, 1);
	if (b.root->is_null) {
		b.root->kind = CDC_NODE_MAP;
		b.root->is_null = false;
	}
	return l->is_out_of_memory ? NULL : b.root;
}
