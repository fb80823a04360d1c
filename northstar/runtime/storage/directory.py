# SPDX-License-Identifier: Apache-2.0
"""A repository in a directory, one file per package.

An install becomes visible with a rename of a complete and synchronised file, so a crash leaves the old state
or the new; and nothing is acknowledged before the directory is synchronised as well.

A package is known by its manifest, the name of its file is of no meaning: file systems differ in the names
that they take (vfat: no colon) and in those that they tell apart (vfat: not by upper and lower case).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
import zlib

from northstar.errors import NorthstarError, PackageError, StorageError, Unexpected
from northstar.kernel.filesystem import allocate, start_writeback
from northstar.kernel.filesystem import sync_directory as sync_open_directory
from northstar.runtime.storage.repository import Insert, Repository, close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from northstar.config import RepositoryConfig
    from northstar.names import Container
    from northstar.npk.package import Package
    from northstar.runtime.log import Logger

TEMPORARY_SUFFIX = ".tmp"
_TOKEN_SIZE = 12
_WRITEBACK_SIZE = 4 << 20
_REFUSED_NAME = frozenset((errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EPERM))
"""What file systems say of a name that they cannot have."""
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def temporary_name() -> str:
    """Name of a file that is not complete yet."""
    return f".{os.urandom(_TOKEN_SIZE).hex()}{TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Whether a file has such a name, and so is ours to remove."""
    token = name.removeprefix(".").removesuffix(TEMPORARY_SUFFIX)
    if name != f".{token}{TEMPORARY_SUFFIX}" or len(token) != 2 * _TOKEN_SIZE:
        return False
    return set(token) <= set("0123456789abcdef")


class DirectoryRepository(Repository):
    """One file per package."""

    def __init__(self, config: RepositoryConfig, log: Logger) -> None:
        super().__init__(config, log)
        assert config.dir is not None
        self.dir = config.dir
        self.paths: dict[Container, str] = {}
        self._stopped = False
        self._writable = True

    @property
    def writable(self) -> bool:
        """Whether packages can be added and removed."""
        return self._writable

    @property
    def journals(self) -> str | None:
        """Its directory, if it can be written to."""
        return self.dir if self._writable else None

    def stop_loading(self) -> None:
        """Let `load` end early, from another thread."""
        self._stopped = True

    def load(self) -> None:
        """Load every package in the directory. Files that are none are skipped with a warning, hidden ones
        without. Blocks. Raises NorthstarError, or StorageError if the disk fails."""
        began = time.monotonic()
        self._writable = os.access(self.dir, os.W_OK)  # also false on a read-only file system
        trust = f"with key {', '.join(self._config.keys)}" if self.verified else "(unverified)"
        self.log.info(f"Loading repository {self.dir} {trust}")
        if not self.verified:
            self._warn_writable(self.dir)
        for name in self._names():
            if self._stopped:
                return
            if not name.startswith("."):
                self._load_file(os.path.join(self.dir, name))
        spent = time.monotonic() - began
        self.log.info(f"Loaded {len(self.packages)} containers from {self.dir} in {spent:.3f}s")

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.dir))
        except OSError as error:
            reason = f"repository {self.id}: failed to read dir {self.dir}: {error.strerror}"
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise NorthstarError(reason, "the directory must exist") from None
            raise StorageError(reason) from None

    def _warn_writable(self, path: str) -> None:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
                self.log.warn(f"Others than root may write {path} of repository {self.id}, which has no key")

    def _load_file(self, path: str) -> None:
        try:
            fd = _open_regular(path)
        except OSError as error:
            self.log.warn(f"Skipping {path}: {error.strerror}")
            return
        try:
            loaded = self.read(fd, path)
        except PackageError as error:
            self.log.warn(f"Skipping {error}")
            close(fd, self.log, path)
            return
        if loaded.container in self.packages:
            self.log.warn(f"Skipping {path}: {loaded.container} is already loaded from this repository")
            close(fd, self.log, path)
            return
        self.adopt(fd, loaded)
        self.paths[loaded.container] = path
        self.log.info(f"Loaded {loaded.container} from {path}")

    def close(self) -> None:
        """Close all files."""
        super().close()
        self.paths.clear()

    @property
    def _place(self) -> str:
        return self.dir

    def is_taken(self, path: str) -> bool:
        """Whether a package of this repository is in the file of that name. Blocks. Raises OSError."""
        try:
            found = os.lstat(path)
        except OSError as error:
            if error.errno in _REFUSED_NAME:
                return False
            raise
        if any(_is_open_as(fd, found) for fd in list(self._fds.values())):
            return True
        # FUSE may have another inode number for each spelling.
        return path.casefold() in [known.casefold() for known in list(self.paths.values())]

    def _check_room(self, incoming: int) -> None:
        capacity = self._config.capacity_size
        if capacity is None:
            return
        stored = self.size + self._incoming
        if stored >= capacity or stored + incoming > capacity:
            raise Unexpected("size limit reached")

    def _new_insert(self, size: int) -> Insert:
        return _FileInsert(self, size)

    def delete(self, container: Container) -> None:
        """Delete the file of a package, durably. Blocks. Raises Unexpected; then it may be tried again."""
        super().delete(container)
        path = self.paths[container]
        try:
            if _is_same_file(path, self._fds[container]):
                os.unlink(path)
        except OSError as error:
            self.log.warn(f"Failed to remove {path}: {error.strerror}")
            raise Unexpected(f"failed to remove {path}: {error.strerror}") from None
        try:
            # Also if the file is gone: an earlier attempt may have come this far.
            sync_directory(self.dir)
        except OSError as error:
            self.log.warn(f"Failed to synchronise {self.dir}: {error.strerror}")
            reason = f"{path} is removed, but a power failure may bring it back: {error.strerror}"
            raise Unexpected(f"{reason}; uninstall it again") from None

    def forget(self, container: Container) -> int:
        """A package was deleted; its descriptor, which is the caller's now. Closing it may block."""
        del self.paths[container]
        return super().forget(container)


