# SPDX-License-Identifier: Apache-2.0
"""The daemon's own standard streams, written to without ever waiting for who reads them."""

from __future__ import annotations

import os
import select
import socket
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class OwnStream:
    """One of the descriptors 1 and 2.

    O_NONBLOCK belongs to the open file, which we share with others. So a pipe or a terminal is opened once
    more; a socket has a flag for each call. Regular files are written to as they are: they have no reader.
    """

    __slots__ = ("_descriptor", "_number", "_socket", "write")

    def __init__(self, number: int) -> None:
        self.write: Callable[[bytes], int] = self._write_when_ready
        """Write some bytes; how many of them were taken. Raises OSError, but not EAGAIN."""
        self._number = number
        self._descriptor = -1
        self._socket: socket.socket | None = None
        try:
            mode = os.fstat(number).st_mode
            if stat.S_ISREG(mode):
                self.write = self._write_plainly
            elif stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(number))
                self.write = self._send
            else:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._descriptor = os.open(f"/proc/self/fd/{number}", flags)
                self.write = self._write_anew
        except OSError:
            # Closed, or it may not be opened by us.
            return

    def close(self) -> None:
        """Give up our own way to it."""
        self.write = self._write_when_ready
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _write_plainly(self, data: bytes) -> int:
        return os.write(self._number, data)

    def _write_anew(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def _send(self, data: bytes) -> int:
        assert self._socket is not None
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def _write_when_ready(self, data: bytes) -> int:
        """The next best: a pipe that is ready takes this much, unless somebody else is faster."""
        poller = select.poll()
        poller.register(self._number, select.POLLOUT)
        return os.write(self._number, data[: select.PIPE_BUF]) if poller.poll(0) else 0
