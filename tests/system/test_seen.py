"""What a person sees of a sync: counts by outcome, lanes, the oldest record, and why it is behind."""

import json
import re

import pytest
import xxhash
from machine import wait_for

pytestmark = pytest.mark.sanitized

DEAD = {"status": 503, "action": "answer"}


def begin(rig, tables=("t",), **delivery):
    for table in tables:
        rig.db.table(table)
    rig.db.publish(*tables)
    rig.start(**delivery)


def insert(rig, first, n, table="t"):
    rig.db.sql(f"INSERT INTO {table} SELECT g, 'x' FROM generate_series({first}, {first + n - 1}) g")


def outcomes(rig):
    return {name: rig.walpost.metric("walpost_request_outcomes_total", sync="main", outcome=name)
            for name in ("done", "retry", "reject", "stop")}


def health_of(rig, sync="main"):
    loops = json.loads(rig.walpost.get("/healthz")[1])["loops"]
    return next(loop for loop in loops if loop["loop"] == "sync" and loop["name"] == sync)


def status(rig):
    """The page, as the command shows it."""
    shown = rig.walpost.command("status")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def parts(page):
    """{part: its line} of the sync that is behind."""
    return {m[1]: m[2] for m in re.finditer(
        r"^      (oldest|source|buffer|lanes|endpoint) +(.*)$", page, re.MULTILINE)}


def test_requests_are_counted_by_outcome(rig):
    begin(rig, batch_size=1, concurrency=1)
    insert(rig, 1, 3)
    rig.assert_whole()
    wait_for("three are done", lambda: outcomes(rig) == {
        "done": 3, "retry": 0, "reject": 0, "stop": 0}, tail=rig.tail)
    rig.receiver.control({"status": 503, "action": "answer", "count": 1},
                         {"status": 422, "action": "answer", "count": 1})
    insert(rig, 4, 1)
    rig.assert_whole()
    wait_for("one was retried, one refused, one more is done", lambda: outcomes(rig) == {
        "done": 4, "retry": 1, "reject": 1, "stop": 0}, tail=rig.tail)
    rig.receiver.control({"status": 410, "action": "answer"})
    insert(rig, 5, 1)
    wait_for("the endpoint wants no more", lambda: outcomes(rig) == {
        "done": 4, "retry": 1, "reject": 1, "stop": 1}, tail=rig.tail)
    assert rig.walpost.metric("walpost_requests_total") == 7
    assert len([r for r in rig.receiver.requests() if r.body]) == 7


def test_the_breaker_is_seen(rig):
    begin(rig, timeout="2s")
    insert(rig, 1, 1)
    rig.assert_whole()
    assert rig.walpost.metric("walpost_breaker_state") == 0
    rig.receiver.control(DEAD)
    insert(rig, 10, 50)
    wait_for("it opens", lambda: rig.walpost.metric("walpost_breaker_state") == 1,
             tail=rig.tail)
    rig.receiver.control({"action": "hang"})
    wait_for("its probe gets no answer", lambda: rig.walpost.metric("walpost_breaker_state") == 2,
             tail=rig.tail)
    rig.receiver.behave()
    rig.assert_whole()
    wait_for("it closes", lambda: rig.walpost.metric("walpost_breaker_state") == 0,
             tail=rig.tail)


def lane_records(rig):
    return {state: rig.walpost.metric("walpost_lane_records", state=state)
            for state in ("in_flight", "waiting")}


def test_records_in_lanes_are_counted(rig):
    begin(rig, concurrency=2, batch_size=10, timeout="10m")
    rig.receiver.control({"action": "hang"})
    insert(rig, 1, 200)
    wait_for("both lanes are full", lambda: lane_records(rig) == {
        "in_flight": 20, "waiting": 180}, tail=rig.tail)
    deepest = wait_for("the longest is known", lambda: rig.walpost.metric("walpost_deepest_lane_records"), tail=rig.tail)
    assert 100 <= deepest < 200
    wait_for("they are shown", lambda: re.match(
        rf"20 records in 2 requests \(at most \d at once\), 180 wait: {deepest:.0f} in "
        r"the longest lane, 0 behind a barrier; 0 lanes ", parts(status(rig)).get("lanes", "")), tail=lambda: status(rig))
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()
    wait_for("the lanes are empty", lambda: lane_records(rig) == {"in_flight": 0, "waiting": 0},
             tail=rig.tail)
    wait_for("so is the longest", lambda: rig.walpost.metric("walpost_deepest_lane_records") == 0, tail=rig.tail)


