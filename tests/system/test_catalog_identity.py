"""Keys, replica identity, and large values that the log leaves out."""

import psycopg
import pytest
from stream import delete, insert, truncate, update

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]

BIG = "x" * 3000


@pytest.fixture
def stream(streams):
    return streams("")


@pytest.fixture
def rooted(streams):
    return streams("WITH (publish_via_partition_root = true)")


@pytest.fixture
def listed(streams):
    return streams(None)


def refused(story, statement):
    with pytest.raises((psycopg.errors.ObjectNotInPrerequisiteState,
                        psycopg.errors.InvalidColumnReference)):
        story.sql(statement)


def test_K01_default_identity_non_key_update(stream):
    with stream.story("k01") as s:
        assert s.run("create table t(id int primary key, a text, b int)",
                     "insert into t values(1, 'x', 1)", "update t set a = 'y'") == [
            insert("t", {"id": 1}, {"id": 1, "a": "x", "b": 1}),
            update("t", {"id": 1}, {"id": 1, "a": "y", "b": 1})]


def test_K02_K03_K04_key_change_no_change_delete(stream):
    with stream.story("k02") as s:
        s.run("create table t(id int primary key, a text, b int)", "insert into t values(1, 'y', 1)")
        assert s.run("update t set id = 2 where id = 1") == [
            delete("t", {"id": 1}, {"id": 1}),
            update("t", {"id": 2}, {"id": 2, "a": "y", "b": 1}, changes={"id": 1})]
        same = update("t", {"id": 2}, {"id": 2, "a": "y", "b": 1})
        assert s.run("update t set id = 2 where id = 2", "update t set a = a") == [same, same]
        assert s.run("delete from t") == [delete("t", {"id": 2}, {"id": 2})]


def test_K05_full_identity(stream):
    with stream.story("k05") as s:
        assert s.run("create table t(id int primary key, a text, b int)",
                     "alter table t replica identity full", "insert into t values(1, 'x', null)",
                     "update t set b = 2", "update t set id = 9", "delete from t") == [
            insert("t", {"id": 1}, {"id": 1, "a": "x", "b": None}),
            update("t", {"id": 1}, {"id": 1, "a": "x", "b": 2}, changes={"b": None}),
            delete("t", {"id": 1}, {"id": 1, "a": "x", "b": 2}),
            update("t", {"id": 9}, {"id": 9, "a": "x", "b": 2}, changes={"id": 1}),
            delete("t", {"id": 9}, {"id": 9, "a": "x", "b": 2})]


def test_K06_R13_identity_nothing(stream):
    with stream.story("k06") as s:
        s.sql("create table t(id int primary key, a text)", "alter table t replica identity nothing",
              "insert into t values(1, 'x')")
        refused(s, "update t set a = 'y'")
        refused(s, "delete from t")
        assert s.run("truncate t") == [insert("t", None, {"id": 1, "a": "x"}), truncate("t")]


def test_K07_R13_no_primary_key(stream):
    with stream.story("k07") as s:
        s.sql("create table t(id int, a text)", "insert into t values(1, 'x')")
        refused(s, "update t set a = 'y'")
        assert s.run("truncate t") == [insert("t", None, {"id": 1, "a": "x"}), truncate("t")]


def test_K09_a_publication_of_inserts_only(listed):
    with listed.story("k09") as s:
        s.sql("create table t(id int)", "alter publication walpost set (publish = 'insert')",
              "alter publication walpost add table t")
        try:
            assert s.run("insert into t values(1)", "update t set id = 2", "delete from t") == [
                insert("t", None, {"id": 1})]
        finally:
            s.sql("alter publication walpost drop table t",
                  "alter publication walpost set (publish = 'insert, update, delete, truncate')")


def test_K10_K11_identity_index_and_its_end(stream):
    with stream.story("k10") as s:
        s.run("create table k(id int primary key, a text not null, b int)",
              "create unique index kx on k(a)", "alter table k replica identity using index kx",
              "insert into k values(1, 'x', 1)")
        assert s.run("update k set id = 2", "update k set a = 'z'", "delete from k") == [
            update("k", {"a": "x"}, {"id": 2, "a": "x", "b": 1}),
            delete("k", {"a": "x"}, {"a": "x"}),
            update("k", {"a": "z"}, {"id": 2, "a": "z", "b": 1}, changes={"a": "x"}),
            delete("k", {"a": "z"}, {"a": "z"})]
        assert s.run("drop index kx", "insert into k values(3, 'q', 1)") == [
            insert("k", None, {"id": 3, "a": "q", "b": 1})]
        refused(s, "delete from k")


