"""kill -9 at every arrow: read -> append -> durable -> confirm -> send -> answer -> checkpoint -> evict.

And those of what stands aside: halve -> park -> try again -> erase, bury, replay.  gdb holds the
moments inside the program, a stopped collaborator those outside.
"""

import os
import pathlib
import random
import signal
import time

import checker
import machine
import pytest
from load import Writers
from machine import ROOT, Process, tail_of, wait_for
from test_control import give
from test_groups import first_parts, parts
from test_parking import LATER, REFUSED, Stored, insert
from test_replay import replayed

# Debug symbols and no inlining, so that every function can be stopped in.
DEBUG_BUILD = pathlib.Path(os.environ.get("WALPOST_DEBUG_BUILD", ROOT / "build" / "dev"))

# Moments at which it makes no difference what the rows are.
BRIEFLY = ("answer", "outcome", "done", "store_synced", "evicted")

# What no other one collides with, so that one database sees them all.
TRANSACTIONS = {
    "one row": ["INSERT INTO t VALUES (1000, 'one')"],
    "a changed key": ["UPDATE t SET id = 2000, v = 'moved' WHERE id = 1"],
    "three megabytes": ["INSERT INTO t SELECT g, repeat('many ', 150) FROM generate_series(10001, 13000) g"],
    "a truncate": ["INSERT INTO t VALUES (30000, 'before')", "TRUNCATE t",
                   "INSERT INTO t VALUES (30000, 'after')"],
}


def start_steady(rig, bulk=False, **delivery):
    """A sync that has delivered something and stands still."""
    rig.db.table("t", bulk=bulk)
    rig.db.publish("t")
    rig.start(build=DEBUG_BUILD, **{"batch_size": 100, "concurrency": 4, **delivery})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    rig.assert_whole()
    wait_steady(rig)


def wait_steady(rig):
    """Until everything that was delivered is confirmed and checkpointed."""
    end, last = rig.db.wal_end(), max(rig.receiver.poll().records)
    stored = Stored(rig)
    wait_for("all is confirmed and checkpointed", lambda: rig.db.confirmed() >= end and stored.run(
        "SELECT count(*) FROM cursor_stream WHERE id >= ?", last) == [(1,)], 60, tail=rig.walpost.tail)


@pytest.fixture
def steady(rig):
    start_steady(rig)
    return rig


def transact(rig, name):
    with rig.db.connect(autocommit=False) as connection:
        for statement in TRANSACTIONS[name]:
            connection.execute(statement)


def killed_at(rig, moment, act):
    """Stops walpost at the moment that act() leads to, and kills it there."""
    armed, log = rig.folder / "armed", rig.folder / "gdb.log"
    for path in (armed, log):  # of an earlier moment
        path.unlink(missing_ok=True)
    command = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off",
               "-iex", "set auto-solib-add off", "-p", rig.walpost.process.pid,
               "-x", pathlib.Path(__file__).parent / "gdb_moment.py"]
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
        wait_for("gdb has attached", is_armed, 60, tail=lambda: tail_of(log))
        act()
        assert gdb.wait(60) == 0, tail_of(log)
        assert rig.walpost.process.wait(60) == -9, tail_of(log)
        assert "=== the moment" in log.read_text(), tail_of(log)
    finally:
        if gdb.is_running:
            gdb.kill()


@pytest.mark.parametrize("moment", ["append", "buffer_sync", "buffer_synced", "confirm", "submit",
                                    "answer", "outcome", "done", "checkpoint", "store_sync",
                                    "store_synced", "evict", "evicted"])
def test_F40_kill_inside(steady, moment):
    rig = steady
    for name in ("one row", "a truncate") if moment in BRIEFLY else TRANSACTIONS:
        killed_at(rig, moment, lambda: transact(rig, name))
        rig.walpost.start(databases=[rig.db])
        report = rig.assert_whole()
        if moment == "append":
            assert report.repeats == 0, "nothing had been taken"
        if moment in ("answer", "outcome", "done", "checkpoint") and name == "one row":
            rig.assert_repeated(1, "it was delivered, and nobody knew")
        wait_steady(rig)
        if moment in ("evict", "evicted") and name == "one row":
            assert rig.receiver.poll().repeats == 0, "its checkpoint was durable"


