"""`record_requests`: the last requests of a sync, shown by `walpost attempts`, without a secret."""

import base64
import contextlib
import dataclasses
import gzip
import itertools
import json
import re
import sqlite3

import checker
import pytest
from machine import build_dir, wait_for
from signatures import new_secret

pytestmark = pytest.mark.sanitized

KEPT = 1024
SHOWN = {"webhook-id", "webhook-timestamp", "webhook-signature", "webhook-replay", "content-type",
         "content-encoding", "polytomic-signature-timestamp", "user-agent"}


def begin(rig, tables=("t",), **more):
    for table in tables:
        rig.db.table(table)
    rig.db.publish(*tables)
    more.setdefault("record_requests", True)
    rig.start(**more)


def insert(rig, first, n, table="t"):
    rig.db.sql(f"INSERT INTO {table} SELECT g, 'x' FROM generate_series({first}, {first + n - 1}) g")


def shown(rig, *options, sync="main"):
    result = rig.walpost.command("attempts", sync, "--json", "--limit", "1000000", *options)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def text(rig, *options):
    result = rig.walpost.command("attempts", "main", *options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def counts(rig):
    return [int(rig.walpost.metric(f"walpost_{name}_total", sync="main"))
            for name in ("requests", "recorded_requests", "unrecorded_requests")]


def all_shown(rig, n):
    """The attempts, when there are so many: they are written soon after their answers."""
    def found():
        attempts = shown(rig)
        return [attempts] if len(attempts) == n else None
    return wait_for(f"{n} attempts are shown", found, 60, 0.1, tail=rig.tail)[0]


def stored(rig, statement="SELECT * FROM attempt ORDER BY number"):
    with contextlib.closing(sqlite3.connect(rig.walpost.data / "state.db", timeout=10)) as database:
        return database.execute(statement).fetchall()


def unpacked(request):
    is_packed = request.headers.get("content-encoding") == "gzip"
    return gzip.decompress(request.body) if is_packed else request.body


def assert_same(attempt, request):
    """An attempt is what the receiver got and answered."""
    assert attempt["method"] + " /" + attempt["url"].split("/", 3)[3] + " HTTP/1.1" == request.request_line
    assert attempt["status"] == request.status
    assert attempt["request"]["body"].encode() == request.body[:KEPT]
    assert attempt["request"]["bytes"] == len(request.body)
    assert attempt["records"] == len(checker.split_records(request.body))
    sent = request.headers
    for name, value in attempt["request"]["headers"].items():
        assert sent[name.lower()] == value if name.lower() in SHOWN else value == "***", name
    assert set(sent) - {n.lower() for n in attempt["request"]["headers"]} <= {
        "host", "accept", "accept-encoding", "content-length"}


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_attempt_is_what_was_sent_and_answered(rig, compression):
    rig.add_receiver().control({"status": 200, "action": "answer", "body": '{"ok": "ja ü"}'})
    begin(rig, batch_size=5, concurrency=2, compression=compression)
    insert(rig, 1, 40)
    wait_for("all are delivered", lambda: rig.walpost.metric(
        "walpost_delivered_records_total") == 40, 60, tail=rig.tail)
    requests = [dataclasses.replace(r, body=unpacked(r)) for r in rig.receiver.requests() if r.body]
    attempts = all_shown(rig, len(requests))
    assert sum(a["records"] for a in attempts) == 40
    by_id = {r.headers["webhook-id"]: r for r in requests}
    for attempt in attempts:
        request = by_id[attempt["request"]["headers"]["webhook-id"]]
        assert_same(attempt, request)
        assert attempt["response"]["body"] == '{"ok": "ja ü"}'
        assert attempt["outcome"] == "done" and attempt["milliseconds"] > 0
    assert any(a["request"]["bytes"] > KEPT for a in attempts)
    assert [a["number"] for a in attempts] == list(range(1, len(attempts) + 1))
    assert attempts == sorted(attempts, key=lambda a: a["number"])
    while_running = text(rig, "--limit", "1000")
    rig.walpost.stop()
    assert text(rig, "--limit", "1000") == while_running
    assert while_running.count(f"POST {rig.receiver.url}\n") == len(attempts)
    assert shown(rig) == attempts
    kept = b"".join(f.read_bytes() for f in rig.walpost.data.glob("state.db*"))
    assert b'"operation"' not in kept and rig.receiver.url.encode() not in kept


def test_every_outcome_is_shown(rig):
    begin(rig, batch_size=1, concurrency=1, timeout="5s")
    for number, rule in enumerate((
            {"status": 200, "action": "answer", "body": "fine"},
            {"status": 503, "action": "answer", "body": "not \x1b[31m now\n\x01really", "count": 1},
            {"status": 422, "action": "answer", "body": "never", "count": 1},
            {"action": "hang", "count": 1}, {"action": "reset", "count": 1})):
        rig.receiver.control(rule)
        insert(rig, number + 1, 1)
        rig.assert_whole()
    rig.receiver.kill()
    insert(rig, 6, 1)
    wait_for("nobody listens", lambda: any(
        "refused" in a["reason"] for a in shown(rig, "--failed")), 60, 0.1, tail=rig.tail)
    rig.receiver.start()
    rig.assert_whole()
    rig.receiver.control({"status": 410, "action": "answer"})
    insert(rig, 7, 1)
    wait_for("the endpoint asks for no more", lambda: shown(rig)[-1]["outcome"] == "stop", 60, 0.1,
             tail=rig.tail)
    attempts = shown(rig)
    failed = [a for a in attempts if a["outcome"] != "done"]
    assert shown(rig, "--failed") == failed
    assert len([a for a in attempts if a["outcome"] == "done"]) == 6
    assert [(a["outcome"], a["status"]) for a in failed[:4]] == [
        ("retry", 503), ("reject", 422), ("retry", None), ("retry", None)]
    assert failed[0]["response"]["body"] == "not ?[31m now\n?really"
    assert failed[0]["reason"] == "503 Service Unavailable"
    assert failed[1]["response"]["body"] == "never" and failed[2]["response"]["body"] == ""
    assert failed[2]["milliseconds"] >= 5000
    assert [a["number"] for a in shown(rig, "--failed", "--limit", "2")[-2:]] == [
        a["number"] for a in failed[-2:]]
    assert text(rig, "--failed", "--limit", "1").count("\n2") == 0
    assert "  stop  410  " in text(rig, "--limit", "1")
    page = text(rig, "--limit", "1000")
    assert "\x1b" not in page and "    ! 503 Service Unavailable\n" in page
    assert "    < not ?[31m now\n    < ?really\n" in page


def test_a_receiver_that_takes_a_part(rig):
    begin(rig, batch_size=10, concurrency=1, partial_success=True)
    rig.receiver.control({"status": 503, "action": "answer"})
    insert(rig, 1, 10)
    (bad, *_) = wait_for("a request", lambda: [
        record["id"] for r in rig.receiver.requests() if r.body
        for record, _ in checker.split_records(r.body)], 60, tail=rig.tail)
    rig.receiver.control({"match": bad, "status": 200, "action": "answer", "count": 1, "body": json.dumps(
        {"failed": [{"id": bad, "reason": "not this", "retry": True}]})})
    rig.wait_arrived(10)
    wait_for("all is delivered", lambda: rig.walpost.metric("walpost_delivered_records_total") == 10,
             60, tail=rig.tail)
    wait_for("the part is shown", lambda: any(
        a["outcome"] == "done" and a["refused"] == 1 for a in shown(rig, "--failed")), 60, 0.1,
        tail=rig.tail)


def hooks(rig):
    """Configurations of the destination, and the forms of what of each nobody may see."""
    url = rig.receiver.url
    secrets = new_secret(build_dir() / "walpost") + new_secret(build_dir() / "walpost")

    def basic(password):
        return base64.b64encode(b"hid-user:" + password.encode()).decode()
    return {
        "secret": ({"auth_method": "polytomic_secret", "secret": "hid-secret"}, ["hid-secret"]),
        "basic": ({"auth_method": "basic", "basic": {
            "username": "user", "password": 'hid-pa"ss/word'}},
            ['hid-pa"ss/word', 'hid-pa\\"ss/word', 'hid-pa\\"ss\\/word', "hid-pa%22ss%2Fword",
             base64.b64encode(b'user:hid-pa"ss/word').decode()]),
        "header": ({"auth_method": "header", "header": {"name": "X-Key", "value": "hid-header"},
                    "headers": [{"name": "X-More", "value": "hid-more"},
                                {"name": "X-Row", "value": "hid-part {operation} hid-rest"},
                                {"name": "webhook-Key", "value": "hid-hook {operation} hid-end"}]},
                   ["hid-header", "hid-more", "hid-part insert hid-rest"]),
        "query": ({"auth_method": "query", "url": url + "?own=hid-own-value&{operation}=hid%2Fown",
                   "query": [{"name": "token", "value": "hid-query/&="}]},
                  ["hid-query/&=", "hid-query%2F%26%3D", "hid-own-value", "hid/own", "hid%2Fown"]),
        "url": ({"url": url.replace("http://", "http://hid-user:hid-pass%21word@")},
                ["hid-pass!word", "hid-pass%21word", basic("hid-pass!word")]),
        "signed": ({"signing_secrets": secrets}, secrets),
    }


@pytest.mark.parametrize("kind", ["secret", "basic", "header", "query", "url", "signed"])
def test_no_secret_is_shown(rig, kind):
    """Not even when the endpoint says what it got, in this or that form, or cut off."""
    rig.add_receiver()
    hook, forms = hooks(rig)[kind]
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook=hook, record_requests=True, batch_size=1, concurrency=1)
    insert(rig, 1, 1)
    rig.assert_whole()
    (first,) = [r for r in rig.receiver.requests() if r.body]
    if kind != "signed":
        assert any(form in first.head.decode() for form in forms)
    bodies = [" ".join(forms), json.dumps({"you sent": forms[0]}), "x" * (KEPT - 5) + forms[0]]
    for i, body in enumerate(bodies):
        rig.receiver.control({"status": 200, "action": "answer", "body": body})
        insert(rig, 10 + 2 * i, 1)
        rig.assert_whole()
        rig.receiver.control({"status": 400, "action": "answer", "body": body, "count": 1})
        insert(rig, 11 + 2 * i, 1)
        rig.assert_whole()
    attempts = all_shown(rig, 1 + 3 * 3)
    assert "***" in json.dumps(attempts)
    everything = json.dumps(attempts, ensure_ascii=False) + text(rig, "--limit", "100")
    assert "hid-" not in everything and "hid%" not in everything and "hid/" not in everything
    for form in forms:
        assert form not in everything, form
    assert "x" * (KEPT - 5) + "***" in everything
    headers = attempts[0]["request"]["headers"]
    masked = {"secret": "Authorization", "basic": "Authorization", "header": "X-Key"}
    if kind in masked:
        assert headers[masked[kind]] == "***"
    if kind == "header":
        assert headers["X-More"] == headers["X-Row"] == headers["webhook-Key"] == "***"
    if kind == "query":
        assert attempts[0]["url"].endswith("?own=***&insert=***&token=***")
    if kind == "url":
        assert attempts[0]["url"] == rig.receiver.url.replace("http://", "http://***@")
    if kind == "signed":
        assert headers["webhook-signature"] == first.headers["webhook-signature"]


