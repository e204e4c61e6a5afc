"""Whole transactions in one request: group: transaction."""

import json
import random

import checker
import pytest
from load import Writers
from machine import wait_for
from test_backfill import wait_copied
from test_control import give
from test_dead_letters import lines
from test_parking import REFUSED, Stored, insert

pytestmark = pytest.mark.sanitized


def begin(rig, tables=("t",), **delivery):
    for table in tables:
        rig.db.table(table)
    rig.db.publish(*tables)
    rig.start(order="sync", group="transaction", **delivery)


class Part:
    """An accepted request: what it says of itself, and its records."""

    def __init__(self, request):
        body = json.loads(request.body)["object"]
        self.records, self.seq = body["records"], request.seq
        self.is_replay = request.headers.get("webhook-replay") == "true"
        self.transaction = body["metadata"].get("transaction")

    @property
    def commit(self):
        return {key: self.transaction[key] for key in ("lsn", "xid", "time")}

    @property
    def part(self):
        return self.transaction["part"], self.transaction["last"]


def parts(rig):
    return [Part(r) for r in rig.receiver.requests() if r.accepted and r.body]


def first_parts(rig):
    """{(commit LSN, number): ids} of the requests so far; a part that was repeated is the same."""
    found = {}
    for part in parts(rig):
        ids = [r["id"] for r in part.records]
        known = found.setdefault((part.transaction["lsn"], part.part[0]), (ids, part.part[1]))
        assert known == (ids, part.part[1])
    return found


def count(rig):
    return len(rig.receiver.poll().records)


def assert_grouped(rig, most=None):
    """Every request is one transaction, or the next part of it, in order; the parts."""
    found = parts(rig)
    at = None
    for part in found:
        if part.transaction is None:
            assert all(r["operation"] == "read" for r in part.records)
            continue
        assert {json.dumps(r["commit"]) for r in part.records} == {json.dumps(part.commit)}
        number, last = part.part
        lsn = part.commit["lsn"]
        if at is None or number == 1:
            assert number == 1
        else:
            assert at == (lsn, number - 1)
        at = None if last else (lsn, number)
        assert most is None or len(part.records) <= most
        assert last or most is None or len(part.records) == most
    assert at is None
    return found


