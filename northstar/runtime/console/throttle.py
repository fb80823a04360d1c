# SPDX-License-Identifier: Apache-2.0
"""Limits of what connections may use: messages per second, and memory for long lines."""

from __future__ import annotations

import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.eventloop.loop import Loop

LONG_LINES = 4 << 20
"""Bytes of all lines together that are too long for the share that each connection has."""


class Throttle:
    """A sliding window of one second over the messages of one connection."""

    __slots__ = ("_arrivals", "_limit", "_loop")

    def __init__(self, loop: Loop, limit: int) -> None:
        """`limit` messages per second, 0 for no limit."""
        self._loop = loop
        self._limit = limit
        self._arrivals: deque[float] = deque()

    def count(self) -> None:
        """A message has come."""
        if self._limit:
            self._arrivals.append(time.monotonic())

    async def wait(self) -> None:
        """Wait until there is room for another message."""
        if not self._limit:
            return
        arrivals = self._arrivals
        now = time.monotonic()
        while arrivals and now - arrivals[0] >= 1.0:
            arrivals.popleft()
        if len(arrivals) >= self._limit:
            await self._loop.sleep(1.0 - (now - arrivals[0]))


class Budget:
    """Memory that many share, in bytes."""

    __slots__ = ("_limit", "_used")

    def __init__(self, limit: int = LONG_LINES) -> None:
        self._limit = limit
        self._used = 0

    def take(self, size: int, enough: int) -> bool:
        """Take some, whether there is any left; whoever is alone gets `enough`, whatever the limit is."""
        if self._used + size > max(self._limit, enough):
            return False
        self._used += size
        return True

    def give_back(self, size: int) -> None:
        """What was taken is free again."""
        self._used -= size
