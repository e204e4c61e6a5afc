"""Transactions: what was committed, whole, once, in the order of the commits."""

import threading

import psycopg
import pytest
from stream import delete, insert, update

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]

BIG = "repeat('x', 200)"  # a few hundred rows of it are more than the server keeps in memory


@pytest.fixture
def stream(streams):
    return streams("")


@pytest.fixture
def listed(streams):
    return streams(None)


@pytest.fixture
def rooted(streams):
    """A publication that names its tables and sends partitions as their root."""
    return streams("TABLE mark WITH (publish_via_partition_root = true)")


def keys(records):
    return [r["key"]["id"] for r in records]


def place(r):
    """(commit LSN, ordinal) of a record's id."""
    _, lsn, ordinal, _ = r["id"].split("-")
    return lsn, int(ordinal, 16)


# --- what is in the stream, and in which order ---------------------------------------------------


def test_X02_X03_rows_that_share_a_place_in_the_wal(stream):
    with stream.story("x03") as s:
        s.sql("create table c(id int primary key)")
        with s.connection.cursor() as cursor, cursor.copy("copy c from stdin") as copy:
            copy.write("1\n2\n3\n")
        s.sql("insert into c values(4), (5)", "insert into c values(6)", "insert into c values(7)")
        records = s.arrived()
        assert keys(records) == [1, 2, 3, 4, 5, 6, 7]
        places = [place(r) for r in records]
        assert [ordinal for _, ordinal in places] == [1, 2, 3, 1, 2, 1, 1]
        assert len({lsn for lsn, _ in places}) == 4
        assert len({r["position"] for r in records[:3]}) == 1, "one record of the WAL holds them"


def test_X04_interleaved_transactions_come_in_the_order_of_their_commits(stream):
    with stream.story("x04") as s, stream.rig.db.connect("postgres") as other:
        s.sql("create table t(id int primary key)", "begin", "insert into t values(1)")
        other.execute("insert into x04.t values(2)")
        s.sql("insert into t values(3)", "commit")
        records = s.arrived()
        assert keys(records) == [2, 1, 3]
        assert records[1]["position"] < records[0]["position"] < records[2]["position"]


def test_X06_X07_upsert_and_merge(stream):
    with stream.story("x06") as s:
        s.sql("create table u(id int primary key, n int)", "insert into u values(1, 1)")
        s.arrived()
        assert s.run("insert into u values(1, 5) on conflict(id) do update set n = excluded.n",
                     "insert into u values(1, 6) on conflict do nothing",
                     "insert into u values(2, 2) on conflict do nothing") == [
            update("u", {"id": 1}, {"id": 1, "n": 5}), insert("u", {"id": 2}, {"id": 2, "n": 2})]
    with stream.story("x07", needs=150000) as s:
        s.sql("create table m(id int primary key, n int)", "insert into m values(1, 1)")
        s.arrived()
        s.sql("merge into m using (values(1), (2)) s(id) on m.id = s.id when matched then update set n = 7"
              " when not matched then insert values(s.id, 8)")
        records = s.arrived()
        assert [s.brief(r) for r in records] == [update("m", {"id": 1}, {"id": 1, "n": 7}),
                                                 insert("m", {"id": 2}, {"id": 2, "n": 8})]
        assert len({place(r)[0] for r in records}) == 1


def test_X08_X09_one_key_many_times_and_a_unique_value_handed_over(stream):
    with stream.story("x08") as s:
        s.sql("create table q(id int primary key, u int unique deferrable initially deferred)",
              "insert into q values(1, 10), (2, 20)")
        s.arrived()
        assert s.transaction("delete from q where id = 2", "insert into q values(2, 77)",
                             "update q set u = 78 where id = 2", "delete from q where id = 2",
                             "insert into q values(2, 79)") == [
            delete("q", {"id": 2}, {"id": 2}), insert("q", {"id": 2}, {"id": 2, "u": 77}),
            update("q", {"id": 2}, {"id": 2, "u": 78}), delete("q", {"id": 2}, {"id": 2}),
            insert("q", {"id": 2}, {"id": 2, "u": 79})]
        assert s.run("update q set u = case id when 1 then 79 else 10 end") == [
            update("q", {"id": 1}, {"id": 1, "u": 79}), update("q", {"id": 2}, {"id": 2, "u": 10})]
        assert s.transaction("delete from q where id = 1", "insert into q values(3, 79)") == [
            delete("q", {"id": 1}, {"id": 1}), insert("q", {"id": 3}, {"id": 3, "u": 79})]


