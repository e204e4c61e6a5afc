"""Messages of pg_logical_emit_message: selected by prefix, with ids of their own, never repeated under another."""

import base64

import pytest
from stream import OPERATIONS

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]


def emit(db, transactional, prefix, content):
    return db.value("SELECT (pg_logical_emit_message(%s, %s, %s::text) - '0/0')::bigint", transactional,
                    prefix, content)


@pytest.fixture
def heard(rig):
    """A walpost that takes messages of two prefixes, in the order of the source."""
    if rig.db.connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 or newer")
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    rig.db.publish("t")
    rig.start(order="sync", operations=[*OPERATIONS, "message"],
              connection={"message_prefixes": ["bill", "nt \"ü\""]})
    return rig


def ordered(rig):
    return sorted({r["id"]: r for r in rig.receiver.records()}.values(), key=lambda r: r["id"])


def brief(record):
    fields = record["fields"]
    return (record["operation"], fields.get("content", fields.get("id")))


def test_X20_X21_X22_messages_of_a_transaction_and_of_none(heard):
    db = heard.db
    alone = emit(db, False, "nt \"ü\"", "x")
    emit(db, True, "other", "nobody asked")
    with db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("SELECT pg_logical_emit_message(true, 'bill', 'rolled back')")
        connection.execute("SELECT pg_logical_emit_message(false, 'bill', 'stays')")
        connection.rollback()
        connection.execute("INSERT INTO t VALUES (2)")
        connection.execute("SELECT pg_logical_emit_message(true, 'other', 'counts')")
        connection.execute("SELECT pg_logical_emit_message(false, 'bill', 'overtakes')")
        connection.execute("SELECT pg_logical_emit_message(true, 'bill', '')")
        connection.execute("INSERT INTO t VALUES (3)")
    binary = bytes(range(256))
    with db.connect() as connection:
        connection.execute("SELECT pg_logical_emit_message(true, 'bill', %s::bytea)", (binary,))
        connection.execute("SELECT pg_logical_emit_message(true, 'bill', %s::bytea)",
                           ("\"ü\n\x00🎉".encode(),))
    emit(db, True, "bill", "end")
    heard.wait_arrived(9)
    records = ordered(heard)
    assert [brief(r) for r in records] == [
        ("message", "x"), ("message", "stays"), ("message", "overtakes"), ("insert", 2), ("message", ""),
        ("insert", 3), ("message", base64.b64encode(binary).decode()), ("message", "\"ü\n\x00🎉"),
        ("message", "end")]
    assert [r["id"] for r in heard.receiver.records()] == [r["id"] for r in records]
    first = records[0]
    assert list(first) == ["id", "operation", "schema", "key", "fields", "position", "commit", "hash"]
    assert first["schema"] == "pg_message.nt \"ü\"" and first["key"] is None
    assert first["fields"] == {"prefix": "nt \"ü\"", "transactional": False, "encoding": "text",
                               "content": "x"}
    assert first["id"].split("-")[1:] == [f"{alone:016x}", "00000000", "0001"]
    assert first["commit"] == {"lsn": first["position"], "xid": None, "time": None}
    assert [r["id"].split("-")[2:] for r in records[3:6]] == [
        ["00000001", "0001"], ["00000003", "0001"], ["00000004", "0001"]]
    assert records[4]["commit"] == records[3]["commit"] and records[4]["fields"]["transactional"] is True
    assert [r["fields"]["encoding"] for r in records[6:8]] == ["base64", "text"]


def test_X16_messages_in_the_middle_of_a_large_transaction(heard):
    """Those of none come when they are written; the transaction's own with its rows, in their place."""
    db = heard.db
    with db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t SELECT generate_series(1, 2000)")
        connection.execute("SELECT pg_logical_emit_message(true, 'bill', 'own')")
        emit(db, False, "bill", "before")
        heard.wait_arrived(1)
        connection.execute("INSERT INTO t SELECT generate_series(2001, 4000)")
    emit(db, False, "bill", "after")
    heard.wait_arrived(4003)
    assert [brief(r)[1] for r in ordered(heard)] == ["before", *range(1, 2001), "own", *range(2001, 4001), "after"]


def test_X23_messages_are_the_same_after_a_crash(heard):
    """Nothing of a session is lost, and nothing comes again under another id."""
    db = heard.db
    heard.receiver.control({"status": 503})
    for i in range(20):
        emit(db, i % 2 == 0, "bill", str(i))
        if i % 5 == 4:
            heard.walpost.restart(databases=[db])
    heard.receiver.behave()
    heard.wait_arrived(20)
    heard.walpost.restart(databases=[db])
    emit(db, False, "bill", "20")
    heard.wait_arrived(21)
    assert [r["fields"]["content"] for r in ordered(heard)] == [str(i) for i in range(21)]


def test_X34_F45_messages_on_and_off_raise_the_generation(rig):
    if rig.db.connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 or newer")
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(order="sync", operations=[*OPERATIONS, "message"])
    source = rig.walpost.config["connections"][rig.db.name]["configuration"]
    for i, prefixes in enumerate(([], ["a"], ["a", "b"], [])):
        rig.walpost.stop()
        source["message_prefixes"] = prefixes
        rig.walpost.write()
        rig.walpost.start(databases=[rig.db])
        emit(rig.db, True, "a", "x")
        emit(rig.db, False, "b", "y")
        rig.db.sql(f"INSERT INTO t VALUES ({i})")
        rig.wait_arrived([1, 3, 6, 7][i])
    records = rig.receiver.records()
    assert [r["id"] for r in records] == [r["id"] for r in ordered(rig)]
    assert [(int(r["id"][:2], 16), *brief(r)) for r in records] == [
        (1, "insert", 0), (2, "message", "x"), (2, "insert", 1),
        (2, "message", "x"), (2, "message", "y"), (2, "insert", 2), (3, "insert", 3)]


def test_messages_come_to_the_syncs_that_name_the_operation(rig):
    if rig.db.connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 or newer")
    for name in ("t", "u"):
        rig.db.table(name)
    rig.db.publish("t", "u")
    with_messages, without = rig.add_receiver("with"), rig.add_receiver("without")
    rig.start(connection={"message_prefixes": ["a"]}, syncs={
        "one": rig.sync("with", ["public.t"], operations=["insert", "message"]),
        "two": rig.sync("without", ["public.t", "public.u"])})
    emit(rig.db, True, "a", "x")
    rig.db.sql("INSERT INTO u VALUES (1, 'a')")
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.wait_arrived(2, with_messages)
    rig.wait_arrived(2, without)
    assert sorted(r["schema"] for r in with_messages.records()) == ["pg_message.a", "public.t"]
    assert sorted(r["schema"] for r in without.records()) == ["public.t", "public.u"]


def test_messages_that_cannot_be_had_are_refused(rig):
    rig.db.table("t")
    old = rig.db.connection.info.server_version < 140000
    rig.prepare(connection={"message_prefixes": ["a" if old else "a" * 201]})
    done = rig.walpost.command("check")
    assert done.returncode == 1 and "message_prefixes" in done.stdout, done.stdout
    assert ("14" if old else "200") in done.stdout