def test_K12_identity_switched_inside_a_transaction(stream):
    with stream.story("k12") as s:
        s.run("create table t(id int primary key, b int)", "insert into t values(1, 1)")
        assert s.transaction("update t set b = 2", "alter table t replica identity full",
                             "update t set b = 3") == [
            update("t", {"id": 1}, {"id": 1, "b": 2}),
            update("t", {"id": 1}, {"id": 1, "b": 3}, changes={"b": 2})]


def test_K13_P10_root_and_leaf_have_other_identities(rooted):
    """What the marker of an old row says holds for the root, what the row has is the leaf's."""
    with rooted.story("k13") as s:
        s.run("create table r(id int primary key, a text, b int, big text) partition by range(id)",
              "create table r1 partition of r for values from (0) to (100)",
              "alter table r1 alter big set storage external", "alter table r1 replica identity full",
              f"insert into r values(1, 'x', 1, '{BIG}')")
        # The root has the default identity; all the same the leaf sends its whole old row as a key.
        assert s.run("update r set b = 2") == [
            update("r", {"id": 1}, {"id": 1, "a": "x", "b": 2}, changes={}, unchanged=["big"])]
        s.run("alter table r1 replica identity default", "alter table r replica identity full")
        # The root is FULL; the leaf sends only keys, marked as whole rows.
        assert s.run("update r set b = 3", "update r set id = 2, a = null", "delete from r") == [
            update("r", {"id": 1}, {"id": 1, "a": "x", "b": 3}, unchanged=["big"]),
            delete("r", {"id": 1}, {"id": 1}),
            update("r", {"id": 2}, {"id": 2, "a": None, "b": 3}, changes={"id": 1},
                   unchanged=["big"]),
            delete("r", {"id": 2}, {"id": 2})]


def test_K13_the_leafs_identity_is_an_index_that_the_root_does_not_have(rooted):
    """A key column that the leaf does not send is unknown, never null."""
    with rooted.story("k13b") as s:
        s.run("create table r(id int not null, a int not null, b int, primary key (id))"
              " partition by range(id)",
              "create table r1 partition of r for values from (0) to (100)",
              "create unique index r1_a on r1(a)", "alter table r1 replica identity using index r1_a",
              "insert into r values(1, 10, 100)")
        assert s.run("update r set b = 101", "update r set a = 11", "delete from r") == [
            update("r", {"id": 1}, {"id": 1, "a": 10, "b": 101}),
            update("r", {"id": 1}, {"id": 1, "a": 11, "b": 101}, changes={}),
            delete("r", None, {})]


def test_K14_composite_key_in_another_order(stream):
    with stream.story("k14") as s:
        s.run("create table t(a int, b text, c int, d int, primary key (c, a) include (d))",
              "insert into t values(1, 'x', 2, 3)")
        assert s.run("update t set c = 5", "update t set d = 4") == [
            delete("t", {"a": 1, "c": 2}, {"a": 1, "c": 2}),
            update("t", {"a": 1, "c": 5}, {"a": 1, "b": "x", "c": 5, "d": 3}, changes={"c": 2}),
            update("t", {"a": 1, "c": 5}, {"a": 1, "b": "x", "c": 5, "d": 4})]


def test_K15_a_deferrable_primary_key_is_none(stream):
    with stream.story("k15") as s:
        s.run("create table k(id int primary key deferrable initially deferred, a text)",
              "insert into k values(1, 'x'), (2, 'y')")
        refused(s, "update k set id = id + 1")
        s.sql("alter table k replica identity full")
        assert s.run("update k set id = id + 1") == [
            update("k", None, {"id": 2, "a": "x"}, changes={"id": 1}),
            update("k", None, {"id": 3, "a": "y"}, changes={"id": 2})]


def test_K16_keys_that_are_equal_and_not_identical(stream):
    with stream.story("k16") as s:
        s.run("create table n(id numeric primary key, a int)", "insert into n values(1.0, 1)",
              "create table f(id float8 primary key, a int)", "insert into f values('-0', 1)")
        assert s.run("update n set id = 1.00", "update f set id = 0", "delete from n") == [
            delete("n", {"id": "1.0"}, {"id": "1.0"}),
            update("n", {"id": "1.00"}, {"id": "1.00", "a": 1}, changes={"id": "1.0"}),
            delete("f", {"id": 0}, {"id": 0}),  # -0 as a number of JSON
            update("f", {"id": 0}, {"id": 0, "a": 1}, changes={"id": 0}),
            delete("n", {"id": "1.00"}, {"id": "1.00"})]


