# SPDX-License-Identifier: Apache-2.0
"""What runs use, as the kernel tells it: by their control groups, and for the rest by their processes."""

from __future__ import annotations

from northstar.kernel import procfs
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from northstar.runtime.containers.run import Run


class Usage(NamedTuple):
    """CPU time in seconds, memory in bytes, and how many processes were killed for lack of memory.

    Without a controller of its own, the CPU time of processes that have ended is not in it.
    """

    cpu: float
    memory: int
    oom_kills: int


def of_all(runs: Iterable[Run]) -> list[Usage]:
    """What each of them uses. There may be hundreds: for a thread."""
    return [of(run) for run in runs]


def of(run: Run) -> Usage:
    """What a run uses now."""
    cpu, memory = _cpu_seconds(run), _memory_bytes(run)
    if cpu is None or memory is None:
        processes = procfs.descendants(run.process.pid) if run.process.pidfd >= 0 else []
        if cpu is None:
            cpu = sum(process.cpu_time for process in processes) / 1e9
        if memory is None:
            memory = sum(process.resident for process in processes)
    kills = _keyed(run, "memory.events", "oom_kill") or _keyed(run, "memory.oom_control", "oom_kill")
    return Usage(cpu, memory, kills or 0)


def _cpu_seconds(run: Run) -> float | None:
    microseconds = _keyed(run, "cpu.stat", "usage_usec")
    if microseconds is not None:
        return microseconds / 1e6
    nanoseconds = run.read_group("cpuacct.usage")
    return None if nanoseconds is None else int(nanoseconds) / 1e9


def _memory_bytes(run: Run) -> int | None:
    text = run.read_group("memory.current") or run.read_group("memory.usage_in_bytes")
    return None if text is None else int(text)


def _keyed(run: Run, file: str, key: str) -> int | None:
    """A number of a file with lines `key number`."""
    for line in (run.read_group(file) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return None
