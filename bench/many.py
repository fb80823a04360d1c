# SPDX-License-Identifier: Apache-2.0
"""Many packages and running containers against few packages and none, in turns.

The containers have an empty image and busybox from the host, so that packing them takes no time.
"""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bench import pages, processes
from bench.daemon import bare_manifest, bench
from bench.memory import kilobytes, megabytes
from bench.start import wait_for_exit
from bench.table import Row, milliseconds, ratio, show
from bench.turns import in_turns
from bench.wire import LIST, ask, connect
from northstar.client import Client

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from bench.daemon import Bench
    from bench.table import Samples

PACKAGES = 500
RUNNING = 200
FEW = 10
RUNS = 100
WARM_UP = 5
STEPS = ("list", "start -> executing", "kill -> answered", "kill -> exit notification")


class _Subject(NamedTuple):
    """A daemon under test: connections to it, and a container that does not run."""

    client: Client
    wire: socket.socket
    container: str


def measure(large: Bench) -> None:
    """Print the table."""
    with ExitStack() as stack:
        small = stack.enter_context(bench())
        small_names, large_names = _pack(small, FEW), _pack(large, PACKAGES)
        stack.enter_context(small.daemon())
        daemon = stack.enter_context(large.daemon()).pid
        memory = _fill(large, daemon, large_names[:RUNNING])
        subjects = [
            _Subject(
                stack.enter_context(Client.connect(one.console, notifications=True)),
                stack.enter_context(connect(one)),
                container,
            )
            for one, container in ((small, small_names[0]), (large, large_names[RUNNING]))
        ]
        spent = in_turns([partial(_once, subject) for subject in subjects], RUNS, WARM_UP)
    show(
        f"{PACKAGES} packages, {RUNNING} containers running (many) against {FEW} packages, none (few)",
        [
            *(
                row
                for place, step in enumerate(STEPS)
                for row in _compare(step, *(milliseconds(times[place] for times in one) for one in spent))
            ),
            *memory,
        ],
    )


def _pack(setting: Bench, count: int) -> list[str]:
    """Packages of containers that sleep; the names of the containers."""
    programs = setting.base / "bin"
    programs.mkdir()
    shutil.move(setting.root / "bin/busybox", programs)
    names = [f"many-{number}" for number in range(count)]
    descriptions = [bare_manifest(name, args=["sleep", "1000"]) for name in names]
    for description in descriptions:
        mounts = description["mounts"]
        assert isinstance(mounts, dict)
        mounts["/bin"] = {"type": "bind", "host": str(programs)}
    setting.pack_all(descriptions)
    return [f"{name}:0.0.1" for name in names]


def _fill(large: Bench, daemon: int, names: Sequence[str]) -> list[Row]:
    """Start the containers; the rows about memory."""
    processes.settle()
    before = pages.alone(processes.runtime(daemon, []))
    began = time.perf_counter()
    with Client.connect(large.console) as client:
        for name in names:
            client.start(name)
        spent = time.perf_counter() - began
        processes.settle()
        runtime = processes.runtime(daemon, processes.inits(client, list(names)))
    after = pages.alone(runtime)
    total = [sum(usage.proportional for usage in used.values()) for used in (before, after)]
    own = after[daemon].private - before[daemon].private
    return [
        Row(
            "memory per running container, PSS",
            kilobytes((total[1] - total[0]) / len(names)),
            f"target <= 150 KB; the daemon's private memory grows by {kilobytes(own / len(names))}",
        ),
        Row("all processes of the runtime, PSS", megabytes(total[1]), f"idle {megabytes(total[0])}"),
        Row("mount and start, one after the other, each", f"{spent / len(names) * 1e3:8.2f} ms"),
    ]


def _once(subject: _Subject) -> tuple[float, float, float, float]:
    """Seconds of each step."""
    client, wire, container = subject
    began = time.perf_counter()
    ask(wire, LIST)
    listed = time.perf_counter()
    client.start(container)
    started = time.perf_counter()
    client.kill(container, 9)
    killed = time.perf_counter()
    wait_for_exit(client)
    return listed - began, started - listed, killed - started, time.perf_counter() - started


def _compare(step: str, few: Samples, many: Samples) -> list[Row]:
    return [
        few.row(f"{step}, few"),
        many.row(f"{step}, many"),
        ratio(f"{step}, ratio many / few", many, few, "<= 1.30"),
    ]
