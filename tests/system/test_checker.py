"""The checker is judged itself: logs with one planted fault of each kind."""

import json
import subprocess
import sys

import checker
import pytest

TESTS = __import__("pathlib").Path(__file__).parent.parent


def make_id(commit, ordinal, part=1):
    return f"01000001-{commit:016x}-{ordinal:08x}-{part:04x}"


def record(commit, ordinal, op, key, fields, xid=None, part=1, **more):
    return {"id": make_id(commit, ordinal, part), "operation": op, "schema": "public.t", "key": key,
            "fields": fields, **more, "position": "0/1",
            "commit": {"lsn": "0/1", "xid": xid or commit, "time": "2026-01-01T00:00:00.000000Z"},
            "hash": "0" * 16}


def row(k, v):
    return {"id": k, "v": v}


def envelope(records):
    return json.dumps({"event": "sync.records", "object": {
        "id": "00000000-0000-5000-8000-000000000001", "name": "s", "records": records,
        "metadata": {}}}, separators=(",", ":")).encode()


def bare(records):
    return json.dumps(records, separators=(",", ":")).encode()


class Run:
    """Four rows in three transactions, told twice: as history and as requests."""

    def __init__(self):
        self.history = [
            change(1, 10, "INSERT", None, row(1, "a")),
            change(2, 10, "INSERT", None, row(2, "b")),
            change(3, 11, "UPDATE", row(1, "a"), row(1, "c")),
            change(4, 11, "UPDATE", row(2, "b"), row(3, "b")),
            change(5, 12, "DELETE", row(1, "c"), None),
            change(6, 13, "TRUNCATE", None, None),
        ]
        self.insert1 = record(10, 1, "insert", {"id": 1}, row(1, "a"))
        self.insert2 = record(10, 2, "insert", {"id": 2}, row(2, "b"))
        self.update1 = record(11, 1, "update", {"id": 1}, row(1, "c"))
        self.move_a = record(11, 2, "delete", {"id": 2}, {"id": 2})
        self.move_b = record(11, 2, "update", {"id": 3}, row(3, "b"), part=2, changes={"id": 2})
        self.delete1 = record(12, 1, "delete", {"id": 1}, {"id": 1})
        self.truncate = record(13, 1, "truncate", None, None)
        self.requests = [[self.insert1, self.insert2], [self.update1], [self.move_a], [self.move_b],
                         [self.delete1], [self.truncate]]


def change(serial, xid, op, old, new, key=("id",), full=False):
    def text(value):
        return None if value is None else json.dumps(value)
    return checker.Change(serial, xid, "public.t", op, key, full, text(old), text(new))


def write_log(path, bodies, statuses=None, failed=None):
    with open(path, "wb") as log:
        for i, body in enumerate(bodies):
            head = b"POST /h HTTP/1.1\r\nHost: x\r\nX-N: %d\r\n\r\n" % i
            status = (statuses or {}).get(i, 200)
            action = f"part:{failed[i]['id']}," if i in (failed or {}) else "answer"
            log.write(b"walpost-receiver 1 %d %d %d %s %d %d\n" % (
                i + 1, 1_700_000_000_000_000 + i, status, action.encode(), len(head), len(body)))
            log.write(head + body + b"\n")


@pytest.fixture
def run():
    return Run()


@pytest.fixture
def verdict(tmp_path):
    def judge(run, statuses=None, shape=envelope, failed=None):
        log = tmp_path / "log"
        write_log(log, [shape(r) for r in run.requests], statuses, failed)
        return checker.check([log], run.history)
    return judge


def kinds(report):
    return {f.kind for f in report.findings}


@pytest.mark.parametrize("shape", [envelope, bare])
def test_a_clean_run_has_no_findings(run, verdict, shape):
    report = verdict(run, shape=shape)
    assert report.ok, report
    assert (report.expected, report.arrived, report.repeats) == (7, 7, 0)


def test_a_change_without_a_record_is_missing(run, verdict):
    del run.requests[1]
    report = verdict(run)
    assert kinds(report) == {"missing"} and report.count("missing") == 1


def test_a_record_without_a_change_is_unexpected(run, verdict):
    run.requests.append([record(14, 1, "insert", {"id": 9}, row(9, "x"))])
    assert kinds(verdict(run)) == {"unexpected"}


def test_a_record_that_failed_did_not_arrive_nor_what_is_behind_it(run, verdict):
    run.requests[:2] = [[run.insert1, run.insert2, run.update1]]
    report = verdict(run, failed={0: run.insert1})
    assert report.count("missing") == 2 and (report.arrived, report.repeats) == (5, 0), report
    run.requests.insert(1, [run.insert1, run.update1])
    report = verdict(run, failed={0: run.insert1})
    assert report.ok and report.repeats == 0, report


def test_a_request_that_was_not_answered_with_2xx_did_not_arrive(run, verdict):
    report = verdict(run, statuses={1: 500})
    assert kinds(report) == {"missing"}
    run.requests.insert(2, run.requests[1])
    report = verdict(run, statuses={1: 500})
    assert report.ok and report.repeats == 0, report


def test_swapped_first_arrivals_of_one_key_are_out_of_order(run, verdict):
    run.requests[1], run.requests[4] = run.requests[4], run.requests[1]
    assert kinds(verdict(run)) == {"order"}


def test_other_keys_may_overtake(run, verdict):
    run.requests[1], run.requests[3] = run.requests[3], run.requests[1]
    assert verdict(run).ok