def test_X10_a_cascade_follows_its_parent(stream):
    with stream.story("x10") as s:
        s.sql("create table p(id int primary key)", "create table c(id int primary key,"
              " pid int references p on delete cascade on update cascade)",
              "insert into p values(1)", "insert into c values(10, 1), (11, 1)")
        s.arrived()
        s.sql("update p set id = 2", "delete from p")
        records = s.arrived()
        assert [s.brief(r) for r in records] == [
            delete("p", {"id": 1}, {"id": 1}), update("p", {"id": 2}, {"id": 2}, changes={"id": 1}),
            update("c", {"id": 10}, {"id": 10, "pid": 2}), update("c", {"id": 11}, {"id": 11, "pid": 2}),
            delete("p", {"id": 2}, {"id": 2}), delete("c", {"id": 10}, {"id": 10}),
            delete("c", {"id": 11}, {"id": 11})]
        assert len({place(r)[0] for r in records}) == 2


def test_X27_X28_X29_X30_what_leaves_nothing(stream):
    """A COPY that fails, locks, vacuum, sequences; an UPDATE that changes nothing is an UPDATE."""
    with stream.story("x27") as s:
        s.sql("create table t(id int primary key, v text)", "create sequence sq",
              "insert into t values(1, 'a')")
        s.arrived()
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), s.connection.cursor() as cursor:
            with cursor.copy("copy t from stdin") as copy:
                copy.write("2\tb\nnot a number\tc\n")
        assert s.run("vacuum t", "vacuum full t", "analyze t", "select nextval('sq')", "select setval('sq', 100)",
                     "select * from t for update", "select * from t for key share",
                     "update t set v = v") == [update("t", {"id": 1}, {"id": 1, "v": "a"})]


def test_X31_a_table_that_another_session_changes_meanwhile(stream, listed):
    """A table that is published while a transaction is open: 13 does not send that transaction's rows of it."""
    with stream.story("x31") as s, stream.rig.db.connect("postgres") as other:
        s.sql("create table a(id int primary key)", "create table b(id int primary key)", "begin",
              "insert into a values(1)")
        other.execute("alter table x31.b add column c int default 7")
        s.sql("insert into b values(2)", "commit")
        assert [s.brief(r) for r in s.arrived()] == [insert("a", {"id": 1}, {"id": 1}),
                                                     insert("b", {"id": 2}, {"id": 2, "c": 7})]
    with listed.story("x31", needs=140000) as s, listed.rig.db.connect("postgres") as other:
        s.sql("create table t(id int primary key)", "begin", "insert into t values(1)")
        other.execute("alter publication walpost add table x31.t")
        s.sql("insert into t values(2)", "commit")
        assert [s.brief(r) for r in s.arrived()] == [insert("t", {"id": 2}, {"id": 2})]


def test_X32_more_subtransactions_than_the_server_remembers(stream):
    with stream.story("x32") as s:
        s.sql("create table t(id int primary key)", """
do $$ begin
  for i in 1..300 loop
    begin
      insert into t values(i);
      if i % 3 = 0 then raise exception 'undone'; end if;
    exception when raise_exception then null;
    end;
  end loop;
end $$""")
        records = s.arrived()
        assert keys(records) == [i for i in range(1, 301) if i % 3]
        assert [place(r)[1] for r in records] == list(range(1, 201))


# --- larger than the server's memory --------------------------------------------------------------


