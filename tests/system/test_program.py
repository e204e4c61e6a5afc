"""The program as a person or a supervisor meets it: commands, file, pages, signals, secrets."""

import fcntl
import http.server
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import termios
import threading
import time

import pytest
from load import Writers
from machine import build_dir, stays, wait_for
from postgres import PASSWORD
from walpost import Walpost, merge, source, sync, webhook

# --- the file ------------------------------------------------------------------------------

GOOD = """\
data_dir: ./data
listen: 127.0.0.1:5100
connections:
  shop:
    type: postgresql
    configuration: {hostname: db, port: 5432, database: shop, username: walpost, password: "secret-one",
                    ssl: false, change_detection: true, publication: walpost}
  hook:
    type: webhook
    configuration:
      url: https://api.example.com/hooks/orders
      auth_method: none
bulk_syncs:
  orders:
    source_connection: shop
    destination_connection: hook
    mode: replicate
    default_schedule: {frequency: continuous}
    schemas:
      - public.orders
    destination_configuration:
      batch_size: 100
"""


def check_text(folder, text, environment=None):
    file = folder / "walpost.yaml"
    file.write_text(text)
    return subprocess.run([build_dir() / "walpost", "check", "--config-only", "-c", file],
                          capture_output=True, text=True, timeout=60,
                          env=dict(os.environ, **(environment or {})))