def test_a_row_on_the_wrong_side_of_a_truncate_is_out_of_order(run, verdict):
    run.requests[3], run.requests[5] = run.requests[5], run.requests[3]
    assert kinds(verdict(run)) == {"order"}


def test_a_repeat_is_counted_and_allowed_however_late(run, verdict):
    run.requests.insert(1, run.requests[0])
    run.requests.append([run.insert1])
    report = verdict(run)
    assert report.ok and report.repeats == 3, report


def test_a_late_record_that_is_no_repeat_is_out_of_order(run, verdict):
    late = run.requests.pop(1)
    run.requests.append(late)
    report = verdict(run)
    assert report.repeats == 0 and "order" in kinds(report)


def test_one_id_with_two_contents_is_found(run, verdict):
    run.requests.append([dict(run.insert1, fields=row(1, "z"))])
    assert kinds(verdict(run)) == {"contents"}


@pytest.mark.parametrize("field, value", [
    ("operation", "update"), ("fields", row(1, "z")), ("fields", {"id": 1}),
    ("fields", row("1", "a")), ("fields", dict(row(1, "a"), more=1)),
    ("changes", {"v": "q"}), ("unchanged", ["v"])])
def test_altered_contents_are_found(run, verdict, field, value):
    run.insert1[field] = value
    assert kinds(verdict(run)) == {"altered"}


def test_a_number_is_compared_digit_for_digit(run, verdict):
    run.history[0] = change(1, 10, "INSERT", None, {"id": 1, "v": 1.5})
    run.insert1["fields"] = {"id": 1, "v": 1.5}
    assert verdict(run).ok
    run.history[0] = checker.Change(1, 10, "public.t", "INSERT", ("id",), False, None,
                                    '{"id": 1, "v": 1.50}')
    assert kinds(verdict(run)) == {"altered"}


def test_another_key_is_a_missing_and_an_unexpected_record(run, verdict):
    run.insert1["key"] = {"id": 7}
    assert kinds(verdict(run)) == {"missing", "unexpected"}


def test_ids_that_contradict_the_order_of_changes_are_out_of_order(run, verdict):
    run.update1["id"] = make_id(9, 1)
    run.requests[0], run.requests[1] = run.requests[1], run.requests[0]
    assert "order" in kinds(verdict(run))


def test_a_wrong_old_key_in_a_key_change_is_found(run, verdict):
    run.move_b["changes"] = {"id": 5}
    assert kinds(verdict(run)) == {"altered"}


def test_full_identity_asks_for_every_changed_column(run, verdict):
    run.history[2] = change(3, 11, "UPDATE", row(1, "a"), row(1, "c"), full=True)
    assert kinds(verdict(run)) == {"altered"}
    run.update1["changes"] = {"v": "a"}
    assert verdict(run).ok


def test_an_unchanged_value_must_be_absent_and_must_not_have_changed(run, verdict):
    run.move_b["unchanged"] = ["v"]
    run.move_b["fields"] = {"id": 3}
    assert verdict(run).ok
    run.move_b["fields"] = row(3, "b")
    assert kinds(verdict(run)) == {"altered"}
    run.move_b["fields"], run.move_b["unchanged"] = {}, ["v", "id"]
    assert kinds(verdict(run)) == {"altered"}


def test_malformed_bodies_and_ids_are_found(run, verdict, tmp_path):
    run.insert1["id"] = "01"
    assert "malformed" in kinds(verdict(run))
    log = tmp_path / "log2"
    write_log(log, [b'{"event":"sync.records"}', b'[{"id":1', b'[{"id":"x"}]', b"[\xff]",
                    b'[{"id":NaN}]'])
    report = checker.check([log], [])
    assert report.count("malformed") == 5


def test_a_log_cut_in_its_last_entry_is_read_up_to_there(run, tmp_path):
    log = tmp_path / "log"
    write_log(log, [envelope(r) for r in run.requests])
    whole = log.read_bytes()
    for cut in range(len(whole) - 200, len(whole)):
        log.write_bytes(whole[:cut])
        assert len(list(checker.read_requests(log))) == 5
    follower = checker.Follower(log)
    assert len(follower.poll().records) == 6
    log.write_bytes(whole)
    assert len(follower.poll().records) == 7


def test_a_damaged_log_is_refused(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"walpost-receiver 1 1 1 200 answer 2 2\nhhbbX")
    with pytest.raises(checker.MalformedLog):
        list(checker.read_requests(log))
    log.write_bytes(b"something else\n")
    with pytest.raises(checker.MalformedLog):
        list(checker.read_requests(log))


def test_several_logs_are_one_run(run, tmp_path):
    for name, part in (("a", run.requests[:3]), ("b", run.requests[3:])):
        write_log(tmp_path / name, [envelope(r) for r in part])
    assert checker.check([tmp_path / "a", tmp_path / "b"], run.history).ok


def test_the_command_line_says_the_verdict_and_exits_with_it(run, tmp_path):
    history = tmp_path / "history.jsonl"
    history.write_text("".join(json.dumps({
        "serial": c.serial, "xid": c.xid, "table": c.table, "op": c.op, "key": c.key,
        "full": c.full, "old": c.old, "new": c.new}) + "\n" for c in run.history))
    write_log(tmp_path / "log", [envelope(r) for r in run.requests])
    command = [sys.executable, TESTS / "checker.py", "--history", history, tmp_path / "log"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "findings: none" in done.stdout
    write_log(tmp_path / "log", [envelope(r) for r in run.requests[:-1]])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "missing: truncate" in done.stdout