def test_the_oldest_record_is_shown(rig):
    """By its table and the hash of its key: never the key, and in no label of a metric."""
    begin(rig, tables=("t", "u"), batch_size=10)
    insert(rig, 1, 5)
    rig.assert_whole()
    wait_for("nothing is behind", lambda: health_of(rig)["oldest"] is None and not parts(status(rig)), tail=rig.tail)
    rig.receiver.control(DEAD)
    rig.db.sql("INSERT INTO u VALUES (987654321, 'x')")
    insert(rig, 10, 50)

    def shown():
        oldest = health_of(rig)["oldest"]
        return oldest if oldest and oldest["schema"] == "public.u" else None
    oldest = wait_for("the oldest is shown", shown, tail=rig.tail)
    assert oldest["key_hash"] == xxhash.xxh3_64_hexdigest(b'public.u\0{"id":987654321}')
    wait_for("it grows old", lambda: (shown() or oldest)["age_seconds"] > 1
             and rig.walpost.metric("walpost_sync_lag_seconds") > 1, tail=rig.tail)
    wait_for("the page tells", lambda: f"public.u, key hash {oldest['key_hash']}, {oldest['id']}, committed" in
             parts(status(rig)).get("oldest", ""), tail=rig.tail)
    assert "987654321" not in status(rig) + rig.walpost.get("/healthz")[1]
    assert "public." not in rig.walpost.get("/metrics")[1]
    rig.receiver.behave()
    rig.assert_whole()
    (record,) = [r for r in rig.receiver.records() if r["schema"] == "public.u"]
    assert record["id"] == oldest["id"]
    wait_for("nothing is behind", lambda: health_of(rig)["oldest"] is None, tail=rig.tail)
    wait_for("nothing is old", lambda: rig.walpost.metric("walpost_sync_lag_seconds") == 0,
             tail=rig.tail)
    wait_for("nothing is shown", lambda: not parts(status(rig)), tail=rig.tail)


def waits_for(rig, *words, **of_parts):
    """Until the status says in one sentence what the sync waits for, and this in its parts; the parts."""
    shown = {}

    def said():
        page = status(rig)
        shown.clear()
        shown.update(parts(page))
        line = next(x for x in page.splitlines() if x.startswith("  main: "))
        return all(word in line for word in words) and all(
            re.search(what, shown.get(part, "")) for part, what in of_parts.items())
    wait_for(f"the status says {words} {of_parts}", said, 120, 0.1, tail=lambda: status(rig) + rig.tail())
    return shown


def test_status_names_the_endpoint(rig):
    begin(rig)
    insert(rig, 1, 2)
    rig.assert_whole()
    rig.receiver.control(DEAD)
    insert(rig, 10, 50)
    waits_for(rig, "endpoint", "503", endpoint=r"\b[1-9]\d* retry, 0 reject, 0 stop; accepted .*503", source="; running$")


def test_status_names_what_the_endpoint_asked_for(rig):
    begin(rig)
    rig.receiver.control({"status": 429, "retry_after": "3000", "action": "answer"})
    insert(rig, 1, 10)
    waits_for(rig, "endpoint", "it asked for", "without requests")
    wait_for("so does the metric", lambda: rig.walpost.metric("walpost_endpoint_asked_milliseconds") > 100_000,
             tail=rig.tail)


def test_status_names_a_lane(rig):
    """One key that changes often: the other lanes have nothing to do."""
    begin(rig, concurrency=4, batch_size=1, timeout="10m")
    insert(rig, 1, 1)
    rig.assert_whole()
    rig.receiver.control({"action": "hang"})
    for i in range(40):
        rig.db.sql("UPDATE t SET v = %s WHERE id = 1", str(i))
    waits_for(rig, "in one lane")


def test_status_names_a_barrier(rig):
    begin(rig, concurrency=4, batch_size=1, timeout="10m")
    rig.receiver.control({"action": "hang"})
    with rig.db.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'x')")
        connection.execute("TRUNCATE t")
        connection.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    waits_for(rig, "come behind, a truncate, schema or message record")
    wait_for("all are counted", lambda: rig.walpost.metric("walpost_held_records") == 51, tail=rig.tail)


def test_status_names_the_rate_limit(rig):
    begin(rig, concurrency=1, batch_size=1, rate_limit={"requests_per_second": 1})
    insert(rig, 1, 1000)
    waits_for(rig, "rate_limit")


def test_status_names_a_pause_and_the_source(own_server, make_rig):
    server = own_server()
    rig = make_rig(server.database())
    begin(rig)
    assert rig.walpost.command("pause", "main").returncode == 0
    insert(rig, 1, 10)
    waits_for(rig, "paused", "walpost resume main", oldest=r"public\.t")
    assert rig.walpost.command("resume", "main").returncode == 0
    rig.assert_whole()
    wait_for("nothing waits", lambda: "main: nothing waits" in rig.walpost.get("/status.txt")[1],
             tail=rig.tail)
    server.stop()
    assert not waits_for(rig, "source: waiting"), "nothing is behind"
    server.start()


def test_status_names_the_buffer(rig):
    """Full of what one sync does not take: the source waits for room, and it is said who holds it."""
    rig.db.table("t", bulk=True)
    rig.db.publish("t")
    rig.start(change={"buffer": {"max_bytes": "16MiB"}})
    rig.receiver.control(DEAD)

    filled = iter(range(0, 10**9, 10000))

    def full():
        first = next(filled)
        rig.db.sql("INSERT INTO t SELECT g, (SELECT string_agg(md5(g::text || i), '') FROM"
                   f" generate_series(1, 9) i) FROM generate_series({first}, {first + 9999}) g")
        return "buffer" in parts(status(rig)).get("source", "")
    wait_for("the buffer is full", full, 120, tail=rig.tail)
    waits_for(rig, "endpoint", buffer="held by main")
