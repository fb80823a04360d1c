# SPDX-License-Identifier: Apache-2.0
"""Processes as /proc shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from northstar.kernel import procfs


def test_process_is_described_as_psutil_does() -> None:
    """An independent reader of the same files."""
    sum(number * number for number in range(500_000))
    found, expected = procfs.Process(os.getpid()), psutil.Process()
    assert (found.pid, found.parent, found.state) == (os.getpid(), os.getppid(), "R")
    assert found.name == expected.name()
    assert found.threads == expected.num_threads()
    times = expected.cpu_times()
    assert found.cpu_time / 1e9 == pytest.approx(times.user + times.system, abs=0.5)
    assert found.cpu_time > 0
    assert found.resident == pytest.approx(expected.memory_info().rss, rel=0.1)


@pytest.mark.parametrize("name", ["a) b (c", ") R 1 1", "x" * 15, " "])
def test_names_are_chosen_by_programs(name: str) -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    try:
        comm.write_text(name)
        found = procfs.Process(os.getpid())
        assert (found.name, found.parent) == (name, os.getppid())
    finally:
        comm.write_bytes(before)


def test_no_such_process() -> None:
    with pytest.raises(FileNotFoundError):
        procfs.Process(2**22 + 1)
    assert procfs.descendants(2**22 + 1) == []


@pytest.mark.parametrize("lists", [True, False], ids=["lists", "no lists"])
def test_descendants(lists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not lists:
        monkeypatch.setattr(os.path, "exists", lambda path: False)
    elif not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        pytest.skip("the kernel has no CONFIG_PROC_CHILDREN")
    program = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo $$; exec cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        found = [process.pid for process in procfs.descendants(os.getpid())]
        assert child.stdin is not None
        child.stdin.close()
    assert found.index(child.pid) < found.index(grandchild)
    assert os.getpid() not in found


def test_child_by_its_number() -> None:
    """Outside of any namespace the number is the pid."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
    try:
        assert pid in procfs.children(os.getpid())
        assert procfs.child_by_number(os.getpid(), _own(pid)) == pid
        assert procfs.child_by_number(os.getpid(), 1) is None
        assert procfs.child_by_number(pid, 2) is None
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _own(pid: int) -> int:
    """The last number of a process, in the innermost of its namespaces."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("NSpid:"))
    return int(line.split()[-1])
