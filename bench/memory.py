# SPDX-License-Identifier: Apache-2.0
"""Memory of the runtime when it is idle, and of a container's init."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import pages, processes
from bench.daemon import bare_manifest
from bench.table import Row, show
from northstar.client import Client

if TYPE_CHECKING:
    from bench.daemon import Bench
    from bench.pages import Usage

CONTAINERS = 10

_ALONE = "without any other Python"


def measure(bench: Bench) -> None:
    """Print the memory table."""
    names = [f"sleeper-{number}" for number in range(CONTAINERS)]
    bench.pack_all([bare_manifest(name, args=["sleep", "1000"]) for name in names])
    with bench.daemon() as daemon, Client.connect(bench.console) as client:
        idle = _idle(daemon.pid)
        containers = [f"{name}:0.0.1" for name in names]
        for container in containers:
            client.start(container)
        processes.settle()
        inits = processes.inits(client, containers)
        runtime = processes.runtime(daemon.pid, inits)
        used = pages.alone(runtime, beside=[os.getpid()])
        called = processes.name(inits[0])
        for container in containers:
            client.kill(container, 9)
    private = statistics.median(used[init].private for init in inits)
    proportional = statistics.median(used[init].proportional for init in inits)
    show(
        f"Memory ({CONTAINERS} packages)",
        [
            *idle,
            Row(
                "init of a container, private, median",
                kilobytes(private),
                f"target <= 64 KB; the first is called {called}",
            ),
            Row("init of a container, PSS, median", kilobytes(proportional), "target <= 100 KB"),
        ],
    )


def _idle(daemon: int) -> list[Row]:
    """Each process of the runtime, then all together."""
    processes.settle()
    runtime = processes.runtime(daemon, [])
    beside = pages.alone(runtime, beside=[os.getpid()])
    alone = pages.alone(runtime)
    together = sum(alone.values(), pages.NOTHING)
    return [
        *(
            Row(f"{name}, idle, PSS", megabytes(beside[pid].proportional), _note(alone[pid]))
            for pid, name in zip(runtime, _names(runtime), strict=True)
        ),
        Row(
            "all of them, idle, PSS",
            megabytes(sum(usage.proportional for usage in beside.values())),
            f"target <= 13.5 MB; {_note(together)}",
        ),
        Row("daemon, private", megabytes(alone[daemon].private), f"target <= 12.5 MB; {_ALONE}"),
        Row("python3 -I -S that waits, private", megabytes(_bare_python().private), _ALONE),
    ]


def _bare_python() -> Usage:
    """What an interpreter needs that does nothing."""
    command = [sys.executable, "-I", "-S", "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as python:
        assert python.stdin is not None
        assert python.stdout is not None
        python.stdout.readline()
        used = pages.alone([python.pid])
        python.stdin.write(b"\n")
    return used[python.pid]


def _names(runtime: list[int]) -> list[str]:
    """What the processes are called; the daemon comes first."""
    daemon, *helpers = map(processes.name, runtime)
    return [f"daemon ({daemon})", *(f"helper ({helper})" for helper in helpers)]


def _note(alone: Usage) -> str:
    proportional, private = megabytes(alone.proportional), megabytes(alone.private)
    return f"{_ALONE}: PSS {proportional}, private {private}"


def rollup(pid: int, field: str) -> int:
    """A field of a process's smaps_rollup in kibibytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(field)


def megabytes(size: float) -> str:
    """Bytes as text; 1 MB is 1024 KB of 1024 bytes, as the kernel's tables count."""
    return f"{size / 1048576:.2f} MB"


def kilobytes(size: float) -> str:
    """Bytes as text."""
    return f"{size / 1024:.0f} KB"
