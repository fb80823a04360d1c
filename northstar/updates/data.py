# SPDX-License-Identifier: Apache-2.0
"""A copy of a container's persistent data, put aside for the old version while the new one is on trial.

The directory `NAME` of data_dir is copied to `.NAME@VERSION`, under a temporary name until the copy is
complete and durable. All functions block, may be repeated after a power cut at any place, and raise OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from northstar.kernel.filesystem import sync_directory, syncfs, write_all
from northstar.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.names import Container

_TEMPORARY, _REPLACED = ".tmp", ".old"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512
_CHUNK = 1 << 20
_MAX_DEPTH = 100
"""Levels of directories; of two for each a descriptor is open."""
_RESERVE = 1 << 20
"""Bytes that stay free: directories need room as well."""


class Room(NamedTuple):
    """Bytes that a copy takes, and those that are free."""

    needed: int
    free: int

    @property
    def enough(self) -> bool:
        """Whether the copy fits."""
        return self.needed == 0 or self.needed + _RESERVE <= self.free


def room(data_dir: str, name: str) -> Room:
    """How much room a copy of the data of `name` takes; nothing if there is no data."""
    status = os.statvfs(data_dir)
    free = status.f_bavail * status.f_frsize
    needed = 0
    try:
        for _, _, files, top in os.fwalk(os.path.join(data_dir, name), follow_symlinks=False):
            needed += os.fstat(top).st_blocks * _BLOCK
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    needed += os.stat(file, dir_fd=top, follow_symlinks=False).st_blocks * _BLOCK
    except FileNotFoundError:
        return Room(0, free)
    return Room(needed, free)


def copy(data_dir: str, container: Container) -> None:
    """Put a copy aside, unless that was done before; then the data may be that of the new version already."""
    parent = os.open(data_dir, _DIRECTORY)
    try:
        kept, temporary = _kept(container), f"{_kept(container)}{_TEMPORARY}"
        if _exists(parent, kept):
            return
        _remove(data_dir, temporary)
        try:
            source = os.open(container.name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            return
        try:
            os.mkdir(temporary, 0o700, dir_fd=parent)
            target = os.open(temporary, _DIRECTORY, dir_fd=parent)
            try:
                _copy_tree(source, target)
                _sync(target)
            finally:
                os.close(target)
        except OSError:
            _remove(data_dir, temporary)
            raise
        finally:
            os.close(source)
        os.rename(temporary, kept, src_dir_fd=parent, dst_dir_fd=parent)
        sync_directory(parent)
    finally:
        os.close(parent)


def restore(data_dir: str, container: Container) -> None:
    """Put the copy back into its place, if there is one."""
    parent = os.open(data_dir, _DIRECTORY)
    try:
        kept, replaced = _kept(container), f"{_kept(container)}{_REPLACED}"
        if not _exists(parent, kept):
            _remove(data_dir, replaced)
            return
        if _exists(parent, container.name):
            _remove(data_dir, replaced)
            os.rename(container.name, replaced, src_dir_fd=parent, dst_dir_fd=parent)
        os.rename(kept, container.name, src_dir_fd=parent, dst_dir_fd=parent)
        sync_directory(parent)
        _remove(data_dir, replaced)
    finally:
        os.close(parent)


def drop(data_dir: str, container: Container) -> None:
    """The copy is not needed any more."""
    for suffix in ("", _TEMPORARY, _REPLACED):
        _remove(data_dir, f"{_kept(container)}{suffix}")


def _kept(container: Container) -> str:
    """No name of a container begins with a dot."""
    return f".{container.name}@{container.version}"


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(data_dir: str, name: str) -> None:
    from northstar.runtime.storage import persist

    persist.wipe(data_dir, name)


def _sync(directory: int) -> None:
    """All of the file system (syncfs(2)), as thousands of files would take longer one by one."""
    syncfs(directory)


# --- copying


def _copy_tree(source: int, target: int) -> None:
    """Contents, owners, modes, times and extended attributes. Sockets are left out, as nobody serves them."""
    _copy_level(source, target, "", target, {})


def _copy_level(source: int, target: int, path: str, top: int, links: dict[tuple[int, int], str]) -> None:
    """`path` is that of the directory below `top`, with a slash behind it; `links` has files with several
    names that were copied."""
    if path.count("/") > _MAX_DEPTH:
        raise OSError(errno.ENAMETOOLONG, f"is nested deeper than {_MAX_DEPTH} levels", path[:80])
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        where = f"{path}{name}"
        if stat.S_ISDIR(status.st_mode):
            _copy_directory(source, target, name, where, top, links, device)
        elif status.st_nlink > 1 and (known := links.get((status.st_dev, status.st_ino))) is not None:
            os.link(known, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
        else:
            _copy_entry(source, target, name, status)
            if status.st_nlink > 1:
                links[status.st_dev, status.st_ino] = where
    _copy_attributes(source, target)


def _copy_directory(
    source: int,
    target: int,
    name: str,
    path: str,
    top: int,
    links: dict[tuple[int, int], str],
    device: int,
) -> None:
    inner = os.open(name, _DIRECTORY, dir_fd=source)
    try:
        if os.fstat(inner).st_dev != device:
            raise OSError(errno.EXDEV, "is a mount point", path)
        os.mkdir(name, 0o700, dir_fd=target)
        copy_of_it = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            _copy_level(inner, copy_of_it, f"{path}/", top, links)
        finally:
            os.close(copy_of_it)
    finally:
        os.close(inner)


def _copy_entry(source: int, target: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target, name)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(name, 0o600, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)


def _copy_file(source: int, target: int, name: str) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            _copy_content(reader, writer)
            _copy_attributes(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_content(reader: int, writer: int) -> None:
    """Holes stay holes (SEEK_DATA in lseek(2)), lest a sparse file fills the disk."""
    size = os.fstat(reader).st_size
    os.ftruncate(writer, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(reader, position, os.SEEK_HOLE)
        os.lseek(writer, position, os.SEEK_SET)
        os.lseek(reader, position, os.SEEK_SET)
        while position < end:
            data = os.read(reader, min(_CHUNK, end - position))
            if not data:
                return
            write_all(writer, data)
            position += len(data)


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    _copy_extended_attributes(source, target)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_extended_attributes(source: int, target: int) -> None:
    """See xattr(7). A label that the policy of a security module lets nobody set is given by that module."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            tolerated = error.errno in (errno.ENOTSUP, errno.ENODATA, errno.EPERM)
            if not tolerated and not name.startswith("security."):
                raise
