"""Large values, wide and many tables: what they cost, and what the server itself cannot send."""

import re
import shutil
import time

import pytest
from machine import wait_for
from postgres import VERSION

MIB = 1024  # in the KiB of /proc

one_version = pytest.mark.skipif(VERSION != 15, reason="once is enough")


def resident(walpost):
    return walpost.memory_kib("VmRSS")


def assert_given_back(rig, before):
    """The connection that grew is replaced by a new one, and the stream goes on."""
    wait_for("the memory is given back", lambda: resident(rig.walpost) < before + 24 * MIB, 60,
             tail=lambda: f"{before} KiB before, {resident(rig.walpost)} now\n{rig.tail()}")
    assert len(rig.walpost.events("connection_renewed")) == 1, rig.tail()
    assert rig.walpost.metric("walpost_source_reconnects_total") == 0, "that is no failure"
    assert not rig.walpost.events("capture_interrupted")


@one_version
@pytest.mark.slow
def test_XL2_the_memory_of_a_large_value_is_given_back(rig, note):
    """A value of 100 MB is delivered whole, and then its room is free again."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'small')")
    rig.wait_arrived(1)
    before = resident(rig.walpost)
    rig.db.sql("INSERT INTO t SELECT 2, repeat('0123456789', 10000000)")
    rig.wait_arrived(2, seconds=60)
    note(f"{before / MIB:.0f} MiB before, {rig.walpost.memory_kib('VmHWM') / MIB:.0f} at most")
    assert_given_back(rig, before)
    rig.db.sql("UPDATE t SET id = 3 WHERE id = 1")
    rig.wait_arrived(4)
    records = sorted(rig.receiver.records(), key=lambda r: r["id"])
    assert len(records) == 4, "nothing came twice"
    assert records[1]["fields"] == {"id": 2, "v": "0123456789" * 10000000}


# --- what the server cannot send ---------------------------------------------------------------


def assert_the_remedy_works(rig):
    """Capture stops at a change that can never be sent; what it prints gets it going again."""
    walpost = rig.walpost
    wait_for("capture stops", lambda: walpost.events("capture_failed"), 90, tail=walpost.tail)
    event = walpost.events("capture_failed")[0]
    assert event["code"] == "protocol" and "1 GB" in event["remedy"], event
    assert walpost.process.wait(20) == 1
    remedy = re.search(r"SELECT pg_replication_slot_advance\(.*?\)\);", event["remedy"])[0]
    rig.db.server.sql(remedy.rstrip(";"), database=rig.db.name)
    shutil.rmtree(walpost.data)
    walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t (id) VALUES (9)")
    rig.wait_arrived(2)
    assert [r["key"] for r in rig.receiver.records()] == [{"id": 1}, {"id": 9}]
    return event["msg"]


@one_version
@pytest.mark.slow
def test_XL3_a_value_that_is_too_large_as_text(rig):
    """600 MB of bytea are 1.2 GB of hex."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v bytea)")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'small')")
    rig.wait_arrived(1)
    rig.db.sql("INSERT INTO t SELECT 2, convert_to(repeat('0123456789', 60000000), 'UTF8')")
    assert "invalid memory alloc request size" in assert_the_remedy_works(rig)


@one_version
@pytest.mark.slow
def test_XL4_a_row_that_is_too_large_for_a_message(rig):
    """Each value came by an update of its own; a delete under full identity has all four."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text, d text)")
    rig.db.sql("INSERT INTO t VALUES (2)")
    for column in "abcd":
        rig.db.sql(f"UPDATE t SET {column} = repeat('0123456789', 28000000)")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1)")
    rig.wait_arrived(1)
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    rig.db.sql("DELETE FROM t WHERE id = 2")
    assert "enlarge string buffer" in assert_the_remedy_works(rig)


# --- many tables -------------------------------------------------------------------------------


def test_two_thousand_tables(rig, note):
    """Each has a shape, a key and a record; what check says of them stays short."""
    rig.db.sql("""DO $$ BEGIN
        FOR i IN 1..2000 LOOP
            EXECUTE format('CREATE TABLE t%s (id int%s, v text)', i, CASE WHEN i > 100 THEN ' PRIMARY KEY' END);
        END LOOP;
        EXECUTE (SELECT 'CREATE PUBLICATION walpost FOR TABLE ' || string_agg('t' || i, ', ')
                 FROM generate_series(101, 2000) i);
    END $$""")
    begun = time.monotonic()
    rig.start()
    note(f"{time.monotonic() - begun:.1f} s to start")
    rig.db.sql("""DO $$ BEGIN
        FOR i IN 101..2000 LOOP EXECUTE format('INSERT INTO t%1$s VALUES (%1$s, ''a'')', i); END LOOP;
    END $$""")
    rig.wait_arrived(1900)
    records = rig.receiver.records()
    assert ({(r["schema"], r["key"]["id"], r["fields"]["v"]) for r in records}
            == {(f"public.t{i}", i, "a") for i in range(101, 2001)})
    peak = rig.walpost.memory_kib("VmHWM")
    note(f"peak RSS {peak / MIB:.0f} MiB")
    assert peak < 96 * MIB
    checked = rig.walpost.command("check")
    assert checked.returncode == 0, checked.stdout
    assert len(checked.stdout) < 8000
