"""How fast and how many at once: rate limits, and what the endpoint bears."""

import time

from machine import wait_for


def rows(rig, n, start=1):
    rig.db.sql(f"INSERT INTO t SELECT g, 'x' FROM generate_series({start}, {start + n - 1}) g")


def test_requests_per_second_are_kept_to(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(batch_size=1, rate_limit={"requests_per_second": 20})
    begun = time.monotonic()
    rows(rig, 61)
    rig.assert_whole()
    # 2 at once, and 59 more at 20 a second; a slow machine only makes it longer.
    assert time.monotonic() - begun > 2.8


def test_records_per_second_are_kept_to(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(batch_size=10, rate_limit={"records_per_second": 100})
    begun = time.monotonic()
    rows(rig, 310)
    rig.assert_whole()
    assert time.monotonic() - begun > 2.8
    # A limit of records is not one of requests: they go out as they come.
    rig.db.sql("INSERT INTO t VALUES (1000, 'x')")
    rig.assert_whole()


def test_a_rate_limit_holds_for_probes_and_not_for_the_stop(rig):
    receiver = rig.add_receiver()
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(rate_limit={"requests_per_second": 2})
    receiver.control({"status": 500})
    rows(rig, 20)
    wait_for("only probes are sent", lambda: rig.walpost.events("endpoint_trouble"), 60,
             tail=rig.walpost.tail)
    receiver.behave()
    rig.assert_whole()
    assert rig.walpost.stop() == 0


def test_concurrency_rises_and_falls_with_what_the_endpoint_bears(rig):
    receiver = rig.add_receiver()
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(batch_size=1, concurrency=32, concurrency_min=1)

    def limit():
        return rig.walpost.metric("walpost_concurrency_limit", sync="main")
    assert limit() == 1
    receiver.control({"delay_ms": 100})
    sent = [0]

    def rises():
        """There is always something to send meanwhile."""
        if sent[0] - len(receiver.poll().records) < 200:
            rows(rig, 500, sent[0] + 1)
            sent[0] += 500
        return limit() >= 8
    wait_for("the limit rises", rises, 60, 0.1, tail=rig.walpost.tail)
    rig.assert_whole()
    receiver.control({"status": 503, "p": 0.5, "seed": 7})
    before = limit()
    rows(rig, 50, 1000000)
    wait_for("the limit falls", lambda: limit() <= before / 2, 60, tail=rig.walpost.tail)
    receiver.behave()
    rig.assert_whole()


def test_lanes_take_turns_when_few_may_send(rig):
    """With one request at a time, no lane waits for all the others to be empty."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(batch_size=1, concurrency=16, rate_limit={"requests_per_second": 200})
    rows(rig, 400)
    rig.assert_whole()
    order = [int(r["key"]["id"]) for r in rig.receiver.records()]
    # Lanes are filled in the order of the rows: turn by turn, a row goes at about its own place.
    late = max(at - (id_ - 1) for at, id_ in enumerate(order))
    assert late < 250, late
