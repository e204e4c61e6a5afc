"""Where copies of existing rows go wrong elsewhere: S01 to S28 of catalog.txt, as far as no other test is about them."""

import collections
import json
import threading

from machine import stays, wait_for
from test_backfill import (assert_ids_rise_per_key, backfilled, contents, first_arrivals, replica,
                           tables_pending, wait_copied, wait_equal)
from test_control import give, reads

EXACT = json.JSONDecoder(parse_float=str)  # as the checker reads records: digit for digit


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def test_S01_S02_S04_S27_the_point_is_an_exact_boundary(rig):
    """A row is read if and only if it was committed below the point; the stream has every change from
    there on.  So whoever begins with the point has every row once, with a key or without one."""
    rig.db.sql("CREATE TABLE keyed (id bigserial PRIMARY KEY, v text)")
    rig.db.sql("CREATE TABLE keyless (n bigserial, v text)")
    rig.db.sql("CREATE PUBLICATION walpost FOR TABLE keyed, keyless WITH (publish = 'insert')")
    stopping = threading.Event()

    def write():
        with rig.db.connect() as connection:
            while not stopping.is_set():
                connection.execute("INSERT INTO keyed (v) SELECT 'x' FROM generate_series(1, 3)")
                connection.execute("INSERT INTO keyless (v) VALUES ('y')")
    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        rig.start(syncs=backfilled(rig, concurrency=4))
        wait_copied(rig, 2)
        for _ in range(3):
            give(rig, "resync", "main")
            wait_for("they are copied again", lambda: tables_pending(rig.walpost) == 0, tail=rig.tail)
    finally:
        stopping.set()
        for writer in writers:
            writer.join(60)
    for table, column in (("keyed", "id"), ("keyless", "n")):
        rows = {n for n, in rig.db.sql(f"SELECT {column} FROM {table}")}
        wait_for(f"all of {table} has arrived", lambda t=table, c=column, r=rows: {
            a["fields"][c] for a in first_arrivals(rig.receiver) if a["schema"] == f"public.{t}"} == r,
            tail=rig.tail)
        arrived = [r for r in first_arrivals(rig.receiver) if r["schema"] == f"public.{table}"]
        inserts = [(lsn(r["commit"]["lsn"]), r["fields"][column]) for r in arrived if r["operation"] == "insert"]
        points = sorted({lsn(r["position"]) for r in reads(rig, f"public.{table}")})
        assert len(points) == 4
        for point in points:
            read = collections.Counter(r["fields"][column] for r in reads(rig, f"public.{table}")
                                       if lsn(r["position"]) == point)
            later = {n for at, n in inserts if at >= point}
            assert set(read.values()) == {1}
            assert not later & set(read) and later | set(read) == rows
        assert any(at < points[-1] for at, _ in inserts) and any(at >= points[0] for at, _ in inserts)


def test_S03_a_transaction_that_is_streamed_before_it_is_visible(own_server, make_rig):
    """Its commit waits for a synchronous standby: a snapshot waits for it, too."""
    server = own_server()
    rig = make_rig(server.database())
    server.sql(f"ALTER DATABASE {rig.db.name} SET synchronous_commit = local")
    rig.db.connection.close()
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'old' FROM generate_series(1, 10) g")
    rig.db.publish("t")
    rig.start()
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.reload()
    with rig.db.connect() as other, rig.db.connect() as looking:
        wait_for("the setting holds", lambda: looking.execute(
            "SHOW synchronous_standby_names").fetchone() == ("nobody",), 60)
        other.execute("SET synchronous_commit = on")
        updating = threading.Thread(target=other.execute, args=("UPDATE t SET v = 'new' WHERE id = 5",))
        updating.start()
        rig.wait_arrived(1)
        assert looking.execute("SELECT v FROM t WHERE id = 5").fetchone() == ("old",), "it is visible already"
        give(rig, "resync", "main")

        def is_waiting():
            return looking.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND %s = ANY (pg_blocking_pids(pid))",
                                   (other.info.backend_pid,)).fetchone()
        wait_for("the snapshot waits for it", is_waiting, 60, tail=rig.tail)
        stays("and is not made", lambda: is_waiting() and not reads(rig), 1, tail=rig.tail)
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
        server.reload()
        updating.join(60)
        assert not updating.is_alive()
    wait_for("all rows are read", lambda: len(reads(rig)) == 10, tail=rig.tail)
    records = first_arrivals(rig.receiver)
    assert [r["operation"] for r in records if r["key"] == {"id": 5}] == ["update", "read"]
    wait_equal(rig, "t")


