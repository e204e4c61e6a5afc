"""`walpost check`: one line per test, the remedy in it, a verdict at the end; the same as JSON."""

import json
import os
import re
import shutil
import subprocess

import psycopg
import pytest
from machine import PORTS, ROOT, Process, as_server_user, tail_of, wait_for
from postgres import PASSWORD, open_folder
from walpost import Walpost, source, sync, webhook

pytestmark = pytest.mark.sanitized


class Check:
    """What check says about a source, test by test."""

    def __init__(self, folder, connection, tables=("public.t",), name="check"):
        # Port 9 of loopback has nobody: the endpoint is not what is tested here.
        self.walpost = Walpost(folder / name, {
            "connections": {"shop": connection, "hook": webhook("http://127.0.0.1:9/hook")},
            "bulk_syncs": {"main": sync("shop", "hook", tables)}})
        done = self.walpost.command("check", "--json")
        assert done.returncode == 1, "the endpoint is dead: " + done.stdout + done.stderr
        self.answer = json.loads(done.stdout)
        self.tests = [t for t in self.answer["tests"] if t["subject"] == "source shop"]

    def all(self, name):
        return [t for t in self.tests if t["test"] == name]

    def one(self, name):
        found = self.all(name)
        assert len(found) == 1, (name, self.tests)
        return found[0]

    def is_(self, name, result, *words):
        """There is one test of the name, with this result; words are in its text or remedy."""
        test = self.one(name)
        assert test["result"] == result, test
        for word in words:
            assert word in test["text"] + " " + test["remedy"], test
        assert (test["remedy"] == "") == (result == "ok"), test
        return test


@pytest.fixture
def prepared(db):
    db.table("t")
    db.publish("t")
    return db


@pytest.mark.versions
def test_every_line_of_a_source_that_is_ready(prepared, folder):
    check = Check(folder, source(prepared))
    for name in ("connection", "version", "pooler", "standby", "wal_level", "max_slot_wal_keep_size",
                 "wal_sender_timeout", "encoding", "synchronous_standby", "role",
                 "max_replication_slots", "max_wal_senders", "slot", "publication",
                 "replica_identity", "row_security"):
        check.is_(name, "ok")
    assert check.answer["verdict"] == "failed" and check.answer["failed"] == 1, "the endpoint"
    assert check.answer["tests_run"] == len(check.answer["tests"])


def test_text_has_one_line_per_test_and_a_verdict(prepared, folder):
    prepared.table("bare", "id int, v text", key=())
    check = Check(folder, source(prepared), ["public.t", "public.bare"])
    done = check.walpost.command("check")
    lines = done.stdout.splitlines()
    assert lines[-2] == "" and lines[-1].startswith("1 of "), done.stdout
    tests = lines[:-2]
    assert len(tests) == check.answer["tests_run"]
    words = {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}
    for line, test in zip(tests, check.answer["tests"]):
        assert line.startswith(f"{words[test['result']]}  {test['subject']}: {test['test']}: "), line
        # Free space, free senders and milliseconds are others by now.
        said, text, remedy = (re.sub(r"\d+", "#", t) for t in (line, test["text"], test["remedy"]))
        assert text in said and remedy in said
    assert [line for line in tests if "to mend it: ALTER TABLE" in line and "public" in line]


