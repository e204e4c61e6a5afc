"""Endpoints and servers that go away, refuse, hang and come back: nothing is lost, nobody else waits."""

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from load import Writers
from machine import stays, wait_for
from postgres import PASSWORD

CALM = 2.0  # seconds for which something has to hold


def table_with_sync(rig, **delivery):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(**delivery)


def insert(rig, first, n):
    rig.db.sql(f"INSERT INTO t SELECT g, 'x' FROM generate_series({first}, {first + n - 1}) g")


def test_F31_a_receiver_that_is_restarted(rig, seed):
    Writers.tables(rig.db)
    rig.start(concurrency=8, batch_size=10)
    with Writers(rig.db, seed, threads=2):
        for _ in range(4):
            time.sleep(0.5)
            rig.receiver.kill()
            time.sleep(0.5)
            rig.receiver.start()
    rig.assert_whole()


@pytest.mark.versions
def test_F01_a_server_that_is_restarted(own_server, make_rig, seed):
    """fast and immediate, under load; walpost reconnects by itself."""
    server = own_server()
    rig = make_rig(server.database())
    Writers.tables(rig.db)
    rig.start(concurrency=8, batch_size=10)
    with Writers(rig.db, seed, threads=2):
        for mode in ("fast", "immediate", "fast", "immediate"):
            time.sleep(1)
            server.stop(mode)  # which walpost does not hold up
            server.start()
            rig.walpost.wait_streaming(rig.db)
    rig.assert_whole()
    assert rig.walpost.process.is_running


