# SPDX-License-Identifier: Apache-2.0
"""Repositories: where packages are kept.

A package is opened once; it is verified, read and mounted through that descriptor. An install becomes
visible with a rename of a complete and synchronised file, so a crash leaves the old state or the new.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from northstar.errors import NorthstarError, PackageError, Unexpected
from northstar.kernel.filesystem import start_writeback
from northstar.npk import keys, package

if TYPE_CHECKING:
    from northstar.config import RepositoryConfig
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.runtime.log import Logger

_TEMPORARY_SUFFIX = ".tmp"
_WRITEBACK_SIZE = 4 << 20
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Repository:
    """Packages under one key. `load` and `delete` block, other methods do not block for long."""

    _dropped = ""

    def __init__(self, config: RepositoryConfig, log: Logger) -> None:
        """Read the key; raises NorthstarError."""
        self.id = config.id
        self.key = keys.load_public(config.key, trusted=True) if config.key is not None else None
        self.packages: dict[Container, Package] = {}
        self._config = config
        self._log = log
        self._fds: dict[Container, int] = {}
        self._incoming = 0
        """Bytes of packages on their way in."""

    @property
    def verified(self) -> bool:
        """Whether packages must be signed and are mounted through dm-verity."""
        return self.key is not None

    @property
    def size(self) -> int:
        """Bytes of all packages."""
        return sum(package.size for package in self.packages.values())

    def load(self) -> None:
        """Make known what is there already. Raises NorthstarError."""

    def fd(self, container: Container) -> int:
        """Descriptor of a package's file."""
        return self._fds[container]

    def begin_insert(self, size: int) -> Insert:
        """Start to receive a package of `size` bytes; raises Unexpected if there is no room."""
        self._check_number()
        self._check_room(0)
        return self._new_insert(size)

    def check_new(self, container: Container) -> None:
        """Raises Unexpected if a package that was received completely cannot become part of this."""
        if container in self.packages:
            self._log.warn(f"Container {container} is already present in repository{self._dropped}")
            raise Unexpected(f"{container} already in {self._place}")
        self._check_number()

    def delete(self, container: Container) -> None:
        """Delete the file of a package. Blocks. Raises Unexpected, then nothing has changed."""
        self._log.debug(f"Removing {container} from {self.id}")

    def forget(self, container: Container) -> int:
        """A package was deleted; its descriptor, which is the caller's now. Closing it may block."""
        del self.packages[container]
        return self._fds.pop(container)

    def close(self) -> None:
        """Close all files."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self.packages.clear()

    def _adopt(self, fd: int, loaded: Package) -> None:
        self.packages[loaded.container] = loaded
        self._fds[loaded.container] = fd

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


class Insert:
    """A package on its way in: `write` all of it, `verify`, `publish`, `adopt`; or `abort`, at any time."""

    def __init__(self, repository: Repository, fd: int) -> None:
        self._repository = repository
        self._fd = fd
        """What is written to; -1 if that is over."""
        self._received = 0

    def write(self, data: memoryview) -> None:
        """Append to the package. Raises Unexpected if it does not fit."""
        size = len(data)
        self._repository._check_room(size)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            self._received += size
            self._repository._incoming += size
            self._written()
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

    def abort(self) -> None:
        """Throw away what was received, unless it was adopted."""
        self._repository._incoming -= self._received
        self._received = 0
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _written(self) -> None:
        """Some bytes were written. Raises OSError."""

    def _describe(self, error: OSError) -> str:
        raise NotImplementedError


class DirectoryRepository(Repository):
    """One file per package."""

    def __init__(self, config: RepositoryConfig, log: Logger) -> None:
        super().__init__(config, log)
        assert config.dir is not None
        self._dir = config.dir
        self._paths: dict[Container, str] = {}

    def load(self) -> None:
        """Load every package in the directory; files that are none are skipped with a
        warning, hidden ones without."""
        began = time.monotonic()
        trust = f"with key {self._config.key}" if self.verified else "(unverified)"
        self._log.info(f"Loading repository {self._dir} {trust}")
        if not self.verified:
            self._warn_writable(self._dir)
        for name in self._names():
            if not name.startswith("."):
                self._load_file(os.path.join(self._dir, name))
        spent = time.monotonic() - began
        self._log.info(f"Loaded {len(self.packages)} containers from {self._dir} in {spent:.3f}s")

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._dir))
        except OSError as error:
            raise NorthstarError(
                f"repository {self.id}: failed to read dir {self._dir}: {error.strerror}",
                "the directory must exist",
            ) from None

    def _warn_writable(self, path: str) -> None:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
                self._log.warn(f"Others than root may write {path} of repository {self.id}, which has no key")

    def _load_file(self, path: str) -> None:
        try:
            fd = _open_regular(path)
        except OSError as error:
            self._log.warn(f"Skipping {path}: {error.strerror}")
            return
        try:
            loaded = package.load(fd, self.key, path)
        except PackageError as error:
            self._log.warn(f"Skipping {error}")
            os.close(fd)
            return
        if loaded.container in self.packages:
            self._log.warn(f"Skipping {path}: {loaded.container} is already loaded from this repository")
            os.close(fd)
            return
        self._adopt(fd, loaded)
        self._paths[loaded.container] = path
        self._log.info(f"Loaded {loaded.container} from {path}")

    def close(self) -> None:
        """Close all files."""
        super().close()
        self._paths.clear()

    @property
    def _place(self) -> str:
        return self._dir

    def check_new(self, container: Container) -> None:
        """Raises Unexpected also if a package of another name is in the file of that name."""
        super().check_new(container)
        if self._target(container) in self._paths.values():
            raise Unexpected(f"{container} already in {self._dir}")

    def _target(self, container: Container) -> str:
        return os.path.join(self._dir, f"{container}.npk")

    def _check_room(self, incoming: int) -> None:
        capacity = self._config.capacity_size
        if capacity is None:
            return
        stored = self.size + self._incoming
        if stored >= capacity or stored + incoming > capacity:
            raise Unexpected("size limit reached")

    def _new_insert(self, size: int) -> Insert:
        path = os.path.join(self._dir, f".{os.urandom(12).hex()}{_TEMPORARY_SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return _FileInsert(self, os.open(path, flags, 0o644), path)
        except OSError as error:
            raise Unexpected(f"{error.strerror} ({self._dir})") from None

    def delete(self, container: Container) -> None:
        """Delete the file of a package. Blocks. Raises Unexpected, then nothing has changed."""
        super().delete(container)
        path = self._paths[container]
        try:
            if _is_same_file(path, self._fds[container]):
                os.unlink(path)
                _sync_directory(self._dir)
        except OSError as error:
            self._log.warn(f"Failed to remove {path}: {error.strerror}")
            raise Unexpected(f"failed to remove {path}: {error.strerror}") from None

    def forget(self, container: Container) -> int:
        """A package was deleted; its descriptor, which is the caller's now. Closing it may block."""
        del self._paths[container]
        return super().forget(container)


