# SPDX-License-Identifier: Apache-2.0
"""Commands of nstar that go beyond one request. The others are in test_console.py."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys

import pytest
from runtime import TIMEOUT, Runtime, SharedRuntime, environment, nstar, resource, shell, wait_for
from terminal import on_terminal

pytestmark = pytest.mark.anywhere

SPIN = "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo spun; sleep 1000"
HAS_PSUTIL = importlib.util.find_spec("psutil") is not None
"""Not on devices, where `top` then has no line about the machine."""
NSTAR = [sys.executable, "-m", "northstar.nstar.main"]
IGNORE = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """One daemon serves all tests of this module."""
    return shared_runtime


def nstar_with(
    runtime: Runtime, *arguments: str, stdout: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run nstar with another standard output or environment."""
    return subprocess.run(
        [*NSTAR, "-u", runtime.url, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=TIMEOUT,
        env=environment() | variables,
    )


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
        size = {"COLUMNS": "80", "LINES": "24"}
        frames = on_terminal(runtime, "top", "-n", "2", "-d", "10ms", variables=size).split("\x1b[H\x1b[J")
        assert len(frames) > 2
        for frame in frames[1:]:
            *machine, count = frame.splitlines()[: 1 + HAS_PSUTIL]
            assert [line.startswith("cpu ") and " | load " in line for line in machine] == [True] * HAS_PSUTIL
            assert count.startswith("1 of 1 containers are running; by cpu; keys: ")
        assert "\x1b[1ma" in frames[-1]
        plain = on_terminal(runtime, "top", "-n", "1", variables={**size, "NO_COLOR": "1"})
        assert "\x1b[1m" not in plain


def test_top_as_json(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        (line,) = nstar(runtime, "-j", "top").stdout.splitlines()
        data = json.loads(line)["response"]["inspect"]["ok"]["data"]
        assert data["process"]["statistics"]["processes"]


# --- output that nobody can read


def test_output_into_a_closed_pipe(runtime: SharedRuntime) -> None:
    """Quietly, with the exit code that shells give to a program that SIGPIPE has ended."""
    for arguments in (["list"], ["-j", "list"], ["top"], ["completion", "-s", "bash"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = nstar_with(runtime, *arguments, stdout=writer)
        os.close(writer)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b""), arguments


def test_output_onto_a_full_disk(runtime: SharedRuntime) -> None:
    with open("/dev/full", "wb") as full:
        done = nstar_with(runtime, "list", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")


def test_closed_streams(runtime: SharedRuntime) -> None:
    command = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *NSTAR, "-u", runtime.url, "list"],
        check=False,
        timeout=TIMEOUT,
        env=environment(),
    )
    assert done.returncode == 0


def test_characters_that_the_terminal_does_not_know(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a", "echo \u00e4"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        wait_for(client, "exit")
        ascii_only = {"PYTHONIOENCODING": "ascii"}
        assert nstar_with(runtime, "logs", "a", **ascii_only).stdout == b"\\xe4\n"
        # JSON is what the runtime sent, whatever the terminal is.
        line = nstar_with(runtime, "-j", "logs", "a", **ascii_only).stdout
        assert json.loads(line)["response"]["logs"]["ok"]["data"]["lines"][0]["line"] == "\u00e4"


# --- ends


class Running:
    """nstar, when it has come so far that `trace` was sent or received."""

    def __init__(self, runtime: Runtime, trace: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*NSTAR, "-u", runtime.url, "--trace", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith(trace.encode()):
                return
        pytest.fail(f"nstar {arguments} has ended without {trace}")

    def end(self) -> tuple[int, list[str]]:
        """Wait for it; its exit code and what it says."""
        _, errors = self.process.communicate(timeout=TIMEOUT)
        said = [line for line in errors.decode().splitlines() if line[:2] not in ("> ", "< ")]
        return self.process.returncode, said


LASTING = {
    "top": ('< {"response":{"inspect"', "top", "-n", "10000", "-d", "50ms"),
    "logs": ('< {"response":{"logs"', "logs", "-f", "a"),
    "notifications": ('< {"connect_ack"', "notifications"),
    "exec": ('< {"response":{"exec"', "exec", "a", "sleep", "1000"),
}
CLOSED = (1, ["Error: connection closed by the runtime"])


def test_interrupted(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        for name, (trace, *arguments) in LASTING.items():
            running = Running(runtime, trace, *arguments)
            running.process.send_signal(signal.SIGINT)
            assert running.end() == (-signal.SIGINT, []), name


def test_the_runtime_ends(own_runtime: Runtime) -> None:
    """Who only listens has heard all; whoever wants an answer is told that there is none."""
    own_runtime.pack(shell("a"))
    own_runtime.start()
    with own_runtime.connect() as client:
        client.start("a:0.0.1")
    running = {name: Running(own_runtime, *arguments) for name, arguments in LASTING.items()}
    assert own_runtime.stop() == 0
    ends = {name: command.end() for name, command in running.items()}
    assert ends == {"top": CLOSED, "logs": (0, []), "notifications": (0, []), "exec": CLOSED}


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
