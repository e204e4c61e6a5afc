"""Every trouble that an endpoint can make, each met three times: as it is, over a kill -9, over a restart.

One walpost has a sync for each of them, all in trouble at the same time, and the one checker judges
what came to each.  `park` is as strict as can be, so that a record which is taken for the cause of
its endpoint's trouble is parked, and found.
"""

import copy
import dataclasses
import json
import re
import threading

import checker
import pytest
from machine import wait_for
from names import Names
from nginx import Certificates, Nginx
from receiver import Receiver
from test_parking import REFUSED, Stored, ids, insert
from walpost import webhook

pytestmark = pytest.mark.slow

HOST = "hook.walpost.test"
GONE, EXPIRED, DEAF = "a name that is gone", "an expired certificate", "nobody listens"
STRICT = {"batch_size": 10, "concurrency": 2, "timeout": "10s", "retry_after_max": "300ms",
          "park": {"after": "0s", "attempts": 2}, "retry_schedule": ["1h"]}
KEYS = 200  # of `half`: every second one is refused
BIG = 10000  # rows of `big`: one of them is refused
LYING = 202  # the status by which an answer is known that is a lie


@dataclasses.dataclass
class Trouble:
    """What the receiver does meanwhile, the sync's settings, its table, and what is left in the end:
    records whose text has this in it are parked, or dead."""

    rule: dict | None = None
    settings: dict = dataclasses.field(default_factory=dict)
    table: str = "public.t"
    parked: str = ""
    dead: str = ""


def answers(status, **more):
    return Trouble({"action": "answer", "status": status, **more})


def breaks(action, **more):
    return Trouble({"action": action, **more})


def stands_still(action, **more):
    """A trouble that the time limit of a request ends."""
    return Trouble({"action": action, **more}, {"timeout": "2s"})


def lies(body, action="answer", status=LYING):
    return Trouble({"action": action, "status": status, "body": body}, {"partial_success": True})


STRANGER = "00000001-0000000000000001-00000001-0001"

