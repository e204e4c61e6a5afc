"""Schema records: one before the first row of a table in a new shape, the same for ever, and no other."""

import random

import pytest
from stream import OPERATIONS, record

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]

ALL = (*OPERATIONS, "schema")


@pytest.fixture
def stream(streams):
    return streams("", ALL)


@pytest.fixture
def rooted(streams):
    return streams("WITH (publish_via_partition_root = true)", ALL)


def column(name, kind, key=False):
    return {"name": name, "type": kind, "key": key}


def shape(*columns, identity="default"):
    return {"columns": list(columns), "replica_identity": identity}


def told(story, *statements):
    """(table, shape without the oid, what it was before) of each schema record, table of every other."""
    out = []
    for r in story.run(*statements):
        if r["op"] == "schema":
            assert r["key"] is None and isinstance(r["fields"].pop("oid"), int)
            out.append((r["table"], r["fields"], r.get("changes")))
        else:
            out.append(r["table"])
    return out


ID = column("id", "integer", True)


def test_D01_D08_D11_columns_come_go_and_change_their_names(stream):
    with stream.story("s01") as s:
        a, b = column("a", "text"), column("b", "boolean")
        assert told(s, "create table t(id int primary key, a text)", "insert into t values(1)",
                    "insert into t values(2)") == [("t", shape(ID, a), None), "t", "t"]
        assert told(s, "alter table t add b bool", "update t set a = 'x' where id = 1",
                    "delete from t where id = 2") == [
            ("t", shape(ID, a, b), {"columns": [ID, a]}), "t", "t"]
        assert told(s, "alter table t rename a to \"A\"\"ü\"", "update t set b = true") == [
            ("t", shape(ID, column("A\"ü", "text"), b), {"columns": [ID, a, b]}), "t"]
        assert told(s, "alter table t drop b", "alter table t add b bool", "update t set b = true") == ["t"]
        assert told(s, "alter table t drop \"A\"\"ü\"", "delete from t") == [
            ("t", shape(ID, b), {"columns": [ID, column("A\"ü", "text"), b]}), "t"]


def test_D09_D23_types_and_their_modifiers(stream):
    with stream.story("s02") as s:
        s.sql("create type mood as enum ('sad')", "create domain short as varchar(3)")
        types = ["numeric(10,2)", "character varying(5)", "timestamp(3) with time zone", "s02.mood[]",
                 "s02.short", "bit(3)", "interval day to second(2)", "\"char\"", "integer[]", "jsonb"]
        columns = [column(f"c{i}", t) for i, t in enumerate(types)]
        assert told(s, "create table t(id int primary key, "
                    + ", ".join(f"c{i} {t}" for i, t in enumerate(types)) + ")",
                    "insert into t values(1)") == [("t", shape(ID, *columns), None), "t"]
        before = {"columns": [ID, *columns]}
        columns[0] = column("c0", "numeric(12,4)")
        columns[1] = column("c1", "character varying(50)")
        assert told(s, "alter table t alter c0 type numeric(12,4)", "alter table t alter c1 type varchar(50)",
                    "delete from t") == [("t", shape(ID, *columns), before), "t"]


def test_K12_D18_identity_and_key(stream):
    with stream.story("s03") as s:
        a, keyless = column("a", "integer"), column("id", "integer")
        told(s, "create table t(id int primary key, a int not null)", "insert into t values(1, 1)")
        assert told(s, "alter table t replica identity full", "update t set a = 2") == [
            ("t", shape(ID, a, identity="full"), {"replica_identity": "default"}), "t"]
        assert told(s, "alter table t replica identity nothing", "insert into t values(3, 3)") == [
            ("t", shape(keyless, a, identity="nothing"),
             {"columns": [ID, a], "replica_identity": "full"}), "t"]
        assert told(s, "alter table t drop constraint t_pkey", "create unique index i on t(a)",
                    "alter table t replica identity using index i", "delete from t where a = 2") == [
            ("t", shape(keyless, column("a", "integer", True), identity="index"),
             {"columns": [keyless, a], "replica_identity": "nothing"}), "t"]


def test_D10_D12_D14_D20_tables_move_vanish_and_come_back(stream):
    with stream.story("s04") as s:
        s.sql("create schema s04b")
        s.schemas = ["s04", "s04b"]
        assert told(s, "create table t(id int primary key)", "insert into t values(1)",
                    "alter table t rename to u", "insert into u values(2)", "alter table u set schema s04b",
                    "insert into s04b.u values(3)", "alter table s04b.u set schema s04",
                    "alter table u rename to t", "insert into t values(4)") == [
            ("t", shape(ID), None), "t", ("u", shape(ID), None), "u", ("s04b.u", shape(ID), None), "s04b.u",
            "t"]
        assert told(s, "analyze t", "create index on t(id)", "comment on table t is 'x'",
                    "truncate t", "alter table t add x int", "alter table t drop x",
                    "insert into t values(5)") == ["t", "t"]
        s.sql("drop table t", "create table t(id int primary key)", "insert into t values(1)")
        new, row = s.run()
        assert row["op"] == "insert" and new["op"] == "schema"
        assert list(new["changes"]) == ["oid"] and new["changes"]["oid"] != new["fields"]["oid"]


