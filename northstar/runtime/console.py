# SPDX-License-Identifier: Apache-2.0
"""Console connections: handshake, requests in order, notifications in between, limits."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from northstar import API_VERSION
from northstar.errors import ProtocolError
from northstar.names import Container, Version
from northstar.protocol import messages, permissions
from northstar.protocol.framing import LineBuffer
from northstar.runtime import channel, log
from northstar.runtime.lastoutput import Follower
from northstar.runtime.loop import Cancelled, Mutex, Timeout
from northstar.runtime.requests import RequestFailed

if TYPE_CHECKING:
    from northstar.config import ConsoleOptions
    from northstar.manifest.model import Manifest
    from northstar.runtime.lastoutput import LastOutput
    from northstar.runtime.loop import Future, Loop, Task
    from northstar.runtime.metrics import Metrics
    from northstar.runtime.notifications import Notifications
    from northstar.runtime.requests import Requests

_log = log.Logger("runtime::console")

CONNECT_TIMEOUT = 10.0
SERVER_VERSION = Version.parse(API_VERSION)
EXTERN = Container("extern", Version(0, 0, 0))

MAX_DESCRIPTORS = 3
LAGGED = "Client connection lagged notifications. Closing"

_READ_SIZE = 64 * 1024
_IN_A_ROW = 16
"""Requests of one client before others have a turn, also if it sends faster than we answer."""
_LONG_LINE = 16 * 1024
"""Bytes of a line that takes so long to decode that others would notice."""


class Peer(NamedTuple):
    """The other end of a connection."""

    name: str
    """As it appears in the log."""
    identity: Container
    """What `ident` answers."""
    permissions: frozenset[str]
    options: ConsoleOptions
    connect_timeout: float | None


class ConsoleServer:
    """All connections, those of clients and those of containers."""

    def __init__(
        self,
        loop: Loop,
        notifications: Notifications,
        requests: Requests,
        container_options: ConsoleOptions,
        backlog: int,
    ) -> None:
        """`backlog` is the number of notifications that a slow subscriber may fall behind."""
        self.loop = loop
        self.notifications = notifications
        self.requests = requests
        self.metrics: Metrics | None = None
        """Hears of requests, if there is monitoring."""
        self.decoding = Mutex()
        """Held while a long line is decoded: one thread for all, however many clients send such lines."""
        self.backlog = 1 << max(0, backlog - 1).bit_length()
        self._container_options = container_options
        self._connections: dict[Connection, None] = {}

    def serve(self, sock: socket.socket, peer: Peer) -> Connection:
        """Start serving a connected socket."""
        connection = Connection(self, sock, peer)
        self._connections[connection] = None
        return connection

    def connect_container(self, manifest: Manifest) -> tuple[Connection, socket.socket]:
        """A connection for a container about to start, and the container's end of it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        container = manifest.container
        allowed = manifest.console.permissions if manifest.console is not None else frozenset()
        peer = Peer(f"Container({container})", container, allowed, self._container_options, None)
        return self.serve(ours, peer), theirs

    def count_connections(self) -> dict[str, int]:
        """How many connections clients have, and how many containers."""
        clients = sum(connection.peer.identity == EXTERN for connection in self._connections)
        return {"client": clients, "container": len(self._connections) - clients}

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.pop(connection, None)

    async def close_clients(self, limit: float) -> None:
        """Close the connections of clients (not those of containers), waiting at most `limit` seconds."""
        clients = [c for c in self._connections if c.peer.identity == EXTERN]
        for connection in clients:
            connection.stop()
        if clients:
            _log.debug("Waiting for open connections")
        deadline = time.monotonic() + limit
        for connection in clients:
            try:
                await self.loop.wait_for(connection.task, max(0.0, deadline - time.monotonic()))
            except (Timeout, Cancelled):
                continue


