# SPDX-License-Identifier: Apache-2.0
"""Which packages are mounted, and the operations that change it."""

from __future__ import annotations

import contextlib
import os
import time

from northstar.errors import ApiError, InvalidContainer
from northstar.kernel import paths
from northstar.runtime import log
from northstar.runtime.duration import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from northstar.names import Container
    from northstar.runtime.containers.records import Containers, Record
    from northstar.runtime.eventloop.loop import Loop, Mutex
    from northstar.runtime.storage.mounter import Mounter

_log = log.Logger("runtime::state")

DEFAULT_PARALLEL = 4


class Mounts:
    """Mounts and umounts packages. Errors are `ApiError`s."""

    def __init__(
        self,
        loop: Loop,
        run_dir: str,
        containers: Containers,
        mounter: Mounter,
        mutex: Mutex,
        parallel: int | None,
    ) -> None:
        """`run_dir` has the mount points, `mutex` is held by whatever changes mounts.

        At most `parallel` of them are made at a time.
        """
        self._loop = loop
        self._run_dir = run_dir
        self._containers = containers
        self._mounter = mounter
        self._mutex = mutex
        self._parallel = parallel or DEFAULT_PARALLEL

    async def mount_on_start(self, repositories: Mapping[str, bool]) -> None:
        """Mount everything of some repositories; raises the first error of those that are required.

        What cannot be mounted in others is for its users to see: the rest is not affected.
        """
        records = [record for record in self._containers if record.repository.id in repositories]
        async with self._mutex:
            errors = await self.mount_records(records)
        for record, error in zip(records, errors, strict=True):
            if error is not None and repositories[record.repository.id]:
                _log.error(f"{record.container} must be mounted: require_mounts of {record.repository.id}")
                raise error

    async def umount_all(self) -> None:
        """Umount everything that is mounted, errors are logged."""
        records = [record for record in self._containers if record.mounted]
        for record in records:
            try:
                await self.umount_record(record)
            except ApiError as error:
                _log.warn(f"failed to umount {record.container}: {error}")

    async def mount(self, containers: Sequence[Container]) -> list[ApiError | None]:
        """Mount several; None or the error of each."""
        began = time.monotonic()
        results: list[ApiError | None] = []
        async with self._mutex:
            records: list[Record | None] = []
            for container in containers:
                known = self._containers.get(container) if container in self._containers else None
                usable = known is not None and not known.mounted and known not in records
                records.append(known if usable else None)
            mounted = iter(await self.mount_records([record for record in records if record is not None]))
            for container, record in zip(containers, records, strict=True):
                results.append(InvalidContainer(container) if record is None else next(mounted))
        await self._report("mounted", "Mount", containers, results, began)
        return results

    async def umount(self, containers: Sequence[Container]) -> list[ApiError | None]:
        """Umount several; None or the error of each."""
        began = time.monotonic()
        results: list[ApiError | None] = []
        async with self._mutex:
            for container in containers:
                # Others do not wait for all of them.
                await self._loop.turn()
                try:
                    record = self._containers.get(container)
                    self._containers.check_umount(record)
                    await self.umount_record(record)
                    results.append(None)
                except ApiError as error:
                    results.append(error)
        await self._report("umounted", "Umount", containers, results, began)
        return results

    async def _report(
        self,
        done: str,
        operation: str,
        containers: Sequence[Container],
        results: Sequence[ApiError | None],
        began: float,
    ) -> None:
        spent = duration(time.monotonic() - began)
        for container, error in zip(containers, results, strict=True):
            if error is not None:
                await self._loop.turn()
                _log.warn(f"failed to {operation.lower()} {container}: {error}")
        if any(error is not None for error in results):
            _log.warn(f"{operation} operation failed after {spent}")
        else:
            _log.info(f"Successfully {done} {len(results)} container(s) in {spent}")

    async def mount_for(self, wanted: Sequence[Record]) -> None:
        """Mount all that these containers need at once; what goes wrong is told by their starts."""
        needed = set(wanted)
        for record in wanted:
            with contextlib.suppress(ApiError):
                resources = self._containers.resources_of(record.manifest)
                needed |= {self._containers.get(resource) for resource in resources.values()}
        async with self._mutex:
            await self.mount_records([record for record in needed if not record.mounted])

    async def read_program(self, record: Record) -> None:
        """Let the kernel read and unpack the program now, not when somebody waits for it."""
        init = record.manifest.init
        if record.mounted and init is not None:
            with contextlib.suppress(OSError):
                await self._loop.in_thread(_read_ahead, self.target(record.container), init)

    async def mount_records(self, records: Sequence[Record]) -> list[ApiError | None]:
        """Mount concurrently, at most `mount_parallel` at a time. The mutex is held."""
        results = await self._loop.gather(
            *(self._mount_record(record) for record in records), limit=self._parallel
        )
        errors: list[ApiError | None] = []
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ApiError):
                raise result
            errors.append(result)
        return errors

    async def _mount_record(self, record: Record) -> ApiError | None:
        container = record.container
        descriptor = record.repository.fd(container)
        target = self.target(container)
        try:
            record.device = await self._loop.in_thread(self._mount, record, descriptor, target)
        except ApiError as error:
            _log.warn(f"Failed to mount {container}: {error}")
            record.mount_failure = str(error)
            return error
        record.mounted = True
        record.mount_failure = record.damage = None
        _log.info(f"Mounted {container}")
        return None

    def _mount(self, record: Record, descriptor: int, target: str) -> int:
        """The number of the device. Blocks."""
        verified = record.repository.verified
        self._mounter.mount(record.container, descriptor, record.package, target, verified=verified)
        try:
            return os.stat(target).st_dev
        except OSError:  # the root of a damaged image cannot be read
            return 0

    async def umount_record(self, record: Record) -> None:
        """Umount a package. The mutex is held. Raises ApiError."""
        target = self.target(record.container)
        try:
            await self._loop.in_thread(self._mounter.umount, target)
        except ApiError:
            record.mounted = os.path.ismount(target)
            raise
        record.mounted = False
        _log.info(f"Umounted {record.container}")

    def target(self, container: Container) -> str:
        """Where a package is mounted."""
        return f"{self._run_dir}/{container}"


def _read_ahead(image: str, program: str) -> None:
    """Blocks. Raises OSError. The image is not trusted."""
    root = os.open(image, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_MAGICLINKS
        file = paths.openat2(root, program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, flags)
    finally:
        os.close(root)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)
