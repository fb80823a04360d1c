# SPDX-License-Identifier: Apache-2.0
"""Containers, as updates see them: `northstar.updates.device` on this runtime."""

from __future__ import annotations

import contextlib

from northstar.errors import ApiError, Unexpected
from northstar.manifest import extension
from northstar.runtime import log
from northstar.runtime.containers.events import Observer
from northstar.runtime.eventloop.loop import Future, Timeout
from northstar.runtime.spawning import enginelink
from northstar.supervision import state as s
from northstar.supervision.model import EXIT, Restart
from northstar.updates.device import Failure
from northstar.updates.versions import Installed

TYPE_CHECKING = False
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
    from northstar.runtime.supervision.supervisor import Supervisor

_log = log.Logger("runtime::updates")

STOP_GRACE = 10.0
"""Seconds beyond those of its manifest, until it is given up."""
LAST_WORDS = 5.0
"""Seconds that the end of a run may take before its last output is looked at."""
READY_LIMIT = 300.0
"""Seconds until one that has no limit of its own has to be ready."""
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
        supervisor: Supervisor,
        events: Events,
        stopping: Future,
    ) -> None:
        """`stopping` is done when the runtime shuts down."""
        self.data_dir = data_dir
        self._loop = loop
        self._containers = containers
        self._starts = starts
        self._packages = packages
        self._supervisor = supervisor
        self._events = events
        self._stopping = stopping
        self._runs: dict[Container, Run] = {}
        """Of containers that updates have started."""
        self._ends: dict[Container, ExitStatus | None] = {}
        """How those that updates have started have ended, None if they have not."""
        self._alarm = Future()
        """Done when something has happened to a container."""

    @property
    def stopping(self) -> bool:
        """Whether the runtime is shutting down."""
        return self._stopping.done

    def versions_of(self, name: str) -> list[Installed]:
        """All versions of a name."""
        return [
            Installed(record.container.version, record.package.digest, record.repository.writable)
            for record in self._containers.named(name)
        ]

    def manifest(self, container: Container) -> Manifest:
        """Raises InvalidContainer."""
        return self._containers.get(container).manifest

    def directory(self, container: Container) -> str | None:
        """The directory of its repository, if it is one that can be written to."""
        return self._containers.get(container).repository.journals

    def running(self, name: str) -> Container | None:
        """The version of a name that runs, or is being started."""
        for record in self._containers.named(name):
            if record.run is not None:
                return record.container
        return None

    async def prepare(self, containers: Sequence[Container]) -> None:
        """Mount their images."""
        await self._starts.prepare([self._containers.get(container) for container in containers])

    async def start(self, container: Container, environment: Mapping[str, str], *, trial: bool) -> None:
        """Done when its application executes. Raises ApiError."""
        record = self._containers.get(container)
        _set_trial(record, trial)
        self._ends[container] = None
        try:
            await self._starts.start(container, None, (), {}, environment)
        except ApiError:
            _set_trial(record, False)
            raise
        run = record.run
        if run is None:
            raise Failure(container, self._end_of(container))
        self._runs[container] = run
        if not trial:
            self._starts.descriptors.preserve(container.name, False)

    def accept(self, container: Container) -> None:
        """It has proved itself."""
        self._forget(container)
        self._starts.descriptors.preserve(container.name, False)
        if container in self._containers:
            _set_trial(self._containers.get(container), False)

    async def stop(self, container: Container) -> None:
        """As its manifest says; then nothing of its run is left. Raises Unexpected if it does not end."""
        self._forget(container)
        record = self._containers.get(container) if container in self._containers else None
        if record is None:
            return
        # A listening socket is handed over from version to version, also if the next one fails by itself.
        self._starts.descriptors.preserve(container.name, True)
        if record.state.phase in (*s.ALIVE, s.WAITING):
            self._supervisor.happen(record, s.Stop())
            limit = record.settings.stop.timeout_max + STOP_GRACE
            if not await self._supervisor.within(limit, lambda: record.state.phase not in s.ALIVE):
                raise Unexpected(f"{container} does not end")
        _set_trial(record, False)

    async def wait_ready(self, container: Container) -> None:
        """Wait until a container that was started is ready. Raises Failure."""
        record, run = self._containers.get(container), self._runs.get(container)
        limit = READY_LIMIT if record.settings.ready.timeout is None else None
        if not await self._supervisor.within(
            limit, lambda: record.state.phase == s.READY or record.run is not run
        ):
            raise Failure(container, f"not ready after {READY_LIMIT:.0f} s")
        await self._check(container)

    async def wait_failure(self, containers: Sequence[Container], seconds: float) -> None:
        """Wait for so long. Raises Failure as soon as one of them has ended."""
        late = Future()
        timer = self._loop.call_later(seconds, late.set_result)
        try:
            while True:
                for container in containers:
                    await self._check(container)
                if late.done:
                    return
                self._alarm = Future()
                ends = (run.ended for run in map(self._runs.__getitem__, containers) if not run.ended.done)
                await self._loop.first(late, self._alarm, *ends)
        finally:
            timer.cancel()

    async def _check(self, container: Container) -> None:
        """Raises Failure if the run that was begun is over, or reads what it must not."""
        if container in self._containers and self._containers.get(container).damage is not None:
            raise Failure(container, "has a damaged image")
        run = self._runs.get(container)
        if run is not None and not self._is_over(container, run):
            return
        if run is not None:
            with contextlib.suppress(Timeout):
                # Its last words have been read then.
                await self._loop.wait_for(run.ended, LAST_WORDS)
        if container in self._containers and _has_done_its_work(self._containers.get(container)):
            return
        raise Failure(container, self._end_of(container))

    def _is_over(self, container: Container, run: Run) -> bool:
        """Whether it has ended, also if that was not dealt with yet."""
        if self._ends.get(container) is not None or run.ended.done or run.process.pidfd < 0:
            return True
        return enginelink.ended(run.process.pidfd)

    def _forget(self, container: Container) -> None:
        self._runs.pop(container, None)
        self._ends.pop(container, None)

    def _end_of(self, container: Container) -> str:
        status = self._ends.get(container)
        last = self._containers.get(container).state.last if container in self._containers else None
        if last is not None and last.failed and last.reason:
            return f"has failed: {last.reason}"
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
        """An application has ended; it takes a while until nothing of the run is left."""
        if run.record.container in self._ends:
            self._ends[run.record.container] = status
            self._alarm.set_result()

    def damaged(self, container: Container) -> None:
        """One on trial has failed by that."""
        self._alarm.set_result()


def _set_trial(record: Record, trial: bool) -> None:
    """On trial the first failure decides: nothing is restarted, and nothing else ends because of it."""
    settings = extension.supervision(record.manifest)
    record.settings = settings._replace(restart=Restart(), critical=False) if trial else settings


def _has_done_its_work(record: Record) -> bool:
    """Whether it was to end, and has ended well."""
    last = record.state.last
    return record.settings.ready.by == EXIT and last is not None and not last.failed
