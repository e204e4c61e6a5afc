#!/usr/bin/env python3
"""Holds the list of cases (catalog.txt) against the names of the tests.

A test says in its name which cases it covers: test_K02_K03_..., or a parameter
that begins with an id.  Fails when a case has neither a test nor a reason, or
a test an id that no case has.  With --list, prints the tests of every case.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
AREAS = "XL|[KTYNDRPLXEFS]"
ID = re.compile(rf"(?:{AREAS})\d+")
LINE = re.compile(rf"((?:{AREAS})\d+) +(\S.*?)(?: -- (\S.*))?")
KINDS = {"F": "faults", "S": "pitfalls of copies"}  # by the first letter; the others are cases


def read_cases():
    """{id: why it has no test, or None}"""
    cases = {}
    for number, line in enumerate((ROOT / "tests/catalog.txt").read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match or match[1] in cases:
            sys.exit(f"catalog.txt:{number}: not a case, or one for the second time: {line}")
        cases[match[1]] = match[3]
    return cases


def ids_of(name):
    """Those that a name or parameter begins with."""
    found = []
    for word in re.split(r"[_\- ]", name):
        if not ID.fullmatch(word):
            break
        found.append(word)
    return found


def read_tests():
    """[(name, ids)] of the system tests, as pytest collects them, and of those in C."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", "-o", "addopts=-p no:cacheprovider",
         "tests/system"], cwd=ROOT, env={**os.environ, "WALPOST_STAGES": os.devnull}, capture_output=True,
        text=True, check=False)
    if done.returncode:
        sys.exit(f"pytest could not collect the tests:\n{done.stdout}{done.stderr}")
    names = [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    for file in (ROOT / "tests").glob("*/test_*.c"):
        names += re.findall(r"^static void (\w+)\(void \*\*state\)", file.read_text(), re.MULTILINE)
    out = []
    for name in names:
        function, _, parameters = name.removesuffix("]").partition("[")
        ids = ids_of(function.removeprefix("test_"))
        for parameter in re.split(r"-(?=" + ID.pattern + ")", parameters):
            ids += ids_of(parameter)
        out.append((name, ids))
    return out


def main():
    cases, tests = read_cases(), {}
    wrong = []
    for name, ids in read_tests():
        for case in ids:
            tests.setdefault(case, []).append(name)
            if case not in cases:
                wrong.append(f"{name}: {case} is no case of catalog.txt")
    wrong += [f"{case} has no test, and catalog.txt no reason" for case, reason in cases.items()
              if case not in tests and not reason]
    if "--list" in sys.argv[1:]:
        for case in cases:
            print(case, *sorted(set(tests.get(case, []))), sep="\n    ")
    for title in ("cases", *KINDS.values()):
        these = [case for case in cases if KINDS.get(case[0], "cases") == title]
        print(f"{title}: {sum(case in tests for case in these)} of {len(these)} have a test; without:"
              f" {', '.join(case for case in these if case not in tests) or 'none'}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
