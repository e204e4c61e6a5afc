"""Records that the endpoint refuses while it accepts others: set aside, tried again, given up."""

import itertools
import json
import random
import sqlite3
import time

import checker
import pytest
from load import Writers
from machine import wait_for
from vault import Vault

pytestmark = pytest.mark.sanitized

REFUSED = {"match": '"poison', "status": 422, "body": '{"error": "no poison"}', "action": "answer"}
SOON = {"retry_schedule": ["100ms", "100ms", "100ms"]}
LATER = {"retry_schedule": ["1h"]}
FRESH = itertools.count(100000)  # ids of rows that are there to be accepted


def begin(rig, tables=("t",), **delivery):
    for table in tables:
        rig.db.table(table)
    rig.db.publish(*tables)
    delivery.setdefault("batch_size", 10)
    delivery.setdefault("concurrency", 4)
    rig.start(**delivery)


def insert(rig, first, n, table="t"):
    rig.db.sql(f"INSERT INTO {table} SELECT g, 'x' FROM generate_series({first}, {first + n - 1}) g")


class Stored:
    """What the store holds of a sync, read as a second process would."""

    def __init__(self, rig, sync="main"):
        self.rig, self.sync = rig, sync

    def run(self, text, *values):
        database = sqlite3.connect(self.rig.walpost.data / "state.db", timeout=60)
        try:
            with database:
                return database.execute(text, values).fetchall()
        finally:
            database.close()

    def rows(self, state):
        return [json.loads(self.opened(row[0], "record", row[1])) for row in self.run(
            "SELECT id, record FROM parked WHERE sync = ? AND state = ? ORDER BY id", self.sync, state)]

    def opened(self, record_id, column, value):
        return Vault(self.rig.walpost.data).open(self.sync, record_id, column, value)

    def text(self, record_id, column):
        """A column of the row that is encrypted."""
        ((value,),) = self.run(f"SELECT {column} FROM parked WHERE sync = ? AND id = ?", self.sync, record_id)
        return self.opened(record_id, column, value)

    def parked(self):
        return self.rows(0)

    def dead(self):
        return self.rows(1)


def ids(records):
    return [record["id"] for record in records]


def wait_state(rig, parked, dead, seconds=120):
    """Until the metrics say so, and so does the store."""
    stored = Stored(rig)

    def reached():
        return (rig.walpost.metric("walpost_parked_records") == parked
                and rig.walpost.metric("walpost_dead_letters") == dead
                and len(stored.parked()) == parked and len(stored.dead()) == dead)
    wait_for(f"{parked} records are parked and {dead} dead", reached, seconds,
             tail=lambda: f"{len(stored.parked())} parked, {len(stored.dead())} dead\n{rig.tail()}")
    return stored


def feed(rig, until, seconds=120):
    """Inserts rows that are accepted, as proofs that the endpoint works, until it is so."""
    def fed():
        insert(rig, next(FRESH), 1)
        return until()
    wait_for("the sync has come so far", fed, seconds, 0.1, tail=rig.tail)


def is_parked(rig, n):
    return lambda: rig.walpost.metric("walpost_parked_records") >= n


def test_a_record_in_trouble_is_parked_and_its_key_queues_behind_it(rig):
    begin(rig, **LATER)
    rig.receiver.control(REFUSED)
    insert(rig, 0, 50)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    feed(rig, is_parked(rig, 1))
    for i in range(20):
        rig.db.sql("UPDATE t SET v = %s WHERE id = 500", f"later {i}")
        insert(rig, 1000 + i, 1)
    stored = wait_state(rig, 21, 0)
    assert [r["fields"]["v"] for r in stored.parked()] == ["poison"] + [f"later {i}" for i in range(20)]
    expected = checker.expected_count(rig.db.history()) - 21
    rig.wait_arrived(expected)
    arrived = rig.receiver.poll().records
    assert not set(ids(stored.parked())) & set(arrived)
    assert len(arrived) == expected

    # The checkpoint has passed them; they outlive the process.
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    wait_state(rig, 21, 0)
    rig.db.sql("UPDATE t SET v = 'last' WHERE id = 500")
    stored = wait_state(rig, 22, 0)
    stored.run("UPDATE parked SET next_us = 0")
    rig.walpost.kill()
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()
    wait_state(rig, 0, 0)
    rig.db.sql("UPDATE t SET v = 'free again' WHERE id = 500")
    assert rig.assert_whole().ok


