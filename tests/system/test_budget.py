"""A full byte budget and a full disk: what is promised happens, and nothing is lost in silence."""

import os
import subprocess
import time

import checker
import machine
import pytest
from machine import stays, wait_for
from test_backfill import stood_still

BUDGET = 16 << 20


def insert(rig, first, n, width=3000):
    """Rows that do not compress well, wide ones: bytes fill a buffer, and rows cost the test time."""
    rig.db.sql("INSERT INTO t SELECT g, (SELECT string_agg(md5(g::text || i), '')"
               f" FROM generate_series(1, {width // 32}) i)"
               f" FROM generate_series({first}, {first + n - 1}) g")


def one_dead_two_healthy(rig, on_full):
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    for name in ("dead", "one", "two"):
        rig.add_receiver(name, start=name != "dead")
    rig.start(syncs={name: rig.sync(name, batch_size=200) for name in ("dead", "one", "two")},
              change={"buffer": {"max_bytes": "16MiB", "on_full": on_full}})


def test_full_with_stop_holds_the_slot_and_loses_nothing(rig):
    one_dead_two_healthy(rig, "stop")
    for i in range(12):
        insert(rig, i * 1000, 1000)
    end = rig.db.wal_end()
    wait_for("the program says that it fills", lambda: rig.walpost.events("buffer_fills"), 60,
             tail=rig.walpost.tail)
    assert "dead" in rig.walpost.events("buffer_fills")[-1]["held_by"]
    stays("the slot waits", lambda: rig.db.confirmed() < end, 2)
    stays("the files stay below the budget", lambda: rig.walpost.disk_bytes() < BUDGET * 1.1, 2)
    assert len(rig.receivers["one"].poll().records) < 12000, "all wait when it is full"
    assert rig.walpost.process.is_running
    rig.receivers["dead"].start()
    for name in ("dead", "one", "two"):
        rig.assert_whole(rig.receivers[name], seconds=120)
    wait_for("the slot follows", lambda: rig.db.confirmed() >= end, 60, tail=rig.walpost.tail)


def test_full_with_stop_survives_a_kill(rig):
    """Whole transactions were received that the buffer does not have: they are not confirmed."""
    one_dead_two_healthy(rig, "stop")
    for i in range(300):
        insert(rig, i * 27, 27)
    # Its queue may have no room for a moment; the buffer is full when nothing moves any more.
    wait_for("it is full", lambda: stood_still(rig.db.confirmed)
             and "the buffer has no room" in rig.walpost.get("/status.txt")[1], 60, 0, tail=rig.walpost.tail)
    received = rig.walpost.metric("walpost_source_received_lsn")
    stays("what was received is not confirmed", lambda: rig.db.confirmed() < received, 4)
    for _ in range(2):
        rig.walpost.kill()
        rig.walpost.spawn()
        time.sleep(1.5)
    rig.receivers["dead"].start()
    for name in ("dead", "one", "two"):
        rig.assert_whole(rig.receivers[name], seconds=120)
    assert not rig.walpost.events("capture_failed")


def test_full_with_suspend_lets_the_others_go_on(rig):
    one_dead_two_healthy(rig, "suspend")
    for i in range(24):
        insert(rig, i * 1000, 1000)
    end = rig.db.wal_end()
    for name in ("one", "two"):
        rig.assert_whole(rig.receivers[name], seconds=120)
    wait_for("the slot goes on", lambda: rig.db.confirmed() >= end, 60, tail=rig.walpost.tail)
    assert rig.walpost.disk_bytes() < BUDGET * 1.1
    wait_for("the suspension is an error of that sync", lambda: any(
        e.get("sync") == "dead" and e.get("level") == "error" for e in rig.walpost.events()), 60,
        tail=rig.walpost.tail)
    error = [e for e in rig.walpost.events() if e.get("sync") == "dead"
             and e.get("level") == "error"][-1]
    print(error)
    assert checker.ID_PATTERN.match(error["msg"].split()[-1].strip(".;")) or "-" in error["msg"]
    wait_for("it is shown", lambda: "suspended" in rig.walpost.get("/status.txt")[1], tail=rig.walpost.tail)
    # The gap is remembered: a new start does not resume behind it as if nothing had been.
    rig.receivers["dead"].start()
    rig.walpost.stop()
    rig.walpost.start(databases=[rig.db])
    insert(rig, 1000000, 10)
    for name in ("one", "two"):
        rig.assert_whole(rig.receivers[name], seconds=120)
    wait_for("it is shown again", lambda: "suspended" in rig.walpost.get("/status.txt")[1], tail=rig.walpost.tail)
    stays("the suspended sync stays suspended",
          lambda: "suspended" in rig.walpost.get("/status.txt")[1], 1)
    report = checker.judge(rig.receivers["dead"].poll(), rig.db.history())
    assert set(f.kind for f in report.findings) <= {"missing"}, report


