# SPDX-License-Identifier: Apache-2.0
"""The blocking client."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from northstar.client.errors import ClientError, ConnectionClosed
from northstar.client.model import ContainerData, Notification
from northstar.client.protocol import ClientProtocol, outcome, result
from northstar.config.model import ConsoleUrl
from northstar.names import Container
from northstar.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO

    Trace = Callable[[str, bytes], None]

DEFAULT_URL = "tcp://localhost:4200"
CONNECT_TIMEOUT = 5.0
HANDSHAKE_TIMEOUT = 10.0

# `list` is a method below
_Names = list[str]
_Errors = list[Any]

_CHUNK = 1 << 20
_SIGTERM = 15


class Client:
    """A connection to a runtime. Containers are given as `name:version`.

    Methods raise Refused if the runtime refuses, PermissionDenied, ConnectionClosed, ValueError for a
    malformed container, and OSError.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        notifications: bool = False,
        timeout: float | None = HANDSHAKE_TIMEOUT,
        trace: Trace | None = None,
    ) -> None:
        """Do the handshake on a connected socket, within `timeout` seconds.

        `trace(direction, line)` sees every line, direction `>` for ours and `<` for the runtime's.
        """
        self._socket = sock
        self._protocol = ClientProtocol()
        self._trace = trace
        sock.settimeout(timeout)
        self._send(self._protocol.connect(notifications))
        while not self._protocol.established:
            self._receive()
        sock.settimeout(None)

    @classmethod
    def connect(cls, url: str = DEFAULT_URL, **options: Any) -> Client:
        """Connect to `tcp://host[:port]` or `unix:///path`. Options are those of the constructor."""
        sock = _connected(ConsoleUrl.parse(url))
        try:
            return cls(sock, **options)
        except BaseException:
            sock.close()
            raise

    @classmethod
    def from_env(cls, **options: Any) -> Client:
        """Connect through the console that a container inherits (environment variable NORTHSTAR_CONSOLE)."""
        number = os.environ.get("NORTHSTAR_CONSOLE", "")
        if not number.isdigit():
            raise ClientError("NORTHSTAR_CONSOLE is not set", "the container's manifest needs a console")
        return cls(socket.socket(fileno=int(number)), **options)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- requests

    def ident(self) -> str:
        """Who we are: `extern:0.0.0`, or the container whose console this is."""
        name: str = result(self.request(messages.Ident()), "ident")
        return name

    def list(self) -> _Names:
        """All containers."""
        names: _Names = result(self.request(messages.List()), "list")
        return names

    def repositories(self) -> _Names:
        """Names of all repositories."""
        names: _Names = result(self.request(messages.Repositories()), "repositories")
        return names

    def inspect(self, container: str) -> ContainerData:
        """Everything about a container."""
        response = self.request(messages.Inspect(Container.parse(container)))
        return ContainerData.from_wire(container, outcome(result(response, "inspect"))["data"])

    def start(
        self,
        container: str,
        init: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a container; its application is executing when this returns."""
        request = messages.Start(Container.parse(container), init, tuple(arguments), dict(environment or {}))
        outcome(result(self.request(request), "start"))

    def kill(self, container: str, signal: int = _SIGTERM) -> None:
        """Send a signal to a container."""
        outcome(result(self.request(messages.Kill(Container.parse(container), signal)), "kill"))

    def mount(self, containers: Sequence[str]) -> _Errors:
        """Mount containers; for each None or the error object."""
        request = messages.Mount(tuple(Container.parse(container) for container in containers))
        return [_error(item) for item in result(self.request(request), "mount")]

    def umount(self, containers: Sequence[str]) -> _Errors:
        """Umount containers; for each None or the error object."""
        request = messages.Umount(tuple(Container.parse(container) for container in containers))
        return [_error(item) for item in result(self.request(request), "umount")]

    def install(
        self,
        package: str | BinaryIO,
        repository: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> str:
        """Install a package from a path or a seekable file; the container.

        `progress(sent, size)` is called as the bytes go out.
        """
        if isinstance(package, str):
            with open(package, "rb") as file:
                response = self.stream(file, repository, progress)
        else:
            response = self.stream(package, repository, progress)
        container: str = outcome(result(response, "install"))["container"]
        return container

    def uninstall(self, container: str, wipe: bool = False) -> None:
        """Remove a package, with the container's persistent data if `wipe`."""
        request = messages.Uninstall(Container.parse(container), wipe)
        outcome(result(self.request(request), "uninstall"))

    def create_token(self, target: str, shared: bytes) -> bytes:
        """A token by which `target` can verify who we are."""
        token: str = result(self.request(messages.TokenCreate(target, shared)), "token")
        return messages.from_base64(token)

    def verify_token(self, token: bytes, user: str, shared: bytes) -> str:
        """`Ok`, `Invalid`, `Expired` or `Future`."""
        request = messages.TokenVerify(token, user, shared)
        verdict: str = result(self.request(request), "token_verification")
        return verdict

    def shutdown(self) -> None:
        """End the runtime."""
        with contextlib.suppress(ConnectionClosed, ConnectionError):
            result(self.request(messages.Shutdown()), "shutdown")

    def request(self, request: messages.Request) -> Any:
        """Send a request; the value of the response."""
        self._send(messages.encode(request))
        return self._response()

    def stream(
        self, file: BinaryIO, repository: str, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """Send an install request and the bytes of a file; the value of the response."""
        begin = file.tell()
        size = file.seek(0, os.SEEK_END) - begin
        file.seek(begin)
        self._send(messages.encode(messages.Install(repository, size)))
        sent = 0
        try:
            while sent < size:
                chunk = file.read(min(_CHUNK, size - sent))
                if not chunk:
                    raise ClientError("the package became shorter while it was sent")
                self._socket.sendall(chunk)
                sent += len(chunk)
                if progress is not None:
                    progress(sent, size)
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionClosed from None
        return self._response()

    # --- notifications

    def notifications(self, timeout: float | None = None) -> Iterator[Notification]:
        """Notifications as they come, until the runtime closes the connection.

        With a timeout in seconds: until nothing has come for that long.
        """
        pending = self._protocol.notifications
        while True:
            while pending:
                yield pending.popleft()
            readable, _, _ = select.select([self._socket], [], [], timeout)
            if not readable:
                return
            try:
                self._receive()
            except (ConnectionClosed, ConnectionResetError):
                return

    # --- input and output

    def _send(self, line: bytes) -> None:
        if self._trace is not None:
            self._trace(">", line.rstrip(b"\n"))
        try:
            self._socket.sendall(line)
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionClosed from None

    def _response(self) -> Any:
        responses = self._protocol.responses
        while not responses:
            self._receive()
        return responses.popleft()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionResetError:
            raise ConnectionClosed from None
        if not data:
            raise ConnectionClosed
        for line in self._protocol.feed(data):
            if self._trace is not None:
                self._trace("<", line)


def _error(item: Any) -> Any:
    return item["error"]["error"] if "error" in item else None


def _connected(url: ConsoleUrl) -> socket.socket:
    if url.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return _connect(sock, url.path)
    # Name resolution has no time limit of its own.
    family, kind, protocol, _, address = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)[0]
    return _connect(socket.socket(family, kind, protocol), address)


def _connect(sock: socket.socket, address: Any) -> socket.socket:
    deadline = time.monotonic() + CONNECT_TIMEOUT
    sock.settimeout(max(0.0, deadline - time.monotonic()))
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
