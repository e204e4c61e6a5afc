"""Standard Webhooks: who a request is from, when it was made, and which request it is."""

import base64
import datetime
import hashlib
import re
import subprocess

import pytest
from machine import build_dir, wait_for
from signatures import by_node, by_python, new_secret

pytestmark = pytest.mark.sanitized


@pytest.fixture
def secret():
    """secret() makes one; secret("--ed25519") a private and a public key."""
    def make(*options):
        made = new_secret(build_dir() / "walpost", *options)
        return made if options else made[0]
    return make


def start(rig, secrets, **delivery):
    rig.db.table("t")
    rig.db.publish("t")
    return rig.start(hook={"signing_secrets": secrets}, **delivery)


def posts(rig):
    return [r for r in rig.receiver.requests() if r.body]


def test_signatures_are_those_of_the_reference_libraries(rig, secret):
    """Every live secret signs; what was changed on the way, or another secret, is found out."""
    one, two, stranger = secret(), secret(), secret()
    private, public = secret("--ed25519")
    other_public = secret("--ed25519")[1]
    start(rig, [one, private, two], batch_size=3, concurrency=2)
    rig.db.sql("INSERT INTO t SELECT g, repeat('ä\"€', g) FROM generate_series(1, 20) g")
    rig.assert_whole()
    requests = posts(rig)
    assert len(requests) >= 7
    good, bad = [], []
    for request in requests:
        headers, body = request.headers, request.body
        good += [(one, headers, body), (two, headers, body), (public, headers, body)]
        later = dict(headers, **{"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)})
        another = dict(headers, **{"webhook-id": headers["webhook-id"][:-1] + "x"})
        for key in (one, public):
            bad += [(key, headers, body.replace(b"records", b"recordz", 1)), (key, later, body),
                    (key, another, body)]
        bad += [(stranger, headers, body), (other_public, headers, body)]
        assert [s.split(",")[0] for s in headers["webhook-signature"].split(" ")] == [
            "v1", "v1a", "v1"]
    for case in good:
        if case[0] != public:
            assert by_python(*case) is None
    for case in bad:
        if not case[0].startswith("whpk_"):
            assert by_python(*case) == "No matching signature found"
    assert by_node(good) == [None] * len(good)
    assert set(by_node(bad)) == {"No matching signature found"}


def test_secrets_change_without_a_gap(rig, secret):
    """The receiver knows the old one, then both, then the new one, and can always verify."""
    old, new = secret(), secret()
    start(rig, [old])
    config = rig.walpost.config
    hook = config["connections"][rig.receiver.name]["configuration"]
    for i, secrets in enumerate(([old], [new, old], [new])):
        if i:
            hook["signing_secrets"] = secrets
            rig.walpost.stop()
            rig.walpost.write(config)
            rig.walpost.start(databases=[rig.db])
        before = len(posts(rig))
        rig.db.sql("INSERT INTO t VALUES (%s, 'x')", i)
        rig.wait_arrived(i + 1)
        for request in posts(rig)[before:]:
            for key in (old, new):
                answer = by_python(key, request.headers, request.body)
                assert answer == (None if key in secrets else "No matching signature found")
    rig.assert_whole()


def test_the_id_is_the_same_if_and_only_if_the_records_are(rig):
    """Over repeats, a restart and other batches; anybody can compute it."""
    rig.add_receiver()
    rig.receiver.control({"status": 503, "every": 2})
    start(rig, [], batch_size=4, concurrency=3)
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 40) g")
    rig.assert_whole()
    rig.receiver.control({"status": 503})
    rig.db.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(41, 60) g")
    seen = len(posts(rig))
    wait_for("it is refused", lambda: len(posts(rig)) > seen + 3, tail=rig.walpost.tail)
    rig.walpost.kill()
    rig.receiver.behave()
    rig.walpost.start(databases=[rig.db])
    rig.assert_whole()
    by_id, by_records = {}, {}
    requests = posts(rig)
    for request in requests:
        ids = tuple(re.findall(rb'\{"id":"([0-9a-f]{8}-[0-9a-f]{16}-[0-9a-f-]+)"', request.body))
        by_id.setdefault(request.headers["webhook-id"], set()).add(ids)
        by_records.setdefault(ids, set()).add(request.headers["webhook-id"])
        digest = hashlib.sha256(b"".join(i + b"\n" for i in ids)).hexdigest()
        assert request.headers["webhook-id"] == "msg_" + digest[:32]
        assert "webhook-signature" not in request.headers
    assert all(len(ids) == 1 for ids in by_id.values())
    assert all(len(ids) == 1 for ids in by_records.values())
    assert len(requests) > len(by_id) > 10


def test_the_time_is_that_of_the_attempt(rig):
    """In seconds for Standard Webhooks and as Polytomic writes it; a repeat has its own."""
    rig.add_receiver()
    rig.receiver.control({"status": 503, "count": 3})
    start(rig, [])
    rig.db.sql("INSERT INTO t VALUES (1, 'x')")
    rig.assert_whole()
    requests = posts(rig)
    assert len(requests) >= 4
    for request in requests:
        seconds = int(request.headers["webhook-timestamp"])
        # A request may be long on its way, but it does not arrive before it is made.
        assert request.wall_us / 1e6 - 60 < seconds <= request.wall_us / 1e6
        at = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
        assert request.headers["polytomic-signature-timestamp"] == at.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert request.headers["accept-encoding"] == "gzip"


def test_a_secret_is_new_each_time_and_of_the_standards_form():
    program = build_dir() / "walpost"
    made = [new_secret(program) for _ in range(3)] + [new_secret(program, "--ed25519")
                                                      for _ in range(3)]
    assert len({secret[0] for secret in made}) == 6
    for secret in made[:3]:
        assert len(secret) == 1 and secret[0].startswith("whsec_")
        assert len(base64.b64decode(secret[0][6:], validate=True)) == 32
    for private, public in made[3:]:
        assert private.startswith("whsk_") and public.startswith("whpk_")
        assert len(base64.b64decode(private[5:], validate=True)) == 32
        assert len(base64.b64decode(public[5:], validate=True)) == 32
    done = subprocess.run([program, "webhook-secret"], stdout=open("/dev/full", "w"),
                          stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "could not be written" in done.stderr


def test_secrets_from_files_sign_and_are_never_shown(rig, secret):
    key = secret()
    path = rig.folder / "secret"
    path.write_text(key + "\n")
    rig.db.table("t")
    rig.db.publish("t")
    rig.start(hook={"signing_secrets_file": str(path)})
    rig.db.sql("INSERT INTO t VALUES (1, 'x')")
    rig.assert_whole()
    assert by_python(key, posts(rig)[0].headers, posts(rig)[0].body) is None
    rig.walpost.stop()
    path.write_text(key[:20] + "\n")
    done = rig.walpost.command("check", "--config-only")
    assert done.returncode == 2 and "signing_secrets[0]" in done.stderr
    for text in (done.stderr, done.stdout, rig.walpost.log_text()):
        assert key[6:20] not in text
