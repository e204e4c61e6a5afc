"""The fault matrix: every way an endpoint can be ill, while walpost is killed and stopped.

Random transactions run all the time; the one checker judges what arrived.
"""

import email.utils
import time

import pytest
from load import Writers
from machine import wait_for


def answer(status, **more):
    return [{"action": "answer", "status": status, **more}]


def in_seconds(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


FAULTS = {
    "301": answer(301, location="http://127.0.0.1:9/elsewhere"),
    "400": answer(400),
    "401": answer(401),
    "403": answer(403),
    "404": answer(404),
    "407": answer(407),
    "408": answer(408),
    "413": answer(413),
    "422": answer(422),
    "425": answer(425),
    "429": answer(429),
    "429 until a date in the past": answer(429, retry_after=in_seconds(-86400)),
    "429 until a second from now": answer(429, retry_after="1"),
    "429 until nonsense": answer(429, retry_after="soon"),
    "500": answer(500),
    "501": answer(501),
    "502": answer(502),
    "503": answer(503),
    "504": answer(504),
    "599": answer(599),
    "slow": [{"action": "slow"}],
    "late": answer(200, delay_ms=400),
    "hangs": [{"action": "hang"}],
    "reads no body": [{"action": "stall-read"}],
    "reset": [{"action": "reset"}],
    "closed": [{"action": "close"}],
    "half an answer": [{"action": "half"}],
    "endless answer": [{"action": "huge"}],
    "flapping": [{"every": 2, "action": "reset"}, {"every": 3, "action": "answer", "status": 503}],
    "failing at random": [{"p": 0.4, "seed": 7, "action": "answer", "status": 503},
                          {"p": 0.2, "seed": 8, "action": "close"}],
    "refused connections": None,
}


class Fault:
    """What the receiver does from now on, until it behaves."""

    def __init__(self, rig, rules):
        self.rig, self.rules = rig, rules
        if rules is None:
            rig.receiver.kill()
        else:
            rig.receiver.control(*rules)

    def wait_felt(self):
        """Two requests have ended since this call, one of which began after it."""
        before = self._ended()
        wait_for("the fault is felt", lambda: self._ended() >= before + 2, 30,
                 tail=self.rig.walpost.tail)

    def _ended(self):
        return self.rig.walpost.metric("walpost_requests_total")

    def end(self):
        if self.rules is None:
            self.rig.receiver.start()
        else:
            self.rig.receiver.behave()


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(rig, fault, seed):
    Writers.tables(rig.db)
    rig.start(concurrency=4, batch_size=10, timeout="1s")
    with Writers(rig.db, seed, threads=1):
        rig.wait_arrived(20)
        ill = Fault(rig, FAULTS[fault])
        ill.wait_felt()
        rig.walpost.kill()
        rig.walpost.start(databases=[rig.db])
        ill.wait_felt()
        assert rig.walpost.stop() == 0, rig.walpost.tail()
        rig.walpost.start(databases=[rig.db])
        ill.wait_felt()
        ill.end()
    rig.assert_whole()
