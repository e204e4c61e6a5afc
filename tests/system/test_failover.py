"""A primary and its standby: the reader follows to whichever is the primary, and loses nothing."""

import copy
import pathlib
import shutil
import subprocess
import threading

import psycopg
import pytest
from machine import PORTS, server_user, wait_for
from postgres import VERSION, Server
from test_backfill import (assert_ids_rise_per_key, backfilled, first_arrivals, tables_pending, wait_copied,
                           wait_equal)
from test_control import give, reads
from test_slot import gap, noise
from walpost import sync

pytestmark = pytest.mark.sanitized

# The first that keeps slots on a standby is 17, the first that decodes on one 16.
KEEPS = VERSION if VERSION >= 17 else 18


def is_primary(server):
    return server.sql("SELECT NOT pg_is_in_recovery()") == [(True,)]


class Pair:
    def __init__(self, folder, **standby_settings):
        folder = pathlib.Path(folder)
        self.primary = Server(folder / "primary", version=KEEPS)
        with open(self.primary.data / "pg_hba.conf", "a") as hba:
            hba.write("local replication all trust\n")
        self.primary.reload()
        self.primary.sql("SELECT pg_create_physical_replication_slot('standby', true)")
        self.standby = self._copy(folder / "standby", standby_settings)

    def _copy(self, folder, settings):
        """As a base backup of the stopped primary."""
        primary = self.primary
        primary.stop()
        standby = copy.copy(primary)
        standby.folder, standby.data = folder, folder / "data"
        standby.log, standby.port = folder / "postgres.log", PORTS.take()
        folder.mkdir()
        shutil.copytree(primary.data, standby.data, symlinks=True)
        (standby.data / "postmaster.pid").unlink(missing_ok=True)
        (standby.data / "standby.signal").touch()
        standby.set({
            "port": str(standby.port), "unix_socket_directories": f"'{folder}'",
            "primary_conninfo": f"'host={primary.folder} port={primary.port} user=postgres dbname=postgres'",
            "primary_slot_name": "'standby'", "hot_standby_feedback": "on", "sync_replication_slots": "on",
            "wal_receiver_status_interval": "1s", **settings})
        if server_user():
            subprocess.run(["chown", "-R", f"{server_user()}:{server_user()}", folder], check=True)
        primary.start()
        standby.start()
        wait_for("the standby follows", lambda: primary.sql(
            "SELECT active FROM pg_replication_slots WHERE slot_name = 'standby'") == [(True,)], 60)
        return standby

    def hosts(self):
        return f"127.0.0.1:{self.primary.port}, 127.0.0.1:{self.standby.port}"

    def catch_up(self):
        """Until the standby has what the primary has now."""
        end = self.primary.sql("SELECT pg_current_wal_lsn()")[0][0]
        wait_for("the standby has caught up", lambda: self.standby.sql(
            "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end) == [(True,)], 60)

    def promote(self):
        self.standby.sql("SELECT pg_promote()")
        wait_for("the standby is the primary", lambda: is_primary(self.standby), 60)

    def destroy(self):
        for server in (self.primary, self.standby):
            server.destroy()


@pytest.fixture
def make_pair(folder):
    pairs = []

    def make(**settings):
        pairs.append(Pair(folder / f"pair{len(pairs)}", **settings))
        return pairs[-1]
    (folder / "pair0").mkdir()
    folder.joinpath("pair0").chmod(0o755)
    yield make
    for pair in pairs:
        pair.destroy()


def ids(rig):
    """Of what arrived, without repeats."""
    return list(dict.fromkeys(r["id"] for r in rig.receiver.records()))


def timelines(rig):
    return [int(i[2:8], 16) for i in ids(rig)]


def failover_lines(walpost):
    """[verdict and text] of what check says about it."""
    done = walpost.command("check")
    lines = done.stdout.splitlines()
    print(done.stdout, done.stderr)
    return [" ".join(lines[i:i + 2]) for i, line in enumerate(lines) if ": failover: " in line]


def move(rig, server):
    """The database is looked for there from now on."""
    rig.db.connection.close()
    rig.db.server = server


@pytest.mark.slow
def test_F28_the_slot_is_followed_to_the_promoted_standby(make_pair, make_rig):
    """Under load, and the primary dies at once: what was read is on the standby, because the
    primary lets nobody read what the standby does not have yet."""
    pair = make_pair()
    rig = make_rig(pair.primary.database())
    rig.db.table("t", "id bigserial PRIMARY KEY, v text")
    rig.db.publish("t")
    walpost = rig.prepare(connection={"hostname": pair.hosts(), "port": 1})
    pair.catch_up()
    primary, standby = failover_lines(walpost)
    assert primary.startswith("warn") and "synchronized_standby_slots = 'standby'" in primary
    assert standby.startswith("ok") and "would keep" in standby
    pair.primary.sql("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
    pair.primary.reload()
    walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t (v) VALUES ('first')")
    rig.wait_arrived(1)
    slot = f"walpost_{rig.db.name}"
    wait_for("the standby keeps the slot", lambda: pair.standby.sql(
        "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = %s", slot) == [(True,)],
        60, 0.2)
    assert [line[:2] for line in failover_lines(walpost)] == ["ok", "ok"]
    died = threading.Event()

    def write():
        with rig.db.connect() as connection:
            while True:
                try:
                    connection.execute("INSERT INTO t (v) SELECT 'before' FROM generate_series(1, 5)")
                except psycopg.OperationalError:
                    died.set()
                    return
    writer = threading.Thread(target=write)
    writer.start()
    rig.wait_arrived(300, seconds=120)
    pair.primary.stop("immediate")
    writer.join(60)
    assert died.is_set()
    wait_for("nobody is a primary, which is told", lambda: any(
        "primary" in e["msg"] for e in rig.walpost.events("capture_interrupted")), 60, tail=rig.walpost.tail)
    pair.promote()
    move(rig, pair.standby)
    for i in range(20):
        rig.db.sql("INSERT INTO t (v) VALUES (%s)", f"after {i}")
    rig.assert_whole()
    rig.walpost.restart(databases=[rig.db])
    rig.db.sql("INSERT INTO t (v) VALUES ('last')")
    rig.assert_whole()
    assert set(timelines(rig)) == {1, 2} and not rig.walpost.events("capture_failed")


@pytest.mark.slow
def test_S18_F28_a_copy_whose_primary_fails_in_its_middle_is_void(make_pair, make_rig):
    """All of it was read, of a primary that was ahead of its standby: not a row of it is delivered, for the
    promoted one never had some of them.  And the former primary is no longer the one that is read."""
    pair = make_pair(synchronized_standby_slots="''")
    rig = make_rig(pair.primary.database())
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'both' FROM generate_series(1, 100) g")
    rig.db.publish("t")
    walpost = rig.prepare(connection={"hostname": pair.hosts(), "port": 1, "on_gap": "resync"},
                          syncs=backfilled(rig))
    pair.primary.sql("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
    pair.primary.reload()
    walpost.start(databases=[rig.db])
    wait_copied(rig, 1)
    wait_equal(rig, "t")
    slot = f"walpost_{rig.db.name}"
    wait_for("the standby keeps the slot", lambda: pair.standby.sql(
        "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = %s", slot) == [(True,)],
        60, 0.2)
    pair.catch_up()
    # From here on the standby hears nothing, and no change is sent that it does not have.
    pair.standby.sql("ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
    pair.standby.reload()
    wait_for("the standby is cut off", lambda: pair.primary.sql(
        "SELECT active FROM pg_replication_slots WHERE slot_name = 'standby'") == [(False,)], 60)
    rig.db.sql("INSERT INTO t VALUES (1000, 'never was')")
    rig.db.sql("UPDATE t SET v = 'never was' WHERE id = 5")
    point = rig.db.wal_end()
    rows = walpost.metric("walpost_backfill_rows_total")
    give(rig, "resync", "main")
    wait_for("every row is read", lambda: walpost.metric("walpost_backfill_rows_total") >= rows + 101, 60,
             tail=rig.tail)
    wait_for("the snapshot is let go", lambda: pair.primary.sql(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'walpost copy' AND backend_xmin IS NOT NULL") == [],
        60, tail=rig.tail)
    assert len(reads(rig)) == 100 and tables_pending(walpost) == 1, "none of it was delivered"
    pair.primary.stop("immediate")
    pair.promote()
    move(rig, pair.standby)
    rig.db.sql("INSERT INTO t VALUES (2000, 'on the promoted one')")
    assert rig.db.wal_end() < point + (1 << 20)
    noise(rig.db, 2)
    rig.db.sql("INSERT INTO t VALUES (2001, 'on the promoted one')")
    wait_for("it is copied after all", lambda: tables_pending(walpost) == 0 and len(reads(rig)) > 100, 60,
             tail=rig.tail)
    wait_equal(rig, "t")
    records = first_arrivals(rig.receiver)
    assert not any(r["fields"]["v"] == "never was" for r in records)
    assert {r["id"][2:8] for r in records[100:]} == {"000002"}
    assert_ids_rise_per_key(records)
    assert walpost.events("backfill_begins_anew") and not walpost.events("gap_accepted")
    # The one that failed comes back beside it: what it has is not the stream any more, and is not copied.
    rig.db.connection.close()
    pair.primary.start()
    walpost.config["connections"][rig.db.name]["configuration"].update(
        hostname="127.0.0.1", port=pair.primary.port)
    walpost.stop()
    walpost.write()
    walpost.spawn()
    event = gap(rig)
    assert "never was on 2" in event["msg"], event
    assert walpost.process.wait() == 1
    assert not walpost.events("gap_accepted") and len(first_arrivals(rig.receiver)) == len(records)


def test_X35_F29_S24_a_standby_is_read_and_copied_and_promoted_meanwhile(make_pair, make_rig):
    pair = make_pair(sync_replication_slots="off")
    rig = make_rig(pair.primary.database())
    rig.db.table("t")
    rig.db.sql("CREATE TABLE old (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO old SELECT g, 'there before' FROM generate_series(1, 50) g")
    rig.db.publish("t", "old")
    end = rig.db.value("SELECT pg_current_wal_lsn()")
    wait_for("the standby has it all", lambda: pair.standby.sql(
        "SELECT pg_last_wal_replay_lsn() >= %s", end) == [(True,)], 60)
    rig.add_receiver()
    other = rig.add_receiver("other")
    walpost = rig.prepare(connection={"hostname": pair.hosts()}, syncs={
        "main": rig.sync("hook", ["public.t"]), "old": sync(rig.db.name, "other", ["public.old"], backfill=True)})
    pair.standby.set({"hot_standby_feedback": "off"})
    pair.standby.reload()
    wait_for("the setting holds", lambda: pair.standby.sql("SHOW hot_standby_feedback") == [("off",)], 60)
    _, standby = failover_lines(walpost)
    assert standby.startswith("warn"), standby
    for setting in ("sync_replication_slots = on", "hot_standby_feedback = on"):
        assert f"ALTER SYSTEM SET {setting};" in standby, standby
    pair.standby.set({"hot_standby_feedback": "on"})
    pair.standby.reload()
    source = walpost.config["connections"][rig.db.name]["configuration"]
    source.update(hostname="127.0.0.1", port=pair.standby.port)
    walpost.write()
    walpost.spawn()

    def read():
        """A slot on a standby waits for word of the primary's transactions."""
        pair.primary.sql("SELECT pg_log_standby_snapshot()")
        return pair.standby.sql("SELECT 1 FROM pg_replication_slots WHERE slot_type = 'logical' AND active"
                                " AND confirmed_flush_lsn IS NOT NULL")
    wait_for("the standby is read", read, 60, 0.3, tail=walpost.tail)
    for i in range(10):
        rig.db.sql("INSERT INTO t VALUES (%s, 'on the primary')", i)
    rig.wait_arrived(10)

    def copied():
        """So does its snapshot."""
        pair.primary.sql("SELECT pg_log_standby_snapshot()")
        return len(other.poll().records) >= 50
    wait_for("rows are copied from the standby", copied, 60, 0.3, tail=walpost.tail)
    assert {(r["operation"], r["fields"]["v"]) for r in other.records()} == {("read", "there before")}
    assert len(other.records()) == 50
    pair.promote()
    move(rig, pair.standby)
    rig.db.sql("INSERT INTO t VALUES (10, 'on the promoted one')")
    rig.wait_arrived(11)
    wait_for("the promotion is seen", lambda: len(walpost.events("capture_started")) > 1, 60, tail=walpost.tail)
    rig.db.sql("INSERT INTO t VALUES (11, 'on its timeline')")
    rig.assert_whole()
    walpost.restart(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (12, 'after a restart')")
    rig.assert_whole()
    assert sorted(timelines(rig)) in ([1] * 10 + [2] * 3, [1] * 11 + [2] * 2)
    assert not walpost.events("capture_failed")