def test_K17_a_key_that_is_stored_out_of_line(stream):
    with stream.story("k17") as s:
        key = "ab" * 1200
        s.run("create table k(id text not null, a int, b int)",
              "alter table k alter id set storage external", "create unique index kx on k(id)",
              "alter table k replica identity using index kx", f"insert into k values('{key}', 1, 1)")
        assert s.run("update k set b = 2") == [
            update("k", {"id": key}, {"id": key, "a": 1, "b": 2}, changes={})]


def test_K18_a_generated_primary_key(stream):
    with stream.story("k18") as s:
        s.run("create table g(a int, s int generated always as (a * 2) stored primary key)",
              "insert into g values(5)")
        if s.version >= 180000:
            refused(s, "update g set a = 6")
            return
        assert s.run("update g set a = 6", "delete from g") == [
            update("g", None, {"a": 6}, changes={}), delete("g", None, {})]


def test_K20_equal_rows_of_a_table_without_a_key(stream):
    with stream.story("k20") as s:
        s.run("create table t(a int, b text)", "alter table t replica identity full",
              "insert into t values(1, 'x'), (1, 'x')")
        assert s.run("delete from t where ctid = (select min(ctid) from t)") == [
            delete("t", None, {"a": 1, "b": "x"})]


@pytest.fixture
def toast(stream, request):
    with stream.story(request.node.name.split("_")[1].lower()) as s:
        s.run("create table t(id int primary key, big text, n int)",
              "alter table t alter big set storage external", f"insert into t values(1, '{BIG}', 0)")
        yield s


def test_T01_T02_T03_unchanged_is_not_the_same_as_equal(toast):
    marked = update("t", {"id": 1}, {"id": 1, "n": 1}, unchanged=["big"])
    assert toast.run("update t set n = 1", "update t set big = big", f"update t set big = '{BIG}'") == [
        marked, marked, update("t", {"id": 1}, {"id": 1, "big": BIG, "n": 1})]


def test_T04_T05_changed_and_null(toast):
    other = "y" * 3000
    assert toast.run(f"update t set big = '{other}'", "update t set big = null") == [
        update("t", {"id": 1}, {"id": 1, "big": other, "n": 0}),
        update("t", {"id": 1}, {"id": 1, "big": None, "n": 0})]


def test_T06_a_value_that_is_compressed_in_place(stream):
    with stream.story("t06") as s:
        s.run("create table t(id int primary key, big text, n int)",
              "insert into t values(1, repeat('x', 5000), 0)")
        assert s.run("update t set n = 1") == [
            update("t", {"id": 1}, {"id": 1, "big": "x" * 5000, "n": 1})]


def test_T07_T11_full_identity_has_it(toast):
    toast.sql("alter table t replica identity full")
    assert toast.run("update t set n = 1", "update t set id = 2", "delete from t") == [
        update("t", {"id": 1}, {"id": 1, "big": BIG, "n": 1}, changes={"n": 0}),
        delete("t", {"id": 1}, {"id": 1, "big": BIG, "n": 1}),
        update("t", {"id": 2}, {"id": 2, "big": BIG, "n": 1}, changes={"id": 1}),
        delete("t", {"id": 2}, {"id": 2, "big": BIG, "n": 1})]


def test_T08_a_key_change_leaves_it_out(toast):
    assert toast.run("update t set id = 2") == [
        delete("t", {"id": 1}, {"id": 1}),
        update("t", {"id": 2}, {"id": 2, "n": 0}, changes={"id": 1}, unchanged=["big"])]


def test_T09_insert_and_unchanged_update_in_one_transaction(toast):
    assert toast.transaction(f"insert into t values(2, '{BIG}', 0)", "update t set n = 1 where id = 2") == [
        insert("t", {"id": 2}, {"id": 2, "big": BIG, "n": 0}),
        update("t", {"id": 2}, {"id": 2, "n": 1}, unchanged=["big"])]


@pytest.mark.parametrize("name, via_root", [("t12", False), ("t12r", True)])
def test_T12_a_row_that_moves_between_partitions_is_whole(stream, rooted, name, via_root):
    with (rooted if via_root else stream).story(name) as s:
        s.run("create table t(id int, big text, primary key (id)) partition by range (id)",
              "create table t0 partition of t for values from (0) to (10)",
              "create table t1 partition of t for values from (10) to (20)",
              "alter table t0 alter big set storage external",
              "alter table t1 alter big set storage external", f"insert into t values(1, '{BIG}')")
        names = ("t", "t") if via_root else ("t0", "t1")
        assert s.run("update t set id = 11") == [
            delete(names[0], {"id": 1}, {"id": 1}), insert(names[1], {"id": 11}, {"id": 11, "big": BIG})]