class _FileInsert(Insert):
    """A file with a temporary name, until it is complete."""

    _repository: DirectoryRepository

    def __init__(self, repository: DirectoryRepository, fd: int, path: str) -> None:
        super().__init__(repository, fd)
        self._path = path
        self._handed_over = 0
        self._reader = -1
        self._package: Package

    def _written(self) -> None:
        """Let the disk work while the rest arrives, so that the fsync at the end is short."""
        size = self._received - self._handed_over
        if size >= _WRITEBACK_SIZE:
            start_writeback(self._fd, self._handed_over, size)
            self._handed_over += size

    def _describe(self, error: OSError) -> str:
        return f"{error.strerror} ({self._repository._dir})"

    def verify(self) -> Package:
        """Read the package. Blocks. Raises Unexpected if it is none, or not signed as it should be."""
        try:
            # Through a new descriptor, as a file that is open for writing cannot be trusted to stay.
            self._reader = _open_regular(self._path)
            self._package = package.load(self._reader, self._repository.key, self._path)
        except OSError as error:
            raise Unexpected(f"failed to read npk {self._path}: {error.strerror}") from None
        except PackageError as error:
            raise Unexpected(f"failed to read npk {self._path}: {error.reason}") from None
        return self._package

    def publish(self) -> None:
        """Give the complete file its name, durably. A file of that name that is no package gives way."""
        target = self._repository._target(self._package.container)
        try:
            os.fsync(self._fd)
            os.rename(self._path, target)
            self._path = target
            _sync_directory(self._repository._dir)
        except OSError as error:
            raise Unexpected(f"failed to store {target}: {error.strerror}") from None

    def adopt(self) -> None:
        """Make it known to the repository."""
        repository, container = self._repository, self._package.container
        repository._adopt(self._reader, self._package)
        repository._paths[container] = self._path
        repository._log.info(f"Loaded {container} from {self._path}")
        self._reader, self._path = -1, ""
        super().abort()

    def abort(self) -> None:
        """Throw away what was received, unless it was adopted."""
        super().abort()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""


class MemoryRepository(Repository):
    """Packages in sealed memory, gone with the daemon (memfd_create(2), F_ADD_SEALS in fcntl(2))."""

    _dropped = ". Dropping..."

    def load(self) -> None:
        """Nothing to load; it starts empty."""
        key = self._config.key
        self._log.info(
            f"Loading memory repository with key {key}" if key else "Loading repository (unverified)"
        )

    @property
    def _place(self) -> str:
        return "repository"

    def _check_room(self, incoming: int) -> None:
        capacity = self._config.capacity_size
        if capacity is not None and self.size + self._incoming + incoming >= capacity and incoming:
            raise Unexpected("repository capacity limit reached")

    def _new_insert(self, size: int) -> Insert:
        try:
            fd = os.memfd_create(f"northstar-{self.id}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise Unexpected(f"failed stream npk: {error.strerror}") from None
        return _MemoryInsert(self, fd)


class _MemoryInsert(Insert):
    """A memfd, sealed when it is complete."""

    _package: Package

    def _describe(self, error: OSError) -> str:
        return f"failed stream npk: {error.strerror}"

    def verify(self) -> Package:
        """Read the package. Blocks. Raises Unexpected if it is none, or not signed as it should be."""
        try:
            _seal(self._fd)
            self._package = package.load(self._fd, self._repository.key, "memfd")
        except OSError as error:
            raise Unexpected(f"failed to read npk: {error.strerror}") from None
        except PackageError as error:
            raise Unexpected(f"failed to read npk: {error.reason}") from None
        return self._package

    def adopt(self) -> None:
        """Make it known to the repository."""
        self._repository._adopt(self._fd, self._package)
        self._repository._log.info(f"Loaded {self._package.container} from memfd")
        self._fd = -1
        self.abort()


def _open_regular(path: str) -> int:
    """A read-only descriptor of a regular file; raises OSError."""
    fd = os.open(path, _OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_same_file(path: str, fd: int) -> bool:
    """Whether `path` still names the file that we have open; if not, it is not ours to delete."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _seal(fd: int) -> None:
    import fcntl

    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
