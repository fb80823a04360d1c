# SPDX-License-Identifier: Apache-2.0
"""Persistent data of containers: one directory per name, shared by all versions of it."""

from __future__ import annotations

import contextlib
import errno
import os

from northstar.errors import Unexpected
from northstar.manifest import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from northstar.manifest.model import Manifest

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MODE = 0o700


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


def exists(data_dir: str, name: str) -> bool:
    """Whether there is persistent data of `name`."""
    return os.path.lexists(f"{data_dir}/{name}")


def wipe(data_dir: str, name: str) -> None:
    """Delete the persistent data of `name`. Links are not followed, other file systems not entered.

    Blocking; raises OSError.
    """
    parent = os.open(data_dir, _DIRECTORY)
    try:
        _remove(parent, name, os.fstat(parent).st_dev)
    finally:
        os.close(parent)


def _remove(parent: int, name: str, device: int) -> None:
    try:
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        # ELOOP is O_NOFOLLOW's answer for a link.
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES):
            raise
        os.unlink(name, dir_fd=parent)
        return
    try:
        if os.fstat(directory).st_dev != device:
            raise OSError(errno.EBUSY, "is a mount point", name)
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
        for entry in names:
            _remove(directory, entry, device)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)
