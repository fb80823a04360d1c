# SPDX-License-Identifier: Apache-2.0
"""What the runtime counts, for monitoring. Loaded only if the configuration asks for it."""

from __future__ import annotations

import re

from northstar.kernel import procfs
from northstar.runtime.containers.events import Observer
from northstar.runtime.monitoring import openmetrics
from northstar.runtime.monitoring.openmetrics import Family, Histogram
from northstar.supervision.state import QUARANTINED, READY, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.containers.records import Containers
    from northstar.runtime.containers.run import Run
    from northstar.runtime.spawning.process import ExitStatus

    Samples = Iterable[tuple[tuple[str, ...], float]]

CONTAINER = ("container", "version")

CONTAINERS = Family("northstar_containers", "gauge", "", ("state",), "Containers by state.")
STARTS = Family(
    "northstar_container_starts", "counter", "", (*CONTAINER, "outcome"), "Starts of the container."
)
EXITS = Family("northstar_container_exits", "counter", "", (*CONTAINER, "outcome"), "Ends of the container.")
RESTARTS = Family(
    "northstar_container_restarts", "counter", "", CONTAINER, "Restarts by the container's own policy."
)
START_TIME = Family(
    "northstar_start_duration_seconds",
    "histogram",
    "seconds",
    (),
    "Time from the request to the executing program, of starts that succeeded.",
)
CPU = Family(
    "northstar_container_cpu_seconds",
    "counter",
    "seconds",
    CONTAINER,
    "CPU time of the container, all its runs.",
)
MEMORY = Family(
    "northstar_container_memory_bytes", "gauge", "bytes", CONTAINER, "Memory that the running container uses."
)
OOM_KILLS = Family(
    "northstar_container_oom_kills",
    "counter",
    "",
    CONTAINER,
    "Processes killed because the control group of the container was out of memory.",
)
DAMAGES = Family(
    "northstar_container_damaged_reads",
    "counter",
    "",
    CONTAINER,
    "Reads of the container's image that met a block which is not what it was signed as.",
)
CONNECTIONS = Family("northstar_console_connections", "gauge", "", ("peer",), "Connections to the console.")
REQUESTS = Family(
    "northstar_console_requests", "counter", "", ("kind",), "Requests on the console, refused ones included."
)
DEGRADED = Family(
    "northstar_degraded", "gauge", "", ("place",), "Storage and containers that cannot be used: 1 for each."
)
UPDATES = Family("northstar_updates", "counter", "", ("result",), "Updates that have ended.")
FAMILIES = (
    CONTAINERS,
    STARTS,
    EXITS,
    RESTARTS,
    START_TIME,
    CPU,
    MEMORY,
    OOM_KILLS,
    DAMAGES,
    CONNECTIONS,
    REQUESTS,
    DEGRADED,
    UPDATES,
)