def test_delivered_records_are_evicted_when_room_is_needed(rig):
    """Healthy syncs only: many budgets' worth passes through."""
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.start(batch_size=500, change={"buffer": {"max_bytes": "16MiB", "retention": "24h"}})
    biggest = 0
    for i in range(15):
        insert(rig, i * 1000, 1000)
        biggest = max(biggest, rig.walpost.disk_bytes())
    rig.assert_whole(seconds=120)
    biggest = max(biggest, rig.walpost.disk_bytes())
    assert biggest < BUDGET * 1.1
    assert not [e for e in rig.walpost.events() if e.get("level") == "error"]


@pytest.fixture
def small_disk(folder):
    """A tmpfs of 48 MiB; filled by fill(), emptied again by free()."""
    if not machine.IS_ROOT:
        pytest.skip("mounting a small tmpfs needs root")
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", disk], check=True)

    class Disk:
        path = disk

        @staticmethod
        def fill():
            with open(disk / "filler", "ab") as filler:
                try:
                    while True:
                        os.write(filler.fileno(), bytes(4096))
                except OSError:
                    pass

        @staticmethod
        def free():
            (disk / "filler").unlink()
    yield Disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_F37_a_full_disk_loses_nothing_and_recovers(rig, small_disk):
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start(batch_size=500, change={"data_dir": str(small_disk.path / "data"),
                                      "buffer": {"max_bytes": "1GiB"}})
    for i in range(12):
        insert(rig, i * 2000, 2000)
    wait_for("the full disk is an error in the log", lambda: any(
        e.get("code") == "full" for e in rig.walpost.events()), 60, tail=rig.walpost.tail)
    assert rig.walpost.process.is_running
    end = rig.db.wal_end()
    assert rig.db.confirmed() < end, "the slot waits"
    rig.receiver.start()
    subprocess.run(["mount", "-o", "remount,size=512m", small_disk.path], check=True)
    rig.assert_whole(seconds=120)
    wait_for("the slot follows", lambda: rig.db.confirmed() >= end, 60, tail=rig.walpost.tail)


def test_a_disk_filled_by_others_and_a_kill_meanwhile(rig, small_disk):
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.start(batch_size=100, change={"data_dir": str(small_disk.path / "data")})
    insert(rig, 0, 1000)
    rig.assert_whole()
    small_disk.fill()
    for i in range(4):
        insert(rig, 100000 + i * 500, 500)
    stays("it goes on", lambda: rig.walpost.process.is_running, 2, tail=rig.walpost.tail)
    rig.walpost.kill()
    rig.walpost.spawn()
    wait_for("it ends, or serves its pages", lambda: not rig.walpost.process.is_running
             or rig.walpost.get("/healthz")[0], tail=rig.walpost.tail)
    if not rig.walpost.process.is_running:
        # Not even the start may be possible without a byte of room; then it says so and ends.
        assert rig.walpost.process.wait() == 1
        assert "full" in rig.walpost.log_text() or "space" in rig.walpost.log_text()
        small_disk.free()
        rig.walpost.start(databases=[rig.db])
    else:
        small_disk.free()
    rig.assert_whole(seconds=120)


def test_a_disk_that_is_full_and_never_grows_drains_by_delivery(rig, small_disk):
    """The endpoint comes back, the disk stays as small as it is: delivery makes the room."""
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start(batch_size=500, change={"data_dir": str(small_disk.path / "data"),
                                      "buffer": {"max_bytes": "1GiB"}})
    for i in range(12):
        insert(rig, i * 2000, 2000)
    wait_for("the full disk is an error in the log", lambda: any(
        e.get("code") == "full" for e in rig.walpost.events()), 60, tail=rig.walpost.tail)
    rig.receiver.start()
    rig.assert_whole(seconds=120)
