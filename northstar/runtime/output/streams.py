# SPDX-License-Identifier: Apache-2.0
"""What containers write to stdout and stderr.

`discard`: /dev/null. `pipe`: line by line into the log, level debug, target `name:version`. `inherit`:
copied to the daemon's own stream. Of both the last lines are kept in memory as well (`lastoutput`).
Containers never get a descriptor of the daemon's.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import time

from northstar.runtime import log
from northstar.runtime.eventloop.loop import Cancelled, Future
from northstar.runtime.ownstream import OwnStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from northstar.manifest.model import Io, Manifest
    from northstar.runtime.eventloop.loop import Channel, Loop, Task
    from northstar.runtime.output.lastoutput import LastOutput

MAX_LINE = 64 * 1024
"""A longer line is logged in pieces."""

DRAIN_TIMEOUT = 0.5
"""Seconds until the pipes of a container that has ended are closed, if somebody else holds the other end."""
REST_TIMEOUT = 10.0
"""Seconds that it may take after that to pass on what is in them."""

BURST = 4000
LINES_PER_SECOND = 1000
"""A stream may have `BURST` lines at once, and this many in the long run; the others are counted and lost."""

FLOOD_PAUSE = 0.02
"""Seconds between reads while lines are lost, so that a flood costs little."""

_CHUNK = 64 * 1024
_LINES_IN_A_ROW = 100


class Lines:
    """Splits a byte stream into lines of bounded length and, if `limited`, rate; fails on nothing."""

    __slots__ = ("_allowance", "_dropped", "_emit", "_limited", "_on_lost", "_refilled", "_rest")

    def __init__(
        self,
        emit: Callable[[str], None],
        *,
        limited: bool = True,
        on_lost: Callable[[int, int], None] = lambda lines, size: None,
    ) -> None:
        """`on_lost` gets the number of lines that were too many, and of their bytes."""
        self._emit = emit
        self._limited = limited
        self._on_lost = on_lost
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
        if allowed < len(lines):
            self._dropped += len(lines) - allowed
            self._on_lost(len(lines) - allowed, sum(map(len, lines[allowed:])))
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

    `descriptors` are the container's ends by role, to be sent to the engine; `close_ends` closes them
    here. The daemon's ends are read until all copies of the container's ends are closed.
    """

    __slots__ = ("_kept", "_loop", "_readers", "descriptors")

    def __init__(self, loop: Loop, manifest: Manifest, kept: LastOutput) -> None:
        self._loop = loop
        self._kept = kept
        self._readers: list[Task] = []
        self.descriptors: dict[str, int] = {}
        io: Io | None = manifest.io
        if io is None:
            return
        try:
            for role, number, kind in (("stdout", 1, io.stdout), ("stderr", 2, io.stderr)):
                if kind != "discard":
                    self.descriptors[role] = self._open(manifest, role, number, kind)
        except BaseException:
            self.close_ends()
            raise

    def close_ends(self) -> None:
        """Close the container's ends, once they were sent or the start has failed."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors.clear()

    async def drain(self) -> None:
        """Wait until everything that was written has been passed on, not for long, and close the pipes."""
        await drain(self._loop, self._readers)
        self._readers.clear()

    def _open(self, manifest: Manifest, role: str, number: int, kind: str) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        # The container may open it again by name, /dev/stdout.
        os.fchown(writer, manifest.uid, manifest.gid)
        os.set_blocking(reader, False)
        feed = self._to_log(manifest, role) if kind == "pipe" else self._to_own_stream(number, role)
        self._readers.append(self._loop.spawn(forward(self._loop, reader, feed)))
        return writer

    def _to_log(self, manifest: Manifest, role: str) -> Callable[[bytes], float]:
        target, fields = str(manifest.container), log.container_fields(manifest.container, role)
        kept = self._kept

        def emit(line: str) -> None:
            log.record("debug", target, line, fields)
            kept.add(role, line)

        return Lines(emit, on_lost=kept.lose).feed

    def _to_own_stream(self, number: int, role: str) -> Callable[[bytes], float]:
        kept, stream = self._kept, OwnStream(number)
        lines = Lines(lambda line: kept.add(role, line), on_lost=kept.lose)

        def feed(data: bytes) -> float:
            # What is too much for the lines that are kept is copied nevertheless.
            lines.feed(data)
            _copy(stream, data)
            if not data:
                stream.close()
            return 0.0

        return feed


async def drain(loop: Loop, readers: Sequence[Task]) -> None:
    """Wait for the ends of `forward` tasks, up to `DRAIN_TIMEOUT`, and end those that are left.

    Another process may have got a copy of the other end. What it writes later is not the container's. What is
    in the pipe is; on a slow machine it takes a while to pass it on.
    """
    try:
        await _wait_for(loop, readers, DRAIN_TIMEOUT)
    finally:
        for reader in readers:
            reader.cancel()
    await _wait_for(loop, readers, REST_TIMEOUT)


async def _wait_for(loop: Loop, readers: Sequence[Task], seconds: float) -> None:
    late = Future()
    timer = loop.call_later(seconds, late.set_result)
    try:
        for reader in readers:
            await loop.first(reader, late)
    finally:
        timer.cancel()


async def forward(loop: Loop, reader: int, feed: Callable[[bytes], float]) -> None:
    """Pass on what comes out of a pipe, and close it; when cancelled, what has been read is still passed on.

    `feed` gets the bytes, none at the end, and tells how many seconds to wait before the next ones.
    """
    channel: Channel | None = None
    pieces: Iterator[bytes] = iter(())
    try:
        channel = loop.register(reader)
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        more = True
        while more:
            if not poller.poll(0):
                await channel.readable()
                continue
            data = await _read(loop, reader)
            more, pieces = bool(data), _pieces(data)
            if pause := await _feed(loop, pieces, feed):
                await loop.sleep(pause)
    except Cancelled:
        await _feed(loop, pieces, feed)
        await _feed_rest(loop, reader, feed)
        feed(b"")  # the last line may have no end
        raise
    finally:
        if channel is not None:
            channel.close()
        os.close(reader)


async def _feed(loop: Loop, pieces: Iterator[bytes], feed: Callable[[bytes], float]) -> float:
    """A busy container must not keep others waiting, and each line may be one for the log."""
    pause = 0.0
    for piece in pieces:
        pause = feed(piece)
        await loop.turn()
    return pause


async def _feed_rest(loop: Loop, reader: int, feed: Callable[[bytes], float]) -> None:
    """What a pipe holds now, and no more than it can hold."""
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    left = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    while left > 0 and poller.poll(0):
        data = await _read(loop, reader)
        if not data:
            return
        left -= len(data)
        await _feed(loop, _pieces(data), feed)


def _pieces(data: bytes) -> Iterator[bytes]:
    """Of at most `_LINES_IN_A_ROW` lines; one without anything at the end of the stream."""
    start = end = 0
    for count in itertools.count(1):
        found = data.find(b"\n", end)
        end = found + 1 if found >= 0 else len(data)
        if found < 0 or count % _LINES_IN_A_ROW == 0:
            yield data[start:end]
            start = end
            if end == len(data):
                return


async def _read(loop: Loop, reader: int) -> bytes:
    """Read from a pipe in which there is something, in a thread.

    A process that has called splice(2) from a silent socket into the pipe keeps the pipe's lock until it is
    killed, and whoever reads meanwhile waits in the kernel, O_NONBLOCK or not.
    """
    # Made here: memory that a thread allocates stays with the thread's part of the heap.
    buffer = bytearray(_CHUNK)
    count = await loop.in_thread(os.readv, reader, [buffer])
    return bytes(memoryview(buffer)[:count])


def _copy(stream: OwnStream, data: bytes) -> None:
    """Write to an own stream; what it does not take at once is lost, the daemon must not block."""
    with contextlib.suppress(OSError):
        while data and (taken := stream.write(data)):
            data = data[taken:]
