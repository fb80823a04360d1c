# SPDX-License-Identifier: Apache-2.0
"""The /dev of containers: a prepared tree, cloned into each container that asks for it.

A read-only tmpfs with the host's nodes bound over empty files. It is made once, because six binds per
start are a good part of the time of a start; as it is read-only and holds nothing of a container,
sharing it gives nothing away. Each node is read-only as well: that does not keep anybody from reading and
writing the device, but nobody can change mode, owner or times of the host's node.

A manifest may mount something below its /dev: a tmpfs at /dev/shm, a further device of the host. For these
mount points there is a tree of its own, shared by all containers that want the same ones.
"""

from __future__ import annotations

import contextlib
import os
import stat

from northstar.kernel import mount
from northstar.kernel.libc import AT_FDCWD
from northstar.manifest import model
from northstar.npk.digest import sha256
from northstar.runtime.storage.mounter import MOUNT_SOURCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from northstar.manifest.model import Manifest

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

_NODE = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC


def prepare(path: str, mount_points: Mapping[str, bool] | None = None) -> None:
    """Make the tree at `path`. A node that the host lacks is left out. Raises OSError.

    `mount_points` are further ones, by path in the tree, and whether they are directories.
    """
    os.makedirs(path, 0o755, exist_ok=True)
    flags = mount.MS_NOSUID | mount.MS_NOEXEC | mount.MS_NODEV
    mount.mount(MOUNT_SOURCE, path, "tmpfs", flags, "mode=755,size=64k")
    try:
        mount.mount(None, path, None, mount.MS_PRIVATE)
        for name, numbers in NODES.items():
            _bind_node(f"{path}/{name}", f"/dev/{name}", numbers)
        for name, target in LINKS.items():
            os.symlink(target, f"{path}/{name}")
        for name, is_directory in (mount_points or {}).items():
            _make_mount_point(f"{path}/{name}", is_directory=is_directory)
        mount.mount(None, path, None, mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY | flags)
    except BaseException:
        _remove(path)
        raise


def tree_for(path: str, manifest: Manifest) -> str:
    """Path of the tree for a container: `path`, or one beside it that is made now. Raises OSError."""
    own, points = _own_tree(path, manifest)
    if points and not os.path.ismount(own):
        prepare(own, points)
    return own


def path_for(path: str, manifest: Manifest) -> str:
    """Path of the tree that `tree_for` would make. Raises OSError."""
    return _own_tree(path, manifest)[0]


def _own_tree(path: str, manifest: Manifest) -> tuple[str, dict[str, bool]]:
    points = _mount_points(manifest)
    if not points:
        return path, points
    return f"{path}-{sha256(repr(sorted(points.items())).encode()).hexdigest()[:16]}", points


def remove(path: str) -> None:
    """Unmount the tree, and those that were made beside it. Raises OSError."""
    _remove(path)
    directory, name = os.path.split(path)
    for entry in os.listdir(directory):
        if entry.startswith(f"{name}-"):
            _remove(f"{directory}/{entry}")


def _remove(path: str) -> None:
    if os.path.ismount(path):
        mount.umount(path, mount.MNT_DETACH)
    os.rmdir(path)


def _mount_points(manifest: Manifest) -> dict[str, bool]:
    """What the container mounts below a mount of type dev: the path there, and whether it is a directory.

    What lies below one of these is in another file system. A bind whose source is missing has no type.
    """
    found: dict[str, bool] = {}
    tops = [target for target, wanted in manifest.mounts.items() if isinstance(wanted, model.Dev)]
    for target, wanted in manifest.mounts.items():
        above = max(
            (other for other in manifest.mounts if target.startswith(f"{other}/")), key=len, default=""
        )
        if above in tops:
            with contextlib.suppress(FileNotFoundError):
                found[target.removeprefix(f"{above}/")] = _is_directory(wanted)
    return found


def _is_directory(wanted: model.Mount) -> bool:
    return not isinstance(wanted, model.Bind) or stat.S_ISDIR(os.stat(wanted.host).st_mode)


def _make_mount_point(path: str, *, is_directory: bool) -> None:
    """An empty directory or file, unless there is something already that can be mounted over."""
    if os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    if is_directory:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


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
        clone = mount.open_tree(descriptor, "", mount.OPEN_TREE_CLONE | mount.OPEN_TREE_CLOEXEC)
        mount.mount_setattr(clone, "", 0, _NODE)
        mount.move_mount(clone, AT_FDCWD, target)
        os.close(clone)
    finally:
        os.close(descriptor)
