# SPDX-License-Identifier: Apache-2.0
"""A repository in memory, gone with the daemon."""

from __future__ import annotations

import fcntl
import os

from northstar.errors import PackageError, Unexpected
from northstar.runtime.storage.repository import Insert, Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.npk.package import Package

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class MemoryRepository(Repository):
    """Packages in sealed memory (memfd_create(2), F_ADD_SEALS in fcntl(2))."""

    _dropped = ". Dropping..."

    def load(self) -> None:
        """Nothing to load; it starts empty."""
        keys = ", ".join(self._config.keys)
        self.log.info(
            f"Loading memory repository with key {keys}" if keys else "Loading repository (unverified)"
        )

    @property
    def _place(self) -> str:
        return "repository"

    def _check_room(self, incoming: int) -> None:
        capacity = self._config.capacity_size
        if capacity is not None and self.size + self._incoming + incoming >= capacity and incoming:
            raise Unexpected("repository capacity limit reached")

    def _new_insert(self, size: int) -> Insert:
        return _MemoryInsert(self, size)


class _MemoryInsert(Insert):
    """A memfd, sealed when it is complete."""

    _package: Package

    def open(self) -> None:
        """Make the file. Raises Unexpected."""
        try:
            self._fd = os.memfd_create(
                f"northstar-{self._repository.id}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            )
        except OSError as error:
            raise Unexpected(self._describe(error)) from None

    def _describe(self, error: OSError) -> str:
        return f"failed stream npk: {error.strerror}"

    def verify(self) -> Package:
        """Read the package. Blocks. Raises Unexpected if it is none, or not signed as it should be."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
            self._package = self._repository.read(self._fd, "memfd")
        except OSError as error:
            raise Unexpected(f"failed to read npk: {error.strerror}") from None
        except PackageError as error:
            raise Unexpected(f"failed to read npk: {error.reason}") from None
        return self._package

    def adopt(self) -> None:
        """Make it known to the repository."""
        self._repository.adopt(self._fd, self._package)
        self._repository.log.info(f"Loaded {self._package.container} from memfd")
        self._fd = -1
        self.release()
