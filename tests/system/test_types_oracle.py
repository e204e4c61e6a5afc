"""Random tables over all types: every record says what PostgreSQL's to_json says of the same row."""

import json

import checker
import psycopg
import pytest
from typegen import Universe, Values, name, seeded

pytestmark = [pytest.mark.sanitized, pytest.mark.versions]

NESTED_TABLES = 10
NESTED_TYPES = 120
ROWS = 10
TRIES = 40

# Objects stay lists of pairs, so that order and repeated keys count; numbers stay text.
EXACT = json.JSONDecoder(object_pairs_hook=lambda pairs: ("object", pairs),
                         parse_float=lambda s: ("#", s), parse_int=lambda s: ("#", s))


def extensions(db, values):
    """Creates every contrib extension that is there and returns its types; says which are not."""
    there = {row[0] for row in db.server.sql("SELECT name FROM pg_available_extensions", database=db.name)}
    types, missing = {}, []
    for extension, its in values.contrib().items():
        if extension not in there:
            missing.append(extension)
            continue
        db.server.sql(f"CREATE EXTENSION IF NOT EXISTS {extension} CASCADE", database=db.name)
        types.update(its)
    return types, missing


class Table:
    """A table, and statements that write random rows into it."""

    def __init__(self, db, rng, number, types, is_full):
        self.db, self.rng, self.types = db, rng, types
        self.name = f"r{number}"
        self.columns = [name(f"c{i}") for i in range(len(types))]
        db.table(self.name, ", ".join(["id int PRIMARY KEY"] + [f"{c} {t.sql}" for c, t in zip(self.columns, types)]))
        if is_full:
            db.sql(f"ALTER TABLE {self.name} REPLICA IDENTITY FULL")
        self.refused = 0

    def run(self, make):
        """What the server refuses (a far date, say) is made again."""
        for _ in range(TRIES):
            try:
                self.db.sql(make())
                return
            except (psycopg.errors.DataError, psycopg.errors.ProgramLimitExceeded) as error:
                self.refused += 1
                last = error
        raise AssertionError(f"{TRIES} values refused: {last}")

    def write(self, n):
        for i in range(n):
            self.run(lambda i=i: f"INSERT INTO {self.name} VALUES ({i}, "
                     + ", ".join(t.value(self.rng) for t in self.types) + ")")
        for i in range(0, n, 2):
            some = self.rng.sample(list(zip(self.columns, self.types)), max(1, len(self.types) // 3))
            self.run(lambda i=i, some=some: f"UPDATE {self.name} SET "
                     + ", ".join(f"{c} = {t.value(self.rng)}" for c, t in some) + f" WHERE id = {i}")
        for i in range(0, n, 3):
            self.db.sql(f"DELETE FROM {self.name} WHERE id = {i}")


def exact(text, member):
    """The value of a member of a record, read exactly; None when it is not there."""
    return dict(EXACT.decode(text)[1]).get(member)


def differences(rig):
    """Every record beside the history's row, each change being a transaction of its own."""
    changes = {c.xid & checker.XID_MASK: c for c in rig.db.history()}
    wrong, seen = [], set()
    for request in rig.receiver.requests():
        for record, text in checker.split_records(request.body) if request.accepted and request.body else ():
            change = changes[record["commit"]["xid"]]
            seen.add(record["commit"]["xid"])
            old, new = (EXACT.decode(x)[1] if x else None for x in (change.old, change.new))
            mine = exact(text, "fields")[1]
            theirs = new or old
            if change.op == "DELETE" and not change.full:
                theirs = [pair for pair in theirs if pair[0] == "id"]
            theirs = [pair for pair in theirs if pair[0] not in record.get("unchanged", ())]
            expected_old = [pair for pair, after in zip(old, new) if pair != after] if change.op == "UPDATE" else []
            got_old = (exact(text, "changes") or ("object", []))[1] if change.full else expected_old
            # What is written differently though its JSON is the same (-0 and 0 in a range, say) may be there, too.
            got_old = [pair for pair in got_old if pair in expected_old or pair not in (old or [])]
            if [k for k, _ in mine] != [k for k, _ in theirs]:
                wrong.append(f"{change.table}: columns {[k for k, _ in mine]}, PostgreSQL: {[k for k, _ in theirs]}")
                continue
            for (column, value), (_, right) in zip(mine + got_old, theirs + expected_old):
                if value != right:
                    wrong.append(f"{change.table}.{column}: {value!r}\n    PostgreSQL: {right!r}")
            if len(got_old) != len(expected_old):
                wrong.append(f"{change.table}: changes {got_old}, PostgreSQL: {expected_old}")
    assert seen == set(changes), "changes are missing"
    return wrong


def tables_of_all_types(db, rng, note):
    """Published and watched tables that have, together, a column of every type."""
    version = db.connection.info.server_version
    values = Values(rng, version)
    more, missing = extensions(db, values)
    note(f"extensions that are not there: {', '.join(missing) or 'none'}")
    base = {**values.base(), **more}
    universe = Universe(rng, base, version)
    universe.builtin_ranges()
    plain = list(universe.types)
    arrays = [universe.array(t) for t in plain]
    before = len(universe.types)
    universe.grow(NESTED_TYPES)
    nested = universe.types[before:]
    for statement in universe.ddl:
        db.sql(statement)
    groups = [plain[0::2], plain[1::2], arrays[0::2], arrays[1::2]]
    groups += [nested[i::NESTED_TABLES] for i in range(NESTED_TABLES)]
    tables = [Table(db, rng, i, types, is_full=i % 2 == 0) for i, types in enumerate(groups)]
    db.publish(*(t.name for t in tables))
    note(f"{sum(len(g) for g in groups)} columns")
    return tables


def test_records_of_random_types_are_postgresqls_own(rig, seed, note):
    tables = tables_of_all_types(rig.db, seeded(seed), note)
    rig.start()
    for table in tables:
        table.write(ROWS)
    note(f"{sum(t.refused for t in tables)} statements refused")
    rig.settle()
    wrong = differences(rig)
    assert not wrong, f"{len(wrong)} values differ:\n" + "\n".join(wrong[:30])
    assert rig.walpost.metric("walpost_source_odd_values_total") == 0
    assert rig.walpost.metric("walpost_source_unknown_types_total") == 0


def test_S23_copied_rows_of_random_types_are_postgresqls_own(rig, seed, note):
    tables = tables_of_all_types(rig.db, seeded(seed), note)
    for table in tables:
        table.write(ROWS)
    right = {(f"public.{table.name}", key): EXACT.decode(row)[1] for table in tables
             for key, row in rig.db.sql(f"SELECT id, to_json(t)::text FROM {table.name} t")}
    rig.start(backfill=True)
    rig.wait_arrived(len(right))
    wrong, seen = [], set()
    for request in rig.receiver.requests():
        for record, text in checker.split_records(request.body) if request.accepted and request.body else ():
            assert record["operation"] == "read"
            row = record["schema"], record["fields"]["id"]
            seen.add(row)
            mine = exact(text, "fields")[1]
            assert [column for column, _ in mine] == [column for column, _ in right[row]]
            wrong += [f"{row[0]}.{column}: {value!r}\n    PostgreSQL: {theirs!r}"
                      for (column, value), (_, theirs) in zip(mine, right[row]) if value != theirs]
    assert seen == set(right)
    assert not wrong, f"{len(wrong)} values differ:\n" + "\n".join(wrong[:30])
