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
    from collections.abc import Callable

    from northstar.config import RepositoryConfig
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.runtime.log import Logger

    Check = Callable[[Package], None]

_TEMPORARY_SUFFIX = ".tmp"
_WRITEBACK_SIZE = 4 << 20
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Repository:
    """Packages under one key. Methods other than `load` and `Insert.commit` do not block for long."""

    def __init__(self, config: RepositoryConfig, log: Logger) -> None:
        """Read the key; raises NorthstarError."""
        self.id = config.id
        self.key = keys.load_public(config.key, trusted=True) if config.key is not None else None
        self.packages: dict[Container, Package] = {}
        self._config = config
        self._log = log
        self._fds: dict[Container, int] = {}
        self._reserved = 0

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
        config = self._config
        if config.capacity_num is not None and len(self.packages) >= config.capacity_num:
            raise Unexpected("max number of container reached")
        self._check_room(0)
        return self._new_insert(size)

    def remove(self, container: Container) -> None:
        """Forget a package and delete its file. Raises Unexpected, then nothing has changed."""
        self._delete(container)
        del self.packages[container]
        os.close(self._fds.pop(container))

    def close(self) -> None:
        """Close all files."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self.packages.clear()

    def _adopt(self, fd: int, loaded: Package) -> None:
        self.packages[loaded.container] = loaded
        self._fds[loaded.container] = fd

    def _check_room(self, incoming: int) -> None:
        raise NotImplementedError

    def _new_insert(self, size: int) -> Insert:
        raise NotImplementedError

    def _delete(self, container: Container) -> None:
        raise NotImplementedError

    def _commit(self, insert: Insert, check: Check) -> Package:
        raise NotImplementedError


class Insert:
    """A package on its way in. End it with `commit` or `abort`."""

    def __init__(self, repository: Repository, fd: int, path: str | None) -> None:
        self.fd = fd
        self.path = path
        self.received = 0
        self._repository = repository
        self._handed_over = 0

    def write(self, data: memoryview) -> None:
        """Append to the package. Raises Unexpected if it does not fit."""
        size = len(data)
        self._repository._check_room(self.received + size)
        try:
            while data:
                data = data[os.write(self.fd, data) :]
            self.received += size
            if self.path is not None:
                self._write_back()
        except OSError as error:
            raise Unexpected(_write_error(error, self.path)) from None

    def _write_back(self) -> None:
        """Let the disk work while the rest arrives, so that the fsync at the end is short."""
        size = self.received - self._handed_over
        if size >= _WRITEBACK_SIZE:
            start_writeback(self.fd, self._handed_over, size)
            self._handed_over += size

    def commit(self, check: Check) -> Package:
        """Verify the package and make it part of the repository; `check` may refuse it.

        Blocks. Raises ApiError, then nothing stays.
        """
        try:
            return self._repository._commit(self, check)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Throw away what was received."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self.path = None


def _write_error(error: OSError, path: str | None) -> str:
    text = error.strerror or str(error)
    return "failed stream npk: " + text if path is None else f"{text} ({os.path.dirname(path)})"


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

    def _check_room(self, incoming: int) -> None:
        capacity = self._config.capacity_size
        if capacity is None:
            return
        stored = self.size
        if stored >= capacity or stored + incoming > capacity:
            raise Unexpected("size limit reached")

    def _new_insert(self, size: int) -> Insert:
        path = os.path.join(self._dir, f".{os.urandom(12).hex()}{_TEMPORARY_SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return Insert(self, os.open(path, flags, 0o644), path)
        except OSError as error:
            raise Unexpected(f"{error.strerror} ({self._dir})") from None

    def _commit(self, insert: Insert, check: Check) -> Package:
        assert insert.path is not None
        try:
            # Through a new descriptor, as a file that is open for writing cannot be trusted to stay.
            fd = _open_regular(insert.path)
        except OSError as error:
            raise Unexpected(f"failed to read npk {insert.path}: {error.strerror}") from None
        try:
            loaded = self._verify(fd, insert)
            target = os.path.join(self._dir, f"{loaded.container}.npk")
            if loaded.container in self.packages or target in self._paths.values():
                raise Unexpected(f"{loaded.container} already in {self._dir}")
            check(loaded)
            _publish(insert, target, self._dir)
        except BaseException:
            os.close(fd)
            raise
        self._adopt(fd, loaded)
        self._paths[loaded.container] = target
        self._log.info(f"Loaded {loaded.container} from {target}")
        return loaded

    def _verify(self, fd: int, insert: Insert) -> Package:
        try:
            return package.load(fd, self.key, str(insert.path))
        except PackageError as error:
            raise Unexpected(f"failed to read npk {insert.path}: {error.reason}") from None

    def _delete(self, container: Container) -> None:
        path = self._paths[container]
        self._log.debug(f"Removing {container} from {self.id}")
        try:
            if _is_same_file(path, self._fds[container]):
                os.unlink(path)
                _sync_directory(self._dir)
        except OSError as error:
            self._log.warn(f"Failed to remove {path}: {error.strerror}")
            raise Unexpected(f"failed to remove {path}: {error.strerror}") from None
        del self._paths[container]


class MemoryRepository(Repository):
    """Packages in sealed memory, gone with the daemon (memfd_create(2), F_ADD_SEALS in fcntl(2))."""

    def load(self) -> None:
        """Nothing to load; it starts empty."""
        trust = f"with key {self._config.key}" if self.verified else "(unverified)"
        self._log.info(f"Loading memory repository {trust}")

    def _check_room(self, incoming: int) -> None:
        capacity = self._config.capacity_size
        if capacity is not None and self.size + incoming >= capacity and incoming:
            raise Unexpected("repository capacity limit reached")

    def _new_insert(self, size: int) -> Insert:
        try:
            fd = os.memfd_create(f"northstar-{self.id}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise Unexpected(f"failed stream npk: {error.strerror}") from None
        return Insert(self, fd, None)

    def _commit(self, insert: Insert, check: Check) -> Package:
        try:
            _seal(insert.fd)
            loaded = package.load(insert.fd, self.key, "memfd")
        except OSError as error:
            raise Unexpected(f"failed to read npk: {error.strerror}") from None
        except PackageError as error:
            raise Unexpected(f"failed to read npk: {error.reason}") from None
        if loaded.container in self.packages:
            raise Unexpected(f"{loaded.container} already in repository")
        check(loaded)
        self._adopt(insert.fd, loaded)
        insert.fd = -1
        self._log.info(f"Loaded {loaded.container} from memfd")
        return loaded

    def _delete(self, container: Container) -> None:
        self._log.debug(f"Removing {container} from {self.id}")


def _open_regular(path: str) -> int:
    """A read-only descriptor of a regular file; raises OSError."""
    fd = os.open(path, _OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


def _publish(insert: Insert, target: str, directory: str) -> None:
    """Give a complete file its name, durably. A file of that name that is no package gives way."""
    assert insert.path is not None
    try:
        os.fsync(insert.fd)
        os.rename(insert.path, target)
        insert.path = None
        _sync_directory(directory)
    except OSError as error:
        raise Unexpected(f"failed to store {target}: {error.strerror}") from None
    os.close(insert.fd)
    insert.fd = -1


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