class Poisoned:
    """A sync whose endpoint refuses records, killed at moment after moment, and what it must come to."""

    def __init__(self, rig, refused=REFUSED, **delivery):
        self.rig = rig
        self.pulses = 100000
        start_steady(rig, **{"batch_size": 10, **delivery})
        rig.receiver.control(refused)

    def pulse(self):
        """A row that is accepted, the proof that the endpoint works."""
        self.pulses += 1
        insert(self.rig, self.pulses, 1)

    def feed_until(self, what, condition):
        def fed():
            self.pulse()
            return condition()
        wait_for(what, fed, 60, 0.1, tail=self.rig.tail)

    def kill_at(self, moment, act):
        """Does act, and all that it takes to get from there to the moment."""
        def lead():
            act()
            self.feed_until(f"the moment, {moment}", lambda: not self.rig.walpost.process.is_running)
        killed_at(self.rig, moment, lead)

    def go_on(self):
        self.rig.walpost.start(databases=[self.rig.db])

    def assert_aside(self, parked, dead):
        """Exactly these are parked, and these dead, by their v, and everything else has come."""
        rig = self.rig
        self.feed_until("so much is set aside", lambda: [rig.walpost.metric(name) for name in (
            "walpost_parked_records", "walpost_dead_letters")] == [len(parked), len(dead)])
        stored = Stored(rig)
        rest = checker.expected_count(rig.db.history()) - len(parked) - len(dead)
        rig.wait_arrived(rest)
        aside = stored.parked(), stored.dead()
        assert [[r["fields"]["v"] for r in records] for records in aside] == [parked, dead]
        report = checker.judge(rig.receiver.poll(), rig.db.history())
        assert {f.kind for f in report.findings} <= {"missing"}, f"{report}\n{rig.tail()}"
        assert len(report.findings) == len(parked) + len(dead), f"{report}\n{rig.tail()}"
        assert not {r["id"] for records in aside for r in records} & set(rig.receiver.poll().records)

    def assert_all_comes(self):
        """What is parked, too, when the endpoint takes it."""
        self.rig.receiver.behave()
        self.rig.walpost.stop()
        Stored(self.rig).run("UPDATE parked SET next_us = 0")
        self.go_on()
        self.rig.assert_whole()
        self.assert_aside([], [])


def poison(rig, key):
    """A record that is refused, and two of its key behind it."""
    with rig.db.connect() as connection:
        connection.execute(f"INSERT INTO t VALUES ({key}, 'poison {key}')")
        connection.execute(f"UPDATE t SET v = 'behind {key}' WHERE id = {key}")
        connection.execute(f"UPDATE t SET v = 'last {key}' WHERE id = {key}")


def test_F40_kill_while_a_record_is_parked(rig):
    """From the first half of its request to the checkpoint that passes it."""
    sync = Poisoned(rig, **LATER)
    parked = []
    for i, moment in enumerate(["halving", "trouble", "park", "park_sync", "parked",
                                "parked_checkpoint", "parked_evict"]):
        key = 1000 + i

        def act():
            with rig.db.connect(autocommit=False) as connection:
                connection.execute(f"INSERT INTO t SELECT g, CASE WHEN g = {key} THEN 'poison {key}'"
                                   f" ELSE 'x' END FROM generate_series({key}, {key + 4000}, 1000) g"
                                   if moment == "halving" else
                                   f"INSERT INTO t VALUES ({key}, 'poison {key}')")
            rig.db.sql(f"UPDATE t SET v = 'behind {key}' WHERE id = {key}")
        sync.kill_at(moment, act)
        sync.go_on()
        parked += [f"poison {key}", f"behind {key}"]
        sync.assert_aside(parked, [])
    sync.assert_all_comes()