def test_no_token_is_shown(rig):
    receiver, issuer = rig.add_receiver(), rig.add_receiver("issuer")
    issuer.control({"path": "/hook", "body": json.dumps(
        {"access_token": "hid-token-1", "token_type": "Bearer", "expires_in": 3600})})
    receiver.control({"status": 200, "action": "answer",
                      "body": "you are hid-token-1, of me:hid-client"})
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare(record_requests=True, concurrency=1, hook={
        "url": receiver.url, "auth_method": "oauth_client_credentials",
        "oauth": {"token_endpoint": issuer.url, "client_id": "me", "client_secret": "hid-client"}})
    del rig.walpost.config["connections"]["issuer"]
    rig.walpost.write()
    issuer.stop()
    rig.walpost.start(databases=[rig.db])
    insert(rig, 1, 1)
    wait_for("there is no token", lambda: any(
        a["url"] == "" and "no token" in a["reason"] for a in shown(rig)), 60, 0.1, tail=rig.tail)
    assert "(not sent)" in text(rig)
    issuer.start()
    issuer.control({"path": "/hook", "body": json.dumps(
        {"access_token": "hid-token-1", "token_type": "Bearer", "expires_in": 3600})})
    rig.assert_whole()
    done = wait_for("it is sent", lambda: [a for a in shown(rig) if a["outcome"] == "done"], 60, 0.1,
                    tail=rig.tail)
    assert done[0]["request"]["headers"]["Authorization"] == "***"
    assert done[0]["response"]["body"] == "you are ***, of me:***"
    assert "hid-" not in json.dumps(shown(rig)) + text(rig)


