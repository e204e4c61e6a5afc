"""Large values, wide and many tables: what they cost, and what the server itself cannot send."""

import json
import re
import shutil
import socket
import threading
import time

import pytest
from machine import PORTS, stays, wait_for
from postgres import VERSION
from test_parking import wait_state
from test_selection import KEY, hashed, selected

MIB = 1024  # in the KiB of /proc

one_version = pytest.mark.skipif(VERSION != 15, reason="once is enough")


def resident(walpost):
    return walpost.memory_kib("VmRSS")


def assert_given_back(rig, before):
    """The connection that grew is replaced by a new one, and the stream goes on."""
    wait_for("the memory is given back", lambda: resident(rig.walpost) < before + 24 * MIB, 120,
             tail=lambda: f"{before} KiB before, {resident(rig.walpost)} now\n{rig.tail()}")
    wait_for("one connection is renewed", lambda: len(rig.walpost.events("connection_renewed")) == 1, tail=rig.tail)
    assert rig.walpost.metric("walpost_source_reconnects_total") == 0, "that is no failure"
    assert not rig.walpost.events("capture_interrupted")


@one_version
@pytest.mark.slow
def test_XL2_the_memory_of_a_large_value_is_given_back(rig, note):
    """A value of 100 MB is delivered whole, and then its room is free again."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start(connection={"max_record_bytes": "200MiB"})
    rig.db.sql("INSERT INTO t VALUES (1, 'small')")
    rig.wait_arrived(1)
    before = resident(rig.walpost)
    rig.db.sql("INSERT INTO t SELECT 2, repeat('0123456789', 10000000)")
    rig.wait_arrived(2)
    note(f"{before / MIB:.0f} MiB before, {rig.walpost.memory_kib('VmHWM') / MIB:.0f} at most")
    assert_given_back(rig, before)
    rig.db.sql("UPDATE t SET id = 3 WHERE id = 1")
    rig.wait_arrived(4)
    records = sorted(rig.receiver.records(), key=lambda r: r["id"])
    assert len(records) == 4, "nothing came twice"
    assert records[1]["fields"] == {"id": 2, "v": "0123456789" * 10000000}
    # Where many are large the connection is kept: a new one each time would be the dearer way.
    rig.db.sql("INSERT INTO t SELECT 5, repeat('0123456789', 7000000)")
    rig.wait_arrived(5)
    rig.db.sql("DELETE FROM t WHERE id = 3")
    rig.wait_arrived(6)
    stays("no other one is made", lambda: len(rig.walpost.events("connection_renewed")) == 1, 3)


@one_version
@pytest.mark.slow
def test_XL2_a_value_above_the_limit_costs_three_times_itself_and_no_more(rig, note):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'small')")
    rig.wait_arrived(1)
    before = resident(rig.walpost)
    begun = time.monotonic()
    rig.db.sql("INSERT INTO t SELECT 2, repeat('0123456789', 50000000)")
    stored = wait_state(rig, 0, 1, seconds=300)
    assert [(r["key"], r["too_large"]["bytes"]) for r in stored.dead()] == [({"id": 2}, 500_000_001)]
    peak = rig.walpost.memory_kib("VmHWM")
    note(f"{before / MIB:.0f} MiB before, {peak / MIB:.0f} at most, after {time.monotonic() - begun:.0f} s")
    assert peak < before + 64 * MIB + 3 * 500_000_000 // 1024
    assert_given_back(rig, before)
    rig.db.sql("UPDATE t SET v = 'smaller' WHERE id = 2")
    rig.wait_arrived(2)


class Busy:
    """Passes connections on to a server that needs so many seconds for the first message of a stream.

    Meanwhile it says nothing, and hears what it is told."""

    def __init__(self, port, seconds):
        self.target, self.seconds = ("127.0.0.1", port), seconds
        self.port, self.streams = PORTS.take(), 0
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.sockets, self.threads = [self.listener], []
        self._begin(self._accept)

    def _begin(self, what, *args):
        self.threads.append(threading.Thread(target=what, args=args, daemon=True))
        self.threads[-1].start()

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            server, speaks = socket.create_connection(self.target), threading.Event()
            speaks.set()
            self.sockets += [client, server]
            self._begin(self._pass, client, server, speaks, False)
            self._begin(self._pass, server, client, speaks, True)

    def _pass(self, source, to, speaks, is_answer):
        try:
            while data := source.recv(65536):
                if not is_answer and b"START_REPLICATION" in data:
                    speaks.clear()
                if is_answer and not speaks.is_set():
                    speaks.set()
                    if data[:1] == b"W":  # it copies in both directions; else it is an error
                        self.streams += 1
                        size = 1 + int.from_bytes(data[1:5], "big")
                        to.sendall(data[:size])
                        data = data[size:]
                        self.ended.wait(self.seconds)
                to.sendall(data)
        except OSError:
            pass
        for end in (source, to):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def end(self):
        self.ended.set()
        for one in self.sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(10)
        for one in self.sockets:
            one.close()


@one_version
@pytest.mark.slow
def test_a_server_that_needs_long_for_a_message_gets_longer_the_next_time(rig):
    """It is taken for dead after 15 s; would it be so again and again, nothing would ever be read."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.walpost.stop()
    rig.db.sql("INSERT INTO t VALUES (1, 'after a while')")
    busy = Busy(rig.db.server.port, 17)
    try:
        rig.walpost.config["connections"][rig.db.name]["configuration"]["port"] = busy.port
        rig.walpost.write()
        rig.walpost.spawn()
        wait_for("it is given up once", lambda: rig.walpost.events("capture_interrupted"), 120, tail=rig.walpost.tail)
        rig.assert_whole()
        assert busy.streams == 2 and "for 15 s" in rig.walpost.events("capture_interrupted")[0]["msg"]
    finally:
        rig.end()
        busy.end()


