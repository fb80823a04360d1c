# SPDX-License-Identifier: Apache-2.0
"""A console connection: handshake, requests in order, notifications in between."""

from __future__ import annotations

import contextlib
import itertools

from northstar import API_VERSION
from northstar.errors import ProtocolError
from northstar.kernel import sockets
from northstar.names import Version
from northstar.protocol import decoding, messages, permissions, requests
from northstar.protocol.framing import LineBuffer
from northstar.runtime import log
from northstar.runtime.console.outbox import Outbox
from northstar.runtime.console.peer import RequestFailed
from northstar.runtime.console.throttle import Throttle
from northstar.runtime.eventloop.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from northstar.names import Container
    from northstar.runtime.console.peer import Peer
    from northstar.runtime.console.services import Services
    from northstar.runtime.eventloop.loop import Future, Task, Timer
    from northstar.runtime.output.lastoutput import LastOutput

_log = log.Logger("runtime::console")

SERVER_VERSION = Version.parse(API_VERSION)
MAX_DESCRIPTORS = 3
LAGGED = "Client connection lagged notifications. Closing"
FIRST_LINE = 4096
"""Longest line before the handshake, in bytes."""
SHARE = 8 * 1024
"""Bytes that each connection may keep of what it has received. More of it comes out of a common budget."""
LONG_LINE_LIMIT = 10.0
"""Seconds until a line that needs more than this share has to be complete."""

_READ_SIZE = 4 * 1024
_READ_SIZE_LONG = 64 * 1024
"""While a line is read that needs more than the share."""
_IN_A_ROW = 16
"""Handlers of one client before others have a turn, also if it sends faster than we answer."""
_PATIENT = (requests.Boot, requests.Stop, requests.Wait)
"""What may wait for long."""
_LONG_LINE = 16 * 1024
"""Bytes of a line that takes so long to decode that others would notice."""