def test_F11_a_server_that_is_not_there_yet_and_the_program_starts(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    table_with_sync(rig)
    insert(rig, 0, 10)
    rig.assert_whole()
    rig.walpost.kill()
    server.stop("fast")
    rig.walpost.spawn()
    rig.walpost.wait_ready()
    stays("walpost waits for its server", lambda: rig.walpost.process.is_running, CALM)
    server.start()
    rig.walpost.wait_streaming(rig.db)
    insert(rig, 100, 10)
    rig.assert_whole()


def test_F03_a_backlogged_reader_does_not_hold_up_a_fast_shutdown(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    rig.add_receiver().control({"action": "hang"})
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.start(change={"buffer": {"max_bytes": "16MiB"}})
    rig.db.sql("INSERT INTO t SELECT g, (SELECT string_agg(md5(g || ' ' || i), '') FROM"
               " generate_series(1, 64) i) FROM generate_series(1, 12000) g")
    wait_for("the budget is full", lambda: rig.walpost.disk_bytes() > 12 << 20,
             tail=rig.walpost.tail)
    server.stop("fast")  # the server waits for a reader that does not take everything
    server.start()
    rig.receiver.behave()
    rig.assert_whole(seconds=240)


def test_a_dead_endpoint_holds_no_wal_and_no_memory(rig, note):
    """200,000 rows are written without an endpoint: the slot moves, memory is flat."""
    rig.add_receiver(start=False)
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.start(concurrency=4, batch_size=500)
    memory = []
    for i in range(20):
        insert(rig, i * 10000, 10000)
        wait_for("they are captured", lambda n=(i + 1) * 10000: rig.walpost.metric(
            "walpost_captured_records_total") >= n, tail=rig.walpost.tail)
        memory.append(rig.walpost.memory_kib())
    end = rig.db.wal_end()
    wait_for("the slot is confirmed up to the end", lambda: rig.db.confirmed() >= end,
             tail=rig.walpost.tail)
    note(f"VmRSS in KiB: {memory}, peak {rig.walpost.memory_kib('VmHWM')}")
    assert rig.walpost.memory_kib("VmHWM") < 96 * 1024
    assert memory[-1] - memory[4] < 16 * 1024, memory
    rig.receiver.start()
    report = rig.assert_whole()
    assert report.expected == 200000


def endpoint_trouble(rig, seconds, *rules):
    """The rules to everything for so long; then everything is delivered and the sync runs."""
    table_with_sync(rig, concurrency=4, batch_size=10)
    insert(rig, 0, 100)
    rig.assert_whole()
    rig.receiver.control(*rules)
    begun = time.monotonic()
    first = 1000
    while time.monotonic() - begun < seconds:
        insert(rig, first, 10)
        rig.db.sql("UPDATE t SET v = 'y' WHERE id % 7 = 0")
        first += 10
        time.sleep(0.2)
    assert rig.walpost.process.is_running
    rig.receiver.behave()
    return rig.assert_whole()


def test_404_to_everything_is_endpoint_trouble(rig):
    endpoint_trouble(rig, 12, {"status": 404, "action": "answer"})


def test_a_redirect_is_not_followed_and_is_endpoint_trouble(rig):
    rig.add_receiver("hook")
    other = rig.add_receiver("other")
    endpoint_trouble(rig, 4, {"status": 307, "location": other.url, "action": "answer"})
    assert other.stats()["requests"] == 0


def test_connections_cut_in_the_middle_of_an_answer(rig):
    endpoint_trouble(rig, 2, {"every": 3, "action": "half"}, {"every": 4, "action": "reset"},
                     {"every": 5, "action": "close"})


def test_an_endpoint_that_never_answers_is_left_after_the_timeout(rig):
    table_with_sync(rig, timeout="1s", concurrency=2)
    rig.receiver.control({"action": "hang", "count": 2})
    insert(rig, 0, 20)
    rig.assert_whole()
    assert rig.receiver.stats()["requests"] > 2


def test_an_endless_answer_is_cut(rig):
    table_with_sync(rig, timeout="5s")
    before = rig.walpost.memory_kib()
    rig.receiver.control({"action": "huge", "count": 3})
    insert(rig, 0, 20)
    rig.assert_whole()
    assert rig.walpost.memory_kib("VmHWM") - before < 24 * 1024


def test_retry_after_in_seconds_is_obeyed(rig):
    table_with_sync(rig, concurrency=1)
    rig.receiver.control({"status": 429, "retry_after": "3", "count": 1, "action": "answer"})
    insert(rig, 0, 1)
    rig.assert_whole()
    first, second = [r for r in rig.receiver.requests() if r.body][:2]
    assert first.status == 429 and second.status == 200
    assert 2.9 < (second.wall_us - first.wall_us) / 1e6


def test_retry_after_as_a_date_is_obeyed(rig):
    table_with_sync(rig, concurrency=1)
    for key, wait in enumerate((4, 30)):
        at, before = int(time.time()) + wait, len(rig.receiver.requests())
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))
        rig.receiver.control({"status": 503, "retry_after": date, "count": 1, "action": "answer"})
        insert(rig, key, 1)
        rig.assert_whole()
        first, second = [r.wall_us / 1e6 for r in rig.receiver.requests()[before:] if r.body][:2]
        if first < at - 2:
            break  # else it came too late to say something
    assert first < at - 2 and second > at - 1


def two_syncs(rig, bad_rule, **delivery):
    rig.db.table("t")
    rig.db.publish("t")
    bad, good = rig.add_receiver("bad"), rig.add_receiver("good")
    bad.control(bad_rule)
    rig.start(syncs={"poisoned": rig.sync("bad", **delivery), "healthy": rig.sync("good", **delivery)})
    return bad, good


def test_F33_a_poison_record_stops_nothing_but_its_key(rig):
    bad, good = two_syncs(rig, {"match": '"poison"', "status": 422, "action": "answer"},
                          batch_size=10, concurrency=4)
    insert(rig, 0, 100)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    insert(rig, 1000, 100)
    rig.assert_whole(good)
    rig.wait_arrived(200, bad)
    assert all(r["key"] != {"id": 500} for r in bad.records())
    bad.behave()  # tried again after 5 s
    rig.assert_whole(bad)


