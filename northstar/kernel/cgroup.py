# SPDX-License-Identifier: Apache-2.0
"""Control groups: which hierarchies there are, and file access below a cgroup directory. cgroups(7).

A cgroup is an open directory descriptor, its files are opened relative to it: a file name is one
path component, is never created or truncated, and a symbolic link is never followed.
"""

from __future__ import annotations

import errno
import os

from northstar.kernel.filesystem import CGROUP2_SUPER_MAGIC, filesystem_type
from northstar.kernel.mount import mountinfo
from northstar.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = "/sys/fs/cgroup"
V1 = "v1"
V2 = "v2"
HYBRID = "hybrid"

# Options of a v1 mount that are not controllers.
_V1_OPTIONS = frozenset(
    ("rw", "ro", "clone_children", "noprefix", "xattr", "cpuset_v2_mode", "none", "nsdelegate")
)
_READ_LIMIT = 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Hierarchies:
    """The cgroup file systems of the host.

    `mode` is v2 if the unified hierarchy is mounted at /sys/fs/cgroup, else v1 or hybrid (v1 controllers
    and a unified hierarchy elsewhere). `unified` is the path of the unified hierarchy or None.
    `controllers` maps a controller to the directory whose children are its cgroups.
    """

    __slots__ = ("controllers", "mode", "unified")

    def __init__(self, mode: str, unified: str | None, controllers: dict[str, str]) -> None:
        self.mode = mode
        self.unified = unified
        self.controllers = controllers

    def roots(self, controllers: Iterable[str]) -> list[str]:
        """Distinct directories of the given controllers that exist here, in that order."""
        found: list[str] = []
        for controller in controllers:
            path = self.controllers.get(controller)
            if path is not None and path not in found:
                found.append(path)
        return found


def detect(root: str = ROOT, mountinfo_path: str = "/proc/self/mountinfo") -> Hierarchies:
    """Find the hierarchies. ENOENT: `root` does not exist. No cgroups at all give an empty v1."""
    try:
        unified_root = filesystem_type(root) == CGROUP2_SUPER_MAGIC
    except FileNotFoundError:
        unified_root = False
    if unified_root:
        return Hierarchies(V2, root, dict.fromkeys(_words(f"{root}/cgroup.controllers"), root))
    unified = None
    controllers: dict[str, str] = {}
    for entry in mountinfo(mountinfo_path):
        if entry.fstype == "cgroup2" and unified is None:
            unified = entry.target
        elif entry.fstype == "cgroup":
            for option in entry.super_options - _V1_OPTIONS:
                if "=" not in option:
                    controllers.setdefault(option, entry.target)
    if unified is not None:
        for controller in _words(f"{unified}/cgroup.controllers"):
            controllers.setdefault(controller, unified)
    return Hierarchies(V1 if unified is None else HYBRID, unified, controllers)


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def open_root(path: str) -> int:
    """Descriptor of a hierarchy's directory (see `Hierarchies`)."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_group(root_fd: int, path: str) -> int:
    """Descriptor of the existing cgroup `path` (relative, "a/b") below `root_fd`.

    ENOENT: none; EXDEV: the path leads out ("..", absolute).
    """
    flags = os.O_RDONLY | os.O_DIRECTORY
    return openat2(root_fd, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def own_group(controller: str = "", path: str = "/proc/self/cgroup") -> str | None:
    """Path of our own group, relative to the hierarchy of a controller, by default the unified one.

    The root is the empty path. None: there is no such hierarchy.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, group = line.rstrip("\n").split(":", 2)
            if controller in controllers.split(","):
                return group.strip("/")
    return None


def is_root(group_fd: int) -> bool:
    """Whether a v2 group is the root of the hierarchy, and not only of our cgroup namespace."""
    try:
        read(group_fd, "cgroup.events")
    except FileNotFoundError:
        return True
    return False


def is_delegated(group_fd: int) -> bool:
    """Whether a service manager has left a v2 group to its service, as systemd does with Delegate=yes.

    It marks the directory by an extended attribute: user.delegate or, before version 251, trusted.delegate.
    """
    return b"1" in (_attribute(group_fd, "user.delegate"), _attribute(group_fd, "trusted.delegate"))


