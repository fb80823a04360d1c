# SPDX-License-Identifier: Apache-2.0
"""Between asyncio and the client's state machine: bytes of a connection, and who waits for what."""

from __future__ import annotations

import asyncio
from collections import deque

from northstar.client.errors import ConnectionClosed
from northstar.errors import NorthstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from northstar.client.protocol import ClientProtocol


class Wire(asyncio.Protocol):
    """The connection: what arrives is handed to those who wait for it."""

    def __init__(self, protocol: ClientProtocol) -> None:
        self.protocol = protocol
        self.error: Exception | None = None
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: some bytes."""
        try:
            self.protocol.receive(data)
        except NorthstarError as error:
            self._deliver()
            self.fail(error)
        else:
            self._deliver()

    def eof_received(self) -> None:
        """asyncio: the runtime has closed it."""
        self.fail(ConnectionClosed())

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self.fail(ConnectionClosed())

    def pause_writing(self) -> None:
        """asyncio: the runtime does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: it does again."""
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Send, waiting as long as the runtime does not read."""
        if self.error is not None:
            raise self.error
        self._transport.write(data)
        await self._writable.wait()

    def response(self) -> asyncio.Future[Any]:
        """The response of the request that is sent next."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return future

    def fail(self, error: Exception) -> None:
        """The connection has ended; the first reason is told to all who wait."""
        if self.error is not None:
            return
        self.error = error
        for future in (self.established, *self.waiting):
            if not future.done():
                future.set_exception(error)
                # Whoever waited may be gone; that is no reason to complain in the log.
                future.exception()
        self.waiting.clear()
        self.arrived.set()
        self._writable.set()
        self._transport.abort()

    def _deliver(self) -> None:
        if self.protocol.established and not self.established.done():
            self.established.set_result(None)
        while self.protocol.responses:
            response, future = self.protocol.responses.popleft(), self.waiting.popleft()
            if not future.done():
                future.set_result(response)
        if self.protocol.notifications:
            self.arrived.set()
