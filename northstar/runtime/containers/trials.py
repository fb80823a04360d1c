# SPDX-License-Identifier: Apache-2.0
"""Containers, as updates see them: `northstar.updates.device` on this runtime."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from northstar.errors import ApiError, StartContainerFailed, Unexpected
from northstar.runtime import log
from northstar.runtime.containers.events import Observer
from northstar.runtime.eventloop.loop import Future, Timeout
from northstar.updates.device import Failure
from northstar.updates.versions import Installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from northstar.manifest.model import Manifest
    from northstar.names import Container
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.packages import Packages
    from northstar.runtime.containers.records import Containers, Record
    from northstar.runtime.containers.run import Run
    from northstar.runtime.containers.starts import Starts
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.spawning.process import ExitStatus

_log = log.Logger("runtime::updates")

STOP_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL, and after that until it is given up."""
LINES = 20
"""Of its last output that are told of a container that has failed."""


class Trials(Observer):
    """Starts, stops and watches the containers of updates."""

    def __init__(
        self,
        loop: Loop,
        data_dir: str,
        containers: Containers,
        starts: Starts,
        packages: Packages,
        events: Events,
        stopping: Future,
    ) -> None:
        """`stopping` is done when the runtime shuts down."""
        self.data_dir = data_dir
        self._loop = loop
        self._containers = containers
        self._starts = starts
        self._packages = packages
        self._events = events
        self._stopping = stopping
        self._runs: dict[Container, Run] = {}
        """Of containers that updates have started."""
        self._ends: dict[Container, ExitStatus] = {}
        self._alarm = Future()
        """Done when something happens to a container that is not its end."""

    @property
    def stopping(self) -> bool:
        """Whether the runtime is shutting down."""
        return self._stopping.done

    def versions_of(self, name: str) -> list[Installed]:
        """All versions of a name."""
        return [
            Installed(record.container.version, record.package.digest, record.repository.writable)
            for record in self._containers
            if record.container.name == name
        ]

    def manifest(self, container: Container) -> Manifest:
        """Raises InvalidContainer."""
        return self._containers.get(container).manifest

    def directory(self, container: Container) -> str | None:
        """The directory of its repository, if it is one that can be written to."""
        return self._containers.get(container).repository.journals

    def running(self, name: str) -> Container | None:
        """The version of a name that runs, or is being started."""
        for run in self._containers.runs():
            if run.record.container.name == name:
                return run.record.container
        return None

    async def start(self, container: Container, environment: Mapping[str, str], *, trial: bool) -> None:
        """Done when its application executes. Raises ApiError."""
        record = self._containers.get(container)
        record.trial = trial
        self._ends.pop(container, None)
        try:
            await self._starts.start(container, None, (), {}, environment)
        except ApiError:
            record.trial = False
            raise
        run = record.run
        if run is None:
            raise Failure(container, self._end_of(container))
        self._runs[container] = run

    def accept(self, container: Container) -> None:
        """It has proved itself."""
        self._runs.pop(container, None)
        if container in self._containers:
            self._containers.get(container).trial = False

    async def stop(self, container: Container) -> None:
        """Done when nothing of its run is left. Raises Unexpected if it does not end."""
        self._runs.pop(container, None)
        record = self._containers.get(container) if container in self._containers else None
        if record is None or record.run is None:
            return
        run = record.run
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                run.process.kill(number)
                await self._loop.wait_for(run.ended, STOP_GRACE)
            except Timeout:
                continue
            except OSError as error:
                raise Unexpected(f"failed to stop {container}: {error.strerror}") from None
            record.trial = False
            return
        raise Unexpected(f"{container} did not end within {STOP_GRACE:.0f} s after SIGKILL")

    async def wait_ready(self, container: Container) -> None:
        """Wait until a container that was started is ready. Raises Failure."""
        await wait_ready(self._loop, self._containers.get(container))
        self._check(container)

    async def wait_failure(self, containers: Sequence[Container], seconds: float) -> None:
        """Wait for so long. Raises Failure as soon as one of them has ended."""
        late = Future()
        timer = self._loop.call_later(seconds, late.set_result)
        try:
            while True:
                for container in containers:
                    self._check(container)
                if late.done:
                    return
                self._alarm = Future()
                ends = (self._runs[container].ended for container in containers)
                await self._loop.first(late, self._alarm, *ends)
        finally:
            timer.cancel()

    def _check(self, container: Container) -> None:
        """Raises Failure if the run that was begun is not there any more."""
        if container in self._containers and self._containers.get(container).damage is not None:
            raise Failure(container, "has a damaged image")
        run = self._runs.get(container)
        if run is None or run.ended.done or self._containers.get(container).run is not run:
            raise Failure(container, self._end_of(container))

    def _end_of(self, container: Container) -> str:
        status = self._ends.get(container)
        return "has ended" if status is None else f"exited with status {status}"

    def last_output(self, container: Container) -> list[str]:
        """Some lines that it has written last."""
        if container not in self._containers:
            return []
        return self._containers.get(container).output.last(LINES)

    async def remove(self, container: Container) -> None:
        """Uninstall a package that nobody needs. Raises ApiError."""
        await self._packages.uninstall(container, wipe=False, unneeded=True)

    def publish(self, value: dict[str, Any]) -> None:
        """Tell who follows updates."""
        self._events.updated(value)

    # --- events

    def ended(self, run: Run, status: ExitStatus) -> None:
        """Remember how a container has ended."""
        if run.record.container in self._runs or run.record.container in self._ends:
            self._ends[run.record.container] = status

    def damaged(self, container: Container) -> None:
        """One on trial has failed by that."""
        self._alarm.set_result()


async def wait_ready(loop: Loop, record: Record) -> None:
    """Until a container says that it is ready; at once if it never does. Raises StartContainerFailed."""
    await loop.turn()
    if record.run is None:
        raise StartContainerFailed(record.container, "it has ended at once")