def test_an_endpoint_that_is_gone_stops_its_sync(rig):
    """410: the receiver asks for no more."""
    bad, good = two_syncs(rig, {"status": 410, "action": "answer"})
    insert(rig, 0, 10)
    rig.assert_whole(good)
    wait_for("the sync says that it stopped", lambda: any(
        e.get("level") == "error" and e.get("sync") == "poisoned" for e in rig.walpost.events()),
        tail=rig.walpost.tail)
    insert(rig, 100, 10)
    rig.assert_whole(good)
    rig.walpost.kill()
    asked = bad.stats()["requests"]
    bad.behave()
    rig.walpost.start(databases=[rig.db])  # it is disabled, also for the next process
    wait_for("the sync says that it is disabled", lambda: "disabled" in
             rig.walpost.get("/status.txt")[1], tail=rig.walpost.tail)
    assert bad.stats()["requests"] == asked
    rig.walpost.stop()
    assert rig.walpost.command("resume", "poisoned").returncode == 0
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole(bad)


def test_a_stopped_walsender_is_waited_for(rig):
    """SIGSTOP on PostgreSQL's side for a while: the link is quiet, nothing is lost."""
    table_with_sync(rig)
    insert(rig, 0, 10)
    rig.assert_whole()
    pid = rig.db.walsender_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        insert(rig, 100, 100)
        time.sleep(4)
    finally:
        os.kill(pid, signal.SIGCONT)
    rig.assert_whole()


@pytest.mark.versions
def test_F07_a_terminated_walsender_is_replaced(rig):
    table_with_sync(rig)
    for i in range(3):
        insert(rig, i * 100, 50)
        pid = rig.db.walsender_pid()
        rig.db.server.sql("SELECT pg_terminate_backend(%s)", pid)
        insert(rig, i * 100 + 50, 50)
        wait_for("another walsender", lambda: rig.db.walsender_pid() not in (None, pid),
            tail=rig.walpost.tail)
    rig.assert_whole()


def test_a_slow_endpoint_does_not_break_the_replication_link(rig):
    """Longer than wal_sender_timeout (10 s) without a single accepted record."""
    table_with_sync(rig, concurrency=1, timeout="30s")
    rig.receiver.control({"delay_ms": 13000, "count": 1, "action": "answer"})
    insert(rig, 0, 10)
    pid = rig.db.walsender_pid()
    time.sleep(13.5)
    assert rig.db.walsender_pid() == pid
    rig.assert_whole()


def test_a_slow_stream_before_a_dead_endpoint_stays_within_the_window(rig):
    """Transactions that come one at a time are read one at a time, each to the buffer's end."""
    rig.db.sql("CREATE TABLE t (id serial PRIMARY KEY, v text)")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start()
    for _ in range(150):
        rig.db.sql("INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 200)")
        time.sleep(0.02)
    wait_for("all is captured", lambda: rig.walpost.metric(
        "walpost_captured_records_total") >= 30000, tail=rig.walpost.tail)
    # 8 MiB of JSON, and what one read may bring beyond it.
    assert rig.walpost.metric("walpost_window_records") < 15000
    rig.receiver.start()
    rig.wait_arrived(30000)


class Middleman:
    """Passes bytes between walpost and the server until `cut` says that the link breaks."""

    def __init__(self, server, cut):
        self.server, self.cut = server, cut
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._pass, args=(ours,), daemon=True).start()

    def _pass(self, ours):
        theirs = socket.create_connection(("127.0.0.1", self.server.port))

        def back():
            try:
                while data := theirs.recv(65536):
                    ours.sendall(data)
            except OSError:
                pass
        threading.Thread(target=back, daemon=True).start()
        try:
            while data := ours.recv(65536):
                theirs.sendall(data)
                if self.cut(data):
                    break
        except OSError:
            pass
        for end in (ours, theirs):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


