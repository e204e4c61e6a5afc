"""Short stories: statements go in, the records they make come out, in source order.

One walpost follows a database whose tables the stories make; each story has a
schema of its own.  A row in the table `mark` ends a look at the stream: the sync
keeps the order of everything, so whatever was committed before has arrived with it.
"""

import contextlib

import checker
import pytest
from machine import wait_for

OPERATIONS = ["insert", "update", "delete", "truncate"]


def record(op, table, key, fields, **more):
    return {"op": op, "table": table, "key": key, "fields": fields, **more}


def insert(table, key, fields, **more):
    return record("insert", table, key, fields, **more)


def update(table, key, fields, **more):
    return record("update", table, key, fields, **more)


def delete(table, key, fields, **more):
    return record("delete", table, key, fields, **more)


def truncate(table):
    return record("truncate", table, None, None)


class Stream:
    """The walpost and what has arrived from it so far."""

    def __init__(self, rig, operations):
        self.rig, self.operations = rig, operations
        self.records = {}
        self._offsets = {}
        self._marks = 0

    @property
    def version(self):
        return self.rig.db.connection.info.server_version

    def poll(self):
        """Takes in what was accepted since."""
        for log in self.rig.receiver.logs:
            for request, offset in checker.read_requests(log, self._offsets.get(log, 0)):
                self._offsets[log] = offset
                if request.accepted and request.body:
                    for obj, _ in checker.split_records(request.body):
                        self.records.setdefault(obj["id"], obj)

    def catch_up(self, connection):
        """Until everything that is committed has arrived."""
        self._marks += 1
        mark = self._marks
        connection.execute("INSERT INTO public.mark VALUES (%s)", (mark,))

        def arrived():
            self.poll()
            return any(r["schema"] == "public.mark" and r["key"] == {"id": mark}
                       for r in self.records.values())
        wait_for(f"mark {mark}", arrived, tail=self.rig.tail)

    @contextlib.contextmanager
    def story(self, name, needs=130000):
        if self.version < needs:
            pytest.skip(f"PostgreSQL {needs // 10000} or newer")
        with self.rig.db.connect("postgres") as connection:
            connection.execute(f"CREATE SCHEMA {name}; SET search_path TO {name}")
            yield Story(self, connection, name)


class Story:
    def __init__(self, stream, connection, name):
        self.stream, self.connection, self.name = stream, connection, name
        self.schemas = [name]
        self._seen = set(stream.records)

    @property
    def version(self):
        return self.stream.version

    def sql(self, *statements):
        """Each in a transaction of its own."""
        for statement in statements:
            self.connection.execute(statement)

    def arrived(self):
        """The story's records since the last look, whole, in source order."""
        self.stream.catch_up(self.connection)
        new = [r for key, r in sorted(self.stream.records.items()) if key not in self._seen]
        self._seen |= {r["id"] for r in new}
        return [r for r in new
                if any(r["schema"].startswith(schema + ".") for schema in self.schemas)]

    def brief(self, r):
        for schema in self.schemas:
            table = r["schema"].removeprefix(schema + ".")
            if table != r["schema"]:
                break
        return record(r["operation"], table if schema == self.name else r["schema"], r["key"],
                      r["fields"], **{k: r[k] for k in ("changes", "unchanged") if k in r})

    def run(self, *statements):
        """The statements, then what they made, in brief."""
        self.sql(*statements)
        return [self.brief(r) for r in self.arrived()]

    def transaction(self, *statements):
        """The statements in one transaction, then what it made, in brief."""
        with self.connection.transaction():
            self.sql(*statements)
        return [self.brief(r) for r in self.arrived()]
