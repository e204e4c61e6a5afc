"""The source: its slot moves, its application is never hurt, its unreadiness is named."""

import time

import psycopg
import pytest
from machine import stays, wait_for
from postgres import PASSWORD
from walpost import Walpost, source, sync, webhook

pytestmark = pytest.mark.sanitized


@pytest.mark.versions
def test_an_idle_databases_slot_moves(rig):
    """Only another database of the server writes."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    other = rig.db.server.database()
    try:
        for _ in range(3):
            other.sql("CREATE TABLE noise AS SELECT g, repeat('x', 100) FROM"
                      " generate_series(1, 20000) g")
            other.sql("DROP TABLE noise")
            end = rig.db.wal_end()
            wait_for("the slot passes the other database's WAL",
                     lambda: rig.db.confirmed() >= end - 100000, tail=rig.walpost.tail)
    finally:
        other.drop()
    rig.db.sql("INSERT INTO t VALUES (1, 'after')")
    rig.assert_whole()


def test_the_slot_moves_when_only_unpublished_tables_are_busy(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.db.sql("CREATE TABLE busy (id int, v text)")
    rig.start()
    begun = rig.db.wal_end()
    for i in range(50):
        rig.db.sql("INSERT INTO busy SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g")
        time.sleep(0.05)
    end = rig.db.wal_end()
    assert end - begun > 5 << 20
    wait_for("the slot passes them", lambda: rig.db.confirmed() >= end, tail=rig.walpost.tail)
    rig.db.sql("INSERT INTO t VALUES (1, 'after')")
    rig.assert_whole()


def test_an_idle_slot_is_confirmed_behind_a_dead_endpoint(rig):
    rig.add_receiver(start=False)
    rig.db.table("t")
    rig.db.publish("t")
    rig.db.sql("CREATE TABLE busy (id int, v text)")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'held')")
    rig.db.sql("INSERT INTO busy SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
    end = rig.db.wal_end()
    wait_for("the slot is confirmed", lambda: rig.db.confirmed() >= end, tail=rig.walpost.tail)
    rig.receiver.start()
    rig.assert_whole()


@pytest.mark.versions
def test_slot_and_publication_are_created(rig):
    rig.db.table("t")
    rig.db.table("other")
    rig.start(tables=["public.t"])
    assert [name for name, _, _ in rig.db.slots()] == [f"walpost_{rig.db.name}"]
    assert rig.db.sql("SELECT tablename::text FROM pg_publication_tables"
                      " WHERE pubname = 'walpost'") == [("t",)]
    assert rig.db.value("SELECT puballtables FROM pg_publication") is False
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.db.sql("INSERT INTO other VALUES (1, 'a')")
    rig.assert_whole(tables=["public.t"])


@pytest.mark.versions
def test_a_table_without_identity_is_left_out_and_the_application_goes_on(rig):
    """Publishing it would make the application's own UPDATE fail."""
    rig.db.table("good")
    rig.db.table("bare", "id int, v text", key=())
    rig.start(tables=["public.good", "public.bare"])
    rig.db.sql("INSERT INTO bare VALUES (1, 'a')")
    rig.db.sql("UPDATE bare SET v = 'b'")
    rig.db.sql("DELETE FROM bare")
    rig.db.sql("INSERT INTO good VALUES (1, 'a')")
    rig.assert_whole(tables=["public.good"])
    assert "public.bare" in rig.walpost.log_text()
    assert "ALTER TABLE" in rig.walpost.log_text() and "REPLICA IDENTITY" in rig.walpost.log_text()
    done = rig.walpost.command("check")
    assert "public.bare" in done.stdout and "REPLICA IDENTITY" in done.stdout, done.stdout


def wait_taken_out(rig, n):
    wait_for(f"{n} tables are taken out", lambda: rig.walpost.metric("walpost_source_taken_out_tables") == n, tail=rig.tail)


