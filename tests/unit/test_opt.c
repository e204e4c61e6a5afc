/* Every table of options that the program has: a mistake in one is found here, not by a user. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cdc/config/file.h"
#include "cdc/config/value.h"
#include "tests/unit/config_tables.h"

struct table {
	const char *name;
	const struct cdc_opt *options;
	size_t size; /* of the struct that is filled */
};

/* All of them; returns how many. */
static size_t all_tables(struct cdc_connection_type types[TYPES_MAX], struct table ret[64])
{
	const struct cdc_config_tables t = config_tables(types);
	size_t n = 0;

	ret[n++] = (struct table){"file", cdc_file_options, sizeof(struct cdc_config)};
	ret[n++] = (struct table){"connection", cdc_file_connection_options,
				  sizeof(struct cdc_file_connection)};
	ret[n++] = (struct table){"sync", cdc_file_sync_options, sizeof(struct cdc_file_sync)};
	ret[n++] =
		(struct table){"schema", cdc_file_schema_options, sizeof(struct cdc_file_schema)};
	ret[n++] = (struct table){"delivery", t.delivery_options, t.delivery_size};
	for (size_t i = 0; i < t.type_n; i++) {
		ret[n++] = (struct table){types[i].name, types[i].options, types[i].size};
		if (types[i].sync_options)
			ret[n++] = (struct table){types[i].name, types[i].sync_options,
						  types[i].sync_size};
	}
	return n;
}

static size_t field_size(const struct cdc_opt *o)
{
	switch (o->type) {
	case CDC_OPT_STR:
		return sizeof(char *);
	case CDC_OPT_UINT:
	case CDC_OPT_SIZE:
	case CDC_OPT_DURATION:
		return sizeof(uint64_t);
	case CDC_OPT_BOOL:
		return sizeof(bool);
	case CDC_OPT_ENUM:
	case CDC_OPT_SET:
		return sizeof(unsigned);
	case CDC_OPT_DURATIONS:
		return sizeof(struct cdc_opt_numbers);
	case CDC_OPT_STRS:
		return sizeof(struct cdc_opt_strs);
	case CDC_OPT_PAIRS:
		return sizeof(struct cdc_opt_pairs);
	case CDC_OPT_GROUP:
	case CDC_OPT_LATER:
		return 0;
	}
	return 0;
}

static size_t count(const char *const *choices)
{
	size_t n = 0;

	while (choices && choices[n])
		n++;
	return n;
}

static bool is_choice(const struct cdc_opt *o, const char *text)
{
	for (size_t i = 0; i < count(o->choices); i++) {
		if (strcmp(o->choices[i], text) == 0)
			return true;
	}
	return false;
}

/* What does not hold, by the option's name. */
#define HOLDS(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fail_msg("%s.%s: %s", t->name, o->name, #cond);                            \
	} while (0)

static void check_default(const struct table *t, const struct cdc_opt *o)
{
	uint64_t v = o->min;
	const char *why = NULL;

	if (!o->def)
		return;
	HOLDS(!(o->flags & (CDC_OPT_REQUIRED | CDC_OPT_SECRET)));
	if (o->type == CDC_OPT_UINT)
		why = cdc_value_uint(o->def, &v);
	else if (o->type == CDC_OPT_SIZE)
		why = cdc_value_size(o->def, &v);
	else if (o->type == CDC_OPT_DURATION)
		why = cdc_value_duration(o->def, &v);
	else if (o->type == CDC_OPT_STR)
		v = strlen(o->def);
	else if (o->choices && o->type != CDC_OPT_SET)
		HOLDS(is_choice(o, o->def));
	HOLDS(!why);
	HOLDS(v >= o->min && (!o->max || v <= o->max));
}

