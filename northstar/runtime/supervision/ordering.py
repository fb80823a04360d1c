# SPDX-License-Identifier: Apache-2.0
"""Who has to wait for whom: at the autostart, when another container goes down, and at the shutdown."""

from __future__ import annotations

from northstar.runtime import log
from northstar.supervision import order
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeVar

    from northstar.runtime.supervision.supervised import Supervised
    from northstar.runtime.supervision.supervisor import Supervisor
    from northstar.supervision.state import State

    R = TypeVar("R", bound="Supervised")


_log = log.Logger("runtime::supervisor")

GRACE = 5.0
"""Seconds that a killed container may take to end."""


class Ordering:
    """The conditions of all containers. Costs nothing as long as there are none."""

    def __init__(self, containers: Iterable[Supervised], supervisor: Supervisor) -> None:
        self._containers = containers
        self._supervisor = supervisor

    # --- autostart

    def hold(self, wanted: Iterable[R]) -> list[R]:
        """Who of these containers can be started now; the others wait, or are refused because of a cycle."""
        graph = self._graph()
        cycles = order.cycles(graph)
        for cycle in cycles:
            _log.error(f"Containers that wait for each other are not started: {cycle}")
        knotted = order.in_cycles(graph) if cycles else set()
        free = []
        for record in wanted:
            if not record.settings.after:
                free.append(record)
            elif record.container.name in knotted:
                self._supervisor.happen(record, s.Refused("it waits for itself in the end"))
            elif missing := self._missing(record):
                _log.info(f"{record.container} waits for {missing}")
                self._supervisor.happen(record, s.Hold(missing, record.settings.after_timeout))
            else:
                free.append(record)
        return free

    def warn(self, record: Supervised) -> None:
        """Somebody starts a container, which is not held up."""
        if record.settings.after and (missing := self._missing(record)):
            _log.warn(f"{record.container} is started without what it is meant to wait for: {missing}")

    def _graph(self) -> dict[str, tuple[str, ...]]:
        return {r.container.name: tuple(r.settings.after) for r in self._containers if r.settings.after}

    def _missing(self, record: Supervised) -> str:
        return order.described(order.missing(record.settings.after, self._states))

    def _states(self, name: str) -> list[State]:
        return [record.state for record in self._containers if record.container.name == name]

    # --- while they run

    def moved(self, moved: Supervised, before: State) -> None:
        """A container is in another phase: others may go on, or have to end."""
        name, now = moved.container.name, moved.state.phase
        ended = before.phase in s.ALIVE and now not in s.ALIVE
        for record in self._containers:
            after = record.settings.after
            if not after or (name not in after and record is not moved):
                continue
            if ended and name in record.settings.bind:
                _log.info(f"{record.container} is stopped, as {moved.container} is down")
                self._supervisor.happen(record, s.Unbound(name, again=now == s.WAITING))
            if record.state.phase == s.WAITING and record.state.held and not self._missing(record):
                self._supervisor.happen(record, s.Release())

    # --- shutdown

    def longest_stop(self) -> float:
        """Seconds that `stop_all` may take, with everything running and nobody answering."""
        times = {r.container.name: r.settings.stop.timeout for r in self._containers if r.settings.asked}
        return order.longest(self._graph(), times) if times else 0.0

    async def stop_all(self) -> None:
        """Stop what runs: containers with sections about supervision in their way, all others at once."""
        for record in self._containers:
            if record.state.phase == s.WAITING:
                self._supervisor.happen(record, s.Stop())
        graph = self._graph()
        stopped: set[Supervised] = set()
        while running := [r for r in self._containers if r.state.phase in s.ALIVE]:
            if not any(record.settings.asked for record in running):
                return
            free = set(order.free(graph, {record.container.name for record in running}))
            for record in running:
                if record.container.name in free and record not in stopped:
                    stopped.add(record)
                    self._stop(record)
            if not await self._some_end(running):
                return

    def _stop(self, record: Supervised) -> None:
        # The program cannot extend it: whoever has started the daemon waits as well.
        timeout = record.settings.stop.timeout if record.settings.asked else 0.0
        self._supervisor.happen(record, s.Stop(None, timeout))

    async def _some_end(self, running: list[Supervised]) -> bool:
        """Wait for the end of one of them; False if that takes longer than it may."""
        limit = max(record.settings.stop.timeout for record in running) + GRACE
        return await self._supervisor.within(
            limit, lambda: any(record.state.phase not in s.ALIVE for record in running)
        )
