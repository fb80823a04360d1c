# SPDX-License-Identifier: Apache-2.0
"""Telling when a container's control group runs out of memory.

Version 2 changes memory.events, which polls as exceptional then; version 1 counts in an eventfd.
"""

from __future__ import annotations

import os
import time

from northstar.errors import StartContainerFailed
from northstar.kernel import cgroup
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.names import Container
    from northstar.runtime.controlgroups.group import Group
    from northstar.runtime.eventloop.loop import Channel, Loop, Task

    Event = dict[str, int | None]

_log = log.Logger("runtime::cgroups")

KEYS = ("low", "high", "max", "oom", "oom_kill")
ONE_EVENT = 1.0
"""Seconds after a shortage within which whoever is killed is its victim: the kernel counts both."""


class OomMonitor:
    """Watches one group until it is stopped."""

    def __init__(
        self, loop: Loop, container: Container, group: Group, report: Callable[[Event], None]
    ) -> None:
        """`report` gets the counters of memory.events. Raises StartContainerFailed."""
        self._container = container
        self._report = report
        self._shortages = self._kills = 0
        self._short_at = float("-inf")
        events = group.open_events()
        self._counts = events is None
        try:
            self._fd = _eventfd(group) if events is None else events
        except (OSError, KeyError):
            raise StartContainerFailed(
                container, "cgroup: memory.oom_monitor: there is no memory controller"
            ) from None
        if events is not None:
            self._shortages, self._kills = _counters(self._read())
        self._channel: Channel = loop.register(self._fd)
        self._task: Task = loop.spawn(self._watch())

    def finish(self) -> None:
        """Report what has happened up to now, and stop watching."""
        try:
            self.check()
        finally:
            self._task.cancel()
            self._channel.close()
            os.close(self._fd)

    def check(self) -> None:
        """Report what has happened since the last event: the end of a container may come first."""
        event = self._read()
        shortages, kills = _counters(event)
        more_shortages, more_kills = shortages > self._shortages, kills > self._kills
        self._shortages, self._kills = shortages, kills
        now = time.monotonic()
        if not more_shortages and not (more_kills and now > self._short_at + ONE_EVENT):
            return
        if more_shortages:
            self._short_at = now
        _log.warn(f"Process {self._container} is out of memory")
        self._report(event)

    async def _watch(self) -> None:
        while True:
            # First, as something may have happened before anybody waited for it.
            self.check()
            await self._channel.readable()

    def _read(self) -> Event:
        event: Event = dict.fromkeys(KEYS)
        if self._counts:
            try:
                event["oom"] = self._shortages + os.eventfd_read(self._fd)
            except BlockingIOError:
                event["oom"] = self._shortages
            return event
        try:
            found = cgroup.parse_flat_keyed(os.pread(self._fd, 4096, 0))
        except OSError:
            return {**event, "oom": self._shortages, "oom_kill": self._kills}
        event.update({key: found.get(key) for key in KEYS})
        return event


def _counters(event: Event) -> tuple[int, int]:
    """How often the group was at its limit, and how many were killed, be it that the host had none."""
    return event.get("oom") or 0, event.get("oom_kill") or 0


def _eventfd(group: Group) -> int:
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        group.watch_oom(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
