"""Behind a gap: the slot is made anew, the gap noted, and the tables are copied again."""

import shutil
import sqlite3

import pytest
from machine import wait_for
from test_backfill import assert_ids_rise_per_key, backfilled, first_arrivals, wait_equal
from test_control import give, reads
from test_slot import TIGHT, gap, noise, set_back, settled

pytestmark = pytest.mark.sanitized


def prepared(rig, connection=None):
    """Some rows that have arrived, and all of it confirmed."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, 'before' FROM generate_series(1, 100) g")
    rig.db.publish("t")
    walpost = rig.start(syncs=backfilled(rig), connection=connection)
    wait_equal(rig, "t")
    rig.db.sql("UPDATE t SET v = 'read' WHERE id <= 10")
    wait_equal(rig, "t")
    settled(rig)
    return walpost


def in_the_gap(db):
    """Changes that nobody will be able to read; no row is deleted, for that could not be known."""
    db.sql("INSERT INTO t SELECT g, 'in the gap' FROM generate_series(101, 120) g")
    db.sql("UPDATE t SET v = 'in the gap' WHERE id BETWEEN 5 AND 20")


def lsn(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def slot(rig):
    return rig.db.slots()[0][0]


def drop(rig):
    rig.db.server.sql("SELECT pg_drop_replication_slot(%s)", slot(rig))


def assert_repaired(rig, generation=2):
    """The receiver has the table as it is, by copied rows, and the stream goes on behind them."""
    wait_equal(rig, "t")
    rig.db.sql("UPDATE t SET v = 'after' WHERE id = 7")
    rig.db.sql("DELETE FROM t WHERE id = 8")
    wait_equal(rig, "t")
    records = first_arrivals(rig.receiver)
    assert_ids_rise_per_key(records)
    assert records[-1]["id"][:2] == f"{generation:02x}", "a generation of its own"
    assert len(reads(rig)) >= 219
    with sqlite3.connect(rig.walpost.data / "state.db") as state:
        gaps = state.execute("SELECT sync, first_id, last_id, reason FROM gap").fetchall()
    assert len(gaps) == generation - 1 and all(g[0] == "main" and g[1] < g[2] and g[3] for g in gaps)


@pytest.mark.versions
def test_a_lost_slot_is_made_anew_by_itself_with_on_gap_resync(own_server, make_rig):
    rig = make_rig(own_server(TIGHT).database())
    walpost = prepared(rig, {"on_gap": "resync"})
    walpost.stop()
    in_the_gap(rig.db)
    noise(rig.db, 160)
    rig.db.server.sql("CHECKPOINT")
    walpost.start(databases=[rig.db])
    assert_repaired(rig)
    (accepted,) = walpost.events("gap_accepted")
    assert "lost" in accepted["msg"] and "remedy" not in accepted, "nobody has to do what was just done"
    assert not walpost.events("capture_failed")
    walpost.restart(databases=[rig.db])
    before = len(reads(rig))
    rig.db.sql("UPDATE t SET v = 'later' WHERE id = 9")
    wait_equal(rig, "t")
    assert len(reads(rig)) == before and len(walpost.events("gap_accepted")) == 1, "it is done once"


@pytest.mark.versions
def test_a_recreated_slot_is_accepted_on_the_operators_word(rig):
    walpost = prepared(rig)
    walpost.stop()
    in_the_gap(rig.db)
    name = slot(rig)
    drop(rig)
    rig.db.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", name,
                      database=rig.db.name)
    walpost.spawn()
    assert "walpost resync main --gap" in gap(rig)["remedy"]
    assert walpost.process.wait() == 1
    assert "is not running" in give(rig, "resync", "main", "--gap")
    walpost.start(databases=[rig.db])
    assert_repaired(rig)
    assert "there is no gap" in give(rig, "resync", "main", "--gap", code=1)
    assert "name none" in give(rig, "resync", "main", "public.t", "--gap", code=2)


def answers(rig):
    """[(verb, state, answer)] of the commands that a person gave, in their order; 1: done, 2: refused."""
    with sqlite3.connect(rig.walpost.data / "state.db") as state:
        return state.execute("SELECT verb, state, answer FROM command WHERE verb <> 'repair' ORDER BY id").fetchall()


def test_a_second_word_about_the_same_gap_is_refused(rig):
    """Both were given while nobody ran: one gap is accepted, once."""
    walpost = prepared(rig)
    walpost.stop()
    in_the_gap(rig.db)
    drop(rig)
    walpost.spawn()
    gap(rig)
    assert walpost.process.wait() == 1
    for _ in range(2):
        assert "is not running" in give(rig, "resync", "main", "--gap")
    walpost.start(databases=[rig.db])
    assert_repaired(rig)
    wait_for("both are answered", lambda: all(state for _, state, _ in answers(rig)), tail=rig.tail)
    (_, first, _), (_, second, answer) = answers(rig)
    assert (first, second) == (1, 2) and "gap" in answer, answers(rig)
    assert len(walpost.events("gap_accepted")) == 1


def test_a_state_that_is_older_than_the_buffer_stops_the_start(rig):
    """It knows nothing of the generation in which the last records were numbered."""
    walpost = prepared(rig, {"on_gap": "resync"})
    walpost.stop()
    shutil.copytree(walpost.data, rig.folder / "older")
    in_the_gap(rig.db)
    drop(rig)
    walpost.start(databases=[rig.db])
    assert_repaired(rig)
    settled(rig)
    walpost.stop()
    arrived, confirmed = len(first_arrivals(rig.receiver)), rig.db.confirmed()
    for old in walpost.data.glob("state.db*"):
        old.unlink()
    for old in (rig.folder / "older").glob("state.db*"):
        shutil.copy(old, walpost.data)
    rig.db.sql("UPDATE t SET v = 'not read' WHERE id = 11")
    walpost.spawn()
    wait_for("it is told", lambda: walpost.events("capture_failed"), tail=walpost.tail)
    event = walpost.events("capture_failed")[0]
    assert "generation 1, the buffer has 2" in event["msg"] and "state.db" in event["remedy"], event
    assert walpost.process.wait() == 1
    assert len(first_arrivals(rig.receiver)) == arrived and rig.db.confirmed() == confirmed


def test_an_older_data_dir_that_is_put_back_is_named_as_such(rig):
    walpost = prepared(rig)
    walpost.stop()
    older = rig.folder / "older"
    shutil.copytree(walpost.data, older)
    before = rig.db.confirmed()
    walpost.start(databases=[rig.db])
    rig.db.sql("UPDATE t SET v = 'read later' WHERE id = 9")
    wait_equal(rig, "t")
    settled(rig)
    walpost.stop()
    confirmed = rig.db.confirmed()
    assert confirmed != before
    shutil.rmtree(walpost.data)
    shutil.copytree(older, walpost.data)
    walpost.spawn()
    told = gap(rig)
    assert "was a backup of data_dir put back" in told["msg"] and lsn(confirmed) in told["msg"], told
    assert lsn(before) in told["msg"], told
    assert "data_dir that was in use last" in told["remedy"], told
    assert rig.db.confirmed() == confirmed


def test_a_gap_is_accepted_while_what_was_read_is_still_delivered(rig):
    walpost = prepared(rig)
    rig.receiver.stop()
    rig.db.sql("UPDATE t SET v = 'buffered' WHERE id = 50")
    settled(rig)
    walpost.stop()
    in_the_gap(rig.db)
    drop(rig)
    walpost.spawn()
    gap(rig)
    assert "copied again" in give(rig, "resync", "main", "--gap")
    rig.receiver.start()
    assert_repaired(rig)
    assert any(r["fields"]["v"] == "buffered" and r["operation"] == "update"
               for r in first_arrivals(rig.receiver))


def test_kill_at_every_step_of_making_a_slot_anew(rig):
    """The gap is accepted again, or not any more; in the end the tables are right."""
    walpost = prepared(rig, {"on_gap": "resync"})
    for _ in range(4):
        walpost.kill()

        def dropped():
            if not rig.db.slots():
                return True  # it was killed between the old one and the new
            try:
                drop(rig)
            except Exception as busy:
                assert "is active" in str(busy)
                return False
            return True
        in_round = walpost.log_text().count("event=gap_accepted")
        rig.db.sql("UPDATE t SET v = v || '.' WHERE id % 3 = 0")
        wait_for("the slot is dropped", dropped, 60)
        walpost.spawn()
        wait_for("the gap is met", lambda n=in_round: walpost.log_text().count(
            "event=gap_accepted") > n, 60, 0.001, tail=walpost.tail)
    walpost.restart(databases=[rig.db])
    wait_equal(rig, "t")
    rig.db.sql("UPDATE t SET v = 'after' WHERE id = 7")
    wait_equal(rig, "t")
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


def test_a_slot_lost_while_a_table_is_copied(rig):
    """The copy under way has a snapshot of before the new slot: it begins again."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 300) FROM generate_series(1, 6000) g")
    rig.db.publish("t")
    walpost = rig.start(syncs=backfilled(rig), connection={"on_gap": "resync"}, change={"backfill": {
        "rows_per_second": 2000, "connections": 1}})
    wait_for("rows are copied", lambda: len(reads(rig)) > 100, tail=rig.tail)
    name = slot(rig)
    walpost.sigstop()
    try:
        wait_for("the slot is dropped", lambda: rig.db.take_slot_away(name), 60)
        rig.db.sql("UPDATE t SET v = 'in the gap' WHERE id % 5 = 0")
    finally:
        walpost.sigcont()
    wait_for("it is made anew", lambda: walpost.events("gap_accepted"), 60, tail=rig.tail)
    wait_equal(rig, "t")
    rig.db.sql("UPDATE t SET v = 'after' WHERE id % 7 = 0")
    wait_equal(rig, "t")
    assert_ids_rise_per_key(first_arrivals(rig.receiver))


