# SPDX-License-Identifier: Apache-2.0
"""What becomes of a container whose image has turned out to be corrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from northstar.kernel import uevent
from northstar.manifest import extension
from northstar.runtime import log

if TYPE_CHECKING:
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.mounts import Mounts
    from northstar.runtime.containers.records import Containers, Record
    from northstar.runtime.containers.updating import Updating
    from northstar.runtime.eventloop.loop import Loop

_log = log.Logger("runtime::storage")
REASON = "its image is corrupted"


class Corrupted:
    """Finds the container of a device, tells, and takes down those that would come back by themselves."""

    def __init__(
        self, loop: Loop, containers: Containers, mounts: Mounts, events: Events, updating: Updating
    ) -> None:
        self._loop = loop
        self._containers = containers
        self._mounts = mounts
        self._events = events
        self._updating = updating

    def found(self, device: tuple[int, int], block: int) -> None:
        """A block of a mapped device does not fit to its hash."""
        for record in self._containers:
            if record.mounted and self._device_of(record) == device:
                self._tell(record, block)
                return

    def _device_of(self, record: Record) -> tuple[int, int] | None:
        try:
            return uevent.device_of(self._mounts.target(record.container))
        except OSError:
            return None

    def _tell(self, record: Record, block: int) -> None:
        """Of the first error only; there may be a hundred."""
        if record.corrupted:
            return
        record.corrupted = True
        container = record.container
        _log.error(f"{container}: {REASON}: block {block} of {record.package.container} has another hash")
        self._events.corrupted(container)
        if record.run is None or record.trial or not extension.restarts(record.manifest):
            # Of a trial the update takes care.
            return
        self._loop.spawn(self._take_down(record))

    async def _take_down(self, record: Record) -> None:
        """Go back to an older version, or end it: a restart would read the same blocks."""
        updater = await self._updating.load()
        if updater.replace(record.container, REASON):
            return
        record.problem = REASON
        _log.warn(f"Killing {record.container}: there is no older version")
        if record.run is not None:
            record.run.process.kill()
