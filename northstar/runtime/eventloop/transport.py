# SPDX-License-Identifier: Apache-2.0
"""A stream socket whose other end belongs to somebody who may want to hold us up.

Nothing here waits in the loop's thread: neither for a slow reader or writer, nor for the closing of a
descriptor that was sent along. Where the kernel can refuse these it does; else, or if some are wanted, they
are taken and closed in a thread.
"""

from __future__ import annotations

import socket

from northstar.errors import ProtocolError
from northstar.kernel import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.eventloop.loop import Future, Loop

KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
USER_TIMEOUT = 90_000
"""Milliseconds without a sign of a TCP peer, be it idle or not, until its connection ends: tcp(7)."""


class Transport:
    """A connected socket, non-blocking from now on, with what is still to be written to it."""

    __slots__ = ("_channel", "_descriptors", "_loop", "_out", "_refusing", "_socket", "_wanted")

    def __init__(self, loop: Loop, sock: socket.socket, wanted: int = 0) -> None:
        """`wanted`: how many descriptors the peer may send until they are taken. Raises OSError."""
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            _keep_alive(sock)
        self._refusing = not wanted and sockets.refuse_descriptors(sock)
        self._wanted = wanted
        self._descriptors: list[int] = []
        self._out = b""
        self._loop = loop
        self._socket = sock
        self._channel = loop.register(sock.fileno())

    # --- reading

    async def read(self, size: int, limit: float | None = None) -> bytes:
        """Some bytes, at most `size`; none at the end of the stream. A cancelled read takes none.

        Raises OSError, ProtocolError (too many descriptors), and loop.Timeout if nothing comes for `limit`
        seconds.
        """
        while True:
            try:
                if not self._refusing:
                    size, accompanied = sockets.peek(self._socket, size)
                    if accompanied:
                        return await self._loop.in_thread(self._receive, size)
                return self._socket.recv(size)
            except BlockingIOError:
                if limit is None:
                    await self._channel.readable()
                else:
                    await self._loop.wait_for(self._channel.readable(), limit)

    def _receive(self, size: int) -> bytes:
        """Read with descriptors, in a thread."""
        data, descriptors = sockets.receive(self._socket, size)
        kept = descriptors if len(self._descriptors) + len(descriptors) <= self._wanted else []
        self._descriptors += kept
        if not kept:
            sockets.close_all(descriptors)
            if self._wanted:
                raise ProtocolError("too many descriptors")
        return data

    def take_descriptors(self) -> list[int]:
        """The descriptors that have come; the caller closes them, in a thread."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def look(self) -> bool | None:
        """Whether there is something to read, without reading it; None at the end of the stream.

        Raises OSError.
        """
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK)) or None
        except BlockingIOError:
            return False

    def stirred(self) -> Future:
        """Done when `look` may see something new."""
        return self._channel.readable()

    # --- writing

    @property
    def pending(self) -> bool:
        """Whether bytes wait until the peer reads."""
        return bool(self._out)

    def write(self, data: bytes) -> None:
        """Write what the kernel takes now; the rest is pending. Raises OSError, then nothing is."""
        self._out += data
        try:
            self._write_some()
        except OSError:
            self._out = b""
            raise

    async def flush(self) -> None:
        """Wait until nothing is pending. Raises OSError, then nothing is."""
        while self._out:
            await self._channel.writable()
            try:
                self._write_some()
            except OSError:
                self._out = b""
                raise

    def _write_some(self) -> None:
        while self._out:
            try:
                self._out = self._out[self._socket.send(self._out) :]
            except BlockingIOError:
                return

    # --- the end

    async def close(self) -> None:
        """Close it, and what was not taken."""
        self._channel.close()
        self._out = b""
        descriptors = self.take_descriptors()
        if self._refusing and not descriptors:
            self._socket.close()
        else:
            await close_apart(self._loop, self._socket, descriptors)


async def close_apart(loop: Loop, sock: socket.socket, descriptors: list[int]) -> None:
    """Close a socket and descriptors in a thread: also what waits in the socket may make it take long."""

    def work() -> None:
        sock.close()
        sockets.close_all(descriptors)

    try:
        await loop.in_thread(work)
    except OSError:
        # No thread can be had. Waiting is the lesser evil.
        work()


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
