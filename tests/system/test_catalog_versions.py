"""What one version of PostgreSQL does otherwise than the next; run against every one of them."""

import pytest
from machine import wait_for

pytestmark = [pytest.mark.versions, pytest.mark.sanitized]


def failures(walpost):
    return walpost.events("capture_failed")


def test_F28_the_slot_is_kept_through_a_failover_where_the_server_can(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    slot, = rig.db.server.sql("SELECT to_jsonb(s) FROM pg_replication_slots s WHERE database = %s",
                              rig.db.name)[0]
    assert slot.get("failover") is (True if rig.db.server.version >= 17 else None)
    assert slot["temporary"] is False


@pytest.mark.parametrize("hidden", [False, True], ids=["", "warnings hidden"])
@pytest.mark.parametrize("when", ["running", "stopped"])
def test_L15_L16_rows_without_their_publication_stop_capture(rig, when, hidden):
    """Up to 17 the server fails, 18 warns and skips: neither may go by in silence."""
    rig.db.table("t")
    rig.db.publish("t")
    if hidden:  # the role's own setting keeps the server's warning from its client
        rig.db.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET client_min_messages TO error")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    if when == "stopped":
        rig.walpost.stop()
    rig.db.sql("DROP PUBLICATION walpost")
    end = rig.db.wal_end()
    rig.db.sql("INSERT INTO t VALUES (2, 'not published')")
    rig.db.publish("t")
    rig.db.sql("INSERT INTO t VALUES (3, 'published')")
    for _ in range(2):  # it is the same after a restart: making the publication again does not help
        if not rig.walpost.process.is_running:
            rig.walpost.log.unlink()
            rig.walpost.spawn()
        assert rig.walpost.process.wait(60) == 1, rig.walpost.tail()
        assert [f["code"] for f in failures(rig.walpost)] == ["missing"], rig.walpost.tail()
        assert "walpost" in failures(rig.walpost)[0]["msg"]
        assert "pg_drop_replication_slot" in failures(rig.walpost)[0]["remedy"]
    assert rig.db.confirmed() <= end, "the slot still holds the row that cannot be read"
    assert [r["key"] for r in rig.receiver.records()] == [{"id": 1}]


def test_X01_transactions_in_which_nothing_is_published(rig):
    """13 and 14 send each of them, empty; later versions none."""
    rig.db.table("t")
    rig.db.sql("CREATE TABLE busy (id int)")
    rig.db.publish("t")
    rig.start()
    before = rig.walpost.metric("walpost_captured_transactions_total")
    rig.db.sql("DO $$ BEGIN FOR i IN 1..5000 LOOP INSERT INTO busy VALUES (i); COMMIT; END LOOP; END $$")
    rig.db.sql("ALTER TABLE t ADD COLUMN extra int")
    end = rig.db.wal_end()
    wait_for("the slot passes them", lambda: rig.db.confirmed() >= end, 60, tail=rig.walpost.tail)
    sent = rig.walpost.metric("walpost_captured_transactions_total") - before
    assert sent > 5000 if rig.db.server.version < 15 else sent == 0
    rig.db.sql("INSERT INTO t VALUES (1, 'a', 2)")
    assert rig.assert_whole().expected == 1
    ordinal = rig.receiver.records()[0]["id"].split("-")[2]
    assert int(ordinal, 16) == 1


def test_X24_X26_F43_transactions_of_an_origin_that_is_gone(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.walpost.stop()
    origin = f"elsewhere_{rig.db.name}"
    with rig.db.connect("postgres") as connection:
        connection.execute("SELECT pg_replication_origin_create(%s)", (origin,))
        connection.execute("SELECT pg_replication_origin_session_setup(%s)", (origin,))
        connection.execute("INSERT INTO t VALUES (2, 'b')")
        with connection.transaction():
            connection.execute("SELECT pg_replication_origin_xact_setup('0/1', '2001-02-03 04:05:06Z')")
            connection.execute("INSERT INTO t VALUES (3, 'c')")
        connection.execute("SELECT pg_replication_origin_session_reset()")
        connection.execute("SELECT pg_replication_origin_drop(%s)", (origin,))
    rig.walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (4, 'd')")
    rig.assert_whole()
    times = {r["key"]["id"]: r["commit"]["time"] for r in rig.receiver.records()}
    assert times[3] == "2001-02-03T04:05:06.000000Z", "the origin's own, before the others'"


def test_X05_large_transactions_that_end_in_a_rollback(own_server, make_rig):
    """With subtransactions in them, and read when they have ended: 18 then sends the abort of one
    of which it never sent anything."""
    server = own_server({"logical_decoding_work_mem": "'64kB'"})
    rig = make_rig(server.database())
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.start()
    rig.walpost.stop()
    fill = "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series({0}, {0} + 600) g"
    with rig.db.connect(autocommit=False) as connection:
        for base, end in ((0, "RELEASE s"), (10000, "ROLLBACK TO s")):
            connection.execute("SAVEPOINT s")
            connection.execute("INSERT INTO t VALUES (-1, 'small')")
            connection.execute(end)
            connection.execute(fill.format(base))
            connection.execute("SAVEPOINT s")
            connection.execute(fill.format(base + 1000))
            connection.execute(end)
            connection.rollback()
            connection.execute(fill.format(base))
            connection.execute("SAVEPOINT s")
            connection.execute(fill.format(base + 1000))
            connection.execute(end)
            connection.commit()
    rig.walpost.start(databases=[rig.db])
    assert rig.assert_whole().expected == 3 * 601
    assert not rig.walpost.events("capture_failed")


def test_a_setting_that_is_reported_changes_while_it_is_read(own_server, make_rig):
    """13 reports it between the changes; and text is quoted for either value of this one."""
    server = own_server()
    rig = make_rig(server.database())
    table = "back\\slash 'q'"
    rig.db.sql(f'CREATE TABLE "{table}" (id int PRIMARY KEY)')
    rig.start(tables=[f"public.{table}"])
    rig.db.sql(f'INSERT INTO "{table}" VALUES (1)')
    rig.wait_arrived(1)
    server.set({"standard_conforming_strings": "off"})
    server.reload()
    wait_for("the setting holds", lambda: server.sql("SHOW standard_conforming_strings") == [("off",)], 60)
    rig.db.sql(f'INSERT INTO "{table}" VALUES (2)')
    rig.wait_arrived(2)
    assert len(rig.walpost.events("capture_started")) == 1, "the stream went on"
    assert rig.walpost.stop() == 0
    rig.walpost.start(databases=[rig.db])
    rig.db.sql(f'INSERT INTO "{table}" VALUES (3)')
    rig.wait_arrived(3)
    assert {r["schema"] for r in rig.receiver.records()} == {f"public.{table}"}