def test_T13_a_rewritten_table_sends_nothing(toast):
    assert toast.run("vacuum full t", "alter table t alter n type bigint using n + 5",
                     "update t set n = n + 1") == [
        update("t", {"id": 1}, {"id": 1, "n": 6}, unchanged=["big"])]


def test_T14_a_filter_makes_an_insert_of_an_update(listed):
    """The row enters the filter, and its large value was not written again."""
    with listed.story("t14", needs=150000) as s:
        s.run("create table rf(id int, st text, big text, primary key (id, st))",
              "alter table rf alter big set storage external",
              "alter publication walpost add table rf where (st = 'on')")
        assert s.run(f"insert into rf values(1, 'off', '{BIG}')", "update rf set st = 'on'") == [
            insert("rf", {"id": 1, "st": "on"}, {"id": 1, "st": "on"}, unchanged=["big"])]


def test_T15_upsert(toast):
    assert toast.run(
        f"insert into t values(1, '{BIG}', 5) on conflict (id) do update set n = excluded.n",
        "insert into t values(1, 'other', 6) on conflict do nothing") == [
        update("t", {"id": 1}, {"id": 1, "n": 5}, unchanged=["big"])]


def test_T16_every_type_can_be_left_out(stream):
    with stream.story("t16") as s:
        columns = {"j": "json", "jb": "jsonb", "ia": "int[]", "ta": "text[]", "by": "bytea"}
        s.run("create table t(id int primary key, n int, "
              + ", ".join(f'"{c}" {t}' for c, t in columns.items()) + ")")
        for c in columns:
            s.sql(f'alter table t alter "{c}" set storage external')
        s.run("insert into t select 1, 0, json_agg(g), jsonb_agg(g), array_agg(g), array_agg(g::text),"
              " decode(repeat('00ff', 3000), 'hex') from generate_series(1, 2000) g")
        assert s.run("update t set n = 1") == [
            update("t", {"id": 1}, {"id": 1, "n": 1}, unchanged=list(columns))]


def test_K06_K07_K08_K15_K18_K19_tables_that_cannot_be_identified_are_named_by_check(rig):
    """With the reason, and the statement that mends it; done so, nothing is left to say."""
    tables = {
        "nothing": "id int PRIMARY KEY",
        "bare": "id int, v text",
        "late": "id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED",
        "made": "a int, s int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY",
        "loose": "id int UNIQUE",
        "pick": "a int, s int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY, code text NOT NULL UNIQUE",
        "part": "id int NOT NULL) PARTITION BY RANGE (id",
        "good": "id int PRIMARY KEY",
    }
    for name, columns in tables.items():
        rig.db.sql(f"CREATE TABLE {name} ({columns})")
    rig.db.sql("ALTER TABLE nothing REPLICA IDENTITY NOTHING")
    rig.db.sql("CREATE TABLE leaf PARTITION OF part FOR VALUES FROM (0) TO (10)")
    for column in ("code", "s"):  # whatever the index is that is found first
        rig.db.sql(f"CREATE INDEX ON pick ({column})")
    rig.prepare(tables=[f"public.{name}" for name in tables])

    def mends():
        done = rig.walpost.command("check")
        out = {}
        for line in done.stdout.splitlines():
            for name in tables:
                if f"public.{name} is left out" in line:
                    out[name] = line
        return out, done.stdout
    named, text = mends()
    generated = rig.db.connection.info.server_version < 180000
    assert set(named) == set(tables) - {"good"} - (set() if generated else {"made", "pick"}), text
    for statement in ('"public"."nothing" REPLICA IDENTITY DEFAULT',
                      '"public"."bare" REPLICA IDENTITY FULL', '"public"."late" REPLICA IDENTITY FULL',
                      '"public"."loose" REPLICA IDENTITY FULL', '"public"."leaf" REPLICA IDENTITY FULL',
                      *(['"public"."made" REPLICA IDENTITY FULL',
                         '"public"."pick" REPLICA IDENTITY USING INDEX pick_code_key']
                        if generated else [])):
        assert f"ALTER TABLE {statement};" in text, text
        rig.db.sql(f"ALTER TABLE {statement}")
    rig.db.sql("ALTER TABLE part ADD PRIMARY KEY (id)")
    named, text = mends()
    assert not named, text
