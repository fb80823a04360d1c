# SPDX-License-Identifier: Apache-2.0
"""The last output of a container, kept in memory for whoever asks later, and handed to who follows it.

A follower has no queue of its own. It remembers a position and takes what is new when its connection can be
written to; what has been overwritten until then is counted. So a slow follower costs nothing.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from itertools import islice

from northstar.protocol import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from northstar.names import Container

STREAMS = ("stdout", "stderr")
OVERHEAD = 48
"""Bytes that a kept line costs besides its record: a bytes object and its place in a deque."""

_HEADER = struct.Struct("<QB")


class LastOutput:
    """Lines of one container, the oldest of which make room for new ones.

    It outlives the run it is of: the next one, or uninstalling, ends it.
    """

    __slots__ = ("_followers", "_limit", "_lines", "_size", "end", "lost_bytes", "lost_lines", "removed")

    def __init__(self) -> None:
        self._limit = 0
        # Most containers are silent, and an empty deque takes 700 bytes.
        self._lines: deque[bytes] | None = None
        self._size = 0
        self._followers: dict[Follower, None] = {}
        self.end = 0
        """Number of lines so far, of all runs."""
        self.lost_lines = 0
        self.lost_bytes = 0
        self.removed = False

    def begin(self, limit: int) -> None:
        """A run begins: forget the one before, and keep up to `limit` bytes of memory from now on."""
        self._limit = limit
        self._lines = None
        self._size = 0
        self.lost_lines = self.lost_bytes = 0

    def remove(self) -> None:
        """The container was uninstalled: nothing is kept, and following ends."""
        self.begin(0)
        self.removed = True
        self._wake()

    def last(self, count: int) -> list[str]:
        """The last lines that are kept, at most so many."""
        lines = self._lines or ()
        chosen = islice(lines, max(0, len(lines) - count), None)
        return [record[_HEADER.size :].decode(errors="replace") for record in chosen]

    def add(self, stream: str, text: str) -> None:
        """Keep a line."""
        data = text.encode()
        kept = data[: max(0, self._limit - OVERHEAD - _HEADER.size)]
        record = _HEADER.pack(time.time_ns() // 1000, STREAMS.index(stream)) + kept
        self.lost_bytes += len(data) - len(kept)
        if self._lines is None:
            self._lines = deque()
        self._lines.append(record)
        self._size += len(record) + OVERHEAD
        self.end += 1
        while self._size > self._limit:
            oldest = self._lines.popleft()
            self._size -= len(oldest) + OVERHEAD
            self.lose(1, len(oldest) - _HEADER.size)
        self._wake()

    def lose(self, lines: int, size: int) -> None:
        """Count lines that are not kept."""
        self.lost_lines += lines
        self.lost_bytes += size

    def since(self, position: int) -> list[dict[str, Any]]:
        """The kept lines from a position on, as the console shows them."""
        found = []
        for record in islice(self._lines or (), max(0, position - self.first), None):
            stamp, stream = _HEADER.unpack_from(record)
            line = record[_HEADER.size :].decode("utf-8", "ignore")
            found.append({"time": stamp, "stream": STREAMS[stream], "line": line})
        return found

    @property
    def first(self) -> int:
        """Position of the oldest line that is kept."""
        return self.end - len(self._lines or ())

    def to_json(self) -> dict[str, Any]:
        """The data object of a response."""
        return {
            "lines": self.since(self.first),
            "lost": {"lines": self.lost_lines, "bytes": self.lost_bytes},
        }

    def follow(self, follower: Follower) -> None:
        """Wake it from now on."""
        self._followers[follower] = None

    def unfollow(self, follower: Follower) -> None:
        """Do not wake it any more."""
        self._followers.pop(follower, None)

    def _wake(self) -> None:
        for follower in list(self._followers):
            follower.wake()


class Follower:
    """The interest of one connection in one container."""

    __slots__ = ("_container", "_output", "_position", "ended", "wake")

    def __init__(self, container: Container, output: LastOutput, wake: Callable[[], None]) -> None:
        """What comes from now on is of interest. `wake` must not block and must not raise."""
        self._container = container
        self._output = output
        self._position = output.end
        self.ended = False
        """There will be nothing more."""
        self.wake = wake
        output.follow(self)

    def next_notification(self) -> bytes:
        """What is to be written next; nothing if there is nothing new."""
        output = self._output
        missed = max(0, output.first - self._position)
        lines = output.since(self._position)
        self._position += missed + len(lines)
        if lines or missed:
            details = {"lines": lines, "lost": missed}
            return messages.notification({"output": [str(self._container), details]})
        if output.removed and not self.ended:
            self.ended = True
            return messages.notification({"output_end": str(self._container)})
        return b""

    def stop(self) -> None:
        """No more."""
        self._output.unfollow(self)
