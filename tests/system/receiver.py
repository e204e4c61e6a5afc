"""The HTTP receiver (tests/receiver): records what it gets, misbehaves on command."""

import json
import pathlib
import urllib.parse
import urllib.request

import checker
from machine import PORTS, Process, build_dir, tail_of, wait_for


class Receiver:
    """One receiver on a port that it keeps over restarts; every start writes a log of its own."""

    def __init__(self, folder, name="receiver", start=True):
        self.folder, self.name = pathlib.Path(folder), name
        self.port = PORTS.take()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.logs = []
        self.arrivals = checker.Arrivals()
        self.followers = []
        self.process = None
        if start:
            self.start()

    def start(self):
        log = self.folder / f"{self.name}-{len(self.logs)}.log"
        port_file = self.folder / f"{self.name}.port"
        port_file.unlink(missing_ok=True)
        self.logs.append(log)
        self.followers.append(checker.Follower(log, self.arrivals))
        self.process = Process(
            [build_dir() / "tests" / "receiver", "--listen", f"127.0.0.1:{self.port}",
             "--log", log, "--port-file", port_file], self.folder / f"{self.name}.out")

        def listens():
            assert self.process.is_running, self.tail()
            return port_file.exists() and port_file.read_text().strip()
        wait_for("the receiver listens", listens, tail=self.tail)

    def kill(self):
        self.process.kill()

    def tail(self):
        return tail_of(self.folder / f"{self.name}.out")

    def _call(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         data=body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def control(self, *rules):
        """Each rule is a dict; the first that matches a request decides.  None: answer 200."""
        lines = []
        for rule in rules:
            lines.append(" ".join(f"{k}={urllib.parse.quote(str(v), safe='')}"
                                  for k, v in rule.items()))
        self._call("POST", "/_control", "\n".join(lines).encode())

    def behave(self):
        self.control()

    def stats(self):
        return json.loads(self._call("GET", "/_stats"))

    def poll(self):
        """Reads what was logged since; returns the arrivals."""
        for follower in self.followers:
            follower.poll()
        return self.arrivals

    def requests(self):
        """Every request of every log so far."""
        return [request for log in self.logs if log.exists()
                for request, _ in checker.read_requests(log)]

    def records(self):
        """Accepted records in order of arrival, repeats included, as plain objects."""
        return [record for request in self.requests() if request.accepted and request.body
                for record, _ in request.arrived()]

    def stop(self):
        if self.process and self.process.is_running:
            self.process.kill()
