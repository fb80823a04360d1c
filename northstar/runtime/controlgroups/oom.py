# SPDX-License-Identifier: Apache-2.0
"""Telling when a container's control group runs out of memory.

Version 2 changes memory.events, which polls as exceptional then; version 1 counts in an eventfd.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from northstar.errors import StartContainerFailed
from northstar.kernel import cgroup
from northstar.runtime import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from northstar.names import Container
    from northstar.runtime.controlgroups.group import Group
    from northstar.runtime.eventloop.loop import Channel, Loop, Task

    Event = dict[str, int | None]

_log = log.Logger("runtime::cgroups")

KEYS = ("low", "high", "max", "oom", "oom_kill")


class OomMonitor:
    """Watches one group until it is stopped."""

    def __init__(
        self, loop: Loop, container: Container, group: Group, report: Callable[[Event], None]
    ) -> None:
        """`report` gets the counters of memory.events. Raises StartContainerFailed."""
        self._container = container
        self._report = report
        self._last_oom = 0
        events = group.open_events()
        self._counts = events is None
        try:
            self._fd = _eventfd(group) if events is None else events
        except (OSError, KeyError):
            raise StartContainerFailed(
                container, "cgroup: memory.oom_monitor: there is no memory controller"
            ) from None
        if events is not None:
            self._last_oom = _ooms(self._read())
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
        if (ooms := _ooms(event)) > self._last_oom:
            self._last_oom = ooms
            _log.warn(f"Process {self._container} is out of memory")
            self._report(event)

    async def _watch(self) -> None:
        while True:
            await self._channel.readable()
            self.check()

    def _read(self) -> Event:
        event: Event = dict.fromkeys(KEYS)
        if self._counts:
            try:
                event["oom"] = self._last_oom + os.eventfd_read(self._fd)
            except BlockingIOError:
                event["oom"] = self._last_oom
            return event
        try:
            found = cgroup.parse_flat_keyed(os.pread(self._fd, 4096, 0))
        except OSError:
            return event
        event.update({key: found.get(key) for key in KEYS})
        return event


def _ooms(event: Event) -> int:
    """How often there was no memory. Where it was the host that had none, only the killed processes count."""
    return max(event.get("oom") or 0, event.get("oom_kill") or 0)


def _eventfd(group: Group) -> int:
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        group.watch_oom(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
