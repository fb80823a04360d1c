# SPDX-License-Identifier: Apache-2.0
"""What containers write to stdout and stderr.

`discard`: /dev/null. `pipe`: line by line into the log, level debug, target `name:version`. `inherit`:
copied to the daemon's own stream. Containers never get a descriptor of the daemon's.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING

from northstar.runtime import log
from northstar.runtime.loop import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.manifest.model import Io, Manifest
    from northstar.runtime.loop import Loop, Task

MAX_LINE = 64 * 1024
"""A longer line is logged in pieces."""

DRAIN_TIMEOUT = 0.5
"""Seconds."""

BURST = 4000
LINES_PER_SECOND = 1000
"""A stream may have `BURST` lines at once, and this many in the long run; the others are counted and lost."""

FLOOD_PAUSE = 0.02
"""Seconds between reads while lines are lost, so that a flood costs little."""

_CHUNK = 64 * 1024


class Lines:
    """Splits a byte stream into lines of bounded length and, if `limited`, rate; fails on nothing."""

    __slots__ = ("_allowance", "_dropped", "_emit", "_limited", "_refilled", "_rest")

    def __init__(self, emit: Callable[[str], None], *, limited: bool = True) -> None:
        self._emit = emit
        self._limited = limited
        self._rest = b""
        self._allowance = float(BURST)
        self._refilled = time.monotonic()
        self._dropped = 0

    def feed(self, data: bytes) -> float:
        """Take some bytes, none at the end of the stream; seconds to wait before the next ones."""
        if not data:
            self._close()
            return 0.0
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MAX_LINE:
            lines.append(rest[:MAX_LINE] + b" [...]")
            rest = rest[MAX_LINE:]
        self._rest = rest
        allowed = self._take(len(lines))
        if allowed:
            self._tell_dropped()
        for line in lines[:allowed]:
            self._line(line.removesuffix(b"\r"))
        self._dropped += len(lines) - allowed
        return FLOOD_PAUSE if self._dropped else 0.0

    def _close(self) -> None:
        self._tell_dropped()
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _take(self, wanted: int) -> int:
        if not self._limited:
            return wanted
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._refilled) * LINES_PER_SECOND)
        self._refilled = now
        allowed = min(wanted, int(self._allowance))
        self._allowance -= allowed
        return allowed

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._emit(f"[{self._dropped} lines were too many and are lost]")
            self._dropped = 0

    def _line(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), MAX_LINE + 8):
            self._emit(line[start : start + MAX_LINE + 8].decode("utf-8", "replace"))


class Streams:
    """The standard streams of one run of a container.

    `descriptors` are the container's ends by role, to be sent to the forker; `close_ends` closes them
    here. The daemon's ends are read until all copies of the container's ends are closed.
    """

    __slots__ = ("_loop", "_readers", "descriptors")

    def __init__(self, loop: Loop, manifest: Manifest) -> None:
        self._loop = loop
        self._readers: list[Task] = []
        self.descriptors: dict[str, int] = {}
        io: Io | None = manifest.io
        if io is None:
            return
        try:
            for role, number, kind in (("stdout", 1, io.stdout), ("stderr", 2, io.stderr)):
                if kind != "discard":
                    self.descriptors[role] = self._open(manifest, number, kind)
        except BaseException:
            self.close_ends()
            raise

    def close_ends(self) -> None:
        """Close the container's ends, once they were sent or the start has failed."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()

    async def drain(self) -> None:
        """Wait until everything that was written has been passed on.

        Not for long: another process may have got a copy of the container's end, and keeps it.
        """
        for reader in self._readers:
            with contextlib.suppress(Timeout):
                await self._loop.wait_for(reader, DRAIN_TIMEOUT)

    def _open(self, manifest: Manifest, number: int, kind: str) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        # The container may open it again by name, /dev/stdout.
        os.fchown(writer, manifest.uid, manifest.gid)
        os.set_blocking(reader, False)
        if kind == "pipe":
            target = str(manifest.container)
            lines = Lines(lambda line: log.record("debug", target, line))
            passed_on = forward(self._loop, reader, lines.feed)
        else:
            passed_on = forward(self._loop, reader, lambda data: _copy(number, data))
        self._readers.append(self._loop.spawn(passed_on))
        return writer


async def forward(loop: Loop, reader: int, feed: Callable[[bytes], float]) -> None:
    """Pass on what comes out of a pipe, and close it.

    `feed` gets the bytes, none at the end, and tells how many seconds to wait before the next ones.
    """
    channel = loop.register(reader)
    try:
        data = b"-"
        while data:
            try:
                data = os.read(reader, _CHUNK)
            except BlockingIOError:
                await channel.readable()
                continue
            pause = feed(data)
            if pause:
                await loop.sleep(pause)
            else:
                # A busy container must not keep others waiting.
                await loop.turn()
    finally:
        channel.close()
        os.close(reader)


def _copy(number: int, data: bytes) -> float:
    """Write to an own stream; what it does not take at once is lost, the daemon must not block."""
    poller = select.poll()
    poller.register(number, select.POLLOUT)
    while data and poller.poll(0):
        with contextlib.suppress(OSError):
            data = data[os.write(number, data[: select.PIPE_BUF]) :]
            continue
        break
    return 0.0