def test_a_key_that_fails_for_long_keeps_no_other_waiting(rig):
    """It is not parked yet, and more than the read window holds lies behind it."""
    begin(rig, tables=("big", "small"), batch_size=50, concurrency=2)
    rig.receiver.control({"match": '"poison', "status": 500, "body": "no", "action": "answer"})
    rig.db.sql("INSERT INTO big VALUES (0, 'poison')")
    for i in range(10):
        rig.db.sql("UPDATE big SET v = %s WHERE id = 0", f"later {i}")
        insert(rig, 1000 + 100 * i, 100, "small")
    rig.db.sql("INSERT INTO big SELECT g, repeat('y', 4000) FROM generate_series(1, 3500) g")
    rig.db.sql("UPDATE big SET v = 'last' WHERE id = 0")
    insert(rig, 5000, 100, "small")
    rig.wait_arrived(checker.expected_count(rig.db.history()) - 12, seconds=120)
    assert rig.walpost.metric("walpost_parked_records") == 0

    # What came behind it comes again after a crash, in order.
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    assert rig.assert_whole().ok


def test_a_parked_record_becomes_a_dead_letter_and_the_next_of_its_key_is_tried(rig):
    begin(rig, **SOON)
    rig.receiver.control(REFUSED)
    with rig.db.connect() as connection:
        connection.execute("INSERT INTO t VALUES (500, 'poison')")
        connection.execute("UPDATE t SET v = 'good' WHERE id = 500")
        connection.execute("UPDATE t SET v = 'poison too' WHERE id = 500")
        connection.execute("UPDATE t SET v = 'better' WHERE id = 500")
    feed(rig, lambda: rig.walpost.metric("walpost_dead_letters") == 2)
    stored = wait_state(rig, 0, 2)
    dead = stored.dead()
    assert [r["fields"]["v"] for r in dead] == ["poison", "poison too"]
    rig.wait_arrived(checker.expected_count(rig.db.history()) - 2)
    report = checker.judge(rig.receiver.poll(), rig.db.history())
    assert {f.kind for f in report.findings} == {"missing"} and len(report.findings) == 2, report
    (row,) = stored.run("SELECT attempts, status, name FROM parked WHERE id = ?", dead[0]["id"])
    assert row[0] >= 4 and row[1] == 422 and row[2] == "public.t"
    assert stored.text(dead[0]["id"], "reason").startswith("422")
    assert stored.text(dead[0]["id"], "response") == '{"error": "no poison"}'
    assert json.loads(stored.text(dead[0]["id"], "key")) == {"id": 500}
    assert "records were given up" in rig.walpost.get("/healthz")[1]

    # Replayed by another process, refused once more, then accepted: the id is kept.
    stored.run("UPDATE parked SET state = 2 WHERE id = ?", dead[0]["id"])
    wait_for("it is refused again", lambda: stored.run(
        "SELECT state, attempts FROM parked WHERE id = ?", dead[0]["id"]) == [(1, row[0] + 1)],
        tail=rig.tail)
    rig.receiver.behave()
    stored.run("UPDATE parked SET state = 2")
    wait_state(rig, 0, 0)
    rig.wait_arrived(checker.expected_count(rig.db.history()))
    replays = [r for r in rig.receiver.requests() if r.headers.get("webhook-replay") == "true"]
    sent = [record for r in replays if r.accepted for record, _ in checker.split_records(r.body)]
    assert ids(sent) == ids(dead)
    assert all(r.headers.get("webhook-replay") is None for r in rig.receiver.requests()
               if r not in replays)


def test_a_time_out_of_one_record_is_its_own_trouble_in_the_end(rig):
    begin(rig, park={"after": "0s", "attempts": 3}, timeout="1s", **LATER)
    rig.receiver.control({"match": '"poison', "action": "hang"})
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    feed(rig, is_parked(rig, 1))
    wait_state(rig, 1, 0)