def _attribute(group_fd: int, name: str) -> bytes:
    try:
        return os.getxattr(group_fd, name)
    except OSError:  # not marked; or a kernel before 5.6, whose groups have no user attributes
        return b""


def create(root_fd: int, path: str) -> int:
    """Descriptor of the cgroup `path` below `root_fd`; it and missing parents are made.

    EINVAL: empty path, or "." or ".." in it; EAGAIN/ENOSPC: cgroup.max.descendants or depth reached.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise OSError(errno.EINVAL, "cgroup: not a plain relative path", path)
    current = os.dup(root_fd)
    try:
        for part in parts:
            _make_directory(current, part)
            following = os.open(part, DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current


def _make_directory(dirfd: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=dirfd)
    except FileExistsError:
        return False
    return True


def check_name(name: str) -> None:
    """EINVAL: no plain file name."""
    if not name or "/" in name or name in (".", ".."):
        raise OSError(errno.EINVAL, "cgroup: not a file name", name)


def read(group_fd: int, name: str) -> bytes:
    """Content of a cgroup's file.

    ENOENT: no such file (controller off, kernel too old) or the group was removed; ENODEV: removed meanwhile.
    """
    check_name(name)
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=group_fd)
    try:
        chunks = []
        total = 0
        while total < _READ_LIMIT:
            chunk = os.read(fd, 65536)
            if not chunk:
                break
            chunks.append(chunk)
            total += len(chunk)
        return b"".join(chunks)
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, name) from None
    finally:
        os.close(fd)


def write(group_fd: int, name: str, value: str | bytes) -> None:
    """Write a cgroup's file with one write(2).

    ENOENT: no such file; EINVAL, ERANGE: value refused; EBUSY: not in this state (processes inside a
    group with enabled controllers); EOPNOTSUPP: threaded group; ENODEV: group is gone.
    """
    check_name(name)
    data = value.encode() if isinstance(value, str) else value
    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=group_fd)
    try:
        os.write(fd, data)
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, name) from None
    finally:
        os.close(fd)


def parse_flat_keyed(data: bytes) -> dict[str, int]:
    """A file of lines "key value" (memory.events, cgroup.events); other lines are skipped."""
    result = {}
    for line in data.splitlines():
        key, _, value = line.partition(b" ")
        if key and value.strip().isdigit():
            result[key.decode("ascii", "replace")] = int(value)
    return result


def enable_controllers(group_fd: int, controllers: Iterable[str]) -> list[tuple[str, OSError]]:
    """Enable controllers for the children of a v2 group, one by one; those that failed, with the error.

    Those that are enabled already are left alone.
    """
    enabled = read(group_fd, "cgroup.subtree_control").decode("ascii", "replace").split()
    failed = []
    for controller in controllers:
        if controller in enabled:
            continue
        try:
            write(group_fd, "cgroup.subtree_control", f"+{controller}")
        except OSError as failure:
            failed.append((controller, failure))
    return failed


def available_controllers(group_fd: int) -> list[str]:
    """Controllers that the parent enabled for a v2 group (cgroup.controllers)."""
    return read(group_fd, "cgroup.controllers").decode("ascii", "replace").split()


def attach(group_fd: int, pid: int) -> None:
    """Move process `pid` (0: the caller) with all its threads into the group.

    ESRCH: gone; EBUSY: v2 group with controllers enabled for children; EINVAL: realtime process into a
    v1 cpu group without cpu.rt_runtime_us; EAGAIN: v1/v2 migration limits.
    """
    write(group_fd, "cgroup.procs", str(pid))


def processes(group_fd: int) -> list[int]:
    """Pids in the group itself, not its children. 0 stands for processes of other pid namespaces."""
    return [int(line) for line in read(group_fd, "cgroup.procs").split()]


def children(group_fd: int) -> list[str]:
    """Names of the child groups."""
    with os.scandir(group_fd) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