def test_X11_X12_X13_X15_large_transactions(stream, listed):
    with stream.story("x11") as s:
        s.sql("create table b(id int primary key, v text)")
        fill = f"insert into b select g, {BIG} from generate_series(%d, %d) g"
        with s.connection.transaction():
            s.sql(fill % (1, 1000), "savepoint s", fill % (1001, 2000), "rollback to s",
                  "alter table b add column z int", fill % (2001, 3000))
        records = s.arrived()
        assert keys(records) == [*range(1, 1001), *range(2001, 3001)]
        assert [len(r["fields"]) for r in records] == [2] * 1000 + [3] * 1000
        assert len({place(r)[0] for r in records}) == 1
        assert s.run("begin", fill % (4001, 6000), "rollback") == []
    with listed.story("x15") as s:
        s.sql("create table nobody(id int, v text)")
        assert s.run(f"insert into nobody select g, {BIG} from generate_series(1, 3000) g") == []


def test_X14_X19_X33_T17_what_is_open_while_we_are_killed(rig):
    """Large and small transactions, and one that is prepared, from before and over two restarts."""
    rig.db.server.sql(f"ALTER ROLE walpost IN DATABASE {rig.db.name} SET logical_decoding_work_mem = '64kB'")
    rig.db.table("t")
    rig.db.sql("ALTER TABLE t ALTER v SET STORAGE EXTERNAL, ADD COLUMN n int")
    rig.db.publish("t")
    rig.start()
    fill = f"INSERT INTO t SELECT g, {BIG} FROM generate_series(%s::int, %s::int) g"
    rig.db.sql("INSERT INTO t VALUES (9001, repeat('y', 9000))")
    rig.wait_arrived(1)
    with rig.db.connect() as large, rig.db.connect() as small, rig.db.connect() as prepared:
        large.execute("BEGIN")
        large.execute(fill, (1, 700))
        small.execute("BEGIN; INSERT INTO t VALUES (2001, 'small')")
        rig.walpost.restart(databases=[rig.db])
        prepared.execute(f"BEGIN; INSERT INTO t VALUES (3001, 'prepared'); PREPARE TRANSACTION '{rig.db.name}'")
        large.execute(fill, (701, 1400))
        rig.db.sql("UPDATE t SET n = 1 WHERE id = 9001")
        rig.wait_arrived(2)
        large.execute("COMMIT")
        rig.walpost.restart(databases=[rig.db])
        small.execute("INSERT INTO t VALUES (2002, 'small'); COMMIT")
        prepared.execute(f"COMMIT PREPARED '{rig.db.name}'")
    rig.db.sql("UPDATE t SET n = 2 WHERE id = 9001")
    assert rig.assert_whole().expected == 1400 + 2 + 1 + 3
    changed = [r for r in rig.receiver.records() if r["operation"] == "update"]
    assert {r["fields"]["n"] for r in changed} == {1, 2}
    assert all(r["unchanged"] == ["v"] and "v" not in r["fields"] for r in changed), \
        "the value is where the insert went, and is not looked up"


# --- in two steps ---------------------------------------------------------------------------------


def test_X17_prepared_transactions_come_when_they_are_committed(stream):
    with stream.story("x17") as s:
        s.sql("create table t(id int primary key)", "begin", "insert into t values(1)",
              "prepare transaction 'x17a'", "begin", "insert into t values(2)", "prepare transaction 'x17b'",
              "insert into t values(3)")
        assert keys(s.arrived()) == [3]
        s.sql("commit prepared 'x17a'", "rollback prepared 'x17b'")
        assert keys(s.arrived()) == [1]


def test_X18_F46_a_slot_that_sends_what_is_only_prepared_is_refused(rig):
    if rig.db.connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 or newer")
    rig.db.table("t")
    rig.db.publish("t")
    slot = f"walpost_{rig.db.name}"
    rig.db.server.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", slot,
                      database=rig.db.name)
    rig.prepare().spawn()
    assert rig.walpost.process.wait(60) == 1, rig.walpost.tail()
    failed = rig.walpost.events("capture_failed")[0]
    assert "two_phase" in failed["msg"] and f"pg_drop_replication_slot('{slot}')" in failed["remedy"], failed
    done = rig.walpost.command("check")
    assert done.returncode == 1 and "two_phase" in done.stdout, done.stdout


