"""Debian's nginx in front of a receiver: TLS, client certificates, HTTP/2.  Own file, port and pid."""

import pathlib
import shutil
import subprocess

from machine import IS_ROOT, PORTS, ROOT, Process, tail_of, wait_for


def binary():
    """The installed nginx, or the one that tests/run.sh unpacked without installing it."""
    for path in (ROOT / "build" / "nginx" / "usr" / "sbin" / "nginx", shutil.which("nginx"),
                 "/usr/sbin/nginx"):
        if path and pathlib.Path(path).exists():
            return str(path)
    raise AssertionError("no nginx; tests/run.sh provides one")


class Certificates:
    """A CA of our own, a server's and a client's certificate, and a CA that nobody trusts."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.ca = self._ca("ca")
        self.stranger = self._ca("stranger")
        self.server = self._leaf("server", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self.other_name = self._leaf("other", "ca", "subjectAltName=DNS:elsewhere.example")
        self.client = self._leaf("client", "ca", "extendedKeyUsage=clientAuth")

    def for_days(self, days):
        """Another certificate of the server's; -1: one that expired yesterday."""
        return self._leaf(f"days{days}", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1", days)

    def _openssl(self, *args):
        subprocess.run(["openssl", *[str(a) for a in args]], check=True, capture_output=True,
                       cwd=self.folder)

    def _key(self, name):
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    def _ca(self, name):
        self._key(name)
        self._openssl("req", "-x509", "-new", "-key", f"{name}.key", "-days", "2", "-subj",
                      f"/CN=walpost tests {name}", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem"

    def _leaf(self, name, ca, extension, days=2):
        self._key(name)
        (self.folder / f"{name}.ext").write_text(extension + "\n")
        self._openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN=walpost-{name}", "-out",
                      f"{name}.csr")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
                      "-CAcreateserial", "-days", days, "-extfile", f"{name}.ext", "-out",
                      f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


class Nginx:
    """Passes every request to upstream; `verify`: asks the client for a certificate of our CA."""

    def __init__(self, folder, upstream_port, certificates, verify=False, leaf=None, http2=True,
                 protocols="TLSv1.2 TLSv1.3"):
        self.folder = pathlib.Path(folder) / "nginx"
        self.folder.mkdir()
        self.port = PORTS.take()
        self.access = self.folder / "access.log"
        self._install(leaf or certificates.server)
        client = (f"ssl_client_certificate {certificates.ca}; ssl_verify_client on;"
                  if verify else "")
        temporary = "\n".join(f"    {kind}_temp_path {self.folder}/{kind};" for kind in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(f"""
{"user root;" if IS_ROOT else ""}
daemon off;
worker_processes 1;
pid {self.folder}/nginx.pid;
error_log {self.folder}/error.log;
events {{ worker_connections 200; }}
http {{
    log_format walpost '$server_protocol $status $request_method $request_uri';
    access_log {self.access} walpost;
    client_max_body_size 100m;
    keepalive_requests 100000;
{temporary}
    server {{
        listen 127.0.0.1:{self.port} ssl {"http2" if http2 else ""};
        ssl_protocols {protocols};
        ssl_ciphers DEFAULT:@SECLEVEL=0;
        ssl_certificate {self.folder}/leaf.pem;
        ssl_certificate_key {self.folder}/leaf.key;
        {client}
        location / {{
            proxy_pass http://127.0.0.1:{upstream_port};
            proxy_http_version 1.1;
            proxy_set_header X-Client-Subject $ssl_client_s_dn;
        }}
    }}
}}
""")
        self._start()

    def _start(self):
        self.process = Process([binary(), "-p", self.folder, "-c", self.folder / "nginx.conf",
                                "-e", self.folder / "error.log"], self.folder / "out")

        def started():
            assert self.process.is_running, tail_of(self.folder / "error.log")
            return (self.folder / "nginx.pid").exists()
        wait_for("nginx runs", started)

    def _install(self, leaf):
        for path, name in zip(leaf, ("leaf.pem", "leaf.key")):
            shutil.copyfile(path, self.folder / name)

    def show(self, leaf):
        """The certificate from now on; what was connected is not."""
        self.stop()
        self._install(leaf)
        self._start()

    def url(self, host="localhost"):
        return f"https://{host}:{self.port}/hook"

    def lines(self):
        return self.access.read_text().splitlines() if self.access.exists() else []

    def stop(self):
        if self.process.is_running:
            self.process.stop()
