#!/usr/bin/env python3
"""Judges a run: does what the receiver got agree with what PostgreSQL recorded?

Two independent witnesses go in.  The receiver's log holds every request byte for
byte.  The history holds every committed change of every watched table, written
by a trigger in the same transaction (tests/system/postgres.py, `watch`).  Out
comes a Report with one Finding per broken promise:

  missing     a committed change has no record that was accepted
  unexpected  an accepted record has no committed change
  altered     a record says something else than PostgreSQL recorded
  contents    one id arrived with two different contents
  order       the first arrivals of a key (or of a table, around a TRUNCATE) are
              not in id order, or id order is not the order of the changes
  malformed   a body that is not what the format promises

A repeat, an id that arrived before, is allowed at any time and only counted: an
id at or below the highest seen for its key can be ignored by the receiver.  A
record that is below the highest seen and *not* a repeat is an `order` finding.
A request that was answered with anything but 2xx does not count as arrived; nor
do those of its records that the answer named as failed, and none of their keys
behind them.

Nothing here guesses the order of commits: the history names the transaction
(`pg_current_xact_id`) and a rising serial, the records name the transaction
(`commit.xid`) and a rising id; changes and records are matched per transaction,
table and key, and the order of the serials of one key (which its row lock
makes the true one) is then compared with that of the ids.

Usage: checker.py --history HISTORY.jsonl LOG [LOG...]
One JSON object a line in the history: serial, xid, table, op (INSERT, UPDATE,
DELETE, TRUNCATE), key (names of the key's columns), full (replica identity
full), old, new (rows as JSON).  Several logs are one receiver that was
restarted, in that order.  Exit code 0: nothing found, 1: findings, 2: usage.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import sys

XID_MASK = 0xFFFFFFFF
ID_PATTERN = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{4}(-[0-9a-f]{8}-[0-9a-f]{8})?\Z")
RECORDS_START = b'"records":['

# Numbers are compared digit for digit, so they stay text; the tag keeps 1 and "1" apart.
_exact = json.JSONDecoder(parse_float=lambda s: ("number", s), parse_int=lambda s: ("number", s))


def _refuse(constant):
    raise ValueError(f"{constant} is not JSON")


# For arrivals only the key has to be exact enough to tell keys apart.
_quick = json.JSONDecoder(parse_float=str, parse_constant=_refuse)


class MalformedLog(Exception):
    """The receiver's log itself is damaged; says where."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request as the receiver logged it."""

    seq: int
    wall_us: int
    status: int
    action: str
    head: bytes
    body: bytes

    @property
    def accepted(self):
        return 200 <= self.status < 300

    @property
    def failed(self):
        """Ids of its records that the answer said failed."""
        return set(self.action.removeprefix("part:").split(",")) if ":" in self.action else set()

    def arrived(self):
        """[(object, exact text)] of its body, without those that failed and what is behind them."""
        records, failed, keys = split_records(self.body), self.failed, set()
        if not failed:
            return records
        arrived = []
        for obj, text in records:
            key = (obj["schema"], _key_id(obj["key"]))
            if obj["id"] in failed:
                keys.add(key)
            if key not in keys:
                arrived.append((obj, text))
        return arrived

    @property
    def headers(self):
        """Header names in lower case; a repeated header keeps its last value."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.split(":", 1) for line in lines if ":" in line)
        return {name.strip().lower(): value.strip() for name, value in pairs}

    @property
    def request_line(self):
        return self.head.decode("latin-1").split("\r\n", 1)[0]


def read_requests(path, offset=0):
    """Yields (request, offset behind it) for every complete entry of a log from offset on."""
    with open(path, "rb") as log:
        log.seek(offset)
        while True:
            line = log.readline()
            if not line.endswith(b"\n"):
                return
            parts = line.split()
            if len(parts) != 8 or parts[0] != b"walpost-receiver" or parts[1] != b"1":
                raise MalformedLog(f"{path}: no entry at byte {offset}: {line[:80]!r}")
            seq, wall_us, status = (int(x) for x in parts[2:5])
            head_n, body_n = int(parts[6]), int(parts[7])
            rest = log.read(head_n + body_n + 1)
            if len(rest) < head_n + body_n + 1:
                return
            if rest[-1:] != b"\n":
                raise MalformedLog(f"{path}: entry {seq} does not end where it says")
            offset = log.tell()
            yield Request(seq, wall_us, status, parts[5].decode(), rest[:head_n],
                          rest[head_n:-1]), offset


def split_records(body):
    """The records of a body (sync.records envelope or bare array): [(object, exact text)]."""
    if body[:1] == b"[":
        start = 1
    else:
        start = body.find(RECORDS_START)
        if start < 0:
            raise ValueError("neither an array nor an object with records")
        start += len(RECORDS_START)
    text = body[start:].decode("utf-8")
    records, at, end = [], 0, len(text)
    if text[:1] == "]":
        return records
    while True:
        obj, stop = _quick.raw_decode(text, at)
        records.append((obj, text[at:stop]))
        if stop >= end or text[stop] not in ",]":
            raise ValueError(f"no , or ] behind record {len(records)}")
        if text[stop] == "]":
            return records
        at = stop + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    text: str

    def __str__(self):
        return f"{self.kind}: {self.text}"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One row of the history; old and new are JSON text or None."""

    serial: int
    xid: int
    table: str
    op: str
    key: tuple
    full: bool
    old: str | None
    new: str | None


