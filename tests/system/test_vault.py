"""Parked records and dead letters are encrypted in the store, and never lost by that."""

import json
import os
import sqlite3

import checker
import pytest
from machine import wait_for
from test_control import give
from test_dead_letters import lines
from test_parking import LATER, REFUSED, SOON, begin, feed, is_parked, wait_state

PLANTED = "planted-9b41c7"
REFUSED_ALOUD = REFUSED | {"body": f'{{"error": "{PLANTED} in the answer"}}'}
KEYS = {name: os.urandom(32).hex() for name in ("right", "wrong")}

pytestmark = pytest.mark.sanitized


def poison(rig, key):
    rig.db.sql("INSERT INTO t VALUES (%s, %s)", key, f"poison {PLANTED}")


def planted_in(rig):
    """Files of the state that hold the value as it is."""
    files = list(rig.walpost.data.glob("state.db*"))
    assert rig.walpost.data / "state.db" in files
    return [file.name for file in files if PLANTED.encode() in file.read_bytes()]


def set_key(rig, key):
    config = dict(rig.walpost.config)
    config.pop("master_key", None)
    if key:
        config["master_key"] = "${WALPOST_TEST_KEY}"
        os.environ["WALPOST_TEST_KEY"] = key
    rig.walpost.write(config)


@pytest.fixture(autouse=True)
def clean_environment():
    yield
    os.environ.pop("WALPOST_TEST_KEY", None)


def refuses_to_run(rig):
    rig.walpost.spawn()
    assert rig.walpost.process.wait() == 1
    return rig.walpost.tail()


def test_nothing_of_a_parked_record_is_readable_in_the_state(rig):
    begin(rig, **SOON)
    rig.receiver.control(REFUSED_ALOUD)
    poison(rig, 500)
    feed(rig, lambda: rig.walpost.metric("walpost_dead_letters") == 1)
    assert planted_in(rig) == []
    rig.walpost.kill()
    assert planted_in(rig) == []
    # Offline, with the key that was made.
    (dead,) = lines(rig)
    assert dead["key"] == {"id": 500} and PLANTED in dead["response"]
    shown = json.loads(give(rig, "dead-letters", "show", dead["id"], "--json"))
    assert shown["record"]["fields"]["v"] == f"poison {PLANTED}"
    assert (rig.walpost.data / "master.key").stat().st_mode & 0o777 == 0o600
    rig.receiver.behave()
    assert not rig.walpost.events("master_key_was_open")
    (rig.walpost.data / "master.key").chmod(0o644)
    rig.walpost.start(databases=[rig.db])
    (told,) = rig.walpost.events("master_key_was_open")
    assert told["mode"] == "0644" and told["level"] == "warn"
    assert (rig.walpost.data / "master.key").stat().st_mode & 0o777 == 0o600
    assert give(rig, "dead-letters", "replay", "--key", '{"id":500}') == "1 record to be sent again\n"
    rig.assert_whole()


def test_a_wrong_or_lost_key_stops_the_start_and_the_right_one_goes_on(rig):
    rig.add_receiver()
    rig.receiver.control(REFUSED)
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare(batch_size=10, concurrency=4, **LATER)
    set_key(rig, KEYS["right"])
    rig.walpost.start(databases=[rig.db])
    poison(rig, 500)
    feed(rig, is_parked(rig, 1))
    rig.walpost.kill()
    assert not (rig.walpost.data / "master.key").exists()

    set_key(rig, KEYS["wrong"])
    assert "encrypted with another master key" in refuses_to_run(rig)
    assert "set master_key to the key that was in force before" in rig.walpost.tail()
    assert "another master key" in give(rig, "dead-letters", "list", "--parked", code=1)
    checked = rig.walpost.command("check")
    assert checked.returncode == 1 and "another master key" in checked.stdout
    set_key(rig, None)
    assert "their master key is missing" in refuses_to_run(rig)
    assert not (rig.walpost.data / "master.key").exists()
    for key in KEYS.values():
        assert key not in rig.walpost.log_text()

    set_key(rig, KEYS["right"])
    assert [d["key"] for d in lines(rig, "--parked")] == [{"id": 500}]
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    feed(rig, lambda: rig.walpost.metric("walpost_parked_records") == 1)
    # What waits keeps the time it was given; a person need not wait for it.
    rig.walpost.stop()
    with sqlite3.connect(rig.walpost.data / "state.db") as state:
        state.execute("UPDATE parked SET next_us = 0")
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


def test_what_a_lost_key_had_encrypted_is_given_up_on_a_persons_word(rig):
    begin(rig, **LATER)
    rig.receiver.control(REFUSED)
    poison(rig, 500)
    feed(rig, is_parked(rig, 1))
    # A key that is missing here is not lost while somebody works with it.
    key = rig.walpost.data / "master.key"
    text = key.read_text()
    key.unlink()
    assert "is missing" in give(rig, "dead-letters", "discard", "--unreadable", code=1)
    rig.walpost.kill()
    assert "is missing" in refuses_to_run(rig)
    assert give(rig, "dead-letters", "discard", "--unreadable") == "1 record discarded that could not be read\n"
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    assert key.read_text() != text
    assert "with no other option" in give(rig, "dead-letters", "discard", "--unreadable", "--all", code=2)
    assert "with no other option" in give(rig, "dead-letters", "list", "--unreadable", code=2)


def test_a_record_that_was_changed_on_the_disk_is_told_and_nothing_else_suffers(rig):
    begin(rig, **LATER)
    rig.receiver.control(REFUSED)
    for key in (500, 501):
        poison(rig, key)
    feed(rig, is_parked(rig, 2))
    for key in (500, 501):
        rig.db.sql("UPDATE t SET v = 'good' WHERE id = %s", key)
    stored = wait_state(rig, 4, 0)
    bad, other = [r["id"] for r in stored.parked() if "poison" in r["fields"]["v"]]
    rig.walpost.stop()
    stored.run("UPDATE parked SET record = CAST(substr(record, 1, 40)"
               " || x'00' || substr(record, 42) AS BLOB) WHERE id = ?", bad)
    stored.run("UPDATE parked SET next_us = 0")
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    wait_for("the others are delivered, and it is a dead letter", lambda: (
        rig.walpost.metric("walpost_parked_records") == 0
        and rig.walpost.metric("walpost_dead_letters") == 1), 120, tail=rig.tail)
    accepted = set(rig.receiver.poll().records)
    assert other in accepted and bad not in accepted
    (dead,) = lines(rig)
    assert dead["id"] == bad and dead["key"] == {"id": 500} and dead["reason"] == (
        "the stored record cannot be read: it was changed")
    assert "it was changed" in give(rig, "dead-letters", "show", bad, code=1)
    assert [e["id"] for e in rig.walpost.events("record_unreadable")] == [bad]
    # Replayed it cannot be read either, and the sync goes on.
    assert give(rig, "dead-letters", "replay", "--all") == "1 record to be sent again\n"
    wait_for("it is a dead letter again", lambda: len(rig.walpost.events("record_unreadable")) == 2
             and [d["state"] for d in lines(rig)] == ["dead"], tail=rig.tail)
    assert give(rig, "dead-letters", "discard", "--unreadable") == "1 record discarded that could not be read\n"
    assert lines(rig) == []
    rig.db.sql("UPDATE t SET v = 'after' WHERE id = 500")
    rig.wait_arrived(checker.expected_count(rig.db.history()) - 1)
    report = checker.judge(rig.receiver.poll(), rig.db.history())
    assert {f.kind for f in report.findings} == {"missing"} and len(report.findings) == 1, report
