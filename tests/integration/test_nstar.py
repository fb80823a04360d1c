# SPDX-License-Identifier: Apache-2.0
"""Commands of nstar that go beyond one request. The others are in test_console.py."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from runtime import TIMEOUT, Runtime, SharedRuntime, environment, nstar, resource, shell

SPIN = "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo spun; sleep 1000"
IGNORE = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """One daemon serves all tests of this module."""
    return shared_runtime


def on_terminal(runtime: Runtime, *arguments: str, **variables: str) -> str:
    """What nstar writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "northstar.nstar.main", "-u", runtime.url, *arguments]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(), "COLUMNS": "80"} | variables,
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 4096):
            output += chunk
    except OSError:
        pass  # nobody has the other side any more
    finally:
        os.close(ours)
    assert process.wait(TIMEOUT) == 0, output
    return output.decode()


# --- stop


def test_stop(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        done = nstar(runtime, "stop", "a")
        assert done.stdout == "stopped a:0.0.1: signalled 15\n", done.stderr
        assert client.inspect("a:0.0.1").process is None


def test_stop_of_a_container_that_ignores_it(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", IGNORE))
    with runtime.started() as client:
        client.start("a:0.0.1")
        runtime.wait_for_log("ready")
        done = nstar(runtime, "stop", "-t", "100ms", "a")
        assert done.stdout == "stopped a:0.0.1: signalled 9\n", done.stderr


def test_stop_of_a_container_that_does_not_run(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started():
        done = nstar(runtime, "stop", "a")
    assert done.returncode == 3
    assert done.stderr == "Error: failed to stop container a:0.0.1: not started\n"


# --- top


def test_top_without_a_terminal(runtime: SharedRuntime) -> None:
    runtime.pack(shell("idle"))
    runtime.pack(shell("busy", SPIN))
    runtime.pack(shell("stopped"))
    runtime.pack(resource("data"))
    with runtime.started() as client:
        client.start("idle:0.0.1")
        client.start("busy:0.0.1")
        runtime.wait_for_log("spun")
        lines = nstar(runtime, "top", "--sort", "name").stdout.splitlines()
        process = client.inspect("busy:0.0.1").process
        assert process is not None
        count = len(process.statistics["processes"])
        assert lines[0] == "2 of 4 containers are running"
        rows = [[cell.strip() for cell in line.split("|")] for line in lines[1:]]
        assert rows[0] == ["Name", "Version", "PID", "Processes", "CPU %", "Memory", "Uptime"]
        assert [row[0] for row in rows[2:]] == ["busy", "idle"]
        assert rows[2][1:4] == ["0.0.1", str(process.pid), str(count)]
        assert float(rows[2][4]) > float(rows[3][4])
        assert rows[2][5].endswith("B")
        by_processor = nstar(runtime, "top").stdout.splitlines()
        assert by_processor[3].startswith(" busy ")


def test_top_on_a_terminal(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        frames = on_terminal(runtime, "top", "-n", "2", "-d", "10ms").split("\x1b[H\x1b[J")
        assert [frame.splitlines()[0] for frame in frames[1:]] == ["1 of 1 containers are running"] * 2
        assert "\x1b[1ma" in frames[2]
        plain = on_terminal(runtime, "top", "-n", "1", NO_COLOR="1")
        assert "\x1b[1m" not in plain


def test_top_as_json(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        (line,) = nstar(runtime, "-j", "top").stdout.splitlines()
        data = json.loads(line)["response"]["inspect"]["ok"]["data"]
        assert data["process"]["statistics"]["processes"]


# --- check


def test_check_of_the_runtime(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    runtime.pack(shell("b", "exit 0", autostart="relaxed"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        done = nstar(runtime, "check")
        lines = done.stdout.splitlines()
        assert f"ok        runtime: {runtime.url} answers, protocol 0.9.2" in lines
        assert "ok        repositories: default, mem" in lines
        assert "ok        containers: 2 installed, 1 running" in lines
        assert "info      container b:0.0.1: autostart relaxed, not running now" in lines
        problems = [line for line in lines if line.startswith(("MISSING", "FAILED"))]
        assert done.returncode == bool(problems)
        findings = json.loads(nstar(runtime, "-j", "check").stdout)
        assert {"state": "ok", "text": "repositories: default, mem"} in findings
        assert "ok  " not in nstar(runtime, "check", "-q").stdout


def test_check_without_a_runtime(runtime: SharedRuntime) -> None:
    runtime_url, runtime.url = runtime.url, "unix:///nonexistent/console"
    try:
        done = nstar(runtime, "check", "-q")
    finally:
        runtime.url = runtime_url
    assert done.returncode == 1
    assert "FAILED    runtime: unix:///nonexistent/console: No such file or directory" in done.stdout


# --- completion


def test_names_for_shells(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started():
        url = ["nstar", "-u", runtime.url, "start", ""]
        command = [sys.executable, "-m", "northstar.nstar.main", "--complete"]

        def complete(kind: str) -> str:
            return subprocess.run(
                [*command, kind, *url], capture_output=True, text=True, check=True, env=environment()
            ).stdout

        assert complete("containers") == "a\n"
        assert complete("repositories") == "default\nmem\n"
