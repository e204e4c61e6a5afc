"""Every operation arrives as the record that is promised; PostgreSQL's to_json is the oracle."""

import json
import re
import time
import urllib.parse

import checker
import pytest
import xxhash

pytestmark = pytest.mark.sanitized


def raw_records(receiver):
    """[(object, exact text)] of accepted records, in order of arrival."""
    return [pair for request in receiver.requests() if request.accepted and request.body
            for pair in checker.split_records(request.body)]


def exact_fields(text):
    """The bytes of `fields` inside a record's text."""
    start = text.index(',"fields":') + len(',"fields":')
    return text[start:json.JSONDecoder().raw_decode(text, start)[1]]


@pytest.mark.versions
def test_insert_update_delete_truncate(rig):
    rig.db.table("orders", "id int PRIMARY KEY, v text, n numeric(10,2)")
    rig.db.publish("orders")
    rig.start()
    rig.db.sql("INSERT INTO orders VALUES (1, 'a', 1.5), (2, NULL, NULL)")
    rig.db.sql("UPDATE orders SET v = 'b' WHERE id = 1")
    rig.db.sql("DELETE FROM orders WHERE id = 2")
    rig.db.sql("TRUNCATE orders")
    rig.assert_whole()
    by_operation = {}
    for record in rig.receiver.records():
        by_operation.setdefault(record["operation"], []).append(record)
    assert {k: len(v) for k, v in by_operation.items()} == {
        "insert": 2, "update": 1, "delete": 1, "truncate": 1}
    insert = [r for r in by_operation["insert"] if r["key"] == {"id": 1}][0]
    assert insert["schema"] == "public.orders"
    assert insert["fields"] == {"id": 1, "v": "a", "n": "1.50"}  # the checker's reader keeps digits
    assert by_operation["update"][0]["fields"]["v"] == "b"
    assert by_operation["delete"][0]["key"] == {"id": 2}
    assert by_operation["truncate"][0]["key"] is None
    assert by_operation["truncate"][0]["fields"] is None


@pytest.mark.versions
def test_the_parts_of_a_record(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    before = rig.db.wal_end()
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 3) g")
    rig.db.sql("UPDATE t SET v = 'y' WHERE id = 1")
    rig.assert_whole()
    end = rig.db.wal_end()
    records = sorted(raw_records(rig.receiver), key=lambda pair: pair[0]["id"])
    for obj, text in records:
        names = [name for name in obj if name not in ("changes", "unchanged")]
        assert names == ["id", "operation", "schema", "key", "fields", "position", "commit", "hash"]
        assert "unchanged" not in obj, "left out when there is none"
        epoch, lsn, ordinal, part = obj["id"].split("-")
        assert (len(epoch), len(lsn), len(ordinal), len(part)) == (8, 16, 8, 4)
        assert epoch[2:] == "000001" and epoch[:2] != "00"
        high, low = obj["commit"]["lsn"].split("/")
        assert int(high, 16) << 32 | int(low, 16) == int(lsn, 16)
        assert before <= int(lsn, 16) <= end
        position_high, position_low = obj["position"].split("/")
        position = int(position_high, 16) << 32 | int(position_low, 16)
        assert before <= position < int(lsn, 16)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", obj["commit"]["time"])
        assert obj["commit"]["time"][:13] in (time.strftime("%Y-%m-%dT%H", time.gmtime()),
                                              time.strftime("%Y-%m-%dT%H",
                                                            time.gmtime(time.time() - 3600)))
        assert obj["hash"] == xxhash.xxh3_64_hexdigest(exact_fields(text).encode())
    assert [int(obj["id"].split("-")[2], 16) for obj, _ in records] == [1, 2, 3, 1]
    assert {obj["id"].split("-")[3] for obj, _ in records} == {"0001"}


def test_the_envelope_and_its_headers(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    request = [r for r in rig.receiver.requests() if r.body][0]
    body = json.loads(request.body)
    assert body["event"] == "sync.records"
    assert body["object"]["name"] == "main"
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                        body["object"]["id"])
    assert body["object"]["metadata"] in ({}, None)
    assert request.request_line == "POST /hook HTTP/1.1"
    headers = request.headers
    assert headers["content-type"].startswith("application/json")
    assert int(headers["content-length"]) == len(request.body)
    assert "authorization" not in headers
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
                        headers["polytomic-signature-timestamp"])


