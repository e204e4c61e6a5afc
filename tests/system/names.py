"""Host names of our own for one process, which come and go."""

import pathlib

from machine import IS_ROOT

# In a mount namespace; the process that asks for it goes on as the command.
ENTER = """
mount --bind "$1" /etc/hosts && { [ ! -e /etc/resolv.conf ] || mount --bind "$2" /etc/resolv.conf; } &&
shift 2 && exec "$@"
"""


class Names:
    """A hosts file; what is not in it is asked of a name server that is not there."""

    def __init__(self, folder):
        self.hosts = pathlib.Path(folder) / "hosts"
        server = pathlib.Path(folder) / "resolv.conf"
        server.write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
        self.set()
        self.within = ["unshare", "-m" if IS_ROOT else "-rm", "sh", "-c", ENTER, "sh", self.hosts,
                       server]

    def set(self, *names):
        """These are 127.0.0.1.  Written in place: a file of another name is not the mounted one."""
        self.hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *names)))
