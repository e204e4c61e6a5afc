"""A physical standby of a server of the harness."""

import shutil
import subprocess

from machine import PORTS, as_server_user, server_user, wait_for
from postgres import Server


class Standby(Server):
    """Made of the primary's files, for which that one is stopped a moment."""

    def __init__(self, primary, folder):  # noqa: super().__init__ makes a cluster of its own
        self.version, self.bin = primary.version, primary.bin
        self.folder, self.data = folder, folder / "data"
        self.log = folder / "postgres.log"
        self.port = PORTS.take()
        self.process = None
        folder.mkdir()
        with open(primary.data / "pg_hba.conf", "a") as hba:
            hba.write("local replication all trust\n")
        primary.stop()
        subprocess.run(["cp", "-a", primary.data, self.data], check=True)
        if server_user():
            shutil.chown(folder, server_user(), server_user())
        primary.start()
        self.set({"port": str(self.port), "unix_socket_directories": f"'{folder}'", "hot_standby": "on",
                  "primary_conninfo": f"'host={primary.folder} port={primary.port} user=postgres"
                                      " application_name=standby1'"})
        subprocess.run(["touch", self.data / "standby.signal"], check=True, cwd="/", **as_server_user())
        self.start()
        wait_for("the standby follows", lambda: primary.sql(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")[0][0] == 1)

    def pause(self):
        self.sql("SELECT pg_wal_replay_pause()")

    def resume(self):
        self.sql("SELECT pg_wal_replay_resume()")
