"""Existing rows are copied with an exact boundary while the changes go on."""

import json
import random
import threading
import time

import pytest
from load import Writers
from machine import stays, wait_for
from standby import Standby
from walpost import sync

# As the checker reads records: digit for digit.
_exact = json.JSONDecoder(parse_float=str)


def first_arrivals(receiver):
    """Accepted records in order of arrival without repeats."""
    seen, out = set(), []
    for record in receiver.records():
        if record["id"] not in seen:
            seen.add(record["id"])
            out.append(record)
    return out


def replica(records):
    """{table: {key: fields}} for who applies records in the order in which they first arrive."""
    tables = {}
    for record in records:
        rows = tables.setdefault(record["schema"], {})
        key = json.dumps(record["key"], sort_keys=True)
        if record["operation"] == "truncate":
            rows.clear()
        elif record["operation"] == "delete":
            rows.pop(key, None)
        else:
            rows[key] = record["fields"]
    return tables


def contents(db, table, key=("id",)):
    """The same of the table itself, as to_json says it."""
    parts = ", ".join(f"'{k}', t.{k}" for k in key)
    return {json.dumps(k, sort_keys=True): _exact.decode(row) for k, row in db.sql(
        f"SELECT json_build_object({parts}), to_json(t)::text FROM {table} t")}


def stood_still(value, above=0, looks=8):
    """The value, if it was the same, and more than this, at every look of two seconds; else None.

    By looks and not by the clock: a machine that stands still meanwhile looks once."""
    first = value()
    for _ in range(looks):
        time.sleep(0.25)
        if value() != first:
            return None
    return first if first > above else None


def tables_pending(walpost):
    return walpost.metric("walpost_backfill_pending_tables")


def wait_copied(rig, tables, seconds=120):
    """Until so many tables were copied and nothing of them is held any more."""
    def copied():
        walpost = rig.walpost
        return (walpost.metric("walpost_backfill_done_tables") >= tables
                and tables_pending(walpost) == 0)
    wait_for(f"{tables} tables are copied", copied, seconds, tail=rig.tail)


def wait_equal(rig, *tables, seconds=120, keys=None):
    """Until a receiver that applies what arrives has the tables as they are."""
    def equal():
        have = replica(first_arrivals(rig.receiver))
        return all(have.get(f"public.{t}", {}) == contents(rig.db, t, (keys or {}).get(t, ("id",)))
                   for t in tables)
    def differences():
        have = replica(first_arrivals(rig.receiver))
        out = [rig.tail()]
        for t in tables:
            rows = have.get(f"public.{t}", {})
            want = contents(rig.db, t, (keys or {}).get(t, ("id",)))
            out += [f"{t} {k}: {rows.get(k)} is not {want.get(k)}" for k in {**rows, **want}
                    if rows.get(k) != want.get(k)][:5]
        return "\n".join(out)
    wait_for("the receiver has the tables as they are", equal, seconds, 0.3, tail=differences)


def backfilled(rig, tables=None, **delivery):
    """The syncs of a file in which existing rows are copied."""
    if not rig.receivers:
        rig.add_receiver()
    return {"main": sync(rig.db.name, rig.receiver.name, tables, backfill=True, **delivery)}


def assert_ids_rise_per_key(records):
    highest = {}
    for record in records:
        key = (record["schema"], json.dumps(record["key"], sort_keys=True))
        assert highest.get(key, "") < record["id"], record
        highest[key] = record["id"]


@pytest.mark.versions
def test_rows_that_exist_arrive_as_read_records(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, at timestamptz, j jsonb,"
               " a int[], b bytea)")
    rig.db.sql(r"""INSERT INTO t SELECT g, E'tab\there \\ back\nline ' || g, g / 7.0, now(),
               '{"a": [1.50, null]}', ARRAY[g, NULL], '\x00ff' FROM generate_series(1, 500) g""")
    rig.db.sql("INSERT INTO t (id) VALUES (501)")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    rig.wait_arrived(501)
    records = first_arrivals(rig.receiver)
    assert {r["operation"] for r in records} == {"read"} and len(records) == 501
    assert all(r["commit"]["xid"] is None and r["commit"]["time"] is None for r in records)
    assert all(r["position"] == r["commit"]["lsn"] for r in records)
    assert len({r["id"][:40] for r in records}) == 1 and all(len(r["id"]) == 57 for r in records)
    assert replica(records)["public.t"] == contents(rig.db, "t")
    wait_copied(rig, 1)
    rig.db.sql("UPDATE t SET v = 'new' WHERE id = 7")
    rig.wait_arrived(502)
    assert first_arrivals(rig.receiver)[-1]["operation"] == "update"
    wait_equal(rig, "t")


