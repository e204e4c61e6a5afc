#!/usr/bin/env python3
"""A small receiver for walpost's webhooks, to read and to copy from.

    deploy/example_receiver.py [--listen 127.0.0.1:8080] [--save FILE] [--port-file FILE]

It shows the four things that a receiver should do:

- Keep a record, then answer, then work on it. The answer 200 says "I have it";
  what takes long is done afterwards, by another thread.
- Ignore repeats. Delivery is at least once. The records of one key arrive in
  order, and their ids rise, so whatever is not above the highest id seen for its
  key was here before.
- Answer 200 only to what was understood. Anything else is sent again.
- Read numbers as decimals. A numeric of PostgreSQL has digits that a float loses.

Needs nothing but Python's standard library. A real receiver would keep the
highest ids where it keeps the records, in the same transaction.
"""

import argparse
import decimal
import http.server
import json
import queue
import signal
import sys
import threading

MAX_BODY = 64 << 20

COLOURS = {"insert": "32", "update": "33", "delete": "31", "truncate": "31"}


def records_of(body):
    """The records of a request: an envelope of walpost, or a bare array."""
    value = json.loads(body, parse_float=decimal.Decimal)
    records = value["object"]["records"] if isinstance(value, dict) else value
    if not all(isinstance(r["id"], str) for r in records):
        raise ValueError("a record has no id")
    return records


def text_of(value):
    """The JSON of a value that may hold decimals, which json.dumps does not take."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text_of(k)}: {text_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text_of, value)) + "]"
    if isinstance(value, decimal.Decimal):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


class Keeper:
    """Tells new records from repeats, and keeps the new ones."""

    def __init__(self, save):
        self.highest = {}  # (schema, key) -> id
        self.save = open(save, "a", encoding="utf-8") if save else None
        self.lock = threading.Lock()
        self.new = queue.SimpleQueue()

    def take(self, records):
        with self.lock:
            for record in records:
                key = (record["schema"], text_of(record["key"]))
                if record["id"] <= self.highest.get(key, ""):
                    self.new.put((record, True))
                    continue
                self.highest[key] = record["id"]
                if self.save:
                    self.save.write(text_of(record) + "\n")
                self.new.put((record, False))
            if self.save:
                self.save.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        try:
            records = records_of(body)
        except (ValueError, KeyError, TypeError) as error:
            print(f"not understood: {error}", file=sys.stderr, flush=True)
            return self.answer(400)
        self.server.keeper.take(records)
        return self.answer(200)

    def do_GET(self):
        self.answer(200)

    do_HEAD = do_OPTIONS = do_GET

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def show(record, is_repeat):
    operation = record["operation"]
    name = operation.upper()
    if sys.stdout.isatty():
        name = f"\033[1;{COLOURS.get(operation, '36')}m{name}\033[0m"
    key = "" if record["key"] is None else " " + text_of(record["key"])
    print(f"    <- {name} {record['schema']}{key}  id {record['id']}")
    if is_repeat:
        print("       a repeat, ignored")
        return
    for part in ("fields", "changes", "unchanged"):
        if record.get(part):
            print(f"       {part}: {text_of(record[part])}")


def work(keeper):
    """What is done with the records once they are safe: here they are printed."""
    while True:
        show(*keeper.new.get())
        if keeper.new.empty():
            sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description="A small receiver for walpost's webhooks.")
    parser.add_argument("--listen", default="127.0.0.1:8080", help="default 127.0.0.1:8080; port 0: a free one")
    parser.add_argument("--save", metavar="FILE", help="append every new record as a line of JSON")
    parser.add_argument("--port-file", metavar="FILE", help="write the port here once it listens")
    options = parser.parse_args()
    host, port = options.listen.rsplit(":", 1)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper = Keeper(options.save)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    server.keeper = keeper
    threading.Thread(target=work, args=(keeper,), daemon=True).start()
    if options.port_file:
        with open(options.port_file, "w", encoding="ascii") as f:
            f.write(f"{server.server_address[1]}\n")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
