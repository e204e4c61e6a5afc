"""Ports, folders, deadlines and processes: what every part of the harness needs."""

import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
IS_ROOT = os.geteuid() == 0


def build_dir():
    """Where the programs under test were built."""
    return pathlib.Path(os.environ.get("WALPOST_BUILD", ROOT / "build" / "release"))


class Ports:
    """Free ports below the range from which the kernel takes client ports.

    Every xdist worker counts in a range of its own, so that two workers never
    take the same port between looking and listening.
    """

    def __init__(self):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        self._first = 20000 + 2000 * (int(worker[2:]) % 5)
        self._n = os.getpid() % 1000

    def take(self):
        for _ in range(2000):
            self._n = (self._n + 1) % 2000
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self._first + self._n))
                except OSError:
                    continue
                return self._first + self._n
        raise RuntimeError("no free port")


PORTS = Ports()


class Deadline:
    """`while deadline.left(): ...` polls with a short pause; says how long it took.

    What takes long is looked at less often: others wait for the processor meanwhile."""

    def __init__(self, seconds, pause=0.02):
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.pause = pause
        self._first = True

    def left(self):
        if self._first:
            self._first = False
            return True
        now = time.monotonic()
        if now >= self.end:
            return False
        time.sleep(max(self.pause, min(0.1, (now - self.start) / 20)))
        return True


def wait_for(what, condition, seconds=60, pause=0.02, tail=None):
    """Polls until condition() is true and returns its value; fails with what was waited for.

    The limit is for a machine that is busy with others: it says nothing about how long it should take."""
    deadline = Deadline(seconds, pause)
    value = None
    while deadline.left():
        value = condition()
        if value:
            return value
    raise AssertionError(f"not within {seconds} s: {what}" + (f"\n{tail()}" if tail else ""))


def stays(what, condition, seconds, tail=None):
    """The condition holds now and for so long."""
    deadline = Deadline(seconds, 0.1)
    while deadline.left():
        assert condition(), f"did not stay so for {seconds} s: {what}" + (f"\n{tail()}" if tail else "")


def tail_of(path, lines=40):
    path = pathlib.Path(path)
    if not path.exists():
        return f"--- {path}: not there"
    text = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([f"--- the last lines of {path}:"] + text)


def server_user():
    """PostgreSQL refuses to run as root: the user it runs as, or None for ourselves."""
    if not IS_ROOT:
        return None
    pwd.getpwnam("postgres")
    return "postgres"


def as_server_user():
    """Arguments for subprocess that make the child run as server_user()."""
    user = server_user()
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [],
            "env": dict(os.environ, HOME="/tmp", LC_ALL="C.UTF-8")}


class Process:
    """A child of ours, ended by its own pid and by nothing else."""

    def __init__(self, args, log, **kwargs):
        self.log = pathlib.Path(log)
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL,
                                          stdout=out, stderr=subprocess.STDOUT, **kwargs)
        self.pid = self.popen.pid

    @property
    def is_running(self):
        return self.popen.poll() is None

    def wait(self, seconds=60):
        """The exit code (negative: the signal)."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.popen.args[0]} did not end within {seconds} s\n"
                                 + tail_of(self.log)) from None

    def signal(self, number):
        if self.is_running:
            self.popen.send_signal(number)

    def kill(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self, seconds=60):
        self.signal(signal.SIGTERM)
        return self.wait(seconds)