def test_a_restart_does_not_copy_again(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    wait_copied(rig, 1)
    rig.wait_arrived(100)
    assert rig.walpost.stop() == 0
    rig.walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (101, 'y')")
    rig.wait_arrived(101)
    stays("no row is read again", lambda: len(rig.receiver.records()) == 101, 2)


@pytest.mark.parametrize("order", ["key", "sync", "none"])
def test_changes_go_on_while_rows_are_copied(rig, seed, order):
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, repeat('x', 200), g FROM generate_series(1000, 30000) g")
    rig.db.sql("INSERT INTO b SELECT 'k' || g, g, '{}' FROM generate_series(1000, 5000) g")
    rig.db.forget()
    rig.add_receiver().control({"p": 0.02, "seed": seed % 1000, "status": 503, "action": "answer"})
    with Writers(rig.db, seed, threads=3, truncates=False):
        rig.start(syncs=backfilled(rig, order=order, concurrency=8, batch_size=50))
        wait_copied(rig, 2)
        time.sleep(1)
    rig.receiver.behave()
    if order == "none":
        want = sum(rig.db.value(f"SELECT count(*) FROM {t} WHERE {c}")
                   for t, c in (("a", "id >= 1000"), ("b", "j >= 1000")))
        wait_for("every row has arrived", lambda: len(
            {json.dumps(r["key"]) for r in first_arrivals(rig.receiver)}) >= want, 60,
            tail=rig.tail)
        return
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    records = first_arrivals(rig.receiver)
    assert_ids_rise_per_key(records)
    assert sum(r["operation"] == "read" for r in records) >= 33000
    assert sum(r["operation"] != "read" for r in records) > 100
    if order == "sync":
        assert [r["id"] for r in records if r["operation"] != "read"] == sorted(
            r["id"] for r in records if r["operation"] != "read")


@pytest.mark.versions
def test_S13_kill_while_rows_are_copied_with_changes_between_the_snapshots(rig, seed):
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, repeat('x', 200), g FROM generate_series(1000, 20000) g")
    rig.add_receiver().control({"delay_ms": 20, "action": "answer"})
    # At this rate every copy takes seconds: each kill comes in the middle of one.
    rig.start(syncs=backfilled(rig, concurrency=4, batch_size=50),
              change={"backfill": {"rows_per_second": 4000}})
    for round_no in range(3):
        wait_for("rows are being copied", lambda: rig.walpost.metric(
            "walpost_backfill_rows_total") > 500, tail=rig.tail)
        rig.wait_arrived(200 * (round_no + 1))
        rig.walpost.kill()
        rig.db.sql("DELETE FROM a WHERE id %% 10 = %s", round_no)
        rig.db.sql("UPDATE a SET v = %s WHERE id %% 10 = 5", f"round {round_no}")
        rig.walpost.start(databases=[rig.db])
    with Writers(rig.db, seed, threads=2, truncates=False):
        rig.receiver.behave()
        wait_copied(rig, 2)
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


def test_kill_while_a_table_catches_up(rig, seed):
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, 'x', g FROM generate_series(1000, 3000) g")
    rig.add_receiver().control({"delay_ms": 10, "action": "answer"})
    rig.start(syncs=backfilled(rig, concurrency=4, batch_size=20))
    with Writers(rig.db, seed, threads=3, truncates=False):
        for _ in range(6):
            time.sleep(0.7)
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
    rig.receiver.behave()
    wait_copied(rig, 2)
    wait_equal(rig, "a", "b", keys={"b": ("k", "j")})
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


def test_a_long_copy_holds_up_neither_other_tables_nor_other_syncs(rig):
    rig.db.sql("CREATE TABLE big (id int PRIMARY KEY, v text)")
    # Large enough to be copied alone.
    rig.db.sql("INSERT INTO big SELECT g, repeat('x', 1700) FROM generate_series(1, 12000) g")
    rig.db.sql("CREATE TABLE small (id int PRIMARY KEY, v text)")
    rig.db.publish("big", "small")
    rig.add_receiver()
    other = rig.add_receiver("other")
    rig.start(syncs={**backfilled(rig), "other": rig.sync("other")},
              change={"backfill": {"rows_per_second": 1000, "connections": 1}})

    def tables_at(receiver):
        return {table for _, table, *_ in receiver.poll().records.values()}
    wait_for("the copy has begun", lambda: "public.big" in tables_at(rig.receiver), tail=rig.tail)
    rig.db.sql("INSERT INTO small VALUES (1, 'now')")
    rig.db.sql("UPDATE big SET v = 'late' WHERE id = 12000")
    wait_for("the other sync has both changes", lambda: tables_at(other) == {"public.big", "public.small"},
             tail=rig.tail)
    wait_for("the small table's change arrives", lambda: "public.small" in tables_at(rig.receiver), tail=rig.tail)
    assert tables_pending(rig.walpost) > 0
    wait_copied(rig, 2)
    wait_equal(rig, "big", "small")
    # Of its own table the change comes last, although it was made when the copy had hardly begun.
    records = first_arrivals(rig.receiver)
    at = [i for i, r in enumerate(records) if r["schema"] == "public.small"]
    late = [i for i, r in enumerate(records) if r["operation"] == "update"]
    reads = [i for i, r in enumerate(records) if r["operation"] == "read"]
    assert len(at) == 1 and at[0] < reads[-1] < late[0]


def test_a_table_that_joins_the_publication_is_copied(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("CREATE TABLE late (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO late SELECT g, 'x' FROM generate_series(1, 50) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    wait_copied(rig, 1)
    rig.db.sql("ALTER PUBLICATION walpost ADD TABLE late")
    rig.walpost.restart(databases=[rig.db])
    wait_copied(rig, 2)
    rig.db.sql("DELETE FROM late WHERE id = 3")
    wait_equal(rig, "t", "late")


def test_S25_an_open_transaction_is_named_and_waited_for(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t VALUES (1, 'x')")
    rig.db.publish("t")
    rig.start()
    rig.walpost.stop()
    with rig.db.connect(autocommit=False) as other:
        other.execute("SELECT pg_current_xact_id()")
        rig.walpost.write({**rig.walpost.config, "bulk_syncs": {
            "other": sync(rig.db.name, rig.receiver.name, backfill=True)}})
        rig.walpost.start(databases=[rig.db])
        wait_for("the session is named", lambda: f"pid {other.info.backend_pid}"
                 in rig.walpost.log_text(), 60, tail=rig.tail)
        rig.db.sql("INSERT INTO t VALUES (2, 'y')")
        wait_for("changes go on meanwhile", lambda: len(rig.receiver.records()) == 1, 60,
                 tail=rig.tail)
    wait_copied(rig, 1, 60)
    wait_equal(rig, "t")


def test_ddl_that_waits_for_the_copy_is_let_through(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 100000) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig), change={"backfill": {"rows_per_second": 1000,
                                                          "connections": 1}})
    rig.wait_arrived(100)
    rig.db.sql("ALTER TABLE t ADD COLUMN w int DEFAULT 5")
    assert rig.walpost.metric("walpost_backfill_done_tables") == 0, "the copy was over already"
    assert any("waits for a lock" in str(e) for e in rig.walpost.events("backfill_given_up"))


@pytest.mark.parametrize("ddl", ["DROP TABLE t", "ALTER TABLE t RENAME TO other"])
def test_a_table_that_goes_away_during_its_copy_is_not_left_to_do(rig, ddl):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 100000) g")
    rig.db.publish("t")
    rig.start(tables=["public.t"], syncs=backfilled(rig, tables=["public.t"]),
              change={"backfill": {"rows_per_second": 100, "connections": 1}})
    rig.wait_arrived(100)
    assert rig.walpost.metric("walpost_backfill_pending_tables") == 1
    rig.db.sql(ddl)
    wait_for("nothing is left", lambda: rig.walpost.metric("walpost_backfill_pending_tables") == 0, 60,
             tail=rig.walpost.tail)
    assert rig.walpost.metric("walpost_backfill_done_tables") == 0, "the copy was over already"


@pytest.mark.parametrize("ddl", ["ALTER TABLE t ADD COLUMN w int DEFAULT 5", "DROP INDEX t_v",
                                 "REINDEX INDEX t1_v_idx"])
def test_ddl_of_a_partitioned_table_is_let_through_while_it_is_copied_in_parts(rig, ddl):
    rig.db.sql("""CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                  CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10000);
                  CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10000) TO (100000);
                  CREATE INDEX t_v ON t (v)""")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 90000) g")
    rig.db.sql("CREATE PUBLICATION walpost FOR TABLE t WITH (publish_via_partition_root)")
    rig.start(syncs=backfilled(rig), change={"backfill": {"rows_per_second": 1000, "max_snapshot_age": "5s"}})
    wait_for("a copy in the key's order is under way", lambda: rig.walpost.events(
        "backfill_goes_on_in_parts"), 60, tail=rig.tail)
    rows = rig.walpost.metric("walpost_backfill_rows_total")
    wait_for("and reads", lambda: rig.walpost.metric("walpost_backfill_rows_total") > rows + 10, 60,
             tail=rig.tail)
    with rig.db.connect() as connection:
        connection.execute("SET lock_timeout = '60s'")
        connection.execute(ddl)
    assert rig.walpost.metric("walpost_backfill_done_tables") == 0, "the copy was over already"
    assert any("waits for a lock" in e["reason"] for e in rig.walpost.events("backfill_goes_on_in_parts"))


