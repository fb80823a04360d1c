# SPDX-License-Identifier: Apache-2.0
"""The command `top`: what running containers use."""

from __future__ import annotations

import itertools
import sys
import time

from northstar.namedtuple import NamedTuple
from northstar.nstar import table
from northstar.nstar.context import is_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from northstar.client import ProcessData
    from northstar.nstar.context import Session

HEADER = ("Name", "Version", "PID", "Processes", "CPU %", "Memory", "Uptime")
_HELP = "keys: c m n p u sort, r reverses, q ends"


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
    processor. On a terminal the machine is in the head line, if the runtime is on this one and psutil is
    installed, and keys sort: c CPU, m memory, n name, p processes, u uptime; r reverses, q ends. If standard
    output is no terminal there is one table, unless --iterations says otherwise.
    """
    if sys.stdout.isatty() and not session.json:
        _on_terminal(session, options)
        return
    previous: dict[str, Sample] = {}
    for iteration in range(1, (options.iterations or 1) + 1):
        if iteration > 1:
            time.sleep(options.delay)
        installed, samples = _samples(session, previous)
        if not session.json:
            lines = _table(session, samples, Order(options.sort), columns=None)
            print("\n".join([_count(installed, samples), *lines]), flush=True)
        previous = {sample.container: sample for sample in samples}


class Order:
    """How containers are sorted; keys of the keyboard change it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.reversed = False

    def press(self, letter: str) -> None:
        """Take a key: the initial of a column, or r."""
        if letter == "r":
            self.reversed = not self.reversed
        for name in SORT_KEYS:
            if letter and name.startswith(letter):
                self.key, self.reversed = name, False

    def sorted(self, samples: Iterable[Sample]) -> list[Sample]:
        """The samples in this order."""
        return sorted(samples, key=_KEYS[self.key], reverse=self.reversed)

    def __str__(self) -> str:
        return f"{self.key}, reversed" if self.reversed else self.key


def _on_terminal(session: Session, options: argparse.Namespace) -> None:
    from northstar.nstar import machine, screen

    order, previous = Order(options.sort), dict[str, Sample]()
    library = machine.library() if is_local(options.url) else None
    here = None if library is None else machine.Machine(library)
    shown = screen.Screen()
    with shown.attached():
        for iteration in itertools.count(1):
            installed, samples = _samples(session, previous)
            head = [] if here is None else [here.line()]
            deadline = time.monotonic() + options.delay
            key: str | None = screen.CHANGED
            while key is not None:
                if key == "q":
                    return
                order.press(key)
                columns, _ = shown.size()
                count = _count(installed, samples)
                if shown.has_keys:
                    count += f"; by {order}; {_HELP}"
                lines = [line[:columns] for line in (*head, count)]
                shown.show([*lines, *_table(session, samples, order, columns)])
                if iteration == options.iterations:
                    return
                key = shown.wait(deadline)
            previous = {sample.container: sample for sample in samples}


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


def _count(installed: int, samples: list[Sample]) -> str:
    return f"{len(samples)} of {installed} containers are running"


def _table(session: Session, samples: list[Sample], order: Order, columns: int | None) -> list[str]:
    header: Sequence[str] = HEADER
    rows = [_row(sample) for sample in order.sorted(samples)]
    if columns is not None:
        header, rows = table.fitted(header, rows, columns)
    return table.render(header, rows, session.bold).splitlines()


def _row(sample: Sample) -> Sequence[str]:
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