def test_a_barrier_waits_for_the_parked_records_of_its_table(rig):
    begin(rig, ("t", "u"), retry_schedule=["1h", "1h"])
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    feed(rig, is_parked(rig, 1))
    rig.db.sql("UPDATE t SET v = 'behind it' WHERE id = 500")
    wait_state(rig, 2, 0)
    with rig.db.connect(autocommit=False) as connection:
        connection.execute("TRUNCATE t")
        connection.execute("INSERT INTO t VALUES (500, 'after')")
        connection.execute("INSERT INTO u VALUES (1, 'another table')")
    # Tried every few seconds instead of every hour; given up; then everything else goes on.
    wait_state(rig, 0, 1)
    rig.wait_arrived(checker.expected_count(rig.db.history()) - 1)
    report = checker.judge(rig.receiver.poll(), rig.db.history())
    assert {f.kind for f in report.findings} == {"missing"} and len(report.findings) == 1, report


NO_TRUNCATE = {"match": '"operation":"truncate","schema":"public.t"', "status": 422,
               "action": "answer"}


def feed_u(rig, until):
    """Rows of another table, which are accepted."""
    def fed():
        insert(rig, next(FRESH), 1, "u")
        return until()
    wait_for("the sync has come so far", fed, 120, 0.1, tail=rig.tail)


def stopped_tables(rig):
    return rig.walpost.metric("walpost_stopped_tables")


def arrived_of(rig, table):
    return [r for r in rig.receiver.records() if r["schema"] == f"public.{table}"]


def stop_t(rig, **delivery):
    begin(rig, ("t", "u"), **delivery)
    rig.receiver.control(NO_TRUNCATE)
    insert(rig, 0, 10)
    rig.assert_whole()
    with rig.db.connect() as connection:
        connection.execute("TRUNCATE t")
        connection.execute("INSERT INTO t VALUES (1, 'behind it')")
    feed_u(rig, lambda: stopped_tables(rig) == 1)
    insert(rig, 100, 10)


def resume(rig):
    done = rig.walpost.command("resume", "main")
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.parametrize("order", ["key", "none"])
def test_a_refused_barrier_stops_its_table_until_it_is_resumed(rig, order):
    stop_t(rig, order=order)
    (event,) = rig.walpost.events("table_stopped")
    assert all(word in event["msg"] for word in ("public.t", "truncate", "422"))
    assert "walpost resume main" in event["remedy"]
    assert "walpost resume main" in rig.walpost.get("/status.txt")[1]
    assert "walpost resume main" in rig.walpost.get("/healthz")[1]
    insert(rig, 0, 50, "u")
    wait_for("the other table goes on", lambda: {r["key"]["id"] for r in arrived_of(rig, "u")}
             >= set(range(50)), tail=rig.tail)
    assert len(arrived_of(rig, "t")) == 10
    wait_for("that is written down", lambda: Stored(rig).run(
        "SELECT name, state FROM cursor_table") == [("public.t", 4)], tail=rig.tail)
    for _ in range(2):
        rig.walpost.kill()
        rig.walpost.start(databases=[rig.db])
        wait_for("it still stands", lambda: stopped_tables(rig) == 1, tail=rig.tail)
        insert(rig, next(FRESH), 1)
        feed_u(rig, lambda: len(arrived_of(rig, "u")) > 60)
    assert len(arrived_of(rig, "t")) == 10
    # Refused once more, it stops again at the same record.
    before = len(rig.walpost.events("table_stopped"))
    assert "stopped go on" in resume(rig)
    feed_u(rig, lambda: rig.walpost.events("tables_resumed") and stopped_tables(rig) == 1
           and len(rig.walpost.events("table_stopped")) > before)
    assert len(arrived_of(rig, "t")) == 10
    rig.receiver.behave()
    resume(rig)
    rig.assert_whole()
    wait_for("nothing has stopped", lambda: stopped_tables(rig) == 0, tail=rig.tail)
    insert(rig, 200, 10)
    rig.assert_whole()
    wait_for("it streams with the others", lambda: Stored(rig).run(
        "SELECT count(*) FROM cursor_table") == [(0,)], tail=rig.tail)
    rig.walpost.stop()
    assert rig.walpost.command("status").returncode == 0


