#include "cdc/config/schemas.h"

#include <stdlib.h>
#include <string.h>

#include "cdc/config/file.h"
#include "cdc/config/options.h"

/* "public.orders", as text or as the id of a group of keys; false after a mistake. */
static bool read_table(struct cdc_loader *l, const struct cdc_node *node,
		       struct cdc_select_table *ret)
{
	struct cdc_file_schema keys = {.is_enabled = true};
	const struct cdc_node *id = node;
	const char *dot;
	char shown[CDC_SHOWN_MAX];

	if (node->kind == CDC_NODE_MAP) {
		cdc_options_read_table(l, node, cdc_file_schema_options, &keys);
		id = cdc_node_get(node, "id");
	} else if (node->kind == CDC_NODE_TEXT && !node->is_broken) {
		if (node->len == strlen(node->text) && node->len <= 127)
			keys.id = cdc_loader_text(l, node->text, node->len);
	}
	if (!keys.id && (node->kind == CDC_NODE_MAP || node->is_broken))
		return false;
	ret->id = keys.id;
	ret->is_left_out = !keys.is_enabled;
	dot = keys.id ? strchr(keys.id, '.') : NULL;
	if (dot && dot > keys.id && dot[1])
		return true;
	cdc_loader_mistake(l, id, NULL,
			   "%s is not a table's name (allowed: schema.table, with * for any "
			   "characters)",
			   cdc_node_show(id, false, shown));
	return false;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void cdc_schemas_read(struct cdc_loader *l, const struct cdc_node *sync,
		      struct cdc_opt_strs *ret_names, struct cdc_selection *selection)
{
	const struct cdc_node *list = cdc_node_get(sync, "schemas");
	char shown[CDC_SHOWN_MAX], **names;

	if (!list || list->is_broken)
		return;
	if (list->kind != CDC_NODE_LIST || list->n == 0) {
		cdc_loader_mistake(
			l, list, NULL,
			"%s; a list of tables is needed (leave the key out for every table of "
			"the publication)",
			list->kind == CDC_NODE_LIST ? "empty" : cdc_node_show(list, false, shown));
		return;
	}
	selection->tables = cdc_loader_alloc(l, list->n * sizeof(*selection->tables));
	ret_names->items = cdc_loader_alloc(l, list->n * sizeof(*ret_names->items));
	names = cdc_loader_alloc(l, list->n * sizeof(*names));
	if (!selection->tables || !ret_names->items || !names)
		return;
	for (const struct cdc_node *n = list->first; n; n = n->next) {
		struct cdc_select_table *t = &selection->tables[selection->n];

		if (!read_table(l, n, t))
			continue;
		names[selection->n++] = t->id;
		if (!t->is_left_out)
			ret_names->items[ret_names->n++] = t->id;
	}
	if (selection->n == list->n && !ret_names->n)
		cdc_loader_mistake(l, list, NULL,
				   "no table is left; add \"*.*\" for all that are not listed");
	qsort(names, selection->n, sizeof(*names), compare_texts);
	for (size_t i = 1; i < selection->n; i++) {
		if (strcmp(names[i - 1], names[i]) == 0) {
			cdc_text_clean(names[i], strlen(names[i]), 60, shown);
			cdc_loader_mistake(l, list, NULL, "\"%s\" is there twice", shown);
		}
	}
}
