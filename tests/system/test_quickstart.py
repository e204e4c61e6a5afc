"""The quickstart with somebody's own database and endpoint: the build there is, nothing installed, the slot removed."""

import os
import pathlib
import pty
import shutil
import signal
import subprocess
import urllib.parse

import pytest
from machine import ROOT, build_dir, wait_for
from postgres import PASSWORD

@pytest.fixture
def checkout(folder):
    """The scripts and the build of this run; every tool that would build or install says so."""
    checkout, stubs = folder / "checkout", folder / "stubs"
    shutil.copytree(ROOT / "deploy", checkout / "deploy")
    (checkout / "build" / "release").mkdir(parents=True)
    (checkout / "build" / "release" / "build.ninja").touch()
    shutil.copy(build_dir() / "walpost", checkout / "build" / "release" / "walpost")
    stubs.mkdir()
    for name, code in (("cmake", 0), ("apt-get", 1), ("sudo", 1)):
        (stubs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/called\nexit {code}\n')
        (stubs / name).chmod(0o755)
    return checkout


@pytest.mark.parametrize("answer", ["y", "n"])
def test_quickstart_reads_an_own_database_for_an_own_endpoint_and_removes_its_slot(rig, folder, checkout, answer):
    rig.db.table("t")
    rig.db.publish("t")
    hook = rig.add_receiver()
    out = folder / "out"
    terminal, stdin = pty.openpty()
    login = f"walpost:{urllib.parse.quote(PASSWORD, safe='')}"
    with out.open("wb") as written:
        script = subprocess.Popen(
            [checkout / "deploy" / "quickstart.sh", "--dir", folder / "kept", "--webhook", hook.url, "--source",
             f"postgresql://{login}@127.0.0.1:{rig.db.server.port}/{rig.db.name}"],
            stdin=stdin, stdout=written, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder,
            env=dict(os.environ, PATH=f"{folder}/stubs:{os.environ['PATH']}", TMPDIR=str(folder)))
    os.close(stdin)
    try:
        def until(text):
            def is_written():
                return text in out.read_text() or script.poll() is not None
            wait_for(text, is_written, 120, tail=out.read_text)
            assert text in out.read_text(), out.read_text()
        until("press Ctrl-C to stop it")
        rig.db.sql("INSERT INTO t VALUES (1, 'a')")
        rig.wait_arrived(1)
        assert len(rig.db.slots()) == 1
        # Behind that line nothing but the wait for walpost makes it sleep.
        stat = pathlib.Path(f"/proc/{script.pid}/stat")
        wait_for("it waits", lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", tail=out.read_text)
        os.killpg(script.pid, signal.SIGINT)
        until("==> Stopping walpost")
        os.write(terminal, f"{answer}\n{answer}\n".encode())
        assert script.wait(120) == 0, out.read_text()
    finally:
        if script.poll() is None:
            script.terminate()
            script.wait(60)
        os.close(terminal)
    text = out.read_text()
    called = (folder / "called").read_text().splitlines()
    assert called == ["cmake --build --preset release --target walpost"], called
    assert "that are needed are installed" in text and PASSWORD not in text
    if answer == "y":
        assert "Nothing of walpost is left in your database" in text and rig.db.slots() == []
        assert (folder / "kept" / "walpost.yaml").exists() and not (folder / "kept" / "data").exists()
    else:
        assert "The slot is kept" in text and len(rig.db.slots()) == 1
    assert not list(folder.glob("walpost-quickstart.*")), "its scratch folder is gone"
