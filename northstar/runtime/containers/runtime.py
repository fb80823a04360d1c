# SPDX-License-Identifier: Apache-2.0
"""The runtime: what can be done with containers, whoever asks for it.

Everything runs in one thread on one event loop; only mounting, loading and other blocking work goes to
threads. What changes mounts or the set of containers holds one mutex, so such operations have a serial
order. A start leaves the mutex as soon as all its packages are mounted and the container is marked as
running; from there any number of starts proceeds at the same time.
"""

from __future__ import annotations

import signal
import time

from northstar.config.model import BootConfig
from northstar.errors import StopContainerNotStarted, Unexpected
from northstar.manifest import dump
from northstar.runtime import log
from northstar.runtime.containers.events import Observer
from northstar.runtime.containers.mounts import Mounts
from northstar.runtime.containers.packages import Packages
from northstar.runtime.containers.records import Containers
from northstar.runtime.containers.starts import AUTOSTART_PARALLEL, Starts
from northstar.runtime.containers.updating import Updating
from northstar.runtime.eventloop.loop import Future, Mutex
from northstar.runtime.supervision.bootwatch import BootWatch
from northstar.runtime.supervision.supervisor import Supervisor, describe, exit_status
from northstar.supervision import state as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from northstar.config.model import UpdatesConfig
    from northstar.names import Container
    from northstar.protocol import requests
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.host import Host
    from northstar.runtime.containers.run import Run
    from northstar.runtime.containers.sessions import Session
    from northstar.runtime.spawning.process import ExitStatus
    from northstar.runtime.storage.mounter import Mounter
    from northstar.runtime.storage.repository import Repository

_log = log.Logger("runtime::state")

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
"""Who sends one of these wants the end of a container."""


