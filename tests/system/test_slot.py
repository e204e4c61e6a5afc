"""The slot: what the server keeps for it is seen early, and every way to lose it is told."""

import itertools
import os
import re
import shutil
import signal
import subprocess

import pytest
from machine import server_user, wait_for
from postgres import Server, programs

pytestmark = pytest.mark.sanitized

# A slot is lost soon behind these.
TIGHT = {"max_slot_wal_keep_size": "64MB", "max_wal_size": "48MB", "min_wal_size": "32MB"}


def prepared(rig, **connection):
    rig.db.table("t")
    rig.db.publish("t")
    rig.db.sql("CREATE TABLE busy (id int, v text)")
    return rig.start(connection=connection)


def noise(db, mib):
    """So much WAL that nothing of is published."""
    for _ in range(mib):
        db.sql("SELECT pg_logical_emit_message(true, 'noise', repeat('x', 1048576))")


def gap(rig):
    """The event that says that capture ended with a gap."""
    wait_for("the gap is named", lambda: any(e.get("code") == "gap"
                                             for e in rig.walpost.events("capture_failed")),
             tail=rig.walpost.tail)
    return rig.walpost.events("capture_failed")[-1]


def missing_bytes(event):
    return int(re.search(r"(\d+) bytes of WAL", event["msg"])[1])


# --- what is seen early ------------------------------------------------------------------------


@pytest.mark.versions
def test_F17_F51_the_budget_is_watched_and_told_at_its_steps(rig):
    """An open transaction holds the WAL: percent by percent it shows, and goes away with it."""
    walpost = prepared(rig, wal_budget="64MiB")
    with rig.db.connect(autocommit=False) as open_one:
        open_one.execute("INSERT INTO busy VALUES (1, 'open')")
        rig.db.server.sql("CHECKPOINT")
        noise(rig.db, 36)
        wait_for("the first step is told", lambda: walpost.events("slot_keeps_wal"),
                 tail=walpost.tail)
        told = walpost.events("slot_keeps_wal")[0]
        assert 50 <= int(told["percent"]) and int(told["budget_bytes"]) == 64 << 20
        assert int(told["retained_bytes"]) >= 32 << 20
        noise(rig.db, 28)
        wait_for("so are the higher ones", lambda: any(
            int(e["percent"]) >= 90 for e in walpost.events("slot_keeps_wal")),
            tail=walpost.tail)
        assert "transaction" in walpost.events("slot_keeps_wal")[-1]["held_by"]
        wait_for("health tells", lambda: '"wal_budget_step": 90' in walpost.get("/healthz")[1], tail=walpost.tail)
        assert walpost.get("/healthz")[0] == 200
        assert '"used_percent"' in walpost.get("/readyz")[1]
        wait_for("so do the metrics", lambda: walpost.metric("walpost_slot_retained_bytes") >= 60 << 20
                 and walpost.metric("walpost_slot_unconfirmed_bytes") < 32 << 20
                 and walpost.metric("walpost_slot_wal_budget_used_ratio") >= 0.9
                 and walpost.metric("walpost_slot_safe_wal_bytes") == float("inf"), tail=walpost.tail)
        page = walpost.get("/status.txt")[1]
        assert "WAL STATUS" in page and "no limit" in page, page
        open_one.rollback()

    def released():
        rig.db.server.sql("CHECKPOINT")
        return walpost.events("slot_released_wal")
    wait_for("it is told when it is over", released, 60, 0.5, tail=walpost.tail)
    wait_for("health tells no more of it", lambda: '"wal_budget_step"' not in walpost.get("/healthz")[1], tail=walpost.tail)
    rig.db.sql("INSERT INTO t VALUES (1, 'after')")
    rig.assert_whole()


def test_the_servers_own_limit_is_the_budget(own_server, make_rig):
    server = own_server(TIGHT)
    rig = make_rig(server.database())
    walpost = prepared(rig)
    wait_for("the slot was looked at", lambda: walpost.metric(
        "walpost_slot_looked_timestamp_seconds") > 0, tail=walpost.tail)

    def agree():
        of = {series.partition("{")[0]: value for series, value in walpost.metrics().items()}
        safe, kept, budget = (of[f"walpost_slot_{name}_bytes"] for name in ("safe_wal", "retained", "wal_budget"))
        return 32 << 20 <= safe <= 96 << 20 and budget == safe + kept
    wait_for("what is safe and what is kept are the budget", agree, tail=walpost.tail)
    assert walpost.metric("walpost_slot_wal_status", status="reserved") == 1