def test_S20_S21_S22_what_is_published_is_what_is_copied(rig):
    rig.db.sql("""CREATE TABLE p (id int PRIMARY KEY, region text, secret text) PARTITION BY RANGE (id);
                  CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100);
                  CREATE TABLE p2 (secret text, id int NOT NULL, region text);
                  ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200);
                  INSERT INTO p SELECT g, CASE g % 2 WHEN 0 THEN 'eu' ELSE 'us' END, 's'
                  FROM generate_series(50, 149) g;
                  CREATE TABLE parent (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
                  CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
                  INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2);
                  CREATE PUBLICATION walpost FOR TABLE p (id, region) WHERE (id > 0), ONLY parent
                  WITH (publish_via_partition_root)""")
    rig.start(syncs=backfilled(rig))
    wait_copied(rig, 2)
    rig.wait_arrived(101)
    have = replica(first_arrivals(rig.receiver))
    assert set(have) == {"public.p", "public.parent"}
    assert len(have["public.p"]) == 100
    assert all(set(row) == {"id", "region"} for row in have["public.p"].values())
    assert list(have["public.parent"].values()) == [{"id": 1}]


def test_S19_a_table_that_may_not_be_read_fails_alone(rig):
    rig.db.sql("CREATE TABLE mine (id int PRIMARY KEY)")
    rig.db.sql("INSERT INTO mine VALUES (1)")
    rig.db.sql("CREATE TABLE theirs (id int PRIMARY KEY)")
    rig.db.publish("mine", "theirs")
    rig.db.server.sql("ALTER TABLE theirs OWNER TO postgres", database=rig.db.name)
    rig.start(syncs=backfilled(rig))
    wait_for("the other table is copied", lambda: rig.walpost.metric(
        "walpost_backfill_done_tables") == 1, 60, tail=rig.tail)
    rig.wait_arrived(1)
    failed = wait_for("the one fails", lambda: rig.walpost.events("backfill_table_failed"), tail=rig.tail)
    assert len(failed) == 1 and failed[0]["table"] == "public.theirs"
    assert "permission denied" in str(failed[0])
    assert 'GRANT SELECT ON "public"."theirs"' in failed[0]["remedy"]


