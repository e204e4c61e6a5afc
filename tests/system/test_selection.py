"""Which tables, columns and rows a sync gets, and as what."""

import pytest
from test_backfill import first_arrivals, wait_copied
from walpost import sync

pytestmark = pytest.mark.sanitized


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
