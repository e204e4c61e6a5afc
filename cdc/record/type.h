/*
 * type.h - how a PostgreSQL type's text becomes a JSON value.
 *
 * The rule is promise 6: the value equals what to_json(row) gives in a UTC
 * session.  Which rule a type follows is decided once, when a Relation message
 * arrives; a type nobody knows is TEXT.
 * Source of the rules: src/backend/utils/adt/json.c, datum_to_json.
 *
 * Threads: constant after they are made.
 * Layer: record.
 */
#ifndef CDC_RECORD_TYPE_H
#define CDC_RECORD_TYPE_H

#include <stdint.h>

enum cdc_kind {
	CDC_KIND_TEXT,        /* the text as a JSON string; date, oid and money included */
	CDC_KIND_NUMBER,      /* digits as they are; NaN and Infinity as strings */
	CDC_KIND_BOOL,        /* t, f */
	CDC_KIND_JSON,        /* json, jsonb: verbatim */
	CDC_KIND_TIMESTAMP,   /* "2020-01-02 03:04:05.6 BC" with T in place of the space */
	CDC_KIND_TIMESTAMPTZ, /* the same, and +00 becomes +00:00 */
	CDC_KIND_ARRAY,       /* of elem */
};

/* The delimiter of int2vector and oidvector: "1 2 3", without braces or quotes. */
#define CDC_DELIM_VECTOR ' '

struct cdc_type {
	enum cdc_kind kind;
	char delim; /* ARRAY: between elements; ',' for all core types but box (';') */
	const struct cdc_type *elem; /* ARRAY: of its elements.  Itself an array only where an
					element is one: of a domain over an array, of a vector */
};

/* The built-in type with this OID (pg_type.dat), arrays included, or NULL: look it up in the
 * catalog. */
const struct cdc_type *cdc_type_builtin(uint32_t oid);

/* The constant scalar type of a kind, for types found in the catalog (domains, enums); of TEXT when
 * the kind is not a scalar. */
const struct cdc_type *cdc_type_scalar(enum cdc_kind kind);

#endif