def test_K08_a_table_that_loses_its_key_is_taken_out_of_our_own_publication(rig):
    """The application's UPDATE fails only for a moment, whatever it did to its key; the others go on."""
    rig.db.table("t")
    rig.db.table("u")
    rig.db.table("swapped")
    main, other = rig.add_receiver(), rig.add_receiver("other")
    rig.start(syncs={"main": rig.sync(main.name, ["public.t", "public.u", "public.swapped"]),
                     "other": rig.sync(other.name, ["public.u"])})
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.wait_arrived(1)
    rig.db.sql("ALTER TABLE swapped DROP CONSTRAINT swapped_pkey, ADD PRIMARY KEY (id)")
    with rig.db.connect(autocommit=False) as connection:  # nobody mends it before it is committed
        connection.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState), connection.transaction():
            connection.execute("UPDATE t SET v = 'b'")

    def updates():
        try:
            rig.db.sql("UPDATE t SET v = 'b'")
            return True
        except psycopg.errors.ObjectNotInPrerequisiteState:
            return False
    wait_for("the application goes on", updates, 60, 0.2, tail=rig.walpost.tail)
    wait_for("it is told", lambda: rig.walpost.events("table_taken_out"), tail=rig.walpost.tail)
    told, taken = rig.walpost.events("table_lost_its_identity"), rig.walpost.events("table_taken_out")
    assert [e["table"] for e in told] == [e["table"] for e in taken] == ["public.t"]
    assert "ALTER TABLE public.t REPLICA IDENTITY FULL" in taken[0]["remedy"]
    wait_taken_out(rig, 1)
    wait_for("health tells", lambda: "taken out of the publication" in rig.walpost.get("/healthz")[1], tail=rig.tail)
    assert rig.db.sql("SELECT tablename::text FROM pg_publication_tables ORDER BY 1") == [("swapped",), ("u",)]
    rig.db.sql("INSERT INTO u VALUES (1, 'on')")
    rig.db.sql("UPDATE swapped SET v = 'x'")
    rig.wait_arrived(2)
    assert [r["schema"] for r in rig.receiver.records()] == ["public.t", "public.u"]
    rig.walpost.restart(databases=[rig.db])
    wait_taken_out(rig, 1)
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    rig.walpost.restart(databases=[rig.db])
    wait_for("what was changed meanwhile is copied", lambda: any(
        r["schema"] == "public.t" and r["operation"] == "read" and r["fields"]["v"] == "b"
        for r in rig.receiver.records()), tail=rig.walpost.tail)
    wait_taken_out(rig, 0)
    rig.walpost.stop()
    assert rig.walpost.command("status").stdout.count("public.t was taken out") == 1, "of the sync that has it"