def test_a_request_is_a_transaction(rig, seed):
    begin(rig, ("t", "u"))
    generator = random.Random(seed)
    sizes = [1, 2, 30, 1, 100, 7] + [generator.randint(1, 20) for _ in range(30)]
    for i, size in enumerate(sizes):
        with rig.db.connect(autocommit=False) as connection:
            for table, n in (("t", size - size // 2), ("u", size // 2)):
                if n:
                    connection.execute(f"INSERT INTO {table} SELECT g, 'x' FROM"
                                       f" generate_series({i * 100}, {i * 100 + n - 1}) g")
            connection.commit()
    rig.assert_whole()
    found = assert_grouped(rig, 100)
    assert [len(part.records) for part in found] == sizes
    assert all(part.part == (1, True) for part in found)


def test_every_kind_of_record_stays_in_its_transaction(rig):
    """Truncates and changed keys too, which go alone, or in their halves, otherwise."""
    begin(rig, ("t", "u"))
    with rig.db.connect(autocommit=False) as connection:
        for statement in ("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "UPDATE t SET id = 3 WHERE id = 2",
                          "INSERT INTO u VALUES (1, 'a')", "TRUNCATE u, t", "INSERT INTO t VALUES (2, 'c')",
                          "UPDATE t SET id = 7", "DELETE FROM t"):
            connection.execute(statement)
        connection.commit()
    rig.db.sql("INSERT INTO t VALUES (1, 'z')")
    rig.wait_arrived(12)
    first, second = assert_grouped(rig)
    assert [r["operation"] for r in first.records] == [
        "insert", "insert", "delete", "update", "insert", "truncate", "truncate", "insert", "delete",
        "update", "delete"]
    assert len(second.records) == 1


@pytest.mark.parametrize("limit", [{"batch_size": 40}, {"batch_bytes": "8KiB"}])
def test_a_transaction_is_split_only_at_limits(rig, limit):
    begin(rig, **limit)
    for i, size in enumerate((10, 40, 41, 200, 1)):
        insert(rig, i * 1000, size)
    rig.assert_whole()
    found = assert_grouped(rig, limit.get("batch_size"))
    by_transaction = {}
    for part in found:
        by_transaction.setdefault(part.commit["lsn"], []).append(part)
    assert [sum(len(p.records) for p in ps) for ps in by_transaction.values()] == [10, 40, 41, 200, 1]
    if "batch_size" in limit:
        assert [len(ps) for ps in by_transaction.values()] == [1, 1, 2, 5, 1]
    else:
        assert [len(ps) for ps in by_transaction.values()][3] > 4
        for request in rig.receiver.requests():
            assert sum(len(text) for _, text in checker.split_records(request.body)) <= 8192


def test_what_is_not_selected_does_not_keep_a_transaction_from_ending(rig):
    """Its end lies behind many records of a table that the sync does not have."""
    rig.db.table("t")
    rig.db.sql("CREATE TABLE other (id int PRIMARY KEY, v text)")
    rig.db.publish("t", "other")
    rig.start(tables=["public.t"], order="sync", group="transaction", batch_size=5)
    rig.receiver.control({"status": 503, "action": "answer"})
    for i in range(3):
        with rig.db.connect(autocommit=False) as connection:
            connection.execute(f"INSERT INTO t SELECT g, 'x' FROM generate_series({i * 10}, {i * 10 + 4}) g")
            connection.execute("INSERT INTO other SELECT g, repeat('y', 300) FROM"
                               f" generate_series({i * 30000}, {i * 30000 + 29999}) g")
            connection.commit()
    wait_for("all is read", lambda: rig.walpost.metric("walpost_buffered_records_total") >= 90015, 60,
             tail=rig.tail)
    # From memory and, behind a restart, from disk, where chunks without the table are passed over.
    rig.walpost.restart(databases=[rig.db])
    rig.receiver.behave()
    rig.wait_arrived(15, seconds=120)
    found = assert_grouped(rig, 5)
    assert [part.part for part in found] == [(1, True)] * 3


def test_after_a_crash_a_transaction_comes_again_in_the_same_parts(rig):
    begin(rig, batch_size=10, timeout="10m")
    for i in range(4):
        # The third part of a transaction is never answered.
        rig.receiver.control({"action": "hang", "skip": 2, "count": 1})
        insert(rig, i * 1000, 55)
        wait_for("the third part hangs", lambda: sum(
            r.action == "hang" for r in rig.receiver.requests()) == i + 1, 60, tail=rig.tail)
        rig.walpost.kill()
        rig.receiver.behave()
        rig.walpost.start(databases=[rig.db])
        rig.wait_arrived((i + 1) * 55)
    rig.assert_whole()
    found = first_parts(rig)
    assert len(found) == 4 * 6
    begun = [part.commit["lsn"] for part in parts(rig) if part.part[0] == 1]
    assert all(begun.count(lsn) >= 2 for lsn in begun), "each transaction began twice"


def test_a_refused_transaction_stops_the_sync_as_a_whole(rig):
    begin(rig, park={"after": "0s"})
    insert(rig, 0, 5)
    rig.wait_arrived(5)
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t SELECT g, CASE g WHEN 104 THEN 'poison' ELSE 'x' END"
               " FROM generate_series(100, 109) g")
    insert(rig, 200, 5)
    wait_for("the sync has stopped", lambda: "is refused" in rig.walpost.get("/readyz")[1], 60,
             tail=rig.tail)
    assert "the transaction with the record" in rig.walpost.get("/readyz")[1]
    tried = [json.loads(r.body)["object"]["records"] for r in rig.receiver.requests() if not r.accepted]
    assert tried and all(len(records) == 10 for records in tried), "never taken apart"
    assert count(rig) == 5
    rig.receiver.behave()
    rig.walpost.restart(databases=[rig.db])
    rig.assert_whole()
    assert_grouped(rig)


def test_a_refused_transaction_is_dead_as_a_whole_and_can_be_replayed(rig):
    begin(rig, ("t", "u"), park={"after": "0s"}, on_reject="dead_letter", batch_size=10)
    rig.receiver.control(REFUSED)
    # The poison is in the second of four parts; what comes behind it is dead with it.
    with rig.db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t SELECT g, CASE g WHEN 14 THEN 'poison' ELSE 'x' END"
                           " FROM generate_series(0, 34) g")
        connection.execute("TRUNCATE u")
        connection.commit()
    insert(rig, 200, 5)
    wait_for("the rest of it is dead", lambda: len(Stored(rig).dead()) == 26, 60, tail=rig.tail)
    rig.wait_arrived(15)
    dead = lines(rig)
    assert len(dead) == 26 and len({d["reason"] for d in dead}) == 1 and dead[0]["status"] == 422
    assert [part.part for part in parts(rig)] == [(1, False), (1, True)]
    rig.receiver.behave()
    give(rig, "dead-letters", "replay", "--all")
    wait_for("they are accepted", lambda: not Stored(rig).dead() and count(rig) == 41,
             60, tail=rig.tail)
    replays = [part for part in parts(rig) if part.is_replay]
    assert all(part.transaction is None for part in replays)
    assert [r["id"] for part in replays for r in part.records] == [d["id"] for d in dead]


