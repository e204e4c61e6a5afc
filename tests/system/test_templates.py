"""Requests whose url, method and headers come from the records in them."""

import urllib.parse

import checker
import pytest
from machine import build_dir, wait_for
from signatures import by_python, new_secret
from test_control import give
from test_dead_letters import lines
from test_parking import REFUSED, SOON, feed, is_parked, wait_state

pytestmark = pytest.mark.sanitized

ROWS = ["insert", "update", "delete", "read"]
REST = {"method": "PUT", "methods": {"insert": "POST", "delete": "DELETE"}}


def quoted(text):
    """As it may stand in a url: all but what RFC 3986 leaves alone is percent-encoded."""
    return urllib.parse.quote(text, safe="-._~")


def hook(rig, path, **more):
    return {"url": rig.add_receiver().url + path, **more}


def posted(rig):
    """(method, path, headers, records) of each accepted request."""
    out = []
    for request in rig.receiver.requests():
        if request.accepted and request.body:
            method, path, _ = request.request_line.split(" ")
            records = [record for record, _ in checker.split_records(request.body)]
            assert records
            out.append((method, path, request.headers, records))
    return out


def assert_rest(rig):
    """Each request went where its records belong, by the method of their operation."""
    found = posted(rig)
    for method, path, _, records in found:
        for record in records:
            schema, table = record["schema"].split(".")
            assert path == f"/hook/{quoted(schema)}/{quoted(table)}/{quoted(str(record['key']['id']))}"
            assert method == {"insert": "POST", "delete": "DELETE"}.get(record["operation"], "PUT")
    return found


def test_url_method_and_headers_come_from_the_record(rig):
    secrets = new_secret(build_dir() / "walpost")
    rig.db.sql('CREATE SCHEMA "shöp 1"')
    rig.db.sql('GRANT USAGE ON SCHEMA "shöp 1" TO walpost')
    rig.db.sql('CREATE TABLE "shöp 1"."a/b" (id text PRIMARY KEY, v text, n numeric)')
    rig.db.table("t")
    rig.db.publish('"shöp 1"."a/b"', "t")
    rig.start(hook=hook(rig, "/{schema}/{table}/{key.id}", signing_secrets=secrets, **REST, headers=[
        {"name": "X-Operation", "value": "{operation} {{1}}"},
        {"name": "X-Row", "value": "{fields.v|gone}"},
        {"name": "X-Empty", "value": "{fields.nothing|}"},
        {"name": "X-Fixed", "value": "fixed"}]), operations=ROWS)
    keys = ["plain", "a/b", "a?b#c&d=e", "100%", "ü €", "x\r\nHost: evil", "a..b", "\\", "{table}", "..."]
    for key in keys:
        rig.db.sql("""INSERT INTO "shöp 1"."a/b" VALUES (%s, %s, 1.10)""", key, f"v {key}")
        rig.db.sql("""UPDATE "shöp 1"."a/b" SET v = NULL WHERE id = %s""", key)
        rig.db.sql("""DELETE FROM "shöp 1"."a/b" WHERE id = %s""", key)
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g")
    rig.db.sql("UPDATE t SET v = 'y' WHERE id <= 50")
    rig.wait_arrived(3 * len(keys) + 150)
    found = assert_rest(rig)
    assert {method for method, *_ in found} == {"POST", "PUT", "DELETE"}
    for _, _, headers, records in found:
        assert headers["x-operation"] == f"{records[0]['operation']} {{1}}"
        # As CloudEvents has it in its HTTP binding.
        assert urllib.parse.unquote(headers["x-row"]) == (records[0]["fields"].get("v") or "gone")
        assert headers["x-row"].isascii() and " " not in headers["x-row"]
        assert headers["x-empty"] == "" and headers["x-fixed"] == "fixed"
        assert headers["host"] == f"127.0.0.1:{rig.receiver.port}"
    for request in rig.receiver.requests():
        assert by_python(secrets[0], request.headers, request.body) is None


def test_records_for_one_place_share_a_request_and_stay_in_order(rig):
    for table in ("t", "u", "w"):
        rig.db.table(table)
    rig.db.publish("t", "u", "w")
    rig.start(hook=hook(rig, "?of={table}"), order="sync", batch_size=20, linger="100ms")
    for i, table in enumerate(("t", "u", "t", "w", "w", "t")):
        rig.db.sql(f"INSERT INTO {table} SELECT g, 'x' FROM generate_series({i * 30}, {i * 30 + 29}) g")
    rig.db.sql("TRUNCATE u")
    report = rig.assert_whole()
    assert report.repeats == 0
    found = posted(rig)
    assert [(m, p) for m, p, *_ in found] == [
        ("POST", "/hook?of=" + records[0]["schema"].split(".")[1]) for _, _, _, records in found]
    assert max(len(records) for *_, records in found) > 1
    ids = [record["id"] for *_, records in found for record in records]
    assert ids == sorted(ids)
    for *_, records in found:
        assert len({record["schema"] for record in records}) == 1