class Connection:
    """One connection. It is its own notification subscriber."""

    __slots__ = (
        "_borrowed",
        "_buffer",
        "_busy",
        "_outbox",
        "_services",
        "_throttle",
        "_transport",
        "_writer",
        "ending",
        "established",
        "peer",
        "task",
    )

    def __init__(self, services: Services, sock: socket.socket, peer: Peer) -> None:
        """Start serving a connected socket. Raises OSError; then the socket is still the caller's."""
        loop = services.loop
        wanted = MAX_DESCRIPTORS if "exec" in peer.permissions else 0
        self._transport = Transport(loop, sock, wanted)
        self.peer = peer
        self.established = False
        """Whether the handshake is over."""
        self.ending = False
        """Whether it was told to end."""
        self._services = services
        self._buffer = LineBuffer(min(FIRST_LINE, peer.options.max_request_size))
        self._borrowed = 0
        self._throttle = Throttle(loop, peer.options.max_requests_per_sec)
        self._outbox = Outbox(services.backlog, self._on_output)
        self._busy = True
        self._writer: Task | None = None
        subject = f"Container {peer.identity}" if peer.contained else f"Client {peer.name}"
        granted = ", ".join(
            p for p in (*permissions.PERMISSIONS, *permissions.ADDITIONAL) if p in peer.permissions
        )
        _log.debug(f"{subject} connected with permissions {granted}")
        services.notifications.subscribe(self)
        self.task: Task = loop.spawn(self._run())

    def stop(self) -> None:
        """Close the connection. A request under way is carried out, but not answered."""
        if self.task.done:
            return
        if self._busy and self.established:
            _log.warn("Failed to process request: shutdown")
        else:
            _log.info(f"{self.peer.name}: Closing connection")
        self.task.cancel()

    def give_up(self, reason: str) -> None:
        """Close the connection of who takes too long."""
        _log.info(f"{self.peer.name}: {reason}")
        self.ending = True
        self.task.cancel()

    # --- life of a connection

    async def _run(self) -> None:
        name = self.peer.name
        try:
            if await self._handshake():
                self.established = True
                await self._serve()
        except RequestFailed as error:
            _log.warn(f"Failed to process request: {error}")
        except ProtocolError as error:
            _log.warn(f"{name}: Connection error: {error}. Disconnecting...")
        except OSError as error:
            _log.warn(f"{name}: Connection error: {error.strerror}")
        finally:
            if self.established:
                _log.info(f"{name}: Connection closed")
            await self._close()

    async def _close(self) -> None:
        self._services.notifications.unsubscribe(self)
        self._outbox.close()
        if self._writer is not None:
            self._writer.cancel()
        self._borrow(0)
        await self._transport.close()

    async def _handshake(self) -> bool:
        """Whether the connection is established."""
        name, limit = self.peer.name, self.peer.connect_timeout
        timer = None
        if limit is not None:
            timer = self._services.loop.call_later(limit, lambda: self.give_up("Connection timed out"))
        try:
            line = await self._next_line()
            message = await self._decode(line) if line is not None else None
        except (ProtocolError, OSError) as error:
            _log.warn(f"{name}: Connection error: {error}")
            return False
        finally:
            if timer is not None:
                timer.cancel()
        self._throttle.count()
        if message is None:
            _log.info(f"{name}: Connection closed before connect")
            return False
        if not isinstance(message, requests.Connect):
            _log.warn(f"{name}: Received {message!r} instead of Connect")
            return False
        self._buffer.limit = self.peer.options.max_request_size
        return await self._answer_connect(message)

    async def _answer_connect(self, message: requests.Connect) -> bool:
        name = self.peer.name
        if message.version[:2] < SERVER_VERSION[:2]:
            _log.warn(
                f"{name}: Client connected with insufficent protocol version {message.version}. "
                f"Expected {SERVER_VERSION}. Disconnecting..."
            )
            await self.send(messages.connect_nack_version(SERVER_VERSION))
            return False
        if not message.subscribe_notifications:
            self._services.notifications.unsubscribe(self)
            self._outbox.clear()
        elif "notifications" not in self.peer.permissions:
            _log.warn(f"{name}: Requested notifications without notification permission. Disconnecting...")
            await self.send(messages.connect_nack_permission())
            return False
        if message.subscribe_notifications and message.notifications:
            self._services.notifications.subscribe(self, frozenset(message.notifications))
        await self.send(messages.connect_ack())
        self._outbox.subscribed = message.subscribe_notifications
        if self._outbox.subscribed:
            _log.debug(f"Client {name} subscribed to notifications")
        return True

    async def _serve(self) -> None:
        for number in itertools.count(1):
            self._busy = False
            if self._lagged:
                _log.warn(LAGGED)
                return
            self._flush_notifications()
            await self._throttle.wait()
            if number % _IN_A_ROW == 0:
                await self._services.loop.turn()
            line = await self._next_line()
            if line is None:
                return
            self._busy = True
            request = await self._decode(line)
            del line
            self._borrow(self._buffer.pending)
            self._throttle.count()
            if isinstance(request, (requests.Connect, messages.ServerMessage)):
                _log.warn(f"{self.peer.name}: Unexpected message: {request!r}. Disconnecting...")
                return
            await self.send(await self._answer(request))
            if left := self._transport.take_descriptors():
                await self._services.loop.in_thread(sockets.close_all, left)

    async def _decode(self, line: bytes) -> requests.Connect | requests.Request | messages.ServerMessage:
        if len(line) < _LONG_LINE:
            return decoding.decode_client(line)
        async with self._services.decoding:
            return await self._services.loop.in_thread(decoding.decode_client, line)

    async def _answer(self, request: requests.Request) -> bytes:
        handlers = self._services.handlers
        if self._services.on_request is not None:
            self._services.on_request(request)
        if not permissions.allowed(request, self.peer.permissions):
            return messages.response({"permission_denied": request.wire()})
        if isinstance(request, requests.Exec):
            return await handlers.execute(self, request)
        if isinstance(request, requests.Install):
            return await handlers.install(self, request)
        if isinstance(request, requests.Logs):
            return await handlers.logs(self, request)
        if isinstance(request, requests.Updates) and request.follow:
            self._services.notifications.follow_updates(self)
        if isinstance(request, _PATIENT):
            return await self._answer_patiently(request)
        return await handlers.handle(self.peer, request)

    async def _answer_patiently(self, request: requests.Request) -> bytes:
        """A request may wait for long: until the client has gone, and notifications go out meanwhile."""
        answer = self._services.loop.spawn(self._services.handlers.handle(self.peer, request))
        self._busy = False
        self._flush_notifications()
        try:
            while not answer.done and (there := self._transport.look()) is not None:
                # Who sends more requests meanwhile gets their answers behind this one.
                await self._services.loop.first(answer, *([] if there else [self._transport.stirred()]))
        finally:
            self._busy = True
            if not answer.done:
                answer.cancel()
        line: bytes = answer.result() if answer.done else b""
        return line

    # --- reading

    async def _next_line(self) -> bytes | None:
        """The next line, None at the end of the stream. Raises ProtocolError or OSError."""
        patience: Timer | None = None
        try:
            while True:
                line = self._buffer.next_line()
                if line is not None:
                    return line
                size = _READ_SIZE_LONG if self._borrowed else _READ_SIZE
                data = await self._transport.read(size)
                if not data:
                    if self._buffer.pending:
                        raise ProtocolError("bytes remaining on stream")
                    return None
                self._buffer.feed(data)
                self._borrow(self._buffer.pending)
                if self._borrowed and patience is None:
                    patience = self._services.loop.call_later(LONG_LINE_LIMIT, self._lose_patience)
        finally:
            if patience is not None:
                patience.cancel()

    def _lose_patience(self) -> None:
        self.give_up("A long line was not completed in time")

    def _borrow(self, kept: int) -> None:
        """Account for bytes that are kept beyond the share. Raises ProtocolError if all have too many."""
        more = max(0, kept - SHARE) - self._borrowed
        if more > 0 and not self._services.long_lines.take(more, self.peer.options.max_request_size):
            raise ProtocolError("too many long lines at the same time")
        if more < 0:
            self._services.long_lines.give_back(-more)
        self._borrowed += more

    def take_descriptors(self) -> list[int]:
        """The descriptors that came with the request; the caller closes them, in a thread."""
        return self._transport.take_descriptors()

    async def wait_connected(self, event: Future) -> Any:
        """The result of `event`, or None as soon as the client has gone. It must not send anything meanwhile.

        Notifications go out, if it has subscribed to them. Raises ProtocolError.
        """
        self._busy = False
        self._flush_notifications()
        while not event.done:
            there = self._transport.look()
            if there:
                raise ProtocolError("bytes from a client whose command is running")
            if there is None:
                return None
            await self._services.loop.first(event, self._transport.stirred())
        self._busy = True
        return event.result()

    async def read_package(self, size: int) -> bytes:
        """Some of the raw bytes behind the last line, at most `size`; none at the end of the stream.

        Raises loop.Timeout if nothing arrives for `npk_stream_timeout`.
        """
        await self._services.loop.turn()
        data = self._buffer.take(size)
        return data or await self._transport.read(size, self.peer.options.npk_stream_timeout)

    def has_more(self) -> bool:
        """Whether `read_package` would give something at once. Raises OSError."""
        return bool(self._buffer.pending or self._transport.look())

    # --- writing

    async def send(self, data: bytes) -> None:
        """Write behind whatever is still to be written; returns when all of it is with the kernel."""
        if self._writer is not None:
            await self._writer
        self._transport.write(data)
        await self._transport.flush()

    @property
    def _lagged(self) -> bool:
        return self._outbox.lagged and self._outbox.subscribed

    def notify(self, line: bytes) -> None:
        """Deliver a notification as soon as no request is being processed."""
        if self._outbox.lagged:
            return
        self._outbox.put(line)
        if self._busy:
            return
        if self._lagged and not self.task.done:
            _log.warn(LAGGED)
            self.task.cancel()
        else:
            self._flush_notifications()

    def follow(self, container: Container, output: LastOutput) -> None:
        """Send what the container writes from now on."""
        self._outbox.follow(container, output)

    def unfollow(self, container: Container) -> None:
        """No more of that; no-op if it is not followed."""
        self._outbox.unfollow(container)

    def _on_output(self) -> None:
        if not self._busy:
            self._flush_notifications()

    def _flush_notifications(self) -> None:
        if self._transport.pending:
            return
        while not self._transport.pending:
            line = self._outbox.take()
            if not line:
                return
            try:
                self._transport.write(line)
            except OSError:
                # The reader of this connection meets the same error and ends it.
                return
        if self._writer is None:
            self._writer = self._services.loop.spawn(self._drain())

    async def _drain(self) -> None:
        """Write the rest of a notification when the client reads again, then those behind it."""
        with contextlib.suppress(OSError):
            await self._transport.flush()
        self._writer = None
        if not self._busy:
            self._flush_notifications()
