# SPDX-License-Identifier: Apache-2.0
"""Repositories: where packages are kept, and packages on their way into one.

A package is opened once; it is verified, read and mounted through that descriptor. What blocks is said to: it
is for a thread, and touches nothing but files. All else is for the loop's thread, so it needs no locks.
"""

from __future__ import annotations

import os

from northstar.errors import NorthstarError, Unexpected
from northstar.kernel.filesystem import write_all
from northstar.npk import package
from northstar.npk.trust import Trust

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.config import RepositoryConfig
    from northstar.manifest import Manifest
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.runtime.log import Logger

JOURNALS = ".state"
"""Name of the directory with the journals of updates, in that of a repository."""


class Repository:
    """Packages under the same keys."""

    _dropped = ""

    def __init__(self, config: RepositoryConfig, log: Logger) -> None:
        """Read the keys; raises NorthstarError."""
        self.id = config.id
        self.trust = Trust(config.keys, config.revoked) if config.keys else None
        self.packages: dict[Container, Package] = {}
        self.log = log
        self._config = config
        self._fds: dict[Container, int] = {}
        self._incoming = 0
        """Bytes of packages on their way in, as announced."""

    @property
    def writable(self) -> bool:
        """Whether packages can be added and removed."""
        return True

    @property
    def journals(self) -> str | None:
        """The directory for journals of updates, None if they are only in memory."""
        return None

    @property
    def verified(self) -> bool:
        """Whether packages must be signed and are mounted through dm-verity."""
        return self.trust is not None

    @property
    def changes(self) -> bool:
        """Whether a package that was good may be revoked while the runtime is up."""
        return self.trust is not None and self.trust.changes

    def read(self, fd: int, path: str) -> Package:
        """Read the package open as `fd`. Blocks. Raises PackageError."""
        if self.trust is None:
            return package.load(fd, None, path)
        loaded = package.load(fd, self.trust.keys, path)
        self.check(loaded, path)
        return loaded

    def refusal(self, manifest: Manifest) -> str | None:
        """Why the integrator's policy does not allow a manifest, None if it does."""
        if self._config.policy is None:
            return None
        # Few devices have one.
        from northstar import policy

        return policy.refusal(manifest, self._config.policy, f"repositories.{self.id}.policy")

    def check(self, loaded: Package, path: str) -> None:
        """Raises PackageError if a package was revoked since it was read. Blocks."""
        if self.trust is None:
            return
        try:
            self.trust.refresh()
        except NorthstarError as error:
            # What was revoked stays revoked.
            self.log.warn(f"Repository {self.id}: {error}")
        self.trust.check(loaded, path)

    @property
    def size(self) -> int:
        """Bytes of all packages."""
        return sum(package.size for package in self.packages.values())

    def load(self) -> None:
        """Make known what is there already. Blocks. Raises NorthstarError."""

    def stop_loading(self) -> None:
        """Let `load` end early, from another thread."""

    def fd(self, container: Container) -> int:
        """Descriptor of a package's file."""
        return self._fds[container]

    def begin_insert(self, size: int) -> Insert:
        """Reserve room for a package of `size` bytes; raises Unexpected if there is none."""
        self._check_number()
        self._check_room(size)
        self._incoming += size
        return self._new_insert(size)

    def release(self, size: int) -> None:
        """A package of that size is not on its way in any more."""
        self._incoming -= size

    def check_new(self, container: Container) -> None:
        """Raises Unexpected if a package that was received completely cannot become part of this."""
        if container in self.packages:
            self.log.warn(f"Container {container} is already present in repository{self._dropped}")
            raise Unexpected(f"{container} already in {self._place}")
        self._check_number()

    def delete(self, container: Container) -> None:
        """Delete the file of a package, durably. Blocks. Raises Unexpected; then it may be tried again."""
        self.log.debug(f"Removing {container} from {self.id}")

    def adopt(self, fd: int, loaded: Package) -> None:
        """A package is part of this from now on, and so is its descriptor."""
        self.packages[loaded.container] = loaded
        self._fds[loaded.container] = fd

    def forget(self, container: Container) -> int:
        """A package was deleted; its descriptor, which is the caller's now. Closing it may block."""
        del self.packages[container]
        return self._fds.pop(container)

    def close(self) -> None:
        """Close all files."""
        for container, fd in self._fds.items():
            close(fd, self.log, f"{container} of {self.id}")
        self._fds.clear()
        self.packages.clear()

    @property
    def _place(self) -> str:
        raise NotImplementedError

    def _check_number(self) -> None:
        if self._config.capacity_num is not None and len(self.packages) >= self._config.capacity_num:
            raise Unexpected("max number of container reached")

    def _check_room(self, incoming: int) -> None:
        raise NotImplementedError

    def _new_insert(self, size: int) -> Insert:
        raise NotImplementedError


def close(fd: int, log: Logger, what: str) -> None:
    """Close a file. Blocks. A file system may have failed or gone, which is logged: the descriptor is closed
    nevertheless (close(2)).
    """
    try:
        os.close(fd)
    except OSError as error:
        log.warn(f"Failed to close {what}: {error.strerror}")


class Insert:
    """A package on its way in: `open`, `write` all of it, `verify`, `publish`, `adopt`.

    At any time instead: `discard`. In the end always `release`, on the loop.
    """

    def __init__(self, repository: Repository, size: int) -> None:
        self._repository = repository
        self._size = size
        self._fd = -1
        """What is written to; -1 if that is over, or has not begun."""

    def open(self) -> None:
        """Make the file. Blocks. Raises Unexpected, also if there is no room for all of the package."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Append to the package. Blocks. Raises Unexpected."""
        try:
            write_all(self._fd, data)
            self._written(len(data))
        except OSError as error:
            raise Unexpected(self._describe(error)) from None

    def verify(self) -> Package:
        """Read the package. Blocks. Raises Unexpected if it is none, or not signed as it should be."""
        raise NotImplementedError

    def publish(self) -> None:
        """Make permanent what `check_new` has allowed; one at a time. Blocks. Raises Unexpected."""

    def adopt(self) -> None:
        """Make it known to the repository."""
        raise NotImplementedError

    def discard(self) -> None:
        """Throw away what was received, unless it was adopted. Blocks. What cannot be removed is logged."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            close(fd, self._repository.log, f"a package for {self._repository.id}")

    def release(self) -> None:
        """Give back the room that was reserved, once."""
        self._repository.release(self._size)
        self._size = 0

    def _written(self, size: int) -> None:
        """Some bytes were written. Raises OSError."""

    def _describe(self, error: OSError) -> str:
        raise NotImplementedError