def test_F40_kill_while_a_part_of_a_request_is_accepted(rig):
    """What was refused of it comes again, or is parked; what was accepted may come again."""
    sync = Poisoned(rig, {"match": '"poison', "action": "part"}, partial_success=True, concurrency=1,
                    **LATER)
    parked = []
    for i, moment in enumerate(["part", "part_done", "part_checkpoint", "part_evict", "park", "parked",
                                "parked_checkpoint", "parked_evict"]):
        key = 1000 * (i + 1) + 5

        def act():
            with rig.db.connect(autocommit=False) as connection:
                connection.execute(f"INSERT INTO t SELECT g, CASE g WHEN {key} THEN 'poison {key}' ELSE 'x' END"
                                   f" FROM generate_series({key - 5}, {key + 2}) g")
                connection.execute(f"UPDATE t SET v = 'behind {key}' WHERE id = {key}")
        sync.kill_at(moment, act)
        sync.go_on()
        parked += [f"poison {key}", f"behind {key}"]
        sync.assert_aside(parked, [])
    sync.assert_all_comes()


@pytest.mark.parametrize("group", ["none", "transaction"])
def test_F40_kill_while_a_sync_in_order_writes_off_what_is_refused(rig, group):
    """A record, or the rest of its transaction from the part on that was refused."""
    sync = Poisoned(rig, order="sync", group=group, on_reject="dead_letter", park={"after": "0s"})
    dead = []
    for i, moment in enumerate(["trouble", "park", "park_sync", "parked", "parked_checkpoint",
                                "parked_evict"]):
        key = 1000 * (i + 1) + 14
        sync.kill_at(moment, lambda: rig.db.sql(
            f"INSERT INTO t SELECT g, CASE g WHEN {key} THEN 'poison {key}' ELSE 'x {key}' END"
            f" FROM generate_series({key - 14}, {key + 10}) g"))
        sync.go_on()
        dead += {"none": [f"poison {key}"],
                 "transaction": [f"x {key}"] * 4 + [f"poison {key}"] + [f"x {key}"] * 10}[group]
        sync.assert_aside([], dead)


def test_F40_kill_between_the_parts_of_a_transaction(rig):
    """It begins anew, in the same parts, unless a checkpoint has passed its last one."""
    start_steady(rig, order="sync", group="transaction", batch_size=10)
    for i, moment in enumerate(["parts", "parts_evict", "last_part", "last_part_done",
                                "last_part_checkpoint"]):
        if moment == "parts_evict":  # the third has to wait for it
            rig.receiver.control({"action": "hang", "skip": 2, "count": 1})
        killed_at(rig, moment, lambda: insert(rig, 1000 * (i + 1), 25))
        rig.receiver.behave()
        rig.walpost.start(databases=[rig.db])
        rig.assert_whole()
        wait_steady(rig)
        begun = [part.commit["lsn"] for part in parts(rig) if part.part[0] == 1]
        assert begun.count(begun[-1]) == 2, "it began anew"
        assert [n for lsn, n in first_parts(rig) if lsn == begun[-1]] == [1, 2, 3]


def test_F40_kill_while_a_parked_record_is_accepted(rig):
    sync = Poisoned(rig, retry_schedule=["1s"] * 60)
    for i, moment in enumerate(["retry_answer", "erase", "erased"]):
        key = 1000 + i
        before = rig.receiver.poll().repeats
        poison(rig, key)
        sync.assert_aside([f"poison {key}", f"behind {key}", f"last {key}"], [])
        sync.kill_at(moment, rig.receiver.behave)
        sync.go_on()
        rig.assert_whole()
        sync.assert_aside([], [])
        repeats = rig.receiver.poll().repeats - before
        assert repeats or moment == "erased", "it was accepted, and nobody knew"
        rig.receiver.control(REFUSED)


