"""What people type and what lies about: refused with a reason, never a crash, never something else than was meant."""

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
