"""What the endpoint sees: credentials, headers, TLS, HTTP/2, connections."""

import base64
import json
import time

import pytest
from machine import wait_for
from nginx import Certificates, Nginx

pytestmark = pytest.mark.sanitized


def deliver(rig, hook, n=3, **delivery):
    """Delivers n rows with this configuration of the destination; the requests."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook=hook, **delivery)
    rig.db.sql(f"INSERT INTO t SELECT g, 'x' FROM generate_series(1, {n}) g")
    rig.assert_whole()
    return [r for r in rig.receiver.requests() if r.body]


def everything_shown(rig):
    """What a person could see: log, pages, and the command line of the process."""
    pages = [rig.walpost.get(p)[1] for p in ("/healthz", "/readyz", "/metrics", "/status.txt")]
    command = open(f"/proc/{rig.walpost.process.pid}/cmdline").read()
    return "\n".join([rig.walpost.log_text(), command, *pages])


def test_polytomic_secret(rig):
    for request in deliver(rig, {"auth_method": "polytomic_secret", "secret": "a.b-c_d"}):
        assert request.headers["authorization"] == "Bearer a.b-c_d"


def test_basic(rig):
    for request in deliver(rig, {"auth_method": "basic",
                                 "basic": {"username": "us er", "password": "p:ä"}}):
        scheme, value = request.headers["authorization"].split()
        assert scheme == "Basic" and base64.b64decode(value).decode() == "us er:p:ä"


def test_header(rig):
    for request in deliver(rig, {"auth_method": "header",
                                 "header": {"name": "X-Api-Key", "value": "k e y"}}):
        assert b"X-Api-Key: k e y\r\n" in request.head
        assert "authorization" not in request.headers


def test_query(rig):
    receiver = rig.add_receiver()
    for request in deliver(rig, {"url": receiver.url + "?a=1", "auth_method": "query",
                                 "query": [{"name": "to ken", "value": "a&b=c ü/"}]}):
        assert request.request_line == (
            "POST /hook?a=1&to%20ken=a%26b%3Dc%20%C3%BC%2F HTTP/1.1")


def test_extra_headers(rig):
    for request in deliver(rig, {"headers": [{"name": "X-One", "value": "1"},
                                             {"name": "X-Two", "value": "zwei, 2"}]}):
        assert request.headers["x-one"] == "1" and request.headers["x-two"] == "zwei, 2"


def test_connections_are_kept(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(concurrency=4, batch_size=1)
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 500) g")
    rig.assert_whole()
    stats = rig.receiver.stats()
    print(stats)
    if "connections" in stats:
        assert stats["connections"] <= 8 + 2


def test_an_idle_lane_sends_at_once(rig, note):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    waits = []
    for i in range(20):
        rig.db.sql("INSERT INTO t VALUES (%s, 'x')", i)
        committed = time.time()
        rig.wait_arrived(i + 1)
        waits.append(rig.receiver.requests()[-1].wall_us / 1e6 - committed)
    waits.sort()
    note(f"commit to arrival: median {waits[10] * 1000:.1f} ms, worst {waits[-1] * 1000:.1f} ms")
    assert waits[10] < 0.5


def test_linger_fills_batches(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(linger="1m", batch_size=20, concurrency=1)
    for i in range(20):
        rig.db.sql("INSERT INTO t VALUES (%s, 'x')", i)
    rig.assert_whole()
    assert len([r for r in rig.receiver.requests() if r.body]) == 1
    rig.walpost.stop()
    rig.walpost.config["bulk_syncs"]["main"]["destination_configuration"]["linger"] = "100ms"
    rig.walpost.write()
    rig.walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (20, 'not full')")
    rig.assert_whole()


def test_bodies_are_valid_json_whatever_the_text(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start()
    with rig.db.connect() as connection:
        for i in range(1, 300):
            connection.execute("INSERT INTO t VALUES (%s, chr(%s) || %s)", (i, i, '"\\\x7f'))
    rig.assert_whole()
    for request in rig.receiver.requests():
        if request.body:
            json.loads(request.body)


@pytest.fixture
def tls(rig):
    """A receiver behind TLS: tls(verify=..., leaf=...) starts it."""
    rig.add_receiver()
    certificates = Certificates(rig.folder)
    started = []

    def start(**kwargs):
        started.append(Nginx(rig.folder, rig.receiver.port, certificates, **kwargs))
        started[-1].certificates = certificates
        return started[-1]
    start.certificates = certificates
    yield start
    for server in started:
        server.stop()


def test_tls_with_an_own_ca_and_http2(rig, tls):
    server = tls()
    deliver(rig, {"url": server.url(), "ca_cert": str(tls.certificates.ca)}, n=200, batch_size=10,
            concurrency=4)
    lines = server.lines()
    assert lines and all(line.startswith("HTTP/2.0 200 POST /hook") for line in lines), lines[:3]


def test_tls_without_http2(rig, tls):
    server = tls(http2=False)
    deliver(rig, {"url": server.url(), "ca_cert": str(tls.certificates.ca)}, n=50)
    assert all(line.startswith("HTTP/1.1 200") for line in server.lines())


def test_a_client_certificate(rig, tls):
    server = tls(verify=True)
    certificate, key = tls.certificates.client
    requests = deliver(rig, {"url": server.url("127.0.0.1"), "ca_cert": str(tls.certificates.ca),
                             "client_certificate": str(certificate), "client_key": str(key)})
    assert "CN=walpost-client" in requests[0].headers["x-client-subject"]


def test_certificates_as_text_in_the_file(rig, tls):
    server = tls(verify=True)
    certificate, key = tls.certificates.client
    deliver(rig, {"url": server.url(), "ca_cert": tls.certificates.ca.read_text(),
                  "client_certificate": certificate.read_text(), "client_key": key.read_text()})


def refused(rig, hook, *words):
    """Nothing arrives, the reason is in the log, the records wait."""
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook=hook)
    rig.db.sql("INSERT INTO t VALUES (1, 'a')")
    wait_for("the reason is logged", lambda: any(
        all(w in e.get("msg", "") + e.get("error", "") + e.get("text", "") for w in words)
        for e in rig.walpost.events()), tail=rig.walpost.tail)
    assert rig.receiver.stats()["requests"] == 0
    assert rig.walpost.process.is_running


def test_a_server_of_an_unknown_ca_is_refused(rig, tls):
    server = tls()
    refused(rig, {"url": server.url(), "ca_cert": str(tls.certificates.stranger)}, "certificate")


def test_a_server_of_another_name_is_refused(rig, tls):
    server = tls(leaf=tls.certificates.other_name)
    refused(rig, {"url": server.url(), "ca_cert": str(tls.certificates.ca)}, "certificate")


def test_a_server_is_verified_by_default(rig, tls):
    server = tls()
    refused(rig, {"url": server.url()}, "certificate")


def test_a_server_that_is_not_verified_is_said_to_be_so(rig, tls):
    server = tls(leaf=tls.certificates.other_name)
    deliver(rig, {"url": server.url(), "tls_verify": False})
    assert any("tls_verify" in e["note"] and e["sync"] == "main"
               for e in rig.walpost.events("unsafe_setting"))
    warnings = json.loads(rig.walpost.get("/healthz")[1])["warnings"]
    assert any("tls_verify" in w["message"] and w["name"] == "main" for w in warnings)
    assert "caution: the certificate" in rig.walpost.get("/status.txt")[1]


def test_an_old_tls_is_refused(rig, tls):
    server = tls(protocols="TLSv1.1")
    refused(rig, {"url": server.url(), "tls_verify": False}, "protocol version")


def test_an_address_that_is_not_open_is_an_outage_that_says_so(rig):
    """The name is fine; what it resolves to is not."""
    receiver = rig.add_receiver()
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook={"url": receiver.url.replace("127.0.0.1", "localhost"),
                    "allowed_networks": ["public"]})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 50) g")
    wait_for("the reason is in the log", lambda: any(
        "allowed_networks" in e.get("msg", "") and "loopback" in e.get("msg", "")
        for e in rig.walpost.events("endpoint_trouble")), tail=rig.walpost.tail)
    assert "allowed_networks" in rig.walpost.get("/status.txt")[1]
    assert "allowed_networks" in rig.walpost.get("/readyz")[1]
    result = rig.walpost.command("check")
    assert "allowed_networks does not open" in result.stdout
    assert receiver.stats()["requests"] == 0
    rig.walpost.stop()
    rig.walpost.config["connections"]["hook"]["configuration"]["allowed_networks"] = [
        "127.0.0.0/8", "::1"]
    rig.walpost.write()
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()


def test_no_secret_is_shown(rig):
    """Under the debug log, with every kind of secret, while the endpoint works and while it fails."""
    receiver = rig.add_receiver()
    proxy = receiver.url.replace("http://", "http://user:hid-proxy@").replace("/hook", "")
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare(change={"log": {"level": "debug"}}, hook={
        "url": f"http://who:hid-user@127.0.0.1:{receiver.port}/hook?key=hid-url",
        "auth_method": "query", "query": [{"name": "token", "value": "hid-query"}],
        "headers": [{"name": "X-Secret", "value": "hid-header"}], "proxy": proxy})
    rig.walpost.start(databases=[rig.db])
    rig.db.sql("INSERT INTO t VALUES (1, 'x')")
    rig.assert_whole()
    sent = b"".join(r.head for r in receiver.requests())
    assert b"hid-query" in sent and b"hid-header" in sent and b"hid-url" in sent
    assert "hid-" not in everything_shown(rig)
    for rule in ({"status": 401}, {"status": 302, "location": "/?hid-query"}, {"action": "reset"}):
        receiver.control(rule)
        before = len(rig.walpost.events())
        rig.db.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'y' FROM t")
        wait_for("the failure is logged", lambda n=before: any(
            e["event"] in ("request_failed", "endpoint_trouble")
            for e in rig.walpost.events()[n:]), tail=rig.walpost.tail)
    assert "hid-" not in everything_shown(rig)
    assert "hid-" not in rig.walpost.command("check").stdout
    receiver.behave()
    rig.assert_whole()


def test_oauth_client_credentials(rig):
    """Short-lived tokens, an issuer that goes and comes back, and a token that is refused early."""
    receiver, issuer = rig.add_receiver(), rig.add_receiver("issuer")
    n = iter(range(1, 1000))

    def gives(expires_in):
        issuer.control({"path": "/hook", "body": json.dumps(
            {"access_token": f"hid-token-{next(n)}", "token_type": "Bearer",
             "expires_in": expires_in})})
    gives(1)
    rig.db.table("t")
    rig.db.publish("t")
    rig.prepare(change={"log": {"level": "debug"}}, hook={
        "url": receiver.url, "auth_method": "oauth_client_credentials",
        "oauth": {"token_endpoint": issuer.url, "client_id": "me", "client_secret": "hid-secret",
                  "scopes": ["write"], "extra_form_data": [{"name": "audience", "value": "hid-x"}]}})
    del rig.walpost.config["connections"]["issuer"]
    rig.walpost.write()
    rig.walpost.start(databases=[rig.db])

    def insert():
        rig.db.sql("INSERT INTO t SELECT coalesce(max(id), 0) + 1, 'x' FROM t")
    insert()
    rig.assert_whole()
    asked = issuer.requests()[0]
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"me:hid-secret").decode()
    assert asked.body == b"grant_type=client_credentials&scope=write&audience=hid-x"

    # Each token lives for a second: the next ones are had by themselves.
    def third():
        insert()
        return len(issuer.requests()) >= 3
    wait_for("a third token", third, 60, 0.2, tail=rig.walpost.tail)
    issuer.stop()

    def troubled():
        insert()
        return any("no token" in e.get("msg", "") for e in rig.walpost.events("endpoint_trouble"))
    wait_for("the reason is in the log", troubled, 60, 0.2, tail=rig.walpost.tail)
    issuer.start()
    gives(3600)
    rig.assert_whole()
    gives(3600)
    receiver.control({"status": 401, "count": 1})
    insert()
    rig.assert_whole()
    last = [r for r in receiver.requests() if r.body][-1]
    assert last.headers["authorization"] == f"Bearer hid-token-{next(n) - 1}"
    assert "hid-" not in everything_shown(rig)
    assert rig.walpost.command("check").returncode == 0
