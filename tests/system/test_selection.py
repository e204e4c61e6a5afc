"""Which tables, columns and rows a sync gets, and as what."""

import hashlib
import hmac
import json
import random

import pytest
import xxhash
from machine import wait_for
from test_backfill import first_arrivals, wait_copied
from walpost import sync

pytestmark = pytest.mark.sanitized

KEY = "a secret of more than 16 bytes"


def selected(rig, schemas, backfill=False, **delivery):
    """The syncs of a file whose `schemas` are these."""
    if not rig.receivers:
        rig.add_receiver()
    out = sync(rig.db.name, rig.receiver.name, backfill=backfill, **delivery)
    out["schemas"] = schemas
    return {"main": out}


def test_patterns_take_up_new_tables_and_leave_out_others(rig):
    rig.db.sql("CREATE SCHEMA shop")
    rig.db.sql("CREATE SCHEMA other")
    for table in ("public.a", "public.secret", "shop.orders_1", "other.orders", "shop.x"):
        rig.db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        rig.db.sql(f"INSERT INTO {table} VALUES (1)")
    rig.db.sql("GRANT USAGE ON SCHEMA shop, other TO walpost")
    rig.db.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public, shop, other TO walpost")
    rig.db.sql("CREATE PUBLICATION walpost FOR TABLE"
               " public.a, public.secret, shop.orders_1, other.orders, shop.x")
    rig.start(syncs=selected(rig, ["public.*", "*.orders_*", {"id": "public.secret", "enabled": False}],
                             backfill=True))
    wait_copied(rig, 2)
    for table in ("public.a", "public.secret", "shop.orders_1", "other.orders", "shop.x"):
        rig.db.sql(f"INSERT INTO {table} VALUES (2)")
    rig.db.sql("CREATE TABLE shop.orders_2 (id int PRIMARY KEY)")
    rig.db.sql("GRANT SELECT ON shop.orders_2 TO walpost")
    rig.db.sql("ALTER PUBLICATION walpost ADD TABLE shop.orders_2")
    rig.db.sql("INSERT INTO shop.orders_2 VALUES (1)")
    rig.db.sql("INSERT INTO public.a VALUES (3)")
    rig.wait_arrived(6)
    arrived = [(r["schema"], r["key"]["id"]) for r in first_arrivals(rig.receiver)]
    assert sorted(arrived) == [("public.a", 1), ("public.a", 2), ("public.a", 3),
                               ("shop.orders_1", 1), ("shop.orders_1", 2), ("shop.orders_2", 1)]


def hashed(text, key=KEY):
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def wait_mark(rig):
    """Until the last row has arrived; under order: sync all others have before it."""
    wait_for("the mark arrives", lambda: any(r["schema"] == "public.mark"
                                             for r in rig.receiver.records()), tail=rig.tail)


# --- filters: PostgreSQL says which rows should arrive ------------------------------------------

ROWS = """INSERT INTO f (id, t, n, i, d, ts, tz, b, a, j, f8) VALUES
 (1, 'eu', 12.50, 9007199254740993, '2024-02-29', '2024-02-29 12:00', '2024-02-29 12:00+02', true, '{1,2}', '["x","y"]', 0.1),
 (2, 'us', 12.5000000000000000001, 9007199254740992, '2024-03-01', '2024-02-29 12:00:00.000001', '2024-02-29 10:00+00', false, '{}', '[]', 1e20),
 (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (4, 'EU', -0.00, 0, '0044-03-15 BC', 'infinity', '-infinity', true, '{NULL,3}', '{"a":1}', 'NaN'),
 (5, E'e\\u00fc "quoted" \\\\ back\\nline', 'NaN', -1, 'infinity', '10000-01-01 00:00', '294276-12-31 23:59:59.999999+00', false, '{{1,2},{3,4}}', '"eu"', '-Infinity'),
 (6, '  eu ', 1e30, 42, now()::date, now()::timestamp, now() - interval '1 hour', true, '{1}', '[1.50, null]', 1e-7),
 (7, '', -12.5, 43, now()::date - 3, now()::timestamp - interval '3 days', now() - interval '3 days', NULL, '{9}', '[[\"x\"]]', -0.0),
 (8, 'europe', 1234567890.123456789012345678901234567890, -9223372036854775808, '2024-01-31', '2024-01-31 00:00', now() - interval '40 days', true, '{2,1}', '["y"]', 5),
 (9, '100%_sure', 'Infinity', 9223372036854775807, '1999-12-31', '1999-12-31 23:59:59', now() + interval '2 days', false, NULL, 'null', 12.5),
 (10, E'\\u65e5\\u672c', 0.1, 5, '2024-02-28', '2024-02-28 00:00', '2024-02-28 00:00+00', true, '{5}', '"\\u0065u"', 2)"""

