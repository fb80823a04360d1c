# SPDX-License-Identifier: Apache-2.0
"""How control groups are removed, with or without what is in them."""

from __future__ import annotations

import errno
import os
import time

from northstar.kernel import cgroup, cgrouptree
from northstar.runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_log = log.Logger("runtime::cgroups")

REMOVE_TIMEOUT = 2.0
"""Seconds that the last processes of a group may take to end."""


def parent_of(root: int, path: str) -> tuple[int, str]:
    """A new descriptor of the group above, and the last component."""
    above, _, name = path.rpartition("/")
    return (cgroup.open_group(root, above) if above else os.dup(root)), name


def remove_group(parent: int, name: str, path: str) -> None:
    """Remove a group and those below, which are empty. May block for `REMOVE_TIMEOUT`. Raises OSError."""
    cgrouptree.remove(parent, name, timeout=REMOVE_TIMEOUT)


def remove_with_processes(parent: int, name: str, path: str) -> None:
    """Remove a group and kill what is in it and below. Raises OSError."""
    try:
        cgrouptree.remove(parent, name)
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    fd = cgroup.open_group(parent, name)
    try:
        deadline = time.monotonic() + REMOVE_TIMEOUT
        # Processes that just die are not worth a word. One by one, those that fork may escape.
        if not cgrouptree.wait_unpopulated(fd, 0.05):
            _log.warn(f"Killing what is left in cgroup {path}")
            cgrouptree.kill(fd)
            while not cgrouptree.wait_unpopulated(fd, 0.1) and time.monotonic() < deadline:
                cgrouptree.kill(fd)
    finally:
        os.close(fd)
    remove_group(parent, name, path)


def remove(root: int, path: str, how: Callable[[int, str, str], None]) -> None:
    """Remove a group of a hierarchy with one of these functions; what cannot be removed is logged."""
    try:
        parent, name = parent_of(root, path)
        try:
            how(parent, name, path)
        finally:
            os.close(parent)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warn(f"failed to remove cgroup {path}: {error.strerror}")


def remove_unused(root: int, path: str) -> bool:
    """Remove a group unless it is used by others; whether it is gone."""
    try:
        parent, name = parent_of(root, path)
        try:
            os.rmdir(name, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True
