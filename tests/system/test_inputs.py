"""What people type and what lies about: refused with a reason, never a crash, never something else than was meant."""

import sqlite3

import pytest
from walpost import Walpost, merge, source, sync, webhook


class Nowhere:
    """A database that does not answer."""

    name = "nowhere"

    class server:
        port = 1


@pytest.fixture
def walpost(folder):
    """A file whose source does not answer; nothing runs."""
    walpost = Walpost(folder / "walpost", {
        "connections": {"nowhere": source(Nowhere), "hook": webhook("http://127.0.0.1:9/")},
        "bulk_syncs": {"main": sync("nowhere", "hook")}})
    yield walpost
    walpost.end()


def says(walpost, *args, code=2):
    """What a command prints that ends with this code."""
    done = walpost.command(*args)
    assert done.returncode == code, (args, done)
    return done.stdout + done.stderr


@pytest.mark.parametrize("url", ["http://[::1 /", "ftp://h/", "", "http://" + "h" * 3000, "http://{table"])
def test_a_destination_that_is_wrong_is_told_with_its_line(walpost, url):
    walpost.write(merge(walpost.config, {"connections": {"hook": {"configuration": {"url": url}}}}))
    assert "connections.hook.configuration.url" in says(walpost, "check", "--config-only")


def ran_once(walpost):
    """As after a start whose source never answered."""
    walpost.start()
    assert walpost.stop() == 0
    return walpost


# --- command lines -------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["{", "", "{}", "[1]", "1", '{"id": }', '{"id": 1} x'])
def test_a_key_that_no_record_can_have_is_refused(walpost, key):
    ran_once(walpost)
    assert "is no key of a record" in says(walpost, "dead-letters", "list", "--key", key)
    assert "is no key of a record" in says(walpost, "dead-letters", "discard", "--key", key)


def test_an_empty_name_never_stands_for_everything(walpost):
    ran_once(walpost)
    for args in (("dead-letters", "discard", "--table", ""), ("dead-letters", "replay", "--table", ""),
                 ("dead-letters", "list", "--table", "orders"), ("resync", "main", ""),
                 ("resync", "main", "orders"), ("resync", "main", "a." + "b" * 130)):
        assert "is no table's name; write schema.table" in says(walpost, *args), args
    for args in (("dead-letters", "discard", "--sync", ""), ("pause", "")):
        assert "has no sync named" in says(walpost, *args), args
    assert "is no id" in says(walpost, "dead-letters", "discard", "--id", "")
    assert "is no time" in says(walpost, "dead-letters", "discard", "--since", "")
    assert "is no table's name" in says(walpost, "tail", "nowhere", "--schema", "")


@pytest.mark.parametrize("args", [
    ("run", "--json"), ("run", "--all"), ("pause", "main", "--sync", "main"), ("check", "--key", "1"),
    ("resync", "main", "--table", "public.t"), ("dead-letters", "list", "--gap"), ("status", "--since", "2h")])
def test_an_option_that_a_command_does_not_take_is_refused(walpost, args):
    assert f"walpost: {args[0]} takes no --" in says(walpost, *args)


def test_nothing_behind_version_and_config_is_left_out_of_account(walpost):
    for command in ("version", "config"):
        assert "one argument too many" in says(walpost, command)  # which adds -c FILE


# --- data_dir ------------------------------------------------------------------------------


def test_a_data_dir_that_is_a_file(walpost):
    walpost.data.write_text("not a folder")
    for args in (("run",), ("dead-letters", "list"), ("pause", "main"), ("check",)):
        text = says(walpost, *args, code=1)
        assert f"data_dir {walpost.data} is not a folder" in text and "set data_dir to a folder" in text, args
    assert walpost.data.read_text() == "not a folder"


def test_an_empty_state_is_as_none(walpost):
    walpost.data.mkdir()
    state = walpost.data / "state.db"
    state.touch()
    assert "there is no state" in says(walpost, "dead-letters", "list", code=1)
    assert state.stat().st_size == 0 and list(walpost.data.iterdir()) == [state]
    ran_once(walpost)
    assert says(walpost, "dead-letters", "list", code=0)


def test_a_state_that_is_no_database(walpost):
    walpost.data.mkdir()
    (walpost.data / "state.db").write_bytes(b"no database" * 1000)
    for args in (("run",), ("dead-letters", "list"), ("pause", "main")):
        text = says(walpost, *args, code=1)
        assert "file is not a database" in text and "from a backup" in text, args
    assert (walpost.data / "state.db").read_bytes() == b"no database" * 1000


def test_a_state_of_a_newer_walpost(walpost):
    ran_once(walpost)
    with sqlite3.connect(walpost.data / "state.db") as state:
        state.execute("INSERT INTO migration VALUES (9999, 0)")
    for args in (("run",), ("dead-letters", "list"), ("pause", "main")):
        text = says(walpost, *args, code=1)
        assert "newer walpost" in text and "9999" in text and "run the newer walpost" in text, args