# function, column, value, the same in SQL.
CASES = [
    ("Equality", "t", "eu", "t = 'eu'"),
    ("Equality", "t", 'eü "quoted" \\ back\nline', "id % 100 = 5"),
    ("Equality", "n", "12.5", "n = 12.5"),
    ("Equality", "n", "0", "n = 0"),
    ("Equality", "n", "NaN", "n = 'NaN'"),
    ("Equality", "i", "9007199254740993", "i = 9007199254740993"),
    ("Equality", "tz", "2024-02-29T10:00:00Z", "tz = '2024-02-29T10:00:00Z'"),
    ("Equality", "b", "true", "b = true"),
    ("Equality", "f8", "1e20", "f8 = 1e20"),
    ("Inequality", "t", "eu", "t <> 'eu'"),
    ("Inequality", "n", "12.50", "n <> 12.5"),
    ("Inequality", "i", "42", "i <> 42"),
    ("IsNull", "t", None, "t IS NULL"),
    ("IsNotNull", "n", None, "n IS NOT NULL"),
    ("True", "b", None, "b"),
    ("False", "b", None, "NOT b"),
    ("OnOrAfter", "d", "2024-02-29", "d >= '2024-02-29'"),
    ("OnOrAfter", "ts", "2024-02-29 12:00", "ts >= '2024-02-29 12:00'"),
    ("OnOrAfter", "tz", "2024-02-29T12:00:00+02:00", "tz >= '2024-02-29T12:00:00+02:00'"),
    ("OnOrBefore", "d", "2024-02-28", "d <= '2024-02-28'"),
    ("OnOrBefore", "ts", "2024-01-31", "ts <= '2024-01-31'"),
    ("OnOrBefore", "tz", "2024-02-29", "tz <= '2024-02-29 00:00+00'"),
    ("GreaterThan", "n", "12.5", "n > 12.5"),
    ("GreaterThan", "i", "9007199254740992", "i > 9007199254740992"),
    ("GreaterThan", "t", "eu", "t COLLATE \"C\" > 'eu'"),
    ("GreaterThan", "f8", "0.1", "f8 > 0.1"),
    ("GreaterThanEqual", "n", "12.5000000000000000001", "n >= 12.5000000000000000001"),
    ("GreaterThanEqual", "ts", "2024-02-29T12:00:00", "ts >= '2024-02-29T12:00:00'"),
    ("LessThan", "n", "-1e-3", "n < -0.001"),
    ("LessThan", "i", "0", "i < 0"),
    ("LessThan", "f8", "1e-6", "f8 < 1e-6"),
    ("LessThan", "t", "a", "t COLLATE \"C\" < 'a'"),
    ("LessThanEqual", "n", "12.50", "n <= 12.5"),
    ("LessThanEqual", "d", "1999-12-31", "d <= '1999-12-31'"),
    ("Between", "n", ["0", "12.5"], "n BETWEEN 0 AND 12.5"),
    ("Between", "d", ["2024-01-31", "2024-02-29"], "d BETWEEN '2024-01-31' AND '2024-02-29'"),
    ("Between", "i", ["-1", "42"], "i BETWEEN -1 AND 42"),
    ("StringContains", "t", "u", "t LIKE '%u%'"),
    ("StringContains", "t", "\n", "strpos(t, E'\\n') > 0"),
    ("StringContains", "t", "", "t IS NOT NULL"),
    ("StringStartsWith", "t", "eu", "starts_with(t, 'eu')"),
    ("StringEndsWith", "t", "eu", "right(t, 2) = 'eu'"),
    ("StringDoesNotContain", "t", "u", "t NOT LIKE '%u%'"),
    ("StringDoesNotStartWith", "t", "eu", "NOT starts_with(t, 'eu')"),
    ("StringDoesNotEndWith", "t", "eu", "right(t, 2) <> 'eu'"),
    ("StringStartsWith", "i", "9", "starts_with(i::text, '9')"),
    ("StringOneOf", "t", ["eu", "us", ""], "t IN ('eu', 'us', '')"),
    ("StringNotOneOf", "t", ["eu", "us"], "t NOT IN ('eu', 'us')"),
    ("StringOneOf", "n", ["12.500", "1e30"], "n IN (12.5, 1e30)"),
    ("ArrayContains", "a", "2", "a @> '{2}'"),
    ("ArrayContains", "a", "3", "a @> '{3}'"),
    ("ArrayDoesNotContain", "a", "1", "NOT a @> '{1}'"),
    ("InTheLast", "tz", "2 days", "tz BETWEEN now() - interval '2 days' AND now()"),
    ("InTheLast", "tz", "1 month", "tz BETWEEN now() - interval '1 month' AND now()"),
    ("RelativeOnOrAfter", "tz", "2 days ago", "tz >= now() - interval '2 days'"),
    ("RelativeOnOrAfter", "ts", "1 week ago", "ts >= now()::timestamp - interval '1 week'"),
    ("RelativeOnOrBefore", "tz", "1 day ago", "tz <= now() - interval '1 day'"),
    ("RelativeOnOrBefore", "tz", "1 day from now", "tz <= now() + interval '1 day'"),
    ("StringLike", "t", "%u%_", "t LIKE '%u%_'"),
    ("StringLike", "t", "__", "t LIKE '__'"),
    ("StringLike", "t", r"100\%\_%", r"t LIKE '100\%\_%'"),
    ("StringNotLike", "t", "e%", "t NOT LIKE 'e%'"),
    ("Equality", "j", "eu", "j::jsonb = '\"eu\"'"),
    ("ArrayContains", "j", "1.5", "j::jsonb @> '[1.5]'"),
    ("ArrayContains", "j", "y", "j::jsonb @> '[\"y\"]'"),
    ("StringMatchesTrimmed", "t", "eu", "btrim(t) = 'eu'"),
]


