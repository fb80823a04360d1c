# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager how it goes: the protocol of sd_notify(3), Type=notify and WatchdogSec."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from northstar.runtime.loop import Loop


class ServiceManager:
    """Does nothing if there is none (NOTIFY_SOCKET is not set)."""

    def __init__(self, loop: Loop) -> None:
        # Containers and debug commands have nothing to tell it.
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        self._interval = _interval(os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", ""))
        self._loop = loop
        # Made now: a sign of life must not fail because no descriptor is left.
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._path else None
        )

    def ready(self) -> None:
        """Start-up is complete; from now on the watchdog is fed, as long as the loop turns."""
        self._send("READY=1")
        if self._interval and self._path:
            self._feed()

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._send("STOPPING=1")

    def _feed(self) -> None:
        self._loop.call_later(self._interval, self._feed)
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            self._socket.sendto(text.encode(), address)
        except OSError:
            # The manager is restarting or overloaded; it is no reason to stop.
            return


def _interval(microseconds: str, pid: str) -> float:
    """Seconds between two signs of life: half of what the manager allows, 0 if it wants none."""
    if not microseconds.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(microseconds) / 2e6
