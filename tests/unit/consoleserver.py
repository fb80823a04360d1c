# SPDX-License-Identifier: Apache-2.0
"""The console of the daemon in a thread, on socket pairs, with a runtime that only pretends."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from northstar.config import ConsoleOptions
from northstar.errors import (
    ApiError,
    InstallDuplicate,
    InvalidArguments,
    InvalidContainer,
    InvalidRepository,
    StartContainerFailed,
    StartContainerMissingResource,
    StartContainerResource,
    StartContainerStarted,
    StopContainerNotStarted,
    UmountBusy,
    Unexpected,
)
from northstar.names import Container
from northstar.protocol import permissions, requests, tokens
from northstar.runtime import log
from northstar.runtime.console.handlers import Handlers
from northstar.runtime.console.notifications import Notifications
from northstar.runtime.console.peer import EXTERN, Peer
from northstar.runtime.console.server import ConsoleServer
from northstar.runtime.eventloop.loop import Future, Loop
from northstar.runtime.output import lastoutput
from northstar.runtime.spawning.process import ExitStatus

TIMEOUT = 60.0
PEER = "Remote(unix://unnamed)"
BACKLOG = 4

_MANIFEST = {"uid": 1, "gid": 1}


def _error_of(container: Container) -> ApiError | None:
    """The container's name says how its requests end."""
    errors: dict[str, ApiError] = {
        "invalid-container": InvalidContainer(container),
        "started": StartContainerStarted(container),
        "reserved": InvalidArguments("env contains reserved key NORTHSTAR_NAME"),
        "resource": StartContainerResource(container),
        "missing": StartContainerMissingResource(container, "message", ">=0.0.2"),
        "failed": StartContainerFailed(container, "execve /init: No such file or directory (ENOENT)"),
        "unexpected": Unexpected("EIO: I/O error"),
        "stopped": StopContainerNotStarted(container),
        "busy": UmountBusy(Container.parse("user:0.0.1")),
    }
    return errors.get(container.name)


def _check(container: Container) -> None:
    error = _error_of(container)
    if error is not None:
        raise error


class _Containers:
    def __init__(self) -> None:
        self._outputs: dict[Container, lastoutput.LastOutput] = {}

    @staticmethod
    def names() -> list[str]:
        return ["a:0.0.1", "b:0.0.1"]

    def get(self, container: Container) -> SimpleNamespace:
        _check(container)
        if container not in self._outputs:
            self._outputs[container] = lastoutput.LastOutput()
            self._outputs[container].begin(1000)
            self._outputs[container].add("stderr", "first words")
        return SimpleNamespace(output=self._outputs[container])


class _Session:
    """A command that ends with exit code 3; in the container `endless` only when its client has gone."""

    def __init__(self, container: Container) -> None:
        self.started, self.ended = Future(), Future()
        self.started.set_result(True)
        if container.name != "endless":
            self.ended.set_result(ExitStatus(code=3))

    def hang_up(self) -> None:
        self.ended.set_result()


