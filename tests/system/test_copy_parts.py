"""What becomes of a copy in parts when somebody pauses it, or takes the key that it is read by."""

from machine import stays, wait_for
from test_backfill import backfilled, stood_still, wait_copied, wait_equal
from test_control import give, snapshots

ROWS = 10000


def in_parts(rig):
    """A table whose snapshot has become too old, so that it is read in the order of its key from then on."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql(f"INSERT INTO t SELECT g, 'x' FROM generate_series(1, {ROWS}) g")
    rig.db.publish("t")
    rig.start(syncs=backfilled(rig), change={"backfill": {
        "rows_per_second": 1000, "max_snapshot_age": "1s", "connections": 1}})
    wait_for("it goes on in parts", lambda: rig.walpost.events("backfill_goes_on_in_parts"), 60, tail=rig.tail)


def reads(rig):
    return [r["fields"]["id"] for r in rig.receiver.records() if r["operation"] == "read"]


def test_a_paused_part_goes_on_where_it_was(rig):
    in_parts(rig)
    wait_for("keys are read in order", lambda: len(rig.walpost.events("backfill_goes_on_in_parts")) > 1, 60,
             tail=rig.tail)
    give(rig, "backfill", "pause", "main")
    wait_for("the snapshot is let go", lambda: snapshots(rig) == 0, 60, tail=rig.tail)
    wait_for("it is paused", lambda: "paused" in give(rig, "backfill", "status"), 60, tail=rig.tail)
    wait_for("what was read has arrived", lambda: stood_still(lambda: len(reads(rig))), 60, 0, tail=rig.tail)
    ids = reads(rig)
    assert len(set(ids)) < ROWS
    stays("nothing is copied", lambda: len(reads(rig)) == len(ids), 1)
    rig.db.sql("UPDATE t SET v = 'meanwhile' WHERE id % 100 = 0")
    rig.walpost.kill()
    rig.walpost.start(databases=[rig.db])
    give(rig, "backfill", "resume", "main")
    wait_copied(rig, 1, 300)
    wait_equal(rig, "t")
    # At last come the rows that were changed since the first snapshot, wherever they are.
    again = [i for i in reads(rig)[len(ids):] if i % 100]
    assert min(again) > max(ids), "what was copied in the order of the key is not copied again"


def test_a_key_that_is_dropped_between_two_parts_is_told_with_the_way_out(rig):
    in_parts(rig)
    rig.db.sql("ALTER TABLE t REPLICA IDENTITY FULL")
    rig.db.sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    wait_for("it is told", lambda: rig.walpost.events("backfill_table_failed"), 60, tail=rig.tail)
    failed = rig.walpost.events("backfill_table_failed")[0]
    assert failed["table"] == "public.t" and "no key any more" in failed["msg"], failed
    assert "primary key" in failed["remedy"] and "walpost resync" in failed["remedy"], failed
    rig.db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    give(rig, "resync", "main", "public.t")
    wait_copied(rig, 1, 300)
    wait_equal(rig, "t")