static void check_option(const struct table *t, const struct cdc_opt *o, size_t base)
{
	size_t at = base + o->offset, size = field_size(o);

	for (const char *c = o->name; *c; c++)
		HOLDS(islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_');
	/* The field lies in the struct, and where its type may lie. */
	HOLDS(at + size <= t->size);
	HOLDS(size < sizeof(uint64_t) || at % _Alignof(uint64_t) == 0);
	HOLDS(size != sizeof(unsigned) || at % _Alignof(unsigned) == 0);
	HOLDS(!o->max || o->min <= o->max);
	if (o->type == CDC_OPT_ENUM || o->type == CDC_OPT_SET)
		HOLDS(count(o->choices) >= 1 && count(o->choices) <= 32);
	HOLDS((o->type == CDC_OPT_GROUP) == (o->group != NULL));
	HOLDS(o->type == CDC_OPT_GROUP || (o->help && o->help[0]));
	HOLDS(!(o->flags & CDC_OPT_SECRET) || o->type == CDC_OPT_STR || o->type == CDC_OPT_STRS ||
	      o->type == CDC_OPT_PAIRS);
	HOLDS(!(o->flags & CDC_OPT_HTTP) || o->type == CDC_OPT_STR);
	check_default(t, o);
}

static void check_table(const struct table *t, const struct cdc_opt *options, size_t base)
{
	for (const struct cdc_opt *o = options; o->name; o++) {
		check_option(t, o, base);
		for (const struct cdc_opt *other = options; other < o; other++)
			HOLDS(strcmp(other->name, o->name) != 0);
		if (o->type == CDC_OPT_GROUP)
			check_table(t, o->group, base + o->offset);
	}
}

static void every_table_is_right(void **state)
{
	struct cdc_connection_type types[TYPES_MAX];
	struct table tables[64];
	size_t n = all_tables(types, tables);

	(void)state;
	for (size_t i = 0; i < n; i++)
		check_table(&tables[i], tables[i].options, 0);
}

struct field {
	size_t from, to;
	const char *name;
};

static size_t list_fields(const struct cdc_opt *options, size_t base, struct field *ret, size_t n)
{
	for (const struct cdc_opt *o = options; o->name; o++) {
		if (o->type == CDC_OPT_GROUP)
			n = list_fields(o->group, base + o->offset, ret, n);
		else if (o->type != CDC_OPT_LATER)
			ret[n++] = (struct field){base + o->offset,
						  base + o->offset + field_size(o), o->name};
		assert_true(n < 128);
	}
	return n;
}

static void no_two_options_share_a_field(void **state)
{
	struct cdc_connection_type types[TYPES_MAX];
	struct table tables[64];
	size_t table_n = all_tables(types, tables);

	(void)state;
	for (size_t i = 0; i < table_n; i++) {
		struct field fields[128];
		size_t n = list_fields(tables[i].options, 0, fields, 0);

		for (size_t k = 0; k < n; k++) {
			for (size_t m = 0; m < k; m++) {
				if (fields[k].from < fields[m].to && fields[m].from < fields[k].to)
					fail_msg("%s: %s and %s", tables[i].name, fields[k].name,
						 fields[m].name);
			}
		}
	}
}

/* The keys of the engine and of a sink share one map, and so do the file's own and its sections. */
static void tables_of_one_map_share_no_key(void **state)
{
	struct cdc_connection_type types[TYPES_MAX];
	const struct cdc_config_tables t = config_tables(types);

	(void)state;
	for (size_t i = 0; i < t.type_n; i++) {
		for (const struct cdc_opt *o = types[i].sync_options; o && o->name; o++) {
			for (const struct cdc_opt *k = t.delivery_options; k->name; k++)
				assert_string_not_equal(o->name, k->name);
		}
	}
	for (const struct cdc_opt *o = cdc_file_options; o->name; o++) {
		assert_string_not_equal(o->name, "connections");
		assert_string_not_equal(o->name, "bulk_syncs");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_table_is_right),
		cmocka_unit_test(no_two_options_share_a_field),
		cmocka_unit_test(tables_of_one_map_share_no_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