def test_a_restored_backup_is_copied_over_what_was_read(own_server, make_rig, folder):
    """Its WAL ends below what was read: positions go back, ids do not."""
    server = own_server()
    rig = make_rig(server.database())
    walpost = prepared(rig, {"on_gap": "resync"})
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    shutil.copytree(server.data, folder / "backup", symlinks=True)
    server.start()
    rig.db.sql("ALTER TABLE t ALTER v SET STORAGE EXTENDED")
    walpost.start(databases=[rig.db])
    rig.db.sql("UPDATE t SET v = 'will not have been'")
    wait_equal(rig, "t")
    noise(rig.db, 8)
    settled(rig)
    rig.receiver.stop()
    rig.db.sql("UPDATE t SET v = 'buffered, and will not have been' WHERE id = 30")
    settled(rig)
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    set_back(server, folder / "backup")
    server.start()
    rig.db.sql("UPDATE t SET v = 'in the gap' WHERE id = 3")
    walpost.spawn()
    wait_for("the gap is accepted", lambda: walpost.events("gap_accepted"), 60, tail=walpost.tail)
    assert "restored backup" in walpost.events("gap_accepted")[0]["msg"]
    rig.receiver.start()
    walpost.wait_streaming(rig.db)
    wait_equal(rig, "t")
    rig.db.sql("UPDATE t SET v = 'after' WHERE id = 31")
    wait_equal(rig, "t")
    assert_ids_rise_per_key(first_arrivals(rig.receiver))
    assert rig.db.confirmed() <= rig.db.wal_end()
    walpost.restart(databases=[rig.db])
    rig.db.sql("UPDATE t SET v = 'and after a restart' WHERE id = 32")
    wait_equal(rig, "t")


def test_another_cluster_is_never_copied_by_itself(own_server, make_rig):
    first, second = own_server(), own_server()
    rig = make_rig(first.database())
    walpost = prepared(rig, {"on_gap": "resync"})
    walpost.stop()
    other = second.database()
    other.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    other.publish("t")
    walpost.config["connections"][rig.db.name]["configuration"].update(
        port=second.port, database=other.name)
    walpost.write()
    walpost.spawn()
    gap(rig)
    assert not walpost.events("gap_accepted") and other.slots() == []
    walpost.process.wait()
    give(rig, "resync", "main", "--gap")
    walpost.start(databases=[other])
    other.sql("INSERT INTO t VALUES (1000, 'of the other')")
    wait_for("the other cluster is read", lambda: any(
        r["key"] == {"id": 1000} for r in first_arrivals(rig.receiver)), tail=rig.tail)
    assert sum(r["fields"]["v"] == "before" for r in reads(rig)) == 100, "nothing of the first again"
