"""What somebody does to the publication while it is read: the stream says nothing of it, walpost does."""

import contextlib
import sqlite3

import pytest
from machine import wait_for


def told(rig, event, **fields):
    """The first event of this name with these fields."""
    def found():
        return [e for e in rig.walpost.events(event) if all(e.get(k) == v for k, v in fields.items())]
    wait_for(f"{event} {fields}", found, tail=rig.walpost.tail)
    return found()[0]


def watched(rig):
    """Until the publication was looked at: what comes later is news."""
    wait_for("the first look", lambda: rig.walpost.metric("walpost_source_publication_tables"),
             tail=rig.walpost.tail)


def test_F21_a_table_that_leaves_the_publication_is_told_and_comes_back(rig):
    rig.db.table("t")
    rig.db.table("u")
    rig.db.sql("CREATE TABLE gone (id int PRIMARY KEY)")
    rig.db.sql("CREATE TABLE named (id int PRIMARY KEY)")
    rig.db.publish("t", "u", "gone", "named")
    walpost = rig.start()
    watched(rig)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.db.sql("ALTER PUBLICATION walpost DROP TABLE t")
    left = told(rig, "table_left_publication")
    assert left["table"] == "public.t" and left["level"] == "warn" and "not in publication walpost" in left["note"]
    wait_for("it is counted", lambda: walpost.metric("walpost_source_left_tables") == 1, tail=walpost.tail)
    wait_for("health tells", lambda: "1 tables left the publication" in walpost.get("/healthz")[1], tail=walpost.tail)
    rig.db.server.sql("INSERT INTO t VALUES (2, 'unread')", database=rig.db.name)
    rig.db.sql("INSERT INTO u VALUES (1, 'b')")
    rig.wait_arrived(2)
    rig.db.sql(left["remedy"].rstrip(";"))
    back = told(rig, "table_is_back", table="public.t")
    wait_for("nothing is out", lambda: walpost.metric("walpost_source_left_tables") == 0, tail=walpost.tail)
    wait_for("so says health", lambda: "left the publication" not in walpost.get("/healthz")[1], tail=walpost.tail)
    assert back["remedy"] == "walpost resync main public.t"
    done = walpost.command(*back["remedy"].split()[1:])
    assert done.returncode == 0, done.stderr
    wait_for("what was not read is copied", lambda: any(
        r["operation"] == "read" and r["fields"] == {"id": 2, "v": "unread"} for r in rig.receiver.records()),
        tail=walpost.tail)
    rig.db.sql("ALTER TABLE named RENAME TO renamed")
    assert "come as public.renamed" in told(rig, "table_renamed", table="public.named")["note"]
    rig.db.sql("DROP TABLE gone")
    assert told(rig, "table_dropped", table="public.gone")["level"] == "info"
    assert [e["table"] for e in walpost.events("table_left_publication")] == ["public.t"], walpost.tail()
    assert walpost.metric("walpost_source_reconnects_total") == 0
    walpost.stop()
    assert "public.t was out of the publication" in walpost.command("status").stdout