def test_the_bare_array(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(body="records")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    rig.assert_whole()
    for request in rig.receiver.requests():
        if request.body:
            assert isinstance(json.loads(request.body), list)


def test_batch_size_and_bytes_are_upper_bounds(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(batch_size=7, batch_bytes="4KiB")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', g) FROM generate_series(1, 500) g")
    rig.db.sql("INSERT INTO t VALUES (1000, repeat('y', 20000))")
    rig.assert_whole()
    sizes = []
    for request in rig.receiver.requests():
        if request.body:
            records = checker.split_records(request.body)
            sizes.append(len(records))
            assert len(records) == 1 or sum(len(text) for _, text in records) <= 4096
    assert 1 < max(sizes) <= 7


@pytest.mark.versions
def test_a_changed_key_makes_two_records(rig):
    rig.db.table("t", "a int, b text, v text, PRIMARY KEY (a, b)", key=("a", "b"))
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'x', 'v')")
    rig.db.sql("UPDATE t SET b = 'y', v = 'w' WHERE a = 1")
    rig.assert_whole()
    records = sorted(rig.receiver.records(), key=lambda r: r["id"])
    assert [(r["operation"], r["key"]) for r in records] == [
        ("insert", {"a": 1, "b": "x"}), ("delete", {"a": 1, "b": "x"}),
        ("update", {"a": 1, "b": "y"})]
    assert records[1]["id"][:-4] == records[2]["id"][:-4]
    assert [r["id"][-4:] for r in records] == ["0001", "0001", "0002"]
    assert records[2]["changes"]["b"] == "x"


@pytest.mark.versions
def test_replica_identity_full_gives_the_old_row(rig):
    rig.db.table("t", "id int PRIMARY KEY, v text, n int, w text")
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a', 1, NULL)")
    rig.db.sql("UPDATE t SET v = 'b', w = 'new'")
    rig.db.sql("UPDATE t SET n = 1")
    rig.db.sql("UPDATE t SET id = 2")
    rig.db.sql("DELETE FROM t")
    rig.assert_whole()
    records = sorted(rig.receiver.records(), key=lambda r: r["id"])
    assert records[1]["changes"] == {"v": "a", "w": None}
    assert records[1]["key"] == {"id": 1}
    assert records[2].get("changes", {}) == {}
    assert records[-1]["fields"] == {"id": 2, "v": "b", "n": 1, "w": "new"}


@pytest.mark.versions
def test_an_unchanged_toast_value_is_marked(rig):
    rig.db.table("t", "id int PRIMARY KEY, big text, small text")
    rig.db.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, repeat('x', 100000), 'a')")
    rig.db.sql("UPDATE t SET small = 'b'")
    rig.db.sql("UPDATE t SET big = repeat('y', 100000)")
    rig.db.sql("UPDATE t SET id = 2")
    rig.assert_whole()
    records = sorted(rig.receiver.records(), key=lambda r: r["id"])
    assert records[1]["unchanged"] == ["big"]
    assert "big" not in records[1]["fields"] and records[1]["fields"]["small"] == "b"
    assert "unchanged" not in records[2] and len(records[2]["fields"]["big"]) == 100000
    moved = [r for r in records if r["operation"] == "update" and r["key"] == {"id": 2}][0]
    assert moved["unchanged"] == ["big"]


@pytest.mark.versions
def test_an_unchanged_toast_value_under_full_identity_is_known(rig):
    rig.db.table("t", "id int PRIMARY KEY, big text, small text")
    rig.db.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, repeat('x', 50000), 'a')")
    rig.db.sql("UPDATE t SET small = 'b'")
    rig.assert_whole()
    update = [r for r in rig.receiver.records() if r["operation"] == "update"][0]
    assert update["changes"] == {"small": "a"}


@pytest.mark.versions
def test_truncate_of_several_tables_is_one_record_each(rig):
    for name in ("t1", "t2", "t3"):
        rig.db.table(name)
    rig.db.publish("t1", "t2", "t3")
    rig.start()
    for name in ("t1", "t2", "t3"):
        rig.db.sql(f"INSERT INTO {name} SELECT g, 'x' FROM generate_series(1, 100) g")
    rig.db.sql("TRUNCATE t1, t2, t3")
    for name in ("t1", "t2", "t3"):
        rig.db.sql(f"INSERT INTO {name} SELECT g, 'y' FROM generate_series(1, 100) g")
    rig.assert_whole()
    truncates = sorted((r for r in rig.receiver.records() if r["operation"] == "truncate"),
                       key=lambda r: r["id"])
    assert [r["id"][-4:] for r in truncates] == ["0001", "0002", "0003"]
    assert len({r["id"][:-4] for r in truncates}) == 1