def test_a_dead_endpoint_costs_no_memory_and_the_copy_ends_after(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 200000) g")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start(syncs=backfilled(rig, batch_size=500))
    rows = wait_for("the copy waits", lambda: stood_still(
        lambda: rig.walpost.metric("walpost_backfill_rows_total"), above=10000), 90, 0, tail=rig.tail)
    assert rows < 200000, "it did not wait"
    assert rig.walpost.memory_kib() < 96 * 1024
    rig.receiver.start()
    wait_copied(rig, 1)
    rig.wait_arrived(200000)


def test_S11_a_dead_endpoint_does_not_hold_the_snapshot(rig):
    """What a snapshot keeps alive, vacuum cannot remove."""
    def snapshots():
        return rig.db.server.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
                                 " AND application_name = 'walpost copy'"
                                 " AND backend_xmin IS NOT NULL", rig.db.name)[0][0]
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 50000) g")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start(syncs=backfilled(rig), change={"backfill": {"stall_timeout": "2s", "max_bytes": "1MiB"}})
    wait_for("it lets its snapshot go", lambda: rig.walpost.events("backfill_released") and snapshots() == 0, 60,
             tail=rig.tail)
    stays("and takes no other", lambda: snapshots() == 0, 2)
    rig.db.sql("UPDATE t SET v = 'new' WHERE id % 2 = 0")
    rig.receiver.start()
    wait_copied(rig, 1)
    wait_equal(rig, "t")
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