class Runtime:
    """Containers and repositories, and the operations on them. Errors are `ApiError`s."""

    def __init__(
        self,
        host: Host,
        repositories: Mapping[str, Repository],
        mounter: Mounter,
        mount_parallel: int | None,
        events: Events,
        updates: UpdatesConfig,
        boot: BootConfig,
    ) -> None:
        """At most `mount_parallel` packages are mounted at a time."""
        self._host = host
        mutex, places = Mutex(), host.site.places
        self.containers = Containers()
        self.repositories = repositories
        self.mounts = Mounts(host.loop, places.run_dir, self.containers, mounter, mutex, mount_parallel)
        self.updating = Updating(host.loop, self.containers, updates, places.data_dir)
        self.packages = Packages(
            host.loop,
            places.data_dir,
            repositories,
            self.containers,
            self.mounts,
            mutex,
            events,
            self.updating,
        )
        self.degraded: dict[str, str] = {}
        """Storage that cannot be used, by the name of its setting, and why."""
        self.up = False
        self.stopping = Future()
        """Done when the runtime shall end; the result is the reason if it is a failure."""
        self.supervisor = Supervisor(host.loop, events.supervised, self.request_shutdown, AUTOSTART_PARALLEL)
        self.boot = BootWatch(host.loop, self.containers, self.supervisor, boot)
        self.starts = Starts(
            host,
            self.containers,
            self.mounts,
            mutex,
            events,
            self.updating,
            self.stopping,
            self.supervisor,
        )
        self.updating.attach(self.starts, self.packages, self.supervisor, events, self.stopping)
        self.supervisor.roll_back = self.updating.roll_back
        self.boot.trials = self.updating.open
        events.add(_UpdateWatch(self.boot))
        self._up = Future()

    async def wait_until_up(self) -> None:
        """Wait until repositories are loaded and autostarts are done."""
        await self._up

    async def set_up(self) -> None:
        """Start-up is complete."""
        await self.packages.warn_of_users()
        self.up = True
        self._up.set_result()

    def request_shutdown(self, failure: str | None = None) -> None:
        """Let the runtime end, after the requests at hand."""
        self.stopping.set_result(failure)

    def problems(self) -> dict[str, str]:
        """What cannot be used at the moment, storage and containers, and why."""
        found = dict(self.degraded)
        for record in self.containers:
            if record.problem is not None:
                found[f"containers.{record.container}"] = record.problem
        return found

    async def inspect(self, container: Container) -> dict[str, Any]:
        """The data object of an inspect response."""
        record = self.containers.get(container)
        process = None
        run = record.run
        if run is not None:
            processes = await run.processes()
            statistics = await self._host.loop.in_thread(run.statistics)
            process = _process_data(run, processes, statistics)
        data = {
            "manifest": dump.to_json(record.manifest),
            "repository": record.repository.id,
            "mounted": record.mounted,
            "process": process,
            **self.updating.describe_container(container),
            "supervision": describe(record.state, time.monotonic()),
        }
        # Upstream's clients know neither.
        if record.problem is not None:
            data["problem"] = record.problem
        if run is not None and record.left_out:
            data["warnings"] = list(record.left_out)
        return data

    def kill(self, container: Container, number: signal.Signals) -> None:
        """Send a signal to a running container."""
        record = self.containers.get(container)
        if record.run is None and record.state.phase == s.WAITING and number in _ENDING:
            self.withdraw((container,))
            return
        run = self.containers.running(container)
        _log.info(f"Killing {container} with {number.name}")
        try:
            if not run.process.kill(number) and run.process.pid:
                _log.debug(f"Process {run.process.pid} already exited")
        except OSError as error:
            _log.error(f"failed to kill {container} with {number.name}: {error.strerror}")
            raise Unexpected(f"failed to kill {container}: {error.strerror}") from None
        if number in _ENDING:
            self.supervisor.happen(record, s.Killed())

    async def stop(
        self, container: Container, number: int | None, timeout: float | None
    ) -> ExitStatus | None:
        """Stop a container, or cancel its next start; how its last run ended."""
        record = self.containers.get(container)
        if record.state.phase not in (*s.ALIVE, s.WAITING):
            raise StopContainerNotStarted(container)
        _log.info(f"Stopping {container}")
        self.supervisor.happen(record, s.Stop(number, timeout))
        await self.supervisor.until(lambda: record.state.phase not in s.ALIVE)
        return exit_status(record.state.last)

    def withdraw(self, containers: Sequence[Container]) -> None:
        """Cancel the next starts of containers that are down now."""
        for container in containers:
            if container in self.containers:
                record = self.containers.get(container)
                if record.state.phase == s.WAITING:
                    _log.info(f"{container} is not started again")
                    self.supervisor.happen(record, s.Stop())

    def reset(self, container: Container) -> None:
        """Forget the failures of a container, and lift its quarantine."""
        _log.info(f"Resetting {container}")
        self.supervisor.happen(self.containers.get(container), s.Reset())

    async def execute(self, request: requests.Exec, descriptors: Sequence[int]) -> Session:
        """Begin a command in a running container. Raises OSError, too."""
        from northstar.runtime.containers import sessions

        self._executing(request.container)
        await self._host.loop.in_thread(sessions.check, request, descriptors)
        return sessions.Session(self._host, self._executing(request.container), request, descriptors)

    def _executing(self, container: Container) -> Run:
        run = self.containers.get(container).run
        if run is None or not run.process.reachable:
            raise Unexpected(f"{container} is not running")
        return run


class _UpdateWatch(Observer):
    """A boot that waits for the end of an update looks again."""

    def __init__(self, boot: BootWatch) -> None:
        self._boot = boot

    def updated(self, details: dict[str, Any]) -> None:
        """See `Observer`."""
        self._boot.look()


def _process_data(
    run: Run | None, processes: list[dict[str, Any]], statistics: dict[str, Any]
) -> dict[str, Any] | None:
    """What a run does, None if there is none, or it has not got a process yet."""
    if run is None or not run.process.started:
        return None
    return {
        "pid": run.process.pid,
        "uptime": int((time.monotonic() - run.process.started) * 1e9),
        "statistics": statistics | {"processes": processes},
    }
