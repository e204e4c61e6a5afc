"""What a publication sends: partitions, heirs, filters, column lists, and changes of the publication."""

import psycopg
import pytest
from stream import delete, insert, truncate, update

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]

PR = ("create table pr(id int, k int, t text, primary key(id, k)) partition by list(k)",
      "create table pr1 partition of pr for values in (1)",
      "create table pr2(t text, x int, id int not null, k int not null, primary key(id, k))",
      "alter table pr2 drop column x", "alter table pr attach partition pr2 for values in (2)")


@pytest.fixture
def stream(streams):
    return streams("")


@pytest.fixture
def rooted(streams):
    return streams("WITH (publish_via_partition_root = true)")


@pytest.fixture
def listed(streams):
    return streams(None)


def test_P01_P03_P07_D25_partitions_under_their_own_names(stream):
    with stream.story("p01") as s:
        s.sql(*PR)
        assert s.run("insert into pr values(1, 1, 'a'), (2, 2, 'b')", "update pr set k = 2 where id = 1",
                     "update pr set id = 9 where id = 1", "alter table pr add column e int default 3",
                     "insert into pr values(6, 1, 'd')") == [
            insert("pr1", {"id": 1, "k": 1}, {"id": 1, "k": 1, "t": "a"}),
            insert("pr2", {"id": 2, "k": 2}, {"t": "b", "id": 2, "k": 2}),
            delete("pr1", {"id": 1, "k": 1}, {"id": 1, "k": 1}),
            insert("pr2", {"id": 1, "k": 2}, {"t": "a", "id": 1, "k": 2}),
            delete("pr2", {"id": 1, "k": 2}, {"id": 1, "k": 2}),
            update("pr2", {"id": 9, "k": 2}, {"t": "a", "id": 9, "k": 2}, changes={"id": 1}),
            insert("pr1", {"id": 6, "k": 1}, {"id": 6, "k": 1, "t": "d", "e": 3})]


def test_P02_P03_P04_P07_P11_partitions_under_the_name_of_the_root(rooted):
    with rooted.story("p02") as s:
        s.sql(*PR)
        assert s.run("insert into pr values(1, 1, 'a'), (2, 2, 'b')", "update pr set k = 2 where id = 1",
                     "alter table pr add column e int default 3",
                     "create table pr3 partition of pr for values in (3, 4) partition by list(k)",
                     "create table pr4 partition of pr3 for values in (4)",
                     "insert into pr values(6, 4, 'd')") == [
            insert("pr", {"id": 1, "k": 1}, {"id": 1, "k": 1, "t": "a"}),
            insert("pr", {"id": 2, "k": 2}, {"id": 2, "k": 2, "t": "b"}),
            delete("pr", {"id": 1, "k": 1}, {"id": 1, "k": 1}),
            insert("pr", {"id": 1, "k": 2}, {"id": 1, "k": 2, "t": "a"}),
            insert("pr", {"id": 6, "k": 4}, {"id": 6, "k": 4, "t": "d", "e": 3})]


def test_P05_P06_attach_and_detach(listed):
    with listed.story("p05") as s:
        s.sql(*PR, "alter publication walpost add table pr")
        if s.version < 150000:
            pytest.skip("a session of 13 goes on sending a partition that it knows")
        assert s.run("alter table pr detach partition pr2", "insert into pr2(id, k, t) values(50, 2, 'd')",
                     "alter table pr attach partition pr2 for values in (2)",
                     "insert into pr2(id, k, t) values(52, 2, 'y')") == [
            insert("pr2", {"id": 52, "k": 2}, {"t": "y", "id": 52, "k": 2})]


def test_P12_inheritance(listed):
    with listed.story("p12") as s:
        s.sql("create table ih(id int primary key, a text)",
              "create table ihc(b int, primary key(id)) inherits(ih)", "alter publication walpost add table ih")
        assert s.run("insert into ih values(1, 'a')", "insert into ihc values(2, 'b', 3)",
                     "update ih set a = 'u'", "truncate ih") == [
            insert("ih", {"id": 1}, {"id": 1, "a": "a"}),
            insert("ihc", {"id": 2}, {"id": 2, "a": "b", "b": 3}),
            update("ih", {"id": 1}, {"id": 1, "a": "u"}),
            update("ihc", {"id": 2}, {"id": 2, "a": "u", "b": 3}), truncate("ih"), truncate("ihc")]


