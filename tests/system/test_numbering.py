"""An option that changes the numbering takes effect between two transactions, never inside one."""

import pytest
from machine import wait_for

ROWS = 9000


def changes_option(rig, option):
    configuration = rig.walpost.config["connections"][rig.db.name]["configuration"]
    if option == "messages":
        configuration["message_prefixes"] = ["a"]
    else:
        configuration["publication"] = "other"
    rig.walpost.write()


def read_in_part(rig):
    """A transaction that does not fit into the buffer, whose head is delivered by one sync of two; walpost dies."""
    rig.db.table("t", bulk=True)
    rig.db.sql("CREATE TABLE u (id int PRIMARY KEY)")
    rig.db.publish("t", "u")
    rig.db.sql("CREATE PUBLICATION other FOR TABLE t")
    rig.add_receiver("dead", start=False)
    rig.add_receiver("one")
    rig.start(syncs={name: rig.sync(name, ["public.t"], batch_size=50) for name in ("dead", "one")},
              change={"buffer": {"max_bytes": "16MiB"}})
    with rig.db.connect(autocommit=False) as connection:
        # What only one of both numberings counts comes first.
        connection.execute("INSERT INTO u VALUES (1)")
        if connection.info.server_version >= 140000:
            connection.execute("SELECT pg_logical_emit_message(true, 'a', 'x')")
        connection.execute("INSERT INTO t SELECT g, (SELECT string_agg(md5(g::text || i), '')"
                           f" FROM generate_series(1, 100) i) FROM generate_series(1, {ROWS}) g")
        connection.commit()
    wait_for("the buffer is full in the middle of it", lambda: "the buffer has no room" in rig.walpost.get(
        "/readyz")[1], 60, tail=rig.walpost.tail)
    rig.wait_arrived(1, rig.receivers["one"])
    rig.walpost.kill()


def ids_of_rows(receiver):
    """{id of a row of t: the ids it came under}"""
    found = {}
    for record in receiver.records():
        found.setdefault(record["fields"]["id"], set()).add(record["id"])
    return found


@pytest.mark.parametrize("option", ["messages", "publication"])
def test_F45_an_option_that_changes_in_the_middle_of_a_transaction_waits_for_its_end(rig, option):
    if option == "messages" and rig.db.connection.info.server_version < 140000:
        pytest.skip("PostgreSQL 14 or newer")
    read_in_part(rig)
    changes_option(rig, option)
    rig.receivers["dead"].start()
    rig.walpost.start()
    for name in ("dead", "one"):
        rig.assert_whole(rig.receivers[name], seconds=120)
    assert rig.walpost.events("numbering_is_kept"), rig.tail()
    rig.walpost.wait_streaming(rig.db)
    rig.db.sql(f"INSERT INTO t VALUES ({ROWS + 1}, 'behind it')")
    for name in ("dead", "one"):
        rig.assert_whole(rig.receivers[name])
        rows = ids_of_rows(rig.receivers[name])
        assert max(len(ids) for ids in rows.values()) == 1, "no row came under two ids"
        assert {i[:2] for row, ids in rows.items() if row <= ROWS for i in ids} == {"01"}
        assert {i[:2] for i in rows[ROWS + 1]} == {"02"}, "then the option took effect"


def test_F45_a_numbering_that_cannot_be_had_any_more_is_told(rig):
    """The publication by which the head was read is gone: the transaction comes once more as a whole."""
    read_in_part(rig)
    rig.db.sql("DROP PUBLICATION walpost")
    changes_option(rig, "publication")
    rig.receivers["dead"].start()
    rig.walpost.start()
    wait_for("it is told", lambda: rig.walpost.events("transaction_is_renumbered"), tail=rig.walpost.tail)
    for name in ("dead", "one"):
        rig.wait_arrived(ROWS, rig.receivers[name], 120)
        wait_for("all of it came with the new numbering", lambda: len(
            {r["fields"]["id"] for r in rig.receivers[name].records() if r["id"].startswith("02")}) == ROWS, 120, 0.5)