def test_a_table_without_a_key_that_is_only_inserted_into(rig):
    rig.db.table("journal", "at int, what text", key=())
    rig.db.sql("CREATE PUBLICATION walpost FOR TABLE journal WITH (publish = 'insert')")
    rig.start()
    rig.db.sql("INSERT INTO journal SELECT g, 'x' || g FROM generate_series(1, 200) g")
    rig.db.sql("UPDATE journal SET what = 'not published'")
    rig.db.sql("DELETE FROM history.change WHERE op = 'UPDATE'")
    rig.assert_whole()
    assert {r["operation"] for r in rig.receiver.records()} == {"insert"}
    assert all(r["key"] is None for r in rig.receiver.records())


@pytest.mark.versions
def test_the_key_of_an_identity_index(rig):
    rig.db.table("t", "code text NOT NULL, v text", key=("code",))
    rig.db.sql("CREATE UNIQUE INDEX t_code ON t (code)")
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY USING INDEX t_code")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES ('a', '1'), ('b', '2')")
    rig.db.sql("UPDATE t SET v = '3' WHERE code = 'a'")
    rig.db.sql("DELETE FROM t WHERE code = 'b'")
    rig.assert_whole()


@pytest.mark.versions
def test_hostile_names(rig):
    rig.db.sql('CREATE SCHEMA "Sch ""ema.x"')
    table = '"Sch ""ema.x"."Ta.ble ""ü"'
    rig.db.sql(f'CREATE TABLE {table} ("Id" int PRIMARY KEY, "select" text, "a""b" text,'
               ' "日本" text, "A" int, a int, "x.y" int, " sp " int, "e🎉" text, "%s" int,'
               ' "new\nline" int, "back\\slash" int)')
    rig.db.sql(f"CREATE TRIGGER zz_history AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW"
               " EXECUTE FUNCTION history.row_changed('{Id}')")
    rig.db.publish(table)
    rig.start()
    rig.db.sql(f"INSERT INTO {table} VALUES (1, 's', 'ab', 'ni', 2, 3, 4, 5, 'party', 6, 7, 8)")
    rig.assert_whole()
    record = rig.receiver.records()[0]
    assert record["schema"] == 'Sch "ema.x.Ta.ble "ü'
    assert record["key"] == {"Id": 1}


def test_the_ordinal_counts_what_a_sync_leaves_out(rig):
    for name in ("t1", "t2"):
        rig.db.table(name)
    rig.db.publish("t1", "t2")
    rig.start(tables=["public.t1"])
    with rig.db.connect(autocommit=False) as connection:
        for i in range(3):
            connection.execute("INSERT INTO t1 VALUES (%s, 'x')", (i,))
            connection.execute("INSERT INTO t2 VALUES (%s, 'x')", (i,))
    rig.assert_whole(tables=["public.t1"])
    ordinals = sorted(int(r["id"].split("-")[2], 16) for r in rig.receiver.records())
    assert ordinals == [1, 3, 5]


