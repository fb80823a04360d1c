# SPDX-License-Identifier: Apache-2.0
"""Notifications on their way to one connection: they wait while it has a request, or does not read."""

from __future__ import annotations

from collections import deque

from northstar.runtime.output.lastoutput import Follower

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.names import Container
    from northstar.runtime.output.lastoutput import LastOutput


class Outbox:
    """A queue of limited length, and the output of containers that are followed, which needs no queue."""

    __slots__ = ("_backlog", "_followers", "_queue", "_wake", "lagged", "subscribed")

    def __init__(self, backlog: int, wake: Callable[[], None]) -> None:
        """`backlog` notifications may wait. `wake` is called when there is output to be taken."""
        self._backlog = backlog
        self._wake = wake
        self._queue: deque[bytes] = deque()
        self._followers: dict[Container, Follower] = {}
        self.subscribed = False
        """Whether the queue is for the connection at all; its connect message says so."""
        self.lagged = False
        """Whether more had to wait than may. Nothing is kept from then on."""

    def put(self, line: bytes) -> None:
        """Something has happened."""
        if self.lagged:
            return
        self._queue.append(line)
        if len(self._queue) > self._backlog:
            # Some containers never connect to their console, and nothing must pile up for them.
            self.lagged = True
            self._queue.clear()

    def follow(self, container: Container, output: LastOutput) -> None:
        """Include what the container writes from now on."""
        self.unfollow(container)
        self._followers[container] = Follower(container, output, self._wake)

    def unfollow(self, container: Container) -> None:
        """No more of that; no-op if it is not followed."""
        follower = self._followers.pop(container, None)
        if follower is not None:
            follower.stop()

    def take(self) -> bytes:
        """The next line, nothing if there is none."""
        if self._queue and self.subscribed:
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

    def clear(self) -> None:
        """Forget what waits."""
        self._queue.clear()

    def close(self) -> None:
        """Forget everything."""
        self._queue.clear()
        for container in list(self._followers):
            self.unfollow(container)