def test_a_good_file_alone_as_json(prepared, folder):
    walpost = Check(folder, source(prepared)).walpost
    done = walpost.command("check", "--config-only", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["verdict"] == "ok"


@pytest.mark.versions
def test_F30_limits_of_the_server_are_told(own_server, folder):
    server = own_server({"max_slot_wal_keep_size": "100MB", "max_wal_size": "64MB",
                         "max_wal_senders": "3", "max_replication_slots": "2"})
    db = server.database()
    db.table("t")
    server.sql("SELECT pg_create_physical_replication_slot('taken')")
    check = Check(folder, source(db))
    check.is_("max_slot_wal_keep_size", "warning", "100 MiB", "ALTER SYSTEM")
    check.is_("max_replication_slots", "ok", "1 of 2")
    check.is_("max_wal_senders", "ok", "3 of 3")
    server.sql("SELECT pg_create_physical_replication_slot('taken_too')")
    check = Check(folder, source(db), name="full")
    check.is_("slot", "failed", "max_replication_slots", "taken_too")


def test_F08_no_free_sender(own_server, folder):
    server = own_server({"max_wal_senders": "1", "max_replication_slots": "4"})
    db = server.database()
    db.table("t")
    with server.connect(user="walpost", replication="database"):
        wait_for("the sender is taken",
                 lambda: server.sql("SELECT 1 FROM pg_stat_replication"), 60)
        Check(folder, source(db)).is_("role", "failed", "max_wal_senders")


@pytest.mark.parametrize("managed, replication, wal_level", [
    ("rds_superuser", "GRANT rds_replication TO", "rds.logical_replication"),
    ("cloudsqlsuperuser", "cloudsqlsuperuser", "cloudsql.logical_decoding"),
    ("azure_pg_admin", "azure_pg_admin", "server parameter wal_level"),
    ("supabase_admin", "role postgres", "Supabase"),
    ("neon_superuser", "neon_superuser", "Neon project"),
])
def test_F54_managed_servers_have_remedies_of_their_own(replica_server, folder, managed, replication,
                                                    wal_level):
    """A managed server is known by the roles that it has."""
    server, db = replica_server
    server.sql(f"CREATE ROLE {managed}")
    try:
        check = Check(folder, source(db, username="plain"))
        check.is_("role", "failed", "REPLICATION", replication, "plain")
        check.is_("wal_level", "failed", "replica", wal_level)
    finally:
        server.sql(f"DROP ROLE {managed}")


@pytest.fixture(scope="module")
def replica_server(base):
    from postgres import Server
    server = Server(base / "replica", {"wal_level": "replica"})
    server.sql(f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
    db = server.database()
    db.table("t")
    yield server, db
    server.destroy()


def test_a_superuser_is_not_needed(prepared, folder):
    name = f"super_{prepared.name}"
    prepared.server.sql(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    try:
        Check(folder, source(prepared, username=name)).is_("role", "ok", "superuser")
    finally:
        prepared.server.sql(f"DROP ROLE {name}")


@pytest.mark.versions
def test_row_security_and_rights_matter_to_copies(prepared, folder):
    """Rows flow without any right; a copy would lack some, or all."""
    server = prepared.server
    prepared.table("hidden")
    server.sql("ALTER TABLE hidden OWNER TO postgres; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;"
               " GRANT SELECT ON hidden TO walpost;"
               " CREATE TABLE closed (id int PRIMARY KEY);"
               " ALTER PUBLICATION walpost OWNER TO postgres;"
               " ALTER PUBLICATION walpost ADD TABLE hidden, closed", database=prepared.name)
    tables = ["public.t", "public.hidden", "public.closed", "public.parts"]
    check = Check(folder, source(prepared), tables[:3])
    check.is_("row_security", "warning", "public.hidden", "BYPASSRLS")
    check.is_("select", "warning", "public.closed", "GRANT SELECT ON public.closed TO")
    server.sql("GRANT SELECT ON closed TO walpost;"
               " CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);"
               " CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100);"
               " GRANT SELECT ON parts TO walpost;"
               " ALTER PUBLICATION walpost ADD TABLE parts;"
               " ALTER PUBLICATION walpost SET (publish_via_partition_root = true)", database=prepared.name)
    check = Check(folder, source(prepared), tables)
    check.is_("select", "warning", "public.parts", "GRANT SELECT ON public.part TO")
    server.sql("GRANT SELECT ON part TO walpost; ALTER ROLE walpost BYPASSRLS", database=prepared.name)
    try:
        Check(folder, source(prepared), tables).is_("row_security", "ok", "all rows of all 4 tables")
    finally:
        server.sql("ALTER ROLE walpost NOBYPASSRLS")


@pytest.mark.versions
def test_what_a_publication_lacks(prepared, folder):
    prepared.table("u")
    server = prepared.server
    server.sql("ALTER PUBLICATION walpost SET (publish = 'insert')", database=prepared.name)
    server.sql("ALTER PUBLICATION walpost OWNER TO postgres", database=prepared.name)
    check = Check(folder, source(prepared), ["public.t", "public.u"])
    check.is_("publication", "failed", "public.u", "ALTER PUBLICATION", "ADD TABLE")
    server.sql("ALTER PUBLICATION walpost OWNER TO walpost", database=prepared.name)
    check = Check(folder, source(prepared), ["public.t"], name="operations")
    results = {t["result"] for t in check.all("publication")}
    assert results == {"ok", "warning"}, check.tests
    assert any("UPDATE DELETE TRUNCATE" in t["text"] for t in check.all("publication"))


def test_replica_identity_per_table_with_the_exact_alter(prepared, folder):
    prepared.sql("CREATE TABLE none (v text); CREATE TABLE by_index (a int NOT NULL);"
                 "CREATE UNIQUE INDEX only_one ON by_index (a);"
                 "CREATE TABLE everything (v text); ALTER TABLE everything REPLICA IDENTITY FULL")
    check = Check(folder, source(prepared),
                  [f"public.{t}" for t in ("t", "none", "by_index", "everything")])
    by_table = {t["text"].split(":")[0].split(" ")[0]: t for t in check.all("replica_identity")}
    assert by_table["public.t"]["result"] == by_table["public.everything"]["result"] == "ok"
    assert 'ALTER TABLE "public"."none" REPLICA IDENTITY FULL' in by_table["public.none"]["remedy"]
    assert ('ALTER TABLE "public"."by_index" REPLICA IDENTITY USING INDEX only_one'
            in by_table["public.by_index"]["remedy"])


def test_partitions_that_come_under_another_name(prepared, folder):
    prepared.sql("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
                 "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    prepared.sql("ALTER PUBLICATION walpost ADD TABLE p")
    check = Check(folder, source(prepared), ["public.t", "public.p"])
    told = [t for t in check.all("replica_identity") if t["text"].startswith("public.p ")]
    assert told and "publish_via_partition_root" in told[0]["remedy"], check.tests


@pytest.mark.versions
def test_an_own_slot_that_nobody_reads(prepared, folder):
    slot = f"walpost_old_{prepared.name}"
    prepared.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot,
                        database=prepared.name)
    Check(folder, source(prepared)).is_("idle_slot", "warning", slot, "pg_drop_replication_slot")


def test_an_old_transaction_keeps_a_new_slot_waiting(prepared, folder):
    """Only one that is older than 30 s is told."""
    with prepared.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'open')")
        assert Check(folder, source(prepared)).all("old_transaction") == []
        connection.rollback()


def test_sql_ascii_is_told(prepared, folder):
    server = prepared.server
    server.sql("CREATE DATABASE ascii OWNER walpost ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
               " TEMPLATE template0")
    try:
        server.sql("CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO walpost",
                   database="ascii")
        check = Check(folder, source(prepared, database="ascii"))
        check.is_("encoding", "warning", "SQL_ASCII", "$bytes")
    finally:
        server.sql("DROP DATABASE ascii")


@pytest.mark.versions
def test_F12_a_standby_is_refused_or_told_by_version(own_server, folder):
    server = own_server()
    db = server.database()
    db.table("t")
    db.publish("t")
    db.connection.close()
    server.stop()
    (server.data / "standby.signal").touch()
    owner = os.stat(server.data)
    shutil.chown(server.data / "standby.signal", owner.st_uid, owner.st_gid)
    server.start()
    check = Check(folder, source(db))
    if server.version < 16:
        check.is_("standby", "failed", "standby", "primary")
    else:
        check.is_("standby", "warning", "standby", "hot_standby_feedback = on")


# --- poolers -----------------------------------------------------------------------------------


def pgbouncer():
    """Debian's, unpacked by tests/run.sh and not installed."""
    folder = open_folder(ROOT / "build" / "pgbouncer")
    path = folder / "usr" / "sbin" / "pgbouncer"
    assert path.exists(), "no pgbouncer; tests/run.sh provides one"
    libraries = [str(p.parent) for p in folder.rglob("libcares.so.2")]
    return path, {"LD_LIBRARY_PATH": ":".join(libraries)}


@pytest.fixture
def make_pooler(folder):
    made = []

    def make(db, **settings):
        """A pgbouncer before the database; its port."""
        port = PORTS.take()
        own = folder / f"pooler{len(made)}"
        own.mkdir()
        (own / "users.txt").write_text(f'"walpost" "{PASSWORD}"\n')
        lines = {"listen_addr": "127.0.0.1", "listen_port": port, "auth_type": "plain",
                 "auth_file": own / "users.txt", "unix_socket_dir": "", "pool_mode": "transaction",
                 **settings}
        (own / "pgbouncer.ini").write_text(
            f"[databases]\n{db.name} = host=127.0.0.1 port={db.server.port}\n[pgbouncer]\n"
            + "".join(f"{k} = {v}\n" for k, v in lines.items()))
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "postgres", own], check=True)
        path, environment = pgbouncer()
        user = as_server_user()
        user["env"] = dict(user.get("env", os.environ), **environment)
        made.append(Process([path, own / "pgbouncer.ini"], own / "log", **user))

        def answers():
            try:
                psycopg.connect(host="127.0.0.1", port=port, dbname=db.name, user="walpost",
                                password=PASSWORD).close()
                return True
            except psycopg.OperationalError:
                return False
        wait_for("the pooler answers", answers, 60, tail=lambda: tail_of(own / "log"))
        return port
    yield make
    for process in made:
        process.kill()


def test_F13_a_pooler_is_refused_with_the_reason(prepared, folder, make_pooler):
    check = Check(folder, source(prepared, port=make_pooler(prepared)))
    check.is_("connection", "failed", "pooler", "hostname and port")


def test_F13_a_pooler_that_swallows_the_options_is_refused_too(prepared, folder, make_pooler):
    port = make_pooler(prepared, ignore_startup_parameters="options,extra_float_digits")
    check = Check(folder, source(prepared, port=port))
    check.is_("pooler", "failed", "pooler", "hostname and port")