def test_bodies_are_kept_as_they_are_sent(rig):
    """After the obfuscation, where records go by their key."""
    rig.db.sql("CREATE TABLE p (id int PRIMARY KEY, phone text)")
    rig.db.publish("p")
    rig.add_receiver()
    rig.start(hook={"url": rig.receiver.url + "/{table}/{key.id}", "method": "PUT"},
              syncs={"main": {**rig.sync("hook", record_requests=True,
                                         operations=["insert", "update", "delete"]), "schemas": [
                  {"id": "public.p", "fields": ["id", {"id": "phone", "obfuscate": "mask"}]}]}})
    rig.db.sql("INSERT INTO p VALUES (7, '+49 555 0199')")
    rig.wait_arrived(1)
    (attempt,) = all_shown(rig, 1)
    assert attempt["method"] == "PUT" and attempt["url"] == rig.receiver.url + "/p/7"
    (request,) = [r for r in rig.receiver.requests() if r.body]
    assert attempt["request"]["body"].encode() == request.body[:KEPT]
    assert "555" not in attempt["request"]["body"]


def test_a_ring_keeps_so_many_requests(rig):
    begin(rig, batch_size=1, concurrency=1, recorded={"requests": 20})
    for i in range(3):
        insert(rig, 100 * i, 30)
        rig.assert_whole()
        all_shown(rig, 20)
    wait_for("the newest are kept", lambda: shown(rig)[-1]["number"] == counts(rig)[1], 60, 0.1,
             tail=rig.tail)
    assert [a["number"] for a in shown(rig)] == list(range(71, 91))
    assert [a["number"] for a in shown(rig, "--limit", "3")][-3:] == [88, 89, 90]


