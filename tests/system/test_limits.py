"""What the machine gives walpost too little of is told as that, and harms nothing."""

import http.client
import resource

import pytest
from machine import wait_for

pytestmark = pytest.mark.sanitized


def test_a_lack_of_file_descriptors_is_told_as_ours(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(concurrency=1)
    rig.db.sql("INSERT INTO t VALUES (1, 'x')")
    rig.assert_whole()
    pid = rig.walpost.process.pid
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Asked on a connection that there is already: a new one has no descriptor, either.
    health = http.client.HTTPConnection("127.0.0.1", rig.walpost.port, timeout=60)

    def readyz():
        health.request("GET", "/readyz")
        return health.getresponse().read().decode()
    try:
        readyz()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, most))
        rig.receiver.control({"action": "reset", "count": 1})  # of the connection that there is
        rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(2, 50) g")
        wait_for("it is told", lambda: "no file descriptor left; raise its limit of 3, ulimit -n" in readyz(),
                 60, tail=rig.tail)
        assert rig.walpost.events("own_trouble")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        health.close()
    rig.assert_whole()