class _FileInsert(Insert):
    """A file with a temporary name, until it is complete."""

    _repository: DirectoryRepository

    def __init__(self, repository: DirectoryRepository, size: int) -> None:
        super().__init__(repository, size)
        self._announced = size
        self._path = ""
        self._received = 0
        self._handed_over = 0
        self._reader = -1
        self._package: Package

    def open(self) -> None:
        """Make the file. Blocks. Raises Unexpected, also if there is no room for all of the package."""
        path = os.path.join(self._repository.dir, temporary_name())
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._path = path
            # Rather refuse one of several at once than have all of them fail halfway.
            allocate(self._fd, self._announced)
        except OSError as error:
            raise Unexpected(self._describe(error)) from None

    def _written(self, size: int) -> None:
        """Let the disk work while the rest arrives, so that the fsync at the end is short."""
        self._received += size
        size = self._received - self._handed_over
        if size >= _WRITEBACK_SIZE:
            start_writeback(self._fd, self._handed_over, size)
            self._handed_over += size

    def _describe(self, error: OSError) -> str:
        return f"{error.strerror} ({self._repository.dir})"

    def verify(self) -> Package:
        """Read the package. Blocks. Raises Unexpected if it is none, or not signed as it should be."""
        try:
            # Room that was reserved, and not needed after all.
            os.ftruncate(self._fd, self._received)
            # Through a new descriptor, as a file that is open for writing cannot be trusted to stay.
            self._reader = _open_regular(self._path)
            self._package = self._repository.read(self._reader, self._path)
        except OSError as error:
            raise Unexpected(f"failed to read npk {self._path}: {error.strerror}") from None
        except PackageError as error:
            self._check_written()
            raise Unexpected(f"failed to read npk {self._path}: {error.reason}") from None
        return self._package

    def _check_written(self) -> None:
        """Some file systems tell late that there was no room: NFS when the file is synchronised."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise Unexpected(self._describe(error)) from None

    def publish(self) -> None:
        """Give the complete file its name, durably. A file of that name that is no package gives way."""
        try:
            os.fsync(self._fd)
            self._rename()
            sync_directory(self._repository.dir)
            writer, self._fd = self._fd, -1
            os.close(writer)
        except OSError as error:
            raise Unexpected(f"failed to store {error.filename2 or self._path}: {error.strerror}") from None

    def _rename(self) -> None:
        """The first name that the file system takes, and that no other package has."""
        refused: OSError | None = None
        for name in file_names(self._package.container):
            target = os.path.join(self._repository.dir, name)
            try:
                if self._repository.is_taken(target):
                    continue
                os.rename(self._path, target)
            except OSError as error:
                if error.errno not in _REFUSED_NAME:
                    raise
                refused = refused or error
            else:
                self._path = target
                return
        raise refused or OSError(errno.EEXIST, os.strerror(errno.EEXIST), self._path, None, target)

    def adopt(self) -> None:
        """Make it known to the repository."""
        repository, container = self._repository, self._package.container
        repository.adopt(self._reader, self._package)
        repository.paths[container] = self._path
        repository.log.info(f"Loaded {container} from {self._path}")
        self._reader, self._path = -1, ""
        self.release()

    def discard(self) -> None:
        """Throw away what was received, unless it was adopted. Blocks. What cannot be removed is logged."""
        super().discard()
        if self._reader >= 0:
            fd, self._reader = self._reader, -1
            close(fd, self._repository.log, self._path)
        if self._path:
            path, self._path = self._path, ""
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
            except OSError as error:
                self._repository.log.warn(f"Failed to remove {path}: {error.strerror}")


def file_names(container: Container) -> Iterator[str]:
    """Names of an installed package, best first: upstream's, one without a colon, one with digits."""
    name, version = container
    digits = f"{zlib.crc32(str(container).encode()):08x}"
    yield f"{name}:{version}.npk"
    yield f"{name}@{version}.npk"
    yield f"{name}@{version}~{digits}.npk"


def sync_directory(path: str) -> None:
    """Make permanent which names there are in a directory. Blocks. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_open_directory(fd)
    finally:
        os.close(fd)


def _open_regular(path: str) -> int:
    """A read-only descriptor of a regular file; raises OSError."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:  # O_NOFOLLOW's answer
            error.strerror = "it is a symbolic link, and a repository has to have the package itself"
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return fd


def _is_open_as(fd: int, found: os.stat_result) -> bool:
    """Whether a descriptor, which another thread may be closing, is of that file."""
    try:
        return os.path.samestat(os.fstat(fd), found)
    except OSError:
        return False


def _is_same_file(path: str, fd: int) -> bool:
    """Whether `path` still names the file that we have open; if not, it is not ours to delete."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # a server may have removed what we have open
            return False
        raise
