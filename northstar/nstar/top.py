# SPDX-License-Identifier: Apache-2.0
"""The command `top`: what running containers use."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from northstar.nstar import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from northstar.client import ProcessData
    from northstar.nstar.session import Session

HEADER = ("Name", "Version", "PID", "Processes", "CPU %", "Memory", "Uptime")
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


class Sample(NamedTuple):
    """A running container at a time.

    `cpu` and `uptime` are in seconds since its start, `memory` is in bytes, `share` 1 is one busy processor.
    """

    container: str
    pid: int
    processes: int
    cpu: float
    memory: int
    uptime: float
    share: float


_KEYS: dict[str, Callable[[Sample], Any]] = {
    "cpu": lambda sample: -sample.share,
    "memory": lambda sample: -sample.memory,
    "name": lambda sample: sample.container,
    "processes": lambda sample: -sample.processes,
    "uptime": lambda sample: -sample.uptime,
}
SORT_KEYS = tuple(_KEYS)


def top(session: Session, options: argparse.Namespace) -> None:
    """Show what running containers use, again and again.

    CPU is the share since the previous table, at first since the start of the container; 100 % is one
    processor. If standard output is no terminal there is one table, unless --iterations says otherwise.
    Ctrl-C ends it.
    """
    terminal = sys.stdout.isatty() and not session.json
    number = options.iterations or (0 if terminal else 1)
    previous: dict[str, Sample] = {}
    for iteration in itertools.count(1):
        installed, samples = _samples(session, previous)
        if not session.json:
            _show(session, installed, sorted(samples, key=_KEYS[options.sort]), terminal)
        if iteration == number:
            return
        previous = {sample.container: sample for sample in samples}
        time.sleep(options.delay)


def _samples(session: Session, previous: dict[str, Sample]) -> tuple[int, list[Sample]]:
    """The number of installed containers, and the running ones."""
    names = session.client.list()
    samples = []
    for data in session.inspected(names):
        if session.json:
            session.say("")
        if data.process is not None:
            samples.append(sample(data.container, data.process, previous.get(data.container)))
    return len(names), samples


def sample(container: str, process: ProcessData, previous: Sample | None) -> Sample:
    """What a container uses, from its statistics; `previous` is what it used before, if known."""
    processes = process.statistics.get("processes", [])
    cpu = _cpu(process.statistics, processes)
    if previous is not None and previous.pid == process.pid and process.uptime > previous.uptime:
        share = (cpu - previous.cpu) / (process.uptime - previous.uptime)
    else:
        share = cpu / process.uptime if process.uptime else 0.0
    return Sample(
        container,
        process.pid,
        len(processes),
        cpu,
        _memory(process.statistics, processes),
        process.uptime,
        max(0.0, share),
    )


def _cpu(statistics: dict[str, Any], processes: list[dict[str, Any]]) -> float:
    """Seconds: of the control group, which knows about ended processes, else of the living ones."""
    for line in statistics.get("cpu", {}).get("stat", "").splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1e6
    return float(sum(process["cpu_time"] for process in processes)) / 1e9


def _memory(statistics: dict[str, Any], processes: list[dict[str, Any]]) -> int:
    usage = statistics.get("memory", {}).get("memory", {}).get("usage_in_bytes")
    return sum(process["resident"] for process in processes) if usage is None else int(usage)


def _show(session: Session, installed: int, samples: list[Sample], terminal: bool) -> None:
    lines = [f"{len(samples)} of {installed} containers are running"]
    lines += table.render(HEADER, [_row(sample) for sample in samples], session.bold).splitlines()
    if terminal:
        lines = lines[: max(1, shutil.get_terminal_size().lines - 1)]
        print(_HOME_AND_CLEAR, end="")
    print("\n".join(lines), flush=True)


def _row(sample: Sample) -> tuple[str, ...]:
    name, _, version = sample.container.partition(":")
    return (
        name,
        version,
        str(sample.pid),
        str(sample.processes),
        f"{sample.share * 100:.1f}",
        table.size(sample.memory),
        table.uptime(sample.uptime),
    )