@pytest.mark.versions
def test_filters_select_the_rows_that_sql_selects(rig):
    """One table per case, so that one walpost does all; inserts, and the same rows copied."""
    rig.db.sql("SET timezone = 'UTC'")
    rig.db.sql("CREATE TABLE f (id int PRIMARY KEY, t text, n numeric, i bigint, d date,"
               " ts timestamp, tz timestamptz, b bool, a int[], j json, f8 float8)")
    # numeric has infinities since PostgreSQL 14.
    rig.db.sql(ROWS if rig.db.server.version >= 14 else ROWS.replace("'Infinity'", "1e300"))
    schemas = []
    for no, (function, column, value, _) in enumerate(CASES):
        rig.db.sql(f"CREATE TABLE c{no} (LIKE f INCLUDING ALL)")
        rig.db.sql(f"INSERT INTO c{no} SELECT * FROM f")
        rule = {"field_id": column, "function": function}
        if value is not None:
            rule["value"] = value
        schemas.append({"id": f"public.c{no}", "filters": [rule], "fields": ["id"]})
    rig.db.sql("CREATE TABLE mark (id int PRIMARY KEY)")
    schemas.append("public.mark")
    rig.db.publish("mark", *(f"c{no}" for no in range(len(CASES))))
    rig.db.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO walpost")
    rig.start(syncs=selected(rig, schemas, backfill=True, order="sync"))
    wait_copied(rig, len(CASES) + 1)
    for no in range(len(CASES)):
        rig.db.sql(f"INSERT INTO c{no} SELECT id + 100, t, n, i, d, ts, tz, b, a, j, f8 FROM f")
    rig.db.sql("INSERT INTO mark VALUES (1)")
    want = {}
    for no, (_, _, _, condition) in enumerate(CASES):
        rows = rig.db.sql(f"SELECT id FROM c{no} WHERE {condition}")
        want[f"public.c{no}"] = sorted(row[0] for row in rows)
    wait_mark(rig)
    have = {table: [] for table in want}
    for record in first_arrivals(rig.receiver):
        if record["schema"] == "public.mark":
            continue
        assert record["fields"] == record["key"]
        have[record["schema"]].append(record["key"]["id"])
    wrong = [(case, sorted(have[f"public.c{no}"]), want[f"public.c{no}"])
             for no, case in enumerate(CASES)
             if sorted(have[f"public.c{no}"]) != want[f"public.c{no}"]
             or not 0 < len(want[f"public.c{no}"]) < 20]  # else the case says nothing
    assert not wrong


