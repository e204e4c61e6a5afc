#include "cdc/record/type.h"

#include <stddef.h>

/* Every form that a built-in type can have. */
enum form {
	TEXT,
	NUMBER,
	BOOL,
	JSON,
	TIMESTAMP,
	TIMESTAMPTZ,
	HSTORE,
	TEXT_ARRAY,
	NUMBER_ARRAY,
	BOOL_ARRAY,
	JSON_ARRAY,
	TIMESTAMP_ARRAY,
	TIMESTAMPTZ_ARRAY,
	BOX_ARRAY,
	NUMBER_VECTOR,
	TEXT_VECTOR,
	NUMBER_VECTOR_ARRAY,
	TEXT_VECTOR_ARRAY,
};

#define ARRAY_OF(form, between)                                                                    \
	{                                                                                          \
		.kind = CDC_KIND_ARRAY, .delim = between, .elem = &forms[form]                     \
	}

static const struct cdc_type forms[] = {
	[TEXT] = {.kind = CDC_KIND_TEXT},
	[NUMBER] = {.kind = CDC_KIND_NUMBER},
	[BOOL] = {.kind = CDC_KIND_BOOL},
	[JSON] = {.kind = CDC_KIND_JSON},
	[TIMESTAMP] = {.kind = CDC_KIND_TIMESTAMP},
	[TIMESTAMPTZ] = {.kind = CDC_KIND_TIMESTAMPTZ},
	[HSTORE] = {.kind = CDC_KIND_HSTORE},
	[TEXT_ARRAY] = ARRAY_OF(TEXT, ','),
	[NUMBER_ARRAY] = ARRAY_OF(NUMBER, ','),
	[BOOL_ARRAY] = ARRAY_OF(BOOL, ','),
	[JSON_ARRAY] = ARRAY_OF(JSON, ','),
	[TIMESTAMP_ARRAY] = ARRAY_OF(TIMESTAMP, ','),
	[TIMESTAMPTZ_ARRAY] = ARRAY_OF(TIMESTAMPTZ, ','),
	[BOX_ARRAY] = ARRAY_OF(TEXT, ';'),
	[NUMBER_VECTOR] = ARRAY_OF(NUMBER, CDC_DELIM_VECTOR),
	[TEXT_VECTOR] = ARRAY_OF(TEXT, CDC_DELIM_VECTOR),
	[NUMBER_VECTOR_ARRAY] = ARRAY_OF(NUMBER_VECTOR, ','),
	[TEXT_VECTOR_ARRAY] = ARRAY_OF(TEXT_VECTOR, ','),
};

/*
 * By rising OID; what pg_type of PostgreSQL 15 holds of base types, ranges and
 * multiranges, and their arrays.  13 has no multiranges, 18 adds none of these;
 * an OID once given is never given again.
 */
