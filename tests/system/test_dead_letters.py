"""What was refused for good is listed, shown, sent again and discarded from the command line."""

import json

import checker
from machine import wait_for
from test_control import give
from test_parking import REFUSED, SOON, begin, feed


def lines(rig, *args):
    return [json.loads(line) for line in give(rig, "dead-letters", "list", "--json", *args).splitlines()]


def test_dead_letters_from_the_command_line(rig):
    begin(rig, **SOON)
    assert lines(rig) == []
    rig.receiver.control(REFUSED)
    for key in (500, 501, 502):
        rig.db.sql("INSERT INTO t VALUES (%s, 'poison')", key)
    feed(rig, lambda: rig.walpost.metric("walpost_dead_letters") == 3, 60)

    dead = lines(rig)
    assert [d["key"] for d in dead] == [{"id": 500}, {"id": 501}, {"id": 502}]
    assert all(d["sync"] == "main" and d["schema"] == "public.t" and d["state"] == "dead"
               and d["status"] == 422 and d["reason"].startswith("422") and d["dead_at"]
               and d["response"] == '{"error": "no poison"}' and d["attempts"] > 0 for d in dead)
    ids = [d["id"] for d in dead]
    assert ids == sorted(ids) and all(i in give(rig, "dead-letters", "list") for i in ids)

    def found(*args):
        return [d["id"] for d in lines(rig, *args)]
    assert found("--key", ' { "id" : 501 } ') == ids[1:2]
    assert found("--key", '{"id":501}') == ids[1:2] and found("--key", '{"id":7}') == []
    assert found("--table", "public.t") == ids and found("--table", "public.u") == []
    assert found("--sync", "main", "--id", ids[2]) == ids[2:]
    assert found("--since", "1h") == ids and found("--until", "1h") == []
    assert found("--since", dead[1]["dead_at"]) == [
        d["id"] for d in dead if d["dead_at"] >= dead[1]["dead_at"]]
    assert found("--parked") == []

    shown = give(rig, "dead-letters", "show", ids[0])
    assert ids[0] in shown and '"v":"poison"' in shown.replace(" ", "") and "no poison" in shown
    (whole,) = [json.loads(line) for line in
                give(rig, "dead-letters", "show", ids[0], "--json").splitlines()]
    assert whole["record"]["id"] == ids[0] and whole["record"]["fields"]["v"] == "poison"

    # What cannot be meant does nothing.
    assert "say which" in give(rig, "dead-letters", "discard", code=2)
    assert "say which" in give(rig, "dead-letters", "replay", code=2)
    assert "knows list, show, replay" in give(rig, "dead-letters", "delete", "--all", code=2)
    assert "is no time" in give(rig, "dead-letters", "discard", "--since", "soon", code=2)
    assert "is no id" in give(rig, "dead-letters", "discard", "--id", "5", code=2)
    assert "it has main" in give(rig, "dead-letters", "discard", "--sync", "x", code=2)
    assert "no record with the id" in give(rig, "dead-letters", "show", ids[0][:-1] + "9", code=1)
    assert found() == ids

    assert give(rig, "dead-letters", "discard", "--id", ids[2]) == "1 record discarded\n"
    assert found() == ids[:2]
    # An outage does not use the replay up.
    rig.receiver.control({"status": 503, "action": "answer"})
    assert give(rig, "dead-letters", "replay", "--key", '{"id":500}') == "1 record to be sent again\n"
    wait_for("it is sent", lambda: any(r.headers.get("webhook-replay") == "true"
                                       for r in rig.receiver.requests()), tail=rig.tail)
    rig.receiver.behave()
    wait_for("it is accepted", lambda: found() == ids[1:2], tail=rig.tail)
    # Also while nobody runs: it is sent when somebody does.
    rig.walpost.stop()
    assert give(rig, "dead-letters", "replay", "--all") == "1 record to be sent again\n"
    assert [d["state"] for d in lines(rig)] == ["replay"]
    rig.walpost.start(databases=[rig.db])
    wait_for("the other one, too", lambda: found() == [], tail=rig.tail)
    report = checker.judge(rig.receiver.poll(), rig.db.history())
    assert {f.kind for f in report.findings} == {"missing"} and len(report.findings) == 1, report
    replays = [record["id"] for request in rig.receiver.requests()
               if request.accepted and request.headers.get("webhook-replay") == "true"
               for record, _ in checker.split_records(request.body)]
    assert replays == ids[:2]
