"""A copy reads the columns that its sync needs, and its records are those of the stream."""

import re

import pytest
from machine import wait_for

pytestmark = pytest.mark.sanitized

OBFUSCATION_KEY = "0123456789abcdef0123"


def columns_read(rig, table):
    """What the copy asks for, as the server has written it into its log."""
    def seen():
        with open(rig.db.server.log, errors="replace") as log:
            log.seek(rig.log_begins)
            return {m[1] for m in re.finditer(rf"COPY \(SELECT (.*?) FROM [^\n]*\b{table}\b", log.read())}
    return wait_for(f"a copy of {table}", seen, 60, tail=rig.walpost.tail)


def start(rig, schemas):
    """The server notes the statements of its session."""
    sync = rig.sync(rig.add_receiver().name, schemas)
    sync.update(skip_initial_backfill=False, obfuscation_key=OBFUSCATION_KEY)
    rig.db.server.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET log_statement = 'all'")
    rig.log_begins = rig.db.server.log.stat().st_size
    return rig.start(syncs={"main": sync})


def by_number(records, operation):
    return {r["fields"]["n"]: r for r in records if r["operation"] == operation}


@pytest.mark.versions
def test_only_the_columns_that_are_needed_are_read(rig):
    """And a copied record is as the stream's: the same fields, key and hash."""
    rig.db.sql("CREATE TABLE t (n int, part text, a text, big text, region text, phone text, \"Ü\" jsonb,"
               " PRIMARY KEY (n, part))")
    rig.db.sql("INSERT INTO t SELECT g, 'p', 'a' || g, repeat('x', 3000), CASE WHEN g % 4 = 0 THEN 'us' ELSE 'eu' END,"
               " '+49' || g, '{\"k\": 1}' FROM generate_series(1, 40) g")
    rig.db.publish("t")
    start(rig, [{"id": "public.t", "fields": ["Ü", "n", {"id": "phone", "obfuscate": "hash"},
                                              {"id": "a", "output_name": "other"}],
                 "filters": [{"field_id": "region", "function": "Equality", "value": "eu"}]}])
    assert columns_read(rig, "t") == {'n, part, a, region, phone, "Ü"'}, "big is not"
    rig.wait_arrived(30)
    rig.db.sql("UPDATE t SET big = 'y'")
    rig.wait_arrived(60)
    reads, updates = (by_number(rig.receiver.records(), op) for op in ("read", "update"))
    assert reads.keys() == updates.keys() and len(reads) == 30
    for n, read in reads.items():
        assert read["fields"].keys() == {"Ü", "n", "phone", "other"}
        for name in ("fields", "key", "hash"):
            assert read[name] == updates[n][name], (name, read, updates[n])
        assert read["key"] is None, "a column of the key is left out"


@pytest.mark.parametrize("identity", ["FULL", "USING INDEX t_b"])
def test_the_columns_of_every_key_are_read(rig, identity):
    rig.db.sql("CREATE TABLE t (n int PRIMARY KEY, b int NOT NULL, c int, v text)")
    rig.db.sql("CREATE UNIQUE INDEX t_b ON t (b)")
    rig.db.sql(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    rig.db.sql("INSERT INTO t SELECT g, g + 100, 0, 'v' FROM generate_series(1, 20) g")
    rig.db.publish("t")
    start(rig, [{"id": "public.t", "fields": ["n", "b"]}])
    assert columns_read(rig, "t") == {"n, b"}
    rig.wait_arrived(20)
    rig.db.sql("UPDATE t SET v = 'w'")
    rig.wait_arrived(40)
    reads, updates = (by_number(rig.receiver.records(), op) for op in ("read", "update"))
    assert len(reads) == 20
    assert {n: r["key"] for n, r in reads.items()} == {n: r["key"] for n, r in updates.items()}
    assert all(r["key"] for r in reads.values())


def test_a_star_and_what_is_left_out_of_it(rig):
    rig.db.sql("CREATE TABLE t (n int PRIMARY KEY, a text, secret text)")
    rig.db.sql("INSERT INTO t SELECT g, 'a', 's' FROM generate_series(1, 20) g")
    rig.db.publish("t")
    start(rig, [{"id": "public.t", "fields": ["*", {"id": "secret", "enabled": False}]}])
    assert columns_read(rig, "t") == {"n, a"}
    rig.wait_arrived(20)
    assert all(r["fields"].keys() == {"n", "a"} for r in rig.receiver.records())