def test_P13_P14_what_has_no_changes_of_its_own(stream):
    with stream.story("p13") as s:
        s.sql("create unlogged table ul(id int primary key)", "create temp table tt(id int)",
              "insert into tt values(1)", "create view v as select 1 as a", "create sequence q",
              "create materialized view mv as select 1 as a")
        assert s.run("insert into ul values(1)", "alter table ul set logged", "insert into ul values(2)",
                     "alter table ul set unlogged", "insert into ul values(3)",
                     "refresh materialized view mv", "select nextval('q')",
                     "create table ctas as select g as n from generate_series(1, 2) g") == [
            insert("ul", {"id": 2}, {"id": 2}), insert("ctas", None, {"n": 1}),
            insert("ctas", None, {"n": 2})]


def test_P16_only_the_leaves_have_a_primary_key(rooted):
    with rooted.story("p16") as s:
        s.sql("create table r(id int, a int) partition by range(id)",
              "create table r1 partition of r(primary key (id)) for values from (0) to (100)")
        assert s.run("insert into r values(1, 1)", "update r set a = 2", "update r set id = 3",
                     "delete from r") == [
            insert("r", None, {"id": 1, "a": 1}), update("r", None, {"id": 1, "a": 2}),
            update("r", None, {"id": 3, "a": 2}, changes={}), delete("r", None, {})]


def test_R04_R05_truncate_of_partitions(stream, rooted):
    partitions = ("create table t3(id int primary key) partition by range(id)",
                  "create table t3a partition of t3 for values from (0) to (10)",
                  "create table t3b partition of t3 for values from (10) to (20)")
    with stream.story("r04") as s:
        s.sql(*partitions)
        assert s.run("truncate t3", "truncate t3a") == [truncate("t3a"), truncate("t3b"), truncate("t3a")]
    with rooted.story("r05") as s:
        s.sql(*partitions)
        assert s.run("insert into t3 values(1), (11)", "truncate t3", "insert into t3 values(1)",
                     "truncate t3a") == [
            insert("t3", {"id": 1}, {"id": 1}), insert("t3", {"id": 11}, {"id": 11}), truncate("t3"),
            insert("t3", {"id": 1}, {"id": 1})]


def test_L01_a_filter_turns_updates_into_inserts_and_deletes(listed):
    with listed.story("l01", needs=150000) as s:
        s.sql("create table rf(id int, st text, v int, primary key(id, st))",
              "alter publication walpost add table rf where (st = 'on')")
        assert s.run("insert into rf values(1, 'on', 1), (2, 'off', 2)", "update rf set v = 10",
                     "update rf set st = 'on' where id = 2", "update rf set st = 'off' where id = 1",
                     "delete from rf", "truncate rf") == [
            insert("rf", {"id": 1, "st": "on"}, {"id": 1, "st": "on", "v": 1}),
            update("rf", {"id": 1, "st": "on"}, {"id": 1, "st": "on", "v": 10}),
            insert("rf", {"id": 2, "st": "on"}, {"id": 2, "st": "on", "v": 10}),
            delete("rf", {"id": 1, "st": "on"}, {"id": 1, "st": "on"}),
            delete("rf", {"id": 2, "st": "on"}, {"id": 2, "st": "on"}), truncate("rf")]


def test_L02_L07_filters_and_lists_outside_the_identity(listed):
    """The application's UPDATE fails; check says so (test_source)."""
    with listed.story("l02", needs=150000) as s:
        s.sql("create table f(id int primary key, v int)", "create table c(id int primary key, v int)",
              "alter publication walpost add table f where (v > 0)",
              "alter publication walpost add table c (v)")
        assert s.run("insert into f values(1, 1), (2, 0)", "insert into c values(1, 1)") == [
            insert("f", {"id": 1}, {"id": 1, "v": 1}), insert("c", None, {"v": 1})]
        for table in ("f", "c"):
            with pytest.raises(psycopg.errors.InvalidColumnReference):
                s.sql(f"update {table} set v = 2")
        s.sql("alter publication walpost drop table c")  # with a list in it no schema can be added