def test_X25_rows_of_every_origin_arrive(stream):
    with stream.story("x25") as s:
        s.sql("create table t(id int primary key)", "select pg_replication_origin_create('x25')",
              "select pg_replication_origin_session_setup('x25')", "insert into t values(1)",
              "select pg_replication_origin_session_reset()", "insert into t values(2)")
        assert keys(s.arrived()) == [1, 2]
        s.sql("select pg_replication_origin_drop('x25')")


# --- odd tables and publications ------------------------------------------------------------------


def test_T10_an_unchanged_value_of_a_row_that_was_never_sent(listed):
    with listed.story("t10") as s:
        s.sql("create table t(id int primary key, big text, n int)", "alter table t alter big set storage external",
              "insert into t values(1, repeat('x', 3000), 0)", "alter publication walpost add table t")
        assert s.run("update t set n = 1") == [update("t", {"id": 1}, {"id": 1, "n": 1}, unchanged=["big"])]


def test_N03_E08_columns_named_like_our_own_words_and_keys_that_differ_in_case(stream):
    words = ["id", "operation", "schema", "key", "fields", "changes", "unchanged", "position", "commit", "hash",
             "__op", "_polytomic_deleted_at", "$bytes"]
    with stream.story("n03") as s:
        s.sql("create table t(" + ", ".join(f'"{word}" text' for word in words) + ', primary key("key"))')
        values = ", ".join(f"'{word}!'" for word in words)
        assert s.run(f"insert into t values({values})", "update t set \"schema\" = 'x', \"key\" = 'KEY!'") == [
            insert("t", {"key": "key!"}, {word: word + "!" for word in words}),
            delete("t", {"key": "key!"}, {"key": "key!"}),
            update("t", {"key": "KEY!"}, {**{word: word + "!" for word in words}, "schema": "x", "key": "KEY!"},
                   changes={"key": "key!"})]