def test_D10_in_one_transaction_each_before_its_row(stream):
    with stream.story("s05") as s:
        s.run("create table t(id int primary key)", "insert into t values(0)")
        with s.connection.transaction():
            s.sql("insert into t values(1)", "alter table t add a int", "insert into t values(2, 2)",
                  "savepoint p", "alter table t add gone int", "insert into t values(3, 3, 3)",
                  "rollback to p", "insert into t values(4, 4)", "update t set id = 5 where id = 4")
        records = s.arrived()
        assert [(r["operation"], r["id"].split("-")[2:]) for r in records] == [
            ("insert", ["00000001", "0001"]), ("schema", ["00000002", "0000"]),
            ("insert", ["00000002", "0001"]), ("insert", ["00000003", "0001"]),
            ("delete", ["00000004", "0001"]), ("update", ["00000004", "0002"])]
        assert len({(r["id"].split("-")[1], str(r["commit"])) for r in records}) == 1
        assert list(records[1]) == ["id", "operation", "schema", "key", "fields", "changes", "position",
                                    "commit", "hash"]


def test_P01_P02_partitions(stream, rooted):
    for each, name, expected in ((stream, "s06", ["r1", "r2"]), (rooted, "s06r", ["r"])):
        with each.story(name) as s:
            s.sql("create table r(id int primary key) partition by range(id)",
                  "create table r1 partition of r for values from (0) to (10)",
                  "create table r2 partition of r for values from (10) to (20)")
            told_of = [t[0] for t in told(s, "insert into r values(1), (11), (2)") if not isinstance(t, str)]
            assert told_of == expected


def test_D05_XL1_no_columns_and_all_there_can_be(stream):
    with stream.story("s07") as s:
        assert told(s, "create table z()", "insert into z default values") == [("z", shape(), None), "z"]
        wide = [column(f"c{i}", f"character varying({i + 1})") for i in range(1599)]
        s.sql("create table w(" + ", ".join(f"{c['name']} {c['type']}" for c in wide) + ", id int primary key)")
        assert told(s, "insert into w(id) values(1)") == [("w", shape(*wide, ID), None), "w"]


def ordered(rig):
    return sorted({r["id"]: r for r in rig.receiver.records()}.values(), key=lambda r: r["id"])


def test_not_without_being_asked_for(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    assert [r["operation"] for r in rig.receiver.records()] == ["insert"]


def test_D22_the_shape_changes_while_nobody_reads(rig):
    """What is already known is not told again, after a stop or a crash."""
    for name in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY, v text)")
    rig.db.publish("t", "u")
    rig.start(order="sync", operations=list(ALL))
    rig.db.sql("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)")
    rig.wait_arrived(4)
    rig.walpost.stop()
    rig.db.sql("INSERT INTO t VALUES (2)")
    rig.db.sql("ALTER TABLE t ADD a int; INSERT INTO t VALUES (3); INSERT INTO u VALUES (3)")
    rig.db.sql("ALTER TABLE t DROP a")
    rig.walpost.start(databases=[rig.db])
    rig.wait_arrived(8)
    rig.walpost.restart(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (4); INSERT INTO u VALUES (4)")
    rig.wait_arrived(11)
    assert [(r["operation"], r["schema"]) for r in ordered(rig)] == [
        ("schema", "public.t"), ("insert", "public.t"), ("schema", "public.u"), ("insert", "public.u"),
        ("insert", "public.t"), ("schema", "public.t"), ("insert", "public.t"), ("insert", "public.u"),
        ("schema", "public.t"), ("insert", "public.t"), ("insert", "public.u")]


def test_schema_records_are_the_same_after_every_crash(rig, seed):
    """Killed again and again while shapes change: as many records, with the ids and bytes they had."""
    random_ = random.Random(seed)
    for name in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY, c0 int)")
    rig.db.publish("t", "u")
    rig.start(order="sync", operations=list(ALL), batch_size=3)
    expected, columns = [], {"t": 0, "u": 0}
    known = {}
    for i in range(60):
        table = random_.choice("tu")
        with rig.db.connect(autocommit=False) as connection:
            for k in range(random_.randrange(1, 4)):
                if random_.random() < 0.5:
                    column_ = columns[table] = 1 - columns[table]
                    connection.execute(f"ALTER TABLE {table} RENAME c{1 - column_} TO c{column_}")
                if known.get(table) != columns[table]:
                    expected.append(("schema", table, columns[table]))
                    known[table] = columns[table]
                connection.execute(f"INSERT INTO {table} VALUES (%s)", (i * 10 + k,))
                expected.append(("insert", table, i * 10 + k))
        if random_.random() < 0.15:
            rig.walpost.restart(databases=[rig.db])
    rig.wait_arrived(len(expected))
    seen = {}
    for r in rig.receiver.records():
        assert seen.setdefault(r["id"], r) == r
    assert [(r["operation"], r["schema"][7:], int(r["fields"]["columns"][1]["name"][1:])
             if r["operation"] == "schema" else r["fields"]["id"]) for r in ordered(rig)] == expected


def test_a_schema_record_as_a_whole(stream):
    with stream.story("s08") as s:
        (new, row) = s.run("create table t(id int primary key)", "insert into t values(1)")
        oid = s.connection.execute("select 't'::regclass::oid").fetchone()[0]
        assert new == record("schema", "t", None, {"columns": [ID], "replica_identity": "default",
                                                   "oid": oid})
        assert row["op"] == "insert"