@dataclasses.dataclass
class Report:
    findings: list
    arrived: int = 0  # different ids
    expected: int = 0  # records that the history asks for
    repeats: int = 0

    @property
    def ok(self):
        return not self.findings

    def count(self, kind):
        return sum(f.kind == kind for f in self.findings)

    def __str__(self):
        kinds = {}
        for finding in self.findings:
            kinds[finding.kind] = kinds.get(finding.kind, 0) + 1
        head = (f"{self.expected} records expected, {self.arrived} arrived, "
                f"{self.repeats} repeats, findings: {kinds or 'none'}")
        return "\n".join([head] + [f"  {f}" for f in self.findings[:20]])


def _key_id(key):
    """A key as text, the same for the quick and the exact reading of it."""
    if key is None:
        return None
    plain = {}
    for name, value in key.items():
        if isinstance(value, tuple):
            value = value[1] if set(value[1]) & set(".eE") else int(value[1])
        plain[name] = value
    return json.dumps(plain, sort_keys=True, ensure_ascii=False)


class Arrivals:
    """What arrived, in the order of the log; can be fed while the run goes on."""

    def __init__(self):
        self.records = {}  # id -> (xid, table, key as text, operation, exact text)
        self.findings = []
        self.repeats = 0
        self._high_key = {}  # (table, key) -> highest id
        self._high_table = {}  # table -> highest id of any record
        self._high_barrier = {}  # table -> highest id of a barrier

    def add(self, request):
        if not request.accepted or not request.body:
            return
        try:
            records = request.arrived()
        except (ValueError, UnicodeDecodeError) as error:
            self.findings.append(Finding("malformed", f"request {request.seq}: {error}"))
            return
        for obj, text in records:
            self._arrive(request.seq, obj, text)

    def _arrive(self, seq, obj, text):
        try:
            rid, op, table, key = obj["id"], obj["operation"], obj["schema"], obj["key"]
            xid = obj["commit"]["xid"]
        except (KeyError, TypeError) as error:
            self.findings.append(Finding("malformed", f"request {seq}: no {error}: {text[:120]}"))
            return
        before = self.records.get(rid)
        if before is not None:
            self.repeats += 1
            if before[4] != text:
                self.findings.append(Finding(
                    "contents", f"id {rid} in request {seq}: {text[:200]} before: {before[4][:200]}"))
            return
        if not ID_PATTERN.match(rid):
            self.findings.append(Finding("malformed", f"request {seq}: id {rid!r}"))
        lane = (table, _key_id(key))
        self.records[rid] = (xid, table, lane[1], op, text)
        high = self._high_key.get(lane, "")
        if rid < high:
            self.findings.append(Finding(
                "order", f"{table} {lane[1]}: {rid} first arrived (request {seq}) after {high}"))
        else:
            self._high_key[lane] = rid
        barrier = op in ("truncate", "schema", "message")
        fence = self._high_table.get(table, "") if barrier else self._high_barrier.get(table, "")
        if rid < fence and rid >= high:
            self.findings.append(Finding(
                "order", f"{table}: {op} {rid} (request {seq}) on the wrong side of {fence}"))
        if rid > self._high_table.get(table, ""):
            self._high_table[table] = rid
        if barrier and rid > self._high_barrier.get(table, ""):
            self._high_barrier[table] = rid


class Follower:
    """Feeds Arrivals from a log that is still being written."""

    def __init__(self, path, arrivals=None):
        self.path, self.offset = pathlib.Path(path), 0
        self.arrivals = arrivals or Arrivals()
        self.requests = 0

    def poll(self):
        if self.path.exists():
            for request, self.offset in read_requests(self.path, self.offset):
                self.requests += 1
                self.arrivals.add(request)
        return self.arrivals


def _row(text):
    return None if text is None else _exact.decode(text)


def _key(row, names):
    if not names or row is None:
        return None
    return {name: row[name] for name in names}


def expected_records(change):
    """The records that one change must make: [(operation, key, old row, new row)]."""
    old, new = _row(change.old), _row(change.new)
    if change.op == "TRUNCATE":
        return [("truncate", None, None, None)]
    if change.op == "INSERT":
        return [("insert", _key(new, change.key), None, new)]
    if change.op == "DELETE":
        return [("delete", _key(old, change.key), old, None)]
    old_key, new_key = _key(old, change.key), _key(new, change.key)
    if old_key == new_key:
        return [("update", new_key, old, new)]
    return [("delete", old_key, old, None), ("update", new_key, old, new)]


def expected_count(changes):
    """How many records a history asks for."""
    n = 0
    for change in changes:
        n += len(expected_records(change)) if change.op == "UPDATE" else 1
    return n


