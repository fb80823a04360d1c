# SPDX-License-Identifier: Apache-2.0
"""Ways of metrics to a monitoring system: a file that is replaced regularly, and a socket that is asked."""

from __future__ import annotations

import contextlib
import os

from northstar.errors import NorthstarError
from northstar.kernel.filesystem import write_all
from northstar.runtime import log
from northstar.runtime.eventloop.loop import Timeout
from northstar.runtime.eventloop.transport import Transport, close_apart
from northstar.runtime.eventloop.unixsocket import bind_unix, stop_listening
from northstar.runtime.monitoring import openmetrics

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine
    from typing import Any

    from northstar.config.model import MetricsConfig
    from northstar.runtime.eventloop.loop import Loop, Task

    Text = Callable[[], Coroutine[Any, Any, str]]

_log = log.Logger("runtime::metrics")

FILE_MODE = 0o644
MAX_CLIENTS = 8
MAX_REQUEST = 8192
SILENCE = 1.0
"""Seconds after which a client that says nothing gets the text."""
CLIENT_LIMIT = 10.0
"""Seconds that a client may take in all."""


class Exporter:
    """Makes the metrics available as the configuration says."""

    def __init__(self, loop: Loop, config: MetricsConfig, text: Text) -> None:
        """Raises NorthstarError if the socket cannot be made."""
        self._file = FileExporter(loop, config.file, config.interval, text) if config.file else None
        self._socket = SocketExporter(loop, config.socket, config.mode, text) if config.socket else None

    async def stop(self) -> None:
        """End, and leave nothing that looks like the state of a running daemon."""
        if self._socket is not None:
            await self._socket.stop()
        if self._file is not None:
            await self._file.stop()


class FileExporter:
    """Writes the text to a file every `interval` seconds; readers see the old or the new text."""

    def __init__(self, loop: Loop, path: str, interval: float, text: Text) -> None:
        self._loop = loop
        self._path = path
        self._interval = interval
        self._text = text
        self._failed = False
        self._writing: Task | None = None
        self._task = loop.spawn(self._write_regularly())

    async def stop(self) -> None:
        """Write no more, and remove the file."""
        self._task.cancel()
        if self._writing is not None:
            with contextlib.suppress(OSError):
                await self._writing
        _remove(self._path)

    async def _write_regularly(self) -> None:
        while True:
            self._writing = self._loop.spawn(self._write())
            await self._writing
            await self._loop.sleep(self._interval)

    async def _write(self) -> None:
        try:
            await self._loop.in_thread(replace, self._path, await self._text())
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.warn(f"failed to write {self._path}: {error.strerror}")
            self._failed = True


def _remove(path: str) -> None:
    """What stays would look like the state of a running daemon, so it is said."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warn(f"failed to remove {path}: {error.strerror}")


def replace(path: str, text: str) -> None:
    """Replace a file in one step, or make it. Raises OSError."""
    temporary = f"{path}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, FILE_MODE)
    try:
        try:
            # The umask of the daemon is not meant for it.
            os.fchmod(descriptor, FILE_MODE)
            write_all(descriptor, text.encode())
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError:
        # A full disk has no room for half of it, either.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class SocketExporter:
    """Answers each connection with the text: as HTTP/1.0 if it asks with GET, else as it is."""

    def __init__(self, loop: Loop, path: str, mode: int, text: Text) -> None:
        self._loop = loop
        self._path = path
        self._text = text
        self._clients: set[Task] = set()
        try:
            self._socket, _ = bind_unix(path, mode)
        except OSError as error:
            raise NorthstarError(f"metrics.socket {path}: {error.strerror or error}") from None
        self._socket.setblocking(False)
        self._channel = loop.register(self._socket.fileno())
        self._task = loop.spawn(self._accept())

    async def stop(self) -> None:
        """Listen no more, and remove the socket."""
        self._task.cancel()
        for client in list(self._clients):
            client.cancel()
        self._channel.close()
        stop_listening(self._socket)
        _remove(self._path)
        await close_apart(self._loop, self._socket, [])

    async def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                await self._channel.readable()
                continue
            except OSError as error:
                _log.warn(f"Error listening on {self._path}: {error.strerror}")
                await self._loop.sleep(SILENCE)
                continue
            if len(self._clients) < MAX_CLIENTS:
                self._serve(sock)
            else:
                await close_apart(self._loop, sock, [])

    def _serve(self, sock: socket.socket) -> None:
        task = self._loop.spawn(self._answer(sock))
        timer = self._loop.call_later(CLIENT_LIMIT, task.cancel)
        self._clients.add(task)

        def ended() -> None:
            timer.cancel()
            self._clients.discard(task)

        self._loop.when_done(task, ended)

    async def _answer(self, sock: socket.socket) -> None:
        transport = Transport(self._loop, sock)
        try:
            transport.write(await self._response(await self._request(transport)))
            await transport.flush()
        except OSError as error:
            _log.debug(f"{self._path}: {error.strerror}")
        finally:
            await transport.close()

    async def _request(self, transport: Transport) -> bytes:
        """What the client says, up to an empty line or until it is silent."""
        data = b""
        while b"\r\n\r\n" not in data and len(data) < MAX_REQUEST:
            try:
                chunk = await transport.read(MAX_REQUEST, SILENCE)
            except Timeout:
                break
            if not chunk:
                break
            data += chunk
        return data

    async def _response(self, request: bytes) -> bytes:
        if not request:
            return (await self._text()).encode()
        if not request.startswith(b"GET "):
            return b"HTTP/1.0 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n"
        body = (await self._text()).encode()
        head = (
            "HTTP/1.0 200 OK\r\n"
            f"Content-Type: {openmetrics.CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
