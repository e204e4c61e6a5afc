#!/bin/bash
# Makes tests/unit/types.inc: what PostgreSQL itself says about its types and their JSON.
#
#   tests/unit/make_types_table.sh >tests/unit/types.inc
#
# Starts a server of its own (Debian's postgresql-15) below /tmp, asks it, and removes it.
# Run it as root or as any user; the result is committed, so tests need no server.
set -euo pipefail
bin=/usr/lib/postgresql/15/bin
work=$(mktemp -d /tmp/walpost-types.XXXXXX)
chmod 755 "$work"
as=()
if ((EUID == 0)); then
	as=(setpriv --reuid postgres --regid postgres --init-groups)
	chown postgres: "$work"
fi
cd "$work"
trap '"${as[@]}" "$bin/pg_ctl" -s -D "$work/data" -m immediate stop || true; rm -rf "$work"' EXIT
"${as[@]}" "$bin/initdb" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >initdb.log
"${as[@]}" "$bin/pg_ctl" -s -w -D data -l server.log -o "-k $work -c listen_addresses= -c fsync=off" start

"${as[@]}" "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$work" -U postgres postgres <<'SQL'
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET lc_monetary = 'C';

-- The text as a string literal of C.
CREATE FUNCTION pg_temp.c(t text) RETURNS text LANGUAGE sql AS $$
	SELECT '"' || replace(replace(replace(replace(replace(replace(replace(replace(replace(t, '\', '\\'), '"', '\"'),
		E'\n', '\n'), E'\r', '\r'), E'\t', '\t'), E'\b', '\b'), E'\f', '\f'), E'\x01', '\001'),
		E'\x7f', '\177') || '"'
$$;

-- The text that the type's output function makes, and to_json of the same value.
CREATE FUNCTION pg_temp.row_of(type text, literal text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
	EXECUTE format('SELECT format(''VALUE(%%s, %%s, %%s)'', %s::regtype::oid, pg_temp.c(format(''%%s'', v)),
			pg_temp.c(to_json(v)::text)) FROM (SELECT %L::%s AS v) x', quote_literal(type), literal, type)
		INTO line;
	RETURN line || ' /* ' || type || ' */';
END $$;

SELECT '/* Made by tests/unit/make_types_table.sh from PostgreSQL ' || current_setting('server_version')
	|| ' (UTC, ISO dates, hex bytea). */';
SELECT '/* clang-format off */';

-- Base types, ranges and multiranges, and arrays of these, by what json.c would do with them.
SELECT format('TYPE(%s, %s, ''%s'', %s) /* %s */', t.oid,
	CASE WHEN t.typsubscript <> 0 AND t.typsubscript IN ('array_subscript_handler'::regproc)
			THEN 'CDC_KIND_ARRAY'
		WHEN t.typname IN ('int2', 'int4', 'int8', 'float4', 'float8', 'numeric') THEN 'CDC_KIND_NUMBER'
		WHEN t.typname = 'bool' THEN 'CDC_KIND_BOOL'
		WHEN t.typname IN ('json', 'jsonb') THEN 'CDC_KIND_JSON'
		WHEN t.typname = 'timestamp' THEN 'CDC_KIND_TIMESTAMP'
		WHEN t.typname = 'timestamptz' THEN 'CDC_KIND_TIMESTAMPTZ'
		ELSE 'CDC_KIND_TEXT' END,
	CASE WHEN t.typname IN ('int2vector', 'oidvector') THEN ' '
		WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN t.typdelim ELSE '0' END,
	CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN t.typelem ELSE 0 END, t.typname)
FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typsubscript = 'array_subscript_handler'::regproc
WHERE t.oid < 10000 AND coalesce(e.typtype, t.typtype) IN ('b', 'r', 'm') AND t.typtype <> 'p'
ORDER BY t.oid;

SELECT pg_temp.row_of(type, literal) FROM (VALUES
	('bool', 'true'), ('bool', 'false'),
	('int2', '-32768'), ('int4', '2147483647'), ('int8', '-9223372036854775808'), ('int8', '9007199254740993'),
	('numeric', '0'), ('numeric', '-0.00'), ('numeric', '1.50'), ('numeric', '123456789012345678901234567890.123456789'),
	('numeric', '1e40'), ('numeric', '0.0000000000000000000001'),
	('numeric', 'NaN'), ('numeric', 'Infinity'), ('numeric', '-Infinity'),
	('float4', '1.1'), ('float4', '1e-30'), ('float4', '-0'), ('float4', 'NaN'),
	('float8', '0.1'), ('float8', '1e300'), ('float8', '5e-324'), ('float8', '123456789.123'),
	('float8', 'NaN'), ('float8', 'Infinity'), ('float8', '-Infinity'),
	('money', '1234.5'), ('money', '-0.01'), ('oid', '4294967295'),
	('text', ''), ('text', 'plain'), ('text', 'say "hi" \ and / and '''), ('text', E'a\tb\nc\rd\be\ff\x01g\x7f'),
	('text', 'žluťoučký kůň 日本 😀'), ('text', 'NULL'), ('text', 'sixteen bytes...""sixteen bytes...'),
	('varchar', 'x'), ('char(5)', 'ab'), ('"char"', 'c'), ('name', 'n'),
	('bytea', '\x00ff10'), ('bytea', ''),
	('date', '2020-02-29'), ('date', '0044-03-15 BC'), ('date', 'infinity'), ('date', '10000-01-01'),
	('time', '24:00'), ('time', '01:02:03.000004'), ('timetz', '01:02:03+05:30'),
	('timestamp', '2020-01-02 03:04:05.6'), ('timestamp', '0044-03-15 12:00 BC'), ('timestamp', 'infinity'),
	('timestamp', '-infinity'), ('timestamp', '294276-12-31 23:59:59.999999'),
	('timestamptz', '2020-01-02 03:04:05.000001+02'), ('timestamptz', '0044-03-15 12:00+00 BC'),
	('timestamptz', 'infinity'), ('timestamptz', '10000-01-01 00:00+00'),
	('interval', '1 year 2 mons 3 days 04:05:06.7'), ('interval', '-1 day'),
	('uuid', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
	('json', '{"b": 1, "b": 2,  "a": 1.10 }'), ('json', ' null '), ('json', '[1e400]'), ('json', E'[1,\n 2]'),
	('jsonb', '{"b": 1, "a": [1.10, null, "x\u00e9"]}'), ('jsonb', '"s"'),
	('inet', '::1/64'), ('cidr', '10.0.0.0/8'), ('macaddr', '08:00:2b:01:02:03'),
	('point', '(1,2.5)'), ('box', '(1,2),(0,0)'), ('path', '[(0,0),(1,1)]'), ('circle', '<(0,0),1>'),
	('bit(3)', '101'), ('varbit', '1'), ('tsvector', 'a:1 ''b c'':2'), ('tsquery', 'a & b'),
	('xml', '<a b="c">d</a>'), ('pg_lsn', '16/B374D848'), ('tid', '(0,1)'), ('xid8', '18446744073709551615'),
	('int4range', '[1,5)'), ('tstzrange', '[2020-01-01,)'), ('int4multirange', '{[1,2),[4,5)}'),
	('regclass', 'pg_class'), ('jsonpath', '$.a[*] ? (@ > 1)'),
	('int2vector', '1 2 3'), ('int2vector', ''), ('oidvector', '1 4294967295'),
	('int4[]', '{}'), ('int4[]', '{1,NULL,-3}'), ('int4[]', '{{1,2},{3,4}}'), ('int4[]', '[0:1]={5,6}'),
	('int4[]', '[-1:0][3:4]={{1,2},{3,NULL}}'), ('int4[]', '{{{{{{1}}}}}}'),
	('int8[]', '{9007199254740993}'), ('numeric[]', '{1.50,NaN,Infinity,NULL}'), ('float8[]', '{0.1,NaN,-Infinity}'),
	('bool[]', '{t,f,NULL}'),
	('text[]', '{}'), ('text[]', '{a,"b c",NULL,"NULL","null",""}'), ('text[]', '{"a\"b","c\\d","{x}","e,f","[1]"}'),
	('text[]', E'{"a\tb\nc","é"}'), ('text[]', '{{"x y",z},{NULL,"\"\""}}'),
	('varchar[]', '{x,"y z"}'), ('"char"[]', '{a}'), ('bytea[]', '{"\\x00ff","\\x"}'),
	('date[]', '{2020-02-29,infinity,NULL}'), ('timestamp[]', '{"2020-01-02 03:04:05",infinity}'),
	('timestamptz[]', '{"2020-01-02 03:04:05.6+02",NULL,"0044-03-15 12:00+00 BC"}'),
	('time[]', '{01:02}'), ('interval[]', '{"1 day 02:00"}'), ('uuid[]', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'),
	('json[]', '{"{\"a\": 1.10}",null,"[1, 2]","\"s\\\"t\""}'), ('jsonb[]', '{"{\"b\": \"x,y\"}","5","null",NULL}'),
	('box[]', '{(1,2),(0,0);(3,4),(1,1)}'), ('point[]', '{"(1,2)","(3,4)"}'), ('int4range[]', '{"[1,5)",empty}'),
	('inet[]', '{::1,10.0.0.1/8}'), ('money[]', '{1.00,"1,000.00"}'), ('oid[]', '{1,2}'), ('pg_lsn[]', '{16/B3}'),
	('int2vector[]', '{"1 2","3"}'), ('oidvector[]', '{"1 2",NULL}')
) AS v(type, literal);
SQL