class _Insert:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class PretendedRuntime:
    """What `Handlers` asks of a runtime."""

    def __init__(self) -> None:
        self.up = True
        self.mounts = self.packages = self.starts = self
        self.containers = _Containers()
        self.repositories = {"default": None, "mem": None}
        self.finished: list[Container] = []
        """Mounted to the end."""
        self.gate: Future | None = None
        """What a mount waits for."""
        self.under_way = threading.Event()
        """A mount waits."""

    def problems(self) -> dict[str, str]:
        return {"data_dir": "read-only", "containers.a:0.0.1": "damaged"}

    def request_shutdown(self) -> None:
        pass

    async def inspect(self, container: Container) -> dict[str, Any]:
        _check(container)
        name = {"name": container.name, "version": str(container.version)}
        if container.name == "a":
            return {"manifest": name | _MANIFEST, "repository": "mem", "mounted": False, "process": None}
        process = {"pid": 1234, "uptime": 123456789, "statistics": {"cpu": {"stat": "usage_usec 1\n"}}}
        manifest = name | {"init": '/ä/\x01"\\\n'} | _MANIFEST
        return {"manifest": manifest, "repository": "mem", "mounted": True, "process": process}

    async def start(self, container: Container, *_: object) -> None:
        _check(container)

    def kill(self, container: Container, number: signal.Signals) -> None:
        _check(container)

    def withdraw(self, containers: Sequence[Container]) -> None:
        pass

    def reset(self, container: Container) -> None:
        _check(container)

    async def stop(self, container: Container, *_: object) -> ExitStatus:
        _check(container)
        return ExitStatus(signal=15)

    async def execute(self, request: requests.Exec, _: Sequence[int]) -> _Session:
        _check(request.container)
        return _Session(request.container)

    async def mount(self, containers: Sequence[Container]) -> list[ApiError | None]:
        if self.gate is not None:
            self.under_way.set()
            await self.gate
        self.finished += containers
        return [_error_of(container) for container in containers]

    async def umount(self, containers: Sequence[Container]) -> list[ApiError | None]:
        return [_error_of(container) for container in containers]

    async def uninstall(self, container: Container, wipe: bool) -> None:
        _check(container)

    async def begin(self, repository: str, size: int) -> _Insert:
        if repository not in self.repositories:
            raise InvalidRepository(repository)
        return _Insert()

    async def abort(self, insert: _Insert) -> None:
        assert insert.data != b"a package"

    async def finish(self, repository: str, insert: _Insert) -> Container:
        container = Container.parse("installed:0.0.1")
        if insert.data == b"duplicate":
            raise InstallDuplicate(container)
        if insert.data != b"a package":
            raise Unexpected("failed to read npk")
        return container


class Server:
    """The console; methods may be called from any thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[BaseException] = []
        """Exceptions that nothing expected."""
        self._lines: deque[str] = deque(maxlen=1000)
        monkeypatch.setattr(log, "record", self._record)
        self.loop = Loop(self.failures.append)
        self.runtime = PretendedRuntime()
        self.notifications = Notifications()
        monkeypatch.setattr(lastoutput, "time", SimpleNamespace(time_ns=lambda: 1700000000123456789))
        self.now = 5.0
        """What the clock of tokens shows."""
        authority = tokens.TokenAuthority(bytes(range(32)), lambda: self.now)
        handlers = Handlers(self.loop, self.runtime, authority)  # type: ignore[arg-type]
        self.console = ConsoleServer(self.loop, self.notifications, handlers, ConsoleOptions(), BACKLOG)
        self._end = Future()
        self._thread = threading.Thread(target=self.loop.run, args=(self._wait(),))
        self._thread.start()

    async def _wait(self) -> None:
        await self._end

    def _record(self, level: str, target: str, message: str) -> None:
        assert target in ("runtime::console", "runtime::sessions", "runtime::metrics")
        self._lines.append(f"{level}: {message}")

    def logged(self) -> list[str]:
        """Log lines since the last look."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

    def call(self, action: Any, *arguments: Any) -> Any:
        """Call in the thread of the console; the result."""
        done = threading.Event()
        results: list[Any] = []

        def work() -> None:
            results.append(action(*arguments))
            done.set()

        self.loop.call_from_outside(work)
        assert done.wait(TIMEOUT), "the console's thread is stuck"
        return results[0]

    def stop(self) -> None:
        self.call(self._end.set_result)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    @contextmanager
    def connection(
        self,
        options: ConsoleOptions | None = None,
        granted: frozenset[str] = permissions.FULL,
        connect_timeout: float | None = None,
        container: Container | None = None,
    ) -> Iterator[socket.socket]:
        """The client's end of a new connection, which is gone afterwards on the other side, too.

        It is that of a container if there is one.
        """
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT)
        name = PEER if container is None else f"Container({container})"
        options = options or ConsoleOptions(max_requests_per_sec=0)
        peer = Peer(name, container or EXTERN, granted, options, connect_timeout, container is not None)
        with ours:
            served = self.call(self.console.serve, theirs, peer)
            yield ours
        deadline = time.monotonic() + TIMEOUT
        while not self.call(lambda: served.task.done):
            assert time.monotonic() < deadline, "the connection stays"


def serve() -> Iterator[Server]:
    """One for the tests of a module; nothing unexpected has happened at the end."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Server(monkeypatch)
        yield made
        made.stop()
        assert made.failures == []
