"""Fixtures: a server per worker, a fresh database per test, and a rig that joins the parts."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent.parent), str(pathlib.Path(__file__).parent)]

import checker  # noqa: E402
import machine  # noqa: E402
from load import seed_of_run  # noqa: E402
from postgres import VERSION, Server  # noqa: E402
from receiver import Receiver  # noqa: E402
from stream import OPERATIONS, Stream  # noqa: E402
from walpost import Walpost, is_defect, source, sync, webhook  # noqa: E402


@pytest.fixture(scope="session")
def base():
    """A folder that the server's user can enter; removed unless WALPOST_KEEP is set."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="walpost-tests-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    if not os.environ.get("WALPOST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(base):
    """The server that most tests share; nobody restarts it or changes its settings."""
    server = Server(base / "shared")
    yield server
    server.destroy()


@pytest.fixture
def folder(base, request):
    """A folder for this test alone."""
    name = "".join(c if c.isalnum() or c in "-_" else "_" for c in request.node.name)[:24]  # socket paths are short
    folder = pathlib.Path(tempfile.mkdtemp(prefix=name + "-", dir=base))
    folder.chmod(0o755)
    yield folder
    failed = getattr(request.node, "failed", False)
    if not failed and not os.environ.get("WALPOST_KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_server(folder):
    """Makes a server that the test may stop, kill and configure: own_server(settings)."""
    servers = []

    def make(settings=None):
        servers.append(Server(folder / f"server{len(servers)}", settings))
        return servers[-1]
    yield make
    for server in servers:
        server.destroy()


@pytest.fixture
def db(server):
    database = server.database()
    yield database
    database.drop()


@pytest.fixture
def rig(folder, db):
    """The usual assembly over the shared server."""
    rig = Rig(folder, db)
    yield rig
    rig.end()


@pytest.fixture(scope="module")
def module_rig(base, server, request):
    """The same for tests of a module that share one run and only look at what arrived."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=request.module.__name__[:24] + "-", dir=base))
    folder.chmod(0o755)
    database = server.database()
    rig = Rig(folder, database)
    yield rig
    rig.end()
    database.drop()


@pytest.fixture
def make_rig(folder):
    """The assembly over a database of the test's choice: make_rig(database)."""
    rigs = []

    def make(database):
        rigs.append(Rig(folder, database))
        return rigs[-1]
    yield make
    for rig in rigs:
        rig.end()


@pytest.fixture
def note(record_property):
    """note("...") prints a measured fact, and again at the end of the run."""
    def write(text):
        print(text)
        record_property("note", text)
    return write


@pytest.fixture
def seed(note):
    """Of everything random in a test; the same again with WALPOST_SEED=..."""
    seed = seed_of_run()
    note(f"WALPOST_SEED={seed}")
    return seed


class Rig:
    """A database, walpost, and receivers; everything that it started ends with it."""

    def __init__(self, folder, db):
        self.folder, self.db = folder, db
        self.receivers = {}
        self.walposts = []

    @property
    def walpost(self):
        return self.walposts[0]

    @property
    def receiver(self):
        return next(iter(self.receivers.values()))

    def add_receiver(self, name="hook", start=True):
        self.receivers[name] = Receiver(self.folder, name, start)
        return self.receivers[name]

    def config(self, tables=None, syncs=None, change=None, hook=None, connection=None, **delivery):
        """The file: one sync to the first receiver, or the given ones."""
        if not self.receivers:
            self.add_receiver()
        out = {
            "connections": {self.db.name: source(self.db, **(connection or {}))},
            "bulk_syncs": syncs or {"main": sync(self.db.name, self.receiver.name, tables,
                                                 **delivery)},
        }
        for name, receiver in self.receivers.items():
            out["connections"][name] = webhook(receiver.url, **(hook or {}))
        for key, value in (change or {}).items():
            out[key] = value
        return out

    def prepare(self, *args, build=None, **kwargs):
        """A walpost with its file, not started."""
        name = f"walpost{len(self.walposts)}"
        self.walposts.append(Walpost(self.folder / name, self.config(*args, **kwargs), build))
        return self.walposts[-1]

    def start(self, *args, build=None, **kwargs):
        """A walpost that reads the slot."""
        walpost = self.prepare(*args, build=build, **kwargs)
        return walpost.start(databases=[self.db])

    def sync(self, receiver, tables=None, **delivery):
        return sync(self.db.name, receiver, tables, **delivery)

    def wait_arrived(self, n, receiver=None, seconds=120):
        """Until n different records have been accepted."""
        receiver = receiver or self.receiver

        def arrived():
            return len(receiver.poll().records) >= n
        machine.wait_for(
            f"{n} records at {receiver.name}", arrived, seconds, 0.03,
            tail=lambda: f"{len(receiver.arrivals.records)} have arrived\n{self.tail()}")

    def settle(self, receiver=None, seconds=120, tables=None):
        """Until everything the history asks for has arrived; the history."""
        history = self.db.history(tables)
        self.wait_arrived(checker.expected_count(history), receiver, seconds)
        return history

    def verdict(self, receiver=None, seconds=120, tables=None):
        """settle(), then the checker's report."""
        receiver = receiver or self.receiver
        history = self.settle(receiver, seconds, tables)
        return checker.judge(receiver.poll(), history)

    def assert_whole(self, receiver=None, seconds=120, tables=None):
        """Everything arrived, and the checker finds nothing; the report."""
        report = self.verdict(receiver, seconds, tables)
        assert report.ok, f"{report}\n{self.tail()}"
        return report

    def assert_repeated(self, n, why):
        """Everything arrived, and n records twice: the repeats may come after all the rest."""
        machine.wait_for(f"{n} repeats: {why}", lambda: self.assert_whole().repeats >= n,
                         tail=self.tail)
        assert self.assert_whole().repeats == n, why

    def tail(self):
        return "\n".join(w.tail() for w in self.walposts)

    def end(self):
        for walpost in self.walposts:
            walpost.end()
        for receiver in self.receivers.values():
            receiver.stop()
        for walpost in self.walposts:
            walpost.assert_sound()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if outcome.get_result().failed:
        item.failed = True


def pytest_addoption(parser):
    parser.addoption("--again", metavar="FILE", help="runs what failed once more, each alone, unless there is much"
                     " of it, and appends to the file what passed then, with how it failed first")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """What failed is run once more, when nothing else is running any more."""
    config = session.config
    if config.option.again and session.exitstatus == pytest.ExitCode.TESTS_FAILED and not hasattr(config, "workerinput"):
        again(session, config.pluginmanager.get_plugin("terminalreporter"))


def again(session, reporter):
    bad = reporter.getreports("failed") + reporter.getreports("error")
    tests = list(dict.fromkeys(report.nodeid for report in bad))
    if not all("::" in test for test in tests) or len(tests) > 3:
        return
    proved = {report.nodeid for report in bad if any(map(is_proof, report.longreprtext.splitlines()))}
    for test in tests:
        if test in proved:
            continue
        reporter.ensure_newline()
        reporter.section(f"once more, alone: {test}")
        alone = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", "-q", session.config.rootpath / test],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        reporter.write(alone.stdout)
        if alone.returncode != 0:
            continue
        reports = [report for report in bad if report.nodeid == test]
        with open(session.config.option.again, "a") as file:
            of = f"{machine.build_dir().name}, PostgreSQL {VERSION}"
            file.write(f"UNSTEADY {of}: {test} passed only alone: {short(reports[0])}\n")
            for report in reports:
                file.write(f"{report.longreprtext}\n" + "".join(f"{text}\n" for _, text in report.sections))
        for outcome in ("failed", "error"):
            reporter.stats[outcome] = [r for r in reporter.getreports(outcome) if r.nodeid != test]
        if not any(r.nodeid == test and r.when == "call" for r in reporter.getreports("passed")):
            reporter.stats.setdefault("passed", []).append(reports[0])
    if not reporter.getreports("failed") and not reporter.getreports("error"):
        session.exitstatus = pytest.ExitCode.OK


def is_proof(line):
    """Of a defect, whatever comes of it the next time: what did not come may be late, but nothing else is luck."""
    _, is_verdict, kinds = line.partition(" repeats, findings: {")
    return is_defect(line) or (is_verdict and any(word[0] == "'" and word != "'missing':" for word in kinds.split()))


def short(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else report.longreprtext).splitlines()[0]


def pytest_terminal_summary(terminalreporter):
    """What the tests noted, passed or failed: seeds, times, memory; and what passed only alone, here or before."""
    lines = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call":
                lines += [f"{report.nodeid.split('::')[-1]}: {value}"
                          for name, value in report.user_properties if name == "note"]
    unsteady = pathlib.Path(terminalreporter.config.option.again or os.devnull)
    told = [line for line in unsteady.read_text().splitlines() if line.startswith("UNSTEADY ")] if unsteady.exists() else []
    for title, of in ("notes", lines), (f"passed only alone; see {unsteady}", told):
        if of:
            terminalreporter.section(title)
            for line in of:
                terminalreporter.line(line)


def pytest_collection_modifyitems(items):
    """The long ones first, so that both workers end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def streams(base, server):
    """streams(options): a walpost for the stories of stream.py, shared by all that ask for the same.

    options: of a publication FOR ALL TABLES, or, from TABLE on, what it is for; None: TABLE mark.
    The server spills what is larger than 64 kB, as it does with large transactions."""
    made = {}

    def make(options, operations=tuple(OPERATIONS)):
        if (options, operations) not in made:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="stream-", dir=base))
            folder.chmod(0o755)
            rig = Rig(folder, server.database())
            rig.db.sql("CREATE TABLE mark (id int PRIMARY KEY)")
            of = "TABLE mark" if options is None else options
            server.sql("CREATE PUBLICATION walpost FOR " + (of if of.startswith("TABLE") else f"ALL TABLES {of}"),
                       database=rig.db.name)
            server.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET logical_decoding_work_mem = '64kB'")
            made[options, operations] = Stream(rig, operations)
            rig.start(order="sync", operations=list(operations))
        return made[options, operations]
    yield make
    for stream in made.values():
        stream.rig.end()
        stream.rig.db.drop()