def test_S05_S06_S07_S28_rows_that_change_while_they_are_copied(rig):
    """Blocks are read in ranges by several connections, the last one without an end: moved about meanwhile,
    every row of the snapshot is read once, as it was, before its first change."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, n int, big text, other int UNIQUE) WITH (fillfactor = 10)")
    rig.db.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    # One row per block, so that the second range of blocks begins with row 8193.
    rig.db.sql("ALTER TABLE t ADD pad text; ALTER TABLE t ALTER pad SET STORAGE PLAIN")
    rig.db.sql("INSERT INTO t SELECT g, 0, CASE WHEN g % 100 = 0 THEN repeat('b', 3000) END, nullif(g % 2, 0) * g,"
               " repeat('p', 700) FROM generate_series(1, 9000) g")
    assert rig.db.value("SELECT relpages FROM pg_class WHERE relname = 't'") in (0, -1), "the table was analyzed"
    assert rig.db.value("SELECT pg_relation_size('t') / current_setting('block_size')::int") > 8192
    rig.db.publish("t")
    before = contents(rig.db, "t")
    # Two requests are taken, and no more for now, so that the copy waits in its middle.
    rig.add_receiver().control({"skip": 2, "status": 503, "action": "answer"})
    rig.start(syncs=backfilled(rig, batch_size=200), change={"backfill": {
        "connections": 2, "max_bytes": "1MiB", "stall_timeout": "1h"}})
    rig.wait_arrived(1)  # a request is as large as what was read when it could go
    # In one order and against it: a reader of ranges without a snapshot would meet some twice, some never.
    for low, high in ((8900, 9000), (1, 100), (8100, 8300)):
        rig.db.sql(f"UPDATE t SET n = n + 1 WHERE id BETWEEN {low} AND {high}")
    rig.db.sql("DELETE FROM t WHERE id % 500 = 7")
    rig.db.sql("UPDATE t SET id = id + 100000 WHERE id % 500 = 8")
    rig.db.sql("INSERT INTO t SELECT g, 0, NULL, NULL, '' FROM generate_series(200001, 200050) g")
    assert rig.walpost.metric("walpost_backfill_rows_total") < 8192, "the copy did not wait"
    rig.receiver.behave()
    wait_copied(rig, 1)
    rows = reads(rig)
    assert len(rows) == 9000 and len({r["position"] for r in rows}) == 1
    assert replica(rows)["public.t"] == before
    records = first_arrivals(rig.receiver)
    point = lsn(rows[0]["position"])
    for record in records:
        if record["operation"] != "read":
            assert lsn(record["commit"]["lsn"]) >= point
    assert_ids_rise_per_key(records)
    # What a change left out is in the row that was read before it.
    filled, of_key = {}, {}
    for record in records:
        key = record["key"]["id"]
        if record["operation"] == "delete":
            of_key[key] = filled.pop(key)
        elif record["operation"] == "read" or not record.get("unchanged"):
            filled[key] = record["fields"]
        else:
            assert record["unchanged"] == ["big"]
            old = of_key[record["changes"]["id"]] if "id" in record.get("changes", {}) else filled[key]
            filled[key] = {**record["fields"], "big": old["big"]}
    wanted = {k: row for k, row in rig.db.sql("SELECT id, to_json(t) FROM t")}
    assert sum(bool(r.get("unchanged")) for r in records) >= 3
    assert filled == wanted


def test_S08_S10_parts_go_on_behind_any_key(rig):
    """Whatever the order of its collation, and however many digits its numbers and times have."""
    rig.db.sql("CREATE TABLE t (k text COLLATE \"en-x-icu\", at timestamptz, f float8, n numeric, v text,"
               " PRIMARY KEY (k, at, f, n))")
    rig.db.sql(r"""INSERT INTO t SELECT (ARRAY['a', 'B', E'c''\\', 'ä', 'z', '-a'])[g % 6 + 1],
               timestamptz '2024-03-31 00:59:59.999999Z' + (g % 50) * interval '1 microsecond',
               1e15 + (g % 7) / 3.0, g / 7.0, repeat('x', 300) FROM generate_series(1, 2400) g""")
    for setting in ("datestyle = 'SQL, DMY'", "timezone = 'America/New_York'", "extra_float_digits = 0"):
        rig.db.server.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET {setting}")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig, batch_size=500), change={"backfill": {
        "rows_per_second": 1500, "max_snapshot_age": "1s", "connections": 2}})
    wait_copied(rig, 1)
    rows = reads(rig)
    points = sorted({r["position"] for r in rows}, key=lsn)
    assert len(points) >= 3, "it took two parts and more in the order of the key"
    keys = collections.Counter(json.dumps(r["key"]) for r in rows if r["position"] != points[0])
    assert len(keys) == 2400 and set(keys.values()) == {1}
    assert ({json.dumps(r["fields"]) for r in rows}
            == {json.dumps(EXACT.decode(row)) for row, in rig.db.sql("SELECT to_json(t)::text FROM t")})


def test_S12_the_slot_follows_while_rows_are_copied(rig):
    """What the copied table's own changes need is kept in the buffer, not in the WAL."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 100000) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig), change={"backfill": {"rows_per_second": 1000, "connections": 1}})
    rig.wait_arrived(100)
    for i in range(3):
        rig.db.sql("UPDATE t SET v = 'held' WHERE id <= 1000")
        end = rig.db.wal_end()
        wait_for("it is confirmed", lambda e=end: rig.db.confirmed() >= e, 60, tail=rig.tail)
    assert rig.walpost.metric("walpost_backfill_done_tables") == 0, "the copy was over already"
    assert {r["operation"] for r in first_arrivals(rig.receiver)} == {"read"}