def test_a_crash_while_a_transaction_is_written_off_goes_on_with_it(rig):
    """What is dead stays so, and what follows it in its transaction does not go out without it."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start(order="sync", group="transaction", park={"after": "0s"}, on_reject="dead_letter",
              batch_size=100)
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t SELECT g, CASE g WHEN 150 THEN 'poison' ELSE repeat('x', 1000) END"
               " FROM generate_series(0, 7999) g")
    wait_for("the first are dead", lambda: Stored(rig).run("SELECT 1 FROM parked LIMIT 1"), 60, 0.005,
             tail=rig.tail)
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    wait_for("all the rest is", lambda: rig.walpost.metric("walpost_dead_letters") == 7900, 60,
             tail=rig.tail)
    insert(rig, 50000, 5)
    rig.wait_arrived(105)
    assert count(rig) == 105
    assert {part.part for part in parts(rig)} == {(1, False), (1, True)}


def test_a_replay_begins_with_a_whole_transaction(rig):
    begin(rig, batch_size=10)
    for i in range(3):
        insert(rig, i * 100, 25)
    rig.assert_whole()
    ids = sorted(rig.receiver.poll().records)
    give(rig, "replay", "main", "--since", ids[25 + 12])
    wait_for("two transactions are replayed", lambda: sum(
        len(part.records) for part in parts(rig) if part.is_replay) == 50, 60, tail=rig.tail)
    assert_grouped(rig)
    again = [part for part in parts(rig) if part.is_replay]
    assert [part.part for part in again] == [(1, False), (2, False), (3, True)] * 2
    assert [r["id"] for part in again for r in part.records] == ids[25:]


def test_existing_rows_come_between_whole_transactions(rig, seed):
    Writers.tables(rig.db)
    rig.db.sql("INSERT INTO a SELECT g, 'x', g FROM generate_series(1000, 2999) g")
    rig.db.forget()
    rig.start(order="sync", group="transaction", backfill=True, batch_size=50)
    with Writers(rig.db, seed, threads=2, truncates=False):
        wait_copied(rig, 2)
    rig.settle()
    assert_grouped(rig, 50)
    assert len({r["key"]["id"] for part in parts(rig) if part.transaction is None
                for r in part.records if r["schema"] == "public.a"} & set(range(1000, 3000))) == 2000


@pytest.mark.parametrize("body", ["records", "debezium", "cloudevents"])
def test_other_bodies_say_it_in_headers(rig, body):
    begin(rig, batch_size=10, body=body)
    insert(rig, 0, 25)
    wait_for("three requests", lambda: len(rig.receiver.requests()) == 3, 60, tail=rig.tail)
    heads = [r.headers for r in rig.receiver.requests()]
    assert [(h["walpost-transaction-part"], h["walpost-transaction-last"]) for h in heads] == [
        ("1", "false"), ("2", "false"), ("3", "true")]
    (lsn,) = {h["walpost-transaction"] for h in heads}
    assert lsn.count("/") == 1


def test_what_does_not_go_together_is_refused(rig):
    receiver = rig.add_receiver()
    for delivery, hook, said in [
            ({"order": "key"}, {}, "order: sync"),
            ({"order": "sync", "concurrency_min": 1}, {}, "concurrency_min"),
            ({"order": "sync", "linger": "1s"}, {}, "linger"),
            ({"order": "sync", "batch_size": 1}, {}, "batch_size"),
            ({"order": "sync", "partial_success": True}, {}, "partial_success"),
            ({"order": "sync", "operations": ["insert", "schema"]}, {}, "schema"),
            ({"order": "sync"}, {"url": receiver.url + "/{table}"}, "placeholders"),
            ({"order": "sync"}, {"methods": {"delete": "DELETE"}}, "methods")]:
        walpost = rig.prepare(hook=hook, group="transaction", **delivery)
        done = walpost.command("run")
        assert done.returncode == 2 and said in done.stderr, done.stderr