def test_L03_full_identity_and_a_filter(listed):
    with listed.story("l03", needs=150000) as s:
        big = "x" * 3000
        s.sql("create table rf(id int primary key, st text, big text)",
              "alter table rf alter big set storage external", "alter table rf replica identity full",
              "alter publication walpost add table rf where (st = 'on')")
        assert s.run(f"insert into rf values(1, null, '{big}')", "update rf set st = 'on'",
                     "update rf set st = null") == [
            insert("rf", {"id": 1}, {"id": 1, "st": "on", "big": big}),
            delete("rf", {"id": 1}, {"id": 1, "st": "on", "big": big})]


def test_L05_the_filter_changes(listed):
    with listed.story("l05", needs=150000) as s:
        s.sql("create table f(id int primary key)", "alter publication walpost add table f where (id < 10)")
        s.sql("insert into f values(1), (11)")
        s.sql("alter publication walpost drop table f",
              "alter publication walpost add table f where (id > 10)")
        assert s.run("insert into f values(2), (12)") == [
            insert("f", {"id": 1}, {"id": 1}), insert("f", {"id": 12}, {"id": 12})]


def test_L06_L08_a_column_list(listed):
    with listed.story("l06", needs=150000) as s:
        s.sql("create table cl(id int primary key, a text, secret text, b int)",
              "alter publication walpost add table cl (id, b)")
        assert s.run("insert into cl values(1, 'a', 's', 1)", "update cl set secret = 't'",
                     "update cl set b = 2") == [
            insert("cl", {"id": 1}, {"id": 1, "b": 1}), update("cl", {"id": 1}, {"id": 1, "b": 1}),
            update("cl", {"id": 1}, {"id": 1, "b": 2})]
        with pytest.raises(psycopg.errors.DependentObjectsStillExist):
            s.sql("alter table cl drop column b")
        assert s.run("alter table cl drop column b cascade", "insert into cl values(2, 'a', 's')") == []


def test_L11_L12_tables_and_operations_come_and_go(listed):
    with listed.story("l11") as s:
        s.sql("create table a1(id int primary key)", "create table a2(id int primary key)",
              "alter publication walpost add table a1", "insert into a2 values(1)")
        try:
            assert s.run("alter publication walpost add table a2", "insert into a2 values(2)",
                         "alter publication walpost drop table a1", "insert into a1 values(2)",
                         "alter publication walpost set (publish = 'insert')", "insert into a2 values(3)",
                         "delete from a2", "alter publication walpost set (publish = 'delete')",
                         "insert into a2 values(4)", "delete from a2",
                         "alter publication walpost set (publish = 'insert, update, delete, truncate')") == [
                insert("a2", {"id": 2}, {"id": 2}), insert("a2", {"id": 3}, {"id": 3}),
                delete("a2", {"id": 4}, {"id": 4})]
        finally:
            s.sql("alter publication walpost set (publish = 'insert, update, delete, truncate')")


def test_L13_tables_in_schema(listed):
    with listed.story("l13", needs=150000) as s:
        s.sql("create schema l13b", "create table t(id int primary key)",
              "alter publication walpost add tables in schema l13")
        s.schemas = ["l13", "l13b"]
        assert s.run("insert into t values(1)", "alter table t set schema l13b",
                     "insert into l13b.t values(2)", "create table n(id int primary key)",
                     "insert into n values(3)", "alter table l13b.t set schema l13",
                     "insert into t values(4)") == [
            insert("t", {"id": 1}, {"id": 1}), insert("n", {"id": 3}, {"id": 3}),
            insert("t", {"id": 4}, {"id": 4})]
        s.sql("alter publication walpost drop tables in schema l13")  # with one in it no list can be added
