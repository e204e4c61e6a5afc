"""A PostgreSQL server of our own, databases in it, and the history of their tables."""

import atexit
import functools
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import tempfile

import checker
import psycopg
from machine import PORTS, ROOT, Process, as_server_user, server_user, tail_of, wait_for

VERSION = int(os.environ.get("WALPOST_PG") or 15)  # the major version, where a test does not choose
PASSWORD = "s3cret pass:word/%40"  # walpost's; needs quoting nearly everywhere

SETTINGS = {
    "wal_level": "logical",
    "max_wal_senders": "20",
    "deadlock_timeout": "20ms",  # the writers meet on few keys
    "max_prepared_transactions": "10",
    "max_replication_slots": "60",
    "max_connections": "100",
    "fsync": "off",
    "autovacuum": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "shared_buffers": "128MB",
    "listen_addresses": "'127.0.0.1'",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "timezone": "'UTC'",
    "lc_messages": "'C'",
    "password_encryption": "'scram-sha-256'",  # 13 has another default
}

HBA = """
local all all trust
host all walpost_refused all reject
host all all 127.0.0.1/32 scram-sha-256
"""

# The witness.  The settings are those in which walpost's promise about values holds.
HISTORY = """
CREATE SCHEMA history;
CREATE TABLE history.change (
    serial bigserial PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    tab text NOT NULL, op text NOT NULL, key text[] NOT NULL, is_full boolean NOT NULL,
    old json, new json);
CREATE FUNCTION history.row_changed() RETURNS trigger LANGUAGE plpgsql
SET timezone TO 'UTC' SET datestyle TO 'ISO' SET intervalstyle TO 'postgres'
SET extra_float_digits TO 3 SET bytea_output TO 'hex' AS $$
BEGIN
    INSERT INTO history.change (tab, op, key, is_full, old, new)
    VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP, TG_ARGV[0]::text[],
            (SELECT relreplident = 'f' FROM pg_class WHERE oid = TG_RELID),
            CASE WHEN TG_OP <> 'INSERT' THEN to_json(OLD) END,
            CASE WHEN TG_OP <> 'DELETE' THEN to_json(NEW) END);
    RETURN NULL;
END $$;
CREATE FUNCTION history.many_inserted() RETURNS trigger LANGUAGE plpgsql
SET timezone TO 'UTC' SET extra_float_digits TO 3 AS $$
BEGIN
    INSERT INTO history.change (tab, op, key, is_full, new)
    SELECT TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, 'INSERT', TG_ARGV[0]::text[], false, to_json(r)
    FROM fresh r;
    RETURN NULL;
END $$;
CREATE FUNCTION history.truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history.change (tab, op, key, is_full)
    VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, TG_OP, '{}', false);
    RETURN NULL;
END $$;
"""


def is_open_to_all(path):
    return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))


