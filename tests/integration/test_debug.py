# SPDX-License-Identifier: Apache-2.0
"""Programs that the configuration starts with containers."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from isolated import wait_until
from runtime import Runtime, shell, wait_for

from northstar.client import Refused

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


def debugged(runtime: Runtime, text: str) -> None:
    """Add a section `debug`."""
    runtime.configure(repositories=f"\n[debug]\n{text}\n")


def test_command_and_its_output(runtime: Runtime) -> None:
    debugged(runtime, """commands = ["echo container <CONTAINER> init <PID>", "ls /nonexistent"]""")
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        line = runtime.wait_for_log(f"container a:0.0.1 init {process.pid}")
        assert "a:0.0.1 ⬤  INFO" in line or "Spawning" in line
        runtime.wait_for_log("ls: ")
        runtime.wait_for_log("command ls /nonexistent exited with exit status: ")


@pytest.mark.parametrize(
    ("command", "reason"),
    [("/nonexistent/tool -p <PID>", "failed to spawn debug command"), (" ", "invalid debug command")],
    ids=["missing", "empty"],
)
def test_command_that_cannot_be_started(runtime: Runtime, command: str, reason: str) -> None:
    """S-62: the start fails, and nothing of it is left."""
    debugged(runtime, f"commands = [{command!r}]")
    runtime.pack(shell("a"))
    with runtime.started() as client:
        for _ in range(2):
            with pytest.raises(Refused, match=reason):
                client.start("a:0.0.1")
            assert client.inspect("a:0.0.1").process is None


def test_command_outlives_the_container_but_not_the_daemon(runtime: Runtime) -> None:
    """S-62."""
    debugged(runtime, 'commands = ["sleep 1234"]\ntracer_timeout = "0s"')
    runtime.pack(shell("a", "exit 0"))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[0].success
        assert sleepers() == 1
    assert sleepers() == 0


def sleepers() -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes() == b"sleep\x001234\x00"
        except OSError:
            continue
    return found


def test_flood_of_a_command(runtime: Runtime) -> None:
    """S-62: it neither stops the daemon nor grows its memory."""
    debugged(runtime, 'commands = ["yes"]\ntracer_timeout = "0s"')
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        for _ in range(5):
            assert client.list() == ["a:0.0.1"]


@needs_strace
def test_strace_as_a_command_sees_the_program_from_its_beginning(runtime: Runtime) -> None:
    trace = runtime.base / "trace"
    debugged(runtime, f'commands = ["{STRACE} -f -p <PID> -o {trace}"]')
    runtime.pack(shell("a", "echo hello"))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[0].success
        wait_until(lambda: "hello" in trace.read_text(), "strace has written")
    text = trace.read_text()
    assert 'execve("/bin/sh"' in text
    assert "pivot_root(" in text


@needs_strace
@pytest.mark.parametrize("include_runtime", [False, True])
def test_strace_into_a_file(runtime: Runtime, include_runtime: bool) -> None:
    include = str(include_runtime).lower()
    settings = f'[debug.strace]\noutput = "file"\nflags = "-f -s 256"\ninclude_runtime = {include}'
    runtime.configure_old(repositories=settings)
    runtime.pack(shell("a", "echo hello"))
    with runtime.started() as client:
        for _ in range(2):
            client.start("a:0.0.1")
            wait_for(client, "exit", "a:0.0.1")
    traces = sorted((runtime.base / "logs").iterdir())
    assert len(traces) == 2
    for trace in traces:
        assert trace.name.startswith("strace-")
        assert trace.name.endswith("-a.strace")
        text = trace.read_text()
        assert '"hello\\n"' in text
        assert ("pivot_root(" in text) == include_runtime


@needs_strace
def test_strace_into_the_log(runtime: Runtime) -> None:
    runtime.configure_old(repositories='[debug.strace]\noutput = "log"\nflags = "-f"')
    runtime.pack(shell("a", "echo hello; sleep 1000"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        runtime.wait_for_log("DEBUG: a: ")
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")


@needs_strace
@pytest.mark.parametrize("flags", ["-f -qqq", "-f -o /dev/null"])
def test_strace_that_says_nothing(runtime: Runtime, flags: str) -> None:
    """The start does not wait for its words."""
    runtime.configure_old(repositories=f'[debug.strace]\noutput = "log"\nflags = "{flags}"')
    runtime.pack(shell("a", "exit 7"))
    with runtime.started() as client:
        assert runtime.run(client, "a:0.0.1")[0].code == 7


def test_strace_that_is_missing(runtime: Runtime) -> None:
    runtime.configure_old(repositories='[debug.strace]\noutput = "log"\npath = "/nonexistent/strace"')
    runtime.pack(shell("a"))
    with runtime.started() as client:
        with pytest.raises(Refused, match="Failed to spawn strace"):
            client.start("a:0.0.1")
        assert client.inspect("a:0.0.1").process is None


def test_perf(runtime: Runtime, tmp_path: Path) -> None:
    """A stand-in records how it is called and ended; the real one needs a kernel that lets it."""
    perf = tmp_path / "perf"
    calls = runtime.base / "calls"
    perf.write_text(
        f"""#!/bin/sh
echo "$@" > {calls}
trap 'echo interrupted >> {calls}; exit 0' INT
while :; do sleep 0.05; done
"""
    )
    perf.chmod(0o755)
    runtime.configure_old(repositories=f'[debug.perf]\npath = "{perf}"\nflags = "-F 99"')
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        process = client.inspect("a:0.0.1").process
        assert process is not None
        wait_until(calls.exists, "perf was started")
        wait_until(lambda: calls.read_text() != "", "perf has written")
        client.kill("a:0.0.1", signal.SIGKILL)
        wait_for(client, "exit", "a:0.0.1")
    output = f"{runtime.base}/logs/perf-{process.pid}-a.perf"
    assert calls.read_text().splitlines() == [f"record -p {process.pid} -o {output} -F 99", "interrupted"]
