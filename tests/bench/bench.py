"""The benchmark; tests/bench/run.sh builds what it measures and calls it.

One scratch PostgreSQL, settings of its own distribution but for wal_level and a
roomy max_wal_size.  Every stage loads its rows once, keeps the slot made before
the load, and gives each round an equal copy of that slot.  Rounds of the
reference and of walpost alternate; medians are reported, every round is in the
JSON file.

Memory is VmHWM, processor time is utime + stime of /proc/PID/stat, each of the
process that a round started for itself.
"""

import argparse
import contextlib
import datetime
import http.server
import json
import os
import pathlib
import platform
import pwd
import random
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PG_BIN = pathlib.Path("/usr/lib/postgresql/15/bin")
STAGES = ("drain", "steady", "single", "latency", "memory", "backfill", "endpoints", "skew")
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20

# About 350 bytes in PostgreSQL's text form, in the types that tables have.
SCHEMA = """
create table public.orders (
    id bigint primary key, customer_id int, product_id int, quantity int, status text, email text,
    note text, price numeric(12,2), attributes jsonb, tags text[], created_at timestamptz,
    placed_at timestamp, is_paid bool);
create sequence order_id;
create function order_row(i bigint) returns setof public.orders stable language sql as $$
    select i, (i * 7919 % 100000)::int, (i * 31 % 5000)::int, (i % 9 + 1)::int,
           (array['new','packed','shipped','returned'])[i % 4 + 1],
           'customer' || (i * 7919 % 100000) || '@example.com',
           'Leave it with the neighbour at number ' || (i % 200) || ', please ring twice. Reference ' || md5(i::text),
           ((i * 37 % 1000000)::numeric / 100)::numeric(12,2),
           jsonb_build_object('colour', (array['red','green','blue'])[i % 3 + 1], 'weight_g', i % 4000,
                              'gift', i % 5 = 0, 'batch', 'B' || (i % 977)),
           array['tag' || (i % 10), 'shelf' || (i % 37), 'promo'],
           timestamptz '2026-01-01 00:00:00+00' + (i * 1234567 % 31536000000000) * interval '1 us',
           timestamp '2026-01-01 00:00:00' + (i * 7654321 % 31536000000000) * interval '1 us',
           i % 3 <> 0
$$;
create procedure load_orders(first bigint, last bigint, each bigint) language plpgsql as $$
begin
    for i in 0 .. (last - first) / each loop
        insert into public.orders
            select o.* from generate_series(first + i * each, least(last, first + (i + 1) * each - 1)) g,
                            lateral order_row(g) o;
        commit;
    end loop;
end $$;
create table picks (n bigint primary key, id bigint);
create procedure update_orders(total bigint, each bigint) language plpgsql as $$
begin
    for i in 0 .. (total - 1) / each loop
        for k in i * each .. least(total, (i + 1) * each) - 1 loop
            update public.orders set quantity = quantity + 1 where id = (select p.id from picks p where p.n = k);
        end loop;
        commit;
    end loop;
end $$;
create publication bench for table public.orders;
"""


class Failed(Exception):
    """A sentence for the person who runs the benchmark."""


def say(text):
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def median(values):
    return statistics.median(values) if values else None


# --- processes ---------------------------------------------------------------------------