# --- the limit of a record ---------------------------------------------------------------------


def limited(rig, **delivery):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start(connection={"max_record_bytes": "4KiB", "message_prefixes": ["m"]},
              operations=["insert", "update", "delete", "truncate", "read", "message"], **delivery)


def brief(records):
    return [(r["operation"], r["schema"], r["key"]) for r in sorted(records, key=lambda r: r["id"])]


@pytest.mark.sanitized
@pytest.mark.parametrize("order", ["key", "sync", "none"])
def test_a_record_above_the_limit_is_a_dead_letter_and_the_rest_goes_on(rig, order):
    """With position and key; what follows of its key arrives, and nothing of it is ever sent."""
    limited(rig, order=order)
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t ALTER v SET STORAGE PLAIN")
    rig.db.sql("INSERT INTO t VALUES (1, 'small'), (2, repeat('x', 5000)), (3, 'small')")
    rig.db.sql("UPDATE t SET v = 'small' WHERE id = 2")  # goes without `changes`, which hold the old value
    rig.db.sql("UPDATE t SET v = 'smaller' WHERE id = 2")
    rig.db.sql("UPDATE t SET id = 4, v = repeat('x', 5000) WHERE id = 3")
    rig.db.sql("DELETE FROM t WHERE id = 4")  # goes with its key alone
    with_messages = rig.db.connection.info.server_version >= 140000
    if with_messages:
        rig.db.sql("SELECT pg_logical_emit_message(true, 'm', repeat('x', 5000)),"
                   " pg_logical_emit_message(true, 'm', 'small')")
    rig.db.sql("INSERT INTO t VALUES (5, 'the end')")
    sent = [("insert", "public.t", {"id": 1}), ("insert", "public.t", {"id": 3}),
            *[("update", "public.t", {"id": 2})] * 2, ("delete", "public.t", {"id": 3}),
            ("delete", "public.t", {"id": 4}), *[("message", "pg_message.m", None)] * with_messages, ("insert", "public.t", {"id": 5})]
    dead = [("insert", "public.t", {"id": 2}), ("update", "public.t", {"id": 4}), *[("message", "pg_message.m", None)] * with_messages]
    rig.wait_arrived(len(sent))
    stored = wait_state(rig, 0, len(dead))
    assert brief(stored.dead()) == dead
    records = rig.receiver.records()
    assert brief(records) == sent
    assert [r["changes"] for r in records if "changes" in r] == [{"v": "small"}]
    assert [r["fields"] for r in records if r["key"] == {"id": 4}] == [{"id": 4}]
    for record in stored.dead():
        assert record["fields"] is None and "changes" not in record
        assert 5000 <= record["too_large"]["bytes"] < 5020 and record["too_large"]["max_bytes"] == 4096
        assert record["position"] and record["commit"]["xid"]
    assert rig.walpost.metric("walpost_source_too_large_records_total") == len(dead)
    told = rig.walpost.events("record_too_large")
    assert told and told[0]["schema"] == "public.t" and told[0]["id"] == stored.dead()[0]["id"]
    # Not again after a restart, and nothing to send when they are replayed.
    assert rig.walpost.stop() == 0
    stored.run("UPDATE parked SET state = 2")
    rig.walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (6, 'after')")
    rig.wait_arrived(len(sent) + 1)
    wait_state(rig, 0, len(dead))
    assert brief(rig.receiver.records()) == [*sent, ("insert", "public.t", {"id": 6})]


@pytest.mark.sanitized
def test_rows_above_the_limit_that_were_there_before(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', CASE g % 3 WHEN 0 THEN 5000 ELSE 10 END)"
               " FROM generate_series(1, 30) g")
    rig.db.publish("t")
    if not rig.receivers:
        rig.add_receiver()
    rig.start(syncs={"main": {**rig.sync(rig.receiver.name), "skip_initial_backfill": False}},
              connection={"max_record_bytes": "4KiB"})
    rig.wait_arrived(20)
    stored = wait_state(rig, 0, 10)
    assert {r["key"]["id"] for r in stored.dead()} == set(range(3, 31, 3))
    assert {r["key"]["id"] for r in rig.receiver.records()} == {i for i in range(1, 31) if i % 3}
    rig.db.sql("UPDATE t SET v = 'small' WHERE id = 3")
    rig.wait_arrived(21)


