# SPDX-License-Identifier: Apache-2.0
"""`nstar explain` says what a start does: compared with what strace sees."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from abilities import has_mksquashfs, needs
from isolated import wait_until
from leaks import children
from runtime import SharedRuntime, nstar, shell
from test_hardening import engine_of, tracing

from northstar.client import Refused


@pytest.fixture
def runtime(shared_runtime: SharedRuntime) -> SharedRuntime:
    """All tests here share a daemon."""
    return shared_runtime


def explained(lines: list[str]) -> tuple[list[str], list[str]]:
    """Names of the calls that init makes up to the clone, and of those that the application makes."""
    calls = [re.fullmatch(r" *\d+[> ] (?:[\w ]+ = )?(\w+)\(.*", line, re.DOTALL) for line in lines]
    names = [match[1] for match in calls if match]
    clone = names.index("clone3")
    (border,) = (index for index, line in enumerate(lines) if line.startswith("# --- the process"))
    application = [match[1] for match in calls[border:] if match]
    return names[: clone + 1], application


def each(names: list[str], count: int) -> list[str]:
    """As strace sees it: the call for each capability is that many."""
    index = names.index("prctl")
    return names[:index] + ["prctl"] * count + names[index + 1 :]


@needs(has_mksquashfs)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_start_does_what_was_explained(runtime: SharedRuntime, tmp_path: Path) -> None:
    usr = {"type": "bind", "host": "/usr", "options": "nosuid"}
    mounts = {"/proc": {"type": "proc"}, "/dev": {"type": "dev"}, "/usr": usr}
    runtime.pack(shell("a", "exit 0", mounts=mounts))
    trace = tmp_path / "trace"
    with runtime.started() as client:
        lines = client.explain("a:0.0.1")
        engine = engine_of(runtime)
        wait_until(lambda: len(children(engine)) == 1, "an init waits")
        command = ["strace", "-f", "-qq", "-o", str(trace), "-p", str(children(engine)[0])]
        with subprocess.Popen(command) as tracer:
            wait_until(lambda: tracing(children(engine)[0]), "strace is attached")
            runtime.run(client, "a:0.0.1")
            tracer.send_signal(signal.SIGINT)
    init, application = explained(lines)
    seen: dict[str, list[str]] = {}
    for line in trace.read_text().splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match:
            seen.setdefault(match[1], []).append(match[2])
    first, second = seen.values()
    begin = first.index("mprotect") + 2  # the program is mapped, and its memory descriptor closed
    capabilities = Path("/proc/sys/kernel/cap_last_cap").read_text()
    assert first[begin : begin + first[begin:].index("clone3") + 1] == each(init, int(capabilities) + 1)
    until = second.index("execve") + 1
    assert second[:until] == application[: application.index("execve") + 1]


def test_nstar(runtime: SharedRuntime) -> None:
    """With a command of one's own, and before anything is mounted or started."""
    runtime.pack(shell("a"))
    with runtime.started() as client:
        shown = nstar(runtime, "explain", "a", "X=y", "/bin/other", "argument")
        assert shown.returncode == 0
        assert (
            'execve("/bin/other", ["/bin/other", "argument"], ["X=y", "NORTHSTAR_CONTAINER=a:0.0.1"'
            in shown.stdout
        )
        data = client.inspect("a:0.0.1")
        assert (data.process, data.mounted) == (None, False)


def test_what_cannot_be_started_is_not_explained(runtime: SharedRuntime) -> None:
    runtime.pack({"name": "r", "version": "0.0.1", "uid": 1, "gid": 1})
    runtime.pack(
        shell(
            "a",
            mounts={"/r": {"type": "resource", "name": "none", "version": "*", "dir": "/", "options": ""}},
        )
    )
    with runtime.started() as client:
        for container in ("r:0.0.1", "a:0.0.1", "nothing:0.0.1"):
            with pytest.raises(Refused):
                client.explain(container)


def test_running_container_is_explained(runtime: SharedRuntime) -> None:
    runtime.pack(shell("a"))
    with runtime.started() as client:
        client.start("a:0.0.1")
        assert client.explain("a:0.0.1")
