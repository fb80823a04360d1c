# SPDX-License-Identifier: Apache-2.0
"""The processes of a runtime, whatever they are called: all below its daemon but what runs in containers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from northstar.client import Client

# From the kernel's include/linux/posix-timers_types.h: the clock of a whole process that counts nanoseconds.
_CPUCLOCK_SCHED = 2

_SETTLE = 0.5


def runtime(daemon: int, inits: list[int]) -> list[int]:
    """The daemon, its helpers and the inits of containers, but no process that an init has started."""
    inside = {process.pid for init in inits for process in psutil.Process(init).children(recursive=True)}
    children = (child.pid for child in psutil.Process(daemon).children(recursive=True))
    return [daemon, *(pid for pid in children if pid not in inside)]


def settle() -> None:
    """Give a runtime time to do what it puts off, such as getting the next init ready."""
    time.sleep(_SETTLE)


def inits(client: Client, names: list[str]) -> list[int]:
    """The inits of containers, all of which run."""
    found = []
    for name in names:
        process = client.inspect(name).process
        if process is None:
            raise SystemExit(f"bench: {name} does not run")
        found.append(process.pid)
    return found


def name(pid: int) -> str:
    """What the kernel calls a process."""
    called: str = psutil.Process(pid).name()
    return called


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used, all its threads together."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
