"""Cases of types that the random oracle does not reach by itself: types that change, vanish or are odd."""

import json

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
