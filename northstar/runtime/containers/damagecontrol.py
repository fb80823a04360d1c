# SPDX-License-Identifier: Apache-2.0
"""What becomes of a container whose image is damaged, if it would come back by itself."""

from __future__ import annotations

from northstar.runtime import log
from northstar.runtime.containers.events import Observer
from northstar.supervision.model import NEVER
from northstar.supervision.state import Ruined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.names import Container
    from northstar.runtime.containers.records import Containers, Record
    from northstar.runtime.containers.updating import Updating
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.supervision.supervisor import Supervisor

_log = log.Logger("runtime::state")
REASON = "its image is damaged"


class DamageControl(Observer):
    """Lets an older version take over, or ends the container: a restart would read the same blocks."""

    def __init__(
        self, loop: Loop, containers: Containers, updating: Updating, supervisor: Supervisor
    ) -> None:
        self._loop = loop
        self._containers = containers
        self._updating = updating
        self._supervisor = supervisor
        self._handled: dict[Container, int] = {}
        """The number of the start after which something was done about it; there are many errors of one."""

    def damaged(self, container: Container) -> None:
        """A block of the image does not fit to its hash. A trial, which has no policy, is the update's."""
        record = self._containers.get(container)
        if record.run is None or record.settings.restart.policy == NEVER:
            return
        if self._handled.get(container) != record.state.generation:
            self._handled[container] = record.state.generation
            self._loop.spawn(self._take_down(record))

    def uninstalled(self, container: Container) -> None:
        """Forget it."""
        self._handled.pop(container, None)

    async def _take_down(self, record: Record) -> None:
        updater = await self._updating.load()
        if updater.replace(record.container, REASON):
            return
        record.unusable = REASON
        _log.warn(f"Giving up {record.container}: {REASON}, and there is no older version")
        self._supervisor.happen(record, Ruined(REASON))