class Connection:
    """One connection. It is its own notification subscriber."""

    __slots__ = (
        "_arrivals",
        "_buffer",
        "_busy",
        "_channel",
        "_descriptors",
        "_established",
        "_followers",
        "_lagged",
        "_out",
        "_queue",
        "_server",
        "_socket",
        "_subscribed",
        "_writer",
        "peer",
        "task",
    )

    def __init__(self, server: ConsoleServer, sock: socket.socket, peer: Peer) -> None:
        sock.setblocking(False)
        self.peer = peer
        self._server = server
        self._socket = sock
        self._channel = server.loop.register(sock.fileno())
        self._buffer = LineBuffer(peer.options.max_request_size)
        self._arrivals: deque[float] = deque()
        self._descriptors: list[int] = []
        self._queue: deque[bytes] = deque()
        self._out = b""
        self._busy = True
        self._established = False
        self._subscribed = False
        self._lagged = False
        self._followers: dict[Container, Follower] = {}
        self._writer: Task | None = None
        subject = f"Client {peer.name}" if peer.identity == EXTERN else f"Container {peer.identity}"
        granted = ", ".join(
            p for p in (*permissions.PERMISSIONS, *permissions.ADDITIONAL) if p in peer.permissions
        )
        _log.debug(f"{subject} connected with permissions {granted}")
        server.notifications.subscribe(self)
        self.task: Task = server.loop.spawn(self._run())

    def stop(self) -> None:
        """Close the connection. A request under way is carried out, but not answered."""
        if self.task.done:
            return
        if self._busy and self._established:
            _log.warn("Failed to process request: shutdown")
        else:
            _log.info(f"{self.peer.name}: Closing connection")
        self.task.cancel()

    # --- life of a connection

    async def _run(self) -> None:
        name = self.peer.name
        try:
            if await self._handshake():
                self._established = True
                await self._serve()
        except RequestFailed as error:
            _log.warn(f"Failed to process request: {error}")
        except ProtocolError as error:
            _log.warn(f"{name}: Connection error: {error}. Disconnecting...")
        except OSError as error:
            _log.warn(f"{name}: Connection error: {error.strerror}")
        finally:
            if self._established:
                _log.info(f"{name}: Connection closed")
            self._close()

    def _close(self) -> None:
        self._server.notifications.unsubscribe(self)
        for container in list(self._followers):
            self.unfollow(container)
        self._server.forget(self)
        if self._writer is not None:
            self._writer.cancel()
        self._queue.clear()
        self._channel.close()
        self._socket.close()
        self._close_descriptors()

    async def _handshake(self) -> bool:
        """Whether the connection is established."""
        name, limit = self.peer.name, self.peer.connect_timeout
        timer = None if limit is None else self._server.loop.call_later(limit, self._give_up)
        try:
            line = await self._next_line()
            message = await self._decode(line) if line is not None else None
        except (ProtocolError, OSError) as error:
            _log.warn(f"{name}: Connection error: {error}")
            return False
        finally:
            if timer is not None:
                timer.cancel()
        self._count_arrival()
        if message is None:
            _log.info(f"{name}: Connection closed before connect")
            return False
        if not isinstance(message, messages.Connect):
            _log.warn(f"{name}: Received {message!r} instead of Connect")
            return False
        return await self._answer_connect(message)

    def _give_up(self) -> None:
        _log.info(f"{self.peer.name}: Connection timed out")
        self.task.cancel()

    async def _answer_connect(self, message: messages.Connect) -> bool:
        name = self.peer.name
        if message.version[:2] < SERVER_VERSION[:2]:
            _log.warn(
                f"{name}: Client connected with insufficent protocol version {message.version}. "
                f"Expected {SERVER_VERSION}. Disconnecting..."
            )
            await self.send(messages.connect_nack_version(SERVER_VERSION))
            return False
        if not message.subscribe_notifications:
            self._server.notifications.unsubscribe(self)
            self._queue.clear()
        elif "notifications" not in self.peer.permissions:
            _log.warn(f"{name}: Requested notifications without notification permission. Disconnecting...")
            await self.send(messages.connect_nack_permission())
            return False
        await self.send(messages.connect_ack())
        self._subscribed = message.subscribe_notifications
        if self._subscribed:
            _log.debug(f"Client {name} subscribed to notifications")
        return True

    async def _serve(self) -> None:
        for number in itertools.count(1):
            self._busy = False
            if self._lagged and self._subscribed:
                _log.warn(LAGGED)
                return
            self._flush_notifications()
            await self._throttle()
            if number % _IN_A_ROW == 0:
                await self._server.loop.turn()
            line = await self._next_line()
            if line is None:
                return
            self._busy = True
            request = await self._decode(line)
            self._count_arrival()
            if isinstance(request, (messages.Connect, messages.ServerMessage)):
                _log.warn(f"{self.peer.name}: Unexpected message: {request!r}. Disconnecting...")
                return
            await self.send(await self._answer(request))
            self._close_descriptors()

    async def _decode(self, line: bytes) -> messages.Connect | messages.Request | messages.ServerMessage:
        if len(line) < _LONG_LINE:
            return messages.decode_client(line)
        async with self._server.decoding:
            return await self._server.loop.in_thread(messages.decode_client, line)

    async def _answer(self, request: messages.Request) -> bytes:
        if self._server.metrics is not None:
            self._server.metrics.requested(request)
        if permissions.required(request) not in self.peer.permissions:
            return messages.response({"permission_denied": request.wire()})
        if isinstance(request, messages.Exec):
            return await self._server.requests.execute(self, request)
        if isinstance(request, messages.Install):
            return await self._server.requests.install(self, request)
        if isinstance(request, messages.Logs):
            return await self._server.requests.logs(self, request)
        return await self._server.requests.handle(self.peer, request)

    # --- reading

    async def _next_line(self) -> bytes | None:
        """The next line, None at the end of the stream. Raises ProtocolError or OSError."""
        while True:
            line = self._buffer.next_line()
            if line is not None:
                return line
            if not await self._receive():
                if self._buffer.pending:
                    raise ProtocolError("bytes remaining on stream")
                return None

    async def _receive(self) -> bool:
        """Read some bytes into the buffer; False at the end of the stream."""
        while True:
            try:
                data = self._read()
            except BlockingIOError:
                await self._channel.readable()
                continue
            self._buffer.feed(data)
            return bool(data)

    def _read(self) -> bytes:
        """Some bytes. Descriptors that come along are kept for the request, if any request may need them."""
        if "exec" not in self.peer.permissions:
            return self._socket.recv(_READ_SIZE)
        data, descriptors = channel.receive(self._socket, _READ_SIZE)
        self._descriptors += descriptors
        if len(self._descriptors) > MAX_DESCRIPTORS:
            raise ProtocolError("too many descriptors")
        return data

    def take_descriptors(self) -> list[int]:
        """The descriptors that came with the request; the caller closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def _close_descriptors(self) -> None:
        for descriptor in self.take_descriptors():
            os.close(descriptor)

    async def wait_connected(self, event: Future) -> Any:
        """The result of `event`, or None as soon as the client has gone. It must not send anything meanwhile.

        Notifications go out, if it has subscribed to them. Raises ProtocolError.
        """
        self._busy = False
        self._flush_notifications()
        while not event.done:
            try:
                data = self._socket.recv(1)
            except BlockingIOError:
                await self._server.loop.first(event, self._channel.readable())
                continue
            if data:
                raise ProtocolError("bytes from a client whose command is running")
            return None
        self._busy = True
        return event.result()

    async def read_into(self, chunk: memoryview) -> int:
        """Fill `chunk` with raw bytes behind the last line; their number, 0 at the end of the stream.

        For package data. Raises loop.Timeout if nothing arrives for `npk_stream_timeout`.
        """
        loop = self._server.loop
        await loop.turn()
        data = self._buffer.take(len(chunk))
        if data:
            chunk[: len(data)] = data
            return len(data)
        while True:
            try:
                return self._socket.recv_into(chunk)
            except BlockingIOError:
                await loop.wait_for(self._channel.readable(), self.peer.options.npk_stream_timeout)

    # --- limits

    def _count_arrival(self) -> None:
        if self.peer.options.max_requests_per_sec:
            self._arrivals.append(time.monotonic())

    async def _throttle(self) -> None:
        """Wait until the sliding window of one second has room for another message."""
        limit = self.peer.options.max_requests_per_sec
        if not limit:
            return
        arrivals = self._arrivals
        now = time.monotonic()
        while arrivals and now - arrivals[0] >= 1.0:
            arrivals.popleft()
        if len(arrivals) >= limit:
            await self._server.loop.sleep(1.0 - (now - arrivals[0]))

    # --- writing

    async def send(self, data: bytes) -> None:
        """Write behind whatever is still to be written; returns when all of it is with the kernel."""
        if self._writer is not None:
            await self._writer
        self._out += data
        await self._write_out()

    async def _write_out(self) -> None:
        while self._out:
            if not self._write_some():
                await self._channel.writable()

    def _write_some(self) -> bool:
        """Whether the kernel took anything."""
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            return False
        self._out = self._out[sent:]
        return True

    def notify(self, line: bytes) -> None:
        """Deliver a notification as soon as no request is being processed."""
        if self._lagged:
            return
        self._queue.append(line)
        if len(self._queue) > self._server.backlog:
            # Some containers never connect to their console, and nothing must pile up for them.
            self._lagged = True
            self._queue.clear()
            if self._subscribed and not self._busy and not self.task.done:
                _log.warn(LAGGED)
                self.task.cancel()
        elif not self._busy and self._subscribed:
            self._flush_notifications()

    def follow(self, container: Container, output: LastOutput) -> None:
        """Send what the container writes from now on."""
        self._followers[container] = Follower(container, output, self._on_output)

    def unfollow(self, container: Container) -> None:
        """No more of that; no-op if it is not followed."""
        follower = self._followers.pop(container, None)
        if follower is not None:
            follower.stop()

    def _on_output(self) -> None:
        if not self._busy:
            self._flush_notifications()

    def _next_notification(self) -> bytes:
        """Nothing if there is none."""
        if self._queue and self._subscribed:
            return self._queue.popleft()
        for container, follower in list(self._followers.items()):
            if line := follower.next_notification():
                # To the end of the line: what one container floods must not keep others from being heard.
                del self._followers[container]
                self._followers[container] = follower
                if follower.ended:
                    self.unfollow(container)
                return line
        return b""

    def _flush_notifications(self) -> None:
        if self._out:
            return
        while not self._out:
            self._out = self._next_notification()
            if not self._out:
                return
            try:
                self._write_some()
            except OSError:
                # The reader of this connection meets the same error and ends it.
                self._out = b""
                return
        if self._out and self._writer is None:
            self._writer = self._server.loop.spawn(self._drain())

    async def _drain(self) -> None:
        """Write the rest of a notification when the client reads again, then those behind it."""
        try:
            await self._write_out()
        except OSError:
            self._out = b""
        self._writer = None
        if not self._busy:
            self._flush_notifications()