@pytest.mark.sanitized
def test_a_record_above_the_limit_passes_every_filter(rig):
    """What it held is not known, so it may have been one that the sync wants."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.add_receiver()
    chosen = {"id": "public.t", "fields": ["id"],
              "filters": [{"field_id": "id", "function": "GreaterThan", "value": 1}]}
    rig.start(syncs={"main": {**rig.sync(rig.receiver.name), "schemas": [chosen]}},
              connection={"max_record_bytes": "4KiB"})
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 5000 * (g % 2)) FROM generate_series(1, 4) g")
    rig.wait_arrived(2)
    stored = wait_state(rig, 0, 2)
    assert [r["key"] for r in stored.dead()] == [{"id": 1}, {"id": 3}]
    assert {r["fields"]["id"] for r in rig.receiver.records()} == {2, 4}


@pytest.mark.sanitized
def test_a_record_above_the_limit_is_kept_under_the_key_that_is_sent(rig):
    """A column that must not go out does not go into a dead letter either."""
    for table in ("hashed", "gone"):
        rig.db.sql(f"CREATE TABLE {table} (id text PRIMARY KEY, v text)")
    rig.db.publish("hashed", "gone")
    syncs = selected(rig, [
        {"id": "public.hashed", "fields": ["v", {"id": "id", "obfuscate": "hash"}]},
        {"id": "public.gone", "fields": ["v"]}])
    syncs["main"]["obfuscation_key"] = KEY
    rig.start(syncs=syncs, connection={"max_record_bytes": "4KiB"})
    rig.db.sql("INSERT INTO hashed VALUES ('secret', repeat('x', 5000))")
    rig.db.sql("INSERT INTO gone VALUES ('secret', repeat('x', 5000))")
    rig.db.sql("UPDATE hashed SET v = 'small'")
    rig.wait_arrived(1)
    stored = wait_state(rig, 0, 2)
    assert [(r["key"], r["fields"]) for r in stored.dead()] == [({"id": hashed("secret")}, None), (None, None)]
    assert rig.receiver.records()[0]["key"] == {"id": hashed("secret")}
    assert "secret" not in json.dumps(stored.dead())


def test_the_limit_is_exact(rig):
    """A record of so many bytes passes, one of a byte more does not."""
    limited(rig)
    rig.db.sql("INSERT INTO t VALUES (1000, '')")
    rig.wait_arrived(1)
    overhead = len(json.dumps(rig.receiver.records()[0], separators=(",", ":"), ensure_ascii=False))
    room = 4096 - overhead
    rig.db.sql(f"INSERT INTO t SELECT g, repeat('x', {room - 1001} + g) FROM generate_series(1000 + 1, 1000 + 3) g")
    stored = wait_state(rig, 0, 2)
    rig.wait_arrived(2)
    assert [r["key"] for r in rig.receiver.records()] == [{"id": 1000}, {"id": 1001}]
    assert [r["key"] for r in stored.dead()] == [{"id": 1002}, {"id": 1003}]


# --- what the server cannot send ---------------------------------------------------------------


def assert_the_remedy_works(rig):
    """Capture stops at a change that can never be sent; what it prints gets it going again."""
    walpost = rig.walpost
    wait_for("capture stops", lambda: walpost.events("capture_failed"), 240, tail=walpost.tail)
    event = walpost.events("capture_failed")[0]
    assert event["code"] == "protocol" and "1 GB" in event["remedy"], event
    assert walpost.process.wait() == 1
    rig.db.released()
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


@one_version
def test_a_transaction_in_parts_takes_no_memory(rig, note):
    """group: transaction, and one that is far larger than a request."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start(order="sync", group="transaction", batch_size=1000)
    before = rig.walpost.memory_kib("VmHWM")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 2000) FROM generate_series(1, 50000) g")
    wait_for("all of it has arrived", lambda: rig.receiver.stats()["records"] == 50000, 240, tail=rig.tail)
    grown = rig.walpost.memory_kib("VmHWM") - before
    note(f"100 MB in one transaction: {grown / MIB:.0f} MiB more")
    assert grown < 60 * MIB
    found = [json.loads(b"{" + r.body[r.body.rindex(b'"metadata":'):-1])["metadata"]["transaction"]
             for r in rig.receiver.requests()]
    assert [f["part"] for f in found] == list(range(1, len(found) + 1)) and len(found) > 90
    assert [f["last"] for f in found] == [False] * (len(found) - 1) + [True]
