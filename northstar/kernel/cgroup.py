# SPDX-License-Identifier: Apache-2.0
"""Control groups: which hierarchies there are, and file access below a cgroup directory. cgroups(7).

A cgroup is an open directory descriptor, its files are opened relative to it: a file name is one
path component, is never created or truncated, and a symbolic link is never followed.
"""

from __future__ import annotations

import errno
import os
import select
import time

from northstar.kernel.filesystem import CGROUP2_SUPER_MAGIC, filesystem_type
from northstar.kernel.mount import mountinfo
from northstar.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from northstar.kernel.process import pidfd_open, pidfd_send_signal

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
_SIGKILL = 9


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
            following = os.open(
                part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current
            )
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


def _check_name(name: str) -> None:
    if not name or "/" in name or name in (".", ".."):
        raise OSError(errno.EINVAL, "cgroup: not a file name", name)


def read(group_fd: int, name: str) -> bytes:
    """Content of a cgroup's file.

    ENOENT: no such file (controller off, kernel too old) or the group was removed; ENODEV: removed meanwhile.
    """
    _check_name(name)
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
    _check_name(name)
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


def populated(group_fd: int) -> bool:
    """Whether there is a process in the group or below; v1 and v2."""
    try:
        return parse_flat_keyed(read(group_fd, "cgroup.events")).get("populated", 0) != 0
    except FileNotFoundError:  # v1, and the root of v2
        return _any_process(group_fd)


def _any_process(group_fd: int) -> bool:
    try:
        if processes(group_fd):
            return True
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ENODEV):  # the group was removed
            return False
        raise
    for name in children(group_fd):
        fd = _open_child(group_fd, name)
        if fd is None:
            continue
        try:
            if _any_process(fd):
                return True
        finally:
            os.close(fd)
    return False


def _open_child(group_fd: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=group_fd)
    except FileNotFoundError:
        return None


def kill(group_fd: int) -> None:
    """SIGKILL to every process in the group and below: cgroup.kill (Linux 5.14), else one by one.

    One by one, a process that forks meanwhile may escape: repeat until `populated` says no.
    """
    try:
        write(group_fd, "cgroup.kill", "1")
        return
    except FileNotFoundError:
        pass
    for pid in processes(group_fd):
        _kill_member(group_fd, pid)
    for name in children(group_fd):
        fd = _open_child(group_fd, name)
        if fd is not None:
            try:
                kill(fd)
            finally:
                os.close(fd)


def _kill_member(group_fd: int, pid: int) -> bool:
    """Kill `pid` if it is (still) a member, so that no other process that got the number is hit."""
    if pid <= 0:  # a process of another pid namespace that we cannot name
        return False
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid not in processes(group_fd):
            return False
        pidfd_send_signal(pidfd, _SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def wait_unpopulated(group_fd: int, timeout: float) -> bool:
    """Wait until no process is left in the group and below; False if `timeout` seconds pass before.

    On v2 the kernel wakes us (poll of cgroup.events), on v1 this looks every 10 ms.
    """
    deadline = time.monotonic() + timeout
    fd = _open_events(group_fd)
    try:
        while _events_populated(fd) if fd is not None else _any_process(group_fd):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            if fd is None:
                time.sleep(min(0.01, remaining))
                continue
            # Reports a change since the last read of this very descriptor, so none is missed.
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            poller.poll(remaining * 1000)
        return True
    finally:
        if fd is not None:
            os.close(fd)


def _events_populated(fd: int) -> bool:
    try:
        return parse_flat_keyed(os.pread(fd, 4096, 0)).get("populated", 0) != 0
    except OSError as failure:
        if failure.errno == errno.ENODEV:  # the group was removed
            return False
        raise


def _open_events(group_fd: int) -> int | None:
    try:
        return os.open("cgroup.events", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=group_fd)
    except FileNotFoundError:
        return None


def remove(parent_fd: int, name: str, timeout: float = 0.0) -> None:
    """Remove the child group `name` and all groups below it, deepest first.

    While that is EBUSY (a dying process is counted until it is reaped) it is tried again until `timeout`
    seconds have passed. A group that is gone already is fine.
    """
    _check_name(name)
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            _remove_tree(parent_fd, name)
            return
        except OSError as failure:
            if failure.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 2, 0.1)


def _remove_tree(parent_fd: int, name: str) -> None:
    fd = _open_child(parent_fd, name)
    if fd is None:
        return
    try:
        for child in children(fd):
            _remove_tree(fd, child)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, name) from None
