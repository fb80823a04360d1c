# SPDX-License-Identifier: Apache-2.0
"""Damaged images: the kernel tells of each block that dm-verity has found to be wrong.

Whoever reads such a block gets an error, so nothing wrong is executed. Here others learn of it: the log, who
inspects the container, metrics.
"""

from __future__ import annotations

import errno
import os

from northstar.kernel import uevents
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.records import Containers, Record
    from northstar.runtime.eventloop.loop import Channel, Loop, Task

_log = log.Logger("runtime::state")


class DamageWatch:
    """Looks at the kernel's events until it is closed."""

    def __init__(self, loop: Loop, containers: Containers, events: Events) -> None:
        """Raises OSError if the kernel has no such events."""
        self._loop = loop
        self._containers = containers
        self._events = events
        self._socket = uevents.listen()
        self._channel: Channel = loop.register(self._socket.fileno())
        self._task: Task = loop.spawn(self._watch())

    def close(self) -> None:
        """Look no more."""
        self._task.cancel()
        self._channel.close()
        self._socket.close()

    async def _watch(self) -> None:
        while True:
            # First, as something may have happened before anybody waited for it.
            try:
                for event in uevents.receive(self._socket):
                    self._take(event)
            except OSError as error:
                _log.debug(f"Events of the kernel are lost: {error.strerror}")
                if error.errno == errno.ENOBUFS:
                    # More than we could take; what is lost is told again by the next read. The kernel adds
                    # nothing, so nothing wakes us, until all that is left has been taken.
                    await self._loop.turn()
                    continue
            await self._channel.readable()

    def _take(self, event: dict[str, str]) -> None:
        found = uevents.damaged_block(event)
        if found is None:
            return
        number, block = found
        for record in self._containers:
            if record.mounted and record.device == os.makedev(*number):
                self._damaged(record, block)

    def _damaged(self, record: Record, block: str) -> None:
        """Told once per mount: programs try again, and the kernel tells it each time."""
        if record.damage is None:
            record.damage = f"its image is damaged ({block}): install it again, and check the disk"
            _log.error(f"{record.container} cannot be read completely, {record.damage}")
        self._events.damaged(record.container)
