"""kill -9 at every arrow: read -> append -> durable -> confirm -> send -> answer -> checkpoint -> evict.

gdb holds the moments inside the program, a stopped collaborator those outside.
"""

import os
import pathlib
import random
import signal
import time

import machine
import pytest
from load import Writers
from machine import ROOT, Process, tail_of, wait_for

pytestmark = pytest.mark.receiving

# Debug symbols and no inlining, so that every function can be stopped in.
DEBUG_BUILD = pathlib.Path(os.environ.get("WALPOST_DEBUG_BUILD", ROOT / "build" / "dev"))

TRANSACTIONS = {
    "one row": ["INSERT INTO t VALUES (1000, 'one')"],
    "ten thousand rows": ["INSERT INTO t SELECT g, 'many' FROM generate_series(1000, 10999) g"],
    "a changed key": ["UPDATE t SET id = 2000, v = 'moved' WHERE id = 1"],
    "a truncate": ["INSERT INTO t VALUES (1000, 'before')", "TRUNCATE t",
                   "INSERT INTO t VALUES (1000, 'after')"],
}


@pytest.fixture
def steady(rig):
    """A sync that has delivered something and stands still."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(build=DEBUG_BUILD, batch_size=100, concurrency=4)
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    rig.assert_whole()
    end = rig.db.wal_end()
    wait_for("all is confirmed", lambda: rig.db.confirmed() >= end, 15, tail=rig.walpost.tail)
    time.sleep(0.5)  # and checkpointed, at most 200 ms after the last delivery
    return rig


def transact(rig, name):
    with rig.db.connect(autocommit=False) as connection:
        for statement in TRANSACTIONS[name]:
            connection.execute(statement)


def killed_at(rig, moment, act):
    """Stops walpost at the moment that act() leads to, and kills it there."""
    armed, log = rig.folder / "armed", rig.folder / "gdb.log"
    command = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p",
               rig.walpost.process.pid, "-x", pathlib.Path(__file__).parent / "gdb_moment.py"]
    scope = pathlib.Path("/proc/sys/kernel/yama/ptrace_scope")
    keep = []
    if not machine.IS_ROOT and scope.exists() and scope.read_text().strip() != "0":
        keep = ["sudo", "-n", "--preserve-env=MOMENT,LSN,ARMED"]
    gdb = Process(keep + command, log, env=dict(
        os.environ, MOMENT=moment, LSN=str(rig.db.wal_end()), ARMED=str(armed)))

    def is_armed():
        assert gdb.is_running, tail_of(log)
        return armed.exists()
    try:
        wait_for("gdb has attached", is_armed, 30, tail=lambda: tail_of(log))
        act()
        assert gdb.wait(30) == 0, tail_of(log)
        assert rig.walpost.process.wait(5) == -9, tail_of(log)
        assert "=== the moment" in log.read_text(), tail_of(log)
    finally:
        if gdb.is_running:
            gdb.kill()


@pytest.mark.parametrize("transaction", TRANSACTIONS)
@pytest.mark.parametrize("moment", ["append", "buffer_sync", "buffer_synced", "confirm", "submit",
                                    "checkpoint", "store_sync", "evict"])
def test_F40_kill_inside(steady, moment, transaction):
    rig = steady
    killed_at(rig, moment, lambda: transact(rig, transaction))
    rig.walpost.start(databases=[rig.db])
    report = rig.assert_whole()
    if moment == "append":
        assert report.repeats == 0, "nothing had been taken"
    if moment == "checkpoint" and transaction == "one row":
        rig.assert_repeated(1, "it was delivered, and nobody knew")
    if moment == "evict" and transaction == "one row":
        assert report.repeats == 0, "its checkpoint was durable"


@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_kill_confirmed_and_not_delivered(steady, transaction):
    rig = steady
    rig.receiver.kill()
    transact(rig, transaction)
    end = rig.db.wal_end()
    wait_for("it is confirmed", lambda: rig.db.confirmed() >= end, 15, tail=rig.walpost.tail)
    rig.walpost.kill()
    rig.receiver.start()
    rig.walpost.start(databases=[rig.db])
    assert rig.assert_whole().repeats == 0


@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_F32_F40_kill_sent_and_not_answered(steady, transaction):
    rig = steady
    before = rig.receiver.stats()["requests"]
    rig.receiver.control({"action": "hang"})
    transact(rig, transaction)
    wait_for("a request hangs", lambda: rig.receiver.stats()["requests"] > before, 15,
             tail=rig.walpost.tail)
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


@pytest.mark.versions
def test_kill_right_after_the_answer_left(steady):
    """The receiver accepts and walpost dies before it can have read the answer."""
    rig = steady
    rig.walpost.sigstop()
    rig.db.sql("INSERT INTO t VALUES (1000, 'x')")
    rig.receiver.control({"delay_ms": 200, "action": "answer"})
    before = rig.receiver.stats()["requests"]
    rig.walpost.sigcont()
    wait_for("the request has come", lambda: rig.receiver.stats()["requests"] > before, 15,
             tail=rig.walpost.tail, pause=0.005)
    rig.walpost.sigstop()
    wait_for("it is accepted", lambda: len(rig.receiver.poll().records) == 51, 5)
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    rig.assert_repeated(1, "the answer was not read")


def test_kill_while_postgresql_is_stopped_in_the_middle_of_a_transaction(steady):
    """The walsender is held: walpost has part of the transaction and dies."""
    rig = steady
    pid = rig.db.walsender_pid()
    try:
        rig.db.sql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1000, 60999) g")
        wait_for("a part has arrived", lambda: rig.receiver.stats()["records"] > 5000, 20,
                 tail=rig.walpost.tail)
        os.kill(pid, signal.SIGSTOP)
        rig.walpost.kill()
    finally:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


@pytest.mark.versions
def test_F02_postgresql_crashes_after_walpost_confirmed(own_server, make_rig):
    """confirmed_flush_lsn goes back; walpost starts from its own position and repeats nothing."""
    server = own_server()
    rig = make_rig(server.database())
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 500) g")
    rig.assert_whole()
    end = rig.db.wal_end()
    wait_for("all is confirmed", lambda: rig.db.confirmed() >= end, 15, tail=rig.walpost.tail)
    server.stop("immediate")
    server.start()
    rig.walpost.wait_streaming(rig.db, 30)
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(501, 600) g")
    assert rig.assert_whole().repeats == 0


@pytest.mark.versions
def test_both_die_at_once(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    for i in range(3):
        rig.db.sql(f"INSERT INTO t SELECT g, 'x' FROM generate_series({i * 1000}, {i * 1000 + 800}) g")
        server.stop("immediate")
        rig.walpost.kill()
        server.start()
        rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


def test_kill_at_twenty_random_moments_under_load(rig, seed):
    rng = random.Random(seed)
    Writers.tables(rig.db)
    rig.add_receiver().control({"delay_ms": 2, "action": "answer"})
    rig.start(concurrency=8, batch_size=10)
    with Writers(rig.db, seed, threads=2):
        for _ in range(20):
            time.sleep(rng.uniform(0.02, 0.9))
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
    report = rig.assert_whole(seconds=90)
    assert report.expected > 1000
