"""Records that say where the copy of a table begins and ends."""

import json

import pytest
from load import Writers
from machine import wait_for
from test_backfill import assert_ids_rise_per_key, backfilled, contents, first_arrivals, replica, wait_copied
from walpost import sync


def settled(rig, tables):
    """What arrived, once the copies of these tables have ended."""
    wait_for("every copy has its end", lambda: {
        r["schema"] for r in rig.receiver.records()
        if r["operation"] == "backfill" and r["fields"]["state"] == "end"} == set(tables), 120, tail=rig.tail)
    wait_copied(rig, len(tables))
    return first_arrivals(rig.receiver)


def copies(records, table):
    """The marks and rows of a table by the place of their copy, in order of arrival."""
    places = {}
    for record in records:
        if record["schema"] == table and record["operation"] in ("backfill", "read"):
            places.setdefault(record["position"], []).append(record)
    return list(places.values())


def changes(rig):
    return [r for r in first_arrivals(rig.receiver) if r["operation"] != "backfill"]


def states(copy):
    return [r["fields"]["state"] for r in copy if r["operation"] == "backfill"]


def assert_whole(copy):
    """A copy that came to its end: begin, rows, end, and so in their ids, too."""
    assert states(copy) == ["begin", "end"]
    begin, *rows, end = copy
    assert [begin["fields"], end["fields"]] == [{"state": "begin"}, {"state": "end", "rows": len(rows)}]
    assert all(r["operation"] == "read" for r in rows)
    for mark in (begin, end):
        assert mark["key"] is None and mark["commit"] == {"lsn": mark["position"], "xid": None, "time": None}
        assert len(mark["id"]) == 57 and mark["id"][:40] == begin["id"][:40]
    assert all(begin["id"] < r["id"] < end["id"] and begin["id"][:40] == r["id"][:40] for r in rows)


@pytest.mark.versions
@pytest.mark.parametrize("order", ["key", "sync", "none"])
def test_rows_stand_between_the_marks_of_their_table(rig, seed, order):
    for table, rows in (("a", 4000), ("b", 700), ("empty", 0)):
        rig.db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, v text)")
        rig.db.sql(f"INSERT INTO {table} SELECT g, 'x' FROM generate_series(1, {rows}) g")
    rig.db.publish("a", "b", "empty")
    # Requests of eight lanes overtake each other, and some are sent again.
    rig.add_receiver().control({"p": 0.05, "seed": seed % 1000, "status": 503, "action": "answer"},
                               {"p": 0.3, "seed": seed % 1000 + 1, "delay_ms": 30, "action": "answer"})
    rig.start(syncs=backfilled(rig, marks=True, order=order, concurrency=8, batch_size=50))
    records = settled(rig, ["public.a", "public.b", "public.empty"])
    for table, rows in (("public.a", 4000), ("public.b", 700), ("public.empty", 0)):
        (copy,) = copies(records, table)
        assert len(copy) == rows + 2
        assert_whole(copy)
    marks = [r["id"] for r in records if r["operation"] == "backfill"]
    assert len(marks) == len(set(marks)) == 6
    rig.db.sql("INSERT INTO empty VALUES (1, 'late')")
    rig.wait_arrived(4707)
    last = first_arrivals(rig.receiver)[-1]
    assert last["operation"] == "insert" and last["id"] > max(marks)


def test_a_copy_that_was_killed_begins_with_a_mark_of_its_own(rig, seed):
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, repeat('x', 200), g FROM generate_series(1000, 11000) g")
    rig.db.forget()
    slowly = {"delay_ms": 20, "action": "answer"}
    # A copy that is to be killed comes to no end before: of its 10000 rows 2000 are taken at most.
    in_part = [{"match": '"operation":"read"', "count": 40, **slowly},
               {"match": '"operation":"read"', "action": "hang"}, slowly]
    rig.add_receiver().control(*in_part)
    rig.start(syncs=backfilled(rig, marks=True, concurrency=8, batch_size=50),
              change={"backfill": {"rows_per_second": 5000}})
    with Writers(rig.db, seed, threads=2, truncates=False):
        for copy_no in range(2):
            wait_for("rows of this copy have arrived", lambda n=copy_no: len([
                c for c in copies(first_arrivals(rig.receiver), "public.a") if len(c) > 30]) > n, 120, tail=rig.tail)
            rig.walpost.kill()
            rig.receiver.control(*([slowly] if copy_no else in_part))
            rig.walpost.start(databases=[rig.db])
        records = settled(rig, ["public.a", "public.b"])
    all_of_a = copies(records, "public.a")
    assert len(all_of_a) >= 3
    for broken in all_of_a[:-1]:
        assert states(broken) == ["begin"] and broken[0]["operation"] == "backfill"
    assert_whole(all_of_a[-1])
    assert_whole(copies(records, "public.b")[-1])
    wait_for("the receiver has the table as it is",
             lambda: replica(changes(rig))["public.a"] == contents(rig.db, "a"), 60, tail=rig.tail)
    assert_ids_rise_per_key(changes(rig))