def test_only_the_operations_asked_for(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(operations=["insert", "delete"])
    rig.db.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    rig.db.sql("UPDATE t SET v = 'c'")
    rig.db.sql("DELETE FROM t")
    rig.db.sql("DELETE FROM history.change WHERE op = 'UPDATE'")
    rig.assert_whole()


@pytest.mark.versions
def test_rolled_back_changes_do_not_arrive(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    with rig.db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'gone')")
        connection.rollback()
        connection.execute("INSERT INTO t VALUES (2, 'stays')")
        connection.execute("SAVEPOINT s")
        connection.execute("INSERT INTO t VALUES (3, 'gone')")
        connection.execute("ROLLBACK TO s")
        connection.execute("INSERT INTO t VALUES (4, 'stays')")
    rig.assert_whole()
    assert sorted(r["key"]["id"] for r in rig.receiver.records()) == [2, 4]


@pytest.mark.versions
def test_a_column_added_while_running(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.db.sql("ALTER TABLE t ADD COLUMN extra int DEFAULT 7")
    rig.db.sql("INSERT INTO t VALUES (2, 'b', 8)")
    rig.db.sql("UPDATE t SET v = 'c' WHERE id = 1")
    rig.db.sql("ALTER TABLE t DROP COLUMN v")
    rig.db.sql("INSERT INTO t VALUES (3, 9)")
    rig.assert_whole()


# Values of the types whose JSON must be PostgreSQL's own.
VALUES = {
    "smallint": ["-32768", "32767"],
    "int": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["'NaN'", "'Infinity'", "'-Infinity'", "1.50", "0.000", "-0.00000000000000000001",
                "12345678901234567890123456789012345678901234567890.123456789"],
    "numeric(12,3)": ["1", "-999999999.999"],
    "real": ["'NaN'", "'Infinity'", "'-Infinity'", "0.1", "'-0'", "3.4028235e38", "1e-45"],
    "double precision": ["'NaN'", "'Infinity'", "'-Infinity'", "0.1", "'-0'", "5e-324",
                         "1.7976931348623157e308", "1e21", "123456789012345680"],
    "boolean": ["true", "false"],
    "text": ["''", "E'tab\\tline\\nreturn\\rback\\\\slash\"quote/\\b\\f\\x01\\x1f\\x7f'", "'ü日本🎉'",
             "'NULL'", "repeat('long ', 1000)", "E'\\u2028\\u2029'"],
    "varchar(9)": ["'ab   '"],
    "char(5)": ["'ab'"],
    "name": ["'a name'"],
    "\"char\"": ["'x'"],
    "date": ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'5874897-12-31'", "'2020-02-29'"],
    "time": ["'24:00:00'", "'00:00:00.000001'", "'12:34:56.7'"],
    "timetz": ["'24:00:00+15:59:59'", "'12:00:00-04:30'"],
    "timestamp": ["'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999'",
                  "'4713-01-01 00:00:00 BC'", "'2020-01-01 00:00:00.1'", "'2020-01-01'"],
    "timestamptz": ["'infinity'", "'-infinity'", "'2020-06-01 10:00:00.000001+05:30'",
                    "'0001-01-01 00:00:00+00 BC'", "'1883-11-18 12:00:00 America/New_York'"],
    "interval": ["'1 year 2 mons -3 days +04:05:06.789'", "'0'", "'-178000000 years'"],
    "uuid": ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"],
    "json": ["'{\"b\" : 1, \"a\":[1.50 , 1e400, 12345678901234567890], \"b\":2}'", "'null'",
             "'  \"x\\u0000y\"  '", "'[ ]'"],
    "jsonb": ["'{\"b\" : 1, \"a\":[1.50 , 1e40, 12345678901234567890], \"b\":2}'", "'null'", "'\"s\"'",
              "'3.0'"],
    "bytea": ["'\\x00ff5c27'", "''"],
    "mood": ["'so so'", "'\"happy\"'"],
    "int[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[0:2]={1,2,3}'",
              "'[-1:0][2:3]={{1,2},{3,4}}'", "'{{{1},{2}},{{3},{NULL}}}'"],
    "text[]": ["'{}'", "'{\"\"}'", "E'{\"\",NULL,\"NULL\",\"a,b\",\"q\\\\\"\\\\\\\\x\",\" sp \",\"{}\"}'",
               "E'{\"tab\\tline\\n\",ü}'", "'{{a,b},{\"c d\",NULL}}'"],
    "numeric[]": ["'{1.50,NaN,NULL,-Infinity}'"],
    "double precision[]": ["'{0.1,NaN,Infinity,-0}'"],
    "boolean[]": ["'{t,f,NULL}'"],
    "bigint[]": ["'{9223372036854775807}'"],
    "json[]": ["array['{\"a\" : \"x,y\"}', 'null', '[1.50]']::json[]"],
    "jsonb[]": ["array['{\"a\": \"x,y\"}', 'null', '[1.50]']::jsonb[]"],
    "bytea[]": ["array['\\x00ff', '\\x']::bytea[]"],
    "uuid[]": ["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}'"],
    "date[]": ["'{infinity,2020-01-01,\"0044-03-15 BC\"}'"],
    "timestamp[]": ["'{infinity,\"2020-01-01 00:00:00\"}'"],
    "timestamptz[]": ["'{infinity,\"2020-01-01 00:00:00+00\"}'"],
    "time[]": ["'{24:00:00}'"],
    "interval[]": ["'{\"1 day\",\"-00:00:01\"}'"],
    "mood[]": ["'{sad,\"so so\"}'"],
    "varchar(3)[]": ["'{abc,NULL}'"],
    "inet": ["'192.168.1.5/24'", "'::1'"],
    "point": ["'(1.5,NaN)'"],
    "int4range": ["'[1,5]'", "'empty'"],
    "bit(5)": ["B'10101'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "tsvector": ["'a cat'"],
}


@pytest.fixture
def typed(rig):
    """One table with a column per type, every value written once, NULL beside the others."""
    rig.db.sql("CREATE TYPE mood AS ENUM ('sad', 'so so', '\"happy\"')")
    columns = {name: f"c{i}" for i, name in enumerate(VALUES)}
    rig.db.table("t", "id int PRIMARY KEY, " + ", ".join(f"{c} {t}" for t, c in columns.items()))
    rig.db.publish("t")
    rig.columns = columns
    return rig


def write_values(rig):
    n = 0
    for name, values in VALUES.items():
        for value in values:
            n += 1
            if rig.db.server.version < 14 and name.startswith("numeric") and "Infinity" in value:
                continue  # 14 brought them
            rig.db.sql(f"INSERT INTO t (id, {rig.columns[name]}) VALUES ({n}, ({value})::{name})")
    rig.db.sql("INSERT INTO t (id) VALUES (0)")


def same_json(rig):
    """Compares every record with the history, duplicate keys and spaces inside json included."""
    pairs = json.JSONDecoder(object_pairs_hook=lambda p: ("object", tuple(p)),
                             parse_float=lambda s: ("#", s), parse_int=lambda s: ("#", s))
    history = {json.loads(c.new)["id"]: c.new for c in rig.db.history()}
    types = {c: t for t, c in rig.columns.items()}
    wrong = []
    for obj, text in raw_records(rig.receiver):
        mine, theirs = exact_fields(text), history[obj["key"]["id"]]
        a, b = pairs.decode(mine)[1], pairs.decode(theirs)[1]
        assert [name for name, _ in a] == [name for name, _ in b]
        for (name, x), (_, y) in zip(a, b):
            if x != y:
                wrong.append(f"{types.get(name)}: {x!r}, PostgreSQL: {y!r}")
        for name in ("json", "jsonb"):
            column = f'"{rig.columns[name]}":'
            start = theirs.index(column)
            verbatim = theirs[start:json.JSONDecoder().raw_decode(theirs, start + len(column))[1]] \
                if not theirs[start + len(column):].startswith(" ") else None
            if verbatim and verbatim not in mine:
                wrong.append(f"{name}: {verbatim!r} is not verbatim in the record")
    return wrong


@pytest.mark.versions
def test_values_are_postgresqls_own(typed):
    typed.start()
    write_values(typed)
    typed.settle()
    wrong = same_json(typed)
    assert not wrong, "\n".join(wrong)
    typed.assert_whole()


def test_E09_values_do_not_depend_on_the_roles_settings(typed):
    """German dates, another zone and escape bytea of the role change nothing."""
    name = typed.db.name
    for setting in ("datestyle TO 'German'", "timezone TO 'Asia/Tokyo'", "bytea_output TO 'escape'",
                    "intervalstyle TO 'iso_8601'", "extra_float_digits TO -5"):
        typed.db.sql(f"ALTER ROLE walpost IN DATABASE {name} SET {setting}")
    typed.db.connection.close()
    typed.start()
    write_values(typed)
    typed.settle()
    wrong = same_json(typed)
    assert not wrong, "\n".join(wrong)


@pytest.mark.versions
def test_old_values_under_full_identity_are_postgresqls_own(typed):
    typed.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    typed.start()
    write_values(typed)
    changes = ", ".join(f"{c} = NULL" for c in typed.columns.values())
    typed.db.sql(f"UPDATE t SET {changes}")
    typed.db.sql("DELETE FROM t")
    typed.assert_whole()


def test_the_name_in_a_url_is_not_touched(rig):
    """The query of the endpoint's URL arrives as it was written."""
    rig.db.table("t")
    rig.db.publish("t")
    receiver = rig.add_receiver()
    query = "a=1&b=" + urllib.parse.quote("ü &")
    rig.start(hook={"url": receiver.url + "?" + query})
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    assert rig.receiver.requests()[0].request_line == f"POST /hook?{query} HTTP/1.1"
