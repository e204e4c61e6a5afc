"""What `walpost check` says about data_dir: nothing of it is changed, and a walpost that runs goes on."""

import json
import shutil
import sqlite3

import pytest

pytestmark = pytest.mark.sanitized


def files(walpost):
    """{test: [its findings]} of data_dir."""
    out = {}
    done = walpost.command("check", "--json")
    for test in json.loads(done.stdout)["tests"]:
        if test["subject"] == "buffer":
            out.setdefault(test["test"], []).append(test)
    return out


def only(found, name, result, *words):
    assert len(found[name]) == 1, found
    test = found[name][0]
    assert test["result"] == result, test
    for word in words:
        assert word in test["text"] + " " + test["remedy"], test
    return test


def change(path, *statements):
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


@pytest.fixture
def stopped(rig):
    """A walpost that has read and delivered something, and has ended."""
    rig.db.table("t")
    rig.db.publish("t")
    walpost = rig.start()
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    walpost.stop()
    return rig


def kept(walpost):
    return {p.name: p.read_bytes() for p in walpost.data.iterdir()
            if p.name != "lock" and not p.name.endswith(("-shm", "-wal"))}


def test_before_the_first_start_nothing_is_left_behind(rig):
    rig.db.table("t")
    found = files(rig.prepare())
    only(found, "state", "ok", "first start")
    only(found, "buffer", "ok", "none yet")
    only(found, "data_dir", "ok", "MiB free")
    assert not rig.walpost.data.exists()


def test_a_walpost_that_runs_is_named_and_goes_on(rig):
    rig.db.table("t")
    rig.db.publish("t")
    walpost = rig.start()
    rig.db.sql("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 2000) g")
    rig.wait_arrived(1)
    for _ in range(3):
        found = files(walpost)
        only(found, "data_dir", "ok", f"process {walpost.process.pid}")
        only(found, "state", "ok", "of this version")
        only(found, "buffer", "ok", "generation 1")
    rig.db.sql("INSERT INTO t VALUES (2001, 'after')")
    rig.assert_whole()
    assert not walpost.events("buffer_cannot_write") and not walpost.events("buffer_failed")


def test_what_was_read_is_looked_at_and_left_alone(stopped):
    walpost = stopped.walpost
    before = kept(walpost)
    found = files(walpost)
    only(found, "state", "ok")
    only(found, "buffer", "ok", "read up to", "generation 1")
    only(found, "data_dir", "ok", "MiB free")
    assert kept(walpost) == before
    walpost.start(databases=[stopped.db])
    stopped.db.sql("INSERT INTO t VALUES (2, 'b')")
    stopped.assert_whole()


def test_files_that_do_not_belong_together_fail(stopped):
    walpost = stopped.walpost
    state, buffer = walpost.data / "state.db", walpost.data / f"buffer-walpost_{stopped.db.name}.db"
    whole = walpost.folder / "whole"
    shutil.copytree(walpost.data, whole)

    def restore():
        shutil.rmtree(walpost.data)
        shutil.copytree(whole, walpost.data)
    state.unlink()
    found = files(walpost)
    only(found, "buffer", "failed", "no longer there", "restore state.db")
    restore()
    buffer.unlink()
    found = files(walpost)
    only(found, "buffer", "failed", "its buffer is no longer there")
    restore()
    change(state, "UPDATE slot SET generation = 0")
    assert files(walpost)["buffer"][0]["result"] == "failed"
    restore()
    change(buffer, "UPDATE sequence SET epoch = epoch + (1 << 24)")
    only(files(walpost), "buffer", "failed", "state.db is older than the buffer (generation 1, the buffer has 2)")
    restore()
    change(buffer, "PRAGMA user_version = 99")
    only(files(walpost), "buffer", "failed", "format 99")
    restore()
    change(buffer, "PRAGMA application_id = 7")
    only(files(walpost), "buffer", "failed", "is not a buffer of walpost")
    restore()
    change(state, "INSERT INTO migration VALUES (999, 0)")
    only(files(walpost), "state", "failed", "newer walpost")
    restore()
    change(state, "DELETE FROM migration WHERE version > 1")
    only(files(walpost), "state", "warning", "older walpost", "brings it up to date")
    restore()
    state.write_bytes(b"nonsense" * 4096)
    assert files(walpost)["state"][0]["result"] == "failed"
    restore()
    only(files(walpost), "state", "ok")


def test_a_disk_that_is_too_small_is_told(rig):
    rig.db.table("t")
    only(files(rig.prepare(change={"buffer": {"max_bytes": "64TiB"}})), "data_dir", "warning", "buffer.max_bytes")