def test_a_stopped_table_that_is_copied_again_goes_on(rig):
    stop_t(rig)
    done = rig.walpost.command("resync", "main", "public.t")
    assert done.returncode == 0, done
    wait_for("its rows come", lambda: {r["key"]["id"] for r in arrived_of(rig, "t")
                                       if r["operation"] == "read"} == {1, *range(100, 110)},
             tail=rig.tail)
    insert(rig, 500, 1)
    wait_for("its changes come", lambda: any(r["key"] == {"id": 500} for r in arrived_of(rig, "t")),
             tail=rig.tail)
    wait_for("nothing has stopped", lambda: stopped_tables(rig) == 0, tail=rig.tail)
    rig.walpost.restart(databases=[rig.db])
    assert stopped_tables(rig) == 0
    assert not any(r["operation"] == "truncate" for r in arrived_of(rig, "t"))


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_copy_of_a_stopped_table_that_comes_to_nothing_changes_nothing(rig, is_killed):
    """It is paused in its middle; the table stands where it stood, and resume sends all of it."""
    begin(rig, ("t", "u"), change={"backfill": {"rows_per_second": 50, "connections": 1}})
    rig.receiver.control(NO_TRUNCATE)
    insert(rig, 0, 10)
    rig.db.sql("TRUNCATE t")
    insert(rig, 1000, 2000)
    feed_u(rig, lambda: stopped_tables(rig) == 1)
    assert rig.walpost.command("resync", "main", "public.t").returncode == 0
    wait_for("rows are copied", lambda: any(r["operation"] == "read" for r in arrived_of(rig, "t")),
             tail=rig.tail)
    insert(rig, 5000, 10)
    rig.db.sql("DELETE FROM t WHERE id < 1100")
    assert rig.walpost.command("backfill", "pause", "main").returncode == 0
    if is_killed:
        rig.walpost.kill()
        rig.walpost.start(databases=[rig.db])
    feed_u(rig, lambda: stopped_tables(rig) == 1)
    insert(rig, 6000, 10)
    feed_u(rig, lambda: len(arrived_of(rig, "u")) > 20)
    assert not any(r["operation"] != "read" for r in arrived_of(rig, "t")
                   if not r["key"] or r["key"]["id"] >= 10), "nothing passes the truncate"
    rig.receiver.behave()
    resume(rig)
    # Copied rows count as arrived, too, so what is missing may still come.
    wait_for("nothing is missing", lambda: not [f for f in rig.verdict().findings if f.kind == "missing"], 120, 0.2,
             tail=lambda: f"{rig.verdict()}\n{rig.tail()}")
    wait_for("nothing has stopped", lambda: stopped_tables(rig) == 0, tail=rig.tail)


def test_kill_at_random_moments_while_a_table_has_stopped_and_comes_back(rig, seed):
    rng = random.Random(seed)
    Writers.tables(rig.db)
    refused = {"match": '"operation":"truncate","schema":"public.a"', "status": 422,
               "action": "answer"}
    rig.add_receiver().control(refused)
    rig.start(concurrency=4, batch_size=10)
    with Writers(rig.db, seed, threads=2) as writers:
        for _ in range(3):
            rig.receiver.control(refused)
            rig.db.sql("TRUNCATE a")
            wait_for("the table stops", lambda: stopped_tables(rig) == 1, 60, tail=rig.tail)
            time.sleep(rng.uniform(0, 0.3))
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
            rig.receiver.behave()
            resume(rig)
            time.sleep(rng.uniform(0, 0.5))
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
        assert not writers.errors
    rig.assert_whole()
    wait_for("nothing has stopped", lambda: stopped_tables(rig) == 0, tail=rig.tail)


