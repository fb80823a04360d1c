# SPDX-License-Identifier: Apache-2.0
"""The /dev of containers: one prepared tree, cloned into each container that asks for it.

A read-only tmpfs with the host's nodes bound over empty files. It is made once, because six binds per
start are a good part of the time of a start; as it is read-only and holds nothing of a container,
sharing it gives nothing away.
"""

from __future__ import annotations

import os
import stat

from northstar.kernel import mount
from northstar.kernel.libc import AT_FDCWD

NODES = {
    "full": (1, 7),
    "null": (1, 3),
    "random": (1, 8),
    "tty": (5, 0),
    "urandom": (1, 9),
    "zero": (1, 5),
}
"""Character devices of a container: major and minor number."""

LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


def prepare(path: str) -> None:
    """Make the tree at `path`. A node that the host lacks is left out. Raises OSError."""
    os.makedirs(path, 0o755, exist_ok=True)
    flags = mount.MS_NOSUID | mount.MS_NOEXEC | mount.MS_NODEV
    mount.mount("tmpfs", path, "tmpfs", flags, "mode=755,size=64k")
    for name, numbers in NODES.items():
        _bind_node(f"{path}/{name}", f"/dev/{name}", numbers)
    for name, target in LINKS.items():
        os.symlink(target, f"{path}/{name}")
    mount.mount(None, path, None, mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY | flags)


def remove(path: str) -> None:
    """Unmount the tree."""
    mount.umount(path, mount.MNT_DETACH)
    os.rmdir(path)


def _bind_node(target: str, source: str, numbers: tuple[int, int]) -> None:
    try:
        descriptor = os.open(source, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        found = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if not stat.S_ISCHR(status.st_mode) or found != numbers:
            raise OSError(0, f"is not the character device {numbers[0]}:{numbers[1]}", source)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        tree = mount.open_tree(descriptor, "", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
        mount.mount_setattr(tree, "", 0, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC)
        mount.move_mount(tree, AT_FDCWD, target)
        os.close(tree)
    finally:
        os.close(descriptor)