def test_K08_a_table_that_loses_its_key_in_anothers_publication_is_told(rig):
    """Also a partition; what still comes is delivered."""
    rig.db.table("t")
    rig.db.sql("CREATE TABLE pr (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    rig.db.sql("CREATE TABLE pr1 PARTITION OF pr FOR VALUES FROM (0) TO (10)")
    rig.db.publish("t", "pr")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    rig.db.sql("ALTER TABLE pr1 REPLICA IDENTITY NOTHING")
    wait_for("both are told", lambda: len(rig.walpost.events("table_lost_its_identity")) == 2,
             tail=rig.walpost.tail)
    told = {e["table"]: e["remedy"] for e in rig.walpost.events("table_lost_its_identity")}
    assert told.keys() == {"public.t", "public.pr"} and "public.pr1 REPLICA" in told["public.pr"], told
    wait_for("they are counted", lambda: rig.walpost.metric("walpost_source_hurt_tables") == 2, tail=rig.tail)
    wait_for("health tells", lambda: "lost their replica identity" in rig.walpost.get("/healthz")[1], tail=rig.tail)
    rig.db.sql("INSERT INTO t VALUES (2, 'b')")
    rig.wait_arrived(2)
    assert rig.receiver.records()[-1]["key"] is None
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    rig.db.sql("ALTER TABLE pr1 REPLICA IDENTITY DEFAULT")
    wait_for("it is over", lambda: rig.walpost.metric("walpost_source_hurt_tables") == 0, tail=rig.walpost.tail)
    assert not rig.walpost.events("table_taken_out")


def test_a_synchronous_standby_name_of_star_does_not_make_commits_wait(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    rig.db.table("t")
    rig.db.publish("t")
    server.set({"synchronous_standby_names": "'*'"})
    server.reload()
    rig.prepare().spawn()

    def named():
        return "synchronous_standby_names" in rig.walpost.log_text()
    wait_for("the setting is named", named, tail=rig.walpost.tail)
    wait_for("capture has stopped", lambda: not any(a for _, a, _ in rig.db.slots()),
             tail=rig.walpost.tail)
    # Without any standby a commit would wait for ever: nobody may be pretending to be one.
    server.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
    server.reload()
    wait_for("the setting is gone", lambda: server.sql(
        "SHOW synchronous_standby_names") == [("",)])
    if rig.walpost.process.is_running:
        rig.walpost.stop()
    assert rig.walpost.process.wait() in (0, 1)
    rig.walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()


def test_becoming_a_synchronous_standby_while_running_is_noticed(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    server.set({"synchronous_standby_names": "'*'"})
    server.reload()
    wait_for("the setting is named", lambda: "synchronous_standby_names" in rig.walpost.log_text(),
             120, 0.3, tail=rig.walpost.tail)
    wait_for("capture has stopped", lambda: not any(a for _, a, _ in rig.db.slots()),
             tail=rig.walpost.tail)


@pytest.mark.versions
def test_an_existing_slot_is_used_from_its_confirmed_position(rig):
    """What was committed after the slot was made and before walpost came arrives."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.db.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')",
                      f"mine_{rig.db.name}", database=rig.db.name)
    rig.db.sql("INSERT INTO t SELECT g, 'early' FROM generate_series(1, 100) g")
    one = rig.sync("hook")
    rig.add_receiver("hook")
    one["source_configuration"] = {"replication_slot": f"mine_{rig.db.name}"}
    rig.start(syncs={"main": one})
    rig.db.sql("INSERT INTO t SELECT g, 'late' FROM generate_series(101, 200) g")
    report = rig.assert_whole()
    assert report.expected == 200
    assert [name for name, _, _ in rig.db.slots()] == [f"mine_{rig.db.name}"]


def test_two_syncs_share_one_slot(rig):
    rig.db.table("t1")
    rig.db.table("t2")
    rig.db.publish("t1", "t2")
    rig.add_receiver("one")
    rig.add_receiver("two")
    rig.start(syncs={"one": rig.sync("one", ["public.t1"]), "two": rig.sync("two")})
    for i in range(20):
        rig.db.sql("INSERT INTO t1 VALUES (%s, 'a')", i)
        rig.db.sql("INSERT INTO t2 VALUES (%s, 'a')", i)
    rig.assert_whole(rig.receivers["one"], tables=["public.t1"])
    rig.assert_whole(rig.receivers["two"])
    assert len(rig.db.slots()) == 1


@pytest.mark.versions
def test_F14_a_slot_that_was_recreated_is_a_gap_and_not_silence(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.walpost.stop()
    slot = rig.db.released()
    rig.db.server.sql("SELECT pg_drop_replication_slot(%s)", slot)
    rig.db.sql("INSERT INTO t VALUES (2, 'lost')")
    rig.db.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot,
                      database=rig.db.name)
    rig.walpost.spawn()
    wait_for("the gap is named", lambda: any(e.get("code") == "gap" for e in rig.walpost.events()),
             tail=rig.walpost.tail)


@pytest.mark.versions
def test_a_slot_that_was_dropped_is_a_gap_and_not_silence(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.walpost.stop()
    rig.db.server.sql("SELECT pg_drop_replication_slot(%s)", rig.db.released())
    rig.walpost.spawn()
    wait_for("the gap is named", lambda: any(e.get("code") in ("gap", "missing")
                                             for e in rig.walpost.events()),
             tail=rig.walpost.tail)
    assert rig.db.slots() == [], "it is not quietly made anew"
    done = rig.walpost.command("check")
    assert done.returncode == 1 and "is gone" in done.stdout, f"check knows what was read: {done.stdout}"
    rig.walpost.config["connections"][rig.db.name]["configuration"]["on_gap"] = "resync"
    rig.walpost.write()
    done = rig.walpost.command("check")
    assert done.returncode == 0 and "copied again" in done.stdout, done.stdout


# --- a source nobody prepared: one clear sentence and the exact remedy -------------------------


class Unprepared:
    """A configuration over some source; what check and run say about it."""

    def __init__(self, folder, connection, tables=("public.t",)):
        # Port 9 of loopback has nobody: the endpoint is not what is tested here.
        self.walpost = Walpost(folder / "unprepared", {
            "connections": {"shop": connection, "hook": webhook("http://127.0.0.1:9/hook")},
            "bulk_syncs": {"main": sync("shop", "hook", tables)}})

    def check_says(self, *words):
        done = self.walpost.command("check")
        assert done.returncode == 1, done.stdout + done.stderr
        failures = [line for line in done.stdout.splitlines()
                    if line.startswith("FAIL") and "endpoint" not in line]
        print(done.stdout, done.stderr)
        assert len(failures) == 1, f"one clear sentence:\n{done.stdout}{done.stderr}"
        for word in words:
            assert word in done.stdout, f"{word}:\n{done.stdout}"

    def run_says(self, *words, attempts=3):
        """run ends with 1 by itself, and has not stormed the server."""
        self.walpost.spawn()
        assert self.walpost.process.wait() == 1, self.walpost.tail()
        text = self.walpost.log_text()
        print(text)
        for word in words:
            assert word in text.replace('\\"', '"'), f"{word}:\n{text}"
        errors = [e for e in self.walpost.events() if e.get("level") == "error"
                  and e.get("event") != "nothing_left_to_do"]
        assert len(errors) <= attempts, text

    def says(self, *words):
        self.check_says(*words)
        self.run_says(*words)


def test_wal_level_replica(own_server, folder):
    server = own_server({"wal_level": "replica"})
    db = server.database()
    db.table("t")
    Unprepared(folder, source(db)).says("wal_level", "ALTER SYSTEM SET wal_level")


def test_F09_a_role_without_replication(db, folder):
    db.table("t")
    name = f"plain_{db.name}"
    db.server.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    db.server.sql(f"ALTER TABLE t OWNER TO {name}; GRANT CREATE ON DATABASE {db.name} TO {name}",
                  database=db.name)
    Unprepared(folder, source(db, username=name)).says("REPLICATION", "ALTER ROLE", name)


def test_F09_a_wrong_password(db, folder):
    db.table("t")
    Unprepared(folder, source(db, password="wrong-and-secret")).says("password")


def test_F09_a_role_that_pg_hba_refuses(db, folder):
    db.table("t")
    db.server.sql("DROP ROLE IF EXISTS walpost_refused")
    db.server.sql("CREATE ROLE walpost_refused LOGIN REPLICATION PASSWORD 'x'")
    Unprepared(folder, source(db, username="walpost_refused", password="x")).says("pg_hba.conf")


def test_a_database_that_does_not_exist(db, folder):
    db.table("t")
    Unprepared(folder, source(db, database="nowhere")).says("nowhere")


def test_a_publication_that_the_role_may_not_make(db, folder):
    """The tables belong to somebody else: the SQL to run is printed."""
    db.server.sql("CREATE TABLE t (id int PRIMARY KEY)", database=db.name)
    Unprepared(folder, source(db)).says("CREATE PUBLICATION", "public", "t")


@pytest.mark.versions
def test_a_publication_is_made_for_every_table_that_suits_when_none_is_named(rig):
    rig.db.table("t")
    rig.db.table("bare", "id int, v text", key=())
    rig.start()
    assert rig.db.value("SELECT puballtables FROM pg_publication") is False
    published = {name for name, in rig.db.sql("SELECT tablename::text FROM pg_publication_tables")}
    assert "t" in published and "bare" not in published
    rig.db.sql("INSERT INTO bare VALUES (1, 'a')")
    rig.db.sql("UPDATE bare SET v = 'b'")
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.wait_arrived(1)
    assert "public.bare" in rig.walpost.log_text()


@pytest.mark.versions
def test_a_child_table_without_identity_is_not_published_with_its_parent(rig):
    """Publishing the parent alone: the application's own UPDATE of the child goes on."""
    rig.db.table("parent")
    rig.db.sql("CREATE TABLE child () INHERITS (parent)")
    rig.start(tables=["public.parent"])
    rig.db.sql("INSERT INTO child VALUES (1, 'a')")
    rig.db.sql("UPDATE child SET v = 'b'")
    rig.db.sql("INSERT INTO parent VALUES (2, 'a')")
    rig.assert_whole(tables=["public.parent"])


def test_F20_a_slot_that_is_older_than_the_publication_is_refused(rig):
    """What was changed between the two could never be decoded."""
    rig.db.table("t")
    rig.db.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')",
                      f"walpost_{rig.db.name}", database=rig.db.name)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.prepare(tables=["public.t"]).spawn()
    assert rig.walpost.process.wait() == 1, rig.walpost.tail()
    assert "pg_drop_replication_slot" in rig.walpost.log_text()
    assert rig.db.sql("SELECT FROM pg_publication") == []


def test_a_table_that_does_not_exist(db, folder):
    Unprepared(folder, source(db), tables=["public.nothing"]).says("public.nothing")


def test_a_table_without_a_key_is_named_by_check(db, folder):
    db.table("t", "id int, v text", key=())
    done = Unprepared(folder, source(db)).walpost.command("check")
    assert "public.t" in done.stdout and "ALTER TABLE" in done.stdout, done.stdout


def test_a_host_that_is_unreachable(folder, db):
    """It may come back: check fails, run waits and says so without a storm."""
    unprepared = Unprepared(folder, source(db, port=9))
    unprepared.check_says("127.0.0.1", "9")
    unprepared.walpost.spawn()
    wait_for("the reason is logged", lambda: "refused" in unprepared.walpost.log_text(),
             tail=unprepared.walpost.tail)
    stays("it waits", lambda: unprepared.walpost.process.is_running, 3)
    warnings = [e for e in unprepared.walpost.events() if e.get("level") in ("warn", "error")]
    assert len(warnings) < 20, unprepared.walpost.log_text()
    assert unprepared.walpost.stop() == 0


def test_F10_a_host_name_that_does_not_resolve(folder, db):
    Unprepared(folder, source(db, hostname="no-such-host.invalid")).check_says("no-such-host.invalid")


def test_F08_no_free_slot_on_the_server(own_server, folder):
    server = own_server({"max_replication_slots": "1"})
    db = server.database()
    db.table("t")
    server.sql("SELECT pg_create_physical_replication_slot('taken')")
    unprepared = Unprepared(folder, source(db))
    unprepared.walpost.spawn()
    wait_for("the setting is named", lambda: "max_replication_slots" in
             unprepared.walpost.log_text(), tail=unprepared.walpost.tail)
    unprepared.walpost.end()


def test_F19_a_slot_of_another_kind_is_refused(own_server, folder):
    server = own_server()
    db, other = server.database(), server.database()
    db.table("t")
    slot = "walpost_shop"
    unprepared = Unprepared(folder, source(db))
    for make, where, word in (
            ("pg_create_physical_replication_slot(%s)", db, "physical"),
            ("pg_create_logical_replication_slot(%s, 'test_decoding')", db, "test_decoding"),
            ("pg_create_logical_replication_slot(%s, 'pgoutput')", other, other.name)):
        if "test_decoding" in make and server.version != 15:
            continue  # only Debian's has that plugin
        server.sql(f"SELECT {make}", slot, database=where.name)
        done = unprepared.walpost.command("check")
        assert done.returncode == 1 and word in done.stdout, done.stdout
        assert f"pg_drop_replication_slot('{slot}')" in done.stdout, done.stdout
        server.sql("SELECT pg_drop_replication_slot(%s)", slot)


@pytest.mark.versions
def test_F49_F50_a_slot_that_is_copied_and_a_database_that_is_dropped(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.walpost.stop()
    slot = f"walpost_{rig.db.name}"
    rig.db.server.sql("SELECT pg_copy_logical_replication_slot(%s, %s)", slot, f"{slot}_copy",
                      database=rig.db.name)
    rig.walpost.start(databases=[])
    rig.db.sql("INSERT INTO t VALUES (2, 'b')")
    rig.assert_whole()
    rig.walpost.stop()
    rig.db.released()
    assert {name for name, _, _ in rig.db.slots()} == {slot, f"{slot}_copy"}
    rig.db.connection.close()
    rig.db.server.sql(f"DROP DATABASE {rig.db.name} WITH (FORCE)")
    try:
        rig.walpost.spawn()
        assert rig.walpost.process.wait() == 1, rig.walpost.tail()
        assert rig.db.name in rig.walpost.events("capture_failed")[-1]["msg"]
    finally:
        rig.db.server.sql(f"CREATE DATABASE {rig.db.name} OWNER walpost")


@pytest.mark.versions
def test_F55_S15_time_outs_of_the_role(rig):
    """They are meant for its statements, and neither reading nor watching nor copying may end by them."""
    rig.db.table("t")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g")
    rig.db.publish("t")
    version = rig.db.connection.info.server_version
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
                 *(["idle_session_timeout"] if version >= 140000 else []),
                 *(["transaction_timeout"] if version >= 170000 else [])):
        rig.db.server.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET {name} = '60ms'")
    rig.start(syncs={"main": sync(rig.db.name, rig.add_receiver().name, backfill=True)})
    rig.wait_arrived(5000)
    looked = rig.walpost.metric("walpost_slot_looked_timestamp_seconds")
    wait_for("the slot was looked at twice more", lambda: rig.walpost.metric(
        "walpost_slot_looked_timestamp_seconds") > looked + 6, tail=rig.walpost.tail)
    rig.db.server.sql("INSERT INTO t VALUES (5001, 'after')", database=rig.db.name)
    rig.wait_arrived(5001)
    assert rig.walpost.metric("walpost_source_reconnects_total") == 0
    assert not rig.walpost.events("slot_is_unwatched"), rig.walpost.tail()


@pytest.mark.versions
@pytest.mark.parametrize("statement", ["DROP PUBLICATION walpost",
                                       "ALTER PUBLICATION walpost DROP TABLE t"])
def test_F20_F21_a_publication_taken_away_while_running_is_named(rig, statement):
    rig.db.table("t")
    rig.db.table("u")
    rig.db.publish("t", "u")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.db.sql(statement)
    rig.db.sql("INSERT INTO u VALUES (1, 'b')")
    if statement.startswith("DROP"):
        wait_for("the publication is named", lambda: any(
            "publication" in e.get("msg", "") for e in rig.walpost.events()),
            tail=rig.walpost.tail)
    else:
        rig.assert_whole()


def test_what_is_watched_can_be_read_by_psycopg(db):
    """The harness itself: the history sees what a transaction did, and not what it undid."""
    db.table("t")
    with db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'a')")
        connection.rollback()
        connection.execute("INSERT INTO t VALUES (2, 'b')")
    assert [c.op for c in db.history()] == ["INSERT"]
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.sql("INSERT INTO t VALUES (2, 'b')")
