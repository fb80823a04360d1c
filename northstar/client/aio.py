# SPDX-License-Identifier: Apache-2.0
"""The client for asyncio.

async with await Client.connect("unix:///run/northstar/console", notifications=True) as client:
    await client.start("hello-world:0.0.1")
    async for notification in client.notifications():
        print(notification)

Several tasks may use one connection: requests are sent without waiting for the responses of others.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib

from northstar.client import address, calls, logs, supervision, updates
from northstar.client.errors import ConnectionClosed
from northstar.client.protocol import BACKLOG, ClientProtocol
from northstar.client.upload import Upload
from northstar.client.wire import Wire
from northstar.errors import NorthstarError
from northstar.protocol.url import ConsoleUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, TypeVar

    from northstar.client.logs import Output
    from northstar.client.model import ContainerData, ExitStatus, Notification
    from northstar.client.protocol import Trace
    from northstar.client.supervision import BootDecision, Waited
    from northstar.client.upload import Progress, Readable
    from northstar.protocol import requests

    T = TypeVar("T")


# `list` is a method below
_Names = list[str]
_Errors = list["Any"]

_SIGTERM = 15


class Client:
    """A connection to a runtime, made by `connect` or `from_env`. Containers are given as `name:version`.

    Methods raise Refused if the runtime refuses, PermissionDenied, ConnectionClosed, LaggedNotifications,
    and ValueError for a malformed container. A method may be cancelled; its request is carried out
    nevertheless. Only `install` closes the connection when it is cancelled half way.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sending = asyncio.Lock()

    @classmethod
    async def connect(
        cls,
        url: str = address.DEFAULT_URL,
        *,
        notifications: bool | Sequence[str] = False,
        timeout: float | None = address.HANDSHAKE_TIMEOUT,
        backlog: int = BACKLOG,
        trace: Trace | None = None,
    ) -> Client:
        """Connect to `tcp://host[:port]` or `unix:///path`, with `timeout` seconds for the handshake.

        With `notifications` subscribe, to kinds of ours as well if it names some
        (`supervision.NOTIFICATIONS`); at most `backlog` of them wait to be taken. `trace(direction, line)`
        sees every line, direction `>` for ours and `<` for the runtime's. Raises ValueError for a malformed
        URL, OSError, TimeoutError and what the methods raise.
        """
        where = ConsoleUrl.parse(url)
        loop = asyncio.get_running_loop()

        def wire() -> Wire:
            return Wire(ClientProtocol(notifications, backlog=backlog, trace=trace))

        async with asyncio.timeout(address.CONNECT_TIMEOUT):
            if where.scheme == "unix":
                _, made = await loop.create_unix_connection(wire, where.path)
            else:
                _, made = await loop.create_connection(
                    wire, where.host, where.port, happy_eyeballs_delay=address.NEXT_ADDRESS
                )
        return await cls._established(made, timeout)

    @classmethod
    async def from_env(
        cls,
        *,
        notifications: bool | Sequence[str] = False,
        timeout: float | None = address.HANDSHAKE_TIMEOUT,
        backlog: int = BACKLOG,
        trace: Trace | None = None,
    ) -> Client:
        """Connect through the console that a container inherits (environment variable NORTHSTAR_CONSOLE)."""
        protocol = ClientProtocol(notifications, backlog=backlog, trace=trace)
        loop = asyncio.get_running_loop()
        _, made = await loop.create_unix_connection(lambda: Wire(protocol), sock=address.inherited())
        return await cls._established(made, timeout)

    @classmethod
    async def _established(cls, wire: Wire, timeout: float | None) -> Client:
        try:
            async with asyncio.timeout(timeout):
                await wire.write(wire.protocol.connect())
                await wire.established
        except BaseException:
            wire.fail(ConnectionClosed())
            raise
        return cls(wire)

    async def close(self) -> None:
        """Close the connection."""
        self._wire.fail(ConnectionClosed())
        await asyncio.sleep(0)  # the loop closes the socket

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- requests

    async def ident(self) -> str:
        """Who we are: `extern:0.0.0`, or the container whose console this is."""
        return await self.call(calls.ident())

    async def list(self) -> _Names:
        """All containers."""
        return await self.call(calls.containers())

    async def repositories(self) -> _Names:
        """Names of all repositories."""
        return await self.call(calls.repositories())

    async def problems(self) -> dict[str, str]:
        """What is impaired, storage and containers, and why; nothing if all is well."""
        return await self.call(calls.problems())

    async def inspect(self, container: str) -> ContainerData:
        """Everything about a container."""
        return await self.call(calls.inspect(container))

    async def logs(self, container: str) -> Output:
        """The last output of a container."""
        return await self.call(logs.fetch(container, follow=False))

    async def follow_logs(self, container: str) -> AsyncIterator[Output]:
        """The last output of a container, then what it writes, until it is uninstalled.

        Whoever leaves before that closes the iterator (aclose()), lest output goes on to arrive.
        """
        try:
            yield await self.call(logs.fetch(container, follow=True))
            async for notification in self.notifications():
                if notification.container == container:
                    if notification.kind == logs.END:
                        return
                    if notification.kind == logs.OUTPUT:
                        yield logs.later(notification)
        except GeneratorExit:
            leaving = self._wire.protocol.ignoring(container, logs.OUTPUT)
            with contextlib.suppress(NorthstarError, OSError), leaving:
                await self.logs(container)
            raise

    async def start(
        self,
        container: str,
        init: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a container; its application is executing when this returns."""
        await self.call(calls.start(container, init, arguments, environment))

    async def explain(
        self,
        container: str,
        init: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> builtins.list[str]:
        """The system calls that `start` would make: lines of text."""
        return await self.call(calls.explain(container, init, arguments, environment))

    async def kill(self, container: str, signal: int = _SIGTERM) -> None:
        """Send a signal to a container."""
        await self.call(calls.kill(container, signal))

    async def stop(
        self, container: str, signal: int | None = None, timeout: float | None = None
    ) -> ExitStatus | None:
        """Stop a container; it is down when this returns. How it ended, None if nothing was running.

        `timeout` in seconds, then it is killed; None, as for the signal: as its manifest says.
        """
        return await self.call(supervision.stop(container, signal, timeout))

    async def wait(
        self, containers: Sequence[str], until: str = supervision.READY, timeout: float | None = None
    ) -> builtins.list[Waited]:
        """Wait until containers are ready, or have ended (`exit`), at most `timeout` seconds."""
        return await self.call(supervision.wait(containers, until, timeout))

    async def reset(self, container: str) -> None:
        """Forget the failures of a container, and lift its quarantine."""
        await self.call(supervision.reset(container))

    async def boot(self, wait: bool = False, timeout: float | None = None) -> BootDecision:
        """Whether this boot is a good one; with `wait` when that is decided, or after `timeout` seconds."""
        return await self.call(supervision.boot(wait, timeout))

    async def mount(self, containers: Sequence[str]) -> _Errors:
        """Mount containers; for each None or the error object."""
        return await self.call(calls.mount(containers))

    async def umount(self, containers: Sequence[str]) -> _Errors:
        """Umount containers; for each None or the error object."""
        return await self.call(calls.umount(containers))

    async def install(
        self,
        package: str | os.PathLike[str] | Readable,
        repository: str,
        progress: Progress | None = None,
        size: int | None = None,
    ) -> str:
        """Install a package from a path or a file; the container.

        `progress(sent, size)` is called as the bytes go out. A file that cannot seek needs `size`, the
        number of bytes. It is read without waiting, so it should be a file rather than a pipe. If reading
        the package fails, the connection is closed.
        """
        with Upload(package, size, progress) as upload:
            call = calls.install(repository, upload.size)
            async with self._sending:
                response = await self._upload(call.request, upload)
            return call.decode(await response)

    async def uninstall(self, container: str, wipe: bool = False) -> None:
        """Remove a package, with the container's persistent data if `wipe`."""
        await self.call(calls.uninstall(container, wipe))

    async def update(self, containers: Sequence[str], **options: Any) -> str:
        """Begin an update to these versions, which have to prove themselves; its id.

        Options are those of `northstar.client.updates.begin`. After `updates(follow=True)` notifications of
        kind `update` tell of its phases.
        """
        return await self.call(updates.begin(containers, **options))

    async def updates(self, follow: bool = False) -> updates.Updates:
        """Open updates, and those that have ended and are not acknowledged; with `follow` notifications."""
        return await self.call(updates.show(follow))

    async def acknowledge_update(self, key: str) -> None:
        """Forget how an update has ended."""
        await self.call(updates.acknowledge(key))

    async def cancel_update(self, key: str) -> None:
        """Give up an update whose trial has not begun."""
        await self.call(updates.cancel(key))

    async def create_token(self, target: str, shared: bytes) -> bytes:
        """A token by which `target` can verify who we are."""
        return await self.call(calls.create_token(target, shared))

    async def verify_token(self, token: bytes, user: str, shared: bytes) -> str:
        """`Ok`, `Invalid`, `Expired` or `Future`."""
        return await self.call(calls.verify_token(token, user, shared))

    async def shutdown(self) -> None:
        """End the runtime."""
        with contextlib.suppress(ConnectionClosed):
            await self.call(calls.shutdown())

    async def call(self, call: calls.Call[T]) -> T:
        """Send a request; what its response means."""
        return call.decode(await self.request(call.request))

    async def request(self, request: requests.Request) -> Any:
        """Send a request; the value of its response."""
        async with self._sending:
            response = await self._send(request)
        return await response

    # --- notifications

    async def notifications(self, timeout: float | None = None) -> AsyncIterator[Notification]:
        """Notifications as they come, until the runtime closes the connection.

        With a timeout in seconds: until nothing has come for that long.
        """
        wire = self._wire
        pending = wire.protocol.notifications
        while True:
            while pending:
                yield pending.popleft()
            if isinstance(wire.error, ConnectionClosed):
                return
            if wire.error is not None:
                raise wire.error
            wire.arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await wire.arrived.wait()
            except TimeoutError:
                return

    # --- output

    async def _send(self, request: requests.Request) -> asyncio.Future[Any]:
        if self._wire.error is not None:
            raise self._wire.error
        line = self._wire.protocol.request(request)
        response = self._wire.response()
        await self._wire.write(line)
        return response

    async def _upload(self, request: requests.Request, upload: Upload) -> asyncio.Future[Any]:
        """Send request and package. If that ends half way, so does the connection."""
        try:
            response = await self._send(request)
            for chunk in upload.chunks():
                await self._wire.write(chunk)
                if response.done():
                    # Denied, or the connection has ended: the runtime does not take the rest.
                    self._wire.fail(ConnectionClosed())
                    break
        except BaseException:
            self._wire.fail(ConnectionClosed())
            raise
        return response
