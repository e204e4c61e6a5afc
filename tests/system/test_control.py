"""Commands to a walpost that runs, stands still, or dies meanwhile."""

import copy
import json
import os
import pty
import re
import subprocess

import checker
import pytest
from load import Writers
from machine import stays, wait_for
from test_backfill import (assert_ids_rise_per_key, backfilled, first_arrivals, tables_pending,
                           wait_copied, wait_equal)


def give(rig, *args, code=0, seconds=30):
    """A command's output, which came with this exit code."""
    done = rig.walpost.command(*args, seconds=seconds)
    assert done.returncode == code, f"{args}: {done}\n{rig.tail()}"
    return done.stdout + done.stderr


def state_of(rig, name="main"):
    body = json.loads(rig.walpost.get("/readyz")[1])
    return next(s for s in body["syncs"] if s["name"] == name)["state"]


def wait_state(rig, state):
    wait_for(f"the sync is {state}", lambda: state_of(rig) == state, tail=rig.tail)


def reads(rig, table=None):
    """Copied rows that arrived, repeats not counted."""
    return [r for r in first_arrivals(rig.receiver)
            if r["operation"] == "read" and table in (None, r["schema"])]


def assert_stream_is_whole(rig):
    """The checker's verdict about everything but copied rows, which no history knows."""
    rig.settle()
    arrivals = copy.copy(rig.receiver.poll())
    arrivals.records = {rid: r for rid, r in arrivals.records.items() if r[3] != "read"}
    report = checker.judge(arrivals, rig.db.history())
    assert report.ok, f"{report}\n{rig.tail()}"


# --- a sync ------------------------------------------------------------------------------------