def test_a_second_connection_that_hangs_costs_the_stream_nothing(rig):
    walpost = prepared(rig)

    def second():
        return rig.db.server.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
            " AND backend_type = 'client backend'", f"walpost_{rig.db.name}")
    # What the table looks like is asked for before its first row, and that is waited for.
    rig.db.sql("INSERT INTO t VALUES (0, 'first')")
    rig.wait_arrived(1)
    pid = wait_for("the second connection is there", second, tail=walpost.tail)[0][0]
    os.kill(pid, signal.SIGSTOP)
    try:
        sent = itertools.count(1)

        def failed():
            """One more record arrives; was a look given up meanwhile, at the slot or at the publication?"""
            n = next(sent)
            rig.db.sql("INSERT INTO t VALUES (%s, 'on')", n)
            rig.wait_arrived(n + 1)
            return walpost.events("slot_is_unwatched") or walpost.events("publication_is_unwatched")
        wait_for("a look is given up", failed, 120, 0.2, tail=walpost.tail)
    finally:
        os.kill(pid, signal.SIGCONT)
    given_up = walpost.metric("walpost_slot_looked_timestamp_seconds")
    wait_for("it is watched again", lambda: walpost.metric("walpost_slot_looked_timestamp_seconds") > given_up,
             tail=walpost.tail)
    assert walpost.metric("walpost_source_reconnects_total") == 0
    rig.assert_whole()


# --- every way to lose it ----------------------------------------------------------------------


def delivered_one(rig, **connection):
    walpost = prepared(rig, **connection)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    return walpost


def settled(rig):
    """Everything so far is confirmed; where that is."""
    end = rig.db.wal_end()
    wait_for("all is confirmed", lambda: rig.db.confirmed() >= end, tail=rig.walpost.tail)


def test_F14_F48_a_slot_advanced_by_somebody_else_is_a_gap_with_its_size(rig):
    walpost = delivered_one(rig)
    settled(rig)
    walpost.stop()
    slot, before = rig.db.released(), rig.db.confirmed()
    rig.db.sql("INSERT INTO t VALUES (2, 'lost')")
    rig.db.server.sql("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", slot, database=rig.db.name)
    moved = rig.db.confirmed()
    assert moved > before
    walpost.spawn()
    event = gap(rig)
    assert "moved" in event["msg"] and 0 < missing_bytes(event) <= moved - before, event


def test_F14_a_buffer_that_was_set_back_is_a_gap(rig):
    """The slot is further than what we have."""
    walpost = delivered_one(rig)
    settled(rig)
    walpost.stop()
    shutil.copytree(walpost.data, rig.folder / "older")
    walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (2, 'b')")
    rig.assert_whole()
    settled(rig)
    walpost.stop()
    shutil.rmtree(walpost.data)
    shutil.copytree(rig.folder / "older", walpost.data)
    walpost.spawn()
    assert missing_bytes(gap(rig)) > 0


@pytest.mark.versions
def test_F15_a_slot_that_was_dropped_is_a_gap_with_its_size(rig):
    walpost = delivered_one(rig)
    settled(rig)
    walpost.stop()
    rig.db.server.sql("SELECT pg_drop_replication_slot(%s)", rig.db.released())
    noise(rig.db, 3)
    walpost.spawn()
    event = gap(rig)
    assert "is gone" in event["msg"] and missing_bytes(event) >= 3 << 20, event
    assert rig.db.slots() == [], "it is not quietly made anew"


@pytest.mark.versions
def test_F18_a_slot_dropped_while_it_is_read_is_a_gap(rig):
    walpost = delivered_one(rig)
    slot = rig.db.slots()[0][0]
    walpost.sigstop()
    try:
        wait_for("the slot is dropped", lambda: rig.db.take_slot_away(slot))
    finally:
        walpost.sigcont()
    assert "is gone" in gap(rig)["msg"]


@pytest.mark.versions
def test_F16_a_slot_lost_while_nobody_reads_is_a_gap_with_its_size(own_server, make_rig):
    rig = make_rig(own_server(TIGHT).database())
    walpost = delivered_one(rig)
    settled(rig)
    walpost.stop()
    noise(rig.db, 160)
    rig.db.server.sql("CHECKPOINT")
    walpost.spawn()
    event = gap(rig)
    assert "lost" in event["msg"] and "wal_removed" in event["msg"], event
    assert missing_bytes(event) >= 160 << 20
    assert "pg_drop_replication_slot" in event["remedy"]


