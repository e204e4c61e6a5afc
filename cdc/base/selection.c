#include "cdc/base/selection.h"

#include <string.h>

const char *cdc_filter_function_name(enum cdc_filter_function f)
{
	static const char *const names[] = {
#define X(code, name) [CDC_FILTER_##code] = (name),
		CDC_FILTER_FUNCTIONS(X)
#undef X
	};

	return f < CDC_FILTER_COUNT ? names[f] : "";
}

bool cdc_pattern_is_one(const char *id)
{
	return strchr(id, '*') != NULL;
}

bool cdc_pattern_matches(const char *id, const char *name, size_t len)
{
	const char *star = NULL; /* the last one seen: it may take more */
	size_t at = 0, taken = 0;

	while (at < len) {
		if (*id == '*') {
			star = id++;
			taken = at;
		} else if (*id && *id == name[at]) {
			id++;
			at++;
		} else if (star) {
			id = star + 1;
			at = ++taken;
		} else {
			return false;
		}
	}
	while (*id == '*')
		id++;
	return !*id;
}

const struct cdc_select_table *cdc_selection_find(const struct cdc_selection *s, const char *name,
						  size_t len)
{
	const struct cdc_select_table *found = NULL;

	for (size_t i = 0; i < s->n; i++) {
		const struct cdc_select_table *t = &s->tables[i];

		if (!cdc_pattern_is_one(t->id)) {
			if (strlen(t->id) == len && memcmp(t->id, name, len) == 0) {
				found = t;
				break;
			}
		} else if (!found && cdc_pattern_matches(t->id, name, len)) {
			found = t;
		}
	}
	return found && !found->is_left_out ? found : NULL;
}

bool cdc_selection_has(const struct cdc_selection *s, const char *table)
{
	return !s || s->n == 0 || cdc_selection_find(s, table, strlen(table)) != NULL;
}

bool cdc_selection_needs(const struct cdc_select_table *t, const char *column)
{
	const struct cdc_select_field *rest = NULL;

	for (size_t i = 0; i < t->filter_n; i++) {
		if (strcmp(t->filters[i].field, column) == 0)
			return true;
	}
	for (size_t i = 0; i < t->field_n; i++) {
		if (strcmp(t->fields[i].id, column) == 0)
			return !t->fields[i].is_left_out;
		if (strcmp(t->fields[i].id, "*") == 0)
			rest = &t->fields[i];
	}
	return t->field_n == 0 || (rest && !rest->is_left_out);
}

bool cdc_selection_is_plain(const struct cdc_selection *s)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct cdc_select_table *t = &s->tables[i];

		if (t->is_left_out || t->field_n || t->filter_n || cdc_pattern_is_one(t->id))
			return false;
	}
	return true;
}
