"""The forms that a request's body may have, each read by the rules of its format alone."""

import base64
import gzip
import json
import subprocess
import urllib.parse

import pytest
from machine import build_dir, wait_for
from signatures import by_python, new_secret
from test_selection import selected

pytestmark = pytest.mark.sanitized

OPERATIONS = ["insert", "update", "delete", "truncate", "message"]
UNAVAILABLE = "__debezium_unavailable_value"


def posts(rig):
    return [r for r in rig.receiver.requests() if r.body]


class Literal(float):
    """A number as it is written."""

    def __new__(cls, text):
        number = super().__new__(cls, text)
        number.text = text
        return number


def exact(text):
    return json.loads(text, parse_float=Literal)


def story(rig, operations=OPERATIONS, backfill=False, **delivery):
    """Changes of every kind, delivered in their order; how many records there are."""
    db = rig.db
    messages = "message" in operations and db.connection.info.server_version >= 140000
    if not messages:
        operations = [op for op in operations if op != "message"]
    db.sql('CREATE TABLE "Ord ers ü" (id int PRIMARY KEY, name text, total numeric, note text)')
    db.sql('ALTER TABLE "Ord ers ü" ALTER note SET STORAGE EXTERNAL')
    db.sql('CREATE TABLE whole (id int PRIMARY KEY, name text, total numeric)')
    db.sql("ALTER TABLE whole REPLICA IDENTITY FULL")
    db.publish('"Ord ers ü"', "whole")
    if backfill:
        db.sql("INSERT INTO whole VALUES (100, 'there before', 1)")
    rig.start(order="sync", operations=operations, backfill=backfill,
              connection={"message_prefixes": ["bill"]} if messages else {}, **delivery)
    if backfill:
        wait_for("the row of before", lambda: posts(rig), 60, tail=rig.walpost.tail)
    db.sql("""INSERT INTO "Ord ers ü" VALUES (1, 'a"\\b', 24.90, repeat('x', 9000))""")
    db.sql("""UPDATE "Ord ers ü" SET name = 'ä', total = 123456789012345678901234567890.10""")
    db.sql("""UPDATE "Ord ers ü" SET id = 2, name = 'moved'""")
    db.sql("""DELETE FROM "Ord ers ü" """)
    db.sql("INSERT INTO whole VALUES (1, 'one', 1.0), (2, 'two', NULL)")
    db.sql("UPDATE whole SET total = 2.50 WHERE id = 1")
    db.sql("UPDATE whole SET id = 3 WHERE id = 2")
    db.sql("DELETE FROM whole WHERE id = 1")
    if messages:
        db.sql("SELECT pg_logical_emit_message(true, 'bill', 'tëxt\n')")
        db.sql("SELECT pg_logical_emit_message(true, 'bill', '\\x00ff80'::bytea)")
    db.sql("TRUNCATE whole")
    return messages


def settled(rig, n, records):
    """Until n records are in accepted requests; they, first arrivals only."""
    def found():
        seen = {}
        for request in posts(rig):
            if request.accepted:
                for record in records(request):
                    seen.setdefault(record["id"], record)
        return seen
    wait_for(f"{n} records", lambda: len(found()) >= n, 60, tail=rig.walpost.tail)
    assert len(found()) == n
    return list(found().values())


def of_debezium(request):
    events = exact(request.body)
    assert request.headers["content-type"] == "application/json"
    events = events if isinstance(events, list) else [events]
    return [dict(event, id=event["source"]["id"]) for event in events]


def test_a_debezium_event_of_a_changed_key_that_does_not_go_out(rig):
    """What is known of the row before is what `changes` has."""
    rig.db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    rig.db.sql("CREATE TABLE u (LIKE t INCLUDING ALL)")
    rig.db.publish("t", "u")
    rig.start(syncs=selected(rig, [
        {"id": "public.t", "fields": ["v"]},
        {"id": "public.u", "fields": ["v", {"id": "id", "obfuscate": "mask"}]}],
        order="sync", body="debezium"))
    for table in ("t", "u"):
        rig.db.sql(f"INSERT INTO {table} VALUES (1, 'one')")
        rig.db.sql(f"UPDATE {table} SET id = 2")
    events = settled(rig, 6, of_debezium)
    assert [(e["op"], e["before"], e["after"]) for e in events] == [
        ("c", None, {"v": "one"}), ("d", {}, None), ("u", {}, {"v": "one"}),
        ("c", None, {"id": "***", "v": "one"}), ("d", {"id": "***"}, None),
        ("u", {"id": "***"}, {"id": "***", "v": "one"})]


