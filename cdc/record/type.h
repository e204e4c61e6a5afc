/*
 * type.h - how a PostgreSQL type's text becomes a JSON value.
 *
 * The rule is promise 6: the value equals what to_json(row) gives in a UTC
 * session.  Which rule a type follows is decided once, when a Relation message
 * arrives; a type nobody knows is TEXT.
 * Source of the rules: src/backend/utils/adt/json.c, json_categorize_type and
 * datum_to_json.
 *
 * One thing to_json does cannot be done outside the server: it calls a type's own
 * cast to json, a function of an extension or of the database's owner.  hstore's
 * is known and done here; any other type with such a cast is TEXT, too.
 *
 * Threads: constant after they are made, but for the form of a composite type,
 * which its owner may exchange between two values.
 * Layer: record.
 */
#ifndef CDC_RECORD_TYPE_H
#define CDC_RECORD_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cdc_kind {
	CDC_KIND_TEXT,        /* the text as a JSON string; date, oid, enums and ranges included */
	CDC_KIND_NUMBER,      /* digits as they are; NaN and Infinity as strings */
	CDC_KIND_BOOL,        /* t, f */
	CDC_KIND_JSON,        /* json, jsonb: verbatim */
	CDC_KIND_TIMESTAMP,   /* "2020-01-02 03:04:05.6 BC" with T in place of the space */
	CDC_KIND_TIMESTAMPTZ, /* the same, and +00 becomes +00:00 */
	CDC_KIND_HSTORE,      /* an object of strings and nulls */
	CDC_KIND_ARRAY,       /* of elem */
	CDC_KIND_COMPOSITE,   /* an object with the attributes of composite */
};

/* The delimiter of int2vector and oidvector: "1 2 3", without braces or quotes. */
#define CDC_DELIM_VECTOR ' '

struct cdc_composite;

struct cdc_type {
	enum cdc_kind kind;
	char delim; /* ARRAY: between elements; ',' for all core types but box (';') */
	const struct cdc_type *elem;     /* ARRAY: of its elements.  Itself an array only where an
					    element is one: of a domain over an array, of a vector */
	struct cdc_composite *composite; /* COMPOSITE; outlives the type */
};

struct cdc_attribute {
	const char *member; /* `"name":` as JSON */
	size_t member_len;
	const struct cdc_type *type;
};

/* The attributes that a composite type has, or had at some time. */
struct cdc_form {
	const struct cdc_form *older; /* what it was before that; NULL: not known */
	/* No attribute was ever dropped, so that a value with fewer has the first of these. */
	bool only_grew;
	size_t n;
	struct cdc_attribute attributes[];
};

struct cdc_composite {
	const struct cdc_form *form; /* the newest */
	uint64_t *odd; /* counts the values that are of no known form; outlives the composite */
};

/* The built-in type with this OID (pg_type.dat), arrays included, or NULL: look it up in the
 * catalog. */
const struct cdc_type *cdc_type_builtin(uint32_t oid);

/* The constant scalar type of a kind, for types found in the catalog (domains, enums); of TEXT when
 * the kind is not a scalar. */
const struct cdc_type *cdc_type_scalar(enum cdc_kind kind);

#endif