def _compare(change, want, record):
    """What is wrong with a record, as texts."""
    operation, key, old, new = want
    wrong = []
    if record["operation"] != operation:
        return [f"operation {record['operation']}, not {operation}"]
    if record["key"] != key:
        wrong.append(f"key {record['key']}, not {key}")
    fields = record["fields"]
    unchanged = record.get("unchanged", [])
    if operation == "truncate":
        if fields is not None:
            wrong.append("a truncate with fields")
        return wrong
    if not isinstance(fields, dict):
        return wrong + [f"fields are {fields!r}"]
    if operation == "delete":
        need = set(old) if change.full else set(change.key)
        if not need <= set(fields):
            wrong.append(f"fields lack {sorted(need - set(fields))}")
        wrong += [f"field {c} is {v!r}, not {old.get(c)!r}" for c, v in fields.items()
                  if c not in old or old[c] != v]
        return wrong
    for column, value in new.items():
        if column in unchanged:
            if column in fields:
                wrong.append(f"{column} is unchanged and has a value")
            if operation == "update" and old[column] != value:
                wrong.append(f"{column} is called unchanged and did change")
        elif column not in fields:
            wrong.append(f"field {column} is not there")
        elif fields[column] != value:
            wrong.append(f"field {column} is {fields[column]!r}, not {value!r}")
    wrong += [f"field {c} does not exist" for c in fields if c not in new]
    changes = record.get("changes")
    if operation == "update":
        wrong += _compare_changes(change, old, new, changes or {})
    elif changes is not None:
        wrong.append(f"changes in an {operation}")
    return wrong


def _compare_changes(change, old, new, changes):
    changed = {c for c in new if old.get(c) != new[c]}
    if change.full:
        # The JSON value null and the SQL NULL are different, and look alike in the history.
        must, may = changed, changed | {c for c in new if old.get(c) is None and new[c] is None}
    else:
        must = {c for c in change.key if c in changed}
        may = set(change.key) if must else set()
    wrong = []
    if not must <= set(changes):
        wrong.append(f"changes lack {sorted(must - set(changes))}")
    if not set(changes) <= may:
        wrong.append(f"changes name {sorted(set(changes) - may)}")
    wrong += [f"changes.{c} is {v!r}, not {old.get(c)!r}" for c, v in changes.items()
              if c in old and old[c] != v]
    return wrong


def judge(arrivals, changes):
    """Compares what arrived with the history; returns a Report."""
    findings = list(arrivals.findings)
    tables = {change.table for change in changes}
    records = {}  # (xid, table, key) -> [(id, exact text)] in id order
    for rid in sorted(arrivals.records):
        xid, table, key, op, text = arrivals.records[rid]
        if op in ("schema", "message"):
            continue
        if table not in tables:
            findings.append(Finding("unexpected", f"{rid} of {table}, which nobody watches"))
            continue
        records.setdefault((xid, table, key), []).append((rid, text))
    expected, last_of_key = 0, {}
    for change in sorted(changes, key=lambda c: c.serial):
        for want in expected_records(change):
            expected += 1
            key = _key_id(want[1])
            group = (change.xid & XID_MASK, change.table, key)
            have = records.get(group)
            where = f"{want[0]} of {change.table} {key} in transaction {change.xid}"
            if not have:
                findings.append(Finding("missing", where))
                continue
            rid, text = have.pop(0)
            if not have:
                del records[group]
            wrong = _compare(change, want, _exact.decode(text))
            findings += [Finding("altered", f"{where}, id {rid}: {w}") for w in wrong]
            if want[1] is None:
                continue
            if rid < last_of_key.get((change.table, key), ""):
                findings.append(Finding(
                    "order", f"{where}: id {rid} is below that of an earlier change of the key"))
            last_of_key[change.table, key] = rid
    for (xid, table, key), left in records.items():
        findings += [Finding("unexpected", f"{rid} of {table} {key} in transaction {xid}")
                     for rid, _ in left]
    return Report(findings, len(arrivals.records), expected, arrivals.repeats)


def check(logs, changes):
    """The whole verdict over finished logs of one receiver, in order, and a history."""
    arrivals = Arrivals()
    for path in logs:
        for request, _ in read_requests(path):
            arrivals.add(request)
    return judge(arrivals, changes)


def read_history(lines):
    """Changes from JSON lines."""
    changes = []
    for line in lines:
        row = json.loads(line)

        def text(value):
            return value if value is None or isinstance(value, str) else json.dumps(value)

        changes.append(Change(int(row["serial"]), int(row["xid"]), row["table"], row["op"],
                              tuple(row["key"]), bool(row.get("full")), text(row.get("old")),
                              text(row.get("new"))))
    return changes


def main():
    parser = argparse.ArgumentParser(description="Judge receiver logs by a table's history.")
    parser.add_argument("--history", required=True, type=pathlib.Path, help="JSON lines")
    parser.add_argument("logs", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    with open(args.history, encoding="utf-8") as lines:
        report = check(args.logs, read_history(lines))
    print(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
