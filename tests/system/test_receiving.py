"""The page about receiving tells the truth: its code runs against real requests."""

import collections
import gzip
import http.server
import itertools
import json
import threading

import pytest
import receiving
from machine import PORTS, build_dir, wait_for
from signatures import new_secret
from test_control import give
from test_dead_letters import lines
from walpost import source, sync, webhook


def test_the_code_of_the_page_verifies_signatures(rig):
    """In each language: every live secret verifies; what was changed on the way does not."""
    assert sorted(receiving.unpack(rig.folder)) == ["take.py", "verify.go", "verify.mjs", "verify.py"]
    program = build_dir() / "walpost"
    (one,), (two,), (stranger,) = (new_secret(program) for _ in range(3))
    private, public = new_secret(program, "--ed25519")
    other_public = new_secret(program, "--ed25519")[1]
    rig.db.table("t")
    rig.db.publish("t")
    plain, packed = rig.add_receiver("plain"), rig.add_receiver("packed")
    rig.start(hook={"signing_secrets": [one, private, two]}, syncs={
        "plain": sync(rig.db.name, "plain", batch_size=3),
        "packed": sync(rig.db.name, "packed", batch_size=3, compression="gzip")})
    rig.db.sql("INSERT INTO t SELECT g, repeat('ä\"€', g) FROM generate_series(1, 12) g")
    wait_for("all is delivered", lambda: rig.walpost.metric(
        "walpost_delivered_records_total") >= 24, 120, tail=rig.tail)
    requests = [(r.headers, r.body) for r in plain.requests() if r.body]
    for request in packed.requests():
        if request.body:
            assert request.headers["content-encoding"] == "gzip"
            requests.append((request.headers, gzip.decompress(request.body)))
    assert len(requests) >= 8

    good, bad = [], []  # of secrets; and the same of public keys
    asymmetric_good, asymmetric_bad = [], []
    for headers, body in requests:
        tampered = [(headers, body.replace(b"records", b"recordz", 1)), (headers, body + b" "),
                    (headers, b"")]
        seconds = int(headers["webhook-timestamp"])
        for name, value in (("webhook-timestamp", str(seconds + 1)), ("webhook-timestamp", ""),
                            ("webhook-id", headers["webhook-id"][:-1] + "x"),
                            ("webhook-signature", "v1,"), ("webhook-signature", "v1a,AAAA")):
            tampered.append((dict(headers, **{name: value}), body))
        for keys, right, wrong in (([one], good, bad), ([stranger, two], good, bad),
                                   ([public], asymmetric_good, asymmetric_bad)):
            right.append((keys, headers, body))
            wrong += [(keys, *case) for case in tampered]
        bad += [([stranger], headers, body), ([], headers, body)]
        asymmetric_bad.append(([other_public], headers, body))
    for judge in (receiving.by_python, receiving.by_node, receiving.by_go):
        answers = judge(good + bad, rig.folder)
        assert answers == [True] * len(good) + [False] * len(bad), judge.__name__
    answers = receiving.by_node(asymmetric_good + asymmetric_bad, rig.folder)
    assert answers == [True] * len(asymmetric_good) + [False] * len(asymmetric_bad)


