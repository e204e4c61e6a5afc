"""Judges signatures with the reference libraries of Standard Webhooks, never with our own code."""

import base64
import json
import os
import pathlib
import shutil
import subprocess

import fetch_standardwebhooks
import standardwebhooks


def new_secret(walpost, *options):
    """What `walpost webhook-secret` prints: [secret], or [private key, public key]."""
    done = subprocess.run([walpost, "webhook-secret", *options], capture_output=True, text=True,
                          timeout=60, check=True)
    return done.stdout.split()


def by_python(secret, headers, body):
    """None when the library of PyPI takes it, else why not."""
    try:
        standardwebhooks.Webhook(secret).verify(body, headers, json_parse=False)
    except standardwebhooks.WebhookVerificationError as error:
        return str(error)
    return None


def by_node(cases):
    """The same for (secret or public key, headers, body) each, by the library of npm; a list."""
    node = shutil.which("node")
    assert node, "node is not there: apt-get install nodejs"
    lines = [json.dumps({"secret": secret, "headers": headers,
                         "body": base64.b64encode(body).decode()}) for secret, headers, body in cases]
    done = subprocess.run(
        [node, pathlib.Path(__file__).parent / "verify.mjs"], input="\n".join(lines) + "\n",
        capture_output=True, text=True, timeout=120,
        env=dict(os.environ, NODE_PATH=str(fetch_standardwebhooks.folder())))
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(cases), done.stdout + done.stderr
    return [None if answer == "ok" else answer for answer in answers]
