# SPDX-License-Identifier: Apache-2.0
"""Updates in the runtime. A device that has had none, and one version of each container, loads no more."""

from __future__ import annotations

import os

from northstar.runtime import log
from northstar.runtime.storage.repository import JOURNALS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from northstar.config.model import UpdatesConfig
    from northstar.names import Container
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.packages import Packages
    from northstar.runtime.containers.records import Containers, Record
    from northstar.runtime.containers.starts import Starts
    from northstar.runtime.eventloop.loop import Future, Loop
    from northstar.runtime.storage.repository import Repository
    from northstar.runtime.supervision.supervised import Supervised
    from northstar.runtime.supervision.supervisor import Supervisor
    from northstar.updates.updater import Updater

_log = log.Logger("runtime::updates")


class Updating:
    """Which version of a name counts, and what updates forbid. Makes the updater when it is needed."""

    def __init__(self, loop: Loop, containers: Containers, settings: UpdatesConfig, data_dir: str) -> None:
        self._loop = loop
        self._containers = containers
        self._settings = settings
        self._data_dir = data_dir
        self._updater: Updater | None = None
        self._make: tuple[Starts, Packages, Supervisor, Events, Future]

    def attach(
        self, starts: Starts, packages: Packages, supervisor: Supervisor, events: Events, stopping: Future
    ) -> None:
        """Give it what updates need of the runtime. Before anything is started."""
        self._make = (starts, packages, supervisor, events, stopping)

    async def load(self) -> Updater:
        """The updater, which is made if there is none yet."""
        if self._updater is None:
            # Reading the code takes its time.
            await self._loop.in_thread(_import)
        return self.updater

    @property
    def updater(self) -> Updater:
        """The updater; whoever can wait uses `load`."""
        if self._updater is None:
            from northstar.runtime.containers.trials import Trials
            from northstar.updates.ledger import Ledger
            from northstar.updates.updater import Updater

            trials = Trials(self._loop, self._data_dir, self._containers, *self._make)
            events = self._make[3]
            events.add(trials)
            ledger = Ledger(self._loop, _log.warn)
            self._updater = Updater(self._loop, trials, ledger, self._settings, _log)
            self._containers.usable = self._updater.is_usable_resource
        return self._updater

    async def recover(self, repositories: Mapping[str, Repository]) -> None:
        """Read the journals, and go on with what was open. After the packages are known."""
        for repository in repositories.values():
            directory = repository.journals
            if directory is not None and os.path.lexists(os.path.join(directory, JOURNALS)):
                await (await self.load()).ledger.load(directory)
        names = [record.container.name for record in self._containers]
        if len(set(names)) != len(names):
            # It will be asked which version counts.
            await self.load()
        if self._updater is not None:
            await self._updater.recover()

    def autostarts(self) -> list[Record]:
        """The containers that start by themselves: of each name the version that counts.

        Not those of names that an update is about to start.
        """
        wanted = [record for record in self._containers if record.manifest.autostart]
        if self._updater is None:
            # Then there is one version of each.
            return wanted
        return [record for record in wanted if self._is_current(record.container)]

    def _is_current(self, container: Container) -> bool:
        if self._updater is not None and self._updater.held(container.name) is not None:
            return False
        return self.current(container.name) == container

    def current(self, name: str) -> Container | None:
        """The version that a name stands for."""
        if self._updater is None:
            versions = self._containers.named(name)
            if len(versions) < 2:
                return versions[0].container if versions else None
        return self.updater.current(name)

    def describe(self) -> dict[str, Any]:
        """Open updates, and those that have ended and are not acknowledged."""
        return {"open": [], "last": []} if self._updater is None else self._updater.describe()

    def describe_container(self, container: Container) -> dict[str, Any]:
        """What inspect tells: whether it is the version that counts, and the journal of its name."""
        found: dict[str, Any] = {"current": self.current(container.name) == container}
        return found if self._updater is None else found | self._updater.describe_name(container.name)

    def open(self) -> int:
        """How many updates have not come to their end."""
        return 0 if self._updater is None else self._updater.open()

    def roll_back(self, record: Supervised, reason: str) -> None:
        """Return to the version before, if its update was not long ago."""
        if self._updater is None or not self._updater.roll_back(record.container.name, reason):
            _log.error(f"{record.container}: there is no version to return to")

    def check_free(self, container: Container) -> None:
        """Raises Unexpected while the name is being updated."""
        if self._updater is not None:
            self._updater.check_free(container)

    def check_uninstall(self, container: Container) -> None:
        """Raises Unexpected while an update needs the package."""
        if self._updater is not None:
            self._updater.check_uninstall(container)

    def check_floor(self, container: Container) -> None:
        """Raises StartContainerFailed if the versions that have proved themselves do not allow this one."""
        if self._updater is not None:
            self._updater.check_floor(container)

    async def before_install(self, container: Container, repository: Repository) -> None:
        """A package is about to be added. Raises Unexpected."""
        if self._updater is not None or self._containers.named(container.name):
            await (await self.load()).before_install(container, repository.journals)

    async def after_uninstall(self, container: Container) -> None:
        """A person has removed a package. Raises Unexpected."""
        if self._updater is not None:
            await self._updater.after_uninstall(container)


def _import() -> None:
    from northstar.runtime.containers import trials  # noqa: F401
    from northstar.updates import updater  # noqa: F401
