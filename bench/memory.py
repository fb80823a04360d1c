# SPDX-License-Identifier: Apache-2.0
"""Memory of the daemon, of the forker, and of a container's init."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.daemon import bare_manifest
from bench.table import Row, show
from northstar.client import Client

if TYPE_CHECKING:
    from bench.daemon import Bench

CONTAINERS = 10


def measure(bench: Bench) -> None:
    """Print the memory table."""
    for number in range(CONTAINERS):
        bench.pack(bare_manifest(f"sleeper-{number}", args=["sleep", "1000"]))
    with bench.daemon() as process, Client.connect(bench.console) as client:
        helpers = _children(process.pid)
        spares = [child for helper in helpers for child in _children(helper)]
        idle = kilobytes(process.pid, "Pss")
        forker = sum(kilobytes(pid, "Pss") for pid in helpers)
        spare = sum(kilobytes(pid, "Pss") for pid in spares)
        names = [f"sleeper-{number}:0.0.1" for number in range(CONTAINERS)]
        for name in names:
            client.start(name)
        inits = [data.process.pid for data in map(client.inspect, names) if data.process is not None]
        private = [_private(pid) for pid in inits]
        proportional = [kilobytes(pid, "Pss") for pid in inits]
        for name in names:
            client.kill(name, 9)
    show(
        "Memory (smaps_rollup)",
        [
            Row("daemon, idle, PSS", _megabytes(idle)),
            Row("forker, idle, PSS", _megabytes(forker)),
            Row("init kept ready, PSS", _megabytes(spare)),
            Row("daemon + forker, idle, PSS", _megabytes(idle + forker), "target <= 18 MB"),
            Row("all three", _megabytes(idle + forker + spare)),
            Row(
                "init of a container, private, median",
                _megabytes(statistics.median(private)),
                "target <= 0.50 MB",
            ),
            Row("init of a container, PSS, median", _megabytes(statistics.median(proportional))),
        ],
    )


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def kilobytes(pid: int, field: str) -> int:
    """A field of a process's smaps_rollup."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(field)


def _private(pid: int) -> int:
    return kilobytes(pid, "Private_Dirty") + kilobytes(pid, "Private_Clean")


def _megabytes(kilobytes: float) -> str:
    return f"{kilobytes / 1024:.2f} MB"
