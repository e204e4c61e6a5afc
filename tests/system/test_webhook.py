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
    assert waits[10] < 0.1


def test_linger_fills_batches(rig):
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(linger="500ms", concurrency=1)
    for i in range(20):
        rig.db.sql("INSERT INTO t VALUES (%s, 'x')", i)
    rig.assert_whole()
    assert len([r for r in rig.receiver.requests() if r.body]) <= 4


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
        for e in rig.walpost.events()), 15, tail=rig.walpost.tail)
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
