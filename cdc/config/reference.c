#include <string.h>

#include "cdc/config/config.h"
#include "cdc/config/file.h"
#include "cdc/config/options.h"

#define KEY_COLUMN     34 /* the longest key of a table with its group in front */
#define TYPE_COLUMN    9
#define DEFAULT_COLUMN 18
#define HELP_WIDTH     92 /* with its indentation still a line of 100 */

static const char *type_name(enum cdc_opt_type type)
{
	switch (type) {
	case CDC_OPT_STR:
		return "text";
	case CDC_OPT_UINT:
		return "number";
	case CDC_OPT_SIZE:
		return "size";
	case CDC_OPT_DURATION:
		return "duration";
	case CDC_OPT_DURATIONS:
		return "durations";
	case CDC_OPT_BOOL:
		return "bool";
	case CDC_OPT_ENUM:
		return "choice";
	case CDC_OPT_SET:
		return "choices";
	case CDC_OPT_STRS:
		return "texts";
	case CDC_OPT_PAIRS:
		return "pairs";
	case CDC_OPT_GROUP:
		return "group";
	case CDC_OPT_LATER:
		return "-";
	}
	return "";
}

/* A sentence, indented, broken between words. */
static void put_help(FILE *out, const char *help)
{
	while (help && *help) {
		size_t n = strlen(help);

		if (n > HELP_WIDTH) {
			n = HELP_WIDTH;
			while (n > 0 && help[n] != ' ')
				n--;
			if (n == 0)
				n = HELP_WIDTH;
		}
		(void)fprintf(out, "      %.*s\n", (int)n, help);
		help += n;
		while (*help == ' ')
			help++;
	}
}

/* One line of columns, without blanks at its end. */
static void put_row(FILE *out, const char *key, const char *type, const char *def,
		    const char *allowed)
{
	(void)fprintf(out, "  %-*s", KEY_COLUMN, key);
	if (!allowed[0] && !def[0])
		(void)fprintf(out, " %s\n", type);
	else if (!allowed[0])
		(void)fprintf(out, " %-*s %s\n", TYPE_COLUMN, type, def);
	else
		(void)fprintf(out, " %-*s %-*s %s\n", TYPE_COLUMN, type, DEFAULT_COLUMN, def,
			      allowed);
}

static void put_option(FILE *out, const char *prefix, const struct cdc_opt *o)
{
	char key[128], allowed[CDC_ALLOWED_MAX];
	const char *def = o->def ? o->def : "";

	(void)snprintf(key, sizeof(key), "%s%s", prefix, o->name);
	if (o->type == CDC_OPT_LATER) {
		put_row(out, key, "later", def, "");
		put_help(out, o->help);
		put_help(out, o->def ? "Not in this version, but for the value shown."
				     : "Not in this version.");
		return;
	}
	if (o->flags & CDC_OPT_REQUIRED)
		def = "(required)";
	else if (o->def && !o->def[0])
		def = "\"\"";
	put_row(out, key, type_name(o->type), def, cdc_option_allowed(o, allowed));
	put_help(out, o->help);
	if (o->flags & CDC_OPT_SECRET) {
		(void)snprintf(
			key, sizeof(key),
			o->type == CDC_OPT_PAIRS
				? "Secret: a pair may give value_file: PATH instead of value."
				: "Secret: %s_file: PATH reads it from a file.",
			o->name);
		put_help(out, key);
	}
}

static void put_table(FILE *out, const char *prefix, const struct cdc_opt *options)
{
	for (const struct cdc_opt *o = options; o && o->name; o++) {
		char inner[128];

		if (o->type != CDC_OPT_GROUP) {
			put_option(out, prefix, o);
			continue;
		}
		if (o->help || (o->flags & CDC_OPT_REQUIRED))
			put_option(out, prefix, o);
		(void)snprintf(inner, sizeof(inner), "%s%s.", prefix, o->name);
		put_table(out, inner, o->group);
	}
}

static void put_title(FILE *out, const char *title, const char *help)
{
	(void)fprintf(out, "\n%s\n", title);
	put_help(out, help);
	put_row(out, "KEY", "TYPE", "DEFAULT", "ALLOWED");
}

