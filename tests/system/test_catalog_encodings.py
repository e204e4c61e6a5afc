"""Databases in other encodings, and bytes that are in none."""

import json

import pytest

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]


@pytest.fixture
def encoded(server, make_rig):
    """A rig over a database of this encoding."""
    rigs = []

    def make(encoding):
        rigs.append(make_rig(server.database(encoding)))
        return rigs[-1]
    yield make
    for rig in rigs:
        rig.end()
        rig.db.drop()


def body(rig):
    """All that arrived, as the receiver got it; it has to be UTF-8 and JSON."""
    out = []
    for request in rig.receiver.requests():
        if request.accepted and request.body:
            out += json.loads(request.body.decode("utf-8"))["object"]["records"]
    return sorted(out, key=lambda record: record["id"])


@pytest.mark.parametrize("encoding, word", [("LATIN1", "café ÿ"), ("EUC_JP", "日本語"), ("WIN1252", "€ “x”")])
def test_E01_another_encoding_arrives_as_utf8(encoded, encoding, word):
    rig = encoded(encoding)
    rig.db.table("t", f'id int PRIMARY KEY, "{word}" text, v text[]')
    rig.db.publish("t")
    rig.start()
    rig.db.sql(f"INSERT INTO t VALUES (1, '{word}', ARRAY['{word}', 'x'])")
    rig.assert_whole()
    assert body(rig)[0]["fields"] == {"id": 1, word: word, "v": [word, "x"]}


@pytest.mark.parametrize("setting", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_E02_E04_the_roles_client_encoding_does_not_count(rig, setting):
    """LATIN1 has no 日: a session in it could never send the row."""
    rig.db.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET client_encoding TO '{setting}'")
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, U&'\\65E5\\672C\\00E9')")
    rig.wait_arrived(1)
    assert body(rig)[0]["fields"] == {"id": 1, "v": "日本é"}


def test_E03_bytes_of_a_sql_ascii_database(encoded):
    """What is UTF-8 is a string; what is not is its bytes, and the slot goes on."""
    rig = encoded("SQL_ASCII")
    db = rig.db
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text, a text[], n int)")
    db.publish("t")
    rig.start()
    db.sql(r"INSERT INTO t VALUES (1, E'caf\xc3\xa9', ARRAY[E'\xc3\xa9'], 1), (2, E'caf\xe9', ARRAY[E'\xff', 'x'], 2),"
           r" (3, E'\xed\xa0\x80', NULL, 3)")
    db.sql("UPDATE t SET n = 9 WHERE id = 2")
    db.sql("INSERT INTO t VALUES (4, 'plain', '{}', 4)")
    rig.wait_arrived(5)
    assert [r["fields"] for r in body(rig)] == [
        {"id": 1, "v": "café", "a": ["é"], "n": 1},
        {"id": 2, "v": {"$bytes": r"\x636166e9"}, "a": {"$bytes": r"\x7b" + "ff2c787d"}, "n": 2},
        {"id": 3, "v": {"$bytes": r"\xeda080"}, "a": None, "n": 3},
        {"id": 2, "v": {"$bytes": r"\x636166e9"}, "a": {"$bytes": r"\x7b" + "ff2c787d"}, "n": 9},
        {"id": 4, "v": "plain", "a": [], "n": 4}]


def test_E03_names_of_a_sql_ascii_database(encoded):
    rig = encoded("SQL_ASCII")
    rig.db.sql(r"""DO $$BEGIN EXECUTE E'CREATE TABLE t (id int PRIMARY KEY, "caf\xe9" int, "\xc3\xa9" int)'; END$$""")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 2, 3)")
    rig.wait_arrived(1)
    assert body(rig)[0]["fields"] == {"id": 1, "caf\ufffd": 2, "é": 3}


def test_E05_a_char_with_the_high_bit(rig):
    """Before 15 it is sent as that byte, whatever the encoding; later as an escape."""
    rig.db.sql('CREATE TABLE t (id int PRIMARY KEY, v "char", a "char"[])')
    rig.db.publish("t")
    rig.start()
    if rig.db.connection.info.server_version < 150000:
        value, fields = "(-1)", {"v": {"$bytes": r"\xff"}, "a": {"$bytes": r"\x7b" + "ff7d"}}
    else:
        value, fields = r"'\377'", {"v": r"\377", "a": [r"\377"]}
    rig.db.sql(f'INSERT INTO t VALUES (1, {value}::"char", ARRAY[{value}::"char"])')
    rig.wait_arrived(1)
    assert body(rig)[0]["fields"] == {"id": 1, **fields}


def test_E06_a_nul_in_json_stays_as_it_is_written(rig):
    rig.db.table("t", "id int PRIMARY KEY, v json")
    rig.db.publish("t")
    rig.start()
    rig.db.sql(r"""INSERT INTO t VALUES (1, '{"a" : "\u0000"}')""")
    rig.assert_whole()
    request = [r for r in rig.receiver.requests() if r.body][0]
    assert rb'"v":{"a" : "\u0000"}' in request.body


def test_E07_bytes_that_a_utf8_database_should_not_hold(encoded):
    """Only a superuser's hand on the catalog, a bug or a damaged disk makes such a row."""
    rig = encoded("SQL_ASCII")
    name = rig.db.name
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start()
    rig.walpost.stop()
    rig.db.sql(r"INSERT INTO t VALUES (1, E'\xff\xc3\xa9'), (2, E'\xc3\xa9')")
    rig.db.server.sql("UPDATE pg_database SET encoding = pg_char_to_encoding('UTF8') WHERE datname = %s", name)
    rig.walpost.start(databases=[rig.db])
    rig.wait_arrived(2)
    assert [r["fields"] for r in body(rig)] == [{"id": 1, "v": {"$bytes": r"\xffc3a9"}}, {"id": 2, "v": "é"}]