def proc_cpu_s(pid):
    """User and system time of a process so far, or None when it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def proc_peak_bytes(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


class Usage(threading.Thread):
    """Samples processes while a round runs: most of them end by themselves.  disk: a folder."""

    def __init__(self, disk=None):
        super().__init__(daemon=True)
        self.pids, self.cpu_s, self.peak_bytes = {}, {}, {}
        self.disk, self.disk_peak_bytes, self.disk_log = disk, 0, []
        self.ended = threading.Event()

    def watch(self, name, pid):
        self.pids[name] = pid
        self.sample()

    def sample(self):
        for name, pid in list(self.pids.items()):
            cpu, peak = proc_cpu_s(pid), proc_peak_bytes(pid)
            if cpu is not None:
                self.cpu_s[name] = cpu
            if peak is not None:
                self.peak_bytes[name] = peak
        if self.disk:
            size = folder_bytes(self.disk)
            self.disk_peak_bytes = max(self.disk_peak_bytes, size)
            self.disk_log.append((time.time(), size))

    def run(self):
        while not self.ended.wait(0.05):
            self.sample()

    def end(self):
        self.sample()
        self.ended.set()
        self.join()
        return {"cpu_s": {k: round(v, 2) for k, v in self.cpu_s.items()},
                "peak_rss_mib": {k: round(v / MIB, 1) for k, v in self.peak_bytes.items()}}


def folder_bytes(folder):
    total = 0
    for path in pathlib.Path(folder).rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


class Process:
    """A child whose output goes to a file; ended by its own pid only."""

    alive = []

    def __init__(self, args, log, env=None, user=None):
        who = {}
        if user and os.geteuid() == 0:
            account = pwd.getpwnam(user)
            who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.args, self.log = [str(a) for a in args], pathlib.Path(log)
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          env={**os.environ, **(env or {})}, start_new_session=True,
                                          cwd=self.log.parent, **who)
        Process.alive.append(self)

    @property
    def pid(self):
        return self.popen.pid

    @property
    def ended(self):
        return self.popen.poll() is not None

    def must_live(self):
        if self.ended:
            raise Failed(f"{pathlib.Path(self.args[0]).name} ended with {self.popen.returncode}:\n"
                         + self.tail())

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def wait(self, seconds):
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(self.args[:2])} did not end in {seconds} s:\n{self.tail()}") from None
        if code:
            raise Failed(f"{' '.join(self.args[:2])} ended with {code}:\n{self.tail()}")

    def stop(self, how=signal.SIGTERM, seconds=15):
        if not self.ended:
            self.popen.send_signal(how)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        if self in Process.alive:
            Process.alive.remove(self)

    @classmethod
    def stop_all(cls):
        for process in reversed(cls.alive[:]):
            process.stop(signal.SIGINT if process.args[0].endswith("/postgres") else signal.SIGTERM)


# --- the server --------------------------------------------------------------------------


class Server:
    """A scratch PostgreSQL 15 with one role, `bench`, on a port of its own."""

    SETTINGS = {"wal_level": "logical", "max_wal_size": "32GB", "max_replication_slots": "30",
                "max_wal_senders": "20"}

    def __init__(self, folder):
        if not (PG_BIN / "postgres").exists():
            raise Failed("PostgreSQL 15 is missing: apt-get install postgresql-15")
        self.folder = folder / "postgres"
        self.folder.mkdir()
        self.port = free_port()
        self.password = secrets.token_hex(16)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        os.chmod(self.folder, 0o700)
        self.env = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "bench",
                    "PGDATABASE": "postgres", "PGPASSWORD": self.password, "LC_ALL": "C.UTF-8"}
        pwfile = self.folder / "pw"
        pwfile.touch(mode=0o600)
        pwfile.write_text(self.password)
        if os.geteuid() == 0:
            shutil.chown(pwfile, "postgres", "postgres")
        say("making a scratch PostgreSQL")
        Process([PG_BIN / "initdb", "-D", self.folder / "data", "-U", "bench", "-A", "scram-sha-256",
                 "--pwfile", pwfile, "-E", "UTF8", "--locale=C.UTF-8"], folder / "initdb.log",
                user="postgres").wait(120)
        options = [f"-c{k}={v}" for k, v in self.SETTINGS.items()]
        self.process = Process(
            [PG_BIN / "postgres", "-D", self.folder / "data", "-p", self.port,
             "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={self.folder}", *options],
            folder / "postgres.log", user="postgres")
        for _ in range(300):
            self.process.must_live()
            if subprocess.run([PG_BIN / "pg_isready", "-q"], env={**os.environ, **self.env},
                              check=False).returncode == 0:
                break
            time.sleep(0.1)
        self.sql(SCHEMA)

    def sql(self, text, database=None):
        """Runs SQL; the rows as lists of text."""
        env = {**os.environ, **self.env, **({"PGDATABASE": database} if database else {})}
        done = subprocess.run([PG_BIN / "psql", "-XAqt", "-F\x1f", "-vON_ERROR_STOP=1"], input=text,
                              env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"SQL failed: {done.stderr.strip()}\n{text[:500]}")
        return [line.split("\x1f") for line in done.stdout.splitlines() if line]

    def value(self, text):
        return self.sql(text)[0][0]

    def make_slot(self, name):
        self.sql(f"select pg_create_logical_replication_slot('{name}', 'pgoutput')")

    def copy_slot(self, source, name):
        self.sql(f"select pg_copy_logical_replication_slot('{source}', '{name}')")

    def drop_slot(self, name):
        for _ in range(100):
            rows = self.sql(f"select active from pg_replication_slots where slot_name = '{name}'")
            if not rows:
                return
            if rows[0][0] == "f":
                self.sql(f"select pg_drop_replication_slot('{name}')")
                return
            time.sleep(0.1)
        raise Failed(f"the slot {name} is still being read")

    def walsender(self, slot, reader, seconds=20):
        """The pid of the process that serves a slot; None when the reader is already done."""
        end = time.time() + seconds
        while time.time() < end and not reader.ended:
            rows = self.sql(f"select active_pid from pg_replication_slots where slot_name = '{slot}'")
            if rows and rows[0][0]:
                return int(rows[0][0])
            time.sleep(0.02)
        return None

    def load(self, rows, each):
        """New rows in transactions of `each`; returns the position after them."""
        say(f"loading {rows:,} rows, {each:,} per transaction")
        first = int(self.value("select coalesce(max(id), 0) + 1 from public.orders"))
        self.sql(f"call load_orders({first}, {first + rows - 1}, {each})")
        self.sql("select pg_switch_wal(); checkpoint")
        return self.value("select pg_current_wal_flush_lsn()")

    def update(self, ids, each):
        """Updates of these rows, one after the other."""
        self.sql("truncate picks")
        self.sql("insert into picks values " + ",".join(f"({n},{i})" for n, i in enumerate(ids)))
        self.sql(f"vacuum analyze picks; call update_orders({len(ids)}, {each})")

    def empty(self):
        self.sql("truncate public.orders; checkpoint")


class Load:
    """Rows behind a slot; every round gets an equal slot of its own."""

    def __init__(self, server, rows, each):
        self.server, self.rows, self.each = server, rows, each
        self.base, self.count = "base_" + secrets.token_hex(4), 0
        server.empty()
        server.make_slot(self.base)
        self.end = server.load(rows, each)
        self.row_bytes = float(server.value(
            "select round(avg(length(o::text)), 1) from "
            "(select * from public.orders order by id limit 10000) o"))

    @contextlib.contextmanager
    def slot(self, name=None):
        self.count += 1
        name = name or f"{self.base}_{self.count}"
        self.server.copy_slot(self.base, name)
        self.server.sql("checkpoint")
        try:
            yield name
        finally:
            self.server.drop_slot(name)

    def close(self):
        self.server.drop_slot(self.base)


# --- the two programs --------------------------------------------------------------------


class Receiver:
    def __init__(self, bench, latency=False):
        self.port_file = bench.new_folder("receiver") / "port"
        self.process = Process(
            [bench.program("receiver"), "--listen", "127.0.0.1:0", "--port-file", self.port_file,
             *(["--latency"] if latency else [])], self.port_file.parent / "log")
        for _ in range(100):
            self.process.must_live()
            if self.port_file.exists() and self.port_file.read_text().strip():
                break
            time.sleep(0.05)
        else:
            raise Failed("the receiver does not listen:\n" + self.process.tail())
        self.base = f"http://127.0.0.1:{int(self.port_file.read_text())}"
        self.url = self.base + "/hook"

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.base + path, method=method,
                                         data=body.encode() if body is not None else None)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    def stats(self):
        return json.loads(self.call("GET", "/_stats"))

    def wait_records(self, n, process, stall_s=60):
        """Until n records were accepted; fails when none has come for stall_s."""
        seen, since = -1, time.time()
        while True:
            stats = self.stats()
            if stats["records"] >= n:
                return stats
            process.must_live()
            if stats["records"] != seen:
                seen, since = stats["records"], time.time()
            elif time.time() - since > stall_s:
                raise Failed(f"{seen:,} of {n:,} records arrived, then none for {stall_s} s:\n"
                             + process.tail())
            time.sleep(0.05)


class Walpost:
    """One process on a new, empty data_dir; url: of one sync, or a list of several, which share SHARED."""

    SHARED = "walpost_bench"  # the slot of the connection itself

    def __init__(self, bench, slot, url, delivery, buffer=None, backfill=False):
        urls = [url] if isinstance(url, str) else url
        self.folder = bench.new_folder("walpost")
        self.data = self.folder / "data"
        server = bench.server
        lines = [
            f"data_dir: {self.data}", 'listen: ""', "log: {level: warn}",
            "buffer:", "  type: local", *[f"  {k}: {v}" for k, v in (buffer or {}).items()],
            "connections:", "  bench:", "    type: postgresql",
            "    configuration: {hostname: 127.0.0.1, port: %d, database: postgres, username: bench,"
            % server.port,
            f"      password: {server.password}, ssl: false, change_detection: true, publication: bench}}",
            *[line for i, to in enumerate(urls) for line in (
                f"  hook{i}:", "    type: webhook", f"    configuration: {{url: '{to}', auth_method: none}}")],
            "bulk_syncs:"]
        for i in range(len(urls)):
            lines += [
                f"  orders{i}:", "    source_connection: bench", f"    destination_connection: hook{i}",
                "    mode: replicate", "    default_schedule: {frequency: continuous}",
                f"    skip_initial_backfill: {str(not backfill).lower()}",
                *([f"    source_configuration: {{replication_slot: {slot}}}"] if len(urls) == 1 else []),
                "    destination_configuration:", *[f"      {k}: {v}" for k, v in delivery.items()]]
        lines.append("")
        self.file = self.folder / "walpost.yaml"
        self.file.touch(mode=0o600)
        self.file.write_text("\n".join(lines))
        self.started = time.time()
        self.process = Process([bench.program("walpost"), "run", "-c", self.file], self.folder / "log")

    def stop(self):
        self.process.stop()


class FirstBody(http.server.ThreadingHTTPServer):
    """Keeps the body of the first request: what the bare HTTP loop is to post."""

    def __init__(self):
        got = self.got = threading.Event()
        bodies = self.bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                got.set()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"
        threading.Thread(target=self.serve_forever, daemon=True).start()


# --- the stages --------------------------------------------------------------------------


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.count = options, folder, 0
        self.build = pathlib.Path(options.build).resolve()
        self.results = {}
        for name in ("walpost", "receiver", "curl_floor", "raw_floor"):
            self.program(name)
        self.server = Server(folder)

    def program(self, name):
        path = self.build / name if name == "walpost" else self.build / "tests" / name
        if not path.exists():
            raise Failed(f"{path} is missing: build the release preset first (tests/bench/run.sh does)")
        return path

    def new_folder(self, name):
        self.count += 1
        folder = self.folder / f"{self.count:03}-{name}"
        folder.mkdir()
        return folder

    def clean(self, folder):
        if not self.options.keep:
            shutil.rmtree(folder, ignore_errors=True)

    def rounds(self, name, sides):
        """Runs the sides in turn, round by round; {side: [result of each round]}."""
        done = {side: [] for side, _ in sides}
        for i in range(self.options.rounds):
            for side, run in sides:
                result = run()
                done[side].append(result)
                say(f"{name} {i + 1}/{self.options.rounds} {side}: {brief(result)}")
        return done

    # One drain each: from the start of the process to the last row.

    def drain_reference(self, load):
        with load.slot() as slot:
            usage = Usage()
            begin = time.time()
            process = Process(
                [PG_BIN / "pg_recvlogical", "-d", "postgres", "-S", slot, "--start", "-f", "/dev/null", "--no-loop",
                 "--endpos", load.end, "-o", "proto_version=1", "-o", "publication_names=bench"],
                self.folder / "pg_recvlogical.log", env=self.server.env)
            usage.watch("pg_recvlogical", process.pid)
            usage.start()
            sender = self.server.walsender(slot, process)
            if sender:
                usage.watch("walsender", sender)
            process.wait(3600)
            seconds = time.time() - begin
            process.stop()
            return {"seconds": round(seconds, 3), "rows_per_s": round(load.rows / seconds), **usage.end()}

    def drain_walpost(self, load, delivery, buffer=None, rows=None):
        """rows: stop counting there."""
        rows = rows or load.rows
        with load.slot() as slot:
            receiver = Receiver(self)
            walpost = Walpost(self, slot, receiver.url, delivery, buffer)
            usage = Usage(walpost.data if buffer else None)
            usage.watch("walpost", walpost.process.pid)
            usage.watch("receiver", receiver.process.pid)
            usage.start()
            sender = self.server.walsender(slot, walpost.process)
            if sender:
                usage.watch("walsender", sender)
            stats = receiver.wait_records(rows, walpost.process)
            ended = time.time()
            seconds = stats["last_us"] / 1e6 - walpost.started
            used = usage.end()
            disk_bytes = folder_bytes(walpost.data)
            walpost.stop()
            receiver.process.stop()
            if not 0 < seconds <= ended - walpost.started:
                raise Failed(f"the receiver's clock is off: {seconds} s by last_us, "
                             f"{ended - walpost.started} s by ours")
            result = {"seconds": round(seconds, 3), "rows_per_s": round(rows / seconds),
                      "requests": stats["requests"], "repeats": stats["records"] - rows,
                      "disk_mib": round(disk_bytes / MIB, 1), **used}
            if buffer:
                result.update(self.full_part(usage, walpost, stats, buffer["max_bytes"]))
            self.clean(walpost.folder)
            return result

    @staticmethod
    def full_part(usage, walpost, stats, max_bytes):
        """How the files on disk kept to their budget, and when it was first full."""
        full_at = next((at for at, size in usage.disk_log if size >= 0.9 * max_bytes), None)
        return {"disk_peak_mib": round(usage.disk_peak_bytes / MIB, 1),
                "disk_to_budget": round(usage.disk_peak_bytes / max_bytes, 3),
                "full_after_s": round(full_at - walpost.started, 2) if full_at else None,
                "full_share": round((stats["last_us"] / 1e6 - full_at) /
                                    (stats["last_us"] / 1e6 - walpost.started), 3) if full_at else 0}

    def stage_drain(self, load):
        done = self.rounds("drain", [
            ("reference", lambda: self.drain_reference(load)),
            ("walpost", lambda: self.drain_walpost(load, {"batch_size": 100, "concurrency": 8}))])
        ratio = rate(done, "walpost", "rows_per_s") / rate(done, "reference", "rows_per_s")
        return {"rows": load.rows, "row_bytes": load.row_bytes, **done, "ratio": round(ratio, 3),
                "aim": ">= 0.90"}

    def stage_steady(self, load):
        # Delivered chunks are kept while there is room, so a budget of a sixth of what a drain leaves
        # behind is full for most of the run.
        budget = self.options.steady_bytes
        if not budget:
            probe = self.drain_walpost(load, {"batch_size": 100, "concurrency": 8})
            budget = max(16 * MIB, int(probe["disk_mib"] * MIB / 6))
            say(f"steady: a whole drain leaves {probe['disk_mib']} MiB, so max_bytes is {budget:,}")
        done = self.rounds("steady", [
            ("drain", lambda: self.drain_walpost(load, {"batch_size": 100, "concurrency": 8})),
            ("walpost", lambda: self.drain_walpost(load, {"batch_size": 100, "concurrency": 8},
                                                   {"max_bytes": budget}))])
        ratio = rate(done, "walpost", "rows_per_s") / rate(done, "drain", "rows_per_s")
        return {"rows": load.rows, "max_bytes": budget, **done, "ratio": round(ratio, 3),
                "disk_to_budget": max(r["disk_to_budget"] for r in done["walpost"]),
                "full_share": median([r["full_share"] for r in done["walpost"]]),
                "aim": ">= 0.90 of drain, disk <= 1.1 x max_bytes"}

    def stage_single(self, load):
        body = self.new_folder("body") / "body.json"
        catcher = FirstBody()
        with load.slot() as slot:
            walpost = Walpost(self, slot, catcher.url, {"batch_size": 1, "concurrency": 16})
            if not catcher.got.wait(60):
                raise Failed("no request came in 60 s:\n" + walpost.process.tail())
            walpost.stop()
        catcher.shutdown()
        body.write_bytes(catcher.bodies[0])

        def floor():
            receiver = Receiver(self)
            usage = Usage()
            usage.watch("receiver", receiver.process.pid)
            process = Process([self.program("curl_floor"), receiver.url, body, load.rows, 16],
                              body.parent / "curl_floor.log")
            usage.watch("curl_floor", process.pid)
            usage.start()
            process.wait(3600)
            process.stop()
            used = usage.end()
            receiver.process.stop()
            out = json.loads(process.log.read_text().splitlines()[-1])
            return {"seconds": round(out["seconds"], 3), "body_bytes": out["body_bytes"],
                    "requests_per_s": round(out["requests_per_second"]), **used}

        def ours():
            result = self.drain_walpost(load, {"batch_size": 1, "concurrency": 16})
            result["requests_per_s"] = round(result["requests"] / result["seconds"])
            return result

        done = self.rounds("single", [("reference", floor), ("walpost", ours)])
        ratio = rate(done, "walpost", "requests_per_s") / rate(done, "reference", "requests_per_s")
        return {"rows": load.rows, **done, "ratio": round(ratio, 3), "aim": ">= 0.80"}

    # Commit to arrival.

    def write_paced(self):
        """Single-row transactions on pgbench's clock; returns how many."""
        script = self.new_folder("pgbench") / "insert.sql"
        script.write_text("insert into public.orders "
                          "select * from order_row(nextval('order_id'));\n")
        count = self.options.latency_rate * self.options.latency_seconds
        each = count // 2
        done = subprocess.run(
            [PG_BIN / "pgbench", "-n", "-f", script, "-M", "prepared", "-c", "2", "-j", "1",
             "-R", str(self.options.latency_rate), "-t", str(each)],
            env={**os.environ, **self.server.env}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"pgbench failed: {done.stderr.strip()}")
        tps = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps = ")]
        return each * 2, float(tps[0])

    def latency_reference(self):
        count = self.options.latency_rate * self.options.latency_seconds // 2 * 2
        self.server.make_slot("latency")
        try:
            process = Process([self.program("raw_floor"), "latency", "bench", count,
                               self.options.latency_seconds + 60],
                              self.new_folder("raw_floor") / "log", env=self.server.env)
            usage = Usage()
            usage.watch("raw_floor", process.pid)
            usage.start()
            while "ready" not in process.log.read_text():
                process.must_live()
                time.sleep(0.02)
            usage.watch("walsender", self.server.walsender("latency", process))
            time.sleep(1)
            _, tps = self.write_paced()
            process.wait(self.options.latency_seconds + 60)
            process.stop()
            out = json.loads(process.log.read_text().splitlines()[-1])
            return {**out, "tps": round(tps, 1), **usage.end()}
        finally:
            self.server.drop_slot("latency")

    def latency_walpost(self):
        self.server.make_slot("latency")
        try:
            receiver = Receiver(self, latency=True)
            walpost = Walpost(self, "latency", receiver.url, {"batch_size": 100, "concurrency": 8})
            usage = Usage()
            usage.watch("walpost", walpost.process.pid)
            usage.watch("receiver", receiver.process.pid)
            usage.start()
            usage.watch("walsender", self.server.walsender("latency", walpost.process))
            time.sleep(1)
            receiver.call("POST", "/_reset", "")
            count, tps = self.write_paced()
            receiver.wait_records(count, walpost.process)
            out = json.loads(receiver.call("GET", "/_latency"))
            used = usage.end()
            walpost.stop()
            receiver.process.stop()
            self.clean(walpost.folder)
            return {**out, "tps": round(tps, 1), **used}
        finally:
            self.server.drop_slot("latency")

    def stage_latency(self):
        self.server.empty()
        self.server.sql("alter sequence order_id restart")
        sides = [("reference", self.latency_reference), ("walpost", self.latency_walpost)]
        done = self.rounds("latency", sides)
        out = {"transactions_per_s": self.options.latency_rate, "seconds": self.options.latency_seconds,
               **done, "aim": "p50 < 2 ms, p99 < 20 ms"}
        for side, _ in sides:
            for p in ("p50_us", "p99_us"):
                out[f"{side}_{p}"] = median([r[p] for r in done[side]])
        return out

    # Rows that exist.

    def backfill_reference(self, rows):
        """Two connections, each with a half of the table's blocks, at the same time."""
        blocks = int(self.server.value("select pg_relation_size('public.orders') "
                                       "/ current_setting('block_size')::int"))
        usage, copies = Usage(), []
        begin = time.time()
        for i, where in enumerate((f"ctid < '({blocks // 2},0)'", f"ctid >= '({blocks // 2},0)'")):
            sql = f"copy (select to_json(t) from public.orders t where {where}) to stdout"
            process = Process([PG_BIN / "psql", "-XAqt", "-vON_ERROR_STOP=1", "-c", sql, "-o", "/dev/null"],
                              self.folder / "psql.log", env={**self.server.env, "PGAPPNAME": f"half_{i}"})
            usage.watch(f"psql_{i}", process.pid)
            copies.append(process)
        usage.start()
        self.watch_backends(usage, "half%", copies)
        for process in copies:
            process.wait(3600)
        seconds = time.time() - begin
        for process in copies:
            process.stop()
        return {"seconds": round(seconds, 3), "rows_per_s": round(rows / seconds), **usage.end()}

    def watch_backends(self, usage, name, readers):
        """Those of both connections, as backend_0 and backend_1."""
        end = time.time() + 20
        while time.time() < end and not any(p.ended for p in readers):
            pids = self.server.sql("select pid from pg_stat_activity where state = 'active' and query ~* "
                                   f"'^copy' and application_name like '{name}'")
            if len(pids) == 2:
                for i, (pid,) in enumerate(pids):
                    usage.watch(f"backend_{i}", int(pid))
                return
            time.sleep(0.02)

    def backfill_walpost(self, rows):
        self.server.make_slot("backfill")
        try:
            receiver = Receiver(self)
            walpost = Walpost(self, "backfill", receiver.url, {"batch_size": 500, "concurrency": 8},
                              backfill=True)
            usage = Usage()
            usage.watch("walpost", walpost.process.pid)
            usage.watch("receiver", receiver.process.pid)
            usage.start()
            self.watch_backends(usage, "walpost copy", [walpost.process])
            stats = receiver.wait_records(rows, walpost.process)
            seconds = stats["last_us"] / 1e6 - walpost.started
            used = usage.end()
            walpost.stop()
            receiver.process.stop()
            self.clean(walpost.folder)
            return {"seconds": round(seconds, 3), "rows_per_s": round(rows / seconds),
                    "requests": stats["requests"], "repeats": stats["records"] - rows, **used}
        finally:
            self.server.drop_slot("backfill")

    def stage_backfill(self):
        rows = self.options.rows
        self.server.empty()
        self.server.load(rows, 10000)
        self.server.sql("vacuum (freeze, analyze) public.orders; checkpoint")
        done = self.rounds("backfill", [("reference", lambda: self.backfill_reference(rows)),
                                        ("walpost", lambda: self.backfill_walpost(rows))])
        ratio = rate(done, "walpost", "rows_per_s") / rate(done, "reference", "rows_per_s")
        return {"rows": rows, **done, "ratio": round(ratio, 3),
                "peak_rss_mib": max(r["peak_rss_mib"]["walpost"] for r in done["walpost"]),
                "aim": ">= 0.70, peak RSS <= 96 MiB"}

    # Endpoints that are slow, that fail, that are dead.

    def pace(self, load, delivery, rules, dead=None, syncs=1):
        """Records a second while every lane is busy: between 10 % and 60 % of what is to be had.

        dead: rules of one more sync's endpoint."""
        with load.slot(Walpost.SHARED if dead is not None else None) as slot:
            receiver = Receiver(self)
            receiver.call("POST", "/_control", rules)
            other = Receiver(self) if dead is not None else None
            if other:
                other.call("POST", "/_control", dead)
            walpost = Walpost(self, slot, [receiver.url] * syncs + ([other.url] if other else []), delivery)
            usage = Usage()
            usage.watch("walpost", walpost.process.pid)
            usage.watch("receiver", receiver.process.pid)
            usage.start()
            total = load.rows * syncs
            first = receiver.wait_records(total // 10, walpost.process)
            begun = time.time()
            last = receiver.wait_records(total * 6 // 10, walpost.process)
            seconds = time.time() - begun
            stats = receiver.wait_records(total, walpost.process)
            result = {"rows_per_s": round((last["records"] - first["records"]) / seconds),
                      "requests": stats["requests"], "repeats": stats["records"] - total,
                      "status": stats["status"], **usage.end()}
            walpost.stop()
            receiver.process.stop()
            if other:
                other.process.stop()
            self.clean(walpost.folder)
            return result

    def stage_endpoints(self):
        one = {"batch_size": 1, "concurrency": 64}
        out, aims = {}, []
        for name, ms, rules in (("0 ms", 0, ""), ("5 ms", 5, "delay_ms=5\n"), ("50 ms", 50, "delay_ms=50\n"),
                                ("500 ms", 500, "delay_ms=500\n"),
                                ("50 ms, 5 % are 500", 50, "status=500 p=0.05 seed=1 delay_ms=50\ndelay_ms=50\n"),
                                ("50 ms, 429 for 3 s", 50,
                                 "status=429 retry_after=1 p=0.5 seed=1 for_ms=3000\ndelay_ms=50\n")):
            # As many as keep all lanes busy for a few seconds.
            load = Load(self.server, min(self.options.rows, max(64 * 40, 64000 * 8 // ms if ms else 10**9)), 100)
            done = self.rounds(f"endpoints: {name}", [
                ("walpost", lambda load=load, rules=rules: self.pace(load, one, rules))])
            load.close()
            out[name] = {"rows": load.rows, **done}
            if ms:
                out[name]["ratio"] = round(rate(done, "walpost", "rows_per_s") * ms / 64000, 3)
            if name == "50 ms":
                aims.append(f"{name}: >= 0.95 of concurrency / latency")
        load = Load(self.server, min(self.options.rows, 12000), 100)
        eight = {"batch_size": 10, "concurrency": 8}
        done = self.rounds("endpoints: one of eight", [
            (side, lambda dead=dead: self.pace(load, eight, "delay_ms=50\n", dead, 7))
            for side, dead in (("alive", "delay_ms=50\n"), ("walpost", "action=hang\n"))])
        load.close()
        out["one of eight is dead"] = {"rows": load.rows, **done, "ratio": round(
            rate(done, "walpost", "rows_per_s") / rate(done, "alive", "rows_per_s"), 3)}
        aims.append("one of eight is dead: the others >= 0.95 of before")
        return {"parts": out, "aim": "; ".join(aims)}

    def stage_skew(self):
        """Updates whose keys are spread evenly, and as Zipf has it, over an endpoint of 5 ms."""
        keys, rows = 1000, min(self.options.rows, 60000)
        numbers = random.Random(1)
        out = {}
        for name, weights in (("uniform", None), ("zipf", [1 / k for k in range(1, keys + 1)])):
            load = Load(self.server, keys, 100)
            ids = [int(i) for i in self.server.value(
                "select string_agg(id::text, ',') from public.orders").split(",")]
            self.server.update(numbers.choices(ids, weights, k=rows), 100)
            load.rows += rows
            out[name] = self.rounds(f"skew: {name}", [
                ("walpost", lambda load=load: self.pace(
                    load, {"batch_size": 10, "concurrency": 16}, "delay_ms=5\n"))])
            load.close()
        return {"parts": out, "ratio": round(rate(out["zipf"], "walpost", "rows_per_s") /
                                             rate(out["uniform"], "walpost", "rows_per_s"), 3)}

    # Memory.

    def memory_transaction(self, load):
        return self.drain_walpost(load, {"batch_size": 100, "concurrency": 8})

    def memory_backlog(self, load):
        """Everything is buffered behind an endpoint that answers 503, then it heals."""
        with load.slot() as slot:
            receiver = Receiver(self)
            receiver.call("POST", "/_control", "status=503\n")
            walpost = Walpost(self, slot, receiver.url, {"batch_size": 100, "concurrency": 8})
            usage = Usage()
            usage.watch("walpost", walpost.process.pid)
            usage.start()
            end = time.time() + 3600
            while self.server.value("select confirmed_flush_lsn >= " + f"'{load.end}' "
                                    f"from pg_replication_slots where slot_name = '{slot}'") != "t":
                walpost.process.must_live()
                if time.time() > end:
                    raise Failed("the slot does not move:\n" + walpost.process.tail())
                time.sleep(0.2)
            buffered = {"buffered_after_s": round(time.time() - walpost.started, 1),
                        "buffered_peak_rss_mib": round(proc_peak_bytes(walpost.process.pid) / MIB, 1),
                        "disk_mib": round(folder_bytes(walpost.data) / MIB, 1)}
            receiver.call("POST", "/_control", "")
            stats = receiver.wait_records(load.rows, walpost.process, stall_s=180)
            used = usage.end()
            walpost.stop()
            receiver.process.stop()
            self.clean(walpost.folder)
            return {**buffered, "arrived": stats["records"], **used}

    @staticmethod
    def memory_result(load, done):
        return {"rows": load.rows, "walpost": done, "aim": "peak RSS <= 64 MiB",
                "peak_rss_mib": max(r["peak_rss_mib"]["walpost"] for r in done)}

    def run(self):
        wanted, rows = self.options.stage, self.options.rows
        if {"drain", "steady", "memory"} & set(wanted):
            load = Load(self.server, rows, 100)
            if "drain" in wanted:
                self.results["drain"] = self.stage_drain(load)
            if "steady" in wanted:
                self.results["steady"] = self.stage_steady(load)
            if "memory" in wanted:
                done = self.rounds("memory: backlog", [("walpost", lambda: self.memory_backlog(load))])
                self.results["memory_backlog"] = self.memory_result(load, done["walpost"])
            load.close()
        if "single" in wanted:
            load = Load(self.server, self.options.single_rows or rows, 100)
            self.results["single"] = self.stage_single(load)
            load.close()
        if "latency" in wanted:
            self.results["latency"] = self.stage_latency()
        if "backfill" in wanted:
            self.results["backfill"] = self.stage_backfill()
        if "endpoints" in wanted:
            self.results["endpoints"] = self.stage_endpoints()
        if "skew" in wanted:
            self.results["skew"] = self.stage_skew()
        if "memory" in wanted:
            load = Load(self.server, rows, rows)
            done = self.rounds("memory: one transaction",
                               [("walpost", lambda: self.memory_transaction(load))])
            self.results["memory_transaction"] = self.memory_result(load, done["walpost"])
            load.close()


def rate(done, side, key):
    return median([r[key] for r in done[side]])


def brief(result):
    parts = [f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}"
             for k, v in result.items() if not isinstance(v, dict) and v is not None]
    for k in ("cpu_s", "peak_rss_mib"):
        parts.append(f"{k} " + "/".join(f"{n}={v}" for n, v in result.get(k, {}).items()))
    return ", ".join(parts)


# --- the report --------------------------------------------------------------------------


def used(rounds, what, name):
    values = [r[what][name] for r in rounds if name in r[what]]
    return f"{median(values):,.1f}" if values else "-"


def table(results):
    rows = []

    def add(stage, figure, value, reference, ratio, aim, rounds):
        rows.append([stage, figure, value, reference, ratio, aim, used(rounds, "peak_rss_mib", "walpost"),
                     *[used(rounds, "cpu_s", who) for who in ("walpost", "receiver", "walsender")]])

    for name, r in results.items():
        if "parts" in r:
            for i, (part, p) in enumerate(r["parts"].items()):
                ratio = p.get("ratio", r["ratio"] if part == "zipf" else None)
                aim = ">= 0.95" if part in ("50 ms", "one of eight is dead") else "-"
                reference = f"{rate(p, 'alive', 'rows_per_s'):,.0f}" if "alive" in p else "-"
                add(name if i == 0 else "", f"rows/s, {part}", f"{rate(p, 'walpost', 'rows_per_s'):,.0f}",
                    reference, "-" if ratio is None else f"{ratio:.2f}", aim, p["walpost"])
            continue
        ours = r["walpost"]
        if name == "drain":
            add(name, "rows/s", f"{rate(r, 'walpost', 'rows_per_s'):,.0f}",
                f"{rate(r, 'reference', 'rows_per_s'):,.0f}", f"{r['ratio']:.2f}", ">= 0.90", ours)
        elif name == "steady":
            add(name, "rows/s", f"{rate(r, 'walpost', 'rows_per_s'):,.0f}",
                f"{rate(r, 'drain', 'rows_per_s'):,.0f}", f"{r['ratio']:.2f}", ">= 0.90", ours)
            add("", "disk / max_bytes", f"{r['disk_to_budget']:.2f}", "-", "-", "<= 1.10", ours)
        elif name == "backfill":
            add(name, "rows/s", f"{rate(r, 'walpost', 'rows_per_s'):,.0f}",
                f"{rate(r, 'reference', 'rows_per_s'):,.0f}", f"{r['ratio']:.2f}", ">= 0.70", ours)
            add("", "peak RSS MiB", f"{r['peak_rss_mib']:.1f}", "-", "-", "<= 96", ours)
        elif name == "single":
            add(name, "requests/s", f"{rate(r, 'walpost', 'requests_per_s'):,.0f}",
                f"{rate(r, 'reference', 'requests_per_s'):,.0f}", f"{r['ratio']:.2f}", ">= 0.80", ours)
        elif name == "latency":
            for p, aim in (("p50", "< 2 ms"), ("p99", "< 20 ms")):
                add(name if p == "p50" else "", f"{p} ms", f"{r[f'walpost_{p}_us'] / 1000:.2f}",
                    f"{r[f'reference_{p}_us'] / 1000:.2f}", "-", aim, ours)
        else:
            add(name, "peak RSS MiB", f"{r['peak_rss_mib']:.1f}", "-", "-", "<= 64", ours)
    head = ["stage", "figure", "walpost", "reference", "ratio", "aim", "RSS MiB", "cpu s", "recv cpu s",
            "sender cpu s"]
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(str(c).ljust(w) if i < 2 else str(c).rjust(w)
                       for i, (c, w) in enumerate(zip(row, widths))) for row in [head, *rows]]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def machine(folder, server):
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines()
                  if line.startswith("model name")), platform.machine())
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    return {"cpu": model, "cores": os.cpu_count(), "memory_mib": memory_kib // 1024,
            "kernel": platform.release(), "file_system": kind.stdout.strip(),
            "postgresql": server.value("show server_version"), "settings": server.SETTINGS}


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh", description="Measures walpost.")
    parser.add_argument("--stage", default=",".join(STAGES),
                        help="comma-separated, of: " + ", ".join(STAGES) + " (default: all)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a load (default 1000000)")
    parser.add_argument("--single-rows", type=int, default=0,
                        help="rows of the stage single (default: --rows)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each stage (default 3)")
    parser.add_argument("--latency-rate", type=int, default=500, help="transactions/s (default 500)")
    parser.add_argument("--latency-seconds", type=int, default=30, help="of each round (default 30)")
    parser.add_argument("--steady-bytes", type=int, default=0,
                        help="max_bytes of the stage steady (default: a sixth of what a drain leaves)")
    parser.add_argument("--out", default="build/bench.json", help="JSON file (default build/bench.json)")
    parser.add_argument("--dir", help="where the temporary folder is made (default $TMPDIR or /tmp)")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    parser.add_argument("--build", default="build/release", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.stage = [s for s in STAGES if s in options.stage.split(",")]
    if not options.stage or options.rounds < 1 or options.rows < 1:
        parser.error("nothing to do")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="walpost-bench-", dir=options.dir))
    os.chmod(folder, 0o711)  # the server's account passes through to its own folder
    bench, code = None, 1
    try:
        bench = Bench(options, folder)
        about = machine(folder, bench.server)
        say(f"{about['cores']} x {about['cpu']}, {about['file_system']}, "
            f"PostgreSQL {about['postgresql']}")
        bench.run()
        code = 0
    except Failed as failure:
        print(f"bench: {failure}", file=sys.stderr)
    except KeyboardInterrupt:
        code = 130
    finally:
        Process.stop_all()
        if bench and bench.results:
            out = pathlib.Path(options.out)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps({"machine": about, "rounds": options.rounds,
                                       "stages": bench.results}, indent=1) + "\n")
            print(table(bench.results))
            print(f"every round: {out}")
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