@pytest.mark.slow
def test_a_copy_goes_slower_while_a_replica_is_behind(own_server, make_rig, folder):
    server = own_server()
    standby = Standby(server, folder / "standby")
    rig = make_rig(server.database())
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 300000) g")
    rig.db.publish("t")
    standby.pause()
    rig.db.sql("CREATE TABLE not_replayed (id int)")
    rig.start(syncs=backfilled(rig), change={"backfill": {
        "rows_per_second": 2000, "connections": 1, "max_replica_lag": "1s"}})

    def slowed():
        return rig.walpost.metric("walpost_backfill_slowed_rows_per_second")
    wait_for("it says that it sees no replicas",
             lambda: rig.walpost.events("backfill_replicas_unseen"), 60, tail=rig.tail)
    assert "pg_monitor" in str(rig.walpost.events("backfill_replicas_unseen"))
    rows = rig.walpost.metric("walpost_backfill_rows_total")
    wait_for("and copies on", lambda: rig.walpost.metric("walpost_backfill_rows_total") > rows,
             tail=rig.tail)
    assert slowed() == 0 and not rig.walpost.events("backfill_slowed")
    server.sql("GRANT pg_monitor TO walpost")
    wait_for("it goes slower", slowed, 60, tail=rig.tail)
    first = slowed()
    assert 100 <= first < 2000
    wait_for("and slower", lambda: 100 <= slowed() < first, 60, tail=rig.tail)
    assert "the replica standby1 is" in rig.walpost.get("/status.txt")[1]
    assert len(rig.walpost.events("backfill_slowed")) == 1
    standby.resume()
    wait_for("it goes as fast as before", lambda: rig.walpost.events("backfill_at_full_speed"), 60,
             tail=rig.tail)
    assert slowed() == 0 and "standby1" not in rig.walpost.get("/status.txt")[1]
    assert len(rig.walpost.events("backfill_replicas_unseen")) == 1
    assert rig.walpost.metric("walpost_backfill_done_tables") == 0, "the copy was over already"
    standby.destroy()


def test_S11_a_copy_goes_slower_while_the_slot_keeps_much(own_server, make_rig):
    rig = make_rig(own_server({"max_wal_size": "64MB"}).database())
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("CREATE TABLE busy (id int, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 300000) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig), connection={"wal_budget": "64MiB"}, change={"backfill": {
        "rows_per_second": 2000, "connections": 1}})
    wait_for("the copy has begun", lambda: rig.walpost.metric("walpost_backfill_rows_total") > 0,
             tail=rig.tail)
    with rig.db.connect(autocommit=False) as other:
        other.execute("INSERT INTO busy VALUES (1)")
        rig.db.sql("INSERT INTO busy SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g")
        wait_for("it goes slower", lambda: rig.walpost.metric(
            "walpost_backfill_slowed_rows_per_second") and rig.walpost.events("backfill_slowed"), 60, tail=rig.tail)
        assert "of its WAL budget" in str(rig.walpost.events("backfill_slowed"))

    def at_full_speed():
        rig.db.server.sql("CHECKPOINT")  # notes the transactions that are open
        return rig.walpost.events("backfill_at_full_speed")
    wait_for("it goes as fast as before", at_full_speed, 60, tail=rig.tail)
    assert rig.walpost.metric("walpost_backfill_done_tables") == 0, "the copy was over already"


