# SPDX-License-Identifier: Apache-2.0
"""A disk with a volatile cache, which QEMU reaches as a network block device.

What was not flushed may be lost when the power is cut: of the writes since the last flush any may have
reached the medium, and any not, as the seed says. The protocol is that of nbd.git/doc/proto.md, fixed
newstyle, with simple replies.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

BLOCK = 4096

_INIT_MAGIC, _OPTION_MAGIC, _REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST_MAGIC, _SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _GO = 1, 2, 7
_ACK, _INFO, _UNSUPPORTED = 1, 3, 0x80000001
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA = 1, 4, 8
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FUA = 1
_EIO, _EINVAL = 5, 22
_REQUEST = struct.Struct(">IHHQQI")


class _Plan:
    """When the power is to fail."""

    def __init__(self, recognised: Callable[[bytes], bool], flushes: int, chance: random.Random) -> None:
        self.recognised = recognised
        self.flushes = flushes
        self.chance = chance
        self.reached = False


class VolatileDisk:
    """The disk and its server; methods may be called from any thread."""

    def __init__(self, image: Path, path: Path) -> None:
        """Serve what is in a file, which is not written to, on a unix socket."""
        self._medium = bytearray(image.read_bytes())
        self._seen = bytearray(self._medium)
        self._cached: dict[int, bytes] = {}
        """Blocks that were written since the last flush."""
        self._dead = self._failing = False
        self._plan: _Plan | None = None
        self.flushes = self.lost = 0
        self._lock = threading.Lock()
        self.url = Path(f"nbd:unix:{path}")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Serve nobody any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    # --- faults

    def cut(self, chance: random.Random) -> None:
        """The power fails now. Until `power_on` everything seems to work, and nothing of it lasts."""
        with self._lock:
            self._cut(chance)

    def cut_at(self, recognised: Callable[[bytes], bool], flushes: int, chance: random.Random) -> None:
        """The power will fail so many flushes after a write that is recognised."""
        with self._lock:
            self._plan = _Plan(recognised, flushes, chance)

    @property
    def reached(self) -> bool:
        """Whether the write that `cut_at` waits for has come."""
        return self._plan is None or self._plan.reached

    @property
    def dead(self) -> bool:
        """Whether the power has failed."""
        return self._dead

    def _cut(self, chance: random.Random) -> None:
        share = chance.random()
        for number, data in self._cached.items():
            if chance.random() < share:
                self._medium[number * BLOCK : number * BLOCK + len(data)] = data
            else:
                self.lost += 1
        self._cached.clear()
        self._dead = True
        self._plan = None

    def _follow_plan(self, written: bytes | None) -> None:
        """Something was written, or flushed."""
        plan = self._plan
        if plan is None or self._dead:
            return
        if plan.reached:
            plan.flushes -= written is None
        elif written is not None:
            plan.reached = plan.recognised(written)
        if plan.reached and plan.flushes <= 0:
            self._cut(plan.chance)

    def power_on(self) -> None:
        """The machine finds what is on the medium."""
        with self._lock:
            self._seen = bytearray(self._medium)
            self._dead = False

    def fail(self, on: bool) -> None:
        """Each read, write and flush is an error from now on, or none."""
        with self._lock:
            self._failing = on

    # --- requests

    def _read(self, offset: int, size: int) -> bytes:
        return bytes(self._seen[offset : offset + size])

    def _write(self, offset: int, data: bytes, *, through: bool) -> None:
        self._seen[offset : offset + len(data)] = data
        if self._dead:
            self.lost += 1
            return
        for number in range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1):
            block = bytes(self._seen[number * BLOCK : (number + 1) * BLOCK])
            if through:
                self._medium[number * BLOCK : number * BLOCK + len(block)] = block
                self._cached.pop(number, None)
            else:
                self._cached[number] = block
        self._follow_plan(data)

    def _flush(self) -> None:
        if self._dead:
            return
        self.flushes += 1
        for number, data in self._cached.items():
            self._medium[number * BLOCK : number * BLOCK + len(data)] = data
        self._cached.clear()
        self._follow_plan(None)

    # --- protocol

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                if self._negotiate(connection, stream):
                    while self._answer(connection, stream):
                        pass
            except (OSError, EOFError, struct.error):
                return

    def _negotiate(self, connection: socket.socket, stream) -> bool:  # type: ignore[no-untyped-def]
        connection.sendall(struct.pack(">QQH", _INIT_MAGIC, _OPTION_MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES))
        (flags,) = struct.unpack(">I", stream.read(4))
        features = _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA
        while True:
            _, option, size = struct.unpack(">QII", stream.read(16))
            stream.read(size)
            if option == _EXPORT_NAME:
                padding = b"" if flags & _NO_ZEROES else bytes(124)
                connection.sendall(struct.pack(">QH", len(self._seen), features) + padding)
                return True
            if option == _GO:
                information = struct.pack(">HQH", 0, len(self._seen), features)
                self._reply(connection, option, _INFO, information)
                self._reply(connection, option, _ACK)
                return True
            if option == _ABORT:
                self._reply(connection, option, _ACK)
                return False
            self._reply(connection, option, _UNSUPPORTED)

    @staticmethod
    def _reply(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
        connection.sendall(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)

    def _answer(self, connection: socket.socket, stream) -> bool:  # type: ignore[no-untyped-def]
        head = stream.read(_REQUEST.size)
        if len(head) < _REQUEST.size:
            return False
        _, flags, kind, cookie, offset, size = _REQUEST.unpack(head)
        data = stream.read(size) if kind == _WRITE else b""
        error, found = 0, b""
        with self._lock:
            if kind == _DISCONNECT:
                return False
            if self._failing:
                error = _EIO
            elif kind == _READ:
                found = self._read(offset, size)
            elif kind == _WRITE:
                self._write(offset, data, through=bool(flags & _FUA))
            elif kind == _FLUSH:
                self._flush()
            else:
                error = _EINVAL
        connection.sendall(struct.pack(">IIQ", _SIMPLE_REPLY_MAGIC, error, cookie) + found)
        return True