def test_a_link_that_breaks_at_once_is_not_opened_in_a_storm(rig):
    def cut(data):
        if b"START_REPLICATION" not in data:
            return False
        time.sleep(0.05)
        return True
    rig.db.table("t")
    rig.db.publish("t")
    middle = Middleman(rig.db.server, cut)
    walpost = rig.prepare(connection={"port": middle.port})
    walpost.spawn()
    wait_for("the first link has broken", lambda: walpost.events("capture_interrupted"),
             tail=walpost.tail)
    begun = len(walpost.events("capture_started"))
    time.sleep(10)
    # 0.1 s, doubling: seven attempts reach ten seconds of full waits; jitter halves them.
    assert len(walpost.events("capture_started")) - begun < 20
    middle.close()
    assert walpost.stop() == 0


def test_sigterm_ends_soon_while_the_source_is_silent(rig):
    listener = socket.create_server(("127.0.0.1", 0))
    rig.db.table("t")
    walpost = rig.prepare(connection={"port": listener.getsockname()[1]})
    walpost.spawn()
    accepted, _ = listener.accept()
    time.sleep(0.5)
    assert walpost.stop() == 0
    assert not walpost.events("capture_interrupted"), "it waited for the source until it gave it up"
    accepted.close()
    listener.close()


def test_a_data_dir_that_is_removed_while_in_use_ends_the_program(rig):
    table_with_sync(rig)
    walpost = rig.walpost

    def removed():
        shutil.rmtree(walpost.data, ignore_errors=True)  # where something new may come meanwhile
        return not walpost.data.exists()
    wait_for("the folder is gone", removed)
    assert walpost.process.wait() == 1
    assert walpost.events("data_dir_is_gone")
    walpost.start(databases=[rig.db])
    assert walpost.events("slot_without_state"), "what the old one held is not delivered: that is told"


def test_a_password_that_is_changed_there_first(own_server, make_rig):
    rig = make_rig(own_server().database())
    table_with_sync(rig)
    rig.db.server.sql("ALTER ROLE walpost PASSWORD 'another'")
    rig.db.server.sql("SELECT pg_terminate_backend(%s)", rig.db.walsender_pid())
    wait_for("walpost is refused", lambda: "auth" in rig.walpost.get("/status.txt")[1],
             tail=rig.walpost.tail)
    rig.db.server.sql(f"ALTER ROLE walpost PASSWORD '{PASSWORD}'")
    insert(rig, 0, 10)
    rig.assert_whole()


def test_sighup_ends_as_sigterm_does(rig):
    table_with_sync(rig)
    rig.walpost.process.signal(signal.SIGHUP)
    assert rig.walpost.process.wait() == 0


def test_closed_standard_streams_do_not_become_our_files(rig):
    rig.db.table("t")
    rig.db.publish("t")
    walpost = rig.prepare()
    process = subprocess.Popen(["/bin/sh", "-c", f"exec {walpost.binary} run -c {walpost.file} >&- 2>&-"])
    try:
        wait_for("it is ready", lambda: walpost.get("/readyz")[0] == 200)
        lock = (walpost.data / "lock").read_text()
        assert lock == f"{process.pid}\n"
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert (walpost.data / "lock").read_text() == lock


def test_a_log_that_nobody_reads_stops_nothing(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.add_receiver()
    walpost = rig.prepare(change={"log": {"level": "debug"}})
    reading, writing = os.pipe()
    while select.select([], [writing], [], 0)[1]:
        os.write(writing, b"x" * 4096)
    process = subprocess.Popen([walpost.binary, "run", "-c", walpost.file], stderr=writing)
    try:
        wait_for("the slot is read", lambda: any(
            active and lsn is not None for _, active, lsn in rig.db.slots()))
        rig.db.sql("INSERT INTO t VALUES (1, 'x')")
        rig.wait_arrived(1)
    finally:
        process.terminate()
        assert process.wait(60) == 0
        os.close(reading)
        os.close(writing)