def test_a_composite_type_that_grows_while_its_rows_are_copied(rig):
    rig.db.sql("CREATE TYPE pair AS (a int, b text)")
    rig.db.sql("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    # One row per block: a second range of blocks begins with row 8193, and sees the type as it is then.
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, p pair, m mood, ps pair[]) WITH (fillfactor = 10)")
    rig.db.sql("INSERT INTO t SELECT g, (g, 'x')::pair, 'ok', ARRAY[(g, repeat('y', 700))::pair]"
               " FROM generate_series(1, 9000) g")
    rig.db.publish("t")
    # Nothing is taken at first, so the copy waits before it comes to the second range.
    rig.add_receiver().control({"status": 503, "action": "answer"})
    rig.start(syncs=backfilled(rig), change={"backfill": {
        "connections": 1, "max_bytes": "1MiB", "stall_timeout": "1h"}})
    wait_for("the copy has begun", lambda: rig.walpost.metric("walpost_backfill_rows_total") >= 500, tail=rig.tail)
    rig.db.sql("ALTER TYPE pair ADD ATTRIBUTE c numeric")
    rig.db.sql("ALTER TYPE mood ADD VALUE 'fine'")
    rig.db.sql("ALTER TYPE mood RENAME VALUE 'ok' TO 'good'")
    rig.db.sql("UPDATE t SET p = (1, 'new', 2.50), m = 'fine' WHERE id = 9000")
    assert rig.walpost.metric("walpost_backfill_rows_total") < 8192, "the copy did not wait"
    rig.receiver.behave()
    wait_copied(rig, 1)
    rig.wait_arrived(9001)
    rows = replica(first_arrivals(rig.receiver))["public.t"]
    assert all(isinstance(row["p"], dict) and isinstance(row["ps"][0], dict) for row in rows.values())
    assert rows['{"id": 9000}']["p"] == {"a": 1, "b": "new", "c": "2.50"}
    assert rows['{"id": 9000}']["m"] == "fine"
    reads = [r["fields"] for r in first_arrivals(rig.receiver) if r["operation"] == "read"]
    assert {tuple(row["p"]) for row in reads} == {("a", "b"), ("a", "b", "c")}
    assert rig.walpost.metric("walpost_backfill_odd_values_total") == 0
    assert rig.walpost.metric("walpost_backfill_unknown_types_total") == 0


def replica_with_large_values(records):
    """As replica, for who fills in what an update left out, and has the row that a key came from."""
    rows, gone = {}, {}
    for record in records:
        key = json.dumps(record["key"], sort_keys=True)
        fields = dict(record["fields"] or {})
        if record["operation"] == "delete":
            gone[key] = rows.pop(key, None)
            continue
        if record.get("unchanged"):
            old = json.dumps({**record["key"], **{k: v for k, v in record.get("changes", {}).items()
                                                  if k in record["key"]}}, sort_keys=True)
            source = rows.get(key) if old == key else gone.get(old)
            fields.update({name: (source or {}).get(name) for name in record["unchanged"]})
        rows[key] = fields
    return rows


class Movers(threading.Thread):
    """Changes rows of t, and moves their keys up and down, without touching the large value."""

    def __init__(self, db, seed, rows):
        super().__init__(daemon=True)
        self.db, self.rng, self.rows = db, random.Random(seed), rows
        self.stopping, self.error = threading.Event(), None

    def run(self):
        try:
            with self.db.connect() as connection:
                while not self.stopping.wait(0.005):
                    at = self.rng.randrange(self.rows)
                    kind = self.rng.random()
                    if kind < 0.4:
                        connection.execute("UPDATE t SET n = n + 1 WHERE id = %s", (at,))
                    elif kind < 0.6:
                        connection.execute("UPDATE t SET id = id - 2 * %s WHERE id = %s", (self.rows, at))
                    elif kind < 0.8:
                        connection.execute("UPDATE t SET id = id + 5 * %s WHERE id = %s", (self.rows, at))
                    elif kind < 0.9:
                        connection.execute("DELETE FROM t WHERE id = %s", (at,))
                    else:
                        connection.execute("INSERT INTO t VALUES ('new', %s, 0, repeat('z', 3000))"
                                           " ON CONFLICT DO NOTHING", (at,))
        except Exception as error:  # noqa: BLE001 - the test is told at its end
            self.error = error

    def stop(self):
        self.stopping.set()
        self.join(60)
        assert not self.error, self.error


