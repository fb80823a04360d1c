# SPDX-License-Identifier: Apache-2.0
"""Packages that come and go: those of a repository when it is loaded, installs and uninstalls."""

from __future__ import annotations

import os

from northstar.errors import ApiError, InstallDuplicate, InvalidRepository, Unexpected
from northstar.runtime import log
from northstar.runtime.containers import filters, users
from northstar.runtime.containers.records import Record
from northstar.runtime.eventloop.loop import Mutex
from northstar.runtime.storage import persist
from northstar.runtime.storage.repository import close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from northstar.manifest import Manifest
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.runtime.containers.currency import Currency
    from northstar.runtime.containers.events import Events
    from northstar.runtime.containers.mounts import Mounts
    from northstar.runtime.containers.records import Containers
    from northstar.runtime.eventloop.loop import Loop
    from northstar.runtime.storage.repository import Insert, Repository

_log = log.Logger("runtime::state")


class Packages:
    """Adds and removes packages. Errors are `ApiError`s."""

    def __init__(
        self,
        loop: Loop,
        data_dir: str,
        repositories: Mapping[str, Repository],
        containers: Containers,
        mounts: Mounts,
        mutex: Mutex,
        events: Events,
        currency: Currency,
    ) -> None:
        """`data_dir` is where persistent data is, `mutex` is held by whatever changes the containers."""
        self._loop = loop
        self._data_dir = data_dir
        self._repositories = repositories
        self._containers = containers
        self._mounts = mounts
        self._mutex = mutex
        self._events = events
        self._currency = currency
        self._publishing = Mutex()

    async def add_repository(self, repository: Repository) -> None:
        """Make the packages of a loaded repository known."""
        packages = list(repository.packages.items())
        compiled = await self._loop.in_thread(
            filters.application_filters, [package.manifest for _, package in packages]
        )
        for (container, package), outcome in zip(packages, compiled, strict=True):
            if container in self._containers:
                other = self._containers.get(container).repository.id
                _log.warn(
                    f"Skipping duplicate container {container} "
                    f"which is already loaded from repository {other}"
                )
                continue
            record = Record(container, repository, package)
            refusal = repository.refusal(package.manifest)
            if isinstance(outcome, bytes) and refusal is None:
                record.filter = outcome
            else:
                record.unusable = refusal or str(outcome)
                _log.warn(f"{container} cannot be started: {record.unusable}")
            self._containers.add(record)

    async def warn_of_users(self, only: int | None = None) -> None:
        """Tell which ids the host knows by another name, or which are shared; of one uid, or of all."""
        manifests = [record.manifest for record in self._containers]
        # Looked up in a thread: a directory service may take its time.
        for warning in await self._loop.in_thread(_collect, manifests, only):
            _log.warn(warning)

    # --- install and uninstall

    async def begin(self, repository: str, size: int) -> Insert:
        """Make room for a package of `size` bytes."""
        if repository not in self._repositories:
            raise InvalidRepository(repository)
        insert = self._repositories[repository].begin_insert(size)
        try:
            await self._loop.in_thread(insert.open)
        except BaseException:
            await self.abort(insert)
            raise
        return insert

    async def abort(self, insert: Insert) -> None:
        """Throw away what has been received of a package."""
        try:
            await self._loop.in_thread(insert.discard)
        finally:
            insert.release()

    async def finish(self, repository_id: str, insert: Insert) -> Container:
        """Verify and add a package that has been received completely."""
        try:
            repository = self._repositories[repository_id]
            package, application_filter = await self._loop.in_thread(_verify, insert, repository)
            # One after the other, so that no two of them are the same container or take the same room.
            async with self._publishing:
                self._check_new(repository_id, package.container)
                await self._currency.before_install(package.container, repository)
                await self._loop.in_thread(insert.publish)
                async with self._mutex:
                    insert.adopt()
                    record = Record(package.container, repository, package, application_filter)
                    self._containers.add(record)
        except BaseException:
            await self.abort(insert)
            raise
        container = package.container
        _log.info(f"Successfully installed {container}")
        await self.warn_of_users(package.manifest.uid)
        self._events.installed(container)
        return container

    def _check_new(self, repository_id: str, container: Container) -> None:
        """Raises InstallDuplicate, Unexpected."""
        self._repositories[repository_id].check_new(container)
        if container in self._containers:
            other = self._containers.get(container).repository.id
            _log.warn(f"Skipping duplicate container {container} which is already in repository {other}")
            raise InstallDuplicate(container)

    async def uninstall(self, container: Container, wipe: bool, *, unneeded: bool = False) -> None:
        """Umount if needed, delete persistent data if `wipe`, remove the package.

        `unneeded`: an update is through with it, and nobody has asked for that.
        Each step is durable before the next one, so after a failure the whole may be tried again.
        """
        _log.info(f"Trying to uninstall {container}")
        async with self._mutex:
            record = self._containers.get(container)
            try:
                if not unneeded:
                    self._currency.check_uninstall(container)
                if wipe:
                    self._check_wipe(record)
                if record.mounted or record.run is not None:
                    self._containers.check_umount(record)
                    await self._mounts.umount_record(record)
                if wipe:
                    await self._wipe(container)
                await self._loop.in_thread(record.repository.delete, container)
            except ApiError as error:
                _log.warn(f"failed to uninstall {container}: {error}")
                raise
            descriptor = record.repository.forget(container)
            self._containers.remove(record)
            # The last one of a deleted file gives back its room.
            await self._loop.in_thread(close, descriptor, _log, str(container))
        _log.info(f"Uninstalled {container}")
        self._events.uninstalled(container)
        if not unneeded:
            await self._currency.after_uninstall(container)

    def _check_wipe(self, record: Record) -> None:
        """Raises Unexpected if the persistent data is in use by another version."""
        for other in self._containers.named(record.container.name):
            if other is not record and other.run is not None:
                raise Unexpected(f"the persistent data is in use: {other.container} is running")

    async def _wipe(self, container: Container) -> None:
        """Raises Unexpected."""
        path = f"{self._data_dir}/{container.name}"
        try:
            if await self._loop.in_thread(os.path.lexists, path):
                _log.info(f"Wiping persistent data dir {path} of {container}")
            # Also if there is none: an earlier attempt may not have become durable.
            await self._loop.in_thread(persist.wipe, self._data_dir, container.name)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise Unexpected(f"failed to wipe {path}: {error.strerror}{where}") from None


def _collect(manifests: list[Manifest], only: int | None) -> list[str]:
    return list(users.warnings(manifests, only))


def _verify(insert: Insert, repository: Repository) -> tuple[Package, bytes]:
    """A package that has been received, and the filter of its application. Blocks. Raises Unexpected."""
    package = insert.verify()
    if (refusal := repository.refusal(package.manifest)) is not None:
        raise Unexpected(f"{package.container} is refused by {refusal}")
    return package, filters.application_filter(package.manifest)
