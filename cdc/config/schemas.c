#include "cdc/config/schemas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/config/file.h"
#include "cdc/config/options.h"

typedef enum cdc_code check_fn(const struct cdc_select_filter *filter, struct cdc_err *err);

/* A list that is not empty; without counts as empty. */
static bool is_list(struct cdc_loader *l, const struct cdc_node *node, const char *of,
		    const char *without)
{
	char shown[CDC_SHOWN_MAX];

	if (!node || node->is_broken)
		return false;
	if (node->kind == CDC_NODE_LIST && node->n > 0)
		return true;
	cdc_loader_mistake(l, node, NULL, "%s; a list of %s is needed (leave the key out for %s)",
			   node->kind == CDC_NODE_LIST ? "empty"
						       : cdc_node_show(node, false, shown),
			   of, without);
	return false;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorts names, and reports what is there twice. */
static void find_twice(struct cdc_loader *l, const struct cdc_node *list, char **names, size_t n,
		       const char *what)
{
	char shown[CDC_SHOWN_MAX];

	qsort(names, n, sizeof(*names), compare_texts);
	for (size_t i = 1; i < n; i++) {
		if (strcmp(names[i - 1], names[i]) == 0) {
			cdc_text_clean(names[i], strlen(names[i]), 60, shown);
			cdc_loader_mistake(l, list, NULL, "\"%s\" is there twice%s", shown, what);
		}
	}
}

/* --- columns ------------------------------------------------------------------------ */

/* `obfuscate: null` means the word, although a null counts as absent elsewhere. */
static void read_null(struct cdc_loader *l, const struct cdc_node *map, const char *key,
		      unsigned *obfuscate)
{
	for (const struct cdc_node *n = map->first; n; n = n->next) {
		if (strcmp(n->key, key) != 0 || !n->is_null)
			continue;
		if (strcmp(n->written, "null") == 0)
			*obfuscate = CDC_OBFUSCATE_NULL;
		else
			cdc_loader_mistake(l, n, NULL,
					   "has no value (allowed: hash, mask, null, true, false)");
	}
}

/* true is another word for hash. */
static unsigned meant(unsigned obfuscate)
{
	return obfuscate > CDC_OBFUSCATE_NULL ? (unsigned)CDC_OBFUSCATE_HASH : obfuscate;
}

/* What the API calls by two names must not say two things. */
static void join_names(struct cdc_loader *l, const struct cdc_node *map,
		       struct cdc_file_field *keys)
{
	const char *user = keys->user_output_name;

	if (!keys->obfuscate)
		keys->obfuscate = keys->obfuscated;
	else if (keys->obfuscated && meant(keys->obfuscated) != meant(keys->obfuscate))
		cdc_loader_mistake(l, map, "obfuscated",
				   "obfuscate says something else; keep one "
				   "of the two");
	if (!user || !*user)
		return;
	if (keys->output_name && strcmp(keys->output_name, user) != 0)
		cdc_loader_mistake(l, map, "user_output_name",
				   "output_name says something else; keep one of the two");
	keys->output_name = keys->user_output_name;
}

/* A column as text or as a group of keys; false after a mistake. */
static bool read_field(struct cdc_loader *l, const struct cdc_node *node,
		       struct cdc_select_field *ret)
{
	struct cdc_file_field keys = {.is_enabled = true};
	const struct cdc_option_part id = {cdc_file_field_options, &keys};
	const struct cdc_node *at = node;
	char shown[CDC_SHOWN_MAX];

	if (node->kind == CDC_NODE_MAP) {
		cdc_options_read(l, node, &(struct cdc_option_set){.parts = &id, .part_n = 1});
		read_null(l, node, "obfuscate", &keys.obfuscate);
		read_null(l, node, "obfuscated", &keys.obfuscated);
		join_names(l, node, &keys);
		at = cdc_node_get(node, "id");
	} else if (node->kind == CDC_NODE_TEXT && !node->is_broken && node->len > 0 &&
		   node->len <= 63 && node->len == strlen(node->text)) {
		keys.id = cdc_loader_text(l, node->text, node->len);
	} else if (!node->is_broken) {
		cdc_loader_mistake(l, node, NULL,
				   "%s is not a column (allowed: a name of 1 to 63 bytes, or a "
				   "group of keys with its id)",
				   cdc_node_show(node, false, shown));
	}
	if (!keys.id)
		return false;
	*ret = (struct cdc_select_field){.id = keys.id,
					 .is_left_out = !keys.is_enabled,
					 .obfuscate = meant(keys.obfuscate),
					 .output_name = keys.output_name};
	if (strcmp(keys.id, "*") == 0 && (ret->is_left_out || ret->output_name)) {
		cdc_loader_mistake(l, at, NULL,
				   "\"*\" stands for all other columns and has no %s of its own",
				   ret->is_left_out ? "enabled" : "output_name");
		return false;
	}
	return true;
}

/* Two columns of one name in records; what "*" stands for is only known with the table. */
static void find_same_names(struct cdc_loader *l, const struct cdc_node *list,
			    const struct cdc_select_table *t)
{
	char **names = cdc_loader_alloc(l, t->field_n * sizeof(*names));
	const unsigned before = l->mistake_n;
	size_t n = 0;

	if (!names)
		return;
	for (size_t i = 0; i < t->field_n; i++)
		names[n++] = t->fields[i].id;
	find_twice(l, list, names, n, "");
	if (l->mistake_n != before)
		return;
	n = 0;
	for (size_t i = 0; i < t->field_n; i++) {
		const struct cdc_select_field *f = &t->fields[i];

		if (!f->is_left_out)
			names[n++] = f->output_name ? f->output_name : f->id;
	}
	find_twice(l, list, names, n, " as a name in records");
}

static void read_fields(struct cdc_loader *l, const struct cdc_node *schema,
			const char *obfuscation_key, struct cdc_select_table *t)
{
	const struct cdc_node *list = cdc_node_get(schema, "fields");
	bool is_hashed = false, has_one = false;

	if (!is_list(l, list, "columns", "every column"))
		return;
	t->fields = cdc_loader_alloc(l, list->n * sizeof(*t->fields));
	if (!t->fields)
		return;
	for (const struct cdc_node *n = list->first; n; n = n->next) {
		struct cdc_select_field *f = &t->fields[t->field_n];

		if (!read_field(l, n, f))
			continue;
		t->field_n++;
		has_one |= !f->is_left_out;
		is_hashed |= !f->is_left_out && f->obfuscate == CDC_OBFUSCATE_HASH;
	}
	if (t->field_n == list->n && !has_one)
		cdc_loader_mistake(l, list, NULL,
				   "no column is left; add \"*\" for all that are not listed");
	if (is_hashed && !obfuscation_key)
		cdc_loader_mistake(
			l, list, NULL,
			"a column is hashed; set obfuscation_key of the sync, a secret of "
			"16 bytes or more");
	find_same_names(l, list, t);
}

/* --- filters ------------------------------------------------------------------------ */

/* `value` as texts; none when it is absent. */
static bool read_values(struct cdc_loader *l, const struct cdc_node *filter,
			struct cdc_opt_strs *ret)
{
	const struct cdc_node *node = cdc_node_get(filter, "value"), *first = node;

	if (!node)
		return true;
	if (node->is_broken)
		return false;
	if (node->kind == CDC_NODE_MAP) {
		cdc_loader_mistake(l, node, NULL,
				   "a group of keys is no value (allowed: a text, or a list)");
		return false;
	}
	if (node->kind == CDC_NODE_LIST && (node->n == 0 || node->n > CDC_FILTER_VALUES_MAX)) {
		cdc_loader_mistake(l, node, NULL, "%zu entries (allowed: 1 to %d)", node->n,
				   CDC_FILTER_VALUES_MAX);
		return false;
	}
	ret->items = cdc_loader_alloc(l, (node->n ? node->n : 1) * sizeof(*ret->items));
	if (!ret->items)
		return false;
	if (node->kind == CDC_NODE_LIST)
		first = node->first;
	for (const struct cdc_node *n = first; n;
	     n = node->kind == CDC_NODE_LIST ? n->next : NULL) {
		if (n->is_broken)
			return false;
		if (n->kind != CDC_NODE_TEXT || n->is_null || strlen(n->text) != n->len) {
			cdc_loader_mistake(l, n, NULL, "is no value (allowed: a text)");
			return false;
		}
		ret->items[ret->n++] = cdc_loader_text(l, n->text, n->len);
	}
	return !l->is_out_of_memory;
}

static bool read_filter(struct cdc_loader *l, const struct cdc_node *node, check_fn *check,
			struct cdc_select_filter *ret)
{
	static const char *const others[] = {"value", NULL};
	struct cdc_file_filter keys = {0};
	const struct cdc_option_part part = {cdc_file_filter_options, &keys};
	const struct cdc_node *value;
	const unsigned before = l->mistake_n;
	struct cdc_err err;

	cdc_options_read(l, node,
			 &(struct cdc_option_set){.parts = &part, .part_n = 1, .others = others});
	if (node->kind != CDC_NODE_MAP || !read_values(l, node, &ret->values) ||
	    l->mistake_n != before)
		return false;
	ret->field = keys.field;
	ret->function = keys.function;
	memset(&err, 0, sizeof(err));
	if (!check || check(ret, &err) == CDC_OK)
		return true;
	value = cdc_node_get(node, "value");
	cdc_loader_mistake(l, value ? value : node, value ? NULL : "value", "%s", err.msg);
	return false;
}

static void read_filters(struct cdc_loader *l, const struct cdc_node *schema, check_fn *check,
			 struct cdc_select_table *t)
{
	const struct cdc_node *list = cdc_node_get(schema, "filters");

	if (!is_list(l, list, "filters", "every row"))
		return;
	if (list->n > CDC_SCHEMA_FILTERS_MAX) {
		cdc_loader_mistake(l, list, NULL, "%zu are too many (allowed: up to %d)", list->n,
				   CDC_SCHEMA_FILTERS_MAX);
		return;
	}
	t->filters = cdc_loader_alloc(l, list->n * sizeof(*t->filters));
	if (!t->filters)
		return;
	for (const struct cdc_node *n = list->first; n; n = n->next)
		t->filter_n += read_filter(l, n, check, &t->filters[t->filter_n]);
}

/* --- tables ------------------------------------------------------------------------- */

/* "public.orders", as text or as the id of a group of keys; false after a mistake. */
static bool read_table(struct cdc_loader *l, const struct cdc_node *node, check_fn *check,
		       const char *obfuscation_key, struct cdc_select_table *ret)
{
	static const char *const others[] = {"fields", "filters", NULL};
	struct cdc_file_schema keys = {.is_enabled = true};
	const struct cdc_option_part part = {cdc_file_schema_options, &keys};
	const struct cdc_node *id = node;
	const char *dot;
	char shown[CDC_SHOWN_MAX];

	if (node->kind == CDC_NODE_MAP) {
		cdc_options_read(
			l, node,
			&(struct cdc_option_set){.parts = &part, .part_n = 1, .others = others});
		id = cdc_node_get(node, "id");
		read_fields(l, node, obfuscation_key, ret);
		read_filters(l, node, check, ret);
	} else if (node->kind == CDC_NODE_TEXT && !node->is_broken) {
		if (node->len == strlen(node->text) && node->len <= 127)
			keys.id = cdc_loader_text(l, node->text, node->len);
	}
	if (!keys.id && (node->kind == CDC_NODE_MAP || node->is_broken))
		return false;
	ret->id = keys.id;
	ret->is_left_out = !keys.is_enabled;
	ret->leaving = keys.leaving;
	dot = keys.id ? strchr(keys.id, '.') : NULL;
	if (dot && dot > keys.id && dot[1])
		return true;
	cdc_loader_mistake(l, id, NULL,
			   "%s is not a table's name (allowed: schema.table, with * for any "
			   "characters)",
			   cdc_node_show(id, false, shown));
	return false;
}

void cdc_schemas_read(struct cdc_loader *l, const struct cdc_node *sync, check_fn *filter_check,
		      struct cdc_opt_strs *ret_names, struct cdc_selection *selection)
{
	const struct cdc_node *list = cdc_node_get(sync, "schemas");
	char **names;

	if (!is_list(l, list, "tables", "every table of the publication"))
		return;
	selection->tables = cdc_loader_alloc(l, list->n * sizeof(*selection->tables));
	ret_names->items = cdc_loader_alloc(l, list->n * sizeof(*ret_names->items));
	names = cdc_loader_alloc(l, list->n * sizeof(*names));
	if (!selection->tables || !ret_names->items || !names)
		return;
	for (const struct cdc_node *n = list->first; n; n = n->next) {
		struct cdc_select_table *t = &selection->tables[selection->n];

		if (!read_table(l, n, filter_check, selection->obfuscation_key, t))
			continue;
		names[selection->n++] = t->id;
		if (!t->is_left_out)
			ret_names->items[ret_names->n++] = t->id;
	}
	if (selection->n == list->n && !ret_names->n)
		cdc_loader_mistake(l, list, NULL,
				   "no table is left; add \"*.*\" for all that are not listed");
	find_twice(l, list, names, selection->n, "");
}