@pytest.mark.slow
@pytest.mark.versions
def test_S05_S08_S10_S26_a_table_is_copied_in_parts_when_its_snapshot_becomes_too_old(rig, seed):
    rows = 12000
    rig.db.sql("CREATE TABLE t (k text COLLATE \"C\", id numeric(20, 2), n int, big text, PRIMARY KEY (k, id))")
    rig.db.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    rig.db.sql(r"""INSERT INTO t SELECT (ARRAY[E'quo''te"', E'back\\slash\t\n', ''])[g %% 3 + 1], g, 0,
               repeat(chr(65 + g %% 26), 3000) FROM generate_series(0, %s) g""", rows - 1)
    rig.db.publish("t")
    rig.add_receiver()
    movers = Movers(rig.db, seed, rows)
    rig.start(syncs=backfilled(rig, batch_size=200), change={"backfill": {
        "rows_per_second": 2000, "max_snapshot_age": "1s"}})

    def parts():
        return len(rig.walpost.events("backfill_goes_on_in_parts"))
    movers.start()
    wait_for("a part by keys is done", lambda: parts() >= 2, 60, tail=rig.tail)
    # From above all that was read to below: nobody reads this row at its new key but the last part.
    moved = rig.db.sql("UPDATE t SET id = -id - 0.5 WHERE (k, id) = (SELECT k, id FROM t ORDER BY k DESC, id DESC"
                       " LIMIT 1) RETURNING k, id::text")[0]
    was_over = rig.walpost.metric("walpost_backfill_done_tables") == 1
    rig.walpost.kill()
    rig.walpost.start(databases=[rig.db])
    wait_copied(rig, 1, 120)
    movers.stop()

    def contents_of_t():
        return {json.dumps(_exact.decode(k), sort_keys=True): _exact.decode(row) for k, row in rig.db.sql(
            "SELECT json_build_object('k', k, 'id', id)::text, to_json(t)::text FROM t")}
    def differences():
        have, want = replica_with_large_values(first_arrivals(rig.receiver)), contents_of_t()
        return "\n".join([rig.tail()] + [f"{k}: {str(have.get(k))[:90]} is not {str(want.get(k))[:90]}"
                                         for k in {**have, **want} if have.get(k) != want.get(k)][:20])
    wait_for("the receiver has the table as it is", lambda: replica_with_large_values(
        first_arrivals(rig.receiver)) == contents_of_t(), 60, 0.5, tail=differences)
    records = first_arrivals(rig.receiver)
    assert_ids_rise_per_key(records)
    reads = [r for r in records if r["operation"] == "read"]
    assert len({r["position"] for r in reads}) >= 4
    assert parts() >= 3
    assert was_over or any(r["fields"]["k"] == moved[0] and str(r["fields"]["id"]) == moved[1] for r in reads)


def test_S09_a_table_without_a_key_is_not_copied_in_parts(rig):
    rig.db.sql("CREATE TABLE t (id int UNIQUE, v text)")  # an index that may hold nulls orders them nowhere
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    rig.db.sql("INSERT INTO t SELECT nullif(g, g / 100 * 100), 'x' FROM generate_series(1, 10000) g")
    rig.db.sql("CREATE TABLE small (id int PRIMARY KEY)")
    rig.db.sql("INSERT INTO small VALUES (1)")
    rig.db.publish("t", "small")
    rig.start(syncs=backfilled(rig), change={"backfill": {
        "rows_per_second": 1000, "max_snapshot_age": "1s", "connections": 1}})
    wait_for("it is not copied", lambda: rig.walpost.events("backfill_table_failed"), 60, tail=rig.tail)
    wait_copied(rig, 1)
    failed = rig.walpost.events("backfill_table_failed")
    assert [e["table"] for e in failed] == ["public.t"]
    assert "max_snapshot_age" in str(failed) and "primary key" in str(failed)
    rig.db.sql("INSERT INTO t VALUES (0, 'its changes are delivered')")
    wait_for("its changes are delivered", lambda: any(
        r["fields"].get("id") == 0 for r in rig.receiver.records()), tail=rig.tail)


def test_a_copy_that_is_over_shows_no_time_to_its_end(rig):
    """Nor is it shown as read in part."""
    for table, n in (("t", 12000), ("u", 500)):
        rig.db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, v text)")
        rig.db.sql(f"INSERT INTO {table} SELECT g, repeat('x', 100) FROM generate_series(1, {n}) g")
    rig.db.server.sql("CREATE PUBLICATION walpost FOR TABLE t, u", database=rig.db.name)
    rig.start(backfill=True, change={"backfill": {"rows_per_second": 1500}})
    wait_for("its end is foreseen", lambda: rig.walpost.metric("walpost_backfill_eta_milliseconds") > 0, 60,
             tail=rig.tail)
    wait_copied(rig, 2)
    assert rig.walpost.metric("walpost_backfill_eta_milliseconds") == 0
    assert rig.walpost.metric("walpost_backfill_permille") == 1000
