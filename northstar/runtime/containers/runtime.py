# SPDX-License-Identifier: Apache-2.0
"""The runtime: what can be done with containers, whoever asks for it.

Everything runs in one thread on one event loop; only mounting, loading and other blocking work goes to
threads. What changes mounts or the set of containers holds one mutex, so such operations have a serial
order. A start leaves the mutex as soon as all its packages are mounted and the container is marked as
running; from there any number of starts proceeds at the same time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from northstar.errors import Unexpected
from northstar.manifest import dump
from northstar.runtime import log
from northstar.runtime.containers.mounts import Mounts
from northstar.runtime.containers.packages import Packages
from northstar.runtime.containers.records import Containers
from northstar.runtime.containers.starts import Starts
from northstar.runtime.containers.updating import Updating
from northstar.runtime.eventloop.loop import Future, Mutex

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from typing import Any

    from northstar.config.model import UpdatesConfig
    from northstar.names import Container
    from northstar.protocol import requests
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.host import Host
    from northstar.runtime.containers.run import Run
    from northstar.runtime.containers.sessions import Session
    from northstar.runtime.storage.mounter import Mounter
    from northstar.runtime.storage.repository import Repository

_log = log.Logger("runtime::state")


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
        self.starts = Starts(host, self.containers, self.mounts, mutex, events, self.updating, self.stopping)
        self.updating.attach(self.starts, self.packages, events, self.stopping)
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
        }
        # Upstream's clients know neither.
        if record.problem is not None:
            data["problem"] = record.problem
        if run is not None and record.left_out:
            data["warnings"] = list(record.left_out)
        return data

    def kill(self, container: Container, number: signal.Signals) -> None:
        """Send a signal to a running container."""
        run = self.containers.running(container)
        _log.info(f"Killing {container} with {number.name}")
        try:
            if not run.process.kill(number) and run.process.pid:
                _log.debug(f"Process {run.process.pid} already exited")
        except OSError as error:
            _log.error(f"failed to kill {container} with {number.name}: {error.strerror}")
            raise Unexpected(f"failed to kill {container}: {error.strerror}") from None

    async def execute(self, request: requests.Exec, descriptors: Sequence[int]) -> Session:
        """Begin a command in a running container. Raises OSError, too."""
        from northstar.runtime.containers import sessions

        self._executing(request.container)
        await self._host.loop.in_thread(sessions.check, request, descriptors)
        return sessions.Session(self._host, self._executing(request.container), request, descriptors)

    def _executing(self, container: Container) -> Run:
        run = self.containers.get(container).run
        if run is None or not run.process.executing or run.process.pidfd < 0:
            raise Unexpected(f"{container} is not running")
        return run


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