def test_a_ring_keeps_so_many_bytes(rig):
    begin(rig, batch_size=1, concurrency=1, recorded={"bytes": "64KiB"})
    for i in range(5):
        rig.db.sql(f"INSERT INTO t SELECT g, repeat('x', 2000) FROM generate_series({i * 100},"
                   f" {i * 100 + 29}) g")
        rig.assert_whole()
    wait_for("all are written", lambda: shown(rig)[-1]["number"] == counts(rig)[1], 60, 0.1,
             tail=rig.tail)
    ((n, held),) = stored(rig, "SELECT count(*), sum(bytes) FROM attempt")
    assert 30 < n < 64 and (64 << 10) - 3000 < held <= 64 << 10
    numbers = [a["number"] for a in shown(rig)]
    assert numbers == list(range(150 - n + 1, 151))


def test_off_nothing_is_kept_and_what_was_is_deleted(rig):
    begin(rig, record_requests=False)
    insert(rig, 1, 10)
    rig.assert_whole()
    result = rig.walpost.command("attempts", "main")
    assert result.returncode == 0 and not result.stdout and "record_requests: true" in result.stderr
    assert not stored(rig) and counts(rig)[1:] == [0, 0]
    settings = rig.walpost.config["bulk_syncs"]["main"]["destination_configuration"]
    for is_on, n in ((True, 1), (False, 0)):
        rig.walpost.stop()
        settings["record_requests"] = is_on
        rig.walpost.write()
        rig.walpost.start(databases=[rig.db])
        insert(rig, 100 + n, 1)
        rig.assert_whole()
        assert len(all_shown(rig, n)) == n == len(stored(rig))