def test_S13_S14_rows_that_were_read_and_not_delivered_are_read_again(rig):
    """They are in no file: a table counts as copied when its last row has arrived, and not before."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 2000) g")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start(syncs=backfilled(rig))
    for rows in (2000, 1999):
        wait_for("all rows are read", lambda n=rows: rig.walpost.metric(
            "walpost_backfill_rows_total") == n, tail=rig.tail)
        wait_for("and the snapshot is let go", lambda: rig.db.server.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'walpost copy'"
            " AND backend_xmin IS NOT NULL", rig.db.name)[0][0] == 0, tail=rig.tail)
        assert rig.walpost.metric("walpost_backfill_done_tables") == 0
        rig.walpost.kill()
        rig.db.sql("DELETE FROM t WHERE id = (SELECT min(id) FROM t)")
        rig.walpost.start(databases=[rig.db])
    rig.receiver.start()
    wait_copied(rig, 1)
    wait_equal(rig, "t")


def waiter(looking, blocker):
    """The pid of a session that waits for another one."""
    row = looking.execute("SELECT pid FROM pg_locks WHERE NOT granted AND %s = ANY (pg_blocking_pids(pid))",
                          (blocker.info.backend_pid,)).fetchone()
    return row and row[0]


def rewritten_behind_the_snapshot(rig, *statements):
    """A copy whose table is made anew between its snapshot and its lock.

    A snapshot waits for the transactions that were there when it was begun, and for those that were there when
    these had ended, but not for any later one."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g")
    rig.db.publish("t")
    rig.start()
    with (rig.db.connect(autocommit=False) as first, rig.db.connect(autocommit=False) as second,
          rig.db.connect(autocommit=False) as third, rig.db.connect() as looking):
        first.execute("SELECT pg_current_xact_id()")
        give(rig, "resync", "main")
        wait_for("the snapshot waits", lambda: waiter(looking, first), 60, tail=rig.tail)
        second.execute("SELECT pg_current_xact_id()")
        first.commit()
        wait_for("for the next one, too", lambda: waiter(looking, second), 60, tail=rig.tail)
        for statement in statements:
            third.execute(statement)
        second.commit()
        wait_for("the lock is waited for", lambda: waiter(looking, third), 60, 0.005, tail=rig.tail)
        third.commit()
    wait_for("it is seen", lambda: rig.walpost.events("backfill_given_up"), 60, tail=rig.tail)
    assert "was rewritten after the snapshot" in str(rig.walpost.events("backfill_given_up"))
    assert not reads(rig)
    wait_for("it is copied after all", lambda: tables_pending(rig.walpost) == 0 and reads(rig), 60, tail=rig.tail)
    wait_equal(rig, "t")
    assert len({r["position"] for r in reads(rig)}) == 1