@pytest.mark.versions
def test_F16_a_slot_lost_while_it_is_read_is_a_gap(own_server, make_rig):
    """The server ends the walsender with the words it also has for pg_terminate_backend."""
    rig = make_rig(own_server(TIGHT).database())
    walpost = delivered_one(rig)
    walpost.sigstop()
    try:
        noise(rig.db, 160)
        rig.db.server.sql("CHECKPOINT")
        wait_for("the slot is lost", lambda: rig.db.server.sql(
            "SELECT 1 FROM pg_replication_slots WHERE wal_status = 'lost'"))
    finally:
        walpost.sigcont()
    assert "lost" in gap(rig)["msg"]


def test_a_gap_is_on_the_pages_while_something_is_left_to_deliver(rig):
    walpost = delivered_one(rig)
    settled(rig)
    rig.receiver.stop()
    rig.db.sql("INSERT INTO t VALUES (2, 'held')")
    settled(rig)
    walpost.stop()
    rig.db.server.sql("SELECT pg_drop_replication_slot(%s)", rig.db.released())
    noise(rig.db, 2)
    walpost.spawn()
    gap(rig)
    wait_for("it is measured", lambda: walpost.metric("walpost_source_gap_bytes") >= 2 << 20, tail=walpost.tail)
    wait_for("the page tells", lambda: "bytes of WAL are missing" in walpost.get("/status.txt")[1], tail=walpost.tail)
    assert "gap" in walpost.get("/status.txt")[1]
    rig.receiver.start()
    rig.wait_arrived(2)


def test_F25_X36_another_cluster_behind_the_name_is_a_gap(own_server, make_rig):
    first, second = own_server(), own_server()
    rig = make_rig(first.database())
    walpost = delivered_one(rig)
    walpost.stop()
    other = second.database()
    other.table("t")
    other.publish("t")
    second.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')",
               f"walpost_{rig.db.name}", database=other.name)
    walpost.config["connections"][rig.db.name]["configuration"]["port"] = second.port
    walpost.write()
    walpost.spawn()
    assert "system identifier" in gap(rig)["msg"]


def set_back(server, backup):
    """The stopped server's files are those of the backup again."""
    shutil.rmtree(server.data)
    shutil.copytree(backup, server.data, symlinks=True)
    if server_user():
        subprocess.run(["chown", "-R", f"{server_user()}:{server_user()}", server.data], check=True)


def test_F26_a_restored_backup_is_a_gap(own_server, make_rig, folder):
    server = own_server()
    rig = make_rig(server.database())
    walpost = delivered_one(rig)
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    shutil.copytree(server.data, folder / "backup", symlinks=True)
    server.start()
    walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (2, 'after the backup')")
    rig.assert_whole()
    noise(rig.db, 2)
    settled(rig)
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    set_back(server, folder / "backup")
    server.start()
    walpost.spawn()
    event = gap(rig)
    assert "restored backup" in event["msg"] and missing_bytes(event) >= 1 << 20, event


def promote(server):
    """A new timeline from here on, as after a restore to a point in time."""
    (server.data / "recovery.signal").touch()
    if server_user():
        shutil.chown(server.data / "recovery.signal", server_user(), server_user())
    server.set({"restore_command": "'false'", "recovery_target_timeline": "'current'"})
    server.start()
    wait_for("recovery is over",
             lambda: server.sql("SELECT pg_is_in_recovery()") == [(False,)])


def test_F26_a_new_timeline_that_left_before_what_was_read_is_a_gap(own_server, make_rig, folder):
    """The WAL has grown past what was read again: only the timeline's history tells."""
    server = own_server()
    rig = make_rig(server.database())
    walpost = delivered_one(rig)
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    shutil.copytree(server.data, folder / "backup", symlinks=True)
    server.start()
    walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (2, 'will not have been')")
    rig.assert_whole()
    settled(rig)
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    set_back(server, folder / "backup")
    promote(server)
    noise(rig.db, 4)
    walpost.spawn()
    event = gap(rig)
    assert "timeline 1" in event["msg"] and missing_bytes(event) > 0, event