def test_both_halves_of_a_changed_key_are_parked_in_order(rig):
    begin(rig, **LATER)
    rig.receiver.control({"match": '"operation":"delete","schema":"public.t","key":{"id":500}',
                          "status": 422, "action": "answer"})
    rig.db.sql("INSERT INTO t VALUES (500, 'x')")
    rig.assert_whole()
    rig.db.sql("UPDATE t SET id = 600 WHERE id = 500")
    feed(rig, is_parked(rig, 2))
    rig.db.sql("UPDATE t SET v = 'y' WHERE id = 600")
    rig.db.sql("UPDATE t SET id = 700 WHERE id = 600")
    stored = wait_state(rig, 5, 0)
    assert [(r["operation"], r["key"]["id"]) for r in stored.parked()] == [
        ("delete", 500), ("update", 600), ("update", 600), ("delete", 600), ("update", 700)]
    rig.receiver.behave()
    stored.run("UPDATE parked SET next_us = 0")
    rig.walpost.restart(databases=[rig.db])
    wait_state(rig, 0, 0)
    rig.assert_whole()
    order = list(dict.fromkeys(r["id"] for r in rig.receiver.records() if r["key"]["id"] in (500, 600, 700)))
    assert order == sorted(order)


def test_copied_rows_in_trouble_are_parked(rig):
    rig.db.table("t")
    rig.db.publish("t")
    insert(rig, 0, 500)
    rig.db.sql("UPDATE t SET v = 'poison' WHERE id = 77")
    rig.add_receiver().control(REFUSED)
    rig.prepare(syncs={"main": rig.sync("hook", backfill=True, batch_size=10, concurrency=4,
                                        **LATER)})
    rig.walpost.start(databases=[rig.db])
    feed(rig, is_parked(rig, 1))
    rig.db.sql("UPDATE t SET v = 'good' WHERE id = 77")
    stored = wait_state(rig, 2, 0)
    assert [(r["operation"], r["fields"]["v"]) for r in stored.parked()] == [
        ("read", "poison"), ("update", "good")]
    wait_for("the copy ends", lambda: rig.walpost.metric("walpost_backfill_pending_tables") == 0,
             tail=rig.tail)
    rig.receiver.behave()
    stored.run("UPDATE parked SET next_us = 0")
    rig.walpost.restart(databases=[rig.db])
    wait_state(rig, 0, 0)
    of_key = [r for r in rig.receiver.records() if r["key"] == {"id": 77}]
    assert [r["operation"] for r in of_key] == ["read", "update"]


def test_a_record_of_a_table_without_keys_parks_its_table(rig):
    rig.db.sql("CREATE TABLE n (v text)")
    rig.db.table("t")
    rig.db.publish("t", "n")
    rig.start(batch_size=10, concurrency=4, **LATER)
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO n VALUES ('poison')")
    feed(rig, is_parked(rig, 1))
    rig.db.sql("INSERT INTO n VALUES ('behind')")
    wait_state(rig, 2, 0)


def test_without_order_only_the_record_itself_is_parked(rig):
    begin(rig, order="none", **LATER)
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    feed(rig, is_parked(rig, 1))
    rig.db.sql("UPDATE t SET v = 'later' WHERE id = 500")
    rig.wait_arrived(checker.expected_count(rig.db.history()) - 1)
    wait_state(rig, 1, 0)


def test_order_sync_stops_at_a_refused_record(rig):
    begin(rig, order="sync", park={"after": "1s"})
    rig.receiver.control(REFUSED)
    insert(rig, 0, 10)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    insert(rig, 1000, 10)
    wait_for("the sync stops", lambda: rig.walpost.events("sync_failed"), 60, tail=rig.tail)
    assert "422" in rig.walpost.events("sync_failed")[0]["msg"]
    assert "on_reject" in rig.walpost.events("sync_failed")[0]["remedy"]
    rig.receiver.behave()
    rig.walpost.restart(databases=[rig.db])
    rig.assert_whole()


def test_order_sync_makes_a_dead_letter_when_it_says_so(rig):
    begin(rig, order="sync", park={"after": "1s"}, on_reject="dead_letter")
    rig.receiver.control(REFUSED)
    insert(rig, 0, 10)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    insert(rig, 1000, 10)
    rig.wait_arrived(20)
    stored = wait_state(rig, 0, 1)
    assert stored.dead()[0]["key"] == {"id": 500}
    arrived = [r["id"] for r in rig.receiver.records()]
    assert arrived == sorted(set(arrived))


