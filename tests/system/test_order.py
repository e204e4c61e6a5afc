"""The first arrivals of a key are in commit order, whatever the lanes and the endpoint do."""

import random
import time

import pytest
from load import Writers

pytestmark = pytest.mark.sanitized


def test_order_per_key_under_concurrency(rig, seed):
    Writers.tables(rig.db)
    rig.add_receiver().control({"delay_ms": 3, "action": "answer"})
    rig.start(concurrency=8, batch_size=5)
    with Writers(rig.db, seed, threads=4, keys=12) as writers:
        writers.write(1000)
    report = rig.assert_whole()
    assert report.expected > 500


def test_order_per_key_while_the_endpoint_fails_at_random(rig, seed):
    Writers.tables(rig.db)
    rig.add_receiver().control(
        {"p": 0.05, "seed": seed % 1000, "status": 503, "action": "answer"},
        {"p": 0.02, "seed": seed % 1001, "action": "close"},
        {"p": 0.02, "seed": seed % 1002, "action": "half"},
        {"p": 0.02, "seed": seed % 1003, "action": "reset"},
        {"p": 0.02, "seed": seed % 1004, "status": 429, "retry_after": "0", "action": "answer"})
    rig.start(concurrency=8, batch_size=5)
    with Writers(rig.db, seed, threads=4, keys=12) as writers:
        writers.write(1000)
    rig.receiver.behave()
    rig.assert_whole()


def test_order_over_the_whole_sync(rig, seed):
    Writers.tables(rig.db)
    rig.add_receiver().control({"p": 0.05, "seed": seed % 1000, "status": 503, "action": "answer"})
    rig.start(order="sync")
    with Writers(rig.db, seed, threads=4, keys=12) as writers:
        writers.write(500)
    rig.receiver.behave()
    rig.assert_whole()
    high = ""
    seen = set()
    for record in rig.receiver.records():
        if record["id"] not in seen:
            assert record["id"] > high
            high = record["id"]
            seen.add(record["id"])


@pytest.mark.parametrize("rounds", [20])
def test_kill_at_random_moments_under_load(rig, rounds, seed):
    rng = random.Random(seed)
    Writers.tables(rig.db)
    rig.start(concurrency=8, batch_size=20)
    with Writers(rig.db, seed, threads=3) as writers:
        for _ in range(rounds):
            time.sleep(rng.choice([rng.uniform(0, 0.1), rng.uniform(0, 0.6), rng.uniform(0.3, 0.8)]))
            rig.walpost.kill()
            rig.walpost.spawn()
        writers.write(300)
    rig.walpost.wait_streaming(rig.db)
    report = rig.assert_whole()
    print(report)
    assert report.expected > 300
