"""Large values: what they cost in memory, and that it comes back."""

import pytest
from machine import wait_for

MIB = 1024  # in the KiB of /proc


def resident(walpost):
    return walpost.memory_kib("VmRSS")


def assert_given_back(rig, before):
    """The connection that grew is replaced by a new one, and the stream goes on."""
    wait_for("the memory is given back", lambda: resident(rig.walpost) < before + 24 * MIB, 60,
             tail=lambda: f"{before} KiB before, {resident(rig.walpost)} now\n{rig.tail()}")
    assert len(rig.walpost.events("connection_renewed")) == 1, rig.tail()
    assert rig.walpost.metric("walpost_source_reconnects_total") == 0, "that is no failure"
    assert not rig.walpost.events("capture_interrupted")


@pytest.mark.slow
def test_the_memory_of_a_large_value_is_given_back(rig, note):
    """A value of 100 MB is delivered whole, and then its room is free again."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'small')")
    rig.wait_arrived(1)
    before = resident(rig.walpost)
    rig.db.sql("INSERT INTO t SELECT 2, repeat('0123456789', 10000000)")
    rig.wait_arrived(2, seconds=60)
    note(f"{before / MIB:.0f} MiB before, {rig.walpost.memory_kib('VmHWM') / MIB:.0f} at most")
    assert_given_back(rig, before)
    rig.db.sql("UPDATE t SET id = 3 WHERE id = 1")
    rig.wait_arrived(4)
    records = sorted(rig.receiver.records(), key=lambda r: r["id"])
    assert len(records) == 4, "nothing came twice"
    assert records[1]["fields"] == {"id": 2, "v": "0123456789" * 10000000}