def test_a_good_file_is_accepted_and_nothing_is_opened(folder):
    done = check_text(folder, GOOD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (folder / "data").exists()


MISTAKES = {
    "an unknown key": ("data_dir: ./data", "data_dirs: ./data", 1, ["data_dirs"]),
    "an unknown key inside": ("ssl: false", "sssl: false", 7, ["sssl"]),
    "a key cut short": ("hostname: db", "host: db", 6, ['did you mean "hostname"?']),
    "a key of another program": ("port: 5432", "sort: 1", 6, ['did you mean "port"?']),
    "a port out of range": ("port: 5432", "port: 99999", 6, ["port", "99999", "65535"]),
    "a port that is no number": ("port: 5432", "port: lots", 6, ["port", "lots"]),
    "a type nobody knows": ("type: webhook", "type: pigeon", 9, ["pigeon"]),
    "a reference to nothing": ("source_connection: shop", "source_connection: shup", 15, ["shup"]),
    "a destination that is a source": ("destination_connection: hook", "destination_connection: shop",
                                       16, ["shop"]),
    "a bad size": ("batch_size: 100", "batch_size: 0", 22, ["batch_size", "0"]),
    "a bad duration": ("batch_size: 100", "timeout: 15 parsecs", 22, ["timeout", "15 parsecs"]),
    "a bad choice": ("batch_size: 100", "order: chaos", 22, ["order", "chaos", "key"]),
    "a bad url": ("url: https://api.example.com/hooks/orders", "url: ftp://x", 11, ["url"]),
    "a bad url with a token": ("url: https://api.example.com/hooks/orders",
                               "url: htps://h/x?token=secret-one", 11, ["url", "https://"]),
    "a bad address": ("listen: 127.0.0.1:5100", "listen: everywhere", 2, ["listen", "everywhere"]),
    "a missing key": ("url: https://api.example.com/hooks/orders", "headers: []", None, ["url"]),
    "a key twice": ("data_dir: ./data", "data_dir: ./data\ndata_dir: ./other", 2, ["data_dir"]),
    "a budget too small": ("data_dir: ./data", "buffer: {max_bytes: 1KiB}", 1,
                           ["max_bytes", "1KiB", "16MiB"]),
    "a copy by too many": ("data_dir: ./data", "backfill: {connections: 99}", 1,
                           ["connections", "99", "16"]),
    "a buffer of a later version": ("data_dir: ./data", "buffer: {type: kafka}", 1, ["type", "kafka"]),
    "a confirmation of a later version": ("data_dir: ./data", "buffer: {confirm: delivered}", 1,
                                          ["confirm"]),
    "a body nobody knows": ("batch_size: 100", "body: xml", 22, ["body", "xml", "cloudevents"]),
    "several records without a wrap": ("batch_size: 100", "body: records\n      wrap: false", 21,
                                       ["batch_size", "wrap: false", "batch_size: 1"]),
    "an envelope without a wrap": ("batch_size: 100", "batch_size: 1\n      wrap: false", 23,
                                   ["wrap", "sync.records"]),
    "events without a wrap": ("batch_size: 100", "body: cloudevents\n      wrap: false", 23,
                              ["wrap", "cloudevents_mode: structured"]),
    "several events in binary mode": (
        "batch_size: 100", "batch_size: 2\n      body: cloudevents\n      cloudevents_mode: binary", 22,
        ["batch_size", "cloudevents_mode: binary"]),
    "a mode of another body": ("batch_size: 100", "cloudevents_mode: structured", 22,
                               ["cloudevents_mode", "body: cloudevents"]),
    "shapes of tables as change events": (
        "batch_size: 100", "body: debezium\n      operations: [insert, schema]", 23,
        ["operations", "debezium", "schema"]),
    "a compression nobody knows": ("batch_size: 100", "compression: brotli", 22, ["compression", "gzip"]),
    "a hash without its key": ("- public.orders",
                               "- {id: public.orders, fields: [id, {id: v, obfuscate: hash}]}", 20,
                               ["fields", "obfuscation_key"]),
    "an environment variable that is not set": ('"secret-one"', '"${WALPOST_NOT_SET}"', 6,
                                                ["WALPOST_NOT_SET"]),
    "a method without its section": ("auth_method: none", "auth_method: basic", 12,
                                     ["basic", "username"]),
    "a secret that is empty": ("auth_method: none", 'auth_method: polytomic_secret\n      secret: ""',
                               12, ["polytomic_secret", "secret"]),
    "a section that no method uses": ("auth_method: none", "header: {name: X-Key, value: secret-one}",
                                      12, ["header is given", "auth_method: header"]),
    "a header that cannot be sent": ("auth_method: none", "headers: [{name: Host, value: x}]", None,
                                     ["headers", "Host"]),
    "a secret that signs nothing": ("auth_method: none", "signing_secrets: [secret-one]", 12,
                                    ["signing_secrets[0]", "walpost webhook-secret"]),
    "a certificate without tls": ("ssl: false", "ssl: false, ca_cert: /etc/ca.pem", 7,
                                  ["ca_cert", "ssl: true"]),
    "a client's certificate without tls": ("ssl: false", "ssl: false, client_certificate: /etc/c.pem",
                                           7, ["client_certificate", "ssl: true"]),
    "no yaml at all": ("data_dir: ./data", "data_dir: [", None, []),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_file_is_named_with_its_line(folder, name):
    old, new, line, words = MISTAKES[name]
    assert GOOD.count(old) == 1
    done = check_text(folder, GOOD.replace(old, new))
    text = done.stdout + done.stderr
    print(text)
    assert done.returncode == 2, text
    if line:
        assert f"walpost.yaml:{line}:" in text, text
    else:
        assert re.search(r"walpost\.yaml:\d+:", text), text
    for word in words:
        assert word in text, text
    assert "secret-one" not in text


def test_all_mistakes_are_reported_at_once(folder):
    done = check_text(folder, GOOD.replace("port: 5432", "port: 99999")
                      .replace("batch_size: 100", "batch_size: none").replace("mode:", "moode:"))
    lines = re.findall(r"walpost\.yaml:(\d+):", done.stdout + done.stderr)
    assert {"6", "17", "22"} <= set(lines), done.stdout + done.stderr


@pytest.mark.parametrize("syncs,line", [("", 1), ("bulk_syncs: {}\n", 13), ("bulk_syncs:\n", 1)])
def test_a_file_without_syncs_is_refused(folder, syncs, line):
    """Nothing would be read or delivered: `run` would look well and idle for ever."""
    text = GOOD[:GOOD.index("bulk_syncs:")] + syncs
    done = check_text(folder, text)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"walpost.yaml:{line}: bulk_syncs: must be set: at least one sync" in done.stderr
    assert "source_connection" in done.stderr, "it says what to write"
    done = program("run", "-c", folder / "walpost.yaml")
    assert done.returncode == 2 and "bulk_syncs" in done.stderr
    assert not (folder / "data").exists()


def test_run_refuses_a_wrong_file_before_it_opens_anything(folder):
    for old, new in (("port: 5432", "port: 99999"), ("auth_method: none", "auth_method: header")):
        (folder / "walpost.yaml").write_text(GOOD.replace(old, new))
        done = subprocess.run([build_dir() / "walpost", "run", "-c", folder / "walpost.yaml"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and not (folder / "data").exists(), done.stderr


def test_a_file_that_is_not_there(folder):
    done = subprocess.run([build_dir() / "walpost", "run", "-c", folder / "nothing.yaml"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "nothing.yaml" in done.stderr


def test_secrets_from_the_environment_and_from_files(rig):
    rig.db.table("t")
    rig.db.publish("t")
    secret = rig.folder / "token"
    secret.write_text("file-token\n")
    secret.chmod(0o600)
    rig.prepare(connection={"password": "${SHOP_PASSWORD}"},
                hook={"auth_method": "header",
                      "header": {"name": "X-Api-Key", "value_file": str(secret)}})
    rig.walpost.start(environment=dict(os.environ, SHOP_PASSWORD=PASSWORD), databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    assert rig.receiver.requests()[0].headers["x-api-key"] == "file-token"


# --- commands ------------------------------------------------------------------------------


def program(*args, seconds=60):
    return subprocess.run([build_dir() / "walpost", *args], capture_output=True, text=True,
                          timeout=seconds, stdin=subprocess.DEVNULL)


def test_version():
    done = program("version")
    assert done.returncode == 0 and re.fullmatch(r"walpost \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("args", [(), ("fly",), ("run", "-x"), ("run", "one", "two"), ("check", "-c"),
                                  ("uninstall",)])
def test_a_wrong_command_line_is_exit_code_2(args, folder):
    (folder / "walpost.yaml").write_text(GOOD)
    done = subprocess.run([build_dir() / "walpost", *args], capture_output=True, text=True,
                          timeout=60, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr


def test_config_prints_the_reference_of_every_key():
    done = program("config")
    assert done.returncode == 0
    for key in ("data_dir", "listen", "max_bytes", "on_full", "retention", "hostname", "publication",
                "url", "auth_method", "batch_size", "batch_bytes", "linger", "concurrency", "order",
                "timeout", "operations", "schemas", "replication_slot", "level", "format"):
        assert re.search(rf"\b{key}\b", done.stdout), key
    assert re.search(r"^  bulk_syncs +group +\(required\)$", done.stdout, re.MULTILINE)


@pytest.mark.versions
def test_check_of_a_prepared_source_passes(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare()
    done = rig.walpost.command("check")
    assert done.returncode == 0, done.stdout + done.stderr
    for test in ("wal_level", "role", "slot", "publication", "endpoint", "data_dir"):
        assert test in done.stdout, done.stdout
    assert rig.db.slots() == [], "it changes nothing"
    assert not rig.walpost.data.exists()
    rig.walpost.start(databases=[rig.db])
    done = rig.walpost.command("check")
    assert done.returncode == 0, "also while walpost runs: " + done.stdout + done.stderr


def test_check_names_an_endpoint_that_nobody_serves(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.prepare()
    done = rig.walpost.command("check")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 1 and str(rig.receiver.port) in failed[0], done.stdout


@pytest.mark.parametrize("status,word", [
    (200, "ok"), (204, "ok"), (400, "ok"), (405, "ok"), (501, "ok"),
    (302, "redirect"), (401, "auth_method"), (403, "auth_method"), (404, "path"), (500, "fails"),
    (503, "fails")])
def test_check_warns_of_an_endpoint_that_answers_badly(folder, status, word):
    """Nobody serves the database: that is a failure of its own."""
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_OPTIONS(self):
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/?token=secret-two")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "walpost.yaml").write_text(GOOD.replace(
            "https://api.example.com", f"http://127.0.0.1:{server.server_port}").replace(
                "hostname: db, port: 5432", "hostname: 127.0.0.1, port: 1"))
        done = program("check", "-c", folder / "walpost.yaml")
        server.shutdown()
    lines = [line for line in done.stdout.splitlines() if ": endpoint: " in line]
    assert len(lines) == 1 and str(status) in lines[0], done.stdout
    assert lines[0].startswith("ok  " if word == "ok" else "warn  "), lines
    assert word == "ok" or (word in lines[0] and "to mend it" in lines[0]), lines
    assert "secret-two" not in done.stdout + done.stderr


@pytest.mark.versions
def test_tail_prints_records_and_stores_nothing(rig):
    rig.db.table("t")
    rig.db.table("u")
    rig.db.publish("t", "u")
    rig.prepare()
    out = open(rig.folder / "tail.out", "w+b")
    with subprocess.Popen([rig.walpost.binary, "tail", rig.db.name, "-c", rig.walpost.file,
                           "--schema", "public.t"], stdout=out,
                          stderr=subprocess.PIPE) as tail:
        try:
            # What is committed once the slot has a position comes.
            wait_for("tail has its slot", lambda: rig.db.slots() and rig.db.slots()[0][2] is not None)
            rig.db.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
            rig.db.sql("INSERT INTO u VALUES (1, 'a')")
            rig.db.sql("DELETE FROM t WHERE id = 1")
            wait_for("four records", lambda: (rig.folder / "tail.out").read_text().count("\n") >= 4)
        finally:
            tail.terminate()
        assert tail.wait(60) == 0
    records = [json.loads(line) for line in (rig.folder / "tail.out").read_text().splitlines()]
    assert [(r["operation"], r["schema"]) for r in records] == [
        ("schema", "public.t"), ("insert", "public.t"), ("insert", "public.t"), ("delete", "public.t")]
    wait_for("its slot is gone", lambda: rig.db.slots() == [])
    assert not rig.walpost.data.exists()


def test_tail_ends_though_nobody_reads_what_it_prints(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare()
    with subprocess.Popen([rig.walpost.binary, "tail", rig.db.name, "-c", rig.walpost.file],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        try:
            wait_for("tail has its slot", lambda: rig.db.slots() and rig.db.slots()[0][2] is not None)
            fcntl.fcntl(tail.stdout, fcntl.F_SETPIPE_SZ, 4096)
            rig.db.sql("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 1000) g")
            waiting = struct.pack("i", 0)
            wait_for("the pipe is full", lambda: struct.unpack("i", fcntl.ioctl(
                tail.stdout, termios.FIONREAD, waiting))[0] == 4096)
        finally:
            tail.terminate()
        assert tail.wait(60) == 0


@pytest.mark.versions
def test_uninstall_drops_what_walpost_made(rig):
    rig.db.table("t")
    rig.start(tables=["public.t"])
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    done = rig.walpost.command("uninstall", rig.db.name)
    assert done.returncode == 1, "a running walpost is not robbed of its slot"
    assert rig.db.slots()
    rig.walpost.stop()
    done = rig.walpost.command("uninstall", rig.db.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rig.db.slots() == []
    assert rig.db.sql("SELECT pubname FROM pg_publication") == []


def test_uninstall_leaves_a_publication_that_others_made(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.walpost.stop()
    done = rig.walpost.command("uninstall", rig.db.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rig.db.slots() == []
    assert rig.db.value("SELECT count(*) FROM pg_publication") == 1
    assert program("uninstall", "nobody", "-c", rig.walpost.file).returncode in (1, 2)


def test_uninstall_from_another_data_dir_must_be_forced(rig):
    """Two files may name one source: only the walpost that made the slot gives it up unasked."""
    rig.db.table("t")
    rig.start(tables=["public.t"])
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.walpost.stop()
    made = rig.walpost.data
    rig.walpost.write(merge(rig.walpost.config, {"data_dir": str(rig.folder / "elsewhere")}))
    for _ in range(2):
        done = rig.walpost.command("uninstall", rig.db.name)
        assert done.returncode == 1 and rig.db.slots(), done.stdout + done.stderr
        assert "--force" in done.stderr and "elsewhere" in done.stderr, done.stderr
        assert not (rig.folder / "elsewhere").exists()
    done = rig.walpost.command("uninstall", rig.db.name, "--force")
    assert done.returncode == 0 and not rig.db.slots(), done.stdout + done.stderr
    assert not (rig.folder / "elsewhere").exists()
    assert rig.db.value("SELECT count(*) FROM pg_publication") == 1, "whose it is nobody knows"
    assert made.exists()
    done = rig.walpost.command("uninstall", rig.db.name, "--force")
    assert done.returncode == 0 and "is dropped" not in done.stdout, done.stdout + done.stderr


def test_uninstall_twice_says_that_there_is_nothing_left(rig):
    rig.db.table("t")
    rig.start(tables=["public.t"])
    rig.walpost.stop()
    done = rig.walpost.command("uninstall", rig.db.name)
    assert done.returncode == 0 and "is dropped" in done.stdout, done.stdout + done.stderr
    done = rig.walpost.command("uninstall", rig.db.name)
    assert done.returncode == 1 and "is dropped" not in done.stdout, done.stdout + done.stderr
    assert "knows nothing of a slot" in done.stderr


# --- the process ---------------------------------------------------------------------------


def test_F41_a_second_process_on_the_same_data_dir_refuses(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    config = merge(rig.walpost.config, {"listen": ""})
    config["data_dir"] = str(rig.walpost.data)
    second = Walpost(rig.folder / "second", config)
    second.write(config)
    second.spawn()
    assert second.process.wait() == 1
    assert str(rig.walpost.data) in second.log_text(), second.log_text()
    assert str(rig.walpost.process.pid) in second.log_text(), "it names who has it"
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()


def test_data_dir_is_private(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    assert rig.walpost.data.stat().st_mode & 0o777 == 0o700
    for file in rig.walpost.data.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_sigterm_ends_soon_with_everything_checkpointed(rig, seed):
    """Stopped under load and started again: not one repeat."""
    Writers.tables(rig.db)
    rig.add_receiver().control({"delay_ms": 20, "action": "answer"})
    rig.start(concurrency=8, batch_size=5)
    with Writers(rig.db, seed, threads=3):
        for _ in range(4):
            time.sleep(0.7)
            assert rig.walpost.stop(30) == 0, rig.walpost.tail()
            rig.walpost.start(databases=[rig.db])
    report = rig.assert_whole()
    assert report.repeats == 0, report


def test_sigterm_does_not_wait_for_a_hanging_endpoint(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(timeout="10m")
    rig.receiver.control({"action": "hang"})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g")
    wait_for("a request hangs", lambda: rig.receiver.stats()["requests"] > 0)
    assert rig.walpost.stop(30) == 0
    rig.receiver.kill()
    rig.receiver.start()
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


def test_sigterm_during_an_outage_ends_soon(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start()
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g")
    wait_for("the breaker has opened", lambda: rig.walpost.metric("walpost_breaker_state") == 1, tail=rig.tail)
    assert rig.walpost.stop(30) == 0


def test_a_start_right_after_a_kill_takes_the_slot_soon(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.walpost.kill()
    rig.walpost.start(databases=[rig.db])


def test_a_sync_that_cannot_start_stops_no_other(rig):
    rig.db.table("t")
    rig.db.publish("t")
    good, bad = rig.add_receiver("good"), rig.add_receiver("bad")
    config = rig.config(syncs={"bad": rig.sync("bad"), "good": rig.sync("good")})
    config["connections"]["bad"]["configuration"]["ca_cert"] = str(rig.folder / "no-such-file.pem")
    rig.walposts.append(Walpost(rig.folder / "walpost", config))
    rig.walpost.spawn()
    rig.walpost.wait_streaming(rig.db)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole(good)
    assert bad.stats()["requests"] == 0
    wait_for("the reason is told", lambda: "no-such-file.pem" in rig.walpost.log_text(), tail=rig.tail)


def test_a_port_that_is_taken_is_said(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.add_receiver()
    rig.prepare(change={"listen": f"127.0.0.1:{rig.receiver.port}"})
    rig.walpost.spawn()
    assert rig.walpost.process.wait() == 1
    assert str(rig.receiver.port) in rig.walpost.log_text()


def test_logs_as_json(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(change={"log": {"level": "debug", "format": "json"}})
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    rig.assert_whole()
    rig.walpost.stop()
    lines = rig.walpost.log_text().splitlines()
    assert len(lines) > 3
    for line in lines:
        entry = json.loads(line)
        assert {"ts", "level", "event", "comp"} <= set(entry)


# --- pages ---------------------------------------------------------------------------------

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:\\.|[^"\\])*",?)*\})?'
                    r' (-?[0-9.]+(?:e[+-]?[0-9]+)?|NaN|\+Inf|-Inf)')


def test_pages(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g")
    rig.assert_whole()
    wait_for("the answers have come", lambda: rig.walpost.metric("walpost_delivered_records_total") == 100, tail=rig.tail)
    assert rig.walpost.get("/healthz")[0] == 200
    assert rig.walpost.get("/readyz")[0] == 200
    assert rig.walpost.get("/readyz?strict")[0] == 200
    status, page = rig.walpost.get("/status.txt")
    assert status == 200 and "main" in page and rig.db.name in page
    assert rig.walpost.get("/nothing")[0] == 404
    status, page = rig.walpost.get("/metrics")
    assert status == 200
    types, samples = {}, {}
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"{name} has two TYPE lines"
            types[name] = kind
        elif line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert (match[1], match[2]) not in samples, f"twice: {line}"
            samples[match[1], match[2]] = float(match[3])
    for name, _ in samples:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in types or types.get(family) == "histogram", f"no TYPE for {name}"
    check_histograms(types, samples)
    text = {name for name, _ in samples}
    for part in ("captured", "buffered", "delivered", "failed", "retried", "lag", "bytes"):
        assert any(part in name for name in text), f"nothing about {part}: {sorted(text)}"
    assert sum(kind == "histogram" for kind in types.values()) >= 2
    delivered = [v for (name, labels), v in samples.items() if "delivered" in name
                 and labels and 'sync="main"' in labels]
    assert 100.0 in delivered, delivered


def check_histograms(types, samples):
    for name, kind in types.items():
        if kind != "histogram":
            continue
        series = {}
        for (sample, labels), value in samples.items():
            if sample == f"{name}_bucket":
                bound = re.search(r'le="([^"]+)"', labels)[1]
                rest = re.sub(r',?le="[^"]+"', "", labels)
                series.setdefault(rest, []).append((float(bound), value))
        for labels, buckets in series.items():
            buckets.sort()
            assert buckets[-1][0] == float("inf")
            assert [v for _, v in buckets] == sorted(v for _, v in buckets), "not cumulative"
            counts = [v for (s, l), v in samples.items() if s == f"{name}_count"
                      and (l or "{}") == labels]
            assert counts == [buckets[-1][1]], (name, labels, counts)


def test_pages_while_the_endpoint_is_dead(rig):
    """Readiness does not depend on a destination; ?strict does."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.add_receiver(start=False)
    rig.start()
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 10) g")
    wait_for("the page says why", lambda: "refused" in rig.walpost.get("/status.txt")[1],
             tail=rig.walpost.tail)
    wait_for("strict says no", lambda: rig.walpost.get("/readyz?strict")[0] == 503,
             tail=rig.walpost.tail)
    status, body = rig.walpost.get("/readyz")
    assert status == 200 and "main" in body
    assert rig.walpost.get("/healthz")[0] == 200


def test_pages_while_the_source_is_dead(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    server.stop()
    wait_for("strict says no", lambda: rig.walpost.get("/readyz?strict")[0] == 503,
             tail=rig.walpost.tail)
    assert rig.walpost.get("/readyz")[0] == 200
    assert rig.walpost.get("/healthz")[0] == 200
    server.start()
    rig.walpost.wait_streaming(rig.db)
    wait_for("strict says yes again", lambda: rig.walpost.get("/readyz?strict")[0] == 200,
             tail=rig.walpost.tail)


def test_healthz_stays_well_under_a_hanging_endpoint(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(timeout="10m")
    rig.receiver.control({"action": "hang"})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g")
    wait_for("a request hangs", lambda: rig.receiver.stats()["requests"] > 0)
    stays("the loops turn", lambda: rig.walpost.get("/healthz")[0] == 200, 3)


def test_lag_is_seen_and_goes_away(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    rig.receiver.control({"status": 503, "action": "answer"})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 10) g")
    names = [n for n in rig.walpost.metrics() if "lag" in n and "second" in n and "sync" in n]
    assert names, sorted(rig.walpost.metrics())
    wait_for("there is a lag", lambda: max(rig.walpost.metrics()[n] for n in names) > 1)
    rig.receiver.behave()
    rig.assert_whole()
    wait_for("there is none", lambda: max(rig.walpost.metrics()[n] for n in names) < 0.5)


# --- secrets -------------------------------------------------------------------------------


def test_secrets_are_nowhere_to_be_seen(rig):
    """Not in logs at any level, pages, command lines or messages, also while all goes wrong."""
    rig.db.table("t")
    rig.db.publish("t")
    secrets = [PASSWORD, "hook-password-x1", "query-token-x2", "header-token-x3", "user-in-url-x4",
               "value-of-a-row-x5", "polytomic-x6", "extra-x7"]
    names = ["basic", "query", "header", "polytomic"]
    for name in names:
        rig.add_receiver(name)
    config = rig.config(syncs={n: rig.sync(n) for n in names},
                        change={"log": {"level": "debug", "format": "logfmt"}})
    for name, more in {
        "basic": {"auth_method": "basic", "basic": {"username": "u", "password": secrets[1]}},
        "query": {"auth_method": "query", "query": [{"name": "token", "value": secrets[2]}]},
        "header": {"auth_method": "header", "header": {"name": "X-Key", "value": secrets[3]},
                   "headers": [{"name": "X-Extra", "value": secrets[7]}]},
        "polytomic": {"auth_method": "polytomic_secret", "secret": secrets[6]},
    }.items():
        config["connections"][name]["configuration"].update(more)
    rig.walposts.append(Walpost(rig.folder / "walpost", config))
    rig.walpost.start(databases=[rig.db])
    seen = []

    def look():
        seen.append(pathlib.Path(f"/proc/{rig.walpost.process.pid}/cmdline").read_text())
        for page in ("/metrics", "/status.txt", "/readyz", "/healthz"):
            seen.append(rig.walpost.get(page)[1])
    rig.db.sql(f"INSERT INTO t VALUES (1, '{secrets[5]}')")
    for receiver in rig.receivers.values():
        rig.assert_whole(receiver)
    look()
    for receiver in rig.receivers.values():
        receiver.control({"status": 400, "body": "no", "action": "answer"})
    rig.db.sql(f"INSERT INTO t VALUES (2, '{secrets[5]}')")
    time.sleep(1.5)
    look()
    for receiver in rig.receivers.values():
        receiver.kill()
    time.sleep(1.5)
    look()
    done = rig.walpost.command("check")
    seen += [done.stdout, done.stderr]
    rig.walpost.stop()
    seen.append(rig.walpost.log_text())
    for secret in secrets:
        for text in seen:
            assert secret not in text, f"{secret!r} in {text[:2000]}"


def test_a_wrong_password_is_not_printed(db, folder):
    walpost = Walpost(folder / "w", {
        "connections": {"shop": source(db, password="wrong-and-secret"),
                        "hook": webhook("http://127.0.0.1:9/hook")},
        "bulk_syncs": {"main": sync("shop", "hook")}})
    walpost.spawn()
    assert walpost.process.wait() == 1
    done = walpost.command("check")
    for text in (walpost.log_text(), done.stdout, done.stderr):
        assert "wrong-and-secret" not in text


# --- the quickstart --------------------------------------------------------------------------


@pytest.fixture
def checkout():
    """Its scripts alone, in a folder that everybody may read."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="walpost-checkout."))
    shutil.copytree(pathlib.Path(__file__).parents[2] / "deploy", folder / "deploy")
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o777)
    (folder / "stubs").mkdir()
    for name in ("dpkg-query", "apt-get", "sudo"):
        (folder / "stubs" / name).write_text(f"#!/bin/sh\necho no {name} here >&2\nexit 1\n")
        (folder / "stubs" / name).chmod(0o755)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def quickstart(checkout):
    """Run by nobody, on a machine where nothing can be installed."""
    done = subprocess.run(
        ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", checkout / "deploy/quickstart.sh"],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd="/",
        env=dict(os.environ, PATH=f"{checkout}/stubs:{os.environ['PATH']}", TMPDIR=str(checkout / "tmp")))
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="runs a script as another user")


@needs_root
def test_quickstart_says_whose_checkout_it_cannot_build_in(checkout):
    text = quickstart(checkout)
    assert "build cannot be made: this checkout belongs to root; use a checkout of your own" in text
    (checkout / "build").mkdir()
    text = quickstart(checkout)
    assert "build belongs to root and cannot be written; use a checkout of your own" in text
    assert "no dpkg-query" not in text, "before anything is installed"


@needs_root
def test_quickstart_names_no_file_that_is_gone(checkout):
    shutil.chown(checkout, "nobody")
    text = quickstart(checkout)
    assert "the packages could not be installed" in text and "no sudo here" in text, text
    assert not list((checkout / "tmp").iterdir())
    assert f"{checkout}/tmp" not in text, text


# --- the journey of many -------------------------------------------------------------------


def test_many_syncs_over_one_slot(rig):
    rig.db.table("t")
    rig.db.publish("t")
    names = [f"r{i}" for i in range(12)]
    for name in names:
        rig.add_receiver(name)
    rig.start(syncs={name: rig.sync(name) for name in names})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 2000) g")
    for name in names:
        rig.assert_whole(rig.receivers[name])


def test_quickstart_shows_changes_arriving_and_leaves_nothing_running():
    """As the README says it; the build of this run is there already."""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([root / "deploy" / "quickstart.sh"], capture_output=True, text=True,
                          timeout=500, stdin=subprocess.DEVNULL, start_new_session=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    for operation in ("INSERT", "UPDATE", "DELETE"):
        assert f"<- {operation} public.orders" in text, text[-3000:]
    folders = set(re.findall(r"/tmp/walpost-quickstart\.\w+", text))
    assert not [f for f in folders if pathlib.Path(f).exists()], folders
