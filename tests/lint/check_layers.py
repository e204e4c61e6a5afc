#!/usr/bin/env python3
"""Reads the #includes: layers point one way, and every library has one home.

    base <- record <- source <-+
      ^        ^ <---- buffer <-+-- pipeline <- api <- cli <- main
      +--------+------ sinks  <-+       ^ store, config

A file may include its own layer and those to its left; source, buffer and sinks
never see each other.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

MAY_SEE = {
    "base": set(),
    "record": {"base"},
    "source": {"base", "record"},
    "buffer": {"base", "record"},
    "sinks": {"base", "record"},
    "store": {"base", "record"},
    "config": {"base"},
    "pipeline": {"base", "record", "source", "buffer", "sinks", "store", "config"},
    "api": {"base", "record", "source", "buffer", "sinks", "store", "config", "pipeline"},
    "cli": {"base", "record", "source", "buffer", "sinks", "store", "config", "pipeline", "api"},
    "main": {"base", "cli"},
}

# Header (or folder of headers) of a library -> the files and folders that may include it.
HOMES = {
    "libpq-fe.h": ["cdc/source/", "cdc/store/", "sinks/postgresql/"],
    "postgres_ext.h": ["cdc/source/", "cdc/store/", "sinks/postgresql/"],
    "librdkafka/": ["cdc/buffer/kafka"],
    "sqlite3.h": ["cdc/buffer/local", "cdc/store/"],
    "curl/": ["sinks/http/"],
    "microhttpd.h": ["cdc/api/server"],
    "jansson.h": ["cdc/api/", "cdc/config/", "sinks/webhook/"],
    "yaml.h": ["cdc/config/"],
    "openssl/": ["cdc/base/crypto"],
    "lz4": ["cdc/base/compress"],
    "zstd": ["cdc/base/compress"],
    "zlib.h": ["cdc/base/compress"],
    "xxhash.h": ["cdc/record/"],
    "xxh3.h": ["cdc/record/"],
    "cmocka.h": ["tests/"],
}

# What is neither ours nor a library with a home: libc, POSIX, Linux and the compiler.
SYSTEM = re.compile(
    r"(sys|linux|netinet|arpa|net|bits)/[a-z0-9_]+\.h|"
    r"(assert|ctype|dirent|endian|errno|fcntl|float|getopt|glob|grp|inttypes|langinfo|limits|locale|"
    r"malloc|math|netdb|poll|pthread|pwd|sched|semaphore|setjmp|signal|spawn|stdalign|stdarg|"
    r"stdatomic|stdbool|stddef|stdint|stdio|stdlib|string|strings|syslog|termios|threads|time|unistd|"
    r"byteswap|emmintrin|arm_neon|execinfo|fnmatch|libgen|link|regex|search|uchar|wchar|wctype|ucontext|utime)\.h\Z")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def layer_of(path):
    """The layer of a path inside the repository, or None."""
    parts = path.split("/")
    if path == "cdc/main.c":
        return "main"
    if parts[0] == "sinks":
        return "sinks"
    if parts[0] == "cdc" and len(parts) > 2:
        return parts[1]
    return None


def check(path, text):
    """What is wrong with one file, as texts."""
    layer = layer_of(path)
    if path.startswith("cdc/") and layer not in MAY_SEE:
        return [f"{path}: in no layer"]
    wrong = []
    for match in INCLUDE.finditer(text):
        kind, target = match[1], match[2]
        line = text.count("\n", 0, match.start()) + 1
        where = f"{path}:{line}"
        if kind == '"':
            if not (ROOT / target).is_file():
                wrong.append(f"{where}: {target} is not named from the root of the repository")
                continue
            seen = layer_of(target)
            if layer and seen and seen != layer and seen not in MAY_SEE[layer]:
                wrong.append(f"{where}: {layer} must not see {seen} ({target})")
            if layer and target.startswith("tests/"):
                wrong.append(f"{where}: the product includes a test ({target})")
            continue
        homes = next((homes for prefix, homes in HOMES.items() if target.startswith(prefix)), None)
        if homes is not None:
            if layer and not any(path.startswith(home) for home in homes):
                wrong.append(f"{where}: {target} belongs to {' and '.join(homes)} only")
        elif not SYSTEM.match(target):
            wrong.append(f"{where}: {target} is no system header and has no home")
    return wrong


def main():
    files = sorted(p for folder in ("cdc", "sinks", "tests") for p in (ROOT / folder).rglob("*.[ch]"))
    wrong = [w for f in files
             for w in check(f.relative_to(ROOT).as_posix(), f.read_text(encoding="utf-8"))]
    print("\n".join(wrong) if wrong else f"layers: {len(files)} files, every include points left")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