def fill_park(rig):
    """A record that is refused, and more of its key than a small park holds."""
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    feed(rig, is_parked(rig, 1))
    for i in range(30):
        rig.db.sql("UPDATE t SET v = %s WHERE id = 500", f"later {i}")
    wait_for("the park is full", lambda: rig.walpost.events("park_is_full"), tail=rig.tail)


def test_a_full_park_stops_the_sync_and_drops_nothing(rig):
    begin(rig, park={"max_bytes": "4KiB"}, **LATER)
    fill_park(rig)
    assert "park.max_bytes" in rig.walpost.events("park_is_full")[0]["msg"]
    config = rig.walpost.config
    config["bulk_syncs"]["main"]["destination_configuration"]["park"] = {"max_bytes": "1MiB"}
    rig.walpost.stop()
    rig.walpost.write(config)
    rig.walpost.start(databases=[rig.db])
    stored = wait_state(rig, 31, 0)
    rig.receiver.behave()
    stored.run("UPDATE parked SET next_us = 0")
    rig.walpost.restart(databases=[rig.db])
    rig.assert_whole()


def test_a_full_park_is_tried_on_and_the_sync_goes_on_when_there_is_room(rig):
    begin(rig, ("t", "u"), park={"max_bytes": "4KiB"}, retry_schedule=["1s"] * 20 + ["5s"] * 40)
    fill_park(rig)
    insert(rig, 0, 20, "u")
    wait_for("that is shown", lambda: "fill park.max_bytes" in rig.walpost.get("/status.txt")[1],
             tail=rig.tail)
    attempts = Stored(rig).run("SELECT max(attempts) FROM parked")
    wait_for("what is parked is tried", lambda: Stored(rig).run(
        "SELECT max(attempts) FROM parked") > attempts, tail=rig.tail)
    assert not any(r["schema"] == "public.u" for r in rig.receiver.records())
    rig.walpost.kill()
    rig.walpost.start(databases=[rig.db])
    wait_for("it is full again", lambda: len(rig.walpost.events("park_is_full")) >= 2,
             tail=rig.tail)
    pid = rig.walpost.process.pid
    rig.receiver.behave()
    rig.assert_whole()
    wait_state(rig, 0, 0)
    wait_for("that is told", lambda: rig.walpost.events("park_has_room"), tail=rig.tail)
    assert rig.walpost.process.pid == pid


def test_discarded_dead_letters_make_room_for_a_full_park(rig):
    begin(rig, park={"max_bytes": "4KiB"}, retry_schedule=["100ms"])
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t SELECT g, 'poison' || repeat('x', 1000) FROM generate_series(500, 509) g")
    feed(rig, lambda: rig.walpost.events("park_is_full"))
    wait_for("all that is parked is dead", lambda: rig.walpost.metric(
        "walpost_parked_records") == 0, tail=rig.tail)
    kept = len(Stored(rig).dead())
    assert 0 < kept < 10
    rig.receiver.behave()
    done = rig.walpost.command("dead-letters", "discard", "--all")
    assert done.returncode == 0, done
    rig.wait_arrived(checker.expected_count(rig.db.history()) - kept)
    wait_state(rig, 0, 0)