def test_parked_records_and_replays_go_where_they_belong(rig):
    rig.db.table("t")
    rig.db.table("u")
    rig.db.publish("t", "u")
    rig.start(hook=hook(rig, "/{schema}/{table}/{key.id}", **REST), operations=ROWS, batch_size=10,
              concurrency=4, **SOON)
    rig.receiver.control(REFUSED)
    for table in ("t", "u"):
        rig.db.sql(f"INSERT INTO {table} VALUES (500, 'poison')")
    feed(rig, lambda: rig.walpost.metric("walpost_dead_letters") == 2)
    assert [d["schema"] for d in lines(rig)] == ["public.t", "public.u"]
    rig.receiver.behave()
    assert give(rig, "dead-letters", "replay", "--all") == "2 records to be sent again\n"
    wait_state(rig, 0, 0)
    rig.assert_whole()
    replays = [(method, path) for method, path, headers, _ in assert_rest(rig)
               if headers.get("webhook-replay") == "true"]
    assert sorted(replays) == [("POST", "/hook/public/t/500"), ("POST", "/hook/public/u/500")]


def test_a_queue_of_one_key_is_cut_where_its_method_changes(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook=hook(rig, "/{schema}/{table}/{key.id}", **REST), operations=ROWS, batch_size=10,
              concurrency=4, retry_schedule=["1s"] * 20 + ["5s"] * 40)
    rig.receiver.control(REFUSED)
    rig.db.sql("INSERT INTO t VALUES (500, 'poison')")
    feed(rig, is_parked(rig, 1))
    for i in range(5):
        rig.db.sql("UPDATE t SET v = %s WHERE id = 500", f"{i}")
    rig.db.sql("DELETE FROM t WHERE id = 500")
    rig.db.sql("INSERT INTO t VALUES (500, 'new')")
    feed(rig, is_parked(rig, 8))
    rig.receiver.behave()
    wait_state(rig, 0, 0)
    rig.assert_whole()
    of_key = [(method, record["operation"]) for method, _, _, records in assert_rest(rig)
              for record in records if record["key"]["id"] == 500]
    assert of_key == [("POST", "insert")] + [("PUT", "update")] * 5 + [
        ("DELETE", "delete"), ("POST", "insert")]


def test_a_record_without_a_url_of_its_own_is_set_aside_and_never_sent(rig):
    """A key that would be another path, and a column that is null."""
    rig.db.sql("CREATE TABLE t (id text PRIMARY KEY, region text)")
    rig.db.publish("t")
    rig.start(hook=hook(rig, "/{fields.region}/{key.id}"), operations=["insert"], batch_size=10, **SOON)
    rig.db.sql("INSERT INTO t VALUES ('1', 'eu'), ('..', 'eu'), ('2', NULL), ('', 'eu'), ('3', 'us')")
    wait_state(rig, 0, 3)
    rig.db.sql("INSERT INTO t VALUES ('4', 'us')")
    wait_for("the others", lambda: len(posted(rig)) == 3, tail=rig.tail)
    assert sorted(path for _, path, *_ in posted(rig)) == ["/hook/eu/1", "/hook/us/3", "/hook/us/4"]
    reasons = {d["key"]["id"]: d["reason"] for d in lines(rig)}
    assert set(reasons) == {"..", "2", ""}
    assert "segment" in reasons[".."] and "segment" in reasons[""]
    assert "fields.region" in reasons["2"] and "null" in reasons["2"]
    assert len(rig.receiver.requests()) == 3


def test_what_cannot_be_is_refused_before_anything_begins(rig):
    receiver = rig.add_receiver()
    for path, more, delivery, said in [
            ("{table}/x", {}, {}, ["configuration.url", "host and port cannot come from records"]),
            ("/{tabel}", {}, {}, ["configuration.url: at byte ", "{key.COLUMN|TEXT}"]),
            ("/%{table}", {}, {}, ["configuration.url", "hex digits"]),
            ("/x", {"headers": [{"name": "X-A", "value": '{"a": 1}'}]}, {}, ["headers: X-A", "{{ and }}"]),
            ("/x", {"headers": [{"name": "webhook-id", "value": "{id}"}]}, {}, ["webhook-id", "itself"]),
            ("/x", {"method": "GET"}, {}, ["method", "POST"]),
            ("/x", {"methods": {"upsert": "PUT"}}, {}, ["methods", "upsert"]),
            ("/{key.id}", {}, {}, ["operations", "truncate records have none", "{key.id|none}"]),
            ("/{fields.a}", {}, {"operations": ["insert", "message"]}, ["operations", "message"])]:
        walpost = rig.prepare(hook={"url": receiver.url.removesuffix("/hook") + path, **more}, **delivery)
        done = walpost.command("run")
        assert done.returncode == 2
        for text in said:
            assert text in done.stderr, done.stderr
        assert "tabel" not in done.stderr


def test_check_asks_at_the_part_of_the_url_that_is_fixed(rig):
    rig.db.table("t")
    rig.db.publish("t")
    walpost = rig.prepare(hook=hook(rig, "/v1/{table}?k={key.id|none}"))
    rig.receiver.control({"status": 404, "action": "answer"})
    done = walpost.command("check", "--json")
    (found,) = [line for line in done.stdout.splitlines() if "OPTIONS" in line]
    assert "status 404" in found and "before its first placeholder" in found
    (request,) = rig.receiver.requests()
    assert request.request_line == "OPTIONS /hook/v1/ HTTP/1.1"