def without(records, *members):
    return [{k: v for k, v in r.items() if k not in members} for r in records]


def test_updates_across_a_filter_are_what_a_publication_with_it_sends(rig, seed):
    """With the old row in the log: the same statements on two tables, one filtered by PostgreSQL."""
    if rig.db.server.version < 15:
        pytest.skip("publications have no row filters before PostgreSQL 15")
    rng = random.Random(seed)
    for table in ("theirs", "ours", "mark"):
        rig.db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, region text, n int, big text)")
        rig.db.sql(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        rig.db.sql(f"ALTER TABLE {table} ALTER big SET STORAGE EXTERNAL")
    rig.db.sql("CREATE PUBLICATION walpost FOR TABLE ours, mark,"
               " theirs WHERE (region = 'eu' AND n > 10)")
    rig.start(order="sync", syncs=selected(rig, [
        "public.theirs", "public.mark",
        {"id": "public.ours", "filter_leaving": "delete",
         "filters": [{"field_id": "region", "function": "Equality", "value": "eu"},
                     {"field_id": "n", "function": "GreaterThan", "value": "10"}]}], order="sync"))
    live = []
    for next_id in range(200):
        region, n = rng.choice(["eu", "eu", "us", None]), rng.choice([5, 10, 11, 20, 30, None])
        kind = rng.choice(["insert", "update", "update", "update", "toast", "key", "delete"])
        if not live:
            kind = "insert"
        row = rng.choice(live) if live else None
        if kind in ("key", "delete"):
            live.remove(row)
        if kind in ("key", "insert"):
            live.append(next_id)
        for table in ("theirs", "ours"):
            if kind == "insert":
                rig.db.sql(f"INSERT INTO {table} VALUES (%s, %s, %s, repeat('x', 3000))",
                           next_id, region, n)
            elif kind == "update":
                rig.db.sql(f"UPDATE {table} SET region = %s, n = %s WHERE id = %s", region, n, row)
            elif kind == "toast":
                rig.db.sql(f"UPDATE {table} SET big = %s WHERE id = %s", str(n), row)
            elif kind == "key":
                rig.db.sql(f"UPDATE {table} SET id = %s, n = %s WHERE id = %s", next_id, n, row)
            else:
                rig.db.sql(f"DELETE FROM {table} WHERE id = %s", row)
    rig.db.sql("INSERT INTO mark VALUES (1)")
    wait_mark(rig)
    arrived = first_arrivals(rig.receiver)
    # PostgreSQL looks at both rows of an update as one, walpost at the halves of a key change.
    theirs, ours = (without((r for r in arrived if r["schema"] == f"public.{table}"),
                            "id", "schema", "position", "commit") for table in ("theirs", "ours"))
    assert [(r["operation"], r["key"]) for r in ours] == [(r["operation"], r["key"]) for r in theirs]
    assert ours == theirs
    assert {r["operation"] for r in ours} == {"insert", "update", "delete"} and len(ours) > 30


def test_updates_and_deletes_whose_old_row_is_not_known(rig):
    """Under the default identity the log has the new row only, and of a delete the key."""
    rule = [{"field_id": "region", "function": "Equality", "value": "eu"}]
    for table in ("dropped", "deleted", "mark"):
        rig.db.sql(f"CREATE TABLE {table} (id int PRIMARY KEY, region text, v int)")
    rig.db.publish("dropped", "deleted", "mark")
    rig.start(syncs=selected(rig, [
        "public.mark", {"id": "public.dropped", "filters": list(map(dict, rule))},
        {"id": "public.deleted", "filters": list(map(dict, rule)), "filter_leaving": "delete"}], order="sync"))
    for table in ("dropped", "deleted"):
        rig.db.sql(f"INSERT INTO {table} VALUES (1, 'eu', 1), (2, 'us', 1)")
        rig.db.sql(f"UPDATE {table} SET v = 2")
        rig.db.sql(f"UPDATE {table} SET region = CASE id WHEN 1 THEN 'us' ELSE 'eu' END")
        rig.db.sql(f"UPDATE {table} SET id = 3 WHERE id = 1")
        rig.db.sql(f"UPDATE {table} SET id = 4 WHERE id = 2")
        rig.db.sql(f"DELETE FROM {table}")
        rig.db.sql(f"TRUNCATE {table}")
    rig.db.sql("INSERT INTO mark VALUES (1)")
    wait_mark(rig)
    def story(table):
        return [(r["operation"], r["key"] and r["key"]["id"], r["fields"])
                for r in first_arrivals(rig.receiver) if r["schema"] == f"public.{table}"]
    eu = {"region": "eu"}
    after = [("delete", 1, {"id": 1}), ("delete", 2, {"id": 2}), ("update", 4, {"id": 4, **eu, "v": 2}),
             ("delete", 3, {"id": 3}), ("delete", 4, {"id": 4}), ("truncate", None, None)]
    assert story("dropped") == [
        ("insert", 1, {"id": 1, **eu, "v": 1}), ("update", 1, {"id": 1, **eu, "v": 2}),
        ("update", 2, {"id": 2, **eu, "v": 2})] + after
    assert story("deleted") == [
        ("insert", 1, {"id": 1, **eu, "v": 1}), ("update", 1, {"id": 1, **eu, "v": 2}),
        ("delete", 2, {"id": 2}), ("delete", 1, {"id": 1}), ("update", 2, {"id": 2, **eu, "v": 2})] + after


def test_a_large_unchanged_value_leaves_the_filter_undecided(rig):
    """What cannot be decided is delivered: the log has neither the value nor the old row."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, big text, v int)")
    rig.db.sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    rig.db.sql("CREATE TABLE mark (id int PRIMARY KEY)")
    rig.db.publish("t", "mark")
    rig.start(syncs=selected(rig, ["public.mark", {"id": "public.t", "filters": [
        {"field_id": "big", "function": "StringStartsWith", "value": "x"},
        {"field_id": "v", "function": "LessThan", "value": "5"}]}], order="sync"))
    rig.db.sql("INSERT INTO t VALUES (1, repeat('x', 3000), 1), (2, repeat('y', 3000), 1)")
    rig.db.sql("UPDATE t SET v = 2")
    rig.db.sql("UPDATE t SET v = 9")  # false whatever the other is
    rig.db.sql("INSERT INTO mark VALUES (1)")
    wait_mark(rig)
    assert [(r["operation"], r["key"]["id"]) for r in first_arrivals(rig.receiver)
            if r["schema"] == "public.t"] == [("insert", 1), ("update", 1), ("update", 2)]


def test_a_filter_on_a_column_that_is_not_there_stops_the_sync(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, region text)")
    rig.db.publish("t")
    rig.start(syncs=selected(rig, [{"id": "public.t", "filters": [
        {"field_id": "Region", "function": "Equality", "value": "eu"}]}]))
    rig.db.sql("INSERT INTO t VALUES (1, 'us')")
    wait_for("the sync stops", lambda: "event=sync_failed" in rig.walpost.log_text(), tail=rig.tail)
    assert "the filter on column Region of public.t cannot be applied" in rig.walpost.log_text()
    assert not rig.receiver.records()


# --- columns ------------------------------------------------------------------------------------

SECRET = "very-secret-value"

# Of table "t": what becomes of each column; "*" is there, so more may come.
FIELDS = ["*", {"id": "name", "output_name": "full \"name\""}, {"id": "phone", "obfuscate": True},
          {"id": "mail", "obfuscate": "mask", "output_name": "m"}, {"id": "iban", "obfuscate": "null"},
          {"id": "secret", "enabled": False}, {"id": "not there", "enabled": False},
          {"id": "gone", "output_name": "went"}]


def value_out(column, value):
    if column in ("phone", "email") and value is not None:
        return hashed(value if isinstance(value, str) else json.dumps(value))
    if column == "mail" and value is not None:
        return "***"
    return None if column == "iban" else value


def name_out(column):
    return {"name": 'full "name"', "mail": "m"}.get(column, column)


def object_out(columns):
    return columns if columns is None else {
        name_out(c): value_out(c, v) for c, v in columns.items() if c != "secret"}


def record_out(record):
    """What a record must become, by the rules of the README."""
    out = dict(record)
    if record["operation"] == "schema":
        def described(what):
            return {**what, **({"columns": [
                {"name": name_out(c["name"]),
                 "type": "text" if c["name"] in ("phone", "mail", "email") else c["type"],
                 "key": c["key"]}
                for c in what["columns"] if c["name"] != "secret"]} if "columns" in what else {})}
        for part in ("fields", "changes"):
            if part in out:
                out[part] = described(out[part])
    else:
        for part in ("key", "fields", "changes"):
            if part in out:
                out[part] = object_out(out[part])
    if "unchanged" in out:
        out["unchanged"] = [name_out(c) for c in out["unchanged"] if c != "secret"]
        if not out["unchanged"]:
            del out["unchanged"]
    fields = json.dumps(out["fields"], separators=(",", ":"), ensure_ascii=False)
    out["hash"] = xxhash.xxh3_64_hexdigest(fields.encode())
    return out


def test_columns_are_left_out_renamed_and_obfuscated_everywhere(rig):
    """Two syncs of the same tables, one of them as they are: Python says what the other must get."""
    as_is, mapped = rig.add_receiver("as-is"), rig.add_receiver("mapped")
    create = ("(id int PRIMARY KEY, name text, phone text, mail text, iban text, secret text,"
              " big text, more int[])")
    for table, identity in (("t", "DEFAULT"), ("full_t", "FULL")):
        rig.db.sql(f"CREATE TABLE {table} {create}")
        rig.db.sql(f"ALTER TABLE {table} REPLICA IDENTITY {identity}")
        rig.db.sql(f"ALTER TABLE {table} ALTER secret SET STORAGE EXTERNAL,"
                   " ALTER big SET STORAGE EXTERNAL, ALTER phone SET STORAGE EXTERNAL")
        rig.db.sql(f"INSERT INTO {table} VALUES (1, 'Ada', '+49', '{SECRET}@x', '{SECRET}', '{SECRET}',"
                   " 'b', '{1,2}')")
    rig.db.sql("CREATE TABLE by_mail (email text PRIMARY KEY, v int)")
    rig.db.publish("t", "full_t", "by_mail")
    operations = ["insert", "update", "delete", "truncate", "read", "schema"]
    syncs = {}
    for name, receiver in (("as-is", as_is), ("mapped", mapped)):
        syncs[name] = sync(rig.db.name, receiver.name, backfill=True, order="sync",
                           operations=list(operations))
    syncs["mapped"]["obfuscation_key"] = KEY
    syncs["mapped"]["schemas"] = [
        {"id": "public.*", "fields": FIELDS},
        {"id": "public.by_mail", "fields": ["v", {"id": "email", "obfuscate": "hash"}]}]
    rig.start(syncs=syncs)
    wait_for("the rows are copied", lambda: rig.walpost.metric("walpost_backfill_done_tables") >= 6
             and rig.walpost.metric("walpost_backfill_pending_tables") == 0, 60, tail=rig.tail)
    for table in ("t", "full_t"):
        rig.db.sql(f"INSERT INTO {table} VALUES (2, E'\\u00e4\\n\"', E'1\\n\"\\u00df', %s, %s, repeat(%s, 500),"
                   " repeat('b', 3000), NULL)", SECRET, SECRET, SECRET)
        rig.db.sql(f"INSERT INTO {table} (id) VALUES (3)")
        rig.db.sql(f"UPDATE {table} SET phone = repeat('7', 3000) WHERE id = 2")
        rig.db.sql(f"UPDATE {table} SET name = 'Bob' WHERE id = 2")
        rig.db.sql(f"UPDATE {table} SET secret = %s, mail = %s WHERE id = 1", "x" + SECRET, "y" + SECRET)
        rig.db.sql(f"UPDATE {table} SET id = 10 WHERE id = 1")
        rig.db.sql(f"ALTER TABLE {table} ADD COLUMN later text")
        rig.db.sql(f"UPDATE {table} SET later = 'x', iban = NULL")
        rig.db.sql(f"ALTER TABLE {table} DROP COLUMN secret")
        rig.db.sql(f"DELETE FROM {table}")
        rig.db.sql(f"TRUNCATE {table}")
    rig.db.sql("INSERT INTO by_mail VALUES ('ada@x', 1), ('bob@x', 2)")
    rig.db.sql("UPDATE by_mail SET v = 3")
    rig.db.sql("UPDATE by_mail SET email = 'eve@x' WHERE email = 'ada@x'")
    rig.db.sql("DELETE FROM by_mail")
    rig.wait_arrived(45, receiver=as_is)
    rig.wait_arrived(45, receiver=mapped)
    # Each sync has a snapshot of its own, so copied rows have other ids and places.
    def named(records):
        return {(r["operation"], r["schema"]) if r["operation"] == "read" else r["id"]:
                {k: v for k, v in r.items() if r["operation"] != "read"
                 or k not in ("id", "position", "commit")} for r in records}
    want = named(record_out(r) for r in first_arrivals(as_is))
    have = named(first_arrivals(mapped))
    assert set(have) == set(want) and len(want) == 45
    def changes(records):
        return [k for k in records if isinstance(k, str)]
    assert changes(have) == changes(want)
    for record_id, record in want.items():
        assert have[record_id] == record
        assert list(have[record_id]) == list(record)  # members in their order
    assert {r["operation"] for r in want.values()} == set(operations)
    assert any("unchanged" in r for r in want.values())
    assert any(r.get("changes") for r in want.values())
    text = json.dumps(list(have.values()), ensure_ascii=False)
    assert SECRET not in text and "ada@x" not in text
    assert SECRET not in rig.walpost.log_text() and KEY not in rig.walpost.log_text()
    assert "event=selected_column_missing" in rig.walpost.log_text()
    # A hash is the same wherever its value stands, so joins survive.
    assert hashed("ada@x") in text and hashed("+49") in text


def test_a_key_that_no_longer_tells_rows_apart_is_null(rig):
    rig.db.sql("CREATE TABLE t (a int, b text, v int, PRIMARY KEY (a, b))")
    rig.db.sql("CREATE TABLE u (LIKE t INCLUDING ALL)")
    rig.db.publish("t", "u")
    operations = ["insert", "update", "delete", "schema"]
    rig.start(syncs=selected(rig, [
        {"id": "public.t", "fields": ["a", "v"]},
        {"id": "public.u", "fields": ["*", {"id": "b", "obfuscate": "mask"}]}], order="sync",
        operations=operations))
    for table in ("t", "u"):
        rig.db.sql(f"INSERT INTO {table} VALUES (1, 'x', 1), (1, 'y', 2)")
        rig.db.sql(f"UPDATE {table} SET v = 3 WHERE b = 'y'")
        rig.db.sql(f"DELETE FROM {table}")
    rig.wait_arrived(12)
    records = first_arrivals(rig.receiver)
    assert all(r["key"] is None for r in records)
    assert not any(c["key"] for r in records if r["operation"] == "schema"
                   for c in r["fields"]["columns"])
    assert [r["fields"] for r in records if r["schema"] == "public.u" and r["operation"] != "schema"] == [
        {"a": 1, "b": "***", "v": 1}, {"a": 1, "b": "***", "v": 2}, {"a": 1, "b": "***", "v": 3},
        {"a": 1, "b": "***"}, {"a": 1, "b": "***"}]


def test_check_shows_what_is_selected_and_names_columns_that_are_not_there(rig):
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, phone text, region text,"
               " made int GENERATED ALWAYS AS (id) STORED)")
    rig.db.publish("t")
    fields = ["id", {"id": "phone", "obfuscate": "mask", "output_name": "tel"}]
    rule = {"function": "Equality", "value": "eu"}
    walpost = rig.prepare(syncs=selected(rig, [{"id": "public.*", "fields": fields, "filters": [
        {"field_id": "region", **rule}]}]))
    done = walpost.command("check")
    assert "selection: 1 tables: public.t (id, phone as tel (mask); 1 filters)" in done.stdout
    assert done.returncode == 0, done.stdout
    walpost.config["bulk_syncs"]["main"]["schemas"] = [
        {"id": "public.t", "fields": ["id", "nowhere", "made"], "filters": [{"field_id": "Region", **rule}]}]
    walpost.write()
    done = walpost.command("check")
    assert "warn  sync main: selection: table public.t has no column nowhere" in done.stdout
    assert "warn  sync main: selection: table public.t has no column made" in done.stdout, "it is not published"
    assert "FAIL  sync main: selection: table public.t has no column Region" in done.stdout
    assert done.returncode == 1