def test_debezium_events(rig):
    """Envelope, before and after, source: what Debezium's own consumers look at."""
    messages = story(rig, body="debezium", backfill=True, operations=[*OPERATIONS, "read"])
    # A changed key is a delete and an update.
    events = settled(rig, 1 + 5 + 2 + 1 + 2 + 1 + 1 + (2 if messages else 0), of_debezium)
    by_table = {}
    for event in events:
        by_table.setdefault(event["source"]["table"], []).append(event)
    orders, whole = by_table["Ord ers ü"], by_table["whole"]
    assert [e["op"] for e in orders] == ["c", "u", "d", "u", "d"]
    assert [e["op"] for e in whole] == ["r", "c", "c", "u", "d", "u", "d", "t"]
    insert, update, old, new, delete = orders
    note = "x" * 9000
    assert insert["before"] is None
    assert insert["after"] == {"id": 1, "name": 'a"\\b', "total": 24.9, "note": note}
    assert insert["after"]["total"].text == "24.90"
    assert update["before"] is None
    assert update["after"] == {"id": 1, "name": "ä", "total": update["after"]["total"],
                               "note": UNAVAILABLE}
    assert update["after"]["total"].text == "123456789012345678901234567890.10"
    assert old["before"]["id"] == 1 and old["after"] is None
    assert new["before"] == {"id": 1}
    assert new["after"] == dict(update["after"], id=2, name="moved")
    assert delete["before"]["id"] == 2 and delete["after"] is None
    read, one, two, updated, gone, moved, deleted, truncated = whole
    assert (read["before"], read["after"]["id"], read["source"]["snapshot"]) == (None, 100, "true")
    assert one["after"] == {"id": 1, "name": "one", "total": 1} and two["after"]["total"] is None
    assert updated["before"] == one["after"]
    assert updated["after"] == dict(one["after"], total=2.5)
    assert gone["before"] == two["after"] and moved["before"]["id"] == 2
    assert moved["after"] == dict(two["after"], id=3)
    assert deleted["before"] == updated["after"] and deleted["after"] is None
    assert truncated["before"] is None and truncated["after"] is None
    for event in events:
        source = event["source"]
        assert event["transaction"] is None and isinstance(event["ts_ms"], int)
        assert source["connector"] == "postgresql" and source["name"] == "main"
        assert source["db"] == rig.db.name and source["xmin"] is None
        commit, lsn = json.loads(source["sequence"])
        assert int(commit) == int(source["id"].split("-")[1], 16) and int(lsn) == source["lsn"]
        assert source["lsn"] <= int(commit)
        if event["op"] == "m":
            assert (source["schema"], source["table"]) == ("", "")
        else:
            assert source["schema"] == "public"
        if event["op"] != "r":
            assert source["snapshot"] == "false"
            assert source["txId"] > 0 and abs(source["ts_ms"] - event["ts_ms"]) < 120_000
    if messages:
        assert [(m["message"]["prefix"], base64.b64decode(m["message"]["content"]))
                for m in by_table[""]] == [("bill", "tëxt\n".encode()), ("bill", b"\x00\xff\x80")]
        assert all("before" not in m and "after" not in m for m in by_table[""])


def same_data(rig, n, records):
    """n events with the very bytes of the record in them, whose attributes fit it."""
    for event in settled(rig, n, records):
        record = event["data"]
        assert event["specversion"] == "1.0" and event["id"] == record["id"]
        assert event["source"] == "/walpost/main"
        assert event["type"] == "walpost." + record["operation"]
        assert event["subject"] == record["schema"]
        assert event.get("time") == record["commit"]["time"]
        if record["schema"] == "public.whole" and record["operation"] == "update":
            assert record["changes"]


@pytest.mark.parametrize("mode", ["batched", "structured"])
def test_cloudevents_in_json(rig, mode):
    content_type = {"batched": "application/cloudevents-batch+json",
                    "structured": "application/cloudevents+json"}[mode]

    def records(request):
        assert request.headers["content-type"] == content_type
        events = exact(request.body)
        assert isinstance(events, list) == (mode == "batched")
        events = events if mode == "batched" else [events]
        assert all(e["datacontenttype"] == "application/json" for e in events)
        return events
    messages = story(rig, body="cloudevents", backfill=True, operations=[*OPERATIONS, "read"],
                     **({} if mode == "batched" else {"cloudevents_mode": mode, "batch_size": 1}))
    n = 13 + (2 if messages else 0)
    same_data(rig, n, records)
    times = [e for r in posts(rig) for e in records(r) if e["type"] == "walpost.read"]
    assert times and all("time" not in e for e in times)


def test_cloudevents_as_headers(rig):
    """Binary mode: the body is the record, the attributes are headers, percent-encoded."""
    def records(request):
        headers = request.headers
        assert headers["content-type"] == "application/json"
        event = {name[3:]: urllib.parse.unquote(value) for name, value in headers.items()
                 if name.startswith("ce-")}
        assert all(0x20 < ord(c) < 0x7f for n, v in headers.items() if n.startswith("ce-") for c in v)
        return [dict(event, data=exact(request.body))]
    messages = story(rig, body="cloudevents", cloudevents_mode="binary", batch_size=1)
    same_data(rig, 12 + (2 if messages else 0), records)


def test_records_one_at_a_time_without_a_wrap(rig):
    def records(request):
        record = exact(request.body)
        assert isinstance(record, dict) and request.headers["content-type"] == "application/json"
        return [record]
    messages = story(rig, body="records", wrap=False, batch_size=1)
    found = settled(rig, 12 + (2 if messages else 0), records)
    assert [r["id"] for r in found] == sorted(r["id"] for r in found)
    assert {"fields", "operation", "schema", "key"} <= set(found[0])


def test_a_debezium_event_without_a_wrap(rig):
    story(rig, operations=["insert", "update", "delete", "truncate"], body="debezium", wrap=False,
          batch_size=1)
    settled(rig, 12, of_debezium)
    assert all(r.body.startswith(b'{"before":') for r in posts(rig))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies(rig, encoding):
    """Others can undo it, and the signature is over what they then have."""
    secret = new_secret(build_dir() / "walpost")[0]
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook={"signing_secrets": [secret]}, compression=encoding, batch_size=50)
    rig.db.sql("INSERT INTO t SELECT g, repeat('text ', g) FROM generate_series(1, 200) g")

    def plain(request):
        assert request.headers["content-encoding"] == encoding
        if encoding == "gzip":
            return gzip.decompress(request.body)
        return subprocess.run(["zstd", "-dc"], input=request.body, capture_output=True,
                              check=True).stdout
    records = settled(rig, 200, lambda r: json.loads(plain(r))["object"]["records"])
    assert {r["fields"]["id"] for r in records} == set(range(1, 201))
    for request in posts(rig):
        body = plain(request)
        assert int(request.headers["content-length"]) == len(request.body) < len(body)
        assert by_python(secret, request.headers, body) is None
