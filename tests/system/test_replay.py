"""Changes that were sent are sent again from the buffer, at a person's word."""

import checker
import pytest
from load import Writers
from machine import stays, wait_for
from test_backfill import backfilled, wait_copied
from test_control import assert_stream_is_whole, give, wait_state
from test_parking import LATER, REFUSED, begin, feed, ids, insert, is_parked, wait_state as wait_parked


def replayed(rig):
    """Ids in accepted requests that say so, as often as they came."""
    return [record["id"] for request in rig.receiver.requests()
            if request.accepted and request.headers.get("webhook-replay") == "true"
            for record, _ in checker.split_records(request.body)]


def accepted(rig):
    """Every record of an accepted request, repeats and all."""
    return [record for request in rig.receiver.requests() if request.accepted
            for record, _ in checker.split_records(request.body)]


def arrived(rig):
    return sorted(rig.receiver.poll().records)


def wait_replayed(rig, expected):
    """Until each of them has come, and nothing else, with the header."""
    wait_for(f"{len(expected)} records are replayed", lambda: set(replayed(rig)) >= set(expected),
             tail=lambda: f"{len(set(replayed(rig)))} have come\n{rig.tail()}")
    assert set(replayed(rig)) == set(expected)


@pytest.mark.sanitized
def test_changes_are_sent_again_from_an_id_or_a_time(rig):
    begin(rig)
    insert(rig, 0, 100)
    insert(rig, 100, 100)
    rig.wait_arrived(200)
    assert not replayed(rig)
    first = arrived(rig)[70]
    said = give(rig, "replay", "main", "--since", first)
    assert f"sent again from {first} on, committed 20" in said and "nothing older" not in said
    insert(rig, 200, 50)
    wait_replayed(rig, arrived(rig)[70:200])
    rig.assert_whole()
    assert len(replayed(rig)) == 130, "once each"

    records = rig.receiver.records()
    when = next(r for r in records if r["fields"]["id"] == 100)["commit"]["time"]
    said = give(rig, "replay", "main", "--since", when)
    assert when in said
    wait_for("the second transaction and what came behind it",
             lambda: len(replayed(rig)) >= 130 + 150, tail=rig.tail)
    rig.assert_whole()
    assert sorted(replayed(rig)[130:]) == arrived(rig)[100:250]

    # Before everything: what there is, and from where.
    said = give(rig, "replay", "main", "--since", "2020-01-01")
    assert arrived(rig)[0][:-4] in said and "the buffer holds nothing older" in said
    wait_for("all of it", lambda: len(replayed(rig)) >= 280 + 250, tail=rig.tail)
    assert sorted(replayed(rig)[280:]) == arrived(rig)
    insert(rig, 300, 10)
    report = rig.assert_whole()
    assert report.repeats == len(replayed(rig)) == 530
    assert not set(replayed(rig)) & set(arrived(rig)[250:])


def test_what_cannot_be_replayed_is_refused(rig):
    rig.db.table("t")
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig))
    wait_copied(rig, 1)
    assert "needs --since" in give(rig, "replay", "main", code=2)
    assert "is no time" in give(rig, "replay", "main", "--since", "yesterday", code=2)
    assert "it has main" in give(rig, "replay", "mian", "--since", "1h", code=2)
    (copied,) = arrived(rig)
    assert "walpost resync main" in give(rig, "replay", "main", "--since", copied, code=2)
    insert(rig, 2, 3)
    rig.wait_arrived(4)
    said = give(rig, "replay", "main", "--since", "2999-01-01T00:00:00Z", code=1)
    assert "nothing is sent again" in said
    insert(rig, 10, 3)
    rig.wait_arrived(7)
    assert not replayed(rig)


