"""The program under test: its file, its process, its pages."""

import contextlib
import copy
import pathlib
import re
import signal
import subprocess
import urllib.error
import urllib.request

import yaml
from machine import PORTS, Process, build_dir, tail_of, wait_for
from postgres import PASSWORD


def merge(base, changes):
    """changes over base, key by key; None removes a key."""
    out = copy.deepcopy(base)
    for key, value in (changes or {}).items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merge(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def source(of, /, **changes):
    """The connection to a database of the harness."""
    return {"type": "postgresql", "configuration": merge(
        {"hostname": "127.0.0.1", "port": of.server.port, "database": of.name,
         "username": "walpost", "password": PASSWORD, "ssl": False, "change_detection": True,
         "publication": "walpost"}, changes)}


def webhook(to, /, **changes):
    return {"type": "webhook", "configuration": merge({"url": to, "auth_method": "none"}, changes)}


def sync(source_name, destination, tables=None, backfill=False, **delivery):
    out = {"source_connection": source_name, "destination_connection": destination,
           "mode": "replicate", "default_schedule": {"frequency": "continuous"},
           "skip_initial_backfill": not backfill}
    if tables:
        out["schemas"] = list(tables)
    if delivery:
        out["destination_configuration"] = delivery
    return out


def is_defect(line):
    """Is it what a sanitizer, or an assertion, found in the program?  That is never the machine's fault."""
    return not line.startswith("ts=") and any(
        text in line for text in ("Sanitizer: ", " runtime error: ", "event=assertion_failed"))


class Walpost:
    """One data_dir, one file, at most one process at a time."""

    def __init__(self, folder, config, build=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binary = pathlib.Path(build or build_dir()) / "walpost"
        self.file = self.folder / "walpost.yaml"
        self.log = self.folder / "walpost.log"
        self.port = PORTS.take()
        self.config = merge({"data_dir": str(self.folder / "data"),
                             "listen": f"127.0.0.1:{self.port}"}, config)
        self.data = pathlib.Path(self.config["data_dir"])
        self.process = None
        self.within = []  # a command that becomes the one that is given to it
        self.write()

    def write(self, config=None):
        self.config = config or self.config
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))

    def tail(self):
        return tail_of(self.log)

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def spawn(self, environment=None):
        """Starts `run` and returns at once."""
        assert not (self.process and self.process.is_running)
        self.process = Process([*self.within, self.binary, "run", "-c", self.file], self.log,
                               env=environment)
        return self

    def start(self, environment=None, databases=()):
        """Starts `run` and waits until it is ready and its slots are being read."""
        self.spawn(environment)
        self.wait_ready()
        for database in databases:
            self.wait_streaming(database)
        return self

    def wait_ready(self, seconds=60):
        def ready():
            assert self.process.is_running, f"walpost ended: {self.process.wait()}\n{self.tail()}"
            return self.get("/readyz")[0] == 200
        wait_for("/readyz is 200", ready, seconds, tail=self.tail)

    def wait_streaming(self, database, seconds=60):
        def active():
            assert self.process.is_running, f"walpost ended: {self.process.wait()}\n{self.tail()}"
            slots = database.slots()
            # One that is still being made is active, too, and has no position.
            return slots and all(is_active and lsn is not None for _, is_active, lsn in slots)
        wait_for(f"the slot of {database.name} is read", active, seconds, tail=self.tail)

    def kill(self):
        self.process.kill()

    def stop(self, seconds=60):
        """SIGTERM; the exit code."""
        return self.process.stop(seconds)

    def restart(self, databases=()):
        if self.process and self.process.is_running:
            self.kill()
        return self.start(databases=databases)

    def end(self):
        if self.process and self.process.is_running:
            self.process.kill()

    def assert_sound(self):
        found = [line for line in self.log_text().splitlines() if is_defect(line)]
        assert not found, "\n".join([*found, self.tail()])

    def command(self, *args, seconds=60, environment=None):
        """A command of the program with this file; a finished process with its output."""
        return subprocess.run([self.binary, *args, "-c", self.file], capture_output=True, text=True,
                              timeout=seconds, stdin=subprocess.DEVNULL, env=environment)

    def get(self, path):
        """(status, body); (0, reason) when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self):
        """{'name{labels}': value}"""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {m[1]: float(m[2]) for m in re.finditer(r"^([a-zA-Z_:][^ ]*(?:\{.*\})?) (\S+)$", text,
                                                       re.MULTILINE)}

    def metric(self, name, **labels):
        """The sum of a metric's series that carry these labels."""
        total, found = 0.0, False
        for series, value in self.metrics().items():
            bare, _, rest = series.partition("{")
            if bare == name and all(f'{k}="{v}"' in rest for k, v in labels.items()):
                total, found = total + value, True
        assert found, f"no metric {name} {labels}"
        return total

    def memory_kib(self, field="VmRSS"):
        """VmRSS or VmHWM (the peak) of the running process."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"{field}:\s+(\d+)", status.read())[1])

    def disk_bytes(self):
        """Of all files; one may go while they are counted."""
        total = 0
        for file in self.data.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += file.stat().st_size if file.is_file() else 0
        return total

    def events(self, name=None):
        """Log lines as dicts of their fields (logfmt)."""
        out = []
        for line in self.log_text().splitlines():
            if not line.startswith("ts="):
                continue
            fields = _fields(line)
            if name is None or fields.get("event") == name:
                out.append(fields)
        return out

    def sigstop(self):
        """Returns when every thread stands still: one may run on for a while on a busy machine."""
        self.process.signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        wait_for("walpost is stopped", lambda: all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
            for task in tasks.iterdir()))

    def sigcont(self):
        self.process.signal(signal.SIGCONT)


def _fields(line):
    fields = {}
    for name, quoted, bare in re.findall(r'(\w+)=(?:"((?:\\.|[^"\\])*)"|(\S*))', line):
        fields[name] = quoted.replace('\\"', '"').replace("\\n", "\n") if quoted else bare
    return fields