@pytest.mark.sanitized
def test_a_paused_sync_holds_its_records_until_it_is_resumed(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.wait_arrived(1)
    assert "is paused" in give(rig, "pause", "main")
    wait_state(rig, "paused")
    assert rig.walpost.metric("walpost_sync_state", sync="main", state="paused") == 1
    assert "paused" in rig.walpost.get("/status.txt")[1]
    assert rig.walpost.get("/readyz")[0] == 200 and rig.walpost.get("/readyz?strict")[0] == 503
    assert rig.walpost.get("/healthz")[0] == 200
    rig.db.sql("INSERT INTO t SELECT g, 'held' FROM generate_series(2, 300) g")
    wait_for("they are captured", lambda: rig.walpost.metric(
        "walpost_captured_records_total") >= 300, tail=rig.tail)
    requests = rig.receiver.stats()["requests"]
    rig.walpost.restart(databases=[rig.db])
    wait_state(rig, "paused")
    stays("nothing is sent", lambda: rig.receiver.stats()["requests"] == requests, 1)
    assert "goes on" in give(rig, "resume", "main")
    rig.assert_whole()
    wait_state(rig, "running")


def test_commands_given_while_walpost_stands_still_are_done_at_its_start(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare()
    assert "start `walpost run`" in give(rig, "pause", "main", code=1)
    rig.walpost.start(databases=[rig.db])
    rig.walpost.stop()
    assert "is not running" in give(rig, "pause", "main")
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.walpost.start(databases=[rig.db])
    wait_state(rig, "paused")
    wait_for("it is captured", lambda: rig.walpost.metric(
        "walpost_captured_records_total") >= 1, tail=rig.tail)
    assert rig.receiver.stats()["requests"] == 0
    rig.walpost.kill()
    give(rig, "resume", "main")
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


def test_what_does_not_exist_is_refused_with_what_does(rig):
    rig.db.table("t")
    rig.db.sql("CREATE TABLE other (id int PRIMARY KEY)")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    wait_copied(rig, 1)
    assert "it has main" in give(rig, "pause", "mian", code=2)
    assert "it has main" in give(rig, "resync", "mian", code=2)
    assert "it has main" in give(rig, "backfill", "resume", "mian", code=2)
    assert "it has main" in give(rig, "backfill", "status", "mian", code=2)
    assert "it has main" in give(rig, "resume", code=2)
    assert "backfill knows" in give(rig, "backfill", "stop", "main", code=2)
    assert "it has public.t" in give(rig, "resync", "main", "public.other", code=2)
    assert "too many" in give(rig, "pause", "main", "more", code=2)
    assert not rig.walpost.events("resync")


def test_a_sync_without_reads_is_not_copied(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(operations=["insert", "update", "delete"])
    assert "do not name read" in give(rig, "resync", "main", code=1)


def refuse(rig, answer, first, n=10):
    """Everything gets this answer until the sync has stopped; n rows more wait."""
    rig.receiver.control({**answer, "action": "answer"})
    stopped = len(rig.walpost.events("sync_failed"))
    rig.db.sql(f"INSERT INTO t SELECT g, 'x' FROM generate_series({first}, {first + n - 1}) g")
    wait_for("the sync stops", lambda: len(rig.walpost.events("sync_failed")) > stopped, 60,
             tail=rig.tail)
    wait_state(rig, "failed")


@pytest.mark.sanitized
@pytest.mark.parametrize("answer,delivery", [
    ({"status": 410}, {}), ({"status": 401}, {"auth_errors": "stop"}),
    ({"status": 422}, {"order": "sync", "park": {"after": "200ms"}})], ids=["410", "401", "422"])
def test_a_sync_that_stopped_is_resumed_without_a_restart(rig, answer, delivery):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(batch_size=5, **delivery)
    rig.db.sql("INSERT INTO t VALUES (0, 'x')")
    rig.assert_whole()
    pid = rig.walpost.process.pid
    refuse(rig, answer, 100)
    assert "walpost resume main" in rig.walpost.events("sync_failed")[-1]["remedy"]
    requests = rig.receiver.stats()["requests"]
    assert "begins again" in give(rig, "resume", "main")
    wait_for("it asks again", lambda: rig.receiver.stats()["requests"] > requests, tail=rig.tail)
    wait_for("it stops again", lambda: len(rig.walpost.events("sync_failed")) == 2, 60,
             tail=rig.tail)
    wait_state(rig, "failed")
    rig.receiver.control({"delay_ms": 20, "action": "answer"})
    for _ in range(3):
        give(rig, "resume", "main")
    assert rig.assert_whole().repeats == 0, "one thread delivers"
    wait_state(rig, "running")
    refuse(rig, answer, 200)
    rig.receiver.behave()
    rig.walpost.kill()
    rig.walpost.start(databases=[rig.db])
    assert rig.walpost.process.pid != pid
    give(rig, "resume", "main")
    assert rig.assert_whole().repeats == 0


def test_a_sync_that_stopped_in_the_middle_of_a_copy_is_resumed(rig, seed):
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, repeat('x', 200), g FROM generate_series(1000, 6000) g")
    rig.db.server.sql("TRUNCATE history.change", database=rig.db.name)  # no change before the slot
    rig.add_receiver().control({"delay_ms": 5, "action": "answer"})
    rig.start(syncs=backfilled(rig, concurrency=4, batch_size=20))
    with Writers(rig.db, seed, threads=2, truncates=False):
        for rows in (200, 1500, 3000):
            wait_for("rows are copied", lambda: len(reads(rig)) > rows or tables_pending(
                rig.walpost) == 0, tail=rig.tail)
            rig.receiver.control({"status": 410, "action": "answer"})
            wait_state(rig, "failed")
            rig.receiver.control({"delay_ms": 5, "action": "answer"})
            give(rig, "resume", "main")
        wait_copied(rig, 2)
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    assert_stream_is_whole(rig)
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


# --- copying again -----------------------------------------------------------------------------


# A copy that cannot come to its end while its destination takes nothing.
HELD = {"backfill": {"connections": 1, "max_bytes": "1MiB", "stall_timeout": "1h"}}


def hold_in_the_middle(rig):
    """A receiver that takes a few requests of a copy, and no more until it is told to behave()."""
    rig.add_receiver().control({"skip": 4, "status": 503, "action": "answer"})


@pytest.mark.versions
def test_resync_under_load(rig, seed):
    """Every change arrives as if nothing were copied, and the rows once more."""
    Writers.tables(rig.db)
    rig.start(syncs=backfilled(rig, concurrency=8, batch_size=50))
    wait_copied(rig, 2)
    with Writers(rig.db, seed, threads=3, truncates=False):
        rig.db.sql("INSERT INTO a SELECT g, repeat('x', 200), g FROM generate_series(1000, 9000) g")
        before = len(reads(rig))
        assert "2 tables are copied again" in give(rig, "resync", "main")
        wait_copied(rig, 2)
        assert len(reads(rig)) >= before + 8000
        assert "public.b: table is copied again" in give(
            rig, "resync", "main", "public.b").replace("1 table", "table")
        wait_copied(rig, 2)
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    assert_stream_is_whole(rig)
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


def test_resync_of_a_sync_that_copied_nothing_at_first(rig):
    rig.db.table("t")
    rig.db.sql("CREATE TABLE u (id int PRIMARY KEY)")
    rig.db.sql("INSERT INTO u SELECT generate_series(1, 30)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    rig.db.publish("t", "u")
    rig.start()
    give(rig, "resync", "main", "public.t")
    wait_for("the rows arrive", lambda: len(reads(rig)) == 50, tail=rig.tail)
    wait_for("it is over", lambda: tables_pending(rig.walpost) == 0, tail=rig.tail)
    assert "the publication has no table public.x" in give(rig, "resync", "main", "public.x", code=1)
    rig.walpost.restart(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (51, 'y')")
    wait_for("the change arrives", lambda: any(
        r["operation"] == "insert" and r["key"] == {"id": 51} for r in first_arrivals(rig.receiver)),
        tail=rig.tail)
    assert len(reads(rig)) == 50, "only what was asked for, and once"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_resync_that_is_asked_for_while_nobody_runs(rig, how):
    rig.db.table("t")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    wait_copied(rig, 1)
    getattr(rig.walpost, how)()
    assert "is not running" in give(rig, "resync", "main")
    rig.db.sql("DELETE FROM t WHERE id = 1")
    rig.walpost.start(databases=[rig.db])
    wait_for("the rows arrive once more", lambda: len(reads(rig)) == 99, tail=rig.tail)
    wait_copied(rig, 1)
    wait_equal(rig, "t")


def test_a_resync_that_failed_is_tried_again_by_the_next_start_of_a_sync_without_backfill(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t VALUES (1, 'x')")
    rig.db.publish("t")
    rig.db.server.sql("ALTER TABLE t OWNER TO postgres", database=rig.db.name)
    walpost = rig.start()
    give(rig, "resync", "main", "public.t")
    wait_for("its copy fails", lambda: walpost.events("backfill_table_failed"), tail=rig.tail)
    rig.db.server.sql("GRANT SELECT ON t TO walpost", database=rig.db.name)
    walpost.stop()
    walpost.start(databases=[rig.db])
    wait_for("it is copied", lambda: any(r["key"] == {"id": 1} for r in reads(rig)), tail=rig.tail)


def test_resync_takes_up_a_table_whose_copy_failed(rig):
    rig.db.sql("CREATE TABLE theirs (id int PRIMARY KEY)")
    rig.db.sql("INSERT INTO theirs SELECT generate_series(1, 20)")
    rig.db.publish("theirs")
    rig.db.server.sql("ALTER TABLE theirs OWNER TO postgres", database=rig.db.name)
    rig.start(syncs=backfilled(rig))
    wait_for("its copy fails", lambda: rig.walpost.events("backfill_table_failed"), tail=rig.tail)
    wait_for("it is shown", lambda: "permission denied" in give(rig, "backfill", "status"),
             tail=rig.tail)
    rig.db.server.sql("GRANT SELECT ON theirs TO walpost", database=rig.db.name)
    give(rig, "resync", "main", "public.theirs")
    wait_copied(rig, 1)
    rig.wait_arrived(20)
    assert "copied" in give(rig, "backfill", "status", "main")


def test_resync_while_its_table_is_being_copied_begins_anew(rig):
    rig.db.table("t")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 20000) g")
    rig.db.publish("t")
    hold_in_the_middle(rig)
    rig.start(syncs=backfilled(rig), change=HELD)
    rig.wait_arrived(4)  # a row at least of each request that is taken
    give(rig, "resync", "main")
    rig.receiver.behave()
    wait_copied(rig, 1)
    rows = reads(rig)
    points = {r["position"] for r in rows}
    assert len(points) == 2 and sum(r["position"] == max(points) for r in rows) == 20000
    wait_equal(rig, "t")


# --- pausing the copy --------------------------------------------------------------------------


def snapshots(rig):
    return rig.db.server.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
                             " AND application_name = 'walpost copy'", rig.db.name)[0][0]


@pytest.mark.versions
def test_a_copy_is_paused_in_its_middle_and_resumed(rig, seed):
    """Paused, it holds neither a snapshot nor the table's changes, over a restart, too."""
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, repeat('x', 200), g FROM generate_series(1000, 20000) g")
    hold_in_the_middle(rig)
    rig.start(syncs=backfilled(rig, concurrency=4), change=HELD)
    rig.wait_arrived(4)  # a row at least of each request that is taken
    assert "is paused" in give(rig, "backfill", "pause", "main")
    wait_for("the snapshot is let go", lambda: snapshots(rig) == 0, tail=rig.tail)
    assert rig.walpost.metric("walpost_backfill_pending_tables") >= 1
    assert "paused" in give(rig, "backfill", "status")
    rig.receiver.behave()
    with Writers(rig.db, seed, threads=2, truncates=False):
        rig.db.sql("UPDATE a SET v = 'while it was paused' WHERE id = 19999")
        wait_for("changes of the table arrive", lambda: any(
            r["operation"] == "update" and r["key"] == {"id": 19999}
            for r in first_arrivals(rig.receiver)), tail=rig.tail)
        rig.walpost.kill()
        rig.db.sql("DELETE FROM a WHERE id % 7 = 0")
        rig.walpost.start(databases=[rig.db])
        before = len(reads(rig, "public.a"))
        stays("no row is copied", lambda: snapshots(rig) == 0, 1)
        assert len(reads(rig, "public.a")) == before < 19001
        assert "goes on" in give(rig, "backfill", "resume", "main")
        wait_copied(rig, 2)
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


def test_S13_a_copy_that_was_given_up_is_not_taken_for_done_after_a_crash(rig, seed):
    """Its table may be killed in every step of catching up with the stream again."""
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, 'x', g FROM generate_series(1000, 8000) g")
    rig.add_receiver().control({"delay_ms": 15, "action": "answer"})
    # At this rate every copy takes seconds: it has its snapshot when it is looked for.
    rig.start(syncs=backfilled(rig, concurrency=4, batch_size=20), change={"backfill": {"rows_per_second": 1000}})
    with Writers(rig.db, seed, threads=2, truncates=False):
        for _ in range(4):
            wait_for("the copy has a snapshot", lambda: snapshots(rig) > 0, tail=rig.tail)
            give(rig, "backfill", "pause", "main")
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
            give(rig, "backfill", "resume", "main")
        rig.receiver.behave()
        wait_copied(rig, 2)
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


# --- what one sees -----------------------------------------------------------------------------


def test_status_says_what_a_sync_waits_for(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.wait_arrived(1)

    def says(text):
        wait_for(f"status says: {text}", lambda: re.search(text, give(rig, "status")), 60,
                 tail=lambda: give(rig, "status") + rig.tail())
    says("main: nothing waits")
    rig.receiver.control({"status": 500, "action": "answer"})
    rig.db.sql("INSERT INTO t VALUES (2, 'b')")
    says("main: endpoint: waiting: the endpoint accepts nothing")
    rig.receiver.behave()
    rig.assert_whole()
    rig.receiver.control({"delay_ms": 30000, "action": "answer"})
    rig.db.sql("INSERT INTO t VALUES (3, 'c')")
    says(r"main: endpoint: 1 records wait, the oldest for [\d.]+ s; 1 requests are on their way")
    give(rig, "pause", "main")
    says("main: the sync is paused; go on with: walpost resume main")
    rig.walpost.kill()
    assert "walpost is not running" in give(rig, "status")
    give(rig, "resync", "main")
    state = give(rig, "status")
    assert "main: " in state and ", paused" in state and "delivered up to 0" in state
    assert "waits: resync main" in state
    rig.receiver.behave()


def test_status_without_a_page(rig):
    rig.db.table("t")
    rig.db.publish("t")
    walpost = rig.prepare()
    walpost.config["listen"] = ""
    walpost.write()
    walpost.spawn()
    walpost.wait_streaming(rig.db)
    assert "listen is off" in give(rig, "status")
    give(rig, "pause", "main")
    wait_for("it is shown", lambda: ", paused" in give(rig, "status"), tail=rig.tail)
    give(rig, "resume", "main")
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()


def test_S26_a_bar_shows_how_far_a_copy_is_on_a_terminal(rig):
    tables = ["t1", "t2", "t3", "t4"]
    for t in tables:
        rig.db.sql(f"CREATE TABLE {t} (id int PRIMARY KEY, v text)")
        rig.db.sql(f"INSERT INTO {t} SELECT g, repeat('x', 300) FROM generate_series(1, 3000) g")
    rig.db.publish(*tables)
    rig.start(syncs=backfilled(rig), change={"backfill": {"rows_per_second": 1000,
                                                          "connections": 1}})
    wait_for("the copy has begun", lambda: rig.walpost.metric("walpost_backfill_rows_total") > 0,
             tail=rig.tail)
    assert "pending" in give(rig, "backfill", "status", "main"), "no terminal: it does not wait"
    ours, its = pty.openpty()
    command = subprocess.Popen([rig.walpost.binary, "backfill", "status", "main", "-c",
                                rig.walpost.file], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=its)
    os.close(its)
    drawn = b""
    try:
        while True:
            drawn += os.read(ours, 65536)
    except OSError:
        pass  # its end of the terminal is closed
    finally:
        os.close(ours)
    assert command.wait(60) == 0 and b"pending" in command.stdout.read()
    lines = drawn.decode().split("\r")
    shown = [float(m[1]) for line in lines
             if (m := re.search(r"main \[#*\.*\] +([\d.]+) %  \d+ rows  \d tables? left", line))]
    assert len(shown) >= 3 and shown == sorted(shown) and shown[-1] > shown[0], drawn
    assert any("ETA 0:0" in line for line in lines), drawn
    wait_equal(rig, *tables)