TROUBLES = {
    # Statuses.
    **{f"status {status}": answers(status) for status in (
        307, 400, 401, 404, 408, 413, 422, 425, 429, 500, 503)},
    "429 until the past": answers(429, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"),
    "429 until the year 9999": answers(429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"),
    "429 for longer than can be counted": answers(429, retry_after="99999999999999999999999"),
    "503 until a word": answers(503, retry_after="-soon"),
    # Connections.
    "closed": breaks("close"),
    "reset": breaks("reset"),
    "cut in its answer": breaks("half", status=503, body="x" * 1000),
    "no answer": stands_still("hang"),
    "a slow answer": stands_still("slow", status=503),
    "it stops reading": stands_still("stall-read"),
    "an endless answer": breaks("huge", status=500),
    "an endless head": breaks("huge-head", status=503),
    DEAF: Trouble(),
    EXPIRED: Trouble(),
    GONE: Trouble(),
    # On and off, every second.
    "flapping": Trouble({"action": "answer", "status": 503}, {"park": None}),
    "flapping with 422": Trouble({"action": "answer", "status": 422},
                                 {"park": None, "retry_schedule": ["1s"] * 60}),
    # Answers to requests of which a part may fail.
    "a lie about another's record": lies(json.dumps({"failed": [{"id": STRANGER}]})),
    "a lie about nobody": lies('{"failed":[{"id":"nobody"}]}'),
    "a lie about it and another's": lies('{"failed":[{"id":"{id}"},{"id":"%s"}]}' % STRANGER),
    "a lie that says it twice": lies('{"failed":[{"id":"{id}"},{"id":"{id}"}]}'),
    "a lie that says two things": lies('{"failed":[],"failed":[{"id":"{id}"}]}'),
    "a lie that is no answer to retry": lies('{"failed":[{"id":"{id}","retry":"no"}]}'),
    "a lie that ends early": lies('{"failed":[{"id":"{id}","reas'),
    "a lie that is cut": lies('{"failed":[]}' + " " * 1000, "half"),
    "a lie without end": lies("", "huge"),
    "a lie as deep as it is long": lies('{"failed":' + "[" * 3000),
    "a lie that is a list": lies("[]"),
    "a lie that is a number": lies('{"failed":1}'),
    "a lie beside a 500": lies('{"failed":[]}', status=500),
    # Records.
    "one in ten thousand": Trouble(REFUSED, {"batch_size": 100}, "public.big", parked='"poison'),
    "one in ten thousand, for good": Trouble(
        REFUSED, {"batch_size": 100, "retry_schedule": ["1ms", "1ms"]}, "public.big", dead='"poison'),
    "half of the keys": Trouble(REFUSED, {}, "public.half", parked='"poison'),
    "half of the keys, for good": Trouble(
        REFUSED, {"retry_schedule": ["1ms", "1ms"]}, "public.half", dead='"poison'),
    # None.
    "nothing": Trouble(),
}
OF_RECORDS = [name for name, t in TROUBLES.items() if t.parked or t.dead]
OF_ENDPOINTS = [name for name, t in TROUBLES.items()
                if not t.parked and not t.dead and "flap" not in name and name != "nothing"]


class Honest(checker.Arrivals):
    """What came with an answer that was a lie has not arrived."""

    def add(self, request):
        if request.status != LYING:
            super().add(request)


class Flapping:
    """Puts the receivers in trouble for a second, and out of it for a second."""

    def __init__(self, matrix, names):
        self.matrix, self.names = matrix, names
        self.is_ended = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        is_ended = False
        while not is_ended:
            for name in self.names:
                self.matrix.receivers[name].control(TROUBLES[name].rule)
            is_ended = self.is_ended.wait(1)
            for name in self.names:
                self.matrix.receivers[name].behave()
            is_ended = is_ended or self.is_ended.wait(1)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.is_ended.set()
        self.thread.join(60)


class Matrix:
    """The assembly: a receiver and a sync for every trouble."""

    def __init__(self, rig):
        self.rig = rig
        rig.db.table("t")
        rig.db.table("half")
        rig.db.table("big", bulk=True)
        rig.db.publish("t", "half", "big")
        self.receivers = {}
        for i, name in enumerate(TROUBLES):
            receiver = Receiver(rig.folder, f"r{i}", start=False)
            receiver.arrivals = Honest()
            receiver.start()
            rig.receivers[receiver.name] = self.receivers[name] = receiver
        self.names = Names(rig.folder)
        self.names.set(HOST)
        self.certificates = Certificates(rig.folder)
        self.expired = self.certificates.for_days(-1)
        self.nginx = Nginx(rig.folder, self.receivers[EXPIRED].port, self.certificates)
        config = rig.config(syncs={self.sync(name): rig.sync(
            receiver.name, [TROUBLES[name].table], **settings_of(name))
            for name, receiver in self.receivers.items()})
        self.set_url(config, EXPIRED, self.nginx.url(), ca_cert=str(self.certificates.ca))
        gone = self.receivers[GONE]
        self.set_url(config, GONE, f"http://{HOST}:{gone.port}/hook")
        self.walpost = rig.prepare(syncs=config["bulk_syncs"])
        self.walpost.write({**self.walpost.config, "connections": config["connections"]})
        self.walpost.within = self.names.within
        self.of_sync = {self.sync(name): name for name in TROUBLES}
        self.at = 0

    def sync(self, name):
        return f"s{list(TROUBLES).index(name)}"

    def set_url(self, config, name, url, **more):
        config["connections"][self.receivers[name].name] = webhook(url, **more)

    def start(self):
        self.walpost.start(databases=[self.rig.db])

    def write(self):
        """Some of everything, of keys that were there and of new ones."""
        first = self.at * 1000
        self.at += 1
        insert(self.rig, first, 30)
        for statement in ("UPDATE t SET v = v || 'y' WHERE id % 3 = 0",
                          f"UPDATE t SET id = id + 500 WHERE id = {first + 7}",
                          f"DELETE FROM t WHERE id = {first + 11}"):
            self.rig.db.sql(statement)
        self.pulse()

    def pulse(self):
        """Rows that are accepted: the proof that the endpoint works."""
        for table in ("half", "big"):
            self.rig.db.sql(f"INSERT INTO {table} SELECT coalesce(max(id), 0) + 1, 'pulse' FROM {table}")

    def poison(self):
        for table, n, refused in (("big", BIG, "g = 17000"), ("half", KEYS, "g % 2 = 0")):
            self.rig.db.sql(f"INSERT INTO {table} SELECT g, CASE WHEN {refused} THEN 'poison' ELSE 'x' END"
                            f" FROM generate_series(10001, {10000 + n}) g")

    def begin_trouble(self):
        for name, trouble in TROUBLES.items():
            if trouble.rule and "flapping" not in name:
                self.receivers[name].control(trouble.rule)
        self.receivers[DEAF].kill()
        self.nginx.show(self.expired)
        self.names.set()

    def end_trouble(self):
        for name in OF_ENDPOINTS:
            if name != DEAF:
                self.receivers[name].behave()
        self.receivers[DEAF].start()
        self.nginx.show(self.certificates.for_days(3))
        self.names.set(HOST)

    def wait_failed(self, n, names):
        """Until each of these has failed so often in this process."""
        def missing():
            failed = self.numbers("failed_requests_total")
            return [name for name in names if failed[name, "failed_requests_total"] < n]
        wait_for(f"requests failed {n} times", lambda: not missing(), 120, 0.1,
                 tail=lambda: f"not these: {missing()}\n{self.walpost.tail()}")

    def wanted(self, name, history):
        """The history's part that arrives, and the records that stand aside: parked, dead."""
        trouble = TROUBLES[name]
        own = [c for c in history if c.table == trouble.table]
        if not trouble.parked and not trouble.dead:
            return own, 0, 0
        of_poison = [c for c in own if trouble.parked + trouble.dead in (c.new or "")]
        if trouble.dead:
            return [c for c in own if c not in of_poison], 0, len(of_poison)
        keys = {json.loads(c.new)["id"] for c in of_poison}
        parked = [c for c in own if json.loads(c.new)["id"] in keys]
        return [c for c in own if c not in parked], len(parked), 0

    def numbers(self, *names):
        """{(trouble, metric): value}"""
        found = {}
        for series, value in self.walpost.metrics().items():
            bare, _, labels = series.partition("{")
            name = self.of_sync.get(re.search(r'sync="(\w+)"', labels)[1] if "sync=" in labels else "")
            if name and bare.removeprefix("walpost_") in names:
                found[name, bare.removeprefix("walpost_")] = value
        return found

    def wait_aside(self, names):
        """Until exactly so much is parked and dead as the history asks for, and the rest has come."""
        history = self.rig.db.history()
        expected = {name: self.wanted(name, history) for name in names}
        missing = []

        def is_aside():
            have = self.numbers("parked_records", "dead_letters")
            missing[:] = [f"{name}: parked, dead: {got}, not {aside}"
                          for name, (_, *aside) in expected.items()
                          if (got := [have[name, "parked_records"], have[name, "dead_letters"]]) != aside]
            if missing:
                self.pulse()
            return not missing

        def has_come():
            missing[:] = [f"{name}: {got} have come, not {want}" for name, (come, _, _) in expected.items()
                          if (got := len(self.receivers[name].poll().records)) != (
                              want := checker.expected_count(come))]
            return not missing

        def tail():
            return "\n".join(missing) + "\n" + self.walpost.tail()
        wait_for("so much is set aside", is_aside, 120, 0.1, tail=tail)
        history = self.rig.db.history()
        expected = {name: self.wanted(name, history) for name in names}
        wait_for("the rest has come", has_come, 120, 0.1, tail=tail)
        assert is_aside(), missing
        return expected

    def judge(self, expected):
        """The checker's verdict, and what the store says; a text for every cell that is wrong."""
        wrong = []
        for name, (come, parked, dead) in expected.items():
            arrivals = self.receivers[name].poll()
            report = checker.judge(arrivals, come)
            stored = Stored(self.rig, self.sync(name))
            aside = stored.parked(), stored.dead()
            if not report.ok:
                wrong.append(f"{name}: {report}")
            if [len(records) for records in aside] != [parked, dead]:
                wrong.append(f"{name}: {len(aside[0])} parked and {len(aside[1])} dead in the store,"
                             f" not {parked} and {dead}")
            both = {i for records in aside for i in ids(records)} & set(arrivals.records)
            if both:
                wrong.append(f"{name}: delivered and set aside: {sorted(both)[:5]}")
        return wrong

    def assert_told(self):
        """A person reads what it was."""
        told = {}
        for event in self.walpost.events():
            if event["event"] in ("endpoint_trouble", "request_failed"):
                told.setdefault(event["sync"], []).append(event.get("msg") or event["reason"])
        for name, word in ((EXPIRED, "expired"), (GONE, HOST),
                           ("status 307", "307"), ("no answer", "time"), (DEAF, "connect")):
            assert any(word in text for text in told.get(self.sync(name), [])), (name, told.get(
                self.sync(name)))


def settings_of(name):
    settings = {**STRICT, **TROUBLES[name].settings}
    return copy.deepcopy({key: value for key, value in settings.items() if value is not None})


@pytest.mark.parametrize("event", [
    pytest.param("nothing else", marks=pytest.mark.sanitized), "kill", "restart"])
def test_fault_matrix(rig, event):
    matrix = Matrix(rig)
    try:
        run(matrix, event)
    finally:
        matrix.nginx.stop()


def run(matrix, event):
    rig, walpost = matrix.rig, matrix.walpost
    is_alone = event == "nothing else"
    if is_alone:
        matrix.names.set()
    matrix.start()
    matrix.write()
    matrix.wait_aside([name for name in TROUBLES if name != GONE])
    matrix.begin_trouble()
    with Flapping(matrix, [name for name in TROUBLES if "flapping" in name]):
        matrix.write()
        matrix.poison()
        # A name that was found is not asked for again so soon.
        matrix.wait_failed(4, [name for name in OF_ENDPOINTS if name != GONE or is_alone])
        if event == "kill":
            walpost.kill()
        elif event == "restart":
            assert walpost.stop() == 0
        if not is_alone:
            matrix.write()
            matrix.start()
            matrix.wait_failed(2, OF_ENDPOINTS)
        matrix.write()
        rig.db.sql("UPDATE half SET v = 'later' WHERE id > 10000")
        rig.db.sql("UPDATE half SET v = 'last' WHERE id % 3 = 0 AND id > 10000")
    matrix.end_trouble()
    matrix.write()
    judged = matrix.wait_aside(TROUBLES)
    wrong = matrix.judge(judged)
    assert not wrong, "\n".join(wrong)
    matrix.assert_told()

    # What is parked comes when the endpoint takes it.
    for name in OF_RECORDS:
        matrix.receivers[name].behave()
    walpost.stop()
    Stored(rig).run("UPDATE parked SET next_us = 0 WHERE state = 0")
    matrix.start()
    parked = [name for name in OF_RECORDS if TROUBLES[name].parked]
    history = rig.db.history()
    for name in parked:
        own = [c for c in history if c.table == TROUBLES[name].table]
        rig.wait_arrived(checker.expected_count(own), matrix.receivers[name])
        report = checker.judge(matrix.receivers[name].poll(), own)
        assert report.ok, f"{name}: {report}"