def test_F40_kill_while_a_record_becomes_a_dead_letter(rig):
    sync = Poisoned(rig, retry_schedule=["50ms", "50ms"])
    dead = []
    for i, moment in enumerate(["refusal", "bury", "buried"]):
        key = 1000 + i
        sync.kill_at(moment, lambda: poison(rig, key))
        sync.go_on()
        dead.append(f"poison {key}")
        sync.assert_aside([], dead)


def test_F40_kill_while_a_dead_letter_is_replayed(rig):
    sync = Poisoned(rig, retry_schedule=["50ms", "50ms"])
    for i, moment in enumerate(["replay_read", "replay_answer", "replay_erase", "replay_erased"]):
        key = 1000 + i
        before = rig.receiver.poll().repeats
        rig.db.sql(f"INSERT INTO t VALUES ({key}, 'poison {key}')")
        sync.assert_aside([], [f"poison {key}"])

        def act():
            rig.receiver.behave()
            give(rig, "dead-letters", "replay", "--all")
        sync.kill_at(moment, act)
        sync.go_on()
        rig.assert_whole()
        sync.assert_aside([], [])
        repeats = rig.receiver.poll().repeats - before
        assert repeats or moment in ("replay_read", "replay_erased"), "it was accepted, and nobody knew"
        rig.receiver.control(REFUSED)
        rig.db.sql(f"UPDATE t SET v = 'x' WHERE id = {key}")


def test_F40_kill_while_a_sync_goes_back(steady):
    """The replay that was asked for is done by the next process, if this one has not begun it."""
    rig = steady
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(100, 199) g")
    rig.assert_whole()
    for moment in ["back", "back_write", "back_written", "back_made"]:
        wait_steady(rig)
        all_ids = sorted(rig.receiver.poll().records)
        before = len(replayed(rig))
        killed_at(rig, moment, lambda: rig.walpost.command("replay", "main", "--since", all_ids[70]))
        rig.walpost.start(databases=[rig.db])
        wait_for("they came again", lambda: set(replayed(rig)[before:]) >= set(all_ids[70:]), 60,
                 tail=rig.tail)
        assert set(replayed(rig)[before:]) == set(all_ids[70:])
        rig.assert_whole()
        assert not [c for c in Stored(rig).run("SELECT id FROM command WHERE state = 0")], "it is answered"


@pytest.mark.parametrize("transaction", TRANSACTIONS)
def test_kill_confirmed_and_not_delivered(steady, transaction):
    rig = steady
    rig.receiver.kill()
    transact(rig, transaction)
    end = rig.db.wal_end()
    wait_for("it is confirmed", lambda: rig.db.confirmed() >= end, 60, tail=rig.walpost.tail)
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
    wait_for("a request hangs", lambda: rig.receiver.stats()["requests"] > before, 60,
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
    rig.receiver.control({"delay_ms": 5000, "action": "answer"})  # time to stop it in, also on a busy machine
    before = rig.receiver.stats()["requests"]
    rig.walpost.sigcont()
    wait_for("the request has come", lambda: rig.receiver.stats()["requests"] > before, 60,
             tail=rig.walpost.tail, pause=0.005)
    rig.walpost.sigstop()
    wait_for("it is accepted", lambda: len(rig.receiver.poll().records) == 51, 60)
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    rig.assert_repeated(1, "the answer was not read")


def test_kill_while_postgresql_is_stopped_in_the_middle_of_a_transaction(rig):
    """The walsender is held: walpost has part of the transaction and dies."""
    start_steady(rig, bulk=True)
    pid = rig.db.walsender_pid()
    try:
        rig.db.sql("INSERT INTO t SELECT g, repeat('x', 2500) FROM generate_series(1001, 13000) g")
        wait_for("a part has arrived", lambda: rig.receiver.stats()["records"] > 1000, 60,
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
    wait_for("all is confirmed", lambda: rig.db.confirmed() >= end, 60, tail=rig.walpost.tail)
    server.stop("immediate")
    server.start()
    rig.walpost.wait_streaming(rig.db, 60)
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
    report = rig.assert_whole(seconds=120)
    assert report.expected > 1000