PHASES = ("staged", "trying", "rolling_back")
"""Of updates that have not ended."""
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds."""

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class _Counts:
    """Counters of one container. Those of the kernel begin anew with each run; `_ended` has former runs."""

    __slots__ = (
        *("cpu", "cpu_ended", "damages", "exits", "oom_kills", "oom_kills_ended"),
        *("restarts", "starts"),
    )

    def __init__(self) -> None:
        self.starts = {"success": 0, "failure": 0}
        self.exits = {"success": 0, "failure": 0, "signal": 0}
        self.restarts = 0
        self.cpu = self.cpu_ended = 0.0
        self.oom_kills = self.oom_kills_ended = 0
        self.damages = 0

    def end_run(self) -> None:
        self.cpu_ended += self.cpu
        self.oom_kills_ended += self.oom_kills
        self.cpu, self.oom_kills = 0.0, 0


class Metrics(Observer):
    """Counts events, and looks at the rest when the text is wanted."""

    def __init__(
        self,
        containers: Containers,
        count_connections: Callable[[], Mapping[str, int]],
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        """`count_connections`: of the console, by kind of peer. `problems`: what cannot be used."""
        self._containers = containers
        self._count_connections = count_connections
        self._problems = problems
        self._counts: dict[Container, _Counts] = {}
        self._requests: dict[str, int] = {}
        self._start_times = Histogram(BUCKETS)
        self._updates: dict[str, int] = {}

    # --- events

    def started(self, container: Container, seconds: float) -> None:
        """A start succeeded and took so long."""
        self._of(container).starts["success"] += 1
        self._start_times.observe(seconds)

    def start_failed(self, container: Container) -> None:
        """A start failed or was refused; containers that are not installed do not count."""
        if container in self._containers:
            self._of(container).starts["failure"] += 1

    def ended(self, run: Run, status: ExitStatus) -> None:
        """A container ended; its control group is still there."""
        counts = self._of(run.record.container)
        outcome = "signal" if status.signal is not None else "success" if status.success else "failure"
        counts.exits[outcome] += 1
        _usage(run, counts)
        counts.end_run()

    def damaged(self, container: Container) -> None:
        """A read of its image has failed."""
        self._of(container).damages += 1

    def supervised(self, kind: str, container: Container, details: dict[str, object]) -> None:
        """Restarts are counted."""
        if kind == "restarting":
            self._of(container).restarts += 1

    def uninstalled(self, container: Container) -> None:
        """Forget a container."""
        self._counts.pop(container, None)

    def updated(self, details: dict[str, Any]) -> None:
        """An update has come to its next phase; its last one is the result."""
        phase = details["phase"]
        if phase not in PHASES:
            self._updates[phase] = self._updates.get(phase, 0) + 1

    def requested(self, request: object) -> None:
        """A request has arrived."""
        kind = _WORD.sub("_", type(request).__name__).lower()
        self._requests[kind] = self._requests.get(kind, 0) + 1

    def _of(self, container: Container) -> _Counts:
        return self._counts.setdefault(container, _Counts())

    # --- text

    def text(self) -> str:
        """Everything, as it is now."""
        memory = {run.record.container: self._memory(run) for run in self._running()}
        samples: dict[Family, Samples] = {
            CONTAINERS: self._states(),
            STARTS: self._by_outcome(STARTS),
            EXITS: self._by_outcome(EXITS),
            RESTARTS: ((_labels(c), counts.restarts) for c, counts in self._counts.items()),
            CPU: ((_labels(c), counts.cpu_ended + counts.cpu) for c, counts in self._counts.items()),
            MEMORY: ((_labels(container), value) for container, value in memory.items()),
            OOM_KILLS: (
                (_labels(c), counts.oom_kills_ended + counts.oom_kills) for c, counts in self._counts.items()
            ),
            DAMAGES: ((_labels(c), counts.damages) for c, counts in self._counts.items()),
            CONNECTIONS: (((peer,), number) for peer, number in self._count_connections().items()),
            REQUESTS: (((kind,), number) for kind, number in self._requests.items()),
            DEGRADED: (((place,), 1) for place in self._problems()),
            UPDATES: (((result,), number) for result, number in self._updates.items()),
        }
        texts = (
            self._start_times.render(family)
            if family is START_TIME
            else openmetrics.render(family, samples[family])
            for family in FAMILIES
        )
        return "".join(texts) + openmetrics.END

    def _running(self) -> list[Run]:
        return [run for run in self._containers.runs() if run.process.started]

    def _memory(self, run: Run) -> int:
        """What a run uses now. Its counters are brought up to date by the way."""
        return _usage(run, self._of(run.record.container))

    def _states(self) -> Iterator[tuple[tuple[str, ...], float]]:
        records = list(self._containers)
        yield ("installed",), len(records)
        yield ("mounted",), sum(record.mounted for record in records)
        yield ("running",), len(self._running())
        for phase in (READY, WAITING, QUARANTINED):
            yield (phase,), sum(record.state.phase == phase for record in records)

    def _by_outcome(self, family: Family) -> Iterator[tuple[tuple[str, ...], float]]:
        for container, counts in self._counts.items():
            values = counts.starts if family is STARTS else counts.exits
            for outcome, number in values.items():
                yield (*_labels(container), outcome), number


def _labels(container: Container) -> tuple[str, str]:
    return container.name, str(container.version)


def _usage(run: Run, counts: _Counts) -> int:
    """Update the counters of a run; the memory it uses, in bytes.

    What its control group does not tell is taken from the processes that there are: their CPU time ends with
    them, so the largest sum seen counts.
    """
    cpu, memory = _cpu_seconds(run), _memory_bytes(run)
    if cpu is None or memory is None:
        processes = procfs.descendants(run.process.pid) if run.process.pidfd >= 0 else []
        if cpu is None:
            cpu = max(counts.cpu, sum(process.cpu_time for process in processes) / 1e9)
        if memory is None:
            memory = sum(process.resident for process in processes)
    counts.cpu = cpu
    counts.oom_kills = (
        _keyed(run, "memory.events", "oom_kill") or _keyed(run, "memory.oom_control", "oom_kill") or 0
    )
    return memory


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
