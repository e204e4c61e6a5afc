"""Small tables beside large ones."""

import signal

import pytest
from machine import wait_for

pytestmark = pytest.mark.receiving


def test_a_small_table_does_not_queue_behind_a_large_one(rig):
    """The receiver stands still until all is read, so what it logs does not depend on time."""
    rig.db.table("large")
    rig.db.table("small")
    rig.db.publish("large", "small")
    rig.start(concurrency=1, batch_size=10, timeout="120s")
    receiver = rig.receiver

    def waiting():
        return tuple(rig.walpost.metric("walpost_lane_records", state=state)
                     for state in ("in_flight", "waiting"))
    receiver.process.signal(signal.SIGSTOP)
    try:
        rig.db.sql("INSERT INTO large VALUES (0, 'x')")
        wait_for("a request", lambda: waiting() == (1, 0), 60, tail=rig.tail)
        rig.db.sql("INSERT INTO large SELECT g, 'x' FROM generate_series(1, 3000) g")
        wait_for("a backlog", lambda: waiting() == (1, 3000), 60, tail=rig.tail)
        rig.db.sql("INSERT INTO small VALUES (1, 'x')")
        rig.db.sql("UPDATE small SET v = 'y'")
        wait_for("the row behind it", lambda: waiting() == (1, 3002), 60, tail=rig.tail)
    finally:
        receiver.process.signal(signal.SIGCONT)
    rig.assert_whole()
    order = [r["schema"] for r in receiver.records()]
    assert len(order) == 3003
    assert order[1:3] == ["public.small"] * 2, order.index("public.small")
