# SPDX-License-Identifier: Apache-2.0
"""What happens to containers, told to whoever observes them: the console's subscribers, metrics."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.containers.run import Run
    from northstar.runtime.spawning.process import ExitStatus


class Observer:
    """Hears of events, on the loop. Must not block and must not raise."""

    def started(self, container: Container, seconds: float) -> None:
        """A container's application is executing, so many seconds after the request."""

    def start_failed(self, container: Container) -> None:
        """A start failed or was refused; it may be that no such container is installed."""

    def ended(self, run: Run, status: ExitStatus) -> None:
        """The application of a run has ended; its control group is still there."""

    def exited(self, container: Container, status: ExitStatus) -> None:
        """A container has ended, and nothing of its run is left."""

    def damaged(self, container: Container) -> None:
        """A block of a container's image was read that is not what it was signed as; again and again."""

    def installed(self, container: Container) -> None:
        """A package was added."""

    def uninstalled(self, container: Container) -> None:
        """A package was removed."""

    def memory_event(self, container: Container, event: dict[str, int | None]) -> None:
        """A container's control group ran out of memory."""

    def updated(self, details: dict[str, Any]) -> None:
        """An update has come to its next phase."""

    def supervised(self, kind: str, container: Container, details: dict[str, object]) -> None:
        """A container is `ready`, `unhealthy`, `restarting` or `quarantined`, or has another `status`."""


class Events(Observer):
    """Passes everything on to its observers, in the order in which they came."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []

    def add(self, observer: Observer) -> None:
        """Tell it of everything from now on."""
        self._observers.append(observer)

    def started(self, container: Container, seconds: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.started(container, seconds)

    def start_failed(self, container: Container) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.start_failed(container)

    def ended(self, run: Run, status: ExitStatus) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.ended(run, status)

    def exited(self, container: Container, status: ExitStatus) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.exited(container, status)

    def damaged(self, container: Container) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.damaged(container)

    def installed(self, container: Container) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.installed(container)

    def uninstalled(self, container: Container) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.uninstalled(container)

    def memory_event(self, container: Container, event: dict[str, int | None]) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.memory_event(container, event)

    def updated(self, details: dict[str, Any]) -> None:
        for observer in self._observers:
            observer.updated(details)

    def supervised(self, kind: str, container: Container, details: dict[str, object]) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.supervised(kind, container, details)
