"""The code on the page about receiving, docs/receiving.md: taken from there, and run."""

import base64
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess

from machine import ROOT

PAGE = ROOT / "docs" / "receiving.md"

# Reads what cases() writes, prints true or false for each.
NODE_MAIN = """
import { isGenuine } from "./verify.mjs";
import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) {
	const { keys, headers, body } = JSON.parse(line);
	console.log(isGenuine(keys, headers, Buffer.from(body, "base64")));
}
"""
GO_MAIN = """
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	lines := json.NewDecoder(os.Stdin)
	for lines.More() {
		var c struct {
			Keys    []string
			Headers map[string]string
			Body    []byte
		}
		if err := lines.Decode(&c); err != nil {
			panic(err)
		}
		fmt.Println(isGenuine(c.Keys, func(name string) string { return c.Headers[name] }, c.Body))
	}
}
"""


def unpack(folder):
    """Writes every piece of code that names its file into the folder; the names."""
    pieces = re.findall(r"^```\w+\n(?:#|//) (\w+\.\w+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    for name, text in pieces:
        (folder / name).write_text(text)
    return [name for name, _ in pieces]


def load(path):
    spec = importlib.util.spec_from_file_location(f"receiving_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _judge(command, cases, folder, environment):
    lines = [json.dumps({"keys": keys, "headers": headers, "body": base64.b64encode(body).decode()})
             for keys, headers, body in cases]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True,
                          timeout=500, cwd=folder, env=dict(os.environ, **environment))
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split()
    assert len(answers) == len(cases) and set(answers) <= {"true", "false"}, done.stdout
    return [answer == "true" for answer in answers]


def by_python(cases, folder):
    """For (keys, headers, body) each: is it genuine?"""
    is_genuine = load(folder / "verify.py").is_genuine
    return [is_genuine(*case) for case in cases]


def by_node(cases, folder):
    node = shutil.which("node")
    assert node, "node is not there: apt-get install nodejs"
    (folder / "main.mjs").write_text(NODE_MAIN)
    return _judge([node, "main.mjs"], cases, folder, {})


def by_go(cases, folder):
    # Debian's own first: it brings its library compiled.
    go = "/usr/bin/go" if pathlib.Path("/usr/bin/go").exists() else shutil.which("go")
    assert go, "go is not there: apt-get install golang-go"
    (folder / "main.go").write_text(GO_MAIN)
    return _judge([go, "run", "main.go", "verify.go"], cases, folder, {
        "GO111MODULE": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0",
        "GOPATH": str(folder / "gopath"), "GOCACHE": str(folder / "gocache")})
