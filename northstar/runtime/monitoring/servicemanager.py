# SPDX-License-Identifier: Apache-2.0
"""Telling the service manager how it goes.

The protocol of systemd is that of sd_notify(3), Type=notify and WatchdogSec. Others, s6, dinit and our init
script, have a descriptor open for the daemon, which gets a line when start-up is complete.
"""

from __future__ import annotations

import contextlib
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.eventloop.loop import Loop


RETRY = 0.1
"""Seconds until a manager that could not be told is told again."""
READY_FD = "NORTHSTAR_READY_FD"
"""Environment variable with the number of the descriptor that gets a line."""


def ready_descriptor() -> int | None:
    """The descriptor that is told when start-up is complete; None if nobody waits for that."""
    text = os.environ.get(READY_FD, "")
    if not text.isdecimal() or int(text) < 3:
        return None
    try:
        os.fstat(int(text))
    except (OSError, OverflowError):
        return None
    return int(text)


class ServiceManager:
    """Does nothing if there is none (neither NOTIFY_SOCKET nor NORTHSTAR_READY_FD is set)."""

    def __init__(self, loop: Loop) -> None:
        # Containers and debug commands have nothing to tell it.
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        self._interval = _interval(os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", ""))
        self._ready = ready_descriptor()
        os.environ.pop(READY_FD, None)
        self._loop = loop
        self._stopping = False
        # Made now: a sign of life must not fail because no descriptor is left.
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._path else None
        )

    def ready(self) -> None:
        """Start-up is complete; from now on the watchdog is fed, as long as the loop turns."""
        self._tell_ready()
        if self._ready is not None:
            with contextlib.suppress(OSError):
                os.write(self._ready, b"ready\n")
            os.close(self._ready)
            self._ready = None
        if self._interval and self._path:
            self._feed()

    def stopping(self) -> None:
        """The shutdown has begun."""
        self._stopping = True
        self._send("STOPPING=1")

    def _tell_ready(self) -> None:
        """Until it is heard: a manager that waits for it in vain ends the daemon."""
        if not self._stopping and not self._send("READY=1"):
            self._loop.call_later(RETRY, self._tell_ready)

    def _feed(self) -> None:
        self._loop.call_later(self._interval, self._feed)
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> bool:
        """Whether there is nothing left to do."""
        if self._socket is None:
            return True
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            self._socket.sendto(text.encode(), address)
        except OSError:
            # The manager is restarting or overloaded; it is no reason to stop.
            return False
        return True


def _interval(microseconds: str, pid: str) -> float:
    """Seconds between two signs of life: half of what the manager allows, 0 if it wants none."""
    if not microseconds.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(microseconds) / 2e6