def test_L14_F22_every_table_there_is_and_comes_to_be(stream):
    """Also one without identity, of which the server then refuses UPDATE and DELETE."""
    with stream.story("l14") as s:
        assert s.run("create table fresh(id int primary key)", "insert into fresh values(1)",
                     "create table bare(v int)", "insert into bare values(1)",
                     "create table ids as select id from fresh") == [
            insert("fresh", {"id": 1}, {"id": 1}), insert("bare", None, {"v": 1}), insert("ids", None, {"id": 1})]
        for statement in ("update bare set v = 2", "delete from bare"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                s.sql(statement)


def test_P08_root_and_leaf_in_one_publication(listed, rooted):
    for stream, name in ((listed, "pr1"), (rooted, "pr")):
        with stream.story("p08") as s:
            s.sql("create table pr(id int primary key) partition by range(id)",
                  "create table pr1 partition of pr for values from (0) to (10)",
                  "alter publication walpost add table pr, pr1")
            assert s.run("insert into pr values(1)", "insert into pr1 values(2)") == [
                insert(name, {"id": 1}, {"id": 1}), insert(name, {"id": 2}, {"id": 2})]


def test_F23_partitions_go_by_another_name_from_one_row_to_the_next(rooted):
    with rooted.story("f23") as s:
        s.sql("create table pr(id int primary key) partition by range(id)",
              "create table pr1 partition of pr for values from (0) to (10)", "alter publication walpost add table pr",
              "insert into pr values(1)", "alter publication walpost set (publish_via_partition_root = false)",
              "insert into pr values(2)")
        assert s.run("alter publication walpost set (publish_via_partition_root = true)",
                     "insert into pr values(3)") == [
            insert("pr", {"id": 1}, {"id": 1}), insert("pr1", {"id": 2}, {"id": 2}), insert("pr", {"id": 3}, {"id": 3})]


def test_P09_filters_and_lists_of_partitioned_tables(listed, rooted):
    tables = ("create table pr(id int primary key, a int, b int) partition by range(id)",
              "create table pr1 partition of pr for values from (0) to (10)",
              "create table pr2 partition of pr for values from (10) to (20)")
    with listed.story("p09", needs=150000) as s:
        s.sql(*tables)
        for what in ("pr where (id > 1)", "pr (id, a)"):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                s.sql(f"alter publication walpost add table {what}")
        s.sql("alter publication walpost add table pr1 where (id > 1), pr2")
        assert s.run("insert into pr values(1, 1, 1), (2, 2, 2), (11, 3, 3)") == [
            insert("pr1", {"id": 2}, {"id": 2, "a": 2, "b": 2}), insert("pr2", {"id": 11}, {"id": 11, "a": 3, "b": 3})]
    with rooted.story("p09", needs=150000) as s:
        s.sql(*tables, "alter publication walpost add table pr (id, a) where (id > 1)")
        assert s.run("insert into pr values(1, 1, 1), (2, 2, 2), (11, 3, 3)", "update pr set b = 4") == [
            insert("pr", {"id": 2}, {"id": 2, "a": 2}), insert("pr", {"id": 11}, {"id": 11, "a": 3}),
            update("pr", {"id": 2}, {"id": 2, "a": 2}), update("pr", {"id": 11}, {"id": 11, "a": 3})]


def test_P15_a_partition_on_another_server(rooted):
    """Its rows are not in this server's WAL; the others' are."""
    with rooted.story("p15") as s:
        s.sql("create foreign data wrapper p15", "create server p15 foreign data wrapper p15",
              "create table pr(id int not null, v text) partition by range(id)",
              "create table pr1 partition of pr(primary key(id)) for values from (0) to (10)",
              "create foreign table pr2 partition of pr for values from (10) to (20) server p15",
              "alter table pr1 replica identity full", "alter publication walpost add table pr")
        records = [s.brief(r) for r in (s.sql("insert into pr values(1, 'a')"), s.arrived())[1]]
        assert [r["fields"] for r in records] == [{"id": 1, "v": "a"}]
        s.sql("alter publication walpost drop table pr", "drop foreign data wrapper p15 cascade")


def test_P17_our_own_publication_names_partitions_after_their_root(rig):
    rig.db.sql("CREATE TABLE pr (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    for i in (0, 10):
        rig.db.sql(f"CREATE TABLE pr{i} PARTITION OF pr FOR VALUES FROM ({i}) TO ({i + 10})")
    rig.start()
    assert rig.db.value("SELECT pubviaroot FROM pg_publication")
    rig.db.sql("INSERT INTO pr VALUES (1), (11)")
    rig.db.sql("DROP TABLE pr0")
    rig.db.sql("CREATE TABLE pr20 PARTITION OF pr FOR VALUES FROM (20) TO (30)")
    rig.db.sql("INSERT INTO pr VALUES (21)")
    rig.wait_arrived(3)
    assert sorted((r["schema"], r["operation"], r["key"]["id"]) for r in rig.receiver.records()) == [
        ("public.pr", "insert", 1), ("public.pr", "insert", 11), ("public.pr", "insert", 21)]


def test_R12_nothing_passes_a_truncate_in_another_lane(rig):
    rig.add_receiver().control({"delay_ms": 2, "action": "answer"})
    rig.db.table("t")
    rig.db.table("other")
    rig.db.publish("t", "other")
    rig.start(concurrency=8, batch_size=3)

    def beside():
        with rig.db.connect() as connection:
            for i in range(300):
                connection.execute("INSERT INTO other VALUES (%s, 'x')", (i,))
    writer = threading.Thread(target=beside)
    writer.start()
    for i in range(8):
        rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 40) g")
        rig.db.sql("UPDATE t SET v = 'y' WHERE id %% 7 = %s", i % 7)
        rig.db.sql("TRUNCATE t")
    writer.join()
    rig.assert_whole()
    assert sum(r["operation"] == "truncate" for r in rig.receiver.records()) == 8