def test_a_new_timeline_that_holds_what_was_read_goes_on(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    walpost = delivered_one(rig)
    settled(rig)
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    promote(server)
    walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (2, 'on timeline 2')")
    rig.assert_whole()
    ids = [r["id"] for r in rig.receiver.records()]
    assert [i[2:8] for i in ids] == ["000001", "000002"] and ids == sorted(ids)
    walpost.restart(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (3, 'and after a restart')")
    rig.assert_whole()


# --- a slot that somebody holds ----------------------------------------------------------------


@pytest.mark.slow
def test_F06_a_slot_that_another_process_reads_is_waited_for_and_then_told(rig):
    rig.db.table("t")
    rig.db.publish("t")
    slot = f"walpost_{rig.db.name}"
    rig.db.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot,
                      database=rig.db.name)
    holder = subprocess.Popen(
        [programs(15) / "pg_recvlogical", "-h", rig.db.server.folder, "-p",
         str(rig.db.server.port), "-U", "walpost", "-d", rig.db.name, "-S", slot, "--start", "-f",
         "-", "-o", "proto_version=1", "-o", "publication_names=walpost"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for("the slot is held", lambda: rig.db.slots()[0][1])
        pid = rig.db.walsender_pid()
        walpost = rig.prepare().spawn()
        wait_for("it is waited for", lambda: walpost.events("slot_is_held"), tail=walpost.tail)
        wait_for("it is told, with the holder's pid", lambda: walpost.events("slot_stays_held"),
                 tail=walpost.tail)
        assert f"pid {pid}" in walpost.events("slot_stays_held")[0]["msg"]
        assert rig.db.walsender_pid() == pid, "nobody fought over it"
    finally:
        holder.terminate()
        holder.wait(60)
    walpost.wait_streaming(rig.db)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()


def test_F28_a_standby_that_has_to_confirm_first_is_named(folder, make_rig):
    """No change that a failover could undo is sent (17 and newer); it is no hang."""
    server = Server(folder / "server18", {"synchronized_standby_slots": "'standby'"}, version=18)
    try:
        server.sql("SELECT pg_create_physical_replication_slot('standby', true)")
        rig = make_rig(server.database())
        rig.db.table("t")
        rig.db.publish("t")
        walpost = rig.start()
        assert server.sql("SELECT failover FROM pg_replication_slots WHERE slot_type = 'logical'"
                          ) == [(True,)]
        rig.db.sql("INSERT INTO t VALUES (1, 'a')")
        wait_for("the page names it", lambda: "waits for a standby" in walpost.get("/status.txt")[1],
                 tail=walpost.tail)
        wait_for("so does readiness", lambda: '"state": "waiting"' in walpost.get("/readyz")[1], tail=walpost.tail)
        server.sql("ALTER SYSTEM SET synchronized_standby_slots = ''")
        server.reload()
        rig.assert_whole()
        wait_for("it is over", lambda: "waits for a standby" not in walpost.get("/status.txt")[1],
                 tail=walpost.tail)
        rig.end()
    finally:
        server.destroy()


# --- what cannot be decoded --------------------------------------------------------------------


def encoded(server, encoding):
    """A database in this encoding, without a history."""
    db = server.database()
    db.connection.close()
    server.sql(f"DROP DATABASE {db.name}")
    server.sql(f"CREATE DATABASE {db.name} OWNER walpost ENCODING '{encoding}' LC_COLLATE 'C'"
               " LC_CTYPE 'C' TEMPLATE template0")
    server.sql("ALTER SCHEMA public OWNER TO walpost", database=db.name)
    return db


def test_F24_a_text_that_the_server_cannot_convert_is_told_with_the_way_out(own_server, make_rig):
    """The same error for ever: capture stops, and what it prints works."""
    db = encoded(own_server(), "WIN1252")
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    db.publish("t")
    rig = make_rig(db)
    rig.start()
    db.sql("INSERT INTO t VALUES (1, convert_from('\\xe9', 'WIN1252'))")
    rig.wait_arrived(1)
    assert rig.receiver.records()[0]["fields"]["v"] == "\u00e9", "what has a counterpart is converted"
    db.sql("INSERT INTO t VALUES (2, convert_from('\\x81', 'WIN1252'))")
    walpost = rig.walpost
    wait_for("capture stops", lambda: walpost.events("capture_failed"), tail=walpost.tail)
    event = walpost.events("capture_failed")[0]
    assert "22P05" in event["msg"] and "convert" in event["remedy"], event
    walpost.stop()
    db.released()
    remedy = re.search(r"SELECT pg_replication_slot_advance\(.*?\)\);", event["remedy"])[0]
    db.server.sql(remedy.rstrip(";"), database=db.name)
    shutil.rmtree(walpost.data)
    walpost.start(databases=[db])
    db.sql("INSERT INTO t VALUES (3, 'after')")
    rig.wait_arrived(2)
    assert rig.receiver.records()[-1]["fields"]["v"] == "after"
