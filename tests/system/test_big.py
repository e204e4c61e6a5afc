"""One transaction that is larger than the memory it may take, killed in its middle."""

import time

import pytest
from machine import Deadline, wait_for

ROWS = 1_000_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_F39_a_transaction_of_a_million_rows_killed_in_its_middle(rig, note):
    rig.db.table("t", "id int PRIMARY KEY", bulk=True)
    rig.db.publish("t")
    rig.start(batch_size=1000, batch_bytes="1MiB", concurrency=4)
    rig.db.sql(f"INSERT INTO t SELECT generate_series(1, {ROWS})")
    committed = time.monotonic()
    kills = 0
    for part in (ROWS // 10, ROWS // 2):
        wait_for(f"{part} records", lambda part=part: rig.receiver.stats()["records"] >= part, 300,
                 tail=rig.tail)
        rig.walpost.kill()
        kills += 1
        rig.walpost.start()
    peak = 0
    deadline = Deadline(600, 0.2)
    while deadline.left() and len(rig.receiver.poll().records) < ROWS:
        peak = max(peak, rig.walpost.memory_kib("VmHWM"))
    peak = max(peak, rig.walpost.memory_kib("VmHWM"))
    note(f"{time.monotonic() - committed:.1f} s from commit to the last record, {kills} kills, "
          f"peak RSS {peak / 1024:.0f} MiB")
    report = rig.assert_whole()
    assert report.arrived == ROWS
    assert rig.receiver.logs[0].stat().st_size > 96 << 20 > peak << 10
