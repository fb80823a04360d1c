# SPDX-License-Identifier: Apache-2.0
"""What nstar shows of a running runtime: formats, events, top with keys and window, check of the storage."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from runtime import TIMEOUT, Runtime, SharedRuntime, environment, nstar, resource, shell

pytestmark = pytest.mark.anywhere

NSTAR = [sys.executable, "-m", "northstar.nstar.main"]


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    return shared_runtime


# --- list and inspect


def test_formats_of_list(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "sleep 1000", autostart="relaxed"))
    runtime.pack(resource("data"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        assert nstar(runtime, "list").stdout == nstar(runtime, "list", "-f", "table").stdout
        wide = [line.split("|") for line in nstar(runtime, "list", "--format", "wide").stdout.splitlines()]
        rows = [[cell.strip() for cell in line] for line in wide]
        assert rows[0][7:] == ["State", "Autostart", "Processes", "CPU time", "Memory", "Command"]
        assert rows[2][:3] + rows[2][7:10] == ["a", "0.0.1", "default", "ready", "relaxed", "1"]
        assert rows[2][12] == "/bin/sh -c 'sleep 1000'"
        app, data = json.loads(nstar(runtime, "list", "-f", "json").stdout)
    assert (app["name"], app["type"], app["mounted"], app["autostart"]) == ("a", "app", True, "relaxed")
    assert app["uptime"] > 0 and app["memory"] > 0 and app["processes"] == 1
    assert app["command"] == ["/bin/sh", "-c", "sleep 1000"]
    assert (data["name"], data["type"], data["pid"], data["memory"]) == ("data", "resource", None, None)


def test_formats_of_inspect(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", env={"KEY": "va\x1blue"}, capabilities=["CAP_NET_BIND_SERVICE"]))
    with runtime.started() as client:
        stopped = nstar(runtime, "inspect", "-f", "table", "a").stdout
        client.start("a:0.0.1")
        assert json.loads(nstar(runtime, "inspect", "a").stdout)["manifest"]["name"] == "a"
        summary = nstar(runtime, "inspect", "-f", "table", "a").stdout
        wide = nstar(runtime, "inspect", "-f", "wide", "a").stdout
        raw = nstar(runtime, "-j", "inspect", "-f", "table", "a").stdout
    assert re.search(r"State +not running\n", stopped)
    for text in ("a:0.0.1", "default, mounted", "uid 1000, gid 1000", "CAP_NET_BIND_SERVICE", "/dev: dev"):
        assert text in summary
    assert re.search(r"running for \d+s, pid \d+", summary)
    assert "KEY" not in summary
    assert "KEY: va\\x1blue" in wide  # what a manifest says must not drive the terminal
    assert re.search(r" \d+ +\| \d+ +\| sleep +\| S ", wide)
    assert raw.startswith('{"response":{"inspect":')


# --- events


def test_events_have_times(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "exit 3"))
    with runtime.started() as client:
        command = [*NSTAR, "-u", runtime.url, "--trace", "events", "-n", "3"]
        following = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        assert following.stderr is not None
        while not following.stderr.readline().startswith('< {"connect_ack"'):
            pass
        client.start("a:0.0.1")
        shown, _ = following.communicate(timeout=TIMEOUT)
    started, ready, ended = shown.splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{stamp} a:0\.0\.1 +started", started)
    assert re.fullmatch(rf"{stamp} a:0\.0\.1 +is ready", ready)
    assert re.fullmatch(rf"{stamp} a:0\.0\.1 +ended: exit code 3", ended)


# --- top


class Terminal:
    """`nstar top` on a terminal."""

    def __init__(self, runtime: Runtime, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(100, 24, theirs)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            [*NSTAR, "-u", runtime.url, "top", "-d", "30s", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.shown = ""

    def resize(self, columns: int, lines: int, descriptor: int | None = None) -> None:
        size = struct.pack("4H", lines, columns, 0, 0)
        fcntl.ioctl(self._ours if descriptor is None else descriptor, termios.TIOCSWINSZ, size)

    def press(self, key: str) -> None:
        self.shown = ""
        os.write(self._ours, key.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until a whole table matches; the table."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            for frame in reversed(self.shown.split("\x1b[H\x1b[J")):
                if re.search(pattern, frame, re.DOTALL):
                    return frame
            left = deadline - time.monotonic()
            assert select.select([self._ours], (), (), max(0, left))[0], f"{pattern}:\n{self.shown}"
            self.shown += os.read(self._ours, 65536).decode()

    def state(self) -> list[object]:
        return list(termios.tcgetattr(self._theirs))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def top(runtime: Runtime, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(runtime, *arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def test_keys_sort_and_end_it(runtime: SharedRuntime) -> None:
    for name in ("a", "b"):
        runtime.pack(shell(name))
    with runtime.started() as client:
        for name in ("a", "b"):
            client.start(f"{name}:0.0.1")
        with top(runtime, "--sort", "name") as running:
            running.wait_for(r"2 of 2 .*by name; .* \S*a .*\n.* \S*b ")
            running.press("r")
            running.wait_for(r"by name, reversed; .* \S*b .*\n.* \S*a ")
            running.press("m")
            running.wait_for("by memory; ")
            running.press("q")
            assert running.process.wait(TIMEOUT) == 0
            assert running.state() == running.before


def test_top_follows_the_size_of_the_window(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        with top(runtime) as terminal:
            terminal.wait_for("Uptime.*\n.*\n.*a")
            terminal.shown = ""
            terminal.resize(45, 24)
            narrow = terminal.wait_for("PID.*\n.*\n.*a")
            plain = re.sub("\x1b\\[[0-9;]*m", "", narrow)
            assert max(len(line) for line in plain.splitlines()) <= 45
            assert "Uptime" not in plain
            terminal.shown = ""
            terminal.resize(100, 4)
            short = terminal.wait_for("1 of 1 .*Name.*Uptime.*\n")
            assert len(short.splitlines()) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_terminal_is_as_before_when_top_is_ended(number: signal.Signals, runtime: SharedRuntime) -> None:
    with runtime.started(), top(runtime) as terminal:
        terminal.wait_for("0 of 0")
        assert terminal.state() != terminal.before
        terminal.process.send_signal(number)
        assert terminal.process.wait(TIMEOUT) == -number
        assert terminal.state() == terminal.before


# --- check


def test_check_tells_of_storage_memory_and_clock(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started():
        lines = nstar(runtime, "check").stdout.splitlines()
    for pattern in (
        r"(ok|warning) +memory: .+B of .+B available",
        r"info +time since boot: .+",
        r"(ok|warning) +clock: .+Z",
        rf"(ok|warning) +space for data: .+ free in {runtime.base}/data",
        rf"(ok|warning) +space for repository default: .+ free in {runtime.base}/default",
        r"ok +squashfs: gzip, used by 1 packages",
    ):
        assert [line for line in lines if re.fullmatch(pattern, line)], (pattern, lines)
