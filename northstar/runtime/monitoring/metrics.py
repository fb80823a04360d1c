# SPDX-License-Identifier: Apache-2.0
"""What the runtime counts, for monitoring. Loaded only if the configuration asks for it."""

from __future__ import annotations

import re

from northstar.runtime.containers.events import Observer
from northstar.runtime.monitoring import openmetrics, usage
from northstar.runtime.monitoring.openmetrics import Family, Histogram
from northstar.supervision.state import QUARANTINED, READY, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.containers.records import Containers
    from northstar.runtime.containers.run import Run
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.monitoring.usage import Usage
    from northstar.runtime.spawning.process import ExitStatus

    Sample = tuple[tuple[str, ...], float]

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

    def update(self, used: Usage) -> None:
        """What its run has used by now. Of processes that have ended nothing is known any more."""
        self.cpu = max(self.cpu, used.cpu)
        self.oom_kills = used.oom_kills

    def end_run(self) -> None:
        self.cpu_ended += self.cpu
        self.oom_kills_ended += self.oom_kills
        self.cpu, self.oom_kills = 0.0, 0


class Metrics(Observer):
    """Counts events, and looks at the rest when the text is wanted."""

    def __init__(
        self,
        loop: Loop,
        containers: Containers,
        count_connections: Callable[[], Mapping[str, int]],
        problems: Callable[[], Mapping[str, str]],
    ) -> None:
        """`count_connections`: of the console, by kind of peer. `problems`: what cannot be used."""
        self._loop = loop
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
        counts.update(usage.of(run))
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

    async def text(self) -> str:
        """Everything, as it is now. Threads ask the kernel and put the text together."""
        memory = await self._memory()
        samples = {family: list(found) for family, found in self._samples(memory).items()}
        return await self._loop.in_thread(_text, samples, self._start_times.render(START_TIME))

    def _samples(self, memory: Mapping[Container, int]) -> dict[Family, Iterable[Sample]]:
        """All but the histogram."""
        counted = [(_labels(container), counts) for container, counts in self._counts.items()]
        return {
            CONTAINERS: self._states(),
            STARTS: self._by_outcome(STARTS),
            EXITS: self._by_outcome(EXITS),
            RESTARTS: ((labels, counts.restarts) for labels, counts in counted),
            CPU: ((labels, counts.cpu_ended + counts.cpu) for labels, counts in counted),
            MEMORY: ((_labels(container), value) for container, value in memory.items()),
            OOM_KILLS: ((labels, counts.oom_kills_ended + counts.oom_kills) for labels, counts in counted),
            DAMAGES: ((labels, counts.damages) for labels, counts in counted),
            CONNECTIONS: (((peer,), number) for peer, number in self._count_connections().items()),
            REQUESTS: (((kind,), number) for kind, number in self._requests.items()),
            DEGRADED: (((place,), 1) for place in self._problems()),
            UPDATES: (((result,), number) for result, number in self._updates.items()),
        }

    def _running(self) -> list[Run]:
        return [run for run in self._containers.runs() if _runs(run)]

    async def _memory(self) -> dict[Container, int]:
        """What each run uses now. Its counters are brought up to date by the way."""
        runs = self._running()
        memory = {}
        for run, used in zip(runs, await self._loop.in_thread(usage.of_all, runs), strict=True):
            # Of one that has ended meanwhile everything is counted.
            if _runs(run):
                self._of(run.record.container).update(used)
                memory[run.record.container] = used.memory
        return memory

    def _states(self) -> Iterator[Sample]:
        records = list(self._containers)
        yield ("installed",), len(records)
        yield ("mounted",), sum(record.mounted for record in records)
        yield ("running",), len(self._running())
        for phase in (READY, WAITING, QUARANTINED):
            yield (phase,), sum(record.state.phase == phase for record in records)

    def _by_outcome(self, family: Family) -> Iterator[Sample]:
        for container, counts in self._counts.items():
            values = counts.starts if family is STARTS else counts.exits
            for outcome, number in values.items():
                yield (*_labels(container), outcome), number


def _runs(run: Run) -> bool:
    return run.process.pidfd >= 0


def _labels(container: Container) -> tuple[str, str]:
    return container.name, str(container.version)


def _text(samples: dict[Family, list[Sample]], start_times: str) -> str:
    """All families; for a thread, as hundreds of containers have thousands of lines."""
    texts = (
        start_times if family is START_TIME else openmetrics.render(family, samples[family])
        for family in FAMILIES
    )
    return "".join(texts) + openmetrics.END