def test_deliveries_do_not_wait_for_the_log(rig):
    """While the store cannot write, requests go on; those that do not fit are left out, and counted."""
    begin(rig, batch_size=1, concurrency=2, recorded={"requests": 20000})
    insert(rig, 1, 1)
    rig.assert_whole()
    all_shown(rig, 1)
    with contextlib.closing(sqlite3.connect(rig.walpost.data / "state.db", timeout=10)) as blocker:
        blocker.isolation_level = None
        blocker.execute("BEGIN IMMEDIATE")
        insert(rig, 10, 1000)
        rig.assert_whole()
        wait_for("all are answered", lambda: sum(counts(rig)[1:]) == counts(rig)[0] >= 1001, 60,
                 tail=rig.tail)
        recorded = counts(rig)[1]
        assert 150 <= recorded < 1001
        blocker.execute("ROLLBACK")
    assert len(all_shown(rig, recorded)) == recorded
    insert(rig, 5000, 1)
    rig.assert_whole()
    all_shown(rig, recorded + 1)


def test_attempts_survive_a_kill(rig):
    begin(rig, batch_size=1, concurrency=1)
    insert(rig, 1, 5)
    rig.assert_whole()
    attempts = all_shown(rig, 5)
    rig.walpost.kill()
    assert shown(rig) == attempts
    rig.walpost.start(databases=[rig.db])
    insert(rig, 10, 1)
    rig.assert_whole()
    wait_for("they go on", lambda: shown(rig)[:5] == attempts and shown(rig)[-1]["number"] > 5, 60,
             0.1, tail=rig.tail)


def test_each_sync_has_its_own(rig):
    rig.db.table("t")
    rig.db.publish("t")
    for name in ("one", "two"):
        rig.add_receiver(name)
    rig.start(syncs={n: rig.sync(n, record_requests=n == "one") for n in ("one", "two")})
    insert(rig, 1, 3)
    for receiver in rig.receivers.values():
        rig.assert_whole(receiver)
    wait_for("one has a log", lambda: shown(rig, sync="one"), 60, 0.1, tail=rig.tail)
    assert not shown(rig, sync="two")
    # A sync that is gone leaves nothing behind.
    rig.walpost.stop()
    del rig.walpost.config["bulk_syncs"]["one"]
    rig.walpost.write()
    rig.walpost.start(databases=[rig.db])
    assert not stored(rig)


def test_the_command_says_what_is_wrong(rig):
    rig.prepare()
    for args, word in ((("attempts",), "needs the name of a sync"),
                       (("attempts", "nobody"), "no sync named nobody"),
                       (("attempts", "main", "--limit", "0"), "--limit 0 is no number"),
                       (("attempts", "main", "--limit", "-1"), "no number"),
                       (("attempts", "main", "more"), "too many")):
        result = rig.walpost.command(*args)
        assert result.returncode == 2 and word in result.stderr, result.stderr
    result = rig.walpost.command("attempts", "main")
    assert result.returncode == 1 and "no state" in result.stderr


def test_no_secret_is_kept_of_what_an_endpoint_says(rig):
    """In a dead letter, in the reasons that the log and the status page give, without record_requests."""
    rig.add_receiver()
    hook = {"auth_method": "header", "header": {"name": "X-Key", "value": "hid-header"},
            "headers": [{"name": "X-More", "value": "hid-more"}]}
    begin(rig, hook=hook, record_requests=False, batch_size=2, concurrency=1,
          partial_success=True, retry_schedule=["1ms"], park={"after": "0s", "attempts": 2})
    rig.receiver.control(
        {"match": '"key":{"id":1}', "status": 422, "action": "answer",
         "body": json.dumps({"you sent": {"X-Key": "hid-header", "X-More": "hid-more"}})},
        {"match": '"key":{"id":7}', "status": 200, "action": "answer", "body": json.dumps(
            {"failed": [{"id": "{id}", "retry": False, "reason": "not with hid-more"}]})})
    insert(rig, 1, 2)
    insert(rig, 7, 2)
    following = itertools.count(100)

    def are_dead():
        insert(rig, next(following), 1)  # what is accepted proves what is refused
        return rig.walpost.metric("walpost_dead_letters") == 2
    wait_for("two records are dead", are_dead, 60, 0.1, tail=rig.tail)
    dead = [json.loads(line) for line in rig.walpost.command(
        "dead-letters", "list", "--all", "--json").stdout.splitlines()]
    assert len(dead) == 2
    told = "".join(rig.walpost.command("dead-letters", "show", d["id"], "--json").stdout
                   for d in dead)
    assert "you sent" in told and "not with ****" in told
    assert "hid-" not in told + rig.walpost.log_text() + rig.walpost.get("/status.txt")[1]
