"""What breaks between walpost and its server while both go on living."""

import select
import shutil
import socket
import threading

import pytest
from machine import PORTS, wait_for
from postgres import PASSWORD
from test_slot import gap, promote


def delivered_one(rig, **connection):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(connection=connection)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()


class Relay:
    """Passes connections on to a server, until it swallows what they carry without closing them."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.port = PORTS.take()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.pairs = []  # [(client, server)] of connections that are passed on
        self.frozen = []
        self.wake, self.waker = socket.socketpair()
        self.is_ended = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.is_ended:
            pairs = list(self.pairs)
            peers = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
            for ready in select.select([self.listener, self.wake, *peers], [], [])[0]:
                if ready is self.wake:
                    self.wake.recv(1)
                elif ready is self.listener:
                    client = self.listener.accept()[0]
                    self.pairs.append((client, socket.create_connection(self.target)))
                elif any(ready in pair for pair in self.pairs):
                    self._pass(ready, peers[ready])

    def _pass(self, source, to):
        try:
            data = source.recv(65536)
            to.sendall(data)
        except OSError:
            data = b""
        if not data:
            self.pairs.remove(next(pair for pair in self.pairs if source in pair))
            source.close()
            to.close()

    def freeze(self):
        """From now on nothing comes through what is open; a new connection works."""
        self.frozen += self.pairs
        self.pairs = []
        self.waker.send(b"x")

    def end(self):
        self.is_ended = True
        self.waker.send(b"x")
        self.thread.join(60)
        for pair in self.pairs + self.frozen:
            for end in pair:
                end.close()
        for end in (self.listener, self.wake, self.waker):
            end.close()


@pytest.mark.slow
def test_F04_a_process_that_stood_still_longer_than_the_server_waits(rig):
    delivered_one(rig)
    walpost = rig.walpost
    walpost.sigstop()
    wait_for("the server gives the reader up", lambda: not any(active for _, active, _ in rig.db.slots()), 60)
    rig.db.sql("INSERT INTO t SELECT g, 'meanwhile' FROM generate_series(2, 100) g")
    walpost.sigcont()
    rig.assert_whole()
    assert len(rig.receiver.records()) == 100, "nothing came twice"
    assert walpost.events("capture_interrupted")
    assert not walpost.events("capture_failed")


@pytest.mark.slow
def test_F05_a_network_that_swallows_everything(rig):
    """Neither side hears of it: walpost waits 15 s, the server 10, then a new connection goes on."""
    relay = Relay(rig.db.server.port)
    try:
        delivered_one(rig, port=relay.port)
        relay.freeze()
        rig.db.sql("INSERT INTO t SELECT g, 'unheard' FROM generate_series(2, 100) g")
        rig.assert_whole(seconds=120)
        assert len(rig.receiver.records()) == 100, "nothing came twice"
        interrupted = rig.walpost.events("capture_interrupted")
        assert interrupted and interrupted[0]["code"] == "timeout", rig.tail()
    finally:
        rig.end()
        relay.end()


def test_F09_a_role_that_may_no_longer_replicate(own_server, make_rig):
    """It could once, so it is waited for; what was read goes on being delivered."""
    rig = make_rig(own_server().database())
    delivered_one(rig)
    server, walpost = rig.db.server, rig.walpost
    server.sql("ALTER ROLE walpost NOREPLICATION")
    server.sql("SELECT pg_terminate_backend(%s)", rig.db.walsender_pid())
    wait_for("the refusal is told", lambda: any(
        e["code"] == "auth" and "ALTER ROLE" in e["remedy"] for e in walpost.events("capture_interrupted")),
        60, tail=walpost.tail)
    rig.db.sql("INSERT INTO t VALUES (2, 'meanwhile')")
    server.sql("ALTER ROLE walpost REPLICATION")
    rig.assert_whole(seconds=120)
    assert not walpost.events("capture_failed")
    assert PASSWORD not in walpost.log_text()


def test_F27_a_standby_takes_over_that_never_had_the_slot(own_server, make_rig):
    """Before 17 a slot stays with the server it was made on: a gap, and never a new slot in its place."""
    rig = make_rig(own_server().database())
    delivered_one(rig)
    walpost, server = rig.walpost, rig.db.server
    walpost.stop()
    rig.db.connection.close()
    server.stop()
    for slot in (server.data / "pg_replslot").iterdir():
        shutil.rmtree(slot)
    promote(server)
    rig.db.sql("INSERT INTO t VALUES (2, 'on the new primary')")
    walpost.spawn()
    event = gap(rig)
    assert "slot" in event["msg"] and event["remedy"], event
    assert rig.db.slots() == [], "no slot that begins behind the gap"


def test_F52_what_the_server_spills_is_counted_and_told(rig):
    """Of what it writes to its own disk only its statistics tell, from 14 on."""
    rig.db.server.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET logical_decoding_work_mem = '64kB'")
    delivered_one(rig)
    assert rig.walpost.metric("walpost_slot_spilled_transactions") == 0
    rig.db.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(2, 5000) g")
    rig.assert_whole()
    if rig.db.connection.info.server_version >= 140000:
        wait_for("it is counted", lambda: rig.walpost.metric("walpost_slot_spilled_transactions") > 0, 60,
                 tail=rig.walpost.tail)
        assert rig.walpost.metric("walpost_slot_spilled_bytes") > 64 << 10
        wait_for("it is told", lambda: rig.walpost.events("server_spills"), 60, tail=rig.walpost.tail)
        assert "logical_decoding_work_mem" in rig.walpost.events("server_spills")[0]["remedy"]
