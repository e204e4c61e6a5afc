#include "cdc/source/describe.h"

#include <string.h>

#include "cdc/record/scan.h"
#include "cdc/record/value.h"

#define MAX_TYPES_BYTES (16u << 20) /* some 200,000 types and modifiers */
#define MAX_NAME        4096
#define MAX_SQL         (4u << 20) /* 65,535 columns of as many types */

struct type_key {
	uint32_t oid;
	int32_t modifier;
};

_Static_assert(sizeof(struct type_key) == 8, "a key of bytes has no padding");

void cdc_describer_init(struct cdc_describer *d, struct cdc_lookup *lookup)
{
	d->lookup = lookup;
	cdc_text_map_init(&d->types, MAX_TYPES_BYTES);
}

void cdc_describer_clear(struct cdc_describer *d)
{
	cdc_text_map_clear(&d->types);
}

static const char *name_of(const struct cdc_describer *d, const struct pgo_column *c)
{
	const struct type_key key = {.oid = c->type, .modifier = c->modifier};

	return cdc_text_map_get(&d->types, &key, sizeof(key));
}

static enum cdc_code no_memory(struct cdc_err *err)
{
	return cdc_err_set(err, CDC_NOMEM, "out of memory for the description of a table");
}

/* A row of OID, modifier and name. */
static enum cdc_code keep_name(struct cdc_describer *d, const PGresult *result, int row,
			       struct cdc_err *err)
{
	const struct type_key key = {
		.oid = cdc_pgconn_u32(result, row, 0),
		.modifier = (int32_t)cdc_pgconn_u32(result, row, 1),
	};
	const char *name = cdc_pgconn_text(result, row, 2);
	struct cdc_buf text;
	bool is_kept;

	cdc_buf_init(&text, MAX_NAME);
	if (!*name || strncmp(name, "???", 3) == 0) /* what format_type says of an unknown one */
		cdc_buf_puts(&text, "null");
	else
		cdc_value_string(&text, name, strlen(name));
	is_kept = !text.failed &&
		  cdc_text_map_put(&d->types, &key, sizeof(key), (const char *)text.data, text.len);
	cdc_buf_clear(&text);
	return is_kept ? CDC_OK : no_memory(err);
}

/* Appends a list of the OIDs and one of the modifiers of the types that have no name yet. */
static size_t put_unknown(const struct cdc_describer *d, const struct pgo_relation *r,
			  struct cdc_buf *sql)
{
	size_t n = 0;

	cdc_buf_puts(sql, "ARRAY[");
	for (size_t i = 0; i < r->n; i++) {
		if (!name_of(d, &r->columns[i]))
			cdc_buf_printf(sql, "%s%u", n++ ? "," : "", r->columns[i].type);
	}
	cdc_buf_puts(sql, "]::oid[],ARRAY[");
	n = 0;
	for (size_t i = 0; i < r->n; i++) {
		if (!name_of(d, &r->columns[i]))
			cdc_buf_printf(sql, "%s%d", n++ ? "," : "", r->columns[i].modifier);
	}
	cdc_buf_puts(sql, "]::int4[]");
	return n;
}

static enum cdc_code ask_names(struct cdc_describer *d, const struct pgo_relation *r,
			       struct cdc_err *err)
{
	CDC_AUTO(cdc_pgconn_clear_result) PGresult *result = NULL;
	struct cdc_buf sql;
	enum cdc_code rc = CDC_OK;
	size_t n;

	cdc_buf_init(&sql, MAX_SQL);
	cdc_buf_puts(&sql, "SELECT t.o, t.m::int8 & 4294967295, pg_catalog.format_type(t.o, t.m) "
			   "FROM unnest(");
	n = put_unknown(d, r, &sql);
	cdc_buf_puts(&sql, ") AS t (o, m)");
	cdc_buf_putc(&sql, '\0');
	if (sql.failed)
		rc = no_memory(err);
	else if (n)
		rc = cdc_lookup_ask(d->lookup, (const char *)sql.data, "looking up names of types",
				    &result, err);
	cdc_buf_clear(&sql);
	for (int row = 0; !rc && n && row < PQntuples(result); row++)
		rc = keep_name(d, result, row, err);
	return rc;
}

static const char *identity_name(char identity)
{
	switch (identity) {
	case 'f':
		return "full";
	case 'i':
		return "index";
	case 'n':
		return "nothing";
	default:
		return "default";
	}
}

enum cdc_code cdc_describe(struct cdc_describer *d, const struct pgo_relation *r,
			   const struct cdc_column *columns, struct cdc_buf *out,
			   struct cdc_err *err)
{
	enum cdc_code rc = ask_names(d, r, err);

	if (rc)
		return rc;
	cdc_buf_puts(out, "{\"columns\":[");
	for (size_t i = 0; i < r->n; i++) {
		const char *type = name_of(d, &r->columns[i]);

		cdc_buf_puts(out, i ? ",{\"name\":" : "{\"name\":");
		cdc_value_string(out, columns[i].name, strlen(columns[i].name));
		cdc_buf_puts(out, ",\"type\":");
		cdc_buf_puts(out, type ? type : "null");
		cdc_buf_puts(out, columns[i].is_key ? ",\"key\":true}" : ",\"key\":false}");
	}
	cdc_buf_printf(out, "],\"replica_identity\":\"%s\",\"oid\":%u}", identity_name(r->identity),
		       r->relid);
	return out->failed ? no_memory(err) : CDC_OK;
}

/* Is there a member of this name and value? */
static bool has_member(const char *json, const char *name, size_t name_len, const char *value,
		       size_t value_len)
{
	const size_t len = strlen(json);
	struct cdc_member m;
	struct cdc_scan s;

	cdc_scan_begin(&s, json, len, (struct cdc_span){.len = (uint32_t)len});
	while (cdc_scan_next(&s, &m)) {
		if (m.name.len == name_len && memcmp(json + m.name.off, name, name_len) == 0)
			return m.value.len == value_len &&
			       memcmp(json + m.value.off, value, value_len) == 0;
	}
	return false;
}

void cdc_describe_changes(const char *before, const char *after, struct cdc_buf *out)
{
	const size_t len = strlen(before);
	char separator = '{';
	struct cdc_member m;
	struct cdc_scan s;

	cdc_scan_begin(&s, before, len, (struct cdc_span){.len = (uint32_t)len});
	while (cdc_scan_next(&s, &m)) {
		const char *name = before + m.name.off, *value = before + m.value.off;

		if (has_member(after, name, m.name.len, value, m.value.len))
			continue;
		cdc_buf_putc(out, separator);
		cdc_buf_putc(out, '"');
		cdc_buf_put(out, name, m.name.len);
		cdc_buf_puts(out, "\":");
		cdc_buf_put(out, value, m.value.len);
		separator = ',';
	}
	if (separator == '{')
		cdc_buf_putc(out, separator);
	cdc_buf_putc(out, '}');
}
