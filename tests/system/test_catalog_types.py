"""Cases of types that the random oracle does not reach by itself: types that change, vanish or are odd."""

import json

import checker
import pytest

pytestmark = pytest.mark.sanitized


def fields(rig):
    """[fields] of every accepted record, in source order."""
    records = {record["id"]: record["fields"] for record in rig.receiver.records()}
    return [records[key] for key in sorted(records)]


def with_column(rig, type_name, *ddl, identity=""):
    """A table with one column of the type, published and watched; walpost reads it."""
    for statement in ddl:
        rig.db.sql(statement)
    rig.db.table("t", f"id int PRIMARY KEY, v {type_name}")
    if identity:
        rig.db.sql(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    rig.db.publish("t")
    rig.start()


PAIR = "CREATE TYPE pair AS (a int, b text)"
CHANGES = ["ADD ATTRIBUTE c bool", 'RENAME ATTRIBUTE b TO "B ""b"', "DROP ATTRIBUTE a", "ADD ATTRIBUTE a timestamp",
           "RENAME ATTRIBUTE c TO d", "DROP ATTRIBUTE d, ADD ATTRIBUTE e int[]"]


def test_Y60_a_changed_composite_shows_in_the_next_row(rig):
    with_column(rig, "pair", PAIR)
    rig.db.sql("INSERT INTO t VALUES (1, (1, 'one'))")
    rig.settle()
    for i, change in enumerate(CHANGES, 2):
        rig.db.sql(f"ALTER TYPE pair {change}")
        rig.db.sql(f"INSERT INTO t SELECT {i}, v FROM t WHERE id = 1")
        rig.settle()
    rig.assert_whole()
    assert list(fields(rig)[-1]["v"]) == ['B "b', "a", "e"]
    assert rig.walpost.metric("walpost_source_odd_values_total") == 0


def test_Y60_changed_within_another_type(rig):
    """Nested in a domain, in an array, in a composite; under full identity, so that old rows are written, too."""
    with_column(rig, "outer_type[]", PAIR, "CREATE DOMAIN pair_domain AS pair",
                "CREATE TYPE outer_type AS (x pair_domain[], y int)", identity="FULL")
    value = """ARRAY[ROW(ARRAY[ROW(1, 'a "q" \\ (x),')::pair], 2)::outer_type, NULL, ROW('{}', NULL)::outer_type]"""
    rig.db.sql(f"INSERT INTO t VALUES (1, {value})")
    rig.settle()
    rig.db.sql("ALTER TYPE outer_type ADD ATTRIBUTE z int4range")
    rig.db.sql("ALTER TYPE outer_type RENAME ATTRIBUTE y TO why")
    rig.db.sql("INSERT INTO t SELECT 2, v FROM t")
    rig.db.sql("DELETE FROM t WHERE id = 1")
    rig.assert_whole()
    assert rig.walpost.metric("walpost_source_odd_values_total") == 0


def test_Y60_attributes_added_while_nobody_read(rig):
    with_column(rig, "pair", PAIR)
    rig.walpost.stop()
    rig.db.sql("INSERT INTO t VALUES (1, (1, ''))")
    rig.db.sql("ALTER TYPE pair ADD ATTRIBUTE c int")
    with rig.db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (2, (1, NULL, 3))")
        connection.execute("ALTER TYPE pair ADD ATTRIBUTE d timestamptz")
        connection.execute("INSERT INTO t VALUES (3, (1, NULL, 3, '2020-01-01'))")
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()
    assert rig.walpost.metric("walpost_source_odd_values_total") == 0


def test_Y60_attributes_dropped_while_nobody_read_leave_the_text(rig):
    with_column(rig, "pair", PAIR)
    rig.walpost.stop()
    rig.db.sql("INSERT INTO t VALUES (1, (1, 'one'))")
    rig.db.sql("ALTER TYPE pair DROP ATTRIBUTE a")
    rig.db.sql("INSERT INTO t VALUES (2, ROW('two'))")
    rig.walpost.start(databases=[rig.db])
    rig.settle()
    assert [row["v"] for row in fields(rig)] == ["(1,one)", {"b": "two"}]
    assert rig.walpost.metric("walpost_source_odd_values_total") == 1
    assert len(rig.walpost.events("composite_unknown")) == 1


def test_Y60_composites_without_attributes_and_with_one(rig):
    rig.db.sql("CREATE TYPE no AS ()")
    rig.db.sql("CREATE TYPE one AS (a text)")
    with_column(rig, "no[], w one[]")
    rig.db.sql("""INSERT INTO t VALUES (1, ARRAY[ROW()::no, NULL], ARRAY[ROW(NULL)::one, ROW('')::one, NULL,
                  ROW('()')::one])""")
    rig.assert_whole()


def test_Y60_the_row_of_another_table(rig):
    with_column(rig, "other", "CREATE TABLE other (id int, at timestamptz DEFAULT now(), gone int)",
                "ALTER TABLE other DROP COLUMN gone")
    rig.db.sql("INSERT INTO t VALUES (1, (7, '2020-01-01'))")
    rig.settle()
    rig.db.sql("ALTER TABLE other ADD COLUMN more json")
    rig.db.sql("""INSERT INTO t VALUES (2, (7, NULL, '{"a" : "x\\"y"}'))""")
    rig.assert_whole()


def test_Y59_enum_labels_added_and_renamed(rig):
    with_column(rig, "mood[]", "CREATE TYPE mood AS ENUM ('a', 'b c')")
    rig.db.sql("INSERT INTO t VALUES (1, '{a,\"b c\",NULL}')")
    rig.settle()
    rig.db.sql("ALTER TYPE mood ADD VALUE 'new, \"one\"' BEFORE 'a'")
    rig.db.sql("ALTER TYPE mood RENAME VALUE 'a' TO 'A'")
    rig.db.sql("""INSERT INTO t VALUES (2, ARRAY['new, "one"', 'A']::mood[])""")
    rig.assert_whole()
    assert fields(rig)[1]["v"] == ['new, "one"', "A"]


def test_Y62_domain_over_domain_over_everything(rig):
    with_column(rig, "d3[]", PAIR, "CREATE DOMAIN d1 AS pair", "CREATE DOMAIN d2 AS d1[] CHECK (cardinality(VALUE) < 9)",
                "CREATE DOMAIN d3 AS d2")
    rig.db.sql("INSERT INTO t VALUES (1, ARRAY[ARRAY[ROW(1, 'x,\"y')::pair]::d3, NULL::d3])")
    rig.assert_whole()
    assert fields(rig)[0]["v"] == [[{"a": 1, "b": 'x,"y'}], None]


def test_Y63_hstore_is_an_object(rig):
    if not rig.db.server.sql("SELECT name FROM pg_available_extensions WHERE name = 'hstore'"):
        pytest.skip("this server does not have hstore")
    rig.db.server.sql("CREATE EXTENSION hstore", database=rig.db.name)
    with_column(rig, "hstore, w hstore[]")
    rig.db.sql("""INSERT INTO t VALUES (1, hstore(ARRAY['', 'q"\\', 'NULL', '=>,'], ARRAY['NULL', NULL, '"', 'a, "b"=>"c"']),
                  ARRAY['', 'a=>1', NULL]::hstore[])""")
    rig.assert_whole()
    assert fields(rig)[0]["w"] == [{}, {"a": "1"}, None]


def test_Y67_a_type_with_a_cast_of_its_own_to_json_is_its_text(rig):
    """to_json calls the cast; it is the server's own, so here is the text."""
    with_column(rig, "mood", "CREATE TYPE mood AS ENUM ('a', 'b')",
                "CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS "
                "$$SELECT ('{\"mood\": \"' || enum_out($1)::text || '\"}')::json$$",
                "CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)")
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.wait_arrived(1)
    assert json.loads(rig.db.history()[0].new)["v"] == {"mood": "a"}
    assert fields(rig)[0]["v"] == "a"


def test_Y68_a_type_that_was_dropped_before_its_rows_were_read_is_text(rig):
    with_column(rig, "int", PAIR, "CREATE TYPE mood AS ENUM ('a')")
    rig.walpost.stop()
    rig.db.sql("ALTER TABLE t ADD COLUMN p pair, ADD COLUMN m mood, ADD COLUMN ps pair[]")
    rig.db.sql("INSERT INTO t VALUES (1, 2, (3, 'x'), 'a', ARRAY[(3, 'x')::pair])")
    rig.db.sql("DROP TYPE pair, mood CASCADE")
    rig.db.sql("INSERT INTO t VALUES (2, 3)")
    rig.walpost.start(databases=[rig.db])
    rig.settle()
    assert fields(rig) == [{"id": 1, "v": 2, "p": "(3,x)", "m": "a", "ps": '{"(3,x)"}'}, {"id": 2, "v": 3}]
    assert rig.walpost.metric("walpost_source_unknown_types_total") == 3
    events = rig.walpost.events("type_unknown")
    assert events and all(int(event["type"]) >= 16384 for event in events)


# Type and values, as SQL; what they become is PostgreSQL's to say.
VALUES = {
    "Y01_int8_max": ("int8", ["9223372036854775807", "-9223372036854775808"]),
    "Y02_oid_max": ("oid", ["4294967295"]),
    "Y02_xid_max": ("xid", ["'4294967295'"]),
    "Y02_cid_max": ("cid", ["'4294967295'"]),
    "Y03_xid8_max": ("xid8", ["'18446744073709551615'"]),
    "Y04_numeric_nan": ("numeric", ["'NaN'"]),
    "Y05_numeric_infinity": ("numeric", ["'Infinity'", "'-Infinity'"]),
    "Y06_numeric_keeps_its_scale": ("numeric", ["0.00", "1.50"]),
    "Y07_numeric_1e30": ("numeric", ["1e30"]),
    "Y08_numeric_59_digits": ("numeric", ["12345678901234567890123456789012345678901234567890.123456789"]),
    "Y09_numeric_16383_places": ("numeric", ["-1e-16383"]),
    "Y10_numeric_negative_scale": ("numeric(2,-3)", ["12345"]),
    "Y11_numeric_scale_above_precision": ("numeric(3,5)", [".00123"]),
    "Y12_float8_nan_infinity": ("float8", ["'NaN'", "'Infinity'", "'-Infinity'"]),
    "Y12_float4_nan_infinity": ("float4", ["'NaN'", "'Infinity'", "'-Infinity'"]),
    "Y13_float8_minus_zero": ("float8", ["'-0'"]),
    "Y14_float8_limits": ("float8", ["5e-324", "1.7976931348623157e308"]),
    "Y15_float4_shortest": ("float4", ["0.1"]),
    "Y16_money_min": ("money", ["'-92233720368547758.08'"]),
    "Y17_date_infinity": ("date", ["'infinity'", "'-infinity'"]),
    "Y18_date_bc": ("date", ["'0044-03-15 BC'"]),
    "Y19_date_far": ("date", ["'5874897-12-31'", "'10000-01-01'"]),
    "Y20_timestamp_limits": ("timestamp", ["'294276-12-31 23:59:59.999999'", "'4713-01-01 00:00:00 BC'"]),
    "Y21_timestamp_fraction": ("timestamp", ["'2020-01-01 00:00:00.1'"]),
    "Y22_timestamp_rounded": ("timestamp(0)", ["'2020-01-01 23:59:59.6'"]),
    "Y23_timestamptz": ("timestamptz", ["'2020-06-01 15:30:00.000001+05:30'",
                                        "'1883-11-18 12:00:00 America/New_York'"]),
    "Y24_timestamptz_infinity": ("timestamptz", ["'-infinity'", "'infinity'", "'0001-01-01 00:00:00+00 BC'"]),
    "Y25_time_24": ("time", ["'24:00:00'"]),
    "Y26_timetz_24": ("timetz", ["'24:00:00+15:59:59'"]),
    "Y27_interval_mixed_signs": ("interval", ["'1 year 2 mons -3 days +04:05:06.789'"]),
    "Y28_interval_far": ("interval", ["'-178000000 years'"]),
    "Y29_interval_infinity": ("interval", ["'infinity'", "'-infinity'"]),
    "Y30_bytea": ("bytea", [r"'\x00ff5c27'", "''"]),
    "Y31_uuid_upper_case": ("uuid", ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"]),
    "Y32_json_verbatim": ("json", ["""'{"b" : 1, "a":[1.50 , 1e400, 12345678901234567890], "b":2}'""",
                                   r"""'"\u0000"'"""]),
    "Y33_jsonb_normalised": ("jsonb", ["""'{"n": 1e400, "big": 12345678901234567890.10, "b" : 1, "a":2, "b":1}'"""]),
    "Y34_jsonb_null_and_sql_null": ("jsonb", ["'null'", "NULL"]),
    "Y35_xml_fragment": ("xml", ["'<a/>text<!-- x -->'"]),
    "Y36_text": ("text", [r"E'tab\tline\nback\\slash🎉'", "''"]),
    "Y37_char_is_padded": ("char(5)", ["'ab'"]),
    "Y38_varchar_keeps_spaces": ("varchar(5)", ["'ab   '"]),
    "Y39_char_with_the_high_bit": ('"char"', [r"'\377'", "''"]),
    "Y40_name": ("name", ["'a name'"]),
    "Y41_bit": ("bit(5)", ["B'10101'"]),
    "Y41_bit_of_one": ("bit", ["B'1'"]),
    "Y41_varbit_empty": ("varbit", ["''"]),
    "Y42_inet": ("inet", ["'10.0.0.1/32'", "'192.168.1.5/24'", "'::ffff:1.2.3.4'"]),
    "Y43_cidr": ("cidr", ["'10.0.0.0/8'"]),
    "Y43_macaddr": ("macaddr", ["'08-00-2B-01-02-03'"]),
    "Y43_macaddr8": ("macaddr8", ["'08:00:2b:01:02:03:04:05'"]),
    "Y44_point": ("point", ["'(NaN,Infinity)'"]),
    "Y44_line": ("line", ["'{1,-1,0}'"]),
    "Y44_lseg": ("lseg", ["'[(0,0),(1,1)]'"]),
    "Y44_box": ("box", ["'(0,0),(1,1)'"]),
    "Y44_path": ("path", ["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    "Y44_polygon": ("polygon", ["'((0,0),(1,1),(2,0))'"]),
    "Y44_circle": ("circle", ["'<(1,2),3>'"]),
    "Y45_tsvector": ("tsvector", ["'a fat:2 sat cat:3A'"]),
    "Y45_tsquery": ("tsquery", ["'fat & (rat | !cat:A)'"]),
    "Y46_int4range": ("int4range", ["'[1,5]'", "'empty'"]),
    "Y46_numrange": ("numrange", ["'(1.50,]'"]),
    "Y46_tstzrange": ("tstzrange", ["'[2020-01-01 00:00+00,infinity)'"]),
    "Y47_daterange": ("daterange", ["'[2020-01-01,2020-02-01]'"]),
    "Y48_int4multirange": ("int4multirange", ["'{[1,2],[5,7]}'", "'{}'"]),
    "Y48_tsmultirange": ("tsmultirange", ["'{[2020-01-01,2021-01-01)}'"]),
    "Y49_int_array": ("int[]", ["'{}'", "'{1,NULL,3}'"]),
    "Y50_array_of_empty_text_is_not_empty": ("text[]", ["""'{""}'""", "'{}'"]),
    "Y51_text_array_quoting": ("text[]", [r"""'{"",NULL,"NULL","a,b","q\"\\x"," sp ","{}"}'"""]),
    "Y52_two_dimensions": ("int[]", ["'{{1,2},{3,4}}'"]),
    "Y53_lower_bounds": ("int[]", ["'[0:2]={1,2,3}'", "'[-1:0][2:3]={{1,2},{3,4}}'"]),
    "Y54_box_array": ("box[]", ["'{(1,1),(0,0);(2,2),(1,1)}'"]),
    "Y55_jsonb_array": ("jsonb[]", ["""array['{"a": "x,y"}', 'null', NULL]::jsonb[]"""]),
    "Y56_bytea_array": ("bytea[]", [r"array['\x00ff', '\x']::bytea[]"]),
    "Y57_range_array": ("int4range[]", ["""'{"[1,5)",empty}'"""]),
    "Y57_interval_array": ("interval[]", ["""'{"1 day"}'"""]),
    "Y57_timestamptz_array": ("timestamptz[]", ["""'{"2020-01-01 00:00:00+00",infinity}'"""]),
    "Y58_int2vector": ("int2vector", ["'1 2 3'", "''"]),
    "Y58_oidvector": ("oidvector", ["'1 2 4294967295'"]),
    "Y59_enum": ("mood", ["'b c'"]),
    "Y59_enum_array": ("mood[]", ["""'{a,"b c"}'"""]),
    "Y60_composite": ("pair", [r"""ROW(1, 'a "q", (x)\')""", "ROW(NULL, '')", "ROW(NULL, NULL)", "NULL"]),
    "Y61_composite_array": ("pair[]", ["ARRAY[ROW(1, 'x,')::pair, NULL]"]),
    "Y62_domain": ("whole", ["7"]),
    "Y62_domain_over_domain": ("whole_too", ["8"]),
    "Y62_domain_over_varchar": ("short", ["'ab'"]),
    "Y63_hstore": ("hstore", [r"""'a=>1, q=>"\"x", "b c"=>NULL'""", "''"]),
    "Y64_citext": ("citext", ["'MiXed'"]),
    "Y65_regclass": ("regclass", ["'pg_class'", "'history.change'"]),
    "Y65_regtype": ("regtype", ["'int4'"]),
    "Y66_pg_lsn": ("pg_lsn", ["'16/B374D848'"]),
    "Y66_tid": ("tid", ["'(0,1)'"]),
    "Y66_txid_snapshot": ("txid_snapshot", ["'10:20:10,14,15'"]),
    "Y66_refcursor": ("refcursor", ["'c'"]),
    "Y66_aclitem": ("aclitem", ["'=r/postgres'"]),
    "Y66_jsonpath": ("jsonpath", ["'$.a[*]'"]),
    "Y67_extension_type": ("cube", ["'(1,2),(3,4)'"]),
}

# What came with a later version than the oldest, and what an extension brings.
SINCE = {"Y05_numeric_infinity": 140000, "Y10_numeric_negative_scale": 150000, "Y11_numeric_scale_above_precision": 150000,
         "Y29_interval_infinity": 170000, "Y39_char_with_the_high_bit": 150000, "Y48_int4multirange": 140000,
         "Y48_tsmultirange": 140000}
EXTENSIONS = {"hstore", "citext", "cube"}


def exact(text, column):
    """A member of a row, numbers as text and objects as lists of pairs."""
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: ("object", tuple(pairs)),
                               parse_float=lambda s: ("#", s), parse_int=lambda s: ("#", s))
    return dict(decoder.decode(text)[1])[column]


@pytest.fixture(scope="module")
def written(module_rig):
    """One column per case, every value in a row of its own; {id: [(in the record, in to_json)]}."""
    db = module_rig.db
    there = {row[0] for row in db.server.sql("SELECT name FROM pg_available_extensions")} & EXTENSIONS
    for extension in there:
        db.server.sql(f"CREATE EXTENSION {extension}", database=db.name)
    known = {case: (type_name, values) for case, (type_name, values) in VALUES.items()
             if db.connection.info.server_version >= SINCE.get(case, 0)
             and (type_name not in EXTENSIONS or type_name in there)}
    for statement in ("CREATE TYPE mood AS ENUM ('a', 'b c')", PAIR, "CREATE DOMAIN whole AS int",
                      "CREATE DOMAIN whole_too AS whole", "CREATE DOMAIN short AS varchar(10)"):
        db.sql(statement)
    columns = ", ".join(f'"{case}" {type_name}' for case, (type_name, _) in known.items())
    db.table("t", f"id int PRIMARY KEY, {columns}")
    db.publish("t")
    module_rig.start()
    cases = [(case, value) for case, (_, values) in known.items() for value in values]
    for i, (case, value) in enumerate(cases):
        db.sql(f'INSERT INTO t (id, "{case}") VALUES ({i}, {value})')
    module_rig.settle()
    right = {json.loads(change.new)["id"]: change.new for change in db.history()}
    out = {}
    for request in module_rig.receiver.requests():
        for record, text in checker.split_records(request.body) if request.accepted else ():
            case = cases[record["fields"]["id"]][0]
            start = text.index(',"fields":') + len(',"fields":')
            mine = text[start:json.JSONDecoder().raw_decode(text, start)[1]]
            out.setdefault(case, []).append((exact(mine, case), exact(right[record["fields"]["id"]], case)))
    return out


@pytest.mark.versions
@pytest.mark.parametrize("case", VALUES)
def test(written, case):
    if case not in written:
        pytest.skip("this server does not have it")
    assert len(written[case]) == len(VALUES[case][1])
    for mine, theirs in written[case]:
        assert mine == theirs