def test_a_table_that_is_copied_in_parts_has_one_begin_and_one_end(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1500) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig, marks=True), change={"backfill": {
        "rows_per_second": 500, "max_snapshot_age": "1s", "connections": 1}})
    records = settled(rig, ["public.t"])
    assert len(rig.walpost.events("backfill_goes_on_in_parts")) > 1
    assert states(records) == ["begin", "end"]
    begin, *rows, end = records
    assert [r["operation"] for r in (begin, end)] == ["backfill", "backfill"]
    assert {r["fields"]["id"] for r in rows} == set(range(1, 1501)) and end["fields"]["rows"] == len(rows)


def cloudevents(receiver):
    return [event for request in receiver.requests() if request.accepted and request.body
            for event in json.loads(request.body)]


def test_marks_come_only_to_the_sync_that_asks(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g")
    rig.db.publish("t")
    rig.add_receiver()
    other = rig.add_receiver("other")
    rig.start(syncs={"main": sync(rig.db.name, rig.receiver.name, backfill=True),
                     "other": sync(rig.db.name, "other", backfill=True, marks=True, body="cloudevents")})
    wait_for("both copies have ended", lambda: len(
        {e["id"] for e in cloudevents(other)}) == 102 and len(first_arrivals(rig.receiver)) >= 100, tail=rig.tail)
    wait_copied(rig, 2)
    assert [r["operation"] for r in first_arrivals(rig.receiver)] == ["read"] * 100
    marks = [e for e in cloudevents(other) if e["type"] == "walpost.backfill"]
    assert [e["data"]["fields"]["state"] for e in marks] == ["begin", "end"]
    assert all(e["subject"] == "public.t" and e["id"] == e["data"]["id"] for e in marks)


@pytest.mark.parametrize("delivery, reason", [
    ({"operations": ["insert"]}, "add read to operations"),
    ({"order": "sync", "group": "transaction"}, "a mark is of no transaction"),
    ({"body": "debezium"}, "body: debezium has no event for backfill records; remove marks")])
def test_what_has_no_marks_says_so(rig, delivery, reason):
    rig.add_receiver()
    rig.prepare(syncs=backfilled(rig, marks=True, **delivery))
    done = rig.walpost.command("check", "--config-only")
    said = done.stdout + done.stderr
    assert done.returncode == 2 and "destination_configuration.marks: " in said and reason in said


def test_a_mark_that_is_refused_stops_the_sync(rig):
    for table in ("t", "u"):
        rig.db.sql(f"CREATE TABLE {table} (id bigserial PRIMARY KEY, v text)")
        rig.db.sql(f"INSERT INTO {table} (v) SELECT 'x' FROM generate_series(1, 100)")
    rig.db.publish("t", "u")
    rig.start(syncs=backfilled(rig, marks=True))
    settled(rig, ["public.t", "public.u"])
    rig.receiver.control({"match": '"state":"end"', "status": 400, "action": "answer"})
    assert rig.walpost.command("resync", "main", "public.t").returncode == 0

    def has_stopped():
        # What is accepted meanwhile shows that it is the mark's own trouble.
        rig.db.sql("INSERT INTO u (v) VALUES ('meanwhile')")
        return "remove marks from the sync" in rig.walpost.get("/status.txt")[1]
    wait_for("the sync stops", has_stopped, 120, 0.1, tail=rig.tail)
    _, second = copies(first_arrivals(rig.receiver), "public.t")
    assert states(second) == ["begin"] and len(second) == 101
    rig.receiver.behave()
    assert rig.walpost.command("resume", "main").returncode == 0
    wait_for("the copy has its end", lambda: states(
        copies(first_arrivals(rig.receiver), "public.t")[-1]) == ["begin", "end"], 60, tail=rig.tail)
    for copy in copies(first_arrivals(rig.receiver), "public.t"):
        assert states(copy) == ["begin"] or assert_whole(copy) is None
