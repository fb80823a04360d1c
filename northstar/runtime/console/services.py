# SPDX-License-Identifier: Apache-2.0
"""What all connections of the console have in common."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.protocol import requests
    from northstar.runtime.console.handlers import Handlers
    from northstar.runtime.console.notifications import Notifications
    from northstar.runtime.console.throttle import Budget
    from northstar.runtime.eventloop.loop import Loop, Mutex


class Services:
    """What all connections have in common."""

    __slots__ = ("backlog", "decoding", "handlers", "long_lines", "loop", "notifications", "on_request")

    def __init__(
        self,
        loop: Loop,
        notifications: Notifications,
        handlers: Handlers,
        decoding: Mutex,
        long_lines: Budget,
        backlog: int,
    ) -> None:
        """`backlog` is the number of notifications that a slow subscriber may fall behind."""
        self.loop = loop
        self.notifications = notifications
        self.handlers = handlers
        self.decoding = decoding
        """Held while a long line is decoded: one thread for all, however many clients send such lines."""
        self.long_lines = long_lines
        self.backlog = backlog
        self.on_request: Callable[[requests.Request], None] | None = None
        """Hears of requests, if there is monitoring."""