def test_halving_finds_one_record_of_many_in_few_requests(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.add_receiver().control({"status": 503, "action": "answer"})
    rig.start(batch_size=1024, concurrency=1, **LATER)
    rig.db.sql("INSERT INTO t SELECT g, CASE WHEN g = 700 THEN 'poison' ELSE 'x' END"
               " FROM generate_series(1, 1024) g")
    wait_for("all is read", lambda: rig.walpost.metric("walpost_window_records") == 1024,
             tail=rig.tail)
    rig.receiver.control(REFUSED)
    rig.wait_arrived(699)
    refused = [r for r in rig.receiver.requests() if r.status == 422]
    # 1024, 512, ... 1: halved ten times; a probe or the first request may have been smaller.
    assert len([r for r in refused if len(checker.split_records(r.body)) > 1]) <= 10
    feed(rig, is_parked(rig, 1))
    rig.wait_arrived(1023)
    wait_state(rig, 1, 0)


def unsent(rig, n):
    """Inserts n rows that the endpoint does not take; their ids, by the row's id."""
    rig.receiver.control({"status": 503, "action": "answer"})
    insert(rig, 0, n)

    def seen():
        return {record["key"]["id"]: record["id"] for request in rig.receiver.requests()
                if request.body for record, _ in checker.split_records(request.body)}
    wait_for("every row was in a request", lambda: len(seen()) >= n, tail=rig.tail)
    return seen()


def answer(*failed):
    return json.dumps({"failed": [dict(f) for f in failed]})


def test_a_receiver_takes_a_part_of_a_request(rig):
    rig.add_receiver()
    begin(rig, partial_success=True, batch_size=10, concurrency=1, **LATER)
    bad = unsent(rig, 10)[5]
    rig.receiver.control({"match": bad, "status": 200, "action": "answer", "body": answer(
        {"id": bad, "reason": "no fives", "retry": False})})
    feed(rig, is_parked(rig, 1))
    stored = wait_state(rig, 1, 0)
    assert ids(stored.parked()) == [bad]
    assert "no fives" in stored.text(bad, "reason")
    expected = checker.expected_count(rig.db.history()) - 1
    wait_for("the others are delivered", lambda: rig.walpost.metric(
        "walpost_delivered_records_total") == expected, tail=rig.tail)


def test_without_partial_success_the_status_line_decides(rig):
    rig.add_receiver()
    begin(rig, batch_size=10, concurrency=1)
    rig.receiver.control({"status": 200, "action": "answer", "body": '{"failed": ['})
    insert(rig, 0, 10)
    rig.assert_whole()
    assert rig.walpost.metric("walpost_failed_requests_total") == 0


def test_kill_at_random_moments_while_keys_are_parked(rig, seed):
    """Between an answer and the checkpoint there is the write of what is parked; nothing gets lost there."""
    rng = random.Random(seed)
    Writers.tables(rig.db)
    rig.add_receiver().control(*({"match": f'"schema":"public.a","key":{{"id":{key}}}',
                                  "status": 422, "action": "answer"} for key in (3, 7, 11)))
    rig.start(concurrency=4, batch_size=10, **LATER)
    with Writers(rig.db, seed, threads=2, truncates=False) as writers:
        wait_for("keys are parked", lambda: rig.walpost.metric("walpost_parked_records") > 0,
                 tail=rig.tail)
        for _ in range(6):
            time.sleep(rng.uniform(0.1, 0.8))
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
        assert not writers.errors
    rig.walpost.kill()
    stored = Stored(rig)
    parked = stored.parked()
    assert parked and not stored.dead()
    assert not any(r["schema"] == "public.a" and r["key"]["id"] in (3, 7, 11)
                   for r in rig.receiver.records())
    rig.receiver.behave()
    stored.run("UPDATE parked SET next_us = 0")
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()
    wait_state(rig, 0, 0)


def test_half_of_all_records_are_refused_and_the_others_are_delivered(rig):
    """What is refused is parked as fast as the endpoint answers, and is no outage."""
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.add_receiver().control({"match": '"v":"bad', "status": 400, "action": "answer"})
    rig.start(**LATER)
    # The last ones are good: without others that are accepted nothing shows whose trouble it is.
    rig.db.sql("INSERT INTO t SELECT g, CASE WHEN g <= 20000 AND g % 2 = 0 THEN 'bad' ELSE 'good' END"
               " FROM generate_series(1, 20500) g")
    stored = Stored(rig)

    def is_over():
        return (rig.walpost.metric("walpost_delivered_records_total") == 10500
                and stored.run("SELECT count(*) FROM parked") == [(10000,)])
    wait_for("half of them are delivered, half are parked", is_over, 240, 0.2, tail=rig.tail)
    assert not rig.walpost.events("endpoint_trouble")
    assert {r["key"]["id"] for r in stored.parked()} == set(range(2, 20001, 2))
    arrived = rig.receiver.records()
    assert sorted(r["key"]["id"] for r in arrived) == sorted(
        [*range(1, 20001, 2), *range(20001, 20501)])
