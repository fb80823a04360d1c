# SPDX-License-Identifier: Apache-2.0
"""Persistent data of containers: one directory per name, shared by all versions of it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat

from northstar.errors import Unexpected
from northstar.kernel.filesystem import sync_directory
from northstar.manifest import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from northstar.manifest.model import Manifest

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MODE = 0o700
_MOVED = ".wiped-"
_BATCH = 1000


def prepare(data_dir: str, manifest: Manifest) -> None:
    """Create the directory if the manifest has a persist mount; owner and mode are set at every start.

    Raises Unexpected naming the path; a link at its place is refused.
    """
    if not any(isinstance(mount, model.Persist) for mount in manifest.mounts.values()):
        return
    path = f"{data_dir}/{manifest.name}"
    try:
        parent = os.open(data_dir, _DIRECTORY)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(manifest.name, MODE, dir_fd=parent)
            directory = os.open(manifest.name, _DIRECTORY, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            os.fchmod(directory, MODE)
            os.fchown(directory, manifest.uid, manifest.gid)
        finally:
            os.close(directory)
    except OSError as error:
        raise Unexpected(f"failed to prepare the persistent directory {path}: {error.strerror}") from None


def wipe(data_dir: str, name: str) -> None:
    """Delete the persistent data of `name`, if there is any, durably.

    Links are not followed, other file systems not entered. Blocks. Raises OSError; it may be tried again.
    """
    parent = os.open(data_dir, _DIRECTORY)
    try:
        _remove(parent, name, f"{data_dir}/{name}")
        sync_directory(parent)
    finally:
        os.close(parent)


def _remove(parent: int, name: str, path: str) -> None:
    try:
        top = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        # ELOOP is O_NOFOLLOW's answer for a link.
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES):
            raise
        os.unlink(name, dir_fd=parent)
        return
    try:
        _check_device(top, os.fstat(parent).st_dev, path)
        _empty(top, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or path) from None
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(top: int, path: str) -> None:
    """Remove all that is in a directory, however deep: what lies below its directories is moved up first.

    So neither the stack nor the number of descriptors grows with the depth that a container has chosen.
    """
    numbers = itertools.count()
    device = os.fstat(top).st_dev
    while names := _some_names(top):
        for name in names:
            if not _is_directory(top, name):
                os.unlink(name, dir_fd=top)
                continue
            directory = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                _check_device(directory, device, f"{path}/{name}")
                while inner := _some_names(directory):
                    for entry in inner:
                        if _is_directory(directory, entry):
                            _move(directory, entry, top, numbers)
                        else:
                            os.unlink(entry, dir_fd=directory)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=top)


def _move(source: int, name: str, top: int, numbers: Iterator[int]) -> None:
    """Give a directory a free name in another one. It may replace an empty one, which has to go anyway."""
    while True:
        try:
            os.rename(name, f"{_MOVED}{next(numbers)}", src_dir_fd=source, dst_dir_fd=top)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise


def _some_names(directory: int) -> list[str]:
    """Names in a directory, not too many at a time."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in itertools.islice(entries, _BATCH)]


def _is_directory(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _check_device(directory: int, device: int, path: str) -> None:
    if os.fstat(directory).st_dev != device:
        raise OSError(errno.EBUSY, "is a mount point", path)