@functools.cache
def open_folder(folder):
    """A folder of programs, or its copy where server_user() can enter it."""
    if server_user() is None or is_open_to_all(folder):
        return folder
    copy = pathlib.Path(tempfile.mkdtemp(prefix=f"walpost-{folder.name}-", dir="/tmp"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(folder, copy, symlinks=True, dirs_exist_ok=True)
    return copy


def programs(version):
    """The folder of a version's initdb and postgres, in a place that server_user() can enter.

    15 is Debian's own, the others are what tests/fetch_postgresql.py has unpacked.
    """
    if version == 15:
        return pathlib.Path("/usr/lib/postgresql/15/bin")
    unpacked = ROOT / "build" / "postgresql" / str(version)
    assert (unpacked / "bin" / "postgres").exists(), \
        f"PostgreSQL {version} is not there: run tests/fetch_postgresql.py {version}"
    return open_folder(unpacked) / "bin"


def answers(connection):
    """Is the server that the connection is to still there?"""
    try:
        return connection is not None and connection.execute("SELECT") is not None
    except psycopg.OperationalError:
        return False


def rows(cursor):
    return cursor.fetchall() if cursor.description else []


class Server:
    """One cluster: started at once, in a folder that only it uses."""

    _connection = None  # of sql()

    def __init__(self, folder, settings=None, version=None):
        self.version = version or VERSION
        self.folder = pathlib.Path(folder)
        self.bin = programs(self.version)
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.port = PORTS.take()
        self.process = None
        self._databases = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        if server_user():
            shutil.chown(self.folder, server_user(), server_user())
        self._initdb()
        self.set({**SETTINGS, "port": str(self.port),
                  "unix_socket_directories": f"'{self.folder}'", **(settings or {})})
        (self.data / "pg_hba.conf").write_text(HBA)
        self.start()
        self.sql(f"CREATE ROLE walpost LOGIN REPLICATION PASSWORD '{PASSWORD}'")

    def _initdb(self):
        subprocess.run([self.bin / "initdb", "--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                        "--locale=C.UTF-8", "-D", self.data], check=True,
                       stdout=subprocess.DEVNULL, cwd="/", **as_server_user())

    def set(self, settings):
        """Appends settings; reload() or restart() makes them hold."""
        with open(self.data / "postgresql.conf", "a") as conf:
            for name, value in settings.items():
                conf.write(f"{name} = {value}\n")

    def reload(self):
        self.process.signal(signal.SIGHUP)

    def start(self):
        self.process = Process([self.bin / "postgres", "-D", self.data], self.log, cwd="/",
                               **as_server_user())

        def answers():
            assert self.process.is_running, tail_of(self.log)
            try:
                self.sql("SELECT 1")
                return True
            except psycopg.OperationalError:
                return False
        wait_for("PostgreSQL answers", answers, tail=lambda: tail_of(self.log))

    def stop(self, mode="fast", seconds=60):
        """fast: SIGINT, immediate: SIGQUIT."""
        number = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self.process.signal(number)
        self.process.wait(seconds)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def destroy(self):
        if self.process and self.process.is_running:
            self.process.signal(signal.SIGQUIT)
            self.process.wait()
        shutil.rmtree(self.data, ignore_errors=True)

    def connect(self, database="postgres", user="postgres", **kwargs):
        kwargs.setdefault("autocommit", True)
        return psycopg.connect(host=str(self.folder), port=self.port, dbname=database, user=user,
                               **kwargs)

    def sql(self, query, *params, database="postgres"):
        """On a connection of its own; to the database postgres on one that is kept: a new one costs the server much."""
        if database != "postgres":
            with self.connect(database) as connection:
                return rows(connection.execute(query, params or None))
        if not answers(self._connection):
            self._connection = self.connect(prepare_threshold=None)
        return rows(self._connection.execute(query, params or None))

    def database(self, encoding=None):
        self._databases += 1
        return Database(self, f"shop{self._databases}", encoding)


class Database:
    """A fresh database, owned by the role walpost, which is no superuser."""

    def __init__(self, server, name, encoding=None):
        self.server, self.name = server, name
        more = f" TEMPLATE template0 LOCALE 'C' ENCODING '{encoding}'" if encoding else ""
        server.sql(f"CREATE DATABASE {name} OWNER walpost{more}")
        server.sql("ALTER SCHEMA public OWNER TO walpost", database=name)
        self.connection = self.connect()
        self.connection.execute(HISTORY)

    def connect(self, user="walpost", **kwargs):
        return self.server.connect(self.name, user, **kwargs)

    def sql(self, query, *params):
        """On the database's own connection, as walpost, one transaction per call."""
        if not answers(self.connection):
            self.connection = self.connect()
        return rows(self.connection.execute(query, params or None))

    def value(self, query, *params):
        return self.sql(query, *params)[0][0]

    def watch(self, table, key=("id",), bulk=False):
        """Records the table's changes from now on.  bulk: only INSERTs, one trigger per statement."""
        schema, _, name = table.rpartition(".")
        table = f'"{schema or "public"}"."{name}"'
        columns = "{" + ",".join('"' + k.replace('"', '\\"') + '"' for k in key) + "}"
        argument = columns.replace("'", "''")
        if bulk:
            self.sql(f"CREATE TRIGGER zz_history AFTER INSERT ON {table} REFERENCING NEW TABLE AS"
                     f" fresh FOR EACH STATEMENT EXECUTE FUNCTION"
                     f" history.many_inserted('{argument}')")
            return
        self.sql(f"CREATE TRIGGER zz_history AFTER INSERT OR UPDATE OR DELETE ON {table}"
                 f" FOR EACH ROW EXECUTE FUNCTION history.row_changed('{argument}')")
        self.sql(f"CREATE TRIGGER zz_history_truncate AFTER TRUNCATE ON {table}"
                 f" FOR EACH STATEMENT EXECUTE FUNCTION history.truncated()")

    def table(self, name, columns="id int PRIMARY KEY, v text", key=("id",), bulk=False):
        """CREATE TABLE and watch."""
        self.sql(f"CREATE TABLE {name} ({columns})")
        self.watch(name, key, bulk)

    def publish(self, *tables, name="walpost"):
        self.sql(f"CREATE PUBLICATION {name} FOR TABLE {', '.join(tables)}")

    def history(self, tables=None):
        """Every committed change so far, as the checker wants it."""
        query = ("SELECT serial, xid::text::bigint, tab, op, key, is_full, old::text, new::text"
                 " FROM history.change ORDER BY serial")
        with self.connect() as connection:
            return [checker.Change(serial, xid, table, op, tuple(key), full, old, new)
                    for serial, xid, table, op, key, full, old, new in connection.execute(query)
                    if tables is None or table in tables]

    def forget(self):
        """What has happened so far is not asked for."""
        self.sql("TRUNCATE history.change")

    def slots(self):
        """[(name, active, confirmed_flush_lsn as a number)] of this database."""
        return self.server.sql(
            "SELECT slot_name::text, active, (confirmed_flush_lsn - '0/0')::bigint"
            " FROM pg_replication_slots WHERE database = %s AND slot_type = 'logical'"
            " ORDER BY 1", self.name)

    def confirmed(self, slot=None):
        """The slot's confirmed_flush_lsn as a number."""
        for name, _, lsn in self.slots():
            if slot in (None, name):
                return int(lsn)
        raise AssertionError(f"no slot {slot or ''} in {self.name}")

    def released(self):
        """The first slot's name, once nobody reads any: a walsender outlives its client a moment."""
        wait_for(f"no slot of {self.name} is read", lambda: not any(active for _, active, _ in self.slots()))
        return self.slots()[0][0]

    def wal_end(self):
        return int(self.value("SELECT (pg_current_wal_lsn() - '0/0')::bigint"))

    def walsender_pid(self):
        """None: nobody reads."""
        return next((pid for pid, in self.server.sql(
            "SELECT active_pid FROM pg_replication_slots WHERE database = %s AND active", self.name)), None)

    def take_slot_away(self, slot):
        """Ends its walsender and drops it; False: a reader was there again in between."""
        self.server.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                        " WHERE slot_name = %s AND active", slot)
        try:
            self.server.sql("SELECT pg_drop_replication_slot(%s)", slot)
        except Exception as busy:
            assert "is active" in str(busy)
            return False
        return True

    def drop(self):
        """Slots and database; walpost has to be gone."""
        self.connection.close()
        for name, _, _ in self.slots():
            def dropped(slot=name):
                try:
                    self.server.sql("SELECT pg_drop_replication_slot(%s)", slot)
                    return True
                except psycopg.errors.ObjectInUse:
                    return False
                except psycopg.errors.UndefinedObject:
                    return True
            wait_for(f"slot {name} can be dropped", dropped)
        self.server.sql(f"DROP DATABASE {self.name} WITH (FORCE)")
