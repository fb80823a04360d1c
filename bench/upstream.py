# SPDX-License-Identifier: Apache-2.0
"""Next to Northstar of ESRLabs (github.com/esrlabs/northstar), where somebody has built it.

NORTHSTAR_UPSTREAM names the directory of its programs. Both daemons get the same configuration and the same
packages; where times are compared, both run and take turns.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import pages, processes
from bench.daemon import bare_manifest, bench
from bench.memory import kilobytes, megabytes
from bench.pages import NOTHING, Usage
from bench.start import executing, exited, start
from bench.table import Row, Samples, milliseconds, ratio, show
from bench.turns import in_turns
from northstar.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.daemon import Bench

VARIABLE = "NORTHSTAR_UPSTREAM"
CONTAINERS = 30
RUNS = 60
SPAWNS = 9
LOOK = 0.001
WARM_UP = 5
MANY = 1_000_000
"""Requests per second. A limit of 0 makes upstream 0.9.2 wait for a second before each request."""


class _Memory(NamedTuple):
    """Bytes: idle and loaded are sums over all processes of a runtime; init is that of one container."""

    idle: Usage
    loaded: Usage
    init: Usage
    processes: int

    @property
    def per_container(self) -> float:
        """What a running container adds to the proportional set sizes."""
        return (self.loaded.proportional - self.idle.proportional) / CONTAINERS


class _Unusable(Exception):
    """There is no upstream to be compared with; the text says why."""


def measure(ours: Bench) -> None:
    """Print the table, or say that it is skipped."""
    try:
        program, version = _peer()
    except _Unusable as error:
        print(f"\nbench: upstream is SKIPPED, nothing is compared with it: {error}", file=sys.stderr)
        return
    names = [f"sleeper-{number}" for number in range(CONTAINERS)]
    ours.pack_all([bare_manifest(name, args=["sleep", "1000"]) for name in names])
    ours.pack(bare_manifest("bare"))
    with bench([str(program)], request_limit=MANY, ours="") as theirs:
        for package in ours.repository.iterdir():
            shutil.copy(package, theirs.repository)
        pair = (ours, theirs)
        rows = [*_spawns(*pair), *_starts(*pair), *_memories(*pair, [f"{name}:0.0.1" for name in names])]
    show(f"Next to upstream {version} ({CONTAINERS + 1} packages)", rows)


def _peer() -> tuple[Path, str]:
    """Upstream's daemon and its version. Raises _Unusable."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        raise _Unusable(f"{VARIABLE} names no directory")
    program = Path(directory) / "northstar"
    try:
        shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise _Unusable(f"{program}: {error.strerror}") from None
    found = re.search(r"^northstar (\d\S*)", shown.stdout, re.MULTILINE)
    if shown.returncode or not found:
        raise _Unusable(f"{program} --version does not tell its version: {shown.stderr.strip()}")
    return program, found[1]


def _spawns(ours: Bench, theirs: Bench) -> list[Row]:
    """How long the daemons take to answer."""
    mine, other = in_turns([partial(_spawn, one) for one in (ours, theirs)], SPAWNS, warm_up=1)
    return _compare("spawn -> list answered", milliseconds(mine), milliseconds(other))


def _spawn(one: Bench) -> float:
    began = time.perf_counter()
    with one.daemon(pause=LOOK):
        return time.perf_counter() - began


def _starts(ours: Bench, theirs: Bench) -> list[Row]:
    """Starts of a mounted container in turns."""
    with ExitStack() as stack:
        subjects = []
        for one in (ours, theirs):
            stack.enter_context(one.daemon())
            client = stack.enter_context(Client.connect(one.console, notifications=True))
            subjects.append(partial(start, client, "bare:0.0.1"))
        mine, other = in_turns(subjects, RUNS, WARM_UP)
    return [
        *_compare("start request sent -> executing", executing(mine), executing(other), "<= 0.50"),
        *_compare("start request sent -> exit notification", exited(mine), exited(other)),
    ]


def _compare(what: str, ours: Samples, theirs: Samples, target: str = "") -> list[Row]:
    return [
        ours.row(f"{what}, northstar"),
        theirs.row(f"{what}, upstream"),
        ratio(f"{what}, ratio", ours, theirs, target),
    ]


def _memories(ours: Bench, theirs: Bench, containers: list[str]) -> list[Row]:
    """Memory, each as if the runtime were the only program of its kind."""
    mine, other = (_memory(one, containers) for one in (ours, theirs))
    loaded = mine.loaded.proportional / other.loaded.proportional
    return [
        *_sizes("idle, all processes of the runtime", mine.idle, other.idle),
        *_sizes("init of a container, median", mine.init, other.init, kilobytes),
        Row("per container, runtime's part, northstar", kilobytes(mine.per_container)),
        Row("per container, runtime's part, upstream", kilobytes(other.per_container)),
        Row(
            "per container, runtime's part, ratio",
            f"{mine.per_container / other.per_container:.2f}",
            "target <= 0.20",
        ),
        Row(
            f"{CONTAINERS} sleeping containers, all processes of the runtime, northstar, PSS",
            megabytes(mine.loaded.proportional),
            f"{mine.processes} processes",
        ),
        Row(
            f"{CONTAINERS} sleeping containers, all processes of the runtime, upstream, PSS",
            megabytes(other.loaded.proportional),
            f"{other.processes} processes",
        ),
        Row(f"{CONTAINERS} sleeping containers, ratio", f"{loaded:.2f}", "target <= 1.00"),
    ]


def _memory(one: Bench, containers: list[str]) -> _Memory:
    with one.daemon() as daemon, Client.connect(one.console) as client:
        processes.settle()
        idle = pages.alone(processes.runtime(daemon.pid, []))
        for container in containers:
            client.start(container)
        processes.settle()
        inits = processes.inits(client, containers)
        loaded = pages.alone(processes.runtime(daemon.pid, inits))
        for container in containers:
            client.kill(container, 9)
    init = Usage(
        statistics.median(loaded[init].private for init in inits),
        statistics.median(loaded[init].proportional for init in inits),
    )
    return _Memory(_together(idle), _together(loaded), init, len(loaded))


def _together(used: dict[int, Usage]) -> Usage:
    return sum(used.values(), NOTHING)


def _sizes(what: str, ours: Usage, theirs: Usage, text: Callable[[float], str] = megabytes) -> list[Row]:
    return [
        *(
            Row(f"{what}, {name}, PSS", text(used.proportional), f"private {text(used.private)}")
            for name, used in (("northstar", ours), ("upstream", theirs))
        ),
        Row(
            f"{what}, ratio",
            f"{ours.proportional / theirs.proportional:.2f}",
            f"of private {ours.private / theirs.private:.2f}",
        ),
    ]