def test_F21_a_partition_that_is_detached_is_told(rig):
    rig.db.sql("CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    for i in range(2):
        rig.db.sql(f"CREATE TABLE r{i} PARTITION OF r FOR VALUES FROM ({i}0) TO ({i + 1}0)")
    rig.db.sql("CREATE TABLE alone (id int PRIMARY KEY)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE r, alone WITH (publish_via_partition_root = true)",
                      database=rig.db.name)
    rig.start(tables=["public.r"])
    watched(rig)
    # Nobody asks for it, so its coming and going is no news.
    rig.db.server.sql("ALTER PUBLICATION walpost DROP TABLE alone", database=rig.db.name)
    rig.db.sql("INSERT INTO r VALUES (1), (11)")
    rig.wait_arrived(2)
    rig.db.sql("ALTER TABLE r DETACH PARTITION r1")
    left = told(rig, "table_left_publication")
    assert left["table"] == "public.r" and "public.r1 is no partition of it" in left["note"], left
    assert "ADD TABLE ONLY public.r1" in left["remedy"]
    rig.db.sql("DROP TABLE r1")
    wait_for("what is dropped is not out", lambda: rig.walpost.metric("walpost_source_left_tables") == 0,
             tail=rig.walpost.tail)
    rig.db.sql("DROP TABLE r0")
    assert "public.r0 was dropped" in told(rig, "table_dropped", table="public.r")["note"]
    assert "public.alone" not in rig.walpost.log_text()


@pytest.mark.versions
def test_F23_options_of_the_publication_that_change_are_told(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    rig.db.sql("CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    rig.db.sql("CREATE TABLE r0 PARTITION OF r FOR VALUES FROM (0) TO (10)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t, r WITH (publish_via_partition_root = true)",
                      database=rig.db.name)
    walpost = rig.start()
    watched(rig)

    def alter(statement):
        rig.db.server.sql(f"ALTER PUBLICATION walpost {statement}", database=rig.db.name)
    has_filters = rig.db.connection.info.server_version >= 150000
    if has_filters:
        alter("SET TABLE t WHERE (id < 10), r")
    alter("SET (publish = 'insert, truncate')")
    changed = told(rig, "publication_changed")
    assert "update, delete of its tables does not come" in changed["note"], changed
    wait_for("it is counted", lambda: walpost.metric("walpost_source_lost_operations") == 2, tail=walpost.tail)
    wait_for("health tells", lambda: "stopped sending 2 of" in walpost.get("/healthz")[1], tail=walpost.tail)
    if has_filters:
        assert "has a row filter now" in told(rig, "table_filter_changed", table="public.t")["note"]
        alter("SET TABLE t (id), r")
    alter("SET (publish_via_partition_root = false)")
    rig.db.server.sql(changed["remedy"].rstrip(";"), database=rig.db.name)
    left = told(rig, "table_left_publication", table="public.r")
    assert "names of its partitions" in left["note"] and "publish_via_partition_root = true" in left["remedy"]
    assert "come as public.r0" in told(rig, "table_renamed", table="public.r")["note"]
    wait_for("it is over", lambda: walpost.metric("walpost_source_lost_operations") == 0, tail=walpost.tail)
    wait_for("so says health", lambda: "stopped sending" not in walpost.get("/healthz")[1], tail=walpost.tail)
    if has_filters:
        assert "what comes is id" in told(rig, "table_columns_changed", table="public.t")["note"]
    rig.db.server.sql(left["remedy"].rstrip(";"), database=rig.db.name)
    told(rig, "table_is_back", table="public.r")
    assert len(walpost.events("table_left_publication")) == 1, "the other tables stayed"
    assert not walpost.events("table_dropped")


def test_F20_a_publication_that_is_gone_is_told_before_a_change_comes(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t", database=rig.db.name)
    walpost = rig.start()
    watched(rig)
    rig.db.server.sql("DROP PUBLICATION walpost", database=rig.db.name)
    assert "not there any more" in told(rig, "publication_is_gone")["note"]
    wait_for("health tells", lambda: "the publication is not there any more" in walpost.get("/healthz")[1],
             tail=walpost.tail)
    assert not walpost.events("capture_failed")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t", database=rig.db.name)
    told(rig, "publication_is_back")
    wait_for("it is over", lambda: walpost.metric("walpost_source_publication_gone") == 0, tail=walpost.tail)
    assert not walpost.events("table_left_publication")


@pytest.mark.slow
def test_F21_of_many_tables_that_come_back_at_once_every_one_is_copied(rig):
    many = 60
    for i in range(many):
        rig.db.sql(f"CREATE TABLE m{i} (id int PRIMARY KEY)")
    names = ", ".join(f"m{i}" for i in range(many))
    rig.db.server.sql(f"CREATE PUBLICATION walpost FOR TABLE {names}", database=rig.db.name)
    walpost = rig.start(connection={"on_gap": "resync"})
    watched(rig)
    rig.db.server.sql(f"ALTER PUBLICATION walpost DROP TABLE {names}", database=rig.db.name)
    wait_for("all are out", lambda: walpost.metric("walpost_source_left_tables") == many, tail=walpost.tail)
    for i in range(many):
        rig.db.server.sql(f"INSERT INTO m{i} VALUES (1)", database=rig.db.name)
    rig.db.server.sql(f"ALTER PUBLICATION walpost ADD TABLE {names}", database=rig.db.name)
    wait_for("what was not read of any is copied", lambda: len(
        {r["schema"] for r in rig.receiver.records() if r["operation"] == "read"}) == many, 240, 1, tail=walpost.tail)


@pytest.mark.parametrize("comes_back", ["while it reads", "while nobody reads"])
def test_F21_a_table_that_is_out_over_a_restart_is_still_known_to_come_back(rig, comes_back):
    for name in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t, u", database=rig.db.name)
    walpost = rig.start(connection={"on_gap": "resync"})
    watched(rig)
    rig.db.server.sql("ALTER PUBLICATION walpost DROP TABLE t", database=rig.db.name)
    wait_for("it is out", lambda: walpost.metric("walpost_source_left_tables") == 1, tail=walpost.tail)
    rig.db.server.sql("INSERT INTO t VALUES (1)", database=rig.db.name)
    walpost.kill()
    if comes_back == "while it reads":
        walpost.start(databases=[rig.db])
        wait_for("it is known", lambda: walpost.metric("walpost_source_left_tables") == 1, tail=walpost.tail)
        rig.db.server.sql("ALTER PUBLICATION walpost ADD TABLE t", database=rig.db.name)
    else:
        rig.db.server.sql("ALTER PUBLICATION walpost ADD TABLE t", database=rig.db.name)
        walpost.start(databases=[rig.db])
    told(rig, "table_is_back", table="public.t")
    wait_for("what was not read is copied", lambda: any(
        r["operation"] == "read" and r["fields"] == {"id": 1} for r in rig.receiver.records()), tail=walpost.tail)
    wait_for("nothing is out", lambda: walpost.metric("walpost_source_left_tables") == 0, tail=walpost.tail)
    walpost.stop()
    walpost.start(databases=[rig.db])
    watched(rig)
    assert len(walpost.events("table_is_back")) == 1, "once"


def test_F21_a_table_that_comes_back_is_a_gap_of_those_who_have_it_alone(rig):
    for name in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t, u", database=rig.db.name)
    hook = rig.add_receiver()
    walpost = rig.start(syncs={"a": rig.sync(hook.name, ["public.u"]), "b": rig.sync(hook.name, ["public.t"])})
    watched(rig)
    rig.db.server.sql("ALTER PUBLICATION walpost DROP TABLE t", database=rig.db.name)
    wait_for("it is out", lambda: walpost.metric("walpost_source_left_tables") == 1, tail=walpost.tail)
    rig.db.server.sql("ALTER PUBLICATION walpost ADD TABLE t", database=rig.db.name)
    back = told(rig, "table_is_back", table="public.t")
    assert back["remedy"] == "walpost resync b public.t"
    assert walpost.command(*back["remedy"].split()[1:]).returncode == 0
    walpost.stop()
    status = walpost.command("status").stdout
    assert status.count("public.t was out of the publication") == 1, status


@pytest.mark.slow
def test_F21_a_table_is_told_that_leaves_with_a_thousand_nobody_asks_for(rig):
    others = [f"m{i}" for i in range(1005)]
    for i in range(0, len(others), 201):
        rig.db.server.sql("; ".join(f"CREATE TABLE {m} (id int PRIMARY KEY)" for m in others[i:i + 201]),
                          database=rig.db.name)
    for name in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    rig.db.server.sql(f"CREATE PUBLICATION walpost FOR TABLE t, u, {', '.join(others)}", database=rig.db.name)
    rig.start(tables=["public.t", "public.u"])
    watched(rig)
    rig.db.server.sql("ALTER PUBLICATION walpost SET TABLE u", database=rig.db.name)
    told(rig, "table_left_publication", table="public.t")
    assert not rig.walpost.events("table_dropped")


def test_F21_a_table_that_leaves_and_comes_back_between_two_looks_is_a_gap(rig):
    """One transaction does both, so no look can see it out."""
    version = rig.db.connection.info.server_version
    for name in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    rig.db.sql("CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    for i in range(2):
        rig.db.sql(f"CREATE TABLE r{i} PARTITION OF r FOR VALUES FROM ({i}0) TO ({i + 1}0)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t, u, r WITH (publish_via_partition_root = true)",
                      database=rig.db.name)
    walpost = rig.start(connection={"on_gap": "resync"})
    watched(rig)

    def alter(statements):
        rig.db.server.sql(statements, database=rig.db.name)
    alter("BEGIN; ALTER PUBLICATION walpost DROP TABLE t; INSERT INTO t VALUES (1);"
          " ALTER PUBLICATION walpost ADD TABLE t; ALTER TABLE r DETACH PARTITION r1;"
          " ALTER TABLE r ATTACH PARTITION r1 FOR VALUES FROM (10) TO (20); CREATE SCHEMA s;"
          " ALTER TABLE u SET SCHEMA s; COMMIT")
    back = told(rig, "table_is_back", table="public.t")
    assert back["level"] == "warn" and "taken out of publication walpost and put back" in back["note"], back
    assert "its partition public.r1" in told(rig, "table_is_back", table="public.r")["note"]
    told(rig, "table_renamed", table="public.u")
    wait_for("it is copied", lambda: any(r["operation"] == "read" and r["schema"] == "public.t"
                                         for r in rig.receiver.records()), 60, tail=walpost.tail)

    def look():
        """Until it has been looked at what there is now."""
        alter("ALTER PUBLICATION walpost SET (publish = 'insert, update, delete')")
        wait_for("a look", lambda: walpost.metric("walpost_source_lost_operations") == 1, 60, tail=walpost.tail)
        alter("ALTER PUBLICATION walpost SET (publish = 'insert, update, delete, truncate')")
        wait_for("a look", lambda: walpost.metric("walpost_source_lost_operations") == 0, 60, tail=walpost.tail)
    # What is published by a second way before it leaves the first one has never been out.
    if version >= 150000:
        alter("ALTER PUBLICATION walpost ADD TABLES IN SCHEMA s")
        look()
        alter("ALTER PUBLICATION walpost DROP TABLE s.u")
    look()
    assert sorted(e["table"] for e in walpost.events("table_is_back")) == ["public.r", "public.t"]
    assert not walpost.events("table_left_publication")


@pytest.mark.versions
def test_F21_a_published_table_that_is_attached_and_detached_is_no_gap(rig):
    rig.db.sql("CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    rig.db.sql("CREATE TABLE r0 (id int PRIMARY KEY)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR ALL TABLES WITH (publish_via_partition_root = true)",
                      database=rig.db.name)
    rig.start()
    watched(rig)
    rig.db.sql("INSERT INTO r0 VALUES (1)")
    rig.db.sql("ALTER TABLE r ATTACH PARTITION r0 FOR VALUES FROM (0) TO (10)")
    told(rig, "table_renamed", table="public.r0")
    rig.db.sql("INSERT INTO r VALUES (2)")
    rig.db.sql("ALTER TABLE r DETACH PARTITION r0")
    told(rig, "table_renamed", table="public.r")
    rig.db.sql("INSERT INTO r0 VALUES (3)")
    rig.wait_arrived(3)
    assert rig.walpost.events("table_is_back") == [], rig.walpost.tail()


@pytest.mark.versions
def test_F21_a_partition_whose_detaching_is_pending_has_left(rig):
    if rig.db.connection.info.server_version < 140000:
        pytest.skip("the first with DETACH PARTITION CONCURRENTLY is 14")
    rig.db.sql("CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    for i in range(2):
        rig.db.sql(f"CREATE TABLE r{i} PARTITION OF r FOR VALUES FROM ({i}0) TO ({i + 1}0)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE r WITH (publish_via_partition_root = true)",
                      database=rig.db.name)
    rig.start(tables=["public.r"])
    watched(rig)
    # Somebody reads the table, so that the second half of the statement waits, and is given up.
    with rig.db.server.connect(database=rig.db.name, autocommit=False) as reader, rig.db.server.connect(
            database=rig.db.name, autocommit=True) as owner:
        reader.execute("SELECT * FROM r")
        owner.execute("SET lock_timeout = '300ms'")
        with contextlib.suppress(Exception):
            owner.execute("ALTER TABLE r DETACH PARTITION r1 CONCURRENTLY")
        assert owner.execute("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'r1'::regclass"
                             ).fetchone() == (True,)
    left = told(rig, "table_left_publication")
    assert left["table"] == "public.r" and "public.r1 is no partition of it" in left["note"], left
    rig.db.server.sql("INSERT INTO r1 VALUES (11)", database=rig.db.name)
    rig.db.sql("INSERT INTO r VALUES (1)")
    rig.wait_arrived(1)
    assert [r["fields"]["id"] for r in rig.receiver.records()] == [1]
    assert rig.walpost.events("table_is_back") == [], rig.walpost.tail()


def test_F21_what_comes_back_while_walpost_does_not_run_is_a_gap(rig):
    for name in ("t", "u", '"q\t\\"'):
        rig.db.sql(f"CREATE TABLE {name} (id int PRIMARY KEY)")
    rig.db.server.sql('CREATE PUBLICATION walpost FOR TABLE t, u, "q\t\\"', database=rig.db.name)
    walpost = rig.start()
    watched(rig)
    walpost.stop()
    walpost.start(databases=[rig.db])
    watched(rig)
    assert not walpost.events("table_is_back") and not walpost.events("table_published")
    walpost.kill()
    rig.db.server.sql("ALTER PUBLICATION walpost DROP TABLE t", database=rig.db.name)
    rig.db.server.sql("INSERT INTO t VALUES (1)", database=rig.db.name)
    rig.db.server.sql("ALTER PUBLICATION walpost ADD TABLE t", database=rig.db.name)
    rig.db.server.sql("ALTER PUBLICATION walpost DROP TABLE u", database=rig.db.name)
    walpost.start(databases=[rig.db])
    assert told(rig, "table_is_back")["table"] == "public.t"
    assert told(rig, "table_left_publication")["table"] == "public.u"
    wait_for("it is counted", lambda: walpost.metric("walpost_source_left_tables") == 1, 60, tail=walpost.tail)
    # Made anew, every entry is another.
    rig.db.server.sql("BEGIN; DROP PUBLICATION walpost; CREATE PUBLICATION walpost FOR TABLE t, u, \"q\t\\\"; COMMIT",
                      database=rig.db.name)
    wait_for("all are told", lambda: len(walpost.events("table_is_back")) == 4, 60, tail=walpost.tail)
    assert [e["table"] for e in walpost.events("table_is_back")][1:3] == ["public.t", "public.u"]
    walpost.stop()
    assert "public.t was out of the publication" in walpost.command("status").stdout


def test_F21_a_state_without_a_look_makes_no_gap(rig):
    """As the version before left it."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t", database=rig.db.name)
    walpost = rig.start()
    watched(rig)
    walpost.stop()
    with contextlib.closing(sqlite3.connect(walpost.data / "state.db", timeout=10)) as store, store:
        assert store.execute("DELETE FROM note WHERE name LIKE 'look %'").rowcount == 1
    rig.db.server.sql("BEGIN; DROP PUBLICATION walpost; CREATE PUBLICATION walpost FOR TABLE t; COMMIT",
                      database=rig.db.name)
    walpost.start(databases=[rig.db])
    watched(rig)
    rig.db.server.sql("ALTER PUBLICATION walpost DROP TABLE t", database=rig.db.name)
    told(rig, "table_left_publication")
    assert not walpost.events("table_is_back")