void cdc_config_reference(const struct cdc_config_tables *tables, FILE *out)
{
	char title[128];

	(void)fputs(
		"walpost.yaml: every key\n"
		"\n"
		"Values: a size is digits and B, KiB, MiB, GiB or TiB; a duration is digits and "
		"ms,\n"
		"s, m, h or d; choices, texts and pairs are lists, a pair is {name: ..., value: "
		"...}.\n"
		"${NAME} in a value is replaced by the environment's variable; \"$${\" stands for "
		"\"${\".\n"
		"Relative paths of data_dir and of *_file are relative to the file's folder.\n",
		out);
	put_title(out, "The file", NULL);
	put_table(out, "", cdc_file_options);
	put_option(out, "",
		   &(struct cdc_opt){.name = "connections",
				     .type = CDC_OPT_GROUP,
				     .flags = CDC_OPT_REQUIRED,
				     .help = "Sources and destinations, each under its name: 1 to "
					     "63 letters, digits, _ and -."});
	put_option(out, "",
		   &(struct cdc_opt){.name = "bulk_syncs",
				     .type = CDC_OPT_GROUP,
				     .flags = CDC_OPT_REQUIRED,
				     .help = "What goes where, each under its name, as above."});

	put_title(out, "connections.NAME", NULL);
	put_table(out, "", cdc_file_connection_options);
	put_option(out, "",
		   &(struct cdc_opt){.name = "configuration",
				     .type = CDC_OPT_GROUP,
				     .help = "The keys of the type, below."});
	for (size_t i = 0; i < tables->type_n; i++) {
		const struct cdc_connection_type *t = &tables->types[i];

		(void)snprintf(title, sizeof(title),
			       "connections.NAME.configuration, type %s (%s%s%s)", t->name,
			       t->is_source ? "source" : "", t->is_source && t->is_sink ? ", " : "",
			       t->is_sink ? "destination" : "");
		put_title(out, title, NULL);
		put_table(out, "", t->options);
	}

	put_title(out, "bulk_syncs.NAME", NULL);
	put_table(out, "", cdc_file_sync_options);
	put_option(out, "",
		   &(struct cdc_opt){.name = "schemas",
				     .type = CDC_OPT_STRS,
				     .help = "The tables, as schema.table or as a group of keys, "
					     "below; absent: every table of the publication."});
	put_option(out, "",
		   &(struct cdc_opt){.name = "destination_configuration",
				     .type = CDC_OPT_GROUP,
				     .help = "How to deliver, and the keys of the destination's "
					     "type, below."});
	put_title(out, "bulk_syncs.NAME.schemas[]", NULL);
	put_table(out, "", cdc_file_schema_options);
	put_option(out, "",
		   &(struct cdc_opt){
			   .name = "fields",
			   .type = CDC_OPT_STRS,
			   .help = "The columns that are delivered, as names or as groups of "
				   "keys, below; absent: every column."});
	put_option(out, "",
		   &(struct cdc_opt){.name = "filters",
				     .type = CDC_OPT_STRS,
				     .help = "What a row must meet to be delivered, all of it, as "
					     "groups of keys, below; absent: every row."});
	put_title(out, "bulk_syncs.NAME.schemas[].fields[]", NULL);
	put_table(out, "", cdc_file_field_options);
	put_title(out, "bulk_syncs.NAME.schemas[].filters[]", NULL);
	put_table(out, "", cdc_file_filter_options);
	put_option(
		out, "",
		&(struct cdc_opt){.name = "value",
				  .type = CDC_OPT_STRS,
				  .help = "What the function compares with: a text, a list of two "
					  "for Between, of any number for StringOneOf and "
					  "StringNotOneOf; absent for IsNull, IsNotNull, True and "
					  "False."});
	put_title(out, "bulk_syncs.NAME.destination_configuration", NULL);
	put_table(out, "", tables->delivery_options);
	for (size_t i = 0; i < tables->type_n; i++) {
		const struct cdc_connection_type *t = &tables->types[i];

		if (!t->is_sink || !t->sync_options || !t->sync_options[0].name)
			continue;
		(void)snprintf(title, sizeof(title),
			       "bulk_syncs.NAME.destination_configuration, destination of type %s",
			       t->name);
		put_title(out, title, NULL);
		put_table(out, "", t->sync_options);
	}
}