class Endpoint(http.server.ThreadingHTTPServer):
    """A receiver made of the page's code: verifies, takes, and answers what take() says."""

    daemon_threads = True

    def __init__(self, folder, secret):
        super().__init__(("127.0.0.1", PORTS.take()), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        self.verify, self.page = (receiving.load(folder / f"{name}.py") for name in ("verify", "take"))
        self.path, self.secret = folder / "inbox.db", secret
        self.lock = threading.Lock()
        self.refuse = lambda record: None
        self.loses = lambda is_replay: False  # is the answer to what was taken lost?
        self.requests = []  # (is it a replay, ids, ids of failed)
        self.troubles = []
        self.page.open_store(self.path).close()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def rows(self):
        """(sync, id, record) in the order in which they were taken."""
        db = self.page.open_store(self.path)
        rows = db.execute("SELECT sync, id, record FROM inbox ORDER BY rowid").fetchall()
        db.close()
        return [(sync, id, json.loads(record)) for sync, id, record in rows]

    def take(self, headers, body):
        """The status and the body of the answer."""
        if not self.verify.is_genuine([self.secret], headers, body):
            self.troubles.append("not genuine")
            return 400, ""
        is_replay = headers.get("webhook-replay") == "true"
        db = self.page.open_store(self.path)
        try:
            answer = self.page.take(db, body, is_replay, self.refuse)
        finally:
            db.close()
        self.requests.append((is_replay, [r["id"] for r in json.loads(body)["object"]["records"]],
                              [f["id"] for f in json.loads(answer)["failed"]]))
        if not json.loads(answer)["failed"] and self.loses(is_replay):
            return 503, ""
        return 200, answer


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            status, answer = self.server.take(dict(self.headers), body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(rig):
    receiving.unpack(rig.folder)
    endpoint = Endpoint(rig.folder, new_secret(build_dir() / "walpost")[0])
    yield endpoint
    endpoint.shutdown()
    endpoint.server_close()


def begin(rig, endpoint, names=("main",), **delivery):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(syncs={name: sync(rig.db.name, "page", partial_success=True, timeout="1m",
                                **delivery)
                     for name in names},
              change={"connections": {
                  rig.db.name: source(rig.db),
                  "page": webhook(endpoint.url, signing_secrets=[endpoint.secret])}})


def test_the_code_of_the_page_takes_every_record_once_and_in_order(rig, endpoint):
    """Two syncs at one endpoint, answers that are lost, and records that are refused at first."""
    refused = set()

    def refuse_once(record):
        # Some, so that later ones of their keys, in the same request, would be taken.
        if record["fields"]["v"] not in ("x", "x2") or record["id"] in refused:
            return None
        refused.add(record["id"])
        return "not yet"
    lost = itertools.count()
    endpoint.refuse, endpoint.loses = refuse_once, lambda _: next(lost) < 4
    begin(rig, endpoint, ("first", "second"), batch_size=20, concurrency=2)
    statements = ["INSERT INTO t SELECT g, 'x' FROM generate_series(1, 12) g"]
    statements += [f"UPDATE t SET v = 'x{i}'" for i in range(5)]
    rig.db.sql("; ".join(statements))

    wait_for("all is taken", lambda: len(endpoint.rows()) >= 2 * 72, 120, tail=rig.tail)
    wait_for("all is delivered", lambda: rig.walpost.metric(
        "walpost_delivered_records_total") >= 2 * 72, 120, tail=rig.tail)
    taken = collections.defaultdict(list)
    for sync_id, id, record in endpoint.rows():
        taken[sync_id, record["key"]["id"]].append(record)
    assert len(taken) == 24 and endpoint.troubles == [] and next(lost) >= 4
    for records in taken.values():
        assert [r["operation"] for r in records] == ["insert"] + ["update"] * 5
        assert [r["fields"]["v"] for r in records] == ["x"] + [f"x{i}" for i in range(5)]
        assert [r["id"] for r in records] == sorted({r["id"] for r in records})
    sent = collections.Counter(id for _, ids, _ in endpoint.requests for id in ids)
    assert any(failed for _, _, failed in endpoint.requests)
    assert max(sent.values()) > 2  # it was sent by both syncs, and again


def test_the_code_of_the_page_takes_replays(rig, endpoint):
    """Of a dead letter that is older than what is there of its key: taken once, not as a repeat."""
    endpoint.refuse = lambda record: "never" if record["fields"]["v"] == "poison" else None
    begin(rig, endpoint, retry_schedule=["50ms"], park={"attempts": 3, "after": "0s"})
    rig.db.sql("INSERT INTO t VALUES (0, 'poison')")
    rows = itertools.count(1)  # a refusal is the record's fault only when others are accepted

    def is_dead():
        rig.db.sql("INSERT INTO t VALUES (%s, 'x')", next(rows))
        return rig.walpost.metric("walpost_dead_letters") == 1
    wait_for("it is a dead letter", is_dead, 120, pause=0.1, tail=rig.tail)
    rig.db.sql("UPDATE t SET v = 'later' WHERE id = 0")

    def of_key():
        return [record["fields"]["v"] for _, _, record in endpoint.rows() if record["key"] == {"id": 0}]
    wait_for("the later record is taken", lambda: of_key() == ["later"], 120, tail=rig.tail)
    lost = itertools.count()
    endpoint.refuse, endpoint.loses = lambda _: None, lambda is_replay: is_replay and next(lost) < 1
    give(rig, "dead-letters", "replay", "--all")
    wait_for("it is taken", lambda: of_key() == ["later", "poison"], 120, tail=rig.tail)
    # That answer was lost, so it is sent once more.
    wait_for("it is delivered", lambda: lines(rig) == [], 120, tail=rig.tail)
    assert of_key() == ["later", "poison"]
    assert sum(is_replay for is_replay, _, _ in endpoint.requests) == 2