static const struct {
	uint16_t oid;
	uint16_t form;
} builtins[] = {
	{16, BOOL},                  /* bool */
	{17, TEXT},                  /* bytea */
	{18, TEXT},                  /* char */
	{19, TEXT},                  /* name */
	{20, NUMBER},                /* int8 */
	{21, NUMBER},                /* int2 */
	{22, NUMBER_VECTOR},         /* int2vector */
	{23, NUMBER},                /* int4 */
	{24, TEXT},                  /* regproc */
	{25, TEXT},                  /* text */
	{26, TEXT},                  /* oid */
	{27, TEXT},                  /* tid */
	{28, TEXT},                  /* xid */
	{29, TEXT},                  /* cid */
	{30, TEXT_VECTOR},           /* oidvector */
	{114, JSON},                 /* json */
	{142, TEXT},                 /* xml */
	{143, TEXT_ARRAY},           /* xml[] */
	{194, TEXT},                 /* pg_node_tree */
	{199, JSON_ARRAY},           /* json[] */
	{271, TEXT_ARRAY},           /* xid8[] */
	{600, TEXT},                 /* point */
	{601, TEXT},                 /* lseg */
	{602, TEXT},                 /* path */
	{603, TEXT},                 /* box */
	{604, TEXT},                 /* polygon */
	{628, TEXT},                 /* line */
	{629, TEXT_ARRAY},           /* line[] */
	{650, TEXT},                 /* cidr */
	{651, TEXT_ARRAY},           /* cidr[] */
	{700, NUMBER},               /* float4 */
	{701, NUMBER},               /* float8 */
	{718, TEXT},                 /* circle */
	{719, TEXT_ARRAY},           /* circle[] */
	{774, TEXT},                 /* macaddr8 */
	{775, TEXT_ARRAY},           /* macaddr8[] */
	{790, TEXT},                 /* money */
	{791, TEXT_ARRAY},           /* money[] */
	{829, TEXT},                 /* macaddr */
	{869, TEXT},                 /* inet */
	{1000, BOOL_ARRAY},          /* bool[] */
	{1001, TEXT_ARRAY},          /* bytea[] */
	{1002, TEXT_ARRAY},          /* char[] */
	{1003, TEXT_ARRAY},          /* name[] */
	{1005, NUMBER_ARRAY},        /* int2[] */
	{1006, NUMBER_VECTOR_ARRAY}, /* int2vector[] */
	{1007, NUMBER_ARRAY},        /* int4[] */
	{1008, TEXT_ARRAY},          /* regproc[] */
	{1009, TEXT_ARRAY},          /* text[] */
	{1010, TEXT_ARRAY},          /* tid[] */
	{1011, TEXT_ARRAY},          /* xid[] */
	{1012, TEXT_ARRAY},          /* cid[] */
	{1013, TEXT_VECTOR_ARRAY},   /* oidvector[] */
	{1014, TEXT_ARRAY},          /* bpchar[] */
	{1015, TEXT_ARRAY},          /* varchar[] */
	{1016, NUMBER_ARRAY},        /* int8[] */
	{1017, TEXT_ARRAY},          /* point[] */
	{1018, TEXT_ARRAY},          /* lseg[] */
	{1019, TEXT_ARRAY},          /* path[] */
	{1020, BOX_ARRAY},           /* box[] */
	{1021, NUMBER_ARRAY},        /* float4[] */
	{1022, NUMBER_ARRAY},        /* float8[] */
	{1027, TEXT_ARRAY},          /* polygon[] */
	{1028, TEXT_ARRAY},          /* oid[] */
	{1033, TEXT},                /* aclitem */
	{1034, TEXT_ARRAY},          /* aclitem[] */
	{1040, TEXT_ARRAY},          /* macaddr[] */
	{1041, TEXT_ARRAY},          /* inet[] */
	{1042, TEXT},                /* bpchar */
	{1043, TEXT},                /* varchar */
	{1082, TEXT},                /* date */
	{1083, TEXT},                /* time */
	{1114, TIMESTAMP},           /* timestamp */
	{1115, TIMESTAMP_ARRAY},     /* timestamp[] */
	{1182, TEXT_ARRAY},          /* date[] */
	{1183, TEXT_ARRAY},          /* time[] */
	{1184, TIMESTAMPTZ},         /* timestamptz */
	{1185, TIMESTAMPTZ_ARRAY},   /* timestamptz[] */
	{1186, TEXT},                /* interval */
	{1187, TEXT_ARRAY},          /* interval[] */
	{1231, NUMBER_ARRAY},        /* numeric[] */
	{1263, TEXT_ARRAY},          /* cstring[] */
	{1266, TEXT},                /* timetz */
	{1270, TEXT_ARRAY},          /* timetz[] */
	{1560, TEXT},                /* bit */
	{1561, TEXT_ARRAY},          /* bit[] */
	{1562, TEXT},                /* varbit */
	{1563, TEXT_ARRAY},          /* varbit[] */
	{1700, NUMBER},              /* numeric */
	{1790, TEXT},                /* refcursor */
	{2201, TEXT_ARRAY},          /* refcursor[] */
	{2202, TEXT},                /* regprocedure */
	{2203, TEXT},                /* regoper */
	{2204, TEXT},                /* regoperator */
	{2205, TEXT},                /* regclass */
	{2206, TEXT},                /* regtype */
	{2207, TEXT_ARRAY},          /* regprocedure[] */
	{2208, TEXT_ARRAY},          /* regoper[] */
	{2209, TEXT_ARRAY},          /* regoperator[] */
	{2210, TEXT_ARRAY},          /* regclass[] */
	{2211, TEXT_ARRAY},          /* regtype[] */
	{2949, TEXT_ARRAY},          /* txid_snapshot[] */
	{2950, TEXT},                /* uuid */
	{2951, TEXT_ARRAY},          /* uuid[] */
	{2970, TEXT},                /* txid_snapshot */
	{3220, TEXT},                /* pg_lsn */
	{3221, TEXT_ARRAY},          /* pg_lsn[] */
	{3361, TEXT},                /* pg_ndistinct */
	{3402, TEXT},                /* pg_dependencies */
	{3614, TEXT},                /* tsvector */
	{3615, TEXT},                /* tsquery */
	{3642, TEXT},                /* gtsvector */
	{3643, TEXT_ARRAY},          /* tsvector[] */
	{3644, TEXT_ARRAY},          /* gtsvector[] */
	{3645, TEXT_ARRAY},          /* tsquery[] */
	{3734, TEXT},                /* regconfig */
	{3735, TEXT_ARRAY},          /* regconfig[] */
	{3769, TEXT},                /* regdictionary */
	{3770, TEXT_ARRAY},          /* regdictionary[] */
	{3802, JSON},                /* jsonb */
	{3807, JSON_ARRAY},          /* jsonb[] */
	{3904, TEXT},                /* int4range */
	{3905, TEXT_ARRAY},          /* int4range[] */
	{3906, TEXT},                /* numrange */
	{3907, TEXT_ARRAY},          /* numrange[] */
	{3908, TEXT},                /* tsrange */
	{3909, TEXT_ARRAY},          /* tsrange[] */
	{3910, TEXT},                /* tstzrange */
	{3911, TEXT_ARRAY},          /* tstzrange[] */
	{3912, TEXT},                /* daterange */
	{3913, TEXT_ARRAY},          /* daterange[] */
	{3926, TEXT},                /* int8range */
	{3927, TEXT_ARRAY},          /* int8range[] */
	{4072, TEXT},                /* jsonpath */
	{4073, TEXT_ARRAY},          /* jsonpath[] */
	{4089, TEXT},                /* regnamespace */
	{4090, TEXT_ARRAY},          /* regnamespace[] */
	{4096, TEXT},                /* regrole */
	{4097, TEXT_ARRAY},          /* regrole[] */
	{4191, TEXT},                /* regcollation */
	{4192, TEXT_ARRAY},          /* regcollation[] */
	{4451, TEXT},                /* int4multirange */
	{4532, TEXT},                /* nummultirange */
	{4533, TEXT},                /* tsmultirange */
	{4534, TEXT},                /* tstzmultirange */
	{4535, TEXT},                /* datemultirange */
	{4536, TEXT},                /* int8multirange */
	{4600, TEXT},                /* pg_brin_bloom_summary */
	{4601, TEXT},                /* pg_brin_minmax_multi_summary */
	{5017, TEXT},                /* pg_mcv_list */
	{5038, TEXT},                /* pg_snapshot */
	{5039, TEXT_ARRAY},          /* pg_snapshot[] */
	{5069, TEXT},                /* xid8 */
	{6150, TEXT_ARRAY},          /* int4multirange[] */
	{6151, TEXT_ARRAY},          /* nummultirange[] */
	{6152, TEXT_ARRAY},          /* tsmultirange[] */
	{6153, TEXT_ARRAY},          /* tstzmultirange[] */
	{6155, TEXT_ARRAY},          /* datemultirange[] */
	{6157, TEXT_ARRAY},          /* int8multirange[] */
};

const struct cdc_type *cdc_type_builtin(uint32_t oid)
{
	size_t low = 0, high = sizeof(builtins) / sizeof(*builtins);

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (builtins[middle].oid == oid)
			return &forms[builtins[middle].form];
		if (builtins[middle].oid < oid)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const struct cdc_type *cdc_type_scalar(enum cdc_kind kind)
{
	switch (kind) {
	case CDC_KIND_NUMBER:
		return &forms[NUMBER];
	case CDC_KIND_BOOL:
		return &forms[BOOL];
	case CDC_KIND_JSON:
		return &forms[JSON];
	case CDC_KIND_TIMESTAMP:
		return &forms[TIMESTAMP];
	case CDC_KIND_TIMESTAMPTZ:
		return &forms[TIMESTAMPTZ];
	case CDC_KIND_HSTORE:
		return &forms[HSTORE];
	case CDC_KIND_TEXT:
	case CDC_KIND_ARRAY:
	case CDC_KIND_COMPOSITE: /* not a scalar: its text, as for every type nobody knows */
		break;
	}
	return &forms[TEXT];
}