def test_S16_a_table_rewritten_between_snapshot_and_lock(rig):
    """The old snapshot sees no row of it."""
    rewritten_behind_the_snapshot(rig, "ALTER TABLE t ALTER v TYPE int USING id * 2")
    assert len(reads(rig)) == 100


def test_S17_a_table_truncated_between_snapshot_and_lock(rig):
    rewritten_behind_the_snapshot(rig, "TRUNCATE t", "INSERT INTO t VALUES (1, 'new')")
    assert [r["operation"] for r in first_arrivals(rig.receiver)] == ["truncate", "insert", "read"]


def test_S19_rows_that_a_policy_hides_are_no_copy(rig):
    """The stream knows no policies: a copy of less than the table is refused."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 10) g")
    rig.db.sql("CREATE POLICY half ON t USING (id > 5)")
    rig.db.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    assert rig.db.value("SELECT count(*) FROM t") == 5
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    wait_for("its copy fails", lambda: rig.walpost.events("backfill_table_failed"), tail=rig.tail)
    assert "row-level security" in str(rig.walpost.events("backfill_table_failed"))
    rig.db.sql("INSERT INTO t VALUES (11, 'after')")
    rig.wait_arrived(1)
    rig.db.sql("ALTER TABLE t NO FORCE ROW LEVEL SECURITY")
    give(rig, "resync", "main")
    wait_for("it is copied whole", lambda: len(reads(rig)) == 11, tail=rig.tail)
    assert all(r["operation"] == "insert" for r in first_arrivals(rig.receiver)[:1])


def test_a_copy_that_cannot_begin_is_tried_again(own_server, make_rig):
    """What is wrong with the server is no table's fault: none is given up for it, and it heals without a restart."""
    server = own_server({"max_replication_slots": "2"})
    rig = make_rig(server.database())
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 20) g")
    rig.db.publish("t")
    server.sql("SELECT pg_create_physical_replication_slot('taken')")
    rig.start(syncs=backfilled(rig))
    wait_for("it is told", lambda: rig.walpost.events("backfill_given_up"), 60, tail=rig.tail)
    assert "all replication slots are in use" in str(rig.walpost.events("backfill_given_up")[0])
    rig.db.sql("INSERT INTO t VALUES (21, 'meanwhile')")
    rig.wait_arrived(1)
    assert tables_pending(rig.walpost) == 1 and not rig.walpost.events("backfill_table_failed")
    server.sql("SELECT pg_drop_replication_slot('taken')")
    for word in ("pause", "resume"):  # it would look again by itself, half a minute later
        give(rig, "backfill", word, "main")
    wait_copied(rig, 1, 60)
    wait_equal(rig, "t")
