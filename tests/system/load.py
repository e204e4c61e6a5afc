"""Applications that write: random transactions over a few tables, from a seed."""

import contextlib
import os
import random
import threading
import time

import psycopg
from machine import wait_for


def seed_of_run():
    """A fresh seed, or the one that WALPOST_SEED repeats."""
    return int(os.environ.get("WALPOST_SEED", random.SystemRandom().randrange(1 << 32)))


class Writers:
    """Threads that each run random transactions on public.a and public.b until stopped.

    Inserts, updates, deletes, changed keys, several rows per transaction, rolled
    back transactions and savepoints, now and then a TRUNCATE.  Keys are few, so
    that many changes meet on the same key.
    """

    def __init__(self, db, seed, threads=2, keys=40, pause=0.002, truncates=True):
        self.db, self.keys, self.pause, self.truncates = db, keys, pause, truncates
        self.stopping = threading.Event()
        self.transactions = 0
        self.errors = []
        self.threads = [threading.Thread(target=self._run, args=(random.Random(f"{seed}-{i}"),))
                        for i in range(threads)]

    @staticmethod
    def tables(db):
        db.table("a", "id int PRIMARY KEY, v text, n numeric")
        db.table("b", "k text, j int, v jsonb, PRIMARY KEY (k, j)", key=("k", "j"))
        db.publish("a", "b")

    def write(self, n):
        """Until n more transactions have been run, whatever time that takes."""
        end = self.transactions + n
        wait_for(f"{n} transactions", lambda: self.errors or self.transactions >= end, 240)
        assert not self.errors, self.errors[:3]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive(), "a writer hangs"
        assert not self.errors, self.errors[:3]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _run(self, rng):
        connection = None
        while not self.stopping.is_set():
            try:
                if connection is None or connection.broken or connection.closed:
                    connection = self.db.connect(autocommit=False)
                self._transaction(connection, rng)
                self.transactions += 1
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                with contextlib.suppress(psycopg.OperationalError):  # the server is being restarted
                    connection.rollback()
            except psycopg.OperationalError:
                time.sleep(0.05)  # the server is being restarted
            except Exception as error:  # noqa: BLE001 - the test is told at its end
                self.errors.append(repr(error))
                return
            time.sleep(self.pause * rng.random() * 2)
        if connection:
            connection.close()

    def _transaction(self, connection, rng):
        if self.truncates and rng.random() < 0.004:
            connection.execute(rng.choice(["TRUNCATE a", "TRUNCATE b", "TRUNCATE a, b"]))
        for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
            if rng.random() < 0.1:
                connection.execute("SAVEPOINT s")
                self._change(connection, rng)
                if rng.random() < 0.5:
                    connection.execute("ROLLBACK TO s")
            else:
                self._change(connection, rng)
        if rng.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()

    def _change(self, connection, rng):
        key, value = rng.randrange(self.keys), f"v{rng.randrange(10**6)} ü\"\\"
        kind = rng.random()
        if rng.random() < 0.3:
            connection.execute(
                "INSERT INTO b VALUES (%s, %s, %s) ON CONFLICT (k, j) DO UPDATE SET v = EXCLUDED.v",
                (f"k{key % 7}", key, f'{{"n": {key}.50}}'))
        elif kind < 0.5:
            connection.execute(
                "INSERT INTO a VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v",
                (key, value, key / 3))
        elif kind < 0.75:
            connection.execute("UPDATE a SET v = %s WHERE id = %s", (value, key))
        elif kind < 0.85:
            connection.execute("UPDATE a SET id = %s WHERE id = %s AND NOT EXISTS"
                               " (SELECT 1 FROM a WHERE id = %s)",
                               (key + self.keys, key, key + self.keys))
        else:
            connection.execute("DELETE FROM a WHERE id = %s", (key,))
