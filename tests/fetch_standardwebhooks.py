#!/usr/bin/env python3
"""Brings the JavaScript library of Standard Webhooks, unpacked into build/standardwebhooks.

A second run needs no network.  folder() is what NODE_PATH is to hold.
"""

import pathlib
import shutil
import sys
import tarfile
import tempfile

sys.path[:0] = [str(pathlib.Path(__file__).parent)]

import npm  # noqa: E402

FOLDER = npm.BUILD / "standardwebhooks"

# package: (version, its "integrity" as npm says it)
PINNED = {
    "standardwebhooks": ("1.1.1", "sha512-bCbX9ZEyFkWPsRz7Bl3NuQUJohmwGSev/yhr7vhaGPlc4AfIrspIRa6cPTBu"
                                  "I1ItmrTDJ4d/S2hCsfe4+vQGnQ=="),
    "@stablelib/base64": ("1.0.1", "sha512-1bnPQqSxSuc3Ii6MhBysoWCg58j97aUjuCSZrGSmDxNqtytIi0k8u"
                                   "tUenAwTZN4V5mXXYGsVUI9zeBqy+jBOSQ=="),
    "fast-sha256": ("1.3.0", "sha512-n11RGP/lrWEFI/bWdygLxhI+pVeo1ZYIVwvvPkW7azl/rOy+F3HYRZ2K5zeE9mmk"
                             "hQppyv9sQFx0JM9UabnpPQ=="),
}


def unpack(archive, into):
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():
                continue
            target = into.joinpath(*pathlib.PurePosixPath(member.name).parts[1:])
            assert target.resolve().is_relative_to(into.resolve()), member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(tar.extractfile(member), out)


def folder():
    """The folder with the packages in it, fetched if they are not there."""
    modules, stamp = FOLDER / "node_modules", FOLDER / "integrity"
    pinned = "\n".join(f"{name} {integrity}" for name, (_, integrity) in PINNED.items())
    with npm.alone(FOLDER):
        if stamp.exists() and stamp.read_text() == pinned:
            return modules
        shutil.rmtree(modules, ignore_errors=True)
        for name, (version, integrity) in PINNED.items():
            with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
                archive = npm.download(name, version, integrity, pathlib.Path(scratch))
                unpack(archive, modules / name)
        stamp.write_text(pinned)
    return modules


if __name__ == "__main__":
    print(folder())