def test_nothing_is_replayed_into_a_copy(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 3000) g")
    rig.db.watch("t")
    rig.db.publish("t")
    rig.add_receiver().control({"delay_ms": 200, "action": "answer"})  # a minute for all of it
    rig.start(syncs=backfilled(rig, batch_size=10, concurrency=1))
    rig.wait_arrived(20)
    assert "are being copied" in give(rig, "replay", "main", "--since", "1h", code=1)
    rig.receiver.behave()
    insert(rig, 5000, 10)
    wait_copied(rig, 1)
    assert_stream_is_whole(rig)
    assert not replayed(rig)
    changes = [i for i, r in rig.receiver.poll().records.items() if r[3] != "read"]
    wait_for("the tables stream again", lambda: rig.walpost.command(
        "replay", "main", "--since", "2020-01-01").returncode == 0, 60, 0.2, tail=rig.tail)
    wait_replayed(rig, changes)


def test_a_replay_is_begun_by_the_next_start(rig):
    begin(rig)
    insert(rig, 0, 100)
    rig.wait_arrived(100)
    rig.walpost.stop()
    first = arrived(rig)[40]
    assert "is not running" in give(rig, "replay", "main", "--since", first)
    rig.walpost.start(databases=[rig.db])
    wait_replayed(rig, arrived(rig)[40:])
    rig.walpost.stop()
    rig.walpost.start(databases=[rig.db])
    insert(rig, 200, 10)
    report = rig.assert_whole()
    assert report.repeats == 60, f"and not by the one after it\n{rig.tail()}"


def test_a_paused_sync_replays_when_it_is_resumed(rig):
    begin(rig)
    insert(rig, 0, 50)
    rig.wait_arrived(50)
    give(rig, "pause", "main")
    wait_state(rig, "paused")
    assert "sent again" in give(rig, "replay", "main", "--since", "2020-01-01")
    wait_state(rig, "paused")
    stays("nothing is sent", lambda: not replayed(rig), 1)
    give(rig, "resume", "main")
    wait_replayed(rig, arrived(rig))
    rig.assert_whole()


@pytest.mark.sanitized
def test_a_replay_outlives_kill_9_under_load(rig, seed):
    Writers.tables(rig.db)
    rig.add_receiver().control({"delay_ms": 3, "action": "answer"})
    rig.start(batch_size=10, concurrency=4)
    with Writers(rig.db, seed, threads=2):
        rig.wait_arrived(400)
        for turn in range(3):
            before, known = len(replayed(rig)), arrived(rig)[:200]
            said = give(rig, "replay", "main", "--since", "2020-01-01")
            assert "sent again" in said or "noted" in said
            wait_for("it is under way", lambda: len(replayed(rig)) > before + 20,
                     tail=rig.tail)
            rig.walpost.kill()
            rig.walpost.start(databases=[rig.db])
            wait_for("it goes on to where it was", lambda: set(
                replayed(rig)[before:]) >= set(known), 120, tail=rig.tail)
    rig.receiver.behave()
    rig.assert_whole(seconds=120)


def test_what_is_parked_stays_so_in_a_replay(rig):
    begin(rig, **LATER)
    rig.receiver.control(REFUSED)
    insert(rig, 500, 1)
    rig.db.sql("UPDATE t SET v = 'poison' WHERE id = 500")
    feed(rig, is_parked(rig, 1))
    rig.db.sql("UPDATE t SET v = 'behind it' WHERE id = 500")
    stored = wait_parked(rig, 2, 0)
    parked = ids(stored.parked())
    rig.wait_arrived(checker.expected_count(rig.db.history()) - 2)
    free = {r["id"] for r in rig.receiver.records() if r["key"] != {"id": 500}}
    give(rig, "replay", "main", "--since", "2020-01-01")
    wait_replayed(rig, free)
    # The key's earlier record goes through its queue; those that were there are there once.
    wait_for("it came again", lambda: sum(r["key"] == {"id": 500} for r in accepted(rig)) == 2,
             tail=rig.tail)
    stored = wait_parked(rig, 2, 0)
    assert ids(stored.parked()) == parked
    rig.receiver.behave()
    rig.walpost.restart(databases=[rig.db])
    stored.run("UPDATE parked SET next_us = 0")
    rig.walpost.restart(databases=[rig.db])
    wait_parked(rig, 0, 0)
    rig.assert_whole()
